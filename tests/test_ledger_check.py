"""Every kind of fault, planted past all safeguards, is found and named; and nothing else is."""

import pytest

from app import clock, db, invoicing, ledger, wallet
from app.money import Money
from tests import books
from tests.test_invoicing import card, enter, service, topup
from tests.test_invoicing import person as invoiced


@pytest.fixture
def trade(app):
    """A customer with two top-ups, a bonus, a charge over both and a refund on hold; one invoice number, one stored document."""
    with db.transaction():
        customer = db.scalar("insert into customers (currency, created_at) values ('EUR', %(at)s) returning id", at=clock.now())
        gateway, revenue = ledger.account("gateway", "EUR", key="sandbox"), ledger.account("revenue", "EUR")
        for n in (1, 2):
            wallet.credit(customer, Money(1000, "EUR"), reference=f"p{n}", kind="topup", counter=[(gateway, -1000)])
        wallet.grant_bonus(customer, Money(100, "EUR"), reference="b1")
        wallet.spend(customer, Money(1200, "EUR"), reference="c1", counter=[(revenue, 1200)])
        wallet.hold(customer, wallet.lots(customer)[1].id, Money(300, "EUR"), reference="h1")
    return {"wallet": ledger.accounts(customer, "EUR")[0], "customer": customer}


def found():
    return [(fault.kind, fault.what) for fault in ledger.check()]


def test_right_books_have_no_fault(trade):
    steps = []
    assert list(ledger.check(lambda done, total: steps.append((done, total)))) == []
    assert steps
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


# Statement, the kind of the first fault, what its sentence names. p1 is transfer 1, p2 2, b1 3, c1 4, h1 5; the wallet is account 2.
PLANTED = [
    ("update entries set amount = amount + 1 where transfer_id = 1 and amount > 0", "unbalanced", "transfer 1 (p1)"),
    ("delete from entries where transfer_id = 5 and amount > 0", "unbalanced", "transfer 5 (h1)"),
    ("update entries set currency = 'USD' where transfer_id = 1", "currency", "transfer 1"),
    ("insert into transfers (reference, kind, actor, posted_at) values ('x', 'topup', 'thief', now())", "empty", "(x) has no entries"),
    ("delete from transfers where reference = 'p2'", "orphan", "transfer 2 (no such transfer)"),
    ("delete from accounts where kind = 'revenue'", "orphan", "no such account"),
    ("delete from entries where account_id = {wallet} and seq = 1; delete from entries where transfer_id = 1; delete from transfers where id = 1", "sequence", "gap"),
    ("update entries set seq = 9 where account_id = {wallet} and seq = 4", "sequence", "entry 9"),
    ("update entries set seq = 77 where transfer_id = 1 and amount < 0", "sequence", "entry 77"),
    ("update entries set balance_after = balance_after + 1 where account_id = {wallet} and seq = 2", "balance", "is 2001, not 2000"),
    ("update entries set credited_after = 5 where account_id = {wallet} and seq = 2", "credited", "entry 2"),
    ("update entries set posted_at = posted_at - interval '1 day' where account_id = {wallet} and seq = 2", "time", "entry 2"),
    ("update transfers set description = 'something else' where reference = 'c1'", "chain", "transfer 4 (c1)"),
    ("update transfers set reference = 'c2' where reference = 'c1'", "chain", "transfer 4 (c2)"),
    ("update transfers set actor = 'nobody' where reference = 'p1'", "chain", "transfer 1"),
    ("update transfers set refund_id = 5 where reference = 'h1'", "chain", "transfer 5"),
    ("update entries set hash = set_bit(hash, 77, 1 - get_bit(hash, 77)) where transfer_id = 4 and account_id = {wallet}", "chain", "transfer 4"),
    ("update entries set hash = set_bit(hash, 77, 1 - get_bit(hash, 77)) where transfer_id = 4 and balance_after is null", "chain", "(revenue)"),
    ("update accounts set balance = balance + 1 where id = {wallet}", "balance", "account {wallet} (wallet EUR)"),
    ("update accounts set balance = 5 where kind = 'gateway'", "balance", "(gateway EUR)"),
    ("update entries set kind = 'fee' where account_id = {wallet} and seq = 2", "kind", "its kind is fee"),
    ("update accounts set entry_count = 5 where id = {wallet}", "sequence", "it counts 5 entries, the last one is 4"),
    ("update accounts set credited = 5 where id = {wallet}", "credited", "account {wallet}"),
    ("update accounts set head = '\\x00' where id = {wallet}", "chain", "its head"),
    ("update lots set remaining = remaining - 1 where transfer_id = 2", "lots", "lots hold 599, its balance is 600"),
    ("update lots set remaining = remaining - 1 where transfer_id = 2; update lots set remaining = remaining + 1 where transfer_id = 1", "allocations", "lot"),
    ("update allocations set amount = amount + 1 where transfer_id = 4 and amount > 500", "allocations", "lot"),
    ("delete from allocations where transfer_id = 4", "allocations", "lot"),
    ("update allocations set transfer_id = 1 where transfer_id = 5", "allocations", "transfer 1 moves 1000"),
    ("insert into number_series values ('invoice', 2026, 3)", "number", "series INV-2026: 0 numbers are used, the last is 0 and the counter says 3"),
]


