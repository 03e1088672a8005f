"""The books: what the database refuses, what comes back twice, and what can be read of a long history."""

import hashlib
import struct
import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from psycopg import errors

from app import clock, db, ledger, wallet
from app.ledger import Filter, InsufficientFunds, LedgerError, Posting
from app.money import Money

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _noon(app):
    with clock.travel(NOW):
        yield


@pytest.fixture
def books(app):
    """Two customers' accounts that never fall below zero and have no lots beside them, a gateway and revenue in EUR, a gateway in JPY."""
    with db.transaction():
        one, two = (db.scalar("insert into customers (created_at) values (%(at)s) returning id", at=NOW) for _ in range(2))
        return {
            "anna": ledger.account("hold", "EUR", customer_id=one),
            "boris": ledger.account("hold", "EUR", customer_id=two),
            "gateway": ledger.account("gateway", "EUR", key="sandbox"),
            "revenue": ledger.account("revenue", "EUR"),
            "yen": ledger.account("gateway", "JPY", key="sandbox"),
        }


def give(books, amount, reference, **facts):
    return ledger.post(reference, "topup", [(books["anna"], amount), (books["gateway"], -amount)], **facts)


# Posting


def test_a_posting_moves_both_accounts(books):
    with db.transaction():
        posted = give(books, 2500, "p1")
    assert posted.balances == {books["anna"]: 2500}
    assert (ledger.balance(books["anna"]), ledger.balance(books["gateway"])) == (2500, -2500)


def test_a_posting_is_one_round_trip(books, monkeypatch):
    sent = []
    with db.transaction():
        monkeypatch.setattr(db, "_fetch", lambda connection, sql, params, fetch=db._fetch: (sent.append(sql), fetch(connection, sql, params))[1])
        give(books, 2500, "p1")
    assert len(sent) == 1


def test_the_same_reference_is_the_same_transfer(books):
    with db.transaction():
        first = give(books, 2500, "p1")
        again = give(books, 2500, "p1")
    assert (again.transfer_id, again.replayed, again.balances) == (first.transfer_id, True, first.balances)
    assert ledger.balance(books["anna"]) == 2500


@pytest.mark.parametrize("facts", [{"amount": 2501}, {"kind": "correction"}, {"reverses": True}])
def test_the_same_reference_with_other_content_is_refused(books, facts):
    with db.transaction():
        first = give(books, 2500, "p1")
        amount, kind = facts.get("amount", 2500), facts.get("kind", "topup")
        with pytest.raises(LedgerError, match="other content"):
            ledger.post("p1", kind, [(books["anna"], amount), (books["gateway"], -amount)], reverses=first.transfer_id if "reverses" in facts else None)


@pytest.mark.parametrize("lines", [[], [("anna", 100)], [("anna", 100), ("anna", -100)], [("anna", 100), ("gateway", -99)], [("anna", 100), ("yen", -100)]])
def test_lines_that_do_not_balance_are_refused(books, lines):
    with pytest.raises(LedgerError), db.transaction():
        ledger.post("p1", "topup", [(books[name], amount) for name, amount in lines])


def test_lines_on_one_account_become_one_entry(books):
    with db.transaction():
        ledger.post("p1", "topup", [(books["anna"], 1000), (books["gateway"], -1030), (books["gateway"], 30)])
    assert db.scalar("select count(*) from entries") == 2


def test_a_wallet_never_goes_below_zero(books):
    with db.transaction():
        give(books, 100, "p1")
    with pytest.raises(InsufficientFunds), db.transaction():
        ledger.post("c1", "charge", [(books["anna"], -101), (books["revenue"], 101)])
    assert ledger.balance(books["anna"]) == 100


