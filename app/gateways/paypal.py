"""PayPal, by Orders v2: the order is created here, approved on PayPal's page, and captured when it is looked up.

An approved order is a promise and no money. Whoever looks it up (the return page, a webhook, the reconciling job) captures it under a
key made of our own payment's id, so it is captured once; PayPal remembers a key for six hours, and an order that old is not captured.
What has happened to a capture since, its refunds and its disputes, comes with every look-up (decision 0088).
"""

import logging
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from app import clock
from app.gateways import http
from app.gateways.base import (
    UNREADABLE,
    BadSignature,
    Charge,
    DisputeSnapshot,
    Event,
    GatewayError,
    Method,
    Misconfigured,
    NotNow,
    ReadsAnswers,
    Redirect,
    RefundSnapshot,
    Refused,
    Snapshot,
    State,
    Unread,
    UnreadableAnswer,
    UnreadableEvent,
    WayBack,
    each,
    on_loopback,
    optional,
    origin,
    place_of,
    read_json,
    text,
)
from app.languages import N_
from app.money import AmountError, Money

log = logging.getLogger(__name__)

LIVE_API = "https://api-m.paypal.com"
SIGNATURE_HEADERS = ("paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig", "paypal-cert-url", "paypal-auth-algo")
DELIVERED_WITHIN = timedelta(days=3)
"""PayPal repeats a webhook for three days; its signed time may lie that far from ours, before or after."""
KEY_LIFE = timedelta(hours=6)
"""How long PayPal remembers a PayPal-Request-Id of an order, and lets an order that nobody approved live."""
SEARCH_BACK = timedelta(hours=48)
"""How far back PayPal's own list of events is searched for a payment of ours whose order we never heard of."""
TOKEN_MARGIN_S = 60
REFUND_DAYS = 180
CERTIFICATE_NAME = "messageverificationcerts.paypal.com"
MOST_CERTIFICATES = 16

CURRENCIES = frozenset(
    {"AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD"}
)
WHOLE = frozenset({"HUF", "JPY", "TWD"})
"""Currencies PayPal takes without decimals, whatever ISO 4217 says; forints with fillér are refused, never rounded."""
METHODS = (Method("paypal", "PayPal", "PayPal", "Your PayPal account", "Instant", "paypal", currencies=CURRENCIES),)

_OWN_ID = re.compile(r"pay_\w{1,64}")
_THEIR_ID = re.compile(r"(capture-)?[0-9A-Za-z-]{1,64}")
_ABOUT_MONEY = ("CHECKOUT.", "CUSTOMER.DISPUTE.", "PAYMENT.CAPTURE.", "PAYMENT.REFUND.")
"""How the kinds of events begin that are about payments of ours; PayPal may send any other to the same address."""
_CERTIFICATE_PATH = re.compile(r"/v1/notifications/certs/[0-9A-Za-z._-]{1,128}")
_PREFER = {"Prefer": "return=representation"}


def _page_origin(api_base: str) -> str:
    """Where the payer approves what is asked of this API."""
    if on_loopback(api_base):
        return origin(api_base)
    trial = ".sandbox." in (urlsplit(api_base).hostname or "")
    return "https://www.sandbox.paypal.com" if trial else "https://www.paypal.com"


