"""A refund that who asked for it withdrew while it waited."""

from alembic import op

revision = "0036"
down_revision = "0044"
branch_labels = None
depends_on = None

GUARD = """
drop trigger refunds_test_money_stays on refunds;
create trigger refunds_test_money_stays
  after insert or update of way, state, payment_id on refunds
  for each row when (new.way = 'bank' and new.state not in ({}))
  execute function test_money_stays();
"""
STATES = "'requested', 'approved', 'declined', 'sent', 'settled', 'failed'"


def upgrade() -> None:
    """One more end of a refund."""
    op.execute("alter table refunds drop constraint refunds_state_check")
    op.execute(f"alter table refunds add constraint refunds_state_check check (state in ({STATES}, 'withdrawn'))")
    op.execute(GUARD.format("'declined', 'withdrawn', 'failed'"))


def downgrade() -> None:
    """Withdrawn ones become declined: their money is back on the balance all the same."""
    op.execute("alter table refunds disable trigger user")
    op.execute("update refunds set state = 'declined' where state = 'withdrawn'")
    op.execute("alter table refunds enable trigger user")
    op.execute("alter table refunds drop constraint refunds_state_check")
    op.execute(f"alter table refunds add constraint refunds_state_check check (state in ({STATES}))")
    op.execute(GUARD.format("'declined', 'failed'"))
