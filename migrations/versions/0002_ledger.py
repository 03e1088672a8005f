"""The ledger: accounts, transfers, entries, and the lots that say which payment each cent of a wallet came from.

The database keeps the books itself, whoever inserts: an entry's own trigger moves its account's balance, numbers the entry and chains
its hash; a deferred trigger on the transfer refuses at commit what does not sum to zero; nothing is ever changed or removed.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
-- Every check of a table is compiled anew for every statement that writes it, so what only an opening could break is asked by accounts_open.
create table accounts (
  id bigint generated always as identity primary key,
  kind text not null,
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
  constraint accounts_floor check (floor is null or balance >= floor),
  unique nulls not distinct (kind, customer_id, key, currency)
) with (fillfactor = 50);
create index accounts_customer on accounts (customer_id) where customer_id is not null;

-- transfers_check asks at commit what a transfer must be.
create table transfers (
  id bigint generated always as identity primary key,
  reference text not null unique,
  kind text not null,
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

-- The trigger entries_keep_books looks up both the account and the transfer, and neither can ever be deleted: a foreign key would ask again.
create table entries (
  account_id bigint not null,
  seq bigint not null,
  transfer_id bigint not null,
  amount bigint not null check (amount <> 0),
  currency char(3) not null,
  balance_after bigint,
  credited_after bigint,
  posted_at timestamptz not null,
  hash bytea not null,
  primary key (account_id, seq) include (transfer_id, amount, balance_after, posted_at)
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

-- What each transfer took from a lot (positive) or gave back to it (negative).
create table allocations (
  lot_id bigint not null references lots,
  transfer_id bigint not null references transfers,
  amount bigint not null check (amount <> 0),
  primary key (transfer_id, lot_id)
);
create index allocations_lot on allocations (lot_id);
"""

# What an entry's hash covers: the hash before it, its time as PostgreSQL sends it (8 bytes, microseconds since 2000, big-endian), the entry as
# UTF-8 text, then the time and the text of its transfer. The database writes it here and `ledger check` recomputes it by the same words. Written
# so that the planner can put both in place of the call: 1 microsecond an entry.
HASH = """
create function transfer_content(t transfers) returns bytea language sql stable parallel safe
return timestamptz_send((t).posted_at) || convert_to(concat_ws(',', (t).id, (t).kind,
  coalesce((t).payment_id, 0), coalesce((t).bill_id, 0), coalesce((t).service_id, 0), coalesce((t).refund_id, 0), coalesce((t).reverses, 0),
  octet_length((t).reference), (t).reference, octet_length((t).actor), (t).actor, (t).description), 'UTF8');

create function entry_hash(previous bytea, account_id bigint, seq bigint, amount bigint, currency character, balance_after bigint, credited_after bigint,
  posted_at timestamptz, transfer bytea) returns bytea language sql stable parallel safe
return sha256(previous || timestamptz_send(posted_at) || convert_to(concat_ws(',', account_id, seq, amount, currency, balance_after, credited_after), 'UTF8') || transfer);
"""

BOOKS = """
create function entries_keep_books() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
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
create trigger entries_keep_books before insert on entries for each row execute function entries_keep_books();

create function transfers_check() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  net numeric;
  alike boolean;
begin
  if new.reference = '' or new.kind not in ('topup', 'charge', 'charge_refund', 'bonus', 'bonus_expired', 'refund_requested', 'refund_sent', 'refund_failed',
      'dispute_opened', 'dispute_won', 'dispute_lost', 'debt_settled', 'conversion', 'arrived', 'matched', 'reversal', 'correction', 'fee') then
    raise exception 'transfer % has no reference or the unknown kind %', new.id, new.kind using errcode = 'check_violation', constraint = 'transfers_kind';
  end if;
  -- One currency is the rule, so it is asked first: the sum without groups costs half. No entry is zero, so a sum of zero has at least two.
  select sum(amount), min(currency collate "C") = max(currency collate "C") into net, alike from entries where transfer_id = new.id;
  if net = 0 and alike then
    return null;
  end if;
  if net is not null and not exists (select from entries where transfer_id = new.id group by currency having sum(amount) <> 0) then
    return null;
  end if;
  raise exception 'transfer % does not sum to zero in each currency, or has no entries', new.reference
    using errcode = 'integrity_constraint_violation', constraint = 'transfers_balance';
end $$;
create constraint trigger transfers_check after insert on transfers deferrable initially deferred for each row execute function transfers_check();

create function accounts_open() returns trigger language plpgsql as $$
begin
  if new.kind not in ('wallet', 'bonus', 'hold', 'gateway', 'bank', 'revenue', 'vat', 'fees', 'fx', 'rounding', 'suspense', 'debt', 'disputes', 'promotions')
      or new.currency !~ '^[A-Z]{3}$' then
    raise exception 'no account is of kind % in %', new.kind, new.currency using errcode = 'check_violation', constraint = 'accounts_kind';
  end if;
  if (new.kind in ('wallet', 'bonus', 'hold', 'debt')) <> (new.customer_id is not null)
      or new.kind in ('wallet', 'bonus', 'hold') and not (new.tracked and new.floor is not distinct from 0) then
    raise exception 'an account of kind % needs its owner and its floor, a system account has none', new.kind using errcode = 'check_violation', constraint = 'accounts_owner';
  end if;
  if new.balance <> 0 or new.entry_count <> 0 or new.credited <> 0 or new.last_at is not null or new.head <> '\\x' then
    raise exception 'an account opens empty' using errcode = 'check_violation', constraint = 'accounts_empty';
  end if;
  return new;
end $$;
create trigger accounts_open before insert on accounts for each row execute function accounts_open();

-- Only the trigger of an entry moves an account. Asked once a statement: a row trigger would lock each row first.
create function accounts_moved_by_entries() returns trigger language plpgsql as $$
begin
  if pg_trigger_depth() = 1 then
    raise exception 'accounts is append-only: update refused' using errcode = 'restrict_violation';
  end if;
  return null;
end $$;
create trigger accounts_append_only before update on accounts for each statement execute function accounts_moved_by_entries();

create function ledger_append_only() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
end $$;
create trigger entries_append_only before update or delete on entries for each row execute function ledger_append_only();
create trigger entries_no_truncate before truncate on entries for each statement execute function ledger_append_only();
create trigger transfers_append_only before update or delete on transfers for each row execute function ledger_append_only();
create trigger transfers_no_truncate before truncate on transfers for each statement execute function ledger_append_only();
create trigger allocations_append_only before update or delete on allocations for each row execute function ledger_append_only();
create trigger allocations_no_truncate before truncate on allocations for each statement execute function ledger_append_only();
create trigger accounts_no_delete before delete on accounts for each row execute function ledger_append_only();
create trigger accounts_no_truncate before truncate on accounts for each statement execute function ledger_append_only();
create trigger lots_no_delete before delete on lots for each row execute function ledger_append_only();
create trigger lots_no_truncate before truncate on lots for each statement execute function ledger_append_only();

-- Row locks for who may not update: in id order, so that no two clients wait for each other.
create function lock_accounts(ids bigint[]) returns table (id bigint, kind text, currency text, balance bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  return query select a.id, a.kind, a.currency::text, a.balance from accounts a where a.id = any (ids) and a.tracked order by a.id for no key update;
end $$;
revoke execute on function lock_accounts(bigint[]), entries_keep_books(), transfers_check() from public;
"""

