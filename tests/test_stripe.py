"""Stripe: the real SDK against a Stripe on the loopback. What it is asked, how its failures read, and what its amounts mean."""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import stripe
from flask import Flask
from stripe import HTTPClient
from stripe.params.checkout import _session_create_params

from app import clock, db, gateways, payments
from app.customers import User
from app.formats import formats
from app.gateways import stripe as adapter
from app.gateways import stripe_methods
from app.gateways.base import Charge, GatewayError, Redirect
from app.gateways.stripe import Stripe, from_stripe, gateway_exponent, to_stripe
from app.money import Money
from tests.fakes.stripe import Stripe as FakeStripe
from tests.pay import again, begin, times_credited, topup


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
def alone(app: Flask, gateway: Stripe) -> Iterator[Stripe]:
    """Stripe as the only gateway of the house."""
    sandbox = gateways.get("sandbox")
    assert sandbox
    gateways.use({"stripe": gateway})
    yield gateway
    gateways.use({"sandbox": sandbox})


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
    ("mode", "permanent", "sentence"),
    [
        ("500", False, "does not answer"),
        ("409", False, "does not answer"),
        ("429", False, "does not answer"),
        ("html", False, "does not answer"),
        ("junk", False, "does not answer"),
        ("drop-after", False, "does not answer"),
        ("402", True, "declined"),
        ("401", True, "switched off"),
        ("403", True, "switched off"),
        ("400", True, "refused"),
    ],
)
def test_each_failure_reads_as_nothing_happened_or_nobody_knows(fake: FakeStripe, gateway: Stripe, mode: str, permanent: bool, sentence: str):
    fake.script += [mode] * 3
    with pytest.raises(GatewayError, match=sentence) as failed:
        gateway.checkout(charge())
    assert failed.value.permanent is permanent


def test_the_same_key_with_other_parameters_is_our_mistake_and_settles_nothing(gateway: Stripe):
    gateway.checkout(charge())
    with pytest.raises(GatewayError) as failed:
        gateway.checkout(charge(amount=Money.of("26", "EUR")))
    assert not failed.value.permanent


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
    with pytest.raises(GatewayError) as refused:
        to_stripe(money)
    assert refused.value.permanent
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
    intent["latest_charge"]["balance_transaction"] = {"id": "txn_1", "object": "balance_transaction", "fee": 65, "currency": "eur"}
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


def test_two_secrets_serve_while_one_is_replaced(fake: FakeStripe):
    gateway = Stripe(fake.secret_key, f"whsec_old, {fake.webhook_secret}", fake.url)
    event = fake.happened("checkout.session.expired", {"id": "cs_test_1", "object": "checkout.session"})
    assert gateway.read_event(*fake.webhook(event)).reference == "cs_test_1"
    assert gateway.read_event(*fake.webhook(event, secret="whsec_old")).reference == "cs_test_1"
