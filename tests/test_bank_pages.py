"""The pages of a bank transfer: what to send where, waiting for it, and the invoice for payment for who has no profile yet."""

import re
from dataclasses import replace

import pypdfium2
import pytest
import zxingcpp
from flask import Flask

import config
from app import bank, customers, db, invoicing, payments, remittance
from app.customers import User
from app.invoicing import paper, press
from app.money import Money
from tests.banks import Transfer, camt
from tests.conftest import Browser, person, sign_in
from tests.pay import publish_rates, topup
from tests.test_config import SELLER

BILLING = {"kind": "individual", "name": "Nora Neu", "street": "Weg 1", "postcode": "10115", "city": "Berlin", "country": "DE", "vat_id": ""}


def chosen(owner: Browser, user: User, text: str = "100", currency: str = "EUR") -> tuple[invoicing.Bill, str]:
    """A bill, and the address of its transfer's page."""
    bill = topup(user, Money.of(text, currency))
    answer = owner.submit(f"/invoices/{bill.number}/pay", {"method": "bank-transfer"})
    assert answer.status_code == 303
    return bill, answer.headers["Location"]


def test_choosing_the_transfer_shows_what_to_send(owner: Browser, demo_customer: User):
    bill, address = chosen(owner, demo_customer)
    page = owner.get(address).text
    assert bill.payment_reference
    for said in ("Northbyte Hosting GmbH", "DE89 3704 0044 0532 0130 00", "COBADEFFXXX", "100.00", remittance.grouped(bill.payment_reference)):
        assert said in page
    assert re.findall(r'data-copy="([^"]+)"', page) == ["DE89370400440532013000", "100.00", bill.payment_reference]
    assert 'alt="QR code of this transfer, for banking apps"' in page
    assert f'href="/invoices/{bill.number}.pdf"' in page
    assert 'hx-trigger="load' not in page


def test_the_page_tells_when_it_has_arrived(owner: Browser, demo_customer: User):
    bill, address = chosen(owner, demo_customer)
    bank.import_file(camt([Transfer(100_00, structured=bill.payment_reference or "")]), "file.xml")
    page = owner.get(address).text
    assert "€\xa0100.00 added to your balance" in page
    assert "RF" not in page.split("<main")[1].split("</main>")[0]


def test_choosing_it_twice_waits_once(owner: Browser, demo_customer: User):
    bill, address = chosen(owner, demo_customer)
    assert owner.submit(f"/invoices/{bill.number}/pay", {"method": "bank-transfer"}).headers["Location"] == address
    assert "You chose bank transfer for this bill." in owner.get(f"/invoices/{bill.number}/pay").text


def test_a_bill_of_which_a_part_came_says_so(owner: Browser, demo_customer: User):
    bill, _ = chosen(owner, demo_customer)
    bank.import_file(camt([Transfer(60_00, structured=bill.payment_reference or "")]), "file.xml")
    page = owner.get(f"/invoices/{bill.number}/pay").text
    assert "Pay €\xa040.00" in page
    assert "The rest of €\xa0100.00" in page


def test_a_currency_without_an_account_says_so(owner: Browser, demo_customer: User):
    publish_rates(CHF="0.94")
    bill = topup(demo_customer, Money.of("100", "CHF"))
    methods = payments.options(bill).methods
    assert next(method.unavailable for method in methods if method.key == "bank-transfer") == "Only for payments in EUR, GBP, PLN or USD"
    assert owner.submit(f"/invoices/{bill.number}/pay", {"method": "bank-transfer"}).status_code == 422


def test_dollars_come_with_an_account_number_and_no_code(owner: Browser, demo_customer: User):
    publish_rates()
    _, address = chosen(owner, demo_customer, currency="USD")
    page = owner.get(address).text
    assert "026073150 8310567890" in page
    assert "data:image" not in page
    assert "converted to EUR at the rate of the day it arrives" in page


def test_a_stranger_sees_nothing_of_it(owner: Browser, stranger: Browser, demo_customer: User):
    _, address = chosen(owner, demo_customer)
    assert stranger.get(address).status_code == 404


# Invoice for payment


@pytest.fixture
def newcomer(app: Flask) -> Browser:
    """Somebody who has confirmed the address and told nothing else."""
    return sign_in(app.test_client(), person("nora", name=""))


