"""Document numbers without gaps: a counter row that moves, and rolls back, with the transaction that uses the number.

A database sequence would leave a hole at every rollback. The price is that issuers of one series queue until the one before has
committed, so a transaction takes its numbers as late as it can. Counters are always locked in the order of `PREFIXES`.
"""

from datetime import date, datetime

from app import clock, db

PREFIXES = {"proforma": "PF", "invoice": "INV", "receipt": "RC", "credit_note": "CN", "refund_receipt": "RR"}

_TAKE = """
insert into number_series (kind, year, last)
select kind, %(year)s, %(count)s from unnest(%(kinds)s::text[]) with ordinality as wanted (kind, position) order by position
on conflict (kind, year) do update set last = number_series.last + excluded.last
returning kind, last
"""


def issue(kinds: list[str], count: int) -> tuple[dict[str, list[str]], datetime]:
    """The next numbers of the legal year, as `take` says, and the moment of issue of what bears them. Within a transaction.

    The moment is read after the wait for the numbers, so that a later number never bears an earlier day, and stays in the numbers' year.
    """
    year = clock.today().year
    numbers = take(kinds, year, count)
    return numbers, min(clock.now(), clock.end_of(date(year, 12, 31)))


def take(kinds: list[str], year: int, count: int) -> dict[str, list[str]]:
    """The next `count` numbers of each kind of document in a year, oldest first. Within a transaction.

    `kinds` come in the order of `PREFIXES`: {"invoice": ["INV-2026-000413", …], "receipt": […]}.
    """
    if not count:
        return {kind: [] for kind in kinds}
    last = dict(db.rows(_TAKE, kinds=kinds, year=year, count=count))
    return {kind: [_write(kind, year, number) for number in range(last[kind] - count + 1, last[kind] + 1)] for kind in kinds}


def _write(kind: str, year: int, number: int) -> str:
    return f"{PREFIXES[kind]}-{year}-{number:06d}"
