"""Money that two files tell in other pieces counts once; what only may be the same waits for a person, and the bank's own balances say whether the books are right."""

import random
from dataclasses import replace
from datetime import date, timedelta
from itertools import count

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import bank, db
from app.bank import BankError, DoubtError, PayoutError
from app.customers import User
from tests.banks import ADVICE, EUR_ACCOUNT, GERMAN, SENDER, Batch, Transfer, camt, mt940
from tests.conftest import BERLIN, Browser, person
from tests.test_bank import balance, held, take, whole

ANNA = Transfer(100_00, text="login anna", sender="Jan", reference="R-1")
WHO = Transfer(5_00, text="who", sender="Ida", iban="NL91ABNA0417164300", reference="R-2")
SINGLES = [ANNA, WHO]
SUM = Batch((ANNA, WHO), reference="B-9", shown=False)
_openings, _days = count(5_000_00, 7), count()


def advice(lines: list[Transfer | Batch]) -> bytes:
    return camt(lines, replace(ADVICE, id=str(next(_openings))))


def statement(lines: list[Transfer | Batch], **more) -> bytes:
    """A whole day of its own, that no other file told."""
    return camt(lines, replace(GERMAN, opening=next(_openings), **more))


def both_ways(first: bytes, second: bytes, order: int) -> list[bank.Report]:
    return [take(data) for data in ((first, second), (second, first))[order]]


def credited() -> tuple[int, int]:
    """What the bank's account holds in our books, and what is in suspense."""
    return -held("bank"), held("suspense")


# Surely the same


def named(lines: list[Transfer]) -> list[Transfer]:
    return [replace(line, batch="MSG-77") for line in lines]


SURE = {
    "the message's name": (lambda: statement([replace(SUM, name="MSG-77")]), lambda: advice(named(SINGLES))),
    "the bank's reference of the whole": (lambda: statement([SUM]), lambda: advice([replace(line, reference="B-9", batch=line.reference) for line in SINGLES])),
    "as many as the bank says": (lambda: statement([replace(SUM, counted=True)]), lambda: advice([*SINGLES, Transfer(7_00, text="other", reference="R-3")])),
    "both tell the whole day": (lambda: camt([SUM]), lambda: mt940(SINGLES)),
    "both tell the whole day, the sum in MT940": (lambda: mt940([Transfer(105_00, text="SAMMLER", iban="", sender="")]), lambda: camt(SINGLES)),
    "a batch in full": (lambda: statement([replace(SUM, shown=True)]), lambda: advice(SINGLES)),
    "a batch in full, the references in one only": (
        lambda: statement([replace(SUM, shown=True)]),
        lambda: advice([replace(line, reference="") for line in SINGLES]),
    ),
    "a batch less the bank's charges": (lambda: statement([replace(SUM, shown=True, charges=1_20)]), lambda: advice(SINGLES)),
}


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("how", SURE)
def test_a_sum_and_its_transfers_as_entries_of_their_own_count_once(demo_customer: User, how: str, order: int):
    first, second = (tell() for tell in SURE[how])
    both_ways(first, second, order)
    other, charges = (7_00 if how.startswith("as many") else 0), (1_20 if how.endswith("charges") else 0)
    assert (credited(), balance(demo_customer), held("fees")) == ((105_00 + other - charges, 5_00 + other), 100_00, -charges)
    assert sorted(line.amount for line in bank.unmatched()) == sorted([5_00, *([other] if other else [])])
    for data in (first, second, first):
        assert set(take(data).counts) == {"duplicate"}
    assert bank.unmatched()[0].reason == "Nothing in it names a bill or a login."
    assert whole()


def test_a_part_of_a_batch_that_was_advised_is_not_booked_again(demo_customer: User):
    take(advice([ANNA]))
    assert take(statement([replace(SUM, shown=True)])).counts == {"duplicate": 1, "suspense": 1}
    assert (credited(), balance(demo_customer)) == ((105_00, 5_00), 100_00)
    assert take(statement([replace(SUM, shown=True)])).counts == {"duplicate": 2}


