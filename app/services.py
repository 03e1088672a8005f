"""What customers run: plans and their prices, services, renewals, and how long the balance covers them.

A period is the days from its start to its end, both included: a service is paid through its last paid day and renews on the day after.
A period is charged once, whoever tries and however often: its row in ``renewals`` is unique, is made with the bill, and waits for money
until it names the transfer that paid it.
"""

import json
import logging
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from heapq import heapify, heappop, heapreplace
from typing import Any

import config
from app import clock, customers, db, invoicing, mail, payments, tax, wallet
from app.customers import Customer
from app.formats import Formats, formats
from app.invoicing import Bill, Draft, Line, Settlement
from app.money import Money

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
HORIZON_DAYS = 366
_MUCH = 10**15
"""Minor units that no customer's renewals of a year cost."""
CHUNK = 200
"""Customers whose services are renewed in one transaction."""

BILLED_AHEAD_DAYS = 10
"""How many days before its end a service that does not renew by itself gets a bill for the next period."""

WARNED_DAYS = 7
"""How many days before a renewal that nothing covers its owner is told."""

NOTICE_DAYS = 30
"""How many days after its owner was told a raised price holds for the first time."""

REMINDED_DAYS = (7, 21, 45, 75, 106)
"""The days since the first unpaid one on which a customer is told what has come together; that
nothing covers the first renewal is told on its day."""

CATCH_UP_DAYS = 3
"""For how many days a reminder that was not sent on its day is still sent."""

ENDS_UNPAID_DAYS = 120
"""A service ends that many days after its last paid one, when nothing was paid for it since."""

LENGTHS = (1, 3, 6, 12)
PREFIXES = {"dedicated": "ds", "vps": "vps", "licence": "lic", "ip": "ip"}


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
    card_id: int | None = None
    card_ends: date | None = None
    """The first day on which the saved card of its renewals cannot be charged any more; None without one that can."""
    listed: Money | None = None
    """What its plan costs now, None where it has no price; `price` where nothing else is said."""
    kept: Money | None = None
    """What periods that begin before `kept_until` cost since the plan became dearer."""
    kept_until: date | None = None

    @property
    def renews_on(self) -> date:
        """The first day that is not paid yet."""
        return self.paid_through + DAY

    def price_on(self, start: date) -> Money | None:
        """What the period that begins on that day costs, as far as that is known now."""
        if start <= self.renews_on or self.listed is None:
            return self.price
        if self.kept and self.kept_until and start < self.kept_until:
            return min(self.kept, self.listed, key=lambda price: price.minor)
        return self.listed

    @property
    def dearer_from(self) -> date | None:
        """The day from which a renewal costs more than the next one, where that is known."""
        dearer = bool(self.kept and self.listed and self.listed.minor > self.kept.minor)
        return self.kept_until if dearer else None

    def card_stands_in(self, on: date) -> bool:
        """Whether a renewal of that day that the balance does not cover is charged to the saved card."""
        return self.card_ends is not None and on < self.card_ends


@dataclass(frozen=True, slots=True)
class Renewed:
    """One period that was paid: its days, its price, the part of it that a bonus took off, the invoice and the ledger transfer."""

    service_id: int
    period_start: date
    period_end: date
    price: Money
    bonus: Money
    invoice_number: str
    transfer_id: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of renewals did, in services."""

    renewed: int = 0
    short: int = 0
    failed: int = 0

    def __add__(self, other: "Run") -> "Run":
        return Run(self.renewed + other.renewed, self.short + other.short, self.failed + other.failed)

    def __bool__(self) -> bool:
        return bool(self.renewed or self.short or self.failed)

    def __str__(self) -> str:
        return f"{self.renewed} renewed, {self.short} wait for money, {self.failed} failed"


@dataclass(frozen=True, slots=True)
class Renewal:
    """One coming renewal: when, how much, and what the balance will lack for it by then; `by_card` when a saved card stands in, for all of it."""

    service: Service
    on: date
    price: Money
    missing: Money
    by_card: bool = False

    @property
    def short(self) -> bool:
        """Whether nothing will cover it."""
        return bool(self.missing) and not self.by_card


@dataclass(frozen=True, slots=True)
class Arrear:
    """Periods of one service that have begun and are not paid: how many since which day, and what they cost together."""

    service: Service
    since: date
    periods: int
    cost: Money


@dataclass(frozen=True, slots=True)
class Runway:
    """Until when the balance covers every renewal, and which one first runs short; `card_on` is the first one before it that a saved card pays.

    `missing` is what has to be added for everything up to that day, and up to today, to be paid;
    `arrears` are the periods among it that have begun. `short_count` says how many services run
    short then, `unpriced` which ones cannot renew because their plan has no price.
    """

    covered_until: date | None
    short_on: date | None = None
    short_service: Service | None = None
    missing: Money | None = None
    card_on: date | None = None
    short_count: int = 0
    arrears: tuple[Arrear, ...] = ()
    unpriced: tuple[Service, ...] = ()

    @property
    def owed(self) -> Money | None:
        """What the begun periods cost together."""
        costs = [arrear.cost for arrear in self.arrears]
        return sum(costs[1:], costs[0]) if costs else None


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

    What the funds do not cover takes nothing of them, and does not run on unless a saved card stands in.
    """
    return (renewal for renewal, _ in _play(services, funds, until))


def _play(services: Iterable[Service], funds: Sequence[Fund], until: date) -> Iterator[tuple[Renewal, list[tuple[date, int]]]]:
    """`simulate`, each renewal with what is left after it: the day it lapses, and minor units."""
    left = [(fund.lapses_on or date.max, fund.minor) for fund in sorted(funds, key=lambda fund: fund.lapses_on or date.max)]
    queue = [(s.renews_on, s.priority, s.id, s, s.price) for s in services if s.auto_renew and s.status == "active" and s.price]
    heapify(queue)
    while queue and queue[0][0] <= until:
        on, priority, id_, service, price = queue[0]
        missing, left = _take(left, price.minor, on)
        by_card = missing > 0 and service.waiting is None and service.card_stands_in(on)  # what waits was declined
        yield Renewal(service, on, price, Money(missing, price.currency), by_card), left
        if missing and not by_card:
            heappop(queue)
        else:
            after = add_months(on, service.months, service.started_on.day)
            heapreplace(queue, (after, priority, id_, service, service.price_on(after) or price))


def _take(left: list[tuple[date, int]], amount: int, on: date) -> tuple[int, list[tuple[date, int]]]:
    """What is missing on that day, and what is left: all of it when something is missing. What lapses first is spent first."""
    usable = [(lapses_on, minor) for lapses_on, minor in left if on < lapses_on]
    missing = amount - sum(minor for _, minor in usable)
    if missing > 0:
        return missing, usable
    after = []
    for lapses_on, minor in usable:
        part = min(minor, amount)
        amount -= part
        if minor > part:
            after.append((lapses_on, minor - part))
    return 0, after


