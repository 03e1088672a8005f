"""BTCPay Server, the operator's own crypto processor, by its Greenfield API.

The payer decides how much coin to send and when, so nothing here is exact: what is credited is what was received and confirmed, valued
in the invoice's currency at the rate the invoice fixed. Too little, too much, too late and twice each have their rule in decision 0083.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Any

from app import clock
from app.gateways import http
from app.gateways.base import (
    ON_ITS_WAY,
    UNREADABLE,
    BadSignature,
    Charge,
    Event,
    Method,
    ReadsAnswers,
    Redirect,
    RefundSnapshot,
    Refused,
    Snapshot,
    State,
    UnreadableAnswer,
    UnreadableEvent,
    WayBack,
    origin,
    read_json,
    text,
)
from app.languages import N_
from app.money import CURRENCIES, Money

SIGNATURE_HEADER = "btcpay-sig"
MONITORED = timedelta(hours=24)
"""How long after an invoice has expired BTCPay still watches its addresses."""
DRIFT = Decimal("0.02")
"""As far as the market may have moved since the invoice fixed its rate for late money to be credited without a person."""
_MINIMUMS = {"EUR": 10_00, "USD": 10_00}
METHODS = (Method("crypto", "Cryptocurrency", "BTC", "Bitcoin and Lightning, through our own server", "10 to 60 minutes", "btcpay", "network fee", minimums=_MINIMUMS),)

_OWN_ID = re.compile(r"pay_\w{1,64}")
_THEIR_ID = re.compile(r"[0-9A-Za-z]{1,64}")


class BTCPay(ReadsAnswers):
    """The gateway to one store. `webhook_secrets` may hold two, by comma, while one is being replaced."""

    name = "btcpay"
    grows = True
    forgets = False
    final_after: timedelta | None = ON_ITS_WAY

    def __init__(self, url: str, store_id: str, api_key: str, webhook_secrets: str) -> None:
        self._store_id = store_id
        self._store = f"{url.rstrip('/')}/api/v1/stores/{store_id}"
        self._headers = {"Authorization": f"token {api_key}", "Content-Type": "application/json"}
        self.pages: tuple[str, ...] = (origin(url),)
        self._webhook_secrets = [secret.strip() for secret in webhook_secrets.split(",") if secret.strip()]

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """Cryptocurrency, judged for this amount; the server itself knows which coins."""
        return [method.judged(country, amount) for method in METHODS]

    def checkout(self, charge: Charge) -> Redirect:
        """The invoice of this charge and its page.

        BTCPay knows no idempotency, so the invoice is looked for before it is made, and looked for again after: of two that were made at
        the same moment everybody is sent to the older one.
        """
        if not self._of(charge.id):
            http.call("POST", f"{self._store}/invoices", body=http.write_json(_invoice(charge)), headers=self._headers)
        made = self._of(charge.id)
        if not made:
            raise UnreadableAnswer("no invoice after one was made", "The payment page did not open. Nothing was charged.")
        return Redirect(made[0]["checkoutLink"], made[0]["id"])

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the HMAC over the raw body, then read. Raises BadSignature, UnreadableEvent.

        However old: an operator sends again by hand what was delivered weeks ago, under its first time. The first delivery's id makes it known.
        """
        self._verify(body, headers.get(SIGNATURE_HEADER, ""))
        event = read_json(body)
        delivery = text(event.get("originalDeliveryId"), "originalDeliveryId") or text(event.get("deliveryId"), "deliveryId")
        kind, invoice = text(event.get("type"), "type"), text(event.get("invoiceId"), "invoiceId")
        if not delivery or not kind:
            raise UnreadableEvent("type" if delivery else "deliveryId")
        try:
            at = datetime.fromtimestamp(event.get("timestamp") or 0, UTC)
        except UNREADABLE:
            raise UnreadableEvent("timestamp") from None
        return Event(delivery, invoice, kind, at, self._foreign(text(event.get("storeId"), "storeId")))

    def lookup(self, reference: str) -> Snapshot | None:
        """The invoice by its own id or by ours."""
        if _OWN_ID.fullmatch(reference):
            found = self._of(reference)
            invoice = min(found, key=lambda one: _decimal(one["paidAmount"]) <= 0) if found else None
        else:
            answer = http.call("GET", f"{self._store}/invoices/{reference}", headers=self._headers, expected=(404,)) if _THEIR_ID.fullmatch(reference) else None
            invoice = answer.body if answer and answer.status == 200 else None
        return self._snapshot(invoice) if invoice else None

    def close(self, reference: str) -> None:
        """Mark an invoice invalid that nothing came for, so that its page offers no address any more.

        Its addresses stay watched: coins that come all the same are read by `lookup` like any that come late.
        """
        invoice = http.call("GET", f"{self._store}/invoices/{reference}", headers=self._headers).body if _THEIR_ID.fullmatch(reference) else None
        if invoice and invoice["status"] == "New" and _decimal(invoice["paidAmount"]) <= 0:
            body = http.write_json({"status": "Invalid"})
            http.call("POST", f"{self._store}/invoices/{reference}/status", body=body, headers=self._headers)

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Never: coins have no way back, only an address that the payer would have to name. It is paid out by hand."""
        raise Refused(N_("Cryptocurrency cannot be sent back to where it came from. It is paid out by bank transfer."), detail=f"{key}: {amount} of {reference}")

    def way_back(self, method: str) -> WayBack:
        """Never."""
        del method
        return WayBack(0)

    def _verify(self, body: bytes, header: str) -> None:
        for secret in self._webhook_secrets:
            if hmac.compare_digest(f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}".encode(), header.encode()):
                return
        raise BadSignature("the signature does not match")

    def _foreign(self, store_id: object) -> str:
        return "" if store_id == self._store_id else f"of the store {store_id}, not ours"

    def _of(self, charge_id: str) -> list[dict[str, Any]]:
        """The invoices of a charge, oldest first."""
        found: list[dict[str, Any]] = http.call("GET", f"{self._store}/invoices", query={"orderId": charge_id}, headers=self._headers).body
        same = (invoice for invoice in found if invoice["metadata"].get("orderId") == charge_id)
        return sorted(same, key=lambda invoice: (invoice.get("createdTime") or 0, invoice["id"]))

    def _snapshot(self, invoice: dict[str, Any]) -> Snapshot:
        told = Snapshot(
            invoice["id"],
            str((invoice["metadata"] or {}).get("orderId") or ""),
            _STATES[invoice["status"]],
            method_label="Cryptocurrency",
            fault=self._foreign(invoice.get("storeId", self._store_id)),
            exact=False,
        )
        marked = invoice["status"] == "Invalid" and invoice.get("additionalStatus") == _BY_HAND
        if marked and _decimal(invoice["paidAmount"]) <= 0:
            return replace(told, state="expired")  # closed by `close`, or by a person
        if invoice["status"] == "Invalid" and not marked:
            return replace(told, failure_code="invalid", failure_message=N_("The network never confirmed the payment."))
        if _decimal(invoice["paidAmount"]) <= 0:
            # Settled without a coin: somebody marked it so.
            return replace(told, state="paid", fault=told.fault or _MARKED) if invoice["status"] == "Settled" else told
        return self._received(invoice, told)

    def _received(self, invoice: dict[str, Any], told: Snapshot) -> Snapshot:
        """The invoice after coins arrived: paid as soon as some of them are confirmed, with exactly as much as those are worth."""
        payments = _payments(http.call("GET", f"{self._store}/invoices/{invoice['id']}/payment-methods", headers=self._headers).body)
        settled = [payment for payment in payments if payment.settled]
        value = _value(invoice, payments, settled)
        if not settled or value.minor <= 0:
            return replace(told, state="pending" if payments else told.state)
        late = [payment for payment in settled if payment.at.timestamp() > invoice["expirationTime"] or invoice["status"] == "Invalid"]
        return replace(
            told,
            state="paid",
            received=value,
            paid_at=min(payment.at for payment in settled),
            method_label=f"Cryptocurrency, {', '.join(sorted({payment.coin for payment in settled}))}",
            fault=told.fault or (_MARKED if invoice["status"] == "Settled" and invoice.get("additionalStatus") == _BY_HAND else ""),
            doubt=self._drift(late, invoice["currency"]) if late else "",
        )

    def _drift(self, late: Iterable["_Coins"], currency: str) -> str:
        """Why late money must not be credited at the invoice's rate: the market has left it. Nothing, when it has not."""
        rates = {payment.coin: payment.rate for payment in late}
        query = {"currencyPair": ",".join(f"{coin}_{currency}" for coin in sorted(rates))}
        found = http.call("GET", f"{self._store}/rates", query=query, headers=self._headers).body
        now = {str(pair.get("currencyPair")).partition("_")[0]: _decimal(pair["rate"]) for pair in found if pair.get("rate") and not pair.get("errors")}
        moved = {coin: abs(now[coin] / rate - 1) if now.get(coin) else Decimal(1) for coin, rate in rates.items()}
        worst = max(moved, key=lambda coin: moved[coin])
        return f"{worst} came after the invoice had expired, and its rate has moved by {moved[worst]:.1%} since" if moved[worst] > DRIFT else ""


