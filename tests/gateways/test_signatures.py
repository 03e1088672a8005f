"""Recorded deliveries of every signature scheme, genuine and not, at the time they were signed. NOWPayments' were signed by node."""

import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import clock
from app.gateways.base import BadSignature, Gateway
from app.gateways.btcpay import BTCPay
from app.gateways.nowpayments import NOWPayments
from app.gateways.paypal import Certificates, PayPal
from app.gateways.sandbox import Sandbox
from app.gateways.stripe import Stripe

KEPT = {file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent.parent / "data/signatures").glob("*.json"))}
NOWHERE = "http://127.0.0.1:9"


def gateway(name: str, kept: dict[str, Any]) -> Gateway:
    """The gateway that reads these, on no network at all."""
    secret = kept["secret"]
    if name == "paypal":
        certificates = Certificates(frozenset({"api.sandbox.paypal.com"}), lambda _: kept["certificate"].encode(), kept["roots"].encode())
        return PayPal("client", "secret", secret, NOWHERE, certificates=certificates)
    made: dict[str, Gateway] = {
        "sandbox": Sandbox(SimpleNamespace(secret=secret, account="acct_sandbox")),  # type: ignore[arg-type]
        "stripe": Stripe("sk_test_1", secret, NOWHERE),
        "btcpay": BTCPay(NOWHERE, "Store1", "key", secret),
        "nowpayments": NOWPayments("key", secret, "", NOWHERE),
    }
    return made[name]


CASES = [pytest.param(name, vector, id=f"{name}: {vector['case']}") for name, kept in KEPT.items() for vector in kept["vectors"]]


@pytest.mark.parametrize(("name", "vector"), CASES)
def test_a_recorded_delivery_is_read_as_it_was(name: str, vector: dict[str, Any]):
    kept = KEPT[name]
    with clock.travel(datetime.fromisoformat(kept["at"])):
        try:
            event = gateway(name, kept).read_event(vector["body"].encode(), vector["headers"])
        except BadSignature:
            event = None
    assert (event is not None) == vector["accepted"]
    assert event is None or (event.id and event.reference)


def test_every_scheme_has_both():
    assert set(KEPT) == {"sandbox", "stripe", "paypal", "btcpay", "nowpayments"}
    assert all({vector["accepted"] for vector in kept["vectors"]} == {True, False} for kept in KEPT.values())
