"""The account currency can change: what was converted at which rate, lots that go on in another currency, prices agreed with a change."""

from alembic import op

revision = "0015"
down_revision = "0012"
branch_labels = None
depends_on = None

UP = """
-- A lot that goes on where another one ended: what was left of the money of that one, in another currency.
alter table lots add column continues bigint references lots;
create index lots_continues on lots (continues) where continues is not null;

-- Chosen: the customer changed the account currency; else money that came after that in the old one was brought over. Nothing moved where the account was empty.
create table conversions (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  at timestamptz not null,
  chosen boolean not null,
  from_currency char(3) not null,
  to_currency char(3) not null,
  rate numeric(24, 12) not null check (rate > 0),
  spread_bp integer not null check (spread_bp between 0 and 9999),
  quote_id bigint unique references quotes,
  transfer_id bigint unique references transfers,
  actor text not null,
  lifted_at timestamptz,
  lifted_by text,
  lifted_reason text,
  check (from_currency <> to_currency),
  check (num_nulls(quote_id, transfer_id) <> 1),
  check (chosen or transfer_id is not null),
  check (num_nulls(lifted_at, lifted_by, lifted_reason) in (0, 3))
);
create index conversions_customer on conversions (customer_id, id);

create function conversions_are_history() returns trigger language plpgsql as $$
begin
  if tg_op <> 'UPDATE' or to_jsonb(new) - array['lifted_at', 'lifted_by', 'lifted_reason'] <> to_jsonb(old) - array['lifted_at', 'lifted_by', 'lifted_reason'] then
    raise exception 'conversions is append-only: only the wait for the next change can be lifted' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger conversions_append_only before update or delete on conversions for each row execute function conversions_are_history();

-- What a service costs in a currency its plan has no price in: shown before the change and agreed to with it.
create table agreed_prices (
  service_id bigint not null references services,
  currency char(3) not null,
  months integer not null check (months > 0),
  net bigint not null check (net >= 0),
  agreed_at timestamptz not null,
  primary key (service_id, currency, months)
);
"""

DOWN = """
drop table agreed_prices, conversions;
drop function conversions_are_history;
alter table lots drop column continues;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