@pytest.mark.parametrize(("statement", "kind", "names"), PLANTED)
def test_a_planted_fault_is_named_first(trade, vandal, statement, kind, names):
    vandal.execute(statement.format(**trade))
    faults = found()
    assert faults
    assert faults[0][0] == kind
    assert names.format(**trade) in faults[0][1]


OVERDRAWN = """
with t as (insert into transfers (reference, kind, actor, posted_at) values ('x', 'charge', 'thief', now()) returning id)
insert into entries (account_id, transfer_id, amount) select account, t.id, amount
from t, (select id, -700 from accounts where kind = 'wallet' union all select id, 700 from accounts where kind = 'revenue') line (account, amount)
"""


def test_a_wallet_below_zero_is_named(trade, vandal):
    vandal.execute("alter table accounts drop constraint accounts_floor")
    try:
        vandal.execute("set session_replication_role = origin")
        vandal.execute(OVERDRAWN)
        assert found()[0] == ("negative", f"entry 5 of account {trade['wallet']} (wallet), transfer 6 (x): the balance after it is -100")
        assert ("negative", f"account {trade['wallet']} (wallet EUR): its balance is -100") in found()
    finally:
        vandal.execute("set session_replication_role = replica")
        vandal.execute("truncate accounts cascade")
        vandal.execute("alter table accounts add constraint accounts_floor check (floor is null or balance >= floor)")


# What must agree with the books


def payment(trade, state, times):
    with db.transaction():
        payment_id = books.payment(trade["customer"], "PF-2026-000001", state=state)
        gateway = ledger.account("gateway", "EUR", key="sandbox")
        for n in range(times):
            amount = Money(1000, "EUR")
            wallet.credit(trade["customer"], amount, reference=f"pay_1:{n}", kind="topup", counter=[(gateway, -1000)], payment_id=payment_id)


@pytest.mark.parametrize(("state", "times"), [("paid", 0), ("paid", 2), ("refunded", 0), ("expired", 1), ("pending", 1)])
def test_a_payment_not_credited_exactly_once_is_named(trade, vandal, state, times):
    payment(trade, state, times)
    assert found() == [("payment", f"payment pay-PF-2026-000001 is {state} and was credited {times} times, with {times * 1000} instead of 1000")]


@pytest.mark.parametrize(("state", "times"), [("paid", 1), ("disputed", 1), ("expired", 0), ("created", 0)])
def test_a_payment_credited_once_is_right(trade, state, times):
    payment(trade, state, times)
    assert found() == []


