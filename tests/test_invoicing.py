"""Bills: numbers without gaps, snapshots that stay, and nothing paid that should not be."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock, db, invoicing, ledger, wallet
from app.formats import formats
from app.invoicing import Draft, Line, Settlement, series
from app.money import Money

_PROFILE = {
    "kind": "company",
    "name": "Anna Kowalska",
    "company": "Kowalska Studio sp. z o.o.",
    "street": "ul. Piotrkowska 104",
    "postcode": "90-926",
    "city": "Łódź",
    "country": "PL",
    "vat_id": "PL7251801126",
    "vat_id_state": "valid",
}
_PERSON = """
insert into customers (kind, name, company, street, postcode, city, country, vat_id, vat_id_state, billing_email, currency, created_at)
values (%(kind)s, %(name)s, %(company)s, %(street)s, %(postcode)s, %(city)s, %(country)s, %(vat_id)s, %(vat_id_state)s, 'a@example.com', 'EUR', %(now)s)
returning id
"""


def person(login: str = "anna", **fields: str) -> int:
    """A customer with one user; returns the customer's id. Within no transaction."""
    with db.transaction():
        customer_id = db.scalar(_PERSON, **{**_PROFILE, **fields}, now=clock.now())
        db.execute(
            "insert into users (customer_id, login, email, name, password_hash, created_at) values (%(customer)s, %(login)s, %(email)s, 'Anna', '-', %(now)s)",
            customer=customer_id,
            login=login,
            email=f"{login}@example.com",
            now=clock.now(),
        )
    return int(customer_id)


def topup(customer_id: int, minor: int = 25_00) -> invoicing.Bill:
    with db.transaction():
        return invoicing.issue_topup_bill(customer_id, customer_id, Money(minor, "EUR"))


def card(**more: object) -> Settlement:
    return Settlement(**{"paid_at": clock.now(), "method_label": "Visa ···· 4242", "reference": "ch_1", **more})  # type: ignore[arg-type]


def enter(bill: invoicing.Bill) -> None:
    """The ledger's side of a paid bill: money in, and for a service out again. Within a transaction."""
    gateway = ledger.account("gateway", bill.currency, key="test")
    topup = bill.kind == "topup"
    wallet.credit(
        bill.customer_id,
        bill.amount,
        reference=f"paid:{bill.id}",
        kind="topup",
        counter=[(gateway, -bill.total)],
        bill_id=bill.id if topup else None,
    )
    if not topup:
        earned = (ledger.account("revenue", bill.currency), bill.net)
        taxed = (ledger.account("vat", bill.currency, key=bill.buyer["country"]), bill.tax)
        counter = [line for line in (earned, taxed) if line[1]]
        wallet.spend(
            bill.customer_id,
            bill.amount,
            reference=f"charge:{bill.id}",
            counter=counter,
            bill_id=bill.id,
        )


def pay(bill: invoicing.Bill, settlement: Settlement | None = None) -> str:
    with db.transaction():
        enter(bill)
        return invoicing.settle(bill, settlement or card())


def settle_and_fall(bill: invoicing.Bill) -> None:
    with db.transaction():
        enter(bill)
        invoicing.settle(bill, card())
        raise ZeroDivisionError


def test_a_topup_is_issued_with_a_proforma_and_no_vat(app):
    anna = person()
    bill = topup(anna)
    found = invoicing.find(anna, f"PF-{clock.now().year}-000001")
    assert found == bill
    assert (bill.net, bill.tax, bill.total, bill.status) == (25_00, 0, 25_00, "unpaid")
    assert "No VAT is due" in bill.tax_note
    assert bill.buyer["city"] == "Łódź"


def test_settling_gives_invoice_and_receipt(app):
    anna = person()
    bill = topup(anna)
    number = pay(bill)
    found = invoicing.find(anna, number)
    assert found is not None
    assert found == invoicing.find(anna, bill.number)
    assert (found.number, found.receipt_number, found.status) == (number, number.replace("TU", "RC"), "paid")
    assert found.payment is not None
    assert found.payment["method"] == "Visa ···· 4242"


