"""Proving the books: entries a second, beside one plain scan that only adds them up; and one flipped bit.

BENCH_DATABASE_URL=postgresql+psycopg://… python benchmarks/ledger_check.py [--entries 400000]
"""

import argparse
import sys
import time

from _books import Verdict, best, connected, house, open_accounts

from app import db, ledger

POST = """
with posted as (
  insert into transfers (reference, kind, description, actor, posted_at)
  select 'charge:' || n, 'charge', 'vps-' || n %% 97 || ' · renewed for 1 month', 'system', '2026-01-01'::timestamptz + n * interval '1 second'
  from generate_series(%(first)s::bigint, %(last)s) n returning id
)
insert into entries (account_id, transfer_id, amount)
select account, id, amount from posted, lateral (values (1 + id * 7919 %% 2000, -1490), (2001, 1490)) line (account, amount) order by id, account
"""


def main() -> int:
    """Print the rates; 1 when a claim is not kept."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--entries", type=int, default=400_000)
    entries = arguments.parse_args().entries
    verdict = Verdict()
    with house() as (_app, address), connected(address) as admin:
        open_accounts(admin)
        start = time.perf_counter()
        for first in range(1, entries // 2, 2_000):
            admin.execute(POST, {"first": first, "last": min(first + 1_999, entries // 2)})
        print(f"{entries:,} entries written, every safeguard on, in {time.perf_counter() - start:.0f} s")
        admin.execute("vacuum analyze")

        def proof() -> float:
            start = time.perf_counter()
            faults = list(ledger.check())
            if faults:
                raise SystemExit(f"the books are wrong: {faults[0]}")
            return entries / (time.perf_counter() - start)

        def scan() -> float:
            start = time.perf_counter()
            db.rows("select account_id, sum(amount) from entries group by account_id")
            return entries / (time.perf_counter() - start)

        found = best({"proof": proof, "scan": scan}, 3)
        print(f"proved {found['proof']:,.0f} entries/s; a plain sum by account reads {found['scan']:,.0f}/s ({found['proof'] / found['scan']:.2f} of it)")
        verdict.claim("entries a second", found["proof"] / 1e6, 0.4, "million/s")
        admin.execute("set session_replication_role = replica")
        admin.execute("update entries set hash = set_bit(hash, 100, 1 - get_bit(hash, 100)) where transfer_id = %s and account_id <> 2001", (entries // 4,))
        faults = list(ledger.check())
        verdict.exact("faults after one flipped bit of a hash", [fault.kind for fault in faults[:1]], ["chain"])
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
