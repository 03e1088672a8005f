"""Transfers of ours: the file for the bank, the line that closes them, the one that brings them back, and money sent back to its sender."""

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from lxml import etree

import config
from app import bank, clock, db, payments, refunds, wallet
from app.bank import PayoutError, pain
from app.customers import User
from app.money import Money
from tests.banks import ADVICE, EUR_ACCOUNT, GERMAN, SENDER, Batch, Transfer, camt, mt940
from tests.conftest import Browser, person, sign_in
from tests.money_helpers import EUR
from tests.pay import topup
from tests.test_bank import balance, held, take, whole
from tests.test_held import arrived

RULES = etree.XMLSchema(etree.parse(Path(__file__).parent / "data" / "pain.001.xsd"))
SAM, RITA = "staff:sam", "staff:rita"


def approved(user: User, minor: int = 30_00, holder: str = "Anna Müller & Söhne") -> str:
    """A refund of a transfer that two people approved."""
    assert user.customer_id
    bill = topup(user, Money.of("100", "EUR"))
    take(camt([Transfer(100_00, structured=bill.payment_reference or "", reference=bill.number)], replace(ADVICE, id=bill.number)))
    public_id = db.scalar("select public_id from payments where bill_id = %(id)s", id=bill.id)
    number = refunds.request(user.customer_id, public_id, Money(minor, "EUR"), "", iban=SENDER, holder=holder)
    for actor in (SAM, RITA):
        refunds.approve(number, actor=actor)
    return number


@pytest.fixture
def payout(app: Flask, demo_customer: User) -> str:
    """A refund of € 30 that waits to be paid by hand."""
    return approved(demo_customer)


def state(number: str) -> str:
    return db.scalar("select state from refunds where number = %(number)s", number=number)


def out(number: str, minor: int = 30_00, **more) -> Transfer:
    return Transfer(-minor, end_to_end=number, sender="Anna", day="2026-11-24", **more)


# The file


def test_the_file_is_what_the_rules_say_and_each_payout_stands_in_one(payout: str, tmp_path, app: Flask):
    file = tmp_path / "TEST-payouts.xml"
    run = app.test_cli_runner()
    said = run.invoke(args=["bank", "payouts", "--out", str(file)]).output
    message = f"TEST-PAY-{clock.today():%Y%m%d}-0001"
    assert said.startswith(f"{message}: 1 transfer, 30.00 EUR from {EUR_ACCOUNT}")
    written = file.read_bytes()
    document = etree.fromstring(written)
    RULES.assertValid(document)
    texts = {element.tag.rpartition("}")[2]: element.text for element in document.iter() if element.text and element.text.strip()}
    assert (texts["CtrlSum"], texts["NbOfTxs"], texts["EndToEndId"], texts["InstdAmt"], texts["Ustrd"]) == ("30.00", "1", payout, "30.00", f"{payout} Northbyte Hosting GmbH")
    assert [name.text for name in document.iterfind(".//{*}Cdtr/{*}Nm")] == ["Anna Mueller + Soehne"]
    assert "No payout in EUR waits" in run.invoke(args=["bank", "payouts", "--out", str(tmp_path / "none.xml")]).output
    assert not (tmp_path / "none.xml").exists()
    file.unlink()
    run.invoke(args=["bank", "payouts", "--out", str(file), "--again", message])
    assert file.read_bytes() == written
    assert run.invoke(args=["bank", "payouts", "--out", str(file), "--again", "PAY-1"]).output == "There is no payment file PAY-1.\n"


