"""Money that came and could not be credited by itself: listed, and let out by a person, to the customer or back to whoever paid.

It lies in `suspense` until then. Each decision has a reason and a name; a second person confirms it above the limit and for every payout by
hand, and a different decision starts the count anew. News that touches no money of ours can only be put aside.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import approvals, clock, db, fx, gateways, ledger, payments
from app.gateways.base import DisputeSnapshot, Gateway, GatewayError, NotNow, RefundSnapshot, Refused, UnreadableAnswer
from app.money import AmountError, Money
from app.payments import Payment, outages
from app.refunds import book
from app.refunds.asking import MOST_WORDS, approvals_needed, checked_account, to_sender
from app.refunds.book import RefundError, Step
from app.refunds.sources import PRETEND

log = logging.getLogger(__name__)

DECISIONS = ("credit", "return", "dismiss")


@dataclass(frozen=True, slots=True)
class Held:
    """One sum that is held, or news without money of ours (`amount` None). `decision` is what the people in `approvals` want done with it.

    `in_file`: it goes to an account and stands in a file for the bank.
    """

    id: int
    number: str
    public_id: str
    gateway: str
    gateway_reference: str
    method_label: str
    document: str
    owner: str
    by_another: bool
    asked: Money
    amount: Money | None
    reason: str
    held_at: datetime
    state: str
    decision: str
    way: str
    iban: str
    holder: str
    detour: str
    in_file: bool
    hindrance: str
    approvals_needed: int
    approvals: Sequence[str]
    steps: Sequence[Step]
    customer_id: int


_ROW = """
select h.id, h.number, h.payment_id, h.transfer_id, h.amount, h.currency, h.reason, h.held_at, h.state, h.decision, h.way, h.iban, h.holder, h.approvals_needed, h.tries, h.hindrance,
  h.send_key, h.attempted_at, h.gateway_reference as sent_reference, p.public_id, p.gateway, p.gateway_reference, p.method, p.method_label, p.amount as asked,
  p.currency as asked_currency, p.payer_id, p.customer_id, p.created_at, coalesce(b.invoice_number, b.proforma_number) as document,
  (select login from users u where u.customer_id = p.customer_id order by u.id limit 1) as owner,
  exists (select from held_events e where e.held_id = h.id and e.state = 'failed') as refused,
  (select coalesce(array_agg(a.actor order by a.id), '{}') from approvals a where a.subject = 'held' and a.subject_id = h.number and a.withdrawn_at is null) as approvals,
  (select jsonb_agg(jsonb_build_array(e.state, e.at, e.note, e.actor) order by e.id) from held_events e where e.held_id = h.id) as steps