def test_a_stranger_finds_nothing(app):
    bill = topup(person())
    stranger = person("bob")
    assert invoicing.find(stranger, bill.number) is None
    assert invoicing.find(stranger, "PF-1999-000001") is None
    assert invoicing.cancel(stranger, bill.number) is None


def test_a_rollback_leaves_no_hole(app):
    anna = person()
    first, second = topup(anna), topup(anna)
    with pytest.raises(ZeroDivisionError):
        settle_and_fall(first)
    assert pay(second).endswith("-000001")
    assert pay(first).endswith("-000002")


def test_a_bill_is_settled_once(app):
    bill = topup(person())
    pay(bill)
    with pytest.raises(invoicing.AlreadySettled):
        pay(bill)
    assert db.scalar("select last from number_series where kind = 'topup_invoice'") == 1


def test_a_topup_is_never_paid_from_the_balance(app, superuser):
    bill = topup(person())
    with pytest.raises(invoicing.BillError):
        pay(bill, card(source="balance"))
    with pytest.raises(psycopg.errors.CheckViolation, match="topup_is_paid_from_outside"):
        superuser.execute("update bills set status = 'paid', paid_at = now(), invoiced_at = now(), settled_by = 'balance', payment = '{}', invoice_number = 'X'")


def test_late_money_settles_what_expired(app):
    anna = person()
    with clock.travel(clock.now() - timedelta(days=30)):
        bill = topup(anna)
    assert invoicing.expire_due() == 1
    assert invoicing.expire_due() == 0
    assert invoicing.find(anna, bill.number).status == "expired"  # type: ignore[union-attr]
    number = pay(bill)
    assert invoicing.find(anna, number).status == "paid"  # type: ignore[union-attr]


def test_fifty_at_once_get_fifty_numbers_in_a_row(app):
    anna = person()
    bills = [topup(anna) for _ in range(50)]

    def settle(bill: invoicing.Bill) -> str:
        with app.app_context():
            return pay(bill)

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(settle, bills))
    assert sorted(numbers) == [f"TU-{clock.now().year}-{n:06d}" for n in range(1, 51)]


def test_two_payments_of_one_bill_settle_it_once(app):
    bill = topup(person())

    def settle(_: int) -> bool:
        with app.app_context():
            try:
                return bool(pay(bill))
            except invoicing.AlreadySettled:
                return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(settle, range(4))) == [False, False, False, True]
    assert db.rows("select kind, last from number_series order by kind") == [("proforma", 1), ("receipt", 1), ("topup_invoice", 1)]


def test_only_an_unpaid_bill_is_cancelled(app):
    anna = person()
    bill = topup(anna)
    assert invoicing.cancel(anna, bill.number).status == "cancelled"  # type: ignore[union-attr]
    with pytest.raises(invoicing.NotCancellable, match="cancelled"):
        invoicing.cancel(anna, bill.number)


@pytest.mark.parametrize(
    "change",
    [
        "update bills set total = 1, net = 1",
        "update bills set buyer = '{}'",
        "update bills set proforma_number = 'PF-1'",
        "delete from bills",
        "update bill_lines set net = 1",
        "update documents set content = '{}'",
        "delete from documents",
    ],
)
def test_what_is_issued_does_not_change(superuser, change):
    topup(person())
    with pytest.raises(psycopg.errors.RestrictViolation):
        superuser.execute(change)


def test_many_bills_cost_as_many_statements_as_one(app, statements):
    people = [person(f"user{n}") for n in range(5)]
    drafts = [Draft(people[n % 5], f"vps-{n}", "EUR", (Line("VPS", 5_00 + n),), kind="topup", proforma=n % 2 == 0) for n in range(40)]
    with db.transaction():
        before = len(statements)
        bills = invoicing.issue_many(drafts)
        numbers = invoicing.settle_many([(bill, card()) for bill in bills])
        assert len(statements) - before == 5
        for bill in bills:
            enter(bill)
    assert numbers == [f"TU-{clock.now().year}-{n:06d}" for n in range(1, 41)]
    assert [invoicing.find(bill.customer_id, number).title for bill, number in zip(bills, numbers, strict=True)] == [d.title for d in drafts]  # type: ignore[union-attr]


