"""Countries, time zones and languages a profile may name."""

from functools import cache
from typing import Final
from zoneinfo import available_timezones

from babel import Locale

LANGUAGES: Final = {
    "en_GB": "English (UK)",
    "en": "English (US)",
    "de": "Deutsch",
    "fr": "Français",
    "pl": "Polski",
    "nl": "Nederlands",
    "es": "Español",
    "it": "Italiano",
    "cs": "Čeština",
    "pt": "Português",
}
"""Locale → its own name for itself."""
_REGIONS: Final = {"Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
_NO_COUNTRIES: Final = frozenset({"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"})
"""Two-letter codes of Babel's that are groups, placeholders or parts of another country's address."""


@cache
def countries(locale: str = "en") -> dict[str, str]:
    """ISO 3166 code → name, in the order of the names in that language."""
    names = Locale.parse(locale).territories
    found = {code: name for code, name in names.items() if len(code) == 2 and code.isalpha() and code not in _NO_COUNTRIES}
    return dict(sorted(found.items(), key=lambda item: item[1].casefold()))


@cache
def timezones() -> tuple[str, ...]:
    """IANA names of places, and UTC first."""
    return ("UTC", *sorted(name for name in available_timezones() if name.partition("/")[0] in _REGIONS))
