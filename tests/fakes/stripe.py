"""A Stripe on the loopback: sessions, intents, refunds, events, an idempotency store, and every way of failing that the real one has.

Parameters are checked against the SDK's own types, so a call that Stripe would refuse is refused here. Its books (`sessions`, `refunds`)
are what the tests compare ours with. What it answers is held against Stripe's own published types: what they do not have, and ids where nothing was
asked to be expanded, cannot be told by it. `without` leaves out keys that may be left out.
"""

import copy
import importlib
import json
import re
import threading
import time
import typing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import typing_extensions
from pydantic import ConfigDict, TypeAdapter, ValidationError
from stripe import WebhookSignature

from app import clock
from app.gateways.stripe import from_stripe
from tests.fakes.loopback import Sums, books
from tests.fakes.schemas import Key, schema

API_VERSION = "2026-10-28.endive"
KEY_LIFE = timedelta(hours=24)
TOLD = 10
"""How many refunds come with a charge."""
DISPUTE_FEE = 15_00


SCHEMA = schema("stripe")
CARD = {"type": "card", "card": {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2031, "funding": "credit", "wallet": {"type": "apple_pay", "dynamic_last4": None}}}
NOBODY = {"address": None, "email": None, "name": None, "phone": None}


def _checker(module: str, name: str) -> TypeAdapter[Any]:
    """A strict reader of one of the SDK's parameter types: an unknown key, a missing one or a wrong type is refused."""
    params = importlib.import_module(module)
    options = importlib.import_module("stripe._request_options")
    params.StripeContext = options.StripeContext = str  # type: ignore[attr-defined]
    params.UntypedStripeObject = typing.List  # type: ignore[attr-defined]  # noqa: UP006 - stands for a generic of one parameter
    for kind in vars(params).values():
        if typing_extensions.is_typeddict(kind):
            kind.__pydantic_config__ = ConfigDict(extra="forbid")
    checker = TypeAdapter(getattr(params, name))
    checker.rebuild(force=True, _types_namespace={**vars(typing), **vars(params), **vars(options)})
    return checker


CHECKERS = {
    "create session": _checker("stripe.params.checkout._session_create_params", "SessionCreateParams"),
    "list sessions": _checker("stripe.params.checkout._session_list_params", "SessionListParams"),
    "retrieve session": _checker("stripe.params.checkout._session_retrieve_params", "SessionRetrieveParams"),
    "create refund": _checker("stripe.params._refund_create_params", "RefundCreateParams"),
    "list refunds": _checker("stripe.params._refund_list_params", "RefundListParams"),
    "create customer": _checker("stripe.params._customer_create_params", "CustomerCreateParams"),
    "create intent": _checker("stripe.params._payment_intent_create_params", "PaymentIntentCreateParams"),
    "list intents": _checker("stripe.params._payment_intent_list_params", "PaymentIntentListParams"),
    "list disputes": _checker("stripe.params._dispute_list_params", "DisputeListParams"),
}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, kind: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}


