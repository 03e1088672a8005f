"""Money back out: what can go back of each payment, the way of a refund, disputes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from flask import Flask

from app import clock, db, gateways, ledger, mail, payments, refunds, services, wallet
from app.customers import User
from app.gateways.base import GatewayError
from app.money import Money
from app.payments import Payment
from app.refunds import RefundError
from tests.money_helpers import EUR, USD
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.trade import offer_plans


def paid(app: Flask, user: User, amount: Money, method: str = "sandbox-card") -> Payment:
    """A top-up that was paid and credited."""
    payment = begin(topup(user, amount), method)
    choose(app, payment, "approve")
    carry(app)
    return again(payment)


@pytest.fixture
def anna(app: Flask, demo_customer: User) -> User:
    """A customer who can order."""
    offer_plans()
    return demo_customer


def of(user: User, payment: Payment) -> refunds.Source:
    (found,) = [source for source in refunds.refundable(user.customer_id) if source.payment_id == payment.id]
    return found


def book(kind: str, currency: str, key: str = "") -> int:
    """The balance of a system account."""
    with db.transaction():
        account = ledger.account(kind, currency, key=key)
    return ledger.balance(account)


# What can go back


def test_what_was_spent_cannot_go_back_and_the_oldest_payment_is_spent_first(app, anna):
    first, second = paid(app, anna, EUR("30")), paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    assert [source.public_id for source in refunds.refundable(anna.customer_id)] == [second.public_id, first.public_id]
    assert (of(anna, first).refundable, of(anna, first).spent) == (EUR("6.20"), EUR("23.80"))
    assert (of(anna, second).refundable, of(anna, second).spent) == (EUR("50.00"), EUR("0"))


def test_a_bonus_is_no_payment(app, anna):
    payments.grant_bonus(anna.customer_id, EUR("10"), reason="Thank you", reference="b1")
    assert refunds.refundable(anna.customer_id) == []


def test_after_the_window_nothing_goes_back_and_the_page_says_why(app, anna):
    payment = paid(app, anna, EUR("30"))
    with clock.travel(clock.now() + timedelta(days=181)):
        source = of(anna, payment)
        assert (source.refundable, source.payout) == (EUR("0"), EUR("0"))
        assert "180 days" in source.reason
        with pytest.raises(RefundError, match="180 days"):
            refunds.request(anna.customer_id, payment.public_id, EUR("1"), "")


def test_crypto_cannot_go_back_the_way_it_came(app, anna):
    assert "cryptocurrency" in of(anna, paid(app, anna, EUR("30"), "sandbox-crypto")).reason


# The way of a refund


def test_a_refund_holds_is_approved_sent_and_settled(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "Too much")
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (30_00, 20_00)
    assert (of(anna, payment).refundable, of(anna, payment).on_hold) == (EUR("30"), EUR("20"))
    refunds.decide(number, approve=True, answer="Of course", actor="support")
    assert refunds.pay_out_due() == 1
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (30_00, 0)
    (refund,) = refunds.of_customer(anna.customer_id)
    assert (refund.state, [step.state for step in refund.steps]) == ("settled", ["requested", "approved", "sent", "settled"])
    assert (of(anna, payment).returned, of(anna, payment).refundable) == (EUR("20"), EUR("30"))
    assert again(payment).state == "partially_refunded"
    assert book("gateway", "EUR", "sandbox") == -30_00 + payment.fee
    assert {letter.subject for letter in mail.newest(9) if letter.kind == "refund_step"} == {f"Refund {number} is approved", f"Refund {number} is on its way"}


def test_the_whole_payment_back_makes_it_refunded(app, anna):
    payment = paid(app, anna, EUR("50"))
    for amount in ("20", "30"):
        refunds.decide(refunds.request(anna.customer_id, payment.public_id, EUR(amount), ""), approve=True, answer="", actor="support")
    refunds.pay_out_due()
    assert again(payment).state == "refunded"
    assert wallet.state(anna.customer_id).available == 0


def test_a_declined_refund_gives_the_money_back_to_its_payment(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.decide(number, approve=False, answer="The service runs on it", actor="support")
    assert of(anna, payment).refundable == EUR("50")
    assert refunds.of_customer(anna.customer_id)[0].state == "declined"
    with pytest.raises(RefundError, match="declined"):
        refunds.pay_out(number)


def test_a_converted_payment_goes_back_in_its_currency_and_to_the_cent(app, anna):
    publish_rates()
    payment = paid(app, anna, USD("100"))
    whole = of(anna, payment).credited
    third = Money(whole.minor // 3, "EUR")
    for amount in (third, third, whole - third - third):
        refunds.decide(refunds.request(anna.customer_id, payment.public_id, amount, ""), approve=True, answer="", actor="support")
        refunds.pay_out_due()
    payouts = [refund.payout for refund in refunds.of_customer(anna.customer_id)]
    assert sum(payout.minor for payout in payouts) == 100_00
    assert (book("fx", "USD"), book("fx", "EUR")) == (0, 0), "the position is closed: no exchange profit or loss is left"


@pytest.mark.parametrize(("amount", "says"), [("50.01", "At most"), ("0", "At most"), ("-1", "At most")])
def test_more_than_there_is_or_nothing_is_refused(app, anna, amount, says):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match=says):
        refunds.request(anna.customer_id, payment.public_id, EUR(amount), "")
    assert wallet.state(anna.customer_id).on_hold == 0


def test_a_strangers_payment_does_not_exist(app, anna):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match="no such payment"):
        refunds.request(anna.customer_id + 1, payment.public_id, EUR("1"), "")


def test_of_many_requests_at_once_only_what_is_there_succeeds(app, anna):
    payment = paid(app, anna, EUR("50"))

    def ask(_: int) -> bool:
        with app.app_context():
            try:
                refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
            except RefundError:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 2
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (10_00, 40_00)


def test_a_silent_processor_leaves_the_refund_to_be_tried_again(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.decide(number, approve=True, answer="", actor="support")
    processor(app).down = True
    with pytest.raises(GatewayError):
        refunds.pay_out(number)
    assert refunds.pay_out_due() == 0
    assert refunds.of_customer(anna.customer_id)[0].state == "approved"
    processor(app).down = False
    assert refunds.pay_out_due() == 1
    assert db.scalar("select count(*) from sandbox_refunds") == 1


def test_a_refund_the_processor_refuses_comes_back_to_the_balance(app, anna, monkeypatch):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.decide(number, approve=True, answer="", actor="support")

    def refuse(*_: object) -> None:
        raise GatewayError("The card is closed.", permanent=True)

    monkeypatch.setattr(gateways.get("sandbox"), "refund", refuse)
    assert refunds.pay_out(number) == "failed"
    assert (wallet.state(anna.customer_id).available, of(anna, payment).refundable) == (50_00, EUR("50"))
    assert refunds.of_customer(anna.customer_id)[0].steps[-1].note == "The card is closed."


# Disputes


def test_a_dispute_takes_the_balance_and_the_rest_is_a_debt_until_it_is_won(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    refunds.open_dispute(payment.public_id, EUR("50"), reference="dp_1", reason="not recognised")
    refunds.open_dispute(payment.public_id, EUR("50"), reference="dp_1", reason="not recognised")
    assert wallet.state(anna.customer_id).available == 0
    debt = db.scalar("select balance from accounts where kind = 'debt' and customer_id = %(id)s", id=anna.customer_id)
    assert debt == -23_80
    assert again(payment).state == "disputed"
    refunds.win_dispute("dp_1")
    assert wallet.state(anna.customer_id).available == 26_20
    assert db.scalar("select balance from accounts where kind = 'debt' and customer_id = %(id)s", id=anna.customer_id) == 0
    assert (again(payment).state, of(anna, payment).refundable) == ("paid", EUR("26.20"))
    with pytest.raises(RefundError, match="is open"):
        refunds.win_dispute("dp_1")


def test_a_dispute_takes_its_own_payment_before_the_others_and_blocks_its_refund(app, anna):
    first, second = paid(app, anna, EUR("50")), paid(app, anna, EUR("40"))
    refunds.open_dispute(second.public_id, EUR("10"), reference="dp_1", reason="")
    assert (of(anna, first).remaining, of(anna, second).remaining) == (EUR("50"), EUR("30"))
    with pytest.raises(RefundError, match="disputed"):
        refunds.request(anna.customer_id, second.public_id, EUR("1"), "")


def test_more_than_was_paid_cannot_be_disputed(app, anna):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match="cannot be disputed"):
        refunds.open_dispute(payment.public_id, EUR("51"), reference="dp_1", reason="")


# Bonuses


def test_a_bonus_is_given_once_spent_first_and_taken_back_after_its_time(app, anna):
    until = clock.now() + timedelta(days=30)
    for _ in range(2):
        payments.grant_bonus(anna.customer_id, EUR("30"), reason="Thank you", reference="b1", expires_at=until)
    assert wallet.state(anna.customer_id).bonus == 30_00
    services.order(anna.customer_id, "vps-4", 1)
    assert wallet.state(anna.customer_id).bonus == 6_20
    with clock.travel(until + timedelta(seconds=1)):
        assert payments.expire_bonuses() == 1
        assert payments.expire_bonuses() == 0
    assert book("promotions", "EUR") == -23_80
    with pytest.raises(ValueError, match="expired"):
        payments.grant_bonus(anna.customer_id, EUR("1"), reason="", reference="b2", expires_at=clock.now() - timedelta(days=1))


# Refunds and disputes of the same payment


def test_what_the_bank_took_back_is_not_sent_as_well(app, anna):
    payment = paid(app, anna, EUR("50"))
    asked, approved = (refunds.request(anna.customer_id, payment.public_id, EUR("20"), "") for _ in range(2))
    refunds.decide(approved, approve=True, answer="", actor="support")
    refunds.open_dispute(payment.public_id, EUR("50"), reference="dp_1", reason="not recognised")
    with pytest.raises(RefundError, match="disputed"):
        refunds.decide(asked, approve=True, answer="", actor="support")
    assert refunds.pay_out_due() == 0
    assert db.scalar("select count(*) from sandbox_refunds") == 0
    refunds.win_dispute("dp_1")
    assert refunds.pay_out_due() == 1


def test_a_payment_refunded_in_part_stays_so_after_a_dispute_that_was_won(app, anna):
    payment = paid(app, anna, EUR("50"))
    refunds.decide(refunds.request(anna.customer_id, payment.public_id, EUR("20"), ""), approve=True, answer="", actor="support")
    refunds.pay_out_due()
    refunds.open_dispute(payment.public_id, EUR("10"), reference="dp_1", reason="")
    refunds.win_dispute("dp_1")
    assert again(payment).state == "partially_refunded"


def test_a_refund_goes_out_and_another_is_asked_for_at_once(app, anna):
    """One holds the payment and wants the money on hold, the other the other way round: both have to take them in one order."""
    payment = paid(app, anna, EUR("500"))
    for number in [refunds.request(anna.customer_id, payment.public_id, EUR("1"), "") for _ in range(20)]:
        refunds.decide(number, approve=True, answer="", actor="support")

    def work(ask: bool) -> None:
        with app.app_context():
            for number in range(20):
                if ask:
                    refunds.request(anna.customer_id, payment.public_id, EUR("1"), "")
                else:
                    refunds.pay_out(f"RF-{number + 1:06d}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (True, False)))
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (460_00, 20_00)


def test_a_bad_address_keeps_no_refund_from_going_out(app, anna, superuser):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    superuser.execute("update customers set billing_email = 'not an address'")
    refunds.decide(number, approve=True, answer="", actor="support")
    assert refunds.pay_out(number) == "settled"
