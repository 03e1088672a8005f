"""Bank transfers: the reference of each bill, and the lines of the bank's statements with what became of them."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# What a bill says is fixed when it is issued; its reference is part of it.
KEEP_BILL = """
create or replace function keep_bill() returns trigger language plpgsql as $$
begin
  if (new.id, new.customer_id, new.beneficiary_id, new.kind, new.title, new.currency, new.net, new.tax, new.total, new.tax_category, new.tax_rate, new.tax_note,
      new.seller, new.buyer, new.locale, new.timezone, new.issued_at, new.due_at, new.period_start, new.period_end, new.months, new.po_number{new})
    is distinct from (old.id, old.customer_id, old.beneficiary_id, old.kind, old.title, old.currency, old.net, old.tax, old.total, old.tax_category, old.tax_rate, old.tax_note,
      old.seller, old.buyer, old.locale, old.timezone, old.issued_at, old.due_at, old.period_start, old.period_end, old.months, old.po_number{old})
    or new.proforma_number is distinct from old.proforma_number
    or (old.invoice_number is not null and new.invoice_number is distinct from old.invoice_number)
    or (old.settled_by is not null and (new.settled_by, new.payment, new.paid_at, new.invoiced_at) is distinct from (old.settled_by, old.payment, old.paid_at, old.invoiced_at))
  then
    raise exception 'bill % is issued: what it says does not change', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
"""

UP = """
alter table bills add column payment_reference text unique;

create table bank_lines (
  id bigint generated always as identity primary key,
  line_key bytea not null unique,
  entry_key bytea,
  account text not null,
  booked_on date not null,
  amount bigint not null check (amount <> 0),
  currency char(3) not null,
  kind text not null check (kind in ('credit', 'debit', 'return', 'charge')),
  bank_reference text not null default '',
  end_to_end text not null default '',
  sender text not null default '',
  sender_account text not null default '',
  structured text not null default '',
  remittance text not null default '',
  deducted bigint not null default 0,
  reason text not null default '',
  file text not null,
  imported_at timestamptz not null,
  transfer_id bigint not null references transfers,
  state text not null default 'suspense' check (state in ('suspense', 'matched', 'returned', 'booked')),
  rule text not null default '',
  actor text not null default 'system',
  customer_id bigint references customers,
  bill_id bigint references bills,
  payment_id bigint references payments,
  matched_at timestamptz,
  returned_by bigint references bank_lines,
  check ((state in ('matched', 'returned')) = (matched_at is not null and customer_id is not null)),
  check ((amount > 0) = (kind = 'credit'))
);
create index bank_lines_entry on bank_lines (entry_key);
create index bank_lines_suspense on bank_lines (id) where state = 'suspense';
create index bank_lines_sender on bank_lines (sender_account, customer_id);
create index bank_lines_end_to_end on bank_lines (end_to_end);
create index bank_lines_bank_reference on bank_lines (bank_reference);

-- What the bank said never changes; only what became of it is written later, and a line that found its customer keeps it.
create function keep_bank_line() returns trigger language plpgsql as $$
begin
  if (new.id, new.line_key, new.entry_key, new.account, new.booked_on, new.amount, new.currency, new.kind, new.bank_reference, new.end_to_end, new.sender, new.sender_account,
      new.structured, new.remittance, new.deducted, new.file, new.imported_at, new.transfer_id)
    is distinct from (old.id, old.line_key, old.entry_key, old.account, old.booked_on, old.amount, old.currency, old.kind, old.bank_reference, old.end_to_end, old.sender, old.sender_account,
      old.structured, old.remittance, old.deducted, old.file, old.imported_at, old.transfer_id)
    or (old.state <> 'suspense' and (new.customer_id, new.bill_id, new.payment_id, new.matched_at)
      is distinct from (old.customer_id, old.bill_id, old.payment_id, old.matched_at))
  then
    raise exception 'bank line % is what the bank said: it does not change', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger bank_lines_keep before update on bank_lines for each row execute function keep_bank_line();
create trigger bank_lines_no_delete before delete on bank_lines for each row execute function refuse_change();
"""


def upgrade() -> None:
    op.execute(UP)
    op.execute(KEEP_BILL.format(new=", new.payment_reference", old=", old.payment_reference"))


def downgrade() -> None:
    op.execute(KEEP_BILL.format(new="", old=""))
    op.execute("drop table bank_lines; drop function keep_bank_line; alter table bills drop column payment_reference")
