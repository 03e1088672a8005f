"""A pretend payment processor: another company, with its own books, its own hosted page and its own webhooks.

The house knows it only as it knows any processor: through its gateway, its signed webhooks and its page. It can do on demand what real
ones do now and then: decline, ask for 3-D Secure, settle later, settle after the page expired, tell twice, in the wrong order, or never.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import TypeVar
from urllib.request import Request, urlopen

from app import clock, db
from app.gateways.base import ASKED_FOR, Charge, KeptCard, Setup, State
from app.gateways.sandbox import SIGNATURE_HEADER, Contested, ProcessorDown, RefundRefused, SentBack, Session, sign
from app.languages import N_

log = logging.getLogger(__name__)

Entry = TypeVar("Entry", SentBack, Contested)

ACCOUNT = "acct_sandbox"
SETTLES_AFTER = timedelta(seconds=12)
"""How long the choices "later" and "late" take, so that a person can watch them."""
MOST_TRIES = 8

Send = Callable[[bytes, dict[str, str]], int]
"""Posts a body with headers to the merchant's webhook address and returns the HTTP status."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a visitor of the hosted page may let happen: the state now, the state a little later, and which webhooks tell it."""

    label: str
    state: str
    tells: tuple[str, ...]
    later: str | None = None
    code: str = ""
    message: str = ""
    received_share: int = 100


CHOICES = {
    "approve": Choice("Approve", "paid", ("paid",)),
    "decline-funds": Choice("Not enough money", "failed", ("failed",), code="insufficient_funds", message=N_("There is not enough money for this payment.")),
    "decline-card": Choice("Card expired", "failed", ("failed",), code="expired_card", message=N_("The card has expired.")),
    "decline-bank": Choice(
        "Refused by the bank", "failed", ("failed",), code="do_not_honor", message=N_("Your bank did not approve the payment and gave no reason. It can tell you more.")
    ),
    "decline-3ds": Choice("3-D Secure failed", "failed", ("failed",), code="authentication_failed", message=N_("The payment was not confirmed with your bank.")),
    "pending": Choice("Settle a little later", "pending", ("pending", "later:paid"), later="paid"),
    "late": Choice("Expire, then pay after all", "expired", ("expired", "later:paid"), later="paid"),
    "twice": Choice("Approve, tell it twice", "paid", ("paid", "again", "paid")),
    "disorder": Choice("Approve, tell it in the wrong order", "paid", ("paid", "pending")),
    "silent": Choice("Approve, tell nobody", "paid", ()),
    "short": Choice("Send less than asked", "paid", ("paid",), received_share=90),
}

