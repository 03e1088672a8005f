"""Who gets what: every route, asked by everybody of the cast. A route without a line in the table fails; so does a line without a route."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import html5lib
import psycopg
import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.routing import Rule

import config
from app import create_app, customers, db, gateways
from tests.conftest import PASSWORD, Browser, person, sign_in
from tests.world import MISSING, Things, cast, furnish

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass(frozen=True)
class Route:
    """Whom a route lets in and what its owner gets.

    ``audience`` is public, anyone (who is logged in), customer or staff. ``thing`` is what of the owner's the address names: to everybody
    else it does not exist. ``others`` overrides the rule for somebody. ``data`` is a form that is accepted.
    """

    audience: str
    owner: int = 200
    thing: str = ""
    data: dict[str, str] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    def expected(self, who: str) -> int:
        """The status this person gets."""
        if who in self.others:
            return self.others[who]
        if who == "owner" or self.audience == "public":
            return self.owner
        if who == "anonymous":
            return 303
        if who == "staff" and self.audience == "customer":
            return 403
        return 404 if self.thing or (self.audience == "staff" and who != "staff") else self.owner


ADDRESS = {"name": "Anna Kowalska", "street": "Weg 1", "postcode": "10115", "city": "Berlin", "country": "DE", "kind": "individual", "locale": "en", "timezone": "UTC"}
GUEST = {"name": "Gustav Guest", "email": "gustav@example.com", "street": "Weg 2", "postcode": "10115", "city": "Berlin", "country": "DE"}
NEW_PASSWORD = "another-quiet-harbour"
TABLE = {
    "GET auth.index": Route("public", 303),
    "GET auth.login": Route("public", 303, others={"anonymous": 200}),
    "POST auth.login": Route("public", 303, data={"login": "anna", "password": PASSWORD}),
    "POST auth.logout": Route("anyone", 303),
    "GET auth.register": Route("public", 303, others={"anonymous": 200}),
    "POST auth.register": Route("public", 303, data={"login": "freda", "email": "freda@example.com", "password": NEW_PASSWORD}),
    "GET auth.reset": Route("public"),
    "POST auth.reset": Route("public", 303, data={"login": "anna"}),
    "GET auth.new_password": Route("public", thing="reset"),
    "POST auth.new_password": Route("public", 303, "reset", {"password": NEW_PASSWORD}),
    "GET auth.verify": Route("public", thing="verify"),
    "POST auth.verify": Route("public", 303, "verify"),
    "GET auth.undo_email": Route("public", thing="undo"),
    "POST auth.undo_email": Route("public", 303, "undo"),
    "GET auth.billing_email": Route("public", thing="billing"),
    "POST auth.billing_email": Route("public", 303, "billing"),
    "POST auth.verify_again": Route("anyone", 303),
    "GET balance.show": Route("customer"),
    "GET currency.show": Route("customer"),
    "POST currency.change": Route("customer", 422, data={"currency": "USD"}),
    "GET add_funds.show": Route("customer"),
    "POST add_funds.create": Route("customer", 303, data={"amount": "31", "currency": "EUR"}, others={"unverified": 422}),
    "GET add_funds.ask": Route("customer"),
    "POST add_funds.make_link": Route("customer", 303, data={"name": "Anna", "amount": "20"}),
    "POST add_funds.revoke_link": Route("customer", 303, "asked"),
    "GET cards.index": Route("customer"),
    "POST cards.add": Route("customer", 303, data={"consent": "1"}),
    "GET cards.added": Route("customer", 303, "setup"),
    "POST cards.remove": Route("customer", 303, "card"),
    "GET services.source": Route("customer", thing="service"),
    "POST services.invoice": Route("customer", 303, "service"),
    "POST services.pay_from": Route("customer", 303, "service", {"source": "balance"}),
    "GET transactions.index": Route("customer"),
    "GET transactions.export": Route("customer"),
    "GET refunds.index": Route("customer"),
    "POST refunds.ask": Route("customer", 422, data={"amount": "1"}),
    "POST refunds.withdraw": Route("customer", 303, "refund"),
    "GET refunds.receipt": Route("customer", thing="refund_receipt"),
    "GET staff_home.index": Route("staff", 404, others={"staff": 200}),
    "GET staff_refunds.index": Route("staff", 404, others={"staff": 200}),
    "GET staff_refunds.show": Route("staff", 404, "refund", others={"staff": 200}),
    "POST staff_refunds.decide": Route("staff", 404, "refund", {"decision": "decline", "answer": "Wrong payment"}, others={"staff": 303}),
    "GET staff_bank.index": Route("staff", 404, others={"staff": 200}),
    "GET staff_bank.show": Route("staff", 404, "line", others={"staff": 200}),
    "GET staff_bank.gap": Route("staff", 404, "gap", others={"staff": 200}),
    "POST staff_bank.acknowledge": Route("staff", 404, "gap", {"reason": "The bank has none"}, others={"staff": 303}),
    "POST staff_bank.decide": Route("staff", 404, "line", {"decision": "credit", "login": "anna", "reason": "She called"}, others={"staff": 303}),
    "GET staff_refunds.prepare": Route("staff", 404, "given", others={"staff": 200}),
    "POST staff_refunds.open_refund": Route("staff", 404, "given", {"amount": "12", "reason": "The payer asked for it"}, others={"staff": 303}),
    "GET staff_vat.index": Route("staff", 404, others={"staff": 200}),
    "POST staff_vat.decide": Route("staff", 404, data={"decision": "ask", "customer": "1"}, others={"staff": 303}),
    "GET staff_disputes.index": Route("staff", 404, others={"staff": 200}),
    "GET staff_disputes.show": Route("staff", 404, "dispute", others={"staff": 200}),
    "GET staff_held.index": Route("staff", 404, others={"staff": 200}),
    "GET staff_held.show": Route("staff", 404, "held", others={"staff": 200}),
    "POST staff_held.decide": Route("staff", 404, "held", {"decision": "credit", "reason": "It is theirs"}, others={"staff": 303}),
    "GET services.index": Route("customer"),
    "GET operations.healthz": Route("public"),
    "GET operations.readyz": Route("public"),
    "GET operations.metrics": Route("public"),
    "GET add_funds.bill_to": Route("customer"),
    "POST add_funds.invoice_for_payment": Route(
        "customer",
        303,
        data={**{name: ADDRESS[name] for name in ("name", "street", "postcode", "city", "country", "kind")}, "amount": "31", "currency": "EUR"},
        others={"unverified": 422},
    ),
    "GET invoices.index": Route("customer"),
    "GET invoices.export": Route("customer"),
    "GET invoices.bundle": Route("customer", 303),
    "GET invoices.show": Route("customer", thing="paid"),
    "GET invoices.pdf": Route("customer", thing="paid"),
    "GET invoices.receipt": Route("customer", thing="paid"),
    "POST invoices.share": Route("customer", 303, "unpaid"),
    "POST invoices.unshare": Route("customer", 303, "unpaid"),
    "GET invoices.ask_to_cancel": Route("customer", thing="unpaid"),
    "POST invoices.cancel": Route("customer", 303, "unpaid"),
    "GET pay.choose": Route("customer", thing="unpaid"),
    "POST pay.leave": Route("customer", 303, "unpaid", {"method": "sandbox-card"}),
    "GET pay.receipt": Route("customer", 303, thing="payment"),
    "GET pay.result": Route("customer", thing="payment"),
    "GET links.show": Route("public", thing="bill_link"),
    "POST links.leave": Route("public", 303, "bill_link", {"method": "sandbox-card"}),
    "GET links.top_up": Route("public", thing="topup_link"),
    "POST links.order": Route("public", 303, "topup_link", {**GUEST, "amount": "25", "currency": "EUR"}),
    "GET links.status": Route("public", thing="paid_link"),
    "GET links.invoice": Route("public", thing="paid_link"),
    "GET links.receipt": Route("public", thing="paid_link"),
    "GET profile.show": Route("customer"),
    "POST profile.save": Route("customer", 303, data=ADDRESS),
    "GET profile.security": Route("anyone"),
    "GET profile.history": Route("anyone"),
    "POST profile.change_password": Route("anyone", 303, data={"current": PASSWORD, "password": NEW_PASSWORD}),
    "POST profile.change_email": Route("anyone", 303, data={"email": "new@example.com", "confirm": PASSWORD}),
    "POST profile.sign_out": Route("anyone", 303, "device"),
    "POST profile.sign_out_others": Route("anyone", 303),
    "GET profile.notifications": Route("customer"),
    "GET profile.letter": Route("customer", thing="letter"),
    "GET sandbox.show": Route("public", thing="hosted"),
    "POST sandbox.choose": Route("public", 303, "hosted", {"choice": "approve"}),
    "POST sandbox.happen": Route("public", 400, "hosted", {"happening": "dispute:all"}),
    "GET sandbox_mail.inbox": Route("public"),
    "GET sandbox_mail.read": Route("public", thing="letter"),
    "GET sandbox_mail.read_html": Route("public", thing="letter"),
    "POST webhooks.receive": Route("public", 400, "webhook"),
    "GET static": Route("public", thing="file"),
}
WHOSE = {name: route for name, route in TABLE.items() if route.thing and route.audience != "public"}
CSRF_EXEMPT = {"POST webhooks.receive"}
WRITES_ON_READING = {"GET pay.result": {"payments", "payment_events"}, "GET links.status": {"payments", "payment_events"}}
"""The page one comes back to from the processor asks it how the payment stands and writes down the answer."""
KEPT_BY_THE_BROWSER = {"GET invoices.pdf", "GET invoices.receipt", "GET refunds.receipt", "GET static"}
"""What never changes may be kept, documents only by the browser that asked and only to ask again."""
PEOPLE = ("anonymous", "owner", "stranger", "staff", "unverified")


@dataclass
class House:
    """Everybody of the cast with a browser, and the owner's things."""

    app: Flask
    things: Things
    users: dict[str, customers.User | None]

    def __post_init__(self) -> None:
        self.clients = {who: self.client(who) for who in PEOPLE}
        self.rules = dict(_routes(self.app))

    def client(self, who: str) -> Browser:
        """A new browser of somebody."""
        user = self.users[who]
        return sign_in(self.app.test_client(), user) if user else self.app.test_client()

    def path(self, name: str, missing: str = "") -> str:
        """The address of a route, naming the owner's thing or a missing one."""
        thing = TABLE[name].thing
        special = {"webhook": "sandbox", "file": self.app.jinja_env.filters["asset"]("app.css").removeprefix("/static/")}
        word = missing or special.get(thing) or (self.things.named(thing) if thing else "")
        return re.sub(r"<[^>]+>", word, self.rules[name].rule)

    def ask(self, name: str, who: str, **options) -> Response:
        """One request, with its form when it has one; every answer's headers are judged."""
        client = self.clients[who]
        answer = client.get(self.path(name), **options) if name.startswith("GET") else client.submit(self.path(name), TABLE[name].data, **options)
        judge(answer, signed_in=who != "anonymous", kept=name in KEPT_BY_THE_BROWSER)
        return answer


