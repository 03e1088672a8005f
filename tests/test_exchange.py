"""The account currency changed: nothing lost, nothing gained, every payment still refundable in its own currency."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import config
from app import bank, clock, customers, db, exchange, fx, ledger, mail, payments, refunds, services, wallet
from app.customers import User
from app.exchange import CurrencyError, Outdated
from app.gateways.base import DisputeSnapshot, RefundSnapshot, Snapshot
from app.ledger import InsufficientFunds
from app.money import Money
from app.refunds import RefundError, disputes
from app.services import ServiceError
from tests.banks import GERMAN, Transfer, camt
from tests.conftest import BERLIN, Browser, person
from tests.money_helpers import EUR, USD
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.test_fx import NOON, feed
from tests.test_refunds import RITA, SAM, of, paid
from tests.trade import fund, offer_plans

ALLOWED = timedelta(days=31)


@pytest.fixture
def anna(app: Flask, demo_customer: User) -> User:
    """A customer in euro, with rates and plans."""
    publish_rates()
    offer_plans()
    return demo_customer


def turn(user: User, into: str) -> None:
    """Change the currency as the page does."""
    customer = customers.get(user.customer_id or 0)
    exchange.change(customer.id, into, exchange.preview(customer, into).token, actor="customer")


def let(user: User) -> None:
    """Support lets the next change come early."""
    exchange.lift_wait(user.login, actor="staff:sam", reason="Asked for")


def sent_back(user: User, payment, amount: Money) -> int:
    """Ask for money of a payment back and have it sent; what went back."""
    number = refunds.request(user.customer_id, payment.public_id, amount, "", iban="DE89370400440532013000", holder="Anna Kowalska")
    for actor in (SAM, RITA):
        if refunds.case(number).refund.state == "requested":
            refunds.approve(number, actor=actor)
    refunds.pay_out(number)
    return db.scalar("select payout from refunds where number = %(number)s", number=number)


def test_everything_goes_on_in_the_other_currency(app, anna):
    payment = paid(app, anna, EUR("100"))
    payments.grant_bonus(anna.customer_id, EUR("10"), reason="Welcome", reference="w", expires_at=clock.now() + timedelta(days=50))
    fund(anna.customer_id, 7_00)
    turn(anna, "USD")
    state = wallet.state(anna.customer_id)
    assert (state.currency, state.available + state.bonus) == ("USD", 126_79)  # 117 × 1.0837 = 126.7929
    lots = {lot.kind: lot for lot in wallet.lots(anna.customer_id) if lot.remaining}
    assert [lots[kind].remaining for kind in ("payment", "bonus", "correction")] == [108_37, 10_84, 7_58]
    assert (lots["payment"].payment_id, lots["payment"].paid, lots["payment"].paid_currency) == (payment.id, 100_00, "EUR")
    assert lots["bonus"].expires_at is not None
    old = wallet.histories(anna.customer_id, "EUR")
    assert {kind: ledger.balance(account) for kind, account in old.items()} == {"wallet": 0, "bonus": 0}
    assert ledger.history(old["wallet"])[0].amount == -107_00
    assert "became" in ledger.history(old["wallet"])[0].description


def test_the_margin_is_a_line_of_its_own(app, anna):
    fund(anna.customer_id, 100_00)
    before = config.current()
    config.use(replace(before, fx_spread_bp=100))
    try:
        turn(anna, "USD")
    finally:
        config.use(before)
    assert wallet.state(anna.customer_id).available == 107_28
    lines = db.rows(
        "select a.kind, a.currency::text, e.amount from entries e join accounts a on a.id = e.account_id join transfers t on t.id = e.transfer_id where t.kind = 'conversion'"
    )
    assert sorted(tuple(line) for line in lines) == [("fx", "EUR", 100_00), ("fx", "USD", -108_37), ("revenue", "USD", 1_09), ("wallet", "EUR", -100_00), ("wallet", "USD", 107_28)]


def test_refunds_before_and_after_the_change_add_up_to_what_was_not_used(app, anna):
    payment = paid(app, anna, EUR("100"))
    services.order(anna.customer_id, "vps-4", 1)  # 23.80
    assert sent_back(anna, payment, EUR("33.33")) == 33_33
    turn(anna, "USD")
    source = of(anna, payment)
    assert (source.refundable, source.payout) == (USD("46.45"), EUR("42.87"))
    with clock.travel(clock.now() + timedelta(days=1)):
        first = sent_back(anna, payment, USD("10.01"))
        rest = of(anna, payment)
        assert first + sent_back(anna, payment, rest.refundable) == 42_87
    assert wallet.state(anna.customer_id).available == 0
    assert of(anna, payment).refundable == USD("0")


def test_paid_in_dollar_into_euro_and_changed_to_dollar_goes_back_as_it_came(app, anna):
    payment = paid(app, anna, USD("50"))
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(USD="1.15")
        turn(anna, "USD")
        assert wallet.state(anna.customer_id).available == 53_04  # 46.13 × 1.15 = 53.0495
        assert sent_back(anna, payment, USD("53.04")) == 50_00


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cents=st.lists(st.integers(5_00, 90_00), min_size=1, max_size=3),
    spent=st.integers(0, 4_99),
    way=st.lists(st.sampled_from(["EUR", "USD", "JPY", "KWD"]), min_size=1, max_size=5),
    asked=st.integers(1, 10**6),
)
def test_no_way_through_currencies_makes_money_by_refund_or_back(app, cents, spent, way, asked):
    publish_rates()
    user = person(f"carl{db.scalar('select count(*) from users')}", profile=BERLIN)
    brought = [paid(app, user, Money(minor, "EUR")) for minor in cents]
    if spent:
        with db.transaction():
            wallet.spend(user.customer_id, Money(spent, "EUR"), reference=f"x{user.id}", counter=[(ledger.account("revenue", "EUR"), spent)])
    for into in [*way, "EUR"]:
        if wallet.state(user.customer_id).currency != into:
            turn(user, into)
            let(user)
    assert wallet.state(user.customer_id).available <= sum(cents) - spent
    back = 0
    for place, payment in enumerate(brought):
        source = of(user, payment)
        assert source.payout.minor <= payment.received
        if source.refundable and place < refunds.DAILY:
            with suppress(RefundError):  # so little that nothing would go back
                back += sent_back(user, payment, Money(min(asked, source.refundable.minor), "EUR"))
    assert back <= sum(cents) - spent


def test_refused_while_something_is_open(app, anna):
    payment = paid(app, anna, EUR("60"))
    number = refunds.request(anna.customer_id, payment.public_id, EUR("5"), "")
    customer = customers.get(anna.customer_id)
    assert number in exchange.obstacle(customer)
    with pytest.raises(CurrencyError, match="under way"):
        turn(anna, "USD")
    refunds.decline(number, actor=SAM, answer="No")
    processor(app).dispute(payment.gateway_reference, 100, "fraud")
    carry(app)
    with pytest.raises(CurrencyError, match="disputed"):
        turn(anna, "USD")
    refunds.lose_dispute(db.scalar("select gateway_reference from disputes"))
    begin(topup(anna, EUR("20")))
    with pytest.raises(CurrencyError, match="has been started"):
        turn(anna, "USD")


def test_an_unpaid_service_bill_stops_it(app, anna):
    fund(anna.customer_id, 30_00)
    services.order(anna.customer_id, "vps-4", 1)
    with clock.travel(clock.now() + timedelta(days=40)):
        publish_rates()
        services.renew_due()
        with pytest.raises(CurrencyError, match="waits to be paid"):
            turn(anna, "USD")


def test_once_in_thirty_days_unless_support_lifts_it(anna):
    turn(anna, "USD")
    with pytest.raises(CurrencyError, match="can be changed again from"):
        turn(anna, "EUR")
    let(anna)
    turn(anna, "EUR")
    with clock.travel(clock.now() + ALLOWED):
        publish_rates()
        turn(anna, "USD")


def test_without_a_fresh_rate_or_for_too_little_it_is_refused(anna):
    with pytest.raises(CurrencyError, match="no current exchange rate"):
        turn(anna, "CZK")
    turn(anna, "JPY")
    let(anna)
    fund(anna.customer_id, 1, "JPY")
    with pytest.raises(CurrencyError, match="too small"):
        turn(anna, "EUR")
    with clock.travel(clock.now() + ALLOWED), pytest.raises(CurrencyError, match="no current exchange rate"):
        turn(anna, "EUR")


def test_the_rate_is_the_one_that_was_shown_and_binds_to_what_was_shown(anna):
    fund(anna.customer_id, 100_00)
    customer = customers.get(anna.customer_id)
    token = exchange.preview(customer, "USD").token
    fund(anna.customer_id, 1)
    with pytest.raises(Outdated):
        exchange.change(customer.id, "USD", token, actor="customer")
    token = exchange.preview(customer, "USD").token
    for forged, into in (("", "USD"), (token + "x", "USD"), (token, "PLN")):
        with pytest.raises(Outdated):
            exchange.change(customer.id, into, forged, actor="customer")
    with clock.travel(clock.now() + timedelta(minutes=15)), pytest.raises(Outdated):
        exchange.change(customer.id, "USD", token, actor="customer")
    exchange.change(customer.id, "USD", token, actor="customer")
    exchange.change(customer.id, "USD", token, actor="customer")
    assert db.scalar("select count(*) from transfers where kind = 'conversion'") == 1


def test_renewals_go_on_at_the_list_price_or_the_one_agreed(anna):
    fund(anna.customer_id, 500_00)
    vps, ip = services.order(anna.customer_id, "vps-4", 1), services.order(anna.customer_id, "ip", 1)
    shown = {price.service.id: price for price in exchange.preview(customers.get(anna.customer_id), "PLN").prices}
    assert (shown[vps.id].after, shown[vps.id].listed) == (Money.of("101.15", "PLN"), True)
    assert (shown[ip.id].after, shown[ip.id].listed) == (Money.of("15.17", "PLN"), False)  # 3.00 × 4.2515 = 12.75, and 19 % VAT
    turn(anna, "PLN")
    before = wallet.state(anna.customer_id).available
    assert {service.id: service.price for service in services.of_customer(anna.customer_id)} == {each.service.id: each.after for each in shown.values()}
    assert services.runway(anna.customer_id).covered_until
    with clock.travel(clock.now() + timedelta(days=35)):
        assert services.renew_due().renewed == 2
    assert before - wallet.state(anna.customer_id).available == 116_32


def test_what_comes_late_is_converted_at_the_rate_of_its_day(app, anna):
    first = paid(app, anna, EUR("80"))
    number = refunds.request(anna.customer_id, first.public_id, EUR("20"), "")
    refunds.approve(number, actor=SAM)
    refunds.pay_out(number)
    late = topup(anna, EUR("40"))
    turn(anna, "USD")
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(USD="1.15")
        topped = begin(late)
        choose(app, topped, "approve")
        carry(app)
        assert (again(topped).credited, again(topped).credited_currency) == (46_00, "USD")
        processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "closed")
        carry(app)
        payments.look_at(first.public_id)
        assert wallet.state(anna.customer_id).available == 65_02 + 46_00
        assert exchange.bring_over() == 1
        assert exchange.bring_over() == 0
        assert wallet.state(anna.customer_id).available == 65_02 + 46_00 + 23_00
    assert sum(source.payout.minor for source in refunds.refundable(anna.customer_id) if source.payment_id == first.id) == 80_00


def test_a_dispute_after_the_change_takes_what_was_spent_before_it_too(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)  # 23.80 spent, 26.20 go on as 28.39
    turn(anna, "USD")
    processor(app).dispute(payment.gateway_reference, 50_00, "fraud")
    carry(app)
    assert wallet.state(anna.customer_id).available == 0
    assert wallet.owed(anna.customer_id, "USD") == USD("25.79")  # 50.00 would be 54.19, and 28.40 of it are what went on
    refunds.win_dispute(db.scalar("select gateway_reference from disputes"))
    assert wallet.state(anna.customer_id).available == 28_39


def test_a_dispute_of_a_payment_spent_before_the_change_is_a_debt_in_the_new_currency(app, anna):
    payment = paid(app, anna, EUR("23.80"))
    services.order(anna.customer_id, "vps-4", 1)
    turn(anna, "USD")
    processor(app).dispute(payment.gateway_reference, 23_80, "fraud")
    carry(app)
    assert wallet.owed(anna.customer_id, "USD") == USD("25.80")


def told(payment, *back: RefundSnapshot, **more) -> None:
    """What the processor says of a payment since it was paid."""
    payments.apply("sandbox", replace(Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, refunds=back), **more))


def test_a_refund_made_at_the_processor_after_the_change_takes_what_was_spent_before_it_too_and_comes_back_whole(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)  # 23.80 spent, 26.20 go on as 28.39
    turn(anna, "USD")
    for _ in range(2):
        told(payment, RefundSnapshot("re_x", "settled", EUR("50")))
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "USD")) == (0, USD("25.79"))
    (source,) = refunds.refundable(anna.customer_id)
    assert (source.refundable, source.payout) == (USD("0"), EUR("0"))
    told(payment, RefundSnapshot("re_x", "failed", EUR("50"), "The card is closed"))
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "USD")) == (28_39, USD("0"))
    assert [str(fault) for fault in ledger.check()] == []


def test_a_part_sent_back_at_the_processor_after_the_change_leaves_the_rest_refundable(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    turn(anna, "USD")
    told(payment, RefundSnapshot("re_x", "settled", EUR("10")))
    assert wallet.state(anna.customer_id).available == 17_55  # 28.39 less 10.836, rounded up
    assert of(anna, payment).payout == EUR("16.20")
    assert sent_back(anna, payment, of(anna, payment).refundable) == 16_20


def test_three_parts_sent_back_at_the_processor_are_together_what_there_was(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    turn(anna, "USD")
    parts = [RefundSnapshot(f"re_{place}", "settled", EUR(part)) for place, part in enumerate(("8.73", "8.73", "8.74"))]
    told(payment, *parts)
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "USD")) == (0, USD("0"))


def test_a_refund_at_the_processor_of_what_was_spent_before_the_change_is_a_debt_in_the_new_currency(app, anna):
    payment = paid(app, anna, EUR("23.80"))
    services.order(anna.customer_id, "vps-4", 1)
    turn(anna, "USD")
    told(payment, RefundSnapshot("re_x", "settled", EUR("23.80")))
    assert wallet.owed(anna.customer_id, "USD") == USD("25.80")
    fund(anna.customer_id, 30_00, "USD")
    with db.transaction():
        wallet.settle_debts(anna.customer_id, "USD", cause="x")
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "USD")) == (4_20, USD("0"))


def test_a_refund_at_the_processor_of_what_was_spent_after_the_rest_went_back_is_a_debt(app, anna):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    turn(anna, "USD")
    assert sent_back(anna, payment, of(anna, payment).refundable) == 26_20
    told(payment, RefundSnapshot("re_x", "settled", EUR("23.80")))
    assert (wallet.owed(anna.customer_id, "USD"), again(payment).state) == (USD("25.80"), "refunded")
    assert [str(fault) for fault in ledger.check()] == []


def test_a_payment_in_two_parts_after_a_change_is_taken_and_frozen_whole(app, anna):
    other, payment = paid(app, anna, EUR("40")), paid(app, anna, EUR("80"))
    refunds.approve(number := refunds.request(anna.customer_id, payment.public_id, EUR("20"), ""), actor=SAM)
    refunds.pay_out(number)
    turn(anna, "USD")
    processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "closed")
    carry(app)
    assert exchange.bring_over() == 1
    parts = [source for source in refunds.refundable(anna.customer_id) if source.payment_id == payment.id]
    assert [part.remaining for part in parts] == [USD("21.67"), USD("65.02")]
    processor(app).dispute(payment.gateway_reference, 50_00, "fraud")
    carry(app)
    parts = [source for source in refunds.refundable(anna.customer_id) if source.payment_id == payment.id]
    assert [(part.remaining, part.reason) for part in parts] == [(USD("0"), disputes.FROZEN), (USD("32.51"), disputes.FROZEN)]
    assert of(anna, other).remaining == USD("43.35"), "another payment gives nothing while this one has something"
    refunds.win_dispute(db.scalar("select gateway_reference from disputes"))
    assert [source.refundable for source in refunds.refundable(anna.customer_id)] == [USD("21.67"), USD("65.02"), USD("43.35")]


@pytest.mark.parametrize(("ways", "part"), [(("JPY",), "6000"), (("USD", "EUR"), "50.50"), (("JPY", "KWD"), "15.000")])
def test_a_payment_is_refunded_when_all_of_what_was_paid_went_back_whatever_the_balance_gave_for_it(app, anna, ways, part):
    payment = paid(app, anna, EUR("50"))
    for place, into in enumerate(ways):
        with clock.travel(clock.now() + timedelta(days=place)):
            publish_rates(**({"USD": "1.05"} if place else {}))
            turn(anna, into)
            let(anna)
    with clock.travel(clock.now() + timedelta(days=1)):
        sent_back(anna, payment, Money.of(part, ways[-1]))
        assert (again(payment).state, payments.bill_of(payment).status) == ("partially_refunded", "paid")
        sent_back(anna, payment, of(anna, payment).refundable)
        assert (again(payment).state, payments.bill_of(payment).status) == ("refunded", "refunded")


def test_a_lost_dispute_that_is_won_after_a_change_gives_back_what_it_took_and_says_so_in_its_currency(app, anna):
    payment = paid(app, anna, EUR("50"))
    told(payment, disputes=(DisputeSnapshot("du_x", "lost", EUR("30")),))
    turn(anna, "USD")
    told(payment, disputes=(DisputeSnapshot("du_x", "won", EUR("30")),))
    assert exchange.bring_over() == 1
    assert wallet.state(anna.customer_id).available == 21_67 + 32_51
    assert sum(source.payout.minor for source in refunds.refundable(anna.customer_id)) == 50_00
    letter = next(letter for letter in mail.newest(9) if letter.kind == "dispute_step")
    assert "€\N{NO-BREAK SPACE}30.00" in letter.text
    assert "$" not in letter.text


def test_money_on_hold_and_a_debt_stop_a_change(app, anna):
    payment = paid(app, anna, EUR("50"))
    with db.transaction():
        held = wallet.hold(anna.customer_id, of(anna, payment).lot_id, EUR("5"), reference="aside")
    with pytest.raises(CurrencyError, match="Some of your money is on hold"):
        turn(anna, "USD")
    with db.transaction():
        wallet.release(held.transfer_id, "free")
    services.order(anna.customer_id, "vps-4", 1)
    refunds.open_dispute(payment.public_id, EUR("50"), reference="du_x", reason="fraud")
    refunds.lose_dispute("du_x")
    with pytest.raises(CurrencyError, match="taken back left a debt"):
        turn(anna, "USD")
    fund(anna.customer_id, 30_00)
    with db.transaction():
        wallet.settle_debts(anna.customer_id, "EUR", cause="x")
    turn(anna, "USD")
    assert wallet.state(anna.customer_id).available == 6_71  # 6.20 × 1.0837


def test_a_transfer_taken_back_after_the_change_takes_what_it_became(anna):
    bill = topup(anna, EUR("100"))
    bank.import_file(camt([Transfer(100_00, structured=bill.payment_reference, end_to_end="E2E-7")]), "1.xml")
    services.order(anna.customer_id, "vps-4", 1)  # 76.20 go on as 82.57
    turn(anna, "USD")
    bank.import_file(camt([Transfer(-100_00, family="RRTN", end_to_end="E2E-7", day="2026-11-24")], replace(GERMAN, id="2")), "2.xml")
    assert (wallet.state(anna.customer_id).available, wallet.owed(anna.customer_id, "EUR"), wallet.owed(anna.customer_id, "USD")) == (0, EUR("0"), USD("25.79"))
    fund(anna.customer_id, 30_00, "USD")
    assert [source.refundable for source in refunds.refundable(anna.customer_id)] == [USD("0")]
    assert [str(fault) for fault in ledger.check()] == []


def test_the_currency_stays_while_money_is_taken_back(app, anna, superuser, monkeypatch):
    payment = paid(app, anna, EUR("50"))
    taken_by = disputes.taken_by

    def meanwhile(*args):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            superuser.execute("select id from customers where id = %s for no key update nowait", [anna.customer_id])
        return taken_by(*args)

    monkeypatch.setattr(disputes, "taken_by", meanwhile)
    refunds.open_dispute(payment.public_id, EUR("50"), reference="du_x", reason="fraud")
    assert wallet.state(anna.customer_id).available == 0


def test_more_of_a_payment_that_came_before_the_change_is_counted_in_its_currency_and_brought_over(app, anna):
    payment = begin(topup(anna, EUR("50")))
    told(payment, received=EUR("30"), exact=False)
    turn(anna, "USD")
    told(payment, received=EUR("50"), exact=False)
    assert (again(payment).credited, again(payment).credited_currency, payments.bill_of(payment).status) == (50_00, "EUR", "paid")
    assert exchange.bring_over() == 1
    assert wallet.state(anna.customer_id).available == 32_51 + 21_67
    assert sum(source.payout.minor for source in refunds.refundable(anna.customer_id)) == 50_00


def test_issued_papers_and_past_movements_stay_as_they_were(app, anna):
    paid(app, anna, EUR("100"))
    services.order(anna.customer_id, "vps-4", 1)
    bills, entries = "select id, currency, total, net, tax, buyer, status from bills order by id", "select * from entries order by transfer_id, account_id"
    before = [tuple(row) for row in db.rows(bills)], [tuple(row) for row in db.rows(entries)]
    papers = [tuple(row) for row in db.rows("select number, content from documents order by id")]
    turn(anna, "USD")
    assert [tuple(row) for row in db.rows(bills)] == before[0]
    assert [tuple(row) for row in db.rows(entries)][: len(before[1])] == before[1]
    assert [tuple(row) for row in db.rows("select number, content from documents order by id")] == papers


def test_eight_at_once_lose_no_cent(app, anna):
    fund(anna.customer_id, 400_00)
    payment = paid(app, anna, EUR("100"))
    ip = services.order(anna.customer_id, "ip", 1)
    acts = [
        lambda: services.order(anna.customer_id, "ip", 1),
        lambda: services.renew(ip.id),
        lambda: services.renew_due(clock.today() + timedelta(days=40)),
        lambda: refunds.request(anna.customer_id, payment.public_id, EUR("10"), ""),
        lambda: payments.grant_bonus(anna.customer_id, EUR("3"), reason="x", reference="race"),
        exchange.bring_over,
        lambda: turn(anna, "USD"),
        lambda: topped_up(anna),
    ]

    def act(verb) -> None:
        with app.app_context(), suppress(CurrencyError, Outdated, InsufficientFunds, RefundError, ServiceError, payments.NotPayable, payments.QuoteExpired):
            verb()

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(act, acts))
        assert [str(fault) for fault in ledger.check()] == []
        assert db.scalar("select count(*) from conversions where chosen") <= 1
    for case in refunds.queue():
        refunds.decline(case.refund.number, actor=SAM, answer="No")
    if wallet.state(anna.customer_id).currency == "EUR":
        turn(anna, "USD")
    exchange.bring_over()
    assert wallet.state(anna.customer_id).currency == "USD"
    assert all(ledger.balance(account) == 0 for account in wallet.histories(anna.customer_id, "EUR").values())
    # What came in, by whichever way, is what was spent and what is there: the exchange of the euro closes over the customer's accounts.
    through = db.scalar("select coalesce(sum(e.amount), 0)::bigint from entries e join accounts a on a.id = e.account_id join transfers t on t.id = e.transfer_id "
                        "where a.kind = 'fx' and a.currency = 'EUR' and t.kind = 'conversion'")  # fmt: skip
    assert through == db.scalar("select sum(q.pay_amount)::bigint from conversions v join quotes q on q.id = v.quote_id")


def topped_up(user: User) -> None:
    """Twenty euro by card, told of twice."""
    payment = begin(payments.order_topup(user.customer_id, EUR("20")))
    for _ in range(2):
        payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=clock.now()))


FAULTS = {
    "lots": "lot 2 does not go on where lot 1 ended",
    "paid": "lot 1 was paid with 10000, and what goes on of it with 10001",
    "quote": "conversion 1 moves 10000 into 10837, its quote says 10000 into 10838",
}
PLANTED = {
    "lots": "update lots set payment_id = null where id = 2",
    "paid": "update lots set paid = 10001 where id = 2",
    "quote": "update quotes set credit_amount = 10838",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proof_names_what_a_conversion_must_not_do(app, anna, vandal, fault):
    paid(app, anna, EUR("100"))
    turn(anna, "USD")
    assert [str(found) for found in ledger.check()] == []
    vandal.execute(PLANTED[fault])
    assert f"conversion: {FAULTS[fault]}" in [str(found) for found in ledger.check()]


@pytest.mark.parametrize("statement", ["delete from conversions", "update conversions set rate = 2"])
def test_a_conversion_is_history(anna, superuser, statement):
    fund(anna.customer_id, 100_00)
    turn(anna, "USD")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        superuser.execute(statement)


# Pages


def test_the_page_shows_and_changes(owner: Browser, anna: User):
    fund(anna.customer_id, 100_00)
    services.order(anna.customer_id, "vps-4", 1)
    shown = owner.get("/balance/currency?currency=USD").text
    assert '82<span class="minor">.57' in shown  # 76.20 × 1.0837
    assert "Your renewals afterwards" in shown
    token = shown.split('name="quote" value="')[1].split('"')[0]
    assert owner.submit("/balance/currency", {"currency": "USD", "preview": "1"}).status_code == 200
    assert owner.submit("/balance/currency", {"currency": "USD", "quote": "old"}).status_code == 422
    assert owner.submit("/balance/currency", {"currency": "USD", "quote": token}).status_code == 303
    balance = owner.get("/balance").text
    assert 'data-currency="USD"' in balance
    assert "Your account is in USD since" in balance
    again = owner.get("/balance/currency?currency=PLN").text
    assert "Not now." in again
    assert "disabled>Change to PLN" in again
    letter = db.row("select subject, body_text from mails where kind = 'currency_changed'")
    assert letter.subject == "Your account is in USD now"
    assert "became" in letter.body_text


def test_what_stands_in_the_way_is_one_click_away_and_the_figures_are_shown(app: Flask, owner: Browser, anna: User):
    refunds.request(anna.customer_id, paid(app, anna, EUR("60")).public_id, EUR("5"), "")
    shown = owner.get("/balance/currency?currency=USD").text
    assert '<a class="button quiet" href="/refunds">See your refunds</a>' in shown
    assert '59<span class="minor">.60' in shown  # 55 × 1.0837
    assert "disabled>Change to USD" in shown


def test_both_sides_of_a_change_are_in_the_history_and_in_its_files(owner: Browser, anna: User):
    with clock.travel(clock.now() - timedelta(days=40)):
        publish_rates()
        fund(anna.customer_id, 100_00)
    turn(anna, "USD")
    now, before = owner.get("/transactions").text, owner.get("/transactions?currency=EUR").text
    assert "108.37" in now
    assert "became" in now
    assert "−100.00" in before
    assert "In EUR" in now
    assert ",EUR," in owner.get("/transactions.csv?currency=EUR").text
    assert ",USD," in owner.get("/transactions.csv").text
    day = (clock.today() - timedelta(days=20)).isoformat()
    assert "100.00" in owner.get(f"/transactions?as_of={day}").text.split("your balance was")[1][:60]
    assert owner.get("/transactions?currency=XXX").status_code == 200


# Rates


def test_an_operator_confirms_a_move_for_one_currency(app):
    with clock.travel(NOON):
        fx.import_feed(feed("2026-10-29", USD="1.1", GBP="0.84"))
        with pytest.raises(fx.FeedRefused, match="flask rates fetch --confirm USD"):
            fx.import_feed(feed(USD="2", GBP="0.85"))
        with pytest.raises(fx.FeedRefused, match="USD moved"):
            fx.import_feed(feed(USD="2", GBP="0.85"), confirmed=["GBP"])
        assert fx.import_feed(feed(USD="2", GBP="0.85"), confirmed=["USD"]).added == 2
    assert [row.currency for row in db.rows("select currency from rates where confirmed")] == ["USD"]
