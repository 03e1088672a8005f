"""What the jobs did last, what is out of order, and mails that wait for their server."""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

UP = """
create table job_runs (
  name text primary key check (name <> ''),
  every_s double precision not null check (every_s > 0),
  known_at timestamptz not null,
  began_at timestamptz,
  ended_at timestamptz,
  failed_since timestamptz,
  failure text not null default ''
);
create table troubles (
  code text primary key check (code in ('mail_server', 'clock')),
  since timestamptz not null,
  last_at timestamptz not null,
  detail text not null
);
-- Why the last try of a mail failed: its server did not take mails then, or it did not take this one.
alter table mails add column server_failed boolean not null default false;
"""

DOWN = """
alter table mails drop column server_failed;
drop table troubles;
drop table job_runs;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
