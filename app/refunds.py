"""Money back out: what of each payment can go back, the way of a refund, and disputes.

A refund belongs to one payment. Its money is on hold from the request on, so it is never spent and paid out both; it goes back by the
payment's own method, in the currency paid, at the rate it came in at. Of one payment never more goes back than came.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import clock, customers, db, gateways, ledger, mail, payments, wallet
from app.formats import formats
from app.gateways.base import GatewayError, RefundSnapshot
from app.money import Money

log = logging.getLogger(__name__)

WINDOW = timedelta(days=180)
"""How long after a payment its processor sends money back."""
ONE_WAY = frozenset({"crypto"})
"""Methods that cannot send money back to where it came from."""


class RefundError(ValueError):
    """What was asked cannot be done, as a sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class Source:
    """One payment and what became of its money; all but `paid` and `payout` in the account currency.

    `refundable` can be asked for and would pay out `payout`; `reason` says why the rest of what is left cannot.
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

    @property
    def spent(self) -> Money:
        """What has paid for services."""
        return self.credited - self.remaining - self.on_hold - self.returned


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a refund's way."""

    state: str
    at: datetime
    note: str
    actor: str


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund: what it takes from the balance, what it pays out, and its way so far, oldest step first."""

    id: int
    number: str
    method_label: str
    amount: Money
    payout: Money
    state: str
    reason: str
    answer: str
    requested_at: datetime
    steps: Sequence[Step]


# What can go back


def refundable(customer_id: int) -> list[Source]:
    """Every payment that put money on this balance, newest first, each with what of it can go back."""
    return [_source(row) for row in db.rows(_SOURCES, customer=customer_id, payment=None)]


def _source(row: db.Row) -> Source:
    paid, credited = Money(row.paid, row.paid_currency), Money(row.credited, row.currency)
    reason = _obstacle(row)
    free = Money(0 if reason else row.remaining, row.currency)
    payout = _payout(row, free.minor)
    return Source(
        row.payment_id, row.public_id, row.number, row.lot_id, row.method_label, row.paid_at, paid, credited, Money(row.remaining, row.currency),
        Money(row.on_hold, row.currency), Money(row.returned, row.currency), free, Money(payout, row.paid_currency), reason,
    )  # fmt: skip


def _obstacle(row: db.Row) -> str:
    """Why what is left of a payment cannot go back, or nothing."""
    if row.frozen_reason:
        return str(row.frozen_reason)
    if row.payer_id != row.customer_id:
        return "Paid by somebody else, and only who paid can get it back."
    if row.method in ONE_WAY:
        return "A payment by cryptocurrency cannot go back the way it came. Write to us for a bank transfer."
    if row.paid_at + WINDOW < clock.now():
        return f"The processor sends money back for {WINDOW.days} days only. Write to us for a bank transfer."
    return ""


def _payout(row: db.Row, amount: int) -> int:
    """What `amount` (account currency) is in the currency paid, so that all refunds of a payment together are never above it."""
    gone = row.on_hold + row.returned
    return int((gone + amount) * row.paid // row.credited - row.paid_out) if amount else 0


_SOURCES = """
select p.id as payment_id, p.public_id, coalesce(b.invoice_number, b.proforma_number) as number, l.id as lot_id, p.method, p.method_label, p.paid_at, p.payer_id, p.gateway,
  p.gateway_reference, l.customer_id, l.paid, l.paid_currency, l.credited, l.currency, l.remaining, l.frozen_reason,
  coalesce(r.on_hold, 0)::bigint as on_hold, coalesce(r.returned, 0)::bigint as returned, coalesce(r.paid_out, 0)::bigint as paid_out
from lots l
join payments p on p.id = l.payment_id
join bills b on b.id = p.bill_id
left join lateral (
  select sum(amount) filter (where state <> 'settled') as on_hold, sum(amount) filter (where state = 'settled') as returned, sum(payout) as paid_out
  from refunds where lot_id = l.id and state in ('requested', 'approved', 'sent', 'settled')
) r on true
where l.customer_id = %(customer)s and l.kind = 'payment' and (%(payment)s::bigint is null or p.id = %(payment)s)
order by l.id desc
"""


def of_customer(customer_id: int) -> list[Refund]:
    """A customer's refunds with their steps, newest first."""
    return [_refund(row) for row in db.rows(_REFUNDS, customer=customer_id)]


