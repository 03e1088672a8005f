"""Every processor at once: each on the loopback in the house's own place, its clock ours, its books beside ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from flask import Flask

from app import clock, db, gateways
from tests.gateways.rigs import BTCPayRig, NOWPaymentsRig, PayPalRig, SandboxRig, StripeRig, Webhook
from tests.pay import processor

Rig = SandboxRig | StripeRig | PayPalRig | BTCPayRig | NOWPaymentsRig


@contextmanager
def everywhere(app: Flask) -> Iterator[dict[str, Rig]]:
    """All of them in the house, by name, in place of what it has."""
    before = {name: found for name in ("sandbox", "bank") if (found := gateways.get(name))}
    rigs: dict[str, Rig] = {"sandbox": SandboxRig(processor(app)), "stripe": StripeRig(), "paypal": PayPalRig(), "btcpay": BTCPayRig(), "nowpayments": NOWPaymentsRig()}
    gateways.use({**{name: rig.gateway for name, rig in rigs.items()}, **{name: before[name] for name in before if name == "bank"}})
    try:
        yield rigs
    finally:
        gateways.use(before)
        for rig in rigs.values():
            rig.come_back()
            rig.close()


def deliveries(rig: Rig, count: int) -> list[Webhook]:
    """So many deliveries of what happened at a processor: every event, and all of them again until there are enough."""
    every = rig.webhooks()
    return (every * (count // len(every) + 1))[:count]


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


class Time:
    """One clock for the house and for the processors, whose threads know nothing of a test's own."""

    def __init__(self, rigs: dict[str, Rig]) -> None:
        self._ahead = timedelta()
        for rig in rigs.values():
            if not isinstance(rig, SandboxRig):
                rig.fake.answer = self._told(rig.fake.answer)

    @contextmanager
    def at(self, when: datetime) -> Iterator[None]:
        """Let it be that moment everywhere."""
        before, self._ahead = self._ahead, when - clock.now()
        try:
            with clock.travel(when):
                yield
        finally:
            self._ahead = before

    def _told(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def answered(*call: Any) -> Any:
            with clock.travel(clock.now() + self._ahead):
                return answer(*call)

        return answered
