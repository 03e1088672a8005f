"""Payouts by hand, of refunds and of held money, as the bank's statements tell of them: what has to leave, what left, what came back."""

from collections.abc import Sequence
from dataclasses import dataclass

from app import approvals, clock, db, payments, wallet
from app.gateways.base import RefundSnapshot
from app.money import Money
from app.refunds import book, held, paying
from app.refunds.asking import MOST_WORDS, give_back
from app.refunds.book import RefundError


@dataclass(frozen=True, slots=True)
class Payout:
    """One transfer of ours. `stands` is ``due`` once it is approved, ``left`` when it is gone, else nothing is to be paid."""

    number: str
    amount: Money
    iban: str
    holder: str
    stands: str


def payouts(currency: str) -> list[Payout]:
    """What is approved, has to leave by a transfer in this currency and stands in no file for the bank, the oldest first."""
    return [_payout(row) for row in db.rows(f"{_PAYOUTS} where stands = 'due' and attempted_at is null and currency = %(currency)s order by number", currency=currency)]


def payout(number: str) -> Payout | None:
    """One of them, however it stands."""
    row = db.row(f"{_PAYOUTS} where number = %(number)s", number=number)
    return _payout(row) if row else None


def hold_payouts(numbers: Sequence[str]) -> None:
    """Hold payouts of refunds and of held money before any is moved: all payments, then their customers' money, each in order of id. Within a transaction."""
    payments.hold_many([row.payment_id for row in db.rows(_THEIR_PAYMENTS, numbers=list(numbers))])
    wallet.hold_everything([row.customer_id for row in db.rows(_THEIR_CUSTOMERS, numbers=list(numbers))])


def commission(numbers: Sequence[str], message: str) -> None:
    """Note that payouts stand in a file for the bank, so they can be declined no more. Within a transaction."""
    for number in numbers:
        if number.startswith("RF-"):
            row = book.lock(number)
            db.execute("update refunds set attempted_at = coalesce(attempted_at, %(now)s) where id = %(id)s", id=row.id, now=clock.now())
            book.write_step(row.id, row.state, f"In the payment file {message}", "bank")
        else:
            held.commission(number, message)


def note_payout(number: str, note: str) -> bool:
    """Write what the bank says of a payout into its trail, once; whether it was not there yet. Within a transaction."""
    if not number.startswith("RF-"):
        return held.note_once(number, note)
    row = book.lock(number)
    if db.scalar("select exists (select from refund_events where refund_id = %(id)s and note = %(note)s)", id=row.id, note=note):
        return False
    book.write_step(row.id, row.state, note, "bank")
    return True


def left(number: str, reference: str) -> None:
    """The bank's statement shows that a payout left. Within a transaction."""
    if number.startswith("RF-"):
        paying.paid(book.lock(number), reference, "bank")
    else:
        held.paid(number, reference, "bank")


def refused(number: str, why: str, *, actor: str) -> bool:
    """A person says that the bank did not carry out a payout that was handed to it, so none of it left; whether that counts now.

    Two people have to say so of one that stands in a file for the bank, for it can be paid twice; then the customer has the money again, or
    held money waits again. Opens the transaction. Raises `RefundError` for one that is not with the bank, or without a reason; `NotAllowed`.
    """
    if not why.strip():
        raise RefundError("Write down what the bank said.", "answer")
    with db.transaction():
        if not number.startswith("RF-"):
            return held.refused(number, why.strip()[:MOST_WORDS], actor)
        row = book.lock(number)
        if row.way != "bank" or row.state != "approved" or row.attempted_at is None:
            raise RefundError(f"{number} is not with the bank.", "answer")
        said = approvals.approve("refund.failed", "payout", number, actor=actor, needed=2, payments=[row.payment_id], reason=why.strip()[:MOST_WORDS])
        if said.repeated:
            raise RefundError("You have said so already. A second person must confirm this.", "answer")
        if not said.reached:
            return False
        give_back(row, "failed", f"The bank did not carry it out: {why.strip()[:MOST_WORDS]}", said.by)
        return True


def came_back(number: str, why: str) -> None:
    """The bank's statement shows that a payout came back: its customer has the money again, held money waits again. Within a transaction."""
    found = payout(number)
    if found:
        snapshot = RefundSnapshot("", "failed", found.amount, why)
        paying.arrive(book.lock(number), snapshot) if number.startswith("RF-") else held.arrive(number, snapshot)


def _payout(row: db.Row) -> Payout:
    return Payout(row.number, Money(row.amount, row.currency), row.iban, row.holder, row.stands)


_THEIR_PAYMENTS = """
select payment_id from refunds where number = any(%(numbers)s) union select payment_id from held where number = any(%(numbers)s)
"""
_THEIR_CUSTOMERS = "select distinct customer_id from refunds where number = any(%(numbers)s)"
_PAYOUTS = """
select number, amount, currency, iban, holder, stands from (
  select number, attempted_at, payout as amount, payout_currency as currency, iban, holder, case state when 'approved' then 'due' when 'settled' then 'left' else '' end as stands
  from refunds r where way = 'bank'
    and (state <> 'approved' or not exists (select from disputes d where d.payment_id = r.payment_id and d.state in ('inquiry', 'open')))
  union all
  select number, attempted_at, amount, currency, iban, holder, case state when 'returning' then 'due' when 'returned' then 'left' else '' end from held where way = 'bank' and amount is not null
) p
"""
