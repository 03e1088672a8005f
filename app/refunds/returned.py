"""Transfers that the sender's bank takes back: no dispute that could be won, the money is gone for good."""

import config
from app import customers, db, invoicing, mail, payments, wallet
from app.formats import formats
from app.languages import N_
from app.money import Money
from app.refunds import book
from app.refunds.asking import decline_unsent
from app.refunds.sources import margin_in, of_payment, taken_by

TAKEN = N_("The sender's bank took this transfer back.")


def take_back(payment_id: int, received: Money, *, reference: str, line: tuple[int, int]) -> None:
    """Take the credit of a transfer back that its sender's bank took back: down to nothing, the rest is a debt. Within a transaction.

    `received` is what had come, `line` where it goes. What became of it is taken in the account currency of today, whichever it was credited in.
    Refunds of it that have not left are declined first, and nothing of it can be refunded any more. Its documents stay: what they say was so.
    """
    payments.hold(payment_id)
    row = db.rows(_CREDITED, payment=payment_id)[0]
    customers.hold(row.customer_id)
    invoicing.lock(row.bill_id)  # before the money, as who settles it does
    decline_unsent(payment_id, TAKEN)
    lots = of_payment(row.customer_id, payment_id)
    taken = taken_by(lots[0], received.minor)
    counter = book.exchanged(line, taken, received, margin_in(lots[0], taken))
    wallet.seize(row.customer_id, lots[0].lot_id, taken, reference=reference, counter=counter, kind="reversal", description="Bank transfer taken back", payment_id=payment_id)
    wallet.freeze(payment_id, TAKEN)
    payments.mark_taken_back(payment_id, f"The sender's bank took {received} back.")
    _tell(row, received, taken, reference)


def _tell(row: db.Row, received: Money, taken: Money, reference: str) -> None:
    payer, owed, own = customers.get(row.payer_id), wallet.owed(row.customer_id, taken.currency), not row.by_another
    write, standing = formats(payer.locale, payer.timezone), invoicing.standing(row.bill_id)
    partly = standing.code == "partly_paid"
    page = "/balance" if own else payments.told_at(row.public_id) if payer.guest else f"/invoices/{row.document}"
    mail.inform(
        "transfer_returned", payer.email, locale=payer.locale, key=reference, customer_id=payer.id, name=payer.title or payer.email, number=row.document,
        amount=write.money(received.minor, received.currency), taken=write.money(taken.minor, taken.currency) if own else "", paid_at=write.date(row.paid_at),
        owed=write.money(owed.minor, owed.currency) if own and owed.minor > 0 else "", own=own, service=row.service, open_bill=bool(standing.due) and not partly,
        rest=write.money(standing.due, standing.currency) if partly else "",
        url=config.current().base_url + page,
    )  # fmt: skip
    if not own:
        book.tell_owner(row.customer_id, "taken", key=reference, amount=taken, paid_at=row.paid_at, owed=owed)


_CREDITED = """
select p.customer_id, p.payer_id <> p.customer_id as by_another, p.payer_id, p.public_id, p.paid_at, coalesce(b.invoice_number, b.proforma_number) as document, b.kind = 'service' as service, p.bill_id
from payments p join bills b on b.id = p.bill_id where p.id = %(payment)s
"""
