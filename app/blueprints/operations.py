"""For the machines around the house: is the process alive, may it get traffic, what does it measure."""

import hmac
import logging
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
from flask import Blueprint, Response, abort, current_app, request
from sqlalchemy.exc import SQLAlchemyError

import config
from app import clock, db, desk, guard, logs
from app.web import gate, proxies

log = logging.getLogger(__name__)
operations = Blueprint("operations", __name__)

PROTECTION_FOR_S = 60
_SPILL = """
select max(place)
from (
  select row_number() over (order by word) as place
  from (select md5(n::text) as word from generate_series(1, 6000) n) words
) places
"""
"""A sort of some 400 kB: with 64 kB of memory it goes to a file on the disk of the data."""
REVISION = re.compile(r'^revision = "(.+)"', re.MULTILINE)
FOLLOWED = re.compile(r'^down_revision = "(.+)"', re.MULTILINE)
GAUGES = (
    (
        "client_area_balance_minor",
        "Wallet balances owed to customers, in minor units",
        "currency",
        "select currency, sum(balance)::bigint from accounts where kind = 'wallet' group by 1 order by 1",
    ),
    ("client_area_bills", "Bills by state", "status", "select status, count(*) from bills group by 1 order by 1"),
    (
        "client_area_payments_open",
        "Payments without an end yet",
        "state",
        "select state, count(*) from payments where state in ('created', 'unknown', 'pending', 'review') group by 1 order by 1",
    ),
    (
        "client_area_webhooks_waiting",
        "Webhooks received and not yet worked",
        "state",
        "select state, count(*) from webhooks where state in ('new', 'parked') group by 1 order by 1",
    ),
    (
        "client_area_mails_waiting",
        "Mails not yet sent, and whether a try of it failed",
        "tried",
        "select case when tries > 0 then 'yes' else 'no' end, count(*) from mails where sent_at is null and refused_at is null group by 1 order by 1",
    ),
    ("client_area_mails_refused", "Mails a server refused for good, set aside", "", "select '', count(*) from mails where refused_at is not null"),
    (
        "client_area_bank_suspense_minor",
        "Bank transfers that wait for a person, in minor units",
        "currency",
        "select currency, sum(amount)::bigint from bank_lines where state = 'suspense' group by 1 order by 1",
    ),
    (
        "client_area_bank_suspense_oldest_days",
        "Days since the oldest of them was booked",
        "",
        "select '', coalesce(%(now)s::date - min(booked_on), 0) from bank_lines where state = 'suspense'",
    ),
    ("client_area_bank_gaps", "Statements that are missing between those that came", "", "select '', count(*) from bank_gaps"),
    (
        "client_area_processor_trouble",
        "Seconds since a processor gives no answer, or does not let us do something",
        "processor",
        "select gateway || case when verb <> '' then ' ' || verb else '' end as processor, extract(epoch from %(now)s - since)::bigint as seconds from outages where verb <> '' or pauses > 0 order by 1",
    ),
    (
        "client_area_answers_unreadable",
        "Answers of a processor, or parts of them, that cannot be read and wait for a person",
        "processor",
        "select gateway, count(*) from unreadable_answers group by 1 order by 1",
    ),
    (
        "client_area_webhooks_unproven",
        "Webhooks without a valid signature since the last one with one",
        "processor",
        "select gateway, number from unproven_webhooks order by 1",
    ),
    (
        "client_area_refunds_hindered",
        "Refunds and held money that a setting of ours keeps from leaving",
        "",
        "select '' as label, (select count(*) from refunds where hindrance <> '') + (select count(*) from held where hindrance <> '') as number",
    ),
    (
        "client_area_bank_difference_minor",
        "By how much the books hold more than the bank's statements say, in minor units",
        "account",
        "select account, sum(difference)::bigint from bank_differences group by 1 order by 1",
    ),
    ("client_area_bank_doubts", "Lines that may be money told twice, until a person says", "", "select '', count(*) from bank_doubts where state = 'open'"),
    ("client_area_services", "Services by state", "status", "select status, count(*) from services group by 1 order by 1"),
    (
        "client_area_services_without_price",
        "Services that cannot renew because their plan has no price in their owner's currency",
        "",
        """
        select '', count(*)
        from services s
        join customers c on c.id = s.customer_id
        where s.status = 'active'
          and s.auto_renew
          and not exists (
            select from prices p
            where p.plan_id = s.plan_id and p.currency = c.currency and p.months = s.months
          )
          and not exists (
            select from agreed_prices a
            where a.service_id = s.id and a.currency = c.currency and a.months = s.months
          )
        """,
    ),
    ("client_area_renewals_waiting", "Renewals that wait for money", "", "select '', count(*) from renewals where transfer_id is null"),
)


@operations.get("/healthz")
@gate.public
def healthz() -> Response:
    """Whether this process answers; asks nothing of anything else."""
    return _text("ok\n")


