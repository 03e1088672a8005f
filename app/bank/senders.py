"""Who sent a transfer beside who is to get money: names and accounts compared for who decides."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from app import db
from app.bank.pain import SPELLED
from app.bank.statements import compact


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a transfer, as the bank says it; either may be empty."""

    name: str
    account: str


def senders(payment: str) -> Sequence[Sender]:
    """Who sent the transfers of a payment by its public id, each once; none where it was no transfer."""
    found = db.rows(_SENDERS, payment=payment)
    return [Sender(*row) for row in found]


def same_account(one: str, other: str) -> str:
    """``same``, ``other``, or ``unknown`` where one is not told. Blanks do not count."""
    if not (one and other):
        return "unknown"
    return "same" if compact(one) == compact(other) else "other"


def same_name(one: str, other: str) -> str:
    """``same``, ``part`` when one holds all words of the other, ``other``, or ``unknown``.

    Accents, order, case and the spelling of umlauts do not count.
    """
    words, others = _words(one), _words(other)
    if not (words and others):
        return "unknown"
    if words == others:
        return "same"
    return "part" if words < others or others < words else "other"


def _words(name: str) -> set[str]:
    spelled = unicodedata.normalize("NFC", name).translate(SPELLED)
    plain = unicodedata.normalize("NFKD", spelled)
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return set(re.findall(r"\w+", letters.casefold()))


_SENDERS = """
select distinct l.sender, l.sender_account
from bank_lines l
join payments p on p.id = l.payment_id or p.id in (
  select part.payment_id from bank_line_parts part where part.line_id = l.id
)
where p.public_id = %(payment)s
  and l.amount > 0
order by l.sender, l.sender_account
"""
