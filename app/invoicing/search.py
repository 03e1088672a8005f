"""The list of bills: a filter that is an object with one canonical address, and pages by keyset.

A filter never raises on what a person or a link says: what it cannot read it leaves out, and keeps a sentence about it in `errors`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from typing import Any

from app import db
from app.formats import Formats
from app.invoicing import states
from app.invoicing.documents import day_in
from app.money import CURRENCIES, Money, exponent

SIZES = (10, 25, 50, 100)
SIZE = 25
PERIODS = (1, 3, 6, 12)
STATUSES = {
    "unpaid": "b.status = 'unpaid' and b.kind = 'service'",
    "topup": "b.status = 'unpaid' and b.kind = 'topup'",
    "paid": "b.status = 'paid'",
    "refunded": "b.status = 'refunded'",
    "cancelled": "b.status = 'cancelled'",
    "expired": "b.status = 'expired'",
}
"""What each filter option finds. Of what waits only services are owed: a top-up that was not finished is a draft."""
KINDS = {"invoice": ["service"], "topup": ["topup"], "credit-note": []}
"""What each option of the kind finds, by the bills' kinds. No bill is a credit note."""
KIND_WORDS = {"invoice": "services", "topup": "top-ups", "credit-note": "credit notes"}
LONGEST_TEXT = 60
COUNTED = 10_000
"""Matches of one status that are counted and added up; beyond it the list says "more than"."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which bills to list. Amounts in minor units of `currency`; dates are days of the legal zone, both ends included; None and "" mean any."""

    currency: str = "EUR"
    status: str = ""
    kind: str = ""
    since: date | None = None
    until: date | None = None
    lowest: int | None = None
    highest: int | None = None
    period: int | None = None
    q: str = ""
    size: int = SIZE
    before: str = ""
    locale: str = field(default="en", compare=False)
    errors: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_query(cls, query: Mapping[str, str], currency: str = "EUR", locale: str = "en") -> "Filter":
        """Read ``status kind from to min max period q size before``; what is wrong is left out and said in `errors`."""
        read, errors = {}, {}
        for name, (target, reader) in _READERS.items():
            text = query.get(name, "").strip()
            try:
                if text:
                    read[target] = reader(text, currency, locale)
            except ValueError as problem:
                errors[name] = str(problem)
        if "since" in read and "until" in read and read["since"] > read["until"]:
            errors["to"] = "This is before the first date."
            del read["until"]
        if "lowest" in read and "highest" in read and read["lowest"] > read["highest"]:
            errors["max"] = "This is less than the lowest amount."
            del read["highest"]
        return cls(currency=currency, locale=locale, errors=errors, **read)

    def as_query(self) -> dict[str, str]:
        """The one canonical query of this filter, without blanks and defaults. `from_query` reads it back equal in any locale."""
        plain = {
            "status": self.status,
            "kind": self.kind,
            "from": self.since and self.since.isoformat(),
            "to": self.until and self.until.isoformat(),
            "min": self._plain(self.lowest),
            "max": self._plain(self.highest),
            "period": self.period and str(self.period),
            "q": self.q,
            "size": str(self.size) if self.size != SIZE else "",
            "before": self.before,
        }
        return {name: str(value) for name, value in plain.items() if value}

    def chips(self, formats: Formats) -> list[tuple[str, "Filter"]]:
        """Each thing that is filtered by, in words, beside the filter without it; the page starts anew."""
        months = f"for {self.period} {'month' if self.period == 1 else 'months'}" if self.period else ""
        parts: tuple[tuple[str, dict[str, Any]], ...] = (
            (self.status, {"status": ""}),
            (KIND_WORDS.get(self.kind, ""), {"kind": ""}),
            (self._days(formats), {"since": None, "until": None}),
            (self._amounts(formats), {"lowest": None, "highest": None}),
            (months, {"period": None}),
            (f"“{self.q}”" if self.q else "", {"q": ""}),
        )
        return [(words, replace(self, before="", **without)) for words, without in parts if words]

    def _days(self, formats: Formats) -> str:
        if self.since and self.until:
            first, last = formats.date(self.since), formats.date(self.until)
            return first if first == last else f"{first} to {last}"
        if self.since:
            return f"from {formats.date(self.since)}"
        return f"to {formats.date(self.until)}" if self.until else ""

    def _amounts(self, formats: Formats) -> str:
        low, high = (formats.money(minor, self.currency) if minor is not None else "" for minor in (self.lowest, self.highest))
        if low and high:
            return low if low == high else f"{low} to {high}"
        return f"at least {low}" if low else f"at most {high}" if high else ""

    @property
    def narrowed(self) -> bool:
        """Whether anything is left out of the list."""
        return any(getattr(self, name.name) not in (None, "") for name in fields(self) if name.name not in {"currency", "size", "before", "locale", "errors"})

    def _plain(self, minor: int | None) -> str:
        return f"{Money(minor, self.currency).decimal:f}" if minor is not None else ""


