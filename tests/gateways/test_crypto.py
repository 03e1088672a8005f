"""Coins: too little, too much, too late, twice, unconfirmed and marked by hand; and what JavaScript signs."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app import clock, db, payments, wallet
from app.gateways.nowpayments import js_number
from tests.gateways.conftest import only
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig
from tests.gateways.test_conformance import EUR_25, suspense, tell_all
from tests.pay import again, begin, topup
from tests.processors import ours, theirs


@pytest.fixture
def payment(rig, demo_customer):
    """A payment of 25 euro whose page is open."""
    return begin(topup(demo_customer, EUR_25), rig.method)


def look(minutes: float = 0):
    """What reconciling finds, some time from now."""
    with clock.travel(clock.now() + timedelta(minutes=minutes)):
        return payments.reconcile()


def stands(payment) -> tuple[str, int | None, int]:
    """State, credited, and what is on the balance."""
    now = again(payment)
    return now.state, now.credited, wallet.state(now.customer_id).available


@only("btcpay")
def test_coins_that_are_only_seen_are_not_credited(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "25.00", settled=False)
    tell_all(rig)
    assert stands(payment) == ("pending", None, 0)
    rig.fake.confirm(payment.gateway_reference)
    tell_all(rig)
    assert stands(payment) == ("paid", 2500, 2500)


@only("btcpay")
def test_of_two_transfers_only_the_confirmed_one_counts_until_the_other_is(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "10.00")
    rig.fake.send(payment.gateway_reference, "15.00", settled=False)
    tell_all(rig)
    assert stands(payment) == ("paid", 1000, 1000)
    assert payments.due(payments.bill_of(payment)).minor == 1500
    rig.fake.confirm(payment.gateway_reference)
    tell_all(rig)
    assert stands(payment) == ("paid", 2500, 2500)
    assert payments.bill_of(again(payment)).status == "paid"


@only("btcpay")
def test_too_little_is_credited_the_bill_stays_open_and_the_rest_pays_it(rig: BTCPayRig, payment, owner):
    rig.fake.send(payment.gateway_reference, "20.00")
    rig.fake.expire(payment.gateway_reference)
    tell_all(rig)
    assert stands(payment) == ("paid", 2000, 2000)
    bill = payments.bill_of(payment)
    assert (bill.unpaid, payments.options(bill).due.minor) == (True, 500)
    page = owner.get(f"/payments/{payment.public_id}").text
    assert "Still to pay" in page
    assert "€ 5.00" in page.replace("\xa0", " ")
    assert "Pay € 5.00" in owner.get(f"/invoices/{bill.number}/pay").text.replace("\xa0", " ")
    (mail,) = db.rows("select body_text from mails where kind = 'payment_confirmed'")
    assert "is still to be paid" in mail.body_text
    assert payments.options(bill).methods[0].unavailable.startswith("From")


@only("btcpay")
def test_the_late_rest_is_credited_while_the_market_is_near(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "20.00")
    rig.fake.expire(payment.gateway_reference)
    tell_all(rig)
    rig.fake.market = Decimal(50_900)
    rig.fake.send(payment.gateway_reference, "5.00", late=True)
    tell_all(rig)
    tell_all(rig)
    assert stands(payment) == ("paid", 2500, 2500)
    assert payments.bill_of(again(payment)).status == "paid"
    assert [lot.paid for lot in wallet.lots(payment.customer_id)] == [500, 2000]
    assert db.scalar("select count(*) from mails where kind = 'payment_confirmed'") == 2


@only("btcpay")
def test_late_money_in_a_moved_market_waits_for_a_person(rig: BTCPayRig, payment):
    rig.fake.expire(payment.gateway_reference)
    tell_all(rig)
    rig.fake.market = Decimal(48_000)
    rig.fake.send(payment.gateway_reference, "25.00", late=True)
    tell_all(rig)
    assert stands(payment) == ("review", None, 0)
    assert suspense() == 2500


@only("btcpay")
def test_more_money_in_a_moved_market_waits_too_and_is_held_once(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "20.00")
    rig.fake.expire(payment.gateway_reference)
    tell_all(rig)
    rig.fake.market = Decimal(60_000)
    rig.fake.send(payment.gateway_reference, "5.00", late=True)
    tell_all(rig)
    tell_all(rig)
    assert stands(payment) == ("paid", 2000, 2000)
    assert suspense() == 500


@only("btcpay")
def test_too_much_and_twice_land_on_the_balance(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "27.50")
    tell_all(rig)
    assert stands(payment) == ("paid", 2750, 2750)
    rig.fake.send(payment.gateway_reference, "25.00")
    assert look(5) == {"paid": 1}
    assert stands(payment) == ("paid", 5250, 5250)


@only("btcpay")
def test_a_paid_invoice_is_watched_on_though_no_webhook_comes(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "20.00")
    assert look(2) == {"paid": 1}
    rig.fake.send(payment.gateway_reference, "5.00")
    assert look(30 * 60) == {"paid": 1}
    assert stands(payment) == ("paid", 2500, 2500)
    assert look(5 * 24 * 60) == {}


@only("btcpay")
def test_what_was_marked_by_hand_needs_a_person_and_moves_nothing(rig: BTCPayRig, payment):
    rig.fake.mark(payment.gateway_reference)
    tell_all(rig)
    assert stands(payment) == ("review", None, 0)
    assert suspense() == 0


@only("btcpay")
def test_a_redelivery_is_the_same_news(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "25.00")
    event = rig.fake.events[-1]
    first = rig.gateway.read_event(*rig.webhooks()[-1])
    rig.fake.events.append(event | {"deliveryId": "again", "isRedelivery": True})
    assert rig.gateway.read_event(*rig.webhooks()[-1]).id == first.id


@only("nowpayments")
@pytest.mark.parametrize("status", ["waiting", "confirming", "confirmed", "sending", "partially_paid", "failed", "expired", "refunded", "something_new"])
def test_nothing_but_finished_is_credited(rig: NOWPaymentsRig, payment, status: str):
    rig.fake.pay(payment.gateway_reference, status, share=0.8)
    tell_all(rig)
    assert stands(payment)[1:] == (None, 0)
    assert suspense() == (2000 if status == "partially_paid" else 0)


@only("nowpayments")
def test_two_payments_of_one_order_are_both_credited(rig: NOWPaymentsRig, payment):
    rig.fake.pay(payment.gateway_reference, "finished")
    tell_all(rig)
    rig.fake.pay(payment.gateway_reference, "finished", again=True)
    tell_all(rig)
    assert stands(payment) == ("paid", 5000, 5000)


@only("nowpayments")
@pytest.mark.parametrize("told", [tell_all, lambda _: look(40)], ids=["by webhook", "by looking"])
def test_a_short_payment_that_is_finished_after_all_waits_whole_for_a_person(rig: NOWPaymentsRig, payment, told):
    rig.fake.pay(payment.gateway_reference, "partially_paid", share=0.8)
    tell_all(rig)
    assert (stands(payment), suspense()) == (("review", None, 0), 2000)
    rig.fake.pay(payment.gateway_reference, "finished")
    told(rig)
    told(rig)
    assert (stands(payment), suspense()) == (("review", None, 0), 2500)
    assert theirs(rig) == ours("nowpayments")


@only("nowpayments")
@pytest.mark.parametrize("before", ["failed", "expired", "refunded"])
def test_money_of_a_second_try_counts_whatever_became_of_the_first(rig: NOWPaymentsRig, payment, before: str):
    rig.fake.pay(payment.gateway_reference, before)
    tell_all(rig)
    rig.fake.pay(payment.gateway_reference, "finished", again=True)
    assert look(40) == {"paid": 1}
    assert stands(payment) == ("paid", 2500, 2500)
    assert theirs(rig) == ours("nowpayments")


@only("nowpayments")
def test_a_second_payment_of_a_paid_order_is_found_without_a_webhook(rig: NOWPaymentsRig, payment):
    rig.fake.pay(payment.gateway_reference, "finished")
    assert look(2) == {"paid": 1}
    rig.fake.pay(payment.gateway_reference, "finished", again=True)
    assert look(30) == {"paid": 1}
    assert stands(payment) == ("paid", 5000, 5000)
    assert theirs(rig) == ours("nowpayments")


@only("btcpay")
def test_coins_that_are_never_confirmed_bring_nothing(rig: BTCPayRig, payment):
    rig.fake.send(payment.gateway_reference, "25.00", settled=False)
    rig.fake.spoil(payment.gateway_reference)
    assert look(2) == {"failed": 1}
    assert stands(payment) == ("failed", None, 0)
    assert theirs(rig) == ours("btcpay") == {}


@only("btcpay")
@pytest.mark.parametrize(("worth", "late", "ends"), [("20.00", False, 2000), ("27.50", False, 2750), ("25.00", True, 2500)])
def test_looking_alone_finds_too_little_too_much_and_too_late(rig: BTCPayRig, payment, worth: str, late: bool, ends: int):
    if late:
        rig.fake.expire(payment.gateway_reference)
    rig.fake.send(payment.gateway_reference, worth, late=late)
    assert look(2) == {"paid": 1}
    assert stands(payment) == ("paid", ends, ends)
    assert theirs(rig) == ours("btcpay")


@pytest.mark.parametrize(
    ("text", "written"),
    [("1e-07", "1e-7"), ("170.0", "170"), ("0.000001", "0.000001"), ("1e21", "1e+21"), ("1E+2", "100"), ("-0.0", "0"), ("9007199254740993", "9007199254740992"), ("4.350", "4.35")],
)
def test_numbers_are_written_as_javascript_does(text: str, written: str):
    assert js_number(text) == written
