"""What a bank booked, entry by entry and line by line, as it is kept: an entry is one movement of the account, its lines are the transfers it is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from app.bank.reasons import BATCH_DIFFERS, Reason
from app.bank.statements import Detail, Entry, Statement, compact
from app.money import Money
from app.remittance import CUT
from config import BankAccount

FEES = "Charges of the batch"


@dataclass(frozen=True, slots=True)
class Line:
    """One transfer of ours to book, in signed minor units. `returned` says that it undoes another one, `doubt` why nobody may be credited for it."""

    account: str
    currency: str
    kind: str
    booked_on: date
    amount: int
    bank_reference: str
    detail: Detail
    returned: bool = False
    doubt: Reason | None = None

    @property
    def money(self) -> Money:
        """The amount as money, signed."""
        return Money(self.amount, self.currency)

    @property
    def text(self) -> str:
        """All that is said of it."""
        return f"{self.detail.remittance} {self.detail.note} {self.detail.end_to_end} {self.detail.structured}"

    @property
    def says(self) -> str:
        """The line in a few words, for reports."""
        said = self.detail.structured or self.detail.remittance or self.detail.end_to_end or self.detail.note
        return f"{self.booked_on} {self.money} {self.detail.sender} {said.replace(CUT, ' ')}".strip()

    @property
    def facts(self) -> tuple[object, ...]:
        """What tells it from another line of its entry's account, day and amount: the bank's reference, else the payer's, else all it says."""
        detail = self.detail
        own: tuple[str, ...] = ("text", detail.sender_account, compact(detail.sender), compact(detail.structured), compact(detail.remittance or detail.note))
        if detail.end_to_end:
            own = ("payer", detail.end_to_end, detail.sender_account)
        if self.bank_reference:
            own = ("bank", self.bank_reference)
        return (self.account, self.booked_on, self.amount, *own)


@dataclass(frozen=True, slots=True)
class Booking:
    """One entry of an account: the bank's reference and signed amount of the whole, and its lines.

    `names` and `transfers` say what collective booking it is or belongs to; `told_before` that another file told the whole of its statement. `maybe` are
    lines in the books that may be the same money; then either this entry waits for a person (its lines have a `doubt`) or they do.
    """

    account: str
    currency: str
    booked_on: date
    amount: int
    reference: str
    lines: tuple[Line, ...]
    names: frozenset[str] = frozenset()
    transfers: int = 0
    maybe: tuple[int, ...] = ()
    told_before: bool = False

    @property
    def batch(self) -> bool:
        """Whether it is told transfer by transfer."""
        return len(self.lines) > 1

    @property
    def references(self) -> set[str]:
        """The bank's own names for it."""
        return {self.reference, *(() if self.batch else (self.lines[0].bank_reference,))} - {""}


def bookings(statement: Statement, account: BankAccount, *, told_before: bool = False) -> Iterator[Booking]:
    """The entries of a statement of one of our accounts. One of nothing, as a bank writes to tell of its terms, is none."""
    for entry in statement.entries:
        details, doubt = _split(entry)
        if not entry.amount and len(details) == 1:
            continue
        lines = tuple(_line(entry, detail, account, "" if len(details) > 1 else entry.reference, doubt) for detail in details)
        yield Booking(account.number, account.currency, entry.booked_on, entry.amount, entry.reference, lines, entry.names, entry.transfers, told_before=told_before)


def _line(entry: Entry, detail: Detail, account: BankAccount, reference: str, doubt: Reason | None) -> Line:
    amount = entry.amount if detail.amount is None else detail.amount
    returned = entry.returned or detail.returned
    return Line(account.number, account.currency, _kind(entry, detail, amount), entry.booked_on, amount, detail.bank_reference or reference, detail, returned, doubt)


def _split(entry: Entry) -> tuple[tuple[Detail, ...], Reason | None]:
    """The transfers of an entry, and why they cannot be told apart, if so: then the entry is one line for a person to look at."""
    if len(entry.details) <= 1:
        return entry.details or (Detail(entry.amount),), None
    amounts = [detail.amount for detail in entry.details]
    known = sum(amount for amount in amounts if amount is not None)
    if None in amounts or 0 in amounts or entry.amount not in {known, known - entry.charges}:
        return (Detail(entry.amount, remittance=" ".join(detail.remittance for detail in entry.details)[:500]),), BATCH_DIFFERS
    fee = (Detail(entry.amount - known, remittance=FEES),) if entry.amount != known else ()
    return entry.details + fee, None


def _kind(entry: Entry, detail: Detail, amount: int) -> str:
    if amount > 0:
        return "credit"
    if entry.returned or detail.returned:
        return "return"
    return "charge" if entry.fee or (entry.amount > 0 and detail.remittance == FEES) else "debit"
