"""The same money in other pieces: what one file tells as a sum, another tells transfer by transfer, each an entry of its own.

The entries of a file are held against all that is in the books of the same days. What is surely the same counts once. What only may be waits for a
person, and it is always the side nobody was credited for that waits. A file never tells the same money twice itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from app import db
from app.bank import known, payouts
from app.bank.keys import Booking, Line
from app.bank.known import Standing
from app.bank.matching import match
from app.bank.reasons import NOT_IN_OTHER_FILE, PERHAPS_PART, PERHAPS_SINGLES, Reason

FEW = 16
"""Transfers of which every choice is tried; of more only those that stand next to each other."""


@dataclass(slots=True)
class Regrouped:
    """The entries of a file in the pieces in which the books have them, and the lines whose money is in the books already."""

    entries: list[Booking]
    known: list[Line]


@dataclass(frozen=True, slots=True)
class _Piece:
    """One transfer that may be a part of a sum: `source` is the entry's number in the file or the line's in the books."""

    source: int
    amount: int
    names: frozenset[str]


@dataclass(slots=True)
class _Day:
    """What is left over of an account's day once every entry that is the same on both sides is put aside."""

    new: dict[int, Booking]
    old: list[Standing]
    become: dict[int, list[Booking]] = field(default_factory=dict)
    known: list[Line] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    @property
    def open(self) -> dict[int, Booking]:
        """Entries of the file of which nothing is said yet."""
        return {number: booking for number, booking in self.new.items() if number not in self.become}

    @property
    def rows(self) -> list[tuple[Standing, db.Row]]:
        """Lines of the books that no entry of the file is, yet."""
        return [(entry, row) for entry in self.old for row in entry.lines if row.id not in self.taken]


def regroup(bookings: Sequence[Booking]) -> Regrouped:
    """The file's entries, put the way the books have them. Reads only."""
    standing = known.of_days({(booking.account, booking.booked_on) for booking in bookings})
    by_day: Mapping[tuple[str, date], dict[int, Booking]] = defaultdict(dict)
    for number, booking in enumerate(bookings):
        if standing or booking.told_before:
            by_day[booking.account, booking.booked_on][number] = booking
    become: dict[int, list[Booking]] = {}
    same: list[Line] = []
    for place, new in by_day.items():
        day = _left_over(new, standing.get(place, []))
        for step in (_lines, _new_sums, _old_sums, _again) if day.new else ():
            step(day)
        become |= day.become
        same += day.known
    return Regrouped([entry for number, booking in enumerate(bookings) for entry in become.get(number, [booking])], same)


def _left_over(new: dict[int, Booking], old: Sequence[Standing]) -> _Day:
    pairs = known.pairs(new, old)
    used = {entry.entry_key for entry in pairs.values()}
    return _Day({number: booking for number, booking in new.items() if number not in pairs}, [entry for entry in old if entry.entry_key not in used])


# A batch told in full on one side, its transfers one by one on the other


def _lines(day: _Day) -> None:
    """Transfers that are the same one by one, though the entries they stand in are not."""
    found = dict(_same_lines(day))
    day.taken |= set(found.values())
    for number, booking in day.open.items():
        rest = [line for place, line in enumerate(booking.lines) if (number, place) not in found]
        if len(rest) == len(booking.lines):
            continue
        day.known += [line for line in booking.lines if line not in rest]
        day.become[number] = [replace(booking, amount=line.amount, reference="", lines=(line,), transfers=0) for line in rest]


def _same_lines(day: _Day) -> Iterator[tuple[tuple[int, int], int]]:
    by_amount = defaultdict(list)
    for entry, row in day.rows:
        by_amount[row.amount].append((entry, row))
    likely = [
        (sure, number, place, row.id)
        for number, booking in day.open.items()
        for place, line in enumerate(booking.lines)
        for entry, row in by_amount[line.amount]
        if booking.batch or len(entry.lines) > 1
        for sure in [known.same_line(booking, line, row)]
        if sure is not None
    ]
    used: set[object] = set()
    for _, number, place, row_id in sorted(likely):
        if (number, place) not in used and row_id not in used:
            used |= {(number, place), row_id}
            yield (number, place), row_id


# A sum on one side, its transfers on the other


def _new_sums(day: _Day) -> None:
    """Sums of the file whose transfers are in the books."""
    for number, booking in day.open.items():
        pieces = [_Piece(row.id, row.amount, _names(row)) for entry, row in day.rows if row.state != "same" and row.kind != "charge"] if _is_sum(booking) else []
        parts, sure = _parts(booking.amount, _all_names(booking), booking.transfers, pieces)
        if not parts or not (sure or _of_nobody(booking)):
            continue
        day.taken |= {part.source for part in parts}
        if sure or (booking.told_before and _adds_up(booking.amount, parts)):
            day.known += booking.lines
            day.become[number] = []
        else:
            day.become[number] = [_wait(booking, PERHAPS_SINGLES, [part.source for part in parts])]


