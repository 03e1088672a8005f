"""Transfers of ours: written into a file for the bank, closed by the line that shows they left, undone by the line that shows they came back.

Refunds and held money that go to an account by hand, and what lies in suspense and goes back to whoever sent it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import config
from app import approvals, audit, clock, db, payments, refunds
from app.bank import doubts, known, pain
from app.bank.reasons import CAME_BACK, UNKNOWN_DEBIT, Reason, about_payout
from app.bank.statements import compact
from app.money import Money
from app.refunds import Payout

SHORTEST_NAME = 2
_NUMBER = re.compile(r"\b(RF|HM|BR)[\s-]?(\d{6,10})\b")
_MESSAGE = re.compile(r"\b(?:TEST-)?PAY-\d{8}-\d{4}\b")


TEST = "TEST-"
"""How the name of a file begins that pays nothing."""


class PayoutError(ValueError):
    """What was asked cannot be done, as a sentence; `field` names the form's field it is about."""

    def __init__(self, sentence: str, field: str = "reason", code: str = "") -> None:
        super().__init__(sentence)
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class File:
    """A file for the bank: its name there, how many transfers, their sum, and its bytes."""

    message: str
    account: str
    count: int
    total: Money
    content: bytes

    @property
    def test(self) -> bool:
        """Whether it was written by a test and pays nothing."""
        return self.message.startswith(TEST)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of money on its way back to its sender."""

    state: str
    note: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Return:
    """Money of a line in suspense that goes back to its sender; `steps` name who wanted and who approved it, `file` the payment file it stands in."""

    number: str
    state: str
    iban: str
    holder: str
    file: str
    steps: Sequence[Step]

    @property
    def approvals(self) -> set[str]:
        """The people who want it."""
        return {step.actor for step in self.steps if step.state in {"requested", "approved"}}


# The file


def export(currency: str) -> File | None:
    """Write every approved payout of a currency that stands in no file yet into one; None when there is none. Opens the transaction."""
    account = config.current().bank_account(currency)
    if account is None:
        raise PayoutError(f"We have no bank account in {currency}.")
    with db.transaction():
        db.rows("select pg_advisory_xact_lock(hashtextextended('bank payouts', 0))")
        orders = [pain.Order(due.number, due.amount, due.iban, due.holder, account.holder) for due in _due(currency)]
        if not orders:
            return None
        real = bool(config.live(config.current()))
        _refuse_other_money([order.number for order in orders], real=real)
        written = db.scalar("select count(*) from bank_payout_files")
        message = f"{'' if real else TEST}PAY-{clock.today():%Y%m%d}-{written + 1:04d}"
        total = sum(order.amount.minor for order in orders)
        content = pain.write(message, clock.now(), account, orders)
        file = db.rows(_FILE, message=message, account=account.number, currency=currency, count=len(orders), total=total, content=content.decode(), now=clock.now())[0]
        db.many("insert into bank_payouts (file_id, number, amount) values (%(file)s, %(number)s, %(amount)s)",
                [{"file": file.id, "number": order.number, "amount": order.amount.minor} for order in orders])  # fmt: skip
        refunds.hold_payouts([order.number for order in orders])
        refunds.commission([order.number for order in orders if not order.number.startswith("BR-")], message)
        audit.record("payout.file", "payout_file", message, details={"count": len(orders), "total": Money(total, currency)})
        return File(message, account.number, len(orders), Money(total, currency), content)


def _refuse_other_money(numbers: Sequence[str], *, real: bool) -> None:
    """Refuse test money in a file for the bank, and real money in a test's; the database does, too."""
    wrong = [row.number for row in db.rows(_OTHER_MONEY, numbers=list(numbers), other="test" if real else "live")]
    if wrong and real:
        raise PayoutError(f"{', '.join(wrong)}: this is test money, which no bank may be asked to pay. Take the tests out first: flask --app wsgi demo remove.")
    if wrong:
        raise PayoutError(f"{', '.join(wrong)}: this is real money, and the settings here are those of a test. Write the file where the site is live.")


