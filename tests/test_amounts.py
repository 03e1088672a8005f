"""How much is right: what a customer is credited against a second, plain computation of it.

The ledger proves that the books agree with themselves; a wrong sum that is booked on both sides agrees as well.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal
from itertools import count

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app import clock, db, ledger, payments, refunds, wallet
from app.customers import User
from app.gateways.base import RefundSnapshot, Snapshot
from app.money import Money, exponent
from tests.conftest import BERLIN, person
from tests.pay import RATES, again, begin, carry, choose, processor, publish_rates, topup
from tests.trade import fund

BEFORE = {"EUR": Decimal(1)} | {code: Decimal(rate) for code, rate in RATES.items()}
AFTER = {code: rate * Decimal("1.03") if code != "EUR" else rate for code, rate in BEFORE.items()}
"""One euro in each currency, on the day of the order and on the day after."""
ASKED = [Money.of("100", "EUR"), Money.of("100", "USD"), Money.of("400", "PLN"), Money.of("15000", "JPY"), Money.of("30", "KWD")]
logins = count(1)
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)
"""A run takes seconds: one that fails is reported as it was found."""


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


@pytest.mark.parametrize(("asked", "came"), [("100 EUR", "100 USD"), ("100 USD", "100 EUR"), ("100 USD", "400 PLN"), ("15000 JPY", "150 KWD")])
@pytest.mark.parametrize("exact", [True, False])
def test_money_of_another_currency_than_asked_for_credits_nothing_and_is_held_whole(app: Flask, demo_customer: User, asked: str, came: str, exact: bool) -> None:
    publish_rates()
    wanted, received = (Money.of(*text.split()) for text in (asked, came))
    payment = begin(topup(demo_customer, wanted))
    payments.settling.apply(payment.gateway, Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received, paid_at=clock.now(), exact=exact))
    assert (again(payment).state, wallet.state(demo_customer.customer_id or 0).available) == ("review", 0)
    held = db.rows("select amount, currency from held")
    assert [Money(row.amount, row.currency) for row in held] == [received]


def test_the_confirmation_is_written_in_the_commit_that_credits(app: Flask, demo_customer: User) -> None:
    """A crash between two commits would lose it: nothing would ever write it again."""
    payment = begin(topup(demo_customer, Money.of("100", "EUR")))
    payments.settling.apply(payment.gateway, Snapshot(payment.gateway_reference or "", payment.public_id, "paid", payment.money, paid_at=clock.now()))
    commits = db.rows("""
        select t.xmin::text as credit, m.xmin::text as mail, d.xmin::text as paper, b.xmin::text as bill
        from transfers t, mails m, documents d, bills b
        where t.payment_id is not null and m.kind = 'payment_confirmed' and d.kind = 'receipt' and b.id = d.bill_id
    """)
    assert len(commits) == 1
    assert len({*commits[0]}) == 1


# What goes back


def parts(of: int) -> st.SearchStrategy[list[int]]:
    """Amounts that together are no more than a sum, in minor units."""
    shares = st.lists(st.integers(1, 100), min_size=1, max_size=4)
    return shares.map(lambda weights: [max(1, of * weight // (sum(weights) + 7)) for weight in weights])


@settings(max_examples=8, deadline=None, phases=WITHOUT_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), asked=st.sampled_from(ASKED))
def test_parts_that_go_back_are_together_their_share_of_what_came_rounded_down(app: Flask, data: st.DataObject, asked: Money) -> None:
    publish_rates()
    user = person(f"payer-{next(logins)}", profile=BERLIN)
    payment = begin(topup(user, asked))
    choose(app, payment, "approve")
    carry(app)
    credited = again(payment).credited or 0
    assert credited == euros(asked.minor, asked.currency, BEFORE)
    gone = sent = 0
    for day, part in enumerate(data.draw(parts(credited))):
        due = (gone + part) * asked.minor // credited - sent
        with clock.travel(clock.now() + timedelta(days=day + 1)):
            if not due:
                with pytest.raises(refunds.RefundError, match="too small"):
                    refunds.request(user.customer_id or 0, payment.public_id, Money(part, "EUR"), "")
                continue
            number = refunds.request(user.customer_id or 0, payment.public_id, Money(part, "EUR"), "")
            refunds.approve(number, actor="staff:sam")
        assert db.scalar("select payout from refunds where number = %(number)s", number=number) == due
        gone, sent = gone + part, sent + due
        refunds.pay_out(number)
        carry(app)
        assert wallet.state(user.customer_id or 0).available == credited - gone
    assert sent == gone * asked.minor // credited <= asked.minor


DISPUTES = [(0, "0.3337"), (20_00, "0.01"), (90_00, "0.3337"), (90_00, "1")]


@pytest.mark.parametrize(("spent", "share"), DISPUTES)
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_what_a_dispute_takes_is_its_share_of_what_was_credited_rounded_up_and_the_rest_is_owed(app: Flask, demo_customer: User, asked: Money, spent: int, share: str) -> None:
    publish_rates()
    customer = demo_customer.customer_id or 0
    payment = begin(topup(demo_customer, asked))
    choose(app, payment, "approve")
    carry(app)
    credited = again(payment).credited or 0
    spent = min(spent, credited)
    if spent:
        with db.transaction():
            wallet.spend(customer, Money(spent, "EUR"), reference="spent", counter=[(ledger.account("suspense", "EUR"), spent)], kind="correction")
    disputed = max(1, int(asked.minor * Decimal(share)))
    reference = processor(app).dispute(payment.gateway_reference or "", disputed, "not recognised")
    carry(app)
    takes = -(-disputed * credited // asked.minor)
    taken = min(takes, credited - spent)
    assert (wallet.state(customer).available, wallet.owed(customer, "EUR").minor) == (credited - spent - taken, takes - taken)
    assert reference
    processor(app).close_dispute(reference, won=True)
    carry(app)
    assert (wallet.state(customer).available, wallet.owed(customer, "EUR").minor) == (credited - spent, 0)


# What a bonus pays


@dataclass
class Lot:
    """Money of the second book: a top-up, or a bonus with the day on which it ends."""

    minor: int
    ends: int | None = None


@dataclass(frozen=True)
class Step:
    """One thing that happens on a day of the story."""

    what: str
    minor: int
    days: int


STEPS = st.lists(st.builds(Step, st.sampled_from(["money", "bonus", "charge", "wait", "expire"]), st.integers(1, 40_00), st.integers(1, 9)), min_size=1, max_size=14)


@settings(max_examples=12, deadline=None, phases=WITHOUT_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=STEPS)
def test_a_bonus_is_spent_first_by_its_end_and_never_after_it(app: Flask, story: list[Step]) -> None:
    user = person(f"payer-{next(logins)}", profile=BERLIN)
    customer, start, today = user.customer_id or 0, clock.now(), 0
    book: list[Lot] = []
    for place, step in enumerate(story):
        with clock.travel(start + timedelta(days=today)):
            alive = sorted((lot for lot in book if lot.ends is not None and lot.ends > today and lot.minor), key=lambda lot: lot.ends or 0)
            usable = [*alive, *(lot for lot in book if lot.ends is None)]
            match step.what:
                case "money":
                    fund(customer, step.minor)
                    book.append(Lot(step.minor))
                case "bonus":
                    ends = start + timedelta(days=today + step.days)
                    payments.grant_bonus(customer, Money(step.minor, "EUR"), reason="Thank you", reference=f"{customer}:{place}", expires_at=ends)
                    book.append(Lot(step.minor, today + step.days))
                case "wait":
                    today += step.days
                    continue
                case "expire":
                    payments.expire_bonuses()
                case "charge" if sum(lot.minor for lot in usable) >= step.minor:
                    _charge(customer, step.minor, place)
                    left = step.minor
                    for lot in usable:
                        taken = min(left, lot.minor)
                        lot.minor, left = lot.minor - taken, left - taken
                case _:
                    with pytest.raises(ledger.InsufficientFunds):
                        _charge(customer, step.minor, place)
            state = wallet.state(customer)
            money = sum(lot.minor for lot in book if lot.ends is None)
            bonus = sum(lot.minor for lot in book if lot.ends is not None and lot.ends > today)
            assert (state.available, state.bonus) == (money, bonus), (step, today)


def _charge(customer: int, minor: int, place: int) -> None:
    with db.transaction():
        counter = [(ledger.account("suspense", "EUR"), minor)]
        wallet.spend(customer, Money(minor, "EUR"), reference=f"charge:{customer}:{place}", counter=counter, kind="correction")
