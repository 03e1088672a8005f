"""Whose money it is: what names a customer, what only looks like it, and what one file says twice."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import bank, db, invoicing, payments, remittance
from app.bank import candidates
from app.customers import User
from app.invoicing import Bill, Draft, Line
from app.money import Money
from tests.banks import ADVICE, DUTCH, GERMAN, INTRADAY, SENDER, Transfer, camt, mt940
from tests.conftest import BERLIN, person, sign_in
from tests.pay import topup
from tests.test_bank import balance, bill_now, held, paying, take, whole

STRANGER = "NL91ABNA0417164300"
_files = count()


def come(text: str, minor: int = 100_00, **more) -> dict[str, int]:
    """Import one transfer of a stranger; what became of it."""
    name = f"N{next(_files)}"
    return take(camt([Transfer(minor, text=text, **{"iban": STRANGER, "sender": "Jan Nowak", "reference": name, **more})], replace(ADVICE, id=name))).counts


def why() -> list[str]:
    return [line.reason_code for line in bank.unmatched()]


@pytest.fixture
def bill(app: Flask, demo_customer: User) -> Bill:
    """PF-2026-000013, an unpaid top-up of € 100."""
    for _ in range(12):
        issue(demo_customer, 1_00)
    return issue(demo_customer, 100_00)


def issue(user: User, minor: int) -> Bill:
    assert user.customer_id
    with db.transaction():
        (bill,) = invoicing.issue_many([Draft(user.customer_id, "Account funds", "EUR", (Line("Account funds", minor),), kind="topup")])
    return bill


# A login


@pytest.mark.parametrize(("login", "text"), [
    ("inv-2026-000269", "Invoice INV-2026-000269"), ("inv-2026-000269", "login inv-2026-000269"), ("4711", "Kunde 4711"), ("4711", "login 4711"), ("nov-2026", "nov-2026"),
    ("nov-2026", "Login: nov-2026"), ("acme", "acme"), ("acme", "Kunde acme"), ("acme", "Konto acme"), ("acme", "Account: ACME GmbH"), ("acme", "customer acme"), ("2026-11", "login 2026-11"),
    ("januar", "Miete Januar"), ("pf2026", "login pf2026"), ("maerz2026", "Konto: maerz2026"), ("q4-2026", "login q4-2026"),
])  # fmt: skip
def test_a_word_that_happens_to_be_a_login_credits_nobody(app: Flask, login: str, text: str):
    thief = person(login, profile=BERLIN)
    assert come(text) == {"suspense": 1}
    assert (balance(thief), held("suspense")) == (0, 100_00)


@pytest.mark.parametrize(
    "login",
    [
        "inv-2026-000269",
        "pf-2026-000005",
        "rf18000000",
        "nov-2026",
        "2026-nov",
        "november",
        "nov",
        "dez.2026",
        "maerz",
        "lipiec",
        "4711",
        "12.30",
        "2026_11",
        "q4-2026",
        "kw48",
        "tu-12",
        "janvier2026",
    ],
)
def test_shapes_that_name_no_money(login: str):
    assert not remittance.names_money(login)
    assert remittance.for_login(login) == ""


@pytest.mark.parametrize("login", ["anna", "acme", "bob-2", "anna.kowalska", "may-smith", "web4you", "x-ray", "annajan"])
def test_ordinary_logins_name_money(login: str):
    assert remittance.names_money(login)
    assert remittance.logins(remittance.for_login(login)) == [login]


def test_only_a_confirmed_login_of_an_open_account_names_money(app: Flask):
    new = person("nora", profile=BERLIN, verified=False)
    gone = person("gerd", profile=BERLIN)
    with db.transaction():
        db.execute("update users set disabled_at = now() where id = %(id)s", id=gone.id)
    assert [come(f"login {user.login}") for user in (new, gone)] == [{"suspense": 1}] * 2
    assert why() == ["not_found"] * 2


def test_what_the_page_asks_payers_to_write_is_what_credits_them(owner, demo_customer: User):
    bill = topup(demo_customer, Money.of("100", "EUR"))
    page = owner.get(owner.submit(f"/invoices/{bill.number}/pay", {"method": "bank-transfer"}).headers["Location"]).text
    assert "You may write <b>login anna</b> instead." in page
    assert come(remittance.for_login("anna"), 7_00) == {"matched": 1}
    assert balance(demo_customer) == 7_00


def test_a_login_cut_by_the_bank_is_not_read_as_a_shorter_one(demo_customer: User):
    person("annaberg", profile=BERLIN)
    text = "add funds, please: x, y: login anna" + "berg"
    assert len(text) - 4 == 35
    assert come(text) == {"suspense": 1}
    assert (balance(demo_customer), why()) == (0, ["not_found"])


# A number


@pytest.mark.parametrize("text", [
    "PF-2026-0000130", "PF-2026-00001300", "PF-2026-000013-1", "PF-2026-000013/2", "PF-2026-000013A", "XPF-2026-000013", "Kopf 2026-000013", "PF-2026-000103", "PF-13", "PF-2025-000013",
    "12026-000013", "2026-0000130", "INV-2026-000013", "Auftrag 2026-000013", "login nobody", "RF-2026-000013",
])  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_what_names_something_else_waits_from_a_known_sender_too(demo_customer: User, bill: Bill, text: str, known: bool):
    if known:
        assert take(camt([Transfer(5_00, text="login anna")], replace(ADVICE, id="first"))).counts == {"matched": 1}
    before = balance(demo_customer)
    assert come(text, iban=SENDER if known else STRANGER) == {"suspense": 1}
    assert (balance(demo_customer), bill_now(bill).status) == (before, "unpaid")
    assert why() == ["not_found"]


def test_one_digit_too_many_does_not_match_the_shorter_number(demo_customer: User):
    bills = [issue(demo_customer, 50_00) for _ in range(5)]
    assert bills[-1].proforma_number == "PF-2026-000005"
    assert [come(text, 50_00) for text in ("PF-2026-0000050", "Kopf 2026-000005")] == [{"suspense": 1}] * 2
    assert balance(demo_customer) == 0


TOLERATED = [
    "PF-2026-00013",
    "PF-2026-13",
    "PF–2026–000013",
    "PF/2026/000013",
    "PF_2026_000013",
    "pf 2026 000013",
    "PF2026000013",
    "2026-000013",
    "Rechnung 2026-000013",
    "Invoice no. 2026/000013",
    "PF - 2026 - 000013",
]


@pytest.mark.parametrize("text", TOLERATED)
def test_another_spelling_pays_the_open_bill_of_exactly_that_sum(demo_customer: User, bill: Bill, text: str):
    assert bill.proforma_number == "PF-2026-000013"
    assert come(text, 99_99) == {"suspense": 1}
    assert (why(), balance(demo_customer)) == (["not_exact"], 0)
    assert come(text) == {"matched": 1}
    assert (bill_now(bill).status, db.scalar("select rule from bank_lines where state = 'matched'")) == ("paid", "respelled number")
    assert come(text) == {"suspense": 1}, "it is paid"
    assert whole()


def test_another_spelling_pays_the_rest_of_a_bill(demo_customer: User, bill: Bill):
    take(camt([paying(bill, 60_00)]))
    assert come("PF 2026 13", 100_00) == {"suspense": 1}
    assert come("PF 2026 13", 40_00) == {"matched": 1}
    assert bill_now(bill).status == "paid"


def test_an_invoices_and_a_receipts_number_name_its_customer(demo_customer: User, bill: Bill):
    take(camt([paying(bill)]))
    paid = bill_now(bill)
    assert [come(f"Invoice {number}", 3_00 + place) for place, number in enumerate((paid.invoice_number, paid.receipt_number))] == [{"matched": 1}] * 2
    assert balance(demo_customer) == 100_00 + 3_00 + 3_01


def test_two_bills_of_one_transfer_wait_with_both_as_candidates(demo_customer: User, bill: Bill):
    other = issue(demo_customer, 50_00)
    assert come(f"{bill.proforma_number} {other.proforma_number}", 149_99) == {"suspense": 1}
    assert why() == ["several_bills"]
    (line,) = bank.unmatched()
    assert [(each.number, each.codes) for each in candidates.of_line(line.id)] == [(bill.proforma_number, ("named",)), (other.proforma_number, ("named",))]
    assert come(f"{bill.proforma_number} {other.proforma_number}", 50_00) == {"matched": 1}
    assert (bill_now(bill).status, bill_now(other).status) == ("unpaid", "paid")


@pytest.mark.parametrize(
    "text",
    [
        "{0.proforma_number} {1.proforma_number}",
        "{0.payment_reference} {1.payment_reference}",
        "{0.proforma_number} {1.payment_reference}",
        "{0.proforma_number}, 2026-000014",
    ],
)
def test_several_bills_whose_sum_is_exact_are_paid_each_with_its_own(demo_customer: User, bill: Bill, text: str):
    other = issue(demo_customer, 50_00)
    assert come(text.format(bill, other), 150_00, iban=SENDER) == {"matched": 1}
    assert [bill_now(each).status for each in (bill, other)] == ["paid", "paid"]
    assert (balance(demo_customer), held("suspense")) == (150_00, 0)
    paid = db.rows("select id, bill_id, received from payments where state = 'paid' order by bill_id")
    assert [(row.bill_id, row.received) for row in paid] == [(bill.id, 100_00), (other.id, 50_00)]
    assert [payments.sender_of(row.id) for row in paid] == [payments.Sender("Jan Nowak", SENDER)] * 2, "both go back to the sender's account alone"
    assert whole()


def test_a_transfer_for_two_bills_that_is_taken_back_takes_both_back(demo_customer: User, bill: Bill):
    other = issue(demo_customer, 50_00)
    text = f"{bill.proforma_number} {other.proforma_number}"
    assert come(text, 150_00, end_to_end="E2E-1") == {"matched": 1}
    assert come("returned", -150_00, end_to_end="E2E-1", return_reason="AC04", family="RRTN") == {"returned": 1}
    assert (balance(demo_customer), held("bank"), held("suspense")) == (0, 0, 0)
    assert whole()


def test_several_bills_that_are_not_all_open_wait(demo_customer: User, bill: Bill):
    other = issue(demo_customer, 50_00)
    assert come(str(other.proforma_number), 50_00) == {"matched": 1}
    assert come(f"{bill.proforma_number} {other.proforma_number}", 150_00) == {"suspense": 1}
    assert why() == ["several_bills"]


def test_a_login_pays_the_one_open_bill_of_exactly_that_sum(demo_customer: User, bill: Bill):
    assert come("login anna", 99_00) == {"matched": 1}
    assert bill_now(bill).status == "unpaid"
    assert come("login anna", 100_00) == {"matched": 1}
    assert bill_now(bill).status == "paid"
    assert balance(demo_customer) == 199_00
    twin, other = issue(demo_customer, 70_00), issue(demo_customer, 70_00)
    assert come("login anna", 70_00) == {"matched": 1}
    assert {bill_now(twin).status, bill_now(other).status} == {"unpaid"}, "nobody knows which of two"
    assert whole()


@pytest.mark.parametrize(
    "text", ["{0.payment_reference} {1.payment_reference}", "{0.proforma_number}, {1.proforma_number}", "{0.proforma_number} login bob", "login anna, login bob"]
)
def test_what_names_two_customers_waits(demo_customer: User, bill: Bill, text: str):
    other = issue(person("bob", profile=BERLIN), 50_00)
    assert come(text.format(bill, other)) == {"suspense": 1}
    assert why() == ["several_customers"]


# A known sender


def test_a_mistyped_reference_of_a_known_sender_waits_with_its_bill_as_candidate(app: Flask, demo_customer: User, bill: Bill):
    take(camt([paying(issue(demo_customer, 5_00))]))
    reference = bill.payment_reference or ""
    wrong = reference[:-1] + str((int(reference[-1]) + 1) % 10)
    for place, transfer in enumerate((Transfer(100_00, structured=wrong), Transfer(100_00, text=f"Ref {wrong}"), Transfer(100_00, end_to_end=wrong))):
        assert take(camt([replace(transfer, reference=f"W{place}")], replace(ADVICE, id=f"W{place}"))).counts == {"suspense": 1}
    assert (why(), bill_now(bill).status) == (["not_found"] * 3, "unpaid")
    found = candidates.of_line(bank.unmatched()[0].id)
    assert (found[0].number, found[0].login, found[0].codes, found[0].score) == (bill.number, "anna", ("near_number", "sender_account", "sender_name", "sum"), 100)
    staff = sign_in(app.test_client(), person("sam", role="support"))
    page = staff.get(f"/staff/bank/{bank.unmatched()[0].id}").text
    assert "Whose it may be" in page
    assert "one digit off" in page
    listed = app.test_cli_runner().invoke(args=["bank", "candidates", str(bank.unmatched()[0].id)]).output
    assert listed.startswith(f"100  anna  {bill.number}  100.00 EUR to pay")


def test_candidates_by_sum_and_name(demo_customer: User, bill: Bill):
    come("hello", sender="Kowalska, ANNA".replace(",", ""))
    found = candidates.of_line(bank.unmatched()[0].id)
    assert [(each.number, each.codes) for each in found] == [(bill.number, ("sender_name", "sum"))]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("PF-2026-000113", "PF-2026-000013"),
        ("PF-2026-0000130", "PF-2026-000013"),
        ("PF-2026-00103", "PF-2026-000013"),
        ("2026-000031", "PF-2026-000013"),
        ("PF-2026-00003", "PF-2026-000013"),
    ],
)
def test_near_numbers(wrong: str, right: str):
    assert right in remittance.near(wrong)


def test_a_known_sender_is_of_one_customer_who_was_named_by_himself(demo_customer: User, bill: Bill):
    bob = person("bob", profile=BERLIN)
    come("hello", 1_00)
    bank.match_by_hand(bank.unmatched()[0].id, "anna", actor="sam", reason="He called")
    assert come("Hosting") == {"suspense": 1}, "a person's word is for one transfer"
    come("login anna", 2_00)
    assert come("Hosting", 99_00) == {"suspense": 1}
    assert come("thanks, anna", 98_00) == {"matched": 1}, "a login without its label counts from her own account"
    assert come("Hosting") == {"matched": 1}
    assert bill_now(bill).status == "paid"
    come("login bob", 3_00)
    issue(demo_customer, 64_00)
    assert come("Hosting", 64_00) == {"suspense": 1}, "the account pays for two"
    assert balance(bob) == 3_00


def test_an_account_that_took_its_money_back_is_known_no_more(demo_customer: User, bill: Bill):
    take(camt([Transfer(5_00, text="login anna", end_to_end="E-1")], replace(ADVICE, id="a")))
    take(camt([Transfer(-5_00, family="RRTN", end_to_end="E-1")], replace(ADVICE, id="b")))
    assert come("Hosting", iban=SENDER) == {"suspense": 1}


# What one file says twice


def doubled(data: bytes) -> bytes:
    """A file with all of its statements a second time."""
    if data.startswith(b":20:"):
        return data + b"\r\n" + data
    text = data.decode()
    for name in ("Stmt", "Ntfctn", "Rpt"):
        if f"<{name}>" in text:
            first, last = text.index(f"<{name}>"), text.rindex(f"</{name}>") + len(name) + 3
            return (text[:last] + text[first:]).encode()
    raise AssertionError("no statement")


PAYS = [Transfer(77_00, text="login anna", reference="R-1"), Transfer(5_00, text="login anna", iban=""), Transfer(5_00, text="login anna", iban="")]
STYLES = {"camt.053": GERMAN, "camt.053, version 08": DUTCH, "camt.054": ADVICE, "camt.052": INTRADAY}
WRITERS = {
    "camt.053": camt, "camt.053, version 08": lambda lines: camt(lines, DUTCH), "camt.054": lambda lines: camt(lines, ADVICE), "camt.052": lambda lines: camt(lines, INTRADAY), "MT940": mt940,
}  # fmt: skip


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_statement_twice_in_a_file_counts_once(demo_customer: User, form: str, dry_run: bool):
    data = doubled(WRITERS[form](PAYS))
    report = take(data, dry_run=dry_run)
    assert (report.counts, report.differing) == ({"matched": 3, "duplicate": 3}, [])
    if not dry_run:
        assert (balance(demo_customer), held("bank")) == (87_00, -87_00)
        assert take(data).counts == {"duplicate": 6}
        assert take(WRITERS[form](PAYS)).counts == {"duplicate": 3}
        assert whole()


def test_pages_of_one_statement_are_not_the_same_statement(demo_customer: User):
    """The first page moves nothing in sum, so that both begin with the same balance."""
    came, fee = Transfer(5_00, text="login anna", iban=""), Transfer(-5_00, text="fee", family="CHRG", iban="")

    def page(number: int, lines: list[Transfer]) -> str:
        place = f"<StmtPgntn><PgNb>{number}</PgNb><LastPgInd>false</LastPgInd></StmtPgntn><CreDtTm>"
        return camt(lines).decode().replace("<CreDtTm>", place, 1)

    one, two = page(1, [came, fee]), page(2, [came])
    both = one.replace("</BkToCstmrStmt>", two[two.index("<Stmt>") : two.index("</Stmt>") + 7] + "</BkToCstmrStmt>")
    assert take(both.encode()).counts == {"matched": 2, "charge": 1}
    assert (balance(demo_customer), take(both.encode()).counts) == (10_00, {"duplicate": 3})


def test_one_reference_in_two_notices_counts_once_and_equal_ones_without_stay_two(demo_customer: User):
    def two(line: Transfer) -> bytes:
        one, other = (camt([line], replace(ADVICE, id=name)).decode() for name in ("A", "B"))
        return one.replace("</Ntfctn>", "</Ntfctn>" + other[other.index("<Ntfctn>") : other.index("</Ntfctn>") + 9]).encode()

    assert take(two(Transfer(77_00, text="login anna", reference="R-1"))).counts == {"matched": 1, "duplicate": 1}
    assert take(two(Transfer(5_00, text="login anna"))).counts == {"matched": 2}
    assert balance(demo_customer) == 87_00


@pytest.mark.parametrize("other", [{"sender": "Ida Berg", "iban": STRANGER}, {"reference": "R-2"}, {"end_to_end": "E-2"}])
def test_one_reference_with_other_parties_is_another_transfer(demo_customer: User, other: dict[str, str]):
    first = Transfer(5_00, text="login anna", reference="R-1", end_to_end="E-1")
    assert take(camt([first, replace(first, **other)])).counts == {"matched": 2}
    assert balance(demo_customer) == 10_00


@pytest.mark.parametrize("form", ["camt.053", "MT940"])
def test_one_reference_twice_within_a_balance_is_booked_and_the_second_waits(demo_customer: User, form: str):
    """The bank's closing balance holds both, so both are booked; nobody is credited for the second by itself."""
    data = WRITERS[form]([PAYS[0]] * 2)
    report = take(data)
    assert (report.counts, report.differing, balance(demo_customer), held("bank")) == ({"matched": 1, "suspense": 1}, [], 77_00, -154_00)
    assert (why(), take(data).counts) == (["same_reference"], {"duplicate": 2})
    assert take(WRITERS["camt.054"]([PAYS[0]] * 2), "advice.xml").counts == {"duplicate": 2}


