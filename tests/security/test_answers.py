"""What every answer of every address says to the browser, over https, whatever its status."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from xml.etree.ElementTree import Element
from zipfile import ZipFile

import html5lib
import pytest
from flask import Flask, Response

import config
from app import create_app, customers, db, gateways, invoicing, services
from tests.conftest import BERLIN, Browser, person
from tests.test_access_matrix import PARTIAL, TABLE, House
from tests.world import cast, furnish

SECURE = "https://billing.example"
PAGES = [name for name in TABLE if name.startswith("GET")]
YEAR_S = 31_536_000
SCRIPT = '"><script>alert(1)</script>'


@contextmanager
def over_https(app: Flask, settings: config.Settings) -> Iterator[Flask]:
    """The same house at a public https address."""
    secure = create_app(replace(settings, base_url=SECURE, testing=False))
    secure.test_client_class = Browser
    try:
        yield secure
    finally:
        config.use(settings)
        gateways.use(gateways.build(settings, app.extensions["sandbox_processor"]))
        with secure.app_context():
            for engine in db.db.engines.values():
                engine.dispose()


def browser(app: Flask, user: customers.User | None) -> Browser:
    """A browser at the public address, signed in when there is somebody."""
    client: Browser = app.test_client()
    if user is not None:
        token = customers.open_session(user.id, ip="127.0.0.1", user_agent="Firefox Linux")
        client.set_cookie("__Host-sid", token, domain="billing.example", secure=True)
    return client


def directives(policy: str) -> dict[str, str]:
    """A content security policy by its directives."""
    parts = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: value for name, _, value in parts}


def judge(answer: Response, where: str) -> None:
    """What a browser must be told by every answer."""
    headers = answer.headers
    age = re.fullmatch(r"max-age=(\d+); includeSubDomains", headers["Strict-Transport-Security"])
    assert age, where
    assert int(age[1]) >= YEAR_S, where
    policy = directives(headers["Content-Security-Policy"])
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'", where
    assert policy.get("object-src", "'none'") == "'none'", where
    assert "unsafe" not in headers["Content-Security-Policy"], where
    assert headers["X-Content-Type-Options"] == "nosniff", where
    assert headers["Referrer-Policy"] == "same-origin", where
    assert "Access-Control-Allow-Origin" not in headers, where
    if answer.data:
        text = re.match(r"text/|image/svg\+xml|application/(json|xml)", headers["Content-Type"])
        assert not text or "charset=utf-8" in headers["Content-Type"], where
        assert is_what_it_says(answer), where
    for cookie in headers.getlist("Set-Cookie"):
        assert cookie.startswith("__Host-"), where
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; ")), where
        assert "Domain=" not in cookie, where


def is_what_it_says(answer: Response) -> bool:
    """Whether the bytes are of the type that is named."""
    body, kind = answer.data, answer.mimetype
    if kind == "text/html":
        return body.lstrip().startswith(b"<")
    if kind == "application/pdf":
        return body.startswith(b"%PDF-")
    if kind == "application/zip":
        return ZipFile(BytesIO(body)).testzip() is None
    if kind.startswith("text/"):
        return bool(body.decode("utf-8")) and not body.lstrip().startswith(b"<")
    return kind in {"image/svg+xml", "font/woff2", "image/png"}


def test_every_answer_over_https_carries_what_a_browser_must_be_told(house: House, settings: config.Settings) -> None:
    with over_https(house.app, settings) as secure:
        clients = {who: browser(secure, house.users[who]) for who in ("anonymous", "owner", "staff")}
        seen: dict[int, int] = {}
        for who, client in clients.items():
            for name in PAGES:
                for headers in ({}, PARTIAL):
                    answer = client.get(house.path(name), base_url=SECURE, headers=headers)
                    judge(answer, f"{who} {name}: {answer.status}")
                    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        owner = clients["owner"]
        refused = {
            400: owner.post("/profile", base_url=SECURE, data={"name": "x"}),
            404: owner.get("/nowhere", base_url=SECURE),
            405: owner.delete("/healthz", base_url=SECURE),
            413: owner.post("/profile", base_url=SECURE, data={"name": "x" * 700_000}),
        }
        refused[405] = owner.open("/balance", method="TRACE", base_url=SECURE)
        for status, answer in refused.items():
            assert answer.status_code == status
            judge(answer, f"refusal {status}")
        assert {200, 303, 404} <= set(seen)


def test_an_answer_that_breaks_inside_carries_it_too(house: House, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("select secret from somewhere")

    with over_https(house.app, settings) as secure:
        monkeypatch.setattr(invoicing, "search", break_down)
        answer = browser(secure, house.users["owner"]).get("/invoices", base_url=SECURE)
    assert answer.status_code == 500
    judge(answer, "500")
    assert not [word for word in ("secret", "Traceback", "RuntimeError", ".py") if word in answer.text]
    assert not secure.debug


def test_a_processor_is_never_sent_to_another_address(app: Flask, settings: config.Settings) -> None:
    with over_https(app, settings) as secure:
        for base in ("http://billing.example", SECURE):
            answer = secure.test_client().post("/webhooks/sandbox", base_url=base, data=b"{}")
            assert answer.status_code == 400
            assert "Location" not in answer.headers


@dataclass(frozen=True)
class Seen:
    """An answer as it was kept."""

    status: int
    kind: str
    text: str
    disposition: str


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], Seen]:
    """Room for the answers, asked by the first test that wants them."""
    return {}


@pytest.fixture
def pages(app: Flask, kept: dict[tuple[str, str], Seen]) -> dict[tuple[str, str], Seen]:
    """What every address answers to everybody, with an owner whose texts are hostile."""
    if not kept:
        users = cast(app)
        owner = users["owner"]
        assert owner
        house = House(app, furnish(app, owner), users)
        hostile = dict.fromkeys(("street", "city", "po_number"), "javascript:alert(1)")
        data = {**TABLE["POST profile.save"].data, **hostile}
        assert house.clients["owner"].submit("/profile", data).status_code == 303
        for who in ("anonymous", "owner", "staff"):
            for name in PAGES:
                path = house.path(name)
                if name == "GET invoices.bundle":
                    path += f"?number={house.things.paid}"
                answer = house.clients[who].get(path)
                text = answer.text if answer.mimetype.startswith("text/") else ""
                kept[who, name] = Seen(answer.status_code, answer.mimetype, text, answer.headers.get("Content-Disposition", ""))
    return kept


def trees(pages: dict[tuple[str, str], Seen]) -> Iterator[tuple[str, Element]]:
    """The pages among the answers, as a browser reads them."""
    for (who, name), seen in pages.items():
        if seen.kind == "text/html" and seen.text:
            yield f"{who} {name}", html5lib.parse(seen.text, namespaceHTMLElements=False)


def test_files_are_downloads_under_names_of_our_own(pages: dict[tuple[str, str], Seen]) -> None:
    files = 0
    for (who, name), seen in pages.items():
        if seen.status == 200 and seen.kind not in {"text/html", "text/plain"} and name != "GET static":
            files += 1
            assert re.fullmatch(r'attachment; filename="[A-Za-z0-9][A-Za-z0-9._-]{0,80}"', seen.disposition), f"{who} {name}"
    assert files >= 6


LEADING = re.compile(r"(/(?![/\\])|#|\?|mailto:|https://|http://localhost/|$)")


def test_every_page_loads_only_its_own_and_leads_by_known_schemes(pages: dict[tuple[str, str], Seen]) -> None:
    found = 0
    for where, tree in trees(pages):
        for element in tree.iter():
            for attribute in ("href", "src", "action", "formaction", "hx-get", "hx-post", "poster", "data"):
                address = element.get(attribute)
                if address is not None:
                    found += 1
                    assert LEADING.match(address), f"{where}: {address}"
                    loads = (element.tag, attribute) in {("script", "src"), ("link", "href"), ("img", "src")}
                    assert not loads or address.startswith("/"), f"{where}: {address}"
    assert found > 500


def test_every_page_of_who_is_signed_in_has_the_way_out(pages: dict[tuple[str, str], Seen]) -> None:
    inside = 0
    for (who, name), seen in pages.items():
        if who != "anonymous" and seen.status == 200 and seen.kind == "text/html" and TABLE[name].audience != "public":
            inside += 1
            assert '<form method="post" action="/logout">' in seen.text, f"{who} {name}"
    assert inside > 20


def test_passwords_are_masked_and_left_to_password_managers(pages: dict[tuple[str, str], Seen], anonymous: Browser) -> None:
    kinds = {}
    for where, tree in trees(pages):
        for entry in tree.iter("input"):
            if entry.get("name") in {"password", "current", "confirm"}:
                kinds[where, entry.get("name")] = (entry.get("type"), entry.get("autocomplete"))
                assert not [name for name in entry.attrib if name in {"maxlength", "pattern", "readonly"} or name.startswith("on")]
    assert set(kinds.values()) == {("password", "current-password"), ("password", "new-password")}
    assert len(kinds) >= 6
    script = anonymous.get(anonymous.application.jinja_env.filters["asset"]("js/app.js"))
    assert script.status_code == 200
    assert "paste" not in script.text


def test_no_page_asks_for_a_file_or_for_a_secret_question(pages: dict[tuple[str, str], Seen]) -> None:
    asked: set[str] = set()
    for where, tree in trees(pages):
        assert not [entry for entry in tree.iter("input") if entry.get("type") == "file"], where
        assert not [form for form in tree.iter("form") if form.get("enctype")], where
        if where in {"anonymous GET auth.register", "anonymous GET auth.reset", "owner GET profile.security"}:
            asked |= {str(entry.get("name")) for entry in tree.iter("input")}
    assert {"login", "email", "password", "current", "confirm"} <= asked
    assert not [name for name in asked if re.search(r"question|answer|hint|maiden|pet|school", name)]


def test_no_form_that_reads_carries_a_secret_in_its_address(pages: dict[tuple[str, str], Seen]) -> None:
    reading = 0
    for where, tree in trees(pages):
        for form in tree.iter("form"):
            if (form.get("method") or "get").lower() == "get":
                reading += 1
                names = {entry.get("name") for entry in form.iter("input")}
                assert not names & {"csrf_token", "sid", "token", "email", "iban"}, where
                assert "password" not in {entry.get("type") for entry in form.iter("input")}, where
    assert reading > 3


def test_logging_out_clears_the_cookie_and_the_browsers_storage(app: Flask) -> None:
    client = app.test_client()
    user = person("nora", profile=BERLIN)
    client.set_cookie("sid", customers.open_session(user.id))
    answer = client.submit("/logout")
    assert '"storage"' in answer.headers["Clear-Site-Data"]
    gone = [cookie for cookie in answer.headers.getlist("Set-Cookie") if cookie.startswith("sid=;")]
    assert len(gone) == 1
    assert "Max-Age=0" in gone[0]


HOSTILE = [SCRIPT, "{{7*7}}", "<img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "]]>--><b>"]


def test_what_is_typed_is_text_in_the_history_and_on_supports_pages(house: House) -> None:
    owner = house.clients["owner"]
    number = db.scalar("select number from refunds order by id limit 1")
    pages = [
        *(("owner", path) for path in ("/transactions", "/services", "/refunds", "/add-funds", "/cards")),
        *(("staff", path) for path in ("/staff/refunds", f"/staff/refunds/{number}", "/staff/held", "/staff/bank")),
    ]
    for payload in HOSTILE:
        data = {**TABLE["POST profile.save"].data, "name": payload[:60], "street": payload[:60]}
        assert owner.submit("/profile", data).status_code == 303
        with db.transaction():
            db.execute("update services set label = %(label)s", label=payload[:60])
        services.order(house.things.user.customer_id or 0, "ip", 1, label=payload[:60])
        for who, path in pages:
            answer = house.clients[who].get(path)
            assert answer.status_code == 200, path
            for raw in ("<script>alert", "<img src=x", "' onmouseover", "]]>--><b>", ">49<"):
                assert raw not in answer.text, path
    assert "&lt;script&gt;alert" in owner.get("/transactions").text
