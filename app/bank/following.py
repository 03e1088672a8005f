"""What becomes of lines that are no plain credit: a transfer taken back, a payout of ours that left or came back.

Each in a transaction of its own, behind the lines that were booked and credited: it holds a payment, then its customer, then the money, as every other
verb does, and a file's credits hold all their money at once.
"""

import logging
from dataclasses import dataclass

import psycopg

from app import db, ledger, payments, refunds
from app.bank import known, payouts, reasons
from app.bank.reasons import CAME_BACK, ORIGINAL_NOT_FOUND, TO_FOLLOW, Reason
from app.money import Money

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a line: returned, payout, or suspense with the reason."""

    line_id: int
    fate: str
    why: Reason | None = None


def follow_all() -> list[Followed]:
    """Follow every line that is due for it, those of earlier files whose other half may have come, too. Opens a transaction for each."""
    return [_apart(line_id) for line_id in due()]


def due() -> list[int]:
    """Lines to follow: what left before what came back. A line that may be told twice is none."""
    return [row.id for row in db.rows(_DUE, follow=TO_FOLLOW.code, back=CAME_BACK.code)]


def follow(line_id: int) -> Followed:
    """Book a line off as what it is, or say why it waits. Within a transaction, behind `known.lock`."""
    line = db.rows("select kind, state from bank_lines where id = %(id)s", id=line_id)[0]
    if line.state != "suspense":
        return Followed(line_id, line.state)
    if line.kind == "return":
        why = None if _take_back(line_id) else ORIGINAL_NOT_FOUND
        fate = "returned"
    else:
        why = payouts.close(line_id) if line.kind == "debit" else payouts.come_back(line_id)
        fate = "payout"
    if why:
        reasons.write([(line_id, why)])
    return Followed(line_id, "suspense" if why else fate, why)


def _apart(line_id: int) -> Followed:
    """One line in its own transaction; one that fails waits with what was wrong and stops no other."""
    try:
        with db.transaction():
            known.lock()
            return follow(line_id)
    except psycopg.OperationalError:
        raise
    except Exception:
        log.exception("Line %s could not be booked off.", line_id)
        why = reasons.NOT_CLASSIFIED
        with db.transaction():
            reasons.write([(line_id, why)])
        return Followed(line_id, "suspense", why)


def _take_back(line_id: int) -> bool:
    """A transfer was taken back: so is its credit; False when the transfer is not in the books."""
    original = db.row(_ORIGINAL, id=line_id)
    if original is None:
        return False
    received = Money(original.amount, original.currency)
    if original.state == "matched":
        suspense = ledger.account("suspense", received.currency, key=payments.SUSPENSE)
        parts = [(part.payment_id, part.amount) for part in db.rows(_PARTS, id=original.id)]
        rest = received.minor - sum(minor for _, minor in parts)
        # In the order of their payments, as everybody holds them.
        for payment_id, minor in sorted([(original.payment_id, rest), *parts]):
            own = "" if payment_id == original.payment_id else f":{payment_id}"
            refunds.take_back(payment_id, Money(minor, received.currency), reference=f"bank:{line_id}:return{own}", line=(suspense, minor))
    db.execute("update bank_lines set state = %(state)s, returned_by = %(own)s where id = %(id)s", state="returned" if original.state == "matched" else "booked",
               own=line_id, id=original.id)  # fmt: skip
    db.execute(_MARK_RETURN, customer=original.customer_id, bill=original.bill_id, payment=original.payment_id, id=line_id)
    return True


_PARTS = "select payment_id, amount from bank_line_parts where line_id = %(id)s"
_DUE = """
select id from bank_lines l
where state = 'suspense' and (reason_code in (%(follow)s, %(back)s) or kind = 'return')
  and not exists (select from bank_doubts d join bank_doubt_lines w on w.doubt_id = d.id where w.line_id = l.id and w.waits and d.state = 'open')
order by amount > 0, id
"""
_MARK_RETURN = """
update bank_lines set state = 'booked', rule = 'return', reason_code = '', reason_values = '{}', customer_id = %(customer)s, bill_id = %(bill)s, payment_id = %(payment)s where id = %(id)s
"""
# The newest transfer of this amount that the return names: by the payer's reference, by the bank's, or by sender and text.
_ORIGINAL = """
select l.id, l.state, l.amount, l.currency, l.customer_id, l.bill_id, l.payment_id
from bank_lines r join bank_lines l on l.account = r.account and l.amount = -r.amount and l.id <> r.id
where r.id = %(id)s and l.kind = 'credit' and l.state in ('matched', 'suspense') and l.returned_by is null
  and ((r.end_to_end <> '' and l.end_to_end = r.end_to_end) or (r.bank_reference <> '' and l.bank_reference = r.bank_reference)
    or (r.structured <> '' and l.structured = r.structured) or (r.sender_account <> '' and l.sender_account = r.sender_account and r.remittance <> '' and l.remittance = r.remittance))
order by l.id desc limit 1
"""
