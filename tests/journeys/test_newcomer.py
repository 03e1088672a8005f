"""The whole way of one euro, as somebody goes it who has never been here: by mouse and keyboard, with and without scripts."""

import re
from pathlib import Path

import pypdfium2
import pytest
from playwright.sync_api import Download, Page, expect

from app import clock, db
from app.customers import User
from app.money import Money
from tests.conftest import BERLIN, PASSWORD, person
from tests.journeys.conftest import Browsers, Site
from tests.pay import publish_rates
from tests.world import link

CHIP = "#balance-chip"


def read(download: Download, folder: Path) -> str:
    """The text of a downloaded PDF."""
    file = folder / download.suggested_filename
    download.save_as(file)
    document = pypdfium2.PdfDocument(file)
    pages = [sheet.get_textpage() for sheet in document]
    text = "\n".join(page.get_text_bounded() for page in pages)
    for page in pages:
        page.close()
    document.close()
    return text


def register(page: Page) -> None:
    """From the start page to an account whose address is confirmed by the mailed link."""
    page.goto("/")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Login", exact=True).fill("nora")
    page.get_by_label("E-mail").fill("nora@example.com")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    expect(page).to_have_url(re.compile("/balance$"))
    page.goto("/sandbox/mail")
    page.get_by_role("link", name="Confirm your e-mail address").click()
    page.locator(".letter a[href*=verify]").click()
    page.get_by_role("button", name="Confirm this address").click()
    expect(page.get_by_text("nora@example.com is confirmed.")).to_be_visible()


def log_out_and_in(page: Page) -> None:
    """Leave by the account menu, come back by the form as people type it: login, Tab, password, Enter."""
    page.locator("summary.person").click()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Login or e-mail").fill("nora")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/balance$"))


def fill_in_profile(page: Page) -> None:
    """Payment is blocked, with a link to what is missing; filling it in leads back."""
    page.get_by_label("Add funds").first.click()
    expect(page.get_by_role("button", name="Continue to payment")).to_be_disabled()
    page.get_by_role("link", name="Complete the profile").click()
    page.get_by_label("Your name").fill("Nora Łódzka")
    page.get_by_label("Street and number").fill("Turmstraße 12")
    page.get_by_label("Postcode").fill("10559")
    page.get_by_label("City").fill("Berlin")
    page.get_by_label("Country").select_option("DE")
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile("/add-funds"))


def order(page: Page, amount: str, *, scripts: bool = True) -> str:
    """From the form to the payment page of a bill; its number."""
    page.goto("/add-funds")
    page.get_by_label("Amount", exact=True).fill(amount)
    if not scripts:
        page.get_by_role("button", name="Show what I get").click()
    expect(page.locator("#quote")).to_contain_text("Added to your balance")
    page.get_by_role("button", name="Continue to payment").click()
    expect(page).to_have_url(re.compile(r"/invoices/PF-\d{4}-\d{6}/pay$"))
    return page.url.split("/")[-2]


