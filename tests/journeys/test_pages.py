"""Every page as people meet it: any width, either theme, a keyboard, a screen reader; nothing that is forbidden, nothing that scrolls sideways."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import CDPSession, Page, expect

from app import payments, refunds, services
from app.customers import Profile, User
from app.gateways.base import Instructions
from app.money import Money
from tests.conftest import BERLIN, person
from tests.journeys.conftest import Browsers, Site
from tests.pay import begin, carry, choose, publish_rates, topup
from tests.test_access_matrix import TABLE, House
from tests.trade import fund, offer_plans
from tests.world import Things, furnish, hold

FILES = {
    "GET links.invoice",
    "GET links.receipt",
    "GET invoices.export",
    "GET invoices.pdf",
    "GET invoices.receipt",
    "GET refunds.receipt",
    "GET invoices.bundle",
    "GET transactions.export",
    "GET static",
}
MACHINES = {"GET operations.healthz", "GET operations.readyz", "GET operations.metrics", "GET sandbox_mail.read_html"}
WIDTHS = (1280, 640, 390, 320)
"""A desktop; the same at 200 % zoom; a phone; the narrowest there is."""
IN_THE_DARK = ["color-contrast", "link-in-text-block", "target-size", "heading-order", "region"]
"""What another theme and a narrower page may change; the rest is the same document."""
STATES = (
    "/invoices?status=paid&q=account",
    "/invoices?min=abc&from=yesterday",
    "/invoices?q=nothing-like-this",
    "/transactions?q=nothing-like-this",
    "/transactions?min=abc",
    "/add-funds?amount=25&currency=USD",
    "/add-funds?amount=abc",
    "/nowhere",
)
SETTLED = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  document.getAnimations().forEach((animation) => animation.finish()); done(); })))"""
SIDEWAYS = """() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > wide + 1 && e.checkVisibility())
    .slice(-3).map((e) => e.outerHTML.slice(0, 120));
}"""
UNSEEN_FOCUS = """() => {
  const look = (e) => { const found = []; for (let i = 0; e && i < 4; i++, e = e.parentElement) {
    const s = getComputedStyle(e); found.push(s.outlineStyle + s.outlineWidth + s.boxShadow + s.borderColor + s.backgroundColor); } return found.join(); };
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary")].filter((e) => e.checkVisibility() && !e.disabled && e.tabIndex >= 0);
  document.activeElement?.blur();
  return all.filter((e) => { const before = look(e); e.focus({ preventScroll: true }); const seen = document.activeElement !== e || look(e) !== before; e.blur(); return !seen; })
    .map((e) => e.outerHTML.slice(0, 120));
}"""


@pytest.fixture(scope="module")
def axe() -> Axe:
    """The accessibility checker."""
    return Axe()


@pytest.fixture
def anna(site: Site) -> User:
    """A customer in Berlin."""
    return person("anna", profile=replace(BERLIN, display_currencies=("USD", "PLN")))


@pytest.fixture
def things(site: Site, anna: User) -> Things:
    """What she owns: something of everything."""
    return furnish(site.app, anna)


@pytest.fixture
def support(site: Site) -> User:
    """Somebody of support."""
    return person("sven", role="support", name="Sven Support")


def staff_addresses(site: Site, things: Things) -> list[str]:
    """Every page of support, and some of them in other states: what was decided, what was not found, a payout by hand, a refund under way."""
    house = House(site.app, things, dict.fromkeys(("anonymous", "owner", "stranger", "staff", "unverified")))
    inside = [house.path(name) for name in TABLE if name.startswith("GET") and name not in FILES and TABLE[name].audience == "staff"]
    assert things.user.customer_id
    coins = begin(topup(things.user, Money.of("600.00", "EUR")), "other-crypto")
    choose(site.app, coins, "approve")
    carry(site.app)
    by_hand = refunds.request(things.user.customer_id, coins.public_id, Money.of("600.00", "EUR"), "x" * 500, iban="DE89370400440532013000", holder="Anna Kowalska")
    refunds.approve(by_hand, actor="staff:rita")
    decided = hold(begin(topup(things.user, Money.of("19.00", "EUR"))), Money.of("17.00", "EUR"))
    refunds.release(decided, "credit", actor="staff:rita", reason="w" * 500)
    states = (f"/staff/refunds/{by_hand}", f"/staff/refunds/of/{coins.public_id}", f"/staff/held/{decided}", "/staff/held?over=yes", "/staff/refunds?find=nothing-like-this")
    return [*inside, *states]


