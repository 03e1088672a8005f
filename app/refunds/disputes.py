"""Disputes: the payer's bank takes a payment back, and sometimes gives it back to us.

The money is gone the moment a dispute opens, so the balance gives what it has, the payment's own lot first, and the rest is a debt. While a
debt is open nothing renews by itself and nothing is refunded; the next top-up settles it before anything else.

An inquiry comes before a dispute, or instead of one: the bank only asks. It moves no money; what is left of the payment waits until it is
answered. Every step is kept with its time, and who said so.
"""

import logging
from collections.abc import Mapping

import config
from app import approvals, clock, customers, db, ledger, mail, payments, wallet
from app.formats import formats
from app.gateways.base import DisputeSnapshot
from app.languages import N_
from app.money import Money
from app.payments import Payment
from app.refunds import book
from app.refunds.asking import decline_unsent
from app.refunds.book import RefundError
from app.refunds.sources import margin_in, of_payment, taken_by

log = logging.getLogger(__name__)

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("fraudulent", "unrecognized", "unauthorised"), N_("the payer does not recognise it")),
    "debit not authorized": N_("the payer did not allow the debit"),
    **dict.fromkeys(("duplicate", "duplicate transaction"), N_("it was charged twice")),
    **dict.fromkeys(("product not received", "merchandise or service not received"), N_("what was paid for did not arrive")),
    **dict.fromkeys(("product unacceptable", "merchandise or service not as described"), N_("what was paid for is not as described")),
    **dict.fromkeys(("subscription canceled", "canceled recurring billing"), N_("it was cancelled before")),
    "incorrect amount": N_("the amount is not right"),
    "payment by other means": N_("it was paid another way"),
    "credit not processed": N_("a refund did not arrive"),
    "insufficient funds": N_("the account had not enough money"),
    "incorrect account details": N_("the details of the account are not right"),
}
"""What processors call the reasons of banks, in words; of any other a history keeps what the processor said, and a mail says nothing."""

DISPUTED = N_("The payment is disputed with its bank, so it cannot go back twice.")
FROZEN = "The payment is disputed with its bank."
INQUIRED = "The payer's bank asks about this payment. Nothing of it goes back until that is answered."
GONE = "The payer's bank took this payment back."

OWNERS_NEWS = {"open": "taken", "won": "won"}
"""What the owner of a balance is told of the dispute of a payment by somebody else: what moves the balance."""


def open_dispute(public_id: str, amount: Money, *, reference: str, reason: str) -> None:
    """The payer's bank took a payment back: the balance gives what it has, the rest is a debt, and the payment cannot be refunded.

    `amount` is in the currency paid, `reference` the processor's; the same reference again changes nothing. Opens the transaction. Raises `RefundError`.
    """
    with db.transaction():
        owner = db.row("select id, customer_id from payments where public_id = %(public_id)s for no key update", public_id=public_id)
        rows = of_payment(owner.customer_id, owner.id) if owner else []
        if not rows:
            raise RefundError("There is no such payment.")
        _open(rows[0], amount, reference, reason)


def win_dispute(reference: str) -> None:
    """The bank gave the payment back to us: everything the dispute took is restored. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        _win(_held(reference))


def lose_dispute(reference: str) -> None:
    """The bank decided for the payer: what the dispute took stays taken. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        _lose(_held(reference))


