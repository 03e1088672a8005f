"""What a bill is to its reader: one code from its status, its kind and what its payments came to, and one table of words for it.

Lists, pages, documents, exports and mails all ask here, so that they say the same.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app import db
from app.money import Money

STATES: Final = {
    "unpaid": ("Unpaid", "wait"),
    "draft": ("Draft", ""),
    "review": ("Under review", "wait"),
    "pending": ("Payment on its way", "wait"),
    "transfer": ("Transfer on its way", "wait"),
    "partly_paid": ("Partly paid", "wait"),
    "paid": ("Paid", "credit"),
    "partly_refunded": ("Partly refunded", ""),
    "refunded": ("Refunded", ""),
    "disputed": ("Disputed", "danger"),
    "charged_back": ("Charged back", "danger"),
    "cancelled": ("Cancelled", ""),
    "expired": ("Expired", ""),
}
"""Word and tone of each state."""
BUSY: Final = frozenset({"review", "pending", "transfer"})
"""States in which money may be there already or soon: nothing is proposed that would pay it again."""

CAME: Final = """
case b.currency when p.received_currency then p.received - coalesce(h.not_credited, 0)
  when p.credited_currency then p.credited else 0 end
"""
"""What a credited payment `p` with its held money `h` brought for a bill `b`, in the bill's currency, minor units."""
HELD: Final = """
left join lateral (
  select sum(amount) filter (where state <> 'credited') as not_credited,
    bool_or(state in ('held', 'returning')) as waits
  from held
  where payment_id = p.id
) h on true
"""
CREDITED: Final = "p.state in ('paid', 'partially_refunded', 'refunded', 'disputed')"

FACTS: Final = f"""
cross join lateral (
  select coalesce(sum({CAME}) filter (where {CREDITED}), 0)::bigint as received,
    coalesce(bool_or(p.state = 'review' or h.waits), false) as review,
    coalesce(bool_or(p.state = 'pending' and p.gateway <> 'bank'), false) as pending,
    coalesce(bool_or(p.state = 'pending' and p.gateway = 'bank'), false) as transfer,
    coalesce(bool_or(own.counts and (p.state = 'taken_back' or own.lost)), false) as charged_back,
    coalesce(bool_or(own.counts and p.state = 'disputed'), false) as disputed,
    coalesce(bool_and(p.state = 'refunded') filter (where own.counts), false) as refunded,
    coalesce(bool_or(own.counts and p.state in ('refunded', 'partially_refunded')), false) as given_back
  from payments p
  {HELD}
  cross join lateral (
    select b.paid_at is not null and (p.public_id = b.payment ->> 'reference' or exists (
        select from payment_events e
        where e.payment_id = p.id and e.state = 'paid' and e.at < b.invoiced_at
      )) as counts,
      exists (select from disputes d where d.payment_id = p.id and d.state = 'lost') as lost
  ) own
  where p.bill_id = b.id
) went
"""  # noqa: S608 - constants
"""What the payments of a bill `b` came to. Of a paid one only those count that it was paid with: what came after is not its own."""
COLUMNS: Final = "went.received, went.review, went.pending, went.transfer, went.charged_back, went.disputed, went.refunded, went.given_back"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bill stands: its state's code, what came for it and what is still to be paid, in minor units of its currency.

    `due` is nothing once there is nothing to pay. `closed_at` is when it was cancelled or expired.
    """

    code: str
    received: int
    due: int
    currency: str
    closed_at: datetime | None = None

    @property
    def label(self) -> str:
        """The state as a word."""
        return STATES[self.code][0]

    @property
    def tone(self) -> str:
        """The tone of its badge."""
        return STATES[self.code][1]

    @property
    def over(self) -> bool:
        """Whether there is nothing to pay any more."""
        return not self.due

    @property
    def busy(self) -> bool:
        """Whether money may be there already or soon."""
        return self.code in BUSY

    @property
    def sent(self) -> bool:
        """Whether money surely left its payer: unlike a transfer, which is known only by its announcement."""
        return self.code in {"review", "pending"}

    @property
    def rest(self) -> Money:
        """What is still to be paid."""
        return Money(self.due, self.currency)


def read(row: db.Row) -> Standing:
    """The standing of a row of bills with `COLUMNS`: it has status, kind, total, currency and closed_at."""
    due = 0
    if row.status == "unpaid":
        rest = row.total - row.received
        due = rest if rest > 0 else row.total
    return Standing(_code(row), row.received, due, row.currency, row.closed_at)


def _code(row: db.Row) -> str:
    if row.status == "unpaid":
        partly = 0 < row.received < row.total
        known = {"review": row.review, "pending": row.pending, "partly_paid": partly, "transfer": row.transfer, "draft": row.kind == "topup"}
        return next((code for code, holds in known.items() if holds), "unpaid")
    if row.status in {"paid", "refunded"}:
        known = {"charged_back": row.charged_back, "disputed": row.disputed, "refunded": row.status == "refunded" or row.refunded, "partly_refunded": row.given_back}
        return next((code for code, holds in known.items() if holds), "paid")
    return str(row.status)


_STANDING = f"""
select b.status, b.kind, b.total, b.currency, b.closed_at, {COLUMNS}
from bills b {FACTS} where b.id = %(bill_id)s
"""  # noqa: S608 - constants


_STANDINGS = f"""
select b.proforma_number as number, b.status, b.kind, b.total, b.currency, b.closed_at, {COLUMNS}
from bills b {FACTS}
where b.customer_id = %(customer_id)s
  and b.proforma_number = any(%(numbers)s)
"""  # noqa: S608 - constants


def standings(customer_id: int, numbers: Collection[str]) -> dict[str, Standing]:
    """How a customer's bills of these pro forma numbers stand now. One statement, none for no number."""
    if not numbers:
        return {}
    rows = db.rows(_STANDINGS, customer_id=customer_id, numbers=list(numbers))
    return {row.number: read(row) for row in rows}


def standing(bill_id: int) -> Standing:
    """How a bill stands now. One statement, which holds nothing."""
    return read(db.rows(_STANDING, bill_id=bill_id)[0])
