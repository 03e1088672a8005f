"""Disputes: money taken back by the payer's bank, the debt it may leave, and what stands still until that is settled."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import psycopg
import pytest
from flask import Flask

from app import bank, clock, db, invoicing, ledger, mail, payments, refunds, services, wallet
from app.customers import User
from app.gateways.base import DisputeSnapshot, GatewayError, RefundSnapshot, Snapshot
from app.money import Money
from app.payments import Payment
from app.refunds import RefundError, paying, returned
from tests.banks import GERMAN, Transfer, camt
from tests.conftest import person
from tests.money_helpers import EUR, USD
from tests.pay import again, carry, processor, publish_rates, topup
from tests.test_refunds import IBAN, RITA, SAM, anna, book, of, paid
from tests.trade import fund

__all__ = ["anna"]


def dispute(app: Flask, payment: Payment, minor: int) -> str:
    """The payer's bank takes this much back, and its webhook arrives."""
    assert payment.gateway_reference
    reference = processor(app).dispute(payment.gateway_reference, minor, "not recognised")
    assert reference
    carry(app)
    return reference


def decide(app: Flask, reference: str, *, won: bool) -> None:
    """The bank decides, and its webhook arrives."""
    assert processor(app).close_dispute(reference, won=won)
    carry(app)


def stands(user: User) -> tuple[int, int]:
    """Balance and debt in minor units."""
    assert user.customer_id
    return wallet.state(user.customer_id).available, wallet.owed(user.customer_id, "EUR").minor


