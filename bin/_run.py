"""Starts the house and stays with it: database, schema, demo, web server, clock. ``bin/run`` calls it in the ready environment."""

import ctypes
import errno
import http.client
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, NoReturn

import psycopg
from _postgres import PROJECT, Cluster, PostgresError, lasting

sys.path.insert(0, str(PROJECT))
import config

INSTANCE: Final = PROJECT / "instance"
LOG: Final = INSTANCE / "log" / "client-area.log"
"""Names and addresses of customers may stand in it: only its owner reads it."""
LARGEST_LOG: Final = 20 * 1024 * 1024
"""Bytes at which the log becomes an older one and begins anew; the oldest is thrown away."""
OLDER_LOGS: Final = 5
LOG_CHECK_S: Final = 60
PARTS: Final = ("web", "jobs")
USAGE: Final = "bin/run starts everything, bin/run web or bin/run jobs one part of it."
OLDEST_SERVER: Final = 15
READY_TIMEOUT_S: Final = 60
WITHIN_S: Final = 60
"""A part that ends again within so many seconds is started again later each time."""
LONGEST_PAUSE_S: Final = 60.0
LOOK_S: Final = 0.2
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


def start(parts: Sequence[str] = PARTS) -> None:
    """Everything in order; what was started is stopped in the opposite order."""
    given = config.given()
    host, port = config.host(given), config.port(given)
    if "web" in parts:
        _refuse_busy(host, port)
    with ExitStack() as house:
        environ = {"SECRET_KEY": _secret_key(), "BASE_URL": _address(port), **given}
        cluster = None if "DATABASE_URL" in given else house.enter_context(_embedded())
        if cluster:
            environ["DATABASE_URL"] = cluster.url()
        settings = config.load(environ)
        demo = _prepare(settings, environ, f"{'bin/run flask' if cluster else 'flask --app wsgi'} demo remove")
        log = house.enter_context(_open_log())

        def begin(command: list[str]) -> subprocess.Popen[bytes]:
            return house.enter_context(_running(command, environ, log))

        web = jobs = None
        if "web" in parts:
            web = begin(_web(host, port, settings))
            _await_answer(host, port, web)
        last: list[subprocess.Popen[bytes]] = []
        house.callback(_end_all, last)

        def jobs_again() -> subprocess.Popen[bytes]:
            last[:] = [_begun(_flask("jobs", "run"), environ, log)]
            return last[0]

        if "jobs" in parts:
            jobs = jobs_again()
        _greet(settings, parts, demo=demo)
        _stay(web, jobs, cluster, jobs_again)


