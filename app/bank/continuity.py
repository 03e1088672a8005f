"""Whether an account's statements follow each other: what one begins with is what the one before ended with, and no number is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from app import clock, db
from app.bank.statements import Statement
from app.money import Money
from config import BankAccount


@dataclass(frozen=True, slots=True)
class Gap:
    """Something missing between two statements of an account, as a sentence; it is gone once the missing file came."""

    account: str
    last_on: date
    next_on: date
    sentence: str


def remember(statements: Sequence[tuple[Statement, BankAccount]], file: str) -> None:
    """Write down what the statements began and ended with; the same ones again change nothing. Within a transaction."""
    rows = [_row(statement, account) for statement, account in statements if statement.full and statement.opened_on and statement.closed_on]
    db.many(_REMEMBER, [{**row, "file": file, "now": clock.now()} for row in rows])


def gaps() -> list[Gap]:
    """Everything that is missing, account by account, oldest first."""
    return [Gap(row.account, row.last_on, row.next_on, _sentence(row)) for row in db.rows("select * from bank_gaps order by account, next_on, first_missing")]


def _row(statement: Statement, account: BankAccount) -> dict[str, object]:
    return {
        "account": account.number,
        "currency": account.currency,
        "format": statement.format,
        "name": statement.id,
        "number": statement.number,
        "opened_on": min(filter(None, (statement.opened_on, statement.closed_on))),
        "closed_on": statement.closed_on,
        "opening": statement.opening,
        "closing": statement.closing,
    }


def _sentence(row: db.Row) -> str:
    if row.first_missing is not None:
        which = f"statement {row.first_missing}" if row.first_missing == row.last_missing else f"statements {row.first_missing} to {row.last_missing}"
        return f"{row.account}: {which} of {row.next_on.year} never came. Import the missing file."
    ended, began = Money(row.last_closing, row.currency), Money(row.next_opening, row.currency)
    return f"{row.account}: it ended with {ended} on {row.last_on}, and the statement of {row.next_on} begins with {began}: {began - ended} are not told. Import the missing file."


_REMEMBER = """
insert into bank_statements (account, currency, format, name, number, opened_on, closed_on, opening, closing, file, imported_at)
values (%(account)s, %(currency)s, %(format)s, %(name)s, %(number)s, %(opened_on)s, %(closed_on)s, %(opening)s, %(closing)s, %(file)s, %(now)s)
on conflict do nothing
"""
