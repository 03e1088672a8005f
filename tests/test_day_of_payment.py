"""The invoice says the VAT and the parties of the day of payment, whatever the pro forma said before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from flask import Flask

from app import bank, clock, customers, db, invoicing, payments, services, wallet
from app.customers import Profile, User
from app.gateways.base import Snapshot
from app.invoicing import Bill, Line
from app.money import Money
from app.payments import NotPayable
from app.sandbox_processor import CHOICES
from app.services import Run
from tests.banks import GERMAN, Transfer, camt
from tests.conftest import BERLIN, person, sign_in
from tests.pay import again, begin, carry, choose, processor
from tests.test_documents import content_of, text_of
from tests.trade import fund, offer_plans, on

TALLINN = Profile(name="Mari Tamm", street="Pikk 1", postcode="10123", city="Tallinn", country="EE", currency="EUR")
PARIS = Profile(
    kind="company", name="Anna Kowalska", company="Exemple SARL", street="1 rue de Rivoli", postcode="75001", city="Paris",
    country="FR", vat_id="FR40303265045", currency="EUR",
)  # fmt: skip
JUNE, JULY = date(2025, 6, 24), date(2025, 7, 3)


@pytest.fixture
def mari(app: Flask) -> Iterator[User]:
    """A consumer in Estonia on 24 June 2025: 22 % until the end of June, 24 % after it."""
    with on(JUNE):
        yield person("mari", profile=TALLINN)


@pytest.fixture
def proforma(mari: User) -> Bill:
    """100.00 before tax, ordered in June: 122.00."""
    return order(mari)


def order(user: User, minor: int = 100_00) -> Bill:
    assert user.customer_id
    with db.transaction():
        return invoicing.issue_service_bill(user.customer_id, "VPS NVMe-4", "EUR", (Line("VPS NVMe-4", minor),))


def now(bill: Bill, number: str = "") -> Bill:
    found = invoicing.find(bill.customer_id, number or bill.number)
    assert found is not None
    return found


def available(bill: Bill) -> int:
    return wallet.state(bill.customer_id).available


def vat() -> dict[str, int]:
    rows = db.rows("select a.key, sum(e.amount)::bigint from entries e join accounts a on a.id = e.account_id where a.kind = 'vat' group by a.key")
    return dict(rows)


def transfer(minor: int, **said: str) -> dict[str, int]:
    """A bank statement of that moment with one transfer."""
    day = clock.today().isoformat()
    style = replace(GERMAN, day=day, id=f"S-{clock.now():%H%M%S%f}")
    return bank.import_file(camt([Transfer(minor, day=day, **said)], style), f"{clock.now().timestamp()}.xml").counts


def move(user: User, profile: Profile, state: str = "none") -> None:
    """The customer changes the profile, and the register says `state` of its VAT ID."""
    assert user.customer_id
    customers.update_profile(user.id, user.customer_id, profile, locale="en_GB", timezone="UTC")
    with db.transaction():
        db.execute("update customers set vat_id_state = %(state)s, vat_checked_at = %(now)s where id = %(id)s", state=state, now=clock.now(), id=user.customer_id)


def said(bill: Bill) -> tuple[str, int, int, int]:
    """Rate, net, tax and total on the invoice."""
    content = content_of(bill, "invoice")
    return f"{content['tax_rate']}".removesuffix(".000"), content["net"], content["tax"], content["total"]


def test_a_rate_that_changed_is_shown_before_anything_is_paid(app, proforma):
    assert (proforma.tax, proforma.total) == (22_00, 122_00)
    with on(JULY):
        with pytest.raises(NotPayable, match=r"PF-2025-000002 for €.124\.00 replaces PF-2025-000001"):
            payments.start(proforma.customer_id, proforma.number, "sandbox-card")
        assert db.scalar("select count(*) from payments") == 0
        bill = now(proforma)
        assert (bill.id, bill.number, bill.tax, bill.total, bill.status) == (proforma.id, "PF-2025-000002", 24_00, 124_00, "unpaid")
        with pytest.raises(NotPayable, match="replaces PF-2025-000001"):
            payments.start(proforma.customer_id, proforma.number, "sandbox-card")
        payment = begin(bill)
        assert payment.money == Money(124_00, "EUR")
        choose(app, payment, "approve")
        carry(app)
    paid = now(proforma)
    assert (paid.number, paid.status, said(paid)) == ("INV-2025-000001", "paid", ("24", 100_00, 24_00, 124_00))
    assert vat() == {"EE": 24_00}
    assert available(paid) == 0
    assert [now(proforma, number).id for number in ("PF-2025-000001", "PF-2025-000002", "INV-2025-000001")] == [proforma.id] * 3


def test_what_was_paid_at_the_old_rate_leaves_the_difference_to_pay(app, proforma):
    with clock.travel(datetime(2025, 6, 30, 21, 40, tzinfo=UTC)):  # twenty to twelve in Berlin
        payment = begin(proforma)
    with clock.travel(datetime(2025, 6, 30, 22, 5, tzinfo=UTC)):
        choose(app, payment, "approve")
        carry(app)
        bill = now(proforma)
        assert (bill.status, bill.number, bill.total) == ("unpaid", "PF-2025-000002", 124_00)
        assert payments.due(bill) == Money(2_00, "EUR")
        assert [step.note for step in payments.timeline(again(payment))][-1] == "€\xa02.00 of PF-2025-000001 is still to be paid."
        rest = begin(bill)
        assert rest.money == Money(2_00, "EUR")
        choose(app, rest, "approve")
        carry(app)
    paid = now(proforma)
    assert said(paid) == ("24", 100_00, 24_00, 124_00)
    assert available(paid) == 0


def test_the_day_of_payment_counts_not_the_day_it_is_told(app, proforma):
    payment = begin(proforma)
    with on(JULY):
        told = Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=payment.money, paid_at=datetime(2025, 6, 30, 20, tzinfo=UTC))
        payments.apply("sandbox", told)
    assert said(now(proforma)) == ("22", 100_00, 22_00, 122_00)


@pytest.mark.parametrize("made_out_again", [False, True])
@pytest.mark.parametrize("name", ["reference", "number"])
def test_a_transfer_that_names_the_old_pro_forma_finds_the_bill(proforma, name, made_out_again):
    named = {"structured": proforma.payment_reference or ""} if name == "reference" else {"text": f"Payment {proforma.number}"}
    with on(JULY):
        if made_out_again:
            assert invoicing.reissue_due() == 1
        assert transfer(122_00, **named) == {"matched": 1}
        bill = now(proforma)
        assert (bill.status, bill.number, payments.due(bill)) == ("unpaid", "PF-2025-000002", Money(2_00, "EUR"))
        assert transfer(2_00, **named) == {"matched": 1}
    paid = now(proforma)
    assert said(paid) == ("24", 100_00, 24_00, 124_00)
    assert (available(paid), vat()) == (0, {"EE": 24_00})


def test_two_transfers_of_one_statement_pay_it_together(proforma):
    with on(JULY):
        day = JULY.isoformat()
        parts = [Transfer(minor, structured=proforma.payment_reference or "", reference=f"R-{minor}", day=day) for minor in (122_00, 2_00)]
        assert bank.import_file(camt(parts, replace(GERMAN, day=day)), "two.xml").counts == {"matched": 2}
    paid = now(proforma)
    assert (said(paid), available(paid)) == (("24", 100_00, 24_00, 124_00), 0)
    assert db.scalar("select last from number_series where kind = 'proforma'") == 1


def test_a_consumer_who_became_a_business_abroad_owes_no_vat(app):
    anna = person("anna", profile=BERLIN)
    bill = order(anna)
    assert bill.total == 119_00
    move(anna, PARIS, "valid")
    assert transfer(119_00, structured=bill.payment_reference or "") == {"matched": 1}
    paid = now(bill)
    content = content_of(paid, "invoice")
    assert (content["tax_category"], content["tax"], content["total"]) == ("AE", 0, 100_00)
    assert (content["buyer"]["company"], content["buyer"]["city"], content["buyer"]["vat_id"]) == ("Exemple SARL", "Paris", "FR40303265045")
    assert "Reverse charge" in content["tax_note"]
    assert (available(paid), vat()) == (19_00, {})


def test_before_the_register_has_answered_the_vat_of_the_new_country_is_due(app):
    anna = person("anna", profile=BERLIN)
    bill = order(anna)
    move(anna, PARIS, "unverified")
    assert transfer(120_00, structured=bill.payment_reference or "") == {"matched": 1}
    assert said(now(bill)) == ("20", 100_00, 20_00, 120_00)
    assert vat() == {"FR": 20_00}


def test_an_address_that_changed_stands_on_the_invoice_and_needs_no_other_pro_forma(app):
    anna = person("anna", profile=BERLIN)
    bill = order(anna)
    move(anna, replace(BERLIN, street="Torstraße 1", postcode="10119"))
    assert invoicing.reissue_due() == 0
    payment = begin(bill)
    choose(app, payment, "approve")
    carry(app)
    paid = now(bill)
    assert [content_of(paid, kind)["buyer"]["street"] for kind in ("proforma", "invoice", "receipt")] == ["Turmstraße 12", "Torstraße 1", "Torstraße 1"]
    assert paid.buyer["street"] == "Torstraße 1"
    assert said(paid) == ("19", 100_00, 19_00, 119_00)


@pytest.mark.parametrize("late", [False, True])
def test_a_top_up_is_made_out_to_who_its_buyer_is_when_it_is_paid(app, late):
    anna = person("anna", profile=BERLIN)
    assert anna.customer_id
    bill = payments.order_topup(anna.customer_id, Money(50_00, "EUR"))
    with clock.travel(clock.now() + timedelta(days=20 if late else 1)):
        assert invoicing.expire_due() == late
        move(anna, PARIS, "valid")
        assert transfer(50_00, structured=bill.payment_reference or "") == {"matched": 1}
    content = content_of(bill, "invoice")
    assert (content["buyer"]["company"], content["tax_category"], content["total"]) == ("Exemple SARL", "O", 50_00)


def test_details_for_one_bill_alone_stay_on_it(app):
    anna = person("anna", profile=BERLIN)
    assert anna.customer_id
    bill = payments.order_topup(anna.customer_id, Money(50_00, "EUR"), made_out_to={"company": "Holding AG", "city": "Bonn"})
    move(anna, PARIS, "valid")
    transfer(50_00, structured=bill.payment_reference or "")
    buyer = content_of(bill, "invoice")["buyer"]
    assert (buyer["company"], buyer["city"], buyer["street"]) == ("Holding AG", "Bonn", "1 rue de Rivoli")


def test_from_the_balance_as_well(proforma):
    with on(JULY):
        fund(proforma.customer_id, 130_00)
        with pytest.raises(NotPayable, match="replaces PF-2025-000001"):
            payments.pay_from_balance(proforma.customer_id, proforma.number)
        assert available(proforma) == 130_00
        paid = payments.pay_from_balance(proforma.customer_id, now(proforma).number)
    assert (said(paid), available(paid)) == (("24", 100_00, 24_00, 124_00), 6_00)


def test_a_renewal_that_waited_costs_what_it_costs_when_it_is_paid(mari):
    offer_plans()
    assert mari.customer_id
    with on(date(2025, 5, 24)):
        fund(mari.customer_id, 24_40)
        services.order(mari.customer_id, "vps-4", 1)
    with on(JUNE):
        assert services.renew_due() == Run(short=1)
        (waiting,) = services.of_customer(mari.customer_id)
        assert waiting.price == Money(24_40, "EUR")
    with on(JULY):
        (waiting,) = services.of_customer(mari.customer_id)
        assert waiting.price == Money(24_80, "EUR")
        fund(mari.customer_id, 24_79)
        assert services.renew_due() == Run(short=1)
        fund(mari.customer_id, 1)
        assert services.renew_due() == Run(renewed=1)
    assert wallet.state(mari.customer_id).available == 0
    assert vat() == {"EE": 4_40 + 4_80}


def test_a_renewal_that_was_made_out_again_is_charged_to_the_card_and_extends_its_service(app, mari):
    offer_plans()
    assert mari.customer_id
    with on(date(2025, 5, 24)):
        fund(mari.customer_id, 24_40)
        service = services.order(mari.customer_id, "vps-4", 1)
        page = payments.cards.add(mari.customer_id)
        processor(app).choose(page.reference, CHOICES["approve"])
        carry(app)
        (card,) = payments.cards.of_customer(mari.customer_id)
    with on(JUNE):
        services.renew_due()
        services.pay_from(mari.customer_id, service.public_id, card.public_id)
    with on(JULY):
        assert services.renew_by_card() == {"paid": 1}
        assert db.scalar("select amount from payments where off_session") == 24_80
        (renewed,) = services.of_customer(mari.customer_id)
    assert (renewed.paid_through, renewed.waiting) == (date(2025, 7, 23), None)
    assert vat() == {"EE": 4_40 + 4_80}


def test_the_copied_link_asks_for_the_new_sum(client, proforma):
    link = payments.share(proforma.customer_id, proforma.number)
    assert link is not None
    with on(JULY):
        page = client.submit(link.path, data={"method": "sandbox-card"})
        assert page.status_code == 422
        assert "The VAT changed" in page.text
        assert "124.00" in page.text
        assert client.submit(link.path, data={"method": "sandbox-card"}).status_code == 303
        assert db.scalar("select amount from payments") == 124_00


def test_pages_and_papers_know_both_numbers(client, mari, proforma):
    with on(JULY):
        sign_in(client, mari)
        first = client.submit(f"/invoices/{proforma.number}/pay", data={"method": "sandbox-card"})
        assert first.status_code == 422
        assert "replaces PF-2025-000001" in first.text
        assert "124.00" in first.text
        assert client.get("/invoices/PF-2025-000001/pay").location == "/invoices/PF-2025-000002/pay"
        assert client.get("/invoices/PF-2025-000002/pay").status_code == 200
        page = client.get("/invoices/PF-2025-000001").text
        assert "VAT changed, new invoice for payment" in page
        text = text_of(client.get("/invoices/PF-2025-000001.pdf").data)
        for words in ("PF-2025-000002", "Replaces PF-2025-000001", "Issued July 3, 2025", "VAT 24%", "To pay € 124.00"):
            assert words in text
        for number in ("PF-2025-000001", "PF-2025-000002"):
            assert "PF-2025-000002" in client.get(f"/invoices?q={number}").text
        assert client.submit("/invoices/PF-2025-000001/cancel").location == "/invoices/PF-2025-000001"
        assert now(proforma).status == "cancelled"


def test_the_job_makes_out_again_what_changed_and_nothing_twice(proforma):
    other = order(person("berlin", profile=BERLIN))
    assert invoicing.reissue_due() == 0
    with on(JULY):
        assert invoicing.reissue_due(chunk=1) == 1
        assert invoicing.reissue_due() == 0
        assert now(other).number == other.number
        user = customers.find_user("mari")
        assert user is not None
        move(user, replace(TALLINN, country="FI", city="Helsinki"))
        assert invoicing.reissue_due() == 1
    bill = now(proforma)
    assert (bill.number, bill.total, bill.replaces) == ("PF-2025-000004", 125_50, "PF-2025-000003")
    assert [name for name in bill.former_names if name.startswith("PF")] == ["PF-2025-000001", "PF-2025-000003"]
    assert now(proforma, "PF-2025-000001").id == now(proforma, "PF-2025-000003").id == bill.id


def test_pages_open_for_the_old_sum_are_closed(app, proforma):
    payment = begin(proforma)
    with on(JULY):
        assert payments.close_settled() == 0
        invoicing.reissue_due()
        assert payments.close_settled() == 1
    assert again(payment).state == "expired"


def test_a_buyer_who_cannot_be_taxed_any_more_keeps_the_tax_of_the_order(app, proforma):
    with db.transaction():
        db.execute("update customers set country = null where id = %(id)s", id=proforma.customer_id)
    with on(JULY):
        assert invoicing.reissue_due() == 0
        assert transfer(122_00, structured=proforma.payment_reference or "") == {"matched": 1}
    assert said(now(proforma)) == ("22", 100_00, 22_00, 122_00)


def test_many_windows_make_it_out_again_once(app, proforma):
    with on(JULY):

        def press(_: int) -> str:
            with app.app_context(), on(JULY):
                try:
                    payments.start(proforma.customer_id, proforma.number, "sandbox-card")
                except NotPayable as refused:
                    return str(refused)
                return "paid the old sum"

        with ThreadPoolExecutor(6) as pool:
            answers = set(pool.map(press, range(12)))
    assert len(answers) == 1
    assert "replaces PF-2025-000001" in answers.pop()
    assert db.rows("select number from documents order by id") == [("PF-2025-000001",), ("PF-2025-000002",)]


def test_money_that_comes_while_it_is_made_out_again_is_counted_once(app, proforma):
    bills = [proforma, *(order_of(f"mari-{n}") for n in range(5))]
    pages = [begin(bill) for bill in bills]

    def act(place: int) -> None:
        with app.app_context(), on(JULY):
            if place % 2:
                invoicing.reissue_due(chunk=2)
            else:
                page = pages[place // 2]
                payments.apply("sandbox", Snapshot(page.gateway_reference or "", page.public_id, "paid", received=page.money, paid_at=clock.now()))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(12)))
    for bill in bills:
        found = now(bill)
        assert (found.status, found.total, payments.due(found), available(found)) == ("unpaid", 124_00, Money(2_00, "EUR"), 122_00)
    assert db.scalar("select count(*) from documents where kind = 'proforma'") == 12


def order_of(login: str) -> Bill:
    return order(person(login, profile=TALLINN))


@pytest.mark.parametrize(
    "change",
    [
        "update bills set buyer = '{}'",
        "update bills set tax = 24, total = 124",
        "update bills set tax_note = 'x', proforma_number = 'PF-1'",
        "update bills set proforma_number = 'PF-1', payment_reference = 'RF1', reissued_at = now(), former_names = array['x']",
        "update bills set proforma_number = 'PF-1', payment_reference = 'RF1', reissued_at = now(), former_names = array[proforma_number, payment_reference], net = 1",
        "update bills set former_names = array['x'], reissued_at = now()",
        'update bills set made_out_to = \'{"name": "x"}\'',
    ],
)
def test_nothing_else_may_change(superuser: psycopg.Connection, proforma, change):
    with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)):
        superuser.execute(change)


def test_what_is_paid_is_never_made_out_again(superuser: psycopg.Connection, proforma):
    transfer(122_00, structured=proforma.payment_reference or "")
    with on(JULY):
        assert invoicing.reissue_due() == 0
        with db.transaction():
            assert invoicing.reissue([proforma.id]) == []
    for change in (
        "tax = 24_00, total = 124_00",
        "buyer = '{}'",
        "proforma_number = 'PF-1', payment_reference = 'RF1', reissued_at = now(), former_names = array['PF-2025-000001']",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            superuser.execute(f"update bills set {change.replace('_', '') if 'tax' in change else change}")
    assert said(now(proforma)) == ("22", 100_00, 22_00, 122_00)


def test_a_new_rate_and_a_bonus_meet_on_one_invoice(app, mari, proforma):
    """122.00 with 22 % is 124.00 in July; 10.00 of bonus leave 114.00, of which 24 % are 22.06."""
    payments.grant_bonus(proforma.customer_id, Money(10_00, "EUR"), reason="Thank you", reference="b")
    with on(JULY):
        fund(proforma.customer_id, 200_00)
        with pytest.raises(NotPayable):
            payments.pay_from_balance(proforma.customer_id, proforma.number)
        paid = payments.pay_from_balance(proforma.customer_id, now(proforma).number)
    assert said(paid) == ("24", 91_94, 22_06, 114_00)
    assert (paid.allowance, paid.allowance_net) == (10_00, 8_06)
    assert (available(paid), vat()) == (86_00, {"EE": 22_06})


def test_money_for_a_paid_bill_leaves_what_its_papers_say(app, proforma):
    transfer(122_00, structured=proforma.payment_reference or "")
    with on(JULY):
        assert transfer(122_00, structured=proforma.payment_reference or "") == {"matched": 1}
        (same,) = invoicing.as_of([now(proforma)], [JULY])
    assert same == now(proforma)
    spare = content_of(proforma, "payment_receipt")
    assert (spare["tax_rate"].removesuffix(".000"), spare["tax"], spare["total"]) == ("22", 22_00, 122_00)
    assert available(proforma) == 122_00


def test_at_the_same_rate_the_price_stays_while_it_is_paid(superuser: psycopg.Connection, proforma):
    paid = """
    update bills set status = 'paid', settled_by = 'payment', payment = '{}', paid_at = now(), invoiced_at = now(),
      invoice_number = 'INV-2025-000001', tax = tax - 1, total = total - 1
    """
    with pytest.raises(psycopg.errors.RestrictViolation):
        superuser.execute(paid)
