"""Services: what the customer runs, what it costs, until when it is paid, and how long the balance lasts."""

from datetime import date, timedelta

from flask import Blueprint, Response, abort, request

from app import clock, invoicing, payments, services, web
from app.limits import at_least
from app.money import Money
from app.services import Service

pages = Blueprint("services", __name__)

NEXT_DAYS = 30
"""Days of which the page sums up the renewals."""
KINDS = {"dedicated": "Dedicated server", "vps": "VPS", "licence": "Licence", "ip": "IP address"}


@pages.get("/services")
def index() -> Response:
    """Everything that runs, the next to renew first, and below it what has ended."""
    me, today = web.reader(), clock.today()
    owned = services.of_customer(me.customer_id)
    runway, year = services.outlook(me.customer_id, services.HORIZON_DAYS, owned)
    coming = [renewal for renewal in year if renewal.on <= today + timedelta(NEXT_DAYS)]
    by_card = {renewal.service.id for renewal in coming if renewal.by_card}
    # A later renewal that is short says nothing of the next one.
    short = {each.service.id: each.missing for each in year if each.short and each.on == each.service.renews_on}
    short |= {arrear.service.id: arrear.cost for arrear in runway.arrears}
    return web.page(
        "services/index.html",
        running=[_row(service, today, short, by_card) for service in owned if service.status != "terminated"],
        ended=[service for service in owned if service.status == "terminated"],
        waits=invoicing.standings(me.customer_id, {service.waiting for service in owned if service.waiting}),
        runway=runway,
        needed=at_least(runway.missing) if runway.missing else None,
        today=today,
        next_month=sum(renewal.price.minor for renewal in coming),
        renewals=len(coming),
        kinds=KINDS,
        billable=today + timedelta(services.BILLED_AHEAD_DAYS),
        labels={card.id: card.label for card in payments.cards.of_customer(me.customer_id)},
        currency=me.currency,
        legal_zone=_zone_ahead(today),
    )


def _zone_ahead(today: date) -> str:
    """The legal zone's name where its day begins while it is still the day before for the reader, else nothing."""
    return clock.zone().key if web.writer().local(clock.start_of(today)).date() < today else ""


@pages.get("/services/<public_id>/payment")
def source(public_id: str) -> Response:
    """What a service's renewals are paid from."""
    return _show_source(public_id)


@pages.post("/services/<public_id>/payment")
def pay_from(public_id: str) -> Response:
    """The balance, or the balance and then a saved card, for which the customer has to agree, or nothing by itself."""
    chosen = request.form.get("source", "")
    card = "" if chosen in ("balance", "nothing") else chosen
    if card and "consent" not in request.form:
        return _show_source(public_id, 422, "Tick the box: without it nothing is charged to a card.")
    try:
        service = services.pay_from(web.reader().customer_id, public_id, card, by_itself=chosen != "nothing")
    except LookupError:
        abort(404)
    web.toast(
        f"{service.label} renews from the balance{', then from the saved card' if card else ''}." if chosen != "nothing" else f"{service.label} does not renew by itself any more."
    )
    return web.go("/services")


@pages.post("/services/<public_id>/invoice")
def invoice(public_id: str) -> Response:
    """The invoice for payment of a service's next period, made where none is open."""
    try:
        number = services.bill_now(web.reader().customer_id, public_id)
    except LookupError:
        abort(404)
    except services.ServiceError as refused:
        web.toast(str(refused))
        return web.go("/services")
    return web.go(f"/invoices/{number}/pay")


def _show_source(public_id: str, status_code: int = 200, problem: str = "") -> Response:
    me = web.reader()
    service = services.find(me.customer_id, public_id) or abort(404)
    cards = [card for card in payments.cards.of_customer(me.customer_id) if card.usable]
    chosen = request.form.get("source") or next((card.public_id for card in cards if card.id == service.card_id), "balance" if service.auto_renew else "nothing")
    return web.page("services/source.html", status_code=status_code, service=service, cards=cards, chosen=chosen, problem=problem,
                    consents=[services.card_consent(service, card) for card in cards])  # fmt: skip


def _row(service: Service, today: date, short: dict[int, Money], by_card: set[int]) -> tuple[Service, int, Money | None, bool]:
    """A service, the days until it renews, what will be missing for it, if anything, and whether its card pays the next one."""
    return service, (service.renews_on - today).days, short.get(service.id), service.id in by_card
