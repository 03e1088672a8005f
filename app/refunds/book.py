"""Refunds as they are written: read, locked, moved one step, and told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import config
from app import clock, customers, db, invoicing, ledger, mail, payments
from app.formats import formats
from app.money import Money


class RefundError(ValueError):
    """What was asked cannot be done, as a sentence for whoever asked. `field` names the form's field it is about, `code` the refusal where one is kept."""

    def __init__(self, sentence: str, field: str = "amount", code: str = "") -> None:
        super().__init__(sentence)
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a refund's way."""

    state: str
    at: datetime
    note: str
    actor: str


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund: what it takes from the balance, what it pays out and by which way, and its steps so far, oldest first.

    `hindrance` says what of ours keeps an approved one from leaving, for support alone. `approvals` are the people who approved it, of `approvals_needed` different ones; `receipt` is the number of its receipt, the payer's paper. `side` is who reads
    it: ``own`` where payer and owner of the balance are one, else ``payer`` or ``owner``, of whom each sees only its own end, or ``support``.
    """

    id: int
    number: str
    document: str
    method_label: str
    amount: Money
    payout: Money
    state: str
    reason: str
    answer: str
    way: str
    iban: str
    holder: str
    requested_at: datetime
    attempted_at: datetime | None
    hindrance: str
    approvals_needed: int
    approvals: Sequence[str]
    steps: Sequence[Step]
    receipt: str
    side: str

    @property
    def asked(self) -> bool:
        """Whether a customer asked for it, and not support."""
        return self.steps[0].actor.startswith("customer:")

    @property
    def target(self) -> str:
        """Where the money goes, in words."""
        if self.side == "owner":
            return "whoever paid it"
        return masked(self.holder, self.iban) if self.way == "bank" else self.method_label


def masked(holder: str, iban: str) -> str:
    """An account in words that its holder knows it by and nobody else can use."""
    return f"{holder}, {iban[:4]} … {iban[-4:]}"


@dataclass(frozen=True, slots=True)
class Case:
    """An open refund as support judges it: whose, of which payment, what is left of that one, and what happened before. `payer` is empty where it is the customer."""

    refund: Refund
    payer: str
    login: str
    customer: str
    since: datetime
    payment: str
    payment_state: str
    gateway_reference: str
    gateway: str
    paid: Money
    paid_at: datetime
    remaining: Money
    refunds_before: int
    disputes_before: int
    customer_id: int


PAGE = 50
"""Rows of a list of support's."""

_FIELDS = """
r.id, r.number, coalesce(b.invoice_number, b.proforma_number) as document,
  p.method_label, r.customer_id, p.payer_id, r.amount, r.currency, r.payout, r.payout_currency, r.state, r.reason, r.answer, r.way,
  coalesce(r.iban, '') as iban, coalesce(r.holder, '') as holder, r.requested_at,
  r.attempted_at, r.hindrance, r.approvals_needed, (select coalesce(array_agg(a.actor order by a.id), '{}') from approvals a where a.subject = 'refund' and a.subject_id = r.number and a.withdrawn_at is null) as approvals,
  coalesce((select d.number from documents d where d.refund_id = r.id and d.customer_id = p.payer_id), '') as receipt,
  (select jsonb_agg(jsonb_build_array(e.state, e.at, e.note, e.actor) order by e.id) from refund_events e where e.refund_id = r.id) as steps
"""
_FROM = "from refunds r join payments p on p.id = r.payment_id join bills b on b.id = p.bill_id"
_OF_CUSTOMER = f"""
select {_FIELDS} {_FROM} where r.customer_id = %(customer)s
  or r.payment_id in (select g.id from bills t join payments g on g.bill_id = t.id where t.customer_id = %(customer)s and t.beneficiary_id <> %(customer)s)
order by r.id desc
"""  # noqa: S608 - constants
_CASE = f"""
select {_FIELDS}, case when p.payer_id <> r.customer_id then (select coalesce(nullif(y.company, ''), y.name, '') from customers y where y.id = p.payer_id) else '' end as payer,
  u.login, coalesce(nullif(c.company, ''), c.name) as customer, c.created_at as since, p.public_id, p.state as payment_state,
  coalesce(p.gateway_reference, '') as gateway_reference, p.gateway, l.paid, l.paid_currency, p.paid_at, l.remaining,
  (select count(*) from refunds o where o.customer_id = r.customer_id and o.id < r.id) as refunds_before,
  (select count(*) from disputes d where d.customer_id = r.customer_id) as disputes_before
{_FROM} join customers c on c.id = r.customer_id join lots l on l.id = r.lot_id
left join lateral (select login from users where customer_id = c.id order by id limit 1) u on true
where """  # noqa: S608 - constants


