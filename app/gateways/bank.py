"""Bank transfer: the customer pays from their own bank, by SEPA or SWIFT, and states our reference.

There is no processor to ask. What arrived is learnt from the bank's statements (`app.bank`), so a payment waits until its money is found there.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from app import remittance
from app.gateways.base import BadSignature, Charge, Event, Instructions, Method, RefundSnapshot, Refused, Snapshot, WayBack
from app.languages import N_
from app.money import Money
from config import BankAccount

LABEL = "Bank transfer"


class Bank:
    """The seller's own accounts, one per currency."""

    name = "bank"
    grows = False
    forgets = True
    final_after: timedelta | None = None
    pages: tuple[str, ...] = ()

    def __init__(self, accounts: Sequence[BankAccount]) -> None:
        self._accounts = {account.currency: account for account in accounts}

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """The transfer, for every currency that has an account."""
        detail = "SEPA, from any bank in Europe" if amount.currency == "EUR" else "SWIFT or local, from any bank"
        method = Method("transfer", LABEL, "BANK", detail, "1–3 business days", self.name, currencies=frozenset(self._accounts), rate_held=False)
        return [method.judged(country, amount)]

    def checkout(self, charge: Charge) -> Instructions:
        """Where to send how much and what to write on it. Nothing leaves the house."""
        account = self._accounts.get(charge.amount.currency)
        if account is None:
            raise Refused(f"We have no bank account in {charge.amount.currency}. Choose another method.")
        lines = (
            ("Account holder", account.holder),
            ("IBAN" if account.has_iban else "Account number", remittance.grouped(account.number)),
            ("BIC", account.bic),
            ("Bank", account.bank),
            ("Amount", str(charge.amount.decimal)),
            ("Reference", remittance.grouped(charge.reference)),
        )
        return Instructions(lines, charge.id, remittance.qr(account.holder, account.number, account.bic, charge.amount, charge.reference))

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """A bank sends no webhooks: whatever comes as one is refused."""
        del body, headers
        raise BadSignature("a bank sends no webhooks")

    def lookup(self, reference: str) -> Snapshot | None:
        """Nobody to ask: statements are imported."""
        del reference
        return None

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """A transfer is not turned round by a machine: it goes back as a payout by hand."""
        del reference, amount, key
        raise Refused(N_("A bank transfer goes back by a transfer of ours, made by hand."))

    def way_back(self, method: str) -> WayBack:
        """Never: statements name an account, and it may be nobody's we know."""
        del method
        return WayBack(0)
