"""Money that came and could not be credited by itself: the list of it, and the page where a person decides."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import payments, refunds, services, web
from app.approvals import NotAllowed
from app.blueprints import staff_view
from app.gateways.base import GatewayError
from app.refunds import RefundError
from app.web.forms import Form, Line
from app.web.gate import staff_required

staff_held = Blueprint("staff_held", __name__)

STATES: Final = {
    "held": ("Waiting", "wait"),
    "returning": ("On its way back", "accent"),
    "credited": ("Credited", "credit"),
    "returned": ("Sent back", ""),
    "dismissed": ("Put aside", ""),
    "failed": ("Could not be sent", "danger"),
}
"""Word and tone of what became of held money."""
SAID: Final = {
    "held": "{} has your decision. A second person must confirm this.",
    "unconfirmed": "{} has your decision. A second person must confirm this.",
    "credited": "{} is credited. The receipt is on its way.",
    "returning": "{} goes back to its payer.",
    "returned": "{} is sent back. Its payer is told by mail.",
    "dismissed": "{} is put aside. Its payer is told by mail.",
    "failed": "{} waits for a decision again.",
}
FIELDS: Final = frozenset({"reason", "reference", "iban", "holder"})


class Decision(Form):
    """What is done with it, why, and where to when it cannot go back the way it came."""

    reason = Line("Reason", 500)
    iban = Line("IBAN", 60)
    holder = Line("Account holder", 70)
    reference = Line("Bank's reference", 70)


@staff_held.get("/staff/held")
@staff_required
def index() -> Response:
    """What waits, the longest first; with `over` what was decided, newest first."""
    over = request.args.get("over") == "yes"
    before = request.args.get("before", "")
    known = before.isascii() and before.isdigit() and len(before) < 18
    found = refunds.held_money(over=over, before=int(before) if over and known else None)
    shown = found[: refunds.PAGE] if over else found
    older = f"/staff/held?over=yes&before={shown[-1].id}" if len(found) > len(shown) else ""
    return web.page("held/index.html", found=shown, over=over, older=older, states=STATES, outages=payments.outages.known(), unreadable=payments.outages.unreadable())


@staff_held.get("/staff/held/<number>")
@staff_required
def show(number: str) -> Response:
    """One of them with its payment and what can be done about it."""
    return _show(number, Decision())


@staff_held.post("/staff/held/<number>")
@staff_required
def decide(number: str) -> Response:
    """Credit it, send it back, put it aside, or note that a payout by hand has left; 422 with the sentence when that cannot be."""
    form, actor = Decision(), f"staff:{web.reader().login}"
    if refunds.held_case(number) is None:
        abort(404)
    if not form.validate():
        return _show(number, form, 422)
    try:
        state = _decide(number, request.form.get("decision", ""), form, actor)
    except RefundError as refused:
        form.refuse(refused.field if refused.field in FIELDS else "reason", web.writer().sentence(str(refused)))
        return _show(number, form, 422)
    except NotAllowed as refused:
        form.refuse("reason", str(refused))
        return _show(number, form, 422)
    services.settle_waiting()
    web.toast(SAID[state].format(number))
    return web.go("/staff/held")


def _decide(number: str, decision: str, form: Decision, actor: str) -> str:
    if decision == "paid":
        refunds.mark_returned(number, reference=form.reference.data or "", actor=actor)
        return "returned"
    if decision == "refused":
        return "failed" if refunds.refused(number, form.reason.data or "", actor=actor) else "unconfirmed"
    if decision not in ("credit", "return", "dismiss"):
        abort(400)
    state = refunds.release(number, decision, actor=actor, reason=form.reason.data or "", iban=form.iban.data or "", holder=form.holder.data or "")
    try:
        return refunds.send_back(number) if state == "returning" else state
    except GatewayError:  # the job asks again every minute
        return "returning"


def _show(number: str, form: Decision, status_code: int = 200) -> Response:
    case = refunds.held_case(number)
    if case is None:
        abort(404)
    known = staff_view.view(customer_id=case.customer_id, payment=case.public_id, holder=case.holder, iban=case.iban, subjects=[("held", number), ("payout", number)])
    return web.page("held/case.html", status_code=status_code, case=case, view=known, states=STATES, entered=form.values, errors=form.sentences, **staff_view.words())
