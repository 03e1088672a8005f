"""From a bill to the credited balance: started once, credited once, whatever the processor says and however often."""

import pytest
from flask import Flask

from app import payments, wallet
from app.customers import User
from app.money import Money
from tests.pay import again, begin, carry, choose, times_credited, publish_rates, topup


def test_a_payment_is_credited_and_the_bill_becomes_an_invoice(app: Flask, demo_customer: User):
    payment = begin(topup(demo_customer, Money.of("25", "EUR")))
    choose(app, payment, "approve")
    assert carry(app) == 1
    paid = again(payment)
    assert (paid.state, paid.received, paid.credited, paid.method_label) == ("paid", 2500, 2500, "Visa •••• 4242")
    assert wallet.state(demo_customer.customer_id).available == 2500
