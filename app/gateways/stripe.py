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

import requests
import stripe
from requests.adapters import HTTPAdapter
from stripe.checkout import Session
from stripe.params.checkout import SessionCreateParams

from app import clock, outside
from app.gateways import http, stripe_declines, stripe_methods
from app.gateways.base import (
    ON_ITS_WAY,
    SIGNATURE_TOLERANCE_S,
    UNREADABLE,
    BadSignature,
    Charge,
    DisputeSnapshot,
    Event,
    Method,
    Misconfigured,
    NoAnswer,
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
    read_json,
    text,
)
from app.languages import N_
from app.money import CURRENCIES, AmountError, Money, exponent

Found = TypeVar("Found")

CHECKOUT = "https://checkout.stripe.com"
"""Where every Checkout page of an account without a domain of its own is; banks and wallets are asked from there."""
SIGNATURE_HEADER = "stripe-signature"
NOT_SENT_BACK = N_("The processor refused to send this money back.")
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RETRIES = 3.05, 5.0, 2
LONGEST_S = 15.0
"""How long one whole answer may take, however steadily it drips."""
LEAST_LIFE = timedelta(minutes=30)
"""Stripe opens no page that would close sooner."""
SEARCH_BACK = timedelta(hours=48)
"""How far back a session is searched by our own id. A session lives 24 hours at most."""

_ZERO_DECIMAL = frozenset({"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"})
_THREE_DECIMAL = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_LARGEST = 99_999_999

_LOCALES = frozenset({"cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt"})

_EXPAND = ["payment_intent.latest_charge.balance_transaction", "payment_intent.latest_charge.refunds", "setup_intent.payment_method"]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """A pool whose connections can be cut off."""
        super().init_poolmanager(*args, **kwargs)
        outside.watched(self.poolmanager)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())
    return session


