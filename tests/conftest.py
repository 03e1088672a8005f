"""The house under test: one real PostgreSQL database for the session, cleaned between tests, the ledger checked after each."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask.globals import _cv_app
from flask.testing import FlaskClient
from flask_migrate import upgrade
from hypothesis import core
from sqlalchemy import make_url
from werkzeug.datastructures import MultiDict

import config
from app import audit, create_app, customers, db, gateways, ledger

SLOW = frozenset({
    "journeys", "test_benchmarks.py", "test_deploy.py", "test_kill_points.py", "test_kills.py", "test_postgres.py", "test_run.py",
    "test_server.py", "test_slow.py", "test_static.py",
})  # fmt: skip
"""What `--fast` leaves out: browsers, killed and started programs, benchmarks, the readers of the whole code."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast` runs what tells most in the shortest time."""
    parser.addoption("--fast", action="store_true", help="leave out browsers, killed and started programs, and benchmarks")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the slow tests of a fast run."""
    return True if config.getoption("fast") and collection_path.name in SLOW else None


def pytest_configure(config: pytest.Config) -> None:
    """Every run tells other stories; `--hypothesis-seed` tells those of an earlier run again."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = secrets.randbelow(10**9)
    core.global_force_seed = int(config.option.hypothesis_seed)


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, so that a story that failed can be told again."""
    return f"stories: --hypothesis-seed={config.option.hypothesis_seed}"


def _server() -> str:
    url = os.environ.get("TEST_DATABASE_URL")
    if not url:
        raise pytest.UsageError("TEST_DATABASE_URL names no server: run bin/test, which brings its own PostgreSQL.")
    return url


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A fresh database on the test server, dropped at the end."""
    server = make_url(_server())
    name = f"client_area_test_{uuid4().hex[:12]}"
    with _admin(_server()) as connection:
        connection.execute(f"create database {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    with _admin(_server()) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def settings(database_url: str) -> config.Settings:
    """The settings of the house under test: sandbox on, no outside world."""
    return config.Settings(database_url=database_url, secret_key="t" * 48, base_url="http://localhost", staff_daily_limit=1000, testing=True)


@pytest.fixture(scope="session")
def application(settings: config.Settings) -> Iterator[Flask]:
    """The migrated application, built once."""
    app = create_app(settings)
    app.test_client_class = Browser
    db.migrations(app)
    with app.app_context():
        upgrade(directory="migrations")
    yield app
    with app.app_context():
        for engine in db.db.engines.values():
            engine.dispose()


@pytest.fixture(autouse=True)
def _books_are_right(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that could touch the books: everything that must be true of them is."""
    yield
    if "app" in request.fixturenames:
        application = request.getfixturevalue("application")
        with application.app_context():
            assert [str(fault) for fault in ledger.check()] == []


TEAM = {"sam": "Sam Support", "rita": "Rita Support", "sven": "Sven Support"}
_JOIN = """
insert into users (id, login, email, name, password_hash, role, verified_at, created_at)
overriding system value
select 1000000 + place, login, login || '@support.example', name, %s, 'support', now(), now()
from unnest(%s::text[], %s::text[]) with ordinality as t (login, name, place)
"""


@pytest.fixture
def team() -> dict[str, str]:
    """Who decides in the tests: logins of support and their names, there before anything else."""
    return TEAM


@pytest.fixture
def app(application: Flask, team: dict[str, str]) -> Iterator[Flask]:
    """The application on a database with nobody but `team`, inside an application context."""
    empty(application)
    with _admin(application.config["SQLALCHEMY_DATABASE_URI"]) as connection:
        connection.execute(_JOIN, (PASSWORD_HASH, list(team), list(team.values())))
    gateways.use(gateways.build(config.current(), application.extensions["sandbox_processor"]))  # a test may have put others in their place
    with application.app_context(), audit.acting_as(audit.SYSTEM):
        yield application


@pytest.fixture
def superuser(app: Flask, database_url: str) -> Iterator[psycopg.Connection]:
    """A connection past every safeguard, to plant faults and to see what the app may not."""
    with _admin(database_url) as connection:
        yield connection


@pytest.fixture
def vandal(superuser: psycopg.Connection, application: Flask) -> Iterator[psycopg.Connection]:
    """A superuser whose statements pass every trigger; what it broke is thrown away after the test."""
    superuser.execute("set session_replication_role = replica")
    yield superuser
    empty(application)


def _admin(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


def empty(application: Flask) -> None:
    """Take out every row; deleting a few is some thirty times faster than truncating every table, which makes new files for each."""
    ledger.forget_accounts()
    with _admin(application.config["SQLALCHEMY_DATABASE_URI"]) as connection:
        connection.execute("set session_replication_role = replica")
        sizes = dict(connection.execute(_TABLES).fetchall())
        filled = " union all ".join(f"select '{table}' where exists (select from {table})" for table in sizes)
        for (table,) in connection.execute(filled).fetchall():
            connection.execute(f"delete from {table}" if sizes[table] < FEW_BYTES else f"truncate {table} cascade")
        connection.execute(_RESTART)


FEW_BYTES = 400_000
_TABLES = "select tablename, pg_relation_size(tablename::regclass) from pg_tables where schemaname = 'public' and tablename <> 'alembic_version'"
_RESTART = "select setval(format('%I', sequencename)::regclass, 1, false) from pg_sequences where schemaname = 'public' and last_value is not null"


@pytest.fixture
def client(app: Flask):
    """A browser without cookies."""
    return app.test_client()


class Browser(FlaskClient):
    """A client whose requests stand alone, as in real life: nothing of `g` is carried over from the test or from the request before."""

    def open(self, *args, **kwargs):
        token = _cv_app.set(None)
        try:
            with audit.acting_as(audit.SYSTEM):  # who asked does not go on acting in the test
                return super().open(*args, **{"buffered": True, **kwargs})
        finally:
            _cv_app.reset(token)

    def submit(self, path, data=None, **options):
        """POST a form as its page would: with the session's CSRF token."""
        with self.session_transaction() as session:
            secret = session.setdefault("csrf_token", "c" * 40)
        signed = self.application.extensions["csrf_signer"].dumps(secret)
        sent = data.to_dict(flat=False) if isinstance(data, MultiDict) else data or {}
        return self.post(path, data={"csrf_token": signed, **sent}, **options)


PASSWORD = "quiet-harbour-lamp"
"""The password of everybody in the cast."""
PASSWORD_HASH = customers.hash_password(PASSWORD)
BERLIN = customers.Profile(name="Anna Kowalska", street="Turmstraße 12", postcode="10559", city="Berlin", country="DE", currency="EUR")


def person(login: str, *, role: str = "customer", name: str = "Anna Kowalska", verified: bool = True, profile: customers.Profile | None = None) -> customers.User:
    """A user made for a test, with a complete billing profile when one is given; one of `TEAM` is there already."""
    known = customers.find_user(login) if role == "support" and login in TEAM else None
    user = known or customers.create_user(login, f"{login}@example.com", PASSWORD, name=name, role=role, verified=verified, password_hash=PASSWORD_HASH)
    if profile is not None and user.customer_id is not None:
        customers.update_profile(user.id, user.customer_id, profile, locale="en", timezone="Europe/Berlin")
    return user


def sign_in(client: Browser, user: customers.User) -> Browser:
    """Give a client the session cookie of this user, without going through the login page."""
    client.set_cookie("sid", customers.open_session(user.id, ip="127.0.0.1", user_agent="Firefox Linux"))
    return client


@pytest.fixture
def demo_customer(app: Flask) -> customers.User:
    """A confirmed customer in Berlin with a complete profile and EUR as its currency."""
    return person("anna", profile=BERLIN)


@pytest.fixture
def owner(app: Flask, demo_customer: customers.User) -> Browser:
    """The browser of `demo_customer`, signed in."""
    return sign_in(app.test_client(), demo_customer)


@pytest.fixture
def stranger(app: Flask) -> Browser:
    """The browser of another customer, who must never see the owner's things."""
    return sign_in(app.test_client(), person("boris", name="Boris Stranger", profile=replace(BERLIN, name="Boris Stranger")))


@pytest.fixture
def staff(app: Flask) -> Browser:
    """The browser of a support agent."""
    return sign_in(app.test_client(), person("sven", role="support", name="Sven Support"))


@pytest.fixture
def anonymous(app: Flask) -> Browser:
    """A browser that is not signed in."""
    return app.test_client()
