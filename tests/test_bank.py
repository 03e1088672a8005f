"""Bank transfers: every line of every file once, its money to whom the reference names, the rest in sight."""

import gzip
import random
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from itertools import count

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import bank, clock, db, invoicing, ledger, payments, refunds, remittance, wallet
from app.bank import BankError, FileRefused
from app.customers import User
from app.gateways.base import Instructions
from app.invoicing import Bill, Line
from app.money import Money
from app.payments import book
from tests.banks import ADVICE, DUTCH, EUR_ACCOUNT, GERMAN, INTRADAY, POLISH, SENDER, Batch, Style, Transfer, camt, mt940
from tests.conftest import BERLIN, person
from tests.pay import publish_rates, topup


def balance(user: User) -> int:
    assert user.customer_id
    return wallet.state(user.customer_id).available


def held(kind: str, currency: str = "EUR") -> int:
    found = db.scalar(
        "select sum(e.amount)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = %(kind)s and a.currency = %(currency)s", kind=kind, currency=currency
    )
    return found or 0


def take(data: bytes, name: str = "file.xml", **how) -> bank.Report:
    return bank.import_file(data, name, **how)


def whole() -> bool:
    return list(ledger.check()) == []


def bill_now(bill: Bill) -> Bill:
    found = invoicing.find(bill.customer_id, bill.proforma_number or "")
    assert found
    return found


def wait_for(bill: Bill) -> payments.Payment:
    """The customer chose the transfer; the payment that waits for it."""
    handoff = payments.start(bill.customer_id, bill.number, "bank-transfer")
    assert isinstance(handoff, Instructions)
    found = payments.find(bill.customer_id, handoff.reference)
    assert found
    return found


@pytest.fixture
def bill(app: Flask, demo_customer: User) -> Bill:
    """An unpaid top-up of € 100."""
    return topup(demo_customer, Money.of("100", "EUR"))


def paying(bill: Bill, minor: int | None = None, **more) -> Transfer:
    """The transfer that pays a bill as it asks for it."""
    return Transfer(bill.total if minor is None else minor, structured=bill.payment_reference or "", **more)


# The straight way


def test_the_reference_of_a_bill_is_valid_and_its_own(bill: Bill):
    assert bill.payment_reference
    assert list(remittance.references(f"bitte {remittance.grouped(bill.payment_reference)} 2026 danke"))[-1:] == [bill.payment_reference]
    assert bill.payment_reference == remittance.reference(bill.customer_id, bill.proforma_number or "")


def test_a_transfer_pays_its_bill(demo_customer: User, bill: Bill):
    payment = wait_for(bill)
    assert payment.state == "pending"
    report = take(camt([paying(bill)]))
    paid = payments.find(bill.customer_id, payment.public_id)
    assert paid
    assert (report.counts, paid.state, paid.credited, balance(demo_customer)) == ({"matched": 1}, "paid", 100_00, 100_00)
    settled = bill_now(bill)
    assert (settled.status, settled.invoice_number, settled.receipt_number) == ("paid", "TU-2026-000001", "RC-2026-000001")
    assert (held("bank"), held("suspense"), held("wallet")) == (-100_00, 0, 100_00)
    (letter,) = db.rows("select subject from mails where kind = 'payment_confirmed'")
    assert letter.subject == "€\xa0100.00 received: TU-2026-000001"
    assert whole()


def test_reconciling_leaves_a_transfer_alone(bill: Bill):
    payment = wait_for(bill)
    with clock.travel(clock.now() + timedelta(days=3)):
        payments.reconcile()
        found = payments.find(bill.customer_id, payment.public_id)
        assert found
        assert found.state == "pending"


STYLES = {
    "German, structured": (lambda bill: camt([paying(bill)], GERMAN)),
    "German, in the text, cut at 35 characters": (
        lambda bill: camt([Transfer(bill.total, text=f"Zahlung vom 20.11. Ref. {remittance.grouped(bill.payment_reference or '')} Danke")], GERMAN)
    ),
    "Dutch, version 08": (lambda bill: camt([paying(bill)], DUTCH)),
    "Dutch, in the end-to-end id": (lambda bill: camt([Transfer(bill.total, text="betaling", end_to_end=bill.payment_reference or "")], DUTCH)),
    "with a prefix, the pro forma's number": (lambda bill: camt([Transfer(bill.total, text=f"Oplata {bill.proforma_number}")], replace(DUTCH, prefix="ns2:"))),
    "the number without its dashes": (lambda bill: camt([Transfer(bill.total, text=f"invoice {(bill.proforma_number or '').replace('-', ' ')}")])),
    "an advice": (lambda bill: camt([paying(bill, reference="A1")], ADVICE)),
    "MT940, German": (lambda bill: mt940([paying(bill, reference="B1")])),
    "MT940, Dutch": (lambda bill: mt940([paying(bill)], "slashes")),
    "MT940, Polish separators": (lambda bill: mt940([Transfer(bill.total, text=f"za {bill.proforma_number} dziekuje")], "polish")),
    "lower case, spaced, after other words": (lambda bill: camt([Transfer(bill.total, text=f"ref: {remittance.grouped(bill.payment_reference or '').lower()} thx")])),
    "split over three lines of the text": (
        lambda bill: camt([Transfer(bill.total, text=f"Payment of our order, {remittance.grouped(bill.payment_reference or '')}, many thanks to you")])
    ),
    "the number cut at the end of a line": (lambda bill: camt([Transfer(bill.total, text=f"Payment of our last order {bill.proforma_number} of today")])),
    "an instant payment, by an ultimate debtor": (lambda bill: camt([paying(bill, family="INST")]).replace(b"<Dbtr><Nm>", b"<UltmtDbtr><Nm>Ana Ultima</Nm></UltmtDbtr><Dbtr><Nm>")),
    "Latin-1": (lambda bill: camt([paying(bill, sender="M\u00fcller")]).decode().replace("UTF-8", "ISO-8859-1").encode("latin-1")),
    "UTF-8 with a mark, ends of lines as on Windows": (lambda bill: b"\xef\xbb\xbf" + camt([paying(bill, sender="Müller")]).replace(b"><", b">\r\n<")),
    "in sixteen bits": (lambda bill: camt([paying(bill)]).decode().replace("UTF-8", "UTF-16").encode("utf-16")),
    "MT940 in Latin-1": (lambda bill: mt940([paying(bill, sender="Müller")]).decode().encode("latin-1")),
    "MT940 in a SWIFT envelope": (lambda bill: b"{1:F01COBADEFFXXXX0000000000}{2:I940COBADEFFXXXXN}{4:\r\n" + mt940([paying(bill)]) + b"}"),
    "the bank's own words beside": (lambda bill: camt([paying(bill)]).replace(b"</RltdPties>", b"</RltdPties><AddtlTxInf>SEPA GUTSCHRIFT</AddtlTxInf>", 1)),
    "a batch": (lambda bill: camt([Batch((paying(bill), Transfer(5_00, text="other")), reference="BATCH")])),
}


