"""Starts the house and stays with it: database, schema, demo, web server, clock. ``bin/run`` calls it in the ready environment."""

import ctypes
import errno
import http.client
import os
import platform
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final, NoReturn

import psycopg
from _postgres import PROJECT, Cluster, PostgresError, lasting

sys.path.insert(0, str(PROJECT))
import config

INSTANCE: Final = PROJECT / "instance"
LOG: Final = INSTANCE / "house.log"
WEB_WORKERS: Final = 2
WEB_THREADS: Final = 3
"""One works, the others wait: for the press of a PDF, for a processor. None of them computes meanwhile."""
OLDEST_SERVER: Final = 15
READY_TIMEOUT_S: Final = 60
MOST_ENDS: Final = 3
WITHIN_S: Final = 60
"""A jobs process that ends more often than that in so many seconds has a reason of its own."""
STOP_TIMEOUT_S: Final = 5
WORKER_STOP_TIMEOUT_S: Final = 2
POLL_S: Final = 0.02
UNPRIVILEGED: Final = 1024
PREPARING: Final = 72011
"""The lock in the database under which a start prepares it."""
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG: Final = 1


class StartError(RuntimeError):
    """Why the house cannot start or go on, as one sentence for the person at the keyboard."""


def start() -> None:
    """Everything in order; what was started is stopped in the opposite order."""
    given = config.given()
    host, port = given.get("HOST", "127.0.0.1"), config.port(given)
    _refuse_busy(host, port)
    with ExitStack() as house:
        environ = {"SECRET_KEY": _secret_key(), "BASE_URL": _address(port), **given}
        cluster = None if "DATABASE_URL" in given else house.enter_context(_embedded())
        if cluster:
            environ["DATABASE_URL"] = cluster.url()
        settings = config.load(environ)
        demo = _prepare(settings, environ, f"{'bin/run flask' if cluster else 'flask --app wsgi'} demo remove")
        log = house.enter_context(LOG.open("wb"))
        web = house.enter_context(_running(_web(host, port), environ, log))
        _await_answer(host, port, web)
        clock = house.enter_context(_running(_flask("jobs", "run"), environ, log))
        _greet(settings, demo=demo)
        _stay(web, clock, cluster, lambda: house.enter_context(_running(_flask("jobs", "run"), environ, log)))


