"""The outbox. A mail is written in the transaction that causes it, under a key that lets it exist once, and carried to the server later.

A delivery first claims the mail for some minutes and commits, so no transaction is open while the mail server is spoken to and two
deliveries never carry the same mail. What waits leaves in the order it was written. A server's yes that we did not hear, or did not live
to note, is the one case that sends again; both copies are then the same, byte for byte, Message-ID and Date included.

A server that is away or says "later" is tried for ever. One that refuses an address or a mail for good is believed after a day and a half:
then that mail is set aside, where the operator sees it.
"""

import base64
import hashlib
import json
import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import config
from app import clock, db, languages, outside, troubles

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 10
SIGN_IN_S: Final = 20.0
LONGEST_S: Final = 60.0
"""How long one mail may take, however steadily its server drips; a file of some megabytes travels with it."""
GOODBYE_S: Final = 3.0
MANY: Final = 3
"""So many mails that were put off in a round in which none was taken: it is the server, not an address."""
PROBE: Final = timedelta(minutes=1)
"""While the server is in trouble, how often one mail tries, whatever its own turn."""
LEASE: Final = timedelta(minutes=5)
FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=6)
BELIEVED: Final = 14
"""At which try a refusal for good is believed: a day and a half after the first, as a server that is wrongly set up refuses everybody."""
PATIENCE: Final = timedelta(hours=1)
"""How long a mail waits for a document of its own to be printed; then it leaves without, as its text has the way to it."""
SECRET_KINDS: Final = frozenset({"verify", "reset", "email_changed", "billing_verify"})
"""Kinds that hold a one-time link: their text is not shown in the archive and not kept once a mail server has taken it."""
_ADDRESS: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[a-z0-9](?:[a-z0-9-]{0,62}\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.IGNORECASE)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_TOP_LEVEL: Final = (
    "com net org info biz name pro dev app page site online shop store xyz top club live life cloud agency email digital world today news link click"
    " media tech space website work zone studio design group team solutions services support company center network systems software consulting"
    " example test invalid localhost onion mobi tel asia travel jobs museum aero coop int gov edu mil bank credit loan money cash finance fund pay"
)
_DOMAIN: Final = re.compile(rf"(?<![\w.-])(?:[\w-]+\.)*[\w-]{{3,}}\.(?:[a-z]{{2}}|{'|'.join(_TOP_LEVEL.split())})(?![\w-])", re.IGNORECASE)
_ADDRESS_MARK: Final = re.compile(r"://|\bwww\d?\.|@|\b(?:https?|mailto|ftp|javascript|data):\S", re.IGNORECASE)
_INVISIBLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_WRITTEN_BY_USERS: Final = frozenset({"name", "login", "said"})
"""Values of mails that somebody chose for himself and others read."""
TEMPLATES: Final = Path(__file__).parent.parent / "templates" / "mail"

_ENQUEUE: Final = """
insert into mails (key, customer_id, kind, recipient, language, subject, body_text, body_html, attachments, created_at, due_at)
values (%(key)s, %(customer_id)s, %(kind)s, %(to)s, %(language)s, %(subject)s, %(text)s, %(html)s, %(attachments)s, %(now)s, %(now)s)
on conflict (key) do nothing
"""
_CLAIM: Final = """
update mails set due_at = %(lease)s, tries = tries + 1
where id = (
  select id from mails where sent_at is null and refused_at is null and due_at <= %(now)s and (created_at < %(patience)s or not exists (
    select from jsonb_array_elements(attachments) file join documents d on d.number = file->>'document'
    where not exists (select from document_files f where f.document_id = d.id)))
  order by id limit 1 for update skip locked)
returning *
"""
_FILES: Final = "select d.number, f.pdf from documents d join document_files f on f.document_id = d.id where d.number = any(%(numbers)s)"
_SENT: Final = """
update mails set sent_at = %(now)s, error = null, server_failed = false,
  body_text = case when %(forget)s then '' else body_text end, body_html = case when %(forget)s then null else body_html end
where id = %(id)s
"""
_KEPT: Final = """
update mails set sent_at = %(now)s, tries = tries + 1
where id in (select id from mails where sent_at is null and refused_at is null and due_at <= %(now)s order by id limit %(limit)s for update skip locked)
"""
_FAILED: Final = """
update mails
set due_at = %(due_at)s, error = %(error)s, server_failed = %(server_failed)s
where id = %(id)s
"""
_RELEASE: Final = """
update mails set due_at = least(due_at, %(now)s), server_failed = false
where server_failed and sent_at is null and refused_at is null
"""
_LET_ONE_TRY: Final = """
update mails set due_at = %(now)s
where id = (
  select id from mails
  where server_failed and sent_at is null and refused_at is null
  order by id
  limit 1
)
and due_at > %(now)s
"""
_WAITS_FOR_SERVER: Final = """
select exists (
  select from mails where server_failed and sent_at is null and refused_at is null)
"""
_REFUSED: Final = """
update mails set refused_at = %(now)s, error = %(error)s,
  body_text = case when %(forget)s then '' else body_text end, body_html = case when %(forget)s then null else body_html end
where id = %(id)s
"""
_AGAIN: Final = """
update mails set refused_at = null, tries = 0, due_at = %(now)s
where refused_at is not null and (%(id)s::bigint is null or id = %(id)s) and not kind = any(%(secret)s)
"""
_LIST: Final = """
select id, key, kind, recipient, language, subject, body_text, body_html, created_at, sent_at, refused_at, tries, error,
  (select coalesce(jsonb_agg(file - 'base64'), '[]') from jsonb_array_elements(attachments) file) as attachments
from mails
"""
_OF_CUSTOMER: Final = _LIST + "where customer_id = %(customer_id)s and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s"
_ONE_OF_CUSTOMER: Final = _LIST + "where customer_id = %(customer_id)s and id = %(id)s"
_NEWEST: Final = _LIST + "order by id desc limit %(limit)s"
_ONE: Final = _LIST + "where id = %(id)s"
_STUCK: Final = _LIST + "where sent_at is null and tries > 0 order by id limit %(limit)s"


