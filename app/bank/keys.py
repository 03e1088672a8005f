"""Which line of which file is which: the same transfer comes in several files, each time a little different, and counts once.

A line is known by the bank's own reference, else by the payer's, else by all it says; the n-th equal line of a file is the n-th of its kind.
An entry with a reference is known as a whole, too: a batch may come with its transfers in one file and as a sum in the next.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

from app.bank.statements import Detail, Entry, Statement, compact
from app.money import Money
from config import BankAccount

ODD_BATCH = "The transfers of this batch do not add up to what was booked."


@dataclass(frozen=True, slots=True)
class Line:
    """One transfer of ours to book: signed minor units, and the keys by which it is known."""

    key: bytes
    entry_key: bytes | None
    account: str
    currency: str
    kind: str
    booked_on: date
    amount: int
    bank_reference: str
    detail: Detail
    doubt: str = ""

    @property
    def money(self) -> Money:
        """The amount as money, signed."""
        return Money(self.amount, self.currency)

    @property
    def says(self) -> str:
        """The line in a few words, for reports."""
        said = self.detail.structured or self.detail.remittance or self.detail.end_to_end
        return f"{self.booked_on} {self.money} {self.detail.sender} {said}".strip()


class Keys:
    """Gives the lines of one file their keys; lines that are equal are told apart by their order."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[object, ...]] = Counter()

    def lines(self, statement: Statement, account: BankAccount) -> Iterator[list[Line]]:
        """The lines of each entry of a statement."""
        for entry in statement.entries:
            yield list(self._of_entry(entry, account))

    def _of_entry(self, entry: Entry, account: BankAccount) -> Iterator[Line]:
        entry_key = self._key(account.number, entry.booked_on, entry.amount, "entry", entry.reference) if entry.reference else None
        details, doubt = _split(entry)
        for detail in details:
            amount = entry.amount if detail.amount is None else detail.amount
            reference = detail.bank_reference or (entry.reference if len(details) == 1 else "")
            kind = _kind(entry, detail, amount)
            own = self._key(account.number, entry.booked_on, amount, *_identity(reference, detail))
            yield Line(own, entry_key, account.number, account.currency, kind, entry.booked_on, amount, reference, detail, doubt)

    def _key(self, *facts: object) -> bytes:
        self._seen[facts] += 1
        return sha256("|".join(str(fact) for fact in (*facts, self._seen[facts])).encode()).digest()


def _identity(reference: str, detail: Detail) -> tuple[str, ...]:
    if reference:
        return "bank", reference
    if detail.end_to_end:
        return "payer", detail.end_to_end, detail.sender_account
    return "text", detail.sender_account, compact(detail.sender), compact(detail.structured), compact(detail.remittance)


def _split(entry: Entry) -> tuple[tuple[Detail, ...], str]:
    """The transfers of an entry, and why they cannot be told apart, if so: then the entry is one line for a person to look at."""
    if len(entry.details) <= 1:
        return entry.details or (Detail(entry.amount),), ""
    amounts = [detail.amount for detail in entry.details]
    known = sum(amount for amount in amounts if amount is not None)
    if None in amounts or entry.amount not in {known, known - entry.charges}:
        return (Detail(entry.amount, remittance=" ".join(detail.remittance for detail in entry.details)[:500]),), ODD_BATCH
    fee = (Detail(entry.amount - known, remittance="Charges of the batch"),) if entry.amount != known else ()
    return entry.details + fee, ""


def _kind(entry: Entry, detail: Detail, amount: int) -> str:
    if amount > 0:
        return "credit"
    if entry.returned or detail.returned:
        return "return"
    return "charge" if entry.fee or (entry.amount > 0 and detail.remittance == "Charges of the batch") else "debit"
