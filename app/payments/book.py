"""The payments as they are written: read, found by their owner, and their history."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app import clock, db, invoicing
from app.gateways.base import Charge
from app.invoicing import Bill, states
from app.money import Money


class NotPayable(ValueError):
    """This bill cannot be paid so. `str()` is a sentence for the customer."""


OPEN = ("created", "unknown", "pending")
HELD = ("review", "returned")
CREDITED = ("paid", "partially_refunded", "refunded", "disputed")
"""States of a payment whose money arrived; ``taken_back`` is one whose sender's bank took all of it back for good."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment of one bill. Amounts in minor units; `charge` holds exactly what the processor was asked, for asking again.

    `customer_id` gets the money, `payer_id` pays it; `link_id` is the link it was started from, for who has no login.
    `card_id` is the saved card it is charged to, `consent` what was agreed to when a card is saved by it; `off_session` that nobody was there to be asked.
    """

    id: int
    public_id: str
    bill_id: int
    customer_id: int
    payer_id: int
    method: str
    gateway: str
    state: str
    amount: int
    currency: str
    quote_id: int | None
    charge: dict[str, Any]
    gateway_reference: str | None
    handoff_url: str | None
    method_label: str
    failure_code: str | None
    failure_message: str | None
    received: int | None
    received_currency: str | None
    fee: int | None
    fee_currency: str | None
    credited: int | None
    credited_currency: str | None
    rate_note: str
    created_at: datetime
    updated_at: datetime
    checked_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    link_id: int | None
    card_id: int | None
    consent: str | None
    off_session: bool
    bill_number: str

    @property
    def money(self) -> Money:
        """What was asked for."""
        return Money(self.amount, self.currency)

    @property
    def open(self) -> bool:
        """Whether it can still come to an end of its own accord."""
        return self.state in OPEN

    @property
    def for_another(self) -> bool:
        """Whether who pays is not who gets the money."""
        return self.payer_id != self.customer_id

    @property
    def confirmed(self) -> bool:
        """Whether the money arrived and was credited."""
        return self.state in CREDITED

    @property
    def kept(self) -> bool:
        """Whether money of it came to us: credited, or held for a person, who may have sent it back."""
        return self.confirmed or self.state in HELD

    def as_charge(self) -> Charge:
        """What the processor was asked, word for word."""
        kept = dict(self.charge)
        amount = Money(kept.pop("amount"), kept.pop("currency"))
        return Charge(amount=amount, expires_at=datetime.fromisoformat(kept.pop("expires_at")), **kept)


@dataclass(frozen=True, slots=True)
class Came:
    """What the payments of one bill brought: received in the bill's currency, credited in the account's; minor units."""

    received: int
    credited: int


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a payment; `note` is a sentence for the customer, or nothing."""

    at: datetime
    state: str
    note: str


_NUMBER = "(select coalesce(b.proforma_number, b.invoice_number) from bills b where b.id = payments.bill_id) as bill_number"
COLUMNS = ", ".join(name if name != "bill_number" else _NUMBER for name in Payment.__slots__)
_BY_PUBLIC_ID = f"select {COLUMNS} from payments where public_id = %(public_id)s"  # noqa: S608 - names of this module
_OWN = f"{_BY_PUBLIC_ID} and payer_id = %(payer_id)s"
_LOCK = f"{_BY_PUBLIC_ID} and gateway = %(gateway)s for no key update"
_LOCK_ID = f"select {COLUMNS} from payments where id = %(id)s for no key update"  # noqa: S608 - names of this module
_OPEN_OF = f"select {COLUMNS} from payments where bill_id = %(bill_id)s and state in ('created', 'unknown', 'pending') order by id desc"  # noqa: S608

# In the bill's currency, as it was paid or as it was credited; not what is still held, nor what was sent back instead of being credited.
_CAME = f"""
select coalesce(sum({states.CAME}), 0)::bigint as received, coalesce(sum(p.credited), 0)::bigint as credited
from payments p join bills b on b.id = p.bill_id
{states.HELD}
where p.bill_id = %(bill_id)s and {states.CREDITED}
"""  # noqa: S608 - constants

_TIMELINE = "select at, state, note from payment_events where payment_id = %(payment_id)s order by id"

EVENT = "insert into payment_events (payment_id, at, state, note, actor) values (%(payment_id)s, %(at)s, %(state)s, %(note)s, %(actor)s)"


def find(payer_id: int, public_id: str) -> Payment | None:
    """A customer's own payment. A stranger's and a missing one are the same None."""
    row = db.row(_OWN, payer_id=payer_id, public_id=public_id)
    return Payment(*row) if row else None


