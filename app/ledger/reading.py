"""Reading the books: balances, history, totals, the chart. Flat however long the history, because every entry carries its running sums."""

from app import db


def balance(account_id: int) -> int:
    """The balance of an account in minor units; a system account's is the sum of its entries."""
    found = db.scalar(_BALANCE, account_id=account_id)
    if found is None:
        raise LookupError(f"account {account_id} does not exist")
    return int(found)


_BALANCE = """
select case when tracked then balance else (select coalesce(sum(amount), 0) from entries where account_id = %(account_id)s) end
from accounts where id = %(account_id)s
"""
