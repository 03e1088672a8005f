"""The way every view answers: page or fragment, safe headers, honest errors, quick files."""

import gzip
import json
import logging
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha384
from pathlib import Path

import brotli
import psycopg
import pytest
from flask import Flask, Response, abort, request
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader
from sqlalchemy import make_url

import config
from app import create_app, db, gateways, logs, web
from app.web import assets, faults, gate, safety
from tests.pay import processor

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}
PAGE = '{% extends "base.html" %}{% block main %}'
TEMPLATES = {
    "list.html": PAGE + '<h1>List</h1>{% block results %}<ul id="results">{{ words }} {{ 128460|money("EUR") }} {{ badge("Paid", "credit") }}</ul>{% endblock %}{% endblock %}',
    "form.html": PAGE + '{% block box %}<form id="box" method="post">{{ csrf_field() }}{{ field("name", "Name", value, errors=errors) }}</form>{% endblock %}{% endblock %}',
    "typo.html": PAGE + "{{ wrods }}{% endblock %}",
}


def build(settings: config.Settings) -> Flask:
    """The real house with a few rooms more."""
    app = create_app(settings)
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    app.jinja_env.loader = ChoiceLoader([DictLoader(TEMPLATES), app.jinja_env.loader])
    rooms = {
        "/t/list": show_list,
        "/t/form": show_form,
        "/t/error/<int:code>": lambda code: abort(code),  # noqa: PLW0108 - abort is not ours to mark
        "/t/secret/<token>": lambda token: "ok",
        "/t/broken": lambda: 1 // 0,
        "/t/typo": lambda: web.page("typo.html"),
        "/t/books": lambda: str(db.scalar("select 42")),
        "/t/go": lambda: web.go(request.args["to"]),
        "/t/document": send_document,
        "/t/done": finish,
    }
    for path, view in rooms.items():
        app.add_url_rule(path, path, gate.public(view), methods=["GET", "POST"] if view is show_form else ["GET"])
    app.add_url_rule("/t/inside", "inside", lambda: "inside")
    return app


def finish() -> Response:
    web.toast("€ 25.00 were added.", "/invoices/INV-1", "See the invoice")
    return web.go("/t/list")


def show_list() -> Response:
    return web.page("list.html", "results", also=("_balance_chip.html",) if request.args.get("moved") else (), push_url="/t/list?status=paid", words="<b>" + "word " * 400)


def show_form() -> Response:
    return web.page("form.html", "box", status_code=422 if request.method == "POST" else 200, value="typed", errors={"name": "Enter a name."} if request.method == "POST" else {})


def send_document() -> Response:
    answer = Response("%PDF" * 1000, content_type="application/pdf", headers={"Cache-Control": "private, max-age=60"})
    answer.set_etag("abc")
    return answer


@pytest.fixture(scope="module")
def house(settings: config.Settings, application: Flask) -> Iterator[Flask]:
    """The house with the rooms of this file, built once."""
    app = build(settings)
    yield app
    with app.app_context():
        for engine in db.db.engines.values():
            engine.dispose()


@pytest.fixture
def visitor(house: Flask, app: Flask) -> FlaskClient:
    """A browser that is not signed in."""
    return house.test_client()


# Page and fragment


def test_an_address_opened_by_hand_is_a_whole_page(visitor: FlaskClient) -> None:
    page = visitor.get("/t/list").text
    assert page.startswith("<!doctype html>")
    assert '<ul id="results">' in page
    assert "€\u00a01,284.60" in page


def test_a_partial_request_gets_the_named_block_alone(visitor: FlaskClient) -> None:
    answer = visitor.get("/t/list", headers=PARTIAL)
    assert answer.text.startswith('<ul id="results">')
    assert answer.text.endswith("</ul>")
    assert '<span class="badge credit">Paid</span>' in answer.text
    assert answer.headers["HX-Push-Url"] == "/t/list?status=paid"


@pytest.mark.parametrize(
    "headers",
    [
        {"HX-Request": "true", "HX-Request-Type": "full"},
        {**PARTIAL, "HX-History-Restore-Request": "true"},
        {**PARTIAL, "Sec-Fetch-Mode": "navigate"},
        {"HX-Request": "false"},
    ],
)
def test_history_and_navigation_get_the_whole_page(visitor: FlaskClient, headers: dict[str, str]) -> None:
    answer = visitor.get("/t/list", headers=headers)
    assert answer.text.startswith("<!doctype html>")
    assert "HX-Push-Url" not in answer.headers


