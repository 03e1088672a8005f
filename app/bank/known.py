"""Which entry is which: the same money comes in several files, each time a little different, and counts once.

Two entries of an account, day and amount are one when the bank's references say so, else the payers', else all they say. A collective
booking may come as a sum first and be told transfer by transfer later, or the other way round. Within a file every entry is another one.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

from app import db
from app.bank.keys import Booking, Line
from app.bank.statements import Detail, compact

_UMLAUTS = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "ss", "ł": "l", "ø": "o", "đ": "d"})
TELLING = 12
"""Characters that a text has to have for a longer one to be the same, told in full."""
SURE = 2
"""The least sure that two transfers of different entries have to be: what says nothing at all is not enough there."""
_SAME_PLACE = tuple[str, date, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """An entry that is in the books, with its lines."""

    entry_key: bytes
    references: frozenset[str]
    lines: tuple[db.Row, ...]

    @property
    def amount(self) -> int:
        """What was booked, in signed minor units."""
        return int(self.lines[0].entry_amount)

    @property
    def waits(self) -> bool:
        """Whether it is one line that nobody was credited for, so that more said of it can still help."""
        return len(self.lines) == 1 and self.lines[0].state == "suspense" and self.lines[0].part_of is None and not self.lines[0].sent_back


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a file beside the books: new (`standing` None), known, or known as a sum and now `told`."""

    booking: Booking
    standing: Standing | None
    told: bool = False


def lock() -> None:
    """One at a time gets past this and says what lines are, until its transaction ends. Within a transaction, before any other lock."""
    db.rows("select pg_advisory_xact_lock(hashtextextended('bank lines', 0))")


class Memory:
    """What an import has met so far, so that equal entries of one file are as many as they are."""

    def __init__(self) -> None:
        self.met: set[bytes] = set()
        self._next: dict[tuple[object, ...], int] = {}

    def look(self, bookings: Sequence[Booking]) -> list[Found]:
        """Each entry with what is known of it. Reads only, in one question."""
        places = {_place(booking) for booking in bookings}
        standing = _standing(db.rows(_ENTRIES, accounts=[place[0] for place in places], days=[place[1] for place in places], amounts=[place[2] for place in places]))
        found: dict[int, Found] = {}
        for place, numbers in _by_place(bookings).items():
            free = [entry for entry in standing.get(place, ()) if entry.entry_key not in self.met]
            pairs = dict(_pairs([(number, bookings[number]) for number in numbers], free))
            for number in numbers:
                entry = pairs.get(number)
                found[number] = Found(bookings[number], entry, told=entry is not None and entry.waits and _says_more(bookings[number], entry))
        return [found[number] for number in range(len(bookings))]

    def keys(self, lines: Sequence[Line]) -> list[bytes]:
        """A key for each new line: of equal ones the next that is free. Reads only, mostly in one question."""
        keys = [self._next_key(line) for line in lines]
        while taken := {bytes(row.line_key) for row in db.rows("select line_key from bank_lines where line_key = any(%(keys)s)", keys=keys)}:
            keys = [self._next_key(line) if key in taken else key for line, key in zip(lines, keys, strict=True)]
        return keys

    def _next_key(self, line: Line) -> bytes:
        number = self._next[line.facts] = self._next.get(line.facts, 0) + 1
        return sha256("|".join(str(fact) for fact in (*line.facts, number)).encode()).digest()


def of_days(days: set[tuple[str, date]]) -> dict[tuple[str, date], list[Standing]]:
    """All entries in the books of these accounts' days. Reads only."""
    found: dict[tuple[str, date], list[Standing]] = defaultdict(list)
    for (account, day, _), entries in _standing(db.rows(_OF_DAYS, accounts=[day[0] for day in days], days=[day[1] for day in days])).items():
        found[account, day] += entries
    return found


def pairs(bookings: Mapping[int, Booking], standing: Sequence[Standing]) -> dict[int, Standing]:
    """Which entries of a file's day are which of the books', by their numbers."""
    by_amount: dict[int, tuple[list[tuple[int, Booking]], list[Standing]]] = defaultdict(lambda: ([], []))
    for number, booking in bookings.items():
        by_amount[booking.amount][0].append((number, booking))
    for entry in standing:
        by_amount[entry.amount][1].append(entry)
    return {number: entry for new, old in by_amount.values() if new and old for number, entry in _pairs(new, old)}


def same_line(booking: Booking, line: Line, row: db.Row) -> int | None:
    """How sure it is that a transfer of one entry is that of another entry of the same day, as `_sameness`. Amounts are equal already.

    References of a whole batch may differ from those of its transfers, so only those of transfers can say that they are two.
    """
    mine, theirs = {line.bank_reference, *(() if booking.batch else (booking.reference,))} - {""}, {row.bank_reference} - {""}
    if mine & (theirs | {row.entry_reference}) or theirs & (mine | {booking.reference}):
        return None if _alike(line.detail, row) is None else 0
    sure = None if mine and theirs else _alike(line.detail, row)
    return None if sure is None or sure > SURE else sure


def nobodys(said: Detail | db.Row, account: str, transfers: int) -> bool:
    """Whether an entry names no single payer, so that it may be the sum of several transfers."""
    return transfers > 1 or not (said.end_to_end or said.structured or said.sender_account not in {"", account})


