"""A processor that hangs holds nothing up but itself: it is left alone, its page says so, everything else goes on, and it heals by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from stripe import HTTPClient

from app import clock, db, gateways, jobs, payments, refunds, services
from app.customers import User
from app.gateways import stripe as adapter
from app.gateways.base import Misconfigured, NoAnswer, Refused
from app.payments import cards, outages
from app.payments.outages import LeftAlone
from app.sandbox_processor import CHOICES
from tests.conftest import BERLIN, Browser, person
from tests.gateways.rigs import StripeRig
from tests.money_helpers import EUR
from tests.pay import again, begin, processor, times_credited, topup
from tests.processors import Rig, Time, everywhere, ours, theirs
from tests.trade import fund, offer_plans

START = datetime(2026, 11, 10, 12, tzinfo=UTC)
DUE = datetime(2026, 12, 11, 12, tzinfo=UTC)
TRIES = 3
"""How often the SDK repeats one call that hangs."""


@pytest.fixture
def rigs(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Rig]]:
    """Two processors, in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    with everywhere(app) as found:
        gateways.use({name: found[name].gateway for name in ("stripe", "paypal")})
        yield {name: found[name] for name in ("stripe", "paypal")}


@pytest.fixture
def stripe(rigs: dict[str, Rig]) -> StripeRig:
    """The one that hangs."""
    rig = rigs["stripe"]
    assert isinstance(rig, StripeRig)
    rig.fake.hang_s = 0.1
    return rig


@contextmanager
def hanging(stripe: StripeRig) -> Iterator[list[tuple[str, str]]]:
    """It takes every call and answers none, and is waited for a twentieth of a second; the calls that hung."""
    fake, waited = stripe.fake, adapter.READ_TIMEOUT_S
    fake.script += ["hang-before"] * 2000
    before, hung = len(fake.calls), []
    _wait(stripe, 0.05)
    try:
        yield hung
    finally:
        _wait(stripe, waited)
        fake.script.clear()
        hung += fake.calls[before:]


def _wait(stripe: StripeRig, seconds: float) -> None:
    """Let its client, made anew, wait so long for an answer."""
    adapter.READ_TIMEOUT_S = seconds
    vars(stripe.gateway).pop("_client", None)


def turn() -> dict[str, object]:
    """A round of every job but the one that asks for the rates of the day."""
    return dict(jobs.once(None, [job for job in jobs.JOBS if job.name != "rates"]))


def unanswered(about: str, gateway: str = "stripe") -> None:
    """A call about something that gets no answer."""
    with pytest.raises(NoAnswer), outages.asking(gateway, "lookup", about):
        raise NoAnswer("timed out")


def silence(gateway: str = "stripe") -> None:
    """It answers nothing any more."""
    for name in ("a", "b", "c"):
        unanswered(name, gateway)


# The whole of it


def test_a_hanging_stripe_holds_up_neither_paypal_nor_the_mail_and_nothing_is_doubled(rigs: dict[str, Rig], stripe: StripeRig):
    offer_plans()
    time = Time(rigs)
    with time.at(START):
        users = [person(f"payer-{number}", profile=BERLIN) for number in range(30)]
        for user in users:
            _saves_a_card_for_a_service(stripe, user)
    with time.at(DUE):
        services.renew_due()
        waiting = [begin(topup(user, EUR("25")), "paypal-paypal") for user in users[:5]]
        for payment in waiting:
            rigs["paypal"].pay(payment.gateway_reference or "")
    with time.at(DUE + timedelta(minutes=2)):
        with hanging(stripe) as hung:
            turn()
        assert len(hung) <= 3 * TRIES
        assert [again(payment).state for payment in waiting] == ["paid"] * 5
        with hanging(stripe) as hung:
            turn()
        assert hung == []
        assert db.scalar("select count(*) from mails where sent_at is null") == 0
    assert _charged(stripe) == 0
    for minutes in (6, 40, 100, 160):
        with time.at(DUE + timedelta(minutes=minutes)):
            turn()
            turn()
    assert outages.known() == []
    # What came by PayPal renews from the balance what Stripe had not been asked for yet.
    assert (_charged(stripe), len(stripe.fake.intents)) == (25 * 23_80, 25)
    assert db.scalar("select count(*) from renewals where transfer_id is null") == 0
    assert {times_credited(payment) for payment in waiting} == {1}
    assert db.scalar("select count(*) from payments where state = 'paid'") == 25 + 5
    assert {name: theirs(rig) for name, rig in rigs.items()} == {name: ours(name) for name in rigs}


def _saves_a_card_for_a_service(stripe: StripeRig, user: User) -> None:
    assert user.customer_id
    stripe.fake.save(cards.add(user.customer_id).reference)
    cards.reconcile()
    fund(user.customer_id, 23_80)
    service = services.order(user.customer_id, "vps-4", 1)
    services.pay_from(user.customer_id, service.public_id, cards.of_customer(user.customer_id)[0].public_id)


def _charged(stripe: StripeRig) -> int:
    return sum(intent["amount_received"] for intent in stripe.fake.intents.values())


