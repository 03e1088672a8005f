"""Links by which others pay: they show no more than they must, end when they are told to, and never touch a balance."""

import re
import socket
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from typing import Self

import pytest
from flask import Flask
from itsdangerous import URLSafeSerializer

import config
from app import clock, customers, db, invoicing, mail, payments, services, wallet
from app.customers import User
from app.money import Money
from app.payments import Link
from tests.conftest import BERLIN, Browser, person, sign_in
from tests.pay import again, carry, choose, publish_rates, topup
from tests.test_access_matrix import PARTIAL
from tests.test_documents import text_of
from tests.trade import fund, offer_plans
from tests.world import GUEST, by_link, pay_by_link

FORM = {"name": "Gustav Guest", "email": "gustav@example.com", "street": "Weg 2", "postcode": "10115", "city": "Berlin", "country": "DE"}


@pytest.fixture
def anna(app: Flask) -> User:
    """Whose bill and balance it is."""
    publish_rates()
    return person("anna", profile=replace(BERLIN, company="Secret Holding", kind="company"))


@pytest.fixture
def visitor(app: Flask) -> Browser:
    """Somebody without an account."""
    return app.test_client()


def shared(user: User, minor: int = 25_00) -> Link:
    """A link to pay a top-up bill of somebody."""
    link = payments.share(user.customer_id or 0, topup(user, Money(minor, "EUR")).number)
    assert link
    return link


def pay_page(visitor: Browser, link: Link) -> str:
    """Pay by a link as its page does; where the visitor is sent."""
    answer = visitor.submit(link.path, {"method": "sandbox-card"})
    assert answer.status_code == 303
    return str(answer.location)


# One bill


def test_the_page_shows_no_more_than_it_must(anna: User, visitor: Browser) -> None:
    link = shared(anna)
    fund(anna.customer_id or 0, 4_321_00)
    page = visitor.get(link.path)
    assert page.status_code == 200
    for word in ("Northbyte", link.number or "?", "Account funds", "25.00", "To be paid by"):
        assert word in page.text
    for word in ("Secret Holding", "Kowalska", "Turmstr", "10559", "anna", "4,321", "4321", "Balance", "/invoices", "log in"):
        assert word not in page.text, word
    assert page.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert page.headers["Referrer-Policy"] == "same-origin"


def test_who_is_signed_in_sees_the_page_as_everybody_does(app: Flask, anna: User, visitor: Browser) -> None:
    link = shared(anna)
    mine = sign_in(app.test_client(), anna).get(link.path).text
    assert "balance-chip" not in mine
    assert "log out" not in mine.lower()


def test_anybody_pays_it_from_outside_and_comes_back_to_a_page_without_a_login(app: Flask, anna: User, visitor: Browser) -> None:
    link = shared(anna)
    assert pay_page(visitor, link).startswith("/sandbox/pay/")
    payment = again(payments.open_of(link.bill_id or 0)[0])
    choose(app, payment, "approve")
    back = payment.as_charge().return_url.removeprefix(config.current().base_url)
    page = visitor.get(back).text
    assert "€\xa025.00 paid" in page
    assert "Secret Holding" not in page
    assert f"{back}/receipt.pdf" in page
    assert visitor.get(f"{back}/invoice.pdf").status_code == 404
    receipt = text_of(visitor.get(f"{back}/receipt.pdf").data)
    for said in ("Receipt", "Received € 25.00", "For TU-", "It is not a VAT invoice", payment.public_id):
        assert said in receipt
    for hidden in ("Secret Holding", "Anna", "balance"):
        assert hidden not in receipt
    assert wallet.state(anna.customer_id or 0).available == 25_00
    assert "This is paid" in visitor.get(link.path).text
    assert visitor.submit(link.path, {"method": "sandbox-card"}).location == link.path