@pytest.mark.parametrize(("reference", "kind"), [("", "topup"), ("p1", "theft")])
def test_a_transfer_without_a_known_kind_or_a_reference_is_refused(books, owner, reference, kind):
    with pytest.raises(LedgerError), db.transaction():
        ledger.post(reference, kind, [(books["anna"], 1), (books["gateway"], -1)])
    (transfer,) = owner.execute("insert into transfers (reference, kind, actor, posted_at) values (%s, %s, 'test', now()) returning id", (reference, kind)).fetchone()
    owner.execute(ENTRY, (books["anna"], transfer, 1))
    owner.execute(ENTRY, (books["gateway"], transfer, -1))
    with pytest.raises(errors.CheckViolation):
        owner.commit()


def test_an_unknown_account_is_refused(books):
    with pytest.raises(LedgerError), db.transaction():
        ledger.post("p1", "topup", [(books["anna"], 1), (999, -1)])


def test_an_amount_beyond_the_largest_number_is_refused(books):
    with db.transaction():
        give(books, 2**63 - 1, "p1")
    with pytest.raises(LedgerError), db.transaction():
        give(books, 1, "p2")


def test_posting_outside_a_transaction_is_refused(books):
    with pytest.raises(errors.ReadOnlySqlTransaction):
        give(books, 100, "p1")


def test_a_reversal_mirrors_once(books):
    with db.transaction():
        posted = give(books, 2500, "p1")
        mirror = ledger.reverse(posted.transfer_id, "p1:reversed", description="wrong customer", actor="support")
        again = ledger.reverse(posted.transfer_id, "p1:reversed", description="wrong customer", actor="support")
    assert again.transfer_id == mirror.transfer_id
    assert ledger.balance(books["anna"]) == ledger.balance(books["gateway"]) == 0
    with pytest.raises(LedgerError), db.transaction():
        ledger.reverse(posted.transfer_id, "another", description="", actor="support")


def test_accounts_opened_by_a_failed_transaction_are_not_remembered(app):
    with pytest.raises(ValueError, match="stop"), db.transaction():
        ledger.account("revenue", "PLN")
        raise ValueError("stop")
    with db.transaction():
        ledger.account("vat", "PLN", key="PL")
        revenue = ledger.account("revenue", "PLN")
    assert db.scalar("select kind from accounts where id = %(id)s", id=revenue) == "revenue"


def test_times_rise_within_an_account(books):
    with db.transaction():
        give(books, 100, "p1", posted_at=NOW)
        give(books, 100, "p2", posted_at=NOW - timedelta(days=1))
    assert [movement.posted_at for movement in ledger.history(books["anna"])] == [NOW, NOW]


CHAIN = """
select e.*, t.posted_at as written_at, t.reference, t.kind as transfer_kind, t.actor, t.description, t.payment_id, t.bill_id, t.service_id, t.refund_id, t.reverses
from entries e join transfers t on t.id = e.transfer_id where account_id = %(account_id)s order by seq
"""


def test_the_chain_can_be_recomputed_outside(books):
    """The bytes under a hash are documented: another program, in another language, comes to the same."""
    with db.transaction():
        give(books, 2500, "p1", description="Łódź", actor="anna")
        ledger.post("c1", "charge", [(books["anna"], -1100), (books["revenue"], 1100)], posted_at=NOW - timedelta(hours=1))
    head = b""
    for row in db.rows(CHAIN, account_id=books["anna"]):
        head = hashlib.sha256(head + _content(row)).digest()
        assert row.hash == head
    assert db.scalar("select head from accounts where id = %(id)s", id=books["anna"]) == head


def _content(row):
    own = (row.account_id, row.seq, row.amount, row.currency, row.balance_after, row.credited_after)
    links = (value or 0 for value in (row.payment_id, row.bill_id, row.service_id, row.refund_id, row.reverses))
    texts = (len(row.reference.encode()), row.reference, len(row.actor.encode()), row.actor, row.description)
    return _moment(row.posted_at) + _text(*own) + _moment(row.written_at) + _text(row.transfer_id, row.transfer_kind, *links, *texts)


