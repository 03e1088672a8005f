"""Proof that the books are right: everything that must be true is asked of the database again, from the entries up.

The books are walked in the order they were written, a slice of transfers at a time; each slice is one statement and so one moment, which
lets the proof run beside living traffic and in bounded memory. An entry is proved against the one before it in its account; that the last
one agrees with the account then proves, by induction, the sums, the sequence and the chain of the whole account.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from app import db, guard

SLICE = 50_000
"""Transfers or accounts in one statement: a hundred thousand entries or so."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be: its kind in a word, and a sentence that names the row."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def check(progress: Callable[[int, int], None] | None = None) -> Iterator[Fault]:
    """Prove the whole ledger and what must agree with it; yields each fault as it is found, the books' first.

    The last ones, of the kind ``unprotected``, say where history could be changed behind our back.

    `progress(done, total)` is called after each slice; the unit is ids walked. The slices are proved two at a time.
    """
    spans = {row.walk: (row.low, row.high) for row in db.rows(_SPANS)}
    slices = [
        (statements, start, min(start + SLICE, spans[walk][1]))
        for walk, statements in _PASSES.items()
        for start in range(*spans[walk], SLICE)
    ]  # fmt: skip
    total, done = sum(high - low for _, low, high in slices), 0
    for (_, low, high), faults in zip(slices, _prove(slices), strict=True):
        yield from faults
        done += high - low
        if progress:
            progress(done, total)
    for statement in (_PAYMENTS, _BILLS, _CONVERSIONS, _NUMBERS):
        yield from _faults(statement)
    yield from (Fault("unprotected", finding.what) for finding in guard.findings())


_Slice = tuple[Sequence[str], int, int]
"""Statements that find faults among the ids above the first number up to the second."""


def _prove(slices: Sequence[_Slice]) -> Iterator[list[Fault]]:
    workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ledger-check")
    try:
        yield from workers.map(lambda task: task[0].run(_prove_slice, *task[1]), [(copy_context(), part) for part in slices])
    finally:
        workers.shutdown(cancel_futures=True)


def _prove_slice(statements: Sequence[str], low: int, high: int) -> list[Fault]:
    with db.snapshot(**_PLANNER):
        return [fault for statement in statements for fault in _faults(statement, low=low, high=high)]


def _faults(statement: str, **params: object) -> list[Fault]:
    found = db.rows(statement, **params)
    if statement is _ENTRIES:  # the few wrong ones are put in order here: the planner would sort all before it looks at them
        found = sorted(found, key=lambda row: (row.transfer_id, row.account_id))
    return [Fault(row.kind, row.what) for row in found]


# Each entry asks for another one before it, so remembering answers only costs; no slice is long enough to be compiled; the slices themselves
# are proved side by side.
_PLANNER = {"enable_memoize": "off", "jit": "off", "max_parallel_workers_per_gather": "0", "work_mem": "64MB"}


# Ids walked by each pass: (low, high]. An entry without its transfer is walked too.
_SPANS = """
select 'transfers' as walk, coalesce(least((select min(id) from transfers), (select min(transfer_id) from entries)), 1) - 1 as low,
  coalesce(greatest((select max(id) from transfers), (select max(transfer_id) from entries)), 0) as high
union all select 'takings', coalesce(min(id), 1) - 1, coalesce(max(id), 0) from transfers
union all select 'accounts', coalesce(min(id), 1) - 1, coalesce(max(id), 0) from accounts
union all select 'lots', coalesce(min(id), 1) - 1, coalesce(max(id), 0) from lots
union all select 'files', coalesce(min(document_id), 1) - 1, coalesce(max(document_id), 0) from document_files
"""

# No entry is zero, so one entry alone is unbalanced.
_UNBALANCED = """
with sums as materialized (
  select transfer_id, currency, sum(amount) as net from entries where transfer_id > %(low)s and transfer_id <= %(high)s group by transfer_id, currency
)
select 'unbalanced' as kind, format('transfer %%s (%%s): its entries in %%s sum to %%s', t.id, t.reference, s.currency, s.net) as what, t.id
from sums s join transfers t on t.id = s.transfer_id where s.net <> 0
union all
select 'empty', format('transfer %%s (%%s) has no entries', t.id, t.reference), t.id
from transfers t where t.id > %(low)s and t.id <= %(high)s and not exists (select from sums s where s.transfer_id = t.id)
order by 3
"""