def test_what_moved_beside_the_block_comes_as_a_partial_of_its_own(owner: FlaskClient, house: Flask) -> None:
    chip = take_over(owner, house).get("/t/list?moved=1", headers=PARTIAL).text
    assert '<hx-partial hx-target="#balance-chip" hx-swap="outerMorph"><output class="chip" id="balance-chip"' in chip


def test_caches_can_tell_a_page_from_its_fragment(visitor: FlaskClient) -> None:
    for headers in ({}, PARTIAL):
        varies = {name.strip() for name in visitor.get("/t/list", headers=headers).headers["Vary"].split(",")}
        assert {"HX-Request", "HX-Request-Type", "Cookie", "Accept-Encoding"} <= varies


def test_text_from_outside_is_escaped(visitor: FlaskClient) -> None:
    assert "&lt;b&gt;word" in visitor.get("/t/list").text


def test_a_wrong_form_comes_back_with_422_and_its_field_marked(house: Flask, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(house.config, "WTF_CSRF_ENABLED", False)
    answer = house.test_client().post("/t/form", headers=PARTIAL)
    assert answer.status_code == 422
    assert answer.text.startswith('<form id="box"')
    assert 'value="typed"' in answer.text
    assert re.search(r'id="name" name="name" aria-invalid="true" aria-describedby="name-error ', answer.text)
    assert '<p class="error" id="name-error">Enter a name.</p>' in answer.text


def test_an_unsafe_push_url_is_a_mistake_of_the_program(house: Flask) -> None:
    with house.test_request_context("/t/list", headers=PARTIAL), pytest.raises(ValueError, match="is not a path"):
        web.page("list.html", "results", push_url="//evil.test", words="")


def test_a_name_that_the_view_forgot_is_an_error_not_a_gap(visitor: FlaskClient) -> None:
    assert visitor.get("/t/typo").status_code == 500


def test_a_toast_waits_for_the_next_page_and_is_said_once(visitor: FlaskClient) -> None:
    assert visitor.get("/t/done").headers["Location"] == "/t/list"
    assert 'were added. <a href="/invoices/INV-1">See the invoice</a>' in visitor.get("/t/list").text
    assert "were added" not in visitor.get("/t/list").text
    visitor.get("/t/done")
    assert '<hx-partial hx-target="#toasts" hx-swap="beforeend"><div class="toast">' in visitor.get("/t/list", headers=PARTIAL).text


def test_the_frame_shows_who_is_signed_in_and_only_pages_that_exist(owner: FlaskClient, house: Flask) -> None:
    page = take_over(owner, house).get("/t/list").text
    assert ">AK</span>" in page
    assert 'id="balance-chip"' in page
    paths = {rule.rule for rule in house.url_map.iter_rules()}
    links = set(re.findall(r'<a href="(/[^"]*)"', page[page.index("<nav") : page.index("</nav>")]))
    assert links <= paths | {"/"}


def test_support_without_money_of_its_own_sees_no_pages_about_money(staff: FlaskClient, house: Flask) -> None:
    page = take_over(staff, house).get("/t/list").text
    assert 'href="/security"' in page
    assert 'href="/balance"' not in page
    assert "balance-chip" not in page


def take_over(signed_in: FlaskClient, house: Flask) -> FlaskClient:
    """The same cookie in a browser of this file's house."""
    client = house.test_client()
    cookie = signed_in.get_cookie("sid")
    assert cookie is not None
    client.set_cookie("sid", cookie.value)
    return client


# Where to go


@pytest.mark.parametrize("path", ["/", "/balance", "/invoices?status=paid&q=a%20b", "/invoices/PF-2026-000001/pay", "/a:b", "/x?next=//evil.test"])
def test_a_path_of_this_site_is_kept(path: str) -> None:
    assert web.safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None, "", "balance", "//evil.test", "///evil.test", "/\\evil.test", "\\\\evil.test", "/\t/evil.test", "/\n/evil.test", "/ /evil.test", "http:evil.test", "https://evil.test",
        "javascript:alert(1)", "/a\\b", "/ünsafe", "/a\x00b", "/a\r\nSet-Cookie: x", " /balance", "/balance ", "@evil.test", "//evil.test/%2f..", "/\u2215evil", "\x0b/evil",
    ],
)  # fmt: skip
def test_anything_else_leads_to_the_start(house: Flask, path: str | None) -> None:
    assert web.safe_next(path) == "/"
    with house.test_request_context("/", headers=PARTIAL):
        assert web.go(path or "").headers["HX-Redirect"] == "/"
    with house.test_request_context("/"):
        assert web.go(path or "").headers["Location"] == "/"