def test_one_reference_twice_without_a_balance_is_one(demo_customer: User):
    assert take(camt([PAYS[0]] * 2, ADVICE)).counts == {"matched": 1, "duplicate": 1}
    assert balance(demo_customer) == 77_00


def test_two_imports_of_a_doubled_file_at_once_count_once(app: Flask, demo_customer: User):
    data = doubled(camt([*PAYS, *(Transfer(1_00 + place, text="login anna") for place in range(10))]))

    def one(_: int) -> bank.Report:
        with app.app_context():
            return take(data)

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(one, range(3)))
    assert sum(report.counts.get("matched", 0) for report in reports) == 13
    all_of_it = 87_00 + sum(1_00 + place for place in range(10))
    assert (balance(demo_customer), held("bank")) == (all_of_it, -all_of_it)
    assert whole()


_marks = count()
LINES = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.sampled_from(sorted(WRITERS)), st.integers(2, 3), st.randoms(use_true_random=False))
def test_however_often_a_file_tells_its_statement_each_line_counts_once(app: Flask, lines: list[tuple[int, bool]], form: str, times: int, order: random.Random):
    mark = next(_marks)
    login = f"prop{mark}x"
    user = person(login, profile=BERLIN)
    own = [Transfer(units * 1_00, text=f"login {login}", reference=f"R{mark}-{place}" if named else "") for place, (units, named) in enumerate(lines)]
    opening = 1_000_00 + mark

    def write() -> bytes:
        return mt940(own, opening=opening) if form == "MT940" else camt(own, replace(STYLES[form], opening=opening))

    before, data = held("bank"), write()
    for _ in range(times - 1):
        data = doubled(data)
    files = [data, write()]
    order.shuffle(files)
    for file in files:
        take(file)
    assert balance(user) == sum(line.minor for line in own)
    assert held("bank") == before - balance(user)
    assert whole()


