"""The account's pages: profile, security, notifications, and the sandbox's mailbox."""

import re
from dataclasses import replace

import pytest

import config
from app import customers, db, mail, services
from app.blueprints.profile import MAILS
from tests.conftest import BERLIN, PASSWORD, person, sign_in
from tests.test_customers import GOOD, newest_link
from tests.trade import fund, offer_plans

FIELDS = {
    "kind": "company",
    "name": "Anna Kowalska",
    "company": "Żółw GmbH",
    "street": "Łódzka 7",
    "postcode": "10115",
    "city": "Berlin",
    "country": "DE",
    "vat_id": "DE 136695976",
    "billing_email": "books@example.com",
    "po_number": "PO-7",
    "locale": "de",
    "timezone": "Europe/Berlin",
    "currency": "EUR",
    "display_currencies": ["USD", "PLN"],
}
CORPUS = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "' or 1=1 --", "=cmd()", "a" * 120]


@pytest.fixture
def me(owner, demo_customer):
    return demo_customer


def stored(user):
    return customers.get(user.customer_id).profile


def marked(page):
    return set(re.findall(r'id="([\w-]+)"[^>]*aria-invalid="true"', page))


def test_the_profile_is_written_and_shown_again(owner, me):
    assert owner.submit("/profile", FIELDS).location == "/profile"
    assert stored(me) == customers.Profile("company", "Anna Kowalska", "Żółw GmbH", "Łódzka 7", "10115", "Berlin", "DE", "DE136695976", "", "PO-7", "EUR", ("USD", "PLN"))
    page = owner.get("/profile").text
    assert "Your profile is saved." in page
    for text in ("Żółw GmbH", "Łódzka 7", "DE136695976", "We are asking the EU register"):
        assert text in page
    assert (customers.get_user(me.id).locale, customers.get(me.customer_id).email) == ("de", "anna@example.com")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vat_id": "DE123"}, "vat_id"),
        ({"vat_id": "PL5260250274"}, "vat_id"),
        ({"country": ""}, "vat_id"),
        ({"country": "ZZ"}, "country"),
        ({"country": "de"}, "country"),
        ({"billing_email": "books"}, "billing_email"),
        ({"billing_email": "books@example.com\nBcc: x@example.com"}, "billing_email"),
        ({"name": "x" * 121}, "name"),
        ({"name": "Anna\0"}, "name"),
        ({"name": "www.evil.example,"}, "name"),
        ({"name": "javascript:alert(1)"}, "name"),
        ({"name": "\u202eevil"}, "name"),
        ({"city": "Ber\r\nlin"}, "city"),
        ({"postcode": "1" * 21}, "postcode"),
        ({"locale": "xx"}, "locale"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"currency": "XXX"}, "currency"),
    ],
)
def test_a_wrong_field_is_marked_and_nothing_is_written(owner, me, change, field):
    before = stored(me)
    answer = owner.submit("/profile", {**FIELDS, "company": "Kept <as> typed", **change})
    assert answer.status_code == 422
    assert field in marked(answer.text)
    assert f'id="{field}-error"' in answer.text
    assert 'value="Kept &lt;as&gt; typed"' in answer.text
    assert stored(me) == before


def test_lists_that_are_not_fields_of_the_form_are_checked_too(owner, me):
    for change in ({"kind": "alien"}, {"display_currencies": ["XXX"]}, {"display_currencies": ["USD", "PLN", "GBP", "CHF", "CZK"]}):
        answer = owner.submit("/profile", {**FIELDS, **change})
        assert answer.status_code == 422
        assert 'class="error"' in answer.text
    assert stored(me) == BERLIN


@pytest.mark.parametrize("text", CORPUS)
def test_whatever_is_typed_is_text(owner, me, text):
    owner.submit("/profile", {**FIELDS, "name": text, "company": text})
    for path in ("/profile", "/security", "/notifications"):
        page = owner.get(path).text
        assert "<script>alert" not in page
        assert "<img" not in page
    assert stored(me).name == text


def test_saving_leads_back_to_where_the_profile_was_missing(owner):
    page = owner.get("/profile?next=/add-funds").text
    assert re.search(r'action="/profile\?next=(/|%2F)add-funds"', page)
    assert owner.submit("/profile?next=/add-funds", FIELDS).location == "/add-funds"
    assert owner.submit("/profile?next=//evil.test", FIELDS).location == "/profile"


def test_what_is_missing_for_a_payment_is_said(app, anonymous):
    sign_in(anonymous, person("nora", name=""))
    page = anonymous.get("/profile").text
    assert "please fill in: name, street, postcode, city, country" in page


def test_a_fixed_currency_is_a_sentence_and_cannot_be_sent(owner, me, superuser):
    superuser.execute("insert into accounts (kind, customer_id, currency, tracked, floor) values ('wallet', %s, 'EUR', true, 0)", (me.customer_id,))
    page = owner.get("/profile").text
    assert 'name="currency"' not in page
    assert "/balance/currency" in page
    assert owner.submit("/profile", {**FIELDS, "currency": "PLN"}).status_code == 303
    assert stored(me).currency == "EUR"