def again(message: str) -> File:
    """A file that was written before, byte for byte. Raises PayoutError."""
    if message.startswith(TEST) and config.live(config.current()):
        raise PayoutError(f"{message} is a file of a test: no bank may have it.")
    row = db.row("select message, account, count, total, currency, content from bank_payout_files where message = %(message)s", message=message)
    if row is None:
        raise PayoutError(f"There is no payment file {message}.")
    return File(row.message, row.account, row.count, Money(row.total, row.currency), row.content.encode())


def _due(currency: str) -> Iterator[Payout]:
    """What stands in no file for the bank yet: what came back and is sent once more does not."""
    yield from refunds.payouts(currency)
    yield from (_of_return(row) for row in db.rows(f"{_RETURNS} r where state = 'approved' and currency = %(currency)s and {_IN_NO_FILE} order by id", currency=currency))


def _of_return(row: db.Row) -> Payout:
    stands = {"approved": "due", "settled": "left"}.get(row.state, "")
    return Payout(row.number, Money(row.amount, row.currency), row.iban, row.holder, stands)


def _find(number: str) -> Payout | None:
    if not number.startswith("BR-"):
        return refunds.payout(number)
    row = db.row(f"{_RETURNS} where number = %(number)s", number=number)
    return _of_return(row) if row else None


# What the statements tell of them


def close(line_id: int) -> Reason | None:
    """Close the payout, or the file of them, that a debit of the account is; else why it is none. Within a transaction."""
    line = db.rows(_LINE, id=line_id)[0]
    for number in _numbers(line):
        found = _find(number)
        if found:
            noted = found.stands == "left" and not db.scalar("select exists (select from bank_lines where payout = %(number)s and rule = 'payout')", number=number)
            wrong = _mismatch(line, found, "left" if noted else "due")
            if wrong is None:
                _leave(line, [found], noted=noted)
            return wrong
    for message in _MESSAGE.findall(line.text):
        numbers = [row.number for row in db.rows(_OF_FILE, message=message, total=-line.amount, currency=line.currency)]
        all_of_it = [found for number in numbers for found in [_find(number)] if found and found.stands == "due"]
        if all_of_it and len(all_of_it) == len(numbers):
            _leave(line, all_of_it)
            return None
    return UNKNOWN_DEBIT


def come_back(line_id: int) -> Reason | None:
    """Undo the payout that a credit of the account brings back; else why it waits. Within a transaction."""
    line = db.rows(_LINE, id=line_id)[0]
    for number in _numbers(line):
        found = _find(number)
        if found is None:
            continue
        if found.stands == "due":
            return CAME_BACK
        wrong = _mismatch(line, found, "left")
        if wrong:
            return wrong
        if number.startswith("BR-"):
            _step(number, "failed", "It came back.", "bank")
            return about_payout("payout_came_back", number)
        refunds.came_back(number, "The bank sent it back to us.")
        _book(line.id, number, "payout came back")
        return None
    return CAME_BACK


def reject(number: str, message: str, why: str) -> str:
    """Undo a payout of a file that the bank rejected; else the sentence why nothing was done. Within a transaction."""
    found = _find(number)
    if found is None or found.stands != "due" or _newest_file(number) != message:
        return f"{number} {'has left' if found and found.stands == 'left' else 'was not to be paid any more'}."
    if number.startswith("BR-"):
        _step(number, "failed", f"The bank rejected it: {why}", "bank")
    else:
        refunds.came_back(number, f"The bank rejected it: {why}")
    audit.record("payout.reject", "payout", number, reason=why, details={"file": message})
    return ""


