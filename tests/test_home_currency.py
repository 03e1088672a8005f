"""VAT in the seller's currency on invoices in another (Directive 2006/112/EC, Article 230)."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from flask import Flask

import config
from app import clock, db, fx, invoicing, tax
from app.invoicing import Bill, Line, Settlement, paper
from app.money import Money
from tests.money_helpers import EUR, JPY, PLN, USD
from tests.test_documents import content_of, printed, text_of
from tests.test_fx import FEED, FRIDAY, NOON, feed
from tests.test_invoicing import card, enter, pay, person

GERMAN = {"country": "DE", "vat_id": "DE136695976", "postcode": "10115", "city": "Berlin"}


@pytest.fixture
def friday(app: Flask) -> Iterator[None]:
    """Friday 30 October 2026, with the ECB's real rates of that day: 1 EUR = 1.1172 USD."""
    with clock.travel(NOON):
        fx.import_feed(FEED)
        yield


def paid(minor: int = 100_00, currency: str = "USD", settlement: Settlement | None = None, **profile: str) -> Bill:
    """A paid invoice of one line, of a German company unless said otherwise."""
    customer_id = person(**{**GERMAN, **profile})
    with db.transaction():
        db.execute("update customers set currency = %(currency)s where id = %(id)s", currency=currency, id=customer_id)
        line = (Line("VPS NVMe-4", minor),)
        bill = invoicing.issue_service_bill(customer_id, "VPS NVMe-4", currency, line)
    number = pay(bill, settlement)
    found = invoicing.find(customer_id, number)
    assert found is not None
    return found


