"""A transfer for several bills, and money that waits for an exchange rate alone."""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

UP = """
-- The further payments that a line is made of; its first one stands in the line itself, with what
-- these leave of its amount.
create table bank_line_parts (
  line_id bigint not null references bank_lines,
  bill_id bigint not null references bills,
  payment_id bigint not null unique references payments,
  amount bigint not null check (amount > 0),
  primary key (line_id, bill_id)
);

create or replace view payment_senders as
select l.payment_id, l.id as line_id, l.sender, l.sender_account as iban
from bank_lines l
where l.payment_id is not null
  and l.kind = 'credit'
  and l.state in ('matched', 'returned')
  and is_iban(l.sender_account)
union all
select p.payment_id, l.id, l.sender, l.sender_account
from bank_line_parts p
join bank_lines l on l.id = p.line_id
where l.kind = 'credit'
  and l.state in ('matched', 'returned')
  and is_iban(l.sender_account);

-- Why money is held, where a rule may let it out again: `no_rate` waits for a rate and no person.
alter table held add column cause text not null default '' check (cause in ('', 'no_rate'));
alter table bank_lines drop constraint bank_lines_reason_code;
alter table bank_lines add constraint bank_lines_reason_code check (reason_code in (
  '', 'to_follow', 'came_back', 'names_nothing', 'not_found', 'several_customers', 'several_bills',
  'not_exact', 'sender_has_several_bills', 'same_reference', 'no_rate'
));
create index held_no_rate on held (id) where state = 'held' and cause = 'no_rate';
create index bank_lines_no_rate on bank_lines (id)
where state = 'suspense' and reason_code = 'no_rate';
"""
DOWN = """
drop index bank_lines_no_rate, held_no_rate;
-- The guard makes it anew after the migration, for the columns there are then.
drop trigger if exists keep_values on held;
alter table held drop column cause;
update bank_lines
set reason_code = '', reason = 'It cannot be converted now.'
where reason_code = 'no_rate';
alter table bank_lines drop constraint bank_lines_reason_code;
alter table bank_lines add constraint bank_lines_reason_code check (reason_code in (
  '', 'to_follow', 'came_back', 'names_nothing', 'not_found', 'several_customers', 'several_bills',
  'not_exact', 'sender_has_several_bills', 'same_reference'
));
create or replace view payment_senders as
select l.payment_id, l.id as line_id, l.sender, l.sender_account as iban
from bank_lines l
where l.payment_id is not null
  and l.kind = 'credit'
  and l.state in ('matched', 'returned')
  and is_iban(l.sender_account);
drop table bank_line_parts;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