def note_accepted(number: str, message: str) -> str:
    """Note that the bank accepted a payout, once; else the sentence why not. Within a transaction."""
    found = _find(number)
    if found is None or found.stands != "due":
        return f"{number} does not wait for the bank."
    ours = number.startswith("BR-")
    done = db.execute(_ACCEPTED, number=number, note=message, now=clock.now()) if ours else refunds.note_payout(number, f"The bank accepted {message}.")
    return "" if done else f"{number} was accepted before."


def stands(number: str, message: str) -> str:
    """How a payout of its newest file stands: due, left or undone; nothing for an older file."""
    found = _find(number)
    if found is None or _newest_file(number) != message:
        return ""
    return found.stands or "undone"


def refused(number: str, why: str, *, actor: str) -> None:
    """The bank did not carry out money that was to go back to its sender, after it had said
    otherwise: it waits in suspense again. Another person than who asked the bank has to say so.

    Opens the transaction. Raises PayoutError.
    """
    if not why.strip():
        raise PayoutError("Write down what the bank said.", "reason")
    with db.transaction():
        known.lock()
        if not number.startswith("BR-"):
            raise PayoutError(f"Refunds and held money have pages of their own: see {number} there.")
        found = _held(number, "approved")
        said = why.strip()[:400]
        person = approvals.decide(
            "payout.refuse",
            number,
            actor=actor,
            customers=doubts.concerned([found.line_id]),
            reason=said,
        )
        asked = [row.actor for row in db.rows(_ASKED, number=number)]
        if not asked:
            raise PayoutError(f"The bank has said nothing against {number} that a person looked at.")
        if person.name in asked:
            raise PayoutError("You asked the bank. Another person has to confirm it.")
        _step(number, "failed", f"The bank did not carry it out: {said}", person.name)


def whose(number: str) -> tuple[list[int], list[int]]:
    """Whom a payout is about: the customers whom the line concerns that goes back, and its
    payment. Reads only."""
    line = db.scalar("select line_id from bank_returns where number = %(number)s", number=number)
    if line is not None:
        return doubts.concerned([line]), []
    return [], [row.payment_id for row in db.rows(_PAYMENT, number=number)]


_PAYMENT = """
select payment_id from refunds where number = %(number)s
union
select payment_id from held where number = %(number)s
"""


def _newest_file(number: str) -> str:
    return str(db.scalar("select f.message from bank_payouts p join bank_payout_files f on f.id = p.file_id where p.number = %(number)s order by f.id desc limit 1", number=number))


def _numbers(line: db.Row) -> Iterator[str]:
    return (f"{kind}-{digits}" for kind, digits in _NUMBER.findall(line.text.upper()))


def named(text: str) -> frozenset[str]:
    """The payouts that a text names, one by one or by the file they stand in. Reads only."""
    numbers = {f"{kind}-{digits}" for kind, digits in _NUMBER.findall(text.upper())}
    for message in _MESSAGE.findall(text):
        numbers |= {
            row.number for row in db.rows("select p.number from bank_payouts p join bank_payout_files f on f.id = p.file_id where f.message = %(message)s", message=message)
        }
    return frozenset(numbers)


def _mismatch(line: db.Row, found: Payout, stands: str) -> Reason | None:
    if found.amount != Money(abs(line.amount), line.currency):
        return about_payout("payout_amount_differs", found.number, found.amount)
    if line.sender_account and line.sender_account != compact(found.iban):
        return about_payout("payout_account_differs", found.number)
    if found.stands != stands:
        left = found.stands == "left"
        return about_payout("payout_left_before" if left else "payout_not_due", found.number)
    return None


def _leave(line: db.Row, paid: Sequence[Payout], *, noted: bool = False) -> None:
    """Close payouts by the line they left by, all held before the first; `noted` where a person had said so before."""
    if not noted:
        refunds.hold_payouts([payout.number for payout in paid])
    reference = line.bank_reference or line.end_to_end or f"line {line.id}"
    for payout in () if noted else paid:
        if payout.number.startswith("BR-"):
            _step(payout.number, "settled", f"Bank's reference {reference}", "bank")
            db.execute(_SENT_BACK, number=payout.number, own=line.id)
        else:
            refunds.left(payout.number, reference)
        audit.record("payout.confirm", "payout", payout.number, reason=f"Bank's reference {reference}")
    _book(line.id, " ".join(payout.number for payout in paid), "payout")


