"""What a bank transfer carries: the account it goes to, the reference that finds its bill, and the QR code a banking app reads.

References are those of ISO 11649: ``RF``, two check digits, then digits alone. With digits alone the check finds every single wrong digit
and every swapped pair; with letters it does not.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from segno.helpers import make_epc_qr
from stdnum import iso11649
from stdnum.iso7064 import mod_97_10

from app.money import Money

LARGEST_EPC = Decimal("999999999.99")
"""Euro: what the code's amount field can hold (EPC069-12)."""
_SHORTEST, _LONGEST = 8, 25
"""Characters of a whole reference: ours have sixteen digits or more, but the customer's own part may be shorter in an older archive."""


def reference(customer_id: int, proforma_number: str) -> str:
    """The reference of a bill: customer (8 digits), year (2) and number (6) of its pro forma."""
    _, year, number = proforma_number.split("-")
    body = f"{customer_id:08d}{year[2:]}{number}"
    return f"RF{mod_97_10.calc_check_digits(f'{body}RF')}{body}"


def grouped(text: str) -> str:
    """A reference or an account number as people copy it: in groups of four. What has blanks already stays as it is."""
    return text if " " in text else " ".join(text[place : place + 4] for place in range(0, len(text), 4))


def references(text: str) -> Iterator[str]:
    """Every valid reference that stands somewhere in a text, however it is spaced, the longest reading first."""
    packed = re.sub(r"[\s.\-/]", "", text.upper())
    for found in re.finditer(r"RF(?=\d)", packed):
        digits = re.match(r"RF\d+", packed[found.start() :])
        longest = min(len(digits[0]) if digits else 0, _LONGEST)
        yield from (reading for size in range(longest, _SHORTEST - 1, -1) if _checks(reading := packed[found.start() : found.start() + size]))


def _checks(reading: str) -> bool:
    """Whether the check digits of ``RF`` and digits are right: ISO 7064, mod 97-10, with the letters as 27 and 15 behind the rest."""
    return int(f"{reading[4:]}2715{reading[2:4]}") % 97 == 1


def qr(holder: str, number: str, bic: str, amount: Money, text: str) -> str:
    """The EPC code of a euro transfer as a ``data:`` image, or nothing where there is none: other currencies, no IBAN, too large."""
    if amount.currency != "EUR" or not re.match(r"[A-Z]{2}\d{2}", number) or not 0 < amount.decimal <= LARGEST_EPC:
        return ""
    structured = iso11649.is_valid(text)
    code = make_epc_qr(
        name=holder[:70], iban=number, bic=bic, amount=amount.decimal, reference=text if structured else None, text=None if structured else text[:140], encoding="utf-8"
    )
    return str(code.svg_data_uri(scale=4, border=4, dark="#000", light="#fff"))