def test_it_is_never_paid_from_the_balance(app: Flask, anna: User, visitor: Browser) -> None:
    offer_plans()
    fund(anna.customer_id or 0, 100_00)
    with db.transaction():
        bill = invoicing.issue_service_bill(anna.customer_id or 0, "VPS", "EUR", [invoicing.Line("VPS", 10_00)])
    link = payments.share(anna.customer_id or 0, bill.number)
    assert link
    owner = sign_in(app.test_client(), anna)
    for browser in (visitor, owner):
        for method in ("balance", "", "sandbox-nothing"):
            assert browser.submit(link.path, {"method": method}).status_code == 422
        assert 'value="balance"' not in browser.get(link.path).text
    assert wallet.state(anna.customer_id or 0).available == 100_00
    payment = pay_by_link(link)
    choose(app, payment, "approve")
    carry(app)
    services.settle_waiting()
    assert wallet.state(anna.customer_id or 0).available == 100_00
    assert invoicing.find(anna.customer_id or 0, bill.number).status == "paid"  # type: ignore[union-attr]


def test_owner_and_visitor_each_come_back_to_their_own_page(anna: User, visitor: Browser) -> None:
    link = shared(anna)
    inside = payments.start(anna.customer_id or 0, link.number or "", "sandbox-card")
    outside = pay_by_link(link)
    assert outside.gateway_reference != getattr(inside, "reference", None)
    returns = {payment.as_charge().return_url.split("/")[3] for payment in payments.open_of(link.bill_id or 0)}
    assert returns == {"payments", "paid"}


