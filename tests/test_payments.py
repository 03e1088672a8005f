"""From a bill to the credited balance: started once, credited once, converted at the rate that was shown, whatever happens in between."""

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any

import psycopg
import pypdfium2
import pytest
from flask import Flask

import config
from app import clock, customers, db, fx, gateways, invoicing, payments, wallet
from app.customers import User
from app.formats import formats
from app.gateways.base import Charge, NoAnswer, Redirect, Refused, Snapshot
from app.invoicing import Bill, BillError, Draft, Line, Settlement, paper, press
from app.ledger import InsufficientFunds
from app.mail import MailError
from app.money import Money
from app.payments import NotPayable, Payment, ProcessorDown, QuoteExpired, book, starting
from tests.conftest import BERLIN, person, sign_in
from tests.pay import again, begin, carry, choose, of, processor, publish_rates, times_credited, topup
from tests.test_cards import add_card
from tests.trade import fund
from tests.world import GUEST


def balance(user: User) -> int:
    assert user.customer_id
    return wallet.state(user.customer_id).available


def system_balance(kind: str, currency: str) -> int:
    found = db.scalar(
        "select sum(e.amount)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = %(kind)s and a.currency = %(currency)s", kind=kind, currency=currency
    )
    return found or 0


def service_bill(user: User, net: int = 10_00) -> Bill:
    assert user.customer_id
    with db.transaction():
        return invoicing.issue_service_bill(user.customer_id, "vps-7", "EUR", [Line("VPS M", net)])


@pytest.fixture
def newcomer(app: Flask) -> User:
    """A customer whose account has no currency yet."""
    return person("nina", name="Nina New", profile=replace(BERLIN, name="Nina New", currency=None))


# What two do at once


def blocked(superuser: psycopg.Connection, work: Future[object]) -> None:
    """Wait until somebody waits for a lock."""
    while not superuser.execute("select 1 from pg_locks where not granted").fetchone():
        assert not work.done()


def test_the_first_money_of_an_account_and_its_next_order_wait_for_each_other_in_one_order(app: Flask, newcomer: User, superuser: psycopg.Connection):
    bill = topup(newcomer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, "silent")

    def hear() -> str:
        with app.app_context():
            return payments.refresh(payment).state

    with ThreadPoolExecutor(1) as pool:
        with superuser.transaction():  # as `order_topup` does when the same is asked for again
            superuser.execute("select 1 from customers where id = %s for no key update", (newcomer.customer_id,))
            heard = pool.submit(hear)
            blocked(superuser, heard)
            superuser.execute("select 1 from bills where id = %s for no key update nowait", (bill.id,))
        assert heard.result() == "paid"


@pytest.mark.parametrize("ended", ["paid", "cancelled", "charged"])
def test_no_page_is_opened_for_a_bill_that_ended_while_it_was_asked_for(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch, ended: str):
    fund(demo_customer.customer_id or 0, 100_00)
    bill, charge = service_bill(demo_customer), starting._charge
    card = add_card(app, demo_customer)

    def meanwhile(*arguments: Any) -> Charge:
        monkeypatch.setattr(starting, "_charge", charge)
        if ended == "paid":
            payments.pay_from_balance(demo_customer.customer_id or 0, bill.number)
        elif ended == "cancelled":
            invoicing.cancel(demo_customer.customer_id or 0, bill.number)
        else:
            starting.claim_for_card(bill, card, "", unasked=False)
        return charge(*arguments)

    monkeypatch.setattr(starting, "_charge", meanwhile)
    with pytest.raises(NotPayable, match="charged to a saved card" if ended == "charged" else "is paid already|is cancelled already"):
        payments.start(demo_customer.customer_id or 0, bill.number, "sandbox-paypal")
    assert db.scalar("select count(*) from payments where method = 'paypal'") == 0


def test_a_bill_that_is_being_paid_is_not_closed_for_its_date_and_nobody_waits(app: Flask, demo_customer: User, superuser: psycopg.Connection):
    paying, other = topup(demo_customer, Money.of("25", "EUR")), topup(demo_customer, Money.of("30", "EUR"))

    def close() -> int:
        with app.app_context():
            return invoicing.expire_due()

    with clock.travel(clock.now() + timedelta(days=15)), ThreadPoolExecutor(1) as pool:
        with superuser.transaction():
            superuser.execute("select 1 from bills where id = %s for no key update", (paying.id,))
            closed = pool.submit(copy_context().run, close)
            while not closed.done():
                assert not superuser.execute("select 1 from pg_locks where not granted").fetchone()
            assert closed.result() == 1
        assert dict(db.rows("select id, status from bills")) == {paying.id: "unpaid", other.id: "expired"}
        assert invoicing.expire_due() == 1


