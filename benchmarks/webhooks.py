"""10,000 webhooks of five processors, shuffled and repeated, against the web server as bin/run starts it; then worked by the job, and counted.

    BENCH_DATABASE_URL=postgresql+psycopg://… python benchmarks/webhooks.py [--payments 2500] [--connections 16]

Four deliveries for each payment, rightly signed, over so many connections that are kept open, each sending the next one when the last was
answered. Prints how many a second were kept, how long the answers took, and whether each payment was credited once. The client, the server and
the database share the machine, so what is judged is the ratio to a limit that is measured in the same run: the same server and requests, and a
function that only keeps them (`_webhook_limit.py`). It plays the processors with the tests' own fakes, so it needs what bin/test installs. The server of BENCH_DATABASE_URL should write to disk (fsync): a throwaway one does not.
"""

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _books import HOUSE, Verdict, connected, house
from _size import sized

import config
from app import customers, db, jobs, ledger
from app.money import Money
from tests.fakes.paypal import authority
from tests.gateways.rigs import Webhook
from tests.pay import begin, topup
from tests.processors import Rig, deliveries, everywhere, ours, theirs

import _run  # isort: skip - in bin, which _books has put on the path

TIMES = 4
CUSTOMERS = sized(50, 3)
PROFILE = customers.Profile(name="Anna Kowalska", street="Turmstraße 12", postcode="10559", city="Berlin", country="DE", currency="EUR")
WANTED_OF_LIMIT, MOST_OF_LIMIT = 0.12, 10
"""How many are kept of those the limit keeps, and how many times as long as there the slowest hundredth may take."""
LIMIT_TABLE = "create table kept_at_the_limit (name bytea primary key, headers text not null, body bytea not null)"
QUIET_PER_S, QUIET_P99_MS = 1_000, 50
"""What is expected of two quiet cores; said, and not judged."""


def main() -> None:
    """Pay, deliver, work, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=2_500)
    parser.add_argument("--connections", type=int, default=16)
    asked = parser.parse_args()
    verdict = Verdict()
    with house() as (app, address), everywhere(app) as rigs:
        settings = config.current()
        pay(rigs, asked.payments)
        url = address.render_as_string(hide_password=False)
        with connected(address) as admin:
            admin.execute(LIMIT_TABLE)
        with serving(rigs, settings, url, "_webhook_limit") as port:
            limit = asyncio.run(deliver(port, prepared(rigs, port, asked.payments), asked.connections))
        with connected(address) as admin:
            admin.execute("drop table kept_at_the_limit")
        with serving(rigs, settings, url, "_webhook_house") as port:
            ours = asyncio.run(deliver(port, prepared(rigs, port, asked.payments), asked.connections))
        tell(verdict, ours, limit, asked.connections)
        count(verdict, rigs, asked.payments)
    sys.exit(not verdict.kept)


def pay(rigs: dict[str, Rig], count: int) -> None:
    """So many top-ups, paid at every processor in turn, of which nobody has told us."""
    people = [customers.create_user(f"bench-{place}", f"bench-{place}@example.com", "quiet-harbour-lamp", name="Anna", password_hash="x") for place in range(CUSTOMERS)]
    for user in people:
        customers.update_profile(user.id, user.customer_id or 0, PROFILE, locale="en", timezone="Europe/Berlin")
    for place in range(count):
        rig = list(rigs.values())[place % len(rigs)]
        payment = begin(topup(people[place % CUSTOMERS], Money(20_00 + place, "EUR")), rig.method)
        rig.pay(payment.gateway_reference or "")


@contextmanager
def serving(rigs: dict[str, Rig], settings: config.Settings, database_url: str, module: str) -> Iterator[int]:
    """The web server with these processors and the application of a module beside this one, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as pretend:
        (Path(pretend) / "chain").write_bytes(authority().chain)
        (Path(pretend) / "roots").write_bytes(authority().roots)
        environ = {**processors(rigs), "SANDBOX": "force", "SECRET_KEY": settings.secret_key, "DATABASE_URL": database_url, "PAYPAL_AUTHORITY": pretend}
        command = [*_run._web("127.0.0.1", port, settings)[:-1], "--working-dir", str(HOUSE), f"benchmarks.{module}:server"]  # noqa: SLF001 - the command of bin/run, its app changed
        with _run._running(command, environ, subprocess.DEVNULL) as web:  # noqa: SLF001
            _run._await_answer("127.0.0.1", port, web)  # noqa: SLF001
            yield port