def test_who_is_not_signed_in_is_led_to_the_login_and_back(visitor: FlaskClient) -> None:
    answer = visitor.get("/t/inside?status=paid")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Ft%2Finside%3Fstatus%3Dpaid")
    partial = visitor.get("/t/inside", headers=PARTIAL)
    assert (partial.status_code, partial.text, partial.headers["HX-Redirect"]) == (200, "", "/login?next=%2Ft%2Finside")


# Safety


def test_every_answer_carries_the_headers(visitor: FlaskClient) -> None:
    for path in ("/t/list", "/t/error/404", "/t/broken", "/nowhere", "/static/nothing.js"):
        headers = visitor.get(path).headers
        assert headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in headers


def test_https_adds_what_only_https_may_promise(settings: config.Settings) -> None:
    secure = config.Settings(database_url="", secret_key="s" * 48, base_url="https://billing.example", stripe_secret_key="sk_x")
    headers = safety.security_headers(secure)
    assert headers["Strict-Transport-Security"].startswith("max-age=63072000")
    assert safety.trusted_hosts(secure) == ["billing.example"]
    app = Flask("secure")
    safety.init(app, secure)
    assert app.config["SESSION_COOKIE_NAME"] == "__Host-session"
    assert app.config["SESSION_COOKIE_SECURE"] is True


KEYS = {"stripe_secret_key": "sk_x", "paypal_client_id": "x", "btcpay_url": "https://pay.shop.example:8443/btc", "nowpayments_api_key": "x"}
LOOPBACK = "http://localhost:12111"


@pytest.mark.parametrize(
    ("given", "pages"),
    [
        ({}, []),
        (KEYS, ["https://checkout.stripe.com", "https://www.paypal.com", "https://pay.shop.example:8443", "https://nowpayments.io"]),
        ({"paypal_client_id": "x", "paypal_api_base": "https://api-m.sandbox.paypal.com"}, ["https://www.sandbox.paypal.com"]),
        ({"nowpayments_api_key": "x", "nowpayments_api_base": "https://api-sandbox.nowpayments.io"}, ["https://sandbox.nowpayments.io"]),
        ({**KEYS, "stripe_api_base": f"{LOOPBACK}/v1", "paypal_api_base": LOOPBACK, "btcpay_url": LOOPBACK, "nowpayments_api_base": LOOPBACK}, [LOOPBACK]),
        ({"btcpay_url": "https://PAY.example:443/"}, ["https://pay.example"]),
    ],
)
def test_forms_may_lead_to_the_pages_of_the_processors_that_are_configured(app: Flask, given: dict[str, str], pages: list[str]) -> None:
    settings = config.Settings(database_url="", secret_key="", base_url="https://x.example", **given)
    gateways.use(gateways.build(settings, processor(app)))
    assert gateways.pages() == pages
    answer = app.test_client().get("/login")
    allowed = " ".join(["form-action 'self'", *pages])
    assert f"{allowed};" in answer.headers["Content-Security-Policy"]


def leave(app: Flask, url: str, **headers: str) -> Response:
    with app.test_request_context("/", method="POST", headers=headers):
        return web.leave(url)


def test_the_way_to_a_processors_page_is_plain_where_forms_may_lead_there(app: Flask) -> None:
    settings = config.Settings(database_url="", secret_key="", btcpay_url="https://pay.example", btcpay_store_id="x", sandbox=False)
    gateways.use(gateways.build(settings, processor(app)))
    plain = leave(app, "https://pay.example/i/1")
    assert (plain.status_code, plain.headers["Location"]) == (303, "https://pay.example/i/1")
    other = leave(app, "https://moved.example/i/1")
    assert (other.status_code, other.headers["Refresh"]) == (200, "0; url=https://moved.example/i/1")
    assert '<a class="button" href="https://moved.example/i/1" rel="noopener">' in other.get_data(as_text=True)
    assert leave(app, "http://localhost/payments/pay_1").headers["Location"] == "/payments/pay_1"
    assert leave(app, "https://pay.example/i/1", Accept="text/plain").get_data(as_text=True) == "https://pay.example/i/1"
    for url in ("javascript:alert(1)", "https://pay.example/\r\nx", "https://pay.example/a b", "data:text/html,x"):
        with pytest.raises(ValueError, match="not the address of a page"):
            leave(app, url)


