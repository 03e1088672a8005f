"""Saved cards at Stripe: the real SDK against a Stripe on the loopback."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from flask import Flask
from stripe import HTTPClient

from app import clock, db, gateways, payments, services, wallet
from app.customers import User
from app.gateways.base import ASKED_FOR, Misconfigured
from app.gateways.stripe_cards import StripeWithCards
from app.invoicing import Bill
from app.money import Money
from app.payments import Card, cards
from tests.fakes.stripe import Stripe as FakeStripe
from tests.money_helpers import EUR
from tests.pay import topup
from tests.trade import fund, offer_plans, on

ASKS = {"code": "authentication_required", "decline_code": "authentication_required", "message": "Your card was declined. This transaction requires authentication."}
LOST = {"code": "card_declined", "decline_code": "lost_card", "message": "Your card has been declined."}
TIRED = {"code": "card_declined", "decline_code": "generic_decline", "advice_code": "do_not_try_again", "message": "Your card was declined."}
POOR = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "Your card has insufficient funds."}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStripe]:
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)
    made = FakeStripe()
    yield made
    made.close()


@pytest.fixture
def gateway(app: Flask, fake: FakeStripe) -> StripeWithCards:
    """Stripe as the only gateway of the house."""
    made = StripeWithCards(fake.secret_key, fake.webhook_secret, fake.url)
    gateways.use({"stripe": made})
    return made


def tell(fake: FakeStripe) -> None:
    """Every webhook there is, delivered and worked."""
    for event in list(fake.events):
        payments.process(payments.receive("stripe", *fake.webhook(event)))


@pytest.fixture
def card(fake: FakeStripe, gateway: StripeWithCards, demo_customer: User) -> Card:
    """A card that was saved without paying."""
    page = cards.add(demo_customer.customer_id)
    fake.save(page.reference)
    cards.reconcile()
    return cards.of_customer(demo_customer.customer_id)[0]


def says(fake: FakeStripe, card: Card, decline: dict[str, str]) -> None:
    fake.methods[card.token]["_says"] = decline


def charged(fake: FakeStripe) -> int:
    return sum(intent["amount_received"] for intent in fake.intents.values())


def pay(user: User, card: Card, amount: Money | None = None) -> int:
    bill = topup(user, amount or EUR("40"))
    payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    return bill.id


def state(bill_id: int) -> list[str]:
    return [row.state for row in db.rows("select state from payments where bill_id = %(id)s order by id", id=bill_id)]


@pytest.mark.parametrize("way", ["webhook", "return", "both"])
def test_a_card_is_saved_with_a_payment_for_one_customer_at_stripe(fake, gateway, demo_customer, way):
    for _ in range(2):
        bill = topup(demo_customer, EUR("25"))
        page = payments.start(bill.customer_id, bill.number, "stripe-card", keep=True)
        session = fake.sessions[page.reference]
        assert (session["_keeps"], session["customer"]) == ("off_session", next(iter(fake.customers)))
        fake.pay(page.reference)
        if way != "return":
            tell(fake)
        if way != "webhook":
            payments.refresh(payments.find(bill.customer_id, session["client_reference_id"]))
    kept = cards.of_customer(demo_customer.customer_id)
    assert [(one.label, one.exp_month, one.exp_year, one.consent) for one in kept] == [("Visa •••• 4242", 8, 2031, cards.consent())]
    assert len(fake.customers) == 1
    assert cards.forget_removed() == 1
    assert [method["customer"] is None for method in fake.methods.values()] == [True, False]


def test_a_page_without_the_tick_saves_nothing(fake, gateway, demo_customer):
    bill = topup(demo_customer, EUR("25"))
    page = payments.start(bill.customer_id, bill.number, "stripe-card")
    fake.pay(page.reference)
    tell(fake)
    assert (fake.customers, cards.of_customer(demo_customer.customer_id)) == ({}, [])


def test_a_setup_is_taken_in_by_its_webhook_once(fake, gateway, demo_customer):
    page = cards.add(demo_customer.customer_id)
    fake.save(page.reference)
    tell(fake)
    tell(fake)
    cards.reconcile()
    assert len(cards.of_customer(demo_customer.customer_id)) == 1
    assert db.scalar("select string_agg(state, ',') from webhooks") == "done"


def test_a_saved_card_is_charged_and_refunded(fake, gateway, demo_customer, card):
    bill = pay(demo_customer, card)
    tell(fake)
    assert (state(bill), charged(fake), wallet.state(demo_customer.customer_id).available) == (["paid"], 40_00, 40_00)
    intent = next(iter(fake.intents.values()))
    assert intent["_off_session"] is False
    assert gateway.refund(intent["id"], EUR("15"), "rf_1").state == "settled"
    assert gateway.lookup(intent["id"]).refunds[0].amount == EUR("15")
    assert gateway.lookup(intent["id"]).fee == EUR("0.60")


@pytest.mark.parametrize("mode", ["drop-after", "hang-after"])
def test_an_answer_lost_after_the_charge_is_found_and_the_money_taken_once(fake, gateway, demo_customer, card, mode, monkeypatch):
    monkeypatch.setattr("app.gateways.stripe.READ_TIMEOUT_S", 0.2)
    fake.hang_s = 0.5
    bill = topup(demo_customer, EUR("40"))
    fake.script += [mode, "drop-before", "drop-before"]
    with pytest.raises(payments.ProcessorDown):
        payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert (state(bill.id), charged(fake)) == (["unknown"], 40_00)
    with clock.travel(clock.now() + timedelta(minutes=5)):
        payments.reconcile()
    assert (state(bill.id), charged(fake), len(fake.intents)) == (["paid"], 40_00, 1)


def test_a_second_click_after_a_lost_answer_uses_the_same_key(fake, gateway, demo_customer, card):
    bill = topup(demo_customer, EUR("40"))
    fake.script += ["drop-after", "drop-before", "drop-before"]
    with pytest.raises(payments.ProcessorDown):
        payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert (state(bill.id), len(fake.intents)) == (["paid"], 1)


def click(user: User, card: Card, bill: Bill) -> str:
    """What the customer is told who clicks, nothing when it went through."""
    try:
        payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    except (payments.NotPayable, payments.ProcessorDown) as told:
        return str(told)
    return ""


@pytest.mark.parametrize("decline", [None, POOR])
def test_a_second_click_while_the_first_is_at_its_bank_hears_nothing_and_charges_nothing(app: Flask, fake, gateway, demo_customer, card, decline):
    bill, answered = topup(demo_customer, EUR("40")), threading.Event()
    fake.at_bank[card.token] = answered
    says(fake, card, decline)

    def first() -> str:
        with app.app_context():
            return click(demo_customer, card, bill)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        while not fake.intents:
            threading.Event().wait(0.01)
        assert click(demo_customer, card, bill) == payments.charging.NO_WORD
        assert state(bill.id) == ["unknown"]
        (payment,) = payments.open_of(bill.id)
        assert payments.refresh(payment).state == "created"  # known at Stripe, and not declined
        assert "not told us yet" in told_of_another_way(bill)
        answered.set()
        assert running.result() == ""
    fake.at_bank.clear()
    tell(fake)
    assert (state(bill.id), charged(fake), len(fake.intents)) == ((["failed"], 0, 1) if decline else (["paid"], 40_00, 1))


def told_of_another_way(bill: Bill) -> str:
    with pytest.raises(payments.ProcessorDown) as refused:
        payments.start(bill.customer_id, bill.number, "stripe-card")
    return str(refused.value)


def test_a_charge_that_hangs_at_its_bank_is_waited_for_and_found(fake, gateway, demo_customer, card, monkeypatch):
    monkeypatch.setattr("app.gateways.stripe.READ_TIMEOUT_S", 0.1)
    bill, answered = topup(demo_customer, EUR("40")), threading.Event()
    fake.at_bank[card.token] = answered
    assert click(demo_customer, card, bill) == payments.charging.NO_WORD
    (payment,) = payments.open_of(bill.id)
    assert (payment.state, payments.refresh(payment).state, charged(fake)) == ("unknown", "created", 0)
    answered.set()
    monkeypatch.setattr("app.gateways.stripe.READ_TIMEOUT_S", 5.0)
    while fake.busy:
        threading.Event().wait(0.01)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        payments.reconcile()
    assert (state(bill.id), charged(fake), len(fake.intents)) == (["paid"], 40_00, 1)


@pytest.mark.parametrize("unasked", [False, True])
@pytest.mark.parametrize(("decline", "end"), [(None, "paid"), (POOR, "failed"), (LOST, "failed")])
def test_a_charge_that_is_still_processing_is_pending_until_its_bank_has_answered(fake, gateway, demo_customer, card, unasked, decline, end):
    fake.pending[card.token] = "processing"
    bill = topup(demo_customer, EUR("40"))
    for _ in (1, 2):
        if unasked:
            payments.charge_unasked(bill.customer_id, bill.number, card)
        else:
            click(demo_customer, card, bill)
    assert "not told us yet" in told_of_another_way(bill)
    with clock.travel(clock.now() + timedelta(hours=20)):
        assert payments.reconcile() == {"pending": 1}
    assert (state(bill.id), len(fake.intents), charged(fake)) == (["pending"], 1, 0)
    fake.confirm(next(iter(fake.intents)), decline)
    tell(fake)
    tell(fake)
    assert (state(bill.id), charged(fake)) == ([end], 0 if decline else 40_00)
    assert cards.of_customer(demo_customer.customer_id)[0].usable is (decline is not LOST)
    mailed = db.scalar("select count(*) from mails where kind in ('card_declined', 'payment_failed')")
    assert mailed == (1 if decline else 0)


@pytest.mark.parametrize("unasked", [False, True])
def test_a_charge_that_waits_for_its_holder_is_over_and_leads_to_the_page(fake, gateway, demo_customer, card, unasked):
    fake.pending[card.token] = "requires_action"
    bill = topup(demo_customer, EUR("40"))
    if unasked:
        assert payments.charge_unasked(bill.customer_id, bill.number, card).failure_code == ASKED_FOR
        assert payments.charge_unasked(bill.customer_id, bill.number, card) is None
    else:
        assert payments.pay_by_card(bill.customer_id, bill.number, card.public_id).reference.startswith("cs_")
    assert (len(fake.intents), charged(fake)) == (1, 0)


def test_the_same_key_a_day_later_is_asked_about_and_not_charged_again(fake, gateway, demo_customer, card):
    """Stripe forgets a key after a day; what was never answered is only looked up by then."""
    bill = topup(demo_customer, EUR("40"))
    fake.script += ["drop-after", "drop-before", "drop-before"]
    assert click(demo_customer, card, bill)
    fake.passed = timedelta(hours=25)
    with clock.travel(clock.now() + timedelta(hours=25)):
        click(demo_customer, card, bill)
        payments.reconcile()
    assert (state(bill.id), len(fake.intents), charged(fake)) == (["paid"], 1, 40_00)


def test_eight_clicks_are_one_charge(app: Flask, fake, gateway, demo_customer, card):
    bill = topup(demo_customer, EUR("40"))

    def click(_: int) -> None:
        with app.app_context():
            try:
                payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
            except (payments.NotPayable, payments.ProcessorDown) as refusal:
                said.append(str(refusal))

    said: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(click, range(8)))
    tell(fake)
    assert len(said) < 8
    assert (state(bill.id), len(fake.intents), wallet.state(demo_customer.customer_id).available) == (["paid"], 1, 40_00)


def test_a_bank_that_asks_leads_to_checkout(fake, gateway, demo_customer, card):
    says(fake, card, ASKS)
    bill = topup(demo_customer, EUR("40"))
    page = payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert page.reference.startswith("cs_")
    failed = db.row("select failure_code, gateway_reference from payments where state = 'failed'")
    assert (failed.failure_code, failed.gateway_reference) == (ASKED_FOR, next(iter(fake.intents)))
    assert gateway.lookup(failed.gateway_reference).failure_code == ASKED_FOR


@pytest.mark.parametrize(("decline", "dead"), [(POOR, False), (LOST, True), (TIRED, True)])
def test_a_decline_is_told_and_a_dead_card_is_not_asked_again(fake, gateway, demo_customer, card, decline, dead):
    says(fake, card, decline)
    assert state(pay(demo_customer, card)) == ["failed"]
    assert cards.of_customer(demo_customer.customer_id)[0].usable is not dead


def test_a_method_that_is_gone_at_stripe_is_a_decline(fake, gateway, demo_customer, card):
    fake.methods[card.token]["customer"] = None
    assert state(pay(demo_customer, card)) == ["failed"]
    assert not cards.of_customer(demo_customer.customer_id)[0].usable


def bar(fake: FakeStripe, how: str) -> None:
    """The key is wrong, may not charge, or is one of another account, where nobody of ours is known."""
    if how == "account":
        fake.customers.clear()
        fake.methods.clear()
    else:
        fake.script += [how] * 40


@pytest.mark.parametrize("how", ["401", "403", "400", "account"])
def test_what_is_ours_says_nothing_of_the_card_and_the_bill_can_be_paid_at_once(fake, gateway, demo_customer, card, how):
    bill, books = topup(demo_customer, EUR("40")), (dict(fake.customers), dict(fake.methods))
    bar(fake, how)
    with pytest.raises(payments.ProcessorDown, match="switched off"):
        payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert (state(bill.id), cards.of_customer(demo_customer.customer_id)[0].usable) == (["failed"], True)
    fake.script.clear()
    fake.customers.update(books[0])
    fake.methods.update(books[1])
    payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert (state(bill.id), charged(fake)) == (["failed", "paid"], 40_00)


def test_a_wrong_key_met_after_a_lost_answer_settles_nothing(fake, gateway, demo_customer, card):
    bill = topup(demo_customer, EUR("40"))
    fake.script += ["drop-after", "drop-before", "drop-before"]
    for _ in range(2):
        with pytest.raises(payments.ProcessorDown):
            payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
        assert state(bill.id) == ["unknown"]
        fake.script += ["401"] * 2
    fake.script.clear()
    payments.pay_by_card(bill.customer_id, bill.number, card.public_id)
    assert (state(bill.id), charged(fake), len(fake.intents)) == (["paid"], 40_00, 1)


def test_an_amount_that_stripe_does_not_take_is_the_payments_and_not_the_cards(fake, gateway, demo_customer, card):
    fake.least = 100_00
    bill = pay(demo_customer, card)
    assert (state(bill), cards.of_customer(demo_customer.customer_id)[0].usable) == (["failed"], True)
    assert "amount is not possible" in db.scalar("select failure_message from payments")


@pytest.mark.parametrize("how", ["401", "403", "account", "drop-before"])
def test_a_renewal_waits_for_our_settings_tells_nobody_and_is_charged_when_they_are_mended(fake, gateway, demo_customer, card, how):
    offer_plans()
    with on(date(2026, 11, 10)):
        fund(demo_customer.customer_id, 23_80)
        service = services.order(demo_customer.customer_id, "vps-4", 1)
        services.pay_from(demo_customer.customer_id, service.public_id, card.public_id)
    books = dict(fake.customers), dict(fake.methods)
    with on(date(2026, 12, 11)):
        services.renew_due()
        mails, noon = db.scalar("select count(*) from mails"), clock.now()
        bar(fake, how)
        for hours in range(5):
            fake.script += [how] * 40 * (how != "account")
            with clock.travel(noon + timedelta(hours=2 * hours)):
                payments.reconcile()
                services.renew_by_card()
                services.renew_by_card()
        assert db.scalar("select count(*) from payments where off_session") <= 5
        assert (db.scalar("select count(*) from mails"), charged(fake)) == (mails, 0)
        assert cards.of_customer(demo_customer.customer_id)[0].usable
        assert services.find(demo_customer.customer_id, service.public_id).payment_source == "balance_then_card"
        fake.script.clear()
        fake.customers.update(books[0])
        fake.methods.update(books[1])
        for hours in (10, 12):
            with clock.travel(noon + timedelta(hours=hours)):
                payments.reconcile()
                services.renew_by_card()
    assert (charged(fake), len([one for one in fake.intents.values() if one["status"] == "succeeded"])) == (23_80, 1)
    assert services.find(demo_customer.customer_id, service.public_id).paid_through > service.paid_through


def test_a_card_that_another_account_does_not_know_is_not_forgotten_yet(fake, gateway, demo_customer, card):
    ours = fake.methods.pop(card.token)
    services.remove_card(demo_customer.customer_id, card.public_id)
    fake.methods[card.token] = ours
    with clock.travel(clock.now() + timedelta(minutes=5)):
        assert cards.forget_removed() == 1
    assert fake.methods[card.token]["customer"] is None


def test_a_renewal_is_charged_off_session_and_an_unheard_answer_is_not_charged_twice(fake, gateway, demo_customer, card):
    offer_plans()
    with on(date(2026, 11, 10)):
        fund(demo_customer.customer_id, 23_80)
        service = services.order(demo_customer.customer_id, "vps-4", 1)
        services.pay_from(demo_customer.customer_id, service.public_id, card.public_id)
    with on(date(2026, 12, 11)):
        services.renew_due()
        fake.script += ["drop-after", "drop-before", "drop-before"]
        services.renew_by_card()
        assert services.renew_by_card() == {"paid": 1}
    assert (charged(fake), len(fake.intents), next(iter(fake.intents.values()))["_off_session"]) == (23_80, 1, True)
    assert services.find(demo_customer.customer_id, service.public_id).paid_through > service.paid_through


def test_a_removed_card_is_detached_when_stripe_answers_and_twice_is_fine(fake, gateway, demo_customer, card):
    fake.script += ["500"] * 3
    services.remove_card(demo_customer.customer_id, card.public_id)
    assert fake.methods[card.token]["customer"] is not None
    with clock.travel(clock.now() + timedelta(minutes=5)):
        assert cards.forget_removed() == 1
    assert fake.methods[card.token]["customer"] is None
    gateway.forget(card.token)
    with pytest.raises(Misconfigured):
        gateway.forget("pm_never")