# Plans and prices


def set_plan(code: str, kind: str, name: str, prices: Mapping[tuple[str, int], int]) -> None:
    """Offer a plan, or change what it costs from now on: net minor units by (currency, months). Opens a transaction.

    Who runs it at a lower price is told, and keeps that price for periods that begin within
    `NOTICE_DAYS`. A price that falls holds at once.
    """
    with db.transaction():
        plan_id = db.scalar(_SET_PLAN, code=code, kind=kind, name=name)
        asked = [{"currency": currency, "months": months, "net": net} for (currency, months), net in prices.items()]
        raised = db.rows(_KEEP, plan=plan_id, prices=json.dumps(asked), until=clock.today() + timedelta(NOTICE_DAYS), now=clock.now())
        db.many(_SET_PRICE, [{"plan": plan_id, "currency": currency, "months": months, "net": net} for (currency, months), net in prices.items()])
        _tell_raised(raised)


def _tell_raised(raised: Sequence[db.Row]) -> None:
    """One mail to each customer about all of its services that will cost more. Within a transaction."""
    theirs: dict[int, list[tuple[db.Row, db.Row]]] = {}
    for kept in raised:
        (row,) = db.rows(_SERVICES + "where s.id = %(id)s", id=kept.service_id, months=kept.months)
        theirs.setdefault(row.customer_id, []).append((kept, row))
    readers = customers.get_many(theirs)
    mail.inform_many([_raised_letter(readers[customer_id], told) for customer_id, told in theirs.items()])


def _raised_letter(customer: Customer, told: Sequence[tuple[db.Row, db.Row]]) -> mail.Letter:
    write = formats(customer.locale, customer.timezone)
    first = told[0][0]

    def price(row: db.Row, net: int) -> str:
        return write.money(invoicing.total([net], _rate(row)).total, row.currency)

    lines = [{"label": row.label, "plan": row.plan, "before": price(row, kept.net), "after": price(row, kept.after)} for kept, row in told]
    context: dict[str, object] = {
        "name": customer.title or customer.email,
        "services": lines,
        "on": write.long_date(first.until),
    }
    key = f"price-raised:{first.service_id}:{first.until}:{first.net}:{first.after}"
    return mail.Letter("price_raised", customer.email, customer.locale, key, customer.id, context)


_SET_PLAN = """
insert into plans (code, kind, name) values (%(code)s, %(kind)s, %(name)s)
on conflict (code) do update set kind = excluded.kind, name = excluded.name returning id
"""
_SET_PRICE = """
insert into prices (plan_id, currency, months, net) values (%(plan)s, %(currency)s, %(months)s, %(net)s)
on conflict (plan_id, currency, months) do update set net = excluded.net
"""


# Before the prices are written: whoever pays less until now keeps that for a while.
_KEEP = """
insert into kept_prices (service_id, currency, months, until, net, told_at)
select s.id, c.currency, s.months, %(until)s, coalesce(pr.net, ap.net), %(now)s
from services s
join customers c on c.id = s.customer_id
join jsonb_to_recordset(%(prices)s::jsonb) as n (currency text, months integer, net bigint)
  on n.currency = c.currency and n.months = s.months
left join prices pr
  on pr.plan_id = s.plan_id and pr.currency = c.currency and pr.months = s.months
left join agreed_prices ap
  on pr.net is null
  and ap.service_id = s.id and ap.currency = c.currency and ap.months = s.months
where s.plan_id = %(plan)s
  and s.status <> 'terminated'
  and n.net > coalesce(pr.net, ap.net)
order by s.customer_id, s.priority, s.id
on conflict (service_id, currency, months, until) do update
set net = least(kept_prices.net, excluded.net)
returning service_id, until, net, months, (
  select max(n.net)
  from jsonb_to_recordset(%(prices)s::jsonb) as n (currency text, months integer, net bigint)
  where n.currency = kept_prices.currency and n.months = kept_prices.months
) as after
"""


@dataclass(frozen=True, slots=True)
class Repriced:
    """What a service's next period costs now and in another currency, None where it has no price; `listed` when that one is the plan's own."""

    service: Service
    after: Money | None
    listed: bool


def reprice(customer_id: int, into: str, rate: Decimal) -> list[Repriced]:
    """What each running service would cost in another currency: the plan's own price there, else today's at `rate`, rounded half up, before tax."""
    return [_reprice(row, into, rate) for row in db.rows(_OWNED_THERE, customer=customer_id, months=None, into=into)]


def agree_prices(customer_id: int, into: str, rate: Decimal) -> None:
    """Keep what `reprice` says, for every length a service is sold for, where the plan has no price of its own. Within a transaction.

    Before the customer's currency is changed. A price that the plan gets later comes before the agreed one.
    """
    rows = db.rows(_UNPRICED, customer=customer_id, into=into)
    db.many(_AGREE, [{"service": row.id, "currency": into, "months": row.months, "net": _at(row.net, row.currency, into, rate), "now": clock.now()} for row in rows])


def _reprice(row: db.Row, into: str, rate: Decimal) -> Repriced:
    net = row.net_there if row.net_there is not None else None if row.net is None else _at(row.net, row.currency, into, rate)
    after = None if net is None else Money(invoicing.total([net], _rate(row)).total, into)
    return Repriced(_read(row), after, row.net_there is not None)


def _at(net: int, currency: str, into: str, rate: Decimal) -> int:
    return Money.rounded(Money(net, currency).decimal * rate, into).minor


# What a customer runs

