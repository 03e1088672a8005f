"""The outbox and its way to a mail server: once, later when it must be, never twice, never with a forged header."""

import socket
import ssl
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from itertools import pairwise
from queue import Queue
from threading import Thread

import pytest

import config
from app import clock, db, mail, troubles
from app.cli.mail import mail_commands
from tests import certificates


class Server:
    """A mail server on the loopback that keeps what it is given; ``refuse`` are its answers to recipients it does not take, ``drop`` hangs up on."""

    def __init__(self):
        self.taken, self.raw, self.refuse, self.drop, self.logins = Queue(), [], {}, set(), []
        self.tls, self.at_once, self.heard = None, False, []
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
            with connection, suppress(ssl.SSLError, ConnectionError):
                line = self.tls.wrap_socket(connection, server_side=True) if self.at_once else connection
                with line, line.makefile("rwb") as stream:
                    line.sendall(b"220 test\r\n")
                    self._talk(stream, line)

    def _offers(self, connection):
        starttls = "250-STARTTLS\r\n" if self.tls and not isinstance(connection, ssl.SSLSocket) else ""
        return f"250-test\r\n{starttls}250-AUTH PLAIN\r\n250 SMTPUTF8"

    def _talk(self, stream, connection):
        def say(line):
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        recipient = ""
        for raw in stream:
            line = raw.decode().strip()
            verb = line[:4].upper()
            self.heard.append((verb, isinstance(connection, ssl.SSLSocket)))
            self.logins += [line] if verb == "AUTH" else []
            if verb == "EHLO":
                say(self._offers(connection))
            elif verb == "STAR":
                say("220 go on")
                with self.tls.wrap_socket(connection, server_side=True) as line, line.makefile("rwb") as inner:
                    self._talk(inner, line)
                return
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                if recipient in self.drop:
                    return
                say(self.refuse.get(recipient, "250 ok"))
            elif verb == "DATA":
                say("354 go on")
                self._take(recipient, b"".join(iter(stream.readline, b".\r\n")))
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("235 ok" if verb == "AUTH" else "250 ok")

    def _take(self, recipient, body):
        self.raw.append(body)
        self.taken.put((recipient, message_from_bytes(body.replace(b"\r\n..", b"\r\n."), policy=policy.default)))

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
    sending.refuse["later@example.com"] = "451 later"
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


def test_an_address_that_is_refused_for_good_is_set_aside_where_the_operator_sees_it(sending, app):
    sending.refuse["gone@example.com"] = "550 no such mailbox"
    put("a", to="gone@example.com", html="<p>x</p>")
    put("b", to="gone@example.com", kind="reset", text="http://localhost/password/reset/secret")
    put("c")
    start = clock.now()
    assert mail.deliver() == 1, "it holds up no other"
    for hours in range(1, 60):
        with clock.travel(start + timedelta(hours=hours)):
            mail.deliver()
        if hours == 24:
            assert db.scalar("select count(*) from mails where refused_at is not null") == 0, "for a day it may be the server's own mistake"
    refused, link = mail.stuck()
    assert (refused.tries, link.tries, refused.refused_at is not None, "no such mailbox" in refused.error) == (mail.BELIEVED, mail.BELIEVED, True, True)
    assert (refused.text, link.text) == ("One line.\n", "")
    run = app.test_cli_runner().invoke
    assert f"{refused.id}  " in run(mail_commands, ["stuck"]).output
    assert "refused after 14" in run(mail_commands, ["stuck"]).output
    assert "client_area_mails_refused 2" in app.test_client().get("/metrics").text
    sending.refuse.clear()
    assert run(mail_commands, ["again"]).output == "1 wait to be sent again.\n"
    assert mail.deliver() == 1
    assert [recipient for recipient, _ in sending.received()] == ["anna@example.com", "gone@example.com"]


def test_a_server_that_takes_none_of_ours_is_never_believed(sending):
    sending.refuse["anna@example.com"] = "451 later"
    put("a")
    for _ in range(mail.BELIEVED + 2):
        with clock.travel(db.scalar("select due_at from mails") + timedelta(seconds=1)):
            mail.deliver()
    assert (waiting(), mail.stuck()[0].refused_at) == (1, None)