_LABELS = {"card": "Visa •••• 4242", "paypal": "PayPal", "bank": "Online bank transfer", "crypto": "Bitcoin"}


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card a visitor may save and what its bank says when it is charged later: the `code` and `message` of a decline."""

    label: str
    brand: str
    last4: str
    code: str = ""
    message: str = ""


TEST_CARDS = {
    "good": TestCard("Visa 4242, always works", "visa", "4242"),
    "asks": TestCard("Mastercard 3184, its bank asks each time", "mastercard", "3184", ASKED_FOR, N_("The bank wants you to confirm this payment yourself.")),
    "empty": TestCard("Visa 0341, declined later", "visa", "0341", "insufficient_funds", N_("There is not enough money for this payment.")),
    "stolen": TestCard("Amex 9979, reported stolen later", "amex", "9979", "stolen_card", N_("This card cannot be charged any more.")),
}
CARD_YEARS = 5


class Vault:
    """The saved cards of the pretend processor."""

    def __init__(self, processor: "PretendProcessor") -> None:
        self._processor = processor

    def enrol(self, key: str) -> str:
        """The customer of this key: made of it, so always the same."""
        self._processor.answer()
        return f"sbcus_{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def open_setup(self, setup: Setup) -> Session:
        """The session in which a card is saved, made once."""
        self._processor.answer()
        columns: dict[str, object] = {"charge_id": setup.id, "method": "card", "title": "Save a card", "amount": None, "currency": None, "return_url": setup.return_url,
                   "cancel_url": setup.cancel_url, "expires_at": setup.expires_at, "holder": setup.holder, "keeps": True}  # fmt: skip
        return self._processor.open_with(columns, setup.id)

    def charge(self, charge: Charge) -> Session:
        """Charge a saved card, once per charge: its bank says yes, no, or that it wants to see the holder."""
        self._processor.answer()
        with db.transaction():
            db.execute(_OPEN, reference=f"sb_{secrets.token_hex(12)}", now=clock.now(), **_columns(charge))
            row = _held(charge.id)
            if row.state == "open":
                self._decide(row, db.row("select * from sandbox_cards where token = %(token)s and holder = %(holder)s", token=charge.card, holder=charge.holder))
        return self._processor.read(charge.id)

    def forget(self, token: str) -> None:
        """Delete a card."""
        self._processor.answer()
        with db.transaction():
            db.execute("update sandbox_cards set forgotten_at = %(now)s where token = %(token)s and forgotten_at is null", token=token, now=clock.now())

    def _decide(self, row: db.Row, card: db.Row | None) -> None:
        gone = card is None or card.forgotten_at is not None
        found = TEST_CARDS[card.kind] if card is not None and not gone else TestCard("", "", "", "card_gone", "This card cannot be charged any more.")
        label = f"{card.brand.title()} •••• {card.last4}" if card is not None else row.label
        paid = not found.code
        now = clock.now()
        db.execute(_CHOOSE, reference=row.reference, state="paid" if paid else "failed", next_state=None, next_at=None, received=row.amount if paid else None, label=label,
                   code=found.code, message=found.message, paid_at=now if paid else None)  # fmt: skip
        self._processor.tell(row.reference, ("paid" if paid else "failed",), now)


class PretendProcessor:
    """The processor's API, as its gateway calls it. `down` makes it unreachable, `slow` leaves refunds pending until somebody settles them."""

    account = ACCOUNT

    def __init__(self, secret_key: str, base_url: str) -> None:
        self.secret = hashlib.sha256(b"sandbox webhooks " + secret_key.encode()).hexdigest()
        self.webhook_url = f"{base_url}/webhooks/sandbox"
        self._page_url = f"{base_url}/sandbox/pay/"
        self.down = self.slow = False
        self._vault = Vault(self)

    @property
    def cards(self) -> Vault:
        """Its saved cards."""
        return self._vault

    def open(self, charge: Charge) -> Session:
        """The session of this charge, made once."""
        self._answer()
        return self.open_with(_columns(charge), charge.id)

    def open_with(self, columns: dict[str, object], charge_id: str) -> Session:
        """The session of these facts, made once."""
        with db.transaction():
            db.execute(_OPEN, reference=f"sb_{secrets.token_hex(12)}", now=clock.now(), **columns)
            row = db.row(_SESSION, reference=charge_id)
        return self._read(row)

    def read(self, charge_id: str) -> Session:
        """The session of a charge as it stands."""
        return self._read(db.rows(_SESSION, reference=charge_id)[0])

    def answer(self) -> None:
        """Raises ProcessorDown while it is switched off."""
        self._answer()

    def tell(self, reference: str, tells: tuple[str, ...], now: datetime) -> None:
        """Queue webhooks about a session. Within a transaction."""
        self._tell(reference, tells, now, now)

    def session(self, reference: str) -> Session | None:
        """A session by its reference or by the charge's id."""
        self._answer()
        row = db.row(_SESSION, reference=reference)
        return self._read(row) if row else None

    def refund(self, reference: str, minor: int, key: str) -> SentBack:
        """Send back once per key, never more than came, and nothing of a disputed payment."""
        self._answer()
        with db.transaction():
            session = _held(reference)
            known = _of(_refunds(session), key=key)
            if known:
                return known
            _refuse_refund(session, minor)
            refund, state = f"sbr_{secrets.token_hex(12)}", "pending" if self.slow else "settled"
            db.execute(_REFUND, key=key, reference=session.reference, refund=refund, amount=minor, state=state, at=clock.now())
            self._say(session.reference, f"refund.{state}")
        return SentBack(refund, key, minor, "pending" if self.slow else "settled", "")

    def move_refund(self, refund: str, state: str, failure: str = "") -> bool:
        """Let a refund settle, or fail, be it weeks later; whether that was possible."""
        with db.transaction():
            session = db.scalar(_MOVE_REFUND, refund=refund, state=state, failure=failure)
            if session:
                self._say(session, f"refund.{state}")
        return session is not None

    def inquire(self, reference: str, minor: int, reason: str) -> str | None:
        """The payer's bank only asks about money; the inquiry's reference, None where there is none to ask about. Raises RefundRefused for no session."""
        return self._contest(reference, minor, reason, "inquiry")

    def end_inquiry(self, dispute: str, *, takes: bool) -> bool:
        """The bank has its answer, or takes the money after all; whether it had asked."""
        with db.transaction():
            session = db.scalar(_END_INQUIRY, dispute=dispute, state="open" if takes else "closed")
            if session:
                self._say(session, "dispute.opened" if takes else "inquiry.closed")
        return session is not None

    def dispute(self, reference: str, minor: int, reason: str) -> str | None:
        """The payer's bank takes money back; the dispute's reference, None where there is none to take. Raises RefundRefused for no session."""
        return self._contest(reference, minor, reason, "open")

    def _contest(self, reference: str, minor: int, reason: str, state: str) -> str | None:
        with db.transaction():
            session = _held(reference)
            if _state_at(session, clock.now()) != "paid" or _of(_disputes(session), state="open") or not 0 < minor <= session.received:
                return None
            dispute = f"sbd_{secrets.token_hex(12)}"
            db.execute(_DISPUTE, dispute=dispute, reference=session.reference, amount=minor, reason=reason, state=state, at=clock.now())
            self._say(session.reference, "dispute.opened" if state == "open" else "inquiry.opened")
        return dispute

    def close_dispute(self, dispute: str, *, won: bool) -> bool:
        """The bank decides, for the shop or for the payer; whether there was something to decide."""
        with db.transaction():
            session = db.scalar(_CLOSE_DISPUTE, dispute=dispute, state="won" if won else "lost")
            if session:
                self._say(session, f"dispute.{'won' if won else 'lost'}")
        return session is not None

    def choose(self, reference: str, choice: Choice, card: str = "good") -> None:
        """Let this happen to an open session; nothing for one that is not open any more. `card` names the test card where one is to be saved."""
        now = clock.now()
        later = now + SETTLES_AFTER
        with db.transaction():
            row = db.row(_SESSION + " for update", reference=reference)
            if row is None or _state_at(row, now) != "open":
                return
            saved = _save(row, TEST_CARDS[card]) if row.keeps and choice.state != "failed" else None
            db.execute(
                _CHOOSE,
                reference=row.reference,
                state=choice.state,
                next_state=choice.later,
                next_at=later if choice.later else None,
                received=None if row.amount is None else row.amount * choice.received_share // 100,
                label=f"{saved.brand.title()} •••• {saved.last4}" if saved else _LABELS.get(row.method, row.method),
                code=choice.code,
                message=choice.message,
                paid_at=now if choice.state == "paid" else None,
            )
            self._tell(row.reference, choice.tells, now, later)

    def close(self, reference: str) -> None:
        """Close an open session, as a merchant may ask for. Raises ProcessorDown."""
        self._answer()
        self.choose(reference, Choice("Closed by the merchant", "expired", ("expired",)))

    def deliver(self, send: Send | None = None) -> int:
        """Send the webhooks that are due, oldest first; one that is not answered with 2xx is tried again, later each time."""
        delivered = 0
        for row in db.rows(_DUE, now=clock.now(), most=MOST_TRIES):
            delivered += self._attempt(row, send or self._post)
        return delivered

    def _answer(self) -> None:
        if self.down:
            raise ProcessorDown("the pretend processor is switched off")

    def _tell(self, reference: str, tells: tuple[str, ...], now: datetime, later: datetime) -> None:
        queued: list[dict[str, object]] = []
        for tell in tells:
            if tell == "again":
                queued.append(queued[-1])
                continue
            at = later if tell.startswith("later:") else now
            event_id = f"sbe_{secrets.token_hex(12)}"
            body = {"id": event_id, "type": f"payment.{tell.removeprefix('later:')}", "created": int(at.timestamp()), "account": ACCOUNT, "reference": reference}
            queued.append({"event_id": event_id, "body": json.dumps(body).encode(), "due_at": at})
        db.many(_QUEUE, queued)

    def _say(self, reference: str, kind: str) -> None:
        """Queue a webhook about something that happened to a session after it was paid."""
        now = clock.now()
        event_id = f"sbe_{secrets.token_hex(12)}"
        body = json.dumps({"id": event_id, "type": kind, "created": int(now.timestamp()), "account": ACCOUNT, "reference": reference})
        db.execute(_QUEUE, event_id=event_id, body=body.encode(), due_at=now)

    def _attempt(self, row: db.Row, send: Send) -> bool:
        body, now = bytes(row.body), clock.now()
        answer, delivered = "no answer", False
        try:
            status = send(body, {SIGNATURE_HEADER: sign(body, self.secret, int(now.timestamp())), "content-type": "application/json"})
            answer, delivered = str(status), 200 <= status < 300
        except (OSError, HTTPException) as error:
            answer = repr(error)
            log.warning("The sandbox could not deliver %s: %s", row.event_id, answer)
        with db.transaction():
            next_at = now + timedelta(seconds=2 ** (row.tries + 2))
            db.execute(_DELIVERED, id=row.id, at=now if delivered else None, due_at=row.due_at if delivered else next_at, answer=answer[:200])
        return delivered

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        request = Request(self.webhook_url, data=body, headers=headers, method="POST")  # noqa: S310 - our own BASE_URL
        with urlopen(request, timeout=5) as response:  # noqa: S310
            return int(response.status)

    def _read(self, row: db.Row) -> Session:
        state = _state_at(row, clock.now())
        paid = state == "paid"
        if paid and row.amount is None:
            state, paid = "kept", False
        return Session(
            row.reference,
            row.charge_id,
            f"{self._page_url}{row.reference}",
            state,
            row.received if paid else None,
            row.currency,
            row.received * 14 // 1000 if paid and row.method == "card" else None,
            ACCOUNT,
            row.label,
            row.failure_code,
            row.failure_message,
            (row.paid_at or row.next_at) if paid else None,
            _refunds(row),
            _disputes(row),
            _kept(row) if row.keeps and row.card and state in {"paid", "kept"} else None,
        )


