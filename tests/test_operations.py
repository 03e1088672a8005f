"""For the machines around the house."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import psycopg.sql
import pytest

import config
from app import db

TOKEN = "t" * 24


@pytest.fixture
def public(app) -> Iterator[config.Settings]:
    """The same application at a public https address, with a token for its metrics."""
    before, behind = config.current(), app.extensions["proxies"]
    config.use(replace(before, base_url="https://billing.example", metrics_token=TOKEN))
    behind._public = "billing.example"
    app.config["TRUSTED_HOSTS"] = ["billing.example"]
    yield config.current()
    config.use(before)
    behind._public = behind.untrusted = ""
    app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1", "[::1]"]


def test_alive_without_asking_anything(anonymous, monkeypatch):
    monkeypatch.setattr("app.db.rows", lambda *_args, **_params: pytest.fail("asked the database"))
    assert anonymous.get("/healthz").text == "ok\n"


def at_migration(superuser: psycopg.Connection, version: str, ask):
    (before,) = superuser.execute("select version_num from alembic_version").fetchone()
    superuser.execute("update alembic_version set version_num = %s", (version,))
    try:
        return ask()
    finally:
        superuser.execute("update alembic_version set version_num = %s", (before,))


def test_ready_when_the_database_stands_at_this_programs_migration(anonymous, superuser: psycopg.Connection):
    ready = anonymous.get("/readyz")
    assert (ready.status_code, ready.text.splitlines()[0]) == (200, "ready")
    behind = at_migration(superuser, "0001", lambda: anonymous.get("/readyz"))
    assert behind.status_code == 503
    assert "flask db upgrade" in behind.text


def test_an_old_node_stays_ready_while_the_schema_is_newer_than_it(anonymous, superuser: psycopg.Connection):
    ahead = at_migration(superuser, "9999", lambda: anonymous.get("/readyz"))
    assert ahead.status_code == 200
    assert "stands at migration 9999, which is newer" in ahead.text


def test_not_ready_without_any_schema(anonymous, superuser: psycopg.Connection):
    superuser.execute("alter table alembic_version rename to elsewhere")
    try:
        assert anonymous.get("/readyz").status_code == 503
    finally:
        superuser.execute("alter table elsewhere rename to alembic_version")


def test_metrics_count_what_matters(owner, demo_customer):
    lines = owner.get("/metrics").text.splitlines()
    assert "# TYPE client_area_renewals_waiting gauge" in lines
    assert "client_area_renewals_waiting 0" in lines


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "198.51.100.7"}, {"Forwarded": "for=198.51.100.7"}, {"X-Real-IP": "198.51.100.7"}])
def test_metrics_are_not_given_through_a_proxy(anonymous, headers):
    assert anonymous.get("/metrics", headers=headers).status_code == 404


def test_metrics_are_not_given_to_another_machine(anonymous):
    assert anonymous.get("/metrics", environ_base={"REMOTE_ADDR": "198.51.100.7"}).status_code == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "10.42.0.17:8000", "[fd00::17]:8000", "billing.example", "evil.example"])
def test_probes_are_answered_by_whatever_name_they_call(anonymous, public, host):
    for path in ("/healthz", "/readyz"):
        assert anonymous.get(path, headers={"Host": host}, environ_base={"REMOTE_ADDR": "10.42.0.1"}).status_code == 200
    assert anonymous.get("/metrics", headers={"Host": host}).status_code == 200
    assert anonymous.get("/login", headers={"Host": host}).status_code == (200 if host == "billing.example" else 400)


@pytest.mark.parametrize(("given", "status"), [(f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 404), ("Bearer ", 404), (f"Bearer {TOKEN}x", 404), ("Bearer ü", 404), ("", 404)])
def test_a_token_opens_the_metrics_to_another_machine(anonymous, public, given, status):
    asked = {"headers": {"Authorization": given}, "environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert anonymous.get("/metrics", **asked).status_code == status


def test_no_token_is_no_door(anonymous, app):
    asked = {"headers": {"Authorization": "Bearer "}, "environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert anonymous.get("/metrics", **asked).status_code == 404


def test_what_is_in_trouble_is_told_to_those_who_may_see_it(anonymous, public):
    anonymous.get("/healthz", headers={"X-Forwarded-For": "198.51.100.7"}, environ_base={"REMOTE_ADDR": "10.0.0.7"})
    assert "set TRUSTED_PROXIES=10.0.0.7" in anonymous.get("/readyz").text
    assert anonymous.get("/readyz", environ_base={"REMOTE_ADDR": "198.51.100.7"}).text == "ready\n"


def test_not_ready_while_the_database_cannot_write(anonymous, superuser: psycopg.Connection, database_url: str, app):
    database = psycopg.sql.Identifier(superuser.info.dbname)
    assert anonymous.get("/readyz").status_code == 200
    superuser.execute(psycopg.sql.SQL("alter database {} set temp_file_limit = '64kB'").format(database))
    db.forget_connections()
    try:
        full = anonymous.get("/readyz")
    finally:
        superuser.execute(psycopg.sql.SQL("alter database {} reset temp_file_limit").format(database))
        db.forget_connections()
    assert (full.status_code, full.text) == (503, "The database cannot write: its disk may be full.\n")
    assert anonymous.get("/readyz").status_code == 200


def test_jobs_that_do_not_run_are_named_to_those_who_may_see_it(anonymous, public):
    assert "jobs_never\n" in anonymous.get("/readyz").text
    assert anonymous.get("/readyz", environ_base={"REMOTE_ADDR": "198.51.100.7"}).text == "ready\n"


def test_a_web_process_does_not_load_what_only_migrations_need():
    asked = "import sys, wsgi; print([n for n in sys.modules if n.startswith(('alembic', 'flask_migrate'))])"
    environ = os.environ | {"SECRET_KEY": "s" * 48, "DATABASE_URL": os.environ["TEST_DATABASE_URL"]}
    house = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", asked], cwd=house, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", ["/login", "/register", "/password/reset"])
def test_public_pages_say_what_they_are_to_search_engines(anonymous, path):
    page = anonymous.get(path)
    assert page.status_code == 200
    assert page.text.count('<meta name="description" content="') == 1


def test_pages_behind_the_login_say_nothing_to_search_engines(owner):
    assert 'name="description"' not in owner.get("/balance").text