def _refund(row: db.Row) -> Refund:
    steps = [Step(state, datetime.fromisoformat(at), note, actor) for state, at, note, actor in row.steps]
    money = Money(row.amount, row.currency), Money(row.payout, row.payout_currency)
    return Refund(row.id, row.number, row.method_label, *money, row.state, row.reason, row.answer, row.requested_at, steps)


_REFUNDS = """
select r.id, r.number, p.method_label, r.amount, r.currency, r.payout, r.payout_currency, r.state, r.reason, r.answer, r.requested_at,
  (select jsonb_agg(jsonb_build_array(e.state, e.at, e.note, e.actor) order by e.id) from refund_events e where e.refund_id = r.id) as steps
from refunds r join payments p on p.id = r.payment_id
where r.customer_id = %(customer)s order by r.id desc
"""

# The way of a refund


def request(customer_id: int, public_id: str, amount: Money, reason: str) -> str:
    """Ask for money of a payment back: it is on hold from now on; the refund's number. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        row = _own_payment(customer_id, public_id)
        source = _source(row)
        if not 0 < amount.minor <= source.refundable.minor or amount.currency != source.refundable.currency:
            raise RefundError(source.reason or f"At most {source.refundable} of this payment can be refunded.")
        payout = Money(_payout(row, amount.minor), row.paid_currency)
        if not payout:
            raise RefundError("This amount is too small to be sent back.")
        (refund,) = db.rows(_REQUEST, payment=row.payment_id, lot=row.lot_id, customer=customer_id, amount=amount.minor, currency=amount.currency, payout=payout.minor,
                        payout_currency=payout.currency, reason=reason, now=clock.now())  # fmt: skip
        wallet.hold(
            customer_id, row.lot_id, amount, reference=f"{refund.number}:hold", description=f"Refund {refund.number} requested",
            actor=f"customer:{customer_id}", refund_id=refund.id, payment_id=row.payment_id,
        )  # fmt: skip
        _step(refund.id, "requested", reason, "customer")
        return str(refund.number)


def _own_payment(customer_id: int, public_id: str) -> db.Row:
    payment_id = db.scalar("select id from payments where public_id = %(public_id)s and customer_id = %(customer)s for no key update", public_id=public_id, customer=customer_id)
    row = db.row(_SOURCES, customer=customer_id, payment=payment_id) if payment_id else None
    if row is None:
        raise RefundError("There is no such payment.")
    return row


_REQUEST = """
with taken as (select nextval(pg_get_serial_sequence('refunds', 'id')) as id)
insert into refunds (id, number, payment_id, lot_id, customer_id, amount, currency, payout, payout_currency, reason, requested_at, updated_at)
overriding system value
select id, 'RF-' || lpad(id::text, 6, '0'), %(payment)s, %(lot)s, %(customer)s, %(amount)s, %(currency)s, %(payout)s, %(payout_currency)s, %(reason)s, %(now)s, %(now)s
from taken returning id, number
"""


def decide(number: str, *, approve: bool, answer: str, actor: str) -> None:
    """Approve a requested refund, or decline it and give the money back to the balance. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        row = _lock(number, "requested")
        if not approve:
            _give_back(row, "declined", answer, actor)
            return
        _refuse_frozen(row)
        _move(row.id, "approved", answer)
        _step(row.id, "approved", answer, actor)
        _tell(row, "approved", answer)


