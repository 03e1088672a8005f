"""Statements beside everything else that moves the same customers' money: nobody waits in a circle, and afterwards the books agree."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import Event

import psycopg
import pytest
from flask import Flask

from app import bank, clock, db, ledger, payments, refunds, wallet
from app.bank import FileRefused
from app.customers import User
from app.gateways.base import Snapshot
from app.money import Money
from app.payments import Payment
from app.refunds import RefundError
from tests.banks import ADVICE, SENDER, Transfer, camt
from tests.conftest import BERLIN, person
from tests.pay import begin, topup
from tests.test_bank import balance, take, whole

SAM, RITA = "staff:sam", "staff:rita"
_names = count()


def came(user: User, minor: int, reference: str) -> Transfer:
    return Transfer(minor, text=f"login {user.login}", end_to_end=reference, reference=reference)


def back(transfer: Transfer) -> Transfer:
    return replace(transfer, minor=-transfer.minor, family="RRTN", day="2026-11-21", reference="")


def advice(lines: list[Transfer]) -> bytes:
    return camt(lines, replace(ADVICE, id=str(next(_names))))


def payment_of(reference: str) -> str:
    return db.scalar("select p.public_id from bank_lines l join payments p on p.id = l.payment_id where l.end_to_end = %(name)s", name=reference)


@contextmanager
def beside(app: Flask, verb: Callable[[], object]) -> Iterator[Callable[[], object]]:
    """A verb in another thread; what is given waits for its end."""

    def act() -> object:
        with app.app_context():
            return verb()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(act).result


def test_a_return_waits_for_a_refund_of_the_same_customer_and_not_in_a_circle(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    """The import has credited the customer when it meets the return; a refund holds the payment by then and wants the customer's money."""
    assert demo_customer.customer_id
    first = came(demo_customer, 50_00, "E-1")
    take(advice([first]))
    public_id, credited, held = payment_of("E-1"), Event(), Event()
    take_in, hold = payments.take_in, wallet.hold

    def credit(arrivals):
        found = take_in(arrivals)
        credited.set()
        held.wait(10)
        return found

    def holding(*args, **how):
        held.set()
        return hold(*args, **how)

    monkeypatch.setattr(payments, "take_in", credit)
    monkeypatch.setattr(wallet, "hold", holding)

    def ask() -> object:
        credited.wait(10)
        try:
            return refunds.request(demo_customer.customer_id or 0, public_id, Money(20_00, "EUR"), "", iban=SENDER, holder="Anna")
        except RefundError as refused:
            return str(refused)

    with beside(app, ask) as result:
        report = take(advice([came(demo_customer, 30_00, "E-2"), back(first)]))
        assert result()
    assert (report.counts, balance(demo_customer)) == ({"matched": 1, "returned": 1}, 30_00)
    assert whole()


def test_the_first_money_of_an_account_by_transfer_and_its_next_order_wait_in_one_order(app: Flask, superuser: psycopg.Connection):
    nina = person("nina", name="Nina New", profile=replace(BERLIN, name="Nina New", currency=None))
    bill = topup(nina, Money.of("25", "EUR"))

    with beside(app, lambda: take(advice([Transfer(25_00, text=bill.payment_reference)]))) as result:
        with superuser.transaction():  # as whoever orders the same again
            superuser.execute("select 1 from customers where id = %s for no key update", (nina.customer_id,))
            while not superuser.execute("select 1 from pg_locks where not granted").fetchone():
                pass
            superuser.execute("select 1 from bills where id = %s for no key update nowait", (bill.id,))
        assert result().counts == {"matched": 1}
    assert balance(nina) == 25_00
    assert whole()


def test_a_try_gives_way_instead_of_waiting(app: Flask, demo_customer: User):
    take(advice([came(demo_customer, 50_00, "E-1")]))
    locked, done = Event(), Event()

    def keep() -> None:
        with db.transaction():
            wallet.hold_everything([demo_customer.customer_id or 0])
            locked.set()
            done.wait(10)

    with beside(app, keep) as result:
        locked.wait(10)
        with pytest.raises(FileRefused, match="Somebody is moving the same money"):
            take(advice([came(demo_customer, 30_00, "E-2")]), dry_run=True)
        done.set()
        result()
    assert take(advice([came(demo_customer, 30_00, "E-2")]), dry_run=True).counts == {"matched": 1}


