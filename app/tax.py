"""Who is taxed how. Hosting is an electronically supplied service, so VAT follows the place of the customer.

Rates are data with dates (`app/data/vat-rates.csv`). Categories are those of EN 16931: S standard rate, AE reverse charge,
E exempt, O outside the scope. The rules are the Directive's (2006/112/EC); whoever runs the house has them signed by their adviser.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import stdnum.ch.uid
import stdnum.ch.vat
import stdnum.eu.vat
import stdnum.gb.vat
from babel import Locale
from babel.numbers import get_territory_currencies
from stdnum import get_cc_module

from app.money import Money

RATES = Path(__file__).parent / "data" / "vat-rates.csv"

Category = Literal["S", "AE", "E", "O"]

EU = frozenset(["AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"])

# Inside a member state and outside its VAT area, told by the postcode: the Canaries, Ceuta and Melilla; Büsingen and
# Heligoland; Livigno and Campione; the overseas parts of France (98000 is Monaco, which is taxed as France); Åland; Mount Athos; Greenland.
# Territories with a country code of their own (GP, RE, AX …) are not in EU at all.
# Northern Ireland (GB, VAT IDs with XI) is in the Union's VAT area for goods alone, so for us it lies outside.
_OUTSIDE_BY_POSTCODE: Mapping[str, tuple[str, ...]] = {
    "ES": ("35", "38", "51", "52"),
    "DE": ("78266", "27498"),
    "IT": ("23041", "22061"),
    "FR": ("97", "984", "986", "987", "988"),
    "FI": ("22",),
    "GR": ("63086", "63087"),
    "DK": ("39",),
}
# Inside the VAT area, with a standard rate of its own: Madeira and the Azores; Jungholz and the Kleinwalsertal,
# which have a German postcode as well.
_REGIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "PT": {"PT-30": ("90", "91", "92", "93"), "PT-20": ("95", "96", "97", "98", "99")},
    "AT": {"AT-MIT": ("6691", "6991", "6992", "6993", "87491", "87567", "87568", "87569")},
}
_TREATED_AS = {"MC": "FR", "IM": "GB"}
"""Monaco is taxed as France, the Isle of Man as the United Kingdom."""

BUSINESS_STATES = frozenset({"valid", "confirmed"})
"""States of a VAT ID that prove a business: the register knows it, or a person of support looked at other proof."""

_REVERSE_CHARGE = "Reverse charge: the customer owes the VAT (Articles 44 and 196, Directive 2006/112/EC)."
_OUTSIDE = "Not subject to EU VAT: supplied where the customer is established (Articles 44 and 58, Directive 2006/112/EC)."
_SMALL_BUSINESS = "Exempt from VAT: small business scheme (Article 284, Directive 2006/112/EC)."
_NO_VAT = "No VAT is charged: the seller is not registered for it."
_PREPAYMENT = "Prepayment to your balance, not a VAT invoice. No VAT is due yet: it is charged on the invoice of each service that the balance pays for."


class Seller(Protocol):
    """What the rules ask of a seller. `country` is ISO 3166 alpha-2."""

    @property
    def country(self) -> str: ...
    @property
    def vat_id(self) -> str: ...


class Buyer(Protocol):
    """What the rules ask of a buyer. Only a company whose VAT ID the register or support confirmed is a business."""

    @property
    def country(self) -> str | None: ...
    @property
    def postcode(self) -> str: ...
    @property
    def vat_id(self) -> str: ...
    @property
    def vat_id_state(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Party:
    """A seller or a buyer, where no fuller record is at hand."""

    country: str
    vat_id: str = ""
    postcode: str = ""
    vat_id_state: str = "unverified"
    kind: str = "company"


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a supply is taxed: EN 16931 category, rate in percent (19, 25.5), and the sentence that the document must carry."""

    category: Category
    rate: Decimal
    legal_note: str = ""

    def vat(self, net: Money) -> Money:
        """The VAT on a net amount, rounded half up, once."""
        return Money.rounded(net.decimal * self.rate / 100, net.currency)

    def split(self, gross: Money) -> tuple[Money, Money]:
        """Net amount and VAT of an amount that includes it; they sum to exactly that amount."""
        vat = Money.rounded(gross.decimal * self.rate / (100 + self.rate), gross.currency)
        return gross - vat, vat