@pytest.mark.parametrize("style", STYLES)
def test_however_a_bank_writes_it_the_bill_is_paid(demo_customer: User, bill: Bill, style: str):
    report = take(STYLES[style](bill), style)
    assert report.refused == []
    assert (report.counts["matched"], bill_now(bill).status, balance(demo_customer)) == (1, "paid", 100_00)
    assert whole()


def test_a_polish_bank_and_zloty(app: Flask):
    user = person("wanda", profile=replace(BERLIN, name="Wanda", country="PL", currency="PLN"))
    bill = topup(user, Money.of("250", "PLN"))
    report = take(camt([Transfer(250_00, text=f"{bill.payment_reference}")], POLISH))
    assert (report.refused, balance(user), held("bank", "PLN")) == ([], 250_00, -250_00)


# What did not come as it was asked for


def test_too_little_is_credited_and_the_bill_stays_open_for_the_rest(demo_customer: User, bill: Bill):
    wait_for(bill)
    take(camt([paying(bill, 60_00)], replace(GERMAN, id="1")))
    assert (bill_now(bill).status, balance(demo_customer), book.due(bill)) == ("unpaid", 60_00, Money(40_00, "EUR"))
    again = payments.start(bill.customer_id, bill.number, "bank-transfer")
    assert isinstance(again, Instructions)
    assert dict(again.lines)["Amount"] == "40.00"
    take(camt([paying(bill, 40_00, day="2026-11-21")], replace(GERMAN, id="2")))
    settled = bill_now(bill)
    assert settled.payment
    assert (settled.status, balance(demo_customer), settled.payment["paid"], settled.payment["credited"]) == ("paid", 100_00, 100_00, 100_00)
    notes = [row.note for row in db.rows("select note from payment_events where state = 'paid' order by id")]
    assert notes == [f"€\xa060.00 was added to the balance; €\xa040.00 of {bill.proforma_number} is still open.", "TU-2026-000001 was issued."]
    assert whole()


def test_too_much_pays_the_bill_and_stays_on_the_balance(demo_customer: User, bill: Bill):
    take(camt([paying(bill, 120_00)]))
    assert (bill_now(bill).status, balance(demo_customer)) == ("paid", 120_00)
    assert "That is €\xa020.00 more than TU-" in db.scalar("select body_text from mails where kind = 'payment_confirmed'")


def test_a_second_transfer_of_a_paid_bill_lands_on_the_balance(demo_customer: User, bill: Bill):
    take(camt([paying(bill, reference="A"), paying(bill, reference="B")]))
    assert (balance(demo_customer), db.scalar("select count(*) from documents where kind = 'invoice'")) == (200_00, 1)
    assert whole()


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_money_for_a_closed_bill_still_counts(demo_customer: User, bill: Bill, end: str):
    payment = wait_for(bill)
    with clock.travel(clock.now() + timedelta(days=40)):
        assert invoicing.cancel(bill.customer_id, bill.number) if end == "cancelled" else invoicing.expire_due()
        payments.reconcile()
        expired = payments.find(bill.customer_id, payment.public_id)
        assert expired
        assert (expired.state, expired.failure_message) == ("expired", "The money did not arrive in time.")
        take(camt([paying(bill)]))
        assert (bill_now(bill).status, balance(demo_customer)) == ("paid", 100_00)


def test_another_currency_is_converted_at_the_rate_on_receipt_and_the_receipt_says_so(demo_customer: User, bill: Bill):
    publish_rates()
    take(camt([Transfer(425_15, structured=bill.payment_reference or "")], POLISH))
    assert (balance(demo_customer), bill_now(bill).status) == (100_00, "paid")
    assert "it is the rate of that day" in (bill_now(bill).payment or {})["rate_note"]
    assert (held("bank", "PLN"), held("suspense", "PLN"), held("fx", "PLN"), held("fx")) == (-425_15, 0, 425_15, -100_00)


def test_what_cannot_be_converted_waits_and_can_be_booked_later(demo_customer: User, bill: Bill):
    data = camt([Transfer(425_15, structured=bill.payment_reference or "")], POLISH)
    report = take(data)
    assert (report.counts, balance(demo_customer), held("suspense", "PLN")) == ({"suspense": 1}, 0, 425_15)
    assert "There is no exchange rate yet" in report.waiting[0]
    publish_rates()
    (line,) = bank.unmatched()
    bank.match_by_hand(line.id, "anna", actor="sven", reason="its reference", number=bill.number)
    assert (balance(demo_customer), bill_now(bill).status, bank.unmatched()) == (100_00, "paid", [])


def test_a_service_bill_is_paid_and_charged(demo_customer: User):
    assert demo_customer.customer_id
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id, "vps-7", "EUR", [Line("VPS M", 10_00)])
    take(camt([paying(bill, 5_00, reference="1")]))
    assert (bill_now(bill).status, balance(demo_customer)) == ("unpaid", 5_00)
    take(camt([paying(bill, bill.total - 5_00, reference="2")], replace(GERMAN, id="2")))
    assert (bill_now(bill).status, balance(demo_customer)) == ("paid", 0)
    assert whole()


def test_banks_on_the_way_keep_something_and_it_is_said(demo_customer: User, bill: Bill):
    take(camt([paying(bill, 85_00, sent=100_00)]))
    assert (balance(demo_customer), bill_now(bill).status) == (85_00, "unpaid")
    assert "Banks on the way kept €\xa015.00 of it." in db.scalar("select body_text from mails where kind = 'payment_confirmed'")


# Whose it is


@pytest.mark.parametrize("text", ["login anna", "Add funds, login: anna", "Konto: ANNA", "top-up, LOGIN anna thank you", "Benutzername anna"])
def test_a_login_in_the_reference_credits_its_customer(demo_customer: User, text: str):
    assert take(camt([Transfer(30_00, text=text, sender="Jan Nowak")])).counts == {"matched": 1}
    assert balance(demo_customer) == 30_00
    assert db.scalar("select count(*) from documents") == 2
    assert whole()


@pytest.mark.parametrize("text", ["Best wishes to anna from us all", "annas", "anna", "Add funds for anna", "account anna", "Konto: Anna Kowalska", "login annas", "Danke", ""])
def test_a_word_that_happens_to_be_a_login_is_not_enough(demo_customer: User, text: str):
    assert take(camt([Transfer(30_00, text=text, sender="Anna Kowalska")])).counts == {"suspense": 1}
    assert (balance(demo_customer), held("suspense")) == (0, 30_00)


def test_a_known_sender_pays_the_only_open_bill_of_that_amount(demo_customer: User, bill: Bill):
    take(camt([paying(bill)]))
    second = topup(demo_customer, Money.of("55", "EUR"))
    take(camt([Transfer(55_00, text="Hosting", day="2026-11-22")], replace(GERMAN, id="2")))
    assert bill_now(second).status == "paid"
    other = [topup(demo_customer, Money.of("70", "EUR"))]
    with clock.travel(clock.now() + timedelta(hours=2)):
        other.append(topup(demo_customer, Money.of("70", "EUR")))
    report = take(camt([Transfer(70_00, text="Hosting", day="2026-11-23")], replace(GERMAN, id="3")))
    assert report.waiting[0].endswith("Its sender has several open bills of this amount.")
    assert take(camt([Transfer(70_00, text="Hosting", iban="NL91ABNA0417164300")], replace(GERMAN, id="4"))).counts == {"suspense": 1}


