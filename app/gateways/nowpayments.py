"""NOWPayments, a processor that holds the coins: its invoice page, its signed calls, and the list of what was paid for an order.

It knows no idempotency: two invoices of one order are two doors to one till, so the reference is our own id and everything that was
paid for it counts, through whichever door. Only `finished` is money.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any
from urllib.parse import urlsplit

from app import clock
from app.gateways import http
from app.gateways.base import (
    BadSignature,
    Charge,
    Event,
    GatewayError,
    Method,
    Misconfigured,
    ReadsAnswers,
    Redirect,
    RefundSnapshot,
    Refused,
    Snapshot,
    State,
    Unread,
    UnreadableEvent,
    WayBack,
    on_loopback,
    optional,
    origin,
    text,
)
from app.languages import N_
from app.money import CURRENCIES, Money

LIVE_API = "https://api.nowpayments.io"
SIGNATURE_HEADER = "x-nowpayments-sig"
SEARCH_BACK = timedelta(days=7)
"""How far back the list of payments is read for an order: an invoice is paid on the day it is opened."""
PAGE, MOST_PAGES = 500, 40
_MINIMUMS = {"EUR": 20_00, "USD": 20_00}
METHODS = (Method("crypto", "Cryptocurrency", "COIN", "Bitcoin, Ethereum, Tether and others", "10 to 60 minutes", "nowpayments", "network fee", minimums=_MINIMUMS),)

_OWN_ID = re.compile(r"pay_\w{1,64}")
_THEIR_ID = re.compile(r"payment-[0-9]{1,20}")


class NOWPayments(ReadsAnswers):
    """The gateway to one NOWPayments account. `ipn_secrets` may hold two, by comma, while one is being replaced."""

    name = "nowpayments"
    grows = True
    forgets = True
    final_after: timedelta | None = None

    def __init__(self, api_key: str, ipn_secrets: str, callback_url: str, api_base: str = LIVE_API) -> None:
        self._headers = {"x-api-key": api_key, "Content-Type": "application/json"}
        self._ipn_secrets = [secret.strip().encode() for secret in ipn_secrets.split(",") if secret.strip()]
        self._callback_url = callback_url
        self._base = api_base.rstrip("/")
        self.pages: tuple[str, ...] = (_page_origin(self._base),)

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """Cryptocurrency, judged for this amount."""
        return [method.judged(country, amount) for method in METHODS]

    def checkout(self, charge: Charge) -> Redirect:
        """A page for this charge. Asked again it is another page, of the same order."""
        asked = {
            "price_amount": _Number(str(charge.amount.decimal)),
            "price_currency": charge.amount.currency.lower(),
            "order_id": charge.id,
            "order_description": charge.description,
            "ipn_callback_url": self._callback_url,
            "success_url": charge.return_url,
            "cancel_url": charge.cancel_url,
            "is_fixed_rate": True,
        }
        answer = http.call("POST", f"{self._base}/v1/invoice", body=_written(asked).encode(), headers=self._headers, expected=(400,))
        if answer.status == 400:
            raise _refused(answer.body)
        return Redirect(answer.body["invoice_url"], charge.id)

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the HMAC over the sorted body as JavaScript would write it, then read. Raises BadSignature, UnreadableEvent."""
        try:
            said = json.loads(body, parse_float=_Number, parse_int=_Number)
            forms = [_written(_sorted(said)), _written(_filtered(said))] if isinstance(said, dict) else []
            signed = [hmac.new(secret, form.encode(), hashlib.sha512).hexdigest() for form in forms for secret in self._ipn_secrets]
        except (ValueError, OverflowError, RecursionError) as error:
            raise BadSignature("not JSON") from error
        given = headers.get(SIGNATURE_HEADER, "").encode()
        if not any(hmac.compare_digest(mac.encode(), given) for mac in signed):
            raise BadSignature("the signature does not match")
        return _event(said, body)

    def lookup(self, reference: str) -> Snapshot | None:
        """Everything that was paid for an order, by our own id or by one of its payments."""
        if _THEIR_ID.fullmatch(reference):
            answer = http.call("GET", f"{self._base}/v1/payment/{reference.removeprefix('payment-')}", headers=self._headers, expected=(400, 404))
            named = answer.body if answer.status == 200 else None
            return _snapshot(str(named["order_id"]), [named, *self._paid_for(str(named["order_id"]))]) if named else None
        payments = list(self._paid_for(reference)) if _OWN_ID.fullmatch(reference) else []
        return _snapshot(reference, payments) if payments else None

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Never: coins have no way back, only an address that the payer would have to name. It is paid out by hand."""
        raise Refused(N_("Cryptocurrency cannot be sent back to where it came from. It is paid out by bank transfer."), detail=f"{key}: {amount} of {reference}")

    def way_back(self, method: str) -> WayBack:
        """Never."""
        del method
        return WayBack(0)

    def _paid_for(self, order_id: str) -> Iterator[dict[str, Any]]:
        since = (clock.now() - SEARCH_BACK).date().isoformat()
        for page in range(MOST_PAGES):
            query: dict[str, str | int] = {"limit": PAGE, "page": page, "dateFrom": since, "sortBy": "created_at", "orderBy": "desc"}
            found = http.call("GET", f"{self._base}/v1/payment/", query=query, headers=self._headers).body["data"]
            yield from (payment for payment in found if payment.get("order_id") == order_id)
            if len(found) < PAGE:
                return


def _page_origin(api_base: str) -> str:
    """Where an invoice of this API is paid."""
    if on_loopback(api_base):
        return origin(api_base)
    trial = "sandbox" in (urlsplit(api_base).hostname or "")
    return "https://sandbox.nowpayments.io" if trial else "https://nowpayments.io"


_STATES: dict[str, State] = {
    **dict.fromkeys(("waiting",), "open"),
    **dict.fromkeys(("confirming", "confirmed", "sending"), "pending"),
    **dict.fromkeys(("finished", "partially_paid"), "paid"),
    **dict.fromkeys(("failed", "refunded"), "failed"),
    "expired": "expired",
}
_BEST: tuple[State, ...] = ("paid", "pending", "open", "failed", "expired")


def _snapshot(order_id: str, payments: Sequence[Mapping[str, Any]]) -> Snapshot:
    """An order by all of its payments: the furthest of them, and the sum of those that are finished."""
    each = {str(payment["payment_id"]): payment for payment in payments}
    state = min((_STATES.get(str(payment["payment_status"]), "pending") for payment in each.values()), key=_BEST.index)
    told = Snapshot(order_id, order_id, state, method_label="Cryptocurrency", exact=False)
    if state == "failed":
        return replace(told, failure_code="failed", failure_message=N_("The network or the processor did not carry the payment out."))
    if state != "paid":
        return told
    finished = [payment for payment in each.values() if payment["payment_status"] == "finished"]
    counted = finished or [payment for payment in each.values() if payment["payment_status"] == "partially_paid"]
    received = [_worth(payment) for payment in counted]
    unread: list[Unread] = []
    coins: list[str] = optional("detail", order_id, lambda: sorted({str(payment["pay_currency"]).upper() for payment in counted}), [], unread)
    return replace(
        told,
        received=sum(received[1:], received[0]) if len({money.currency for money in received}) == 1 else None,
        paid_at=optional("detail", order_id, lambda: _paid_at(counted), None, unread),
        method_label=f"{told.method_label}, {', '.join(coins)}" if coins else told.method_label,
        doubt="" if finished else "less coin came than was asked for, and NOWPayments has not finished the payment",
        unread=tuple(unread),
    )


def _paid_at(payments: Sequence[Mapping[str, Any]]) -> datetime | None:
    """When the first of them was made, where it is said: the list of payments does not say it of all."""
    said = [datetime.fromisoformat(str(payment["created_at"])) for payment in payments if payment.get("created_at")]
    return min(one.astimezone(UTC) for one in said) if said else None


def _worth(payment: Mapping[str, Any]) -> Money:
    """The price of a payment, or its share when another amount of coin came than was asked for; rounded down."""
    currency = str(payment["price_currency"]).upper()
    # A number that is not there is not nought: without both, no share can be told.
    price, asked, came = (Decimal(str(payment[name])) for name in ("price_amount", "pay_amount", "actually_paid"))
    share = price * (came / asked if came != asked else 1)
    return Money.of(share.quantize(Decimal(1).scaleb(-CURRENCIES[currency].exponent), ROUND_DOWN), currency)


def _refused(body: Any) -> GatewayError:
    """A bad request is about the amount, or it is ours."""
    if "AMOUNT" in str(body).upper():
        return Refused("Cryptocurrency cannot be paid in this amount. Nothing was charged.", detail=f"NOWPayments: {body}")
    return Misconfigured(f"NOWPayments: {body}")


def _event(said: Mapping[str, Any], body: bytes) -> Event:
    """What a proven call is about: a payment, or nothing of ours (payouts are told of at the same address). Raises UnreadableEvent."""
    payment_id, status = said.get("payment_id"), text(said.get("payment_status"), "payment_status")
    if payment_id is not None and not (isinstance(payment_id, str) and payment_id.isascii() and payment_id.isdigit()):
        raise UnreadableEvent("payment_id")
    # It carries no id of its own: the same news twice is the same bytes.
    return Event(hashlib.sha256(body).hexdigest(), f"payment-{payment_id}" if payment_id and status else "", status, clock.now())


# Their signature covers what JavaScript's JSON.stringify makes of the body, which is not what Python makes of it.


class _Number(str):
    """The text of a JSON number, kept as it was written."""

    __slots__ = ()


def _sorted(value: Any) -> Any:
    """Every object with its keys in order, all the way down."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=_utf16)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _filtered(value: dict[str, Any]) -> Any:
    """Their documented form: the keys of the outermost object are the only ones kept, at every depth."""
    return _only(value, sorted(value, key=_utf16))


