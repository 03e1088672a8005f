"""The processors' own books beside ours, to the cent."""

from app import db
from app.customers import User
from app.money import Money
from tests.gateways.conftest import Rig
from tests.gateways.test_conformance import paying, tell_all
from tests.pay import begin, topup


def ours(gateway: str) -> dict[str, int]:
    """What our ledger says that a processor holds, in minor units."""
    return {row.currency: -row.held for row in db.rows(_HELD, gateway=gateway) if row.held}


_HELD = """
select a.currency, sum(e.amount)::bigint as held from entries e join accounts a on a.id = e.account_id
where a.kind = 'gateway' and a.key = %(gateway)s group by a.currency
"""


def theirs(rig: Rig) -> dict[str, int]:
    """What the processor's books say that it holds for us."""
    return {currency: sums.held for currency, sums in rig.books().items() if sums.held}


def test_what_we_think_it_holds_is_what_it_says_it_holds(rig: Rig, demo_customer: User):
    whole, short = paying(rig, demo_customer), begin(topup(demo_customer, Money.of("26", "EUR")), rig.method)
    rig.pay(whole.gateway_reference or "")
    rig.pay(short.gateway_reference or "", amount=19_99)
    tell_all(rig)
    assert theirs(rig) == ours(rig.gateway.name)
    assert sum(theirs(rig).values()) > 43_00
