"""Menus, filters and lists under a real pointer: labels, padding, Back, Load more, print, and pages that are not ours."""

import re

import pytest
from playwright.sync_api import expect

from tests.conftest import BERLIN, person
from tests.test_invoices_pages import many
from tests.trade import fund

MENUS = {
    "/invoices": ("Date", "Amount", "Period"),
    "/transactions": ("Date", "Amount"),
}


@pytest.fixture
def anna(site):
    anna = person("anna", profile=BERLIN)
    many(anna.customer_id, 30)
    return anna


def press_everywhere(page, menu):
    """A press in the middle of every label, on the padding of the menu and between its parts."""
    pop = menu.locator(".pop")
    box = pop.bounding_box()
    middle, bottom = box["y"] + box["height"] / 2, box["y"] + box["height"]
    points = [(box["x"] + 3, middle), (box["x"] + box["width"] / 2, bottom - 3)]
    for label in pop.locator("label").all():
        at = label.bounding_box()
        points.append((at["x"] + 6, at["y"] + at["height"] / 2))
    for x, y in points:
        page.mouse.click(x, y)
        assert menu.evaluate("menu => menu.open"), (x, y)


@pytest.mark.parametrize(("path", "words"), MENUS.items())
def test_a_press_inside_a_menu_keeps_it_open(browsers, anna, path, words):
    page = browsers.window(anna)
    for word in words:
        page.goto(path)
        menu = page.locator("details.menu", has=page.locator("summary", has_text=re.compile(f"^{word}")))
        menu.locator("summary").click()
        press_everywhere(page, menu)
        page.mouse.click(5, 5)
        assert not menu.evaluate("menu => menu.open")


def test_the_menu_of_a_row_closes_when_the_keyboard_leaves_it(browsers, anna):
    page = browsers.window(anna)
    page.goto("/invoices")
    menu = page.locator("tbody details.menu").first
    menu.locator("summary").click()
    box = menu.locator(".pop").bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    assert menu.evaluate("menu => menu.open")
    menu.locator(".item").last.focus()
    page.keyboard.press("Tab")
    expect(menu).not_to_have_attribute("open", "")


def test_a_period_is_chosen_with_the_pointer(browsers, anna):
    page = browsers.window(anna)
    page.goto("/invoices")
    page.locator("summary", has_text="Period").click()
    page.get_by_text("3 months", exact=True).click()
    page.wait_for_url("**/invoices?period=3")


@pytest.mark.parametrize("path", MENUS)
def test_a_search_asks_once(browsers, anna, path):
    page = browsers.window(anna)
    page.goto(path)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "q=vps" in request.url and "sums" not in request.url else None)
    page.get_by_role("searchbox").fill("vps-1")
    page.wait_for_url("**q=vps-1")
    page.get_by_role("searchbox").blur()
    page.wait_for_timeout(600)
    assert len(asked) == 1
    page.go_back()
    page.wait_for_url(f"**{path}")


def test_the_page_of_a_proxy_never_replaces_a_list(browsers, anna, watch):
    page = browsers.window(anna)
    page.goto("/invoices")
    watch.allowed.add(502)
    page.route("**/invoices?*q=*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>502 Bad Gateway</h1>"))
    page.get_by_role("searchbox").fill("vps-1")
    expect(page.get_by_text("The server could not be reached.")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(25)
    expect(page.get_by_text("Bad Gateway")).to_have_count(0)


def test_the_next_page_begins_at_its_first_row(browsers, anna):
    page = browsers.window(anna, height=500)
    page.goto("/invoices")
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**before=*")
    expect(page.locator("tbody tr").first).to_be_in_viewport()


def test_focus_goes_on_after_more_is_loaded(browsers, site):
    ben = person("ben", profile=BERLIN)
    for _ in range(60):
        fund(ben.customer_id, 100)
    page = browsers.window(ben)
    page.goto("/transactions")
    rows = page.locator(".movements tbody tr")
    before = rows.count()
    page.get_by_role("link", name="Load more").focus()
    page.keyboard.press("Enter")
    expect(rows.nth(before)).to_be_visible()
    expect(page.locator("body")).not_to_be_focused()
    assert page.evaluate("document.activeElement.closest('table') !== null || document.activeElement.closest('.more') !== null")


def test_a_printed_invoice_is_the_paper_alone(browsers, anna):
    page = browsers.window(anna, width=794)
    page.goto("/invoices")
    page.locator("tbody .what a").first.click()
    page.wait_for_url("**/invoices/*")
    page.emulate_media(media="print")
    expect(page.get_by_role("columnheader", name="Unit price")).to_be_visible()
    assert page.locator(".paper thead").first.evaluate("head => head.getBoundingClientRect().width") > 200
    for unwanted in (".button", "form", ".past", "#link", ".crumbs", ".top"):
        for element in page.locator(unwanted).all():
            assert not element.is_visible(), unwanted


def test_colours_stand_without_light_dark(browsers, anna):
    """A browser that does not know `light-dark()` leaves the block of `@supports` out."""
    page = browsers.window(anna)

    def without(route):
        answer = route.fetch()
        sheet = re.sub(r"@supports \(color: ?light-dark\(red, ?red\)\) ?\{.*?\}\}", "", answer.text(), count=1)
        assert "light-dark" not in sheet
        route.fulfill(response=answer, body=sheet, headers={**answer.headers, "access-control-allow-origin": "*"})

    page.route("**/static/app-*.css", without)
    page.add_init_script("delete Element.prototype.integrity")
    page.goto("/invoices")
    colours = page.evaluate("""() => ['--paper', '--ink', '--line', '--accent'].map(
      (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())""")
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours), "older ones have no oklch() either"


def test_an_amount_below_the_least_is_marked_while_it_is_typed(browsers, anna):
    page = browsers.window(anna)
    page.goto("/add-funds")
    amount = page.get_by_label("Amount", exact=True)
    amount.fill("0.01")
    expect(amount).to_have_attribute("aria-invalid", "true")
    amount.fill("25")
    expect(amount).to_have_attribute("aria-invalid", "false")
