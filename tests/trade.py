"""Plans, money and a day in the calendar, for the tests of what customers do with them."""

from datetime import UTC, date, datetime
from itertools import count

from app import clock, db, ledger, services, wallet
from app.money import Money
from tests.conftest import BERLIN, person

PLANS = {
    "vps-4": ("vps", "VPS NVMe-4", {("EUR", 1): 20_00, ("EUR", 3): 57_00, ("EUR", 12): 216_00, ("PLN", 1): 85_00}),
    "ip": ("ip", "IPv4 address", {("EUR", 1): 3_00}),
    "epyc": ("dedicated", "Dedicated EPYC 7443P", {("EUR", 1): 189_00}),
}
_numbers = count(1)


def customer(login: str = "anna", minor: int = 0) -> int:
    """The id of a customer in Berlin (19 % VAT) with a balance."""
    user = person(login, profile=BERLIN)
    assert user.customer_id is not None
    if minor:
        fund(user.customer_id, minor)
    return user.customer_id


def fund(customer_id: int, minor: int, currency: str = "EUR") -> None:
    """Put money on the balance, as a correction by the house."""
    with db.transaction():
        counter = [(ledger.account("suspense", currency), -minor)]
        wallet.credit(customer_id, Money(minor, currency), reference=f"fund:{next(_numbers)}", kind="correction", counter=counter, description="Opening balance")


def offer_plans() -> None:
    """The plans the tests buy."""
    for code, (kind, name, prices) in PLANS.items():
        services.set_plan(code, kind, name, prices)


def on(day: date):
    """The clock at noon of that day."""
    return clock.travel(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