def _book(line_id: int, number: str, rule: str) -> None:
    db.execute(
        "update bank_lines set state = 'booked', reason_code = '', reason_values = '{}', rule = %(rule)s, payout = %(number)s where id = %(id)s",
        id=line_id,
        rule=rule,
        number=number,
    )


# Back to whoever sent it


def send_back(line_id: int, iban: str, holder: str, *, actor: str, reason: str) -> str:
    """Ask that a line in suspense goes back to its sender; its number. Another person has to approve it.

    Where the bank says which account sent it, to no other, unless the bank sent it back from there.
    Opens the transaction. Raises PayoutError.
    """
    number, name = _back_to(line_id, iban, holder)
    if not reason.strip():
        raise PayoutError("Say why.", "reason")
    with db.transaction():
        known.lock()
        line = db.row("select amount, currency, kind, state from bank_lines where id = %(id)s for no key update", id=line_id)
        if line is None or line.state != "suspense" or line.kind != "credit":
            raise PayoutError("This money does not wait any more.")
        if standing(line_id):
            raise PayoutError("It is on its way back already.")
        if doubts.of(line_id):
            raise PayoutError("It may be money that is booked already. Say first whether it is.")
        person = approvals.decide("bank.return", line_id, actor=actor, customers=doubts.concerned([line_id]), reason=reason.strip()[:500])
        approvals.withdraw("bank_line", line_id)
        made = db.rows(_SEND_BACK, line=line_id, amount=line.amount, currency=line.currency, iban=number, holder=name, reason=reason.strip()[:500], now=clock.now())[0]
        approvals.count_in("bank_return", made.number, "approve", person, reason.strip()[:500])
        _step(made.number, "requested", reason.strip()[:500], person.name)
        return str(made.number)


def approve(number: str, *, actor: str) -> None:
    """The second voice for money that goes back. Opens the transaction. Raises PayoutError."""
    with db.transaction():
        found = _held(number, "requested")
        said = approvals.approve("bank.approve", "bank_return", number, actor=actor, needed=2, customers=doubts.concerned([found.line_id]))
        if said.repeated:
            raise PayoutError("You asked for it. Another person has to approve it.")
        _step(number, "approved", "", said.by)


def withdraw(number: str, *, actor: str, reason: str) -> None:
    """Take the wish back, while it stands in no file for the bank; the money waits again. Opens the transaction. Raises PayoutError."""
    if not reason.strip():
        raise PayoutError("Say why.", "reason")
    with db.transaction():
        found = _held(number, "requested", "approved")
        if db.scalar("select exists (select from bank_payouts where number = %(number)s)", number=number):
            raise PayoutError(f"{number} stands in a file for the bank.")
        person = approvals.decide("bank.withdraw", number, actor=actor, customers=doubts.concerned([found.line_id]), reason=reason.strip()[:500])
        approvals.withdraw("bank_return", number)
        _step(number, "withdrawn", reason.strip()[:500], person.name)


def standing(line_id: int) -> Return | None:
    """How the money of a line goes back, if it does or did."""
    row = db.row(_STANDING, line=line_id)
    if row is None:
        return None
    steps = db.rows("select state, note, actor, at from bank_return_steps where return_id = %(id)s order by id", id=row.id)
    return Return(row.number, row.state, row.iban, row.holder, row.file or "", [Step(*step) for step in steps])


def _back_to(line_id: int, iban: str, holder: str) -> tuple[str, str]:
    """The account a line goes back to, and its holder."""
    row = db.row(_SENDER, line=line_id)
    if row is None or row.tried:
        return _account(iban, holder)
    sender = payments.Sender(row.sender, row.iban)
    if not sender.is_meant(iban):
        raise PayoutError(sender.refusal, "iban", code=payments.NOT_THE_SENDER)
    name = sender.holder(holder)
    if len(name) < SHORTEST_NAME:
        raise PayoutError("Enter the name of the account's holder.", "holder")
    return sender.iban, name


