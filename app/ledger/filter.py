"""What of an account's history is asked for: an object with one canonical query and a summary in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any, Self
from zoneinfo import ZoneInfo

from app.formats import formats
from app.money import AmountError, Money, exponent

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "topup": "Top-up",
        "charge": "Charge",
        "charge_refund": "Charge returned",
        "bonus": "Bonus",
        "bonus_expired": "Bonus expired",
        "refund_requested": "Refund requested",
        "refund_sent": "Refund sent",
        "refund_failed": "Refund returned",
        "dispute_opened": "Dispute opened",
        "dispute_won": "Dispute won",
        "dispute_lost": "Dispute lost",
        "debt_settled": "Debt settled",
        "conversion": "Currency exchange",
        "arrived": "Money arrived",
        "matched": "Transfer matched",
        "fee": "Fee",
        "reversal": "Reversal",
        "correction": "Correction",
    }
)
"""Every kind of transfer and what a customer reads for it."""

DIRECTIONS: Mapping[str, str] = MappingProxyType({"in": "Money in", "out": "Money out"})

FIELDS = ("kind", "direction", "from", "to", "min", "max", "q", "as_of")
"""Names in the query, in their canonical order."""

_LONGEST_TEXT = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """A question to an account's history. Days are whole days in `timezone`, both ends included; amounts are minor units without sign.

    `given` is what was typed and `errors` a sentence for each field that could not be read; such a field does not filter.
    """

    kind: str = ""
    direction: str = ""
    since: date | None = None
    until: date | None = None
    minimum: int | None = None
    maximum: int | None = None
    text: str = ""
    as_of: date | None = None
    currency: str = "EUR"
    locale: str = field(default="en", compare=False)
    timezone: str = "UTC"
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    errors: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_query(cls, args: Mapping[str, str], *, currency: str, locale: str = "en", timezone: str = "UTC") -> Self:
        """Read a query string; amounts as the locale writes them, or plain as `as_query` does. What is wrong lands in `errors`."""
        if not args:
            return cls(currency=currency, locale=locale, timezone=timezone)
        given = {name: value for name in FIELDS if (value := args.get(name, "").strip())}
        read = _Reader(given, currency, locale)
        since, until = read.day("from"), read.day("to")
        if since and until and since > until:
            read.refuse("to", "The last day is before the first.")
            until = None
        minimum, maximum = read.amount("min"), read.amount("max")
        if minimum is not None and maximum is not None and minimum > maximum:
            read.refuse("max", "The highest amount is below the lowest.")
            maximum = None
        return cls(
            read.choice("kind", KINDS), read.choice("direction", DIRECTIONS), since, until, minimum, maximum, read.text("q"), read.day("as_of"),
            currency, locale, timezone, MappingProxyType(given), MappingProxyType(read.errors),
        )  # fmt: skip

    def as_query(self) -> dict[str, str]:
        """The canonical query: only what filters, in one order, independent of the locale."""
        values = (
            self.kind, self.direction, _iso(self.since), _iso(self.until), self._plain(self.minimum), self._plain(self.maximum), self.text, _iso(self.as_of),
        )  # fmt: skip
        return {name: value for name, value in zip(FIELDS, values, strict=True) if value}

    def chips(self) -> list[tuple[str, Self]]:
        """Each thing that is filtered by, in words, beside the filter without it."""
        parts: tuple[tuple[str | None, dict[str, Any]], ...] = (
            (KINDS.get(self.kind), {"kind": ""}),
            (DIRECTIONS.get(self.direction), {"direction": ""}),
            (self._days(), {"since": None, "until": None}),
            (self._amounts(), {"minimum": None, "maximum": None}),
            (self._quoted(), {"text": ""}),
            (self._stood(), {"as_of": None}),
        )
        return [(words, replace(self, **without)) for words, without in parts if words]

    @property
    def begins_at(self) -> datetime | None:
        """The first instant asked for."""
        return _midnight(self.since, self.timezone) if self.since else None

    @property
    def ends_at(self) -> datetime | None:
        """The instant after the last one asked for."""
        last = min((day for day in (self.until, self.as_of) if day), default=None)
        return _midnight(last + timedelta(days=1), self.timezone) if last else None

    @property
    def only_days(self) -> bool:
        """Whether nothing but days is asked for, so that totals are the difference of two entries."""
        return not (self.kind or self.direction or self.text) and self.minimum is None and self.maximum is None

    def _plain(self, minor: int | None) -> str:
        return "" if minor is None else str(Money(minor, self.currency).decimal)

    def _days(self) -> str:
        write = formats(self.locale, self.timezone).date
        if self.since and self.until:
            return write(self.since) if self.since == self.until else f"{write(self.since)} to {write(self.until)}"
        if self.since:
            return f"since {write(self.since)}"
        return f"until {write(self.until)}" if self.until else ""

    def _amounts(self) -> str:
        low, high = (formats(self.locale, self.timezone).money(minor, self.currency) if minor is not None else "" for minor in (self.minimum, self.maximum))
        if low and high:
            return f"{low} to {high}"
        return f"{low} or more" if low else f"{high} or less" if high else ""

    def _quoted(self) -> str:
        return f"containing \u201c{self.text}\u201d" if self.text else ""

    def _stood(self) -> str:
        return f"as of {formats(self.locale, self.timezone).date(self.as_of)}" if self.as_of else ""


class _Reader:
    """Reads fields one by one and collects what is wrong with them."""

    def __init__(self, given: Mapping[str, str], currency: str, locale: str) -> None:
        self.given, self.currency, self.locale = given, currency, locale
        self.errors: dict[str, str] = {}

    def refuse(self, name: str, sentence: str) -> None:
        self.errors[name] = sentence

    def choice(self, name: str, choices: Mapping[str, str]) -> str:
        value = self.given.get(name, "")
        if value and value not in choices:
            self.refuse(name, "Choose one from the list.")
            return ""
        return value

    def text(self, name: str) -> str:
        value = self.given.get(name, "")
        if len(value) > _LONGEST_TEXT or "\0" in value:
            self.refuse(name, f"Search for {_LONGEST_TEXT} ordinary characters at most.")
            return ""
        return value

    def day(self, name: str) -> date | None:
        value = self.given.get(name)
        if value is None:
            return None
        try:
            day = date.fromisoformat(value) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) else None
        except ValueError:
            day = None
        if day is None or not 1970 <= day.year <= 2999:
            self.refuse(name, "Write the day like 2026-03-31.")
            return None
        return day

    def amount(self, name: str) -> int | None:
        value = self.given.get(name)
        if value is None:
            return None
        try:
            return _amount(value, self.currency, self.locale).minor
        except AmountError as refusal:
            self.refuse(name, str(refusal))
            return None


def _amount(text: str, currency: str, locale: str) -> Money:
    digits = exponent(currency)
    plain = rf"[0-9]+\.[0-9]{{{digits}}}" if digits else "[0-9]+"
    if re.fullmatch(plain, text) and len(text) <= 20:
        return Money.of(text, currency)
    return Money.parse(text, currency, locale)


def _iso(day: date | None) -> str:
    return day.isoformat() if day else ""


def _midnight(day: date, timezone: str) -> datetime:
    return datetime.combine(day, time.min, ZoneInfo(timezone))
