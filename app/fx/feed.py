"""The ECB's reference feed: fetched, read without trust, and stored append-only."""

import csv
import gzip
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request

from lxml import etree

import config
from app import clock, db, outside
from app.fx.target import is_business_day
from app.money import CURRENCIES

SOURCE = "ECB"
DEMO_SOURCE = "ECB (demo copy)"
HISTORY = Path(__file__).parents[1] / "data" / "eurofxref-hist.csv.gz"
"""The ECB's rates of two years; where they come from stands in `app/data/README.md`."""

BAND = Decimal("0.10")
"""A move beyond this from one rate to the next is a mistake of the feed until a person confirms it."""

NOT_QUOTED = frozenset({"", "-", "N/A", "NA"})
"""What stands for a currency that was not quoted that day: it has no rate then, the others have."""

FETCH_TIMEOUT_S = 10
LONGEST_S = 30.0
"""How long the whole feed may take, however steadily it drips."""
LARGEST_FEED = 2_000_000
"""Bytes. The daily feed has 1.6 kB, ninety days have 100 kB."""


class FeedRefused(ValueError):
    """A feed that was not taken. `str()` is a sentence for the operator; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The rates of one day."""

    rate_date: date
    rates: dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: the newest day of the feed, and how many rates were new (0 when all were known)."""

    rate_date: date | None
    added: int


def fetch(confirmed: Collection[str] = ()) -> Imported:
    """Fetch the feed of Settings.fx_url and import what is new; 0 added when the server says it has not changed. `confirmed` as for `import_feed`.

    Raises FeedRefused when it cannot be reached, read or believed.
    """
    url = config.current().fx_url
    known = db.scalar("select etag from rate_feeds where url = %(url)s", url=url)
    xml, etag = _download(url, known or "")
    if xml is None:
        return Imported(None, 0)
    imported = import_feed(xml, confirmed=confirmed)
    with db.transaction():
        db.execute(_REMEMBER, url=url, etag=etag, now=clock.now())
    return imported


def import_feed(xml: bytes, source: str = SOURCE, *, confirmed: Collection[str] = ()) -> Imported:
    """Store what a feed in the ECB's XML format says about the enabled currencies.

    All of it or nothing: refused are a document that is no such feed, a day before the newest we have, a day to come, another rate for
    a day we have, and a move beyond the band unless a person confirmed it for that currency. Raises FeedRefused; opens its own transaction.
    """
    days = read_feed(xml)
    with db.transaction():
        db.execute("select pg_advisory_xact_lock(hashtext('rates'))")
        added = sum(_store(day, source, confirmed=confirmed) for day in _new_days(days, source))
    return Imported(days[-1].rate_date, added)


def import_history(path: Path = HISTORY, *, shift_to: date | None = None) -> Imported:
    """Store a table of daily rates (CSV, gzip, in the ECB's layout) that is trusted as it is. Opens its own transaction.

    With `shift_to`, for the demo alone: its last day becomes the last business day before that date and every other day
    the business day as far back, and the rates are kept under the name `DEMO_SOURCE`, which every page shows.
    """
    days = _read_history(path)
    source = SOURCE
    if shift_to:
        days, source = _shifted(days, shift_to), DEMO_SOURCE
    with db.transaction():
        added = _insert(days, source)
    return Imported(days[-1].rate_date, added)


def read_feed(xml: bytes) -> list[Feed]:
    """The days of a feed in the ECB's format, oldest first, each with the enabled currencies. Raises FeedRefused."""
    root = _parse(xml)
    days = [_read_day(cube) for cube in root.iterfind(f".//{_CUBE}[@time]")]
    if not days or not all(day.rates for day in days):
        raise FeedRefused("The feed holds no rates: its Cube elements are missing.")
    if len({day.rate_date for day in days}) < len(days):
        raise FeedRefused("The feed names the same day twice.")
    return sorted(days, key=lambda day: day.rate_date)


@cache
def quotable() -> frozenset[str]:
    """The currencies that the feed quotes, and the euro. All others can be paid and held, and never converted."""
    with gzip.open(HISTORY, "rt", encoding="ascii", newline="") as file:
        return frozenset({"EUR", *next(csv.reader(file))[1:]})


def moved(before: Decimal, after: Decimal) -> Decimal:
    """The share by which a rate moved, without its sign: 0.1 is ten percent."""
    return abs(after / before - 1)


_CUBE = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}Cube"

_REMEMBER = """
insert into rate_feeds (url, etag, fetched_at) values (%(url)s, %(etag)s, %(now)s)
on conflict (url) do update set etag = excluded.etag, fetched_at = excluded.fetched_at
"""

_INSERT = """
insert into rates (source, currency, rate_date, rate, confirmed, fetched_at)
select %(source)s, currency, rate_date, rate, currency = any(%(confirmed)s::text[]), %(now)s
from unnest(%(currencies)s::text[], %(dates)s::date[], %(rates)s::numeric[]) as day (currency, rate_date, rate)
on conflict (source, currency, rate_date) do nothing
"""

_OF_DAY = "select currency, rate from rates where source = %(source)s and rate_date = %(day)s"

_LATEST = """
select distinct on (currency) currency, rate_date, rate from rates
where source = %(source)s and currency = any(%(currencies)s) order by currency, rate_date desc
"""


