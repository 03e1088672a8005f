"""How a bill stands, told the same by the list, its page, its PDF, the payment pages, the link and the export."""

import csv
import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask

from app import clock, db, invoicing, payments, refunds
from app.customers import User
from app.invoicing import Bill, Filter, Line, press
from app.money import Money
from app.payments import Payment, settling
from tests.conftest import BERLIN, Browser, person, sign_in
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.test_documents import text_of
from tests.test_held import arrived
from tests.test_refunds import SAM
from tests.trade import fund


def eur(text: str) -> Money:
    return Money.of(text, "EUR")


@pytest.fixture
def anna(app: Flask) -> User:
    publish_rates()
    return person("anna", profile=BERLIN)


@pytest.fixture
def browser(app: Flask, anna: User) -> Browser:
    return sign_in(app.test_client(), anna)


def service(user: User, minor: int = 20_00) -> Bill:
    """An unpaid bill of a service; 19 % VAT come on top."""
    assert user.customer_id
    with db.transaction():
        return invoicing.issue_service_bill(user.customer_id, "VPS", "EUR", [Line("VPS", minor)])


def now(bill: Bill) -> Bill:
    found = invoicing.find(bill.customer_id, bill.proforma_number or bill.number)
    assert found is not None
    return found


def paid(app: Flask, bill: Bill) -> Payment:
    payment = begin(bill)
    choose(app, payment, "approve")
    carry(app)
    return again(payment)


def make(state: str, app: Flask, user: User) -> Bill:
    """A bill in a state, brought there as it happens."""
    return now(MAKERS[state](app, user))


def _held(app: Flask, user: User) -> Bill:
    return payments.bill_of(arrived(app, user, eur("50"), eur("60"))[0])


def _in_part(app: Flask, user: User) -> Bill:
    payment, number = arrived(app, user, eur("50"), eur("30"))
    assert refunds.release(number, "credit", actor=SAM, reason="Part") == "credited"
    return payments.bill_of(payment)


def _by_transfer(app: Flask, user: User) -> Bill:
    bill = service(user)
    payments.start(bill.customer_id, bill.number, "bank-transfer")
    return bill


def _on_its_way(app: Flask, user: User) -> Bill:
    bill = topup(user, eur("25"))
    choose(app, begin(bill), "pending")
    carry(app)
    return bill


def _cancelled(app: Flask, user: User) -> Bill:
    bill = service(user)
    invoicing.cancel(bill.customer_id, bill.number)
    return bill


def _expired(app: Flask, user: User) -> Bill:
    bill = _in_part(app, user)
    with clock.travel(bill.due_at + timedelta(seconds=2)):
        assert invoicing.expire_due()
    return bill


def _refunded(amount: str, app: Flask, user: User) -> Bill:
    bill = topup(user, eur("25"))
    payment = paid(app, bill)
    assert user.customer_id
    number = refunds.request(user.customer_id, payment.public_id, eur(amount), "")
    refunds.approve(number, actor=SAM)
    refunds.pay_out_due()
    carry(app)
    return bill


def _contested(lost: bool, app: Flask, user: User) -> Bill:
    bill = topup(user, eur("25"))
    payment = paid(app, bill)
    reference = processor(app).dispute(payment.gateway_reference or "", 25_00, "fraudulent")
    carry(app)
    if lost:
        assert reference
        processor(app).close_dispute(reference, won=False)
        carry(app)
    return bill


def _paid(app: Flask, user: User) -> Bill:
    bill = topup(user, eur("25"))
    paid(app, bill)
    return bill


MAKERS = {
    "draft": lambda app, user: topup(user, eur("25")),
    "unpaid": lambda app, user: service(user),
    "review": _held,
    "partly_paid": _in_part,
    "transfer": _by_transfer,
    "pending": _on_its_way,
    "paid": _paid,
    "partly_refunded": lambda app, user: _refunded("10", app, user),
    "refunded": lambda app, user: _refunded("25", app, user),
    "disputed": lambda app, user: _contested(False, app, user),
    "charged_back": lambda app, user: _contested(True, app, user),
    "cancelled": _cancelled,
    "expired": _expired,
}
OVER = {"paid", "partly_refunded", "refunded", "disputed", "charged_back", "cancelled", "expired"}


def test_every_state_has_a_bill() -> None:
    assert set(MAKERS) == set(invoicing.STATES)