def _only(value: Any, keys: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _only(value[key], keys) for key in keys if key in value}
    return [_only(item, keys) for item in value] if isinstance(value, list) else value


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _written(value: Any) -> str:
    """A value as JSON.stringify writes it."""
    if isinstance(value, _Number):
        return js_number(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def js_number(text: str) -> str:
    """The text of a number after JavaScript has read and written it: the shortest digits of a double, `1e-7`, `170`, `1e+21`."""
    # json.loads reads a double as JavaScript does; only its digits are used, and only to compare a signature.
    read = json.loads(text)
    sign, digits, exponent = Decimal(repr(read + 0.0)).normalize().as_tuple()
    if isinstance(exponent, str):
        raise ValueError(f"{text[:40]} is no number of JavaScript's")  # noqa: TRY004 - it is the text that is wrong
    figures = "".join(map(str, digits))
    point = len(figures) + exponent
    if figures == "0":
        return "0"
    return ("-" if sign else "") + _placed(figures, point)


def _placed(figures: str, point: int) -> str:
    if 0 < point <= 21:
        return figures.ljust(point, "0") if len(figures) <= point else f"{figures[:point]}.{figures[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{figures}"
    fraction = f".{figures[1:]}" if len(figures) > 1 else ""
    return f"{figures[0]}{fraction}e{'+' if point > 0 else '-'}{abs(point - 1)}"
