"""Money that one paid and another has: it goes back to who paid, by support only, and neither reads of the other what is not theirs."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from flask import Flask
from markupsafe import escape

from app import bank, clock, customers, db, invoicing, ledger, payments, refunds, wallet
from app.blueprints.profile import MAILS
from app.customers import User
from app.money import Money
from app.payments import Payment, book
from app.refunds import RefundError
from tests.banks import SENDER, Transfer, camt
from tests.conftest import BERLIN, PASSWORD, Browser, person, sign_in
from tests.money_helpers import EUR
from tests.pay import again, carry, choose, of, processor, publish_rates, with_other
from tests.test_links import anna
from tests.test_refunds import IBAN, RITA, SAM
from tests.world import GUEST

__all__ = ["anna"]
NEVER_HERS = ("Gustav", "gustav", "Paul", "paul@", "PF-2026", "INV-2026", "TU-2026", "RC-2026", "Visa", "4242", "PayPal", "Bitcoin", "sandbox", "transfer")
"""What of a payer must not stand anywhere the owner reads."""
LABELS = {"sandbox-card": "Visa", "sandbox-paypal": "PayPal", "bank-transfer": "Bank transfer", "other-crypto": "Bitcoin"}


@dataclass(frozen=True)
class Gift:
    """A top-up of the owner's balance that is paid."""

    payment: Payment
    payer_id: int
    mail: str

    @property
    def id(self) -> str:
        return self.payment.public_id


def give(app: Flask, owner: User, who: str, method: str = "sandbox-card", minor: int = 50_00) -> Gift:
    """Somebody pays this much for the owner: the owner itself (``own``), another login (``login``) or a guest by a link (``guest``)."""
    amount, given = Money(minor, "EUR"), None
    if who == "guest":
        given = payments.order_for(payments.ask(owner.customer_id or 0, "Anna", None), amount, "", GUEST, "", locale="en")
        bill = invoicing.find(given.customer_id, given.number or "")
    elif who == "login":
        payer = person("paul", name="Paul Payer", profile=replace(BERLIN, name="Paul Payer"))
        bill = payments.order_topup(payer.customer_id or 0, amount, "", customers.find_beneficiary(owner.login))
    else:
        bill = payments.order_topup(owner.customer_id or 0, amount)
    assert bill
    if method.startswith("other-"):
        with_other()
    handoff = payments.start(bill.customer_id, bill.number, method, payments.options(bill).quote_token, given)
    if method == "bank-transfer":
        assert bank.import_file(camt([Transfer(minor, structured=bill.payment_reference or "")]), "file.xml").counts == {"matched": 1}
        payment = book.read(db.scalar("select public_id from payments where bill_id = %(id)s", id=bill.id))
    else:
        choose(app, of(handoff), "approve")
        carry(app)
        payment = again(of(handoff))
    assert payment
    assert payment.state == "paid"
    return Gift(payment, bill.customer_id, customers.get(bill.customer_id).email)


def told(recipient: str, *kinds: str) -> list[db.Row]:
    """The mails of these kinds to somebody, oldest first."""
    return db.rows("select kind, subject, body_text, body_html from mails where recipient = %(to)s and kind = any(%(kinds)s) order by id", to=recipient, kinds=list(kinds))


def read_by(owner: User, browser: Browser) -> str:
    """Everything the owner of the balance can read: pages, files, mails, and what the ledger says."""
    pages = ("/refunds", "/balance", "/transactions", "/transactions.csv", "/transactions?account=hold", "/invoices", "/invoices.csv", "/notifications")
    letters = db.rows("select subject || body_text || body_html as text from mails where customer_id = %(id)s", id=owner.customer_id)
    lines = db.rows(
        "select t.description as text from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id where a.customer_id = %(id)s",
        id=owner.customer_id,
    )
    found = [main(browser.get(page).text) for page in pages] + [row.text for row in (*letters, *lines)]
    text = "\n".join(found)
    for words in MAILS.values():  # what the house writes about at all
        for word in words:
            text = text.replace(str(escape(word)), "")
    return text


def main(page: str) -> str:
    """A page without its frame."""
    return page.partition("<main")[2] or page


def leaks(text: str) -> list[str]:
    """What of a payer stands in a text."""
    return [f"{word}: …{text[max(0, at - 60) : at + 40]}…" for word in NEVER_HERS if (at := text.find(word)) >= 0]


