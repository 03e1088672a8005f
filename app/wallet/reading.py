"""What a customer has and what moved it, as the pages ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app import clock, db, ledger
from app.ledger import Filter
from app.money import Money


@dataclass(frozen=True, slots=True)
class Wallet:
    """What a customer has, in minor units of `currency` (None before one is chosen).

    `version` rises with every movement; `account_id` is the wallet's, None before the first one.
    """

    available: int
    bonus: int
    on_hold: int
    currency: str | None
    version: int
    account_id: int | None = None


class Movement(Protocol):
    """One movement of a wallet as its customer reads it: a `ledger.Movement` with all that came in until then, the document, how it was paid.

    The database's own rows have this shape: pages read fifty of them at a time.
    """

    seq: int
    posted_at: datetime
    kind: str
    description: str
    amount: int
    balance_after: int
    credited_after: int
    reference: str
    transfer_id: int
    payment_id: int | None
    bill_id: int | None
    service_id: int | None
    refund_id: int | None
    document: str | None
    method: str | None
    bonus: int | None
    """What a bonus took off the price that this charge paid; None for what is no charge of a bill."""


@dataclass(frozen=True, slots=True)
class Page:
    """Movements, newest first, and the `before` of the next page, None on the last one."""

    rows: list[Movement]
    next: int | None


@dataclass(frozen=True, slots=True)
class Lot:
    """One credit and what is left of it, in minor units; `paid` is what the customer paid for it, in the currency paid."""

    id: int
    transfer_id: int
    payment_id: int | None
    kind: str
    paid: int
    paid_currency: str
    credited: int
    remaining: int
    currency: str
    created_at: datetime
    expires_at: datetime | None
    frozen_reason: str | None
    note: str


def state(customer_id: int) -> Wallet:
    """What a customer has in the account currency."""
    row = db.row(_STATE, customer_id=customer_id, now=clock.now())
    return Wallet(*row) if row else Wallet(0, 0, 0, None, 0)


def owed(customer_id: int, currency: str) -> Money:
    """What disputes left a customer owing, zero for most."""
    return Money(-(db.scalar(_DEBT, customer_id=customer_id, currency=currency) or 0), currency)


def histories(customer_id: int, currency: str) -> dict[str, int]:
    """The accounts on which anything ever moved: ``wallet``, ``bonus``, ``hold`` and their ids, for `movements` and the others below."""
    return {row.kind: row.id for row in db.rows(_HISTORIES, customer_id=customer_id, currency=currency)}


def lots(customer_id: int) -> list[Lot]:
    """Every lot of a customer, newest first."""
    return [Lot(*row) for row in db.rows(_LOTS, customer_id=customer_id)]


def movements(account_id: int, asked: Filter = Filter(), before: int | None = None, limit: int = 50) -> Page:  # noqa: B008 - a value, frozen
    """One page of a wallet's movements with a sequence number below `before`; `account_id` is that of `state`."""
    where, params = ledger.conditions(asked, before, _SEARCHED)
    found = db.rows(f"{_MOVEMENTS}{where} order by e.seq desc limit %(limit)s", account_id=account_id, limit=limit + 1, **params)
    rows = found[:limit]
    return Page(rows, rows[-1].seq if len(found) > limit else None)


def export(account_id: int, asked: Filter = Filter()) -> Iterator[Movement]:  # noqa: B008
    """Every movement that `movements` would show over all its pages, newest first, in bounded memory."""
    where, params = ledger.conditions(asked, None, _SEARCHED)
    yield from db.stream(f"{_MOVEMENTS}{where} order by e.seq desc", 5_000, account_id=account_id, **params)


