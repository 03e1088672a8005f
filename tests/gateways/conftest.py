"""The rigs, each put into the house in place of its gateways."""

from collections.abc import Iterator

import pytest
from flask import Flask
from stripe import HTTPClient

from app import gateways
from tests.fakes.schemas import Key, schema
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, PayPalRig, SandboxRig, StripeRig
from tests.pay import processor

Rig = SandboxRig | StripeRig | PayPalRig | BTCPayRig | NOWPaymentsRig
RIGS = {"stripe": StripeRig, "paypal": PayPalRig, "btcpay": BTCPayRig, "nowpayments": NOWPaymentsRig}
EXACT = ["sandbox", "stripe", "paypal"]
"""Where the page fixes the amount; at the others the payer decides how much to send."""
INEXACT = ["btcpay", "nowpayments"]


def _keys(tables: dict[str, str]) -> frozenset[Key]:
    return frozenset((kind, key) for kind, keys in tables.items() for key in keys.split())


NEEDED: dict[str, frozenset[Key]] = {
    "stripe": _keys({"charge.payment_method_details": "card", "payment_method": "card", "api_error": "code decline_code"}),
    "paypal": _keys(
        {
            "order": "id status create_time purchase_units links",
            "purchase_unit": "custom_id payments",
            "payment_collection": "captures refunds",
            "order.capture": "id status",
            "order.refund": "id amount status custom_id",
            "capture": "id status amount create_time links seller_receivable_breakdown",
            "seller_receivable_breakdown": "paypal_fee",
            "refund": "id status links",
            "dispute": "dispute_id status dispute_amount dispute_life_cycle_stage dispute_outcome disputed_transactions reason",
            "dispute_outcome": "outcome_code",
            "dispute_search": "items",
            "dispute_info": "dispute_id",
            "transaction_info": "seller_transaction_id",
            "event": "event_type resource",
            "event_list": "events",
            "error": "details",
        }
    ),
    "btcpay": _keys(
        {
            "invoice": "id amount paidAmount currency checkoutLink expirationTime status metadata",
            "payment_method": "paymentMethodId rate payments",
            "payment": "value receivedDate status",
            "rate": "currencyPair rate",
            **{kind: "type deliveryId storeId invoiceId" for kind in schema("btcpay").types if kind.startswith("Invoice")},
        }
    ),
    "nowpayments": _keys({"payment": "created_at"}),
}
"""What no schema promises and we cannot do without, or tell less without. What happens where one of these is left out, `test_left_out.py` tries."""
BARE = [f"{name} bare" for name in NEEDED]
"""The gateways once more, every key left out that may be and is not needed."""


@pytest.fixture(params=[*EXACT, *INEXACT])
def rig(request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Each gateway in turn, alone in the house."""
    yield from rigged(request, app, monkeypatch)


def rigged(request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The rig that a parameter names."""
    name, _, bare = request.param.partition(" ")
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    made: Rig = SandboxRig(processor(app)) if name == "sandbox" else RIGS[name]()
    if bare:
        made.fake.without = schema(name).optional - NEEDED[name]
    before = {name: gateways.get(name) for name in ("sandbox", *RIGS) if gateways.get(name)}
    gateways.use({made.gateway.name: made.gateway})
    yield made
    made.come_back()
    made.close()
    gateways.use(before)


def only(*names: str) -> pytest.MarkDecorator:
    """The suite's rig, of these gateways alone."""
    return pytest.mark.parametrize("rig", names, indirect=True)