# Any text


@given(st.text(max_size=80))
def test_any_text_is_read_without_a_fault(text: str):
    found = remittance.mentions(text, bare=True)
    assert all(isinstance(mention.exact, tuple) for mention in found)
    remittance.logins(text)
    for mention in found:
        remittance.near(mention.text)


@given(st.text("ABab019-/ .\nPFN", max_size=12), st.text("ABab019-/ .\nPFN", max_size=12), st.integers(1, 999_999))
def test_a_number_that_is_read_exactly_stands_in_the_text_as_a_word(before: str, after: str, number: int):
    name = f"PF-2026-{number:06d}"
    text = f"{before}{name}{after}"
    joined = f" {text.upper()} "
    for mention in remittance.mentions(text):
        for exact in mention.exact:
            place = joined.index(exact)
            assert not joined[place - 1].isalnum()
            assert not joined[place + len(exact)].isalnum()


# What steers a terminal


@pytest.mark.parametrize("bad", ["\x00", "\x1b[2J", "\x9b31m", "\u202e", "\x07"])
def test_control_characters_of_a_payer_are_not_kept_and_not_shown(app: Flask, demo_customer: User, bad: str):
    data = mt940([Transfer(5_00, text=f"hel{bad}lo", sender=f"Jan{bad}", iban=STRANGER)]).decode().encode("utf-8")
    take(data)
    (line,) = bank.unmatched()
    assert (line.remittance.isprintable(), line.sender.isprintable()) == (True, True)
    assert line.sender.startswith("Jan")
    output = app.test_cli_runner().invoke(args=["bank", "unmatched"]).output
    assert all(letter.isprintable() or letter == "\n" for letter in output)


def test_what_was_kept_before_is_cleaned_where_a_command_prints_it(app: Flask, superuser):
    take(camt([Transfer(5_00, text="hello")]))
    superuser.execute("set session_replication_role = replica")
    superuser.execute("update bank_lines set remittance = 'a' || chr(27) || '[2J', sender = chr(155) || 'x'")
    output = app.test_cli_runner().invoke(args=["bank", "unmatched"]).output
    assert "\x1b" not in output
    assert "\x9b" not in output
