"""Why a line waits in suspense: the codes that are kept, and the sentence a page says for each."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from app import db

TO_FOLLOW = "to_follow"
CAME_BACK = "came_back"
NAMES_NOTHING = "names_nothing"
NOT_FOUND = "not_found"
SEVERAL_CUSTOMERS = "several_customers"
SEVERAL_BILLS = "several_bills"
NOT_EXACT = "not_exact"
SENDER_HAS_SEVERAL_BILLS = "sender_has_several_bills"
SAME_REFERENCE = "same_reference"

SENTENCES: Mapping[str, str] = MappingProxyType({
    TO_FOLLOW: "It was booked and is still to be looked at.",
    CAME_BACK: "A transfer of ours came back.",
    NAMES_NOTHING: "Nothing in it names a bill or a login.",
    NOT_FOUND: "It names a bill or a login that does not exist.",
    SEVERAL_CUSTOMERS: "It names bills of several customers.",
    SEVERAL_BILLS: "It names several bills, and not one of them is open for exactly this sum.",
    NOT_EXACT: "The number in it is not written as ours are, and no open bill of that number has exactly this sum.",
    SENDER_HAS_SEVERAL_BILLS: "Its sender has several open bills of this amount.",
    SAME_REFERENCE: "The same statement tells it twice under one reference of the bank. Ask the bank whether it is one transfer.",
})  # fmt: skip


def sentence(why: str) -> str:
    """What a page says for a code; a sentence that was written down instead of one stays."""
    return SENTENCES.get(why, why)


def write(waiting: Sequence[tuple[int, str]]) -> None:
    """Write down why lines wait: a code as one, anything else as the sentence it is. Within a
    transaction."""
    db.execute(
        _WRITE,
        ids=[line for line, _ in waiting],
        codes=[why if why in SENTENCES else "" for _, why in waiting],
        sentences=["" if why in SENTENCES else why for _, why in waiting],
    )


_WRITE = """
update bank_lines l
set reason_code = w.code, reason = w.sentence
from unnest(%(ids)s::bigint[], %(codes)s::text[], %(sentences)s::text[]) as w (id, code, sentence)
where l.id = w.id
"""
