"""A customer's money: the wallet, the bonus, what is on hold, and the lots that say which payment each cent came from.

Every verb needs an open transaction, moves money by one ledger transfer and keeps the lots beside it: the sum of what remains in the
lots of an account is the account's balance, always. The account's row lock, held by the transfer until the transaction ends, is what
makes one customer's movements queue.
"""

from app.ledger import InsufficientFunds
from app.wallet.bulk import Credit, Spend, credit_many, lock_spendable, spend_many
from app.wallet.moving import Spent, credit, expire_bonus, expired_bonuses, freeze, grant_bonus, hold, pay_out, release, restore, seize, spend
from app.wallet.reading import Lot, Movement, Page, Wallet, export, histories, lots, movements, state, totals

__all__ = [
    "Credit",
    "InsufficientFunds",
    "Lot",
    "Movement",
    "Page",
    "Spend",
    "Spent",
    "Wallet",
    "credit",
    "credit_many",
    "expire_bonus",
    "expired_bonuses",
    "export",
    "freeze",
    "grant_bonus",
    "histories",
    "hold",
    "lock_spendable",
    "lots",
    "movements",
    "pay_out",
    "release",
    "restore",
    "seize",
    "spend",
    "spend_many",
    "state",
    "totals",
]
