"""Money on its way out: the processor's call, what processors say of refunds since, and payouts by hand."""

import logging
from datetime import datetime

from app import approvals, clock, db, gateways, ledger, payments, wallet
from app.gateways.base import Gateway, GatewayError, NotNow, RefundSnapshot, Refused, Snapshot, UnreadableAnswer
from app.money import Money
from app.payments import Payment, outages
from app.refunds import book, disputes, held
from app.refunds.asking import decline_unsent, give_back
from app.refunds.book import RefundError
from app.refunds.sources import margin_in, of_payment, taken_by

log = logging.getLogger(__name__)

GONE = "The payment went back at its processor already."


def pay_out(number: str) -> str:
    """Send an approved refund back by its processor; its state after. Asked again, from anywhere, it sends nothing twice, by its own key.

    Two transactions with the processor's call between. Raises `RefundError` for one that cannot be sent, `GatewayError` when the processor gave no answer
    or a setting of ours bars it: the refund stays approved, and the next try first asks whether the last one had reached it.
    """
    now = clock.now()
    row = _begin(number, now)
    gateway = gateways.get(row.gateway)
    if gateway is None or row.state in {"sent", "settled"}:
        return str(row.state)
    payout = Money(row.payout, row.payout_currency)
    try:
        found = _found_before(gateway, row) or _sent_by(gateway, row, payout)
    except Refused as error:
        found = RefundSnapshot("", "failed", payout, str(error))
    except NotNow as error:
        _wait(row, now, error.detail)
        raise
    except UnreadableAnswer as error:
        with db.transaction():  # it may have left, so it counts as tried: the next try looks for it first
            db.execute("update refunds set hindrance = %(why)s where id = %(id)s and state = 'approved'", id=row.id, why=error.detail)
        raise
    with db.transaction():
        outages.note_found(row.gateway, number)
        return arrive(book.lock(number), found)


def _begin(number: str, now: datetime) -> db.Row:
    """The refund as it stood before this try, which is noted if it is one."""
    with db.transaction():
        row = book.lock(number)
        if row.state not in {"sent", "settled"}:
            _refuse_unsendable(row)
            db.execute("update refunds set attempted_at = %(now)s, hindrance = '' where id = %(id)s", id=row.id, now=now)
    return row


def key_of(number: str) -> str:
    """The key under which a processor sends one refund, once."""
    return f"refund:{number}"


def _wait(row: db.Row, tried_at: datetime, why: str) -> None:
    """Nothing of this try happened. Unless an earlier one may have reached the processor, or another does now, the refund is as if it had not been tried."""
    with db.transaction():
        db.execute(_UNTRIED, id=row.id, before=row.attempted_at, tried_at=tried_at, why=why[:500])


_UNTRIED = """
update refunds set hindrance = %(why)s, attempted_at = case when %(before)s::timestamptz is null and attempted_at = %(tried_at)s then null else attempted_at end
where id = %(id)s and state = 'approved'
"""


def _refuse_unsendable(row: db.Row) -> None:
    book.require(row, "approved")
    if row.way == "bank":
        raise RefundError(f"{row.number} is paid by hand.")
    if row.disputed and row.attempted_at is None:
        raise RefundError("The payment is disputed: it cannot go back twice.")
    if gateways.get(row.gateway) is None:
        raise RefundError(f"{row.gateway} is not configured, so nothing can be sent back by it.")
    outages.refuse_left_alone(row.gateway)


def _found_before(gateway: Gateway, row: db.Row) -> RefundSnapshot | None:
    """What became of an earlier try whose answer was lost; processors forget keys after a day, never refunds."""
    if row.attempted_at is None:
        return None
    with outages.asking(row.gateway, "lookup", row.number):
        snapshot = gateway.lookup(row.gateway_reference)
    return next((found for found in snapshot.refunds if found.key == key_of(row.number)), None) if snapshot else None


def _sent_by(gateway: Gateway, row: db.Row, payout: Money) -> RefundSnapshot:
    with outages.asking(row.gateway, "refund", row.number):
        return gateway.refund(row.gateway_reference, payout, key_of(row.number))


def pay_out_due() -> int:
    """Send every approved refund back; how many left. One that fails is logged, tried again on the next turn and stops no other."""
    sent = 0
    for row in db.rows(_DUE, silent=list(outages.left_alone())):
        try:
            sent += pay_out(row.number) in {"sent", "settled"}
        except (GatewayError, RefundError) as error:
            log.warning("Refund %s was not sent: %s", row.number, getattr(error, "detail", error))
    return sent


