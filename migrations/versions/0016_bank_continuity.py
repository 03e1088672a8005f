"""The bank's account as a whole: what each statement began and ended with, collective bookings told later, payouts, and money sent back to whoever sent it."""

from alembic import op

revision = "0016"
down_revision = "0017"
branch_labels = None
depends_on = None

# What the bank said never changes; the entry a line belongs to is part of it.
KEEP_LINE = """
create or replace function keep_bank_line() returns trigger language plpgsql as $$
begin
  if (new.id, new.line_key, new.entry_key, new.account, new.booked_on, new.amount, new.currency, new.kind, new.bank_reference, new.end_to_end, new.sender, new.sender_account,
      new.structured, new.remittance, new.deducted, new.file, new.imported_at, new.transfer_id{new})
    is distinct from (old.id, old.line_key, old.entry_key, old.account, old.booked_on, old.amount, old.currency, old.kind, old.bank_reference, old.end_to_end, old.sender, old.sender_account,
      old.structured, old.remittance, old.deducted, old.file, old.imported_at, old.transfer_id{old})
    or (old.state <> 'suspense' and (new.customer_id, new.bill_id, new.payment_id, new.matched_at)
      is distinct from (old.customer_id, old.bill_id, old.payment_id, old.matched_at))
  then
    raise exception 'bank line % is what the bank said: it does not change', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""

# The list of states is taken as it stands, whoever wrote it.
STATES = """
do $$
declare
  rule record;
begin
  for rule in select conname, pg_get_constraintdef(oid) as says from pg_constraint
    where conrelid = '{table}'::regclass and contype = 'c' and pg_get_constraintdef(oid) like '%''{beside}''::text%' and conname like '{like}'
  loop
    execute format('alter table {table} drop constraint %I', rule.conname);
    execute format('alter table {table} add constraint %I %s', rule.conname, replace(rule.says, '{was}', '{becomes}'));
  end loop;
end $$;
"""

UP = """
alter table bank_lines
  add column entry_amount bigint,
  add column entry_reference text not null default '',
  add column part_of bigint references bank_lines,
  add column payout text;
alter table bank_lines disable trigger bank_lines_keep;
update bank_lines l set entry_amount = (select sum(o.amount) from bank_lines o where o.entry_key = l.entry_key and o.account = l.account and o.booked_on = l.booked_on)
where entry_key is not null;
update bank_lines set entry_amount = amount, entry_key = line_key where entry_key is null;
update bank_lines set entry_reference = bank_reference where entry_amount = amount;
alter table bank_lines enable trigger bank_lines_keep;
alter table bank_lines alter column entry_amount set not null, alter column entry_key set not null;
create index bank_lines_entries on bank_lines (account, booked_on, entry_amount);

create table bank_statements (
  id bigint generated always as identity primary key,
  account text not null,
  currency char(3) not null,
  format text not null,
  name text not null,
  number integer,
  opened_on date not null,
  closed_on date not null check (closed_on >= opened_on),
  opening bigint not null,
  closing bigint not null,
  file text not null,
  imported_at timestamptz not null,
  unique nulls not distinct (account, format, number, opened_on, closed_on, opening, closing)
);
create index bank_statements_account on bank_statements (account, closed_on);
create trigger bank_statements_append_only before update or delete on bank_statements for each row execute function refuse_change();

