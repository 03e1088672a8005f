"""Whether an account's statements follow each other, and whether the books hold what they say.

What one begins with is what the one before ended with, and no number is left out; between the ends of two days the ledger moved by as much as the bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from app import approvals, clock, db
from app.bank.statements import Statement
from app.money import Money
from config import BankAccount


@dataclass(frozen=True, slots=True)
class Gap:
    """Something missing between two statements of an account, or between them and the books, as a sentence; it is gone once the missing file came.

    `mark` is its name for `acknowledge`: that of this very amount between these very days.
    """

    mark: str
    account: str
    last_on: date
    next_on: date
    sentence: str


class Unexplained(ValueError):
    """Something is acknowledged without a name or a reason. `str()` is a sentence for the operator."""


class NoSuchGap(ValueError):
    """Nothing of that mark is missing. `str()` is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Something missing that stays so, by a person."""

    sentence: str
    actor: str
    reason: str
    at: datetime


def remember(statements: Sequence[tuple[Statement, BankAccount]], file: str) -> None:
    """Write down what the statements began and ended with; the same ones again change nothing. Within a transaction."""
    rows = [_row(statement, account) for statement, account in statements if statement.full and statement.opened_on and statement.closed_on]
    db.many(_REMEMBER, [{**row, "file": file, "now": clock.now()} for row in rows])


def told_before(statement: Statement, account: BankAccount) -> bool:
    """Whether a statement in the books covers exactly this one: the same balances before and after, on the same day. Reads only."""
    return statement.full and bool(db.scalar(_TOLD_BEFORE, **_row(statement, account)))


def gaps() -> list[Gap]:
    """Everything that is missing and not acknowledged, account by account, oldest first."""
    return [Gap(row.mark, row.account, row.last_on, row.next_on, _sentence(row)) for row in db.rows("select * from bank_gaps order by account, next_on, first_missing")]


def differences() -> list[Gap]:
    """Where the books hold another sum than the bank and nobody has acknowledged it, account by account, oldest first."""
    return [Gap(row.mark, row.account, row.from_on, row.until_on, _differs(row)) for row in db.rows("select * from bank_differences order by account, until_on")]


def acknowledge(mark: str, *, actor: str, reason: str) -> str:
    """Say of a gap or a difference that it stays, with a name and a reason that are kept; what it was, as a sentence. Opens the transaction.

    It is hidden from then on, and told again when another amount is missing. Raises NoSuchGap, Unexplained, NotAllowed.
    """
    if not actor.strip() or not reason.strip():
        raise Unexplained("Say who you are and why.")
    with db.transaction():
        found = next((gap for gap in (*gaps(), *differences()) if gap.mark == mark), None)
        if found is None:
            raise NoSuchGap(f"Nothing that is missing is called {mark}.")
        person = approvals.decide("bank.acknowledge", mark, actor=actor, reason=reason.strip()[:500])
        db.execute(_ACKNOWLEDGE, mark=mark, sentence=found.sentence, actor=person.name, reason=reason.strip()[:500], now=clock.now())
    return found.sentence


def acknowledged() -> list[Acknowledged]:
    """What was acknowledged, by whom and why, the newest first."""
    return [Acknowledged(*row) for row in db.rows("select sentence, actor, reason, at from bank_acknowledged order by at desc, mark")]


def _row(statement: Statement, account: BankAccount) -> dict[str, object]:
    return {
        "account": account.number,
        "currency": account.currency,
        "format": statement.format,
        "name": statement.id,
        "number": statement.number,
        "opened_on": min(filter(None, (statement.opened_on, statement.closed_on)), default=None),
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


def _differs(row: db.Row) -> str:
    told, booked, off = (Money(minor, row.currency) for minor in (row.told, row.booked, abs(row.difference)))
    way = "too much" if row.difference > 0 else "too little"
    return f"{row.account}: after {row.from_on} until {row.until_on} the bank moved {told}, the books {booked}: {off} {way}."


_TOLD_BEFORE = """
select exists (
  select from bank_statements s where s.account = %(account)s and s.closed_on = %(closed_on)s and s.opening = %(opening)s and s.closing = %(closing)s
    and (s.format <> %(format)s or s.number is not distinct from %(number)s)
    and (s.opening <> s.closing or s.format <> %(format)s or s.name = %(name)s))
"""
_ACKNOWLEDGE = """
insert into bank_acknowledged (mark, sentence, actor, reason, at) values (%(mark)s, %(sentence)s, %(actor)s, %(reason)s, %(now)s)
"""
_REMEMBER = """
insert into bank_statements (account, currency, format, name, number, opened_on, closed_on, opening, closing, file, imported_at)
values (%(account)s, %(currency)s, %(format)s, %(name)s, %(number)s, %(opened_on)s, %(closed_on)s, %(opening)s, %(closing)s, %(file)s, %(now)s)
on conflict do nothing
"""