def _save(row: db.Row, card: TestCard) -> TestCard:
    """Save a test card for a session's customer. Within a transaction."""
    token = f"sbpm_{secrets.token_hex(12)}"
    kind = next(kind for kind, known in TEST_CARDS.items() if known is card)
    db.execute("insert into sandbox_cards (token, holder, brand, last4, kind) values (%(token)s, %(holder)s, %(brand)s, %(last4)s, %(kind)s)",
               token=token, holder=row.holder, brand=card.brand, last4=card.last4, kind=kind)  # fmt: skip
    db.execute("update sandbox_sessions set card = %(token)s where reference = %(reference)s", token=token, reference=row.reference)
    return card


def _kept(row: db.Row) -> KeptCard:
    brand, last4 = row.kept_card
    return KeptCard(row.holder, row.card, brand, last4, 12, row.opened_at.year + CARD_YEARS, f"{brand}-{last4}")


@dataclass(frozen=True, slots=True)
class After:
    """What has happened to a session since it was paid, and whether it can be disputed now."""

    refunds: tuple[SentBack, ...]
    disputes: tuple[Contested, ...]
    disputable: bool


def after(session: db.Row) -> After:
    """What the hosted page shows of a session's refunds and disputes."""
    settled = _state_at(session, clock.now()) == "paid"
    return After(_refunds(session), _disputes(session), settled and not _disputes(session))


