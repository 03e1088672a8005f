"""Pages, signed in, with 500 invoices and 2,000 or 20,000 movements: statements, CPU, time over HTTP, bytes.

    DATABASE_URL=… python benchmarks/pages.py [--movements 2000 20000] [--others 10]

Needs a migrated database of its own and fills it by the house's verbs (some minutes): first somebody alone, then others, then the same beside them.
It fails where a page reads a table that grows with everybody's history from end to end, or more rows than `ROWS` allows. The movements page stands beside its limit (a bare
WSGI function: psycopg and f-strings, the same HTML) and beside itself the usual way (the same house and templates, with ORM entities and
Babel in each cell), all three in one run and by turns, so the ratios hold on a busy machine too.
"""

import argparse
import gzip
import hashlib
import http.client
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import brotli
import psycopg
from babel.dates import format_datetime
from babel.numbers import format_currency, format_decimal
from flask import Flask
from flask_login import current_user
from psycopg.rows import tuple_row
from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, String, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, scoped_session, sessionmaker
from werkzeug.test import Client

sys.path.insert(0, str(Path(__file__).parents[1]))

from _size import sized

import config
from app import clock, create_app, customers, db, invoicing, ledger, services, wallet, web
from app.blueprints import transactions as pages
from app.invoicing import Draft, Line, Settlement
from app.money import Money
from app.wallet import Spend

HOUSE = Path(__file__).parents[1]
SECRET = "b" * 48
INVOICES = sized(500, 60)
SIZES = (2_000, 20_000)
GROWING = frozenset(
    {"entries", "transfers", "bills", "bill_lines", "documents", "document_files", "payments", "payment_events", "mails", "lots", "allocations", "refunds", "renewals"}
)
"""Tables that have a row for everything that ever happened to anybody: no page may read one from end to end."""
SMALL = 1_000
"""Rows below which the planner may rightly read a whole table."""
PAGES = (
    "/balance",
    "/transactions",
    "/transactions?q=vps-7&min=10",
    "/invoices",
    "/invoices?status=paid&q=vps-7",
    "/services",
    "/refunds",
    "/add-funds",
    "/profile",
    "/transactions?kind=topup",
    "/transactions?direction=in",
    "/transactions?q=nothing-like-it",
    "{invoice}",
    "{invoice}.pdf",
)
ROWS = 4_000
"""Rows that the plans of a page may visit beside others: a page's worth, and the sums of five hundred bills."""
WALKING, SEARCHES = ("q", "min", "direction"), 4
"""Filters of movements for which each movement of the account is looked at, in an index and, for a text,
in its transfer; so many rows may be visited for each."""
PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}
LIMITS_MS = {"page": 8, "fragment": 5, "chip": 3}
MOVEMENTS = "/transactions"


# Somebody with a history


def somebody(movements: int) -> str:
    """The session token of a new customer with 500 invoices, two services and so many movements, of which 500 paid the invoices."""
    user = customers.create_user(f"bench-{uuid4().hex[:10]}", f"{uuid4().hex}@example.com", "quiet-harbour-lamp", name="Anna Kowalska")
    assert user.customer_id
    profile = customers.Profile(name="Anna Kowalska", street="Turmstraße 12", postcode="10559", city="Berlin", country="DE", currency="EUR")
    customers.update_profile(user.id, user.customer_id, profile, locale="en_GB", timezone="Europe/Berlin")
    services.set_plan("bench", "vps", "VPS NVMe-4", {("EUR", 1): 20_00})
    with clock.travel(clock.now() - timedelta(days=700)), db.transaction():
        lines = [(ledger.account("suspense", "EUR"), -movements * 100_00)]
        wallet.credit(user.customer_id, Money(movements * 100_00, "EUR"), reference=f"bench:{user.id}", kind="correction", counter=lines, description="Opening balance")
    for first in range(0, movements - 3, 500):
        spend(user.customer_id, range(first, min(first + 500, movements - 3)), movements)
    for _ in range(2):
        services.order(user.customer_id, "bench", 1)
    return customers.open_session(user.id)


