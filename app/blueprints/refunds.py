"""Refunds: what of each payment can go back and why the rest cannot, and every refund's way."""

from flask import Blueprint, Response

import config
from app import refunds, web
from app.money import Money

pages = Blueprint("refunds", __name__)

STATES = {
    "requested": ("Requested", "wait"),
    "approved": ("Approved", "wait"),
    "sent": ("Sent", "accent"),
    "settled": ("Settled", "credit"),
    "declined": ("Declined", ""),
    "failed": ("Failed", "danger"),
}
"""Word and tone of a refund's state."""
NEXT = {"requested": "Decision by support", "approved": "Sent to the processor", "sent": "Settled by the processor"}
"""What follows a state that is not final."""


@pages.get("/refunds")
def index() -> Response:
    """The payments with money left, how many are spent in full, and the refunds so far."""
    me = web.reader()
    sources = refunds.refundable(me.customer_id)
    left = [source for source in sources if source.remaining or source.on_hold]
    currency = me.currency or "EUR"
    return web.page(
        "refunds/index.html",
        sources=left,
        spent=len(sources) - len(left),
        refunds=refunds.of_customer(me.customer_id),
        refundable=Money.total((source.refundable for source in left if source.refundable.currency == currency), currency),
        states=STATES,
        following=NEXT,
        email=config.current().seller.email,
    )