class PayPal(ReadsAnswers):
    """The gateway to one PayPal account. `merchant_id`, when given, is checked on every order and webhook; `webhook_ids` may hold two, by comma, while one is being replaced."""

    name = "paypal"
    grows = False
    forgets = True
    final_after: timedelta | None = None

    def __init__(self, client_id: str, secret: str, webhook_ids: str, api_base: str = LIVE_API, merchant_id: str = "", certificates: "Certificates | None" = None) -> None:
        self._authorization = http.basic(client_id, secret)
        self._webhook_ids = [name.strip() for name in webhook_ids.split(",") if name.strip()]
        self._base = api_base.rstrip("/")
        self._merchant_id = merchant_id
        self.pages: tuple[str, ...] = (_page_origin(self._base),)
        self._certificates = certificates or Certificates(_hosts(self._base))
        self._token, self._token_until = "", 0.0

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """PayPal itself, judged for this amount."""
        return [_fitting(method.judged(country, amount), amount) for method in METHODS]

    def checkout(self, charge: Charge) -> Redirect:
        """The order of this charge, made once, and PayPal's page for it."""
        answer = self._call("POST", "/v2/checkout/orders", self._order(charge), {"PayPal-Request-Id": f"{charge.id}:order", **_PREFER}, expected=(422,))
        if answer.status == 422:
            raise _refused(answer.body)
        order = answer.body
        url = next((link["href"] for link in order.get("links") or [] if link.get("rel") in ("payer-action", "approve")), "")
        if not url:
            raise UnreadableAnswer("links[].href (paypal.checkout)", "The payment page did not open. Nothing was charged.")
        return Redirect(url, order["id"])

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the signature by PayPal's certificate, then read. Raises BadSignature, UnreadableEvent, GatewayError while the certificate cannot be had.

        What is signed is a CRC32 of the body, which anybody can keep while changing the body: all that is taken from it is what to look up.
        """
        sent_at = self._verify(body, headers)
        event = read_json(body)
        kind, about = text(event.get("event_type"), "event_type"), event.get("resource")
        if not kind.startswith(_ABOUT_MONEY):
            return Event(headers["paypal-transmission-id"], "", kind, sent_at)
        if not isinstance(about, dict):
            raise UnreadableEvent("resource")
        try:
            reference, fault = _reference(kind, about), self._foreign(_payee(about))
        except UNREADABLE as error:
            raise UnreadableEvent(f"resource: {place_of(error)}") from None
        return Event(headers["paypal-transmission-id"], reference, kind, sent_at, fault)

    def lookup(self, reference: str) -> Snapshot | None:
        """The order by its own id, its capture's, or ours; one that was approved is captured first."""
        order = self._find(reference)
        return self._snapshot(order) if order else None

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Send back from the order's capture, unless the order shows that this key has sent it: PayPal forgets a key after 45 days, a refund never."""
        order = self._find(reference)
        capture = _capture(order) if order else None
        if order is not None and capture is None and order["status"] == _COMPLETED:
            raise UnreadableAnswer(_CAPTURES)
        if order is None or capture is None:
            raise Misconfigured(f"PayPal has no capture of {reference}: are its keys those of the account that was paid?")
        if sent := next((one for one in _listed_refunds(order) if one.get("custom_id") == key), None):
            return _refund(sent, amount, key)
        body = {"amount": _amount(amount), "custom_id": key}
        answer = self._call("POST", f"/v2/payments/captures/{quote(capture['id'])}/refund", body, {"PayPal-Request-Id": f"{key}:refund", **_PREFER}, expected=(422,))
        if answer.status == 422:
            raise _refused(answer.body)
        return _refund(answer.body, amount, key)

    def way_back(self, method: str) -> WayBack:
        """As long as PayPal refunds a capture."""
        del method
        return WayBack(REFUND_DAYS)

    # Webhooks

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> datetime:
        transmission, stamp, signature, url, algorithm = (headers.get(name, "") for name in SIGNATURE_HEADERS)
        if algorithm != "SHA256withRSA" or not (0 < len(transmission) <= 128 and transmission.isprintable()):
            raise BadSignature("not signed as PayPal signs")
        try:
            sent_at, signed = _time(stamp), http.read_base64(signature)
        except ValueError as error:
            raise BadSignature("no signed time, or no signature") from error
        if abs(clock.now() - sent_at) > DELIVERED_WITHIN:
            raise BadSignature("signed too far from now")
        key = self._certificates.key(url)
        for webhook_id in self._webhook_ids:
            with suppress(InvalidSignature):
                key.verify(signed, f"{transmission}|{stamp}|{webhook_id}|{zlib.crc32(body)}".encode(), PKCS1v15(), SHA256())
                return sent_at
        raise BadSignature("the signature does not match")

    def _foreign(self, payee: str) -> str:
        return f"of the account {payee}, not ours" if payee and self._merchant_id and payee != self._merchant_id else ""

    # The API

    def _call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, expected: tuple[int, ...] = ()) -> http.Answer:
        content = http.write_json(body) if body is not None else None
        for fresh in (False, True):
            sent = {"Authorization": f"Bearer {self._bearer(fresh=fresh)}", "Content-Type": "application/json", **(headers or {})}
            answer = http.call(method, self._base + path, body=content, headers=sent, expected=(401, *expected))
            if answer.status != 401:
                return answer
        raise Misconfigured(f"{method} {path}: 401 with a new token")

    def _bearer(self, *, fresh: bool) -> str:
        if fresh or time.monotonic() >= self._token_until:
            headers = {"Authorization": self._authorization, "Content-Type": "application/x-www-form-urlencoded"}
            answer = http.call("POST", f"{self._base}/v1/oauth2/token", body=b"grant_type=client_credentials", headers=headers).body
            self._token, self._token_until = str(answer["access_token"]), time.monotonic() + int(answer.get("expires_in") or 0) - TOKEN_MARGIN_S
        return self._token

    def _order(self, charge: Charge) -> dict[str, Any]:
        unit = {
            "reference_id": "default",
            "custom_id": charge.id,
            # Unique for the life of the account: PayPal itself refuses to take one payment of ours twice.
            "invoice_id": charge.id,
            "description": charge.description[:127],
            "amount": _amount(charge.amount),
        }
        if self._merchant_id:
            unit["payee"] = {"merchant_id": self._merchant_id}
        context = {
            "return_url": charge.return_url,
            "cancel_url": charge.cancel_url,
            "user_action": "PAY_NOW",
            "shipping_preference": "NO_SHIPPING",
            "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",
            "locale": _LOCALES.get(charge.locale, "en-US"),
        }
        return {"intent": "CAPTURE", "purchase_units": [unit], "payment_source": {"paypal": {"experience_context": context}}}

    def _find(self, reference: str) -> dict[str, Any] | None:
        if _OWN_ID.fullmatch(reference):
            reference = self._by_own_id(reference)
        if not _THEIR_ID.fullmatch(reference):
            return None
        if reference.startswith("capture-"):
            reference = self._order_of(reference.removeprefix("capture-"))
        answer = self._call("GET", f"/v2/checkout/orders/{reference}", expected=(404,)) if reference else None
        return answer.body if answer and answer.status == 200 else None

    def _by_own_id(self, charge_id: str) -> str:
        """The order that PayPal's events name for a charge of ours: orders themselves cannot be searched."""
        since = (clock.now() - SEARCH_BACK).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"/v1/notifications/webhooks-events?page_size=100&start_time={since}"
        for _ in range(50):
            found = self._call("GET", path).body or {}
            for event in found.get("events") or []:
                with suppress(*UNREADABLE):  # one of another kind, of which the list may hold any
                    if charge_id in _custom_ids(event["resource"]):
                        return _reference(str(event["event_type"]), event["resource"])
            path = next((_local(link["href"]) for link in found.get("links") or [] if link.get("rel") == "next"), "")
            if not path:
                break
        return ""

    def _order_of(self, capture_id: str) -> str:
        answer = self._call("GET", f"/v2/payments/captures/{capture_id}", expected=(404,))
        order = _order_id(answer.body) if answer.status == 200 else ""
        if not order and answer.status == 200 and _OWN_ID.fullmatch(str(answer.body.get("custom_id"))):
            raise UnreadableAnswer("supplementary_data.related_ids.order_id (paypal._order_of)")
        return order

    # What an order says

    def _snapshot(self, order: dict[str, Any]) -> Snapshot:
        unit = order["purchase_units"][0]
        told = Snapshot(order["id"], str(unit.get("custom_id") or unit.get("invoice_id") or ""), "open", fault=self._foreign((unit.get("payee") or {}).get("merchant_id", "")))
        capture = _capture(order)
        if capture is None and order["status"] == "APPROVED" and _OWN_ID.fullmatch(told.charge_id) and not told.fault and _age(order) < KEY_LIFE:
            return self._take(order, told)
        if capture is None:
            return replace(told, state=_waiting(order))
        return self._since(order, self._read(capture["id"]), told)

    def _take(self, order: dict[str, Any], told: Snapshot) -> Snapshot:
        """Capture an approved order; what PayPal says of it then. Nothing can have come back of it yet, so nobody asks."""
        key = {"PayPal-Request-Id": f"{told.charge_id}:capture", **_PREFER}
        answer = self._call("POST", f"/v2/checkout/orders/{order['id']}/capture", {}, key, expected=(404, 422))
        if answer.status == 404:
            return replace(told, state="expired")
        if answer.status == 422 and (issue := _issue(answer.body)) != "ORDER_ALREADY_CAPTURED":
            if issue in _NOT_YET:
                return told
            if issue.startswith(_OURS):
                raise _refused(answer.body)
            return replace(told, state="failed", failure_code=_CODES.get(issue, issue.lower()), failure_message=_SENTENCES.get(issue, http.REFUSED))
        again = self._find(order["id"])
        capture = _capture(again) if again else None
        return self._captured(self._read(capture["id"]), told) if capture else replace(told, state="pending")

    def _read(self, capture_id: str) -> dict[str, Any]:
        """The capture by its own address: the one object whose amount is believed."""
        found: dict[str, Any] = self._call("GET", f"/v2/payments/captures/{quote(capture_id)}").body
        return found

    def _captured(self, capture: dict[str, Any], told: Snapshot) -> Snapshot:
        state = _CAPTURE_STATES.get(capture["status"])
        if state is None:
            raise UnreadableAnswer("status (paypal._captured)")
        named = capture.get("custom_id") or told.charge_id
        unread: list[Unread] = []
        paid = state == "paid"
        return replace(
            told,
            state=state,
            # As it was paid, and the fee in the same currency, even where PayPal then changes it into the currency of our balance.
            received=_money(capture["amount"]) if paid else None,
            fee=optional("fee", capture["id"], lambda: _fee(capture), None, unread) if paid else None,
            paid_at=optional("detail", capture["id"], lambda: _time(capture["create_time"]), None, unread) if paid else None,
            method_label="PayPal",
            failure_code="declined" if state == "failed" else "",
            failure_message=N_("PayPal declined the payment.") if state == "failed" else "",
            fault=told.fault or self._foreign(_payee(capture)) or (f"the capture names {named}" if named != told.charge_id else ""),
            unread=tuple(unread),
        )

    def _since(self, order: dict[str, Any], capture: dict[str, Any], told: Snapshot) -> Snapshot:
        """A captured order with what has come back of it since."""
        said = self._captured(capture, told)
        if said.state != "paid" or said.received is None:
            return said
        disputes, unread_disputes = self._disputes(capture["id"])
        sent, unread_refunds = _refunds(order, said.received.currency)
        unread = (*said.unread, *unread_disputes, *unread_refunds)
        if unread_disputes:
            # PayPal writes what a dispute took among the refunds, too: until it can be read, only those that carry our key are known to be refunds.
            return replace(said, refunds=tuple(one for one in sent if one.key), disputes=disputes, unread=unread)
        refunds = _not_of(disputes, sent)
        if capture["status"] == "REVERSED" and not unread and not any(dispute.state in _TOOK for dispute in disputes):
            disputes += _reversed(capture["id"], said.received, refunds)
        return replace(said, refunds=refunds, disputes=disputes, unread=unread)

    def _disputes(self, capture_id: str) -> tuple[tuple[DisputeSnapshot, ...], tuple[Unread, ...]]:
        """The disputes of a capture, inquiries among them, and those that cannot be read. Their list tells no outcome, so each is read by itself."""
        answer = self._call("GET", f"/v1/customer/disputes?disputed_transaction_id={quote(capture_id)}&page_size=50", expected=(403,))
        if answer.status == 403:
            log.warning("PayPal does not let us read disputes: switch them on among the features of our app in its dashboard.")
            return (), ()
        named = [str(one["dispute_id"]) for one in (answer.body or {}).get("items", [])]
        return each("dispute", named, lambda name: _dispute(self._call("GET", f"/v1/customer/disputes/{quote(name)}").body), str)


