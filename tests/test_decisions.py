"""Who decides: nobody for himself, two people where one is not enough, each decision once and in the audit log."""

import ast
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import click
import psycopg
import pytest
from flask import Flask

import config
from app import approvals, audit, bank, clock, customers, db, exchange, payments, refunds, wallet
from app.approvals import ACTIONS, NotAllowed
from app.bank import BankError, DoubtError, PayoutError
from app.customers import User, vat_ids
from app.money import Money
from app.refunds import RefundError, asking
from tests.banks import ADVICE, GERMAN, SENDER, Batch, Transfer, camt
from tests.conftest import BERLIN, PASSWORD, Browser, person, sign_in
from tests.money_helpers import EUR, USD
from tests.pay import again, begin, topup
from tests.test_bank import balance, take
from tests.test_bank_payouts import report
from tests.test_beneficiary import paid_for
from tests.test_disputes import told
from tests.test_held import arrived, migration_of, news
from tests.test_refunds import IBAN, RITA, SAM, anna, paid

__all__ = ["anna"]
SVEN = "staff:sven"
BY_ROOT = Path(__file__).parent.parent
Decision = Callable[[str], object]


@pytest.fixture(autouse=True)
def _many_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Customers ask for as many refunds as these tests need."""
    monkeypatch.setattr(asking, "DAILY", 99)


# Nobody for himself


def _request(app: Flask, user: User, amount: str = "20", method: str = "sandbox-card") -> str:
    payment = paid(app, user, EUR("50"), method)
    account = {"iban": IBAN, "holder": "Anna Kowalska"} if method == "other-crypto" else {}
    return refunds.request(user.customer_id or 0, payment.public_id, EUR(amount), "", **account)


def _approved(app: Flask, user: User) -> str:
    number = _request(app, user, method="other-crypto")
    for actor in (SAM, RITA):
        refunds.approve(number, actor=actor)
    return number


def _returning(app: Flask, user: User) -> str:
    _, number = arrived(app, user, EUR("50"), EUR("60"), "other-crypto")
    for actor in (SAM, RITA):
        refunds.release(number, "return", actor=actor, reason="Not ours", iban=IBAN, holder="Anna")
    return number


def _line(user: User) -> int:
    """A line in suspense from the account of which another transfer of this customer came before."""
    take(camt([Transfer(1_00, text=f"Login: {user.login}", reference="E-0")], replace(ADVICE, id="A-0")))
    take(camt([Transfer(33_00, text="thanks", reference="E-1")], replace(GERMAN, id="A-1")))
    return next(line.id for line in bank.unmatched() if line.amount == 33_00)


def _doubtful(user: User) -> int:
    """A sum that may be the same money as what this customer was credited for."""
    lines = [
        Transfer(100_00, text=f"Login: {user.login}", sender="Jan", reference="R-1"),
        Transfer(5_00, text="who", sender="Ida", iban="NL91ABNA0417164300", reference="R-2"),
    ]
    take(camt(list(lines), replace(ADVICE, id="D-1")))
    whole = [Batch(tuple(lines), reference="B-9", shown=False)]
    take(camt(list(whole), replace(GERMAN, id="D-2")))
    return next(line.id for line in bank.unmatched() if line.amount == 105_00)


def _dispute(app: Flask, user: User) -> str:
    told(paid(app, user, EUR("50")), "open", USD("54.19"))
    return "du_x"


def _open(app: Flask, user: User) -> Decision:
    payment = paid(app, user, EUR("50"))
    return lambda actor: refunds.open_by_support(payment.public_id, EUR("5"), "Why", actor=actor)


def _approve(app: Flask, user: User) -> Decision:
    number = _request(app, user)
    return lambda actor: refunds.approve(number, actor=actor)


def _decline(app: Flask, user: User) -> Decision:
    number = _request(app, user)
    return lambda actor: refunds.decline(number, actor=actor, answer="No")


def _paid(app: Flask, user: User) -> Decision:
    number = _approved(app, user)
    return lambda actor: refunds.mark_paid(number, reference="TX-1", actor=actor)


def _failed(app: Flask, user: User) -> Decision:
    number = _approved(app, user)
    assert bank.payouts.export("EUR")
    return lambda actor: refunds.refused(number, "Account closed", actor=actor)


def _release(decision: str) -> Callable[[Flask, User], Decision]:
    def make(app: Flask, user: User) -> Decision:
        _, number = arrived(app, user, EUR("50"), EUR("60"))
        return lambda actor: refunds.release(number, decision, actor=actor, reason="Why")

    return make


def _dismiss(_app: Flask, user: User) -> Decision:
    payment = begin(topup(user, EUR("50")))
    payments.apply("sandbox", news(payment, EUR("50"), fault="another account"))
    (case,) = refunds.held_money()
    return lambda actor: refunds.release(case.number, "dismiss", actor=actor, reason="Test mode")


def _held_paid(app: Flask, user: User) -> Decision:
    number = _returning(app, user)
    return lambda actor: refunds.mark_returned(number, reference="TX-1", actor=actor)


def _held_failed(app: Flask, user: User) -> Decision:
    number = _returning(app, user)
    return lambda actor: refunds.refused(number, "Account closed", actor=actor)


def _take(app: Flask, user: User) -> Decision:
    reference = _dispute(app, user)
    return lambda actor: refunds.take_by_hand(reference, 50_00, actor=actor)


def _match(_app: Flask, user: User) -> Decision:
    line = _line(user)
    return lambda actor: bank.match_by_hand(line, user.login, actor=actor, reason="It is")


def _same(_app: Flask, user: User) -> Decision:
    line = _doubtful(user)
    return lambda actor: bank.is_same(line, actor=actor, reason="The slip")


def _separate(_app: Flask, user: User) -> Decision:
    line = _doubtful(user)
    return lambda actor: bank.are_two(line, actor=actor, reason="Two slips")


def _send_back(_app: Flask, user: User) -> Decision:
    line = _line(user)
    return lambda actor: bank.payouts.send_back(line, SENDER, "Ida", actor=actor, reason="Not ours")


def _second_for_return(_app: Flask, user: User) -> Decision:
    number = bank.payouts.send_back(_line(user), SENDER, "Ida", actor=SAM, reason="Not ours")
    return lambda actor: bank.payouts.approve(number, actor=actor)


def _withdraw(_app: Flask, user: User) -> Decision:
    number = bank.payouts.send_back(_line(user), SENDER, "Ida", actor=SAM, reason="Not ours")
    return lambda actor: bank.payouts.withdraw(number, actor=actor, reason="She called")


def _acknowledge(_app: Flask, _user: User) -> Decision:
    take(camt([], replace(GERMAN, id="G-1")))
    take(camt([], replace(GERMAN, opening=2_000_00, id="G-2", day="2026-11-24")))
    mark = bank.gaps()[0].mark
    return lambda actor: bank.acknowledge(mark, actor=actor, reason="It never comes")


def _bonus(_app: Flask, user: User) -> Decision:
    assert user.customer_id
    return lambda actor: payments.grant_bonus(user.customer_id or 0, EUR("10"), reason="Sorry", reference="b1", actor=actor)


def _lift(_app: Flask, user: User) -> Decision:
    with db.transaction():
        db.execute(_CONVERTED, customer=user.customer_id, now=clock.now())
    return lambda actor: exchange.lift_wait(user.login, actor=actor, reason="Asked for")


_CONVERTED = """
insert into conversions (customer_id, at, chosen, from_currency, to_currency, rate, spread_bp, actor)
values (%(customer)s, %(now)s, true, 'USD', 'EUR', 0.9, 0, 'customer')
"""


def _vat_id(decision: str) -> Callable[[Flask, User], Decision]:
    def make(_app: Flask, user: User) -> Decision:
        company = replace(BERLIN, kind="company", company="Exemple", country="FR", vat_id="FR40303265045")
        customers.update_profile(user.id, user.customer_id or 0, company, locale="en", timezone="Europe/Berlin")
        return lambda actor: vat_ids.decide(user.customer_id or 0, decision, reason="Extract of the register", actor=actor)

    return make


def _account_of(change: Callable[..., object]) -> Callable[[Flask, User], Decision]:
    def make(_app: Flask, user: User) -> Decision:
        return lambda actor: change(user.login, actor=actor, reason="Asked for")

    return make


def _contradicted(user: User) -> tuple[str, int]:
    """Money on its way back to its sender, of which the bank said two things."""
    number = bank.payouts.send_back(_line(user), SENDER, "Ida", actor=SAM, reason="Not ours")
    bank.payouts.approve(number, actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    for status in ("ACSP", "RJCT"):
        bank.reports.take_in(report(file.message, (number, status, "")))
    return number, bank.reports.contradictions()[0].id


def _look_at(_app: Flask, user: User) -> Decision:
    _, contradiction = _contradicted(user)
    return lambda actor: bank.reports.look_at(contradiction, actor=actor, note="Not paid")


def _refuse(_app: Flask, user: User) -> Decision:
    number, contradiction = _contradicted(user)
    bank.reports.look_at(contradiction, actor=SAM, note="Not paid")
    return lambda actor: bank.payouts.refused(number, "Not paid", actor=actor)


DECISIONS: dict[str, Callable[[Flask, User], Decision]] = {
    "refund.open": _open,
    "refund.approve": _approve,
    "refund.decline": _decline,
    "refund.paid": _paid,
    "refund.failed": _failed,
    "held.credit": _release("credit"),
    "held.return": _release("return"),
    "held.dismiss": _dismiss,
    "held.paid": _held_paid,
    "held.failed": _held_failed,
    "dispute.take": _take,
    "bank.match": _match,
    "bank.same": _same,
    "bank.separate": _separate,
    "bank.return": _send_back,
    "bank.approve": _second_for_return,
    "bank.withdraw": _withdraw,
    "bank.acknowledge": _acknowledge,
    "bonus.grant": _bonus,
    "currency.lift_wait": _lift,
    "customer.close": _account_of(customers.close),
    "payout.look_at": _look_at,
    "payout.refuse": _refuse,
    "vat_id.confirm": _vat_id("confirm"),
    "vat_id.refuse": _vat_id("refuse"),
    "user.disable": _account_of(customers.disable),
    "user.enable": _account_of(customers.enable),
    "user.sign_out": _account_of(customers.sign_out),
}
"""How each decision is made about a customer: it is prepared, and taken by whom it is called with."""
ABOUT_NOBODY = {"bank.acknowledge"}
"""Decisions about no customer: any person of support may take them."""


def own(_app: Flask, user: User) -> str:
    """The customer, made support afterwards."""
    customers.promote(user.login, "support")
    return f"staff:{user.login}"


def colleague(_app: Flask, user: User) -> str:
    """Another login of the same customer, made support."""
    with db.transaction():
        db.execute(_COLLEAGUE, customer=user.customer_id)
    customers.promote("karl", "support")
    return "staff:karl"


_COLLEAGUE = """
insert into users (customer_id, login, email, password_hash, verified_at, created_at)
values (%(customer)s, 'karl', 'karl@example.com', 'x', now(), now())
"""


def payer(app: Flask, user: User) -> str:
    """Somebody of support who paid for the account once."""
    paul = person("paul", profile=BERLIN)
    paid_for(app, paul, user.login)
    customers.promote("paul", "support")
    return "staff:paul"


def same_address(_app: Flask, user: User) -> str:
    """Somebody of support whose address is the account's for bills."""
    with db.transaction():
        db.execute("update customers set billing_email = 'Sven@Support.example' where id = %(id)s", id=user.customer_id)
    return SVEN


