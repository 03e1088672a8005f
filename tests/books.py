"""Bills and payments written as rows, for tests of what stands beside the books."""

from app import clock, db

_BILL = """
insert into bills (customer_id, beneficiary_id, kind, proforma_number, title, currency, net, tax, total, tax_category, tax_rate, seller, buyer, issued_at, due_at)
values (%(payer)s, %(owner)s, 'topup', %(number)s, 'Top-up', 'EUR', %(minor)s, 0, %(minor)s, 'none', 0, '{}', '{}', %(at)s, %(at)s) returning id
"""
_PAYMENT = """
insert into payments (public_id, bill_id, customer_id, payer_id, method, gateway, charge, state, amount, currency, received, received_currency, credited, credited_currency,
  method_label, created_at, updated_at, checked_at, expires_at, paid_at)
values (%(public_id)s, %(bill)s, %(owner)s, %(payer)s, 'card', 'sandbox', '{}', %(state)s, %(minor)s, 'EUR', %(minor)s, 'EUR', %(minor)s, 'EUR',
  'Visa •••• 4242', %(at)s, %(at)s, %(at)s, %(at)s, %(at)s) returning id
"""


def bill(owner: int, number: str | None, *, payer: int | None = None, minor: int = 1000) -> int:
    """An unpaid top-up bill in EUR. Within a transaction."""
    return db.scalar(_BILL, owner=owner, payer=payer or owner, number=number, minor=minor, at=clock.now())


def payment(owner: int, number: str, *, payer: int | None = None, minor: int = 1000, state: str = "paid") -> int:
    """A payment with its bill, whose pro forma number is counted. Within a transaction."""
    db.execute("insert into number_series values ('proforma', 2026, 1) on conflict (kind, year) do update set last = number_series.last + 1")
    facts = {"owner": owner, "payer": payer or owner, "minor": minor}
    return db.scalar(_PAYMENT, **facts, bill=bill(owner, number, payer=payer, minor=minor), public_id=f"pay-{number}", state=state, at=clock.now())