_LOCALES = {"cs": "cs-CZ", "de": "de-DE", "en": "en-US", "es": "es-ES", "fr": "fr-FR", "it": "it-IT", "nl": "nl-NL", "pl": "pl-PL", "pt": "pt-PT"}
_COMPLETED = "COMPLETED"
_ORDER_STATES: dict[str, State] = {**dict.fromkeys(("CREATED", "SAVED", "APPROVED", "PAYER_ACTION_REQUIRED"), "open"), "VOIDED": "expired"}
"""Of an order that has no capture; a completed one has one."""
_REFUND_STATES: dict[str, Literal["pending", "settled", "failed"]] = {"PENDING": "pending", "COMPLETED": "settled", "FAILED": "failed", "CANCELLED": "failed"}
_CAPTURE_STATES: dict[str, State] = {
    **dict.fromkeys(("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED", "REVERSED"), "paid"),
    "PENDING": "pending",
    **dict.fromkeys(("DECLINED", "FAILED"), "failed"),
}
_CAPTURES = "purchase_units[].payments.captures"
_INQUIRY = "INQUIRY"
_CLAIMS = frozenset({"CHARGEBACK", "PRE_ARBITRATION", "ARBITRATION"})
"""The stages at which a dispute takes the money. In an inquiry the two only talk; what is sent back there is a refund."""
_TOOK = frozenset({"open", "won", "lost"})
_OUTCOMES: dict[str, Literal["won", "lost"]] = {
    **dict.fromkeys(("RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED", "RESOLVED_WITH_PAYOUT", "NONE"), "won"),
    **dict.fromkeys(("RESOLVED_BUYER_FAVOUR", "ACCEPTED"), "lost"),
}
"""Paid out by PayPal itself (`RESOLVED_WITH_PAYOUT`), the payer's money does not come from us. One that ended without a decision (`NONE`, or no
outcome at all) took nothing, unless it says what was refunded."""
_NOT_YET = frozenset({"ORDER_NOT_APPROVED", "ORDER_COMPLETION_IN_PROGRESS"})
_CODES = {"INSTRUMENT_DECLINED": "insufficient_funds"}
_SENTENCES = {
    "INSTRUMENT_DECLINED": N_("PayPal could not take the money from the card or bank account that was chosen. Choose another one there."),
    "PAYER_ACTION_REQUIRED": N_("PayPal asks you to confirm this payment on its page once more."),
    "PAYER_ACCOUNT_RESTRICTED": N_("PayPal does not let this account pay at the moment."),
    "PAYER_CANNOT_PAY": N_("PayPal does not let this account pay this amount."),
    "TRANSACTION_REFUSED": N_("PayPal refused the payment without naming a reason."),
    "COMPLIANCE_VIOLATION": N_("PayPal may not carry out this payment."),
    "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED": N_("PayPal takes no further tries for this payment. Start it anew."),
    "DUPLICATE_INVOICE_ID": N_("PayPal has taken this payment before."),
    "REFUND_TIME_LIMIT_EXCEEDED": N_("PayPal sends money back for 180 days only, and they are over."),
    "REFUND_AMOUNT_EXCEEDED": N_("That is more than is left of this payment at PayPal."),
    "CAPTURE_FULLY_REFUNDED": N_("This payment was sent back in full already."),
    "PARTIAL_REFUND_NOT_ALLOWED": N_("PayPal sends this payment back as a whole only."),
    "MAX_NUMBER_OF_REFUNDS_EXCEEDED": N_("PayPal sends nothing more back of this payment: it came in too many parts."),
    "PENDING_CAPTURE": N_("The payment has not settled at PayPal yet, so it cannot go back yet."),
    "TRANSACTION_DISPUTED": N_("The payment is disputed at PayPal, so it cannot go back meanwhile."),
    "REFUND_NOT_PERMITTED_DUE_TO_CHARGEBACK": N_("The payer's bank has taken this payment back already."),
    "REFUND_CAPTURE_CURRENCY_MISMATCH": N_("PayPal sends money back in the currency it came in only."),
}
"""What PayPal's issues mean to a person."""
_OURS = ("PAYEE_", "PERMISSION_", "REFUND_FAILED_INSUFFICIENT_FUNDS")
"""How refusals begin that are about our own account."""
_MEANS = {"REFUND_FAILED_INSUFFICIENT_FUNDS": ": our account there has not enough money for this refund"}


