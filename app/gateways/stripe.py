"""Stripe, by its hosted Checkout page. Speaks SDK 16 and the API version that SDK is pinned to.

The SDK takes half a second to import, so the registry loads this module only where Stripe is configured. Nothing here relies on the
SDK's defaults: its client retries nothing unless told, waits 80 seconds, accepts webhooks signed in the future and sends telemetry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, TypeVar

import stripe
from stripe.checkout import Session
from stripe.params.checkout import SessionCreateParams

from app import clock
from app.gateways import http, stripe_declines, stripe_methods
from app.gateways.base import (
    ON_ITS_WAY,
    SIGNATURE_TOLERANCE_S,
    BadSignature,
    Charge,
    DisputeSnapshot,
    Event,
    Method,
    Misconfigured,
    NoAnswer,
    Redirect,
    RefundSnapshot,
    Refused,
    Snapshot,
    State,
    WayBack,
    on_loopback,
    origin,
    read_json,
)
from app.languages import N_
from app.money import CURRENCIES, AmountError, Money, exponent

Found = TypeVar("Found")

CHECKOUT = "https://checkout.stripe.com"
"""Where every Checkout page of an account without a domain of its own is; banks and wallets are asked from there."""
SIGNATURE_HEADER = "stripe-signature"
NOT_SENT_BACK = N_("The processor refused to send this money back.")
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RETRIES = 3.05, 5.0, 2
LEAST_LIFE = timedelta(minutes=30)
"""Stripe opens no page that would close sooner."""
SEARCH_BACK = timedelta(hours=48)
"""How far back a session is searched by our own id. A session lives 24 hours at most."""

_ZERO_DECIMAL = frozenset({"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"})
_THREE_DECIMAL = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_LARGEST = 99_999_999

_LOCALES = frozenset({"cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt"})

_EXPAND = ["payment_intent.latest_charge.balance_transaction", "payment_intent.latest_charge.refunds", "setup_intent.payment_method"]


class Stripe:
    """The gateway to one Stripe account. `webhook_secrets` may hold two, by comma, while one is being replaced; `methods` names those offered, by comma."""

    name = "stripe"
    grows = False
    forgets = False
    final_after: timedelta | None = ON_ITS_WAY

    def __init__(self, secret_key: str, webhook_secrets: str, api_base: str = "https://api.stripe.com", methods: str = "") -> None:
        self._secret_key = secret_key
        self._webhook_secrets = [secret.strip() for secret in webhook_secrets.split(",") if secret.strip()]
        self._api_base = api_base
        self._methods = stripe_methods.offered(methods)
        self.pages: tuple[str, ...] = (origin(api_base) if on_loopback(api_base) else CHECKOUT,)
        self.live = "_live_" in secret_key

    @cached_property
    def _client(self) -> stripe.StripeClient:
        stripe.enable_telemetry = False
        http_client = stripe.RequestsClient(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        return stripe.StripeClient(self._secret_key, base_addresses={"api": self._api_base}, max_network_retries=RETRIES, http_client=http_client)

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """What this account may offer, each judged for this payer and amount; Checkout itself decides last."""
        return [self._fitting(method.judged(country, amount), amount) for method in self._methods]

    def checkout(self, charge: Charge) -> Redirect:
        """The hosted page of this charge. So close to its end only the page is found that may be open already: Stripe would open no new one."""
        with _translated():
            if charge.expires_at - clock.now() < LEAST_LIFE:
                return self._reopened(charge)
            session = self._client.v1.checkout.sessions.create(_session_params(charge), {"idempotency_key": f"{charge.id}:checkout"})
        if not session.url:
            raise NoAnswer(f"{session.id} has no url", "The payment page did not open. Nothing was charged.")
        return Redirect(session.url, session.id)

    def _reopened(self, charge: Charge) -> Redirect:
        session = self._session(charge.id)
        if session is None or not session.url:
            raise Refused("The payment page has closed. Nothing was charged: pay again to open a new one.", detail=f"no page of {charge.id}")
        return Redirect(session.url, session.id)

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the signature and its time on both sides, then read. Raises BadSignature."""
        self._verify(body, headers.get(SIGNATURE_HEADER, ""))
        event = read_json(body)
        try:
            about = event["data"]["object"]
            occurred_at = datetime.fromtimestamp(event["created"], UTC)
            return Event(str(event["id"]), _reference(about), str(event["type"]), occurred_at, self._fault(event))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadSignature(f"signed, but no event: {error!r}") from error

    def lookup(self, reference: str) -> Snapshot | None:
        """The session by its own id, its payment intent's, or ours."""
        with _translated():
            session = self._session(reference)
            if session is None:
                return None
            return replace(self._snapshot(session), refunds=self._refunds(session), disputes=self._disputes(session))

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Send back to the original method. The same key again sends nothing new: Stripe forgets a key after a day, but never a refund."""
        with _translated(NOT_SENT_BACK):
            session = self._session(reference)
            if session is None or session.payment_intent is None:
                raise Misconfigured(f"Stripe has no payment intent of {reference}: is its key one of the account that was paid?")
            before = self._refunds(session)
            if sent := next((one for one in before if one.key == key), None):
                return sent
            try:
                return _refund(self._send_back(_id(session.payment_intent), amount, key))
            except stripe.InvalidRequestError as error:
                if amount.minor > _left(session, before):
                    raise Refused(NOT_SENT_BACK, detail=str(error)) from error
                raise

    def _send_back(self, intent_id: str, amount: Money, key: str) -> stripe.Refund:
        return self._client.v1.refunds.create(
            {"payment_intent": intent_id, "amount": to_stripe(amount), "metadata": {"refund": key}},
            {"idempotency_key": f"{key}:refund"},
        )

    def way_back(self, method: str) -> WayBack:
        """How a payment by a method goes back, by the table."""
        return stripe_methods.way_back(method)

    def _fitting(self, method: Method, amount: Money) -> Method:
        if method.unavailable:
            return method
        try:
            to_stripe(amount)
        except Refused as error:
            return replace(method, unavailable=str(error))
        return method

    def _verify(self, body: bytes, header: str) -> None:
        for secret in self._webhook_secrets:
            try:
                # Without a tolerance: the SDK's own looks only backwards, and past the clock that the house keeps.
                stripe.WebhookSignature.verify_header(body, header, secret)
            except stripe.SignatureVerificationError:
                continue
            except ValueError as error:
                raise BadSignature("not text") from error
            stamp = next(part[2:] for part in header.split(",") if part.startswith("t="))
            if abs(clock.now().timestamp() - int(stamp)) > SIGNATURE_TOLERANCE_S:
                raise BadSignature("signed too far from now")
            return
        raise BadSignature("the signature does not match")

    def _fault(self, event: dict[str, Any]) -> str:
        if event.get("livemode") is not self.live:
            return f"of {'live' if event.get('livemode') else 'test'} mode, not ours"
        return f"of the account {event['account']}, not ours" if event.get("account") else ""

    def _session(self, reference: str) -> Session | None:
        sessions = self._client.v1.checkout.sessions
        if reference.startswith("cs_"):
            return _found(lambda: sessions.retrieve(reference, {"expand": _EXPAND}))
        among = [f"data.{path}" for path in _EXPAND]
        if reference.startswith("pi_"):
            return next(iter(sessions.list({"payment_intent": reference, "limit": 1, "expand": among}).data), None)
        since = int((clock.now() - SEARCH_BACK).timestamp())
        every = sessions.list({"created": {"gte": since}, "limit": 100, "expand": among}).auto_paging_iter()
        return next((session for session in every if session.client_reference_id == reference), None)

    def _disputes(self, session: Session) -> tuple[DisputeSnapshot, ...]:
        """The disputes and inquiries of a payment; asked for only where its charge says that there are any."""
        intent: Any = session.payment_intent
        if not getattr(getattr(intent, "latest_charge", None), "disputed", False):
            return ()
        every = self._client.v1.disputes.list({"payment_intent": _id(intent), "limit": 100}).auto_paging_iter()
        return tuple(_dispute(one) for one in every if one.status in _DISPUTE_STATES)

    def _refunds(self, session: Session) -> tuple[RefundSnapshot, ...]:
        """The refunds of a payment, oldest first, all of them: with its charge come ten at most."""
        intent: Any = session.payment_intent
        found: Any = getattr(getattr(intent, "latest_charge", None), "refunds", None)
        every: Any = getattr(found, "data", ())
        if getattr(found, "has_more", False):
            every = list(self._client.v1.refunds.list({"payment_intent": _id(intent), "limit": 100}).auto_paging_iter())
        return tuple(_refund(one) for one in reversed(every))

    def _snapshot(self, session: Session) -> Snapshot:
        intent: Any = session.payment_intent
        charge: Any = getattr(intent, "latest_charge", None)
        error: Any = getattr(intent, "last_payment_error", None)
        paid = session.payment_status == "paid" or getattr(intent, "status", None) == "succeeded"
        return Snapshot(
            session.id,
            session.client_reference_id or "",
            "paid" if paid else _state(session, intent),
            received=_received(session, intent) if paid else None,
            fee=_fee(charge),
            paid_at=_paid_at(charge) if paid and charge else None,
            method_label=_label(charge),
            failure_code=getattr(error, "decline_code", None) or getattr(error, "code", None) or "",
            failure_message=_why_not(intent, error),
            fault=self._mismatch(session, intent),
        )

    def _mismatch(self, session: Session, intent: Any) -> str:
        if session.livemode is not self.live:
            return f"of {'live' if session.livemode else 'test'} mode, not ours"
        kept = getattr(getattr(intent, "metadata", None), "payment", session.client_reference_id)
        return f"the intent names {kept}" if kept != session.client_reference_id else ""


_DISPUTE_STATES: dict[str, Literal["inquiry", "open", "won", "lost", "closed"]] = {
    **dict.fromkeys(("warning_needs_response", "warning_under_review"), "inquiry"),
    "warning_closed": "closed",
    **dict.fromkeys(("needs_response", "under_review"), "open"),
    "won": "won",
    **dict.fromkeys(("lost", "appeal_needs_response", "appeal_under_review"), "lost"),
}
"""An inquiry (`warning_…`) moves no money and may become a dispute under the same name; one that was prevented is a refund."""

_REFUND_STATES: dict[str, Literal["pending", "settled", "failed"]] = {"succeeded": "settled", "failed": "failed", "canceled": "failed"}


def to_stripe(amount: Money) -> int:
    """The whole number Stripe writes for an amount. Raises Refused when it cannot be written exactly."""
    scaled = amount.decimal.scaleb(gateway_exponent(amount.currency))
    step = 10 if amount.currency in _THREE_DECIMAL else 1
    if scaled != scaled.to_integral_value() or scaled % step or (amount.currency in _COARSE and scaled % 100):
        raise Refused("Not for an amount this fine", detail=f"{amount} at Stripe")
    if scaled > _LARGEST:
        raise Refused("Not for an amount this large", detail=f"{amount} at Stripe")
    return int(scaled)


def from_stripe(number: int, currency: str) -> Money:
    """The amount that Stripe's whole number says."""
    return Money.of(Decimal(number).scaleb(-gateway_exponent(currency.upper())), currency.upper())


