"""Saved cards: kept with consent, charged once however it is asked, standing in for the balance at renewals, and forgotten when their owner says so."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta

import psycopg
import pytest
from flask import Flask

from app import clock, db, gateways, invoicing, mail, payments, services, wallet
from app.customers import User
from app.gateways.base import ASKED_FOR, KeptCard, NoAnswer, Snapshot
from app.money import Money
from app.payments import Card, cards, starting
from app.sandbox_processor import CHOICES
from tests.conftest import Browser
from tests.money_helpers import EUR
from tests.pay import again, begin, carry, choose, of, processor, times_credited, topup
from tests.trade import fund, offer_plans, on

DAY = date(2026, 3, 10)


def add_card(app: Flask, user: User, kind: str = "good") -> Card:
    """Save a test card on the pretend processor's page, without paying."""
    page = cards.add(user.customer_id)
    processor(app).choose(page.reference, CHOICES["approve"], kind)
    carry(app)
    return cards.of_customer(user.customer_id)[0]


def short_service(user: User, card: Card | None, label: str = "web-1") -> services.Service:
    """A service that is due a month after DAY, with nothing on the balance to renew it from; paid from the card too when one is given."""
    offer_plans()
    with on(DAY):
        fund(user.customer_id, 23_80)
        service = services.order(user.customer_id, "vps-4", 1, label=label)
        if card:
            services.pay_from(user.customer_id, service.public_id, card.public_id)
    return service


def bill_of_service(user: User) -> str:
    """The number of a service bill that waits for its payer."""
    with db.transaction():
        return invoicing.issue_service_bill(user.customer_id, "Setup", "EUR", [invoicing.Line("Setup", 20_00)]).number


def due(days: int = 31):
    return on(DAY + timedelta(days))


def charges(app: Flask) -> int:
    """How many charges to saved cards the pretend processor's books hold."""
    return db.scalar("select count(*) from sandbox_sessions where state = 'paid' and holder <> '' and not keeps")


def paid_by(bill_id: int) -> list[str]:
    return [row.state for row in db.rows("select state from payments where bill_id = %(id)s order by id", id=bill_id)]


# Saving


def test_a_card_is_saved_only_where_the_box_was_ticked(app, demo_customer, owner: Browser):
    bill = topup(demo_customer, EUR("25"))
    page = owner.get(f"/invoices/{bill.number}/pay").text
    assert 'name="keep"' in page
    assert "checked" not in page.split('name="keep"')[1].split(">")[0]
    assert page.index("Bank card") < page.index("I can remove it at any time") < page.index("PayPal")  # where the card is chosen
    for form, kept in (({}, 0), ({"keep": "1"}, 1)):
        owner.submit(f"/invoices/{topup(demo_customer, EUR('25')).number}/pay", {"method": "sandbox-card", **form})
        reference = db.scalar("select reference from sandbox_sessions order by opened_at desc limit 1")
        processor(app).choose(reference, CHOICES["approve"])
        carry(app)
        assert len(cards.of_customer(demo_customer.customer_id)) == kept
    card = cards.of_customer(demo_customer.customer_id)[0]
    assert (card.label, card.consent) == ("Visa •••• 4242", cards.consent())
    assert abs(card.consented_at - clock.now()) < timedelta(minutes=1)
    assert card.label in owner.get("/cards").text


def test_a_card_is_added_without_paying_and_never_by_the_address_alone(app, demo_customer, owner, stranger):
    assert owner.submit("/cards").status_code == 422
    page = owner.submit("/cards", {"consent": "1"})
    setup = db.scalar("select public_id from card_setups")
    assert page.status_code == 303
    owner.get(f"/cards/added/{setup}?session_id=anything&state=kept")
    assert cards.of_customer(demo_customer.customer_id) == []
    processor(app).choose(db.scalar("select reference from sandbox_sessions"), CHOICES["approve"], "asks")
    assert stranger.get(f"/cards/added/{setup}").status_code == 404
    assert owner.get(f"/cards/added/{setup}").location == "/cards"
    carry(app)
    assert [card.label for card in cards.of_customer(demo_customer.customer_id)] == ["Mastercard •••• 3184"]
    assert wallet.state(demo_customer.customer_id).available == 0


