"""One legal zone, the seller's: numbers, days and rates at both sides of its midnight, month and year, whoever reads."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

import config
from app import clock, customers, db, invoicing, services, tax
from app.invoicing import Bill, Filter, Settlement, paper
from tests.conftest import BERLIN, person, sign_in
from tests.test_config import GIVEN, LIVE
from tests.test_documents import content_of
from tests.test_invoicing import pay, service, topup
from tests.trade import fund, offer_plans

SELLERS = ("Europe/Berlin", "America/New_York", "Pacific/Auckland")


@pytest.fixture(params=SELLERS)
def zone(request: pytest.FixtureRequest, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A seller somewhere."""
    sells_from(request.param, settings, monkeypatch)
    return str(request.param)


def sells_from(name: str, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_current", replace(settings, seller=replace(settings.seller, timezone=name)))


def at(zone: str, *moment: int, fold: int = 0) -> datetime:
    """A wall clock's moment there."""
    return datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold)  # type: ignore[arg-type, misc]


def payer(timezone: str) -> int:
    user = person("anna", profile=BERLIN)
    assert user.customer_id is not None
    customers.update_profile(user.id, user.customer_id, BERLIN, locale="en_GB", timezone=timezone)
    return user.customer_id


def paid(bill: Bill) -> Bill:
    number = pay(bill, Settlement(clock.now(), "Card"))
    found = invoicing.find(bill.customer_id, number)
    assert found is not None
    return found


@pytest.mark.parametrize("reader", ["Europe/Berlin", "Pacific/Honolulu", "Pacific/Kiritimati"])
def test_the_year_of_numbers_and_documents_turns_at_the_sellers_midnight(app: Flask, zone: str, reader: str):
    anna = payer(reader)
    for moment, year, day in ((at(zone, 2026, 12, 31, 23, 59, 50), 2026, "2026-12-31"), (at(zone, 2027, 1, 1, 0, 0, 5), 2027, "2027-01-01")):
        with clock.travel(moment):
            bill = paid(topup(anna))
        assert (bill.proforma_number, bill.number) == (f"PF-{year}-000001", f"TU-{year}-000001")
        assert str(bill.issued_on) == str(bill.paid_on) == day
        for kind in ("proforma", "invoice", "receipt"):
            content = content_of(bill, kind)
            assert (content["issued_on"], content["timezone"]) == (day, zone), kind
        receipt = dict(paper.printed(content_of(bill, "receipt")).receipt_facts)["Time"]
        offset = f"{moment:%z}"
        assert receipt.endswith(f" {zone} (UTC{offset[:3]}:{offset[3:]})"), receipt
        assert f"{moment:%Y}" in receipt
        assert dict(paper.printed(content_of(bill, "invoice")).facts)["Issued"] == f"{moment.day} {moment:%B} {moment.year}"


def test_the_filter_finds_what_the_papers_say(app: Flask, zone: str):
    anna = payer("Europe/London")
    for hour, minute, day in ((23, 50, 30), (0, 10, 1)):
        with clock.travel(at(zone, 2026, 11 if day == 30 else 12, day, hour, minute)):
            paid(topup(anna))
    before, after = "TU-2026-000001", "TU-2026-000002"
    assert [entry.number for entry in found(anna, until="2026-11-30")] == [before]
    assert [entry.number for entry in found(anna, since="2026-12-01")] == [after]
    assert [str(entry.issued_on) for entry in found(anna)] == ["2026-12-01", "2026-11-30"]
    assert [str(entry.paid_on) for entry in found(anna)] == ["2026-12-01", "2026-11-30"]


def found(customer_id: int, since: str = "", until: str = "") -> list[invoicing.Entry]:
    return invoicing.search(customer_id, Filter.from_query({"from": since, "to": until})).entries


DATED = {"issued_on", "ordered_on", "due_on", "timezone"}


def test_a_changed_setting_changes_no_document(app: Flask, settings: config.Settings, monkeypatch: pytest.MonkeyPatch):
    sells_from("Pacific/Auckland", settings, monkeypatch)
    anna = payer("Pacific/Auckland")
    with clock.travel(at("Pacific/Auckland", 2027, 1, 1, 0, 20)):
        bill = paid(topup(anna))
    shown = content_of(bill, "invoice"), content_of(bill, "proforma")
    sells_from("America/New_York", settings, monkeypatch)
    again = invoicing.find(anna, bill.number)
    assert again is not None
    rewritten = invoicing.documents.invoice(again), invoicing.documents.proforma(again)
    for now, then in zip(rewritten, shown, strict=True):
        assert {name: now[name] for name in DATED & set(now)} == {name: then[name] for name in DATED & set(then)}
    (entry,) = found(anna, since="2027-01-01")
    assert (str(entry.issued_on), str(entry.paid_on)) == ("2027-01-01", "2027-01-01")
    assert found(anna, until="2026-12-31") == []


