"""Any story of top-ups, spending, refunds and disputes: the books, the lots and the processor's own books agree after every step of it."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app import db, ledger, refunds, services, wallet
from app.customers import User
from app.gateways.base import GatewayError
from app.money import Money
from app.payments import Payment
from app.wallet import InsufficientFunds
from tests.conftest import BERLIN, person
from tests.pay import again, begin, carry, choose, processor, topup
from tests.test_refunds import RITA, SAM, paid
from tests.trade import offer_plans


class Story(RuleBasedStateMachine):
    """One customer, a few payments, everything that can happen to them, in any order."""

    app: Flask
    count = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).count += 1
        self.customer: User = person(f"anna{self.count}", profile=BERLIN)
        self.payments: list[Payment] = []
        self.held: list[Payment] = []
        self.bought = 0
        processor(self.app).down = processor(self.app).slow = False

    @property
    def id(self) -> int:
        """The customer's."""
        assert self.customer.customer_id
        return self.customer.customer_id

    def of(self, place: int) -> Payment | None:
        """One of the payments so far."""
        return self.payments[place % len(self.payments)] if self.payments else None

    @rule(euros=st.integers(5, 60))
    def top_up(self, euros: int) -> None:
        """Money comes in, by the pretend processor's page."""
        self.payments.append(paid(self.app, self.customer, Money(euros * 100, "EUR")))

    @rule()
    def spend(self) -> None:
        """A service is ordered, if the balance covers it."""
        with suppress(InsufficientFunds):
            services.order(self.id, "ip", 1)

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def ask(self, place: int, minor: int) -> None:
        """Some of a payment is asked for."""
        payment = self.of(place)
        if payment:
            with suppress(refunds.RefundError):
                refunds.request(self.id, payment.public_id, Money(minor, "EUR"), "", iban="DE89370400440532013000", holder="Anna Kowalska")

    @rule(approve=st.booleans(), place=st.integers(0, 9))
    def decide(self, approve: bool, place: int) -> None:
        """Support decides one of the open ones."""
        cases = [case for case in refunds.queue() if case.login == self.customer.login]
        if cases:
            number = cases[place % len(cases)].refund.number
            with suppress(refunds.RefundError):
                if approve:
                    refunds.approve(number, actor=SAM)
                    refunds.approve(number, actor=RITA)
                else:
                    refunds.decline(number, actor=SAM, answer="No")

    @rule(slow=st.booleans(), down=st.booleans())
    def send(self, slow: bool, down: bool) -> None:
        """What is approved is sent, by a processor that may be slow or silent; payouts by hand are paid."""
        house = processor(self.app)
        house.slow, house.down = slow, down
        for refund in refunds.of_customer(self.id):
            with suppress(refunds.RefundError, GatewayError):
                refunds.pay_out(refund.number)
            with suppress(refunds.RefundError):
                refunds.mark_paid(refund.number, reference="TX", actor=SAM)
        house.slow = house.down = False

    @rule(place=st.integers(0, 9), state=st.sampled_from(["settled", "failed"]), told=st.booleans())
    def move(self, place: int, state: str, told: bool) -> None:
        """A refund settles or fails at the processor."""
        known = [
            row.refund
            for row in db.rows(
                "select r.refund from sandbox_refunds r join sandbox_sessions s using (reference) join payments p on p.public_id = s.charge_id where p.customer_id = %(id)s order by r.at",
                id=self.id,
            )
        ]
        if known:
            processor(self.app).move_refund(known[place % len(known)], state, "closed")
            if told:
                carry(self.app)

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def dispute(self, place: int, minor: int) -> None:
        """The payer's bank takes money of a payment back."""
        payment = self.of(place)
        if payment and payment.received:
            processor(self.app).dispute(payment.gateway_reference or "", min(minor, payment.received), "fraud")
            carry(self.app)

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def inquire(self, place: int, minor: int) -> None:
        """The payer's bank asks about money of a payment."""
        payment = self.of(place)
        if payment and payment.received:
            processor(self.app).inquire(payment.gateway_reference or "", min(minor, payment.received), "fraud")
            carry(self.app)

    @rule(place=st.integers(0, 9), takes=st.booleans())
    def answer(self, place: int, takes: bool) -> None:
        """The bank has its answer, or takes the money after all."""
        known = self._contested()
        if known:
            processor(self.app).end_inquiry(known[place % len(known)], takes=takes)
            carry(self.app)

    @rule(euros=st.integers(5, 60))
    def come_short(self, euros: int) -> None:
        """Another amount comes than was asked for: it is held for a person."""
        payment = begin(topup(self.customer, Money(euros * 100, "EUR")))
        choose(self.app, payment, "short")
        carry(self.app)
        self.held.append(again(payment))

    @rule(place=st.integers(0, 9), back=st.booleans())
    def release(self, place: int, back: bool) -> None:
        """A person credits what is held, or sends it back."""
        if self.held:
            number = db.scalar("select number from held where payment_id = %(id)s order by id limit 1", id=self.held[place % len(self.held)].id)
            for person_ in (SAM, RITA):
                with suppress(refunds.RefundError):
                    refunds.release(number, "return" if back else "credit", actor=person_, reason="It is theirs")
            with suppress(refunds.RefundError, GatewayError):
                refunds.send_back(number)

    @rule(place=st.integers(0, 9), won=st.booleans())
    def close(self, place: int, won: bool) -> None:
        """The bank decides a dispute."""
        known = self._contested()
        if known:
            processor(self.app).close_dispute(known[place % len(known)], won=won)
            carry(self.app)

    def _contested(self) -> list[str]:
        return [
            row.dispute
            for row in db.rows(
                "select dispute from sandbox_disputes d join sandbox_sessions s using (reference) join payments p on p.public_id = s.charge_id where p.customer_id = %(id)s order by d.at",
                id=self.id,
            )
        ]

    @invariant()
    def never_more_back_than_came(self) -> None:
        """Of each payment, by our books and by the processor's."""
        for payment in self.payments:
            ours = db.scalar(
                "select coalesce(sum(payout), 0)::bigint from refunds where payment_id = %(id)s and state in ('requested', 'approved', 'sent', 'settled')", id=payment.id
            )
            theirs = db.scalar("select coalesce(sum(amount), 0)::bigint from sandbox_refunds where reference = %(r)s and state <> 'failed'", r=payment.gateway_reference)
            assert max(ours, theirs) <= (payment.received or 0)

    @invariant()
    def what_is_on_hold_is_what_is_open(self) -> None:
        """No money waits for a refund that is over."""
        held = db.scalar("select coalesce(sum(amount), 0)::bigint from refunds where customer_id = %(id)s and state in ('requested', 'approved', 'sent')", id=self.id)
        assert wallet.state(self.id).on_hold == held

    @invariant()
    def a_debt_leaves_nothing_on_the_balance(self) -> None:
        """As long as something is owed there is nothing to spend but what a won dispute gave back."""
        assert wallet.owed(self.id, "EUR").minor >= 0

    def teardown(self) -> None:
        """When everything was told, the books are whole, and the processor's own books say what ours say."""
        carry(self.app)
        refunds.pay_out_due()
        refunds.reconcile()
        for payment in [*self.payments, *self.held]:
            self._settle(again(payment))
        assert [str(fault) for fault in ledger.check()] == []
        ours = db.scalar("select coalesce(sum(e.amount), 0)::bigint from entries e join accounts a on a.id = e.account_id join transfers t on t.id = e.transfer_id "
                         "where a.kind = 'gateway' and t.kind <> 'fee' and t.payment_id = any(%(ids)s)", ids=[payment.id for payment in [*self.payments, *self.held]])  # fmt: skip
        assert -ours == sum(there(payment) for payment in [*self.payments, *self.held])

    def _settle(self, payment: Payment) -> None:
        from app import payments

        payments.look_at(payment.public_id)


def there(payment: Payment) -> int:
    """What the processor holds of a payment: received, less what went back, less what banks took."""
    return db.scalar(
        "select received - coalesce((select sum(amount) from sandbox_refunds r where r.reference = s.reference and state = 'settled'), 0)::bigint "
        "- coalesce((select sum(amount) from sandbox_disputes d where d.reference = s.reference and state in ('open', 'lost')), 0)::bigint from sandbox_sessions s where reference = %(r)s",
        r=payment.gateway_reference,
    )


@pytest.fixture
def stage(app: Flask) -> Iterator[type[Story]]:
    """The house the stories happen in."""
    offer_plans()
    Story.app = app
    yield Story
    processor(app).down = processor(app).slow = False


def test_any_story_leaves_the_books_whole_and_equal_to_the_processors(stage: type[Story]) -> None:
    run_state_machine_as_test(stage, settings=settings(max_examples=8, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)))
