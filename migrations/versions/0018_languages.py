"""The language a mail was written in, and that of a payer without a login."""

from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

UP = """
alter table mails add column language text not null default 'en';

-- Who has a login speaks the language of its user; a guest that of the browser it came with.
alter table customers add column guest_locale text;
"""

DOWN = """
alter table customers drop column guest_locale;
alter table mails drop column language;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