from held h join payments p on p.id = h.payment_id join bills b on b.id = p.bill_id
"""
_WAITING = ("held", "returning")
_OVER = ("credited", "returned", "dismissed")


def held_money(*, over: bool = False, before: int | None = None) -> list[Held]:
    """What waits for a person, the longest waiting first; with `over` what was decided, newest first, `PAGE` and one more from below the id `before`."""
    states = _OVER if over else _WAITING
    order = "order by h.id desc limit %(limit)s" if over else "order by h.id"
    return [_held(row) for row in db.rows(f"{_ROW}where h.state = any(%(states)s) and (%(before)s::bigint is null or h.id < %(before)s) {order}",
                                          states=list(states), before=before, limit=book.PAGE + 1)]  # fmt: skip


def held_case(number: str) -> Held | None:
    """One of them as its person sees it, or None."""
    row = db.row(f"{_ROW}where h.number = %(number)s", number=number)
    return _held(row) if row else None


def _held(row: db.Row) -> Held:
    steps = [Step(state, datetime.fromisoformat(at), note, actor) for state, at, note, actor in row.steps]
    return Held(
        row.id, row.number, row.public_id, row.gateway, row.gateway_reference or "", row.method_label, row.document, row.owner or "", row.payer_id != row.customer_id,
        Money(row.asked, row.asked_currency), _money(row), row.reason, row.held_at, row.state, row.decision or "", row.way, row.iban or "", row.holder or "", _detour(row),
        row.way == "bank" and row.attempted_at is not None, row.hindrance, row.approvals_needed, row.approvals, steps, row.customer_id,
    )  # fmt: skip


def _money(row: db.Row) -> Money | None:
    return Money(row.amount, row.currency) if row.amount else None


def _detour(row: db.Row) -> str:
    """Why this money cannot go back the way it came, or nothing."""
    if row.gateway == PRETEND:
        return ""
    days = gateways.way_back(row.gateway, row.method).days
    if not days:
        return f"{row.method_label} cannot send money back where it came from, so it goes to an account its payer names."
    if row.created_at + timedelta(days=days) < clock.now():
        return f"{row.method_label} takes money back for {days} days, which are over."
    return "The processor could not send it back." if row.refused else ""


def release(number: str, decision: str, *, actor: str, reason: str, iban: str = "", holder: str = "") -> str:
    """Decide what becomes of held money: ``credit`` it, ``return`` it, or ``dismiss`` news without money; its state then.

    Still ``held`` while another person has to confirm the same decision; ``returning`` until it really left. Opens the transaction. Raises `RefundError`.
    """
    if decision not in DECISIONS:
        raise RefundError("Choose what is to be done.", "decision")
    if not reason.strip():
        raise RefundError("Write down why.", "reason")
    with db.transaction():
        row = _lock(number)
        if row.state != "held":
            raise RefundError(f"{number} is {row.state} already.", "decision")
        if (row.amount is None) != (decision == "dismiss"):
            raise RefundError("No money came with it, so it can only be put aside." if row.amount is None else "Money cannot be put aside: credit it or send it back.", "decision")
        wait = gateways.way_back(row.gateway, row.method).wait
        opens_at = row.held_at + timedelta(days=wait)
        if decision == "return" and wait and opens_at > clock.now():
            raise RefundError(f"Its bank can still take the payment back. It can be sent back from {opens_at:%Y-%m-%d} on.", "decision")
        row, said = _agree(row, decision, actor, reason.strip()[:MOST_WORDS], *_account(row, decision, iban, holder))
        limited = f" {approvals.ALONE}" if said.limited else ""
        _step(row.id, "held", f"{_WANTS[decision]}: {reason.strip()[:MOST_WORDS]}{limited}", said.by)
        return _DO[decision](row, said.by) if said.reached else "held"


_WANTS = {"credit": "Credit it", "return": "Send it back", "dismiss": "Put it aside"}


def _needed(row: db.Row, way: str) -> int:
    return approvals_needed(way, Money(row.amount, row.currency)) if row.amount else 1


def _account(row: db.Row, decision: str, iban: str, holder: str) -> tuple[str, str | None, str | None]:
    """By which way it goes, and to which account: one that is named only where there is no way back. What the first person named stands for the second."""
    if decision != "return" or not _detour(row):
        if decision == "return" and iban.strip():
            raise RefundError("It goes back the way it came: leave the account empty.", "iban")
        return "source", None, None
    if row.decision == "return" and row.iban and not iban.strip():
        return "bank", row.iban, row.holder
    sender = None if row.refused else payments.sender_of(row.payment_id)
    return "bank", *(to_sender(sender, iban, holder) if sender else checked_account(iban, holder))


def _agree(row: db.Row, decision: str, actor: str, reason: str, way: str, iban: str | None, holder: str | None) -> tuple[db.Row, approvals.Outcome]:
    """Count this person in. Another decision than the one before, or another account, begins anew."""
    said = approvals.approve(
        f"held.{decision}",
        "held",
        row.number,
        actor=actor,
        needed=_needed(row, way),
        amount=_money(row),
        terms="|".join(part for part in (way, iban, holder) if part),
        payments=[row.payment_id],
        reason=reason,
    )
    if said.repeated:
        raise RefundError("You have decided so already. Another person has to confirm it.", "decision")
    db.execute(_DECIDE, id=row.id, decision=decision, way=way, iban=iban, holder=holder, needed=said.needed, now=clock.now())
    return _lock(row.number), said


_DECIDE = """
update held set decision = %(decision)s, way = %(way)s, iban = %(iban)s, holder = %(holder)s, approvals_needed = %(needed)s, updated_at = %(now)s where id = %(id)s
"""


def _credit(row: db.Row, actor: str) -> str:
    try:
        payments.credit_held(row.payment_id, Money(row.amount, row.currency), row.number)
    except (fx.RateUnavailable, AmountError) as unavailable:
        raise RefundError(f"It cannot be converted now: {unavailable}", "decision") from None
    except payments.NotPayable as refused:
        raise RefundError(str(refused), "decision") from None
    _move(row, "credited", "", actor)
    return "credited"


def credit_waiting() -> int:
    """Credit the held money that waited for an exchange rate alone and that nobody has decided about, now that there is one; how many. Opens a transaction for each."""
    done = 0
    for waiting in db.rows(_WITHOUT_RATE):
        try:
            with db.transaction():
                row = _lock(waiting.number)
                if row.state == "held" and row.decision is None:
                    db.execute(_DECIDE, id=row.id, decision="credit", way="source", iban=None, holder=None, needed=1, now=clock.now())
                    approvals.approve_itself("held", row.number, "credit")
                    payments.credit_held(row.payment_id, Money(row.amount, row.currency), row.number)
                    _move(row, "credited", "There is an exchange rate again.", "system")
                    done += 1
        except (fx.RateUnavailable, AmountError):
            continue  # it waits on
        except payments.NotPayable as refused:
            log.warning("Held money %s was not credited: %s", waiting.number, refused)
    return done


_WITHOUT_RATE = """
select number
from held
where state = 'held'
  and cause = 'no_rate'
  and decision is null
  and amount is not null
