"""The pages Services and Refunds: what runs and how long it is paid, what can go back and what went."""

import re
from datetime import date, timedelta

import pytest

from app import clock, db, mail, payments, refunds, services
from app.customers import User
from tests.money_helpers import EUR
from tests.pay import again, begin, carry, choose, topup
from tests.trade import fund, offer_plans, on


@pytest.fixture
def anna(app, demo_customer: User) -> User:
    """A customer with € 100.00 and nothing that runs."""
    offer_plans()
    fund(demo_customer.customer_id, 100_00)
    return demo_customer


def test_without_services_the_page_says_what_will_stand_there(anna, owner):
    assert "No services yet" in owner.get("/services").text


def test_a_service_shows_price_paid_through_and_the_day_it_renews(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="web-1", detail="Berlin")
        services.order(anna.customer_id, "ip", 1)
        page = owner.get("/services").text
    for words in ("web-1", "VPS NVMe-4 · Berlin", "€\u00a023.80", "Apr 9, 2026", "30 days left", "Apr 10", "in 31 days", "Active", "Balance"):
        assert words in page
    assert "Covers every renewal until" in page


def test_the_last_paid_day_and_the_days_after_it(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, auto_renew=False)
    with on(date(2026, 4, 9)):
        assert "last paid day" in owner.get("/services").text
    with on(date(2026, 4, 11)):
        assert "2 days over" in owner.get("/services").text


def test_what_runs_short_is_marked_and_can_be_added_exactly(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3)
        services.order(anna.customer_id, "vps-4", 1, label="web-2")
        page = owner.get("/services").text
    assert "Short €\u00a015.43" in page
    assert "/add-funds?amount=15.43" in page


def test_what_waits_for_money_links_to_its_bill(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3)
        services.order(anna.customer_id, "vps-4", 1, label="web-2")
    with on(date(2026, 4, 10)):
        services.renew_due()
        page = owner.get("/services").text
    number = services.of_customer(anna.customer_id)[0].waiting
    assert "Waits for money" in page
    assert f'href="/invoices/{number}"' in page


def test_a_service_that_does_not_renew_by_itself_is_billed_before_it_ends(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="by-hand", auto_renew=False)
        assert "Ends Apr 9" in owner.get("/services").text
    with on(date(2026, 4, 1)):
        assert (services.bill_ahead(), services.bill_ahead()) == (1, 0)
        page = owner.get("/services").text
    assert "Unpaid" in page
    assert "auto-renew off" in page
    (letter,) = [letter for letter in mail.newest(9) if letter.kind == "service_ends"]
    assert letter.subject == "by-hand ends on April 9, 2026"
    assert [file["filename"] for file in letter.attachments] == [f"{services.of_customer(anna.customer_id)[0].waiting}.pdf"]


def test_who_will_not_have_enough_is_told_a_week_before_and_once_for_each_renewal(anna):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3)
        services.order(anna.customer_id, "vps-4", 1, label="web-2")
    told = []
    for day in (2, 3, 3, 9):
        with on(date(2026, 4, day)):
            services.warn_short()
            told.append([letter.subject for letter in mail.newest(9) if letter.kind == "balance_low"])
    assert told == [[], *[["Your balance does not cover web-2 on April 10, 2026"]] * 3]


def test_a_service_can_be_told_not_to_renew_by_itself_and_to_do_it_again(anna, owner):
    service = services.order(anna.customer_id, "vps-4", 1, label="web-1")
    page = f"/services/{service.public_id}/payment"
    assert "Nothing by itself" in owner.get(page).text
    owner.submit(page, {"source": "nothing"})
    assert not services.of_customer(anna.customer_id)[0].auto_renew
    assert "web-1 does not renew by itself any more" in owner.get("/services").text
    assert 'value="nothing" checked' in owner.get(page).text
    owner.submit(page, {"source": "balance"})
    assert services.of_customer(anna.customer_id)[0].auto_renew


def test_who_cancels_the_bill_of_a_renewal_reads_that_it_still_renews(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3)
        service = services.order(anna.customer_id, "vps-4", 1, label="web-2")
    with on(date(2026, 4, 10)):
        services.renew_due()
        number = next(one.waiting for one in services.of_customer(anna.customer_id) if one.waiting)
        owner.submit(f"/invoices/{number}/cancel", {})
        assert "web-2 still renews by itself once the balance covers it" in owner.get("/services").text
        services.pay_from(anna.customer_id, service.public_id, by_itself=False)
        assert services.renewing_by(number) == []


def test_a_debt_is_said_where_the_renewals_stand(app, anna, owner):
    payment = begin(topup(anna, EUR("20")))
    choose(app, payment, "approve")
    carry(app)
    services.order(anna.customer_id, "vps-4", 3)  # 67.83 of 120
    services.order(anna.customer_id, "vps-4", 1, label="web-2")
    services.order(anna.customer_id, "vps-4", 1, label="web-3")
    refunds.open_dispute(payment.public_id, EUR("20"), reference="du_x", reason="fraud")
    page = owner.get("/services").text
    assert "15.43</b> is owed. Until that is settled nothing renews by itself" in " ".join(page.replace("\u00a0", " ").split())
    assert "Covers every renewal" not in page