def _routes(app: Flask) -> Iterator[tuple[str, Rule]]:
    for rule in app.url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            yield f"{method} {rule.endpoint}", rule


@pytest.fixture
def house(app: Flask) -> House:
    """The cast in a house where the owner has everything."""
    users = cast(app)
    owner = users["owner"]
    assert owner
    return House(app, furnish(app, owner), users)


def judge(answer: Response, *, signed_in: bool, kept: bool = False) -> None:
    """What holds for every answer, whatever its status."""
    headers = answer.headers
    where = f"{answer.request.method} {answer.request.path}: {answer.status}"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'"), where
    assert "unsafe" not in policy, where
    assert "frame-ancestors 'none'" in policy, where
    assert headers["X-Content-Type-Options"] == "nosniff", where
    assert headers["X-Frame-Options"] == "DENY", where
    assert headers["Referrer-Policy"] == "same-origin", where
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin", where
    assert not [name for name, _ in headers if name.lower().startswith("access-control-")], where
    assert "X-Powered-By" not in headers, where
    if answer.data:
        assert "charset=utf-8" in headers["Content-Type"] or not answer.mimetype.startswith("text/"), where
    if not (kept and answer.status_code in {200, 304}):
        assert headers["Cache-Control"] == "no-store", where
    elif signed_in and answer.mimetype == "application/pdf":
        assert headers["Cache-Control"] == "private, no-cache", where
    if answer.mimetype == "text/html" and answer.data:
        assert {"HX-Request", "HX-Request-Type", "Cookie"} <= set(answer.vary), where
    for cookie in headers.getlist("Set-Cookie"):
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; ")), where
        assert "Domain" not in cookie, where


