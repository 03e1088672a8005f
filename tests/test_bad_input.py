"""Whatever is typed: every field of every form is fed what nobody should type. A refusal marks its field and writes nothing; nothing is ever a 500."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote
from xml.etree.ElementTree import Element

import html5lib
import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from app import customers, db
from tests.conftest import BERLIN, PASSWORD, person
from tests.test_access_matrix import NEW_PASSWORD, PARTIAL, TABLE, House, changed, picture
from tests.world import cast, furnish

SCRIPT = '"><script>alert(1)</script>'
CORPUS = {
    "empty": "",
    "blank": " \t ",
    "huge": "x" * 100_000,
    "many digits": "9" * 400,
    "10^30": "1" + "0" * 30,
    "2^63": str(2**63),
    "negative": "-25",
    "exponent": "1e3",
    "not a number": "NaN",
    "signalling": "sNaN",
    "infinite": "Infinity",
    "underscore": "1_000",
    "fullwidth": "１２",
    "template": "{{7*7}}",
    "format": "%s%n%(x)s{0.__class__}",
    "script": SCRIPT,
    "sql": "' or 1=1; drop table users;--",
    "header": "x\r\nSet-Cookie: evil=1",
    "rtl": "\u202egnp.exe \u200f",
    "emoji": "👩‍👩‍👧 🏴‍☠️",
    "nul": "a\0b",
    "control": "a\x1b[31m\x07b",
    "surrogate": "\\ud800 \ud7ff\uffff",
    "path": "../../../../etc/passwd",
    "regex": "(a+)+$" * 8,
    "address": "//evil.test/\\x",
}
QUICK = ("empty", "huge", "nul", "script", "surrogate", "10^30", "signalling")
"""What is enough for a field that nobody types into, and where a password is hashed each time."""
SLOW = {"password", "current", "confirm"}
LOGGED = {"security_events", "mails", "sessions", "rate_limits"}
"""What a refusal may leave: that it happened."""


@dataclass(frozen=True)
class Form:
    """One form of one page, as a browser would send it."""

    who: str
    action: str
    method: str
    endpoint: str
    fields: dict[str, list[str]]
    typed: set[str]

    def words(self, field: str) -> Iterable[str]:
        """The part of the corpus that this field is fed."""
        return CORPUS if field in self.typed and not SLOW & set(self.fields) else QUICK

    @property
    def filled(self) -> dict[str, list[str]]:
        """Its fields as they stand, completed with what the table of routes knows to be accepted."""
        known = TABLE.get(f"POST {self.endpoint}")
        return self.fields | {name: [value] for name, value in (known.data if known else {}).items()}

    def fed(self, field: str, *values: str) -> MultiDict[str, str]:
        """The form with this in one field."""
        return MultiDict([(name, value) for name, held in {**self.filled, field: list(values)}.items() for value in held if name != "csrf_token"])


def forms_of(app: Flask, who: str, page: str, html: str) -> Iterator[Form]:
    """The forms of a page that have anything to fill in."""
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    for form in tree.iter("form"):
        inputs = [*form.iter("input"), *form.iter("select"), *form.iter("textarea"), *form.iter("button")]
        inputs += [entry for entry in tree.iter("input") if form.get("id") and entry.get("form") == form.get("id")]
        fields = {str(entry.get("name")): _values(entry) for entry in inputs if entry.get("name") and entry.get("type") != "submit"}
        action, method = form.get("action") or page, (form.get("method") or "get").upper()
        endpoint, _ = app.url_map.bind("localhost").match(action.split("?")[0], method=method)
        typed = {str(entry.get("name")) for entry in inputs if entry.tag == "textarea" or entry.get("type") in {"text", "search", "email", "password"}}
        if set(fields) - {"csrf_token"}:
            yield Form(who, action, method, endpoint, fields, typed)


def _values(entry: Element) -> list[str]:
    if entry.tag == "select":
        chosen = [option for option in entry.iter("option") if "selected" in option.attrib] or list(entry.iter("option"))[:1]
        return [option.get("value", option.text or "") for option in chosen]
    if entry.get("type") in {"checkbox", "radio"} and "checked" not in entry.attrib:
        return []
    return [entry.get("value", "")]


@pytest.fixture
def house(app: Flask) -> House:
    """The cast in a house where the owner has everything."""
    users = cast(app)
    owner = users["owner"]
    assert owner
    person("company", profile=replace(BERLIN, kind="company", company="Exemple SARL", country="FR", vat_id="FR40303265045"))
    return House(app, furnish(app, owner), users)


def found_forms(house: House) -> dict[tuple[str, str], Form]:
    """Every form of every page, by endpoint and method, with somebody who sees it."""
    found: dict[tuple[str, str], Form] = {}
    for who in ("unverified", "anonymous", "owner", "staff"):
        for name in TABLE:
            if name.startswith("GET") and name not in FILES:
                page = house.clients[who].get(house.path(name))
                if page.mimetype == "text/html" and page.status_code == 200:
                    found.update({(form.endpoint, form.method): form for form in forms_of(house.app, who, house.path(name), page.text)})
    asking = f"/refunds?payment={db.scalar(_REFUNDABLE)}"
    found.update({(form.endpoint, form.method): form for form in forms_of(house.app, "owner", asking, house.clients["owner"].get(asking).text)})
    return found


_REFUNDABLE = "select public_id from payments p where state = 'paid' and not exists (select from refunds r where r.payment_id = p.id) order by id limit 1"
WITHOUT_FIELDS = {
    "cards.remove",
    "sandbox.happen",
    "auth.logout",
    "invoices.cancel",
    "refunds.withdraw",
    "services.invoice",
    "add_funds.revoke_link",
    "invoices.share",
    "invoices.unshare",
    "auth.verify",
    "auth.undo_email",
    "auth.billing_email",
    "profile.sign_out",
    "profile.sign_out_others",
    "webhooks.receive",
}
"""Forms of one button or a choice of them; and the processors', who have no form."""


