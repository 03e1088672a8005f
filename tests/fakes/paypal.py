"""A PayPal on the loopback: tokens, orders, captures, refunds, its list of events, and a certificate authority to sign its webhooks with.

Its books (`orders`, `captures`, `refunds`) are what the tests compare ours with.
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
from tests.fakes.loopback import Call, Loopback, Refusal

CERT_URL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-fake-1"
SIGNED_FOR = "messageverificationcerts.paypal.com"


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
    """One account. `outcome` of an order says what its capture brings: COMPLETED, PENDING, DECLINED, or an issue such as INSTRUMENT_DECLINED."""

    client_id: str = "client"
    secret: str = "secret"
    webhook_id: str = "WH-1"
    merchant_id: str = "MERCHANT1"
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    captures: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    token_life_s: int = 32400
    refund_issue: str = ""
    refund_status: str = "COMPLETED"

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
        order["purchase_units"][0].pop("payments", None)
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

    def happened(self, kind: str, resource: dict[str, Any]) -> dict[str, Any]:
        """Write an event."""
        shown = json.loads(json.dumps({key: value for key, value in resource.items() if not key.startswith("_")}))
        event = {"id": f"WH-{next(self._ids)}", "event_type": kind, "create_time": _now(), "resource": shown}
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
            raise Refusal(401, {"error": "invalid_token"})
        return self._once(call) if call.method == "POST" else (200, self._read(call))

    def _token(self, call: Call) -> object:
        if call.headers["authorization"] != f"Basic {base64.b64encode(f'{self.client_id}:{self.secret}'.encode()).decode()}" or call.body != b"grant_type=client_credentials":
            raise Refusal(401, {"error": "invalid_client"})
        token = f"A21AA{next(self._ids)}"
        self.tokens = {token}
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.token_life_s}

    def _once(self, call: Call) -> tuple[int, object]:
        key = f"{call.path} {call.headers['paypal-request-id']}"
        if len(call.headers["paypal-request-id"]) > 108:
            raise Refusal(400, {"name": "INVALID_REQUEST"})
        if key not in self._kept:
            self._kept[key] = self._write(call)
        return self._kept[key]

    def _write(self, call: Call) -> tuple[int, object]:
        steps = call.path.split("/")
        if call.path == "/v2/checkout/orders":
            return 201, self._create(call.json)
        if call.path.startswith("/v2/checkout/orders/") and steps[-1] == "capture":
            return 201, self._capture(steps[-2])
        if call.path.startswith("/v2/payments/captures/") and steps[-1] == "refund":
            return 201, self._refund(steps[-2], call.json)
        raise Refusal(404, {"name": "RESOURCE_NOT_FOUND"})

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
        unit["payments"] = {"captures": [capture]}
        order["status"] = "COMPLETED"
        self.captures[capture["id"]] = capture
        self.happened({"COMPLETED": "PAYMENT.CAPTURE.COMPLETED", "PENDING": "PAYMENT.CAPTURE.PENDING", "DECLINED": "PAYMENT.CAPTURE.DENIED"}[outcome], capture)
        return order

    def _new_capture(self, order_id: str, unit: dict[str, Any], amount: dict[str, str], status: str) -> dict[str, Any]:
        fee = str((Decimal(amount["value"]) / 40).quantize(Decimal(amount["value"])))
        return {
            "id": f"3C{next(self._ids):015d}",
            "status": status,
            "amount": amount,
            "custom_id": unit["custom_id"],
            "create_time": _now(),
            "payee": unit["payee"],
            "supplementary_data": {"related_ids": {"order_id": order_id}},
            "seller_receivable_breakdown": {"gross_amount": amount, "paypal_fee": {"currency_code": amount["currency_code"], "value": fee}},
        }

    def _refund(self, capture_id: str, asked: dict[str, Any]) -> object:
        if self.refund_issue:
            raise _unprocessable(self.refund_issue)
        capture = self.captures[capture_id]
        if asked["amount"]["currency_code"] != capture["amount"]["currency_code"]:
            raise _unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH")
        sent = sum(Decimal(refund["amount"]["value"]) for refund in self.refunds.values() if refund["_capture"] == capture_id)
        if sent == Decimal(capture["amount"]["value"]):
            raise _unprocessable("CAPTURE_FULLY_REFUNDED")
        if sent + Decimal(asked["amount"]["value"]) > Decimal(capture["amount"]["value"]):
            raise _unprocessable("REFUND_AMOUNT_EXCEEDED")
        links = [{"rel": "up", "href": f"{self.url}/v2/payments/captures/{capture_id}"}]
        refund = {
            "id": f"1R{next(self._ids):015d}",
            "status": self.refund_status,
            "amount": asked["amount"],
            "custom_id": asked["custom_id"],
            "links": links,
            "_capture": capture_id,
        }
        self.refunds[refund["id"]] = refund
        capture["status"] = "REFUNDED" if sent + Decimal(asked["amount"]["value"]) == Decimal(capture["amount"]["value"]) else "PARTIALLY_REFUNDED"
        self.happened("PAYMENT.CAPTURE.REFUNDED", refund)
        return refund

    def _read(self, call: Call) -> object:
        if call.path == "/v1/notifications/webhooks-events":
            return self._events(call)
        held = self.orders if call.path.startswith("/v2/checkout/orders/") else self.captures
        found = held.get(call.path.rpartition("/")[2])
        if found is None:
            raise Refusal(404, {"name": "RESOURCE_NOT_FOUND"})
        return found

    def _events(self, call: Call) -> object:
        size, start = int(call.query["page_size"]), int(call.query.get("start", 0))
        newest = self.events[::-1]
        more = [{"rel": "next", "href": f"https://elsewhere.example{call.path}?page_size={size}&start={start + size}"}] if start + size < len(newest) else []
        return {"events": newest[start : start + size], "links": more}


def _unprocessable(issue: str) -> Refusal:
    return Refusal(422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": issue, "description": "…"}]})


def _now() -> str:
    return clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