def test_a_stranger_may_pay_a_bill(demo_customer: User, bill: Bill):
    take(camt([paying(bill, sender="Somebody Else", iban="NL91ABNA0417164300")]))
    assert bill_now(bill).status == "paid"


def test_what_nobody_can_be_named_for_is_booked_by_hand_with_its_reason(demo_customer: User):
    take(camt([Transfer(30_00, text="thanks"), Transfer(-9_00, text="rent", iban="")]))
    waiting = bank.unmatched()
    assert [line.amount for line in waiting] == [30_00, -9_00]
    with pytest.raises(BankError, match="No customer logs in as nobody"):
        bank.match_by_hand(waiting[0].id, "nobody", actor="sven", reason="a guess")
    with pytest.raises(BankError, match="No line"):
        bank.match_by_hand(waiting[1].id, "anna", actor="sven", reason="a guess")
    assert bank.match_by_hand(waiting[0].id, "anna", actor="sven", reason="she called") == "30.00 EUR is on the balance of anna."
    with pytest.raises(BankError, match="No line"):
        bank.match_by_hand(waiting[0].id, "anna", actor="sven", reason="twice")
    kept = db.rows("select actor, reason, rule from bank_lines where state = 'matched'")[0]
    assert (tuple(kept), balance(demo_customer)) == (("staff:sven", "she called", "by hand"), 30_00)
    assert whole()


# What the bank takes


def test_charges_of_the_bank_are_the_houses(bill: Bill):
    report = take(camt([Transfer(-2_50, text="Kontofuehrung", family="CHRG", iban="")]))
    assert (report.counts, held("bank"), held("fees"), held("suspense")) == ({"charge": 1}, 2_50, -2_50, 0)


def test_a_batch_whose_charges_were_taken_off_credits_what_each_sent(demo_customer: User, bill: Bill):
    take(camt([Batch((paying(bill), Transfer(10_00, text="login anna")), reference="B", charges=1_20)]))
    assert (balance(demo_customer), held("bank"), held("fees")) == (110_00, -108_80, -1_20)
    assert whole()


def test_a_batch_that_does_not_add_up_waits_as_a_whole(demo_customer: User, bill: Bill):
    report = take(camt([Batch((paying(bill), Transfer(10_00, text="login anna")), reference="B", total=111_00)]))
    assert (report.counts, balance(demo_customer), held("suspense")) == ({"suspense": 1}, 0, 111_00)


RETURNS = {
    "RRTN": lambda minor: Transfer(-minor, family="RRTN", end_to_end="E2E-7", day="2026-11-24"),
    "with its reason": lambda minor: Transfer(-minor, return_reason="AC04", end_to_end="E2E-7", day="2026-11-24"),
    "a reversal": lambda minor: Transfer(-minor, reversal=True, end_to_end="E2E-7", day="2026-11-24"),
}


def test_a_return_that_comes_before_its_transfer_takes_it_back_all_the_same(demo_customer: User, bill: Bill):
    take(camt([RETURNS["RRTN"](100_00)], replace(GERMAN, id="2")))
    take(camt([paying(bill, end_to_end="E2E-7")]))
    assert (balance(demo_customer), held("suspense"), held("bank"), db.scalar("select state from payments")) == (0, 0, 0, "taken_back")
    assert bank.unmatched() == []


def test_a_service_bill_paid_by_what_is_taken_back_stays_paid_and_is_owed(demo_customer: User):
    assert demo_customer.customer_id
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id, "vps-7", "EUR", [Line("VPS M", 10_00)])
    take(camt([paying(bill, end_to_end="E2E-7")]))
    take(camt([RETURNS["RRTN"](bill.total)], replace(GERMAN, id="2")))
    assert (bill_now(bill).status, balance(demo_customer), held("debt")) == ("paid", 0, -bill.total)
    take(camt([Transfer(50_00, text="login anna")], replace(GERMAN, id="3")))
    assert (balance(demo_customer), held("debt")) == (50_00 - bill.total, 0), "the debt is settled first"


def test_a_part_that_is_taken_back_is_due_again(demo_customer: User, bill: Bill):
    take(camt([paying(bill, 60_00, end_to_end="E2E-7")]))
    assert book.due(bill) == Money(40_00, "EUR")
    take(camt([RETURNS["RRTN"](60_00)], replace(GERMAN, id="2")))
    assert (book.due(bill), bill_now(bill).status) == (Money(100_00, "EUR"), "unpaid")


def test_what_was_taken_back_cannot_be_refunded_and_an_open_refund_of_it_ends(demo_customer: User, bill: Bill):
    assert demo_customer.customer_id
    take(camt([paying(bill, end_to_end="E2E-7")]))
    number = refunds.request(demo_customer.customer_id, db.scalar("select public_id from payments"), Money(30_00, "EUR"), "", iban=SENDER, holder="Anna")
    take(camt([RETURNS["RRTN"](100_00)], replace(GERMAN, id="2")))
    (refund,), (source,) = refunds.of_customer(demo_customer.customer_id), refunds.refundable(demo_customer.customer_id)
    assert (refund.number, refund.state, source.refundable.minor, held("debt"), balance(demo_customer)) == (number, "declined", 0, 0, 0)
    assert source.reason == "The sender's bank took this transfer back."


@pytest.mark.parametrize("how", RETURNS)
def test_a_transfer_that_is_taken_back_takes_its_credit_back(demo_customer: User, bill: Bill, how: str):
    take(camt([paying(bill, end_to_end="E2E-7")]))
    report = take(camt([RETURNS[how](100_00)], replace(GERMAN, id="2")))
    assert (report.counts, balance(demo_customer), held("debt"), held("suspense"), held("bank")) == ({"returned": 1}, 0, 0, 0, 0)
    assert (db.scalar("select state from payments"), bill_now(bill).status, bill_now(bill).invoice_number) == ("taken_back", "refunded", "TU-2026-000001")
    assert db.scalar("select note from payment_events order by id desc limit 1") == "The sender's bank took 100.00 EUR back."
    (letter,) = db.rows("select subject, body_text from mails where kind = 'transfer_returned'")
    assert letter.subject == "Your transfer of €\xa0100.00 was taken back"
    assert "The documents of TU-2026-000001 stay as they are." in letter.body_text
    assert whole()


def test_what_was_spent_of_it_becomes_a_debt(demo_customer: User, bill: Bill):
    assert demo_customer.customer_id
    take(camt([paying(bill, end_to_end="E2E-7")]))
    with db.transaction():
        wallet.spend(demo_customer.customer_id, Money(70_00, "EUR"), reference="spent", counter=[(ledger.account("revenue", "EUR"), 70_00)])
    take(camt([RETURNS["RRTN"](100_00)], replace(GERMAN, id="2")))
    assert (balance(demo_customer), held("debt"), held("suspense")) == (0, -70_00, 0)
    assert whole()


