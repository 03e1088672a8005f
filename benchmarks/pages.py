"""Pages, signed in, with 500 invoices and 2,000 or 20,000 movements: statements, CPU, time over HTTP, bytes.

    DATABASE_URL=… python benchmarks/pages.py

Needs a migrated database of its own and fills it by the house's verbs (a minute). The movements page stands beside its limit (a bare
WSGI function: psycopg and f-strings, the same HTML) and beside the same page the usual way (Flask-Login, ORM entities, Babel in each
cell), all three in one run and by turns, so the ratios hold on a busy machine too.
"""

import argparse
import gzip
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import brotli
import psycopg
from babel.dates import format_datetime
from babel.numbers import format_currency, format_decimal
from flask import Flask, render_template
from flask_login import LoginManager, UserMixin, current_user, login_required
from flask_sqlalchemy import SQLAlchemy
from jinja2 import DictLoader
from psycopg.rows import tuple_row
from sqlalchemy import BigInteger, DateTime, ForeignKey, String, func
from sqlalchemy.orm import Mapped, joinedload, mapped_column, relationship
from werkzeug.test import Client

sys.path.insert(0, str(Path(__file__).parents[1]))

import config
from app import clock, create_app, customers, db, invoicing, ledger, services, wallet
from app.invoicing import Draft, Line, Settlement
from app.money import Money
from app.wallet import Spend

HOUSE = Path(__file__).parents[1]
SECRET = "b" * 48
INVOICES = 500
SIZES = (2_000, 20_000)
PAGES = ("/balance", "/transactions", "/transactions?q=vps-7&min=10", "/invoices", "/invoices?status=paid&q=vps-7", "/services", "/refunds", "/add-funds", "/profile")
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
        spent = wallet.spend_many([_charge(customer_id, n, of.get(n), revenue) for n in numbers])
        paid = [(of[n], Settlement(clock.now(), "Account balance", source="balance", transfer_id=one.transfer_id)) for n, one in zip(numbers, spent, strict=True) if n in of]
        invoicing.settle_many(paid)


def _charge(customer_id: int, number: int, bill: invoicing.Bill | None, revenue: int) -> Spend:
    amount = bill.amount if bill else Money(1_00 + number % 900, "EUR")
    bill_id = bill.id if bill else None
    return Spend(customer_id, amount, f"bench:{customer_id}:{number}", [(revenue, amount.minor)], description=f"Renewal vps-{number % 9} · 1 month", bill_id=bill_id)


# The limit: one function, psycopg, f-strings


_WHO = "select u.customer_id, a.id from sessions s join users u on u.id = s.user_id join accounts a on a.customer_id = u.customer_id and a.kind = 'wallet' where s.id = sha256(%s)"
_ROWS = """
select t.description, e.posted_at, e.amount, e.balance_after, b.invoice_number from entries e join transfers t on t.id = e.transfer_id left join bills b on b.id = t.bill_id
where e.account_id = %s order by e.seq desc limit 50
"""


def limit_of(url: str, whole: str) -> Callable[..., list[bytes]]:
    """The movements page as one WSGI function: two queries, rows by f-strings, the same frame around them."""
    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True, row_factory=tuple_row, prepare_threshold=0)
    before, _, rest = whole.partition("<tbody>")
    after = rest.partition("</tbody>")[2]

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        token = environ["HTTP_COOKIE"].partition("sid=")[2]
        found = connection.execute(_WHO, (token.encode(),)).fetchone()
        rows = connection.execute(_ROWS, (found[1],)).fetchall() if found else []
        body = "".join(
            f'<tr><td class="what"><div class="with"><span class="disc "><svg class="icon" aria-hidden="true"><use href="/icons.svg#arrow-down"/></svg></span><div><b>{what}</b>'
            f'<span class="sub"><a href="/invoices/{number}">{number}</a></span></div></div></td><td class="note under"><time datetime="{at:%Y-%m-%dT%H:%M:%S}">{at:%d %b %Y}'
            f'<span class="wide">, {at:%H:%M}</span></time></td><td class="num"><span class="amount">{amount / 100:+,.2f}</span></td><td class="num note wide">{left / 100:,.2f}</td></tr>'
            for what, at, amount, left, number in rows
        )
        answer = f"{before}<tbody>{body}</tbody>{after}".encode()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(answer)))])
        return [answer]

    return app


