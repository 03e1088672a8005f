"""A NOWPayments on the loopback: invoices, the payments made on them, the list of payments, and calls signed as JavaScript would."""

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from itertools import count
from typing import Any

from app import clock
from app.money import CURRENCIES, Money
from tests.fakes.loopback import Call, Loopback, Refusal, Sums, books
from tests.fakes.schemas import schema

SCHEMA = schema("nowpayments")


@dataclass
class NOWPayments(Loopback):
    """One account."""

    api_key: str = "key"
    secret: str = "ipn-secret"
    invoices: dict[str, dict[str, Any]] = field(default_factory=dict)
    payments: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = count(5_000_000_001)
        super().__post_init__()

    # What happens there, and the calls it makes about it.

    def pay(self, order_id: str, status: str, *, share: float = 1.0, again: bool = False) -> None:
        """A payment of an order comes to a status, with so much of the coin that was asked for; `again` is another payment."""
        payment = None if again else next((one for one in self.payments.values() if one["order_id"] == order_id), None)
        payment = payment or self._choose(order_id)
        payment |= {"payment_status": status, "actually_paid": payment["pay_amount"] * share}
        self.events.append(json.loads(json.dumps(self.said(SCHEMA, "payment", payment))))

    def _choose(self, order_id: str) -> dict[str, Any]:
        invoice = next(one for one in self.invoices.values() if one["order_id"] == order_id)
        payment_id = next(self._ids)
        self.payments[payment_id] = {
            "payment_id": payment_id,
            "payment_status": "waiting",
            "pay_address": "bc1qfake",
            "price_amount": invoice["price_amount"],
            "price_currency": invoice["price_currency"],
            "pay_amount": 0.0005,
            "actually_paid": 0,
            "pay_currency": "btc",
            "order_id": order_id,
            "order_description": "Account funds – „ü“",
            "purchase_id": str(next(self._ids)),
            "outcome_amount": 0.0004,
            "outcome_currency": "btc",
            "created_at": clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "fee": {"currency": "btc", "depositFee": 1e-07, "withdrawalFee": 0},
        }
        return self.payments[payment_id]

    def webhook(self, event: dict[str, Any], *, secret: str | None = None) -> tuple[bytes, dict[str, str]]:
        """An event as it is delivered; the numbers of these events are written alike in Python and JavaScript but for 1e-07."""
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).replace("1e-07", "1e-7").encode()
        said = json.dumps(event, ensure_ascii=False, separators=(",", ":"), sort_keys=True).replace("1e-07", "1e-7").encode()
        return body, {"x-nowpayments-sig": hmac.new((secret or self.secret).encode(), said, hashlib.sha512).hexdigest()}

    def books(self) -> dict[str, Sums]:
        """What it holds for us: what was finished, and what came short of that and waits."""
        return books(received=[_worth(payment) for payment in self.payments.values() if payment["payment_status"] in {"finished", "partially_paid"}])

    # The API.

    def answer(self, call: Call) -> tuple[int, object]:
        """One call."""
        if call.headers.get("x-api-key") != self.api_key:
            raise Refusal(403, self.said(SCHEMA, "error", {"statusCode": 403, "code": "INVALID_API_KEY", "message": "Invalid api key"}))
        if call.method == "POST" and call.path == "/v1/invoice":
            return 200, self.said(SCHEMA, "invoice", self._create(call.json))
        if call.path == "/v1/payment/":
            size, page = int(call.query["limit"]), int(call.query["page"])
            newest = [one for one in reversed(self.payments.values()) if one["created_at"][:10] >= call.query["dateFrom"]]
            told = {"data": newest[size * page : size * (page + 1)], "limit": size, "page": page, "pagesCount": -(-len(newest) // size), "total": len(newest)}
            return 200, self.said(SCHEMA, "list", told)
        payment = self.payments.get(int(call.path.rpartition("/")[2]))
        if payment is None:
            raise Refusal(404, self.said(SCHEMA, "error", {"statusCode": 404, "code": "PAYMENT_NOT_FOUND", "message": "Payment not found"}))
        return 200, self.said(SCHEMA, "payment", payment)

    def _create(self, asked: dict[str, Any]) -> object:
        assert isinstance(asked["price_amount"], int | float)
        invoice_id = str(next(self._ids))
        price = asked["price_amount"]
        asked["price_amount"] = int(price) if price == int(price) else price
        self.invoices[invoice_id] = asked | {"id": invoice_id, "invoice_url": f"{self.url}/payment/?iid={invoice_id}"}
        now = clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return self.invoices[invoice_id] | {"price_amount": str(asked["price_amount"]), "pay_currency": None, "created_at": now, "updated_at": now}


def _worth(payment: dict[str, Any]) -> Money:
    """The share of its price that came, rounded down."""
    currency = payment["price_currency"].upper()
    price, asked, came = (Decimal(str(payment[name])) for name in ("price_amount", "pay_amount", "actually_paid"))
    return Money.of((price * came / asked).quantize(Decimal(1).scaleb(-CURRENCIES[currency].exponent), ROUND_DOWN), currency)
