"""Stripe: the real SDK against a Stripe on the loopback. What it is asked, how its failures read, and what its amounts mean."""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import stripe
from flask import Flask
from stripe import HTTPClient
from stripe.params.checkout import _session_create_params

from app import clock, db, gateways, payments, refunds, wallet
from app.customers import User
from app.formats import formats
from app.gateways import stripe as adapter
from app.gateways import stripe_cards, stripe_declines, stripe_methods
from app.gateways.base import Charge, GatewayError, Misconfigured, NoAnswer, Redirect, Refused
from app.gateways.stripe import Stripe, from_stripe, gateway_exponent, to_stripe
from app.gateways.stripe_cards import StripeWithCards
from app.money import Money
from app.payments import Payment
from tests.fakes.stripe import Stripe as FakeStripe
from tests.pay import again, begin, times_credited, topup
from tests.processors import ours


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStripe]:
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    made = FakeStripe()
    yield made
    made.close()


@pytest.fixture
def gateway(fake: FakeStripe) -> Stripe:
    return Stripe(fake.secret_key, fake.webhook_secret, fake.url)


@pytest.fixture
def alone(app: Flask, fake: FakeStripe, gateway: Stripe) -> Iterator[Stripe]:
    """Stripe as the only gateway of the house."""
    sandbox = gateways.get("sandbox")
    assert sandbox
    gateways.use({"stripe": gateway})
    yield gateway
    assert holds(fake) == ours("stripe")
    gateways.use({"sandbox": sandbox})


def holds(fake: FakeStripe) -> dict[str, int]:
    """What Stripe's own books say it holds of the money we know of, when everything it has to tell was told."""
    fake.script.clear()
    known = {row.public_id for row in db.rows("select public_id from payments")}
    others = [
        one
        for one in fake.sessions.values()
        if one["client_reference_id"] not in known or one["livemode"] or (one["payment_intent"] or one)["metadata"]["payment"] != one["client_reference_id"]
    ]
    for session in others:
        del fake.sessions[session["id"]]
    for event in fake.events:
        payments.process(payments.receive("stripe", *fake.webhook(event)))
    return {currency: sums.held for currency, sums in fake.books().items() if sums.held}


def charge(name: str = "pay_1", amount: Money | None = None, method: str = "card", locale: str = "pl") -> Charge:
    expires_at = clock.now().replace(microsecond=0) + timedelta(hours=1)
    return Charge(name, amount or Money.of("25", "EUR"), method, "Account funds", "Account funds PF-1", "http://x/payments/1", "http://x/pay", expires_at, "a@example.com", locale)


def session_of(gateway: Stripe, ask: Charge) -> str:
    handoff = gateway.checkout(ask)
    assert isinstance(handoff, Redirect)
    return handoff.reference


# What is asked


def test_a_session_is_asked_for_exactly_so(fake: FakeStripe, gateway: Stripe):
    ask = charge()
    session = fake.sessions[session_of(gateway, ask)]
    assert session["client_reference_id"] == "pay_1"
    assert session["metadata"] == session["_intent_metadata"] == {"payment": "pay_1"}
    assert (session["amount_total"], session["currency"], session["expires_at"]) == (2500, "eur", int(ask.expires_at.timestamp()))
    params = adapter._session_params(ask)
    assert "payment_method_types" not in params
    assert params["allowed_payment_method_types"] == ["card"]
    assert params["adaptive_pricing"] == {"enabled": False}
    assert params["locale"] == "pl"
    assert adapter._session_params(charge(locale="xx"))["locale"] == "auto"
    sent = fake.headers[-1]
    assert sent["Idempotency-Key"] == "pay_1:checkout"
    assert sent["Stripe-Version"] == "2026-10-28.endive"


def test_a_parameter_that_stripe_does_not_know_is_refused_by_the_fake(fake: FakeStripe, gateway: Stripe):
    client = gateway._client
    for wrong in ({"payment_method_types": ["card"]}, {"mode": "payment", "line_items": [{"quantity": "one"}]}):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.checkout.sessions.create(wrong)
    assert fake.sessions == {}


