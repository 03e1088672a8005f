"""Money is a whole number of minor units and its currency; no float ever touches it.

1284.60 euro is `Money(128460, "EUR")`, 500 yen is `Money(500, "JPY")`, 1.250 dinar is `Money(1250, "KWD")`.
Two currencies never mix: adding or ordering them raises `CurrencyMismatch`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Self

from babel import Locale

__all__ = [
    "CURRENCIES",
    "LARGEST_MINOR",
    "AmountError",
    "Currency",
    "CurrencyMismatch",
    "Money",
    "UnknownCurrency",
    "exponent",
]

LARGEST_MINOR = 10**15
"""The largest amount either side of zero, in minor units: far inside bigint, so that sums of rows stay there too."""

LONGEST_TEXT = 64
"""Characters; the largest amount of any currency, grouped and with its symbol, needs fewer than 30."""

EXACT = Context(prec=60, traps=[InvalidOperation, Inexact])
"""Nothing is rounded before it is asked to be: what does not fit in 60 digits raises."""


class AmountError(ValueError):
    """An amount that cannot be taken. `str()` is a sentence for the customer."""


class UnknownCurrency(AmountError):
    """A currency outside the table below."""


class CurrencyMismatch(TypeError):
    """Two currencies met in one sum or comparison: a mistake of the code, never of the customer."""


@dataclass(frozen=True, slots=True)
class Currency:
    """One enabled currency; `exponent` is its number of decimals by ISO 4217."""

    code: str
    exponent: int
    name: str


# The currencies we enable, with their minor units as ISO 4217 (list one, 2026-01-01) gives them: every currency of the
# ECB's reference rates, and those our customers top up in beside them. CLDR's own digits are for display and change with
# its versions, so they are not a substitute.
_TABLE = """
EUR 2 Euro
USD 2 US dollar
GBP 2 Pound sterling
CHF 2 Swiss franc
PLN 2 Polish złoty
CZK 2 Czech koruna
DKK 2 Danish krone
SEK 2 Swedish krona
NOK 2 Norwegian krone
HUF 2 Hungarian forint
RON 2 Romanian leu
ISK 0 Icelandic króna
TRY 2 Turkish lira
UAH 2 Ukrainian hryvnia
AUD 2 Australian dollar
BRL 2 Brazilian real
CAD 2 Canadian dollar
CNY 2 Chinese yuan
HKD 2 Hong Kong dollar
IDR 2 Indonesian rupiah
ILS 2 Israeli new shekel
INR 2 Indian rupee
JPY 0 Japanese yen
KRW 0 South Korean won
MXN 2 Mexican peso
MYR 2 Malaysian ringgit
NZD 2 New Zealand dollar
PHP 2 Philippine peso
SGD 2 Singapore dollar
THB 2 Thai baht
ZAR 2 South African rand
NGN 2 Nigerian naira
AED 2 UAE dirham
BHD 3 Bahraini dinar
JOD 3 Jordanian dinar
KWD 3 Kuwaiti dinar
"""


def _read_table(table: str) -> Mapping[str, Currency]:
    lines = (line.split(maxsplit=2) for line in table.strip().splitlines())
    return MappingProxyType({code: Currency(code, int(digits), name) for code, digits, name in lines})


CURRENCIES: Mapping[str, Currency] = _read_table(_TABLE)
"""Enabled currencies by ISO 4217 code, in the order a list offers them."""


def exponent(currency: str) -> int:
    """Decimals of a currency by ISO 4217 (EUR 2, JPY 0, KWD 3). Raises UnknownCurrency."""
    try:
        return CURRENCIES[currency].exponent
    except (KeyError, TypeError):
        raise UnknownCurrency("We do not work with this currency. Choose another one.") from None


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units of its currency. Raises AmountError beyond LARGEST_MINOR, TypeError on a float."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise TypeError(f"minor units are a whole number, not {self.minor!r}")
        exponent(self.currency)
        _within_range(self.minor)

    @classmethod
    def of(cls, amount: str | int | Decimal, currency: str) -> Self:
        """The exact amount in major units: `Money.of("12.40", "EUR")`. For code and tests, never for what a person typed.

        Raises AmountError when it is no number or finer than the currency.
        """
        if isinstance(amount, float):
            raise TypeError("a float cannot say an amount of money")
        try:
            minor = Decimal(amount).scaleb(exponent(currency), EXACT)
        except (InvalidOperation, Inexact):
            raise AmountError(f"{amount} is not an amount of {currency}.") from None
        if not minor.is_finite() or minor != minor.to_integral_value():
            raise AmountError(f"{amount} is not an amount of {currency}.")
        return cls(_within_range(minor), currency)

    @classmethod
    def rounded(cls, amount: Decimal, currency: str, rounding: str = ROUND_HALF_UP) -> Self:
        """The nearest amount in minor units to `amount` in major units. The one place where money is rounded.

        Round once, at the end of one expression. Raises AmountError when it is no number or out of range.
        """
        if not amount.is_finite():
            raise AmountError(f"{amount} is not an amount.")
        _within_range(amount)
        minor = amount.scaleb(exponent(currency), EXACT)
        return cls(_within_range(minor.to_integral_value(rounding)), currency)

    @classmethod
    def parse(cls, text: str, currency: str, locale: str) -> Self:
        """What a person typed, read as their locale writes it: `1.234,50` in German, `1,234.50` in English.

        The currency's code or the locale's symbol for it may stand before or after. No sign, no other way of writing and
        no guess: whatever could be read in two ways is refused. Raises AmountError with a sentence that shows how to
        write it, and nothing else whatever the text is.
        """
        return cls(_read(text, currency, _writing(locale)), currency)

    @classmethod
    def searched(cls, text: str, currency: str, locale: str) -> Self | None:
        """The amount somebody looks for, without its sign; None where the text is no amount.

        Read as the locale writes it, else with a point, as exports and addresses do.
        """
        unsigned = text.strip().lstrip("+-\N{MINUS SIGN}").strip()
        sign = r"(?:[A-Z]{3}|[^\w\s.,-]{1,3})?"
        amount = re.fullmatch(rf"{sign}\s*([0-9.,]+)\s*{sign}", unsigned)
        with suppress(AmountError):
            return cls.parse(unsigned, currency, locale)
        with suppress(AmountError):
            return cls.of(amount[1], currency) if amount else None
        return None

    @classmethod
    def total(cls, amounts: Iterable[Self], currency: str) -> Self:
        """The sum of amounts in `currency`; of none, zero. Raises CurrencyMismatch."""
        return sum(amounts, cls(0, currency))

    @property
    def decimal(self) -> Decimal:
        """The amount in major units, exact: 12.40."""
        return Decimal(self.minor).scaleb(-exponent(self.currency), EXACT)

    def __str__(self) -> str:
        return f"{self.decimal:f} {self.currency}"

    def __bool__(self) -> bool:
        return self.minor != 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.minor + self._minor_of(other), self.currency)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.minor - self._minor_of(other), self.currency)

    def __mul__(self, times: int) -> Self:
        """A quantity of it: a price times months. Only by a whole number; for a rate, see `rounded`."""
        return type(self)(self.minor * times, self.currency)

    def __neg__(self) -> Self:
        return type(self)(-self.minor, self.currency)

    def __abs__(self) -> Self:
        return type(self)(abs(self.minor), self.currency)

    def __lt__(self, other: Self) -> bool:
        return self.minor < self._minor_of(other)

    def __le__(self, other: Self) -> bool:
        return self.minor <= self._minor_of(other)

    def __gt__(self, other: Self) -> bool:
        return self.minor > self._minor_of(other)

    def __ge__(self, other: Self) -> bool:
        return self.minor >= self._minor_of(other)

    def allocate(self, weights: Sequence[int | Decimal]) -> list[Self]:
        """Split by weights so that the parts sum to exactly this amount.

        Each part is its exact share rounded towards zero; the minor units left over go to the largest remainders, the
        earlier first. Raises ValueError unless the weights are at least zero and one is above it.
        """
        shares = [Fraction(weight) for weight in weights]
        whole = sum(shares)
        if not whole or min(shares) < 0:
            raise ValueError(f"cannot split by the weights {list(weights)}")
        return [type(self)(part, self.currency) for part in _split(self.minor, [share / whole for share in shares])]

    def _minor_of(self, other: "Money") -> int:
        if not isinstance(other, Money):
            raise TypeError(f"{other!r} is not money")
        if other.currency != self.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} do not mix")
        return other.minor


def _within_range(minor: int | Decimal) -> int:
    if not -LARGEST_MINOR <= minor <= LARGEST_MINOR:
        raise AmountError("This amount is larger than we can handle.")
    return int(minor)


def _split(minor: int, shares: list[Fraction]) -> list[int]:
    exact = [abs(minor) * share for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda at: parts[at] - exact[at])
    for at in by_remainder[: abs(minor) - sum(parts)]:
        parts[at] += 1
    return [part if minor >= 0 else -part for part in parts]


# Reading what a person typed.

_SPACES = " \u00a0\u202f\u2009"
_APOSTROPHES = "'\u2019"


@dataclass(frozen=True, slots=True)
class _Writing:
    """How one locale writes an amount."""

    locale: Locale
    group: str
    decimal: str
    shape: re.Pattern[str]

    def write(self, minor: int, digits: int) -> str:
        whole, fraction = divmod(minor, 10**digits)
        grouped = f"{whole:,}".replace(",", self.group)
        return f"{grouped}{self.decimal}{fraction:0{digits}d}" if digits else grouped


@lru_cache(maxsize=64)
def _writing(name: str) -> _Writing:
    locale = Locale.parse(name)
    symbols = locale.number_symbols["latn"]
    group, decimal = symbols["group"], symbols["decimal"]
    # A space or an apostrophe has many forms on a keyboard; all of them group where the locale groups by one.
    groups = next((alike for alike in (_SPACES, _APOSTROPHES) if group in alike), group)
    shape = rf"(?P<whole>[0-9]+|[0-9]{{1,3}}(?:[{re.escape(groups)}][0-9]{{3}})+)(?:{re.escape(decimal)}(?P<fraction>[0-9]+))?"
    return _Writing(locale, group, decimal, re.compile(shape))


def _read(text: str, currency: str, writing: _Writing) -> int:
    digits = exponent(currency)
    example = writing.write(12345 * 10**digits // 10, digits)
    if len(text) > LONGEST_TEXT:
        raise AmountError(f"This is too long for an amount. Write it like {example}.")
    figure = _without_currency(text.strip(), currency, writing.locale)
    _refuse_what_is_no_figure(figure, example)
    found = writing.shape.fullmatch(figure)
    if not found:
        raise AmountError(f"Write the amount like {example}.")
    whole, fraction = re.sub(r"[^0-9]", "", found["whole"]), found["fraction"] or ""
    if len(whole) > 1 and whole[0] == "0":
        raise AmountError(f"Write the amount without leading zeros, like {example}.")
    if len(fraction) > digits:
        raise AmountError(f"{_decimals_of(currency, digits)} Write the amount like {example}.")
    if _reads_two_ways(found["whole"], fraction, digits):
        clear = writing.write(int(whole) * 10**digits, digits)
        raise AmountError(f"{figure} can be read in two ways. Write it with its decimals, like {clear}.")
    minor = int(whole + fraction.ljust(digits, "0"))
    if minor > LARGEST_MINOR:
        raise AmountError(f"The largest amount we can handle is {writing.write(LARGEST_MINOR, digits)} {currency}.")
    return minor


def _without_currency(text: str, currency: str, locale: Locale) -> str:
    names = (currency, locale.currency_symbols.get(currency, currency))
    for name in names:
        if text.startswith(name):
            return text.removeprefix(name).lstrip()
        if text.endswith(name):
            return text.removesuffix(name).rstrip()
    return text


def _refuse_what_is_no_figure(figure: str, example: str) -> None:
    if not figure:
        raise AmountError(f"Enter an amount, like {example}.")
    if figure[0] in "+-\u2212" or figure[-1] in "+-\u2212":
        raise AmountError(f"Write the amount without a sign, like {example}.")
    if not re.fullmatch(rf"[0-9.,{_SPACES}{_APOSTROPHES}]+", figure):
        raise AmountError(f"Write the amount in digits, like {example}.")


def _decimals_of(currency: str, digits: int) -> str:
    return f"{currency} has {digits} decimals at most." if digits else f"{currency} has no decimals."


def _reads_two_ways(whole: str, fraction: str, digits: int) -> bool:
    """`1.234` in German is a thousand to one reader and a bit more than one to another, wherever there are decimals.

    Two groups, a space or an apostrophe cannot be taken for a decimal mark; nor can anything where there are no decimals.
    """
    return digits > 0 and not fraction and sum(whole.count(mark) for mark in ".,") == 1
