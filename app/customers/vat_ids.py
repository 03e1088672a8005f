"""Whether a company's VAT ID is registered: asked of the register by a job, or decided by support with a reason.

An outage is never an answer. A number keeps its state while nobody can look, until the last proof of it is too old.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import config
from app import approvals, clock, db, mail
from app.customers import people, vies

log = logging.getLogger(__name__)

ASKED_AGAIN_AFTER = timedelta(days=30)
PROVEN_FOR = timedelta(days=90)
"""How long a number counts as registered while the register cannot be asked."""
FIRST_RETRY, LAST_RETRY = timedelta(minutes=5), timedelta(hours=6)
AT_ONCE = 20
TEST_REGISTER = "TEST-REGISTER"
"""The consultation number of the sandbox's register, which knows every number whose form is right."""


@dataclass(frozen=True, slots=True)
class Check:
    """One answer about a number: by the register, or by a person of support with a reason."""

    vat_id: str
    state: str
    consultation: str
    name: str
    address: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Open:
    """A company's number that support may decide about. `name` is whom the account names, `registered` whom the register named."""

    customer_id: int
    title: str
    vat_id: str
    state: str
    registered: str
    checked_at: datetime | None


class NotDecidable(ValueError):
    """Support cannot decide about this number; str() says why."""


def check_due(limit: int = AT_ONCE) -> int:
    """Ask the register about the numbers whose turn it is; how many answers came. Opens a transaction for each."""
    due = db.rows(_DUE, now=clock.now(), limit=limit)
    return sum(_check(row) for row in due)


def _check(row: db.Row) -> bool:
    try:
        answer = _ask(row.vat_id)
    except vies.Unavailable as error:
        wait = min(FIRST_RETRY * 2 ** min(row.vat_check_tries, 10), LAST_RETRY)
        log.warning("The VAT register did not answer about a number of %s: %s", row.vat_id[:2], error)
        with db.transaction():
            db.execute(_UNANSWERED, id=row.id, vat_id=row.vat_id, due=clock.now() + wait, oldest=clock.now() - PROVEN_FOR)
        return False
    state = "valid" if answer.valid else "invalid"
    with db.transaction():
        before = db.scalar(_HELD_STATE, id=row.id)
        known = {"id": row.id, "vat_id": row.vat_id, "state": state, "now": clock.now(), "due": clock.now() + ASKED_AGAIN_AFTER}
        if db.execute(_ANSWERED, **known):  # the number was changed meanwhile otherwise
            known_before = db.scalar(_WAS_KNOWN, id=row.id, vat_id=row.vat_id)
            _keep(row.id, row.vat_id, state, "register", answer)
            if state == "invalid" and before != "invalid":
                _tell_unknown(row.id, row.vat_id, known_before=known_before)
    return True


def _tell_unknown(customer_id: int, vat_id: str, *, known_before: bool) -> None:
    """Write to a customer that the register does not list a number, when that is news. Within a transaction."""
    customer = people.get(customer_id)
    mail.inform(
        "vat_id_unknown",
        customer.email,
        locale=customer.locale,
        key=f"vat_id:{customer_id}:{vat_id}:{clock.now():%Y-%m-%dT%H:%M:%S}",
        customer_id=customer_id,
        name=customer.title or customer.email,
        vat_id=vat_id,
        known_before=known_before,
    )


def _ask(vat_id: str) -> vies.Answer:
    settings = config.current()
    if not settings.vies_url:
        return vies.Answer(valid=True, consultation=TEST_REGISTER)
    seller = settings.seller
    return vies.ask(settings.vies_url, vat_id, seller.vat_id.replace(" ", ""))


def decide(customer_id: int, decision: str, *, reason: str, actor: str) -> None:
    """Let support confirm or refuse a company's number: ``confirm`` or ``refuse``, with a reason. Opens the transaction.

    Raises NotDecidable, NotAllowed.
    """
    if not reason.strip():
        raise NotDecidable("Write down why, for the tax office.")
    with db.transaction():
        row = db.row(_LOCK, id=customer_id)
        if row is None or row.kind != "company" or not row.vat_id:
            raise NotDecidable("This customer has no company's VAT ID.")
        who = approvals.decide(f"vat_id.{decision}", customer_id, actor=actor, customers=[customer_id], reason=reason, details={"vat_id": row.vat_id})
        state = {"confirm": "confirmed", "refuse": "refused"}[decision]
        db.execute(_DECIDED, id=customer_id, state=state, now=clock.now())
        _keep(customer_id, row.vat_id, state, who.name, reason=reason.strip())