def test_a_hole_in_a_series_is_named(trade, vandal):
    with db.transaction():
        db.execute("insert into number_series values ('proforma', 2026, 4)")
        for number in (1, 2, 4):
            books.bill(trade["customer"], f"PF-2026-{number:06d}")
    assert found() == [("number", "series PF-2026: 3 numbers are used, the last is 4 and the counter says 4; missing is 3")]


def test_a_changed_pdf_is_named(trade, vandal):
    with db.transaction():
        db.execute("insert into number_series values ('invoice', 2026, 1)")
        bill = books.bill(trade["customer"], None)
        document = db.scalar(
            "insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content)"
            " values (%(bill)s, %(customer)s, 'invoice', 'INV-2026-000001', %(at)s, 1000, 'EUR', '{}') returning id",
            bill=bill, customer=trade["customer"], at=clock.now(),
        )  # fmt: skip
        db.execute("insert into document_files values (%(document)s, 'pdf', sha256('pdf'), %(at)s)", document=document, at=clock.now())
    assert found() == []
    vandal.execute("alter table document_files drop constraint document_files_check")
    try:
        vandal.execute("update document_files set pdf = 'pdg'")
        assert found() == [("file", "the stored PDF of document INV-2026-000001 is not the one that was issued")]
    finally:
        vandal.execute("truncate document_files")
        vandal.execute("alter table document_files add constraint document_files_check check (sha256 = sha256(pdf))")


def test_the_check_stops_when_asked_to(trade, vandal):
    vandal.execute("update entries set amount = amount + 1")
    faults = ledger.check()
    assert next(faults).kind == "unbalanced"
    faults.close()


def _settled_without_money(bill):
    invoicing.settle(bill, card())


def _charged_and_not_settled(bill):
    enter(bill)


def _charged_twice(bill):
    enter(bill)
    invoicing.settle(bill, card())
    wallet.credit(bill.customer_id, bill.amount, reference="more", kind="correction", counter=_from(bill))
    counter = [(ledger.account("revenue", "EUR"), bill.total)]
    wallet.spend(bill.customer_id, bill.amount, reference="again", counter=counter, bill_id=bill.id)


def _vat_kept_as_revenue(bill):
    wallet.credit(bill.customer_id, bill.amount, reference="in", kind="topup", counter=_from(bill))
    counter = [(ledger.account("revenue", "EUR"), bill.total)]
    wallet.spend(bill.customer_id, bill.amount, reference="out", counter=counter, bill_id=bill.id)
    invoicing.settle(bill, card())


def _vat_owed_to_another_country(bill):
    wallet.credit(bill.customer_id, bill.amount, reference="in", kind="topup", counter=_from(bill))
    counter = [(ledger.account("revenue", "EUR"), bill.net), (ledger.account("vat", "EUR", key="FR"), bill.tax)]
    wallet.spend(bill.customer_id, bill.amount, reference="out", counter=counter, bill_id=bill.id)
    invoicing.settle(bill, card())


def _from(bill):
    return [(ledger.account("gateway", "EUR", key="test"), -bill.total)]


@pytest.mark.parametrize(
    ("issue", "work"),
    [
        (topup, _settled_without_money),
        (service, _settled_without_money),
        (service, _charged_and_not_settled),
        (service, _charged_twice),
        (service, _vat_kept_as_revenue),
        (service, _vat_owed_to_another_country),
    ],
)
def test_a_bill_that_the_ledger_does_not_bear_out_is_named(app, vandal, issue, work):
    bill = issue(invoiced(vat_id="", vat_id_state="none"))
    with db.transaction():
        work(bill)
    assert [kind for kind, _ in found()] == ["bill"]


@pytest.mark.parametrize("issue", [topup, service])
def test_a_bill_that_the_ledger_bears_out_is_right(app, issue):
    bill = issue(invoiced(vat_id="", vat_id_state="none"))
    with db.transaction():
        enter(bill)
        invoicing.settle(bill, card())
    assert found() == []
