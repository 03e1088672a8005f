"""Rightly signed webhooks of whatever kind, version and shape: always 2xx, always kept, and nothing is ever credited that a look-up does not confirm."""

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import clock, db, payments
from app.customers import User
from tests.gateways.conftest import INEXACT, only
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, PayPalRig, StripeRig, Webhook
from tests.gateways.test_conformance import EUR_25, balance, paying
from tests.pay import again, times_credited

Rig = StripeRig | PayPalRig | BTCPayRig | NOWPaymentsRig

over_http = only("stripe", "paypal", *INEXACT)
GONE = object()
OTHERS: list[Any] = [None, 5, -1e30, "", "x\u0000", "y" * 300, [], [{}], {}, {"id": []}, True, GONE]


def delivered(rig: Rig, event: dict[str, Any]) -> Webhook:
    """An event as its processor would sign it."""
    if isinstance(rig, NOWPaymentsRig | StripeRig):
        return rig.fake.webhook(event)
    return rig.raw(json.dumps(event).encode())


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where every field of a value stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from paths(item, (*path, key))


def changed(event: dict[str, Any], path: tuple[str | int, ...], other: Any) -> dict[str, Any]:
    """An event with another value in one place."""
    event = copy.deepcopy(event)
    at: Any = event
    for step in path[:-1]:
        at = at[step]
    if other is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = other
    return event


@over_http
def test_a_signed_body_with_any_field_of_another_type_is_kept(rig: Rig, anonymous: FlaskClient, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.expire(payment.gateway_reference or "")
    rig.pay(payment.gateway_reference or "")
    events, name = list(rig.fake.events), rig.gateway.name
    rig.go_down()
    sent = 0
    kinds = {event.get("type") or event.get("event_type") or event.get("payment_status"): event for event in events}
    for event in kinds.values():
        for number, path in enumerate(paths(event)):
            # Every place in turn with a few of the others, all of them over a few places.
            for other in OTHERS if len(path) == 1 else OTHERS[number % 3 :: 3]:
                body, headers = delivered(rig, changed(event, path, other))
                answer = anonymous.post(f"/webhooks/{name}", data=body, headers=headers)
                assert answer.status_code == 200, (path, other, answer.text)
                sent += 1
    assert sent > 100
    assert db.scalar("select count(*) from webhooks where state not in ('new', 'ignored', 'parked')") == 0
    assert (again(payment).state, balance(demo_customer), db.scalar("select count(*) from unproven_webhooks")) == ("created", 0, 0)
    rig.come_back()
    with clock.travel(clock.now() + timedelta(minutes=2)):
        payments.process_due(2000)
        payments.reconcile()
    assert (again(payment).state, balance(demo_customer), times_credited(payment)) == ("paid", 25_00, 1)


@over_http
@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"x"', b"{", b"\x00", b"[" * 3000])
def test_a_signed_body_that_is_no_object_is_parked(rig: Rig, anonymous: FlaskClient, body: bytes):
    if isinstance(rig, NOWPaymentsRig):
        return  # its signature is over what the body means, so such a body has none
    raw, headers = rig.raw(body)
    assert anonymous.post(f"/webhooks/{rig.gateway.name}", data=raw, headers=headers).status_code == 200
    (parked,) = payments.parked()
    assert parked.why.startswith("unreadable_event: ")


UNKNOWN: dict[str, list[dict[str, Any]]] = {
    "stripe": [
        {"id": "evt_1", "object": "event", "type": "moon.landed", "created": 1796000000, "livemode": False, "data": {"object": {"id": "moon_1", "object": "moon"}}},
        {"id": "evt_2", "object": "v2.core.event", "type": "v2.core.event_destination.ping", "created": "2026-11-30T12:00:00.000Z", "livemode": False, "related_object": None},
        {
            "id": "evt_3", "object": "v2.core.event", "type": "v2.core.account.updated", "created": "2026-11-30T12:00:00.000Z", "livemode": False, "context": "acct_1",
            "related_object": {"id": "acct_1", "type": "v2.core.account", "url": "/v2/core/accounts/acct_1"},
        },
        {"id": "evt_4", "object": "v2.core.event", "type": "v1.billing.meter.no_meter_found", "created": "2026-11-30T12:00:00.000Z", "livemode": False, "data": {"a": 1}},
    ],
    "paypal": [
        {"id": "WH-1", "event_type": "BILLING.SUBSCRIPTION.ACTIVATED", "resource": {"id": "I-1"}},
        {"id": "WH-2", "event_type": "MOON.LANDED", "resource": [1]},
        {"id": "WH-3", "resource": {"id": "x"}},
    ],
    "btcpay": [
        {"deliveryId": "d1", "originalDeliveryId": "d1", "type": "PayoutCreated", "timestamp": 1796000000, "storeId": "Store1", "payoutId": "p1"},
        {"deliveryId": "d2", "originalDeliveryId": "d2", "type": "MoonLanded", "timestamp": 1796000000, "storeId": "Store1"},
    ],
    "nowpayments": [
        {"id": "5000248325", "batch_withdrawal_id": "5000145498", "status": "FINISHED", "currency": "trx", "amount": "50"},
        {"payment_status": "moon_landed"},
    ],
}  # fmt: skip


@over_http
def test_events_of_kinds_and_versions_we_do_not_know_are_kept_and_ignored(rig: Rig, anonymous: FlaskClient):
    for event in UNKNOWN[rig.gateway.name]:
        body, headers = delivered(rig, event)
        assert anonymous.post(f"/webhooks/{rig.gateway.name}", data=body, headers=headers).status_code == 200
    assert {row.state for row in db.rows("select state from webhooks")} == {"ignored"}
    assert db.scalar("select count(*) from webhooks") == len(UNKNOWN[rig.gateway.name])
    assert payments.process_due() == {}


@only("stripe")
def test_a_thin_event_about_a_payment_is_looked_up_like_any_other(rig: StripeRig, anonymous: FlaskClient, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    body, headers = rig.fake.webhook(rig.fake.thin("v1.checkout.session.completed", rig.fake.sessions[payment.gateway_reference or ""]))
    assert anonymous.post("/webhooks/stripe", data=body, headers=headers).status_code == 200
    assert payments.process_due() == {"done": 1}
    assert (again(payment).state, balance(demo_customer)) == ("paid", 25_00)


@only("btcpay")
@pytest.mark.parametrize("days", [-400, -40, 40])
def test_a_redelivery_is_taken_however_old(rig: BTCPayRig, anonymous: FlaskClient, demo_customer: User, days: int):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    event = rig.fake.events[-1] | {"timestamp": int((clock.now() + timedelta(days=days)).timestamp()), "deliveryId": "again", "isRedelivery": True}
    for _ in range(2):
        body, headers = delivered(rig, event)
        assert anonymous.post("/webhooks/btcpay", data=body, headers=headers).status_code == 200
    assert payments.process_due() == {"done": 1}
    assert (balance(demo_customer), times_credited(payment)) == (25_00, 1)


assert EUR_25.minor == 25_00
