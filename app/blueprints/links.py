"""Pages for whoever pays without an account: a copied bill, a top-up somebody asked for, and how the payment stands.

They show what a payer has to see and nothing else of whose bill or balance it is; a link that does not work any more, for whatever
reason, is one and the same page.
"""

from datetime import timedelta
from typing import Any, Final

from flask import Blueprint, Response, abort, request

from app import customers, invoicing, payments, services, web
from app.blueprints.add_funds import Quote, no_currency, offered_currencies, price
from app.blueprints.invoices import why_not
from app.blueprints.pay import poll_s
from app.customers import Profile
from app.formats import formats
from app.gateways.base import Instructions
from app.invoicing import Bill
from app.payments import Link, Payment
from app.web import gate
from app.web.forms import Choice, Form, Line

links = Blueprint("links", __name__)

_MINUTE: Final = timedelta(minutes=1)
_WHILE: Final = timedelta(minutes=10)
NOT_NOW: Final = "This cannot be paid at the moment. Ask whoever sent you the link."
CHANGED: Final = "The VAT changed. This is what is to pay now: check it, then pay."
EXPIRED: Final = "The rate was held for 15 minutes, which are over. Here is the rate of this moment: look at it and pay again."
LOCALE: Final = "en_GB"
"""How a payer without an account writes amounts and reads them."""


class PayerForm(Form):
    """What the receipt needs of who pays."""

    name = Line("Your name")
    company = Line("Company")
    email = Line("E-mail", 254)
    street = Line("Street and number", 200)
    postcode = Line("Postcode", 20)
    city = Line("City")
    country = Choice("Country", lambda: {"": "Choose a country", **customers.countries()})
    said = Line("Message", 60)

    def check(self) -> bool:
        """Whether a payment can be made out to this payer; what is missing is marked."""
        ready = bool(self.validate())
        self._refuse_bait()
        for name, present in self._wanted():
            if not present and name not in self.sentences:
                self.refuse(name, "Fill this in: it is printed on the receipt.")
        problem = customers.email_problem((self.email.data or "").lower())
        if problem and "email" not in self.sentences:
            self.refuse("email", problem)
        return ready and not self.sentences

    def _refuse_bait(self) -> None:
        """Refuse names and words that the receiver's mail program would make a link of."""
        for name in ("name", "company", "said"):
            problem = customers.name_problem(self[name].data or "", company=name == "company")
            if problem and name not in self.sentences:
                self.refuse(name, problem)

    def profile(self) -> Profile:
        """The payer as its documents name it."""
        name, company, street, postcode, city, email = (self[field].data or "" for field in ("name", "company", "street", "postcode", "city", "email"))
        return Profile("company" if company else "individual", name, company, street, postcode, city, self.country.data or None, billing_email=email.lower())

    def _wanted(self) -> list[tuple[str, bool]]:
        needs_postcode = self.country.data not in customers.WITHOUT_POSTCODE
        wanted = ["name", "street", *(["postcode"] if needs_postcode else []), "city", "country"]
        return [(name, bool(self[name].data)) for name in wanted]


@links.after_request
def keep_out_of_indexes(response: Response) -> Response:
    """No search engine lists a link that somebody was sent."""
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response


# One bill


@links.get("/pay/<token>")
@gate.public
def show(token: str) -> Response:
    """What is to be paid, and by which methods; or that there is nothing to pay any more."""
    link = _follow("bill", token)
    bill = _bill(link)
    return web.go(link.path) if web.is_partial() and not bill.unpaid else _bill_page(link, bill)


