"""A PayPal on the loopback: tokens, orders, captures, refunds, its list of events, and a certificate authority to sign its webhooks with.

Its books (`orders`, `captures`, `refunds`, `disputes`) are what the tests compare ours with. Keys that begin with `_` are its own and never shown.
"""

import base64
import json
import uuid
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app import clock
from app.money import Money
from tests.fakes.loopback import Call, Loopback, Refusal, Sums, books
from tests.fakes.schemas import schema

SCHEMA = schema("paypal")

CERT_URL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-fake-1"
SIGNED_FOR = "messageverificationcerts.paypal.com"
CAME = frozenset({"COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED", "REVERSED"})
CLAIMS = frozenset({"CHARGEBACK", "PRE_ARBITRATION", "ARBITRATION"})
KEPT_BY_US = frozenset({"RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED", "RESOLVED_WITH_PAYOUT", "NONE"})


@dataclass(frozen=True)
class Authority:
    """A root, and a certificate it signed for a name."""

    root: x509.Certificate
    leaf: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def roots(self) -> bytes:
        """What a verifier trusts."""
        return self.root.public_bytes(Encoding.PEM)

    @property
    def chain(self) -> bytes:
        """What the address of the certificate serves."""
        return self.leaf.public_bytes(Encoding.PEM)

    def sign(self, message: bytes) -> str:
        """SHA256withRSA, in base64."""
        return base64.b64encode(self.key.sign(message, PKCS1v15(), SHA256())).decode()


@cache
def authority(name: str = SIGNED_FOR, serial: int = 1, days: int = 3650) -> Authority:
    """An authority of our own; the same for the same arguments."""
    root_key, leaf_key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Root {serial}")])
    usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
                          key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)  # fmt: skip
    key_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = _certificate(issuer, issuer, root_key.public_key(), 3650, [(x509.BasicConstraints(ca=True, path_length=None), True), (usage, True), (key_id, False)]).sign(
        root_key, SHA256()
    )
    extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), False),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    leaf = _certificate(subject, issuer, leaf_key.public_key(), days, extensions).sign(root_key, SHA256())
    return Authority(root, leaf, leaf_key)


def _certificate(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, days: int, extensions: list[tuple[Any, bool]]) -> x509.CertificateBuilder:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
    made = made.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    for extension, critical in extensions:
        made = made.add_extension(extension, critical=critical)
    return made