# The usual way: Flask-Login, entities, Babel in each cell


def usual_app(url: str, whole: str) -> Flask:
    """The movements page as most would write it."""
    app = Flask("usual")
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SECRET_KEY=SECRET)
    orm = SQLAlchemy(app)
    manager = LoginManager(app)

    class User(UserMixin, orm.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        customer_id: Mapped[int] = mapped_column(BigInteger)
        locale: Mapped[str] = mapped_column(String)

    class Account(orm.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "accounts"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        customer_id: Mapped[int] = mapped_column(BigInteger)
        kind: Mapped[str] = mapped_column(String)
        balance: Mapped[int] = mapped_column(BigInteger)

    class Bill(orm.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "bills"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        customer_id: Mapped[int] = mapped_column(BigInteger)
        status: Mapped[str] = mapped_column(String)
        invoice_number: Mapped[str] = mapped_column(String)

    class Transfer(orm.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "transfers"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        description: Mapped[str] = mapped_column(String)
        bill_id: Mapped[int] = mapped_column(ForeignKey("bills.id"))
        bill: Mapped[Bill] = relationship()

    class Entry(orm.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "entries"
        account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        transfer_id: Mapped[int] = mapped_column(ForeignKey("transfers.id"))
        amount: Mapped[int] = mapped_column(BigInteger)
        balance_after: Mapped[int] = mapped_column(BigInteger)
        posted_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
        transfer: Mapped[Transfer] = relationship()

    @manager.request_loader
    def load(request: Any) -> User | None:
        found = orm.session.execute(orm.text("select user_id from sessions where id = sha256(:token)"), {"token": request.cookies.get("sid", "").encode()}).scalar()
        return orm.session.get(User, found)

    app.jinja_env.filters["money"] = lambda minor: format_currency(minor / 100, "EUR", locale="en_GB")
    app.jinja_env.filters["number"] = lambda minor: format_decimal(minor / 100, format="#,##0.00", locale="en_GB")
    app.jinja_env.filters["moment"] = lambda at: format_datetime(at, "d MMM y, HH:mm", tzinfo=None, locale="en_GB")
    frame = whole.partition('<section class="panel region" id="results">')[0]
    app.jinja_loader = DictLoader({"base.html": "{% raw %}" + frame + "{% endraw %}{% block main %}{% endblock %}", "movements.html": _USUAL})

    @app.context_processor
    def chip() -> dict[str, Any]:
        owned = {account.kind: account for account in orm.session.query(Account).filter_by(customer_id=current_user.customer_id)}
        unpaid = orm.session.query(Bill).filter_by(customer_id=current_user.customer_id, status="unpaid").count()
        return {"accounts": owned, "unpaid": unpaid}

    @app.get(MOVEMENTS)
    @login_required
    def movements() -> str:
        account = orm.session.query(Account).filter_by(customer_id=current_user.customer_id, kind="wallet").one()
        mine = orm.session.query(Entry).filter_by(account_id=account.id)
        entries = mine.options(joinedload(Entry.transfer).joinedload(Transfer.bill)).order_by(Entry.seq.desc()).limit(50).all()
        count, incoming = mine.count(), mine.with_entities(func.sum(Entry.amount)).filter(Entry.amount > 0).scalar()
        return render_template("movements.html", entries=entries, account=account, count=count, incoming=incoming, links=range(9), kinds=range(15))

    return app


_USUAL = """{% extends "base.html" %}{% block main %}
<nav>{% for link in links %}<a href="/{{ link }}">{{ link }}</a>{% endfor %}</nav><output>{{ accounts.wallet.balance|money }} {{ unpaid }}</output>
<form><select>{% for kind in kinds %}<option>{{ kind }}</option>{% endfor %}</select></form><section id="results"><p>{{ count }} {{ incoming|money }}</p><table>
{% for entry in entries %}
<tr><td class="what"><div class="with"><div><b>{{ entry.transfer.description }}</b><span class="sub">
{% if entry.transfer.bill %}<a href="/invoices/{{ entry.transfer.bill.invoice_number }}">{{ entry.transfer.bill.invoice_number }}</a>{% endif %}</span></div></div></td>
<td>{{ entry.posted_at|moment }}</td><td class="num">{{ entry.amount|money }}</td><td class="num">{{ entry.balance_after|number }}</td></tr>
{% endfor %}</table></section>{% endblock %}"""


# Measuring


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements that are asked inside."""
    asked: list[str] = []
    fetch = db._fetch  # noqa: SLF001 - the one place every statement passes
    db._fetch = lambda connection, sql, params: asked.append(sql) or fetch(connection, sql, params)  # type: ignore[assignment,func-returns-value]  # noqa: SLF001
    try:
        yield asked
    finally:
        db._fetch = fetch  # noqa: SLF001


def cpu_by_turns(works: dict[str, Callable[[], object]], rounds: int = 7, each: int = 30) -> dict[str, float]:
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
def serving(url: str) -> Iterator[int]:
    """The house on a port, one worker, as `bin/run` serves it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "wsgi",
        "--port",
        str(port),
        "--workers",
        "1",
        "--blocking-threads",
        "1",
        "--no-access-log",
        "--log-level",
        "error",
        "wsgi:app",
    ]
    server = subprocess.Popen(words, cwd=HOUSE, env=os.environ | {"DATABASE_URL": url, "SECRET_KEY": SECRET}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def over_http(port: int, path: str, headers: dict[str, str]) -> float:
    """Milliseconds of one request with its answer read, the median of 60, one client on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    runs = []
    for _ in range(65):
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


def report(app: Flask, url: str, movements: int) -> None:
    """Everything about one customer, printed."""
    with app.app_context():
        token = somebody(movements)
    db_analyze(url)
    cookie = {"Cookie": f"sid={token}"}
    browser = app.test_client(use_cookies=False)
    print(f"\n{INVOICES} invoices, {movements:,} movements")
    print(f"  {'page':<34}{'statements':>11}{'ms over HTTP':>14}{'bytes':>9}{'gzip':>8}{'brotli':>8}")
    with serving(url) as port:
        for path in PAGES:
            browser.get(path, headers=cookie)
            with counting() as asked:
                body = browser.get(path, headers=cookie).data
            ms = over_http(port, path, cookie)
            print(f"  {path:<34}{len(asked):>11}{ms:>14.2f}{len(body):>9,}{len(gzip.compress(body, 6)):>8,}{len(brotli.compress(body, quality=5)):>8,}  "
                  f"{judged(len(asked), 5)} {judged(ms, LIMITS_MS['page'])} {judged(len(gzip.compress(body, 6)), 12_000)}")  # fmt: skip
        for word, path in (("fragment", f"{MOVEMENTS}?direction=out"), ("chip", "/balance")):
            ms = over_http(port, path, cookie | PARTIAL)
            print(f"  {word + ' ' + path:<34}{'':>11}{ms:>14.2f}{'':>27}{judged(ms, LIMITS_MS[word]):>5}")
    whole = browser.get(MOVEMENTS, headers=cookie).text
    bare, usual = Client(limit_of(url, whole), use_cookies=False), usual_app(url, whole).test_client(use_cookies=False)
    ours = cpu_by_turns({
        "limit": lambda: bare.get(MOVEMENTS, headers=cookie), "ours": lambda: browser.get(MOVEMENTS, headers=cookie), "usual": lambda: usual.get(MOVEMENTS, headers=cookie),
    })  # fmt: skip
    print(f"  CPU of {MOVEMENTS}: bare WSGI {ours['limit']:.2f} ms, ours {ours['ours']:.2f} ms, Flask with ORM and Babel {ours['usual']:.2f} ms")
    print(f"  of the limit: {ours['limit'] / ours['ours']:.2f} (0.40 wanted, {judged(ours['limit'] / ours['ours'], 0.4, least=True)}); "
          f"faster than the usual way: {ours['usual'] / ours['ours']:.1f} × (4 wanted, {judged(ours['usual'] / ours['ours'], 4, least=True)})")  # fmt: skip


def db_analyze(url: str) -> None:
    """Let the planner see what was filled."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("analyze")


def main() -> None:
    """Both sizes, one after the other."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    settings = config.load({**os.environ, "SECRET_KEY": SECRET})
    app = create_app(settings)
    app.logger.disabled = True
    for movements in SIZES:
        report(app, settings.database_url, movements)


if __name__ == "__main__":
    main()
