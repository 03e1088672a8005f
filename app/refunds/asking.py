"""Asking for money back, and support's answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from stdnum import iban as ibans
from stdnum.exceptions import ValidationError

import config
from app import approvals, clock, customers, db, payments, wallet
from app.money import Money
from app.refunds import book
from app.refunds.book import RefundError
from app.refunds.sources import ANOTHERS, Source, margin_of, of_payment, payout_of, source, source_for_support, waits_until

DAILY = 3
"""Requests of one customer within a day."""
MOST_WORDS = 500
SHORTEST_NAME, LONGEST_NAME = 2, 70
"""Characters of the name of an account's holder."""
QUIET = timedelta(hours=72)
"""How long no refund can be asked for after the password or the e-mail address changed."""
HASTE = "The password or the e-mail address of this account was changed. So that nobody else can take its money out, refunds wait for three days."


def request(customer_id: int, public_id: str, amount: Money, reason: str, *, iban: str = "", holder: str = "") -> str:
    """Ask for money of a payment back: it is on hold from now on; the refund's number. Opens the transaction. Raises `RefundError`.

    The same request again while it is open is the same refund. `iban` and `holder` are needed where the money cannot go back the way it came.
    """
    with _enough(public_id), db.transaction():
        row = _own_payment(customer_id, public_id)
        if row.by_another:
            raise RefundError(ANOTHERS, "payment")
        if standing := _standing(row, amount):
            return standing
        found = source(row)
        account = _account(found, iban, holder)
        _refuse(found, amount)
        _refuse_haste(customer_id)
        number = _open(row, found, amount, reason, f"customer:{customer_id}", account)
        if _unused(row, found, amount):
            _approve_itself(number)
        return number


def open_by_support(public_id: str, amount: Money, reason: str, *, actor: str) -> str:
    """Open the refund of any customer's payment, of somebody else's for it too; the refund's number. Opens the transaction. Raises `RefundError`.

    It goes only the way the payment came, never to a named account, and is approved like any other. It waits for no `quiet_until`: the reason stands for that.
    """
    if not reason.strip():
        raise RefundError("Write down why.", "reason")
    with _enough(public_id), db.transaction():
        row = _own_payment(db.scalar("select customer_id from payments where public_id = %(public_id)s", public_id=public_id), public_id)
        if standing := _standing(row, amount):
            return standing
        found = source_for_support(row)
        _refuse(found, amount)
        person = approvals.decide(
            "refund.open",
            public_id,
            actor=actor,
            payments=[row.payment_id],
            reason=reason.strip()[:MOST_WORDS],
            details={"amount": amount},
        )
        return _open(row, found, amount, reason.strip(), person.name)


@contextmanager
def _enough(public_id: str) -> Iterator[None]:
    """A sum that was spent since it was looked at is refused with what is left, like any other."""
    try:
        yield
    except wallet.InsufficientFunds:
        left = max((Money(row.remaining, row.currency) for row in db.rows(_LEFT, public_id=public_id)), default=None)
        says = f"Some of it was spent just now: at most {left} of this payment can be refunded." if left else "It was spent just now: nothing of this payment is left."
        raise RefundError(says) from None


def _unused(row: db.Row, found: Source, amount: Money) -> bool:
    """Whether all of a payment is asked for, nothing of it used, soon enough and by a way that one person may approve."""
    soon = row.paid_at + timedelta(days=config.current().refund_unused_days) > clock.now()
    return bool(soon and row.continues is None and row.remaining == row.credited == amount.minor and approvals_needed(found.way, amount) == 1)


def _approve_itself(number: str) -> None:
    row = book.lock(number)
    approvals.approve_itself("refund", number, "approve")
    book.move(row, "approved", note="Nothing of it was used, and it was asked for in time.", actor="system")
    book.tell(row, "approved")


def _standing(row: db.Row, amount: Money) -> str:
    """The number of the refund that asks for the same already, or nothing."""
    standing = db.row(_OPEN, payment=row.payment_id)
    return str(standing.number) if standing and (standing.amount, standing.currency) == (amount.minor, amount.currency) else ""


def _open(row: db.Row, found: Source, amount: Money, reason: str, actor: str, account: tuple[str | None, str | None] = (None, None)) -> str:
    payout = payout_of(row, amount.minor)
    if payout <= 0:
        raise RefundError("This amount is too small to be sent back.")
    (refund,) = db.rows(_REQUEST, payment=row.payment_id, lot=row.lot_id, customer=row.customer_id, amount=amount.minor, currency=amount.currency, payout=payout,
                        payout_currency=row.paid_currency, reason=reason[:MOST_WORDS], way=found.way, iban=account[0], holder=account[1], margin=margin_of(row, amount.minor),
                        needed=approvals_needed(found.way, amount), now=clock.now())  # fmt: skip
    wallet.hold(
        row.customer_id, row.lot_id, amount, reference=f"{refund.number}:hold", description=f"Refund {refund.number} requested",
        actor=actor, refund_id=refund.id, payment_id=row.payment_id,
    )  # fmt: skip
    book.write_step(refund.id, "requested", reason[:MOST_WORDS], actor)
    book.tell(book.lock(refund.number), "requested")
    return str(refund.number)