def test_a_dispute_takes_the_balance_and_the_rest_is_a_debt_until_it_is_won(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    reference = dispute(app, payment, 50_00)
    carry(app)
    assert (stands(anna), again(payment).state) == ((0, 23_80), "disputed")
    decide(app, reference, won=True)
    assert (stands(anna), again(payment).state, of(anna, payment).refundable) == ((26_20, 0), "paid", EUR("26.20"))
    assert [letter.subject for letter in reversed(mail.newest(9)) if letter.kind == "dispute_step"] == [
        "Your bank took a payment back: €\N{NO-BREAK SPACE}50.00", "€\N{NO-BREAK SPACE}50.00 is back on your balance",
    ]  # fmt: skip


def test_by_hand_too_once_and_only_what_was_paid(app, anna):
    payment = paid(app, anna, EUR("50"))
    with pytest.raises(RefundError, match="cannot be disputed"):
        refunds.open_dispute(payment.public_id, EUR("51"), reference="dp_1", reason="")
    for _ in range(2):
        refunds.open_dispute(payment.public_id, EUR("50"), reference="dp_1", reason="")
    assert stands(anna) == (0, 0)
    refunds.lose_dispute("dp_1")
    for closing in (refunds.win_dispute, refunds.lose_dispute):
        with pytest.raises(RefundError, match="is open"):
            closing("dp_1")


def test_it_takes_its_own_payment_before_the_others_and_blocks_its_refund(app, anna):
    first, second = paid(app, anna, EUR("50")), paid(app, anna, EUR("40"))
    dispute(app, second, 10_00)
    assert (of(anna, first).remaining, of(anna, second).remaining) == (EUR("50"), EUR("30"))
    with pytest.raises(RefundError, match="disputed"):
        refunds.request(anna.customer_id, second.public_id, EUR("1"), "")
    assert refunds.request(anna.customer_id, first.public_id, EUR("1"), "")


def test_the_next_top_up_settles_the_debt_first_and_says_so(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    reference = dispute(app, payment, 50_00)
    small = paid(app, anna, EUR("20"))
    assert stands(anna) == (0, 3_80)
    assert "€\N{NO-BREAK SPACE}20.00 of it settled" in payments.timeline(small)[-1].note
    large = paid(app, anna, EUR("30"))
    assert stands(anna) == (26_20, 0)
    letter = next(letter for letter in mail.newest(9) if letter.kind == "payment_confirmed")
    assert "€\N{NO-BREAK SPACE}3.80 of it settled what your balance owed. Nothing is missing any more, so your services renew by themselves again." in letter.text
    before = next(letter for letter in mail.newest(9)[1:] if letter.kind == "payment_confirmed" and letter.key != f"payment:{large.public_id}:confirmed")
    assert "of it settled what your balance owed.\n" in before.text
    assert of(anna, large).remaining == EUR("26.20")
    decide(app, reference, won=True)
    assert stands(anna) == (76_20, 0), "what it took and what was settled for it is back, each where it came from"
    assert (of(anna, small).remaining, of(anna, large).remaining, of(anna, payment).remaining) == (EUR("20"), EUR("30"), EUR("26.20"))


def test_two_debts_are_settled_oldest_first_and_each_comes_back_alone(app, anna):
    first, second = paid(app, anna, EUR("25")), paid(app, anna, EUR("25"))
    services.order(anna.customer_id, "vps-4", 1)
    services.order(anna.customer_id, "vps-4", 1)
    one, other = dispute(app, first, 25_00), dispute(app, second, 25_00)
    assert stands(anna) == (0, 47_60)
    paid(app, anna, EUR("30"))
    assert stands(anna) == (0, 17_60)
    decide(app, other, won=True)
    assert stands(anna) == (7_40, 0), "its own 2.40 is back and settles nothing of the other's"
    decide(app, one, won=False)
    assert stands(anna) == (7_40, 0)


def test_while_a_debt_is_open_nothing_renews_by_itself(app, anna):
    payment = paid(app, anna, EUR("100"))
    service = services.order(anna.customer_id, "vps-4", 1)
    reference = dispute(app, payment, 100_00)
    due = service.paid_through + timedelta(days=1)
    payments.grant_bonus(anna.customer_id, EUR("50"), reason="", reference="b")
    assert services.renew_due(due).renewed == 0
    decide(app, reference, won=True)
    assert services.renew_due(due).renewed == 1


def test_a_refund_asked_for_before_is_declined_and_its_money_goes_to_the_dispute(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("50"), "")
    refunds.approve(number, actor=SAM)
    dispute(app, payment, 50_00)
    assert (stands(anna), wallet.state(anna.customer_id).on_hold) == ((0, 0), 0)
    assert refunds.of_customer(anna.customer_id)[0].state == "declined"
    assert refunds.pay_out_due() == 0


def test_a_dispute_of_what_went_back_already_is_owed_and_refunds_stand(app, anna):
    payment = paid(app, anna, EUR("50"))
    refunds.approve(refunds.request(anna.customer_id, payment.public_id, EUR("20"), ""), actor=SAM)
    refunds.pay_out_due()
    reference = dispute(app, payment, 50_00)
    assert (stands(anna), again(payment).state) == ((0, 20_00), "disputed")
    assert "€ 20.00 of it had gone back" in payments.timeline(payment)[-1].note.replace("\N{NO-BREAK SPACE}", " ") or "20.00" in payments.timeline(payment)[-1].note
    decide(app, reference, won=True)
    assert (stands(anna), again(payment).state) == ((30_00, 0), "partially_refunded")


def test_lost_is_final_and_what_was_not_disputed_can_still_go_back(app, anna):
    payment = paid(app, anna, EUR("50"))
    reference = dispute(app, payment, 20_00)
    decide(app, reference, won=False)
    assert not processor(app).close_dispute(reference, won=True)
    assert (stands(anna), again(payment).state, of(anna, payment).refundable) == ((30_00, 0), "disputed", EUR("30"))
    whole = paid(app, anna, EUR("10"))
    decide(app, dispute(app, whole, 10_00), won=False)
    assert of(anna, whole).reason == "The payer's bank took this payment back."


def test_while_a_debt_is_open_nothing_goes_back(app, anna):
    payment, other = paid(app, anna, EUR("30")), paid(app, anna, EUR("30"))
    services.order(anna.customer_id, "vps-4", 1)
    number = refunds.request(anna.customer_id, other.public_id, EUR("30"), "")
    dispute(app, payment, 30_00)
    assert stands(anna) == (0, 23_80)
    assert "debt" in of(anna, other).reason or of(anna, other).open_number == number
    refunds.decline(number, actor=SAM, answer="Settle the dispute first")
    assert stands(anna) == (6_20, 0), "the money that came back settled the debt"


def test_a_converted_payment_gives_what_it_brought_and_leaves_no_exchange_behind(app, anna):
    publish_rates()
    payment = paid(app, anna, USD("100"))
    brought = of(anna, payment).credited
    reference = dispute(app, payment, 100_00)
    assert (stands(anna), book("fx", "USD"), book("fx", "EUR")) == ((0, 0), 0, 0)
    decide(app, reference, won=True)
    assert wallet.state(anna.customer_id).available == brought.minor


def test_lost_webhooks_are_made_good_by_looking(app, anna):
    payment = paid(app, anna, EUR("50"))
    reference = processor(app).dispute(payment.gateway_reference, 50_00, "not recognised")
    with clock.travel(clock.now() + timedelta(days=7)):
        assert payments.look_over() == 1
        assert (stands(anna), again(payment).state) == ((0, 0), "disputed")
        processor(app).close_dispute(reference, won=True)
        assert refunds.reconcile() == 1
        assert (stands(anna), again(payment).state) == ((50_00, 0), "paid")
        assert refunds.reconcile() == 0


def told(payment: Payment, state: str, amount: Money, reference: str = "du_x") -> None:
    """What the processor says of a dispute of fifty euro."""
    found = DisputeSnapshot(reference, state, amount, "fraud")  # type: ignore[arg-type]
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), disputes=(found,)))