def to_paypal(amount: Money) -> str:
    """The amount as PayPal reads it. Raises Refused when it cannot be written exactly."""
    value = amount.decimal
    step = Decimal(1) if amount.currency in WHOLE else Decimal("0.01")
    if amount.currency not in CURRENCIES or value != value.quantize(step):
        raise Refused(f"PayPal takes whole {amount.currency} only" if amount.currency in WHOLE else "Not for this amount", detail=f"{amount} at PayPal")
    return str(value.quantize(step))


def _amount(amount: Money) -> dict[str, str]:
    return {"currency_code": amount.currency, "value": to_paypal(amount)}


def _money(said: Mapping[str, Any]) -> Money | None:
    """What PayPal says; None for a currency or a fraction that the house does not know, which nobody may credit."""
    try:
        return Money.of(str(said["value"]), str(said["currency_code"]))
    except AmountError:
        return None


def _fitting(method: Method, amount: Money) -> Method:
    if method.unavailable:
        return method
    try:
        to_paypal(amount)
    except Refused as error:
        return replace(method, unavailable=str(error))
    return method


def _capture(order: Mapping[str, Any]) -> dict[str, Any] | None:
    """The capture of an order: the one that brought money before one that did not."""
    captures = [capture for unit in order["purchase_units"] for capture in (unit.get("payments") or {}).get("captures") or []]
    return min(captures, key=lambda capture: _CAPTURE_STATES.get(capture["status"], "pending") != "paid", default=None)