@operations.get("/readyz")
@gate.public
def readyz() -> Response:
    """Whether requests can be served: the database answers and its schema is not older than this program; else 503 with the reason.

    A newer schema is served: while a new version is put in, the nodes of the old one go on (what a migration takes away, it takes away one
    version later). A database whose history the app could change is refused where real money is taken. A processor in trouble takes no page
    out of service: it is named, to whoever may see the metrics.
    """
    try:
        found = db.scalar("select version_num from alembic_version")
    except psycopg.errors.UndefinedTable:
        found = None
    except (psycopg.Error, SQLAlchemyError):
        return _text("The database does not answer.\n", 503)
    if not _can_write():
        return _text("The database cannot write: its disk may be full.\n", 503)
    newest, known = _migrations()
    if found is None or (found in known and found != newest):
        return _text(f"The database stands at migration {found}, this program needs {newest}: run flask db upgrade.\n", 503)
    protection = _protection()
    if protection and guard.live(config.current()):
        return _text(f"The database is not protected.\n{_said(protection)}", 503)
    return _text("".join(["ready\n", _said(protection), *(_details(found, newest) if _may_see() else ())]))


def _can_write() -> bool:
    """Whether the server finds room on its disk: it is let sort more than it may keep in memory."""
    try:
        with db.snapshot(work_mem="64kB"):
            db.rows(_SPILL)
    except (psycopg.Error, SQLAlchemyError) as error:
        log.error("The database cannot write: %s", logs.summary(error))  # noqa: TRY400 - the sentence says it all
        return False
    return True


def _details(found: str, newest: str) -> Iterator[str]:
    if found != newest:
        yield f"The database stands at migration {found}, which is newer than this program's {newest}.\n"
    if advice := current_app.extensions["proxies"].advice():
        yield f"{advice}\n"
    for one in desk.disorder():
        since = f" since {one.since:%Y-%m-%dT%H:%MZ}" if one.since else ""
        yield f"{' '.join(word for word in (one.code, one.about) if word)}{since}\n"


@operations.get("/metrics")
@gate.public
def metrics() -> Response:
    """Gauges in the Prometheus text format, for this machine itself and for whoever brings METRICS_TOKEN."""
    if not _may_see():
        abort(404)
    return _text("".join([*_gauges(), *_disorder()]))


def _gauges() -> Iterator[str]:
    name = "client_area_database_unprotected"
    yield f"# HELP {name} Ways in which the app could change its history\n# TYPE {name} gauge\n"
    yield f"{name} {len(guard.findings())}\n"
    for name, says, label, sql in GAUGES:
        yield f"# HELP {name} {says}\n# TYPE {name} gauge\n"
        for value, number in db.rows(sql, now=clock.now()):
            yield f'{name}{{{label}="{value}"}} {number}\n' if label else f"{name} {number}\n"


def _disorder() -> Iterator[str]:
    name = "client_area_out_of_order"
    yield f"# HELP {name} What is out of order, as /staff names it\n# TYPE {name} gauge\n"
    for one in desk.disorder():
        yield f'{name}{{code="{one.code}",about="{one.about}"}} 1\n'
    name = "client_area_waiting"
    yield f"# HELP {name} What waits for a person of support\n# TYPE {name} gauge\n"
    for kind, number in desk.waiting().items():
        yield f'{name}{{kind="{kind}"}} {number}\n'
    name = "client_area_job_running_seconds"
    yield f"# HELP {name} Since when a turn of a job is under way\n# TYPE {name} gauge\n"
    for job in desk.jobs():
        if job.running_since:
            seconds = (clock.now() - job.running_since).total_seconds()
            yield f'{name}{{job="{job.name}"}} {seconds:.0f}\n'


def _may_see() -> bool:
    """Asked on the loopback and through no proxy, or with the token."""
    token = config.current().metrics_token
    given = request.headers.get("Authorization", "")
    if token and hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return True
    asking = proxies.read_address(request.remote_addr or "")
    here = asking is not None and asking.is_loopback
    return here and not request.environ.get(proxies.FORWARDED)


def _protection() -> list[guard.Finding]:
    """What is wrong with the guard, asked at most once a minute: probes come every second."""
    kept: tuple[float, list[guard.Finding]] | None = current_app.extensions.get("protection")
    if kept is None or time.monotonic() > kept[0]:
        kept = time.monotonic() + PROTECTION_FOR_S, guard.findings()
        current_app.extensions["protection"] = kept
    return kept[1]


def _said(protection: list[guard.Finding]) -> str:
    return "".join(f"unprotected: {one.what}\n" for one in (protection if _may_see() else ()))


@cache
def _migrations() -> tuple[str, frozenset[str]]:
    """This program's newest migration, and all it knows; read from their text, as loading Alembic costs every worker its memory."""
    folder = Path(__file__).parents[2] / "migrations" / "versions"
    texts = [file.read_text() for file in folder.glob("*.py")]
    known, followed = (frozenset(match[1] for text in texts for match in line.finditer(text)) for line in (REVISION, FOLLOWED))
    (newest,) = known - followed
    return newest, known


def _text(body: str, status: int = 200) -> Response:
    return Response(body, status, mimetype="text/plain", headers={"Cache-Control": "no-store"})
