"""What waits for support, and what is out of order in the whole installation.

The start page of support, the metrics and the warnings of the log say the same, because all of them
ask here. Codes and figures alone; the words are the page's.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app import clock, db, fx, payments, troubles

log = logging.getLogger(__name__)

LATE_S: Final = 60
"""Seconds after which a turn of a job that has not ended is named."""

WAITING: Final[dict[str, str]] = {
    "refunds": "/staff/refunds",
    "approvals": "/staff/refunds",
    "payouts": "/staff/refunds",
    "held": "/staff/held",
    "bank_lines": "/staff/bank",
    "bank_doubts": "/staff/bank",
    "bank_gaps": "/staff/bank",
    "disputes": "/staff/disputes",
    "vat_ids": "/staff/vat-ids",
}
"""What waits for a person, and the page where that is done."""

_WAITING: Final = """
select
  (select count(*) from refunds where state = 'requested') as refunds,
  (
    select count(distinct (a.subject, a.subject_id))
    from approvals a
    where a.withdrawn_at is null
    and (
      a.subject = 'refund'
      and exists (select from refunds where number = a.subject_id and state = 'requested')
      or a.subject = 'held'
      and exists (select from held where number = a.subject_id and state = 'held')
      or a.subject = 'bank_line'
      and exists (
        select from bank_lines where id::text = a.subject_id and state = 'suspense')
    )
  ) as approvals,
  (select count(*) from refunds where state = 'approved' or hindrance <> '') as payouts,
  (select count(*) from held where state = 'held') as held,
  (select count(*) from bank_lines where state = 'suspense') as bank_lines,
  (select count(*) from bank_doubts where state = 'open') as bank_doubts,
  (select count(*) from bank_gaps) as bank_gaps,
  (select count(*) from disputes where state in ('inquiry', 'open')) as disputes,
  (
    select count(*) from customers
    where kind = 'company'
      and vat_id_state in ('unverified', 'invalid')
      and closed_at is null
  ) as vat_ids
"""
_JOBS: Final = """
select name, ended_at, failed_since, failure,
  case when began_at > coalesce(ended_at, '-infinity') then began_at end as running_since,
  coalesce(greatest(began_at, ended_at), known_at)
    + make_interval(secs => greatest(3 * every_s, 300)) < %(now)s as overdue
from job_runs
order by name
"""
_UNPRICED: Final = """
select p.code as plan, c.currency, s.months, count(*) as number
from services s
join plans p on p.id = s.plan_id
join customers c on c.id = s.customer_id
where s.status = 'active' and s.auto_renew
and not exists (
  select from prices
  where plan_id = s.plan_id and currency = c.currency and months = s.months)
and not exists (
  select from agreed_prices
  where service_id = s.id and currency = c.currency and months = s.months)
and not exists (
  select from kept_prices
  where service_id = s.id and currency = c.currency and months = s.months
  and until > s.paid_through + 1)
group by 1, 2, 3
order by 1, 2, 3
"""
_REFUSED_MAILS: Final = "select count(*) from mails where refused_at is not null"


@dataclass(frozen=True, slots=True)
class JobState:
    """What a job did last. `running_since` is set while a turn is under way; `overdue` when it should have run since."""

    name: str
    ended_at: datetime | None
    running_since: datetime | None
    failed_since: datetime | None
    failure: str
    overdue: bool

    @property
    def late(self) -> bool:
        """Whether a turn takes longer than it should."""
        since = self.running_since
        return since is not None and clock.now() - since > timedelta(seconds=LATE_S)


@dataclass(frozen=True, slots=True)
class Disorder:
    """One thing that is out of order: a code, what it is about, since when where that is known, and what was said of it."""

    code: str
    about: str = ""
    since: datetime | None = None
    detail: str = ""


def waiting() -> dict[str, int]:
    """How much of each kind of `WAITING` waits for a person."""
    (row,) = db.rows(_WAITING)
    return {kind: int(getattr(row, kind)) for kind in WAITING}


def jobs() -> list[JobState]:
    """What each job did last, by name; nothing where none ever ran."""
    found = db.rows(_JOBS, now=clock.now())
    return [JobState(r.name, r.ended_at, r.running_since, r.failed_since, r.failure, r.overdue) for r in found]


def disorder() -> list[Disorder]:
    """Everything that is out of order now."""
    return [*_of_processors(), *_of_jobs(), *_of_troubles(), *_of_mails(), *_of_plans(), *_of_rates()]


def warn() -> str:
    """Name in the log what is out of order since the last time, and what is in order again."""
    now = {(one.code, one.about): one for one in disorder()}
    for key, one in now.items():
        if key not in _warned:
            log.warning("Out of order: %s %s %s", one.code, one.about, one.detail)
    for code, about in sorted(_warned - now.keys()):
        log.warning("In order again: %s %s", code, about)
    _warned.clear()
    _warned.update(now.keys())
    return ""


_warned: Final[set[tuple[str, str]]] = set()


def _of_processors() -> list[Disorder]:
    codes = {"": "no_answer", payments.outages.WEBHOOKS: "webhook_secret"}
    return [Disorder(codes.get(one.verb, "key_refused"), one.gateway, one.since, one.detail) for one in payments.outages.known()]


def _of_jobs() -> list[Disorder]:
    known = jobs()
    if not known:
        return [Disorder("jobs_never")]
    overdue = [one for one in known if one.overdue and not one.running_since]
    if len(overdue) == len(known):
        return [Disorder("jobs_stopped", since=max((one.ended_at for one in overdue if one.ended_at), default=None))]
    late = [Disorder("job_late", one.name, one.running_since) for one in known if one.late]
    failing = [Disorder("job_failing", one.name, one.failed_since, one.failure) for one in known if one.failed_since]
    return [*(Disorder("job_overdue", one.name, one.ended_at) for one in overdue), *late, *failing]


def _of_troubles() -> list[Disorder]:
    return [Disorder(one.code, since=one.since, detail=one.detail) for one in troubles.known()]


def _of_mails() -> list[Disorder]:
    number = db.scalar(_REFUSED_MAILS)
    return [Disorder("mail_refused", detail=str(number))] if number else []


def _of_plans() -> list[Disorder]:
    return [Disorder("plan_without_price", f"{row.plan} {row.currency} {row.months}", detail=str(row.number)) for row in db.rows(_UNPRICED)]


def _of_rates() -> list[Disorder]:
    newest = fx.newest_day()
    if newest is not None and fx.is_fresh(newest):
        return []
    return [Disorder("rates_missing", detail=newest.isoformat() if newest else "")]
