"""The pages of adding funds, as a browser without JavaScript and one with it use them."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask

import config
from app import clock, customers, db, exchange, fx, gateways, invoicing, payments, wallet
from app.blueprints.add_funds import offered_currencies
from app.customers import User
from app.invoicing import Line
from app.money import CURRENCIES, Money
from app.sandbox_processor import CHOICES
from tests.conftest import BERLIN, Browser, person, sign_in
from tests.pay import begin, carry, choose, processor, publish_rates, topup

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


def text(answer) -> str:
    """What a reader sees: no tags, one space for many."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)).replace("\xa0", " ")


def token_in(answer) -> str:
    found = re.search(r'name="quote" value="([^"]*)"', answer.text)
    assert found
    return found[1]


def order(browser: Browser, amount: str = "25", currency: str = "EUR") -> str:
    answer = browser.submit("/add-funds", {"amount": amount, "currency": currency})
    assert answer.status_code == 303
    return answer.headers["Location"].removesuffix("/pay").removeprefix("/invoices/")


# The form


def test_limits_stand_there_before_anything_is_sent(owner: Browser):
    page = owner.get("/add-funds")
    assert page.status_code == 200
    assert "From € 5.00 to € 10,000.00 at a time. An account holds up to € 50,000.00." in text(page)
    assert "From ¥ 500 to ¥ 1,500,000 at a time." in text(owner.get("/add-funds?currency=JPY"))


def test_every_enabled_currency_has_its_own_limits(app: Flask):
    for code in config.current().currencies:
        allowed = payments.LIMITS[code]
        assert code in CURRENCIES
        assert 0 < allowed.minimum < allowed.maximum < allowed.maximum_balance


def test_while_typing_a_fragment_tells_what_is_added(owner: Browser):
    publish_rates()
    answer = owner.get("/add-funds?amount=250&currency=USD", headers=PARTIAL)
    assert answer.text.lstrip().startswith('<section class="panel region" id="quote"')
    assert "<html" not in answer.text
    for fact in ("You pay $ 250.00", "1 USD = 0.922765 EUR", "ECB", "Added to your balance € 230.69", "Balance after € 230.69", "Rate held"):
        assert fact in text(answer)
    assert 'hx-target="#ways"' in answer.text
    assert 'hx-trigger="expired"' in answer.text
    assert fx.unseal(token_in(answer)) is not None
    assert db.scalar("select count(*) from quotes") == 0


def test_the_same_address_opened_by_hand_is_the_whole_page(owner: Browser):
    publish_rates()
    page = owner.get("/add-funds?amount=250&currency=USD")
    assert "<html" in page.text
    assert 'value="250"' in page.text
    assert "Added to your balance € 230.69" in text(page)


def test_a_payment_in_the_accounts_own_currency_shows_no_rate(owner: Browser):
    answer = text(owner.get("/add-funds?amount=25&currency=EUR", headers=PARTIAL))
    assert "Added to your balance € 25.00" in answer
    assert "Rate" not in answer


def test_without_javascript_a_button_shows_what_would_be_added_and_makes_nothing(owner: Browser):
    publish_rates()
    answer = owner.submit("/add-funds", {"amount": "250", "currency": "USD", "preview": "1"})
    assert answer.status_code == 200
    assert "Added to your balance € 230.69" in text(answer)
    assert db.scalar("select count(*) from bills") + db.scalar("select count(*) from quotes") == 0


def test_equivalents_are_shown_for_the_customers_other_currencies(app: Flask):
    publish_rates()
    browser = sign_in(app.test_client(), person("pola", profile=replace(BERLIN, display_currencies=("PLN",))))
    assert "About PLN 106.29" in text(browser.get("/add-funds?amount=25&currency=EUR", headers=PARTIAL))


BAD = ["", "abc", "0", "-5", "1e3", "NaN", "sNaN", "١٠", "５", "5.001", "4.99", "10000.01", "1,000", "9" * 70, "5 000,00", "<script>", "\x00", "1_000"]


