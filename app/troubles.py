"""What is out of order and lasts: written down once when it begins and taken away when it is over.

The jobs and each web process tell the same table, so that a line of the log, a metric and the start
page of support say the same, once for each change and not once for each try.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from app import clock, db

log = logging.getLogger(__name__)

Code = Literal["mail_server", "clock"]
CODES: Final[tuple[Code, ...]] = ("mail_server", "clock")
LONGEST_DETAIL: Final = 500
AGAIN: Final = timedelta(minutes=1)

_NOTE: Final = """
insert into troubles (code, since, last_at, detail)
values (%(code)s, %(now)s, %(now)s, %(detail)s)
on conflict (code) do update
set last_at = excluded.last_at, detail = excluded.detail
returning since = last_at as new
"""
_OVER: Final = "delete from troubles where code = %(code)s returning since"
_KNOWN: Final = "select code, since, last_at, detail from troubles order by since, code"
_ONE: Final = "select code, since, last_at, detail from troubles where code = %(code)s"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is out of order since when, and what was said of it last."""

    code: str
    since: datetime
    last_at: datetime
    detail: str


def note(code: Code, detail: str, *, at: datetime | None = None) -> bool:
    """Write down that this is out of order; True, and a line in the log, when it was not before.

    `at` is the time where our own clock is not to be believed. Opens the transaction, but at most
    once a minute for what is known.
    """
    now = at or clock.now()
    known = find(code)
    if known and now - known.last_at < AGAIN:
        return False
    with db.transaction():
        found = db.row(_NOTE, code=code, now=now, detail=detail[:LONGEST_DETAIL])
    new = bool(found and found.new)
    if new:
        log.error("Out of order (%s): %s", code, detail)
    return new


def over(code: Code) -> bool:
    """It is in order again; True, and a line in the log, when it was not before. Opens a transaction then alone."""
    if find(code) is None:
        return False
    with db.transaction():
        found = db.row(_OVER, code=code)
    if found:
        log.warning("In order again (%s), after it was not since %s", code, found.since)
    return found is not None


def find(code: Code) -> Trouble | None:
    """One of them, if it lasts."""
    row = db.row(_ONE, code=code)
    return Trouble(*row) if row else None


def known() -> list[Trouble]:
    """All that lasts, the oldest first."""
    return [Trouble(*row) for row in db.rows(_KNOWN)]