def take_by_hand(reference: str, minor: int, *, actor: str) -> Money:
    """Take so much (minor units of the currency paid) for a dispute that did not fit its payment and waits; what is taken. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        payments.hold(db.scalar("select payment_id from disputes where gateway_reference = %(reference)s", reference=reference) or 0)
        dispute = db.row(_DISPUTE, reference=reference)
        if dispute is None or dispute.state != "inquiry":
            raise RefundError(f"No dispute {reference} waits.")
        row = of_payment(dispute.customer_id, dispute.payment_id)[0]
        amount = Money(minor, row.paid_currency)
        person = approvals.decide("dispute.take", reference, actor=actor, payments=[dispute.payment_id], details={"amount": amount})
        _open(row, amount, reference, dispute.reason, person.name)
        return amount


def take_in(payment: Payment, found: DisputeSnapshot) -> None:
    """Bring a dispute to what its processor says of it; old news changes nothing. Within a transaction, the payment held."""
    row = of_payment(payment.customer_id, payment.id)[0]
    begin = _inquire if found.state in ("inquiry", "closed") else _open
    try:
        begin(row, found.amount, found.reference, found.reason)
    except RefundError as error:
        log.error("Dispute %s of %s needs a person: %s", found.reference, payment.public_id, error)  # noqa: TRY400 - the sentence says it all
        _leave_to_a_person(row, found)
        return
    for reference, fee in found.fees:
        _book_fee(payment, reference, fee)
    standing = db.rows(_DISPUTE, reference=found.reference)[0]
    # A lost one may still be won on appeal; won is the end. An inquiry that is closed ends no dispute.
    if found.state == "won" and standing.state != "won":
        _win(standing)
    elif found.state == "lost" and standing.state == "open":
        _lose(standing)
    elif found.state == "closed" and standing.state == "inquiry":
        _end_inquiry(standing)


def _leave_to_a_person(row: db.Row, found: DisputeSnapshot) -> None:
    """A dispute in another currency than was paid, or of more than came: it takes nothing by itself, and nothing of the payment goes back until somebody looked at it.

    What other disputes of the payment took already is the same money under another name.
    """
    if found.amount.currency == row.paid_currency and found.amount.minor <= row.received:
        return
    if found.state not in ("won", "closed"):
        _ask(row, found.amount, found.reference, found.reason, f"The payer's bank took {found.amount}, which does not fit this payment. A person looks at it.")
        return
    waiting = db.row(_DISPUTE, reference=found.reference)
    if waiting and waiting.state == "inquiry":
        _end_inquiry(waiting)


def _inquire(row: db.Row, amount: Money, reference: str, reason: str) -> None:
    """The bank asks. Refunds that have not left stay on hold, so that their money is there should it take it."""
    _refuse(row, amount)
    _ask(row, amount, reference, reason, f"The payer's bank asks about {amount}{_because(reason)}.")


def _ask(row: db.Row, amount: Money, reference: str, reason: str, note: str) -> None:
    if not db.execute(_INQUIRE, now=clock.now(), **_facts(row, amount, reference, reason)):
        return
    dispute = db.rows(_DISPUTE, reference=reference)[0]
    _thaw(dispute)
    _tell_step(dispute, "inquiry", note)


def _end_inquiry(dispute: db.Row) -> None:
    _close(dispute, "closed")
    _thaw(dispute)
    _tell_step(dispute, "closed", "The bank's question is answered; no money was taken.")


def _refuse(row: db.Row, amount: Money) -> None:
    if amount.currency != row.paid_currency or not 0 < amount.minor <= row.received:
        raise RefundError(f"{amount} cannot be disputed of a payment of {Money(row.received, row.paid_currency)}.")


def _facts(row: db.Row, amount: Money, reference: str, reason: str) -> dict[str, object]:
    return {"payment": row.payment_id, "customer": row.customer_id, "reference": reference, "amount": amount.minor, "currency": amount.currency, "reason": reason[:200]}


def _book_fee(payment: Payment, reference: str, fee: Money) -> None:
    """What the processor keeps for its work on a dispute, or gives back of it, once. It is the house's own: nobody is charged for it."""
    lines = [(ledger.account("gateway", fee.currency, key=payment.gateway), fee.minor), (ledger.account("fees", fee.currency, key=payment.gateway), -fee.minor)]
    ledger.post(f"{payment.gateway}:{reference}:fee", "fee", lines, description="Processor's fee of a dispute", payment_id=payment.id)


def _open(row: db.Row, amount: Money, reference: str, reason: str, actor: str = "") -> None:
    if db.scalar("select state in ('open', 'won', 'lost') from disputes where gateway_reference = %(reference)s", reference=reference):
        return
    _refuse(row, amount)
    facts, taken = _facts(row, amount, reference, reason), taken_by(row, amount.minor)
    if amount.minor > row.received - row.disputed:
        raise RefundError(f"{amount} cannot be disputed: of {Money(row.received, row.paid_currency)} other disputes took {Money(row.disputed, row.paid_currency)}.")
    if not db.execute(_OPEN, taken=taken.minor, now=clock.now(), **facts):
        return
    decline_unsent(row.payment_id, DISPUTED)
    wallet.seize(
        row.customer_id, row.lot_id, taken, reference=f"dispute:{reference}", counter=book.outward(row.gateway, taken, amount, margin_in(row, taken)),
        payment_id=row.payment_id, description=f"Dispute of the payment by {'somebody else' if row.by_another else row.method_label}",
    )  # fmt: skip
    wallet.freeze(row.payment_id, FROZEN)
    before = f" {Money(row.paid_out, row.paid_currency)} of it had gone back already." if row.paid_out else ""
    _tell_step(db.rows(_DISPUTE, reference=reference)[0], "open", f"The payer's bank took {amount} back{_because(reason)}.{before}", actor)


def _because(reason: str) -> str:
    return f": {REASONS.get(reason.lower(), reason)}" if reason else ""


def _win(dispute: db.Row) -> None:
    _close(dispute, "won")
    taken = db.scalar("select id from transfers where reference = %(reference)s", reference=f"dispute:{dispute.reference}")
    wallet.forgive(taken, kind="dispute_won", description="Dispute decided for you")
    _thaw(dispute)
    _tell_step(dispute, "won", "The dispute was decided for the customer's account.")


def _lose(dispute: db.Row) -> None:
    _close(dispute, "lost")
    _thaw(dispute)
    _tell_step(dispute, "lost", "The dispute was decided for the payer.")


