"""One rig per gateway: the same handles on every processor, so that one suite can hold them all to the same behaviour."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from app import clock, db
from app.gateways import sandbox as sandbox_gateway
from app.gateways.sandbox import ProcessorDown, Sandbox, Session, sign
from app.gateways.stripe import Stripe
from app.sandbox_processor import CHOICES, PretendProcessor
from tests.fakes.stripe import Stripe as FakeStripe

Webhook = tuple[bytes, dict[str, str]]


class SandboxRig:
    """The pretend processor."""

    method = "sandbox-card"

    def __init__(self, processor: PretendProcessor) -> None:
        self.processor = processor
        self.gateway = Sandbox(processor)
        self._lose = False

    def close(self) -> None:
        """Nothing to stop."""

    def pay(self, reference: str, *, amount: int | None = None, currency: str | None = None) -> None:
        """The customer pays; other than asked, when the test says so."""
        self._reopen(reference)
        self.processor.choose(reference, CHOICES["approve"])
        self._patch(reference, received=amount, currency=currency)

    def pend(self, reference: str) -> None:
        """The customer is done; the money comes later."""
        self.processor.choose(reference, CHOICES["pending"])

    def fail(self, reference: str) -> None:
        """Declined."""
        self._reopen(reference)
        self.processor.choose(reference, CHOICES["decline-funds"])

    def expire(self, reference: str) -> None:
        """The page closes unpaid."""
        self.processor.choose(reference, CHOICES["late"])
        self._patch(reference, next_state=None)

    def sessions(self) -> int:
        """How many sessions its books hold."""
        return int(db.scalar("select count(*) from sandbox_sessions"))

    def webhooks(self) -> list[Webhook]:
        """Everything it would deliver, signed now, in the order it happened."""
        return [self.signed(bytes(row.body)) for row in db.rows("select body from sandbox_deliveries order by id")]

    def signed(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> Webhook:
        """A body as it would be delivered."""
        stamp = int(clock.now().timestamp() if at is None else at)
        return body, {sandbox_gateway.SIGNATURE_HEADER: sign(body, secret or self.processor.secret, stamp)}

    def foreign(self, body: bytes) -> Webhook:
        """The same event, of somebody else's account, rightly signed."""
        return self.signed(json.dumps(json.loads(body) | {"account": "acct_other", "id": "sbe_other"}).encode())

    def go_down(self) -> None:
        """No call reaches it from now on."""
        self.processor.down = True

    def come_back(self) -> None:
        """It answers again."""
        self.processor.down = False

    def lose_answer(self) -> None:
        """Do what the next call asks, and let nobody hear of it."""
        opening: Callable[[Any], Session] = self.processor.open

        def lost(charge: Any) -> Session:
            del self.processor.open  # type: ignore[method-assign]
            opening(charge)
            raise ProcessorDown("the answer was lost")

        self.processor.open = lost  # type: ignore[method-assign]

    def _reopen(self, reference: str) -> None:
        with db.transaction():
            db.execute("update sandbox_sessions set state = 'open', next_state = null, next_at = null, expires_at = %(later)s where reference = %(reference)s",
                       reference=reference, later=clock.now() + timedelta(hours=1))  # fmt: skip

    def _patch(self, reference: str, **columns: object) -> None:
        with db.transaction():
            for name, value in columns.items():
                if name == "next_state":
                    db.execute("update sandbox_sessions set next_state = null, next_at = null where reference = %(reference)s", reference=reference)
                    db.execute("delete from sandbox_deliveries where due_at > %(now)s", now=clock.now())
                elif value is not None:
                    db.execute(f"update sandbox_sessions set {name} = %(value)s where reference = %(reference)s", reference=reference, value=value)


class StripeRig:
    """The real SDK against a Stripe on the loopback."""

    method = "stripe-card"

    def __init__(self) -> None:
        self.fake = FakeStripe()
        self.gateway = Stripe(self.fake.secret_key, f"whsec_next,{self.fake.webhook_secret}", self.fake.url)

    def close(self) -> None:
        """Stop the fake."""
        self.fake.close()

    def pay(self, reference: str, *, amount: int | None = None, currency: str | None = None) -> None:
        """The customer pays; other than asked, when the test says so."""
        self.fake.pay(reference, amount=amount, currency=currency.lower() if currency else None)

    def pend(self, reference: str) -> None:
        """The customer is done; the money comes later."""
        self.fake.pend(reference)

    def fail(self, reference: str) -> None:
        """What was to come later does not come."""
        self.fake.fail(reference)

    def expire(self, reference: str) -> None:
        """The page closes unpaid."""
        self.fake.expire(reference)

    def sessions(self) -> int:
        """How many sessions its books hold."""
        return len(self.fake.sessions)

    def webhooks(self) -> list[Webhook]:
        """Everything it would deliver, signed now, in the order it happened."""
        return [self.fake.webhook(event) for event in self.fake.events]

    def signed(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> Webhook:
        """A body as it would be delivered."""
        return self.fake.webhook(json.loads(body), at=at, secret=secret)

    def foreign(self, body: bytes) -> Webhook:
        """The same event of live mode, while ours is a test key, rightly signed."""
        return self.fake.webhook(json.loads(body) | {"livemode": True, "id": "evt_other"})

    def go_down(self) -> None:
        """No call reaches it from now on."""
        self.fake.script += ["drop-before"] * 100

    def come_back(self) -> None:
        """It answers again."""
        self.fake.script.clear()

    def lose_answer(self) -> None:
        """Do what the next call asks, and let nobody hear of it, however often the SDK repeats it."""
        self.fake.script += ["drop-after", "drop-before", "drop-before"]