def outsider(_app: Flask, _user: User) -> str:
    """A customer who is not of support at all."""
    person("boris", profile=BERLIN)
    return "staff:boris"


def disabled(_app: Flask, _user: User) -> str:
    """Support whose login was disabled."""
    with db.transaction():
        db.execute("update users set disabled_at = now() where login = 'sven'")
    return SVEN


BARRED = {
    own: "own_account",
    colleague: "own_account",
    payer: "paid_for",
    same_address: "own_address",
    outsider: "unknown",
    disabled: "unknown",
}


def stands() -> list[object]:
    """Everything a decision could have changed."""
    return [
        *db.rows("select id, kind, balance from accounts order by id"),
        *db.rows("select number, state from refunds order by id"),
        *db.rows("select number, state from held order by id"),
        *db.rows("select id, state from bank_lines order by id"),
        *db.rows("select id, state from bank_returns order by id"),
        *db.rows("select id, state from disputes order by id"),
        *db.rows("select id, subject, user_id, withdrawn_at from approvals order by id"),
        db.scalar("select count(*) from bank_acknowledged"),
    ]


def entries() -> list[audit.Entry]:
    """What the audit log says of decisions, the oldest first."""
    return [entry for entry in reversed(audit.entries()) if entry.action in ACTIONS]


