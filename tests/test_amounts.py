"""How much is right: what a customer is credited against a second, plain computation of it.

The ledger proves that the books agree with themselves; a wrong sum that is booked on both sides agrees as well.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal
from itertools import count

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import clock, db, payments, wallet
from app.customers import User
from app.gateways.base import RefundSnapshot, Snapshot
from app.money import Money, exponent
from tests.conftest import BERLIN, person
from tests.pay import RATES, again, begin, publish_rates, topup

BEFORE = {"EUR": Decimal(1)} | {code: Decimal(rate) for code, rate in RATES.items()}
AFTER = {code: rate * Decimal("1.03") if code != "EUR" else rate for code, rate in BEFORE.items()}
"""One euro in each currency, on the day of the order and on the day after."""
ASKED = [Money.of("100", "EUR"), Money.of("100", "USD"), Money.of("400", "PLN"), Money.of("15000", "JPY"), Money.of("30", "KWD")]
logins = count(1)


def euros(minor: int, currency: str, rates: dict[str, Decimal]) -> int:
    """Cents that an amount is worth, rounded down."""
    units = Decimal(minor).scaleb(-exponent(currency))
    return int((units / rates[currency] * 100).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True)
class News:
    """One answer of the processor: the share of what was asked for that has come so far, and whether the day is over."""

    share: Decimal
    late: bool


SHARES = st.sampled_from([Decimal(share) for share in ("0.4", "0.999", "1", "1.001", "1.5", "2")])
STORIES = st.lists(st.builds(News, SHARES, st.booleans()), min_size=1, max_size=4)


def owed(asked: Money, story: list[News]) -> int:
    """Cents to credit: the quoted sum for just what was asked for in its time, else each part at the rate of its day."""
    credited = came = 0
    for news in story:
        now = int(asked.minor * news.share)
        if now <= came:
            continue
        part, rates = now - came, AFTER if news.late else BEFORE
        quoted = came == 0 and now == asked.minor and not news.late
        credited += euros(part, asked.currency, BEFORE if quoted else rates)
        came = now
    return credited


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.sampled_from(ASKED), story=STORIES)
def test_money_whose_sum_the_payer_chose_is_credited_as_what_came(app: Flask, asked: Money, story: list[News]) -> None:
    story = sorted(story, key=lambda news: news.late)
    publish_rates()
    with clock.travel(clock.now() + timedelta(days=1)):
        publish_rates(**{code: str(rate) for code, rate in AFTER.items() if code != "EUR"})
    user = person(f"payer-{next(logins)}", profile=BERLIN)
    payment = begin(topup(user, asked))
    ordered_at = clock.now()
    for news in story:
        with clock.travel(ordered_at + (timedelta(days=1) if news.late else timedelta(minutes=1))):
            received = Money(int(asked.minor * news.share), asked.currency)
            said = Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received, paid_at=clock.now(), exact=False)
            payments.settling.apply(payment.gateway, said)
    assert wallet.state(user.customer_id or 0).available == owed(asked, story)
    assert again(payment).credited == owed(asked, story)
    assert again(payment).received == max(int(asked.minor * news.share) for news in story)


@pytest.mark.parametrize("share", ["0.4", "0.99", "1.01", "2"])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_an_exact_payment_of_another_sum_is_held_whole_and_credits_nothing(app: Flask, demo_customer: User, asked: Money, share: str) -> None:
    publish_rates()
    payment = begin(topup(demo_customer, asked))
    received = Money(int(asked.minor * Decimal(share)), asked.currency)
    payments.settling.apply(payment.gateway, Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received, paid_at=clock.now()))
    assert (again(payment).state, wallet.state(demo_customer.customer_id or 0).available) == ("review", 0)
    held = db.row("select amount, currency from held")
    assert held is not None
    assert Money(held.amount, held.currency) == received


def test_a_fee_that_its_processor_corrects_does_not_stop_the_news_of_a_payment(app: Flask, demo_customer: User) -> None:
    payment = begin(topup(demo_customer, Money.of("100", "EUR")))
    paid = Snapshot(payment.gateway_reference or "", payment.public_id, "paid", payment.money, fee=Money(150, "EUR"), paid_at=clock.now())
    payments.settling.apply(payment.gateway, paid)
    corrected = Snapshot(
        *(payment.gateway_reference or "", payment.public_id, "paid", payment.money, Money(175, "EUR"), clock.now()),
        refunds=(RefundSnapshot("re_by_hand", "settled", Money(40_00, "EUR")),),
    )
    payments.settling.apply(payment.gateway, corrected)
    assert again(payment).state == "partially_refunded"
    assert wallet.state(demo_customer.customer_id or 0).available == 60_00
