"""The demo's year for a thousand customers: how long it takes, and what of it a second.

    DATABASE_URL=… python benchmarks/seed.py [--customers 1000 --months 12]

Needs a migrated, empty database of its own. Wanted: a thousand customers and twelve months in under three minutes on two cores.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import config
from app import create_app, db, demo, ledger

COUNTED = {
    "customers": "select count(*) from customers",
    "payments": "select count(*) from payments",
    "bills": "select count(*) from bills",
    "entries": "select count(*) from entries",
}


def main() -> None:
    """Seed, count, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--months", type=int, default=12)
    asked = parser.parse_args()
    app = create_app(config.load({**os.environ, "SECRET_KEY": "b" * 48}))
    with app.app_context():
        start, cpu = time.perf_counter(), time.process_time()
        demo.seed(asked.customers, asked.months, processor=app.extensions["sandbox_processor"])
        took, own = time.perf_counter() - start, time.process_time() - cpu
        print(f"{asked.customers:,} customers, {asked.months} months: {took:.0f} s ({'ok' if took <= 180 else 'MISSED'}, 180 wanted), of which {own:.0f} s this process")
        for word, sql in COUNTED.items():
            count = db.scalar(sql)
            print(f"  {word:<10}{count:>10,}{count / took:>10,.0f} a second")
        start, faults = time.perf_counter(), list(ledger.check())
        print(f"  ledger check: {len(faults)} faults, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
