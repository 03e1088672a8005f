"""A customer's money: the wallet, the bonus, what is on hold, and the lots that say which payment each cent came from.

Every verb needs an open transaction, moves money by one ledger transfer and keeps the lots beside it: the sum of what remains in the
lots of an account is the account's balance, always. The account's row lock, held by the transfer until the transaction ends, is what
makes one customer's movements queue.
"""

from app.ledger import InsufficientFunds
from app.wallet.bulk import Credit, Spend, credit_many, hold_everything, lock_spendable, spend_many
from app.wallet.moving import (
    AfterBonus,
    Spent,
    clear,
    convert,
    credit,
    expire_bonus,
    expired_bonuses,
    forgive,
    freeze,
    grant_bonus,
    hold,
    pay_out,
    release,
    restore,
    seize,
    settle_debts,
    spend,
)
from app.wallet.reading import Lot, Movement, Page, Wallet, export, found, histories, lots, movements, owed, state, totals

__all__ = [
    "AfterBonus",
    "Credit",
    "InsufficientFunds",
    "Lot",
    "Movement",
    "Page",
    "Spend",
    "Spent",
    "Wallet",
    "clear",
    "convert",
    "credit",
    "credit_many",
    "expire_bonus",
    "expired_bonuses",
    "export",
    "forgive",
    "found",
    "freeze",
    "grant_bonus",
    "histories",
    "hold",
    "hold_everything",
    "lock_spendable",
    "lots",
    "movements",
    "owed",
    "pay_out",
    "release",
    "restore",
    "seize",
    "settle_debts",
    "spend",
    "spend_many",
    "state",
    "totals",
]