class _Stay(HTTPRedirectHandler):
    """Goes nowhere else: rates come from the address that was configured, or not at all."""

    def redirect_request(self, *_: Any) -> None:
        """No other address instead."""


def _download(url: str, etag: str) -> tuple[bytes | None, str]:
    """The feed and its ETag; no feed when it is still the one of `etag`."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FeedRefused(f"FX_URL must be an http or https address, not {url}.")
    request = Request(url, headers={"If-None-Match": etag} if etag else {})  # noqa: S310 - the scheme was checked above
    try:
        opener = outside.opener(_Stay())
        with outside.call(LONGEST_S), opener.open(request, timeout=FETCH_TIMEOUT_S) as answer:
            xml = answer.read(LARGEST_FEED + 1)
            return xml, answer.headers.get("ETag", "")
    except HTTPError as error:
        if error.code == HTTPStatus.NOT_MODIFIED:
            return None, etag
        raise FeedRefused(f"The feed's server answered {error.code}.") from error
    except (URLError, OSError, HTTPException) as error:
        raise FeedRefused(f"The feed's server could not be reached: {error}.") from error


def _parse(xml: bytes) -> etree._Element:
    """The document's root. No document type, no entity, nothing from elsewhere, no endless text."""
    if len(xml) > LARGEST_FEED:
        raise FeedRefused("The feed is far larger than the ECB's.")
    if re.search(rb"<!(?!--)", xml.replace(b"\0", b"")):
        raise FeedRefused("The feed declares a document type, which the ECB's does not.")
    try:
        return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False))
    except etree.XMLSyntaxError as error:
        raise FeedRefused(f"The feed is not readable as XML: {error}.") from error


def _read_day(cube: etree._Element) -> Feed:
    rates: dict[str, Decimal] = {}
    for line in cube.iterfind(_CUBE):
        currency, rate = line.get("currency", ""), line.get("rate", "")
        if currency in rates:
            raise FeedRefused(f"The feed names {currency} twice for one day.")
        if currency in CURRENCIES and currency != "EUR" and rate.strip().upper() not in NOT_QUOTED:
            rates[currency] = _read_rate(currency, rate)
    return Feed(_read_date(cube.get("time", "")), rates)


def _read_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FeedRefused(f"The feed's date {text!r} is none.") from None


def _read_rate(currency: str, text: str) -> Decimal:
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", text) or not Decimal(text):
        raise FeedRefused(f"The rate {text!r} of {currency} is not a number above zero.")
    return Decimal(text)


def _new_days(days: list[Feed], source: str) -> list[Feed]:
    """The days after the newest stored one; that one again is no news, if it says the same."""
    newest, today = days[-1].rate_date, clock.today()
    if newest > today:
        raise FeedRefused(f"The feed is of {newest}, a day to come.")
    known = db.scalar("select max(rate_date) from rates where source = %(source)s", source=source)
    if known is None:
        return days
    if newest < known:
        raise FeedRefused(f"The feed is of {newest}, and the rates of {known} are here already.")
    for day in days:
        if day.rate_date == known:
            _expect_same(day, source)
    return [day for day in days if day.rate_date > known]


def _expect_same(day: Feed, source: str) -> None:
    for row in db.rows(_OF_DAY, source=source, day=day.rate_date):
        said = day.rates.get(row.currency, row.rate)
        if said != row.rate:
            stored = f"{row.rate.normalize():f} was stored and may have been used"
            raise FeedRefused(f"The feed says {said} {row.currency} for {day.rate_date}, but {stored}.")


def _store(day: Feed, source: str, *, confirmed: Collection[str]) -> int:
    _expect_within_band(day, source, confirmed)
    return _insert([day], source, confirmed=confirmed)


def _expect_within_band(day: Feed, source: str, confirmed: Collection[str]) -> None:
    for row in db.rows(_LATEST, source=source, currencies=list(day.rates)):
        share = moved(row.rate, day.rates[row.currency])
        if share > BAND and row.currency not in confirmed:
            move = f"{row.currency} moved by {share:.1%} from {row.rate_date} to {day.rate_date}"
            raise FeedRefused(f"{move}. If that is true, confirm it: flask rates fetch --confirm {row.currency}")


def _insert(days: Sequence[Feed], source: str, *, confirmed: Collection[str] = ()) -> int:
    facts = [(currency, day.rate_date, rate) for day in days for currency, rate in day.rates.items()]
    currencies, dates, rates = (list(column) for column in zip(*facts, strict=True))
    return db.execute(_INSERT, source=source, currencies=currencies, dates=dates, rates=rates, confirmed=list(confirmed), now=clock.now())


def _read_history(path: Path) -> list[Feed]:
    with gzip.open(path, "rt", encoding="ascii", newline="") as file:
        days = [_read_line(line) for line in csv.DictReader(file)]
    return sorted(days, key=lambda day: day.rate_date)


def _read_line(line: dict[str, str]) -> Feed:
    rates = {currency: _read_rate(currency, text) for currency, text in line.items() if currency in CURRENCIES and text.strip().upper() not in NOT_QUOTED}
    return Feed(_read_date(line["Date"]), rates)


def _shifted(days: list[Feed], today: date) -> list[Feed]:
    moved, day = [], today
    for old in reversed(days):
        day -= timedelta(days=1)
        while not is_business_day(day):
            day -= timedelta(days=1)
        moved.append(Feed(day, old.rates))
    return moved[::-1]
