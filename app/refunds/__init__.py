"""Money back out: what of each payment can go back, the way of a refund, and disputes.

A refund belongs to one payment. Its money is on hold from the request until it is really gone, so it is never spent and paid out both; it
goes back by the payment's own method, in the currency paid, at the rate it came in at. Of one payment never more goes back than came.
What a processor says of refunds and disputes comes with its snapshots of the payment (`follow`), whichever way those were got.
"""

from app.refunds.asking import DAILY, approve, decline, request
from app.refunds.book import Case, Refund, RefundError, Step, case, of_customer, queue
from app.refunds.disputes import lose_dispute, open_dispute, win_dispute
from app.refunds.paying import follow, mark_paid, pay_out, pay_out_due, reconcile
from app.refunds.sources import Source, refundable, source

__all__ = [
    "DAILY",
    "Case",
    "Refund",
    "RefundError",
    "Source",
    "Step",
    "approve",
    "case",
    "decline",
    "follow",
    "lose_dispute",
    "mark_paid",
    "of_customer",
    "open_dispute",
    "pay_out",
    "pay_out_due",
    "queue",
    "reconcile",
    "refundable",
    "request",
    "source",
    "win_dispute",
]
