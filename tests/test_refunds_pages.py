"""The pages of money back out: asking, support's queue, the debt on the balance page, and the pretend processor's later happenings."""

import re

import pytest

from app import bank, db, payments, refunds, services, wallet
from tests.conftest import Browser, person, sign_in
from tests.money_helpers import EUR
from tests.pay import again, carry, processor
from tests.test_refunds import IBAN, SAM, anna, paid

__all__ = ["anna"]
PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def rita(app) -> Browser:
    """The browser of another support agent."""
    return sign_in(app.test_client(), person("rita", role="support", name="Rita Support"))


def ask(browser: Browser, payment, **data: str):
    """The form as it is sent."""
    return browser.submit("/refunds", {"payment": payment.public_id, "amount": "20", "reason": "Too much", **data})


# Asking


def test_asking_without_a_script_leads_back_to_the_list_where_it_stands(app, anna, owner):
    payment = paid(app, anna, EUR("50"))
    listed = owner.get("/refunds").text
    link = re.search(r'href="(/refunds\?payment=[^"]+)#ask"', listed)
    assert link
    form = owner.get(link[1]).text
    assert 'value="50.00"' in form
    assert "IBAN" not in form
    answer = ask(owner, payment)
    assert (answer.status_code, answer.location) == (303, "/refunds")
    page = owner.get("/refunds").text
    for words in ("RF-000001 is requested", "under way", "is on its way back with RF-000001", "“Too much”"):
        assert words in page
    assert ask(owner, payment).status_code == 303, "the same form again is the same refund"
    assert db.scalar("select count(*) from refunds") == 1


def test_asking_by_a_script_goes_to_the_list_too(app, anna, owner):
    payment = paid(app, anna, EUR("50"))
    answer = owner.submit("/refunds", {"payment": payment.public_id, "amount": "20"}, headers=PARTIAL)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, "/refunds")


@pytest.mark.parametrize(("amount", "says"), [("", "Enter an amount"), ("50.01", "At most"), ("0", "Enter more than zero."), ("-1", ""), ("1e9", ""), ("1.234", "")])
def test_an_amount_that_cannot_be_is_marked_and_stays_in_the_form(app, anna, owner, amount, says):
    payment = paid(app, anna, EUR("50"))
    answer = ask(owner, payment, amount=amount)
    assert answer.status_code == 422
    assert says in answer.text
    assert 'aria-invalid="true" aria-describedby="amount-error' in answer.text
    assert wallet.state(anna.customer_id).on_hold == 0


def test_a_payment_that_is_not_ones_own_cannot_be_chosen(app, anna, stranger, owner):
    payment = paid(app, anna, EUR("50"))
    answer = ask(stranger, payment)
    assert answer.status_code == 422
    assert "Choose one of your payments." in answer.text
    assert payment.public_id not in stranger.get(f"/refunds?payment={payment.public_id}").text
    assert owner.submit("/refunds", {"payment": "pay_x", "amount": "1"}).status_code == 422


def test_a_payment_that_cannot_go_back_its_way_asks_for_an_account(app, anna, owner):
    payment = paid(app, anna, EUR("50"), "other-crypto")
    form = owner.get(f"/refunds?payment={payment.public_id}").text
    assert "Bitcoin cannot send money back" in form
    answer = ask(owner, payment, iban="DE00", holder="Anna")
    assert (answer.status_code, "not a valid IBAN" in answer.text, 'value="DE00"' in answer.text) == (422, True, True)
    assert ask(owner, payment, iban=IBAN, holder="Anna Kowalska").status_code == 303
    page = owner.get("/refunds").text
    assert "Anna Kowalska, DE89 … 3000" in page
    assert IBAN not in page


def test_the_page_says_why_the_rest_cannot_go_back(app, anna, owner):
    paid(app, anna, EUR("50"))
    payments.grant_bonus(anna.customer_id, EUR("10"), reason="", reference="b")
    assert "of bonus is a present and does not go back" in owner.get("/refunds").text


# Deciding