def test_a_file_that_cannot_be_written_takes_no_payout_with_it(payout: str, tmp_path: Path, app: Flask, monkeypatch: pytest.MonkeyPatch):
    run = app.test_cli_runner()
    told = run.invoke(args=["bank", "payouts", "--out", str(tmp_path / "nowhere" / "payouts.xml")])
    assert (told.exit_code, f"Nothing can be written in the folder {tmp_path / 'nowhere'}." in told.output) == (2, True)
    assert db.scalar("select count(*) from bank_payouts") == 0
    full, file = OSError(28, "No space left on device"), tmp_path / "TEST-payouts.xml"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(full))
        told = run.invoke(args=["bank", "payouts", "--out", str(file)])
    message = db.scalar("select message from bank_payout_files")
    assert told.exit_code == 2
    assert told.output == f"{message} could not be written to {file}: No space left on device. Its payouts stand in it: write it by --again {message}.\n"
    assert run.invoke(args=["bank", "payouts", "--out", str(file), "--again", message]).exit_code == 0
    assert payout.encode() in file.read_bytes()


def test_the_sum_is_of_all_and_what_is_asked_for_later_stands_in_the_next_file(demo_customer: User):
    first = [approved(demo_customer, minor) for minor in (10_01, 20_02)]
    file = bank.payouts.export("EUR")
    assert file
    assert (file.count, file.total) == (2, EUR("30.03"))
    assert b"<CtrlSum>30.03</CtrlSum>" in file.content
    later = approved(demo_customer, 5_00)
    again = bank.payouts.export("EUR")
    assert again
    assert later.encode() in again.content
    assert not any(number.encode() in again.content for number in first)
    with pytest.raises(PayoutError, match="no bank account in CHF"):
        bank.payouts.export("CHF")


def test_what_stands_in_a_file_can_be_declined_no_more(payout: str):
    bank.payouts.export("EUR")
    with pytest.raises(refunds.RefundError):
        refunds.decline(payout, actor=SAM, answer="Too late")


def test_what_the_bank_did_not_carry_out_is_back_and_a_line_that_shows_it_after_all_waits(demo_customer: User, payout: str, staff):
    with pytest.raises(refunds.RefundError, match="not with the bank"):
        refunds.refused(payout, "Account closed", actor=SAM)
    bank.payouts.export("EUR")
    page = f"/staff/refunds/{payout}"
    assert "The bank refused it" in staff.get(page).text
    assert "Write down what the bank said" in staff.submit(page, {"decision": "refused"}).text
    assert staff.submit(page, {"decision": "refused", "answer": "Account closed"}).status_code == 303
    assert state(payout) == "approved"
    assert "You said that the bank refused it. A second person must confirm this." in staff.get(page).text
    assert refunds.refused(payout, "Account closed", actor=RITA)
    assert (state(payout), wallet.state(demo_customer.customer_id).on_hold) == ("failed", 0)
    assert "Account closed" in refunds.case(payout).refund.steps[-1].note
    bank.import_file(camt([out(payout)]), "late.xml")
    assert db.scalar("select reason_code from bank_lines order by id desc limit 1") == "payout_not_due"
    assert refunds.payouts("EUR") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Łukasz Żółć", "Lukasz Zolc"),
        ("//x <b>", "x .b."),
        ("Иван", "...."),
        ("O’Brien & Co_1", "O'Brien + Co-1"),
        ("a\tb\nc", "a.b.c"),
        ("x" * 90, "x" * 70),
        ("", "."),
        ("François ß", "Francois ss"),
    ],
)
def test_names_are_written_in_letters_every_bank_takes(text: str, says: str):
    assert pain.latin(text, pain.LONGEST_NAME) == says


def test_an_account_without_an_iban_pays_by_its_number(app: Flask):
    account = next(each for each in config.current().bank_accounts if each.currency == "USD")
    content = pain.write("PAY-20261124-0001", clock.now(), account, [pain.Order("RF-000001", Money(5_00, "USD"), SENDER, "Ann", "x")])
    RULES.assertValid(etree.fromstring(content))
    assert b"<Othr>" in content
    found = etree.fromstring(content)
    assert (found.findtext(".//{*}MmbId"), found.findtext(".//{*}DbtrAcct/{*}Id/{*}Othr/{*}Id")) == ("026073150", "8310567890")
    assert found.findtext(".//{*}ClrSysId/{*}Cd") == "USABA"
    assert b"<ChrgBr>SHAR</ChrgBr>" in content


