"""The outbox and its way to a mail server: once, later when it must be, never twice, never with a forged header."""

import smtplib
import socket
import ssl
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from itertools import pairwise
from queue import Queue
from threading import Thread

import pytest

import config
from app import clock, db, mail


class Server:
    """A mail server on the loopback that keeps what it is given; ``refuse`` are recipients it will not take yet, ``drop`` hangs up on."""

    def __init__(self):
        self.taken, self.refuse, self.drop, self.logins = Queue(), set(), set(), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream):
        def say(line):
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 test")
        recipient = ""
        for raw in stream:
            line = raw.decode().strip()
            verb = line[:4].upper()
            if verb == "EHLO":
                say("250-test\r\n250-AUTH PLAIN\r\n250 SMTPUTF8")
            elif verb == "AUTH":
                self.logins.append(line)
                say("235 ok")
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                if recipient in self.drop:
                    return
                say("451 later" if recipient in self.refuse else "250 ok")
            elif verb == "DATA":
                say("354 go on")
                body = b"".join(iter(stream.readline, b".\r\n"))
                self.taken.put((recipient, message_from_bytes(body, policy=policy.default)))
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def received(self):
        return [self.taken.get() for _ in range(self.taken.qsize())]


@pytest.fixture
def server():
    server = Server()
    yield server
    server.socket.shutdown(socket.SHUT_RDWR)
    server.socket.close()
    server.thread.join()


@contextmanager
def settings_with(settings, **changes):
    config.use(replace(settings, **changes))
    try:
        yield
    finally:
        config.use(settings)


@pytest.fixture
def sending(app, settings, server):
    with settings_with(settings, mail_url=f"smtp://robot:s%40cret@127.0.0.1:{server.port}"):
        yield server


def put(key="k", to="anna@example.com", kind="notice", subject="Zażółć your balance", text="One line.\n", html=None, **options):
    with db.transaction():
        return mail.enqueue(kind, to, subject, text, html, key=key, **options)


def waiting():
    return db.scalar("select count(*) from mails where sent_at is null")


def test_a_mail_exists_once_per_key_and_only_if_its_transaction_does(app):
    assert put("a")
    assert not put("a", subject="Other")
    with pytest.raises(RuntimeError, match="stop"), db.transaction():
        mail.enqueue("notice", "anna@example.com", "s", "t", key="b")
        raise RuntimeError("stop")
    assert [letter.key for letter in mail.newest(9)] == ["a"]
    with pytest.raises(db.TransactionError):
        mail.enqueue("notice", "anna@example.com", "s", "t", key="c")


@pytest.mark.parametrize(
    "to", ["", "anna", "anna@example.com\nBcc: x@example.com", "a@example.com, b@example.com", "Anna <anna@example.com>", "anna@exa mple.com", "anna@example.com\0"]
)
def test_an_address_that_could_forge_a_header_is_refused(app, to):
    with pytest.raises(mail.MailError):
        put(to=to)


@pytest.mark.parametrize("subject", ["", "a\nBcc: x@example.com", "a\r\nb", "a\0b", "a\u2028b"])
def test_a_subject_that_could_forge_a_header_is_refused(app, subject):
    with pytest.raises(mail.MailError):
        put(subject=subject)


def test_values_are_escaped_in_html_and_plain_in_text(app):
    composed = mail.compose("verify", "en", login="<b>{{ 7*7 }}</b>", link="http://localhost/verify/x?a=1&b=2")
    assert composed.subject == "Confirm your e-mail address"
    assert "&lt;b&gt;{{ 7*7 }}&lt;/b&gt;" in composed.html
    assert "<b>{{ 7*7 }}</b>" in composed.text
    assert "x?a=1&amp;b=2" in composed.html


def test_a_value_in_the_subject_cannot_break_out_of_it(app):
    composed = mail.compose("renewal_short", "en", label="vps\r\nBcc: x@example.com", missing="\x85€ 1", **dict.fromkeys(("name", "plan", "start", "price", "number"), "x"))
    assert composed.subject == "vps"
    with db.transaction():
        assert mail.enqueue("renewal_short", "anna@example.com", composed.subject, composed.text, key="k")


@pytest.mark.parametrize("kind", ["verify", "reset", "address_known", "password_changed", "email_changed"])
def test_every_mail_has_two_bodies_that_say_the_same_and_load_nothing(app, kind):
    composed = mail.compose(kind, "en", login="nora", link="http://localhost/x", email="new@example.com")
    assert "nora" in composed.text
    assert "nora" in composed.html
    assert "src=" not in composed.html
    assert "url(" not in composed.html
    assert all(len(line) <= 200 for line in composed.text.splitlines())


def test_the_sandbox_takes_everything_as_sent(app):
    put("a", kind="reset", text="the link")
    assert mail.deliver() == 1
    assert waiting() == 0
    assert mail.newest(1)[0].text == "the link"


def test_without_sandbox_and_server_mails_wait(app, settings):
    put("a")
    with settings_with(settings, sandbox=False):
        assert mail.deliver() == 0
    assert waiting() == 1


