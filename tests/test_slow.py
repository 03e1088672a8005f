"""The real server beside visitors who are slow on purpose: others do not notice them, and they are sent away."""

import http.client
import os
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import _run
import pytest
from flask import Flask

import config
from app import customers, payments
from app.money import Money
from tests.conftest import BERLIN, person

HOUSE = Path(__file__).parent.parent
TIMEOUT_S = 6
SILENT = 50
ROUNDS = 15
P95_S = 1.0
HEAD = b"Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
POST = b"POST /login HTTP/1.1\r\n" + HEAD + b"Content-Length: 500\r\n\r\n"
KINDS: dict[str, tuple[bytes, bytes]] = {
    "says nothing at all": (b"", b""),
    "never ends its head": (b"POST /login HTTP/1.1\r\n" + HEAD, b""),
    "drips its head": (b"GET /login HTTP/1.1\r\n" + HEAD + b"X: ", b"x"),
    "never sends its body": (POST, b""),
    "drips its body": (POST, b"a"),
    "drips pieces without a length": (
        b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n",
    ),
}
"""What each sends at once, and then every second."""


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int

    def ask(self, path: str, cookie: str = "") -> tuple[int, float]:
        """The status of an answer and how many seconds it took, on a connection of its own."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"Cookie": f"sid={cookie}"} if cookie else {})
        status = connection.getresponse().status
        connection.close()
        return status, time.monotonic() - began

    def form(self, path: str, cookie: str) -> "Form":
        """The form of a payment page as a browser would send it, for a card."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"Cookie": f"sid={cookie}"})
        answer = connection.getresponse()
        page, given = answer.read().decode(), answer.headers.get_all("Set-Cookie") or []
        connection.close()
        cookies = "; ".join([f"sid={cookie}", *(each.partition(";")[0] for each in given)])
        fields = dict(re.findall(r'name="(csrf_token|quote)" value="([^"]+)"', page))
        return Form(path, cookies, urlencode({**fields, "method": "stripe-card"}))

    def send(self, form: "Form") -> tuple[int, float]:
        """The status of the answer to a form, and how many seconds it took."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": form.cookies, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", form.path, body=form.body, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status, time.monotonic() - began


@dataclass(frozen=True)
class Form:
    """A filled form: where to, with which cookies, and what it says."""

    path: str
    cookies: str
    body: str


def session_of(login: str) -> str:
    """A cookie of a new customer."""
    user = person(login, profile=BERLIN)
    return customers.open_session(user.id, ip="127.0.0.1", user_agent="Firefox")


def order(cookie: str) -> str:
    """A top-up of whoever has this cookie: the number of its invoice for payment."""
    me = customers.load_session(cookie)
    assert me
    return payments.order_topup(me.customer_id, Money.of("25.00", "EUR")).proforma_number or ""


@contextmanager
def running(database_url: str, more: Mapping[str, str]) -> Iterator[Served]:
    """The house by the command of bin/run, with its usual workers and threads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environ = {
        **os.environ,
        "DATABASE_URL": database_url,
        "SECRET_KEY": "s" * 48,
        "BASE_URL": f"http://127.0.0.1:{port}",
        "REQUEST_TIMEOUT": str(TIMEOUT_S),
        **more,
    }
    command = _run._web("127.0.0.1", port, config.load(environ))
    process = subprocess.Popen(command, env=environ, cwd=HOUSE, stderr=subprocess.DEVNULL)
    server = Served(port)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if server.ask("/healthz")[0] == 200:
                break
        time.sleep(0.1)
    yield server
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def served(database_url: str, application: Flask) -> Iterator[Served]:
    """A server without any processor of its own."""
    del application
    with running(database_url, {}) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_notices_who_is_slow_and_who_is_slow_is_sent_away(served: Served, app: Flask, kind: str) -> None:
    user = person("anna", profile=BERLIN)
    cookie = customers.open_session(user.id, ip="127.0.0.1", user_agent="Firefox")
    at_once, each_second = KINDS[kind]
    callers = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(SILENT)]
    stop = threading.Event()
    dripping = threading.Thread(target=drip, args=(callers, each_second, stop))
    try:
        for caller in callers:
            caller.sendall(at_once)
        opened = time.monotonic()
        dripping.start()
        asked = [served.ask(path, cookie) for _ in range(ROUNDS) for path in ("/balance", "/login", "/healthz")]
        assert {status for status, _ in asked} <= {200, 303}
        times = sorted(seconds for _, seconds in asked)
        assert times[int(len(times) * 0.95)] < P95_S
        assert time.monotonic() - opened < TIMEOUT_S, "asked while they were still there"
        sent_away_by = opened + 2 * TIMEOUT_S + 3
        assert all(closed(caller, sent_away_by) for caller in callers)
    finally:
        stop.set()
        for caller in callers:
            caller.close()
        dripping.join()


def drip(callers: list[socket.socket], piece: bytes, stop: threading.Event) -> None:
    while piece and not stop.wait(1):
        for caller in callers:
            with suppress(OSError):
                caller.send(piece)


def closed(caller: socket.socket, deadline: float) -> bool:
    """Whether the server has ended this connection; an answer before the end is read away."""
    with suppress(OSError):
        while time.monotonic() < deadline:
            readable, _, _ = select.select([caller], [], [], 0.2)
            if readable and not caller.recv(4096):
                return True
        return False
    return True


def test_a_late_body_is_answered_with_what_to_do(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as caller:
        caller.sendall(POST + b"csrf_token=")
        answer = caller.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"send it again" in answer


PAYERS = 8


@pytest.fixture
def silent_processor() -> Iterator[socket.socket]:
    """A processor that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield listener


@pytest.fixture
def beside_silence(database_url: str, application: Flask, silent_processor: socket.socket) -> Iterator[Served]:
    """The same server, its cards at a processor that does not answer."""
    del application
    port = silent_processor.getsockname()[1]
    settings = {
        "SANDBOX": "force",
        "STRIPE_SECRET_KEY": "sk_test_silent",
        "STRIPE_WEBHOOK_SECRET": "whsec_silent",
        "STRIPE_API_BASE": f"http://127.0.0.1:{port}",
    }
    with running(database_url, settings) as server:
        yield server


def test_payers_at_a_processor_that_never_answers_stop_nobody_else(app: Flask, beside_silence: Served) -> None:
    reader = session_of("anna")
    payers = [session_of(f"payer{n}") for n in range(PAYERS)]
    bills = [order(cookie) for cookie in payers]
    forms = [beside_silence.form(f"/invoices/{number}/pay", cookie) for number, cookie in zip(bills, payers, strict=True)]
    answers: list[tuple[int, float]] = []
    started = time.monotonic()
    waiting = [threading.Thread(target=lambda to=form: answers.append(beside_silence.send(to))) for form in forms]
    for payer in waiting:
        payer.start()
    times: dict[str, list[float]] = {"/balance": [], "/invoices": [], "/readyz": []}
    while any(payer.is_alive() for payer in waiting):
        for path, took in times.items():
            status, seconds = beside_silence.ask(path, reader)
            assert status == 200, path
            took.append(seconds)
    for payer in waiting:
        payer.join()
    assert time.monotonic() - started > 3, "they did wait for the processor"
    assert len(times["/balance"]) >= 5, "asked while they were waiting"
    assert max(max(took) for took in times.values()) < P95_S
    assert {status for status, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < 8