_SERVICES = """
select s.id, s.public_id, s.customer_id, p.kind, p.name as plan, s.label, s.detail, s.months, s.status, s.auto_renew, s.payment_source, s.priority,
  s.started_on, s.paid_through, least(kp.net, coalesce(pr.net, ap.net)) as net, s.card_id, c.currency, c.country, c.postcode, c.vat_id, c.vat_id_state, c.kind as buyer_kind,
  w.months as wanted, b.proforma_number, b.status = 'unpaid' as waits,
  (select (make_date(k.exp_year, k.exp_month, 1) + interval '1 month')::date from saved_cards k where k.id = s.card_id and k.removed_at is null and k.unusable = '') as card_ends,
  coalesce(pr.net, ap.net) as list_net, kp.net as kept_net, kp.until as kept_until,
  b.status as bill_status, b.closed_at as bill_closed_at, s.card_consented_at,
  b.months = w.months and b.currency = c.currency as billed,
  case when b.status = 'unpaid' and b.months = w.months and b.currency = c.currency then b.id end as bill_id,
  case when b.status = 'unpaid' and b.months = w.months and b.currency = c.currency then b.net end as billed_net
from services s
join plans p on p.id = s.plan_id
join customers c on c.id = s.customer_id
left join renewals r on r.service_id = s.id and r.period_start = s.paid_through + 1 and r.transfer_id is null
left join bills b on b.id = r.bill_id
cross join lateral (select coalesce(%(months)s::integer, case when b.status = 'unpaid' then b.months end, s.months) as months) w
left join prices pr on pr.plan_id = s.plan_id and pr.currency = c.currency and pr.months = w.months
left join agreed_prices ap on pr.net is null and ap.service_id = s.id and ap.currency = c.currency and ap.months = w.months
left join lateral (
  select k.net, k.until
  from kept_prices k
  where k.service_id = s.id
    and k.currency = c.currency
    and k.months = w.months
    and k.until > s.paid_through + 1
  order by k.net, k.until desc
  limit 1
) kp on true
"""
_OWNED = _SERVICES + "where s.customer_id = %(customer)s order by s.status = 'terminated', s.paid_through, s.priority, s.id"
_DUE = _SERVICES + "where s.paid_through < %(on)s and s.status = 'active' and s.auto_renew order by s.paid_through, s.priority, s.id"
_CLAIM_ONE = _SERVICES + "where s.id = %(id)s for no key update of s"
_CLAIM_DUE = (
    _SERVICES
    + """
where s.customer_id = any(%(customers)s) and s.paid_through < %(on)s and s.status = 'active' and s.auto_renew
  and not exists (select from accounts d where d.customer_id = s.customer_id and d.kind = 'debt' and d.balance < 0)
order by s.customer_id, s.priority, s.paid_through, s.id for no key update of s skip locked
"""
)
_CLAIM_ENDING = (
    _SERVICES
    + """
where s.customer_id = any(%(customers)s) and not s.auto_renew and s.status = 'active' and s.paid_through between %(on)s and %(until)s
order by s.id for no key update of s skip locked
"""
)
_OWNED_THERE = f"""
select o.*, there.net as net_there from ({_OWNED}) o
join services s on s.id = o.id left join prices there on there.plan_id = s.plan_id and there.currency = %(into)s and there.months = o.wanted
where o.status <> 'terminated' order by o.paid_through, o.priority, o.id
"""  # noqa: S608 - constants
_UNPRICED = """
select s.id, c.currency, l.months, coalesce(pr.net, ap.net) as net
from services s join customers c on c.id = s.customer_id
cross join (select distinct months from prices union select distinct months from agreed_prices) l
left join prices pr on pr.plan_id = s.plan_id and pr.currency = c.currency and pr.months = l.months
left join agreed_prices ap on ap.service_id = s.id and ap.currency = c.currency and ap.months = l.months
where s.customer_id = %(customer)s and s.status <> 'terminated' and coalesce(pr.net, ap.net) is not null
  and not exists (select from prices there where there.plan_id = s.plan_id and there.currency = %(into)s and there.months = l.months)
"""
_AGREE = """
insert into agreed_prices (service_id, currency, months, net, agreed_at) values (%(service)s, %(currency)s, %(months)s, %(net)s, %(now)s)
on conflict (service_id, currency, months) do update set net = excluded.net, agreed_at = excluded.agreed_at
"""


def of_customer(customer_id: int) -> list[Service]:
    """Everything a customer runs or ran, the next to renew first."""
    return [_read(row) for row in db.rows(_OWNED, customer=customer_id, months=None)]


def due(on: date) -> list[Service]:
    """Every service whose paid days are over on that day and that renews by itself."""
    return [_read(row) for row in db.rows(_DUE, on=on, months=None)]


def _read(row: db.Row) -> Service:
    listed, kept = _gross(row, row.list_net), _gross(row, row.kept_net)
    known: Any = (*row[:14], _price(row), row.proforma_number if row.waits else None, row.card_id, row.card_ends, listed, kept, row.kept_until)
    return Service(*known)


def _gross(row: db.Row, net: int | None) -> Money | None:
    return None if net is None else Money(invoicing.total([net], _rate(row)).total, row.currency)


def _price(row: db.Row) -> Money | None:
    """What the next period costs, with the VAT of today: of the bill that waits for it, else of the price."""
    return _gross(row, row.net if row.billed_net is None else row.billed_net)


def _rate(row: db.Row) -> Decimal:
    settings, buyer = config.current(), tax.Party(row.country or "", row.vat_id, row.postcode, row.vat_id_state, row.buyer_kind)
    return tax.treatment(settings.seller, buyer, clock.today(), trust_unverified=settings.reverse_charge_unverified).rate


# Orders and renewals


def order(customer_id: int, plan_code: str, months: int, *, label: str = "", detail: str = "", auto_renew: bool = True, priority: int = 100) -> Service:
    """Start a service and pay its first period from the balance, all or nothing: charge, invoice, service. Opens the transaction.

    Raises `ServiceError` for a plan that is not sold so, `wallet.InsufficientFunds` when the balance does not cover it.
    """
    _refuse_length(months)
    with db.transaction():
        customers.hold(customer_id)  # a price is in the account currency, which must not change meanwhile
        service_id = db.scalar(_ORDER, customer=customer_id, plan=plan_code, months=months, label=label, detail=detail, auto_renew=auto_renew, priority=priority,
                               today=clock.today(), now=clock.now(), prefixes=json.dumps(PREFIXES))  # fmt: skip
        if service_id is None:
            raise ServiceError("This plan is not offered.")
        ordered = db.rows(_CLAIM_ONE, id=service_id, months=None)
        _tell_renewed(ordered, _charge(ordered, "Order"))
        (row,) = db.rows(_CLAIM_ONE, id=service_id, months=None)
    return _read(row)


_ORDER = """
with plan as (
  select id, kind, nextval(pg_get_serial_sequence('services', 'id')) as service_id from plans where code = %(plan)s
), named as (
  select *, (%(prefixes)s::jsonb ->> kind) || '-' || service_id as public_id from plan
)
insert into services (id, public_id, customer_id, plan_id, label, detail, months, auto_renew, priority, started_on, paid_through, created_at)
overriding system value
select service_id, public_id, %(customer)s, id, coalesce(nullif(%(label)s, ''), public_id), %(detail)s, %(months)s, %(auto_renew)s, %(priority)s,
  %(today)s::date, %(today)s::date - 1, %(now)s
from named returning id
"""


def renew(service_id: int, months: int | None = None, *, period_start: date | None = None) -> Renewed:
    """Pay a service's next period from the balance; early is fine, it goes on from the current end. Opens the transaction.

    ``months`` is the service's own length unless given. ``period_start`` is the period the customer saw: when that one is paid already, its
    renewal is the answer and nothing is taken, so a second click buys nothing. Raises `ServiceError` for what cannot be renewed and
    `wallet.InsufficientFunds`, which leaves everything as it was.
    """
    if months is not None:
        _refuse_length(months)
    with db.transaction():
        db.execute(_EXTEND_PAID, customers=[row.id for row in db.rows(_HOLD_OWNER, id=service_id)])
        row = db.row(_CLAIM_ONE, id=service_id, months=months)
        if row is None or row.status == "terminated":
            raise ServiceError("This service has ended and cannot be renewed.")
        if period_start is not None and period_start != row.paid_through + DAY:
            return _renewed_before(service_id, period_start)
        if row.waits and row.bill_id is None:
            raise ServiceError(f"{row.proforma_number} waits for this period. Pay it, or cancel it first to choose another length.")
        (renewed,) = _charge([row], "Renewal")
        _tell_renewed([row], [renewed])
        return renewed