class InClear(smtplib.SMTPException):
    """A password that would travel readable: it is not sent."""


class MailError(ValueError):
    """A mail that must not be sent as it is: an address or subject that could forge a header."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that travels with a mail."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that travels with a mail, by its number: its PDF is fetched when the mail leaves, so writing the mail prints nothing.

    ``path`` is where its reader finds it in the Client Area.
    """

    number: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail of the outbox. ``sent_at`` is None while it waits; ``refused_at`` is when it was set aside, after so many ``tries``; ``error`` says why the last one failed.

    ``attachments`` are named, not held.
    """

    id: int
    key: str
    kind: str
    recipient: str
    language: str
    subject: str
    text: str
    html: str | None
    created_at: datetime
    sent_at: datetime | None
    refused_at: datetime | None
    tries: int
    error: str | None
    attachments: list[dict[str, str]]

    @property
    def secret(self) -> bool:
        """Whether the text holds a one-time link."""
        return self.kind in SECRET_KINDS


class Composed(NamedTuple):
    """A mail's language, its subject and its two bodies."""

    language: str
    subject: str
    text: str
    html: str


def is_address(text: str) -> bool:
    """Whether this has the shape of one plain mail address, at most 254 characters of ASCII."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None and ".." not in text


def looks_like_link(text: str) -> bool:
    """Whether a mail program could make a link of a part of this text: an address of the web or of a mailbox, or a domain."""
    return bool(_ADDRESS_MARK.search(text) or _DOMAIN.search(text))


def harmless(text: str) -> str:
    """A text in one line of which no mail program makes a link: what would be one loses its dots and marks."""
    line = " ".join(_INVISIBLE.sub(" ", text).split())
    if not looks_like_link(line):
        return line
    return " ".join(re.sub(r"[.:/@\\]+(?=\S)|[:/@\\]+", " ", line).split())


def send(kind: str, to: str, *, locale: str, key: str, customer_id: int | None = None, attachments: Sequence[Attachment | Stored] = (), **context: object) -> None:
    """Compose ``templates/mail/<kind>`` in the language of the reader's locale and put it into the outbox. Within a transaction."""
    db.execute(_ENQUEUE, **_row(Letter(kind, to, locale, key, customer_id, context, attachments)))


def inform(kind: str, to: str, *, locale: str, key: str, customer_id: int, attachments: Sequence[Attachment | Stored] = (), **context: object) -> None:
    """`send` about money that moved, which no mail may undo: see `inform_many`. Within a transaction."""
    inform_many([Letter(kind, to, locale, key, customer_id, context, attachments)])


class Letter(NamedTuple):
    """A mail to be composed: its kind, recipient and that reader's locale, its key, what its template names, and what travels with it."""

    kind: str
    to: str
    locale: str
    key: str
    customer_id: int | None
    context: dict[str, object]
    attachments: Sequence[Attachment | Stored] = ()


