"""What two PDFs drawn at once do to everybody else's pages.

    DATABASE_URL=… python benchmarks/pdf_isolation.py [--workers N]

The house serves as `bin/run` starts it. One customer reads pages, first alone, then while two others keep asking for invoices that nobody
has printed yet. Prints both medians and p99s and their ratio (wanted: p99 at most doubled). Needs a migrated database of its own.
"""

import argparse
import http.client
import os
import sys
import threading
import time
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import pages
import pdf
from _size import sized

import config
from app import create_app, customers

READS = sized(600, 30)
PAPERS = sized(60, 6)


def reader(port: int, token: str, reads: int) -> list[float]:
    """Milliseconds of so many pages, one after another."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    runs = []
    for _ in range(reads):
        start = time.perf_counter()
        connection.request("GET", "/transactions", headers={"Cookie": f"sid={token}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        runs.append((time.perf_counter() - start) * 1000)
    connection.close()
    return runs


def download(port: int, token: str, numbers: list[str], stop: threading.Event, printed: list[int]) -> None:
    """Ask for one unprinted invoice after another until told to stop."""
    while numbers and not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/invoices/{numbers.pop()}.pdf", headers={"Cookie": f"sid={token}"})
        answer = connection.getresponse()
        answer.read()
        printed.append(answer.status)
        connection.close()


def main() -> None:
    """Measure and print."""
    settings = config.load(os.environ | {"SECRET_KEY": pages.SECRET})
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=settings.web_workers)
    workers = options.parse_args().workers
    url = os.environ["DATABASE_URL"]
    app = create_app(settings)
    with app.app_context():
        token = pages.somebody(sized(2_000, 40))
        user = customers.create_user(f"bench-{uuid4().hex[:10]}", f"{uuid4().hex}@example.com", "quiet-harbour-lamp", name="Anna", verified=True)
        assert user.customer_id
        customers.update_profile(user.id, user.customer_id, pdf.PROFILE, locale="en", timezone="Europe/Warsaw")
        numbers = [pdf.paid_bill(user.customer_id, 8).number for _ in range(PAPERS)]
        other = customers.open_session(user.id)
    pages.db_analyze(url)
    with pages.serving(url, workers) as port:
        reader(port, token, 100)
        alone = reader(port, token, READS)
        stop, printed = threading.Event(), list[int]()
        loads = [threading.Thread(target=download, args=(port, other, numbers, stop, printed)) for _ in range(2)]
        for load in loads:
            load.start()
        beside = reader(port, token, READS)
        stop.set()
        for load in loads:
            load.join()
    done = printed.count(200)
    assert done, "nothing was printed meanwhile"
    assert set(printed) <= {200, 303}, printed  # 303: the press is taken, and the page says so
    (p50, p99), (p50_beside, p99_beside) = _medians(alone), _medians(beside)
    print(f"{workers} workers; {done} invoices were printed meanwhile, {len(printed) - done} times the press was taken")
    print(f"alone       median {p50:6.2f} ms   p99 {p99:7.2f} ms")
    print(f"beside two  median {p50_beside:6.2f} ms   p99 {p99_beside:7.2f} ms   p99 × {p99_beside / p99:.2f} ({pages.judged(p99_beside / p99, 2)})")


def _medians(runs: list[float]) -> tuple[float, float]:
    cuts = quantiles(runs, n=100)
    return cuts[49], cuts[98]


if __name__ == "__main__":
    main()