def _renewed_before(service_id: int, period_start: date) -> Renewed:
    found = db.row(_RENEWED, id=service_id, start=period_start)
    if found is None:
        raise ServiceError("This service renews from another day now. Look at it again before you pay.")
    price, bonus = (Money(minor, found.currency) for minor in (found.price, found.bonus))
    return Renewed(service_id, period_start, found.period_end, price, bonus, found.invoice_number, found.transfer_id)


_RENEWED = """
select r.period_end, r.transfer_id, b.total + coalesce(b.allowance, 0) as price, coalesce(b.allowance, 0) as bonus, b.currency, b.invoice_number from renewals r join bills b on b.id = r.bill_id
where r.service_id = %(id)s and r.period_start = %(start)s and r.transfer_id is not null
"""


def _refuse_length(months: int) -> None:
    if months not in LENGTHS:
        raise ServiceError("A period is 1, 3, 6 or 12 months.")


def renew_due(on: date | None = None, *, chunk: int = CHUNK, progress: Callable[[int, int], None] | None = None) -> Run:
    """Renew every service whose paid days are over on ``on`` (today), each period once, from as many workers as like to.

    A chunk of customers is one transaction, and customers another worker holds are left to it. What does not fit the balance takes nothing:
    its bill waits and the customer is told what is missing. A chunk that fails is tried again in smaller parts, so a bad service
    stops nothing. Opens the transactions; ``progress`` is told (customers done, customers in all).
    """
    day = on or clock.today()
    waiting = [row.customer_id for row in db.rows(_DUE_CUSTOMERS, on=day)]
    run = Run()
    for start in range(0, len(waiting), chunk):
        run += _attempt(day, waiting[start : start + chunk])
        if progress:
            progress(min(start + chunk, len(waiting)), len(waiting))
    return run


def settle_waiting() -> int:
    """Extend the services whose waiting bill was paid straight, by card or bank; how many. Opens the transaction."""
    with db.transaction():
        return db.execute(_EXTEND_PAID, customers=None)


def bill_ahead(on: date | None = None, *, days: int = BILLED_AHEAD_DAYS) -> int:
    """Bill the next period of services that do not renew by themselves and end within ``days``, to be paid straight, and say so; how many. Opens the transaction."""
    day = on or clock.today()
    with db.transaction():
        held = [row.id for row in db.rows(_LOCK_ENDING, on=day, until=day + timedelta(days))]
        rows = [row for row in db.rows(_CLAIM_ENDING, on=day, until=day + timedelta(days), months=None, customers=held) if not row.billed and row.net is not None]
        periods = [_next_period(row) for row in rows]
        bills = _bills(rows, periods, proforma=True)
        _write_periods(rows, periods, bills, [None] * len(bills))
        for row, bill in zip(rows, bills, strict=True):
            _tell_end(row, bill)
    return len(rows)


def warn_short(days: int = WARNED_DAYS) -> int:
    """Tell the customers of whom neither balance nor card covers a renewal within ``days``, once for each renewal; how many are short. Opens the transactions."""
    today, warned = clock.today(), 0
    for row in db.rows(_RENEWING, on=today, until=today + timedelta(days)):
        ahead = runway(row.customer_id)
        if ahead.short_on and today < ahead.short_on <= today + timedelta(days):
            with db.transaction():
                _tell_ahead(row.customer_id, ahead)
            warned += 1
    return warned


def remind() -> int:
    """Tell customers what has come together of periods that began and were not paid, on the days of
    `REMINDED_DAYS`, each once; how many are due a reminder. Opens the transactions."""
    today, due_now = clock.today(), 0
    for row in db.rows(_BEHIND, before=today - timedelta(REMINDED_DAYS[0])):
        ahead = runway(row.customer_id)
        since = min((arrear.since for arrear in ahead.arrears), default=today)
        behind = (today - since).days
        step = next((step for step in REMINDED_DAYS if step <= behind < step + CATCH_UP_DAYS), 0)
        waiting = {arrear.service.waiting for arrear in ahead.arrears if arrear.service.waiting}
        standings = invoicing.standings(row.customer_id, waiting) if step else {}
        if step and not any(standing.sent for standing in standings.values()):
            with db.transaction():
                _tell_arrears(row.customer_id, ahead, since, step)
            due_now += 1
    return due_now


_BEHIND = """
select distinct s.customer_id
from services s
where s.paid_through < %(before)s
  and s.status = 'active'
  and s.auto_renew
  and not exists (
    select from accounts d
    where d.customer_id = s.customer_id
      and d.kind = 'debt'
      and d.balance < 0
  )
order by 1
"""


def end_unpaid(on: date | None = None) -> int:
    """End the services that nobody goes on paying for, and say so; how many. Opens the transaction.

    One that does not renew by itself ends after its last paid day, as soon as no bill for going on
    is open; one that does, `ENDS_UNPAID_DAYS` after it. None ends while a payment for it is on its
    way.
    """
    day = on or clock.today()
    with db.transaction():
        wanted = {"on": day, "unpaid": day - timedelta(ENDS_UNPAID_DAYS)}
        held = [row.id for row in db.rows(_LOCK_OVER, **wanted)]
        ended = db.rows(_END, customers=held, **wanted, now=clock.now())
        db.execute(_CANCEL_ENDED, services=[row.id for row in ended], now=clock.now())
        for row in ended:
            _tell_ended(row)
    return len(ended)


_OVER = """
s.status = 'active'
and s.paid_through < case when s.auto_renew then %(unpaid)s::date else %(on)s::date end
and not exists (
  select from renewals r
  join bills b on b.id = r.bill_id
  where r.service_id = s.id
    and r.period_start = s.paid_through + 1
    and r.transfer_id is null
    and (
      b.status = 'paid'
      or b.status = 'unpaid' and not s.auto_renew
      or exists (
        select from payments p
        where p.bill_id = b.id
          and p.gateway <> 'bank'
          and p.state in ('created', 'unknown', 'pending', 'review')
      )
    )
)
"""
_LOCK_OVER = f"""
select c.id from customers c
where exists (select from services s where s.customer_id = c.id and {_OVER})
order by c.id for no key update skip locked
"""  # noqa: S608 - constants
_END = f"""
update services s set status = 'terminated', ended_at = %(now)s
where s.customer_id = any(%(customers)s) and {_OVER}
returning s.id, s.customer_id, s.label, s.paid_through,
  (select p.name from plans p where p.id = s.plan_id) as plan
"""  # noqa: S608 - constants
_CANCEL_ENDED = """
update bills b set status = 'cancelled', closed_at = %(now)s
from renewals r
where r.bill_id = b.id
  and r.transfer_id is null
  and r.service_id = any(%(services)s)
  and b.status = 'unpaid'
"""


