"""The database: PostgreSQL, spoken to in SQL, with one door for writes.

Reads outside a transaction run on an autocommit connection whose session is read-only, so a write that forgot the door is refused by
the server itself. `transaction()` is that door: it commits once, rolls back on any exception and does not nest.
Statements are constants with ``%(name)s`` placeholders; rows are psycopg named tuples.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import click
import psycopg
from flask import Flask, g, has_app_context
from flask.cli import FlaskGroup
from flask_sqlalchemy import SQLAlchemy
from psycopg.rows import namedtuple_row
from psycopg.sql import SQL, Identifier
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolEmpty
from sqlalchemy.pool import PoolProxiedConnection

import config

Row = Any
"""One psycopg named tuple; its fields are the statement's column names."""

db = SQLAlchemy()
_open: ContextVar[PoolProxiedConnection | None] = ContextVar("open_transaction", default=None)
_BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)
BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
"""What a database raises that answers, but not in the time a page has."""
LOCK_TIMEOUT_MS = 4_000
STATEMENT_TIMEOUT_MS = 15_000
"""How long one statement of a page may wait for a lock, and take. Jobs and commands may take longer."""
RANDOM_PAGE_COST = "1.1"
"""What the planner of our sessions thinks of one page at a place of its own: disks have no heads any more."""
UNREACHABLE = (*_BROKEN, DBAPIError, PoolEmpty)
"""What a database raises that is down, goes away or has no connection left."""


class TransactionError(RuntimeError):
    """A write outside `transaction()`, or a transaction inside another one: a mistake in the program."""


