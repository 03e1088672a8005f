"""Bills, their numbers, and the documents made of them.

A bill is issued unpaid, with a pro forma. Settling it gives it, in the caller's transaction, the next invoice number of a gapless
series and a receipt. What a bill or a document says is fixed when it is issued; the database refuses any change to it.
"""

from app.invoicing.bills import (
    DUE_AFTER,
    AlreadySettled,
    Bill,
    BillError,
    Draft,
    Line,
    NotCancellable,
    Settlement,
    cancel,
    expire_due,
    find,
    issue_many,
    issue_payment_receipts,
    issue_refund_receipt,
    issue_service_bill,
    issue_topup_bill,
    lock,
    lock_many,
    mark_refunded,
    not_cancellable,
    settle,
    settle_many,
    standing_topup,
)
from app.invoicing.documents import day_in
from app.invoicing.files import LARGEST_BUNDLE, File, PressBusy, bundle, pdf, receipt_pdf, receipts_of, refund_pdf, render_pending
from app.invoicing.paper import Paper, on_screen
from app.invoicing.press import GlyphsMissing, PressError
from app.invoicing.search import KINDS, PERIODS, SIZES, STATUSES, Entry, Exported, Filter, Page, export, search
from app.invoicing.states import STATES, Standing, standing, standings
from app.invoicing.states import read as state_of
from app.invoicing.timeline import Step, timeline
from app.invoicing.totals import Totals, total

__all__ = [
    "DUE_AFTER",
    "KINDS",
    "LARGEST_BUNDLE",
    "PERIODS",
    "SIZES",
    "STATES",
    "STATUSES",
    "AlreadySettled",
    "Bill",
    "BillError",
    "Draft",
    "Entry",
    "Exported",
    "File",
    "Filter",
    "GlyphsMissing",
    "Line",
    "NotCancellable",
    "Page",
    "Paper",
    "PressBusy",
    "PressError",
    "Settlement",
    "Standing",
    "Step",
    "Totals",
    "bundle",
    "cancel",
    "day_in",
    "expire_due",
    "export",
    "find",
    "issue_many",
    "issue_payment_receipts",
    "issue_refund_receipt",
    "issue_service_bill",
    "issue_topup_bill",
    "lock",
    "lock_many",
    "mark_refunded",
    "not_cancellable",
    "on_screen",
    "pdf",
    "receipt_pdf",
    "receipts_of",
    "refund_pdf",
    "render_pending",
    "search",
    "settle",
    "settle_many",
    "standing",
    "standing_topup",
    "standings",
    "state_of",
    "timeline",
    "total",
]
