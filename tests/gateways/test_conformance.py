"""What every gateway must hold to: once made, once paid; proven, looked up, compared; and patient with whoever does not answer."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import permutations

import pytest
from flask import Flask

from app import clock, db, payments, wallet
from app.customers import User
from app.gateways.base import BadSignature, Charge, Event, NoAnswer, Redirect, Refused, Snapshot, UnreadableEvent
from app.money import Money
from app.payments import Payment, ProcessorDown
from tests.gateways.conftest import BARE, EXACT, INEXACT, Rig, rigged
from tests.gateways.conftest import only as rigs_of
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, SandboxRig
from tests.pay import again, begin, times_credited, topup

EUR_25 = Money.of("25", "EUR")


@pytest.fixture(params=[*EXACT, *INEXACT, *BARE])
def rig(request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Each gateway in turn, and once more with answers that leave out whatever may be left out."""
    yield from rigged(request, app, monkeypatch)


def only(*names: str) -> pytest.MarkDecorator:
    """These gateways alone, both ways."""
    return rigs_of(*names, *(bare for bare in BARE if bare.partition(" ")[0] in names))


def charge(name: str = "pay_conformance", amount: Money = EUR_25) -> Charge:
    expires_at = clock.now().replace(microsecond=0) + timedelta(hours=1)
    return Charge(name, amount, "card", "Account funds", "Account funds PF-1", "http://localhost/payments/x", "http://localhost/invoices/PF-1/pay", expires_at, "anna@example.com")


def open_session(rig: Rig, name: str = "pay_conformance") -> str:
    handoff = rig.gateway.checkout(charge(name))
    assert isinstance(handoff, Redirect)
    return handoff.reference


def paying(rig: Rig, user: User) -> Payment:
    payment = begin(topup(user, EUR_25), rig.method)
    assert payment.gateway_reference
    return payment


def tell(rig: Rig, body: bytes, headers: dict[str, str]) -> None:
    payments.process(payments.receive(rig.gateway.name, body, headers))


def tell_all(rig: Rig) -> None:
    for webhook in rig.webhooks():
        tell(rig, *webhook)


def balance(user: User) -> int:
    assert user.customer_id
    return wallet.state(user.customer_id).available


def suspense() -> int:
    return db.scalar("select coalesce(sum(e.amount), 0)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = 'suspense'")


# Once made


def test_the_same_charge_opens_one_session_and_gives_one_page(rig: Rig):
    ask = charge()
    first, second = rig.gateway.checkout(ask), rig.gateway.checkout(ask)
    assert isinstance(first, Redirect)
    assert isinstance(second, Redirect)
    assert rig.page(first) == rig.page(second)
    assert rig.sessions() == 1


def test_a_lost_answer_is_found_again_by_the_same_key(rig: Rig):
    ask = charge()
    rig.lose_answer()
    with pytest.raises(NoAnswer):
        rig.gateway.checkout(ask)
    handoff = rig.gateway.checkout(ask)
    assert rig.sessions() == 1
    assert handoff.reference == rig.opened(ask.id)
    rig.pay(handoff.reference)
    found = rig.gateway.lookup(ask.id)
    assert found is not None
    assert (found.reference, found.state) == (handoff.reference, "paid")


def test_a_processor_that_is_down_says_so_and_nothing_is_made(rig: Rig):
    rig.go_down()
    with pytest.raises(NoAnswer, match="does not answer"):
        rig.gateway.checkout(charge())
    assert rig.sessions() == 0


def test_what_nobody_opened_is_not_found(rig: Rig):
    assert rig.gateway.lookup("pay_nobody") is None
    assert rig.gateway.lookup("cs_test_nobody") is None


def test_the_snapshot_tells_what_was_received(rig: Rig):
    reference = open_session(rig)
    opened = rig.gateway.lookup(reference)
    assert (opened is not None) == rig.known_before_paid
    assert opened is None or (opened.state, opened.received, opened.charge_id) == ("open", None, "pay_conformance")
    rig.pay(reference)
    paid = rig.gateway.lookup(reference)
    assert paid is not None
    assert (paid.state, paid.received, paid.fault) == ("paid", EUR_25, "")
    assert (paid.fee is not None) == rig.tells_fee
    assert paid.paid_at is not None
    assert abs(paid.paid_at - clock.now()) < timedelta(minutes=1)
    assert rig.label in paid.method_label