def _moment(at):
    return struct.pack(">q", round((at - datetime(2000, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)))


def _text(*values):
    return ",".join(map(str, values)).encode()


# What the database refuses by itself, whoever asks

TRANSFER = "insert into transfers (reference, kind, actor, posted_at) values ('x', 'topup', 'test', now()) returning id"
ENTRY = "insert into entries (account_id, transfer_id, amount) values (%s, %s, %s)"


@pytest.fixture
def owner(superuser):
    superuser.autocommit = False
    yield superuser
    superuser.rollback()


@pytest.mark.parametrize("lines", [[], [("anna", 100)], [("anna", 100), ("gateway", -99)], [("anna", 100), ("yen", -100)]])
def test_an_unbalanced_transfer_fails_at_commit(books, owner, lines):
    (transfer,) = owner.execute(TRANSFER).fetchone()
    for name, amount in lines:
        owner.execute(ENTRY, (books[name], transfer, amount))
    with pytest.raises(errors.IntegrityConstraintViolation, match="sum to zero"):
        owner.commit()


def test_entries_written_one_by_one_keep_the_same_books(books, owner):
    (transfer,) = owner.execute(TRANSFER).fetchone()
    owner.execute(ENTRY, (books["anna"], transfer, 100))
    owner.execute(ENTRY, (books["gateway"], transfer, -100))
    owner.commit()
    assert ledger.balance(books["anna"]) == 100


def test_no_entry_joins_an_older_transfer(books, owner):
    with db.transaction():
        old = give(books, 100, "p1").transfer_id
    with pytest.raises(errors.IntegrityConstraintViolation, match="not made by this transaction"):
        owner.execute(ENTRY, (books["anna"], old, 5))
    owner.rollback()
    with pytest.raises(errors.IntegrityConstraintViolation, match="not made by this transaction"):
        owner.execute(ENTRY, (books["gateway"], old, 5))


def test_what_a_client_claims_about_an_entry_is_ignored(books, owner):
    (transfer,) = owner.execute(TRANSFER).fetchone()
    claim = "insert into entries values (%s, 77, %s, %s, 'USD', 1000000, 1000000, '1999-01-01', '\\x00')"
    owner.execute(claim, (books["anna"], transfer, 100))
    owner.execute(claim, (books["gateway"], transfer, -100))
    owner.commit()
    row = db.row("select * from entries where account_id = %(id)s", id=books["anna"])
    assert (row.seq, row.currency, row.balance_after, row.credited_after, len(row.hash)) == (1, "EUR", 100, 100, 32)
    assert row.posted_at.year == 2026 or row.posted_at > NOW


@pytest.mark.parametrize("table", ["accounts", "transfers", "entries", "allocations"])
@pytest.mark.parametrize("statement", ["update {} set {}", "delete from {}", "truncate {} cascade"])
def test_nothing_is_changed_or_removed(books, owner, table, statement):
    _write_every_table(books)
    column = {"accounts": "balance = balance + 1", "transfers": "description = 'x'", "entries": "amount = amount + 1", "allocations": "amount = amount + 1"}[table]
    with pytest.raises(errors.RestrictViolation, match="append-only"):
        owner.execute(statement.format(table, column))


@pytest.mark.parametrize("table", ["accounts", "transfers", "entries", "allocations"])
@pytest.mark.parametrize("right", ["update", "delete", "truncate"])
def test_the_role_of_the_app_lacks_the_right(app, table, right):
    assert not db.scalar("select has_table_privilege('client_area_app', %(table)s, %(right)s)", table=table, right=right)


def test_the_app_acts_as_that_role(app):
    with db.transaction():
        assert db.scalar("select current_user") == "client_area_app"
    assert db.scalar("select current_user") == "client_area_app"


@pytest.mark.parametrize("column", ["balance = 5", "entry_count = 5", "credited = 5", "last_at = now()", "head = '\\x00'"])
def test_an_account_opens_empty(app, column):
    name, value = column.split(" = ")
    with pytest.raises(errors.CheckViolation, match="opens empty"), db.transaction():
        db.execute(f"insert into accounts (kind, currency, tracked, {name}) values ('revenue', 'EUR', false, {value})")


def test_a_wallet_needs_an_owner_and_a_floor(app, owner):
    wrong = (
        ("kind, currency, tracked, floor", "'wallet', 'EUR', true, 0"),
        ("kind, currency, tracked, customer_id", "'wallet', 'EUR', true, 1"),
        ("kind, currency, tracked, customer_id", "'revenue', 'EUR', false, 1"),
        ("kind, currency, tracked", "'pocket', 'EUR', false"),
        ("kind, currency, tracked", "'revenue', 'eu', false"),
    )
    for columns, values in wrong:
        with pytest.raises(errors.CheckViolation):
            owner.execute(f"insert into accounts ({columns}) values ({values})")
        owner.rollback()


def _write_every_table(books):
    with db.transaction():
        customer = db.scalar("select customer_id from accounts where id = %(id)s", id=books["anna"])
        wallet.credit(customer, Money(100, "EUR"), reference="p1", kind="topup", counter=[(books["gateway"], -100)])
        wallet.spend(customer, Money(60, "EUR"), reference="c1", counter=[(books["revenue"], 60)])


# Many at once


def test_a_batch_is_written_in_its_order(books):
    batch = [
        Posting("p1", "topup", [(books["anna"], 500), (books["gateway"], -500)]),
        Posting("c1", "charge", [(books["anna"], -500), (books["revenue"], 500)], description="vps-7"),
        Posting("p2", "topup", [(books["boris"], 50), (books["gateway"], -50)], posted_at=NOW - timedelta(days=3)),
    ]
    with db.transaction():
        written = ledger.post_many(batch)
    assert [posted.balances for posted in written] == [{books["anna"]: 500}, {books["anna"]: 0}, {books["boris"]: 50}]
    with db.transaction():
        again = ledger.post_many([*batch, Posting("c2", "charge", [(books["boris"], -1), (books["revenue"], 1)])])
    assert [posted.replayed for posted in again] == [True, True, True, False]
    assert [posted.transfer_id for posted in again[:3]] == [posted.transfer_id for posted in written]


def test_a_batch_is_all_or_none(books):
    batch = [
        Posting("p1", "topup", [(books["anna"], 500), (books["gateway"], -500)]),
        Posting("c1", "charge", [(books["boris"], -1), (books["revenue"], 1)]),
    ]
    with pytest.raises(InsufficientFunds), db.transaction():
        ledger.post_many(batch)
    assert ledger.balance(books["anna"]) == 0


def test_an_unbalanced_pair_in_a_batch_is_refused_even_when_the_batch_sums_to_zero(books):
    batch = [
        Posting("p1", "topup", [(books["anna"], 500), (books["gateway"], -400)]),
        Posting("p2", "topup", [(books["boris"], 500), (books["gateway"], -600)]),
    ]
    with pytest.raises(LedgerError), db.transaction():
        ledger.post_many(batch)


# Reading


@pytest.fixture
def months(books):
    """Thirty days of one top-up of 10.00 and one charge of 1.00 to 30.00 cents each."""
    with db.transaction():
        for day in range(30):
            at = datetime(2026, 1, 1, 9, tzinfo=UTC) + timedelta(days=day)
            give(books, 1000, f"p{day}", posted_at=at, description=f"Top-up {day}")
            ledger.post(f"c{day}", "charge", [(books["anna"], -day - 1), (books["revenue"], day + 1)], posted_at=at + timedelta(hours=15), description=f"vps_{day} 100%")
    return books


def asked(**query):
    return Filter.from_query({name.rstrip("_"): value for name, value in query.items()}, currency="EUR")


def test_history_is_newest_first_with_the_balance_after(months):
    newest, *_ = rows = ledger.history(months["anna"], limit=5)
    assert (newest.kind, newest.amount, newest.balance_after, newest.seq) == ("charge", -30, 30_000 - 465, 60)
    assert [row.seq for row in rows] == [60, 59, 58, 57, 56]
    assert [row.seq for row in ledger.history(months["anna"], before=56, limit=2)] == [55, 54]


@pytest.mark.parametrize(
    ("query", "count", "incoming", "outgoing"),
    [
        ({}, 60, 30_000, 465),
        ({"from_": "2026-01-30"}, 3, 1000, 29 + 30),
        ({"to": "2026-01-01"}, 1, 1000, 0),
        ({"from_": "2026-01-03", "to": "2026-01-03"}, 2, 1000, 2),
        ({"from_": "2027-01-01"}, 0, 0, 0),
        ({"to": "2025-01-01"}, 0, 0, 0),
        ({"as_of": "2026-01-02"}, 3, 2000, 1),
        ({"kind": "charge"}, 30, 0, 465),
        ({"direction": "in", "from_": "2026-01-30"}, 1, 1000, 0),
        ({"direction": "out", "min": "0.29"}, 2, 0, 59),
        ({"max": "0.02"}, 2, 0, 3),
        ({"q": "TOP-UP 2"}, 11, 11_000, 0),
        ({"q": "vps_3 100%"}, 1, 0, 4),
        ({"q": "vpsx3"}, 0, 0, 0),
    ],
)
def test_totals_are_those_of_the_history(months, query, count, incoming, outgoing):
    rows = ledger.history(months["anna"], asked(**query), limit=100)
    assert ledger.totals(months["anna"], asked(**query)) == ledger.Totals(count, incoming, outgoing)
    assert (len(rows), sum(row.amount for row in rows)) == (count, incoming - outgoing)


def test_days_are_the_customers_days(months):
    tokyo = Filter(since=date(2026, 1, 2), until=date(2026, 1, 2), timezone="Asia/Tokyo")
    rows = ledger.history(months["anna"], tokyo)
    assert [(row.kind, row.posted_at.day, row.posted_at.hour) for row in rows] == [("topup", 2, 9), ("charge", 2, 0)]


def test_as_of_is_the_balance_on_a_past_day(months):
    assert ledger.as_of(months["anna"], datetime(2026, 1, 1, 9, tzinfo=UTC)) == 0
    assert ledger.as_of(months["anna"], datetime(2026, 1, 1, 10, tzinfo=UTC)) == 1000
    assert ledger.as_of(months["anna"], datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)) == 999
    assert ledger.as_of(months["anna"], NOW) == 29_535
    assert ledger.as_of(months["gateway"], datetime(2026, 1, 2, 10, tzinfo=UTC)) == -2000