def pay_out(number: str) -> str:
    """Send an approved refund back by its processor; its state after. Asked again after a failure it sends nothing twice, by its own key.

    Two transactions with the processor's call between. Raises `RefundError` for one that is not approved, `GatewayError` when the
    processor gave no answer: the refund stays as it is, to be tried again.
    """
    with db.transaction():
        row = _lock(number, "approved")
        _refuse_frozen(row)
    gateway = gateways.get(row.gateway)
    if gateway is None:
        raise RefundError(f"{row.gateway} is not configured, so nothing can be sent back by it.")
    payout = Money(row.payout, row.payout_currency)
    try:
        snapshot = gateway.refund(row.gateway_reference, payout, f"refund:{row.number}")
    except GatewayError as error:
        if not error.permanent:
            raise
        snapshot = RefundSnapshot("", "failed", payout, str(error))
    with db.transaction():
        return _arrive(_lock(number, "approved"), snapshot)


def pay_out_due() -> int:
    """Send every approved refund back; how many left. One that fails is logged, tried again on the next turn and stops no other."""
    sent = 0
    for row in db.rows("select number from refunds where state = 'approved' order by id"):
        try:
            sent += pay_out(row.number) in {"sent", "settled"}
        except (GatewayError, RefundError) as error:
            log.warning("Refund %s was not sent: %s", row.number, error)
    return sent


def _arrive(row: db.Row, snapshot: RefundSnapshot) -> str:
    """Write down what the processor did with a refund. Within a transaction."""
    if snapshot.state == "failed":
        return _give_back(row, "failed", snapshot.failure_message, row.gateway)
    amount, payout = Money(row.amount, row.currency), Money(row.payout, row.payout_currency)
    wallet.pay_out(
        row.customer_id, amount, reference=f"{row.number}:sent", counter=_outward(row.gateway, amount, payout), description=f"Refund {row.number} to {row.method_label}",
        refund_id=row.id, payment_id=row.payment_id,
    )  # fmt: skip
    state = "settled" if snapshot.state == "settled" else "sent"
    _move(row.id, state, row.answer, snapshot.reference)
    _step(row.id, "sent", "", row.gateway)
    if state == "settled":
        _step(row.id, "settled", "", row.gateway)
    returned = db.scalar("select sum(amount) from refunds where payment_id = %(payment)s and state in ('sent', 'settled')", payment=row.payment_id)
    payments.mark_refunded(row.payment_id, int(returned), f"{row.number}: {payout} went back.")
    _tell(row, state, "")
    return state


def _outward(gateway: str, amount: Money, payout: Money) -> list[tuple[int, int]]:
    """The other side of money that leaves `amount` poorer and is `payout` at the gateway: the mirror of how it came."""
    lines = [(ledger.account("gateway", payout.currency, key=gateway), payout.minor)]
    if amount.currency != payout.currency:
        lines += [(ledger.account("fx", amount.currency), amount.minor), (ledger.account("fx", payout.currency), -payout.minor)]
    return lines


def _give_back(row: db.Row, state: str, note: str, actor: str) -> str:
    held = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:hold")
    wallet.release(held, f"{row.number}:{state}", description=f"Refund {row.number} {state}, back on the balance", actor=actor)
    _move(row.id, state, note)
    _step(row.id, state, note, actor)
    _tell(row, state, note)
    return state


def _lock(number: str, state: str) -> db.Row:
    row = db.row(_LOCK, number=number)
    if row is None:
        raise RefundError(f"There is no refund {number}.")
    if row.state != state:
        raise RefundError(f"{number} is {row.state}, not {state}.")
    return row


def _refuse_frozen(row: db.Row) -> None:
    """What its bank has taken back already must not be sent as well."""
    if row.frozen_reason:
        raise RefundError(f"{row.frozen_reason} {row.number} has to wait.")


def _move(refund_id: int, state: str, answer: str, reference: str | None = None) -> None:
    db.execute(_MOVE, id=refund_id, state=state, answer=answer, reference=reference, now=clock.now())


def _step(refund_id: int, state: str, note: str, actor: str) -> None:
    db.execute("insert into refund_events (refund_id, at, state, note, actor) values (%(id)s, %(now)s, %(state)s, %(note)s, %(actor)s)",
               id=refund_id, state=state, note=note, actor=actor, now=clock.now())  # fmt: skip


