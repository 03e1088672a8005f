"""The one door for writes."""

import time
from datetime import UTC, datetime

import click
import psycopg
import pytest
from flask.cli import FlaskGroup

from app import clock, create_app, db


def test_a_read_connection_cannot_write(app):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        db.rows("insert into number_series values ('x', 2026, 1) returning 1")


def test_execute_needs_a_transaction(app):
    with pytest.raises(db.TransactionError):
        db.execute("insert into number_series values ('x', 2026, 1)")


def test_transactions_do_not_nest(app):
    with db.transaction(), pytest.raises(db.TransactionError), db.transaction():
        pass


def test_an_exception_rolls_everything_back(app):
    with pytest.raises(ValueError, match="stop"), db.transaction():
        db.execute("insert into number_series values ('x', 2026, 1)")
        raise ValueError("stop")
    assert db.scalar("select count(*) from number_series") == 0


def test_a_broken_connection_is_replaced(app, superuser):
    assert db.scalar("select 1") == 1
    superuser.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
    with db.transaction():
        assert db.scalar("select 1") == 1
    assert db.scalar("select 1") == 1


def test_streams_stay_on_one_snapshot(app):
    assert [row.n for row in db.stream("select n from generate_series(1, 12000) n")] == list(range(1, 12001))


def test_the_clock_travels_and_ticks_on(app):
    with clock.travel(datetime(2025, 3, 1, tzinfo=UTC)):
        assert clock.today().isoformat() == "2025-03-01"


def test_a_connection_that_cannot_be_prepared_is_closed(app):
    class Broken:
        closed = False
        autocommit = False

        def cursor(self):
            raise psycopg.OperationalError("the server went away")

        def close(self):
            self.closed = True

    connection = Broken()
    with pytest.raises(psycopg.OperationalError):
        db._prepare("test", connection, None)
    assert connection.closed


def test_a_page_that_waits_for_a_lock_gives_up_and_says_so(owner, superuser):
    owner.get("/balance")
    with superuser.transaction():
        superuser.execute("lock table accounts in access exclusive mode")
        began = time.monotonic()
        answer = owner.get("/balance")
        took = time.monotonic() - began
    assert answer.status_code == 503
    assert "This takes longer than it should" in answer.text
    assert took < db.LOCK_TIMEOUT_MS / 1000 + 2, "it is not tried a second time"
    assert owner.get("/balance").status_code == 200


def test_a_statement_of_a_page_has_an_end_and_that_of_a_command_has_none(app, settings):
    assert db.scalar("show statement_timeout") == "15s"
    assert db.scalar("show random_page_cost") == "1.1"
    with click.Context(FlaskGroup()):
        beside = create_app(settings)
        with beside.app_context():
            assert db.scalar("select current_setting('statement_timeout')") == "0"
            assert db.scalar("select current_setting('lock_timeout')") == "0"
            db.forget_connections()