def test_every_route_stands_in_the_table(app: Flask) -> None:
    assert set(TABLE) == set(dict(_routes(app)))


@pytest.mark.parametrize("who", PEOPLE)
def test_every_page_answers_everybody_as_the_table_says(house: House, who: str) -> None:
    pages = [name for name in TABLE if name.startswith("GET")]
    found = {name: house.ask(name, who).status_code for name in pages}
    assert found == {name: TABLE[name].expected(who) for name in pages}


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("GET")])
def test_every_form_answers_everybody_as_the_table_says(house: House, name: str) -> None:
    before = picture()
    others = [who for who in PEOPLE if who != "owner" and (TABLE[name].audience != "public" or name in CSRF_EXEMPT)]
    refused = {who: house.ask(name, who).status_code for who in others if TABLE[name].expected(who) >= 400 or who == "anonymous"}
    assert refused == {who: TABLE[name].expected(who) for who in refused}
    assert changed(before, picture()) == set()
    accepted = {who: house.ask(name, who).status_code for who in others if who not in refused}
    assert accepted == {who: TABLE[name].expected(who) for who in accepted}
    assert house.ask(name, "owner").status_code == TABLE[name].owner


@pytest.mark.parametrize("who", ["owner", "anonymous", "unverified"])
def test_every_page_is_well_formed_and_names_nothing_twice(house: House, who: str) -> None:
    for name in TABLE:
        answer = house.ask(name, who) if name.startswith("GET") else None
        if answer is not None and answer.mimetype == "text/html" and answer.data:
            parser = html5lib.HTMLParser()
            parser.parse(answer.text)
            assert parser.errors == [], name
            names = re.findall(r'\sid="([^"]+)"', answer.text)
            assert sorted(names) == sorted(set(names)), name


