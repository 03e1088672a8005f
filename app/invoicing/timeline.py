"""What happened to a bill, step by step: issued, payment started, paid, credited, each with its time and reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import db
from app.invoicing.bills import Bill


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened. `tone` is ``credit`` for money that arrived, ``danger`` for what failed, else quiet; `path` leads to its paper."""

    at: datetime
    what: str
    reference: str = ""
    tone: str = ""
    path: str = ""


_PAYMENTS = """
with moved as (
  select t.id, t.posted_at, t.kind, t.description, t.reference, t.refund_id
  from transfers t
  where t.bill_id = %(bill_id)s
  union
  select t.id, t.posted_at, t.kind, t.description, t.reference, t.refund_id
  from payments p
  cross join lateral (select * from transfers where payment_id = p.id offset 0) t
  where p.bill_id = %(bill_id)s
)
select p.created_at as at, 'started' as step, p.method_label as label, p.public_id as reference, '' as hash
from payments p where p.bill_id = %(bill_id)s
union all
select p.updated_at, 'failed', coalesce(p.failure_message, ''), p.public_id, ''
from payments p where p.bill_id = %(bill_id)s and p.state in ('failed', 'expired')
union all
select e.at, 'dispute_' || e.state, '', d.gateway_reference, ''
from dispute_events e join disputes d on d.id = e.dispute_id join payments p on p.id = d.payment_id
where p.bill_id = %(bill_id)s and e.state in ('inquiry', 'closed', 'lost')
union all
select d.issued_at, 'receipt', '', d.number, '' from documents d where d.bill_id = %(bill_id)s and d.kind = 'refund_receipt'
union all
select d.issued_at, 'reissued', '', d.number, ''
from documents d
join bills b on b.id = d.bill_id
where d.bill_id = %(bill_id)s
  and d.kind = 'proforma'
  and d.issued_at > b.issued_at
union all
select t.posted_at, t.kind, t.description, t.reference, encode(e.hash, 'hex')
from moved t
join lateral (
  select e.hash from entries e join accounts a on a.id = e.account_id
  where e.transfer_id = t.id and a.kind in ('wallet', 'bonus') order by a.kind = 'wallet' desc limit 1
) e on true
where t.refund_id is null
  and not (%(for_another)s and t.kind = 'debt_settled')  -- what the other owed is none of the payer's business
union all
select min(e.at), 'refund_' || e.state, '', r.number, ''
from refund_events e join refunds r on r.id = e.refund_id join payments p on p.id = r.payment_id
where p.bill_id = %(bill_id)s
group by r.number, e.state  -- who else of support said so is no step of the customer's
"""

_WORDS = {
    "started": ("Payment started", ""),
    "failed": ("Payment did not go through", "danger"),
    "topup": ("Credited to the balance", "credit"),
    "matched": ("Transfer arrived and credited", "credit"),
    "charge": ("Charged to the balance", ""),
    "charge_refund": ("Returned to the balance", "credit"),
    "refund_requested": ("Refund requested", ""),
    "refund_approved": ("Refund approved", ""),
    "refund_sent": ("Refund sent", ""),
    "refund_settled": ("Refund settled", "credit"),
    "refund_declined": ("Refund declined", ""),
    "refund_withdrawn": ("Refund withdrawn", ""),
    "refund_failed": ("Refund failed", "danger"),
    "dispute_opened": ("Disputed with the bank", "danger"),
    "dispute_won": ("Dispute won", "credit"),
    "dispute_lost": ("Dispute lost", "danger"),
    "dispute_inquiry": ("The payer's bank asks about it", ""),
    "dispute_closed": ("The bank has its answer", ""),
    "debt_settled": ("Settled what a dispute left owing", ""),
    "receipt": ("Refund receipt", ""),
    "reissued": ("VAT changed, new invoice for payment", ""),
    "reversal": ("Taken back by the sender's bank", "danger"),
}
_CLOSED = {"cancelled": "Cancelled", "expired": "Expired unpaid"}


def timeline(bill: Bill) -> list[Step]:
    """Everything that happened to a bill so far, each thing once and in order, oldest first. One statement.

    Processors tell whole seconds: a payment is never paid before it was started, and what happened at once is in the order of causes.
    """
    rows = db.rows(_PAYMENTS, bill_id=bill.id, for_another=bill.for_another)
    started = {row.reference: row.at for row in rows if row.step == "started"}
    ranked = [*_own(bill, started), *_others(rows)]
    return [step for _, step in sorted(ranked, key=lambda found: (found[1].at, found[0]))]


_ISSUED, _STARTED, _ARRIVED, _PAID, _AFTER = range(5)


def _own(bill: Bill, started: Mapping[str, datetime]) -> Iterator[tuple[int, Step]]:
    yield _ISSUED, Step(bill.issued_at, "Issued", next(iter(bill.former_names), bill.proforma_number or ""))
    if bill.paid_at and bill.payment:
        covered = bill.allowance and not bill.total
        how = "with the bonus" if covered else "from the balance" if bill.payment["source"] == "balance" else f"by {bill.payment['method']}"
        at = max(bill.paid_at, bill.issued_at, started.get(bill.payment["reference"], bill.paid_at))
        yield _PAID, Step(at, f"Paid {how}", bill.payment["reference"], "credit")
    if bill.closed_at:
        yield _AFTER, Step(bill.closed_at, _CLOSED.get(bill.status, "Closed"))


def _others(rows: Sequence[db.Row]) -> Iterator[tuple[int, Step]]:
    for row in rows:
        what, tone = _WORDS.get(row.step, (row.step.replace("_", " ").capitalize(), ""))
        if row.step == "failed" and row.label:
            what = row.label
        elif row.step == "started" and row.label:
            what = f"{what}: {row.label}"
        rank = _STARTED if row.step == "started" else _ARRIVED if row.step in _WORDS and row.hash else _AFTER
        yield rank, Step(row.at, what, f"{row.hash[:4]}…{row.hash[-4:]}" if row.hash else row.reference, tone, f"/refunds/{row.reference}.pdf" if row.step == "receipt" else "")
