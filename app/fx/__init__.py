"""Exchange rates and what they are worth to a customer: the ECB's reference feed, offers, and the quotes that fix one.

A rate says how much of a currency one euro buys. Rates are append-only, each with its source and date. A conversion is one
expression of both rates, rounded once, down to the credited currency's minor unit: rounding up is a free-money loop for whoever
converts the smallest amounts to and fro. A missing, stale or absurd rate is refused with a sentence; nothing ever falls back to 1.0.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from itsdangerous import BadData, URLSafeSerializer

import config
from app import clock, db, signing
from app.fx.changes import Change, carried, changes, lift_wait, note_conversion
from app.fx.feed import BAND, DEMO_SOURCE, HISTORY, SOURCE, FeedRefused, Imported, fetch, import_feed, import_history, moved, quotable
from app.fx.target import business_days, is_business_day
from app.money import CURRENCIES, AmountError, Money

__all__ = [
    "DEMO_SOURCE",
    "HISTORY",
    "SOURCE",
    "Change",
    "Equivalent",
    "FeedRefused",
    "Imported",
    "Offer",
    "RateUnavailable",
    "Reference",
    "carried",
    "changes",
    "equivalents",
    "fetch",
    "fix",
    "import_feed",
    "import_history",
    "is_business_day",
    "keep",
    "lift_wait",
    "note_conversion",
    "offer",
    "quotable",
    "quoted",
    "reference",
    "seal",
    "standing",
    "unseal",
]

OFFER_LIFE = timedelta(minutes=15)
STALE_AFTER = 2
"""Business days of the TARGET calendar. A rate of Thursday still serves on the Tuesday after Easter."""
LOOK_BACK = timedelta(days=14)
"""Old enough for the last usable rate and the one before it over any holidays; a range that an index answers."""

_EXACT = Context(prec=34, rounding=ROUND_DOWN)


class RateUnavailable(Exception):
    """No rate we can answer for. `str()` is a sentence for the customer, `reason` a word for the operator."""

    def __init__(self, sentence: str, reason: Literal["missing", "stale", "absurd", "expired"]) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Offer:
    """What a payment in another currency would credit, until `expires_at`.

    `rate` is the mid rate, in units of the credited currency for one of the paid, to twelve decimals: for display and the record, while
    `credited` comes from the feed's own rates. `spread` is our share in the credited currency, so that
    credited + spread is the amount at mid, rounded down.
    """

    pay: Money
    credited: Money
    spread: Money
    rate: Decimal
    spread_bp: int
    rate_date: date
    source: str
    expires_at: datetime

    @property
    def gross(self) -> Money:
        """The amount at the mid rate, before the spread."""
        return self.credited + self.spread


@dataclass(frozen=True, slots=True)
class Equivalent:
    """About what an amount is in another currency, for reading; never for moving money."""

    money: Money
    rate: Decimal
    rate_date: date
    source: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What one currency is worth in another by the reference rates of one day, for papers; never
    for moving money.

    `rate` is how much of `quote` one unit of `base` buys. Where the euro is one of the two it is the
    base, so that the rate is the published figure itself.
    """

    base: str
    quote: str
    rate: Decimal
    rate_date: date
    source: str

    def convert(self, amount: Money) -> Money:
        """An amount of one of the two in the other, rounded half up. Raises AmountError beyond any amount."""
        if amount.currency == self.base:
            return Money.rounded(_EXACT.multiply(amount.decimal, self.rate), self.quote)
        return Money.rounded(_EXACT.divide(amount.decimal, self.rate), self.base)


def offer(pay: Money, into: str) -> Offer:
    """What paying `pay` would credit in the currency `into`, for the next 15 minutes. Reads only.

    Raises RateUnavailable without a rate we can answer for, AmountError when so little was paid that nothing would be
    credited, ValueError when there is nothing to convert.
    """
    if pay.currency == into:
        raise ValueError(f"{pay} needs no conversion into {into}")
    day = _pair(pay.currency, into)
    from_rate, to_rate, spread_bp = day.rates[pay.currency], day.rates[into], config.current().fx_spread_bp
    credited = _convert(pay, from_rate, to_rate, into, 10_000 - spread_bp)
    if not credited:
        raise AmountError(f"This amount is too small to become {CURRENCIES[into].name}. Pay more, or pay in {into}.")
    return Offer(
        pay=pay,
        credited=credited,
        spread=_convert(pay, from_rate, to_rate, into) - credited,
        rate=(to_rate / from_rate).quantize(Decimal("1e-12"), ROUND_HALF_EVEN),
        spread_bp=spread_bp,
        rate_date=day.rate_date,
        source=day.source,
        expires_at=clock.now() + OFFER_LIFE,
    )


