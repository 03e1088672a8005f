"""What Stripe carries, as a table: one row a method, and everything that is said, asked or decided about it.

Where a fact is from: unmarked, Stripe's own pages and its SDK; [K] general knowledge of the scheme, which nobody looked up. Stripe's Checkout
decides last whatever stands here: the session only asks for the method, and the account's own settings may not have it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.gateways.base import Method, WayBack
from app.languages import N_

_LEAST: Mapping[str, int] = {
    **dict.fromkeys(("USD", "EUR", "CHF", "CAD", "AUD", "SGD", "JPY"), 50),
    "GBP": 30,
    "DKK": 2_50,
    "NOK": 3_00,
    "SEK": 3_00,
    "MXN": 10_00,
    "HKD": 4_00,
    "PLN": 2_00,  # [K]
    "CZK": 15_00,  # [K]
}
"""The least Stripe takes of a currency, in minor units, by whatever method."""
_SEPA = frozenset(
    [
        "AD",
        "AT",
        "BE",
        "BG",
        "CH",
        "CY",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GB",
        "GR",
        "HR",
        "HU",
        "IE",
        "IS",
        "IT",
        "LI",
        "LT",
        "LU",
        "LV",
        "MC",
        "MT",
        "NL",
        "NO",
        "PL",
        "PT",
        "RO",
        "SE",
        "SI",
        "SK",
        "SM",
        "VA",
    ]
)

CARD_DAYS = 365
"""Stripe sets no limit for cards, but the longer it takes the more of them are closed meanwhile, and a refund that fails weeks later costs everybody more."""
REDIRECT_DAYS = 180
"""[K] for the bank redirects at Stripe; PayPal's pages say the same of iDEAL and Bancontact."""
SEPA_WAIT_DAYS = 56
"""Eight weeks in which the payer's bank takes a direct debit back on demand, no reason asked: what went back before could go back twice."""

_REDIRECT = WayBack(REDIRECT_DAYS)
_NEVER = WayBack(0)


@dataclass(frozen=True, slots=True)
class Row:
    """One method. `stripe` is its name there, `back` how its money goes back, `kept` whether it can be kept for later, `offered` whether it is unless somebody says so."""

    stripe: str
    method: Method
    back: WayBack
    kept: bool = False
    offered: bool = True


def _row(
    stripe: str,
    label: str,
    mark: str,
    detail: str,
    settles_in: str,
    back: WayBack,
    *,
    name: str = "",
    currencies: str = "",
    countries: str | frozenset[str] = "",
    where: str = "",
    maximums: Mapping[str, int] | None = None,
    waiting: str = "",
    days: bool = False,
    same_as: str = "",
    kept: bool = False,
    offered: bool = True,
) -> Row:
    """A row; `currencies` and `countries` as words, none for all; `days` where the money takes so long that no rate is held for it."""
    payers = frozenset(countries.split()) if isinstance(countries, str) else countries
    method = Method(
        name or stripe, label, mark, detail, settles_in, "stripe", currencies=frozenset(currencies.split()) or None, countries=payers or None, where=where,
        minimums=_LEAST, maximums=maximums, waiting=waiting, rate_held=not days, same_as=same_as,
    )  # fmt: skip
    return Row(stripe, method, back, kept, offered)