@pytest.mark.parametrize("amount", BAD)
def test_a_bad_amount_is_422_with_the_field_marked_and_nothing_written(owner: Browser, amount: str):
    answer = owner.submit("/add-funds", {"amount": amount, "currency": "EUR"})
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text
    assert re.search(r'<p class="error" id="amount-error">[A-Z1<].+?</p>', answer.text)
    assert "<script>" not in answer.text.split("amount-error")[1][:300]
    assert db.scalar("select count(*) from bills") == 0
    partial = owner.get("/add-funds", query_string={"amount": amount, "currency": "EUR"}, headers=PARTIAL)
    assert partial.status_code == (400 if "\0" in amount else 200)  # no address holds a NUL
    assert "Added to your balance" not in partial.text


def test_a_figure_is_never_taken_for_one_of_another_currency(owner: Browser):
    answer = owner.submit("/add-funds", {"amount": "5000", "currency": "ISK"})
    assert (answer.status_code, "Nothing can be paid in this currency" in answer.text) == (422, True)
    assert db.scalar("select count(*) from bills") == 0


def test_an_invoice_for_payment_bears_the_details_that_were_entered_for_it(owner: Browser, demo_customer: User):
    billing = {"kind": "individual", "name": "Anna Kowalska", "street": "Turmstraße 12", "postcode": "10559", "city": "Berlin", "country": "DE"}
    for street in ("Turmstraße 12", "Hauptweg 9", "Hauptweg 9"):
        assert owner.submit("/add-funds/invoice", {**billing, "street": street, "amount": "50", "currency": "EUR"}).status_code == 303
    assert [row.street for row in db.rows("select buyer ->> 'street' as street from bills order by id")] == ["Turmstraße 12", "Hauptweg 9"]
    # They are for that bill alone, until its owner asks for more and is told so.
    assert db.scalar("select street from customers where id = %(id)s", id=demo_customer.customer_id) == "Turmstraße 12"
    kept = owner.submit("/add-funds/invoice", {**billing, "street": "Neuweg 1", "amount": "60", "currency": "EUR", "keep": "1"})
    assert "saved in your profile" in owner.get(kept.headers["Location"]).text
    assert db.scalar("select street from customers where id = %(id)s", id=demo_customer.customer_id) == "Neuweg 1"
    customer = customers.get(demo_customer.customer_id or 0)
    customers.update_profile(demo_customer.id, customer.id, replace(customer.profile, po_number="PO-7"), locale="en", timezone="UTC")
    assert owner.submit("/add-funds", {"amount": "50", "currency": "EUR"}).status_code == 303
    assert db.scalar("select po_number from bills order by id desc limit 1") == "PO-7"


def test_amounts_are_read_as_the_customers_locale_writes_them(app: Flask):
    user = person("gerda", profile=BERLIN)
    customers.update_profile(user.id, user.customer_id or 0, BERLIN, locale="de", timezone="Europe/Berlin")
    browser = sign_in(app.test_client(), user)
    number = order(browser, "1.234,50")
    bill = invoicing.find(user.customer_id or 0, number)
    assert bill is not None
    assert bill.total == 1234_50


def test_the_bill_keeps_the_rate_that_was_shown(owner: Browser, demo_customer: User):
    publish_rates()
    shown = token_in(owner.get("/add-funds?amount=250&currency=USD"))
    with clock.travel(clock.now() + timedelta(minutes=5)):
        publish_rates(USD="1.0837")
        answer = owner.submit("/add-funds", {"amount": "250", "currency": "USD", "quote": shown})
        held = fx.unseal(token_in(owner.get(answer.headers["Location"])))
    offer = fx.unseal(shown)
    assert held is not None
    assert offer is not None
    assert held.expires_at == offer.expires_at


def test_without_a_rate_nothing_is_promised(owner: Browser):
    answer = owner.submit("/add-funds", {"amount": "250", "currency": "USD"})
    assert answer.status_code == 422
    assert "There is no current exchange rate from USD to EUR" in text(answer)


def test_an_incomplete_profile_is_said_with_the_way_to_complete_it(app: Flask):
    browser = sign_in(app.test_client(), person("ida", profile=replace(BERLIN, street="", city="")))
    page = browser.get("/add-funds")
    assert "street, city" in text(page)
    assert 'href="/profile"' in page.text
    assert browser.submit("/add-funds", {"amount": "25", "currency": "EUR"}).status_code == 422
    assert db.scalar("select count(*) from bills") == 0


# The payment page