def test_who_is_not_logged_in_is_sent_to_the_login_and_back(house: House) -> None:
    inside = [name for name in TABLE if name.startswith("GET") and TABLE[name].audience != "public"]
    for name in inside:
        page = house.ask(name, "anonymous")
        assert page.location.startswith("/login?next=%2F"), name
        fragment = house.ask(name, "anonymous", headers=PARTIAL)
        assert (fragment.status_code, fragment.data) == (200, b""), name
        assert fragment.headers["HX-Redirect"] == page.location, name


@pytest.mark.parametrize("headers", [{}, PARTIAL], ids=["page", "fragment"])
def test_a_foreign_a_missing_and_a_wrong_name_are_the_same_404(house: House, headers: dict[str, str]) -> None:
    for name, route in WHOSE.items():
        foreign = _refusal(house, "stranger", name, house.path(name), headers)
        assert foreign == _refusal(house, "stranger", name, house.path(name, MISSING[route.thing]), headers), name
        assert foreign == _refusal(house, "stranger", name, house.path(name, "%27%20or%201=1--"), headers), name
        assert foreign != ""


def _refusal(house: House, who: str, name: str, path: str, headers: dict[str, str]) -> str:
    """The body of a 404, without what is different in every answer: the reference, the form tokens, the page's own address."""
    client = house.clients[who]
    answer = client.get(path, headers=headers) if name.startswith("GET") else client.submit(path, WHOSE[name].data, headers=headers)
    assert answer.status_code == 404, (name, path)
    text = answer.text.replace(answer.headers["X-Request-Id"], "")
    return re.sub(r'(X-CSRFToken":"|name="csrf_token" value=")[^"]+', r"\1", text)


def test_a_form_without_its_token_is_refused_and_changes_nothing(house: House) -> None:
    client, before = house.app.test_client(), picture()
    client.set_cookie("sid", sid(house.clients["owner"]))
    for name in set(TABLE) - CSRF_EXEMPT:
        if name.startswith("GET"):
            continue
        for headers in ({}, PARTIAL, {"HX-Request": "true"}):
            answer = client.open(house.path(name), method=name.split()[0], data=TABLE[name].data, headers=headers)
            assert answer.status_code == 400, name
            assert "This page was open too long" in answer.text, name
    assert changed(before, picture()) == set()


def test_a_token_of_another_session_opens_no_form(house: House) -> None:
    page = house.ask("GET profile.show", "stranger").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    answer = house.clients["owner"].post("/profile", data={"csrf_token": token[1], **ADDRESS})
    assert answer.status_code == 400


def test_reading_changes_nothing(house: House) -> None:
    for name in TABLE:
        if name.startswith("GET"):
            house.ask(name, "owner")  # a document is printed when it is first asked for, and kept
    before = picture()
    for name in TABLE:
        if name.startswith("GET"):
            client = house.clients["owner"]
            path = house.path(name)
            client.get(path)
            client.head(path)
            client.get(path, headers=PARTIAL)
            after = picture()
            assert changed(before, after) <= WRITES_ON_READING.get(name, set()), name
            before = after