def test_every_decision_is_in_the_table():
    assert set(DECISIONS) == set(ACTIONS)


@pytest.mark.parametrize("who", BARRED, ids=lambda who: who.__name__)
@pytest.mark.parametrize("action", DECISIONS)
def test_nobody_decides_for_himself(app: Flask, anna: User, action: str, who: Callable[[Flask, User], str]):
    if action in ABOUT_NOBODY and BARRED[who] != "unknown":
        return
    decide = DECISIONS[action](app, anna)
    actor = who(app, anna)
    before, noted = stands(), len(entries())
    with pytest.raises(NotAllowed) as refused:
        decide(actor)
    assert (refused.value.code, stands(), len(entries())) == (BARRED[who], before, noted)


@pytest.mark.parametrize("action", DECISIONS)
def test_a_decision_leaves_one_entry_with_who_took_it(app: Flask, anna: User, action: str):
    decide = DECISIONS[action](app, anna)
    before = len(entries())
    with audit.acting_as(audit.Actor("command:root", address="")):
        decide(SVEN)
    (entry,) = entries()[before:]
    sven = customers.find_user("sven")
    assert sven
    assert (entry.action, entry.subject, entry.actor, entry.user_id) == (action, ACTIONS[action], SVEN, sven.id)
    assert entry.details["command"] == "root"


@pytest.mark.parametrize("action", DECISIONS)
def test_a_decision_that_is_rolled_back_leaves_none(app: Flask, anna: User, action: str, monkeypatch: pytest.MonkeyPatch):
    decide = DECISIONS[action](app, anna)
    before, noted, real = stands(), len(entries()), audit.record

    def fail(*args: object, **facts: object) -> None:
        real(*args, **facts)  # type: ignore[arg-type]
        raise ZeroDivisionError

    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(ZeroDivisionError):
        decide(SVEN)
    assert (stands(), len(entries())) == (before, noted)


EXEMPT = {
    ("app/approvals.py", "decide"): "the gate itself",
    ("app/approvals.py", "approve"): "the gate itself",
    ("app/exchange.py", "change"): "the customer changes its own currency",
    ("app/fx/changes.py", "note_conversion"): "written within a decision or a change",
    ("app/fx/changes.py", "lift_wait"): "written within the decision",
    ("app/refunds/asking.py", "give_back"): "written within a decision",
    ("app/refunds/asking.py", "return_to_balance"): "within a decision, or as its customer withdraws it",
    ("app/refunds/book.py", "move"): "written within a decision",
    ("app/refunds/book.py", "restate"): "written within a decision",
    ("app/refunds/book.py", "write_step"): "written within a decision",
    ("app/refunds/held.py", "paid"): "within a decision, or as the statement shows it",
    ("app/refunds/paying.py", "paid"): "within a decision, or as the statement shows it",
    ("app/bank/booking.py", "mark"): "within a decision, or by the rules of an import",
    ("app/payments/book.py", "end_review"): "written within a decision",
    ("app/payments/book.py", "restate"): "written within a decision",
    ("app/payments/book.py", "note"): "written within a decision",
}
"""Functions that take the name of who acts and are no decision of their own."""
ROOMS = ("app/bank", "app/customers", "app/fx", "app/payments", "app/refunds", "app/services", "app/exchange.py", "app/approvals.py")


