"""The demo: a year told by the verbs of real life."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from beancount import loader
from beancount.core.data import Transaction
from flask import Flask

import config
from app import audit, bank, clock, customers, db, demo, gateways, invoicing, ledger, refunds, services, wallet
from app.money import Money
from tests.conftest import empty, person, sign_in
from tests.pay import processor

FACTS = {
    "movements": "select kind, posted_at::date as day, description, count(*), sum((select sum(amount) from entries e where e.transfer_id = t.id and amount > 0)) from transfers t group by 1, 2, 3",
    "bills": "select kind, status, title, currency, total, issued_at::date from bills",
    "people": "select name, company, city, country, currency from customers",
    "services": "select label, months, status, paid_through, auto_renew from services",
}


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, list[str]]]:
    """What the databases of one seed held, by the seed's name: filled by the tests that tell it."""
    return {}


@pytest.fixture
def team() -> dict[str, str]:
    """Nobody: the demo brings its own people of support, and is written into an empty database only."""
    return {}


@pytest.fixture(scope="module")
def told(application: Flask) -> Iterator[Flask]:
    """The demo with three other customers, written once for all tests that look at it, which come
    before the first that uses `app`."""
    empty(application)
    gateways.use(gateways.build(config.current(), application.extensions["sandbox_processor"]))
    with application.app_context(), audit.acting_as(audit.SYSTEM):
        demo.seed(3, 14, 7, processor=processor(application))
        yield application


def balance_of(login: str) -> wallet.Wallet:
    user = customers.find_user(login)
    assert user is not None
    assert user.customer_id is not None
    return wallet.state(user.customer_id)


def test_anna_has_seen_everything(told):
    user = customers.find_user("demo")
    kinds = {
        row.kind
        for row in db.rows(
            "select distinct t.kind from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id where a.customer_id = %(id)s",
            id=user.customer_id,
        )
    }
    assert kinds == {"topup", "charge", "bonus", "refund_requested", "refund_sent", "dispute_opened", "dispute_won"}
    assert {row.method for row in db.rows("select distinct method from payments where customer_id = %(id)s", id=user.customer_id)} == {"card", "paypal", "bank", "crypto"}
    assert db.scalar("select count(*) from payments where customer_id = %(id)s and currency = 'USD' and credited_currency = 'EUR'", id=user.customer_id) == 1
    assert db.scalar("select min(posted_at) from transfers") < clock.now() - timedelta(days=13 * 30)
    unpaid = [row.kind for row in db.rows("select kind from bills where customer_id = %(id)s and status = 'unpaid'", id=user.customer_id)]
    assert sorted(set(unpaid)) == ["service", "topup"]
    assert [refund.state for refund in refunds.of_customer(user.customer_id)] == ["settled"]
    assert [dispute.state for dispute in refunds.disputes_of(user.customer_id)] == ["won"]


def test_her_balance_runs_short_in_some_weeks_and_nothing_waits_before(told):
    user = customers.find_user("demo")
    runway = services.runway(user.customer_id)
    assert timedelta(days=7) < runway.short_on - clock.today() < timedelta(days=70)
    assert balance_of("demo").available > 0
    assert balance_of("demo").bonus > 0
    renewals = services.upcoming(user.customer_id, 31)
    assert len(renewals) >= 2
    assert services.due(clock.today() - timedelta(days=1)) == []


def test_support_finds_something_to_do_in_each_of_its_lists(told):
    once, twice = sorted(refunds.queue(), key=lambda case: case.refund.approvals_needed)
    assert (once.refund.state, once.refund.approvals_needed) == ("requested", 1)
    assert (twice.refund.state, twice.refund.approvals_needed, twice.refund.approvals) == ("requested", 2, ["staff:rita"])
    assert [case.refund.number for state in ("settled", "declined") for case in refunds.closed(state)]
    (waiting,), (decided,) = refunds.held_money(), refunds.held_money(over=True)
    assert (waiting.state, decided.state) == ("held", "credited")
    assert waiting.reason == "135.00 EUR came instead of 150.00 EUR"
    assert {dispute.state: len(dispute.steps) for dispute in refunds.disputes_in(("inquiry", "won", "lost"))} == {"inquiry": 1, "won": 2, "lost": 2}
    assert [line.sender for line in bank.unmatched()] == ["Berger & Söhne KG", "M. Novak"]
    assert bank.gaps() == []


def test_a_payment_that_was_lost_to_its_bank_left_a_debt(told):
    user = customers.find_user("kiosk")
    assert db.scalar("select balance from accounts where customer_id = %(id)s and kind = 'debt'", id=user.customer_id) < 0
    assert balance_of("kiosk").available == 0