@pytest.mark.parametrize("state", MAKERS)
def test_everything_that_shows_a_bill_says_the_same(app: Flask, anna: User, browser: Browser, state: str) -> None:
    bill = make(state, app, anna)
    standing, (label, _) = invoicing.standing(bill.id), invoicing.STATES[state]
    assert standing.code == state
    assert (standing.due == 0) == (state in OVER)
    if bill.unpaid:
        assert standing.rest == payments.due(bill)
    (entry,) = invoicing.search(bill.customer_id, Filter()).entries
    assert entry.standing == standing
    assert f">{label}</span>" in browser.get("/invoices").text
    page = browser.get(f"/invoices/{bill.number}").text
    assert f">{label}</span>" in page
    (row,) = csv.DictReader(io.StringIO(browser.get("/invoices.csv").text.removeprefix("\ufeff")))
    assert row["Status"] == label
    if state in OVER:
        for hint in ("IBAN", "Scan to pay", "Pay online", "Continue to pay", '/pay"'):
            assert hint not in page, hint
    elif state == "partly_paid":
        assert "Pay €\u00a020.00" in page
        assert "€\u00a020.00 to pay" in browser.get("/invoices").text
        assert "Pay €\u00a020.00" in browser.get(f"/invoices/{bill.number}/pay").text
    if state == "expired":
        assert "€\u00a030.00 of it was paid and is on your balance" in re.sub(r"[ \n]+", " ", page)


@pytest.mark.parametrize(("state", "says", "never"), [
    ("partly_paid", ["Partly paid", "Paid so far", "20.00", "IBAN"], []),
    ("cancelled", ["Cancelled", "There is nothing to pay any more"], ["IBAN", "Pay online", "Scan to pay", "To pay"]),
    ("expired", ["Expired", "There is nothing to pay any more"], ["IBAN", "Pay online", "Scan to pay", "To pay"]),
    ("review", ["Under review"], []),
    ("unpaid", ["Due", "IBAN", "Pay online", "To pay"], []),
])  # fmt: skip
def test_the_pdf_says_what_is_still_to_pay(app: Flask, anna: User, browser: Browser, state: str, says: list[str], never: list[str]) -> None:
    bill = make(state, app, anna)
    stored = db.scalar("select count(*) from document_files")
    answer = browser.get(f"/invoices/{bill.number}.pdf")
    assert answer.status_code == 200
    words = text_of(answer.data)
    assert [word for word in says if word not in words] == []
    assert [word for word in never if word in words] == []
    assert db.scalar("select count(*) from document_files") == stored + (state == "unpaid"), "what is true for now is not kept for ever"