def inform_many(letters: Sequence[Letter]) -> None:
    """Write many in one go about money that moved. One that has no address or cannot be composed is logged and left out: it must not undo the money. Within a transaction."""
    db.many(_ENQUEUE, [row for letter in letters if (row := _row_or_none(letter)) is not None])


def _row_or_none(letter: Letter) -> dict[str, object] | None:
    if not is_address(letter.to):
        log.warning("%s was not mailed: customer %s has no address", letter.key, letter.customer_id)
        return None
    try:
        return _row(letter)
    except Exception:
        log.exception("%s was not mailed: it could not be composed", letter.key)
        return None


def _row(letter: Letter) -> dict[str, object]:
    context = {name: _presented(name, value, letter.to) for name, value in letter.context.items()}
    composed = compose(letter.kind, letter.locale, attachments=letter.attachments, **context)
    return _outgoing(letter.kind, letter.to, *composed, letter.customer_id, letter.key, letter.attachments)


def _presented(name: str, value: object, to: str) -> object:
    """A value as a mail shows it; who has no name is greeted by the address the mail goes to."""
    return harmless(value) if name in _WRITTEN_BY_USERS and isinstance(value, str) and value != to else value


def compose(template: str, locale: str, **context: object) -> Composed:
    """Render a mail in the language of a locale: the first line of its text template is the subject, values are escaped in the HTML one."""
    names = {"seller": config.current().seller, "base_url": config.current().base_url, **context}
    with languages.speaking(locale) as language:
        names |= {"language": language, "direction": languages.direction()}
        subject, _, text = _environment().get_template(f"{template}.txt").render(names).partition("\n")
        html = _environment().get_template(f"{template}.html").render(names | {"preview": _preview(text)})
    return Composed(language, _UNSAFE.sub(" ", subject).strip(), re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", html)


def _preview(text: str) -> str:
    """What lists of mails show beside the subject: the paragraph after the greeting."""
    return " ".join(re.split(r"\n{2,}", text.strip())[1].split())


def enqueue(
    kind: str,
    to: str,
    subject: str,
    text: str,
    html: str | None = None,
    *,
    language: str = languages.SOURCE,
    customer_id: int | None = None,
    key: str,
    attachments: Sequence[Attachment | Stored] = (),
) -> bool:
    """Put one mail into the outbox; False when this key is there already. Raises `MailError`. Within a transaction."""
    return db.execute(_ENQUEUE, **_outgoing(kind, to, language, subject, text, html, customer_id, key, attachments)) == 1


def _outgoing(
    kind: str, to: str, language: str, subject: str, text: str, html: str | None, customer_id: int | None, key: str, attachments: Sequence[Attachment | Stored] = ()
) -> dict[str, object]:
    """The row of a mail. Raises `MailError`."""
    if not is_address(to):
        raise MailError(f"not a mail address: {to!r}")
    if _UNSAFE.search(subject) or not subject:
        raise MailError(f"not a subject: {subject!r}")
    files = [_kept(file) for file in attachments]
    values = {"key": key, "customer_id": customer_id, "kind": kind, "to": to, "language": language, "subject": subject, "text": text, "html": html}
    return values | {"attachments": json.dumps(files), "now": clock.now()}


def deliver(limit: int = 100) -> int:
    """Carry what is due, at most ``limit`` mails, and return how many were sent. A failed one waits longer each time; none is lost.

    Without MAIL_URL the sandbox takes every mail as sent (it is read at /sandbox/mail); outside the sandbox they wait for a server.
    """
    settings = config.current()
    if not settings.mail_url:
        troubles.over("mail_server")
        return _keep_here(limit) if settings.sandbox else 0
    _let_one_try()
    sent = failed = 0
    try:
        with _server(settings.mail_url) as server:
            for _ in range(limit):
                outcome = _deliver_one(server)
                if outcome is None:
                    break
                sent += outcome
                failed += not outcome
    except InClear as error:
        troubles.note("mail_server", f"No mail was sent, all of it waits: {error}")
    except (OSError, smtplib.SMTPException) as error:
        said = str(error) or type(error).__name__
        troubles.note("mail_server", f"The mail server cannot be reached: {said}")
    else:
        _note_round(sent, failed)
    return sent


def _let_one_try() -> None:
    """While the server is in trouble, let one mail try each minute: it will know first when it is over."""
    trouble = troubles.find("mail_server")
    if trouble and clock.now() - trouble.last_at >= PROBE:
        with db.transaction():
            db.execute(_LET_ONE_TRY, now=clock.now())


def _note_round(sent: int, failed: int) -> None:
    """What a round says of the server. Once it takes mails again, those that waited for it are due."""
    if failed >= MANY and not sent:
        troubles.note("mail_server", f"The mail server took none of {failed} mails.")
        return
    trouble = troubles.find("mail_server")
    if trouble is None or not (sent or not db.scalar(_WAITS_FOR_SERVER)):
        return
    if clock.now() - trouble.since >= PROBE:
        with db.transaction():
            db.execute(_RELEASE, now=clock.now())
    troubles.over("mail_server")


def of_customer(customer_id: int, limit: int, before: int | None = None) -> list[Mail]:
    """The mails written to a customer, newest first, those before the id ``before`` when it is given."""
    return [Mail(*row) for row in db.rows(_OF_CUSTOMER, customer_id=customer_id, limit=limit, before=before)]


def one_of_customer(customer_id: int, mail_id: int) -> Mail | None:
    """One mail of this customer."""
    row = db.row(_ONE_OF_CUSTOMER, customer_id=customer_id, id=mail_id)
    return Mail(*row) if row else None


def stuck(limit: int = 1000) -> list[Mail]:
    """Mails a server did not take, waiting for the next try or set aside, oldest first."""
    return [Mail(*row) for row in db.rows(_STUCK, limit=limit)]


def send_again(mail_id: int | None = None) -> int:
    """Put one mail that was set aside, or all of them, back into the outbox; how many. One-time links are over and stay. Opens the transaction."""
    with db.transaction():
        return db.execute(_AGAIN, id=mail_id, now=clock.now(), secret=list(SECRET_KINDS))


def newest(limit: int) -> list[Mail]:
    """Everybody's newest mails, for the sandbox reader."""
    return [Mail(*row) for row in db.rows(_NEWEST, limit=limit)]


def find(mail_id: int) -> Mail | None:
    """Anybody's mail, for the sandbox reader."""
    row = db.row(_ONE, id=mail_id)
    return Mail(*row) if row else None


@cache
def _environment() -> Environment:
    escape = select_autoescape(enabled_extensions=("html",), disabled_extensions=("txt",), default=True)
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False)  # noqa: S701 - escape is the chooser
    languages.install(environment)
    environment.filters.update(strong=Markup("<b>{}</b>").format, mailto=lambda to: Markup('<a href="mailto:{0}">{0}</a>').format(to))
    return environment


