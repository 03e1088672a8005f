"""The two commands: what they say when something is missing, and one whole start."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import _run
import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import make_url

from tests.test_config import SELLER

HOUSE = Path(__file__).parent.parent
TOOLS = ("sh", "dirname", "uname", "cat", "grep", "mkdir", "rm", "tail", "sha256sum", "flock", "ls")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a house with this environment; what a test leaves running is stopped."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "SECRET_KEY", "BASE_URL"}}
    command = [sys.executable, str(HOUSE / "bin/_run.py")]
    houses = []

    def begin(*words: str, **environ: str) -> "subprocess.Popen[str]":
        houses.append(subprocess.Popen([*command, *words], env={**inherited, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return houses[-1]

    yield begin
    for house in houses:
        house.terminate()
        house.communicate(timeout=30)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A clone on a machine that has apt-get, but neither Python nor any rights; its PATH is `path`."""
    (tmp_path / "bin").mkdir()
    shutil.copy(HOUSE / "bin/setup", tmp_path / "bin")
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(HOUSE / name, tmp_path)
    path = tmp_path / "path"
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or "/bin/false")
    fake(path / "id", "echo 1000")
    fake(path / "apt-get", "exit 100")
    fake(path / "sudo", "exit 1")
    return tmp_path


def fake(program: Path, says: str) -> None:
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)


def setup(clone: Path, needs: str = "run") -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": str(clone / "path"), "HOME": str(clone), "needs": needs}
    return subprocess.run(["/bin/sh", str(clone / "bin/setup")], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("needs", "browser"), [("run", ""), ("dev", " chromium")])
def test_without_rights_what_is_missing_is_named_with_the_line_that_installs_it(bare, needs, browser):
    done = setup(bare, needs)
    assert done.returncode == 1
    packages = f"python3 python3-venv libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0{browser}"
    assert f"    sudo apt-get install -y --no-install-recommends {packages}\n" in done.stderr
    assert not (bare / ".venv").exists()


def test_root_installs_what_is_missing_and_is_told_when_that_did_not_help(bare):
    fake(bare / "path/id", "echo 0")
    fake(bare / "path/env", 'shift; exec "$@"')
    fake(bare / "path/apt-get", f'echo "$@" >> {bare}/asked')
    done = setup(bare)
    assert done.returncode == 1
    assert "install -y -q --no-install-recommends python3 python3-venv" in (bare / "asked").read_text()
    assert "Still missing after the installation" in done.stderr


def test_a_failed_installation_shows_why(bare):
    fake(bare / "path/id", "echo 0")
    fake(bare / "path/apt-get", "echo 'E: no such host'; exit 100")
    done = setup(bare)
    assert done.returncode == 1
    assert "E: no such host" in done.stderr


def test_the_newest_schema_is_what_alembic_says():
    heads = set(ScriptDirectory(HOUSE / "migrations").get_heads())
    assert _run._newest_versions() == heads


def test_a_busy_port_is_one_sentence(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(PORT=str(port))
        output, errors = done.communicate(timeout=60)
    assert done.returncode == 1
    assert errors == f"Port {port} on 127.0.0.1 cannot be used: another program listens there. Choose another one: PORT={port + 1} bin/run\n"
    assert output == ""


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PORT": "http"}, "PORT=http is not a port"),
        ({"HOST": "999.1.1.1"}, "HOST=999.1.1.1 is not an address"),
        ({"HOST": "nowhere.invalid"}, "HOST=nowhere.invalid is no address of this machine"),
        ({"HOST": "203.0.113.5"}, "HOST=203.0.113.5 is no address of this machine"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL must begin with postgresql://"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "The database does not answer"),
        ({"DATABASE_URL": "postgresql://x", "STRIPE_SECRET_KEY": "sk_test_1"}, "STRIPE_WEBHOOK_SECRET is empty"),
    ],
)
def test_a_wrong_setting_is_one_sentence(start, environ, sentence):
    done = start(**{"PORT": str(free_port()), **environ})
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 1
    assert sentence in errors
    assert "Traceback" not in errors


