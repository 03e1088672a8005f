"""History is out of reach: by rights for the app, by triggers for the owner of the tables too."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import make_url

import config
from app import create_app, db, guard, ledger
from app.guard import catalog, tables
from tests.conftest import _admin

sys.path.insert(0, str(Path(__file__).parent.parent / "bin"))
import _postgres

PROTECTED = [name for name, rule in guard.TABLES.items() if rule.kind != "free"]
NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def team():
    """Nobody: tables are looked at while they are empty."""
    return {}


@pytest.fixture
def columns(superuser) -> dict[str, list[str]]:
    return dict(superuser.execute(catalog.COLUMNS.replace("%%", "%")).fetchall())


@pytest.fixture
def as_app(superuser) -> psycopg.Connection:
    """A connection with the rights of the app alone."""
    superuser.execute("set role client_area_app")
    return superuser


def test_every_table_is_classified_and_every_class_has_its_table(columns):
    assert set(columns) == set(guard.TABLES) | guard.OWNERS_ONLY
    for name, rule in guard.TABLES.items():
        assert not set(rule.changes + rule.fixed) - set(columns[name])


@pytest.mark.parametrize("table", PROTECTED)
def test_the_owner_is_refused_by_a_trigger(superuser, columns, table):
    assert not superuser.execute(f"select 1 from {table}").fetchone()
    for statement in (f"delete from {table}", f"truncate {table} cascade"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            superuser.execute(statement)
    for column in columns[table]:
        statement = f"update {table} set {column} = default"
        if column in catalog.changeable(table, columns[table]):
            superuser.execute(statement)
            continue
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            superuser.execute(statement)


@pytest.mark.parametrize("table", PROTECTED)
def test_the_app_has_no_right(as_app, columns, table):
    for statement in (f"delete from {table}", f"truncate {table} cascade"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_app.execute(statement)
    for column in columns[table]:
        statement = f"update {table} set {column} = default"
        if column in catalog.changeable(table, columns[table]):
            as_app.execute(statement)
            continue
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_app.execute(statement)


@pytest.mark.parametrize("statement", [
    "alter table entries disable trigger all",
    "drop trigger keep_rows on security_events",
    ("create or replace function keep_history() returns trigger language plpgsql"
    " as $$ begin return null; end $$"),
    "create table mine (id int)",
    "set session_replication_role = replica",
    "insert into audit_chain values (1, 1, sha256('x'))",
    ("insert into card_consents (customer_id, card_id, consent, consented_at)"
    " values (1, 1, 'x', now())"),
    "update alembic_version set version_num = '0001'",
])  # fmt: skip
def test_the_app_cannot_open_the_door(as_app, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_app.execute(statement)


def test_the_app_cannot_give_away_rights(as_app):
    as_app.execute("grant insert, delete on entries to public")  # answered by a warning
    as_app.execute("reset role")
    (granted,) = as_app.execute("select count(*) from pg_class, aclexplode(relacl) where relname = 'entries' and grantee = 0").fetchone()
    assert granted == 0


@pytest.mark.parametrize("table", [n for n, rule in guard.TABLES.items() if rule.kind == "free"])
def test_what_comes_and_goes_is_free(as_app, table):
    as_app.execute(f"delete from {table}")


# What may change only for a time. Rows are written past every trigger; then they are on again.

LATE = {
    "the account of held money that left": (
        (
            "insert into held (number, payment_id, transfer_id, amount, currency, reason, held_at,"
            " updated_at, state, way, iban, holder, approvals_needed) values ('HM-1', 1, 1, 5, 'EUR',"
            " '', now(), now(), 'returning', 'bank', 'DE1', 'A', 2)"
        ),
        "update held set iban = 'DE2'",
        "update held set iban = null, holder = null, state = 'held', way = 'source'",
    ),
    "the text of a mail": (
        "insert into mails (key, kind, recipient, subject, body_text, body_html, created_at, due_at) values ('k', 'reset', 'a@b.example', 's', 'text', '<p>', now(), now())",
        "update mails set body_text = 'another'",
        "update mails set body_text = '', body_html = null, sent_at = now()",
    ),
    "the page of a mail": (
        "insert into mails (key, kind, recipient, subject, body_text, body_html, created_at, due_at) values ('k', 'reset', 'a@b.example', 's', 'text', '<p>', now(), now())",
        "update mails set body_html = 'another'",
        "update mails set sent_at = now(), body_text = body_text, body_html = body_html",
    ),
    "the amount of a dispute": (
        "insert into disputes (payment_id, customer_id, gateway_reference, amount, currency, state, opened_at) values (1, 1, 'd', 5, 'EUR', 'open', now())",
        "update disputes set amount = 6",
        "update disputes set state = 'won', closed_at = now()",
    ),
    "a paid period": (
        "insert into renewals (service_id, period_start, period_end, months, bill_id, transfer_id, renewed_at) values (1, '2026-01-01', '2026-01-31', 1, 1, 1, now())",
        "update renewals set period_end = '2026-02-28'",
        "",
    ),
    "a decided doubt": (
        "insert into bank_doubts (opened_at, state, actor, reason, decided_at) values (now(), 'same', 'staff:a', 'r', now())",
        "update bank_doubts set actor = 'staff:b'",
        "",
    ),
    "a number that was given": (
        "insert into number_series values ('invoice', 2026, 7)",
        "update number_series set last = 6",
        "update number_series set last = 8",
    ),
}


@pytest.mark.parametrize("what", LATE)
def test_what_is_settled_does_not_change_any_more(vandal, what):
    made, refused, allowed = LATE[what]
    vandal.execute(made)
    vandal.execute("set session_replication_role = origin")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only by now"):
        vandal.execute(refused)
    if allowed:
        vandal.execute(allowed)
    vandal.execute("set session_replication_role = replica")


def test_every_consent_is_kept_when_a_card_or_a_service_gets_another(vandal):
    vandal.execute("insert into customers (created_at) values (%s)", (NOW,))
    vandal.execute("set session_replication_role = origin")
    customer = vandal.execute("select id from customers").fetchone()[0]
    vandal.execute(
        "insert into saved_cards (public_id, customer_id, gateway, holder, token, brand, last4,"
        " exp_month, exp_year, fingerprint, consent, consented_at, created_at) values"
        " ('c', %s, 'sandbox', 'h', 't', 'visa', '4242', 1, 2030, 'f', 'first', %s, %s)",
        (customer, NOW, NOW),
    )
    card = vandal.execute("select id from saved_cards").fetchone()[0]
    vandal.execute("update saved_cards set consent = 'second', exp_month = 2")
    vandal.execute("update saved_cards set exp_month = 3")
    vandal.execute("insert into plans (kind, code, name) values ('vps', 'p', 'P')")
    vandal.execute(
        "insert into services (public_id, customer_id, plan_id, label, months, started_on,"
        " paid_through, created_at) select 's', %s, id, 'x', 1, '2026-01-01', '2026-01-31', %s"
        " from plans",
        (customer, NOW),
    )
    vandal.execute(
        "update services set payment_source = 'balance_then_card', card_id = %s, card_consent = 'third', card_consented_at = %s",
        (card, NOW),
    )
    vandal.execute("update services set auto_renew = false")
    vandal.execute("update services set payment_source = 'balance', card_id = null, card_consent = null, card_consented_at = null")
    kept = vandal.execute("select consent, service_id is null from card_consents order by id")
    assert kept.fetchall() == [("first", True), ("second", True), ("third", False)]
    vandal.execute("set session_replication_role = replica")


def test_whoever_agreed_to_another_return_is_remembered_and_does_not_count(vandal):
    for withdrawn in (NOW, None):
        vandal.execute(
            "insert into approvals (subject, subject_id, decision, actor, user_id, at, withdrawn_at) values ('held', 'HM-1', 'return', 'staff:a', 1, %s, %s)",
            (NOW, withdrawn),
        )
    assert vandal.execute("select count(*) from approvals").fetchone() == (2,)


# A database of its own, whose owner is no superuser


@contextmanager
def house(server: str, owner: str = "", name: str = "", **given: str) -> Iterator[Flask]:
    """The app on a database of its own; the settings of before are used again afterwards."""
    before = config.current()
    name = name or f"client_area_test_{uuid4().hex[:12]}"
    with _admin(server) as connection:
        exists = connection.execute("select 1 from pg_database where datname = %s", (name,))
        if not exists.fetchone():
            owned = f" owner {owner}" if owner else ""
            connection.execute(f"create database {name}{owned}")
    url = make_url(server).set(database=name)
    owned_url = (url.set(username=owner) if owner else url).render_as_string(hide_password=False)
    settings = replace(before, database_url=owned_url, **given)
    app = create_app(settings)
    try:
        with app.app_context():
            yield app
            db.forget_connections()
    finally:
        with app.app_context():
            db.forget_connections()
        config.use(before)
        with _admin(server) as connection:
            connection.execute(f"drop database if exists {name} with (force)")


@pytest.fixture
def names(database_url: str) -> Iterator[list[str]]:
    """An owner, a role and a login that only this test knows."""
    made = [f"{kind}_{uuid4().hex[:8]}" for kind in ("owner", "role", "login")]
    with _admin(database_url) as connection:
        connection.execute(f"create role {made[0]} login")
    yield made
    with _admin(database_url) as connection:
        for name in reversed(made):
            connection.execute(f"drop role if exists {name}")


@pytest.fixture
def poor(application, database_url, names) -> Iterator[Flask]:
    """A migrated house whose owner may not create roles."""
    with house(database_url, names[0], database_role=names[1]) as app:
        db.migrations(app)
        upgrade(directory="migrations")
        db.forget_connections()
        yield app


def codes() -> set[str]:
    return {finding.code for finding in guard.findings(lacking=True)}


def unprotected() -> list[str]:
    return [fault.what for fault in ledger.check() if fault.kind == "unprotected"]


def run(app: Flask, *words: str):
    return app.test_cli_runner().invoke(args=["database", *words])


def test_an_owner_without_createrole_is_told_and_helped_by_one_command(poor, database_url, names):
    owner, role, _ = names
    assert codes() == {"owner"}
    assert owner in unprotected()[0]
    checked = run(poor, "check")
    assert checked.exit_code == 1
    assert f"works as {owner}" in checked.output

    refused = run(poor, "protect")
    assert refused.exit_code == 1
    wanted = f'create role {role} nologin;\ngrant {role} to "{owner}";\n'
    assert wanted in refused.output
    with _admin(database_url) as superuser:
        superuser.execute(wanted)

    done = run(poor, "protect")
    assert (done.exit_code, done.output.splitlines()[0]) == (
        0, "The database is protected: the app cannot change its history.",
    )  # fmt: skip
    assert codes() == set()
    assert unprotected() == []
    assert run(poor, "protect").exit_code == 0
    with _admin(database_url) as superuser:
        superuser.execute(f"revoke {role} from {owner}")
    db.forget_connections()
    assert codes() == {"owner"}


def mended(app: Flask) -> None:
    assert run(app, "protect").exit_code == 0
    assert codes() == set()


PLANTED = {
    "a trigger that is off": ("alter table entries disable trigger keep_rows", "trigger"),
    "all triggers of a table off": ("alter table refund_events disable trigger user", "trigger"),
    "a trigger for replicas alone": ("alter table entries enable replica trigger keep_rows",
                                     "trigger"),
    "a trigger dropped": ("drop trigger keep_values on security_events", "trigger"),
    "the books' own trigger dropped": ("drop trigger entries_keep_books on entries", "trigger"),
    "the books' own trigger off": ("alter table transfers disable trigger transfers_check",
                                   "trigger"),
    "a trigger that never fires": (
        ("create or replace trigger keep_rows before delete on entries for each row"
        " when (false) execute function keep_history()"), "trigger"),
    "a trigger over fewer columns": (
        ("create or replace trigger keep_values before update of id on webhooks"
        " for each statement execute function keep_history()"), "trigger"),
    "a right granted back": ("grant update on entries to {role}", "right"),
    "a right on one column": ("grant update (iban) on refunds to {role}", "right"),
    "the right to empty a table": ("grant truncate on rates to {role}", "right"),
    "the right to make triggers": ("grant trigger on entries to {role}", "right"),
    "a right for everybody": ("grant delete on security_events to public", "right"),
    "the right to make objects": ("grant create on schema public to {role}", "schema"),
    "a right taken away": ("revoke insert on entries from {role}", "lacking"),
    "rights that a restore forgot": ("revoke all on all tables in schema public from {role}",
                                     "lacking"),
}  # fmt: skip


def test_every_gap_is_found_and_mended(application, database_url, names):
    """One house for all of them: to migrate a database takes longer than all the rest."""
    with house(database_url, database_role=names[1]) as app:
        db.migrations(app)
        upgrade(directory="migrations")
        db.forget_connections()
        assert codes() == {"owner"}  # the role of this house does not exist yet
        mended(app)
        for what, (statement, code) in PLANTED.items():
            with db.owner(config.current().owner_url) as connection:
                connection.execute(statement.format(role=names[1]))
            assert code in codes(), what
            if code != "lacking":
                assert unprotected(), what
            mended(app)
        a_function_that_refuses_nothing()
        a_table_nobody_classified(app)
        a_login_of_its_own(app, names)
        a_restore(app, database_url, names)
        with _admin(app.config["SQLALCHEMY_DATABASE_URI"]) as connection:
            connection.execute(f"drop owned by {names[1]}, {names[2]}")


def a_function_that_refuses_nothing():
    with db.owner(config.current().owner_url) as connection:
        source = connection.execute("select pg_get_functiondef('keep_history'::regproc)").fetchone()[0]
        connection.execute("create or replace function keep_history() returns trigger language plpgsql as $$ begin return null; end $$")
    assert codes() == {"trigger"}
    with db.owner(config.current().owner_url) as connection:
        connection.execute(source)
    assert codes() == set()


def a_table_nobody_classified(app: Flask):
    with db.owner(config.current().owner_url) as connection:
        connection.execute("create table forgotten (id bigint)")
        with pytest.raises(guard.Unclassified, match="forgotten"):
            guard.apply(connection, config.current().database_role)
    assert "unclassified" in codes()
    refused = run(app, "protect")
    assert (refused.exit_code, "forgotten" in refused.output) == (2, True)
    with db.owner(config.current().owner_url) as connection:
        connection.execute("drop table forgotten")


def a_login_of_its_own(app: Flask, names: list[str]):
    _, role, login = names
    assert guard.may_leave_role()
    told = run(app, "protect", "--login", login)
    assert told.exit_code == 0
    address = next(line for line in told.output.splitlines() if "DATABASE_URL=" in line)
    url = address.partition("DATABASE_URL=")[2]
    owner_url = config.current().owner_url
    settings = config.load({
        "DATABASE_URL": url, "DATABASE_OWNER_URL": owner_url, "DATABASE_ROLE": role,
        "SECRET_KEY": "t" * 48,
    })  # fmt: skip
    before = config.current()
    stronger = create_app(replace(settings, testing=True))
    try:
        with stronger.app_context():
            assert guard.findings(lacking=True) == []
            assert not guard.may_leave_role()
            with db.transaction():
                cash = ledger.account("gateway", "EUR", key="x")
                lines = [(cash, -5), (ledger.account("revenue", "EUR"), 5)]
                ledger.post("t1", "topup", lines)
            for leave in ("", "reset role; ", "set role none; ", f"set role {login}; "):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
                    db.execute(leave + "delete from entries")
            again = stronger.test_cli_runner().invoke(args=["database", "protect"])
            assert again.exit_code == 0
            assert "Its login could" not in again.output
            db.forget_connections()
    finally:
        config.use(before)
    db.forget_connections()


def a_restore(app: Flask, server: str, names: list[str]):
    """A copy by pg_dump and psql without rights, as on a server that does not know the role."""
    programs = _postgres._installed()
    plain = config.current().owner_url.replace("+psycopg", "", 1)
    dump = subprocess.run([programs / "pg_dump", "--no-owner", "--no-acl", plain], capture_output=True, check=True).stdout
    name = f"client_area_test_{uuid4().hex[:12]}"
    with house(server, name=name, database_role=names[1]) as copy:
        target = make_url(server).set(database=name, drivername="postgresql")
        subprocess.run(
            [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1",
             target.render_as_string(hide_password=False)],
            input=dump, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        db.forget_connections()
        assert codes() == {"lacking"}
        mended(copy)
        assert db.scalar("select count(*) from transfers") == 1
        with _admin(copy.config["SQLALCHEMY_DATABASE_URI"]) as connection:
            connection.execute(f"drop owned by {names[1]}, {names[2]}")


# Start, readiness, metrics


@pytest.fixture
def open_door(superuser, app) -> Iterator[None]:
    """A trigger is off for the length of a test."""
    superuser.execute("alter table entries disable trigger keep_rows")
    app.extensions.pop("protection", None)
    yield
    superuser.execute("alter table entries enable trigger keep_rows")
    app.extensions.pop("protection", None)


def test_a_start_with_real_money_is_refused_and_the_sandbox_warned(open_door, caplog):
    with pytest.raises(guard.Unprotected, match="keep_rows of entries is switched off"):
        guard.at_start(live=True)
    caplog.clear()
    guard.at_start(live=False)
    assert "keep_rows of entries is switched off" in caplog.text


def test_a_protected_start_says_nothing(app, caplog):
    guard.at_start(live=True)
    assert caplog.text == ""


@pytest.mark.parametrize(("key", "status"), [("", 200), ("sk_live_" + 16 * "0", 503)])
def test_readiness_and_metrics_say_it(open_door, client, app, monkeypatch, key, status):
    monkeypatch.setattr(config, "_current", replace(config.current(), stripe_secret_key=key))
    answer = client.get("/readyz")
    assert answer.status_code == status
    assert "unprotected: The trigger keep_rows of entries is switched off" in answer.text
    far = client.get("/readyz", headers={"X-Forwarded-For": "203.0.113.7"})
    assert (far.status_code, "keep_rows" in far.text) == (status, False)
    assert "client_area_database_unprotected 1\n" in client.get("/metrics").text


def test_what_is_protected_is_ready(client):
    ready = client.get("/readyz")
    assert (ready.status_code, "unprotected" in ready.text) == (200, False)
    assert "client_area_database_unprotected 0\n" in client.get("/metrics").text


def test_the_table_of_the_docs_is_the_classification():
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    for name, rule in guard.TABLES.items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert f"| {rule.kind} |" in row, name
        named = row.split("|")[3]
        assert all(f"`{column}`" in named for column in rule.changes + rule.fixed), name


def test_the_list_of_triggers_is_read_whole():
    assert len(guard.TRIGGERS) == tables._OWN_TRIGGERS.count("create ")
