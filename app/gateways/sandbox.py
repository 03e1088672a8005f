"""The sandbox: a pretend processor's gateway, so that the whole way of a payment needs no keys.

The processor itself is somebody else's company (`sandbox_processor`), reached through the three calls of `Processor`; only its
signed webhooks and its answers come here, as from any other.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from app import clock
from app.gateways.base import (
    ON_ITS_WAY,
    SIGNATURE_TOLERANCE_S,
    BadSignature,
    Charge,
    DisputeSnapshot,
    Event,
    KeptCard,
    Method,
    NoAnswer,
    Redirect,
    RefundSnapshot,
    Refused,
    Setup,
    Snapshot,
    State,
    WayBack,
    read_json,
)
from app.languages import N_
from app.money import Money

SIGNATURE_HEADER = "sandbox-signature"

_EUROPE = frozenset({"EUR", "PLN", "CZK", "GBP", "SEK", "DKK"})
METHODS = (
    Method("card", N_("Bank card"), "CARD", "Sandbox: no real money", "Instant", "sandbox"),
    Method("paypal", "PayPal", "PayPal", "Sandbox: no real money", "Instant", "sandbox"),
    Method("bank", N_("Online bank transfer"), "BANK", "Sandbox: no real money", "Up to a minute", "sandbox", currencies=_EUROPE),
    Method("crypto", N_("Cryptocurrency"), "BTC", "Sandbox: no real money", "After confirmation", "sandbox", minimums={"EUR": 10_00, "USD": 10_00}),
)


DEAD = frozenset({"stolen_card", "card_gone"})
"""Why a saved card is never charged again."""


@dataclass(frozen=True, slots=True)
class SentBack:
    """One refund in the pretend processor's books, in minor units of its session's currency."""

    reference: str
    key: str
    amount: int
    state: Literal["pending", "settled", "failed"]
    failure: str


@dataclass(frozen=True, slots=True)
class Contested:
    """One dispute in the pretend processor's books."""

    reference: str
    amount: int
    state: Literal["inquiry", "open", "won", "lost", "closed"]
    reason: str


@dataclass(frozen=True, slots=True)
class Session:
    """One payment as the pretend processor answers for it. `amount` was asked, `received` came; both in minor units."""

    reference: str
    charge_id: str
    url: str
    state: State
    received: int | None
    currency: str
    fee: int | None
    account: str
    label: str
    failure_code: str
    failure_message: str
    paid_at: datetime | None
    refunds: tuple[SentBack, ...] = ()
    disputes: tuple[Contested, ...] = ()
    card: KeptCard | None = None


class CardKeeper(Protocol):
    """The part of the pretend processor's API that keeps cards."""

    def enrol(self, key: str) -> str:
        """The processor's customer for this key, always the same. Raises ProcessorDown."""
        ...

    def open_setup(self, setup: Setup) -> Session:
        """The session in which a card is saved, made once. Raises ProcessorDown."""
        ...

    def charge(self, charge: Charge) -> Session:
        """The session of a charge to a saved card, made once. Raises ProcessorDown."""
        ...

    def forget(self, token: str) -> None:
        """Delete a saved card. Raises ProcessorDown."""
        ...


class Processor(Protocol):
    """The pretend processor's API. Its account and its webhook secret are what a merchant would copy from its dashboard."""

    account: str
    secret: str

    @property
    def cards(self) -> CardKeeper:
        """Its saved cards."""
        ...

    def open(self, charge: Charge) -> Session:
        """The session of this charge, made once. Raises ProcessorDown."""
        ...

    def session(self, reference: str) -> Session | None:
        """A session by its reference or by the charge's id. Raises ProcessorDown."""
        ...

    def close(self, reference: str) -> None:
        """Close an open session. Raises ProcessorDown."""
        ...

    def refund(self, reference: str, minor: int, key: str) -> SentBack:
        """Send back once per key. Raises ProcessorDown, or RefundRefused for what cannot be sent back."""
        ...


class ProcessorDown(Exception):
    """The pretend processor does not answer, as real ones sometimes do not."""


class RefundRefused(Exception):
    """The pretend processor will not send this back, as a sentence."""


