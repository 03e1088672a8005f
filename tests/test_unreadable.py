"""An answer that we cannot read holds up the one thing it is about, where a person sees it: it is no outage, and money that has left is written down."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from stripe import HTTPClient

from app import clock, db, gateways, payments, refunds, wallet
from app.customers import User
from app.gateways.base import UnreadableAnswer
from app.payments import Payment, ProcessorDown, cards, outages
from tests.conftest import BERLIN, Browser, person
from tests.gateways.rigs import PayPalRig, StripeRig
from tests.money_helpers import EUR
from tests.pay import again, begin, times_credited, topup
from tests.processors import everywhere


@pytest.fixture
def rigs(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StripeRig, PayPalRig]]:
    """Two processors, in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    with everywhere(app) as found:
        stripe, paypal = found["stripe"], found["paypal"]
        assert isinstance(stripe, StripeRig)
        assert isinstance(paypal, PayPalRig)
        gateways.use({"stripe": stripe.gateway, "paypal": paypal.gateway})
        yield stripe, paypal
        stripe.fake.without = paypal.fake.without = frozenset()


def paid(rig: StripeRig | PayPalRig, user: User) -> Payment:
    """A payment of 25 euros that has arrived."""
    payment = begin(topup(user, EUR("25")), rig.method)
    rig.pay(payment.gateway_reference or "")
    assert payments.refresh(payment).state == "paid"
    return again(payment)


def asked_back(payment: Payment) -> str:
    """The number of an approved refund of 10 euros."""
    number = refunds.request(payment.customer_id, payment.public_id, EUR("10"), "")
    refunds.approve(number, actor="staff:sam")
    return number


def state(number: str) -> tuple[str, bool]:
    """A refund's state, and whether support sees why it does not go on."""
    row = db.row("select state, hindrance from refunds where number = %(number)s", number=number)
    assert row is not None
    return row.state, row.hindrance.startswith("unreadable_answer: ")


def test_many_unreadable_answers_are_no_outage_and_everybody_may_pay(rigs: tuple[StripeRig, PayPalRig], staff: Browser, owner: Browser, demo_customer: User):
    stripe, _ = rigs
    waiting = [begin(topup(person(f"payer-{number}", profile=BERLIN), EUR("25")), stripe.method) for number in range(4)]
    for payment in waiting:
        stripe.pay(payment.gateway_reference or "")
    stripe.fake.without = frozenset({("payment_intent", "amount_received")})
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"unanswered": 4}
    assert (outages.known(), outages.left_alone()) == ([], frozenset())
    assert [(one.gateway, one.kind, one.payment) for one in outages.unreadable()] == [("stripe", "lookup", payment.public_id) for payment in waiting]
    assert {one.path for one in outages.unreadable()} == {"payment_intent.amount_received (stripe._received)"}
    assert 'value="stripe-card"' in owner.get(f"/invoices/{topup(demo_customer, EUR('25')).number}/pay").text
    for page in ("/staff/held", "/staff/refunds"):
        assert waiting[0].public_id in staff.get(page).text
        assert "payment_intent.amount_received" in staff.get(page).text
    assert 'client_area_answers_unreadable{processor="stripe"} 4' in staff.get("/metrics").text
    stripe.fake.without = frozenset()
    with clock.travel(clock.now() + timedelta(minutes=10)):
        assert payments.reconcile() == {"paid": 4}
    assert outages.unreadable() == []


def test_a_page_whose_answer_cannot_be_read_may_be_open(rigs: tuple[StripeRig, PayPalRig], demo_customer: User):
    stripe, _ = rigs
    bill = topup(demo_customer, EUR("25"))
    stripe.fake.without = frozenset({("checkout.session", "url")})
    with pytest.raises(ProcessorDown):
        begin(bill, stripe.method)
    (payment,) = payments.open_of(bill.id)
    assert payment.state == "unknown"
    assert [(one.kind, one.payment) for one in outages.unreadable()] == [("checkout", payment.public_id)]


@pytest.mark.parametrize("key", ["amount", "currency", "metadata", "status", "failure_reason"])
def test_a_refund_that_left_is_written_down_whatever_else_its_answer_says(rigs: tuple[StripeRig, PayPalRig], demo_customer: User, key: str):
    stripe, _ = rigs
    number = asked_back(paid(stripe, demo_customer))
    stripe.fake.without = frozenset({("refund", key)})
    assert refunds.pay_out(number) == ("sent" if key == "status" else "settled")
    stripe.fake.without = frozenset()
    with clock.travel(clock.now() + timedelta(minutes=2)):
        refunds.reconcile()
    assert (state(number), stripe.books()["EUR"].refunded) == (("settled", False), 10_00)
    assert outages.unreadable() == []


@pytest.mark.parametrize("which", [0, 1], ids=["stripe", "paypal"])
def test_a_refund_without_its_name_waits_for_a_person_and_is_never_sent_twice(rigs: tuple[StripeRig, PayPalRig], demo_customer: User, which: int):
    rig = rigs[which]
    number = asked_back(paid(rig, demo_customer))
    rig.fake.without = frozenset({("refund", "id"), ("order.refund", "id")})
    for _ in range(3):
        with pytest.raises(UnreadableAnswer):
            refunds.pay_out(number)
        rig.forget_keys()
    assert state(number) == ("approved", True)
    assert (outages.known(), rig.books()["EUR"].refunded) == ([], 10_00)
    rig.fake.without = frozenset()
    assert refunds.pay_out(number) == "settled"
    assert (state(number), rig.books()["EUR"].refunded, outages.unreadable()) == (("settled", False), 10_00, [])