def deciders() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every public function above the ledger that is told who acts."""
    for file in sorted(BY_ROOT.glob("app/**/*.py")):
        path = str(file.relative_to(BY_ROOT))
        if path.startswith(ROOMS):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    names = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
                    if "actor" in names:
                        yield path, node


def gated(path: str, node: ast.FunctionDef) -> bool:
    """Whether a function asks the gate, itself or by a private function of its own module."""
    tree = ast.parse((BY_ROOT / path).read_text())
    private = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    waiting, seen = [node], set()
    while waiting:
        each = waiting.pop()
        seen.add(each.name)
        calls = {ast.unparse(call.func) for call in ast.walk(each) if isinstance(call, ast.Call)}
        if calls & {"approvals.decide", "approvals.approve"}:
            return True
        waiting += [private[name] for name in calls if name.startswith("_") and name in private and name not in seen]
    return False


def test_whoever_takes_the_name_of_a_person_asks_whether_it_may_decide():
    found = {(path, node.name): gated(path, node) for path, node in deciders()}
    assert {name for name, asks in found.items() if not asks} == set(EXEMPT)


# Two people


@pytest.fixture
def strict(app: Flask) -> Iterator[None]:
    """One person decides 100 euros at once and 200 within a day."""
    before = config.current()
    config.use(replace(before, refund_four_eyes=1, staff_daily_limit=2))
    yield
    config.use(before)


def line_of(minor: int) -> int:
    """A line in suspense that names nobody."""
    number = db.scalar("select count(*) from bank_lines")
    take(camt([Transfer(minor, text="thanks", sender="Ida", reference=f"L-{number}")], replace(ADVICE, id=f"L-{number}")))
    return max(line.id for line in bank.unmatched())


def test_a_large_line_is_credited_by_two_people_of_one_mind(app: Flask, anna: User, strict: None):
    boris = person("boris", profile=BERLIN)
    line = line_of(150_00)
    assert "second person" in bank.match_by_hand(line, "anna", actor=SAM, reason="She called")
    with pytest.raises(BankError, match="second person"):
        bank.match_by_hand(line, "anna", actor=SAM, reason="Again")
    assert "second person" in bank.match_by_hand(line, "boris", actor=RITA, reason="He called")
    assert "second person" in bank.match_by_hand(line, "anna", actor=RITA, reason="No, she did")
    assert (balance(anna), balance(boris)) == (0, 0)
    assert bank.match_by_hand(line, "anna", actor=SVEN, reason="I saw it") == "150.00 EUR is on the balance of anna."
    assert (balance(anna), db.scalar("select actor from bank_lines where id = %(id)s", id=line)) == (150_00, SVEN)


def test_a_line_sent_back_forgets_who_wanted_to_credit_it(app: Flask, anna: User, strict: None):
    line = line_of(150_00)
    bank.match_by_hand(line, "anna", actor=SAM, reason="She called")
    number = bank.payouts.send_back(line, SENDER, "Ida", actor=RITA, reason="Not ours")
    bank.payouts.withdraw(number, actor=RITA, reason="Hers after all")
    assert "second person" in bank.match_by_hand(line, "anna", actor=RITA, reason="Hers")
    assert balance(anna) == 0


def test_separate_payments_take_two_people_whatever_the_sum(app: Flask, anna: User):
    line = _doubtful(anna)
    assert bank.are_two(line, actor=SAM, reason="Two slips") == "Your decision is kept. A second person must confirm this."
    with pytest.raises(DoubtError, match="second person"):
        bank.are_two(line, actor=SAM, reason="Again")
    with pytest.raises(BankError, match="booked already"):
        bank.match_by_hand(line, "anna", actor=RITA, reason="Hers")
    assert bank.are_two(line, actor=RITA, reason="I saw them") == "They are two. It waits for its customer now."
    bank.match_by_hand(line, "anna", actor=RITA, reason="Hers")
    assert balance(anna) == 205_00


def test_what_waits_with_a_line_that_is_the_same_as_another_is_not_separate_by_that(app: Flask, anna: User):
    whole = Batch((Transfer(60_00, text="a"), Transfer(40_00, text="b")), reference="B-1", shown=False)
    take(camt([whole], replace(GERMAN, id="W-1")))
    bank.match_by_hand(bank.unmatched()[0].id, "anna", actor=SAM, reason="Hers")
    parts = [Transfer(60_00, text="a", reference="P-1"), Transfer(40_00, text="b", reference="P-2")]
    take(camt(list(parts), replace(ADVICE, id="W-2")))
    first, second = (line.id for line in sorted(bank.unmatched(), key=lambda line: -line.amount))
    assert bank.doubts.of(first)
    take(camt([Transfer(60_00, text="anna", reference="X-1")], replace(ADVICE, id="W-3")))
    other = db.scalar("select id from bank_lines where bank_reference = 'X-1'")
    bank.is_same(first, [other], actor=SAM, reason="The slip")
    assert bank.doubts.of(second), "one person's word about one line lets no other go"


@pytest.mark.parametrize("make", [_failed, _held_failed], ids=["refund", "held"])
def test_what_stands_in_a_payment_file_is_refused_by_two_people(app: Flask, anna: User, make: Callable[[Flask, User], Decision]):
    refuse = make(app, anna)
    bank.payouts.export("EUR")
    before = stands()[:-2]
    assert refuse(SAM) is False
    with pytest.raises(RefundError, match="second person"):
        refuse(SAM)
    assert [row for row in stands()[:-2] if row in before] == before
    assert refuse(RITA) is True
    with pytest.raises(RefundError):
        refuse(SVEN)


def test_who_refused_the_first_try_does_not_count_for_the_next(app: Flask, anna: User):
    number = _returning(app, anna)
    file = bank.payouts.export("EUR")
    assert file
    assert refunds.refused(number, "Closed", actor=SVEN) is False
    bank.reports.take_in(report(file.message, (number, "RJCT", "AC01")))
    for actor in (SAM, RITA):
        refunds.release(number, "return", actor=actor, reason="Again", iban=IBAN, holder="Anna")
    assert bank.payouts.export("EUR")
    assert refunds.refused(number, "Closed", actor=RITA) is False
    assert refunds.refused(number, "Closed", actor=SAM) is True


def test_the_database_counts_people_itself(app: Flask, anna: User, superuser: psycopg.Connection):
    number = _request(app, anna, method="other-crypto")
    refunds.approve(number, actor=SAM)
    with pytest.raises(psycopg.errors.CheckViolation, match="needs 2 approvals"), db.transaction():
        db.execute("update refunds set state = 'approved' where number = %(number)s", number=number)
    with pytest.raises(psycopg.errors.UniqueViolation), db.transaction():
        db.execute(_VOICE, number=number, login="sam")
    with pytest.raises(psycopg.errors.CheckViolation, match="enabled user of support"), db.transaction():
        db.execute(_VOICE, number=number, login="anna")
    for statement in ("update approvals set actor = 'staff:rita'", "delete from approvals", "update approvals set withdrawn_at = now(), user_id = null"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            superuser.execute(statement)
    superuser.execute("insert into approvals (subject, subject_id, decision, actor, at, withdrawn_at) values ('held', 'x', 'credit', 'system', now(), now())")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        superuser.execute("update approvals set withdrawn_at = null where subject_id = 'x'")
    _, held = arrived(app, anna, EUR("50"), EUR("60"))
    with pytest.raises(psycopg.errors.CheckViolation, match="needs 1 approvals"), db.transaction():
        db.execute("update held set state = 'returning', decision = 'return' where number = %(number)s", number=held)
    back = bank.payouts.send_back(line_of(10_00), SENDER, "Ida", actor=SAM, reason="Not ours")
    with pytest.raises(psycopg.errors.CheckViolation, match="needs 2 approvals"), db.transaction():
        db.execute("update bank_returns set state = 'approved' where number = %(number)s", number=back)


_VOICE = """
insert into approvals (subject, subject_id, decision, actor, user_id, at)
select 'refund', %(number)s, 'approve', 'staff:' || login, id, now() from users where login = %(login)s
"""


def test_a_first_voice_counts_only_while_its_person_may_decide(app: Flask, anna: User):
    number = _approved_by_one(app, anna)
    with db.transaction():
        db.execute("update users set disabled_at = now() where login = 'sam'")
    assert refunds.approve(number, actor=RITA) == "requested"
    with pytest.raises(psycopg.errors.CheckViolation, match="needs 2 approvals"), db.transaction():
        db.execute("update refunds set state = 'approved' where number = %(number)s", number=number)
    assert refunds.approve(number, actor=SVEN) == "approved"
    other = _approved_by_one(app, anna, RITA)
    with db.transaction():
        db.execute("update customers set billing_email = 'rita@support.example'")
    assert refunds.approve(other, actor=SVEN) == "requested"


def test_the_voices_of_before_are_kept_both_ways(app: Flask, anna: User, superuser: psycopg.Connection):
    _approved_by_one(app, anna)
    _, held = arrived(app, anna, EUR("50"), EUR("60"), "other-crypto")
    refunds.release(held, "return", actor=RITA, reason="Not ours", iban=IBAN, holder="Anna")
    bank.payouts.send_back(line_of(10_00), SENDER, "Ida", actor=SVEN, reason="Not ours")
    migration = migration_of("0031_approvals")
    voices = "select subject, subject_id, decision, terms, actor, user_id from approvals order by subject"
    before = superuser.execute(voices).fetchall()
    assert len(before) == 3
    with superuser.transaction(force_rollback=True):
        superuser.execute(migration.DOWN)
        assert superuser.execute("select actor from refund_approvals").fetchall() == [(SAM,)]
        for part in (migration.TABLE, migration.MOVE, migration.GUARDS):
            superuser.execute(part)
        assert superuser.execute(voices).fetchall() == before


def test_the_list_of_decisions_for_operators_is_whole():
    text = (BY_ROOT / "docs" / "operations.md").read_text()
    for action, subject in ACTIONS.items():
        group, _, verb = action.partition(".")
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{group}.") and (f"`{action}`" in line or f"`.{verb}`" in line)]
        assert f"`{subject}`" in row, action


# How much alone


def refund_of(app: Flask, user: User, amount: str) -> str:
    payment = paid(app, user, EUR("100"))
    return refunds.request(user.customer_id or 0, payment.public_id, EUR(amount), "")


def test_what_one_person_decides_alone_in_a_day_is_bounded(app: Flask, anna: User, strict: None):
    numbers = [refund_of(app, anna, "90") for _ in range(3)]
    assert [refunds.approve(number, actor=SAM) for number in numbers] == ["approved", "approved", "requested"]
    third = refunds.case(numbers[2])
    assert third
    assert (third.refund.approvals_needed, third.refund.approvals) == (2, [SAM])
    assert approvals.ALONE in third.refund.steps[-1].note
    sam = customers.find_user("sam")
    assert sam
    assert (approvals.alone_today(sam.id), approvals.daily_limit()) == (EUR("180"), EUR("200"))
    with pytest.raises(RefundError, match="already"):
        refunds.approve(numbers[2], actor=SAM)
    assert refunds.approve(numbers[2], actor=RITA) == "approved"
    assert refunds.approve(refund_of(app, anna, "20"), actor=SAM) == "approved", "up to the limit itself"


def test_the_day_counts_credits_returns_and_refunds_together(app: Flask, anna: User, strict: None):
    assert refunds.approve(refund_of(app, anna, "90"), actor=SAM) == "approved"
    _, number = arrived(app, anna, EUR("50"), EUR("60"))
    assert refunds.release(number, "credit", actor=SAM, reason="Hers") == "credited"
    assert "second person" in bank.match_by_hand(line_of(60_00), "anna", actor=SAM, reason="Hers")
    _, back = arrived(app, anna, EUR("50"), EUR("60"))
    assert refunds.release(back, "return", actor=SAM, reason="Not ours") == "held"
    with pytest.raises(NotAllowed, match="second person"):
        payments.grant_bonus(anna.customer_id or 0, EUR("60"), reason="x", reference="b", actor=SAM)
    assert refunds.release(back, "return", actor=RITA, reason="Not ours") == "returning"


def test_yesterday_and_what_did_not_happen_count_no_more(app: Flask, anna: User, strict: None):
    declined = refund_of(app, anna, "90")
    refunds.approve(declined, actor=SAM)
    refunds.decline(declined, actor=RITA, answer="No")
    assert refunds.approve(refund_of(app, anna, "90"), actor=SAM) == "approved"
    assert refunds.approve(refund_of(app, anna, "90"), actor=SAM) == "approved"
    number = refund_of(app, anna, "90")
    clock_ = clock.now
    try:
        clock.now = lambda: clock_() + timedelta(hours=25)
        assert refunds.approve(number, actor=SAM) == "approved"
    finally:
        clock.now = clock_


def test_an_amount_without_a_rate_is_not_decided_alone(app: Flask, anna: User, strict: None):
    with db.transaction():
        said = approvals.approve("held.credit", "held", "HM-X", actor=SAM, needed=1, amount=USD("1"))
    assert (said.reached, said.limited) == (False, True)


def test_with_a_limit_of_nothing_there_are_always_two(app: Flask, anna: User):
    before = config.current()
    config.use(replace(before, staff_daily_limit=0))
    try:
        number = refund_of(app, anna, "1")
        assert [refunds.approve(number, actor=actor) for actor in (SAM, RITA)] == ["requested", "approved"]
    finally:
        config.use(before)


# At the same moment


def at_once(app: Flask, *works: Callable[[], object]) -> list[object]:
    """What each said, or its refusal, all begun at one moment."""
    gate, said = threading.Barrier(len(works)), [None] * len(works)

    def run(place: int) -> None:
        with app.app_context():
            gate.wait()
            try:
                said[place] = works[place]()
            except (RefundError, BankError, DoubtError, PayoutError, NotAllowed) as refusal:
                said[place] = refusal

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_two_people_at_once_carry_it_out_once(app: Flask, anna: User, strict: None):
    for _ in range(5):
        line = line_of(150_00)
        before = balance(anna)
        said = at_once(app, *(partial(bank.match_by_hand, line, "anna", actor=actor, reason="x") for actor in (SAM, RITA, SVEN)))
        assert sum("on the balance" in str(each) for each in said) == 1
        assert balance(anna) == before + 150_00
        number = _approved_by_one(app, anna)
        said = at_once(app, *(partial(refunds.approve, number, actor=actor) for actor in (RITA, SVEN)))
        assert sorted(map(str, said))[1:] == ["approved"]


def _approved_by_one(app: Flask, user: User, who: str = SAM) -> str:
    number = _request(app, user, method="other-crypto")
    assert refunds.approve(number, actor=who) == "requested"
    return number


def test_approving_and_declining_at_once_ends_in_one_of_them(app: Flask, anna: User):
    for _ in range(5):
        number = _approved_by_one(app, anna)
        held = wallet.state(anna.customer_id or 0).on_hold
        said = at_once(app, partial(refunds.approve, number, actor=RITA), partial(refunds.decline, number, actor=SVEN, answer="No"))
        case = refunds.case(number)
        assert case
        assert case.refund.state == "declined", "an approval that came first is taken back by declining"
        assert said[1] is None
        assert wallet.state(anna.customer_id or 0).on_hold == held - 20_00


def test_approving_and_withdrawing_at_once(app: Flask, anna: User):
    for _ in range(5):
        number = bank.payouts.send_back(line_of(10_00), SENDER, "Ida", actor=SAM, reason="Not ours")
        at_once(app, partial(bank.payouts.approve, number, actor=RITA), partial(bank.payouts.withdraw, number, actor=SVEN, reason="x"))
        assert db.scalar("select state from bank_returns where number = %(number)s", number=number) == "withdrawn"
        assert approvals.of("bank_return", number) == []
    assert bank.payouts.export("EUR") is None


def test_one_person_in_many_tabs_is_one_person_and_has_one_day(app: Flask, anna: User, strict: None):
    number = _approved_by_one(app, anna)
    assert {type(each) for each in at_once(app, *[lambda: refunds.approve(number, actor=SAM)] * 6)} == {RefundError}
    numbers = [refund_of(app, anna, "90") for _ in range(5)]
    said = at_once(app, *(partial(refunds.approve, number, actor=RITA) for number in numbers))
    assert sorted(map(str, said)) == ["approved"] * 2 + ["requested"] * 3


@pytest.mark.parametrize("change", ["role = 'customer'", "disabled_at = now()"])
def test_a_role_that_is_taken_away_meanwhile_counts(app: Flask, anna: User, database_url: str, change: str):
    person("paul", profile=BERLIN)
    customers.promote("paul", "support")
    number = _request(app, anna)
    with psycopg.connect(database_url.replace("postgresql+psycopg://", "postgresql://")) as other:
        other.execute(f"update users set {change} where login = 'paul'")
        said: list[object] = []
        thread = threading.Thread(target=lambda: said.extend(at_once(app, lambda: refunds.approve(number, actor="staff:paul"))))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "the decision waits for the change"
        other.commit()
        thread.join()
    assert isinstance(said[0], NotAllowed)
    assert approvals.of("refund", number) == []


# The money itself


def test_asking_for_what_is_spent_meanwhile_says_what_is_left(app: Flask, anna: User, owner: Browser, staff: Browser, monkeypatch: pytest.MonkeyPatch):
    payment = paid(app, anna, EUR("50"))

    def spent(*_args: object, **_facts: object) -> None:
        raise wallet.InsufficientFunds("50.00 EUR is more than is left of this payment.")

    monkeypatch.setattr(wallet, "hold", spent)
    form = {"payment": payment.public_id, "amount": "50", "reason": "All"}
    for answer in (owner.submit("/refunds", form), staff.submit(f"/staff/refunds/of/{payment.public_id}", {"amount": "50", "reason": "All"})):
        assert answer.status_code == 422
        assert "Some of it was spent just now: at most" in answer.text
        assert "50.00" in answer.text
    assert db.scalar("select count(*) from refunds") == 0


# The commands


def with_actor(group: click.Group) -> Iterator[tuple[list[str], click.Command]]:
    """Every command that takes ``--actor``, with the words before it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from (([name, *words], each) for words, each in with_actor(command))
        elif any("--actor" in option.opts for option in command.params):
            yield [name], command


