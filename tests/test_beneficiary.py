"""Funds for another account: credited to its owner, billed to the payer, and neither learns of the other more than the payment needs."""

import statistics
import time
from dataclasses import replace

import pytest
from flask import Flask

from app import clock, customers, db, invoicing, payments, wallet
from app.customers import User
from app.money import Money
from app.payments import NotPayable, Payment
from tests.conftest import BERLIN, Browser, person, sign_in
from tests.pay import again, carry, choose, of, publish_rates
from tests.test_links import close
from tests.trade import fund

REFUSED = "Funds can&#39;t be added to this login."


@pytest.fixture
def anna(app: Flask) -> User:
    """Who pays, in euro."""
    publish_rates()
    return person("anna", profile=BERLIN)


@pytest.fixture
def owner_of_money(app: Flask) -> User:
    """Whose balance it is, in złoty, with a large balance nobody else may see."""
    user = person("bartek", name="Bartosz Secret", profile=replace(BERLIN, name="Bartosz Secret", currency="PLN"))
    fund(user.customer_id or 0, 7_654_321, "PLN")
    return user


def order(browser: Browser, login: str, amount: str = "50", **more: str):
    """Order a top-up for a login as the form does."""
    return browser.submit("/add-funds", {"amount": amount, "currency": "EUR", "beneficiary": login, **more})


def paid_for(app: Flask, payer: User, login: str, minor: int = 50_00) -> Payment:
    """A top-up for a login, paid."""
    whom = customers.find_beneficiary(login)
    bill = payments.order_topup(payer.customer_id or 0, Money(minor, "EUR"), "", whom)
    payment = of(payments.start(payer.customer_id or 0, bill.number, "sandbox-card", payments.options(bill).quote_token))
    choose(app, payment, "approve")
    carry(app)
    return again(payment)


def test_the_owner_gets_the_money_in_its_currency_and_the_payer_the_papers(app: Flask, anna: User, owner_of_money: User) -> None:
    before = wallet.state(owner_of_money.customer_id or 0).available
    payment = paid_for(app, anna, "bartek")
    assert (payment.state, payment.credited_currency) == ("paid", "PLN")
    assert wallet.state(owner_of_money.customer_id or 0).available == before + (payment.credited or 0)
    assert wallet.state(anna.customer_id or 0).available == 0
    bill = payments.bill_of(payment)
    assert (bill.customer_id, bill.beneficiary_id) == (anna.customer_id, owner_of_money.customer_id)
    assert bill.lines[0].detail == "To the account bartek"
    assert invoicing.find(owner_of_money.customer_id or 0, bill.number) is None
    to = dict(db.rows("select kind || ':' || recipient, body_text from mails where kind in ('payment_confirmed', 'funds_received')"))
    assert set(to) == {"payment_confirmed:anna@example.com", "funds_received:bartek@example.com"}
    assert "added to the balance of the other account" in to["payment_confirmed:anna@example.com"]
    assert "Anna" not in to["funds_received:bartek@example.com"]


def test_the_payer_never_sees_the_balance_of_the_owner(app: Flask, anna: User, owner_of_money: User) -> None:
    payment, bill = (found := paid_for(app, anna, "bartek")), payments.bill_of(found)
    after = wallet.state(owner_of_money.customer_id or 0).available
    browser = sign_in(app.test_client(), anna)
    pages = [f"/payments/{payment.public_id}", f"/invoices/{bill.number}", "/invoices", "/transactions", "/refunds", "/balance", "/notifications"]
    contents = [browser.get(path).text for path in pages] + [str(row.content) for row in db.rows("select content from documents")]
    for text in contents:
        assert "Balance after</dt>" not in text
        assert "Secret" not in text
        for figure in (f"{after / 100:,.2f}", str(after)):
            assert figure not in text


def test_the_owner_sees_the_movement_and_nothing_of_the_payer(app: Flask, anna: User, owner_of_money: User) -> None:
    payment = paid_for(app, anna, "bartek")
    browser = sign_in(app.test_client(), owner_of_money)
    page = browser.get("/transactions").text
    assert "Top-up from another account" in page
    numbers = [row.number for row in db.rows("select number from documents")]
    assert "Top-up from another account" not in browser.get("/transactions?q=4242").text, "not found by what it was paid with"
    for path in ("/transactions", "/transactions.csv", "/balance"):
        text = browser.get(path).text
        for word in ("anna", "Anna", "Kowalska", "4242", *numbers):
            assert word not in text, (path, word)
    assert browser.get(f"/payments/{payment.public_id}").status_code == 404


def test_a_refusal_of_the_processor_adds_nothing(app: Flask, anna: User, owner_of_money: User) -> None:
    before = wallet.state(owner_of_money.customer_id or 0).available
    bill = payments.order_topup(anna.customer_id or 0, Money(50_00, "EUR"), "", customers.find_beneficiary("bartek"))
    payment = of(payments.start(anna.customer_id or 0, bill.number, "sandbox-card", payments.options(bill).quote_token))
    choose(app, payment, "decline-funds")
    carry(app)
    assert again(payment).state == "failed"
    assert wallet.state(owner_of_money.customer_id or 0).available == before


@pytest.mark.parametrize("how", ["closed", "disabled"])
def test_an_account_closed_after_the_order_is_not_paid_into_and_what_was_on_its_way_is_kept(app: Flask, anna: User, owner_of_money: User, how: str) -> None:
    whom, customer_id = customers.find_beneficiary("bartek"), anna.customer_id or 0
    late, never = (payments.order_topup(customer_id, Money(minor, "EUR"), "", whom) for minor in (50_00, 60_00))
    payment = of(payments.start(customer_id, late.number, "sandbox-card", payments.options(late).quote_token))
    close(owner_of_money, how)
    with pytest.raises(NotPayable, match="added to this account any more"):
        payments.start(customer_id, never.number, "sandbox-card", payments.options(never).quote_token)
    before = wallet.state(owner_of_money.customer_id or 0).available
    choose(app, payment, "approve")
    carry(app)
    assert (again(payment).state, wallet.state(owner_of_money.customer_id or 0).available) == ("paid", before + (again(payment).credited or 0))