def approve(number: str, *, actor: str, note: str = "") -> str:
    """Approve a requested refund; its state then: still ``requested`` while another person has to approve it too. Opens the transaction. Raises `RefundError`."""
    with db.transaction():
        row = book.lock(number)
        book.require(row, "requested")
        if row.disputed:
            raise RefundError("The payment is disputed: it cannot go back twice.", "answer")
        if opens_at := waits_until(row):
            raise RefundError(f"Its bank can still take the payment back. It can be refunded from {opens_at:%Y-%m-%d} on.", "answer")
        said = _voice(row, actor, note)
        if not said.reached:
            limited = f". {approvals.ALONE}" if said.limited else ""
            book.write_step(row.id, "requested", f"Approved by one of {said.needed} people{limited}", said.by)
            return "requested"
        book.move(row, "approved", note=note, actor=said.by)
        book.tell(row, "approved", answer=note)
        return "approved"


def _voice(row: db.Row, actor: str, note: str) -> approvals.Outcome:
    """Count one more person in, and keep how many it takes: never fewer than were needed before."""
    said = approvals.approve(
        "refund.approve",
        "refund",
        row.number,
        actor=actor,
        needed=row.approvals_needed,
        amount=Money(row.amount, row.currency),
        payments=[row.payment_id],
        reason=note,
    )
    if said.repeated:
        raise RefundError("You have approved it already. Another person has to approve it too.", "answer")
    db.execute("update refunds set approvals_needed = greatest(approvals_needed, %(needed)s) where id = %(id)s", needed=min(said.needed, 2), id=row.id)
    return said


def decline(number: str, *, actor: str, answer: str) -> None:
    """Decline a requested refund with a reason, and give the money back to the balance. Opens the transaction. Raises `RefundError`."""
    if not answer.strip():
        raise RefundError("Tell the customer why.", "answer")
    with db.transaction():
        row = book.lock(number)
        if row.state != "approved" or row.attempted_at is not None:
            book.require(row, "requested")
        person = approvals.decide("refund.decline", number, actor=actor, payments=[row.payment_id], reason=answer.strip()[:MOST_WORDS])
        approvals.withdraw("refund", number)
        give_back(row, "declined", answer.strip()[:MOST_WORDS], person.name, answered=True)


def withdraw(customer_id: int, number: str) -> bool:
    """Withdraw a customer's own request while nobody has decided it; whether there is one of that number. Opens the transaction.

    The money is back on the balance. Raises `RefundError` for what is decided already, and for what support opened.
    """
    with db.transaction():
        row = book.lock(number) if db.scalar(_IS_OWN, number=number, customer=customer_id) else None
        if row is None:
            return False
        if row.state == "withdrawn":
            return True
        if row.state != "requested" or not row.opener.startswith("customer:"):
            raise RefundError(f"{number} can no longer be withdrawn: it is {row.state}.", "payment")
        approvals.withdraw("refund", number)
        return_to_balance(row, "withdrawn", "", f"customer:{customer_id}")
        book.tell(row, "withdrawn")
        return True


_IS_OWN = "select true from refunds where number = %(number)s and customer_id = %(customer)s"


def decline_unsent(payment_id: int, why: str) -> None:
    """Decline the refunds of a payment that have not left, because its money went another way. Within a transaction, the payment held."""
    for refund in db.rows(_UNSENT, payment=payment_id):
        give_back(book.lock(refund.number), "declined", why, "system")


def give_back(row: db.Row, state: str, note: str, actor: str, *, answered: bool = False) -> None:
    """Give held money back to the balance and to the payment it came from; a debt has the first claim on it.

    `answered` says that the note is a person's own words. Within a transaction.
    """
    return_to_balance(row, state, note, actor)
    book.tell(row, state, answer=note if answered else "", reason="" if answered else note)


def return_to_balance(row: db.Row, state: str, note: str, actor: str) -> None:
    """`give_back` without a word to anybody. Within a transaction."""
    held = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:hold")
    wallet.release(held, f"{row.number}:{state}", description=f"Refund {row.number} {state}, back on the balance", actor=actor)
    wallet.settle_debts(row.customer_id, row.currency, cause=f"{row.number}:{state}", payment_id=row.payment_id)
    book.move(row, state, note=note, actor=actor)