def addresses(site: Site, things: Things) -> list[str]:
    """Every page of the house, and some of them in other states."""
    house = House(site.app, things, dict.fromkeys(("anonymous", "owner", "stranger", "staff", "unverified")))
    inside = [name for name in TABLE if name.startswith("GET") and name not in FILES | MACHINES and TABLE[name].audience != "staff"]
    known = {rule.rule for rule in site.app.url_map.iter_rules()}
    return [*(house.path(name) for name in inside), f"/invoices/{things.unpaid}", *(path for path in STATES if path.split("?")[0] in {*known, "/nowhere"})]


def faults(page: Page, axe: Axe) -> Iterator[str]:
    """What is wrong with the page that is open, in words."""
    for scheme, width, options in (("light", 1280, {}), ("dark", 390, {"runOnly": IN_THE_DARK})):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        for violation in axe.run(page, options={"resultTypes": ["violations"], **options}).response["violations"]:
            where = [(node["target"], node["any"][0]["message"] if node["any"] else "") for node in violation["nodes"]]
            yield f"{scheme} {width}: {violation['id']}: {where[:3]}"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        yield from (f"{width}: sideways {element}" for element in page.evaluate(SIDEWAYS))
    page.set_viewport_size({"width": 1280, "height": 900})
    yield from (f"focus unseen: {element}" for element in page.evaluate(UNSEEN_FOCUS))


def examine(page: Page, paths: list[str], axe: Axe) -> dict[str, list[str]]:
    """The faults of each page that has any."""
    found = {}
    for path in paths:
        page.goto(path)
        found[path] = list(faults(page, axe))
    return {path: problems for path, problems in found.items() if problems}


def test_every_page_is_fit_for_everybody(browsers: Browsers, site: Site, things: Things, axe: Axe) -> None:
    assert examine(browsers.window(things.user), addresses(site, things), axe) == {}


def test_every_page_of_support_is_fit_for_everybody(browsers: Browsers, site: Site, things: Things, support: User, axe: Axe) -> None:
    assert examine(browsers.window(support), staff_addresses(site, things), axe) == {}


def test_support_opens_approves_and_decides_without_a_script(browsers: Browsers, things: Things, support: User) -> None:
    page = browsers.window(support, java_script_enabled=False)
    page.goto("/staff/refunds")
    page.get_by_label("Number of the payment").fill(things.given)
    page.get_by_role("button", name="Find the payment").click()
    page.get_by_label("Reason").fill("The payer asked for it")
    page.get_by_role("button", name="Open the refund").click()
    number = page.get_by_role("heading", level=1).inner_text()
    page.get_by_role("button", name=re.compile("^Approve")).click()
    expect(page.get_by_role("link", name=number)).to_be_visible()
    page.goto(f"/staff/held/{things.held}")
    page.get_by_label("Reason").fill("It is theirs")
    page.get_by_role("button", name=re.compile("^Credit")).click()
    expect(page.get_by_role("heading", name="Held money")).to_be_visible()
    page.goto("/staff/held?over=yes")
    expect(page.get_by_role("link", name=things.held)).to_be_visible()


def test_the_pages_of_a_customer_who_has_nothing_yet(browsers: Browsers, axe: Axe) -> None:
    page = browsers.window(person("nele", verified=False, profile=Profile()))
    assert examine(page, ["/balance", "/add-funds", "/invoices", "/profile", "/notifications"], axe) == {}


def test_changing_the_currency_from_its_page(browsers: Browsers, axe: Axe) -> None:
    user = person("dora", profile=BERLIN)
    assert user.customer_id
    publish_rates()
    offer_plans()
    fund(user.customer_id, 1_284_60)
    for plan in ("vps-4", "ip"):
        services.order(user.customer_id, plan, 1, label=f"{plan}-dora")
    page = browsers.window(user)
    assert examine(page, ["/balance/currency", "/balance/currency?currency=PLN"], axe) == {}
    page.goto("/balance/currency")
    page.get_by_label("From EUR to").select_option("PLN")
    page.get_by_text("Your renewals afterwards").wait_for()
    page.get_by_role("button", name="Change to PLN").click()
    page.get_by_text("Your account is in PLN since").wait_for()
    assert page.locator("#balance-chip").inner_text().startswith(("PLN", "Balance"))
    assert examine(page, ["/balance", "/transactions?currency=EUR", "/balance/currency"], axe) == {}