def treatment(seller: Seller, buyer: Buyer, on: date, *, trust_unverified: bool = False) -> Treatment:
    """How a service supplied on a date is taxed.

    `trust_unverified` takes a company's VAT ID for a business's before the register was asked, which is the seller's own risk.
    Raises LookupError when the buyer's country, or the rate of that date, is unknown.
    """
    here, there = _area(seller.country, ""), _area(buyer.country or "", buyer.postcode)
    if not seller.vat_id:
        return Treatment("E", Decimal(0), _SMALL_BUSINESS) if here in EU else Treatment("O", Decimal(0), _NO_VAT)
    if there == here:
        return Treatment("S", rate(_region(there, buyer.postcode), on))
    if there not in EU or here not in EU:
        return Treatment("O", Decimal(0), _OUTSIDE)
    if is_business(buyer, trust_unverified=trust_unverified):
        return Treatment("AE", Decimal(0), _REVERSE_CHARGE)
    return Treatment("S", rate(_region(there, buyer.postcode), on), f"VAT ({_country_name(there)}), declared through the One Stop Shop.")


def for_topup() -> Treatment:
    """How a top-up is taxed: not at all, as what the balance will pay for is not known yet.

    A prepayment is taxed only when the supply it pays for is known in its particulars (C-419/02 BUPA; Articles 65 and 73a of the
    Directive), and a balance may buy servers, domains or licences, or be refunded.
    """
    return Treatment("O", Decimal(0), _PREPAYMENT)


def rate(country: str, on: date) -> Decimal:
    """The standard rate of a country on a date, in percent. Raises LookupError when none is known."""
    found = [percent for since, percent in _rates().get(country, ()) if since <= on]
    if not found:
        raise LookupError(f"no VAT rate of {country or 'no country'} is known for {on}")
    return found[-1]


_EURO_SINCE = {"BG": date(2026, 1, 1), "HR": date(2023, 1, 1)}
"""Where CLDR does not know the euro yet, or names the old notes first while they were still taken."""


def currency_of(country: str, on: date) -> str | None:
    """The currency in which a country collects its VAT on a date; None for one we know none of."""
    since = _EURO_SINCE.get(country)
    if since and since <= on:
        return "EUR"
    tender = get_territory_currencies(country, on, on, tender=True)
    return tender[0] if tender else None


# VAT IDs, by their form: whether one is registered is for the Commission's VIES to say.


def compact_vat_id(country: str, vat_id: str) -> str:
    """A VAT ID as documents print it: capitals, no spaces, the country's prefix set before it in the Union (EL for Greece)."""
    country = _TREATED_AS.get(country, country)
    compact = "".join(char for char in vat_id.upper() if char not in " .-/\u00a0\u202f")
    if not compact or country not in EU:
        return compact
    if country == "GR" and compact.startswith("GR"):
        return f"EL{compact[2:]}"
    return compact if compact[:2].isalpha() else f"{_vat_prefix(country)}{compact}"


def vat_id_problem(country: str, vat_id: str) -> str | None:
    """Why this cannot be a VAT ID of that country, as a sentence for the customer; None when its form and check digits are right.

    None too when it is empty, which says that there is no VAT ID. Raises nothing, whatever was typed. A country whose
    numbers we do not know takes any that has digits.
    """
    country = _TREATED_AS.get(country, country)
    compact = compact_vat_id(country, vat_id)
    if not compact:
        return None
    if re.fullmatch(r"(EU|IM)[0-9]+", compact):
        return "This is a One Stop Shop number, not the VAT ID of a business. Enter your VAT ID, or leave the field empty."
    if country in EU:
        return _eu_problem(country, compact)
    if _is_valid_outside(country, compact):
        return None
    return f"This is not a valid VAT ID ({_country_name(country)}). Check it for a typing mistake."


def _eu_problem(country: str, compact: str) -> str | None:
    prefix, name = _vat_prefix(country), _country_name(country)
    if not compact.startswith(prefix):
        return f"The VAT ID must start with {prefix} ({name}). Check the number, or the country of your address."
    if not (compact.isascii() and stdnum.eu.vat.is_valid(compact)):
        return f"This is not a valid VAT ID ({name}). Check it for a typing mistake."
    return None


def _is_valid_outside(country: str, compact: str) -> bool:
    if not (compact.isascii() and compact.isalnum()):
        return False
    if country == "GB":
        return stdnum.eu.vat.is_valid(compact) if compact.startswith("XI") else stdnum.gb.vat.is_valid(compact)
    if country in ("CH", "LI"):
        return stdnum.ch.uid.is_valid(compact) if compact[-1].isdigit() else stdnum.ch.vat.is_valid(compact)
    form = get_cc_module(country.lower(), "vat") if re.fullmatch("[A-Z]{2}", country) else None
    return form.is_valid(compact) if form else len(compact) <= 20 and any(char.isdigit() for char in compact)