def test_the_webhook_alone_and_the_job_alone_save_it_too(app, demo_customer):
    assert add_card(app, demo_customer).last4 == "4242"
    page = cards.add(demo_customer.customer_id)
    processor(app).choose(page.reference, CHOICES["silent"], "asks")
    assert cards.reconcile() == 1
    assert len(cards.of_customer(demo_customer.customer_id)) == 2


def test_a_card_that_is_kept_is_found_though_nobody_answered_for_hours(app, demo_customer):
    page = cards.add(demo_customer.customer_id)
    processor(app).choose(page.reference, CHOICES["silent"])
    processor(app).down = True
    with clock.travel(clock.now() + timedelta(hours=5)):
        assert cards.reconcile() == 0
        processor(app).down = False
        assert cards.reconcile() == 1
    assert [card.last4 for card in cards.of_customer(demo_customer.customer_id)] == ["4242"]


def test_a_card_that_is_kept_after_its_page_was_given_up_is_its_owners_all_the_same(app, demo_customer):
    page = cards.add(demo_customer.customer_id)
    with clock.travel(clock.now() + timedelta(hours=5)):
        cards.reconcile()
        assert db.scalar("select state from card_setups") == "expired"
    snapshot = Snapshot(page.reference, db.scalar("select public_id from card_setups"), "kept", card=a_kept_card(demo_customer))
    with db.transaction():
        assert cards.take_in("sandbox", snapshot)
    with db.transaction():
        assert cards.take_in("sandbox", replace(snapshot, state="expired", card=None))
    assert len(cards.of_customer(demo_customer.customer_id)) == 1
    assert db.scalar("select state from card_setups") == "kept"


def a_kept_card(user):
    """A card as its processor tells of it."""
    return KeptCard(cards.holder(user.customer_id, "sandbox"), "sbpm_late", "visa", "4242", 12, 2040, "fp_late")


def test_the_same_card_again_takes_the_old_ones_place(app, demo_customer):
    first = add_card(app, demo_customer)
    service = short_service(demo_customer, first)
    second = add_card(app, demo_customer)
    assert (first.public_id, len(cards.of_customer(demo_customer.customer_id))) == (second.public_id, 1)
    assert first.token != second.token
    assert services.find(demo_customer.customer_id, service.public_id).card_id == second.id
    assert cards.forget_removed() == 1
    assert db.scalar("select token from sandbox_cards where forgotten_at is not null") == first.token


def kept(app: Flask, user: User) -> payments.Payment:
    """A payment that was paid on the processor's page with the box ticked, of which nobody has told us yet."""
    payment = of(payments.start(user.customer_id, topup(user, EUR("40")).number, "sandbox-card", keep=True))
    choose(app, payment, "silent")
    return payment


@pytest.mark.parametrize("unshown", [{"last4": ""}, {"brand": ""}, {"exp_month": 0}, {"last4": None}])
def test_a_card_that_cannot_be_shown_does_not_undo_the_money_it_came_with(app, demo_customer, unshown):
    payment = kept(app, demo_customer)
    snapshot = gateways.get("sandbox").lookup(payment.gateway_reference)
    assert payments.apply("sandbox", replace(snapshot, card=replace(snapshot.card, **unshown))).state == "paid"
    assert (times_credited(payment), cards.of_customer(demo_customer.customer_id)) == (1, [])


def test_a_card_is_saved_before_the_money_is_held_as_renewals_hold_them(app: Flask, demo_customer, superuser: psycopg.Connection):
    fund(demo_customer.customer_id, 10_00)
    payment = kept(app, demo_customer)

    def hear() -> str:
        with app.app_context():
            return payments.refresh(payment).state

    with ThreadPoolExecutor(1) as pool:
        with superuser.transaction():
            superuser.execute("select 1 from customers where id = %s for no key update", (demo_customer.customer_id,))
            heard = pool.submit(hear)
            while not superuser.execute("select 1 from pg_locks where not granted").fetchone():
                assert not heard.done()
            superuser.execute("select 1 from accounts where customer_id = %s for no key update nowait", (demo_customer.customer_id,))
        assert heard.result() == "paid"


# Paying


def test_one_click_pays_by_the_saved_card(app, demo_customer, owner):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))
    page = owner.get(f"/invoices/{bill.number}/pay").text
    assert page.index("Visa •••• 4242") < page.index("Bank card")
    assert f'value="card:{card.public_id}" checked' in page
    for _ in range(2):
        owner.submit(f"/invoices/{bill.number}/pay", {"method": f"card:{card.public_id}"})
    assert charges(app) == 1
    assert wallet.state(demo_customer.customer_id).available == 40_00
    carry(app)
    assert wallet.state(demo_customer.customer_id).available == 40_00


