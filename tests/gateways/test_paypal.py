"""PayPal's own traps: a signature that covers a checksum only, certificates from anywhere, promises that are no money, whole forints."""

import json
import zlib
from datetime import timedelta

import pytest

from app import clock, payments, wallet
from app.gateways.base import BadSignature, GatewayError, Misconfigured, NoAnswer, NotNow, Refused
from app.gateways.paypal import Certificates, to_paypal
from app.money import Money
from tests.fakes.paypal import CERT_URL, authority
from tests.gateways.conftest import only
from tests.gateways.rigs import PayPalRig
from tests.gateways.test_conformance import EUR_25, charge, open_session, tell_all
from tests.pay import again, begin, topup
from tests.processors import ours, theirs

pytestmark = only("paypal")


def forge(genuine: bytes, wanted: dict[str, object]) -> bytes:
    """Another JSON body with the CRC32 of a genuine one: 64 letters that may each be `a` or `c`, chosen by solving for 32 bits."""
    start = json.dumps(wanted).encode()[:-1] + b', "filler": "'
    body = bytearray(start + b"a" * 64 + b'"}')
    target, rows = zlib.crc32(genuine) ^ zlib.crc32(body), []
    for place in range(64):
        body[len(start) + place] ^= 2
        rows.append((zlib.crc32(body) ^ zlib.crc32(bytes(start + b"a" * 64 + b'"}')), 1 << place))
        body[len(start) + place] ^= 2
    chosen = 0
    for bit in range(32):
        pivot = next(row for row in rows if row[0] >> bit & 1)
        rows = [(row[0] ^ pivot[0], row[1] ^ pivot[1]) if row[0] >> bit & 1 else row for row in rows if row is not pivot]
        if target >> bit & 1:
            target, chosen = target ^ pivot[0], chosen ^ pivot[1]
    for place in range(64):
        body[len(start) + place] ^= 2 * (chosen >> place & 1)
    return bytes(body)


def test_a_genuine_signature_on_another_body_verifies_and_brings_nothing(rig: PayPalRig, demo_customer):
    mine = begin(topup(demo_customer, EUR_25), rig.method)
    victim = begin(topup(demo_customer, Money.of("9999", "EUR")), rig.method)
    rig.pay(mine.gateway_reference)
    tell_all(rig)
    genuine, headers = rig.webhooks()[-1]
    lie = json.loads(genuine)
    lie["event_type"] = "PAYMENT.CAPTURE.COMPLETED"
    lie["resource"] = {**lie["resource"], "amount": {"currency_code": "EUR", "value": "9999.00"}, "custom_id": victim.public_id}
    lie["resource"]["supplementary_data"] = {"related_ids": {"order_id": victim.gateway_reference}}
    forged = forge(genuine, lie)
    assert zlib.crc32(forged) == zlib.crc32(genuine)
    assert json.loads(forged)["resource"]["amount"]["value"] == "9999.00"
    assert rig.gateway.read_event(forged, headers).reference == victim.gateway_reference
    first = payments.receive("paypal", genuine, headers)
    assert payments.receive("paypal", forged, headers) == first
    fresh = rig.signed(forged)
    payments.process(payments.receive("paypal", *fresh))
    assert again(victim).state == "created"
    assert wallet.state(demo_customer.customer_id).available == 2500


@pytest.mark.parametrize(
    "url",
    [
        "http://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://user:pass@api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com/v1/notifications/certs/../../oauth2/token",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1?next=https://evil.example",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1#x",
        "https://api.sandbox.paypal.com\\@evil.example/v1/notifications/certs/CERT-1",
        "https://API.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/CERT-1",
        " https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://[bad/v1/notifications/certs/CERT-1",
        "",
    ],
)
def test_a_certificate_from_anywhere_else_is_never_fetched(rig: PayPalRig, url: str):
    def fetch(_: str) -> bytes:
        raise AssertionError("it was fetched")

    with pytest.raises(BadSignature, match="certificate"):
        Certificates(frozenset({"api.sandbox.paypal.com"}), fetch, authority().roots).key(url)


