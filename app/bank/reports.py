"""What the bank says of a payment file of ours: pain.002, a status report. A payout it rejects is undone with its reason; what it accepts is noted.

That a payout left is told by its statement alone: banks accept what they reject an hour later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from app import db
from app.bank import camt, known, payouts
from app.bank.statements import FileRefused

REJECTED, ACCEPTED = "RJCT", frozenset({"ACCP", "ACTC", "ACSP", "ACSC", "ACWC", "ACCC", "PART"})
REASONS: Mapping[str, str] = MappingProxyType({
    "AC01": "There is no such account.", "AC04": "The account is closed.", "AC06": "The account is blocked.", "AC13": "The account cannot take this kind of transfer.",
    "AG01": "The account cannot take transfers.", "AG02": "The bank cannot make this kind of transfer.", "AM04": "There was not enough on our account.",
    "AM05": "The bank took it for a transfer that it had made already.", "BE04": "The address of the holder is missing.", "MD07": "The holder of the account has died.",
    "MS02": "The holder of the account refused it.", "MS03": "The bank gives no reason.", "RC01": "The bank of the account cannot be found.",
    "RR04": "The bank may not make it.", "FF01": "The bank could not read it.", "DUPL": "The bank took it for a transfer that it had made already.",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What the bank says of one payout: `state` is rejected, accepted or unchanged; `why` a sentence."""

    number: str
    state: str
    why: str = ""


def take_in(data: bytes) -> list[Said]:
    """Undo what the bank rejected and note what it accepted; the same report again changes nothing. Opens a transaction for each payout. Raises FileRefused."""
    root = camt.root(data)
    report = root.find("CstmrPmtStsRpt")
    if report is None:
        raise FileRefused("This is no pain.002 status report.")
    message = (report.findtext("OrgnlGrpInfAndSts/OrgnlMsgId") or "").strip()
    ours = {row.number for row in db.rows(_OURS, message=message)}
    if not ours:
        raise FileRefused(f"It is about {message or 'no file'}, which is no payment file of ours.")
    told = dict(_told(report, ours))
    if strangers := set(told) - ours:
        raise FileRefused(f"{', '.join(sorted(strangers))} does not stand in {message}. Nothing was done.")
    return [_book(number, *status, message) for number, status in sorted(told.items())]


def _told(report: camt.Element, ours: set[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """The status and reason of each payout: its own, else that of its part of the file, else that of the file."""
    for holder, status in ((report.find("OrgnlGrpInfAndSts"), "GrpSts"), *((part, "PmtInfSts") for part in report.iterfind("OrgnlPmtInfAndSts"))):
        code = (holder.findtext(status) or "").strip() if holder is not None else ""
        if holder is not None and code and code != "PART":
            yield from ((number, (code, _reason(holder))) for number in ours)
    for transfer in report.iterfind("OrgnlPmtInfAndSts/TxInfAndSts"):
        yield (transfer.findtext("OrgnlEndToEndId") or "").strip(), ((transfer.findtext("TxSts") or "").strip(), _reason(transfer))


def _reason(holder: camt.Element) -> str:
    code = (holder.findtext("StsRsnInf/Rsn/Cd") or holder.findtext("StsRsnInf/Rsn/Prtry") or "").strip()
    own = " ".join((text.text or "").strip() for text in holder.iterfind("StsRsnInf/AddtlInf"))[:200]
    return REASONS.get(code) or own or f"The bank says {code}." if code or own else ""


def _book(number: str, code: str, reason: str, message: str) -> Said:
    with db.transaction():
        known.lock()
        if code == REJECTED:
            return _said(number, "rejected", payouts.reject(number, message, reason or REASONS["MS03"]), reason)
        return _said(number, "accepted", payouts.note_accepted(number, message) if code in ACCEPTED else f"The bank says {code}.", "")


def _said(number: str, state: str, wrong: str, reason: str) -> Said:
    return Said(number, "unchanged", wrong) if wrong else Said(number, state, reason)


_OURS = "select p.number from bank_payouts p join bank_payout_files f on f.id = p.file_id where f.message = %(message)s"