# Left, and back


WAYS = {
    "camt": lambda number: camt([out(number, text=f"{number} Northbyte", reference="TX-9")], replace(GERMAN, id="2", day="2026-11-24")),
    "MT940": lambda number: mt940([out(number, text=f"{number} Northbyte", reference="TX-9")], day="2026-11-24"),
    "in the text, without its dash": lambda number: camt([Transfer(-30_00, text=f"refund {number.replace('-', ' ')}", reference="TX-9")], replace(GERMAN, id="2")),
    "in a batch": lambda number: camt([Batch((out(number), out("NONE", 7_00)), reference="TX-9")], replace(GERMAN, id="2")),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_line_that_shows_it_left_closes_a_payout(demo_customer: User, payout: str, way: str):
    bank.payouts.export("EUR")
    assert take(WAYS[way](payout)).counts["payout"] == 1
    (refund,) = refunds.of_customer(demo_customer.customer_id)
    assert (refund.state, wallet.state(demo_customer.customer_id).on_hold) == ("settled", 0)
    assert held("suspense") == (-7_00 if way == "in a batch" else 0)
    assert refund.steps[-2].note.startswith("Bank's reference ")
    assert take(WAYS[way](payout)).counts.get("payout") is None
    assert whole()


def test_the_sum_of_a_file_closes_all_of_it(demo_customer: User):
    numbers = [approved(demo_customer, minor) for minor in (10_00, 20_00)]
    file = bank.payouts.export("EUR")
    assert file
    assert take(camt([Transfer(-30_00, text=f"SAMMLER {file.message}", iban="", sender="")], replace(GERMAN, id="2"))).counts == {"payout": 1}
    assert ([state(number) for number in numbers], held("suspense"), held("hold")) == (["settled", "settled"], 0, 0)


def test_a_payout_a_person_had_noted_is_closed_once(payout: str):
    refunds.mark_paid(payout, reference="TX-9", actor=SAM)
    assert held("suspense") == 30_00
    assert take(WAYS["camt"](payout)).counts == {"payout": 1}
    assert held("suspense") == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (lambda number: out(number, 31_00), "which is 30.00 EUR."),
        (lambda number: out(number, iban="NL91ABNA0417164300"), "which goes to another account."),
        (lambda number: out("RF-000099"), "Money that left the account."),
    ],
)
def test_a_line_that_is_not_that_payout_waits_with_the_reason(payout: str, line, says: str):
    take(camt([line(payout)], replace(GERMAN, id="2")))
    (waiting,) = bank.unmatched()
    assert waiting.reason.endswith(says)
    assert state(payout) == "approved"


BACK = {
    "RRTN": lambda number: Transfer(30_00, end_to_end=number, family="RRTN", day="2026-11-25"),
    "a reversal": lambda number: Transfer(30_00, end_to_end=number, reversal=True, day="2026-11-25"),
    "with its reason": lambda number: Transfer(30_00, end_to_end=number, return_reason="AC04", day="2026-11-25"),
}


@pytest.mark.parametrize("how", BACK)
@pytest.mark.parametrize("first", ["left", "back", "at once"])
def test_a_payout_that_comes_back_is_on_the_balance_again(demo_customer: User, payout: str, how: str, first: str):
    files = {"left": [out(payout)], "back": [BACK[how](payout)]}
    steps = [files["back"] + files["left"]] if first == "at once" else [files["left"], files["back"]] if first == "left" else [files["back"], files["left"]]
    for place, lines in enumerate(steps):
        take(camt(lines, replace(ADVICE, id=str(place))))
    assert (state(payout), balance(demo_customer), held("suspense"), held("hold"), held("bank")) == ("failed", 100_00, 0, 0, -100_00)
    assert db.scalar("select count(*) from mails where kind = 'refund_step' and subject like '%%came back%%'") == 1
    assert bank.unmatched() == []
    assert whole()


# What the bank says of a file


