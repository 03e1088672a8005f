"""When something is down: said plainly, nothing lost, and all is well again by itself."""

import json
import logging
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app import db, invoicing, logs
from app.customers import User
from tests.conftest import BERLIN, PASSWORD, person
from tests.journeys.conftest import Browsers, Site, Watch
from tests.journeys.test_newcomer import balance_minor, go_to_processor, order
from tests.pay import publish_rates
from tests.test_web import closed
from tests.world import link

NO_BOOKS = "We cannot reach our books right now"


@pytest.fixture
def anna(site: Site) -> User:
    """A customer who can pay."""
    publish_rates()
    return person("anna", profile=BERLIN)


@pytest.fixture
def page(anna: User, browsers: Browsers) -> Page:
    """Her window."""
    return browsers.window(anna)


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """What the house logs meanwhile."""
    found: list[dict[str, object]] = []
    listener = logging.Handler()
    listener.emit = lambda record: found.append(json.loads(logs.JsonLines().format(record)))  # type: ignore[method-assign]
    logs.log.addHandler(listener)
    yield found
    logs.log.removeHandler(listener)


def test_the_database_goes_and_comes_back(page: Page, watch: Watch, database_url: str) -> None:
    watch.allowed.add(503)
    page.goto("/invoices")
    with closed(database_url):
        page.locator("#results").get_by_role("link", name=re.compile("^Unpaid")).click()
        expect(page.locator("#problem")).to_contain_text(NO_BOOKS)
        expect(page.get_by_role("heading", name="Invoices", exact=True)).to_be_visible()
        page.goto("/balance")
        expect(page.get_by_role("heading", name=NO_BOOKS)).to_be_visible()
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", name="Balance", exact=True)).to_be_visible()


def test_a_payment_is_not_lost_when_the_database_goes_while_the_customer_pays(page: Page, anna: User, watch: Watch, database_url: str) -> None:
    watch.allowed.add(503)
    order(page, "25")
    go_to_processor(page)
    hosted = page.url
    with closed(database_url):
        page.get_by_role("button", name=re.compile("^Pay €")).click()
        expect(page.get_by_role("heading", name=NO_BOOKS)).to_be_visible()
    page.goto(hosted)
    page.get_by_role("button", name=re.compile("^Pay €")).click()
    expect(page.get_by_role("heading", name=re.compile("25.00 added"))).to_be_visible()
    assert balance_minor(anna) == 25_00


def test_a_processor_that_does_not_answer_leaves_the_bill_payable(page: Page, site: Site, anna: User, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.allowed.add(503)
    number = order(page, "25")
    with monkeypatch.context() as patch:
        patch.setattr(site.processor, "down", True)
        page.locator("label", has_text="Bank card").click()
        page.get_by_role("button", name=re.compile("^Pay ")).click()
        expect(page.get_by_role("alert").filter(has_text=re.compile(r"processor|answer"))).to_be_visible()
        expect(page.locator(".choices .off", has_text="Bank card")).to_contain_text("Does not answer at the moment")
        assert page.locator("input[name=method]:checked").get_attribute("value") != "sandbox-card"
    page.goto(f"/invoices/{number}/pay")
    go_to_processor(page)
    page.get_by_role("button", name=re.compile("^Pay €")).click()
    expect(page.get_by_role("heading", name=re.compile("25.00 added"))).to_be_visible()
    assert balance_minor(anna) == 25_00
    assert db.scalar("select count(*) from payments where state = 'paid'") == 1


def test_an_exception_shows_a_reference_that_the_log_explains(page: Page, watch: Watch, lines: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    watch.allowed.add(500)

    def break_down(*_: object) -> None:
        raise RuntimeError("the wheel came off at select * from bills")

    monkeypatch.setattr(invoicing, "search", break_down)
    page.goto("/invoices")
    expect(page.get_by_role("heading", name="Something broke on our side")).to_be_visible()
    reference = page.locator("main code").inner_text()
    content = page.content()
    for word in ("wheel", "Traceback", "RuntimeError", "select *", ".py"):
        assert word not in content
    trace = next(line for line in lines if line["event"] == "exception" and line["reference"] == reference)
    assert "the wheel came off" in str(trace["trace"])


def test_no_secret_is_written_into_the_log(browsers: Browsers, site: Site, lines: list[dict[str, object]]) -> None:
    person("anna", profile=BERLIN)
    page = browsers.window()
    page.goto("/login")
    page.get_by_label("Login or e-mail").fill("anna")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile("/balance$"))
    cookies = [cookie["value"] for cookie in page.context.cookies()]
    page.goto("/password/reset")
    page.get_by_label("Login or e-mail").fill("anna")
    page.get_by_role("button", name="Send the link").click()
    page.goto(f"/password/reset/{link('reset')}")
    written = json.dumps(lines)
    assert len(lines) >= 6
    for secret in (PASSWORD, link("reset"), "anna@example.com", *cookies):
        assert secret not in written