def hosted(reference: str) -> db.Row | None:
    """What the hosted page shows of a session, or None."""
    return db.row(_SESSION, reference=reference)


def _held(reference: str) -> db.Row:
    """A session until the transaction ends, read after the wait for it. Raises RefundRefused for one that is not there."""
    db.rows("select 1 from sandbox_sessions where reference = %(reference)s for update", reference=reference)
    session = db.row(_SESSION, reference=reference)
    if session is None:
        raise RefundRefused(N_("There is no such payment."))
    return session


def _refunds(row: db.Row) -> tuple[SentBack, ...]:
    return tuple(SentBack(*fields) for fields in row.refunds or ())


def _disputes(row: db.Row) -> tuple[Contested, ...]:
    return tuple(Contested(*fields) for fields in row.disputes or ())


def _of(entries: Sequence[Entry], **wanted: str) -> Entry | None:
    return next((entry for entry in entries if all(getattr(entry, name) == value for name, value in wanted.items())), None)


def _refuse_refund(session: db.Row, minor: int) -> None:
    if _of(_disputes(session), state="open") or _of(_disputes(session), state="lost"):
        raise RefundRefused(N_("The payment is disputed with its bank, so it cannot go back twice."))
    sent = sum(refund.amount for refund in _refunds(session) if refund.state != "failed")
    if _state_at(session, clock.now()) != "paid" or sent + minor > session.received:
        raise RefundRefused(N_("This is more than is left of the payment."))


