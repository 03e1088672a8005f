"""Services: the calendar of periods, orders, renewals exactly once, and the runway."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock, customers, db, invoicing, ledger, mail, payments, services, wallet
from app.money import Money
from app.services import DAY, Fund, Run, Service
from tests.conftest import BERLIN, person
from tests.money_helpers import EUR
from tests.trade import customer, fund, offer_plans, on

VPS = Service(
    id=7, public_id="vps-7", customer_id=1, kind="vps", plan="VPS NVMe-4", label="vps-7", detail="", months=1, status="active", auto_renew=True, payment_source="balance",
    priority=100, started_on=date(2026, 1, 31), paid_through=date(2026, 2, 27), price=EUR("24.20"), waiting=None,
)  # fmt: skip

days = st.dates(date(2000, 1, 1), date(2100, 12, 31))
lengths = st.sampled_from([1, 3, 6, 12])


# The calendar


def test_an_anchor_on_the_last_day_survives_february() -> None:
    starts = [date(2026, 1, 31)]
    for _ in range(3):
        starts.append(services.add_months(starts[-1], 1, 31))
    assert starts == [date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30)]


def test_a_leap_day_comes_back_after_four_years() -> None:
    assert services.add_months(date(2024, 2, 29), 12, 29) == date(2025, 2, 28)
    assert services.add_months(date(2027, 2, 28), 12, 29) == date(2028, 2, 29)


@given(start=days, steps=st.lists(lengths, min_size=1, max_size=30))
def test_periods_follow_each_other_without_gap_or_overlap(start: date, steps: list[int]) -> None:
    begin = start
    for months in steps:
        end = services.period_end(begin, months, start.day)
        assert 28 * months <= (end - begin).days + 1 <= 31 * months
        begin = end + DAY
    assert begin == services.add_months(start, sum(steps), start.day), "many steps reach the day that one leap reaches"


@given(start=days, months=st.integers(0, 600))
def test_the_day_of_the_month_is_the_anchor_or_the_months_last(start: date, months: int) -> None:
    moved = services.add_months(start, months, start.day)
    assert (moved.year * 12 + moved.month) - (start.year * 12 + start.month) == months
    assert moved.day == start.day or (moved.day < start.day and (moved + DAY).day == 1)


# The simulation


def test_renewals_are_paid_in_the_order_they_come_and_a_short_one_takes_nothing() -> None:
    ip = replace(VPS, id=8, public_id="ip-8", price=EUR("3.63"), priority=200)
    coming = list(services.simulate([ip, VPS], [Fund(50_00)], date(2026, 4, 30)))
    assert [(r.service.public_id, r.on, r.missing) for r in coming] == [
        ("vps-7", date(2026, 2, 28), EUR("0")),
        ("ip-8", date(2026, 2, 28), EUR("0")),
        ("vps-7", date(2026, 3, 31), EUR("2.03")),
        ("ip-8", date(2026, 3, 31), EUR("0")),
        ("ip-8", date(2026, 4, 30), EUR("0")),
    ]


def test_a_bonus_is_spent_first_and_lapses_on_its_day() -> None:
    used = list(services.simulate([VPS], [Fund(24_20), Fund(24_20, date(2026, 3, 1))], date(2026, 3, 31)))
    assert [r.short for r in used] == [False, False]
    lapsed = list(services.simulate([VPS], [Fund(10_00), Fund(14_20, date(2026, 2, 28))], date(2026, 2, 28)))
    assert lapsed[0].missing == EUR("14.20")


def test_a_saved_card_stands_in_while_it_can_and_takes_nothing_of_the_balance() -> None:
    ip = replace(VPS, id=8, public_id="ip-8", price=EUR("3.63"), priority=200)
    by_card = replace(VPS, card_ends=date(2026, 4, 1))
    coming = list(services.simulate([ip, by_card], [Fund(12_00)], date(2026, 4, 30)))
    assert [(r.service.public_id, r.on.month, r.by_card, r.short) for r in coming] == [
        ("vps-7", 2, True, False), ("ip-8", 2, False, False), ("vps-7", 3, True, False), ("ip-8", 3, False, False), ("vps-7", 4, False, True), ("ip-8", 4, False, False),
    ]  # fmt: skip
    waits = replace(by_card, waiting="PF-2026-000001")
    assert next(services.simulate([waits], [], date(2026, 4, 30))).short, "its card was declined"


def test_what_does_not_renew_by_itself_is_not_simulated() -> None:
    still = [replace(VPS, auto_renew=False), replace(VPS, status="suspended"), replace(VPS, price=None)]
    assert list(services.simulate(still, [Fund(100_00)], date(2027, 1, 1))) == []


@given(
    funds=st.integers(0, 500_00),
    prices=st.lists(st.integers(1, 90_00), min_size=1, max_size=6),
    offsets=st.lists(st.integers(0, 60), min_size=6, max_size=6),
)
def test_no_simulation_spends_more_than_there_is(funds: int, prices: list[int], offsets: list[int]) -> None:
    owned = [replace(VPS, id=i, price=Money(price, "EUR"), paid_through=VPS.paid_through + timedelta(offsets[i])) for i, price in enumerate(prices)]
    coming = list(services.simulate(owned, [Fund(funds)], date(2027, 2, 27)))
    left = funds
    for renewal in coming:
        assert renewal.missing.minor == max(0, renewal.price.minor - left)
        left -= 0 if renewal.short else renewal.price.minor
    assert left >= 0
    assert [r.on for r in coming] == sorted(r.on for r in coming)


# Orders and renewals


@pytest.fixture
def anna(app) -> int:
    """A customer with € 100.00."""
    offer_plans()
    return customer("anna", 100_00)


def balance(customer_id: int) -> int:
    return wallet.state(customer_id).available


def test_an_order_charges_bills_and_starts_in_one_go(anna):
    with on(date(2026, 1, 31)):
        vps = services.order(anna, "vps-4", 1, label="web-1")
    assert (vps.started_on, vps.paid_through, vps.renews_on) == (date(2026, 1, 31), date(2026, 2, 27), date(2026, 2, 28))
    assert (vps.label, vps.price, vps.status) == ("web-1", EUR("23.80"), "active")
    assert balance(anna) == 100_00 - 23_80
    bill = invoicing.find(anna, "INV-2026-000001")
    assert (bill.status, bill.net, bill.tax, bill.lines[0].period_start, bill.lines[0].period_end) == ("paid", 20_00, 3_80, vps.started_on, vps.paid_through)
    assert bill.title == "web-1 · VPS NVMe-4"
    charge = db.row("select * from transfers where service_id = %(id)s", id=vps.id)
    assert (charge.kind, charge.description, charge.bill_id) == ("charge", "Order web-1 · 1 month", bill.id)


def test_an_order_that_is_too_dear_leaves_nothing(anna):
    with pytest.raises(wallet.InsufficientFunds):
        services.order(anna, "epyc", 1)
    assert balance(anna) == 100_00
    assert services.of_customer(anna) == []
    assert db.scalar("select count(*) from bills") == 0


@pytest.mark.parametrize(("plan", "months"), [("nothing", 1), ("vps-4", 2), ("vps-4", 6)])
def test_what_is_not_sold_is_refused(anna, plan, months):
    with pytest.raises(services.ServiceError):
        services.order(anna, plan, months)
    assert services.of_customer(anna) == []


def test_an_early_renewal_goes_on_from_the_current_end_and_keeps_the_anchor(anna):
    with on(date(2026, 1, 31)):
        vps = services.order(anna, "vps-4", 1)
        renewed = [services.renew(vps.id), services.renew(vps.id)]
    assert [(r.period_start, r.period_end) for r in renewed] == [(date(2026, 2, 28), date(2026, 3, 30)), (date(2026, 3, 31), date(2026, 4, 29))]
    assert services.of_customer(anna)[0].paid_through == date(2026, 4, 29)


def test_a_renewal_of_another_length_costs_that_length(anna):
    vps = services.order(anna, "vps-4", 1)
    assert services.renew(vps.id, 3).price == EUR("67.83")


def test_the_same_period_twice_is_the_same_renewal(anna):
    vps = services.order(anna, "vps-4", 1)
    first = services.renew(vps.id, period_start=vps.renews_on)
    assert services.renew(vps.id, period_start=vps.renews_on) == first
    assert balance(anna) == 100_00 - 2 * 23_80
    with pytest.raises(services.ServiceError, match="another day"):
        services.renew(vps.id, period_start=date(2020, 1, 1))


def test_a_service_that_ended_is_not_renewed(anna):
    vps = services.order(anna, "vps-4", 1)
    with db.transaction():
        db.execute("update services set status = 'terminated', ended_at = created_at")
    with pytest.raises(services.ServiceError, match="ended"):
        services.renew(vps.id)


def test_renew_due_charges_each_due_service_once(anna):
    with on(date(2026, 1, 31)):
        services.order(anna, "vps-4", 1)
        services.order(anna, "ip", 1)
    with on(date(2026, 2, 28)):
        assert [service.renews_on for service in services.due(date(2026, 2, 28))] == [date(2026, 2, 28)] * 2
        assert services.renew_due() == Run(renewed=2)
        assert services.renew_due() == Run()
    assert balance(anna) == 100_00 - 2 * (23_80 + 3_57)
    assert {service.paid_through for service in services.of_customer(anna)} == {date(2026, 3, 30)}


def test_what_is_not_due_or_does_not_renew_by_itself_is_left(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "ip", 1)
        services.order(anna, "ip", 1, auto_renew=False)
    with on(date(2026, 4, 9)):
        assert services.renew_due() == Run()
    with on(date(2026, 4, 10)):
        assert services.renew_due() == Run(renewed=1)


def test_too_little_money_takes_nothing_bills_once_and_says_what_is_missing(anna):
    with on(date(2026, 3, 10)):
        important = services.order(anna, "vps-4", 1, priority=1)
        services.order(anna, "vps-4", 3, label="big", auto_renew=False)
        services.order(anna, "ip", 1, priority=9)
    left = balance(anna)
    assert left == 100_00 - 23_80 - 67_83 - 3_57
    with on(date(2026, 4, 10)):
        assert services.renew_due() == Run(renewed=1, short=1), "the address fits, the server does not"
        assert services.renew_due() == Run(short=1)
    assert balance(anna) == left - 3_57
    (waiting,) = [service for service in services.of_customer(anna) if service.waiting]
    assert (waiting.id, waiting.price) == (important.id, EUR("23.80"))
    assert db.scalar("select count(*) from bills where status = 'unpaid'") == 1
    (letter,) = [letter for letter in mail.newest(20) if letter.kind == "renewal_short"]
    assert "22.57" in letter.subject
    assert waiting.waiting in letter.text


def test_a_top_up_renews_what_waits_with_the_bill_that_waits(anna):
    with on(date(2026, 3, 10)):
        vps = services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3, auto_renew=False)
    with on(date(2026, 4, 10)):
        services.renew_due()
        number = services.of_customer(anna)[0].waiting
        fund(anna, 50_00)
        assert services.renew_due() == Run(renewed=1)
    bill = invoicing.find(anna, number)
    assert (bill.status, bill.proforma_number) == ("paid", number)
    (owned,) = [service for service in services.of_customer(anna) if service.id == vps.id]
    assert (owned.waiting, owned.paid_through) == (None, date(2026, 5, 9))


def test_a_waiting_bill_refuses_another_length_until_it_is_cancelled(anna):
    with on(date(2026, 3, 10)):
        vps = services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3, auto_renew=False)
    with on(date(2026, 4, 10)):
        services.renew_due()
        fund(anna, 100_00)
        with pytest.raises(services.ServiceError, match="waits for this period"):
            services.renew(vps.id, 3)
        invoicing.cancel(anna, services.of_customer(anna)[0].waiting)
        assert services.renew(vps.id, 3).period_end == date(2026, 7, 9)


def test_a_bill_paid_straight_extends_the_service(anna):
    with on(date(2026, 3, 10)):
        vps = services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3, auto_renew=False)
    with on(date(2026, 4, 10)):
        services.renew_due()
        fund(anna, 50_00)
        bill = invoicing.find(anna, services.of_customer(anna)[0].waiting)
        with db.transaction():
            wallet.spend(
                anna,
                bill.amount,
                reference=f"bill:{bill.id}",
                counter=[(ledger.account("revenue", "EUR"), bill.net), (ledger.account("vat", "EUR", key="DE"), bill.tax)],
                bill_id=bill.id,
            )
            invoicing.settle(invoicing.lock(bill.id), invoicing.Settlement(bill.issued_at, "Visa"))
        assert services.settle_waiting() == 1
        assert services.settle_waiting() == 0
        assert services.renew_due() == Run()
    (owned,) = [service for service in services.of_customer(anna) if service.id == vps.id]
    assert owned.paid_through == date(2026, 5, 9)


def test_a_bad_service_stops_nothing(anna, superuser: psycopg.Connection, caplog):
    with on(date(2026, 3, 10)):
        broken = services.order(anna, "vps-4", 1)
        fine = services.order(anna, "ip", 1)
        other = services.order(customer("boris", 100_00), "ip", 1)
    superuser.execute("delete from prices where months = 1 and plan_id = (select plan_id from services where id = %s)", (broken.id,))
    with on(date(2026, 4, 10)):
        assert services.renew_due() == Run(renewed=2, failed=1)
    renewed = {row.service_id for row in db.rows("select service_id from renewals where period_start = '2026-04-10'")}
    assert renewed == {fine.id, other.id}
    assert "has no price" in caplog.text


def test_two_workers_at_once_charge_each_period_once(app):
    offer_plans()
    with on(date(2026, 3, 10)):
        owners = [customer(f"customer{number}", 60_00) for number in range(12)]
        for owner in owners:
            services.order(owner, "ip", 1)
            services.order(owner, "vps-4", 1)

    def work(_: int) -> Run:
        with app.app_context(), on(date(2026, 4, 10)):
            return services.renew_due(chunk=3)

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(work, range(4)))
    assert (sum(run.renewed for run in runs), sum(run.failed for run in runs)) == (24, 0)
    assert db.scalar("select count(*) from renewals where period_start = '2026-04-10' and transfer_id is not null") == 24
    assert db.scalar("select count(*) from transfers where kind = 'charge'") == 48
    assert {balance(owner) for owner in owners} == {60_00 - 2 * (3_57 + 23_80)}


# How long the balance lasts


def test_the_runway_names_the_first_service_that_runs_short(anna):
    with on(date(2026, 3, 10)):
        vps = services.order(anna, "vps-4", 1)
        runway = services.runway(anna)
        assert (runway.covered_until, runway.short_on, runway.short_service.id) == (date(2026, 7, 9), date(2026, 7, 10), vps.id)
        assert runway.missing == EUR("19.00"), "76.20 covers three of 23.80 and leaves 4.80"
        assert [renewal.on for renewal in services.upcoming(anna, 62)] == [date(2026, 4, 10), date(2026, 5, 10)]


def test_the_runway_without_services_or_without_end(anna):
    assert services.runway(anna) == services.Runway(None)
    with on(date(2026, 3, 10)):
        services.order(anna, "ip", 1)
        assert services.runway(anna) == services.Runway(date(2027, 3, 11))


def test_the_runway_is_what_really_happens(anna):
    """Living through the year day by day runs short on the day and by the amount that were foretold."""
    with on(date(2026, 1, 31)):
        services.order(anna, "ip", 1)
        services.order(anna, "vps-4", 1)
        foretold = services.runway(anna)
    day, run = date(2026, 1, 31), Run()
    while not run.short:
        day += DAY
        with on(day):
            run = services.renew_due()
    assert day == foretold.short_on
    (short,) = [service for service in services.of_customer(anna) if service.waiting]
    assert short.id == foretold.short_service.id
    assert short.price.minor - balance(anna) == foretold.missing.minor


def test_a_period_paid_by_card_a_moment_ago_is_not_paid_again_but_followed_by_the_next(app):
    offer_plans()
    customer_id = customer(minor=3_57)
    service = services.order(customer_id, "ip", 1)
    with clock.travel(clock.now() + timedelta(days=40)):
        services.renew_due()
        waiting = services.of_customer(customer_id)[0].waiting
        assert waiting
        bill = invoicing.find(customer_id, waiting)
        assert bill
        fund(customer_id, 20_00)
        payments.pay_from_balance(customer_id, bill.number)
        renewed = services.renew(service.id)
    assert renewed.period_start == bill.period_end + timedelta(days=1)
    assert wallet.state(customer_id).available == 20_00 - 2 * 3_57


def test_tax_is_owed_where_its_reader_lives_when_it_is_paid(app):
    offer_plans()
    user = person("moved", profile=BERLIN)
    fund(user.customer_id, 3_57)
    services.order(user.customer_id, "ip", 1)
    with clock.travel(clock.now() + timedelta(days=40)):
        services.renew_due()
        customers.update_profile(user.id, user.customer_id, replace(BERLIN, country="FR", postcode="75001", city="Paris"), locale="en", timezone="UTC")
        fund(user.customer_id, 20_00)
        assert services.renew_due().renewed == 1
    taxed = db.rows("select a.key, sum(e.amount)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = 'vat' group by a.key order by a.key")
    assert taxed == [("DE", 57), ("FR", 60)]


def test_a_cancelled_bill_stays_cancelled_and_a_renewal_that_is_covered_later_is_billed_anew(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3)
    with on(date(2026, 4, 10)):
        services.renew_due()
        (number,) = [service.waiting for service in services.of_customer(anna) if service.waiting]
        invoicing.cancel(anna, number)
        assert services.renew_due().short == 1
        assert db.scalar("select count(*) from bills where kind = 'service' and status = 'unpaid'") == 0, "what was cancelled is not billed again while nothing covers it"
        fund(anna, 100_00)
        assert services.renew_due().renewed == 1
    assert invoicing.find(anna, number).status == "cancelled"
    assert db.scalar("select status from bills where kind = 'service' order by id desc limit 1") == "paid"


def test_a_bill_cancelled_in_the_same_moment_is_not_paid(anna, monkeypatch):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3)
    with on(date(2026, 4, 10)):
        services.renew_due()
        number = next(service.waiting for service in services.of_customer(anna) if service.waiting)
        fund(anna, 100_00)
        with db.transaction():
            claimed = db.rows(services._CLAIM_DUE, customers=[anna], on=date(2026, 4, 10), months=None)
        invoicing.cancel(anna, number)
        read = db.rows
        monkeypatch.setattr(db, "rows", lambda sql, **params: claimed if sql == services._CLAIM_DUE else read(sql, **params))
        assert services.renew_due().renewed == 0
        monkeypatch.undo()
        assert services.renew_due().renewed == 1
    assert invoicing.find(anna, number).status == "cancelled"


# What fell behind


def test_all_begun_periods_are_one_sum_before_and_after_the_top_up(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "vps-4", 3, label="big", auto_renew=False)
    left = balance(anna)
    for day in (date(2026, 4, 10), date(2026, 7, 19)):
        with on(day):
            services.renew_due()
    with on(date(2026, 7, 19)):
        ahead = services.runway(anna)
        (arrear,) = ahead.arrears
        assert (arrear.since, arrear.periods, arrear.cost) == (date(2026, 4, 10), 4, EUR("95.20"))
        assert ahead.missing == Money(95_20 - left, "EUR")
        fund(anna, ahead.missing.minor)
        assert services.renew_due() == Run(renewed=4), "in one go"
        assert balance(anna) == 0
        assert services.runway(anna).arrears == ()
        assert services.renew_due() == Run()
    (web,) = [service for service in services.of_customer(anna) if service.label == "web-1"]
    assert web.paid_through == date(2026, 8, 9)
    renewed = [letter for letter in mail.newest(50) if letter.kind == "renewed" and "4" in letter.subject]
    assert len(renewed) == 1, "one mail about all of them"


def test_what_is_paid_of_the_arrears_leaves_the_rest_as_one_sum(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "vps-4", 3, label="big", auto_renew=False)
    with on(date(2026, 7, 19)):
        services.renew_due()
        fund(anna, 2 * 23_80 - balance(anna) + 1_00)
        assert services.renew_due() == Run(renewed=2, short=1)
        ahead = services.runway(anna)
        (arrear,) = ahead.arrears
        assert (arrear.since, arrear.periods, arrear.cost) == (date(2026, 6, 10), 2, EUR("47.60"))
        assert ahead.missing == EUR("46.60"), "one euro of it is there"


@pytest.mark.parametrize(("gateway", "reminders"), [("stripe", 0), ("bank", 1)])
def test_no_reminder_asks_for_money_that_is_on_its_way(anna, vandal, gateway, reminders):
    """What a processor has is not asked for again; a transfer that was only announced is."""
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "vps-4", 3, label="big", auto_renew=False)
    with on(date(2026, 4, 10)):
        services.renew_due()
        payments.start(anna, db.scalar("select proforma_number from bills where status = 'unpaid'"), "bank-transfer")
        vandal.execute("update payments set gateway = %s where state = 'pending'", (gateway,))
    with on(date(2026, 4, 10) + timedelta(services.REMINDED_DAYS[0])):
        assert services.remind() == reminders
    assert len([each for each in mail.newest(20) if each.kind == "arrears"]) == reminders


def test_reminders_follow_the_schedule_and_name_the_whole_sum(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "vps-4", 3, label="big", auto_renew=False)
    written = {}
    for days in range(110):
        day = date(2026, 4, 10) + timedelta(days)
        with on(day):
            services.renew_due()
            services.remind()
            services.remind()
            found = [each for each in mail.newest(200) if each.kind in ("arrears", "renewal_short")]
            if len(found) > len(written):
                written[days] = found[0]
    assert list(written) == [0, *services.REMINDED_DAYS]
    assert [letter.kind for letter in written.values()] == ["renewal_short", *["arrears"] * 5]
    assert "€\u00a095.20" in written[106].subject
    assert f"Add €\u00a0{(95_20 - balance(anna)) / 100:.2f}" in written[106].text
    assert "August 8, 2026" in written[106].text, "the day on which it ends"


def test_what_one_needs_to_add_is_what_the_day_lacks(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "vps-4", 1, label="web-2")
        services.order(anna, "ip", 1, label="ip-1")
        left = balance(anna)
        with db.transaction():
            db.execute("update services set months = 3")
        with on(date(2026, 4, 1)):
            ahead = services.runway(anna)
    assert (ahead.short_on, ahead.short_count) == (date(2026, 4, 10), 2), "the address has no price for three months"
    assert ahead.missing == Money(2 * 67_83 - left, "EUR")


def test_a_service_whose_price_is_gone_is_named_and_stops_no_other(anna, caplog):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
        services.order(anna, "ip", 1, label="ip-1")
        with db.transaction():
            db.execute("delete from prices where months = 1 and net = 2000")
        ahead = services.runway(anna)
    assert [service.label for service in ahead.unpriced] == ["web-1"]
    with on(date(2026, 4, 10)):
        assert services.renew_due() == Run(renewed=1, failed=1)
    assert "has no price for 1 months in EUR" in caplog.text


# A raised price


def test_a_raised_price_is_told_and_holds_only_for_renewals_after_the_notice(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="web-1")
    with on(date(2026, 4, 5)):
        services.set_plan("vps-4", "vps", "VPS NVMe-4", {("EUR", 1): 40_00})
        (letter,) = [letter for letter in mail.newest(9) if letter.kind == "price_raised"]
        assert "May 5, 2026" in letter.subject
        assert "web-1 (VPS NVMe-4): €\u00a047.60 instead of €\u00a023.80." in letter.text
        (web,) = services.of_customer(anna)
        assert (web.price, web.listed, web.dearer_from) == (EUR("23.80"), EUR("47.60"), date(2026, 5, 5))
        assert [each.price for each in services.upcoming(anna, 35)] == [EUR("23.80"), EUR("47.60")]
    with on(date(2026, 4, 10)):
        services.renew_due()
    assert balance(anna) == 100_00 - 2 * 23_80, "at the old price, five days after it was told"
    with on(date(2026, 5, 10)):
        services.renew_due()
    assert balance(anna) == 100_00 - 2 * 23_80 - 47_60


def test_a_price_raised_twice_keeps_each_for_its_time_and_one_that_falls_holds_at_once(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1)
    with on(date(2026, 4, 5)):
        services.set_plan("vps-4", "vps", "VPS NVMe-4", {("EUR", 1): 40_00})
    with on(date(2026, 4, 20)):
        services.set_plan("vps-4", "vps", "VPS NVMe-4", {("EUR", 1): 50_00})
        (web,) = services.of_customer(anna)
        assert web.price_on(date(2026, 5, 4)) == EUR("23.80")
    with on(date(2026, 4, 10)):
        services.renew_due()
        (web,) = services.of_customer(anna)
        assert (web.renews_on, web.price) == (date(2026, 5, 10), EUR("47.60")), "the first notice is over"
    with on(date(2026, 4, 21)):
        services.set_plan("vps-4", "vps", "VPS NVMe-4", {("EUR", 1): 10_00})
        assert services.of_customer(anna)[0].price == EUR("11.90")
    assert len([letter for letter in mail.newest(20) if letter.kind == "price_raised"]) == 2


# The end of what nobody pays for


def test_a_service_without_auto_renew_ends_once_no_bill_for_going_on_is_open(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, label="by-hand", auto_renew=False)
    with on(date(2026, 4, 1)):
        services.bill_ahead()
        number = services.of_customer(anna)[0].waiting
    with on(date(2026, 4, 10)):
        assert services.end_unpaid() == 0, "its bill can still be paid"
        invoicing.cancel(anna, number)
        assert services.end_unpaid() == 1
        assert services.end_unpaid() == 0
    (ended,) = services.of_customer(anna)
    assert (ended.status, ended.paid_through) == ("terminated", date(2026, 4, 9))
    assert [letter.subject for letter in mail.newest(9) if letter.kind == "service_ended"] == ["by-hand has ended"]


def test_a_service_does_not_end_on_its_last_paid_day(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1, auto_renew=False)
    with on(date(2026, 4, 9)):
        assert services.end_unpaid() == 0


def test_a_service_that_renews_by_itself_ends_after_its_reminders_and_its_bill_with_it(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3)
    with on(date(2026, 4, 10)):
        services.renew_due()
        number = next(service.waiting for service in services.of_customer(anna) if service.waiting)
    with on(date(2026, 4, 9) + timedelta(services.ENDS_UNPAID_DAYS)):
        assert services.end_unpaid() == 0
    with on(date(2026, 4, 10) + timedelta(services.ENDS_UNPAID_DAYS)):
        assert services.end_unpaid() == 1
    assert invoicing.find(anna, number).status == "cancelled"
    assert [service.status for service in services.of_customer(anna)].count("terminated") == 1


def test_a_bill_of_a_renewal_that_expired_is_made_again(anna):
    with on(date(2026, 3, 10)):
        services.order(anna, "vps-4", 1)
        services.order(anna, "vps-4", 3, auto_renew=False)
    with on(date(2026, 4, 10)):
        services.renew_due()
        first = next(service.waiting for service in services.of_customer(anna) if service.waiting)
    with on(date(2026, 5, 30)):
        assert invoicing.expire_due() == 1
        assert [service.waiting for service in services.of_customer(anna)] == [None, None]
        services.renew_due()
        second = next(service.waiting for service in services.of_customer(anna) if service.waiting)
    assert second != first
    assert len([letter for letter in mail.newest(20) if letter.kind == "renewal_short"]) == 1


def test_who_cancelled_the_bill_of_the_next_period_can_have_another(anna):
    with on(date(2026, 3, 10)):
        service = services.order(anna, "vps-4", 1, auto_renew=False)
        with pytest.raises(services.ServiceError, match="10 days"):
            services.bill_now(anna, service.public_id)
    with on(date(2026, 4, 1)):
        services.bill_ahead()
        number = services.of_customer(anna)[0].waiting
        assert services.bill_now(anna, service.public_id) == number, "the open one"
        invoicing.cancel(anna, number)
        again = services.bill_now(anna, service.public_id)
    assert again != number
    assert services.of_customer(anna)[0].waiting == again
    with pytest.raises(LookupError):
        services.bill_now(customer("other"), service.public_id)