def is_business(buyer: Buyer, *, trust_unverified: bool = False) -> bool:
    """Whether a buyer counts as a business: never a private person, whatever number was entered."""
    proven = buyer.vat_id_state in BUSINESS_STATES or (trust_unverified and buyer.vat_id_state == "unverified")
    return buyer.kind == "company" and bool(buyer.vat_id) and proven and vat_id_problem(buyer.country or "", buyer.vat_id) is None


def _area(country: str, postcode: str) -> str:
    """The VAT area a place belongs to: its country, or none of the Union's."""
    if not country:
        raise LookupError("the buyer's country is not known")
    outside = _plain(postcode).startswith(_OUTSIDE_BY_POSTCODE.get(country, ("none",)))
    return f"{country} outside" if outside else _TREATED_AS.get(country, country)


def _region(country: str, postcode: str) -> str:
    """The part of a country that has a rate of its own, else the country."""
    parts = _REGIONS.get(country, {})
    return next((part for part, prefixes in parts.items() if _plain(postcode).startswith(prefixes)), country)


def _plain(postcode: str) -> str:
    """A postcode without blanks and without the country before it: 9000-062 for "P-9000-062"."""
    return re.sub(r"^[A-Z]{1,2}[- ]", "", postcode.upper().strip()).replace(" ", "")


def _vat_prefix(country: str) -> str:
    return "EL" if country == "GR" else country


def _country_name(country: str) -> str:
    return str(Locale("en").territories.get(country, country))


class RatesRefused(ValueError):
    """Rates of VAT that are missing or cannot be read; `str()` is a sentence for the operator."""


_own: dict[str, str] = {}


def use(path: str) -> None:
    """Let the operator's own file of rates, in the form of ours, add to and come before them; "" for none. Raises RatesRefused."""
    read = list(_read(Path(path))) if path else []
    _own.clear()
    if read:
        _own["path"] = path
    _rates.cache_clear()


def refuse_seller_without_rate(seller: Seller, on: date) -> None:
    """Raises RatesRefused for a seller who has to charge VAT at a rate that nobody has written down."""
    if not seller.vat_id:
        return
    try:
        rate(_TREATED_AS.get(seller.country, seller.country), on)
    except LookupError:
        raise RatesRefused(
            f"No VAT rate of {seller.country} is known. Write it into a file and name that in VAT_RATES_FILE: the first line "
            f"country,since,percent, then for instance {seller.country},2020-01-01,20. A seller without VAT sets SELLER_VAT_ID empty."
        ) from None


_PERCENT = re.compile(r"[0-9]{1,2}(\.[0-9]{1,2})?")
_COUNTRY = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")


def _read(path: Path) -> Iterator[tuple[str, date, Decimal]]:
    """The lines of a file of rates. Raises RatesRefused."""
    try:
        with path.open(encoding="ascii", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError):
        raise RatesRefused(f"VAT_RATES_FILE={path} cannot be read.") from None
    if not lines or lines[0] != ["country", "since", "percent"]:
        raise RatesRefused(f"VAT_RATES_FILE={path}: the first line must be country,since,percent.")
    for number, line in enumerate(lines[1:], 2):
        where = f"VAT_RATES_FILE={path}, line {number}:"
        country, since, percent = (*line, "", "", "")[:3]
        if not _COUNTRY.fullmatch(country):
            raise RatesRefused(f"{where} {country or 'nothing'} is no country; write its two letters, like DE.")
        if not _PERCENT.fullmatch(percent):
            raise RatesRefused(f"{where} write the percent like 20 or 25.5.")
        try:
            day = date.fromisoformat(since)
        except ValueError:
            raise RatesRefused(f"{where} write the day like 2023-07-10.") from None
        yield country, day, Decimal(percent)


@cache
def _rates() -> Mapping[str, list[tuple[date, Decimal]]]:
    found: dict[str, dict[date, Decimal]] = {}
    for path in (RATES, *map(Path, _own.values())):
        for country, since, percent in _read(path):
            found.setdefault(country, {})[since] = percent
    return {country: sorted(rates.items()) for country, rates in found.items()}