def report(message: str, *transfers: tuple[str, str, str], group: str = "") -> bytes:
    """A pain.002 of a file: the end-to-end id, status and reason of each transfer it tells of."""
    each = "".join(
        f"<TxInfAndSts><OrgnlEndToEndId>{number}</OrgnlEndToEndId><TxSts>{status}</TxSts>{f'<StsRsnInf><Rsn><Cd>{code}</Cd></Rsn></StsRsnInf>' if code else ''}</TxInfAndSts>"
        for number, status, code in transfers
    )
    head = f"<OrgnlGrpInfAndSts><OrgnlMsgId>{message}</OrgnlMsgId>{f'<GrpSts>{group}</GrpSts>' if group else ''}</OrgnlGrpInfAndSts>"
    part = f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{message}</OrgnlPmtInfId>{each}</OrgnlPmtInfAndSts>"
    return f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.03"><CstmrPmtStsRpt>{head}{part if each else ""}</CstmrPmtStsRpt></Document>'.encode()


def test_what_the_bank_rejects_is_undone_with_its_reason_and_what_it_accepts_is_noted(app: Flask, demo_customer: User, tmp_path):
    first, second = (approved(demo_customer, minor) for minor in (10_00, 20_00))
    file = bank.payouts.export("EUR")
    assert file
    said = report(file.message, (first, "RJCT", "AC04"), (second, "ACSP", ""))
    told = tmp_path / "status.xml"
    told.write_bytes(said)
    run = app.test_cli_runner().invoke(args=["bank", "status", str(told)])
    assert run.output.splitlines() == [f"{first}  rejected  The account is closed.", f"{second}  accepted"]
    assert ((state(first), state(second)), balance(demo_customer), held("hold")) == (("failed", "approved"), 180_00, 20_00)
    assert [outcome.state for outcome in bank.reports.take_in(said)] == ["unchanged", "unchanged"]
    notes = [row.note for row in db.rows("select note from refund_events where actor = 'bank' order by id")]
    assert notes.count(f"The bank accepted {file.message}.") == 1
    assert "The account is closed." in db.scalar("select body_text from mails where kind = 'refund_step' and subject like '%%did not go through%%'")
    take(camt([out(second, 20_00)], replace(GERMAN, id="2")))
    assert [outcome.state for outcome in bank.reports.take_in(report(file.message, (second, "RJCT", "AC04")))] == ["contradiction"]
    assert state(second) == "settled"
    assert whole()


def test_a_file_that_is_rejected_whole_is_undone_whole(demo_customer: User):
    numbers = [approved(demo_customer, minor) for minor in (10_00, 20_00)]
    file = bank.payouts.export("EUR")
    assert file
    assert {outcome.state for outcome in bank.reports.take_in(report(file.message, group="RJCT"))} == {"rejected"}
    assert ({state(number) for number in numbers}, balance(demo_customer)) == ({"failed"}, 200_00)