def test_the_pages_of_a_visitor(browsers: Browsers, site: Site, things: Things, axe: Axe) -> None:
    paths = ["/login", "/register", "/password/reset", "/password/reset?sent", f"/password/reset/{things.reset}", f"/verify/{things.verify}", "/verify/used", "/nowhere"]
    assert examine(browsers.window(), paths, axe) == {}


def test_the_pages_of_support(browsers: Browsers, things: Things, axe: Axe) -> None:
    page = browsers.window(person("sven", role="support", name="Sven Support"))
    assert examine(page, ["/staff/bank", f"/staff/bank/{things.line}", "/staff/refunds?state=settled", "/staff/disputes", f"/staff/disputes/{things.dispute}"], axe) == {}


def test_the_page_of_a_transfer(browsers: Browsers, things: Things, axe: Axe) -> None:
    handoff = payments.start(things.user.customer_id or 0, things.unpaid, "bank-transfer")
    assert isinstance(handoff, Instructions)
    assert examine(browsers.window(things.user), [f"/payments/{handoff.reference}"], axe) == {}


def test_the_examination_finds_what_is_wrong(browsers: Browsers, axe: Axe) -> None:
    page = browsers.window()
    page.goto("/login")
    page.evaluate("""() => document.body.insertAdjacentHTML("beforeend", `<img src="data:,"><button class="x">a</button>`)""")
    page.evaluate("""() => { const sheet = new CSSStyleSheet(); document.adoptedStyleSheets = [sheet];
      sheet.replaceSync(".x { outline: none !important; border: 0 !important; box-shadow: none !important; width: 1400px }"); }""")
    found = "\n".join(faults(page, axe))
    for word in ("image-alt", "320: sideways", "1280: sideways", 'focus unseen: <button class="x"'):
        assert word in found


# Keyboard


