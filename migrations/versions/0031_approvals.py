"""One table for the voices of people who decide together, and guards that count them."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

TABLE = """
create table approvals (
  id bigint generated always as identity primary key,
  subject text not null check (
    subject in ('refund', 'held', 'payout', 'bank_return', 'bank_line', 'bank_doubt', 'bonus')
  ),
  subject_id text not null check (subject_id <> ''),
  decision text not null check (
    decision in ('approve', 'credit', 'return', 'dismiss', 'failed', 'match', 'separate', 'grant')
  ),
  terms text not null default '',
  actor text not null check (actor <> ''),
  user_id bigint references users,
  at timestamptz not null,
  reason text not null default '',
  alone boolean not null default false,
  base_amount bigint not null default 0 check (base_amount >= 0),
  withdrawn_at timestamptz
);
create unique index approvals_one_voice on approvals (subject, subject_id, decision, user_id)
  where withdrawn_at is null;
create index approvals_subject on approvals (subject, subject_id, id);
create index approvals_alone on approvals (user_id, at) where alone;
create index payments_payer on payments (payer_id) where payer_id <> customer_id;
create index customers_billing_email on customers (lower(billing_email))
  where billing_email <> '';
"""

# The voices that stand. A login that no user has keeps its text and counts for nobody any more;
# what was said in earlier rounds stays in held_events.
MOVE = """
insert into approvals (subject, subject_id, decision, actor, user_id, at)
select 'refund', r.number, 'approve', a.actor, u.id, a.at
from refund_approvals a
join refunds r on r.id = a.refund_id
left join users u on a.actor = 'staff:' || u.login
order by a.at, a.refund_id;

insert into approvals (subject, subject_id, decision, terms, actor, user_id, at)
select 'held', h.number, h.decision, concat_ws('|', h.way, h.iban, h.holder), a.actor, u.id, a.at
from held_approvals a
join held h on h.id = a.held_id and h.round = a.round
left join users u on a.actor = 'staff:' || u.login
where h.decision is not null
order by a.at, a.held_id;

insert into approvals (subject, subject_id, decision, actor, user_id, at, withdrawn_at)
select 'bank_return', r.number, 'approve', s.actor, u.id, s.at,
  case when r.state in ('withdrawn', 'failed') then r.updated_at end
from bank_return_steps s
join bank_returns r on r.id = s.return_id
left join users u on s.actor = 'staff:' || u.login
where s.state in ('requested', 'approved')
order by s.id;

drop table refund_approvals, held_approvals;
-- The guard makes it anew after the migration, for the columns there are then.
drop trigger if exists keep_values on held;
alter table held drop column round;
drop index bank_return_one_voice;
"""

GUARDS = """
-- Nobody gives a voice who may not decide. That voices are kept is the guard's to see to.
create function approval_is_by_support() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
  if new.actor <> 'system' and not exists (
    select from users
    where id = new.user_id
      and role = 'support'
      and disabled_at is null
  ) then
    raise exception 'an approval needs an enabled user of support'
      using errcode = 'check_violation', constraint = 'approvals_by_support';
  end if;
  return new;
end $$;
create trigger approvals_by_support before insert on approvals
  for each row execute function approval_is_by_support();
create trigger approvals_keep_withdrawn after update on approvals
  for each row when (old.withdrawn_at is not null) execute function refuse_late_change();

create function approvals_given(which text, number text, what text) returns bigint
language sql stable set search_path = public, pg_temp as $$
  select count(distinct u.id) + count(*) filter (where a.actor = 'system')
  from approvals a
  left join users u on u.id = a.user_id and u.role = 'support' and u.disabled_at is null
  where a.subject = which
    and a.subject_id = number
    and a.decision = what
    and a.withdrawn_at is null
$$;

-- Nothing moves on as approved before as many different people said so as it needs.
create function refund_is_approved() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
  if approvals_given('refund', new.number, 'approve') < new.approvals_needed then
    raise exception 'refund % needs % approvals', new.number, new.approvals_needed
      using errcode = 'check_violation', constraint = 'refund_is_approved';
  end if;
  return new;
end $$;
create trigger refund_is_approved before update of state on refunds
  for each row when (new.state = 'approved' and old.state <> 'approved')
  execute function refund_is_approved();

create function held_is_approved() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
  if approvals_given('held', new.number, new.decision) < new.approvals_needed then
    raise exception 'held money % needs % approvals', new.number, new.approvals_needed
      using errcode = 'check_violation', constraint = 'held_is_approved';
  end if;
  return new;
end $$;
create trigger held_is_approved before update of state on held
  for each row when (
    new.state in ('credited', 'returning', 'dismissed') and old.state <> new.state
  )
  execute function held_is_approved();

create function bank_return_is_approved() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
  if approvals_given('bank_return', new.number, 'approve') < 2 then
    raise exception 'bank return % needs 2 approvals', new.number
      using errcode = 'check_violation', constraint = 'bank_return_is_approved';
  end if;
  return new;
end $$;
create trigger bank_return_is_approved before update of state on bank_returns
  for each row when (new.state = 'approved' and old.state <> 'approved')
  execute function bank_return_is_approved();
"""

DOWN = """
drop trigger bank_return_is_approved on bank_returns;
drop trigger held_is_approved on held;
drop trigger refund_is_approved on refunds;
drop function bank_return_is_approved, held_is_approved, refund_is_approved, approvals_given;

create table refund_approvals (
  refund_id bigint not null references refunds,
  actor text not null,
  at timestamptz not null,
  primary key (refund_id, actor)
);
create table held_approvals (
  held_id bigint not null references held,
  actor text not null,
  at timestamptz not null,
  round integer not null default 1,
  primary key (held_id, round, actor)
);
alter table held add column round integer not null default 1;
insert into refund_approvals
select r.id, a.actor, min(a.at)
from approvals a
join refunds r on r.number = a.subject_id
where a.subject = 'refund' and a.withdrawn_at is null
group by r.id, a.actor;
insert into held_approvals
select h.id, a.actor, min(a.at)
from approvals a
join held h on h.number = a.subject_id
where a.subject = 'held' and a.withdrawn_at is null
group by h.id, a.actor;
create unique index bank_return_one_voice on bank_return_steps (return_id, actor)
  where state in ('requested', 'approved');

drop index payments_payer, customers_billing_email;
drop table approvals;
drop function approval_is_by_support;
"""


def upgrade() -> None:
    for part in (TABLE, MOVE, GUARDS):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)
