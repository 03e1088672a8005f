"""Transfers that the sender's bank takes back: no dispute that could be won, the money is gone for good."""

from app import customers, db, ledger, mail, payments, wallet
from app.formats import formats
from app.languages import N_
from app.money import Money
from app.refunds import book
from app.refunds.asking import give_back

TAKEN = N_("The sender's bank took this transfer back.")


def take_back(payment_id: int, received: Money, *, reference: str, counter: list[tuple[int, int]]) -> None:
    """Take the credit of a transfer back that its sender's bank took back: down to nothing, the rest is a debt. Within a transaction.

    `received` is what had come, `counter` where it goes, in its currency. Refunds of it that have not left are declined first, and nothing of
    it can be refunded any more. Its documents stay: what they say was so.
    """
    payments.hold(payment_id)
    row = db.rows(_CREDITED, payment=payment_id)[0]
    for refund in db.rows(_UNSENT, payment=payment_id):
        give_back(book.lock(refund.number), "declined", TAKEN, "system")
    credited = Money(row.credited, row.credited_currency)
    if credited.currency != received.currency:
        counter = [*counter, (ledger.account("fx", credited.currency), credited.minor), (ledger.account("fx", received.currency), -received.minor)]
    wallet.seize(row.customer_id, row.lot_id, credited, reference=reference, counter=counter, kind="reversal", description="Bank transfer taken back", payment_id=payment_id)
    wallet.freeze(row.lot_id, TAKEN)
    payments.mark_taken_back(payment_id, f"The sender's bank took {received} back.")
    _tell(row, received, credited, reference)


def _tell(row: db.Row, received: Money, credited: Money, reference: str) -> None:
    customer = customers.get(row.customer_id)
    write, owed = formats(customer.locale, customer.timezone), wallet.owed(customer.id, credited.currency)
    if row.by_another:
        book.tell_owner(customer.id, "taken", key=reference, amount=credited, paid_at=row.paid_at, owed=owed)
        return
    mail.inform(
        "transfer_returned", customer.email, locale=customer.locale, key=reference, customer_id=customer.id, name=customer.title or customer.email, number=row.document,
        amount=write.money(received.minor, received.currency), taken=write.money(credited.minor, credited.currency), paid_at=write.date(row.paid_at),
        owed=write.money(owed.minor, owed.currency) if owed.minor > 0 else "", service=row.service, open_bill=row.status == "unpaid",
    )  # fmt: skip


_CREDITED = """
select p.customer_id, p.payer_id <> p.customer_id as by_another, p.credited, p.credited_currency, p.paid_at, l.id as lot_id, coalesce(b.invoice_number, b.proforma_number) as document, b.kind = 'service' as service, b.status
from payments p join lots l on l.payment_id = p.id and l.kind = 'payment' join bills b on b.id = p.bill_id where p.id = %(payment)s
"""
_UNSENT = "select number from refunds where payment_id = %(payment)s and state in ('requested', 'approved') and attempted_at is null"
