"""Money back out: what can go back of each payment, the way of a refund; disputes have their own tests."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from flask import Flask

import config
from app import clock, db, gateways, invoicing, ledger, mail, payments, refunds, services, wallet
from app.customers import User
from app.gateways.base import GatewayError, RefundSnapshot, Refused, Snapshot
from app.gateways.sandbox import ProcessorDown
from app.money import Money
from app.payments import Payment
from app.refunds import RefundError
from tests.conftest import BERLIN, person
from tests.money_helpers import EUR, USD
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.test_beneficiary import paid_for
from tests.test_documents import text_of
from tests.trade import offer_plans

SAM, RITA = "staff:sam", "staff:rita"
IBAN = "DE89370400440532013000"


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


def test_after_the_window_and_for_coins_the_money_goes_to_an_account_the_customer_names(app, anna):
    payment = paid(app, anna, EUR("30"), "other-card")
    assert of(anna, payment).until == payment.paid_at + timedelta(days=180)
    with clock.travel(clock.now() + timedelta(days=181)):
        source = of(anna, payment)
        assert (source.way, source.refundable, source.until) == ("bank", EUR("30"), None)
        assert "180 days" in source.detour
    source = of(anna, paid(app, anna, EUR("30"), "other-crypto"))
    assert (source.way, source.refundable) == ("bank", EUR("30"))
    assert "Bitcoin cannot send money back" in source.detour


@pytest.mark.parametrize(("iban", "holder", "field"), [("", "Anna", "iban"), ("DE89370400440532013001", "Anna", "iban"), (IBAN, " A ", "holder"), (IBAN, "A" * 71, "holder")])
def test_an_account_that_cannot_be_is_refused_with_its_field(app, anna, iban, holder, field):
    payment = paid(app, anna, EUR("30"), "other-crypto")
    with pytest.raises(RefundError) as refused:
        refunds.request(anna.customer_id, payment.public_id, EUR("30"), "", iban=iban, holder=holder)
    assert refused.value.field == field
    assert wallet.state(anna.customer_id).on_hold == 0


# The way of a refund


def test_a_refund_holds_is_approved_sent_and_settled(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "Too much")
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (30_00, 20_00)
    assert (of(anna, payment).remaining, of(anna, payment).on_hold) == (EUR("30"), EUR("20"))
    assert (of(anna, payment).refundable, of(anna, payment).open_number) == (EUR("0"), number), "one refund of a payment at a time"
    refunds.approve(number, actor=SAM, note="Of course")
    assert refunds.pay_out_due() == 1
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (30_00, 0)
    (refund,) = refunds.of_customer(anna.customer_id)
    assert (refund.amount, refund.payout, refund.approvals, refund.target) == (EUR("20"), EUR("20"), [SAM], "Visa •••• 4242")
    assert (refund.state, [step.state for step in refund.steps]) == ("settled", ["requested", "approved", "sent", "settled"])
    assert (of(anna, payment).returned, of(anna, payment).refundable) == (EUR("20"), EUR("30"))
    assert again(payment).state == "partially_refunded"
    assert book("gateway", "EUR", "sandbox") == -30_00 + payment.fee
    subjects = {f"Refund {number} is requested", f"Refund {number} is approved", f"Receipt: refund {number} of €\N{NO-BREAK SPACE}20.00"}
    assert {letter.subject for letter in mail.newest(9) if letter.kind == "refund_step"} == subjects


def test_the_whole_payment_back_makes_it_refunded(app, anna):
    payment = paid(app, anna, EUR("50"))
    for amount in ("20", "30"):
        refunds.approve(refunds.request(anna.customer_id, payment.public_id, EUR(amount), ""), actor=SAM)
        refunds.pay_out_due()
    assert again(payment).state == "refunded"
    assert wallet.state(anna.customer_id).available == 0


def test_a_declined_refund_gives_the_money_back_to_its_payment(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.decline(number, answer="The service runs on it", actor=SAM)
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
        refunds.approve(refunds.request(anna.customer_id, payment.public_id, amount, ""), actor=SAM)
        refunds.pay_out_due()
    payouts = [refund.payout for refund in refunds.of_customer(anna.customer_id)]
    assert sum(payout.minor for payout in payouts) == 100_00
    assert (book("fx", "USD"), book("fx", "EUR")) == (0, 0), "the position is closed: no exchange profit or loss is left"


@pytest.mark.parametrize(("amount", "says"), [("50.01", "At most"), ("0", "more than zero"), ("-1", "more than zero")])
def test_more_than_there_is_or_nothing_is_refused(app, anna, amount, says):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match=says):
        refunds.request(anna.customer_id, payment.public_id, EUR(amount), "")
    assert wallet.state(anna.customer_id).on_hold == 0


def test_a_strangers_payment_does_not_exist(app, anna):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match="no such payment"):
        refunds.request(anna.customer_id + 1, payment.public_id, EUR("1"), "")


def together(app: Flask, work, times: int = 8) -> list:
    """What came of the same work done by many at once; a refusal is its sentence."""

    def one(place: int):
        with app.app_context():
            try:
                return work(place)
            except RefundError as refused:
                return str(refused)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


@pytest.fixture
def by_itself(app: Flask):
    """A house in which what is unused goes back within fourteen days without anybody's approval."""
    before = config.current()
    config.use(replace(before, refund_unused_days=14))
    yield
    config.use(before)


