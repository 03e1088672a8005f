"""Mails a server refuses for good are set aside; those that wait leave in the order they were written."""

from alembic import op

revision = "0019"
down_revision = "0014"
branch_labels = None
depends_on = None

UP = """
alter table mails add column refused_at timestamptz;
create index mails_waiting on mails (id) where sent_at is null and refused_at is null;
drop index mails_due;
"""

DOWN = """
create index mails_due on mails (due_at) where sent_at is null;
drop index mails_waiting;
alter table mails drop column refused_at;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
