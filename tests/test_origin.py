"""Test money and real money: marked by the database, never mixed, and taken out where nothing is real."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from flask import Flask

import config
from app import audit, bank, clock, create_app, customers, db, demo, gateways, ledger, origin, refunds
from app.customers import User
from app.web import startup
from tests.banks import ADVICE, SENDER, Transfer, camt
from tests.conftest import BERLIN, PASSWORD_HASH, TEAM, person
from tests.money_helpers import EUR
from tests.pay import begin, processor, topup
from tests.test_bank import take
from tests.test_refunds import IBAN, RITA, SAM, paid

LIVE = "select set_config('client_area.mode', 'live', false)"


ALONE = {
    "test_a_live_start_is_refused_while_the_demo_is_here_and_goes_once_it_is_out",
    "test_a_renamed_login_of_the_demo_is_found",
    "test_a_demo_from_before_the_marks_is_recognised",
    "test_real_payments_from_before_the_marks_stay_unknown",
    "test_prices_stay_when_they_are_to",
    "test_a_broken_off_demo_is_written_again",
    "test_but_not_over_somebody_who_came_since",
    "test_two_cannot_write_it_at_once",
}
"""The demo brings its own people of support, and is written into an empty database."""


@pytest.fixture
def team(request):
    """Who decides; nobody where the demo is written."""
    return {} if request.node.originalname in ALONE else TEAM


@pytest.fixture
def live(app: Flask, settings: config.Settings) -> Iterator[Flask]:
    """The same database served by live settings."""
    house = create_app(replace(settings, base_url="https://billing.example", sandbox=False, mail_url="smtps://mail.example"))
    gateways.use(gateways.build(settings, processor(app)))  # the tests pay as before; the database says what a live session may
    with house.app_context():
        yield house
    with house.app_context():
        for engine in db.db.engines.values():
            engine.dispose()
    config.use(settings)


def look_before_serving(house: Flask) -> None:
    """What a web process does at its start, which leaves no connection behind."""
    db.forget_connections()
    startup.check(house)


def origins(table: str) -> set[str]:
    return {row.origin for row in db.rows(f"select origin from {table}")}


def transfer(user: User, minor: int = 100_00) -> str:
    """A top-up paid by a transfer; the payment's public id."""
    bill = topup(user, EUR(str(minor // 100)))
    take(camt([Transfer(minor, structured=bill.payment_reference or "", reference=bill.number)], replace(ADVICE, id=bill.number)))
    return str(db.scalar("select public_id from payments where bill_id = %(id)s", id=bill.id))


def approved(user: User, public_id: str) -> str:
    """A refund of a transfer that two people approved."""
    number = refunds.request(user.customer_id or 0, public_id, EUR("30"), "", iban=SENDER, holder="Anna")
    for actor in (SAM, RITA):
        refunds.approve(number, actor=actor)
    return number


# The marks


def test_what_a_test_writes_is_marked_and_what_nobody_vouches_for_is_unknown(app, demo_customer, superuser):
    paid(app, demo_customer, EUR("20"))
    transfer(demo_customer)
    assert [origins(table) for table in ("customers", "payments", "bank_lines")] == [{"test"}] * 3
    superuser.execute("insert into customers (created_at) values (now())")
    assert origins("customers") == {"test", "unknown"}
    assert origin.found() == {"test_payments", "test_bank_lines", "demo_seller"}


def test_what_a_live_installation_writes_is_marked_as_that(live):
    user = person("carl", profile=BERLIN)
    transfer(user)
    assert [origins(table) for table in ("customers", "payments", "bank_lines")] == [{"live"}] * 3
    assert "live_money" in origin.found()


@pytest.mark.parametrize(
    "change",
    [
        "update payments set origin = 'live'",
        "update payments set gateway = 'stripe'",
        "update bank_lines set origin = 'live'",
        "update customers set origin = 'live'",
        "update users set demo = false",
    ],
)
def test_a_mark_never_changes(app, demo_customer, superuser, change):
    paid(app, demo_customer, EUR("20"))
    transfer(demo_customer)
    origin.mark_demo("anna")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        superuser.execute(change)


def test_the_sandbox_s_money_is_test_money_whoever_writes_it(app, demo_customer, superuser):
    bill = topup(demo_customer, EUR("20"))
    with pytest.raises(psycopg.errors.CheckViolation, match="sandbox_payments_are_test"):
        superuser.execute("set session_replication_role = replica")
        superuser.execute(
            "insert into payments (public_id, bill_id, customer_id, payer_id, method, gateway, amount, currency, charge, created_at, updated_at, checked_at, expires_at) "
            "values ('x', %s, %s, %s, 'card', 'sandbox', 1, 'EUR', '{}', now(), now(), now(), now())",
            (bill.id, demo_customer.customer_id, demo_customer.customer_id),
        )


def test_a_live_installation_takes_no_payment_of_the_sandbox(app, demo_customer, superuser):
    paid(app, demo_customer, EUR("20"))
    superuser.execute(LIVE)
    superuser.execute("create temporary table one as select * from payments")
    superuser.execute("update one set id = id + 1, public_id = 'y', gateway_reference = 'y'")
    with pytest.raises(psycopg.errors.CheckViolation, match="no payment of the sandbox"):
        superuser.execute("insert into payments overriding system value select * from one")


# No way to a bank


def test_the_sandbox_s_money_goes_back_by_the_sandbox_or_not_at_all(app, demo_customer, superuser):
    payment = paid(app, demo_customer, EUR("50"), "sandbox-crypto")
    number = refunds.request(demo_customer.customer_id, payment.public_id, EUR("20"), "", iban=IBAN, holder="Anna Kowalska")
    assert db.scalar("select way from refunds where number = %(number)s", number=number) == "source"
    with superuser.transaction(force_rollback=True), pytest.raises(psycopg.errors.CheckViolation, match="is test money"):
        superuser.execute("alter table refunds disable trigger keep_values")
        superuser.execute("update refunds set way = 'bank', iban = %s, holder = 'A', approvals_needed = 2", (IBAN,))
    refunds.approve(number, actor=SAM)
    assert refunds.pay_out(number) == "settled"
    with clock.travel(payment.paid_at + timedelta(days=181)):
        (source,) = refunds.refundable(demo_customer.customer_id)
        assert (source.refundable, source.reason) == (EUR("0"), "The processor sends money back for 180 days only, and test money cannot go to a bank account.")


def test_test_money_of_a_transfer_stands_only_in_a_file_that_says_so(app, demo_customer):
    approved(demo_customer, transfer(demo_customer))
    file = bank.payouts.export("EUR")
    assert file
    assert (file.test, file.message.startswith("TEST-PAY-"), b"<MsgId>TEST-PAY-" in file.content) == (True, True, True)
    assert origins("bank_payout_files") == {"test"}


def test_on_a_live_installation_it_stands_in_no_file_whatever_the_settings_were_before(app, demo_customer, live):
    with app.app_context():
        number = approved(demo_customer, transfer(demo_customer))
    with pytest.raises(bank.PayoutError, match=f"{number}: this is test money"):
        bank.payouts.export("EUR")
    assert db.scalar("select count(*) from bank_payout_files") == 0


def test_the_database_keeps_it_out_of_a_file_by_itself(app, demo_customer, superuser):
    number = approved(demo_customer, transfer(demo_customer))
    superuser.execute(LIVE)
    insert = "insert into bank_payout_files (message, account, currency, count, total, content, created_at) values (%s, 'x', 'EUR', 1, 1, 'x', now()) returning id"
    with pytest.raises(psycopg.errors.CheckViolation, match="test_files_say_so"):
        superuser.execute(insert, ("TEST-PAY-1",))
    file = superuser.execute(insert, ("PAY-1",)).fetchone()
    with pytest.raises(psycopg.errors.CheckViolation, match=f"payout {number} is test, its file is live"):
        superuser.execute("insert into bank_payouts values (%s, %s, 1)", (file[0], number))
    with pytest.raises(psycopg.errors.CheckViolation, match="is test money"):
        superuser.execute("update refunds set state = 'settled' where number = %s", (number,))


def test_held_test_money_and_a_test_statement_s_line_stay_as_well(app, demo_customer, superuser):
    take(camt([Transfer(77_00, "who is this")], replace(ADVICE, id="1")))
    line = bank.unmatched()[0].id
    number = bank.payouts.send_back(line, SENDER, "Ida", actor=SAM, reason="Not ours")
    superuser.execute(LIVE)
    with pytest.raises(psycopg.errors.CheckViolation, match="of a test statement"):
        superuser.execute("update bank_returns set state = state where number = %s", (number,))
    payment = begin(topup(demo_customer, EUR("20")))
    superuser.execute("insert into held (number, payment_id, reason, held_at, updated_at) values ('HM-1', %s, 'x', now(), now())", (payment.id,))
    with pytest.raises(psycopg.errors.CheckViolation, match="is test money"):
        superuser.execute("update held set way = 'bank', iban = 'x', holder = 'x', approvals_needed = 2")


# A start


def test_a_live_start_is_refused_while_the_demo_is_here_and_goes_once_it_is_out(app, live, settings):
    with app.app_context():
        config.use(settings)
        demo.seed(1, 2, processor=processor(app))
    config.use(replace(settings, base_url="https://billing.example", sandbox=False, mail_url="smtps://mail.example"))
    with pytest.raises(config.ConfigError, match="logins of the demo") as refused:
        look_before_serving(live)
    assert "demo remove" in str(refused.value)
    run = live.test_cli_runner()
    for command in (
        ["jobs", "once", "mail"],
        ["jobs", "run"],
        ["services", "renew-due"],
        ["bank", "payouts", "--out", os.devnull],
        ["mail", "stuck"],
        ["user", "create", "x", "x@x.example"],
    ):
        told = run.invoke(args=command)
        assert (told.exit_code, "flask --app wsgi demo remove" in told.output) == (2, True), told.output
    assert run.invoke(args=["ledger", "check"]).exit_code == 0
    told = run.invoke(args=["demo", "remove"], input="yes\n")
    assert (told.exit_code, "That is not its name" in told.output) == (2, True)
    assert customers.find_user("demo")
    told = run.invoke(args=["demo", "remove", "--yes"])
    assert (told.exit_code, "The database is empty." in told.output) == (0, True), told.output
    look_before_serving(live)
    assert run.invoke(args=["mail", "stuck"]).exit_code == 0
    assert db.scalar("select count(*) from users") == db.scalar("select count(*) from entries") == db.scalar("select count(*) from plans") == 0
    assert [(entry.action, entry.details["payments"] > 0) for entry in audit.entries()] == [("demo.remove", True)]
    assert list(ledger.check()) == list(audit.check()) == []
    with pytest.raises(psycopg.errors.Error, match="append"), db.transaction():
        db.execute("set local role none")
        db.execute("truncate entries")


def test_a_renamed_login_of_the_demo_is_found(app, settings):
    demo.seed(1, 1, processor=processor(app))
    with db.transaction():
        db.execute("update users set login = 'boss', email = 'boss@real.test', password_hash = 'x' where login = 'support'")
    assert db.scalar("select demo from users where login = 'boss'")
    assert db.scalar("select count(*) from users where not demo") == 0


def test_a_demo_from_before_the_marks_is_recognised(app, superuser):
    demo.seed(2, 3, processor=processor(app))
    customers.create_user("bob", "bob@example.org", "", password_hash=PASSWORD_HASH)
    facts = {
        "users": "select login, demo from users order by 1",
        "payments": "select id, origin from payments order by 1",
        "lines": "select id, origin from bank_lines order by 1",
        "customers": "select id, origin from customers order by 1",
        "found": "select code from origins order by 1",
    }

    def said() -> dict[str, list[tuple[object, ...]]]:
        return {name: superuser.execute(sql).fetchall() for name, sql in facts.items()}

    before = said()
    assert ("bob", False) in before["users"]
    migration = revision("0027_live")
    with superuser.transaction(force_rollback=True):
        superuser.execute("update users set login = 'boss', email = 'boss@real.test' where login = 'rita'")
        superuser.execute(migration.DOWN)
        superuser.execute(migration.UP)
        superuser.execute(as_of_now(migration.MARK))
        superuser.execute(migration.GUARD)
        after = said()
    assert ("boss", True) in after.pop("users")
    assert after == {name: rows for name, rows in before.items() if name != "users"}


def test_real_payments_from_before_the_marks_stay_unknown(app, demo_customer, superuser):
    transfer(demo_customer)
    migration = revision("0027_live")
    with superuser.transaction(force_rollback=True):
        superuser.execute(migration.DOWN)
        superuser.execute("set local session_replication_role = replica")
        superuser.execute("update bank_lines set account = 'IE29AIBK93115212345678'")
        superuser.execute("set local session_replication_role = origin")
        superuser.execute(migration.UP)
        superuser.execute(as_of_now(migration.MARK))
        superuser.execute(migration.GUARD)
        for table in ("customers", "payments", "bank_lines"):
            assert superuser.execute(f"select distinct origin from {table}").fetchall() == [("unknown",)]


def revision(name: str) -> ModuleType:
    """A migration as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / "migrations" / "versions" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sandbox_is_refused_where_real_payments_are(live, app, settings):
    transfer(person("carl", profile=BERLIN))
    config.use(settings)
    with app.app_context(), pytest.raises(config.ConfigError, match="this database holds real payments"):
        look_before_serving(app)


def test_a_database_that_does_not_answer_is_asked_again_with_each_page(app, demo_customer, live, monkeypatch):
    with app.app_context():
        paid(app, demo_customer, EUR("20"))

    def away() -> None:
        raise psycopg.OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(origin, "refuse", away)
        look_before_serving(live)
    browser = live.test_client()
    answer = browser.get("/login", base_url="https://billing.example")
    assert (answer.status_code, "not set up to be served" in answer.text) == (503, True)
    assert browser.get("/healthz", base_url="https://billing.example").status_code == 200
    with app.app_context():
        origin.empty(reason="a test")
    assert browser.get("/login", base_url="https://billing.example").status_code == 200


# Taking it out


@pytest.mark.parametrize("real", ["payment", "line", "customer"])
def test_nothing_is_taken_out_beside_anything_real(app, demo_customer, live, real):
    with app.app_context():
        paid(app, demo_customer, EUR("20"))
    if real == "payment":
        transfer(person("carl", profile=BERLIN))
    elif real == "line":
        take(camt([Transfer(77_00, "who is this")], replace(ADVICE, id="1")))
    else:
        person("carl", profile=BERLIN)
    before = db.scalar("select count(*) from transfers")
    told = live.test_cli_runner().invoke(args=["demo", "remove", "--yes"])
    assert (told.exit_code, "Go live on a fresh database" in told.output) == (2, True), told.output
    with pytest.raises(origin.NotEmptied):
        origin.empty(reason="x")
    assert db.scalar("select count(*) from transfers") == before > 0


def test_prices_stay_when_they_are_to(app):
    demo.seed(1, 1, processor=processor(app))
    before = db.scalar("select count(*) from prices")
    assert app.test_cli_runner().invoke(args=["demo", "remove", "--yes", "--keep-prices"]).exit_code == 0
    assert (db.scalar("select count(*) from prices"), db.scalar("select count(*) from bills")) == (before, 0)


# A demo that was broken off


def test_a_broken_off_demo_is_written_again(app, monkeypatch):
    break_off(app, monkeypatch)
    assert "demo_unfinished" in origin.found()
    demo.seed(1, 1, processor=processor(app))
    assert "demo_unfinished" not in origin.found()
    assert db.scalar("select count(*) from users where login = 'customer1'") == 1


def test_but_not_over_somebody_who_came_since(app, monkeypatch):
    break_off(app, monkeypatch)
    customers.create_user("bob", "bob@example.org", "", password_hash=PASSWORD_HASH)
    with pytest.raises(demo.Refused, match="since then bob came to be"):
        demo.seed(1, 1, processor=processor(app))
    assert customers.find_user("bob")


def test_two_cannot_write_it_at_once(app):
    with db.exclusive(origin.LOCK), pytest.raises(demo.Refused, match="Another process is writing the demo"):
        demo.seed(1, 1, processor=processor(app))
    assert db.scalar("select count(*) from users") == 0


def as_of_now(statements: str) -> str:
    """What the migration runs, without the column that a later one takes away."""
    assert "round = h.round + 1" in statements
    return statements.replace(",\n  round = h.round + 1", "")


def break_off(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of the first month."""

    def interrupted(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.seed(1, 1, processor=processor(app), progress=interrupted)