def test_an_unused_payment_asked_for_in_time_is_approved_by_itself_and_told(app, anna, by_itself):
    payment = paid(app, anna, EUR("50"))
    with clock.travel(payment.paid_at + timedelta(days=13)):
        number, again_ = (refunds.request(anna.customer_id, payment.public_id, EUR("50"), "") for _ in range(2))
        assert again_ == number
        refund = refunds.case(number).refund
        assert (refund.state, refund.approvals, refund.steps[-1].actor) == ("approved", ["system"], "system")
        assert f"Refund {number} is approved" in {letter.subject for letter in mail.newest(9)}
        assert refunds.pay_out_due() == 1
    assert (again(payment).state, wallet.state(anna.customer_id).available) == ("refunded", 0)


@pytest.mark.parametrize("case", ["off", "late", "part", "used", "large", "by hand", "again"])
def test_any_other_refund_is_decided_by_people(app, anna, by_itself, case):
    if case == "off":
        config.use(replace(config.current(), refund_unused_days=0))
    payment = paid(app, anna, EUR("600" if case == "large" else "50"), "other-crypto" if case == "by hand" else "sandbox-card")
    if case == "used":
        services.order(anna.customer_id, "ip", 1)
    if case == "again":
        refunds.approve(refunds.request(anna.customer_id, payment.public_id, EUR("20"), ""), actor=SAM)
        refunds.pay_out_due()
    amount = EUR("20") if case == "part" else of(anna, payment).refundable
    with clock.travel(payment.paid_at + timedelta(days=14 if case == "late" else 1)):
        number = refunds.request(anna.customer_id, payment.public_id, amount, "", iban=IBAN, holder="Anna Kowalska")
    assert refunds.case(number).refund.state == "requested"


def test_two_payouts_by_hand_may_have_one_bank_reference(app, anna):
    payment = paid(app, anna, EUR("50"), "other-crypto")
    for _ in range(2):
        number = refunds.request(anna.customer_id, payment.public_id, EUR("25"), "", iban=IBAN, holder="Anna Kowalska")
        for person_ in (SAM, RITA):
            refunds.approve(number, actor=person_)
        refunds.mark_paid(number, reference="NONREF", actor=SAM)
    assert [refund.state for refund in refunds.of_customer(anna.customer_id)] == ["settled", "settled"]
    assert again(payment).state == "refunded"


def test_the_millionth_refund_has_a_number_of_its_own(app, anna, superuser):
    payment, other = paid(app, anna, EUR("50")), paid(app, anna, EUR("9"))
    superuser.execute("select setval(pg_get_serial_sequence('refunds', 'id'), 1000000)")
    assert refunds.request(anna.customer_id, payment.public_id, EUR("5"), "") == "RF-1000001"
    went_back(other, RefundSnapshot("re_x", "settled", EUR("9")))
    assert [refund.number for refund in refunds.of_customer(anna.customer_id)] == ["RF-1000002", "RF-1000001"]


