"""Answers with every key that a processor may leave out left out: what can be read is read, the rest waits for a person, and nothing is paid or sent twice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from stripe import HTTPClient

from app import clock
from app.gateways.base import Charge, Redirect, Snapshot, UnreadableAnswer, reading
from app.money import Money
from tests.fakes.loopback import Sums
from tests.fakes.schemas import Key, schema
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, PayPalRig, StripeRig

Rig = StripeRig | PayPalRig | BTCPayRig | NOWPaymentsRig
RIGS: dict[str, type[Rig]] = {"stripe": StripeRig, "paypal": PayPalRig, "btcpay": BTCPayRig, "nowpayments": NOWPaymentsRig}
EUR_25, EUR_10 = Money.of("25", "EUR"), Money.of("10", "EUR")


@dataclass
class Life:
    """What was read of one payment, from its page to the end of its dispute; `unread` are the steps that ended in an answer that cannot be read."""

    paid: list[Snapshot] = field(default_factory=list)
    refunds: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def step(self, name: str, do: Callable[[], object]) -> None:
        """One call; one whose answer cannot be read says where, and no value."""
        try:
            do()
        except UnreadableAnswer as error:
            self.unread.append(name)
            self.said.append(f"{error} {error.detail}")


def live(rig: Rig) -> Life:
    """A payment's whole life at one processor, by its gateway alone."""
    life = Life()
    expires_at = clock.now().replace(microsecond=0) + timedelta(hours=1)
    charge = Charge("pay_left_out", EUR_25, "card", "Account funds", "Account funds PF-1", "http://localhost/a", "http://localhost/b", expires_at, "anna@example.com")
    life.step("checkout", lambda: rig.gateway.checkout(charge))
    reference = rig.opened(charge.id)
    life.step("open", lambda: rig.gateway.lookup(reference))
    rig.pay(reference)
    life.step("paid", lambda: life.paid.append(_there(rig.gateway.lookup(reference))))
    life.step("by our id", lambda: rig.gateway.lookup(charge.id))
    if rig.refunds and life.paid and life.paid[0].state == "paid":
        for _ in range(2):
            life.step("refund", lambda: life.refunds.add(rig.gateway.refund(reference, EUR_10, "refund:1").reference))
        life.step("refunded", lambda: life.paid.append(_there(rig.gateway.lookup(reference))))
        dispute = rig.dispute(reference, 500)
        life.step("disputed", lambda: life.paid.append(_there(rig.gateway.lookup(reference))))
        rig.close_dispute(dispute, won=False)
        life.step("lost", lambda: life.paid.append(_there(rig.gateway.lookup(reference))))
    if isinstance(rig, StripeRig):
        life.step("card", lambda: _keep_a_card(rig))
    return life


def _there(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise UnreadableAnswer("nothing")
    return snapshot


def _keep_a_card(rig: StripeRig) -> None:
    from app.gateways.base import Setup

    holder = rig.gateway.enrol("cus_key")
    page = rig.gateway.keep(Setup("setup_1", holder, "EUR", "http://localhost/c", "http://localhost/d", clock.now().replace(microsecond=0) + timedelta(hours=1)))
    assert isinstance(page, Redirect)
    token = rig.fake.save(page.reference)
    rig.gateway.lookup(page.reference)
    charge = Charge("pay_by_card", EUR_25, "card", "t", "d", "http://localhost/a", "http://localhost/b", clock.now() + timedelta(hours=1), holder=holder, card=token)
    assert rig.gateway.charge_kept(charge).state == "paid"
    rig.fake.methods[token]["_says"] = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "No."}
    assert rig.gateway.charge_kept(_again(charge)).state == "failed"
    rig.gateway.forget(token)


def _again(charge: Charge) -> Charge:
    from dataclasses import replace

    return replace(charge, id="pay_by_card_2")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.002)


def lived(name: str, left_out: frozenset[Key]) -> tuple[Life, Rig, set[Key]]:
    rig = RIGS[name]()
    rig.fake.without = left_out
    try:
        life = live(rig)
    finally:
        rig.close()
    return life, rig, rig.fake.spared


def sent_back(rig: Rig) -> int:
    """What the processor's own books say that it sent back."""
    return rig.books().get("EUR", Sums()).refunded if rig.refunds else 0


@pytest.mark.parametrize("name", RIGS)
def test_a_payment_can_be_read_whichever_key_is_left_out_or_waits_for_a_person(name: str):
    whole, _, spared = lived(name, frozenset())
    assert not whole.unread
    assert spared
    for key in sorted(spared):
        life, rig, _ = lived(name, frozenset({key}))
        assert not any("anna@example.com" in said or "25" in said for said in life.said), key
        for snapshot in life.paid:
            assert snapshot.state != "paid" or snapshot.received == EUR_25, key
        assert len(life.refunds) <= 1, key
        assert sent_back(rig) <= 10_00, key


@pytest.mark.parametrize("name", RIGS)
def test_without_any_key_that_may_be_left_out_every_answer_is_read_or_waits(name: str):
    life, rig, spared = lived(name, schema(name).optional)
    assert not spared
    assert sent_back(rig) <= 10_00
    assert all(snapshot.state != "paid" or snapshot.received == EUR_25 for snapshot in life.paid)


@pytest.mark.parametrize("key", sorted(schema("nowpayments").types["payment"]))
def test_a_number_of_coins_that_is_not_there_is_not_nought(key: str):
    life, _, _ = lived("nowpayments", frozenset({("payment", key)}))
    assert all(snapshot.received in (None, EUR_25) for snapshot in life.paid)
    if key in {"price_amount", "pay_amount", "actually_paid"}:
        assert (life.paid, life.unread) == ([], ["paid", "by our id"])


@pytest.mark.parametrize("amount", [20_00, 30_00])
def test_what_came_is_what_counts_where_btcpay_does_not_say_whether_it_was_exact(amount: int):
    rig = BTCPayRig()
    rig.fake.without = frozenset({("invoice", "additionalStatus")})
    try:
        live(rig)
        (reference,) = rig.fake.invoices
        rig.pay(reference, amount=amount)
        found = rig.gateway.lookup(reference)
    finally:
        rig.close()
    assert found is not None
    assert found.received == Money(amount, "EUR")


@pytest.mark.parametrize("error", [ValueError("anna@example.com"), KeyError("anna@example.com"), TypeError("anna@example.com")])
def test_an_error_that_quotes_a_value_is_hidden(error: Exception):
    with pytest.raises(UnreadableAnswer) as told, reading():
        raise error
    assert "anna" not in f"{told.value} {told.value.detail}"
    assert told.value.__suppress_context__
