"""Why a line of a statement waits is a code with its values, never a sentence."""

from alembic import op

revision = "0049"
down_revision = "0046"
branch_labels = None
depends_on = None

UP = """
alter table bank_lines drop constraint bank_lines_reason_code;
alter table bank_lines drop constraint bank_lines_one_reason;
alter table bank_lines add column reason_values jsonb not null default '{}'
  check (jsonb_typeof(reason_values) = 'object');

alter table bank_lines disable trigger user;
-- What earlier versions wrote as a sentence, where the line was in suspense, split or the same.
update bank_lines
set
  reason_code = case
    when state = 'same' then 'same_money'
    when state = 'split' then 'itemised'
    when reason = 'Money that left the account.' then 'unknown_debit'
    when reason = 'It takes back a transfer that cannot be found.' then 'original_not_found'
    when reason like 'The transfers of this batch do not add up%' then 'batch_differs'
    when reason like 'It may be the same money as %' then 'perhaps_singles'
    when reason like 'It may be a part of what is in the books%' then 'perhaps_part'
    when reason like 'Another file told the whole of this statement%' then 'not_in_other_file'
    when reason like 'It is other money:%' then 'other_money'
    when reason like 'It cannot be converted now%' then 'cannot_convert'
    when reason ~ '^It names (RF|HM|BR)-[0-9]+, which goes to another' then 'payout_account_differs'
    when reason ~ '^It names (RF|HM|BR)-[0-9]+, which has left' then 'payout_left_before'
    when reason ~ '^It names (RF|HM|BR)-[0-9]+, which was not' then 'payout_not_due'
    when reason ~ '^It names (RF|HM|BR)-[0-9]+, which is ' then 'payout_amount_differs'
    when reason ~ '^(RF|HM|BR)-[0-9]+ came back' then 'payout_came_back'
    when reason like 'It could not be booked off%' then 'not_classified'
    when reason like 'It could not be credited%' then 'not_credited'
    else 'names_nothing'
  end,
  reason_values = case
    when reason ~ '^It names (RF|HM|BR)-[0-9]+, which is ' then jsonb_build_object(
      'number', substring(reason from '[RHB][FMR]-[0-9]+'),
      'amount', substring(reason from 'which is (.*)[.]$')
    )
    when reason ~ '^(It names )?(RF|HM|BR)-[0-9]+' then jsonb_build_object(
      'number', substring(reason from '[RHB][FMR]-[0-9]+')
    )
    else '{}'
  end,
  reason = ''
where state in ('suspense', 'same', 'split')
  and reason_code = ''
  and reason <> '';
alter table bank_lines enable trigger user;

alter table bank_lines add constraint bank_lines_reason_code check (reason_code in (
  '', 'to_follow', 'came_back', 'names_nothing', 'not_found', 'several_customers', 'several_bills',
  'not_exact', 'sender_has_several_bills', 'same_reference', 'no_rate', 'cannot_convert',
  'unknown_debit', 'original_not_found', 'batch_differs', 'perhaps_singles', 'perhaps_part',
  'not_in_other_file', 'other_money', 'same_money', 'itemised', 'payout_amount_differs',
  'payout_account_differs', 'payout_left_before', 'payout_not_due', 'payout_came_back',
  'not_credited', 'not_classified'
));
-- What stays in `reason` is what a person wrote when the line was matched by hand.
alter table bank_lines add constraint bank_lines_reason_of_person
  check (reason = '' or state in ('matched', 'returned', 'booked'));
"""
DOWN = """
alter table bank_lines drop constraint bank_lines_reason_of_person;
alter table bank_lines drop constraint bank_lines_reason_code;
drop trigger if exists keep_values on bank_lines;
alter table bank_lines drop column reason_values;
alter table bank_lines disable trigger user;
update bank_lines
set reason = replace(reason_code, '_', ' '), reason_code = ''
where reason_code in (
  'cannot_convert', 'unknown_debit', 'original_not_found', 'batch_differs', 'perhaps_singles',
  'perhaps_part', 'not_in_other_file', 'other_money', 'same_money', 'itemised',
  'payout_amount_differs', 'payout_account_differs', 'payout_left_before', 'payout_not_due',
  'payout_came_back', 'not_credited', 'not_classified'
);
alter table bank_lines enable trigger user;
alter table bank_lines add constraint bank_lines_reason_code check (reason_code in (
  '', 'to_follow', 'came_back', 'names_nothing', 'not_found', 'several_customers', 'several_bills',
  'not_exact', 'sender_has_several_bills', 'same_reference', 'no_rate'
));
alter table bank_lines add constraint bank_lines_one_reason check (reason_code = '' or reason = '');
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
