"""Money back out: what of each payment can go back, the way of a refund, and disputes.

A refund belongs to one payment. Its money is on hold from the request until it is really gone, so it is never spent and paid out both; it
goes back by the payment's own method, in the currency paid, at the rate it came in at. Of one payment never more goes back than came.
What a processor says of refunds and disputes comes with its snapshots of the payment (`follow`), whichever way those were got.
"""

from app.refunds.asking import DAILY, HASTE, approve, checked_account, decline, open_by_support, quiet_until, request
from app.refunds.book import PAGE, Case, Refund, RefundError, Step, case, closed, of_customer, queue
from app.refunds.byhand import Payout, came_back, commission, hold_payouts, left, note_payout, payout, payouts, refused
from app.refunds.contested import UNDER_WAY, Dispute, dispute_case, disputes_in, disputes_of, disputes_of_payment
from app.refunds.disputes import lose_dispute, open_dispute, take_by_hand, win_dispute
from app.refunds.held import Held, credit_waiting, held_case, held_money, mark_returned, release, send_back, send_back_due
from app.refunds.paying import follow, mark_paid, pay_out, pay_out_due, reconcile
from app.refunds.returned import take_back
from app.refunds.sources import Origin, Source, find_payments, origin, refundable, source, unused

__all__ = [
    "DAILY",
    "HASTE",
    "PAGE",
    "UNDER_WAY",
    "Case",
    "Dispute",
    "Held",
    "Origin",
    "Payout",
    "Refund",
    "RefundError",
    "Source",
    "Step",
    "approve",
    "came_back",
    "case",
    "checked_account",
    "closed",
    "commission",
    "credit_waiting",
    "decline",
    "dispute_case",
    "disputes_in",
    "disputes_of",
    "disputes_of_payment",
    "find_payments",
    "follow",
    "held_case",
    "held_money",
    "hold_payouts",
    "left",
    "lose_dispute",
    "mark_paid",
    "mark_returned",
    "note_payout",
    "of_customer",
    "open_by_support",
    "open_dispute",
    "origin",
    "pay_out",
    "pay_out_due",
    "payout",
    "payouts",
    "queue",
    "quiet_until",
    "reconcile",
    "refundable",
    "refused",
    "release",
    "request",
    "send_back",
    "send_back_due",
    "source",
    "take_back",
    "take_by_hand",
    "unused",
    "win_dispute",
]