@pytest.fixture
def database() -> Iterator[str]:
    """An empty database for a house of its own."""
    server = make_url(os.environ["TEST_DATABASE_URL"])
    name = f"client_area_run_{os.getpid()}"
    admin = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield server.set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_whole_start_opens_the_house_and_ctrl_c_closes_it(start, database):
    port = str(free_port())
    first = start(PORT=port, DATABASE_URL=database)
    assert "demo      demo-client-area" in read_until(first, "its log")
    assert page(port, "/login")[0] == 200
    stop(first)
    written = _run.LOG.read_bytes()
    assert b'"route": "/login"' in written
    second = start(PORT=port, DATABASE_URL=database)
    assert "Bringing the database" not in read_until(second, "its log"), "the second start has nothing to prepare"
    status, body = page(port, "/login")
    assert (status, b"password" in body) == (200, True)
    assert _run.LOG.read_bytes().startswith(written), "a start adds to the log of the one before"
    assert (_run.LOG.stat().st_mode & 0o777, _run.LOG.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    who_is_killed_is_replaced(second.pid, port)
    stop(second)
    one_part_runs_alone(start, port, database)


def one_part_runs_alone(start: Start, port: str, database: str) -> None:
    web = start("web", PORT=port, DATABASE_URL=database, WEB_WORKERS="1")
    read_until(web, "its log")
    assert page(port, "/login")[0] == 200
    (server,) = parts(web.pid)
    assert len([words for words in parts(server).values() if "granian" in words]) == 1
    jobs = start("jobs", PORT=port, DATABASE_URL=database)
    assert "The jobs are running" in read_until(jobs, "its log")
    (words,) = parts(jobs.pid).values()
    assert "jobs run" in words
    stop(jobs)
    stop(web)


def test_a_part_nobody_knows_is_one_sentence(start):
    done = start("webb")
    output, errors = done.communicate(timeout=60)
    assert (done.returncode, output, errors) == (2, "", _run.USAGE + "\n")


def test_a_large_log_is_put_aside_and_the_oldest_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setattr(_run, "LOG", tmp_path / "log" / "x.log")
    monkeypatch.setattr(_run, "LARGEST_LOG", 100)
    with _run._open_log() as stream:
        for number in range(8):
            stream.write(f"{number}".encode() * 100)
            stream.flush()
            _run._rotate()
        stream.write(b"still the same file")
        stream.flush()
        _run._rotate()
    assert _run.LOG.read_bytes() == b"still the same file"
    older = [_run.LOG.with_name(f"x.log.{number}") for number in range(1, 7)]
    assert [file.read_text()[0] for file in older if file.exists()] == ["7", "6", "5", "4", "3"]
    assert {file.stat().st_mode & 0o777 for file in older if file.exists()} == {0o600}


def test_a_database_that_is_newer_is_left_as_it_is(start, database):
    port = str(free_port())
    first = start("jobs", PORT=port, DATABASE_URL=database)
    read_until(first, "its log")
    stop(first)
    with psycopg.connect(make_url(database).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    second = start("jobs", PORT=port, DATABASE_URL=database)
    assert "The database is newer than this program" in read_until(second, "its log")
    stop(second)


LIVE = {
    "STRIPE_SECRET_KEY": "rk_live_1",
    "STRIPE_WEBHOOK_SECRET": "whsec_1",
    "BASE_URL": "https://billing.example.com",
    "MAIL_URL": "smtps://mail.example.com",
    **SELLER,
}


def test_a_broken_off_demo_is_written_again_by_who_waited_and_does_not_go_live(start, database):
    first = start(PORT=str(free_port()), DATABASE_URL=database)
    read_until(first, "Writing the demo's history")
    second = start(PORT=str(free_port()), DATABASE_URL=database)
    read_until(second, "Another start prepares this database; waiting for it")
    with psycopg.connect(make_url(database).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True) as connection:
        eventually(lambda: connection.execute("select 1 from users where login = 'demo'").fetchone())
    stop(first)
    said = read_until(second, "its log")
    assert "The demo's history was broken off while it was written; writing it again" in said
    assert "demo      demo-client-area" in said
    stop(second)
    live = start(PORT=str(free_port()), DATABASE_URL=database, **LIVE)
    output, errors = live.communicate(timeout=60)
    assert (live.returncode, output) == (1, "")
    assert "this database holds logins of the demo" in errors
    assert len(errors.splitlines()) == 1
    served = subprocess.run(
        [sys.executable, "-c", "import wsgi"], env={**os.environ, "DATABASE_URL": database, "SECRET_KEY": "k" * 48, **LIVE}, cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert (served.returncode, "flask --app wsgi demo remove" in served.stderr) == (1, True)


def who_is_killed_is_replaced(house: int, port: str) -> None:
    before = parts(house)
    web, jobs = (next(pid for pid, words in before.items() if word in words) for word in ("granian", "jobs run"))
    for pid in (*parts(web), jobs):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: page(port, "/login")[0] == 200 and any("jobs run" in words for pid, words in parts(house).items() if pid != jobs))
    assert web in parts(house)


def test_killed_outright_the_house_leaves_the_port_free(start, database):
    port = str(free_port())
    house = start(PORT=port, DATABASE_URL=database)
    read_until(house, "its log")
    house.kill()
    house.wait()
    deadline = time.monotonic() + 20
    while listens(port) and time.monotonic() < deadline:
        time.sleep(0.05)  # asking without a pause would keep the dying house from the processor
    assert not listens(port)


REVIVAL = """
import os, pathlib, signal, subprocess, sys, threading, time
import psycopg, _postgres, _run
_run.LOG = pathlib.Path(os.devnull)
TIMES = 20
def again():
    started.append(subprocess.Popen(["sleep", "600"]))
    return started[-1]
def answers():
    try:
        psycopg.connect(cluster.url().replace("+psycopg", "")).close()
    except psycopg.OperationalError:
        return False
    return True
def kill():
    for number in range(TIMES):
        server, known = cluster.postmaster(), len(started)
        for victim in (server, started[-1].pid) if number % 2 else (started[-1].pid, server):
            os.kill(victim, signal.SIGKILL)
        until = time.monotonic() + 60
        while not (len(started) > known and cluster.postmaster() not in (None, server) and answers()):
            if time.monotonic() > until:
                print("It stays down after", number)
                break
            time.sleep(0.02)
    print("It was back", len(started) - 1, "times, its log begins", cluster.log.read_text().count("starting PostgreSQL"))
    web.kill()
_run.LONGEST_PAUSE_S = 0.2
with _postgres.throwaway() as cluster:
    started = []
    web, first = subprocess.Popen(["sleep", "600"]), again()
    threading.Thread(target=kill, daemon=True).start()
    try:
        _run._stay(web, first, cluster, again)
    except _run.StartError as error:
        print(str(error).partition(",")[0])
    started[-1].kill()
"""


def test_a_killed_database_and_killed_jobs_are_always_back_and_the_web_server_stays():
    environ = {**os.environ, "PYTHONPATH": str(HOUSE / "bin")}
    done = subprocess.run([sys.executable, "-c", REVIVAL], env=environ, capture_output=True, text=True, timeout=170, check=False)
    said = ["It was back 20 times, its log begins 21", "The web server ended by itself"]
    assert done.stdout.splitlines() == said, done.stderr


def test_a_part_that_ends_again_and_again_waits_longer_each_time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(_run.time, "monotonic", lambda: now[0])
    pause, waits = _run.Pause("The jobs process"), []
    for _ in range(9):
        began = now[0]
        while not pause.over():
            now[0] += 0.5
        waits.append(now[0] - began)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now[0] += 3600
    assert pause.over(), "one that lived long is started again at once"


def parts(pid: int) -> dict[int, str]:
    """The processes that this one started, with their words."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return {int(row[0]): row[2] for row in rows if row[1] == str(pid)}


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is; while something is being started again, it may refuse to answer."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if true():
                return
        time.sleep(0.1)
    raise AssertionError("never")


def listens(port: str) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", int(port))) == 0


def read_until(process: "subprocess.Popen[str]", mark: str) -> str:
    said = ""
    for line in process.stdout:
        said += line
        if mark in line:
            return said
    raise AssertionError(said + process.stderr.read())


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""


def page(port: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
