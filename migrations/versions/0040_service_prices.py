"""What a service goes on to cost for a while after its plan's price was raised."""

from alembic import op

revision = "0040"
down_revision = "0031"
branch_labels = None
depends_on = None

UP = """
-- Periods that begin before `until` cost `net` at most, whatever the plan costs by then: its owner
-- was told on `told_at` that the price rises.
create table kept_prices (
  service_id bigint not null references services,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  months integer not null check (months in (1, 3, 6, 12)),
  until date not null,
  net bigint not null check (net >= 0),
  told_at timestamptz not null,
  primary key (service_id, currency, months, until),
  check (until > told_at::date)
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table kept_prices")
