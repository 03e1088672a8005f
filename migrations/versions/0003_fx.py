"""Exchange rates, append-only, and the quotes that fix one."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = """
-- One euro buys `rate` of the currency. Confirmed: a person accepted a move that the sanity band refuses.
create table rates (
  source text not null,
  currency char(3) not null check (currency <> 'EUR'),
  rate_date date not null,
  rate numeric(20, 10) not null check (rate > 0),
  confirmed boolean not null default false,
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
  spread_bp integer not null check (spread_bp between 0 and 9999),
  spread_amount bigint not null check (spread_amount >= 0),
  rate_date date not null,
  source text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  check (pay_currency <> credit_currency)
);
create index quotes_customer on quotes (customer_id);

-- What the feed's server said last, so that an unchanged feed is not fetched again.
create table rate_feeds (
  url text primary key,
  etag text not null,
  fetched_at timestamptz not null
);

create function refuse_rewriting() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: a rate or a quote that was shown is history', tg_table_name;
end
$$;
create trigger rates_append_only before update or delete or truncate on rates for each statement execute function refuse_rewriting();
create trigger quotes_append_only before update or delete or truncate on quotes for each statement execute function refuse_rewriting();
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table quotes, rates, rate_feeds; drop function refuse_rewriting")