def test_only_a_chain_up_to_a_trusted_root_for_the_right_name_counts(rig: PayPalRig):
    hosts, ours = frozenset({"api.sandbox.paypal.com"}), authority()
    for served in (authority(serial=2), authority("www.example.com", serial=3), authority(serial=4, days=30)):
        roots = ours.roots if served.root.subject.rfc4514_string() == "CN=Root 2" else served.roots
        with pytest.raises(BadSignature, match="certificate is not PayPal's"):
            Certificates(hosts, lambda _, served=served: served.chain, roots).key(CERT_URL)
    with pytest.raises(BadSignature):
        Certificates(hosts, lambda _: b"no certificate", ours.roots).key(CERT_URL)


def test_a_certificate_is_fetched_once(rig: PayPalRig):
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return authority().chain

    certificates = Certificates(frozenset({"api.sandbox.paypal.com"}), fetch, authority().roots)
    assert certificates.key(CERT_URL) is certificates.key(CERT_URL)
    assert fetched == [CERT_URL]


def test_another_algorithm_is_refused(rig: PayPalRig):
    rig.pay(open_session(rig))
    body, headers = rig.webhooks()[-1]
    for algorithm in ("", "SHA1withRSA", "none", "sha256withrsa"):
        with pytest.raises(BadSignature):
            rig.gateway.read_event(body, headers | {"paypal-auth-algo": algorithm})


def test_an_approved_order_is_captured_once_however_often_it_is_looked_up(rig: PayPalRig):
    reference = open_session(rig)
    rig.pay(reference)
    assert rig.fake.captures == {}
    assert {rig.gateway.lookup(reference).state for _ in range(3)} == {"paid"}
    assert len(rig.fake.captures) == 1


def test_a_capture_whose_answer_was_lost_is_one_capture(rig: PayPalRig):
    reference = open_session(rig)
    rig.pay(reference)
    rig.fake.lose = f"/v2/checkout/orders/{reference}/capture"
    with pytest.raises(NoAnswer):
        rig.gateway.lookup(reference)
    assert rig.gateway.lookup(reference).state == "paid"
    assert len(rig.fake.captures) == 1


def test_an_approved_order_older_than_its_key_or_not_of_ours_is_not_captured(rig: PayPalRig):
    reference, other = open_session(rig), open_session(rig, "pay_two")
    rig.pay(reference)
    rig.pay(other)
    rig.fake.orders[other]["purchase_units"][0]["custom_id"] = "shop-order-17"
    rig.gateway.lookup(other)
    with clock.travel(clock.now() + timedelta(hours=7)):
        assert rig.gateway.lookup(reference).state == "expired"
    assert rig.fake.captures == {}


def test_money_to_another_account_or_named_otherwise_is_not_credited(rig: PayPalRig, demo_customer):
    payment = begin(topup(demo_customer, EUR_25), rig.method)
    rig.pay(payment.gateway_reference)
    rig.gateway.lookup(payment.gateway_reference)
    (capture,) = rig.fake.captures.values()
    capture["custom_id"] = "pay_other"
    assert "names pay_other" in rig.gateway.lookup(payment.gateway_reference).fault
    rig.fake.orders[payment.gateway_reference]["purchase_units"][0]["payee"] = {"merchant_id": "THIEF"}
    tell_all(rig)
    assert (again(payment).state, wallet.state(demo_customer.customer_id).available) == ("review", 0)


def test_the_token_is_kept_and_renewed_once_when_it_is_refused(rig: PayPalRig):
    reference = open_session(rig)
    for _ in range(3):
        rig.gateway.lookup(reference)
    assert rig.fake.paths("POST").count("/v1/oauth2/token") == 1
    rig.fake.tokens.clear()
    assert rig.gateway.lookup(reference).state == "open"
    assert rig.fake.paths("POST").count("/v1/oauth2/token") == 2
    rig.fake.script += ["401", "", "401"]
    with pytest.raises(GatewayError, match="switched off"):
        rig.gateway.lookup(reference)


