"""What of each payment can go back, by which way, and why the rest cannot."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app import clock, customers, db, fx, gateways, payments
from app.money import Money

PRETEND = "sandbox"
"""The gateway whose money goes back by itself or not at all: the database lets none of it go to a bank account."""
ANOTHERS = "Paid by somebody else: it can go back to its payer, by support only."


@dataclass(frozen=True, slots=True)
class Source:
    """One payment, or a part of one that came in parts or was left at a change of currency, and what became of its money.

    All but `paid` and `payout` is in the account currency; `moved` went on in another one, as a source of its own.

    `refundable` can be asked for and would pay out `payout`, by `way`: ``source`` is the payment's own method, ``bank`` a transfer by hand to an
    account the customer names, and then `detour` says why. `reason` says why what is left cannot go back, `open_number` which refund is under way.
    `account` sent a bank transfer: it goes back there only.
    Of what somebody else paid (`by_another`) its customer learns only when it came and what it brought. Sentences hold amounts and days as `Formats.sentence` reads them.
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
    moved: Money
    refundable: Money
    payout: Money
    reason: str
    way: str
    detour: str
    open_number: str
    until: datetime | None
    by_another: bool
    account: payments.Sender | None = None

    @property
    def spent(self) -> Money:
        """What has paid for services, or was taken back by the payer's bank."""
        return self.credited - self.remaining - self.on_hold - self.returned - self.moved

    @property
    def gone_on(self) -> bool:
        """Whether all that was left of it is a source in another currency now."""
        return bool(self.moved) and not self.remaining and not self.on_hold


def refundable(customer_id: int) -> list[Source]:
    """Every payment that put money on this balance, newest first, each with what of it can go back."""
    sources = [source(row) for row in db.rows(SOURCES, customer=customer_id, payment=None)]
    return [found for found in sources if not found.gone_on]


def unused(customer_id: int) -> dict[int, int]:
    """For each lot of a payment with something left what was paid for that part, in minor units of the currency paid: what would go back for all of it."""
    return {row.lot_id: payout_of(row, row.remaining) for row in db.rows(SOURCES, customer=customer_id, payment=None) if row.remaining}


def of_payment(customer_id: int, payment_id: int) -> list[db.Row]:
    """The rows of `SOURCES` of one payment, newest first, the customer held: the account currency stays what it is. Within a transaction, the payment held."""
    customers.hold(customer_id)
    return db.rows(SOURCES, customer=customer_id, payment=payment_id)


def source(row: db.Row) -> Source:
    """What a row of `SOURCES` says of its payment, as its customer may know it."""
    if row.gateway == PRETEND and not row.by_another:
        closed = _closed(row._replace(refused=False))
        return _read(row, "", _obstacle(row) or (f"{closed}, and test money cannot go to a bank account." if closed else ""))
    closed = _closed(row)
    if not row.by_another:
        target = "back to the account that sent it" if row.sender_iban else "to a bank account you name"
        return _read(row, f"{closed}, so it goes {target}." if closed else "", _obstacle(row))
    found, brought, nothing = _read(row, "", ANOTHERS), Money(row.credited, row.currency), Money(0, row.currency)
    return replace(found, number="", method_label="Top-up from another account", paid=brought, payout=nothing, until=None, account=None)


def source_for_support(row: db.Row) -> Source:
    """The same with everything support may know. What support opens goes the way it came or not at all."""
    closed = _closed(row._replace(refused=False))  # a try that failed may be made again: the processor answers
    who = (
        "Paid by somebody else: it can only go back the way it came, and that way is closed."
        if row.by_another
        else "From here it goes back only the way it came, and that way is closed; its customer can ask for it to a bank account."
    )
    return _read(row, "", _obstacle(row) or (f"{who} {closed}." if closed else ""))


@dataclass(frozen=True, slots=True)
class Origin:
    """A payment as support sees it before opening its refund: whose balance it is on, and who paid it, empty where that is the same."""

    source: Source
    customer_id: int
    owner: str
    payer: str
    gateway: str
    gateway_reference: str


def origin(public_id: str) -> Origin | None:
    """Any credited payment as support sees it; of one that came in parts the newest part that has something left."""
    row = db.row(_ORIGIN, public_id=public_id)
    parts = db.rows(SOURCES, customer=row.customer_id, payment=row.id) if row else []
    if row is None or not parts:
        return None
    part = next((part for part in parts if part.remaining), parts[0])
    return Origin(source_for_support(part), row.customer_id, row.owner, row.payer, row.gateway, row.gateway_reference)


