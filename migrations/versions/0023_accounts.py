"""Mailed links are bound to the credentials of their making; a change of address can be undone."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

UP = r"""
-- What a mailed link is bound to: once one of these changed, the link is dead. Only the way back to
-- an old address survives, because who stole the login would change the password next.
create function credentials_mark(u users) returns bytea language sql stable as $$
  select sha256(convert_to(concat_ws(E'\n', u.email, u.role, u.password_hash), 'UTF8'))
$$;

alter table tokens
  drop constraint tokens_purpose_check,
  add column bound_to bytea check (length(bound_to) = 32);

update tokens t
set bound_to = credentials_mark(u),
  purpose = case when t.purpose = 'verify' and t.email <> u.email then 'change' else t.purpose end
from users u
where u.id = t.user_id;

alter table tokens
  add constraint tokens_purpose_check
    check (purpose in ('verify', 'change', 'reset', 'undo', 'billing')),
  add constraint tokens_bound check ((purpose = 'undo') = (bound_to is null));
create index tokens_open on tokens (user_id, purpose) where used_at is null;

-- A name stands in mails to others: one line of plain text.
update users set name = regexp_replace(name, '[\x01-\x1f\x7f]+', ' ', 'g')
where name ~ '[\x01-\x1f\x7f]';
update customers set name = regexp_replace(name, '[\x01-\x1f\x7f]+', ' ', 'g'),
  company = regexp_replace(company, '[\x01-\x1f\x7f]+', ' ', 'g')
where name ~ '[\x01-\x1f\x7f]' or company ~ '[\x01-\x1f\x7f]';
alter table users add constraint users_name_one_line check (name !~ '[\x01-\x1f\x7f]');
alter table customers
  add constraint customers_name_one_line check (name !~ '[\x01-\x1f\x7f]'),
  add constraint customers_company_one_line check (company !~ '[\x01-\x1f\x7f]');
"""

DOWN = """
alter table customers
  drop constraint customers_name_one_line,
  drop constraint customers_company_one_line;
alter table users drop constraint users_name_one_line;
drop index tokens_open;
alter table tokens drop constraint tokens_bound, drop constraint tokens_purpose_check;
delete from tokens where purpose in ('undo', 'billing');
update tokens set purpose = 'verify' where purpose = 'change';
alter table tokens
  add constraint tokens_purpose_check check (purpose in ('verify', 'reset')),
  drop column bound_to;
drop function credentials_mark(users);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