def test_the_whole_way_without_javascript(app: Flask, owner: Browser, demo_customer: User):
    number = order(owner)
    page = owner.get(f"/invoices/{number}/pay")
    assert "Pay € 25.00" in text(page)
    leaving = owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"})
    assert leaving.status_code == 303
    hosted = leaving.headers["Location"]
    assert hosted.startswith("/sandbox/pay/sb_")
    shown = app.test_client().get(hosted)
    assert "No real money" in text(shown)
    back = app.test_client().submit(hosted, {"choice": "approve"})
    assert back.status_code == 303
    status = owner.get(back.headers["Location"])
    assert "€ 25.00 added to your balance" in text(status)
    assert "Visa •••• 4242" in text(status)
    assert 'data-minor="2500"' in status.text
    assert owner.get(f"/invoices/{number}/pay").headers["Location"] == "/invoices/TU-2026-000001"
    assert carry(app) == 1
    assert wallet.state(demo_customer.customer_id or 0).available == 2500


def test_what_works_is_first_and_the_rest_says_why_not(owner: Browser):
    publish_rates()
    page = text(owner.get(f"/invoices/{order(owner, '8', 'EUR')}/pay"))
    assert page.index("Bank card") < page.index("Cryptocurrency")
    assert "Instant · no fee" in page
    assert "From € 10.00" in page


@pytest.mark.parametrize("method", ["", "nothing", "sandbox-crypto", "balance"])
def test_what_cannot_be_chosen_is_422_with_a_sentence(owner: Browser, method: str):
    answer = owner.submit(f"/invoices/{order(owner, '8')}/pay", {"method": method})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert db.scalar("select count(*) from payments") == 0


def test_an_expired_rate_is_422_with_the_new_one_and_the_second_try_goes_through(owner: Browser):
    publish_rates()
    number = order(owner, "250", "USD")
    old = token_in(owner.get(f"/invoices/{number}/pay"))
    with clock.travel(clock.now() + timedelta(minutes=16)):
        answer = owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card", "quote": old})
        assert answer.status_code == 422
        assert "Here is the rate of this moment" in text(answer)
        assert owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card", "quote": token_in(answer)}).status_code == 303


def test_the_quote_comes_alone_when_its_countdown_is_over(owner: Browser):
    publish_rates()
    answer = owner.get(f"/invoices/{order(owner, '250', 'USD')}/pay", headers=PARTIAL)
    assert answer.text.lstrip().startswith('<section class="panel region" id="quote"')
    assert 'name="quote"' in answer.text


def test_a_processor_that_is_down_is_said_beside_its_method(app: Flask, owner: Browser):
    number = order(owner)
    processor(app).down = True
    try:
        answer = owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"})
    finally:
        processor(app).down = False
    assert answer.status_code == 503
    assert "Does not answer at the moment" in text(answer)
    assert "stays payable" in text(answer)
    assert owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"}).status_code == 303


