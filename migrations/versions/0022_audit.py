"""Decisions of staff and operators, in one append-only log with a hash chain."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

UP = """
create table audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null,
  actor text not null check (actor <> ''),
  user_id bigint references users,
  address text not null default '',
  request text not null default '',
  action text not null check (action ~ '^[a-z_]+([.][a-z_]+)+$'),
  subject text not null check (subject ~ '^[a-z_]+$'),
  subject_id text not null check (subject_id <> ''),
  reason text not null default '',
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object')
);
create index audit_log_subject on audit_log (subject, subject_id, id);
create index audit_log_actor on audit_log (actor, id);

-- The chain is written by the trigger alone, at commit, so that the lock on its end is the last
-- one that a transaction takes and no two transactions wait for each other in a circle.
create table audit_chain (
  position bigint primary key check (position > 0),
  entry_id bigint not null unique references audit_log,
  hash bytea not null check (octet_length(hash) = 32)
);

-- What a hash covers: every column, each as its length in bytes, a colon and its text in UTF-8.
create function audit_content(entry audit_log) returns bytea
language sql immutable set search_path = public, pg_temp as $$
  select convert_to(string_agg(octet_length(part)::text || ':' || part, '' order by place), 'UTF8')
  from unnest(array[
    entry.id::text,
    to_char(entry.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
    entry.actor,
    coalesce(entry.user_id::text, ''),
    entry.address,
    entry.request,
    entry.action,
    entry.subject,
    entry.subject_id,
    entry.reason,
    entry.details::text
  ]) with ordinality as parts (part, place)
$$;

create function audit_chain_append() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  last audit_chain;
begin
  perform pg_advisory_xact_lock(hashtextextended('audit_chain', 0));
  select * into last from audit_chain order by position desc limit 1;
  insert into audit_chain values (
    coalesce(last.position, 0) + 1,
    new.id,
    sha256(coalesce(last.hash, ''::bytea) || audit_content(new))
  );
  return null;
end $$;
revoke execute on function audit_chain_append() from public;

create constraint trigger audit_log_chain after insert on audit_log
  deferrable initially deferred for each row execute function audit_chain_append();
create trigger audit_log_append_only before update or delete on audit_log
  for each row execute function ledger_append_only();
create trigger audit_log_no_truncate before truncate on audit_log
  for each statement execute function ledger_append_only();
create trigger audit_chain_append_only before update or delete on audit_chain
  for each row execute function ledger_append_only();
create trigger audit_chain_no_truncate before truncate on audit_chain
  for each statement execute function ledger_append_only();

do $$ begin
  if exists (select 1 from pg_roles where rolname = 'client_area_app') then
    revoke update, delete, truncate on audit_log from client_area_app;
    revoke insert, update, delete, truncate on audit_chain from client_area_app;
  end if;
end $$;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table audit_chain, audit_log cascade")
    op.execute("drop function audit_chain_append")
