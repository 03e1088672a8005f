"""Payment files for the bank: ISO 20022 pain.001.001.09, one payer, one transfer for each payout."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lxml import etree

from app.money import Money
from config import BankAccount

SPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
LONGEST_NAME, LONGEST_TEXT = 70, 140
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-?:().,'+ ")
SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
                           "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "ı": "i", "&": "+", "_": "-", "’": "'", "–": "-"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """One transfer to be made: its number comes back in the statement as the end-to-end id."""

    number: str
    amount: Money
    iban: str
    holder: str
    text: str


def latin(text: str, longest: int) -> str:
    """A text in the letters every bank takes: spelled out where that is usual, without accents, a point for what has no such letter."""
    plain = unicodedata.normalize("NFKD", text.translate(SPELLED))
    letters = (letter if letter in _ALLOWED else "." for letter in plain if not unicodedata.combining(letter))
    return " ".join("".join(letters).split()).lstrip("/")[:longest].strip() or "."


def write(message: str, created: datetime, account: BankAccount, orders: Sequence[Order]) -> bytes:
    """The file: `message` is its name at the bank, at most 35 characters; all orders in the account's currency."""
    sums = (("NbOfTxs", str(len(orders))), ("CtrlSum", str(sum(order.amount.decimal for order in orders))))
    root = etree.Element(f"{{{SPACE}}}Document", nsmap={None: SPACE})  # type: ignore[dict-item]
    file = _add(root, "CstmrCdtTrfInitn")
    head = _add(file, "GrpHdr", ("MsgId", message), ("CreDtTm", f"{created:%Y-%m-%dT%H:%M:%S}"), *sums)
    _add(_add(head, "InitgPty"), "Nm", text=latin(account.holder, LONGEST_NAME))
    info = _add(file, "PmtInf", ("PmtInfId", message), ("PmtMtd", "TRF"), ("BtchBookg", "false"), *sums)
    if account.currency == "EUR":
        _add(_add(_add(info, "PmtTpInf"), "SvcLvl"), "Cd", text="SEPA")
    _add(_add(info, "ReqdExctnDt"), "Dt", text=f"{created:%Y-%m-%d}")
    _add(_add(info, "Dbtr"), "Nm", text=latin(account.holder, LONGEST_NAME))
    _account(_add(info, "DbtrAcct"), account.account_number, iban=account.has_iban, currency=account.currency)
    bank = _add(_add(info, "DbtrAgt"), "FinInstnId", ("BICFI", account.bic))
    if account.routing:
        member = _add(bank, "ClrSysMmbId")
        _add(_add(member, "ClrSysId"), "Cd", text="USABA")
        _add(member, "MmbId", text=account.routing)
    _add(info, "ChrgBr", text="SLEV" if account.currency == "EUR" else "SHAR")
    for order in orders:
        _transfer(info, order)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True))


def _transfer(info: etree._Element, order: Order) -> None:
    transfer = _add(info, "CdtTrfTxInf")
    _add(_add(transfer, "PmtId"), "EndToEndId", text=order.number)
    _add(_add(transfer, "Amt"), "InstdAmt", text=str(order.amount.decimal)).set("Ccy", order.amount.currency)
    _add(_add(transfer, "Cdtr"), "Nm", text=latin(order.holder, LONGEST_NAME))
    _account(_add(transfer, "CdtrAcct"), order.iban, iban=True)
    _add(_add(transfer, "RmtInf"), "Ustrd", text=latin(f"{order.number} {order.text}", LONGEST_TEXT))


def _account(holder: etree._Element, number: str, *, iban: bool, currency: str = "") -> None:
    named = _add(holder, "Id")
    _add(named if iban else _add(named, "Othr"), "IBAN" if iban else "Id", text=number.replace(" ", ""))
    if currency:
        _add(holder, "Ccy", text=currency)


def _add(parent: etree._Element, name: str, *children: tuple[str, str], text: str | None = None) -> etree._Element:
    element = etree.SubElement(parent, f"{{{SPACE}}}{name}")
    element.text = text
    for child, inner in children:
        _add(element, child, text=inner)
    return element