def test_telemetry_is_off_and_writes_no_file(fake: FakeStripe, gateway: Stripe, tmp_path: Path):
    script = f"""
from datetime import UTC, datetime, timedelta
from app.gateways.stripe import Stripe
from app.gateways.base import Charge
from app.money import Money
later = datetime.now(UTC) + timedelta(hours=1)
Stripe({fake.secret_key!r}, "whsec", {fake.url!r}).checkout(Charge("pay_t", Money(2500, "EUR"), "card", "a", "b", "http://x/", "http://x/", later))
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []
    told = fake.headers[-1]
    assert "X-Stripe-Client-Telemetry" not in told
    assert "telemetry_id" not in told.get("X-Stripe-Client-User-Agent", "")


def test_the_sdk_is_not_imported_where_stripe_is_not_configured():
    script = "import sys, app; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Failures


@pytest.mark.parametrize("mode", ["500", "409", "html", "drop-before", "drop-after"])
def test_a_passing_failure_is_retried_with_the_same_key(fake: FakeStripe, gateway: Stripe, mode: str):
    fake.script += [mode, mode]
    gateway.checkout(charge())
    assert len(fake.sessions) == 1
    assert {sent["Idempotency-Key"] for sent in fake.headers} == {"pay_1:checkout"}
    assert len(fake.calls) == 3


@pytest.mark.parametrize(
    ("mode", "whose", "sentence"),
    [
        ("500", NoAnswer, "does not answer"),
        ("409", NoAnswer, "does not answer"),
        ("429", NoAnswer, "does not answer"),
        ("html", NoAnswer, "does not answer"),
        ("junk", NoAnswer, "does not answer"),
        ("drop-after", NoAnswer, "does not answer"),
        ("402", Refused, "did not approve"),
        ("401", Misconfigured, "switched off"),
        ("403", Misconfigured, "switched off"),
        ("400", Misconfigured, "switched off"),
    ],
)
def test_each_failure_says_whose_it_is(fake: FakeStripe, gateway: Stripe, mode: str, whose: type[GatewayError], sentence: str):
    fake.script += [mode] * 3
    with pytest.raises(GatewayError, match=sentence) as failed:
        gateway.checkout(charge())
    assert type(failed.value) is whose


def test_the_same_key_with_other_parameters_is_our_mistake_and_settles_nothing(gateway: Stripe):
    gateway.checkout(charge())
    with pytest.raises(NoAnswer):
        gateway.checkout(charge(amount=Money.of("26", "EUR")))


def test_a_hanging_stripe_is_waited_for_only_so_long(fake: FakeStripe, monkeypatch: pytest.MonkeyPatch):
    assert adapter.CONNECT_TIMEOUT_S + (adapter.RETRIES + 1) * adapter.READ_TIMEOUT_S < 20
    monkeypatch.setattr(adapter, "READ_TIMEOUT_S", 0.1)
    fake.hang_s = 0.5
    fake.script += ["hang-after", "hang-before", "hang-before"]
    started = time.monotonic()
    with pytest.raises(GatewayError):
        Stripe(fake.secret_key, fake.webhook_secret, fake.url).checkout(charge())
    assert time.monotonic() - started < 2


# Amounts


@pytest.mark.parametrize(
    ("amount", "currency", "number"),
    [("25.01", "EUR", 2501), ("80", "JPY", 80), ("80", "KRW", 80), ("1.250", "KWD", 1250), ("1", "BHD", 1000), ("500", "ISK", 50000), ("990.50", "HUF", 99050)],
)
def test_the_number_stripe_writes(amount: str, currency: str, number: int):
    assert to_stripe(Money.of(amount, currency)) == number
    assert from_stripe(number, currency.lower()) == Money.of(amount, currency)


@pytest.mark.parametrize(("amount", "currency"), [("1.255", "KWD"), ("1000000.00", "EUR"), ("100000000", "JPY")])
def test_an_amount_that_stripe_cannot_write_is_refused_never_rounded(gateway: Stripe, amount: str, currency: str):
    money = Money.of(amount, currency)
    with pytest.raises(Refused):
        to_stripe(money)
    assert all(method.unavailable for method in gateway.methods("DE", money))


def test_stripes_own_exponents_are_not_those_of_iso():
    assert [gateway_exponent(code) for code in ("EUR", "JPY", "KWD", "ISK", "UGX", "MGA", "CLP", "HUF")] == [2, 0, 3, 2, 2, 0, 0, 2]


@pytest.mark.parametrize(
    ("country", "amount", "offered"),
    [
        ("NL", Money.of("25", "EUR"), {"ideal", "sepa_debit"}),
        ("BE", Money.of("25", "EUR"), {"bancontact", "sepa_debit"}),
        ("AT", Money.of("25", "EUR"), {"eps", "sepa_debit"}),
        ("PT", Money.of("25", "EUR"), {"multibanco", "sepa_debit"}),
        ("FI", Money.of("25", "EUR"), {"mobilepay", "sepa_debit"}),
        ("PL", Money.of("25", "PLN"), {"blik", "p24"}),
        ("PL", Money.of("25", "EUR"), {"p24", "sepa_debit"}),
        ("CH", Money.of("25", "CHF"), {"twint"}),
        ("SE", Money.of("25", "SEK"), {"swish"}),
        ("DK", Money.of("25", "DKK"), {"mobilepay"}),
        ("US", Money.of("25", "EUR"), set()),
        (None, Money.of("25", "USD"), set()),
        ("DE", Money.of("10000", "EUR"), {"sepa_debit"}),
        ("DE", Money.of("10000.01", "EUR"), set()),
        ("CH", Money.of("5000.01", "CHF"), set()),
        ("DE", Money.of("0.49", "EUR"), None),
        ("DE", Money.of("0.50", "EUR"), {"sepa_debit"}),
    ],
)
def test_methods_are_offered_where_they_work_and_the_others_say_why(gateway: Stripe, country: str | None, amount: Money, offered: set[str] | None):
    methods, cards = gateway.methods(country, amount), {"card", "device"}
    works = set() if offered is None else offered | cards
    assert {method.name for method in methods if not method.unavailable} == works
    assert all(method.unavailable[0].isupper() for method in methods if method.name not in works)


def test_why_a_method_is_not_offered_is_said_in_words_and_in_the_readers_own_amounts(gateway: Stripe):
    def why(name: str, country: str, amount: Money, locale: str = "pl") -> str:
        return next(method for method in gateway.methods(country, amount) if method.name == name).reason(formats(locale, "UTC").money)

    assert why("ideal", "DE", Money.of("25", "EUR")) == "Only for payers in the Netherlands"
    assert why("blik", "PL", Money.of("25", "EUR")) == "Only for payments in PLN"
    assert why("blik", "PL", Money.of("1.99", "PLN")) == "From 2,00\N{NO-BREAK SPACE}zł"
    assert why("sepa_debit", "DE", Money.of("10000.01", "EUR"), "de") == "Up to 10.000,00\N{NO-BREAK SPACE}€"
    assert why("p24", "PL", Money.of("25", "USD")) == "Only for payments in EUR or PLN"


def test_every_row_of_the_table_is_known_to_stripe_and_says_what_a_customer_needs():
    written = inspect.getsource(_session_create_params)
    known = written[written.index("allowed_payment_method_types") : written.index("automatic_tax:")]
    for row in stripe_methods.ROWS:
        method = row.method
        assert f'"{row.stripe}"' in known
        assert all((method.label, method.mark, method.detail, method.settles_in))
        assert bool(method.countries) == bool(method.where)
        assert method.rate_held or method.waiting
    assert {"giropay", "sofort", "klarna"}.isdisjoint(method.name for method in stripe_methods.offered())
    assert [method.name for method in stripe_methods.offered("klarna, card")] == ["card", "klarna"]
    with pytest.raises(ValueError, match="STRIPE_METHODS names giropay"):
        stripe_methods.offered("card,giropay")


def test_apple_pay_opens_the_same_page_as_a_card():
    assert adapter._session_params(charge(method="device"))["allowed_payment_method_types"] == ["card"]


# What becomes of it


def test_two_events_of_one_payment_credit_once(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    assert [event["type"] for event in fake.events] == ["payment_intent.succeeded", "checkout.session.completed"]
    for event in fake.events:
        assert payments.process(payments.receive("stripe", *fake.webhook(event))) == "done"
    paid = again(payment)
    assert (times_credited(payment), paid.state, paid.method_label, paid.fee) == (1, "paid", "Visa •••• 4242, Apple Pay", 60)


def test_a_fee_that_is_known_later_is_booked_once(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "", fee=None)
    for event in fake.events:
        payments.process(payments.receive("stripe", *fake.webhook(event)))
    assert again(payment).fee is None
    intent = fake.sessions[payment.gateway_reference or ""]["payment_intent"]
    intent["latest_charge"]["balance_transaction"] = fake.balance(25_00, 65, "eur", "charge")
    for _ in range(2):
        assert payments.process(payments.receive("stripe", *fake.webhook(fake.happened("charge.updated", intent["latest_charge"])))) == "done"
    assert again(payment).fee == 65
    assert db.scalar("select count(*) from transfers where kind = 'fee'") == 1


def test_an_event_about_nothing_of_ours_is_kept_and_ignored(fake: FakeStripe, alone: Stripe):
    event = fake.happened("payout.paid", {"id": "po_1", "object": "payout"})
    assert payments.process(payments.receive("stripe", *fake.webhook(event))) == "ignored"


def test_an_event_of_a_connected_account_is_parked(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    event = fake.events[-1] | {"account": "acct_other", "id": "evt_other"}
    assert payments.process(payments.receive("stripe", *fake.webhook(event))) == "parked"


@pytest.mark.parametrize(("change", "fault"), [({"livemode": True}, "live mode"), ({"client_reference_id": "pay_of_another"}, "")])
def test_a_session_of_another_mode_or_install_is_not_credited(fake: FakeStripe, alone: Stripe, demo_customer: User, change: dict[str, object], fault: str):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    fake.sessions[payment.gateway_reference or ""] |= change
    for event in fake.events:
        payments.process(payments.receive("stripe", *fake.webhook(event)))
    assert times_credited(payment) == 0
    assert again(payment).state == ("review" if fault else "created")
    assert db.scalar("select count(*) from transfers") == 0


def test_an_intent_that_names_another_payment_goes_to_a_person(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    fake.sessions[payment.gateway_reference or ""]["payment_intent"]["metadata"] = {"payment": "pay_of_another"}
    payments.process(payments.receive("stripe", *fake.webhook(fake.events[-1])))
    assert again(payment).state == "review"


def test_a_session_is_found_by_our_id_among_many(fake: FakeStripe, gateway: Stripe):
    wanted = session_of(gateway, charge("pay_wanted"))
    for number in range(120):
        fake.sessions[f"cs_test_other_{number}"] = fake.sessions[wanted] | {"id": f"cs_test_other_{number}", "client_reference_id": f"pay_{number}"}
    found = gateway.lookup("pay_wanted")
    assert found is not None
    assert found.reference == wanted
    assert fake.calls.count(("GET", "/v1/checkout/sessions")) == 2


def test_a_currency_nobody_here_knows_is_received_as_nothing(fake: FakeStripe, gateway: Stripe):
    reference = session_of(gateway, charge())
    fake.pay(reference, currency="xts")
    paid = gateway.lookup(reference)
    assert paid is not None
    assert (paid.state, paid.received) == ("paid", None)


def test_twenty_at_once_open_one_session(app: Flask, fake: FakeStripe, alone: Stripe, demo_customer: User):
    from concurrent.futures import ThreadPoolExecutor

    bill = topup(demo_customer, Money.of("25", "EUR"))

    def click(_: int) -> str:
        with app.app_context():
            try:
                handoff = payments.start(bill.customer_id, bill.number, "stripe-card")
            except payments.ProcessorDown:
                return "busy"
            assert isinstance(handoff, Redirect)
            return handoff.url

    with ThreadPoolExecutor(8) as pool:
        pages = set(pool.map(click, range(20)))
    assert len(pages - {"busy"}) == 1
    assert len(fake.sessions) == 1
    assert begin(bill, "stripe-card").state == "created"


def test_a_page_that_was_left_is_closed_and_one_that_was_paid_is_not(fake: FakeStripe, gateway: Stripe):
    open_, paid = session_of(gateway, charge()), session_of(gateway, charge("pay_other"))
    fake.pay(paid)
    for reference in (open_, open_, paid, "cs_unknown"):
        gateway.close(reference)
    assert [gateway.lookup(each).state for each in (open_, paid)] == ["expired", "paid"]


def test_two_secrets_serve_while_one_is_replaced(fake: FakeStripe):
    gateway = Stripe(fake.secret_key, f"whsec_old, {fake.webhook_secret}", fake.url)
    reference = session_of(gateway, charge())
    fake.expire(reference)
    for secret in (None, "whsec_old"):
        assert gateway.read_event(*fake.webhook(fake.events[-1], secret=secret)).reference == reference


# What is sent back


def test_a_refund_asked_for_again_after_stripe_forgot_its_key_is_not_sent_twice(fake: FakeStripe, gateway: Stripe):
    reference = session_of(gateway, charge())
    fake.pay(reference)
    fake.script += ["", "drop-after", "drop-before", "drop-before"]
    with pytest.raises(NoAnswer):
        gateway.refund(reference, Money.of("10", "EUR"), "refund:RF-1")
    fake.passed = timedelta(hours=25)
    again = [gateway.refund(reference, Money.of("10", "EUR"), "refund:RF-1") for _ in range(2)]
    assert [one["amount"] for one in fake.refunds.values()] == [1000]
    assert {one.reference for one in again} == set(fake.refunds)


def test_more_refunds_than_come_with_a_charge_are_all_seen(fake: FakeStripe, gateway: Stripe):
    reference = session_of(gateway, charge())
    fake.pay(reference)
    for number in range(12):
        gateway.refund(reference, Money.of("1", "EUR"), f"refund:RF-{number}")
    fake.passed = timedelta(hours=25)
    gateway.refund(reference, Money.of("1", "EUR"), "refund:RF-0")
    seen = gateway.lookup(reference)
    assert seen is not None
    assert [one.key for one in seen.refunds] == [f"refund:RF-{number}" for number in range(12)]


def test_a_page_that_is_almost_over_is_found_but_no_new_one_is_opened(fake: FakeStripe, gateway: Stripe):
    ask = charge()
    reference = session_of(gateway, ask)
    with clock.travel(clock.now() + timedelta(minutes=40)):
        assert session_of(gateway, ask) == reference
        with pytest.raises(Refused, match="has closed"):
            gateway.checkout(replace(ask, id="pay_never"))
    assert len(fake.sessions) == 1


# Declines

DECLINES = [
    "approve_with_id",
    "authentication_required",
    "call_issuer",
    "card_not_supported",
    "card_velocity_exceeded",
    "currency_not_supported",
    "do_not_honor",
    "do_not_try_again",
    "duplicate_transaction",
    "expired_card",
    "fraudulent",
    "generic_decline",
    "incorrect_address",
    "incorrect_cvc",
    "incorrect_number",
    "incorrect_pin",
    "incorrect_zip",
    "insufficient_funds",
    "invalid_account",
    "invalid_amount",
    "invalid_cvc",
    "invalid_expiry_month",
    "invalid_expiry_year",
    "invalid_number",
    "invalid_pin",
    "issuer_not_available",
    "lost_card",
    "merchant_blacklist",
    "mobile_device_authentication_required",
    "new_account_information_available",
    "no_action_taken",
    "not_permitted",
    "offline_pin_required",
    "online_or_offline_pin_required",
    "pickup_card",
    "pin_try_exceeded",
    "processing_error",
    "reenter_transaction",
    "restricted_card",
    "revocation_of_all_authorizations",
    "revocation_of_authorization",
    "security_violation",
    "service_not_allowed",
    "stolen_card",
    "stop_payment_order",
    "testmode_decline",
    "transaction_not_allowed",
    "try_again_later",
    "withdrawal_count_limit_exceeded",
    "payment_intent_authentication_failure",
    "payment_intent_payment_attempt_failed",
    "payment_intent_payment_attempt_expired",
    "payment_method_provider_decline",
    "payment_method_provider_timeout",
    "payment_method_customer_decline",
    "payment_method_not_available",
    "debit_not_authorized",
    "account_closed",
    "bank_account_restricted",
    "no_account",
    "refer_to_customer",
]


@pytest.mark.parametrize("code", DECLINES)
def test_every_code_of_a_decline_has_a_sentence_and_is_not_in_it(code: str):
    said = stripe_declines.sentence(code, "card_declined")
    assert said != stripe_declines.OTHERWISE
    assert said.endswith(".")
    assert "_" not in said
    assert not {"lost", "stolen", "fraud"} & set(said.lower().replace(".", "").split())


def test_a_code_nobody_knows_is_told_without_it_and_no_code_says_nothing():
    assert stripe_declines.sentence("brand_new_code") == stripe_declines.OTHERWISE
    assert stripe_declines.sentence(None, "") == ""
    assert stripe_declines.sentence("stolen_card") == stripe_declines.sentence("do_not_honor")


def test_a_decline_on_the_page_is_told_to_who_comes_back_and_forgotten_when_it_is_paid(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.decline(payment.gateway_reference or "", "insufficient_funds")
    for _ in range(2):
        payments.process(payments.receive("stripe", *fake.webhook(fake.events[-1] | {"id": f"evt_{_}"})))
    tried = again(payment)
    assert (tried.state, tried.failure_code) == ("created", "insufficient_funds")
    assert tried.failure_message == "There is not enough money for this payment."
    assert [step.state for step in payments.timeline(payment)].count("declined") == 1
    fake.pay(payment.gateway_reference or "")
    tell_all(fake)
    assert (again(payment).state, again(payment).failure_message) == ("paid", None)
    assert mails("payment_failed") == []


# What comes days later


def mails(kind: str) -> list[str]:
    return [row.subject for row in db.rows("select subject from mails where kind = %(kind)s order by id", kind=kind)]


def tell_all(fake: FakeStripe, order: Sequence[int] | None = None) -> None:
    for place in order or range(len(fake.events)):
        payments.process(payments.receive("stripe", *fake.webhook(fake.events[place])))


@pytest.mark.parametrize(("method", "country"), [("sepa_debit", "DE"), ("multibanco", "PT"), ("p24", "PL")])
def test_what_is_not_paid_yet_is_pending_says_why_and_is_credited_when_it_comes(fake: FakeStripe, alone: Stripe, demo_customer: User, method: str, country: str):
    payment = of_country(demo_customer, country, method)
    fake.pend(payment.gateway_reference or "")
    tell_all(fake)
    waiting = again(payment)
    assert (waiting.state, waiting.credited, times_credited(payment)) == ("pending", None, 0)
    carried = payments.method_of(waiting)
    assert carried is not None
    assert carried.waiting
    with clock.travel(clock.now() + timedelta(days=5)):
        fake.pay(payment.gateway_reference or "")
        assert [event["type"] for event in fake.events][-2:] == ["payment_intent.succeeded", "checkout.session.async_payment_succeeded"]
        tell_all(fake)
        assert (again(payment).state, times_credited(payment)) == ("paid", 1)
        assert again(payment).method_label == carried.label


def of_country(user: User, country: str, method: str) -> Payment:
    with db.transaction():
        db.execute("update customers set country = %(country)s where id = %(id)s", country=country, id=user.customer_id)
    return begin(topup(user, Money.of("25", "EUR")), f"stripe-{method}")


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_what_never_comes_fails_once_in_words_and_by_mail_in_every_order(fake: FakeStripe, alone: Stripe, demo_customer: User, end: str):
    for number, order in enumerate(permutations(range(4))):
        payment = begin(topup(demo_customer, Money(2500 + number, "EUR")), "stripe-sepa_debit")
        fake.events.clear()
        fake.pend(payment.gateway_reference or "")
        getattr(fake, end)(payment.gateway_reference)
        assert len(fake.events) == 4
        tell_all(fake, order)
        failed = again(payment)
        assert (failed.state, times_credited(payment)) == ("failed", 0), order
        assert failed.failure_message in {"There is not enough money for this payment.", "It was not paid in time."}
        assert len(mails("payment_failed")) == number + 1
        assert failed.failure_message in db.scalar("select body_text from mails where kind = 'payment_failed' order by id desc limit 1")


def test_every_order_of_what_is_told_of_a_debit_credits_it_once(fake: FakeStripe, alone: Stripe, demo_customer: User):
    for number, order in enumerate(permutations(range(4))):
        payment = begin(topup(demo_customer, Money(2500 + number, "EUR")), "stripe-sepa_debit")
        fake.events.clear()
        fake.pend(payment.gateway_reference or "")
        early = payments.process(payments.receive("stripe", *fake.webhook(fake.events[order[0] % 2]))) if number % 2 else "done"
        fake.pay(payment.gateway_reference or "")
        tell_all(fake, order)
        assert (early, again(payment).state, times_credited(payment)) == ("done", "paid", 1), order
    assert mails("payment_failed") == []


def test_a_direct_debit_goes_back_only_after_its_eight_weeks_not_even_by_support(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-sepa_debit")
    fake.pend(payment.gateway_reference or "")
    arrived = clock.now() + timedelta(days=5)
    with clock.travel(arrived):
        fake.pay(payment.gateway_reference or "")
        tell_all(fake)
        (source,) = refunds.refundable(demo_customer.customer_id or 0)
        opens = formats("en", "UTC").date(arrived + timedelta(days=56))
        assert formats("en", "UTC").sentence(source.reason) == f"For eight weeks a bank can take a direct debit back, so it cannot be refunded before {opens}."
        assert source.refundable.minor == 0
        with pytest.raises(refunds.RefundError, match="eight weeks"):
            refunds.request(demo_customer.customer_id or 0, payment.public_id, Money.of("25", "EUR"), "")
    with clock.travel(arrived + timedelta(days=57)):
        number = refunds.request(demo_customer.customer_id or 0, payment.public_id, Money.of("25", "EUR"), "")
    with clock.travel(arrived + timedelta(days=55)), pytest.raises(refunds.RefundError, match="take the payment back"):
        refunds.approve(number, actor="staff:sam")
    with clock.travel(arrived + timedelta(days=57)):
        assert refunds.approve(number, actor="staff:sam") == "approved"
        assert refunds.pay_out(number) == "settled"


def test_a_debit_its_bank_takes_back_late_is_a_dispute_that_is_lost_at_once(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-sepa_debit")
    fake.pend(payment.gateway_reference or "")
    fake.pay(payment.gateway_reference or "")
    tell_all(fake)
    fake.dispute(payment.gateway_reference or "", 25_00, status="lost")
    tell_all(fake)
    assert again(payment).state == "disputed"
    assert wallet.state(demo_customer.customer_id or 0).available == 0
    assert db.scalar("select state from disputes") == "lost"


# Disputes


@pytest.mark.parametrize(("end", "fee_back", "kept"), [("lost", 0, 15_00), ("won", 0, 15_00), ("won", 15_00, 0)])
def test_the_fee_of_a_dispute_is_booked_once_and_what_comes_back_of_it(fake: FakeStripe, alone: Stripe, demo_customer: User, end: str, fee_back: int, kept: int):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    dispute = fake.dispute(payment.gateway_reference or "", 25_00)
    tell_all(fake)
    assert fees() == 60 + 15_00
    fake.close_dispute(dispute, end, fee_back=fee_back)
    for _ in range(2):
        tell_all(fake)
        assert payments.look_at(payment.public_id)
    assert fees() == 60 + kept
    assert wallet.state(demo_customer.customer_id or 0).available == (25_00 if end == "won" else 0)


def test_an_inquiry_costs_nothing(fake: FakeStripe, alone: Stripe, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")), "stripe-card")
    fake.pay(payment.gateway_reference or "")
    fake.dispute(payment.gateway_reference or "", 25_00, status="warning_needs_response")
    tell_all(fake)
    assert (fees(), wallet.state(demo_customer.customer_id or 0).available) == (60, 25_00)


def fees() -> int:
    return -db.scalar("select coalesce(sum(e.amount), 0)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = 'fees' and a.key = 'stripe'")


def test_a_charge_that_is_still_at_its_bank_is_not_read_as_declined():
    gateway, now = StripeWithCards("sk_test_1", "whsec"), int(clock.now().timestamp())

    def read(status: str, made: int) -> str:
        metadata = SimpleNamespace(payment="pay_1")
        facts = {"id": "pi_1", "status": status, "created": made, "livemode": False, "metadata": metadata, "latest_charge": None, "last_payment_error": None}
        return gateway._snapshot(stripe_cards._as_session(SimpleNamespace(**facts))).state

    for status in ("requires_confirmation", "requires_payment_method"):
        assert (read(status, now), read(status, now - 600)) == ("open", "failed")
    assert (read("processing", now), read("canceled", now)) == ("pending", "failed")
