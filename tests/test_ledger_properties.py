"""Whatever customers do, in whatever order and however many at once, the books and the lots stay what a simple model says."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from app import clock, db, ledger, wallet
from app.ledger import InsufficientFunds
from app.money import Money

CURRENCIES = ("EUR", "JPY", "KWD")
amounts = st.integers(min_value=1, max_value=5_000)
customers = st.sampled_from((0, 0, 0, 1, 2))


@dataclass
class Purse:
    """What the model thinks a customer has. Lots are [remaining, expiry or None] by id, in the order they were made."""

    id: int
    currency: str
    lots: dict[int, int] = field(default_factory=dict)
    bonus: dict[int, list] = field(default_factory=dict)
    held: int = 0
    debt: int = 0

    def spendable_bonus(self, now):
        lots = [(expiry or datetime.max.replace(tzinfo=UTC), lot) for lot, (left, expiry) in self.bonus.items() if left and (expiry is None or expiry > now)]
        return [lot for _, lot in sorted(lots)]

    def take(self, amount, now):
        """Lots and what they give, bonus first; None when there is too little."""
        parts = []
        for lot, store in [(lot, self.bonus) for lot in self.spendable_bonus(now)] + [(lot, self.lots) for lot in self.lots]:
            left = store[lot][0] if store is self.bonus else store[lot]
            part = min(left, amount)
            if part:
                parts.append((lot, part))
                amount -= part
        return None if amount else parts

    def change(self, lot, by):
        if lot in self.bonus:
            self.bonus[lot][0] += by
        else:
            self.lots[lot] += by


class Books(RuleBasedStateMachine):
    """Customers in three currencies, top-ups also from another currency, charges, returns, refunds, disputes, bonuses, replays, crashes."""

    def __init__(self):
        super().__init__()
        self.now = datetime(2026, 1, 1, 9, tzinfo=UTC)
        self.number = 0
        self.charges = []
        self.holds = []
        self.written = []

    @initialize()
    def open(self):
        with clock.travel(self.now), db.transaction():
            insert = "insert into customers (currency, created_at) values (%(c)s, %(at)s) returning id"
            self.purses = [Purse(db.scalar(insert, c=currency, at=self.now), currency) for currency in CURRENCIES]

    def reference(self, word):
        self.number += 1
        return f"{self.purses[0].id}:{word}:{self.number}"

    def write(self, verb):
        """Run a verb as the app does, and remember it so that it can be asked for again."""
        with clock.travel(self.now), db.transaction():
            result = verb()
        self.written.append((verb, result.transfer_id))
        return result

    def near(self, data, available):
        """An amount that is mostly there, sometimes all of it, sometimes one unit more."""
        return data.draw(st.integers(1, max(1, available)) | st.just(max(1, available)) | st.just(available + 1))

    def newest_lot(self, purse, account):
        kind = "bonus" if account == "bonus" else "wallet"
        return db.scalar("select max(l.id) from lots l join accounts a on a.id = l.account_id where l.customer_id = %(id)s and a.kind = %(kind)s", id=purse.id, kind=kind)

    @rule(who=customers, minor=amounts, pay_in=st.sampled_from(CURRENCIES), paid=amounts)
    def top_up(self, who, minor, pay_in, paid):
        purse = self.purses[who]
        reference, amount = self.reference("topup"), Money(minor, purse.currency)

        def verb():
            if pay_in == purse.currency:
                counter = [(ledger.account("gateway", pay_in, key="sandbox"), -minor)]
            else:
                counter = [
                    (ledger.account("gateway", pay_in, key="sandbox"), -paid), (ledger.account("fx", pay_in), paid), (ledger.account("fx", purse.currency), -minor),
                ]  # fmt: skip
            return wallet.credit(purse.id, amount, reference=reference, kind="topup", counter=counter, paid=Money(paid, pay_in))

        self.write(verb)
        purse.lots[self.newest_lot(purse, "wallet")] = minor

    @rule(who=customers, data=st.data())
    def charge(self, who, data):
        purse = self.purses[who]
        minor = self.near(data, sum(purse.lots.values()) + sum(purse.bonus[lot][0] for lot in purse.spendable_bonus(self.now)))
        reference = self.reference("charge")
        parts = purse.take(minor, self.now)

        cheaper = data.draw(st.booleans())

        def verb():
            revenue = ledger.account("revenue", purse.currency)
            counter = (lambda bonus: [(revenue, minor - bonus)]) if cheaper else [(revenue, minor)]
            return wallet.spend(purse.id, Money(minor, purse.currency), reference=reference, counter=counter)

        if parts is None:
            with pytest.raises(InsufficientFunds):
                self.write(verb)
            return
        spent = self.write(verb)
        assert spent.from_bonus + spent.from_balance == minor
        assert spent.from_bonus == sum(part for lot, part in parts if lot in purse.bonus)
        for lot, part in parts:
            purse.change(lot, -part)
        self.charges.append((purse, spent.transfer_id, parts))

    @precondition(lambda self: self.charges)
    @rule(data=st.data())
    def give_a_charge_back(self, data):
        purse, transfer, parts = self.charges.pop(data.draw(st.integers(0, len(self.charges) - 1)))
        reference = self.reference("return")
        self.write(lambda: wallet.restore(transfer, reference))
        for lot, part in parts:
            purse.change(lot, part)

    @rule(who=customers, data=st.data())
    def ask_for_a_refund(self, who, data):
        purse = self.purses[who]
        assume(purse.lots)
        lot = data.draw(st.sampled_from(sorted(purse.lots)))
        minor = self.near(data, purse.lots[lot])
        reference = self.reference("refund")

        def verb():
            return wallet.hold(purse.id, lot, Money(minor, purse.currency), reference=reference)

        if minor > purse.lots[lot]:
            with pytest.raises(InsufficientFunds):
                self.write(verb)
            return
        held = self.write(verb)
        purse.lots[lot] -= minor
        purse.held += minor
        self.holds.append((purse, held.transfer_id, lot, minor))

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), sent=st.booleans())
    def decide_a_refund(self, data, sent):
        purse, transfer, lot, minor = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        reference = self.reference("decision")
        amount = Money(minor, purse.currency)
        if sent:
            self.write(lambda: wallet.pay_out(purse.id, amount, reference=reference, counter=[(ledger.account("gateway", purse.currency, key="sandbox"), minor)]))
        else:
            self.write(lambda: wallet.release(transfer, reference))
            purse.lots[lot] += minor
        purse.held -= minor

    @rule(who=customers, data=st.data())
    def dispute(self, who, data):
        purse = self.purses[who]
        assume(purse.lots)
        minor = self.near(data, sum(purse.lots.values()))
        own = data.draw(st.sampled_from(sorted(purse.lots)))
        reference = self.reference("dispute")
        self.write(lambda: wallet.seize(purse.id, own, Money(minor, purse.currency), reference=reference, counter=[(ledger.account("disputes", purse.currency), minor)]))
        missing = minor
        for lot in [own, *purse.lots]:
            part = min(purse.lots[lot], missing)
            purse.lots[lot] -= part
            missing -= part
        purse.debt += missing

    @rule(who=customers, minor=amounts, days=st.none() | st.integers(1, 20))
    def grant(self, who, minor, days):
        purse = self.purses[who]
        reference, expiry = self.reference("bonus"), self.now + timedelta(days=days) if days else None
        self.write(lambda: wallet.grant_bonus(purse.id, Money(minor, purse.currency), reference=reference, expires_at=expiry))
        purse.bonus[self.newest_lot(purse, "bonus")] = [minor, expiry]

    @rule(days=st.integers(1, 15), sweep=st.booleans())
    def wait(self, days, sweep):
        self.now += timedelta(days=days)
        if not sweep:
            return
        mine = {lot for purse in self.purses for lot in purse.bonus}
        with clock.travel(self.now), db.transaction():
            for lot in wallet.expired_bonuses():
                if lot in mine:
                    wallet.expire_bonus(lot)
        for purse in self.purses:
            for lot in purse.bonus.values():
                if lot[1] and lot[1] <= self.now:
                    lot[0] = 0

    @precondition(lambda self: self.written)
    @rule(data=st.data())
    def ask_again(self, data):
        """A delivery twice, a client that repeats: the same transfer comes back and nothing moves."""
        verb, transfer = self.written[data.draw(st.integers(0, len(self.written) - 1))]
        with clock.travel(self.now), db.transaction():
            again = verb()
        assert (again.transfer_id, again.replayed) == (transfer, True)

    @rule(who=customers, minor=amounts)
    def crash(self, who, minor):
        purse = self.purses[who]
        counter = [(ledger.account("suspense", purse.currency), -minor)] if self.written else []
        assume(counter)
        with suppress(ZeroDivisionError), clock.travel(self.now), db.transaction():
            wallet.credit(purse.id, Money(minor, purse.currency), reference=self.reference("crash"), kind="topup", counter=counter)
            raise ZeroDivisionError

    @invariant()
    def the_model_agrees(self):
        for purse in getattr(self, "purses", ()):
            with clock.travel(self.now):
                state = wallet.state(purse.id)
                lots = {lot.id: lot.remaining for lot in wallet.lots(purse.id)}
            usable = sum(purse.bonus[lot][0] for lot in purse.spendable_bonus(self.now))
            assert (state.available, state.bonus, state.on_hold) == (sum(purse.lots.values()), usable, purse.held)
            assert lots == purse.lots | {lot: left for lot, (left, _) in purse.bonus.items()}
            debt = db.scalar("select coalesce(sum(balance), 0) from accounts where customer_id = %(id)s and kind = 'debt'", id=purse.id)
            assert debt == -purse.debt

    @invariant()
    def every_currency_sums_to_zero(self):
        assert db.rows("select currency from entries group by currency having sum(amount) <> 0") == []

    def teardown(self):
        assert [str(fault) for fault in ledger.check()] == []


def test_the_books_follow_the_model(app):
    with db.transaction():
        for currency in CURRENCIES:
            ledger.account("suspense", currency)
    run_state_machine_as_test(Books, settings=settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None))


# Many at once


def together(application, clients, work):
    """Start `work(n)` in as many threads at the same moment; their results, or what they raised."""
    start = threading.Barrier(clients)

    def run(n):
        with application.app_context():
            start.wait()
            return work(n)

    with ThreadPoolExecutor(clients) as pool:
        return [future.exception() or future.result() for future in [pool.submit(run, n) for n in range(clients)]]


@pytest.fixture
def rich(app):
    """A customer with 100.00 EUR in four payments."""
    with db.transaction():
        customer = db.scalar("insert into customers (currency, created_at) values ('EUR', %(at)s) returning id", at=clock.now())
        gateway = ledger.account("gateway", "EUR", key="sandbox")
        ledger.account("revenue", "EUR")
        for n in range(4):
            wallet.credit(customer, Money(2500, "EUR"), reference=f"p{n}", kind="topup", counter=[(gateway, -2500)])
    return customer


def spend(customer, reference, minor=100):
    with db.transaction():
        return wallet.spend(customer, Money(minor, "EUR"), reference=reference, counter=[(ledger.account("revenue", "EUR"), minor)])


def test_of_200_competing_charges_exactly_the_affordable_100_succeed(rich, application):
    outcomes = []

    def work(n):
        for step in range(25):
            try:
                spend(rich, f"{n}:{step}")
                outcomes.append("taken")
            except InsufficientFunds:
                outcomes.append("refused")

    assert together(application, 8, work) == [None] * 8
    assert (outcomes.count("taken"), outcomes.count("refused")) == (100, 100)
    assert wallet.state(rich).available == 0
    assert ledger.balance(ledger.account("revenue", "EUR")) == 100_00


def test_eight_clients_on_one_wallet_lose_nothing(rich, application):
    gateway = ledger.account("gateway", "EUR", key="sandbox")

    def work(n):
        for step in range(10):
            with db.transaction():
                wallet.credit(rich, Money(300, "EUR"), reference=f"in:{n}:{step}", kind="topup", counter=[(gateway, -300)])
            spent = spend(rich, f"out:{n}:{step}", 250)
            if step % 3 == 0:
                with db.transaction():
                    wallet.restore(spent.transfer_id, f"back:{n}:{step}")

    assert together(application, 8, work) == [None] * 8
    assert wallet.state(rich).available == 100_00 + 8 * (10 * 50 + 4 * 250)


def test_one_charge_asked_for_by_eight_clients_is_made_once(rich, application):
    results = together(application, 8, lambda n: spend(rich, "once", 9_000))
    assert len({spent.transfer_id for spent in results}) == 1
    assert [spent.replayed for spent in results].count(False) == 1
    assert wallet.state(rich).available == 10_00


def test_two_refunds_of_one_payment_do_not_both_get_it(rich, application):
    lot = wallet.lots(rich)[0].id

    def work(n):
        with db.transaction():
            return wallet.hold(rich, lot, Money(2000, "EUR"), reference=f"h{n}")

    results = together(application, 4, work)
    assert sum(isinstance(result, InsufficientFunds) for result in results) == 3
    assert wallet.state(rich).on_hold == 20_00
