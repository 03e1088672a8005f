"""A bonus lowers the price of what it pays: on paper, in the books, and in what is said of it."""

import csv
import io
import re
from dataclasses import replace
from datetime import date
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock, customers, db, invoicing, ledger, payments, services, wallet
from app.invoicing import Bill, Line, Settlement, Totals, paper, press, total
from app.money import Money
from app.payments import settling
from app.tax import Treatment
from tests.conftest import BERLIN, Browser, person, sign_in
from tests.pay import begin, carry, choose
from tests.test_documents import content_of, printed, text_of
from tests.test_invoicing import person as buyer
from tests.trade import customer, fund, offer_plans, on
from tests.world import pay_by_link

RATES = st.sampled_from([Decimal(rate) for rate in ("0", "7", "17", "19", "20", "21", "25.5", "27")])


def book(kind: str, currency: str = "EUR", key: str = "") -> int:
    with db.transaction():
        return ledger.balance(ledger.account(kind, currency, key=key))


def books(currency: str = "EUR", country: str = "DE") -> tuple[int, int, int]:
    """Revenue, VAT, and what of the bonuses that were given has not been used."""
    return book("revenue", currency), book("vat", currency, country), book("promotions", currency)


def give(customer_id: int, minor: int, currency: str = "EUR") -> None:
    payments.grant_bonus(customer_id, Money(minor, currency), reason="Thank you", reference=f"{customer_id}:{minor}")


def bill_for(customer_id: int, *lines: Line, currency: str = "EUR") -> Bill:
    with db.transaction():
        return invoicing.issue_service_bill(customer_id, "vps-7", currency, lines)


def newest(customer_id: int) -> Bill:
    number = db.scalar("select invoice_number from bills where customer_id = %(id)s and kind = 'service' order by id desc limit 1", id=customer_id)
    found = invoicing.find(customer_id, number)
    assert found
    return found


def amounts(bill: Bill) -> tuple[int, int, int, int, int]:
    return bill.net, bill.tax, bill.total, bill.allowance, bill.allowance_net


def right() -> bool:
    return list(ledger.check()) == []


@pytest.fixture
def anna(app) -> int:
    """A customer in Berlin, 19 % VAT, with € 100.00."""
    offer_plans()
    return customer("anna", 100_00)


@pytest.fixture
def browser(app, anna) -> Browser:
    user = customers.find_user("anna")
    assert user
    return sign_in(app.test_client(), user)


# What is left of a price


def lowered(before: Totals, rate: Decimal, by: int) -> Totals:
    net, vat = Treatment("S", rate).split(Money(before.total - by, "EUR"))
    return Totals(net.minor, vat.minor)


@given(nets=st.lists(st.integers(0, 10**9), min_size=1, max_size=5), rate=RATES, share=st.fractions(0, 1))
def test_what_is_left_adds_up(nets, rate, share):
    before = total(nets, rate)
    by = int(before.total * share)
    left = lowered(before, rate, by)
    assert left.total == before.total - by
    assert 0 <= left.tax <= before.tax
    assert 0 <= before.net - left.net <= by
    assert abs(left.tax * (100 + rate) - left.total * rate) * 2 <= 100 + rate  # half a minor unit at most
    assert lowered(before, rate, 0) == before
    assert lowered(before, rate, before.total) == Totals(0, 0)


@pytest.mark.parametrize(
    ("nets", "rate", "by", "net", "tax"),
    [
        ([20_00], 19, 10_00, 11_60, 2_20),
        ([20_00], 0, 7_33, 12_67, 0),
        ([14_29] + [83] * 100, 23, 1, 97_28, 22_38),
        ([14_29] + [83] * 100, 23, 119_66, 1, 0),
        ([2000], 10, 777, 1294, 129),  # in yen: 1,423 left, 129.36 of it VAT
        ([3], 19, 1, 3, 0),
    ],
)
def test_the_right_cents(nets, rate, by, net, tax):
    left = lowered(total(nets, Decimal(rate)), Decimal(rate), by)
    assert (left.net, left.tax) == (net, tax)


