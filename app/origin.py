"""Where what the database holds came from: the demo, a test, or real money.

The database marks each customer, payment and statement by itself (`customers.origin` and its like)
from what the session says of its settings. Here a start is refused that does not go with the marks,
and a database that holds nothing real is emptied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.errors import UndefinedTable

import config
from app import audit, clock, db, ledger

LOCK = "demo"
"""Held while the demo is written or taken out."""
_REAL = """
select (select count(*) from payments where origin <> 'test') as payments,
  (select count(*) from bank_lines where origin <> 'test') as bank_lines,
  (select count(*) from customers c where origin <> 'test'
    and not exists (select from users u where u.customer_id = c.id and u.demo)) as customers
"""
_HELD = """
select (select count(*) from customers) as customers,
  (select count(*) from payments) as payments,
  (select count(*) from bank_lines) as bank_lines,
  (select array_agg(login order by id) from users where not demo) as others
"""
_OWN = """
select tablename from pg_tables
where schemaname = 'public' and tablename <> 'alembic_version'
order by tablename
"""
_PRICES = ("plans", "prices")


class SchemaOlder(config.ConfigError):
    """The database has not this version's schema yet."""


class NotEmptied(RuntimeError):
    """The database is not emptied, as a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Contents:
    """How much of what a database holds; `others` are the logins that the demo did not make."""

    customers: int
    payments: int
    bank_lines: int
    others: Sequence[str]


def refuse() -> None:
    """Raise `config.ConfigError` where the settings do not go with what the database holds."""
    config.refuse_origins(config.current(), found())


def found() -> frozenset[str]:
    """The codes of the view `origins`. Raises `SchemaOlder`."""
    try:
        return frozenset(row.code for row in db.rows("select code from origins"))
    except UndefinedTable:
        raise SchemaOlder("The database has not this version's schema: run flask --app wsgi db upgrade.") from None


def contents() -> Contents:
    """What `empty` would take out. Raises `NotEmptied` where something is real."""
    _refuse_real()
    row = db.rows(_HELD)[0]
    return Contents(row.customers, row.payments, row.bank_lines, row.others or [])


def mark_demo(login: str) -> None:
    """Note that the demo made this login. Opens the transaction."""
    with db.transaction():
        db.execute("update users set demo = true where login = %(login)s", login=login)


def begin_demo() -> None:
    """Note that the demo is being written, so that a broken-off one is known. Opens the transaction."""
    with db.transaction():
        db.execute("insert into demo_seeding (started_at) values (%(now)s)", now=clock.now())


def finish_demo() -> None:
    """Note that the demo is whole. Opens the transaction."""
    with db.transaction():
        db.execute("update demo_seeding set finished_at = %(now)s", now=clock.now())


def empty(*, keep_prices: bool = False, reason: str) -> Contents:
    """Take every row out, as the tables' owner, and say what there was; plans and prices stay on demand.

    Opens the transaction, which holds every table from before it looks whether anything is real.
    Raises `NotEmptied` where something is, or where this database user does not own the tables.
    """
    kept = _PRICES if keep_prices else ()
    with db.transaction():
        db.execute("set local role none")
        tables = [row.tablename for row in db.rows(_OWN) if row.tablename not in kept]
        _refuse_strangers()
        db.execute("set local lock_timeout = '20s'")
        names = ", ".join(f'"{name}"' for name in tables)
        db.execute(f"lock table {names} in access exclusive mode")
        there = contents()
        for name in tables:
            db.execute(f'alter table "{name}" disable trigger user')
        db.execute(f"truncate {names} restart identity")
        for name in tables:
            db.execute(f'alter table "{name}" enable trigger user')
        audit.record(
            "demo.remove",
            "database",
            "all",
            reason=reason,
            details={"customers": there.customers, "payments": there.payments, "bank_lines": there.bank_lines},
        )
    ledger.forget_accounts()
    return there


def _refuse_strangers() -> None:
    owned = db.scalar(
        "select bool_and(pg_has_role(c.relowner, 'usage')) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relkind = 'r'"
    )
    if not owned:
        raise NotEmptied("This login does not own the tables: run the command once with DATABASE_URL set to the owner's address, which DATABASE_OWNER_URL holds.")


def _refuse_real() -> None:
    real = db.rows(_REAL)[0]
    held = [f"{count} {words}" for count, words in ((real.payments, "payments"), (real.bank_lines, "lines of bank statements"), (real.customers, "customers")) if count]
    if held:
        raise NotEmptied(
            f"This database also holds {' and '.join(held)} that no test made, and the books are never rewritten: nothing was taken out. "
            "Go live on a fresh database: create one, name it in DATABASE_URL, then run flask --app wsgi db upgrade."
        )
