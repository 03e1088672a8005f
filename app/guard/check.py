"""Whether the database of this process is protected: by the role it works as and by triggers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from app import db
from app.guard import catalog
from app.guard.tables import OWNERS_ONLY, TABLES

Code = Literal["owner", "role", "schema", "right", "lacking", "trigger", "replica", "unclassified"]
MEND: Final = "run flask database protect"


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which history is open to change: a code and a sentence.

    ``owner``: the app works as who owns the tables; ``role``: as who may make roles; ``schema``:
    it may put objects into the schema; ``right``: it holds a right it must not have; ``trigger``:
    one is missing, off or another one; ``replica``: the session passes triggers;
    ``unclassified``: a table nobody classified. ``lacking`` opens nothing: a right the app needs.
    """

    code: Code
    what: str

    def __str__(self) -> str:
        return self.what


def findings(*, lacking: bool = False) -> list[Finding]:
    """Everything that leaves history open to change; nothing where all is protected.

    Asked of the connection that the app reads with, so of the role it really works as.
    ``lacking`` adds the rights that are missing for the app's work.
    """
    columns = {row.name: row.columns for row in db.rows(catalog.COLUMNS)}
    found = [*_of_role(), *_of_triggers(columns)]
    if not any(one.code == "owner" for one in found):
        found += _of_rights(lacking=lacking)
    for name in catalog.unclassified(columns):
        found.append(Finding("unclassified", f"app/guard/tables.py does not know {name}."))
    return found


def may_leave_role() -> bool:
    """Whether this session's login could act as the tables' owner, if a statement could say so.

    Such a login is safe from mistakes, not from injected SQL (``reset role``).
    """
    return bool(db.scalar(_LEAVES))


_ROLE: Final = """
select current_user::text as name, r.rolsuper as superuser, r.rolcreaterole as makes_roles,
  current_setting('session_replication_role') <> 'origin' as replica,
  has_schema_privilege('public', 'CREATE') as creates,
  exists (
    select from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
      and pg_has_role(c.relowner, 'USAGE')) as owner
from pg_roles r
where r.rolname = current_user
"""
_LEAVES: Final = """
select r.rolsuper or exists (
  select from pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
    and pg_has_role(session_user, c.relowner, 'MEMBER'))
from pg_roles r
where r.rolname = session_user
"""


def _of_role() -> Iterator[Finding]:
    role = db.rows(_ROLE)[0]
    if role.owner or role.superuser:
        yield Finding(
            "owner",
            f"The app works as {role.name}, the owner of tables and triggers: {MEND}.",
        )
    elif role.makes_roles:
        yield Finding("role", f"The app works as {role.name}, who may create roles: {MEND}.")
    if role.creates and not (role.owner or role.superuser):
        yield Finding("schema", f"{role.name} may create objects in schema public: {MEND}.")
    if role.replica:
        yield Finding("replica", f"Sessions of {role.name} pass every trigger.")


def _of_triggers(columns: Mapping[str, list[str]]) -> Iterator[Finding]:
    found = {(row.name, row.trigger): row for row in db.rows(catalog.FOUND_TRIGGERS)}
    for keeper in catalog.keepers(columns):
        row = found.get((keeper.table, keeper.name))
        if row is None:
            yield _trigger(keeper.table, keeper.name, "is missing")
        elif row.enabled not in catalog.ENABLED:
            yield _trigger(keeper.table, keeper.name, "is switched off")
        elif not (row.refuses and keeper.is_made_as(row)):
            yield _trigger(keeper.table, keeper.name, "is another one than it must be")
    for (table, name), sql in catalog.own_triggers(columns).items():
        row = found.get((table, name))
        if row is None:
            yield _trigger(table, name, "is missing")
        elif row.enabled not in catalog.ENABLED:
            yield _trigger(table, name, "is switched off")
        elif row.function != catalog.function_of(sql) or not _acts(row):
            yield _trigger(table, name, "is another one than it must be")


_WRITERS: Final = frozenset(
    {
        "audit_chain_append",
        "keep_card_consent",
        "keep_service_consent",
        "note_origin",
    }
)
"""Functions of triggers that write and refuse nothing."""


def _acts(row: db.Row) -> bool:
    return row.refuses or row.function in _WRITERS


def _trigger(table: str, name: str, what: str) -> Finding:
    return Finding("trigger", f"The trigger {name} of {table} {what}: {MEND}.")


_RIGHTS: Final = """
select c.relname::text as name,
  has_table_privilege(c.oid, 'SELECT') as reads,
  has_table_privilege(c.oid, 'INSERT') as inserts,
  has_table_privilege(c.oid, 'DELETE') as deletes,
  has_table_privilege(c.oid, 'TRUNCATE') as truncates,
  has_table_privilege(c.oid, 'TRIGGER') as triggers,
  array(
    select a.attname::text
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      and has_column_privilege(c.oid, a.attnum, 'UPDATE')
    order by a.attnum) as updates,
  array(
    select a.attname::text
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    order by a.attnum) as columns
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
order by c.relname
"""


def _of_rights(*, lacking: bool) -> Iterator[Finding]:
    for row in db.rows(_RIGHTS):
        if row.name not in TABLES and row.name not in OWNERS_ONLY:
            continue
        rule = TABLES.get(row.name)
        inserts = rule is not None and not rule.triggered
        updates = catalog.changeable(row.name, row.columns) if rule else []
        deletes = rule is not None and rule.kind == "free"
        held = {"truncate": row.truncates, "trigger": row.triggers}
        held |= {"delete": row.deletes and not deletes, "insert": row.inserts and not inserts}
        too_much = [right for right, has in held.items() if has]
        too_much += [f"update {column}" for column in row.updates if column not in updates]
        if too_much:
            yield Finding(
                "right", f"The app's role holds rights on {row.name} it must not have"
                f" ({', '.join(too_much)}): {MEND}."
            )  # fmt: skip
        needs = {"select": not row.reads, "insert": inserts and not row.inserts}
        needs |= {"delete": deletes and not row.deletes}
        needs |= {"update": bool(set(updates) - set(row.updates))}
        if lacking and any(needs.values()):
            missing = ", ".join(right for right, lacks in needs.items() if lacks)
            yield Finding("lacking", f"The app's role lacks {missing} on {row.name}: {MEND}.")