def test_a_foreign_host_is_refused_and_named_in_the_log(visitor: FlaskClient, lines: list[dict[str, object]]) -> None:
    answer = visitor.get("/t/list", headers={"Host": 'evil.test/"\x1b[31m' + "x" * 200}, environ_base={"REMOTE_ADDR": "198.51.100.7"})
    assert answer.status_code == 400
    assert "evil.test" not in answer.text
    (line,) = [line for line in lines if line.get("code") == "host_refused"]
    assert line["address"] == "198.51.100.7"
    assert str(line["host"]).startswith('evil.test/"?[31mxxx')
    assert len(str(line["host"])) == safety.LONGEST_HOST


def test_no_form_sends_its_token_in_an_address() -> None:
    """A form that is sent by GET holds no token, and one that holds one is sent by POST, whichever of its buttons is pressed."""
    templates = Path(__file__).parent.parent / "templates"
    forms = [(file.name, form) for file in templates.rglob("*.html") for form in re.findall(r"<form\b.*?</form>", file.read_text(), re.DOTALL)]
    assert len(forms) > 40
    wrong = [name for name, form in forms if is_get(form) == ("csrf_field()" in form or "csrf_token" in form)]
    assert wrong == []
    assert [file.name for file in templates.rglob("*.html") if "formmethod" in file.read_text()] == []


def is_get(form: str) -> bool:
    method = re.search(r'method="(\w+)"', form.partition(">")[0])
    return method is None or method[1].lower() == "get"


def test_a_form_without_its_token_is_refused_with_help(visitor: FlaskClient) -> None:
    page = visitor.post("/t/form")
    assert page.status_code == 400
    assert "This page was open too long" in page.text
    notice = visitor.post("/t/form", headers={**PARTIAL, "Referer": "http://localhost/t/list?q=1"})
    assert notice.headers["HX-Retarget"] == "#problem"
    assert notice.headers["HX-Reswap"] == "innerHTML"
    assert '<a class="button quiet small" href="/t/list">Reload the page</a>' in notice.text
    assert "<html" not in notice.text


def test_the_token_of_the_page_opens_the_form(visitor: FlaskClient) -> None:
    page = visitor.get("/t/form").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    header = re.search(r'"X-CSRFToken":"([^"]+)"', page)
    assert token
    assert header
    assert visitor.post("/t/form", data={"csrf_token": token[1]}).status_code == 422
    assert visitor.post("/t/form", headers={"X-CSRFToken": header[1]}).status_code == 422


def test_a_body_that_is_too_large_is_refused(visitor: FlaskClient) -> None:
    assert visitor.post("/t/form", data={"name": "x" * 700_000}).status_code == 413


# Compression


@pytest.mark.parametrize(("accepted", "open_it"), [("br, gzip", brotli.decompress), ("gzip", gzip.decompress)])
def test_pages_travel_compressed(visitor: FlaskClient, accepted: str, open_it) -> None:
    answer = visitor.get("/t/list", headers={"Accept-Encoding": accepted})
    assert answer.headers["Content-Encoding"] == accepted.split(",", maxsplit=1)[0]
    assert int(answer.headers["Content-Length"]) == len(answer.data) < 5_000
    assert b'<ul id="results">' in open_it(answer.data)


def test_what_is_small_or_not_text_or_not_asked_for_travels_as_it_is(visitor: FlaskClient) -> None:
    for path, accepted in (("/t/go?to=/x", "br"), ("/t/document", "br"), ("/t/list", "identity"), ("/t/list", "")):
        assert "Content-Encoding" not in visitor.get(path, headers={"Accept-Encoding": accepted}).headers


def test_a_compressed_answer_has_a_weak_tag(house: Flask) -> None:
    with house.test_request_context("/", headers={"Accept-Encoding": "br"}):
        answer = Response("x" * 5000)
        answer.set_etag("abc")
        assert safety.compress(answer).headers["ETag"] == 'W/"abc"'


def test_a_view_that_knows_better_keeps_its_cache_rule(visitor: FlaskClient) -> None:
    answer = visitor.get("/t/document")
    assert answer.headers["Cache-Control"] == "private, max-age=60"
    assert answer.headers["ETag"] == '"abc"'


# Errors


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """What is logged meanwhile, one dict a line."""
    found: list[dict[str, object]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(logs.JsonLines().format(record)))

    listener = Listener()
    logs.log.addHandler(listener)
    yield found
    logs.log.removeHandler(listener)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 429, 500, 503])
