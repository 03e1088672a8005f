"""Add funds: an amount, what it becomes on the balance, and the bill for it."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request
from flask_login import current_user

import config
from app import customers, fx, gateways, payments, services, web
from app.blueprints.profile import BillingForm
from app.customers import Beneficiary, Customer
from app.money import AmountError, Money
from app.web import gate
from app.web.forms import Form, Line

add_funds = Blueprint("add_funds", __name__)

TRANSFER = "bank-transfer"
MOST_ORDERS = 30
ORDERS_WITHIN = timedelta(minutes=10)
WRONG_LOGINS = (("10", 10, timedelta(minutes=10)), ("day", 50, timedelta(days=1)))
"""How many logins that cannot be topped up a payer may try."""
NOT_THIS_LOGIN = "Funds can't be added to this login."
"""All there is to say, whether there is no such login or it takes no funds."""
STEPS = (10, 25, 50, 100)
"""Suggested amounts, in thousandths of the largest one."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What the page says about an amount: what is paid, what is added, the rate held for it, and what is wrong with it."""

    pay: Money | None = None
    credited: Money | None = None
    after: Money | None = None
    offer: fx.Offer | None = None
    token: str = ""
    equivalents: tuple[fx.Equivalent, ...] = ()
    problem: str = ""


@add_funds.get("/add-funds")
def show() -> Response:
    """The form; for a partial request what the amount that is being typed would become."""
    customer = customers.get(current_user.customer_id)
    currency = _currency(customer, request.args.get("currency", ""))
    text, login = request.args.get("amount", ""), _login(request.args.get("beneficiary", ""))
    whom, problem = _beneficiary(customer, login)
    problem = problem or no_currency(request.args.get("currency", ""), customer.currency)
    quote = Quote(problem=problem) if problem else _quote(customer, text, currency, whom) if text.strip() else Quote()
    return web.page("add_funds/new.html", "quote", also=("_topup_limits.html", "_ways.html"), **_page(customer, text, currency, quote, {}, login))


@add_funds.post("/add-funds")
def create() -> Response:
    """Make the bill and go to its payment page; 422 with the field marked when the amount cannot be taken.

    With `preview`, for browsers without JavaScript, only show what would be added: a GET would carry the form's token into the address.
    For the same reason the way to an invoice for payment begins here, with `invoice`.
    """
    customer = customers.get(current_user.customer_id)
    currency, text = _currency(customer, request.form.get("currency", "")), request.form.get("amount", "")
    login = _login(request.form.get("beneficiary", ""))
    whom, stopped = _beneficiary(customer, login)
    problem = stopped or no_currency(request.form.get("currency", ""), customer.currency)
    quote = Quote(problem=problem) if problem else _quote(customer, text, currency, whom)
    errors = {"beneficiary": stopped} if stopped else {"amount": quote.problem} if quote.problem else {}
    if "invoice" in request.form:
        asked = {name: request.form.get(name, "") for name in ("amount", "currency", "beneficiary")}
        return web.go(f"/add-funds/invoice?{urlencode(asked)}")
    if "preview" in request.form:
        return web.page("add_funds/new.html", **_page(customer, text, currency, quote, {"beneficiary": stopped} if stopped else {}, login))
    if errors or quote.pay is None or customers.missing_fields(customer):
        return web.page("add_funds/new.html", status_code=422, **_page(customer, text, currency, quote, errors, login))
    customers.count((f"topup:{customer.id}", MOST_ORDERS, ORDERS_WITHIN))
    bill = payments.order_topup(customer.id, quote.pay, request.form.get("quote", ""), whom)
    return web.go(f"/invoices/{bill.number}/pay")


@add_funds.get("/add-funds/invoice")
def bill_to() -> Response:
    """Who an invoice for payment is made out to, with what is known filled in. One for another account is on that order's payment page."""
    if _login(request.args.get("beneficiary", "")):
        web.toast("For another account, continue to payment and choose bank transfer there.")
        return web.go("/add-funds?" + urlencode({name: request.args.get(name, "") for name in ("amount", "currency", "beneficiary")}))
    customer = customers.get(current_user.customer_id)
    currency = _currency(customer, request.args.get("currency", ""))
    form = BillingForm(formdata=None, obj=customer.profile)
    problem = no_currency(request.args.get("currency", ""), customer.currency)
    return _invoice_page(customer, form, request.args.get("amount", ""), currency, {"amount": problem} if problem else {})


