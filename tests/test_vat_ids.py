"""VAT IDs and the register: who is a business, by whose word, for how long, and what an outage means."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest
from flask import Flask

import config
from app import clock, customers, db, invoicing, tax
from app.customers import User, vat_ids
from app.invoicing import Bill, Line
from app.tax import Party
from tests.conftest import BERLIN, Browser, person
from tests.fakes.vies import Vies

NUMBER = "FR40303265045"
PARIS = replace(BERLIN, kind="company", company="Exemple SARL", street="1 rue de Rivoli", postcode="75001", city="Paris", country="FR", vat_id=NUMBER)


@pytest.fixture
def register(app: Flask, settings: config.Settings) -> Iterator[Vies]:
    """A register that knows nobody yet, and that the house asks."""
    fake = Vies()
    config.use(replace(settings, vies_url=fake.url))
    yield fake
    config.use(settings)
    fake.close()


@pytest.fixture
def company(app: Flask) -> User:
    """A company in France whose number nobody has looked at."""
    return person("claire", profile=PARIS)


def state_of(user: User) -> str:
    return customers.get(user.customer_id or 0).vat_id_state


def billed(user: User) -> Bill:
    with db.transaction():
        return invoicing.issue_service_bill(user.customer_id or 0, "VPS", "EUR", [Line("VPS M", 100_00)])


def test_until_the_register_answered_the_vat_of_the_place_is_charged(register: Vies, company: User) -> None:
    before = billed(company)
    assert (before.tax_category, before.tax_rate, before.tax) == ("S", 20, 20_00)
    register.registered[NUMBER] = "EXEMPLE SARL"
    assert vat_ids.check_due() == 1
    after = billed(company)
    assert (state_of(company), after.tax_category, after.tax) == ("valid", "AE", 0)
    check = vat_ids.latest(company.customer_id or 0, NUMBER)
    assert check is not None
    assert (check.consultation, check.name, check.address, check.actor) == ("WAPIAAAAX000001", "EXEMPLE SARL", "", "register")
    kept = after.buyer["vat_check"]
    assert (kept["state"], kept["consultation"], kept["name"]) == ("valid", "WAPIAAAAX000001", "EXEMPLE SARL")
    assert register.calls[0].json == {"countryCode": "FR", "vatNumber": NUMBER[2:], "requesterMemberStateCode": "DE", "requesterNumber": "301204584"}


def test_a_number_that_the_register_does_not_know_is_no_business(register: Vies, company: User) -> None:
    assert vat_ids.check_due() == 1
    assert (state_of(company), billed(company).tax_category) == ("invalid", "S")
    (told,) = letters_about_vat()
    assert told.subject == f"The VAT ID {NUMBER} is not registered"
    assert "does not list your VAT ID" in told.text
    with clock.travel(clock.now() + timedelta(days=31)):
        assert vat_ids.check_due() == 1
    assert len(letters_about_vat()) == 1, "the same answer again is no news"


def letters_about_vat() -> list[db.Row]:
    return db.rows("select subject, body_text as text from mails where kind = 'vat_id_unknown' order by id")


@pytest.mark.parametrize("failure", ["MS_UNAVAILABLE", "MS_MAX_CONCURRENT_REQ", "TIMEOUT", "INVALID_REQUESTER_INFO", "500", "html", "junk", "hang-before", "drop-after"])
def test_an_outage_is_no_answer_and_is_asked_again_later(register: Vies, company: User, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    monkeypatch.setattr("app.customers.vies.DEADLINE_S", 0.3)
    register.registered[NUMBER] = "EXEMPLE SARL"
    if failure.isupper():
        register.down["FR"] = failure
    else:
        register.script.append(failure)
    assert vat_ids.check_due() == 0
    assert (state_of(company), db.scalar("select count(*) from vat_checks")) == ("unverified", 0)
    assert vat_ids.check_due() == 0  # not before its time
    register.down.clear()
    with clock.travel(clock.now() + timedelta(minutes=6)):
        assert vat_ids.check_due() == 1
        assert state_of(company) == "valid"


def test_a_register_that_changes_its_mind_is_believed(register: Vies, company: User) -> None:
    register.registered[NUMBER] = "EXEMPLE SARL"
    vat_ids.check_due()
    register.registered.clear()
    assert vat_ids.check_due() == 0
    with clock.travel(clock.now() + timedelta(days=31)):
        assert vat_ids.check_due() == 1
        assert (state_of(company), billed(company).tax_category) == ("invalid", "S")
    assert db.scalar("select array_agg(state order by id) from vat_checks") == ["valid", "invalid"]
    (told,) = letters_about_vat()
    assert "no longer lists your VAT ID" in told.text


def test_a_proof_lasts_ninety_days_while_nobody_can_look(register: Vies, company: User) -> None:
    register.registered[NUMBER] = "EXEMPLE SARL"
    vat_ids.check_due()
    register.down["FR"] = "MS_UNAVAILABLE"
    proven = clock.now()
    for days, state in ((31, "valid"), (89, "valid"), (91, "unverified")):
        with clock.travel(proven + timedelta(days=days)):
            vat_ids.check_due()
            assert state_of(company) == state


def test_another_number_or_country_is_asked_about_anew(register: Vies, company: User) -> None:
    register.registered[NUMBER] = "EXEMPLE SARL"
    vat_ids.check_due()
    for changed, state in (
        (replace(PARIS, city="Lyon"), "valid"),
        (replace(PARIS, country="MC"), "unverified"),
        (replace(PARIS, vat_id=""), "none"),
        (PARIS, "unverified"),
    ):
        customers.update_profile(company.id, company.customer_id or 0, changed, locale="en", timezone="UTC")
        assert state_of(company) == state
    assert vat_ids.check_due() == 1


def test_an_individual_is_never_a_business(register: Vies) -> None:
    register.registered[NUMBER] = "EXEMPLE SARL"
    claire = person("claire", profile=replace(PARIS, kind="individual"))
    assert vat_ids.check_due() == 0
    assert billed(claire).tax_category == "S"
    for number, country in (("PT123456789", "PT"), ("ES12345678Z", "ES"), ("RO18547290", "RO")):
        for state in ("unverified", "valid", "confirmed"):
            assert not tax.is_business(Party(country, number, vat_id_state=state, kind="individual"))


def test_the_policy_for_companies_before_the_answer(settings: config.Settings, company: User) -> None:
    config.use(replace(settings, reverse_charge_unverified=True))
    try:
        assert billed(company).tax_category == "AE"
    finally:
        config.use(settings)
    invalid = Party("FR", NUMBER, vat_id_state="invalid")
    assert tax.treatment(settings.seller, invalid, date(2026, 1, 1), trust_unverified=True).category == "S"


def test_the_sandbox_has_a_register_of_its_own(company: User) -> None:
    assert vat_ids.check_due() == 1
    assert state_of(company) == "valid"
    check = vat_ids.latest(company.customer_id or 0, NUMBER)
    assert check is not None
    assert check.consultation == "TEST-REGISTER"


def test_support_decides_with_a_reason_and_the_register_no_more(register: Vies, company: User, staff: Browser) -> None:
    assert NUMBER in staff.get("/staff/vat-ids").text
    data = {"customer": str(company.customer_id), "decision": "confirm", "reason": ""}
    staff.submit("/staff/vat-ids", data)
    assert "Write down why" in staff.get("/staff/vat-ids").text
    assert state_of(company) == "unverified"
    staff.submit("/staff/vat-ids", data | {"reason": "Extract of the trade register, 3 March"})
    assert (state_of(company), billed(company).tax_category) == ("confirmed", "AE")
    with clock.travel(clock.now() + timedelta(days=400)):
        assert vat_ids.check_due() == 0
    check = vat_ids.latest(company.customer_id or 0, NUMBER)
    assert check is not None
    assert (check.reason, check.actor) == ("Extract of the trade register, 3 March", "staff:sven")
    staff.submit("/staff/vat-ids", data | {"decision": "refuse", "reason": "It was dissolved"})
    assert (state_of(company), billed(company).tax_category) == ("refused", "S")
    staff.submit("/staff/vat-ids", data | {"decision": "ask"})
    assert state_of(company) == "unverified"


def test_an_answer_about_a_number_that_was_changed_meanwhile_changes_nothing(company: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(vat_id: str) -> object:
        customers.update_profile(company.id, company.customer_id or 0, replace(PARIS, vat_id=""), locale="en", timezone="UTC")
        return vat_ids.vies.Answer(valid=True)

    monkeypatch.setattr(vat_ids, "_ask", slow)
    vat_ids.check_due()
    assert (state_of(company), db.scalar("select count(*) from vat_checks")) == ("none", 0)


def test_the_profile_says_where_the_number_stands_and_what_to_do(register: Vies, app: Flask, owner: Browser, demo_customer: User) -> None:
    customers.update_profile(demo_customer.id, demo_customer.customer_id or 0, PARIS, locale="en", timezone="UTC")
    assert "Until it answers, invoices include VAT" in owner.get("/profile").text
    vat_ids.check_due()
    assert "ask support to look at your registration" in owner.get("/profile").text
    register.registered[NUMBER] = "EXEMPLE SARL"
    with clock.travel(clock.now() + timedelta(days=31)):
        vat_ids.check_due()
    assert "Verified" in owner.get("/profile").text