def test_the_same_request_twice_is_one_refund_and_another_one_has_to_wait(app, anna):
    payment = paid(app, anna, EUR("50"))
    numbers = set(together(app, lambda _: refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")))
    assert len(numbers) == 1
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (30_00, 20_00)
    with pytest.raises(RefundError, match="still open"):
        refunds.request(anna.customer_id, payment.public_id, EUR("10"), "")


def test_of_different_requests_at_once_one_succeeds(app, anna):
    payment = paid(app, anna, EUR("50"))
    said = together(app, lambda place: refunds.request(anna.customer_id, payment.public_id, EUR(str(20 + place)), ""))
    assert len([number for number in said if len(number) == 9]) == 1
    assert wallet.state(anna.customer_id).available + wallet.state(anna.customer_id).on_hold == 50_00


def test_three_requests_a_day_and_no_more(app, anna):
    payments_ = [paid(app, anna, EUR("10")) for _ in range(4)]
    said = together(app, lambda place: refunds.request(anna.customer_id, payments_[place].public_id, EUR("5"), ""), 4)
    assert sorted(word[:3] for word in said) == ["RF-", "RF-", "RF-", "You"]
    left = next(payment for payment in payments_ if of(anna, payment).refundable)
    with clock.travel(clock.now() + timedelta(days=1, minutes=1)):
        assert refunds.request(anna.customer_id, left.public_id, EUR("5"), "")


def test_many_deciding_and_paying_out_at_once_never_send_more_than_came(app, anna):
    payment = paid(app, anna, EUR("50"))

    def life(place: int) -> None:
        for step in (
            lambda: refunds.request(anna.customer_id, payment.public_id, EUR("30" if place % 2 else "20"), ""),
            lambda: [refunds.approve(refund.number, actor=SAM) for refund in refunds.of_customer(anna.customer_id)],
            lambda: [refunds.pay_out(refund.number) for refund in refunds.of_customer(anna.customer_id)],
            refunds.pay_out_due,
        ):
            with suppress(RefundError):
                step()

    together(app, life)
    together(app, life)
    assert 0 < books_there() <= 50_00
    assert books_there() == sum(refund.payout.minor for refund in refunds.of_customer(anna.customer_id) if refund.state == "settled")
    assert wallet.state(anna.customer_id).available + wallet.state(anna.customer_id).on_hold + books_there() == 50_00


def books_there() -> int:
    """What the pretend processor says it has sent back."""
    return db.scalar("select coalesce(sum(amount), 0)::bigint from sandbox_refunds where state <> 'failed'")


def test_the_database_itself_refuses_more_than_came(app, anna, superuser):
    payment = paid(app, anna, EUR("50"))
    refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        superuser.execute("update refunds set payout = 5001")
    with pytest.raises(psycopg.errors.CheckViolation, match="more than it brought"):
        superuser.execute("insert into refunds (number, payment_id, lot_id, customer_id, amount, currency, payout, payout_currency, state, requested_at, updated_at) "
                          "select 'RF-2', payment_id, lot_id, customer_id, 1, 'EUR', 3001, 'EUR', 'settled', requested_at, updated_at from refunds")  # fmt: skip
    with pytest.raises(psycopg.errors.UniqueViolation, match="refunds_one_open"):
        superuser.execute("insert into refunds (number, payment_id, lot_id, customer_id, amount, currency, payout, payout_currency, requested_at, updated_at) "
                          "select 'RF-2', payment_id, lot_id, customer_id, 1, 'EUR', 1, 'EUR', requested_at, updated_at from refunds")  # fmt: skip


# Two people


def test_above_the_limit_two_different_people_approve(app, anna):
    payment = paid(app, anna, EUR("1000"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("500.01"), "")
    assert refunds.approve(number, actor=SAM) == "requested"
    assert refunds.pay_out_due() == 0
    with pytest.raises(RefundError, match="Another person"):
        refunds.approve(number, actor=SAM)
    assert refunds.approve(number, actor=RITA) == "approved"
    case, (refund,) = refunds.case(number), refunds.of_customer(anna.customer_id)
    assert [(step.state, step.actor) for step in case.refund.steps[1:]] == [("requested", SAM), ("approved", RITA)]
    assert [step.state for step in refund.steps] == ["requested", "approved"], "how support comes to its decision is not the customer's"
    assert refunds.pay_out_due() == 1


def test_up_to_the_limit_one_is_enough(app, anna):
    payment = paid(app, anna, EUR("1000"))
    assert refunds.approve(refunds.request(anna.customer_id, payment.public_id, EUR("500"), ""), actor=SAM) == "approved"


def test_many_approving_at_once_are_counted_once_each(app, anna):
    payment = paid(app, anna, EUR("1000"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("600"), "")
    said = together(app, lambda _: refunds.approve(number, actor=SAM))
    assert said.count("requested") == 1
    assert refunds.queue()[0].refund.approvals == [SAM]


def test_a_payout_by_hand_needs_two_people_and_the_banks_reference(app, anna):
    payment = paid(app, anna, EUR("30"), "other-crypto")
    number = refunds.request(anna.customer_id, payment.public_id, EUR("30"), "Moved away", iban="de89 3704 0044 0532 0130 00", holder=" Anna  Kowalska ")
    assert (refunds.of_customer(anna.customer_id)[0].iban, refunds.of_customer(anna.customer_id)[0].holder) == (IBAN, "Anna Kowalska")
    refunds.approve(number, actor=SAM)
    with pytest.raises(RefundError, match="requested"):
        refunds.mark_paid(number, reference="TX1", actor=SAM)
    refunds.approve(number, actor=RITA)
    assert refunds.pay_out_due() == 0
    with pytest.raises(RefundError, match="by hand"):
        refunds.pay_out(number)
    with pytest.raises(RefundError, match="reference"):
        refunds.mark_paid(number, reference=" ", actor=SAM)
    refunds.mark_paid(number, reference="TX-77", actor=SAM)
    with pytest.raises(RefundError, match="settled"):
        refunds.mark_paid(number, reference="TX-77", actor=SAM)
    (refund,) = refunds.of_customer(anna.customer_id)
    assert ([step.state for step in refund.steps], refund.steps[-2].note) == (["requested", "approved", "sent", "settled"], "Bank's reference TX-77")
    assert (book("suspense", "EUR", "bank"), wallet.state(anna.customer_id).on_hold, again(payment).state) == (30_00, 0, "refunded")
    assert books_there() == 0


def test_declining_wants_a_reason_and_takes_back_an_approval_not_yet_sent(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    with pytest.raises(RefundError, match="why"):
        refunds.decline(number, actor=SAM, answer=" ")
    refunds.approve(number, actor=SAM)
    refunds.decline(number, actor=RITA, answer="Wrong customer")
    assert refunds.pay_out_due() == 0
    assert of(anna, payment).refundable == EUR("50")
    with pytest.raises(RefundError, match="declined"):
        refunds.approve(number, actor=SAM)


# What the processor says


def test_a_pending_refund_stays_on_hold_until_it_settles_and_our_own_webhook_is_not_applied_twice(app, anna):
    payment = paid(app, anna, EUR("50"))
    processor(app).slow = True
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    assert refunds.pay_out(number) == "sent"
    assert refunds.pay_out(number) == "sent"
    carry(app)
    assert (wallet.state(anna.customer_id).on_hold, again(payment).state) == (20_00, "paid")
    assert refunds.reconcile() == 1
    processor(app).slow = False
    processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "settled")
    carry(app)
    carry(app)
    assert (wallet.state(anna.customer_id).on_hold, again(payment).state, books_there()) == (0, "partially_refunded", 20_00)
    assert [step.state for step in refunds.of_customer(anna.customer_id)[0].steps] == ["requested", "approved", "sent", "settled"]
    assert book("gateway", "EUR", "sandbox") == -30_00 + payment.fee


def test_a_refund_whose_webhooks_were_all_lost_is_found(app, anna):
    payment = paid(app, anna, EUR("50"))
    processor(app).slow = True
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    refunds.pay_out(number)
    processor(app).slow = False
    refund = db.scalar("select refund from sandbox_refunds")
    processor(app).move_refund(refund, "settled")
    assert refunds.reconcile() == 1
    assert refunds.of_customer(anna.customer_id)[0].state == "settled"
    processor(app).move_refund(refund, "failed", "account closed")
    with clock.travel(clock.now() + timedelta(days=30)):
        assert payments.look_over() == 1
    assert refunds.of_customer(anna.customer_id)[0].state == "failed"


def test_a_refund_that_fails_weeks_later_is_back_on_the_balance_once_and_goes_by_bank_then(app, anna):
    payment = paid(app, anna, EUR("50"), "other-card")
    number = refunds.request(anna.customer_id, payment.public_id, EUR("50"), "")
    refunds.approve(number, actor=SAM)
    assert refunds.pay_out(number) == "settled"
    assert (again(payment).state, payments.bill_of(payment).status) == ("refunded", "refunded")
    with clock.travel(clock.now() + timedelta(days=21)):
        processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "The card or account it came from cannot take money any more.")
        carry(app)
        carry(app)
        assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (50_00, 0)
        (refund,) = refunds.of_customer(anna.customer_id)
        assert (refund.state, refund.steps[-1].note) == ("failed", "The card or account it came from cannot take money any more.")
        assert (again(payment).state, payments.bill_of(payment).status) == ("paid", "paid")
        assert (of(anna, payment).refundable, of(anna, payment).way) == (EUR("50"), "bank")
        assert book("gateway", "EUR", "other") == -50_00 + payment.fee
    letter = next(letter for letter in mail.newest(9) if letter.subject == f"Refund {number} came back")
    assert "did not arrive at Visa •••• 4242 and came back to us. The money is back on your balance." in letter.text
    assert "The reason that was given: The card or account it came from cannot take money any more." in letter.text


def test_an_answer_lost_after_its_effect_is_asked_for_and_not_sent_again(app, anna, monkeypatch):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    honest = processor(app).refund

    def lost(*asked: object) -> None:
        honest(*asked)
        raise ProcessorDown

    monkeypatch.setattr(processor(app), "refund", lost)
    with pytest.raises(GatewayError):
        refunds.pay_out(number)
    assert refunds.of_customer(anna.customer_id)[0].state == "approved"
    with pytest.raises(RefundError, match="approved"):
        refunds.decline(number, actor=SAM, answer="Too late")
    assert refunds.pay_out_due() == 1, "found by asking, though every further answer to a refund would be lost"
    assert books_there() == 20_00


def test_a_refund_made_at_the_processor_is_taken_from_the_balance_and_what_is_spent_is_owed(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    processor(app).refund(payment.gateway_reference, 40_00, "by the merchant's own hand")
    carry(app)
    carry(app)
    assert wallet.state(anna.customer_id).available == 0
    assert wallet.owed(anna.customer_id, "EUR") == EUR("13.80")
    assert again(payment).state == "partially_refunded"
    processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "declined")
    carry(app)
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "EUR"), again(payment).state) == (26_20, EUR("0"), "paid")


def test_what_the_house_earned_on_the_exchange_goes_back_with_the_money(app, anna, monkeypatch):
    monkeypatch.setattr(config, "_current", replace(config.current(), fx_spread_bp=150))
    publish_rates()
    payment = paid(app, anna, USD("100"))
    earned = book("revenue", "EUR", "exchange")
    assert earned > 0
    whole = of(anna, payment).credited
    refunds.approve(refunds.request(anna.customer_id, payment.public_id, whole, ""), actor=SAM)
    refunds.pay_out_due()
    assert (book("fx", "USD"), book("fx", "EUR"), book("revenue", "EUR", "exchange")) == (0, 0, 0)
    assert db.scalar("select count(*) from entries e join transfers t on t.id = e.transfer_id where t.kind = 'refund_sent'") == 5


def test_a_silent_processor_leaves_the_refund_to_be_tried_again(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
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
    refunds.approve(number, actor=SAM)

    def refuse(*_: object) -> None:
        raise Refused("The card is closed.")

    monkeypatch.setattr(gateways.get("sandbox"), "refund", refuse)
    assert refunds.pay_out(number) == "failed"
    assert (wallet.state(anna.customer_id).available, of(anna, payment).refundable) == (50_00, EUR("50"))
    assert refunds.of_customer(anna.customer_id)[0].steps[-1].note == "The card is closed."


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
    assert book("promotions", "EUR") == 0, "what was used lowered a price, and the rest was taken back"
    with pytest.raises(ValueError, match="expired"):
        payments.grant_bonus(anna.customer_id, EUR("1"), reason="", reference="b2", expires_at=clock.now() - timedelta(days=1))


def test_a_bad_address_keeps_no_refund_from_going_out(app, anna, superuser):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    superuser.execute("update customers set billing_email = 'not an address'")
    refunds.approve(number, actor=SAM)
    assert refunds.pay_out(number) == "settled"


def test_money_goes_out_of_one_payment_while_it_is_asked_for_of_others(app, anna):
    """One holds a payment and wants the account on hold, the other the other way round: both have to take them in one order."""
    first, second = paid(app, anna, EUR("500")), paid(app, anna, EUR("500"))
    number = refunds.request(anna.customer_id, first.public_id, EUR("1"), "")
    refunds.approve(number, actor=SAM)
    steps = (lambda: refunds.pay_out(number), lambda: refunds.request(anna.customer_id, second.public_id, EUR("1"), ""))
    assert together(app, lambda place: steps[place % 2]())[:2] == ["settled", "RF-000002"]
    assert (wallet.state(anna.customer_id).available, wallet.state(anna.customer_id).on_hold) == (998_00, 1_00)


# Its receipt


def refunded(app: Flask, user: User, amount: Money) -> tuple[Payment, str]:
    """A payment that went back in full: the payment and the refund's number."""
    payment = paid(app, user, amount)
    found = of(user, payment)
    number = refunds.request(user.customer_id, payment.public_id, found.refundable, "")
    refunds.approve(number, actor=SAM)
    assert refunds.pay_out(number) == "settled"
    return payment, number


def receipts(user: User) -> list[str]:
    return [refund.receipt for refund in refunds.of_customer(user.customer_id)]


def test_a_settled_refund_has_a_receipt_that_says_what_went_back_and_travels_with_its_mail(app, anna):
    publish_rates()
    payment, number = refunded(app, anna, USD("100"))
    (receipt,) = receipts(anna)
    content = db.scalar("select content from documents where number = %(number)s", number=receipt)
    assert receipt == f"RR-{clock.today().year}-000001"
    assert (content["refund"]["number"], content["refund"]["payout"], content["refund"]["payout_currency"]) == (number, 100_00, "USD")
    assert (content["refund"]["amount"], content["refund"]["currency"]) == (payment.credited, "EUR")
    assert content["refund"]["rate_note"] == payment.rate_note != ""
    letter = next(letter for letter in mail.newest(9) if letter.kind == "refund_step")
    assert [(file["document"], file["path"]) for file in letter.attachments] == [(receipt, f"/refunds/{receipt}.pdf")]
    assert f"Your receipt {receipt} is attached." in letter.text
    step = next(step for step in invoicing.timeline(payments.bill_of(payment)) if step.path)
    assert (step.what, step.reference, step.path) == ("Refund receipt", receipt, f"/refunds/{receipt}.pdf")


def test_its_pdf_is_stored_once_and_only_its_payer_gets_it(app, anna):
    refunded(app, anna, EUR("12.34"))
    (receipt,) = receipts(anna)
    file = invoicing.refund_pdf(anna.customer_id, receipt)
    text = text_of(file.pdf)
    assert file.filename == f"{receipt}.pdf"
    assert all(part in text for part in ("Refund receipt", receipt, "12.34", "RF-000001", "It is not a VAT invoice", "Anna Kowalska"))
    assert invoicing.refund_pdf(anna.customer_id, receipt) == file
    stranger = person("stranger", profile=BERLIN)
    assert invoicing.refund_pdf(stranger.customer_id, receipt) is None
    assert invoicing.refund_pdf(anna.customer_id, "INV-2026-000001") is None


def test_receipts_leave_no_gap_and_are_proven(app, anna, vandal):
    for amount in ("11", "12"):
        refunded(app, anna, EUR(amount))
    assert sorted(receipts(anna)) == [f"RR-{clock.today().year}-00000{place}" for place in (1, 2)]
    assert [str(fault) for fault in ledger.check()] == []
    vandal.execute("update number_series set last = 3 where kind = 'refund_receipt'")
    assert ["RR" in str(fault) for fault in ledger.check()] == [True]
    vandal.execute("update number_series set last = 2 where kind = 'refund_receipt'")


def test_a_refund_that_was_not_settled_uses_no_number(app, anna):
    payment = paid(app, anna, EUR("30"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("30"), "")
    refunds.approve(number, actor=SAM)
    processor(app).slow = True
    assert (refunds.pay_out(number), receipts(anna)) == ("sent", [""])
    processor(app).slow = False


def test_one_made_at_the_processor_and_one_paid_by_hand_have_theirs(app, anna):
    payment = paid(app, anna, EUR("50"))
    told = RefundSnapshot("re_theirs", "settled", EUR("20"), "", "")
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), refunds=(told,)))
    coins = paid(app, anna, EUR("30"), "other-crypto")
    number = refunds.request(anna.customer_id, coins.public_id, EUR("30"), "", iban=IBAN, holder="Anna Kowalska")
    for somebody in (SAM, RITA):
        refunds.approve(number, actor=somebody)
    refunds.mark_paid(number, reference="TX-1", actor=SAM)
    found = receipts(anna)
    assert len(set(found)) == 2
    assert all(found)
    assert "DE89 … 3000" in text_of(invoicing.refund_pdf(anna.customer_id, found[0]).pdf)