order by id
"""


def _begin_return(row: db.Row, actor: str) -> str:
    db.execute("update held set tries = tries + 1, send_key = %(key)s, attempted_at = null where id = %(id)s", id=row.id, key=f"refund:{row.number}-{row.tries + 1}")
    _move(row, "returning", "", actor)
    return "returning"


def _dismiss(row: db.Row, actor: str) -> str:
    _move(row, "dismissed", "", actor)
    payments.end_review(row.payment_id, "dismissed", "Looked at and closed: no money of it came to us.", actor)
    _tell(row, "dismissed")
    return "dismissed"


_DO = {"credit": _credit, "return": _begin_return, "dismiss": _dismiss}


def send_back(number: str) -> str:
    """Send held money back by its processor, once that is decided; its state after. Again from anywhere it sends nothing twice, by its own key.

    Two transactions with the processor's call between. Raises `RefundError`, or `GatewayError` when the processor gave no answer or a setting of ours bars it: ask again.
    """
    with db.transaction():
        row = _lock(number)
        if row.state == "returned" or row.way == "bank":
            return str(row.state)
        if row.state != "returning":
            raise RefundError(f"{number} is {row.state}: nothing of it goes back.")
        gateway = gateways.get(row.gateway)
        if gateway is None:
            raise RefundError(f"{row.gateway} is not configured, so nothing can be sent back by it.")
        outages.refuse_left_alone(row.gateway)
        db.execute("update held set attempted_at = coalesce(attempted_at, %(now)s), hindrance = '' where id = %(id)s", id=row.id, now=clock.now())
    money = Money(row.amount, row.currency)
    try:
        found = _found_before(gateway, row) or _sent_by(gateway, row, money)
    except Refused as error:
        found = RefundSnapshot("", "failed", money, str(error), row.send_key)
    except (NotNow, UnreadableAnswer) as error:
        with db.transaction():
            db.execute("update held set hindrance = %(why)s where id = %(id)s and state = 'returning'", id=row.id, why=error.detail[:500])
        raise
    with db.transaction():
        outages.note_found(row.gateway, number)
        return _arrive(_lock(number), found)


def _found_before(gateway: Gateway, row: db.Row) -> RefundSnapshot | None:
    if row.attempted_at is None:
        return None
    with outages.asking(row.gateway, "lookup", row.number):
        snapshot = gateway.lookup(row.gateway_reference)
    return next((found for found in snapshot.refunds if found.key == row.send_key), None) if snapshot else None


def _sent_by(gateway: Gateway, row: db.Row, money: Money) -> RefundSnapshot:
    with outages.asking(row.gateway, "refund", row.number):
        return gateway.refund(row.gateway_reference, money, row.send_key)


def send_back_due() -> int:
    """Send back all held money that was decided to go; how many left. One that fails is logged, tried again on the next turn and stops no other."""
    sent = 0
    for row in db.rows("select number from held where state = 'returning' and way = 'source' order by id"):
        try:
            sent += send_back(row.number) == "returned"
        except (GatewayError, RefundError) as error:
            log.warning("Held money %s was not sent back: %s", row.number, getattr(error, "detail", error))
    return sent


def mark_returned(number: str, *, reference: str, actor: str) -> None:
    """Note that held money has left by hand, under the bank's reference. Opens the transaction. Raises `RefundError`."""
    if not reference.strip():
        raise RefundError("Enter the bank's reference of the transfer.", "reference")
    with db.transaction():
        row = _lock(number)
        person = approvals.decide("held.paid", number, actor=actor, payments=[row.payment_id], reason=f"Bank's reference {reference.strip()[:70]}")
        paid(number, reference.strip(), person.name)


