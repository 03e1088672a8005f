"""What the VAT register said of a customer's number, and when it is asked again."""

from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

UP = """
alter table customers
  drop constraint customers_vat_id_state_check,
  add constraint customers_vat_id_state_check check (
    vat_id_state in ('none', 'unverified', 'valid', 'invalid', 'confirmed', 'refused')
  ),
  add column vat_checked_at timestamptz,
  add column vat_check_due_at timestamptz not null default now(),
  add column vat_check_tries integer not null default 0;
create index customers_vat_check_due on customers (vat_check_due_at)
  where vat_id_state in ('unverified', 'valid', 'invalid');

create table vat_checks (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  vat_id text not null check (vat_id <> ''),
  state text not null check (state in ('valid', 'invalid', 'confirmed', 'refused')),
  consultation text not null default '',
  name text not null default '',
  address text not null default '',
  actor text not null check (actor <> ''),
  reason text not null default '',
  at timestamptz not null
);
create index vat_checks_customer on vat_checks (customer_id, id);
"""

DOWN = """
drop table vat_checks;
drop index customers_vat_check_due;
update customers set vat_id_state = case vat_id_state when 'confirmed' then 'valid' else 'invalid' end
where vat_id_state in ('confirmed', 'refused');
alter table customers
  drop column vat_checked_at,
  drop column vat_check_due_at,
  drop column vat_check_tries,
  drop constraint customers_vat_id_state_check,
  add constraint customers_vat_id_state_check check (
    vat_id_state in ('none', 'unverified', 'valid', 'invalid')
  );
"""


def upgrade() -> None:
    """The table and the columns."""
    op.execute(UP)


def downgrade() -> None:
    """Without them; what support decided becomes what the register would have said."""
    op.execute(DOWN)