@pytest.mark.parametrize("order", [0, 1])
def test_equal_transfers_in_a_batch_and_beside_it_are_as_many_as_they_are(demo_customer: User, order: int):
    twins = [replace(ANNA, reference="", end_to_end="E-1"), replace(ANNA, reference="", end_to_end="E-1")]
    both_ways(statement([Batch((twins[0], WHO), reference="B-9"), twins[1]]), advice([*twins, WHO]), order)
    assert (credited(), balance(demo_customer)) == ((205_00, 5_00), 200_00)


def test_what_one_file_tells_itself_is_never_the_same(demo_customer: User):
    lines = [SUM, *SINGLES]
    assert take(statement(lines)).counts == {"matched": 1, "suspense": 2}
    assert take(advice(lines)).counts == {"duplicate": 3}
    assert take(advice([*lines, Transfer(1_00, text="login anna", reference="N")])).counts == {"duplicate": 3, "matched": 1}
    assert (credited(), db.scalar("select count(*) from bank_doubts")) == ((211_00, 110_00), 0)


def test_a_sum_of_payouts_and_each_of_them_leave_once(demo_customer: User):
    lines = [Transfer(-40_00, text="supplier", reference="O-1"), Transfer(-2_00, text="another", reference="O-2")]
    both_ways(statement([Batch(tuple(lines), shown=False, counted=True)]), advice(lines), 0)
    assert credited() == (-42_00, -42_00)


# Perhaps the same


@pytest.mark.parametrize("order", [0, 1])
def test_what_only_may_be_the_same_waits_and_nobody_is_credited_twice(demo_customer: User, order: int):
    both_ways(statement([SUM]), advice([Transfer(9_00, text="x", reference="R-0"), *SINGLES]), order)
    assert (credited(), balance(demo_customer)) == ((219_00, 119_00), 100_00)
    (sum_,) = [line for line in bank.unmatched() if line.amount == 105_00]
    assert sum_.reason_code == "perhaps_singles"
    with pytest.raises(BankError, match="It may be money that is booked already"):
        bank.match_by_hand(sum_.id, "anna", actor="sven", reason="she called")
    with pytest.raises(PayoutError, match="It may be money that is booked already"):
        bank.payouts.send_back(sum_.id, SENDER, "Jan", actor="sven", reason="not ours")
    assert bank.is_same(sum_.id, actor="sven", reason="the bank's slip") == "105.00 EUR counts once."
    assert (credited(), balance(demo_customer), len(bank.unmatched())) == ((114_00, 14_00), 100_00, 2)
    for data in (statement([SUM]), advice(SINGLES)):
        assert set(take(data).counts) == {"duplicate"}
    with pytest.raises(DoubtError):
        bank.is_same(sum_.id, actor="sven", reason="again")
    assert tuple(db.rows("select state, actor, reason from bank_doubts")[0]) == ("same", "staff:sven", "the bank's slip")
    assert whole()


@pytest.mark.parametrize("order", [0, 1])
def test_two_that_only_look_the_same_are_two_once_a_person_says_so(demo_customer: User, order: int):
    both_ways(statement([SUM]), advice(SINGLES), order)
    (sum_,) = [line for line in bank.unmatched() if line.amount == 105_00]
    for actor, reason in (("", "x"), ("sven", " ")):
        with pytest.raises(DoubtError, match="Say who you are"):
            bank.are_two(sum_.id, actor=actor, reason=reason)
    for actor in ("sven", "rita"):
        bank.are_two(sum_.id, actor=actor, reason="two slips")
    bank.match_by_hand(sum_.id, "anna", actor="sven", reason="hers")
    assert (credited(), balance(demo_customer)) == ((210_00, 5_00), 205_00)
    for data in (statement([SUM]), advice(SINGLES)):
        assert set(take(data).counts) == {"duplicate"}