def bill_now(customer_id: int, public_id: str) -> str:
    """The number of the open bill for a service's next period, made if there is none. Opens the transaction.

    Raises LookupError for what is not the customer's, `ServiceError` for what is not to be billed
    yet or has no price.
    """
    service = find(customer_id, public_id)
    if service is None:
        raise LookupError(public_id)
    with db.transaction():
        db.execute(_EXTEND_PAID, customers=[row.id for row in db.rows(_HOLD_OWNER, id=service.id)])
        (row,) = db.rows(_CLAIM_ONE, id=service.id, months=None)
        if row.waits:
            return str(row.proforma_number)
        if row.status != "active":
            raise ServiceError("This service has ended and cannot be renewed.")
        if row.paid_through > clock.today() + timedelta(BILLED_AHEAD_DAYS):
            raise ServiceError(f"The invoice for payment can be made {BILLED_AHEAD_DAYS} days before the last paid day.")
        periods = [_next_period(row)]
        (bill,) = _bills([row], periods, proforma=True)
        _write_periods([row], periods, [bill], [None])
    return bill.number


def warn_of_cards() -> int:
    """Tell the owners of cards that renewals rely on and that expire soon, once for each card and end; how many do. Opens the transaction."""
    with db.transaction():
        ending = [(payments.cards.read(row.card_id), row.labels) for row in db.rows(_RELIED_ON, until=clock.today() + payments.cards.SOON)]
        soon = [(card, labels) for card, labels in ending if card.expires_soon]
        for card, labels in soon:
            payments.cards.tell(card, "expires", services=labels)
    return len(soon)


_RENEWING = """
select distinct s.customer_id from services s where s.status = 'active' and s.auto_renew and s.paid_through between %(on)s and %(until)s::date - 1
  and not exists (select from accounts d where d.customer_id = s.customer_id and d.kind = 'debt' and d.balance < 0)
order by 1
"""
_RELIED_ON = """
select s.card_id, array_agg(s.label order by s.priority, s.id) as labels from services s
join saved_cards k on k.id = s.card_id and k.removed_at is null and k.unusable = '' and make_date(k.exp_year, k.exp_month, 1) + interval '1 month' <= %(until)s
where s.status = 'active' and s.auto_renew group by s.card_id order by s.card_id
"""


# While a dispute has left a debt, nothing renews by itself: the money that comes belongs to the debt first.
_DUE_CUSTOMERS = """
select distinct s.customer_id from services s where s.paid_through < %(on)s and s.status = 'active' and s.auto_renew
  and not exists (select from accounts d where d.customer_id = s.customer_id and d.kind = 'debt' and d.balance < 0)
order by 1
"""
_DUE_OF = "select id from services where customer_id = any(%(customers)s) and paid_through < %(on)s and status = 'active' and auto_renew order by priority, id"
_HOLD_OWNER = "select id from customers where id = (select customer_id from services where id = %(id)s) for no key update"
_LOCK_ENDING = """
select id from customers where id in (
  select customer_id from services s where not s.auto_renew and s.status = 'active' and s.paid_through between %(on)s and %(until)s
) order by id for no key update skip locked
"""
_LOCK_CUSTOMERS = "select id from customers where id = any(%(customers)s) order by id for no key update skip locked"
_LOCK_BILLS = "select id, status from bills where id = any(%(ids)s) order by id for no key update"
"""Before the money, as whoever pays a waiting bill by card or by hand does it: the other way round two of them would wait for each other."""


_BEING_CHARGED = "select bill_id from payments where bill_id = any(%(bills)s) and card_id is not null and state in ('created', 'unknown', 'pending')"
"""Under the bills' locks: what a saved card is being charged for is not paid from the balance as well."""


def _attempt(day: date, customer_ids: list[int], service_id: int | None = None) -> Run:
    try:
        with db.transaction():
            mine = [row.id for row in db.rows(_LOCK_CUSTOMERS, customers=customer_ids)]
            db.execute(_EXTEND_PAID, customers=mine)
            claimed = [row for row in db.rows(_CLAIM_DUE, customers=mine, on=day, months=None) if service_id in {None, row.id}]
            ended = {bill.id for bill in db.rows(_LOCK_BILLS, ids=[row.bill_id for row in claimed]) if bill.status != "unpaid"}
            busy = ended | {row.bill_id for row in db.rows(_BEING_CHARGED, bills=[row.bill_id for row in claimed])}
            return _renew_claimed([row for row in claimed if row.bill_id is None or row.bill_id not in busy], day)
    except Exception:
        if service_id is not None:
            log.exception("Service %s could not be renewed.", service_id)
            return Run(failed=1)
    if len(customer_ids) > 1:
        return sum((_attempt(day, [customer]) for customer in customer_ids), Run())
    return sum((_attempt(day, customer_ids, row.id) for row in db.rows(_DUE_OF, customers=customer_ids, on=day)), Run())


def _renew_claimed(claimed: Sequence[db.Row], day: date) -> Run:
    """Charge what each customer's money covers, in priority order; bill the rest. Within a transaction.

    What fell behind is paid in the same go, the oldest period of each service first.
    """
    funds = wallet.lock_spendable({row.customer_id for row in claimed})
    paid: list[tuple[db.Row, Renewed]] = []
    short: list[tuple[db.Row, Money]] = []
    unpriced = 0
    while claimed:
        covered = []
        for row in claimed:
            price = _price(row)
            if price is None:
                log.warning("%s cannot renew: %s has no price for %s months in %s.", row.public_id, row.plan, row.wanted, row.currency)
                unpriced += 1
            elif price.minor <= funds[row.customer_id]:
                funds[row.customer_id] -= price.minor
                covered.append(row)
            else:
                short.append((row, price))
        paid += zip(covered, _charge(covered, "Renewal"), strict=True)
        behind = [row.id for row in covered if row.paid_through + DAY < day]
        claimed = _still_due(behind, [row.customer_id for row in covered], day) if behind else []
    _tell_renewed([row for row, _ in paid], [renewed for _, renewed in paid])
    _bill_short([(row, lack) for row, lack in _lacks(short, funds) if _needs_bill(row)], day)
    return Run(len(paid), len(short), unpriced)


def _still_due(service_ids: Sequence[int], customer_ids: Sequence[int], day: date) -> list[db.Row]:
    """Those of the services just renewed whose next period has begun, too. One that has a bill is
    left to the next run, which holds that first."""
    rows = db.rows(_CLAIM_DUE, customers=sorted(set(customer_ids)), on=day, months=None)
    return [row for row in rows if row.id in service_ids and row.bill_id is None]


def _lacks(short: Sequence[tuple[db.Row, Money]], funds: Mapping[int, int]) -> list[tuple[db.Row, int]]:
    """What has to be added for each of them and for those of the same customer before it."""
    so_far = {row.customer_id: -funds[row.customer_id] for row, _ in short}
    lacks = []
    for row, price in short:
        so_far[row.customer_id] += price.minor
        lacks.append((row, so_far[row.customer_id]))
    return lacks


