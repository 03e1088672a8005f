"""What lies in suspense at the bank: the list of it, and the page where a person says whose it is or sends it back."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import bank, services, web
from app.bank import BankError, PayoutError
from app.web.forms import Form, Line
from app.web.gate import staff_required

staff_bank = Blueprint("staff_bank", __name__)

WORDS: Final = {"requested": "Asked for", "approved": "Approved", "settled": "Sent", "withdrawn": "Taken back", "failed": "Came back"}


class Decision(Form):
    """Whose it is, or where it goes back to, and why."""

    login = Line("Login of the customer", 40)
    number = Line("Bill", 40)
    iban = Line("IBAN", 60)
    holder = Line("Account holder", 70)
    reason = Line("Reason", 500)


@staff_bank.get("/staff/bank")
@staff_required
def index() -> Response:
    """Everything in suspense, oldest first, and the statements that are missing."""
    return web.page("bank/index.html", lines=bank.unmatched(), gaps=bank.gaps())


@staff_bank.get("/staff/bank/<int(max=999999999999999):line_id>")
@staff_required
def show(line_id: int) -> Response:
    """One line with what can be done about it."""
    return _show(line_id, Decision())


@staff_bank.post("/staff/bank/<int(max=999999999999999):line_id>")
@staff_required
def decide(line_id: int) -> Response:
    """Credit it, send it back, approve that or take it back; 422 with the sentence when that cannot be."""
    form = Decision()
    if bank.waiting(line_id) is None:
        abort(404)
    if not form.validate():
        return _show(line_id, form, 422)
    try:
        said = _decide(line_id, request.form.get("decision", ""), form, f"staff:{web.reader().login}")
    except PayoutError as refused:
        form.refuse(refused.field, str(refused))
        return _show(line_id, form, 422)
    except BankError as refused:
        form.refuse("login", str(refused))
        return _show(line_id, form, 422)
    web.toast(said)
    return web.go("/staff/bank")


def _decide(line_id: int, decision: str, form: Decision, actor: str) -> str:
    reason = form.reason.data or ""
    if decision == "credit":
        if not reason.strip():
            raise PayoutError("Say how you know whose it is.")
        said = bank.match_by_hand(line_id, (form.login.data or "").lower(), actor=actor, reason=reason, number=form.number.data or "")
        services.settle_waiting()
        return said
    if decision == "return":
        number = bank.payouts.send_back(line_id, form.iban.data or "", form.holder.data or "", actor=actor, reason=reason)
        return f"{number} waits for another person."
    standing = bank.payouts.standing(line_id)
    if standing is None or decision not in {"approve", "withdraw"}:
        abort(400)
    if decision == "approve":
        bank.payouts.approve(standing.number, actor=actor)
        return f"{standing.number} is approved. It leaves with the next payment file."
    bank.payouts.withdraw(standing.number, actor=actor, reason=reason)
    return f"{standing.number} is taken back. The money waits again."


def _show(line_id: int, form: Decision, status_code: int = 200) -> Response:
    line = bank.waiting(line_id)
    if line is None:
        abort(404)
    standing = bank.payouts.standing(line_id)
    mine = standing is not None and f"staff:{web.reader().login}" in standing.approvals
    return web.page("bank/line.html", status_code=status_code, line=line, standing=standing, mine=mine, words=WORDS, entered=form.values, errors=form.sentences)