def test_the_bank_that_asks_is_answered_on_the_processors_page(app, demo_customer, owner):
    card, bill = add_card(app, demo_customer, "asks"), topup(demo_customer, EUR("40"))
    answer = owner.submit(f"/invoices/{bill.number}/pay", {"method": f"card:{card.public_id}"})
    assert answer.location.startswith("/sandbox/pay/")
    assert paid_by(bill.id) == ["failed", "created"]


def test_a_strangers_card_charges_nothing(app, demo_customer, stranger):
    card = add_card(app, demo_customer)
    theirs = db.scalar("select customer_id from users where login = 'boris'")
    bill = payments.order_topup(theirs, EUR("25"))
    assert stranger.submit(f"/invoices/{bill.number}/pay", {"method": f"card:{card.public_id}"}).status_code == 422
    assert stranger.submit(f"/cards/{card.public_id}/remove").status_code == 404
    assert charges(app) == 0
    assert cards.of_customer(demo_customer.customer_id)[0].usable


def test_a_lost_answer_is_unknown_until_it_is_asked_for_and_charged_once(app, demo_customer, monkeypatch):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))
    vault = processor(app).cards
    charge = vault.charge

    def lost(asked):
        charge(asked)
        raise NoAnswer("The answer was lost.")

    monkeypatch.setattr(vault, "charge", lost)
    with pytest.raises(payments.ProcessorDown):
        payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    assert paid_by(bill.id) == ["unknown"]
    monkeypatch.undo()
    with clock.travel(clock.now() + timedelta(minutes=5)):
        payments.reconcile()
    assert (paid_by(bill.id), charges(app), wallet.state(demo_customer.customer_id).available) == (["paid"], 1, 40_00)


def test_a_process_that_died_before_the_call_is_gone_on_with_by_the_same_key(app, demo_customer, monkeypatch):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))

    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processor(app).cards, "charge", die)
    with pytest.raises(KeyboardInterrupt):
        payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    monkeypatch.undo()
    payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    assert (paid_by(bill.id), charges(app)) == (["paid"], 1)


def test_a_charge_whose_time_is_over_is_asked_about_and_never_made_beside_the_next(app, demo_customer, monkeypatch):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))
    charge = processor(app).cards.charge

    def pay() -> None:
        payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)

    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processor(app).cards, "charge", die)
    with pytest.raises(KeyboardInterrupt):
        pay()

    def given_up_meanwhile(asked):
        monkeypatch.setattr(processor(app).cards, "charge", charge)
        payments.reconcile()
        pay()
        return charge(asked)

    monkeypatch.setattr(processor(app).cards, "charge", given_up_meanwhile)
    with clock.travel(clock.now() + timedelta(minutes=26)):
        pay()
        payments.reconcile()
        pay()
    assert (charges(app), wallet.state(demo_customer.customer_id).available) == (1, 40_00)


@pytest.mark.parametrize("reached", [True, False])
def test_no_other_way_is_opened_while_nobody_knows_whether_the_card_was_charged(app, demo_customer, monkeypatch, reached):
    card, bill = add_card(app, demo_customer), bill_of_service(demo_customer)
    vault = processor(app).cards
    charge = vault.charge

    def lost(asked):
        if reached:
            charge(asked)
        raise NoAnswer("The answer was lost.")

    monkeypatch.setattr(vault, "charge", lost)
    with pytest.raises(payments.ProcessorDown, match="do not know yet"):
        payments.pay_by_card(demo_customer.customer_id, bill, card.public_id)
    fund(demo_customer.customer_id, 100_00)
    with pytest.raises(payments.NotPayable, match="being charged"):
        payments.pay_from_balance(demo_customer.customer_id, bill)
    with pytest.raises(payments.NotPayable if reached else payments.ProcessorDown, match="a moment ago" if reached else "whether Visa"):
        payments.start(demo_customer.customer_id, bill, "sandbox-card")
    with clock.travel(clock.now() + timedelta(minutes=26)):
        payments.reconcile()
        if not reached:
            payments.start(demo_customer.customer_id, bill, "sandbox-card")
    assert charges(app) == reached