def init(app: Flask, database_url: str, *, live: bool = False) -> None:
    """Bind the two engines: the default one for writes, ``read`` for everything else.

    `live` is whether this installation can move real money: its sessions say so to the database,
    which marks what they write and keeps test money from banks.
    """
    # The overflow is for jobs: each turn has a thread of its own, and a lock, a transaction and reads.
    pool = {"pool_size": 4, "max_overflow": 60, "pool_timeout": 10, "pool_recycle": 1800}
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {**pool, "pool_pre_ping": True, "pool_reset_on_return": "rollback"}
    app.config["SQLALCHEMY_BINDS"] = {"read": {"url": database_url, **pool, "isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None, "skip_autocommit_rollback": True}}
    db.init_app(app)
    if is_command():  # the web server migrates nothing and need not load Alembic
        migrations(app)
    app.teardown_appcontext(_release)
    hurried_by = (0, 0) if is_command() else (LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS)
    session = Session("live" if live else "test", *hurried_by)
    with app.app_context():
        event.listen(db.engine, "connect", partial(_prepare, session))
        event.listen(db.engines["read"], "connect", partial(_prepare_read, session))


def is_command() -> bool:
    """Whether the flask command asks, and not a server, which may be a command of click, too."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.find_root().command, FlaskGroup)


def migrations(app: Flask) -> None:
    """Let the application know its migrations: for `flask db` and whoever upgrades a database from Python."""
    from flask_migrate import Migrate

    Migrate(app, db)


@dataclass(frozen=True, slots=True)
class Session:
    """What every session of a process says of itself to the database; no time-out is 0."""

    mode: str
    lock_timeout_ms: int
    statement_timeout_ms: int


_SAY = """
select
  set_config('TimeZone', 'UTC', false),
  set_config('client_area.mode', %s, false),
  set_config('lock_timeout', %s, false),
  set_config('statement_timeout', %s, false),
  set_config('random_page_cost', %s, false),
  set_config('jit', 'off', false)
"""
_MAY_ACT_AS = """
select 1
from pg_roles
where rolname = %s and pg_has_role(
  oid, case when current_setting('server_version_num')::integer < 160000 then 'MEMBER' else 'SET' end)
"""


@contextmanager
def _closed_on_failure(connection: Any) -> Iterator[None]:
    """A connection whose server goes away while it is prepared belongs to no pool yet: nobody else
    would close it."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _prepare(session: Session, connection: Any, _record: object) -> None:
    """Say what the settings are, and act as the app's role where that can be: `app.guard` says what it may and when it is not."""
    role = config.current().database_role
    with _closed_on_failure(connection):
        with connection.cursor() as cursor:
            limits = (str(session.lock_timeout_ms), str(session.statement_timeout_ms))
            cursor.execute(_SAY, (session.mode, *limits, RANDOM_PAGE_COST))
            cursor.execute(_MAY_ACT_AS, (role,))
            if cursor.fetchone():
                cursor.execute(SQL("set role {}").format(Identifier(role)))
        if not connection.autocommit:
            connection.commit()


def _prepare_read(session: Session, connection: Any, record: object) -> None:
    connection.autocommit = True
    _prepare(session, connection, record)
    with _closed_on_failure(connection):
        connection.execute("set default_transaction_read_only = on")


@contextmanager
def owner(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own as the tables' owner; what the block did is committed at its end.

    For migrations' neighbours alone: rights, triggers, roles. ``url`` as the settings have it.
    """
    plain = url.replace("+psycopg", "", 1)
    with psycopg.connect(plain, connect_timeout=10, row_factory=namedtuple_row) as connection:
        yield connection


def forget_connections() -> None:
    """Let every statement from here on use new connections, with the rights of now."""
    _release()
    for engine in db.engines.values():
        engine.dispose()


@contextmanager
def transaction() -> Iterator[None]:
    """The one door for writes. Commits when the block ends, rolls back on any exception, refuses to nest."""
    if _open.get() is not None:
        raise TransactionError("a transaction is already open: the verb that opens it is the outermost one")
    connection = _engine().raw_connection()
    token = _open.set(connection)
    try:
        yield
        connection.commit()
    except BaseException:
        with suppress(*_BROKEN):
            connection.rollback()
        raise
    finally:
        _open.reset(token)
        connection.close()


@contextmanager
def exclusive(name: str, *, patient: bool = False) -> Iterator[bool]:
    """Hold the installation's lock of that name for the block; False when another process holds it, unless `patient`: then wait for it. Opens no transaction."""
    connection = _engine().raw_connection()
    held = False
    try:
        with _cursor(connection) as cursor:
            if patient:
                cursor.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (name,))
            held = patient or cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()[0]
        connection.commit()
        yield held
    finally:
        if held:
            with suppress(*_BROKEN), _cursor(connection) as cursor:  # a dead connection has let go of it already
                cursor.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
                connection.commit()
        connection.close()


@contextmanager
def hurried() -> Iterator[None]:
    """Let commits of the block answer before they are on the disk: for a bulk of writes that would be made anew after a crash. Never for money."""
    with transaction(), _cursor(_inside()) as cursor:
        cursor.execute("set synchronous_commit = off")
    try:
        yield
    finally:
        with transaction(), _cursor(_inside()) as cursor:
            cursor.execute("reset synchronous_commit")


def analyze() -> None:
    """Let the planner look at what is there now, as the tables' owner. After a bulk of writes: plans made for empty tables are slow."""
    with transaction(), _cursor(_inside()) as cursor:
        cursor.execute("set local role none")
        cursor.execute("analyze")


@contextmanager
def snapshot(**settings: str) -> Iterator[None]:
    """Reads inside see one moment, on a connection of their own; `settings` are the planner's, for this block alone."""
    connection = _engine().raw_connection()
    token = _open.set(connection)
    try:
        with _cursor(connection) as cursor:
            cursor.execute("set transaction isolation level repeatable read, read only")
            for name, value in settings.items():
                cursor.execute("select set_config(%s, %s, true)", (name, value))
        yield
    finally:
        _open.reset(token)
        with suppress(*_BROKEN):
            connection.rollback()
        connection.close()


def rows(sql: str, /, **params: object) -> list[Row]:
    """All rows of a statement; inside a transaction on its connection, else on the read-only one."""
    connection = _open.get()
    if connection is not None:
        return _fetch(connection, sql, params)
    try:
        return _fetch(_read_connection(), sql, params)
    except BUSY:
        raise
    except _BROKEN:  # the server went away since the pool was filled: one try on a new connection
        _discard()
        return _fetch(_read_connection(), sql, params)


def row(sql: str, /, **params: object) -> Row | None:
    """The first row, or None."""
    found = rows(sql, **params)
    return found[0] if found else None


def scalar(sql: str, /, **params: object) -> Any:
    """The first column of the first row, or None."""
    found = rows(sql, **params)
    return found[0][0] if found else None


def execute(sql: str, /, **params: object) -> int:
    """Run a write and return the number of rows it touched. Within a transaction."""
    with _cursor(_inside()) as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def many(sql: str, params: Sequence[dict[str, object]]) -> None:
    """Run one write for each set of parameters, pipelined. Within a transaction."""
    with _cursor(_inside()) as cursor:
        cursor.executemany(sql, params)


def stream(sql: str, /, chunk: int = 5_000, **params: object) -> Iterator[Row]:
    """Rows from a server-side cursor in bounded memory, at one moment: that of `snapshot()` or the open transaction, else one of its own."""
    connection = _open.get()
    if connection is not None:
        yield from _stream(connection, sql, chunk, params)
        return
    connection = _engine().raw_connection()
    try:
        yield from _stream(connection, sql, chunk, params)
        connection.rollback()
    finally:
        connection.close()


def _stream(connection: PoolProxiedConnection, sql: str, chunk: int, params: dict[str, object]) -> Iterator[Row]:
    driver = cast("psycopg.Connection[Any]", connection.driver_connection)
    with driver.cursor(name="stream", row_factory=namedtuple_row) as cursor:
        cursor.itersize = chunk
        cursor.execute(sql, params)
        yield from cursor


def _inside() -> PoolProxiedConnection:
    connection = _open.get()
    if connection is None:
        raise TransactionError("a write needs transaction()")
    return connection


def _fetch(connection: PoolProxiedConnection, sql: str, params: dict[str, object]) -> list[Row]:
    with _cursor(connection) as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.pgresult.nfields else []  # a description of the columns would be made anew each time


def _cursor(connection: PoolProxiedConnection) -> Any:
    return connection.driver_connection.cursor(row_factory=namedtuple_row)  # type: ignore[union-attr]


def _engine() -> Engine:
    return db.engine


def _read_connection() -> PoolProxiedConnection:
    if "read_connection" not in g:
        g.read_connection = db.engines["read"].raw_connection()
    return cast("PoolProxiedConnection", g.read_connection)


def _discard() -> None:
    connection = g.pop("read_connection", None)
    if connection is not None:
        # Older ones are closed when they are asked for next; a pool that is disposed of forgets
        # those that are out, and nobody closes them.
        db.engines["read"].pool._invalidate(connection)  # noqa: SLF001 - SQLAlchemy's own for it


def _release(_error: BaseException | None = None) -> None:
    connection = g.pop("read_connection", None) if has_app_context() else None
    if connection is not None:
        connection.close()
