"""A BTCPay Server on the loopback: one store, its invoices, the coins that come to them, its rates and its signed webhooks."""

import hashlib
import hmac
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from itertools import count
from typing import Any

from app import clock
from app.money import CURRENCIES, Money
from tests.fakes.loopback import Call, Loopback, Refusal, Sums, books
from tests.fakes.schemas import schema

SCHEMA = schema("btcpay")
RATE = Decimal(50_000)
"""What a bitcoin costs when an invoice fixes its rate, in every currency."""


@dataclass
class BTCPay(Loopback):
    """One store. `market` is what a bitcoin costs now."""

    store_id: str = "Store1"
    api_key: str = "key"
    secret: str = "btcpay-secret"
    market: Decimal = RATE
    invoices: dict[str, dict[str, Any]] = field(default_factory=dict)
    coins: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = count(1)
        super().__post_init__()

    # What happens at the store, and the webhooks it writes about it.

    def send(self, invoice_id: str, worth: str, *, settled: bool = True, late: bool = False) -> None:
        """Coins worth so much at the invoice's rate come in, confirmed at once or later."""
        invoice = self.invoices[invoice_id]
        at = int(clock.now().timestamp())
        at = max(at, invoice["expirationTime"] + 1) if late else min(at, invoice["expirationTime"])
        coins = {"id": f"tx{next(self._ids)}-0", "receivedDate": at, "value": str(Decimal(worth) / RATE), "fee": "0", "status": "Settled" if settled else "Processing"}
        self.coins[invoice_id].append(coins | {"destination": "bc1qfake"})
        self.happened("InvoiceReceivedPayment", invoice_id, afterExpiration=late, paymentMethodId="BTC-CHAIN", payment=dict(coins))
        self._judge(invoice, late=late)

    def confirm(self, invoice_id: str) -> None:
        """The network confirms every coin that came."""
        for coins in self.coins[invoice_id]:
            coins["status"] = "Settled"
        self._judge(self.invoices[invoice_id], late=False)

    def expire(self, invoice_id: str) -> None:
        """Time is over."""
        invoice = self.invoices[invoice_id]
        partial = bool(self.coins[invoice_id])
        invoice |= {"status": "Expired", "additionalStatus": "PaidPartial" if partial else "None"}
        self.happened("InvoiceExpired", invoice_id, partiallyPaid=partial)

    def spoil(self, invoice_id: str) -> None:
        """The coins were never confirmed."""
        self.invoices[invoice_id] |= {"status": "Invalid", "additionalStatus": "None"}
        self.happened("InvoiceInvalid", invoice_id, manuallyMarked=False)

    def mark(self, invoice_id: str) -> None:
        """Somebody marks it settled by hand."""
        self.invoices[invoice_id] |= {"status": "Settled", "additionalStatus": "Marked"}
        self.happened("InvoiceSettled", invoice_id, manuallyMarked=True)

    def forget(self, invoice_id: str) -> None:
        """As it was when it was opened."""
        self.coins[invoice_id].clear()
        self.invoices[invoice_id] |= {"status": "New", "additionalStatus": "None", "paidAmount": "0"}

    def _judge(self, invoice: dict[str, Any], *, late: bool) -> None:
        """BTCPay's own rules for the states of an invoice."""
        coins, asked = self.coins[invoice["id"]], Decimal(invoice["amount"])
        paid = sum((Decimal(one["value"]) * RATE for one in coins), Decimal(0))
        invoice["paidAmount"] = str(paid)
        if invoice["status"] == "Invalid":
            self.happened("InvoicePaymentSettled", invoice["id"], afterExpiration=late, paymentMethodId="BTC-CHAIN", payment=dict(coins[-1]))
            return
        if invoice["status"] == "Expired":
            invoice["additionalStatus"] = "PaidLate" if paid >= asked else "PaidPartial"
            self.happened("InvoicePaymentSettled", invoice["id"], afterExpiration=late, paymentMethodId="BTC-CHAIN", payment=dict(coins[-1]))
            return
        if paid < asked:
            return
        over = "PaidOver" if paid > asked else "None"
        confirmed = all(one["status"] == "Settled" for one in coins) or invoice["status"] == "Settled"
        invoice |= {"status": "Settled" if confirmed else "Processing", "additionalStatus": over}
        self.happened("InvoiceSettled" if confirmed else "InvoiceProcessing", invoice["id"], overPaid=over == "PaidOver")

    def happened(self, kind: str, invoice_id: str, **more: object) -> dict[str, Any]:
        """Write an event."""
        delivery = f"delivery{next(self._ids)}"
        event = {"deliveryId": delivery, "originalDeliveryId": delivery, "isRedelivery": False, "type": kind, "timestamp": int(clock.now().timestamp())}
        event |= {"webhookId": "webhook1", "storeId": self.store_id, "invoiceId": invoice_id, "metadata": self.invoices[invoice_id]["metadata"], **more}
        event = self.said(SCHEMA, kind, event)
        self.events.append(event)
        return event

    def webhook(self, body: bytes, *, secret: str | None = None) -> tuple[bytes, dict[str, str]]:
        """A body as it is delivered."""
        mac = hmac.new((secret or self.secret).encode(), body, hashlib.sha256).hexdigest()
        return body, {"btcpay-sig": f"sha256={mac}"}

    def books(self) -> dict[str, Sums]:
        """What is in its wallet, at the rates the invoices fixed."""
        return books(received=[self._worth(invoice) for invoice in self.invoices.values() if invoice["status"] != "Invalid"])

    def _worth(self, invoice: dict[str, Any]) -> Money:
        came = sum((Decimal(coins["value"]) * RATE for coins in self.coins[invoice["id"]] if coins["status"] == "Settled"), Decimal(0))
        digits = CURRENCIES[invoice["currency"]].exponent
        return Money.of(came.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN), invoice["currency"])

    # The API.

    def answer(self, call: Call) -> tuple[int, object]:
        """One call."""
        if call.headers.get("authorization") != f"token {self.api_key}":
            raise Refusal(401, self.said(SCHEMA, "error", {"code": "unauthenticated", "message": "Authentication is required for accessing this endpoint"}))
        path = call.path.removeprefix(f"/api/v1/stores/{self.store_id}")
        if path == call.path:
            raise Refusal(403, self.said(SCHEMA, "error", {"code": "missing-permission", "message": "Insufficient API Permissions."}))
        if call.method == "POST" and path == "/invoices":
            return 200, self.said(SCHEMA, "invoice", self._create(call.json))
        if call.method == "POST" and path.endswith("/status"):
            return 200, self.said(SCHEMA, "invoice", self._mark(path.split("/")[2], call.json["status"]))
        kind = "rate" if path == "/rates" else "payment_method" if path.endswith("/payment-methods") else "invoice"
        return 200, self.said(SCHEMA, kind, self._read(path, call))

    def _create(self, asked: dict[str, Any]) -> object:
        assert isinstance(asked["amount"], str)
        now, invoice_id = int(clock.now().timestamp()), f"Inv{next(self._ids):06d}"
        invoice = {
            "id": invoice_id,
            "storeId": self.store_id,
            "amount": asked["amount"],
            "paidAmount": "0",
            "currency": asked["currency"],
            "metadata": asked["metadata"],
            "status": "New",
            "additionalStatus": "None",
            "createdTime": now,
            "expirationTime": now + asked["checkout"]["expirationMinutes"] * 60,
            "monitoringExpiration": now + (asked["checkout"]["expirationMinutes"] + asked["checkout"]["monitoringMinutes"]) * 60,
            "checkoutLink": f"{self.url}/i/{invoice_id}",
            "type": "Standard",
            "archived": False,
            "availableStatusesForManualMarking": ["Settled", "Invalid"],
            "checkout": asked["checkout"],
            "receipt": None,
        }
        self.invoices[invoice_id], self.coins[invoice_id] = invoice, []
        return invoice

    def _mark(self, invoice_id: str, status: str) -> object:
        """What somebody marks by hand or by the API: of an invoice that waits, settled or invalid."""
        invoice = self.invoices[invoice_id]
        if status not in invoice["availableStatusesForManualMarking"]:
            raise Refusal(422, [{"path": "status", "message": "Status can only be marked to invalid or settled within certain conditions."}])
        invoice |= {"status": status, "additionalStatus": "Marked", "availableStatusesForManualMarking": []}
        self.happened(f"Invoice{status}", invoice_id, manuallyMarked=True)
        return invoice

    def _read(self, path: str, call: Call) -> object:
        if path == "/invoices":
            return [invoice for invoice in reversed(self.invoices.values()) if invoice["metadata"]["orderId"] == call.query["orderId"]]
        if path == "/rates":
            return [{"currencyPair": pair, "errors": [], "rate": str(self.market)} for pair in call.query["currencyPair"].split(",")]
        invoice_id = path.split("/")[2]
        if invoice_id not in self.invoices:
            raise Refusal(404, self.said(SCHEMA, "error", {"code": "invoice-not-found", "message": "The invoice was not found"}))
        if path.endswith("/payment-methods"):
            rest = {"currency": "BTC", "rate": str(RATE), "destination": "bc1qfake", "paymentLink": None, "activated": True, "paymentMethodFee": "0"}
            return [rest | {"paymentMethodId": "BTC-CHAIN", "payments": self.coins[invoice_id]}, rest | {"paymentMethodId": "BTC-LN", "payments": []}]
        return self.invoices[invoice_id]