def paid(number: str, reference: str, actor: str) -> None:
    """Held money has left by hand. Raises `RefundError` for what was not to be paid so. Within a transaction."""
    row = _lock(number)
    if row.way != "bank" or row.state != "returning":
        raise RefundError(f"{number} is {row.state}: it is not waiting to be paid by hand.", "reference")
    _leave(row, ledger.account("suspense", row.currency, key=payments.SUSPENSE), f"Bank's reference {reference[:70]}", reference[:70], actor)


def refused(number: str, why: str, actor: str) -> bool:
    """A person says that the bank did not carry a payout by hand out: the money waits for a decision again; whether it does.

    Two people have to say so of one that stands in a file for the bank. Raises `RefundError` for none that is under way. Within a transaction.
    """
    row = _lock(number)
    if row.way != "bank" or row.state != "returning":
        raise RefundError(f"{number} is not with the bank.", "reference")
    said = approvals.approve(
        "held.failed",
        "payout",
        number,
        actor=actor,
        needed=2 if row.attempted_at else 1,
        terms=str(row.tries),
        payments=[row.payment_id],
        reason=why,
    )
    if said.repeated:
        raise RefundError("You have said so already. A second person must confirm this.", "reason")
    if not said.reached:
        return False
    _step(row.id, "failed", f"The bank did not carry it out: {why}", said.by)
    _wait_again(row, "It could not be sent back; a person looks at it again.", said.by)
    return True


def commission(number: str, message: str) -> None:
    """Note that money to be sent back stands in a file for the bank. Within a transaction."""
    row = _lock(number)
    db.execute("update held set attempted_at = coalesce(attempted_at, %(now)s) where id = %(id)s", id=row.id, now=clock.now())
    _step(row.id, row.state, f"In the payment file {message}", "bank")


def note_once(number: str, note: str) -> bool:
    """Write a sentence into the trail, unless it stands there; whether it did not. Within a transaction."""
    row = _lock(number)
    if db.scalar("select exists (select from held_events where held_id = %(id)s and note = %(note)s)", id=row.id, note=note):
        return False
    _step(row.id, row.state, note, "bank")
    return True


def arrive(number: str, found: RefundSnapshot) -> None:
    """Bring money that is on its way back to what is said of it. Within a transaction."""
    _arrive(_lock(number), found)


def take_in(payment: Payment, found: RefundSnapshot) -> bool:
    """Take in what a processor says of a refund, where it is one of held money; whether it was. Within a transaction, the payment held."""
    row = db.row(f"{_ROW}where h.payment_id = %(payment)s and (h.send_key = %(key)s or h.gateway_reference = %(reference)s)",
                 payment=payment.id, key=found.key or None, reference=found.reference or None)  # fmt: skip
    if row:
        _arrive(_lock(row.number), found)
    elif not payment.confirmed and found.state == "settled":
        _gone(payment, found.amount, found.reference, "Sent back at the processor.")
    return row is not None or not payment.confirmed


def contest(payment: Payment, found: DisputeSnapshot) -> None:
    """A dispute of money that was never credited: the bank took it, so it is gone; won, it is held again. Within a transaction, the payment held."""
    taken = db.row("select h.number, t.id from held h join transfers t on t.reference = h.number || ':gone:' || %(reference)s where h.payment_id = %(payment)s",
                   payment=payment.id, reference=found.reference)  # fmt: skip
    if found.state in ("open", "lost") and taken is None:
        _gone(payment, found.amount, found.reference, "The payer's bank took it back.")
    elif found.state == "won" and taken is not None and not db.scalar("select exists (select from transfers where reverses = %(id)s)", id=taken.id):
        row = _lock(taken.number)
        ledger.reverse(taken.id, f"{row.number}:back:{found.reference}", description="The payer's bank gave it back to us", actor=payment.gateway, kind="dispute_won")
        _wait_again(row, "The payer's bank gave it back to us.", payment.gateway)


def _gone(payment: Payment, amount: Money, reference: str, why: str) -> None:
    """Held money that left without us, whole: it is returned, whatever was decided."""
    row = db.row(f"{_ROW}where h.payment_id = %(payment)s and h.state in ('held', 'returning') and h.amount = %(amount)s and h.currency = %(currency)s",
                 payment=payment.id, amount=amount.minor, currency=amount.currency)  # fmt: skip
    if row is None:
        log.error("%s of %s left at the processor, and no such sum is held.", amount, payment.public_id)
        return
    row = _lock(row.number)
    gateway = ledger.account("gateway", amount.currency, key=payment.gateway)
    ledger.post(f"{row.number}:gone:{reference}", "refund_sent", [(ledger.account("suspense", amount.currency), -amount.minor), (gateway, amount.minor)], description=why,
                actor=payment.gateway, payment_id=payment.id)  # fmt: skip
    _end_return(row, why, reference, payment.gateway)


