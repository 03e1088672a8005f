"""One rig per gateway: the same handles on every processor, so that one suite can hold them all to the same behaviour."""

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from stripe import WebhookSignature

from app import clock, db
from app.gateways import sandbox as sandbox_gateway
from app.gateways.base import Redirect
from app.gateways.btcpay import BTCPay
from app.gateways.nowpayments import NOWPayments
from app.gateways.paypal import Certificates, PayPal
from app.gateways.sandbox import ProcessorDown, Sandbox, SentBack, Session, sign
from app.gateways.stripe_cards import StripeWithCards
from app.money import Money
from app.sandbox_processor import CHOICES, PretendProcessor
from tests.fakes.btcpay import BTCPay as FakeBTCPay
from tests.fakes.loopback import Sums, books
from tests.fakes.nowpayments import NOWPayments as FakeNOWPayments
from tests.fakes.paypal import PayPal as FakePayPal
from tests.fakes.paypal import authority
from tests.fakes.stripe import Stripe as FakeStripe

Webhook = tuple[bytes, dict[str, str]]


class Traits:
    """What differs between processors, so that the suite can hold each to its own promise."""

    label = "4242"
    decline = "insufficient_funds"
    tells_fee = True
    refunds = True
    tolerance_s: int | None = 300
    """How far a signed time may be off; None where nothing of time is signed."""
    known_before_paid = True
    """Whether a page nobody paid on yet can be looked up."""
    reason = "product not received"
    """What its disputes give as their reason."""

    def page(self, handoff: Redirect) -> object:
        """What must be the same when the same charge is asked for again."""
        return handoff

    fake: Any

    def raw(self, body: bytes) -> Webhook:
        """Any bytes under a right signature, as a processor with a fault of its own might send."""
        raise NotImplementedError

    def forget_keys(self) -> None:
        """So much time passes that the processor remembers none of our keys."""
        self.fake.forget_keys()

    def books(self) -> dict[str, Sums]:
        """What the processor holds for us, per currency, by its own books."""
        found: dict[str, Sums] = self.fake.books()
        return found


