"""Decisions of staff: who may decide, how many people it takes, and what one person may alone.

Every decision about a customer's money goes through `decide`, or through `approve` where the voices
of several people are counted. Both refuse whoever is no enabled support login, and whoever the
case is about; both hold the person's row until the transaction ends, so that a role taken away
meanwhile counts and two decisions of one person are counted one after the other. Both write the
audit log. The caller holds what is decided about.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import config
from app import audit, clock, db, fx, limits
from app.money import AmountError, Money

BASE: Final = "EUR"
"""The currency that a day's sum is counted in: the one of the exchange rates."""
DAY: Final = timedelta(hours=24)
ACTIONS: Final[Mapping[str, str]] = {
    "refund.open": "refund",
    "refund.approve": "refund",
    "refund.decline": "refund",
    "refund.paid": "refund",
    "refund.failed": "refund",
    "held.credit": "held",
    "held.return": "held",
    "held.dismiss": "held",
    "held.paid": "held",
    "held.failed": "held",
    "dispute.take": "dispute",
    "bank.match": "bank_line",
    "bank.same": "bank_line",
    "bank.separate": "bank_line",
    "bank.return": "bank_line",
    "bank.approve": "bank_return",
    "bank.withdraw": "bank_return",
    "bank.acknowledge": "bank_gap",
    "payout.look_at": "payout",
    "payout.refuse": "payout",
    "bonus.grant": "customer",
    "currency.lift_wait": "customer",
    "customer.close": "customer",
    "vat_id.confirm": "customer",
    "vat_id.refuse": "customer",
    "user.disable": "user",
    "user.enable": "user",
    "user.sign_out": "user",
}
"""Every decision of a person by its code in the audit log, with the kind of thing it is about."""


class NotAllowed(ValueError):
    """This person may not decide this. `code` says why, `str()` is a sentence for the person.

    Codes: ``unknown``, ``own_account``, ``own_address``, ``paid_for``, ``second_person``.
    """

    def __init__(self, code: str) -> None:
        super().__init__(SENTENCES[code])
        self.code = code


