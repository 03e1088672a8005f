"""Support's queue of refunds: every open request with what is needed to decide it, and the decision."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import payments, refunds, web
from app.approvals import NotAllowed
from app.blueprints import staff_view
from app.blueprints.refunds import DISPUTES, NEXT, STATES
from app.money import AmountError, Money
from app.refunds import RefundError
from app.web.forms import Form, Line
from app.web.gate import staff_required

staff_refunds = Blueprint("staff_refunds", __name__)

LISTS: Final = {"": "Open", "settled": "Settled", "declined": "Declined", "withdrawn": "Withdrawn", "failed": "Failed"}
"""The lists by the word in the address, and what each is called."""
SAID: Final = {"requested": "{} has your approval and waits for another person's.", "approved": "{} is approved."}


class Decision(Form):
    """What support decided, with the reason or the bank's reference it needs."""

    answer = Line("Reason", 500)
    reference = Line("Bank's reference", 70)


class Opening(Form):
    """How much of a payment support sends back, and why."""

    amount = Line("Amount", 40)
    reason = Line("Reason", 500)


@staff_refunds.get("/staff/refunds")
@staff_required
def index() -> Response:
    """Every open refund, the longest waiting first; with `state` those that came to this end, newest first; with `find` the payment of that number."""
    state = request.args.get("state", "")
    state = state if state in LISTS else ""
    text = request.args.get("find", "")[:100].replace("\0", "")
    found = refunds.find_payments(text) if text.strip() else []
    if len(found) == 1:
        return web.go(f"/staff/refunds/of/{found[0]}")
    errors = {"find": "No payment that was credited has this number."} if text.strip() and not found else {}
    several = [origin for public_id in found if (origin := refunds.origin(public_id))]
    cases = refunds.closed(state, cursor()) if state else refunds.queue()
    shown = cases[: refunds.PAGE] if state else cases
    older = f"/staff/refunds?state={state}&before={shown[-1].refund.id}" if len(cases) > len(shown) else ""
    code = 422 if errors else 200
    return web.page(
        "refunds/queue.html",
        status_code=code,
        cases=shown,
        lists=LISTS,
        state=state,
        older=older,
        states=STATES,
        find=text,
        found=several,
        errors=errors,
        outages=payments.outages.known(),
        unreadable=payments.outages.unreadable(),
    )


def cursor() -> int | None:
    """The id of the last row of the page before, from the address."""
    before = request.args.get("before", "")
    return int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None


@staff_refunds.get("/staff/refunds/of/<payment>")
@staff_required
def prepare(payment: str) -> Response:
    """One payment of anybody's with what of it can go back, and the form that opens its refund."""
    return _show_origin(payment, Opening())


@staff_refunds.post("/staff/refunds/of/<payment>")
@staff_required
def open_refund(payment: str) -> Response:
    """Open the refund of anybody's payment; 422 with the field marked when that cannot be."""
    origin, form = refunds.origin(payment), Opening()
    if origin is None:
        abort(404)
    if form.validate():
        try:
            amount = Money.parse(form.amount.data or "", origin.source.credited.currency, web.reader().locale)
            number = refunds.open_by_support(payment, amount, form.reason.data or "", actor=f"staff:{web.reader().login}")
        except AmountError as error:
            form.refuse("amount", str(error))
        except RefundError as refused:
            form.refuse(refused.field if refused.field == "reason" else "amount", web.writer().sentence(str(refused)))
        except NotAllowed as refused:
            form.refuse("reason", str(refused))
        else:
            web.toast(f"{number} is opened and waits for its approval.")
            return web.go(f"/staff/refunds/{number}")
    return _show_origin(payment, form, 422)


def _show_origin(payment: str, form: Opening, status_code: int = 200) -> Response:
    origin = refunds.origin(payment)
    if origin is None:
        abort(404)
    whole = web.writer().amount(origin.source.refundable.minor, origin.source.refundable.currency)
    entered = {**form.values, "amount": form.amount.data or whole}
    quiet = refunds.quiet_until(origin.customer_id)
    known = staff_view.view(customer_id=origin.customer_id, payment=payment)
    return web.page(
        "refunds/open.html",
        status_code=status_code,
        origin=origin,
        source=origin.source,
        quiet_until=quiet,
        view=known,
        entered=entered,
        errors=form.sentences,
        **staff_view.words(),
    )


@staff_refunds.get("/staff/refunds/<number>")
@staff_required
def show(number: str) -> Response:
    """One refund with its customer, payment and history, and what can be decided about it."""
    return _show(number, Decision())


@staff_refunds.post("/staff/refunds/<number>")
@staff_required
def decide(number: str) -> Response:
    """Approve, decline with a reason, or note that a payout by hand has left; 422 with the sentence when that cannot be."""
    case, form, actor = refunds.case(number), Decision(), f"staff:{web.reader().login}"
    if case is None:
        abort(404)
    if not form.validate():
        return _show(number, form, 422)
    try:
        said = _decide(number, request.form.get("decision", ""), form, actor)
    except RefundError as refused:
        form.refuse(refused.field if refused.field == "reference" else "answer", web.writer().sentence(str(refused)))
        return _show(number, form, 422)
    except NotAllowed as refused:
        form.refuse("answer", str(refused))
        return _show(number, form, 422)
    web.toast(said)
    return web.go("/staff/refunds")


def _decide(number: str, decision: str, form: Decision, actor: str) -> str:
    if decision == "approve":
        return SAID[refunds.approve(number, actor=actor, note=form.answer.data or "")].format(number)
    if decision == "decline":
        refunds.decline(number, actor=actor, answer=form.answer.data or "")
        return f"{number} is declined. The money is back on the customer's balance."
    if decision == "refused":
        if not refunds.refused(number, form.answer.data or "", actor=actor):
            return "Your decision is kept. A second person must confirm this."
        return f"{number} has failed. The money is back on the customer's balance."
    if decision != "paid":
        abort(400)
    refunds.mark_paid(number, reference=form.reference.data or "", actor=actor)
    return f"{number} is paid."


def _show(number: str, form: Decision, status_code: int = 200) -> Response:
    case = refunds.case(number)
    if case is None:
        abort(404)
    refund = case.refund
    subjects = [("refund", number), ("payout", number)]
    known = staff_view.view(customer_id=case.customer_id, payment=case.payment, holder=refund.holder, iban=refund.iban, subjects=subjects)
    return web.page(
        "refunds/case.html",
        status_code=status_code,
        case=case,
        refund=refund,
        view=known,
        states=STATES,
        following=NEXT,
        entered=form.values,
        errors=form.sentences,
        disputes=refunds.disputes_of_payment(case.payment),
        contested=DISPUTES,
        **staff_view.words(),
    )