def test_the_receipt_of_what_somebody_else_paid_is_the_payers(app, anna):
    bea = person("bea", profile=BERLIN)
    payment = again(paid_for(app, bea, anna.login, 40_00))
    number = refunds.open_by_support(payment.public_id, EUR("40"), "Bea asked for it", actor=SAM)
    refunds.approve(number, actor=SAM)
    refunds.pay_out(number)
    receipt = db.scalar("select number from documents where kind = 'refund_receipt'")
    assert (receipts(anna), receipts(bea)) == ([""], [receipt])
    assert invoicing.refund_pdf(anna.customer_id, receipt) is None
    assert "Visa" in text_of(invoicing.refund_pdf(bea.customer_id, receipt).pdf)


# Past us


def went_back(payment: Payment, *refunded: RefundSnapshot) -> None:
    """What the processor says of the refunds of fifty euro."""
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), refunds=refunded))


def test_a_refund_that_was_asked_for_ends_when_the_money_went_back_at_the_processor(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("30"), "")
    went_back(payment, RefundSnapshot("re_x", "settled", EUR("50")))
    state = wallet.state(anna.customer_id)
    assert (refunds.case(number).refund.state, state.available, state.on_hold, wallet.owed(anna.customer_id, "EUR")) == ("declined", 0, 0, EUR("0"))
    assert db.scalar("select sum(payout) from refunds where state = 'settled'") == 50_00
    assert [str(fault) for fault in ledger.check()] == []


def test_a_refund_under_way_comes_to_its_end_before_more_than_was_paid_is_believed(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("30"), "")
    refunds.approve(number, actor=SAM)
    processor(app).down = True
    assert refunds.pay_out_due() == 0
    processor(app).down = False
    back = RefundSnapshot("re_x", "settled", EUR("50"))
    went_back(payment, back)
    assert (refunds.case(number).refund.state, wallet.state(anna.customer_id).available) == ("approved", 20_00), "it waits, and stops no other news"
    went_back(payment, RefundSnapshot("re_y", "failed", EUR("30"), "Nothing is left of it", f"refund:{number}"))
    assert wallet.state(anna.customer_id).available == 50_00
    went_back(payment, back)
    state = wallet.state(anna.customer_id)
    assert (refunds.case(number).refund.state, state.available, state.on_hold, wallet.owed(anna.customer_id, "EUR")) == ("failed", 0, 0, EUR("0"))
