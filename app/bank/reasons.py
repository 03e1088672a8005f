"""Why a line waits in suspense: the codes that are kept, and the sentence a page says for each."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from app import db, payments

TO_FOLLOW = "to_follow"
CAME_BACK = "came_back"
NAMES_NOTHING = "names_nothing"
NOT_FOUND = "not_found"
SEVERAL_CUSTOMERS = "several_customers"
SEVERAL_BILLS = "several_bills"
NOT_EXACT = "not_exact"
SENDER_HAS_SEVERAL_BILLS = "sender_has_several_bills"
SAME_REFERENCE = "same_reference"
NO_RATE = payments.NO_RATE

SENTENCES: Mapping[str, str] = MappingProxyType({
    TO_FOLLOW: "It was booked and is still to be looked at.",
    CAME_BACK: "A transfer of ours came back.",
    NAMES_NOTHING: "Nothing in it names a bill or a login.",
    NOT_FOUND: "It names a bill or a login that does not exist.",
    SEVERAL_CUSTOMERS: "It names bills of several customers.",
    SEVERAL_BILLS: "It names several bills, and neither one of them nor all together are open for exactly this sum.",
    NOT_EXACT: "The number in it is not written as ours are, and no open bill of that number has exactly this sum.",
    SENDER_HAS_SEVERAL_BILLS: "Its sender has several open bills of this amount.",
    NO_RATE: "It cannot be converted now: there is no exchange rate. It is credited by itself as soon as there is one.",
    SAME_REFERENCE: "The same statement tells it twice under one reference of the bank. Ask the bank whether it is one transfer.",
})  # fmt: skip


def sentence(why: str) -> str:
    """What a page says for a code; a sentence that was written down instead of one stays."""
    return SENTENCES.get(why, why)


def plainly(fault: Exception) -> str:
    """What went wrong, where an exception of ours says it; of any other the log has the words."""
    ours = type(fault).__module__.split(".")[0] == "app"
    return str(fault).rstrip(".") if ours and str(fault) else "the application's log says why"


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