@pytest.mark.parametrize("how", ["revoked", "renewed", "over", "altered", "other purpose", "other key", "unknown", "junk"])
def test_every_link_that_does_not_work_is_the_same_page(anna: User, visitor: Browser, how: str) -> None:
    link = shared(anna)
    token, number = by_link(link), link.number or ""
    if how == "revoked":
        assert payments.unshare(anna.customer_id or 0, number)
    elif how == "renewed":
        payments.share(anna.customer_id or 0, number, anew=True)
    elif how == "altered":
        token = token[:-9] + ("A" if token[-9] != "A" else "B") + token[-8:]
    elif how == "other purpose":
        token = by_link(payments.ask(anna.customer_id or 0, "Anna", None))
    elif how == "other key":
        token = URLSafeSerializer("x" * 48, salt="bill link of localhost").dumps(link.key)
    elif how == "unknown":
        token = URLSafeSerializer(config.current().secret_key, salt=f"bill link of {config.current().host}").dumps("nothing")
    elif how == "junk":
        token = "x" * 40
    with clock.travel(clock.now() + timedelta(days=31 if how == "over" else 0)):
        answers = [visitor.get(f"/pay/{token}"), visitor.submit(f"/pay/{token}", {"method": "sandbox-card"}), visitor.get(f"/paid/{token}"), visitor.get(f"/top-up/{'x' * 30}")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({re.sub(r'"X-CSRFToken":"[^"]+"', "", answer.text) for answer in answers}) == 1
    assert "This link does not work" in answers[0].text
    assert "Nothing was paid" not in answers[0].text, "somebody may have paid by it before"


@pytest.mark.parametrize(("closed", "said"), [("cancelled", "It was cancelled"), ("expired", "is closed")])
def test_a_bill_that_is_over_says_so_and_takes_nothing(anna: User, visitor: Browser, closed: str, said: str) -> None:
    link = shared(anna)
    if closed == "cancelled":
        invoicing.cancel(anna.customer_id or 0, link.number or "")
    with clock.travel(clock.now() + timedelta(days=15 if closed == "expired" else 0)):
        invoicing.expire_due()
        page = visitor.get(link.path).text
        assert said in page
        assert 'name="method"' not in page
        assert visitor.get(link.path, headers=PARTIAL).headers["HX-Redirect"] == link.path
        assert visitor.submit(link.path, {"method": "sandbox-card"}).location == link.path
    assert db.scalar("select count(*) from payments") == 0


def test_copying_again_is_the_same_link_and_a_new_one_ends_the_old(app: Flask, anna: User, visitor: Browser) -> None:
    link, owner = shared(anna), sign_in(app.test_client(), anna)
    here = f"/invoices/{link.number}/link"
    copied = owner.submit(here, headers={"Accept": "text/plain"})
    assert (copied.status_code, copied.mimetype, copied.text) == (200, "text/plain", link.url)
    assert owner.submit(here).location == f"/invoices/{link.number}#link"
    page = owner.get(f"/invoices/{link.number}").text
    assert link.url in page
    assert "Made " in page
    assert owner.submit(here, {"anew": "1"}).status_code == 303
    fresh = payments.shared(link.bill_id or 0)
    assert fresh
    assert fresh.key != link.key
    assert (visitor.get(link.path).status_code, visitor.get(fresh.path).status_code) == (404, 200)
    assert owner.submit(f"{here}/revoke").status_code == 303
    assert visitor.get(fresh.path).status_code == 404


@pytest.mark.parametrize("before", ["open", "failed"])
def test_whose_link_was_revoked_is_never_shown_the_one_in_its_place(app: Flask, anna: User, visitor: Browser, before: str) -> None:
    link = shared(anna)
    payment = pay_by_link(link)
    if before == "failed":
        choose(app, payment, "decline-funds")
    status = payments.told_at(payment.public_id)
    assert link.path in visitor.get(status).text
    fresh = payments.share(anna.customer_id or 0, link.number or "", anew=True)
    assert fresh
    page = visitor.get(status).text
    assert fresh.path not in page
    assert link.path not in page


def test_a_transfer_that_was_taken_back_is_not_said_to_be_on_its_way(anna: User, visitor: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = pay_by_link(shared(anna))
    monkeypatch.setattr(payments, "refresh", lambda known: replace(known, state="taken_back", received=25_00, received_currency="EUR"))
    page = visitor.get(payments.told_at(payment.public_id)).text
    assert "The transfer was taken back" in page
    assert "is not paid yet" not in page


def test_a_paid_bill_has_no_link_to_make(app: Flask, anna: User) -> None:
    link = shared(anna)
    invoicing.cancel(anna.customer_id or 0, link.number or "")
    with pytest.raises(payments.NotPayable, match="is cancelled"):
        payments.share(anna.customer_id or 0, link.number or "")
    assert sign_in(app.test_client(), anna).submit(f"/invoices/{link.number}/link").status_code == 303


def test_the_row_alone_opens_nothing(anna: User, visitor: Browser) -> None:
    link = shared(anna)
    assert visitor.get(f"/pay/{link.key}").status_code == 404


def test_a_link_is_rate_limited(anna: User, visitor: Browser) -> None:
    link = shared(anna)
    answers = {visitor.submit(link.path, {"method": "sandbox-nothing"}).status_code for _ in range(31)}
    assert answers == {422, 429}


# A top-up that somebody asked for


def order(visitor: Browser, link: Link, **more: str):
    """Send the form of a link that asks for a top-up."""
    return visitor.submit(link.path, {**FORM, "amount": "40", "currency": "EUR", **more})


def test_a_guest_tops_up_and_gets_the_papers_by_mail(app: Flask, anna: User, visitor: Browser) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna K.", None)
    page = visitor.get(asked.path).text
    assert "Top up Anna K." in page
    assert "Secret Holding" not in page
    pay = order(visitor, asked, said="Gus").location
    assert pay.startswith("/pay/")
    assert "For Anna K." in visitor.get(pay).text
    assert visitor.submit(pay, {"method": "sandbox-card"}).location.startswith("/sandbox/pay/")
    bill_id = db.scalar("select max(id) from bills")
    payment = payments.open_of(bill_id)[0]
    choose(app, payment, "approve")
    back = payment.as_charge().return_url.removeprefix(config.current().base_url)
    assert "40.00 paid" in visitor.get(back).text
    assert wallet.state(anna.customer_id or 0).available == 40_00
    for paper in ("invoice", "receipt"):
        file = visitor.get(f"{back}/{paper}.pdf")
        assert (file.mimetype, file.data[:5]) == ("application/pdf", b"%PDF-")
    guest = customers.get(payment.payer_id)
    assert (guest.guest, guest.email, guest.profile.name) == (True, "gustav@example.com", "Gustav Guest")
    assert db.scalar("select count(*) from users where customer_id = %(id)s", id=guest.id) == 0
    letter = db.row("select * from mails where recipient = 'gustav@example.com'")
    assert letter
    assert back in letter.body_text
    assert [file["filename"][:2] for file in letter.attachments] == ["TU", "RC"]
    owner = sign_in(app.test_client(), anna).get("/transactions").text
    assert "Top-up by your link, from Gus" in owner
    assert "Gustav Guest" not in owner
    receipt = str(db.scalar("select content from documents where kind = 'receipt'"))
    assert "balance_after" not in receipt


def test_a_guest_pays_in_another_currency_at_the_rate_that_was_shown(app: Flask, anna: User, visitor: Browser) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna", None)
    quote = visitor.get(asked.path, query_string={"amount": "108.37", "currency": "USD"}, headers=PARTIAL)
    token = re.search(r'name="quote" value="([^"]+)"', quote.text)
    assert token
    assert "Added to the balance" in quote.text
    pay = order(visitor, asked, amount="108.37", currency="USD", quote=token[1]).location
    shown = re.search(r'name="quote" value="([^"]+)"', visitor.get(pay).text)
    assert shown
    assert visitor.submit(pay, {"method": "sandbox-card"}).status_code == 422
    assert visitor.submit(pay, {"method": "sandbox-card", "quote": shown[1]}).status_code == 303
    payment = payments.open_of(db.scalar("select max(id) from bills"))[0]
    choose(app, payment, "approve")
    carry(app)
    paid = again(payment)
    assert (paid.state, paid.credited_currency) == ("paid", "EUR")
    assert wallet.state(anna.customer_id or 0).available == paid.credited


@pytest.mark.parametrize("how", ["closed", "disabled"])
def test_nobody_tops_up_an_account_that_was_closed_since_the_link_was_made(anna: User, visitor: Browser, how: str) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna", None)
    ordered, own = order(visitor, asked).location, shared(anna)
    close(anna, how)
    answers = [visitor.get(asked.path), order(visitor, asked), visitor.get(f"/top-up/{'x' * 30}")]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert len({re.sub(r'"X-CSRFToken":"[^"]+"', "", answer.text) for answer in answers}) == 1
    assert [visitor.submit(path, {"method": "sandbox-card"}).status_code for path in (ordered, own.path)] == [422, 422]
    assert db.scalar("select count(*) from payments") == 0


def close(user: User, how: str) -> None:
    """Close an account, or shut its only login."""
    with db.transaction():
        if how == "closed":
            db.execute("update customers set closed_at = %(now)s where id = %(id)s", id=user.customer_id, now=clock.now())
        else:
            db.execute("update users set disabled_at = %(now)s where id = %(id)s", id=user.id, now=clock.now())


def test_a_figure_is_never_taken_for_one_of_another_currency(anna: User, visitor: Browser) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna", None)
    answer = order(visitor, asked, amount="5000", currency="ISK")
    assert (answer.status_code, 'id="amount-error"' in answer.text) == (422, True)
    assert db.scalar("select count(*) from bills") == 0


def test_a_link_may_ask_for_a_fixed_amount(anna: User, visitor: Browser) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna", Money.of("75.00", "EUR"))
    assert 'name="amount"' not in visitor.get(asked.path).text
    order(visitor, asked, amount="5", currency="JPY")
    assert tuple(db.row("select total, currency from bills order by id desc limit 1") or ()) == (75_00, "EUR")


@pytest.mark.parametrize("field", ["name", "email", "street", "postcode", "city", "country"])
def test_what_the_receipt_needs_is_asked_for(anna: User, visitor: Browser, field: str) -> None:
    asked = payments.ask(anna.customer_id or 0, "Anna", None)
    answer = order(visitor, asked, **{field: ""})
    assert answer.status_code == 422
    assert f'id="{field}-error"' in answer.text
    assert db.scalar("select count(*) from bills") == 0


def test_the_owner_makes_sees_and_revokes_links(app: Flask, anna: User, visitor: Browser) -> None:
    owner = sign_in(app.test_client(), anna)
    assert owner.submit("/add-funds/ask", {"name": "", "amount": ""}).status_code == 422
    assert owner.submit("/add-funds/ask", {"name": "Anna", "amount": "0.01"}).status_code == 422
    assert owner.submit("/add-funds/ask", {"name": "Anna", "amount": "20"}).status_code == 303
    (link,) = payments.asked(anna.customer_id or 0)
    assert link.url in owner.get("/add-funds/ask").text
    assert visitor.get(link.path).status_code == 200
    assert owner.submit(f"/add-funds/ask/{link.id}/revoke").status_code == 303
    assert visitor.get(link.path).status_code == 404
    assert owner.submit(f"/add-funds/ask/{link.id}/revoke").status_code == 404


def test_who_has_no_currency_yet_makes_no_link(app: Flask) -> None:
    nora = person("nora", profile=replace(BERLIN, currency=None))
    assert sign_in(app.test_client(), nora).submit("/add-funds/ask", {"name": "Nora", "amount": ""}).status_code == 422


def test_a_second_click_makes_no_second_link(app: Flask, anna: User) -> None:
    owner = sign_in(app.test_client(), anna)
    for amount in ("20", "20", "21"):
        assert owner.submit("/add-funds/ask", {"name": "Anna", "amount": amount}).status_code == 303
    assert len(payments.asked(anna.customer_id or 0)) == 2
    with clock.travel(clock.now() + timedelta(hours=1)):
        owner.submit("/add-funds/ask", {"name": "Anna", "amount": "20"})
        assert len(payments.asked(anna.customer_id or 0)) == 3


def test_so_many_links_and_no_more(anna: User) -> None:
    for place in range(10):
        payments.ask(anna.customer_id or 0, f"Anna {place}", None)
    with pytest.raises(payments.NotPayable, match="10 links"):
        payments.ask(anna.customer_id or 0, "Anna", None)


def test_a_status_page_ends_too(anna: User, visitor: Browser) -> None:
    payment = pay_by_link(shared(anna))
    assert visitor.get(payments.told_at(payment.public_id)).status_code == 200
    with clock.travel(clock.now() + timedelta(days=91)):
        assert visitor.get(payments.told_at(payment.public_id)).status_code == 404


# The papers travel with the mail


class Server:
    """A mail server that keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []

    def __enter__(self) -> Self:
        self.sock, self._other = socket.socketpair()
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self._other.close()

    def sendmail(self, _sender: str, _recipients: list[str], message: bytes) -> None:
        """Keep it, as it went over the wire."""
        self.taken.append(message_from_bytes(message, _class=EmailMessage))  # type: ignore[arg-type]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, settings: config.Settings) -> Server:
    """The house with a mail server."""
    kept = Server()
    monkeypatch.setattr(mail, "_server", lambda _url: kept)
    monkeypatch.setattr(config, "current", lambda: replace(settings, mail_url="smtp://localhost"))
    return kept


def test_the_confirmation_waits_for_its_papers_and_carries_them(app: Flask, anna: User, server: Server) -> None:
    given = payments.order_for(payments.ask(anna.customer_id or 0, "Anna", None), Money.of("40.00", "EUR"), "", GUEST, locale="de")
    choose(app, pay_by_link(given), "approve")
    carry(app)
    mail.deliver()
    assert "gustav@example.com" not in [message["To"] for message in server.taken]
    assert db.scalar("select count(*) from document_files") == 0, "taking money prints nothing"
    invoicing.render_pending()
    mail.deliver()
    (message,) = [message for message in server.taken if message["To"] == "gustav@example.com"]
    files = {part.get_filename(): part.get_payload(decode=True) for part in message.walk() if part.get_filename()}
    assert sorted(name.split("-")[0] for name in files) == ["RC", "TU"]
    stored = {f"{row.number}.pdf": bytes(row.pdf) for row in db.rows("select d.number, f.pdf from documents d join document_files f on f.document_id = d.id")}
    assert files == {name: stored[name] for name in files}


def test_a_paper_that_cannot_be_printed_holds_no_mail_up_for_ever(app: Flask, anna: User, server: Server) -> None:
    given = payments.order_for(payments.ask(anna.customer_id or 0, "Anna", None), Money.of("40.00", "EUR"), "", GUEST, locale="de")
    choose(app, pay_by_link(given), "approve")
    carry(app)
    with clock.travel(clock.now() + timedelta(hours=2)):
        mail.deliver()
    assert "gustav@example.com" in [message["To"] for message in server.taken]


def test_the_archive_names_the_papers_and_leads_to_them(app: Flask, anna: User) -> None:
    choose(app, pay_by_link(shared(anna)), "approve")
    carry(app)
    letter = db.scalar("select id from mails where kind = 'payment_confirmed'")
    owner = sign_in(app.test_client(), anna)
    page = owner.get(f"/notifications/{letter}").text
    paths = re.findall(r'href="(/invoices/[^"]+\.pdf)"', page)
    assert len(paths) == 2
    assert [owner.get(path).status_code for path in paths] == [200, 200]
