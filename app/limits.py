"""What one top-up may be, per currency, in minor units: the smallest, the largest, and the largest balance after it.

Written out, not converted: limits are round figures in every currency and do not move with a rate.
"""

from collections.abc import Mapping

from app.money import Money
from config import Limits

__all__ = ["LIMITS", "Limits", "at_least", "limits"]

LIMITS: Mapping[str, Limits] = {
    "EUR": Limits(5_00, 10_000_00, 50_000_00),
    "USD": Limits(5_00, 10_000_00, 50_000_00),
    "GBP": Limits(5_00, 10_000_00, 50_000_00),
    "CHF": Limits(5_00, 10_000_00, 50_000_00),
    "PLN": Limits(20_00, 40_000_00, 200_000_00),
    "CZK": Limits(150_00, 250_000_00, 1_250_000_00),
    "SEK": Limits(50_00, 100_000_00, 500_000_00),
    "NOK": Limits(50_00, 100_000_00, 500_000_00),
    "DKK": Limits(50_00, 75_000_00, 375_000_00),
    "HUF": Limits(2_000_00, 4_000_000_00, 20_000_000_00),
    "RON": Limits(25_00, 50_000_00, 250_000_00),
    "CAD": Limits(10_00, 15_000_00, 75_000_00),
    "AUD": Limits(10_00, 15_000_00, 75_000_00),
    "JPY": Limits(500, 1_500_000, 7_500_000),
    "KWD": Limits(2_000, 3_000_000, 15_000_000),
}


def limits(currency: str) -> Limits | None:
    """The limits of a currency, or None when nothing can be paid in it."""
    return LIMITS.get(currency)


def at_least(amount: Money) -> Money:
    """What to add so that at least this much is there: the amount, or the smallest top-up of its currency."""
    allowed = limits(amount.currency)
    return max(amount, Money(allowed.minimum, amount.currency)) if allowed else amount
