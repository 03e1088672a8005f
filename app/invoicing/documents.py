"""Documents: what is printed, kept as data when it is issued; the PDF is made from that data alone and kept for ever.

The content is a snapshot: profile, rates, seller and settings may change afterwards, the document does not. Amounts are minor units
of `currency`, moments ISO 8601 in UTC, days those of the seller's legal zone, which is kept as `timezone`; documents without one are
older than the setting, and of UTC.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import config

if TYPE_CHECKING:
    from app.invoicing.bills import Bill, Line

VERSION = 1
"""Of the content's shape. A template that needs another shape raises it and keeps reading this one."""


def proforma(bill: Bill) -> dict[str, Any]:
    """The content of an invoice for payment: what to pay, until when. It is not a VAT invoice."""
    issued_on = day_in(bill.reissued_at, bill.zone) if bill.reissued_at else bill.issued_on
    content = _content(bill, "proforma", bill.proforma_number or "", issued_on, bill.zone)
    pay_url = f"{config.current().base_url}/invoices/{bill.proforma_number}/pay"
    return content | {"due_on": bill.due_on.isoformat(), "pay_url": pay_url, "bank": _bank(bill), "replaces": bill.replaces}


def _bank(bill: Bill) -> dict[str, Any] | None:
    """Where to transfer to, and what to write on it; None for a currency without an account and for bills older than references."""
    account = config.current().bank_account(bill.currency)
    return asdict(account) | {"reference": bill.payment_reference} if account and bill.payment_reference else None


def invoice(bill: Bill) -> dict[str, Any]:
    """The content of a settled bill's invoice."""
    return _content(bill, "invoice", bill.invoice_number or "", _invoiced_on(bill), paid_zone(bill)) | {"payment": bill.payment}


def receipt(bill: Bill) -> dict[str, Any]:
    """The content of the receipt beside that invoice: how it was paid. It is not a VAT invoice."""
    content = _content(bill, "receipt", bill.receipt_number or "", _invoiced_on(bill), paid_zone(bill))
    return content | {"payment": bill.payment, "invoice_number": bill.invoice_number}


def payment_receipt(bill: Bill, number: str, payment: dict[str, Any], issued_on: date) -> dict[str, Any]:
    """The content of the receipt of money that did not pay its bill by itself: too little of it, or more than was asked for."""
    content = _content(bill, "payment_receipt", number, issued_on, str(payment["timezone"]))
    return content | {"title": bill.title, "payment": payment, "invoice_number": bill.number}


def link_receipt(bill: Bill, number: str, payment: dict[str, Any], issued_on: date) -> dict[str, Any]:
    """The receipt of who paid by a copied link, with what its page shows: not a word of whose bill or balance it is."""
    hidden = {"credited": None, "credited_currency": None, "rate_note": ""}
    content = payment_receipt(bill, number, payment | hidden, issued_on)
    owners = {"buyer": {}, "po_number": "", "lines": [], "allowance": 0, "allowance_net": 0}
    return content | {"kind": "link_receipt", "locale": "en_GB"} | owners


def refund_receipt(bill: Bill, number: str, refund: dict[str, Any], issued_on: date, zone: str) -> dict[str, Any]:
    """The content of the receipt of money that went back of a bill's payment: `refund` says what, when and where to. It is not a VAT invoice."""
    return _content(bill, "refund_receipt", number, issued_on, zone) | {"invoice_number": bill.number, "refund": refund}


def paid_zone(bill: Bill) -> str:
    """The legal zone of a bill's invoice and receipt: the seller's when they were issued."""
    return str((bill.payment or {}).get("timezone") or "UTC")


def day_in(moment: datetime, zone: str) -> date:
    """The day of an aware moment in a zone."""
    return moment.astimezone(ZoneInfo(zone)).date()


def _invoiced_on(bill: Bill) -> date:
    return day_in(bill.invoiced_at or bill.issued_at, paid_zone(bill))


def _content(bill: Bill, kind: str, number: str, issued_on: date, zone: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "kind": kind,
        "number": number,
        "bill_kind": bill.kind,
        "proforma_number": bill.proforma_number,
        "issued_on": issued_on.isoformat(),
        "ordered_on": bill.issued_on.isoformat(),
        "timezone": zone,
        "locale": bill.locale,
        "seller": bill.seller,
        "buyer": bill.buyer,
        "po_number": bill.po_number,
        "currency": bill.currency,
        "lines": [_line(line) for line in bill.lines],
        "net": bill.net,
        "tax": bill.tax,
        "total": bill.total,
        "allowance": bill.allowance,
        "allowance_net": bill.allowance_net,
        "tax_category": bill.tax_category,
        "tax_rate": str(bill.tax_rate),
        "tax_note": bill.tax_note,
    }


def _line(line: Line) -> dict[str, Any]:
    plain = asdict(line) | {"net": line.net}
    del plain["service_id"]
    return plain | {name: plain[name].isoformat() for name in ("period_start", "period_end") if plain[name]}