def _refuse_busy(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            said = f"HOST={host} is no address of this machine: give 127.0.0.1, 0.0.0.0 for all of its"
            raise StartError(f"{said} addresses, or one of them.") from error
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
        found = _versions(connection)
        if found - _known_versions():
            print("The database is newer than this program and is left as it is.", flush=True)
        elif found != _newest_versions():
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
        raise StartError(f"The database does not answer: {' '.join(str(error).split())}") from error


def _versions(connection: "psycopg.Connection[tuple[object, ...]]") -> set[object]:
    if not _has(connection, "select 1 where to_regclass('alembic_version') is not null"):
        return set()
    return {version for (version,) in connection.execute("select version_num from alembic_version")}


def _newest_versions() -> set[str]:
    """The migrations that no other one follows; read from their text, because asking Alembic costs more than all the rest of a start."""
    return _known_versions() - _named_in_migrations("down_revision")


def _known_versions() -> set[str]:
    """Every migration this program has."""
    return _named_in_migrations("revision")


def _named_in_migrations(name: str) -> set[str]:
    texts = [file.read_text() for file in (PROJECT / "migrations" / "versions").glob("*.py")]
    line = re.compile(rf'^{name} = "(.+)"', re.MULTILINE)
    return {match[1] for text in texts for match in line.finditer(text)}


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


def _web(host: str, port: int, settings: config.Settings) -> list[str]:
    """The web server. Plain HTTP/1.1: TLS and HTTP/2 are the proxy's, and only here are heads timed."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "rsgi", "--http", "1", "--no-ws"),
        *("--host", host, "--port", str(port), "--workers", str(settings.web_workers)),
        *("--http1-header-read-timeout", str(settings.request_timeout_s * 1000)),
        *("--workers-kill-timeout", str(WORKER_STOP_TIMEOUT_S), "--respawn-failed-workers"),
        *("--no-access-log", "--log-level", "warning", "wsgi:server"),
    ]


def _open_log() -> IO[bytes]:
    """The log, to be written at its end, in a folder of its own."""
    LOG.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    LOG.parent.chmod(0o700)
    stream = os.fdopen(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    LOG.chmod(0o600)
    _rotate()
    return stream


def _rotate() -> None:
    """Put a log that has grown large beside the older ones.

    Its text is copied and cut off, not renamed: the processes that write to it keep it open. A line
    that is written in between is lost; for as long as it grows, the copy goes on.
    """
    if LOG.stat().st_size < LARGEST_LOG:
        return
    older = [LOG.with_name(f"{LOG.name}.{number}") for number in range(1, OLDER_LOGS + 1)]
    for younger, place in reversed(list(pairwise(older))):
        if younger.exists():
            younger.replace(place)
    target = os.open(older[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with LOG.open("rb") as source, os.fdopen(target, "wb") as copy:
        while source.tell() < LOG.stat().st_size:
            shutil.copyfileobj(source, copy)
        os.truncate(LOG, 0)


@contextmanager
def _running(command: list[str], environ: Mapping[str, str], log: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is ended with the block."""
    process = _begun(command, environ, log)
    try:
        yield process
    finally:
        _end(process)


def _begun(command: list[str], environ: Mapping[str, str], log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """A process of ours, out of reach of the terminal's Ctrl-C, so that we decide the order in which things stop."""
    whole = {**os.environ, **environ}
    return subprocess.Popen(command, env=whole, stdout=log, stderr=log, process_group=0, preexec_fn=_die_with(os.getpid()))  # noqa: PLW1509 - one thread here


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and its own children to end; one that is still starting may not listen, so the group is killed in the end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _end(process)


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


def _greet(settings: config.Settings, parts: Sequence[str], *, demo: bool) -> None:
    said = f"Client Area is open at {settings.base_url}" if "web" in parts else "The jobs are running"
    lines = [f"{said}   (Ctrl-C ends it)"]
    if demo and "web" in parts:
        lines += ["", "    customer   demo      demo-client-area", "    support    support   demo-client-area"]
    if settings.sandbox and "web" in parts:
        lines += ["", f"    its mail   {settings.base_url}/sandbox/mail"]
    lines += [f"    its log    {LOG.relative_to(PROJECT)}"]
    print("\n".join(["", *lines, ""]), flush=True)


def _stay(
    web: subprocess.Popen[bytes] | None,
    jobs: subprocess.Popen[bytes] | None,
    cluster: Cluster | None,
    again: Callable[[], subprocess.Popen[bytes]],
) -> NoReturn:
    """Stay until a signal asks us to leave, or a part ends that cannot begin anew.

    The jobs process and our own PostgreSQL are started again, however often they end: a site that takes
    payments is worth more than its jobs. One that ends again and again waits longer each time, and
    readiness says that the jobs do not run. Meanwhile the log is kept from growing for ever.
    """
    signal.signal(signal.SIGALRM, _look_at_log)
    signal.setitimer(signal.ITIMER_REAL, LOG_CHECK_S, LOG_CHECK_S)
    for_jobs, for_server = Pause("The jobs process"), Pause("PostgreSQL")
    while True:
        ended = _reap()
        if web and (web.poll() is not None):
            raise StartError(f"The web server ended by itself, so everything is stopped:\n{_last_words()}")
        if cluster and (ended or for_server.waiting) and cluster.postmaster() is None:
            _revive(cluster, for_server)
        if jobs and jobs.poll() is not None and for_jobs.over():
            _end(jobs)
            jobs = again()
        time.sleep(LOOK_S)


class Pause:
    """How long a part that ended is left alone before it is started again: longer each time it ends soon."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seconds = 0.0
        self._until: float | None = None
        self._began = time.monotonic()

    @property
    def waiting(self) -> bool:
        """Whether the part has ended and is not started yet."""
        return self._until is not None

    def over(self) -> bool:
        """Whether it may be started now; the first time this is asked the pause begins."""
        now = time.monotonic()
        if self._until is None:
            lived = now - self._began > WITHIN_S
            self._seconds = 0.0 if lived else min(max(1.0, self._seconds * 2), LONGEST_PAUSE_S)
            if self._seconds > 1:
                print(f"{self._what} ends again and again; it is started again in {self._seconds:g} seconds.", file=sys.stderr, flush=True)
            self._until = now + self._seconds
        if now < self._until:
            return False
        self._until, self._began = None, now
        return True


def _revive(cluster: Cluster, pause: Pause) -> None:
    """Start our PostgreSQL again. What keeps it from starting, a full disk say, may pass: then it is tried again."""
    if not pause.over():
        return
    try:
        cluster.start()
    except PostgresError as error:
        print(error, file=sys.stderr, flush=True)
        pause.over()


def _reap() -> bool:
    """Ask for every child that has ended; whether there was one."""
    ended = False
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            ended = True
    return ended


def _look_at_log(_number: int, _frame: object) -> None:
    """A log that cannot be rotated, on a full disk say, is no reason to end."""
    try:
        _rotate()
    except OSError as error:
        print(f"The log cannot be rotated: {error}", file=sys.stderr)


def _heed(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in STOPPING:
        signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> NoReturn:
    """Leave in order; a second Ctrl-C does not hurry what is already on its way out."""
    _heed(signal.SIG_IGN)
    raise KeyboardInterrupt


def main(words: Sequence[str]) -> int:
    """Start, stay, leave. The exit code: 0 after Ctrl-C, 1 with a sentence when something is wrong, 2 for words nobody knows."""
    if words[:1] != ["flask"] and words and (len(words) > 1 or words[0] not in PARTS):
        print(USAGE, file=sys.stderr)
        return 2
    _heed(_leave)
    os.chdir(PROJECT)
    try:
        if words[:1] == ["flask"]:
            return _command(words[1:])
        start(words or PARTS)
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