def _keep_here(limit: int) -> int:
    with db.transaction():
        return db.execute(_KEPT, now=clock.now(), limit=limit)


def _deliver_one(server: smtplib.SMTP) -> int | None:
    """1 sent, 0 failed, None nothing due."""
    with db.transaction():
        row = db.row(_CLAIM, now=clock.now(), lease=clock.now() + LEASE, patience=clock.now() - PATIENCE)
    if row is None:
        return None
    try:
        # Not send_message, which writes ">From" where a line of a mail begins with "From".
        message = _message(row).as_bytes()
        with outside.call(LONGEST_S):
            outside.watch(server.sock)
            server.sendmail(config.current().mail_from, [row.recipient], message)
    except (OSError, ValueError, smtplib.SMTPException) as error:
        _note_failure(row, error)
        if server.sock is None:  # it hung up, and would refuse every other mail as well
            raise smtplib.SMTPServerDisconnected(str(error)) from error
        return 0
    with db.transaction():
        db.execute(_SENT, id=row.id, now=clock.now(), forget=row.kind in SECRET_KINDS)
    return 1


def _note_failure(row: db.Row, error: Exception) -> None:
    if row.tries >= BELIEVED and _for_good(error):
        log.error("mail %s to customer %s is refused for good and set aside: see flask mail stuck", row.id, row.customer_id)
        with db.transaction():
            db.execute(_REFUSED, id=row.id, now=clock.now(), error=str(error)[:500], forget=row.kind in SECRET_KINDS)
        return
    server_failed = not _for_good(error)
    wait = min(FIRST_WAIT * 2 ** min(row.tries - 1, 20), LONGEST_WAIT)
    log.warning("mail %s was not sent (try %s): %s", row.id, row.tries, type(error).__name__)
    with db.transaction():
        db.execute(_FAILED, id=row.id, due_at=clock.now() + wait, error=str(error)[:500], server_failed=server_failed)


