"""Histories are kept by the database: rows that never change, and those of which little may."""

from alembic import op

revision = "0026"
down_revision = "0023"
branch_labels = None
depends_on = None

# The triggers keep_rows and keep_values of each table are made after every upgrade, by the
# classification in app/guard/tables.py: a column that is added later is kept from its first day.
FUNCTIONS = """
create function keep_history() returns trigger
language plpgsql as $$
begin
  raise exception '% is append-only%: % refused', tg_table_name,
    case when tg_nargs > 0 then ' but for ' || tg_argv[0] else '' end, lower(tg_op)
    using errcode = 'restrict_violation';
end $$;

create function refuse_late_change() returns trigger
language plpgsql as $$
begin
  raise exception '% is append-only by now: update refused by %', tg_table_name, tg_name
    using errcode = 'restrict_violation';
end $$;
"""

# What a person agreed to when a card was kept or given to a service, each time anew.
CONSENTS = """
create table card_consents (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  card_id bigint not null references saved_cards,
  service_id bigint references services,
  consent text not null check (consent <> ''),
  consented_at timestamptz not null
);
create index card_consents_card on card_consents (card_id);
create index card_consents_service on card_consents (service_id) where service_id is not null;
create index card_consents_customer on card_consents (customer_id);

create function keep_card_consent() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into card_consents (customer_id, card_id, consent, consented_at)
  values (new.customer_id, new.id, new.consent, new.consented_at);
  return null;
end $$;

create function keep_service_consent() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if tg_op = 'UPDATE' and (new.card_id, new.card_consent, new.card_consented_at)
      is not distinct from (old.card_id, old.card_consent, old.card_consented_at) then
    return null;
  end if;
  insert into card_consents (customer_id, card_id, service_id, consent, consented_at)
  values (new.customer_id, new.card_id, new.id, new.card_consent, new.card_consented_at);
  return null;
end $$;
revoke execute on function keep_card_consent(), keep_service_consent() from public;

insert into card_consents (customer_id, card_id, consent, consented_at)
select customer_id, id, consent, consented_at from saved_cards order by id;
insert into card_consents (customer_id, card_id, service_id, consent, consented_at)
select customer_id, card_id, id, card_consent, card_consented_at
from services
where card_id is not null
order by id;

create trigger saved_cards_consent after insert or update of consent, consented_at on saved_cards
  for each row execute function keep_card_consent();
create trigger services_consent
  after insert or update of card_id, card_consent, card_consented_at on services
  for each row when (new.card_consent is not null) execute function keep_service_consent();
"""

# Another decision about held money begins a new round; the voices of the last one stay.
ROUNDS = """
alter table held add column round integer not null default 1;
alter table held_approvals add column round integer not null default 1;
alter table held_approvals drop constraint held_approvals_pkey,
  add primary key (held_id, round, actor);
"""

# Asked after a row was written and only where it matters: a trigger before would lock each row.
CONDITIONS = """
create trigger held_keep_account after update of iban, holder on held
  for each row when (
    old.state in ('returning', 'returned') and new.state <> 'held'
    and (new.iban, new.holder) is distinct from (old.iban, old.holder))
  execute function refuse_late_change();
create trigger mails_keep_text after update of body_text, body_html on mails
  for each row when (
    new.body_text not in (old.body_text, '')
    or new.body_html is not null and new.body_html is distinct from old.body_html)
  execute function refuse_late_change();
create trigger disputes_keep_amount after update of amount, currency, taken, reason on disputes
  for each row when (
    old.state not in ('inquiry', 'closed')
    and (new.amount, new.currency, new.taken, new.reason)
      is distinct from (old.amount, old.currency, old.taken, old.reason))
  execute function refuse_late_change();
create trigger renewals_keep_paid after update on renewals
  for each row when (old.transfer_id is not null) execute function refuse_late_change();
create trigger bank_doubts_keep_decided after update on bank_doubts
  for each row when (old.state <> 'open') execute function refuse_late_change();
create trigger number_series_forward after update on number_series
  for each row when (new.last < old.last) execute function refuse_late_change();
"""

DOWN = """
drop function keep_history, refuse_late_change cascade;
drop table card_consents;
drop function keep_card_consent, keep_service_consent cascade;
delete from held_approvals a using held h where h.id = a.held_id and a.round <> h.round;
alter table held_approvals drop column round, add primary key (held_id, actor);
alter table held drop column round;
"""

# The rights as they were: everything but on the ledger and the audit log.
RIGHTS = """
do $$
declare
  name text;
begin
  if not exists (select from pg_roles where rolname = 'client_area_app') then
    return;
  end if;
  for name in
    select tablename from pg_tables
    where schemaname = 'public' and tablename not in (
      'alembic_version', 'accounts', 'transfers', 'entries', 'allocations', 'lots',
      'audit_log', 'audit_chain')
  loop
    execute format(
      'grant select, insert, update, delete on %I to client_area_app', name);
  end loop;
  alter default privileges in schema public
    grant select, insert, update, delete on tables to client_area_app;
end $$;
"""


def upgrade() -> None:
    for part in (FUNCTIONS, CONSENTS, ROUNDS, CONDITIONS):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)
    op.execute(RIGHTS)
