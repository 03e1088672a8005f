"""The web server itself, asked over a plain socket: methods, paths and bodies that no browser sends."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import _run
import pytest
from flask import Flask

import config

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port(application: Flask, settings: config.Settings) -> Iterator[int]:
    """The port of the web server as `bin/run` starts it."""
    del application  # its database is migrated
    with socket.create_server(("127.0.0.1", 0)) as door:
        number = int(door.getsockname()[1])
    url = settings.database_url.replace("+psycopg", "", 1)
    environ = {**os.environ, "DATABASE_URL": url, "SECRET_KEY": "s" * 48, "BASE_URL": f"http://127.0.0.1:{number}"}
    given = ("127.0.0.1", number, settings)
    command = _run._web(*given[: len(signature(_run._web).parameters)])
    server = subprocess.Popen(command, cwd=PROJECT, env=environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if b"200" in ask(number, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")[:15]:
                break
        except OSError:
            time.sleep(0.1)
    yield number
    server.terminate()
    server.wait(20)


def ask(port: int, raw: bytes, wait_s: float = 10) -> bytes:
    """All that comes back for these bytes until the server hangs up or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as line:
        line.sendall(raw)
        line.settimeout(2)
        heard = b""
        try:
            while part := line.recv(65536):
                heard += part
        except TimeoutError:
            return heard
        except ConnectionResetError:
            return heard
        return heard


def status(answer: bytes) -> int:
    """The status of the first answer; 0 when there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_trace_and_unknown_methods_echo_nothing(port: int) -> None:
    for method in (b"TRACE", b"TRACK", b"CONNECT", b"DEBUG", b"PROPFIND"):
        target = b"/login" if method != b"CONNECT" else b"evil.example:443"
        answer = ask(port, method + b" " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Echo: canary\r\nConnection: close\r\n\r\n")
        assert status(answer) in {0, 400, 404, 405, 501}, method
        assert b"canary" not in answer, method


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /webhooks/nobody HTTP/1.1\r\nHost: 127.0.0.1\r\n"
AMBIGUOUS = {
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length with a sign": POST + b"Content-Length: +1\r\n\r\nx",
    "a list of lengths": POST + b"Content-Length: 1, 2\r\n\r\nxx",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n",
    "a folded header": POST + b"X: a\r\n b\r\nContent-Length: 1\r\nContent-Length : 5\r\n\r\nx",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_message_whose_end_is_in_doubt_is_refused(port: int, case: str) -> None:
    answer = ask(port, AMBIGUOUS[case])
    assert status(answer) in {0, 400, 413, 501}, answer[:80]
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_where_both_are_given_the_chunks_count_and_not_the_length(port: int) -> None:
    """What stands after the last chunk is a request of its own, or the line is closed; never a part of the body."""
    raw = POST + b"Content-Length: 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    answer = ask(port, raw)
    first = status(answer)
    assert first in {400, 404, 413}
    assert first == 400 or answer.count(b"HTTP/1.1 ") == 2 or b"connection: close" in answer.lower()


def test_no_file_of_the_machine_and_no_listing_is_served(port: int) -> None:
    paths = (
        *("/.git/config", "/.git/HEAD", "/.env", "/config.py", "/wsgi.py", "/instance/secret_key", "/requirements.txt", "/pyproject.toml"),
        *("/static/", "/static", "/static/js/", "/static/js/app.js", "/static/../config.py", "/static/%2e%2e/config.py", "/static/..%2fconfig.py"),
        *("/static/....//config.py", "/static//etc/passwd", "/static/%00", "//etc/passwd", "/..%5c..%5cconfig.py", "/server-status", "/debug", "/console"),
        *("/docs", "/openapi.json", "/swagger.json", "/tests/", "/admin"),
    )
    for path in paths:
        answer = ask(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        assert status(answer) in {308, 400, 404}, f"{path}: {answer[:40]!r}"
        for word in (b"Index of", b"SECRET_KEY", b"[core]", b"root:x"):
            assert word not in answer, path


def test_a_foreign_host_is_refused_by_the_server_too(port: int) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example"):
        answer = ask(port, f"GET /login HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert status(answer) == 400, host
        assert b"evil" not in answer.partition(b"\r\n\r\n")[0]


def test_the_server_tells_no_version(port: int) -> None:
    answer = ask(port, b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert status(answer) == 200
    assert b"x-powered-by" not in head
    assert b"python" not in head
    assert b"werkzeug" not in head
