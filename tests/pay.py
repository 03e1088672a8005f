"""What the tests of payments share: a top-up bill, the pretend processor, its webhooks carried by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from flask import Flask, current_app

import config
from app import clock, db, gateways, payments
from app.customers import User
from app.gateways.base import Handoff, Method, Redirect, WayBack
from app.gateways.sandbox import METHODS, Sandbox
from app.invoicing import Bill
from app.money import Money
from app.payments import Payment, book
from app.sandbox_processor import CHOICES, PretendProcessor

RATES = {"USD": "1.0837", "PLN": "4.2515", "JPY": "175.68", "KWD": "0.33275", "GBP": "0.8412"}


class Other(Sandbox):
    """The pretend processor under another name, whose money may go to a bank account: the sandbox's own never does."""

    name = "other"

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """The sandbox's, as its own."""
        return [replace(method, gateway=self.name).judged(country, amount) for method in METHODS]

    def way_back(self, method: str) -> WayBack:
        """As long as real processors give most methods; never for coins."""
        return WayBack(0 if method == "crypto" else 180)


def with_other() -> None:
    """Let there be the gateway ``other``, until the next test."""
    pretend = current_app.extensions["sandbox_processor"]
    gateways.use(gateways.build(config.current(), pretend) | {"other": Other(pretend)})


def processor(app: Flask) -> PretendProcessor:
    """The pretend processor of this house."""
    return app.extensions["sandbox_processor"]


def publish_rates(**rates: str) -> None:
    """Rates of today, one euro in each."""
    with db.transaction():
        for currency, rate in (RATES | rates).items():
            db.execute(
                "insert into rates (source, currency, rate_date, rate, fetched_at) values ('ECB', %(currency)s, %(day)s, %(rate)s, %(now)s) on conflict do nothing",
                currency=currency, day=clock.today(), rate=Decimal(rate), now=clock.now(),
            )  # fmt: skip


def topup(user: User, amount: Money) -> Bill:
    """An unpaid top-up bill of a customer."""
    assert user.customer_id
    return payments.order_topup(user.customer_id, amount)


def begin(bill: Bill, method: str = "sandbox-card", token: str | None = None) -> Payment:
    """Start a payment as the page does, with the rate it shows."""
    if method.startswith("other-") and not gateways.get("other"):
        with_other()
    token = payments.options(bill).quote_token if token is None else token
    handoff = payments.start(bill.customer_id, bill.proforma_number or "", method, token)
    return of(handoff)


def of(handoff: Handoff) -> Payment:
    """The payment behind a page of the sandbox."""
    assert isinstance(handoff, Redirect)
    row = db.row(f"select {book.COLUMNS} from payments where gateway_reference = %(reference)s", reference=handoff.reference)
    return Payment(*row)


def choose(app: Flask, payment: Payment, choice: str) -> None:
    """What the visitor of the hosted page clicks."""
    assert payment.gateway_reference
    processor(app).choose(payment.gateway_reference, CHOICES[choice])


_GATEWAY = "select gateway from payments where gateway_reference = %(reference)s and gateway in ('sandbox', 'other')"


def carry(app: Flask) -> int:
    """Carry the due webhooks to the real endpoint and work the inbox; how many were delivered."""
    browser = app.test_client()

    def send(body: bytes, headers: dict[str, str]) -> int:
        gateway = db.scalar(_GATEWAY, reference=json.loads(body)["reference"]) or "sandbox"
        return browser.post(f"/webhooks/{gateway}", data=body, headers=headers).status_code

    delivered = processor(app).deliver(send)
    payments.process_due()
    return delivered


def again(payment: Payment) -> Payment:
    """The payment as it stands now."""
    found = book.read(payment.public_id)
    assert found
    return found


def times_credited(payment: Payment) -> int:
    """How often the ledger credited it."""
    return db.scalar("select count(*) from transfers where payment_id = %(id)s and kind = 'topup'", id=payment.id)
