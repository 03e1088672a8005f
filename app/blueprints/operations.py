"""For the machines around the house: is the process alive, may it get traffic, what does it measure."""

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import psycopg
from alembic.script import ScriptDirectory
from flask import Blueprint, Response, abort, request
from sqlalchemy.exc import SQLAlchemyError

from app import clock, db, payments
from app.web import gate

operations = Blueprint("operations", __name__)

PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
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
    """Whether requests can be served: the database answers and stands at this program's migration; else 503 with the reason.

    A processor in trouble takes no page out of service: it is named, on the loopback alone, and the answer stays 200.
    """
    try:
        found = db.scalar("select version_num from alembic_version")
    except psycopg.errors.UndefinedTable:
        found = None
    except (psycopg.Error, SQLAlchemyError):
        return _text("The database does not answer.\n", 503)
    if found != _newest_migration():
        return _text(f"The database stands at migration {found}, this program needs {_newest_migration()}: run flask db upgrade.\n", 503)
    return _text("ready\n" + "".join(f"{one.gateway}: {one.verb or 'no answer'} since {one.since:%Y-%m-%dT%H:%MZ}\n" for one in (payments.outages.known() if _local() else ())))


@operations.get("/metrics")
@gate.public
def metrics() -> Response:
    """Gauges in the Prometheus text format; answered on the loopback alone, and never through a proxy."""
    if not _local():
        abort(404)
    return _text("".join(_gauges()))


def _gauges() -> Iterator[str]:
    for name, says, label, sql in GAUGES:
        yield f"# HELP {name} {says}\n# TYPE {name} gauge\n"
        for value, number in db.rows(sql, now=clock.now()):
            yield f'{name}{{{label}="{value}"}} {number}\n' if label else f"{name} {number}\n"


def _local() -> bool:
    proxied = any(header in request.headers for header in PROXY_HEADERS)
    return not proxied and ip_address(request.remote_addr or "::").is_loopback


@cache
def _newest_migration() -> str | None:
    return ScriptDirectory(str(Path(__file__).parents[2] / "migrations")).get_current_head()


def _text(body: str, status: int = 200) -> Response:
    return Response(body, status, mimetype="text/plain", headers={"Cache-Control": "no-store"})