-- Where an account's statements do not follow each other: a balance nobody's closing balance explains, or numbers that jump.
-- The statement before is the last one closed before this one was opened; one whose days lie within a longer statement needs none,
-- nor does one that begins with a shorter one.
create view bank_gaps as
with known as (
  select distinct account, currency, opened_on, closed_on, opening, closing from bank_statements
), balances as (
  select s.account, s.currency, s.opened_on, s.closed_on, s.opening, s.closing, before.closed_on as last_on, before.closing as last_closing
  from known s
  cross join lateral (
    select p.closed_on, p.closing from known p where p.account = s.account and p.closed_on <= s.opened_on and p.closed_on < s.closed_on order by p.closed_on desc limit 1
  ) before
  where not exists (
    select from known p where p.account = s.account and p.closing = s.opening and (p.opened_on, p.closed_on, p.opening, p.closing) <> (s.opened_on, s.closed_on, s.opening, s.closing)
      and (p.closed_on = s.closed_on or p.closed_on <= s.opened_on
        and p.closed_on >= coalesce((select max(b.closed_on) from known b where b.account = s.account and b.closed_on < s.opened_on), '-infinity'))
  ) and not exists (
    select from known p where p.account = s.account and p.opening = s.opening and p.opened_on = s.opened_on and p.closed_on < s.closed_on
  ) and not exists (
    select from known m where m.account = s.account and m.opened_on <= s.opened_on and m.closed_on >= s.closed_on and m.closed_on - m.opened_on > s.closed_on - s.opened_on
  )
), numbers as (
  select account, currency, format, closed_on, number, lag(number) over series as last_number, lag(closed_on) over series as last_on
  from (select distinct account, currency, format, number, closed_on from bank_statements where number is not null) n
  window series as (partition by account, format, extract(year from closed_on) order by number, closed_on)
)
select b.account, b.currency, b.last_on, b.closed_on as next_on, b.last_closing, b.opening as next_opening, null::integer as first_missing, null::integer as last_missing
from balances b
union all
select n.account, n.currency, n.last_on, n.closed_on, null, null, n.last_number + 1, n.number - 1
from numbers n
where n.number > n.last_number + 1
  and not exists (select from balances b where b.account = n.account and b.closed_on = n.closed_on);

create table bank_returns (
  id bigint generated always as identity primary key,
  number text not null unique,
  line_id bigint not null references bank_lines,
  amount bigint not null check (amount > 0),
  currency char(3) not null,
  iban text not null,
  holder text not null,
  reason text not null,
  state text not null default 'requested' check (state in ('requested', 'approved', 'settled', 'withdrawn', 'failed')),
  bank_reference text not null default '',
  requested_at timestamptz not null,
  updated_at timestamptz not null
);
create unique index bank_returns_one_open on bank_returns (line_id) where state in ('requested', 'approved');
create table bank_return_steps (
  id bigint generated always as identity primary key,
  return_id bigint not null references bank_returns,
  state text not null,
  note text not null default '',
  actor text not null,
  at timestamptz not null
);
create unique index bank_return_one_voice on bank_return_steps (return_id, actor) where state in ('requested', 'approved');

create table bank_payout_files (
  id bigint generated always as identity primary key,
  message text not null unique,
  account text not null,
  currency char(3) not null,
  count integer not null check (count > 0),
  total bigint not null check (total > 0),
  content text not null,
  created_at timestamptz not null
);
create trigger bank_payout_files_append_only before update or delete on bank_payout_files for each row execute function refuse_change();
create table bank_payouts (
  file_id bigint not null references bank_payout_files,
  number text not null primary key,
  amount bigint not null check (amount > 0)
);
create index bank_payouts_file on bank_payouts (file_id);
create trigger bank_payouts_append_only before update or delete on bank_payouts for each row execute function refuse_change();
"""

DOWN = """
drop table bank_payouts, bank_payout_files;
drop table bank_return_steps, bank_returns;
drop view bank_gaps;
drop table bank_statements;
drop index bank_lines_entries;
alter table bank_lines alter column entry_key drop not null, drop column entry_amount, drop column entry_reference, drop column part_of, drop column payout;
"""
COLUMNS = ("entry_amount", "entry_reference", "part_of")
PAYMENT = {"table": "payments", "beside": "review", "like": "payments_state%"}
LINE = {"table": "bank_lines", "beside": "suspense", "like": "bank_lines_state%"}


def upgrade() -> None:
    op.execute(UP)
    op.execute(KEEP_LINE.format(**{side: "".join(f", {side}.{name}" for name in COLUMNS) for side in ("new", "old")}))
    op.execute(STATES.format(**PAYMENT, was="''review''::text", becomes="''review''::text, ''taken_back''::text"))
    op.execute(STATES.format(**LINE, was="''suspense''::text", becomes="''suspense''::text, ''split''::text"))


def downgrade() -> None:
    op.execute(STATES.format(**PAYMENT, was=", ''taken_back''::text", becomes=""))
    op.execute(STATES.format(**LINE, was=", ''split''::text", becomes=""))
    op.execute(KEEP_LINE.format(new="", old=""))
    op.execute(DOWN)