class _Caller(stripe.RequestsClient):
    """The SDK's client, whose calls end within their time, and which tries again only while there is some."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """One try."""
        try:
            with outside.call(LONGEST_S):
                return super().request(*args, **kwargs)
        except outside.TimeIsUp as error:
            raise _cut_off(str(error)) from error

    def _should_retry(self, *args: Any, **kwargs: Any) -> bool:
        return super()._should_retry(*args, **kwargs) and outside.may_try_again()


def _cut_off(detail: str) -> stripe.APIConnectionError:
    """An error as the SDK has it for a broken line, which it does not try again."""
    made: Any = stripe.APIConnectionError
    found: stripe.APIConnectionError = made(detail, should_retry=False)
    return found


class Stripe(ReadsAnswers):
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
        http_client = _Caller(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), session=_session())
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
            raise UnreadableAnswer("checkout.session.url", "The payment page did not open. Nothing was charged.")
        return Redirect(session.url, session.id)

    def _reopened(self, charge: Charge) -> Redirect:
        session = self._session(charge.id)
        if session is None or not session.url:
            raise Refused("The payment page has closed. Nothing was charged: pay again to open a new one.", detail=f"no page of {charge.id}")
        return Redirect(session.url, session.id)

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the signature and its time on both sides, then read. Raises BadSignature, UnreadableEvent.

        A thin event (v2) carries no object but may name one; what it names is looked up like any other. One about nothing of ours has no reference.
        """
        self._verify(body, headers.get(SIGNATURE_HEADER, ""))
        event = read_json(body)
        name, kind = text(event.get("id"), "id"), text(event.get("type"), "type")
        if not name or not kind:
            raise UnreadableEvent("type" if name else "id")
        return Event(name, _reference(_about(event)), kind, _moment(event.get("created")), self._fault(event))

    def lookup(self, reference: str) -> Snapshot | None:
        """The session by its own id, its payment intent's, or ours."""
        with _translated():
            session = self._session(reference)
            if session is None:
                return None
            snapshot = self._snapshot(session)
            refunds, unread_refunds = self._refunds(session)
            disputes, unread_disputes = self._disputes(session)
            return replace(snapshot, refunds=refunds, disputes=disputes, unread=(*snapshot.unread, *unread_refunds, *unread_disputes))

    def close(self, reference: str) -> None:
        """Expire a session that is open; while money is on its way in it Stripe refuses that."""
        with _translated():
            session = self._session(reference)
            if session is not None and session.status == "open":
                self._client.v1.checkout.sessions.expire(session.id)

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Send back to the original method. The same key again sends nothing new: Stripe forgets a key after a day, but never a refund."""
        with _translated(NOT_SENT_BACK):
            session = self._session(reference)
            if session is None or session.payment_intent is None:
                raise Misconfigured(f"Stripe has no payment intent of {reference}: is its key one of the account that was paid?")
            before = self._listed_refunds(session)
            if sent := next((one for one in before if _key(one) == key), None):
                return _ours_sent(sent, amount, key)
            try:
                return _ours_sent(self._send_back(_id(session.payment_intent), amount, key), amount, key)
            except stripe.InvalidRequestError as error:
                if amount.minor > _left(session, [_refund(one) for one in before]):
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
        other = text(event.get("account"), "account")
        return f"of the account {other}, not ours" if other else ""

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

    def _disputes(self, session: Session) -> tuple[tuple[DisputeSnapshot, ...], tuple[Unread, ...]]:
        """The disputes and inquiries of a payment, and those that cannot be read; asked for only where its charge says that there are any."""
        intent: Any = session.payment_intent
        if not getattr(getattr(intent, "latest_charge", None), "disputed", False):
            return (), ()
        every: Iterator[Any] = self._client.v1.disputes.list({"payment_intent": _id(intent), "limit": 100}).auto_paging_iter()
        return each("dispute", every, lambda one: [_dispute(one)] if one.status != PREVENTED else [], _name)

    def _refunds(self, session: Session) -> tuple[tuple[RefundSnapshot, ...], tuple[Unread, ...]]:
        """The refunds of a payment, oldest first, and those that cannot be read."""
        return each("listed_refund", self._listed_refunds(session), lambda one: [_refund(one)], _name)

    def _listed_refunds(self, session: Session) -> list[Any]:
        """All refunds of a payment, oldest first: with its charge come ten at most, and none where the charge was not expanded."""
        intent: Any = session.payment_intent
        charge: Any = getattr(intent, "latest_charge", None)
        found: Any = getattr(charge, "refunds", None)
        told: Any = getattr(found, "data", None)
        if charge is not None and (told is None or getattr(found, "has_more", False)):
            told = self._client.v1.refunds.list({"payment_intent": _id(intent), "limit": 100}).auto_paging_iter()
        return list(told or ())[::-1]

    def _snapshot(self, session: Session) -> Snapshot:
        intent: Any = session.payment_intent
        charge: Any = getattr(intent, "latest_charge", None)
        error: Any = getattr(intent, "last_payment_error", None)
        paid = session.payment_status == "paid" or getattr(intent, "status", None) == "succeeded"
        unread: list[Unread] = []
        return Snapshot(
            session.id,
            session.client_reference_id or "",
            "paid" if paid else _state(session, intent),
            received=_received(session, intent) if paid else None,
            fee=optional("fee", session.id, lambda: _fee(charge), None, unread),
            paid_at=optional("detail", session.id, lambda: _paid_at(charge), None, unread) if paid and charge else None,
            method_label=optional("detail", session.id, lambda: _label(charge), "", unread),
            failure_code=getattr(error, "decline_code", None) or getattr(error, "code", None) or "",
            failure_message=_why_not(intent, error),
            fault=self._mismatch(session, intent),
            unread=tuple(unread),
        )

    def _mismatch(self, session: Session, intent: Any) -> str:
        if session.livemode is not self.live:
            return f"of {'live' if session.livemode else 'test'} mode, not ours"
        kept = getattr(getattr(intent, "metadata", None), "payment", session.client_reference_id)
        return f"the intent names {kept}" if kept != session.client_reference_id else ""


COMPLETE = "complete"
_SESSION_STATES: Mapping[str, State] = {"open": "open", "expired": "expired"}
"""What a session is that is not complete; a complete one is what its intent is."""
_INTENT_STATES: Mapping[str, State] = {
    "succeeded": "paid",
    **dict.fromkeys(("processing", "requires_action", "requires_capture"), "pending"),
    **dict.fromkeys(("requires_payment_method", "requires_confirmation", "canceled"), "failed"),
}

_DISPUTE_STATES: dict[str, Literal["inquiry", "open", "won", "lost", "closed"]] = {
    **dict.fromkeys(("warning_needs_response", "warning_under_review"), "inquiry"),
    "warning_closed": "closed",
    **dict.fromkeys(("needs_response", "under_review"), "open"),
    "won": "won",
    **dict.fromkeys(("lost", "appeal_needs_response", "appeal_under_review"), "lost"),
}
"""An inquiry (`warning_…`) moves no money and may become a dispute under the same name."""
PREVENTED = "prevented"
"""A dispute that never became one, because its payment was refunded: the refund says all there is."""

_REFUND_STATES: dict[str, Literal["pending", "settled", "failed"]] = {
    **dict.fromkeys(("pending", "requires_action"), "pending"),
    "succeeded": "settled",
    **dict.fromkeys(("failed", "canceled"), "failed"),
}


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


def _reference(about: Mapping[str, Any]) -> str:
    """What to look up for an event's object: sessions and intents by themselves, charges, refunds and disputes by their intent."""
    if about.get("object") in ("checkout.session", "payment_intent"):
        return text(about.get("id"), "data.object.id")
    if about.get("object") in ("charge", "refund", "dispute"):
        return text(about.get("payment_intent"), "data.object.payment_intent")
    return ""


