"""Where support begins: what waits for a person, and what is out of order."""

from typing import Final

from flask import Blueprint, Response

from app import desk, payments, web
from app.web.gate import staff_required

staff_home = Blueprint("staff_home", __name__)

WAITING: Final = {
    "refunds": ("Refund requests", "undo-2"),
    "approvals": ("Waiting for a second approval", "user"),
    "payouts": ("Approved payouts that have not left", "landmark"),
    "held": ("Held payments", "search"),
    "bank_lines": ("Bank lines to match", "list"),
    "bank_doubts": ("Bank lines that may be duplicates", "list"),
    "bank_gaps": ("Missing bank statements", "file-text"),
    "disputes": ("Open disputes", "shield-alert"),
    "vat_ids": ("VAT IDs to look at", "file-text"),
}
"""The word and the symbol of each kind of `desk.WAITING`."""
OF_PROCESSORS: Final = frozenset({"no_answer", "webhook_secret", "key_refused"})
"""What the shared notices about processors say already, in more detail."""


@staff_home.get("/staff")
@staff_required
def index() -> Response:
    """What waits, counted, each with its page; and what is out of order."""
    counted = desk.waiting()
    waiting = [(*WAITING[kind], counted[kind], path) for kind, path in desk.WAITING.items()]
    return web.page(
        "staff/home.html",
        waiting=waiting,
        disorder=[one for one in desk.disorder() if one.code not in OF_PROCESSORS],
        outages=payments.outages.known(),
        unreadable=payments.outages.unreadable(),
    )