# Times rise with the sequence of a tracked account, so a moment is found by halving, with no index of its own.
READING = """
create function entries_before(account bigint, at timestamptz) returns bigint language plpgsql stable strict parallel safe as $$
declare
  low bigint := 0;
  high bigint;
  middle bigint;
begin
  select case when last_at < at then -entry_count else entry_count end into high from accounts where id = account;
  if high < 0 then
    return -high;
  end if;
  while low < high loop
    middle := (low + high + 1) / 2;
    if (select posted_at < at from entries where account_id = account and seq = middle) then
      low := middle;
    else
      high := middle - 1;
    end if;
  end loop;
  return low;
end $$;

-- The balance just before each of these rising moments. A few entries between them are read through; among many, all moments are found by
-- halving together, in one statement.
create function closing_balances(account bigint, moments timestamptz[]) returns table (place bigint, balance bigint) language plpgsql stable strict parallel safe rows 100 as $$
declare
  first bigint := entries_before(account, moments[1]);
  last bigint := entries_before(account, moments[cardinality(moments)]);
begin
  if last - first <= 1000 then
    return query
    with newest as (
      select width_bucket(e.posted_at, moments) + 1 as place, max(e.seq) as seq from entries e
      where e.account_id = account and e.seq > first and e.seq <= last group by 1
    ), closing as (
      select m.place, max(coalesce(n.seq, first)) over (order by m.place) as seq
      from generate_series(1::bigint, cardinality(moments)) as m (place) left join newest n on n.place = m.place
    )
    select c.place, coalesce((select e.balance_after from entries e where e.account_id = account and e.seq = c.seq), 0) from closing c;
  else
    return query
    with recursive search as (
      select m.place, m.moment, first as low, last as high from unnest(moments) with ordinality as m (moment, place)
      union all
      select h.place, h.moment, case when h.before then h.middle else h.low end, case when h.before then h.high else h.middle - 1 end
      from (
        select s.*, (s.low + s.high + 1) / 2 as middle,
          (select e.posted_at < s.moment from entries e where e.account_id = account and e.seq = (s.low + s.high + 1) / 2) as before
        from search s where s.low < s.high offset 0
      ) h
    )
    select s.place, coalesce((select e.balance_after from entries e where e.account_id = account and e.seq = s.low), 0) from search s where s.low = s.high;
  end if;
end $$;
"""

RIGHTS = """
do $$ begin
  if exists (select 1 from pg_roles where rolname = 'client_area_app') then
    revoke update, delete, truncate on accounts, transfers, entries, allocations from client_area_app;
    revoke update, delete, truncate on lots from client_area_app;
    grant update (remaining, frozen_reason, note) on lots to client_area_app;
    grant execute on function lock_accounts(bigint[]) to client_area_app;
  end if;
end $$;
"""


def upgrade() -> None:
    for part in (TABLES, HASH, BOOKS, READING, RIGHTS):
        op.execute(part)


def downgrade() -> None:
    op.execute("drop table allocations, lots, entries, transfers, accounts cascade")
    op.execute(
        "drop function lock_accounts, entries_keep_books, transfers_check, accounts_open, accounts_moved_by_entries, ledger_append_only, entry_hash,"
        " entries_before, closing_balances cascade"
    )