def seal(offer: Offer) -> str:
    """The offer as a token for a form: signed, so that it comes back unchanged."""
    return _sealer().dumps(
        [
            *(offer.pay.minor, offer.pay.currency, offer.credited.minor, offer.credited.currency, offer.spread.minor),
            *(str(offer.rate), offer.spread_bp, offer.rate_date.isoformat(), offer.source, offer.expires_at.isoformat()),
        ]
    )


def unseal(token: str) -> Offer | None:
    """The offer of a token, or None when it is not ours, was changed or has expired."""
    try:
        pay, pay_currency, credited, currency, spread, rate, spread_bp, rate_date, source, expires_at = _sealer().loads(token)
    except BadData:
        return None
    found = Offer(
        Money(pay, pay_currency),
        Money(credited, currency),
        Money(spread, currency),
        Decimal(rate),
        spread_bp,
        date.fromisoformat(rate_date),
        source,
        datetime.fromisoformat(expires_at),
    )
    return found if clock.now() < found.expires_at else None


def fix(offer: Offer, customer_id: int) -> int:
    """Keep an offer as a quote, which the settlement credits exactly; returns its id. Within a transaction.

    Raises RateUnavailable when the offer has expired.
    """
    if clock.now() >= offer.expires_at:
        raise RateUnavailable("The rate was held for 15 minutes, which are over. Here is the rate of this moment.", "expired")
    return int(
        db.scalar(
            _FIX,
            customer_id=customer_id,
            pay_amount=offer.pay.minor,
            pay_currency=offer.pay.currency,
            credit_amount=offer.credited.minor,
            credit_currency=offer.credited.currency,
            rate=offer.rate,
            spread_bp=offer.spread_bp,
            spread_amount=offer.spread.minor,
            rate_date=offer.rate_date,
            source=offer.source,
            created_at=clock.now(),
            expires_at=offer.expires_at,
        )
    )


def keep(token: str, customer_id: int, pay: Money, into: str | None) -> None:
    """Fix the offer of a token, where it is one for this conversion and still held. Within a transaction."""
    found = unseal(token)
    if found and (found.pay, found.credited.currency) == (pay, into):
        with suppress(RateUnavailable):  # it ended just now
            fix(found, customer_id)


def quoted(quote_id: int) -> Offer | None:
    """The offer that a quote fixed, also after its expiry: whether it still binds is the payment's rule."""
    return _offer(db.row(_QUOTED, quote_id=quote_id))


def standing(customer_id: int, pay: Money, into: str) -> Offer | None:
    """The newest quote of a customer for this conversion that is still held, as an offer; None when there is none."""
    return _offer(db.row(_STANDING, customer_id=customer_id, amount=pay.minor, currency=pay.currency, into=into, now=clock.now()))


def _offer(row: db.Row | None) -> Offer | None:
    if row is None:
        return None
    pay, credited = Money(row.pay_amount, row.pay_currency), Money(row.credit_amount, row.credit_currency)
    spread = Money(row.spread_amount, row.credit_currency)
    return Offer(pay, credited, spread, row.rate, row.spread_bp, row.rate_date, row.source, row.expires_at)


def newest_day() -> date | None:
    """The newest day of which there is any rate."""
    found: date | None = db.scalar("select max(rate_date) from rates")
    return found


def is_fresh(day: date) -> bool:
    """Whether rates of this day may still be used."""
    return business_days(day, clock.today()) <= STALE_AFTER


def equivalents(amount: Money, currencies: Iterable[str]) -> list[Equivalent]:
    """About what an amount is in other currencies, at mid and rounded half up; those without a current rate are left out."""
    others = [code for code in currencies if code != amount.currency]
    today = clock.today()
    days = _days(sorted({amount.currency, *others} - {"EUR"}), today)
    found = []
    for into in others:
        try:
            found.append(_equivalent(amount, into, _usable(days, amount.currency, into, today)))
        except (RateUnavailable, AmountError):
            continue
    return found


def _equivalent(amount: Money, into: str, day: "_Day") -> Equivalent:
    exact = _EXACT.divide(_EXACT.multiply(amount.decimal, day.rates[into]), day.rates[amount.currency])
    rate = _EXACT.divide(day.rates[into], day.rates[amount.currency])
    return Equivalent(Money.rounded(exact, into), rate, day.rate_date, day.source)


