"""Between Granian and the application: what a request becomes, and what is answered before it is one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.web import server
from app.web.server import LARGEST_BODY, Server


class Names:
    """Headers as Granian gives them."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def get(self, key: str, default: Any = None) -> Any:
        return dict(self._pairs).get(key, default)

    def items(self) -> list[tuple[str, str]]:
        return list(self._pairs)


@dataclass
class Scope:
    headers: Names
    http_version: str = "1.1"
    server: str = "127.0.0.1:8000"
    client: str = "[::1]:4711"
    scheme: str = "http"
    method: str = "POST"
    path: str = "/größe/"
    query_string: str = "q=%C3%A4"
    authority: str | None = None


@dataclass
class Connection:
    """One request's body in pieces; `cut` when its sender left before the end, `slow` when it never comes."""

    pieces: list[bytes] = field(default_factory=list)
    cut: bool = False
    slow: bool = False
    gone: bool = False
    answered: list[Any] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    read: int = 0

    async def __call__(self) -> bytes:
        whole = b"".join([piece async for piece in self])
        if self.cut:
            raise RuntimeError("transport is closed")
        return whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.read += len(piece)
            yield piece
        if self.slow:
            await asyncio.sleep(30)

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        if self.gone:
            raise RuntimeError("transport is closed")
        self.answered.append((status, headers, body))

    def response_stream(self, status: int, headers: Any) -> Any:
        self.answered.append((status, headers))
        return self

    async def send_bytes(self, data: bytes) -> None:
        if self.gone:
            raise RuntimeError("transport is closed")
        self.sent.append(data)


def serve(connection: Connection, *headers: tuple[str, str], app: Callable[..., Any] | None = None) -> list[dict[str, Any]]:
    """What the application was asked."""
    asked: list[dict[str, Any]] = []

    def echo(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        asked.append(environ)
        start("200 OK", [("content-type", "text/plain")])
        return [environ["wsgi.input"].read()]

    def run() -> None:
        asyncio.run(Server(app or echo, threads=1, body_timeout_s=0.1).__rsgi__(Scope(Names(*headers)), connection))

    with ThreadPoolExecutor(max_workers=1) as thread:  # the browsers' event loop runs in this one
        thread.submit(run).result()
    return asked


FORM = ("content-type", "application/x-www-form-urlencoded")


def test_a_request_is_what_wsgi_says():
    connection = Connection([b"a=1", b"&b=2"])
    (environ,) = serve(
        connection,
        FORM,
        ("content-length", "7"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x_forwarded_for", "6.6.6.6"),
        ("host", "localhost"),
    )
    assert connection.answered == [(200, [("content-type", "text/plain")], b"a=1&b=2")]
    assert environ["REMOTE_ADDR"] == "::1"
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/größe/"
    assert environ["QUERY_STRING"] == "q=%C3%A4"
    assert environ["CONTENT_TYPE"] == FORM[1]
    assert environ["CONTENT_LENGTH"] == "7"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.1.1.1,2.2.2.2"
    assert environ["HTTP_HOST"] == "localhost"


@pytest.mark.parametrize(
    ("connection", "headers", "status"),
    [
        (Connection([b"a"], slow=True), [("content-length", "9")], 408),
        (Connection([b"a"], slow=True), [("transfer-encoding", "chunked")], 408),
        (Connection([b"a"], cut=True), [("content-length", "9")], 400),
        (Connection([b"a=1"]), [("transfer-encoding", "chunked"), FORM], 411),
        (Connection([b"a=1"]), [("transfer-encoding", "chunked"), ("content-type", "Multipart/form-data; boundary=x")], 411),
    ],
)
def test_what_is_no_whole_request_never_reaches_the_application(connection, headers, status):
    assert serve(connection, *headers) == []
    ((answered, given, sentence),) = connection.answered
    assert answered == status
    assert ("connection", "close") in given
    assert b"Nothing was changed" in sentence


def test_a_body_that_is_too_large_is_left_to_the_application_unread():
    connection = Connection([b"x" * 1000])
    (environ,) = serve(connection, ("content-length", str(LARGEST_BODY + 1)))
    assert (connection.read, environ["CONTENT_LENGTH"]) == (0, str(LARGEST_BODY + 1))


def test_pieces_without_a_length_are_read_no_further_than_the_largest_body():
    connection = Connection([b"x" * 400_000] * 10)
    serve(connection, ("transfer-encoding", "chunked"), ("content-type", "application/json"))
    assert connection.read == 1_200_000
    assert sum(map(len, connection.sent)) == LARGEST_BODY + 1


def streaming(size: int, ended: list[str]) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", [("content-type", "text/csv")])
        try:
            for _ in range(size // 1000):
                yield b"x" * 1000
        finally:
            ended.append("closed")

    return app


def test_a_large_answer_has_left_the_application_before_its_reader_takes_the_first_piece():
    connection, ended = Connection(), []
    serve(connection, app=streaming(3_000_000, ended))
    assert connection.answered == [(200, [("content-type", "text/csv")])]
    assert sum(map(len, connection.sent)) == 3_000_000
    small = Connection()
    serve(small, app=streaming(3_000, ended))
    assert len(small.answered[0][2]) == 3_000
    assert ended == ["closed"] * 2


@pytest.mark.parametrize("size", [3_000, 3_000_000])
def test_who_left_gets_nothing_and_breaks_nothing(size):
    serve(Connection(gone=True), app=streaming(size, []))


def test_a_fault_outside_the_error_page_is_logged_and_answered(caplog):
    def broken(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        raise ZeroDivisionError("the secret of the books")

    connection = Connection()
    serve(connection, app=broken)
    status, _, body = connection.answered[0]
    assert (status, b"secret" in body) == (500, False)
    assert "ZeroDivisionError" in caplog.text
    assert server.log.name in {record.name for record in caplog.records}
