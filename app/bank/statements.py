"""What a bank's file says, the same for every format: statements of accounts, their entries, and the single transfers of each entry."""

import unicodedata
from dataclasses import dataclass, field, replace
from datetime import date

from app.remittance import CUT

NO_REFERENCE = frozenset({"", "NONREF", "NOTPROVIDED", "NOT PROVIDED", "NOTAVAILABLE", "NONE", "N/A"})


class FileRefused(ValueError):
    """A file, or a statement in it, of which nothing is booked. `str()` is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Detail:
    """One transfer. `amount` is signed, in minor units of the account, None where the bank does not say it; `deducted` is what banks on the way kept of it.

    `remittance` is what the payer wrote, `note` what the bank says of it in its own words.
    """

    amount: int | None = None
    bank_reference: str = ""
    end_to_end: str = ""
    sender: str = ""
    sender_account: str = ""
    structured: str = ""
    remittance: str = ""
    note: str = ""
    deducted: int = 0
    returned: bool = False

    @property
    def bare(self) -> bool:
        """Whether the bank says nothing by which anybody could be named."""
        return not (self.end_to_end or self.sender_account or self.structured)


@dataclass(frozen=True, slots=True)
class Entry:
    """One booking on the account: signed amount, and what it is made of; `charges` are what the bank took from a batch before booking it.

    `names` are those of the collective booking that it is or belongs to, `transfers` how many the bank says it is the sum of, 0 where it does not.
    """

    amount: int
    booked_on: date
    reference: str = ""
    returned: bool = False
    fee: bool = False
    charges: int = 0
    details: tuple[Detail, ...] = ()
    names: frozenset[str] = frozenset()
    transfers: int = 0


@dataclass(slots=True)
class Statement:
    """A piece of an account's history. `opening` and `closing` are booked balances of `opened_on` and `closed_on`, None where the format has none.

    `number` is the statement's place in the account's series, `page` its part of one that is told in several; `full` says that it tells all that was booked, as an advice does not; `faults` are lines nobody could read, `set_aside` those of money that is not this account's, in sentences; `undated` the places of entries without a day of booking.
    """

    id: str
    account: str
    currency: str
    format: str = ""
    full: bool = False
    number: int | None = None
    page: str = ""
    opening: int | None = None
    opened_on: date | None = None
    closing: int | None = None
    closed_on: date | None = None
    entries: list[Entry] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    not_booked: int = 0
    set_aside: list[str] = field(default_factory=list)
    undated: list[int] = field(default_factory=list)


def clean(text: str) -> str:
    """A text without what steers a terminal or hides what is written: control characters, marks
    that turn the direction of writing, letters of no width. Blanks of all kinds become one."""
    if text.isprintable():
        return text
    return "".join(_plain(letter) for letter in text)


def _plain(letter: str) -> str:
    if letter == CUT or letter.isprintable():
        return letter
    kind = unicodedata.category(letter)
    return " " if letter.isspace() or kind[0] == "Z" else "" if kind in {"Cc", "Cf"} else "\N{REPLACEMENT CHARACTER}"


def cleaned(statement: Statement) -> Statement:
    """A statement with every text in it clean, before anything is read out of them."""
    statement.id, statement.account = clean(statement.id), clean(statement.account)
    statement.faults = [clean(fault) for fault in statement.faults]
    statement.set_aside = [clean(said) for said in statement.set_aside]
    statement.entries = [_clean_entry(entry) for entry in statement.entries]
    return statement


def _clean_entry(entry: Entry) -> Entry:
    details = tuple(_clean_detail(detail) for detail in entry.details)
    names = frozenset(clean(name) for name in entry.names)
    if (details, names) == (entry.details, entry.names) and entry.reference.isprintable():
        return entry
    return replace(entry, reference=clean(entry.reference), details=details, names=names)


def _clean_detail(detail: Detail) -> Detail:
    said = (detail.bank_reference, detail.end_to_end, detail.sender, detail.sender_account, detail.structured, detail.remittance, detail.note)
    if all(text.isprintable() for text in said):
        return detail
    return replace(
        detail,
        bank_reference=clean(detail.bank_reference),
        end_to_end=clean(detail.end_to_end),
        sender=clean(detail.sender),
        sender_account=clean(detail.sender_account),
        structured=clean(detail.structured),
        remittance=clean(detail.remittance),
        note=clean(detail.note),
    )


def day_of(text: str) -> date:
    """A day as ISO 8601 writes it. Raises ValueError with words for an operator."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"“{text}” is no day" if text else "there is no day of booking") from None


def given(reference: str | None) -> str:
    """A reference as the bank wrote it, or nothing where it wrote that there is none."""
    text = (reference or "").strip()
    return "" if text.upper() in NO_REFERENCE else text


def compact(number: str | None) -> str:
    """An account number without blanks and punctuation, in capitals."""
    return "".join(letter for letter in (number or "").upper() if letter.isalnum())
