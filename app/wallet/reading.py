"""What a customer has and what moved it, as the pages ask."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    if asked.only_days or (asked.kind and not asked.text):  # an index has them in order
        newest = f"{_MOVEMENTS}{where} order by e.seq desc limit %(limit)s"
    else:
        sets, source = (_SETS, _TEXTS) if asked.text else ("with", _ENTRIES)
        newest = f"{sets} {_MATCHED}{source}{where} order by e.seq desc limit %(limit)s) {_MOVEMENTS}{_OF_MATCHED}"
    return _page(db.rows(newest, account_id=account_id, limit=limit + 1, **params), limit)


def found(account_id: int, asked: Filter, limit: int = 50) -> tuple[Page, ledger.Totals]:
    """The newest of what a filter finds, and the sums over all of it: one walk through the account where two would find the same."""
    matched, params = _all_matched(asked)
    rows = db.rows(f"{matched}{_NEWEST_AND_SUMS}", account_id=account_id, limit=limit + 1, **params)
    return _page([row for row in rows if row.seq is not None], limit), ledger.Totals(rows[0].count, rows[0].incoming, rows[0].outgoing)


def _all_matched(asked: Filter) -> tuple[str, dict[str, object]]:
    """The set `matched` of everything a filter finds, by one read of the account's transfers instead of one for each."""
    where, params = ledger.conditions(asked, None, _FOUND)
    if not asked.text:
        return f"with {_MATCHED}{_ENTRIES}{where})", params
    others, _ = ledger.conditions(replace(asked, text=""))
    return f"{_SETS} {_TEXTS_FOUND.format(others=others)} {_MATCHED}{_ENTRIES}{where})", params


def _page(found: list[Movement], limit: int) -> Page:
    rows = found[:limit]
    return Page(rows, rows[-1].seq if len(found) > limit else None)


def export(account_id: int, asked: Filter = Filter()) -> Iterator[Movement]:  # noqa: B008
    """Every movement that `movements` would show over all its pages, newest first, in bounded memory."""
    where, params = ledger.conditions(asked)
    newest = f"{_MOVEMENTS}{where} order by e.seq desc"
    if asked.text:
        matched, params = _all_matched(asked)
        newest = f"{matched} {_MOVEMENTS}{_OF_MATCHED}"
    yield from db.stream(newest, 5_000, account_id=account_id, **params)


def totals(account_id: int, asked: Filter = Filter(), newest: Movement | None = None) -> ledger.Totals:  # noqa: B008
    """Count and sums of what `movements` shows over all its pages; in constant time when only days are asked for.

    `newest` is the first row of the first page, where that is at hand: when nothing before it is left out, the sums stand in it.
    """
    if newest and asked.only_days and not asked.since:
        return ledger.Totals(newest.seq, newest.credited_after, newest.credited_after - newest.balance_after)
    if asked.only_days:
        return ledger.totals(account_id, asked)
    matched, params = _all_matched(asked)
    return ledger.Totals(*db.rows(f"{matched}{_SUMS}", account_id=account_id, **params)[0])


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
_TEXTS = """
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
select count(*) as count,
  coalesce(sum(amount) filter (where amount > 0), 0)::bigint as incoming,
  coalesce(-sum(amount) filter (where amount < 0), 0)::bigint as outgoing
from matched"""
_MATCHED = """matched as materialized (
  select e.seq, e.amount"""
_OF_MATCHED = """
where e.account_id = %(account_id)s
  and e.seq in (select seq from matched)
order by e.seq desc"""
_NEWEST_AND_SUMS = f"""
select newest.*, sums.*
from ({_SUMS}
) sums
left join (
  {_MOVEMENTS}
  where e.account_id = %(account_id)s
    and e.seq in (select seq from matched order by seq desc limit %(limit)s)
) newest on true
order by newest.seq desc"""  # noqa: S608 - constants

# Whatever stands on a document, in a mail or on the processor's page finds its row. Bills and payments
# are searched once each, before the movements, and not again for every movement.
_SETS = """
with named_bills as materialized (
  select b.id
  from bills b
  where b.customer_id = (select customer_id from accounts where id = %(account_id)s)
    and (
      b.invoice_number ilike %(pattern)s
      or b.proforma_number ilike %(pattern)s
      or b.payment_reference = %(compact)s
      or exists (
        -- Without the offset the planner reads everybody's documents first.
        select from documents d where d.bill_id = b.id and d.number ilike %(pattern)s offset 0
      )
    )
), named_payments as materialized (
  select p.id,
    p.method_label ilike %(pattern)s
      -- A history shows the beginning of a payment's number.
      or (length(%(text)s) > 11 and starts_with(p.public_id, %(text)s))
      or coalesce(p.gateway_reference = %(text)s, false) as named,
    p.bill_id in (select id from named_bills) as of_named_bill
  from payments p
  where p.customer_id = (select customer_id from accounts where id = %(account_id)s)
    and p.payer_id = p.customer_id
),"""
_OF_NAMED = (
    "t.bill_id in (select id from named_bills)",
    "t.payment_id in (select id from named_payments where named)",
    "t.bill_id is null and t.payment_id in (select id from named_payments where of_named_bill)",
)
_SEARCHED = (*ledger.SEARCHED, *_OF_NAMED)
"""Conditions that end as soon as the newest of them are found: each transfer is looked up by itself."""
_TEXTS_FOUND = f"""
texts as materialized (
  select t.id
  from transfers t
  where t.id = any(array(select e.transfer_id from entries e{{others}}))
    and ({" or ".join((*ledger.SEARCHED_TEXTS, *_OF_NAMED))})
),"""  # noqa: S608 - constants
_FOUND = ("e.transfer_id in (select id from texts)", ledger.SEARCHED_AMOUNT)
"""The same of all of them: their transfers are read in one go."""

_LOTS = """
select id, transfer_id, payment_id, kind, paid, paid_currency, credited, remaining, currency, created_at, expires_at, frozen_reason, note
from lots where customer_id = %(customer_id)s order by id desc
"""
