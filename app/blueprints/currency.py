"""The account currency: what a change would do, at a held rate, and the change itself."""

import re

from flask import Blueprint, Response, request

from app import customers, exchange, money, web
from app.customers import Customer
from app.exchange import CurrencyError, Outdated, Preview
from app.web import gate

currency = Blueprint("currency", __name__)


@currency.get("/balance/currency")
def show() -> Response:
    """The choice, and what the chosen currency would make of the balance and of each service; for a partial request that alone."""
    customer = customers.get(web.reader().customer_id)
    return _show(customer, request.args.get("currency", ""))


@currency.post("/balance/currency")
def change() -> Response:
    """Change it as was shown; 422 with the new figures where they are other ones now, or with the reason why not.

    With `preview`, for browsers without JavaScript, only show them: a GET would carry the form's token into the address.
    """
    me = web.reader()
    into = request.form.get("currency", "")
    if "preview" in request.form:
        return _show(customers.get(me.customer_id), into)
    try:
        exchange.change(me.customer_id, into, request.form.get("quote", ""), actor=f"customer:{me.customer_id}")
    except CurrencyError as refused:
        return _show(customers.get(me.customer_id), into, 422, str(refused))
    except Outdated:
        return _show(customers.get(me.customer_id), into, 422, "The rate is not held any more, or your balance has changed. These are the figures of now: look at them again.")
    gate.look_again()
    web.toast(f"Your account is in {into} now.", "/transactions", "See it")
    return web.go("/balance")


def _show(customer: Customer, into: str, status_code: int = 200, problem: str = "") -> Response:
    stopped = exchange.obstacle(customer) if customer.currency else "Your account has no currency yet. Your first top-up decides it, or choose one in your profile."
    offered = exchange.choices(customer.currency or "")
    seen, refused = _preview(customer, into) if into and customer.currency else (None, "")
    return web.page(
        "balance/currency.html",
        "preview",
        status_code=status_code,
        offered=[("", "Choose a currency"), *((code, f"{code} · {money.CURRENCIES[code].name}") for code in offered)],
        into=into if into in offered else "",
        stopped=stopped,
        way_on=_way_on(stopped),
        seen=seen,
        problem=refused if stopped else problem or refused,
        days=exchange.COOL_DOWN.days,
    )


def _way_on(stopped: str) -> tuple[str, str]:
    """Where what stands in the way can be seen, and the button's words: the bill that waits, or the refund."""
    if bill := re.search(r"PF-[\d-]+", stopped):
        return f"/invoices/{bill[0]}", f"See {bill[0]}"
    if "efund" in stopped or "disputed" in stopped:
        return "/refunds", "See your refunds"
    return ("/add-funds", "Add funds") if "debt" in stopped else ("/balance", "Back to the balance")


def _preview(customer: Customer, into: str) -> tuple[Preview | None, str]:
    try:
        return exchange.preview(customer, into), ""
    except CurrencyError as refused:
        return None, str(refused)