def is_sum(row: db.Row) -> bool:
    """The same of a line in the books."""
    return nobodys(row, row.account, row.transfers)


def _place(booking: Booking) -> _SAME_PLACE:
    return booking.account, booking.booked_on, booking.amount


def _by_place(bookings: Sequence[Booking]) -> Mapping[_SAME_PLACE, list[int]]:
    found = defaultdict(list)
    for number, booking in enumerate(bookings):
        found[_place(booking)].append(number)
    return found


def _standing(rows: Sequence[db.Row]) -> dict[_SAME_PLACE, list[Standing]]:
    """Lines in the books as entries, by place."""
    entries: dict[bytes, list[db.Row]] = defaultdict(list)
    for row in rows:
        entries[row.entry_key].append(row)
    found: dict[_SAME_PLACE, list[Standing]] = defaultdict(list)
    for key, lines in entries.items():
        names = {lines[0].entry_reference, *(line.bank_reference for line in lines if len(lines) == 1)} - {""}
        found[lines[0].account, lines[0].booked_on, lines[0].entry_amount].append(Standing(bytes(key), frozenset(names), tuple(lines)))
    return found


def _pairs(bookings: Sequence[tuple[int, Booking]], standing: Sequence[Standing]) -> Iterator[tuple[int, Standing]]:
    """The surest pairs first; each side once."""
    named = defaultdict(list)
    for entry in standing:
        for name in entry.references or {""}:
            named[name].append(entry)
    likely = []
    for number, booking in bookings:
        near = [entry for name in booking.references for entry in named[name]] + named[""] if booking.references else standing
        likely += [(sure, number, entry.lines[0].id, entry) for entry in near for sure in [_sameness(booking, entry)] if sure is not None]
    used: set[object] = set()
    for _, number, _, entry in sorted(likely, key=lambda pair: pair[:3]):
        if number not in used and entry.entry_key not in used:
            used |= {number, entry.entry_key}
            yield number, entry


def _sameness(new: Booking, old: Standing) -> int | None:
    """How sure it is that two entries of one account, day and amount are one: 0 is surest, None says they are two."""
    if new.references and old.references:
        return 0 if new.references & old.references else None
    if new.batch and len(old.lines) > 1:
        return 2 if sorted(_said(line.amount, line.detail) for line in new.lines) == sorted(_said(line.amount, line) for line in old.lines) else None
    if new.batch or len(old.lines) > 1:
        alone = is_sum(old.lines[0]) if new.batch else nobodys(new.lines[0].detail, new.account, new.transfers)
        return 3 if alone else None
    return _alike(new.lines[0].detail, old.lines[0])


def _said(amount: int, detail: Detail | db.Row) -> tuple[int, str, str]:
    return amount, detail.sender_account, _words(detail)


def _alike(new: Detail, old: db.Row) -> int | None:
    accounts = {new.sender_account, old.sender_account} - {""}
    if len(accounts) > 1:
        return None
    if new.end_to_end and old.end_to_end:
        return 1 if new.end_to_end == old.end_to_end else None
    mine, theirs = _words(new), _words(old)
    if mine and theirs:
        cut = accounts and new.sender_account == old.sender_account and min(len(mine), len(theirs)) >= TELLING and (mine in theirs or theirs in mine)
        return 2 if mine == theirs or cut else None
    bare = not (mine or new.end_to_end or new.sender_account) or not (theirs or old.end_to_end or old.sender_account)
    return 3 if bare or len({new.sender_account, old.sender_account}) == 1 else None


def _words(detail: Detail | db.Row) -> str:
    """All that is written, as every bank's alphabet can say it."""
    text = f"{detail.structured}{detail.remittance}".lower().translate(_UMLAUTS)
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return compact(re.sub(r"([aou])e", r"\1", plain))


def _says_more(new: Booking, old: Standing) -> bool:
    if new.lines[0].doubt:
        return False
    before, now = old.lines[0], new.lines[0].detail
    gains = (now.structured and not before.structured, now.end_to_end and not before.end_to_end, now.sender_account and not before.sender_account)
    return new.batch or any(gains) or len(_words(now)) > len(_words(before))


_LINES = """
select l.id, l.account, l.booked_on, l.entry_amount, l.entry_key, l.entry_reference, l.state, l.part_of, l.transfer_id, l.kind, l.amount, l.currency, l.bank_reference, l.end_to_end, l.sender_account,
  l.structured, l.remittance, l.names, l.transfers, l.payout, l.rule, exists (select from bank_returns r where r.line_id = l.id and r.state in ('requested', 'approved')) as sent_back
from bank_lines l
"""
_OF_DAYS = f"""{_LINES}
join (select distinct * from unnest(%(accounts)s::text[], %(days)s::date[]) as w (account, day)) w on l.account = w.account and l.booked_on = w.day
where l.state <> 'split' order by l.id
"""  # noqa: S608 - constants
_ENTRIES = f"""{_LINES}
join (select distinct * from unnest(%(accounts)s::text[], %(days)s::date[], %(amounts)s::bigint[]) as w (account, day, amount)) w
  on l.account = w.account and l.booked_on = w.day and l.entry_amount = w.amount
where l.state <> 'split' order by l.id
"""  # noqa: S608 - constants