ROWS = (
    _row("card", "Bank card", "CARD", "Visa, Mastercard, American Express", "Instant", WayBack(CARD_DAYS), kept=True),
    _row(
        "card", N_("Apple Pay or Google Pay"), "Pay", "Shown where your device has it set up; a card works on the same page", "Instant", WayBack(CARD_DAYS),
        name="device", same_as="card",
    ),
    _row("ideal", "iDEAL", "iDEAL", "With your Dutch bank", "Instant", _REDIRECT, currencies="EUR", countries="NL", where="the Netherlands"),
    _row("bancontact", "Bancontact", "BC", "With your Belgian card or app", "Instant", _REDIRECT, currencies="EUR", countries="BE", where="Belgium"),
    _row("eps", "EPS", "EPS", "With your Austrian bank", "Instant", _REDIRECT, currencies="EUR", countries="AT", where="Austria"),
    _row("blik", "BLIK", "BLIK", "With the six digits of your banking app", "Within a minute", _REDIRECT, currencies="PLN", countries="PL", where="Poland"),
    _row(
        "p24", "Przelewy24", "P24", "With your Polish bank", "Within minutes", _REDIRECT, currencies="PLN EUR", countries="PL", where="Poland",
        waiting="Your bank has not confirmed it to Przelewy24 yet. Most do within minutes, some only on the next business day.",
    ),
    _row("twint", "TWINT", "TWINT", "With the TWINT app", "Instant", _REDIRECT, currencies="CHF", countries="CH", where="Switzerland", maximums={"CHF": 5_000_00}),  # [K]
    _row("swish", "Swish", "Swish", "With the Swish app", "Instant", _REDIRECT, currencies="SEK", countries="SE", where="Sweden"),  # [K]
    _row(
        "mobilepay", "MobilePay", "MP", "With the MobilePay app", "Instant", _REDIRECT, currencies="DKK EUR", countries="DK FI", where="Denmark or Finland",
    ),  # [K]
    _row(
        "sepa_debit", N_("SEPA Direct Debit"), "SEPA", "We collect it from your bank account", "About 5 business days",
        WayBack(REDIRECT_DAYS, SEPA_WAIT_DAYS, "For eight weeks a bank can take a direct debit back, so it cannot be refunded before"),
        currencies="EUR", countries=_SEPA, where="the SEPA area", maximums={"EUR": 10_000_00}, days=True, kept=True,
        waiting="Your bank has been asked for the money. That takes about 5 business days, at most 14.",
    ),
    _row(
        "multibanco", "Multibanco", "MB", "With a reference, at a cash machine or in your bank's app", "1–3 business days", _NEVER, currencies="EUR", countries="PT",
        where="Portugal", maximums={"EUR": 99_999_00}, days=True,
        waiting="Pay the reference you were given at a cash machine or in your bank's app. We hear of it within 3 business days after that.",
    ),
    _row(
        "klarna", "Klarna", "Klarna", "Pay later or in parts", "Instant", _REDIRECT, currencies="EUR GBP USD SEK NOK DKK PLN CZK CHF CAD AUD",
        countries="AT AU BE CA CH CZ DE DK ES FI FR GB GR IE IT NL NO NZ PL PT SE US", where="the countries Klarna serves", offered=False,
    ),
)  # fmt: skip
"""giropay and Sofort are not here: their schemes have closed, though Stripe still knows their names. Klarna lends for a purchase, and funds on an account are none."""

BY_NAME: Mapping[str, Row] = {row.method.name: row for row in ROWS}
LABELS: Mapping[str, str] = {row.stripe: row.method.label for row in reversed(ROWS)}
"""What a method of Stripe's is called, also one the customer did not choose here."""


def way_back(name: str) -> WayBack:
    """How money of a method goes back; for one that is not in the table any more the narrowest way there is: the shortest window, the longest wait."""
    if name in BY_NAME:
        return BY_NAME[name].back
    ways = [row.back for row in ROWS if row.back.days]
    return WayBack(min(way.days for way in ways), max(way.wait for way in ways), max(way.why for way in ways))


def offered(names: str = "") -> tuple[Method, ...]:
    """The methods that are offered: those named (by comma), or those that are unless somebody says so. Raises ValueError for a name there is not."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or [row.method.name for row in ROWS if row.offered]
    if unknown := [name for name in wanted if name not in BY_NAME]:
        raise ValueError(f"STRIPE_METHODS names {', '.join(unknown)}. There are {', '.join(BY_NAME)}.")
    return tuple(row.method for row in ROWS if row.method.name in wanted)
