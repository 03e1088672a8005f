"""A bonus lowers the price of what it pays: the part of it in each bill."""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

# What was sold and to whom never changes. Who it is made out to and its tax do, together with a new
# pro forma or with its invoice; its price falls once, while it is paid, by nothing but the allowance
# that is written beside it. While the rate stays, nothing else changes what it asks for.
KEEP_BILL = """
create or replace function keep_bill() returns trigger language plpgsql as $$
declare
  made_out_again constant boolean :=
    (new.seller, new.buyer, new.tax, new.total, new.tax_category, new.tax_rate, new.tax_note)
    is distinct from
    (old.seller, old.buyer, old.tax, old.total, old.tax_category, old.tax_rate, old.tax_note);
  reissued constant boolean :=
    (new.proforma_number, new.payment_reference, new.former_names, new.reissued_at)
    is distinct from
    (old.proforma_number, old.payment_reference, old.former_names, old.reissued_at);
begin
  if (new.id, new.customer_id, new.beneficiary_id, new.kind, new.title, new.currency, {net}
      new.locale, new.timezone, new.issued_at, new.due_at, new.period_start, new.period_end,
      new.months, new.po_number, new.made_out_to)
    is distinct from
     (old.id, old.customer_id, old.beneficiary_id, old.kind, old.title, old.currency, {old_net}
      old.locale, old.timezone, old.issued_at, old.due_at, old.period_start, old.period_end,
      old.months, old.po_number, old.made_out_to)
    or (made_out_again and not coalesce(
      old.settled_by is null and (reissued or new.settled_by is not null), false))
    or (reissued and not coalesce(
      old.status = 'unpaid'
      and new.status = 'unpaid'
      and old.kind = 'service'
      and new.proforma_number <> old.proforma_number
      and new.payment_reference is distinct from old.payment_reference
      and new.former_names = old.former_names || array_remove(
        array[old.proforma_number, old.payment_reference], null)
      and new.reissued_at >= coalesce(old.reissued_at, old.issued_at), false))
    or (old.invoice_number is not null
      and new.invoice_number is distinct from old.invoice_number)
    or (old.settled_by is not null
      and (new.settled_by, new.payment, new.paid_at, new.invoiced_at)
      is distinct from (old.settled_by, old.payment, old.paid_at, old.invoiced_at)){allowance}
  then
    raise exception 'bill % is issued: what it says does not change', old.id
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""
ALLOWANCE = """
    or (
      (new.net, new.allowance, new.allowance_net)
        is distinct from (old.net, old.allowance, old.allowance_net)
      and (
        old.settled_by is not null
        or new.settled_by is null
        or new.net + new.allowance_net is distinct from old.net + old.allowance_net
      )
    )
    or (
      made_out_again
      and (new.tax_category, new.tax_rate) is not distinct from (old.tax_category, old.tax_rate)
      and new.total + new.allowance is distinct from old.total + old.allowance
    )"""

UP = """
alter table bills
  add column allowance bigint,
  add column allowance_net bigint;
update bills set allowance = 0, allowance_net = 0 where paid_at is null;
alter table bills
  alter column allowance set default 0,
  alter column allowance_net set default 0,
  drop constraint bills_check,
  add constraint bills_check check (
    total = net + tax
    and total >= 0
    and total + coalesce(allowance, 0) > 0
  ),
  add constraint bills_allowance_check check (
    (allowance is null) = (allowance_net is null)
    and allowance >= 0
    and allowance_net between 0 and allowance
    and (allowance = 0 or kind = 'service' and paid_at is not null)
  );
comment on column bills.allowance is
  'How much of the price bonus credit took off, VAT included, in minor units: total + allowance is
what was asked for. Null on bills paid before a bonus lowered the price.';
comment on column bills.allowance_net is
  'The same without VAT: net + allowance_net is what the lines add up to.';
"""

# What was lowered stays as it is: papers and books say so.
DOWN = """
alter table bills
  drop constraint bills_allowance_check,
  drop constraint bills_check,
  drop column allowance,
  drop column allowance_net,
  add constraint bills_check check (total > 0 and total = net + tax) not valid;
"""


def upgrade() -> None:
    """The columns, before the trigger that lets a price fall by them."""
    op.execute(UP)
    op.execute(KEEP_BILL.format(net="", old_net="", allowance=ALLOWANCE))


def downgrade() -> None:
    """Without them; a price does not change at all then."""
    op.execute(KEEP_BILL.format(net="new.net,", old_net="old.net,", allowance=""))
    op.execute(DOWN)