@pytest.mark.parametrize("amount", [USD("50"), EUR("50.01")])
def test_a_dispute_that_does_not_fit_takes_nothing_by_itself_and_lets_nothing_go_back(app, anna, amount):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    for _ in range(2):
        told(payment, "open", amount)
    assert (stands(anna), of(anna, payment).refundable, trail("du_x")) == ((30_00, 0), EUR("0"), ["inquiry"])
    with pytest.raises(RefundError, match="disputed"):
        refunds.approve(number, actor=SAM)
    assert [found.amount for found in refunds.disputes_in(refunds.UNDER_WAY)] == [amount]
    for _ in range(2):
        told(payment, "won", amount)
    assert (trail("du_x"), refunds.approve(number, actor=SAM)) == (["inquiry", "closed"], "approved")


def test_a_person_takes_what_a_dispute_that_does_not_fit_took_and_its_end_is_followed(app, anna):
    payment = paid(app, anna, EUR("50"))
    told(payment, "lost", USD("54.19"))
    with pytest.raises(RefundError, match="cannot be disputed"):
        refunds.take_by_hand("du_x", 50_01, actor=SAM)
    assert refunds.take_by_hand("du_x", 50_00, actor=SAM) == EUR("50")
    told(payment, "lost", USD("54.19"))
    assert (stands(anna), again(payment).state, trail("du_x")) == ((0, 0), "disputed", ["inquiry", "open", "lost"])
    with pytest.raises(RefundError, match="waits"):
        refunds.take_by_hand("du_x", 50_00, actor=SAM)
    told(payment, "won", USD("54.19"))
    assert (stands(anna), again(payment).state) == ((50_00, 0), "paid")


def test_the_command_takes_what_a_dispute_took(app, anna):
    person("sam", role="support", name="Sam")
    payment = paid(app, anna, EUR("50"))
    told(payment, "open", USD("40"))
    run = app.test_cli_runner().invoke
    assert "There is no dispute du_y" in run(args=["payments", "take-dispute", "du_y", "36.91", "--actor", "sam"]).output
    assert run(args=["payments", "take-dispute", "du_x", "36.91", "--actor", "sam"]).output == "du_x: 36.91 EUR taken\n"
    assert (stands(anna), refunds.dispute_case("du_x").steps[-1].actor) == ((13_09, 0), "staff:sam")


NEWS = ("refund pending", "refund settled", "refund failed", "dispute open", "dispute won")


def _snapshot(payment: Payment, news: str) -> Snapshot:
    what, state = news.split()
    refund = (RefundSnapshot("re_1", state, EUR("20"), "expired card", ""),) if what == "refund" else ()  # type: ignore[arg-type]
    closed = (DisputeSnapshot("du_1", state, EUR("30"), "fraud"),) if what == "dispute" else ()  # type: ignore[arg-type]
    return Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), refunds=refund, disputes=closed)


@pytest.mark.parametrize("last", ["won", "lost"])
def test_the_same_news_in_every_order_and_twice_ends_alike(app, anna, last):
    news = ["dispute open", f"dispute {last}", "refund pending", "refund settled"]
    ends = set()
    for order in permutations(news):
        payment = paid(app, anna, EUR("50"))
        before = wallet.state(anna.customer_id).available
        db_reset = f"{payment.id}"
        for one in (*order, *order):
            found = _snapshot(payment, one)
            renamed = Snapshot(
                found.reference, found.charge_id, "paid", received=EUR("50"),
                refunds=tuple(RefundSnapshot(f"re_{db_reset}", r.state, r.amount) for r in found.refunds),
                disputes=tuple(DisputeSnapshot(f"du_{db_reset}", d.state, d.amount) for d in found.disputes),
            )  # fmt: skip
            payments.apply("sandbox", renamed)
        ends.add((wallet.state(anna.customer_id).available - before, again(payment).state, db.scalar("select count(*) from refunds where payment_id = %(id)s", id=payment.id)))
    assert ends == {(-20_00, "partially_refunded", 1) if last == "won" else (-50_00, "disputed", 1)}
    assert Money(0, "EUR") == wallet.owed(anna.customer_id, "EUR")