def test_twice_pressed_leads_to_the_same_page(owner: Browser):
    number = order(owner)
    first, second = (owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"}).headers["Location"] for _ in range(2))
    assert first == second


def test_a_service_bill_offers_the_balance_and_takes_it_all_or_nothing(app: Flask, owner: Browser, demo_customer: User):
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id or 0, "vps-7", "EUR", [Line("VPS M", 10_00)])
    assert "€ 11.90 more is needed" in text(owner.get(f"/invoices/{bill.number}/pay"))
    assert owner.submit(f"/invoices/{bill.number}/pay", {"method": "balance"}).status_code == 422
    payment = begin(topup(demo_customer, Money.of("20", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    page = owner.get(f"/invoices/{bill.number}/pay")
    assert "€ 8.10 would be left" in text(page)
    assert 'value="balance" checked' in page.text
    answer = owner.submit(f"/invoices/{bill.number}/pay", {"method": "balance"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/invoices/INV-2026-000001")


def test_a_bonus_counts_where_it_will_be_spent(app: Flask, owner: Browser, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("10", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    payments.grant_bonus(demo_customer.customer_id or 0, Money.of("5", "EUR"), reason="Welcome", reference="welcome")
    with db.transaction():
        bill = invoicing.issue_service_bill(demo_customer.customer_id or 0, "vps-7", "EUR", [Line("VPS M", 10_00)])
    assert "€ 3.10 would be left" in text(owner.get(f"/invoices/{bill.number}/pay"))
    assert owner.submit(f"/invoices/{bill.number}/pay", {"method": "balance"}).status_code == 303


def test_a_top_up_does_not_offer_the_balance_and_refuses_it(app: Flask, owner: Browser, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("100", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    number = order(owner)
    assert 'value="balance"' not in owner.get(f"/invoices/{number}/pay").text
    assert owner.submit(f"/invoices/{number}/pay", {"method": "balance"}).status_code == 422
    assert wallet.state(demo_customer.customer_id or 0).available == 100_00


def test_a_strangers_a_wrong_and_a_missing_bill_are_the_same_404(app: Flask, owner: Browser, stranger: Browser):
    number = order(owner)
    payment = begin(invoicing.find(1, number))  # type: ignore[arg-type]
    for path in (f"/invoices/{number}/pay", "/invoices/PF-2026-999999/pay", f"/payments/{payment.public_id}", "/payments/pay_x"):
        assert stranger.get(path).status_code == 404
        assert stranger.get(path, headers=PARTIAL).status_code == 404
    assert stranger.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"}).status_code == 404


def test_another_name_of_this_host_is_kept_on_the_way(app: Flask, owner: Browser):
    number = order(owner)
    leaving = owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"}).headers["Location"]
    assert app.test_client().submit(leaving, {"choice": "approve"}).headers["Location"].startswith("/payments/pay_")


# The page one comes back to


@pytest.mark.parametrize(
    ("choice", "sentence", "polls"),
    [
        ("approve", "added to your balance", False),
        ("silent", "added to your balance", False),
        ("pending", "is on its way", True),
        ("decline-funds", "There is not enough money for this payment", False),
        ("late", "The payment page has closed", False),
        ("short", "22.50 arrived, and we are looking at it", False),
    ],
)
def test_it_shows_the_true_state_and_asks_on_only_while_that_can_change(app: Flask, owner: Browser, demo_customer: User, choice: str, sentence: str, polls: bool):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, choice)
    page = owner.get(f"/payments/{payment.public_id}")
    assert sentence in text(page)
    assert ("hx-trigger" in page.text.split('id="status"')[1]) is polls
    partial = owner.get(f"/payments/{payment.public_id}", headers=PARTIAL)
    assert partial.text.lstrip().startswith('<section class="panel outcome" id="status"')
    assert ('hx-target="#balance-chip"' in partial.text) is (sentence == "added to your balance")


def test_it_goes_from_waiting_to_confirmed_and_the_chip_with_it(app: Flask, owner: Browser, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    waiting = owner.get(f"/payments/{payment.public_id}")
    assert "is not paid yet" in text(waiting)
    assert 'hx-trigger="load delay:2s"' in waiting.text
    choose(app, payment, "approve")
    with clock.travel(clock.now() + timedelta(seconds=2)):
        done = owner.get(f"/payments/{payment.public_id}", headers=PARTIAL)
    assert "added to your balance" in text(done)
    assert 'data-minor="2500"' in done.text


def test_after_a_decline_the_next_best_method_is_one_click_away(app: Flask, owner: Browser, demo_customer: User):
    bill = topup(demo_customer, Money.of("25", "EUR"))
    payment = begin(bill)
    choose(app, payment, "decline-card")
    page = owner.get(f"/payments/{payment.public_id}")
    assert f'href="/invoices/{bill.number}/pay?method=sandbox-paypal"' in page.text
    chosen = owner.get(f"/invoices/{bill.number}/pay?method=sandbox-paypal")
    assert re.search(r'value="sandbox-paypal" checked', chosen.text)


def test_looking_at_a_final_state_asks_nobody(app: Flask, owner: Browser, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    carry(app)

    def unexpected(*_: object) -> None:
        raise AssertionError("a settled payment was looked up")

    monkeypatch.setattr("app.gateways.sandbox.Sandbox.lookup", unexpected)
    assert owner.get(f"/payments/{payment.public_id}").status_code == 200


def test_each_page_asks_the_database_little(app: Flask, owner: Browser, demo_customer: User, monkeypatch: pytest.MonkeyPatch):
    publish_rates()
    asked: list[str] = []
    fetch = db._fetch
    monkeypatch.setattr(db, "_fetch", lambda connection, sql, params: asked.append(sql) or fetch(connection, sql, params))

    def statements(path: str, **more) -> int:
        asked.clear()
        assert owner.get(path, **more).status_code == 200
        return len(asked)

    assert statements("/add-funds") <= 5
    assert statements("/add-funds?amount=250&currency=USD", headers=PARTIAL) <= 5
    number = order(owner, "25", "EUR")
    assert statements(f"/invoices/{number}/pay") <= 7  # the saved cards are asked for too, and which processor is silent
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    assert statements(f"/payments/{payment.public_id}") <= 5


# The pretend processor's page


def test_three_d_secure_asks_first(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    path = f"/sandbox/pay/{payment.gateway_reference}"
    visitor = app.test_client()
    asked = visitor.submit(path, {"choice": "3ds"}).headers["Location"]
    assert "Your bank asks" in text(visitor.get(asked))
    assert visitor.submit(path, {"choice": "approve"}).status_code == 303
    assert "already" in text(visitor.get(path))


def test_it_knows_its_own_sessions_only_and_refuses_what_it_does_not_offer(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    visitor = app.test_client()
    assert visitor.get("/sandbox/pay/sb_nobody").status_code == 404
    assert visitor.submit(f"/sandbox/pay/{payment.gateway_reference}", {"choice": "nonsense"}).status_code == 400
    assert visitor.submit(f"/sandbox/pay/{payment.gateway_reference}", {"choice": "cancel"}).headers["Location"].endswith(f"/pay?left={payment.public_id}")


def test_it_does_not_exist_beside_a_real_processor(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    settings = config.current()
    config.use(replace(settings, sandbox=False))
    try:
        assert app.test_client().get(f"/sandbox/pay/{payment.gateway_reference}").status_code == 404
    finally:
        config.use(settings)
    assert "sandbox" not in gateways.build(replace(settings, sandbox=False), processor(app))


def test_a_currency_without_rates_is_offered_only_where_nothing_is_converted(owner: Browser):
    page = owner.get("/add-funds").text
    assert "<option>USD" in page
    assert "KWD" not in page
    assert owner.submit("/add-funds", {"amount": "50", "currency": "KWD"}).status_code == 422
    assert offered_currencies("KWD") == ["KWD"]
    assert "KWD" in offered_currencies(None)


@pytest.mark.parametrize("path", ["/add-funds", "/add-funds/invoice"])
def test_a_currency_that_is_not_known_is_said_and_not_taken_for_another(owner: Browser, path: str):
    assert "Nothing can be paid in this currency. Choose another one." in owner.get(f"{path}?amount=50&currency=XYZ").text
    assert "Nothing can be paid" not in owner.get(f"{path}?amount=50&currency=EUR").text


def test_who_goes_back_from_the_page_closes_it_and_may_change_the_currency(app: Flask, owner: Browser, demo_customer: User):
    def bar() -> str:
        return exchange.obstacle(customers.get(demo_customer.customer_id or 0))

    number = order(owner)
    leaving = owner.submit(f"/invoices/{number}/pay", {"method": "sandbox-card"}).headers["Location"]
    payment = db.row("select public_id, gateway_reference from payments")
    assert f"Your payment of €\u00a025.00 by Bank card for {number} has been started." in bar()
    back = owner.submit(leaving.removeprefix("http://localhost"), {"choice": "cancel"}).headers["Location"]
    assert back == f"/invoices/{number}/pay?left={payment.public_id}"
    assert owner.get(back).headers["Location"] == f"/invoices/{number}/pay"
    assert db.scalar("select state from payments") == "expired"
    assert bar() == ""
    processor(app).choose(payment.gateway_reference, CHOICES["approve"])
    assert db.scalar("select state from sandbox_sessions") == "expired", "nothing can be paid on it any more"


def test_a_stranger_closes_nobodys_page(owner: Browser, stranger: Browser, demo_customer: User):
    owner.submit(f"/invoices/{order(owner)}/pay", {"method": "sandbox-card"})
    public_id = db.scalar("select public_id from payments")
    payments.leave(person("eve").customer_id or 0, public_id)
    assert db.scalar("select state from payments") == "created"


def test_who_paid_and_then_goes_back_has_paid(app: Flask, owner: Browser, demo_customer: User):
    owner.submit(f"/invoices/{order(owner)}/pay", {"method": "sandbox-card"})
    payment = db.row("select public_id, gateway_reference, customer_id from payments")
    processor(app).choose(payment.gateway_reference, CHOICES["approve"])
    payments.leave(payment.customer_id, payment.public_id)
    assert db.scalar("select state from payments") == "paid"
