"""What most people do, in Firefox and in WebKit: log in, filter, page, open menus with a real pointer, pay, read."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app import db
from app.customers import User
from tests.browsers.webdriver import Remote, firefox, webkit
from tests.conftest import BERLIN, PASSWORD, person
from tests.journeys.conftest import Site, served, site  # noqa: F401 - fixtures
from tests.test_invoices_pages import many

START: dict[str, Callable[[Path], AbstractContextManager[Remote]]] = {"firefox": firefox, "webkit": webkit}
TAB = "\ue004"
"""The Tab key, as WebDriver writes it."""
MENUS = [("/invoices", "Date"), ("/invoices", "Amount"), ("/invoices", "Period"), ("/transactions", "Date"), ("/transactions", "Amount")]
POINTS = """
const pop = document.querySelector("details[open] > .pop"), box = pop.getBoundingClientRect();
const labels = [...pop.querySelectorAll("label")].map((label) => label.getBoundingClientRect());
const points = [[box.x + 3, box.y + box.height / 2], [box.x + box.width / 2, box.bottom - 3], ...labels.map((at) => [at.x + 6, at.y + at.height / 2])];
return points.filter(([x, y]) => !document.elementFromPoint(x, y).closest(".item"));
"""


@pytest.fixture(scope="session", params=START)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """One browser for all tests."""
    with START[request.param](tmp_path_factory.mktemp(request.param)) as remote:
        yield remote


@pytest.fixture
def anna(site: Site) -> User:  # noqa: F811
    """A customer with thirty paid invoices."""
    anna = person("anna", profile=BERLIN)
    many(anna.customer_id, 30)
    return anna


@pytest.fixture
def browser(started: Remote, site: Site, anna: User) -> Remote:  # noqa: F811
    """The browser after logging in by its form."""
    started.open(f"{site.url}/login")
    started.press("input[name=login]")
    started.write("anna")
    started.press("input[name=password]")
    started.write(PASSWORD)
    started.press("main form button:not([type=button])")
    started.wait_for_address(rf"^{site.url}/balance")
    return started


def look(browser: Remote, site: Site, path: str) -> None:  # noqa: F811
    """Open one of our pages and wait for its scripts."""
    browser.open(site.url + path)
    browser.wait("return document.readyState === 'complete' && document.documentElement.hasAttribute('data-js')")


def open_menu(browser: Remote, word: str) -> None:
    """Open a filter's menu with the pointer."""
    browser.run("for (const menu of document.querySelectorAll('.filters details')) menu.id = menu.querySelector('summary').textContent.trim()")
    browser.press(f"#{word} > summary")
    browser.wait(f"return document.getElementById('{word}').open")


@pytest.mark.parametrize(("path", "word"), MENUS)
def test_a_press_anywhere_in_a_menu_keeps_it_open(browser: Remote, site: Site, path: str, word: str) -> None:  # noqa: F811
    look(browser, site, path)
    open_menu(browser, word)
    points = browser.run(POINTS)
    assert len(points) > 2
    for x, y in points:
        browser.press_at(x, y)
        assert browser.run(f"return document.getElementById('{word}').open"), (x, y)
    browser.press_at(5, 5)
    browser.wait(f"return !document.getElementById('{word}').open")


def test_a_filter_is_chosen_with_the_pointer_and_taken_back(browser: Remote, site: Site) -> None:  # noqa: F811
    look(browser, site, "/invoices")
    open_menu(browser, "Period")
    browser.press(".pop label:has(input[value='3'])")
    browser.wait_for_address(r"/invoices\?period=3$")
    browser.wait("return document.querySelectorAll('.chosen a').length === 1")
    browser.press(".chosen a")
    browser.wait_for_address(r"/invoices$")


def test_a_search_and_back(browser: Remote, site: Site) -> None:  # noqa: F811
    look(browser, site, "/invoices")
    everything = browser.run("return document.querySelectorAll('tbody tr').length")
    browser.press("input[name=q]")
    browser.write("nothing of the kind")
    browser.wait("return document.querySelectorAll('tbody tr').length === 0")
    browser.back()
    browser.wait(f"return document.querySelectorAll('tbody tr').length === {everything}")
    browser.wait_for_address(r"/invoices$")


def test_the_action_of_a_row_is_reached(browser: Remote, site: Site) -> None:  # noqa: F811
    look(browser, site, "/invoices")
    browser.press("tbody details.menu > summary")
    browser.press("tbody details.menu[open] .item")
    browser.wait_for_address(r"/invoices/[A-Z]+-\d{4}-\d+$")


def test_money_is_added(browser: Remote, site: Site, anna: User) -> None:  # noqa: F811
    look(browser, site, "/add-funds")
    browser.press("input[name=amount]")
    browser.run("document.activeElement.select()")
    browser.write("25")
    browser.wait("return document.querySelector('#quote').textContent.includes('Added to your balance')")
    browser.press("#quote button.large")
    browser.wait_for_address(r"/invoices/PF-\d{4}-\d+/pay")
    browser.press("label:has(input[value=sandbox-card])")
    browser.press("main form button:not([type=button])")
    browser.wait_for_address(r"/sandbox/")
    browser.press("button.button")
    browser.wait_for_address(rf"^{site.url}/payments/")
    site.work()
    browser.wait("return document.querySelector('#status').textContent.includes('added to your balance')")
    assert db.scalar("select count(*) from payments where state = 'paid'") == 1


def test_colours_links_and_focus_are_there(browser: Remote, site: Site, tmp_path: Path) -> None:  # noqa: F811
    look(browser, site, "/invoices")
    colours = browser.run("return [getComputedStyle(document.body).color, getComputedStyle(document.documentElement).backgroundColor]")
    assert colours[0] != colours[1]
    assert not re.search(r"rgba\(.*, 0\)", colours[1])
    open_menu(browser, "Date")
    assert not re.search(r"rgba\(.*, 0\)", browser.of("details[open] > .pop", "return getComputedStyle(element).backgroundColor"))
    browser.write(TAB)
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.picture(tmp_path / "invoices.png")
    assert (tmp_path / "invoices.png").stat().st_size > 10_000
