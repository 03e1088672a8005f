"""SWIFT MT940, as banks in Germany, Poland and the Netherlands write it.

The text of a booking (``:86:``) comes as ``?20``…``?29`` (or with ``~`` or ``<``), as ``/EREF/…/REMI/…``, or free.
"""

import re
from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

from app.bank.statements import Detail, Entry, FileRefused, Statement, compact, given
from app.money import Money
from app.remittance import CUT

_TAG = re.compile(r"^:(\d{2}[A-Z]?):", re.MULTILINE)
_LINE = re.compile(
    r"(?P<value>\d{6})(?P<entry>\d{4}| {4})?\s?(?P<mark>R?[CD])[A-Z]?\s?(?P<amount>\d+(?:,\d*)?)"
    r"\s?(?P<kind>[A-Z][A-Z0-9 ]{3})(?P<reference>[^/\n]*)(?://(?P<bank>[^\n]*))?"
)
"""A booking, with what banks leave out or fill with blanks: the balance proves the reading."""
_BALANCE = re.compile(r"([CD])(\d{6})([A-Z]{3})(\d+,\d*)")
_SEPA = re.compile(r"(EREF|KREF|MREF|BREF|SVWZ|ABWA|ABWE|CRED|DEBT|COAM|OAMT|PURP|IBAN|BIC)\+")
_FIELD = re.compile(r"[?~<](\d{2})")
_SLASHED = re.compile(r"/(EREF|IBAN|BIC|NAME|REMI|TRTP|CNTP|ORDP|BENM|CSID|MARF|PREF|RTRN|ULTD|PURP|ISDT|ID|ADDR|SVCL|KREF|ROC)/")
LONGEST_NUMBER = 5
WIDTH, NARROWEST = 60, 27
"""Characters of a full line of text, about, where the file does not show it, and of the narrowest that a bank writes."""
_INTERIM = re.compile(r"^:(?:34F|13D|90[CD]):", re.MULTILINE)
"""Fields that an interim report (MT942) has and a statement has not."""
_MARKED = re.compile(r"[?~<]\d\d|/[A-Z]{2,4}/")
MONTHS = 12
BATCH_NAMES = ("BREF", "PREF")
MORE_TEXT = 60
_TEXT_FIELDS = (*range(20, 30), *range(MORE_TEXT, 64))


def read(text: str) -> list[Statement]:
    """The statements of a file. Raises FileRefused for what is none, or only half of one."""
    found: list[Statement] = []
    fields = list(_fields(text.replace("\r\n", "\n").replace("\r", "\n")))
    _refuse_what_may_be_text(fields)
    for tag, value in fields:
        if tag == "20":
            found.append(Statement("", "", "", "MT940", full=True))
        elif found:
            _take(found[-1], tag, value)
    if not found:
        raise FileRefused("The file holds no MT940 statement.")
    if _INTERIM.search(text) and all(statement.closing is None for statement in found):
        raise FileRefused("This is an interim report (MT942), which proves nothing by a balance. Import the MT940 or camt.053 of the day, or camt.052 and camt.054 meanwhile.")
    for statement in found:
        _set_days(statement)
        if statement.closing is None:
            raise FileRefused(f"Statement {statement.id} has no closing balance: the file is cut off.")
        if statement.opening is None:
            raise FileRefused(f"Statement {statement.id} has no opening balance, so nobody can tell whether it is whole.")
    return found