@dataclass
class Stripe:
    """One account. `script` holds what becomes of the coming calls: a key of `_FAILURES`, or hang- or drop-, before or after the effect."""

    secret_key: str = "sk_test_fake"
    webhook_secret: str = "whsec_fake"
    live: bool = False
    hang_s: float = 1.0
    script: list[str] = field(default_factory=list)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    disputes: dict[str, dict[str, Any]] = field(default_factory=dict)
    refund_status: str = "succeeded"
    least: int = 1
    """The least amount a card is charged with, in Stripe's own units."""
    passed: timedelta = timedelta(0)
    """How much later it is there than here; a key is forgotten after a day."""
    at_bank: dict[str, threading.Event] = field(default_factory=dict)
    """Charges of these cards are at their bank until the event is set: the first call runs, and its intent can be seen."""
    pending: dict[str, str] = field(default_factory=dict)
    """Charges of these cards are answered while they are still in this state, `processing` or `requires_action`; `confirm` ends them."""
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    without: frozenset[Key] = frozenset()
    faults: set[str] = field(default_factory=set)
    """What it said that Stripe would not say."""
    spared: set[Key] = field(default_factory=set)
    """What it said though it might have been left out."""

    def __post_init__(self) -> None:
        self._ids = count(1)
        self._kept: dict[str, tuple[str, int, bytes, datetime]] = {}
        self.busy: set[str] = set()
        self._lock = threading.RLock()
        self.asleep = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stripe": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.asleep.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.faults

    def shown(self, kind: str, value: dict[str, Any], expand: frozenset[str] = frozenset(), path: str = "") -> dict[str, Any]:
        """An object as it is answered: what is not expanded as its id, what is nothing as null, what may be left out left out."""
        said: dict[str, Any] = {}
        for key, item in value.items():
            here, types = f"{path}.{key}".lstrip("."), SCHEMA.types[kind].get(key, [])
            named, expanded = SCHEMA.inner(kind, key, item), any(one == here or one.startswith(f"{here}.") for one in expand)
            if key.startswith("_") or (named and not expanded and any(one.startswith("list of") for one in types)):
                continue
            if not named or (isinstance(item, dict) and item.get("object") == "list"):
                said[key] = item | {"data": [self.shown(named, one) for one in item["data"]]} if named else item
            elif isinstance(item, list):
                said[key] = [self.shown(named, one, expand, here) for one in item]
            else:
                said[key] = self.shown(named, item, expand, here) if expanded or "string" not in types else item["id"]
        return SCHEMA.complete(kind, said)

    def _said(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        """An answer, held against the published types."""
        said: dict[str, Any] = SCHEMA.without(kind, value, self.without)
        self.faults |= set(SCHEMA.problems(kind, said, self.without))
        self.spared |= set(SCHEMA.present(kind, said))
        return said

    def _one(self, kind: str, value: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
        return self._said(kind, self.shown(kind, value, frozenset(form.get("expand", ()))))

    def _list(self, kind: str, path: str, found: list[dict[str, Any]], form: dict[str, Any], *, more: bool = False) -> dict[str, Any]:
        expand = frozenset(one.removeprefix("data.") for one in form.get("expand", ()))
        data = [self._said(kind, self.shown(kind, one, expand)) for one in found]
        return self._said("list", {"object": "list", "url": path, "has_more": more, "data": data})

    # What happens at Stripe, and the webhooks it writes about it.

    def pay(self, session_id: str, *, amount: int | None = None, currency: str | None = None, fee: int | None = 60) -> None:
        """The customer pays; other than asked, when the test says so."""
        session = self.sessions[session_id]
        intent = self._intent(session)
        intent |= {"status": "succeeded", "amount_received": session["amount_total"] if amount is None else amount}
        intent["currency"] = currency or session["currency"]
        intent["latest_charge"] = self._charge(intent, {"type": kind} if (kind := session["_type"]) != "card" else copy.deepcopy(CARD), fee)
        waited = session["status"] == "complete"
        if session["_keeps"]:
            method = self._attach(session["customer"])
            card = intent["latest_charge"]["payment_method_details"]["card"]
            card |= method["card"]
            intent |= {"setup_future_usage": session["_keeps"], "customer": session["customer"], "payment_method": method["id"]}
        session |= {"status": "complete", "payment_status": "paid"}
        intent["last_payment_error"] = None
        self.happened("payment_intent.succeeded", intent)
        self.happened("checkout.session.async_payment_succeeded" if waited else "checkout.session.completed", session)

    def _charge(self, intent: dict[str, Any], details: dict[str, Any], fee: int | None) -> dict[str, Any]:
        now, amount, currency = int(clock.now().timestamp()), intent["amount_received"], intent["currency"]
        charge_id = self._id("ch")
        return {
            "id": charge_id, "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": 0, "billing_details": NOBODY, "captured": True, "created": now,
            "currency": currency, "disputed": False, "livemode": self.live, "metadata": intent["metadata"], "paid": True, "refunded": False, "status": "succeeded",
            "balance_transaction": self.balance(amount, fee, currency, "charge") if fee is not None else None, "payment_intent": intent["id"], "payment_method_details": details,
            "refunds": {"object": "list", "url": f"/v1/charges/{charge_id}/refunds", "has_more": False, "data": []},
        }  # fmt: skip

    def balance(self, amount: int, fee: int, currency: str, kind: str) -> dict[str, Any]:
        """A movement of the account's balance."""
        now = int(clock.now().timestamp())
        return {
            "id": self._id("txn"), "object": "balance_transaction", "amount": amount, "available_on": now, "balance_type": "payments", "created": now, "currency": currency, "fee": fee,
            "fee_details": [], "net": amount - fee, "reporting_category": kind, "status": "available", "type": kind,
        }  # fmt: skip

    def save(self, session_id: str) -> str:
        """The customer enters a card on a page that takes no money."""
        session = self.sessions[session_id]
        method = self._attach(session["customer"])
        intent = {"id": self._id("seti"), "object": "setup_intent", "status": "succeeded", "payment_method": method, "created": int(clock.now().timestamp())}
        intent |= {"livemode": self.live, "payment_method_types": ["card"], "usage": "off_session", "metadata": session["metadata"], "customer": session["customer"]}
        session |= {"status": "complete", "payment_status": "no_payment_required", "setup_intent": intent}
        self.happened("checkout.session.completed", session)
        return str(method["id"])

    def _attach(self, customer: str) -> dict[str, Any]:
        card = {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2031, "fingerprint": "fp_4242", "funding": "credit", "wallet": None}
        method = {"id": self._id("pm"), "object": "payment_method", "type": "card", "customer": customer, "card": card, "_says": None}
        method |= {"billing_details": NOBODY, "created": int(clock.now().timestamp()), "livemode": self.live, "metadata": {}}
        self.methods[method["id"]] = method
        return method

    def _detach(self, method_id: str) -> dict[str, Any]:
        method = self.methods.get(method_id)
        if method is None or method["customer"] is None:
            raise Refusal(400, "invalid_request_error", "The payment method you provided is not attached to a customer so detachment is impossible.")
        method["customer"] = None
        self.happened("payment_method.detached", method)
        return method

    def _create_intent(self, asked: dict[str, Any]) -> dict[str, Any]:
        method = self.methods.get(asked["payment_method"])
        if method is None or method["customer"] != asked["customer"]:
            raise Refusal(400, "invalid_request_error", "The customer does not have a payment method with this ID.", code="resource_missing", param="payment_method")
        intent = self._new_intent(asked["amount"], asked["currency"], asked["metadata"])
        intent |= {"customer": asked["customer"], "_off_session": asked["off_session"] in {True, "true"}}
        self.intents[intent["id"]] = intent
        if asked["amount"] < self.least:
            del self.intents[intent["id"]]
            raise Refusal(400, "invalid_request_error", "The amount is too small.", code="amount_too_small", param="amount")
        if method["id"] in self.at_bank:
            intent["status"] = "requires_confirmation"
            self.at_bank[method["id"]].wait(20)
        says = method["_says"]
        if says is not None:
            self._decline(intent, says)
            raise Refusal(402, "card_error", says["message"], **{name: value for name, value in says.items() if name != "message"}, payment_intent=intent)
        intent |= {"_asked": asked["amount"], "_method": method["id"]}
        if method["id"] in self.pending:
            intent["status"] = self.pending[method["id"]]
            self.happened(f"payment_intent.{intent['status']}", intent)
            return intent
        return self._take(intent)

    def _new_intent(self, amount: int, currency: str, metadata: dict[str, Any]) -> dict[str, Any]:
        intent: dict[str, Any] = {"id": self._id("pi"), "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_received": 0, "currency": currency}
        intent |= {"capture_method": "automatic_async", "confirmation_method": "automatic", "created": int(clock.now().timestamp()), "livemode": self.live, "metadata": metadata}
        return intent | {
            "payment_method_types": ["card"], "status": "requires_payment_method", "latest_charge": None, "last_payment_error": None, "payment_method": None, "setup_future_usage": None,
        }  # fmt: skip

    def confirm(self, intent_id: str, says: dict[str, str] | None = None) -> None:
        """The bank of a charge that was pending has answered: yes, or what it says."""
        intent = self.intents[intent_id]
        self._decline(intent, says) if says else self._take(intent)

    def _decline(self, intent: dict[str, Any], says: dict[str, str]) -> None:
        intent |= {"status": "requires_payment_method", "last_payment_error": {"type": "card_error", **says}}
        self.happened("payment_intent.payment_failed", intent)

    def _take(self, intent: dict[str, Any]) -> dict[str, Any]:
        """The money of a charge without a page arrives."""
        method = self.methods[intent["_method"]]
        details = {"type": "card", "card": dict(method["card"])}
        intent |= {"status": "succeeded", "amount_received": intent["_asked"], "payment_method": method["id"]}
        intent["latest_charge"] = self._charge(intent, details, 60) | {"created": intent["created"]}
        self.happened("payment_intent.succeeded", intent)
        return intent

    def pend(self, session_id: str) -> None:
        """The customer is done; the money comes later."""
        session = self.sessions[session_id]
        voucher = session["_type"] == "multibanco"
        self._intent(session)["status"] = "requires_action" if voucher else "processing"
        session |= {"status": "complete", "payment_status": "unpaid"}
        self.happened("payment_intent.requires_action" if voucher else "payment_intent.processing", session["payment_intent"])
        self.happened("checkout.session.completed", session)

    def decline(self, session_id: str, code: str, *, error: str = "card_declined") -> None:
        """A try on the page fails; the page stays open for another."""
        intent = self._intent(self.sessions[session_id])
        intent["last_payment_error"] = {"type": "card_error", "code": error, "decline_code": code, "message": f"Raw: {code}"}
        self.happened("payment_intent.payment_failed", intent)

    def cancel(self, session_id: str) -> None:
        """The intent is given up, a voucher that nobody paid for example."""
        session = self.sessions[session_id]
        self._intent(session).update({"status": "canceled", "cancellation_reason": "automatic"})
        session |= {"status": "complete", "payment_status": "unpaid"}
        self.happened("payment_intent.canceled", session["payment_intent"])
        self.happened("checkout.session.async_payment_failed", session)

    def fail(self, session_id: str) -> None:
        """What was to come later does not come."""
        session = self.sessions[session_id]
        intent = self._intent(session)
        intent |= {
            "status": "requires_payment_method",
            "last_payment_error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "Your card has insufficient funds."},
        }
        session |= {"status": "complete", "payment_status": "unpaid"}
        self.happened("payment_intent.payment_failed", intent)
        self.happened("checkout.session.async_payment_failed", session)

    def _close(self, session_id: str) -> dict[str, Any]:
        """What a merchant asks for: Stripe expires open sessions alone."""
        session = self.sessions.get(session_id)
        if session is None:
            raise Refusal(404, "invalid_request_error", "No such checkout.session.", code="resource_missing")
        if session["status"] != "open":
            raise Refusal(400, "invalid_request_error", 'Only Checkout Sessions with a status in ["open"] can be expired.')
        session["status"] = "expired"
        return session

    def expire(self, session_id: str) -> None:
        """The page closes unpaid."""
        self.sessions[session_id]["status"] = "expired"
        self.happened("checkout.session.expired", self.sessions[session_id])

    def happened(self, kind: str, about: dict[str, Any]) -> dict[str, Any]:
        """Write an event, as the endpoint's version shows it: ids in place of what an answer may expand."""
        event = {"id": self._id("evt"), "object": "event", "type": kind, "created": int(clock.now().timestamp()), "api_version": API_VERSION}
        event |= {"livemode": self.live, "data": {"object": self._of(about)}, "pending_webhooks": 1, "request": None}
        event = self._said("event", event)
        self.events.append(event)
        return event

    def _of(self, about: dict[str, Any]) -> dict[str, Any]:
        """What an event carries: an object as it is answered with nothing expanded; one of a kind that we never read as it is."""
        kind = about["object"]
        return self._said(kind, self.shown(kind, about)) if kind in SCHEMA.types else about

    def thin(self, kind: str, about: dict[str, Any] | None = None) -> dict[str, Any]:
        """An event of version 2, which names its object instead of carrying it."""
        related = {"id": about["id"], "type": about["object"], "url": f"/v1/{about['object']}s/{about['id']}"} if about else None
        event = {"id": self._id("evt_thin"), "object": "v2.core.event", "type": kind, "created": clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z"), "livemode": self.live}
        return self._said("v2.core.event", event | {"context": None, "reason": None, "related_object": related})

    def webhook(self, event: dict[str, Any], *, at: float | None = None, secret: str | None = None) -> tuple[bytes, dict[str, str]]:
        """An event as it is delivered: body and headers, signed now unless said."""
        body = json.dumps(event).encode()
        stamp = int(clock.now().timestamp() if at is None else at)
        return body, {"stripe-signature": WebhookSignature.generate_signature_header(body.decode(), secret or self.webhook_secret, stamp)}

    def lists(self) -> list[dict[str, Any]]:
        """Every event that has happened, newest first, as the events list gives them."""
        return self.events[::-1]

    def forget_keys(self) -> None:
        """A day passes, and no idempotency key is remembered."""
        self.passed += KEY_LIFE

    def _now(self) -> datetime:
        return clock.now() + self.passed

    def books(self) -> dict[str, Sums]:
        """What it holds for us, in its own view."""
        every = [*(session["payment_intent"] or {} for session in self.sessions.values()), *self.intents.values()]
        paid = [intent for intent in every if intent.get("status") == "succeeded"]
        kept = [intent["latest_charge"]["balance_transaction"] for intent in paid]
        return books(
            received=[from_stripe(intent["amount_received"], intent["currency"]) for intent in paid],
            refunded=[from_stripe(one["amount"], one["currency"]) for one in self.refunds.values() if one["status"] == "succeeded"],
            disputed=[from_stripe(one["amount"], one["currency"]) for one in self.disputes.values() if one["status"] in {"needs_response", "under_review", "lost"}],
            fees=[from_stripe(one["fee"], one["currency"]) for one in [*kept, *(one for dispute in self.disputes.values() for one in dispute["balance_transactions"])] if one],
        )

    # The API.

    def answer(self, method: str, path: str, form: dict[str, Any], key: str) -> tuple[int, bytes]:
        """One call: validated, then done, once per idempotency key."""
        try:
            if method == "POST":
                return self._once(key, path, form)
            return 200, json.dumps(self._read(path, form)).encode()
        except Refusal as refusal:
            return refusal.status, json.dumps(self._refused(refusal)).encode()

    def _refused(self, refusal: Refusal) -> dict[str, Any]:
        body = refusal.body["error"]
        if "payment_intent" in body:
            body = body | {"payment_intent": self.shown("payment_intent", body["payment_intent"])}
        return self._said("error", {"error": body})

    def _once(self, key: str, path: str, form: dict[str, Any]) -> tuple[int, bytes]:
        asked = json.dumps([path, form], sort_keys=True)
        with self._lock:
            if key in self._kept and self._now() - self._kept[key][3] < KEY_LIFE:
                before, status, body, _ = self._kept[key]
                if before != asked:
                    raise Refusal(400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters.")
                return status, body
            if key in self.busy:
                raise Refusal(409, "idempotency_error", "Another request with this key is in progress.", code="idempotency_key_in_use")
            self.busy.add(key)
        try:
            status, body = 200, json.dumps(self._write(path, form)).encode()
        except Refusal as refusal:
            if refusal.status != 402:  # what never began is not kept; a decline is an answer like any other
                raise
            status, body = 402, json.dumps(self._refused(refusal)).encode()
        finally:
            self.busy.discard(key)
        self._kept[key] = (asked, status, body, self._now())
        return status, body

    def _write(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/checkout/sessions":
            return self._one("checkout.session", self._create_session(_checked("create session", form)), form)
        if path.startswith("/v1/checkout/sessions/") and path.endswith("/expire"):
            return self._one("checkout.session", self._close(path.split("/")[4]), form)
        if path == "/v1/customers":
            _checked("create customer", form)
            customer = {"id": self._id("cus"), "object": "customer", "balance": 0, "created": int(clock.now().timestamp()), "invoice_settings": {}, "livemode": self.live}
            self.customers[customer["id"]] = customer | {"metadata": form["metadata"]}
            return self._one("customer", self.customers[customer["id"]], form)
        if path == "/v1/payment_intents":
            return self._one("payment_intent", self._create_intent(_checked("create intent", form)), form)
        if path.startswith("/v1/payment_methods/") and path.endswith("/detach"):
            return self._one("payment_method", self._detach(path.split("/")[3]), form)
        if path == "/v1/refunds":
            return self._one("refund", self._create_refund(_checked("create refund", form)), form)
        raise Refusal(404, "invalid_request_error", f"Unrecognized request URL (POST: {path}).")

    def _create_session(self, asked: dict[str, Any]) -> dict[str, Any]:
        price = asked["line_items"][0]["price_data"] if asked["mode"] == "payment" else {"unit_amount": 1, "currency": asked["currency"]}
        if asked.get("customer", "") not in {"", *self.customers}:
            raise Refusal(400, "invalid_request_error", "No such customer.", code="resource_missing", param="customer")
        now = clock.now().timestamp()
        if not 29 * 60 <= asked["expires_at"] - now <= 24 * 3600:
            raise Refusal(400, "invalid_request_error", "The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", param="expires_at")
        if price["unit_amount"] < 1:
            raise Refusal(400, "invalid_request_error", "The amount is too small.", param="line_items", code="amount_too_small")
        time.sleep(0.005)  # long enough for a second request with the same key to find it in use
        session_id = self._id("cs_test")
        session = {
            "id": session_id,
            "object": "checkout.session",
            "url": f"{self.url}/pay/{session_id}",
            "status": "open",
            "payment_status": "unpaid",
            "amount_total": price["unit_amount"],
            "currency": price["currency"],
            "client_reference_id": asked["client_reference_id"],
            "metadata": asked["metadata"],
            "livemode": self.live,
            "created": int(now),
            "expires_at": asked["expires_at"],
            "payment_intent": None,
            "_type": asked["allowed_payment_method_types"][0],
            "mode": asked["mode"],
            "customer": asked.get("customer"),
            "setup_intent": None,
            "_intent_metadata": asked.get("payment_intent_data", {}).get("metadata"),
            "_keeps": asked.get("payment_intent_data", {}).get("setup_future_usage"),
            "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
            "custom_fields": [],
            "custom_text": {"after_submit": None, "shipping_address": None, "submit": None, "terms_of_service_acceptance": None},
            "payment_method_types": list(asked["allowed_payment_method_types"]),
            "shipping_options": [],
        }
        self.sessions[session_id] = session
        return session

    def _create_refund(self, asked: dict[str, Any]) -> dict[str, Any]:
        every = [*(session["payment_intent"] for session in self.sessions.values() if session["payment_intent"]), *self.intents.values()]
        intent = next((one for one in every if one["id"] == asked["payment_intent"]), None)
        if intent is None:
            raise Refusal(404, "invalid_request_error", "No such payment_intent.", code="resource_missing")
        sent = sum(refund["amount"] for refund in self.refunds.values() if refund["payment_intent"] == asked["payment_intent"] and refund["status"] != "failed")
        if sent + asked["amount"] > intent["amount_received"]:
            raise Refusal(400, "invalid_request_error", "Refund amount is greater than unrefunded amount on charge.")
        refund = {
            "id": self._id("re"),
            "object": "refund",
            "status": self.refund_status,
            "amount": asked["amount"],
            "currency": intent["currency"],
            "payment_intent": asked["payment_intent"],
            "charge": intent["latest_charge"]["id"],
            "created": int(clock.now().timestamp()),
            "metadata": asked.get("metadata", {}),
        }
        if refund["status"] == "failed":
            refund["failure_reason"] = "unknown"
        intent["latest_charge"]["amount_refunded"] += asked["amount"]
        self.refunds[refund["id"]] = refund
        told = intent["latest_charge"]["refunds"]
        told["data"] = [refund, *told["data"]][:TOLD]
        told["has_more"] = sum(one["payment_intent"] == asked["payment_intent"] for one in self.refunds.values()) > TOLD
        self.happened("refund.created", refund)
        return refund

    def refund_by_hand(self, session_id: str, amount: int) -> None:
        """The merchant sends money back in the dashboard, so it carries no key of ours."""
        self._create_refund({"payment_intent": self.sessions[session_id]["payment_intent"]["id"], "amount": amount})

    def move_refund(self, refund_id: str, status: str, failure: str | None = None) -> None:
        """A refund settles, or fails, be it weeks later."""
        self.refunds[refund_id] |= {"status": status, **({"failure_reason": failure} if failure else {})}
        self.happened("refund.failed" if status == "failed" else "refund.updated", self.refunds[refund_id])

    def dispute(self, session_id: str, amount: int, *, status: str = "needs_response") -> str:
        """The payer's bank asks for money back; only an inquiry moves none."""
        intent = self.sessions[session_id]["payment_intent"]
        dispute = {
            "id": self._id("du"),
            "object": "dispute",
            "status": status,
            "amount": amount,
            "currency": intent["currency"],
            "reason": "product_not_received",
            "balance_transactions": [],
            "created": int(clock.now().timestamp()),
            "enhanced_eligibility_types": [],
            "evidence": {},
            "evidence_details": {"due_by": None, "enhanced_eligibility": {}, "has_evidence": False, "past_due": False, "submission_count": 0},
            "is_charge_refundable": status.startswith("warning"),
            "livemode": self.live,
            "metadata": {},
        }
        self.disputes[dispute["id"]] = dispute | {"payment_intent": intent["id"], "charge": intent["latest_charge"]["id"]}
        intent["latest_charge"]["disputed"] = True
        if not status.startswith("warning"):
            self._charge_dispute(dispute, DISPUTE_FEE)
        self.happened("charge.dispute.created", self.disputes[dispute["id"]])
        return str(dispute["id"])

    def _charge_dispute(self, dispute: dict[str, Any], fee: int) -> None:
        dispute["balance_transactions"].append(self.balance(-dispute["amount"], fee, dispute["currency"], "dispute"))

    def close_dispute(self, dispute_id: str, status: str, *, fee_back: int = 0) -> None:
        """The bank decides; of the fee comes back what the account's country says, often nothing."""
        self.disputes[dispute_id]["status"] = status
        if status == "won":
            self._charge_dispute(self.disputes[dispute_id], -fee_back)
        self.happened("charge.dispute.closed", self.disputes[dispute_id])

    def _read_kept(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/payment_intents":
            asked = _checked("list intents", form)
            return self._list("payment_intent", path, [one for one in reversed(self.intents.values()) if one["created"] >= asked["created"]["gte"]], form)
        kind, known = {
            "payment_intents": ("payment_intent", self.intents), "payment_methods": ("payment_method", self.methods), "customers": ("customer", self.customers)
        }[path.split("/")[2]]  # fmt: skip
        if path.split("/")[3] not in known:
            raise Refusal(404, "invalid_request_error", "No such object.", code="resource_missing")
        return self._one(kind, known[path.split("/")[3]], form)

    def _read(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/checkout/sessions":
            return self._list_sessions(_checked("list sessions", form), form)
        if path == "/v1/events":
            return self._said("list", {"object": "list", "url": path, "has_more": False, "data": self.lists()})
        if path == "/v1/refunds":
            asked = _checked("list refunds", form)
            return self._list("refund", path, [one for one in self.refunds.values() if one["payment_intent"] == asked["payment_intent"]][::-1], form)
        if path == "/v1/disputes":
            asked = _checked("list disputes", form)
            return self._list("dispute", path, [one for one in self.disputes.values() if one["payment_intent"] == asked["payment_intent"]], form)
        if path.startswith(("/v1/payment_intents", "/v1/payment_methods/", "/v1/customers/")):
            return self._read_kept(path, form)
        session = self.sessions.get(path.removeprefix("/v1/checkout/sessions/"))
        if session is None:
            raise Refusal(404, "invalid_request_error", "No such checkout.session.", code="resource_missing")
        _checked("retrieve session", form)
        return self._one("checkout.session", session, form)

    def _list_sessions(self, asked: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
        intent, since, size = asked.get("payment_intent"), asked.get("created", {}).get("gte", 0), asked.get("limit", 10)
        found = [one for one in reversed(self.sessions.values()) if one["created"] >= since and intent in (None, (one["payment_intent"] or {}).get("id"))]
        if after := asked.get("starting_after"):
            found = found[[one["id"] for one in found].index(after) + 1 :]
        return self._list("checkout.session", "/v1/checkout/sessions", found[:size], form, more=len(found) > size)

    def _intent(self, session: dict[str, Any]) -> dict[str, Any]:
        if session["payment_intent"] is None:
            session["payment_intent"] = self._new_intent(session["amount_total"], session["currency"], session["_intent_metadata"])
        intent: dict[str, Any] = session["payment_intent"]
        return intent

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids):08d}"


def _checked(what: str, form: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = CHECKERS[what].validate_python(form)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Refusal(400, "invalid_request_error", f"Received unknown or wrong parameter: {where}: {first['msg']}", param=where) from error
    return found


def _form(text: str) -> dict[str, Any]:
    """`a[b][0][c]=1` as nested dicts and lists, the way Stripe reads a form."""
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        steps = re.findall(r"[^\[\]]+", name)
        at = tree
        for step in steps[:-1]:
            at = at.setdefault(step, {})
        at[steps[-1]] = value
    return _lists(tree)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    inner = {key: _lists(value) for key, value in tree.items()}
    return list(inner.values()) if inner and all(key.isdigit() for key in inner) else inner


class _Handler(BaseHTTPRequestHandler):
    """HTTP's side of the fake; `stripe` is set by the class made for each one."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stripe: Stripe

    def do_GET(self) -> None:
        """A read."""
        self._serve(urlsplit(self.path).query)

    def do_POST(self) -> None:
        """A write."""
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self, text: str) -> None:
        stripe, path = self.stripe, urlsplit(self.path).path
        stripe.calls.append((self.command, path))
        stripe.headers.append(dict(self.headers))
        mode = stripe.script.pop(0) if stripe.script else ""
        if self.headers.get("Authorization") != f"Bearer {stripe.secret_key}":
            mode = "401"
        if mode in _FAILURES:
            self._send(*_FAILURES[mode])
        elif mode.endswith("-before"):
            self._vanish(mode)
        else:
            answer = stripe.answer(self.command, path, _form(text), self.headers.get("Idempotency-Key", ""))
            self._vanish(mode) if mode else self._send(*answer)

    def _vanish(self, mode: str) -> None:
        if mode.startswith("hang"):
            self.stripe.asleep.wait(self.stripe.hang_s)
        self.close_connection = True

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith(b"{") else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Request-Id", "req_fake")
        self.end_headers()
        self.wfile.write(body)


def _error(kind: str, message: str, **more: object) -> bytes:
    return json.dumps({"error": {"type": kind, "message": message, **more}}).encode()


_FAILURES = {
    "400": (400, _error("invalid_request_error", "Something is wrong with this request.")),
    "401": (401, _error("invalid_request_error", "Invalid API Key provided.")),
    "402": (402, _error("card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline")),
    "403": (403, _error("invalid_request_error", "This key may not do this.")),
    "409": (409, _error("idempotency_error", "Another request with this key is in progress.", code="idempotency_key_in_use")),
    "429": (429, _error("invalid_request_error", "Too many requests.", code="rate_limit")),
    "500": (500, _error("api_error", "An unknown error occurred.")),
    "html": (502, b"<html><body>Bad Gateway</body></html>"),
    "junk": (200, b'{"id": "cs_te'),
}
