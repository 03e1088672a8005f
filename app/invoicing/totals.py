"""What a bill adds up to. The cart, the bill, the page and the PDF all ask here, so they agree to the cent."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    """Net, tax and their sum, in minor units of one currency."""

    net: int
    tax: int

    @property
    def total(self) -> int:
        """Net and tax together, in minor units."""
        return self.net + self.tax


def total(nets: Iterable[int], rate: Decimal) -> Totals:
    """Add line amounts (net, minor units) and tax them at `rate` percent.

    The tax is one expression over the sum, rounded half up once; taxing unit prices or lines and adding up drifts by cents.
    """
    net = sum(nets)
    tax = (net * rate / 100).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    return Totals(net, int(tax))