def _state_at(row: db.Row, now: datetime) -> State:
    settled = row.next_at is not None and row.next_at <= now
    state: State = row.next_state if settled else row.state
    return "expired" if state == "open" and row.expires_at <= now else state


def _columns(charge: Charge) -> dict[str, object]:
    return {
        "charge_id": charge.id,
        "method": charge.method,
        "title": charge.description,
        "amount": charge.amount.minor,
        "currency": charge.amount.currency,
        "return_url": charge.return_url,
        "cancel_url": charge.cancel_url,
        "expires_at": charge.expires_at,
        "holder": charge.holder,
        "keeps": charge.keep,
    }


_SESSION = """
select s.*, (select jsonb_build_array(c.brand, c.last4) from sandbox_cards c where c.token = s.card) as kept_card,
  (select jsonb_agg(jsonb_build_array(r.refund, r.key, r.amount, r.state, r.failure) order by r.at, r.refund) from sandbox_refunds r where r.reference = s.reference) as refunds,
  (select jsonb_agg(jsonb_build_array(d.dispute, d.amount, d.state, d.reason) order by d.at, d.dispute) from sandbox_disputes d where d.reference = s.reference) as disputes
from sandbox_sessions s where %(reference)s in (s.reference, s.charge_id)"""

_OPEN = """
insert into sandbox_sessions (reference, charge_id, method, title, amount, currency, return_url, cancel_url, opened_at, expires_at, holder, keeps)
values (%(reference)s, %(charge_id)s, %(method)s, %(title)s, %(amount)s, %(currency)s, %(return_url)s, %(cancel_url)s, %(now)s, %(expires_at)s, %(holder)s, %(keeps)s)
on conflict (charge_id) do nothing
"""

_CHOOSE = """
update sandbox_sessions set state = %(state)s, next_state = %(next_state)s, next_at = %(next_at)s, received = %(received)s, label = %(label)s,
  failure_code = %(code)s, failure_message = %(message)s, paid_at = %(paid_at)s
where reference = %(reference)s
"""

_DUE = """
select id, event_id, body, due_at, tries from sandbox_deliveries
where delivered_at is null and due_at <= %(now)s and tries < %(most)s order by due_at, id limit 200
"""

_DELIVERED = "update sandbox_deliveries set tries = tries + 1, delivered_at = %(at)s, due_at = %(due_at)s, answer = %(answer)s where id = %(id)s"

_REFUND = """
insert into sandbox_refunds (key, reference, refund, amount, state, at) values (%(key)s, %(reference)s, %(refund)s, %(amount)s, %(state)s, %(at)s)
"""

_MOVE_REFUND = """
update sandbox_refunds set state = %(state)s, failure = %(failure)s
where refund = %(refund)s and (state = 'pending' or state = 'settled' and %(state)s = 'failed') returning reference
"""

_DISPUTE = """
insert into sandbox_disputes (dispute, reference, amount, reason, state, at) values (%(dispute)s, %(reference)s, %(amount)s, %(reason)s, %(state)s, %(at)s)
"""
_END_INQUIRY = "update sandbox_disputes set state = %(state)s where dispute = %(dispute)s and state = 'inquiry' returning reference"

_CLOSE_DISPUTE = "update sandbox_disputes set state = %(state)s where dispute = %(dispute)s and state = 'open' returning reference"

_QUEUE = "insert into sandbox_deliveries (event_id, body, due_at) values (%(event_id)s, %(body)s, %(due_at)s)"