def test_a_page_that_opened_while_another_click_was_refused_is_asked_about(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    bill, found = topup(demo_customer, Money.of("25", "EUR")), gateways.get("sandbox")
    assert found
    checkout = found.checkout

    def meanwhile(charge: Charge) -> Any:
        page = checkout(charge)
        (payment,) = payments.open_of(bill.id)
        with pytest.raises(ProcessorDown):
            starting.record_failure(payment, Refused("Refused."), over=True)
        return page

    monkeypatch.setattr(found, "checkout", meanwhile)
    payment = begin(bill)
    assert payment.state == "failed"
    choose(app, payment, "silent")
    with clock.travel(clock.now() + timedelta(minutes=3)):
        assert payments.reconcile() == {"paid": 1}
    assert (times_credited(payment), balance(demo_customer)) == (1, 25_00)


def test_a_webhook_the_return_page_and_the_job_all_at_once_credit_once(app: Flask, demo_customer: User):
    for amount in ("25", "26", "27"):
        payment = begin(topup(demo_customer, Money.of(amount, "EUR")))
        choose(app, payment, "silent")
        inbox = payments.receive("sandbox", *_signed(app, payment.gateway_reference or "", "paid"))
        start = Barrier(8)

        def hear(way: int, payment: Payment = payment, inbox: int = inbox, start: Barrier = start) -> None:
            with app.app_context():
                start.wait()
                if way % 4 == 0:
                    payments.process(inbox)
                elif way % 4 == 1:
                    payments.refresh(payment)
                elif way % 4 == 2:
                    payments.reconcile_all()
                else:
                    payments.replay(inbox)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(hear, range(8)))
        assert (again(payment).state, times_credited(payment)) == ("paid", 1)
    assert balance(demo_customer) == 78_00
    assert db.scalar("select count(*) from documents where kind = 'invoice'") == db.scalar("select count(*) from transfers where kind = 'fee'") == 3
    assert db.scalar("select count(*) from mails where kind = 'payment_confirmed'") == 3


# The straight way


def test_a_payment_is_credited_and_the_bill_becomes_an_invoice(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, "approve")
    assert carry(app) == 1
    paid = again(payment)
    assert (paid.state, paid.received, paid.credited, paid.method_label) == ("paid", 2500, 2500, "Visa •••• 4242")
    assert balance(demo_customer) == 2500
    settled = payments.bill_of(paid)
    assert (settled.status, settled.invoice_number, settled.receipt_number) == ("paid", "TU-2026-000001", "RC-2026-000001")
    assert [step.state for step in payments.timeline(paid)] == ["started", "created", "paid"]