def go_to_processor(page: Page, method: str = "Bank card") -> None:
    """Choose a method and leave for the processor's own page."""
    page.locator("label", has_text=method).click()
    page.get_by_role("button", name=re.compile("^Pay ")).click()
    expect(page).to_have_url(re.compile("/sandbox/pay/"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_newcomer_adds_25_euro_and_gets_the_invoice(browsers: Browsers, site: Site, tmp_path: Path, scripts: bool) -> None:
    page = browsers.window(java_script_enabled=scripts)
    register(page)
    log_out_and_in(page)
    expect(page.locator(CHIP)).not_to_contain_text("€")
    fill_in_profile(page)
    proforma = order(page, "25", scripts=scripts)
    go_to_processor(page)
    page.get_by_role("button", name=re.compile("^Pay €")).click()

    expect(page).to_have_url(re.compile("/payments/"))
    expect(page.get_by_role("heading", name=re.compile("25.00 added to your balance"))).to_be_visible()
    expect(page.locator(CHIP)).to_contain_text("25.00")
    site.work()

    page.get_by_role("navigation", name="Client Area").get_by_role("link", name="Transactions").click()
    row = page.locator("#results tbody tr, #results li").filter(has_text="+25.00")
    expect(row).to_have_count(1)
    assert len(re.findall(r"25\.00", row.inner_text())) == 2, "the amount and the balance after it"

    page.get_by_role("navigation", name="Client Area").get_by_role("link", name="Invoices").click()
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Paid")
    number = row.locator("td.what a").inner_text()
    assert re.fullmatch(r"TU-\d{4}-000001", number)

    text = get(page, number, "Get invoice", tmp_path)
    for words in (number, proforma, "Nora Łódzka", "Turmstraße 12", "25.00"):
        assert words in text
    receipt = get(page, number, "Get receipt", tmp_path)
    assert re.search(r"RC-\d{4}-000001", receipt)
    assert "Visa •••• 4242" in receipt


def get(page: Page, number: str, item: str, folder: Path) -> str:
    """Download a document by the row's Action menu; its text."""
    page.reload()
    page.get_by_label(f"Action for {number}").click()
    with page.expect_download() as waiting:
        page.locator(".pop").get_by_role("link", name=item).click()
    download = waiting.value
    wanted = number if item == "Get invoice" else "RC-"
    assert re.search(rf"{wanted}.*\.pdf$", download.suggested_filename)
    return read(download, folder)


# What a payment may do


@pytest.fixture
def anna(site: Site) -> User:
    """A customer who can pay."""
    publish_rates()
    return person("anna", profile=BERLIN)


@pytest.fixture
def anna_in(anna: User, browsers: Browsers) -> Page:
    """Her window."""
    return browsers.window(anna)


def balance_minor(user: User) -> int:
    """What the ledger says she has."""
    return int(db.scalar("select coalesce(sum(balance), 0) from accounts where kind = 'wallet' and customer_id = %(id)s", id=user.customer_id))


def test_a_declined_card_is_explained_and_another_method_works(anna: User, anna_in: Page) -> None:
    number = order(anna_in, "40")
    go_to_processor(anna_in)
    anna_in.get_by_role("button", name="Not enough money").click()
    expect(anna_in.get_by_role("heading", name="The payment did not go through")).to_be_visible()
    expect(anna_in.locator("#status")).to_contain_text("There is not enough money for this payment.")
    expect(anna_in.locator("#status")).to_contain_text(f"{number} stays payable")
    assert balance_minor(anna) == 0
    anna_in.get_by_role("link", name="Pay by PayPal").click()
    expect(anna_in.locator("input[name=method]:checked")).to_have_value("sandbox-paypal")
    anna_in.get_by_role("button", name=re.compile("^Pay ")).click()
    anna_in.get_by_role("button", name=re.compile("^Pay €")).click()
    expect(anna_in.get_by_role("heading", name=re.compile("40.00 added"))).to_be_visible()
    assert balance_minor(anna) == 40_00


@pytest.mark.parametrize(("answer", "heading", "credited"), [("Confirm the payment", "30.00 added", 30_00), ("It is not me", "did not go through", 0)])
def test_the_bank_asks_by_3d_secure(anna: User, anna_in: Page, answer: str, heading: str, credited: int) -> None:
    order(anna_in, "30")
    go_to_processor(anna_in)
    anna_in.get_by_role("button", name="Pay with 3-D Secure").click()
    expect(anna_in.get_by_role("heading", name="Your bank asks: is it you?")).to_be_visible()
    assert balance_minor(anna) == 0
    anna_in.get_by_role("button", name=answer).click()
    expect(anna_in.get_by_role("heading", name=re.compile(heading))).to_be_visible()
    assert balance_minor(anna) == credited


def test_a_pending_payment_becomes_final_by_itself(anna: User, anna_in: Page) -> None:
    order(anna_in, "60")
    go_to_processor(anna_in)
    anna_in.get_by_role("button", name="Settle a little later").click()
    expect(anna_in.get_by_role("heading", name=re.compile("60.00 is on its way"))).to_be_visible()
    before = anna_in.url
    with db.transaction():
        db.execute("update sandbox_sessions set next_at = %(now)s", now=clock.now())  # what the processor waits for has happened
    expect(anna_in.get_by_role("heading", name=re.compile("60.00 added"))).to_be_visible()
    expect(anna_in.locator(CHIP)).to_contain_text("60.00")
    assert anna_in.url == before
    assert balance_minor(anna) == 60_00


def test_dollars_into_a_euro_account_are_credited_as_shown(anna: User, anna_in: Page) -> None:
    anna_in.goto("/add-funds")
    anna_in.get_by_label("Amount", exact=True).fill("100")
    anna_in.get_by_label("Currency", exact=True).select_option("USD")
    shown = anna_in.locator("#quote dl .strong dd")
    expect(shown).to_contain_text("€")
    promised = shown.inner_text()
    assert Money.of("92.27", "EUR") == Money.parse(promised.lstrip("€").strip(), "EUR", "en")
    expect(anna_in.locator("#quote")).to_contain_text("Rate held")
    anna_in.get_by_role("button", name="Continue to payment").click()
    expect(anna_in.locator("#quote")).to_contain_text(promised)
    go_to_processor(anna_in)
    anna_in.get_by_role("button", name=re.compile("^Pay ")).first.click()
    expect(anna_in.get_by_role("heading", name=f"{promised} added to your balance")).to_be_visible()
    assert balance_minor(anna) == 92_27


def test_a_second_click_on_pay_makes_one_payment(anna: User, anna_in: Page) -> None:
    order(anna_in, "25")
    anna_in.locator("label", has_text="Bank card").click()
    anna_in.get_by_role("button", name=re.compile("^Pay ")).dblclick(no_wait_after=True)
    expect(anna_in).to_have_url(re.compile("/sandbox/pay/"))  # the second click ends the navigation of the first
    anna_in.wait_for_load_state()
    anna_in.go_back()
    anna_in.get_by_role("button", name=re.compile("^Pay ")).click()
    anna_in.wait_for_url("**/sandbox/pay/**")
    assert db.scalar("select count(*) from payments") == 1
    anna_in.get_by_role("button", name=re.compile("^Pay €")).dblclick(no_wait_after=True)
    expect(anna_in.get_by_role("heading", name=re.compile("25.00 added"))).to_be_visible()
    assert balance_minor(anna) == 25_00


def test_a_forgotten_password_is_replaced_by_a_mailed_link(anna: User, browsers: Browsers) -> None:
    page = browsers.window()
    page.goto("/login")
    page.get_by_role("link", name="Forgot it?").click()
    page.get_by_label("Login or e-mail").fill("anna@example.com")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_role("heading", name="Look into your mailbox")).to_be_visible()
    page.goto(f"/password/reset/{link('reset')}")
    page.get_by_label("New password", exact=True).fill("another-quiet-harbour")
    page.get_by_role("button", name="Change the password").click()
    page.get_by_label("Login or e-mail").fill("anna")
    page.get_by_label("Password", exact=True).fill("another-quiet-harbour")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile("/balance$"))


def test_a_click_right_after_typing_is_not_lost(anna_in: Page) -> None:
    """Leaving the field asks for a last preview; the button under the pointer must outlive it."""
    anna_in.goto("/add-funds")
    anna_in.get_by_label("Amount", exact=True).press_sequentially("30")
    expect(anna_in.locator("#quote")).to_contain_text("Added to your balance")
    box = anna_in.get_by_role("button", name="Continue to payment").bounding_box()
    assert box
    anna_in.mouse.move(box["x"] + 20, box["y"] + 10)
    with anna_in.expect_response(lambda answer: "/add-funds?" in answer.url):
        anna_in.mouse.down()
    anna_in.wait_for_timeout(200)  # a finger stays down about as long
    anna_in.mouse.up()
    expect(anna_in).to_have_url(re.compile(r"/invoices/PF-\d{4}-\d{6}/pay$"))