def spend(customer_id: int, numbers: range, movements: int) -> None:
    """Charges spread over two years; the newest 500 with an invoice each."""
    with clock.travel(clock.now() - timedelta(hours=(movements - numbers.start) * 17_000 // movements)), db.transaction():
        billed = [n for n in numbers if n >= movements - 3 - INVOICES]
        bills = invoicing.issue_many([Draft(customer_id, f"vps-{n % 9} · VPS NVMe-4", "EUR", (Line("VPS NVMe-4", 10_00 + n),), months=1, proforma=False) for n in billed])
        of = dict(zip(billed, bills, strict=True))
        revenue = ledger.account("revenue", "EUR")
        wallet.spend_many([_charge(customer_id, n, of.get(n), revenue) for n in numbers])
        paid = [(of[n], Settlement(clock.now(), "Account balance", source="balance")) for n in numbers if n in of]
        invoicing.settle_many(paid)


def _charge(customer_id: int, number: int, bill: invoicing.Bill | None, revenue: int) -> Spend:
    amount = bill.amount if bill else Money(1_00 + number % 900, "EUR")
    bill_id = bill.id if bill else None
    return Spend(customer_id, amount, f"bench:{customer_id}:{number}", [(revenue, amount.minor)], description=f"Renewal vps-{number % 9} · 1 month", bill_id=bill_id)


# The limit: one function, psycopg, f-strings


def limit_of(url: str, whole: str, statements: list[str]) -> Callable[..., list[bytes]]:
    """The movements page as one WSGI function: the house's own statements, rows by f-strings, the same frame around them.

    It does what nobody could leave out: the session is looked up and must be good, texts are escaped, times are the reader's, a page of 50
    knows whether another follows. It has no routes, filters, templates, languages, logs or error pages.
    """
    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True, row_factory=tuple_row, prepare_threshold=0)
    before, _, rest = whole.partition("<tbody>")
    middle, _, after = rest.partition("</tbody>")
    icons = middle.partition('href="')[2].partition("#")[0]
    opening, _, closing = before.partition('id="sums">')
    closing = closing.partition("</span>\n")[2]
    who, rows = statements

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        token = dict(pair.split("=", 1) for pair in environ["HTTP_COOKIE"].split("; "))["sid"]
        now = datetime.now(UTC)
        me = connection.execute(
            who, {"id": hashlib.sha256(token.encode()).digest(), "now": now, "idle": now - timedelta(hours=2), "staff_idle": now - timedelta(hours=1)}
        ).fetchone()
        if me is None:
            start_response("303 See Other", [("Location", "/login")])
            return []
        zone = ZoneInfo(me[9])
        found = connection.execute(rows, {"account_id": me[16], "limit": 51}).fetchall()
        count, _, _, _, _, balance, incoming, *_ = found[0]
        lines = []
        for _seq, posted_at, kind, description, amount, left, _credited, *_ids, number, method in found[:50]:
            at = posted_at.astimezone(zone)
            tone, arrow = (" credit", "arrow-up") if amount > 0 else ("", "arrow-down")
            link = f'<a href="/invoices/{number}">{number}</a>{f" · {escape(method)}" if method else ""}' if number else kind
            lines.append(
                f'<tr><td class="what"><div class="with"><span class="disc{tone}"><svg class="icon" aria-hidden="true"><use href="{icons}#{arrow}"/></svg></span><div><b>{escape(description)}</b>'
                f'<span class="sub">{link}</span></div></div></td><td class="note under"><time datetime="{posted_at.isoformat()}">{at.day} {at:%b %Y}'
                f'<span class="wide">, {at:%H:%M}</span></time></td><td class="num"><span class="amount{tone}">{amount / 100:+,.2f}</span></td><td class="num note wide">{left / 100:,.2f}</td></tr>'
            )
        said = f'{count:,} movements · in <span class="amount">€ {incoming / 100:,.2f}</span> · out <span class="amount">€ {(incoming - balance) / 100:,.2f}</span></span>'
        answer = f'{opening}id="sums">{said}{closing}<tbody>{"".join(lines)}</tbody>{after}'.encode()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(answer))), ("Cache-Control", "no-store")])
        return [answer]

    return app


# The usual way: the same house and the same templates, with entities, lazy relations, Babel in each cell


class Base(DeclarativeBase):
    """Entities as most would map them."""


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    currency: Mapped[str] = mapped_column(String)
    accounts: Mapped[list["Account"]] = relationship()


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    login: Mapped[str] = mapped_column(String)
    name: Mapped[str] = mapped_column(String)
    email: Mapped[str] = mapped_column(String)
    role: Mapped[str] = mapped_column(String)
    locale: Mapped[str] = mapped_column(String)
    timezone: Mapped[str] = mapped_column(String)
    customer: Mapped[Customer] = relationship()


class Login(Base):
    __tablename__ = "sessions"
    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    seen_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    user: Mapped[User] = relationship()


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    kind: Mapped[str] = mapped_column(String)
    balance: Mapped[int] = mapped_column(BigInteger)
    entry_count: Mapped[int] = mapped_column(BigInteger)