# Who may ask, and which way it goes


@pytest.mark.parametrize("method", LABELS)
@pytest.mark.parametrize("who", ["own", "login", "guest"])
def test_whoever_paid_by_whatever_it_goes_back_there_or_nowhere(app: Flask, anna: User, who: str, method: str) -> None:
    gift = give(app, anna, who, method)
    browser = sign_in(app.test_client(), anna)
    way = method in ("sandbox-card", "sandbox-paypal")
    page = main(browser.get("/refunds").text)
    account = SENDER if method == "bank-transfer" else IBAN  # a transfer goes back to its sender alone
    asked = {"payment": gift.id, "amount": "20", "iban": account, "holder": "Anna Kowalska"}
    answer = browser.submit("/refunds", asked)
    if who == "own":
        assert LABELS[method] in page
        assert answer.status_code == 303
        assert db.scalar("select way from refunds") == ("source" if way else "bank")
        return
    assert answer.status_code == 422
    for text in (page, answer.text):
        assert "Paid by somebody else: it can go back to its payer, by support only" in text
        assert f"/refunds?payment={gift.id}" not in text
    assert db.scalar("select count(*) from refunds") == 0
    assert leaks(page.replace(refunds.HASTE, "")) == []
    if not way:
        with pytest.raises(RefundError, match="that way is closed"):
            refunds.open_by_support(gift.id, EUR("20"), "The payer asked", actor=SAM)
        assert wallet.state(anna.customer_id or 0).on_hold == 0
        return
    number = refunds.open_by_support(gift.id, EUR("20"), "The payer asked", actor=SAM)
    assert wallet.state(anna.customer_id or 0).on_hold == 20_00
    assert refunds.approve(number, actor=SAM) == "approved"
    assert refunds.pay_out(number) == "settled"
    assert (wallet.state(anna.customer_id or 0).available, again(gift.payment).state) == (30_00, "partially_refunded")
    assert db.rows("select way, iban, payout from refunds") == [("source", None, 20_00)]
    assert leaks(read_by(anna, browser)) == []


@pytest.mark.parametrize("who", ["login", "guest"])
def test_each_is_told_of_their_own_end(app: Flask, anna: User, who: str) -> None:
    gift = give(app, anna, who)
    number = refunds.open_by_support(gift.id, EUR("20"), "Paul called and Gustav too", actor=SAM)
    refunds.approve(number, actor=RITA)
    refunds.pay_out(number)
    hers = told("anna@example.com", "given_back", "refund_step")
    assert [(row.kind, row.subject) for row in hers] == [
        ("given_back", "€\N{NO-BREAK SPACE}20.00 of your balance is on hold"),
        ("given_back", "€\N{NO-BREAK SPACE}20.00 left your balance"),
    ]
    assert all("A payment that somebody else made for you" in row.body_text for row in hers)
    theirs = told(gift.mail, "given_back", "refund_step")
    assert [row.subject for row in theirs] == [f"Refund {number} is requested", f"Refund {number} is approved", f"Receipt: refund {number} of €\N{NO-BREAK SPACE}20.00"]
    for row in theirs:
        assert "Visa" in row.body_text or row is theirs[0]
        assert "Paul called" not in row.body_text
        for words in ("your balance", "Secret", "anna"):
            assert words not in row.body_text
        assert ("/paid/" in row.body_text) == (who == "guest")


