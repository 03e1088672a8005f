"""A page that is left open at a processor while its bill is paid elsewhere: closed where that can be, credited where not."""

from collections.abc import Iterator

import pytest
from flask import Flask

from app import db, gateways, ledger, payments, wallet
from app.customers import User
from app.money import Money
from tests.pay import again, begin, carry, choose, topup
from tests.processors import Rig, everywhere

CLOSES = {"stripe", "btcpay"}
"""Whose API lets a page be closed; PayPal's and NOWPayments' have no call for it."""
AMOUNT = Money.of("25.00", "EUR")


@pytest.fixture
def rigs(app: Flask) -> Iterator[dict[str, Rig]]:
    """Every processor."""
    with everywhere(app) as found:
        yield found


def test_who_closes_pages_is_known(rigs: dict[str, Rig]) -> None:
    assert set(gateways.closers()) == CLOSES | {"sandbox"}


@pytest.mark.parametrize("name", ["stripe", "paypal", "btcpay", "nowpayments"])
def test_a_page_left_open_is_closed_or_its_money_is_credited_once(app: Flask, rigs: dict[str, Rig], demo_customer: User, name: str) -> None:
    rig = rigs[name]
    bill = topup(demo_customer, AMOUNT)
    left_open = begin(bill, rig.method)
    paid = begin(bill)
    choose(app, paid, "approve")
    carry(app)
    assert again(paid).state == "paid"
    assert payments.close_settled() == (name in CLOSES)
    assert again(left_open).state == ("expired" if name in CLOSES else "created")
    if name != "stripe":  # a session that has expired takes no money
        rig.pay(left_open.gateway_reference or "")
        payments.look_at(left_open.public_id)
        assert again(left_open).state == "paid"
    customer_id = demo_customer.customer_id or 0
    times = 1 if name == "stripe" else 2
    assert wallet.state(customer_id).available == times * AMOUNT.minor
    credited = "select count(*) from transfers where kind = 'topup' and payment_id is not null"
    assert db.scalar(credited) == times
    assert list(ledger.check()) == []