def test_what_cannot_be_written_is_refused_and_never_rounded(rig: PayPalRig):
    assert [to_paypal(Money.of(*amount)) for amount in (("2500", "HUF"), ("500", "JPY"), ("0.10", "EUR"), ("12", "USD"))] == ["2500", "500", "0.10", "12.00"]
    for amount in (Money.of("2500.50", "HUF"), Money.of("1.250", "KWD"), Money.of("10", "RON")):
        with pytest.raises(Refused):
            to_paypal(amount)
        (method,) = rig.gateway.methods("DE", amount)
        assert method.unavailable in {"PayPal takes whole HUF only", f"Not for payments in {amount.currency}"}
    handoff = rig.gateway.checkout(charge("pay_forint", Money.of("2500", "HUF")))
    rig.pay(handoff.reference)
    assert rig.gateway.lookup(handoff.reference).received == Money.of("2500", "HUF")


@pytest.mark.parametrize(
    ("issue", "words", "whose"),
    [
        ("REFUND_TIME_LIMIT_EXCEEDED", "180 days", Refused),
        ("TRANSACTION_DISPUTED", "disputed", Refused),
        ("CAPTURE_FULLY_REFUNDED", "in full", Refused),
        ("REFUND_AMOUNT_EXCEEDED", "more than is left", Refused),
        ("PARTIAL_REFUND_NOT_ALLOWED", "as a whole", Refused),
        ("MAX_NUMBER_OF_REFUNDS_EXCEEDED", "too many parts", Refused),
        ("REFUND_NOT_PERMITTED_DUE_TO_CHARGEBACK", "taken this payment back", Refused),
        ("REFUND_CAPTURE_CURRENCY_MISMATCH", "the currency it came in", Refused),
        ("PENDING_CAPTURE", "not settled", NotNow),
        ("REFUND_FAILED_INSUFFICIENT_FUNDS", "not enough money", Misconfigured),
        ("PERMISSION_DENIED", "PERMISSION_DENIED", Misconfigured),
        ("NEW_ISSUE", "NEW_ISSUE", Misconfigured),
    ],
)
def test_a_refused_refund_says_why(rig: PayPalRig, issue: str, words: str, whose: type[GatewayError]):
    reference = open_session(rig)
    rig.pay(reference)
    rig.gateway.lookup(reference)
    rig.fake.refund_issue = issue
    with pytest.raises(GatewayError) as refused:
        rig.gateway.refund(reference, EUR_25, "refund:1")
    assert type(refused.value) is whose
    assert words in (refused.value.detail if whose is Misconfigured else str(refused.value))


def test_refunds_stop_at_what_was_captured_and_their_events_point_to_the_payment(rig: PayPalRig):
    reference = open_session(rig)
    rig.pay(reference)
    rig.gateway.lookup(reference)
    rig.gateway.refund(reference, Money.of("20", "EUR"), "refund:1")
    with pytest.raises(GatewayError, match="more than is left"):
        rig.gateway.refund(reference, Money.of("5.01", "EUR"), "refund:2")
    event = rig.gateway.read_event(*rig.webhooks()[-1])
    assert event.kind == "PAYMENT.CAPTURE.REFUNDED"
    after = rig.gateway.lookup(event.reference)
    assert (after.reference, after.state, after.received) == (reference, "paid", EUR_25)


# What has come back of a capture since


def captured(rig: PayPalRig) -> str:
    """An order of 25 euro that was paid."""
    reference = open_session(rig)
    rig.pay(reference)
    rig.gateway.lookup(reference)
    return reference


def disputes(rig: PayPalRig, reference: str) -> list[tuple[str, str]]:
    """State and amount of each dispute."""
    return [(one.state, str(one.amount)) for one in rig.gateway.lookup(reference).disputes]


