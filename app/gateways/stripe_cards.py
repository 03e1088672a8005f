"""Stripe with saved cards: Checkout saves them, an intent without a page charges them.

What is charged so has no session: its reference is the payment intent's, and our id is found in the intent's metadata.
"""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast

import stripe
from stripe.checkout import Session
from stripe.params import PaymentIntentCreateParams

from app import clock
from app.gateways import stripe_declines
from app.gateways.base import ASKED_FOR, ON_ITS_WAY, Charge, KeptCard, Redirect, Setup, Snapshot, State, UnreadableAnswer, optional
from app.gateways.stripe import _LOCALES, SEARCH_BACK, Stripe, _found, _id, _translated, of_the_payment, to_stripe
from app.languages import N_

DEAD: Final = frozenset({"lost_card", "stolen_card", "pickup_card", "restricted_card", "revocation_of_all_authorizations", "resource_missing", "do_not_try_again"})
"""What a bank or Stripe says of a card that is never to be asked again."""
GONE: Final = N_("This card cannot be charged any more.")
ASKS: Final = N_("The bank wants you to confirm this payment yourself.")
_EXPAND: Final = ["latest_charge.balance_transaction", "latest_charge.refunds"]


class StripeWithCards(Stripe):
    """The gateway to one Stripe account that also keeps cards."""

    kept_by = "card"

    def enrol(self, key: str) -> str:
        """A customer at Stripe. Nothing of the person is sent: what Checkout asks for stays there."""
        with _translated():
            return str(self._client.v1.customers.create({"metadata": {"customer": key}}, {"idempotency_key": f"{key}:customer"}).id)

    def keep(self, setup: Setup) -> Redirect:
        """A Checkout page that takes a card and no money."""
        with _translated():
            session = self._client.v1.checkout.sessions.create(
                {
                    "mode": "setup",
                    "customer": setup.holder,
                    "client_reference_id": setup.id,
                    "currency": setup.currency.lower(),
                    "allowed_payment_method_types": ["card"],
                    "metadata": {"setup": setup.id},
                    "setup_intent_data": {"metadata": {"setup": setup.id}},
                    "locale": setup.locale if setup.locale in _LOCALES else "auto",
                    "expires_at": int(setup.expires_at.timestamp()),
                    "success_url": setup.return_url,
                    "cancel_url": setup.cancel_url,
                },
                {"idempotency_key": f"{setup.id}:setup"},
            )
        if not session.url:
            raise UnreadableAnswer("checkout.session.url", "The page did not open. Nothing was saved.")
        return Redirect(session.url, session.id)

    def charge_kept(self, charge: Charge) -> Snapshot:
        """One intent per charge, confirmed at once. What Stripe or the bank says against the card or the amount is a snapshot; a bad request besides is ours."""
        with _translated():
            try:
                intent = self._client.v1.payment_intents.create(_intent_params(charge), {"idempotency_key": f"{charge.id}:charge"})
            except stripe.CardError as error:
                return _declined(charge, error)
            except stripe.InvalidRequestError as error:
                if of_the_payment(error):
                    return Snapshot("", charge.id, "failed", failure_code=error.code or "refused", failure_message=stripe_declines.sentence(error.code or "invalid_amount"))
                if self._gone(charge):
                    return Snapshot("", charge.id, "failed", failure_code="card_gone", failure_message=GONE, dead_card=True)
                raise
        return self._snapshot(_as_session(intent))

    def _gone(self, charge: Charge) -> bool:
        """Whether the card is its holder's no more, at the account that knows the holder: another account knows neither, and that says nothing of the card."""
        method = _found(lambda: self._client.v1.payment_methods.retrieve(charge.card))
        if method is not None:
            return method.customer is None
        return _found(lambda: self._client.v1.customers.retrieve(charge.holder)) is not None

    def forget(self, token: str) -> None:
        """Detach the payment method from its customer; one that is not attached any more is what was wanted, one that Stripe does not know is another account's."""
        with _translated():
            try:
                self._client.v1.payment_methods.detach(token)
            except stripe.InvalidRequestError:
                method = _found(lambda: self._client.v1.payment_methods.retrieve(token))
                if method is None or method.customer is not None:
                    raise

    def _session(self, reference: str) -> Session | None:
        found = super()._session(reference)
        return found or (None if reference.startswith("cs_") else self._intent(reference))

    def _intent(self, reference: str) -> Session | None:
        """What was charged without a page, as the session it never had: by the intent's own id, or ours."""
        intents = self._client.v1.payment_intents
        if reference.startswith("pi_"):
            found = _found(lambda: intents.retrieve(reference, {"expand": _EXPAND}))
            return _as_session(found) if found else None
        since = int((clock.now() - SEARCH_BACK).timestamp())
        every = intents.list({"created": {"gte": since}, "limit": 100, "expand": [f"data.{path}" for path in _EXPAND]}).auto_paging_iter()
        return next((_as_session(intent) for intent in every if _ours(intent) == reference), None)

    def _snapshot(self, session: Session) -> Snapshot:
        if getattr(session, "mode", "") == "setup":
            return self._of_setup(session)
        snapshot, intent = super()._snapshot(session), cast("Any", session.payment_intent)
        if getattr(intent, "status", "") == "requires_action" and session.id == intent.id:
            return replace(snapshot, state="failed", failure_code=ASKED_FOR, failure_message=ASKS)
        error = getattr(intent, "last_payment_error", None)
        if snapshot.state == "failed" and error is not None:
            return replace(snapshot, **_words(error))
        if snapshot.state == "failed" and session.id == intent.id and _in_flight(intent):
            return replace(snapshot, state="open")
        if snapshot.state != "paid":
            return snapshot
        unread = list(snapshot.unread)
        card = optional("card", session.id, lambda: _kept(intent), None, unread)
        return replace(snapshot, card=card, unread=tuple(unread))

    def _of_setup(self, session: Session) -> Snapshot:
        intent = cast("Any", session.setup_intent)
        method = getattr(intent, "payment_method", None)
        card = getattr(method, "card", None)
        done = session.status == "complete" and getattr(intent, "status", "") == "succeeded" and card is not None
        kept = _card(card, _id(session.customer), _id(method)) if done else None
        state: State = "kept" if done else "expired" if session.status == "expired" else "open"
        return Snapshot(session.id, session.client_reference_id or "", state, card=kept, fault=self._mismatch(session, None))


