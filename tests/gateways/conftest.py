"""The rigs, each put into the house in place of its gateways."""

from collections.abc import Iterator

import pytest
from flask import Flask
from stripe import HTTPClient

from app import gateways
from tests.gateways.rigs import SandboxRig, StripeRig
from tests.pay import processor

Rig = SandboxRig | StripeRig


@pytest.fixture(params=["sandbox", "stripe"])
def rig(request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Each gateway in turn, alone in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    made: Rig = SandboxRig(processor(app)) if request.param == "sandbox" else StripeRig()
    before = {name: gateways.get(name) for name in ("sandbox", "stripe") if gateways.get(name)}
    gateways.use({made.gateway.name: made.gateway})
    yield made
    made.come_back()
    made.close()
    gateways.use(before)
