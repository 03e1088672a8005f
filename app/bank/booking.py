"""Lines of the bank into the books: what arrived the moment it is read, whose it is as soon as that is known.

``bank −, suspense +`` for every entry at once, so that the bank's balance in our books is the bank's own; then ``suspense −, wallet +`` for what is
matched. A sum that is told later stays as it was posted, and its lines take their money from suspense.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app import clock, db, ledger, payments
from app.bank import doubts, reasons
from app.bank.keys import Booking, Line
from app.bank.known import Found, Memory, Standing
from app.bank.matching import Match, match
from app.bank.reasons import ITEMISED, TO_FOLLOW, UNKNOWN_DEBIT, Reason
from app.bank.statements import Detail
from app.ledger import LedgerError
from app.money import Money
from app.payments import Arrival, Credited


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of a line: matched, suspense, charge, returned, payout or duplicate; `why` it waits in suspense.

    One that is in suspense with `TO_FOLLOW` is no plain credit: `following` says what becomes of it, by its `id`.
    """

    line: Line
    fate: str
    why: Reason | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class _New:
    """A line to write: its keys, its entry as a `whole`, and the sum it is a part of, if that is in the books already."""

    line: Line
    key: bytes
    entry_key: bytes
    whole: Booking
    sum: Standing | None

    @property
    def follows(self) -> bool:
        """Whether it is no plain credit: it takes something back, left, or came back."""
        return not self.line.doubt and (self.line.kind in {"debit", "return"} or (self.line.kind == "credit" and self.line.returned))

    @property
    def booked(self) -> Booked:
        """What became of it before anybody is credited."""
        return Booked(self.line, "charge") if self.line.kind == "charge" else Booked(self.line, "suspense", TO_FOLLOW if self.follows else self.line.doubt or UNKNOWN_DEBIT)


def book(found: Sequence[Found], memory: Memory, file: str, uncredited: Reason | None = None) -> tuple[list[Booked], set[bytes]]:
    """Book what is new and credit what can be matched; what became of each line, and the entries it was. Within a transaction, behind `known.lock`.

    With a reason in `uncredited` all that is new waits in suspense for that reason.
    """
    known = [Booked(line, "duplicate") for entry in found if entry.standing and not entry.told for line in entry.booking.lines]
    fresh = _lines([entry for entry in found if entry.standing is None or entry.told], memory)
    met = {entry.standing.entry_key for entry in found if entry.standing} | {new.entry_key for new in fresh}
    if not fresh:
        return known, met
    fresh = _still_doubtful(fresh)
    ids = _write(fresh, file)
    doubts.raise_for([(ids[new.key], new.whole.maybe, bool(new.line.doubt)) for new in fresh if new.whole.maybe or new.line.doubt == reasons.NOT_IN_OTHER_FILE])
    fates = {new.key: replace(new.booked, why=uncredited) if uncredited and new.line.kind != "charge" else new.booked for new in fresh}
    if not uncredited:
        incoming = [new for new in fresh if new.line.kind == "credit" and not new.follows]
        fates |= _credit(incoming, match([new.line for new in incoming]), ids)
    waiting = [(ids[key], fate.why) for key, fate in fates.items() if fate.why]
    reasons.write(waiting)
    return [*(replace(fates[new.key], id=ids[new.key]) for new in fresh), *known], met


def _lines(found: Sequence[Found], memory: Memory) -> list[_New]:
    """The lines of entries that are new or told in full now, with their keys."""
    keys = iter(memory.keys([line for entry in found for line in entry.booking.lines]))
    fresh = []
    for entry in found:
        own = [next(keys) for _ in entry.booking.lines]
        entry_key = entry.standing.entry_key if entry.standing else own[0]
        fresh += [_New(line, key, entry_key, entry.booking, entry.standing) for line, key in zip(entry.booking.lines, own, strict=True)]
    return fresh


def _still_doubtful(fresh: Sequence[_New]) -> list[_New]:
    """A sum that somebody was credited for since the file was looked at does not wait any more: then its transfers have to."""
    sums = [line for new in fresh for line in new.whole.maybe if not new.line.doubt]
    waiting = doubts.still_wait(sums) if sums else set()
    gone = {new.key for new in fresh if new.whole.maybe and not new.line.doubt and not waiting.issuperset(new.whole.maybe)}
    return [replace(new, line=replace(new.line, doubt=reasons.PERHAPS_PART)) if new.key in gone else new for new in fresh]