def _held(reference: str) -> db.Row:
    """An open dispute, its payment locked before it."""
    payments.hold(db.scalar("select payment_id from disputes where gateway_reference = %(reference)s", reference=reference) or 0)
    dispute = db.row(_DISPUTE, reference=reference)
    if dispute is None or dispute.state != "open":
        raise RefundError(f"No dispute {reference} is open.")
    return dispute


def _close(dispute: db.Row, state: str) -> None:
    db.execute("update disputes set state = %(state)s, closed_at = %(now)s where id = %(id)s", id=dispute.id, state=state, now=clock.now())


def _thaw(dispute: db.Row) -> None:
    """Let what no dispute took go back again: a payment disputed in part keeps the rest."""
    left = db.rows(_LEFT, payment=dispute.payment_id)[0]
    wallet.freeze(dispute.payment_id, FROZEN if left.open else INQUIRED if left.inquiry else GONE if left.lost >= left.paid else None)


def _tell_step(dispute: db.Row, state: str, note: str, actor: str = "") -> None:
    """Write a step into the dispute's history and the payment's, and to the customer."""
    db.execute(_STEP, id=dispute.id, now=clock.now(), state=state, note=note, actor=actor or dispute.gateway)
    book.restate(dispute.payment_id, note, actor or dispute.gateway)
    owed = wallet.owed(dispute.customer_id, dispute.account_currency)
    _tell_payer(dispute, _MAILED.get(state, state), owed)
    if dispute.by_another and state in OWNERS_NEWS:
        taken = Money(dispute.taken, dispute.taken_currency)
        book.tell_owner(dispute.customer_id, OWNERS_NEWS[state], key=f"dispute:{dispute.reference}:{state}", amount=taken, paid_at=dispute.paid_at, owed=owed)


def _tell_payer(dispute: db.Row, state: str, owed: Money) -> None:
    """Write to whose bank it is; of a balance that is somebody else's it reads nothing. Within a transaction."""
    payer, own = customers.get(dispute.payer_id), not dispute.by_another
    write = formats(payer.locale, payer.timezone)
    page = "/balance" if own else payments.told_at(dispute.public_id) if payer.guest else f"/invoices/{dispute.document}"
    mail.inform(
        "dispute_step", payer.email, locale=payer.locale, key=f"dispute:{dispute.reference}:{state}", customer_id=payer.id, name=payer.title or payer.email,
        state=state, own=own, url=config.current().base_url + page,
        method=dispute.method_label,
        number=dispute.document, amount=write.money(dispute.amount, dispute.currency), taken=write.money(dispute.taken, dispute.taken_currency) if own else "",
        owed=write.money(owed.minor, owed.currency) if own and owed.minor > 0 else "", reason=REASONS.get(dispute.reason.lower(), ""),
    )  # fmt: skip


_MAILED = {"open": "opened"}
_INQUIRE = """
insert into disputes (payment_id, customer_id, gateway_reference, amount, currency, state, reason, opened_at)
values (%(payment)s, %(customer)s, %(reference)s, %(amount)s, %(currency)s, 'inquiry', %(reason)s, %(now)s)
on conflict (gateway_reference) do nothing
"""
_OPEN = """
insert into disputes (payment_id, customer_id, gateway_reference, amount, currency, taken, state, reason, opened_at)
values (%(payment)s, %(customer)s, %(reference)s, %(amount)s, %(currency)s, %(taken)s, 'open', %(reason)s, %(now)s)
on conflict (gateway_reference) do update set state = 'open', amount = excluded.amount, currency = excluded.currency, taken = excluded.taken, reason = excluded.reason, closed_at = null
where disputes.state in ('inquiry', 'closed') and disputes.payment_id = excluded.payment_id
"""
_STEP = "insert into dispute_events (dispute_id, at, state, note, actor) values (%(id)s, %(now)s, %(state)s, %(note)s, %(actor)s)"
_DISPUTE = """
select d.id, d.payment_id, d.customer_id, d.gateway_reference as reference, d.amount, d.currency, d.taken, d.state, d.reason, p.gateway, p.method_label,
  p.payer_id <> d.customer_id as by_another, p.payer_id, p.public_id, p.paid_at,
  c.currency as account_currency, coalesce(b.invoice_number, b.proforma_number) as document,
  coalesce((select e.currency from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id
    where t.reference = 'dispute:' || d.gateway_reference and a.kind in ('wallet', 'debt') limit 1), c.currency) as taken_currency
from disputes d join payments p on p.id = d.payment_id join bills b on b.id = p.bill_id join customers c on c.id = d.customer_id
where d.gateway_reference = %(reference)s
"""
_LEFT = """
select coalesce(bool_or(d.state = 'open'), false) as open, coalesce(bool_or(d.state = 'inquiry'), false) as inquiry, coalesce(sum(d.amount) filter (where d.state = 'lost'), 0) as lost, p.received as paid
from payments p left join disputes d on d.payment_id = p.id where p.id = %(payment)s group by p.id
"""