def test_eight_clicks_at_once_are_one_charge(app: Flask, demo_customer):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))

    def click(_: int) -> str:
        with app.app_context():
            try:
                payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
            except (payments.NotPayable, payments.ProcessorDown) as refusal:
                return type(refusal).__name__
            return "done"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(click, range(8)))
    assert "done" in said
    assert (paid_by(bill.id), charges(app), wallet.state(demo_customer.customer_id).available) == (["paid"], 1, 40_00)


def test_a_card_paid_amount_goes_back_to_the_card(app, demo_customer):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))
    payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    reference = db.scalar("select gateway_reference from payments where bill_id = %(id)s", id=bill.id)
    assert gateways.get("sandbox").refund(reference, EUR("15"), "rf_1").state == "settled"


# Renewals


def test_a_renewal_goes_to_the_card_when_the_balance_is_short(app, demo_customer):
    card = add_card(app, demo_customer)
    service = short_service(demo_customer, card)
    with due():
        assert services.renew_due().short == 1
        assert db.scalar("select count(*) from mails where kind = 'renewal_short'") == 0
        assert services.renew_by_card() == {"paid": 1}
        assert (services.renew_by_card(), services.renew_due().renewed) == ({}, 0)
    now = services.find(demo_customer.customer_id, service.public_id)
    assert now.paid_through == services.period_end(service.renews_on, 1, DAY.day)
    assert (charges(app), wallet.state(demo_customer.customer_id).available) == (1, 0)


def test_without_agreement_no_card_is_charged(app, demo_customer, owner):
    card = add_card(app, demo_customer)
    service = short_service(demo_customer, None)
    assert owner.submit(f"/services/{service.public_id}/payment", {"source": card.public_id}).status_code == 422
    with due():
        services.renew_due()
        assert services.renew_by_card() == {}
        assert db.scalar("select count(*) from mails where kind = 'renewal_short'") == 1
    assert owner.submit(f"/services/{service.public_id}/payment", {"source": card.public_id, "consent": "1"}).status_code == 303
    assert "charge its whole price to Visa •••• 4242" in db.scalar("select card_consent from services")
    assert "then Visa •••• 4242" in owner.get("/services").text


def test_a_bank_that_asks_stops_the_tries_and_a_mail_leads_to_the_payment(app, demo_customer):
    service = short_service(demo_customer, add_card(app, demo_customer, "asks"))
    for days in range(31, 36):
        with due(days):
            services.renew_due()
            services.renew_by_card()
    letters = [letter for letter in mail.newest(50) if letter.kind == "card_declined"]
    assert len(letters) == 1
    assert "Your bank wants you to confirm" in letters[0].subject
    bill = services.of_customer(demo_customer.customer_id)[0].waiting
    assert f"/invoices/{bill}/pay" in letters[0].text
    failed = db.row("select failure_code from payments where off_session")
    assert failed.failure_code == ASKED_FOR
    assert services.find(demo_customer.customer_id, service.public_id).renews_on == service.renews_on


def test_a_decline_is_tried_once_a_day_and_three_times_in_all(app, demo_customer):
    short_service(demo_customer, add_card(app, demo_customer, "empty"))
    tried = []
    for days in range(31, 37):
        with due(days):
            services.renew_due()
            tried.append([services.renew_by_card(), services.renew_by_card()])
    assert tried == [[{"failed": 1}, {}]] * 3 + [[{}, {}]] * 3
    assert db.scalar("select count(*) from mails where kind = 'card_declined'") == 3


def test_a_new_card_is_tried_though_the_old_one_was_declined_three_times(app, demo_customer, owner):
    service = short_service(demo_customer, add_card(app, demo_customer, "empty"))
    for days in (31, 32, 33):
        with due(days):
            services.renew_due()
            services.renew_by_card()
    with due(33):
        good = add_card(app, demo_customer)
        services.pay_from(demo_customer.customer_id, service.public_id, good.public_id)
        assert services.renew_by_card() == {"paid": 1}, "the tries of the old card are not its own"
    now = services.find(demo_customer.customer_id, service.public_id)
    assert now.paid_through == services.period_end(service.renews_on, 1, DAY.day)


