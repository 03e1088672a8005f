"""Refunds and disputes as processors tell of them: the same news, whoever carries it, and every webhook about them leads to the payment."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app import clock
from app.gateways.base import Charge, DisputeSnapshot, Redirect, RefundSnapshot, Refused, Snapshot
from app.money import Money
from tests.gateways.conftest import EXACT, only
from tests.gateways.rigs import PayPalRig, SandboxRig, StripeRig
from tests.money_helpers import EUR

Back = SandboxRig | StripeRig | PayPalRig

ways_back = only(*EXACT)


def paid(rig: Back, minor: int = 50_00) -> str:
    """The reference of a payment that was made."""
    url = "http://localhost/"
    handoff = rig.gateway.checkout(Charge("pay_" + "1" * 32, Money(minor, "EUR"), "card", "Top-up", "Top-up", url, url, clock.now() + timedelta(hours=2)))
    assert isinstance(handoff, Redirect)
    rig.pay(handoff.reference)
    look(rig, handoff.reference)
    return handoff.reference


def look(rig: Back, reference: str) -> Snapshot:
    """What its API says of the payment now."""
    found = rig.gateway.lookup(reference)
    assert found
    return found


@ways_back
def test_a_refund_is_seen_with_our_key_in_every_state(rig: Back):
    reference = paid(rig)
    assert look(rig, reference).refunds == ()
    rig.slow()
    sent = rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    assert sent == RefundSnapshot(sent.reference, "pending", EUR("20"), "", "refund:RF-1")
    assert look(rig, reference).refunds == (sent,)
    rig.move_refund(sent.reference, settled=True)
    assert look(rig, reference).refunds[0].state == "settled"
    rig.move_refund(sent.reference, settled=False)
    (failed,) = look(rig, reference).refunds
    assert (failed.reference, failed.state, failed.amount, failed.key) == (sent.reference, "failed", EUR("20"), "refund:RF-1")
    assert failed.failure_message
    assert look(rig, reference).state == "paid"


@ways_back
def test_in_parts_up_to_what_came_and_no_more(rig: Back):
    reference = paid(rig)
    rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    rig.gateway.refund(reference, EUR("30"), "refund:RF-2")
    with pytest.raises(Refused):
        rig.gateway.refund(reference, EUR("0.01"), "refund:RF-3")
    assert [refund.key for refund in look(rig, reference).refunds] == ["refund:RF-1", "refund:RF-2"]
    assert (look(rig, reference).state, look(rig, reference).received) == ("paid", EUR("50"))


@ways_back
def test_a_refund_by_hand_is_seen_and_carries_no_key_of_ours(rig: Back):
    reference = paid(rig)
    rig.refund_by_hand(reference, 12_00)
    (refund,) = look(rig, reference).refunds
    assert (refund.state, refund.amount) == ("settled", EUR("12"))
    assert not refund.key.startswith("refund:")


@ways_back
@pytest.mark.parametrize("won", [True, False])
def test_a_dispute_is_seen_until_it_is_decided(rig: Back, won: bool):
    reference = paid(rig)
    assert look(rig, reference).disputes == ()
    dispute = rig.dispute(reference, 30_00)
    assert tuple(replace(one, fees=()) for one in look(rig, reference).disputes) == (DisputeSnapshot(dispute, "open", EUR("30"), rig.reason),)
    rig.close_dispute(dispute, won=won)
    assert [one.state for one in look(rig, reference).disputes] == ["won" if won else "lost"]
    assert look(rig, reference).refunds == ()


@ways_back
def test_every_webhook_about_them_leads_to_the_payment(rig: Back):
    reference = paid(rig)
    sent = rig.gateway.refund(reference, EUR("20"), "refund:RF-1")
    rig.move_refund(sent.reference, settled=False)
    rig.close_dispute(rig.dispute(reference, 30_00), won=True)
    events = [rig.gateway.read_event(*webhook) for webhook in rig.webhooks()]
    about = [event for event in events if "refund" in event.kind.lower() or "dispute" in event.kind.lower()]
    assert len(about) == 4
    assert {look(rig, event.reference).charge_id for event in about} == {"pay_" + "1" * 32}


@only("stripe")
def test_an_inquiry_is_told_and_ends_or_becomes_a_dispute_under_its_name(rig: StripeRig):
    reference = paid(rig)
    asked = rig.fake.dispute(reference, 30_00, status="warning_needs_response")
    for status, state in {"warning_under_review": "inquiry", "warning_closed": "closed", "needs_response": "open"}.items():
        rig.fake.close_dispute(asked, status)
        assert [(one.reference, one.state) for one in look(rig, reference).disputes] == [(asked, state)]
