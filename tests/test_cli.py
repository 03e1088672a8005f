"""The commands: each calls one verb, says what happened and ends with an exit code."""

import csv
import io
import os
import re
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from app import audit, cli, clock, customers, db, jobs, payments, services
from app.gateways.sandbox import SIGNATURE_HEADER, sign
from tests.conftest import PASSWORD, person, sign_in
from tests.money_helpers import EUR
from tests.pay import begin, carry, choose, processor, topup
from tests.test_customers import newest_link
from tests.test_web import closed
from tests.trade import customer, offer_plans, on

HOUSE = Path(__file__).parent.parent


@pytest.fixture
def run(app: Flask):
    """Run a command in the house; click's result."""
    return lambda *words, **options: app.test_cli_runner().invoke(args=list(words), **options)


def commands(group, path=()):
    """Every command below a group, with its words."""
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield from commands(command, (*path, name))
        yield (*path, name), command


def test_every_command_explains_itself(app, run):
    ours = [words for words, command in commands(app.cli) if command.callback and command.callback.__module__.startswith(cli.__name__)]
    assert len(ours) >= 12
    for words in ours:
        told = run(*words, "--help")
        assert told.exit_code == 0
        assert len(told.output.splitlines()) > 4, words


def test_a_database_that_is_down_is_one_sentence(run, database_url):
    with closed(database_url):
        for words in (("ledger", "check"), ("bank", "unmatched"), ("payments", "reconcile")):
            told = run(*words)
            assert told.exit_code == 2
            assert isinstance(told.exception, SystemExit)
            assert told.output.startswith("The database could not be used: ")
            assert len(told.output.splitlines()) == 1
    assert run("bank", "unmatched").exit_code == 0


@pytest.mark.parametrize("words", [("upgrade",), ("downgrade",), ("current",)])
def test_a_database_that_is_down_is_one_sentence_for_migrations_too(words: tuple[str]):
    environ = {**os.environ, "DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1,127.0.0.1:2/x", "SECRET_KEY": "k" * 32}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", *words]
    done = subprocess.run(command, cwd=HOUSE, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"The database could not be used: .+\n", done.stderr)
    assert "hidden" not in done.stderr