class Crowd:
    """Statements with credits, returns and payouts, refunds on every step of their way, and top-ups by card, all of the same few customers."""

    def __init__(self, users: list[User], seed: int) -> None:
        self.users, self.rng = users, random.Random(seed)
        self.seed, self.told = seed, [came(user, 40_00, f"S{seed}-{place}-{user.login}") for place in range(8) for user in users]
        self.approved: list[str] = []

    def import_file(self) -> None:
        """New money of everybody, and some of what came before taken back or paid out."""
        fresh = [came(self.rng.choice(self.users), self.rng.randrange(1_00, 9_00), f"N{self.seed}-{next(_names)}") for _ in range(12)]
        taken = [back(self.told.pop(self.rng.randrange(len(self.told)))) for _ in range(min(4, len(self.told)))]
        paid = [Transfer(-5_00, end_to_end=self.approved.pop(), iban=SENDER, day="2026-11-21") for _ in range(min(2, len(self.approved)))]
        lines = [*fresh, *taken, *paid]
        self.rng.shuffle(lines)
        report = take(advice(lines))
        assert report.refused == []

    def refund(self) -> None:
        """Ask for a refund; two people approve it; it is paid by hand, declined, or left for a statement."""
        user = self.rng.choice(self.users)
        paid = db.rows("select public_id from payments where customer_id = %(id)s and state = 'paid' and gateway = 'bank' order by id", id=user.customer_id)
        number = refunds.request(user.customer_id or 0, self.rng.choice(paid).public_id, Money(5_00, "EUR"), "", iban=SENDER, holder="Anna")
        way = self.rng.randrange(4)
        if way == 0:
            refunds.decline(number, actor=SAM, answer="No")
            return
        refunds.approve(number, actor=SAM)
        refunds.approve(number, actor=RITA)
        if way == 1:
            refunds.mark_paid(number, reference="TX", actor=SAM)
            return
        if way == 2:
            bank.payouts.export("EUR")
        self.approved.append(number)

    def top_up(self) -> None:
        """A top-up by card that settles; it takes the next invoice number, as a statement does."""
        payment = begin(topup(self.rng.choice(self.users), Money(self.rng.randrange(5_00, 20_00), "EUR")))
        self.settle(payment)

    def settle(self, payment: Payment) -> None:
        payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=clock.now()))


@pytest.mark.parametrize("seed", range(2))
def test_statements_refunds_and_top_ups_of_the_same_customers_never_wait_in_a_circle(app: Flask, seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bank, "CHUNK", 6)
    monkeypatch.setattr(refunds.asking, "DAILY", 1_000)
    users = [person(f"anna{seed}{place}", profile=BERLIN) for place in range(3)]
    crowd = Crowd(users, seed)
    take(advice(crowd.told))
    verbs = [crowd.import_file, crowd.import_file, crowd.refund, crowd.refund, crowd.top_up, crowd.top_up]

    def act(verb: Callable[[], None]) -> list[str]:
        faults = []
        with app.app_context():
            for _ in range(6):
                try:
                    verb()
                except (RefundError, ledger.InsufficientFunds, psycopg.errors.LockNotAvailable):
                    continue  # a page gives up after four seconds; a circle is found after one
                except psycopg.errors.DeadlockDetected as circle:
                    faults.append(f"{verb.__name__}: {circle}")
        return faults

    with ThreadPoolExecutor(len(verbs)) as pool:
        faults = [fault for found in pool.map(act, verbs) for fault in found]
    assert faults == []
    assert [line.reason for line in bank.unmatched() if "could not be" in line.reason] == []
    assert whole()
    assert sum(balance(user) for user in users) >= 0
