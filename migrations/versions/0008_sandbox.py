"""The pretend processor's own books. They stand for another company's database: nothing of ours refers to them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = """
create table sandbox_sessions (
  reference text primary key,
  charge_id text not null unique,
  method text not null,
  title text not null,
  amount bigint not null check (amount > 0),
  currency char(3) not null,
  return_url text not null,
  cancel_url text not null,
  state text not null default 'open' check (state in ('open', 'pending', 'paid', 'failed', 'expired')),
  next_state text check (next_state = 'paid'),
  next_at timestamptz,
  received bigint,
  label text not null default '',
  failure_code text not null default '',
  failure_message text not null default '',
  paid_at timestamptz,
  opened_at timestamptz not null,
  expires_at timestamptz not null,
  check ((next_state is null) = (next_at is null))
);

create table sandbox_deliveries (
  id bigint generated always as identity primary key,
  event_id text not null,
  body bytea not null,
  due_at timestamptz not null,
  delivered_at timestamptz,
  tries integer not null default 0,
  answer text not null default ''
);
create index sandbox_deliveries_due on sandbox_deliveries (due_at, id) where delivered_at is null;

create table sandbox_refunds (
  key text primary key,
  reference text not null references sandbox_sessions,
  refund text not null,
  amount bigint not null check (amount > 0),
  at timestamptz not null
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table sandbox_refunds, sandbox_deliveries, sandbox_sessions")