def find_payments(text: str) -> list[str]:
    """The public ids of the credited payments that a number of support's names: the payment's own, the processor's, or the bill's; newest first, at most 20."""
    return [row.public_id for row in db.rows(_FIND, text=text.strip())]


def _read(row: db.Row, detour: str, reason: str) -> Source:
    free = Money(0 if reason or row.open_number else row.remaining, row.currency)
    payout = Money(payout_of(row, free.minor), row.paid_currency)
    return Source(
        row.payment_id, row.public_id, row.number, row.lot_id, row.method_label, row.paid_at, Money(row.paid, row.paid_currency), Money(row.credited, row.currency),
        Money(row.remaining, row.currency), Money(row.on_hold, row.currency), Money(row.returned, row.currency), Money(row.moved, row.currency), free, payout, reason,
        "bank" if detour else "source", detour, row.open_number or "", None if detour else _closes_at(row), row.by_another,
        payments.Sender(row.sender, row.sender_iban) if detour and row.sender_iban else None,
    )  # fmt: skip


def payout_of(row: db.Row, amount: int) -> int:
    """What `amount` (account currency) is in the currency paid, at the rate it came in at, whichever currencies it has been in since.

    Rounded down over all refunds of the payment together, so that the last one takes the exact remainder and no sum is above what came.
    """
    share = (row.moved + row.on_hold + row.returned + amount) * row.paid // row.credited - row.moved_paid - row.paid_out
    return int(max(0, min(share, row.received - row.disputed - row.payouts))) if amount else 0


