"""Transactions: every movement of the balance, filtered by one canonical address, and exactly what is filtered as a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, current_app, request
from markupsafe import escape

from app import clock, customers, fx, ledger, wallet, web
from app.ledger import KINDS, Filter
from app.money import Money
from app.web import days, spreadsheet

transactions = Blueprint("transactions", __name__)

PAGE: Final = 50
ADDED_UP: Final = 2_000
"""Movements of a balance beyond which the sums of a filter come after the rows instead of with them."""
CSV_COLUMNS: Final = ("Date", "Time", "Movement", "Description", "Document", "Method", "Amount", "Balance after", "Currency", "Reference", "Bonus")
SIGNS: Final = {
    **dict.fromkeys(("topup", "matched"), ("arrow-up", "credit")),
    **dict.fromkeys(("charge_refund", "refund_requested", "refund_sent", "refund_failed", "reversal"), ("undo-2", "")),
    **dict.fromkeys(("dispute_opened", "dispute_won", "dispute_lost"), ("shield-alert", "wait")),
    **dict.fromkeys(("bonus", "bonus_expired"), ("gift", "")),
    "conversion": ("arrow-left-right", ""),
}
"""Symbol and tone of a movement; the others show which way the money went."""
ACCOUNTS: Final = {"wallet": "Balance", "bonus": "Bonus", "hold": "On hold"}


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the customer's accounts is looked at; `currency` names a former one, none the account's own."""

    kind: str = "wallet"
    currency: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What an address needs to say of it; the balance's own needs nothing."""
        return ({"account": self.kind} if self.kind != "wallet" else {}) | ({"currency": self.currency} if self.currency else {})


OFFERED: Final = {kind: word for kind, word in KINDS.items() if kind not in {"arrived", "fee", "matched"}}
"""Kinds a customer's accounts can hold; a matched transfer is found among the top-ups."""


@transactions.get("/transactions")
def index() -> Response:
    """The list; a partial request gets the results, with ``before`` the next rows, with ``sums`` the totals alone."""
    me = web.reader()
    place = _place(me)
    asked = _asked(me, place)
    if "" in request.args.values() and not web.is_partial():
        return web.go(_address(asked, place))
    account_id = _account_id(me, place)
    shown: dict[str, Any] = {"asked": asked, "place": place, "currency": asked.currency, "address": partial(_address, asked, place)}
    if "sums" in request.args and web.is_partial():
        return web.page("transactions/index.html", "sums", totals=_totals(account_id, asked), **shown)
    before = request.args.get("before", type=int)
    later = place == Place() and me.version > ADDED_UP and not asked.only_days and "sums" not in request.args
    totals = None
    if account_id and not (asked.only_days or later or before):
        found, totals = wallet.found(account_id, asked, PAGE)
    else:
        found = wallet.movements(account_id, asked, before, PAGE) if account_id else wallet.Page([], None)
    shown |= {"cells": _cells(found.rows, asked.currency, with_bonus=place.kind == "wallet"), "following": _address(asked, place, before=str(found.next)) if found.next else ""}
    if before:
        return web.page("transactions/more.html", "more", **shown)
    if totals is None and not later:
        totals = _totals(account_id, asked, found.rows[0] if found.rows else None)
    return web.page(
        "transactions/index.html",
        "results",
        also=("_transaction_days.html", "_transaction_amounts.html"),
        status_code=422 if asked.errors else 200,
        push_url=_address(asked, place),
        totals=totals,
        stood=ledger.as_of(account_id, asked.ends_at) if account_id and asked.as_of and asked.ends_at else None,
        accounts=_accounts(me, place) if me.account_id else [],
        kinds=OFFERED,
        presets=_presets(asked, place, clock.now().astimezone(ZoneInfo(asked.timezone)).date()),
        start=_address(Filter(), place),
        chips=[(words, _address(without, place)) for words, without in asked.chips()],
        **shown,
    )


@transactions.get("/transactions.csv")
def export() -> Response:
    """Everything the filter finds, newest first, streamed."""
    me = web.reader()
    place = _place(me)
    asked, account_id = _asked(me, place), _account_id(me, place)
    found = wallet.export(account_id, asked) if account_id else iter(())
    return spreadsheet.answer(f"transactions-{clock.today()}.csv", CSV_COLUMNS, _lines(found, asked), web.writer().locale)


