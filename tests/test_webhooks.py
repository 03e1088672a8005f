"""The endpoint that processors speak to: kept and answered at once, refused unless proven, never a session, never a redirect."""

import json
import logging
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import clock, db, payments, wallet
from app.customers import User
from app.gateways.sandbox import SIGNATURE_HEADER, sign
from app.money import Money
from tests.conftest import BERLIN, person
from tests.pay import again, begin, carry, choose, processor, topup
from tests.processors import deliveries, everywhere, ours, theirs

BODY = b'{"id": "sbe_1", "type": "payment.paid", "created": 1790000000, "account": "acct_sandbox", "reference": "sb_1"}'


def signed(app: Flask, body: bytes = BODY) -> dict[str, str]:
    return {SIGNATURE_HEADER: sign(body, processor(app).secret, int(clock.now().timestamp())), "content-type": "application/json"}


def test_what_is_signed_is_kept_and_answered_without_looking_it_up(app: Flask, anonymous: FlaskClient, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    processor(app).down = True
    try:
        answer = anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app))
    finally:
        processor(app).down = False
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert "Set-Cookie" not in answer.headers
    kept = db.row("select gateway, event_id, body, state from webhooks")
    assert kept is not None
    assert (kept.gateway, kept.event_id, bytes(kept.body), kept.state) == ("sandbox", "sbe_1", BODY, "new")
    assert wallet.state(demo_customer.customer_id or 0).available == 0


def test_again_is_200_and_kept_once_and_writes_nothing(app: Flask, anonymous: FlaskClient):
    versions = set()
    for _ in range(3):
        assert anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app)).status_code == 200
        versions |= {(row.id, row.version) for row in db.rows("select id, xmin::text as version from webhooks")}
    assert len(versions) == 1


@pytest.mark.parametrize("headers", [{}, {SIGNATURE_HEADER: ""}, {SIGNATURE_HEADER: "t=1,v1=00"}, {SIGNATURE_HEADER: "nonsense"}])
def test_without_its_signature_nothing_is_kept(anonymous: FlaskClient, headers: dict[str, str]):
    assert anonymous.post("/webhooks/sandbox", data=BODY, headers=headers).status_code == 400
    assert db.scalar("select count(*) from webhooks") == 0


def test_a_processor_that_is_not_configured_does_not_exist(app: Flask, anonymous: FlaskClient):
    for name in ("stripe", "paypal", "nobody"):
        assert anonymous.post(f"/webhooks/{name}", data=BODY, headers=signed(app)).status_code == 404
    assert anonymous.get("/webhooks/sandbox").status_code == 405


@pytest.mark.parametrize("body", [b"", b"x" * (256 * 1024 + 1)])
def test_an_empty_or_an_endless_body_is_refused_unread(app: Flask, anonymous: FlaskClient, body: bytes):
    assert anonymous.post("/webhooks/sandbox", data=body, headers=signed(app, body)).status_code == 413
    assert db.scalar("select count(*) from webhooks") == 0


def test_a_body_under_a_right_signature_that_is_no_event_is_kept_for_a_person(app: Flask, anonymous: FlaskClient):
    bodies = (b"[]", b"null", b"\xff", b"[" * 5000)
    for body in bodies:
        assert anonymous.post("/webhooks/sandbox", data=body, headers=signed(app, body)).status_code == 200
    assert [(row.state, bytes(row.body)) for row in db.rows("select state, body from webhooks order by id")] == [("parked", body) for body in bodies]
    assert {one.why.partition(":")[0] for one in payments.parked()} == {"unreadable_event"}
    assert payments.process_due() == {}


@pytest.mark.parametrize("name", ["\0", "\ud800", "\n", "x" * 256], ids=["NUL", "surrogate", "line", "long"])
@pytest.mark.parametrize("field", ["id", "reference", "type", "account"])
def test_a_name_that_cannot_be_kept_is_kept_by_another(app: Flask, anonymous: FlaskClient, field: str, name: str):
    body = json.dumps({"id": "sbe_1", "type": "payment.paid", "created": 1790000000, "account": "acct_sandbox", "reference": "sb_1", field: name}).encode()
    assert anonymous.post("/webhooks/sandbox", data=body, headers=signed(app, body)).status_code == 200
    kept = db.row("select event_id, state from webhooks")
    assert kept is not None
    if len(name) == 1 or field in {"id", "reference"}:  # a long type or account stands in no index
        assert (kept.event_id[:5], kept.state) == ("body-", "parked")


