"""Test money and real money are told apart by the database, and test money has no way to a bank."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

UP = """
-- Where a row came from: what an installation that cannot move real money wrote is test. Rows
-- from before this column are unknown, unless something proves them to be the sandbox's.
alter table customers add column origin text not null default 'unknown'
  constraint customers_origin check (origin in ('test', 'live', 'unknown'));
alter table payments add column origin text not null default 'unknown'
  constraint payments_origin check (origin in ('test', 'live', 'unknown'));
alter table bank_lines add column origin text not null default 'unknown'
  constraint bank_lines_origin check (origin in ('test', 'live', 'unknown'));
alter table bank_payout_files add column origin text not null default 'unknown'
  constraint bank_payout_files_origin check (origin in ('test', 'live', 'unknown'));
alter table users add column demo boolean not null default false;

-- What the demo wrote, and whether it came to its end. No row: it was never written here.
create table demo_seeding (
  id boolean primary key default true check (id),
  started_at timestamptz not null,
  finished_at timestamptz
);
"""

# The demo of an older version: one password hash, with one salt, for several logins is written by
# the seed alone, and its addresses lie in domains that nobody can own. Its bank statements are of
# accounts that the standards print as examples. Stripe says of its sessions which were tests.
MARK = """
update users set demo = true
where password_hash in (select password_hash from users group by 1 having count(*) > 1)
  or email in ('support@northbyte.example', 'rita@northbyte.example', 'anna@keller-studio.example')
  or email in ('harbour@harbour.example', 'kiosk@kiosk.example')
  or (email ~ '^customer[0-9]+@example[.]com$' and verified_at is not null);
insert into demo_seeding (started_at, finished_at)
select min(created_at), max(created_at) from users where demo having count(*) > 0;

update bank_lines set origin = 'test'
where replace(account, ' ', '') in (
  'DE89370400440532013000', '0260731508310567890',
  'PL61109010140000071219812874', 'GB29NWBK60161331926819'
);
update payments p set origin = 'test'
where p.gateway = 'sandbox'
  or (p.gateway = 'stripe' and p.gateway_reference like 'cs_test_%')
  or (p.gateway = 'bank' and exists (
    select from bank_lines l where l.payment_id = p.id and l.origin = 'test'
  ))
  or (p.gateway = 'bank' and exists (
    select from users u where u.customer_id = p.customer_id and u.demo
  ) and not exists (select from bank_lines l where l.payment_id = p.id));
update customers c set origin = 'test'
where exists (select from users u where u.customer_id = c.id and u.demo)
  or (exists (select from payments p where c.id in (p.customer_id, p.payer_id))
    and not exists (
      select from payments p where c.id in (p.customer_id, p.payer_id) and p.origin <> 'test'
    ))
  or (exists (select from users where demo)
    and not exists (select from payments where origin <> 'test')
    and not exists (select from bank_lines where origin <> 'test'));

-- Pretend money that was to go to an account goes back by the pretend processor instead.
alter table refunds disable trigger user;
update refunds r set way = 'source', iban = null, holder = null
from payments p
where p.id = r.payment_id
  and p.gateway = 'sandbox'
  and r.way = 'bank'
  and r.state in ('requested', 'approved');
alter table refunds enable trigger user;
update held h
set state = 'held', decision = null, way = 'source', iban = null, holder = null, send_key = null,
  round = h.round + 1
from payments p
where p.id = h.payment_id
  and p.gateway = 'sandbox'
  and h.way = 'bank'
  and h.state in ('held', 'returning');
"""

GUARD = """
alter table payments add constraint sandbox_payments_are_test
  check (gateway <> 'sandbox' or origin = 'test');
alter table bank_payout_files add constraint test_files_say_so
  check ((origin = 'test') = (message like 'TEST-%'));
create index payments_test on payments (id) where origin = 'test';
create index bank_lines_test on bank_lines (id) where origin = 'test';
create index users_demo on users (id) where demo;
create index bills_of_the_demo on bills (id)
  where seller ->> 'vat_id' = 'DE301204584' and seller ->> 'legal_name' = 'Northbyte Hosting GmbH';

-- Each session says at its beginning what its settings are: test, live, or nothing.
create function installation_mode() returns text language sql stable parallel safe
return coalesce(nullif(current_setting('client_area.mode', true), ''), 'unknown');

create function note_origin() returns trigger language plpgsql as $$
begin
  if new.origin = 'unknown' then
    new.origin := installation_mode();
  end if;
  return new;
end $$;
create trigger customers_origin before insert on customers
  for each row execute function note_origin();
create trigger bank_lines_origin before insert on bank_lines
  for each row execute function note_origin();
create trigger bank_payout_files_origin before insert on bank_payout_files
  for each row execute function note_origin();

create function note_payment_origin() returns trigger language plpgsql as $$
begin
  if new.gateway = 'sandbox' and installation_mode() = 'live' then
    raise exception 'a live installation takes no payment of the sandbox'
      using errcode = 'check_violation', constraint = 'sandbox_payments_are_test';
  end if;
  if new.gateway = 'sandbox' then
    new.origin := 'test';
  elsif new.origin = 'unknown' then
    new.origin := installation_mode();
  end if;
  return new;
