"""Why a line waits as a code, payouts to the sender's account alone, and what the bank says of each payout."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

UP = """
alter table bank_lines add column reason_code text not null default '';
update bank_lines
set reason_code = w.code, reason = ''
from (values
  ('to_follow', 'It was booked and is still to be looked at.'),
  ('came_back', 'A transfer of ours came back.'),
  ('names_nothing', 'Nothing in it names a bill or a login.'),
  ('several_customers', 'It names bills of several customers.'),
  ('several_bills', 'It names several bills.'),
  ('several_customers', 'It names several logins.'),
  ('sender_has_several_bills', 'Its sender has several open bills of this amount.')
) as w (code, sentence)
where state = 'suspense'
  and reason = w.sentence;
alter table bank_lines add constraint bank_lines_reason_code check (reason_code in (
  '', 'to_follow', 'came_back', 'names_nothing', 'not_found', 'several_customers', 'several_bills',
  'not_exact', 'sender_has_several_bills', 'same_reference'
));
alter table bank_lines add constraint bank_lines_one_reason check (reason_code = '' or reason = '');
create index bank_lines_payment on bank_lines (payment_id) where payment_id is not null;
create index bills_open_total on bills (total, currency) where status = 'unpaid';

-- Whether an account number is an IBAN with right check digits.
create function is_iban(account text) returns boolean language sql immutable as $$
  select case when account ~ '^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$' then (
    select string_agg(case when sign ~ '[0-9]' then sign else (ascii(sign) - 55)::text end, '' order by place)::numeric % 97 = 1
    from regexp_split_to_table(substr(account, 5) || substr(account, 1, 4), '') with ordinality as signs (sign, place)
  ) else false end
$$;

-- Who sent the money of a payment that came by bank transfer, where the bank says so.
create view payment_senders as
select l.payment_id, l.id as line_id, l.sender, l.sender_account as iban
from bank_lines l
where l.payment_id is not null
  and l.kind = 'credit'
  and l.state in ('matched', 'returned')
  and is_iban(l.sender_account);

-- Money that came by a transfer goes back to the account it came from and to no other, unless the
-- bank has sent it back from there or refused to send it.
create function keep_refund_to_sender() returns trigger language plpgsql as $$
begin
  if new.way = 'bank' and exists (
    select from payment_senders s
    where s.payment_id = new.payment_id
      and s.iban <> new.iban
      and not exists (
        select from refunds r
        where r.payment_id = new.payment_id
          and r.way = 'bank'
          and r.iban = s.iban
          and r.state = 'failed'
      )
  ) then
    raise exception '% goes back to the account it came from', new.number using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger refunds_to_sender before insert or update of iban, way on refunds
for each row execute function keep_refund_to_sender();

create function keep_held_to_sender() returns trigger language plpgsql as $$
begin
  if new.way = 'bank' and exists (
    select from payment_senders s
    where s.payment_id = new.payment_id
      and s.iban <> new.iban
      and not exists (select from held_events e where e.held_id = new.id and e.state = 'failed')
  ) then
    raise exception '% goes back to the account it came from', new.number using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger held_to_sender before insert or update of iban, way on held
for each row execute function keep_held_to_sender();

create function keep_return_to_sender() returns trigger language plpgsql as $$
begin
  if exists (
    select from bank_lines l
    where l.id = new.line_id
      and is_iban(l.sender_account)
      and l.sender_account <> new.iban
      and not exists (
        select from bank_returns r
        where r.line_id = new.line_id
          and r.iban = l.sender_account
          and r.state = 'failed'
      )
  ) then
    raise exception '% goes back to the account it came from', new.number using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger bank_returns_to_sender before insert or update of iban on bank_returns
for each row execute function keep_return_to_sender();

-- What the bank said of each payout of a file (pain.002). One that contradicts what we know, or
-- what it said before, undoes nothing: a person looks at it.
create table bank_payout_statuses (
  id bigint generated always as identity primary key,
  number text not null,
  message text not null references bank_payout_files (message),
  status text not null check (status ~ '^[A-Z0-9]{1,4}$'),
  reason_code text not null default '' check (reason_code ~ '^[A-Z0-9]{0,35}$'),
  contradiction text not null default '' check (contradiction in (
    '', 'duplicate', 'rejected_after_acceptance', 'rejected_after_leaving', 'accepted_after_undoing'
  )),
  said_at timestamptz not null,
  looked_at timestamptz,
  actor text not null default '',
  note text not null default '',
  unique (number, message, status, reason_code),
  check ((looked_at is null) = (actor = '')),
  check ((looked_at is null) = (note = '')),
  check (looked_at is null or contradiction <> '')
);
create index bank_payout_statuses_open on bank_payout_statuses (id)
where contradiction <> '' and looked_at is null;
create function keep_payout_status() returns trigger language plpgsql as $$
begin
  if old.looked_at is not null then
    raise exception 'what the bank said of % was looked at: it does not change', old.number using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger bank_payout_statuses_keep_seen before update on bank_payout_statuses
for each row execute function keep_payout_status();

-- Acceptances of before are known by the notes that they left.
insert into bank_payout_statuses (number, message, status, said_at)
select distinct on (p.number, f.message) p.number, f.message, 'ACCP', n.at
from (
  select r.number, e.note, e.at from refund_events e join refunds r on r.id = e.refund_id
  union all
  select h.number, e.note, e.at from held_events e join held h on h.id = e.held_id
  union all
  select r.number, 'The bank accepted ' || s.note || '.', s.at
  from bank_return_steps s
  join bank_returns r on r.id = s.return_id
  where s.state = 'accepted'
) n
join bank_payouts p on p.number = n.number
join bank_payout_files f on f.id = p.file_id
where n.note = 'The bank accepted ' || f.message || '.'
order by p.number, f.message, n.at;
"""

DOWN = """
drop table bank_payout_statuses;
drop function keep_payout_status;
drop trigger bank_returns_to_sender on bank_returns;
drop trigger held_to_sender on held;
drop trigger refunds_to_sender on refunds;
drop function keep_return_to_sender, keep_held_to_sender, keep_refund_to_sender;
drop view payment_senders;
drop function is_iban;
drop index bills_open_total, bank_lines_payment;
update bank_lines
set reason = w.sentence
from (values
  ('to_follow', 'It was booked and is still to be looked at.'),
  ('came_back', 'A transfer of ours came back.'),
  ('names_nothing', 'Nothing in it names a bill or a login.'),
  ('several_customers', 'It names bills of several customers.'),
  ('several_bills', 'It names several bills.'),
  ('sender_has_several_bills', 'Its sender has several open bills of this amount.'),
  ('not_found', 'Nothing in it names a bill or a login.'),
  ('not_exact', 'Nothing in it names a bill or a login.'),
  ('same_reference', 'The statement tells it twice.')
) as w (code, sentence)
where reason_code = w.code;
alter table bank_lines drop column reason_code;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("alter table bank_lines drop constraint bank_lines_one_reason")
    op.execute(DOWN)