def _old_sums(day: _Day) -> None:
    """Sums of the books whose transfers the file tells."""
    for entry, row in day.rows:
        if not _may_be_told(entry, row):
            continue
        pieces = [
            _Piece(number, booking.amount, _all_names(booking) | ({booking.lines[0].detail.end_to_end} - {""})) for number, booking in day.open.items() if _is_single(booking)
        ]
        parts, sure = _parts(entry.amount, _names(row), row.transfers, pieces)
        bookings = [day.new[part.source] for part in parts]
        if not parts:
            continue
        day.taken.add(row.id)
        if sure or (all(booking.told_before for booking in bookings) and _adds_up(entry.amount, parts)):
            _merge(day, entry, [part.source for part in parts])
        else:
            day.become |= {part.source: [replace(booking, maybe=(row.id,)) if entry.waits else _wait(booking, PERHAPS_PART, [row.id])]
                           for part, booking in zip(parts, bookings, strict=True)}  # fmt: skip


def _merge(day: _Day, entry: Standing, numbers: Sequence[int]) -> None:
    """Entries of the file become the one entry that the books have."""
    first, lines = day.new[numbers[0]], tuple(line for number in numbers for line in day.new[number].lines)
    whole = replace(first, amount=entry.amount, reference=next(iter(sorted(entry.references)), ""), lines=lines, names=frozenset(), transfers=0)
    day.become |= {number: [] for number in numbers} | {numbers[0]: [whole]}


def _again(day: _Day) -> None:
    """What is still new in a statement that another file told before: it cannot be more money than that file told."""
    left = [row.id for _, row in day.rows]
    for number, booking in day.open.items():
        if booking.told_before:
            day.become[number] = [_wait(booking, NOT_IN_OTHER_FILE, left)]


def _wait(booking: Booking, why: Reason, lines: Iterable[int]) -> Booking:
    waiting = tuple(replace(line, doubt=why, kind="debit" if line.kind == "charge" else line.kind) for line in booking.lines)
    return replace(booking, lines=waiting, maybe=tuple(lines))


def _is_single(booking: Booking) -> bool:
    return not booking.batch and booking.lines[0].kind != "charge"


def _is_sum(booking: Booking) -> bool:
    return _is_single(booking) and known.nobodys(booking.lines[0].detail, booking.account, booking.transfers)


def _may_be_told(entry: Standing, row: db.Row) -> bool:
    """Whether a line of the books may be a sum: it names nobody, nor was it credited to whom it names."""
    return known.is_sum(row) and len(entry.lines) == 1 and row.kind != "charge" and row.state != "same" and (row.state != "matched" or row.rule == "by hand")


def _of_nobody(booking: Booking) -> bool:
    """Whether nothing in it names a customer: a sum that several paid bears nobody's name."""
    return booking.transfers > 1 or isinstance(match([booking.lines[0]])[0], Reason)


def _all_names(booking: Booking) -> frozenset[str]:
    """What names an entry or the booking it belongs to: the bank's references, and the payouts of ours it is of."""
    return booking.names | booking.references | payouts.named(booking.lines[0].text if booking.amount < 0 else "")


def _names(row: db.Row) -> frozenset[str]:
    return frozenset({*row.names, row.bank_reference, row.end_to_end, row.entry_reference, *(row.payout or "").split()}) - {""}


# Which transfers make a sum


def _adds_up(total: int, parts: Sequence[_Piece]) -> bool:
    return sum(part.amount for part in parts) == total


def _parts(total: int, names: frozenset[str], transfers: int, pieces: Sequence[_Piece]) -> tuple[list[_Piece], bool]:
    """The transfers that make a sum, and whether that is sure: they bear its name, or are as many as the bank says. Nothing when none do."""
    named = [piece for piece in pieces if piece.names & names]
    if len(named) > 1:
        return named, _adds_up(total, named)
    alike = [piece for piece in pieces if (piece.amount > 0) == (total > 0)]
    for found in _choices(total, alike):
        if len(found) > 1 and transfers in {0, len(found)}:
            return list(found), transfers > 1
    return [], False


def _choices(total: int, pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    """Pieces that add up: all, those that stand together, any of a few."""
    if _adds_up(total, pieces):
        yield pieces
    yield from _runs(total, pieces)
    if len(pieces) <= FEW:
        yield from _subsets(total, pieces)


def _runs(total: int, pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    first, held = 0, 0
    for last, piece in enumerate(pieces):
        held += abs(piece.amount)
        while held > abs(total):
            held -= abs(pieces[first].amount)
            first += 1
        if held == abs(total):
            yield pieces[first : last + 1]


def _subsets(total: int, pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    ways: dict[int, tuple[_Piece, ...]] = {0: ()}
    for piece in pieces:
        ways = {held + piece.amount: (*way, piece) for held, way in ways.items() if abs(held + piece.amount) <= abs(total)} | ways
    if total in ways:
        yield ways[total]
