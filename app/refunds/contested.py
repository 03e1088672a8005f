"""Disputes as they are read: of a customer, on support's list, and each with its amounts and its way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app import db
from app.money import Money
from app.refunds.book import PAGE, Step

UNDER_WAY = ("inquiry", "open")


@dataclass(frozen=True, slots=True)
class Dispute:
    """One dispute or inquiry: what is contested in the currency paid, what it took of the balance, and the part of that which was not there.

    `taken` and `owed` are None for an inquiry, which takes nothing; `refunded` is what of the payment went back besides; `own` says that its
    customer paid it, and may read of its document.
    """

    id: int
    reference: str
    state: str
    reason: str
    amount: Money
    taken: Money | None
    owed: Money | None
    opened_at: datetime
    closed_at: datetime | None
    document: str
    own: bool
    customer: str
    login: str
    method_label: str
    gateway: str
    gateway_reference: str
    paid: Money
    paid_at: datetime
    payment_state: str
    refunded: Money
    steps: Sequence[Step]


def disputes_of(customer_id: int) -> list[Dispute]:
    """A customer's disputes with their steps, newest first; of those of somebody else's payment nothing that its payer said."""
    found = [_dispute(row) for row in db.rows(f"{_DISPUTES} where d.customer_id = %(customer)s order by d.id desc", customer=customer_id)]
    return [dispute if dispute.own else replace(dispute, reason="", steps=[replace(step, note="") for step in dispute.steps]) for dispute in found]


def disputes_of_payment(public_id: str) -> list[Dispute]:
    """The disputes of one payment, newest first."""
    return [_dispute(row) for row in db.rows(f"{_DISPUTES} where p.public_id = %(public_id)s order by d.id desc", public_id=public_id)]


def disputes_in(states: Sequence[str], before: int | None = None) -> list[Dispute]:
    """Disputes of everybody in these states, newest first, those before an id; one more than `PAGE` when there are older ones."""
    rows = db.rows(f"{_DISPUTES} where d.state = any(%(states)s) and (%(before)s::bigint is null or d.id < %(before)s) order by d.id desc limit %(limit)s",
                   states=list(states), before=before, limit=PAGE + 1)  # fmt: skip
    return [_dispute(row) for row in rows]


def dispute_case(reference: str) -> Dispute | None:
    """One dispute of whomever by its processor's name for it, or None."""
    row = db.row(f"{_DISPUTES} where d.gateway_reference = %(reference)s", reference=reference)
    return _dispute(row) if row else None


def _dispute(row: db.Row) -> Dispute:
    steps = [Step(state, datetime.fromisoformat(at), note, actor) for state, at, note, actor in row.steps or ()]
    taken, owed = (Money(minor, row.taken_currency) if row.taken_currency else None for minor in (row.taken, row.owed))
    return Dispute(
        row.id, row.reference, row.state, row.reason, Money(row.amount, row.currency), taken, owed, row.opened_at, row.closed_at, row.document, row.own, row.customer or row.login or "",
        row.login or "", row.method_label, row.gateway, row.gateway_reference, Money(row.received, row.received_currency), row.paid_at, row.payment_state,
        Money(row.refunded, row.received_currency), steps,
    )  # fmt: skip


_DISPUTES = """
select d.id, d.gateway_reference as reference, d.state, d.reason, d.amount, d.currency, m.taken, m.owed, m.currency as taken_currency, d.opened_at, d.closed_at,
  coalesce(b.invoice_number, b.proforma_number) as document, p.payer_id = d.customer_id as own, coalesce(nullif(c.company, ''), c.name) as customer, u.login,
  case when p.payer_id = d.customer_id then p.method_label else 'the payer''s own method' end as method_label, p.gateway,
  coalesce(p.gateway_reference, '') as gateway_reference, p.received, p.received_currency, p.paid_at, p.state as payment_state,
  (select coalesce(sum(payout), 0) from refunds r where r.payment_id = p.id and r.state = 'settled')::bigint as refunded,
  (select jsonb_agg(jsonb_build_array(e.state, e.at, e.note, e.actor) order by e.id) from dispute_events e where e.dispute_id = d.id) as steps
from disputes d join payments p on p.id = d.payment_id join bills b on b.id = p.bill_id join customers c on c.id = d.customer_id
left join lateral (select login from users where customer_id = c.id order by id limit 1) u on true
left join lateral (
  select e.currency, -sum(e.amount)::bigint as taken, -coalesce(sum(e.amount) filter (where a.kind = 'debt'), 0)::bigint as owed
  from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id
  where t.reference = 'dispute:' || d.gateway_reference and a.kind in ('wallet', 'debt') group by e.currency
) m on true
"""
