"""The pretend processor's hosted page. Another company's site in all but the address: it knows its own sessions and nothing of ours."""

from flask import Blueprint, Response, abort, current_app, redirect, request
from werkzeug.wrappers import Response as Redirect

import config
from app import db, sandbox_processor, web
from app.blueprints.pay import local
from app.languages import N_
from app.sandbox_processor import CHOICES, TEST_CARDS, PretendProcessor
from app.web.gate import public

sandbox = Blueprint("sandbox", __name__)

GROUPS = (
    ("Approve", ("approve", "pending", "late")),
    ("Decline", ("decline-funds", "decline-card", "decline-bank")),
    ("Rehearse a fault", ("twice", "disorder", "silent", "short")),
)
"""What a visitor may let happen, as the page groups it. 3-D Secure asks on a page of its own."""


@sandbox.before_request
def exist_only_while_on() -> None:
    """No pretend processor beside a real one, unless the operator forced it."""
    if not config.current().sandbox:
        abort(404)


@sandbox.get("/sandbox/pay/<reference>")
@public
def show(reference: str) -> Response:
    """The hosted page; after "3-D Secure" the bank's question."""
    session = _session(reference)
    step = "challenge" if request.args.get("step") == "3ds" else "choose"
    return web.page(
        "sandbox/pay.html",
        session=session,
        step=step,
        groups=GROUPS,
        choices=CHOICES,
        card_options=[(key, card.label) for key, card in TEST_CARDS.items()],
        account=sandbox_processor.after(session),
    )


@sandbox.post("/sandbox/pay/<reference>")
@public
def choose(reference: str) -> Redirect:
    """Let it happen and send the visitor back to the shop."""
    session, wanted = _session(reference), request.form.get("choice", "")
    if wanted == "3ds":
        return redirect(f"/sandbox/pay/{session.reference}?step=3ds", 303)
    if wanted == "cancel":
        return redirect(local(session.cancel_url), 303)
    if wanted not in CHOICES:
        abort(400)
    processor: PretendProcessor = current_app.extensions["sandbox_processor"]
    card = request.form.get("card", "good")
    processor.choose(session.reference, CHOICES[wanted], card if card in TEST_CARDS else "good")
    return redirect(local(session.return_url), 303)


@sandbox.post("/sandbox/pay/<reference>/later")
@public
def happen(reference: str) -> Redirect:
    """Let something happen to a paid session: its bank asks about it or disputes it and decides, a refund settles or fails. Back to the page."""
    session, wanted = _session(reference), request.form.get("happening", "")
    processor: PretendProcessor = current_app.extensions["sandbox_processor"]
    what, _, which = wanted.partition(":")
    account = sandbox_processor.after(session)
    if what == "dispute" and account.disputable:
        processor.dispute(session.reference, session.received, "unrecognized")
    elif what == "inquire" and account.disputable:
        processor.inquire(session.reference, session.received, "unrecognized")
    elif what in {"take", "leave"} and which in {dispute.reference for dispute in account.disputes}:
        processor.end_inquiry(which, takes=what == "take")
    elif what in {"win", "lose"} and which in {dispute.reference for dispute in account.disputes}:
        processor.close_dispute(which, won=what == "win")
    elif what in {"settle", "fail"} and which in {refund.reference for refund in account.refunds}:
        processor.move_refund(which, "settled" if what == "settle" else "failed", "" if what == "settle" else N_("The card or account it came from cannot take money any more."))
    else:
        abort(400)
    return redirect(f"/sandbox/pay/{session.reference}", 303)


def _session(reference: str) -> db.Row:
    session = sandbox_processor.hosted(reference)
    if session is None:
        abort(404)
    return session
