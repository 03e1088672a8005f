"""The embedded server: it survives what a laptop does to it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import _postgres
import psycopg
import pytest
from _postgres import Cluster


@pytest.fixture(scope="module")
def template() -> Iterator[Cluster]:
    """A cluster that was initialised and served once; its data is copied for each test."""
    with _postgres.throwaway() as cluster:
        cluster.stop()
        yield cluster


@pytest.fixture
def cluster(template: Cluster) -> Iterator[Cluster]:
    home = template.home / "copy"
    fresh = replace(template, home=home, socket=home / "server")
    fresh.private.mkdir(parents=True)
    shutil.copytree(template.data, fresh.data)
    for path in (fresh.private, fresh.data, *fresh.data.rglob("*")):
        if template.user:
            os.chown(path, template.user.pw_uid, template.user.pw_gid)
    yield fresh
    fresh.stop()
    shutil.rmtree(home)


def ask(cluster: Cluster, statement: str) -> object:
    with psycopg.connect(cluster.url().replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def kill_outright(cluster: Cluster, *, workers: bool) -> int:
    """Kill the server without a word; its workers too, or leave them to notice by themselves."""
    pid = cluster.postmaster()
    assert pid
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] if workers else []
    for victim in (pid, *children):
        os.kill(victim, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


@pytest.mark.parametrize("workers", [True, False], ids=["with its workers", "alone"])
def test_a_killed_server_comes_back_with_its_data(cluster, workers):
    with cluster.serving():
        ask(cluster, "create table kept as select 42 as n")
        ask(cluster, "checkpoint")
        kill_outright(cluster, workers=workers)
        assert cluster.postmaster() is None
        assert (cluster.data / "postmaster.pid").exists()
        with cluster.serving():
            assert ask(cluster, "select n from kept") == 42


def test_a_left_over_number_that_is_somebody_elses_now_does_not_stop_a_start(cluster):
    with cluster.serving():
        kill_outright(cluster, workers=True)
    file = cluster.data / "postmaster.pid"
    file.write_text("\n".join([str(os.getppid()), *file.read_text().splitlines()[1:]]) + "\n")
    with cluster.serving():
        assert ask(cluster, "select 1") == 1
        assert cluster.postmaster() != os.getppid()


def test_a_killed_server_that_nobody_waited_for_does_not_stop_a_start(cluster):
    with cluster.serving():
        pid = cluster.postmaster()
        _postgres._children.pop(pid)  # as of a server that another one of us started
        os.kill(pid, signal.SIGKILL)
        while cluster.postmaster() is not None:
            time.sleep(0.01)
        os.kill(pid, 0)
        before = cluster.log.read_text()
        with cluster.serving():
            assert ask(cluster, "select 1") == 1
        assert cluster.log.read_text().startswith(before), "its log goes on"
        os.waitpid(pid, 0)


@pytest.mark.parametrize("text", ["", "\n", "no number\n"])
def test_a_damaged_pid_file_does_not_stop_a_start(cluster, text):
    (cluster.data / "postmaster.pid").write_text(text)
    with cluster.serving():
        assert ask(cluster, "select 1") == 1


def test_starts_at_the_same_time_share_one_server_and_the_last_to_leave_stops_it(cluster):
    everyone_in = threading.Barrier(3)
    servers = []

    def visit() -> None:
        with cluster.serving():
            servers.append(cluster.postmaster())
            everyone_in.wait(timeout=30)

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    with cluster.serving():
        everyone_in.wait(timeout=30)
        for visitor in visitors:
            visitor.join()
        assert len(set(servers)) == 1
        assert cluster.postmaster() == servers[0]
        assert ask(cluster, "select 1") == 1
    assert cluster.postmaster() is None


def test_nobody_else_may_enter(cluster):
    with cluster.serving():
        assert cluster.private.stat().st_mode & 0o777 == 0o700
        assert ask(cluster, "show listen_addresses") == ""


def test_a_start_that_fails_says_why(cluster):
    shutil.rmtree(cluster.data / "global")
    with pytest.raises(_postgres.PostgresError, match="pg_control"), cluster.serving():
        pass


def test_a_deep_clone_gets_a_short_socket(tmp_path):
    deep = tmp_path / ("x" * 120) / "server"
    socket = _postgres._socket_folder(deep)
    assert len(os.fsencode(socket / ".s.PGSQL.5432")) <= _postgres.SOCKET_PATH_BYTES
    assert socket != _postgres._socket_folder(deep.parent / "other")


def test_a_throwaway_left_by_a_killed_run_is_removed_by_the_next():
    program = [sys.executable, _postgres.__file__, "sh", "-c", "echo $TEST_DATABASE_URL; exec sleep 600"]
    killed = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True)
    left = Path(killed.stdout.readline().rpartition("=")[2].strip()).parent
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert left.exists()
    with _postgres.throwaway():
        assert not left.exists()


def test_the_command_beside_a_throwaway_gives_its_exit_code_and_nothing_stays():
    done = subprocess.run([sys.executable, _postgres.__file__, "sh", "-c", "echo $TEST_DATABASE_URL; exit 7"], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert not Path(done.stdout.rpartition("=")[2].strip()).exists()


def test_a_terminated_run_hands_the_signal_on_and_cleans_up():
    program = [sys.executable, _postgres.__file__, "sh", "-c", "echo $TEST_DATABASE_URL; exec sleep 600"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as run:
        home = Path(run.stdout.readline().rpartition("=")[2].strip()).parent
        run.terminate()
        assert run.wait(timeout=30) == -signal.SIGTERM % 256
    assert not home.exists()


def test_a_run_terminated_before_its_command_began_hands_the_signal_on_as_well(monkeypatch):
    @contextmanager
    def terminated_while_starting():
        os.kill(os.getpid(), signal.SIGTERM)
        yield SimpleNamespace(url=str)

    monkeypatch.setattr(_postgres, "throwaway", terminated_while_starting)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        assert _postgres.main(["sleep", "600"]) == -signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_programs_are_copied_once_and_can_be_read_by_everyone(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    programs = _postgres._reachable(home)
    before = programs.stat().st_ino
    assert _postgres._reachable(home).stat().st_ino == before
    closed = [path for path in home.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o444 != 0o444]
    assert closed == []
    assert subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.startswith("postgres (PostgreSQL) 18")


def test_data_stays_with_a_clone_that_moved_and_a_new_clone_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(_postgres, "SHARED", tmp_path / "shared")
    clone = tmp_path / "clone"
    clone.mkdir()
    data = _postgres._root_home(clone / "instance/postgres")
    assert _postgres._root_home(clone / "instance/postgres") == data
    moved = clone.rename(tmp_path / "moved")
    assert _postgres._root_home(moved / "instance/postgres") == data
    clone.mkdir()
    assert _postgres._root_home(clone / "instance/postgres") != data