def test_every_form_is_found(house: House) -> None:
    posting = {name.split()[1] for name in TABLE if name.startswith("POST")}
    assert posting - {endpoint for endpoint, method in found_forms(house) if method == "POST"} == WITHOUT_FIELDS


FILES = {
    "GET static",
    "GET invoices.pdf",
    "GET invoices.receipt",
    "GET links.invoice",
    "GET links.receipt",
    "GET invoices.export",
    "GET invoices.bundle",
    "GET transactions.export",
}
SENDING = sorted(name.split()[1] for name in TABLE if name.startswith("POST") and name.split()[1] not in WITHOUT_FIELDS)


@pytest.mark.parametrize("endpoint", SENDING)
def test_no_field_is_a_way_to_break_it(house: House, endpoint: str) -> None:
    form = found_forms(house)[endpoint, "POST"]
    for field in set(form.fields) - {"csrf_token"}:
        for word in form.words(field):
            feed(house, form, field, (CORPUS[word],), word)
        feed(house, form, field, ("10", "9999"), "twice")


def feed(house: House, form: Form, field: str, values: tuple[str, ...], word: str) -> None:
    """Send one form with one bad field, and judge the answer."""
    where = f"{form.endpoint}: {field} = {word}"
    client = house.client("anonymous") if form.who == "anonymous" else house.clients[form.who]
    forget_tries()
    before = picture()
    answer = client.submit(form.action, form.fed(field, *values))
    assert answer.status_code in {200, 303, 400, 404, 410, 413, 422}, f"{where}: {answer.status}"
    assert SCRIPT not in answer.text, where
    if answer.status_code >= 400:
        assert changed(before, picture()) - LOGGED == set(), where
    if answer.status_code == 422:
        assert 'aria-invalid="true"' in answer.text or 'role="alert"' in answer.text, where
    if answer.status_code == 303:
        assert re.match(r"/(?![/\\])", answer.location), where
    assert not [header for header in answer.headers.getlist("Set-Cookie") if header.startswith("evil")], where


def forget_tries() -> None:
    """Let the next try be the first: the limits have tests of their own."""
    with db.transaction():
        db.execute("delete from rate_limits")


FILTERED = {
    "GET invoices.index": {"status", "from", "to", "min", "max", "period", "q", "size", "before"},
    "GET transactions.index": {"kind", "direction", "from", "to", "min", "max", "q", "before", "as_of"},
    "GET add_funds.show": {"amount", "currency", "beneficiary"},
    "GET links.top_up": {"amount", "currency"},
    "GET invoices.bundle": {"number"},
    "GET invoices.export": {"status", "from", "min", "q"},
    "GET pay.choose": {"method"},
    "GET profile.history": {"before"},
    "GET profile.notifications": {"before"},
    "GET auth.login": {"next"},
    "GET profile.show": {"next"},
    "GET sandbox.show": {"step"},
    "GET staff_refunds.index": {"find"},
    "GET staff_held.index": {"over", "before"},
}
"""What an address may ask for, by page."""


@pytest.mark.parametrize("name", sorted(set(FILTERED) & set(TABLE)))
def test_no_address_is_a_way_to_break_it(house: House, name: str) -> None:
    who = "anonymous" if name == "GET auth.login" else "staff" if TABLE[name].audience == "staff" else "owner"
    client, path = house.clients[who], house.path(name)
    questions = [(field, {field: CORPUS[word]}) for field in FILTERED[name] for word in QUICK]
    questions += [(word, dict.fromkeys(FILTERED[name], value)) for word, value in CORPUS.items()]
    questions += [(field, MultiDict([(field, "10"), (field, "9999")])) for field in FILTERED[name]]
    for what, query in questions:
        forget_tries()
        for headers in ({}, PARTIAL):
            answer = client.get(path, query_string=query, headers=headers)
            assert answer.status_code in {200, 303, 400, 404, 422}, f"{what}: {answer.status}"
            assert SCRIPT not in answer.text, what
            assert answer.status_code != 303 or re.match(r"/(?![/\\])", answer.location), what


