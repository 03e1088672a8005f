"""Every table and what may happen to its rows: the one place that says so.

The triggers, the rights of the app's role, `flask ledger check` and the table in
docs/operations.md all follow it. A new table needs its line here before it can be migrated.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["history", "record", "master", "free"]


@dataclass(frozen=True, slots=True)
class Table:
    """What may happen to the rows of one table.

    ``history``: written once, never changed, never removed. ``record``: never removed, only the
    columns of ``changes`` may change. ``master``: never removed, every column may change but
    those of ``fixed``. ``free``: rows come and go.
    ``triggered``: the app writes no row itself, a trigger does. ``moved``: a trigger of its own
    guards its updates, because another trigger makes them.
    """

    kind: Kind
    changes: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    triggered: bool = False
    moved: bool = False


def _record(changes: str) -> Table:
    return Table("record", changes=tuple(changes.split()))


def _master(fixed: str) -> Table:
    return Table("master", fixed=tuple(fixed.split()))


HISTORY: Final = Table("history")
FREE: Final = Table("free")

TABLES: Final[dict[str, Table]] = {
    # The ledger.
    "accounts": Table("history", moved=True),
    "transfers": HISTORY,
    "entries": HISTORY,
    "allocations": HISTORY,
    "lots": _record("remaining frozen_reason note"),
    "conversions": _record("lifted_at lifted_by lifted_reason"),
    "rates": HISTORY,
    "quotes": HISTORY,
    # Decisions and what happened.
    "audit_log": HISTORY,
    "audit_chain": Table("history", triggered=True),
    "security_events": HISTORY,
    "vat_checks": HISTORY,
    "payment_events": HISTORY,
    "refund_events": HISTORY,
    "held_events": HISTORY,
    "dispute_events": HISTORY,
    "approvals": _record("withdrawn_at"),
    "card_consents": Table("history", triggered=True),
    # Bills and papers.
    "number_series": _record("last"),
    "bills": _record(
        """
        status proforma_number payment_reference former_names reissued_at invoice_number
        seller buyer net tax total allowance allowance_net tax_category tax_rate tax_note
        paid_at invoiced_at closed_at settled_by payment words
        """
    ),
    "bill_lines": HISTORY,
    "documents": HISTORY,
    "document_files": HISTORY,
    "mails": _record(
        """
        due_at sent_at tries error refused_at body_text body_html server_failed
        """
    ),
    # Payments and what processors say.
    "payments": _record(
        """
        state quote_id gateway_reference handoff_url method_label failure_code
        failure_message received received_currency fee fee_currency credited
        credited_currency rate_note updated_at checked_at paid_at
        """
    ),
    "webhooks": _record("state tries error due_at processed_at"),
    "refunds": _record("state hindrance approvals_needed gateway_reference attempted_at updated_at"),
    "held": _record(
        """
        state decision way iban holder approvals_needed tries send_key attempted_at
        gateway_reference hindrance updated_at
        """
    ),
    "disputes": _record("state amount currency taken reason closed_at"),
    "links": _record("revoked_at"),
    "saved_cards": _record(
        """
        holder token exp_month exp_year wallet consent consented_at unusable removed_at
        """
    ),
    "card_setups": _record("state reference"),
    "card_holders": _record("reference"),
    "card_removals": _record("due_at tries done_at"),
    # The bank.
    "bank_lines": _record(
        """
        state reason reason_code reason_values rule actor customer_id bill_id payment_id matched_at returned_by
        payout
        """
    ),
    "bank_line_parts": HISTORY,
    "bank_statements": HISTORY,
    "bank_acknowledged": HISTORY,
    "bank_doubts": _record("state actor reason decided_at"),
    "bank_doubt_lines": HISTORY,
    "bank_returns": _record("state bank_reference updated_at"),
    "bank_return_steps": HISTORY,
    "bank_payout_files": HISTORY,
    "bank_payouts": HISTORY,
    "bank_payout_statuses": _record("looked_at actor note"),
    # Customers and what they run.
    "customers": _master("id created_at origin"),
    "users": _master("id customer_id created_at"),
    "services": _master("id public_id customer_id created_at"),
    "renewals": _record("period_end months bill_id transfer_id renewed_at"),
    "plans": _master("id code"),
    "prices": FREE,
    "agreed_prices": _master("service_id currency months"),
    "kept_prices": _record("net"),
    "demo_seeding": _record("finished_at"),
    # Rows that come and go.
    "sessions": FREE,
    "tokens": FREE,
    "rate_limits": FREE,
    "outages": FREE,
    "troubles": FREE,
    "job_runs": FREE,
    "unreadable_answers": FREE,
    "unproven_webhooks": FREE,
    "rate_feeds": FREE,
    # The pretend processor: another company's books.
    "sandbox_sessions": FREE,
    "sandbox_deliveries": FREE,
    "sandbox_refunds": FREE,
    "sandbox_disputes": FREE,
    "sandbox_cards": FREE,
}

FORMER: Final = frozenset({"refund_approvals", "held_approvals"})
"""Tables that only a downgrade brings back; the program of that time classifies them."""
OWNERS_ONLY: Final = frozenset({"alembic_version"})
"""Tables of the owner, which the app only reads."""

# What rows must be beyond their kind; each trigger as it is made.
_OWN_TRIGGERS: Final = """
create trigger accounts_open
  before insert on accounts
  for each row execute function accounts_open();