def _needs_bill(row: db.Row) -> bool:
    """Whether a period that nothing covers gets a bill: not again what its owner cancelled, unless
    a card was named for the service since; again what expired."""
    if row.waits:
        return row.bill_id is None
    if not row.billed or row.bill_status == "expired":
        return True
    named_at, closed_at = row.card_consented_at, row.bill_closed_at
    return bool(row.bill_status == "cancelled" and named_at and closed_at and named_at > closed_at)


def _charge(rows: Sequence[db.Row], word: str) -> list[Renewed]:
    """Charge each row's next period: bill, money, invoice, period, in a handful of statements. Within a transaction, rows claimed.

    Raises `wallet.InsufficientFunds`, and then nothing of it stands.
    """
    if not rows:
        return []
    periods = [_next_period(row) for row in rows]
    bills = _bills(rows, periods, proforma=False)
    taken = wallet.spend_many([_spend(row, bill, period, word) for row, bill, period in zip(rows, bills, periods, strict=True)])
    now = clock.now()
    paid = [(bill, Settlement(now, "Account balance", source="balance", bonus=spent.from_bonus)) for bill, spent in zip(bills, taken, strict=True)]
    numbers = invoicing.settle_many(paid)
    done = [
        Renewed(row.id, *period, bill.amount, Money(spent.from_bonus, bill.currency), number, spent.transfer_id)
        for row, period, bill, number, spent in zip(rows, periods, bills, numbers, taken, strict=True)
    ]
    _write_periods(rows, periods, bills, [renewed.transfer_id for renewed in done])
    db.execute(_EXTEND, services=[renewed.service_id for renewed in done], ends=[renewed.period_end for renewed in done])
    return done


def _tell_renewed(rows: Sequence[db.Row], done: Sequence[Renewed]) -> None:
    """One mail to each customer about everything of theirs that was just paid. Within a transaction."""
    theirs: dict[int, list[tuple[db.Row, Renewed]]] = {}
    for row, renewed in zip(rows, done, strict=True):
        theirs.setdefault(row.customer_id, []).append((row, renewed))
    readers = customers.get_many(theirs)
    mail.inform_many([_renewal_letter(readers[customer_id], renewals) for customer_id, renewals in theirs.items()])


def _renewal_letter(customer: Customer, renewals: Sequence[tuple[db.Row, Renewed]]) -> mail.Letter:
    write = formats(customer.locale, customer.timezone)
    told = [
        {
            "label": row.label,
            "plan": row.plan,
            "until": write.long_date(renewed.period_end),
            "price": _in_words(renewed.price - renewed.bonus, write),
            "number": renewed.invoice_number,
        }
        for row, renewed in renewals
    ]
    price, bonus = (Money(sum(minors), renewals[0][1].price.currency) for minors in zip(*((each.price.minor, each.bonus.minor) for _, each in renewals), strict=True))
    context: dict[str, object] = {
        "name": customer.title or customer.email,
        "services": told,
        "total": _in_words(price - bonus, write),
        "bonus": _in_words(bonus, write) if bonus else "",
        "covered": price == bonus,
    }
    # What was ordered and is paid for the first time is not renewed.
    context["first"] = any(row.paid_through < row.started_on for row, _ in renewals)
    papers = [mail.Stored(renewed.invoice_number, f"/invoices/{renewed.invoice_number}.pdf") for _, renewed in renewals]
    return mail.Letter("renewed", customer.email, customer.locale, f"renewed:{renewals[0][1].invoice_number}", customer.id, context, papers)


def _in_words(money: Money, write: Formats) -> str:
    return write.money(money.minor, money.currency)


def _bill_short(short: Sequence[tuple[db.Row, int]], day: date) -> None:
    """Give each (service, minor units missing) a bill that waits and tell the customer. Within a transaction.

    Of what has been unpaid for long the reminders speak.
    """
    rows = [row for row, _ in short]
    periods = [_next_period(row) for row in rows]
    bills = _bills(rows, periods, proforma=True)
    _write_periods(rows, periods, bills, [None] * len(bills))
    for (row, missing), bill, (start, _) in zip(short, bills, periods, strict=True):
        # Where a card stands in, it is charged next, and a decline has its own mail.
        silent = (day - start).days >= REMINDED_DAYS[0] or _read(row).card_stands_in(clock.today())
        # A bill from before may be under review, or its money on its way.
        if not silent and not (row.bill_id and invoicing.standing(bill.id).sent):
            _tell_short(row, bill, Money(missing, bill.currency), start)


def _tell_end(row: db.Row, bill: Bill) -> None:
    customer = customers.get(row.customer_id)
    write, (start, end) = formats(customer.locale, customer.timezone), _next_period(row)
    mail.inform(
        "service_ends", customer.email, locale=customer.locale, key=f"service-ends:{row.id}:{start}", customer_id=customer.id, name=customer.title or customer.email,
        label=row.label, plan=row.plan, until=write.long_date(row.paid_through), end=write.long_date(end),
        number=bill.number, price=write.money(bill.total, bill.currency), attachments=[mail.Stored(bill.number, f"/invoices/{bill.number}.pdf")],
    )  # fmt: skip


def _tell_ahead(customer_id: int, ahead: Runway) -> None:
    customer, service, missing = customers.get(customer_id), ahead.short_service, ahead.missing
    if service is None or service.price is None or missing is None or ahead.short_on is None:
        return
    write = formats(customer.locale, customer.timezone)
    mail.inform(
        "balance_low", customer.email, locale=customer.locale, key=f"balance-low:{service.id}:{ahead.short_on}", customer_id=customer.id, name=customer.title or customer.email,
        label=service.label, plan=service.plan, on=write.long_date(ahead.short_on),
        price=write.money(service.price.minor, service.price.currency), missing=write.money(missing.minor, missing.currency),
    )  # fmt: skip


def _tell_arrears(customer_id: int, ahead: Runway, since: date, step: int) -> None:
    customer, owed, missing = customers.get(customer_id), ahead.owed, ahead.missing
    if owed is None or missing is None:
        return
    write = formats(customer.locale, customer.timezone)
    lines = [
        {
            "label": arrear.service.label,
            "plan": arrear.service.plan,
            "since": write.long_date(arrear.since),
            "cost": write.money(arrear.cost.minor, arrear.cost.currency),
        }
        for arrear in ahead.arrears
    ]
    mail.inform(
        "arrears", customer.email, locale=customer.locale, customer_id=customer.id,
        key=f"arrears:{customer.id}:{since}:{step}", name=customer.title or customer.email,
        services=lines, owed=write.money(owed.minor, owed.currency), missing=write.money(missing.minor, missing.currency),
        ends=write.long_date(since + timedelta(ENDS_UNPAID_DAYS)),
    )  # fmt: skip