@links.post("/pay/<token>")
@gate.public
def leave(token: str) -> Response:
    """To the processor's page, 303; never from the balance. The page again with a sentence when that is not possible now."""
    link = _follow("bill", token)
    bill, method = _bill(link), request.form.get("method", "")
    customers.count((f"pay-link:{link.id}", 60, _WHILE), (f"pay-link:{customers.network(gate.address())}", 30, _WHILE))
    # Only who pays for somebody else is shown the rate; the owner of the bill agreed to whatever it is.
    quote = request.form.get("quote", "") if bill.for_another else payments.options(bill).quote_token
    try:
        handoff = payments.start(link.customer_id, bill.number, method, quote, link)
    except payments.QuoteExpired:
        return _bill_page(link, bill, 422, EXPIRED)
    except payments.NotPayable:
        shown, bill = bill.number, _bill(link)
        if not bill.unpaid:
            return web.go(link.path)
        problem = CHANGED if bill.number != shown else NOT_NOW if method else "Choose one of the methods."
        return _bill_page(link, bill, 422, problem)
    except payments.ProcessorDown as down:
        return _bill_page(link, bill, 503, str(down), failed=method)
    if isinstance(handoff, Instructions):
        return web.go(payments.told_at(handoff.reference))
    return web.leave(handoff.url)


def _bill(link: Link) -> Bill:
    return invoicing.find(link.customer_id, link.number or "") or abort(404)


def _bill_page(link: Link, bill: Bill, status_code: int = 200, problem: str = "", failed: str = "") -> Response:
    options = payments.options(bill) if bill.unpaid else None
    if options and options.problem:
        problem = problem or (options.problem if bill.for_another else NOT_NOW)
    return _page(
        "links/bill.html",
        "quote",
        status_code=status_code,
        link=link,
        bill=bill,
        options=options,
        problem=problem,
        failed=failed,
        standing=options.standing if options else invoicing.standing(bill.id),
        waiting=any(payment.state == "pending" and payment.gateway != payments.BANK for payment in payments.open_of(bill.id)) if bill.unpaid else False,
    )


# A top-up that somebody asked for


@links.get("/top-up/<token>")
@gate.public
def top_up(token: str) -> Response:
    """The form of who tops somebody up; for a partial request what the amount that is being typed would become."""
    link = _follow("topup", token)
    text, currency = _asked(link, request.args.get("amount", ""), request.args.get("currency", ""))
    problem = "" if link.amount else no_currency(request.args.get("currency", ""), _into(link))
    quote = Quote(problem=problem) if problem else _quote(link, text, currency) if text.strip() else Quote()
    return _top_up_page(link, text, currency, quote, PayerForm())


@links.post("/top-up/<token>")
@gate.public
def order(token: str) -> Response:
    """Make the bill and go to the page that pays it; 422 with the fields marked. With `preview`, only show what would be added."""
    link, form = _follow("topup", token), PayerForm()
    text, currency = _asked(link, request.form.get("amount", ""), request.form.get("currency", ""))
    problem = "" if link.amount else no_currency(request.form.get("currency", ""), _into(link))
    quote = Quote(problem=problem) if problem else _quote(link, text, currency)
    if "preview" in request.form:
        return _top_up_page(link, text, currency, quote, form)
    ready = form.check()
    if quote.problem or quote.pay is None or not ready:
        return _top_up_page(link, text, currency, quote, form, 422)
    customers.count((f"top-up-link:{link.id}", 30, _WHILE), (f"top-up-link:{customers.network(gate.address())}", 20, _WHILE))
    made = payments.order_for(link, quote.pay, request.form.get("quote", ""), form.profile(), form.said.data or "", locale=web.preferred_locale())
    return web.go(made.path)


def _asked(link: Link, text: str, currency: str) -> tuple[str, str]:
    """The amount and currency: what the link asks for, else what is typed."""
    if link.amount:
        return formats(LOCALE, "UTC").amount(link.amount.minor, link.amount.currency), link.amount.currency
    own = _into(link)
    offered = offered_currencies(own)
    return text, next((code for code in (currency, own) if code in offered), offered[0])


def _quote(link: Link, text: str, currency: str) -> Quote:
    return price(text, currency, LOCALE, _into(link))


