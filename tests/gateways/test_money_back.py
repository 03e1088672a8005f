"""Refunds and disputes as processors tell of them: the same news, whoever carries it, and every webhook about them leads to the payment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from app import clock
from app.gateways.base import Charge, DisputeSnapshot, GatewayError, Redirect, RefundSnapshot, Snapshot
from app.money import Money
from tests.gateways.rigs import SandboxRig, StripeRig
from tests.money_helpers import EUR


@dataclass
class Hands:
    """What happens at a processor after a payment was made."""

    rig: Any
    slow: Callable[[], None]
    settle: Callable[[str], object]
    fail: Callable[[str], object]
    dispute: Callable[[str, int], str]
    close: Callable[[str, bool], object]

    def paid(self, minor: int = 50_00) -> str:
        """The reference of a payment that was made."""
        url = "http://localhost/"
        handoff = self.rig.gateway.checkout(Charge("pay_" + "1" * 32, Money(minor, "EUR"), "card", "Top-up", "Top-up", url, url, clock.now() + timedelta(hours=2)))
        assert isinstance(handoff, Redirect)
        self.rig.pay(handoff.reference)
        return handoff.reference

    def look(self, reference: str) -> Snapshot:
        """What its API says of the payment now."""
        found = self.rig.gateway.lookup(reference)
        assert found
        return found


def _sandbox(app: Flask) -> Hands:
    house = app.extensions["sandbox_processor"]
    rig = SandboxRig(house)

    def slow() -> None:
        house.slow = True

    return Hands(
        rig, slow, lambda refund: house.move_refund(refund, "settled"), lambda refund: house.move_refund(refund, "failed", "expired or canceled card"),
        lambda reference, minor: house.dispute(reference, minor, "product not received"), lambda dispute, won: house.close_dispute(dispute, won=won),
    )  # fmt: skip


def _stripe(app: Flask) -> Hands:
    del app
    rig = StripeRig()

    def slow() -> None:
        rig.fake.refund_status = "pending"

    return Hands(
        rig, slow, lambda refund: rig.fake.move_refund(refund, "succeeded"), lambda refund: rig.fake.move_refund(refund, "failed", "expired_or_canceled_card"),
        rig.fake.dispute, lambda dispute, won: rig.fake.close_dispute(dispute, "won" if won else "lost"),
    )  # fmt: skip


@pytest.fixture(params=[_sandbox, _stripe], ids=["sandbox", "stripe"])
def hands(app: Flask, request: pytest.FixtureRequest) -> Iterator[Hands]:
    """Each processor in turn."""
    made = request.param(app)
    yield made
    made.rig.close()
    app.extensions["sandbox_processor"].slow = False


def test_a_refund_is_seen_with_our_key_in_every_state(hands: Hands):
    reference = hands.paid()
    assert hands.look(reference).refunds == ()
    hands.slow()
    sent = hands.rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    assert sent == RefundSnapshot(sent.reference, "pending", EUR("20"), "", "refund:RF-1")
    assert hands.look(reference).refunds == (sent,)
    hands.settle(sent.reference)
    assert hands.look(reference).refunds[0].state == "settled"
    hands.fail(sent.reference)
    assert hands.look(reference).refunds == (RefundSnapshot(sent.reference, "failed", EUR("20"), "expired or canceled card", "refund:RF-1"),)
    assert hands.look(reference).state == "paid"


def test_in_parts_up_to_what_came_and_no_more(hands: Hands):
    reference = hands.paid()
    hands.rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    hands.rig.gateway.refund(reference, EUR("30"), "refund:RF-2")
    with pytest.raises(GatewayError) as refused:
        hands.rig.gateway.refund(reference, EUR("0.01"), "refund:RF-3")
    assert refused.value.permanent
    assert [refund.key for refund in hands.look(reference).refunds] == ["refund:RF-1", "refund:RF-2"]


@pytest.mark.parametrize("won", [True, False])
def test_a_dispute_is_seen_until_it_is_decided(hands: Hands, won: bool):
    reference = hands.paid()
    assert hands.look(reference).disputes == ()
    dispute = hands.dispute(reference, 30_00)
    assert hands.look(reference).disputes == (DisputeSnapshot(dispute, "open", EUR("30"), "product not received"),)
    hands.close(dispute, won)
    assert [one.state for one in hands.look(reference).disputes] == ["won" if won else "lost"]


def test_every_webhook_about_them_leads_to_the_payment(hands: Hands):
    reference = hands.paid()
    sent = hands.rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    hands.fail(sent.reference)
    hands.close(hands.dispute(reference, 30_00), True)
    events = [hands.rig.gateway.read_event(*webhook) for webhook in hands.rig.webhooks()]
    about = [event for event in events if "refund" in event.kind or "dispute" in event.kind]
    assert len(about) == 4
    assert {hands.look(event.reference).charge_id for event in about} == {"pay_" + "1" * 32}


def test_an_inquiry_moves_no_money_and_is_no_dispute(app: Flask):
    hands = _stripe(app)
    try:
        reference = hands.paid()
        hands.rig.fake.dispute(reference, 30_00, status="warning_needs_response")
        assert hands.look(reference).disputes == ()
    finally:
        hands.rig.close()
