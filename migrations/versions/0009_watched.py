"""Paid payments that may still receive more are asked about for some days."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index payments_watched on payments (gateway, paid_at) where state = 'paid'")


def downgrade() -> None:
    op.execute("drop index payments_watched")