def press(page: Page, *keys: str) -> None:
    """Press keys one after another."""
    for key in keys:
        page.keyboard.press(key)


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Walk by Tab until something is focused."""
    for _ in range(most):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by {most} times Tab")


def test_funds_are_added_by_keyboard_alone(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/balance")
    press(page, "Tab")
    expect(page.locator(".skip")).to_be_focused()
    tab_to(page, "#balance-chip a[aria-label='Add funds']")
    press(page, "Enter")
    expect(page.locator("#amount")).to_be_focused()
    page.keyboard.type("33")
    expect(page.locator("#quote")).to_contain_text("33.00")
    press(page, "Enter")
    expect(page).to_have_url(re.compile("/pay$"))
    tab_to(page, "input[name=method]")
    expect(page.locator("input[name=method]").first).to_be_checked()  # the saved card; then a card anew, then PayPal
    press(page, "ArrowDown", "ArrowDown")
    expect(page.locator("input[value=sandbox-paypal]")).to_be_checked()
    press(page, "Enter")
    expect(page).to_have_url(re.compile("/sandbox/pay/"))
    tab_to(page, "button[value=approve]")
    press(page, "Enter")
    expect(page.get_by_role("heading", name=re.compile("33.00 added"))).to_be_visible()


def test_the_action_menu_by_keyboard(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/invoices")
    summary = page.get_by_label(f"Action for {things.unpaid}")
    menu = page.locator("details", has=summary)
    summary.focus()
    press(page, "Enter")
    expect(menu).to_have_attribute("open", "")
    press(page, "ArrowDown")
    expect(menu.get_by_role("link", name="Show")).to_be_focused()
    press(page, "ArrowDown", "ArrowDown")
    expect(menu.get_by_role("link", name="Get invoice")).to_be_focused()
    press(page, "Escape")
    expect(menu).not_to_have_attribute("open", "")
    expect(summary).to_be_focused()
    press(page, "Enter", "ArrowDown", "Enter")
    expect(page).to_have_url(re.compile(f"/invoices/{things.unpaid}$"))


def test_an_open_menu_is_fit_for_everybody(browsers: Browsers, things: Things, axe: Axe) -> None:
    for width in (1280, 320):
        page = browsers.window(things.user, width=width)
        page.goto("/invoices")
        page.get_by_label(f"Action for {things.unpaid}").click()
        assert axe.run(page).response["violations"] == []
        assert page.evaluate(SIDEWAYS) == []


# htmx: one region, one address


def test_a_filter_replaces_its_region_alone_and_back_and_bookmarks_work(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/invoices")
    page.evaluate("document.querySelector('h1').dataset.mine = document.querySelector('#balance-chip').dataset.mine = 'yes'")
    loads: list[str] = []
    page.on("request", lambda request: loads.append(request.resource_type))
    page.locator("#results").get_by_role("link", name=re.compile("^Open top-ups")).click()
    expect(page).to_have_url(re.compile(r"/invoices\?status=topup$"))
    expect(page.locator("tbody tr")).to_have_count(3)
    assert [kind for kind in loads if kind in {"document", "fetch", "xhr"}] == ["fetch"]
    assert page.evaluate("[document.querySelector('h1').dataset.mine, document.querySelector('#balance-chip').dataset.mine]") == ["yes", "yes"]
    page.get_by_role("searchbox").fill("account")
    expect(page).to_have_url(re.compile(r"q=account"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"/invoices\?status=topup$"))
    expect(page.locator("tbody tr")).to_have_count(3)
    page.go_back()
    expect(page).to_have_url(re.compile(r"/invoices$"))
    expect(page.locator("#results [aria-current=true]").first).to_contain_text("All")
    bookmark = browsers.window(things.user)
    bookmark.goto("/invoices?status=paid")
    expect(bookmark.locator("tbody .badge")).to_have_text(["Paid"] * bookmark.locator("tbody tr").count())
    expect(bookmark.locator("#results [aria-current=true]").first).to_contain_text("Paid")


def test_nothing_of_a_customers_pages_stays_in_the_browsers_storage(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/invoices")
    page.locator("#results").get_by_role("link", name=re.compile("^Paid")).click()
    expect(page).to_have_url(re.compile("status=paid"))
    kept = page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert things.paid not in kept
    assert "€" not in kept


def test_back_after_logging_out_shows_the_login(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/balance")
    page.locator("summary.person").click()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.go_back()
    expect(page).to_have_url(re.compile("/login"))


def test_a_fragment_after_the_session_ended_leads_to_the_login_and_back(browsers: Browsers, things: Things) -> None:
    page = browsers.window(things.user)
    page.goto("/invoices")
    page.context.clear_cookies(name="sid")
    page.locator("#results").get_by_role("link", name=re.compile("^Paid")).click()
    expect(page).to_have_url(re.compile(r"/login\?next="))


# Weight


class Wire:
    """What travels: every request of a page with its bytes, headers included, as the browser's own tools count them."""

    def __init__(self, page: Page) -> None:
        self.tools: CDPSession = page.context.new_cdp_session(page)
        self.bytes: dict[str, float] = {}
        self.urls: dict[str, str] = {}
        self.tools.on("Network.responseReceived", lambda event: self.urls.__setitem__(event["requestId"], event["response"]["url"]))
        self.tools.on("Network.loadingFinished", lambda event: self.bytes.__setitem__(event["requestId"], event["encodedDataLength"]))
        self.tools.send("Network.enable")

    def report(self) -> str:
        """Each address with its bytes, for whoever has to make it lighter."""
        return json.dumps({self.urls[key]: int(size) for key, size in self.bytes.items()}, indent=1)


@pytest.mark.parametrize("path", ["/login", "/balance", "/invoices"])
def test_a_first_visit_is_light(browsers: Browsers, things: Things, path: str) -> None:
    page = browsers.window(things.user if path != "/login" else None)
    wire = Wire(page)
    page.goto(path, wait_until="networkidle")
    assert len(wire.bytes) <= 8, wire.report()
    assert sum(wire.bytes.values()) <= 80_000, wire.report()