SENTENCES: Final[Mapping[str, str]] = {
    "unknown": "Only somebody with an enabled support login can decide this.",
    "own_account": "You cannot decide this: it is about your own account.",
    "own_address": "You cannot decide this: the account has your e-mail address.",
    "paid_for": "You cannot decide this: it is about an account that you paid for.",
    "second_person": "A second person must confirm this.",
}
ALONE: Final = "Within 24 hours one person decides only so much alone."
"""Why a decision that one person may take needs a second one."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who decides. `name` is how histories and the audit log write the person down."""

    user_id: int
    login: str

    @property
    def name(self) -> str:
        """``staff:`` and the login."""
        return f"staff:{self.login}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one more voice made of a decision.

    `reached`: it can be carried out, now and by this caller. `repeated`: the person had said so
    before, and nothing was written. `limited`: a second person is needed for the day's sum alone.
    `by` is how histories write the person down.
    """

    by: str
    reached: bool
    given: int
    needed: int
    repeated: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Approval:
    """One voice that stands."""

    decision: str
    terms: str
    actor: str
    user_id: int | None
    at: datetime
    reason: str


# Who may


def decide(
    action: str,
    subject_id: object,
    *,
    actor: str,
    customers: Iterable[int] = (),
    payments: Iterable[int] = (),
    reason: str = "",
    details: Mapping[str, object] | None = None,
) -> Person:
    """Let a person decide, and write that into the audit log. Within a transaction.

    `action` is one of `ACTIONS`; `customers` and `payments` are whose money it is about: of a
    payment both its payer and whose balance it is on. Raises `NotAllowed`.
    """
    person = _admitted(actor, customers, payments)
    _record(action, subject_id, person, reason, details or {})
    return person


def obstacle(user_id: int, customers: Iterable[int] = (), payments: Iterable[int] = ()) -> str:
    """Why this user may not decide about these customers and payments; empty when it may.

    A sentence for a page, which then offers no button. Reads only.
    """
    row = _person(user_id=user_id)
    code = _bar(row, customers, payments) if row else "unknown"
    return SENTENCES[code] if code else ""


def payments_called(public_id: str) -> list[int]:
    """The ids of the payments with this public id, as `obstacle` takes them: one or none."""
    found = db.rows("select id from payments where public_id = %(id)s", id=public_id)
    return [row.id for row in found]


def _admitted(actor: str, customers: Iterable[int], payments: Iterable[int]) -> Person:
    row = _person(login=actor.strip().removeprefix("staff:"), hold="for no key update")
    code = _bar(row, customers, payments) if row else "unknown"
    if row is None or code:
        raise NotAllowed(code)
    return Person(row.id, row.login)


def _person(*, login: str = "", user_id: int | None = None, hold: str = "") -> db.Row | None:
    return db.row(f"{_PERSON}{hold}", login=login, id=user_id)


def _bar(row: db.Row, customers: Iterable[int], payments: Iterable[int]) -> str:
    whose = {"customers": list(customers), "payments": list(payments)}
    return str(db.scalar(_BAR, customer=row.customer_id, email=row.email, **whose) or "")


def _record(
    action: str,
    subject_id: object,
    person: Person,
    reason: str,
    details: Mapping[str, object],
) -> None:
    caller = audit.current_actor()
    facts = dict(details)
    if caller.name.startswith("command:"):  # who sat at the machine, beside who is said to decide
        facts["command"] = caller.name.removeprefix("command:")
    actor = audit.Actor(person.name, person.user_id, caller.address, caller.request)
    with audit.acting_as(actor):
        audit.record(action, ACTIONS[action], subject_id, reason=reason, details=facts)


# How many


def needed(amount: Money) -> int:
    """How many people decide about an amount: two above the limit of the settings, else one."""
    largest = limits.limits(amount.currency)
    limit = largest.maximum * config.current().refund_four_eyes // 100 if largest else 0
    return 2 if amount.minor > limit else 1


def approve(
    action: str,
    subject: str,
    subject_id: object,
    *,
    actor: str,
    needed: int,
    about: object = "",
    amount: Money | None = None,
    terms: str = "",
    customers: Iterable[int] = (),
    payments: Iterable[int] = (),
    reason: str = "",
) -> Outcome:
    """Add one person's voice to a decision; whether it is reached with it. Within a transaction.

    The decision is what follows the dot in `action`, to be carried out on `terms` (which account,
    which customer): another decision about the same subject, or other terms, begins the count
    anew. Who gave a voice and is no support any more, or has become part of the case, does not
    count. What one person may decide about `amount` alone is bounded by the day. `about` is what the
    audit log names where that is not what the voices are counted for. Raises `NotAllowed`.
    """
    customers, payments = list(customers), list(payments)
    person = _admitted(actor, customers, payments)
    decision = action.partition(".")[2]
    facts = {"subject": subject, "id": str(subject_id), "now": clock.now()}
    db.execute(_RESTART, decision=decision, terms=terms, **facts)
    said_before = {voice.user_id for voice in of(subject, subject_id)}
    before = {one for one in said_before if one and not obstacle(one, customers, payments)}
    if person.user_id in said_before:
        return Outcome(person.name, reached=False, given=len(before), needed=max(needed, 2), repeated=True)
    base = _in_base(amount) if amount else Money(0, BASE)
    limited = needed == 1 and not before and amount is not None and _over(person, base)
    wanted, given = 2 if limited else needed, len(before) + 1
    db.execute(
        _VOICE,
        decision=decision,
        terms=terms,
        actor=person.name,
        user=person.user_id,
        reason=reason,
        alone=wanted == 1 and given == 1,
        base=base.minor if base else 0,
        **facts,
    )
    said = {"approvals": f"{given} of {max(wanted, given)}"}
    said |= {"amount": str(amount)} if amount else {}
    _record(action, about or subject_id, person, reason, said)
    return Outcome(person.name, given >= wanted, given, max(wanted, given), limited=limited)


def count_in(subject: str, subject_id: object, decision: str, person: Person, reason: str) -> None:
    """Count who asked for something as the first of two voices for it. Within a transaction."""
    facts = {"subject": subject, "id": str(subject_id), "decision": decision, "reason": reason}
    who = {"actor": person.name, "user": person.user_id, "now": clock.now()}
    db.execute(_VOICE, terms="", alone=False, base=0, **facts, **who)


def approve_itself(subject: str, subject_id: object, decision: str) -> None:
    """Write down that a rule of the settings approved, and no person. Within a transaction."""
    facts = {"subject": subject, "id": str(subject_id), "decision": decision, "now": clock.now()}
    db.execute(_VOICE, terms="", actor="system", user=None, reason="", alone=False, base=0, **facts)


def withdraw(subject: str, subject_id: object) -> None:
    """Let no voice about a subject count any more. Within a transaction."""
    db.execute(_WITHDRAW, subject=subject, id=str(subject_id), now=clock.now())


def of(subject: str, subject_id: object) -> list[Approval]:
    """The voices that stand about a subject, the first one first."""
    found = db.rows(_STANDING, subject=subject, id=str(subject_id))
    return [Approval(*row) for row in found]


def alone_today(user_id: int) -> Money:
    """What a person decided alone within the last 24 hours, in `BASE`."""
    sum_ = db.scalar(_ALONE, user=user_id, since=clock.now() - DAY)
    return Money(int(sum_), BASE)


def daily_limit() -> Money:
    """What one person may decide alone within 24 hours, in `BASE`."""
    largest = limits.LIMITS[BASE].maximum
    return Money(largest * config.current().daily_limit_percent // 100, BASE)


def _over(person: Person, base: Money | None) -> bool:
    """Whether the amount is more than is left of the day's sum; so is one without a rate."""
    return base is None or alone_today(person.user_id) + base > daily_limit()