def quiet_until(customer_id: int) -> datetime | None:
    """Until when a customer can ask for no refund, because who logs in, or how, has just changed."""
    changed_at = customers.credentials_changed_at(customer_id)
    return changed_at + QUIET if changed_at and changed_at + QUIET > clock.now() else None


def _own_payment(customer_id: int | None, public_id: str) -> db.Row:
    """The payment, held, and the customer with it: requests of one customer are counted one after the other."""
    payment_id = db.scalar("select id from payments where public_id = %(public_id)s and customer_id = %(customer)s for no key update", public_id=public_id, customer=customer_id)
    rows = of_payment(customer_id, payment_id) if customer_id and payment_id else []
    if not rows:
        raise RefundError("There is no such payment.", "payment")
    return next((row for row in rows if row.remaining), rows[0])


def _refuse(found: Source, amount: Money) -> None:
    if found.open_number:
        raise RefundError(f"{found.open_number} of this payment is still open. It has to come to an end first.", "payment")
    if found.reason:
        raise RefundError(found.reason, "payment")
    if amount.minor <= 0:
        raise RefundError("Enter more than zero.")
    if amount.minor > found.refundable.minor or amount.currency != found.refundable.currency:
        raise RefundError(f"At most {found.refundable} of this payment can be refunded.")


def _refuse_haste(customer_id: int) -> None:
    if until := quiet_until(customer_id):
        raise RefundError(f"{HASTE} It is possible from {until:%Y-%m-%dT%H:%MZ} on.", "payment")
    since = clock.now() - timedelta(days=1)
    if db.scalar("select count(*) from refunds where customer_id = %(id)s and requested_at > %(since)s", id=customer_id, since=since) >= DAILY:
        raise RefundError(f"You can ask for {DAILY} refunds a day. Try again tomorrow.", "payment")


def _account(found: Source, iban: str, holder: str) -> tuple[str | None, str | None]:
    """The account money goes to where it cannot go back the way it came: of a bank transfer the
    one it came from."""
    if found.way == "source" or found.reason:
        return None, None
    if found.account:
        return to_sender(found.account, iban, holder)
    return checked_account(iban, holder)


def to_sender(sender: payments.Sender, iban: str, holder: str) -> tuple[str, str]:
    """The account that sent the money, with its holder. Raises `RefundError` for another one."""
    if not sender.is_meant(iban):
        raise RefundError(sender.refusal, "iban", code=payments.NOT_THE_SENDER)
    name = sender.holder(holder)
    if len(name) < SHORTEST_NAME:
        raise RefundError("Enter the name of the account's holder.", "holder")
    return sender.iban, name


def checked_account(iban: str, holder: str) -> tuple[str, str]:
    """An account for a payout by hand as it is written down: IBAN and holder. Raises `RefundError` with the field."""
    try:
        number = ibans.validate(iban)
    except ValidationError:
        raise RefundError("This is not a valid IBAN. Check every letter and digit.", "iban") from None
    name = " ".join(holder.split())
    if not SHORTEST_NAME <= len(name) <= LONGEST_NAME:
        raise RefundError("Enter the name of the account's holder.", "holder")
    return number, name


def approvals_needed(way: str, amount: Money) -> int:
    """Two people for a payout by hand and above the limit: the set share of the largest top-up of the currency; else one."""
    return 2 if way == "bank" else approvals.needed(amount)


_OPEN = """
select number, amount, currency from refunds r where payment_id = %(payment)s and (state = 'requested'
  or state in ('approved', 'sent') and exists (select from approvals a where a.subject = 'refund' and a.subject_id = r.number and a.actor = 'system'))
"""
_UNSENT = "select number from refunds where payment_id = %(payment)s and state in ('requested', 'approved') and attempted_at is null"
_REQUEST = """
with taken as (select nextval(pg_get_serial_sequence('refunds', 'id')) as id)
insert into refunds (id, number, payment_id, lot_id, customer_id, amount, currency, payout, payout_currency, reason, way, iban, holder,
  margin, approvals_needed, requested_at, updated_at)
overriding system value
select id, 'RF-' || lpad(id::text, greatest(6, length(id::text)), '0'), %(payment)s, %(lot)s, %(customer)s, %(amount)s, %(currency)s, %(payout)s, %(payout_currency)s, %(reason)s, %(way)s, %(iban)s,
  %(holder)s, %(margin)s, %(needed)s, %(now)s, %(now)s
from taken returning id, number
"""
_LEFT = """
select l.remaining, l.currency
from lots l
join payments p on p.id = l.payment_id
where p.public_id = %(public_id)s and l.remaining > 0
"""