def test_every_command_takes_only_a_login_of_support(app: Flask, anna: User):
    run = app.test_cli_runner().invoke
    disabled(app, anna)
    found = [words for words, _ in with_actor(app.cli) if words != ["audit", "list"]]  # there it chooses whose entries are shown
    assert len(found) >= 7
    for words in found:
        for login in ("nobody", "anna", "sven", ""):
            answer = run(args=[*map(str, words), *_arguments(words), "--actor", login])
            assert (answer.exit_code, "is no login of support" in answer.output) == (2, True), (words, answer.output)


def _arguments(words: list[str]) -> list[str]:
    """What a command needs besides the actor."""
    return {
        "acknowledge": ["x", "--reason", "x"],
        "looked-at": ["1", "--note", "x"],
        "refused": ["BR-1", "--reason", "x"],
        "same": ["1", "--reason", "x"],
        "two": ["1", "--reason", "x"],
        "match": ["1", "--customer", "anna", "--reason", "x"],
        "release": ["HM-1", "--credit"],
        "take-dispute": ["du_x", "1"],
        "lift-currency-wait": ["anna", "--reason", "x"],
        "close": ["anna", "--reason", "x"],
        "disable": ["anna", "--reason", "x"],
        "enable": ["anna", "--reason", "x"],
        "sign-out": ["anna", "--reason", "x"],
        "vat-id": ["anna", "confirm", "--reason", "x"],
    }[words[-1]]


