"""Exchange rates, append-only, and the quotes that fix one."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = """
create table rates (
  source text not null,
  currency char(3) not null,
  rate_date date not null,
  rate numeric(20, 10) not null check (rate > 0),
  fetched_at timestamptz not null,
  primary key (source, currency, rate_date)
);
create index rates_currency on rates (currency, rate_date desc);

create table quotes (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  pay_amount bigint not null check (pay_amount > 0),
  pay_currency char(3) not null,
  credit_amount bigint not null check (credit_amount > 0),
  credit_currency char(3) not null,
  rate numeric(24, 12) not null check (rate > 0),
  spread_bp integer not null default 0,
  spread_amount bigint not null default 0,
  rate_date date not null,
  source text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index quotes_customer on quotes (customer_id);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table quotes, rates")
