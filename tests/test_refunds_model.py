"""Any story of top-ups, of one's own and by others, by card and by transfer, of spending, refunds, disputes, held money and changes of the currency:
the books, the lots and the processor's own books agree after every step of it."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app import bank, db, exchange, ledger, payments, refunds, wallet
from app.customers import User
from app.exchange import CurrencyError
from app.gateways.base import GatewayError
from app.gateways.sandbox import RefundRefused
from app.money import Money
from app.payments import Payment
from app.wallet import InsufficientFunds
from tests.banks import GERMAN, Transfer, camt
from tests.conftest import BERLIN, person
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.test_beneficiary import paid_for
from tests.test_exchange import let, turn
from tests.test_refunds import RITA, SAM, paid


class Story(RuleBasedStateMachine):
    """One customer, a few payments, everything that can happen to them, in any order."""

    app: Flask
    giver: User
    count = statements = charges = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).count += 1
        self.customer: User = person(f"anna{self.count}", profile=BERLIN)
        self.payments: list[Payment] = []
        self.held: list[Payment] = []
        self.transfers: dict[str, int] = {}
        processor(self.app).down = processor(self.app).slow = False

    @property
    def id(self) -> int:
        """The customer's."""
        assert self.customer.customer_id
        return self.customer.customer_id

    def of(self, place: int) -> Payment | None:
        """One of the payments so far."""
        return self.payments[place % len(self.payments)] if self.payments else None

    @property
    def currency(self) -> str:
        """The account's."""
        return wallet.state(self.id).currency or "EUR"

    @rule(minor=st.integers(10_00, 60_00), currency=st.sampled_from(["EUR", "EUR", "USD"]))
    def top_up(self, minor: int, currency: str) -> None:
        """Money comes in, by the pretend processor's page."""
        self.payments.append(paid(self.app, self.customer, Money(minor, currency)))

    @rule(euros=st.integers(10, 60))
    def give(self, euros: int) -> None:
        """Somebody else pays for the customer."""
        self.payments.append(paid_for(self.app, self.giver, self.customer.login, euros * 100))

    @rule(euros=st.integers(10, 60))
    def transfer(self, euros: int) -> None:
        """Money comes by a transfer."""
        bill, name = topup(self.customer, Money(euros * 100, "EUR")), f"E2E-{self.count}-{len(self.transfers)}"
        self._state(Transfer(euros * 100, structured=bill.payment_reference, end_to_end=name))
        self.transfers[name] = euros * 100

    @rule(place=st.integers(0, 9))
    def take_back(self, place: int) -> None:
        """The bank of a transfer's sender takes it back."""
        if self.transfers:
            name = list(self.transfers)[place % len(self.transfers)]
            self._state(Transfer(-self.transfers.pop(name), family="RRTN", end_to_end=name))

    def _state(self, transfer: Transfer) -> None:
        type(self).statements += 1
        bank.import_file(camt([transfer], replace(GERMAN, id=str(self.statements))), f"{self.statements}.xml")

    @rule(into=st.sampled_from(["EUR", "USD", "JPY", "KWD"]))
    def turn(self, into: str) -> None:
        """The account changes its currency, if nothing stands against it."""
        if into != self.currency:
            with suppress(CurrencyError):
                turn(self.customer, into)
                let(self.customer)

    @rule()
    def bring_over(self) -> None:
        """What reached a currency that was left goes along."""
        exchange.bring_over()

    @rule(minor=st.integers(1, 40_00))
    def spend(self, minor: int) -> None:
        """Something is charged, if the balance covers it."""
        type(self).charges += 1
        with suppress(InsufficientFunds), db.transaction():
            counter = [(ledger.account("revenue", self.currency), minor)]
            wallet.spend(self.id, Money(minor, self.currency), reference=f"story:{self.charges}", counter=counter)

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def ask(self, place: int, minor: int) -> None:
        """Some or all of a payment is asked for."""
        sources = refunds.refundable(self.id)
        if sources:
            source = sources[place % len(sources)]
            amount = Money(minor, source.refundable.currency) if minor % 3 else source.refundable
            with suppress(refunds.RefundError):
                iban = source.account.iban if source.account else "DE89370400440532013000"
                refunds.request(self.id, source.public_id, amount, "", iban=iban, holder="Anna Kowalska")

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def open_one(self, place: int, minor: int) -> None:
        """Support sends some or all of a payment back, be it somebody else's."""
        payment = self.of(place)
        origin = refunds.origin(payment.public_id) if payment else None
        if payment and origin:
            amount = Money(minor, origin.source.refundable.currency) if minor % 3 else origin.source.refundable
            with suppress(refunds.RefundError):
                refunds.open_by_support(payment.public_id, amount, "It is theirs", actor=SAM)

    @rule(place=st.integers(0, 9), minor=st.integers(1, 60_00))
    def send_past_us(self, place: int, minor: int) -> None:
        """Somebody sends money back on the processor's own page."""
        payment = self.of(place)
        if payment:
            with suppress(RefundRefused):
                processor(self.app).refund(payment.gateway_reference or "", minor, f"by hand {secrets.token_hex(8)}")
            carry(self.app)

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
        open_ones = db.rows(
            "select currency::text, sum(amount)::bigint from refunds where customer_id = %(id)s and state in ('requested', 'approved', 'sent') group by 1", id=self.id
        )
        held = db.rows("select currency::text, balance from accounts where customer_id = %(id)s and kind = 'hold' and balance <> 0", id=self.id)
        assert sorted(map(tuple, held)) == sorted(map(tuple, open_ones))

    @invariant()
    def a_debt_leaves_nothing_on_the_balance(self) -> None:
        """Nobody owes less than nothing, in any currency, and all that is owed is owed in the account's."""
        owed = {currency: wallet.owed(self.id, currency).minor for currency in ("EUR", "USD", "JPY", "KWD")}
        assert min(owed.values()) >= 0
        assert sum(owed.values()) == owed[self.currency]

    @invariant()
    def nothing_of_a_disputed_payment_can_be_asked_for(self) -> None:
        """However many lots it is in."""
        disputed = {row.payment_id for row in db.rows("select payment_id from disputes where customer_id = %(id)s and state in ('inquiry', 'open')", id=self.id)}
        assert not any(source.refundable for source in refunds.refundable(self.id) if source.payment_id in disputed)

    def teardown(self) -> None:
        """When everything was told, the books are whole, and the processor's own books say what ours say."""
        carry(self.app)
        refunds.pay_out_due()
        refunds.reconcile()
        for payment in [*self.payments, *self.held]:
            payments.look_at(payment.public_id)
            assert -db.scalar(_OURS, id=payment.id) == there(payment)
        assert [str(fault) for fault in ledger.check()] == []


_OURS = """
select coalesce(sum(e.amount), 0)::bigint from entries e join accounts a on a.id = e.account_id join transfers t on t.id = e.transfer_id
where a.kind = 'gateway' and t.kind <> 'fee' and t.payment_id = %(id)s
"""


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
    publish_rates()
    Story.app, Story.giver = app, person("gustav", profile=BERLIN)
    yield Story
    processor(app).down = processor(app).slow = False


def test_any_story_leaves_the_books_whole_and_equal_to_the_processors(stage: type[Story]) -> None:
    run_state_machine_as_test(stage, settings=settings(max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)))
