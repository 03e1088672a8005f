"""What lies in suspense at the bank: the list of it, and the page where a person says whose it is or sends it back."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import approvals, bank, customers, services, web
from app.approvals import NotAllowed
from app.bank import BankError, DoubtError, PayoutError, Sender
from app.blueprints import staff_view
from app.web.forms import Form, Line
from app.web.gate import staff_required

staff_bank = Blueprint("staff_bank", __name__)

WORDS: Final = {"requested": "Asked for", "approved": "Approved", "accepted": "Accepted by the bank", "settled": "Sent", "withdrawn": "Taken back", "failed": "Came back"}


class Acknowledgement(Form):
    """Why something missing stays so."""

    reason = Line("Reason", 500)


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
    """Everything in suspense, oldest first, the statements that are missing, and where the books differ from the bank."""
    return web.page(
        "bank/index.html", lines=bank.unmatched(), contradictions=bank.reports.contradictions(), gaps=bank.gaps(), differences=bank.differences(), acknowledged=bank.acknowledged()
    )


@staff_bank.get("/staff/bank/gaps/<mark>")
@staff_required
def gap(mark: str) -> Response:
    """Something missing, and the form that says that it stays."""
    return _gap(mark, Acknowledgement())


@staff_bank.post("/staff/bank/gaps/<mark>")
@staff_required
def acknowledge(mark: str) -> Response:
    """Keep that it stays missing, with the name and the reason; 422 without one."""
    form = Acknowledgement()
    if not form.validate():
        return _gap(mark, form, 422)
    try:
        bank.acknowledge(mark, actor=f"staff:{web.reader().login}", reason=form.reason.data or "")
    except (bank.Unexplained, NotAllowed) as refused:
        form.refuse("reason", str(refused))
        return _gap(mark, form, 422)
    except bank.NoSuchGap:
        abort(404)
    web.toast("It is told no more.")
    return web.go("/staff/bank")


def _gap(mark: str, form: Acknowledgement, status_code: int = 200) -> Response:
    found = next((each for each in (*bank.gaps(), *bank.differences()) if each.mark == mark), None)
    if found is None:
        abort(404)
    return web.page("bank/gap.html", status_code=status_code, gap=found, entered=form.values, errors=form.sentences)


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
    except (DoubtError, NotAllowed) as refused:
        form.refuse("reason", str(refused))
        return _show(line_id, form, 422)
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
        return f"{number} is asked for. A second person must confirm this."
    if decision in {"same", "two"}:
        return bank.is_same(line_id, actor=actor, reason=reason) if decision == "same" else bank.are_two(line_id, actor=actor, reason=reason)
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
    standing, doubt = bank.payouts.standing(line_id), bank.doubts.of(line_id)
    return web.page(
        "bank/line.html",
        status_code=status_code,
        line=line,
        doubt=doubt,
        standing=standing,
        candidates=bank.candidates.of_line(line_id),
        view=_view(line, doubt, standing),
        words=WORDS,
        entered=form.values,
        errors=form.sentences,
        **staff_view.words(),
    )


def _view(line: bank.Waiting, doubt: bank.Doubt | None, standing: bank.Return | None) -> staff_view.View:
    """What is known of a line: beside the customer whom a first person named, and the account it goes back to."""
    subjects: list[tuple[str, object]] = [("bank_line", line.id)]
    subjects += [("bank_doubt", doubt.id)] if doubt else []
    subjects += [("bank_return", standing.number)] if standing else []
    chosen = next((voice.terms.partition(" ")[0] for voice in approvals.of("bank_line", line.id)), "")
    return staff_view.view(
        customer_id=customers.find_logins([chosen]).get(chosen),
        concerned=bank.doubts.concerned([each.id for each in doubt.lines] if doubt else [line.id]),
        sent=[Sender(line.sender, line.sender_account)],
        holder=standing.holder if standing else "",
        iban=standing.iban if standing else "",
        subjects=subjects,
    )