def test_flask_reads_no_env_file_and_advises_no_reader(tmp_path: Path):
    (tmp_path / ".env").write_text("SECRET_KEY=x\n")
    environ = {name: value for name, value in os.environ.items() if name != "FLASK_SKIP_DOTENV"}
    (tmp_path / "app.py").write_text("import flask\n\napp = flask.Flask(__name__)\n")
    command = [sys.executable, "-m", "flask", "routes"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


DOCS = [*HOUSE.glob("*.md"), *HOUSE.glob("docs/*.md"), HOUSE / ".env.example"]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_what_the_docs_name_is_there(app, page):
    text = page.read_text()
    named = {tuple(words.split()) for words in re.findall(r"(?:`F|`flask|flask --app wsgi) ([a-z]+ [a-z][a-z-]+)", text)}
    assert named - {words for words, _ in commands(app.cli)} == set()
    files = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [name for name in files if not (page.parent / name).exists()] == []


# Services


def test_renew_due_names_what_is_due_and_renews_it(run):
    offer_plans()
    with on(date(2026, 3, 10)):
        services.order(customer("anna", 60_00), "vps-4", 1)
    dry = run("services", "renew-due", "--on", "2026-04-10", "--dry-run")
    assert (dry.exit_code, dry.output) == (0, "2026-04-10  vps-1                23.80 EUR\n1 due on 2026-04-10. Nothing was written.\n")
    assert run("services", "renew-due", "--on", "2026-04-10").output == "1 renewed, 0 wait for money, 0 failed\n"
    assert run("services", "renew-due", "--on", "2026-04-10").output == "0 renewed, 0 wait for money, 0 failed\n"


def test_a_service_that_cannot_be_renewed_is_a_fault(run, superuser: psycopg.Connection):
    offer_plans()
    with on(date(2026, 3, 10)):
        services.order(customer("anna", 60_00), "vps-4", 1)
    superuser.execute("delete from prices")
    told = run("services", "renew-due", "--on", "2026-04-10")
    assert (told.exit_code, told.output) == (1, "0 renewed, 0 wait for money, 1 failed\n")


@pytest.mark.parametrize("day", ["tomorrow", "2026-13-01", "10.04.2026"])
def test_a_day_that_is_none_is_misuse(run, day):
    assert run("services", "renew-due", "--on", day).exit_code == 2


# Users


def test_a_user_is_made_and_promoted(run):
    words = ("user", "create", "nora", "nora@example.com", "--name", "Nora", "--password-stdin")
    made = run(*words, input=f"{PASSWORD}\n")
    assert (made.exit_code, made.output) == (0, "nora can log in (customer).\n")
    assert customers.authenticate("nora", PASSWORD) is not None
    assert run("user", "promote", "nora").output == "nora is support now.\n"
    again = run("user", "create", "nora", "o@example.com", "--password-stdin", input=f"{PASSWORD}\r\n")
    assert (again.exit_code, again.output) == (2, "This login is taken. Choose another one.\n")
    assert run("user", "promote", "nobody").exit_code == 2
    assert [entry.action for entry in audit.entries(subject="user")] == ["user.promote", "user.create"]


def test_a_password_is_asked_for_twice_and_never_taken_from_the_command_line(run):
    asked = run("user", "create", "nora", "nora@example.com", input=f"{PASSWORD}\n{PASSWORD}\n")
    assert asked.exit_code == 0
    assert PASSWORD not in asked.output
    assert run("user", "create", "otto", "otto@example.com", "--password", PASSWORD).exit_code == 2
    assert customers.find_user("otto") is None


@pytest.mark.parametrize(
    ("login", "email", "password", "said"),
    [
        ("nora", "nora@example.com", "Summer2026!!!", "easy to guess"),
        ("nora", "nora@example.com", "a", "at least 12"),
        ("inv-2026-000269", "nora@example.com", PASSWORD, "cannot be used"),
        ("No Ra", "nora@example.com", PASSWORD, "small letters"),
        ("nora", "nora", PASSWORD, "one full e-mail address"),
    ],
)
def test_the_rules_of_registering_hold_for_the_operator(run, login, email, password, said):
    told = run("user", "create", login, email, "--password-stdin", input=f"{password}\n")
    assert told.exit_code == 2
    assert said in told.output
    assert db.scalar("select count(*) from users where role = 'customer'") == 0


def test_support_may_be_called_like_an_office(run):
    words = ("user", "create", "support", "s@example.com", "--role", "support", "--password-stdin")
    assert run(*words, input=f"{PASSWORD}\n").exit_code == 0


def test_a_password_that_is_no_text_is_refused(run):
    words = ("user", "create", "nora", "nora@example.com", "--password-stdin")
    told = run(*words, input=b"\xff\xfe quiet harbour lamp\n")
    assert told.exit_code == 2
    assert "not UTF-8" in told.output


DECIDED = ("--actor", "rita", "--reason", "asked on the phone")


def test_a_login_is_disabled_and_enabled_with_the_next_request(app, run, anonymous):
    person("rita", role="support")
    sign_in(anonymous, person("nora"))
    assert run("user", "disable", "nora", *DECIDED).output == "nora cannot log in any more. Sessions ended: 1.\n"
    assert anonymous.get("/security").status_code == 303
    answer = anonymous.submit("/login", {"login": "nora", "password": PASSWORD})
    assert (answer.status_code, "do not belong together" in answer.text) == (422, True)
    assert run("user", "enable", "nora", *DECIDED).exit_code == 0
    assert anonymous.submit("/login", {"login": "nora", "password": PASSWORD}).status_code == 303
    entries = audit.entries(subject="user", subject_id="nora")
    assert [(entry.action, entry.actor, entry.reason) for entry in entries] == [
        ("user.enable", "staff:rita", "asked on the phone"),
        ("user.disable", "staff:rita", "asked on the phone"),
    ]


def test_a_user_is_signed_out_everywhere(app, run, anonymous):
    person("rita", role="support")
    nora = sign_in(anonymous, person("nora"))
    customers.request_reset("nora")
    link = newest_link("reset")
    assert run("user", "sign-out", "nora", *DECIDED).exit_code == 0
    assert nora.get("/security").status_code == 303
    assert customers.peek_link(link, "reset") is None
    assert customers.authenticate("nora", PASSWORD)
    assert audit.entries(subject="user")[0].action == "user.sign_out"


@pytest.mark.parametrize("words", [("user", "disable"), ("user", "enable"), ("user", "sign-out"), ("customer", "close")])
def test_a_decision_wants_a_person_of_support_and_a_reason(app, run, words):
    person("rita", role="support")
    person("nora")
    for told in (
        run(*words, "nora", "--actor", "nora", "--reason", "x"),
        run(*words, "nora", "--actor", "anybody", "--reason", "x"),
        run(*words, "nora", "--actor", "rita", "--reason", " "),
        run(*words, "nora", "--actor", "rita"),
        run(*words, "nobody", *DECIDED),
    ):
        assert told.exit_code == 2
        assert isinstance(told.exception, SystemExit)
    assert audit.entries() == []
    assert customers.authenticate("nora", PASSWORD)


def test_a_customer_is_closed_and_its_documents_stay(app, run, owner, demo_customer):
    person("rita", role="support")
    pay = begin(topup(demo_customer, EUR("30")))
    blocked = run("customer", "close", "anna", *DECIDED)
    assert blocked.exit_code == 2
    assert "a payment for PF-" in blocked.output
    choose(app, pay, "approve")
    carry(app)
    blocked = run("customer", "close", "anna", *DECIDED)
    assert "on the balance: refund it first" in blocked.output
    assert owner.get("/security").status_code == 200
    offer_plans()
    services.order(demo_customer.customer_id, "vps-4", 1, label="shop", auto_renew=False)
    blocked = run("customer", "close", "anna", *DECIDED)
    assert "service shop runs: end it first" in blocked.output
    assert audit.entries(subject="customer") == []


def test_an_empty_customer_is_closed_once(app, run, owner, demo_customer):
    person("rita", role="support")
    told = run("customer", "close", "anna", *DECIDED)
    assert (told.exit_code, told.output) == (0, "The customer of anna is closed. Logins switched off: 1.\n")
    assert owner.get("/security").status_code == 303
    assert customers.authenticate("anna", PASSWORD) is None
    assert not customers.is_open(demo_customer.customer_id)
    assert run("customer", "close", "anna", *DECIDED).output == "The customer of anna is closed already.\n"
    assert run("user", "enable", "anna", *DECIDED).exit_code == 2
    assert run("customer", "close", "rita", *DECIDED).exit_code == 2
    assert [entry.action for entry in audit.entries(subject="customer")] == ["customer.close"]


# Payments and webhooks


def test_reconcile_finds_what_nobody_told(app, run, demo_customer):
    payment = begin(topup(demo_customer, EUR("25")))
    choose(app, payment, "silent")
    told = run("payments", "reconcile")
    assert (told.exit_code, told.output) == (0, "created → paid: 1\n1 asked about, 0 without an answer.\n")
    assert run("payments", "reconcile").output == "1 asked about, 0 without an answer.\n"


def test_a_webhook_is_worked_again(app, run, demo_customer):
    payment = begin(topup(demo_customer, EUR("25")))
    choose(app, payment, "approve")
    browser = app.test_client()
    processor(app).deliver(lambda body, headers: browser.post("/webhooks/sandbox", data=body, headers=headers).status_code)
    payments.process_due()
    inbox = db.scalar("select id from webhooks")
    told = run("webhooks", "replay", str(inbox))
    assert (told.exit_code, told.output) == (0, f"Webhook {inbox}: done\n")
    assert run("webhooks", "replay", "999").exit_code == 2
    assert run("webhooks", "replay", "first").exit_code == 2


def test_a_webhook_that_could_not_be_followed_is_listed_with_its_number(app, run):
    assert run("webhooks", "parked").output == "0 parked.\n"
    body = b'{"id": "sbe_1", "type": "payment.paid", "created": 1790000000, "account": "acct_other", "reference": "sb_1"}'
    payments.receive("sandbox", body, {SIGNATURE_HEADER: sign(body, processor(app).secret, int(clock.now().timestamp()))})
    line, count = run("webhooks", "parked").output.splitlines()
    assert line.startswith(f"{db.scalar('select id from webhooks'):>6}  ")
    assert line.endswith("sandbox  sbe_1  sb_1  (of the account acct_other, not ours)")
    assert count == "1 parked."


# Rates


def test_rates_come_from_a_file(run, tmp_path):
    feed = tmp_path / "feed.xml"
    feed.write_text(
        """<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><Cube><Cube time="2026-03-10">
        <Cube currency="USD" rate="1.0837"/></Cube></Cube></gesmes:Envelope>"""
    )
    told = run("rates", "fetch", "--file", str(feed))
    assert (told.exit_code, told.output) == (0, "Rates of 2026-03-10: 1 new.\n")
    feed.write_text("<no/>")
    assert run("rates", "fetch", "--file", str(feed)).exit_code == 2
    assert run("rates", "fetch", "--file", str(tmp_path / "missing")).exit_code == 2


# Jobs


def test_the_list_of_jobs_is_what_runs(run):
    lines = run("jobs", "list").output.splitlines()
    assert [line.split()[0] for line in lines] == [job.name for job in jobs.JOBS]


def test_one_job_runs_once(run):
    assert run("jobs", "once", "mail").output == "mail: nothing to do\n"
    unknown = run("jobs", "once", "coffee")
    assert unknown.exit_code == 2
    assert "webhooks" in unknown.output


def test_every_job_runs_on_an_empty_house(run, monkeypatch):
    def unreachable() -> None:
        raise jobs.fx.FeedRefused("The feed's server could not be reached.")

    monkeypatch.setattr(jobs.fx, "fetch", unreachable)
    told = run("jobs", "once")
    assert told.exit_code == 0, told.output
    assert len(told.output.splitlines()) == len(jobs.JOBS)


def test_a_job_that_fails_is_exit_code_one(run, monkeypatch):
    monkeypatch.setattr(jobs, "JOBS", [jobs.Job("broken", 1, lambda: 1 // 0, "")])
    told = run("jobs", "once")
    assert (told.exit_code, told.output) == (1, "broken: failed: ZeroDivisionError: integer division or modulo by zero\n")


def test_the_clock_stops_when_told(database_url, app):
    clock = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", "jobs", "run"], cwd=HOUSE, stderr=subprocess.PIPE, text=True,
        env={"DATABASE_URL": database_url, "SECRET_KEY": "t" * 48, "PATH": "/usr/bin:/bin", "FX_URL": "http://127.0.0.1:9/"},
    )  # fmt: skip
    with db.transaction():
        db.execute("insert into mails (key, kind, recipient, subject, body_text, created_at, due_at) values ('k', 'x', 'a@example.com', 's', 't', '2026-01-01', '2026-01-01')")
    for _ in range(600):
        if db.scalar("select count(*) from mails where sent_at is not null"):
            break
        with pytest.raises(subprocess.TimeoutExpired):
            clock.wait(0.05)
    else:
        clock.kill()
        pytest.fail("the clock did nothing")
    clock.terminate()
    _, said = clock.communicate(timeout=10)
    assert (clock.returncode, "Traceback" in said) == (0, False), said


# The demo


def test_the_demo_is_written_and_refused_a_second_time(run, vandal):
    vandal.execute("delete from users")
    told = run("demo", "seed", "--customers", "1", "--months", "1")
    assert told.exit_code == 0, told.output
    assert "demo-client-area" in told.output
    assert run("demo", "seed").exit_code == 2
    assert run("demo", "seed", "--customers", "0").exit_code == 2


# The ledger


def test_a_whole_ledger_is_said_to_be_whole(run):
    customer("anna", 60_00)
    told = run("ledger", "check")
    assert (told.exit_code, told.output) == (0, "The ledger is whole.\n")


def test_a_fault_is_named_and_is_exit_code_one(run, superuser: psycopg.Connection):
    customer("anna", 60_00)
    superuser.execute("set session_replication_role = replica")
    superuser.execute("update entries set amount = amount + 1 where account_id = (select id from accounts where kind = 'wallet')")
    told = run("ledger", "check")
    superuser.execute("update entries set amount = amount - 1 where account_id = (select id from accounts where kind = 'wallet')")
    assert told.exit_code == 1
    assert "sum to 1" in told.output


def test_the_book_is_written_to_a_file_or_to_the_terminal(run, tmp_path):
    customer("anna", 60_00)
    out = tmp_path / "book.csv"
    assert run("ledger", "export", "--format", "csv", "--out", str(out)).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert sum(Decimal(row["amount"]) for row in rows) == 0
    assert len(rows) == 2
    assert "60.00 EUR" in run("ledger", "export", "--format", "beancount").output
