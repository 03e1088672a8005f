"""What is logged: enough to find a fault, and nothing that must stay within the process."""

import io
import json
import logging
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask, request

import config
from app import audit, create_app, db, jobs, logs, mail
from app.gateways.base import NoAnswer
from tests.conftest import person, sign_in

PASSWORD_TYPED = "canary-Passw0rd-9151"
CARD = "4242 4242 4242 4242"
IBAN = "DE89370400440532013000"
ADDRESS = "canary.person@mailbox.example"
API_KEY = "sk_live_51CanaryKey000000000000"
HOOK_KEY = "whsec_CanaryHook0000000000000000"
BEARER = "Bearer canary.bearer-token-1234567890"
TOKEN = "Canary0Token1abcdefghijklmnopqrstuvwxyzABCD"
SEARCH = "canary-search-word"
CANARIES = (PASSWORD_TYPED, CARD, CARD.replace(" ", ""), IBAN, ADDRESS, API_KEY, HOOK_KEY, BEARER[7:], TOKEN, SEARCH)


class Sink:
    """Every line that the process writes meanwhile, as the handler of a server would."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(logs.JsonLines())

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, event: str) -> list[dict]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    root = logging.getLogger()
    level = root.level
    root.addHandler(sink.handler)
    root.setLevel(logging.DEBUG)
    yield sink
    root.removeHandler(sink.handler)
    root.setLevel(level)


def clean(sink: Sink) -> bool:
    return bool(sink.text) and not [canary for canary in CANARIES if canary in sink.text]


# Requests


def test_a_request_says_who_from_where_and_how_long(owner, demo_customer, sink):
    answer = owner.get(f"/invoices?q={SEARCH}")
    (line,) = sink.of("request")
    assert line["reference"] == answer.headers["X-Request-Id"]
    assert (line["user"], line["address"]) == (demo_customer.id, "127.0.0.1")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/invoices", 200)
    assert line["ms"] > 0
    assert set(line) == {
        "at", "level", "event", "reference", "user", "address", "method", "route", "status", "partial", "ms", "bytes",
    }  # fmt: skip
    assert line["at"].endswith("+00:00")


def test_a_line_of_a_module_bears_the_reference_of_its_request_and_of_no_other(owner, demo_customer, sink, app, monkeypatch):
    log = logging.getLogger("app.test")
    rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("balance."))
    monkeypatch.setitem(app.view_functions, rule.endpoint, lambda: (log.warning("said"), "ok")[1])
    answer = owner.get(rule.rule)
    said = next(line for line in sink.of("log") if line["message"] == "said")
    assert (said["reference"], said["user"]) == (answer.headers["X-Request-Id"], demo_customer.id)
    log.warning("alone")
    alone = next(line for line in sink.of("log") if line["message"] == "alone")
    assert not {"reference", "user", "address"} & set(alone)


@pytest.mark.parametrize("path", ["/invoices/%0d%0aSet-Cookie:x", '/x%0a{"event":"forged"}', "/login?next=%0a%1b[2J", "/invoices?q=%e2%80%a8"])
def test_no_request_writes_a_line_of_its_own(owner, sink, path):
    owner.get(path, headers={"User-Agent": "x\x1b[2J", "HX-Request": "a b"})
    assert len(sink.of("request")) == 1
    assert all(line.isascii() and line.isprintable() for line in sink.text.splitlines())
    assert "forged" not in sink.text


def test_a_made_up_method_is_not_repeated(anonymous, sink):
    anonymous.open("/login", method="CANARY-METHOD")
    assert {line["method"] for line in sink.of("request")} == {"other"}


def test_text_for_a_terminal_moves_no_cursor():
    record = logging.makeLogRecord({"msg": "a\r\nERROR: b\x1b[2J\u2028c\x9b", "levelname": "INFO"})
    assert logs.Text().format(record) == r"info: a\x0d\x0aERROR: b\x1b[2J\x2028c\x9b"


# Events that matter to security


def codes(sink: Sink) -> list[str]:
    return [line["code"] for line in sink.of("security")]


def test_security_events_have_codes(app, owner, stranger, staff, anonymous, demo_customer, sink):
    anonymous.submit("/login", {"login": "anna", "password": PASSWORD_TYPED})
    assert codes(sink) == ["sign_in_failed"]
    assert sink.of("security")[0]["user"] == demo_customer.id
    anonymous.post("/login", data={"login": "anna"})
    assert codes(sink)[1:] == ["csrf_refused"]
    anonymous.post("/webhooks/sandbox", data=b"{}", headers={"sandbox-signature": "t=1,v1=00"})
    assert codes(sink)[2:] == ["bad_signature"]
    stranger.get("/invoices/PF-2026-000001")
    assert codes(sink)[3:] == ["object_refused"]
    owner.get("/staff/refunds")
    assert codes(sink)[4:] == ["staff_page_refused"]
    staff.get("/balance")
    assert codes(sink)[5:] == ["object_refused"]
    for _ in range(6):
        anonymous.submit("/login", {"login": "anna", "password": PASSWORD_TYPED})
    assert codes(sink)[-1] == "limit_hit"
    for _ in range(61):
        anonymous.post("/webhooks/sandbox", data=b"{}", headers={"sandbox-signature": "t=1,v1=00"})
    assert codes(sink)[-1] == "limit_hit"
    assert {line["level"] for line in sink.of("security")} == {"warning"}
    assert clean(sink)


# Canaries


@pytest.fixture
def broken(app: Flask, monkeypatch):
    """Every page whose view was chosen fails with what the request brought in its message."""

    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)

    def fail(error):
        def view(**_values):
            raise error()

        for endpoint in ("auth.login", "invoices.show", "webhooks.receive"):
            monkeypatch.setitem(app.view_functions, endpoint, view)
            view.audience = "public"

    return fail


def _chained() -> Exception:
    try:
        try:
            raise smtplib.SMTPRecipientsRefused({ADDRESS: (550, f"no {ADDRESS}".encode())})
        except smtplib.SMTPException as inner:
            raise ValueError(f"{inner!r} {PASSWORD_TYPED and request.form.get('password')}") from inner
    except ValueError as outer:
        return outer


@pytest.mark.parametrize("make", [
    lambda: ValueError(f"invalid literal: {request.form.get('password')!r} {dict(request.form)} {request.cookies}"),
    lambda: KeyError(str(dict(request.headers))),
    lambda: RuntimeError(f"{request.url} {request.full_path} {request.view_args}"),
    lambda: RuntimeError(f"{CARD} {CARD.replace(' ', '')} {IBAN} {ADDRESS} {API_KEY} {HOOK_KEY} {BEARER} {TOKEN}"),
    lambda: RuntimeError(f"https://x.example/reset/{TOKEN}?token={TOKEN}&q={SEARCH} smtp://me:{PASSWORD_TYPED}@h"),
    lambda: RuntimeError(f"password={PASSWORD_TYPED} 'token': '{TOKEN}'"),
    _chained,
])  # fmt: skip
def test_a_page_that_breaks_says_where_and_repeats_nothing(app, broken, sink, make):
    client = app.test_client()
    token = sign_in(client, person("anna")).get_cookie("sid").value
    broken(make)
    client.set_cookie("theme", TOKEN)
    form = {"login": ADDRESS, "password": PASSWORD_TYPED, "note": f"{CARD} {IBAN}", "token": TOKEN}
    answers = [
        client.submit(f"/login?next=/{TOKEN}&q={SEARCH}", form, headers={"Authorization": BEARER}),
        client.get(f"/invoices/{TOKEN}?q={SEARCH}"),
        client.post("/webhooks/sandbox", data=json.dumps(form), headers={"Authorization": BEARER}),
    ]
    assert {answer.status_code for answer in answers} == {500}
    found = sink.of("exception")
    assert len(found) == 3
    assert all("in view" in line["trace"] for line in found)
    assert clean(sink)
    assert token not in sink.text
    shown = "".join(answer.text for answer in answers)  # a page may name its own address
    assert not [canary for canary in CANARIES if canary in shown and canary not in {TOKEN, SEARCH}]


DATABASE = {
    "a key that is taken": (
        (
            "insert into users (login, email, name, password_hash, role, created_at) values"
            " ('canary', %(address)s, %(password)s, %(token)s, 'support', now()),"
            " ('canary', %(address)s, '', '', 'support', now())"
        ),
        "users_login",
    ),
    "a row that breaks a check": (
        "insert into users (login, email, name, password_hash, role, created_at) values ('canary', %(address)s, %(card)s, %(password)s, %(password)s, now())",
        "users_check",
    ),
    "a value that is none": ("select %(password)s::bigint", "22P02"),
    "a date that is none": ("select %(card)s::date", "22008"),
    "a statement that is none": ("selct %(password)s", "42601"),
    "a json that is none": ("select %(address)s::jsonb", "22P02"),
}


@pytest.mark.parametrize("what", DATABASE)
def test_an_error_of_the_database_names_the_constraint_and_no_value(app, sink, what):
    statement, names = DATABASE[what]
    values = {"address": ADDRESS, "password": PASSWORD_TYPED, "card": CARD, "token": TOKEN}
    log = logging.getLogger("app.test")
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute(statement, **values)
    log.error("It failed: %s", caught.value)
    log.error("It failed: " + str(caught.value))  # noqa: G003 - as somebody may write it
    log.error("It failed: %r", caught.value, exc_info=caught.value)
    assert names in sink.lines[0]["message"]
    assert names in sink.lines[2]["trace"]
    assert clean(sink)


def test_errors_of_jobs_repeat_nothing(app, sink, monkeypatch, capfd):
    def work():
        raise NoAnswer(f"POST https://api.example/v1?key={TOKEN}: 500 {{'email': '{ADDRESS}', 'token': '{TOKEN}'}} {API_KEY}")

    broken = [jobs.Job("broken", 1, work, "")]
    done = jobs.once(None, broken)
    assert isinstance(done[0][1], NoAnswer)
    monkeypatch.setattr(jobs, "JOBS", broken)
    told = app.test_cli_runner().invoke(args=["jobs", "once"])
    assert told.exit_code == 1
    assert "broken: failed: NoAnswer" in told.output
    failed = next(line for line in sink.of("log") if "trace" in line)
    assert (failed["job"], failed["logger"]) == ("broken", "app.jobs")
    assert "in work" in failed["trace"]
    assert clean(sink)
    written = told.output + "".join(capfd.readouterr())
    assert not [canary for canary in CANARIES if canary in written]


def test_a_mail_server_that_refuses_is_told_without_addresses_and_password(app, demo_customer, sink, monkeypatch):
    settings = config.current()
    monkeypatch.setattr(config, "_current", settings.__class__(**{
        **{name: getattr(settings, name) for name in settings.__slots__}, "mail_url": f"smtp://me:{PASSWORD_TYPED}@127.0.0.1:9",
    }))  # fmt: skip
    with db.transaction():
        mail.send("reset", ADDRESS, locale="en", key="k", customer_id=demo_customer.customer_id, login="anna", link=f"http://x/{TOKEN}")

    def refuse(_url):
        raise smtplib.SMTPRecipientsRefused({ADDRESS: (550, f"{ADDRESS} {PASSWORD_TYPED}".encode())})

    logs.hide([PASSWORD_TYPED])
    monkeypatch.setattr(mail, "_server", refuse)
    mail.deliver()
    assert "cannot be reached" in sink.text
    assert clean(sink)


def test_the_settings_own_keys_are_never_written(app, settings, sink):
    create_app(settings)
    logging.getLogger("app.test").error("signed with %s", settings.secret_key)
    assert settings.secret_key not in sink.text
    assert logs.HIDDEN in sink.text


def test_what_is_no_secret_stays_readable():
    for text in (
        "Payment pay_01J9Z8 could not be looked up: GET https://api.example/v1/payments/7: 503",
        "Refund RF-000012 was not sent: the processor says EUR 10.00, we asked for EUR 12.00",
        "mails: 12, webhooks: {'done': 3}, 2026-11-30T19:26:43.123+00:00",
        "statement 1234567890123 of DE00 0000",
        "app/ledger/posting.py line 157 in _insert_transfers_and_entries_of_a_batch",
    ):
        assert logs.clean(text) == text


@pytest.mark.parametrize("text", [
    CARD, IBAN, ADDRESS, API_KEY, HOOK_KEY, BEARER, TOKEN, f"password={PASSWORD_TYPED}", f"{{'secret': '{PASSWORD_TYPED}'}}",
    f"postgresql://me:{PASSWORD_TYPED}@host/db", f"https://x.example/a?q={SEARCH}", f"Key (email)=({SEARCH}) already exists",
    f"ERROR: x\nDETAIL:  Failing row contains ({SEARCH}, 1).", f"x\nDETAIL:  What was given is {SEARCH}.", f"CONTEXT:  portal parameter $1 = '{SEARCH}'", f"[parameters: ('{SEARCH}',)]", f"pi_1_secret_{SEARCH}", f"set-cookie: {SEARCH}",
])  # fmt: skip
def test_what_is_secret_or_personal_is_taken_out(text):
    found = logs.clean(f"before {text}")
    assert found.startswith("before ")
    assert logs.HIDDEN in found
    assert not [canary for canary in CANARIES if canary in found]


def test_a_key_that_is_a_common_word_tears_no_other_secret_apart(monkeypatch):
    monkeypatch.setattr(logs, "_secrets", {"secret", "canary"})
    found = logs.clean(f"the secret of pi_1_secret_{SEARCH} and password={PASSWORD_TYPED} end")
    assert found == f"the {logs.HIDDEN} of {logs.HIDDEN}-search-word and password={logs.HIDDEN} end"


# Commands


COMMAND = """
import logging, sys
from app import logs
logs.setup()
logging.getLogger("app.x").info("said %s", "one")
if len(sys.argv) > 1:
    raise ValueError("password=canary-Passw0rd-9151 of canary.person@mailbox.example")
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_command_writes_the_same_lines_where_no_terminal_is(fails):
    words = [sys.executable, "-c", COMMAND, *(["fail"] if fails else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["message"] == "said one"
    assert done.returncode == (1 if fails else 0)
    if fails:
        assert (lines[1]["event"], lines[1]["level"]) == ("exception", "critical")
        assert "ValueError" in lines[1]["trace"]
        assert not [canary for canary in CANARIES if canary in done.stderr + done.stdout]


def test_a_command_is_named_in_its_lines(app, sink, monkeypatch):
    log = logging.getLogger("app.test")
    monkeypatch.setattr(audit, "entries", lambda **_: log.warning("said") or [])
    app.test_cli_runner().invoke(args=["audit", "list"])
    assert next(line for line in sink.of("log") if line["message"] == "said")["command"] == "audit"