_ENTRIES = """
select case
    when t.id is null then 'orphan'
    when a.id is null then 'orphan'
    when e.currency <> a.currency then 'currency'
    when e.kind <> t.kind then 'kind'
    when not a.tracked and e.seq <> e.transfer_id or a.tracked and e.seq > 1 and p.seq is null or e.seq < 1 then 'sequence'
    when a.tracked and e.balance_after is distinct from coalesce(p.balance_after, 0) + e.amount or not a.tracked and e.balance_after is not null then 'balance'
    when a.floor is not null and e.balance_after < a.floor then 'negative'
    when a.tracked and e.credited_after is distinct from coalesce(p.credited_after, 0) + greatest(e.amount, 0) or not a.tracked and e.credited_after is not null then 'credited'
    when e.posted_at <> greatest(p.posted_at, t.posted_at) then 'time'
    else 'chain' end as kind,
  format('entry %%s of account %%s (%%s), transfer %%s (%%s): ', e.seq, e.account_id, coalesce(a.kind, 'no such account'), e.transfer_id, coalesce(t.reference, 'no such transfer'))
    || case
    when t.id is null or a.id is null then 'it belongs to nothing'
    when e.currency <> a.currency then format('it is in %%s, the account in %%s', e.currency, a.currency)
    when e.kind <> t.kind then format('its kind is %%s, that of its transfer %%s', e.kind, t.kind)
    when not a.tracked and e.seq <> e.transfer_id or a.tracked and e.seq > 1 and p.seq is null or e.seq < 1 then 'the sequence has a gap before it'
    when a.tracked and e.balance_after is distinct from coalesce(p.balance_after, 0) + e.amount or not a.tracked and e.balance_after is not null
      then format('the balance after it is %%s, not %%s', e.balance_after, coalesce(p.balance_after, 0) + e.amount)
    when a.floor is not null and e.balance_after < a.floor then format('the balance after it is %%s', e.balance_after)
    when a.tracked and e.credited_after is distinct from coalesce(p.credited_after, 0) + greatest(e.amount, 0) or not a.tracked and e.credited_after is not null
      then 'the sum of credits after it is wrong'
    when e.posted_at <> greatest(p.posted_at, t.posted_at) then 'its time is not that of its transfer or of the entry before it'
    else 'its hash is not that of its content' end as what, e.transfer_id, e.account_id
from entries e
left join transfers t on t.id = e.transfer_id
left join accounts a on a.id = e.account_id
left join lateral (
  select p.seq, p.balance_after, p.credited_after, p.posted_at, p.hash from entries p where p.account_id = e.account_id and p.seq = e.seq - 1 and a.tracked offset 0
) p on true
where e.transfer_id > %(low)s and e.transfer_id <= %(high)s and (
  t.id is null or a.id is null or e.currency <> a.currency or e.kind <> t.kind
  or e.hash <> entry_hash(coalesce(p.hash, ''), e.account_id, e.seq, e.amount, e.currency, coalesce(e.balance_after, 0), coalesce(e.credited_after, 0), e.posted_at, transfer_content(t))
  or e.posted_at <> greatest(p.posted_at, t.posted_at) or e.seq < 1
  or case when a.tracked
    then e.balance_after is distinct from coalesce(p.balance_after, 0) + e.amount or e.balance_after < a.floor
      or e.credited_after is distinct from coalesce(p.credited_after, 0) + greatest(e.amount, 0) or e.seq > 1 and p.seq is null
    else e.seq <> e.transfer_id or e.balance_after is not null or e.credited_after is not null end)
"""

_ACCOUNTS = """
select case
    when a.entry_count <> coalesce(e.seq, 0) then 'sequence'
    when a.balance <> coalesce(e.balance_after, 0) then 'balance'
    when a.balance < a.floor then 'negative'
    when a.credited <> coalesce(e.credited_after, 0) then 'credited'
    when a.head <> coalesce(e.hash, '') or a.last_at is distinct from e.posted_at then 'chain'
    else 'lots' end as kind,
  format('account %%s (%%s %%s): ', a.id, a.kind, a.currency) || case
    when a.entry_count <> coalesce(e.seq, 0) then format('it counts %%s entries, the last one is %%s', a.entry_count, coalesce(e.seq, 0))
    when a.balance <> coalesce(e.balance_after, 0) then format('its balance is %%s, its entries sum to %%s', a.balance, coalesce(e.balance_after, 0))
    when a.balance < a.floor then format('its balance is %%s', a.balance)
    when a.credited <> coalesce(e.credited_after, 0) then 'its sum of credits is not that of its entries'
    when a.head <> coalesce(e.hash, '') or a.last_at is distinct from e.posted_at then 'its head is not its last entry'
    else format('its lots hold %%s, its balance is %%s', l.remaining, a.balance) end as what
from accounts a
left join lateral (select * from entries e where e.account_id = a.id and a.tracked order by e.seq desc limit 1) e on true
left join lateral (select coalesce(sum(remaining), 0) as remaining from lots l where l.account_id = a.id) l on true
where a.id > %(low)s and a.id <= %(high)s and (
  a.entry_count <> coalesce(e.seq, 0) or a.balance <> coalesce(e.balance_after, 0) or a.balance < a.floor or a.credited <> coalesce(e.credited_after, 0)
  or a.head <> coalesce(e.hash, '') or a.last_at is distinct from e.posted_at
  or l.remaining <> case when a.kind in ('wallet', 'bonus') then a.balance else 0 end)
order by a.id
"""