def ask_again(customer_id: int) -> bool:
    """Let the register be asked about a customer's number on the next turn, whatever was said before; whether there is one. Opens the transaction."""
    with db.transaction():
        return bool(db.execute(_AGAIN, id=customer_id, now=clock.now()))


def latest(customer_id: int, vat_id: str) -> Check | None:
    """The last answer about a customer's number, None before the first one."""
    row = db.row(_LATEST, id=customer_id, vat_id=vat_id)
    return Check(*row) if row else None


def undecided(limit: int = 200) -> Sequence[Open]:
    """Companies whose number the register does not know or could not be asked about, the oldest first."""
    return [Open(*row) for row in db.rows(_OPEN, limit=limit)]


def _keep(customer_id: int, vat_id: str, state: str, actor: str, answer: vies.Answer | None = None, reason: str = "") -> None:
    said = answer or vies.Answer(valid=state == "confirmed")
    db.execute(_KEEP, id=customer_id, vat_id=vat_id, state=state, consultation=said.consultation, name=said.name, address=said.address,
               actor=actor, reason=reason, now=clock.now())  # fmt: skip


# Before a renewal that would be without VAT the number is asked about once more, a day ahead.
_DUE = """
select c.id, c.vat_id, c.vat_check_tries
from customers c
where c.vat_id_state in ('unverified', 'valid', 'invalid')
  and c.kind = 'company'
  and c.vat_id ~ '^[A-Z]{2}'
  and c.country = any(array['AT','BE','BG','CY','CZ','DE','DK','EE','ES','FI','FR','GR','HR','HU','IE','IT','LT','LU','LV','MC',
    'MT','NL','PL','PT','RO','SE','SI','SK'])
  and c.closed_at is null
  and (
    c.vat_check_due_at <= %(now)s
    or (
      c.vat_id_state = 'valid'
      and c.vat_check_tries = 0
      and c.vat_checked_at < %(now)s - interval '2 days'
      and exists (
        select from services s
        where s.customer_id = c.id
          and s.status = 'active'
          and s.paid_through between (%(now)s)::date and (%(now)s + interval '1 day')::date
      )
    )
  )
order by c.vat_check_due_at
limit %(limit)s
"""
_ANSWERED = """
update customers
set vat_id_state = %(state)s, vat_checked_at = %(now)s, vat_check_due_at = %(due)s, vat_check_tries = 0
where id = %(id)s
  and vat_id = %(vat_id)s
  and vat_id_state in ('unverified', 'valid', 'invalid')
"""
_HELD_STATE = "select vat_id_state from customers where id = %(id)s for no key update"
_WAS_KNOWN = """
select exists (
  select from vat_checks
  where customer_id = %(id)s
    and vat_id = %(vat_id)s
    and state in ('valid', 'confirmed')
)
"""
_UNANSWERED = """
update customers
set vat_check_due_at = %(due)s, vat_check_tries = vat_check_tries + 1,
  vat_id_state = case when vat_id_state = 'valid' and vat_checked_at < %(oldest)s then 'unverified' else vat_id_state end
where id = %(id)s
  and vat_id = %(vat_id)s
"""
_LOCK = "select kind, vat_id from customers where id = %(id)s for no key update"
_DECIDED = "update customers set vat_id_state = %(state)s, vat_checked_at = %(now)s where id = %(id)s"
_AGAIN = """
update customers
set vat_id_state = 'unverified', vat_check_due_at = %(now)s, vat_check_tries = 0
where id = %(id)s
  and vat_id <> ''
"""
_LATEST = """
select vat_id, state, consultation, name, address, actor, reason, at
from vat_checks
where customer_id = %(id)s
  and vat_id = %(vat_id)s
order by id desc
limit 1
"""
_OPEN = """
select c.id, coalesce(nullif(c.company, ''), c.name) as title, c.vat_id, c.vat_id_state,
  coalesce(k.name, '') as registered, c.vat_checked_at
from customers c
left join lateral (
  select name from vat_checks where customer_id = c.id and vat_id = c.vat_id order by id desc limit 1
) k on true
where c.kind = 'company'
  and c.vat_id_state in ('unverified', 'invalid')
  and c.closed_at is null
order by c.id
limit %(limit)s
"""
_KEEP = """
insert into vat_checks (customer_id, vat_id, state, consultation, name, address, actor, reason, at)
values (%(id)s, %(vat_id)s, %(state)s, %(consultation)s, %(name)s, %(address)s, %(actor)s, %(reason)s, %(now)s)
"""