def test_every_error_is_a_page_and_a_notice_with_its_reference(visitor: FlaskClient, status: int, lines) -> None:
    page = visitor.get(f"/t/error/{status}")
    assert page.status_code == status
    reference = page.headers["X-Request-Id"]
    assert f"<code>{reference}</code>" in page.text
    assert f"<h1>{faults.PROBLEMS[status].title}</h1>" in page.text
    assert {line["reference"] for line in lines} == {reference}
    notice = visitor.get(f"/t/error/{status}", headers=PARTIAL)
    assert notice.status_code == status
    assert notice.headers["HX-Retarget"] == "#problem"
    assert notice.text.startswith('<div class="notice')
    assert f"Reference {notice.headers['X-Request-Id']}" in notice.text


def test_a_method_that_is_not_allowed_names_those_that_are(visitor: FlaskClient, house: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(house.config, "WTF_CSRF_ENABLED", False)
    answer = visitor.post("/t/list")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_an_exception_shows_a_reference_and_logs_the_trace(visitor: FlaskClient, lines) -> None:
    answer = visitor.get("/t/broken")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "Traceback" not in answer.text
    trace = next(line for line in lines if line["event"] == "exception")
    assert trace["reference"] == answer.headers["X-Request-Id"]
    assert "ZeroDivisionError" in str(trace["trace"])


def test_the_log_knows_routes_not_tokens(visitor: FlaskClient, lines) -> None:
    visitor.get("/t/secret/hush-hush?q=private")
    visitor.get("/nowhere/hush-hush")
    assert [(line["route"], line["status"]) for line in lines] == [("/t/secret/<token>", 200), (None, 404)]
    assert "hush" not in json.dumps(lines)
    assert "private" not in json.dumps(lines)


def test_a_database_that_is_down_is_said_so_and_comes_back_by_itself(visitor: FlaskClient, database_url: str, lines) -> None:
    assert visitor.get("/t/books").text == "42"
    with closed(database_url):
        for headers in ({}, PARTIAL):
            answer = visitor.get("/t/books", headers=headers)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "5"
            assert "We cannot reach our books right now" in answer.text
        assert [line["event"] for line in lines].count("database") == 2
    assert visitor.get("/t/books").text == "42"


def test_a_page_that_is_not_there_is_said_to_be_out_of_reach_while_nobody_knows_who_asks(visitor: FlaskClient, database_url: str, lines) -> None:
    visitor.set_cookie("sid", "x" * 43)
    assert visitor.get("/nowhere").status_code == 404
    with closed(database_url):
        for path in ("/nowhere", "/static/nothing.css"):
            answer = visitor.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "We cannot reach our books right now" in answer.text
    assert "exception" not in {line["event"] for line in lines}


class closed:  # noqa: N801 - reads as a sentence
    """The database refuses everyone inside this block, as when its server restarts."""

    def __init__(self, url: str) -> None:
        self.name = make_url(url).database
        self.admin = make_url(url).set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)

    def __enter__(self) -> None:
        self.run("alter database {} with allow_connections false")
        self.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'")

    def __exit__(self, *_: object) -> None:
        self.run("alter database {} with allow_connections true")

    def run(self, sql: str) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(sql.format(self.name))


# Static files


def test_a_file_is_named_by_its_content_and_never_expires(visitor: FlaskClient, house: Flask) -> None:
    for name in ("app.css", "js/app.js", "js/htmx.min.js", "img/icons.svg", "img/mark.svg", "fonts/inter.woff2"):
        url = house.jinja_env.filters["asset"](name)
        assert re.fullmatch(r"/static/.+-[0-9a-f]{12}\.\w+", url)
        answer = visitor.get(url)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert visitor.get("/static/js/app.js").status_code == 404


def test_the_sheet_is_one_small_file_in_layers() -> None:
    known = assets.Assets()
    sheet = known.by_name["app.css"].body.decode()
    assert sheet.startswith("@layer reset,base,layout,components,utilities;")
    assert known.url("fonts/inter.woff2") in sheet
    assert len(sheet) < 32_000
    assert sheet.count("{") == sheet.count("}")