def _tell_ended(row: db.Row) -> None:
    customer = customers.get(row.customer_id)
    write = formats(customer.locale, customer.timezone)
    mail.inform(
        "service_ended", customer.email, locale=customer.locale, customer_id=customer.id,
        key=f"service-ended:{row.id}", name=customer.title or customer.email,
        label=row.label, plan=row.plan, until=write.long_date(row.paid_through),
    )  # fmt: skip


def _tell_short(row: db.Row, bill: Bill, missing: Money, start: date) -> None:
    customer = customers.get(row.customer_id)
    write = formats(customer.locale, customer.timezone)
    mail.inform(
        "renewal_short", customer.email, locale=customer.locale, key=f"renewal-short:{row.id}:{start}", customer_id=customer.id, name=customer.title or customer.email,
        label=row.label, plan=row.plan,
        number=bill.number, price=write.money(bill.total, bill.currency), missing=write.money(missing.minor, missing.currency), start=write.long_date(start),
        attachments=[mail.Stored(bill.number, f"/invoices/{bill.number}.pdf")],
    )  # fmt: skip


def _next_period(row: db.Row) -> tuple[date, date]:
    start = row.paid_through + DAY
    return start, period_end(start, row.wanted, row.started_on.day)


def _bills(rows: Sequence[db.Row], periods: Sequence[tuple[date, date]], *, proforma: bool) -> list[Bill]:
    """Each row's bill: the one that waits for this period already, with the VAT of today, else a new one."""
    drafts = [_draft(row, period, proforma=proforma) for row, period in zip(rows, periods, strict=True) if row.bill_id is None]
    fresh = iter(invoicing.issue_many(drafts))
    waiting = [invoicing.lock(row.bill_id) for row in rows if row.bill_id is not None]
    waited_for = iter(invoicing.as_of(waiting, [clock.today()] * len(waiting)))
    return [next(fresh if row.bill_id is None else waited_for) for row in rows]


def _draft(row: db.Row, period: tuple[date, date], *, proforma: bool) -> Draft:
    if row.net is None:
        raise ServiceError(f"{row.plan} is not sold for {row.wanted} months in {row.currency}.")
    start, end = period
    named = row.label != row.plan
    title = f"{row.label} · {row.plan}" if named else row.plan
    line = Line(row.plan, row.net, detail=row.label if named else "", service_id=row.id, period_start=start, period_end=end)
    return Draft(
        row.customer_id, title, row.currency, (line,), months=row.wanted, period_start=start, period_end=end, proforma=proforma, due_at=_due_at(row.paid_through)
    )  # fmt: skip


def _due_at(paid_through: date) -> datetime | None:
    """The end of the last paid day, so that a bill ahead is due before the service ends; None, the usual time, once that is over."""
    ends_at = clock.end_of(paid_through)
    return ends_at if clock.now() < ends_at < clock.end_of(clock.today() + invoicing.DUE_AFTER) else None


def _spend(row: db.Row, bill: Bill, period: tuple[date, date], word: str) -> wallet.Spend:
    length = f"{bill.months} month" + ("s" if bill.months != 1 else "")
    return wallet.Spend(
        row.customer_id, Money(bill.total, bill.currency), reference=f"renewal:{row.id}:{period[0]}", counter=payments.earnings(bill),
        description=f"{word} {row.label} · {length}", bill_id=bill.id, service_id=row.id,
    )  # fmt: skip


# The insert comes first: a period that is paid already makes it write fewer rows than it was given, and the caller's transaction falls.
_WRITE_PERIODS = """
insert into renewals as r (service_id, period_start, period_end, months, bill_id, transfer_id, renewed_at)
select u.*, %(now)s from unnest(%(services)s::bigint[], %(starts)s::date[], %(ends)s::date[], %(months)s::integer[], %(bills)s::bigint[], %(transfers)s::bigint[]) as u
on conflict (service_id, period_start) do update
set period_end = excluded.period_end, months = excluded.months, bill_id = excluded.bill_id, transfer_id = excluded.transfer_id, renewed_at = excluded.renewed_at
where r.transfer_id is null
"""
_EXTEND = """
update services s set paid_through = u.period_end
from unnest(%(services)s::bigint[], %(ends)s::date[]) as u (id, period_end) where s.id = u.id
"""
_EXTEND_PAID = """
with paid as (
  update renewals r set transfer_id = t.id, renewed_at = t.posted_at
  from bills b, transfers t, services s
  where r.transfer_id is null and b.id = r.bill_id and b.status = 'paid' and t.bill_id = b.id and t.kind = 'charge'
    and s.id = r.service_id and (%(customers)s::bigint[] is null or s.customer_id = any(%(customers)s))
  returning r.service_id, r.period_end
)
update services s set paid_through = greatest(s.paid_through, paid.period_end) from paid where s.id = paid.service_id
"""


def _write_periods(rows: Sequence[db.Row], periods: Sequence[tuple[date, date]], bills: Sequence[Bill], transfers: Sequence[int | None]) -> None:
    written = db.execute(
        _WRITE_PERIODS, services=[row.id for row in rows], starts=[start for start, _ in periods], ends=[end for _, end in periods],
        months=[bill.months for bill in bills], bills=[bill.id for bill in bills], transfers=list(transfers), now=clock.now(),
    )  # fmt: skip
    if written != len(rows):
        raise ServiceError("A period of these was paid before.")


# What a renewal is paid from


def renew_by_card() -> dict[str, int]:
    """Charge the bills of renewals the balance did not cover to the saved cards their owners named; how many came to which state.

    Each bill whole, exactly once, one customer after the other. Opens the transactions, none of them around a processor's call.
    """
    tally: dict[str, int] = {}
    for row in db.rows(_BY_CARD, service=None):
        if row not in db.rows(_BY_CARD, service=row.id):  # a run takes its time, and its owner may have thought better of it
            continue
        try:
            payment = payments.charge_unasked(row.customer_id, row.number, payments.cards.read(row.card_id))
        except Exception:
            log.exception("%s could not be charged to a saved card.", row.number)
            payment = None
        state = payment.state if payment else "not now"
        tally[state] = tally.get(state, 0) + 1
    if tally.get("paid"):
        settle_waiting()
    return {state: count for state, count in tally.items() if state != "not now"}


_BY_CARD = """
select s.id, s.customer_id, s.card_id, coalesce(b.proforma_number, b.invoice_number) as number
from services s
join renewals r on r.service_id = s.id and r.period_start = s.paid_through + 1 and r.transfer_id is null
join bills b on b.id = r.bill_id and b.status = 'unpaid'
join saved_cards k on k.id = s.card_id and k.removed_at is null and k.unusable = ''
join customers c on c.id = s.customer_id and c.currency = b.currency
where s.status = 'active' and s.auto_renew
  and not exists (select from accounts d where d.customer_id = s.customer_id and d.kind = 'debt' and d.balance < 0)
  and (%(service)s::bigint is null or s.id = %(service)s)
order by s.priority, s.id
"""


