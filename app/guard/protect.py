"""Triggers and rights by the classification, made on a connection of the tables' owner."""

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from app.guard import catalog
from app.guard.tables import FORMER, OWNERS_ONLY, TABLES

Connection = psycopg.Connection[Any]

EXECUTES: Final = ("lock_accounts(bigint[])",)
"""Functions that the app calls and nobody else may."""
_OWNER_NEEDED: Final = "give the address of the tables' owner in DATABASE_OWNER_URL."
_SUPERUSER_NEEDED: Final = "Let a superuser run this, then run the command once more:"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class ProtectError(Exception):
    """What stands in the way, as a sentence; ``sql`` is what a superuser can run instead."""

    def __init__(self, sentence: str, sql: str = "") -> None:
        super().__init__(sentence)
        self.sql = sql


class Unclassified(ProtectError):
    """A table that the classification does not know."""


def checked_name(name: str) -> str:
    """A role's name, if it needs no quotes. Raises `ProtectError`."""
    if not _NAME.fullmatch(name):
        raise ProtectError(f"“{name}” is no role's name: small letters, digits and _, up to 63.")
    return name


def apply(connection: Connection, role: str) -> list[str]:
    """Make every trigger and, where the role exists, its rights as the classification says.

    Within the caller's transaction, as the owner of the tables; again it changes nothing. Answers
    the triggers that had to be made or switched on, as ``table.trigger``. A schema from before
    the classification is left as it is. Raises `Unclassified`.
    """
    rows = _rows(connection, catalog.COLUMNS)
    columns = {row.name: row.columns for row in rows if row.name not in FORMER}
    if not _rows(connection, "select 1 where to_regproc('public.keep_history') is not null"):
        return []
    if names := catalog.unclassified(columns):
        raise Unclassified(f"app/guard/tables.py must say what may happen to {', '.join(names)}.")
    try:
        done = _make_triggers(connection, columns)
        if _rows(connection, "select 1 from pg_roles where rolname = %(role)s", role=role):
            _grant(connection, sql.Identifier(role), columns)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ProtectError(f"{error.diag.message_primary}: {_OWNER_NEEDED}") from None
    return done


def make_role(connection: Connection, role: str) -> bool:
    """Create the app's role and let this login act as it; whether it is new.

    Raises `ProtectError` with the statements for a superuser where this login may not do that.
    """
    me = _rows(connection, _ME, role=role)[0]
    try:
        if not me.exists:
            _execute(connection, "create role {} nologin", role)
        if not me.superuser and not (me.exists and me.member):
            _execute(connection, "grant {} to {}", role, me.name)
    except psycopg.errors.InsufficientPrivilege:
        raise ProtectError(
            f"{me.name} may not create the role {role}. {_SUPERUSER_NEEDED}",
            role_sql(role, me.name, exists=me.exists),
        ) from None
    return not me.exists


_ME: Final = """
select current_user::text as name, r.rolsuper as superuser,
  exists (select from pg_roles a where a.rolname = %(role)s) as exists,
  coalesce((select pg_has_role(a.oid, 'MEMBER') from pg_roles a where a.rolname = %(role)s), false)
    as member
from pg_roles r
where r.rolname = current_user
"""


def role_sql(role: str, owner: str, *, exists: bool = False) -> str:
    """What a superuser runs where the owner of the database may not create roles."""
    make = "" if exists else f"create role {role} nologin;\n"
    return f'{make}grant {role} to "{owner}";\n'


def add_login(connection: Connection, name: str, role: str) -> str:
    """Create a login that can act as the app's role and as nothing else, or give it a new
    password; the password. The server sees its SCRAM verifier alone. Raises `ProtectError`."""
    password = secrets.token_urlsafe(24)
    plain = password.encode()
    verifier = connection.pgconn.encrypt_password(plain, name.encode(), b"scram-sha-256")
    known = _rows(connection, _LOGIN, name=name, role=role)
    if known and known[0].more:
        raise ProtectError(f"{name} exists and may do more than {role} may: choose another name.")
    try:
        what = "alter role" if known else "create role"
        statement = sql.SQL(what + " {} login password {}")
        connection.execute(statement.format(sql.Identifier(name), verifier.decode()))
        _execute(connection, "grant {} to {}", role, name)
    except psycopg.errors.InsufficientPrivilege:
        raise ProtectError(
            f"This login may not create {name}. {_SUPERUSER_NEEDED}",
            f"create role {name} login;\n\\password {name}\ngrant {role} to {name};\n",
        ) from None
    return password


