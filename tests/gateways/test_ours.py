"""A wrong key, a permission that was taken away, another account: that is ours to mend. Nobody is declined for it, nothing is given up, and it goes on by itself."""

from datetime import timedelta

import pytest

from app import clock, db, payments, refunds, wallet
from app.customers import User
from app.gateways.base import Misconfigured, NoAnswer
from app.payments import Payment, ProcessorDown
from app.refunds import RefundError
from tests.conftest import Browser
from tests.gateways.conftest import INEXACT, Rig, only
from tests.gateways.rigs import PayPalRig, SandboxRig, StripeRig
from tests.gateways.test_conformance import EUR_25, charge, open_session, paying, tell_all
from tests.money_helpers import EUR
from tests.pay import again, begin, times_credited, topup

SAM = "staff:sam"
over_http = only("stripe", "paypal", *INEXACT)
with_a_way_back = only("stripe", "paypal")


def bar(rig: Rig, mode: str) -> None:
    """From now on the processor does not take us for who we are."""
    assert not isinstance(rig, SandboxRig)
    if mode != "another account":
        rig.answer_with(mode)
        return
    for name in ("sessions", "intents", "orders"):
        if hasattr(rig.fake, name):
            setattr(rig, f"kept_{name}", dict(getattr(rig.fake, name)))
            getattr(rig.fake, name).clear()


def mend(rig: Rig) -> None:
    """Somebody has set it right."""
    rig.come_back()
    for name in ("sessions", "intents", "orders"):
        if hasattr(rig, f"kept_{name}"):
            getattr(rig.fake, name).update(getattr(rig, f"kept_{name}"))


