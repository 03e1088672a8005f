"""Every verb that moves money, all at once on the same few customers: nobody waits for ever, and afterwards the books agree."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from flask import Flask

from app import clock, customers, db, invoicing, ledger, mail, payments, refunds, services, wallet
from app.customers import User
from app.gateways.base import Snapshot
from app.invoicing import BillError, Line
from app.ledger import InsufficientFunds, LedgerError
from app.money import Money
from app.payments import NotPayable, Payment, ProcessorDown
from app.services import ServiceError
from tests.conftest import BERLIN, person
from tests.pay import begin, topup
from tests.trade import fund, offer_plans

REFUSED = (InsufficientFunds, LedgerError, BillError, NotPayable, ProcessorDown, ServiceError)
"""What a verb may say when another one was first. Anything else, a deadlock above all, fails the test."""

DRIFT = """
select a.id, a.kind, a.balance, (select coalesce(sum(amount), 0) from entries e where e.account_id = a.id) as entered,
  (select coalesce(sum(remaining), 0) from lots l where l.account_id = a.id) as in_lots
from accounts a where a.kind in ('wallet', 'bonus')
"""


class Crowd:
    """People who do everything a customer, a clerk and the clock can do, in an order that a seed decides."""

    def __init__(self, users: list[User], seed: int) -> None:
        self.users, self.rng, self.start = users, random.Random(seed), clock.now()
        self.taken: list[int] = []
        self.held: list[tuple[int, int, Money]] = []

    def act(self) -> str:
        """One verb for one customer; what became of it."""
        verb: Callable[[int], object] = self.rng.choice([
            *(self.top_up, self.pay_bill, self.pay_bill, self.spend, self.spend, self.give_back, self.hold, self.let_go, self.grant, self.expire_bonuses),
            *(self.renew_all, self.renew_all, self.renew_one, services.settle_waiting, self.expire_bills, self.move_house),
        ])  # fmt: skip
        try:
            verb(self.user.customer_id or 0) if verb != services.settle_waiting else verb()  # type: ignore[call-arg]
        except REFUSED as refusal:
            return type(refusal).__name__
        return "done"

    @property
    def user(self) -> User:
        return self.rng.choice(self.users)

    @property
    def key(self) -> str:
        return f"race:{self.rng.getrandbits(64)}"

    def some(self, most: int) -> Money:
        return Money(self.rng.randrange(1, most), "EUR")

    def top_up(self, customer_id: int) -> None:
        self.pay_by_card(begin(payments.order_topup(customer_id, Money(self.rng.randrange(5_00, 20_00), "EUR")), self.rng.choice(["sandbox-card", "sandbox-paypal"])))

    def pay_by_card(self, payment: Payment) -> None:
        for _ in range(2):
            payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=clock.now()))

    def pay_bill(self, customer_id: int) -> None:
        """Pay, or call off, one of the bills that wait; a renewal's too."""
        numbers = [
            row.number for row in db.rows("select proforma_number as number from bills where customer_id = %(id)s and kind = 'service' and status = 'unpaid'", id=customer_id)
        ]
        number = self.rng.choice(numbers) if numbers else self.issue(customer_id)
        way = self.rng.randrange(5)
        if way == 0:
            invoicing.cancel(customer_id, number)
        elif way < 3:
            payments.pay_from_balance(customer_id, number)
        else:
            bill = invoicing.find(customer_id, number)
            assert bill
            self.pay_by_card(begin(bill))

    def issue(self, customer_id: int) -> str:
        with db.transaction():
            return invoicing.issue_service_bill(customer_id, "srv", "EUR", [Line("Setup", self.some(9_00).minor)]).number

    def spend(self, customer_id: int) -> None:
        amount = self.some(15_00)
        with db.transaction():
            spent = wallet.spend(customer_id, amount, reference=self.key, counter=[(ledger.account("revenue", "EUR"), amount.minor)])
        self.taken.append(spent.transfer_id)

    def give_back(self, _customer_id: int) -> None:
        for transfer_id in self.taken[-1:]:
            with db.transaction():
                wallet.restore(transfer_id, f"restore:{transfer_id}")

    def hold(self, customer_id: int) -> None:
        for lot in [lot for lot in wallet.lots(customer_id) if lot.remaining > 1 and lot.kind != "bonus"][:1]:
            amount = self.some(lot.remaining)
            with db.transaction():
                held = wallet.hold(customer_id, lot.id, amount, reference=self.key)
            self.held.append((customer_id, held.transfer_id, amount))

    def let_go(self, _customer_id: int) -> None:
        if self.held:
            customer_id, transfer_id, amount = self.held.pop()
            with db.transaction():
                if self.rng.random() < 0.5:
                    wallet.release(transfer_id, f"release:{transfer_id}")
                else:
                    wallet.pay_out(customer_id, amount, reference=f"out:{transfer_id}", counter=[(ledger.account("gateway", "EUR", key="sandbox"), amount.minor)])

    def grant(self, customer_id: int) -> None:
        with db.transaction():
            wallet.grant_bonus(customer_id, self.some(3_00), reference=self.key, expires_at=clock.now() + timedelta(milliseconds=self.rng.randrange(1, 2000)))

    def expire_bonuses(self, _customer_id: int) -> None:
        for lot_id in wallet.expired_bonuses():
            with db.transaction():
                wallet.expire_bonus(lot_id)

    def renew_all(self, _customer_id: int) -> None:
        with clock.travel(self.start + timedelta(days=self.rng.randrange(30, 900))):
            services.renew_due(chunk=2)

    def renew_one(self, customer_id: int) -> None:
        services.renew(self.rng.choice(services.of_customer(customer_id)).id)

    def expire_bills(self, _customer_id: int) -> None:
        with clock.travel(self.start + timedelta(days=self.rng.randrange(15, 900))):
            invoicing.expire_due()

    def move_house(self, _customer_id: int) -> None:
        user = self.user
        customers.update_profile(user.id, user.customer_id or 0, replace(BERLIN, street=self.key[:40]), locale="en", timezone="UTC")