def processors(rigs: dict[str, Rig]) -> dict[str, str]:
    """What an operator would write into the environment."""
    stripe, paypal, btcpay, nowpayments = (rigs[name].fake for name in ("stripe", "paypal", "btcpay", "nowpayments"))
    return {
        "STRIPE_SECRET_KEY": stripe.secret_key, "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret, "STRIPE_API_BASE": stripe.url,
        "PAYPAL_CLIENT_ID": paypal.client_id, "PAYPAL_SECRET": paypal.secret, "PAYPAL_WEBHOOK_ID": paypal.webhook_id, "PAYPAL_API_BASE": paypal.url,
        "BTCPAY_URL": btcpay.url, "BTCPAY_STORE_ID": btcpay.store_id, "BTCPAY_API_KEY": btcpay.api_key, "BTCPAY_WEBHOOK_SECRET": btcpay.secret,
        "NOWPAYMENTS_API_KEY": nowpayments.api_key, "NOWPAYMENTS_IPN_SECRET": nowpayments.secret, "NOWPAYMENTS_API_BASE": nowpayments.url,
    }  # fmt: skip


def prepared(rigs: dict[str, Rig], port: int, payments: int) -> list[bytes]:
    """Every delivery as the bytes of its request, shuffled."""
    each = payments // len(rigs) * TIMES
    requests = [request(port, name, webhook) for name, rig in rigs.items() for webhook in deliveries(rig, each)]
    random.Random(1).shuffle(requests)
    return requests


def request(port: int, name: str, webhook: Webhook) -> bytes:
    """One POST."""
    body, headers = webhook
    lines = [f"POST /webhooks/{name} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{header}: {value}" for header, value in headers.items()), "", ""]).encode() + body


async def deliver(port: int, requests: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Send them all; the seconds it took, and those of each answer. Stops at anything but 200."""
    waiting, times = iter(requests), []

    async def line() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for said in waiting:
            sent = time.perf_counter()
            writer.write(said)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(field.partition(b":")[2]) for field in head.lower().split(b"\r\n") if field.startswith(b"content-length"))
            body = await reader.readexactly(length)
            times.append(time.perf_counter() - sent)
            if b" 200 " not in head[:16]:
                raise SystemExit(f"{head.decode()}{body.decode()}")
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(line() for _ in range(connections)))
    return time.perf_counter() - started, times


def tell(verdict: Verdict, ours: tuple[float, list[float]], limit: tuple[float, list[float]], connections: int) -> None:
    """How fast they were kept, beside the limit."""
    rates, slowest = {}, {}
    for name, (seconds, times) in {"limit": limit, "ours": ours}.items():
        ranked = sorted(times)
        p50, p99 = (ranked[len(ranked) * share // 100] * 1000 for share in (50, 99))
        rates[name], slowest[name] = len(times) / seconds, p99
        print(f"{name}: {len(times):,} deliveries in {seconds:.1f} s, {rates[name]:,.0f} a second, over {connections} connections; "
              f"answers p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {ranked[-1] * 1000:.0f} ms")  # fmt: skip
    print(f"on two quiet cores expected: {QUIET_PER_S:,} a second, p99 {QUIET_P99_MS} ms")
    verdict.claim("kept in a second, of the limit", rates["ours"] / rates["limit"], WANTED_OF_LIMIT)
    verdict.claim(f"p99 within {MOST_OF_LIMIT} times that of the limit", MOST_OF_LIMIT * slowest["limit"] / slowest["ours"], 1)


def count(verdict: Verdict, rigs: dict[str, Rig], payments: int) -> None:
    """Work the inbox by its job until nothing waits, then count."""
    started, kept = time.perf_counter(), db.scalar("select count(*) from webhooks")
    while db.scalar("select exists (select from webhooks where state = 'new')"):
        jobs.once("webhooks", jobs.JOBS)
    print(f"{kept:,} different ones were worked in {time.perf_counter() - started:.1f} s")
    verdict.exact("webhooks by state", [tuple(row) for row in db.rows("select state, count(*) from webhooks group by 1")], [("done", kept)])
    verdict.exact("payments by state", [tuple(row) for row in db.rows("select state, count(*) from payments group by 1")], [("paid", payments)])
    once = "select count(*) from (select payment_id from transfers where kind = 'topup' group by payment_id having count(*) = 1) each_once"
    verdict.exact("credited once", db.scalar(once), payments)
    verdict.exact("credited in all", db.scalar("select sum(amount) from payments where credited = amount"), sum(20_00 + place for place in range(payments)))
    verdict.exact("what the processors hold for us", {name: theirs(rig) for name, rig in rigs.items()}, {name: ours(name) for name in rigs})
    verdict.exact("faults of the ledger", [str(fault) for fault in ledger.check()], [])


if __name__ == "__main__":
    main()