def read(public_id: str) -> Payment | None:
    """Any payment by its public id."""
    row = db.row(_BY_PUBLIC_ID, public_id=public_id)
    return Payment(*row) if row else None


def lock(gateway: str, public_id: str) -> Payment | None:
    """A payment held until the transaction ends. Within a transaction."""
    row = db.row(_LOCK, gateway=gateway, public_id=public_id)
    return Payment(*row) if row else None


def locked(payment_id: int) -> Payment:
    """A payment by its id, held until the transaction ends. Within a transaction."""
    return Payment(*db.rows(_LOCK_ID, id=payment_id)[0])


def hold(payment_id: int) -> None:
    """Lock a payment until the transaction ends, before any money of it. Within a transaction."""
    db.rows("select 1 from payments where id = %(id)s for no key update", id=payment_id)


def hold_many(payment_ids: Iterable[int]) -> None:
    """Lock payments in order of id until the transaction ends, before any money of them. Within a transaction."""
    db.rows("select 1 from payments where id = any(%(ids)s) order by id for no key update", ids=sorted(set(payment_ids)))


def open_of(bill_id: int) -> list[Payment]:
    """The payments of a bill that have not come to an end, newest first."""
    return [Payment(*row) for row in db.rows(_OPEN_OF, bill_id=bill_id)]


def bill_of(payment: Payment) -> Bill:
    """The bill a payment is for."""
    found = invoicing.find(payment.payer_id, payment.bill_number)
    if found is None:
        raise LookupError(payment.bill_number)
    return found


def came_for(bill: Bill) -> Came:
    """What has been received and credited for a bill so far, over all of its payments."""
    return Came(*db.rows(_CAME, bill_id=bill.id)[0])


def due(bill: Bill) -> Money:
    """What is still to be paid of a bill: less than its total once a payment brought less than was asked for.

    The whole of it again, when enough came and the bill was not paid with it: that money is on the balance.
    """
    rest = bill.total - came_for(bill).received
    return Money(rest, bill.currency) if rest > 0 else bill.amount


def timeline(payment: Payment) -> list[Step]:
    """What happened to a payment, in order."""
    return [Step(*row) for row in db.rows(_TIMELINE, payment_id=payment.id)]


def note(payment_id: int, state: str, text: str = "", actor: str = "system") -> None:
    """Write one step of a payment's history. Within a transaction."""
    db.execute(EVENT, payment_id=payment_id, at=clock.now(), state=state, note=text, actor=actor)


def new_public_id() -> str:
    """An id nobody can guess: 128 bits."""
    return f"pay_{secrets.token_hex(16)}"


def end_review(payment_id: int, state: str, text: str, actor: str) -> None:
    """Note what became of held money; a payment of which nothing was credited and nothing waits any more is ``returned`` or ``dismissed`` then.

    `state` ``review`` takes it back onto the list. Within a transaction.
    """
    ended = db.scalar(_END_REVIEW, id=payment_id, state=state, now=clock.now())
    note(payment_id, ended or db.rows("select state from payments where id = %(id)s", id=payment_id)[0].state, text, actor)


_END_REVIEW = """
update payments set state = %(state)s, updated_at = %(now)s
where id = %(id)s and state in ('review', 'returned', 'dismissed')
  and (%(state)s = 'review' or not exists (select from held where payment_id = %(id)s and state in ('held', 'returning')))
returning state
"""
_RESTATE = """
update payments set updated_at = %(now)s, state = case
  when state = 'taken_back' then state when %(disputed)s then 'disputed' when %(back)s = 'whole' then 'refunded' when %(back)s = 'part' then 'partially_refunded' else 'paid' end
where id = %(id)s returning state, bill_id, public_id
"""


def restate(payment_id: int, *, back: str, disputed: bool, text: str, actor: str = "system") -> None:
    """Keep a credited payment's state, and its bill's, in step: how much of it went back in all (``whole``, ``part`` or nothing), and whether its bank took it.

    Within a transaction.
    """
    row = db.rows(_RESTATE, id=payment_id, back=back, disputed=disputed, now=clock.now())[0]
    note(payment_id, row.state, text, actor)
    invoicing.mark_refunded(row.bill_id, row.public_id, refunded=row.state in {"refunded", "taken_back"})


def mark_taken_back(payment_id: int, text: str) -> None:
    """The sender's bank took a transfer back: the payment stays taken back, and a top-up it paid is no longer paid. Within a transaction."""
    row = db.rows("update payments set state = 'taken_back', updated_at = %(now)s where id = %(id)s returning bill_id, public_id", id=payment_id, now=clock.now())[0]
    note(payment_id, "taken_back", text, "bank")
    invoicing.mark_refunded(row.bill_id, row.public_id, refunded=True)
