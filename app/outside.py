"""Calls to other machines: each ends within a time of its own, however steadily the other side drips.

A time-out of a socket begins anew with every byte. So a timer shuts the connection of a call down
when the whole of it has taken too long, and the call ends with `TimeIsUp`. What a browser waits for
has one budget for all its calls, and only so many pages of a process may wait for other machines at
a time, so that the others stay fast.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PAGE_S: Final = 7.0
"""Seconds that all the calls for one page may take together."""
LEAST_S: Final = 0.5
"""With less than this left, no other try is worth beginning."""


class TimeIsUp(TimeoutError):
    """A call that was cut off, or not begun, because its time is over. The outcome is unknown."""


class Page:
    """A page that is being made: when its time for calls is up, and whether it has a seat."""

    def __init__(self, seats: threading.Semaphore) -> None:
        self.until = time.monotonic() + PAGE_S
        self._seats = seats
        self._seated = False

    def sit(self) -> bool:
        """Take one of the seats for pages that wait for other machines, for the rest of the page."""
        self._seated = self._seated or self._seats.acquire(blocking=False)
        return self._seated

    def end(self) -> None:
        """Give the seat back."""
        if self._seated:
            self._seats.release()
        self._seated = False


class Call:
    """One call that is under way, and the connections it uses."""

    def __init__(self) -> None:
        self.over = False
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []

    def watch(self, line: socket.socket) -> None:
        """Shut this connection down when the time is up.

        A second name of the same connection is kept: TLS takes the first one over.
        """
        with self._lock:
            twin = socket.socket(fileno=os.dup(line.fileno()))
            self._lines.append(twin)
            if self.over:
                _shut(twin)

    def cut(self) -> None:
        """The time is up."""
        with self._lock:
            self.over = True
            for line in self._lines:
                _shut(line)

    def let_go(self) -> None:
        """The call has ended; its connections go on without us."""
        with self._lock:
            for line in self._lines:
                line.close()
            self._lines.clear()


_page: ContextVar[Page | None] = ContextVar("page_that_waits", default=None)
_call: ContextVar[Call | None] = ContextVar("call_outside", default=None)


def begin_page(seats: threading.Semaphore) -> None:
    """From here on a browser waits; at most so many pages as there are seats may call outside."""
    end_page()
    _page.set(Page(seats))


def end_page() -> None:
    """The browser has its answer."""
    page = _page.get()
    if page is not None:
        page.end()
        _page.set(None)


def admitted() -> bool:
    """Whether this may call outside now: always where no browser waits."""
    page = _page.get()
    return page is None or page.sit()


def remaining() -> float | None:
    """Seconds that the calls of this page have left; None where no browser waits."""
    page = _page.get()
    return None if page is None else page.until - time.monotonic()


def may_try_again() -> bool:
    """Whether there is time for another try."""
    left = remaining()
    return left is None or left > LEAST_S


@contextmanager
def call(longest_s: float) -> Iterator[None]:
    """Around one call: it ends within so many seconds, or sooner where a browser waits.

    Raises TimeIsUp when it was cut off or there is no time left to begin it.
    """
    left = remaining()
    seconds = longest_s if left is None else min(longest_s, left)
    if seconds <= 0:
        raise TimeIsUp(f"no time is left of the {PAGE_S:g} seconds a page may wait")
    this = Call()
    timer = threading.Timer(seconds, this.cut)
    timer.daemon = True
    token = _call.set(this)
    timer.start()
    try:
        yield
    except Exception as error:
        if this.over:
            raise TimeIsUp(f"no whole answer after {seconds:.1f} seconds") from error
        raise
    else:
        if this.over:
            raise TimeIsUp(f"no whole answer after {seconds:.1f} seconds")
    finally:
        timer.cancel()
        _call.reset(token)
        this.let_go()


def watch(line: socket.socket | None) -> None:
    """Let the call that is under way cut this connection; nothing without one."""
    this = _call.get()
    if this is not None and line is not None:
        this.watch(line)


def _shut(line: socket.socket) -> None:
    with suppress(OSError):  # the other side was quicker
        line.shutdown(socket.SHUT_RDWR)


class _Http(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        line = super()._new_conn()
        watch(line)
        return line

    def request(self, *args: Any, **kwargs: Any) -> None:
        """One request; on a connection that stands already, too, it can be cut off."""
        if self.sock is not None:
            watch(self.sock)
        super().request(*args, **kwargs)


class _Https(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        line = super()._new_conn()
        watch(line)
        return line

    def request(self, *args: Any, **kwargs: Any) -> None:
        """One request; on a connection that stands already, too, it can be cut off."""
        if self.sock is not None:
            watch(self.sock)
        super().request(*args, **kwargs)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


def watched(pool: urllib3.PoolManager) -> urllib3.PoolManager:
    """A pool whose connections end with the calls they are used for."""
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool
