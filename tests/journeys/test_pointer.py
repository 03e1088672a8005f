"""Every control of the menus and filters of a customer, pressed at its edges, its padding and its words by a real pointer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from app.customers import User
from tests.conftest import BERLIN, person
from tests.journeys.conftest import Browsers, Site
from tests.trade import fund
from tests.world import Things, furnish

EDGES = {"left": (0, 0.5), "right": (1, 0.5), "top": (0.5, 0), "bottom": (0.5, 1), "middle": (0.5, 0.5)}
INSIDE_PX = 2
HIT = """([control, x, y]) => { const hit = document.elementFromPoint(x, y); return hit !== null && (control === hit || control.contains(hit)) }"""
"""Whether a point of the screen belongs to a control: what lies over it, a neighbour or a gap, does not."""


@dataclass(frozen=True)
class Pointer:
    """A mouse over one page."""

    page: Page

    def points(self, control: Locator) -> Iterator[tuple[str, float, float]]:
        """The places of a control, in the screen's pixels."""
        control.scroll_into_view_if_needed()
        box = control.bounding_box()
        assert box is not None
        for edge, (across, down) in EDGES.items():
            x = box["x"] + INSIDE_PX + across * (box["width"] - 2 * INSIDE_PX - 1)
            y = box["y"] + INSIDE_PX + down * (box["height"] - 2 * INSIDE_PX - 1)
            yield edge, x, y

    def press(self, control: Locator, turn: int) -> None:
        """Press one of the places, another each turn; each of them must be the control's own."""
        found = list(self.points(control))
        handle = control.element_handle()
        missed = [edge for edge, x, y in found if not self.page.evaluate(HIT, [handle, x, y])]
        assert missed == [], control
        _, x, y = found[turn % len(found)]
        self.page.mouse.click(x, y)


@pytest.fixture
def anna(site: Site) -> User:
    return person("anna", profile=BERLIN)


@pytest.fixture
def things(site: Site, anna: User) -> Things:
    found = furnish(site.app, anna)
    for minor in range(30):
        fund(anna.customer_id or 0, 1_00 + minor)
    return found


@pytest.fixture
def page(browsers: Browsers, anna: User, things: Things) -> Page:
    return browsers.window(anna, permissions=["clipboard-read", "clipboard-write"])


def menu(page: Page, word: str) -> Locator:
    return page.locator("#filters details.menu", has=page.locator("summary", has_text=re.compile(f"^{word}")))


def opened(page: Page, word: str, turn: int) -> Locator:
    """A menu of the filters, opened by a press on an edge of its word."""
    found = menu(page, word)
    Pointer(page).press(found.locator("summary"), turn)
    expect(found).to_have_attribute("open", "")
    return found


LISTS = ["/invoices", "/invoices?q=a&status=paid&from=2025-01-01&min=1&period=1", "/transactions", "/transactions?direction=in&q=a&min=1&from=2025-01-01&kind=topup"]


@pytest.mark.parametrize("path", LISTS)
def test_every_link_of_the_filters_leads_where_it_says(page: Page, path: str):
    """Statuses, kinds, accounts, page sizes, filters in use, export, reset and paging."""
    shown = "main .segments a, main .chosen a, main .filters > a, main footer a, main .more a, #results > header a, #results .filters a"
    page.goto(path)
    names = [link.get_attribute("href") or "" for link in page.locator(shown).all()]
    assert len(names) >= (10 if path.startswith("/invoices") else 4)
    for turn, href in enumerate(names):
        page.goto(path)
        link = page.locator(shown).nth(turn)
        assert link.get_attribute("href") == href
        if ".csv" in href:
            with page.expect_download() as got:
                Pointer(page).press(link, turn)
            assert got.value.suggested_filename.endswith(".csv")
        elif "Load more" in link.inner_text():
            before = page.locator(".movements tbody tr").count()
            Pointer(page).press(link, turn)
            expect(page.locator(".movements tbody tr").nth(before)).to_be_visible()
        elif link.get_attribute("hx-get") is None:
            with page.expect_event("load"):
                Pointer(page).press(link, turn)
            assert page.url.endswith(href)
        else:
            with page.expect_response(lambda answer, href=href: answer.url.endswith(href)):
                Pointer(page).press(link, turn)
            page.wait_for_url(lambda url, href=href: url.endswith(href))


@pytest.mark.parametrize(("path", "days"), [("/invoices", "#invoice-days"), ("/transactions", "#transaction-days")])
def test_every_range_of_days_is_chosen(page: Page, path: str, days: str):
    page.goto(path)
    count = page.locator(f"{days} .item").count()
    assert count >= 5
    for turn in range(count):
        page.goto(path)
        opened(page, "Date", turn)
        item = page.locator(f"{days} .item").nth(turn)
        word, href = item.inner_text().strip(), item.get_attribute("href") or ""
        Pointer(page).press(item, turn)
        page.wait_for_url(lambda url, href=href: url.endswith(href))
        chosen = page.locator(f"{days} .item[aria-current]")
        expect(chosen).to_have_text(re.compile(word))
        assert bool(page.locator(".chosen a").count()) == ("from=" in href)


FIELDS = [
    ("/invoices", "Date", "from", "2026-11-01"),
    ("/invoices", "Date", "to", "2026-12-31"),
    ("/invoices", "Amount", "min", "10"),
    ("/invoices", "Amount", "max", "900"),
    ("/transactions", "Date", "from", "2026-11-01"),
    ("/transactions", "Date", "to", "2026-12-31"),
    ("/transactions", "Date", "as_of", "2026-11-30"),
    ("/transactions", "Amount", "min", "10"),
    ("/transactions", "Amount", "max", "900"),
]


@pytest.mark.parametrize(("path", "word", "name", "value"), FIELDS)
def test_every_field_of_a_menu_is_reached_by_its_label_and_filters(page: Page, path: str, word: str, name: str, value: str):
    page.goto(path)
    opened(page, word, len(name))
    for turn, (edge, x, y) in enumerate(Pointer(page).points(page.locator(f"#filters label[for={name}]"))):
        page.locator("#filters .pop").nth(0).evaluate("() => document.activeElement.blur()")
        page.mouse.click(x, y)
        assert page.evaluate("document.activeElement.name") == name, (edge, turn)
        assert menu(page, word).evaluate("menu => menu.open")
    page.locator(f"#filters input[name={name}]").fill(value)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{name}=*")
    expect(page.locator(".chosen a")).to_have_count(1)


def test_every_period_is_chosen(page: Page):
    page.goto("/invoices")
    count = page.locator("#filters .pill").count()
    assert count == 5
    for turn in range(count):
        page.goto("/invoices?period=6" if turn == 0 else "/invoices")
        opened(page, "Period", turn)
        label = page.locator("#filters .pill").nth(turn)
        value = label.locator("input").get_attribute("value") or ""
        Pointer(page).press(label, turn)
        page.wait_for_url(lambda url, value=value: url.endswith(f"period={value}" if value else "/invoices"))
        expect(page.locator(f"#filters input[name=period][value='{value}']")).to_be_checked()


def test_every_direction_is_chosen(page: Page):
    for turn, value in enumerate(["in", "out", ""]):
        page.goto("/transactions?direction=in" if not value else "/transactions")
        label = page.locator("#filters .segments label", has=page.locator(f"input[value='{value}']"))
        Pointer(page).press(label, turn)
        page.wait_for_url(lambda url, value=value: url.endswith(f"direction={value}" if value else "/transactions"))
        expect(label.locator("input")).to_be_checked()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_action_of_a_row_does_what_it_says(browsers: Browsers, anna: User, things: Things, width: int):
    """In each state of the list: its word, its padding, and the icon before it."""
    page = browsers.window(anna, width=width, permissions=["clipboard-read", "clipboard-write"])
    page.goto("/invoices")
    turn = 0
    states = page.locator("tbody tr .badge").all_inner_texts()
    for state in sorted(set(states)):
        at = states.index(state)
        page.goto("/invoices")
        row = page.locator("tbody tr").nth(at)
        words = [item.text_content() or "" for item in row.locator(".item").all()]
        assert {"Show", "Get invoice"} <= set(words)
        for place, word in enumerate(words):
            page.goto("/invoices")
            Pointer(page).press(row.locator("summary"), turn)
            item = row.locator(".item").nth(place)
            href = item.get_attribute("href")
            if word.startswith("Get "):
                with page.expect_download() as got:
                    Pointer(page).press(item, turn)
                assert got.value.suggested_filename.endswith(".pdf")
            elif word == "Copy the link":
                Pointer(page).press(item, turn)
                expect(page.locator(".toast")).to_contain_text("Link copied")
                assert page.evaluate("navigator.clipboard.readText()").startswith("http://")
            else:
                Pointer(page).press(item, turn)
                page.wait_for_url(f"**{href}")
            turn += 1
    assert turn >= 15