@add_funds.post("/add-funds/invoice")
def invoice_for_payment() -> Response:
    """Make the bill and show what to transfer; 422 with the fields marked when that is not possible.

    Other details than the profile's are for this bill alone, unless `keep` is ticked or the profile is incomplete; a page says that they were kept.
    """
    customer, form = customers.get(current_user.customer_id), BillingForm()
    currency, text = _currency(customer, request.form.get("currency", "")), request.form.get("amount", "")
    quote = _quote(customer, text, currency)
    unpaid = no_currency(request.form.get("currency", ""), customer.currency) or _no_account(currency) or quote.problem
    if unpaid or quote.pay is None or not form.validate():
        return _invoice_page(customer, form, text, currency, {"amount": unpaid} if unpaid else {}, 422)
    told = _told(customer, form)
    if customers.missing_fields(told):
        return _invoice_page(told, form, text, currency, {}, 422)
    other = told != customer
    kept = other and ("keep" in request.form or bool(customers.missing_fields(customer)))
    if kept:
        customers.update_profile(current_user.user_id, customer.id, told.profile, locale=customer.locale, timezone=customer.timezone, ip=gate.address())
    customers.count((f"topup:{customer.id}", MOST_ORDERS, ORDERS_WITHIN))
    bill = payments.order_topup(customer.id, quote.pay, made_out_to=_made_out_to(customer, told) if other and not kept else None)
    if kept:
        web.toast("Your billing details are saved in your profile, and stand on every invoice from now on.", "/profile", "See your profile")
    try:
        handoff = payments.start(customer.id, bill.number, TRANSFER)
    except (payments.NotPayable, payments.ProcessorDown) as problem:
        # The bill stands, so its own page says what keeps it from being paid.
        web.toast(str(problem))
        return web.go(f"/invoices/{bill.number}/pay")
    return web.go(f"/payments/{handoff.reference}")


def _no_account(currency: str) -> str:
    """Why nothing can be transferred in this currency, or nothing."""
    accounts = [account.currency for account in config.current().bank_accounts]
    if currency in accounts:
        return ""
    return f"We have no bank account in {currency}. By transfer you can pay in {', '.join(accounts)}." if accounts else "Bank transfer is not possible here."


def _told(customer: Customer, form: BillingForm) -> Customer:
    """The customer with the billing details that were entered."""
    values: dict[str, Any] = {**form.values, "country": form.country.data or None}
    return replace(customer, profile=replace(customer.profile, **values))


def _made_out_to(customer: Customer, told: Customer) -> dict[str, str]:
    """Billing details for one bill. A VAT ID that is not the customer's own has been confirmed by nobody."""
    profile = told.profile
    own = profile.vat_id == customer.profile.vat_id
    state = customer.vat_id_state if own else "unverified" if profile.vat_id else "none"
    names = ("kind", "name", "company", "street", "postcode", "city", "vat_id")
    return {name: getattr(profile, name) for name in names} | {"country": profile.country or "", "vat_id_state": state}


def _invoice_page(customer: Customer, form: BillingForm, amount: str, currency: str, errors: dict[str, str], status_code: int = 200) -> Response:
    missing = customers.missing_fields(customer) if status_code == 422 and not form.errors and not errors else []
    return web.page(
        "add_funds/invoice.html",
        status_code=status_code,
        customer=customer,
        form=form,
        amount=amount,
        currency=currency,
        currencies=offered_currencies(customer.currency),
        missing=missing,
        errors=errors | form.sentences,
    )


class AskForm(Form):
    """What whoever opens the link reads, and how much is asked for."""

    name = Line("The name to show", 60)
    amount = Line("Amount", 30)


@add_funds.get("/add-funds/ask")
def ask() -> Response:
    """The links by which others can top this balance up, and the form for one more."""
    return _asking(AskForm(data={"name": customers.get(current_user.customer_id).title}))


@add_funds.post("/add-funds/ask")
def make_link() -> Response:
    """One more link; 422 with the field marked when it cannot be made."""
    customer, form = customers.get(current_user.customer_id), AskForm()
    ready = form.validate()
    wanted, problem = _wanted(form.amount.data or "", customer)
    if problem:
        form.refuse("amount", problem)
    if not form.name.data:
        form.refuse("name", "Write the name by which who pays knows you.")
    if not ready or form.sentences or not customer.currency:
        return _asking(form, 422)
    try:
        payments.ask(customer.id, form.name.data or "", wanted)
    except payments.NotPayable as reason:
        return _asking(form, 422, str(reason))
    web.toast("Your link is ready. Copy it and send it to whoever pays.")
    return web.go("/add-funds/ask")


@add_funds.post("/add-funds/ask/<int:link_id>/revoke")
def revoke_link(link_id: int) -> Response:
    """End a link at once."""
    if not payments.withdraw(current_user.customer_id, link_id):
        abort(404)
    web.toast("The link is revoked. It opens nothing any more.")
    return web.go("/add-funds/ask")


def _wanted(text: str, customer: Customer) -> tuple[Money | None, str]:
    """The amount a link asks for, None when who pays decides; and what is wrong with it."""
    if not text.strip() or not customer.currency:
        return None, ""
    try:
        wanted = Money.parse(text, customer.currency, customer.locale)
    except AmountError as error:
        return None, str(error)
    return wanted, payments.topup_problem(web.writer(), wanted) or ""


