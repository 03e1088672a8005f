"""Support's list of disputes and inquiries, and each with its amounts and its way. They are answered at the processor, so nothing is decided here."""

from typing import Final

from flask import Blueprint, Response, abort, request

from app import refunds, web
from app.blueprints.refunds import DISPUTES
from app.blueprints.staff_refunds import cursor
from app.refunds import UNDER_WAY
from app.web.gate import staff_required

staff_disputes = Blueprint("staff_disputes", __name__)

LISTS: Final = {"": ("Under way", UNDER_WAY), "won": ("Won", ("won",)), "lost": ("Lost", ("lost",)), "closed": ("Inquiries closed", ("closed",))}
"""The lists by the word in the address: what each is called, and the states on it."""


@staff_disputes.get("/staff/disputes")
@staff_required
def index() -> Response:
    """Every dispute of a state, newest first."""
    state = request.args.get("state", "")
    state = state if state in LISTS else ""
    found = refunds.disputes_in(LISTS[state][1], cursor())
    shown = found[: refunds.PAGE]
    older = f"/staff/disputes?state={state}&before={shown[-1].id}" if len(found) > len(shown) else ""
    return web.page("refunds/disputes.html", disputes=shown, lists=LISTS, state=state, older=older, states=DISPUTES)


@staff_disputes.get("/staff/disputes/<reference>")
@staff_required
def show(reference: str) -> Response:
    """One dispute with its customer, payment, amounts and history."""
    return web.page("refunds/dispute.html", dispute=refunds.dispute_case(reference) or abort(404), states=DISPUTES)
