"""Refunds as they are written: read, locked, moved one step, and told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app import clock, customers, db, invoicing, ledger, mail, payments
from app.formats import formats
from app.languages import N_
from app.money import Money


class RefundError(ValueError):
    """What was asked cannot be done, as a sentence for whoever asked. `field` names the form's field it is about."""

    def __init__(self, sentence: str, field: str = "amount") -> None:
        super().__init__(sentence)
        self.field = field


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

    `approvals` are the people who approved it, of `approvals_needed` different ones; `receipt` is the number of its receipt, where its owner is who paid.
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
    approvals_needed: int
    approvals: Sequence[str]
    steps: Sequence[Step]
    receipt: str

    @property
    def target(self) -> str:
        """Where the money goes, in words."""
        return masked(self.holder, self.iban) if self.way == "bank" else self.method_label


def masked(holder: str, iban: str) -> str:
    """An account in words that its holder knows it by and nobody else can use."""
    return f"{holder}, {iban[:4]} … {iban[-4:]}"


@dataclass(frozen=True, slots=True)
class Case:
    """An open refund as support judges it: whose, of which payment, what is left of that one, and what happened before."""

    refund: Refund
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


OTHERS = N_("the payer's own method")
"""Where a refund goes whose payer is somebody else: what that one paid with is not shown."""
RETURNED = (N_("expired or canceled card"), N_("lost or stolen card"), N_("insufficient funds"))
"""Reasons of processors that a mail can name."""

_FIELDS = """
r.id, r.number, coalesce(b.invoice_number, b.proforma_number) as document,
  case when p.payer_id = r.customer_id then p.method_label else 'the payer''s own method' end as method_label,
  r.amount, r.currency, r.payout, r.payout_currency, r.state, r.reason, r.answer, r.way,
  coalesce(r.iban, '') as iban, coalesce(r.holder, '') as holder, r.requested_at,
  r.attempted_at, r.approvals_needed, (select coalesce(array_agg(a.actor order by a.at), '{}') from refund_approvals a where a.refund_id = r.id) as approvals,
  coalesce((select d.number from documents d where d.refund_id = r.id and d.customer_id = r.customer_id), '') as receipt,
  (select jsonb_agg(jsonb_build_array(e.state, e.at, e.note, e.actor) order by e.id) from refund_events e where e.refund_id = r.id) as steps
"""
_FROM = "from refunds r join payments p on p.id = r.payment_id join bills b on b.id = p.bill_id"
_OF_CUSTOMER = f"select {_FIELDS} {_FROM} where r.customer_id = %(customer)s order by r.id desc"
_CASE = f"""
select {_FIELDS}, u.login, coalesce(nullif(c.company, ''), c.name) as customer, c.created_at as since, p.public_id, p.state as payment_state,
  coalesce(p.gateway_reference, '') as gateway_reference, p.gateway, l.paid, l.paid_currency, p.paid_at, l.remaining,
  (select count(*) from refunds o where o.customer_id = r.customer_id and o.id < r.id) as refunds_before,
  (select count(*) from disputes d where d.customer_id = r.customer_id) as disputes_before
{_FROM} join customers c on c.id = r.customer_id join lots l on l.id = r.lot_id
left join lateral (select login from users where customer_id = c.id order by id limit 1) u on true
where """  # noqa: S608 - constants


def of_customer(customer_id: int) -> list[Refund]:
    """A customer's refunds with their steps, newest first."""
    return [_refund(row) for row in db.rows(_OF_CUSTOMER, customer=customer_id)]


def queue() -> list[Case]:
    """Every open refund of every customer, the longest waiting first."""
    return [_case(row) for row in db.rows(f"{_CASE}r.state in ('requested', 'approved', 'sent') order by r.id")]


def case(number: str) -> Case | None:
    """One refund of whomever as support sees it, or None."""
    row = db.row(f"{_CASE}r.number = %(number)s", number=number)
    return _case(row) if row else None


def _case(row: db.Row) -> Case:
    return Case(
        _refund(row), row.login or "", row.customer or row.login or "", row.since, row.public_id, row.payment_state, row.gateway_reference, row.gateway,
        Money(row.paid, row.paid_currency), row.paid_at, Money(row.remaining, row.currency), row.refunds_before, row.disputes_before,
    )  # fmt: skip