def test_support_sees_the_queue_decides_and_is_named(app, anna, owner, staff):
    payment = paid(app, anna, EUR("50"))
    ask(owner, payment)
    queue = staff.get("/staff/refunds").text
    assert "RF-000001" in queue
    assert "Refund requests" in re.sub(r"\s+", " ", queue)
    case = staff.get("/staff/refunds/RF-000001").text
    for words in ("Too much", "(anna)", "Visa •••• 4242", "0 refunds, 0 disputes", "0 of 1"):
        assert words in case
    assert staff.submit("/staff/refunds/RF-000001", {"decision": "approve"}).status_code == 303
    assert "RF-000001 is approved." in staff.get("/staff/refunds").text
    assert refunds.of_customer(anna.customer_id)[0].steps[-1].actor == "staff:sven"
    assert "· sven" in staff.get("/staff/refunds/RF-000001").text
    assert "sven" not in owner.get("/refunds").text


def test_declining_wants_a_reason_that_the_customer_reads(app, anna, owner, staff):
    ask(owner, paid(app, anna, EUR("50")))
    answer = staff.submit("/staff/refunds/RF-000001", {"decision": "decline", "answer": " "})
    assert (answer.status_code, "Tell the customer why." in answer.text) == (422, True)
    assert staff.submit("/staff/refunds/RF-000001", {"decision": "decline", "answer": "It pays vps-7"}).status_code == 303
    assert "It pays vps-7" in owner.get("/refunds").text
    assert "Nothing waits" in staff.get("/staff/refunds").text
    assert "Nothing is left to decide" in staff.get("/staff/refunds/RF-000001").text


def test_two_people_and_the_banks_reference_for_a_payout_by_hand(app, anna, owner, staff, rita):
    ask(owner, paid(app, anna, EUR("50"), "other-crypto"), iban=IBAN, holder="Anna Kowalska")
    assert IBAN in staff.get("/staff/refunds/RF-000001").text
    staff.submit("/staff/refunds/RF-000001", {"decision": "approve"})
    assert "1 of 2" in staff.get("/staff/refunds").text
    again_ = staff.submit("/staff/refunds/RF-000001", {"decision": "approve"})
    assert (again_.status_code, "Another person" in again_.text) == (422, True)
    assert "You approved it." in staff.get("/staff/refunds/RF-000001").text
    second = rita.get("/staff/refunds/RF-000001").text
    assert all(words in second for words in ("sven has approved it.", "1 of 2: sven", "First approval"))
    rita.submit("/staff/refunds/RF-000001", {"decision": "approve"})
    empty = rita.submit("/staff/refunds/RF-000001", {"decision": "paid", "reference": ""})
    assert (empty.status_code, "reference-error" in empty.text) == (422, True)
    assert rita.submit("/staff/refunds/RF-000001", {"decision": "paid", "reference": "TX-9"}).status_code == 303
    assert "Bank&#39;s reference TX-9" in owner.get("/refunds").text


def test_what_stands_in_a_file_for_the_bank_is_not_asked_to_be_transferred_again(app, anna, owner, staff, rita):
    ask(owner, paid(app, anna, EUR("50"), "other-crypto"), iban=IBAN, holder="Anna Kowalska")
    for person_ in (staff, rita):
        person_.submit("/staff/refunds/RF-000001", {"decision": "approve"})
    assert "with RF-000001 as its reference" in staff.get("/staff/refunds/RF-000001").text
    assert bank.payouts.export("EUR")
    page = staff.get("/staff/refunds/RF-000001").text
    assert "do not transfer it once more" in page
    assert "with RF-000001 as its reference" not in page
    assert "Decline" not in page
    assert staff.submit("/staff/refunds/RF-000001", {"decision": "paid", "reference": "TX-9"}).status_code == 303


def test_what_is_no_decision_is_refused(app, anna, owner, staff):
    ask(owner, paid(app, anna, EUR("50")))
    assert staff.submit("/staff/refunds/RF-000001", {"decision": "give me all"}).status_code == 400
    assert staff.submit("/staff/refunds/RF-9", {"decision": "approve"}).status_code == 404
    assert staff.submit("/staff/refunds/RF-000001", {"decision": "paid", "reference": "x"}).status_code == 422


def test_only_support_has_the_queue_in_its_navigation(owner, staff):
    assert 'href="/staff/refunds"' not in owner.get("/security").text
    assert 'href="/staff/refunds"' in staff.get("/security").text
    assert '<a href="/staff/refunds" aria-current="page">' in staff.get("/staff/refunds").text