def _into(link: Link) -> str | None:
    """The currency of the balance that a link tops up."""
    return customers.get(link.customer_id).currency


def _top_up_page(link: Link, text: str, currency: str, quote: Quote, form: PayerForm, status_code: int = 200) -> Response:
    errors = form.sentences | ({"amount": quote.problem} if status_code == 422 and quote.problem else {})
    allowed = payments.LIMITS[currency]
    context = {
        "link": link,
        "amount": text,
        "currency": currency,
        "currencies": offered_currencies(_into(link)),
        "allowed": allowed,
        "quote": quote,
        "form": form,
        "errors": errors,
    }
    return _page("links/top_up.html", "quote", status_code=status_code, **context)


# How a payment stands


@links.get("/paid/<token>")
@gate.public
def status(token: str) -> Response:
    """Where a payment stands, asked of the processor while that is not final; for a partial request the status alone."""
    known = _told(token)
    payment = payments.refresh(known)
    bill = payments.bill_of(payment)
    if payment.state != known.state and bill.kind == "service":
        services.settle_waiting()
    guest = customers.get(payment.payer_id).guest
    receipt = payment.confirmed and (guest or payment.link_id is not None)
    return _page("links/status.html", "status", receipt=receipt, payment=payment, bill=bill, poll_s=poll_s(payment), token=token, guest=guest,
                 again=_again(bill, payment), standing=invoicing.standing(bill.id),
                 transfer=payments.instructions(payment), method=payments.method_of(payment))  # fmt: skip


def _again(bill: Bill, payment: Payment) -> Link | None:
    """The link a payment was started by, while that works. Whoever it was taken from is not shown the one in its place."""
    link = payments.shared(bill.id) if bill.unpaid else None
    return link if link and link.id == payment.link_id else None


@links.get("/paid/<token>/invoice.pdf")
@gate.public
def invoice(token: str) -> Response:
    """The invoice of who paid without an account."""
    return _paper(token, "invoice")


@links.get("/paid/<token>/receipt.pdf")
@gate.public
def receipt(token: str) -> Response:
    """The receipt of who paid without an account."""
    return _paper(token, "receipt")


def _paper(token: str, kind: str) -> Response:
    """A payer's own document: the invoice of a guest's own top-up, the receipt of whoever paid."""
    payment = _told(token)
    guest = customers.get(payment.payer_id).guest
    if not payment.kept or (kind == "invoice" and not guest):
        abort(404)
    try:
        file = invoicing.pdf(payment.payer_id, payment.bill_number) if kind == "invoice" else _own_receipt(payment, guest=guest)
    except invoicing.PressError as error:
        web.toast(why_not(error))
        return web.go(payments.told_at(payment.public_id))
    file = file or abort(404)
    return Response(file.pdf, mimetype="application/pdf", headers={"Content-Disposition": f'attachment; filename="{file.filename}"'})


def _own_receipt(payment: Payment, *, guest: bool) -> invoicing.File | None:
    """The receipt of just this payment; who paid somebody else's bill gets one that does not name the other."""
    by_link = payment.link_id is not None and not guest
    return invoicing.receipt_pdf(payment.id, request.args.get("number", ""), by_link=by_link) if guest or by_link else None


def _told(token: str) -> Payment:
    return payments.told(token) or abort(_dead())


def _follow(purpose: str, token: str) -> Link:
    link = payments.follow(purpose, token)
    if link is None:
        abort(_dead())
    customers.count((f"link:{customers.network(gate.address())}", 240, _MINUTE))
    return link


def _dead() -> Response:
    """One page for every link that does not work: altered, revoked, over or never made."""
    return _page("links/dead.html", status_code=404)


def _page(template: str, block: str | None = None, status_code: int = 200, **context: Any) -> Response:
    """A page outside of any account, even for who is signed in."""
    return web.page(template, block, status_code=status_code, me=None, **context)