def _intent_params(charge: Charge) -> PaymentIntentCreateParams:
    params: PaymentIntentCreateParams = {
        "amount": to_stripe(charge.amount),
        "currency": charge.amount.currency.lower(),
        "customer": charge.holder,
        "payment_method": charge.card,
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        "off_session": charge.unasked,
        "description": charge.description,
        "metadata": {"payment": charge.id},
        "expand": _EXPAND,
    }
    if not charge.unasked:
        # A bank that asks is answered on Checkout's page; an intent that waits for it would have no page of its own.
        params["error_on_requires_action"] = True
    return params


def _in_flight(intent: Any) -> bool:
    """Whether an intent that was only just made may still be at its bank: a look-up then must not read it as declined."""
    made = datetime.fromtimestamp(intent.created, UTC)
    return intent.status in {"requires_payment_method", "requires_confirmation"} and clock.now() - made < ON_ITS_WAY


def _as_session(intent: Any) -> Session:
    """An intent read as the session it never had."""
    facts = {"id": intent.id, "client_reference_id": _ours(intent), "payment_status": "", "status": "complete", "livemode": intent.livemode, "payment_intent": intent}
    return cast("Session", SimpleNamespace(**facts))


def _ours(intent: Any) -> str:
    return str(getattr(intent.metadata, "payment", "")) if intent.metadata else ""


def _declined(charge: Charge, error: stripe.CardError) -> Snapshot:
    said: Any = error.error
    intent = getattr(said, "payment_intent", None)
    reference = intent["id"] if isinstance(intent, dict) else str(getattr(intent, "id", ""))
    return Snapshot(reference, charge.id, "failed", **_words(said))


def _words(error: Any) -> dict[str, Any]:
    """What a decline is called, what the customer reads of it, and whether the card is done for."""
    code, decline, advice = (str(getattr(error, name, None) or "") for name in ("code", "decline_code", "advice_code"))
    if ASKED_FOR in {code, decline}:
        return {"failure_code": ASKED_FOR, "failure_message": ASKS}
    return {"failure_code": decline or code, "failure_message": stripe_declines.sentence(decline, code or "card_declined"), "dead_card": bool(DEAD & {code, decline, advice})}


def _kept(intent: Any) -> KeptCard | None:
    """The card that a payment saved; None where it was not asked to."""
    details = getattr(getattr(intent, "latest_charge", None), "payment_method_details", None)
    card = getattr(details, "card", None)
    if card is None or not getattr(intent, "setup_future_usage", None) or not intent.customer or not intent.payment_method:
        return None
    return _card(card, _id(intent.customer), _id(intent.payment_method))


def _card(card: Any, holder: str, token: str) -> KeptCard:
    wallet = getattr(getattr(card, "wallet", None), "type", "") or ""
    return KeptCard(holder, token, card.brand, card.last4, card.exp_month, card.exp_year, getattr(card, "fingerprint", None) or token, wallet)
