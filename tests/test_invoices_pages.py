"""The pages of the bills: who sees what, what the filters answer, and what the files are."""

import csv
import io
import re
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape

import brotli
import pytest
from flask.testing import FlaskClient

from app import clock, customers, db, invoicing
from app.blueprints.invoices import plain_rate
from app.invoicing import Draft, Line, press
from tests.test_invoicing import card, enter, pay, topup

FRAGMENT = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture(autouse=True)
def quick_press(monkeypatch) -> None:
    """Printing is tested elsewhere."""
    monkeypatch.setattr(press, "render", lambda sheets: [f"%PDF-{sheet.number}".encode() for sheet in sheets])


@pytest.fixture
def paid(demo_customer: customers.User) -> str:
    """A paid bill's invoice number."""
    return pay(topup(demo_customer.customer_id))


@pytest.fixture
def unpaid(demo_customer: customers.User) -> str:
    """An unpaid bill's pro forma number."""
    return topup(demo_customer.customer_id).number


def text(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def csrf(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert found
    return found[1]


class TestOwnersOnly:
    """A bill is found among one's own; to anybody else it does not exist."""

    PATHS = ("/invoices/{}", "/invoices/{}.pdf", "/invoices/{}/receipt.pdf", "/invoices.zip?number={}")

    @pytest.mark.parametrize("path", PATHS)
    def test_strangers_get_what_a_wrong_number_gets(self, owner, stranger, paid, path):
        assert owner.get(path.format(paid)).status_code == 200
        foreign, wrong = stranger.get(path.format(paid)), stranger.get(path.format("INV-1999-000001"))
        assert foreign.status_code == wrong.status_code == 404
        assert paid not in foreign.text.replace(f"/invoices/{paid}", "")

    @pytest.mark.parametrize("path", [*PATHS, "/invoices", "/invoices.csv"])
    def test_nobody_is_sent_to_log_in(self, anonymous, paid, path):
        answer = anonymous.get(path.format(paid))
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/login")

    def test_a_stranger_cannot_cancel(self, owner, stranger, paid, unpaid):
        token = csrf(owner, f"/invoices/{unpaid}")
        assert stranger.post(f"/invoices/{unpaid}/cancel", data={"csrf_token": token}).status_code in {400, 404}
        assert db.scalar("select status from bills where proforma_number = %(number)s", number=unpaid) == "unpaid"

    def test_lists_and_files_hold_only_ones_own(self, stranger, paid, unpaid):
        assert "No invoices yet" in stranger.get("/invoices").text
        assert len(stranger.get("/invoices.csv", buffered=True).text.splitlines()) == 1

    def test_support_without_a_customer_sees_no_bills(self, staff, paid):
        assert staff.get(f"/invoices/{paid}").status_code == 403


class TestList:
    """The list."""

    def test_every_row_offers_what_its_state_allows(self, owner, paid, unpaid):
        page = owner.get("/invoices").text
        rows = {number: row for row in page.split("<tr>")[2:] for number in (paid, unpaid) if f"/invoices/{number}" in row}
        assert [words for words in ("Show", "Get invoice", "Get receipt", "Copy the link") if words not in rows[paid]] == []
        assert [words for words in ("Show", "Continue", "Get invoice", "Copy the link", "Forget", "Draft") if words not in rows[unpaid]] == []
        assert "Cancel" not in rows[paid]
        assert "Get receipt" not in rows[unpaid]

    def test_a_partial_request_gets_the_region_and_the_address(self, owner, paid, unpaid):
        answer = owner.get("/invoices?status=paid&q=&size=25", headers=FRAGMENT)
        assert answer.text.lstrip().startswith("<section")
        assert "<html" not in answer.text
        assert answer.headers["HX-Push-Url"] == "/invoices?status=paid"
        assert paid in answer.text
        assert unpaid not in answer.text
        assert "HX-Request" in answer.headers["Vary"]

    def test_blanks_of_a_plain_form_are_dropped_from_the_address(self, owner):
        answer = owner.get("/invoices?q=&from=&to=&min=&max=&period=&status=paid&size=25")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/invoices?status=paid")

    @pytest.mark.parametrize(("query", "sentence"), [("min=abc", "Write the amount in digits"), ("from=31.12.2026", "Write the date like"), ("size=7", "page sizes")])
    def test_what_cannot_be_read_is_said(self, owner, paid, query, sentence):
        for headers in ({}, FRAGMENT):
            answer = owner.get(f"/invoices?{query}", headers=headers)
            assert answer.status_code == 422
            assert sentence in answer.text
        assert paid in answer.text

    def test_the_field_in_error_is_marked(self, owner):
        assert re.search(r'id="min"[^>]*aria-invalid="true"', owner.get("/invoices?min=abc").text)

    def test_empty_states_tell_what_to_do(self, owner, demo_customer):
        assert "The first one is made when you add funds" in owner.get("/invoices").text
        topup(demo_customer.customer_id)
        assert "No invoice matches" in owner.get("/invoices?q=nothing").text
        assert "Nothing older" in owner.get("/invoices?before=PF-1").text

    def test_names_are_escaped(self, owner, demo_customer):
        with db.transaction():
            invoicing.issue_service_bill(demo_customer.customer_id, "<script>alert(1)</script>", "EUR", [Line("<b>x</b>", 100)])
        assert "<script>alert" not in owner.get("/invoices").text
        number = db.scalar("select proforma_number from bills")
        assert "<b>x</b>" not in owner.get(f"/invoices/{number}").text

    def test_five_hundred_bills_cost_what_five_do(self, owner, demo_customer, count_statements):
        many(demo_customer.customer_id, 500)
        owner.get("/invoices")
        for path in ("/invoices", "/invoices?status=paid&q=vps&min=1&from=2020-01-01", "/invoices?size=100"):
            before = len(count_statements)
            assert owner.get(path).status_code == 200
            assert len(count_statements) - before <= 5
        answer = owner.get("/invoices", headers={"Accept-Encoding": "br"})
        assert len(answer.data) <= 12_000
        assert len(brotli.decompress(answer.data)) > 20_000

    def test_older_leads_through_all_of_them(self, owner, demo_customer):
        many(demo_customer.customer_id, 60)
        seen, path = set(), "/invoices?size=25"
        for _ in range(3):
            page = owner.get(path).text
            seen |= set(re.findall(r'name="number" value="([^"]+)"', page))
            older = re.search(r'id="older" href="([^"]+)"', page)
            path = older[1].replace("&amp;", "&") if older else ""
        assert not path
        assert len(seen) == 60


class TestOne:
    """One bill."""

    def test_it_shows_the_document_and_what_happened(self, owner, paid):
        answer = owner.get(f"/invoices/{paid}")
        for words in ("Northbyte Hosting GmbH", "Anna Kowalska", "Account funds", "No VAT is due yet", "Paid by Visa ···· 4242", "ch_1", "Get receipt"):
            assert words in text(answer)

    def test_an_unpaid_one_can_be_paid_and_cancelled(self, owner, unpaid):
        answer = owner.get(f"/invoices/{unpaid}")
        assert f'href="/invoices/{unpaid}/pay"' in answer.text
        assert "Get receipt" not in answer.text

    def test_both_numbers_lead_to_it(self, owner, demo_customer):
        bill = topup(demo_customer.customer_id)
        number = pay(bill)
        assert number in owner.get(f"/invoices/{bill.number}").text

    def test_cancelling(self, owner, unpaid):
        token = csrf(owner, f"/invoices/{unpaid}")
        answer = owner.post(f"/invoices/{unpaid}/cancel", data={"csrf_token": token}, follow_redirects=True)
        assert f"{unpaid} is cancelled. Nothing was charged." in answer.text
        again = owner.post(f"/invoices/{unpaid}/cancel", data={"csrf_token": token}, follow_redirects=True)
        assert "can no longer be cancelled" in again.text

    def test_cancelling_wants_the_token_and_a_bill(self, owner, unpaid):
        assert owner.post(f"/invoices/{unpaid}/cancel").status_code == 400
        assert owner.post("/invoices/PF-1/cancel", data={"csrf_token": csrf(owner, f"/invoices/{unpaid}")}).status_code == 404
        asked = owner.get(f"/invoices/{unpaid}/cancel")
        assert (asked.status_code, "Forget this top-up?" in asked.text) == (200, True)
        assert invoicing.find(1, unpaid).unpaid

    def test_few_statements(self, owner, paid, count_statements):
        owner.get(f"/invoices/{paid}")
        before = len(count_statements)
        owner.get(f"/invoices/{paid}")
        assert len(count_statements) - before <= 5


class TestFiles:
    """PDF, ZIP and CSV."""

    def test_a_pdf_is_a_download_with_a_tag(self, owner, paid):
        answer = owner.get(f"/invoices/{paid}.pdf", headers={"Accept-Encoding": "br"})
        assert answer.data == f"%PDF-{paid}".encode()
        assert answer.headers["Content-Type"] == "application/pdf"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{paid}.pdf"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "private, no-cache"
        again = owner.get(f"/invoices/{paid}.pdf", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")

    def test_the_receipt_and_the_pro_forma(self, owner, paid, unpaid):
        assert f"{paid.replace('TU', 'RC')}.pdf" in owner.get(f"/invoices/{paid}/receipt.pdf").headers["Content-Disposition"]
        assert f"{unpaid}.pdf" in owner.get(f"/invoices/{unpaid}.pdf").headers["Content-Disposition"]
        assert owner.get(f"/invoices/{unpaid}/receipt.pdf").status_code == 404

    def test_when_it_cannot_be_printed_now_it_says_so(self, owner, paid, monkeypatch):
        def jammed(_sheets):
            raise press.PressError("jammed")

        monkeypatch.setattr(press, "render", jammed)
        for path in (f"/invoices/{paid}.pdf", f"/invoices.zip?number={paid}"):
            answer = owner.get(path, follow_redirects=True)
            assert answer.status_code == 200
            assert "The PDF is being prepared" in answer.text

    def test_a_zip_of_what_was_ticked(self, owner, paid, unpaid):
        answer = owner.get(f"/invoices.zip?number={paid}&number={unpaid}")
        assert set(zipfile.ZipFile(io.BytesIO(answer.data)).namelist()) == {f"{paid}.pdf", f"{unpaid}.pdf"}
        assert answer.headers["Content-Disposition"].startswith("attachment")

    @pytest.mark.parametrize("query", ["", "&".join(f"number=INV-{n}" for n in range(51))])
    def test_nothing_or_too_much_ticked_is_said(self, owner, query):
        assert "Tick the invoices you want, 50 at most" in owner.get(f"/invoices.zip?{query}", follow_redirects=True).text

    def test_a_csv_of_what_is_filtered(self, owner, demo_customer, paid, unpaid):
        with db.transaction():
            invoicing.issue_service_bill(demo_customer.customer_id, '=HYPERLINK("http://x")', "EUR", [Line("x", 12_34)])
        answer = owner.get("/invoices.csv?status=unpaid", buffered=True)
        rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert [row["Status"] for row in rows] == ["Unpaid"]
        assert rows[0]["Service or order"] == '\'=HYPERLINK("http://x")'
        assert (rows[0]["Net"], rows[0]["VAT rate"], rows[0]["VAT"], rows[0]["Total"]) == ("12.34", "19", "2.34", "14.68")
        every = list(csv.DictReader(io.StringIO(owner.get("/invoices.csv", buffered=True).text)))
        assert [row["Kind"] for row in every] == ["invoice", "topup", "topup"]

    @pytest.mark.parametrize(("rate", "written"), [("20.000", "20"), ("100", "100"), ("7.700", "7.7"), ("0.000", "0")])
    def test_a_rate_is_a_plain_figure(self, rate, written):
        assert f"{plain_rate(Decimal(rate))}" == written

    def test_who_writes_a_decimal_comma_gets_one_and_semicolons(self, owner, demo_customer, paid):
        with db.transaction():
            db.execute("update users set locale = 'de' where id = %(id)s", id=demo_customer.id)
        rows = list(csv.DictReader(io.StringIO(owner.get("/invoices.csv", buffered=True).text.removeprefix("\ufeff")), delimiter=";"))
        assert [(row["Invoice"], row["Total"], row["Issued"]) for row in rows] == [(paid, "25,00", clock.today().isoformat())]


@pytest.fixture
def count_statements(app, monkeypatch) -> list[str]:
    """Every statement sent while the test runs."""
    sent: list[str] = []
    fetch = db._fetch

    def counted(connection, sql, params):
        sent.append(sql)
        return fetch(connection, sql, params)

    monkeypatch.setattr(db, "_fetch", counted)
    return sent


def many(customer_id: int, count: int) -> None:
    """So many bills at once, four of five paid."""
    lines = (Line("VPS NVMe-4 · vps-7", 20_00),)
    with db.transaction():
        bills = invoicing.issue_many([Draft(customer_id, f"vps-{n} · VPS NVMe-4", "EUR", lines, months=1) for n in range(count)])
        paid = bills[: count * 4 // 5]
        for bill in paid:
            enter(bill)
        invoicing.settle_many([(bill, card()) for bill in paid])


def test_filters_in_use_are_named_and_taken_out_alone(owner, demo_customer):
    page = owner.get("/invoices?from=2026-02-01&to=2026-04-30&max=40.00&period=3&q=vps&size=10").text
    found = re.findall(r'<li><a class="pill" href="([^"]*)"><span class="hush">Remove the filter </span>(.*?)<svg', page)
    assert [(unescape(words), unescape(href)) for href, words in found] == [
        ("Feb 1, 2026 to Apr 30, 2026", "/invoices?max=40.00&period=3&q=vps&size=10"),
        ("At most €\N{NO-BREAK SPACE}40.00", "/invoices?from=2026-02-01&to=2026-04-30&period=3&q=vps&size=10"),
        ("For 3 months", "/invoices?from=2026-02-01&to=2026-04-30&max=40.00&q=vps&size=10"),
        ("“vps”", "/invoices?from=2026-02-01&to=2026-04-30&max=40.00&period=3&size=10"),
    ]


def test_ranges_of_days_are_offered_and_the_chosen_one_is_marked(owner, demo_customer):
    with clock.travel(datetime(2026, 3, 31, 12, tzinfo=UTC)):
        page = owner.get("/invoices?from=2026-02-01&to=2026-02-28&status=paid").text
        piece = owner.get("/invoices?from=2026-02-01&to=2026-02-28", headers=FRAGMENT).text
    ranges = re.findall(r'<a class="item" href="([^"]*)" hx-get="[^"]*" hx-target="#results"( aria-current="true")?>([^<]*)', page)
    assert {word: (unescape(href), bool(chosen)) for href, chosen, word in ranges if "day" in word or "month" in word or "date" in word} == {
        "Any date": ("/invoices?status=paid", False),
        "This month": ("/invoices?status=paid&from=2026-03-01&to=2026-03-31", False),
        "Last month": ("/invoices?status=paid&from=2026-02-01&to=2026-02-28", True),
        "Last 90 days": ("/invoices?status=paid&from=2026-01-01&to=2026-03-31", False),
    }
    assert '<hx-partial hx-target="#invoice-days"' in piece
