"""What a page may cost: few statements whatever it lists, never one for each row, and little to send."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from flask import Flask

from app import clock, db
from app.customers import User
from tests.conftest import Browser, sign_in
from tests.pay import publish_rates
from tests.test_access_matrix import PARTIAL
from tests.world import furnish, make_history

MOST_STATEMENTS = 5
MOST_LIST_BYTES = 12_000
ROWS = (10, 60)
PAGES = (
    "/balance",
    "/add-funds",
    "/add-funds?amount=25&currency=USD",
    "/transactions",
    "/transactions?q=srv&kind=charge&from=2020-01-01&min=1",
    "/invoices",
    "/invoices?size=100",
    "/invoices?status=paid&q=srv&from=2020-01-01&min=1",
    "/refunds",
    "/services",
    "/profile",
    "/security",
    "/notifications",
)
LISTS = ("/transactions", "/invoices", "/invoices?size=100", "/services")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every statement that any connection sends meanwhile, whoever sends it."""
    sent: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor, query, *args, **kwargs):
        sent.append(str(query))
        return execute(cursor, query, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        yield sent


def statements(client: Browser, path: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str] | None = None) -> list[str]:
    """What one request asks of the database, once its connection stands."""
    client.get("/security")
    with counted(monkeypatch) as sent:
        answer = client.get(path, headers=headers or {})
    assert answer.status_code == 200, path
    return sent


@pytest.fixture(params=ROWS, ids=[f"{rows} rows" for rows in ROWS])
def lived(request: pytest.FixtureRequest, app: Flask, demo_customer: User) -> Browser:
    """The browser of somebody with so many rows of everything."""
    publish_rates()
    make_history(demo_customer, request.param)
    return sign_in(app.test_client(), demo_customer)


def test_every_page_asks_little_whatever_it_lists(lived: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {path: statements(lived, path, monkeypatch) for path in PAGES}
    assert {path: sent for path, sent in asked.items() if len(sent) > MOST_STATEMENTS} == {}


def test_a_fragment_asks_no_more_than_its_page(lived: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/transactions", "/invoices", "/balance", "/add-funds?amount=25&currency=USD"):
        assert len(statements(lived, path, monkeypatch, PARTIAL)) <= len(statements(lived, path, monkeypatch)), path


def test_one_bill_and_one_payment_ask_little(app: Flask, owner: Browser, demo_customer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    things = furnish(app, demo_customer)
    pay = f"/invoices/{things.unpaid}/pay"
    pages = (f"/invoices/{things.paid}", f"/invoices/{things.unpaid}", pay, f"/notifications/{things.letter}")
    asked = {path: statements(owner, path, monkeypatch) for path in pages}
    # To pay asks besides which processor is silent.
    assert {path: sent for path, sent in asked.items() if len(sent) > MOST_STATEMENTS + 2 * (path == pay)} == {}


def test_a_statement_for_each_row_would_be_seen(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as sent:
        for _ in range(3):
            db.scalar("select 1")
        with db.transaction():
            db.execute("delete from rate_limits where window_start > %(now)s", now=clock.now())
    assert len([statement for statement in sent if statement.startswith(("select 1", "delete"))]) == 4


@pytest.mark.parametrize("rows", [60])
def test_the_html_of_a_list_is_light(app: Flask, owner: Browser, demo_customer: User, rows: int) -> None:
    publish_rates()
    make_history(demo_customer, rows)
    for path in LISTS:
        answer = owner.get(path, headers={"Accept-Encoding": "br"})
        assert answer.headers["Content-Encoding"] == "br"
        assert len(answer.data) <= MOST_LIST_BYTES, path
