"""Bills, their numbers, and the documents made of them.

A bill is issued unpaid, with a pro forma. Settling it gives it, in the caller's transaction, the next invoice number of a gapless
series and a receipt. What a bill or a document says is fixed when it is issued; the database refuses any change to it.
"""

from app.invoicing.bills import (
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
    issue_service_bill,
    issue_topup_bill,
    lock,
    settle,
    settle_many,
)
from app.invoicing.totals import Totals, total

__all__ = [
    "AlreadySettled",
    "Bill",
    "BillError",
    "Draft",
    "Line",
    "NotCancellable",
    "Settlement",
    "Totals",
    "cancel",
    "expire_due",
    "find",
    "issue_many",
    "issue_service_bill",
    "issue_topup_bill",
    "lock",
    "settle",
    "settle_many",
    "total",
]
