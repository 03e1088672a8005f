"""A customer's money: credits, charges, restorations, holds and bonuses, and the lots that follow each cent."""

from datetime import UTC, datetime, timedelta

import pytest

from app import clock, db, ledger, wallet
from app.ledger import InsufficientFunds
from app.money import Money
from tests import books

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _noon(app):
    with clock.travel(NOW):
        yield


def customer(currency="EUR"):
    return db.scalar("insert into customers (currency, created_at) values (%(currency)s, %(at)s) returning id", currency=currency, at=clock.now())


def eur(amount):
    return Money.of(amount, "EUR")


def top_up(customer_id, amount, reference):
    gateway = ledger.account("gateway", amount.currency, key="sandbox")
    return wallet.credit(customer_id, amount, reference=reference, kind="topup", counter=[(gateway, -amount.minor)])


def charge(customer_id, amount, reference):
    revenue = ledger.account("revenue", amount.currency)
    return wallet.spend(customer_id, amount, reference=reference, counter=[(revenue, amount.minor)])


def account_of(customer_id):
    return ledger.account("wallet", "EUR", customer_id=customer_id)


def remaining(customer_id):
    return [lot.remaining for lot in reversed(wallet.lots(customer_id))]


def test_a_top_up_is_there_once(app):
    with db.transaction():
        anna = customer()
        first = top_up(anna, eur("25.00"), "p1")
        again = top_up(anna, eur("25.00"), "p1")
    assert (first.replayed, again.replayed, again.transfer_id) == (False, True, first.transfer_id)
    assert wallet.state(anna) == wallet.Wallet(2500, 0, 0, "EUR", 1, account_of(anna))
    assert remaining(anna) == [2500]


