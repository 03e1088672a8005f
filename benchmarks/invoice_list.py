"""The list of invoices: a customer with 500 bills among few and among a million, and one who has fifty thousand of them.

    DATABASE_URL=… python benchmarks/invoice_list.py [--bills 1000000]

Fills the database it is given with that many bills (plain rows, a few minutes for a million), then prints medians of 60 and the ratio
of the full house to the empty one. A database of its own is best.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from _size import sized

import config
from app import clock, create_app, customers, db, invoicing
from app.invoicing import Draft, Filter, Line, Settlement

EACH = sized(500, 70)
WHALE = sized(50_000, 200)
FILTERS = {
    "newest 25": {},
    "unpaid": {"status": "unpaid"},
    "paid, searched": {"status": "paid", "q": "vps-7"},
    "by amount and date": {"min": "10", "from": "2020-01-01"},
}

_FILL = """
insert into bills (customer_id, beneficiary_id, kind, status, proforma_number, invoice_number, title, currency, net, tax, total, tax_category, tax_rate, seller, buyer,
  issued_at, due_at, paid_at, invoiced_at, settled_by, payment, words)
select customer_id, customer_id, kind, status, %(batch)s || '-P' || n, case when invoice_number is not null then %(batch)s || '-I' || n end, title, currency, net, tax, total,
  tax_category, tax_rate, '{}', '{}', issued_at - n * interval '1 minute', due_at, paid_at, invoiced_at, settled_by, payment, words
from bills, generate_series(%(first)s::int, %(last)s::int) n where id = %(model)s
"""


def new_customer() -> int:
    """A customer of this benchmark."""
    user = customers.create_user(f"bench-{uuid4().hex[:10]}", f"{uuid4().hex}@example.com", "quiet-harbour-lamp", name="Anna", verified=True)
    assert user.customer_id
    profile = customers.Profile(name="Anna Kowalska", street="Turmstraße 12", postcode="10559", city="Berlin", country="DE", currency="EUR")
    customers.update_profile(user.id, user.customer_id, profile, locale="en", timezone="Europe/Berlin")
    return user.customer_id


def give(customer_id: int, count: int) -> None:
    """Bills through the verbs, four of five paid."""
    with db.transaction():
        bills = invoicing.issue_many([Draft(customer_id, f"vps-{n} · VPS NVMe-4", "EUR", (Line("VPS NVMe-4", 10_00 + n),), months=1) for n in range(count)])
        invoicing.settle_many([(bill, Settlement(clock.now(), "Account balance", source="balance")) for bill in bills[: count * 4 // 5]])


def multiply(customer_id: int, count: int) -> None:
    """So many plain copies of a customer's newest paid bill."""
    model = db.scalar("select id from bills where customer_id = %(id)s and status = 'paid' order by id desc limit 1", id=customer_id)
    batch = uuid4().hex[:8]
    with db.transaction():
        db.execute(_FILL, batch=batch, first=1, last=count, model=model)


def took(work: Callable[[], object], times: int = 60) -> float:
    """Milliseconds, the median of so many runs."""
    runs = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        runs.append((time.perf_counter() - start) * 1000)
    return median(runs)


def measure(customer_id: int) -> dict[str, float]:
    """The list by each filter, and a page far down."""
    found = {name: took(lambda query=query: invoicing.search(customer_id, Filter.from_query(query))) for name, query in FILTERS.items()}  # type: ignore[misc]
    deep = db.scalar("select coalesce(invoice_number, proforma_number) from bills where customer_id = %(id)s order by issued_at, id offset 60 limit 1", id=customer_id)
    return found | {"a page far down": took(lambda: invoicing.search(customer_id, Filter(before=deep)))}


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bills", type=int, default=1_000_000)
    bills = parser.parse_args().bills
    app = create_app(config.load(os.environ | {"SECRET_KEY": "b" * 48}))
    with app.app_context():
        one = new_customer()
        give(one, EACH)
        few = measure(one)
        whale = new_customer()
        give(whale, 10)
        multiply(whale, WHALE)
        other = new_customer()
        for _ in range(max(0, bills - WHALE) // WHALE):
            give(other, 5)
            multiply(other, WHALE)
            other = new_customer()
        with db.transaction():
            db.execute("analyze bills")
        many, big = measure(one), measure(whale)
        total = db.scalar("select count(*) from bills")
    print(f"{'':<22}{'500 alone':>12}{'among ' + format(total, ','):>18}{'ratio':>8}{'50,000 own':>14}")
    for name in few:
        print(f"{name:<22}{few[name]:>9.2f} ms{many[name]:>15.2f} ms{many[name] / few[name]:>8.2f}{big[name]:>11.2f} ms")


if __name__ == "__main__":
    main()
