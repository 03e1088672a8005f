"""What a bank's file says, the same for every format: statements of accounts, their entries, and the single transfers of each entry."""

from dataclasses import dataclass, field
from datetime import date

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

    `number` is the statement's place in the account's series; `full` says that it tells all that was booked, as an advice does not; `faults` are lines nobody could read.
    """

    id: str
    account: str
    currency: str
    format: str = ""
    full: bool = False
    number: int | None = None
    opening: int | None = None
    opened_on: date | None = None
    closing: int | None = None
    closed_on: date | None = None
    entries: list[Entry] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    not_booked: int = 0


def given(reference: str | None) -> str:
    """A reference as the bank wrote it, or nothing where it wrote that there is none."""
    text = (reference or "").strip()
    return "" if text.upper() in NO_REFERENCE else text


def compact(number: str | None) -> str:
    """An account number without blanks and punctuation, in capitals."""
    return "".join(letter for letter in (number or "").upper() if letter.isalnum())