@only(*EXACT)
def test_a_refund_is_sent_once_per_key(rig: Rig):
    reference = open_session(rig)
    rig.pay(reference)
    rig.gateway.lookup(reference)
    first = rig.gateway.refund(reference, Money.of("10", "EUR"), "refund:1")
    assert first.state == "settled"
    assert rig.gateway.refund(reference, Money.of("10", "EUR"), "refund:1") == first
    rig.forget_keys()
    assert rig.gateway.refund(reference, Money.of("10", "EUR"), "refund:1") == first
    assert rig.books()["EUR"].refunded == 10_00


def test_every_method_says_how_its_money_goes_back_and_so_does_one_that_is_gone(rig: Rig):
    ways = [rig.gateway.way_back(method.name) for method in rig.gateway.methods("DE", EUR_25)]
    assert all(way.days == 0 or way.wait < way.days for way in ways)
    assert all(bool(way.wait) == bool(way.why) for way in ways)
    gone, windows = rig.gateway.way_back("method-of-old"), [way.days for way in ways if way.days]
    assert gone.days == min(windows, default=0)
    assert gone.wait == max(way.wait for way in ways)


@only(*INEXACT)
def test_what_has_no_way_back_says_so(rig: Rig):
    reference = open_session(rig)
    rig.pay(reference)
    assert rig.gateway.way_back(rig.method.partition("-")[2]).days == 0
    with pytest.raises(Refused, match="bank transfer"):
        rig.gateway.refund(reference, Money.of("10", "EUR"), "refund:1")


# Proven


def test_a_signed_event_points_to_its_payment(rig: Rig):
    reference = open_session(rig)
    rig.pay(reference)
    for body, headers in rig.webhooks():
        event = rig.gateway.read_event(body, headers)
        assert isinstance(event, Event)
        assert not event.fault
        found = rig.gateway.lookup(event.reference)
        assert found is not None
        assert found.reference == reference


@only("sandbox", "stripe", "paypal")
@pytest.mark.parametrize("times", [-1.3, 1.3, -12, 400])
def test_a_signature_too_far_from_now_is_refused_on_both_sides(rig: Rig, times: float):
    assert not isinstance(rig, BTCPayRig | NOWPaymentsRig)
    rig.pay(open_session(rig))
    body, _ = rig.webhooks()[-1]
    with pytest.raises(BadSignature):
        rig.gateway.read_event(*rig.signed(body, at=clock.now().timestamp() + times * (rig.tolerance_s or 0)))
    near = 0.7 if times > 0 else -0.7
    rig.gateway.read_event(*rig.signed(body, at=clock.now().timestamp() + near * (rig.tolerance_s or 0)))


def test_a_wrong_secret_and_a_changed_body_are_refused(rig: Rig):
    rig.pay(open_session(rig))
    body, headers = rig.webhooks()[-1]
    with pytest.raises(BadSignature):
        rig.gateway.read_event(*rig.signed(body, secret="whsec_of_somebody_else"))
    with pytest.raises(BadSignature):
        rig.gateway.read_event(json.dumps(json.loads(body) | {"added": 1}).encode(), headers)
    with pytest.raises(BadSignature):
        rig.gateway.read_event(body, {})


GARBAGE = [b"", b"\xff\xfe\x00", b"not json", b"[]", b"{}", b'{"id": "x"}', b'{"data": 5}', b"null", "„ü“".encode()]


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_refused_signed_or_not(rig: Rig, body: bytes):
    headers = rig.signed(b'{"id": "x", "livemode": false}')[1]
    header = next(name for name in headers if "sig" in name)
    for value in ("", "t=,v1=", "t=١٢,v1=00", f"t={'9' * 40},v1=00", "t=1", "v1=x,t=now", "=,=,="):
        with pytest.raises(BadSignature):
            rig.gateway.read_event(body, headers | {header: value})
    # The signature of these is over what the body means; no signature of Stripe's is over bytes that are no text.
    unproven = (BadSignature,) if isinstance(rig, SandboxRig | NOWPaymentsRig) or not body.isascii() else ()
    with suppress(UnreadableEvent, *unproven):
        assert rig.gateway.read_event(*rig.raw(body)).reference == ""


# Credited