# Disputes


def test_a_debt_stands_on_the_balance_page_until_a_top_up_settles_it(app, anna, owner):
    payment = paid(app, anna, EUR("50"))
    services.order(anna.customer_id, "vps-4", 1)
    assert "is owed for a payment that was taken back" not in owner.get("/balance").text
    refunds.open_dispute(payment.public_id, EUR("50"), reference="dp_1", reason="fraud")
    assert "€\N{NO-BREAK SPACE}23.80 is owed for a payment that was taken back." in owner.get("/balance").text
    paid(app, anna, EUR("30"))
    assert "is owed for a payment that was taken back" not in owner.get("/balance").text
    assert "Settles what a dispute left owing" in owner.get("/transactions").text


def test_the_pretend_processors_page_lets_it_all_happen(app, anna, owner):
    payment = paid(app, anna, EUR("50"))
    refunds.approve(refunds.request(anna.customer_id, payment.public_id, EUR("20"), ""), actor=SAM)
    refunds.pay_out_due()
    path = f"/sandbox/pay/{payment.gateway_reference}"
    assert "Refund of €\N{NO-BREAK SPACE}20.00: settled" in owner.get(path).text

    def press(word: str) -> None:
        found = re.search(rf'value="([^"]+)">{word}', owner.get(path).text)
        assert found, word
        assert owner.submit(f"{path}/later", {"happening": found[1]}).status_code == 303
        carry(app)

    press("Let it fail")
    assert wallet.state(anna.customer_id).available == 50_00
    press("Dispute this payment")
    assert again(payment).state == "disputed"
    press("The shop wins")
    assert again(payment).state == "paid"
    assert owner.submit(f"{path}/later", {"happening": "win:sbd_x"}).status_code == 400


def test_closed_refunds_are_listed_by_their_end_and_by_pages(app, anna, owner, staff, monkeypatch, vandal):
    monkeypatch.setattr(refunds, "PAGE", 2)
    monkeypatch.setattr(refunds.book, "PAGE", 2)
    for reason in ("one", "two", "three"):
        payment = paid(app, anna, EUR("10"))
        number = refunds.request(anna.customer_id, payment.public_id, EUR("1"), reason)
        refunds.decline(number, actor=SAM, answer="No")
        vandal.execute("update refunds set requested_at = requested_at - interval '2 days'")
    first = staff.get("/staff/refunds?state=declined").text
    assert re.findall(r"RF-\d+(?=</a>)", first) == ["RF-000003", "RF-000002"]
    (older,) = re.findall(r'href="(/staff/refunds\?state=declined&amp;before=\d+)"', first)
    second = staff.get(older.replace("&amp;", "&")).text
    assert re.findall(r"RF-\d+(?=</a>)", second) == ["RF-000001"]
    assert "Older" not in second
    assert "No refund came to this end" in staff.get("/staff/refunds?state=settled").text
    assert "Nothing waits" in staff.get("/staff/refunds?state=nonsense&before=x").text


def test_disputes_are_listed_with_their_amounts_and_their_way(app, anna, owner, staff):
    payment = paid(app, anna, EUR("50"))
    reference = processor(app).inquire(payment.gateway_reference, 50_00, "fraudulent")
    carry(app)
    assert "The bank asks" in staff.get("/staff/disputes").text
    assert "Inquiry about" in owner.get("/refunds").text
    processor(app).end_inquiry(reference, takes=True)
    carry(app)
    case = staff.get(f"/staff/disputes/{reference}").text
    assert all(word in case for word in ("Taken from the balance", "€\N{NO-BREAK SPACE}50.00", "fraudulent", "The bank asks", "Disputed", "The bank decides"))
    processor(app).close_dispute(reference, won=False)
    carry(app)
    assert "None" in staff.get("/staff/disputes").text
    assert f"/staff/disputes/{reference}" in staff.get("/staff/disputes?state=lost").text
    assert "Dispute of" in owner.get("/refunds").text
    assert (owner.get(f"/staff/disputes/{reference}").status_code, staff.get("/staff/disputes/none").status_code) == (404, 404)
