"""Saved cards: what is kept for the customer, which services rely on it, saving one without paying, and removing one."""

from datetime import timedelta

from flask import Blueprint, Response, abort, request

from app import customers, gateways, payments, services, web

cards = Blueprint("cards", __name__)

_HOUR = timedelta(hours=1)
SAID = {
    "kept": "Your card is saved.",
    "created": "The card is not saved yet. If you have just entered it, it stands here in a minute.",
    "expired": "No card was saved: the page was closed first.",
}


@cards.get("/cards")
def index() -> Response:
    """Every saved card with the services that rely on it."""
    return _show()


@cards.post("/cards")
def add() -> Response:
    """To the processor's page on which a card is saved, 303; the page again when the customer has not agreed, or it does not open."""
    me = web.reader()
    if "consent" not in request.form:
        return _show(422, "Tick the box first: without it no card is saved.")
    customers.count((f"card-setup:{me.customer_id}", 10, _HOUR))
    try:
        page = payments.cards.add(me.customer_id)
    except payments.CardError as problem:
        return _show(503, str(problem))
    return web.leave(page.url)


@cards.get("/cards/added/<public_id>")
def added(public_id: str) -> Response:
    """Back from the processor's page, whose end is asked of the processor and never read from the address."""
    state = payments.cards.setup_state(web.reader().customer_id, public_id)
    web.toast(SAID[state or abort(404)])
    return web.go("/cards")


@cards.post("/cards/<public_id>/remove")
def remove(public_id: str) -> Response:
    """Remove a card; what relied on it is paid from the balance again."""
    card, freed = services.remove_card(web.reader().customer_id, public_id) or abort(404)
    web.toast(f"{card.label} is removed." + (f" {', '.join(freed)} {'renews' if len(freed) == 1 else 'renew'} from the balance alone now." if freed else ""))
    return web.go("/cards")


def _show(status_code: int = 200, problem: str = "") -> Response:
    me = web.reader()
    relying: dict[int, list[str]] = {}
    for service in services.of_customer(me.customer_id):
        if service.card_id is not None:
            relying.setdefault(service.card_id, []).append(service.label)
    known = payments.cards.of_customer(me.customer_id)
    return web.page("cards/index.html", status_code=status_code, cards=known, relying=relying, consent=payments.cards.consent(), problem=problem, possible=bool(gateways.keepers()))
