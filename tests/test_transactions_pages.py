"""Transactions: the list and its filters in one canonical address, the next rows, the file, the account as it stood."""

import csv
import html
import io
import re
from datetime import UTC, date, datetime, timedelta

import pytest

from app import bank, clock, db, ledger, payments, services, wallet
from app.money import Money
from tests.banks import Transfer, camt
from tests.money_helpers import EUR
from tests.trade import fund, offer_plans, on

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def anna(app, demo_customer) -> int:
    """A customer with a year of movements: € 100 in January, a server from February on."""
    offer_plans()
    with on(date(2026, 1, 10)):
        fund(demo_customer.customer_id, 200_00)
    with on(date(2026, 2, 1)):
        services.order(demo_customer.customer_id, "vps-4", 1, label="web-1")
    for month in range(3, 8):
        with on(date(2026, month, 1)):
            services.renew_due()
    return demo_customer.customer_id


def shown(answer) -> list[tuple[str, str, str]]:
    """The rows of a page as (description, amount, balance after)."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", answer.text, re.DOTALL)
    return [(_text(r"<b>(.*?)</b>", row), _text(r'class="amount[^"]*">(.*?)<', row), _text(r'class="num note wide">(.*?)<', row)) for row in rows]


def _text(pattern: str, html: str) -> str:
    found = re.search(pattern, html)
    assert found, html
    return found[1]


def write_movements(customer_id: int, count: int) -> None:
    """So many movements an hour apart: a credit, and charges from it. Within a transaction."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with clock.travel(start):
        suspense = ledger.account("suspense", "EUR")
        wallet.credit(customer_id, Money(count * 700, "EUR"), reference="m:0", kind="correction", counter=[(suspense, -count * 700)], description="Movement 0")
    revenue = ledger.account("revenue", "EUR")
    step = 1 if count <= 200 else 100
    for number in range(1, count, step):
        last = min(count, number + step)
        with clock.travel(start + timedelta(hours=number)):
            wallet.spend_many(
                [wallet.Spend(customer_id, Money(500 + n % 300, "EUR"), f"m:{n}", [(revenue, 500 + n % 300)], description=f"Movement {n}") for n in range(number, last)]
            )


def test_the_newest_movement_comes_first_with_the_balance_after_it(anna, owner):
    rows = shown(owner.get("/transactions"))
    assert rows[0] == ("Renewal web-1\N{NO-BREAK SPACE}· 1\N{NO-BREAK SPACE}month", "−23.80", "57.20")
    assert rows[-1] == ("Opening balance", "+200.00", "200.00")
    assert len(rows) == 7


def test_a_row_links_to_its_document(anna, owner):
    number = db.scalar("select invoice_number from bills order by id desc limit 1")
    assert f'href="/invoices/{number}"' in owner.get("/transactions").text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("direction=in", 1),
        ("direction=out", 6),
        ("kind=charge", 6),
        ("kind=topup", 0),
        ("from=2026-03-01&to=2026-04-30", 2),
        ("min=24", 1),
        ("max=24", 6),
        ("q=WEB-1", 6),
        ("q=Order", 1),
        ("q=23.80", 6),
        ("q=€ 23.80", 6),
        ("q=%E2%88%9223.80", 6),
        ("q=200", 1),
        ("q=23,80", 0),
        ("direction=out&from=2026-07-01", 1),
    ],
)
def test_filters_and_the_totals_of_what_is_filtered(anna, owner, query, count):
    answer = owner.get(f"/transactions?{query}")
    assert answer.status_code == 200
    assert len(shown(answer)) == count
    if count:
        assert f"{count} movement" in answer.text


def test_what_stands_on_the_paper_finds_its_movement(anna, owner):
    bill = db.row("select * from bills where kind = 'service' order by id limit 1")
    receipt = bill.invoice_number.replace("INV", "RC")
    for asked in (bill.invoice_number, receipt, receipt.lower()):
        assert len(shown(owner.get(f"/transactions?q={asked}"))) == 1, asked


