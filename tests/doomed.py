"""A process that is told what to do and where to die of it: what a power cut would leave behind.

Started by `test_kill_points.py` with the house's settings and the processors' addresses; each order is a line of JSON. A child is forked for
it, dies by its own hand at the named point, or works until it is killed.
"""

import importlib
import json
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import config
from app import bank, clock, create_app, db, gateways, mail, payments, refunds, services
from app.gateways.btcpay import BTCPay
from app.gateways.nowpayments import NOWPayments
from app.gateways.paypal import PayPal
from app.gateways.sandbox import Sandbox
from app.gateways.stripe_cards import StripeWithCards

POINTS: dict[str, tuple[str, str, str]] = {
    "start: written, the processor not asked": ("app.payments.starting", "_claim", "after"),
    "start: the processor has answered, not written": ("app.gateways.stripe:Stripe", "checkout", "after"),
    "webhook: kept, not answered": ("app.payments", "receive", "after"),
    "webhook: looked up, not applied": ("app.gateways.stripe:Stripe", "lookup", "after"),
    "webhook: credited, the bill not settled": ("app.wallet", "credit", "after"),
    "webhook: applied, not committed": ("app.payments.settling", "take_in", "after"),
    "webhook: committed, not answered": ("app.payments.inbox", "_look_into", "after"),
    "capture: taken, not read": ("app.gateways.paypal:PayPal", "_take", "after"),
    "charge: written, the card not charged": ("app.payments.starting", "claim_for_card", "after"),
    "charge: the card was charged, not written": ("app.gateways.stripe_cards:StripeWithCards", "charge_kept", "after"),
    "charge: written, not committed": ("app.payments.settling", "take_in", "after"),
    "renewal: written, the card not charged": ("app.payments.starting", "claim_for_card", "after"),
    "renewal: the card was charged, not written": ("app.gateways.stripe_cards:StripeWithCards", "charge_kept", "after"),
    "renewal: paid, the service not extended": ("app.services", "settle_waiting", "before"),
    "refund: claimed, not sent": ("app.refunds.paying", "_found_before", "before"),
    "refund: sent, the answer not written": ("app.gateways.stripe:Stripe", "refund", "after"),
    "refund: written, not committed": ("app.refunds.paying", "arrive", "after"),
    "mail: claimed, not sent": ("smtplib:SMTP", "sendmail", "before"),
    "mail: the server has said yes, not noted": ("smtplib:SMTP", "sendmail", "after"),
    "bank: between two parts of a file": ("app.bank", "_take_chunk", "after"),
    "bank: a part booked, not committed": ("app.bank.booking", "book", "after"),
}
"""Where a process may die between a call and its commit: the module or class, the function of it, and the side."""

KILLED = 137
Orders = dict[str, Callable[..., object]]


def do_hear(gateway: str, body: str, headers: dict[str, str]) -> object:
    """A webhook, kept and worked."""
    return payments.process(payments.receive(gateway, body.encode(), headers))


def do_mail(url: str) -> object:
    """The outbox, by a real server."""
    config.use(replace(config.current(), mail_url=url))
    return mail.deliver()


def do_import(path: str) -> object:
    """A statement, in small parts."""
    bank.CHUNK = 4
    return bank.import_file(Path(path).read_bytes(), "doomed.xml")


def do_work(seed: int) -> None:
    """Whatever a worker does, again and again: pages opened, webhooks worked, payments asked about, refunds sent."""
    rng = random.Random(seed)
    works: list[Callable[[], object]] = [lambda: payments.process_due(5), refunds.pay_out_due, lambda: _look(rng), lambda: _open(rng), lambda: _open(rng)]
    while True:
        with suppress(payments.ProcessorDown, payments.NotPayable):
            rng.choice(works)()


def _look(rng: random.Random) -> None:
    names = db.rows("select public_id from payments order by id")
    if names:
        with clock.travel(clock.now() + timedelta(seconds=2)):
            payments.look_at(rng.choice(names).public_id)


def _open(rng: random.Random) -> None:
    waiting = db.rows(_WAITING)
    if waiting:
        bill = rng.choice(waiting)
        payments.start(bill.customer_id, bill.number, METHODS[int(bill.number[-6:]) % 5], "")


_WAITING = """
select customer_id, proforma_number as number from bills b
where status = 'unpaid' and not exists (select from payments p where p.bill_id = b.id and p.handoff_url is not null)
"""
METHODS = ("sandbox-card", "stripe-card", "paypal-paypal", "btcpay-crypto", "nowpayments-crypto")
DO: Orders = {"start": payments.start, "hear": do_hear, "refund": refunds.pay_out, "mail": do_mail, "import": do_import, "look": payments.look_at, "work": do_work,
              "charge": payments.pay_by_card, "renew": services.renew_by_card}  # fmt: skip


def arm(point: str) -> None:
    """Die there, at once and without a word, as by kill -9."""
    place, name, side = POINTS[point]
    module, _, kind = place.partition(":")
    holder = importlib.import_module(module)
    holder = getattr(holder, kind) if kind else holder
    real = getattr(holder, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        if side == "after":
            real(*arguments, **named)
        os._exit(KILLED)

    setattr(holder, name, dying)


def child(app: Any, order: dict[str, Any]) -> None:
    """Do it, and never come back into the parent's loop."""
    try:
        if order.get("point"):
            arm(order["point"])
        with app.app_context():
            DO[order["do"]](*order["words"])
    except BaseException as error:  # noqa: BLE001 - a child ends here, whatever it was
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(text: str) -> None:
    """Make the house, then fork for each order; `wait` on those that die by themselves, name the others."""
    told = json.loads(text)
    app = create_app(config.Settings(**told["settings"], testing=True))
    stripe, paypal, btcpay, nowpayments = (told[name] for name in ("stripe", "paypal", "btcpay", "nowpayments"))
    made = [StripeWithCards(*stripe), PayPal(*paypal), BTCPay(*btcpay), NOWPayments(*nowpayments), Sandbox(app.extensions["sandbox_processor"])]
    gateways.use({gateway.name: gateway for gateway in made})
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "reap":
            print(os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            child(app, order)
        print(pid, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