class SandboxRig(Traits):
    """The pretend processor."""

    method = "sandbox-card"

    def __init__(self, processor: PretendProcessor) -> None:
        self.processor = processor
        self.gateway = Sandbox(processor)
        self._lose = False

    def close(self) -> None:
        """As quick as it was."""
        self.processor.slow = False

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

    def opened(self, charge_id: str) -> str:
        """The reference its books have for a charge."""
        return str(db.scalar("select reference from sandbox_sessions where charge_id = %(id)s", id=charge_id))

    def raw(self, body: bytes) -> Webhook:
        """Any bytes, rightly signed."""
        return self.signed(body)

    def forget_keys(self) -> None:
        """It never does."""

    def books(self) -> dict[str, Sums]:
        """What the pretend processor holds for us, read from its own tables."""
        now = clock.now()
        paid = db.rows(_PAID, now=now)
        return books(
            received=[Money(row.received, row.currency) for row in paid],
            fees=[Money(row.received * 14 // 1000, row.currency) for row in paid if row.method == "card"],
            refunded=[Money(row.amount, row.currency) for row in db.rows(_SENT_BACK)],
            disputed=[Money(row.amount, row.currency) for row in db.rows(_CONTESTED)],
        )

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

    def slow(self) -> None:
        """Refunds stay on their way from now on."""
        self.processor.slow = True

    def move_refund(self, refund: str, *, settled: bool) -> None:
        """A refund settles, or fails, be it weeks later."""
        self.processor.move_refund(refund, "settled" if settled else "failed", "" if settled else "The card or account it came from cannot take money any more.")

    def refund_by_hand(self, reference: str, minor: int) -> None:
        """Somebody sends money back on the processor's own page."""
        self.processor.refund(reference, minor, f"by hand, {minor}")

    def dispute(self, reference: str, minor: int) -> str:
        """The payer's bank takes money back; the dispute's name."""
        return self.processor.dispute(reference, minor, self.reason) or ""

    def close_dispute(self, dispute: str, *, won: bool) -> None:
        """The bank decides."""
        self.processor.close_dispute(dispute, won=won)

    def lose_refund_answer(self) -> None:
        """Send the next refund, and let nobody hear of it."""
        sending = self.processor.refund

        def lost(reference: str, minor: int, key: str) -> SentBack:
            del self.processor.refund  # type: ignore[method-assign]
            sending(reference, minor, key)
            raise ProcessorDown("the answer was lost")

        self.processor.refund = lost  # type: ignore[method-assign]

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


_PAID = """
select received, currency, method from sandbox_sessions where case when next_at <= %(now)s then next_state else state end = 'paid'
"""
_SENT_BACK = "select r.amount, s.currency from sandbox_refunds r join sandbox_sessions s on s.reference = r.reference where r.state = 'settled'"
_CONTESTED = "select d.amount, s.currency from sandbox_disputes d join sandbox_sessions s on s.reference = d.reference where d.state <> 'won'"


class StripeRig(Traits):
    """The real SDK against a Stripe on the loopback."""

    method = "stripe-card"

    def __init__(self) -> None:
        self.fake = FakeStripe()
        self.gateway = StripeWithCards(self.fake.secret_key, f"whsec_next,{self.fake.webhook_secret}", self.fake.url)

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

    def opened(self, charge_id: str) -> str:
        """The reference its books have for a charge."""
        return next(session["id"] for session in self.fake.sessions.values() if session["client_reference_id"] == charge_id)

    def raw(self, body: bytes) -> Webhook:
        """Any bytes, rightly signed."""
        header = WebhookSignature.generate_signature_header(body.decode("utf-8", "replace"), self.fake.webhook_secret, int(clock.now().timestamp()))
        return body, {"stripe-signature": header}

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

    def slow(self) -> None:
        """Refunds stay on their way from now on."""
        self.fake.refund_status = "pending"

    def move_refund(self, refund: str, *, settled: bool) -> None:
        """A refund settles, or fails, be it weeks later."""
        self.fake.move_refund(refund, "succeeded" if settled else "failed", None if settled else "expired_or_canceled_card")

    def refund_by_hand(self, reference: str, minor: int) -> None:
        """Somebody sends money back in the dashboard."""
        self.fake.refund_by_hand(reference, minor)

    def dispute(self, reference: str, minor: int) -> str:
        """The payer's bank takes money back; the dispute's name."""
        return self.fake.dispute(reference, minor)

    def close_dispute(self, dispute: str, *, won: bool) -> None:
        """The bank decides."""
        self.fake.close_dispute(dispute, "won" if won else "lost")

    def answer_with(self, mode: str) -> None:
        """Every coming answer fails so."""
        self.fake.script += [mode] * 40

    def lose_refund_answer(self) -> None:
        """Send the next refund, and let nobody hear of it: the session is read first."""
        self.fake.script += ["", "drop-after", "drop-before", "drop-before"]


class LoopbackRig(Traits):
    """What the rigs of the gateways without an SDK share."""

    def close(self) -> None:
        """Stop the fake."""
        self.fake.close()

    def go_down(self) -> None:
        """No call reaches it from now on."""
        self.fake.script += ["drop-before"] * 100

    def come_back(self) -> None:
        """It answers again."""
        self.fake.script.clear()

    def answer_with(self, mode: str) -> None:
        """Every coming answer fails so."""
        self.fake.script += [mode] * 40


class PayPalRig(LoopbackRig):
    """Orders v2 against a PayPal on the loopback, its certificates by an authority of our own."""

    method = "paypal-paypal"
    label = "PayPal"
    reason = "merchandise or service not received"
    tolerance_s = 3 * 86400

    def __init__(self) -> None:
        self.fake = FakePayPal()
        self.certificates = Certificates(frozenset({"api.sandbox.paypal.com"}), lambda _: authority().chain, authority().roots)
        self.gateway = PayPal(self.fake.client_id, self.fake.secret, self.fake.webhook_id, self.fake.url, self.fake.merchant_id, self.certificates)

    def pay(self, reference: str, *, amount: int | None = None, currency: str | None = None) -> None:
        """The payer approves; whoever looks it up captures. Other than asked, when the test says so."""
        self.fake.approve(reference, amount=None if amount is None else f"{amount / 100:.2f}", currency=currency)

    def pend(self, reference: str) -> None:
        """The payer is done; the money comes later."""
        self.fake.approve(reference, "PENDING")

    def fail(self, reference: str) -> None:
        """Approved, and then the card behind it is declined."""
        self.fake.approve(reference, "INSTRUMENT_DECLINED")

    def expire(self, reference: str) -> None:
        """The order closes unpaid."""
        self.fake.void(reference)

    def sessions(self) -> int:
        """How many orders its books hold."""
        return len(self.fake.orders)

    def opened(self, charge_id: str) -> str:
        """The reference its books have for a charge."""
        return next(order["id"] for order in self.fake.orders.values() if order["purchase_units"][0]["custom_id"] == charge_id)

    def webhooks(self) -> list[Webhook]:
        """Everything it would deliver, signed now, in the order it happened."""
        return [self.signed(json.dumps(event).encode()) for event in list(self.fake.events)]

    def signed(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> Webhook:
        """A body as it would be delivered."""
        return self.fake.webhook(body, at=at, webhook_id=secret)

    raw = signed

    def foreign(self, body: bytes) -> Webhook:
        """The same event, of money that goes to somebody else."""
        event = json.loads(body)
        for part in (event["resource"], *event["resource"].get("purchase_units", [])):
            part["payee"] = {"merchant_id": "SOMEBODYELSE"}
        return self.signed(json.dumps(event).encode())

    def lose_answer(self) -> None:
        """Open the order, and let nobody hear of it."""
        self.fake.lose = "/v2/checkout/orders"

    def slow(self) -> None:
        """Refunds stay on their way from now on."""
        self.fake.refund_status = "PENDING"

    def move_refund(self, refund: str, *, settled: bool) -> None:
        """A refund settles, or fails, be it weeks later."""
        self.fake.move_refund(refund, "COMPLETED" if settled else "FAILED")

    def refund_by_hand(self, reference: str, minor: int) -> None:
        """Somebody sends money back on PayPal's own page."""
        self.fake.refund_by_hand(reference, f"{minor / 100:.2f}")

    def dispute(self, reference: str, minor: int) -> str:
        """The payer claims the money back; the dispute's name."""
        return self.fake.dispute(reference, f"{minor / 100:.2f}")

    def close_dispute(self, dispute: str, *, won: bool) -> None:
        """PayPal decides."""
        self.fake.resolve(dispute, "RESOLVED_SELLER_FAVOUR" if won else "RESOLVED_BUYER_FAVOUR")

    def lose_refund_answer(self) -> None:
        """Send the next refund, and let nobody hear of it."""
        (capture,) = self.fake.captures
        self.fake.lose = f"/v2/payments/captures/{capture}/refund"


class BTCPayRig(LoopbackRig):
    """Greenfield against a BTCPay Server on the loopback."""

    method = "btcpay-crypto"
    label = "Cryptocurrency, BTC"
    decline = "invalid"
    tells_fee = False
    refunds = False
    tolerance_s = None

    def __init__(self) -> None:
        self.fake = FakeBTCPay()
        self.gateway = BTCPay(self.fake.url, self.fake.store_id, self.fake.api_key, f"the-next-secret,{self.fake.secret}")

    def pay(self, reference: str, *, amount: int | None = None, currency: str | None = None) -> None:
        """Coins come, confirmed; worth something else than asked, when the test says so."""
        self.fake.forget(reference)
        invoice = self.fake.invoices[reference]
        invoice["currency"] = currency or invoice["currency"]
        self.fake.send(reference, invoice["amount"] if amount is None else f"{amount / 100:.2f}")
        if invoice["status"] == "New":
            self.fake.expire(reference)

    def pend(self, reference: str) -> None:
        """Coins are seen, not confirmed."""
        self.fake.forget(reference)
        self.fake.send(reference, self.fake.invoices[reference]["amount"], settled=False)

    def fail(self, reference: str) -> None:
        """The coins are never confirmed."""
        self.fake.forget(reference)
        self.fake.spoil(reference)

    def expire(self, reference: str) -> None:
        """Nobody paid."""
        self.fake.forget(reference)
        self.fake.expire(reference)

    def sessions(self) -> int:
        """How many invoices its books hold."""
        return len(self.fake.invoices)

    def opened(self, charge_id: str) -> str:
        """The reference its books have for a charge."""
        return next(invoice["id"] for invoice in self.fake.invoices.values() if invoice["metadata"]["orderId"] == charge_id)

    def webhooks(self) -> list[Webhook]:
        """Everything it would deliver, in the order it happened."""
        return [self.raw(json.dumps(event).encode()) for event in list(self.fake.events)]

    def signed(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> Webhook:
        """An event as it would be delivered, at a time inside its body."""
        event = json.loads(body)
        return self.fake.webhook(json.dumps(event | {"timestamp": int(clock.now().timestamp() if at is None else at)}).encode(), secret=secret)

    def raw(self, body: bytes) -> Webhook:
        """Any bytes, rightly signed."""
        return self.fake.webhook(body)

    def foreign(self, body: bytes) -> Webhook:
        """The same event, of another store."""
        return self.raw(json.dumps(json.loads(body) | {"storeId": "Store2", "originalDeliveryId": "another"}).encode())

    def lose_answer(self) -> None:
        """Make the invoice, and let nobody hear of it."""
        self.fake.lose = f"/api/v1/stores/{self.fake.store_id}/invoices"


class NOWPaymentsRig(LoopbackRig):
    """The custodial one against a NOWPayments on the loopback."""

    method = "nowpayments-crypto"
    label = "Cryptocurrency, BTC"
    decline = "failed"
    tells_fee = False
    refunds = False
    tolerance_s = None
    known_before_paid = False

    def __init__(self) -> None:
        self.fake = FakeNOWPayments()
        self.gateway = NOWPayments(self.fake.api_key, self.fake.secret, "http://localhost/webhooks/nowpayments", self.fake.url)

    def page(self, handoff: Redirect) -> object:
        """It has no idempotency: another page, of the same order."""
        return handoff.reference

    def pay(self, reference: str, *, amount: int | None = None, currency: str | None = None) -> None:
        """Finished; with another share of the coins, when the test says so."""
        price = next(one["price_amount"] for one in self.fake.invoices.values() if one["order_id"] == reference)
        self.fake.pay(reference, "finished", share=1 if amount is None else amount / 100 / price)
        if currency:
            for payment in self.fake.payments.values():
                payment["price_currency"] = currency.lower()

    def pend(self, reference: str) -> None:
        """Coins are seen, not confirmed."""
        self.fake.pay(reference, "confirming")

    def fail(self, reference: str) -> None:
        """It did not work out."""
        self.fake.pay(reference, "failed")

    def expire(self, reference: str) -> None:
        """Nobody sent anything."""
        self.fake.pay(reference, "expired")

    def sessions(self) -> int:
        """How many orders its books hold."""
        return len({invoice["order_id"] for invoice in self.fake.invoices.values()})

    def opened(self, charge_id: str) -> str:
        """The reference its books have for a charge."""
        return next(invoice["order_id"] for invoice in self.fake.invoices.values() if invoice["order_id"] == charge_id)

    def webhooks(self) -> list[Webhook]:
        """Everything it would deliver, in the order it happened."""
        return [self.fake.webhook(event) for event in list(self.fake.events)]

    def signed(self, body: bytes, *, secret: str | None = None) -> Webhook:
        """An event as it would be delivered."""
        return self.fake.webhook(json.loads(body), secret=secret)

    def raw(self, body: bytes) -> Webhook:
        """Bytes under the signature of themselves."""
        return body, {"x-nowpayments-sig": hmac.new(self.fake.secret.encode(), body, hashlib.sha512).hexdigest()}

    def foreign(self, body: bytes) -> Webhook:
        """The same event, of another account: its calls name none, so only the secret tells."""
        return self.signed(body, secret="of another account")

    def lose_answer(self) -> None:
        """Make the invoice, and let nobody hear of it."""
        self.fake.lose = "/v1/invoice"
