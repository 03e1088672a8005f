"""Refunds: what of each payment can go back and why the rest cannot, asking for it, and every refund's way."""

from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response, abort, request

from app import invoicing, refunds, web
from app.blueprints.invoices import hand_out, why_not
from app.money import AmountError, Money
from app.refunds import RefundError, Source
from app.web.forms import Form, Line

pages = Blueprint("refunds", __name__)

STATES: Final = {
    "requested": ("Requested", "wait"),
    "approved": ("Approved", "wait"),
    "sent": ("Sent", "accent"),
    "settled": ("Settled", "credit"),
    "declined": ("Declined", ""),
    "withdrawn": ("Withdrawn", ""),
    "failed": ("Failed", "danger"),
}
"""Word and tone of a refund's state."""
DISPUTES: Final = {
    "inquiry": ("The bank asks", "wait"),
    "open": ("Disputed", "danger"),
    "won": ("Won", "credit"),
    "lost": ("Lost", ""),
    "closed": ("Answered", "credit"),
}
"""Word and tone of a dispute's state."""
NEXT: Final = {
    "source": {"requested": "Decision by support", "approved": "Sent to the processor", "sent": "Settled by the processor"},
    "bank": {"requested": "Decision by two people of our support", "approved": "Sent by bank transfer"},
}
"""What follows a state that is not final, by the way the money goes."""


class Ask(Form):
    """How much of which payment, and where to when it cannot go back the way it came."""

    payment = Line("Payment", 60)
    amount = Line("Amount", 40)
    reason = Line("Reason", 500)
    iban = Line("IBAN", 60)
    holder = Line("Account holder", 70)


@pages.get("/refunds")
def index() -> Response:
    """The payments with money left and the refunds so far; with `payment`, the form to ask for its money back."""
    return _show(Ask(payment=request.args.get("payment", "")))


@pages.post("/refunds")
def ask() -> Response:
    """Ask for money back; 422 with the field marked when it cannot be asked for. The same form again is the same refund."""
    me, form = web.reader(), Ask()
    chosen = _chosen(refunds.refundable(me.customer_id), form)
    if chosen is None:
        form.refuse("payment", "Choose one of your payments.")
    elif form.validate():
        try:
            amount = Money.parse(form.amount.data or "", chosen.credited.currency, me.locale)
            number = refunds.request(me.customer_id, chosen.public_id, amount, form.reason.data or "", iban=form.iban.data or "", holder=form.holder.data or "")
        except AmountError as error:
            form.refuse("amount", str(error))
        except RefundError as refused:
            form.refuse(refused.field, web.writer().sentence(str(refused)))
        else:
            web.toast(f"{number} is requested. The money is on hold until it is decided.")
            return web.go("/refunds")
    return _show(form, 422)


@pages.post("/refunds/<number>/withdraw")
def withdraw(number: str) -> Response:
    """Withdraw a request while it waits; the money is back on the balance."""
    try:
        found = refunds.withdraw(web.reader().customer_id, number)
    except RefundError as refused:
        web.toast(str(refused))
        return web.go("/refunds")
    if not found:
        abort(404)
    web.toast(f"{number} is withdrawn. The money is back on your balance.")
    return web.go("/refunds")


@pages.get("/refunds/<number>.pdf")
def receipt(number: str) -> Response:
    """The receipt of a refund, for who paid."""
    try:
        file = invoicing.refund_pdf(web.reader().customer_id, number)
    except invoicing.PressError as error:
        web.toast(why_not(error))
        return web.go("/refunds")
    return hand_out(file or abort(404))


def _show(form: Ask, status_code: int = 200) -> Response:
    me = web.reader()
    sources = refunds.refundable(me.customer_id)
    left = [source for source in sources if source.remaining or source.on_hold]
    currency = me.currency or "EUR"
    chosen = _chosen(left, form)
    return web.page(
        "refunds/index.html",
        status_code=status_code,
        sources=left,
        spent=len(sources) - len(left),
        refunds=refunds.of_customer(me.customer_id),
        disputes=refunds.disputes_of(me.customer_id),
        contested=DISPUTES,
        refundable=Money.total((source.refundable for source in left if source.refundable.currency == currency), currency),
        states=STATES,
        following=NEXT,
        daily=refunds.DAILY,
        chosen=chosen,
        quiet_until=refunds.quiet_until(me.customer_id),
        haste=refunds.HASTE,
        entered=_entered(form, chosen),
        errors=form.sentences,
    )


def _chosen(sources: Sequence[Source], form: Ask) -> Source | None:
    """The payment the form is about; of one that came in parts the newest part that has something left."""
    own = [source for source in sources if source.public_id == form.payment.data]
    return next((source for source in own if source.remaining), own[0] if own else None)


def _entered(form: Ask, chosen: Source | None) -> dict[str, Any]:
    """What stands in the form: what was typed, else all there is."""
    whole = web.writer().amount(chosen.refundable.minor, chosen.refundable.currency) if chosen else ""
    return {**form.values, "amount": form.amount.data or whole}