def test_a_return_of_something_unknown_waits(app: Flask):
    report = take(camt([RETURNS["RRTN"](33_00)]))
    assert (report.counts, held("suspense")) == ({"suspense": 1}, -33_00)


def test_a_return_of_what_was_never_matched_cancels_it(app: Flask):
    take(camt([Transfer(33_00, text="hello", end_to_end="E2E-7")]))
    assert take(camt([RETURNS["RRTN"](33_00)], replace(GERMAN, id="2"))).counts == {"returned": 1}
    assert (bank.unmatched(), held("suspense"), held("bank")) == ([], 0, 0)


# Once


def test_the_same_file_again_changes_nothing(demo_customer: User, bill: Bill):
    data = camt([paying(bill), Transfer(5_00, text="x"), Transfer(5_00, text="x")])
    assert take(data).counts == {"matched": 1, "suspense": 2}
    assert take(data).counts == {"duplicate": 3}
    assert (balance(demo_customer), held("bank")) == (100_00, -110_00)


def test_the_days_end_after_the_advice_counts_once(demo_customer: User, bill: Bill):
    first, second = paying(bill, reference="REF-1"), Transfer(20_00, text="login anna", end_to_end="E-2")
    take(camt([first], ADVICE))
    take(camt([second], replace(ADVICE, id="ADV-2")))
    assert take(camt([first, second])).counts == {"duplicate": 2}
    assert (balance(demo_customer), held("bank")) == (120_00, -120_00)


def test_a_batch_told_in_full_and_then_as_a_sum_counts_once(demo_customer: User, bill: Bill):
    batch = Batch((paying(bill), Transfer(5_00, text="x")), reference="BATCH-9")
    take(camt([batch], ADVICE))
    assert take(camt([replace(batch, shown=False)])).counts == {"duplicate": 1}
    assert held("bank") == -105_00


SUM = Batch((Transfer(100_00, text="login anna", sender="Jan"), Transfer(5_00, text="who", sender="Ida", iban="NL91ABNA0417164300")), reference="BATCH-9")
TOLD = {
    "052": lambda batch: camt([replace(batch, shown=False)], INTRADAY),
    "053": lambda batch: camt([replace(batch, shown=False)]),
    "053 in full": lambda batch: camt([batch]),
    "054": lambda batch: camt([batch], ADVICE),
    "MT940": lambda batch: mt940([Transfer(105_00, text="SAMMLER", reference=batch.reference, iban="", sender="")]),
}


@pytest.mark.parametrize(
    "order", [("052", "053", "054"), ("054", "053"), ("053", "054", "053"), ("MT940", "054", "053"), ("054", "MT940"), ("MT940", "053 in full"), ("053", "MT940")]
)
@pytest.mark.parametrize("reference", ["BATCH-9", ""])
def test_a_sum_and_its_transfers_are_the_same_money(demo_customer: User, order: tuple[str, ...], reference: str):
    batch = replace(SUM, reference=reference)
    for kind in order:
        take(TOLD[kind](batch), kind)
    told = {"054", "053 in full"} & set(order)
    assert (held("bank"), balance(demo_customer), held("suspense")) == (-105_00, 100_00 if told else 0, 5_00 if told else 105_00)
    assert [line.amount for line in bank.unmatched()] == ([5_00] if told else [105_00])
    assert whole()


def test_a_sum_that_was_told_with_its_charges_leaves_the_fee(demo_customer: User):
    batch = replace(SUM, charges=1_20)
    take(camt([replace(batch, shown=False)]))
    take(camt([batch], ADVICE))
    assert (held("bank"), balance(demo_customer), held("suspense"), held("fees")) == (-103_80, 100_00, 5_00, -1_20)


def test_a_sum_that_was_credited_by_hand_is_not_credited_again(demo_customer: User):
    take(TOLD["053"](SUM))
    (line,) = bank.unmatched()
    bank.match_by_hand(line.id, "anna", actor="sven", reason="she showed the slip")
    assert take(TOLD["054"](SUM)).counts == {"duplicate": 2}
    assert (balance(demo_customer), held("bank")) == (105_00, -105_00)


def test_a_transfer_of_which_little_was_said_is_credited_when_more_is(demo_customer: User, bill: Bill):
    said = paying(bill, reference="R-1", end_to_end="E-1")
    take(camt([replace(said, structured="", end_to_end="", iban="", sender="")]))
    assert held("suspense") == 100_00
    assert take(camt([said], ADVICE)).counts == {"matched": 1}
    assert (bill_now(bill).status, held("suspense"), held("bank")) == ("paid", 0, -100_00)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_mt940_beside_camt_counts_once_where_the_banks_reference_is_in_one_only(demo_customer: User, order: tuple[int, int]):
    lines = [
        Transfer(30_00, text="login anna, für März", sender="Jan"),
        Transfer(30_00, text="login anna, für April", sender="Jan"),
        Transfer(7_00, end_to_end="E-9", text="login anna"),
    ]
    files = [camt([replace(line, reference=f"R{place}") for place, line in enumerate(lines)]), mt940([replace(line, text=line.text.replace("ä", "ae")) for line in lines])]
    for place in order:
        take(files[place])
    assert (balance(demo_customer), held("bank")) == (67_00, -67_00)


def test_what_waited_for_a_rate_alone_is_credited_once_there_is_one(demo_customer: User, bill: Bill):
    take(camt([Transfer(425_15, structured=bill.payment_reference or ""), Transfer(7_00, text="nobody")], POLISH))
    assert sorted(line.reason_code for line in bank.unmatched()) == ["names_nothing", "no_rate"]
    assert bank.credit_waiting() == 0
    publish_rates()
    assert bank.credit_waiting() == 1
    assert bank.credit_waiting() == 0
    assert (balance(demo_customer), bill_now(bill).status) == (100_00, "paid")
    assert [line.reason_code for line in bank.unmatched()] == ["names_nothing"]
    assert db.scalar("select rule from bank_lines where state = 'matched'") == "reference"
    assert whole()


# One statement after the other


def day(number: int, opening: int, minor: int, **more) -> bytes:
    return camt(
        [Transfer(minor, text="x", reference=f"D{number}", day=f"2026-11-{number:02d}")], replace(GERMAN, number=number, day=f"2026-11-{number:02d}", opening=opening, **more)
    )


def test_a_missing_statement_is_told_until_it_came(app: Flask):
    assert take(day(2, 100_00, 10_00)).missing == []
    missing = take(day(4, 130_00, 5_00)).missing
    assert missing == [
        f"{EUR_ACCOUNT}: it ended with 110.00 EUR on 2026-11-02, and the statement of 2026-11-04 begins with 130.00 EUR: 20.00 EUR are not told. Import the missing file."
    ]
    assert "MISSING: " in app.test_cli_runner().invoke(args=["bank", "unmatched"]).output
    assert take(day(4, 130_00, 5_00)).missing == missing, "the same file again does not hide it"
    assert take(day(3, 110_00, 20_00)).missing == []
    assert take(day(1, 90_00, 10_00)).missing == []