def test_a_bill_for_another_that_is_paid_by_its_copied_link_is_not_called_the_owners_link(app: Flask, anna: User, owner_of_money: User) -> None:
    bill = payments.order_topup(anna.customer_id or 0, Money(50_00, "EUR"), "", customers.find_beneficiary("bartek"))
    link = payments.share(anna.customer_id or 0, bill.number)
    assert link
    choose(app, of(payments.start(anna.customer_id or 0, bill.number, "sandbox-card", payments.options(bill).quote_token, link)), "approve")
    carry(app)
    page = sign_in(app.test_client(), owner_of_money).get("/transactions").text
    assert "Top-up from another account" in page
    assert "your link" not in page + str(db.scalar("select body_text from mails where kind = 'funds_received'"))


def test_the_page_shows_what_is_credited_and_no_balance(app: Flask, anna: User, owner_of_money: User) -> None:
    page = sign_in(app.test_client(), anna).get("/add-funds?amount=50&currency=EUR&beneficiary=Bartek", headers={"HX-Request": "true", "HX-Request-Type": "partial"}).text
    assert "Added to bartek" in page
    assert "PLN" in page
    assert "Balance after" not in page


def test_a_large_balance_refuses_nobody_elses_money_so_that_it_cannot_be_guessed(app: Flask, anna: User) -> None:
    rich = person("carol", profile=BERLIN)
    fund(rich.customer_id or 0, 49_999_00)
    browser = sign_in(app.test_client(), anna)
    answer = order(browser, "carol", "9000")
    assert answer.status_code == 303
    assert browser.submit(answer.location, {"method": "sandbox-card"}).status_code == 303


def test_the_own_login_is_no_other_account(app: Flask, anna: User) -> None:
    assert order(sign_in(app.test_client(), anna), " Anna ").status_code == 303
    assert db.scalar("select count(*) from bills where beneficiary_id <> customer_id") == 0


def test_an_invoice_for_payment_is_never_made_for_oneself_by_mistake(app: Flask, anna: User, owner_of_money: User) -> None:
    browser = sign_in(app.test_client(), anna)
    assert "/add-funds/invoice" not in browser.get("/add-funds?amount=50&currency=EUR&beneficiary=bartek").text
    assert browser.get("/add-funds/invoice?amount=50&currency=EUR&beneficiary=bartek").location == "/add-funds?amount=50&currency=EUR&beneficiary=bartek"


def test_the_same_order_for_another_is_another_bill(app: Flask, anna: User, owner_of_money: User) -> None:
    browser = sign_in(app.test_client(), anna)
    assert order(browser, "bartek").location == order(browser, "bartek").location != order(browser, "").location


# Nobody learns who exists


@pytest.fixture
def refused(app: Flask, anna: User) -> list[str]:
    """A login of every kind that takes no funds."""
    person("nele", verified=False, profile=BERLIN)
    person("sven", role="support")
    person("nocurrency", profile=replace(BERLIN, currency=None))
    closed, disabled = person("closed", profile=BERLIN), person("disabled", profile=BERLIN)
    with db.transaction():
        db.execute("update customers set closed_at = %(now)s where id = %(id)s", id=closed.customer_id, now=clock.now())
        db.execute("update users set disabled_at = %(now)s where id = %(id)s", id=disabled.id, now=clock.now())
    return ["nobody-at-all", "nele", "sven", "nocurrency", "closed", "disabled", "bartek@example.com", "x" * 400, "' or 1=1 --"]


def test_every_login_that_takes_no_funds_gets_the_same_answer(app: Flask, anna: User, refused: list[str]) -> None:
    browser, answers = sign_in(app.test_client(), anna), set()
    for login in refused:
        forget_tries()
        answer = order(browser, login)
        assert answer.status_code == 422
        assert REFUSED in answer.text
        assert 'aria-invalid="true"' in answer.text
        assert "autofocus" not in answer.text  # the focus goes to the field that is marked
        assert "One field needs another look." in answer.text
        partial = browser.get("/add-funds", query_string={"amount": "50", "currency": "EUR", "beneficiary": login}, headers={"HX-Request": "true", "HX-Request-Type": "partial"})
        answers.add(partial.text)
    assert len(answers) == 1
    assert db.scalar("select count(*) from bills") == 0


def test_every_login_that_takes_no_funds_takes_the_same_time(refused: list[str]) -> None:
    taken: dict[str, list[float]] = {login: [] for login in refused[:6]}
    for _ in range(60):
        for login, times in taken.items():
            start = time.perf_counter()
            customers.find_beneficiary(login)
            times.append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in taken.values()]
    assert max(medians) < 3 * min(medians)


def test_wrong_logins_are_counted_and_right_ones_are_not(app: Flask, anna: User, owner_of_money: User) -> None:
    browser = sign_in(app.test_client(), anna)
    for _ in range(12):
        assert browser.get("/add-funds?amount=50&currency=EUR&beneficiary=bartek").status_code == 200
    answers = [order(browser, f"guess-{number}").status_code for number in range(12)]
    assert answers == [422] * 10 + [429] * 2
    assert browser.get("/add-funds?amount=50&currency=EUR").status_code == 200


def forget_tries() -> None:
    """Let the next try be the first."""
    with db.transaction():
        db.execute("delete from rate_limits")