def reference(currency: str, into: str, on: date) -> Reference | None:
    """The reference rate of a day: the newest published until its end. None where none is known for
    it, or the newest is older than a conversion may use. One statement.
    """
    if not {currency, into} <= CURRENCIES.keys():
        return None
    try:
        day = _usable(_days(sorted({currency, into} - {"EUR"}), on), currency, into, on)
    except RateUnavailable:
        return None
    base, quote = (into, currency) if into == "EUR" else (currency, into)
    rate = _EXACT.divide(day.rates[quote], day.rates[base])
    return Reference(base, quote, rate, day.rate_date, day.source)


_FIX = """
insert into quotes (customer_id, pay_amount, pay_currency, credit_amount, credit_currency,
                    rate, spread_bp, spread_amount, rate_date, source, created_at, expires_at)
values (%(customer_id)s, %(pay_amount)s, %(pay_currency)s, %(credit_amount)s, %(credit_currency)s,
        %(rate)s, %(spread_bp)s, %(spread_amount)s, %(rate_date)s, %(source)s, %(created_at)s, %(expires_at)s)
returning id
"""

_QUOTED = """
select pay_amount, pay_currency, credit_amount, credit_currency, rate, spread_bp, spread_amount, rate_date, source, expires_at
from quotes where id = %(quote_id)s
"""

_STANDING = """
select pay_amount, pay_currency, credit_amount, credit_currency, rate, spread_bp, spread_amount, rate_date, source, expires_at
from quotes
where customer_id = %(customer_id)s and pay_amount = %(amount)s and pay_currency = %(currency)s and credit_currency = %(into)s and expires_at > %(now)s
order by id desc limit 1
"""


def _sealer() -> URLSafeSerializer:
    return signing.serializer("fx-offer-1")


def _convert(pay: Money, from_rate: Decimal, to_rate: Decimal, into: str, basis_points: int = 10_000) -> Money:
    """One expression over both rates, rounded once, down."""
    exact = _EXACT.divide(_EXACT.multiply(pay.decimal, to_rate * basis_points), from_rate * 10_000)
    return Money.rounded(exact, into, ROUND_DOWN)


@dataclass(frozen=True, slots=True)
class _Day:
    """The rates that one source published for one day, the euro's own among them; `confirmed` names those a person accepted."""

    source: str
    rate_date: date
    rates: dict[str, Decimal]
    confirmed: frozenset[str]


def _pair(pay: str, into: str) -> _Day:
    today = clock.today()
    return _usable(_days(sorted({pay, into} - {"EUR"}), today), pay, into, today)


def _days(currencies: Sequence[str], until: date) -> list[_Day]:
    """The fortnight up to and with a day, newest first; of one day, the ECB's own before a copy."""
    rows = db.rows(_RECENT, currencies=list(currencies), after=until - LOOK_BACK, until=until)
    one = {"EUR": Decimal(1)}
    return [_Day(row.source, row.rate_date, one | dict(zip(row.currencies, row.rates, strict=True)), frozenset(row.confirmed or ())) for row in rows]


_RECENT = """
select source, rate_date, array_agg(currency::text order by currency) as currencies, array_agg(rate order by currency) as rates,
       array_agg(currency::text) filter (where confirmed) as confirmed
from rates
where currency = any(%(currencies)s) and rate_date > %(after)s and rate_date <= %(until)s
group by source, rate_date
order by rate_date desc, source
"""


def _usable(days: list[_Day], pay: str, into: str, on: date) -> _Day:
    """The newest day with both rates, refused unless it is fresh on that day and plausible beside
    the one before.
    """
    both = [day for day in days if pay in day.rates and into in day.rates]
    if not both:
        raise _unavailable(pay, into, "missing")
    newest = both[0]
    if business_days(newest.rate_date, on) > STALE_AFTER:
        raise _unavailable(pay, into, "stale")
    before = next((day for day in both[1:] if day.source == newest.source), None)
    if before and any(_is_absurd(newest, before, code) for code in (pay, into)):
        raise _unavailable(pay, into, "absurd")
    return newest


def _is_absurd(newest: _Day, before: _Day, currency: str) -> bool:
    return currency not in newest.confirmed and moved(before.rates[currency], newest.rates[currency]) > BAND


def _unavailable(pay: str, into: str, reason: Literal["missing", "stale", "absurd"]) -> RateUnavailable:
    return RateUnavailable(f"There is no current exchange rate from {pay} to {into}. Pay in {into}, or try again on the next business day.", reason)
