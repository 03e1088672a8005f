"""An entry keeps the kind of its transfer, so that one kind of an account's movements is found by an index."""

from alembic import op

revision = "0047"
down_revision = "0049"
branch_labels = None
depends_on = None

# The kind is the transfer's, whose trigger knows them all, and neither row ever changes: no list of
# kinds is repeated here. `ledger check` compares the two.
COLUMN = """
alter table entries add column kind text;
alter table entries disable trigger user;
update entries e
set kind = t.kind
from transfers t
where t.id = e.transfer_id;
alter table entries enable trigger user;
alter table entries
  alter column kind set not null,
  add constraint entries_kind check (kind <> '');
create index entries_of_kind on entries (account_id, kind, seq) include (amount)
where balance_after is not null;
"""
WITH_KIND = """
create or replace function entries_keep_books() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  kept boolean;
  content bytea;
begin
  select a.tracked, a.currency, t.kind, t.posted_at, transfer_content(t)
    into kept, new.currency, new.kind, new.posted_at, content
    from accounts a, transfers t where a.id = new.account_id and t.id = new.transfer_id and t.xmin = pg_current_xact_id()::xid;
  if kept is null then
    raise exception 'entry refused: account % does not exist, or transfer % was not made by this transaction', new.account_id, new.transfer_id
      using errcode = 'integrity_constraint_violation', constraint = 'entries_join';
  elsif kept then
    update accounts a
       set balance = a.balance + new.amount,
           entry_count = a.entry_count + 1,
           credited = a.credited + greatest(new.amount, 0),
           last_at = greatest(a.last_at, new.posted_at),
           head = entry_hash(a.head, a.id, a.entry_count + 1, new.amount, a.currency, a.balance + new.amount, a.credited + greatest(new.amount, 0),
                             greatest(a.last_at, new.posted_at), content)
     where a.id = new.account_id
    returning a.entry_count, a.balance, a.credited, a.last_at, a.head
         into new.seq, new.balance_after, new.credited_after, new.posted_at, new.hash;
  else
    new.seq := new.transfer_id;
    new.balance_after := null;
    new.credited_after := null;
    new.hash := entry_hash('', new.account_id, new.transfer_id, new.amount, new.currency, 0, 0, new.posted_at, content);
  end if;
  return new;
end $$;
"""
BEFORE = """
create or replace function entries_keep_books() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  kept boolean;
  content bytea;
begin
  select a.tracked, a.currency, t.posted_at, transfer_content(t) into kept, new.currency, new.posted_at, content
    from accounts a, transfers t where a.id = new.account_id and t.id = new.transfer_id and t.xmin = pg_current_xact_id()::xid;
  if kept is null then
    raise exception 'entry refused: account % does not exist, or transfer % was not made by this transaction', new.account_id, new.transfer_id
      using errcode = 'integrity_constraint_violation', constraint = 'entries_join';
  elsif kept then
    update accounts a
       set balance = a.balance + new.amount,
           entry_count = a.entry_count + 1,
           credited = a.credited + greatest(new.amount, 0),
           last_at = greatest(a.last_at, new.posted_at),
           head = entry_hash(a.head, a.id, a.entry_count + 1, new.amount, a.currency, a.balance + new.amount, a.credited + greatest(new.amount, 0),
                             greatest(a.last_at, new.posted_at), content)
     where a.id = new.account_id
    returning a.entry_count, a.balance, a.credited, a.last_at, a.head
         into new.seq, new.balance_after, new.credited_after, new.posted_at, new.hash;
  else
    new.seq := new.transfer_id;
    new.balance_after := null;
    new.credited_after := null;
    new.hash := entry_hash('', new.account_id, new.transfer_id, new.amount, new.currency, 0, 0, new.posted_at, content);
  end if;
  return new;
end $$;
"""


def upgrade() -> None:
    op.execute(COLUMN)
    op.execute(WITH_KIND)


def downgrade() -> None:
    op.execute(BEFORE)
    op.execute("drop index entries_of_kind")
    op.execute("alter table entries drop column kind")
