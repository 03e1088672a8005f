"""Money held for a person and its way out, the paper of a refund, inquiries, and what happened to a dispute."""

from alembic import op

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None

UP = """
create table held (
  id bigint generated always as identity primary key,
  number text not null unique,
  payment_id bigint not null references payments,
  transfer_id bigint unique references transfers,
  amount bigint check (amount > 0),
  currency char(3),
  reason text not null,
  held_at timestamptz not null,
  updated_at timestamptz not null,
  state text not null default 'held' check (state in ('held', 'credited', 'returning', 'returned', 'dismissed')),
  decision text check (decision in ('credit', 'return', 'dismiss')),
  way text not null default 'source' check (way in ('source', 'bank')),
  iban text,
  holder text,
  approvals_needed smallint not null default 1 check (approvals_needed between 1 and 2),
  tries integer not null default 0,
  send_key text,
  attempted_at timestamptz,
  gateway_reference text,
  check (num_nulls(transfer_id, amount, currency) in (0, 3)),
  check (way = 'source' or (iban is not null and holder is not null and approvals_needed = 2)),
  constraint held_money_is_not_dismissed check (state <> 'dismissed' or amount is null),
  constraint only_money_moves check (state in ('held', 'dismissed') or amount is not null)
);
create index held_payment on held (payment_id);
create index held_open on held (id) where state in ('held', 'returning');
create table held_events (
  id bigint generated always as identity primary key,
  held_id bigint not null references held,
  at timestamptz not null,
  state text not null,
  note text not null default '',
  actor text not null
);
create index held_events_held on held_events (held_id, id);
create table held_approvals (
  held_id bigint not null references held,
  actor text not null,
  at timestamptz not null,
  primary key (held_id, actor)
);

-- What was held before there was a list of it. After a downgrade the ledger may know that some of it was let out, and under which numbers: neither is listed or given again.
select setval(pg_get_serial_sequence('held', 'id'), last) from (
  select max(substring(reference from '^HM-(\\d+):')::bigint) as last from transfers where reference ~ '^HM-\\d+:'
) known where last is not null;
with moved as (
  select t.id, t.payment_id, t.kind, t.description, t.posted_at, e.amount, e.currency
  from transfers t join entries e on e.transfer_id = t.id join accounts a on a.id = e.account_id and a.kind = 'suspense' and a.key = ''
  where t.payment_id is not null
), arrived as (
  select *, row_number() over (partition by payment_id, amount, currency order by id) as place from moved where kind = 'arrived' and amount > 0
), still as (
  select * from arrived a where place > (
    select count(*) filter (where m.amount < 0) - count(*) filter (where m.amount > 0 and m.kind <> 'arrived') from moved m
    where m.payment_id = a.payment_id and m.currency = a.currency and abs(m.amount) = a.amount
  )
)
insert into held (number, payment_id, transfer_id, amount, currency, reason, held_at, updated_at)
select 'new ' || id, payment_id, id, amount, currency, description, posted_at, posted_at from still order by id;
insert into held (number, payment_id, reason, held_at, updated_at)
select 'new p' || p.id, p.id,
  coalesce((select note from payment_events v where v.payment_id = p.id and v.state = 'review' order by v.id desc limit 1), ''), p.updated_at, p.updated_at
from payments p where p.state = 'review' and not exists (select from held h where h.payment_id = p.id)
order by p.id;
update held set number = 'HM-' || lpad(id::text, greatest(6, length(id::text)), '0');
insert into held_events (held_id, at, state, note, actor) select id, held_at, 'held', reason, 'system' from held order by id;

alter table payments drop constraint payments_state_check, add constraint payments_state_check
  check (state in ('created', 'unknown', 'pending', 'paid', 'failed', 'expired', 'partially_refunded', 'refunded', 'disputed', 'review', 'returned', 'dismissed'));

alter table documents add column refund_id bigint references refunds;
alter table documents drop constraint documents_kind_check, add constraint documents_kind_check
  check (kind in ('proforma', 'invoice', 'receipt', 'credit_note', 'refund_receipt'));
drop index documents_bill;
create unique index documents_bill on documents (bill_id, kind) where kind not in ('credit_note', 'refund_receipt');
create unique index documents_refund on documents (refund_id, kind) where refund_id is not null;

alter table disputes drop constraint disputes_state_check, add constraint disputes_state_check check (state in ('inquiry', 'open', 'won', 'lost', 'closed'));
create table dispute_events (
  id bigint generated always as identity primary key,
  dispute_id bigint not null references disputes,
  at timestamptz not null,
  state text not null,
  note text not null default '',
  actor text not null
);
create index dispute_events_dispute on dispute_events (dispute_id, id);
insert into dispute_events (dispute_id, at, state, note, actor)
select d.id, d.opened_at, 'open', d.reason, p.gateway from disputes d join payments p on p.id = d.payment_id order by d.id;
insert into dispute_events (dispute_id, at, state, actor)
select d.id, d.closed_at, d.state, p.gateway from disputes d join payments p on p.id = d.payment_id where d.closed_at is not null order by d.id;
alter table sandbox_disputes drop constraint sandbox_disputes_state_check, add constraint sandbox_disputes_state_check check (state in ('inquiry', 'open', 'won', 'lost', 'closed'));
"""

DOWN = """
alter table sandbox_disputes drop constraint sandbox_disputes_state_check, add constraint sandbox_disputes_state_check check (state in ('open', 'won', 'lost'));
drop table dispute_events;
alter table disputes drop constraint disputes_state_check, add constraint disputes_state_check check (state in ('open', 'won', 'lost'));
drop index documents_refund, documents_bill;
create unique index documents_bill on documents (bill_id, kind) where kind <> 'credit_note';
alter table documents drop constraint documents_kind_check, add constraint documents_kind_check check (kind in ('proforma', 'invoice', 'receipt', 'credit_note'));
alter table documents drop column refund_id;
alter table payments drop constraint payments_state_check, add constraint payments_state_check
  check (state in ('created', 'unknown', 'pending', 'paid', 'failed', 'expired', 'partially_refunded', 'refunded', 'disputed', 'review'));
drop table held_approvals, held_events, held;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
