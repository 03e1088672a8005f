"""A gateway added by the steps of docs/adding-a-gateway.md, as small as one can be: the house needs to know nothing else of it."""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import clock, gateways, payments, refunds
from app.customers import User
from app.gateways import http
from app.gateways.base import BadSignature, Charge, Event, Handoff, Method, Redirect, RefundSnapshot, Refused, Snapshot, WayBack, read_json
from app.money import Money
from tests.fakes.loopback import Call, Loopback
from tests.gateways.test_conformance import EUR_25, balance
from tests.pay import again, begin, times_credited, topup

SECRET = b"tiny"


class Tiny:
    """The gateway: what would be `app/gateways/tiny.py`."""

    name = "tiny"
    grows = False
    forgets = False
    final_after: timedelta | None = None

    def __init__(self, url: str) -> None:
        self._url = url
        self.pages = (url,)

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """One."""
        return [Method("pay", "Tiny Pay", "TINY", "A pretend wallet", "Instant", self.name).judged(country, amount)]

    def way_back(self, method: str) -> WayBack:
        """None."""
        del method
        return WayBack(days=0)

    def checkout(self, charge: Charge) -> Handoff:
        """PUT by our own id would be idempotent by itself; so is this POST."""
        asked = {"id": charge.id, "minor": charge.amount.minor, "currency": charge.amount.currency}
        made = http.call("POST", f"{self._url}/bills", body=http.write_json(asked)).body
        return Redirect(made["page"], made["id"])

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """An HMAC over the body."""
        if not hmac.compare_digest(hmac.new(SECRET, body, hashlib.sha256).hexdigest().encode(), headers.get("tiny-signature", "").encode()):
            raise BadSignature("the signature does not match")
        event = read_json(body)
        return Event(str(event["id"]), str(event["bill"]), "paid", clock.now())

    def lookup(self, reference: str) -> Snapshot | None:
        """The bill, by the one id it has."""
        answer = http.call("GET", f"{self._url}/bills/{reference}", expected=(404,))
        if answer.status == 404:
            return None
        paid = answer.body["paid"]
        return Snapshot(reference, reference, "paid" if paid else "open", received=Money(answer.body["minor"], answer.body["currency"]) if paid else None, paid_at=clock.now())

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Never."""
        raise Refused("Tiny Pay sends nothing back.", detail=f"{key}: {amount} of {reference}")


@dataclass
class FakeTiny(Loopback):
    """The fake: what would be `tests/fakes/tiny.py`."""

    bills: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, call: Call) -> tuple[int, object]:
        """Open a bill once, or read it."""
        if call.method == "POST":
            asked = call.json
            return 200, self.bills.setdefault(asked["id"], asked | {"paid": False, "page": f"{self.url}/page/{asked['id']}"})
        found = self.bills.get(call.path.rpartition("/")[2])
        return (200, found) if found else (404, {})


@pytest.fixture
def tiny(app: object) -> Iterator[FakeTiny]:
    """The new processor, and the one line that adds its gateway."""
    del app
    fake = FakeTiny()
    gateways.use({"tiny": Tiny(fake.url)})
    yield fake
    fake.close()


def test_it_is_offered_paid_told_of_and_credited(tiny: FakeTiny, owner: FlaskClient, anonymous: FlaskClient, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    assert "Tiny Pay" in owner.get(f"/invoices/{bill.number}/pay").text
    payment = begin(bill, "tiny-pay")
    tiny.bills[payment.public_id]["paid"] = True
    body = json.dumps({"id": "t1", "bill": payment.public_id}).encode()
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert anonymous.post("/webhooks/tiny", data=body, headers={"tiny-signature": "00"}).status_code == 400
    assert anonymous.post("/webhooks/tiny", data=body, headers={"tiny-signature": signature}).status_code == 200
    assert payments.process_due() == {"done": 1}
    assert (again(payment).state, balance(demo_customer), times_credited(payment)) == ("paid", 25_00, 1)
    assert refunds.refundable(demo_customer.customer_id or 0)[0].way == "bank"