# A bank that only asks


def inquire(app: Flask, payment: Payment, minor: int) -> str:
    """The payer's bank asks about this much, and the webhook arrives."""
    reference = processor(app).inquire(payment.gateway_reference or "", minor, "fraudulent")
    assert reference
    carry(app)
    return reference


def trail(reference: str) -> list[str]:
    """The states a dispute has gone through."""
    return [
        row.state for row in db.rows("select e.state from dispute_events e join disputes d on d.id = e.dispute_id where d.gateway_reference = %(r)s order by e.id", r=reference)
    ]


def test_an_inquiry_moves_nothing_and_what_is_left_waits_for_its_answer(app, anna):
    payment, other = paid(app, anna, EUR("50")), paid(app, anna, EUR("20"))
    reference = inquire(app, payment, 50_00)
    assert (stands(anna), again(payment).state, of(anna, payment).refundable) == ((70_00, 0), "paid", EUR("0"))
    with pytest.raises(RefundError, match="asks about this payment"):
        refunds.request(anna.customer_id, payment.public_id, EUR("1"), "")
    assert of(anna, other).refundable == EUR("20")
    processor(app).end_inquiry(reference, takes=False)
    carry(app)
    assert (stands(anna), of(anna, payment).refundable, trail(reference)) == ((70_00, 0), EUR("50"), ["inquiry", "closed"])
    assert [letter.subject for letter in reversed(mail.newest(9)) if letter.kind == "dispute_step"] == [
        "Your bank asks about a payment of €\N{NO-BREAK SPACE}50.00", "The question about €\N{NO-BREAK SPACE}50.00 is answered",
    ]  # fmt: skip
    told = [step.what for step in invoicing.timeline(payments.bill_of(again(payment)))]
    assert told[-2:] == ["The payer's bank asks about it", "The bank has its answer"]


def test_an_inquiry_can_become_a_dispute_and_leaves_its_whole_trail(app, anna):
    payment = paid(app, anna, EUR("50"))
    reference = inquire(app, payment, 50_00)
    processor(app).end_inquiry(reference, takes=True)
    carry(app)
    assert (stands(anna), again(payment).state) == ((0, 0), "disputed")
    decide(app, reference, won=False)
    assert trail(reference) == ["inquiry", "open", "lost"]
    assert [step.what for step in invoicing.timeline(payments.bill_of(again(payment)))][-3:] == ["The payer's bank asks about it", "Disputed with the bank", "Dispute lost"]


def test_a_refund_waits_on_every_way_out_while_the_bank_asks_and_goes_on_after(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    reference = inquire(app, payment, 50_00)
    with pytest.raises(RefundError, match="disputed"):
        refunds.approve(number, actor=SAM)
    processor(app).end_inquiry(reference, takes=False)
    carry(app)
    refunds.approve(number, actor=SAM)
    second = inquire(app, payment, 50_00)
    with pytest.raises(RefundError, match="disputed"):
        refunds.pay_out(number)
    assert (refunds.pay_out_due(), refunds.case(number).refund.state, wallet.state(anna.customer_id).on_hold) == (0, "approved", 20_00)
    processor(app).end_inquiry(second, takes=False)
    carry(app)
    assert (refunds.pay_out_due(), refunds.case(number).refund.state) == (1, "settled")


def test_a_payout_by_hand_waits_too(app, anna):
    payment = paid(app, anna, EUR("30"), "other-crypto")
    number = refunds.request(anna.customer_id, payment.public_id, EUR("30"), "", iban=IBAN, holder="Anna Kowalska")
    for who in (SAM, RITA):
        refunds.approve(number, actor=who)
    inquire(app, payment, 30_00)
    with pytest.raises(RefundError, match="disputed"):
        refunds.mark_paid(number, reference="TX-1", actor=SAM)


def test_a_refund_whose_answer_was_lost_is_refused_by_the_processor_once_disputed_and_comes_back(app, anna):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    processor(app).down = True
    with pytest.raises(GatewayError):
        refunds.pay_out(number)
    processor(app).down = False
    dispute(app, payment, 50_00)
    assert stands(anna) == (0, 20_00), "what is on its way cannot be called back: it is owed meanwhile"
    assert (refunds.pay_out(number), stands(anna)) == ("failed", (0, 0))


def test_several_disputes_on_one_payment_each_take_and_give_their_own(app, anna):
    payment = paid(app, anna, EUR("60"))
    for name, minor in (("du_a", 10_00), ("du_b", 20_00), ("du_c", 30_00)):
        refunds.open_dispute(payment.public_id, Money(minor, "EUR"), reference=name, reason="")
    assert stands(anna) == (0, 0)
    refunds.win_dispute("du_b")
    assert (stands(anna), of(anna, payment).refundable) == ((20_00, 0), EUR("0")), "the others are still open"
    refunds.lose_dispute("du_a")
    refunds.lose_dispute("du_c")
    assert (stands(anna), again(payment).state, of(anna, payment).refundable) == ((20_00, 0), "disputed", EUR("20"))
    assert [str(fault) for fault in ledger.check()] == []


def test_lost_months_later_is_found_by_looking_and_stays_lost(app, anna):
    payment = paid(app, anna, EUR("50"))
    reference = dispute(app, payment, 50_00)
    with clock.travel(clock.now() + timedelta(days=150)):
        processor(app).close_dispute(reference, won=False)
        assert refunds.reconcile() == 1
        assert (stands(anna), of(anna, payment).reason, trail(reference)) == ((0, 0), "The payer's bank took this payment back.", ["open", "lost"])


@pytest.mark.parametrize("last", ["closed", "won", "lost"])
def test_news_of_an_inquiry_in_every_order_ends_alike(app, anna, last):
    news = ["inquiry", "open", last] if last != "closed" else ["inquiry", "closed"]
    ends = set()
    for order in permutations(news):
        payment = paid(app, anna, EUR("50"))
        before = wallet.state(anna.customer_id).available
        for state in (*order, *order):
            told = DisputeSnapshot(f"iq_{payment.id}", state, EUR("30"), "fraud")
            payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), disputes=(told,)))
        ends.add((wallet.state(anna.customer_id).available - before, again(payment).state, db.scalar("select state from disputes where payment_id = %(id)s", id=payment.id)))
    assert ends == {(-30_00 if last == "lost" else 0, "disputed" if last == "lost" else "paid", last)}