def test_the_payer_with_a_login_sees_it_on_the_bill_and_among_the_refunds(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login")
    number = refunds.open_by_support(gift.id, EUR("50"), "Asked by mail", actor=SAM)
    refunds.approve(number, actor=SAM)
    refunds.pay_out(number)
    payer = customers.find_user("paul")
    assert payer
    browser = sign_in(app.test_client(), payer)
    listed = main(browser.get("/refunds").text)
    for words in (f"{number}, paid for another account", "Visa ••••\N{NO-BREAK SPACE}4242", "Settled"):
        assert words in listed
    assert "Asked by mail" not in listed
    bill = main(browser.get(f"/invoices/{payments.bill_of(gift.payment).number}").text)
    for words in ("Refund requested", "Refund approved", "Refund settled", number):
        assert words in bill
    assert "It went back" in browser.get(f"/payments/{gift.id}").text
    assert browser.submit("/refunds", {"payment": gift.id, "amount": "1"}).status_code == 422
    assert "anna" not in listed.lower()


def test_a_guest_sees_it_where_the_payment_stands(app: Flask, anna: User, anonymous: Browser) -> None:
    gift = give(app, anna, "guest")
    number = refunds.open_by_support(gift.id, EUR("50"), "Asked by mail", actor=SAM)
    refunds.approve(number, actor=SAM)
    refunds.pay_out(number)
    assert "It went back to you" in anonymous.get(payments.told_at(gift.id)).text


def test_a_stranger_learns_nothing_at_all(app: Flask, anna: User, stranger: Browser) -> None:
    gift = give(app, anna, "login")
    answer = stranger.submit("/refunds", {"payment": gift.id, "amount": "1"})
    assert answer.status_code == 422
    assert "somebody else" not in answer.text
    for path in (f"/staff/refunds/of/{gift.id}", "/staff/refunds", f"/payments/{gift.id}"):
        assert stranger.get(path).status_code == 404


def test_the_sentence_comes_before_any_other_answer(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login")
    refunds.open_by_support(gift.id, EUR("20"), "Asked by mail", actor=SAM)
    with pytest.raises(RefundError, match="by support only"):
        refunds.request(anna.customer_id or 0, gift.id, EUR("20"), "the very same amount")


def test_a_try_that_failed_does_not_close_the_only_way_to_a_payer(app: Flask, anna: User) -> None:
    gift = give(app, anna, "guest", "sandbox-card")
    for outcome in ("failed", "settled"):
        number = refunds.open_by_support(gift.id, EUR("20"), "The payer asked", actor=SAM)
        refunds.approve(number, actor=SAM)
        refunds.pay_out(number)
        if outcome == "failed":
            processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "no money there")
            carry(app)
        assert refunds.case(number).refund.state == outcome
    assert wallet.state(anna.customer_id or 0).available == 30_00


@pytest.mark.parametrize("end", ["declined", "failed"])
def test_what_does_not_go_back_after_all_is_on_the_balance_again_and_said_without_a_why(app: Flask, anna: User, end: str) -> None:
    gift = give(app, anna, "login")
    number = refunds.open_by_support(gift.id, EUR("20"), "Asked by mail", actor=SAM)
    if end == "declined":
        refunds.decline(number, actor=SAM, answer="Paul took it back")
    else:
        refunds.approve(number, actor=SAM)
        refunds.pay_out(number)
        app.extensions["sandbox_processor"].move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "the card of Paul is closed")
        carry(app)
    assert refunds.case(number).refund.state == end  # type: ignore[union-attr]
    assert wallet.state(anna.customer_id or 0).available == 50_00
    browser = sign_in(app.test_client(), anna)
    assert leaks(read_by(anna, browser)) == []
    assert told("anna@example.com", "given_back")[-1].subject == "€\N{NO-BREAK SPACE}20.00 is back on your balance"
    assert ("Paul took it back" in told("paul@example.com", "refund_step")[-1].body_text) == (end == "declined")


