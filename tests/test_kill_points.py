"""Killed outright: at every named point between a call and its commit, and at random under load. What is left is set right by the house's own verbs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from stripe import HTTPClient

import config
from app import bank, clock, db, invoicing, mail, payments, refunds, services, wallet
from app.customers import User
from app.invoicing import Draft, Line
from app.money import Money
from app.payments import Card
from tests.banks import Transfer, camt
from tests.conftest import BERLIN, person
from tests.doomed import KILLED, POINTS
from tests.gateways.rigs import SandboxRig
from tests.pay import again, begin, topup
from tests.processors import Rig, everywhere, ours, theirs
from tests.test_mail import Server, settings_with
from tests.trade import offer_plans

PROJECT = Path(__file__).parents[1]
KILLS = int(os.environ.get("KILLS", "20"))
SAM = "staff:sam"
EUR_25 = Money(25_00, "EUR")


@pytest.fixture
def rigs(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Rig]]:
    """Every processor, in the house."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    with everywhere(app) as found:
        yield found


@dataclass
class Victims:
    """The process that forks those who are to die."""

    process: "subprocess.Popen[str]"

    def fork(self, do: str, *words: object, point: str = "") -> int:
        """A child that does this; its process id."""
        return self._ask({"do": do, "words": words, "point": point})

    def end(self, pid: int) -> int:
        """How a child ended: its exit code, or minus the signal's number."""
        return self._ask({"do": "reap", "pid": pid})

    def die(self, point: str, do: str, *words: object) -> None:
        """Let a child do this and die at that point of it, which it must come to."""
        assert self.end(self.fork(do, *words, point=point)) == KILLED, point

    def _ask(self, order: dict[str, object]) -> int:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def victims(settings: config.Settings, rigs: dict[str, Rig]) -> Iterator[Victims]:
    """Ready to fork, with the processors' addresses."""
    stripe, paypal, btcpay, nowpayments = (rigs[name].fake for name in ("stripe", "paypal", "btcpay", "nowpayments"))
    told = {
        "settings": {"database_url": settings.database_url, "secret_key": settings.secret_key, "base_url": settings.base_url},
        "stripe": [stripe.secret_key, stripe.webhook_secret, stripe.url],
        "paypal": [paypal.client_id, paypal.secret, paypal.webhook_id, paypal.url, paypal.merchant_id],
        "btcpay": [btcpay.url, btcpay.store_id, btcpay.api_key, btcpay.secret],
        "nowpayments": [nowpayments.api_key, nowpayments.secret, "http://localhost/webhooks/nowpayments", nowpayments.url],
    }
    command = [sys.executable, "-m", "tests.doomed", json.dumps(told)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield Victims(process)
        process.kill()


def agree(rigs: dict[str, Rig]) -> None:
    """The processors' own books are ours, to the cent, and each payment has one page at most where the processor knows our keys.

    BTCPay and NOWPayments know none: a page may be left over there to which nobody is sent (decision 0085).
    """
    assert {name: theirs(rig) for name, rig in rigs.items()} == {name: ours(name) for name in rigs}
    assert db.scalar("select count(*) from (select payment_id from transfers where kind = 'topup' group by 1 having count(*) > 1) twice") == 0
    begun = {row.gateway: row.count for row in db.rows("select gateway, count(*) from payments group by 1")}
    assert {name: count for name in ("sandbox", "stripe", "paypal") if (count := rigs[name].sessions()) > begun.get(name, 0)} == {}


def test_killed_at_every_point_between_a_call_and_its_commit(app: Flask, rigs: dict[str, Rig], victims: Victims, settings: config.Settings, tmp_path: Path):
    left = set(POINTS)
    for number, point in enumerate(sorted(POINTS)):
        user = person(f"payer-{number}", profile=BERLIN)
        deeds = {"start": _start, "webhook": _hear, "capture": _capture, "charge": _charge, "renewal": _renew, "refund": _refund, "mail": _mail, "bank": _bank}
        deeds[point.partition(":")[0]](point, rigs, victims, user, settings, tmp_path)
        left.discard(point)
        agree(rigs)
    assert left == set()


def _start(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """The customer clicks once more, pays, and is credited once."""
    bill = topup(user, EUR_25)
    victims.die(point, "start", bill.customer_id, bill.proforma_number, "stripe-card")
    payment = begin(bill, "stripe-card")
    assert db.scalar("select count(*) from payments where bill_id = %(id)s", id=bill.id) == 1
    rigs["stripe"].pay(payment.gateway_reference or "")
    payments.reconcile_all()
    _credited(user, 25_00)


def _hear(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """The processor delivers again, or the job finds it in the inbox."""
    payment = begin(topup(user, EUR_25), "stripe-card")
    rigs["stripe"].pay(payment.gateway_reference or "")
    body, headers = rigs["stripe"].webhooks()[-1]
    victims.die(point, "hear", "stripe", body.decode(), headers)
    payments.receive("stripe", body, headers)
    payments.process_due()
    assert db.scalar("select count(*) from webhooks where state <> 'done'") == 0
    _credited(user, 25_00)


def _capture(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """What was captured is found captured."""
    payment = begin(topup(user, EUR_25), "paypal-paypal")
    rigs["paypal"].pay(payment.gateway_reference or "")
    victims.die(point, "look", payment.public_id)
    payments.reconcile_all()
    _credited(user, 25_00)


def _charge(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """The same click once more is the same charge."""
    card, bill = _saved(rigs, user), topup(user, Money(40_00, "EUR"))
    victims.die(point, "charge", bill.customer_id, bill.proforma_number, card.public_id)
    payments.pay_by_card(bill.customer_id, bill.proforma_number or "", card.public_id)
    payments.reconcile_all()
    _charged_once(rigs, bill.id, 40_00)
    _credited(user, 65_00)


def _renew(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """The next turn of the job goes on with the charge of the last one."""
    card = _saved(rigs, user)
    offer_plans()
    with clock.travel(clock.now() - timedelta(days=40)):
        services.order(user.customer_id or 0, "vps-4", 1)
    (service,) = services.of_customer(user.customer_id or 0)
    services.pay_from(user.customer_id or 0, service.public_id, card.public_id)
    services.renew_due()
    victims.die(point, "renew")
    payments.reconcile_all()
    for _ in (1, 2):
        services.renew_by_card()
        services.settle_waiting()
    (renewal,) = db.rows("select bill_id, transfer_id from renewals where service_id = %(id)s and period_start > %(end)s", id=service.id, end=service.paid_through)
    assert renewal.transfer_id is not None
    _charged_once(rigs, renewal.bill_id, 23_80)
    _credited(user, 1_20)


def _saved(rigs: dict[str, Rig], user: User) -> Card:
    """A card that was saved at Stripe with a payment of 25 EUR."""
    bill = topup(user, EUR_25)
    page = payments.start(bill.customer_id, bill.proforma_number or "", "stripe-card", keep=True)
    rigs["stripe"].pay(page.reference)
    payments.reconcile_all()
    (card,) = payments.cards.of_customer(user.customer_id or 0)
    return card


def _charged_once(rigs: dict[str, Rig], bill_id: int, minor: int) -> None:
    """One payment of ours and one charge at Stripe."""
    (payment,) = db.rows("select public_id, state from payments where bill_id = %(id)s", id=bill_id)
    intents = [intent for intent in rigs["stripe"].fake.intents.values() if intent["metadata"]["payment"] == payment.public_id]
    assert (payment.state, [intent["amount_received"] for intent in intents]) == ("paid", [minor])


def _refund(point: str, rigs: dict[str, Rig], victims: Victims, user: User, *_: object) -> None:
    """The next try of the job finds what was sent, or sends it."""
    payment = begin(topup(user, EUR_25), "stripe-card")
    rigs["stripe"].pay(payment.gateway_reference or "")
    payments.reconcile_all()
    number = refunds.request(user.customer_id or 0, payment.public_id, Money(10_00, "EUR"), "")
    refunds.approve(number, actor=SAM)
    victims.die(point, "refund", number)
    refunds.pay_out_due()
    assert again(payment).state == "partially_refunded"
    _credited(user, 15_00)


def _mail(point: str, rigs: dict[str, Rig], victims: Victims, user: User, settings: config.Settings, _: Path) -> None:
    """It is sent again when its lease is over, under the same name, so that a mailbox shows it once; and never less than once."""
    del rigs
    with db.transaction():
        db.execute("update mails set sent_at = %(now)s where sent_at is null", now=clock.now())
        mail.enqueue("notice", user.email, "Notice", "Text", key=f"notice-{point}")
    server = Server()
    url = f"smtp://127.0.0.1:{server.port}"
    try:
        victims.die(point, "mail", url)
        with settings_with(settings, mail_url=url), clock.travel(clock.now() + mail.LEASE * 2):
            assert mail.deliver() == 1
            assert mail.deliver() == 0
    finally:
        server.socket.shutdown(2)
        server.socket.close()
        server.thread.join()


def _bank(point: str, rigs: dict[str, Rig], victims: Victims, user: User, _: object, folder: Path) -> None:
    """The same file once more brings the rest, and nothing twice."""
    del rigs
    with db.transaction():
        bills = invoicing.issue_many(
            [Draft(user.customer_id or 0, "Account funds", "EUR", (Line("Account funds", 10_00 + user.id * 100 + place),), kind="topup") for place in range(12)]
        )
    file = folder / "statement.xml"
    file.write_bytes(camt([Transfer(bill.total, structured=bill.payment_reference or "", reference=f"{point[:9]}{bill.id}") for bill in bills]))
    victims.die(point, "import", str(file))
    before = wallet.state(user.customer_id or 0).available
    bank.import_file(file.read_bytes(), file.name)
    bank.import_file(file.read_bytes(), file.name)
    assert before < sum(bill.total for bill in bills)
    _credited(user, sum(bill.total for bill in bills))


def _credited(user: User, minor: int) -> None:
    assert wallet.state(user.customer_id or 0).available == minor


def test_killed_at_random_under_load_nothing_is_lost_and_nothing_is_doubled(app: Flask, rigs: dict[str, Rig], victims: Victims):
    """KILLS=100 in the environment for the whole of it."""
    rng, users = random.Random(9), [person(f"payer-{number}", profile=BERLIN) for number in range(KILLS)]
    bills = [topup(user, Money(25_00 + number, "EUR")) for number, user in enumerate(users) for _ in (0, 1)]
    bills = list({bill.id: bill for bill in [*bills, *(topup(user, Money(40_00 + number, "EUR")) for number, user in enumerate(users))]}.values())
    steady, events = victims.fork("work", 1), dict.fromkeys(rigs, 0)
    for seed in range(KILLS):
        victim = victims.fork("work", 100 + seed)
        deadline = time.monotonic() + rng.uniform(0.05, 0.35)
        while time.monotonic() < deadline:
            _live(rigs, events)
        os.kill(victim, signal.SIGKILL)
        assert victims.end(victim) == -signal.SIGKILL
    os.kill(steady, signal.SIGKILL)
    assert victims.end(steady) == -signal.SIGKILL
    for bill in bills:
        if db.scalar("select count(*) from payments where bill_id = %(id)s", id=bill.id) == 0 or any(payment.handoff_url is None for payment in payments.open_of(bill.id)):
            begin(bill, ("sandbox-card", "stripe-card", "paypal-paypal", "btcpay-crypto", "nowpayments-crypto")[bill.id % 5])
    for _ in range(2):
        _live(rigs, events)
        payments.reconcile_all()
        refunds.pay_out_due()
    refunds.reconcile(None)
    assert [tuple(row) for row in db.rows("select state, count(*) from payments where state not in ('paid', 'partially_refunded') group by 1")] == []
    assert db.scalar("select count(distinct bill_id) from transfers where kind = 'topup'") == len(bills) == 2 * KILLS
    assert db.rows("select number from refunds where state <> 'settled'") == []
    assert db.scalar("select count(*) from refunds") >= KILLS // 4
    agree(rigs)


def _live(rigs: dict[str, Rig], events: dict[str, int]) -> None:
    """The payers pay on every page that was opened, the processors tell of it, customers ask for money back and support agrees."""
    for row in db.rows("select id, gateway, gateway_reference as reference from payments where state = 'created' and handoff_url is not null order by id"):
        if not getattr(rigs[row.gateway], "paid", None):
            rigs[row.gateway].paid = set()
        if row.id not in rigs[row.gateway].paid:
            rigs[row.gateway].paid.add(row.id)
            rigs[row.gateway].pay(row.reference)
    for name, rig in rigs.items():
        told = [] if isinstance(rig, SandboxRig) else rig.fake.events[events[name] :]
        events[name] += len(told)
        for event in told:
            payments.receive(name, *rig.signed(json.dumps(event).encode()))
    for row in db.rows(_REFUNDABLE):
        refunds.approve(refunds.request(row.customer_id, row.public_id, Money(5_00, "EUR"), ""), actor=SAM)


_REFUNDABLE = """
select customer_id, public_id from payments p
where state = 'paid' and gateway in ('stripe', 'paypal', 'sandbox') and not exists (select from refunds r where r.payment_id = p.id) limit 2
"""