def of_customer(customer_id: int) -> list[Refund]:
    """The refunds of a customer's balance and of what it paid for others, with their steps, newest first; of each only what is the customer's business."""
    return [_seen(_refund(row, _side(row, customer_id))) for row in db.rows(_OF_CUSTOMER, customer=customer_id)]


def _side(row: db.Row, reader: int) -> str:
    if row.payer_id == row.customer_id:
        return "own"
    return "payer" if row.payer_id == reader else "owner"


def _seen(refund: Refund) -> Refund:
    """The refund without what is the other's: the owner sees what its balance gave, the payer what comes back; what support wrote down is for neither."""
    first, *rest = refund.steps
    refund = replace(refund, steps=[first, *(step for step in rest if step.state != "requested")])  # who else of support said what is not theirs
    if refund.side == "own":
        return refund
    if refund.side == "owner":
        return replace(refund, document="", method_label="", payout=refund.amount, reason="", answer="", receipt="", steps=[replace(step, note="") for step in refund.steps])
    return replace(refund, amount=refund.payout, reason="", steps=[replace(step, note="") if step.state == "requested" else step for step in refund.steps])


def queue() -> list[Case]:
    """Every open refund of every customer, the longest waiting first."""
    return [_case(row) for row in db.rows(f"{_CASE}r.state in ('requested', 'approved', 'sent') order by r.id")]


def closed(state: str, before: int | None = None) -> list[Case]:
    """Refunds of everybody that came to this end, newest first, those before an id; one more than `PAGE` when there are older ones."""
    which = f"{_CASE}r.state = %(state)s and (%(before)s::bigint is null or r.id < %(before)s) order by r.id desc limit %(limit)s"
    return [_case(row) for row in db.rows(which, state=state, before=before, limit=PAGE + 1)]


def case(number: str) -> Case | None:
    """One refund of whomever as support sees it, or None."""
    row = db.row(f"{_CASE}r.number = %(number)s", number=number)
    return _case(row) if row else None


def _case(row: db.Row) -> Case:
    return Case(
        _refund(row, "support"), row.payer or ("somebody without a name" if row.payer_id != row.customer_id else ""), row.login or "", row.customer or row.login or "", row.since, row.public_id, row.payment_state, row.gateway_reference, row.gateway,
        Money(row.paid, row.paid_currency), row.paid_at, Money(row.remaining, row.currency), row.refunds_before, row.disputes_before, row.customer_id,
    )  # fmt: skip


def _refund(row: db.Row, side: str) -> Refund:
    steps = [Step(state, datetime.fromisoformat(at), note, actor) for state, at, note, actor in row.steps]
    return Refund(
        row.id, row.number, row.document, row.method_label, Money(row.amount, row.currency), Money(row.payout, row.payout_currency), row.state, row.reason, row.answer,
        row.way, row.iban, row.holder, row.requested_at, row.attempted_at, row.hindrance if side == "support" else "", row.approvals_needed, row.approvals, steps, row.receipt, side,
    )  # fmt: skip