def _refund(row: db.Row) -> Refund:
    steps = [Step(state, datetime.fromisoformat(at), note, actor) for state, at, note, actor in row.steps]
    return Refund(
        row.id, row.number, row.document, row.method_label, Money(row.amount, row.currency), Money(row.payout, row.payout_currency), row.state, row.reason, row.answer,
        row.way, row.iban, row.holder, row.requested_at, row.attempted_at, row.approvals_needed, row.approvals, steps, row.receipt,
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
    """Issue the receipt of a refund whose money is gone, and send it to the customer, if it paid itself. Within a transaction."""
    row, paid = lock(number), db.rows(_PAID, number=number)[0]
    refund = {name: getattr(row, name) for name in ("number", "payout", "payout_currency", "amount", "currency")}
    refund |= {name: getattr(paid, name) for name in ("payment", "method", "paid", "paid_currency")}
    target = masked(row.holder, row.iban) if row.way == "bank" else paid.method
    rate = paid.rate_note if paid.credited_currency == row.currency != row.payout_currency else ""
    refund |= {"target": target, "rate_note": rate, "paid_at": paid.paid_at.isoformat(), "at": clock.now().isoformat()}
    receipt = invoicing.issue_refund_receipt(paid.bill_id, row.id, refund)
    tell(row, "settled", receipt=receipt if paid.own else "")


def tell(row: db.Row, state: str, *, answer: str = "", reason: str = "", receipt: str = "") -> None:
    """Write to the customer about a step: `answer` in support's own words, `reason` as the house or a processor says it. Within a transaction."""
    customer = customers.get(row.customer_id)
    write = formats(customer.locale, customer.timezone)
    target = masked(row.holder, row.iban) if row.way == "bank" else row.method_label
    mail.inform(
        "refund_step", customer.email, locale=customer.locale, key=f"{row.number}:{state}", customer_id=customer.id, name=customer.title or customer.email, number=row.number,
        state=state, answer=answer, reason=reason,
        payout=write.money(row.payout, row.payout_currency), amount=write.money(row.amount, row.currency), target=target, document=row.document,
        paid_at=write.date(row.paid_at), at=write.datetime(clock.now()), receipt=receipt, attachments=[mail.Stored(receipt, f"/refunds/{receipt}.pdf")] if receipt else [],
    )  # fmt: skip


def restate(payment_id: int, text: str, actor: str = "system") -> None:
    """Bring the payment's state in line with its refunds and disputes. Within a transaction."""
    row = db.rows(_STANDING, payment=payment_id)[0]
    payments.restate(payment_id, returned=row.returned, disputed=row.disputed, text=text, actor=actor)


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
  r.approvals_needed, r.gateway_reference as refund_reference, p.gateway, p.method, p.gateway_reference, p.paid_at,
  coalesce(b.invoice_number, b.proforma_number) as document,
  case when p.payer_id = r.customer_id then p.method_label else 'the payer''s own method' end as method_label,
  exists (select from disputes d where d.payment_id = p.id and d.state in ('inquiry', 'open')) as disputed
from refunds r join payments p on p.id = r.payment_id join bills b on b.id = p.bill_id where r.number = %(number)s for no key update of r
"""
_PAID = """
select p.bill_id, p.public_id as payment, p.method_label as method, p.received as paid, p.received_currency as paid_currency, p.paid_at, p.rate_note, p.credited_currency,
  p.payer_id = r.customer_id as own
from refunds r join payments p on p.id = r.payment_id where r.number = %(number)s
"""
_MOVE = "update refunds set state = %(state)s, gateway_reference = coalesce(%(reference)s, gateway_reference), updated_at = %(now)s where id = %(id)s"
_STEP = "insert into refund_events (refund_id, at, state, note, actor) values (%(id)s, %(now)s, %(state)s, %(note)s, %(actor)s)"
_STANDING = """
select coalesce((select sum(amount) from refunds where payment_id = %(payment)s and state = 'settled'), 0)::bigint as returned,
  exists (select from disputes where payment_id = %(payment)s and state in ('open', 'lost')) as disputed
"""
