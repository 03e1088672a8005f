"""Every document of a bill is found by an index: receipts of refunds and credit notes had none."""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index documents_of_bill on documents (bill_id)")


def downgrade() -> None:
    op.execute("drop index documents_of_bill")
