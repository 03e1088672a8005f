"""Money as tests say it: EUR("12.40"), JPY("500"), KWD("1.250")."""

from functools import partial

from app.money import CURRENCIES, Money

EUR = partial(Money.of, currency="EUR")
USD = partial(Money.of, currency="USD")
GBP = partial(Money.of, currency="GBP")
PLN = partial(Money.of, currency="PLN")
CHF = partial(Money.of, currency="CHF")
JPY = partial(Money.of, currency="JPY")
KWD = partial(Money.of, currency="KWD")

CODES = tuple(CURRENCIES)
