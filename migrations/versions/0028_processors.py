"""Answers of processors that cannot be read, each until it can be, and webhooks that nobody could prove."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

UP = """
-- What waits for a person because its processor said it in a form we do not know. The path names a key, never a value.
create table unreadable_answers (
  id bigint generated always as identity primary key,
  gateway text not null,
  kind text not null check (kind in ('checkout', 'lookup', 'refund', 'charge', 'keep', 'forget', 'dispute', 'card', 'fee', 'detail', 'listed_refund')),
  about text not null,
  payment_id bigint references payments,
  path text not null,
  since timestamptz not null,
  last_at timestamptz not null,
  seen integer not null default 1 check (seen > 0),
  unique (gateway, kind, about)
);
create index unreadable_answers_payment on unreadable_answers (payment_id);

-- Since the last proven one. Many of a gateway without a proven one among them: the secret is wrong, or somebody forges.
create table unproven_webhooks (
  gateway text primary key,
  number integer not null check (number > 0),
  since timestamptz not null,
  last_at timestamptz not null
);
"""

DOWN = """
drop table unproven_webhooks;
drop table unreadable_answers;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