@pytest.mark.parametrize("seed", [1, 2])
def test_everything_at_once_neither_deadlocks_nor_loses_a_cent(app: Flask, superuser: psycopg.Connection, seed: int):
    offer_plans()
    users = [person(f"crowd-{n}", profile=BERLIN) for n in range(3)]
    for user in users:
        fund(user.customer_id or 0, 60_00)
        services.order(user.customer_id or 0, "vps-4", 1)
        services.order(user.customer_id or 0, "ip", 1)

    def live(part: int) -> Counter[str]:
        crowd = Crowd(users, 100 * seed + part)
        with app.app_context():
            return Counter(crowd.act() for _ in range(45))

    with ThreadPoolExecutor(8) as pool:
        happened = sum(pool.map(live, range(8)), Counter())
    assert happened["done"] > 150
    assert [tuple(row) for row in db.rows(DRIFT) if not row.balance == row.entered == row.in_lots] == []
    assert db.rows("select bill_id from documents where kind = 'invoice' group by 1 having count(*) > 1") == []
    assert db.rows("select payment_id from transfers where kind = 'topup' group by 1 having count(*) > 1") == []
    assert db.scalar("select count(*) from bills where status = 'paid'") == db.scalar("select sum(last) from number_series where kind in ('invoice', 'topup_invoice')")
    assert db.rows("select service_id from renewals where transfer_id is not null group by transfer_id, service_id having count(*) > 1") == []


def test_a_first_debt_and_who_holds_the_wallet_do_not_wait_for_each_other(app: Flask, superuser: psycopg.Connection):
    """The debt account is opened behind the lock of the wallet; before it, opening and lock were a circle."""
    user = person("anna", profile=BERLIN)
    customer, payment = user.customer_id or 0, begin(topup(user, Money(25_00, "EUR")))
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=clock.now()))
    (lot,) = wallet.lots(customer)

    def take_back() -> None:
        with app.app_context(), db.transaction():
            counter = [(ledger.account("suspense", "EUR"), 5_00)]
            wallet.seize(customer, lot.id, Money(5_00, "EUR"), reference="seized", counter=counter)

    own = db.scalar("select id from accounts where customer_id = %(id)s and kind = 'wallet'", id=customer)
    # As before anybody ever owed: settling opens the account, too.
    superuser.execute("set session_replication_role = replica")
    superuser.execute("delete from accounts where customer_id = %s and kind = 'debt'", (customer,))
    with ThreadPoolExecutor(1) as pool:
        with db.transaction():
            ledger.lock((own,))
            other = pool.submit(take_back)
            assert waits(superuser)
            assert wallet.settle_debts(customer, "EUR", cause="test") == Money(0, "EUR")
        other.result()
    assert wallet.state(customer).available == 20_00


def test_a_transfer_taken_back_wants_its_bill_before_it_holds_the_money(app: Flask, superuser: psycopg.Connection):
    """As who settles the bill: the other way round, each of the two would wait for the other."""
    user = person("anna", profile=BERLIN)
    bill = topup(user, Money(25_00, "EUR"))
    payment = begin(bill)
    payments.apply("sandbox", Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=clock.now()))

    def take_back() -> None:
        with app.app_context(), db.transaction():
            suspense = ledger.account("suspense", "EUR", key=payments.SUSPENSE)
            refunds.take_back(payment.id, payment.money, reference="bank:1:return", line=(suspense, payment.amount))

    with ThreadPoolExecutor(1) as pool:
        with superuser.transaction():
            superuser.execute("select 1 from bills where id = %s for update", (bill.id,))
            other = pool.submit(take_back)
            assert waits(superuser)
            superuser.execute("select 1 from accounts where customer_id = %s for update nowait", (user.customer_id,))
        other.result()
    assert wallet.state(user.customer_id or 0).available == 0
    assert [letter.kind for letter in mail.newest(1)] == ["transfer_returned"]


def waits(superuser: psycopg.Connection) -> bool:
    """Whether somebody comes to wait for a lock within five seconds."""
    until = clock.now() + timedelta(seconds=5)
    while clock.now() < until:
        if superuser.execute("select exists (select from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0)").fetchone() == (True,):
            return True
    return False