@pytest.mark.parametrize("closed", ["cancelled", "expired"])
def test_a_card_named_after_the_bill_was_closed_pays_a_new_one(app, demo_customer, closed):
    service = short_service(demo_customer, None)
    with due(31):
        services.renew_due()
        number = services.of_customer(demo_customer.customer_id)[0].waiting
        if closed == "cancelled":
            invoicing.cancel(demo_customer.customer_id, number)
    with due(80):
        invoicing.expire_due()
        card = add_card(app, demo_customer)
        services.pay_from(demo_customer.customer_id, service.public_id, card.public_id)
        services.renew_due()
        assert services.renew_by_card() == {"paid": 1}
    bill = invoicing.find(demo_customer.customer_id, number)
    assert (bill.status, charges(app)) == (closed, 1)


def test_a_stolen_card_is_never_charged_again(app, demo_customer, owner):
    short_service(demo_customer, add_card(app, demo_customer, "stolen"))
    for days in (31, 32):
        with due(days):
            services.renew_due()
            services.renew_by_card()
    assert db.scalar("select count(*) from payments where off_session") == 1
    assert not cards.of_customer(demo_customer.customer_id)[0].usable
    assert "Not accepted by its bank any more" in owner.get("/cards").text


def test_two_workers_charge_a_renewal_once(app: Flask, demo_customer):
    short_service(demo_customer, add_card(app, demo_customer))
    with due():
        services.renew_due()
    moment = DAY + timedelta(31)

    def work(_: int) -> None:
        with app.app_context(), on(moment):
            services.renew_by_card()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (charges(app), db.scalar("select count(*) from payments where off_session")) == (1, 1)


def test_the_balance_does_not_pay_what_a_card_is_being_charged_for(app, demo_customer, monkeypatch):
    short_service(demo_customer, add_card(app, demo_customer))
    with due():
        services.renew_due()

        def top_up_meanwhile(asked):
            fund(demo_customer.customer_id, 100_00)
            assert services.renew_due().renewed == 0
            return charge(asked)

        charge = processor(app).cards.charge
        monkeypatch.setattr(processor(app).cards, "charge", top_up_meanwhile)
        assert services.renew_by_card() == {"paid": 1}
    assert wallet.state(demo_customer.customer_id).available == 100_00


@pytest.mark.parametrize("choice", [None, "pending"])
def test_a_bill_that_is_being_paid_another_way_is_not_charged_to_the_card(app, demo_customer, choice):
    short_service(demo_customer, add_card(app, demo_customer))
    with due():
        services.renew_due()
        (waiting,) = services.of_customer(demo_customer.customer_id)
        payment = begin(invoicing.find(demo_customer.customer_id, waiting.waiting), "sandbox-bank")
        if choice:
            choose(app, payment, choice)
            carry(app)
        assert services.renew_by_card() == {}
    assert db.scalar("select count(*) from payments where off_session") == 0


def test_a_page_opened_while_a_renewal_is_about_to_charge_the_card_keeps_it_from_it(app, demo_customer, monkeypatch):
    short_service(demo_customer, add_card(app, demo_customer))
    with due():
        services.renew_due()
        number, chosen = db.scalar("select proforma_number from bills where status = 'unpaid'"), starting._chosen

        def meanwhile(bill, key):
            monkeypatch.setattr(starting, "_chosen", chosen)
            payments.start(demo_customer.customer_id, number, "sandbox-paypal")
            return chosen(bill, key)

        monkeypatch.setattr(starting, "_chosen", meanwhile)
        services.renew_by_card()
    assert charges(app) == 0
    assert [tuple(row) for row in db.rows("select method, state from payments where card_id is null or off_session")] == [("paypal", "created")]


def test_who_switches_it_off_during_a_run_is_not_charged_in_it(app, demo_customer, monkeypatch):
    card = add_card(app, demo_customer)
    short_service(demo_customer, card)
    second = short_service(demo_customer, card, "web-2")
    charge = processor(app).cards.charge

    def switched_off_meanwhile(asked):
        services.pay_from(demo_customer.customer_id, second.public_id)
        return charge(asked)

    monkeypatch.setattr(processor(app).cards, "charge", switched_off_meanwhile)
    with due():
        assert services.renew_due().short == 2
        assert services.renew_by_card() == {"paid": 1}
    assert charges(app) == 1


def test_a_card_whose_time_is_over_stands_in_for_nothing_and_its_owner_is_told(app, demo_customer):
    short_service(demo_customer, add_card(app, demo_customer))
    with db.transaction():
        db.execute("update saved_cards set exp_month = 3, exp_year = 2026")
    with due():
        services.renew_due()
        assert services.renew_by_card() == {}
        assert db.scalar("select count(*) from mails where kind = 'renewal_short'") == 1


