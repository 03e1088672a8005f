"""The one clock. Moments are UTC, days are days of the seller's legal zone (`SELLER_TIMEZONE`), and both come from here.

The legal zone decides the day and the year of documents, numbers, due dates, VAT rates and renewals. Readers see moments in their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import config

_shift: ContextVar[timedelta] = ContextVar("clock_shift", default=timedelta())


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return machine() + _shift.get()


def machine() -> datetime:
    """What the clock of this machine says, wherever `travel` went; aware, in UTC."""
    return datetime.now(UTC)


def zone() -> ZoneInfo:
    """The seller's legal zone."""
    return ZoneInfo(config.current().seller.timezone)


def today() -> date:
    """The current day in the legal zone."""
    return day_of(now())


def day_of(moment: datetime) -> date:
    """The legal day on which an aware moment falls."""
    return moment.astimezone(zone()).date()


def start_of(day: date) -> datetime:
    """The first moment of a legal day, in UTC, also where its midnight is skipped or comes twice."""
    return datetime.combine(day, time(), zone()).astimezone(UTC)


def end_of(day: date) -> datetime:
    """The last second of a legal day, in UTC."""
    return start_of(day + timedelta(days=1)) - timedelta(seconds=1)


@contextmanager
def travel(to: datetime) -> Iterator[None]:
    """Let the clock read ``to`` (aware) and tick on from there inside the block."""
    token = _shift.set(to - datetime.now(UTC))
    try:
        yield
    finally:
        _shift.reset(token)
