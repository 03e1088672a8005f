"""What a PDF costs: drawn warm, started cold, and served from where it is stored.

    DATABASE_URL=… python benchmarks/pdf.py

Prints medians, and each as a ratio of drawing one warm. Writes one customer and a few bills into the database it is given.
"""

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
from app.invoicing import Line, Settlement, paper, press

PROFILE = customers.Profile(name="Anna Kowalska", street="ul. Piotrkowska 104", postcode="90-926", city="Łódź", country="PL", currency="EUR")


def paid_bill(customer_id: int, lines: int) -> invoicing.Bill:
    """A settled bill of so many lines."""
    day = clock.today()
    with db.transaction():
        bill = invoicing.issue_service_bill(customer_id, "Services", "EUR", [Line(f"VPS NVMe-4 · vps-{n}", 20_00, period_start=day, period_end=day) for n in range(lines)])
        invoicing.settle(bill, Settlement(clock.now(), "Account balance", source="balance"))
    return bill


def took(work: Callable[[], object], times: int) -> float:
    """Milliseconds, the median of so many runs."""
    runs = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        runs.append((time.perf_counter() - start) * 1000)
    return median(runs)


def main() -> None:
    """Measure and print."""
    app = create_app(config.load(os.environ | {"SECRET_KEY": "b" * 48}))
    with app.app_context():
        user = customers.create_user(f"bench-{uuid4().hex[:10]}", f"{uuid4().hex}@example.com", "quiet-harbour-lamp", name="Anna", verified=True)
        assert user.customer_id
        customers.update_profile(user.id, user.customer_id, PROFILE, locale="en", timezone="Europe/Warsaw")
        bill, long = paid_bill(user.customer_id, 8), paid_bill(user.customer_id, sized(300, 20))
        content = db.scalar("select content from documents where bill_id = %(id)s and kind = 'invoice'", id=bill.id)
        many = db.scalar("select content from documents where bill_id = %(id)s and kind = 'invoice'", id=long.id)
        press.to_pdf(paper.sheet(content))
        warm = took(lambda: press.to_pdf(paper.sheet(content)), sized(15, 1))
        number = bill.number
        first = took(lambda: invoicing.pdf(user.customer_id, number), 1)
        rows = {
            "one page of 8 lines, warm": warm,
            "300 lines, warm": took(lambda: press.to_pdf(paper.sheet(many)), 2),
            "its HTML alone": took(lambda: paper.sheet(content), 20),
            "asked for first: a press is started": first,
            "stored copy": took(lambda: invoicing.pdf(user.customer_id, number), sized(200, 5)),
        }
    for name, ms in rows.items():
        print(f"{name:<40}{ms:>10.2f} ms{ms / warm:>9.3f} x")


if __name__ == "__main__":
    main()