# Paid from the balance


def test_an_order_that_a_bonus_pays_in_part_is_cheaper(anna):
    give(anna, 10_00)
    assert books() == (0, 0, -10_00)
    services.order(anna, "vps-4", 1)
    assert amounts(newest(anna)) == (11_60, 2_20, 13_80, 10_00, 8_40)
    assert books() == (11_60, 2_20, 0)
    assert (wallet.state(anna).available, wallet.state(anna).bonus) == (86_20, 0)
    assert right()


def test_the_papers_name_it_and_receive_no_more_than_came(anna):
    give(anna, 10_00)
    services.order(anna, "vps-4", 1)
    bill = newest(anna)
    invoice, receipt = (text_of(printed(bill, kind)) for kind in ("invoice", "receipt"))
    assert "Sum 20.00 Bonus (€ 10.00 incl. VAT) −8.40 Net 11.60 VAT 19% 2.20 Total € 13.80" in invoice
    for words in ("Received € 13.80", "Price before the bonus € 23.80", "Taken off by the bonus € 10.00", "Bonus (€ 10.00 incl. VAT) −8.40", "VAT 19% 2.20", "Total € 13.80"):
        assert words in receipt
    assert "23.80" not in invoice
    rows = db.rows("select kind, total from documents where bill_id = %(id)s order by kind", id=bill.id)
    assert [tuple(row) for row in rows] == [("invoice", 13_80), ("receipt", 13_80)]


def test_a_paper_from_before_is_printed_as_it_was(anna):
    services.order(anna, "vps-4", 1)
    bill = newest(anna)
    content = content_of(bill, "invoice")
    older = {name: value for name, value in content.items() if not name.startswith("allowance")}
    assert press.to_pdf(paper.sheet(older)) == press.to_pdf(paper.sheet(content))
    assert "Bonus" not in text_of(press.to_pdf(paper.sheet(older)))


def test_pages_list_file_and_mail_name_it(anna, browser):
    give(anna, 10_00)
    services.order(anna, "vps-4", 1)
    number = newest(anna).number
    page = browser.get(f"/invoices/{number}").text
    assert "Your bonus took €\xa010.00 off the price of €\xa023.80." in page
    assert "after €\xa010.00 bonus" in browser.get("/invoices").text
    assert number in browser.get("/invoices?q=13.80").text
    assert number in browser.get("/invoices?q=23.80").text, "the price that was asked for finds it, too"
    (row,) = [row for row in csv.DictReader(io.StringIO(browser.get("/invoices.csv").text.removeprefix("\ufeff"))) if row["Kind"] == "invoice"]
    assert [row[name] for name in ("Net", "VAT", "Total", "Bonus")] == ["11.60", "2.20", "13.80", "10.00"]
    assert "bonus €\xa010.00" in browser.get("/transactions").text
    assert "bonus €\xa010.00" in browser.get("/balance").text
    assert "bonus €\xa010.00" not in browser.get("/transactions?account=bonus").text
    moved = next(csv.DictReader(io.StringIO(browser.get("/transactions.csv").text.removeprefix("\ufeff"))))
    assert (moved["Amount"], moved["Bonus"]) == ("-13.80", "10.00")
    text = db.scalar("select body_text from mails where kind = 'renewed'")
    assert "€\xa013.80 was taken from your balance. Your bonus took €\xa010.00 off the price." in text
    assert f"€\xa013.80, invoice {number}" in text