def test_more_than_the_limit_needs_two_and_the_opener_is_one_of_them_at_most(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login", minor=600_00)
    number = refunds.open_by_support(gift.id, EUR("600"), "Asked by mail", actor=SAM)
    assert refunds.approve(number, actor=SAM) == "requested"
    with pytest.raises(RefundError, match="Another person"):
        refunds.approve(number, actor=SAM)
    assert refunds.approve(number, actor=RITA) == "approved"


def test_the_way_back_that_is_over_is_said_and_no_account_is_taken(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login")
    with clock.travel(clock.now() + timedelta(days=181)), pytest.raises(RefundError, match="180 days only"):
        refunds.open_by_support(gift.id, EUR("20"), "Asked by mail", actor=SAM)


@pytest.mark.parametrize(("amount", "reason", "says"), [("20", "  ", "Write down why"), ("50.01", "x", "At most"), ("0", "x", "more than zero")])
def test_support_opens_nothing_that_is_not_there_and_nothing_without_a_reason(app: Flask, anna: User, amount: str, reason: str, says: str) -> None:
    gift = give(app, anna, "login")
    with pytest.raises(RefundError, match=says):
        refunds.open_by_support(gift.id, EUR(amount), reason, actor=SAM)
    with pytest.raises(RefundError, match="no such payment"):
        refunds.open_by_support("pay_none", EUR("1"), "x", actor=SAM)


def test_the_dispute_of_a_gift_tells_the_owner_what_was_taken_and_no_more(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login")
    refunds.open_dispute(gift.id, EUR("50"), reference="dp_1", reason="Paul says so")
    browser = sign_in(app.test_client(), anna)
    assert leaks(read_by(anna, browser)) == []
    refunds.win_dispute("dp_1")
    refunds.open_dispute(gift.id, EUR("50"), reference="dp_2", reason="Paul says so")
    refunds.lose_dispute("dp_2")
    assert leaks(read_by(anna, browser)) == []
    gone, back = "€\N{NO-BREAK SPACE}50.00 left your balance", "€\N{NO-BREAK SPACE}50.00 is back on your balance"
    assert [row.subject for row in told("anna@example.com", "dispute_step", "given_back")] == [gone, back, gone]
    his = told(gift.mail, "dispute_step", "given_back")
    taken, closed = "Your bank took a payment back: €\N{NO-BREAK SPACE}50.00", "The dispute of €\N{NO-BREAK SPACE}50.00 is closed"
    assert [row.subject for row in his] == [taken, closed, taken, closed]
    assert "balance" not in "".join(row.body_text + row.body_html for row in his)


def test_whose_transfer_was_taken_back_is_told_and_reads_of_no_balance(app: Flask, anna: User) -> None:
    gift = give(app, anna, "login", "bank-transfer")
    with db.transaction():
        line = (ledger.account("suspense", "EUR"), 50_00)
        refunds.take_back(gift.payment.id, Money(50_00, "EUR"), reference="returned-1", line=line)
    (his,), (hers,) = told(gift.mail, "transfer_returned"), told("anna@example.com", "given_back")
    assert his.subject == "Your transfer of €\N{NO-BREAK SPACE}50.00 was taken back"
    assert "balance" not in his.body_text
    assert leaks(hers.body_text) == []


# Support's page


def test_support_finds_the_payment_and_opens_its_refund_without_a_script(app: Flask, anna: User, staff: Browser) -> None:
    gift = give(app, anna, "guest")
    bill = payments.bill_of(gift.payment)
    for number in (gift.id, gift.payment.gateway_reference, bill.number, bill.number.lower()):
        assert staff.get("/staff/refunds", query_string={"find": number}).location == f"/staff/refunds/of/{gift.id}"
    missed = staff.get("/staff/refunds?find=INV-2026-9")
    assert (missed.status_code, "No payment that was credited has this number" in missed.text) == (422, True)
    page = main(staff.get(f"/staff/refunds/of/{gift.id}").text)
    for words in ("Gustav Guest, who gets the refund", "Secret Holding", 'value="50.00"', "no other way"):
        assert words in page
    for data, says in (
        ({"amount": "60", "reason": "x"}, "At most €\N{NO-BREAK SPACE}50.00"),
        ({"amount": "6", "reason": ""}, "Write down why"),
        ({"amount": "x", "reason": "x"}, ""),
    ):
        refused = staff.submit(f"/staff/refunds/of/{gift.id}", data)
        assert refused.status_code == 422
        assert says in refused.text
        assert 'aria-invalid="true"' in refused.text
    answer = staff.submit(f"/staff/refunds/of/{gift.id}", {"amount": "20", "reason": "Asked by mail"})
    assert answer.location == "/staff/refunds/RF-000001"
    case = staff.get(answer.location).text
    for words in ("Gustav Guest, somebody else than the customer", "Visa •••• 4242", "Asked by mail", "told to the payer"):
        assert words in case
    assert "RF-000001</a> of this payment is under way" in staff.get(f"/staff/refunds/of/{gift.id}").text


def test_a_bill_that_was_paid_in_two_parts_shows_both(app: Flask, anna: User, staff: Browser) -> None:
    bill = payments.order_topup(anna.customer_id or 0, EUR("50"))
    bank.import_file(camt([Transfer(20_00, structured=bill.payment_reference or ""), Transfer(30_00, structured=bill.payment_reference or "")]), "file.xml")
    found = staff.get("/staff/refunds", query_string={"find": bill.number})
    assert found.status_code == 200
    assert found.text.count("/staff/refunds/of/pay_") == 2


# A bank transfer for somebody else


@pytest.mark.parametrize("who", ["login", "guest"])
def test_a_transfer_for_another_gives_the_money_to_one_and_the_papers_to_the_other(app: Flask, anna: User, who: str) -> None:
    gift = give(app, anna, who, "bank-transfer")
    assert wallet.state(anna.customer_id or 0).available == 50_00
    assert wallet.state(gift.payer_id).available == 0
    bill = payments.bill_of(gift.payment)
    assert (bill.customer_id, bill.beneficiary_id, bill.status) == (gift.payer_id, anna.customer_id, "paid")
    assert invoicing.find(anna.customer_id or 0, bill.number) is None
    (letter,) = db.rows("select recipient, body_text, attachments from mails where kind = 'payment_confirmed'")
    assert letter.recipient == gift.mail
    assert "the balance of the other account" in letter.body_text
    assert "your balance" not in letter.body_text
    assert str(bill.receipt_number) in str(letter.attachments)
    (hers,) = told("anna@example.com", "funds_received")
    assert hers.subject == "€\N{NO-BREAK SPACE}50.00 added to your balance"
    browser = sign_in(app.test_client(), anna)
    assert leaks(read_by(anna, browser)) == []


def test_the_papers_of_a_transfer_for_another_are_written_as_the_payer_reads(app: Flask, anna: User) -> None:
    publish_rates()
    owner = person("bartek", name="Bartosz", profile=replace(BERLIN, name="Bartosz", currency="PLN"))
    with db.transaction():
        db.execute("update users set locale = 'pl' where customer_id = %(id)s", id=owner.customer_id)
    gift = give(app, owner, "login", "bank-transfer")
    assert gift.payment.credited_currency == "PLN"
    assert "PLN\N{NO-BREAK SPACE}212.57 added to the balance" in gift.payment.rate_note


# A while after the password or the address changed


def change_password(user: User) -> None:
    customers.change_password(user.id, PASSWORD, "another-quiet-harbour", keep=b"")


def change_address(user: User) -> None:
    customers.request_email_change(user.id, PASSWORD, "new@example.com")
    customers.verify(db.scalar("select body_text from mails where kind = 'verify' order by id desc limit 1").partition("/verify/")[2].split()[0])


@pytest.mark.parametrize("change", [change_password, change_address])
def test_after_a_change_of_the_login_refunds_wait_for_three_days(app: Flask, anna: User, change) -> None:
    gift = give(app, anna, "own")
    change(anna)
    browser = sign_in(app.test_client(), anna)
    page = browser.get(f"/refunds?payment={gift.id}").text
    assert refunds.HASTE in page
    assert "Ask for the refund" not in page
    answer = browser.submit("/refunds", {"payment": gift.id, "amount": "20"})
    assert answer.status_code == 422
    until = refunds.quiet_until(anna.customer_id or 0)
    assert until
    assert "It is possible from " in answer.text
    assert f"{until:%H:%M}Z" not in answer.text, "in the reader's own format"
    with clock.travel(until + timedelta(seconds=1)):
        assert refunds.quiet_until(anna.customer_id or 0) is None
        assert refunds.request(anna.customer_id or 0, gift.id, EUR("20"), "")


def test_support_may_send_it_back_before_with_a_reason(app: Flask, anna: User, staff: Browser) -> None:
    gift = give(app, anna, "own")
    change_password(anna)
    assert "Your reason stands for the exception" in staff.get(f"/staff/refunds/of/{gift.id}").text
    assert refunds.open_by_support(gift.id, EUR("20"), "Known on the phone", actor=SAM) == "RF-000001"
    (letter,) = told("anna@example.com", "refund_step")
    assert "Our support opened a refund" in letter.body_text
    assert "You asked for" not in letter.body_text


def test_confirming_the_first_address_is_no_change(app: Flask) -> None:
    fresh = person("nele", verified=False, profile=BERLIN)
    customers.request_verification(fresh.id)
    customers.verify(db.scalar("select body_text from mails where kind = 'verify' order by id desc limit 1").partition("/verify/")[2].split()[0])
    assert refunds.quiet_until(fresh.customer_id or 0) is None