def test_refunds_of_a_hanging_processor_wait_and_those_of_another_go(rigs: dict[str, Rig], stripe: StripeRig):
    numbers = {}
    for name, count in (("stripe", 5), ("paypal", 2)):
        for place in range(count):
            user = person(f"{name}-{place}", profile=BERLIN)
            payment = begin(topup(user, EUR("25")), f"{name}-{'card' if name == 'stripe' else 'paypal'}")
            rigs[name].pay(payment.gateway_reference or "")
            payments.refresh(payment)
            numbers[refunds.request(user.customer_id or 0, payment.public_id, EUR("10"), "")] = name
    with clock.travel(clock.now() + timedelta(seconds=5)):
        payments.reconcile_all()
        for number in numbers:
            refunds.approve(number, actor="staff:sam")
        with hanging(stripe) as hung:
            assert (refunds.pay_out_due(), refunds.pay_out_due()) == (2, 0)
        assert len(hung) <= 3 * TRIES
        untouched = [number for number, name in numbers.items() if name == "stripe"][3:]
        assert db.scalar("select count(*) from refunds where number = any(%(numbers)s) and attempted_at is not null", numbers=untouched) == 0
        with clock.travel(clock.now() + timedelta(minutes=2)):
            assert refunds.pay_out_due() == 5
    assert (rigs["stripe"].books()["EUR"].refunded, rigs["paypal"].books()["EUR"].refunded) == (50_00, 20_00)


# What is an outage, and for how long


def test_one_question_alone_is_no_outage_however_often_it_is_asked(app: Flask):
    for _ in range(10):
        unanswered("pay_1")
    assert (outages.left_alone(), outages.known()) == (frozenset(), [])
    unanswered("pay_2")
    unanswered("pay_3")
    assert outages.left_alone() == {"stripe"}


def test_an_answer_in_between_begins_the_count_anew_and_a_no_is_an_answer(app: Flask):
    for answer in (None, Refused("no"), Misconfigured("wrong key")):
        unanswered("a")
        unanswered("b")
        try:
            with outages.asking("stripe", "refund", "c"):
                if answer:
                    raise answer
        except (Refused, Misconfigured):
            assert answer
        unanswered("d")
        assert outages.left_alone() == frozenset()
        with outages.asking("stripe", "lookup", "e"):
            assert True


def test_one_call_tries_again_after_a_while_and_the_others_wait_for_it(app: Flask):
    silence()
    now = clock.now()
    with pytest.raises(LeftAlone), outages.asking("stripe", "lookup", "d"):
        pytest.fail("it was asked")
    with clock.travel(now + timedelta(seconds=61)):
        with outages.asking("stripe", "lookup", "d"):
            with pytest.raises(LeftAlone), outages.asking("stripe", "lookup", "e"):
                pytest.fail("two tried at once")
            with outages.asking("paypal", "lookup", "f"):
                assert True
        with outages.asking("stripe", "lookup", "g"):
            assert True
    assert db.scalar("select count(*) from outages") == 0


def test_it_is_left_alone_ever_longer_but_never_for_long(app: Flask):
    silence()
    now, pauses = clock.now(), []
    for _ in range(6):
        until = db.scalar("select until from outages")
        pauses.append(round((until - now).total_seconds() / 60))
        now = until
        with clock.travel(now):
            unanswered("again")
    assert pauses == [1, 2, 4, 8, 10, 10]


def test_a_try_whose_process_died_is_made_by_another(app: Flask):
    silence()
    now = clock.now()
    with clock.travel(now + timedelta(seconds=61)):
        entered = outages.asking("stripe", "lookup", "d")
        entered.__enter__()
    with clock.travel(now + timedelta(seconds=62) + outages.PROBE), outages.asking("stripe", "lookup", "e"):
        assert True
    assert outages.left_alone() == frozenset()


def test_who_asks_about_everything_by_hand_need_not_wait(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, EUR("25")))
    processor(app).choose(payment.gateway_reference or "", CHOICES["silent"])
    silence("sandbox")
    assert payments.reconcile_all() == {"created → paid": 1}
    assert outages.left_alone() == frozenset()


# What is seen of it


def test_the_payment_page_says_that_a_method_is_not_available_now_and_offers_it_again(app: Flask, owner: Browser, demo_customer: User, staff: Browser):
    bill = topup(demo_customer, EUR("25"))
    page = f"/invoices/{bill.number}/pay"
    assert 'value="sandbox-card"' in owner.get(page).text
    silence("sandbox")
    shown = owner.get(page).text
    assert 'value="sandbox-card"' not in shown
    assert "The processor does not answer at the moment" in shown
    refused = owner.submit(page, {"method": "sandbox-card"})
    assert "not available here: the processor does not answer at the moment" in refused.text
    assert payments.open_of(bill.id) == []
    assert "gives no answer since" in staff.get("/staff/held").text
    assert 'client_area_processor_trouble{processor="sandbox"}' in staff.get("/metrics").text
    assert "no_answer sandbox since" in staff.get("/readyz").text
    assert staff.get("/readyz", headers={"X-Forwarded-For": "198.51.100.7"}).text == "ready\n"
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert begin(bill, "sandbox-card").state == "created"
    assert outages.known() == []


def test_who_is_not_configured_any_more_is_no_trouble(app: Flask):
    silence("stripe")
    assert gateways.get("stripe") is None
    assert outages.known() == []