_LOTS = """
select 'allocations' as kind, format('lot %%s of account %%s: %%s of %%s remain, its allocations take %%s', l.id, l.account_id, l.remaining, l.credited, taken.amount) as what
from lots l cross join lateral (select coalesce(sum(amount), 0) as amount from allocations where lot_id = l.id) taken
where l.id > %(low)s and l.id <= %(high)s and (l.remaining <> l.credited - taken.amount or l.remaining < 0 or l.remaining > l.credited)
order by l.id
"""

# What a transfer does to a wallet or bonus is what it opens in lots less what it takes from them.
_TAKINGS = """
with moved as (
  select e.transfer_id, e.account_id, e.amount from entries e join accounts a on a.id = e.account_id
  where e.transfer_id > %(low)s and e.transfer_id <= %(high)s and a.kind in ('wallet', 'bonus')
), lotted as (
  select transfer_id, account_id, sum(amount) as amount from (
    select transfer_id, account_id, credited as amount from lots where transfer_id > %(low)s and transfer_id <= %(high)s
    union all
    select al.transfer_id, l.account_id, -al.amount from allocations al join lots l on l.id = al.lot_id where al.transfer_id > %(low)s and al.transfer_id <= %(high)s
  ) parts group by transfer_id, account_id
)
select 'allocations' as kind, format('transfer %%s moves %%s on account %%s, its lots say %%s', transfer_id, coalesce(m.amount, 0), account_id, coalesce(l.amount, 0)) as what
from moved m full join lotted l using (transfer_id, account_id)
where coalesce(m.amount, 0) <> coalesce(l.amount, 0)
order by transfer_id, account_id
"""

_FILES = """
select 'file' as kind, format('the stored PDF of document %%s is not the one that was issued', coalesce(d.number, f.document_id::text)) as what
from document_files f left join documents d on d.id = f.document_id
where f.document_id > %(low)s and f.document_id <= %(high)s and f.sha256 <> sha256(f.pdf)
order by f.document_id
"""

# More that came to a payment after it was credited bears the sum it came to at the end of its reference, and is no second credit.
_PAYMENTS = """
with credits as (
  select t.payment_id, count(*) filter (where t.reference !~ ':credit:[0-9]+$') as times, sum(e.amount) as amount
  from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id and a.kind = 'wallet'
  where t.payment_id is not null and t.kind in ('topup', 'matched') group by t.payment_id
)
select 'payment' as kind, format('payment %%s is %%s and was credited %%s times, with %%s instead of %%s', p.public_id, p.state, coalesce(c.times, 0), coalesce(c.amount, 0),
  coalesce(p.credited, 0)) as what
from payments p left join credits c on c.payment_id = p.id
where case when p.state in ('paid', 'partially_refunded', 'refunded', 'disputed', 'taken_back')
  then c.times is distinct from 1 or c.amount is distinct from p.credited
  else c.times is not null end
order by p.id
"""