def test_a_number_that_is_left_out_is_told_though_the_balance_goes_on(app: Flask):
    take(day(2, 100_00, 10_00))
    assert take(day(4, 110_00, 5_00)).missing == [f"{EUR_ACCOUNT}: statement 3 of 2026 never came. Import the missing file."]


def test_a_month_over_its_days_and_another_format_are_no_gap(app: Flask):
    lines = [Transfer(10_00, text="x", reference=f"D{number}", day=f"2026-11-{number:02d}") for number in (2, 3, 4)]
    for place, line in enumerate(lines):
        take(camt([line], replace(GERMAN, number=place + 1, day=line.day, opening=100_00 + place * 10_00)))
    assert take(camt(lines, replace(GERMAN, opening=100_00, opened="2026-11-02", day="2026-11-30"))).missing == []
    assert take(mt940([lines[2]], opening=120_00, day="2026-11-04")).missing == []
    assert held("bank") == -30_00


def test_several_statements_of_a_day_in_one_file(app: Flask):
    first, second = (
        camt([Transfer(minor, text="x", reference=str(minor))], replace(GERMAN, opening=opening, id=str(minor))).decode() for minor, opening in ((5_00, 100_00), (7_00, 105_00))
    )
    both = first.replace("</BkToCstmrStmt>", second[second.index("<Stmt>") : second.index("</Stmt>") + 7] + "</BkToCstmrStmt>")
    assert (take(both.encode()).missing, held("bank")) == ([], -12_00)


def test_equal_transfers_of_one_day_are_as_many_as_the_fullest_file_has(demo_customer: User):
    coffee = Transfer(5_00, text="login anna", iban="")
    take(camt([coffee], ADVICE))
    assert take(camt([coffee, coffee, coffee])).counts == {"matched": 2, "duplicate": 1}
    assert balance(demo_customer) == 15_00


def test_two_imports_at_once_count_once(app: Flask, demo_customer: User, bill: Bill):
    data = camt([paying(bill), *(Transfer(1_00 + place, text="login anna") for place in range(20))])

    def one(_: int) -> bank.Report:
        with app.app_context():
            return take(data)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(one, range(4)))
    assert sum(report.counts.get("matched", 0) for report in reports) == 21
    assert sum(report.counts.get("duplicate", 0) for report in reports) == 63
    assert whole()


MONTH = [
    *(Transfer(10_00 + place, text="login anna", reference=f"R{place}", day=f"2026-11-{place + 1:02d}") for place in range(6)),
    *(Transfer(3_00, text="login anna", iban="", day="2026-11-10") for _ in range(3)),
    *(Transfer(7_00, text="who", end_to_end=f"E{place}", day="2026-11-12") for place in range(3)),
    Transfer(-1_50, text="fee", family="CHRG", iban="", day="2026-11-13"),
]
_logins, _openings = count(), count(1_000_00)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(range(len(MONTH))), unique=True, max_size=8), max_size=5), st.randoms(use_true_random=False))
def test_whatever_files_come_in_whatever_order_each_line_counts_once(app: Flask, parts: list[list[int]], order: random.Random):
    login = f"anna{next(_logins)}"
    user = person(login, profile=BERLIN)
    mine = [replace(transfer, text=f"login {login}" if transfer.text == "login anna" else f"{transfer.text} {login[4:]}", reference=transfer.reference and f"{transfer.reference}-{login}",
                    end_to_end=transfer.end_to_end and f"{transfer.end_to_end}-{login}") for transfer in MONTH]  # fmt: skip
    before = held("bank")
    files = [*([mine[place] for place in part] for part in parts), mine]
    order.shuffle(files)
    for place, lines in enumerate(files):
        order.shuffle(lines)
        report = take(camt(lines, replace(order.choice((GERMAN, DUTCH, ADVICE)), id=f"S{place}", opening=next(_openings))))
        assert report.refused == []
    assert held("bank") == before - sum(transfer.minor for transfer in MONTH)
    assert balance(user) == sum(transfer.minor for transfer in MONTH if transfer.text == "login anna")
    assert whole()


TEXTS = st.text("abcdefghijklmnopqrstuvwxyz ,.", min_size=6, max_size=40).map(lambda text: " ".join(text.split()) or "nothing")
LINES = st.lists(
    st.builds(
        Transfer,
        st.integers(1, 9_999).map(lambda minor: minor * 5),
        text=TEXTS,
        iban=st.sampled_from([SENDER, "NL91ABNA0417164300"]),
        sender=st.sampled_from(["Jan Nowak", "Ida Berg"]),
    ),
    min_size=1,
    max_size=7,
)
RENDERED = {"camt.053": camt, "camt.054": lambda lines: camt(lines, ADVICE), "camt.053, version 08": lambda lines: camt(lines, DUTCH), "MT940": mt940}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.permutations(list(RENDERED) * 2))
def test_the_same_lines_in_every_format_are_read_alike_and_count_once(app: Flask, lines: list[Transfer], order: list[str]):
    before, mark = held("bank"), next(_logins)
    named = [replace(line, reference=f"P{mark}-{place}", end_to_end=f"E{mark}-{place}") for place, line in enumerate(lines)]
    told = {way: [(entry.amount, entry.booked_on, entry.reference, *facts(entry)) for entry in bank.read(write(named))[0].entries] for way, write in RENDERED.items()}
    assert len({str(entries) for entries in told.values()}) == 1
    for way in order:
        take(RENDERED[way](named), way)
    assert held("bank") == before - sum(line.minor for line in lines)
    assert whole()


def facts(entry) -> tuple:
    (detail,) = entry.details
    return detail.amount, detail.end_to_end, detail.sender, detail.sender_account, "".join(detail.remittance.split())


# What is refused


@pytest.mark.parametrize(
    ("style", "says"),
    [
        (replace(GERMAN, closing=1_234_00), "STMT-1 is not whole: 1000.00 EUR and 100.00 EUR do not make 1234.00 EUR. Nothing was booked."),
    ],
)
def test_a_file_of_which_a_part_is_wrong_is_refused_whole(demo_customer: User, bill: Bill, style: Style, says: str):
    good, bad = camt([paying(bill)]).decode(), camt([paying(bill)], style).decode()
    both = good.replace("</BkToCstmrStmt>", bad[bad.index("<Stmt>") : bad.index("</Stmt>") + 7] + "</BkToCstmrStmt>")
    with pytest.raises(FileRefused, match=re.escape(says)):
        take(both.encode())
    assert (held("bank"), balance(demo_customer), db.scalar("select count(*) from bank_statements")) == (0, 0, 0)