def lock(number: str) -> db.Row:
    """A refund held until the transaction ends, its payment before it, as every other verb does. Raises `RefundError`. Within a transaction."""
    payment_id = db.scalar("select payment_id from refunds where number = %(number)s", number=number)
    if payment_id is None:
        raise RefundError(f"There is no refund {number}.")
    payments.hold(payment_id)
    return db.rows(_LOCK, number=number)[0]


def require(row: db.Row, state: str) -> None:
    """Raises `RefundError` for a refund that is not in this state."""
    if row.state != state:
        raise RefundError(f"{row.number} is {row.state}, not {state}.", "answer")


def move(row: db.Row, state: str, *, note: str = "", actor: str, reference: str = "") -> None:
    """Bring a refund to its next state, with the step in its timeline. Within a transaction."""
    db.execute(_MOVE, id=row.id, state=state, reference=reference or None, now=clock.now())
    write_step(row.id, state, note, actor)


def write_step(refund_id: int, state: str, note: str, actor: str) -> None:
    """One line of a refund's timeline. Within a transaction."""
    db.execute(_STEP, id=refund_id, state=state, note=note, actor=actor, now=clock.now())


def tell_settled(number: str) -> None:
    """Issue the receipt of a refund whose money is gone, and send it to who paid. Within a transaction."""
    row, paid = lock(number), db.rows(_PAID, number=number)[0]
    refund = {name: getattr(row, name) for name in ("number", "payout", "payout_currency", "amount", "currency")}
    refund |= {name: getattr(paid, name) for name in ("payment", "method", "paid", "paid_currency")}
    target = masked(row.holder, row.iban) if row.way == "bank" else paid.method
    rate = paid.rate_note if paid.credited_currency == row.currency != row.payout_currency else ""
    refund |= {"target": target, "rate_note": rate, "paid_at": paid.paid_at.isoformat(), "at": clock.now().isoformat()}
    receipt = invoicing.issue_refund_receipt(paid.bill_id, row.id, refund)
    tell(row, "settled", receipt=receipt)


def tell(row: db.Row, state: str, *, answer: str = "", reason: str = "", receipt: str = "") -> None:
    """Write to the payer about a step, and to the owner of the balance where that is somebody else; neither reads the other's facts. Within a transaction.

    `answer` is in support's own words, `reason` as the house or a processor says it; both are the payer's.
    """
    payer, own = customers.get(row.payer_id), row.payer_id == row.customer_id
    write = formats(payer.locale, payer.timezone)
    target = masked(row.holder, row.iban) if row.way == "bank" else row.payer_method
    page = payments.told_at(row.public_id) if payer.guest else "/refunds"
    mail.inform(
        "refund_step", payer.email, locale=payer.locale, key=f"{row.number}:{state}", customer_id=payer.id, name=payer.title or payer.email, number=row.number,
        state=state, answer=answer, reason=reason,
        payout=write.money(row.payout, row.payout_currency), amount=write.money(row.amount, row.currency), target=target, document=row.document,
        paid_at=write.date(row.paid_at), at=write.datetime(clock.now()), own=own, came_back=state == "failed" and row.state == "settled", asked=row.opener.startswith("customer:"), guest=payer.guest, url=config.current().base_url + page,
        receipt=receipt, attachments=[mail.Stored(receipt, f"/refunds/{receipt}.pdf")] if receipt else [],
    )  # fmt: skip
    if not own and state in OWNERS_STEPS:
        tell_owner(row.customer_id, state, key=f"{row.number}:{state}", amount=Money(row.amount, row.currency), paid_at=row.paid_at)


OWNERS_STEPS = ("requested", "settled", "declined", "failed")
"""What moves money of a balance, when a payment by somebody else goes back."""


