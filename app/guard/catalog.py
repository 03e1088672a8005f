"""What PostgreSQL's catalog says of our tables and triggers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.guard.tables import OWNERS_ONLY, TABLES, TRIGGERS

KEEP_ROWS: Final = "keep_rows"
KEEP_VALUES: Final = "keep_values"
KEEPER: Final = "keep_history"
ENABLED: Final = frozenset({"O", "A"})
"""A trigger that fires in an ordinary session; ``R`` fires for a replica alone."""
_BEFORE, _DELETE, _UPDATE, _TRUNCATE = 2, 8, 16, 32

COLUMNS: Final = """
select c.relname::text as name, array_agg(a.attname::text order by a.attnum) as columns
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace
  and c.relkind in ('r', 'p')
  and not exists (
    select from pg_depend d
    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
group by c.relname
order by c.relname
"""
FOUND_TRIGGERS: Final = """
select c.relname::text as name, t.tgname::text as trigger, p.proname::text as function,
  t.tgenabled::text as enabled, t.tgtype::integer as type, t.tgargs as args,
  t.tgqual is not null as conditional,
  p.prosrc ilike '%%raise exception%%' as refuses,
  array(
    select a.attname::text
    from unnest(t.tgattr::smallint[]) n
    join pg_attribute a on a.attrelid = c.oid and a.attnum = n
    order by a.attnum) as columns
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_proc p on p.oid = t.tgfoid
where not t.tgisinternal and c.relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True, slots=True)
class Keeper:
    """A trigger that every table of its kind has: it refuses before any row is touched."""

    table: str
    name: str
    type: int
    columns: tuple[str, ...] = ()
    argument: str = ""

    @property
    def sql(self) -> str:
        """How it is made."""
        event = "delete or truncate" if self.name == KEEP_ROWS else "update"
        of = f" of {', '.join(self.columns)}" if self.columns else ""
        argument = f"'{self.argument}'" if self.argument else ""
        return f"""
            create or replace trigger {self.name}
            before {event}{of} on {self.table}
            for each statement execute function {KEEPER}({argument})
        """

    def is_made_as(self, row: Any) -> bool:
        """Whether a trigger that was found is this one, but for its argument."""
        same = (row.function, row.type, tuple(row.columns)) == (KEEPER, self.type, self.columns)
        return same and not row.conditional


def unclassified(columns: Mapping[str, list[str]]) -> list[str]:
    """Tables of this database that the classification does not know."""
    return sorted(set(columns) - set(TABLES) - OWNERS_ONLY)


def changeable(table: str, columns: list[str]) -> list[str]:
    """The columns of a table that may be updated, in the order of the table."""
    rule = TABLES[table]
    if rule.kind == "free":
        return columns
    if rule.kind == "master":
        return [column for column in columns if column not in rule.fixed]
    return [column for column in columns if column in rule.changes]


def keepers(columns: Mapping[str, list[str]]) -> list[Keeper]:
    """The triggers that the classification asks for in a database with these tables."""
    wanted = []
    for table, rule in TABLES.items():
        if table not in columns or rule.kind == "free":
            continue
        wanted.append(Keeper(table, KEEP_ROWS, _BEFORE | _DELETE | _TRUNCATE))
        if rule.moved:
            continue
        changing = changeable(table, columns[table])
        kept = tuple(column for column in columns[table] if column not in changing)
        wanted.append(
            Keeper(
                table,
                KEEP_VALUES,
                _BEFORE | _UPDATE,
                kept if changing else (),
                ", ".join(changing) if rule.kind == "record" else "",
            )
        )
    return wanted


def function_of(sql: str) -> str:
    """The function that a trigger's definition calls."""
    return sql.rpartition("execute function ")[2].partition("(")[0]


def own_triggers(columns: Mapping[str, list[str]]) -> dict[tuple[str, str], str]:
    """The triggers of `TRIGGERS` whose tables exist."""
    return {key: sql for key, sql in TRIGGERS.items() if key[0] in columns}