_COARSE = frozenset({"ISK", "UGX"})


def gateway_exponent(currency: str) -> int:
    """Decimals Stripe writes a currency with; not ISO 4217's for ISK and UGX (two, always 00) and MGA (none)."""
    if currency in _COARSE:
        return 2
    if currency in _ZERO_DECIMAL:
        return 0
    return 3 if currency in _THREE_DECIMAL else max(exponent(currency), 2)


def _session_params(charge: Charge) -> SessionCreateParams:
    row = stripe_methods.BY_NAME.get(charge.method)
    stripe_type = row.stripe if row else charge.method
    params: SessionCreateParams = {
        "mode": "payment",
        "client_reference_id": charge.id,
        "allowed_payment_method_types": [stripe_type],
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": charge.amount.currency.lower(),
                    "unit_amount": to_stripe(charge.amount),
                    "product_data": {"name": charge.title, "description": charge.description},
                },
            }
        ],
        # A session's metadata is not copied to its payment intent: said twice.
        "metadata": {"payment": charge.id},
        "payment_intent_data": {"metadata": {"payment": charge.id}, "description": charge.description},
        # Otherwise a dashboard setting may price it again in another currency.
        "adaptive_pricing": {"enabled": False},
        "submit_type": "pay",
        "locale": charge.locale if charge.locale in _LOCALES else "auto",
        "expires_at": int(charge.expires_at.timestamp()),
        "success_url": charge.return_url,
        "cancel_url": charge.cancel_url,
    }
    if charge.keep:
        params["payment_intent_data"]["setup_future_usage"] = "off_session"
    if stripe_type == "card":
        params["payment_method_options"] = {"card": {"request_three_d_secure": "automatic"}}
    if charge.holder:
        params["customer"] = charge.holder
    elif charge.email:
        params["customer_email"] = charge.email
    return params