def test_a_way_to_pay_has_a_drawn_mark_or_its_letters() -> None:
    known = assets.Assets()
    assert f'href="{known.url("img/icons.svg")}#pay-VISA"' in known.pay_mark("VISA")
    assert known.pay_mark("TWINT") == "TWINT"
    assert known.pay_mark("<b>") == "&lt;b&gt;"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Renewal ip-203.0.113.9 · 3 months", "Renewal ip-203.0.113.9~· 3~months"),
        ("Top-up by Visa •••• 4242", "Top-up by Visa ••••~4242"),
        ("at 1 USD = 0.89 EUR", "at 1~USD = 0.89 EUR"),
        ("Refund RF-000004 requested", "Refund RF-000004 requested"),
    ],
)
def test_no_line_ends_between_a_number_and_its_unit(text: str, kept: str) -> None:
    assert web.knit(text) == kept.replace("~", "\N{NO-BREAK SPACE}")


def test_the_seller_s_accent_replaces_ours() -> None:
    for accent, plain in (("#123456", "#123456"), ("light-dark(#123456, #abcdef)", "#123456"), ("oklch(0% 0 0)", "#000000")):
        sheet = assets.Assets(accent=accent).by_name["app.css"].body.decode()
        assert f"@layer base{{:root{{--accent:{plain}}}}}" in sheet
        known = "@supports (color: light-dark(red,red)){:root{--accent:" + accent.replace(", ", ",") + "}}"
        assert sheet.endswith(f"@layer base{{{known}}}") == (accent != plain)


@pytest.mark.parametrize(
    ("oklch", "shown"),
    [
        ("100% 0 0", "#ffffff"),
        ("0% 0 0 / .35", "#00000059"),
        ("62.7955% .257683 29.2339", "#ff0000"),
        ("51.975% .17686 142.495", "#008000"),
        ("45.201% .31321 264.052", "#0000ff"),
    ],
)
def test_colours_are_the_same_where_oklch_is_unknown(oklch: str, shown: str) -> None:
    assert assets.srgb(oklch) == shown


def test_the_seller_s_mark_stands_in_the_place_of_ours(tmp_path: Path, settings: config.Settings) -> None:
    mark = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle cx="5" cy="5" r="5"/></svg>'
    known = assets.Assets(mark=mark)
    assert known.by_name["img/mark.svg"].body.decode() == mark
    sprite = known.by_name["img/icons.svg"].body.decode()
    assert '<symbol id="mark" viewBox="0 0 10 10"><circle cx="5" cy="5" r="5"/></symbol>' in sprite
    assert '<symbol id="plus"' in sprite
    assert known.url("img/icons.svg") != assets.Assets().url("img/icons.svg")
    file = tmp_path / "mark.svg"
    file.write_text(mark)
    given = {"DATABASE_URL": settings.database_url, "SECRET_KEY": "s" * 48, "SELLER_MARK": str(file)}
    assert config.load(given).mark == mark
    file.write_text("<svg viewBox='0 0 1 1'><script>alert(1)</script></svg>")
    for path in (file, tmp_path / "none.svg"):
        with pytest.raises(config.ConfigError, match="SELLER_MARK"):
            config.load(given | {"SELLER_MARK": str(path)})


def test_a_first_visit_is_light() -> None:
    known = assets.Assets()
    files = [asset for asset in known.by_name.values() if not asset.url.endswith("LICENSE")]
    assert sum(len(asset.encoded.get("br", asset.body)) for asset in files) < 66_000
    assert len(files) <= 7


def test_htmx_is_the_published_file() -> None:
    body = (Path(assets.FOLDER) / "js/htmx.min.js").read_bytes()
    noted = re.search(r"sha384 `([^`]+)`", (Path(assets.FOLDER).parent / "docs/look.md").read_text())
    assert noted
    assert b64encode(sha384(body).digest()).decode() == noted[1]


def test_a_changed_file_has_a_new_address(tmp_path: Path) -> None:
    (tmp_path / "css").mkdir()
    (tmp_path / "css/base.css").write_text("a { color: red }")
    known = assets.Assets(tmp_path)
    before = known.url("app.css")
    (tmp_path / "css/base.css").write_text("a { color: blue }")
    (tmp_path / "css/extra.css").write_text("")
    known.refresh()
    assert known.url("app.css") != before


def test_every_icon_named_in_a_template_is_drawn() -> None:
    drawn = set(re.findall(r'<symbol id="([^"]+)"', (assets.FOLDER / "img/icons.svg").read_text()))
    used = {name for path in (assets.FOLDER.parent / "templates").rglob("*.html") for name in re.findall(r"""["']([a-z0-9-]+)["']\|icon""", path.read_text())}
    assert used <= drawn
    assert {problem.symbol for problem in faults.PROBLEMS.values()} <= drawn