_LOGIN: Final = """
select r.rolsuper or r.rolcreaterole or r.rolbypassrls or exists (
    select from pg_auth_members m
    join pg_roles g on g.oid = m.roleid
    where m.member = r.oid and g.rolname <> %(role)s)
  or exists (
    select from pg_class c
    where c.relowner = r.oid and c.relnamespace = 'public'::regnamespace) as more
from pg_roles r
where r.rolname = %(name)s
"""


def _make_triggers(connection: Connection, columns: Mapping[str, list[str]]) -> list[str]:
    done = []
    found = {(row.name, row.trigger): row for row in _rows(connection, catalog.FOUND_TRIGGERS)}
    for keeper in catalog.keepers(columns):
        row = found.get((keeper.table, keeper.name))
        if row and keeper.is_made_as(row) and _text(row.args) == keeper.argument:
            done += _enable(connection, keeper.table, keeper.name, row.enabled)
            continue
        connection.execute(keeper.sql)
        done += [f"{keeper.table}.{keeper.name}"]
        done += _enable(connection, keeper.table, keeper.name, row.enabled if row else "O")
    for (table, name), statement in catalog.own_triggers(columns).items():
        row = found.get((table, name))
        if row:
            done += _enable(connection, table, name, row.enabled)
        elif _known(connection, catalog.function_of(statement)):
            connection.execute(statement)
            done.append(f"{table}.{name}")
    return list(dict.fromkeys(done))


def _enable(connection: Connection, table: str, name: str, enabled: str) -> list[str]:
    if enabled in catalog.ENABLED:
        return []
    connection.execute(f"alter table {table} enable trigger {name}")
    return [f"{table}.{name}"]


def _known(connection: Connection, function: str) -> bool:
    found = _rows(connection, "select 1 where to_regproc(%(name)s) is not null", name=function)
    return bool(found)


def _text(args: bytes) -> str:
    return bytes(args).rstrip(b"\0").decode()


def _grant(connection: Connection, role: sql.Identifier, columns: Mapping[str, list[str]]) -> None:
    for statement in _SCHEMA:
        connection.execute(sql.SQL(statement).format(role))
    for (view,) in connection.execute(_VIEWS).fetchall():
        _rights(connection, view, role, ["select"])
    for table, names in columns.items():
        if table in OWNERS_ONLY:
            _rights(connection, table, role, ["select"])
            continue
        rule = TABLES[table]
        rights = ["select"] if rule.triggered else ["select", "insert"]
        changing = catalog.changeable(table, names)
        if rule.kind == "free":
            rights += ["update", "delete"]
        elif changing:
            rights.append(f"update ({', '.join(changing)})")
        _rights(connection, table, role, rights)
    for function in EXECUTES:
        if _known(connection, function.partition("(")[0]):
            granted = sql.SQL(f"grant execute on function {function} to {{}}")
            connection.execute(granted.format(role))


_VIEWS: Final = """
select c.relname::text
from pg_class c
where c.relnamespace = 'public'::regnamespace
  and c.relkind in ('v', 'm')
  and pg_has_role(c.relowner, 'USAGE')
  and not exists (
    select from pg_depend d
    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""
_SCHEMA: Final = (
    "grant usage on schema public to {}",
    "revoke create on schema public from public, {}",
    "grant usage on all sequences in schema public to {}",
    "alter default privileges in schema public revoke all on tables from {}",
    "alter default privileges in schema public grant select, insert on tables to {}",
    "alter default privileges in schema public grant usage on sequences to {}",
)


def _rights(connection: Connection, table: str, role: sql.Identifier, rights: list[str]) -> None:
    name = sql.Identifier(table)
    connection.execute(sql.SQL("revoke all on {} from public, {}").format(name, role))
    granted = sql.SQL("grant " + ", ".join(rights) + " on {} to {}")
    connection.execute(granted.format(name, role))


def _execute(connection: Connection, statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def _rows(connection: Connection, query: str, **params: object) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query, params).fetchall()