def test_mails_leave_in_the_order_they_were_written_however_often_each_was_tried(sending):
    for number in range(6):
        put(str(number), to=f"a{number}@example.com")
    sending.refuse = {f"a{number}@example.com": "451 later" for number in (0, 1, 2)}
    sending.drop = {"a3@example.com"}
    mail.deliver()
    sending.refuse, sending.drop = {}, set()
    with clock.travel(clock.now() + timedelta(hours=1)):
        assert mail.deliver() == 6
    assert [recipient for recipient, _ in sending.received()] == [f"a{number}@example.com" for number in range(6)]


def test_once_the_server_is_back_everything_that_waited_for_it_leaves_at_once(sending, caplog):
    addresses = [f"a{number}@example.com" for number in range(5)]
    sending.refuse = dict.fromkeys(addresses, "452 no room")
    for address in addresses:
        put(address, to=address)
    start = clock.now()
    for hours in range(20):
        with clock.travel(start + timedelta(hours=hours)):
            mail.deliver()
    assert caplog.text.count("took none of") == 1, "said once"
    assert [one.code for one in troubles.known()] == ["mail_server"]
    sending.refuse = {}
    with clock.travel(start + timedelta(hours=19, minutes=3)):
        assert mail.deliver() >= 1, "one tries each minute"
        mail.deliver()
        assert waiting() == 0
    assert caplog.text.count("In order again (mail_server)") == 1
    assert troubles.known() == []


def test_a_server_that_is_away_is_said_once_and_once_more_when_it_is_back(app, settings, server, caplog):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    put()
    with settings_with(settings, mail_url=f"smtp://127.0.0.1:{port}"):
        for _ in range(5):
            mail.deliver()
    with settings_with(settings, mail_url=f"smtp://127.0.0.1:{server.port}"):
        assert mail.deliver() == 1
        mail.deliver()
    said = [r.getMessage() for r in caplog.records if r.name in {"app.mail", "app.troubles"}]
    assert ["cannot be reached" in said[0], "In order again" in said[1], len(said)] == [True, True, 2]


def test_a_server_that_closes_ends_the_round_and_no_other_mail_is_tried(sending):
    sending.refuse["a@example.com"] = "421 closing"
    put("a", to="a@example.com")
    put("b")
    assert mail.deliver() == 0
    assert db.rows("select key, tries from mails order by id") == [("a", 1), ("b", 0)]
    assert mail.deliver() == 1


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


def test_what_leaves_needs_no_eight_bits_and_answers_reach_people(sending, settings):
    longest = "a" * 60 + "@" + ("b" * 60 + ".") * 3 + "example"
    put(to=longest, text="Grüße — €\n.\nFrom here\n" + "x" * 3000 + "\n", html="<p>Grüße</p>", attachments=[mail.Attachment("a.pdf", "application/pdf", bytes(range(256)) * 300)])
    with settings_with(config.current(), mail_from="robot@example.com"):
        mail.deliver()
    [raw], [(recipient, message)] = sending.raw, sending.received()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) < 998
    assert (recipient, message["To"], message["Reply-To"], message["X-Auto-Response-Suppress"]) == (longest, longest, settings.seller.email, "All")
    assert [part.get_content_type() for part in message.walk()] == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"]
    assert message.get_body(("plain",)).get_content().replace("\r\n", "\n") == "Grüße — €\n.\nFrom here\n" + "x" * 3000 + "\n"
    assert next(message.iter_attachments()).get_content() == bytes(range(256)) * 300


def test_beside_the_subject_stands_what_the_mail_is_about(app):
    composed = mail.compose("verify", "en", login="nora", link="http://localhost/x")
    assert 'class="preview">Please confirm that this address is yours. Receipts' in composed.html


def test_a_crash_after_the_server_said_yes_sends_the_same_message_id(sending, monkeypatch):
    put(html="<p>x</p>", attachments=[mail.Attachment("a.pdf", "application/pdf", b"%PDF")])
    monkeypatch.setattr(mail, "_SENT", "select crash")
    with pytest.raises(Exception, match="crash"):
        mail.deliver()
    monkeypatch.undo()
    assert mail.deliver() == 0
    with clock.travel(clock.now() + mail.LEASE + timedelta(seconds=1)):
        assert mail.deliver() == 1
    first, second = (message["Message-ID"] for _, message in sending.received())
    assert first == second
    assert sending.raw[0] == sending.raw[1], "nothing tells the second from the first"


