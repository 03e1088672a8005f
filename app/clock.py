"""The one clock. Every time in the house is UTC and comes from here, so history can be written, and tested, by the same verbs as today."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta

_shift: ContextVar[timedelta] = ContextVar("clock_shift", default=timedelta())


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return machine() + _shift.get()


def machine() -> datetime:
    """What the clock of this machine says, wherever `travel` went; aware, in UTC."""
    return datetime.now(UTC)


def today() -> date:
    """The current date in UTC."""
    return now().date()


@contextmanager
def travel(to: datetime) -> Iterator[None]:
    """Let the clock read ``to`` (aware) and tick on from there inside the block."""
    token = _shift.set(to - datetime.now(UTC))
    try:
        yield
    finally:
        _shift.reset(token)
