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

from app import clock, db, gateways, outside
from app.gateways.base import UNREADABLE, GatewayError, Method, Misconfigured, NoAnswer, NotNow, Unread, UnreadableAnswer, place_of

log = logging.getLogger(__name__)

Verb = Literal["checkout", "lookup", "refund", "charge", "keep", "forget", "close"]

ENOUGH: Final = 3
"""So many different questions in a row without an answer are an outage; one question alone, however often asked, may be at fault itself."""
FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(minutes=10)
"""How long it is left alone, twice as long each time; then one call may try."""
PROBE: Final = timedelta(minutes=1)
"""How long the others wait for the one call that tries."""
BUSY: Final = "The processor answers slowly at the moment. Nothing was charged; try again in a minute."
NOT_AVAILABLE: Final = "The processor does not answer at the moment"

UNPROVEN_ENOUGH: Final = 5
"""So many webhooks without a valid signature, and no valid one among them, are worth a look at the secret."""
WEBHOOKS: Final = "webhooks"


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


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An answer, or a part of one, that we cannot read: what was asked (or the part), about what, of which payment (its public id), and the path of the key."""

    gateway: str
    kind: str
    about: str
    payment: str | None
    path: str
    since: datetime
    last_at: datetime
    seen: int


@contextmanager
def asking(gateway: str, verb: Verb, about: str) -> Iterator[None]:
    """Around a call to a processor about one thing. Raises LeftAlone instead while it is left alone. Opens transactions, but for the silent and the barred only."""
    troubled, unread_before = _admit(gateway, verb, about)
    try:
        yield
    except UnreadableAnswer as error:
        _park(gateway, verb, about, error, troubled=troubled)
        raise
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
        unread = UnreadableAnswer(place_of(error))
        _park(gateway, verb, about, unread, troubled=troubled)
        raise unread from None
    if troubled:
        _heal(gateway, verb)
    if unread_before:
        with db.transaction():
            db.execute(_READ_AT_LAST, gateway=gateway, verb=verb, about=about)


def _park(gateway: str, verb: str, about: str, error: UnreadableAnswer, *, troubled: bool) -> None:
    """Write down what cannot be read, for a person. The processor did answer, so it is in no trouble, and nothing else of it waits."""
    log.error("An answer of %s (%s %s) cannot be read: %s", gateway, verb, about, error.path)
    if troubled:
        _heal(gateway, verb)
    with db.transaction():
        db.execute(_UNREAD, gateway=gateway, kind=verb, about=about, payment=None, path=error.path, now=clock.now())


def note_unread(gateway: str, payment_id: int, parts: Sequence[Unread]) -> None:
    """Of a payment whose answer could be read: write down the parts that could not, and forget those that now can. Within a transaction."""
    db.execute(_PAYMENT_READ, payment=payment_id, still=[part.reference for part in parts])
    for part in parts:
        log.error("A part of an answer of %s (%s %s) cannot be read: %s", gateway, part.kind, part.reference, part.path)
        db.execute(_UNREAD, gateway=gateway, kind=part.kind, about=part.reference, payment=payment_id, path=part.path, now=clock.now())


def note_found(gateway: str, about: str) -> None:
    """What became of something is known: whatever answer about it could not be read is of no interest any more. Within a transaction."""
    db.execute(_FOUND, gateway=gateway, about=about)


def unreadable() -> list[Unreadable]:
    """Every answer that waits for a person because we cannot read it, the oldest first."""
    return [Unreadable(*row) for row in db.rows(_ALL_UNREAD)]


def note_unproven(gateway: str) -> None:
    """Count a webhook without a valid signature. Opens the transaction."""
    with db.transaction():
        (row,) = db.rows(_UNPROVEN, gateway=gateway, now=clock.now())
    if row.number == UNPROVEN_ENOUGH:
        log.error("%s webhooks of %s came without a valid signature since %s, and none with one: is the secret of its webhooks right?", row.number, gateway, row.since)


def note_proven(gateway: str) -> None:
    """A webhook with a valid signature came: the secret is right. Within a transaction; writes nothing where there were no others."""
    db.execute("delete from unproven_webhooks where gateway = %(gateway)s", gateway=gateway)


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
    """What is wrong with which configured processor now, for the operator; a few questions without an answer are no outage yet.

    With `verb` WEBHOOKS its webhooks came without a valid signature, `detail` says how many.
    """
    found = db.rows(_OUTAGES, enough=ENOUGH) + db.rows(_UNPROVEN_NOW, verb=WEBHOOKS, enough=UNPROVEN_ENOUGH)
    return [Outage(*row) for row in found if gateways.get(row.gateway)]


def ask_again() -> None:
    """Leave nobody alone any longer: an operator wants to know. The next call to each tries. Opens the transaction."""
    with db.transaction():
        db.execute("update outages set until = %(now)s where until > %(now)s", now=clock.now())


def _admit(gateway: str, verb: str, about: str) -> tuple[bool, bool]:
    """Whether there is trouble that an answer would end, and whether the last answer to the same question could not be read."""
    if not outside.admitted():
        raise LeftAlone(BUSY, detail=f"{gateway}: as many pages as may wait for processors do")
    found = db.rows(_TROUBLE, gateway=gateway, verb=verb, about=about, enough=ENOUGH)
    if any(row.silent and not _may_try(gateway, row.until) for row in found):
        raise _left_alone(gateway)
    return any(not row.unread for row in found), any(row.unread for row in found)


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


_TROUBLE = """
select verb = '' and cardinality(unheard) >= %(enough)s as silent, until, false as unread from outages
where gateway = %(gateway)s and verb in ('', %(verb)s)
union all
select false, last_at, true from unreadable_answers
where gateway = %(gateway)s and about = %(about)s and (kind = %(verb)s or %(verb)s = 'lookup')
"""
# What a look-up can read of a page or a charge settles what its own answer did not say; a refund is settled only by being found.
_READ_AT_LAST = """
delete from unreadable_answers
where gateway = %(gateway)s and about = %(about)s
  and (kind = %(verb)s or (%(verb)s = 'lookup' and kind in ('checkout', 'charge', 'keep')))
