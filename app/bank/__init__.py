"""Bank transfers: statements are read, every line is booked once, and its money goes to whom the reference names.

What nobody can be named for waits in suspense, in sight. Files may overlap, come twice, in any order and at the same time.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

import psycopg

import config
from app import approvals, clock, customers, db, invoicing, ledger, payments
from app.bank import booking, camt, candidates, continuity, doubts, following, known, mt940, packed, payouts, reasons, repeats, reports, told
from app.bank.booking import Booked
from app.bank.continuity import Gap, NoSuchGap, Unexplained, acknowledge, acknowledged, differences, gaps
from app.bank.doubts import Doubt, DoubtError, are_two, is_same
from app.bank.following import Followed
from app.bank.keys import Booking, Line
from app.bank.known import Memory
from app.bank.matching import BY_HAND, Match
from app.bank.payouts import PayoutError, Return
from app.bank.senders import Sender, same_account, same_name, senders
from app.bank.statements import FileRefused, Statement, clean, cleaned, compact
from app.money import Money
from config import BankAccount

__all__ = [
    "BankError",
    "Booked",
    "Doubt",
    "DoubtError",
    "FileRefused",
    "Gap",
    "Line",
    "NoSuchGap",
    "PayoutError",
    "Report",
    "Return",
    "Sender",
    "Unexplained",
    "Waiting",
    "acknowledge",
    "acknowledged",
    "are_two",
    "candidates",
    "clean",
    "credit_waiting",
    "differences",
    "doubts",
    "gaps",
    "import_file",
    "is_same",
    "match_by_hand",
    "payouts",
    "read",
    "reports",
    "same_account",
    "same_name",
    "senders",
    "unmatched",
    "waiting",
]

log = logging.getLogger(__name__)

CHUNK = 500
"""Entries booked in one transaction."""
MOST_FAULTS = 5
OLDEST: Final = date(2000, 1, 1)
"""The first day on which a booking can be."""
AHEAD: Final = timedelta(days=7)
"""How far ahead of today a bank may book: over a long weekend, and west of the date line."""
UNDECIDED = "It may be money that is booked already. Say first whether it is."

Progress = Callable[[int, int], None]


class BankError(ValueError):
    """A wish that cannot be carried out. `str()` is a sentence for the operator."""


@dataclass(slots=True)
class Report:
    """What an import did: counts and sums of what became of the lines, what was not taken, what is missing between statements, and where the books differ, in sentences.

    `left_out` are statements and entries that are not ours to book; `troubled` says that something
    is missing or differs that did not before this file.
    """

    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    known_gaps: frozenset[str] = frozenset()
    troubled: bool = False
    not_booked: int = 0
    _to_follow: dict[int, Booked] = field(default_factory=dict)

    def add(self, booked: Sequence[Booked]) -> None:
        """Count lines in."""
        for found in booked:
            if found.why == reasons.TO_FOLLOW:
                self._to_follow[found.id] = found
                continue
            self.counts[found.fate] = self.counts.get(found.fate, 0) + 1
            by_currency = self.sums.setdefault(found.fate, {})
            by_currency[found.line.currency] = by_currency.get(found.line.currency, 0) + found.line.amount
            if found.why:
                self.waiting.append(f"{found.line.says}: {found.why.sentence}")

    def follow(self, followed: Sequence[Followed]) -> None:
        """Count the lines of this file in of which it was still to be said what they are."""
        for done in followed:
            if found := self._to_follow.pop(done.line_id, None):
                self.add([replace(found, fate=done.fate, why=done.why)])

    def compare(self) -> None:
        """Say what is missing between the statements and where the books differ from them."""
        missing, differing = gaps(), differences()
        self.missing = [gap.sentence for gap in missing]
        self.differing = [gap.sentence for gap in differing]
        self.troubled = any(gap.mark not in self.known_gaps for gap in (*missing, *differing))

    def lines(self) -> Iterator[str]:
        """The report as lines of text: figures first, then what needs a person."""
        for fate in ("matched", "suspense", "returned", "payout", "charge", "duplicate"):
            sums = ", ".join(str(Money(minor, currency)) for currency, minor in sorted(self.sums.get(fate, {}).items()))
            yield f"{fate:<10}{self.counts.get(fate, 0):>7}  {sums}".rstrip()
        yield f"{'refused':<10}{len(self.refused):>7}"
        if self.not_booked:
            yield f"{self.not_booked} not booked by the bank yet, left for a later statement."
        yield from (f"MISSING: {sentence}" for sentence in self.missing)
        yield from (f"DIFFERS: {sentence}" for sentence in self.differing)
        yield from (f"Left out: {sentence}" for sentence in self.left_out)
        yield from (f"Refused: {sentence}" for sentence in self.refused)
        yield from (f"In suspense: {sentence}" for sentence in self.waiting)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A line in suspense; amount in minor units, negative for money that left; `days` since the bank booked it."""

    id: int
    booked_on: date
    amount: int
    currency: str
    sender: str
    sender_account: str
    remittance: str
    reason_code: str
    reason_values: Mapping[str, str]
    kind: str
    file: str
    days: int
    back: str | None
    approved: bool | None
    back_file: str | None

    @property
    def reason(self) -> str:
        """Why it waits for whom it is of, as a sentence."""
        why = reasons.kept(self.reason_code, self.reason_values)
        return why.sentence if why else ""

    @property
    def why(self) -> str:
        """Why it waits, as a sentence: for whom, or how far it is on its way back."""
        if self.back is None:
            return self.reason
        if self.back_file:
            return f"{self.back} stands in the payment file {self.back_file}."
        return f"{self.back} {'leaves with the next payment file' if self.approved else 'waits for another person'}."

    @property
    def money(self) -> Money:
        """The amount as money."""
        return Money(self.amount, self.currency)