@pytest.fixture
def statements(app, monkeypatch):
    """Every statement sent through `db` while the test runs."""
    sent: list[str] = []
    fetch = db._fetch

    def counted(connection, sql, params):
        sent.append(sql)
        return fetch(connection, sql, params)

    monkeypatch.setattr(db, "_fetch", counted)
    return sent


def service(customer_id: int, **more: object) -> invoicing.Bill:
    lines = (Line("VPS NVMe-4 · vps-7", 14_29), Line("IPv4 address", 83, quantity=100))
    with db.transaction():
        return invoicing.issue_service_bill(customer_id, "vps-7 · VPS NVMe-4", "EUR", lines, months=1, **more)


@pytest.mark.parametrize(
    ("profile", "category", "tax"),
    [
        ({"country": "PL", "vat_id": "PL7251801126"}, "AE", 0),
        ({"country": "PL", "vat_id": "", "vat_id_state": "none"}, "S", 22_38),  # 23 % of 97.29
        ({"country": "DE", "vat_id": "DE136695976"}, "S", 18_49),  # 19 % of 97.29
        ({"country": "CH", "vat_id": "", "vat_id_state": "none"}, "O", 0),
    ],
)
def test_a_service_is_taxed_by_who_buys_where(app, profile, category, tax):
    bill = service(person(**profile))
    assert (bill.tax_category, bill.net, bill.tax, bill.total) == (category, 97_29, tax, 97_29 + tax)
    assert invoicing.total([line.net for line in bill.lines], bill.tax_rate) == invoicing.Totals(bill.net, bill.tax)


def test_tax_is_rounded_once_over_the_sum(app):
    assert invoicing.total([83] * 100, Decimal(20)).tax == 16_60  # per piece it would be 17.00
    assert invoicing.total([14_29], Decimal(24)).total == 17_72
    assert invoicing.total([50], Decimal(1)).tax == 1  # half a cent goes up


def test_a_profile_that_changes_leaves_the_bill_as_it_was(app):
    anna = person()
    bill = topup(anna)
    with db.transaction():
        db.execute("update customers set company = 'Another', country = 'DE' where id = %(id)s", id=anna)
    number = pay(bill)
    assert invoicing.find(anna, number).buyer["company"] == "Kowalska Studio sp. z o.o."  # type: ignore[union-attr]
    content = db.scalar("select content from documents where kind = 'invoice'")
    assert content["buyer"]["company"] == "Kowalska Studio sp. z o.o."