def test_what_ended_stands_below(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="old-one")
        with db.transaction():
            db.execute("update services set status = 'terminated', ended_at = created_at")
        page = owner.get("/services").text
    assert "Ended" in page
    assert "Mar 10, 2026 – Apr 9, 2026" in page


def test_a_stranger_sees_none_of_it(anna, stranger):
    services.order(anna.customer_id, "vps-4", 1, label="web-1")
    assert "web-1" not in stranger.get("/services").text


# Refunds


def test_refunds_without_payments(anna, owner):
    assert "Nothing to refund yet" in owner.get("/refunds").text


def test_each_payment_shows_what_can_go_back_and_why_the_rest_cannot(app, demo_customer, owner):
    offer_plans()
    for amount in ("30", "20"):
        payment = begin(topup(demo_customer, EUR(amount)))
        choose(app, payment, "approve")
        carry(app)
    services.order(demo_customer.customer_id, "vps-4", 1)
    page = owner.get("/refunds").text
    for words in ("Visa •••• 4242, €\u00a030.00", "€\u00a06.20", "€\u00a023.80 of it paid for services", "€\u00a026.20", "Ask for it"):
        assert words in page
    services.order(demo_customer.customer_id, "vps-4", 1)
    assert "1 other payment is spent in full" in owner.get("/refunds").text


def test_a_refund_shows_its_way_and_the_next_step(app, demo_customer, owner):
    payment = begin(topup(demo_customer, EUR("30")))
    choose(app, payment, "approve")
    carry(app)
    number = refunds.request(demo_customer.customer_id, again(payment).public_id, EUR("10"), "Too much")
    page = owner.get("/refunds").text
    for words in (number, "Requested", "Decision by support", "€\u00a010.00 is on its way back with RF-000001", "“Too much”"):
        assert words in page
    refunds.approve(number, actor="staff:sven")
    refunds.pay_out_due()
    page = owner.get("/refunds").text
    assert "Settled" in page
    assert "€\u00a010.00 went back already" in page


def test_arrears_stand_on_the_page_as_one_sum(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3, label="big", auto_renew=False)
        services.order(anna.customer_id, "vps-4", 1, label="web-1")
    with on(date(2026, 7, 19)):
        services.renew_due()
        page = owner.get("/services").text
        also = owner.get("/balance").text
        assert "pays all that is due" in owner.get("/add-funds").text
    for text in (page, also):
        assert "95.20" in text
        assert "(4 periods)" in text
        assert "/add-funds?amount=86.83" in text
        assert "all of it is paid at once" in text


def test_a_covered_next_renewal_is_not_called_short(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="web-1")
        assert services.runway(anna.customer_id).short_on == date(2026, 7, 10)
        page = owner.get("/services").text
    assert "Short" not in page
    assert "On July 10" in page


def test_a_service_without_a_price_says_so(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="web-1")
        with db.transaction():
            db.execute("delete from prices where net = 2000")
        page = owner.get("/services").text
    assert "No price" in page
    assert "cannot renew: VPS NVMe-4 has no price in your currency any more" in " ".join(page.replace("<b>", "").replace("</b>", "").split())
    assert "Covers every renewal of the next twelve months" not in page


def test_a_cancelled_next_period_can_be_paid_after_all(anna, owner):
    with clock.travel(clock.now() - timedelta(days=25)):
        service = services.order(anna.customer_id, "vps-4", 1, auto_renew=False)
    answer = owner.submit(f"/services/{service.public_id}/invoice")
    number = services.of_customer(anna.customer_id)[0].waiting
    assert answer.headers["Location"].endswith(f"/invoices/{number}/pay")


def test_a_raised_price_stands_on_the_page(anna, owner):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 1, label="web-1")
    with on(date(2026, 3, 20)):
        services.set_plan("vps-4", "vps", "VPS NVMe-4", {("EUR", 1): 40_00})
        page = owner.get("/services").text
    assert "€\u00a047.60 from Apr 19, 2026" in page


@pytest.mark.parametrize("auto_renew", [False, True])
def test_what_waits_says_how_its_bill_stands(anna, owner, auto_renew):
    with on(date(2026, 3, 10)):
        services.order(anna.customer_id, "vps-4", 3)
        services.order(anna.customer_id, "vps-4", 1, label="web-2", auto_renew=auto_renew)
    with on(date(2026, 4, 10) if auto_renew else date(2026, 4, 5)):
        (services.renew_due if auto_renew else services.bill_ahead)()
        page = owner.get("/services").text
        number = re.search(r'href="/invoices/(PF-[^"]+)"', page)
        assert number
        waits = "Waits for money" if auto_renew else "Unpaid"
        assert waits in page
        payments.start(anna.customer_id, number[1], "bank-transfer")
        page = owner.get("/services").text
    assert "Transfer on its way" in page
    assert waits not in page
