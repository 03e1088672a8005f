"""What is read from outside: XML of banks and feeds, JSON of processors, archives, and values that travel in mails."""

import gzip
import json
import re
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import bank, clock, db, fx, mail
from app.bank import FileRefused, reports
from app.gateways.sandbox import SIGNATURE_HEADER, sign
from tests import letters
from tests.pay import processor
from tests.test_documents import _listening as listening

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "billion laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><Document>&l9;</Document>',
    "a file": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><Document>&f;</Document>',
    "the network": '<?xml version="1.0"?><!DOCTYPE x SYSTEM "{address}/x.dtd"><Document/>',
    "a parameter": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY % p SYSTEM "{address}/p">%p;]><Document/>',
}
READERS: dict[str, Callable[[bytes], object]] = {
    "statement": bank.read,
    "status report": reports.take_in,
    "rates": fx.import_feed,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", HOSTILE)
def test_no_xml_makes_a_reader_expand_or_fetch_anything(app: Flask, reader: str, attack: str) -> None:
    with listening() as (address, hits):
        text = HOSTILE[attack].replace("{address}", address)
        for data in (text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode()):
            began = time.process_time()
            with pytest.raises((FileRefused, fx.FeedRefused), match=r"document type|damaged|not readable") as refused:
                READERS[reader](data)
            assert time.process_time() - began < 1
            assert "root:" not in str(refused.value)
            assert "haha" not in str(refused.value)
    assert hits == []


def packed() -> dict[str, bytes]:
    """Nothing, ten million times, in three kinds of archive."""
    zipped = BytesIO()
    with ZipFile(zipped, "w", ZIP_DEFLATED) as archive:
        archive.writestr("statement.xml", b"<" + b" " * 10_000_000)
        archive.writestr("../../evil.xml", b"<x/>")
    return {"zip": zipped.getvalue(), "gzip": gzip.compress(b" " * 10_000_000), "program": b"\x7fELF" + b"\0" * 64}


@pytest.mark.parametrize("kind", ["zip", "gzip", "program"])
def test_an_archive_or_a_program_is_no_statement(app: Flask, kind: str) -> None:
    with pytest.raises(FileRefused):
        bank.read(packed()[kind])
    assert db.scalar("select count(*) from bank_lines") == 0


def test_the_deepest_json_is_refused_and_not_an_error(app: Flask, anonymous: FlaskClient) -> None:
    for body in (b"[" * 100_000, b'{"a":' * 40_000 + b"1" + b"}" * 40_000, b'{"id": 1e999999}', b'{"id": ' + b"9" * 5000 + b"}", b"\xff\xfe{"):
        seal = sign(body, processor(app).secret, int(clock.now().timestamp()))
        answer = anonymous.post("/webhooks/sandbox", data=body, headers={SIGNATURE_HEADER: seal})
        assert answer.status_code in {200, 400}, body[:10]
    assert db.scalar("select count(*) from webhooks where state = 'done'") == 0


INJECTED = "Anna\u2028\x85 x\r\nBcc: evil@example.com\r\n\r\n<b>{{7*7}}</b> {0.__class__} %s ${7*7}"
EXPECTED = {
    *("from", "to", "reply-to", "subject", "date", "message-id", "auto-submitted", "x-auto-response-suppress"),
    *("content-language", "content-type", "content-transfer-encoding", "mime-version"),
}


def hostile(value: object) -> object:
    """The same facts with hostile text in the place of every text a person could have written."""
    if isinstance(value, str) and value and not value.startswith("http") and value not in STATES:
        return INJECTED
    if isinstance(value, dict):
        return {name: hostile(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry) for entry in value]
    return value


STATES = {sample["state"] for samples in letters.SAMPLES.values() for sample in samples if "state" in sample}


@pytest.mark.parametrize("kind", sorted(letters.SAMPLES))
def test_no_value_of_a_mail_adds_a_header_a_recipient_or_markup(app: Flask, kind: str) -> None:
    for number, sample in enumerate(letters.SAMPLES[kind]):
        facts = {name: hostile(value) if name not in {"state", "attachments"} else value for name, value in sample.items()}
        composed = mail.compose(kind, "de", **facts)
        assert not re.search(r"[\r\n]", composed.subject)
        assert "<b>{{7*7}}</b>" not in composed.html
        assert ">49<" not in composed.html
        assert " 49 " not in composed.text
        assert "class '" not in composed.text
        with db.transaction():
            mail.enqueue(kind, "anna@example.com", composed.subject or "x", composed.text, composed.html, key=f"{kind}:{number}")
        row = db.row("select * from mails where key = %(key)s", key=f"{kind}:{number}")
        assert row
        message = message_from_bytes(mail._message(row).as_bytes(), policy=policy.default)
        assert {name.lower() for name in message} <= EXPECTED
        assert message["To"] == "anna@example.com"
        assert message["Bcc"] is None
        for part in message.walk():
            assert {name.lower() for name in part} <= EXPECTED


def test_a_name_of_a_file_that_travels_stays_in_its_header(app: Flask) -> None:
    name = 'invoice"\r\nBcc: evil@example.com\r\n.pdf'
    files = [mail.Attachment(name, "application/pdf", b"%PDF-1.7")]
    with db.transaction():
        mail.enqueue("notice", "anna@example.com", "Hello", "Text\n", key="k", attachments=files)
    row = db.row("select * from mails where key = 'k'")
    assert row
    try:
        raw = mail._message(row).as_bytes()
    except ValueError:
        return  # the library refuses such a name
    message = message_from_bytes(raw, policy=policy.default)
    assert message["Bcc"] is None
    assert all(part["Bcc"] is None for part in message.walk())


def test_what_a_spreadsheet_would_run_is_made_text(app: Flask) -> None:
    from app.web import spreadsheet

    for start in ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20", " =", "'=", '"=', "\u00a0="):
        assert spreadsheet.harmless(f"{start}cmd|' /C calc'!A0").startswith("'"), repr(start)
    assert spreadsheet.harmless("VPS 4 = cheap") == "VPS 4 = cheap"


def test_searching_takes_no_longer_for_a_hostile_text(owner: FlaskClient) -> None:
    def took(text: str) -> float:
        began = time.process_time()
        assert owner.get("/invoices", query_string={"q": text}).status_code in {200, 422}
        return time.process_time() - began

    took("plain")
    usual = min(took("a quiet search") for _ in range(3))
    for text in ("(a+)+$", "%_%_%_%_%_%", "\\" * 50, "[[[[[" * 10, "(?:a*)*" * 8):
        assert min(took(text) for _ in range(3)) < usual + 0.05, text


def test_marks_of_a_search_are_letters(owner: FlaskClient, demo_customer: object) -> None:
    assert owner.submit("/add-funds", {"amount": "25", "currency": "EUR"}).status_code == 303
    assert "PF-" in owner.get("/invoices?q=PF").text
    for text in ("%", "_", "P%F", "P_-"):
        page = owner.get("/invoices", query_string={"q": text}).text
        assert "/pay" not in page.partition('id="results"')[2].partition("</table>")[0], text


def test_json_is_written_by_the_library(app: Flask) -> None:
    text = json.dumps({"x": '</script>\u2028"'})
    assert "\u2028" not in text
