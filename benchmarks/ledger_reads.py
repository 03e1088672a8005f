"""Reading a long history: balance, page of fifty, page at any depth, totals of days, the chart; at ten thousand entries and at many more.

    BENCH_DATABASE_URL=postgresql+psycopg://… python benchmarks/ledger_reads.py [--entries 1000000]

One customer has a twentieth of all movements. Beside each size the usual ways: SUM for a balance, OFFSET for a page.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from statistics import median

import psycopg
from _books import Verdict, connected, house
from _size import sized

from app import db, ledger
from app.ledger import Filter

SMALL, TIMES, FLAT = sized(10_000, 4_000), sized(300, 3), 2.5
NOW = datetime(2026, 11, 1, tzinfo=UTC)

FILL = (
    "insert into customers (currency, created_at) select 'EUR', now() from generate_series(1, 1000)",
    "insert into accounts (kind, customer_id, currency, tracked) select 'debt', id, 'EUR', true from customers order by id",
    "insert into accounts (kind, currency, tracked) values ('revenue', 'EUR', false)",
    """insert into transfers (reference, kind, description, actor, posted_at)
    select 'bench:' || n, case n %% 3 when 0 then 'topup' else 'charge' end, 'vps-' || n %% 97 || ' · renewed for 1 month', 'system',
      %(now)s::timestamptz - (%(transfers)s - n) * interval '2 years' / %(transfers)s
    from generate_series(1, %(transfers)s::bigint) n""",
    """insert into entries (account_id, seq, transfer_id, kind, amount, currency, balance_after, credited_after, posted_at, hash)
    select account, seq, id, kind, case when seq %% 2 = 1 then 300 else -100 end, 'EUR',
      (seq + 1) / 2 * 300 - seq / 2 * 100, (seq + 1) / 2 * 300, posted_at, decode(lpad(to_hex(id), 64, '0'), 'hex')
    from (
      select id, kind, posted_at, account, row_number() over (partition by account order by id) as seq
      from (select id, kind, posted_at, case when id %% 20 = 0 then 1 else 2 + id * 7919 %% 999 end as account from transfers) t
    ) e order by id""",
    """insert into entries (account_id, seq, transfer_id, kind, amount, currency, posted_at, hash)
    select 1001, e.transfer_id, e.transfer_id, e.kind, -e.amount, 'EUR', e.posted_at, e.hash from entries e order by e.transfer_id""",
    """update accounts a set balance = e.balance_after, entry_count = e.seq, credited = e.credited_after, last_at = e.posted_at, head = e.hash
    from (select distinct on (account_id) * from entries where account_id <= 1000 order by account_id, seq desc) e where a.id = e.account_id""",
)


def load(admin: psycopg.Connection, entries: int) -> None:
    """A book of this size, written past the triggers: minutes instead of an hour for ten million."""
    admin.execute("set session_replication_role = replica")
    admin.execute("truncate customers, accounts, transfers, entries restart identity cascade")
    for statement in FILL:
        admin.execute(statement, {"transfers": entries // 2, "now": NOW})
    admin.execute("vacuum analyze customers, accounts, transfers, entries")


def questions(length: int) -> dict[str, Callable[[], object]]:
    """What is asked about the customer with the long history."""
    month = Filter(since=date(2026, 9, 1), until=date(2026, 9, 30))
    return {
        "balance": lambda: ledger.balance(1),
        "newest 50": lambda: ledger.history(1, limit=50),
        "50 at any depth": lambda: ledger.history(1, before=random.randint(60, length), limit=50),
        "totals of a month": lambda: ledger.totals(1, month),
        "90 days' chart": lambda: ledger.balance_series(1, NOW.date() - timedelta(days=90), NOW.date()),
    }


def usual(length: int) -> dict[str, Callable[[], object]]:
    """The ways that grow with the history."""
    page = """select e.*, t.description from entries e join transfers t on t.id = e.transfer_id where account_id = 1 order by seq desc limit 50 offset %(skip)s"""
    return {
        "balance by SUM": lambda: db.scalar("select sum(amount) from entries where account_id = 1"),
        "OFFSET to the middle": lambda: db.rows(page.replace("e.*", "e.seq, e.amount, e.balance_after"), skip=length // 2),
    }


def milliseconds(ask: Callable[[], object], times: int) -> float:
    """The median."""
    for _ in range(8):
        ask()
    return median(_once(ask) for _ in range(times))


def _once(ask: Callable[[], object]) -> float:
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3


def main() -> int:
    """Print medians at both sizes and how much they grew; 1 when a claim is not kept."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--entries", type=int, default=1_000_000)
    many = arguments.parse_args().entries
    verdict = Verdict()
    found: dict[tuple[str, int], float] = {}
    with house() as (_app, address), connected(address) as admin:
        for entries in (SMALL, many):
            start = time.perf_counter()
            load(admin, entries)
            print(f"{entries:,} entries loaded in {time.perf_counter() - start:.0f} s")
            length = entries // 40
            found |= {(name, entries): milliseconds(ask, TIMES) for name, ask in questions(length).items()}
            found |= {(name, entries): milliseconds(ask, 15) for name, ask in usual(length).items()}
    for name in usual(0):
        print(f"{name:22} {found[name, SMALL]:8.2f} ms   {found[name, many]:8.2f} ms   {found[name, many] / found[name, SMALL]:6.1f} ×")
    for name in questions(0):
        growth = found[name, many] / found[name, SMALL]
        print(f"{name:22} {found[name, SMALL]:8.2f} ms   {found[name, many]:8.2f} ms   {growth:6.1f} ×")
        if name in {"balance", "newest 50", "50 at any depth"}:
            verdict.claim(f"{name}: flat within {FLAT} ×", FLAT / growth, 1, "of the room")
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