_STATES: dict[str, State] = {"New": "open", "Processing": "pending", "Expired": "expired", "Invalid": "failed", "Settled": "pending"}
COIN_STATES = {"Settled": True, "Processing": False, "Invalid": None}
"""Whether coins are confirmed; None for those that BTCPay has given up."""
_MARKED = "marked as settled by hand at BTCPay, so a person has to say what arrived"
_BY_HAND = "Marked"
_LOCALES = {"pt": "pt-PT"}


@dataclass(frozen=True, slots=True)
class _Coins:
    """One transfer of coins to an invoice; `rate` is what one coin counts in the invoice's currency."""

    coin: str
    amount: Decimal
    rate: Decimal
    at: datetime
    settled: bool


def _payments(methods: Iterable[Mapping[str, Any]]) -> list[_Coins]:
    """Every transfer that BTCPay has not given up, over all the coins of an invoice."""
    return [
        _Coins(_coin(method), _decimal(payment["value"]), _decimal(method["rate"]), datetime.fromtimestamp(payment["receivedDate"], UTC), settled)
        for method in methods
        for payment in method["payments"]
        if (settled := COIN_STATES[payment["status"]]) is not None
    ]


def _coin(method: Mapping[str, Any]) -> str:
    """`BTC` of the method `BTC-CHAIN` or `BTC-LN`."""
    return str(method.get("currency") or method["paymentMethodId"]).partition("-")[0]


