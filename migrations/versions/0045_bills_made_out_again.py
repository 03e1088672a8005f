"""Bills whose VAT or buyer changes before they are paid: a new pro forma, or an invoice of the day of payment."""

from alembic import op

revision = "0045"
down_revision = "0038"
branch_labels = None
depends_on = None

COLUMNS = """
alter table bills
  add column made_out_to jsonb not null default '{}',
  add column former_names text[] not null default '{}',
  add column reissued_at timestamptz,
  add constraint bills_reissued check ((reissued_at is null) = (former_names = '{}'));
comment on column bills.made_out_to is 'billing details for this bill alone';
comment on column bills.former_names is 'numbers and references of pro formas that another replaced';
comment on column bill_lines.tax_rate is 'of the day of the order; bills.tax_rate is what the invoice says';
create index bills_former_names on bills using gin (former_names)
  where reissued_at is not null;

-- Until now details for one top-up alone were part of its buyer: they stay as they are.
update bills b
set made_out_to = b.buyer - 'email' - 'vat_check'
from customers c
where c.id = b.customer_id
  and b.kind = 'topup'
  and b.status in ('unpaid', 'expired', 'cancelled')
  and (
    b.buyer ->> 'name', b.buyer ->> 'company', b.buyer ->> 'street', b.buyer ->> 'postcode',
    b.buyer ->> 'city', b.buyer ->> 'country', b.buyer ->> 'vat_id'
  ) is distinct from (
    c.name, c.company, c.street, c.postcode, c.city, coalesce(c.country, ''), c.vat_id
  );

drop index documents_bill;
create unique index documents_bill on documents (bill_id, kind)
  where kind in ('invoice', 'receipt');
"""

# What was sold, to whom and for how much before tax never changes. Who it is made out to and its
# tax do, together with a new pro forma or with its invoice, and never after that.
KEEP = """
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
  if (new.id, new.customer_id, new.beneficiary_id, new.kind, new.title, new.currency, new.net,
      new.locale, new.timezone, new.issued_at, new.due_at, new.period_start, new.period_end,
      new.months, new.po_number, new.made_out_to)
    is distinct from
     (old.id, old.customer_id, old.beneficiary_id, old.kind, old.title, old.currency, old.net,
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
      is distinct from (old.settled_by, old.payment, old.paid_at, old.invoiced_at))
  then
    raise exception 'bill % is issued: what it says does not change', old.id
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""

KEEP_BEFORE = """
create or replace function keep_bill() returns trigger language plpgsql as $$
begin
  if (new.id, new.customer_id, new.beneficiary_id, new.kind, new.title, new.currency, new.net,
      new.tax, new.total, new.tax_category, new.tax_rate, new.tax_note, new.seller, new.buyer,
      new.locale, new.timezone, new.issued_at, new.due_at, new.period_start, new.period_end,
      new.months, new.po_number, new.payment_reference)
    is distinct from
     (old.id, old.customer_id, old.beneficiary_id, old.kind, old.title, old.currency, old.net,
      old.tax, old.total, old.tax_category, old.tax_rate, old.tax_note, old.seller, old.buyer,
      old.locale, old.timezone, old.issued_at, old.due_at, old.period_start, old.period_end,
      old.months, old.po_number, old.payment_reference)
    or new.proforma_number is distinct from old.proforma_number
    or (old.invoice_number is not null
      and new.invoice_number is distinct from old.invoice_number)
    or (old.settled_by is not null
      and (new.settled_by, new.payment, new.paid_at, new.invoiced_at)
      is distinct from (old.settled_by, old.payment, old.paid_at, old.invoiced_at))
  then
    raise exception 'bill % is issued: what it says does not change', old.id
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""

# Pro formas that another replaced stay among the documents, so the older rule holds for the rest.
DOWN = """
drop index documents_bill;
create unique index documents_bill on documents (bill_id, kind)
  where kind in ('invoice', 'receipt');
drop index bills_former_names;
-- The guard over the fixed columns names this one; the next migration makes it again.
alter table bills
  drop column made_out_to cascade,
  drop column former_names,
  drop column reissued_at;
comment on column bill_lines.tax_rate is null;
"""


def upgrade() -> None:
    """The columns, several pro formas of one bill, and the rule of what may change."""
    op.execute(COLUMNS)
    op.execute(KEEP)


def downgrade() -> None:
    """Without them; what was reissued keeps its newest number."""
    op.execute(KEEP_BEFORE)
    op.execute(DOWN)
