"""A month of a busy bank account: a camt.053 file of 10,000 lines, nine of ten for a bill of their own, the rest by login or for a person to look at.

    DATABASE_URL=… python benchmarks/bank_import.py [--lines 10000]

Writes customers, bills and the import into the database it is given, which has to be migrated; one of its own is best. Prints seconds and
lines a second, reading included.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from _size import sized

import config
from app import bank, create_app, customers, db, invoicing, remittance
from app.invoicing import Draft, Line
from tests.banks import GERMAN, Transfer, camt

CUSTOMERS = sized(200, 5)
PROFILE = customers.Profile(name="Anna Kowalska", street="Turmstraße 12", postcode="10559", city="Berlin", country="DE", currency="EUR")


def main() -> None:
    """Prepare, import, import again, say how long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    asked = parser.parse_args()
    app = create_app(config.Settings(database_url=os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), secret_key="b" * 48))
    with app.app_context():
        data = camt(transfers(asked.lines), GERMAN)
        print(f"{asked.lines:,} lines, {len(data) / 1e6:.1f} MB")
        for what in ("first", "again"):
            started = time.perf_counter()
            report = bank.import_file(data, "benchmark.xml")
            seconds = time.perf_counter() - started
            print(f"{what:<6} {seconds:6.2f} s  {asked.lines / seconds:8,.0f} lines/s  {report.counts}")


def transfers(count: int) -> list[Transfer]:
    """What the bank booked."""
    people = [new_customer() for _ in range(CUSTOMERS)]
    bills = []
    for first in range(0, count * 9 // 10, 1_000):
        with db.transaction():
            drafts = [draft(people[place % CUSTOMERS][1], 10_00 + place) for place in range(first, min(first + 1_000, count * 9 // 10))]
            bills += invoicing.issue_many(drafts)
    batch = uuid4().hex[:8]
    paid = [
        Transfer(bill.total, structured=bill.payment_reference or "", iban=f"DE{bill.customer_id:020d}", end_to_end=f"{batch}-{place}", reference=f"{batch}{place}")
        for place, bill in enumerate(bills)
    ]
    rest = range(count - len(paid))
    others = [Transfer(7_00, text=remittance.for_login(people[place % CUSTOMERS][0]) if place % 2 else "thank you very much", reference=f"{batch}x{place}") for place in rest]
    return paid + others


def draft(customer_id: int, minor: int) -> Draft:
    """A top-up to be paid."""
    return Draft(customer_id, "Account funds", "EUR", (Line("Account funds", minor),), kind="topup")


def new_customer() -> tuple[str, int]:
    """A login of this benchmark and its customer."""
    login = f"bench-{uuid4().hex[:10]}"
    user = customers.create_user(login, f"{login}@example.com", "quiet-harbour-lamp", name="Anna", password_hash="x")
    assert user.customer_id
    customers.update_profile(user.id, user.customer_id, PROFILE, locale="en", timezone="Europe/Berlin")
    return login, user.customer_id


if __name__ == "__main__":
    main()
