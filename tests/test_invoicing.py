"""Bills: numbers without gaps, snapshots that stay, and nothing paid that should not be."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from app import clock, db, invoicing
from app.invoicing import Draft, Line, Settlement
from app.money import Money

_PROFILE = {
    "kind": "company",
    "name": "Anna Kowalska",
    "company": "Kowalska Studio sp. z o.o.",
    "street": "ul. Piotrkowska 104",
    "postcode": "90-926",
    "city": "Łódź",
    "country": "PL",
    "vat_id": "PL7251801126",
    "vat_id_state": "valid",
}
_PERSON = """
insert into customers (kind, name, company, street, postcode, city, country, vat_id, vat_id_state, billing_email, currency, created_at)
values (%(kind)s, %(name)s, %(company)s, %(street)s, %(postcode)s, %(city)s, %(country)s, %(vat_id)s, %(vat_id_state)s, 'a@example.com', 'EUR', %(now)s)
returning id
"""


def person(login: str = "anna", **fields: str) -> int:
    """A customer with one user; returns the customer's id. Within no transaction."""
    with db.transaction():
        customer_id = db.scalar(_PERSON, **{**_PROFILE, **fields}, now=clock.now())
        db.execute(
            "insert into users (customer_id, login, email, name, password_hash, created_at) values (%(customer)s, %(login)s, %(email)s, 'Anna', '-', %(now)s)",
            customer=customer_id,
            login=login,
            email=f"{login}@example.com",
            now=clock.now(),
        )
    return int(customer_id)


def topup(customer_id: int, minor: int = 25_00) -> invoicing.Bill:
    with db.transaction():
        return invoicing.issue_topup_bill(customer_id, customer_id, Money(minor, "EUR"))


def card(**more: object) -> Settlement:
    return Settlement(**{"paid_at": clock.now(), "method_label": "Visa ···· 4242", "reference": "ch_1", **more})  # type: ignore[arg-type]


def pay(bill: invoicing.Bill, settlement: Settlement | None = None) -> str:
    with db.transaction():
        return invoicing.settle(bill, settlement or card())


def settle_and_fall(bill: invoicing.Bill) -> None:
    with db.transaction():
        invoicing.settle(bill, card())
        raise ZeroDivisionError


def test_a_topup_is_issued_with_a_proforma_and_no_vat(app):
    anna = person()
    bill = topup(anna)
    found = invoicing.find(anna, f"PF-{clock.now().year}-000001")
    assert found == bill
    assert (bill.net, bill.tax, bill.total, bill.status) == (25_00, 0, 25_00, "unpaid")
    assert "no VAT is due" in bill.tax_note
    assert bill.buyer["city"] == "Łódź"


def test_settling_gives_invoice_and_receipt(app):
    anna = person()
    bill = topup(anna)
    number = pay(bill)
    found = invoicing.find(anna, number)
    assert found is not None
    assert found == invoicing.find(anna, bill.number)
    assert (found.number, found.receipt_number, found.status) == (number, number.replace("INV", "RC"), "paid")
    assert found.payment is not None
    assert found.payment["method"] == "Visa ···· 4242"


def test_a_stranger_finds_nothing(app):
    bill = topup(person())
    stranger = person("bob")
    assert invoicing.find(stranger, bill.number) is None
    assert invoicing.find(stranger, "PF-1999-000001") is None
    assert invoicing.cancel(stranger, bill.number) is None


def test_a_rollback_leaves_no_hole(app):
    anna = person()
    first, second = topup(anna), topup(anna)
    with pytest.raises(ZeroDivisionError):
        settle_and_fall(first)
    assert pay(second).endswith("-000001")
    assert pay(first).endswith("-000002")


def test_a_bill_is_settled_once(app):
    bill = topup(person())
    pay(bill)
    with pytest.raises(invoicing.AlreadySettled):
        pay(bill)
    assert db.scalar("select last from number_series where kind = 'invoice'") == 1


def test_a_topup_is_never_paid_from_the_balance(app, superuser):
    bill = topup(person())
    with pytest.raises(invoicing.BillError):
        pay(bill, card(source="balance"))
    with pytest.raises(psycopg.errors.CheckViolation, match="topup_is_paid_from_outside"):
        superuser.execute("update bills set status = 'paid', paid_at = now(), settled_by = 'balance', payment = '{}', invoice_number = 'X'")


def test_late_money_settles_what_expired(app):
    anna = person()
    with clock.travel(clock.now() - timedelta(days=30)):
        bill = topup(anna)
    assert invoicing.expire_due() == 1
    assert invoicing.expire_due() == 0
    assert invoicing.find(anna, bill.number).status == "expired"  # type: ignore[union-attr]
    number = pay(bill)
    assert invoicing.find(anna, number).status == "paid"  # type: ignore[union-attr]


def test_fifty_at_once_get_fifty_numbers_in_a_row(app):
    anna = person()
    bills = [topup(anna) for _ in range(50)]

    def settle(bill: invoicing.Bill) -> str:
        with app.app_context():
            return pay(bill)

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(settle, bills))
    assert sorted(numbers) == [f"INV-{clock.now().year}-{n:06d}" for n in range(1, 51)]


def test_two_payments_of_one_bill_settle_it_once(app):
    bill = topup(person())

    def settle(_: int) -> bool:
        with app.app_context():
            try:
                return bool(pay(bill))
            except invoicing.AlreadySettled:
                return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(settle, range(4))) == [False, False, False, True]
    assert db.rows("select kind, last from number_series order by kind") == [("invoice", 1), ("proforma", 1), ("receipt", 1)]


def test_only_an_unpaid_bill_is_cancelled(app):
    anna = person()
    bill = topup(anna)
    assert invoicing.cancel(anna, bill.number).status == "cancelled"  # type: ignore[union-attr]
    with pytest.raises(invoicing.NotCancellable, match="cancelled"):
        invoicing.cancel(anna, bill.number)


@pytest.mark.parametrize(
    "change",
    [
        "update bills set total = 1, net = 1",
        "update bills set buyer = '{}'",
        "update bills set proforma_number = 'PF-1'",
        "delete from bills",
        "update bill_lines set net = 1",
        "update documents set content = '{}'",
        "delete from documents",
    ],
)
def test_what_is_issued_does_not_change(superuser, change):
    topup(person())
    with pytest.raises(psycopg.errors.RestrictViolation):
        superuser.execute(change)


def test_many_bills_cost_as_many_statements_as_one(app, statements):
    people = [person(f"user{n}") for n in range(5)]
    drafts = [Draft(people[n % 5], f"vps-{n}", "EUR", (Line("VPS", 5_00 + n),), kind="topup", proforma=n % 2 == 0) for n in range(40)]
    with db.transaction():
        before = len(statements)
        bills = invoicing.issue_many(drafts)
        numbers = invoicing.settle_many([(bill, card()) for bill in bills])
        assert len(statements) - before == 5
    assert numbers == [f"INV-{clock.now().year}-{n:06d}" for n in range(1, 41)]
    assert [invoicing.find(bill.customer_id, number).title for bill, number in zip(bills, numbers, strict=True)] == [d.title for d in drafts]  # type: ignore[union-attr]


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
