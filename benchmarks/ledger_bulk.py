"""Renewals in bulk: 20,000 charges of as many customers, in chunks of a thousand, each chunk one transaction with every safeguard.

BENCH_DATABASE_URL=postgresql+psycopg://… python benchmarks/ledger_bulk.py
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from uuid import uuid4

import psycopg
from _books import Verdict, best, connected, house, rate
from _size import sized
from flask import Flask

from app import db, ledger
from app.ledger import Posting

RENEWALS, CHUNK = sized(20_000, 2_000), sized(1_000, 500)
ROUNDS, SINGLE = sized(3, 1), sized(300, 20)
_numbers = count(1)


def batch(accounts: list[int], revenue: int) -> list[Posting]:
    """One chunk: a charge of each account."""
    run = uuid4().hex[:12]
    return [Posting(f"{run}:{next(_numbers)}", "charge", [(account, -1490), (revenue, 1490)], description="vps-7 · renewed for 1 month") for account in accounts]


def write(chunks: list[list[Posting]]) -> None:
    """Each chunk in a transaction of its own."""
    for chunk in chunks:
        with db.transaction():
            ledger.post_many(chunk)


def bulk(app: Flask, accounts: list[int], revenue: int, workers: int) -> float:
    """Renewals a second when so many workers share the chunks."""
    chunks = [batch(accounts[first : first + CHUNK], revenue) for first in range(0, RENEWALS, CHUNK)]

    def work(mine: list[list[Posting]]) -> None:
        with app.app_context():
            write(mine)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, [chunks[n::workers] for n in range(workers)]))
    return RENEWALS / (time.perf_counter() - start)


def one_by_one(accounts: list[int], revenue: int) -> float:
    """The same, a transaction each."""
    ones = iter(batch(accounts[:SINGLE], revenue))
    return rate(lambda: write([[next(ones)]]), SINGLE)


def several(app: Flask, accounts: list[int], revenue: int, clients: int) -> list[BaseException]:
    """The same accounts by several clients at once, each in another order; what went wrong."""
    wrong: list[BaseException] = []

    def run(turn: int) -> None:
        with app.app_context():
            try:
                write([batch(accounts[turn::-1] + accounts[turn + 1 :], revenue) for _ in range(3)])
            except Exception as error:  # noqa: BLE001 - reported by the caller
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(400 * turn,)) for turn in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def fill(admin: psycopg.Connection) -> tuple[list[int], int]:
    """As many tracked accounts as renewals, and one revenue account for all of them."""
    admin.execute("insert into customers (currency, created_at) select 'EUR', now() from generate_series(1, %s)", (RENEWALS,))
    admin.execute("insert into accounts (kind, customer_id, currency, tracked) select 'debt', id, 'EUR', true from customers order by id")
    (revenue,) = admin.execute("insert into accounts (kind, currency, tracked) values ('revenue', 'EUR', false) returning id").fetchone()  # type: ignore[misc]
    admin.execute("vacuum analyze")
    return [row[0] for row in admin.execute("select id from accounts where kind = 'debt' order by id").fetchall()], revenue


def main() -> int:
    """Print the rate, one at a time beside it; 1 when a claim is not kept."""
    verdict = Verdict()
    with house() as (app, address):
        with connected(address) as admin:
            accounts, revenue = fill(admin)
        write([batch(accounts[:CHUNK], revenue)])
        with connected(address) as admin:
            admin.execute("vacuum analyze")
        found = best({"one": lambda: bulk(app, accounts, revenue, 1), "two": lambda: bulk(app, accounts, revenue, 2), "single": lambda: one_by_one(accounts, revenue)}, ROUNDS)
        print(f"{RENEWALS:,} renewals in chunks of {CHUNK:,}: {found['one']:,.0f} /s by one worker, {found['two']:,.0f} /s by two", end="")
        print(f"; one at a time {found['single']:,.0f} /s ({found['one'] / found['single']:.0f} ×)")
        verdict.claim("renewals a second, two workers", found["two"], 20_000, "/s")
        verdict.exact("errors of four clients on the same accounts in different orders", several(app, accounts[:2_000], revenue, 4), [])
        verdict.exact("faults afterwards", len(list(ledger.check())), 0)
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
