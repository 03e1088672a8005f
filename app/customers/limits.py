"""Rate limits: counters in the database, shared by every worker.

A limit is counted over a sliding window, approximated from two fixed ones: what the last window held, weighted by how much of it still
overlaps, plus this one. A refused try is not counted, so nobody can keep a door shut by knocking.
"""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from app import clock, db, logs

LONG_MIN = 120
"""From so many minutes on a wait is told in hours."""
_COUNT = """
insert into rate_limits (key, window_start, count) values (%(key)s, %(start)s, 1)
on conflict (key, window_start) do update set count = rate_limits.count + 1
returning count, coalesce((select count from rate_limits where key = %(key)s and window_start = %(before)s), 0) as last
"""
_TAKE_BACK = "update rate_limits set count = count - 1 where key = %(key)s and window_start = %(start)s and count > 0"


class RateLimited(Exception):
    """Too many tries. ``retry_after_s`` says when the next one is welcome, ``wait`` the same in words."""

    def __init__(self, retry_after_s: int) -> None:
        self.wait = _duration(retry_after_s)
        self.retry_after_s = retry_after_s
        super().__init__(f"Too many tries. Please wait {self.wait} and try again.")


def allow(key: str, limit: int, window: timedelta) -> bool:
    """Count one try for ``key`` and say whether it is within ``limit`` per window. Within a transaction."""
    return retry_after(key, limit, window) == 0


def count(*rules: tuple[str, int, timedelta]) -> datetime:
    """Count one try against every rule (key, limit, window), against none when one refuses it; the time, for `give_back`. Raises `RateLimited`. Opens its own transaction."""
    at = clock.now()
    with db.transaction():
        waits = [_retry_after(*rule, at) for rule in rules]
        if any(waits):
            _uncount(at, (rule for rule, wait in zip(rules, waits, strict=True) if not wait))
    if any(waits):
        hit = next(key for (key, _, _), wait in zip(rules, waits, strict=True) if wait)
        logs.security("limit_hit", rule=_rule(hit), wait_s=max(waits))
        raise RateLimited(max(waits))
    return at


def give_back(counted_at: datetime, *rules: tuple[str, int, timedelta]) -> None:
    """Uncount a try that turned out to be a good one, where it was counted: the window may be over by now. Opens its own transaction."""
    with db.transaction():
        _uncount(counted_at, rules)


def _uncount(at: datetime, rules: Iterable[tuple[str, int, timedelta]]) -> None:
    for key, _, window in rules:
        db.execute(_TAKE_BACK, key=_clean(key), start=_start(window, at))


def retry_after(key: str, limit: int, window: timedelta) -> int:
    """Count one try; 0 when it is allowed, else the seconds to wait. Within a transaction."""
    return _retry_after(key, limit, window, clock.now())


def _retry_after(key: str, limit: int, window: timedelta, now: datetime) -> int:
    start = _start(window, now)
    here = {"key": _clean(key), "start": start, "before": start - window}
    found = db.rows(_COUNT, **here)[0]
    remaining = (start + window - now) / window
    if found.count + found.last * remaining <= limit:
        return 0
    db.execute(_TAKE_BACK, **here)
    return max(1, _wait(found.count - 1, found.last, limit, window, remaining))


def network(ip: str) -> str:
    """The network a single subscriber usually holds: /24 of IPv4, /56 of IPv6."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "unknown"
    bits = 24 if address.version == 4 else 56
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def _rule(key: str) -> str:
    """What is limited, without whose it is."""
    return key.partition(":")[0].rpartition(" ")[0] or key.partition(":")[0]


def _clean(key: str) -> str:
    return key[:200].replace("\0", "")


def _start(window: timedelta, at: datetime) -> datetime:
    seconds = int(window.total_seconds())
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)


def _wait(current: int, last: int, limit: int, window: timedelta, remaining: float) -> int:
    length = window.total_seconds()
    if current + 1 > limit:  # this window is full by itself: wait for the next one to have forgotten enough of it
        return int(length * (remaining + 1 - (limit - 1) / max(current, 1))) + 1
    return int(length * (remaining - (limit - current - 1) / last)) + 1


def _duration(seconds: int) -> str:
    minutes = -(-seconds // 60)
    if minutes > LONG_MIN:
        return f"{-(-minutes // 60)} hours"
    return "a minute" if minutes <= 1 else f"{minutes} minutes"