def picture() -> dict[str, str]:
    """A hash of every table's rows."""
    tables = [row.tablename for row in db.rows("select tablename from pg_tables where schemaname = 'public'")]
    whole = " union all ".join(f"select '{table}' as name, md5(coalesce(string_agg(md5(t::text), '' order by md5(t::text)), '')) as hash from {table} t" for table in tables)
    return {row.name: row.hash for row in db.rows(whole)}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The tables that are not as they were; counters of tries aside."""
    return {table for table in before if before[table] != after[table]} - {"rate_limits"}


def test_the_picture_shows_a_change(app: Flask) -> None:
    before = picture()
    person("nora")
    assert {"users", "customers"} <= changed(before, picture())


@pytest.mark.parametrize("status", [404, 405, 413, 400])
def test_refusals_carry_the_same_headers(house: House, status: int) -> None:
    client = house.clients["owner"]
    answers = {
        404: lambda: client.get("/nowhere"),
        405: lambda: client.submit("/balance"),
        413: lambda: client.post("/profile", data={"name": "x" * 700_000}),
        400: lambda: client.get("/balance", headers={"Host": "evil.test"}),
    }
    answer = answers[status]()
    assert answer.status_code == status
    judge(answer, signed_in=True)


def test_another_origin_is_told_nothing(house: House) -> None:
    for method in ("get", "options"):
        answer = getattr(house.clients["owner"], method)("/balance", headers={"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"})
        assert answer.status_code == 200
        judge(answer, signed_in=True)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_strange_methods_are_refused(house: House, method: str) -> None:
    assert house.clients["owner"].open("/balance", method=method).status_code in {400, 405}


# The session's cookie


def sid(client: FlaskClient) -> str:
    """The session cookie a browser holds."""
    cookie = client.get_cookie("sid")
    assert cookie
    return str(cookie.value)


def with_cookie(app: Flask, value: str) -> Browser:
    """Another browser that got hold of a session's cookie."""
    browser = app.test_client()
    browser.set_cookie("sid", value)
    return browser


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/logout", {}),
        ("/security/password", {"current": PASSWORD, "password": NEW_PASSWORD}),
        ("/security/sessions/sign-out-others", {}),
    ],
)
def test_a_session_that_was_ended_is_dead_wherever_its_cookie_is_replayed(house: House, path: str, data: dict[str, str]) -> None:
    other = sid(house.client("owner"))
    own = sid(house.clients["owner"])
    assert with_cookie(house.app, own).get("/security").status_code == with_cookie(house.app, other).get("/security").status_code == 200
    house.clients["owner"].submit(path, data)
    dead = own if path == "/logout" else other
    assert with_cookie(house.app, dead).get("/security").location == "/login?next=%2Fsecurity"


def test_a_login_begins_a_new_session_and_ends_the_one_it_came_with(house: House) -> None:
    client = house.clients["owner"]
    before = sid(client)
    client.submit("/login", {"login": "anna", "password": PASSWORD})
    assert sid(client) != before
    assert with_cookie(house.app, before).get("/security").status_code == 303


def test_the_cookie_tells_nothing_and_is_not_stored(house: House, superuser: psycopg.Connection) -> None:
    value = sid(house.clients["owner"])
    assert len(value) >= 43
    stored = superuser.execute("select string_agg(t::text, ' ') from sessions t").fetchone()
    assert stored
    assert value not in stored[0]


def test_over_https_cookies_are_bound_to_the_host_and_every_answer_asks_for_https(app: Flask, settings: config.Settings) -> None:
    person("anna")
    secure = create_app(replace(settings, base_url="https://billing.example", testing=False))
    try:
        client = secure.test_client()
        client.get("/login", base_url="https://billing.example")
        page = client.get("/login", base_url="https://billing.example")
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert token
        data = {"csrf_token": token[1], "login": "anna", "password": PASSWORD}
        answer = client.post("/login", base_url="https://billing.example", data=data, headers={"Referer": "https://billing.example/login"})
        assert answer.status_code == 303
        set_cookies = {cookie.split("=", 1)[0]: cookie for cookie in answer.headers.getlist("Set-Cookie")}
        assert "__Host-sid" in set_cookies
        assert all("; Secure" in cookie for cookie in set_cookies.values())
        for path, status in (("/login", 303), ("/security", 200), ("/nowhere", 404)):
            answer = client.get(path, base_url="https://billing.example")
            assert (path, answer.status_code) == (path, status)
            assert answer.headers["Strict-Transport-Security"].startswith("max-age=63072000")
        foreign = client.post("/logout", base_url="https://billing.example", data=data, headers={"Referer": "https://evil.test/"})
        assert foreign.status_code == 400
    finally:
        config.use(settings)
        gateways.use(gateways.build(settings, app.extensions["sandbox_processor"]))
        with secure.app_context():
            for engine in db.db.engines.values():
                engine.dispose()