def test_what_a_bonus_covers_whole_is_a_valid_invoice_over_nothing(anna, browser):
    give(anna, 50_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    assert payments.pay_from_balance(anna, bill.number).status == "paid"
    paid = newest(anna)
    assert amounts(paid) == (0, 0, 0, 23_80, 20_00)
    assert books() == (0, 0, -26_20)
    assert (wallet.state(anna).available, wallet.state(anna).bonus) == (100_00, 26_20)
    invoice, receipt = (text_of(printed(paid, kind)) for kind in ("invoice", "receipt"))
    assert "Sum 20.00 Bonus (€ 23.80 incl. VAT) −20.00 Net 0.00 VAT 19% 0.00 Total € 0.00" in invoice
    assert "Paid from Bonus" in invoice
    assert "Received € 0.00" in receipt
    assert "Method Bonus" in receipt
    letter = db.row("select subject, body_text from mails where kind = 'payment_confirmed'")
    assert letter
    assert letter.subject == f"{paid.number} is paid with your bonus"
    assert "Your bonus covered the whole price. Nothing was taken from your balance." in letter.body_text
    assert "Paid with the bonus" in browser.get(f"/invoices/{paid.number}").text
    assert right()


def test_without_vat_the_whole_bonus_comes_off_the_net(app):
    offer_plans()
    firm = buyer(country="PL", vat_id="PL7251801126")
    fund(firm, 50_00)
    give(firm, 7_33)
    bill = bill_for(firm, Line("VPS", 20_00))
    payments.pay_from_balance(firm, bill.number)
    paid = newest(firm)
    assert amounts(paid) == (12_67, 0, 12_67, 7_33, 7_33)
    assert books() == (12_67, 0, 0)
    assert "Sum 20.00 Bonus −7.33 Net 12.67 VAT 0% (reverse charge) 0.00 Total € 12.67" in text_of(printed(paid, "invoice"))
    assert right()


def test_several_lines_and_odd_cents(anna):
    give(anna, 9_99)
    bill = bill_for(anna, Line("VPS", 14_29), Line("IPv4", 83, quantity=7), Line("Setup", 1))
    assert (bill.net, bill.tax, bill.total) == (20_11, 3_82, 23_93)
    payments.pay_from_balance(anna, bill.number)
    assert amounts(newest(anna)) == (11_71, 2_23, 13_94, 9_99, 8_40)  # 13.94 × 19 / 119 = 2.2257
    assert books() == (11_71, 2_23, 0)
    assert right()


def test_in_a_currency_without_cents(app):
    user = person("kenji", profile=replace(BERLIN, currency="JPY"))
    kenji = user.customer_id or 0
    fund(kenji, 5_000, "JPY")
    give(kenji, 777, "JPY")
    bill = bill_for(kenji, Line("VPS", 2_000), currency="JPY")
    assert (bill.net, bill.tax, bill.total) == (2_000, 380, 2_380)
    payments.pay_from_balance(kenji, bill.number)
    assert amounts(newest(kenji)) == (1_347, 256, 1_603, 777, 653)  # 1,603 × 19 / 119 = 255.9
    assert books("JPY") == (1_347, 256, 0)
    assert wallet.state(kenji).available == 5_000 - 1_603
    assert right()


# Renewals


def test_renewals_in_bulk_are_as_those_of_one(app):
    offer_plans()
    people = [customer(login, 30_00) for login in ("anna", "bruno")]
    for one in people:
        give(one, 30_00)
        with on(date(2026, 3, 10)):
            services.order(one, "vps-4", 1)  # all of it bonus, 6.20 left
    with on(date(2026, 4, 10)):
        services.renew(services.of_customer(people[0])[0].id)
        assert services.renew_due().renewed == 1
    first, second = (newest(one) for one in people)
    assert amounts(first) == amounts(second) == (14_79, 2_81, 17_60, 6_20, 5_21)
    assert books() == (2 * 14_79, 2 * 2_81, 0)
    assert [wallet.state(one).available for one in people] == [12_40, 12_40]
    assert right()


def test_a_bonus_reaches_as_many_renewals_as_it_lasts_for(anna):
    with on(date(2026, 3, 10)):
        for priority in (1, 2, 3):
            services.order(anna, "ip", 1, priority=priority)  # 3.57 each
    give(anna, 5_00)
    with on(date(2026, 4, 10)):
        assert services.renew_due().renewed == 3
    bills = db.rows("select net, tax, total, allowance, allowance_net from bills where customer_id = %(id)s and kind = 'service' order by id desc limit 3", id=anna)
    assert [tuple(row) for row in reversed(bills)] == [(0, 0, 0, 3_57, 3_00), (1_80, 34, 2_14, 1_43, 1_20), (3_00, 57, 3_57, 0, 0)]
    text = db.scalar("select body_text from mails where kind = 'renewed' order by id desc limit 1")
    assert "€\xa05.71 was taken from your balance. Your bonus took €\xa05.00 off the price." in text
    assert right()


def test_a_bonus_costs_a_run_no_statement_more(anna, statements):
    with on(date(2026, 3, 10)):
        for _ in range(2):
            services.order(anna, "ip", 1)
    counts = []
    for month, bonus in ((4, 0), (5, 5_00)):
        if bonus:
            give(anna, bonus)
            wallet.state(anna)
            book("promotions")
        with on(date(2026, month, 10)):
            before = len(statements)
            assert services.renew_due().renewed == 2
            counts.append(len(statements) - before)
    assert counts[0] == counts[1]


@pytest.fixture
def statements(app, monkeypatch):
    """Every statement sent through `db` while the test runs."""
    sent: list[str] = []
    fetch = db._fetch

    def counted(connection, sql, params):
        sent.append(sql)
        return fetch(connection, sql, params)

    monkeypatch.setattr(db, "_fetch", counted)
    return sent


# Paid from outside


def test_money_that_the_bonus_spared_stays_on_the_balance(app, anna):
    give(anna, 10_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    choose(app, begin(bill), "approve")
    carry(app)
    paid = newest(anna)
    assert amounts(paid) == (11_60, 2_20, 13_80, 10_00, 8_40)
    assert wallet.state(anna).available == 110_00
    receipt = text_of(printed(paid, "receipt"))
    assert "Received € 23.80" in receipt
    assert "Not needed, left on the balance € 10.00" in receipt
    assert "Total € 13.80" in receipt
    text = db.scalar("select body_text from mails where kind = 'payment_confirmed'")
    assert "Your bonus took €\xa010.00 off the price. €\xa010.00 of your payment stays on your balance." in text
    assert right()


def test_a_bill_paid_in_two_transfers_is_lowered_once(app, anna):
    give(anna, 10_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    for key, minor in (("a", 15_00), ("b", 8_80)):
        with db.transaction():
            payments.take_in([payments.Arrival(key, anna, bill.id, Money(minor, "EUR"), clock.now())])
    paid = newest(anna)
    assert amounts(paid) == (11_60, 2_20, 13_80, 10_00, 8_40)
    assert wallet.state(anna).available == 110_00
    assert right()


def test_who_pays_by_a_link_learns_nothing_of_the_bonus(app, anna, anonymous):
    give(anna, 10_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    link = payments.share(anna, bill.number)
    assert link
    payment = pay_by_link(link)
    choose(app, payment, "approve")
    carry(app)
    assert newest(anna).allowance == 10_00
    content = db.scalar("select content from documents where kind = 'link_receipt'")
    page = re.sub(r"<[^>]+>", "", anonymous.get(link.path).text)
    assert (content["allowance"], content["allowance_net"]) == (0, 0)
    assert "23.80" in page
    file = text_of(press.to_pdf(paper.sheet(content)))
    assert "Received € 23.80" in file
    for text in (page, file):
        assert "onus" not in text
        assert "13.80" not in text


# Given back


def test_what_is_given_back_is_money_as_money_and_bonus_as_bonus(anna):
    give(anna, 10_00)
    services.order(anna, "vps-4", 1)
    charge = db.scalar("select id from transfers where kind = 'charge'")
    with db.transaction():
        wallet.restore(charge, "back")
    assert (wallet.state(anna).available, wallet.state(anna).bonus) == (100_00, 10_00)
    assert books() == (0, 0, -10_00)
    assert right()


# What the database and the proof refuse


PAID = "status = 'paid', settled_by = 'balance', payment = '{}', paid_at = now(), invoiced_at = now(), invoice_number = 'INV-2026-000009'"


@pytest.mark.parametrize(
    "change",
    [
        "allowance = 1, allowance_net = 1",
        "net = net - 1, total = total - 1",
        "net = net - 1, total = total - 1, allowance = 1, allowance_net = 1",
        f"{PAID}, net = net - 1, total = total - 1",
        f"{PAID}, net = net - 2, total = total - 2, allowance = 1, allowance_net = 1",
        f"{PAID}, net = net - 2, total = total - 2, allowance = 2, allowance_net = 1",
        f"{PAID}, net = net + 1, total = total + 1, allowance = -1, allowance_net = -1",
        f"{PAID}, net = 0, tax = 0, total = 0",
        f"{PAID}, tax = tax - 1, total = total - 1",
    ],
)
def test_a_price_falls_only_while_it_is_paid_and_by_its_allowance(anna, superuser, change):
    bill_for(anna, Line("VPS", 20_00))
    with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)):
        superuser.execute(f"update bills set {change}")


def test_a_price_that_has_fallen_stays(anna, superuser):
    give(anna, 10_00)
    services.order(anna, "vps-4", 1)
    with pytest.raises(psycopg.errors.RestrictViolation):
        superuser.execute("update bills set net = net + 1, total = total + 1, allowance = allowance - 1, allowance_net = allowance_net - 1 where allowance > 0")


def test_no_bonus_is_more_than_the_price_or_comes_twice(anna):
    bill = bill_for(anna, Line("VPS", 20_00))
    for wrong in (bill.total + 1, -1):
        with pytest.raises(invoicing.BillError):
            bill.less(wrong)
    with pytest.raises(invoicing.BillError):
        bill.less(1).less(1)


def _forgotten_on_the_bill(bill: Bill) -> None:
    settling.charge(bill, "")
    invoicing.settle(bill, Settlement(clock.now(), "Account balance", source="balance"))


def _earned_as_money(bill: Bill) -> None:
    counter = [(ledger.account("revenue", "EUR"), bill.net), (ledger.account("vat", "EUR", key="DE"), bill.tax)]
    wallet.spend(bill.customer_id, bill.amount, reference="x", counter=counter, bill_id=bill.id)
    invoicing.settle(bill, Settlement(clock.now(), "Account balance", source="balance"))


def _given_for_nothing(bill: Bill) -> None:
    left = bill.less(10_00)
    counter = [
        (ledger.account("revenue", "EUR"), left.net),
        (ledger.account("vat", "EUR", key="DE"), left.tax),
        (ledger.account("rounding", "EUR"), left.allowance),
    ]
    wallet.spend(bill.customer_id, bill.amount, reference="x", counter=counter, bill_id=bill.id)
    invoicing.settle(bill, Settlement(clock.now(), "Account balance", source="balance", bonus=10_00))


@pytest.mark.parametrize("work", [_forgotten_on_the_bill, _earned_as_money, _given_for_nothing])
def test_a_bonus_that_books_and_bill_tell_apart_is_named(anna, vandal, work):
    give(anna, 10_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    with db.transaction():
        work(invoicing.lock(bill.id))
    assert [fault.kind for fault in ledger.check()] == ["bill"]


def test_what_was_paid_before_a_bonus_lowered_prices_stays_right(anna, vandal):
    give(anna, 10_00)
    bill = bill_for(anna, Line("VPS", 20_00))
    with db.transaction():
        _earned_as_money(invoicing.lock(bill.id))
    vandal.execute("update bills set allowance = null, allowance_net = null where id = %s", (bill.id,))
    assert right()
    assert amounts(newest(anna)) == (20_00, 3_80, 23_80, 0, 0)