def test_what_was_taken_already_is_not_taken_again_under_another_name(app, anna):
    payment = paid(app, anna, EUR("50"))
    fund(anna.customer_id, 100_00)
    refunds.open_dispute(payment.public_id, EUR("50"), reference="reversed-1", reason="")
    refunds.lose_dispute("reversed-1")
    with pytest.raises(RefundError, match="other disputes took"):
        refunds.open_dispute(payment.public_id, EUR("50"), reference="du_x", reason="fraud")
    assert wallet.state(anna.customer_id).available == 100_00
    won = DisputeSnapshot("reversed-1", "won", EUR("50"), "")
    payments.apply("sandbox", Snapshot(payment.gateway_reference, payment.public_id, "paid", received=EUR("50"), disputes=(won,)))
    assert wallet.state(anna.customer_id).available == 150_00
    refunds.open_dispute(payment.public_id, EUR("50"), reference="du_x", reason="fraud")
    assert wallet.state(anna.customer_id).available == 100_00


def test_the_customer_is_held_before_the_money_when_a_refund_and_a_dispute_are_told_at_once(app, anna, superuser, monkeypatch):
    payment = paid(app, anna, EUR("50"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    arrive = paying.arrive

    def meanwhile(*args):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            superuser.execute("select id from customers where id = %s for no key update nowait", [anna.customer_id])
        return arrive(*args)

    monkeypatch.setattr(paying, "arrive", meanwhile)
    both = (RefundSnapshot("re_1", "settled", EUR("20"), "", f"refund:{number}"),), (DisputeSnapshot("du_1", "open", EUR("30"), "fraud"),)
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=EUR("50"), refunds=both[0], disputes=both[1]))
    assert (refunds.case(number).refund.state, stands(anna)) == ("settled", (0, 0))


def test_the_customer_is_held_before_the_money_when_a_transfer_is_taken_back(app, anna, superuser, monkeypatch):
    bank.import_file(camt([Transfer(50_00, structured=topup(anna, EUR("50")).payment_reference, end_to_end="E2E-7")]), "1.xml")
    decline = returned.decline_unsent

    def meanwhile(*args):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            superuser.execute("select id from customers where id = %s for no key update nowait", [anna.customer_id])
        decline(*args)

    monkeypatch.setattr(returned, "decline_unsent", meanwhile)
    bank.import_file(camt([Transfer(-50_00, family="RRTN", end_to_end="E2E-7", day="2026-11-24")], replace(GERMAN, id="2")), "2.xml")
    assert stands(anna) == (0, 0)
    assert [source.reason for source in refunds.refundable(anna.customer_id)] == [returned.TAKEN]