class TestList:
    """The list of bills."""

    @pytest.fixture
    def anna(self, app) -> int:
        """Twelve bills, one a day: 1..12 euro; the first five paid, the sixth cancelled, the seventh expired."""
        anna, bob = person(), person("bob")
        start = datetime(2026, 3, 1, 12, tzinfo=UTC)
        for day in range(12):
            with clock.travel(start + timedelta(days=day)):
                bill = topup(anna, (day + 1) * 100) if day != 8 else service(anna)
                topup(bob)
                if day < 5:
                    pay(bill)
        invoicing.cancel(anna, "PF-2026-000011")
        with clock.travel(start + timedelta(days=15, hours=-12)):
            invoicing.expire_due()
        return anna

    def numbers(self, customer_id: int, **query: str) -> list[str]:
        return [entry.number for entry in invoicing.search(customer_id, invoicing.Filter.from_query(query)).entries]

    def test_every_status_is_reachable_and_counted(self, anna):
        page = invoicing.search(anna, invoicing.Filter.from_query({}))
        assert page.counts == {"": 12, "unpaid": 1, "topup": 5, "paid": 5, "refunded": 0, "cancelled": 1, "expired": 0}
        assert len(page.entries) == 12
        assert page.counted_all
        for status in ("unpaid", "topup", "paid", "refunded", "cancelled", "expired"):
            found = invoicing.search(anna, invoicing.Filter.from_query({"status": status}))
            assert len(found.entries) == page.counts[status]
            assert found.counts == page.counts
        assert invoicing.search(anna, invoicing.Filter.from_query({"status": "paid"})).totals == {"topup": {"EUR": 15_00}}

    def test_kinds_are_told_apart_and_never_added_up(self, anna):
        pay(next(found for found in (invoicing.find(anna, entry.number) for entry in self.page(anna, kind="invoice").entries) if found))
        both, services, topups = (self.page(anna, status="paid", kind=kind) for kind in ("", "invoice", "topup"))
        assert both.totals == {"service": services.totals["service"], "topup": topups.totals["topup"]}
        assert ({entry.kind for entry in services.entries}, {entry.kind for entry in topups.entries}) == ({"service"}, {"topup"})
        assert {entry.number[:3] for entry in services.entries} == {"INV"}
        assert {entry.number[:3] for entry in topups.entries} == {"TU-"}
        assert self.page(anna, kind="credit-note").entries == []

    def page(self, customer_id: int, **query: str) -> invoicing.Page:
        return invoicing.search(customer_id, invoicing.Filter.from_query(query))

    def test_pages_by_keyset_show_each_once(self, anna):
        seen, before = [], ""
        for _ in range(3):
            page = invoicing.search(anna, invoicing.Filter.from_query({"size": "10", "before": before}))
            seen += [entry.number for entry in page.entries]
            before = page.older
            if not before:
                break
        assert len(seen) == len(set(seen)) == 12

    def test_a_page_survives_payment_of_its_cursor(self, anna):
        cursor = self.numbers(anna)[0]
        rest = self.numbers(anna, size="10", before=cursor)
        pay(invoicing.find(anna, cursor))  # type: ignore[arg-type]
        assert self.numbers(anna, size="10", before=cursor) == rest

    def test_filters_find(self, anna):
        assert self.numbers(anna, **{"from": "2026-03-02", "to": "2026-03-03"}) == ["TU-2026-000003", "TU-2026-000002"]
        assert self.numbers(anna, min="4", max="5.00") == ["TU-2026-000005", "TU-2026-000004"]
        assert len(self.numbers(anna, period="1")) == 1
        assert len(self.numbers(anna, q="VPS-7")) == 1
        assert self.numbers(anna, q="tu-2026-000002") == ["TU-2026-000002"]
        assert self.numbers(anna, q="4.00") == ["TU-2026-000004"]
        assert self.numbers(anna, q="%") == []
        assert self.numbers(anna, before="nothing") == []

    @pytest.mark.parametrize(
        ("locale", "asked"),
        [
            ("de", "4,00"),
            ("de", "4,00 €"),
            ("de", "€ 4.00"),
            ("en", "€ 4.00"),
            ("pl", "4,00"),
            ("en", "\N{MINUS SIGN}4.00"),
        ],
    )
    def test_an_amount_is_found_as_its_reader_writes_it(self, anna, locale, asked):
        chosen = invoicing.Filter.from_query({"q": asked}, "EUR", locale)
        found = [entry.number for entry in invoicing.search(anna, chosen).entries]
        assert found == ["TU-2026-000004"]

    def test_what_stands_on_the_paper_is_found(self, anna):
        bill = topup(anna, 77_00)
        reference = bill.payment_reference
        printed = " ".join(reference[at : at + 4] for at in range(0, len(reference), 4))
        for asked in (bill.number, bill.number.lower(), reference, printed):
            assert self.numbers(anna, q=asked) == [bill.number]
        number = pay(bill)
        for asked in (number, bill.number, number.replace("TU", "RC"), printed):
            assert self.numbers(anna, q=asked) == [number]
        assert self.numbers(person("other"), q=number.replace("TU", "RC")) == []

    def test_an_amount_is_found_in_every_currency(self, anna):
        with db.transaction():
            bills = [invoicing.issue_topup_bill(anna, anna, Money.of("40", code)) for code in ("JPY", "KWD", "USD")]
        found = self.numbers(anna, min="39.00", max="41.00")
        assert found == [bill.number for bill in reversed(bills)]
        assert self.numbers(anna, q="40") == found

    def test_another_customers_cursor_says_nothing(self, anna):
        assert self.numbers(anna, before="PF-2026-000002") == []

    def test_two_statements(self, anna, statements):
        del statements[:]
        invoicing.search(anna, invoicing.Filter.from_query({"q": "vps", "status": "paid", "min": "1", "from": "2026-01-01"}))
        assert len(statements) == 2


