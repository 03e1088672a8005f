"""What stands on a document or on a processor's page finds its row by an index."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index payments_gateway_reference on payments (gateway_reference)")


def downgrade() -> None:
    op.execute("drop index payments_gateway_reference")
