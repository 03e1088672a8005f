"""A server that drips a byte a second is cut off, whoever asks it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import stripe

import config
from app import db, fx, mail, outside, troubles
from app.fx import feed
from app.gateways import http
from app.gateways import stripe as stripe_gateway
from app.gateways.base import NoAnswer
from app.payments import outages
from tests.test_mail import put, settings_with

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONGEST_S = 0.6
PATIENCE_S = 4


@pytest.fixture(params=["head", "body"])
def drip(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server whose answer drips, and never ends."""
    first = b"HTTP/1.1 200 OK\r\nX-Slow: " if request.param == "head" else HEAD + b"\r\n"
    yield from dripping(first)


@pytest.fixture
def mail_drip() -> Iterator[int]:
    """The port of a mail server whose greeting drips."""
    yield from dripping(b"220 ")


def dripping(first: bytes) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.sendall(first)
            while not over.wait(0.05):
                line.sendall(b"1")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def soon() -> Iterator[None]:
    """The test takes no longer than a person waits."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE_S


def test_a_dripping_processor_is_cut_off(soon, drip, monkeypatch):
    monkeypatch.setattr(http, "LONGEST_S", LONGEST_S)
    with pytest.raises(NoAnswer) as refusal:
        http.call("GET", f"http://127.0.0.1:{drip}/")
    assert "no whole answer after 0.6 seconds" in refusal.value.detail


def test_a_dripping_processor_is_cut_off_on_a_line_that_stood_already(soon, monkeypatch):
    monkeypatch.setattr(http, "LONGEST_S", LONGEST_S)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = listener.accept()
        with line, suppress(OSError):
            line.recv(1000)
            line.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            line.recv(1000)
            line.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                line.sendall(b"1")
                time.sleep(0.05)

    threading.Thread(target=serve, daemon=True).start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert http.call("GET", address).status == 200
    with pytest.raises(NoAnswer) as refusal:
        http.call("GET", address)
    assert "no whole answer" in refusal.value.detail
    listener.close()


def test_the_sdk_of_stripe_is_cut_off_and_does_not_try_again(soon, drip, monkeypatch):
    monkeypatch.setattr(stripe_gateway, "LONGEST_S", LONGEST_S)
    gateway = stripe_gateway.Stripe("sk_test_x", "whsec_x", f"http://127.0.0.1:{drip}")
    with pytest.raises(stripe.APIConnectionError, match="no whole answer"):
        gateway._client.v1.checkout.sessions.retrieve("cs_1")


def test_the_feed_of_rates_is_cut_off(soon, drip, app, settings, monkeypatch):
    monkeypatch.setattr(feed, "LONGEST_S", LONGEST_S)
    address = f"http://127.0.0.1:{drip}/"
    with settings_with(settings, fx_url=address), pytest.raises(fx.FeedRefused, match="no whole"):
        fx.fetch()


def test_a_mail_server_is_cut_off_and_the_mail_waits(soon, mail_drip, app, settings, monkeypatch):
    monkeypatch.setattr(mail, "SIGN_IN_S", LONGEST_S)
    put()
    with settings_with(settings, mail_url=f"smtp://127.0.0.1:{mail_drip}"):
        assert mail.deliver() == 0
    assert db.scalar("select count(*) from mails where sent_at is null") == 1
    (trouble,) = troubles.known()
    assert "no whole answer" in trouble.detail


def test_all_the_tries_for_one_page_end_within_its_time(soon, drip, monkeypatch):
    monkeypatch.setattr(outside, "PAGE_S", 1.5)
    gateway = stripe_gateway.Stripe("sk_test_x", "whsec_x", f"http://127.0.0.1:{drip}")
    outside.begin_page(threading.Semaphore(1))
    try:
        for _ in range(3):
            with pytest.raises(stripe.APIConnectionError):
                gateway._client.v1.checkout.sessions.retrieve("cs_1")
    finally:
        outside.end_page()


def test_only_so_many_pages_of_a_process_wait_outside():
    seats, heard = threading.Semaphore(2), []

    def page() -> None:
        outside.begin_page(seats)
        heard.append(outside.admitted() and outside.admitted())
        done.wait()
        outside.end_page()

    done = threading.Barrier(4)
    pages = [threading.Thread(target=page) for _ in range(3)]
    for one in pages:
        one.start()
    done.wait()
    for one in pages:
        one.join()
    assert sorted(heard) == [False, True, True]
    assert outside.admitted(), "what no browser waits for is not counted"
    assert seats.acquire(blocking=False), "the seats are given back"
    assert seats.acquire(blocking=False)
    assert config.current()


def test_one_thread_of_a_web_process_never_waits_for_a_processor(application):
    threads = config.current().web_threads
    arrived, heard = threading.Barrier(threads + 1), []

    def payer() -> None:
        with application.test_request_context("/balance"):
            application.preprocess_request()
            try:
                with outages.asking("sandbox", "lookup", "pay_1"):
                    heard.append("asked")
                    arrived.wait(20)
            except outages.LeftAlone as error:
                heard.append(str(error))
                arrived.wait(20)

    payers = [threading.Thread(target=payer) for _ in range(threads)]
    for one in payers:
        one.start()
    arrived.wait(20)
    for one in payers:
        one.join()
    assert sorted(heard) == sorted(["asked"] * (threads - 1) + [outages.BUSY])
    heard.clear()
    arrived = threading.Barrier(1)
    payer()
    assert heard == ["asked"], "a page that is over gives its seat back"
