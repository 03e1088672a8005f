"""Lots: which payment each cent came from, and which transfer took it. All of it beside a transfer that moves the same money."""

from collections.abc import Sequence
from datetime import datetime

from app import db, ledger
from app.ledger import Posted
from app.money import Money


def open_lot(
    account_id: int,
    customer_id: int,
    posted: Posted,
    amount: Money,
    *,
    kind: str,
    paid: Money,
    payment_id: int | None = None,
    expires_at: datetime | None = None,
    note: str = "",
) -> None:
    """The lot of a credit; `paid` is what the customer gave for it."""
    facts = {"account_id": account_id, "customer_id": customer_id, "transfer_id": posted.transfer_id, "payment_id": payment_id, "kind": kind}
    amounts = {"paid": paid.minor, "paid_currency": paid.currency, "credited": amount.minor, "currency": amount.currency}
    db.execute(_OPEN_LOT, **facts, **amounts, expires_at=expires_at, note=note)


def take_oldest(posted: Posted, account_id: int, amount: int) -> None:
    """Take an amount in minor units from a wallet's lots, oldest first."""
    _take(_FROM_LOTS, posted, account_id, amount)


def take_own_first(posted: Posted, account_id: int, amount: int, lot_id: int) -> None:
    """Take an amount in minor units from one lot, then from others of its payment, then from the rest of a wallet, oldest first."""
    _take(_FROM_OWN, posted, account_id, amount, lot_id=lot_id)


def take_bonus(posted: Posted, account_id: int, amount: int, at: datetime) -> None:
    """Take an amount in minor units from what of a bonus has not expired, the soonest to expire first."""
    _take(_FROM_BONUS, posted, account_id, amount, at=at)


def take_named(posted: Posted, lot_id: int, amount: int) -> None:
    """Take an amount in minor units from one lot."""
    db.execute(_FROM_LOT, lot_id=lot_id, transfer_id=posted.transfer_id, amount=amount)


def give_back(posted: Posted, taken_by: int) -> None:
    """Give each lot back what the transfer `taken_by` took from it."""
    db.execute(_RESTORE, taken_by=taken_by, transfer_id=posted.transfer_id)


def open_of(account_ids: Sequence[int]) -> list[db.Row]:
    """Every lot of these accounts with something left, oldest first: id, account_id, remaining, paid, credited."""
    return db.rows(_OPEN_OF, accounts=list(account_ids))


def carry_over(posted: Posted, parts: Sequence[tuple[int, int, int, int]], currency: str) -> None:
    """End lots where they are and go on with each in another account: (lot, the account, what it becomes there, what was paid for that part).

    What becomes nothing ends. Payment, kind, expiry and whatever keeps it from being refunded stay as they were.
    """
    ids, accounts, credited, paid = (list(column) for column in zip(*parts, strict=True))
    db.execute(_CARRY_OVER, lots=ids, accounts=accounts, credited=credited, paid=paid, currency=currency, transfer_id=posted.transfer_id)


def _take(sql: str, posted: Posted, account_id: int, amount: int, **params: object) -> None:
    if not amount:
        return
    taken = db.scalar(sql, account_id=account_id, transfer_id=posted.transfer_id, amount=amount, **params)
    if taken != amount:
        raise ledger.LedgerError(f"the lots of account {account_id} hold {taken} of {amount}")


_OPEN_LOT = """
insert into lots (account_id, customer_id, transfer_id, payment_id, kind, paid, paid_currency, credited, currency, remaining, created_at, expires_at, note)
select %(account_id)s, %(customer_id)s, %(transfer_id)s, %(payment_id)s, %(kind)s, %(paid)s, %(paid_currency)s, %(credited)s, %(currency)s, %(credited)s,
  posted_at, %(expires_at)s, %(note)s from transfers where id = %(transfer_id)s
"""

# Take `amount` from a queue of lots: each gives what is left of the amount after all before it, at most what it has.
_FROM_QUEUE = """, taken as (
  update lots set remaining = lots.remaining - least(queue.remaining, %(amount)s - queue.before)
  from queue where lots.id = queue.id and queue.before < %(amount)s
  returning lots.id, least(queue.remaining, %(amount)s - queue.before)::bigint as amount
), noted as (
  insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, amount from taken returning amount
)
select coalesce(sum(amount), 0)::bigint from noted
"""

_FROM_LOTS = f"""
with queue as (
  select id, remaining, sum(remaining) over (order by id) - remaining as before from lots where account_id = %(account_id)s and remaining > 0
){_FROM_QUEUE}"""  # noqa: S608 - constants

_FROM_OWN = f"""
with own as (
  select id, remaining, row_number() over (order by id = %(lot_id)s desc, payment_id = (select payment_id from lots where id = %(lot_id)s) desc nulls last, id) as place
  from lots where account_id = %(account_id)s and remaining > 0
), queue as (
  select id, remaining, sum(remaining) over (order by place) - remaining as before from own
){_FROM_QUEUE}"""  # noqa: S608 - constants

_FROM_BONUS = f"""
with queue as (
  select id, remaining, sum(remaining) over (order by expires_at nulls last, id) - remaining as before
  from lots where account_id = %(account_id)s and remaining > 0 and (expires_at is null or expires_at > %(at)s)
){_FROM_QUEUE}"""  # noqa: S608 - constants

_FROM_LOT = """
with taken as (update lots set remaining = remaining - %(amount)s where id = %(lot_id)s returning id)
insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, %(amount)s from taken
"""

_RESTORE = """
with given as (
  update lots set remaining = lots.remaining + a.amount from allocations a
  where a.transfer_id = %(taken_by)s and a.lot_id = lots.id
  returning lots.id, a.amount
)
insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, -amount from given
"""

_OPEN_OF = "select id, account_id, remaining, paid, credited from lots where account_id = any(%(accounts)s) and remaining > 0 order by id"

_CARRY_OVER = """
with part as (
  select * from unnest(%(lots)s::bigint[], %(accounts)s::bigint[], %(credited)s::bigint[], %(paid)s::bigint[]) as p (lot_id, account_id, credited, paid)
), ended as (
  insert into allocations (lot_id, transfer_id, amount) select l.id, %(transfer_id)s, l.remaining from lots l join part on part.lot_id = l.id
), emptied as (
  update lots set remaining = 0 from part where part.lot_id = lots.id
)
insert into lots (account_id, customer_id, transfer_id, payment_id, kind, paid, paid_currency, credited, currency, remaining, created_at, expires_at, frozen_reason, note, continues)
select part.account_id, l.customer_id, t.id, l.payment_id, l.kind, part.paid, l.paid_currency, part.credited, %(currency)s, part.credited, t.posted_at, l.expires_at,
  l.frozen_reason, l.note, l.id
from part join lots l on l.id = part.lot_id join transfers t on t.id = %(transfer_id)s where part.credited > 0 order by l.id
"""