def _for_good(error: Exception) -> bool:
    """Whether a server will never take this mail for this address; that it does not take any of ours is our own fault, not the address's."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500


def _message(row: db.Row) -> EmailMessage:
    settings = config.current()
    message = EmailMessage(policy.SMTP)
    message["From"] = formataddr((settings.seller.brand, settings.mail_from))
    message["To"] = row.recipient
    if settings.seller.email != settings.mail_from:
        message["Reply-To"] = settings.seller.email
    # Folded by hand: EmailMessage leaves a blank at the end of a line it breaks, which other readers show as a second one.
    message.set_raw("Subject", Header(row.subject, None if row.subject.isascii() else "utf-8", header_name="Subject").encode())
    message["Date"] = format_datetime(row.created_at)
    name = hashlib.sha256(row.key.encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{name}@{settings.mail_from.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(row.body_text, cte="quoted-printable")
    if row.body_html:
        message.add_alternative(row.body_html, subtype="html", cte="quoted-printable")
    stored = {found.number: bytes(found.pdf) for found in db.rows(_FILES, numbers=[file["document"] for file in row.attachments if "document" in file])} if row.attachments else {}
    for file in row.attachments:
        content = base64.b64decode(file["base64"]) if "base64" in file else stored.get(file["document"])
        if content is None:
            log.warning("mail %s left without %s, which is not printed", row.id, file["filename"])
        else:
            main, _, sub = file["type"].partition("/")
            message.add_attachment(content, maintype=main, subtype=sub, filename=file["filename"])
    message["Content-Language"] = row.language  # last: bodies and files take the Content- headers there are for their own
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        part.set_boundary(f"=_{name}.{number}")  # the same mail again is the same bytes
    return message


def _kept(file: Attachment | Stored) -> dict[str, str]:
    """How a file stands with its mail in the outbox."""
    if isinstance(file, Stored):
        return {"filename": f"{file.number}.pdf", "type": "application/pdf", "document": file.number, "path": file.path}
    return {"filename": file.filename, "type": file.content_type, "base64": base64.b64encode(file.content).decode()}


@contextmanager
def _server(mail_url: str) -> Iterator[smtplib.SMTP]:
    """A signed-in connection, encrypted wherever that can be had; certificates are checked. Raises `InClear`.

    ``smtps`` is TLS from the first byte, ``smtp+starttls`` insists on STARTTLS, ``smtp`` takes it where
    it is offered. A password leaves this machine only encrypted. To a server on this machine itself, mail
    without a password stays plain: there is no line to listen to, and its certificate is often its own.
    """
    url = urlsplit(mail_url)
    context = ssl.create_default_context()
    with outside.call(SIGN_IN_S):
        server = _connect(url, context)
        try:
            _encrypt(server, url, context)
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
        except BaseException:
            server.close()
            raise
    try:
        yield server
    finally:
        _hang_up(server)


def _hang_up(server: smtplib.SMTP) -> None:
    """Say goodbye. How that is answered says nothing of the mails."""
    with suppress(OSError, smtplib.SMTPException), outside.call(GOODBYE_S):
        outside.watch(server.sock)
        server.docmd("QUIT")
    server.close()


def _encrypt(server: smtplib.SMTP, url: SplitResult, context: ssl.SSLContext) -> None:
    here = _is_here(server)
    server.ehlo_or_helo_if_needed()
    if url.scheme == "smtps" or (url.scheme == "smtp" and here and not url.username):
        return
    if url.scheme == "smtp+starttls" or server.has_extn("starttls"):
        server.starttls(context=context)
    elif url.username and not here:
        said = f"{url.hostname} offers no STARTTLS, and MAIL_URL has a password that would travel readable"
        raise InClear(f"{said}. Use smtps:// where the server speaks it, or a server that encrypts.")


def _is_here(server: smtplib.SMTP) -> bool:
    """Whether the server that answered is on this machine."""
    return server.sock is not None and ip_address(server.sock.getpeername()[0]).is_loopback


class _Plain(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect so that it can be cut off."""
        line: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        outside.watch(line)
        return line


class _Encrypted(smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect so that it can be cut off."""
        line: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        outside.watch(line)
        return line


def _connect(url: SplitResult, context: ssl.SSLContext) -> smtplib.SMTP:
    host = url.hostname or "localhost"
    if url.scheme == "smtps":
        return _Encrypted(host, url.port or 465, timeout=TIMEOUT_S, context=context)
    return _Plain(host, url.port or (587 if url.scheme == "smtp+starttls" else 25), timeout=TIMEOUT_S)
