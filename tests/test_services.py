"""Services: the calendar of periods, orders, renewals exactly once, and the runway."""

from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app import services
from app.money import Money
from app.services import DAY, Fund, Service

EUR = lambda text: Money.of(text, "EUR")

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
