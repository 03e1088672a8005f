"""Bills, their lines, the documents made of them and the gapless number series."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = """
create table number_series (
  kind text not null,
  year integer not null,
  last bigint not null,
  primary key (kind, year)
);

create table bills (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  beneficiary_id bigint not null references customers,
  kind text not null check (kind in ('topup', 'service')),
  status text not null default 'unpaid' check (status in ('unpaid', 'paid', 'cancelled', 'expired', 'refunded')),
  proforma_number text unique,
  invoice_number text unique,
  title text not null,
  currency char(3) not null,
  net bigint not null,
  tax bigint not null,
  total bigint not null check (total > 0 and total = net + tax),
  tax_category text not null,
  tax_rate numeric(6, 3) not null,
  tax_note text not null default '',
  seller jsonb not null,
  buyer jsonb not null,
  locale text not null default 'en',
  timezone text not null default 'UTC',
  issued_at timestamptz not null,
  due_at timestamptz not null,
  paid_at timestamptz,
  invoiced_at timestamptz,
  closed_at timestamptz,
  period_start date,
  period_end date,
  months integer,
  po_number text not null default '',
  settled_by text check (settled_by in ('payment', 'balance')),
  payment jsonb,
  words text not null default '',
  check ((status in ('paid', 'refunded')) = (paid_at is not null)),
  check ((status in ('paid', 'refunded')) = (settled_by is not null)),
  check ((status in ('paid', 'refunded')) = (payment is not null)),
  check ((invoice_number is not null) = (invoiced_at is not null)),
  check (status not in ('paid', 'refunded') or invoice_number is not null),
  constraint topup_is_paid_from_outside check (kind <> 'topup' or settled_by is distinct from 'balance')
);
create index bills_list on bills (customer_id, issued_at desc, id desc) include (status, currency, total);
create index bills_status on bills (customer_id, status, issued_at desc, id desc);
create index bills_due on bills (due_at) where status = 'unpaid';

create table bill_lines (
  bill_id bigint not null references bills,
  position integer not null,
  service_id bigint,
  description text not null,
  detail text not null default '',
  quantity integer not null default 1 check (quantity > 0),
  unit_price bigint not null,
  net bigint not null,
  tax_rate numeric(6, 3) not null,
  period_start date,
  period_end date,
  primary key (bill_id, position)
);

create table documents (
  id bigint generated always as identity primary key,
  bill_id bigint not null references bills,
  customer_id bigint not null references customers,
  kind text not null check (kind in ('proforma', 'invoice', 'receipt', 'credit_note')),
  number text not null unique,
  issued_at timestamptz not null,
  total bigint not null,
  currency char(3) not null,
  content jsonb not null,
  corrects bigint references documents
);
create unique index documents_bill on documents (bill_id, kind) where kind <> 'credit_note';
create index documents_customer on documents (customer_id, id);
create index documents_issued on documents (issued_at desc, id desc);

create table document_files (
  document_id bigint primary key references documents,
  pdf bytea not null,
  sha256 bytea not null check (sha256 = sha256(pdf)),
  rendered_at timestamptz not null
);

-- What a bill says is fixed when it is issued; only its state moves, and a number once given stays.
create function keep_bill() returns trigger language plpgsql as $$
begin
  if (new.id, new.customer_id, new.beneficiary_id, new.kind, new.title, new.currency, new.net, new.tax, new.total, new.tax_category, new.tax_rate, new.tax_note,
      new.seller, new.buyer, new.locale, new.timezone, new.issued_at, new.due_at, new.period_start, new.period_end, new.months, new.po_number)
    is distinct from (old.id, old.customer_id, old.beneficiary_id, old.kind, old.title, old.currency, old.net, old.tax, old.total, old.tax_category, old.tax_rate, old.tax_note,
      old.seller, old.buyer, old.locale, old.timezone, old.issued_at, old.due_at, old.period_start, old.period_end, old.months, old.po_number)
    or new.proforma_number is distinct from old.proforma_number
    or (old.invoice_number is not null and new.invoice_number is distinct from old.invoice_number)
    or (old.settled_by is not null and (new.settled_by, new.payment, new.paid_at, new.invoiced_at) is distinct from (old.settled_by, old.payment, old.paid_at, old.invoiced_at))
  then
    raise exception 'bill % is issued: what it says does not change', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end $$;

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
end $$;
create trigger documents_append_only before update or delete on documents for each row execute function refuse_change();
create trigger documents_no_truncate before truncate on documents for each statement execute function refuse_change();
create trigger bills_keep before update on bills for each row execute function keep_bill();
create trigger bills_no_delete before delete on bills for each row execute function refuse_change();
create trigger bill_lines_append_only before update or delete on bill_lines for each row execute function refuse_change();
create trigger document_files_append_only before update or delete on document_files for each row execute function refuse_change();
create trigger document_files_no_truncate before truncate on document_files for each statement execute function refuse_change();
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("drop table document_files, documents, bill_lines, bills, number_series; drop function refuse_change, keep_bill")