def _write(fresh: Sequence[_New], file: str) -> dict[bytes, int]:
    """The lines and their first transfers; their ids by key."""
    postings = {new.key: posting for new in fresh for posting in [_arrival(new)] if posting}
    posted = dict(zip(postings, ledger.post_many(list(postings.values())), strict=True)) if postings else {}
    sums = [new.sum.lines[0] for new in fresh if new.sum]
    db.execute("update bank_lines set state = 'split', reason_code = %(why)s, reason_values = '{}' where id = any(%(ids)s)", why=ITEMISED.code, ids=[row.id for row in sums])
    rows = [_row(new, posted[new.key].transfer_id if new.key in posted else new.sum.lines[0].transfer_id if new.sum else 0) for new in fresh]
    return {bytes(row.line_key): row.id for row in db.rows(_INSERT, rows=json.dumps(rows), file=file, now=clock.now())}


def _arrival(new: _New) -> ledger.Posting | None:
    """`bank −, suspense +`; what the bank took for itself is a fee at once. The parts of a sum are in suspense already."""
    line, fee = new.line, new.line.kind == "charge"
    if new.sum and not fee:
        return None
    source = _suspense(line.currency) if new.sum else ledger.account("bank", line.currency, key=line.account)
    other = ledger.account("fees", line.currency, key="bank") if fee else _suspense(line.currency)
    lines = [(source, -line.amount), (other, line.amount)]
    return ledger.Posting(f"bank:{new.key.hex()}", "fee" if fee else "arrived", lines, f"Booked by the bank on {line.booked_on}", posted_at=clock.now())


def _suspense(currency: str) -> int:
    return ledger.account("suspense", currency, key=payments.SUSPENSE)


def _row(new: _New, transfer_id: int) -> dict[str, object]:
    line, detail = new.line, new.line.detail
    return {
        "line_key": new.key.hex(),
        "entry_key": new.entry_key.hex(),
        "entry_amount": new.whole.amount,
        "entry_reference": new.whole.reference,
        "names": sorted(new.whole.names),
        "transfers": new.whole.transfers,
        "part_of": new.sum.lines[0].id if new.sum else None,
        "account": line.account,
        "booked_on": line.booked_on.isoformat(),
        "amount": line.amount,
        "currency": line.currency,
        "kind": line.kind,
        "bank_reference": line.bank_reference,
        "end_to_end": detail.end_to_end,
        "sender": detail.sender,
        "sender_account": detail.sender_account,
        "structured": detail.structured,
        "remittance": detail.remittance or detail.note,
        "deducted": detail.deducted,
        "transfer_id": transfer_id,
        "state": "booked" if line.kind == "charge" else "suspense",
    }


def _credit(fresh: Sequence[_New], matches: Sequence[Match | Reason], ids: Mapping[bytes, int]) -> dict[bytes, Booked]:
    """Credit the lines that are matched."""
    found = [(new, whose) for new, whose in zip(fresh, matches, strict=True) if isinstance(whose, Match)]
    asked = [arrivals(ids[new.key], new.line.money, whose, new.line.detail.deducted) for new, whose in found]
    answers = iter(payments.take_in([each for several in asked for each in several]))
    outcomes = [[next(answers) for _ in several] for several in asked]
    done = {new.key: (whose, first) for (new, whose), (first, *_) in zip(found, outcomes, strict=True)}
    mark([(ids[new.key], first, whose.rule) for (new, whose), (first, *_) in zip(found, outcomes, strict=True) if isinstance(first, Credited)])
    _write_parts([(ids[new.key], whose, rest) for (new, whose), (_, *rest) in zip(found, outcomes, strict=True) if rest])
    return {new.key: _fate(new.line, whose, done.get(new.key)) for new, whose in zip(fresh, matches, strict=True)}


def credit_again(line_id: int) -> bool:
    """Credit a line in suspense by what it says, as when it was read; whether that could be done. Within a transaction, behind `known.lock`."""
    (row,) = db.rows(_KEPT, id=line_id)
    detail = Detail(
        amount=row.amount,
        end_to_end=row.end_to_end,
        sender=row.sender,
        sender_account=row.sender_account,
        structured=row.structured,
        remittance=row.remittance,
        deducted=row.deducted,
    )
    line = Line(row.account, row.currency, row.kind, row.booked_on, row.amount, row.bank_reference, detail)
    (whose,) = match([line])
    if isinstance(whose, Reason):
        return False
    first, *rest = payments.take_in(arrivals(line_id, line.money, whose, row.deducted))
    if isinstance(first, str):
        return False
    mark([(line_id, first, whose.rule)])
    _write_parts([(line_id, whose, rest)] if rest else [])
    return True


