"""Every way to pay, out and back, in a browser that knows the processor as another site: its page has an origin of its own."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask
from playwright.sync_api import Page, expect

import config
from app import bank, db, payments
from app.customers import User
from app.money import Money
from app.web import safety
from tests.banks import Transfer, camt
from tests.conftest import BERLIN, person
from tests.fakes import hosted
from tests.fakes.hosted import Hosted
from tests.journeys.conftest import Browsers, Site, Watch, serving
from tests.journeys.test_newcomer import CHIP, balance_minor, order
from tests.pay import publish_rates

AWAY = ("stripe-card", "paypal-paypal", "btcpay-crypto", "nowpayments-crypto")
SOONER = "const later = setTimeout; window.setTimeout = (work, ms, ...more) => later(work, ms === 20000 ? 1500 : ms, ...more)"
"""Whoever waits for a payment page to open waits less long."""
LISTEN = """const place = document.querySelector("#problem");
new MutationObserver(() => console.info(`${place.textContent.trim()} -> ${place.querySelector("a")?.href}`)).observe(place, { childList: true });"""
SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, Hosted]]:
    """The processors, by the key of their first method."""
    with ExitStack() as open_ones:
        found = dict(zip(AWAY, (hosted.stripe(), hosted.paypal(), hosted.btcpay(), hosted.nowpayments()), strict=True))
        for one in found.values():
            open_ones.callback(one.fake.close)
        yield found


@pytest.fixture(scope="module")
def everywhere(settings: config.Settings, application: Flask, pages: dict[str, Hosted]) -> Iterator[Site]:
    """The house with every processor configured, as a seller configures them."""
    stripe, paypal, btcpay, nowpayments = (page.fake for page in pages.values())
    keys = {
        "stripe_secret_key": stripe.secret_key,
        "stripe_webhook_secret": stripe.webhook_secret,
        "stripe_api_base": stripe.url,
        "paypal_client_id": paypal.client_id,
        "paypal_secret": paypal.secret,
        "paypal_webhook_id": paypal.webhook_id,
        "paypal_merchant_id": paypal.merchant_id,
        "paypal_api_base": paypal.url,
        "btcpay_url": btcpay.url,
        "btcpay_store_id": btcpay.store_id,
        "btcpay_api_key": btcpay.api_key,
        "btcpay_webhook_secret": btcpay.secret,
        "nowpayments_api_key": nowpayments.api_key,
        "nowpayments_ipn_secret": nowpayments.secret,
        "nowpayments_api_base": nowpayments.url,
    }
    with serving(settings, application, **keys) as site:
        yield site


@pytest.fixture
def site(everywhere: Site, app: Flask, settings: config.Settings) -> Iterator[Site]:
    """It on an empty database."""
    everywhere.open_for_business()
    with everywhere.app.app_context():
        yield everywhere
    Site(app, settings).open_for_business()


@pytest.fixture
def anna(site: Site) -> User:
    """A customer who can pay."""
    publish_rates()
    return person("anna", profile=BERLIN)


def go(page: Page, key: str) -> None:
    """Choose a way and leave by it."""
    page.locator(f"label:has(input[value={key}])").click()
    page.get_by_role("button", name=re.compile("^Pay ")).click()


def at(page: Page, processor: Hosted) -> None:
    """The page is the processor's, at its own origin."""
    expect(page.get_by_role("heading", name=processor.title)).to_be_visible()
    assert page.url.startswith(f"{processor.fake.url}/")


def there(page: Page, button: str) -> None:
    """Press a button of the processor's page."""
    page.get_by_role("button", name=button).click()


@SCRIPTS
@pytest.mark.parametrize("key", AWAY)
def test_the_way_out_and_back(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted], key: str, scripts: bool) -> None:
    page = browsers.window(anna, java_script_enabled=scripts)
    number = order(page, "25", scripts=scripts)
    go(page, key)
    at(page, pages[key])
    there(page, "Cancel there")
    expect(page).to_have_url(re.compile(f"^{site.url}/(invoices|payments)/"))
    assert balance_minor(anna) == 0

    page.goto(f"/invoices/{number}/pay")
    go(page, key)
    at(page, pages[key])
    there(page, "Pay there")
    expect(page).to_have_url(re.compile(f"^{site.url}/payments/pay_"))
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()
    expect(page.locator(CHIP)).to_contain_text("25.00")
    assert balance_minor(anna) == 25_00
    assert db.scalar("select count(*) from payments where state = 'paid'") == 1


@SCRIPTS
def test_the_sandbox_out_and_back(browsers: Browsers, site: Site, anna: User, scripts: bool) -> None:
    page = browsers.window(anna, java_script_enabled=scripts)
    number = order(page, "25", scripts=scripts)
    go(page, "sandbox-card")
    page.get_by_role("button", name="Cancel and go back").click()
    expect(page).to_have_url(re.compile(f"^{site.url}/invoices/"))
    page.goto(f"/invoices/{number}/pay")
    go(page, "sandbox-card")
    page.get_by_role("button", name=re.compile("^Pay €")).click()
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()
    expect(page.locator(CHIP)).to_contain_text("25.00")


@SCRIPTS
def test_a_bank_transfer_from_the_instructions_to_the_balance(browsers: Browsers, site: Site, anna: User, scripts: bool) -> None:
    page = browsers.window(anna, java_script_enabled=scripts)
    number = order(page, "25", scripts=scripts)
    go(page, "bank-transfer")
    expect(page.get_by_role("heading", name=re.compile("Waiting for your transfer"))).to_be_visible()
    reference = db.scalar("select payment_reference from bills where proforma_number = %(number)s", number=number)
    bank.import_file(camt([Transfer(25_00, structured=reference)]), "statement.xml")
    page.reload()
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()
    expect(page.locator(CHIP)).to_contain_text("25.00")