class Bill(Base):
    __tablename__ = "bills"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    customer_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String)
    invoice_number: Mapped[str] = mapped_column(String)


class Transfer(Base):
    __tablename__ = "transfers"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str] = mapped_column(String)
    description: Mapped[str] = mapped_column(String)
    bill_id: Mapped[int] = mapped_column(ForeignKey("bills.id"))
    bill: Mapped[Bill] = relationship()


class Entry(Base):
    __tablename__ = "entries"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    transfer_id: Mapped[int] = mapped_column(ForeignKey("transfers.id"))
    amount: Mapped[int] = mapped_column(BigInteger)
    balance_after: Mapped[int] = mapped_column(BigInteger)
    posted_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    transfer: Mapped[Transfer] = relationship()


_USUAL_ROWS = """
{% macro movement_table(entries, head=true) %}
<table class="table movements"><thead><tr><th>Movement</th><th>Date</th><th>Amount</th><th>Balance after</th></tr></thead><tbody>
{% for entry in entries %}
<tr><td class="what"><div class="with">{{ disc("arrow-up", "credit") if entry.amount > 0 else disc("arrow-down") }}<div><b>{{ entry.transfer.description }}</b><span class="sub">
{% if entry.transfer.bill %}<a href="/invoices/{{ entry.transfer.bill.invoice_number }}">{{ entry.transfer.bill.invoice_number }}</a>{% else %}{{ entry.transfer.kind }}{% endif %}</span></div></div></td>
<td class="note under"><time datetime="{{ entry.posted_at.isoformat() }}">{{ entry.posted_at|date }}<span class="wide">, {{ entry.posted_at|time }}</span></time></td>
<td class="num"><span class="amount{% if entry.amount > 0 %} credit{% endif %}">{{ entry.amount|signed(currency) }}</span></td><td class="num note wide">{{ entry.balance_after|amount(currency) }}</td></tr>
{% endfor %}
</tbody></table>
{% endmacro %}
"""


def usual_app(settings: config.Settings) -> Flask:
    """This house with its page of movements as most would write it."""
    app = create_app(settings)
    app.logger.disabled = True
    orm = scoped_session(sessionmaker(create_engine(settings.database_url)))
    app.teardown_appcontext(lambda _error: orm.remove())
    zone = ZoneInfo("Europe/Berlin")
    app.jinja_env.filters |= {
        "money": lambda minor, currency: format_currency(minor / 100, currency, locale="en_GB"),
        "amount": lambda minor, _currency: format_decimal(minor / 100, "#,##0.00", locale="en_GB"),
        "signed": lambda minor, _currency: format_decimal(minor / 100, "+#,##0.00;-#,##0.00", locale="en_GB"),
        "date": lambda moment: format_datetime(moment, "d MMM y", tzinfo=zone, locale="en_GB"),
        "time": lambda moment: format_datetime(moment, "HH:mm", tzinfo=zone, locale="en_GB"),
    }

    app.jinja_env.globals["movement_table"] = vars(app.jinja_env.from_string(_USUAL_ROWS).module)["movement_table"]

    def load(request: Any) -> customers.SignedIn | None:
        login = orm.get(Login, hashlib.sha256(request.cookies["sid"].encode()).digest())
        if login is None:
            return None
        user, owned = login.user, {account.kind: account for account in login.user.customer.accounts}
        unpaid = orm.query(Bill).filter_by(customer_id=user.customer_id, status="unpaid").count()
        facts = {name: getattr(user, name) for name in ("customer_id", "login", "name", "email", "role", "locale", "timezone")}
        purse = {"currency": user.customer.currency, "balance_minor": owned["wallet"].balance, "bonus_minor": owned["bonus"].balance, "on_hold_minor": 0}
        known = {"session_id": login.id, "seen_at": login.seen_at, "user_id": user.id, "verified": True, "version": owned["wallet"].entry_count, "account_id": owned["wallet"].id}
        return customers.SignedIn(**facts, **purse, **known, unpaid_count=unpaid, display_currencies=[])

    def movements() -> Any:
        me, place = current_user, pages.Place()
        asked = pages._asked(me, place)  # noqa: SLF001 - the same filter, read the same way
        account = orm.query(Account).filter_by(customer_id=me.customer_id, kind="wallet").one()
        mine = orm.query(Entry).filter_by(account_id=account.id)
        entries = mine.options(joinedload(Entry.transfer).joinedload(Transfer.bill)).order_by(Entry.seq.desc()).limit(51).all()
        totals = ledger.Totals(mine.count(), *(mine.with_entities(func.coalesce(func.sum(Entry.amount), 0)).filter(way).scalar() for way in (Entry.amount > 0, Entry.amount < 0)))
        return web.page(
            "transactions/index.html", "results", cells=entries[:50], totals=totals, asked=asked, place=place, currency="EUR", stood=None, kinds=pages.OFFERED, start=MOVEMENTS, chips=[],
            accounts=[(word, MOVEMENTS, False) for word in pages.ACCOUNTS.values()], presets=pages._presets(asked, place, clock.today()),  # noqa: SLF001
            address=partial(pages._address, asked, place), following=f"{MOVEMENTS}?before={entries[-1].seq}",  # noqa: SLF001
        )  # fmt: skip

    app.login_manager.request_loader(load)  # type: ignore[attr-defined]
    app.view_functions["transactions.index"] = movements
    return app


