"""The calendar of TARGET, the euro's payment system: the days on which the ECB publishes rates."""

from datetime import date, timedelta
from functools import lru_cache


def business_days(after: date, until: date) -> int:
    """How many TARGET business days lie after one date and until another, the latter included; none if it is earlier."""
    days = (after + timedelta(days=n) for n in range(1, (until - after).days + 1))
    return sum(is_business_day(day) for day in days)


def is_business_day(day: date) -> bool:
    """Whether TARGET is open, and the ECB publishes rates: not on weekends and six closing days a year."""
    return day.weekday() < 5 and day not in _closing_days(day.year)


@lru_cache(maxsize=64)
def _closing_days(year: int) -> frozenset[date]:
    easter = _easter(year)
    fixed = {date(year, month, day) for month, day in ((1, 1), (5, 1), (12, 25), (12, 26))}
    return frozenset(fixed | {easter - timedelta(days=2), easter + timedelta(days=1)})


def _easter(year: int) -> date:
    """Easter Sunday by the Gregorian rule (Meeus, Astronomical Algorithms, ch. 8)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