def test_every_event_of_a_payment_together_credit_it_once(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    tell_all(rig)
    tell_all(rig)
    paid = again(payment)
    assert (paid.state, paid.credited, paid.fee is not None) == ("paid", 2500, rig.tells_fee)
    assert times_credited(payment) == 1
    assert balance(demo_customer) == 2500


def test_a_webhook_and_the_return_page_credit_once(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    with clock.travel(clock.now() + timedelta(seconds=5)):
        assert payments.refresh(payment).state == "paid"
    tell_all(rig)
    assert times_credited(payment) == 1


def test_without_any_webhook_reconciling_finds_the_money(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"paid": 1}
        assert payments.reconcile() == {}
    assert times_credited(payment) == 1


def test_every_order_of_the_news_ends_the_same(rig: Rig, demo_customer: User):
    steps = ("pend", "expire", "fail", "pay")
    for number, order in enumerate(permutations(steps)):
        payment = begin(topup(demo_customer, Money(2500 + number, "EUR")), rig.method)
        told = {}
        for step in steps:
            getattr(rig, step)(payment.gateway_reference)
            told[step] = rig.gateway.lookup(payment.gateway_reference or "")
        for step in order:
            snapshot = told[step]
            assert snapshot is not None
            payments.apply(rig.gateway.name, snapshot)
        assert (again(payment).state, times_credited(payment)) == ("paid", 1), order
    assert balance(demo_customer) == sum(range(2500, 2524))


def test_money_that_comes_after_the_page_expired_counts(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.expire(payment.gateway_reference or "")
    tell_all(rig)
    assert again(payment).state == "expired"
    rig.pay(payment.gateway_reference or "")
    tell_all(rig)
    assert (again(payment).state, balance(demo_customer)) == ("paid", 2500)


def test_a_failure_after_the_money_came_is_old_news(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    tell_all(rig)
    rig.fail(payment.gateway_reference or "")
    tell_all(rig)
    assert (again(payment).state, balance(demo_customer)) == ("paid", 2500)


def test_a_decline_is_told_in_plain_words_and_the_bill_stays_payable(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    payment = begin(bill, rig.method)
    rig.fail(payment.gateway_reference or "")
    tell_all(rig)
    failed = again(payment)
    assert failed.state == "failed"
    assert failed.failure_code == rig.decline
    assert failed.failure_message
    assert begin(bill, rig.method).public_id != payment.public_id


@only(*EXACT)
@pytest.mark.parametrize(("amount", "currency"), [(2499, None), (9_999_00, None), (2500, "USD"), (1, None)])
def test_other_money_than_asked_goes_to_a_person_not_to_the_wallet(rig: Rig, demo_customer: User, amount: int, currency: str | None):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "", amount=amount, currency=currency)
    tell_all(rig)
    tell_all(rig)
    assert (again(payment).state, balance(demo_customer), times_credited(payment)) == ("review", 0, 0)
    assert suspense() == amount


@only(*INEXACT)
@pytest.mark.parametrize("amount", [2499, 20_00, 99_99_00])
def test_where_the_payer_decides_what_came_is_what_is_credited(rig: Rig, demo_customer: User, amount: int):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "", amount=amount)
    tell_all(rig)
    tell_all(rig)
    paid = again(payment)
    assert (paid.state, paid.received, paid.credited, balance(demo_customer), times_credited(payment)) == ("paid", amount, amount, amount, 1)
    bill = payments.bill_of(paid)
    assert (bill.unpaid, payments.due(bill).minor) == ((True, 2500 - amount) if amount < 2500 else (False, 2500))


@only(*INEXACT)
def test_another_currency_goes_to_a_person_everywhere(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "", currency="USD")
    tell_all(rig)
    assert (again(payment).state, balance(demo_customer), suspense()) == ("review", 0, 2500)


def test_an_event_of_another_account_or_mode_is_not_followed(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    body, _ = rig.webhooks()[-1]
    assert fate(rig, rig.foreign(body)) in {"parked", "refused"}
    assert (again(payment).state, balance(demo_customer)) == ("created", 0)


def fate(rig: Rig, webhook: tuple[bytes, dict[str, str]]) -> str:
    """What becomes of a webhook: refused at the door, or its state in the inbox."""
    try:
        return payments.process(payments.receive(rig.gateway.name, *webhook))
    except BadSignature:
        return "refused"


def test_an_event_about_a_payment_that_is_not_ours_is_put_aside(rig: Rig, demo_customer: User):
    rig.pay(open_session(rig, "pay_of_another_install"))
    for body, headers in rig.webhooks():
        assert payments.process(payments.receive(rig.gateway.name, body, headers)) == "ignored"
    assert balance(demo_customer) == 0


# Patient


def test_a_lost_answer_leaves_the_payment_unknown_until_it_is_asked_for(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    rig.lose_answer()
    with pytest.raises(ProcessorDown):
        begin(bill, rig.method)
    (unknown,) = payments.open_of(bill.id)
    assert (unknown.state, unknown.handoff_url) == ("unknown", None)
    payment = begin(bill, rig.method)
    assert (payment.public_id, payment.state) == (unknown.public_id, "created")
    assert rig.sessions() == 1


def test_money_of_a_payment_whose_answer_was_lost_is_found(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    rig.lose_answer()
    with pytest.raises(ProcessorDown):
        begin(bill, rig.method)
    (unknown,) = payments.open_of(bill.id)
    rig.pay(rig.opened(unknown.public_id))
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"paid": 1}
    assert times_credited(unknown) == 1


def test_what_the_processor_never_heard_of_is_given_up_once_that_is_proven_or_its_page_would_have_closed(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    rig.go_down()
    with pytest.raises(ProcessorDown):
        begin(bill, rig.method)
    rig.come_back()
    proof = rig.gateway.final_after
    with clock.travel(clock.now() + (timedelta(minutes=4) if proof else timedelta(minutes=65))):
        assert payments.reconcile() == {"unknown": 1}
    with clock.travel(clock.now() + (timedelta(minutes=9) if proof else timedelta(hours=2))):
        assert payments.reconcile() == {"expired": 1}
        assert begin(bill, rig.method).state == "created"


def test_the_proof_counts_from_the_last_call_and_a_page_that_opens_beside_it_is_credited(rig: Rig, demo_customer: User):
    bill = topup(demo_customer, EUR_25)
    rig.go_down()
    now = clock.now()
    for minutes in (0, 4):
        with clock.travel(now + timedelta(minutes=minutes)), pytest.raises(ProcessorDown):
            begin(bill, rig.method)
    rig.come_back()
    (unknown,) = payments.open_of(bill.id)
    with clock.travel(now + timedelta(minutes=8)):
        assert payments.reconcile() == {"unknown": 1}
    reference = rig.gateway.checkout(unknown.as_charge()).reference
    payments.apply(rig.gateway.name, Snapshot("", unknown.public_id, "expired"))
    rig.pay(reference)
    tell_all(rig)
    assert (again(unknown).state, times_credited(unknown)) == ("paid", 1)


def test_webhooks_wait_while_the_processor_is_down_and_are_worked_later(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    waiting = [payments.receive(rig.gateway.name, *webhook) for webhook in rig.webhooks()]
    rig.go_down()
    assert {payments.process(inbox_id) for inbox_id in waiting} == {"new"}
    rig.come_back()
    with clock.travel(clock.now() + timedelta(minutes=1)):
        assert payments.process_due() == {"done": len(waiting)}
    assert times_credited(payment) == 1


def test_a_webhook_that_can_never_be_worked_is_parked_after_five_tries(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    waiting = payments.receive(rig.gateway.name, *rig.webhooks()[-1])
    rig.go_down()
    assert [payments.process(waiting) for _ in range(6)] == ["new"] * 4 + ["parked"] * 2
    rig.come_back()
    assert payments.process_due() == {}
    assert payments.replay(waiting) == "done"
    assert times_credited(payment) == 1


def test_the_inbox_keeps_what_came_byte_for_byte(rig: Rig, demo_customer: User):
    payment = paying(rig, demo_customer)
    rig.pay(payment.gateway_reference or "")
    body, headers = rig.webhooks()[0]
    first = payments.receive(rig.gateway.name, body, headers | {"cookie": "secret"})
    assert payments.receive(rig.gateway.name, body, headers) == first
    kept = db.row("select body, headers from webhooks where id = %(id)s", id=first)
    assert kept is not None
    assert bytes(kept.body) == body
    assert kept.headers == headers
    assert json.loads(body)