def mark_paid(number: str, *, reference: str, actor: str) -> None:
    """Note that a payout by hand has left, under the bank's reference. Opens the transaction. Raises `RefundError`."""
    if not reference.strip():
        raise RefundError("Enter the bank's reference of the transfer.", "reference")
    with db.transaction():
        row = book.lock(number)
        if row.way != "bank":
            raise RefundError(f"{number} goes back by its processor.", "reference")
        if row.disputed and row.attempted_at is None:
            raise RefundError("The payment is disputed: it cannot go back twice.", "reference")
        book.require(row, "approved")
        person = approvals.decide("refund.paid", number, actor=actor, payments=[row.payment_id], reason=f"Bank's reference {reference.strip()[:70]}")
        paid(row, reference, person.name)


def paid(row: db.Row, reference: str, actor: str) -> None:
    """A payout by hand has left. Raises `RefundError` for one that was not approved. Within a transaction."""
    book.require(row, "approved")
    amount, payout = Money(row.amount, row.currency), Money(row.payout, row.payout_currency)
    line = (ledger.account("suspense", payout.currency, key=payments.SUSPENSE), payout.minor)
    book.write_step(row.id, "sent", f"Bank's reference {reference.strip()[:70]}", actor)
    _leave(row, book.exchanged(line, amount, payout, row.margin), "", actor)


def follow(payment: Payment, snapshot: Snapshot) -> None:
    """Take in what a processor says of a payment's refunds and disputes: ours are recognised, whatever is known changes nothing. Within a transaction."""
    for refund in snapshot.refunds:
        if not held.take_in(payment, refund):
            _take_in(payment, refund)
    for dispute in snapshot.disputes:
        (disputes.take_in if payment.confirmed else held.contest)(payment, dispute)


def reconcile(limit: int | None = 200, *, not_since: datetime | None = None) -> int:
    """Ask processors about every payment with a refund on its way or an open dispute; how many answered. One that fails stops no other.

    At most `limit` of them, the longest unasked first; with `not_since` only those that were not asked since then.
    """
    answered = 0
    for row in db.rows(_PENDING, limit=limit, before=not_since or clock.now(), silent=list(outages.left_alone())):
        try:
            answered += payments.look_at(row.public_id)
        except Exception:
            log.exception("Payment %s could not be looked up for its refunds.", row.public_id)
    return answered


def _take_in(payment: Payment, found: RefundSnapshot) -> None:
    ours = db.row(_OURS, payment=payment.id, number=found.key.removeprefix("refund:"), reference=found.reference)
    if ours:
        arrive(book.lock(ours.number), found)
    elif found.state != "failed":
        _adopt(payment, found)


def arrive(row: db.Row, found: RefundSnapshot) -> str:
    """Bring a refund to what its processor says; its state after. Old news changes nothing. Within a transaction."""
    if found.amount != Money(row.payout, row.payout_currency):
        log.error("Refund %s: the processor says %s, we asked for %s", row.number, found.amount, Money(row.payout, row.payout_currency))
        return str(row.state)
    if row.state == "approved" and found.state != "failed":
        book.move(row, "sent", actor=row.gateway, reference=found.reference)
    if row.state in {"approved", "sent"} and found.state == "settled":
        _leave(row, book.outward(row.gateway, Money(row.amount, row.currency), found.amount, row.margin), found.reference, row.gateway)
        return "settled"
    if row.state == "approved" and found.state == "pending":
        book.tell(row, "sent")
        return "sent"
    if row.state in {"approved", "sent", "settled"} and found.state == "failed":
        return _come_back(row, found.failure_message)
    return str(row.state)


def _leave(row: db.Row, counter: list[tuple[int, int]], reference: str, actor: str) -> None:
    """The money is gone: out of hold, into what it left by."""
    wallet.pay_out(
        row.customer_id, Money(row.amount, row.currency), reference=f"{row.number}:sent", counter=counter, description=f"Refund {row.number} to {row.method_label}",
        refund_id=row.id, payment_id=row.payment_id, actor=actor,
    )  # fmt: skip
    book.move(row, "settled", actor=actor, reference=reference)
    book.restate(row.payment_id, f"{row.number}: {Money(row.payout, row.payout_currency)} went back.", actor)
    book.tell_settled(row.number)