def test_what_is_ticked_is_downloaded(page: Page):
    page.goto("/invoices")
    boxes = page.locator("tbody .pick input")
    for turn in range(6):
        Pointer(page).press(page.locator("thead .pick label"), turn)
        assert {box.is_checked() for box in boxes.all()} == {turn % 2 == 0}
    for turn in range(5):
        label = page.locator("tbody .pick label").nth(turn)
        Pointer(page).press(label, turn)
        expect(boxes.nth(turn)).to_be_checked()
        if turn > 1:
            Pointer(page).press(label, turn + 1)
            expect(boxes.nth(turn)).not_to_be_checked()
    with page.expect_download() as got:
        Pointer(page).press(page.get_by_role("button", name="Download chosen"), 1)
    assert got.value.suggested_filename.endswith(".zip")


CHOICES = {
    "/add-funds/invoice?amount=25&currency=EUR": ".segments label, .check",
    "/profile": ".segments label, .pill, .check",
    "/invoices/{unpaid}/pay": ".choices label, .check",
    "/services/{service}/payment": ".choices label, .check",
}


@pytest.mark.parametrize(("path", "shown"), CHOICES.items())
def test_every_choice_is_made_by_any_part_of_its_label(page: Page, things: Things, path: str, shown: str):
    page.goto(path.format(unpaid=things.unpaid, service=things.service))
    labels = page.locator("main").locator(shown)
    pressed = 0
    for at in range(labels.count()):
        label = labels.nth(at)
        if not label.is_visible():
            continue
        box = label.locator("input")
        for turn in range(len(EDGES)):
            before, radio = box.is_checked(), box.get_attribute("type") == "radio"
            Pointer(page).press(label, turn)
            assert box.is_checked() == (radio or not before), (label, turn)
        pressed += 1
    assert pressed >= 2


def test_the_menu_of_the_account(page: Page):
    page.goto("/balance")
    mine = page.locator(".top details.menu:not(.drawer)")
    for turn, theme in enumerate(["light", "dark", "system"]):
        page.goto("/balance")
        Pointer(page).press(mine.locator("summary"), turn)
        button = mine.locator(f"[data-set-theme={theme}]")
        Pointer(page).press(button, turn)
        expect(button).to_have_attribute("aria-pressed", "true")
        assert page.evaluate("document.documentElement.dataset.theme || 'system'") == theme
        assert mine.evaluate("menu => menu.open"), "to compare them"
    Pointer(page).press(mine.locator("a.item"), 3)
    page.wait_for_url("**/profile")
    Pointer(page).press(mine.locator("summary"), 4)
    Pointer(page).press(mine.get_by_role("button", name="Log out"), 1)
    page.wait_for_url("**/login")


def test_the_drawer_leads_to_every_page(browsers: Browsers, anna: User, things: Things):
    page = browsers.window(anna, width=390)
    page.goto("/balance")
    paths = [link.get_attribute("href") or "" for link in page.locator(".drawer .nav a").all()]
    assert len(paths) >= 9
    for turn, path in enumerate(paths):
        page.goto("/balance")
        Pointer(page).press(page.locator(".drawer > summary"), turn)
        Pointer(page).press(page.locator(f".drawer .nav a[href='{path}']"), turn)
        page.wait_for_url("**/balance" if path == "/" else f"**{path}")
    page.goto("/balance")
    Pointer(page).press(page.locator(".drawer > summary"), 2)
    page.mouse.click(380, 400)
    expect(page.locator(".drawer")).not_to_have_attribute("open", "")
