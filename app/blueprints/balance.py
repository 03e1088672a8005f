"""The balance: what there is, how it went, how far it reaches, and what comes next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from flask import Blueprint, Response

from app import clock, fx, ledger, services, wallet, web
from app.formats import Formats
from app.limits import at_least
from app.money import Money
from app.services import Renewal

balance = Blueprint("balance", __name__)

CHART_DAYS: Final = 90
NEWEST: Final = 6
SOON: Final = 4
SAID_FOR: Final = timedelta(days=7)
"""How long the page says that the currency was changed."""
EQUIVALENTS: Final = ("EUR", "USD")
"""Shown beside the balance of a customer who has chosen none, but for its own currency."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A step chart as `components/chart.html` draws it: paths in a box of 10 a day by 240, and the same as rows of words."""

    line: str
    area: str
    width: int
    rows: list[tuple[int, str, str]]
    lowest: int
    highest: int


@balance.get("/balance")
def show() -> Response:
    """The balance page; the chip alone when the chip asks how things stand."""
    if web.is_partial():
        return web.fragment("_balance_chip.html")
    me = web.reader()
    runway, coming = services.outlook(me.customer_id, services.HORIZON_DAYS)
    return web.page(
        "balance/show.html",
        equivalents=_equivalents(me),
        chart=_chart(me),
        runway=runway,
        needed=at_least(runway.missing) if runway.missing else None,
        coming=_next(coming),
        kinds=ledger.KINDS,
        movements=wallet.movements(me.account_id, limit=NEWEST).rows if me.account_id else [],
        today=clock.today(),
        changed=_lately_changed(me),
    )


def _lately_changed(me: Any) -> str:
    """The currency that the account had until a few days ago, or nothing."""
    return next(iter(me.former_currencies), "") if me.currency_since and clock.now() - me.currency_since < SAID_FOR else ""


def _equivalents(me: Any) -> list[fx.Equivalent]:
    if not me.currency or me.balance_minor <= 0:
        return []
    return fx.equivalents(Money(me.balance_minor, me.currency), me.display_currencies or EQUIVALENTS)


def _chart(me: Any) -> Shape | None:
    if not me.account_id:
        return None
    until = web.writer().local(clock.now()).date()
    since = until - timedelta(CHART_DAYS)
    if me.currency_since:  # before it there was nothing in this currency
        since = max(since, web.writer().local(me.currency_since).date())
    series = ledger.balance_series(me.account_id, since, until, me.timezone)
    return draw(series, me.currency, web.writer())


def draw(series: Sequence[tuple[date, int]], currency: str, writer: Formats) -> Shape:
    """The closing balances of consecutive days as a step chart that stands on zero. Words only for the days on which it moved."""
    values = [minor for _, minor in series]
    top, width = max(*values, 1) * 1.06, 10 * len(values)
    heights = [round(240 - 240 * max(minor, 0) / top) for minor in values]
    steps = "".join(f"H{10 * place}V{height}" for place, height in enumerate(heights) if place and height != heights[place - 1])
    line = f"M0 {heights[0]}{steps}H{width}"
    moved = [(place, day, minor) for place, (day, minor) in enumerate(series) if not place or minor != values[place - 1]]
    rows = [(place, writer.date(day), writer.money(minor, currency)) for place, day, minor in moved]
    return Shape(line, f"{line}V240H0Z", width, rows, min(values), max(values))


def _next(coming: Sequence[Renewal]) -> Iterable[Renewal]:
    """The nearest renewals, and among them in any case the first one that the balance will not cover."""
    short = next((renewal for renewal in coming if renewal.short), None)
    if short is None or short in coming[:SOON]:
        return coming[:SOON]
    return [*coming[: SOON - 1], short]
