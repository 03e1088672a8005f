"""Receipts of payments that did not settle a bill by themselves, and of who pays by a copied link."""

from alembic import op

revision = "0038"
down_revision = "0036"
branch_labels = None
depends_on = None

UP = """
alter table documents add column transfer_id bigint references transfers;
alter table documents drop constraint documents_kind_check;
alter table documents add constraint documents_kind_check check (
  kind in (
    'proforma', 'invoice', 'receipt', 'credit_note', 'refund_receipt',
    'payment_receipt', 'link_receipt'
  )
);
-- A receipt is of the transfer that credited the money: one for its payer, one for who used a link.
alter table documents add constraint documents_receipt_of_transfer check (
  case
    when kind in ('payment_receipt', 'link_receipt') then transfer_id is not null
    else transfer_id is null or kind = 'receipt'
  end
);
create unique index documents_transfer on documents (transfer_id, (kind = 'link_receipt'))
  where transfer_id is not null;
drop index documents_bill;
create unique index documents_bill on documents (bill_id, kind)
  where kind in ('proforma', 'invoice', 'receipt');
"""

DOWN = """
drop index documents_bill, documents_transfer;
create unique index documents_bill on documents (bill_id, kind)
  where kind not in ('credit_note', 'refund_receipt');
alter table documents drop constraint documents_receipt_of_transfer;
alter table documents drop constraint documents_kind_check;
alter table documents add constraint documents_kind_check check (
  kind in ('proforma', 'invoice', 'receipt', 'credit_note', 'refund_receipt')
);
alter table documents drop column transfer_id;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
