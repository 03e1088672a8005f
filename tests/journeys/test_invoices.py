"""The list of invoices in a browser: filters that live in the address, Back, and the same without JavaScript."""

import re
import zipfile

from playwright.sync_api import expect

from tests.conftest import BERLIN, person
from tests.test_invoices_pages import many
from tests.test_invoicing import pay, topup


def test_filters_live_in_the_address_and_back_works(browsers):
    anna = person("anna", profile=BERLIN)
    many(anna.customer_id, 30)
    page = browsers.window(anna)
    page.goto("/invoices")
    page.get_by_role("searchbox").fill("vps-1")
    page.wait_for_url("**/invoices?q=vps-1")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("link", name=re.compile("^Unpaid")).click()  # the filter's own request, in flight as the field is left, must not win
    page.wait_for_url("**/invoices?status=unpaid&q=vps-1")
    expect(page.get_by_text("No invoice matches")).to_be_visible()
    page.get_by_role("link", name=re.compile(r"^All \d")).click()
    page.wait_for_url("**/invoices?q=vps-1")
    expect(page.locator("tbody tr")).to_have_count(11)
    page.go_back()
    page.wait_for_url("**/invoices?status=unpaid&q=vps-1")
    expect(page.get_by_text("No invoice matches")).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("vps-1")
    page.get_by_role("link", name="Reset").first.click()
    page.wait_for_url("**/invoices")


def test_a_filter_keeps_the_status_chosen_before(browsers):
    anna = person("anna", profile=BERLIN)
    many(anna.customer_id, 30)
    page = browsers.window(anna)
    page.goto("/invoices")
    page.get_by_role("link", name=re.compile("^Paid")).click()
    page.wait_for_url("**/invoices?status=paid")
    page.get_by_text("Amount", exact=True).first.click()
    page.get_by_label("At least").fill("1000")
    page.get_by_label("At least").press("Tab")
    page.wait_for_url("**/invoices?status=paid&min=1000.00")


def test_the_chosen_ones_come_as_one_file(browsers, tmp_path):
    anna = person("anna", profile=BERLIN)
    numbers = {pay(topup(anna.customer_id)) for _ in range(2)}
    page = browsers.window(anna)
    page.goto("/invoices")
    page.get_by_label("Choose all on this page").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download chosen").click()
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        assert set(packed.namelist()) == {f"{number}.pdf" for number in numbers}
        assert all(packed.read(name).startswith(b"%PDF-") for name in packed.namelist())


def test_it_all_works_without_javascript(browsers):
    anna = person("anna", profile=BERLIN)
    paid, unpaid = pay(topup(anna.customer_id)), topup(anna.customer_id).number
    page = browsers.window(anna, java_script_enabled=False)
    page.goto("/invoices")
    page.get_by_role("searchbox").fill(paid)
    page.get_by_role("button", name="Apply").click()
    assert page.url.endswith(f"/invoices?q={paid}")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr summary").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Get receipt").click()
    assert download.value.suggested_filename == f"{paid.replace('TU', 'RC')}.pdf"
    page.goto("/invoices?status=topup")
    page.locator("tbody tr summary").click()
    page.get_by_role("link", name="Forget").click()
    expect(page.get_by_role("heading", name="Forget this top-up?")).to_be_visible()
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_text(f"{unpaid} is cancelled. Nothing was charged.")).to_be_visible()