def test_transfers_of_a_sum_that_was_credited_by_hand_wait(demo_customer: User):
    take(statement([SUM]))
    bank.match_by_hand(bank.unmatched()[0].id, "anna", actor="sven", reason="she showed the slip")
    assert take(advice(SINGLES)).counts == {"suspense": 2}
    assert (balance(demo_customer), {line.reason_code for line in bank.unmatched()}) == (105_00, {"perhaps_part"})
    bank.is_same(bank.unmatched()[0].id, actor="sven", reason="the slip names both")
    assert (credited(), bank.unmatched(), balance(demo_customer)) == ((105_00, 0), [], 105_00)
    assert whole()


def test_a_sum_that_was_credited_while_the_file_was_read_leaves_its_transfers_waiting(demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    take(statement([SUM]))
    regroup = bank.told.regroup

    def meanwhile(entries):
        found = regroup(entries)
        bank.match_by_hand(bank.unmatched()[0].id, "anna", actor="sven", reason="she called")
        return found

    monkeypatch.setattr(bank.told, "regroup", meanwhile)
    assert take(advice(SINGLES)).counts == {"suspense": 2}
    assert balance(demo_customer) == 105_00


def test_a_transfer_that_names_its_customer_is_no_sum(demo_customer: User):
    take(advice([Transfer(60_00, text="who", reference="1"), Transfer(40_00, text="whose", reference="2")]))
    assert take(statement([Transfer(100_00, text="login anna", iban="", sender="")])).counts == {"matched": 1}
    assert take(statement([Transfer(100_00, text="rent", end_to_end="E-9")], id="2")).counts == {"suspense": 1}
    assert db.scalar("select count(*) from bank_doubts") == 0


def test_names_that_agree_and_amounts_that_do_not_wait(demo_customer: User):
    take(advice(named(SINGLES)))
    take(statement([replace(SUM, name="MSG-77", total=104_00)]))
    (sum_,) = [line for line in bank.unmatched() if line.amount == 104_00]
    with pytest.raises(DoubtError, match=r"It is not the same: 104\.00 EUR here, 105\.00 EUR there\."):
        bank.is_same(sum_.id, actor="sven", reason="x")


def test_a_day_told_again_with_other_days_of_booking_counts_once(demo_customer: User):
    take(camt([ANNA]))
    assert take(mt940([replace(ANNA, day="2026-11-19", reference="Z")])).counts == {"matched": 1}, "another closing balance's day: it may be another statement"
    take(camt([replace(ANNA, day="2026-11-18", reference="Y")], replace(GERMAN, version="08")))
    assert balance(demo_customer) == 200_00
    assert [line.reason_code for line in bank.unmatched()] == ["not_in_other_file"]


def test_a_person_names_what_a_line_is_the_same_as(app: Flask, demo_customer: User):
    take(advice([replace(ANNA, day="2026-11-19", reference="A")]))
    take(advice([replace(ANNA, text="?", reference="B"), Transfer(1_00, text="?", reference="C")]))
    first, second = (db.scalar("select id from bank_lines where bank_reference = %(name)s", name=name) for name in "AB")
    for others, says in (([], "Say which lines"), ([second], "not in the books"), ([999], "not in the books"), ([first, second + 1], "not the same")):
        with pytest.raises(DoubtError, match=says):
            bank.is_same(second, others, actor="sven", reason="x")
    run = app.test_cli_runner()
    said = run.invoke(args=["bank", "same", str(second), "--as", str(first), "--actor", "sven", "--reason", "booked a day later"])
    assert (said.exit_code, said.output) == (0, "100.00 EUR counts once.\n")
    assert (credited(), balance(demo_customer)) == ((101_00, 1_00), 100_00)
    with pytest.raises(DoubtError, match="does not wait any more"):
        bank.is_same(first, [second + 1], actor="sven", reason="x")
    assert whole()


# Whatever is told in whatever pieces

DAY = st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["anna", "who", ""]), st.integers(0, 3)), min_size=2, max_size=7)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAY, st.lists(st.sampled_from(["sums", "batches", "singles", "MT940"]), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_a_day_in_whatever_pieces_is_never_credited_twice(app: Flask, day: list[tuple[int, str, int]], ways: list[str], order: random.Random):
    mark, today = next(_openings), (date(2020, 1, 1) + timedelta(days=next(_days))).isoformat()
    user = person(f"anna{mark}", profile=BERLIN)
    lines = [
        (Transfer(euros * 1_00, text=f"login {text}{mark}" if text == "anna" else text, sender="Jan", end_to_end=f"E{mark}-{place}", day=today), batch)
        for place, (euros, text, batch) in enumerate(day)
    ]
    groups = [tuple(line for line, batch in lines if batch == number) for number in range(1, 4)]
    alone = [line for line, batch in lines if not batch]
    pieces = {
        "sums": [Batch(group, shown=False, day=today) for group in groups if group],
        "batches": [Batch(group, day=today) for group in groups if group],
        "singles": [line for group in groups for line in group],
        "MT940": [line for group in groups for line in group],
    }
    opening = mark * 1_000_00
    for way in ways:
        told = [*pieces[way], *alone]
        order.shuffle(told)
        take(mt940(told, opening=opening, day=today) if way == "MT940" else camt(told, replace(GERMAN, opening=opening, day=today, id=way)))
    truth = sum(line.minor for line, _ in lines)
    paid = sum(line.minor for line, _ in lines if line.text == f"login anna{mark}")
    assert balance(user) in ({paid} if set(ways) - {"sums"} else {sum(line.minor for line in alone if line.text == f"login anna{mark}")})
    assert db.scalar("select sum(amount)::bigint from bank_lines where file = 'file.xml' and end_to_end like %(mark)s and state = 'matched'", mark=f"E{mark}-%") == (
        balance(user) or None
    )
    assert truth >= balance(user)
    assert whole()


# The bank's own balances


def test_the_books_hold_what_the_bank_says(app: Flask, demo_customer: User):
    assert take(camt([ANNA])).differing == []
    take(advice([Transfer(3_00, text="?", reference="X")]))
    (found,) = bank.differences()
    assert found.sentence == f"{EUR_ACCOUNT}: after 2026-11-19 until 2026-11-20 the bank moved 100.00 EUR, the books 103.00 EUR: 3.00 EUR too much."
    line = next(line.id for line in bank.unmatched())
    run = app.test_cli_runner()
    assert f"DIFFERS: {found.sentence}" in run.invoke(args=["bank", "unmatched"]).output
    assert f"{found.mark}  DIFFERS  {found.sentence}" in run.invoke(args=["bank", "gaps"]).output
    assert 'client_area_bank_difference_minor{account="DE89370400440532013000"} 300' in app.test_client().get("/metrics").text
    with pytest.raises(DoubtError):
        bank.is_same(line, [db.scalar("select id from bank_lines where bank_reference = 'R-1'")], actor="sven", reason="x")


def test_money_told_later_than_its_statement_is_no_difference(app: Flask):
    take(camt([ANNA]))
    take(advice([replace(WHO, day="2026-11-23")]))
    assert bank.differences() == []
    take(camt([replace(WHO, day="2026-11-23")], replace(GERMAN, opening=1_100_00, day="2026-11-23")))
    assert (bank.differences(), bank.gaps()) == ([], [])


def test_what_a_missing_statement_explains_is_told_once(app: Flask):
    take(camt([ANNA]))
    report = take(camt([replace(WHO, day="2026-11-24")], replace(GERMAN, opening=1_120_00, day="2026-11-24", id="2")))
    assert (len(report.missing), report.differing) == (1, [])
    take(advice([Transfer(20_00, text="in between", reference="G", day="2026-11-23")]))
    assert bank.differences() == []
    take(advice([Transfer(1_00, text="more", reference="H", day="2026-11-23")]))
    assert [found.sentence[-20:].strip(": ") for found in bank.differences()] == ["1.00 EUR too much."]


def test_what_stays_missing_is_acknowledged_with_a_name_and_a_reason(app: Flask, staff: Browser):
    take(camt([ANNA]))
    take(camt([replace(WHO, day="2026-11-24")], replace(GERMAN, opening=1_120_00, day="2026-11-24", id="2")))
    (gap,) = bank.gaps()
    run = app.test_cli_runner()
    for actor, reason, mark, says in (("", "x", gap.mark, "Say who you are"), ("sven", " ", gap.mark, "Say who you are"), ("sven", "x", "nothing", "is called nothing")):
        with pytest.raises(ValueError, match=says):
            bank.acknowledge(mark, actor=actor, reason=reason)
    done = run.invoke(args=["bank", "acknowledge", gap.mark, "--actor", "sven", "--reason", "the bank has none"])
    assert (done.exit_code, done.output) == (0, f"Acknowledged: {gap.sentence}\n")
    assert run.invoke(args=["bank", "acknowledge", gap.mark, "--actor", "sven", "--reason", "twice"]).exit_code == 2
    assert (bank.gaps(), bank.differences()) == ([], [])
    (kept,) = bank.acknowledged()
    assert (kept.sentence, kept.actor, kept.reason) == (gap.sentence, "staff:sven", "the bank has none")
    assert "the bank has none" in run.invoke(args=["bank", "gaps"]).output
    assert "the bank has none" in staff.get("/staff/bank").text
    assert take(camt([replace(WHO, day="2026-11-25")], replace(GERMAN, opening=1_130_00, day="2026-11-25", id="3"))).missing != [], "another gap is another thing"


# The page


def test_support_says_that_it_is_the_same_or_that_they_are_two(demo_customer: User, staff: Browser):
    take(advice(SINGLES))
    take(statement([SUM]))
    (sum_,) = [line for line in bank.unmatched() if line.amount == 105_00]
    at = f"/staff/bank/{sum_.id}"
    page = staff.get(at).text
    for said in ("Is it the same money?", "It is the same money", "They are separate payments", "100.00", "5.00"):
        assert said in page
    assert 'value="credit"' not in page
    assert staff.submit(at, {"decision": "two", "reason": ""}).status_code == 422
    assert staff.submit(at, {"decision": "same", "reason": "the slip"}).status_code == 303
    assert staff.get(at).status_code == 404
    assert credited() == (105_00, 5_00)
    take(advice([Transfer(9_00, text="x", sender="Jan", iban="", reference="A1"), Transfer(3_00, text="y", sender="Jan", iban="", reference="A2")]))
    take(statement([Transfer(12_00, text="z", sender="", iban="", reference="A3")], id="9"))
    (other,) = [line for line in bank.unmatched() if line.amount == 12_00]
    assert staff.submit(f"/staff/bank/{other.id}", {"decision": "two", "reason": "two slips"}).status_code == 303
    waits = staff.get(f"/staff/bank/{other.id}").text
    assert "You said that they are separate payments. A second person must confirm this." in waits
    assert 'value="two"' not in waits
    bank.are_two(other.id, actor="rita", reason="two slips")
    assert 'value="credit"' in staff.get(f"/staff/bank/{other.id}").text


def test_support_acknowledges_what_stays_missing(staff: Browser):
    take(camt([ANNA]))
    take(camt([replace(WHO, day="2026-11-24")], replace(GERMAN, opening=1_120_00, day="2026-11-24", id="2")))
    (gap,) = bank.gaps()
    at = f"/staff/bank/gaps/{gap.mark}"
    assert gap.sentence in staff.get(at).text
    assert staff.submit(at, {"reason": ""}).status_code == 422
    assert staff.submit(at, {"reason": "The bank has none"}).status_code == 303
    page = staff.get("/staff/bank").text
    assert "staff:sven" not in page
    assert "The bank has none" in page
    assert (bank.gaps(), bank.acknowledged()[0].actor, staff.get(at).status_code) == ([], "staff:sven", 404)