def _come_back(row: db.Row, why: str) -> str:
    """The processor could not send it, be it weeks after it said it had: back to the balance and to the payment it came from."""
    sent = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:sent")
    if row.state == "settled" and sent is None:
        adopted = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:adopted")
        wallet.forgive(adopted, kind="refund_failed", description=f"Refund {row.number} failed, back on the balance")
        book.move(row, "failed", note=why, actor=row.gateway)
        book.tell(row, "failed", reason=why)
    else:
        if row.state == "settled":
            ledger.reverse(sent, f"{row.number}:returned", description=f"Refund {row.number} came back", actor=row.gateway, kind="refund_failed")
        give_back(row, "failed", why, row.gateway)
    if row.state == "settled":
        book.restate(row.payment_id, f"{row.number} came back: {why}", row.gateway)
    return "failed"


def _adopt(payment: Payment, found: RefundSnapshot) -> None:
    """A refund made at the processor, past us: the money is gone, so the balance gives it, and what it has not is a debt.

    The refund speaks of its own part of the payment; what had been spent of it before a change of currency the balance gives too.
    """
    rows = of_payment(payment.customer_id, payment.id)
    if found.amount.minor + rows[0].payouts > rows[0].received:  # what was asked for cannot go back as well
        decline_unsent(payment.id, GONE)
        rows = of_payment(payment.customer_id, payment.id)
    row, left = next(((row, left) for row in rows if (left := _not_back(row))), (rows[0], 0))
    if not left or found.amount.currency != row.paid_currency or found.amount.minor + row.payouts > row.received:
        log.error("Refund %s of %s needs a person: %s went back, which is more than was left of it.", found.reference, payment.public_id, found.amount)
        return
    amount = Money(min(-(-found.amount.minor * row.credited // max(row.paid, 1)), left), row.currency)
    whole = found.amount.minor + row.paid_out <= row.paid and row.currency == row.account_currency
    taken = amount if whole else taken_by(row, found.amount.minor)
    margin = margin_in(row, taken)
    (refund,) = db.rows(_ADOPT, payment=payment.id, lot=row.lot_id, customer=payment.customer_id, amount=amount.minor, currency=amount.currency, payout=found.amount.minor,
                        payout_currency=found.amount.currency, margin=margin, reference=found.reference, now=clock.now())  # fmt: skip
    wallet.seize(
        payment.customer_id, row.lot_id, taken, reference=f"{refund.number}:adopted", counter=book.outward(payment.gateway, taken, found.amount, margin), kind="refund_sent",
        description=f"Refund {refund.number} to {'its payer' if row.by_another else row.method_label}", payment_id=payment.id,
    )  # fmt: skip
    book.write_step(refund.id, "settled", "Sent back at the processor.", payment.gateway)
    book.restate(payment.id, f"{refund.number}: {found.amount} went back, by the processor's own hand.", payment.gateway)
    book.tell_settled(refund.number)


def _not_back(row: db.Row) -> int:
    """What a source brought and of which no refund speaks, spent or not, in minor units."""
    return int(row.credited - row.on_hold - row.returned - row.moved)


# What waits for a bank that asks about its payment waits quietly.
_DUE = """
select r.number from refunds r join payments p on p.id = r.payment_id where r.state = 'approved' and r.way = 'source' and p.gateway <> all(%(silent)s)
  and (r.attempted_at is not null or not exists (select from disputes d where d.payment_id = r.payment_id and d.state in ('inquiry', 'open')))
order by r.id
"""
_OURS = "select number from refunds where payment_id = %(payment)s and (number = %(number)s or gateway_reference = %(reference)s)"
_PENDING = """
select p.public_id from payments p
where p.checked_at < %(before)s and p.gateway <> all(%(silent)s)
  and (exists (select from refunds r where r.payment_id = p.id and (r.state = 'sent' or r.state = 'approved' and r.attempted_at is not null))
    or exists (select from held h where h.payment_id = p.id and h.state in ('held', 'returning') and h.amount is not null)
    or exists (select from disputes d where d.payment_id = p.id and d.state in ('inquiry', 'open')))
order by p.checked_at limit %(limit)s
"""
_ADOPT = """
with taken as (select nextval(pg_get_serial_sequence('refunds', 'id')) as id)
insert into refunds (id, number, payment_id, lot_id, customer_id, amount, currency, payout, payout_currency, state, margin, gateway_reference,
  attempted_at, requested_at, updated_at)
overriding system value
select id, 'RF-' || lpad(id::text, greatest(6, length(id::text)), '0'), %(payment)s, %(lot)s, %(customer)s, %(amount)s, %(currency)s, %(payout)s, %(payout_currency)s, 'settled', %(margin)s, %(reference)s,
  %(now)s, %(now)s, %(now)s
from taken returning id, number
"""