end $$;
create trigger payments_origin before insert on payments
  for each row execute function note_payment_origin();

-- That a mark never changes is kept with all else that never does: app/guard/tables.py.
create trigger users_keep_demo after update of demo on users
  for each row when (old.demo and not new.demo) execute function refuse_late_change();

-- Money that goes to an account: never the pretend processor's, and no other test money either,
-- unless the installation that asks can move nothing real.
create function test_money_stays() returns trigger language plpgsql as $$
declare
  paid payments;
begin
  select * into paid from payments where id = new.payment_id;
  if paid.gateway = 'sandbox' or (paid.origin = 'test' and installation_mode() <> 'test') then
    raise exception 'payment % is test money: it cannot go to a bank account', paid.public_id
      using errcode = 'check_violation', constraint = 'test_money_stays';
  end if;
  return null;
end $$;
create trigger refunds_test_money_stays after insert or update of way, state, payment_id on refunds
  for each row when (new.way = 'bank' and new.state not in ('declined', 'failed'))
  execute function test_money_stays();
create trigger held_test_money_stays after insert or update of way, state, payment_id on held
  for each row when (new.way = 'bank')
  execute function test_money_stays();

create function test_line_stays() returns trigger language plpgsql as $$
begin
  if installation_mode() <> 'test'
    and exists (select from bank_lines where id = new.line_id and origin = 'test')
  then
    raise exception 'bank line % is of a test statement: it cannot go to a bank account', new.line_id
      using errcode = 'check_violation', constraint = 'test_money_stays';
  end if;
  return null;
end $$;
create trigger bank_returns_test_line_stays after insert or update of state, line_id on bank_returns
  for each row when (new.state not in ('withdrawn', 'failed'))
  execute function test_line_stays();

-- Of a refund, of held money or of what goes back to its sender: where the money came from.
create function payout_origin(wanted text) returns text language sql stable as $$
  select coalesce(
    (select p.origin from refunds r join payments p on p.id = r.payment_id where r.number = wanted),
    (select p.origin from held h join payments p on p.id = h.payment_id where h.number = wanted),
    (select l.origin from bank_returns b join bank_lines l on l.id = b.line_id
      where b.number = wanted)
  )
$$;

-- A file for the bank is of one kind, whatever the settings were when its payouts were approved.
create function payouts_of_one_kind() returns trigger language plpgsql as $$
declare
  file text := (select origin from bank_payout_files where id = new.file_id);
  money text := payout_origin(new.number);
begin
  if (file = 'test' and money = 'live') or (file <> 'test' and money = 'test') then
    raise exception 'payout % is %, its file is %', new.number, money, file
      using errcode = 'check_violation', constraint = 'payouts_of_one_kind';
  end if;
  return null;
end $$;
create trigger bank_payouts_of_one_kind after insert on bank_payouts
  for each row execute function payouts_of_one_kind();

-- What a start must know of what is here; each part stops at the first row it finds.
create view origins as
select 'demo_logins' as code where exists (select from users where demo)
union all
select 'test_payments' where exists (select from payments where origin = 'test')
union all
select 'test_bank_lines' where exists (select from bank_lines where origin = 'test')
union all
select 'demo_seller' where exists (
  select from bills
  where seller ->> 'vat_id' = 'DE301204584' and seller ->> 'legal_name' = 'Northbyte Hosting GmbH'
)
union all
select 'demo_unfinished' where exists (select from demo_seeding where finished_at is null)
union all
select 'live_money' where exists (select from payments where origin = 'live')
  or exists (select from bank_lines where origin = 'live');
"""

# The triggers that keep the columns go with them; what is left of each is made after the downgrade.
DOWN = """
drop view origins;
drop trigger bank_payouts_of_one_kind on bank_payouts;
drop trigger bank_returns_test_line_stays on bank_returns;
drop trigger held_test_money_stays on held;
drop trigger refunds_test_money_stays on refunds;
drop trigger users_keep_demo on users;
drop trigger payments_origin on payments;
drop trigger bank_payout_files_origin on bank_payout_files;
drop trigger bank_lines_origin on bank_lines;
drop trigger customers_origin on customers;
drop function payouts_of_one_kind, payout_origin, test_line_stays, test_money_stays;
drop function note_payment_origin, note_origin, installation_mode;
drop index bills_of_the_demo, users_demo, bank_lines_test, payments_test;
drop table demo_seeding;
alter table users drop column demo;
alter table bank_payout_files drop constraint test_files_say_so, drop column origin cascade;
alter table bank_lines drop column origin cascade;
alter table payments drop constraint sandbox_payments_are_test, drop column origin cascade;
alter table customers drop column origin cascade;
"""


def upgrade() -> None:
    op.execute(UP)
    op.execute(MARK)
    op.execute(GUARD)


def downgrade() -> None:
    op.execute(DOWN)
