"""The whole book, read back by the programs it is written for."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from beancount import loader
from beancount.core.data import Balance, Open, Transaction

from app import clock, db, ledger, wallet
from app.money import Money

NOW = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)


@pytest.fixture
def trade(app):
    """Top-ups in three currencies, a charge, a bonus, a refund on hold; names that need care."""
    with clock.travel(NOW), db.transaction():
        anna, yuki = (db.scalar("insert into customers (currency, created_at) values (%(c)s, %(at)s) returning id", c=c, at=NOW) for c in ("EUR", "JPY"))
        for customer, amount in ((anna, Money.of("1284.60", "EUR")), (yuki, Money(5000, "JPY")), (yuki, Money.of("1.250", "KWD"))):
            gateway = ledger.account("gateway", amount.currency, key="sandbox")
            wallet.credit(customer, amount, reference=f"p{amount}", kind="topup", counter=[(gateway, -amount.minor)], description='=SUM(A1) "quoted" \\ and\nbroken')
        bank, suspense = ledger.account("bank", "EUR", key="DE89 3704 0044"), ledger.account("suspense", "EUR")
        ledger.post("arrived:1", "arrived", [(bank, -700), (suspense, 700)], description="Łódź")
        revenue, vat = ledger.account("revenue", "EUR"), ledger.account("vat", "EUR", key="DE")
        wallet.grant_bonus(anna, Money.of("5.00", "EUR"), reference="b1")
        wallet.spend(anna, Money.of("11.90", "EUR"), reference="c1", counter=[(revenue, 1000), (vat, 190)])
        ledger.account("fees", "EUR", key="sandbox")
        wallet.hold(anna, wallet.lots(anna)[1].id, Money.of("100.00", "EUR"), reference="h1")
    return anna


def exported(write):
    out = io.StringIO()
    write(out)
    return out.getvalue()


def test_beancount_agrees_to_the_last_unit(trade):
    entries, errors, _ = loader.load_string(exported(ledger.export_beancount))
    assert errors == []
    transactions = [entry for entry in entries if isinstance(entry, Transaction)]
    assert len(transactions) == db.scalar("select count(*) from transfers")
    asserted = {(entry.account, entry.amount.currency): entry.amount.number for entry in entries if isinstance(entry, Balance)}
    assert len(asserted) == db.scalar("select count(*) from accounts")
    assert asserted[f"Liabilities:Wallet:C{trade}", "EUR"] == Decimal("-1177.70")
    assert asserted["Assets:Gateway:Sandbox", "JPY"] == Decimal(5000)
    assert asserted["Assets:Gateway:Sandbox", "KWD"] == Decimal("1.250")
    assert {entry.account for entry in entries if isinstance(entry, Open)} == {account for account, _ in asserted}


def test_beancount_would_notice_a_cent(trade):
    text = exported(ledger.export_beancount).replace("balance Liabilities:Vat:DE  -1.90", "balance Liabilities:Vat:DE  -1.89")
    _, errors, _ = loader.load_string(text)
    assert ["Balance failed" in error.message for error in errors] == [True]


def test_an_empty_book_is_a_book(app):
    entries, errors, _ = loader.load_string(exported(ledger.export_beancount))
    assert (entries, errors) == ([], [])


def test_names_that_differ_stay_apart(app):
    with db.transaction():
        keys = ("sandbox", "SANDBOX", "sand box", "sand-box", "=1", "é")
        lines = [(ledger.account("gateway", "EUR", key=key), n + 1) for n, key in enumerate(keys)]
        ledger.post("x", "correction", [*lines, (ledger.account("suspense", "EUR"), -sum(amount for _, amount in lines))])
    entries, errors, _ = loader.load_string(exported(ledger.export_beancount))
    assert errors == []
    assert len([entry for entry in entries if isinstance(entry, Open)]) == len(keys) + 1


def test_csv_has_a_row_for_each_entry(trade):
    rows = list(csv.DictReader(io.StringIO(exported(ledger.export_csv))))
    assert len(rows) == db.scalar("select count(*) from entries")
    wallet_row = next(row for row in rows if row["account"] == f"Liabilities:Wallet:C{trade}")
    assert (wallet_row["amount"], wallet_row["balance_after"], wallet_row["currency"]) == ("1284.60", "1284.60", "EUR")
    assert wallet_row["posted_at"].startswith("2026-03-01T23:59:00")
    assert wallet_row["description"].startswith("'=SUM")
    assert {row["amount"] for row in rows if row["currency"] == "JPY"} == {"5000", "-5000"}
    assert sum(Decimal(row["amount"]) for row in rows) == 0