def test_the_second_person_runs_the_command_again(app: Flask, anna: User, strict: None):
    run = app.test_cli_runner().invoke
    line = str(line_of(150_00))
    words = ["bank", "match", line, "--customer", "anna", "--reason", "Hers", "--actor"]
    first = run(args=[*words, "sam"])
    assert (first.exit_code, "A second person must confirm this." in first.output) == (0, True)
    assert run(args=[*words, "sam"]).exit_code == 2
    assert "is on the balance of anna." in run(args=[*words, "rita"]).output
    assert {entry.details["command"] for entry in entries()} == {_system_user()}
    own(app, anna)
    refused = run(args=["bank", "match", str(line_of(10_00)), "--customer", "anna", "--reason", "Mine", "--actor", "anna"])
    assert (refused.exit_code, "about your own account" in refused.output) == (2, True)


def _system_user() -> str:
    from app.cli._shared import _system_user as name

    return name()


# The pages


@dataclass(frozen=True)
class Page:
    """A page of support's and the word of its button."""

    path: str
    button: str


def pages(app: Flask, user: User) -> list[Page]:
    """One page of each kind about a customer."""
    payment = paid(app, user, EUR("50"))
    _, held = arrived(app, user, EUR("50"), EUR("60"))
    return [
        Page(f"/staff/refunds/{_request(app, user)}", "Approve"),
        Page(f"/staff/refunds/of/{payment.public_id}", "Open the refund</button>"),
        Page(f"/staff/held/{held}", 'value="credit"'),
        Page(f"/staff/bank/{_line(user)}", 'value="credit"'),
    ]


