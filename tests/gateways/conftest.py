"""The rigs, each put into the house in place of its gateways."""

from collections.abc import Iterator

import pytest
from flask import Flask
from stripe import HTTPClient

from app import gateways
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, PayPalRig, SandboxRig, StripeRig
from tests.pay import processor

Rig = SandboxRig | StripeRig | PayPalRig | BTCPayRig | NOWPaymentsRig
RIGS = {"stripe": StripeRig, "paypal": PayPalRig, "btcpay": BTCPayRig, "nowpayments": NOWPaymentsRig}
EXACT = ["sandbox", "stripe", "paypal"]
"""Where the page fixes the amount; at the others the payer decides how much to send."""
INEXACT = ["btcpay", "nowpayments"]


@pytest.fixture(params=[*EXACT, *INEXACT])
def rig(request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Each gateway in turn, alone in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    made: Rig = SandboxRig(processor(app)) if request.param == "sandbox" else RIGS[request.param]()
    before = {name: gateways.get(name) for name in ("sandbox", *RIGS) if gateways.get(name)}
    gateways.use({made.gateway.name: made.gateway})
    yield made
    made.come_back()
    made.close()
    gateways.use(before)


def only(*names: str) -> pytest.MarkDecorator:
    """The suite's rig, of these gateways alone."""
    return pytest.mark.parametrize("rig", names, indirect=True)
