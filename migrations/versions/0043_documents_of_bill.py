"""Indexes for pages that read more the more happened: all documents of a bill, a customer's open lots."""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index documents_of_bill on documents (bill_id)")
    op.execute("create index lots_of_customer on lots (customer_id) where remaining > 0")


def downgrade() -> None:
    op.execute("drop index documents_of_bill, lots_of_customer")