def test_the_oldest_lot_is_spent_first(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        top_up(anna, eur("10.00"), "p2")
        charge(anna, eur("12.00"), "c1")
    assert remaining(anna) == [0, 800]


def test_bonus_goes_first_the_soonest_to_expire_before_all(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        wallet.grant_bonus(anna, eur("3.00"), reference="b1", expires_at=NOW + timedelta(days=60))
        wallet.grant_bonus(anna, eur("2.00"), reference="b2", expires_at=NOW + timedelta(days=30))
        spent = charge(anna, eur("4.00"), "c1")
    assert (spent.from_bonus, spent.from_balance) == (400, 0)
    assert remaining(anna) == [1000, 100, 0]
    assert wallet.state(anna).bonus == 100


def test_too_little_takes_nothing_and_leaves_the_transaction_usable(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        wallet.grant_bonus(anna, eur("1.00"), reference="b1")
        with pytest.raises(InsufficientFunds):
            charge(anna, eur("11.01"), "c1")
        charge(anna, eur("11.00"), "c2")
    assert wallet.state(anna).available == 0


def test_a_charge_is_restored_to_exactly_the_lots_it_took_from(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        top_up(anna, eur("10.00"), "p2")
        wallet.grant_bonus(anna, eur("1.00"), reference="b1")
        charge(anna, eur("5.00"), "c1")
        spent = charge(anna, eur("12.00"), "c2")
        assert remaining(anna) == [0, 400, 0]
        wallet.restore(spent.transfer_id, "r2")
        wallet.restore(spent.transfer_id, "r2")
    assert remaining(anna) == [600, 1000, 0]
    assert wallet.state(anna).available == 1600


def test_a_charge_repeated_after_the_money_is_gone_is_the_same_charge(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        first = charge(anna, eur("10.00"), "c1")
        assert charge(anna, eur("10.00"), "c1") == wallet.Spent(first.transfer_id, True, 0, 1000)
        with pytest.raises(ledger.LedgerError):
            charge(anna, eur("9.00"), "c1")


def test_hold_takes_from_the_named_payment_and_release_gives_back(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        top_up(anna, eur("10.00"), "p2")
        newest = wallet.lots(anna)[0]
        with pytest.raises(InsufficientFunds):
            wallet.hold(anna, newest.id, eur("10.01"), reference="h0")
        held = wallet.hold(anna, newest.id, eur("7.00"), reference="h1")
        assert remaining(anna) == [1000, 300]
        assert wallet.state(anna) == wallet.Wallet(1300, 0, 700, "EUR", 4, account_of(anna))
        wallet.release(held.transfer_id, "h1:released")
    assert remaining(anna) == [1000, 1000]
    assert wallet.state(anna).on_hold == 0


def test_a_credit_is_not_restored(app):
    with db.transaction():
        anna = customer()
        posted = top_up(anna, eur("10.00"), "p1")
        with pytest.raises(ledger.LedgerError, match="brought money"):
            wallet.restore(posted.transfer_id, "r1")


def test_what_a_dispute_takes_comes_from_its_own_payment_first_and_the_rest_is_debt(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        top_up(anna, eur("10.00"), "p2")
        charge(anna, eur("4.00"), "c1")
        gateway = ledger.account("gateway", "EUR", key="sandbox")
        own = wallet.lots(anna)[0].id
        seized = wallet.seize(anna, own, eur("18.00"), reference="d1", counter=[(gateway, 1800)])
        again = wallet.seize(anna, own, eur("18.00"), reference="d1", counter=[(gateway, 1800)])
        assert (again.transfer_id, again.replayed) == (seized.transfer_id, True)
    assert remaining(anna) == [0, 0]
    assert ledger.balance(ledger.account("debt", "EUR", customer_id=anna)) == -200
    with db.transaction():
        wallet.restore(seized.transfer_id, "d1:won", kind="dispute_won")
    assert remaining(anna) == [600, 1000]


def test_held_money_is_paid_out(app):
    with db.transaction():
        anna = customer()
        top_up(anna, eur("10.00"), "p1")
        wallet.hold(anna, wallet.lots(anna)[0].id, eur("7.00"), reference="h1")
        gateway = ledger.account("gateway", "EUR", key="sandbox")
        wallet.pay_out(anna, eur("7.00"), reference="h1:sent", counter=[(gateway, 700)])
        assert ledger.balance(gateway) == -300
    assert wallet.state(anna).on_hold == 0


def test_an_expired_bonus_is_neither_spendable_nor_kept(app):
    with db.transaction():
        anna = customer()
        wallet.grant_bonus(anna, eur("5.00"), reference="b1", expires_at=NOW + timedelta(days=1))
        assert wallet.expired_bonuses() == []
    with clock.travel(NOW + timedelta(days=2)):
        assert wallet.state(anna).bonus == 0
        with db.transaction():
            with pytest.raises(InsufficientFunds):
                charge(anna, eur("1.00"), "c1")
            (lot,) = wallet.expired_bonuses()
            assert wallet.expire_bonus(lot) is not None
            assert wallet.expire_bonus(lot) is None
        assert ledger.balance(ledger.account("promotions", "EUR")) == 0


# What the pages read


def paid_top_up(owner, payer, number):
    payment = books.payment(owner, number, payer=payer, minor=2500)
    gateway = ledger.account("gateway", "EUR", key="sandbox")
    wallet.credit(owner, eur("25.00"), reference=f"paid-{number[-6:]}", kind="topup", counter=[(gateway, -2500)], payment_id=payment, description="Top-up")
    return payment


def test_movements_name_their_document_and_method(app):
    with db.transaction():
        anna, boris = customer(), customer()
        payment = paid_top_up(anna, anna, "PF-2026-000001")
        paid_top_up(anna, boris, "PF-2026-000002")
        charge(anna, eur("1.00"), "c1")
    account = wallet.state(anna).account_id
    page = wallet.movements(account)
    assert [(row.kind, row.document, row.method) for row in page.rows] == [
        ("charge", None, None),
        ("topup", None, None),  # someone else paid: neither their document nor how they paid is ours to know
        ("topup", "PF-2026-000001", "Visa •••• 4242"),
    ]
    assert page.rows[2].payment_id == payment
    assert page.next is None


def test_pages_follow_each_other(app):
    with db.transaction():
        anna = customer()
        for n in range(7):
            top_up(anna, eur("1.00"), f"p{n}")
    account = wallet.state(anna).account_id
    first = wallet.movements(account, limit=3)
    second = wallet.movements(account, before=first.next, limit=3)
    third = wallet.movements(account, before=second.next, limit=3)
    assert [row.seq for page in (first, second, third) for row in page.rows] == [7, 6, 5, 4, 3, 2, 1]
    assert third.next is None
    assert [row.seq for row in wallet.export(account)] == [7, 6, 5, 4, 3, 2, 1]


def test_text_is_found_in_documents_too(app):
    with db.transaction():
        anna = customer()
        paid_top_up(anna, anna, "PF-2026-000001")
        paid_top_up(anna, anna, "PF-2026-000002")
    account = wallet.state(anna).account_id
    asked = ledger.Filter(text="pf-2026-000002")
    assert [row.document for row in wallet.movements(account, asked).rows] == ["PF-2026-000002"]
    assert wallet.totals(account, asked) == ledger.Totals(1, 2500, 0)
    assert wallet.totals(account) == ledger.Totals(2, 5000, 0)


FILTERS = (
    ledger.Filter(text="pf-2026-000002"),
    ledger.Filter(text="PF-2026"),
    ledger.Filter(text="visa"),
    ledger.Filter(text="top-up"),
    ledger.Filter(text="p1"),
    ledger.Filter(text="25.00"),
    ledger.Filter(text="nothing like it"),
    ledger.Filter(text="PF-2026-000003"),
    ledger.Filter(text="visa", kind="topup", minimum=1),
    ledger.Filter(kind="topup"),
    ledger.Filter(kind="charge"),
    ledger.Filter(direction="in"),
    ledger.Filter(direction="out", minimum=2_00),
    ledger.Filter(minimum=3_00, maximum=24_00),
)


@pytest.mark.parametrize("asked", FILTERS, ids=lambda asked: "&".join(f"{k}={v}" for k, v in asked.as_query().items()))
def test_every_way_to_search_finds_the_same(app, asked):
    with db.transaction():
        anna, boris = customer(), customer()
        for number in (1, 2):
            paid_top_up(anna, anna, f"PF-2026-00000{number}")
            charge(anna, eur(f"{number}.50"), f"c{number}")
            top_up(anna, eur("3.00"), f"p{number}")
        paid_top_up(anna, boris, "PF-2026-000003")
        paid_top_up(boris, boris, "PF-2026-000004")
    account = wallet.state(anna).account_id
    every = wallet.movements(account).rows
    expected = [row.seq for row in every if _is_asked_for(row, asked)]
    page, sums = wallet.found(account, asked)
    assert [row.seq for row in page.rows] == expected
    assert [row.seq for row in wallet.movements(account, asked).rows] == expected
    assert [row.seq for row in wallet.export(account, asked)] == expected
    amounts = [row.amount for row in every if row.seq in expected]
    assert sums == wallet.totals(account, asked)
    assert sums == ledger.Totals(len(amounts), sum(a for a in amounts if a > 0), -sum(a for a in amounts if a < 0))
    first, _ = wallet.found(account, asked, limit=1)
    rest = wallet.movements(account, asked, before=first.next).rows if first.next else []
    assert [row.seq for row in [*first.rows, *rest]] == expected
    assert first.rows == page.rows[:1]


def _is_asked_for(row, asked):
    texts = (row.description, row.reference, row.document or "", row.method or "", f"{abs(row.amount) / 100:.2f}")
    return (
        (not asked.text or any(asked.text.lower() in text.lower() for text in texts))
        and (not asked.kind or row.kind == asked.kind)
        and (not asked.direction or (row.amount > 0) == (asked.direction == "in"))
        and (asked.minimum or 0) <= abs(row.amount) <= (asked.maximum or 10**9)
    )