class TestFilter:
    """Reading and writing of a filter."""

    def test_wrong_values_are_said_and_left_out(self):
        wrong = {"status": "x", "kind": "x", "from": "31.12.", "to": "1024-01-01", "min": "abc", "max": "1.234", "period": "2", "q": "x" * 61, "size": "7"}
        chosen = invoicing.Filter.from_query(wrong)
        assert set(chosen.errors) == set(wrong)
        assert chosen == invoicing.Filter()
        assert all(sentence.endswith(".") for sentence in chosen.errors.values())

    def test_ends_in_the_wrong_order(self):
        chosen = invoicing.Filter.from_query({"from": "2026-02-02", "to": "2026-02-01", "min": "9", "max": "8"})
        assert set(chosen.errors) == {"to", "max"}

    def test_equal_filters_have_one_address(self):
        typed = invoicing.Filter.from_query({"status": "all", "min": " 1.234,50 ", "size": "25", "q": "  vps "}, "EUR", "de")
        assert typed.as_query() == {"min": "1234.50", "q": "vps"}

    @given(
        status=st.sampled_from(["", "paid", "unpaid"]),
        since=st.none() | st.dates(date(2001, 1, 1), date(2100, 1, 1)),
        lowest=st.none() | st.integers(0, 10**12),
        currency=st.sampled_from(["EUR", "JPY", "KWD"]),
        locale=st.sampled_from(["en", "de", "fr", "pl"]),
        q=st.text(max_size=20).map(str.strip).filter(lambda text: "\x00" not in text),
    )
    def test_an_address_reads_back_equal(self, status, since, lowest, currency, locale, q):
        chosen = invoicing.Filter(currency=currency, status=status, since=since, lowest=lowest, q=q)
        again = invoicing.Filter.from_query(chosen.as_query(), currency, locale)
        assert again == chosen
        assert not again.errors

    @given(st.dictionaries(st.sampled_from(["status", "kind", "from", "to", "min", "max", "period", "q", "size", "before"]), st.text(max_size=80)))
    def test_nothing_typed_raises(self, query):
        invoicing.Filter.from_query(query)

    def test_each_thing_filtered_by_is_said_in_words(self):
        chosen = invoicing.Filter.from_query({"status": "paid", "from": "2026-11-01", "min": "20", "period": "3", "q": "vps"})
        words = [words for words, _ in chosen.chips(formats("en_GB", "UTC"))]
        assert words == ["paid", "from 1 Nov 2026", "at least €\u00a020.00", "for 3 months", "“vps”"]
        assert chosen.narrowed
        assert not invoicing.Filter(size=10, before="INV-1").narrowed


def test_the_timeline_tells_every_step(app):
    anna = person()
    bill = topup(anna)
    number = pay(bill)
    steps = invoicing.timeline(invoicing.find(anna, number))  # type: ignore[arg-type]
    assert [step.what for step in steps] == ["Issued", "Credited to the balance", "Paid by Visa ···· 4242"]
    cancelled = invoicing.cancel(anna, topup(anna).number)
    assert [step.what for step in invoicing.timeline(cancelled)] == ["Issued", "Cancelled"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "given", "dated"), [("2026-12-01T23:59:59", "2026-12-02T00:00:02", "2026-12-02"), ("2026-12-31T23:59:59", "2027-01-01T00:00:02", "2026-12-31")])
def test_who_waited_for_a_number_over_midnight_gets_its_day(app, demo_customer, monkeypatch, asked, given, dated):
    """A later number never bears an earlier date, and a number of this year never one of the next."""
    take = series.take
    with ExitStack() as times:
        times.enter_context(clock.travel(datetime.fromisoformat(f"{asked}+01:00")))

        def wait(*wanted):
            times.enter_context(clock.travel(datetime.fromisoformat(f"{given}+01:00")))
            return take(*wanted)

        with db.transaction():
            bill = invoicing.issue_topup_bill(demo_customer.customer_id, demo_customer.customer_id, Money(25_00, "EUR"))
        monkeypatch.setattr("app.invoicing.bills.series.take", wait)
        with db.transaction():
            enter(bill)
            number = invoicing.settle(bill, Settlement(clock.now(), "Card"))
    found = db.row("select number, content from documents where kind = 'invoice'")
    assert (found.number, found.content["issued_on"]) == (number, dated)
    assert number == f"TU-{asked[:4]}-000001"