def _fields(text: str) -> Iterator[tuple[str, str]]:
    marks = list(_TAG.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        value = text[mark.end() : following.start() if following else len(text)]
        yield mark[1], re.sub(r"\n-\}?\s*$", "", value).strip("\n")


def _refuse_what_may_be_text(fields: Sequence[tuple[str, str]]) -> None:
    """A payer may write what looks like a booking where the bank breaks the line of a text, and another that takes it back, so that the balances agree.

    So bookings that begin where a full line ends may not cancel each other out.
    """
    texts = [value.split("\n") for tag, value in fields if tag == "86"]
    if (further := [line for lines in texts for line in lines[1:]]) and all(_MARKED.match(line) for line in further):
        return
    width = min([WIDTH, *(length for length, _ in Counter(len(line) for lines in texts for line in lines[:-1]).most_common(1))])
    run = [Decimal(0)]
    for (tag, before), (following, value) in pairwise(fields):
        unsure = tag in {"61", "86"} and following in {"61", "86"} and len(before.rpartition("\n")[2]) >= max(width, NARROWEST)
        run = run if unsure else [Decimal(0)]
        booking = _LINE.match(value) if unsure and following == "61" else None
        amount = Decimal(booking["amount"].replace(",", ".").rstrip(".")) if booking else Decimal(0)
        if booking and amount:
            run.append(run[-1] + amount * (1 if booking["mark"] in {"C", "RD"} else -1))
            if run[-1] in run[:-1]:
                raise FileRefused("A text in it may be read as bookings that cancel each other out. Import the camt.053 of these days instead.")


def _take(statement: Statement, tag: str, value: str) -> None:
    if tag == "25":
        statement.account = value.strip()
    elif tag in {"28C", "28"}:
        statement.id = value.strip()
        number = value.strip().partition("/")[0]
        statement.number = int(number) if number.isdecimal() and len(number) <= LONGEST_NUMBER and int(number) else None
    elif tag in {"60F", "60M"}:
        statement.opening, statement.opened_on, statement.currency = _balance(value)
    elif tag in {"62F", "62M"}:
        statement.closing, statement.closed_on, statement.currency = _balance(value)
    elif tag == "61":
        _book(statement, value)
    elif tag == "86" and statement.closing is None and statement.entries:
        _describe(statement, value)


def _balance(value: str) -> tuple[int, date, str]:
    found = _BALANCE.match(value)
    if found is None:
        raise FileRefused(f"“{value}” is no balance.")
    sign, day, currency, amount = found.groups()
    try:
        return _minor(amount, currency) * (1 if sign == "C" else -1), _day(day), currency
    except ValueError as fault:
        raise FileRefused(f"“{value}” is no balance: {fault}") from fault


def _day(text: str) -> date:
    try:
        return date(2000 + int(text[:2]), int(text[2:4]), int(text[4:6]))
    except ValueError:
        raise ValueError(f"“{text}” is no day") from None


def _set_days(statement: Statement) -> None:
    """Bookings of which only the day of value is told were booked within the statement: behind the
    day of the balance before, and not after its own."""
    if statement.opened_on is None or statement.closed_on is None:
        return
    first = min(statement.opened_on + timedelta(days=1), statement.closed_on)
    for place in statement.undated:
        entry = statement.entries[place]
        day = min(max(entry.booked_on, first), statement.closed_on)
        statement.entries[place] = replace(entry, booked_on=day)


def _minor(amount: str, currency: str) -> int:
    return Money.of(amount.replace(",", ".").rstrip("."), currency).minor


def _book(statement: Statement, value: str) -> None:
    found = _LINE.match(value)
    if found is None:
        statement.faults.append(f"{statement.id}: “{value.splitlines()[0]}” is no booking")
        return
    try:
        valued = _day(found["value"])
        minor = _minor(found["amount"], statement.currency)
        booked = _entry_day(valued, found["entry"])
    except ValueError as fault:
        statement.faults.append(f"{statement.id}: “{value.splitlines()[0]}”: {fault}")
        return
    mark, kind = found["mark"], found["kind"].strip()
    amount = minor if mark in {"C", "RD"} else -minor
    detail = Detail(amount=amount, end_to_end="")
    if not (found["entry"] or "").strip():
        statement.undated.append(len(statement.entries))
    statement.entries.append(Entry(amount, booked, given(found["bank"]), returned=mark[0] == "R" or kind == "NRTI", fee=kind == "NCHG", details=(detail,)))


def _entry_day(valued: date, entry: str | None) -> date:
    """The day of booking: the statement writes month and day only, so the year is the one nearest to the day of value."""
    if entry is None or not entry.strip():
        return valued
    month, day = int(entry[:2]), int(entry[2:])
    years = [date(year, month, day) for year in range(valued.year - 1, valued.year + 2) if 1 <= month <= MONTHS and 1 <= day <= monthrange(year, month)[1]]
    if not years:
        raise ValueError(f"“{entry}” is no day of booking")
    return min(years, key=lambda day: abs(day - valued))


def _describe(statement: Statement, value: str) -> None:
    entry = statement.entries[-1]
    (before,) = entry.details
    flat = value.replace("\n", "")
    said = _german(flat) if _FIELD.search(flat[:12]) else _slashed(flat) if _SLASHED.search(flat) else {"text": _joined(value)}
    detail = Detail(
        amount=before.amount,
        end_to_end=given(said.get("EREF")),
        sender=said.get("NAME", "").strip(),
        sender_account=compact(said.get("IBAN")),
        structured=given(said.get("STRD")),
        remittance=said.get("text", "").strip(),
        returned="RTRN" in said or flat[:3] in {"109", "108", "159", "181", "184"},
    )
    names = frozenset(given(said.get(name)) for name in BATCH_NAMES) - {""}
    statement.entries[-1] = replace(entry, details=(detail,), names=names)


def _joined(value: str) -> str:
    """A text without marks: a full line of it may have been broken within a word."""
    lines = value.split("\n")
    joints = [CUT if len(line) >= NARROWEST and not line[-1].isspace() else " " for line in lines[:-1]]
    return "".join(f"{line}{joint}" for line, joint in zip(lines, [*joints, ""], strict=True))


def _german(flat: str) -> dict[str, str]:
    parts = _FIELD.split(flat)
    fields: dict[int, str] = {}
    for number, value in zip(map(int, parts[1::2]), parts[2::2], strict=True):
        if number >= MORE_TEXT or max(fields, default=0) < MORE_TEXT:  # what a payer writes into the text's second part names no account
            fields[number] = value
    text = "".join(fields.get(number, "") for number in _TEXT_FIELDS)
    pieces = _SEPA.split(text)
    said = _before_the_text(zip(pieces[1::2], pieces[2::2], strict=True), "SVWZ")
    said["text"] = said.get("SVWZ", "") if len(pieces) > 1 else text
    said["NAME"] = fields.get(32, "") + fields.get(33, "")
    said["IBAN"] = fields.get(31, "") or fields.get(38, "")
    return said


def _before_the_text(pairs: Iterable[tuple[str, str]], text: str) -> dict[str, str]:
    """What the bank says under each name. Whatever it says before the payer's text stays, though the payer may write the same names into it."""
    said: dict[str, str] = {}
    fixed: set[str] = set()
    for name, value in pairs:
        if name not in fixed:
            said[name] = value
        if text not in fixed:
            fixed.add(name)
    return said


def _slashed(flat: str) -> dict[str, str]:
    pieces = _SLASHED.split(flat)
    said = _before_the_text(zip(pieces[1::2], (piece.strip("/") for piece in pieces[2::2]), strict=True), "REMI")
    if party := said.get("CNTP"):
        parts = [*party.split("/"), "", "", ""]
        said |= {"IBAN": parts[0], "NAME": parts[2]}
    remittance = said.get("REMI", "")
    form, _, rest = remittance.partition("//")
    said["text"] = rest if form == "USTD" else remittance
    if form == "STRD":
        said["STRD"] = rest.rpartition("/")[2]
    return said