class Sandbox:
    """The gateway to the pretend processor."""

    name = "sandbox"
    kept_by = "card"
    grows = False
    forgets = False
    final_after: timedelta | None = ON_ITS_WAY
    pages: tuple[str, ...] = ()
    """None but our own."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """What it carries, each judged for this payer and amount."""
        return [method.judged(country, amount) for method in METHODS]

    def checkout(self, charge: Charge) -> Redirect:
        """The hosted page of this charge."""
        session = self._answer(self._processor.open, charge)
        return Redirect(session.url, session.reference)

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify the HMAC and its time, then read. Raises BadSignature."""
        verify(body, headers.get(SIGNATURE_HEADER, ""), self._processor.secret)
        return self._event(read_json(body))

    def lookup(self, reference: str) -> Snapshot | None:
        """The session as the processor keeps it, by its reference or by our charge id."""
        session = self._answer(self._processor.session, reference)
        return self._snapshot(session) if session else None

    def close(self, reference: str) -> None:
        """Close the session, if it is open."""
        self._answer(self._processor.close, reference)

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Send back; the same key again sends nothing new."""
        try:
            sent = self._answer(self._processor.refund, reference, amount.minor, key)
        except RefundRefused as refused:
            raise Refused(str(refused)) from refused
        return _refund(sent, amount.currency)

    def way_back(self, method: str) -> WayBack:
        """As long as real processors give most methods. Coins, too: pretend money has no other way."""
        del method
        return WayBack(180)

    def enrol(self, key: str) -> str:
        """The processor's customer for this key."""
        return str(self._answer(self._processor.cards.enrol, key))

    def keep(self, setup: Setup) -> Redirect:
        """The page on which a card is saved."""
        session = self._answer(self._processor.cards.open_setup, setup)
        return Redirect(session.url, session.reference)

    def charge_kept(self, charge: Charge) -> Snapshot:
        """Charge a saved card, once per charge."""
        return self._snapshot(self._answer(self._processor.cards.charge, charge))

    def forget(self, token: str) -> None:
        """Delete a saved card."""
        self._answer(self._processor.cards.forget, token)

    def _answer(self, call: Any, *arguments: object) -> Any:
        try:
            return call(*arguments)
        except ProcessorDown as error:
            raise NoAnswer(str(error) or "the pretend processor is down") from error

    def _event(self, event: dict[str, Any]) -> Event:
        try:
            occurred_at = datetime.fromtimestamp(event["created"], UTC)
            found = Event(str(event["id"]), str(event["reference"]), str(event["type"]), occurred_at, self._foreign(event["account"]))
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise BadSignature(f"signed, but no event: {error!r}") from error
        return found

    def _foreign(self, account: object) -> str:
        return "" if account == self._processor.account else f"of the account {account}, not ours"

    def _snapshot(self, session: Session) -> Snapshot:
        def money(minor: int | None) -> Money | None:
            return None if minor is None else Money(minor, session.currency)

        return Snapshot(
            session.reference,
            session.charge_id,
            session.state,
            received=money(session.received),
            fee=money(session.fee),
            paid_at=session.paid_at,
            method_label=session.label,
            failure_code=session.failure_code,
            failure_message=session.failure_message,
            fault=self._foreign(session.account),
            refunds=tuple(_refund(sent, session.currency) for sent in session.refunds),
            disputes=tuple(DisputeSnapshot(one.reference, one.state, Money(one.amount, session.currency), one.reason) for one in session.disputes),
            card=session.card,
            dead_card=session.failure_code in DEAD,
        )


def _refund(sent: SentBack, currency: str) -> RefundSnapshot:
    return RefundSnapshot(sent.reference, sent.state, Money(sent.amount, currency), sent.failure, sent.key)


def sign(body: bytes, secret: str, at: int) -> str:
    """The signature header for a body at a Unix time."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def verify(body: bytes, header: str, secret: str) -> None:
    """Raise BadSignature unless the header signs this body within the tolerance, before or after now."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    stamp = parts.get("t", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise BadSignature("no signed time")
    if not hmac.compare_digest(sign(body, secret, int(stamp)).encode(), header.encode()):
        raise BadSignature("the signature does not match")
    if abs(clock.now().timestamp() - int(stamp)) > SIGNATURE_TOLERANCE_S:
        raise BadSignature("signed too far from now")
