"""Somebody without an account pays for somebody else: a top-up that was asked for, and a bill whose link was copied."""

import re

import pytest
from playwright.sync_api import Page, expect

from app import db, invoicing, payments
from app.customers import User
from app.money import Money
from tests.conftest import BERLIN, person
from tests.journeys.conftest import Browsers, Site
from tests.pay import publish_rates


@pytest.fixture
def anna(site: Site) -> User:
    """Whose balance it is."""
    publish_rates()
    return person("anna", profile=BERLIN)


def balance_minor(user: User) -> int:
    """What the ledger says she has."""
    return int(db.scalar("select coalesce(sum(balance), 0) from accounts where kind = 'wallet' and customer_id = %(id)s", id=user.customer_id))


def fill_in(page: Page) -> None:
    """What the receipt needs."""
    for label, value in (("Your name", "Gustav Guest"), ("E-mail", "gustav@example.com"), ("Street and number", "Weg 2"), ("Postcode", "10115"), ("City", "Berlin")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Country").select_option("DE")


def pay_there(page: Page) -> None:
    """Choose the card and pay at the processor's."""
    page.locator("label", has_text="Bank card").click()
    page.get_by_role("button", name=re.compile("^Pay ")).click()
    expect(page).to_have_url(re.compile("/sandbox/pay/"))
    page.get_by_role("button", name=re.compile("^Pay ")).first.click()
    expect(page).to_have_url(re.compile("/paid/"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_guest_tops_somebody_up_and_gets_the_papers(browsers: Browsers, site: Site, anna: User, scripts: bool) -> None:
    mine = browsers.window(anna, java_script_enabled=scripts)
    mine.goto("/add-funds")
    mine.get_by_role("link", name="Ask someone to top you up").click()
    mine.get_by_role("button", name="Make the link").click()
    link = mine.get_by_label(re.compile("^Link of")).input_value()

    guest = browsers.window(java_script_enabled=scripts)
    guest.goto(link)
    expect(guest.get_by_role("heading", name="Top up Anna Kowalska")).to_be_visible()
    guest.get_by_label("Amount", exact=True).fill("30")
    guest.get_by_label("Currency").select_option("USD")
    if not scripts:
        guest.get_by_role("button", name="Show what is added").click()
    expect(guest.locator("#quote")).to_contain_text("Added to the balance")
    fill_in(guest)
    guest.get_by_role("button", name="Continue to payment").click()
    expect(guest).to_have_url(re.compile("/pay/"))
    expect(guest.get_by_text("For Anna Kowalska")).to_be_visible()
    pay_there(guest)
    expect(guest.get_by_role("heading", name=re.compile("30.00 paid"))).to_be_visible()
    with guest.expect_download() as waiting:
        guest.get_by_role("link", name="Get receipt").click()
    assert re.match(r"RC-\d{4}-\d{6}\.pdf", waiting.value.suggested_filename)
    site.work()
    invoicing.render_pending()
    assert balance_minor(anna) == db.scalar("select credited from payments") > 0
    mine.goto("/transactions")
    expect(mine.get_by_text("Top-up by your link")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_copied_link_pays_the_bill_of_somebody_else(browsers: Browsers, site: Site, anna: User, scripts: bool) -> None:
    number = payments.order_topup(anna.customer_id or 0, Money.of("25.00", "EUR")).number
    mine = browsers.window(anna, java_script_enabled=scripts)
    if scripts:
        mine.context.grant_permissions(["clipboard-read", "clipboard-write"])
    mine.goto("/invoices")
    mine.get_by_label(f"Action for {number}").click()
    mine.locator(".pop").get_by_role("button", name="Copy the link").click()
    if scripts:
        expect(mine.get_by_text("Link copied. Whoever has it can pay this bill.")).to_be_visible()
        link = mine.evaluate("navigator.clipboard.readText()")
    else:
        link = mine.get_by_label("Link to pay this bill").input_value()
    assert link.startswith(f"{site.url}/pay/")

    guest = browsers.window(java_script_enabled=scripts)
    guest.goto(link)
    expect(guest.get_by_text(number)).to_be_visible()
    expect(guest.get_by_text("Kowalska")).to_have_count(0)
    pay_there(guest)
    expect(guest.get_by_role("heading", name=re.compile("25.00 paid"))).to_be_visible()
    assert balance_minor(anna) == 25_00
    guest.goto(link)
    expect(guest.get_by_text("This is paid.")).to_be_visible()


def test_a_revoked_link_is_dead(browsers: Browsers, site: Site, anna: User) -> None:
    bill = payments.order_topup(anna.customer_id or 0, Money.of("25.00", "EUR"))
    link = payments.share(anna.customer_id or 0, bill.number)
    assert link
    mine, guest = browsers.window(anna), browsers.window()
    mine.goto(f"/invoices/{bill.number}")
    mine.get_by_role("button", name="Revoke").click()
    expect(mine.get_by_text("The link is revoked.")).to_be_visible()
    guest.goto(link.path)
    expect(guest.get_by_role("heading", name="This link does not work")).to_be_visible()