def read(data: bytes) -> list[Statement]:
    """The statements of a file, or of all files in a packed one, whichever format each has, every text in them clean. Raises FileRefused."""
    found = []
    for name, plain in packed.unpack(data):
        try:
            found += [cleaned(statement) for statement in _read(plain)]
        except FileRefused as refused:
            raise FileRefused(f"{clean(name)}: {refused}" if name else str(refused)) from refused
    return found


def _read(data: bytes) -> list[Statement]:
    plain = data.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if not plain:
        raise FileRefused("The file is empty.")
    packed.refuse_what_is_none(data)
    if plain.startswith(b"<"):
        if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
            raise FileRefused("The file declares a document type. A statement needs none, so it is not read.")
        return camt.read(data)
    try:
        return mt940.read(data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"))
    except UnicodeDecodeError:
        return mt940.read(data.decode("cp1252", errors="replace"))


def import_file(data: bytes, name: str, *, dry_run: bool = False, progress: Progress | None = None) -> Report:
    """Book what is new in a bank's file and credit what can be matched. Opens a transaction for every few hundred lines.

    `progress` is told (lines done, lines in all). Raises FileRefused, with nothing booked, when anything of the file is damaged or does not add
    up, or nothing of it is ours; a statement of another account beside ours is named and left. A dry run does it all in one transaction and takes it back, so it says what would happen to the last line.
    """
    statements, left_out = _ours(read(data))
    for statement, _ in statements:
        _check(statement)
    report = Report(left_out=left_out, known_gaps=frozenset(gap.mark for gap in (*gaps(), *differences())))
    report.not_booked = sum(statement.not_booked for statement, _ in statements)
    with db.exclusive("bank import", patient=True):
        parts, again = repeats.apart(statements)
        report.add([Booked(line, "duplicate") for line in again])
        if dry_run:
            try:
                _try(parts, statements, name, report)
            except psycopg.errors.LockNotAvailable as busy:
                raise FileRefused("Somebody is moving the same money just now. Nothing was written; try again.") from busy
            return report
        done, total = 0, sum(len(entry.lines) for part in parts for entry in part)
        for part in parts:
            entries = _regrouped(part, report)
            done += sum(len(entry.lines) for entry in part) - sum(len(entry.lines) for entry in entries)
            for chunk in _take_all(entries, name, report):
                done += chunk
                if progress:
                    progress(done, total)
        report.follow(following.follow_all())
        if not report.refused:
            with db.transaction():
                continuity.remember(statements, name)
    report.compare()
    return report


def _regrouped(part: Sequence[Booking], report: Report) -> list[Booking]:
    """The entries of a part as the books have them; what is in the books already is counted."""
    found = told.regroup(part)
    report.add([Booked(line, "duplicate") for line in found.known])
    return found.entries


def _try(parts: Sequence[Sequence[Booking]], statements: Sequence[tuple[Statement, BankAccount]], name: str, report: Report) -> None:
    """A dry run: all of it in one transaction, which is taken back."""
    with suppress(_TakenBack), db.transaction():
        db.execute("set local lock_timeout = '500ms'")  # it holds everything at once, in no order: it gives way before anybody waits for it in a circle
        known.lock()
        for part in parts:
            memory = Memory()
            report.add(booking.book(memory.look(_regrouped(part, report)), memory, name)[0])
        report.follow([following.follow(line_id) for line_id in following.due()])
        continuity.remember(statements, name)
        report.compare()
        raise _TakenBack
    ledger.forget_accounts()


class _TakenBack(Exception):
    """The end of a dry run."""


def _ours(read_in: Sequence[Statement]) -> tuple[list[tuple[Statement, BankAccount]], list[str]]:
    """The statements of our accounts, each with its account, and what is left out of the file, in sentences. Raises FileRefused when none is ours."""
    ours: list[tuple[Statement, BankAccount]] = []
    left_out: list[str] = []
    for statement in read_in:
        try:
            ours.append((statement, _account(statement)))
        except FileRefused as refused:
            left_out.append(str(refused))
    if not ours:
        raise FileRefused(" ".join(left_out[:MOST_FAULTS]))
    return ours, left_out + [said for statement, _ in ours for said in statement.set_aside]


def _account(statement: Statement) -> BankAccount:
    """Which of our accounts a statement is of. Raises FileRefused for any other."""
    found = [account for account in config.current().bank_accounts if _same(account, statement.account)]
    if len(found) != 1:
        raise FileRefused(f"Statement {statement.id}: {statement.account or 'its account'} is not one of our accounts. BANK_ACCOUNTS names those that are.")
    if statement.currency and statement.currency != found[0].currency:
        raise FileRefused(f"Statement {statement.id} is in {statement.currency}; our account {found[0].number} is kept in {found[0].currency}.")
    return found[0]


def _same(account: BankAccount, said: str) -> bool:
    """Whether a bank means this account: by its IBAN, by the national number in it, or by bank code and number, as MT940 does."""
    code, slash, number = said.partition("/")
    ours, theirs = compact(account.number), compact(said).removesuffix(account.currency)
    if slash and compact(code).isdigit() and account.has_iban:
        return ours[4:] == compact(code) + compact(number).removesuffix(account.currency).zfill(len(ours) - 4 - len(compact(code)))
    return theirs == ours or (len(theirs) >= 8 and theirs.isdigit() and ours.endswith(theirs))


def _check(statement: Statement) -> None:
    """Every line could be read, and opening balance and entries make the closing balance, where both are told. Raises FileRefused."""
    if statement.faults:
        raise FileRefused(f"Nothing was booked: {'; '.join(fault.rstrip('.') for fault in statement.faults[:MOST_FAULTS])}.")
    days = {entry.booked_on for entry in statement.entries} | ({statement.opened_on, statement.closed_on} - {None})
    for day in sorted(days, key=str):
        if day and not OLDEST <= day <= clock.today() + AHEAD:
            raise FileRefused(f"Statement {statement.id} has a booking or balance of {day}: the year is wrong, or the file is no real statement. Nothing was booked.")
    if statement.opening is None or statement.closing is None or statement.not_booked:
        return
    booked = sum(entry.amount for entry in statement.entries)
    if statement.opening + booked != statement.closing:
        aside = f" Left out: {' '.join(statement.set_aside)}" if statement.set_aside else ""
        opening, moved, closing = (Money(minor, statement.currency) for minor in (statement.opening, booked, statement.closing))
        raise FileRefused(f"Statement {statement.id} is not whole: {opening} and {moved} do not make {closing}. Nothing was booked.{aside}")


def _take_all(entries: Sequence[Booking], name: str, report: Report) -> Iterator[int]:
    """Book the entries of a part, chunk by chunk; how many lines each had."""
    memory = Memory()
    for first in range(0, len(entries), CHUNK):
        chunk = entries[first : first + CHUNK]
        _take_chunk(chunk, name, report, memory)
        yield sum(len(entry.lines) for entry in chunk)


def _take_chunk(entries: Sequence[Booking], name: str, report: Report, memory: Memory) -> None:
    """Book entries in one transaction; when one of them cannot be, the halves, down to the one, which then waits uncredited."""
    try:
        _book(entries, name, report, memory)
    except psycopg.OperationalError:
        raise
    except Exception:
        if len(entries) > 1:
            half = len(entries) // 2
            _take_chunk(entries[:half], name, report, memory)
            _take_chunk(entries[half:], name, report, memory)
            return
        log.exception("A line of %s could not be credited.", name)
        _park(entries, name, report, memory, reasons.NOT_CREDITED)


def _park(entries: Sequence[Booking], name: str, report: Report, memory: Memory, why: reasons.Reason) -> None:
    """Book an entry without crediting it; if not even that can be done, list it."""
    try:
        _book(entries, name, report, memory, why)
    except psycopg.OperationalError:
        raise
    except Exception:
        log.exception("A line of %s could not be booked.", name)
        report.refused += [f"{line.says}: it could not be booked. The application's log says why." for line in entries[0].lines]


def _book(entries: Sequence[Booking], name: str, report: Report, memory: Memory, uncredited: reasons.Reason | None = None) -> None:
    with db.transaction():
        known.lock()
        found = memory.look(entries)
        booked, met = booking.book(found, memory, name, uncredited)
    memory.met |= met
    report.add(booked)


_UNMATCHED = """
select l.id, l.booked_on, l.amount, l.currency, l.sender, l.sender_account, coalesce(nullif(l.structured, '') || ' ', '') || l.remittance as remittance, l.reason_code, l.reason_values, l.kind,
  l.file, greatest(0, %(today)s - l.booked_on) as days, r.number as back, r.state = 'approved' as approved,
  (select f.message from bank_payouts p join bank_payout_files f on f.id = p.file_id where p.number = r.number) as back_file
from bank_lines l left join bank_returns r on r.line_id = l.id and r.state in ('requested', 'approved')
where l.state = 'suspense' and (%(id)s::bigint is null or l.id = %(id)s) order by l.booked_on, l.id
"""


def unmatched() -> list[Waiting]:
    """Every line in suspense, oldest first."""
    return [Waiting(*row) for row in db.rows(_UNMATCHED, id=None, today=clock.today())]


def waiting(line_id: int) -> Waiting | None:
    """One line in suspense."""
    row = db.row(_UNMATCHED, id=line_id, today=clock.today())
    return Waiting(*row) if row else None


def match_by_hand(line_id: int, login: str, *, actor: str, reason: str, number: str = "") -> str:
    """Credit a line in suspense to a customer, for the bill of that number if one is given; what became of it, as a sentence. Opens the transaction.

    Above the limit of refunds, and of the day, a second person has to say the same. Raises BankError, NotAllowed. `actor` and `reason` stay with
    the line.
    """
    with db.transaction():
        known.lock()
        line = db.row("select amount, currency, kind, state, deducted from bank_lines where id = %(id)s", id=line_id)
        if line is None or line.state != "suspense" or line.kind != "credit":
            raise BankError(f"No line {line_id} waits for a customer.")
        if payouts.standing(line_id):
            raise BankError("It is on its way back to its sender.")
        if doubts.of(line_id):
            raise BankError(UNDECIDED)
        whose, money = _named(login, number), Money(line.amount, line.currency)
        said = approvals.approve(
            "bank.match",
            "bank_line",
            line_id,
            actor=actor,
            needed=approvals.needed(money),
            amount=money,
            terms=f"{login} {number}".strip(),
            customers=[*doubts.concerned([line_id]), whose.customer_id, customers.find_logins([login])[login]],
            reason=reason.strip()[:500],
        )
        if said.repeated:
            raise BankError("You have decided so already. A second person must confirm this.")
        if not said.reached:
            return f"Your decision is kept. A second person must confirm this.{f' {approvals.ALONE}' if said.limited else ''}"
        (outcome,) = payments.take_in(booking.arrivals(line_id, money, whose, line.deducted))
        if isinstance(outcome, str):
            raise BankError(reasons.Reason(outcome).sentence)
        booking.mark([(line_id, outcome, whose.rule)], said.by, reason)
    return f"{money} is {f'credited for {number}' if number else f'on the balance of {login}'}."


def credit_waiting() -> int:
    """Credit the lines that waited for an exchange rate alone, now that there is one; how many. Opens a transaction for each."""
    done = 0
    for row in db.rows(_WITHOUT_RATE):
        with db.transaction():
            known.lock()
            if db.scalar(_STILL_WITHOUT_RATE, id=row.id) and not doubts.of(row.id):
                done += booking.credit_again(row.id)
    return done


_WITHOUT_RATE = """
select l.id
from bank_lines l
where l.state = 'suspense'
  and l.reason_code = 'no_rate'
  and l.kind = 'credit'
  and not exists (
    select from bank_returns r
    where r.line_id = l.id
      and r.state in ('requested', 'approved')
  )
"""
_STILL_WITHOUT_RATE = f"select exists ({_WITHOUT_RATE} and l.id = %(id)s)"


def _named(login: str, number: str) -> Match:
    customer_id = customers.find_logins([login]).get(login)
    if customer_id is None:
        raise BankError(f"No customer logs in as {login}.")
    bill = invoicing.find(customer_id, number) if number else None
    if number and bill is None:
        raise BankError(f"{login} has no bill {number}.")
    return Match(bill.beneficiary_id if bill else customer_id, bill.id if bill else None, BY_HAND)
