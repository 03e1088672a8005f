"""The balance page: what there is, how it went, how far it reaches, and what comes next."""

import re
from datetime import date, timedelta

import pytest
from flask.testing import FlaskClient

from app import clock, customers, db, fx, ledger, services, wallet
from app.blueprints.balance import draw
from app.formats import formats
from app.money import Money
from tests.conftest import person, sign_in

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}
EUR = formats("en_GB", "UTC")


def top_up(user: customers.User, minor: int, reference: str, days_ago: int = 0) -> None:
    with clock.travel(clock.now() - timedelta(days_ago)), db.transaction():
        paid = Money(minor, "EUR")
        counter = [(ledger.account("gateway", "EUR", key="sandbox"), -minor)]
        wallet.credit(user.customer_id, paid, reference=reference, kind="topup", counter=counter, paid=paid, description=f"Top-up {reference}")


@pytest.fixture
def rich(app, demo_customer: customers.User) -> customers.User:
    """A customer with two top-ups, a server that renews soon and money for some months of it."""
    top_up(demo_customer, 100_00, "first", days_ago=40)
    top_up(demo_customer, 50_00, "second", days_ago=2)
    services.set_plan("vps", "vps", "VPS NVMe-4", {("EUR", 1): 20_00})
    services.order(demo_customer.customer_id, "vps", 1, label="vps-7")
    return demo_customer


def test_the_figure_the_runway_and_the_movements(rich: customers.User, owner: FlaskClient) -> None:
    page = owner.get("/balance").text
    assert '<span class="unit">€</span> 126<span class="minor">.20</span>' in page
    assert re.search(r'Covers every renewal until <b class="nowrap">[\w ,]+</b>\. On [\w ,]+ <b>vps-7</b> needs <b>€ [\d.]+</b> more\.', page)
    assert "<b>vps-7</b>" in page
    assert page.count('<tr><td class="what">') == 3
    assert '<span class="amount credit">+50.00</span>' in page


def test_what_is_missing_can_be_added_to_the_cent(rich: customers.User, owner: FlaskClient) -> None:
    runway = services.runway(rich.customer_id)
    assert runway.missing is not None
    page = owner.get("/balance").text
    assert f"/add-funds?amount={EUR.amount(runway.missing.minor, 'EUR')}&amp;currency=EUR" in page
    assert "Add exactly this" in page


def test_less_than_the_smallest_top_up_asks_for_the_smallest(app, demo_customer: customers.User, owner: FlaskClient) -> None:
    services.set_plan("vps", "vps", "VPS NVMe-4", {("EUR", 1): 20_00})
    top_up(demo_customer, 23_80 + 21_00, "only")
    services.order(demo_customer.customer_id, "vps", 1, label="vps-7")
    page = owner.get("/balance").text
    assert "needs <b>€\u00a02.80</b> more" in page
    assert "/add-funds?amount=5.00&amp;currency=EUR" in page
    assert "Add €\u00a05.00" in page


def test_equivalents_name_their_rate_and_its_day(rich: customers.User, owner: FlaskClient) -> None:
    with db.transaction():
        db.execute("insert into rates (source, rate_date, currency, rate, fetched_at) values ('ECB', %(day)s, 'USD', 1.25, %(now)s)", day=clock.today(), now=clock.now())
    page = owner.get("/balance").text
    assert "≈ $\u00a0157.75 <small>at 1.25</small>" in page
    assert "ECB, " + formats("en", "UTC").day_month(clock.today()) in page
    assert fx.equivalents(Money(126_20, "EUR"), ["USD"])[0].rate == 1.25


def test_someone_new_is_told_what_to_do(app, demo_customer: customers.User) -> None:
    new = sign_in(app.test_client(), person("newcomer"))
    page = new.get("/balance").text
    assert "Your balance is empty" in page
    assert 'href="/add-funds"' in page
    assert "<figure" not in page


def test_a_bonus_and_a_hold_stand_beside_the_balance(rich: customers.User, owner: FlaskClient) -> None:
    with db.transaction():
        wallet.grant_bonus(rich.customer_id, Money(10_00, "EUR"), reference="welcome", expires_at=clock.now() + timedelta(30), description="Welcome")
        lot = next(lot for lot in wallet.lots(rich.customer_id) if lot.kind != "bonus")
        wallet.hold(rich.customer_id, lot.id, Money(5_00, "EUR"), reference="refund-1")
    page = owner.get("/balance").text
    assert "€\u00a010.00 bonus, spent first" in page
    assert "€\u00a05.00 on hold for refunds" in page


def test_the_chip_asks_for_itself_alone(rich: customers.User, owner: FlaskClient) -> None:
    chip = owner.get("/balance", headers=PARTIAL).text
    assert chip.startswith('<output class="chip" id="balance-chip"')
    assert 'data-minor="12620" data-currency="EUR">€\u00a0126.20</b>' in chip
    assert "<h1>" not in chip


def test_a_stranger_sees_nothing_of_it(rich: customers.User, stranger: FlaskClient, anonymous: FlaskClient) -> None:
    assert "126" not in stranger.get("/balance").text
    assert anonymous.get("/balance").headers["Location"] == "/login?next=%2Fbalance"


def test_the_whole_page_asks_five_questions(rich: customers.User, owner: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.get("/balance")
    asked: list[str] = []
    fetch = db._fetch

    def counting(connection, sql, params):
        asked.append(sql)
        return fetch(connection, sql, params)

    monkeypatch.setattr(db, "_fetch", counting)
    assert owner.get("/balance").status_code == 200
    assert len(asked) <= 5, asked


# The chart


def test_the_chart_steps_where_the_balance_moved() -> None:
    monday = date(2026, 11, 2)
    series = [(monday + timedelta(n), minor) for n, minor in enumerate([0, 0, 100_00, 100_00, 50_00])]
    shape = draw(series, "EUR", EUR)
    assert shape.line == "M0 240H20V14H40V127H50"
    assert shape.area == shape.line + "V240H0Z"
    assert shape.rows == [(0, "2 Nov 2026", "€\u00a00.00"), (2, "4 Nov 2026", "€\u00a0100.00"), (4, "6 Nov 2026", "€\u00a050.00")]
    assert (shape.lowest, shape.highest, shape.width) == (0, 100_00, 50)


def test_an_empty_chart_lies_on_its_line() -> None:
    shape = draw([(date(2026, 11, 2), 0), (date(2026, 11, 3), 0)], "EUR", EUR)
    assert shape.line == "M0 240H20"
    assert len(shape.rows) == 1
