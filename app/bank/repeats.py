"""What one file says more than once: a statement told again, and entries under one reference.

A statement that stands in a file a second time is another telling of the same money, as if it came
in a file of its own. Entries of one day, sum and parties under one reference of the bank are one.
Equal entries without a reference are as many as the file has: the bank's balance says so.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from app.bank import continuity, keys, reasons
from app.bank.keys import Booking, Line
from app.bank.statements import Statement
from config import BankAccount

Kept = tuple[Statement, BankAccount]


def apart(statements: Sequence[Kept]) -> tuple[list[list[Booking]], list[Line]]:
    """The entries of a file in parts to be booked one after the other, so that a statement told
    again stands in another part than the first time; and the lines told before by reference.
    Reads only."""
    tellings: dict[Hashable, int] = {}
    ends: set[Hashable] = set()
    first_told: dict[Hashable, Statement] = {}
    parts: list[list[Booking]] = []
    again: list[Line] = []
    for statement, account in statements:
        mark = _mark(statement, account)
        place = tellings[mark] = tellings.get(mark, -1) + 1
        if place == len(parts):
            parts.append([])
        before = (mark, statement.closing) in ends or continuity.told_before(statement, account)
        if _proves(statement):
            ends.add((mark, statement.closing))
        for booking in keys.bookings(statement, account, told_before=before):
            name = _name(booking)
            first = first_told.get(name)
            if name is None or first is None:
                parts[place].append(booking)
            elif first is statement and _proves(statement):
                parts[place].append(_wait(booking))
            else:
                again += booking.lines
            first_told.setdefault(name, statement)
    return parts, again


def _mark(statement: Statement, account: BankAccount) -> Hashable:
    """What makes a statement itself: its name and where it begins; without a name all of it."""
    begins = (account.number, statement.format, statement.opened_on, statement.opening)
    if statement.id:
        return (*begins, statement.id, statement.number, statement.page)
    return (*begins, statement.closed_on, statement.closing, tuple(statement.entries))


def _proves(statement: Statement) -> bool:
    """Whether its balances say how much money all of its entries moved."""
    balances = statement.opening is not None and statement.closing is not None
    return statement.full and balances and not statement.not_booked


def _name(booking: Booking) -> Hashable:
    """What the bank calls an entry, with all that two entries of one name have to share."""
    if not booking.references:
        return None
    parties = [(line.amount, line.bank_reference, line.detail.end_to_end, line.detail.sender, line.detail.sender_account) for line in booking.lines]
    references = frozenset(booking.references)
    return (booking.account, booking.booked_on, booking.amount, references, tuple(parties))


def _wait(booking: Booking) -> Booking:
    """An entry that its statement moved money for a second time: nobody is credited by itself."""
    if any(line.kind != "credit" for line in booking.lines):
        return booking
    lines = (replace(line, doubt=line.doubt or reasons.SAME_REFERENCE) for line in booking.lines)
    return replace(booking, lines=tuple(lines))
