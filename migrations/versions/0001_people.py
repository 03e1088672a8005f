"""Customers, the users who log in, their sessions, one-time links, rate limits and the mail outbox."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = """
do $$ begin
  if not exists (select 1 from pg_roles where rolname = 'client_area_app') then
    create role client_area_app nologin;
  end if;
  execute format('grant client_area_app to %I', current_user);
exception when insufficient_privilege or duplicate_object then
  raise notice 'the role client_area_app could not be made: the triggers alone keep the ledger append-only';
end $$;

create table customers (
  id bigint generated always as identity primary key,
  kind text not null default 'individual' check (kind in ('individual', 'company')),
  name text not null default '',
  company text not null default '',
  street text not null default '',
  postcode text not null default '',
  city text not null default '',
  country char(2),
  vat_id text not null default '',
  vat_id_state text not null default 'none' check (vat_id_state in ('none', 'unverified', 'valid', 'invalid')),
  billing_email text not null default '',
  po_number text not null default '',
  currency char(3),
  display_currencies text[] not null default '{}',
  created_at timestamptz not null,
  closed_at timestamptz
);

create table users (
  id bigint generated always as identity primary key,
  customer_id bigint references customers,
  login text not null check (login ~ '^[a-z0-9][a-z0-9._-]{1,38}[a-z0-9]$'),
  email text not null check (email = lower(email) and length(email) <= 254),
  name text not null default '',
  password_hash text not null,
  role text not null default 'customer' check (role in ('customer', 'support')),
  locale text not null default 'en',
  timezone text not null default 'UTC',
  verified_at timestamptz,
  disabled_at timestamptz,
  created_at timestamptz not null,
  check (role = 'support' or customer_id is not null)
);
create unique index users_login on users (login);
create unique index users_email on users (email) where verified_at is not null;
create index users_email_any on users (email, id desc);
create index users_customer on users (customer_id);

create table sessions (
  id bytea primary key check (length(id) = 32),
  user_id bigint not null references users,
  created_at timestamptz not null,
  seen_at timestamptz not null,
  expires_at timestamptz not null,
  remembered boolean not null default false,
  ip text not null default '',
  user_agent text not null default '',
  revoked_at timestamptz
);
create index sessions_user on sessions (user_id) where revoked_at is null;

create table tokens (
  id bytea primary key check (length(id) = 32),
  purpose text not null check (purpose in ('verify', 'reset')),
  user_id bigint not null references users,
  email text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  used_at timestamptz
);
create index tokens_user on tokens (user_id);

create table rate_limits (
  key text not null,
  window_start timestamptz not null,
  count integer not null,
  primary key (key, window_start)
);
create index rate_limits_old on rate_limits (window_start);

create table security_events (
  id bigint generated always as identity primary key,
  user_id bigint references users,
  at timestamptz not null,
  kind text not null,
  ip text not null default '',
  details jsonb not null default '{}'
);
create index security_events_user on security_events (user_id, id desc);

create table mails (
  id bigint generated always as identity primary key,
  key text not null unique,
  customer_id bigint references customers,
  kind text not null,
  recipient text not null,
  subject text not null,
  body_text text not null,
  body_html text,
  attachments jsonb not null default '[]',
  created_at timestamptz not null,
  due_at timestamptz not null,
  sent_at timestamptz,
  tries integer not null default 0,
  error text
);
create index mails_due on mails (due_at) where sent_at is null;
create index mails_customer on mails (customer_id, id desc);
"""

GRANTS = """
do $$ begin
  if exists (select 1 from pg_roles where rolname = 'client_area_app') then
    grant usage on schema public to client_area_app;
    grant select, insert, update, delete on all tables in schema public to client_area_app;
    grant usage on all sequences in schema public to client_area_app;
    alter default privileges in schema public grant select, insert, update, delete on tables to client_area_app;
    alter default privileges in schema public grant usage on sequences to client_area_app;
  end if;
end $$;
"""


def upgrade() -> None:
    op.execute(UP)
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute("drop table mails, security_events, rate_limits, tokens, sessions, users, customers")