def _held(number: str, *states: str) -> db.Row:
    row = db.row(f"{_RETURNS} where number = %(number)s for no key update", number=number)
    if row is None or row.state not in states:
        raise PayoutError(f"{number} does not wait for this.")
    return row


def _step(number: str, state: str, note: str, actor: str) -> None:
    db.execute("update bank_returns set state = %(state)s, updated_at = %(now)s where number = %(number)s", number=number, state=state, now=clock.now())
    db.execute(_STEP, number=number, state=state, note=note, actor=actor, now=clock.now())


def _account(iban: str, holder: str) -> tuple[str, str]:
    try:
        return refunds.checked_account(iban, holder)
    except refunds.RefundError as wrong:
        raise PayoutError(str(wrong), wrong.field) from None


_OTHER_MONEY = "select number from unnest(%(numbers)s::text[]) as number where payout_origin(number) = %(other)s"
_FILE = """
insert into bank_payout_files (message, account, currency, count, total, content, created_at)
values (%(message)s, %(account)s, %(currency)s, %(count)s, %(total)s, %(content)s, %(now)s) returning id
"""
_OF_FILE = """
select p.number from bank_payouts p join bank_payout_files f on f.id = p.file_id where f.message = %(message)s and f.total = %(total)s and f.currency = %(currency)s order by p.number
"""
_LINE = """
select id, amount, currency, bank_reference, end_to_end, sender_account, concat_ws(' ', end_to_end, structured, remittance) as text from bank_lines where id = %(id)s
"""
_RETURNS = "select id, number, line_id, amount, currency, iban, holder, state from bank_returns"
_STANDING = """
select r.id, r.number, r.state, r.iban, r.holder, f.message as file
from bank_returns r left join bank_payouts p on p.number = r.number left join bank_payout_files f on f.id = p.file_id
where r.line_id = %(line)s and r.state in ('requested', 'approved', 'settled') order by r.id desc
"""
_IN_NO_FILE = "not exists (select from bank_payouts p where p.number = r.number)"
_SEND_BACK = """
with taken as (select nextval(pg_get_serial_sequence('bank_returns', 'id')) as id)
insert into bank_returns (id, number, line_id, amount, currency, iban, holder, reason, requested_at, updated_at)
overriding system value
select id, 'BR-' || lpad(id::text, 6, '0'), %(line)s, %(amount)s, %(currency)s, %(iban)s, %(holder)s, %(reason)s, %(now)s, %(now)s from taken returning number
"""
_SENDER = """
select l.sender, l.sender_account as iban, exists (
  select from bank_returns r
  where r.line_id = l.id
    and r.iban = l.sender_account
    and r.state = 'failed'
) as tried
from bank_lines l
where l.id = %(line)s
  and is_iban(l.sender_account)
"""
_STEP = """
insert into bank_return_steps (return_id, state, note, actor, at)
select id, %(state)s, %(note)s, %(actor)s, %(now)s from bank_returns where number = %(number)s
"""
_ACCEPTED = """
insert into bank_return_steps (return_id, state, note, actor, at)
select r.id, 'accepted', %(note)s, 'bank', %(now)s from bank_returns r
where r.number = %(number)s and not exists (select from bank_return_steps s where s.return_id = r.id and s.state = 'accepted' and s.note = %(note)s)
"""
_ASKED = """
select actor
from bank_payout_statuses
where number = %(number)s
  and contradiction <> ''
  and looked_at is not null
"""
_SENT_BACK = """
update bank_lines set state = 'booked', rule = 'sent back', returned_by = %(own)s where id = (select line_id from bank_returns where number = %(number)s)
"""