def _fee(capture: Mapping[str, Any]) -> Money | None:
    """What PayPal kept of a capture, where it says so."""
    fee = (capture.get("seller_receivable_breakdown") or {}).get("paypal_fee")
    return _money(fee) if fee else None


def _refunds(order: Mapping[str, Any], currency: str) -> tuple[tuple[RefundSnapshot, ...], tuple[Unread, ...]]:
    """The refunds of an order, whoever made them, and those that cannot be read."""
    return each("listed_refund", _listed_refunds(order), lambda refund: [_listed_refund(refund, currency)], lambda refund: str(refund.get("id") or ""))


def _listed_refunds(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [refund for unit in order["purchase_units"] for refund in (unit.get("payments") or {}).get("refunds") or []]


def _listed_refund(said: Mapping[str, Any], currency: str) -> RefundSnapshot:
    amount = _money(said["amount"])
    return _refund(said, amount or Money(0, currency), str(said.get("custom_id") or ""))


def _refund(said: Mapping[str, Any], asked: Money, key: str) -> RefundSnapshot:
    """One refund; `asked` counts where PayPal does not repeat the amount, or not so that we could read it: the money has left."""
    state = _REFUND_STATES.get(str(said.get("status") or ""), "pending")
    amount = optional("detail", "", lambda: _money(said["amount"]), None, []) or asked
    return RefundSnapshot(str(said["id"]), state, amount, N_("PayPal could not send the money back to the payer.") if state == "failed" else "", key)


def _not_of(disputes: Sequence[DisputeSnapshot], refunds: Sequence[RefundSnapshot]) -> tuple[RefundSnapshot, ...]:
    """The refunds that carry out no dispute. PayPal writes what a claim took beside the refunds of the capture; it is the same money."""
    carried_out = [dispute.amount for dispute in disputes if dispute.state in ("open", "lost")]
    kept = []
    for refund in refunds:
        if refund.key or refund.amount not in carried_out:
            kept.append(refund)
        else:
            carried_out.remove(refund.amount)
    return tuple(kept)


def _reversed(capture_id: str, received: Money, refunds: Sequence[RefundSnapshot]) -> tuple[DisputeSnapshot, ...]:
    """What PayPal took back without a dispute of its own, such as a payer's bank that recalls the money: lost, as far as it was not refunded."""
    gone = received.minor - sum(refund.amount.minor for refund in refunds if refund.state != "failed")
    return (DisputeSnapshot(f"reversed-{capture_id}", "lost", Money(gone, received.currency), "reversed by PayPal"),) if gone > 0 else ()


def _dispute(said: Mapping[str, Any]) -> tuple[DisputeSnapshot, ...]:
    """One dispute; two where it ended with a part: the whole was given back to us, and the part taken for good. Raises UnreadableAnswer."""
    amount = _money(said["dispute_amount"])
    if amount is None:
        raise UnreadableAnswer("dispute_amount.currency_code")
    outcome = said.get("dispute_outcome") or {}
    name, reason, over = str(said["dispute_id"]), str(said.get("reason") or "").replace("_", " ").lower(), said["status"] == "RESOLVED"
    stage = str(said.get("dispute_life_cycle_stage") or _INQUIRY)
    if stage not in _CLAIMS:
        if stage != _INQUIRY:
            raise UnreadableAnswer("dispute_life_cycle_stage")
        return (DisputeSnapshot(name, "closed" if over else "inquiry", amount, reason),)
    code = str(outcome.get("outcome_code") or "NONE")
    if over and code not in _OUTCOMES:
        raise UnreadableAnswer("dispute_outcome.outcome_code")
    state = _OUTCOMES[code] if over else None
    if state == "won" and code == "NONE" and outcome.get("amount_refunded"):
        state = "lost"
    part = _money(outcome["amount_refunded"]) if state == "lost" and outcome.get("amount_refunded") else None
    if part and part.currency == amount.currency and 0 < part.minor < amount.minor:
        return DisputeSnapshot(name, "won", amount, reason), DisputeSnapshot(f"{name}-part", "lost", part, reason)
    return (DisputeSnapshot(name, state or "open", amount, reason),)


def _waiting(order: Mapping[str, Any]) -> State:
    """The state of an order without a capture. Raises UnreadableAnswer for one that should have one, and for a status PayPal has added since."""
    if order["status"] == _COMPLETED:
        raise UnreadableAnswer(_CAPTURES)
    if order["status"] not in _ORDER_STATES:
        raise UnreadableAnswer("status")
    return "expired" if _age(order) >= KEY_LIFE else _ORDER_STATES[order["status"]]


def _age(order: Mapping[str, Any]) -> timedelta:
    return clock.now() - _time(order["create_time"])


def _reference(kind: str, about: Mapping[str, Any]) -> str:
    """What to look up for an event's resource: orders by themselves, captures by their order, refunds and disputes by their capture."""
    if kind.startswith("CHECKOUT."):
        return str(about.get("order_id") or about.get("id") or "")
    if kind.startswith("CUSTOMER.DISPUTE."):
        transactions = about.get("disputed_transactions") or [{}]
        return _capture_reference(transactions[0].get("seller_transaction_id"))
    if not kind.startswith(("PAYMENT.CAPTURE.", "PAYMENT.REFUND.")):
        return ""
    up = next((str(link.get("href", "")) for link in about.get("links") or [] if link.get("rel") == "up"), "")
    if "/captures/" in up:
        return _capture_reference(up.rpartition("/")[2])
    return _order_id(about) or _capture_reference(about.get("id"))


def _capture_reference(capture_id: object) -> str:
    return f"capture-{capture_id}" if capture_id else ""


def _order_id(capture: Mapping[str, Any]) -> str:
    named = ((capture.get("supplementary_data") or {}).get("related_ids") or {}).get("order_id")
    up = next((str(link.get("href")) for link in capture.get("links") or [] if link.get("rel") == "up"), "")
    return str(named or (up.rpartition("/")[2] if "/checkout/orders/" in up else ""))


def _custom_ids(about: Mapping[str, Any]) -> Iterator[str]:
    return (str(part["custom_id"]) for part in chain([about], about.get("purchase_units") or []) if part.get("custom_id"))


def _payee(about: Mapping[str, Any]) -> str:
    """Whose money it is, where an order, a capture or a dispute names anybody."""
    named = [part.get("payee") for part in chain([about], about.get("purchase_units") or [])] + [part.get("seller") for part in about.get("disputed_transactions") or []]
    return next((str(whose["merchant_id"]) for whose in named if (whose or {}).get("merchant_id")), "")


def _local(href: str) -> str:
    """Path and query of a link; it is asked at our own base, wherever it points."""
    parts = urlsplit(href)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _issue(body: Any) -> str:
    details = body.get("details") if isinstance(body, dict) else None
    return str(details[0].get("issue", "")) if details else ""


def _refused(body: Any) -> GatewayError:
    """What PayPal will not do. What it says of the payment or its payer has a sentence; everything else is about our account or our request."""
    issue = _issue(body)
    if issue == "PENDING_CAPTURE":
        return NotNow(_SENTENCES[issue], detail=f"PayPal: {issue}")
    if issue in _SENTENCES and not issue.startswith(_OURS):
        return Refused(_SENTENCES[issue], detail=f"PayPal: {issue}")
    return Misconfigured(f"PayPal: {issue or body}{_MEANS.get(issue, '')}")


def _time(text: str) -> datetime:
    """An RFC 3339 time. Raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return found.astimezone(UTC)


# Certificates


def _hosts(base: str) -> frozenset[str]:
    """Where certificates may come from: PayPal's hosts of our own mode, and no others."""
    world = "" if base == LIVE_API else "sandbox."
    return frozenset({f"api.{world}paypal.com", f"api-m.{world}paypal.com"})


@dataclass(frozen=True, slots=True)
class _Kept:
    """A certificate whose chain was verified: its key, and until when it counts."""

    key: RSAPublicKey
    until: datetime


class Certificates:
    """PayPal's signing certificates: had once per address, each verified up to a public root before anything is believed."""

    def __init__(self, hosts: frozenset[str], fetch: Callable[[str], bytes] | None = None, roots: bytes | None = None) -> None:
        self._hosts = hosts
        self._fetch = fetch or _fetch
        self._roots = roots
        self._kept: dict[str, _Kept] = {}

    def key(self, url: str) -> RSAPublicKey:
        """The key of the certificate at an address. Raises BadSignature for any address or chain that is not PayPal's."""
        self._refuse_foreign(url)
        kept = self._kept.get(url)
        if kept is None or kept.until <= clock.now():
            if len(self._kept) >= MOST_CERTIFICATES:
                self._kept.clear()
            kept = self._kept[url] = self._verified(self._fetch(url))
        return kept.key

    def _refuse_foreign(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise BadSignature("no address of a certificate") from error
        # The whole of the address is rebuilt from what was checked: no user, no port, no query, nothing a parser might read otherwise.
        if parts.netloc not in self._hosts or not _CERTIFICATE_PATH.fullmatch(parts.path) or url != f"https://{parts.netloc}{parts.path}":
            raise BadSignature("the certificate is not PayPal's")

    def _verified(self, pem: bytes) -> _Kept:
        roots = self._roots or _public_roots()
        try:
            leaf, *between = x509.load_pem_x509_certificates(pem)
            verifier = PolicyBuilder().store(Store(x509.load_pem_x509_certificates(roots))).time(clock.now()).build_server_verifier(x509.DNSName(CERTIFICATE_NAME))
            verifier.verify(leaf, between)
        except (ValueError, VerificationError) as error:
            raise BadSignature(f"the certificate is not PayPal's: {error}") from error
        key = leaf.public_key()
        if not isinstance(key, RSAPublicKey):
            raise BadSignature("the certificate has no RSA key")
        return _Kept(key, leaf.not_valid_after_utc)


def _fetch(url: str) -> bytes:
    status, body = http.fetch("GET", url)
    if status != 200:
        raise BadSignature(f"there is no certificate at {url}: {status}")
    return body


def _public_roots() -> bytes:
    return Path(certifi.where()).read_bytes()