@dataclass
class PayPal(Loopback):
    """One account. `outcome` of an order says what its capture brings: COMPLETED, PENDING, DECLINED, or an issue such as INSTRUMENT_DECLINED.

    `holds` is the currency of its balance when other money is converted on arrival; `reads_disputes` False is an app that was not allowed to.
    """

    client_id: str = "client"
    secret: str = "secret"
    webhook_id: str = "WH-1"
    merchant_id: str = "MERCHANT1"
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    captures: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    disputes: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    token_life_s: int = 32400
    refund_issue: str = ""
    refund_status: str = "COMPLETED"
    holds: str = ""
    reads_disputes: bool = True

    def __post_init__(self) -> None:
        self._ids = count(1)
        self._kept: dict[str, tuple[int, object]] = {}
        super().__post_init__()

    # What happens at PayPal, and the webhooks it writes about it.

    def approve(self, order_id: str, outcome: str = "COMPLETED", *, amount: str | None = None, currency: str | None = None) -> None:
        """The payer clicks "Pay now"; nothing is paid before the merchant captures."""
        order = self.orders[order_id]
        order["status"] = "APPROVED"
        self.outcomes[order_id] = outcome
        paid = order["purchase_units"][0]["amount"]
        order["_paid"] = {"currency_code": currency or paid["currency_code"], "value": amount or paid["value"]}
        for capture in order["purchase_units"][0].pop("payments", {}).get("captures", []):
            del self.captures[capture["id"]]
        self._kept.pop(f"/v2/checkout/orders/{order_id}/capture {order['purchase_units'][0]['custom_id']}:capture", None)
        self.happened("CHECKOUT.ORDER.APPROVED", order)

    def void(self, order_id: str) -> None:
        """The order closes unpaid."""
        self.orders[order_id]["status"] = "VOIDED"
        self.orders[order_id]["purchase_units"][0].pop("payments", None)
        self.happened("CHECKOUT.ORDER.VOIDED", self.orders[order_id])

    def settle(self, capture_id: str, status: str = "COMPLETED") -> None:
        """A pending capture comes to its end."""
        self.captures[capture_id]["status"] = status
        self.happened("PAYMENT.CAPTURE.COMPLETED" if status == "COMPLETED" else "PAYMENT.CAPTURE.DENIED", self.captures[capture_id])

    def refund_by_hand(self, order_id: str, value: str) -> str:
        """The merchant sends money back on PayPal's own page, so it carries no key of ours; the refund's id."""
        capture = self._capture_of(order_id)
        sent = self._refund(capture["id"], {"amount": capture["amount"] | {"value": value}})
        return str(sent["id"])

    def move_refund(self, refund_id: str, status: str) -> None:
        """A refund settles, or fails, be it weeks later."""
        refund = self.refunds[refund_id]
        refund["status"] = status
        self._restate(self.captures[refund["_capture"]])
        self.happened("PAYMENT.CAPTURE.REFUNDED" if status == "COMPLETED" else "PAYMENT.REFUND.FAILED", refund)

    def dispute(self, order_id: str, value: str, *, stage: str = "CHARGEBACK", reason: str = "MERCHANDISE_OR_SERVICE_NOT_RECEIVED") -> str:
        """The payer disputes: an inquiry between the two at first, or a claim that takes the money; the dispute's id."""
        capture, dispute_id = self._capture_of(order_id), f"PP-D-{next(self._ids)}"
        self.disputes[dispute_id] = {
            "dispute_id": dispute_id,
            "create_time": _now(),
            "reason": reason,
            "status": "WAITING_FOR_SELLER_RESPONSE",
            "_state": "REQUIRED_ACTION",
            "dispute_life_cycle_stage": stage,
            "dispute_amount": capture["amount"] | {"value": value},
            "disputed_transactions": [{"seller_transaction_id": capture["id"], "seller": {"merchant_id": self.merchant_id}}],
        }
        self.happened("CUSTOMER.DISPUTE.CREATED", self.disputes[dispute_id])
        return dispute_id

    def escalate(self, dispute_id: str, stage: str = "CHARGEBACK") -> None:
        """An inquiry becomes a claim, or a claim an appeal."""
        self.disputes[dispute_id] |= {"dispute_life_cycle_stage": stage, "status": "UNDER_REVIEW"}
        self.happened("CUSTOMER.DISPUTE.UPDATED", self.disputes[dispute_id])

    def resolve(self, dispute_id: str, outcome: str, refunded: str = "", *, reverses: bool = True) -> None:
        """PayPal decides. What goes to the payer is also written beside the capture as a reversal, which is the same money."""
        dispute = self.disputes[dispute_id]
        dispute |= {"status": "RESOLVED", "_state": "RESOLVED", "dispute_outcome": {"outcome_code": outcome}}
        if outcome not in KEPT_BY_US:
            gone = dispute["dispute_amount"] | ({"value": refunded} if refunded else {})
            dispute["dispute_outcome"]["amount_refunded"] = gone
            if reverses:
                self._reverse(dispute["disputed_transactions"][0]["seller_transaction_id"], gone)
        self.happened("CUSTOMER.DISPUTE.RESOLVED", dispute)

    def take_back(self, order_id: str) -> None:
        """PayPal reverses a capture and says no more about it than that."""
        capture = self._capture_of(order_id)
        capture["status"] = "REVERSED"
        self.happened("PAYMENT.CAPTURE.REVERSED", capture)

    def forget_keys(self) -> None:
        """So much time passes that no PayPal-Request-Id is remembered: six hours for orders, 45 days for refunds."""
        self._kept.clear()

    def books(self) -> dict[str, Sums]:
        """What it holds for us in the currencies that were paid, in its own view."""
        came = [capture for capture in self.captures.values() if capture["status"] in CAME]
        claims = [one for one in self.disputes.values() if one["dispute_life_cycle_stage"] in CLAIMS]
        outcomes = [(one, one.get("dispute_outcome", {})) for one in claims]
        gone = [outcome.get("amount_refunded", one["dispute_amount"]) for one, outcome in outcomes if outcome.get("outcome_code") not in KEPT_BY_US]
        return books(
            received=[_money(capture["amount"]) for capture in came],
            refunded=[_money(refund["amount"]) for refund in self.refunds.values() if refund["status"] == "COMPLETED" and not refund["_reversal"]],
            disputed=[_money(amount) for amount in gone] + [_money(capture["amount"]) for capture in came if capture["status"] == "REVERSED"],
            fees=[_money(capture["seller_receivable_breakdown"]["paypal_fee"]) for capture in came],
        )

    def _capture_of(self, order_id: str) -> dict[str, Any]:
        capture: dict[str, Any] = self.orders[order_id]["purchase_units"][0]["payments"]["captures"][0]
        return capture

    def happened(self, kind: str, resource: dict[str, Any]) -> dict[str, Any]:
        """Write an event."""
        of = "" if "order_id" in resource else _resource_of(resource)  # an approval that was reversed is in no published schema
        copied = json.loads(json.dumps(_shown(resource)))
        told = self.said(SCHEMA, of, _in_order(copied) if of == "order" else copied) if of else copied
        event = {
            "id": f"WH-{next(self._ids)}",
            "event_version": "1.0",
            "event_type": kind,
            "create_time": _now(),
            "resource_type": of or "checkout-order",
            "resource": told,
            "summary": "…",
            "links": [],
        }
        event = self.said(SCHEMA, "event", event)
        self.events.append(event)
        return event

    def webhook(self, body: bytes, *, at: float | None = None, webhook_id: str | None = None, by: Authority | None = None) -> tuple[bytes, dict[str, str]]:
        """A body as it is delivered: signed now unless said; the same body has the same transmission."""
        stamp = (datetime.fromtimestamp(at, UTC) if at is not None else clock.now()).strftime("%Y-%m-%dT%H:%M:%SZ")
        transmission = str(uuid.uuid5(uuid.NAMESPACE_URL, body.hex()))
        message = f"{transmission}|{stamp}|{webhook_id or self.webhook_id}|{zlib.crc32(body)}".encode()
        return body, {
            "paypal-transmission-id": transmission,
            "paypal-transmission-time": stamp,
            "paypal-transmission-sig": (by or authority()).sign(message),
            "paypal-cert-url": CERT_URL,
            "paypal-auth-algo": "SHA256withRSA",
        }

    # The API.

    def answer(self, call: Call) -> tuple[int, object]:
        """One call."""
        if call.path == "/v1/oauth2/token":
            return 200, self._token(call)
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refusal(401, self.said(SCHEMA, "oauth_error", {"error": "invalid_token"}))
        try:
            return self._once(call) if call.method == "POST" else (200, self.said(SCHEMA, *self._read(call)))
        except Refusal as refusal:
            raise Refusal(refusal.status, self.said(SCHEMA, "error", refusal.body)) from refusal

    def _token(self, call: Call) -> object:
        if call.headers["authorization"] != f"Basic {base64.b64encode(f'{self.client_id}:{self.secret}'.encode()).decode()}" or call.body != b"grant_type=client_credentials":
            raise Refusal(401, self.said(SCHEMA, "oauth_error", {"error": "invalid_client"}))
        token = f"A21AA{next(self._ids)}"
        self.tokens.add(token)  # others hold theirs for as long as they live
        return self.said(SCHEMA, "token", {"access_token": token, "token_type": "Bearer", "expires_in": self.token_life_s})

    def _once(self, call: Call) -> tuple[int, object]:
        key = f"{call.path} {call.headers['paypal-request-id']}"
        if len(call.headers["paypal-request-id"]) > 108:
            raise _error(400, "INVALID_REQUEST")
        if key not in self._kept:
            status, kind, said = self._write(call)
            told = json.loads(json.dumps(_shown(said)))
            self._kept[key] = status, self.said(SCHEMA, kind, _in_order(told) if kind == "order" else told)
        return self._kept[key]

    def _write(self, call: Call) -> tuple[int, str, object]:
        steps = call.path.split("/")
        if call.path == "/v2/checkout/orders":
            return 201, "order", self._create(call.json)
        if call.path.startswith("/v2/checkout/orders/") and steps[-1] == "capture":
            return 201, "order", self._capture(steps[-2])
        if call.path.startswith("/v2/payments/captures/") and steps[-1] == "refund":
            return 201, "refund", self._refund(steps[-2], call.json)
        raise _error(404, "RESOURCE_NOT_FOUND")

    def _create(self, asked: dict[str, Any]) -> object:
        (unit,) = asked["purchase_units"]
        amount = unit["amount"]
        if not isinstance(amount["value"], str) or ("." in amount["value"]) == (amount["currency_code"] in {"HUF", "JPY", "TWD"}):
            raise _unprocessable("DECIMAL_PRECISION")
        if any(order["purchase_units"][0].get("invoice_id") == unit["invoice_id"] for order in self.orders.values()):
            raise _unprocessable("DUPLICATE_INVOICE_ID")
        order_id = f"5O{next(self._ids):015d}"
        unit = unit | {"payee": {"merchant_id": unit.get("payee", {}).get("merchant_id", self.merchant_id)}}
        links = [{"rel": "self", "href": f"{self.url}/v2/checkout/orders/{order_id}"}, {"rel": "payer-action", "href": f"{self.url}/checkoutnow?token={order_id}"}]
        order = {"id": order_id, "intent": asked["intent"], "status": "PAYER_ACTION_REQUIRED", "create_time": _now(), "purchase_units": [unit], "links": links}
        self.orders[order_id] = order
        return order

    def _capture(self, order_id: str) -> object:
        order, outcome = self.orders[order_id], self.outcomes.get(order_id, "")
        unit = order["purchase_units"][0]
        if unit.get("payments"):
            raise _unprocessable("ORDER_ALREADY_CAPTURED")
        if order["status"] != "APPROVED":
            raise _unprocessable("ORDER_NOT_APPROVED")
        if outcome not in {"COMPLETED", "PENDING", "DECLINED"}:
            raise _unprocessable(outcome)
        capture = self._new_capture(order_id, unit, order["_paid"], outcome)
        unit["payments"] = {"captures": [capture], "refunds": []}
        order["status"] = "COMPLETED"
        self.captures[capture["id"]] = capture
        self.happened({"COMPLETED": "PAYMENT.CAPTURE.COMPLETED", "PENDING": "PAYMENT.CAPTURE.PENDING", "DECLINED": "PAYMENT.CAPTURE.DENIED"}[outcome], capture)
        return order

    def _new_capture(self, order_id: str, unit: dict[str, Any], amount: dict[str, str], status: str) -> dict[str, Any]:
        fee = str((Decimal(amount["value"]) / 40).quantize(Decimal(amount["value"])))
        breakdown: dict[str, object] = {"gross_amount": amount, "paypal_fee": {"currency_code": amount["currency_code"], "value": fee}}
        if self.holds not in ("", amount["currency_code"]):
            rate = Decimal("0.9")
            kept = {"currency_code": self.holds, "value": str(((Decimal(amount["value"]) - Decimal(fee)) * rate).quantize(Decimal("0.01")))}
            breakdown |= {"exchange_rate": {"source_currency": amount["currency_code"], "target_currency": self.holds, "value": str(rate)}, "receivable_amount": kept}
        capture_id = f"3C{next(self._ids):015d}"
        here = f"{self.url}/v2/payments/captures/{capture_id}"
        return {
            "id": capture_id,
            "final_capture": True,
            "links": [
                {"rel": "self", "href": here, "method": "GET"},
                {"rel": "refund", "href": f"{here}/refund", "method": "POST"},
                {"rel": "up", "href": f"{self.url}/v2/checkout/orders/{order_id}", "method": "GET"},
            ],
            "status": status,
            "amount": amount,
            "custom_id": unit["custom_id"],
            "create_time": _now(),
            "payee": unit["payee"],
            "supplementary_data": {"related_ids": {"order_id": order_id}},
            "seller_receivable_breakdown": breakdown,
        }

    def _refund(self, capture_id: str, asked: dict[str, Any]) -> dict[str, Any]:
        if self.refund_issue:
            raise _unprocessable(self.refund_issue)
        capture = self.captures[capture_id]
        if asked["amount"]["currency_code"] != capture["amount"]["currency_code"]:
            raise _unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH")
        if any(one["status"] != "RESOLVED" and one["disputed_transactions"][0]["seller_transaction_id"] == capture_id for one in self.disputes.values()):
            raise _unprocessable("TRANSACTION_DISPUTED")
        left = Decimal(capture["amount"]["value"]) - self._sent(capture)
        if not left:
            raise _unprocessable("CAPTURE_FULLY_REFUNDED")
        if Decimal(asked["amount"]["value"]) > left:
            raise _unprocessable("REFUND_AMOUNT_EXCEEDED")
        refund = self._new_refund(capture, asked["amount"], self.refund_status, asked.get("custom_id"))
        self.happened("PAYMENT.CAPTURE.REFUNDED", refund)
        return refund

    def _reverse(self, capture_id: str, amount: dict[str, str]) -> None:
        refund = self._new_refund(self.captures[capture_id], amount, "COMPLETED", None, reversal=True)
        self.happened("PAYMENT.CAPTURE.REVERSED", refund)

    def _new_refund(self, capture: dict[str, Any], amount: dict[str, str], status: str, custom_id: str | None, *, reversal: bool = False) -> dict[str, Any]:
        refund_id = f"1R{next(self._ids):015d}"
        links = [{"rel": "self", "href": f"{self.url}/v2/payments/refunds/{refund_id}"}, {"rel": "up", "href": f"{self.url}/v2/payments/captures/{capture['id']}"}]
        refund = {"id": refund_id, "status": status, "amount": amount, "links": links, "create_time": _now(), "_capture": capture["id"], "_reversal": reversal}
        refund |= {"custom_id": custom_id} if custom_id else {}
        self.refunds[refund_id] = refund
        self.orders[_order_of(capture)]["purchase_units"][0]["payments"]["refunds"].append(refund)
        self._restate(capture)
        return refund

    def _sent(self, capture: dict[str, Any]) -> Decimal:
        return sum(
            (Decimal(one["amount"]["value"]) for one in self.refunds.values() if one["_capture"] == capture["id"] and one["status"] not in {"FAILED", "CANCELLED"}), Decimal(0)
        )

    def _restate(self, capture: dict[str, Any]) -> None:
        sent = self._sent(capture)
        capture["status"] = "COMPLETED" if not sent else "REFUNDED" if sent >= Decimal(capture["amount"]["value"]) else "PARTIALLY_REFUNDED"

    def _read(self, call: Call) -> tuple[str, object]:
        if call.path == "/v1/notifications/webhooks-events":
            return "event_list", self._events(call)
        if call.path.startswith("/v1/customer/disputes"):
            return self._disputed(call)
        kind, held = ("order", self.orders) if call.path.startswith("/v2/checkout/orders/") else ("capture", self.captures)
        found = held.get(call.path.rpartition("/")[2])
        if found is None:
            raise _error(404, "RESOURCE_NOT_FOUND")
        told = json.loads(json.dumps(_shown(found)))
        return kind, _in_order(told) if kind == "order" else told

    def _disputed(self, call: Call) -> tuple[str, object]:
        if not self.reads_disputes:
            raise _error(403, "NOT_AUTHORIZED")
        dispute_id = call.path.removeprefix("/v1/customer/disputes").strip("/")
        if dispute_id:
            return "dispute", _shown(self.disputes[dispute_id])
        summary = ("dispute_id", "create_time", "reason", "status", "dispute_life_cycle_stage", "dispute_amount")
        wanted = call.query["disputed_transaction_id"]
        found = [one for one in self.disputes.values() if one["disputed_transactions"][0]["seller_transaction_id"] == wanted]
        return "dispute_search", {"items": [{name: one[name] for name in summary} | {"dispute_state": one["_state"]} for one in found], "links": []}

    def _events(self, call: Call) -> object:
        size, start = int(call.query["page_size"]), int(call.query.get("start", 0))
        newest = self.events[::-1]
        more = [{"rel": "next", "href": f"https://elsewhere.example{call.path}?page_size={size}&start={start + size}"}] if start + size < len(newest) else []
        return {"events": newest[start : start + size], "count": len(newest), "links": more}