@SCRIPTS
@pytest.mark.parametrize("key", AWAY)
def test_a_guest_out_and_back(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted], key: str, scripts: bool) -> None:
    bill = payments.order_topup(anna.customer_id or 0, Money.of("25.00", "EUR"))
    link = payments.share(anna.customer_id or 0, bill.number)
    assert link
    guest = browsers.window(java_script_enabled=scripts)
    guest.goto(link.path)
    go(guest, key)
    at(guest, pages[key])
    there(guest, "Cancel there")
    expect(guest).to_have_url(re.compile(f"^{site.url}/(pay|paid)/"))
    guest.goto(link.path)
    go(guest, key)
    at(guest, pages[key])
    there(guest, "Pay there")
    expect(guest).to_have_url(re.compile(f"^{site.url}/paid/"))
    expect(guest.get_by_role("heading", name=re.compile("25.00 paid"))).to_be_visible()
    assert balance_minor(anna) == 25_00


@SCRIPTS
def test_a_card_is_saved_there(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted], scripts: bool) -> None:
    page = browsers.window(anna, java_script_enabled=scripts)
    page.goto("/cards")
    page.get_by_label("Save a card").check()
    page.get_by_role("button", name="Continue").click()
    at(page, pages["stripe-card"])
    there(page, "Pay there")
    expect(page.get_by_text("Your card is saved.")).to_be_visible()


def test_a_browser_that_refuses_the_way_says_so_and_offers_a_link(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted], watch: Watch) -> None:
    """The processor's page sends on, at once, to an origin nobody named: forms may not lead there, links may."""
    btcpay = pages["btcpay-crypto"]
    page = browsers.window(anna)
    order(page, "25")
    btcpay.detour = f"{btcpay.fake.url.replace('localhost', '127.0.0.1')}/i/Elsewhere"
    go(page, "btcpay-crypto")
    said = page.locator("#problem")
    expect(said).to_contain_text("Your browser did not open the payment page. Nothing was charged.")
    assert page.url.startswith(site.url)
    watch.found[:] = [one for one in watch.found if "form-action" not in one]
    said.get_by_role("link", name="Open it here").click()
    at(page, btcpay)
    there(page, "Pay there")
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()


@SCRIPTS
def test_a_page_at_an_origin_nobody_named_is_reached_by_a_link(
    browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted], scripts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    btcpay = pages["btcpay-crypto"]
    named = btcpay.fake.url
    page = browsers.window(anna, java_script_enabled=scripts)
    order(page, "25", scripts=scripts)
    monkeypatch.setattr(btcpay.fake, "url", named.replace("localhost", "127.0.0.1"))
    go(page, "btcpay-crypto")
    at(page, btcpay)
    there(page, "Pay there")
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()


def test_whoever_comes_back_without_paying_finds_the_way_there_again(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted]) -> None:
    page = browsers.window(anna)
    number = order(page, "25")
    go(page, "paypal-paypal")
    at(page, pages["paypal-paypal"])
    page.goto(f"/invoices/{number}/pay")
    expect(page.get_by_text("A payment page is open for this bill.")).to_be_visible()
    page.get_by_role("link", name="Go to the payment page").click()
    at(page, pages["paypal-paypal"])


def test_an_address_that_does_not_answer_is_said_after_a_while(browsers: Browsers, site: Site, anna: User, pages: dict[str, Hosted]) -> None:
    """While the browser still tries, its driver answers nothing; what the page says is heard over its console."""
    page, heard = browsers.window(anna), []
    page.add_init_script(SOONER)
    page.on("console", lambda message: heard.append(message.text))
    order(page, "25")
    paypal = pages["paypal-paypal"]
    paypal.silence.clear()
    try:
        page.locator("label:has(input[value=paypal-paypal])").click()
        page.evaluate(LISTEN)
        page.evaluate("setTimeout(() => document.querySelector('#quote button').click(), 100)")
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            page.wait_for_timeout(200)
    finally:
        paypal.silence.set()
    assert heard == [f"The payment page has not opened yet. Nothing was charged. Open it here -> {paypal.fake.url}/checkoutnow?token={next(reversed(paypal.fake.orders))}"]


@SCRIPTS
def test_the_page_says_what_the_chosen_way_does(browsers: Browsers, site: Site, anna: User, scripts: bool) -> None:
    page = browsers.window(anna, java_script_enabled=scripts)
    order(page, "25", scripts=scripts)
    quote, leads_away = page.locator("#quote"), "continue on the processor's secure page"
    if not scripts:
        assert leads_away not in quote.inner_text()
        return
    expect(quote).to_contain_text(leads_away)
    page.locator("label:has(input[value=bank-transfer])").click()
    expect(quote).to_contain_text("The next page shows where to send the money.")
    expect(quote).not_to_contain_text(leads_away)
    page.locator("label:has(input[value=stripe-card])").click()
    expect(quote).to_contain_text(leads_away)


def test_the_policy_names_no_more_than_it_must(site: Site, pages: dict[str, Hosted]) -> None:
    policy = site.app.test_client().get("/login").headers["Content-Security-Policy"]
    assert policy == safety.content_policy([page.fake.url for page in pages.values()])