def totals(account_id: int, asked: Filter = Filter(), newest: Movement | None = None) -> ledger.Totals:  # noqa: B008
    """Count and sums of what `movements` shows over all its pages; in constant time when only days are asked for.

    `newest` is the first row of the first page, where that is at hand: when nothing before it is left out, the sums stand in it.
    """
    if newest and asked.only_days and not asked.since:
        return ledger.Totals(newest.seq, newest.credited_after, newest.credited_after - newest.balance_after)
    if asked.only_days:
        return ledger.totals(account_id, asked)
    where, params = ledger.conditions(asked, None, _SEARCHED)
    source = _DOCUMENTED if asked.text else _KINDS if asked.kind else _ENTRIES
    return ledger.Totals(*db.rows(_SUMS + source + where, account_id=account_id, **params)[0])


_STATE = """
select coalesce(w.balance, 0) as available,
  coalesce((select sum(l.remaining) from lots l where l.account_id = b.id and l.remaining > 0 and (l.expires_at is null or l.expires_at > %(now)s)), 0)::bigint as bonus,
  coalesce(h.balance, 0) as on_hold, c.currency,
  coalesce(w.entry_count, 0) + coalesce(b.entry_count, 0) + coalesce(h.entry_count, 0) as version, w.id as account_id
from customers c
left join accounts w on w.customer_id = c.id and w.kind = 'wallet' and w.currency = c.currency
left join accounts b on b.customer_id = c.id and b.kind = 'bonus' and b.currency = c.currency
left join accounts h on h.customer_id = c.id and h.kind = 'hold' and h.currency = c.currency
where c.id = %(customer_id)s
"""

_DEBT = "select balance from accounts where customer_id = %(customer_id)s and kind = 'debt' and currency = %(currency)s"

_HISTORIES = """
select kind, id from accounts
where customer_id = %(customer_id)s and currency = %(currency)s and kind in ('wallet', 'bonus', 'hold') and key = '' and entry_count > 0
order by kind desc
"""

_ENTRIES = "\nfrom entries e"
# The transfers are looked up one by one, which `offset 0` insists on: where the planner may join them
# it scans everybody's, as soon as an account has some thousand entries.
_KINDS = """
from entries e
join lateral (select * from transfers where id = e.transfer_id offset 0) t on true"""
_DOCUMENTED = """
from entries e
join lateral (select * from transfers where id = e.transfer_id offset 0) t on true
left join payments p on p.id = t.payment_id and p.payer_id = p.customer_id
left join bills b on b.id = coalesce(t.bill_id, p.bill_id) and b.customer_id = (select customer_id from accounts where id = %(account_id)s)"""

_MOVEMENTS = f"""
select e.seq, e.posted_at, t.kind, t.description, e.amount, e.balance_after, e.credited_after,
  case when p.id is null and t.payment_id is not null and t.refund_id is null then '' else t.reference end as reference, t.id as transfer_id, t.payment_id, t.bill_id, t.service_id, t.refund_id,
  coalesce(b.invoice_number, b.proforma_number) as document, nullif(p.method_label, '') as method,
  case when t.kind = 'charge' then b.allowance end as bonus{_DOCUMENTED}"""

_SUMS = """
select count(*) as count, coalesce(sum(e.amount) filter (where e.amount > 0), 0)::bigint as incoming,
  coalesce(-sum(e.amount) filter (where e.amount < 0), 0)::bigint as outgoing"""

# Whatever stands on a document, in a mail or on the processor's page finds its row.
_SEARCHED = (
    *ledger.SEARCHED,
    "b.invoice_number ilike %(pattern)s",
    "b.proforma_number ilike %(pattern)s",
    "b.payment_reference = %(compact)s",
    "p.method_label ilike %(pattern)s",
    "length(%(text)s) > 11 and starts_with(p.public_id, %(text)s)",  # a history shows its beginning
    "p.gateway_reference = %(text)s",
    # Without the offset the planner reads everybody's documents first.
    "exists (select from documents d where d.bill_id = b.id and d.number ilike %(pattern)s offset 0)",
)

_LOTS = """
select id, transfer_id, payment_id, kind, paid, paid_currency, credited, remaining, currency, created_at, expires_at, frozen_reason, note
from lots where customer_id = %(customer_id)s order by id desc
"""