def _account_id(me: customers.SignedIn, place: Place) -> int | None:
    return me.account_id if place == Place() else wallet.histories(me.customer_id, place.currency or me.currency or "").get(place.kind)


def _accounts(me: customers.SignedIn, place: Place) -> list[tuple[str, str, bool]]:
    """The accounts as (word, address, whether it is the one shown): those of today, then the balances in former currencies."""
    places = [(word, Place(kind)) for kind, word in ACCOUNTS.items()] + [(f"In {code}", Place("wallet", code)) for code in me.former_currencies]
    return [(word, _address(Filter(), other), other == place) for word, other in places]


def _totals(account_id: int | None, asked: Filter, newest: wallet.Movement | None = None) -> ledger.Totals:
    return wallet.totals(account_id, asked, newest) if account_id else ledger.Totals(0, 0, 0)


def _cells(rows: Sequence[wallet.Movement], currency: str, *, with_bonus: bool) -> list[tuple[str, ...]]:
    """What stands in each row, formatted and safe to be written as it is: fifty rows cost a template ten times as much.

    `with_bonus` names what a bonus took off the price of a charge; where the bonus itself is listed, its amount says so.
    """
    write = web.writer()
    signs = [_sign(row) for row in rows]
    discs = {sign: _disc(*sign) for sign in set(signs)}
    return [
        (
            discs[sign], escape(web.knit(row.description or KINDS[row.kind])),
            _link(row) + (f" · bonus {write.money(row.bonus, currency)}" if with_bonus and row.bonus else ""), *write.date_and_time(row.posted_at),
            f"{row.posted_at.replace(tzinfo=None).isoformat('T', 'seconds')}Z", " credit" if row.amount > 0 else "", write.signed(row.amount, currency), write.amount(row.balance_after, currency),
        )
        for row, sign in zip(rows, signs, strict=True)
    ]  # fmt: skip


def _sign(row: wallet.Movement) -> tuple[str, str]:
    return SIGNS.get(row.kind) or (("arrow-up", "credit") if row.amount > 0 else ("arrow-down", ""))


def _disc(symbol: str, tone: str) -> str:
    return f'<span class="disc {tone}">{current_app.jinja_env.filters["icon"](symbol)}</span>'


def _link(row: wallet.Movement) -> str:
    if not row.document:
        return KINDS[row.kind]
    method = f" · {escape(row.method)}" if row.method and row.method not in row.description else ""
    return f'<a href="/invoices/{row.document}">{row.document}</a>{method}'


def _asked(me: customers.SignedIn, place: Place) -> Filter:
    return Filter.from_query(request.args, currency=place.currency or me.currency or "EUR", locale=me.locale, timezone=me.timezone)


def _place(me: customers.SignedIn) -> Place:
    """What the address asks for; a past day without a currency is looked at in the account's currency of that day."""
    kind, currency = request.args.get("account", "wallet"), request.args.get("currency", "")
    if me.former_currencies and "currency" not in request.args and (end := _asked(me, Place()).ends_at) and "as_of" in request.args:
        currency = next((change.from_currency for change in fx.changes(me.customer_id) if change.at >= end), "")
    return Place(kind if kind in ACCOUNTS else "wallet", currency if currency in me.former_currencies else "")


def _address(asked: Filter, place: Place, path: str = "/transactions", **more: str) -> str:
    query = urlencode(place.query | asked.as_query() | more)
    return f"{path}?{query}" if query else path


@lru_cache(maxsize=256)
def _presets(asked: Filter, place: Place, today: date) -> list[tuple[str, str, bool]]:
    """Ranges of days as (word, address, whether it is the one shown), from today back. The same for everybody who asks the same."""
    return [(word, _address(replace(asked, since=since, until=until), place), (asked.since, asked.until) == (since, until)) for word, since, until in days.ranges(today)]


def _lines(found: Iterator[wallet.Movement], asked: Filter) -> Iterator[tuple[object, ...]]:
    """Days and times as the page shows them, amounts as plain numbers."""
    zone = ZoneInfo(asked.timezone)
    for row in found:
        at = row.posted_at.astimezone(zone)
        amounts = [Money(minor, asked.currency).decimal for minor in (row.amount, row.balance_after)]
        bonus = Money(row.bonus, asked.currency).decimal if row.bonus else None
        yield at.date(), f"{at:%H:%M:%S}", KINDS[row.kind], row.description, row.document, row.method, *amounts, asked.currency, row.reference, bonus