def card_consent(service: Service, card: payments.Card) -> str:
    """What a customer agrees to who lets renewals of a service be charged to a card; shown beside the box and kept with the service."""
    return f"When the balance does not cover a renewal of {service.label}, charge its whole price to {card.label} without asking me each time. I can switch this off at any time."


def find(customer_id: int, public_id: str) -> Service | None:
    """A customer's own service. A stranger's and a missing one are the same None."""
    return next((service for service in of_customer(customer_id) if service.public_id == public_id and service.status != "terminated"), None)


def pay_from(customer_id: int, public_id: str, card_id: str = "", *, by_itself: bool = True) -> Service:
    """Pay a service's renewals from the balance, or from the balance and then a saved card, to which the customer has agreed; or let it renew no more by itself.

    Opens the transaction. What waits to be paid stays payable.

    Raises LookupError for what is not the customer's.
    """
    service = find(customer_id, public_id)
    if service is None:
        raise LookupError(public_id)
    with db.transaction():
        card = payments.cards.claim(customer_id, card_id) if card_id else None
        if card_id and card is None:
            raise LookupError(card_id)
        consent = card_consent(service, card) if card else None
        db.execute(
            _PAY_FROM,
            id=service.id,
            by_itself=by_itself,
            source="balance_then_card" if card else "balance",
            card=card.id if card else None,
            consent=consent,
            at=clock.now() if card else None,
        )
    return service


_PAY_FROM = (
    "update services set auto_renew = %(by_itself)s, payment_source = %(source)s, card_id = %(card)s, card_consent = %(consent)s, card_consented_at = %(at)s where id = %(id)s"
)


def renewing_by(number: str) -> list[str]:
    """The labels of the services that renew by themselves and whose next period a bill is for: they renew without it, too."""
    return [row.label for row in db.rows(_RENEWING_BY, number=number)]


_RENEWING_BY = """
select s.label from bills b join renewals r on r.bill_id = b.id and r.transfer_id is null join services s on s.id = r.service_id and r.period_start = s.paid_through + 1
where b.proforma_number = %(number)s and s.auto_renew and s.status = 'active' order by s.id
"""


def remove_card(customer_id: int, public_id: str) -> tuple[payments.Card, list[str]] | None:
    """Remove a customer's own saved card; it, and the labels of the services that are paid from the balance again. None for a stranger's.

    Opens the transaction, and tells the processor after it: if that does not answer, the jobs go on telling it.
    """
    with db.transaction():
        card = payments.cards.retire(customer_id, public_id)
        if card is None:
            return None
        freed = [row.label for row in db.rows(_FREE, card=card.id)]
        payments.cards.tell(card, "removed", services=freed)
    payments.cards.forget_removed(token=card.token)
    return card, freed


_FREE = """
update services set payment_source = 'balance', card_id = null, card_consent = null, card_consented_at = null where card_id = %(card)s returning label
"""

# How long the balance lasts


def runway(customer_id: int) -> Runway:
    """Until when the balance covers every renewal, simulated over the coming year; ``covered_until`` is None when nothing renews by itself."""
    return outlook(customer_id)[0]


def upcoming(customer_id: int, days: int) -> list[Renewal]:
    """The renewals of the next ``days`` days in order, each with what the balance will lack for it."""
    return outlook(customer_id, days)[1]


def outlook(customer_id: int, days: int = 30, owned: Sequence[Service] | None = None) -> tuple[Runway, list[Renewal]]:
    """`runway` and `upcoming` from one simulation, in one statement; ``owned`` makes it a smaller one where the services are known."""
    today, now = clock.today(), clock.now()
    if owned is None:
        found = db.rows(_OWNED_AND_FUNDS, customer=customer_id, months=None, now=now)
        owned, open_lots = [_read(row) for row in found], list(zip(found[0].remains, found[0].expires, strict=True)) if found else []
    else:
        open_lots = db.rows(_FUNDS, customer=customer_id, now=now)
    funds = [Fund(minor, expires_at and clock.day_of(expires_at)) for minor, expires_at in open_lots]
    coming = list(simulate(owned, funds, today + timedelta(HORIZON_DAYS)))
    ahead = _runway(coming, owned, funds, today)
    return ahead, [renewal for renewal in coming if renewal.on <= today + timedelta(days)]


def _runway(coming: Sequence[Renewal], owned: Sequence[Service], funds: Sequence[Fund], today: date) -> Runway:
    unpriced = tuple(each for each in owned if each.price is None and each.auto_renew and each.status == "active")
    card = next((renewal.on for renewal in coming if renewal.by_card), None)
    short = next((renewal for renewal in coming if renewal.short), None)
    if short is not None:
        card = card if card and card < short.on else None
        until = max(short.on, today)
        missing, needed = _needed(owned, funds, until)
        short_then = {renewal.service.id: renewal.on for renewal in coming if renewal.short and renewal.on <= until}
        begun = [each for each in needed if each.on >= short_then.get(each.service.id, date.max) and each.on <= today]
        arrears = _arrears(begun) if short.on <= today else ()
        return Runway((card or short.on) - DAY, short.on, short.service, Money(missing, short.price.currency), card, len(short_then), arrears, unpriced)
    if card is not None:
        return Runway(card - DAY, card_on=card, unpriced=unpriced)
    covered = bool(coming) and not unpriced
    return Runway(today + timedelta(HORIZON_DAYS) if covered else None, unpriced=unpriced)


def _needed(owned: Sequence[Service], funds: Sequence[Fund], until: date) -> tuple[int, list[Renewal]]:
    """How much more it takes, in minor units, for every renewal up to that day, and these renewals."""
    more = Fund(_MUCH)
    played = list(_play(owned, [*funds, more], until))
    left = played[-1][1] if played else [(date.max, _MUCH)]
    return _MUCH - left[-1][1], [renewal for renewal, _ in played]


def _arrears(begun: Sequence[Renewal]) -> tuple[Arrear, ...]:
    theirs: dict[int, list[Renewal]] = {}
    for renewal in begun:
        theirs.setdefault(renewal.service.id, []).append(renewal)
    return tuple(Arrear(each[0].service, each[0].on, len(each), sum((one.price for one in each[1:]), each[0].price)) for each in theirs.values())


_FUNDS = """
select l.remaining, l.expires_at from lots l join customers c on c.id = l.customer_id and c.currency = l.currency
where l.customer_id = %(customer)s and l.remaining > 0 and (l.expires_at is null or l.expires_at > %(now)s)
"""
_OWNED_AND_FUNDS = (
    "with funds as (select coalesce(array_agg(remaining), '{}') as remains, coalesce(array_agg(expires_at), '{}') as expires from ("  # noqa: S608 - constants alone
    + _FUNDS
    + ") lots) select owned.*, funds.remains, funds.expires from ("
    + _OWNED
    + ") owned cross join funds"
)
