"""Processors in trouble, and what waits because of it."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

UP = """
-- Without a verb the processor gives no answer to anything; with one it does not let us do that.
create table outages (
  gateway text not null,
  verb text not null,
  since timestamptz not null,
  last_at timestamptz not null,
  until timestamptz not null,
  pauses integer not null default 0,
  unheard text[] not null default '{}',
  detail text not null,
  primary key (gateway, verb)
);
alter table refunds add column hindrance text not null default '';
alter table held add column hindrance text not null default '';
"""

DOWN = """
alter table held drop column hindrance;
alter table refunds drop column hindrance;
drop table outages;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