def test_a_mail_arrives_whole(sending):
    put(html="<p>One <b>line</b>.</p>", attachments=[mail.Attachment("PF-2026-000001.pdf", "application/pdf", b"%PDF-1.7 \x00\xff")])
    assert mail.deliver() == 1
    [(recipient, message)] = sending.received()
    assert recipient == "anna@example.com"
    assert (message["Subject"], message["To"]) == ("Zażółć your balance", "anna@example.com")
    assert "Northbyte" in message["From"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_body(("plain",)).get_content().strip() == "One line."
    assert "<b>line</b>" in message.get_body(("html",)).get_content()
    [attachment] = message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("PF-2026-000001.pdf", b"%PDF-1.7 \x00\xff")
    assert sending.logins


def test_a_sent_mail_is_not_sent_again(sending):
    for number in range(5):
        put(str(number))
    assert [mail.deliver(3), mail.deliver(), mail.deliver()] == [3, 2, 0]
    assert len(sending.received()) == 5


def test_a_mail_that_was_refused_waits_longer_each_time_and_holds_up_no_other(sending):
    sending.refuse.add("later@example.com")
    put("a", to="later@example.com")
    put("b")
    start = clock.now()
    assert mail.deliver() == 1
    waits = []
    for _ in range(12):
        due = db.scalar("select due_at from mails where sent_at is null")
        with clock.travel(due + timedelta(seconds=1)):
            waits.append(due)
            assert mail.deliver() == 0
    assert [round((after - before) / timedelta(minutes=1)) for before, after in pairwise(waits)] == [2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]
    assert "451" in mail.newest(2)[1].error
    sending.refuse.clear()
    with clock.travel(start + timedelta(days=30)):
        assert mail.deliver() == 1
    assert len(sending.received()) == 2
    assert mail.newest(2)[1].error is None


def test_a_server_that_is_away_delays_and_doubles_nothing(app, settings, server):
    for number in range(3):
        put(str(number), attachments=[mail.Attachment("INV.pdf", "application/pdf", b"%PDF")])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    start = clock.now()
    with settings_with(settings, mail_url=f"smtp://127.0.0.1:{port}"):
        for hours in range(0, 24, 4):
            with clock.travel(start + timedelta(hours=hours)):
                assert mail.deliver() == 0
    with settings_with(settings, mail_url=f"smtp://127.0.0.1:{server.port}"), clock.travel(start + timedelta(hours=25)):
        assert mail.deliver() == 3
        assert mail.deliver() == 0
    taken = [message for _, message in server.received()]
    assert len(taken) == len({message["Message-ID"] for message in taken}) == 3
    assert [part.get_content() for message in taken for part in message.iter_attachments()] == [b"%PDF"] * 3


def test_a_server_that_hangs_up_ends_the_round_and_loses_nothing(sending):
    sending.drop.add("drop@example.com")
    put("a", to="drop@example.com")
    put("b")
    assert mail.deliver() == 0
    assert mail.deliver() == 1
    assert waiting() == 1


def test_two_deliveries_at_once_never_carry_the_same_mail(sending, application):
    for number in range(20):
        put(str(number))
    counts = Queue()

    def work():
        with application.app_context():
            counts.put(mail.deliver())

    workers = [Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(counts.get() for _ in workers) == 20
    assert len({message["Message-ID"] for _, message in sending.received()}) == 20


def test_a_crash_after_the_server_said_yes_sends_the_same_message_id(sending, monkeypatch):
    put()
    monkeypatch.setattr(mail, "_SENT", "select crash")
    with pytest.raises(Exception, match="crash"):
        mail.deliver()
    monkeypatch.undo()
    assert mail.deliver() == 0
    with clock.travel(clock.now() + mail.LEASE + timedelta(seconds=1)):
        assert mail.deliver() == 1
    first, second = (message["Message-ID"] for _, message in sending.received())
    assert first == second


def test_one_time_links_are_not_kept_once_a_server_has_them(sending):
    put("a", kind="reset", text="http://localhost/password/reset/secret", html="secret")
    mail.deliver()
    assert "secret" in sending.received()[0][1].as_string()
    assert (mail.newest(1)[0].text, mail.newest(1)[0].html) == ("", None)


@pytest.mark.parametrize(("scheme", "port"), [("smtps", 465), ("smtp+starttls", 587), ("smtp", 25)])
def test_the_scheme_says_how_the_line_is_secured(app, settings, monkeypatch, scheme, port):
    calls = []

    class Line:
        def __init__(self, host, port, timeout, **options):
            calls.append((type(self).__name__, host, port, timeout, options))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def starttls(self, context):
            calls.append(("starttls", context.verify_mode, context.check_hostname))

    class SecureLine(Line):
        pass

    monkeypatch.setattr(smtplib, "SMTP", Line)
    monkeypatch.setattr(smtplib, "SMTP_SSL", SecureLine)
    with settings_with(settings, mail_url=f"{scheme}://mail.example.com"):
        mail.deliver()
    kind, host, used_port, timeout, options = calls[0]
    assert (host, used_port, timeout) == ("mail.example.com", port, mail.TIMEOUT_S)
    assert kind == ("SecureLine" if scheme == "smtps" else "Line")
    assert ("context" in options) == (scheme == "smtps")
    assert calls[1:] == ([("starttls", ssl.CERT_REQUIRED, True)] if scheme == "smtp+starttls" else [])