def letters(*kinds: str) -> list[mail.Mail]:
    return [letter for letter in reversed(mail.newest(99)) if letter.kind in kinds]


def test_a_card_that_expires_is_told_of_once_where_renewals_rely_on_it(app, demo_customer):
    card = add_card(app, demo_customer)
    short_service(demo_customer, card, "web-1")
    with db.transaction():
        db.execute("update saved_cards set exp_month = 5, exp_year = 2026")
    for days in (0, 25, 31, 32):
        with due(days):
            services.warn_of_cards()
    (letter,) = [letter for letter in letters("saved_card") if "expires" in letter.subject]
    assert letter.subject == f"{card.label} expires soon"
    assert "can be charged until May 31, 2026" in letter.text
    assert "web-1" in letter.text


def test_where_a_card_stands_in_nobody_is_warned_of_a_short_balance(app, demo_customer):
    short_service(demo_customer, add_card(app, demo_customer))
    with due(26):
        assert services.warn_short() == 0
    with db.transaction():
        db.execute("update services set card_id = null, payment_source = 'balance', card_consent = null, card_consented_at = null")
    with due(26):
        assert services.warn_short() == 1


def test_a_decline_is_explained_in_its_readers_language(app, demo_customer):
    short_service(demo_customer, add_card(app, demo_customer, "empty"))
    with db.transaction():
        db.execute("update users set locale = 'pl'")
    with due():
        services.renew_due()
        services.renew_by_card()
    (letter,) = letters("card_declined")
    assert "Podany powód: Brak wystarczających środków na tę płatność." in letter.text


# Removing


def test_who_removes_a_card_waits_for_no_other(app, demo_customer):
    card = add_card(app, demo_customer)
    with db.transaction():
        db.execute("insert into card_removals (gateway, token, due_at) values ('sandbox', 'sbpm_other', %(now)s)", now=clock.now())
    services.remove_card(demo_customer.customer_id, card.public_id)
    assert dict(db.rows("select token, tries from card_removals")) == {"sbpm_other": 0, card.token: 1}


def test_a_removed_card_is_unusable_at_once_and_forgotten_when_the_processor_answers(app, demo_customer, owner):
    card = add_card(app, demo_customer)
    service = short_service(demo_customer, card)
    processor(app).down = True
    owner.submit(f"/cards/{card.public_id}/remove")
    assert f"{service.label} renews from the balance alone now" in owner.get("/cards").text
    saved, removed = letters("saved_card")
    assert [saved.subject, removed.subject] == [f"{card.label} is saved", f"{card.label} is removed"]
    assert f"These services renew from your balance alone now: {service.label}." in removed.text
    assert cards.of_customer(demo_customer.customer_id) == []
    bill = topup(demo_customer, EUR("25"))
    with pytest.raises(payments.NotPayable):
        payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    processor(app).down = False
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert (cards.forget_removed(), cards.forget_removed()) == (1, 0)
    with due():
        services.renew_due()
        assert services.renew_by_card() == {}


def test_a_card_removed_while_it_is_charged_is_charged_once_and_its_money_is_credited(app, demo_customer, monkeypatch):
    card, bill = add_card(app, demo_customer), topup(demo_customer, EUR("40"))
    charge = processor(app).cards.charge

    def removed_meanwhile(asked):
        services.remove_card(demo_customer.customer_id, card.public_id)
        return charge(asked)

    monkeypatch.setattr(processor(app).cards, "charge", removed_meanwhile)
    payments.pay_by_card(demo_customer.customer_id, bill.number, card.public_id)
    assert paid_by(bill.id) == ["failed"]
    assert (charges(app), wallet.state(demo_customer.customer_id).available) == (0, 0)
    assert times_credited(again(begin(topup(demo_customer, Money.of("25", "EUR"))))) == 0


def test_a_renewal_that_a_saved_card_pays_is_not_said_to_be_short(app, demo_customer, owner):
    card = add_card(app, demo_customer)
    short_service(demo_customer, card)
    with due(10):
        page = owner.get("/services").text
        assert "Short" not in page
        assert "By card" in page
        assert "then the saved card stands in" in page
        assert "by card" in owner.get("/balance").text
        services.pay_from(demo_customer.customer_id, services.of_customer(demo_customer.customer_id)[0].public_id)
        assert "Short" in owner.get("/services").text
