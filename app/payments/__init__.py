"""Money in: the payments of a bill, their one state machine, and the inbox of what processors tell us.

A payment is written before the processor is called, with its id as the key; what the processor answers is written after. A webhook, the
return page and the reconciling job are three ways to the same place: `look up`, then `apply`, and only there money moves, once.
"""

from app.limits import LIMITS, Limits, limits
from app.payments import cards, outages
from app.payments.arriving import BANK, SUSPENSE, Arrival, Credited, still_due, take_in
from app.payments.bonuses import expire_bonuses, grant_bonus
from app.payments.book import NotPayable, Payment, Step, bill_of, due, end_review, find, hold, hold_many, locked, mark_taken_back, open_of, restate, timeline
from app.payments.cards import Card, CardError
from app.payments.charging import charge_unasked, pay_by_card
from app.payments.inbox import parked, process, process_due, receive, replay
from app.payments.links import Link, ask, asked, follow, order_for, share, shared, told, told_at, unshare, withdraw
from app.payments.senders import NOT_THE_SENDER, Sender, sender_of
from app.payments.settling import CANNOT_CONVERT, NO_RATE, apply, convert, credit_held, earnings, follow_with, pay_from_balance, tell_of_held
from app.payments.starting import Options, ProcessorDown, QuoteExpired, balance_problem, instructions, method_of, offer_for, options, order_topup, start, topup_problem
from app.payments.watching import close_settled, leave, look_at, look_over, reconcile, reconcile_all, refresh

__all__ = [
    "BANK",
    "CANNOT_CONVERT",
    "LIMITS",
    "NOT_THE_SENDER",
    "NO_RATE",
    "SUSPENSE",
    "Arrival",
    "Card",
    "CardError",
    "Credited",
    "Limits",
    "Link",
    "NotPayable",
    "Options",
    "Payment",
    "ProcessorDown",
    "QuoteExpired",
    "Sender",
    "Step",
    "apply",
    "ask",
    "asked",
    "balance_problem",
    "bill_of",
    "cards",
    "charge_unasked",
    "close_settled",
    "convert",
    "credit_held",
    "due",
    "earnings",
    "end_review",
    "expire_bonuses",
    "find",
    "follow",
    "follow_with",
    "grant_bonus",
    "hold",
    "hold_many",
    "instructions",
    "leave",
    "limits",
    "locked",
    "look_at",
    "look_over",
    "mark_taken_back",
    "method_of",
    "offer_for",
    "open_of",
    "options",
    "order_for",
    "order_topup",
    "outages",
    "parked",
    "pay_by_card",
    "pay_from_balance",
    "process",
    "process_due",
    "receive",
    "reconcile",
    "reconcile_all",
    "refresh",
    "replay",
    "restate",
    "sender_of",
    "share",
    "shared",
    "start",
    "still_due",
    "take_in",
    "tell_of_held",
    "timeline",
    "told",
    "told_at",
    "topup_problem",
    "unshare",
    "withdraw",
]