"""
_FOUND = "delete from unreadable_answers where gateway = %(gateway)s and about = %(about)s"
_PAYMENT_READ = """
delete from unreadable_answers
where payment_id = %(payment)s
  and kind in ('lookup', 'listed_refund', 'dispute', 'card', 'fee', 'detail')
  and about <> all(%(still)s)
"""
_UNREAD = """
insert into unreadable_answers as u (gateway, kind, about, payment_id, path, since, last_at)
values (
  %(gateway)s, %(kind)s, %(about)s,
  coalesce(
    %(payment)s,
    (select id from payments where public_id = %(about)s or (gateway = %(gateway)s and gateway_reference = %(about)s) limit 1),
    (select payment_id from refunds where number = %(about)s),
    (select payment_id from held where number = %(about)s)
  ),
  %(path)s, %(now)s, %(now)s
)
on conflict (gateway, kind, about) do update set last_at = excluded.last_at, path = excluded.path, seen = u.seen + 1
"""
_ALL_UNREAD = """
select u.gateway, u.kind, u.about, p.public_id, u.path, u.since, u.last_at, u.seen
from unreadable_answers u
left join payments p on p.id = u.payment_id
order by u.since, u.id
"""
_UNPROVEN = """
insert into unproven_webhooks as u (gateway, number, since, last_at)
values (%(gateway)s, 1, %(now)s, %(now)s)
on conflict (gateway) do update set number = u.number + 1, last_at = excluded.last_at
returning number, since
"""
_UNPROVEN_NOW = """
select gateway, %(verb)s as verb, since, last_at, last_at as until, number::text as detail
from unproven_webhooks
where number >= %(enough)s
order by since
"""
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