def test_an_inquiry_takes_nothing_until_it_is_a_claim(rig: PayPalRig):
    reference = captured(rig)
    dispute = rig.fake.dispute(reference, "25.00", stage="INQUIRY")
    assert disputes(rig, reference) == [("inquiry", "25.00 EUR")]
    with pytest.raises(GatewayError, match="disputed"):
        rig.gateway.refund(reference, EUR_25, "refund:1")
    rig.fake.escalate(dispute)
    assert disputes(rig, reference) == [("open", "25.00 EUR")]


def test_an_inquiry_that_ends_between_the_two_is_closed_and_its_refund_is_a_refund(rig: PayPalRig):
    reference = captured(rig)
    rig.fake.resolve(rig.fake.dispute(reference, "25.00", stage="INQUIRY"), "RESOLVED_BUYER_FAVOUR", "10.00")
    assert disputes(rig, reference) == [("closed", "25.00 EUR")]
    assert [refund.amount.minor for refund in rig.gateway.lookup(reference).refunds] == [10_00]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("RESOLVED_SELLER_FAVOUR", "won"),
        ("CANCELED_BY_BUYER", "won"),
        ("RESOLVED_WITH_PAYOUT", "won"),
        ("RESOLVED_BUYER_FAVOUR", "lost"),
        ("ACCEPTED", "lost"),
        ("DENIED", "won"),
        ("NONE", "won"),
    ],
)
def test_what_paypal_calls_the_outcome(rig: PayPalRig, outcome: str, state: str):
    reference = captured(rig)
    rig.fake.resolve(rig.fake.dispute(reference, "25.00"), outcome)
    found = rig.gateway.lookup(reference)
    assert [(one.state, one.amount) for one in found.disputes] == [(state, EUR_25)]
    assert found.refunds == (), "what a claim took is written beside the refunds, and is the same money"
    assert (found.state, found.received) == ("paid", EUR_25)


def test_a_claim_that_ends_without_a_decision_but_with_a_refund_took_that(rig: PayPalRig):
    reference = captured(rig)
    dispute = rig.fake.dispute(reference, "25.00")
    rig.fake.resolve(dispute, "NONE")
    rig.fake.disputes[dispute]["dispute_outcome"]["amount_refunded"] = {"currency_code": "EUR", "value": "10.00"}
    assert disputes(rig, reference) == [("won", "25.00 EUR"), ("lost", "10.00 EUR")]


@pytest.mark.parametrize(("field", "value"), [("outcome", "NEW_ONE"), ("stage", "NEW_STAGE")])
def test_an_outcome_or_a_stage_that_is_new_waits_for_a_person_and_the_payment_goes_on(rig: PayPalRig, field: str, value: str):
    reference = captured(rig)
    dispute = rig.fake.dispute(reference, "25.00", stage=value if field == "stage" else "CHARGEBACK")
    if field == "outcome":
        rig.fake.resolve(dispute, value)
    found = rig.gateway.lookup(reference)
    assert (found.state, found.received, found.disputes, found.refunds) == ("paid", EUR_25, (), ())
    assert [(one.kind, one.reference) for one in found.unread] == [("dispute", dispute)]


def test_a_claim_that_ends_with_a_part_takes_the_part(rig: PayPalRig, demo_customer):
    payment = credited(rig, demo_customer)
    dispute = rig.fake.dispute(payment.gateway_reference, "25.00")
    tell_all(rig)
    assert wallet.state(demo_customer.customer_id).available == 0
    rig.fake.resolve(dispute, "RESOLVED_BUYER_FAVOUR", "10.00")
    tell_all(rig)
    tell_all(rig)
    assert wallet.state(demo_customer.customer_id).available == 15_00
    assert theirs(rig) == ours("paypal")


def test_a_lost_claim_that_is_won_on_appeal_comes_back(rig: PayPalRig, demo_customer):
    payment = credited(rig, demo_customer)
    dispute = rig.fake.dispute(payment.gateway_reference, "25.00")
    rig.fake.resolve(dispute, "RESOLVED_BUYER_FAVOUR", reverses=False)
    tell_all(rig)
    assert (again(payment).state, wallet.state(demo_customer.customer_id).available) == ("disputed", 0)
    rig.fake.escalate(dispute, "PRE_ARBITRATION")
    tell_all(rig)
    rig.fake.resolve(dispute, "RESOLVED_SELLER_FAVOUR")
    tell_all(rig)
    assert (again(payment).state, wallet.state(demo_customer.customer_id).available) == ("paid", 25_00)
    assert theirs(rig) == ours("paypal")


