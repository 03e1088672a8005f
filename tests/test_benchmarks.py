"""Every benchmark starts, at a tiny size: its figures are for people, that it runs is for the tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

HOUSE = Path(__file__).parent.parent
BENCHMARKS = {
    "bank_import": ["--lines", "40"],
    "formats": [],
    "invoice_list": ["--bills", "400"],
    "ledger_bulk": [],
    "ledger_check": ["--entries", "4000"],
    "ledger_post": [],
    "ledger_reads": ["--entries", "8000"],
    "pages": ["--movements", "80"],
    "pdf": [],
    "pdf_isolation": [],
    "seed": ["--customers", "3", "--months", "2"],
    "webhooks": ["--payments", "10", "--connections", "2"],
}


def test_every_benchmark_is_among_them() -> None:
    files = {file.stem for file in (HOUSE / "benchmarks").glob("*.py")}
    assert {name for name in files if not name.startswith("_")} == set(BENCHMARKS)


@pytest.fixture
def database() -> Iterator[str]:
    """A migrated database of its own."""
    server = make_url(os.environ["TEST_DATABASE_URL"])
    name = f"client_area_benchmark_{uuid4().hex[:8]}"
    admin = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    address = server.set(database=name).render_as_string(hide_password=False)
    environ = os.environ | {"DATABASE_URL": address, "SECRET_KEY": "b" * 48}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
    subprocess.run(command, cwd=HOUSE, env=environ, check=True, capture_output=True)
    yield address
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name: str, database: str) -> None:
    environ = os.environ | {
        "BENCH_TINY": "1",
        "DATABASE_URL": database,
        "BENCH_DATABASE_URL": os.environ["TEST_DATABASE_URL"],
        "SECRET_KEY": "b" * 48,
    }
    command = [sys.executable, str(HOUSE / "benchmarks" / f"{name}.py"), *BENCHMARKS[name]]
    done = subprocess.run(command, cwd=HOUSE, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr  # 1: a figure that this size cannot reach
    assert "Traceback" not in done.stderr, done.stderr
    assert '"event": "exception"' not in done.stderr, done.stderr
    assert done.stdout