def test_the_series_has_one_closing_balance_a_day(months):
    series = ledger.balance_series(months["anna"], date(2025, 12, 30), date(2026, 2, 2))
    assert [day for day, _ in series] == [date(2025, 12, 30) + timedelta(days=n) for n in range(35)]
    assert series == [(day, ledger.as_of(months["anna"], datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1))) for day, _ in series]


def test_the_series_of_a_busy_day(books):
    with db.transaction():
        ledger.post_many([Posting(f"p{n}", "topup", [(books["anna"], 1), (books["gateway"], -1)], posted_at=NOW + timedelta(minutes=n)) for n in range(3000)])
    series = ledger.balance_series(books["anna"], NOW.date(), NOW.date() + timedelta(days=3))
    assert [closing for _, closing in series] == [720, 2160, 3000, 3000]


def test_the_series_of_an_empty_account_is_flat(books):
    assert ledger.balance_series(books["boris"], date(2026, 1, 1), date(2026, 1, 3)) == [(date(2026, 1, n), 0) for n in (1, 2, 3)]


def test_an_unknown_account_has_no_balance(app):
    with pytest.raises(LookupError):
        ledger.balance(12345)


# The filter


def test_a_filter_has_one_canonical_query():
    given = {"q": " vps ", "kind": "charge", "to": "", "from": "2026-01-01", "min": "1.234,5", "direction": "", "page": "7"}
    read = Filter.from_query(given, currency="EUR", locale="de")
    assert list(read.as_query().items()) == [("kind", "charge"), ("from", "2026-01-01"), ("min", "1234.50"), ("q", "vps")]
    assert Filter.from_query(read.as_query(), currency="EUR", locale="de") == read
    assert not read.errors
    assert Filter.from_query({}, currency="EUR") == Filter()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "theft"), ("direction", "up"), ("from", "yesterday"), ("from", "20260101"), ("to", "2026-02-30"), ("min", "1e3"), ("max", "-5"),
        ("as_of", "0001-01-01"), ("q", "x" * 101), ("q", "a\0b"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_and_does_not_filter(name, value):
    read = Filter.from_query({name: value}, currency="EUR")
    assert list(read.errors) == [name]
    assert read.as_query() == {}
    assert read.given == {name: value}


@pytest.mark.parametrize(("query", "wrong"), [({"from": "2026-02-01", "to": "2026-01-01"}, "to"), ({"min": "5.00", "max": "4.00"}, "max")])
def test_ends_in_the_wrong_order_are_named(query, wrong):
    assert list(Filter.from_query(query, currency="EUR").errors) == [wrong]


def test_a_filter_says_each_thing_it_filters_by():
    query = {"kind": "charge", "from": "2026-01-01", "to": "2026-01-31", "min": "10.00", "q": "vps"}
    asked = Filter.from_query(query, currency="EUR")
    words, without = zip(*asked.chips(), strict=True)
    assert words == ("Charge", "Jan 1, 2026 to Jan 31, 2026", "€\N{NO-BREAK SPACE}10.00 or more", "containing “vps”")
    assert [query.keys() - other.as_query().keys() for other in without] == [{"kind"}, {"from", "to"}, {"min"}, {"q"}]
    assert not Filter().chips()


# Many clients


def race(application, clients, work):
    """Run `work(n)` in as many threads, each with its own application context; what they raised, in order."""
    start = threading.Barrier(clients)
    raised = [None] * clients

    def run(n):
        with application.app_context():
            start.wait()
            try:
                work(n)
            except Exception as error:  # noqa: BLE001 - handed to the test
                raised[n] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_one_reference_from_eight_clients_is_one_transfer(books, application):
    def work(_):
        with db.transaction():
            give(books, 100, "p1")

    assert race(application, 8, work) == [None] * 8
    assert ledger.balance(books["anna"]) == 100


def test_batches_of_several_clients_do_not_deadlock(books, application):
    def work(n):
        for batch in range(5):
            lines = [[(books["anna"], 1), (books["gateway"], -1)], [(books["boris"], 1), (books["gateway"], -1)]]
            with db.transaction():
                ledger.post_many([Posting(f"{n}:{batch}:{i}", "topup", lines[(i + n) % 2]) for i in range(20)])

    assert race(application, 8, work) == [None] * 8
    assert (ledger.balance(books["anna"]), ledger.balance(books["boris"]), ledger.balance(books["gateway"])) == (400, 400, -800)


def test_transfers_in_opposite_directions_do_not_deadlock(books, application):
    with db.transaction():
        give(books, 1000, "p1")
        ledger.post("p2", "topup", [(books["boris"], 1000), (books["gateway"], -1000)])

    def work(n):
        there, back = ("anna", "boris") if n % 2 else ("boris", "anna")
        for step in range(20):
            with db.transaction():
                ledger.post(f"{n}:{step}", "correction", [(books[there], -10), (books[back], 10)])

    assert race(application, 8, work) == [None] * 8
    assert (ledger.balance(books["anna"]), ledger.balance(books["boris"])) == (1000, 1000)
