"""What the log holds, and what never stands in it."""

import json
import logging
from collections.abc import Iterator

import pytest
from flask import Flask

from app import db, invoicing, jobs
from tests.conftest import PASSWORD
from tests.test_access_matrix import NEW_PASSWORD, PARTIAL, TABLE, House
from tests.test_bad_input import forget_tries

OWN = "client_area"
CANARIES = {
    "name": "Canary Kowalska",
    "street": "Canary Street 77",
    "po_number": "PO-CANARY-1",
    "billing_email": "canary@example.org",
}


class Listener(logging.Handler):
    """Keeps every record of every logger, as the program itself writes it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        own = (handler for name in (OWN, "") for handler in logging.getLogger(name).handlers)
        self.setFormatter(next((handler.formatter for handler in own if type(handler) is logging.StreamHandler), None))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down."""
        self.lines.append(self.format(record))


@pytest.fixture
def written(app: Flask) -> Iterator[list[str]]:
    """What is logged meanwhile, by anybody."""
    del app  # has set up the log
    listener = Listener()
    root, own = logging.getLogger(), logging.getLogger(OWN)
    level = root.level
    root.setLevel(logging.INFO)
    heard = [root, *([] if own.propagate else [own])]
    for logger in heard:
        logger.addHandler(listener)
    yield listener.lines
    for logger in heard:
        logger.removeHandler(listener)
    root.setLevel(level)


def test_no_secret_and_no_personal_data_stands_in_the_log(house: House, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address is asked and every form sent, by everybody, with canaries in them."""
    owner = house.clients["owner"]
    cookie = owner.get_cookie("sid")
    assert cookie
    profile = {**TABLE["POST profile.save"].data, **CANARIES}
    assert owner.submit("/profile", profile).status_code == 303
    for name, route in TABLE.items():
        forget_tries()
        for who in ("owner", "staff", "anonymous"):
            client = house.client(who) if name in {"POST auth.logout", "POST profile.change_password"} else house.clients[who]
            path = house.path(name)
            if name.startswith("GET"):
                client.get(f"{path}?q=canary-query&token=canary-token", headers={**PARTIAL, "Authorization": "Bearer canary-bearer"})
            else:
                client.submit(path, {**route.data, "note": "canary-note"})
    house.client("anonymous").submit("/login", {"login": "anna", "password": "canary-wrong-password"})
    monkeypatch.setattr(invoicing, "search", lambda *_: 1 / 0)
    house.app.config["PROPAGATE_EXCEPTIONS"] = False
    house.client("owner").get("/invoices")
    jobs.once(None, jobs.JOBS)
    things = (house.things.reset, house.things.verify, house.things.bill_link, house.things.topup_link, house.things.paid_link)
    secrets = (PASSWORD, NEW_PASSWORD, str(cookie.value), *things, house.app.secret_key, *CANARIES.values())
    text = "\n".join(written)
    assert len(written) > 200
    assert [secret for secret in secrets if str(secret) in text] == []
    assert "canary" not in text.lower()
    assert "@example" not in text
    assert "$argon2id$" not in text


def test_a_line_of_the_request_log_says_when_what_and_how_it_ended(house: House, written: list[str]) -> None:
    house.clients["owner"].get("/balance")
    house.clients["owner"].get("/staff/refunds")
    house.client("anonymous").get("/balance")
    lines = [line for line in map(json.loads, written) if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in lines] == [("/balance", 200), ("/staff/refunds", 404), ("/balance", 303)]
    for line in lines:
        assert line["at"].endswith("+00:00")
        assert line["reference"]
        assert line["method"] == "GET"
    assert len({line["reference"] for line in lines}) == 3


def test_no_request_writes_a_line_of_its_own_making(house: House, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    forged = '{"event": "forged"}'
    client = house.client("anonymous")
    for path in (f"/x%0d%0a{forged}", f"/login?next=%0a{forged}", "/login%00", "/\u2028x", "/pay/%0a" + forged):
        client.get(path, headers={"User-Agent": f"x {forged}", "Referer": f"http://localhost/{forged}"})
    client.submit("/login", {"login": f"anna\n{forged}", "password": f"x\r\n{forged}"})

    def break_down(*_: object) -> None:
        raise RuntimeError(f"one\r\n{forged}\u2028two")

    monkeypatch.setattr(invoicing, "search", break_down)
    house.app.config["PROPAGATE_EXCEPTIONS"] = False
    house.client("owner").get("/invoices")
    assert written
    for line in written:
        assert len(line.splitlines()) == 1, line
        assert json.loads(line)["event"] != "forged"


def test_coming_in_going_out_and_failing_to_are_in_the_security_log(house: House) -> None:
    client = house.client("anonymous")
    client.submit("/login", {"login": "anna", "password": "not-the-password"})
    client.submit("/login", {"login": "nobody-here", "password": "not-the-password"})
    client.submit("/login", {"login": "anna", "password": PASSWORD})
    client.submit("/security/email", {"email": "new@example.com", "confirm": "not-the-password"})
    client.submit("/logout")
    kinds = [row.kind for row in db.rows("select kind, ip, at from security_events order by id desc limit 5")]
    assert kinds[::-1] == ["sign_in_failed", "sign_in_failed", "signed_in", "password_check_failed", "signed_out"]
    assert db.scalar("select count(*) from security_events where at is null or ip is null") == 0
    assert "not-the-password" not in str(db.rows("select details from security_events"))


def test_the_clock_of_every_record_is_utc(app: Flask) -> None:
    assert db.scalar("show timezone") == "UTC"
    with db.transaction():
        assert db.scalar("show timezone") == "UTC"
