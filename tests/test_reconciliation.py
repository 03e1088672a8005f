"""Webhooks that never come: what is true at the processors is found by asking, in two runs of the operator's command, to the cent."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from flask import Flask
from stripe import HTTPClient

from app import clock, db, payments, refunds
from app.customers import User
from app.gateways.base import GatewayError
from app.money import Money
from app.payments import Payment, ProcessorDown
from tests.conftest import BERLIN, person
from tests.gateways.rigs import BTCPayRig, PayPalRig, SandboxRig, Webhook
from tests.pay import begin, publish_rates, topup
from tests.processors import Rig, Time, everywhere, ours, theirs

EXACT = ("sandbox", "stripe", "paypal")
OUTAGE = timedelta(hours=6)
SAM = "staff:sam"
PAID = ("whole", "waits", "declined", "left", "late", "unheard")
BY_COINS = ("part", "grows")
AFTER = ("refund_settles", "refund_fails", "refund_fails_late", "refund_unheard", "by_hand", "disputed", "dispute_won", "dispute_lost")


@pytest.fixture
def rigs(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Rig]]:
    """Every processor, in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    with everywhere(app) as found:
        yield found


@dataclass
class Life:
    """Customers, five processors and a postman who loses letters, on one clock. Nobody comes back to a page of ours, and no job runs."""

    app: Flask
    rigs: dict[str, Rig]
    lost: float
    began: datetime = field(default_factory=clock.now)
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    agenda: list[tuple[timedelta, Callable[[], None]]] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, int] = field(default_factory=dict)

    def live(self) -> None:
        """Everything on the agenda, in its order, the postman after each."""
        time = Time(self.rigs)
        while self.agenda:
            self.agenda.sort(key=lambda entry: entry[0])
            after, do = self.agenda.pop(0)
            with time.at(self.began + after):
                do()
                self.carry(0.0 if after < timedelta() else self.lost)
        self.time = time

    def carry(self, lost: float) -> None:
        """Deliver what has happened since, but for what is lost."""
        browser = self.app.test_client()
        for name, rig in self.rigs.items():
            for webhook in self.news(name, rig):
                if self.rng.random() >= lost:
                    body, headers = webhook
                    assert browser.post(f"/webhooks/{name}", data=body, headers=headers).status_code == 200
        payments.process_due()

    def news(self, name: str, rig: Rig) -> list[Webhook]:
        """The events nobody has tried to deliver yet."""
        seen = self.delivered.get(name, 0)
        if isinstance(rig, SandboxRig):
            rows = db.rows("select id, body from sandbox_deliveries where id > %(seen)s order by id", seen=seen)
            self.delivered[name] = max((row.id for row in rows), default=seen)
            return [rig.signed(bytes(row.body)) for row in rows]
        self.delivered[name] = len(rig.fake.events)
        return [rig.signed(json.dumps(event).encode()) for event in rig.fake.events[seen:]]

    def reconcile(self) -> list[str]:
        """The operator's command, after the outage; what it says has changed."""
        with self.time.at(self.began + OUTAGE + timedelta(minutes=3)):
            told = self.app.test_cli_runner().invoke(args=["payments", "reconcile"])
        assert told.exit_code == 0, told.output
        return [line for line in told.output.splitlines() if "→" in line]

    # What people do

    def soon(self, after: timedelta, do: Callable[[], object]) -> None:
        """Let this happen then."""
        self.agenda.append((after, lambda: (do(), None)[1]))

    def start(self, rig: Rig, after: timedelta, fate: str) -> None:
        """A customer orders a top-up and goes to the processor's page; the rest is fate."""
        currency, minor = self.rng.choice((("EUR", 2000), ("USD", 3000))), self.rng.randrange(5000)

        def do() -> None:
            user = person(f"payer-{len(self.ends)}", profile=BERLIN)
            bill = topup(user, Money(currency[1] + minor, currency[0]))
            if fate == "unheard":
                rig.lose_answer()
                with pytest.raises(ProcessorDown):
                    begin(bill, rig.method)
                (payment,) = payments.open_of(bill.id)
            else:
                payment = begin(bill, rig.method)
            self.ends[payment.public_id] = getattr(self, fate)(rig, payment, after, user) or "paid"

        self.soon(after, do)

    def whole(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> None:
        """Paid at once."""
        self.soon(after + timedelta(minutes=4), lambda: rig.pay(payment.gateway_reference or ""))

    def waits(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> None:
        """Pending for a while, then paid."""
        self.soon(after + timedelta(minutes=2), lambda: rig.pend(payment.gateway_reference or ""))
        if not isinstance(rig, SandboxRig):  # which settles by itself
            self.soon(after + timedelta(minutes=50), lambda: rig.pay(payment.gateway_reference or ""))

    def declined(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """No money."""
        self.soon(after + timedelta(minutes=3), lambda: rig.fail(payment.gateway_reference or ""))
        return "failed"

    def left(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """Nobody ever pays."""
        self.soon(after + timedelta(minutes=61), lambda: rig.expire(payment.gateway_reference or ""))
        return "expired"

    def late(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> None:
        """Paid when the page had closed."""
        self.soon(after + timedelta(minutes=61), lambda: rig.expire(payment.gateway_reference or ""))
        if isinstance(rig, BTCPayRig):
            reference = payment.gateway_reference or ""
            self.soon(after + timedelta(minutes=70), lambda: rig.fake.send(reference, rig.fake.invoices[reference]["amount"], late=True))
        else:
            self.soon(after + timedelta(minutes=70), lambda: rig.pay(payment.gateway_reference or ""))

    def unheard(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """Its page was opened and nobody was sent there."""
        self.soon(after + timedelta(minutes=61), lambda: rig.expire(rig.opened(payment.public_id)))
        return "expired"

    def part(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> None:
        """Less than was asked for, where the payer decides."""
        self.soon(after + timedelta(minutes=4), lambda: rig.pay(payment.gateway_reference or "", amount=payment.amount // 3))

    def grows(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> None:
        """More than once."""
        self.soon(after + timedelta(minutes=4), lambda: rig.pay(payment.gateway_reference or "", amount=1700))
        self.soon(after + timedelta(minutes=30), lambda: rig.pay(payment.gateway_reference or "", amount=1900))

    # What happens to a payment that was credited long before

    def refund_settles(self, rig: Rig, payment: Payment, after: timedelta, user: User) -> str:
        """Ours, on its way for an hour."""
        self.pay(rig, payment, after)
        self.send_back(rig, payment, user, lambda refund: self.soon(timedelta(hours=3), lambda: rig.move_refund(refund, settled=True)))
        return "partially_refunded"

    def refund_fails(self, rig: Rig, payment: Payment, after: timedelta, user: User) -> str:
        """Ours, and it cannot be sent."""
        self.pay(rig, payment, after)
        self.send_back(rig, payment, user, lambda refund: self.soon(timedelta(hours=3), lambda: rig.move_refund(refund, settled=False)))
        return "paid"

    def refund_fails_late(self, rig: Rig, payment: Payment, after: timedelta, user: User) -> str:
        """Ours; it settled, and comes back."""
        self.pay(rig, payment, after)

        def then(refund: str) -> None:
            self.soon(timedelta(hours=-3), lambda: rig.move_refund(refund, settled=True))
            self.soon(timedelta(hours=4), lambda: rig.move_refund(refund, settled=False))

        self.send_back(rig, payment, user, then, at=timedelta(hours=-5))
        return "paid"

    def refund_unheard(self, rig: Rig, payment: Payment, after: timedelta, user: User) -> str:
        """Ours; it was sent, and the answer was lost."""
        self.pay(rig, payment, after)

        def send() -> None:
            number = refunds.request(user.customer_id or 0, payment.public_id, Money(10_00, "EUR"), "")
            refunds.approve(number, actor=SAM)
            lose_refund_answer(rig, payment.gateway_reference or "")
            with pytest.raises(GatewayError):
                refunds.pay_out(number)
            self.soon(timedelta(hours=3), lambda: rig.move_refund(sent(rig, number), settled=True))

        self.soon(timedelta(hours=2), send)
        return "partially_refunded"

    def by_hand(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """Somebody sends money back on the processor's own page."""
        self.pay(rig, payment, after)

        def send() -> None:
            rig.refund_by_hand(payment.gateway_reference or "", 7_77)
            if (found := rig.gateway.lookup(payment.gateway_reference or "")) and found.refunds[0].state == "pending":
                rig.move_refund(found.refunds[0].reference, settled=True)

        self.soon(timedelta(hours=2), send)
        return "partially_refunded"

    def disputed(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """The payer's bank takes it back."""
        self.pay(rig, payment, after)
        self.soon(timedelta(hours=2), lambda: rig.dispute(payment.gateway_reference or "", payment.amount))
        return "disputed"

    def dispute_won(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """Taken back before, and given back meanwhile."""
        self.pay(rig, payment, after)
        self.soon(timedelta(hours=-2), lambda: self.decide(rig, payment, won=True))
        return "paid"

    def dispute_lost(self, rig: Rig, payment: Payment, after: timedelta, _: User) -> str:
        """Taken back in part, and decided, all of it unheard."""
        self.pay(rig, payment, after)
        self.soon(timedelta(hours=1), lambda: self.decide(rig, payment, won=False))
        return "disputed"

    def pay(self, rig: Rig, payment: Payment, after: timedelta) -> None:
        """The payment itself, and its webhooks, long before."""
        self.soon(after + timedelta(minutes=4), lambda: rig.pay(payment.gateway_reference or ""))

    def decide(self, rig: Rig, payment: Payment, *, won: bool) -> None:
        """Open a dispute, which is decided three hours later."""
        name = rig.dispute(payment.gateway_reference or "", payment.amount if won else 9_99)
        self.soon((clock.now() - self.began) + timedelta(hours=3), lambda: rig.close_dispute(name, won=won))

    def send_back(self, rig: Rig, payment: Payment, user: User, then: Callable[[str], None], at: timedelta = timedelta(hours=2)) -> None:
        """A refund of ours, asked for, approved and handed to the processor."""

        def send() -> None:
            number = refunds.request(user.customer_id or 0, payment.public_id, Money(10_00, "EUR"), "")
            refunds.approve(number, actor=SAM)
            assert refunds.pay_out(number) == "sent"
            then(sent(rig, number))

        self.soon(at, send)


def lose_refund_answer(rig: Rig, reference: str) -> None:
    """Let the next refund of this payment be sent, and nobody hear of it."""
    if isinstance(rig, PayPalRig):
        (capture,) = rig.fake.orders[reference]["purchase_units"][0]["payments"]["captures"]
        rig.fake.lose = f"/v2/payments/captures/{capture['id']}/refund"
    else:
        rig.lose_refund_answer()


def sent(rig: Rig, number: str) -> str:
    """What a processor calls a refund of ours."""
    row = db.row("select p.gateway_reference from refunds r join payments p on p.id = r.payment_id where r.number = %(number)s", number=number)
    found = rig.gateway.lookup(row.gateway_reference)
    assert found
    return next(refund.reference for refund in found.refunds if refund.key == f"refund:{number}")


@pytest.mark.parametrize("lost", [0.3, 1.0], ids=["three of ten", "all for six hours"])
def test_whatever_webhooks_are_lost_two_runs_of_the_command_find_everything(app: Flask, rigs: dict[str, Rig], lost: float):
    life = Life(app, rigs, lost)
    for day in (timedelta(hours=-20), timedelta()):
        with clock.travel(life.began + day):
            publish_rates()
    for rig in rigs.values():
        if rig.refunds:
            rig.slow()
        for number, fate in enumerate(AFTER if rig.refunds else ()):
            life.start(rig, timedelta(hours=-20, minutes=number), fate)
        for number, fate in enumerate(PAID if rig.refunds else PAID + BY_COINS):
            life.start(rig, timedelta(minutes=15 + 34 * number), fate)
    life.live()
    before = states()
    changed = life.reconcile()
    assert changed, "there was something to find"
    life.reconcile()
    found = states()
    moved = db.scalar("select count(*) from transfers")
    assert life.reconcile() == []
    assert db.scalar("select count(*) from transfers") == moved
    assert before != found
    assert {name: state for name, state in found.items() if state != life.ends[name]} == {}
    assert db.rows("select id from refunds where state in ('approved', 'sent')") == []
    with life.time.at(life.began + OUTAGE):
        assert {name: theirs(rig) for name, rig in rigs.items()} == {name: ours(name) for name in rigs}


def test_answers_lost_after_the_effect_double_nothing(app: Flask, rigs: dict[str, Rig]):
    """Every fifth page, capture and refund is made, and its answer never comes; half of the payers try again."""
    time, began, made = Time(rigs), clock.now(), dict.fromkeys(rigs, 0)
    for name, rig in rigs.items():
        for turn in range(10):
            payment = _begun(rig, person(f"{name}-{turn}", profile=BERLIN), lose=turn % 5 == 0, again=turn == 0)
            made[name] += 1
            if payment.gateway_reference:
                rig.pay(payment.gateway_reference)
                if isinstance(rig, PayPalRig) and turn % 5 == 1:
                    rig.fake.lose = f"/v2/checkout/orders/{payment.gateway_reference}/capture"
                    assert not payments.look_at(payment.public_id)
            elif payment.state == "unknown":
                with time.at(began + timedelta(minutes=61)):
                    rig.expire(rig.opened(payment.public_id))
    for _ in range(2):
        with time.at(began + timedelta(hours=2)):
            app.test_cli_runner().invoke(args=["payments", "reconcile"])
    assert {row.state: row.count for row in db.rows("select state, count(*) from payments group by 1")} == {"paid": 45, "expired": 5}
    asked = 0
    for row in db.rows("select public_id, customer_id, gateway, gateway_reference from payments where state = 'paid' and gateway = any(%(known)s)", known=list(EXACT)):
        number = refunds.request(row.customer_id, row.public_id, Money(10_00, "EUR"), "")
        refunds.approve(number, actor=SAM)
        asked += 1
        if asked % 5 == 0:
            lose_refund_answer(rigs[row.gateway], row.gateway_reference)
            with pytest.raises(GatewayError):
                refunds.pay_out(number)
    with time.at(began + timedelta(hours=3)):
        app.test_cli_runner().invoke(args=["payments", "reconcile"])
        assert db.scalar("select count(*) from refunds where state = 'settled'") == asked // 5
        assert refunds.pay_out_due() == asked - asked // 5
        assert {name: rigs[name].books()["EUR"].refunded for name in EXACT} == dict.fromkeys(EXACT, asked // 3 * 10_00)
        assert {name: rig.sessions() for name, rig in rigs.items()} == made
        assert {name: theirs(rig) for name, rig in rigs.items()} == {name: ours(name) for name in rigs}


def _begun(rig: Rig, user: User, *, lose: bool, again: bool) -> Payment:
    """A payment whose page was opened; with `lose` nobody heard of it, and the payer tried again or not."""
    bill = topup(user, Money(25_00, "EUR"))
    if not lose:
        return begin(bill, rig.method)
    rig.lose_answer()
    with pytest.raises(ProcessorDown):
        begin(bill, rig.method)
    return begin(bill, rig.method) if again else payments.open_of(bill.id)[0]


def states() -> dict[str, str]:
    """How every payment stands."""
    return {row.public_id: row.state for row in db.rows("select public_id, state from payments")}
