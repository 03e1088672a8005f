"""What of each payment can go back, by which way, and why the rest cannot."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app import clock, db, gateways
from app.money import Money

ONE_WAY = frozenset({"crypto", "transfer"})
"""Methods that cannot send money back to where it came from."""


@dataclass(frozen=True, slots=True)
class Source:
    """One payment, or a part of one that came in parts, and what became of its money; all but `paid` and `payout` in the account currency.

    `refundable` can be asked for and would pay out `payout`, by `way`: ``source`` is the payment's own method, ``bank`` a transfer by hand to an
    account the customer names, and then `detour` says why. `reason` says why what is left cannot go back, `open_number` which refund is under way.
    """

    payment_id: int
    public_id: str
    number: str
    lot_id: int
    method_label: str
    paid_at: datetime
    paid: Money
    credited: Money
    remaining: Money
    on_hold: Money
    returned: Money
    refundable: Money
    payout: Money
    reason: str
    way: str
    detour: str
    open_number: str
    until: datetime | None

    @property
    def spent(self) -> Money:
        """What has paid for services, or was taken back by the payer's bank."""
        return self.credited - self.remaining - self.on_hold - self.returned


def refundable(customer_id: int) -> list[Source]:
    """Every payment that put money on this balance, newest first, each with what of it can go back."""
    return [source(row) for row in db.rows(SOURCES, customer=customer_id, payment=None)]


def source(row: db.Row) -> Source:
    """What a row of `SOURCES` says of its payment."""
    detour = _detour(row)
    reason = _obstacle(row, detour)
    free = Money(0 if reason or row.open_number else row.remaining, row.currency)
    payout = Money(payout_of(row, free.minor), row.paid_currency)
    return Source(
        row.payment_id, row.public_id, row.number, row.lot_id, row.method_label, row.paid_at, Money(row.paid, row.paid_currency), Money(row.credited, row.currency),
        Money(row.remaining, row.currency), Money(row.on_hold, row.currency), Money(row.returned, row.currency), free, payout, reason,
        "bank" if detour else "source", detour, row.open_number or "", None if detour else _closes_at(row),
    )  # fmt: skip


def payout_of(row: db.Row, amount: int) -> int:
    """What `amount` (account currency) is in the currency paid, at the rate it came in at.

    Rounded down over all refunds of the payment together, so that the last one takes the exact remainder and no sum is above what came.
    """
    share = (row.on_hold + row.returned + amount) * row.paid // row.credited - row.paid_out
    return int(min(share, row.paid - row.disputed - row.paid_out)) if amount else 0


def margin_of(row: db.Row, amount: int) -> int:
    """The share of the house's margin on the exchange that goes back with `amount`, in the account currency."""
    return int(row.margin * amount // row.credited)


def _closes_at(row: db.Row) -> datetime:
    gateway = gateways.get(row.gateway)
    days = gateway.refund_window_days if gateway else 0
    paid_at: datetime = row.paid_at
    return paid_at + timedelta(days=0 if row.method in ONE_WAY else days)


def _detour(row: db.Row) -> str:
    """Why this money cannot go back the way it came, or nothing."""
    closes_at = _closes_at(row)
    if closes_at == row.paid_at:
        return f"{row.method_label} cannot send money back where it came from, so it goes to a bank account you name."
    if closes_at < clock.now():
        return f"The processor sends money back for {(closes_at - row.paid_at).days} days only, so it goes to a bank account you name."
    return "The processor could not send it back the way it came, so it goes to a bank account you name." if row.refused else ""


def _obstacle(row: db.Row, detour: str) -> str:
    """Why what is left of a payment cannot go back at all, or nothing."""
    if row.frozen_reason:
        return str(row.frozen_reason)
    if row.owed:
        return "A dispute left a debt. Settle it first, then the rest can go back."
    if row.payer_id != row.customer_id and detour:
        return "Paid by somebody else: it can only go back the way it came, and that way is closed."
    return ""


SOURCES = """
select p.id as payment_id, p.public_id, coalesce(b.invoice_number, b.proforma_number) as number, l.id as lot_id, p.method,
  case when p.payer_id = l.customer_id then p.method_label else 'the payer''s own method' end as method_label, p.paid_at, p.payer_id, p.gateway, p.gateway_reference,
  l.customer_id, l.paid, l.paid_currency, l.credited, l.currency, l.remaining, l.frozen_reason,
  coalesce(r.on_hold, 0)::bigint as on_hold, coalesce(r.returned, 0)::bigint as returned, coalesce(r.paid_out, 0)::bigint as paid_out, r.open_number, r.refused,
  coalesce(d.amount, 0)::bigint as disputed, coalesce(m.amount, 0)::bigint as margin,
  exists (select from accounts a where a.customer_id = l.customer_id and a.kind = 'debt' and a.balance < 0) as owed
from lots l
join payments p on p.id = l.payment_id
join bills b on b.id = p.bill_id
cross join lateral (
  select sum(amount) filter (where state in ('requested', 'approved', 'sent')) as on_hold, sum(amount) filter (where state = 'settled') as returned,
    sum(payout) filter (where state in ('requested', 'approved', 'sent', 'settled')) as paid_out,
    (select number from refunds o where o.payment_id = p.id and o.state in ('requested', 'approved', 'sent')) as open_number,
    coalesce(bool_or(state = 'failed' and way = 'source'), false) as refused
  from refunds where lot_id = l.id
) r
left join lateral (select sum(amount) as amount from disputes where payment_id = p.id and state in ('open', 'lost')) d on true
left join lateral (
  select sum(e.amount) as amount from entries e join accounts a on a.id = e.account_id where e.transfer_id = l.transfer_id and a.kind = 'revenue' and a.key = 'exchange'
) m on l.currency <> l.paid_currency
where l.customer_id = %(customer)s and l.kind = 'payment' and (%(payment)s::bigint is null or p.id = %(payment)s)
order by l.id desc
"""