@pytest.mark.parametrize(
    ("style", "says"),
    [
        (
            replace(GERMAN, account="DE02120300000000202051", id="X-1"),
            "Statement X-1: DE02120300000000202051 is not one of our accounts. BANK_ACCOUNTS names those that are.",
        ),
        (replace(GERMAN, currency="USD"), "Statement STMT-1 is in USD; our account DE89370400440532013000 is kept in EUR."),
    ],
)
def test_a_statement_of_another_account_is_named_and_ours_is_booked(demo_customer: User, bill: Bill, style: Style, says: str):
    good, other = camt([paying(bill)]).decode(), camt([Transfer(7_00)], style).decode()
    both = good.replace("</BkToCstmrStmt>", other[other.index("<Stmt>") : other.index("</Stmt>") + 7] + "</BkToCstmrStmt>")
    report = take(both.encode())
    assert (report.counts, report.left_out) == ({"matched": 1}, [says])
    assert f"Left out: {says}" in list(report.lines())
    assert (held("bank"), balance(demo_customer)) == (-100_00, 100_00)
    with pytest.raises(FileRefused, match=re.escape(says)):
        take(other.encode())


def zipped(files: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("form", ["zip", "gzip"])
def test_a_packed_file_is_read(demo_customer: User, bill: Bill, form: str):
    data = camt([paying(bill)])
    packed = gzip.compress(data) if form == "gzip" else zipped({"b.sta": mt940([], day="2026-11-19"), "__MACOSX/x": b"?", "a.xml": data})
    assert take(packed).counts == {"matched": 1}
    assert balance(demo_customer) == 100_00


def test_what_is_written_before_the_declaration_does_not_matter(demo_customer: User, bill: Bill):
    assert take(b"\xef\xbb\xbf\r\n\n " + camt([paying(bill)])).counts == {"matched": 1}


BOMB = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Document><BkToCstmrStmt><Stmt><Id>&b;</Id></Stmt></BkToCstmrStmt></Document>'
REFUSED = {
    "cut off": (camt([Transfer(5_00)])[:-40], "damaged or cut off"),
    "an entity": (BOMB, "document type"),
    "an entity, in sixteen bits": (BOMB.decode().encode("utf-16"), "document type|damaged"),
    "another XML": (b"<rss><channel/></rss>", "no camt"),
    "too large": (b"<" + b" " * (20 * 1024 * 1024), "larger than 20 MB"),
    "no statement at all": (b"hello", "no MT940"),
    "nothing": (b" \r\n", "The file is empty"),
    "a PDF": (b"%PDF-1.7 ...", "This is a PDF.*Download the statement as camt.053"),
    "a table": (b"Date;Name;Text;Amount\n1;2;3;4\n1;2;3;4\n", "This is a table"),
    "a bomb": (gzip.compress(b"<" + b" " * (21 * 1024 * 1024)), "Unpacked, the file is larger than 20 MB"),
    "a bomb in a zip": (zipped({"a": b" " * (15 << 20), "b": b" " * (15 << 20)}), "Unpacked, the file is larger than 20 MB"),
    "a spreadsheet": (zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<a/>"}), "This is a spreadsheet"),
    "a zip in a zip": (zipped({"a.zip": zipped({"a": b"x"})}), "a.zip: This is an archive"),
    "half a zip": (zipped({"a": b"x" * 999})[:-40], "The zip archive is damaged"),
    "half a gzip": (gzip.compress(b"hello" * 99)[:-12], "The gzip file is damaged or cut off"),
    "an empty zip member": (zipped({"a.xml": b""}), "a.xml: The file is empty"),
    "an MT942": (b":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:34F:EURD0,\n:13D:2611201200+0100\n:61:2611201120C5,00NTRFNONREF\n:90C:1EUR5,00\n-", "interim report .MT942."),
    "the year 1": (camt([Transfer(5_00)]).replace(b"2026-11-20</Dt></BookgDt>", b"0001-01-01</Dt></BookgDt>"), "booking or balance of 0001-01-01: the year is wrong"),
    "the year 2031": (camt([Transfer(5_00, day="2031-11-20")]), "booking or balance of 2031-11-20: the year is wrong"),
    "no day of booking": (
        camt([Transfer(5_00)]).replace(b"<BookgDt><Dt>2026-11-20", b"<BookgDt><Dt>2026-99-20"),
        "STMT-1, entry 1: “2026-99-20” is no day",
    ),
    "the 32nd of a month": (b":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C261119EUR0,\n:61:2611321132C5,00NTRFNONREF\n:62F:C261120EUR5,00\n-", "“261132” is no day"),
    "a day of no month": (b":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C261119EUR0,\n:61:2611201131C5,00NTRFNONREF\n:62F:C261120EUR5,00\n-", "“1131” is no day of booking"),
    "half an MT940": (mt940([Transfer(5_00)])[:-60], "cut off"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_cannot_be_trusted_is_refused_with_a_sentence(app: Flask, what: str):
    data, says = REFUSED[what]
    with pytest.raises(FileRefused, match=says):
        take(data)


def test_a_line_nobody_can_read_refuses_the_file(demo_customer: User, bill: Bill):
    data = camt([paying(bill), Transfer(5_00, text="login anna")]).replace(b">5.00<", b">5.001<")
    with pytest.raises(FileRefused, match=r"Nothing was booked: STMT-1, entry 2: 5.001 is not an amount of EUR\.$"):
        take(data)
    assert balance(demo_customer) == 0


def test_a_line_that_cannot_be_credited_waits_and_stops_nothing(demo_customer: User, bill: Bill, monkeypatch: pytest.MonkeyPatch):
    take_in = payments.take_in

    def strict(arrivals):
        if any(arrival.received.minor == 5_00 for arrival in arrivals):
            raise ledger.LedgerError("no")
        return take_in(arrivals)

    monkeypatch.setattr(payments, "take_in", strict)
    report = take(camt([Transfer(5_00, text="login anna"), paying(bill), Transfer(6_00, text="login anna")]))
    assert (report.counts, report.refused, balance(demo_customer), held("bank")) == ({"matched": 2, "suspense": 1}, [], 106_00, -111_00)
    assert [line.reason for line in bank.unmatched()] == ["It could not be credited. The application's log says why."]


def test_what_is_not_booked_yet_is_left_for_later(bill: Bill):
    report = take(camt([paying(bill, status="PDNG")], replace(ADVICE, report="052")))
    assert (report.counts, report.not_booked, held("bank")) == ({}, 1, 0)


def test_a_dry_run_says_the_same_and_writes_nothing(app: Flask, demo_customer: User, bill: Bill):
    data = camt([paying(bill), Transfer(5_00, text="x"), Transfer(-2_00, family="CHRG")])
    dry = take(data, dry_run=True)
    assert (dry.counts, db.scalar("select count(*) from bank_lines"), balance(demo_customer)) == ({"matched": 1, "suspense": 1, "charge": 1}, 0, 0)
    assert take(data).counts == dry.counts


def test_what_the_bank_said_never_changes(app: Flask, bill: Bill):
    take(camt([paying(bill)]))
    with pytest.raises(Exception, match="permission denied"), db.transaction():
        db.execute("update bank_lines set amount = amount + 1")


# The commands


def test_the_commands_tell_what_became_of_each_line(app: Flask, demo_customer: User, bill: Bill, tmp_path):
    file = tmp_path / "statement.xml"
    file.write_bytes(camt([paying(bill), Transfer(5_00, text="hello there", sender="Jan Nowak")]))
    run = app.test_cli_runner()
    dry = run.invoke(args=["bank", "import", str(file), "--dry-run"])
    assert "Nothing was written." in dry.output
    told = run.invoke(args=["bank", "import", str(file)])
    assert told.exit_code == 0
    assert told.output.splitlines()[:2] == ["matched         1  100.00 EUR", "suspense        1  5.00 EUR"]
    assert "In suspense: 2026-11-20 5.00 EUR Jan Nowak hello there: Nothing in it names a bill or a login." in told.output
    listed = run.invoke(args=["bank", "unmatched"]).output
    assert "Jan Nowak" in listed
    number = listed.split()[0]
    done = run.invoke(args=["bank", "match", number, "--customer", "anna", "--actor", "sven", "--reason", "she called"])
    assert (done.exit_code, done.output) == (0, "5.00 EUR is on the balance of anna.\n")
    again = run.invoke(args=["bank", "match", number, "--customer", "anna", "--actor", "sven", "--reason", "twice"])
    assert (again.exit_code, again.output) == (2, f"No line {number} waits for a customer.\n")
    file.write_bytes(b"hello")
    assert run.invoke(args=["bank", "import", str(file)]).exit_code == 2


# What a thief or a careless payer writes


@pytest.mark.parametrize("way", ["structured", "text"])
def test_a_reference_with_a_wrong_digit_names_nobody(demo_customer: User, bill: Bill, way: str):
    reference = bill.payment_reference or ""
    wrong = [reference[:place] + str((int(reference[place]) + 1) % 10) + reference[place + 1 :] for place in range(2, len(reference))]
    swapped = [reference[:place] + reference[place + 1] + reference[place] + reference[place + 2 :] for place in range(4, len(reference) - 1)]
    spoiled = [text for text in {*wrong, *swapped} if text != reference]
    lines = [Transfer(1_00 + place, text="" if way == "structured" else text, structured=text if way == "structured" else "") for place, text in enumerate(spoiled)]
    assert take(camt(lines)).counts == {"suspense": len(lines)}
    assert (balance(demo_customer), bill_now(bill).status) == (0, "unpaid")


def test_a_reference_counts_as_a_whole_word_alone(demo_customer: User, bill: Bill):
    glued = [f"KD 4711 {bill.payment_reference}2026112000017", f"X{bill.payment_reference}"]
    assert take(camt([Transfer(bill.total, text=text, reference=text[:2]) for text in glued])).counts == {"suspense": 2}
    assert take(camt([Transfer(bill.total, text=f"KD 4711, {bill.payment_reference}. 2026112000017", reference="R-3")], ADVICE)).counts == {"matched": 1}
    assert bill_now(bill).status == "paid"


def test_a_text_that_names_bills_of_several_customers_waits(demo_customer: User, bill: Bill):
    other = topup(person("bob", profile=BERLIN), Money.of("50", "EUR"))
    report = take(camt([Transfer(150_00, text=f"{bill.payment_reference} {other.payment_reference}")]))
    assert report.waiting[0].endswith("It names bills of several customers.")


@pytest.mark.parametrize("word", ["rechnung", "invoice", "hosting", "acme", "vps"])
def test_an_ordinary_word_as_a_login_gets_no_strangers_money(app: Flask, word: str):
    thief = person(word, profile=BERLIN)
    assert take(camt([Transfer(30_00, text=word.title(), sender="Jan Nowak")])).counts == {"suspense": 1}
    assert take(camt([Transfer(31_00, text=f"login {word}", sender="Jan Nowak")], ADVICE)).counts == {"matched": 1}
    assert balance(thief) == 31_00


def test_the_same_payer_pays_the_same_twice_on_one_day(demo_customer: User):
    twice = [Transfer(5_00, text="login anna", end_to_end="NOTPROVIDED")] * 2
    assert take(camt(twice)).counts == {"matched": 2}
    assert take(mt940(twice)).counts == {"duplicate": 2}
    assert take(camt(twice, ADVICE)).counts == {"duplicate": 2}
    assert balance(demo_customer) == 10_00


def test_an_amount_below_zero_refuses_the_file_and_nothing_at_all_is_no_line(demo_customer: User):
    with pytest.raises(FileRefused, match=r"entry 1: -5\.00 is below zero"):
        take(camt([Transfer(5_00, text="login anna")]).replace(b">5.00<", b">-5.00<"))
    assert take(camt([Transfer(5_00, text="login anna"), Transfer(0, text="Zinsen")])).counts == {"matched": 1}
    assert take(camt([], replace(GERMAN, id="2", day="2026-11-21", opening=1_005_00))).counts == {}


@pytest.mark.parametrize(("currency", "amount", "minor"), [("JPY", "5000", 5000), ("JPY", "5000.00", 5000), ("KWD", "1.250", 1250), ("KWD", "1.25", 1250)])
def test_currencies_with_other_decimals_are_read_exactly(currency: str, amount: str, minor: int):
    data = camt([Transfer(7_77)], replace(GERMAN, currency="EUR")).decode().replace("EUR", currency).replace(">7.77<", f">{amount}<")
    (statement,) = bank.read(re.sub(r"<Bal>.*?</Bal>", "", data).encode())
    assert [entry.amount for entry in statement.entries] == [minor]
    text = f":20:X\n:25:1234\n:28C:1/1\n:60F:C261120{currency}0,\n:61:261120C{amount.replace('.', ',')}{'' if '.' in amount else ','}NTRFNONREF\n:62F:C261120{currency}{amount.replace('.', ',')}{'' if '.' in amount else ','}\n-"
    assert [entry.amount for entry in bank.read(text.encode())[0].entries] == [minor]


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "5000.50"), ("KWD", "1.2505"), ("EUR", "1.005")])
def test_an_amount_finer_than_its_currency_is_refused(currency: str, amount: str):
    data = camt([Transfer(7_77)]).decode().replace("EUR", currency).replace(">7.77<", f">{amount}<")
    (statement,) = bank.read(re.sub(r"<Bal>.*?</Bal>", "", data).encode())
    assert (statement.entries, len(statement.faults)) == ([], 1)


def test_a_batch_with_a_return_in_it_does_both(demo_customer: User, bill: Bill):
    take(camt([paying(bill, end_to_end="E2E-7")], ADVICE))
    batch = Batch((Transfer(30_00, text="login anna"), RETURNS["with its reason"](100_00)), reference="B-1", day="2026-11-24")
    assert take(camt([batch], replace(DUTCH, day="2026-11-24"))).counts == {"matched": 1, "returned": 1}
    assert (balance(demo_customer), held("bank"), held("suspense")) == (30_00, -30_00, 0)
    assert whole()


def test_the_twenty_ninth_of_february(app: Flask):
    text = ":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C280228EUR0,\n:61:2802290229C5,00NTRFNONREF\n:61:2803010229C5,00NTRFNONREF\n:62F:C280229EUR10,00\n-"
    assert [str(entry.booked_on) for entry in bank.read(text.encode())[0].entries] == ["2028-02-29"] * 2


DIALECTS = {
    ":61:201117D122,28NID NONREF": (-122_28, "2020-11-17"),
    ":61:2011171117C50,00 NTRFNONREF//REF-7": (50_00, "2020-11-17"),
    ":61:201117    D65,00NOVB1234": (-65_00, "2020-11-17"),
    ":61:201117    DD212,39NMSCNONREF": (-212_39, "2020-11-17"),
    ":61:2011171117CR7,NTRFNONREF": (7_00, "2020-11-17"),
    ":61:201117RD9,99NTRFNONREF": (9_99, "2020-11-17"),
    ":61:2011171117C12NTRFNONREF": (12_00, "2020-11-17"),
    ":61:2011171117C0,00NTRFNONREF": (0, "2020-11-17"),
}


@pytest.mark.parametrize("line", DIALECTS)
def test_what_banks_leave_out_of_a_booking_does_not_matter(app: Flask, line: str):
    minor, day = DIALECTS[line]
    closing = f"{'D' if minor < 0 else 'C'}201117EUR{str(abs(minor) / 100).replace('.', ',')}"
    text = f":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C201116EUR0,\n{line}\n:86:hello\n:62F:{closing}\n-"
    (statement,) = bank.read(text.encode())
    assert [(entry.amount, str(entry.booked_on)) for entry in statement.entries] == [(minor, day)]
    assert statement.faults == []
    take(text.encode())
    with pytest.raises(FileRefused, match="is not whole"):
        take(text.replace("EUR0,", "EUR1,", 1).encode())


def test_bookings_of_nothing_are_no_bookings_that_cancel(app: Flask):
    full = "x" * 65
    text = f":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C261119EUR0,\n:61:2611201120C5,00NTRFNONREF\n:86:{full}\n:61:2611201120C0,00NTRFNONREF\n:86:{full}\n:61:2611201120C0,00NTRFNONREF\n:86:{full}\n:62F:C261120EUR5,00\n-"
    assert take(text.encode()).counts == {"suspense": 1}


@pytest.mark.parametrize(("value", "booked"), [("261117", "2026-11-19"), ("261118", "2026-11-19"), ("261119", "2026-11-19"), ("261120", "2026-11-20"), ("261123", "2026-11-20")])
def test_without_a_day_of_booking_it_is_one_of_the_statements(app: Flask, value: str, booked: str):
    text = f":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C261118EUR0,\n:61:{value}C34,61NTRFNONREF\n:86:hello\n:62F:C261120EUR34,61\n-"
    take(text.encode())
    assert str(db.scalar("select booked_on from bank_lines")) == booked
    assert bank.differences() == []


def test_an_old_gap_does_not_fail_later_imports(app: Flask, tmp_path):
    run = app.test_cli_runner()
    codes = []
    for number, data in enumerate((day(2, 100_00, 10_00), day(4, 130_00, 5_00), day(5, 135_00, 5_00), day(9, 500_00, 5_00))):
        file = tmp_path / f"{number}.xml"
        file.write_bytes(data)
        codes.append(run.invoke(args=["bank", "import", str(file)]).exit_code)
    assert codes == [0, 1, 0, 1], "only what a file itself leaves open fails its import"


def test_an_entry_in_another_currency_is_named_and_the_rest_is_booked(demo_customer: User, bill: Bill):
    data = camt([paying(bill), Transfer(5_00, text="login anna")]).replace(b'<Ntry><Amt Ccy="EUR">5.00', b'<Ntry><Amt Ccy="USD">5.00')
    with pytest.raises(FileRefused, match=r"is not whole.*Left out: STMT-1: 5.00 USD on an account in EUR\."):
        take(data.replace(b'<TxAmt><Amt Ccy="EUR">5.00', b'<TxAmt><Amt Ccy="USD">5.00'))
    pocket = data.replace(b">1105.00<", b">1100.00<").replace(b'<TxAmt><Amt Ccy="EUR">5.00', b'<TxAmt><Amt Ccy="USD">5.00')
    report = take(pocket)
    assert (report.counts, report.left_out) == ({"matched": 1}, ["STMT-1: 5.00 USD on an account in EUR."])


def test_an_entry_in_another_currency_counts_as_what_it_was_on_the_account(demo_customer: User):
    data = camt([Transfer(5_00, text="login anna")]).replace(b'<Ntry><Amt Ccy="EUR">5.00', b'<Ntry><Amt Ccy="USD">5.80')
    assert take(data).counts == {"matched": 1}
    assert balance(demo_customer) == 5_00


def test_a_document_that_is_named_in_its_own_field_finds_its_bill(demo_customer: User, bill: Bill):
    data = camt([Transfer(100_00, reference="N1")])
    document = f"<RmtInf><Strd><RfrdDocInf><Nb>{bill.proforma_number}</Nb></RfrdDocInf></Strd></RmtInf></TxDtls>"
    assert take(data.replace(b"</TxDtls>", document.encode())).counts == {"matched": 1}
    assert bill_now(bill).status == "paid"


def test_what_failed_inside_is_said_without_its_names(demo_customer: User, bill: Bill, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise KeyError("customer_id")

    monkeypatch.setattr(payments, "take_in", broken)
    (said,) = take(camt([paying(bill)])).waiting
    assert said.endswith("It could not be credited. The application's log says why.")


def test_an_mt940_in_sixteen_bits(demo_customer: User, bill: Bill):
    assert take(mt940([paying(bill)]).decode().encode("utf-16")).counts == {"matched": 1}


def test_a_text_cannot_book_money_of_its_own(demo_customer: User):
    """The bank breaks lines at 65 characters; the payer filled them so that a line begins with what looks like a booking, and another takes it back."""
    lines = [":61:2611201120C1000,00NTRFNONREF".ljust(65, "x"), ":86:login anna".ljust(65, " "), ":61:2611201120D1000,NTRFNONREF"]
    text = "thanks".ljust(65, ".") + "\n" + "\n".join(lines)
    honest = ":20:X\n:25:37040044/0532013000EUR\n:28C:1/1\n:60F:C261120EUR0,\n:61:2611201120C1,00NTRFNONREF\n:86:{}\n:62F:C261120EUR1,00\n-"
    with pytest.raises(FileRefused, match="may be read as bookings that cancel each other out"):
        take(honest.format(text).encode())
    assert (held("bank"), balance(demo_customer)) == (0, 0)
    back = ":61:2611201120C7,00NTRFNONREF\n:86:short\n:61:2611201120D7,00NRTINONREF\n:86:short"
    assert len(bank.read(honest.format(f"hello\n{back}").encode())[0].entries) == 3, "a transfer and its return beside each other are what they are"


@pytest.mark.parametrize("form", ["german", "slashes"])
def test_what_a_payer_writes_does_not_replace_what_the_bank_says_of_him(form: str):
    forged = "x /IBAN/NL91ABNA0417164300/NAME/Bob/ x" if form == "slashes" else "x EREF+FORGED x"
    (statement,) = bank.read(mt940([Transfer(5_00, text=forged, end_to_end="TRUE-1")], form))
    (detail,) = statement.entries[0].details
    assert (detail.sender_account, detail.sender, detail.end_to_end) == (SENDER, "Anna Kowalska", "TRUE-1")