def credited(rig: PayPalRig, user):
    """A payment of 25 euro that was credited."""
    payment = begin(topup(user, EUR_25), rig.method)
    rig.pay(payment.gateway_reference)
    tell_all(rig)
    return payment


def test_money_taken_back_without_a_word_is_lost_as_far_as_it_was_not_refunded(rig: PayPalRig, demo_customer):
    payment = credited(rig, demo_customer)
    rig.fake.refund_by_hand(payment.gateway_reference, "5.00")
    tell_all(rig)
    rig.fake.take_back(payment.gateway_reference)
    tell_all(rig)
    tell_all(rig)
    assert (again(payment).state, wallet.state(demo_customer.customer_id).available) == ("disputed", 0)
    assert disputes(rig, payment.gateway_reference) == [("lost", "20.00 EUR")]


def test_a_capture_that_names_another_payee_is_not_credited(rig: PayPalRig, demo_customer):
    payment = begin(topup(demo_customer, EUR_25), rig.method)
    rig.pay(payment.gateway_reference)
    rig.gateway.lookup(payment.gateway_reference)
    (capture,) = rig.fake.captures.values()
    capture["payee"] = {"merchant_id": "THIEF"}
    assert "THIEF" in rig.gateway.lookup(payment.gateway_reference).fault
    tell_all(rig)
    assert (again(payment).state, wallet.state(demo_customer.customer_id).available) == ("review", 0)


def test_what_was_paid_counts_though_paypal_changes_it_into_another_currency(rig: PayPalRig, demo_customer):
    rig.fake.holds = "USD"
    payment = credited(rig, demo_customer)
    (capture,) = rig.fake.captures.values()
    assert "exchange_rate" in capture["seller_receivable_breakdown"]
    paid = again(payment)
    assert (paid.received, paid.received_currency, paid.fee, paid.fee_currency) == (25_00, "EUR", 62, "EUR")
    assert theirs(rig) == ours("paypal") == {"EUR": 24_38}


def test_an_app_that_may_not_read_disputes_takes_payments_all_the_same(rig: PayPalRig, caplog):
    rig.fake.reads_disputes = False
    reference = captured(rig)
    assert (rig.gateway.lookup(reference).state, rig.gateway.lookup(reference).disputes) == ("paid", ())
    assert "does not let us read disputes" in caplog.text


def test_money_that_just_came_waits_for_nothing_but_its_capture(rig: PayPalRig):
    reference = open_session(rig)
    rig.pay(reference)
    assert rig.gateway.lookup(reference).state == "paid"
    assert not [path for path in rig.fake.paths("GET") if "disputes" in path]


def test_an_order_is_not_made_twice_when_its_key_is_forgotten(rig: PayPalRig):
    asked = charge()
    reference = rig.gateway.checkout(asked).reference
    rig.fake.forget_keys()
    with pytest.raises(Refused, match="taken this payment before"):
        rig.gateway.checkout(asked)
    assert list(rig.fake.orders) == [reference]


def test_news_without_a_capture_in_them_lead_to_their_order_and_foreign_ones_nowhere(rig: PayPalRig):
    reference = captured(rig)
    over = rig.fake.happened("CHECKOUT.PAYMENT-APPROVAL.REVERSED", {"order_id": reference, "purchase_units": []})
    assert rig.gateway.read_event(*rig.signed(json.dumps(over).encode())).reference == reference
    other = rig.fake.happened("CUSTOMER.DISPUTE.CREATED", {"dispute_id": "PP-D-0", "disputed_transactions": [{"seller_transaction_id": "3C1", "seller": {"merchant_id": "THIEF"}}]})
    assert "THIEF" in rig.gateway.read_event(*rig.signed(json.dumps(other).encode())).fault