def _refuse_busy(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reasons = {errno.EADDRINUSE: "another program listens there", errno.EACCES: "only root may listen there"}
        reason = reasons.get(error.errno or 0, os.strerror(error.errno or 0))
        raise StartError(f"Port {port} on {host} cannot be used: {reason}. Choose another one: PORT={port + 1 if port >= UNPRIVILEGED else 8000} bin/run") from error


def _address(port: int) -> str:
    """Where a browser on this machine finds us. A bare system may not know the name localhost, and asking a name server takes seconds."""
    names = Path("/etc/hosts")
    known = names.exists() and "localhost" in names.read_text()
    return f"http://{'localhost' if known else '127.0.0.1'}:{port}"


def _secret_key() -> str:
    """The key of this clone, made at its first start and readable by its owner alone."""
    file = INSTANCE / "secret_key"
    if not file.exists():
        _keep(file, secrets.token_urlsafe(48))
    return file.read_text().strip()


def _keep(file: Path, text: str) -> None:
    """Write a private file whole or not at all."""
    INSTANCE.mkdir(exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(f"{text}\n")
    fresh.rename(file)


@contextmanager
def _embedded() -> Iterator[Cluster]:
    """Our own server, its URL kept where the flask commands find it while it runs."""
    cluster = lasting()
    kept = INSTANCE / "database_url"
    try:
        with cluster.serving() as url:
            _keep(kept, url)
            yield cluster
    finally:
        if cluster.postmaster() is None:
            kept.unlink(missing_ok=True)


def _prepare(settings: config.Settings, environ: Mapping[str, str], remove: str) -> bool:
    """Bring the schema to its newest version and give an empty sandbox the demo. Answers whether the demo's logins are there.

    `remove` is the command that takes out what a live start refuses.
    """
    with _connect(settings) as connection, _alone(connection):
        if connection.info.server_version // 10_000 < OLDEST_SERVER:
            raise StartError(f"The database server is PostgreSQL {connection.info.server_version // 10_000}; {OLDEST_SERVER} or newer is needed.")
        if _versions(connection) != _newest_versions():
            _do("Bringing the database to the newest schema", _flask("db", "upgrade"), environ)
        origins = _origins(connection)
        config.refuse_origins(settings, origins, remove=remove)
        if settings.sandbox and "demo_unfinished" in origins:
            _do("The demo's history was broken off while it was written; writing it again", _flask("demo", "seed"), environ)
        elif settings.sandbox and not _has(connection, "select 1 from users"):
            _do("Writing the demo's history", _flask("demo", "seed"), environ)
        return _has(connection, "select 1 from users where login = 'demo'")


@contextmanager
def _alone(connection: "psycopg.Connection[tuple[object, ...]]") -> Iterator[None]:
    """Let one start at a time prepare a database; the others wait for it. Whoever is killed lets go of it."""
    if not _has(connection, f"select 1 where pg_try_advisory_lock({PREPARING})"):
        print("Another start prepares this database; waiting for it", flush=True)
        connection.execute(f"select pg_advisory_lock({PREPARING})")
    try:
        yield
    finally:
        connection.execute(f"select pg_advisory_unlock({PREPARING})")


def _origins(connection: "psycopg.Connection[tuple[object, ...]]") -> set[str]:
    """Where what the database holds came from; its view `origins` says."""
    return {str(code) for (code,) in connection.execute("select code from origins")}


def _connect(settings: config.Settings) -> "psycopg.Connection[tuple[object, ...]]":
    try:
        return psycopg.connect(settings.database_url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise StartError(f"The database does not answer: {str(error).strip()}") from error


def _versions(connection: "psycopg.Connection[tuple[object, ...]]") -> set[object]:
    if not _has(connection, "select 1 where to_regclass('alembic_version') is not null"):
        return set()
    return {version for (version,) in connection.execute("select version_num from alembic_version")}


def _newest_versions() -> set[str]:
    """The migrations that no other one follows; read from their text, because asking Alembic costs more than all the rest of a start."""
    texts = [file.read_text() for file in (PROJECT / "migrations" / "versions").glob("*.py")]
    made = {match[1] for text in texts for match in re.finditer(r'^revision = "(.+)"', text, re.MULTILINE)}
    followed = {match[1] for text in texts for match in re.finditer(r'^down_revision = "(.+)"', text, re.MULTILINE)}
    return made - followed


def _has(connection: "psycopg.Connection[tuple[object, ...]]", query: str) -> bool:
    return connection.execute(query).fetchone() is not None


def _do(what: str, command: list[str], environ: Mapping[str, str]) -> None:
    print(what, flush=True)
    with _running(command, environ) as process:
        if process.wait():
            raise StartError(f"{what} failed; the lines above say why.")


def _flask(*words: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "wsgi", *words]


def _command(words: Sequence[str]) -> int:
    """Run a flask command on this clone's database, brought up for it where it does not run; its exit code."""
    given = config.given()
    with ExitStack() as house:
        environ = {"SECRET_KEY": _secret_key(), "BASE_URL": _address(config.port(given)), **given}
        if "DATABASE_URL" not in given:
            environ["DATABASE_URL"] = house.enter_context(_embedded()).url()
        return subprocess.run(_flask(*words), env={**os.environ, **environ}, check=False).returncode


def _web(host: str, port: int) -> list[str]:
    workers = ["--workers", str(WEB_WORKERS), "--blocking-threads", str(WEB_THREADS), "--workers-kill-timeout", str(WORKER_STOP_TIMEOUT_S), "--respawn-failed-workers"]
    return [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", host, "--port", str(port), *workers, "--no-access-log", "--log-level", "warning", "wsgi:app"]


@contextmanager
def _running(command: list[str], environ: Mapping[str, str], log: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, out of reach of the terminal's Ctrl-C, so that we decide the order in which things stop."""
    whole = {**os.environ, **environ}
    process = subprocess.Popen(command, env=whole, stdout=log, stderr=log, process_group=0, preexec_fn=_die_with(os.getpid()))  # noqa: PLW1509 - one thread here
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and its own children to end; one that is still starting may not listen, so the group is killed in the end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _die_with(parent: int) -> Callable[[], None] | None:
    """On Linux a child asks to be stopped when we are killed outright; otherwise it would hold the port for ever."""
    if platform.system() != "Linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _await_answer(host: str, port: int, web: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if web.poll() is not None:
            raise StartError(f"The web server ended:\n{_last_words()}")
        if _answers(host, port):
            return
        time.sleep(POLL_S)
    raise StartError(f"The web server did not answer within {READY_TIMEOUT_S} seconds.")


def _last_words() -> str:
    return "\n".join([*LOG.read_text(errors="replace").splitlines()[-15:], f"({LOG})"])


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (ConnectionError, http.client.RemoteDisconnected):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _greet(settings: config.Settings, *, demo: bool) -> None:
    lines = [f"Client Area is open at {settings.base_url}   (Ctrl-C closes it)"]
    if demo:
        lines += ["", "    customer   demo      demo-client-area", "    support    support   demo-client-area"]
    if settings.sandbox:
        lines += ["", f"    its mail   {settings.base_url}/sandbox/mail"]
    lines += ["    its log    instance/house.log"]
    print("\n".join(["", *lines, ""]), flush=True)


def _stay(web: subprocess.Popen[bytes], clock: subprocess.Popen[bytes], cluster: Cluster | None, again: Callable[[], subprocess.Popen[bytes]]) -> NoReturn:
    """Stay until a signal asks us to leave, or a part ends that cannot begin anew.

    The jobs process and our own PostgreSQL are started again: whoever killed them, the kernel for want of memory say, shall not close the house.
    """
    ends: list[float] = []
    while True:
        pid, _status = os.wait()
        if pid == web.pid:
            raise StartError(f"The web server ended by itself, so everything is stopped:\n{_last_words()}")
        if cluster and cluster.postmaster() is None:
            cluster.start()
        if pid == clock.pid:
            ends = [*(at for at in ends if at > time.monotonic() - WITHIN_S), time.monotonic()]
            if len(ends) > MOST_ENDS:
                raise StartError(f"The jobs process keeps ending by itself, so everything is stopped:\n{_last_words()}")
            clock = again()


def _heed(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in STOPPING:
        signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> NoReturn:
    """Leave in order; a second Ctrl-C does not hurry what is already on its way out."""
    _heed(signal.SIG_IGN)
    raise KeyboardInterrupt


def main(words: Sequence[str]) -> int:
    """Start, stay, leave. The exit code: 0 after Ctrl-C, 1 with a sentence when something is wrong."""
    _heed(_leave)
    os.chdir(PROJECT)
    try:
        if words[:1] == ["flask"]:
            return _command(words[1:])
        start()
    except KeyboardInterrupt:
        return 0
    except (StartError, PostgresError, config.ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"{error.filename} may not be used by this user: somebody else started this clone before. Give it back: sudo chown -R $(id -un) {PROJECT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