# What the documents say was sold is what the books say was earned: a paid service bill has one
# charge, whose net and VAT are the bill's, in its currency and owed to the buyer's country, and by
# what its bonus covered the price fell; a paid top-up bill has brought its amount to a wallet; and
# nothing was charged for a bill that is not paid.
_BILLS = """
with moved as (
  select t.bill_id,
    count(distinct t.id) filter (where t.kind = 'charge') as charges,
    coalesce(sum(e.amount) filter (
      where t.kind = 'charge' and a.kind = 'revenue' and e.currency = b.currency
    ), 0) as net,
    coalesce(sum(e.amount) filter (
      where t.kind = 'charge' and a.kind = 'vat' and e.currency = b.currency and a.key = b.buyer ->> 'country'
    ), 0) as tax,
    coalesce(-sum(e.amount) filter (where t.kind = 'charge' and a.kind = 'bonus'), 0) as bonus,
    coalesce(sum(e.amount) filter (where t.kind = 'charge' and a.kind = 'promotions'), 0) as given,
    count(distinct t.id) filter (where t.kind <> 'charge' and a.kind = 'wallet') as credits
  from transfers t
  join bills b on b.id = t.bill_id
  join entries e on e.transfer_id = t.id
  join accounts a on a.id = e.account_id
  where t.bill_id is not null and t.kind in ('charge', 'topup', 'matched')
  group by t.bill_id
)
select 'bill' as kind,
  format(
    'bill %%s is %%s with net %%s, VAT %%s and a bonus of %%s; the ledger has %%s charges with %%s and %%s, bonus %%s and %%s, %%s credits',
    coalesce(b.invoice_number, b.proforma_number), b.status, b.net, b.tax, coalesce(b.allowance, 0),
    coalesce(m.charges, 0), coalesce(m.net, 0), coalesce(m.tax, 0), coalesce(m.bonus, 0),
    coalesce(m.given, 0), coalesce(m.credits, 0)
  ) as what
from bills b
left join moved m on m.bill_id = b.id
where case
  when b.kind = 'service' and b.paid_at is not null
    then (coalesce(m.charges, 0), coalesce(m.net, 0), coalesce(m.tax, 0)) <> (1, b.net, b.tax)
      -- without an allowance it was paid before a bonus lowered the price
      or (m.bonus, m.given) <> (b.allowance, b.allowance)
  when b.kind = 'service' then coalesce(m.charges, 0) <> 0
  when b.paid_at is not null then coalesce(m.credits, 0) = 0
  else false end
order by b.id
"""

# A conversion moves what its quote says, and a lot that goes on is of the same money: no more was paid for its parts than for the whole.
_CONVERSIONS = """
with moved as (
  select v.id, q.pay_amount, q.credit_amount, coalesce(-sum(e.amount) filter (where e.currency = q.pay_currency), 0) as taken,
    coalesce(sum(e.amount) filter (where e.currency = q.credit_currency), 0) as given
  from conversions v join quotes q on q.id = v.quote_id
  left join entries e on e.transfer_id = v.transfer_id and e.account_id in (select id from accounts where customer_id = v.customer_id and kind in ('wallet', 'bonus'))
  group by v.id, q.id
)
select 'conversion' as kind, format('conversion %%s moves %%s into %%s, its quote says %%s into %%s', id, taken, given, pay_amount, credit_amount) as what
from moved where (taken, given) <> (pay_amount, credit_amount)
union all
select 'conversion', format('lot %%s does not go on where lot %%s ended', n.id, l.id)
from lots n join lots l on l.id = n.continues
where (n.customer_id, n.kind, n.paid_currency) <> (l.customer_id, l.kind, l.paid_currency) or n.payment_id is distinct from l.payment_id
  or n.expires_at is distinct from l.expires_at or not exists (select from allocations a where a.lot_id = l.id and a.transfer_id = n.transfer_id)
union all
select 'conversion', format('lot %%s was paid with %%s, and what goes on of it with %%s', l.id, l.paid, sum(n.paid))
from lots n join lots l on l.id = n.continues group by l.id having sum(n.paid) > l.paid
"""

_NUMBERS = """
with numbers as (
  select number from documents union select proforma_number from bills where proforma_number is not null union select invoice_number from bills where invoice_number is not null
), parts as (
  select split_part(number, '-', 1) as prefix, split_part(number, '-', 2)::integer as year, split_part(number, '-', 3)::bigint as place from numbers
), used as (
  select prefix, year, count(*) as count, max(place) as last from parts group by prefix, year
), series as (
  select case kind when 'proforma' then 'PF' when 'invoice' then 'INV' when 'topup_invoice' then 'TU' when 'receipt' then 'RC' when 'credit_note' then 'CN' when 'refund_receipt' then 'RR' else kind end as prefix, year, last from number_series
)
select 'number' as kind, format('series %%s-%%s: %%s numbers are used, the last is %%s and the counter says %%s; %%s',
  prefix, year, coalesce(u.count, 0), coalesce(u.last, 0), coalesce(s.last, 0),
  coalesce('missing is ' || (
    select min(n) from generate_series(1, greatest(u.last, s.last)) n where not exists (select from parts where parts.prefix = u.prefix and parts.year = u.year and parts.place = n)
  ), 'none is missing')) as what
from used u full join series s using (prefix, year)
where u.count is distinct from u.last or u.last is distinct from s.last
order by prefix, year
"""

_PASSES: Mapping[str, Sequence[str]] = {
    "transfers": (_UNBALANCED, _ENTRIES),
    "accounts": (_ACCOUNTS,),
    "lots": (_LOTS,),
    "takings": (_TAKINGS,),
    "files": (_FILES,),
}
