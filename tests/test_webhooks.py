"""The endpoint that processors speak to: kept and answered at once, refused unless proven, never a session, never a redirect."""

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


def test_again_is_200_and_kept_once(app: Flask, anonymous: FlaskClient):
    for _ in range(3):
        assert anonymous.post("/webhooks/sandbox", data=BODY, headers=signed(app)).status_code == 200
    assert db.scalar("select count(*) from webhooks") == 1


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


def test_a_body_under_a_right_signature_that_is_no_event_is_refused(app: Flask, anonymous: FlaskClient):
    for body in (b"[]", b"{}", b"null", b"\xff", b'{"id": 1, "type": null, "created": "x", "account": [], "reference": {}}', b"[" * 5000):
        assert anonymous.post("/webhooks/sandbox", data=body, headers=signed(app, body)).status_code == 400


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