def test_the_processors_fee_is_the_houses_not_the_customers(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("100", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    assert again(payment).fee == 140
    assert (balance(demo_customer), system_balance("gateway", "EUR"), system_balance("fees", "EUR")) == (100_00, -98_60, -1_40)


def receipt_text(payment: Payment, number: str = "") -> str:
    """What a payment's receipt says, printed in this process."""
    content = db.scalar("select content from documents where number = %(number)s", number=number or invoicing.receipts_of(payment.id)[-1])
    with pypdfium2.PdfDocument(press.to_pdf(paper.sheet(content))) as document:
        return " ".join(document[0].get_textpage().get_text_range().split())


def test_a_second_payment_of_a_paid_bill_has_its_own_receipt(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    first, second = begin(bill), begin(bill, "sandbox-bank")
    for payment in (first, second):
        choose(app, payment, "approve")
        carry(app)
    (one,), (other,) = (invoicing.receipts_of(payment.id) for payment in (first, second))
    assert (one, other) == ("RC-2026-000001", "RC-2026-000002")
    said = receipt_text(second)
    for words in (
        "Received € 25.00",
        "Added to the balance € 25.00",
        "For TU-2026-000001",
        second.public_id,
        f"Processor's reference {again(second).gateway_reference}",
        "not a VAT invoice",
    ):
        assert words in said
    letters = [row.attachments for row in db.rows("select attachments from mails where kind = 'payment_confirmed' order by id")]
    assert [[file["document"] for file in files] for files in letters] == [["TU-2026-000001", one], [other]]
    page = sign_in(app.test_client(), demo_customer).get(f"/payments/{second.public_id}").text
    assert "€\xa025.00 added to your balance" in page
    assert f"/payments/{second.public_id}/receipt.pdf?number={other}" in page


def test_each_part_of_a_bill_has_its_own_receipt(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    for amount in (20_00, 5_00):
        with db.transaction():
            payments.take_in([payments.Arrival(f"x:{amount}", demo_customer.customer_id or 0, bill.id, Money(amount, "EUR"), clock.now())])
    first, second = (book.read(row.public_id) for row in db.rows("select public_id from payments order by id"))
    assert first
    assert second
    (one,), (two,) = (invoicing.receipts_of(payment.id) for payment in (first, second))
    assert "Received € 20.00" in receipt_text(first)
    said = receipt_text(second)
    for words in ("Received € 5.00", "Paid before € 20.00", "Added to the balance € 5.00", "Total € 25.00"):
        assert words in said
    assert db.scalar("select (payment ->> 'credited')::integer from bills") == 25_00
    assert one != two


def test_a_credit_has_one_receipt_and_each_says_of_which_transfer(app: Flask, demo_customer: User, vandal):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    with db.transaction():
        payments.take_in([payments.Arrival("x:1", demo_customer.customer_id or 0, bill.id, Money(20_00, "EUR"), clock.now())])
    insert = """
    insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content, transfer_id)
    select bill_id, customer_id, {kind}, 'X', issued_at, total, currency, content, {transfer} from documents where kind = 'payment_receipt'
    """
    for kind, transfer, rule in (
        ("kind", "transfer_id", "documents_transfer"),
        ("kind", "null", "documents_receipt_of_transfer"),
        ("'credit_note'", "transfer_id", "documents_receipt_of_transfer"),
    ):
        with pytest.raises(psycopg.errors.IntegrityError, match=rule):
            vandal.execute(insert.format(kind=kind, transfer=transfer))


def test_one_mail_confirms_it(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "twice")
    carry(app)
    (mail,) = db.rows("select recipient, subject, body_text from mails where kind = 'payment_confirmed'")
    assert (mail.recipient, mail.subject) == ("anna@example.com", "€\xa025.00 received: TU-2026-000001")
    assert "/invoices/TU-2026-000001" in mail.body_text


@pytest.mark.parametrize("broken", ["app.mail.compose", "app.mail._outgoing"])
def test_a_mail_that_cannot_be_written_undoes_no_money(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str):
    def fail(*_: object, **__: object) -> None:
        raise MailError("a sentence that is missing")

    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    monkeypatch.setattr(broken, fail)
    carry(app)
    assert (again(payment).state, balance(demo_customer), times_credited(payment)) == ("paid", 25_00, 1)
    assert "was not mailed" in caplog.text
    bill = service_bill(demo_customer)
    assert payments.pay_from_balance(demo_customer.customer_id or 0, bill.number).status == "paid"


def test_an_answer_that_names_another_payment_is_no_fault_on_the_page_of_who_comes_back(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "silent")
    found = gateways.get("sandbox")
    assert found
    snapshot = found.lookup(payment.gateway_reference or "")
    assert snapshot
    monkeypatch.setattr(found, "lookup", lambda _reference: replace(snapshot, reference="sb_other"))
    page = sign_in(app.test_client(), demo_customer).get(f"/payments/{payment.public_id}")
    assert (page.status_code, "is not paid yet" in page.text, balance(demo_customer)) == (200, True, 0)


def test_a_payer_without_an_address_is_credited_all_the_same(app: Flask, demo_customer: User, superuser: psycopg.Connection):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    superuser.execute("update customers set billing_email = 'not an address'")
    choose(app, payment, "approve")
    carry(app)
    assert balance(demo_customer) == 2500


@pytest.mark.parametrize(("text", "currency", "minor"), [("800", "JPY", 800), ("2.750", "KWD", 2750), ("25.01", "EUR", 2501)])
def test_minor_units_are_those_of_the_currency(app: Flask, newcomer: User, text: str, currency: str, minor: int):
    payment = begin(topup(newcomer, Money.of(text, currency)))
    choose(app, payment, "approve")
    carry(app)
    assert wallet.state(newcomer.customer_id or 0) == replace(wallet.state(newcomer.customer_id or 0), available=minor, currency=currency)


@pytest.mark.parametrize("choice", ["twice", "disorder", "silent", "pending", "late"])
def test_however_it_is_told_it_is_credited_once(app: Flask, demo_customer: User, choice: str):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, choice)
    carry(app)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        carry(app)
        payments.reconcile()
        assert (again(payment).state, times_credited(payment), balance(demo_customer)) == ("paid", 1, 2500)


@pytest.mark.parametrize("choice", ["decline-funds", "decline-card", "decline-bank", "decline-3ds"])
def test_a_decline_takes_nothing_and_says_why(app: Flask, demo_customer: User, choice: str):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, choice)
    carry(app)
    failed = again(payment)
    assert (failed.state, balance(demo_customer)) == ("failed", 0)
    assert failed.failure_message
    assert payments.bill_of(failed).unpaid


# Started once


def test_the_same_choice_again_is_the_page_that_is_open_already(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    assert begin(bill) == begin(bill)
    assert begin(bill, "sandbox-paypal").public_id != begin(bill).public_id
    assert db.scalar("select count(*) from sandbox_sessions") == 2


def test_twenty_at_once_open_one_page(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))

    def click(_: int) -> str:
        with app.app_context():
            handoff = payments.start(bill.customer_id, bill.number, "sandbox-card")
            assert isinstance(handoff, Redirect)
            return handoff.url

    with ThreadPoolExecutor(10) as pool:
        pages = set(pool.map(click, range(20)))
    assert len(pages) == 1
    assert db.scalar("select count(*) from sandbox_sessions") == 1
    assert db.scalar("select count(*) from payments") == 1


def test_the_same_order_a_moment_later_is_the_bill_that_waits(app: Flask, demo_customer: User):
    assert topup(demo_customer, Money.of("25", "EUR")) == topup(demo_customer, Money.of("25", "EUR"))
    assert topup(demo_customer, Money.of("26", "EUR")).number == "PF-2026-000002"
    with clock.travel(clock.now() + timedelta(hours=2)):
        assert topup(demo_customer, Money.of("25", "EUR")).number == "PF-2026-000003"


def test_a_payment_on_its_way_leads_back_to_its_own_page(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, "pending")
    carry(app)
    handoff = payments.start(bill.customer_id, bill.number, "sandbox-card")
    assert isinstance(handoff, Redirect)
    assert handoff.url == f"http://localhost/payments/{payment.public_id}"


def test_after_the_page_closed_a_new_one_opens(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    first = begin(bill)
    with clock.travel(clock.now() + timedelta(hours=3)):
        second = begin(bill)
        assert second.public_id != first.public_id
        assert again(first).state == "expired"


def test_after_the_page_closed_paid_and_untold_no_new_one_opens(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, "silent")
    with clock.travel(clock.now() + timedelta(hours=3)), pytest.raises(NotPayable, match="paid a moment ago"):
        begin(bill)
    assert times_credited(payment) == 1


def test_what_cannot_be_chosen_is_refused_with_the_reason(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("8", "EUR"))
    for method, reason in (("sandbox-crypto", "from"), ("sandbox-nothing", "Choose"), ("", "Choose")):
        with pytest.raises(NotPayable, match=reason):
            payments.start(bill.customer_id, bill.number, method)
    with pytest.raises(NotPayable, match="no such bill"):
        payments.start(bill.customer_id, "PF-2026-999999", "sandbox-card")
    with pytest.raises(NotPayable, match="no such bill"):
        payments.start(person("eve").customer_id or 0, bill.number, "sandbox-card")
    assert db.scalar("select count(*) from payments") == 0


def test_nothing_is_started_for_a_profile_that_is_not_complete(app: Flask):
    user = person("ida", profile=replace(BERLIN, street=""))
    with pytest.raises(NotPayable, match="profile"):
        begin(topup(user, Money.of("25", "EUR")))


# Limits


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [("4.99", "smallest top-up is €\xa05.00"), ("10000.01", "largest top-up is €\xa010,000.00"), ("5.00", None), ("10000", None)],
)
def test_limits_are_said_in_the_currency(app: Flask, demo_customer: User, amount: str, sentence: str | None):
    problem = payments.topup_problem(formats("en", "UTC"), Money.of(amount, "EUR"))
    assert problem is None if sentence is None else sentence in (problem or "")


def test_the_largest_balance_counts_what_a_foreign_amount_becomes(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    publish_rates()
    monkeypatch.setitem(payments.LIMITS, "EUR", payments.Limits(5_00, 10_000_00, 200_00))
    assert begin(topup(demo_customer, Money.of("216", "USD"))).state == "created"
    with pytest.raises(NotPayable, match=r"above €\xa0200\.00, the most an account may hold"):
        begin(topup(demo_customer, Money.of("217", "USD")))
    with pytest.raises(NotPayable, match="the most an account may hold"):
        begin(topup(demo_customer, Money.of("250", "EUR")))


# Other currencies


def test_a_foreign_payment_is_credited_at_exactly_the_rate_that_was_shown(app: Flask, demo_customer: User):
    publish_rates()
    bill = topup(demo_customer, Money.of("250", "USD"))
    shown = payments.options(bill).offer
    assert shown is not None
    payment = begin(bill)
    with clock.travel(clock.now() + timedelta(minutes=40)):
        publish_rates(USD="1.2")
        choose(app, payment, "approve")
        carry(app)
    paid = again(payment)
    assert (paid.credited, paid.credited_currency) == (shown.credited.minor, "EUR")
    assert balance(demo_customer) == shown.credited.minor == 230_69
    assert (system_balance("fx", "USD"), system_balance("fx", "EUR")) == (250_00, -230_69)
    assert "1 USD = 0.922765 EUR (ECB" in paid.rate_note
    assert "rate of that day" not in paid.rate_note
    (lot,) = wallet.lots(demo_customer.customer_id or 0)
    assert (lot.paid, lot.paid_currency, lot.credited) == (250_00, "USD", 230_69)


def test_the_margin_is_an_entry_of_its_own(app: Flask, demo_customer: User):
    publish_rates()
    config.use(replace(config.current(), fx_spread_bp=150))
    try:
        payment = begin(topup(demo_customer, Money.of("250", "USD")))
    finally:
        config.use(replace(config.current(), fx_spread_bp=0))
    choose(app, payment, "approve")
    carry(app)
    credited = again(payment).credited or 0
    assert (credited, system_balance("revenue", "EUR"), system_balance("fx", "EUR")) == (227_23, 3_46, -230_69)


@pytest.mark.parametrize("token", ["", "garbage", "other amount", "other currency", "expired"])
def test_without_the_rate_that_was_shown_nothing_starts(app: Flask, demo_customer: User, token: str):
    publish_rates()
    bill = topup(demo_customer, Money.of("250", "USD"))
    tokens = {
        "other amount": lambda: fx.seal(fx.offer(Money.of("2500", "USD"), "EUR")),
        "other currency": lambda: fx.seal(fx.offer(Money.of("250", "USD"), "PLN")),
        "expired": lambda: fx.seal(replace(fx.offer(Money.of("250", "USD"), "EUR"), expires_at=clock.now())),
    }
    with pytest.raises(QuoteExpired):
        begin(bill, token=tokens[token]() if token in tokens else token)
    assert db.scalar("select count(*) from payments") == 0


def test_the_rate_the_customer_saw_last_is_the_one_that_counts(app: Flask, demo_customer: User, vandal):
    publish_rates()
    bill = topup(demo_customer, Money.of("250", "USD"))
    first = begin(bill)
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(USD="1.05")
        vandal.execute("update payments set expires_at = %s", (clock.now() + timedelta(minutes=30),))
        with db.transaction():
            db.execute("update sandbox_sessions set expires_at = %(later)s", later=clock.now() + timedelta(minutes=30))
        second = begin(bill)
        assert second.public_id == first.public_id
        assert begin(bill, token="expired by now").public_id == first.public_id
        choose(app, second, "approve")
        carry(app)
        assert again(second).credited == 238_09


def test_money_that_was_paid_already_keeps_its_rate_when_a_newer_one_is_shown(app: Flask, demo_customer: User, vandal):
    publish_rates()
    bill = topup(demo_customer, Money.of("250", "USD"))
    first = begin(bill)
    choose(app, first, "silent")
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(USD="1.05")
        vandal.execute("update payments set expires_at = %s", (clock.now() + timedelta(minutes=30),))
        with pytest.raises(NotPayable, match="paid a moment ago"):
            begin(bill)
        assert (again(first).state, again(first).credited, balance(demo_customer)) == ("paid", 230_69, 230_69)


@pytest.mark.parametrize("order", [payments.order_topup, payments.order_for])
def test_a_rate_that_ends_while_the_order_is_written_is_no_fault(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch, order: object):
    publish_rates()
    token, usd = fx.seal(fx.offer(Money.of("250", "USD"), "EUR")), Money.of("250", "USD")
    link = payments.ask(demo_customer.customer_id or 0, "Anna", None)
    late = clock.now() + fx.OFFER_LIFE
    opened = fx.unseal

    def slowly(token: str) -> fx.Offer | None:
        found = opened(token)
        clocks.enter_context(clock.travel(late))
        return found

    with ExitStack() as clocks, monkeypatch.context() as slow:
        slow.setattr(fx, "unseal", slowly)
        if order is payments.order_topup:
            payments.order_topup(demo_customer.customer_id or 0, usd, token)
        else:
            payments.order_for(link, usd, token, GUEST, locale="en")
    assert (db.scalar("select count(*) from quotes"), db.scalar("select total from bills")) == (0, 250_00)


def test_money_after_the_rate_was_held_is_converted_at_the_rate_of_that_day_and_says_so(app: Flask, demo_customer: User):
    publish_rates()
    payment = begin(topup(demo_customer, Money.of("250", "USD")))
    processor(app).choose(payment.gateway_reference or "", _late_choice())
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(USD="1.1")
        with db.transaction():
            db.execute("update sandbox_sessions set next_at = %(now)s", now=clock.now() - timedelta(seconds=1))
        payments.reconcile()
        paid = again(payment)
        assert (paid.state, paid.credited) == ("paid", 227_27)
        assert "No rate was held when the money arrived" in paid.rate_note
        assert "No rate was held" in (payments.bill_of(paid).payment or {})["rate_note"]


def _late_choice():
    from app.sandbox_processor import CHOICES

    return CHOICES["late"]


def test_money_paid_in_time_and_heard_of_late_keeps_its_rate(app: Flask, demo_customer: User):
    publish_rates()
    payment = begin(topup(demo_customer, Money.of("250", "USD")))
    choose(app, payment, "silent")
    with clock.travel(clock.now() + timedelta(days=2)):
        publish_rates(USD="1.15")
        payments.reconcile()
        assert again(payment).credited == 230_69


def test_money_that_cannot_be_converted_now_waits_for_a_person(app: Flask, demo_customer: User):
    publish_rates()
    payment = begin(topup(demo_customer, Money.of("250", "USD")))
    processor(app).choose(payment.gateway_reference or "", _late_choice())
    with clock.travel(clock.now() + timedelta(days=20)):
        with db.transaction():
            db.execute("update sandbox_sessions set next_at = %(now)s", now=clock.now() - timedelta(seconds=1))
        payments.reconcile()
        assert (again(payment).state, balance(demo_customer), system_balance("suspense", "USD")) == ("review", 0, 250_00)


def test_the_first_top_up_gives_the_account_its_currency(app: Flask, newcomer: User):
    publish_rates()
    dollars, zloty = begin(topup(newcomer, Money.of("50", "USD"))), begin(topup(newcomer, Money.of("100", "PLN")))
    choose(app, zloty, "approve")
    carry(app)
    choose(app, dollars, "approve")
    carry(app)
    state = wallet.state(newcomer.customer_id or 0)
    assert (state.currency, state.available) == ("PLN", 100_00 + 196_15)
    assert "No rate was held" in again(dollars).rate_note


# Bills


def test_a_top_up_is_never_paid_from_the_balance(app: Flask, demo_customer: User, superuser: psycopg.Connection):
    payment = begin(topup(demo_customer, Money.of("100", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    bill = topup(demo_customer, Money.of("40", "EUR"))
    with pytest.raises(NotPayable, match="adds to your balance"):
        payments.pay_from_balance(bill.customer_id, bill.number)
    with pytest.raises(NotPayable):
        payments.start(bill.customer_id, bill.number, "balance")
    with db.transaction(), pytest.raises(BillError):
        invoicing.settle(bill, Settlement(clock.now(), "Account balance", source="balance"))
    with pytest.raises(psycopg.errors.CheckViolation, match="topup_is_paid_from_outside"):
        forged = "update bills set status = 'paid', invoice_number = 'X', invoiced_at = now(), paid_at = now(), settled_by = 'balance', payment = '{}' where id = %s"
        superuser.execute(forged, (bill.id,))
    assert balance(demo_customer) == 100_00


def test_a_service_bill_is_paid_straight_by_card_in_two_transfers(app: Flask, demo_customer: User):
    bill = service_bill(demo_customer)
    payment = begin(bill)
    choose(app, payment, "approve")
    carry(app)
    kinds = [row.kind for row in db.rows("select kind from transfers where bill_id = %(id)s order by id", id=bill.id)]
    assert kinds == ["topup", "charge"]
    assert payments.bill_of(again(payment)).status == "paid"
    assert (balance(demo_customer), system_balance("revenue", "EUR"), system_balance("vat", "EUR")) == (0, 10_00, 1_90)


def test_a_service_bill_is_paid_from_the_balance_or_not_at_all(app: Flask, demo_customer: User):
    bill = service_bill(demo_customer)
    with pytest.raises(InsufficientFunds):
        payments.pay_from_balance(bill.customer_id, bill.number)
    payment = begin(topup(demo_customer, Money.of("20", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    assert payments.pay_from_balance(bill.customer_id, bill.number).status == "paid"
    assert balance(demo_customer) == 8_10
    with pytest.raises(NotPayable, match="paid already"):
        payments.pay_from_balance(bill.customer_id, bill.number)
    assert balance(demo_customer) == 8_10


def test_a_second_payment_of_a_paid_bill_lands_on_the_balance_and_says_so(app: Flask, demo_customer: User):
    bill = service_bill(demo_customer)
    first, second = begin(bill), begin(bill, "sandbox-paypal")
    for payment in (first, second):
        choose(app, payment, "approve")
    carry(app)
    assert balance(demo_customer) == bill.total
    assert "paid already, so the money was added to the balance" in payments.timeline(again(second))[-1].note
    assert db.scalar("select count(*) from documents where kind = 'invoice'") == 1


def test_a_cancelled_top_up_that_is_paid_after_all_adds_its_money_and_gets_its_invoice(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    invoicing.cancel(bill.customer_id, bill.number)
    choose(app, payment, "approve")
    carry(app)
    assert (balance(demo_customer), payments.bill_of(payment).status) == (2500, "paid")


def test_a_cancelled_service_bill_is_not_charged_for_when_its_money_comes(app: Flask, demo_customer: User):
    bill = service_bill(demo_customer)
    payment = begin(bill)
    invoicing.cancel(bill.customer_id, bill.number)
    choose(app, payment, "approve")
    carry(app)
    assert (balance(demo_customer), payments.bill_of(payment).status) == (bill.total, "cancelled")


# When the house falls over in between


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@pytest.fixture
def gateway() -> Iterator[gateways.Gateway]:
    found = gateways.get("sandbox")
    assert found
    yield found
    gateways.use({"sandbox": found})


class Fatal:
    """A gateway whose call kills the process, before or after the processor heard of it."""

    def __init__(self, inner: gateways.Gateway, verb: str, *, after: bool) -> None:
        self._inner, self._verb, self._after = inner, verb, after

    def __getattr__(self, name: str):
        verb = getattr(self._inner, name)
        if name != self._verb:
            return verb

        def die(*arguments: object) -> None:
            if self._after:
                verb(*arguments)
            raise Killed

        return die


@pytest.mark.parametrize("after", [False, True])
def test_killed_while_opening_the_page_the_next_click_goes_on(app: Flask, demo_customer: User, gateway: gateways.Gateway, after: bool):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    gateways.use({"sandbox": Fatal(gateway, "checkout", after=after)})
    with pytest.raises(Killed):
        begin(bill)
    gateways.use({"sandbox": gateway})
    payment = begin(bill)
    choose(app, payment, "approve")
    carry(app)
    assert (db.scalar("select count(*) from sandbox_sessions"), times_credited(payment)) == (1, 1)


def test_killed_after_opening_the_page_reconciling_finds_what_was_paid_there(app: Flask, demo_customer: User, gateway: gateways.Gateway):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    gateways.use({"sandbox": Fatal(gateway, "checkout", after=True)})
    with pytest.raises(Killed):
        begin(bill)
    gateways.use({"sandbox": gateway})
    (payment,) = payments.open_of(bill.id)
    found = gateway.lookup(payment.public_id)
    assert found
    choose(app, replace(payment, gateway_reference=found.reference), "silent")
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"paid": 1}
    assert times_credited(payment) == 1


@pytest.mark.parametrize("verb", ["look up", "settle", "mail"])
def test_killed_while_crediting_nothing_half_done_stands_and_the_next_try_does_it(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch, verb: str):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    targets = {"look up": ("app.payments.inbox.settling.take_in",), "settle": ("app.invoicing.settle",), "mail": ("app.mail.inform_many",)}

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(targets[verb][0], die)
        with pytest.raises(Killed):
            carry(app)
    assert (again(payment).state, balance(demo_customer), db.scalar("select count(*) from transfers")) == ("created", 0, 0)
    assert payments.process_due() == {"done": 1}
    assert (times_credited(payment), balance(demo_customer)) == (1, 2500)


def test_one_bad_webhook_stops_no_other(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    bad, good = begin(topup(demo_customer, Money.of("25", "EUR"))), begin(topup(demo_customer, Money.of("30", "EUR")))
    for payment in (bad, good):
        choose(app, payment, "approve")
    lookup = gateways.get("sandbox").lookup

    def poisoned(_: object, reference: str) -> Snapshot | None:
        if reference == bad.gateway_reference:
            raise RuntimeError("poison")
        return lookup(reference)

    monkeypatch.setattr("app.gateways.sandbox.Sandbox.lookup", poisoned)
    carry(app)
    assert (again(good).state, again(bad).state) == ("paid", "created")
    with clock.travel(clock.now() + timedelta(days=1)):
        tries = [payments.process_due() for _ in range(2)]
    assert tries[0] == {"new": 1}


def test_one_bad_payment_stops_no_other_from_being_reconciled(app: Flask, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    bad, good = begin(topup(demo_customer, Money.of("25", "EUR"))), begin(topup(demo_customer, Money.of("30", "EUR")))
    choose(app, good, "silent")
    lookup = gateways.get("sandbox").lookup

    def poisoned(_: object, reference: str) -> Snapshot | None:
        if reference == bad.gateway_reference:
            raise NoAnswer("down")
        return lookup(reference)

    monkeypatch.setattr("app.gateways.sandbox.Sandbox.lookup", poisoned)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        assert payments.reconcile() == {"unanswered": 1, "paid": 1}


def test_the_processor_down_is_said_and_the_bill_stays_payable(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    processor(app).down = True
    try:
        with pytest.raises(ProcessorDown, match="stays payable"):
            begin(bill)
        assert payments.refresh(payments.open_of(bill.id)[0]).state == "unknown"
    finally:
        processor(app).down = False
    assert begin(bill).state == "created"


# Many


def test_ten_thousand_deliveries_of_2500_payments_credit_2500_times(app: Flask, demo_customer: User):
    """Each payment four deliveries, two of them the same event, in any order, by eight threads at once, the return page in between."""
    rng = random.Random(2500)
    customer_ids = [demo_customer.customer_id or 0, *(person(f"many-{n}", profile=BERLIN).customer_id or 0 for n in range(49))]
    amounts = [rng.randrange(5_00, 400_00) for _ in range(2500)]
    references = _paid_sessions(customer_ids, amounts)
    deliveries = [(reference, kind) for reference in references for kind in ("pending", "paid", "paid", "failed")]
    rng.shuffle(deliveries)

    def work(part: list[tuple[str, str]]) -> None:
        with app.app_context():
            for reference, kind in part:
                payments.process(payments.receive("sandbox", *_signed(app, reference, kind)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [deliveries[n::8] for n in range(8)]))
    with clock.travel(clock.now() + timedelta(hours=1)):  # one that waited too long for a lock is worked later, as in life
        payments.process_due()
    states = {row.state: row.count for row in db.rows("select state, count(*) from payments group by state")}
    assert states == {"paid": 2500}
    assert db.scalar("select count(*) from transfers where kind = 'topup'") == 2500
    assert db.scalar("select count(*) from webhooks where state = 'done'") == 7500
    assert sum(wallet.state(customer_id).available for customer_id in customer_ids) == sum(amounts)
    assert db.scalar("select count(distinct invoice_number) from bills") == 2500
    assert db.scalar("select last from number_series where kind = 'topup_invoice'") == 2500


def _signed(app: Flask, reference: str, kind: str) -> tuple[bytes, dict[str, str]]:
    from app.gateways.sandbox import SIGNATURE_HEADER, sign

    now = int(clock.now().timestamp())
    body = f'{{"id": "{reference}-{kind}", "type": "payment.{kind}", "created": {now}, "account": "acct_sandbox", "reference": "{reference}"}}'.encode()
    return body, {SIGNATURE_HEADER: sign(body, processor(app).secret, now)}


def _paid_sessions(customer_ids: list[int], amounts: list[int]) -> list[str]:
    """A payment each, and the processor's session behind it, paid; written in bulk, as what matters here comes after."""
    owners = [customer_ids[n % len(customer_ids)] for n in range(len(amounts))]
    with db.transaction():
        bills = invoicing.issue_many(
            [Draft(owner, "Account funds", "EUR", (Line("Account funds", amount),), kind="topup", beneficiary_id=owner) for owner, amount in zip(owners, amounts, strict=True)]
        )
        now, later = clock.now(), clock.now() + timedelta(hours=1)
        rows: list[dict[str, object]] = [
            {"bill": bill.id, "owner": bill.customer_id, "amount": bill.total, "id": f"pay_{bill.id}", "reference": f"sb_{bill.id}", "now": now, "later": later} for bill in bills
        ]
        db.many(_PAYMENT, rows)
        db.many(_SESSION, rows)
    return [f"sb_{bill.id}" for bill in bills]


_PAYMENT = """
insert into payments (public_id, bill_id, customer_id, payer_id, method, gateway, amount, currency, charge, gateway_reference, method_label,
  created_at, updated_at, checked_at, expires_at)
values (%(id)s, %(bill)s, %(owner)s, %(owner)s, 'paypal', 'sandbox', %(amount)s, 'EUR', '{}', %(reference)s, 'PayPal', %(now)s, %(now)s, %(now)s, %(later)s)
"""
_SESSION = """
insert into sandbox_sessions (reference, charge_id, method, title, amount, currency, return_url, cancel_url, state, received, label, paid_at, opened_at, expires_at)
values (%(reference)s, %(id)s, 'paypal', '', %(amount)s, 'EUR', '', '', 'paid', %(amount)s, 'PayPal', %(now)s, %(now)s, %(later)s)
"""


def test_the_book_reads_back_what_was_asked(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    charge = payment.as_charge()
    assert (charge.id, charge.amount, charge.method, charge.expires_at) == (payment.public_id, Money(2500, "EUR"), "card", payment.expires_at)
    assert book.find(payment.payer_id, payment.public_id) == payment
    assert book.find(payment.payer_id + 1, payment.public_id) is None
    assert of(Redirect("", payment.gateway_reference or "")) == payment


# What the outside world does in between


def test_without_a_rate_nothing_starts_and_the_page_says_why(app: Flask, demo_customer: User):
    publish_rates()
    bill = topup(demo_customer, Money.of("250", "USD"))
    with clock.travel(clock.now() + timedelta(days=12)):
        browser = sign_in(app.test_client(), demo_customer)
        answer = browser.submit(f"/invoices/{bill.number}/pay", {"method": "sandbox-card"})
        assert answer.status_code == 422
        assert "no current exchange rate" in answer.text


def test_a_silent_processor_is_said_when_it_is_asked_about_the_payment_before(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    begin(bill)
    processor(app).down = True
    try:
        with clock.travel(clock.now() + timedelta(hours=3)), pytest.raises(ProcessorDown, match="stays payable"):
            begin(bill)
    finally:
        processor(app).down = False


def test_money_for_a_paid_bill_in_another_currency_lands_where_its_owner_sees_it(app: Flask, demo_customer: User):
    publish_rates()
    assert demo_customer.customer_id
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id, "vps-7", "USD", [Line("VPS M", 10_00)])
    for payment in (begin(bill), begin(bill, "sandbox-paypal")):
        choose(app, payment, "approve")
    carry(app)
    assert balance(demo_customer) == fx.offer(bill.amount, "EUR").credited.minor


def test_a_bill_paid_from_the_balance_was_not_received(app: Flask, demo_customer: User):
    fund(demo_customer.customer_id or 0, 60_00)
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id or 0, "vps-7", "EUR", [Line("VPS M", 10_00)])
    paid = payments.pay_from_balance(bill.customer_id, bill.number)
    letter = db.rows("select subject, body_text from mails where kind = 'payment_confirmed' order by id desc limit 1")[0]
    assert letter.subject == f"{paid.number} is paid from your balance"
    assert "was taken from your balance on" in letter.body_text
    assert not {"received", "arrived"} & set(letter.body_text.split())


def test_what_a_bonus_pays_stays_on_the_balance_and_the_mail_says_so(app: Flask, demo_customer: User):
    with db.transaction():
        wallet.grant_bonus(demo_customer.customer_id or 0, Money(5_00, "EUR"), reference="b1")
        bill = invoicing.issue_service_bill(demo_customer.customer_id or 0, "vps-7", "EUR", [Line("VPS M", 10_00)])
        payments.take_in([payments.Arrival("x:1", bill.customer_id, bill.id, Money(20_00, "EUR"), clock.now())])
    text = db.scalar("select body_text from mails where kind = 'payment_confirmed' order by id desc limit 1")
    assert "Your bonus took €\xa05.00 off the price." in text
    assert "€\xa013.10 of your payment stays on your balance." in text
    assert wallet.state(bill.customer_id).available == 13_10


def test_what_is_left_to_pay_counts_what_was_credited_after_a_look(app: Flask, demo_customer: User):
    bill = topup(demo_customer, Money.of("37", "EUR"))
    payment = begin(bill)
    odd = Snapshot(again(payment).gateway_reference or "", payment.public_id, "paid", received=Money(33_30, "EUR"))
    payments.apply(payment.gateway, odd)
    (held,) = db.rows("select number, payment_id from held")
    with db.transaction():
        customers.hold(bill.customer_id)
        payments.credit_held(held.payment_id, Money(33_30, "EUR"), held.number)
    text = db.scalar("select body_text from mails where kind = 'payment_confirmed' order by id desc limit 1")
    assert "€\xa03.70 of " in text
    assert "€\xa037.00 of" not in text