def test_the_pages_offer_no_button_and_say_why(app: Flask, anna: User, staff: Browser):
    found = pages(app, anna)
    assert all(page.button in staff.get(page.path).text for page in found)
    own(app, anna)
    mine = sign_in(app.test_client(), anna)
    for page in found:
        text = mine.get(page.path).text
        assert "You cannot decide this: it is about your own account." in text, page.path
        assert page.button not in text
    answer = mine.submit(found[0].path, {"decision": "approve"})
    assert (answer.status_code, "about your own account" in answer.text) == (422, True)


def test_the_page_shows_who_sent_beside_who_gets(app: Flask, anna: User, staff: Browser):
    bill = topup(anna, Money.of("100", "EUR"))
    take(camt([Transfer(100_00, structured=bill.payment_reference or "", sender="KOWALSKA, Anna")], replace(ADVICE, id="S-1")))
    public_id = db.scalar("select public_id from payments where bill_id = %(id)s", id=bill.id)
    number = refunds.request(anna.customer_id or 0, public_id, EUR("20"), "", iban=SENDER, holder="Anna Kowalska")
    page = " ".join(staff.get(f"/staff/refunds/{number}").text.split())
    for words in (
        'KOWALSKA, Anna <span class="badge credit">Same as the payee</span>',
        f'{SENDER} <span class="badge credit">Same as the payee</span>',
        "Confirmed",
        "never",
        "by nobody",
    ):
        assert words in page, words
    refunds.approve(number, actor=SAM)
    assert "Approve: sam," in staff.get(f"/staff/refunds/{number}").text


