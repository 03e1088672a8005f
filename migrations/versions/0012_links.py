"""Links by which others pay: for one bill, or to top somebody's balance up; and which of them a payment was started from."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = """
-- The address holds the key and its signature; the key alone opens nothing.
create table links (
  id bigint generated always as identity primary key,
  key text not null unique,
  purpose text not null check (purpose in ('bill', 'topup')),
  customer_id bigint not null references customers,
  bill_id bigint references bills,
  name text not null default '',
  amount bigint check (amount > 0),
  currency char(3),
  created_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  check ((purpose = 'bill') = (bill_id is not null)),
  check (num_nulls(amount, currency) <> 1)
);
create unique index links_bill on links (bill_id) where revoked_at is null;
create index links_topup on links (customer_id, id desc) where purpose = 'topup';

-- Who came by a link comes back to a page without a login, so it has an open payment of its own.
alter table payments add column link_id bigint references links;
drop index payments_one_open;
create unique index payments_one_open on payments (bill_id, gateway, method, amount, currency, coalesce(link_id, 0)) where state in ('created', 'unknown', 'pending');
"""

DOWN = """
drop index payments_one_open;
alter table payments drop column link_id;
create unique index payments_one_open on payments (bill_id, gateway, method, amount, currency) where state in ('created', 'unknown', 'pending');
drop table links;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