def test_the_address_of_a_filter_is_canonical(anna, owner):
    answer = owner.get("/transactions?q=&to=&kind=charge&direction=&from=2026-03-01", headers=PARTIAL)
    assert answer.headers["HX-Push-Url"] == "/transactions?kind=charge&from=2026-03-01"
    plain = owner.get("/transactions?q=&kind=charge&direction=")
    assert (plain.status_code, plain.location) == (303, "/transactions?kind=charge")


def test_a_partial_answer_is_the_results_and_the_fields_that_follow(anna, owner):
    answer = owner.get("/transactions?direction=out", headers=PARTIAL)
    assert answer.text.lstrip().startswith('<section class="panel region" id="results">')
    assert 'hx-target="#transaction-days"' in answer.text
    assert "<html" not in answer.text
    assert "HX-Request" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("query", "says"), [("from=yesterday", "2026-03-31"), ("min=1,2,3", "1,234.50"), ("kind=gift", "Choose one"), ("from=2026-05-01&to=2026-04-01", "before the first")]
)
def test_what_cannot_be_read_is_said_and_does_not_filter(anna, owner, query, says):
    answer = owner.get(f"/transactions?{query}")
    assert answer.status_code == 422
    assert says in answer.text
    assert shown(answer)


def test_an_account_without_movements_says_what_comes_next(owner):
    answer = owner.get("/transactions")
    assert "Nothing has moved yet" in answer.text
    assert 'href="/add-funds"' in answer.text
    assert "No movement matches" in owner.get("/transactions?kind=charge").text


def test_the_account_as_it_stood(anna, owner):
    answer = owner.get("/transactions?as_of=2026-03-15")
    assert "152.40" in answer.text, "two charges after the 200.00"
    assert len(shown(answer)) == 3


def test_the_bonus_has_a_history_of_its_own(anna, owner):
    payments.grant_bonus(anna, EUR("30"), reason="A year with us", reference="b1")
    services.order(anna, "vps-4", 1)
    rows = shown(owner.get("/transactions?account=bonus"))
    assert [row[:2] for row in rows] == [("Order vps-2\N{NO-BREAK SPACE}· 1\N{NO-BREAK SPACE}month", "−23.80"), ("A year with us", "+30.00")]
    assert 'href="/transactions?account=bonus"' in owner.get("/transactions").text


def test_load_more_walks_the_whole_history_once(app, owner, demo_customer):
    with db.transaction():
        write_movements(demo_customer.customer_id, 120)
    seen, following = [], "/transactions"
    while following:
        answer = owner.get(following, headers=PARTIAL if seen else {})
        seen += [row[0] for row in shown(answer)]
        more = re.search(r'hx-get="([^"]*before=[^"]*)"', answer.text)
        following = more[1].replace("&amp;", "&") if more else ""
    assert seen == [f"Movement {n}" for n in reversed(range(120))]


def test_the_next_rows_are_a_page_of_their_own_without_a_script(app, owner, demo_customer):
    with db.transaction():
        write_movements(demo_customer.customer_id, 60)
    answer = owner.get("/transactions?before=11")
    assert "<html" in answer.text
    assert len(shown(answer)) == 10


def test_the_file_is_exactly_what_is_filtered(anna, owner):
    answer = owner.get("/transactions.csv?direction=out&from=2026-03-01")
    assert answer.mimetype == "text/csv"
    assert f"transactions-{clock.today()}.csv" in answer.headers["Content-Disposition"]
    assert answer.data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert len(rows) == 5
    assert (rows[0]["Description"], rows[0]["Amount"], rows[0]["Balance after"], rows[0]["Currency"]) == ("Renewal web-1 · 1 month", "-23.80", "57.20", "EUR")
    assert (rows[0]["Date"], rows[0]["Time"][:2]) == ("2026-07-01", "14"), "in the customer's time zone"