def test_the_qr_code_asks_for_the_rest(app: Flask, anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    bill, asked = make("partly_paid", app, anna), []
    monkeypatch.setattr("app.remittance.qr", lambda *facts: asked.append(facts[3]) or "data:,")
    monkeypatch.setattr(press, "render", lambda sheets: [b"%PDF" for _ in sheets])
    assert invoicing.pdf(bill.customer_id, bill.number)
    assert set(asked) == {eur("20")}


def test_only_what_is_owed_counts(app: Flask, anna: User, browser: Browser) -> None:
    make("unpaid", app, anna)
    for amount in ("25", "26", "27"):
        topup(anna, eur(amount))
    page = browser.get("/invoices").text
    assert "1 to pay, €\u00a023.80 in total" in page
    assert re.search(r"data-unpaid>1<", page)
    found = invoicing.search(anna.customer_id or 0, Filter())
    assert (found.counts["unpaid"], found.counts["topup"], found.due) == (1, 3, {"EUR": 23_80})
    owed = invoicing.search(anna.customer_id or 0, Filter(status="unpaid"))
    assert (len(owed.entries), owed.totals) == (1, {"service": {"EUR": 23_80}})


def test_filters_and_badges_agree(app: Flask) -> None:
    publish_rates()
    words = {
        "unpaid": {"unpaid", "transfer"},
        "topup": {"draft", "review", "pending", "partly_paid"},
        "cancelled": {"cancelled"},
        "expired": {"expired"},
        "paid": {"paid", "partly_refunded", "disputed", "charged_back"},
        "refunded": {"refunded"},
    }
    for state in MAKERS:
        user = person(f"somebody-{state}".replace("_", "-"), profile=BERLIN)
        bill = make(state, app, user)
        for status in invoicing.STATUSES:
            found = invoicing.search(bill.customer_id, Filter(status=status))
            assert len(found.entries) == found.counts[status]
            assert {entry.standing.code for entry in found.entries} == ({state} if state in words[status] else set()), (status, state)


def test_a_second_payment_that_goes_back_does_not_refund_the_first(app: Flask, anna: User) -> None:
    bill = topup(anna, eur("25"))
    first, second = begin(bill), begin(bill, "sandbox-paypal")
    for payment in (first, second):
        choose(app, payment, "approve")
        carry(app)
    assert anna.customer_id
    number = refunds.request(anna.customer_id, second.public_id, eur("25"), "")
    refunds.approve(number, actor=SAM)
    refunds.pay_out_due()
    carry(app)
    assert again(second).state == "refunded"
    assert invoicing.standing(now(bill).id).code == "paid"


def test_whatever_a_history_or_a_mail_names_finds_its_row(app: Flask, anna: User, browser: Browser) -> None:
    payment, other = paid(app, topup(anna, eur("25"))), topup(anna, eur("26"))
    assert anna.customer_id
    refund = refunds.request(anna.customer_id, payment.public_id, eur("5"), "")
    refunds.approve(refund, actor=SAM)
    refunds.pay_out_due()
    carry(app)
    bill = payments.bill_of(payment)
    shown = {step.reference for step in invoicing.timeline(bill) if step.reference and "…" not in step.reference}
    assert {refund, payment.public_id, bill.proforma_number} <= shown
    page = browser.get(f"/invoices/{bill.number}").text
    short = payment.public_id[:16]
    assert f"{short}<" in page, "its history shows the beginning alone"
    for text in {*shown, short, refund.lower(), payment.gateway_reference or "", "4242", "visa"}:
        found = [entry.number for entry in invoicing.search(anna.customer_id, Filter(q=text)).entries]
        assert found == [bill.number], text
    for text in ("pay_", "pay_00000000", "RF-999999", payment.public_id[:8]):
        assert not invoicing.search(anna.customer_id, Filter(q=text)).entries, text
    stranger = person("boris", profile=BERLIN)
    assert not invoicing.search(stranger.customer_id or 0, Filter(q=refund)).entries
    for text in (short, payment.public_id):
        assert "€\u00a025.00" in browser.get(f"/transactions?q={text}").text, text
    assert "No movement matches" in browser.get("/transactions?q=pay_").text
    assert other.unpaid


# Pages that were left open


def test_a_second_click_on_the_balance_ends_on_the_paid_invoice(app: Flask, anna: User, browser: Browser) -> None:
    fund(anna.customer_id or 0, 100_00)
    bill = service(anna)
    path = f"/invoices/{bill.number}/pay"
    first, second = (browser.submit(path, {"method": "balance"}) for _ in range(2))
    number = now(bill).number
    assert [first.status_code, second.status_code] == [303, 303]
    assert second.location.endswith(f"/invoices/{number}")
    assert f"{number} is paid. There is nothing to pay any more." in browser.get(second.location).text


@pytest.mark.parametrize("end", ["paid", "cancelled"])
@pytest.mark.parametrize("declined", [False, True])
def test_an_open_payment_page_of_what_is_over_says_so(app: Flask, anna: User, browser: Browser, end: str, declined: bool) -> None:
    fund(anna.customer_id or 0, 100_00)
    bill = service(anna)
    payment = begin(bill)
    if end == "paid":
        payments.pay_from_balance(bill.customer_id, bill.number)
    else:
        invoicing.cancel(bill.customer_id, bill.number)
    if declined:
        choose(app, payment, "decline-funds")
        carry(app)
    page = browser.get(f"/payments/{payment.public_id}").text
    assert f"{now(bill).number} is {'paid already' if end == 'paid' else 'cancelled'}" in page
    for word in ("Continue to pay", "stays payable", "Choose another method", "Pay by"):
        assert word not in page, word


def test_a_decline_offers_every_other_way(app: Flask, anna: User, browser: Browser) -> None:
    fund(anna.customer_id or 0, 100_00)
    bill = service(anna)
    payment = begin(bill)
    choose(app, payment, "decline-funds")
    carry(app)
    page = browser.get(f"/payments/{payment.public_id}").text
    offered = set(re.findall(r"/pay\?method=([^\"]+)\"", page))
    methods = {method.key for method in payments.options(bill).methods if not method.unavailable}
    assert offered == {"balance", *methods}


def test_the_balance_speaks_of_no_processor(app: Flask, anna: User, browser: Browser) -> None:
    fund(anna.customer_id or 0, 100_00)
    page = browser.get(f"/invoices/{service(anna).number}/pay").text
    assert re.search(r'value="balance" checked', page)
    assert "processor" not in page[page.index('id="quote"') :]


@pytest.mark.parametrize("state", ["review", "pending", "transfer"])
def test_what_may_be_paid_already_proposes_no_way(app: Flask, anna: User, browser: Browser, state: str) -> None:
    bill = make(state, app, anna)
    assert " checked" not in re.sub(r"<input[^>]*name=\"keep\"[^>]*>", "", browser.get(f"/invoices/{bill.number}/pay").text)


# What happened


@pytest.mark.parametrize("state", MAKERS)
def test_a_timeline_says_each_thing_once_and_in_order(app: Flask, anna: User, state: str) -> None:
    steps = invoicing.timeline(make(state, app, anna))
    said = [(step.what, step.reference) for step in steps]
    assert len(said) == len(set(said))
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    words = [step.what.split(":")[0].split(" by ")[0] for step in steps]
    order = [word for word in words if word in ("Issued", "Payment started", "Paid")]
    assert order == sorted(order, key=["Issued", "Payment started", "Paid"].index)


def test_a_payment_dated_in_whole_seconds_is_not_paid_before_it_started(app: Flask, anna: User, superuser) -> None:
    bill = make("paid", app, anna)
    superuser.execute("set session_replication_role = replica")
    superuser.execute("update bills set paid_at = date_trunc('minute', issued_at)")
    superuser.execute("set session_replication_role = origin")
    words = [step.what for step in invoicing.timeline(now(bill))]
    assert words.index(next(word for word in words if word.startswith("Paid"))) > words.index(next(word for word in words if word.startswith("Payment started")))


# Withdrawing and asking once


def test_a_refund_request_can_be_withdrawn_while_it_waits(app: Flask, anna: User, browser: Browser) -> None:
    payment = paid(app, topup(anna, eur("25")))
    assert anna.customer_id
    number = refunds.request(anna.customer_id, payment.public_id, eur("10"), "")
    assert "Withdraw this request" in browser.get("/refunds").text
    for _ in range(2):
        assert browser.submit(f"/refunds/{number}/withdraw").status_code == 303
    (found,) = refunds.of_customer(anna.customer_id)
    assert (found.state, [step.state for step in found.steps]) == ("withdrawn", ["requested", "withdrawn"])
    subjects = [row.subject for row in db.rows("select subject from mails where kind = 'refund_step' order by id")]
    assert subjects == [f"Refund {number} is requested", f"Refund {number} is withdrawn"]
    page = browser.get("/refunds").text
    assert "Withdrawn" in page
    assert "Withdraw this request" not in page
    assert refunds.refundable(anna.customer_id)[0].refundable == eur("25")
    with pytest.raises(refunds.RefundError):
        refunds.approve(number, actor=SAM)
    again_asked = refunds.request(anna.customer_id, payment.public_id, eur("25"), "")
    refunds.approve(again_asked, actor=SAM)
    with pytest.raises(refunds.RefundError, match="can no longer be withdrawn"):
        refunds.withdraw(anna.customer_id, again_asked)


def test_nobody_withdraws_anothers_refund_or_one_that_support_opened(app: Flask, anna: User) -> None:
    payment = paid(app, topup(anna, eur("25")))
    assert anna.customer_id
    number = refunds.open_by_support(payment.public_id, eur("10"), "Our fault", actor=SAM)
    other = person("boris", profile=BERLIN)
    assert refunds.withdraw(other.customer_id or 0, number) is False
    with pytest.raises(refunds.RefundError):
        refunds.withdraw(anna.customer_id, number)


def test_cancelling_asks_once_and_changes_nothing_before(app: Flask, anna: User, browser: Browser) -> None:
    bill = service(anna)
    assert f"Cancel {bill.number}?" in browser.get(f"/invoices/{bill.number}/cancel").text
    assert now(bill).unpaid
    for page in (browser.get("/invoices").text, browser.get(f"/invoices/{bill.number}").text):
        assert f'action="/invoices/{bill.number}/cancel"' not in page
    browser.submit(f"/invoices/{bill.number}/cancel")
    assert now(bill).status == "cancelled"
    assert browser.get(f"/invoices/{bill.number}/cancel").status_code == 303


@pytest.mark.parametrize(
    ("state", "owed", "payable"),
    [
        ("unpaid", "{number} is still to be paid.", True),
        ("partly_paid", "€\N{NO-BREAK SPACE}20.00 of {number} is still to be paid.", True),
        ("draft", "", True),
        ("review", "", False),
        ("pending", "", False),
    ],
)
def test_the_mail_about_a_failed_payment_says_how_the_bill_stands(app: Flask, anna: User, state: str, owed: str, payable: bool) -> None:
    bill = make(state, app, anna)
    failed = replace(begin(service(anna)), failure_message="")
    with db.transaction():
        settling._tell_failure(failed, invoicing.lock(bill.id))
    body = db.scalar("select body_text from mails where kind = 'payment_failed'")
    assert ("still to be paid" in body, "Pay another way" in body) == (bool(owed), payable)
    assert owed.format(number=bill.number) in body