@over_http
@pytest.mark.parametrize("mode", ["401", "403"])
def test_every_verb_says_that_it_is_ours_and_no_secret(rig: Rig, mode: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    reference = open_session(rig)
    bar(rig, mode)
    verbs = [lambda: rig.gateway.lookup(reference), lambda: rig.gateway.lookup("pay_conformance"), lambda: rig.gateway.checkout(charge("pay_another"))]
    if isinstance(rig, StripeRig | PayPalRig):
        verbs.append(lambda: rig.gateway.refund(reference, EUR("1"), "refund:1"))
    if isinstance(rig, StripeRig):
        verbs += [lambda: rig.gateway.enrol("cus_1"), lambda: rig.gateway.forget("pm_1")]
    for verb in verbs:
        with pytest.raises(Misconfigured, match="switched off") as barred:
            verb()
        assert not any(secret in barred.value.detail + caplog.text for secret in secrets_of(rig))


def secrets_of(rig: Rig) -> list[str]:
    """What must stand in no log."""
    assert not isinstance(rig, SandboxRig)
    return [value for name in ("secret_key", "webhook_secret", "secret", "api_key") if (value := str(getattr(rig.fake, name, "")))]


@over_http
def test_a_page_that_does_not_open_for_a_wrong_key_leaves_the_bill_payable(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    bar(rig, "401")
    with pytest.raises(ProcessorDown, match="switched off"):
        begin(bill, rig.method)
    assert payments.open_of(bill.id) == []
    assert [one.verb for one in payments.outages.known()] == ["checkout"]
    mend(rig)
    payment = begin(bill, rig.method)
    assert payments.outages.known() == []
    rig.pay(payment.gateway_reference or "")
    tell_all(rig)
    assert times_credited(payment) == 1


@over_http
def test_webhooks_under_a_wrong_key_wait_and_none_is_parked(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    waiting = [payments.receive(rig.gateway.name, *webhook) for webhook in rig.webhooks()]
    bar(rig, "401")
    assert {payments.process(inbox_id) for inbox_id in waiting for _ in range(6)} == {"new"}
    mend(rig)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.process_due() == {"done": len(waiting)}
    assert times_credited(payment) == 1


@only("stripe", "btcpay")
def test_a_page_that_another_account_does_not_know_is_not_given_up(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pend(payment.gateway_reference or "")
    tell_all(rig)
    kept = rig.fake.sessions if isinstance(rig, StripeRig) else rig.fake.invoices
    ours = dict(kept)
    kept.clear()
    with clock.travel(clock.now() + timedelta(days=2)):
        assert payments.reconcile() == {"unanswered": 1}
        assert [one.verb for one in payments.outages.known()] == ["lookup"]
        kept.update(ours)
        rig.pay(payment.gateway_reference or "")
        with clock.travel(clock.now() + timedelta(hours=1)):
            assert payments.reconcile() == {"paid": 1}
    assert times_credited(payment) == 1


# Refunds


def approved(rig: Rig, user: User) -> tuple[Payment, str]:
    """A payment that was credited, and the refund of a part of it that support has agreed to."""
    payment = paying(rig, user)
    rig.pay(payment.gateway_reference or "")
    tell_all(rig)
    number = refunds.request(user.customer_id or 0, payment.public_id, EUR("10"), "")
    refunds.approve(number, actor=SAM)
    return again(payment), number


def refund_of(user: User) -> refunds.Refund:
    (found,) = refunds.of_customer(user.customer_id or 0)
    return found


@with_a_way_back
@pytest.mark.parametrize("mode", ["401", "403", "another account"])
def test_a_refund_waits_for_a_setting_of_ours_says_so_and_goes_out_when_it_is_mended(rig: Rig, demo_customer: User, staff: Browser, mode: str):
    _, number = approved(rig, demo_customer)
    mails = db.scalar("select count(*) from mails")
    bar(rig, mode)
    assert (refunds.pay_out_due(), refunds.pay_out_due()) == (0, 0)
    assert (refund_of(demo_customer).state, wallet.state(demo_customer.customer_id or 0).available) == ("approved", 15_00)
    assert db.scalar("select count(*) from mails") == mails
    case = refunds.case(number)
    assert case is not None
    assert (bool(case.refund.hindrance), case.refund.attempted_at, refund_of(demo_customer).hindrance) == (True, None, "")
    assert "does not let us send money back" in staff.get("/staff/refunds").text
    assert "It cannot leave" in staff.get(f"/staff/refunds/{number}").text
    assert "client_area_refunds_hindered 1" in staff.get("/metrics").text
    assert f'client_area_processor_trouble{{processor="{rig.gateway.name} refund"}}' in staff.get("/metrics").text
    assert f"key_refused {rig.gateway.name} since" in staff.get("/readyz").text
    mend(rig)
    assert refunds.pay_out_due() == 1
    assert refund_of(demo_customer).state == "settled"
    assert rig.books()["EUR"].refunded == 10_00
    assert payments.outages.known() == []
    assert rig.gateway.name not in staff.get("/readyz").text
    assert "client_area_refunds_hindered 0" in staff.get("/metrics").text


@with_a_way_back
def test_a_refund_that_a_setting_bars_can_be_declined_but_not_one_that_may_have_left(rig: Rig, demo_customer: User):
    assert isinstance(rig, StripeRig | PayPalRig)
    _, number = approved(rig, demo_customer)
    rig.lose_refund_answer()
    with pytest.raises(NoAnswer):
        refunds.pay_out(number)
    rig.come_back()
    bar(rig, "401")
    assert refunds.pay_out_due() == 0
    with pytest.raises(RefundError):
        refunds.decline(number, actor=SAM, answer="No")
    mend(rig)
    assert refunds.pay_out_due() == 1
    assert rig.books()["EUR"].refunded == 10_00
    _, another = approved_more(rig, demo_customer)
    bar(rig, "401")
    assert refunds.pay_out_due() == 0
    refunds.decline(another, actor=SAM, answer="No")
    mend(rig)
    assert refunds.pay_out_due() == 0
    assert rig.books()["EUR"].refunded == 10_00
    assert wallet.state(demo_customer.customer_id or 0).available == 15_00


def approved_more(rig: Rig, user: User) -> tuple[Payment, str]:
    """A second refund of the same payment."""
    payment = again(payments.find(user.customer_id or 0, db.scalar("select public_id from payments")) or pytest.fail("no payment"))
    number = refunds.request(user.customer_id or 0, payment.public_id, EUR("5"), "")
    refunds.approve(number, actor=SAM)
    return payment, number


@with_a_way_back
def test_a_wrong_key_met_by_one_worker_takes_nothing_back_from_another(rig: Rig, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    """Of two tries at once one meets the old key: the other may have sent it, so it can be declined no more."""
    _, number = approved(rig, demo_customer)
    sending = rig.gateway.refund

    def overtaken(*asked: object) -> object:
        monkeypatch.setattr(rig.gateway, "refund", lose)
        with pytest.raises(NoAnswer):
            refunds.pay_out(number)
        raise Misconfigured("the old key")

    def lose(*asked: object) -> object:
        sending(*asked)
        raise NoAnswer("lost")

    monkeypatch.setattr(rig.gateway, "refund", overtaken)
    with pytest.raises(Misconfigured):
        refunds.pay_out(number)
    with pytest.raises(RefundError):
        refunds.decline(number, actor=SAM, answer="No")
    monkeypatch.setattr(rig.gateway, "refund", sending)
    assert refunds.pay_out_due() == 1
    assert rig.books()["EUR"].refunded == 10_00
