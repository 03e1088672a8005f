"""What customers run: plans and their prices, services, renewals, and how long the balance covers them.

A period is the days from its start to its end, both included: a service is paid through its last paid day and renews on the day after.
A period is charged once, whoever tries and however often: its row in ``renewals`` is unique, is made with the bill, and waits for money
until it names the transfer that paid it.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from heapq import heapify, heappop, heapreplace

from app.money import Money

DAY = timedelta(days=1)
HORIZON_DAYS = 366


class ServiceError(ValueError):
    """What was asked cannot be done, as a sentence for the customer."""


@dataclass(frozen=True, slots=True)
class Service:
    """One thing a customer runs, with what its next period costs."""

    id: int
    public_id: str
    customer_id: int
    kind: str
    plan: str
    label: str
    detail: str
    months: int
    status: str
    auto_renew: bool
    payment_source: str
    priority: int
    started_on: date
    paid_through: date
    price: Money | None
    waiting: str | None

    @property
    def renews_on(self) -> date:
        """The first day that is not paid yet."""
        return self.paid_through + DAY

    def days_left(self, today: date) -> int:
        """Paid days after today; below zero once the service runs on credit."""
        return (self.paid_through - today).days


@dataclass(frozen=True, slots=True)
class Renewal:
    """One coming renewal: when, how much, and what the balance will lack for it by then."""

    service: Service
    on: date
    price: Money
    missing: Money

    @property
    def short(self) -> bool:
        """Whether the balance will not cover it."""
        return bool(self.missing)


@dataclass(frozen=True, slots=True)
class Runway:
    """Until when the balance covers every renewal, and which one first runs short by how much."""

    covered_until: date | None
    short_on: date | None = None
    short_service: Service | None = None
    missing: Money | None = None


@dataclass(frozen=True, slots=True)
class Fund:
    """Money that can pay renewals: minor units, and the day on which it lapses if it is a bonus."""

    minor: int
    lapses_on: date | None = None


def add_months(day: date, months: int, anchor: int) -> date:
    """``day`` moved by whole months onto the anchor day of the month (1 to 31), or onto the month's last day when it is shorter."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(anchor, monthrange(year, month + 1)[1]))


def period_end(start: date, months: int, anchor: int) -> date:
    """The last day of the period of so many months that begins on ``start``."""
    return add_months(start, months, anchor) - DAY


def simulate(services: Iterable[Service], funds: Sequence[Fund], until: date) -> Iterator[Renewal]:
    """The renewals to come up to and with ``until``, in the order they will be charged, paid from ``funds`` as real ones are.

    What the funds do not cover takes nothing, and does not run on.
    """
    left = [[fund.minor, fund.lapses_on] for fund in sorted(funds, key=lambda fund: (fund.lapses_on is None, fund.lapses_on or date.max))]
    queue = [(s.renews_on, s.priority, s.id, s) for s in services if s.auto_renew and s.status == "active" and s.price]
    heapify(queue)
    while queue and queue[0][0] <= until:
        on, priority, id_, service = queue[0]
        price = service.price
        assert price is not None
        missing = _take(left, price.minor, on)
        yield Renewal(service, on, price, Money(missing, price.currency))
        if missing:
            heappop(queue)
        else:
            heapreplace(queue, (add_months(on, service.months, service.started_on.day), priority, id_, service))


def _take(left: list[list], amount: int, on: date) -> int:
    usable = [fund for fund in left if fund[1] is None or on < fund[1]]
    missing = amount - sum(fund[0] for fund in usable)
    if missing > 0:
        return missing
    for fund in usable:
        part = min(fund[0], amount)
        fund[0] -= part
        amount -= part
    return 0
