"""Who sent the money of a payment that came by bank transfer: it goes back to that account alone."""

from dataclasses import dataclass

from app import db

NOT_THE_SENDER = "not_the_sender"
"""The code of a refusal to pay money back to another account than the one that sent it."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The account a transfer came from, as the bank told it: its holder's name and its IBAN."""

    name: str
    iban: str

    @property
    def masked(self) -> str:
        """The account as its owner recognizes it."""
        return f"{self.iban[:4]} … {self.iban[-4:]}"

    @property
    def refusal(self) -> str:
        """What a person reads who asked for another account."""
        return f"The transfer came from {self.masked}. It goes back to that account only."

    def is_meant(self, iban: str) -> bool:
        """Whether what somebody typed, in whatever groups, is this account, or is left to us."""
        return "".join(sign for sign in iban.upper() if sign.isalnum()) in {"", self.iban}

    def holder(self, typed: str) -> str:
        """The holder's name for a payout: as it was typed, else as the bank told it."""
        return " ".join((typed.strip() or self.name).split())[:70].strip()


def sender_of(payment_id: int) -> Sender | None:
    """Who sent the money of a payment; None where it came another way, or the bank told no IBAN."""
    row = db.row(_SENDER, payment=payment_id)
    return Sender(row.sender, row.iban) if row else None


_SENDER = """
select sender, iban
from payment_senders
where payment_id = %(payment)s
order by line_id
limit 1
"""
