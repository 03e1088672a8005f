"""Money in: payments, what happened to each, and the webhook inbox."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
create table payments (
  id bigint generated always as identity primary key,
  public_id text not null unique,
  bill_id bigint not null references bills,
  customer_id bigint not null references customers,
  payer_id bigint not null references customers,
  method text not null,
  gateway text not null,
  state text not null default 'created' check (state in ('created', 'unknown', 'pending', 'paid', 'failed', 'expired', 'partially_refunded', 'refunded', 'disputed', 'review')),
  amount bigint not null check (amount > 0),
  currency char(3) not null,
  quote_id bigint references quotes,
  charge jsonb not null,
  gateway_reference text,
  handoff_url text,
  method_label text not null default '',
  failure_code text,
  failure_message text,
  received bigint,
  received_currency char(3),
  fee bigint,
  fee_currency char(3),
  credited bigint,
  credited_currency char(3),
  rate_note text not null default '',
  created_at timestamptz not null,
  updated_at timestamptz not null,
  checked_at timestamptz not null,
  expires_at timestamptz not null,
  paid_at timestamptz,
  unique (gateway, gateway_reference),
  check (state not in ('paid', 'partially_refunded', 'refunded', 'disputed') or (credited is not null and received is not null and paid_at is not null)),
  check (num_nulls(received, received_currency) <> 1),
  check (num_nulls(credited, credited_currency) <> 1),
  check (num_nulls(fee, fee_currency) <> 1)
);
create index payments_bill on payments (bill_id);
create index payments_customer on payments (customer_id, id desc);
create index payments_open on payments (checked_at) where state in ('created', 'unknown', 'pending');
create index payments_given_up on payments (created_at) where state in ('failed', 'expired');
-- A double click, a second tab and Back find the payment that is already open.
create unique index payments_one_open on payments (bill_id, gateway, method, amount, currency) where state in ('created', 'unknown', 'pending');

create table payment_events (
  id bigint generated always as identity primary key,
  payment_id bigint not null references payments,
  at timestamptz not null,
  state text not null,
  note text not null default '',
  actor text not null default 'system'
);
create index payment_events_payment on payment_events (payment_id, id);

create table webhooks (
  id bigint generated always as identity primary key,
  gateway text not null,
  event_id text not null,
  received_at timestamptz not null,
  due_at timestamptz not null,
  headers jsonb not null,
  body bytea not null,
  state text not null default 'new' check (state in ('new', 'done', 'ignored', 'parked')),
  tries integer not null default 0,
  error text,
  reference text,
  processed_at timestamptz,
  unique (gateway, event_id)
);
create index webhooks_new on webhooks (due_at, id) where state = 'new';

alter table transfers add foreign key (payment_id) references payments, add foreign key (bill_id) references bills;
alter table lots add foreign key (payment_id) references payments;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("alter table transfers drop constraint transfers_payment_id_fkey, drop constraint transfers_bill_id_fkey; alter table lots drop constraint lots_payment_id_fkey")
    op.execute("drop table webhooks, payment_events, payments")
