"""Every state that a processor publishes is one that we have decided about."""

from collections.abc import Collection

import pytest

from app.gateways import btcpay, nowpayments, paypal, stripe, stripe_declines
from tests.fakes.schemas import schema

DECIDED: list[tuple[str, str, Collection[str]]] = [
    ("stripe", "payment_intent.status", stripe._INTENT_STATES),
    ("stripe", "checkout.session.status", {*stripe._SESSION_STATES, stripe.COMPLETE}),
    ("stripe", "checkout.session.payment_status", {"paid", "unpaid", "no_payment_required"}),
    ("stripe", "refund.status", stripe._REFUND_STATES),
    ("stripe", "refund.failure_reason", {*stripe_declines._BACK_BY_CODE, "unknown"}),
    ("stripe", "dispute.status", {*stripe._DISPUTE_STATES, stripe.PREVENTED}),
    ("paypal", "order.status", {*paypal._ORDER_STATES, paypal._COMPLETED}),
    ("paypal", "capture.status", paypal._CAPTURE_STATES),
    ("paypal", "refund.status", paypal._REFUND_STATES),
    ("paypal", "dispute.dispute_life_cycle_stage", {paypal._INQUIRY, *paypal._CLAIMS}),
    ("paypal", "dispute_outcome.outcome_code", paypal._OUTCOMES),
    ("btcpay", "invoice.status", btcpay._STATES),
    ("btcpay", "payment.status", btcpay.COIN_STATES),
    ("nowpayments", "payment.payment_status", nowpayments._STATES),
]


@pytest.mark.parametrize(("name", "enum", "decided"), DECIDED, ids=[f"{name} {enum}" for name, enum, _ in DECIDED])
def test_every_published_state_is_decided_about(name: str, enum: str, decided: Collection[str]):
    assert set(schema(name).enums[enum]) - set(decided) == set()


def test_no_enum_is_forgotten():
    known = {(name, enum) for name, enum, _ in DECIDED}
    published = {(name, enum) for name in ("stripe", "paypal", "btcpay", "nowpayments") for enum in schema(name).enums}
    # What these say is read for a sentence, or not at all.
    left = {("stripe", "setup_intent.status"), ("stripe", "payment_intent.cancellation_reason"), ("paypal", "dispute.status"), ("btcpay", "invoice.additionalStatus")}
    assert published - known == left
