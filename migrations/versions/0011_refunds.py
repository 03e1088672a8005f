"""Money back out, in full: one open refund per payment, approvals by different people, payouts by hand, never more back than came."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UP = """
alter table refunds
  add column way text not null default 'source' check (way in ('source', 'bank')),
  add column iban text,
  add column holder text,
  add column approvals_needed smallint not null default 1 check (approvals_needed between 1 and 2),
  add column margin bigint not null default 0 check (margin >= 0),
  add column attempted_at timestamptz,
  add column checked_at timestamptz,
  add constraint refunds_by_bank check (way = 'source' or (iban is not null and holder is not null and approvals_needed = 2));
create unique index refunds_one_open on refunds (payment_id) where state in ('requested', 'approved', 'sent');
create unique index refunds_reference on refunds (gateway_reference, payment_id) where gateway_reference is not null;
create index refunds_open on refunds (id) where state in ('requested', 'approved', 'sent');

create table refund_approvals (
  refund_id bigint not null references refunds,
  actor text not null,
  at timestamptz not null,
  primary key (refund_id, actor)
);

-- The payment's row is held, so of two refunds of one payment the second one is counted after the first.
create function refunds_within_captured() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  captured bigint;
  brought bigint;
begin
  select received into captured from payments where id = new.payment_id for no key update;
  select credited into brought from lots where id = new.lot_id;
  if exists (
    select from refunds where payment_id = new.payment_id and state in ('requested', 'approved', 'sent', 'settled')
    having sum(payout) > captured or sum(amount) filter (where lot_id = new.lot_id) > brought
  ) then
    raise exception 'refunds of payment % would be more than it brought', new.payment_id using errcode = 'check_violation', constraint = 'refunds_within_captured';
  end if;
  return null;
end $$;
create trigger refunds_within_captured after insert or update of state, payout, amount on refunds for each row execute function refunds_within_captured();
revoke execute on function refunds_within_captured() from public;

alter table disputes add column taken bigint not null default 0;
create index disputes_payment on disputes (payment_id);

alter table sandbox_refunds
  add column state text not null default 'settled' check (state in ('pending', 'settled', 'failed')),
  add column failure text not null default '';
create index sandbox_refunds_session on sandbox_refunds (reference);
create table sandbox_disputes (
  dispute text primary key,
  reference text not null references sandbox_sessions,
  amount bigint not null check (amount > 0),
  reason text not null,
  state text not null default 'open' check (state in ('open', 'won', 'lost')),
  at timestamptz not null
);
create index sandbox_disputes_session on sandbox_disputes (reference);
"""

DOWN = """
drop table sandbox_disputes, refund_approvals;
drop index sandbox_refunds_session;
alter table sandbox_refunds drop column state, drop column failure;
alter table disputes drop column taken;
drop index disputes_payment, refunds_one_open, refunds_reference, refunds_open;
drop trigger refunds_within_captured on refunds;
drop function refunds_within_captured;
alter table refunds drop constraint refunds_by_bank;
alter table refunds drop column way, drop column iban, drop column holder, drop column approvals_needed, drop column margin, drop column attempted_at, drop column checked_at;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