def _reference(about: dict[str, Any]) -> str:
    """What to look up for an event's object: sessions and intents by themselves, charges, refunds and disputes by their intent."""
    if about.get("object") in ("checkout.session", "payment_intent"):
        return str(about["id"])
    if about.get("object") in ("charge", "refund", "dispute"):
        return str(about.get("payment_intent") or "")
    return ""


def _refund(refund: Any) -> RefundSnapshot:
    key = getattr(refund.metadata, "refund", "") if refund.metadata else ""
    return RefundSnapshot(
        refund.id, _REFUND_STATES.get(refund.status or "", "pending"), from_stripe(refund.amount, refund.currency), stripe_declines.returned(refund.failure_reason), key
    )


def _dispute(dispute: Any) -> DisputeSnapshot:
    amount, reason = from_stripe(dispute.amount, dispute.currency), dispute.reason.replace("_", " ")
    moved = [one for one in getattr(dispute, "balance_transactions", None) or () if one.fee and one.currency.upper() in CURRENCIES]
    return DisputeSnapshot(dispute.id, _DISPUTE_STATES[dispute.status], amount, reason, tuple((one.id, from_stripe(one.fee, one.currency)) for one in moved))


def _why_not(intent: Any, error: Any) -> str:
    if error is not None:
        return stripe_declines.sentence(getattr(error, "decline_code", None), getattr(error, "code", None) or "card_declined")
    return stripe_declines.sentence(getattr(intent, "cancellation_reason", None) or "canceled") if getattr(intent, "status", None) == "canceled" else ""