_KEPT = """
select account, currency, kind, booked_on, amount, bank_reference, end_to_end, sender,
  sender_account, structured, remittance, deducted
from bank_lines
where id = %(id)s
"""


def _fate(line: Line, whose: Match | Reason, done: tuple[Match, Credited | str] | None) -> Booked:
    if isinstance(whose, Reason):
        return Booked(line, "suspense", whose)
    if done is None or isinstance(done[1], Credited):
        return Booked(line, "matched")
    return Booked(line, "suspense", Reason(done[1]))


def arrivals(line_id: int, received: Money, whose: Match, deducted: int) -> list[Arrival]:
    """A matched line as `payments` takes it, one for each bill it pays. It counts as paid when we learn of it, which is also when its rate is taken."""
    now, owner = clock.now(), whose.customer_id
    first = Money(received.minor - sum(minor for _, minor in whose.parts), received.currency)
    others = [Arrival(f"bank:{line_id}:{bill}", owner, bill, Money(minor, received.currency), now) for bill, minor in whose.parts]
    return [Arrival(f"bank:{line_id}", owner, whose.bill_id, first, now, deducted), *others]


def _write_parts(several: Sequence[tuple[int, Match, Sequence[Credited | str]]]) -> None:
    """Which further payments a line is made of. Within a transaction."""
    rows: list[dict[str, object]] = []
    for line_id, whose, outcomes in several:
        for (bill_id, minor), outcome in zip(whose.parts, outcomes, strict=True):
            if isinstance(outcome, str):
                raise LedgerError(outcome)  # then none of its bills is paid
            rows.append({"line": line_id, "bill": bill_id, "payment": outcome.payment_id, "amount": minor})
    db.many(_PART, rows)


_PART = """
insert into bank_line_parts (line_id, bill_id, payment_id, amount)
values (%(line)s, %(bill)s, %(payment)s, %(amount)s)
"""


def mark(done: Sequence[tuple[int, Credited, str]], actor: str = "system", reason: str = "") -> None:
    """Write down whose the lines are and how that is known. Within a transaction."""
    rows = [{"id": line, "customer_id": found.customer_id, "bill_id": found.bill_id, "payment_id": found.payment_id, "rule": rule} for line, found, rule in done]
    db.execute(_MARK, rows=json.dumps(rows), actor=actor, reason=reason, now=clock.now())


_INSERT = """
insert into bank_lines (line_key, entry_key, entry_amount, entry_reference, names, transfers, part_of, account, booked_on, amount, currency, kind, bank_reference, end_to_end, sender, sender_account, structured,
  remittance, deducted, file, imported_at, transfer_id, state)
select decode(r.line_key, 'hex'), decode(r.entry_key, 'hex'), r.entry_amount, r.entry_reference, r.names, r.transfers, r.part_of, r.account, r.booked_on, r.amount, r.currency, r.kind, r.bank_reference, r.end_to_end, r.sender, r.sender_account,
  r.structured, r.remittance, r.deducted, %(file)s, %(now)s, r.transfer_id, r.state
from jsonb_to_recordset(%(rows)s::jsonb) as r (line_key text, entry_key text, entry_amount bigint, entry_reference text, names text[], transfers integer, part_of bigint, account text, booked_on date, amount bigint, currency text, kind text, bank_reference text,
  end_to_end text, sender text, sender_account text, structured text, remittance text, deducted bigint, transfer_id bigint, state text)
returning id, line_key
"""
_MARK = """
update bank_lines l set state = 'matched', rule = r.rule, actor = %(actor)s, reason = %(reason)s, reason_code = '', reason_values = '{}', customer_id = r.customer_id, bill_id = r.bill_id, payment_id = r.payment_id,
  matched_at = %(now)s
from jsonb_to_recordset(%(rows)s::jsonb) as r (id bigint, rule text, customer_id bigint, bill_id bigint, payment_id bigint) where l.id = r.id and l.state = 'suspense'
"""
