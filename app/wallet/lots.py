"""Lots: which payment each cent came from, and which transfer took it. All of it beside a transfer that moves the same money."""

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


def take_bonus(posted: Posted, account_id: int, amount: int, at: datetime) -> None:
    """Take an amount in minor units from what of a bonus has not expired, the soonest to expire first."""
    _take(_FROM_BONUS, posted, account_id, amount, at=at)


def take_named(posted: Posted, lot_id: int, amount: int) -> None:
    """Take an amount in minor units from one lot."""
    db.execute(_FROM_LOT, lot_id=lot_id, transfer_id=posted.transfer_id, amount=amount)


def give_back(posted: Posted, taken_by: int) -> None:
    """Give each lot back what the transfer `taken_by` took from it."""
    db.execute(_RESTORE, taken_by=taken_by, transfer_id=posted.transfer_id)


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