def test_fields_that_are_not_of_the_form_are_ignored(owner, me, superuser):
    owner.submit("/profile", {**FIELDS, "vat_id_state": "valid", "id": "99", "customer_id": "99", "role": "support", "closed_at": "2020-01-01"})
    assert superuser.execute("select vat_id_state, closed_at from customers where id = %s", (me.customer_id,)).fetchone() == ("unverified", None)
    assert customers.get_user(me.id).role == "customer"


def test_changing_the_password_on_the_page(app, owner, me):
    elsewhere = sign_in(app.test_client(), me)
    for current, new, field in (("wrong", GOOD, "current"), (PASSWORD, "short", "password"), ("", GOOD, "current"), (PASSWORD, "", "password")):
        answer = owner.submit("/security/password", {"current": current, "password": new})
        assert (answer.status_code, marked(answer.text)) == (422, {field})
        assert elsewhere.get("/security").status_code == 200
    assert owner.submit("/security/password", {"current": PASSWORD, "password": GOOD}).location == "/security"
    assert "One device was signed out" in owner.get("/security").text
    assert elsewhere.get("/security").status_code == 303


def test_guessing_the_current_password_is_slowed(owner):
    codes = [owner.submit("/security/password", {"current": "wrong", "password": GOOD}).status_code for _ in range(6)]
    assert codes == [422] * 5 + [429]
    answer = owner.submit("/security/password", {"current": PASSWORD, "password": GOOD})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_changing_the_address_on_the_page(owner, me):
    for email, password, field in (("nora", PASSWORD, "email"), ("new@example.com", "wrong", "confirm"), (me.email, PASSWORD, "email"), ("", "", "email")):
        answer = owner.submit("/security/email", {"email": email, "confirm": password})
        assert answer.status_code == 422
        assert field in marked(answer.text)
    assert owner.submit("/security/email", {"email": "new@example.com", "confirm": PASSWORD}).location == "/security"
    owner.submit(f"/verify/{newest_link('verify')}")
    assert "new@example.com" in owner.get("/security").text


def test_devices_are_listed_and_signed_out(app, owner, me, stranger):
    phone, tablet = (sign_in(app.test_client(), me) for _ in range(2))
    references = re.findall(r"/security/sessions/([0-9a-f]{64})/sign-out", owner.get("/security").text)
    assert len(references) == 2
    for client in (stranger,):
        assert client.submit(f"/security/sessions/{references[0]}/sign-out").status_code == 404
    assert owner.submit("/security/sessions/nonsense/sign-out").status_code == 404
    assert owner.submit(f"/security/sessions/{references[0]}/sign-out").location == "/security"
    assert sorted(client.get("/security").status_code for client in (phone, tablet)) == [200, 303]
    assert owner.submit("/security/sessions/sign-out-others").location == "/security"
    assert [client.get("/security").status_code for client in (owner, phone, tablet, stranger)] == [200, 303, 303, 200]


def test_the_history_pages_back(owner, me):
    with db.transaction():
        for _ in range(60):
            customers.record("signed_in", me.id, ip="203.0.113.9")
    assert 'href="/security/history"' in owner.get("/security").text
    page, lines = owner.get("/security/history").text, 0
    while older := re.search(r'href="(/security/history\?before=\d+)"', page):
        lines += page.count("<li><span")
        page = owner.get(older[1]).text
    assert lines + page.count("<li><span") == db.scalar("select count(*) from security_events where user_id = %(id)s", id=me.id)
    partial = owner.get("/security/history", headers={"HX-Request": "true", "HX-Request-Type": "partial"}).text
    assert partial.lstrip().startswith('<section class="panel region" id="events">')
    assert owner.get("/security/history?before=nonsense").status_code == 200


def test_the_archive_holds_the_customers_own_mails_only(owner, stranger, me):
    with db.transaction():
        mail.enqueue("notice", "books@example.com", "Your <receipt>", "Thank you & see you.\n", key="a", customer_id=me.customer_id)
        mail.enqueue("reset", me.email, "Choose a new password", "http://localhost/password/reset/secret", key="b", customer_id=me.customer_id)
    receipt, reset = (next(letter.id for letter in mail.newest(9) if letter.key == key) for key in "ab")
    page = owner.get("/notifications").text
    assert "Your &lt;receipt&gt;" in page
    assert "Waiting to be sent" in page
    assert "Thank you &amp; see you." in owner.get(f"/notifications/{receipt}").text
    assert "secret" not in owner.get(f"/notifications/{reset}").text
    assert "Your &lt;receipt&gt;" not in stranger.get("/notifications").text
    assert stranger.get(f"/notifications/{receipt}").status_code == 404
    assert owner.get("/notifications/999").status_code == 404


def test_the_page_names_every_mail_there_is(owner):
    templates = {path.stem for path in mail.TEMPLATES.glob("*.txt") if not path.stem.startswith("_")}
    assert set(MAILS) == templates
    page = owner.get("/notifications").text
    for subject, _, _ in MAILS.values():
        assert subject in page


