"""The ledger: accounts, transfers, entries, and the lots that say which payment each cent of a wallet came from."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = """
create table accounts (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('wallet', 'bonus', 'hold', 'gateway', 'bank', 'revenue', 'vat', 'fees', 'fx', 'rounding', 'suspense', 'debt', 'disputes', 'promotions')),
  customer_id bigint references customers,
  key text not null default '',
  currency char(3) not null,
  tracked boolean not null,
  floor bigint,
  balance bigint not null default 0,
  entry_count bigint not null default 0,
  credited bigint not null default 0,
  last_at timestamptz,
  head bytea not null default '\\x',
  check (floor is null or balance >= floor),
  check ((kind in ('wallet', 'bonus', 'hold', 'debt')) = (customer_id is not null)),
  check (kind not in ('wallet', 'bonus', 'hold') or (tracked and floor is not null and floor = 0)),
  unique nulls not distinct (kind, customer_id, key, currency)
) with (fillfactor = 50);
create index accounts_customer on accounts (customer_id) where customer_id is not null;

create table transfers (
  id bigint generated always as identity primary key,
  reference text not null unique,
  kind text not null check (kind in ('topup', 'charge', 'charge_refund', 'bonus', 'bonus_expired', 'refund_requested', 'refund_sent', 'refund_failed',
    'dispute_opened', 'dispute_won', 'dispute_lost', 'conversion', 'arrived', 'matched', 'reversal', 'correction', 'fee')),
  description text not null default '',
  actor text not null,
  posted_at timestamptz not null,
  payment_id bigint,
  bill_id bigint,
  service_id bigint,
  refund_id bigint,
  reverses bigint unique references transfers
);
create index transfers_payment on transfers (payment_id) where payment_id is not null;
create index transfers_bill on transfers (bill_id) where bill_id is not null;

create table entries (
  account_id bigint not null references accounts,
  seq bigint not null,
  transfer_id bigint not null references transfers,
  amount bigint not null check (amount <> 0),
  currency char(3) not null,
  balance_after bigint,
  credited_after bigint,
  posted_at timestamptz not null,
  hash bytea not null,
  primary key (account_id, seq)
);
create index entries_transfer on entries (transfer_id);

create table lots (
  id bigint generated always as identity primary key,
  account_id bigint not null references accounts,
  customer_id bigint not null references customers,
  transfer_id bigint not null references transfers,
  payment_id bigint,
  kind text not null check (kind in ('payment', 'bonus', 'correction')),
  paid bigint not null,
  paid_currency char(3) not null,
  credited bigint not null check (credited > 0),
  currency char(3) not null,
  remaining bigint not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  frozen_reason text,
  note text not null default '',
  check (remaining between 0 and credited)
);
create index lots_open on lots (account_id, id) where remaining > 0;
create index lots_payment on lots (payment_id);
create index lots_customer on lots (customer_id, id);

create table allocations (
  lot_id bigint not null references lots,
  transfer_id bigint not null references transfers,
  amount bigint not null check (amount <> 0),
  primary key (transfer_id, lot_id)
);
create index allocations_lot on allocations (lot_id);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table allocations, lots, entries, transfers, accounts")
