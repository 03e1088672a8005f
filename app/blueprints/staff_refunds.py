"""Support's queue of refunds: every open request with what is needed to decide it, and the decision."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import refunds, web
from app.blueprints.refunds import NEXT, STATES
from app.refunds import RefundError
from app.web.forms import Form, Line
from app.web.gate import staff_required

staff_refunds = Blueprint("staff_refunds", __name__)

SAID: Final = {"requested": "{} has your approval and waits for another person's.", "approved": "{} is approved."}


class Decision(Form):
    """What support decided, with the reason or the bank's reference it needs."""

    answer = Line("Reason", 500)
    reference = Line("Bank's reference", 70)


@staff_refunds.get("/staff/refunds")
@staff_required
def index() -> Response:
    """Every open refund, the longest waiting first."""
    return web.page("refunds/queue.html", cases=refunds.queue(), states=STATES)


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
        form.refuse(refused.field if refused.field == "reference" else "answer", str(refused))
        return _show(number, form, 422)
    web.toast(said)
    return web.go("/staff/refunds")


def _decide(number: str, decision: str, form: Decision, actor: str) -> str:
    if decision == "approve":
        return SAID[refunds.approve(number, actor=actor, note=form.answer.data or "")].format(number)
    if decision == "decline":
        refunds.decline(number, actor=actor, answer=form.answer.data or "")
        return f"{number} is declined. The money is back on the customer's balance."
    if decision != "paid":
        abort(400)
    refunds.mark_paid(number, reference=form.reference.data or "", actor=actor)
    return f"{number} is paid."


def _show(number: str, form: Decision, status_code: int = 200) -> Response:
    case = refunds.case(number)
    if case is None:
        abort(404)
    mine = f"staff:{web.reader().login}" in case.refund.approvals
    return web.page(
        "refunds/case.html", status_code=status_code, case=case, refund=case.refund, mine=mine, states=STATES, following=NEXT, entered=form.values, errors=form.sentences
    )
