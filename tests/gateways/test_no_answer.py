"""Processors that answer with an error, with something that is no answer, or not at all: nothing is credited, nothing is lost, nobody sees a broken page."""

from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from app import clock, payments
from app.customers import User
from app.gateways.base import NoAnswer
from app.money import Money
from tests.gateways.conftest import INEXACT, only
from tests.gateways.rigs import LoopbackRig, StripeRig
from tests.gateways.test_conformance import EUR_25, balance, charge, open_session, paying
from tests.pay import again, begin, times_credited, topup
from tests.processors import ours, theirs

MODES = ["500", "409", "429", "html", "junk", "drop-before"]
"""The last is what a broken TLS handshake looks like too: a connection that ends without an answer."""

over_http = only("stripe", "paypal", *INEXACT)
every_mode = pytest.mark.parametrize("mode", MODES)


@over_http
@every_mode
def test_no_answer_is_never_a_verdict(rig: StripeRig | LoopbackRig, mode: str):
    reference = open_session(rig)
    rig.answer_with(mode)
    for ask in (lambda: rig.gateway.lookup(reference), lambda: rig.gateway.checkout(charge("pay_another"))):
        with pytest.raises(NoAnswer, match="does not answer"):
            ask()


@over_http
@every_mode
def test_a_page_that_does_not_open_leaves_the_bill_payable_by_the_same_method(rig: StripeRig | LoopbackRig, owner: FlaskClient, demo_customer: User, mode: str):
    bill = topup(demo_customer, EUR_25)
    rig.answer_with(mode)
    answer = owner.submit(f"/invoices/{bill.number}/pay", {"method": rig.method})
    assert answer.status_code < 500 or answer.status_code == 503
    assert "does not answer" in answer.text
    rig.come_back()
    (unknown,) = payments.open_of(bill.id)
    assert (unknown.state, balance(demo_customer)) == ("unknown", 0)
    assert rig.method in owner.get(f"/invoices/{bill.number}/pay").text
    payment = begin(bill, rig.method)
    assert payment.public_id == unknown.public_id
    rig.pay(payment.gateway_reference or "")
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"paid": 1}
    assert (again(payment).state, times_credited(payment)) == ("paid", 1)
    assert theirs(rig) == ours(rig.gateway.name)


@over_http
@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'"yes"', b'{"id": null, "data": 5, "links": 1}'])
def test_an_answer_of_another_shape_is_none(rig: StripeRig | LoopbackRig, owner: FlaskClient, demo_customer: User, monkeypatch: pytest.MonkeyPatch, body: bytes):
    payment, bill = paying(rig, demo_customer), topup(demo_customer, Money(26_00, "EUR"))
    answer = (lambda *_: (200, body)) if isinstance(rig, StripeRig) else (lambda _: (200, body))
    monkeypatch.setattr(rig.fake, "answer", answer)
    said = owner.submit(f"/invoices/{bill.number}/pay", {"method": rig.method})
    assert said.status_code == 303 or "cannot read the processor&#39;s answer" in said.text or "did not open" in said.text
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert owner.get(f"/payments/{payment.public_id}").status_code == 200
        payments.reconcile()
    assert (again(payment).state, balance(demo_customer)) == ("created", 0)


@only("paypal", *INEXACT)
def test_an_answer_that_drips_is_not_waited_for(rig: LoopbackRig, monkeypatch: pytest.MonkeyPatch):
    reference = open_session(rig)
    monkeypatch.setattr("app.gateways.http.LONGEST_S", -1.0)
    with pytest.raises(NoAnswer) as silent:
        rig.gateway.lookup(reference)
    assert "no time is left" in silent.value.detail


@over_http
@every_mode
def test_the_page_after_paying_waits_instead_of_breaking(rig: StripeRig | LoopbackRig, owner: FlaskClient, demo_customer: User, mode: str):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    rig.answer_with(mode)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert owner.get(f"/payments/{payment.public_id}").status_code == 200
        assert payments.reconcile() in ({"unanswered": 1}, {})
    assert (again(payment).state, balance(demo_customer)) == ("created", 0)
    rig.come_back()
    with clock.travel(clock.now() + timedelta(minutes=20)):
        assert payments.reconcile() == {"paid": 1}
    assert (balance(demo_customer), times_credited(payment)) == (25_00, 1)