def test_the_sandbox_mailbox_shows_every_mail_and_its_links(app, anonymous):
    customers.register("nora", "nora@example.com", GOOD)
    assert "Confirm your e-mail address" in anonymous.get("/sandbox/mail").text
    page = anonymous.get("/sandbox/mail/1").text
    assert f'href="http://localhost/verify/{newest_link("verify")}"' in page
    html = anonymous.get("/sandbox/mail/1/html")
    assert "Confirm this address" in html.text
    assert "unsafe" not in html.headers["Content-Security-Policy"]
    assert anonymous.get("/sandbox/mail/99").status_code == 404
    assert anonymous.get("/sandbox/mail/99/html").status_code == 404


def test_without_the_sandbox_there_is_no_mailbox(anonymous, settings):
    config.use(replace(settings, sandbox=False))
    try:
        assert [anonymous.get(path).status_code for path in ("/sandbox/mail", "/sandbox/mail/1", "/sandbox/mail/1/html")] == [404] * 3
    finally:
        config.use(settings)


def test_a_country_that_bills_are_taxed_by_is_changed_but_not_taken_away(owner, demo_customer, app):
    fund(demo_customer.customer_id, 50_00)
    offer_plans()
    services.order(demo_customer.customer_id, "ip", 1)
    answer = owner.submit("/profile", {**FIELDS, "country": "", "vat_id": ""})
    assert answer.status_code == 422
    assert "Your bills need a country" in answer.text
    assert owner.get("/balance").status_code == 200


# The billing address


def entered(me, email):
    return {**FIELDS, "billing_email": email}


def test_a_new_billing_address_counts_once_its_link_was_followed(owner, anonymous, me):
    answer = owner.submit("/profile", entered(me, "Books@example.com"))
    assert answer.location == "/profile"
    page = owner.get("/profile").text
    assert "A link is on its way to books@example.com" in page
    assert "books@example.com is not confirmed yet" in page
    assert customers.get(me.customer_id).email == "anna@example.com"
    path = f"/billing-email/{newest_link('billing_verify')}"
    assert "books@example.com" in anonymous.get(path).text
    assert customers.get(me.customer_id).email == "anna@example.com"
    assert anonymous.submit(path).location == "/login"
    assert customers.get(me.customer_id).email == "books@example.com"
    told = mail.newest(1)[0]
    assert (told.kind, told.recipient) == ("billing_changed", "anna@example.com")
    assert "books@example.com" in told.text
    assert anonymous.get(path).status_code == 410
    assert anonymous.submit(path).status_code == 410


def test_the_billing_address_before_hears_of_every_change(owner, me):
    customers.seed_billing_email(me.customer_id, "books@example.com")
    owner.submit("/profile", entered(me, "thief@example.com"))
    assert customers.get(me.customer_id).email == "books@example.com"
    owner.submit(f"/billing-email/{newest_link('billing_verify')}")
    assert (mail.newest(1)[0].kind, mail.newest(1)[0].recipient) == ("billing_changed", "books@example.com")
    owner.submit("/profile", entered(me, ""))
    assert customers.get(me.customer_id).email == "anna@example.com"
    assert (mail.newest(1)[0].kind, mail.newest(1)[0].recipient) == ("billing_changed", "thief@example.com")


def test_saving_the_profile_otherwise_asks_and_tells_nobody(owner, me):
    customers.seed_billing_email(me.customer_id, "Books@Example.com")
    for email in ("Books@Example.com", "books@example.com"):
        owner.submit("/profile", entered(me, email))
    assert mail.newest(1) == []
    assert stored(me).billing_email == "Books@Example.com"


def test_the_confirmed_login_address_needs_no_link(owner, me):
    customers.seed_billing_email(me.customer_id, "books@example.com")
    owner.submit("/profile", entered(me, me.email))
    assert stored(me).billing_email == me.email
    assert [letter.kind for letter in mail.newest(2)] == ["billing_changed"]


def test_a_thiefs_billing_link_dies_with_the_password(owner, me):
    owner.submit("/profile", entered(me, "thief@example.com"))
    link = newest_link("billing_verify")
    owner.submit("/security/password", {"current": PASSWORD, "password": GOOD})
    assert owner.submit(f"/billing-email/{link}").status_code == 410
    assert customers.get(me.customer_id).email == "anna@example.com"
    assert "is not confirmed yet" not in owner.get("/profile").text


def test_links_to_billing_addresses_are_limited(owner, me):
    codes = [owner.submit("/profile", entered(me, f"book{number}@example.com")).status_code for number in range(12)]
    assert codes == [303] * 10 + [429] * 2
    assert stored(me).billing_email == ""


def test_a_company_that_would_be_a_link_in_a_mail_is_marked(owner, me):
    before = stored(me)
    answer = owner.submit("/profile", {**FIELDS, "company": "Visit evil.example"})
    assert (answer.status_code, marked(answer.text)) == (422, {"company"})
    assert stored(me) == before
