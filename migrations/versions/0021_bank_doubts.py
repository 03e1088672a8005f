"""Money that may have been told twice waits for a person, gaps that nobody will fill are acknowledged, and the books are held against the bank's balances."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# What the bank said never changes; the names of a collective booking and how many transfers it has are part of it.
KEEP_LINE = """
create or replace function keep_bank_line() returns trigger language plpgsql as $$
begin
  if (new.id, new.line_key, new.entry_key, new.account, new.booked_on, new.amount, new.currency, new.kind, new.bank_reference, new.end_to_end, new.sender, new.sender_account,
      new.structured, new.remittance, new.deducted, new.file, new.imported_at, new.transfer_id, new.entry_amount, new.entry_reference, new.part_of{new})
    is distinct from (old.id, old.line_key, old.entry_key, old.account, old.booked_on, old.amount, old.currency, old.kind, old.bank_reference, old.end_to_end, old.sender, old.sender_account,
      old.structured, old.remittance, old.deducted, old.file, old.imported_at, old.transfer_id, old.entry_amount, old.entry_reference, old.part_of{old})
    or (old.state <> 'suspense' and (new.customer_id, new.bill_id, new.payment_id, new.matched_at)
      is distinct from (old.customer_id, old.bill_id, old.payment_id, old.matched_at))
  then
    raise exception 'bank line % is what the bank said: it does not change', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""

UP = """
alter table bank_lines
  add column names text[] not null default '{}',
  add column transfers integer not null default 0;
alter table bank_lines drop constraint bank_lines_state_check;
alter table bank_lines add constraint bank_lines_state_check check (state in ('suspense', 'matched', 'returned', 'booked', 'split', 'same'));
create index bank_lines_transfer on bank_lines (transfer_id);

-- Lines that may be the same money as others: those that wait are not credited before a person has said whether they are.
create table bank_doubts (
  id bigint generated always as identity primary key,
  opened_at timestamptz not null,
  state text not null default 'open' check (state in ('open', 'same', 'two')),
  actor text not null default '',
  reason text not null default '',
  decided_at timestamptz,
  check ((state = 'open') = (decided_at is null)),
  check (state = 'open' or (actor <> '' and reason <> ''))
);
create table bank_doubt_lines (
  doubt_id bigint not null references bank_doubts,
  line_id bigint not null references bank_lines,
  waits boolean not null,
  primary key (doubt_id, line_id)
);
create index bank_doubt_lines_line on bank_doubt_lines (line_id);
create trigger bank_doubts_no_delete before delete on bank_doubts for each row execute function refuse_change();
create trigger bank_doubt_lines_append_only before update or delete on bank_doubt_lines for each row execute function refuse_change();

-- What is missing or differs and stays so, by the mark of the very thing: another amount is another thing.
create table bank_acknowledged (
  mark text primary key,
  sentence text not null,
  actor text not null check (actor <> ''),
  reason text not null check (reason <> ''),
  at timestamptz not null
);
create trigger bank_acknowledged_append_only before update or delete on bank_acknowledged for each row execute function refuse_change();

alter view bank_gaps rename to bank_all_gaps;
create view bank_gaps as
select g.* from (
  select left(md5(concat_ws('|', account, last_on, next_on, last_closing, next_opening, first_missing, last_missing)), 8) as mark, * from bank_all_gaps
) g
where not exists (select from bank_acknowledged k where k.mark = g.mark);

-- What came back and is sent once more stands in another file.
alter table bank_payouts drop constraint bank_payouts_pkey, add primary key (file_id, number);
create index bank_payouts_number on bank_payouts (number);

-- Where the books hold another sum than the bank: between each day of which a statement tells the end and the one before, what the bank's balance moved by
-- and what the ledger did. Money that only a missing statement tells is a gap already, and is not told twice.
create view bank_differences as
with ends as (
  select distinct on (s.account, s.closed_on) s.account, s.currency, s.closed_on, s.closing
  from bank_statements s
  where not exists (
    select from bank_statements n where n.account = s.account and n.closed_on = s.closed_on and n.opening = s.closing and n.closing <> s.closing
  )
  order by s.account, s.closed_on, s.number desc nulls last, s.id desc
), begins as (
  select distinct on (account) account, opened_on - 1 as from_on, opening from bank_statements order by account, opened_on, closed_on, number nulls last, id
), spans as (
  select e.account, e.currency, coalesce(lag(e.closed_on) over series, b.from_on) as from_on, e.closed_on as until_on, e.closing - coalesce(lag(e.closing) over series, b.opening) as told
  from ends e join begins b on b.account = e.account
  window series as (partition by e.account order by e.closed_on)
), moved as (
  select a.key as account, coalesce(l.booked_on, t.posted_at::date) as day, -sum(e.amount)::bigint as amount
  from accounts a
  join entries e on e.account_id = a.id
  join transfers t on t.id = e.transfer_id
  left join bank_lines l on l.transfer_id = coalesce(t.reverses, t.id) and l.part_of is null
  where a.kind = 'bank'
  group by 1, 2
), held as (
  select s.account, s.currency, s.from_on, s.until_on, s.told, coalesce(sum(m.amount), 0)::bigint as booked
  from spans s left join moved m on m.account = s.account and m.day > s.from_on and m.day <= s.until_on
  group by s.account, s.currency, s.from_on, s.until_on, s.told
)
select d.* from (
  select left(md5(concat_ws('|', account, from_on, until_on, told, booked)), 8) as mark, account, currency, from_on, until_on, told, booked, booked - told as difference
  from held where booked <> told
) d
where not exists (select from bank_acknowledged k where k.mark = d.mark)
  and not exists (select from bank_all_gaps g where g.account = d.account and g.next_on = d.until_on and g.next_opening - g.last_closing = -d.difference);
"""

DOWN = """
alter table bank_payouts drop constraint bank_payouts_pkey, add primary key (number);
drop index bank_payouts_number;
drop view bank_differences, bank_gaps;
alter view bank_all_gaps rename to bank_gaps;
drop table bank_acknowledged, bank_doubt_lines, bank_doubts;
alter table bank_lines drop constraint bank_lines_state_check;
alter table bank_lines add constraint bank_lines_state_check check (state in ('suspense', 'matched', 'returned', 'booked', 'split'));
drop index bank_lines_transfer;
alter table bank_lines drop column names, drop column transfers;
"""
COLUMNS = ("names", "transfers")


def upgrade() -> None:
    op.execute(UP)
    op.execute(KEEP_LINE.format(**{side: "".join(f", {side}.{name}" for name in COLUMNS) for side in ("new", "old")}))


def downgrade() -> None:
    op.execute(KEEP_LINE.format(new="", old=""))
    op.execute(DOWN)
