"""A document's content as HTML: one design for pro forma, invoice and receipt, on the screen and on A4.

A template sees a `Paper` and nothing else, so that what is printed depends on the content alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import config
from app import remittance
from app.formats import Formats, formats
from app.invoicing import documents, series
from app.invoicing.bills import Bill
from app.invoicing.press import Sheet
from app.invoicing.states import Standing
from app.money import Money

TEMPLATES = Path(__file__).parents[2] / "templates"
AS_ISSUED = frozenset({"unpaid", "draft", "transfer", "pending", "paid"})
"""States in which a document says of itself what is true: when it is due, or when it was paid."""
TITLES = {
    "proforma": "Invoice for payment",
    "invoice": "Invoice",
    "topup_invoice": "Top-up invoice",
    "receipt": "Receipt",
    "payment_receipt": "Receipt",
    "link_receipt": "Receipt",
    "refund_receipt": "Refund receipt",
}
TOPUP_SERIES = f"{series.PREFIXES['topup_invoice']}-"

HAN_SHAPES = {"CN": "zh-Hans", "HK": "zh-Hant", "JP": "ja", "KR": "ko", "MO": "zh-Hant", "SG": "zh-Hans", "TW": "zh-Hant"}


@dataclass(frozen=True, slots=True)
class Paper:
    """What a document template may read: the content, and the reader's formats. Amounts are minor units."""

    content: dict[str, Any]
    formats: Formats
    standing: Standing | None = None
    """What became of the bill since; None on what is printed for ever."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.content[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def title(self) -> str:
        """What the document is called."""
        kind = self.content["kind"]
        # The series says it: top-ups from before it existed have numbers and titles of invoices.
        topup = kind == "invoice" and self.content["number"].startswith(TOPUP_SERIES)
        return TITLES["topup_invoice" if topup else kind]

    @property
    def badge(self) -> str:
        """The state as a word: what the document says of itself, or what became of the bill since (on the screen only)."""
        if self.standing and self.standing.code not in AS_ISSUED:
            return self.standing.label
        if self.content["kind"] == "refund_receipt":
            return f"Refunded {self.day(self.content['issued_on'])}"
        return f"Due {self.day(self.content['due_on'])}" if self.content["kind"] == "proforma" else f"Paid {self.day(self._paid_on)}"

    @property
    def tone(self) -> str:
        """The badge's tone: waiting, done, or quiet where it is over."""
        if self.standing and self.standing.code not in AS_ISSUED:
            return self.standing.tone
        return "wait" if self.content["kind"] == "proforma" else "credit"

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The dates and numbers beside the title."""
        content, receipt = self.content, self.content["kind"] in ("receipt", "refund_receipt")
        alone = self.content["kind"] in ("payment_receipt", "link_receipt")
        found = [
            ("Issued", self.day(content["issued_on"])),
            ("Due", self.day(content["due_on"]) if "due_on" in content else ""),
            ("Prepaid on", self.day(self._paid_on) if content["kind"] == "invoice" and self.prepaid else ""),
            ("Replaces", content.get("replaces", "")),
            ("Refund", content["refund"]["number"] if "refund" in content else ""),
            ("Invoice", content["invoice_number"] if receipt else ""),
            ("For", content["invoice_number"] if alone else ""),
            ("Supplied", "" if receipt or alone else self.supplied),
            ("Order", content["proforma_number"] or "" if content["kind"] == "invoice" else ""),
            ("Your reference", content["po_number"]),
        ]
        return [fact for fact in found if fact[1]]

    @property
    def payment_facts(self) -> list[tuple[str, str]]:
        """How it was paid, for the quiet card of an invoice.

        Papers are filed and passed on: what is left on the balance is nobody's business there, and
        the ledger's own proof helps no reader. Transactions show both.
        """
        payment = self.content["payment"]
        found = [
            ("Paid from" if payment["source"] == "balance" else "Paid by", self._method),
            ("Reference", payment["reference"]),
        ]
        return [fact for fact in found if fact[1]]

    @property
    def allowance(self) -> int:
        """What a bonus took off the price, VAT included, minor units. Older documents know none."""
        return int(self.content.get("allowance") or 0)

    @property
    def allowance_net(self) -> int:
        """The same without VAT: the lines less this are the net amount."""
        return int(self.content.get("allowance_net") or 0)

    @property
    def allowance_label(self) -> str:
        """How the row of the allowance is called; with the whole of it where a part was VAT."""
        whole = self.allowance == self.allowance_net
        return "Bonus" if whole else f"Bonus ({self.money(self.allowance)} incl. VAT)"

    @property
    def _with_bonus(self) -> list[tuple[str, str]]:
        """How the price that was paid came about, and what more of the money came than that."""
        if not self.allowance:
            return []
        payment, total = self.content["payment"], self.content["total"]
        paid = payment["paid"] if payment["paid_currency"] == self.content["currency"] else None
        return [
            ("Price before the bonus", self.money(total + self.allowance)),
            ("Taken off by the bonus", self.money(self.allowance)),
            ("Not needed, left on the balance", self.money(paid - total) if paid and paid > total else ""),
        ]

    @property
    def _method(self) -> str:
        """How it was paid; where a bonus left nothing to pay, that."""
        payment = self.content["payment"]
        whole = self.allowance and not self.content["total"] and payment["source"] == "balance"
        return "Bonus" if whole else str(payment["method"])

    @property
    def received(self) -> str:
        """What the payer paid, in the currency they paid in."""
        payment = self.content["payment"]
        if payment.get("last") is not None:
            return self.money(payment["last"], payment["last_currency"])
        if payment["paid"] is None:
            return self.money(self.content["total"])
        return self.money(payment["paid"], payment["paid_currency"])

    @property
    def receipt_facts(self) -> list[tuple[str, str]]:
        """When and how it was paid, and at which rate when it was converted."""
        payment = self.content["payment"]
        added = payment["credited"] if payment.get("last_credited") is None else payment["last_credited"]
        credited = added is not None and (self.prepaid or self.content["kind"] == "payment_receipt")
        several = payment.get("last") is not None and payment["last_currency"] == payment["paid_currency"]
        before = payment["paid"] - payment["last"] if several else 0
        found = [
            ("Time", self.moment(payment["paid_at"])),
            ("Method", self._method),
            *(self._with_bonus if self.content["kind"] == "receipt" else ()),
            ("Added to the balance", self.money(added, payment["credited_currency"]) if credited else ""),
            ("Paid before", self.money(before, payment["paid_currency"]) if before else ""),
            ("Rate", payment["rate_note"]),
            ("Payment reference", payment["reference"]),
            ("Processor's reference", payment.get("processor") or ""),
        ]
        return [fact for fact in found if fact[1]]

    @property
    def home_tax(self) -> dict[str, Any] | None:
        """The VAT in the seller's currency, on an invoice in another; its `amount` is None where no rate was known."""
        stated: dict[str, Any] | None = (self.content.get("payment") or {}).get("home_tax")
        return stated if self.content["kind"] == "invoice" else None

    @property
    def home_tax_note(self) -> str:
        """The sentence below the totals about that: at which rate, or that there was none."""
        stated = self.home_tax
        if not stated:
            return ""
        if stated["amount"] is None:
            return f"VAT in {stated['currency']}: no ECB rate of {self.day(stated['on'])}."
        rate = f"1 {stated['base']} = {self.formats.rate(Decimal(stated['rate']))} {stated['quote']}"
        return f"VAT in {stated['currency']} at {rate} ({stated['source']}, {self.day(stated['rate_date'])})."

    @property
    def refunded(self) -> str:
        """What went back, in the currency that was paid."""
        return self.money(self.content["refund"]["payout"], self.content["refund"]["payout_currency"])

    @property
    def refund_facts(self) -> list[tuple[str, str]]:
        """When, how and where to money went back, and of which payment."""
        refund = self.content["refund"]
        found = [
            ("Time", self.moment(refund["at"])),
            ("Sent to", refund["target"]),
            ("Taken from the balance", self.money(refund["amount"], refund["currency"])),
            ("Rate", refund["rate_note"]),
            ("Of the payment", f"{self.money(refund['paid'], refund['paid_currency'])} by {refund['method']}, {self.moment(refund['paid_at'])}"),
            ("Payment reference", refund["payment"]),
        ]
        return [fact for fact in found if fact[1]]

    @property
    def over(self) -> bool:
        """Whether a pro forma asks for nothing any more: it was cancelled, expired or paid."""
        return self.standing is not None and self.standing.over

    @property
    def came(self) -> int:
        """What came of a part of it so far, minor units; nothing where it is paid or nothing came."""
        return self.standing.received if self.standing and self.content["kind"] == "proforma" else 0

    @property
    def to_pay(self) -> int:
        """What is to be paid, minor units."""
        return self.standing.due if self.standing and not self.over else int(self.content["total"])

    @property
    def ended(self) -> str:
        """The sentence on a pro forma that asks for nothing any more."""
        if not self.standing or not self.standing.closed_at:
            return "There is nothing to pay any more."
        day = self.formats.long_date(documents.day_in(self.standing.closed_at, self.zone))
        return f"{self.standing.label} on {day}. There is nothing to pay any more."

    @property
    def bank(self) -> dict[str, Any] | None:
        """The account a pro forma may be paid to. Older ones name none, and one that asks for nothing any more has none."""
        return None if self.over else self.content.get("bank")

    @property
    def bank_facts(self) -> list[tuple[str, str]]:
        """What a transfer has to say, in the order of a bank's form."""
        bank = self.bank or {}
        number = "IBAN" if config.is_iban(bank["number"]) else "Account number"
        return [
            ("Account holder", bank["holder"]),
            (number, remittance.grouped(bank["number"])),
            ("BIC", bank["bic"]),
            ("Bank", bank["bank"]),
            ("Amount", self.money(self.to_pay)),
            ("Reference", remittance.grouped(bank["reference"])),
        ]

    @property
    def qr(self) -> str:
        """The same as a picture for banking apps, as a ``data:`` address; nothing where there is none."""
        bank = self.bank or {}
        return remittance.qr(bank["holder"], bank["number"], bank["bic"], Money(self.to_pay, self.content["currency"]), bank["reference"])

    @property
    def zone(self) -> str:
        """The legal zone of its days, IANA name."""
        return str(self.content.get("timezone") or "UTC")

    @property
    def _paid_on(self) -> str:
        return documents.day_in(datetime.fromisoformat(self.content["payment"]["paid_at"]), self.zone).isoformat()

    @property
    def taxed(self) -> bool:
        """Whether VAT has a place on it at all: a deposit has none."""
        return not self.prepaid or self.content["tax_category"] != "O"

    @property
    def prepaid(self) -> bool:
        """Whether the money goes to a balance instead of paying for a service."""
        return bool(self.content["bill_kind"] == "topup")

    @property
    def supplied(self) -> str:
        """The period of supply over all lines, or nothing: "20 Nov 2026 – 19 Dec 2026"."""
        starts = [line["period_start"] for line in self.content["lines"] if line["period_start"]]
        ends = [line["period_end"] for line in self.content["lines"] if line["period_end"]]
        return self.period({"period_start": min(starts), "period_end": max(ends)}) if starts and ends else ""

    def money(self, minor: int, currency: str | None = None) -> str:
        """An amount with its currency's symbol, of the document's own currency unless named."""
        return self.formats.money(minor, currency or self.content["currency"])

    def amount(self, minor: int) -> str:
        """An amount as a figure alone."""
        return self.formats.amount(minor, self.content["currency"])

    def day(self, text: str) -> str:
        """An ISO date, with the month in full."""
        return self.formats.long_date(date.fromisoformat(text))

    def moment(self, text: str) -> str:
        """An ISO time, to the minute, in the document's legal zone, with that zone's name and offset: "1 Jan 2027, 00:20 Europe/Berlin (UTC+01:00)"."""
        there = datetime.fromisoformat(text).astimezone(ZoneInfo(self.zone))
        written = formats(str(self.formats.locale), self.zone).datetime(there)
        offset = f"{there:%z}"
        return f"{written} UTC" if self.zone == "UTC" else f"{written} {self.zone} (UTC{offset[:3]}:{offset[3:5]})"

    def period(self, line: dict[str, Any]) -> str:
        """The period of a line, both ends included, or nothing."""
        if not (line["period_start"] and line["period_end"]):
            return ""
        return " – ".join(self.formats.date(date.fromisoformat(line[end])) for end in ("period_start", "period_end"))

    def rate(self) -> str:
        """The VAT rate: "19 %"."""
        return self.formats.percent(Decimal(self.content["tax_rate"]).normalize())

    def tax_label(self) -> str:
        """How the tax row is called: "VAT 19%", "VAT 0% (reverse charge)"."""
        return f"VAT {self.rate()}{' (reverse charge)' if self.content['tax_category'] == 'AE' else ''}"

    def address(self, party: dict[str, str]) -> Iterator[str]:
        """The lines below a party's name that are not empty."""
        town = f"{party['postcode']} {party['city']}".strip()
        country = Locale("en").territories.get(party["country"], party["country"])
        person = party["name"] if party.get("company") else ""
        return (line for line in (person, party["street"], town, country) if line)

    def language(self, party: dict[str, str]) -> str:
        """The language whose shapes the party's Chinese characters have: one character is drawn in several ways. "" for other scripts."""
        text = " ".join([self.name(party), *self.address(party)])
        return HAN_SHAPES.get(party["country"], "") if any("\u2e80" <= letter <= "\uffdc" for letter in text) else ""

    def name(self, party: dict[str, str]) -> str:
        """Who it is: the legal or company name, else the person's."""
        return party.get("legal_name") or party.get("company") or party.get("name") or party["email"]


def on_screen(bill: Bill, reader: Formats, standing: Standing | None = None) -> Paper:
    """The document a bill shows on its page: its invoice once paid, else its pro forma, in the reader's formats."""
    content = documents.invoice(bill) if bill.invoice_number else documents.proforma(bill)
    return Paper(content, reader, standing)


def printed(content: dict[str, Any], standing: Standing | None = None) -> Paper:
    """The document as it is printed, in the formats of its buyer. Days are those of the seller's legal zone."""
    return Paper(content, formats(content["locale"], content.get("timezone") or "UTC"), standing)


def sheet(content: dict[str, Any], standing: Standing | None = None) -> Sheet:
    """The page to print of a document's content; with a standing, as it has to be read now."""
    return Sheet(content["number"], _environment().get_template("documents/document.html").render(paper=printed(content, standing), own_mark=Markup(config.current().mark)))  # noqa: S704 - the operator's own file


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