def _read_status(text: str, _currency: str, _locale: str) -> str:
    if text == "all":
        return ""
    if text not in STATUSES:
        raise ValueError("Choose one of the statuses.")
    return text


def _read_kind(text: str, _currency: str, _locale: str) -> str:
    if text == "all":
        return ""
    if text not in KINDS:
        raise ValueError("Choose one of the kinds.")
    return text


def _read_date(text: str, _currency: str, _locale: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ValueError("Write the date like 2026-11-20.") from None
    if not 2000 <= found.year <= 2200:
        raise ValueError("There are no invoices of that year.")
    return found


def _read_amount(text: str, currency: str, locale: str) -> int:
    """An amount as the customer writes it, or as `as_query` does: with a point and all of the currency's decimals."""
    digits = exponent(currency)
    if re.fullmatch(rf"[0-9]{{1,13}}\.[0-9]{{{digits}}}" if digits else "[0-9]{1,13}", text):
        return Money.of(text, currency).minor
    return Money.parse(text, currency, locale).minor


def _read_period(text: str, _currency: str, _locale: str) -> int:
    if text not in map(str, PERIODS):
        raise ValueError("Choose one of the periods.")
    return int(text)


def _read_text(text: str, _currency: str, _locale: str) -> str:
    if len(text) > LONGEST_TEXT or "\x00" in text:
        raise ValueError(f"Search for {LONGEST_TEXT} characters at most.")
    return text


def _read_size(text: str, _currency: str, _locale: str) -> int:
    if text not in map(str, SIZES):
        raise ValueError("Choose one of the page sizes.")
    return int(text)


_READERS: Mapping[str, tuple[str, Any]] = {
    "status": ("status", _read_status),
    "kind": ("kind", _read_kind),
    "from": ("since", _read_date),
    "to": ("until", _read_date),
    "min": ("lowest", _read_amount),
    "max": ("highest", _read_amount),
    "period": ("period", _read_period),
    "q": ("q", _read_text),
    "size": ("size", _read_size),
    "before": ("before", _read_text),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the list. Amount in minor units; dates are those printed on the documents."""

    number: str
    title: str
    kind: str
    status: str
    currency: str
    total: int
    issued_on: date
    paid_on: date | None
    due_on: date
    months: int | None
    standing: states.Standing
    bonus: int
    """What a bonus took off the price, VAT included: `total` is what was left."""
    moments: Mapping[datetime, date]
    """When it was issued and paid, and the legal days on which that was."""

    @property
    def unpaid(self) -> bool:
        """Whether it waits for money."""
        return self.status == "unpaid"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of bills, newest first.

    `older` is the cursor of the next page or "". `counts` has the matches by filter option, and "" for all of them, whatever status
    is chosen. `totals` are the sums of what is chosen by the bills' kind and by currency, in minor units: services paid from a balance
    are the top-ups' money again, so kinds are never added up. `due` has by currency what is unpaid among the matches.
    """

    entries: list[Entry]
    older: str
    counts: dict[str, int]
    totals: dict[str, dict[str, int]]
    due: dict[str, int]

    @property
    def counted_all(self) -> bool:
        """Whether the counts are exact, and not merely the first ten thousand of a status."""
        return all(count < COUNTED for status, count in self.counts.items() if status)


_ROWS = f"""
select coalesce(b.invoice_number, b.proforma_number) as number, b.title, b.kind, b.status, b.currency, b.total, b.issued_at, b.paid_at, b.due_at, b.closed_at, b.months, {states.COLUMNS}, coalesce(b.allowance, 0) as bonus,
  coalesce(b.seller ->> 'timezone', 'UTC') as zone, coalesce(b.payment ->> 'timezone', 'UTC') as paid_zone
from bills b {states.FACTS} where b.customer_id = %(customer_id)s
"""  # noqa: S608 - constants
_NEWEST = " order by b.issued_at desc, b.id desc"
_CURSOR = """
  from bills c where c.customer_id = %(customer_id)s and (
    c.invoice_number = %(before)s
    or c.proforma_number = %(before)s
    or c.reissued_at is not null and c.former_names @> array[%(before)s]::text[]
  )
"""
_BEFORE = f"""
 and (b.issued_at, b.id) < (
  (select c.issued_at {_CURSOR}),
  (select c.id {_CURSOR}))
"""
_FIGURE = "b.total * case when b.currency = any(%(of_units)s) then 1000 when b.currency = any(%(of_thousandths)s) then 1 else 10 end"
"""An amount in thousandths of its currency, so that 20 finds ¥ 20, € 20.00 and KD 20.000 alike."""
_PRICE = _FIGURE.replace("b.total", "(b.total + b.allowance)")
"""The same of the price before a bonus, as the invoice for payment named it."""
_UNITS = {"of_units": [code for code in CURRENCIES if exponent(code) == 0], "of_thousandths": [code for code in CURRENCIES if exponent(code) == 3]}
_NAMED = """
  b.payment_reference = %(compact)s
  or b.id = any(array(select d.bill_id from documents d where d.number = %(compact)s))
  or b.id = any(array(
    select p.bill_id
    from payments p
    where p.public_id = %(text)s or p.public_id >= %(text)s and p.public_id < %(text_end)s
  ))
  or b.id = any(array(
    select p.bill_id
    from refunds r
    join payments p on p.id = r.payment_id
    where r.number = %(compact)s
  ))
  or b.id = any(array(select p.bill_id from payments p where p.gateway_reference = %(text)s))
"""
"""What stands on its documents and at its processor: exact, each found by an index."""
_ISSUED_ON = "(b.issued_at at time zone coalesce(b.seller ->> 'timezone', 'UTC'))::date"
"""The day that is printed on it; the bare range beside it is for the index."""
_CONDITIONS = {
    "since": f" and b.issued_at > %(since)s::date - 2 and {_ISSUED_ON} >= %(since)s",
    "until": f" and b.issued_at < %(until)s::date + 2 and {_ISSUED_ON} <= %(until)s",
    "lowest": f" and {_FIGURE} >= %(lowest)s",
    "highest": f" and {_FIGURE} <= %(highest)s",
    "kinds": " and b.kind = any(%(kinds)s)",
    "period": " and b.months = %(period)s",
    "q": f"""
 and (
  b.words like %(q)s
  or lower(b.payment ->> 'method') like %(q)s
  or {_FIGURE} = %(figure)s
  or {_PRICE} = %(figure)s
  or {_NAMED}
 )""",
}
_COUNT = """
select '{option}' as option, kind, currency, count(*) as count, sum(total)::bigint as total, sum(due)::bigint as due from (
  select b.kind, b.currency, b.total, {due} as due from bills b where b.customer_id = %(customer_id)s and {status}{conditions} limit {counted}) matches group by kind, currency
"""
_DUE = f"""
(select case when sum({states.CAME}) < b.total then b.total - sum({states.CAME}) else b.total end
  from payments p {states.HELD} where p.bill_id = b.id and {states.CREDITED})
"""  # noqa: S608 - constants


def search(customer_id: int, chosen: Filter) -> Page:
    """A page of the customer's own bills: two statements, by keyset, as fast at the end of a long history as at its start."""
    conditions, params = _conditions(customer_id, chosen)
    status = _chosen(chosen)
    found = db.rows(f"{_ROWS}{conditions}{status}{_BEFORE if chosen.before else ''}{_NEWEST} limit %(limit)s", **params, limit=chosen.size + 1)
    counts_of = (
        _COUNT.format(option=option, status=status_is, conditions=conditions, counted=COUNTED, due=_DUE if option == "unpaid" else "0") for option, status_is in STATUSES.items()
    )
    counted = db.rows(" union all ".join(counts_of), **params)
    older = found[chosen.size - 1].number if len(found) > chosen.size else ""
    counts = {option: sum(row.count for row in counted if row.option == option) for option in STATUSES}
    return Page(
        entries=[_entry(row) for row in found[: chosen.size]],
        older=older,
        counts={"": sum(counts.values()), **counts},
        totals=_by_kind([row for row in counted if chosen.status in {"", row.option}]),
        due=_sums((row.currency, row.due) for row in counted if row.option == "unpaid"),
    )


_EXPORT = f"""
select b.proforma_number, b.invoice_number, (select d.number from documents d where d.bill_id = b.id and d.kind = 'receipt') as receipt_number, b.status, b.kind, b.title, b.closed_at, {states.COLUMNS},
  case when b.beneficiary_id <> b.customer_id then (select l.detail from bill_lines l where l.bill_id = b.id order by l.position limit 1) end as beneficiary,
  b.issued_at, b.due_at, b.paid_at, coalesce(b.seller ->> 'timezone', 'UTC') as zone, coalesce(b.payment ->> 'timezone', 'UTC') as paid_zone,
  b.period_start, b.period_end, b.months, b.currency, b.net, b.tax_rate, b.tax, b.total, coalesce(b.allowance, 0) as bonus,
  (b.payment->>'credited')::bigint as credited, b.payment->>'credited_currency' as credited_currency, b.payment->>'method' as method
from bills b {states.FACTS} where b.customer_id = %(customer_id)s
"""  # noqa: S608 - constants


Exported = db.Row
"""One line of an export: the columns of `_EXPORT`."""


def export(customer_id: int, chosen: Filter) -> Iterator[Exported]:
    """Every bill of the filter, newest first, read as it is written out: page size and cursor do not count."""
    conditions, params = _conditions(customer_id, chosen)
    return db.stream(f"{_EXPORT}{conditions}{_chosen(chosen)}{_NEWEST}", 1_000, **params)


def _conditions(customer_id: int, chosen: Filter) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {
        "since": chosen.since,
        "until": chosen.until,
        "lowest": _thousandths(chosen.lowest, chosen.currency),
        "highest": _thousandths(chosen.highest, chosen.currency),
        "period": chosen.period,
        "kinds": KINDS[chosen.kind] if chosen.kind else None,
        "q": _like(chosen.q) if chosen.q else None,
    }
    asked = {name: value for name, value in values.items() if value is not None}
    more: dict[str, object] = {}
    if chosen.q:
        compact = re.sub(r"\s+", "", chosen.q).upper()
        more = {"figure": _figure(chosen), "text": chosen.q, "text_end": _text_end(chosen.q), "compact": compact}
    if chosen.before:
        more["before"] = chosen.before.upper()
    return "".join(_CONDITIONS[name] for name in asked), {"customer_id": customer_id, **_UNITS, **asked, **more}


def _thousandths(minor: int | None, currency: str) -> int | None:
    return minor * 10 ** (3 - exponent(currency)) if minor is not None else None


def _like(text: str) -> str:
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


_SHORTENED = re.compile("pay_[0-9a-f]{8,31}")
"""A payment's number as a history shows it: its beginning."""


def _text_end(text: str) -> str:
    """What is behind everything that begins with a shortened number; of any other text, nothing is."""
    return f"{text}g" if _SHORTENED.fullmatch(text) else text


def _figure(chosen: Filter) -> int | None:
    """What was searched for, read as an amount if it is one."""
    amount = Money.searched(chosen.q, chosen.currency, chosen.locale)
    return _thousandths(amount.minor, chosen.currency) if amount else None


def _chosen(chosen: Filter) -> str:
    return f" and {STATUSES[chosen.status]}" if chosen.status else ""


def _sums(amounts: Iterator[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for currency, minor in amounts:
        sums[currency] = sums.get(currency, 0) + minor
    return sums


def _by_kind(rows: list[db.Row]) -> dict[str, dict[str, int]]:
    kinds = sorted({row.kind for row in rows})
    return {kind: _sums((row.currency, row.total) for row in rows if row.kind == kind) for kind in kinds}


def _entry(row: db.Row) -> Entry:
    paid_on = day_in(row.paid_at, row.paid_zone) if row.paid_at else None
    issued_on, due_on = (day_in(moment, row.zone) for moment in (row.issued_at, row.due_at))
    moments = {row.issued_at: issued_on} | ({row.paid_at: paid_on} if row.paid_at and paid_on else {})
    return Entry(row.number, row.title, row.kind, row.status, row.currency, row.total, issued_on, paid_on, due_on, row.months, states.read(row), row.bonus, moments)