def _value(invoice: Mapping[str, Any], payments: Sequence[_Coins], settled: Sequence[_Coins]) -> Money:
    """What the confirmed coins are worth, rounded down. BTCPay's own sum counts unconfirmed coins too, so it stands only without any."""
    currency = str(invoice["currency"])
    asked = Money.of(_floor(_decimal(invoice["amount"]), currency), currency)
    if len(settled) == len(payments):
        if invoice["status"] == "Settled" and invoice.get("additionalStatus") == "None":
            return asked  # to the smallest fraction of a coin it may be a hair off; BTCPay says it is what was asked
        worth = _decimal(invoice["paidAmount"])
    else:
        worth = min(sum((payment.amount * payment.rate for payment in settled), Decimal(0)), _decimal(invoice["paidAmount"]))
    return Money.of(_floor(worth, currency), currency)


def _floor(value: Decimal, currency: str) -> Decimal:
    digits = CURRENCIES[currency].exponent
    return value.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN)


def _decimal(said: Any) -> Decimal:
    try:
        found = Decimal(str(said))
    except InvalidOperation:
        raise UnreadableAnswer("a number (btcpay)") from None
    return found if found.is_finite() else Decimal(0)


def _invoice(charge: Charge) -> dict[str, Any]:
    minutes = max(1, int((charge.expires_at - clock.now()).total_seconds() // 60))
    return {
        "amount": str(charge.amount.decimal),
        "currency": charge.amount.currency,
        "metadata": {"orderId": charge.id, "itemDesc": charge.description},
        "checkout": {
            "expirationMinutes": minutes,
            "monitoringMinutes": int(MONITORED.total_seconds() // 60),
            "paymentTolerance": 0,
            "redirectURL": charge.return_url,
            "redirectAutomatically": True,
            "defaultLanguage": _LOCALES.get(charge.locale, charge.locale),
        },
    }
