"""The books: accounts, transfers, entries.

Credit is positive: a wallet reads as its customer reads it (+100.00 = the provider owes the customer 100), and what the provider owns
(money at a processor, in the bank) reads negative. Amounts are integers in minor units of the account's currency.
The database itself refuses what is wrong (migration 0002); this package asks it well and says its refusals in the house's words.
"""

from app.ledger.export import export_beancount, export_csv
from app.ledger.filter import DIRECTIONS, KINDS, Filter
from app.ledger.posting import (
    InsufficientFunds,
    LedgerError,
    Posted,
    Posting,
    account,
    accounts,
    find,
    forget_accounts,
    lock,
    post,
    post_many,
    reverse,
)
from app.ledger.proof import Fault, check
from app.ledger.reading import SEARCHED, SEARCHED_AMOUNT, SEARCHED_TEXTS, Movement, Totals, as_of, balance, balance_series, conditions, history, totals

__all__ = [
    "DIRECTIONS",
    "KINDS",
    "SEARCHED",
    "SEARCHED_AMOUNT",
    "SEARCHED_TEXTS",
    "Fault",
    "Filter",
    "InsufficientFunds",
    "LedgerError",
    "Movement",
    "Posted",
    "Posting",
    "Totals",
    "account",
    "accounts",
    "as_of",
    "balance",
    "balance_series",
    "check",
    "conditions",
    "export_beancount",
    "export_csv",
    "find",
    "forget_accounts",
    "history",
    "lock",
    "post",
    "post_many",
    "reverse",
    "totals",
]
