"""What the bank says of a payment file of ours: pain.002, a status report. A payout it rejects is
undone with its reason; what it accepts is noted.

That a payout left is told by its statement alone. A rejection of what the bank accepted, of what
left, or of a copy ("duplicate") undoes nothing: the first one may have paid. It is kept as a
contradiction, and a person looks at it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from app import approvals, clock, db
from app.bank import camt, known, payouts
from app.bank.statements import FileRefused, clean

FIRM = frozenset({"ACCP", "ACSP", "ACSC", "ACCC", "ACWC"})
"""Statuses after which the bank may have paid: its technical check alone (ACTC) is none."""
DUPLICATE = frozenset({"AM05", "DUPL", "DU01", "DU02", "DU03", "DU04", "DU05"})
"""Reasons by which a bank rejects a copy of what it has."""
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
    """What the bank says of one payout: `state` is rejected, accepted, contradiction or unchanged;
    `why` a sentence."""

    number: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the bank said of a payout against what we know of it: nothing was undone by it."""

    id: int
    number: str
    message: str
    status: str
    reason_code: str
    kind: str
    said_at: datetime

    @property
    def sentence(self) -> str:
        """What happened and what to do."""
        return f"{CONTRADICTIONS[self.kind]} {REASONS.get(self.reason_code, '')}".strip()


class ContradictionError(ValueError):
    """A contradiction cannot be closed so. `str()` is a sentence for the operator."""


CONTRADICTIONS: Mapping[str, str] = MappingProxyType({
    "duplicate": "The bank rejected it as a duplicate. The first copy may have been paid, so nothing was undone. Ask the bank.",
    "rejected_after_acceptance": "The bank rejected it after it had accepted it. Nothing was undone. Ask the bank whether it was paid.",
    "rejected_after_leaving": "The bank rejected it though its statement shows that it left. Nothing was undone. Ask the bank.",
    "accepted_after_undoing": "The bank accepted it after it was undone here. It may be paid: stop it at the bank.",
})  # fmt: skip


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


def contradictions() -> list[Contradiction]:
    """Every contradiction that nobody has looked at, the oldest first."""
    return [Contradiction(*row) for row in db.rows(_OPEN)]


def look_at(contradiction_id: int, *, actor: str, note: str) -> str:
    """Note that a person looked at a contradiction and what the bank answered; the payout's number.

    Nothing is undone by it. Opens the transaction. Raises ContradictionError.
    """
    if not actor.strip() or not note.strip():
        raise ContradictionError("Write down what the bank answered.")
    with db.transaction():
        said = note.strip()[:500]
        number = db.scalar(_TAKE, id=contradiction_id)
        if number is None:
            raise ContradictionError(f"No contradiction {contradiction_id} is open.")
        customers, payments = payouts.whose(number)
        person = approvals.decide(
            "payout.look_at",
            number,
            actor=actor,
            customers=customers,
            payments=payments,
            reason=said,
        )
        db.execute(_LOOK_AT, id=contradiction_id, actor=person.name, note=said, now=clock.now())
    return str(number)


def _told(report: camt.Element, ours: set[str]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The status and reason of each payout: its own, else that of its part of the file, else that of the file."""
    for holder, status in ((report.find("OrgnlGrpInfAndSts"), "GrpSts"), *((part, "PmtInfSts") for part in report.iterfind("OrgnlPmtInfAndSts"))):
        code = (holder.findtext(status) or "").strip() if holder is not None else ""
        if holder is not None and code and code != "PART":
            yield from ((number, (code, *_reason(holder))) for number in ours)
    for transfer in report.iterfind("OrgnlPmtInfAndSts/TxInfAndSts"):
        yield (transfer.findtext("OrgnlEndToEndId") or "").strip(), ((transfer.findtext("TxSts") or "").strip(), *_reason(transfer))


def _reason(holder: camt.Element) -> tuple[str, str]:
    """The bank's reason: its code, and a sentence."""
    code = (holder.findtext("StsRsnInf/Rsn/Cd") or holder.findtext("StsRsnInf/Rsn/Prtry") or "").strip()
    own = " ".join((text.text or "").strip() for text in holder.iterfind("StsRsnInf/AddtlInf"))[:200]
    said = REASONS.get(code) or own or f"The bank says {code}." if code or own else ""
    return re.sub("[^A-Z0-9]", "", code.upper())[:35], clean(said)


def _book(number: str, code: str, reason_code: str, reason: str, message: str) -> Said:
    with db.transaction():
        known.lock()
        kind = _contradiction(number, code, reason_code, message)
        told = {"number": number, "message": message, "status": code, "reason": reason_code}
        if re.fullmatch("[A-Z0-9]{1,4}", code):
            db.execute(_WRITE, **told, kind=kind, now=clock.now())
        if kind:
            return Said(number, "contradiction", CONTRADICTIONS[kind])
        if code == REJECTED:
            return _said(number, "rejected", payouts.reject(number, message, reason or REASONS["MS03"]), reason)
        return _said(number, "accepted", payouts.note_accepted(number, message) if code in ACCEPTED else f"The bank says {code}.", "")


def _contradiction(number: str, code: str, reason_code: str, message: str) -> str:
    """What is contradicted by a status of the newest file of a payout, or nothing."""
    stands = payouts.stands(number, message)
    if code in FIRM:
        return "accepted_after_undoing" if stands == "undone" else ""
    if code != REJECTED or stands not in {"due", "left"}:
        return ""
    if stands == "left":
        return "rejected_after_leaving"
    if reason_code in DUPLICATE:
        return "duplicate"
    firm = {"number": number, "message": message, "firm": list(FIRM)}
    return "rejected_after_acceptance" if db.scalar(_ACCEPTED_BEFORE, **firm) else ""


def _said(number: str, state: str, wrong: str, reason: str) -> Said:
    return Said(number, "unchanged", wrong) if wrong else Said(number, state, reason)


_OURS = "select p.number from bank_payouts p join bank_payout_files f on f.id = p.file_id where f.message = %(message)s"
_WRITE = """
insert into bank_payout_statuses (number, message, status, reason_code, contradiction, said_at)
values (%(number)s, %(message)s, %(status)s, %(reason)s, %(kind)s, %(now)s)
on conflict (number, message, status, reason_code) do nothing
"""
_ACCEPTED_BEFORE = """
select exists (
  select from bank_payout_statuses
  where number = %(number)s
    and message = %(message)s
    and status = any(%(firm)s)
)
"""
_OPEN = """
select id, number, message, status, reason_code, contradiction, said_at
from bank_payout_statuses
where contradiction <> ''
  and looked_at is null
order by id
"""
_TAKE = """
select number
from bank_payout_statuses
where id = %(id)s
  and contradiction <> ''
  and looked_at is null
for no key update
"""
_LOOK_AT = """
update bank_payout_statuses
set looked_at = %(now)s, actor = %(actor)s, note = %(note)s
where id = %(id)s
"""