def taken_by(row: db.Row, gone: int) -> Money:
    """What the balance gives when `gone` of a payment (minor units of the currency paid) leaves past us, in the account currency, rounded up.

    What this source was paid by counts at its own rate, the rest at the rate it came in at and that of each change of currency since.
    """
    if row.currency == row.account_currency and gone <= row.paid:
        return Money(-(-gone * row.credited // row.paid), row.currency)
    first = db.rows(_FIRST, lot=row.lot_id)[0]

    def whole(minor: int) -> Money:
        came_as = Money(-(-minor * first.credited // first.paid), first.currency)
        return fx.carried(row.customer_id, came_as, first.created_at)

    if row.currency != row.account_currency:
        return whole(gone)
    return Money(row.credited, row.currency) + whole(gone) - whole(row.paid)


def margin_of(row: db.Row, amount: int) -> int:
    """The share of the house's margin on the latest exchange that goes back with `amount`, in the account currency."""
    return int(row.margin * amount // row.exchanged)


def margin_in(row: db.Row, taken: Money) -> int:
    """The same of money that left past us: none of what had been spent before the account had this currency."""
    return margin_of(row, min(taken.minor, row.credited)) if taken.currency == row.currency else 0


def waits_until(row: db.Row) -> datetime | None:
    """From when on a payment can go back, where it cannot yet; of a row with its gateway, its method and when it was paid."""
    wait, paid_at = gateways.way_back(row.gateway, row.method).wait, row.paid_at
    opens_at: datetime = paid_at + timedelta(days=wait)
    return opens_at if wait and opens_at > clock.now() else None  # a processor's clock may be ahead of ours


def _closes_at(row: db.Row) -> datetime:
    paid_at: datetime = row.paid_at
    return paid_at + timedelta(days=gateways.way_back(row.gateway, row.method).days)


def _closed(row: db.Row) -> str:
    """Why this money cannot go back the way it came, as a sentence without its end, or nothing."""
    closes_at = _closes_at(row)
    if closes_at == row.paid_at:
        return f"{row.method_label} cannot send money back where it came from"
    if closes_at < clock.now():
        return f"The processor sends money back for {(closes_at - row.paid_at).days} days only"
    return "The processor could not send it back the way it came" if row.refused else ""


def _obstacle(row: db.Row) -> str:
    """Why what is left of a payment cannot go back at all, or nothing."""
    if row.frozen_reason:
        return str(row.frozen_reason)
    if row.owed:
        return "A payment that was taken back left a debt. Settle it first, then the rest can go back."
    if opens_at := waits_until(row):
        return f"{gateways.way_back(row.gateway, row.method).why} {opens_at:%Y-%m-%d}."
    return ""


SOURCES = """
select p.id as payment_id, p.public_id, coalesce(b.invoice_number, b.proforma_number) as number, l.id as lot_id, p.method,
  p.method_label, p.payer_id <> l.customer_id as by_another, p.paid_at, p.gateway, p.gateway_reference, p.received, c.currency as account_currency, l.customer_id, l.continues, l.paid, l.paid_currency, l.credited, l.currency, l.remaining,
  l.frozen_reason,
  coalesce(r.on_hold, 0)::bigint as on_hold, coalesce(r.returned, 0)::bigint as returned, coalesce(r.paid_out, 0)::bigint as paid_out, r.open_number, r.refused,
  (select coalesce(sum(o.payout), 0) from refunds o where o.payment_id = p.id and o.state in ('requested', 'approved', 'sent', 'settled'))::bigint as payouts,
  coalesce(k.moved, 0)::bigint as moved, coalesce(k.paid, 0)::bigint as moved_paid,
  coalesce(d.amount, 0)::bigint as disputed, coalesce(m.amount, 0)::bigint as margin, coalesce(m.exchanged, l.credited)::bigint as exchanged,
  exists (select from accounts a where a.customer_id = %(customer)s and a.kind = 'debt' and a.balance < 0) as owed,
  s.sender, s.iban as sender_iban
from lots l
join payments p on p.id = l.payment_id
join bills b on b.id = p.bill_id
join customers c on c.id = l.customer_id
cross join lateral (
  select sum(amount) filter (where state in ('requested', 'approved', 'sent')) as on_hold, sum(amount) filter (where state = 'settled') as returned,
    sum(payout) filter (where state in ('requested', 'approved', 'sent', 'settled')) as paid_out,
    (select number from refunds o where o.payment_id = p.id and o.state in ('requested', 'approved', 'sent')) as open_number,
    coalesce(bool_or(state = 'failed' and way = 'source'), false) as refused
  from refunds where lot_id = l.id
) r
left join lateral (select sum(amount) as amount from disputes where payment_id = p.id and state in ('open', 'lost')) d on true
left join lateral (
  select (
      select sum(a.amount)
      from allocations a
      where a.lot_id = l.id
        -- Without the offset the planner reads everybody's transfers first.
        and exists (select from transfers t where t.id = a.transfer_id and t.kind = 'conversion' offset 0)
    ) as moved,
    (select sum(n.paid) from lots n where n.continues = l.id) as paid
) k on exists (select from conversions v where v.customer_id = %(customer)s)
left join lateral (
  select sum(e.amount) filter (where a.kind = 'revenue' and a.key = 'exchange') as amount, sum(e.amount) filter (where a.kind in ('wallet', 'bonus') and e.amount > 0) as exchanged
  from entries e join accounts a on a.id = e.account_id where e.transfer_id = l.transfer_id
) m on l.currency <> l.paid_currency or l.continues is not null
left join lateral (
  select n.sender, n.iban
  from payment_senders n
  where n.payment_id = p.id
    and not exists (
      select from refunds f
      where f.payment_id = p.id
        and f.way = 'bank'
        and f.iban = n.iban
        and f.state = 'failed'
    )
  order by n.line_id
  limit 1
) s on p.gateway = 'bank'
where l.customer_id = %(customer)s and l.kind = 'payment' and (%(payment)s::bigint is null or p.id = %(payment)s)
order by l.id desc
"""
_CREDITED = "p.state in ('paid', 'partially_refunded', 'refunded', 'disputed')"
_ORIGIN = f"""
select p.id, p.customer_id, p.gateway, coalesce(p.gateway_reference, '') as gateway_reference,
  coalesce(nullif(o.company, ''), nullif(o.name, ''), (select login from users u where u.customer_id = o.id order by u.id limit 1), '') as owner,
  case when p.payer_id <> p.customer_id then coalesce(nullif(y.company, ''), nullif(y.name, ''), 'somebody without a name') else '' end as payer
from payments p join customers o on o.id = p.customer_id join customers y on y.id = p.payer_id
where p.public_id = %(public_id)s and {_CREDITED}
"""  # noqa: S608 - constants
_FIND = f"""
select p.public_id from payments p where {_CREDITED} and (p.public_id = %(text)s or p.gateway_reference = %(text)s
  or p.bill_id in (select id from bills where upper(%(text)s) in (proforma_number, invoice_number)))
order by p.id desc limit 20
"""  # noqa: S608 - constants
_FIRST = """
with recursive line as (
  select id, continues, paid, credited, currency, created_at from lots where id = %(lot)s
  union all select p.id, p.continues, p.paid, p.credited, p.currency, p.created_at from lots p join line on p.id = line.continues
)
select paid, credited, currency, created_at from line where continues is null
"""
