"""The pages on which people pay at the processors that are played on the loopback: another origin than ours, with two buttons.

A fake knows its API; this gives its server the pages that a browser is sent to. Where to go back to is what our own calls said.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.btcpay import BTCPay
from tests.fakes.nowpayments import NOWPayments
from tests.fakes.paypal import PayPal
from tests.fakes.stripe import Stripe

Fake = Stripe | PayPal | BTCPay | NOWPayments
BACK = ("success_url", "return_url", "redirectURL")
AWAY = ("cancel_url", "redirectURL")
PAGE = """<!doctype html><html lang="en"><head><title>{title}</title><link rel="icon" href="data:,"></head><body>
<h1>{title}</h1><form method="post"><button name="choice" value="pay">Pay there</button>
<button name="choice" value="cancel">Cancel there</button></form></body></html>"""


@dataclass
class Hosted:
    """The pages of one processor. `detour` is an address that the next page asked for sends on to, once; nothing is shown until `silence` is over."""

    fake: Fake
    title: str
    pattern: str
    charge: Callable[[str], str]
    pay: Callable[[str], object]
    detour: str = ""
    silence: threading.Event = field(default_factory=threading.Event)
    asked: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        port = urlsplit(self.fake.url).port
        self.fake.url = f"http://localhost:{port}"
        self.silence.set()
        server = self.fake._server
        server.RequestHandlerClass = type("Hosted", (_Pages, server.RequestHandlerClass), {"pages": self})

    def reference(self, path: str) -> str:
        """Of which payment this is the page; empty for no page."""
        found = re.fullmatch(self.pattern, path)
        return found[1] if found else ""

    def way(self, reference: str, names: tuple[str, ...]) -> str:
        """Where our call that opened this page said to come back to."""
        call = next(body for body in reversed(self.asked) if self.charge(reference).encode() in body)
        said = dict(_flat(json.loads(call)) if call.startswith(b"{") else parse_qsl(call.decode()))
        return next(said[name] for name in names if name in said)


def _flat(value: Any) -> list[tuple[str, Any]]:
    """Every name of a nested object with its value."""
    if not isinstance(value, dict):
        return []
    return [pair for name, inner in value.items() for pair in ((name, inner), *_flat(inner))]


class _Pages(BaseHTTPRequestHandler):
    """Answers for the pages before the fake answers for its API."""

    pages: Hosted

    def do_GET(self) -> None:
        reference = self.pages.reference(self.path)
        if not reference:
            super().do_GET()
        elif self.pages.detour:
            on, self.pages.detour = self.pages.detour, ""
            self._answer(302, location=on)
        else:
            self.pages.silence.wait(90)
            self._answer(200, PAGE.format(title=self.pages.title).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if reference := self.pages.reference(self.path):
            paid = b"choice=pay" in body
            if paid:
                self.pages.pay(reference)
            self._answer(303, location=self.pages.way(reference, BACK if paid else AWAY))
            return
        self.pages.asked.append(body)
        connection, self.rfile = self.rfile, BytesIO(body)
        super().do_POST()
        self.rfile = connection

    def _answer(self, status: int, body: bytes = b"", location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stripe() -> Hosted:
    """Checkout; a page that takes no money saves a card."""
    fake = Stripe()

    def finish(session: str) -> object:
        return (fake.save if fake.sessions[session]["mode"] == "setup" else fake.pay)(session)

    return Hosted(fake, "Stripe", r"/pay/(cs_\w+)", lambda session: fake.sessions[session]["client_reference_id"], finish)


def paypal() -> Hosted:
    """The approval of an order."""
    fake = PayPal()

    def charge(order: str) -> str:
        return str(fake.orders[order]["purchase_units"][0]["custom_id"])

    return Hosted(fake, "PayPal", r"/checkoutnow\?token=(\w+)", charge, fake.approve)


def btcpay() -> Hosted:
    """An invoice; it has one way back."""
    fake = BTCPay()

    def charge(invoice: str) -> str:
        return str(fake.invoices[invoice]["metadata"]["orderId"])

    return Hosted(fake, "BTCPay", r"/i/(\w+)", charge, lambda invoice: fake.send(invoice, fake.invoices[invoice]["amount"]))


def nowpayments() -> Hosted:
    """An invoice."""
    fake = NOWPayments()

    def charge(invoice: str) -> str:
        return str(fake.invoices[invoice]["order_id"])

    return Hosted(fake, "NOWPayments", r"/payment/\?iid=(\d+)", charge, lambda invoice: fake.pay(charge(invoice), "finished"))