def test_an_event_that_is_about_nothing_of_ours_ends_in_the_inbox(app: Flask, anonymous: FlaskClient):
    anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app))
    assert payments.process_due() == {"ignored": 1}
    assert payments.process_due() == {}


def test_the_processor_tries_again_until_it_is_heard(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    assert processor(app).deliver(lambda _body, _headers: 500) == 0
    assert processor(app).deliver(lambda _body, _headers: 200) == 0
    from datetime import timedelta

    with clock.travel(clock.now() + timedelta(minutes=1)):
        assert carry(app) == 1
    assert again(payment).state == "paid"


def test_nothing_secret_is_logged(app: Flask, anonymous: FlaskClient, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app) | {"authorization": "Bearer canary-7"})
    assert "canary-7" not in caplog.text
    assert processor(app).secret not in caplog.text


def test_a_flood_from_everywhere_shuffled_and_repeated_credits_each_once(app: Flask):
    """What `benchmarks/webhooks.py` does with ten thousand, with 400, the inbox worked meanwhile."""
    with everywhere(app) as rigs:
        people = [person(f"payer-{number}", profile=BERLIN) for number in range(5)]
        for number in range(100):
            rig = list(rigs.values())[number % 5]
            rig.pay(begin(topup(people[number % 5], Money(20_00 + number, "EUR")), rig.method).gateway_reference or "")
        waiting = [(name, *webhook) for name, rig in rigs.items() for webhook in deliveries(rig, 80)]
        random.Random(5).shuffle(waiting)

        def deliver(share: int) -> set[int]:
            with app.app_context():
                answers = {app.test_client().post(f"/webhooks/{name}", data=body, headers=headers).status_code for name, body, headers in waiting[share::3]}
                payments.process_due()
            return answers

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(deliver, range(3))) == [{200}] * 3
        payments.process_due()
        assert [tuple(row) for row in db.rows("select state, count(*) from payments group by 1")] == [("paid", 100)]
        assert db.scalar("select count(*) from webhooks where state <> 'done'") == 0
        assert db.scalar("select count(*) from transfers where kind = 'topup'") == 100
        assert sum(wallet.state(user.customer_id or 0).available for user in people) == sum(20_00 + number for number in range(100))
        assert {name: theirs(rig) for name, rig in rigs.items()} == {name: ours(name) for name in rigs}


def test_many_without_a_signature_are_told_to_stop_and_a_genuine_one_is_never_refused(app: Flask, anonymous: FlaskClient):
    answers = [anonymous.post("/webhooks/sandbox", data=BODY, headers={SIGNATURE_HEADER: "t=1,v1=00"}) for _ in range(62)]
    assert [answer.status_code for answer in answers] == [400] * 60 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app)).status_code == 200
    assert anonymous.post("/webhooks/sandbox", data=BODY, headers={SIGNATURE_HEADER: "t=1,v1=00"}, environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code == 400


def test_poison_keeps_nothing_else_from_its_work(app: Flask, anonymous: FlaskClient, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    foreign = BODY.replace(b"acct_sandbox", b"acct_other").replace(b"sbe_1", b"sbe_2")
    unknown = BODY.replace(b"payment.paid", b"moon.landed").replace(b"sbe_1", b"sbe_3")
    for body, status in ((b"{", 200), (b"x" * 10_000_000, 413), (foreign, 200), (unknown, 200)):
        assert anonymous.post("/webhooks/sandbox", data=body, headers=signed(app, body)).status_code == status
    carry(app)
    assert again(payment).state == "paid"
    assert sorted(row.state for row in db.rows("select state from webhooks")) == ["done", "ignored", "parked", "parked"]


def test_an_answer_that_cannot_be_of_its_payment_is_parked_at_once_with_its_sentence(app: Flask, demo_customer: User):
    payment, other = begin(topup(demo_customer, Money.of("25", "EUR"))), begin(topup(demo_customer, Money.of("26", "EUR")))
    with db.transaction():
        db.execute("update payments set gateway_reference = 'sb_elsewhere' where id = %(id)s", id=payment.id)
    body = BODY.replace(b"sb_1", (payment.gateway_reference or "").encode())
    inbox_id = payments.receive("sandbox", body, signed(app, body))
    assert payments.process(inbox_id) == "parked"
    assert "is sb_elsewhere at sandbox, not sb_" in db.scalar("select error from webhooks where id = %(id)s", id=inbox_id)
    assert payments.process_due() == {}
    assert (again(other).state, wallet.state(demo_customer.customer_id or 0).available) == ("created", 0)
