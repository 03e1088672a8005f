"""What support decides about a login or a customer: switched off, on, signed out, closed.

Each takes effect with the next request, and stands in the audit log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from app import approvals, clock, db
from app.customers import credentials
from app.customers.events import record

_USER: Final = "select id, customer_id, login, disabled_at from users where login = %(login)s"
_USERS: Final = """
select id from users
where customer_id = %(id)s and disabled_at is null
order by id
"""
_HOLD: Final = "select closed_at from customers where id = %(id)s for no key update"
_CLOSE: Final = "update customers set closed_at = %(now)s where id = %(id)s"
_MONEY: Final = """
select kind, currency, balance from accounts
where customer_id = %(id)s and kind in ('wallet', 'hold', 'debt') and balance <> 0
order by kind desc, currency
"""
_OPEN: Final = """
select 'refund' as kind, number as what from refunds
where customer_id = %(id)s and state in ('requested', 'approved', 'sent')
union all
select 'payment', coalesce(b.invoice_number, b.proforma_number) from payments p
join bills b on b.id = p.bill_id
where (p.customer_id = %(id)s or b.beneficiary_id = %(id)s)
  and p.state in ('created', 'unknown', 'pending', 'review')
union all
select 'held', h.number from held h
join payments p on p.id = h.payment_id
where p.customer_id = %(id)s and h.state in ('held', 'returning')
union all
select 'dispute', d.gateway_reference from disputes d
where d.customer_id = %(id)s and d.state in ('inquiry', 'open')
union all
select 'service', label from services
where customer_id = %(id)s and status <> 'terminated'
order by 1, 2
"""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that keeps a customer from being closed.

    ``kind`` is ``wallet``, ``hold`` or ``debt`` with an amount, else ``refund``, ``payment``,
    ``held``, ``dispute`` or ``service`` with its number or label. Amounts are in minor units.
    """

    kind: str
    what: str
    minor: int = 0


class NotClosable(Exception):
    """A customer that cannot be closed yet, with what is in the way."""

    def __init__(self, obstacles: list[Obstacle]) -> None:
        super().__init__(f"{len(obstacles)} obstacles")
        self.obstacles = obstacles


def disable(login: str, *, actor: str, reason: str) -> int:
    """Switch a login off and end its sessions and links; how many sessions ended.

    Raises LookupError, `approvals.NotAllowed`. Opens its own transaction.
    """
    change = partial(credentials.set_disabled, disabled=True)
    return _switch(login, change, "disabled", "user.disable", actor, reason)


def enable(login: str, *, actor: str, reason: str) -> None:
    """Switch a login on again. Raises LookupError, `approvals.NotAllowed`; ValueError while its customer is closed.

    Opens its own transaction.
    """
    change = partial(credentials.set_disabled, disabled=False)
    _switch(login, change, "enabled", "user.enable", actor, reason)


def sign_out(login: str, *, actor: str, reason: str) -> int:
    """End a user's sessions and mailed links; how many sessions ended.

    Raises LookupError, `approvals.NotAllowed`. Opens its own transaction.
    """
    change = credentials.changed
    return _switch(login, change, "signed_out_by_support", "user.sign_out", actor, reason)


def close(login: str, *, actor: str, reason: str) -> int:
    """Close the customer of a login and switch its logins off; documents stay. How many logins.

    Raises LookupError, `NotClosable`, `approvals.NotAllowed`, and ValueError when it is closed
    already. Opens its own transaction.
    """
    with db.transaction():
        customer_id = _user(login).customer_id
        if customer_id is None:
            raise LookupError(f"{login} has no customer of its own")
        if db.scalar(_HOLD, id=customer_id) is not None:
            raise ValueError(f"The customer of {login} is closed already.")
        whose = [customer_id]
        approvals.decide("customer.close", login, actor=actor, customers=whose, reason=reason)
        if found := obstacles(customer_id):
            raise NotClosable(found)
        db.execute(_CLOSE, id=customer_id, now=clock.now())
        users = [row.id for row in db.rows(_USERS, id=customer_id)]
        for user_id in users:
            credentials.set_disabled(user_id, disabled=True)
            record("disabled", user_id)
    return len(users)


def obstacles(customer_id: int) -> list[Obstacle]:
    """What keeps a customer from being closed; empty when nothing does."""
    money = [Obstacle(row.kind, row.currency, abs(row.balance)) for row in db.rows(_MONEY, id=customer_id)]
    return money + [Obstacle(row.kind, row.what or "") for row in db.rows(_OPEN, id=customer_id)]


def _switch(
    login: str,
    change: Callable[[int], credentials.Changed],
    event: str,
    action: str,
    actor: str,
    reason: str,
) -> int:
    with db.transaction():
        user = _user(login)
        if user.customer_id is not None:
            closed_at = db.scalar(_HOLD, id=user.customer_id)
            if event == "enabled" and closed_at is not None:
                raise ValueError(f"The customer of {login} is closed.")
        whose = [user.customer_id] if user.customer_id else []
        approvals.decide(action, user.login, actor=actor, customers=whose, reason=reason)
        ended = change(user.id).ended
        record(event, user.id)
    return ended


def _user(login: str) -> db.Row:
    user = db.row(_USER, login=login.strip().lower().replace("\0", ""))
    if user is None:
        raise LookupError(f"no user {login}")
    return user
