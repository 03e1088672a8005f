"""Conversions of a customer's own money: each change of the account currency, and what was brought over after it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal

from app import clock, db
from app.money import Money


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the account currency. `rate` is the mid rate, `spread_bp` our share of it; `lifted_at` is when somebody of the house let the next one come early."""

    at: datetime
    from_currency: str
    to_currency: str
    rate: Decimal
    spread_bp: int
    lifted_at: datetime | None


def note_conversion(customer_id: int, change: Change, *, chosen: bool, quote_id: int | None, transfer_id: int | None, actor: str) -> None:
    """Write a conversion down; `chosen` when the customer changed the account currency by it. Within a transaction."""
    facts = {"at": change.at, "from": change.from_currency, "to": change.to_currency, "rate": change.rate, "spread": change.spread_bp}
    db.execute(_NOTE, customer=customer_id, chosen=chosen, quote=quote_id, transfer=transfer_id, actor=actor, **facts)


def changes(customer_id: int) -> list[Change]:
    """Every change of a customer's account currency, the first one first."""
    return [Change(*row) for row in db.rows(_CHANGES, customer=customer_id)]


def lift_wait(customer_id: int, *, actor: str, reason: str) -> bool:
    """Let the account currency be changed again without waiting; False when it has never been changed. Within a transaction."""
    return bool(db.execute(_LIFT, customer=customer_id, actor=actor, reason=reason, now=clock.now()))


def carried(customer_id: int, amount: Money, since: datetime) -> Money:
    """What an amount of an earlier day is in the account currency of today: at the rate of each change after `since`, rounded up."""
    for change in changes(customer_id):
        if change.at > since and change.from_currency == amount.currency:
            share = change.rate * (10_000 - change.spread_bp) / 10_000
            amount = Money.rounded(amount.decimal * share, change.to_currency, ROUND_UP)
    return amount


_NOTE = """
insert into conversions (customer_id, at, chosen, from_currency, to_currency, rate, spread_bp, quote_id, transfer_id, actor)
values (%(customer)s, %(at)s, %(chosen)s, %(from)s, %(to)s, %(rate)s, %(spread)s, %(quote)s, %(transfer)s, %(actor)s)
"""
_CHANGES = "select at, from_currency, to_currency, rate, spread_bp, lifted_at from conversions where customer_id = %(customer)s and chosen order by id"
_LIFT = """
update conversions set lifted_at = %(now)s, lifted_by = %(actor)s, lifted_reason = %(reason)s
where id = (select max(id) from conversions where customer_id = %(customer)s and chosen)
"""