# Measuring


given: list[tuple[str, dict[str, object]]] = []
"""The statements of the page that was counted last, with their parameters."""


def planned(url: str) -> tuple[set[str], int]:
    """The growing tables that the page counted last reads from end to end, and the rows it visits."""
    found: set[str] = set()
    visited = 0
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"set random_page_cost = {db.RANDOM_PAGE_COST}")
        connection.execute("set jit = off")
        large = {name for name in GROWING if connection.execute(f"select count(*) > {SMALL} from {name}").fetchone()[0]}  # type: ignore[index]
        for sql, params in given:
            if re.match(r"\s*(select|with)\b", sql):
                plan = connection.execute(f"explain (analyze, timing off, format json) {sql}", params).fetchone()[0][0]["Plan"]  # type: ignore[index]
                found |= read_whole(plan) & large
                visited += rows_of(plan)
    return found, visited


def read_whole(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    own = {plan["Relation Name"]} if plan["Node Type"] in {"Seq Scan", "Parallel Seq Scan"} else set()
    return own.union(*(read_whole(part) for part in plan.get("Plans", [])))


def rows_of(plan: dict[str, Any]) -> int:
    """The rows of tables that a plan that was carried out looked at, those it left out among them."""
    own = 0
    if "Relation Name" in plan:
        left_out = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        own = round((plan["Actual Rows"] + left_out) * plan["Actual Loops"])
    return own + sum(rows_of(part) for part in plan.get("Plans", []))


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements that are asked inside."""
    asked: list[str] = []
    fetch = db._fetch  # noqa: SLF001 - the one place every statement passes

    def noted(sql: str, params: dict[str, object]) -> None:
        asked.append(sql)
        given.append((sql, params))

    db._fetch = lambda connection, sql, params: noted(sql, params) or fetch(connection, sql, params)  # type: ignore[assignment,func-returns-value]  # noqa: SLF001
    given.clear()
    try:
        yield asked
    finally:
        db._fetch = fetch  # noqa: SLF001


def cpu_by_turns(works: dict[str, Callable[[], object]], rounds: int = sized(40, 1), each: int = sized(6, 1)) -> dict[str, float]:
    """Milliseconds of CPU of each, the best of several rounds taken by turns."""
    best = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            for _ in range(each):
                work()
            best[name] = min(best[name], (time.process_time() - start) / each * 1000)
    return best


@contextmanager
def serving(url: str, workers: int = 1) -> Iterator[int]:
    """The house on a port, as `bin/run` serves it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "rsgi",
        "--http",
        "1",
        "--port",
        str(port),
        "--workers",
        str(workers),
        "--no-access-log",
        "--log-level",
        "error",
        "wsgi:server",
    ]
    server = subprocess.Popen(words, cwd=HOUSE, env=os.environ | {"DATABASE_URL": url, "SECRET_KEY": SECRET}, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if server.poll() is not None:
                    raise SystemExit("the web server ended by itself") from None
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def over_http(port: int, path: str, headers: dict[str, str]) -> float:
    """Milliseconds of one request with its answer read, the median of sixty, one client on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    runs = []
    for _ in range(sized(65, 6)):
        start = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        runs.append((time.perf_counter() - start) * 1000)
        assert answer.status == 200, (path, answer.status)
    connection.close()
    return median(runs[5:])


def judged(value: float, limit: float, *, least: bool = False) -> str:
    """A word beside a figure."""
    return "ok" if (value >= limit if least else value <= limit) else "MISSED"


def report(app: Flask, url: str, movements: int, *, beside: bool) -> bool:
    """Everything about one customer, printed; whether no page grows with the database. Who is alone in a database owns all of it."""
    with app.app_context():
        token = somebody(movements)
        invoice = f"/invoices/{db.scalar('select invoice_number from bills where invoice_number is not null order by id desc limit 1')}"
    db_analyze(url)
    faults: list[str] = []
    browser = Client(app, use_cookies=False)
    cookie = {"Cookie": f"sid={token}"}
    kept = browser.get("/balance", headers=cookie).headers["Set-Cookie"]  # what a browser brings back with each request
    cookie["Cookie"] += f"; {kept.partition(';')[0]}"
    print(f"\n{INVOICES} invoices, {movements:,} movements")
    print(f"  {'page':<34}{'statements':>11}{'rows':>9}{'ms over HTTP':>14}{'bytes':>9}{'gzip':>8}{'brotli':>8}")
    with serving(url) as port:
        for pattern in PAGES:
            path = pattern.format(invoice=invoice)
            browser.get(path, headers=cookie)
            with counting() as asked:
                body = browser.get(path, headers=cookie).data
            tables, visited = planned(url)
            allowed = ROWS + SEARCHES * movements if any(f"{name}=" in path for name in WALKING) else ROWS
            if beside and tables:
                faults.append(f"{path} reads from end to end: {', '.join(sorted(tables))}")
            if beside and visited > allowed:
                faults.append(f"{path} visits {visited:,} rows, {allowed:,} allowed")
            ms = over_http(port, path, cookie)
            print(f"  {path:<34}{len(asked):>11}{visited:>9,}{ms:>14.2f}{len(body):>9,}{len(gzip.compress(body, 6)):>8,}{len(brotli.compress(body, quality=5)):>8,}  "
                  f"{judged(len(asked), 5)} {judged(ms, LIMITS_MS['page'])} {judged(len(gzip.compress(body, 6)), 12_000)}")  # fmt: skip
        for word, path in (("fragment", f"{MOVEMENTS}?direction=out"), ("chip", "/balance")):
            ms = over_http(port, path, cookie | PARTIAL)
            print(f"  {word + ' ' + path:<34}{'':>20}{ms:>14.2f}{'':>27}{judged(ms, LIMITS_MS[word]):>5}")
    with counting() as asked:
        whole = browser.get(MOVEMENTS, headers=cookie).text
    usual_house = usual_app(config.current())
    bare, usual = Client(limit_of(url, whole, asked), use_cookies=False), Client(usual_house, use_cookies=False)
    for contestant in (bare, usual):
        if contestant.get(MOVEMENTS, headers=cookie).text.count("<tr>") < 50:
            raise SystemExit("a contestant does not show the page")
    ours = cpu_by_turns({
        "limit": lambda: bare.get(MOVEMENTS, headers=cookie), "ours": lambda: browser.get(MOVEMENTS, headers=cookie), "usual": lambda: usual.get(MOVEMENTS, headers=cookie),
    })  # fmt: skip
    print(f"  CPU of {MOVEMENTS}: bare WSGI {ours['limit']:.2f} ms, ours {ours['ours']:.2f} ms, Flask with ORM and Babel {ours['usual']:.2f} ms")
    print(f"  of the limit: {ours['limit'] / ours['ours']:.2f} (0.40 wanted, {judged(ours['limit'] / ours['ours'], 0.4, least=True)}); "
          f"faster than the usual way: {ours['usual'] / ours['ours']:.1f} × (4 wanted, {judged(ours['usual'] / ours['ours'], 4, least=True)})")  # fmt: skip
    for fault in faults:
        print(f"  MISSED {fault}")
    return not faults


def db_analyze(url: str) -> None:
    """Let the planner see what was filled."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("analyze")


def main() -> int:
    """Both sizes, alone and beside many others; 1 when a page grows with the database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movements", type=int, nargs="*", default=SIZES)
    parser.add_argument("--others", type=int, default=sized(10, 1), help="other customers, with 20,000 movements each")
    asked = parser.parse_args()
    settings = config.load({**os.environ, "SECRET_KEY": SECRET})
    app = create_app(settings)
    logging.disable(logging.ERROR)
    report(app, settings.database_url, asked.movements[0], beside=False)
    with app.app_context():
        for _ in range(asked.others):
            somebody(sized(20_000, 80))
        total = db.scalar("select count(*) from transfers")
    print(f"\nBeside {asked.others} others, among {total:,} transfers")
    kept = [report(app, settings.database_url, movements, beside=True) for movements in asked.movements]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
