"""Services: what the customer runs, what it costs, until when it is paid, and how long the balance lasts."""

from datetime import date

from flask import Blueprint, Response

from app import clock, services, web
from app.money import Money
from app.payments.limits import at_least
from app.services import Service

pages = Blueprint("services", __name__)

KINDS = {"dedicated": "Dedicated server", "vps": "VPS", "licence": "Licence", "ip": "IP address"}
SOURCES = {"balance": "Balance", "card": "Saved card", "balance_then_card": "Balance, then card"}


@pages.get("/services")
def index() -> Response:
    """Everything that runs, the next to renew first, and below it what has ended."""
    me, today = web.reader(), clock.today()
    owned = services.of_customer(me.customer_id)
    runway, coming = services.outlook(me.customer_id, 30, owned)
    short = {renewal.service.id: renewal.missing for renewal in coming if renewal.short}
    if runway.short_service and runway.missing:
        short[runway.short_service.id] = runway.missing
    return web.page(
        "services/index.html",
        running=[_row(service, today, short) for service in owned if service.status != "terminated"],
        ended=[service for service in owned if service.status == "terminated"],
        runway=runway,
        needed=at_least(runway.missing) if runway.missing else None,
        today=today,
        next_month=sum(renewal.price.minor for renewal in coming),
        renewals=len(coming),
        kinds=KINDS,
        sources=SOURCES,
        currency=me.currency,
    )


def _row(service: Service, today: date, short: dict[int, Money]) -> tuple[Service, int, Money | None]:
    """A service, the days until it renews, and what will be missing for it, if anything."""
    return service, (service.renews_on - today).days, short.get(service.id)