def _paid_at(charge: Any) -> datetime | None:
    """When the money was taken: not when a debit was ordered that took days. None where only the day of the order is known."""
    balance = getattr(charge, "balance_transaction", None)
    taken: int | None = getattr(balance, "created", None)
    kind = getattr(getattr(charge, "payment_method_details", None), "type", "")
    if taken is None and any(row.stripe == kind and row.method.waiting for row in stripe_methods.ROWS):
        return None
    return datetime.fromtimestamp(max(charge.created, taken or 0), UTC)


def _state(session: Session, intent: Any) -> State:
    if session.status == "open":
        return "open"
    if session.status == "expired":
        return "expired"
    return "pending" if getattr(intent, "status", None) in ("processing", "requires_action", "requires_capture") else "failed"


def _received(session: Session, intent: Any) -> Money | None:
    """What arrived; None when it is in a currency the house does not know, which nobody may credit."""
    number, currency = (intent.amount_received, intent.currency) if intent is not None else (session.amount_total, session.currency)
    try:
        return from_stripe(number or 0, currency or "")
    except AmountError:
        return None


def _left(session: Session, refunds: Sequence[RefundSnapshot]) -> int:
    """What has not gone back of a payment, in minor units."""
    received = _received(session, session.payment_intent)
    return received.minor - sum(refund.amount.minor for refund in refunds if refund.state != "failed") if received else 0


def _fee(charge: Any) -> Money | None:
    balance = getattr(charge, "balance_transaction", None)
    if balance is None or isinstance(balance, str) or balance.currency.upper() not in CURRENCIES:
        return None
    return from_stripe(balance.fee, balance.currency)


def _label(charge: Any) -> str:
    details = getattr(charge, "payment_method_details", None)
    if details is None:
        return ""
    card = getattr(details, "card", None)
    if card is None:
        return stripe_methods.LABELS.get(str(details.type), str(details.type))
    wallet = getattr(getattr(card, "wallet", None), "type", "")
    by = {"apple_pay": ", Apple Pay", "google_pay": ", Google Pay"}.get(wallet, "")
    return f"{str(card.brand).title()} •••• {card.last4}{by}"


def _found(retrieve: Callable[[], Found]) -> Found | None:
    try:
        return retrieve()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise


def _id(expandable: Any) -> str:
    return expandable if isinstance(expandable, str) else str(expandable.id)


def of_the_payment(error: stripe.InvalidRequestError) -> bool:
    """Whether Stripe refuses what this payment or refund is, such as its amount; every other bad request is ours: a key, an account, a parameter."""
    return error.param == "amount" or (error.code or "").startswith(("amount_", "charge_", "refund_"))


@contextmanager
def _translated(refused: str = http.REFUSED) -> Iterator[None]:
    """Stripe's errors in our words: it will never be (`refused` says what), it is ours, or nobody knows yet."""
    try:
        yield
    except stripe.CardError as error:
        told = stripe_declines.sentence(getattr(error.error, "decline_code", None), error.code or "card_declined")
        raise Refused(told, detail=str(error)) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Misconfigured(str(error)) from error
    except stripe.InvalidRequestError as error:
        raise (Refused(refused, detail=str(error)) if of_the_payment(error) else Misconfigured(str(error))) from error
    except stripe.StripeError as error:
        # Limits, connections, 5xx, a key in use, and a key with other parameters (a mistake of ours, never to be retried with a new key).
        raise NoAnswer(str(error)) from error
