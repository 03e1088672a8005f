"""What a start says about the guard, and when it refuses."""

import logging

import config
from app import db
from app.guard.check import findings

log = logging.getLogger(__name__)


class Unprotected(Exception):
    """Real money would be kept where the app can change its history: a sentence."""


def live(settings: config.Settings) -> bool:
    """Whether an unprotected database is refused: wherever real money can move."""
    return bool(config.live(settings))


def at_start(*, live: bool) -> None:
    """Warn of everything that leaves history open to change. Raises `Unprotected` when ``live``.

    A database that does not answer yet is readiness' affair. Leaves no connection behind, so that
    it may be called before a process forks.
    """
    try:
        found = findings()
    except db.UNREACHABLE:
        log.warning("The database does not answer, so nobody knows whether it is protected.")
        return
    finally:
        db.forget_connections()
    for finding in found:
        log.warning("The database is not protected: %s", finding.what)
    if found and live:
        more = f" And {len(found) - 1} more: flask database check." if len(found) > 1 else ""
        raise Unprotected(f"Real money needs a protected database. {found[0].what}{more}")
