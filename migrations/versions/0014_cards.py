"""Saved cards: what a processor keeps for a customer, the consent it was kept with, what is charged by it, and which services rely on it."""

from alembic import op

revision = "0014"
down_revision = "0018"
branch_labels = None
depends_on = None

UP = """
-- The processor's own customer for one of ours. The key is written before the call, so a lost answer is found again.
create table card_holders (
  customer_id bigint not null references customers,
  gateway text not null,
  key text not null unique,
  reference text,
  primary key (customer_id, gateway)
);

-- What is shown of a card and how its processor calls it; never its number.
create table saved_cards (
  id bigint generated always as identity primary key,
  public_id text not null unique,
  customer_id bigint not null references customers,
  gateway text not null,
  holder text not null,
  token text not null,
  brand text not null,
  last4 text not null check (last4 ~ '^[0-9]{4}$'),
  exp_month smallint not null check (exp_month between 1 and 12),
  exp_year smallint not null,
  wallet text not null default '',
  fingerprint text not null,
  consent text not null check (consent <> ''),
  consented_at timestamptz not null,
  created_at timestamptz not null,
  unusable text not null default '',
  removed_at timestamptz,
  unique (gateway, token)
);
create unique index saved_cards_same on saved_cards (customer_id, gateway, fingerprint) where removed_at is null;

-- A page on which a card is saved without paying.
create table card_setups (
  public_id text primary key,
  customer_id bigint not null references customers,
  gateway text not null,
  state text not null default 'created' check (state in ('created', 'kept', 'expired')),
  reference text,
  consent text not null check (consent <> ''),
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index card_setups_open on card_setups (created_at) where state = 'created';

-- What a processor has still to be told to forget.
create table card_removals (
  gateway text not null,
  token text not null,
  due_at timestamptz not null,
  tries integer not null default 0,
  done_at timestamptz,
  primary key (gateway, token)
);
create index card_removals_due on card_removals (due_at) where done_at is null;

alter table payments add column card_id bigint references saved_cards, add column consent text, add column off_session boolean not null default false,
  add check (not off_session or card_id is not null);
drop index payments_one_open;
create unique index payments_one_open on payments (bill_id, gateway, method, amount, currency, coalesce(link_id, 0), (consent is not null))
  where state in ('created', 'unknown', 'pending') and card_id is null;
-- One charge by a saved card at a time for a bill; one for which nobody is asked at a time for a customer.
create unique index payments_one_by_card on payments (bill_id) where state in ('created', 'unknown', 'pending') and card_id is not null;
create unique index payments_one_unasked on payments (payer_id) where state in ('created', 'unknown', 'pending') and off_session;
create index payments_card on payments (card_id) where card_id is not null;

update services set payment_source = 'balance' where payment_source <> 'balance';
alter table services drop constraint services_payment_source_check, add column card_id bigint references saved_cards, add column card_consent text,
  add column card_consented_at timestamptz, add check (payment_source in ('balance', 'balance_then_card')),
  add check ((payment_source = 'balance') = (card_id is null) and (card_id is null) = (card_consent is null) and (card_id is null) = (card_consented_at is null));
create index services_card on services (card_id) where card_id is not null;

-- The pretend processor's side.
create table sandbox_cards (
  token text primary key,
  holder text not null,
  brand text not null,
  last4 text not null,
  kind text not null,
  forgotten_at timestamptz
);
alter table sandbox_sessions alter column amount drop not null, alter column currency drop not null, add column holder text not null default '',
  add column keeps boolean not null default false, add column card text references sandbox_cards, add check (amount is not null or keeps);
"""

DOWN = """
delete from sandbox_sessions where amount is null;
alter table sandbox_sessions drop column card, drop column keeps, drop column holder, alter column amount set not null, alter column currency set not null;
drop table sandbox_cards;
update services set payment_source = 'balance', card_id = null, card_consent = null, card_consented_at = null;
alter table services drop constraint services_payment_source_check, drop column card_id, drop column card_consent, drop column card_consented_at,
  add constraint services_payment_source_check check (payment_source in ('balance', 'card', 'balance_then_card'));
drop index payments_one_by_card, payments_one_unasked, payments_one_open;
alter table payments drop column card_id, drop column consent, drop column off_session;
create unique index payments_one_open on payments (bill_id, gateway, method, amount, currency, coalesce(link_id, 0)) where state in ('created', 'unknown', 'pending');
drop table card_removals, card_setups, saved_cards, card_holders;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
