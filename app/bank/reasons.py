"""Why a line of a statement waits for a person: a code with its values in the database, and the
sentence that pages and commands show for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from app import db, payments
from app.money import Money


@dataclass(frozen=True, slots=True)
class Reason:
    """A code of `SENTENCES`, and what its sentence names: numbers of payouts, amounts."""

    code: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def sentence(self) -> str:
        """What a person reads."""
        return SENTENCES[self.code] % self.values


TO_FOLLOW = Reason("to_follow")
CAME_BACK = Reason("came_back")
NAMES_NOTHING = Reason("names_nothing")
NOT_FOUND = Reason("not_found")
SEVERAL_CUSTOMERS = Reason("several_customers")
SEVERAL_BILLS = Reason("several_bills")
NOT_EXACT = Reason("not_exact")
SENDER_HAS_SEVERAL_BILLS = Reason("sender_has_several_bills")
SAME_REFERENCE = Reason("same_reference")
NO_RATE = Reason(payments.NO_RATE)
CANNOT_CONVERT = Reason(payments.CANNOT_CONVERT)
UNKNOWN_DEBIT = Reason("unknown_debit")
ORIGINAL_NOT_FOUND = Reason("original_not_found")
BATCH_DIFFERS = Reason("batch_differs")
PERHAPS_SINGLES = Reason("perhaps_singles")
PERHAPS_PART = Reason("perhaps_part")
NOT_IN_OTHER_FILE = Reason("not_in_other_file")
OTHER_MONEY = Reason("other_money")
SAME_MONEY = Reason("same_money")
ITEMISED = Reason("itemised")
NOT_CREDITED = Reason("not_credited")
NOT_CLASSIFIED = Reason("not_classified")

SENTENCES: Mapping[str, str] = MappingProxyType({
    "to_follow": "It was booked and is still to be looked at.",
    "came_back": "A transfer of ours came back.",
    "names_nothing": "Nothing in it names a bill or a login.",
    "not_found": "It names a bill or a login that does not exist.",
    "several_customers": "It names bills of several customers.",
    "several_bills": "It names several bills, and neither one of them nor all together are open"
    " for exactly this sum.",
    "not_exact": "The number in it is not written as ours are, and no open bill of that number has"
    " exactly this sum.",
    "sender_has_several_bills": "Its sender has several open bills of this amount.",
    "no_rate": "There is no exchange rate yet. It is credited automatically as soon as there is"
    " one.",
    "cannot_convert": "Its amount cannot be converted to the customer's currency.",
    "same_reference": "The same statement names it twice under one bank reference. Ask the bank"
    " whether it is one transfer.",
    "unknown_debit": "Money that left the account.",
    "original_not_found": "It takes back a transfer that cannot be found.",
    "batch_differs": "The transfers of this batch do not add up to what was booked.",
    "perhaps_singles": "It may be the same money as transfers of that day that came one by one.",
    "perhaps_part": "It may be part of a sum that is booked already.",
    "not_in_other_file": "Another file had the whole of this statement before, without it.",
    "other_money": "It was confirmed as separate money.",
    "same_money": "The same money as what is booked already.",
    "itemised": "The single transfers of this sum are booked since.",
    "payout_amount_differs": "It names %(number)s, which is %(amount)s.",
    "payout_account_differs": "It names %(number)s, which goes to another account.",
    "payout_left_before": "It names %(number)s, which has left already.",
    "payout_not_due": "It names %(number)s, which was not to be paid.",
    "payout_came_back": "%(number)s came back to us.",
    "not_credited": "It could not be credited. The application's log says why.",
    "not_classified": "It could not be booked off. The application's log says why.",
})  # fmt: skip


def about_payout(code: str, number: str, amount: Money | None = None) -> Reason:
    """Why a line that names a payout is not the one that pays it or brings it back."""
    return Reason(code, {"number": number} | ({"amount": str(amount)} if amount else {}))


def kept(code: str, values: Mapping[str, str]) -> Reason | None:
    """The reason that a row holds; None for a row without one."""
    return Reason(code, values) if code else None


def write(waiting: Sequence[tuple[int, Reason]]) -> None:
    """Write down why lines wait. Within a transaction."""
    db.execute(
        _WRITE,
        ids=[line for line, _ in waiting],
        codes=[why.code for _, why in waiting],
        values=[json.dumps(dict(why.values)) for _, why in waiting],
    )


_WRITE = """
update bank_lines l
set reason_code = w.code, reason_values = w.values
from unnest(%(ids)s::bigint[], %(codes)s::text[], %(values)s::jsonb[]) as w (id, code, values)
where l.id = w.id
"""
