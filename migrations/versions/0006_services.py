"""What customers run: plans with prices, services, and the periods each was charged for."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UP = """
create table plans (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('dedicated', 'vps', 'licence', 'ip')),
  code text not null unique,
  name text not null
);

create table prices (
  plan_id bigint not null references plans,
  currency char(3) not null,
  months integer not null check (months in (1, 3, 6, 12)),
  net bigint not null check (net > 0),
  primary key (plan_id, currency, months)
);

create table services (
  id bigint generated always as identity primary key,
  public_id text not null unique,
  customer_id bigint not null references customers,
  plan_id bigint not null references plans,
  label text not null,
  detail text not null default '',
  months integer not null check (months in (1, 3, 6, 12)),
  status text not null default 'active' check (status in ('pending', 'active', 'suspended', 'terminated')),
  auto_renew boolean not null default true,
  payment_source text not null default 'balance' check (payment_source in ('balance', 'card', 'balance_then_card')),
  priority integer not null default 100,
  started_on date not null,
  paid_through date not null,
  created_at timestamptz not null,
  ended_at timestamptz,
  check (paid_through >= started_on - 1)
);
create index services_customer on services (customer_id, paid_through);
create index services_due on services (paid_through) where status = 'active' and auto_renew;

-- One row per period, made with its bill: the unique key is what charges a period once, whoever tries and however often.
-- It waits for money while transfer_id is null; both dates are days the service runs.
create table renewals (
  service_id bigint not null references services,
  period_start date not null,
  period_end date not null,
  months integer not null,
  bill_id bigint not null references bills,
  transfer_id bigint references transfers,
  renewed_at timestamptz not null,
  primary key (service_id, period_start),
  check (period_end > period_start)
);
create index renewals_bill on renewals (bill_id);
create index renewals_waiting on renewals (service_id) where transfer_id is null;

alter table transfers add foreign key (service_id) references services;
alter table bill_lines add foreign key (service_id) references services;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("alter table transfers drop constraint transfers_service_id_fkey; alter table bill_lines drop constraint bill_lines_service_id_fkey")
    op.execute("drop table renewals, services, prices, plans")