def test_the_books_of_it_are_whole(told):
    assert list(ledger.check()) == []


def test_all_logins_open_the_door(told):
    for login in ("demo", "support", "rita", "harbour", "kiosk"):
        assert customers.authenticate(login, demo.PASSWORD, ip="127.0.0.1") is not None


def test_no_money_came_from_nowhere(told):
    unbalanced = db.rows("select transfer_id, currency from entries group by 1, 2 having sum(amount) <> 0")
    assert unbalanced == []
    assert (
        db.scalar(
            "select count(*) from payments p where state in ('paid', 'partially_refunded') and (select count(*) from transfers t where t.payment_id = p.id and t.kind in ('topup', 'matched')) <> 1"
        )
        == 0
    )


def test_list_csv_and_beancount_say_what_the_ledger_says(told):
    """By kind, to the cent: what was topped up, and what services cost."""
    user = customers.find_user("demo")
    file = sign_in(told.test_client(), user).get("/invoices.csv?status=paid", buffered=True).text.removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(file)))
    page = invoicing.search(user.customer_id, invoicing.Filter(status="paid"))
    listed = {({"service": "invoice"}.get(kind, kind), currency): Money(minor, currency).decimal for kind, sums in page.totals.items() for currency, minor in sums.items()}
    found: dict[tuple[str, str], Decimal] = {}
    for row in rows:
        key = row["Kind"], row["Currency"]
        found[key] = found.get(key, Decimal(0)) + Decimal(row["Total"])
    assert found == listed
    assert set(found) >= {("invoice", "EUR"), ("topup", "EUR")}

    out = io.StringIO()
    ledger.export_beancount(out)
    entries, _, _ = loader.load_string(out.getvalue())
    booked: dict[str, Decimal] = {}
    for entry in entries:
        if isinstance(entry, Transaction) and entry.payee in {"topup", "matched", "charge"}:
            roots = ("Income:Revenue", "Liabilities:Vat") if entry.payee == "charge" else ("Liabilities:Wallet",)
            earned = sum(-posting.units.number for posting in entry.postings if posting.account.startswith(roots))
            for number in entry.links:
                booked[number] = booked.get(number, Decimal(0)) + earned
    told_by_csv = {row["Number"]: Decimal(row["Total"] if row["Kind"] == "invoice" else row["Credited"]) for row in rows}
    assert told_by_csv == {number: booked[number] for number in told_by_csv}
    assert {row["Number"].partition("-")[0] for row in rows if row["Kind"] == "topup"} == {"TU"}
    assert all(row["Credited currency"] == user_currency(user) for row in rows if row["Kind"] == "topup")


def user_currency(user: customers.User) -> str | None:
    return customers.get(user.customer_id).currency


def test_beancount_accepts_the_demos_export(told):
    out = io.StringIO()
    ledger.export_beancount(out)
    entries, errors, _ = loader.load_string(out.getvalue())
    assert [error.message for error in errors] == []
    links = {link for entry in entries if isinstance(entry, Transaction) for link in entry.links}
    paid = db.rows("select invoice_number from bills where paid_at is not null and kind = 'service'")
    assert {row.invoice_number for row in paid} <= links


def test_the_second_approval_is_supports_to_give(told):
    twice = next(case.refund.number for case in refunds.queue() if case.refund.approvals_needed == 2)
    assert refunds.approve(twice, actor="staff:support") == "approved"
    assert refunds.pay_out(twice) == "settled"


@pytest.mark.parametrize("seed", [11, 11, 12])
def test_the_same_seed_tells_the_same_story(app, facts, seed):
    demo.seed(2, 3, seed, processor=processor(app))
    told = {name: sorted(str(tuple(row)) for row in db.rows(sql)) for name, sql in FACTS.items()}
    assert facts.setdefault(f"seed {seed}", told) == told
    assert len({str(story) for story in facts.values()}) == len(facts)


def test_it_is_refused_where_somebody_is_already(app):
    person("real")
    with pytest.raises(demo.Refused, match="empty one only"):
        demo.seed(1, 1, processor=processor(app))


def test_it_is_refused_without_the_sandbox(app, settings):
    config.use(replace(settings, sandbox=False))
    try:
        with pytest.raises(demo.Refused, match="sandbox is off"):
            demo.seed(1, 1, processor=processor(app))
    finally:
        config.use(settings)
    assert db.scalar("select count(*) from users") == 0


def test_progress_ends_at_the_last_day(app):
    told: list[tuple[int, int]] = []
    demo.seed(1, 2, processor=processor(app), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == len(told)