def _asking(form: AskForm, status_code: int = 200, problem: str = "") -> Response:
    customer = customers.get(current_user.customer_id)
    links = payments.asked(customer.id)
    return web.page("add_funds/ask.html", status_code=status_code, form=form, errors=form.sentences, links=links, currency=customer.currency, problem=problem)


def _login(text: str) -> str:
    """A login as it is typed; the own one means nobody else."""
    login = text.strip().lower()
    return "" if login == current_user.login else login


def _beneficiary(customer: Customer, login: str) -> tuple[Beneficiary | None, str]:
    """Whom a login tops up, or the one sentence for every reason it does not. Wrong ones are counted, for nobody shall go through a list of them."""
    if not login:
        return None, ""
    rules = [(f"beneficiary:{customer.id}:{name}", limit, window) for name, limit, window in WRONG_LOGINS]
    counted_at = customers.count(*rules)
    found = customers.find_beneficiary(login)
    if found is None:
        return None, NOT_THIS_LOGIN
    customers.give_back(counted_at, *rules)
    return (None, "") if found.id == customer.id else (found, "")


def _page(customer: Customer, text: str, currency: str, quote: Quote, errors: dict[str, str], login: str = "") -> dict[str, Any]:
    allowed, holds = payments.LIMITS[currency], customer.currency if payments.limits(customer.currency or "") else currency
    return {
        "amount": text,
        "beneficiary": login,
        "currency": currency,
        "currencies": offered_currencies(customer.currency),
        "zero": 0,
        "allowed": allowed,
        "most": payments.LIMITS[holds or currency].maximum_balance,
        "most_currency": holds,
        "suggested": [*_just_enough(customer, currency), *((Money(_round(allowed.maximum * step // 1000), currency), "") for step in STEPS)],
        "quote": quote,
        "methods": gateways.methods(customer.profile.country, quote.pay or Money(allowed.maximum // 100, currency)),
        "missing": customers.missing_fields(customer),
        "errors": errors,
    }


def _just_enough(customer: Customer, currency: str) -> list[tuple[Money, str]]:
    """The amount that carries the balance past the first renewal it would fall short of, with what it is for."""
    runway = services.runway(customer.id)
    if runway.missing is None or runway.short_on is None or runway.missing.currency != currency:
        return []
    enough = max(runway.missing.minor, payments.LIMITS[currency].minimum)
    purpose = "pays all that is due" if runway.arrears else f"covers {web.writer().long_day_month(runway.short_on)}"
    return [(Money(enough, currency), purpose)]


def _quote(customer: Customer, text: str, currency: str, whom: Beneficiary | None = None) -> Quote:
    quote = price(text, currency, customer.locale, whom.currency if whom else customer.currency)
    return quote if whom or quote.problem or quote.pay is None else _credited(customer, quote.pay, quote.offer)


def price(text: str, currency: str, locale: str, into: str | None) -> Quote:
    """What an amount as it is typed becomes on a balance in `into`; of the balance itself nothing."""
    try:
        pay = Money.parse(text, currency, locale)
    except AmountError as error:
        return Quote(problem=str(error))
    problem = payments.topup_problem(web.writer(), pay)
    if problem:
        return Quote(pay, problem=problem)
    try:
        offer = None if into in (None, currency) else fx.offer(pay, into)
    except (fx.RateUnavailable, AmountError) as error:
        return Quote(pay, problem=str(error))
    return Quote(pay, offer.credited if offer else pay, None, offer, fx.seal(offer) if offer else "")


def _credited(customer: Customer, pay: Money, offer: fx.Offer | None) -> Quote:
    credited = offer.credited if offer else pay
    after = Money(current_user.balance_minor, credited.currency) + credited
    problem = payments.balance_problem(customer, after)
    if problem:
        return Quote(pay, problem=problem)
    others = [code for code in customer.profile.display_currencies if code not in (pay.currency, credited.currency)]
    return Quote(pay, credited, after, offer, fx.seal(offer) if offer else "", tuple(fx.equivalents(credited, others)) if others else ())


def offered_currencies(into: str | None) -> list[str]:
    """The currencies in which a top-up of a balance in `into` can be paid: where one has to be converted, those that have rates."""
    found = [code for code in config.current().currencies if payments.limits(code)]
    if into is None:
        return found
    return [code for code in found if code == into or {code, into} <= fx.quotable()] or found


def no_currency(wanted: str, into: str | None) -> str:
    """Why nothing can be ordered in a currency, or nothing: the figure that was typed for it is none of another one."""
    return "" if wanted in {"", *offered_currencies(into)} else "Nothing can be paid in this currency. Choose another one."


def _currency(customer: Customer, wanted: str) -> str:
    offered = offered_currencies(customer.currency)
    return next((code for code in (wanted, customer.currency, "EUR") if code in offered), offered[0])


def _round(minor: int) -> int:
    """Up to two significant digits, as people round amounts."""
    unit = int("1" + "0" * max(0, len(str(minor)) - 2))
    return -(-minor // unit) * unit
