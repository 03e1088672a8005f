"""Support's list of companies whose VAT ID no register has confirmed, and the decision about each with its reason."""

from flask import Blueprint, Response, request
from flask_login import current_user

from app import approvals, web
from app.customers import vat_ids
from app.web.gate import staff_required

staff_vat = Blueprint("staff_vat", __name__)

LONGEST_REASON = 200
LARGEST_ID = 2**63 - 1
STATES = {"unverified": ("Not answered yet", "wait"), "invalid": ("Not registered", "danger")}


@staff_vat.get("/staff/vat-ids")
@staff_required
def index() -> Response:
    """Every number that waits for a person, the oldest customer first."""
    return web.page("staff/vat_ids.html", numbers=vat_ids.undecided(), states=STATES)


@staff_vat.post("/staff/vat-ids")
@staff_required
def decide() -> Response:
    """Confirm or refuse a number, or let the register be asked again."""
    decision, reason = request.form.get("decision", ""), request.form.get("reason", "").replace("\0", "\N{REPLACEMENT CHARACTER}")[:LONGEST_REASON]
    customer_id = min(request.form.get("customer", 0, type=int), LARGEST_ID)
    try:
        if decision == "ask":
            asked = vat_ids.ask_again(customer_id)
            web.toast("The register is asked again within five minutes." if asked else "This customer has no VAT ID.")
        elif decision in {"confirm", "refuse"}:
            vat_ids.decide(customer_id, decision, reason=reason, actor=f"staff:{current_user.login}")
            web.toast("Confirmed. The next invoice is without VAT where the rules say so." if decision == "confirm" else "Refused. Invoices include VAT.")
        else:
            web.toast("Choose what to do.")
    except (vat_ids.NotDecidable, approvals.NotAllowed) as refusal:
        web.toast(str(refusal))
    return web.go("/staff/vat-ids")