@pytest.mark.parametrize(("one", "other", "mark"), [
    ("Anna Kowalska", "KOWALSKA, ANNA", "same"),
    ("Jörg Groß", "JOERG GROSS", "same"),
    ("Jo\N{COMBINING DIAERESIS}rg", "Joerg", "same"),
    ("Łukasz Żółć", "Lukasz Zolc", "same"),
    ("Иван Петров", "иван петров", "same"),
    ("Иван Петров", "Олег Смирнов", "other"),
    ("Anna Kowalska", "Anna Maria Kowalska", "part"),
    ("Anna Kowalska", "Ida Unknown", "other"),
    ("Anna Kowalska", "", "unknown"),
    ("", "", "unknown"),
])  # fmt: skip
def test_names_are_compared_as_people_read_them(one: str, other: str, mark: str):
    assert bank.same_name(one, other) == mark
    assert bank.same_name(other, one) == mark


def test_accounts_are_compared_without_their_blanks():
    assert bank.same_account("DE89 3704 0044 0532 0130 00", IBAN.lower()) == "same"
    assert bank.same_account(IBAN, SENDER) == "other"
    assert bank.same_account("", SENDER) == "unknown"


# What machines and operators do


def test_users_files_and_what_the_bank_says_are_in_the_log(app: Flask, anna: User):
    customers.create_user("nina", "nina@example.com", PASSWORD, role="support")
    customers.promote("nina", "support")
    number = _approved(app, anna)
    file = bank.payouts.export("EUR")
    assert file
    bank.reports.take_in(report(file.message, (number, "RJCT", "AC01")))
    noted = {(entry.action, entry.subject_id) for entry in audit.entries()}
    assert noted >= {("user.create", "nina"), ("user.promote", "nina"), ("payout.file", file.message), ("payout.reject", number)}
    again_ = _approved(app, anna)
    assert bank.payouts.export("EUR")
    take(camt([Transfer(-20_00, end_to_end=again_, sender="Anna", iban=IBAN, day="2026-11-24")], replace(ADVICE, id="C-1")))
    assert [entry.subject_id for entry in audit.entries() if entry.action == "payout.confirm"] == [again_]
    assert list(audit.check()) == []
    assert again(paid(app, anna, EUR("10"))).state == "paid"
