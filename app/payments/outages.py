"""Processors in trouble: who gives no answer is left alone for a while, what is wrong with our settings is told, and both heal by themselves.

Every call to a processor stands in `asking`. It is written down in the database, because the jobs and each of the web server's processes would
otherwise have to wait for the same silence to learn of it, and because the operator reads it there.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from app import clock, db, gateways
from app.gateways.base import GatewayError, Method, Misconfigured, NoAnswer, NotNow

log = logging.getLogger(__name__)

Verb = Literal["checkout", "lookup", "refund", "charge", "keep", "forget"]

ENOUGH: Final = 3
"""So many different questions in a row without an answer are an outage; one question alone, however often asked, may be at fault itself."""
FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(minutes=10)
"""How long it is left alone, twice as long each time; then one call may try."""
PROBE: Final = timedelta(minutes=1)
"""How long the others wait for the one call that tries."""
NOT_AVAILABLE: Final = "The processor does not answer at the moment"


UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading an answer of another shape than any we know comes to: it is none."""


class LeftAlone(NotNow):
    """The processor has given no answer for some time and is not asked at the moment."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What is wrong with one processor: `verb` is what it does not let us do, nothing where it gives no answer at all. `until` is how long it is left alone."""

    gateway: str
    verb: str
    since: datetime
    last_at: datetime
    until: datetime
    detail: str


@contextmanager
def asking(gateway: str, verb: Verb, about: str) -> Iterator[None]:
    """Around a call to a processor about one thing. Raises LeftAlone instead while it is left alone. Opens transactions, but for the silent and the barred only."""
    troubled = _admit(gateway, verb)
    try:
        yield
    except NoAnswer as error:
        _note_silence(gateway, about, error.detail)
        raise
    except Misconfigured as error:
        log.error("%s does not let us %s (%s): %s", gateway, verb, about, error.detail)  # noqa: TRY400 - the sentence says it all
        _note_refusal(gateway, verb, error.detail)
        raise
    except GatewayError:
        if troubled:
            _heal(gateway, verb)
        raise
    except UNREADABLE as error:
        log.exception("An answer of %s about %s cannot be read.", gateway, about)
        _note_silence(gateway, about, repr(error))
        raise NoAnswer(f"{gateway}: {error!r}") from error
    if troubled:
        _heal(gateway, verb)


def left_alone() -> frozenset[str]:
    """The gateways that are not asked now."""
    return frozenset(row.gateway for row in db.rows(_LEFT_ALONE, enough=ENOUGH, now=clock.now()))


def refuse_left_alone(gateway: str) -> None:
    """Raises LeftAlone for a gateway that is not asked now: before something is written down as being on its way."""
    if gateway in left_alone():
        raise _left_alone(gateway)


def judged(methods: Sequence[Method]) -> list[Method]:
    """The methods, those of a processor that is left alone as not available, the ones that work first."""
    silent = left_alone()
    told = [replace(one, unavailable=NOT_AVAILABLE, limit=None) if one.gateway in silent and not one.unavailable else one for one in methods]
    return sorted(told, key=lambda method: bool(method.unavailable))


def known() -> list[Outage]:
    """What is wrong with which configured processor now, for the operator; a few questions without an answer are no outage yet."""
    return [Outage(*row) for row in db.rows(_OUTAGES, enough=ENOUGH) if gateways.get(row.gateway)]


def ask_again() -> None:
    """Leave nobody alone any longer: an operator wants to know. The next call to each tries. Opens the transaction."""
    with db.transaction():
        db.execute("update outages set until = %(now)s where until > %(now)s", now=clock.now())


def _admit(gateway: str, verb: str) -> bool:
    """Whether there is trouble that an answer would end."""
    found = db.rows(_TROUBLE, gateway=gateway, verb=verb, enough=ENOUGH)
    if any(row.silent and not _may_try(gateway, row.until) for row in found):
        raise _left_alone(gateway)
    return bool(found)


def _may_try(gateway: str, until: datetime) -> bool:
    """Whether this is the one call that tries whether the processor answers again."""
    if until > clock.now():
        return False
    with db.transaction():
        return db.execute(_TRY, gateway=gateway, now=clock.now(), until=clock.now() + PROBE) == 1


def _left_alone(gateway: str) -> LeftAlone:
    return LeftAlone(f"{NOT_AVAILABLE}. Choose another method, or try again in a few minutes.", detail=f"{gateway} is left alone")


def _note_silence(gateway: str, about: str, detail: str) -> None:
    with db.transaction():
        row = db.rows(_SILENT, gateway=gateway, about=about[:100], detail=detail[:500], now=clock.now())[0]
        if len(row.unheard) >= ENOUGH:
            pause = min(FIRST_PAUSE * 2 ** min(row.pauses, 10), LONGEST_PAUSE)
            db.execute("update outages set until = %(until)s, pauses = pauses + 1 where gateway = %(gateway)s and verb = ''", gateway=gateway, until=clock.now() + pause)
            log.error("%s gives no answer since %s and is left alone for %s: %s", gateway, row.since, pause, detail)


def _note_refusal(gateway: str, verb: str, detail: str) -> None:
    """It answers, but not to us."""
    with db.transaction():
        db.execute("delete from outages where gateway = %(gateway)s and verb = ''", gateway=gateway)
        db.execute(_BARRED, gateway=gateway, verb=verb, detail=detail[:500], now=clock.now())


def _heal(gateway: str, verb: str) -> None:
    with db.transaction():
        db.execute("delete from outages where gateway = %(gateway)s and verb in ('', %(verb)s)", gateway=gateway, verb=verb)


_TROUBLE = "select verb = '' and cardinality(unheard) >= %(enough)s as silent, until from outages where gateway = %(gateway)s and verb in ('', %(verb)s)"
_TRY = "update outages set until = %(until)s where gateway = %(gateway)s and verb = '' and until <= %(now)s"
_LEFT_ALONE = "select gateway from outages where verb = '' and cardinality(unheard) >= %(enough)s and until > %(now)s"
_OUTAGES = """
select gateway, verb, since, last_at, until, detail from outages where verb <> '' or cardinality(unheard) >= %(enough)s order by since
"""
# One that was asked about before is not counted twice. No more of them are kept than are needed to tell.
_SILENT = """
insert into outages as o (gateway, verb, since, last_at, until, unheard, detail) values (%(gateway)s, '', %(now)s, %(now)s, %(now)s, array[%(about)s], %(detail)s)
on conflict (gateway, verb) do update set last_at = excluded.last_at, detail = excluded.detail,
  unheard = case when %(about)s = any(o.unheard) or cardinality(o.unheard) >= 10 then o.unheard else o.unheard || %(about)s end
returning *
"""
_BARRED = """
insert into outages (gateway, verb, since, last_at, until, detail) values (%(gateway)s, %(verb)s, %(now)s, %(now)s, %(now)s, %(detail)s)
on conflict (gateway, verb) do update set last_at = excluded.last_at, detail = excluded.detail
"""