def sold_in(country: str, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seller moves to another country, with a VAT ID there."""
    seller = replace(settings.seller, country=country, vat_id=f"{country}1")
    monkeypatch.setattr(config, "_current", replace(settings, seller=seller))


def home_tax(bill: Bill) -> dict | None:
    return content_of(bill, "invoice")["payment"].get("home_tax")


def test_an_invoice_in_dollars_says_its_vat_in_euro(friday):
    bill = paid()
    assert (bill.tax, bill.total) == (19_00, 119_00)
    assert home_tax(bill) == {
        "currency": "EUR",
        "on": "2026-10-30",
        "amount": 17_01,  # 19.00 / 1.1172 = 17.0068
        "base": "EUR",
        "quote": "USD",
        "rate": "1.1172",
        "rate_date": "2026-10-30",
        "source": "ECB",
    }
    text = text_of(printed(bill, "invoice"))
    assert "VAT 19% 19.00" in text
    assert "VAT in EUR € 17.01" in text
    assert "VAT in EUR at 1 EUR = 1.1172 USD (ECB, October 30, 2026)." in text


def test_the_page_of_a_bill_says_the_same_as_its_invoice(friday):
    bill = paid()
    assert paper.on_screen(bill, paper.formats("en_GB", "UTC")).home_tax == home_tax(bill)


def test_the_receipt_and_the_pro_forma_say_nothing_of_it(friday):
    bill = paid()
    assert "VAT in EUR" not in text_of(printed(bill, "receipt"))
    assert "VAT in EUR" not in text_of(printed(bill, "proforma"))


@pytest.mark.parametrize(
    ("currency", "profile"),
    [
        ("EUR", {}),
        ("USD", {"country": "PL", "vat_id": "PL7251801126"}),  # reverse charge
        ("USD", {"country": "CH", "vat_id": ""}),  # outside the Union
    ],
)
def test_nothing_is_said_where_there_is_no_vat_or_it_is_in_euro_already(friday, currency, profile):
    assert home_tax(paid(currency=currency, **profile)) is None


def test_without_a_rate_it_is_paid_all_the_same_and_says_so(app):
    with clock.travel(NOON):
        bill = paid()
    assert home_tax(bill) == {"currency": "EUR", "on": "2026-10-30", "amount": None}
    assert "VAT in EUR: no ECB rate of October 30, 2026." in text_of(printed(bill, "invoice"))


@pytest.mark.parametrize(("days", "amount"), [(0, 17_01), (3, 17_01), (5, None)])
def test_the_rate_is_the_newest_of_its_day_and_never_a_stale_one(friday, days, amount):
    with clock.travel(NOON + timedelta(days=days)):
        stated = home_tax(paid())
    assert stated is not None
    assert stated["amount"] == amount


def test_the_rate_is_of_the_day_of_payment_not_of_the_day_it_was_told(friday):
    with clock.travel(NOON + timedelta(days=3)):
        fx.import_feed(feed(FRIDAY + timedelta(days=3), USD="1.2"))
        late, today = paid(settlement=card(paid_at=NOON)), paid(login="bob")
    assert [(each["amount"], each["rate_date"]) for each in (home_tax(late) or {}, home_tax(today) or {})] == [(17_01, "2026-10-30"), (15_83, "2026-11-02")]


@pytest.mark.parametrize(
    ("seller", "currency", "minor", "vat", "stated", "rate"),
    [
        ("PL", "EUR", 100_00, 23_00, PLN("101.29"), "1 EUR = 4.4038 PLN"),
        ("PL", "USD", 100_00, 23_00, PLN("90.66"), "1 USD = 3.94182 PLN"),
        ("DE", "JPY", 10_000, 1_900, EUR("10.82"), "1 EUR = 175.68 JPY"),
    ],
)
def test_any_pair_of_currencies(friday, settings, monkeypatch, seller, currency, minor, vat, stated, rate):
    sold_in(seller, settings, monkeypatch)
    buyer = {"country": seller, "vat_id": "", "vat_id_state": "none"}
    bill = paid(minor, currency, **buyer)
    said = paper.printed(content_of(bill, "invoice"))
    assert bill.tax == vat
    assert said.home_tax is not None
    assert Money(said.home_tax["amount"], said.home_tax["currency"]) == stated
    assert f"at {rate} (ECB, October 30, 2026)." in said.home_tax_note


def test_a_reference_rate_is_rounded_half_up_once(friday):
    rate = fx.reference("USD", "EUR", FRIDAY)
    assert rate is not None
    assert rate.convert(USD("0.05")) == EUR("0.04")  # 0.04475
    assert rate.convert(EUR("1")) == USD("1.12")
    yen = fx.reference("JPY", "EUR", FRIDAY)
    assert yen is not None
    assert yen.convert(JPY("1")) == EUR("0.01")  # 0.00569


def test_a_currency_that_nobody_quotes_has_no_reference_rate(friday):
    assert fx.reference("KWD", "EUR", FRIDAY) is None
    assert fx.reference("USD", "XTS", FRIDAY) is None


def test_many_invoices_ask_once(friday, monkeypatch):
    asked = []
    monkeypatch.setattr(fx, "reference", lambda *pair, _was=fx.reference: asked.append(pair) or _was(*pair))
    customer_id = person(**GERMAN)
    with db.transaction():
        lines = [(Line("VPS", 100_00 + n),) for n in range(5)]
        bills = [invoicing.issue_service_bill(customer_id, "VPS", "USD", line) for line in lines]
        for bill in bills:
            enter(bill)
        invoicing.settle_many([(bill, card(source="balance")) for bill in bills])
    assert asked == [("USD", "EUR", FRIDAY)]


@pytest.mark.parametrize(
    ("country", "day", "currency"),
    [
        ("DE", date(2026, 12, 1), "EUR"),
        ("HR", date(2022, 12, 31), "HRK"),
        ("HR", date(2023, 1, 1), "EUR"),
        ("BG", date(2025, 12, 31), "BGN"),
        ("BG", date(2026, 1, 1), "EUR"),
        ("PL", date(2026, 12, 1), "PLN"),
        ("CH", date(2026, 12, 1), "CHF"),
        ("XX", date(2026, 12, 1), None),
    ],
)
def test_the_currency_of_a_country(country, day, currency):
    assert tax.currency_of(country, day) == currency


def test_the_moment_before_midnight_belongs_to_the_day_before(friday):
    with clock.travel(datetime(2026, 11, 2, 23, 30, tzinfo=UTC)):  # in Berlin it is the 3rd already
        stated = home_tax(paid())
    assert stated is not None
    assert stated["on"] == "2026-11-03"