def test_the_details_that_are_missing_are_asked_for_there(newcomer: Browser):
    assert 'name="invoice"' in newcomer.get("/add-funds").text
    page = newcomer.get("/add-funds/invoice?amount=50&currency=EUR").text
    assert 'value="50"' in page
    answer = newcomer.submit("/add-funds/invoice", {**BILLING, "amount": "50", "currency": "EUR"})
    assert answer.status_code == 303
    shown = newcomer.get(answer.headers["Location"]).text
    number = re.findall(r"/invoices/(PF-[\d-]+)\.pdf", shown)[0]
    pdf = newcomer.get(f"/invoices/{number}.pdf")
    assert pdf.mimetype == "application/pdf"
    with pypdfium2.PdfDocument(pdf.data) as document:
        text = re.sub(r"\s+", " ", document[0].get_textpage().get_text_range())
    assert "Nora Neu Weg 1 10115 Berlin" in text
    user = customers.find_user("nora")
    assert user
    assert customers.get(user.customer_id or 0).profile.street == "Weg 1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"street": ""}, "street"),
        ({"amount": "1"}, "smallest top-up"),
        ({"currency": "CHF"}, "We have no bank account in CHF. By transfer you can pay in EUR, USD, PLN, GBP."),
        ({"vat_id": "DE1"}, 'id="vat_id-error"'),
        ({"country": "XX"}, "Choose one from the list."),
    ],
)
def test_what_is_not_right_is_marked_and_nothing_is_issued(newcomer: Browser, change: dict[str, str], says: str):
    answer = newcomer.submit("/add-funds/invoice", {**BILLING, "amount": "50", "currency": "EUR", **change})
    assert answer.status_code == 422
    assert says in answer.text
    assert db.scalar("select count(*) from bills") == 0


# The paper


def printed(bill: invoicing.Bill) -> bytes:
    return press.to_pdf(paper.sheet(db.scalar("select content from documents where bill_id = %(id)s and kind = 'proforma'", id=bill.id)))


def test_the_code_on_the_paper_is_what_a_banking_app_reads(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("1234.50", "EUR"))
    with pypdfium2.PdfDocument(printed(bill)) as document:
        (code,) = zxingcpp.read_barcodes(document[0].render(scale=3).to_pil())
        text = re.sub(r"\s+", " ", document[0].get_textpage().get_text_range())
    assert code.text.split("\n") == ["BCD", "002", "1", "SCT", "COBADEFFXXX", "Northbyte Hosting GmbH", "DE89370400440532013000", "EUR1234.5", "", bill.payment_reference]
    for said in ("IBAN DE89 3704 0044 0532 0130 00", "Account holder Northbyte Hosting GmbH", f"Reference {remittance.grouped(bill.payment_reference or '')}"):
        assert said in text


def test_a_holder_with_an_umlaut_and_the_largest_amount_are_read_back():
    found = remittance.qr("Müller & Söhne GmbH", "DE89370400440532013000", "COBADEFFXXX", Money.of("999999999.99", "EUR"), "PF-2026-000001")
    svg = f'<img src="{found}" width="300">'
    with pypdfium2.PdfDocument(press.to_pdf(press.Sheet("x", svg))) as document:
        (code,) = zxingcpp.read_barcodes(document[0].render(scale=3).to_pil())
    assert code.text.split("\n") == ["BCD", "002", "1", "SCT", "COBADEFFXXX", "Müller & Söhne GmbH", "DE89370400440532013000", "EUR999999999.99", "", "", "PF-2026-000001"]
    assert remittance.qr("x", "DE89370400440532013000", "", Money.of("1000000000", "EUR"), "x") == ""


def test_a_bill_older_than_references_has_no_bank_details(app: Flask, demo_customer: User):
    bill = replace(topup(demo_customer, Money.of("25", "EUR")), payment_reference=None)
    assert invoicing.documents.proforma(bill)["bank"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("EUR | DE89370400440532013001 | COBADEFFXXX | A | B", "is not an IBAN"),
        ("EUR | DE89370400440532013000 | COBA | A | B", "is not a BIC"),
        ("EUR | DE89370400440532013000 | COBADEFFXXX | A", "must be currency"),
        ("Euro | DE89370400440532013000 | COBADEFFXXX | A | B", "is not a currency"),
        ("EUR | DE89370400440532013000 | COBADEFFXXX | A | B; EUR | FR1420041010050500013M02606 | PSSTFRPPXXX | A | B", "two accounts"),
    ],
)
def test_accounts_that_cannot_be_are_refused_at_the_start(text: str, says: str):
    with pytest.raises(config.ConfigError, match=says):
        config.read_accounts(text)


def test_beside_a_real_processor_only_named_accounts_take_money():
    keys = {"DATABASE_URL": "postgresql://x", "SECRET_KEY": "x" * 48}
    assert [account.currency for account in config.load(keys).bank_accounts] == ["EUR", "USD", "PLN", "GBP"]
    real = {**keys, **SELLER, "STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
    assert config.load(real).bank_accounts == ()
    named = config.load({**real, "BANK_ACCOUNTS": "CHF | CH93 0076 2011 6238 5295 7 | POFICHBEXXX | Example AG | PostFinance"}).bank_account("CHF")
    assert named
    assert (named.number, named.has_iban) == ("CH9300762011623852957", True)
