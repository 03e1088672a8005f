"""The audit log: written with the decision, append-only, and proven by its chain."""

import threading

import psycopg
import pytest

from app import audit, clock, db
from tests.conftest import person


def write(number="RF-1", **facts):
    with db.transaction():
        audit.record("refund.approve", "refund", number, **facts)


@pytest.fixture
def run(app):
    return lambda *words: app.test_cli_runner().invoke(args=list(words))


def test_an_entry_says_who_when_from_where_and_why(app):
    rita = person("rita", role="support")
    actor = audit.Actor("staff:rita", rita.id, "203.0.113.7", "abc123")
    with audit.acting_as(actor):
        write(reason="checked by phone", details={"amount": "EUR 10.00"})
    (entry,) = audit.entries(subject="refund", subject_id="RF-1")
    assert (entry.actor, entry.user_id, entry.address, entry.request) == (
        "staff:rita", rita.id, "203.0.113.7", "abc123",
    )  # fmt: skip
    assert (entry.action, entry.reason) == ("refund.approve", "checked by phone")
    assert entry.details == {"amount": "EUR 10.00"}
    assert abs((entry.at - clock.now()).total_seconds()) < 5


def test_a_rolled_back_decision_leaves_no_entry(app):
    with pytest.raises(ZeroDivisionError), db.transaction():
        audit.record("refund.approve", "refund", "RF-1")
        _ = 1 / 0
    assert audit.entries() == []
    assert list(audit.check()) == []


def test_what_acts_by_itself_is_the_system(app):
    write()
    assert [entry.actor for entry in audit.entries()] == ["system"]


@pytest.mark.parametrize("statement", [
    "update audit_log set reason = 'another'",
    "delete from audit_log",
    "truncate audit_log cascade",
    "update audit_chain set hash = sha256('x')",
    "delete from audit_chain",
    "truncate audit_chain",
])  # fmt: skip
def test_nothing_is_ever_changed_by_the_owner_of_the_tables_either(app, superuser, statement):
    write()
    with pytest.raises(psycopg.Error, match="append-only"):
        superuser.execute(statement)


def test_the_app_may_not_write_the_chain(app):
    write()
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        db.execute("insert into audit_chain values (2, 1, sha256('x'))")


@pytest.mark.parametrize(("statement", "kind"), [
    ("update audit_log set reason = 'another' where id = 2", "changed"),
    ("update audit_log set actor = 'staff:nobody' where id = 1", "changed"),
    ("update audit_log set details = '{\"amount\": 1}' where id = 3", "changed"),
    ("update audit_log set at = at + interval '1 second' where id = 1", "changed"),
    ("delete from audit_chain where position = 2", "gap"),
    ("delete from audit_chain where position = 3", "unchained"),
    ("update audit_chain set hash = sha256('x') where position = 1", "changed"),
])  # fmt: skip
def test_whatever_is_tampered_with_is_found(app, vandal, run, statement, kind):
    for number in ("RF-1", "RF-2", "RF-3"):
        write(number)
    assert run("audit", "check").exit_code == 0
    vandal.execute(statement)
    assert kind in {fault.kind for fault in audit.check()}
    assert run("audit", "check").exit_code == 1


def test_a_cut_end_is_found_by_a_head_noted_before(app, vandal, run):
    for number in ("RF-1", "RF-2"):
        write(number)
    position, noted = audit.head()
    vandal.execute("delete from audit_chain where position = 2")
    vandal.execute("delete from audit_log where id = 2")
    assert run("audit", "check").exit_code == 0
    answer = run("audit", "check", "--head", f"{position}:{noted}")
    assert answer.exit_code == 1
    assert "does not hold the hash noted" in answer.output
    assert run("audit", "check", "--head", "nonsense").exit_code == 2


def test_many_at_once_make_one_chain(application, app):
    def work():
        with application.app_context():
            for number in range(20):
                write(f"RF-{number}")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.head()[0] == 160
    assert list(audit.check()) == []


def test_entries_are_listed_by_command(app, run):
    write(reason="checked by phone")
    write("RF-2")
    listed = run("audit", "list", "--subject", "refund", "--id", "RF-1").output
    assert "refund.approve  RF-1  checked by phone" in listed
    assert "RF-2" not in listed