def test_no_name_in_an_address_is_a_way_to_break_it(house: House) -> None:
    for name in TABLE:
        if TABLE[name].thing and name.startswith("GET"):
            for word, value in CORPUS.items():
                if not value:
                    continue
                text = value * 5 if value.isdecimal() else value[:2000]  # digits of any script are a number, and a small one may be hers
                answer = house.clients["staff" if TABLE[name].audience == "staff" else "owner"].get(house.path(name, missing=quote(text.encode("utf-8", "surrogatepass"), safe="")))
                assert answer.status_code in {308, 404, 410}, f"{name}: {word}: {answer.status}"


TWO_AMOUNTS = MultiDict([("amount", "10"), ("amount", "9999")])


@pytest.mark.parametrize(("path", "form"), [("/add-funds", TWO_AMOUNTS), ("/add-funds?amount=9999", {"amount": "10"}), ("/add-funds?x=1&x=2", {"amount": "10"})])
def test_of_two_amounts_none_is_billed(house: House, path: str, form: dict[str, str]) -> None:
    before = db.scalar("select count(*) from bills")
    assert house.clients["owner"].submit(path, form).status_code == 400
    assert db.scalar("select count(*) from bills") == before


def test_of_two_amounts_in_an_address_none_is_priced_and_a_list_is_a_list(house: House) -> None:
    owner = house.clients["owner"]
    assert [owner.get(path).status_code for path in ("/add-funds?amount=10&amount=9999", "/invoices?q=a&q=b", "/invoices?number=a&number=b")] == [400, 400, 200]


@pytest.mark.parametrize("payload", [SCRIPT, "{{7*7}}${7*7}<%= 7*7 %>", "'-alert(1)-'", "javascript:alert(1)", "&lt;b&gt;&amp;"])
def test_what_a_customer_types_is_shown_as_text_everywhere(house: House, payload: str) -> None:
    client = house.clients["owner"]
    named = ("name", "company") if customers.name_problem(payload) is None else ()  # what mail programs make a link of is no name
    data = dict.fromkeys((*named, "street", "city", "po_number"), payload[:60])
    answer = client.submit("/profile", {**TABLE["POST profile.save"].data, "company": "Exemple", **data, "postcode": "10115", "kind": "company"})
    assert answer.status_code == 303
    assert client.submit("/add-funds", {"amount": "77", "currency": "EUR"}).status_code == 303
    number = db.scalar("select proforma_number from bills order by id desc limit 1")
    pages = ["/profile", "/balance", "/invoices", f"/invoices/{number}", f"/invoices/{number}/pay", "/security", "/notifications"]
    seen = 0
    for path in pages:
        text = client.get(path).text
        assert "<script>alert" not in text, path
        assert ">49<" not in text, path
        assert 'href="javascript:' not in text, path
        seen += shows(html5lib.parse(text, namespaceHTMLElements=False), payload)
    assert seen >= 2, "the profile and the document show it, as it was typed"


def shows(page: Element, text: str) -> bool:
    """Whether a reader or a field of this page shows a text letter for letter."""
    return any(text in (entry.get("value") or "") or text in (entry.text or "") for entry in page.iter())


def test_a_login_with_the_right_password_and_a_strange_name_stays_outside(house: House) -> None:
    for value in CORPUS.values():
        forget_tries()
        client = house.client("anonymous")
        assert client.submit("/login", {"login": value[:300], "password": PASSWORD}).status_code == 422


OTHER_BODIES = {
    "application/json": b'{"amount": 10}',
    "text/xml": b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "multipart/form-data; boundary=x": b"--x\r\n",
}


@pytest.mark.parametrize("kind", OTHER_BODIES)
def test_a_body_that_is_no_form_is_refused(house: House, kind: str) -> None:
    assert house.clients["owner"].post("/add-funds", data=OTHER_BODIES[kind], content_type=kind).status_code == 400


def test_a_new_password_is_taken_as_it_is_typed(house: House) -> None:
    client = house.clients["owner"]
    odd = f"  {NEW_PASSWORD} 🏴‍☠️ ÀÉ\u0308  " + "x" * 60
    assert client.submit("/security/password", {"current": PASSWORD, "password": odd}).status_code == 303
    visitor = house.client("anonymous")
    assert visitor.submit("/login", {"login": "anna", "password": odd.strip()}).status_code == 422
    assert visitor.submit("/login", {"login": "anna", "password": odd}).status_code == 303
