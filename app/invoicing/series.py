"""Document numbers without gaps: a counter row that moves, and rolls back, with the transaction that uses the number.

A database sequence would leave a hole at every rollback. The price is that issuers of one series queue until the one before has
committed, so a transaction takes its numbers as late as it can. Counters are always locked in the order of `PREFIXES`.
"""

from collections.abc import Sequence
from datetime import date, datetime

from app import clock, db

PREFIXES = {
    "proforma": "PF",
    "invoice": "INV",
    "topup_invoice": "TU",
    "receipt": "RC",
    "credit_note": "CN",
    "refund_receipt": "RR",
}

_TAKE = """
insert into number_series (kind, year, last)
select kind, %(year)s, count
from unnest(%(kinds)s::text[], %(counts)s::bigint[]) with ordinality as wanted (kind, count, position)
order by position
on conflict (kind, year) do update set last = number_series.last + excluded.last
returning kind, last
"""


def issue(kinds: Sequence[str], count: int | Sequence[int]) -> tuple[dict[str, list[str]], datetime]:
    """The next numbers of the legal year, as `take` says, and the moment of issue of what bears them. Within a transaction.

    The moment is read after the wait for the numbers, so that a later number never bears an earlier day, and stays in the numbers' year.
    """
    year = clock.today().year
    numbers = take(kinds, year, count)
    return numbers, min(clock.now(), clock.end_of(date(year, 12, 31)))


def take(kinds: Sequence[str], year: int, count: int | Sequence[int]) -> dict[str, list[str]]:
    """The next `count` numbers of each kind of document in a year, oldest first. Within a transaction.

    `kinds` come in the order of `PREFIXES`: {"invoice": ["INV-2026-000413", …], "receipt": […]}.
    `count` is one for all kinds, or one for each.
    """
    counts = [count] * len(kinds) if isinstance(count, int) else list(count)
    wanted = {kind: many for kind, many in zip(kinds, counts, strict=True) if many}
    if not wanted:
        return {kind: [] for kind in kinds}
    last = dict(db.rows(_TAKE, kinds=list(wanted), counts=list(wanted.values()), year=year))
    return {kind: [_write(kind, year, last[kind] - place) for place in reversed(range(wanted[kind]))] if kind in wanted else [] for kind in kinds}


def _write(kind: str, year: int, number: int) -> str:
    return f"{PREFIXES[kind]}-{year}-{number:06d}"