def _in_base(amount: Money) -> Money | None:
    """About what an amount is in `BASE`; None without a current rate."""
    if amount.currency == BASE:
        return amount
    with suppress(AmountError):
        found = fx.equivalents(amount, [BASE])
        return found[0].money if found else None
    return None


_PERSON = """
select id, login, customer_id, case when verified_at is not null then email end as email
from users
where (login = %(login)s or id = %(id)s)
  and role = 'support'
  and disabled_at is null
"""
# An address that the person has confirmed; what stands in the account need not be confirmed.
_BAR = """
with about as (
  select unnest(%(customers)s::bigint[]) as id
  union
  select payer_id from payments where id = any(%(payments)s::bigint[])
  union
  select customer_id from payments where id = any(%(payments)s::bigint[])
), mine as (
  select %(customer)s::bigint as id
  where %(customer)s::bigint is not null
), of_my_address as (
  select customer_id as id from users
  where customer_id is not null
    and email = %(email)s::text
  union
  select id from customers where lower(billing_email) = %(email)s::text
)
select case
  when exists (select from about join mine using (id)) then 'own_account'
  when exists (select from about join of_my_address using (id)) then 'own_address'
  when exists (
    select from payments p
    join about on about.id = p.customer_id
    where p.paid_at is not null
      and p.payer_id <> p.customer_id
      and p.payer_id in (select id from mine union select id from of_my_address)
  ) then 'paid_for'
end
"""
_RESTART = """
update approvals set withdrawn_at = %(now)s
where subject = %(subject)s
  and subject_id = %(id)s
  and withdrawn_at is null
  and (decision, terms) <> (%(decision)s, %(terms)s)
"""
_WITHDRAW = """
update approvals set withdrawn_at = %(now)s
where subject = %(subject)s
  and subject_id = %(id)s
  and withdrawn_at is null
"""
_STANDING = """
select decision, terms, actor, user_id, at, reason
from approvals
where subject = %(subject)s
  and subject_id = %(id)s
  and withdrawn_at is null
order by id
"""
_VOICE = """
insert into approvals
  (subject, subject_id, decision, terms, actor, user_id, at, reason, alone, base_amount)
values
  (%(subject)s, %(id)s, %(decision)s, %(terms)s, %(actor)s, %(user)s, %(now)s, %(reason)s,
   %(alone)s, %(base)s)
"""
_ALONE = """
select coalesce(sum(base_amount), 0)::bigint
from approvals
where user_id = %(user)s
  and alone
  and withdrawn_at is null
  and at > %(since)s
"""