def _arrive(row: db.Row, found: RefundSnapshot) -> str:
    """Bring money that is on its way back to what its processor says; its state after. Old news changes nothing. Within a transaction."""
    if found.amount != Money(row.amount, row.currency):
        log.error("Held money %s: the processor says %s, we asked for %s", row.number, found.amount, Money(row.amount, row.currency))
    elif row.state == "returning" and found.state == "settled":
        _leave(row, ledger.account("gateway", row.currency, key=row.gateway), "", found.reference, row.gateway)
        return "returned"
    elif row.state in ("returning", "returned") and found.state == "failed":
        if row.state == "returned":
            sent, back = _left_by(row, found)
            ledger.reverse(sent, back, description="Money sent back came back", actor=row.gateway, kind="refund_failed")
            _tell(row, "back")
        _step(row.id, "failed", found.failure_message or "The processor could not send it.", row.gateway)
        _wait_again(row, "It could not be sent back; a person looks at it again.", row.gateway)
        return "held"
    return str(row.state)


def _left_by(row: db.Row, found: RefundSnapshot) -> tuple[int, str]:
    """The transfer by which it left, past us or by ours, and the reference under which it comes back."""
    past_us = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:gone:{found.reference}")
    if past_us:
        return int(past_us), f"{row.number}:back:{found.reference}"
    sent: int = db.scalar("select id from transfers where reference = %(reference)s", reference=f"{row.number}:sent:{row.tries}")
    return sent, f"{row.number}:back:{row.tries}"


def _leave(row: db.Row, account: int, note: str, reference: str, actor: str) -> None:
    lines = [(ledger.account("suspense", row.currency), -row.amount), (account, row.amount)]
    ledger.post(f"{row.number}:sent:{row.tries}", "refund_sent", lines, description=f"{row.number} sent back to its payer", actor=actor, payment_id=row.payment_id)
    _end_return(row, note, reference, actor)


def _end_return(row: db.Row, note: str, reference: str, actor: str) -> None:
    _move(row, "returned", note, actor)
    db.execute("update held set gateway_reference = %(reference)s where id = %(id)s", id=row.id, reference=reference or None)
    payments.end_review(row.payment_id, "returned", "What came was sent back.", actor)
    _tell(row, "returned")


def _wait_again(row: db.Row, note: str, actor: str) -> None:
    approvals.withdraw("held", row.number)
    approvals.withdraw("payout", row.number)
    db.execute(_BEGIN_AGAIN, id=row.id, now=clock.now())
    _step(row.id, "held", note, actor)
    payments.end_review(row.payment_id, "review", note, actor)


_BEGIN_AGAIN = """
update held
set state = 'held', decision = null, way = 'source', iban = null, holder = null,
  send_key = null, hindrance = '', updated_at = %(now)s
where id = %(id)s
"""


def _move(row: db.Row, state: str, note: str, actor: str) -> None:
    db.execute("update held set state = %(state)s, hindrance = '', updated_at = %(now)s where id = %(id)s", id=row.id, state=state, now=clock.now())
    _step(row.id, state, note, actor)


def _step(held_id: int, state: str, note: str, actor: str) -> None:
    db.execute("insert into held_events (held_id, at, state, note, actor) values (%(id)s, %(now)s, %(state)s, %(note)s, %(actor)s)",
               id=held_id, state=state, note=note, actor=actor, now=clock.now())  # fmt: skip


def _tell(row: db.Row, state: str) -> None:
    target = book.masked(row.holder, row.iban) if row.way == "bank" and row.iban else row.method_label
    payments.tell_of_held(payments.locked(row.payment_id), _money(row), row.number, state, target=target, once=f":{row.tries}")


def _lock(number: str) -> db.Row:
    """Held money until the transaction ends, its payment before it. Raises `RefundError`."""
    payment_id = db.scalar("select payment_id from held where number = %(number)s", number=number)
    if payment_id is None:
        raise RefundError(f"There is no held money {number}.", "decision")
    payments.hold(payment_id)
    db.rows("select 1 from held where number = %(number)s for no key update", number=number)
    return db.rows(f"{_ROW}where h.number = %(number)s", number=number)[0]