def test_money_that_goes_back_and_is_rejected_waits_again(stray: int):
    number = bank.payouts.send_back(stray, SENDER, "Ida", actor=SAM, reason="Not ours")
    bank.payouts.approve(number, actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    for _ in range(2):
        bank.reports.take_in(report(file.message, (number, "ACTC", "")))
    standing = bank.payouts.standing(stray)
    assert standing
    assert [step.state for step in standing.steps] == ["requested", "approved", "accepted"]
    bank.reports.take_in(report(file.message, (number, "RJCT", "")))
    assert (bank.payouts.standing(stray), bank.unmatched()[0].id) == (None, stray)


def test_held_money_that_was_rejected_and_is_sent_once_more_stands_in_another_file(app: Flask, demo_customer: User):
    _, number = arrived(app, demo_customer, EUR("50"), EUR("60"), "other-crypto")

    def send() -> bank.payouts.File:
        for actor in (SAM, RITA):
            refunds.release(number, "return", actor=actor, reason="Not ours", iban=SENDER if actor == SAM else "", holder="Anna" if actor == SAM else "")
        file = bank.payouts.export("EUR")
        assert file
        return file

    first = send()
    bank.reports.take_in(report(first.message, (number, "ACTC", "")))
    assert bank.reports.take_in(report(first.message, (number, "RJCT", "AC01")))[0].state == "rejected"
    second = send()
    assert number.encode() in second.content
    assert bank.reports.take_in(report(first.message, (number, "RJCT", "AC01")))[0].state == "unchanged", "the report of the first file says nothing of the second"
    assert bank.payouts.export("EUR") is None
    assert take(camt([out(number, 60_00)], replace(ADVICE, id="9"))).counts == {"payout": 1}
    assert whole()


FIRM = ["ACCP", "ACSP", "ACSC", "ACCC"]


@pytest.mark.parametrize("code", ["AM05", "DUPL", "DU03"])
@pytest.mark.parametrize("of_all", [True, False])
def test_a_copy_that_the_bank_rejects_undoes_nothing(app: Flask, demo_customer: User, payout: str, code: str, of_all: bool):
    file = bank.payouts.export("EUR")
    assert file
    said = report(file.message, group="RJCT") if of_all else report(file.message, (payout, "RJCT", code))
    if of_all:
        said = said.replace(b"</GrpSts>", f"</GrpSts><StsRsnInf><Rsn><Cd>{code}</Cd></Rsn></StsRsnInf>".encode())
    for _ in range(2):
        assert [outcome.state for outcome in bank.reports.take_in(said)] == ["contradiction"]
    assert (state(payout), balance(demo_customer), held("hold")) == ("approved", 70_00, 30_00)
    assert [(open_.number, open_.kind, open_.reason_code) for open_ in bank.reports.contradictions()] == [(payout, "duplicate", code)]
    take(camt([out(payout)], replace(GERMAN, id="2")))
    assert state(payout) == "settled"
    assert whole()


@pytest.mark.parametrize("firm", FIRM)
def test_a_rejection_after_an_acceptance_undoes_nothing_and_is_shown_to_a_person(app: Flask, demo_customer: User, payout: str, firm: str):
    file = bank.payouts.export("EUR")
    assert file
    bank.reports.take_in(report(file.message, (payout, firm, "")))
    (said,) = bank.reports.take_in(report(file.message, (payout, "RJCT", "AC04")))
    assert (said.state, state(payout), balance(demo_customer)) == ("contradiction", "approved", 70_00)
    staff = sign_in(app.test_client(), person("sam", role="support"))
    assert f"The bank contradicts itself about {payout}." in staff.get("/staff/bank").text
    run = app.test_cli_runner()
    listed = run.invoke(args=["bank", "contradictions"])
    assert (listed.exit_code, listed.output.split()[1]) == (1, payout)
    (contradiction,) = bank.reports.contradictions()
    assert contradiction.kind == "rejected_after_acceptance"
    by = ["bank", "looked-at", str(contradiction.id), "--note", "They did not pay it"]
    assert run.invoke(args=[*by, "--actor", "nobody"]).exit_code == 2
    assert run.invoke(args=[*by, "--actor", "sam"]).exit_code == 0
    assert run.invoke(args=["bank", "contradictions"]).exit_code == 0
    assert run.invoke(args=[*by, "--actor", "sam"]).exit_code == 2, "once"
    with pytest.raises(psycopg.errors.RestrictViolation), db.transaction():
        db.execute("update bank_payout_statuses set note = 'x' where looked_at is not null")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        db.execute("update bank_payout_statuses set contradiction = ''")


def test_an_acceptance_of_what_was_undone_is_shown_to_a_person(demo_customer: User, payout: str):
    file = bank.payouts.export("EUR")
    assert file
    bank.reports.take_in(report(file.message, (payout, "RJCT", "AC04")))
    assert [outcome.state for outcome in bank.reports.take_in(report(file.message, (payout, "ACSC", "")))] == ["contradiction"]
    assert (state(payout), [open_.kind for open_ in bank.reports.contradictions()]) == ("failed", ["accepted_after_undoing"])


def test_money_that_goes_back_after_a_contradiction_needs_two_people_to_wait_again(app: Flask, stray: int):
    number = bank.payouts.send_back(stray, SENDER, "Ida", actor=SAM, reason="Not ours")
    bank.payouts.approve(number, actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    with pytest.raises(bank.PayoutError, match="said nothing against"):
        bank.payouts.refused(number, "It was not paid", actor=RITA)
    for status in ("ACSP", "RJCT"):
        bank.reports.take_in(report(file.message, (number, status, "")))
    bank.reports.look_at(bank.reports.contradictions()[0].id, actor=SAM, note="Not paid")
    with pytest.raises(bank.PayoutError, match="Another person"):
        bank.payouts.refused(number, "It was not paid", actor=SAM)
    bank.payouts.refused(number, "It was not paid", actor=RITA)
    assert (bank.payouts.standing(stray), bank.unmatched()[0].id) == (None, stray)


ANOTHER = "NL91ABNA0417164300"


def test_a_refund_of_a_transfer_goes_to_its_sender_alone(demo_customer: User):
    number = approved(demo_customer)
    assert demo_customer.customer_id
    payment = db.row("select id, public_id from payments")
    assert payment
    found = payments.sender_of(payment.id)
    assert found
    assert (found.name, found.iban) == ("Anna Kowalska", SENDER)
    file = bank.payouts.export("EUR")
    assert file
    for actor in (SAM, RITA):
        refunds.refused(number, "Account closed", actor=actor)
    (source,) = refunds.refundable(demo_customer.customer_id)
    assert source.account is None, "the bank refused it there, so another account may be named"
    again = refunds.request(demo_customer.customer_id, payment.public_id, Money(30_00, "EUR"), "", iban=ANOTHER, holder="Anna")
    case = refunds.case(again)
    assert case
    assert case.refund.approvals_needed == 2


def test_another_account_is_refused_with_a_code(app: Flask, demo_customer: User):
    assert demo_customer.customer_id
    bill = topup(demo_customer, Money.of("100", "EUR"))
    take(camt([Transfer(100_00, structured=bill.payment_reference or "")]))
    public_id = db.scalar("select public_id from payments")
    page = sign_in(app.test_client(), demo_customer).get(f"/refunds?payment={public_id}").text
    assert "DE75 … 6199, Anna Kowalska" in page
    assert 'name="iban"' not in page
    with pytest.raises(refunds.RefundError, match="goes back to that account only") as refused:
        refunds.request(demo_customer.customer_id, public_id, Money(30_00, "EUR"), "", iban=ANOTHER, holder="Anna")
    assert (refused.value.code, refused.value.field) == ("not_the_sender", "iban")
    with pytest.raises(psycopg.errors.RestrictViolation, match="account it came from"), db.transaction():
        db.execute(
            "insert into refunds (number, payment_id, customer_id, lot_id, amount, currency, payout, payout_currency, reason, way, iban, holder, approvals_needed, requested_at, updated_at) "
            "select 'RF-9', p.id, p.customer_id, l.id, 1, 'EUR', 1, 'EUR', 'x', 'bank', %(iban)s, 'x', 2, now(), now() from payments p join lots l on l.payment_id = p.id",
            iban=ANOTHER,
        )
    number = refunds.request(demo_customer.customer_id, public_id, Money(30_00, "EUR"), "")
    assert tuple(db.rows("select iban, holder from refunds where number = %(number)s", number=number)[0]) == (SENDER, "Anna Kowalska")


def test_money_in_suspense_goes_back_to_its_sender_alone(stray: int):
    with pytest.raises(bank.PayoutError, match="goes back to that account only") as refused:
        bank.payouts.send_back(stray, ANOTHER, "Ida", actor=SAM, reason="Not ours")
    assert (refused.value.code, refused.value.field) == ("not_the_sender", "iban")
    with pytest.raises(psycopg.errors.RestrictViolation, match="account it came from"), db.transaction():
        db.execute(
            "insert into bank_returns (number, line_id, amount, currency, iban, holder, reason, requested_at, updated_at) values ('BR-9', %(line)s, 1, 'EUR', %(iban)s, 'x', 'x', now(), now())",
            line=stray, iban=ANOTHER,
        )  # fmt: skip
    number = bank.payouts.send_back(stray, "", "", actor=SAM, reason="Not ours")
    bank.payouts.approve(number, actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    bank.reports.take_in(report(file.message, (number, "RJCT", "AC04")))
    assert bank.payouts.send_back(stray, ANOTHER, "Ida", actor=SAM, reason="The account is closed") != number


def test_a_report_of_something_else_is_refused(payout: str):
    file = bank.payouts.export("EUR")
    assert file
    for data, says in (
        (report("PAY-1", group="RJCT"), "no payment file of ours"),
        (report(file.message, ("RF-999999", "RJCT", "")), "does not stand in"),
        (camt([]), "no pain.002"),
    ):
        with pytest.raises(bank.FileRefused, match=says):
            bank.reports.take_in(data)
    assert state(payout) == "approved"


# Back to its sender


@pytest.fixture
def stray(app: Flask) -> int:
    """A transfer nobody knows."""
    take(camt([Transfer(33_00, text="thanks", sender="Ida")]))
    return bank.unmatched()[0].id


def test_money_of_nobody_goes_back_by_two_people_and_a_file(stray: int):
    number = bank.payouts.send_back(stray, SENDER, "Ida", actor=SAM, reason="Not ours")
    for refused in (lambda: bank.payouts.approve(number, actor=SAM), lambda: bank.payouts.send_back(stray, SENDER, "Ida", actor=RITA, reason="Again")):
        with pytest.raises(PayoutError):
            refused()
    with pytest.raises(bank.BankError, match="on its way back"):
        bank.match_by_hand(stray, "anna", actor=SAM, reason="x")
    assert bank.payouts.export("EUR") is None
    bank.payouts.approve(number, actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    assert (file.count, file.total) == (1, EUR("33.00"))
    with pytest.raises(PayoutError, match="stands in a file"):
        bank.payouts.withdraw(number, actor=SAM, reason="It is anna's")
    assert take(camt([out(number, 33_00)], replace(GERMAN, id="2"))).counts == {"payout": 1}
    assert (bank.unmatched(), held("suspense"), held("bank")) == ([], 0, 0)
    take(camt([replace(BACK["RRTN"](number), minor=33_00, day="2026-11-25")], replace(GERMAN, id="3", day="2026-11-25")))
    (waiting,) = bank.unmatched()
    assert (waiting.reason, held("suspense")) == (f"{number} came back to us.", 33_00)


def test_a_wish_can_be_taken_back_and_the_money_credited(demo_customer: User, stray: int):
    number = bank.payouts.send_back(stray, SENDER, "Ida", actor=SAM, reason="Not ours")
    bank.payouts.withdraw(number, actor=RITA, reason="She called")
    bank.match_by_hand(stray, "anna", actor=RITA, reason="She called")
    assert balance(demo_customer) == 33_00


@pytest.mark.parametrize(("entered", "field"), [({"iban": "DE1"}, "iban"), ({"holder": "x"}, "holder"), ({"reason": " "}, "reason")])
def test_where_it_goes_and_why_is_asked_for(stray: int, entered: dict[str, str], field: str):
    given = {"iban": SENDER, "holder": "Ida", "reason": "Not ours", **entered}
    with pytest.raises(PayoutError) as refused:
        bank.payouts.send_back(stray, given["iban"], given["holder"], actor=SAM, reason=given["reason"])
    assert refused.value.field == field


# The page


@pytest.fixture
def rita(app: Flask) -> Browser:
    """Another one of support."""
    return sign_in(app.test_client(), person("rita", role="support", name="Rita"))


def test_support_sees_what_waits_and_credits_it(demo_customer: User, staff: Browser, stray: int):
    take(camt([Transfer(5_00, text="x", day="2026-11-25")], replace(GERMAN, opening=9_99, opened="2026-11-24", day="2026-11-25", id="7")))
    page = staff.get("/staff/bank").text
    for said in ("Ida", "thanks", "Nothing in it names a bill or a login.", "A statement is missing.", "day"):
        assert said in page
    assert "/staff/bank" in staff.get("/staff/refunds").text
    assert staff.submit(f"/staff/bank/{stray}", {"decision": "credit", "login": "anna", "reason": ""}).status_code == 422
    assert "No customer logs in as nobody" in staff.submit(f"/staff/bank/{stray}", {"decision": "credit", "login": "nobody", "reason": "x"}).text
    assert staff.submit(f"/staff/bank/{stray}", {"decision": "credit", "login": "Anna", "reason": "She called"}).status_code == 303
    assert balance(demo_customer) == 33_00
    assert tuple(db.rows("select actor, reason from bank_lines where state = 'matched'")[0]) == ("staff:sven", "She called")
    assert staff.get(f"/staff/bank/{stray}").status_code == 404


def test_two_of_support_send_it_back(staff: Browser, rita: Browser, stray: int):
    at = f"/staff/bank/{stray}"
    assert 'id="iban-error"' in staff.submit(at, {"decision": "return", "iban": "x", "holder": "Ida", "reason": "Not ours"}).text
    staff.submit(at, {"decision": "return", "iban": SENDER, "holder": "Ida", "reason": "Not ours"})
    assert "Another person has to approve it." in staff.get(at).text
    assert "BR-000001 waits for another person." in rita.get("/staff/bank").text
    assert staff.submit(at, {"decision": "approve"}).status_code == 422
    assert rita.submit(at, {"decision": "approve"}).status_code == 303
    assert "It leaves with the next payment file" in rita.get(at).text
    assert rita.submit(at, {"decision": "dance"}).status_code == 400
    assert "BR-000001 leaves with the next payment file." in staff.get("/staff/bank").text
    assert rita.submit(at, {"decision": "withdraw", "reason": "She called"}).status_code == 303
    assert "Nothing in it names a bill or a login." in staff.get("/staff/bank").text


def test_what_goes_back_names_the_file_it_stands_in(app: Flask, staff: Browser, stray: int):
    bank.payouts.approve(bank.payouts.send_back(stray, SENDER, "Ida", actor=SAM, reason="Not ours"), actor=RITA)
    file = bank.payouts.export("EUR")
    assert file
    page = staff.get(f"/staff/bank/{stray}").text
    assert f"It stands in the payment file {file.message}: do not transfer it once more." in page
    assert "Take it back" not in page
    said = f"BR-000001 stands in the payment file {file.message}."
    assert said in staff.get("/staff/bank").text
    assert said in app.test_cli_runner().invoke(args=["bank", "unmatched"]).output


def test_the_metrics_say_what_waits(app: Flask, stray: int):
    text = app.test_client().get("/metrics").text
    for line in ('client_area_bank_suspense_minor{currency="EUR"} 3300', "client_area_bank_gaps 0", "client_area_bank_suspense_oldest_days "):
        assert line in text


def test_a_customer_sees_that_a_transfer_was_taken_back(owner: Browser, demo_customer: User):
    bill = topup(demo_customer, Money.of("100", "EUR"))
    address = owner.submit(f"/invoices/{bill.number}/pay", {"method": "bank-transfer"}).headers["Location"]
    assert "You may write <b>login anna</b> instead." in owner.get(address).text
    take(camt([Transfer(100_00, structured=bill.payment_reference or "", end_to_end="E-1")]))
    take(camt([Transfer(-100_00, family="RRTN", end_to_end="E-1", day="2026-11-24")], replace(ADVICE, id="2")))
    page = owner.get(address).text
    assert "Your transfer was taken back" in page
    assert "Taken back by the sender&#39;s bank" in page
    assert "Taken back by the sender&#39;s bank" in owner.get("/invoices/TU-2026-000001").text
    assert payments.find(bill.customer_id, address.rsplit("/", 1)[1]).state == "taken_back"