def test_one_time_links_are_not_kept_once_a_server_has_them(sending):
    put("a", kind="reset", text="http://localhost/password/reset/secret", html="secret")
    mail.deliver()
    assert "secret" in sending.received()[0][1].as_string()
    assert (mail.newest(1)[0].text, mail.newest(1)[0].html) == ("", None)


@pytest.mark.parametrize(("scheme", "port"), [("smtps", 465), ("smtp+starttls", 587), ("smtp", 25)])
def test_the_scheme_says_where_the_server_listens(app, settings, monkeypatch, scheme, port):
    calls = []

    def dial(kind):
        def line(host, port, timeout, **options):
            calls.append((kind, host, port, timeout, "context" in options))
            raise ConnectionRefusedError

        return line

    monkeypatch.setattr(mail, "_Plain", dial("plain"))
    monkeypatch.setattr(mail, "_Encrypted", dial("secure"))
    with settings_with(settings, mail_url=f"{scheme}://mail.example.com"):
        mail.deliver()
    secure = scheme == "smtps"
    assert calls == [("secure" if secure else "plain", "mail.example.com", port, mail.TIMEOUT_S, secure)]


# How the line to a server is secured


@pytest.fixture
def certified(server, tmp_path, monkeypatch):
    """The server with a certificate that this machine trusts."""
    made = certificates.make(tmp_path, "127.0.0.1")
    server.tls = made.server_context()
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    return server


def carry(settings, scheme, server, *, password=True, here=True, monkeypatch=None):
    """Send one mail; whether it left."""
    put()
    who = "robot:secret@" if password else ""
    with pytest.MonkeyPatch.context() as patch, settings_with(settings, mail_url=f"{scheme}://{who}127.0.0.1:{server.port}"):
        patch.setattr(mail, "_is_here", lambda _: here)
        return mail.deliver() == 1


def in_clear(server, verb):
    return (verb, False) in server.heard


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
@pytest.mark.parametrize("here", [True, False])
def test_a_password_travels_encrypted_wherever_that_is_offered(app, settings, certified, scheme, here):
    certified.at_once = scheme == "smtps"
    assert carry(settings, scheme, certified, here=here)
    assert len(certified.logins) == 1
    assert not in_clear(certified, "AUTH")
    assert not in_clear(certified, "DATA")


def test_a_mail_without_a_password_is_encrypted_too_where_the_server_is_another_machine(app, settings, certified):
    assert carry(settings, "smtp", certified, password=False, here=False)
    assert not in_clear(certified, "DATA")


def test_to_this_machine_itself_a_mail_without_a_password_stays_plain(app, settings, certified):
    assert carry(settings, "smtp", certified, password=False)
    assert in_clear(certified, "DATA")


def test_a_password_is_not_sent_in_clear_beyond_this_machine(app, settings, server, caplog):
    assert not carry(settings, "smtp", server, here=False)
    assert (server.logins, waiting()) == ([], 1)
    assert "offers no STARTTLS, and MAIL_URL has a password" in caplog.text
    assert "secret" not in caplog.text
    assert carry(settings, "smtp", server, password=False, here=False), "without a password an old relay is used as it is"


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
def test_a_certificate_that_proves_nothing_ends_the_line(app, settings, server, tmp_path, monkeypatch, scheme, fault):
    made = certificates.make(tmp_path, "127.0.0.1" if fault == "unknown authority" else "mail.example.com")
    server.tls, server.at_once = made.server_context(), scheme == "smtps"
    if fault == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    assert not carry(settings, scheme, server, here=False)
    assert (server.logins, waiting()) == ([], 1)
    assert not in_clear(server, "DATA")


def test_who_insists_on_starttls_gets_no_plain_line(app, settings, server):
    assert not carry(settings, "smtp+starttls", server, password=False)
    assert waiting() == 1
