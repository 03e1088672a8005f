"""Money back out: refund requests with every step, and disputes."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UP = """
create table refunds (
  id bigint generated always as identity primary key,
  number text not null unique,
  payment_id bigint not null references payments,
  lot_id bigint not null references lots,
  customer_id bigint not null references customers,
  amount bigint not null check (amount > 0),
  currency char(3) not null,
  payout bigint not null check (payout > 0),
  payout_currency char(3) not null,
  state text not null default 'requested' check (state in ('requested', 'approved', 'declined', 'sent', 'settled', 'failed')),
  reason text not null default '',
  answer text not null default '',
  gateway_reference text,
  requested_at timestamptz not null,
  updated_at timestamptz not null
);
create index refunds_customer on refunds (customer_id, id desc);
create index refunds_payment on refunds (payment_id);

create table refund_events (
  id bigint generated always as identity primary key,
  refund_id bigint not null references refunds,
  at timestamptz not null,
  state text not null,
  note text not null default '',
  actor text not null
);
create index refund_events_refund on refund_events (refund_id, id);

create table disputes (
  id bigint generated always as identity primary key,
  payment_id bigint not null references payments,
  customer_id bigint not null references customers,
  gateway_reference text not null unique,
  amount bigint not null check (amount > 0),
  currency char(3) not null,
  state text not null check (state in ('open', 'won', 'lost')),
  reason text not null default '',
  opened_at timestamptz not null,
  closed_at timestamptz
);
create index disputes_customer on disputes (customer_id);

alter table transfers add foreign key (refund_id) references refunds;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("alter table transfers drop constraint transfers_refund_id_fkey")
    op.execute("drop table disputes, refund_events, refunds")
