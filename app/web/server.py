"""Between the web server and the WSGI application: whoever is slow keeps no worker thread.

Granian reads heads under a deadline of its own, but hands a request to WSGI before its body has come,
and the thread then waits for as long as the sender likes. So the application is served over RSGI,
Granian's asynchronous interface: a body is waited for in the event loop, under one deadline for the
whole of it, and a thread is taken only by a request that is complete. An answer that is written piece by
piece is written to a temporary file first, so a slow reader keeps neither a thread nor a database cursor.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, Any, Final, Protocol

log = logging.getLogger(__name__)

LARGEST_BODY: Final = 1024 * 1024
"""Bytes that are read before the application is asked; it answers 413 to less than this."""
IN_MEMORY: Final = 1024 * 1024
"""Bytes of an answer that are kept in memory; a larger one goes through a temporary file."""
PIECE: Final = 64 * 1024
FORMS: Final = ("application/x-www-form-urlencoded", "multipart/")
LATE: Final = b"The request took too long to arrive. Nothing was changed; send it again.\n"
CUT: Final = b"The request was cut off. Nothing was changed; send it again.\n"
NO_LENGTH: Final = b"A form must say its length (Content-Length). Nothing was changed.\n"
BROKEN: Final = b"Something broke on our side. If you were paying, look at your invoices first.\n"
TEXT: Final = ("content-type", "text/plain; charset=utf-8")
CLOSE: Final = ("connection", "close")

Headers = list[tuple[str, str]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Names(Protocol):
    """The headers of a request."""

    def get(self, key: str, default: Any = None) -> Any:
        """One of them, by its name in lower case."""
        ...

    def items(self) -> list[tuple[str, str]]:
        """All of them, names in lower case; a name that was sent twice comes twice."""
        ...


class Scope(Protocol):
    """What Granian says of a request; the path is decoded already."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    authority: str | None
    headers: Names


class Transport(Protocol):
    """An answer that is sent piece by piece."""

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """The next piece; returns when the connection has taken it."""
        ...


class Connection(Protocol):
    """One request's body to read and its answer to give."""

    def __call__(self) -> Awaitable[bytes]:
        """The whole body; raises RuntimeError when the sender left before its end."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; ends without a word when the sender left."""
        ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer at once, from any thread."""
        ...

    def response_stream(self, status: int, headers: Headers) -> Transport:
        """Answer piece by piece."""
        ...


@dataclass(frozen=True, slots=True)
class Spooled:
    """An answer that is too large for one piece, whole in a temporary file."""

    status: int
    headers: Headers
    file: IO[bytes]


class Rejected(Exception):
    """A request that is answered before the application sees it."""

    def __init__(self, status: int, sentence: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.sentence = sentence


class Server:
    """A WSGI application over RSGI: so many threads, and so many seconds for a body to arrive whole."""

    def __init__(self, application: Wsgi, *, threads: int, body_timeout_s: float) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, "web")
        self._body_timeout_s = body_timeout_s

    async def __rsgi__(self, scope: Scope, connection: Connection) -> None:
        """One request."""
        try:
            body = await self._body(scope, connection)
        except Rejected as rejected:
            log.warning("%s %r is answered with %s", scope.method, scope.path, rejected.status)
            _give(connection, rejected.status, [TEXT, CLOSE], rejected.sentence)
            return
        loop = asyncio.get_running_loop()
        spooled = await loop.run_in_executor(self._threads, self._answer, scope, body, connection)
        if spooled is not None:
            await _send(connection, spooled)

    async def _body(self, scope: Scope, connection: Connection) -> bytes:
        """The body; nothing of one too large, which the application refuses. Raises Rejected."""
        length = str(scope.headers.get("content-length", ""))
        chunked = not length and scope.headers.get("transfer-encoding") is not None
        if not chunked and (not length.isdigit() or not 0 < int(length) <= LARGEST_BODY):
            return b""
        # Of a body without a length nobody can tell that it was cut, and half a form is another form.
        if chunked and str(scope.headers.get("content-type", "")).lower().startswith(FORMS):
            raise Rejected(411, NO_LENGTH)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await (_pieces(connection) if chunked else connection())
        except TimeoutError:
            raise Rejected(408, LATE) from None
        except RuntimeError:
            raise Rejected(400, CUT) from None

    def _answer(self, scope: Scope, body: bytes, connection: Connection) -> Spooled | None:
        """Ask the application and answer from this thread; what is too large for it is handed back."""
        try:
            started: list[Any] = []
            pieces = self._application(environ(scope, body), lambda *said: started.extend(said))
            try:
                answer = _collect(pieces)
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
            status, headers = int(started[0].split(" ", 1)[0]), started[1]
        except Exception:
            log.exception("%s %r failed outside its error page", scope.method, scope.path)
            status, headers, answer = 500, [TEXT], BROKEN
        if not isinstance(answer, bytes):
            return Spooled(status, headers, answer)
        _give(connection, status, headers, answer)
        return None


def environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """The WSGI environment of a request whose body has come."""
    client, _, client_port = scope.client.rpartition(":")
    server, _, server_port = scope.server.rpartition(":")
    made: dict[str, Any] = {
        "SERVER_NAME": server,
        "SERVER_PORT": server_port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": client.strip("[]"),
        "REMOTE_PORT": client_port,
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if "_" in name:  # X_Forwarded_For would read as X-Forwarded-For
            continue
        key = name.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        between = "; " if name == "cookie" else ","
        made[key] = f"{made[key]}{between}{value}" if key in made else value
    if scope.authority:
        made.setdefault("HTTP_HOST", scope.authority)
    return made


async def _pieces(connection: Connection) -> bytes:
    """A body that does not say its length, as far as one byte beyond the largest."""
    body = bytearray()
    async for piece in connection:
        body += piece
        if len(body) > LARGEST_BODY:
            break
    return bytes(body[: LARGEST_BODY + 1])


def _collect(pieces: Iterable[bytes]) -> bytes | IO[bytes]:
    """The pieces in one; in a temporary file, at its beginning, when they are large."""
    kept: list[bytes] = []
    size = 0
    rest = iter(pieces)
    for piece in rest:
        kept.append(piece)
        size += len(piece)
        if size > IN_MEMORY:
            break
    else:
        return b"".join(kept)
    file = TemporaryFile()  # noqa: SIM115 - closed by whoever sends it
    file.writelines(kept)
    file.writelines(rest)
    file.seek(0)
    return file


async def _send(connection: Connection, spooled: Spooled) -> None:
    """Send a spooled answer as fast as its reader takes it. One who left gets no more."""
    with closing(spooled.file), suppress(RuntimeError):
        transport = connection.response_stream(spooled.status, spooled.headers)
        while piece := spooled.file.read(PIECE):
            await transport.send_bytes(piece)


def _give(connection: Connection, status: int, headers: Headers, body: bytes) -> None:
    """Answer at once. To one who left, nothing can be said."""
    with suppress(RuntimeError):
        connection.response_bytes(status, headers, body)