def test_documents_from_before_the_setting_are_of_utc(app: Flask, superuser):
    with clock.travel(datetime(2026, 12, 31, 23, 30, tzinfo=UTC)):
        bill = topup(payer("Europe/Berlin"))
    superuser.execute("set session_replication_role = replica")
    superuser.execute("update bills set seller = seller - 'timezone'")
    superuser.execute("set session_replication_role = origin")
    old = invoicing.find(bill.customer_id, bill.number)
    assert old is not None
    assert (str(bill.issued_on), str(old.issued_on)) == ("2027-01-01", "2026-12-31")
    assert [str(entry.issued_on) for entry in found(bill.customer_id)] == ["2026-12-31"]
    content = {name: value for name, value in content_of(bill, "proforma").items() if name != "timezone"}
    assert paper.printed(content).zone == "UTC"


def test_the_vat_rate_is_that_of_the_legal_day(app: Flask, zone: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[date] = []
    real = tax.treatment
    monkeypatch.setattr(tax, "treatment", lambda seller, party, on, **more: asked.append(on) or real(seller, party, on, **more))
    for moment in (at(zone, 2026, 6, 30, 23, 59, 58), at(zone, 2026, 7, 1, 0, 0, 1)):
        with clock.travel(moment):
            service(payer("Asia/Tokyo") if not asked else 1)
    assert [str(day) for day in asked] == ["2026-06-30", "2026-07-01"]


CHANGES = [
    ("Europe/Berlin", (2026, 3, 29)),
    ("Europe/Berlin", (2026, 10, 25)),
    ("America/New_York", (2026, 3, 8)),
    ("America/New_York", (2026, 11, 1)),
    ("Pacific/Auckland", (2026, 4, 5)),
    ("Pacific/Auckland", (2026, 9, 27)),
    ("America/Santiago", (2026, 9, 6)),  # its midnight does not exist
    ("America/Havana", (2026, 11, 1)),
]


@pytest.mark.parametrize(("name", "day"), CHANGES)
def test_a_day_begins_and_ends_once_where_the_clock_changes(settings, monkeypatch, name: str, day: tuple[int, int, int]):
    sells_from(name, settings, monkeypatch)
    changed = date(*day)
    start, end = clock.start_of(changed), clock.end_of(changed)
    assert clock.day_of(start) == clock.day_of(end) == changed
    assert clock.day_of(start - timedelta(seconds=1)) == changed - timedelta(days=1)
    assert clock.day_of(end + timedelta(seconds=1)) == changed + timedelta(days=1)
    assert end - start != timedelta(days=1, seconds=-1)


@pytest.mark.parametrize(("name", "day"), CHANGES[:6])
def test_a_series_goes_forward_where_an_hour_comes_twice(app: Flask, settings, monkeypatch, name: str, day: tuple[int, int, int]):
    sells_from(name, settings, monkeypatch)
    anna, start = payer("Europe/Berlin"), clock.start_of(date(*day))
    for minutes in range(-60, 26 * 60, 180):
        with clock.travel(start + timedelta(minutes=minutes)):
            topup(anna)
    issued = db.rows("select number, content ->> 'issued_on' as day from documents where kind = 'proforma' order by number")
    assert [row.day for row in issued] == sorted(row.day for row in issued)
    assert str(date(*day)) in {row.day for row in issued}


def test_a_bill_is_due_until_the_end_of_its_legal_day(app: Flask, zone: str):
    anna = payer("Europe/Berlin")
    with clock.travel(at(zone, 2026, 12, 20, 9, 30)):
        bill = topup(anna)
    assert str(bill.due_on) == "2027-01-03"
    with clock.travel(at(zone, 2027, 1, 3, 23, 59, 30)):
        assert invoicing.expire_due() == 0
    with clock.travel(at(zone, 2027, 1, 4, 0, 0, 10)):
        assert invoicing.expire_due() == 1


def test_renewals_are_of_the_sellers_day(app: Flask, zone: str):
    offer_plans()
    anna = payer("Pacific/Honolulu")
    fund(anna, 200_00)
    with clock.travel(at(zone, 2026, 12, 1, 0, 30)):
        ordered = services.order(anna, "vps-4", 1)
    assert str(ordered.paid_through) == "2026-12-31"
    with clock.travel(at(zone, 2026, 12, 31, 23, 58)):
        assert services.renew_due().renewed == 0
    with clock.travel(at(zone, 2027, 1, 1, 0, 2)):
        assert services.renew_due().renewed == 1
    newest = found(anna)[0]
    assert (newest.number, str(newest.issued_on)) == ("INV-2027-000001", "2027-01-01")


def test_a_bill_for_the_next_period_is_due_before_the_service_ends(app: Flask, zone: str):
    offer_plans()
    anna = payer("Europe/Berlin")
    fund(anna, 24_00)
    with clock.travel(at(zone, 2026, 11, 9, 12)):
        ordered = services.order(anna, "vps-4", 1, auto_renew=False)
    assert str(ordered.paid_through) == "2026-12-08"
    with clock.travel(at(zone, 2026, 11, 28, 12)):
        assert services.bill_ahead() == 1
    (bill,) = (entry for entry in found(anna) if entry.status == "unpaid")
    assert str(bill.due_on) == "2026-12-08"
    with clock.travel(at(zone, 2026, 12, 9, 12)):  # it stays payable for the usual time
        assert invoicing.expire_due() == 0
    with clock.travel(at(zone, 2026, 12, 12, 12, 0, 1)):
        assert invoicing.expire_due() == 1


def test_pages_name_the_legal_zone_where_its_day_is_another_one(app: Flask):
    user = person("anna", profile=BERLIN)
    assert user.customer_id is not None
    with clock.travel(at("Europe/Berlin", 2026, 12, 1, 0, 20)):
        bill = paid(topup(user.customer_id))
    browser = sign_in(app.test_client(), user)
    for path in (f"/invoices/{bill.number}", "/invoices"):
        assert "Europe/Berlin" not in browser.get(path).text
    customers.update_profile(user.id, user.customer_id, BERLIN, locale="en_GB", timezone="America/New_York")
    for path in (f"/invoices/{bill.number}", "/invoices"):
        page = browser.get(path).text
        assert page.count("Europe/Berlin") == 1
    assert re.search(r"Issued.{0,80}1 December 2026", browser.get(f"/invoices/{bill.number}").text, re.DOTALL)
    assert "1 Dec 2026" in browser.get("/invoices").text


def test_services_say_when_a_renewal_is_still_the_day_before_for_the_reader(app: Flask):
    offer_plans()
    user = person("anna", profile=BERLIN)
    assert user.customer_id is not None
    fund(user.customer_id, 100_00)
    services.order(user.customer_id, "vps-4", 1)
    browser = sign_in(app.test_client(), user)
    for timezone, says in (("Europe/Berlin", False), ("Asia/Tokyo", False), ("America/New_York", True)):
        customers.update_profile(user.id, user.customer_id, BERLIN, locale="en_GB", timezone=timezone)
        assert ("when its day begins in Europe/Berlin" in browser.get("/services").text) == says, timezone


class TestSetting:
    """SELLER_TIMEZONE."""

    @pytest.mark.parametrize(("country", "zone"), [("IE", "Europe/Dublin"), ("FR", "Europe/Paris"), ("DE", "Europe/Berlin"), ("ES", "Europe/Madrid"), ("NZ", "Pacific/Auckland")])
    def test_follows_from_the_country(self, country: str, zone: str):
        environ = {**LIVE, "SELLER_COUNTRY": country, "SELLER_VAT_ID": ""}
        assert config.load(environ).seller.timezone == zone

    def test_is_the_demos_in_the_sandbox(self):
        assert config.load(GIVEN).seller.timezone == "Europe/Berlin"

    @pytest.mark.parametrize("country", ["US", "CA", "AU", "BR"])
    def test_is_asked_for_where_the_country_has_several(self, country: str):
        environ = {**LIVE, "SELLER_COUNTRY": country, "SELLER_VAT_ID": ""}
        with pytest.raises(config.ConfigError, match=r"SELLER_TIMEZONE is not set, and \w\w has several time zones"):
            config.load(environ)

    @pytest.mark.parametrize("name", ["Berlin", "europe/berlin", "UTC+1", "../etc/passwd"])
    def test_is_refused_where_it_is_none(self, name: str):
        with pytest.raises(config.ConfigError, match="SELLER_TIMEZONE="):
            config.load({**GIVEN, "SELLER_TIMEZONE": name})