def _about(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that an event carries, or that a thin one names. Raises UnreadableEvent where neither can be."""
    if text(event.get("object"), "object").startswith("v2."):
        named = event.get("related_object") or {}
        if not isinstance(named, dict):
            raise UnreadableEvent("related_object")
        return {"object": named.get("type"), "id": named.get("id")}
    data = event.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise UnreadableEvent("data.object")
    return about


def _moment(said: Any) -> datetime:
    """When an event happened: seconds since 1970 in version 1, RFC 3339 in version 2. Raises UnreadableEvent."""
    try:
        return datetime.fromisoformat(said) if isinstance(said, str) else datetime.fromtimestamp(said, UTC)
    except UNREADABLE:
        raise UnreadableEvent("created") from None


def _name(said: Any) -> str:
    return str(getattr(said, "id", ""))


def _key(refund: Any) -> str:
    """Our own key, as a refund carries it; nothing for one that we did not order."""
    return str(getattr(refund.metadata, "refund", "")) if getattr(refund, "metadata", None) else ""


def _refund(refund: Any) -> RefundSnapshot:
    return _sent(refund, from_stripe(refund.amount, refund.currency), _key(refund))


def _ours_sent(refund: Any, asked: Money, key: str) -> RefundSnapshot:
    """A refund that we ordered: the money has left, so its name is all that must be read."""
    return _sent(refund, optional("detail", "", lambda: from_stripe(refund.amount, refund.currency), asked, []), key)


def _sent(refund: Any, amount: Money, key: str) -> RefundSnapshot:
    state = _REFUND_STATES.get(getattr(refund, "status", None) or "", "pending")
    why = stripe_declines.returned(getattr(refund, "failure_reason", None) or "unknown") if state == "failed" else ""
    return RefundSnapshot(refund.id, state, amount, why, key)


def _dispute(dispute: Any) -> DisputeSnapshot:
    if dispute.status not in _DISPUTE_STATES:
        raise UnreadableAnswer("dispute.status")
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
    """The state of a session that is not paid. Raises UnreadableAnswer for one that Stripe has added since."""
    if session.status not in (None, COMPLETE):
        if session.status not in _SESSION_STATES:
            raise UnreadableAnswer("checkout.session.status")
        return _SESSION_STATES[session.status]
    said = getattr(intent, "status", None)
    if said is not None and said not in _INTENT_STATES:
        raise UnreadableAnswer("payment_intent.status")
    return _INTENT_STATES[said] if said is not None else "failed"


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
    brand, last4 = getattr(card, "brand", None) or "Card", getattr(card, "last4", None)
    return f"{str(brand).title()}{f' •••• {last4}' if last4 else ''}{by}"


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