def _tell(row: db.Row, state: str, note: str) -> None:
    customer = customers.get(row.customer_id)
    payout = formats(customer.locale, customer.timezone).money(row.payout, row.payout_currency)
    mail.inform(
        "refund_step", customer.email, key=f"{row.number}:{state}", customer_id=customer.id, name=customer.title, number=row.number, state=state, note=note,
        payout=payout, method=row.method_label,
    )  # fmt: skip


_LOCK = """
select r.id, r.number, r.payment_id, r.customer_id, r.amount, r.currency, r.payout, r.payout_currency, r.state, r.answer, p.gateway, p.gateway_reference, p.method_label,
  l.frozen_reason
from refunds r join payments p on p.id = r.payment_id join lots l on l.id = r.lot_id where r.number = %(number)s for no key update of r, p
"""
_MOVE = """
update refunds set state = %(state)s, answer = %(answer)s, gateway_reference = coalesce(%(reference)s, gateway_reference), updated_at = %(now)s where id = %(id)s
"""

# Disputes


def open_dispute(public_id: str, amount: Money, *, reference: str, reason: str) -> None:
    """The payer's bank took a payment back: the balance gives what it has, the rest is a debt, and the payment cannot be refunded.

    `amount` is in the currency paid, `reference` the processor's; the same reference again changes nothing. Opens the transaction. Raises `RefundError`.
    """
    with db.transaction():
        row = _disputed_payment(public_id)
        if amount.currency != row.paid_currency or not 0 < amount.minor <= row.paid:
            raise RefundError(f"{amount} cannot be disputed of a payment of {Money(row.paid, row.paid_currency)}.")
        facts = {"payment": row.payment_id, "customer": row.customer_id, "reference": reference, "amount": amount.minor, "currency": amount.currency, "reason": reason}
        if not db.execute(_OPEN_DISPUTE, now=clock.now(), **facts):
            return
        taken = Money(-(-amount.minor * row.credited // row.paid), row.currency)
        wallet.seize(
            row.customer_id, row.lot_id, taken, reference=f"dispute:{reference}", counter=_outward(row.gateway, taken, amount), payment_id=row.payment_id,
            description=f"Dispute of the payment by {row.method_label}",
        )  # fmt: skip
        wallet.freeze(row.lot_id, "The payment is disputed with its bank.")
        payments.mark_disputed(row.payment_id, opened=True, note_text=f"The payer's bank disputes it: {reason}.")


def win_dispute(reference: str) -> None:
    """The bank gave the payment back to us: everything the dispute took is restored. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        row = db.row(_CLOSE_DISPUTE, reference=reference, now=clock.now())
        if row is None:
            raise RefundError(f"No dispute {reference} is open.")
        payments.hold(row.payment_id)
        taken = db.scalar("select id from transfers where reference = %(reference)s", reference=f"dispute:{reference}")
        wallet.restore(taken, f"dispute:{reference}:won", kind="dispute_won", description="Dispute decided for you")
        wallet.freeze(db.scalar("select id from lots where payment_id = %(payment)s", payment=row.payment_id), None)
        payments.mark_disputed(row.payment_id, opened=False, note_text="The dispute was decided for the customer's account.")


def _disputed_payment(public_id: str) -> db.Row:
    owner = db.row("select id, customer_id from payments where public_id = %(public_id)s for no key update", public_id=public_id)
    row = db.row(_SOURCES, customer=owner.customer_id, payment=owner.id) if owner else None
    if row is None:
        raise RefundError("There is no such payment.")
    return row


_OPEN_DISPUTE = """
insert into disputes (payment_id, customer_id, gateway_reference, amount, currency, state, reason, opened_at)
values (%(payment)s, %(customer)s, %(reference)s, %(amount)s, %(currency)s, 'open', %(reason)s, %(now)s)
on conflict (gateway_reference) do nothing
"""
_CLOSE_DISPUTE = "update disputes set state = 'won', closed_at = %(now)s where gateway_reference = %(reference)s and state = 'open' returning payment_id"