create trigger accounts_append_only
  before update on accounts
  for each statement execute function accounts_moved_by_entries();
create trigger entries_keep_books
  before insert on entries
  for each row execute function entries_keep_books();
create constraint trigger transfers_check
  after insert on transfers
  deferrable initially deferred
  for each row execute function transfers_check();
create trigger conversions_append_only
  before update or delete on conversions
  for each row execute function conversions_are_history();
create trigger bills_keep
  before update on bills
  for each row execute function keep_bill();
create trigger bank_lines_keep
  before update on bank_lines
  for each row execute function keep_bank_line();
create trigger refunds_within_captured
  after insert or update of state, payout, amount on refunds
  for each row execute function refunds_within_captured();
create constraint trigger audit_log_chain
  after insert on audit_log
  deferrable initially deferred
  for each row execute function audit_chain_append();
create trigger saved_cards_consent
  after insert or update of consent, consented_at on saved_cards
  for each row execute function keep_card_consent();
create trigger services_consent
  after insert or update of card_id, card_consent, card_consented_at on services
  for each row when (new.card_consent is not null) execute function keep_service_consent();
create trigger held_keep_account
  after update of iban, holder on held
  for each row when (
    old.state in ('returning', 'returned') and new.state <> 'held'
    and (new.iban, new.holder) is distinct from (old.iban, old.holder))
  execute function refuse_late_change();
create trigger mails_keep_text
  after update of body_text, body_html on mails
  for each row when (
    new.body_text not in (old.body_text, '')
    or new.body_html is not null and new.body_html is distinct from old.body_html)
  execute function refuse_late_change();
create trigger disputes_keep_amount
  after update of amount, currency, taken, reason on disputes
  for each row when (
    old.state not in ('inquiry', 'closed')
    and (new.amount, new.currency, new.taken, new.reason)
      is distinct from (old.amount, old.currency, old.taken, old.reason))
  execute function refuse_late_change();
create trigger renewals_keep_paid
  after update on renewals
  for each row when (old.transfer_id is not null) execute function refuse_late_change();
create trigger bank_doubts_keep_decided
  after update on bank_doubts
  for each row when (old.state <> 'open') execute function refuse_late_change();
create trigger refunds_to_sender
  before insert or update of iban, way on refunds
  for each row execute function keep_refund_to_sender();
create trigger held_to_sender
  before insert or update of iban, way on held
  for each row execute function keep_held_to_sender();
create trigger bank_returns_to_sender
  before insert or update of iban on bank_returns
  for each row execute function keep_return_to_sender();
create trigger bank_payout_statuses_keep_seen
  before update on bank_payout_statuses
  for each row execute function keep_payout_status();
create trigger customers_origin
  before insert on customers
  for each row execute function note_origin();
create trigger bank_lines_origin
  before insert on bank_lines
  for each row execute function note_origin();
create trigger bank_payout_files_origin
  before insert on bank_payout_files
  for each row execute function note_origin();
create trigger payments_origin
  before insert on payments
  for each row execute function note_payment_origin();
create trigger users_keep_demo
  after update of demo on users
  for each row when (old.demo and not new.demo) execute function refuse_late_change();
create trigger refunds_test_money_stays
  after insert or update of way, state, payment_id on refunds
  for each row when (new.way = 'bank' and new.state not in ('declined', 'withdrawn', 'failed'))
  execute function test_money_stays();
create trigger held_test_money_stays
  after insert or update of way, state, payment_id on held
  for each row when (new.way = 'bank')
  execute function test_money_stays();
create trigger bank_returns_test_line_stays
  after insert or update of state, line_id on bank_returns
  for each row when (new.state not in ('withdrawn', 'failed'))
  execute function test_line_stays();
create trigger bank_payouts_of_one_kind
  after insert on bank_payouts
  for each row execute function payouts_of_one_kind();
create trigger approvals_by_support
  before insert on approvals
  for each row execute function approval_is_by_support();
create trigger approvals_keep_withdrawn
  after update on approvals
  for each row when (old.withdrawn_at is not null) execute function refuse_late_change();
create trigger refund_is_approved
  before update of state on refunds
  for each row when (new.state = 'approved' and old.state <> 'approved')
  execute function refund_is_approved();
create trigger held_is_approved
  before update of state on held
  for each row when (
    new.state in ('credited', 'returning', 'dismissed') and old.state <> new.state)
  execute function held_is_approved();
create trigger bank_return_is_approved
  before update of state on bank_returns
  for each row when (new.state = 'approved' and old.state <> 'approved')
  execute function bank_return_is_approved();
create trigger number_series_forward
  after update on number_series
  for each row when (new.last < old.last) execute function refuse_late_change();
"""
_TRIGGER: Final = re.compile(r"(?s)(create (?:constraint )?trigger (\w+).*? on (\w+)\b[^;]*);")

TRIGGERS: Final = {(made[3], made[2]): made[1] for made in _TRIGGER.finditer(_OWN_TRIGGERS)}
"""The statement that makes each of them, by table and trigger."""
