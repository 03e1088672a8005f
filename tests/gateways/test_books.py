"""The processors' own books beside ours, to the cent."""

from app.customers import User
from app.money import Money
from tests.gateways.conftest import Rig
from tests.gateways.test_conformance import paying, tell_all
from tests.pay import begin, topup
from tests.processors import ours, theirs


def test_what_we_think_it_holds_is_what_it_says_it_holds(rig: Rig, demo_customer: User):
    whole, short = paying(rig, demo_customer), begin(topup(demo_customer, Money.of("26", "EUR")), rig.method)
    rig.pay(whole.gateway_reference or "")
    rig.pay(short.gateway_reference or "", amount=19_99)
    tell_all(rig)
    assert theirs(rig) == ours(rig.gateway.name)
    assert sum(theirs(rig).values()) > 43_00