@pytest.mark.parametrize(
    ("key", "kind"), [(("dispute", "amount"), "dispute"), (("refund", "amount"), "listed_refund"), (("balance_transaction", "fee"), "fee"), (("charge", "created"), "detail")]
)
def test_a_part_that_cannot_be_read_keeps_no_money_waiting(rigs: tuple[StripeRig, PayPalRig], demo_customer: User, key: tuple[str, str], kind: str):
    stripe, _ = rigs
    payment = begin(topup(demo_customer, EUR("25")), stripe.method)
    stripe.pay(payment.gateway_reference or "")
    stripe.fake.refund_by_hand(payment.gateway_reference or "", 5_00)
    stripe.dispute(payment.gateway_reference or "", 7_00)
    stripe.fake.without = frozenset({key})
    assert payments.refresh(payment).confirmed
    assert (times_credited(payment), {one.kind for one in outages.unreadable()}) == (1, {kind} | ({"dispute"} if kind == "fee" else set()))
    stripe.fake.without = frozenset()
    payments.look_at(payment.public_id)
    assert outages.unreadable() == []
    assert wallet.state(demo_customer.customer_id or 0).available == 13_00


def test_a_card_that_cannot_be_read_keeps_its_page_open_and_nothing_else(rigs: tuple[StripeRig, PayPalRig], demo_customer: User):
    stripe, _ = rigs
    page = cards.add(demo_customer.customer_id or 0)
    stripe.fake.save(page.reference)
    stripe.fake.without = frozenset({("payment_method.card", "last4")})
    assert cards.reconcile() == 0
    assert [(one.kind, one.about) for one in outages.unreadable()] == [("lookup", page.reference)]
    assert outages.known() == []
    stripe.fake.without = frozenset()
    assert cards.reconcile() == 1
    assert outages.unreadable() == []


def test_a_webhook_whose_payment_cannot_be_read_is_parked_and_can_be_replayed(rigs: tuple[StripeRig, PayPalRig], demo_customer: User, app: Flask):
    stripe, _ = rigs
    payment = begin(topup(demo_customer, EUR("25")), stripe.method)
    stripe.pay(payment.gateway_reference or "")
    stripe.fake.without = frozenset({("payment_intent", "amount_received")})
    waiting = payments.receive("stripe", *stripe.webhooks()[-1])
    assert payments.process(waiting) == "parked"
    (parked,) = payments.parked()
    assert parked.why == "unreadable_answer: payment_intent.amount_received (stripe._received)"
    said = app.test_cli_runner().invoke(args=["webhooks", "parked"])
    assert isinstance(app.test_cli_runner(), FlaskCliRunner)
    assert "1 parked." in said.output
    assert "lookup" in said.output
    stripe.fake.without = frozenset()
    assert payments.replay(waiting) == "done"
    assert (again(payment).state, outages.unreadable()) == ("paid", [])


def test_whatever_reading_comes_to_names_no_value(app: Flask):
    for error in (ValueError("anna@example.com"), KeyError("anna@example.com"), TypeError("anna"), LookupError("anna")):
        with pytest.raises(UnreadableAnswer) as told, outages.asking("stripe", "lookup", "pay_1"):
            raise error
        assert "anna" not in told.value.detail + str(told.value)
        assert told.value.__suppress_context__
    assert "anna" not in outages.unreadable()[0].path


# A secret that is wrong


def test_a_wrong_secret_is_seen_and_the_first_proven_webhook_ends_it(
    rigs: tuple[StripeRig, PayPalRig], staff: Browser, anonymous: Browser, demo_customer: User, app: Flask, caplog: pytest.LogCaptureFixture
):
    stripe, _ = rigs
    stripe.pay(begin(topup(demo_customer, EUR("25")), stripe.method).gateway_reference or "")
    event = stripe.fake.events[-1]

    def deliver(secret: str | None, times: int = 1) -> set[int]:
        return {anonymous.post("/webhooks/stripe", data=body, headers=headers).status_code for body, headers in [stripe.fake.webhook(event, secret=secret)] * times}

    assert deliver("whsec_wrong", outages.UNPROVEN_ENOUGH - 1) == {400}
    assert outages.known() == []
    assert deliver("whsec_wrong") == {400}
    (trouble,) = outages.known()
    assert (trouble.gateway, trouble.verb, trouble.detail) == ("stripe", "webhooks", "5")
    assert "A webhook of stripe is not proven: the signature does not match" in caplog.text
    assert "Check the signing secret" in staff.get("/staff/held").text
    assert "webhook_secret stripe since" in staff.get("/readyz").text
    assert 'client_area_webhooks_unproven{processor="stripe"} 5' in staff.get("/metrics").text
    assert "5 webhooks without a valid signature" in app.test_cli_runner().invoke(args=["webhooks", "parked"]).output
    assert deliver(None) == {200}
    assert outages.known() == []


def test_a_stranger_without_any_signature_says_nothing_of_the_secret(rigs: tuple[StripeRig, PayPalRig], anonymous: Browser):
    for _ in range(10):
        assert anonymous.post("/webhooks/stripe", data=b"{}").status_code == 400
    assert db.scalar("select count(*) from unproven_webhooks") == 0