def tell_owner(customer_id: int, state: str, *, key: str, amount: Money, paid_at: datetime, owed: Money | None = None) -> None:
    """Write to whose balance it is what a payment by somebody else, that goes back or was taken back, does to it; of that payer nothing. Within a transaction."""
    owner = customers.get(customer_id)
    write = formats(owner.locale, owner.timezone)
    mail.inform(
        "given_back", owner.email, locale=owner.locale, key=f"{key}:owner", customer_id=owner.id, name=owner.title or owner.email, state=state,
        amount=write.money(amount.minor, amount.currency), paid_at=write.date(paid_at), owed=write.money(owed.minor, owed.currency) if owed and owed.minor > 0 else "",
    )  # fmt: skip


def restate(payment_id: int, text: str, actor: str = "system") -> None:
    """Bring the payment's state in line with its refunds and disputes. Within a transaction."""
    row = db.rows(_STANDING, payment=payment_id)[0]
    back = "" if not row.returned else "whole" if row.returned >= row.credited else "part"
    payments.restate(payment_id, back=back, disputed=row.disputed, text=text, actor=actor)


def outward(gateway: str, amount: Money, payout: Money, margin: int = 0) -> list[tuple[int, int]]:
    """The other side of money that leaves the customer `amount` poorer and is `payout` at the gateway: the mirror of how it came.

    `margin` is what the house had earned on the exchange and gives up with it, its own line; so the position of the exchange closes to zero.
    """
    return exchanged((ledger.account("gateway", payout.currency, key=gateway), payout.minor), amount, payout, margin)


def exchanged(line: tuple[int, int], amount: Money, payout: Money, margin: int = 0) -> list[tuple[int, int]]:
    """`outward` by any account: the line that gets `payout`, and the exchange between the two currencies."""
    if amount == payout and not margin:
        return [line]
    lines = [line, (ledger.account("fx", amount.currency), amount.minor + margin), (ledger.account("fx", payout.currency), -payout.minor)]
    return [*lines, (ledger.account("revenue", amount.currency, key="exchange"), -margin)] if margin else lines


_LOCK = """
select r.id, r.number, r.payment_id, r.lot_id, r.customer_id, r.amount, r.currency, r.payout, r.payout_currency, r.state, r.way, r.iban, r.holder, r.margin, r.attempted_at,
  r.approvals_needed, r.gateway_reference as refund_reference, p.gateway, p.method, p.gateway_reference, p.paid_at, p.payer_id, p.public_id, p.method_label as payer_method,
  (select e.actor from refund_events e where e.refund_id = r.id order by e.id limit 1) as opener,
  coalesce(b.invoice_number, b.proforma_number) as document,
  case when p.payer_id = r.customer_id then p.method_label else 'its payer' end as method_label,
  exists (select from disputes d where d.payment_id = p.id and d.state in ('inquiry', 'open')) as disputed
from refunds r join payments p on p.id = r.payment_id join bills b on b.id = p.bill_id where r.number = %(number)s for no key update of r
"""
_PAID = """
select p.bill_id, p.public_id as payment, p.method_label as method, p.received as paid, p.received_currency as paid_currency, p.paid_at, p.rate_note, p.credited_currency
from refunds r join payments p on p.id = r.payment_id where r.number = %(number)s
"""
_MOVE = "update refunds set state = %(state)s, hindrance = '', gateway_reference = coalesce(%(reference)s, gateway_reference), updated_at = %(now)s where id = %(id)s"
_STEP = "insert into refund_events (refund_id, at, state, note, actor) values (%(id)s, %(now)s, %(state)s, %(note)s, %(actor)s)"
# Both in the currency paid: what the balance gave may be in one currency and then in another.
_STANDING = """
select coalesce((select sum(payout) from refunds where payment_id = %(payment)s and state = 'settled'), 0)::bigint as returned,
  (select sum(paid) from lots where payment_id = %(payment)s and continues is null)::bigint as credited,
  exists (select from disputes where payment_id = %(payment)s and state in ('open', 'lost')) as disputed
"""
