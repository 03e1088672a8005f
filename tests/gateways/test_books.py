"""Money that came and money that left again, followed through the house; then the processor's own books beside ours, to the cent."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from app import clock, db, payments, refunds, services, wallet
from app.customers import User
from app.gateways.base import NoAnswer
from app.money import Money
from app.payments import Payment
from tests.gateways.conftest import EXACT, INEXACT, Rig, only
from tests.gateways.test_conformance import balance, paying, tell_all
from tests.gateways.test_money_back import Back
from tests.money_helpers import EUR
from tests.pay import again, begin, times_credited, topup
from tests.processors import ours, theirs
from tests.trade import offer_plans

STAFF = "staff:sam"


def test_what_we_think_it_holds_is_what_it_says_it_holds(rig: Rig, demo_customer: User):
    whole, short = paying(rig, demo_customer), begin(topup(demo_customer, Money.of("26", "EUR")), rig.method)
    rig.pay(whole.gateway_reference or "")
    rig.pay(short.gateway_reference or "", amount=19_99)
    tell_all(rig)
    assert theirs(rig) == ours(rig.gateway.name)
    assert sum(theirs(rig).values()) > 43_00


def by_webhooks(rig: Rig) -> None:
    """Every webhook, in the order it happened and once more."""
    tell_all(rig)
    tell_all(rig)


def by_looking(rig: Rig) -> None:
    """No webhook at all: what the jobs find, a fortnight on, in two runs."""
    with clock.travel(clock.now() + timedelta(days=14)):
        for _ in range(2):
            payments.look_over()
            refunds.reconcile()


News = Callable[[Rig], None]
every_way = pytest.mark.parametrize("news", [by_webhooks, by_looking])
ways_back = only(*EXACT)


@pytest.fixture
def payment(rig: Back, demo_customer: User) -> Iterator[Payment]:
    """A payment of 50 euro that was credited. When the test is over, the books of both sides agree."""
    made = begin(topup(demo_customer, EUR("50")), rig.method)
    rig.pay(made.gateway_reference or "")
    tell_all(rig)
    yield again(made)
    assert theirs(rig) == ours(rig.gateway.name)


def ask(payment: Payment, amount: Money) -> str:
    """A refund that was asked for and approved."""
    number = refunds.request(payment.customer_id, payment.public_id, amount, "")
    refunds.approve(number, actor=STAFF)
    return number


def stands(payment: Payment) -> tuple[str, int, int]:
    """State, what is on the balance, and what is owed."""
    now = again(payment)
    return now.state, wallet.state(now.customer_id).available, wallet.owed(now.customer_id, "EUR").minor


@ways_back
def test_a_part_goes_back_and_then_the_rest(rig: Back, payment: Payment):
    assert refunds.pay_out(ask(payment, EUR("20"))) == "settled"
    tell_all(rig)
    assert stands(payment) == ("partially_refunded", 30_00, 0)
    assert refunds.pay_out(ask(payment, EUR("30"))) == "settled"
    tell_all(rig)
    assert stands(payment) == ("refunded", 0, 0)


@ways_back
def test_more_than_is_left_there_comes_back_to_the_balance(rig: Back, payment: Payment):
    number = ask(payment, EUR("20"))
    rig.refund_by_hand(payment.gateway_reference or "", 45_00)
    assert refunds.pay_out(number) == "failed"
    tell_all(rig)
    assert stands(payment) == ("partially_refunded", 5_00, 0)


@ways_back
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_refund_whose_answer_was_lost_is_sent_once(rig: Back, payment: Payment, forgotten: bool):
    number = ask(payment, EUR("20"))
    rig.lose_refund_answer()
    with pytest.raises(NoAnswer):
        refunds.pay_out(number)
    if forgotten:
        rig.forget_keys()
    assert refunds.pay_out_due() == 1
    assert stands(payment) == ("partially_refunded", 30_00, 0)
    assert rig.books()["EUR"].refunded == 20_00


@ways_back
@every_way
def test_a_refund_on_its_way_settles_and_fails_weeks_later(rig: Back, payment: Payment, news: News):
    rig.slow()
    number = ask(payment, EUR("20"))
    assert refunds.pay_out(number) == "sent"
    assert wallet.state(payment.customer_id).on_hold == 20_00
    sent = db.scalar("select gateway_reference from refunds where number = %(number)s", number=number)
    rig.move_refund(sent, settled=True)
    news(rig)
    assert stands(payment) == ("partially_refunded", 30_00, 0)
    with clock.travel(clock.now() + timedelta(days=40)):
        rig.move_refund(sent, settled=False)
        news(rig)
    assert stands(payment) == ("paid", 50_00, 0)
    way = "source" if payment.gateway == "sandbox" else "bank"  # pretend money never goes to a bank
    assert refunds.refundable(payment.customer_id)[0].way == way


@ways_back
@every_way
def test_a_refund_by_the_processors_own_hand_is_taken_from_the_balance_once(rig: Back, payment: Payment, news: News):
    rig.refund_by_hand(payment.gateway_reference or "", 12_00)
    news(rig)
    rig.refund_by_hand(payment.gateway_reference or "", 38_00)
    with clock.travel(clock.now() + timedelta(days=30)):
        news(rig)
    assert stands(payment) == ("refunded", 0, 0)


@ways_back
@every_way
@pytest.mark.parametrize("won", [True, False])
def test_a_dispute_is_followed_to_its_end(rig: Back, payment: Payment, news: News, won: bool):
    dispute = rig.dispute(payment.gateway_reference or "", 30_00)
    news(rig)
    assert stands(payment) == ("disputed", 20_00, 0)
    rig.close_dispute(dispute, won=won)
    with clock.travel(clock.now() + timedelta(days=30)):
        news(rig)
    assert stands(payment) == (("paid", 50_00, 0) if won else ("disputed", 20_00, 0))


@ways_back
def test_a_dispute_of_money_already_spent_is_a_debt_until_it_is_won(rig: Back, payment: Payment):
    offer_plans()
    services.order(payment.customer_id, "vps-4", 1)
    dispute = rig.dispute(payment.gateway_reference or "", 50_00)
    tell_all(rig)
    assert stands(payment) == ("disputed", 0, 23_80)
    rig.close_dispute(dispute, won=True)
    tell_all(rig)
    assert stands(payment) == ("paid", 26_20, 0)


@only(*INEXACT)
def test_coins_go_back_by_bank_by_two_people(rig: Rig, payment: Payment):
    source = refunds.refundable(payment.customer_id)[0]
    assert (source.way, source.refundable) == ("bank", EUR("50"))
    number = refunds.request(payment.customer_id, payment.public_id, EUR("50"), "", iban="DE89370400440532013000", holder="Anna Kowalska")
    assert refunds.approve(number, actor=STAFF) == "requested"
    assert refunds.approve(number, actor="staff:rita") == "approved"
    assert refunds.pay_out_due() == 0
    refunds.mark_paid(number, reference="NB-1", actor=STAFF)
    assert stands(payment) == ("refunded", 0, 0)


def test_hours_without_a_webhook_and_without_an_answer_are_made_good_in_two_runs(rig: Rig, demo_customer: User):
    made = [begin(topup(demo_customer, Money(30_00 + number, "EUR")), rig.method) for number in range(6)]
    for number, payment in enumerate(made):
        (rig.pay, rig.pay, rig.pend, rig.fail, rig.expire, rig.pay)[number](payment.gateway_reference or "")
    rig.go_down()
    with clock.travel(clock.now() + timedelta(hours=3)):
        payments.reconcile()
        assert balance(demo_customer) == 0
    rig.come_back()
    with clock.travel(clock.now() + timedelta(hours=5)):
        for _ in range(2):
            payments.reconcile()
        paid = [payment for payment in made if again(payment).state == "paid"]
        assert sum(theirs(rig).values()) > 85_00
        assert {payment.public_id for payment in paid} >= {made[0].public_id, made[1].public_id, made[5].public_id}
        assert {times_credited(payment) for payment in paid} == {1}
        assert not [payment for payment in made if again(payment).state == "unknown"]
        assert theirs(rig) == ours(rig.gateway.name)