def _resource_of(resource: dict[str, Any]) -> str:
    """What the resource of an event is."""
    if "dispute_id" in resource:
        return "dispute"
    if "purchase_units" in resource:
        return "order"
    return "capture" if "supplementary_data" in resource else "refund"


def _in_order(order: dict[str, Any]) -> dict[str, Any]:
    """An order as it is shown: its captures name neither their order nor their payee."""
    for unit in order["purchase_units"]:
        for capture in unit.get("payments", {}).get("captures", []):
            for name in ("supplementary_data", "payee"):
                capture.pop(name, None)
    return order


def _error(status: int, name: str, **more: object) -> Refusal:
    return Refusal(status, {"name": name, "message": "…", "debug_id": "b1d1f06c7246c", **more})


def _unprocessable(issue: str) -> Refusal:
    return _error(422, "UNPROCESSABLE_ENTITY", details=[{"issue": issue, "description": "…"}])


def _now() -> str:
    return clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(value: Any) -> Any:
    """A value without what is its own."""
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items() if not key.startswith("_")}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _order_of(capture: dict[str, Any]) -> str:
    return str(capture["supplementary_data"]["related_ids"]["order_id"])


def _money(amount: dict[str, str]) -> Money:
    return Money.of(amount["value"], amount["currency_code"])