@pytest.mark.parametrize("text", ["=1+1", "+49", "-2", "@x", "\tx", " =1", "＝1"])
def test_no_cell_of_the_file_is_a_formula(app, owner, demo_customer, text):
    with db.transaction():
        account = ledger.account("suspense", "EUR")
        wallet.credit(demo_customer.customer_id, Money(100, "EUR"), reference="r", kind="correction", counter=[(account, -100)], description=text)
    (row,) = csv.DictReader(io.StringIO(owner.get("/transactions.csv").data.decode("utf-8-sig")))
    assert row["Description"] == f"'{text}"


def test_a_long_file_comes_whole(app, owner, demo_customer):
    with db.transaction():
        write_movements(demo_customer.customer_id, 2_000)
    lines = owner.get("/transactions.csv").data.decode("utf-8-sig").splitlines()
    assert len(lines) == 2_001
    assert lines[1].startswith("2020-03-20")


def test_a_stranger_sees_nothing_of_it(anna, stranger):
    assert "Nothing has moved yet" in stranger.get("/transactions").text
    assert len(stranger.get("/transactions.csv").data.decode().splitlines()) == 1


@pytest.mark.parametrize("path", ["/transactions", "/transactions?q=movement&min=6", "/transactions?as_of=2020-02-01", "/services", "/refunds"])
def test_a_page_asks_at_most_five_statements_however_long_the_history(app, owner, demo_customer, path, asked):
    with db.transaction():
        write_movements(demo_customer.customer_id, 2_000)
    owner.get(path)
    asked.clear()
    assert owner.get(path).status_code == 200
    assert 0 < len(asked) <= 5, asked


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The statements that were asked."""
    statements: list[str] = []
    fetch = db._fetch
    monkeypatch.setattr(db, "_fetch", lambda connection, sql, params: statements.append(sql) or fetch(connection, sql, params))
    return statements


def test_the_sums_of_a_long_history_come_after_the_rows(app, owner, demo_customer):
    with db.transaction():
        write_movements(demo_customer.customer_id, 2_002)
    assert "2,002 movements" in owner.get("/transactions").text, "without a filter they cost nothing"
    rows = owner.get("/transactions?direction=out", headers=PARTIAL)
    assert "Adding up" in rows.text
    address = re.search(r'id="sums" hx-get="([^"]+)"', rows.text)[1].replace("&amp;", "&")
    sums = owner.get(address, headers=PARTIAL).text
    assert sums.strip().startswith('<span class="sub" id="sums">2,001 movements')
    assert "2,001 movements" in owner.get(address).text, "the link works without a script"


def chips(answer) -> list[tuple[str, str]]:
    """What is said to be filtered by, and where its removal leads."""
    found = re.findall(r'<li><a class="pill" href="([^"]*)"><span class="hush">Remove the filter </span>(.*?)<svg', answer.text)
    return [(html.unescape(words), html.unescape(href)) for href, words in found]


def test_each_filter_in_use_is_named_and_can_be_taken_out_alone(anna, owner):
    answer = owner.get("/transactions?kind=charge&from=2026-02-01&to=2026-04-30&min=1.00&q=web")
    assert chips(answer) == [
        ("Charge", "/transactions?from=2026-02-01&to=2026-04-30&min=1.00&q=web"),
        ("Feb 1, 2026 to Apr 30, 2026", "/transactions?kind=charge&min=1.00&q=web"),
        ("€\N{NO-BREAK SPACE}1.00 or more", "/transactions?kind=charge&from=2026-02-01&to=2026-04-30&q=web"),
        ("Containing “web”", "/transactions?kind=charge&from=2026-02-01&to=2026-04-30&min=1.00"),
    ]
    assert chips(owner.get("/transactions")) == []


def test_a_bank_transfer_is_found_among_the_top_ups(app, owner, demo_customer):
    bill = payments.order_topup(demo_customer.customer_id, Money.of("25", "EUR"))
    payments.start(demo_customer.customer_id, bill.number, "bank-transfer", "")
    bank.import_file(camt([Transfer(25_00, structured=bill.payment_reference)]), "statement.xml")
    answer = owner.get("/transactions?kind=topup")
    assert [amount for _, amount, _ in shown(answer)] == ["+25.00"]
    assert 'value="matched"' not in answer.text
