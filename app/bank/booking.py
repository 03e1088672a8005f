"""Lines of the bank into the books: what arrived the moment it is read, whose it is as soon as that is known.

``bank −, suspense +`` for every line at once, so that the bank's balance in our books is the bank's own; then ``suspense −, wallet +`` for what is matched.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app import clock, db, ledger, payments, wallet
from app.bank.keys import Line
from app.bank.matching import Match, match
from app.money import Money
from app.payments import Arrival, Credited

OUTGOING = "Money that left the account."
NOTHING_RETURNED = "It takes back a transfer that cannot be found."


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of a line: matched, suspense, charge, returned or duplicate; `why` is the rule or the sentence why it waits."""

    line: Line
    fate: str
    why: str = ""


def lock() -> None:
    """One import at a time gets past this, until its transaction ends. Within a transaction."""
    db.rows("select pg_advisory_xact_lock(hashtextextended('bank lines', 0))")


def unknown(entries: Sequence[Sequence[Line]]) -> tuple[list[Line], list[Line]]:
    """The lines nobody has seen before, and those that are known already."""
    lines = [line for entry in entries for line in entry]
    keys, entry_keys = [line.key for line in lines], [line.entry_key for line in lines if line.entry_key]
    seen = {bytes(row[0]) for row in db.rows(_SEEN, keys=keys, entries=entry_keys)}
    known = [line for line in lines if line.key in seen or line.entry_key in seen]
    return [line for line in lines if line.key not in seen and line.entry_key not in seen], known


def book(lines: Sequence[Line], file: str) -> list[Booked]:
    """Book new lines and credit what can be matched; what became of each. Within a transaction, behind `lock`."""
    posted = ledger.post_many([_arrival(line) for line in lines])
    rows = [_row(line, transfer.transfer_id) for line, transfer in zip(lines, posted, strict=True)]
    ids = {bytes(row.line_key): row.id for row in db.rows(_INSERT, rows=json.dumps(rows), file=file, now=clock.now())}
    incoming = [line for line in lines if line.kind == "credit"]
    fates = {line.key: Booked(line, "charge") if line.kind == "charge" else Booked(line, "suspense", OUTGOING) for line in lines}
    fates |= {found.line.key: found for found in _credit(incoming, match(incoming), ids)}
    fates |= {found.line.key: found for line in lines if line.kind == "return" for found in [_return(line, ids[line.key])]}
    waiting = [found for found in fates.values() if found.fate == "suspense"]
    db.execute(_EXPLAIN, ids=[ids[found.line.key] for found in waiting], reasons=[found.why for found in waiting])
    return [fates[line.key] for line in lines]


def _arrival(line: Line) -> ledger.Posting:
    """`bank −, suspense +`; what the bank took for itself is a fee at once."""
    fee = line.kind == "charge"
    other = ledger.account("fees", line.currency, key="bank") if fee else _suspense(line.currency)
    lines = [(ledger.account("bank", line.currency, key=line.account), -line.amount), (other, line.amount)]
    return ledger.Posting(f"bank:{line.key.hex()}", "fee" if fee else "arrived", lines, f"Booked by the bank on {line.booked_on}", posted_at=clock.now())


def _suspense(currency: str) -> int:
    return ledger.account("suspense", currency, key=payments.SUSPENSE)


def _row(line: Line, transfer_id: int) -> dict[str, object]:
    detail = line.detail
    return {
        "line_key": line.key.hex(),
        "entry_key": line.entry_key.hex() if line.entry_key else None,
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
        "remittance": detail.remittance,
        "deducted": detail.deducted,
        "transfer_id": transfer_id,
        "state": "booked" if line.kind == "charge" else "suspense",
    }


def _credit(lines: Sequence[Line], matches: Sequence[Match | str], ids: Mapping[bytes, int]) -> list[Booked]:
    """Credit the lines that are matched."""
    found = [(line, whose) for line, whose in zip(lines, matches, strict=True) if isinstance(whose, Match)]
    arrivals = [arrival(ids[line.key], line.money, whose, line.detail.deducted) for line, whose in found]
    outcomes = payments.take_in(arrivals)
    done = {line.key: (whose, outcome) for (line, whose), outcome in zip(found, outcomes, strict=True)}
    mark([(ids[line.key], outcome, whose.rule) for (line, whose), outcome in zip(found, outcomes, strict=True) if isinstance(outcome, Credited)])
    return [_fate(line, whose, done.get(line.key)) for line, whose in zip(lines, matches, strict=True)]


def _fate(line: Line, whose: Match | str, done: tuple[Match, Credited | str] | None) -> Booked:
    if isinstance(whose, str) or done is None:
        return Booked(line, "suspense", str(whose))
    outcome = done[1]
    return Booked(line, "suspense", outcome) if isinstance(outcome, str) else Booked(line, "matched", whose.rule)


def arrival(line_id: int, received: Money, whose: Match, deducted: int) -> Arrival:
    """A matched line as `payments` takes it. It counts as paid when we learn of it, which is also when its rate is taken."""
    return Arrival(f"bank:{line_id}", whose.customer_id, whose.bill_id, received, clock.now(), deducted)


def mark(done: Sequence[tuple[int, Credited, str]], actor: str = "system", reason: str = "") -> None:
    """Write down whose the lines are and how that is known. Within a transaction."""
    rows = [{"id": line, "customer_id": found.customer_id, "bill_id": found.bill_id, "payment_id": found.payment_id, "rule": rule} for line, found, rule in done]
    db.execute(_MARK, rows=json.dumps(rows), actor=actor, reason=reason, now=clock.now())


def _return(line: Line, line_id: int) -> Booked:
    """A transfer was taken back: so is its credit, down to nothing; what is missing then is a debt."""
    original = db.row(_ORIGINAL, account=line.account, amount=-line.amount, end_to_end=line.detail.end_to_end, bank_reference=line.bank_reference, own=line_id,
                      sender_account=line.detail.sender_account, text=line.detail.structured or line.detail.remittance)  # fmt: skip
    if original is None:
        return Booked(line, "suspense", NOTHING_RETURNED)
    if original.state == "matched":
        _take_back(line, line_id, original)
    db.execute("update bank_lines set state = %(state)s, returned_by = %(own)s where id = %(id)s", state="returned" if original.state == "matched" else "booked",
               own=line_id, id=original.id)  # fmt: skip
    db.execute("update bank_lines set state = 'booked', rule = 'return', customer_id = %(customer)s, bill_id = %(bill)s, payment_id = %(payment)s where id = %(id)s",
               customer=original.customer_id, bill=original.bill_id, payment=original.payment_id, id=line_id)  # fmt: skip
    return Booked(line, "returned")


def _take_back(line: Line, line_id: int, original: db.Row) -> None:
    credited, received = Money(original.credited, original.credited_currency), -line.money
    counter = [(_suspense(received.currency), received.minor)]
    if credited.currency != received.currency:
        counter += [(ledger.account("fx", credited.currency), credited.minor), (ledger.account("fx", received.currency), -received.minor)]
    wallet.seize(
        original.customer_id, original.lot_id, credited, reference=f"bank:{line_id}:return", counter=counter, kind="reversal", description="Bank transfer taken back",
        payment_id=original.payment_id,
    )  # fmt: skip
    payments.restate(original.payment_id, returned=credited.minor, disputed=False, text=f"The sender's bank took {received} back.")


_SEEN = """
select line_key from bank_lines where line_key = any(%(keys)s)
union all select entry_key from bank_lines where entry_key = any(%(entries)s)
"""
_INSERT = """
insert into bank_lines (line_key, entry_key, account, booked_on, amount, currency, kind, bank_reference, end_to_end, sender, sender_account, structured, remittance, deducted,
  file, imported_at, transfer_id, state)
select decode(r.line_key, 'hex'), decode(r.entry_key, 'hex'), r.account, r.booked_on, r.amount, r.currency, r.kind, r.bank_reference, r.end_to_end, r.sender, r.sender_account,
  r.structured, r.remittance, r.deducted, %(file)s, %(now)s, r.transfer_id, r.state
from jsonb_to_recordset(%(rows)s::jsonb) as r (line_key text, entry_key text, account text, booked_on date, amount bigint, currency text, kind text, bank_reference text,
  end_to_end text, sender text, sender_account text, structured text, remittance text, deducted bigint, transfer_id bigint, state text)
returning id, line_key
"""
_EXPLAIN = """
update bank_lines l set reason = g.reason from unnest(%(ids)s::bigint[], %(reasons)s::text[]) as g (id, reason) where l.id = g.id
"""
_MARK = """
update bank_lines l set state = 'matched', rule = r.rule, actor = %(actor)s, reason = %(reason)s, customer_id = r.customer_id, bill_id = r.bill_id, payment_id = r.payment_id,
  matched_at = %(now)s
from jsonb_to_recordset(%(rows)s::jsonb) as r (id bigint, rule text, customer_id bigint, bill_id bigint, payment_id bigint) where l.id = r.id and l.state = 'suspense'
"""
# The newest transfer of this amount that the return names: by the payer's reference, by the bank's, or by sender and text.
_ORIGINAL = """
select l.id, l.state, l.customer_id, l.bill_id, l.payment_id, p.credited, p.credited_currency, t.id as lot_id
from bank_lines l left join payments p on p.id = l.payment_id left join lots t on t.payment_id = l.payment_id
where l.account = %(account)s and l.amount = %(amount)s and l.kind = 'credit' and l.state in ('matched', 'suspense') and l.returned_by is null and l.id <> %(own)s
  and ((%(end_to_end)s <> '' and l.end_to_end = %(end_to_end)s)
    or (%(bank_reference)s <> '' and l.bank_reference = %(bank_reference)s)
    or (%(sender_account)s <> '' and l.sender_account = %(sender_account)s and %(text)s <> '' and (l.structured = %(text)s or l.remittance = %(text)s)))
order by l.id desc limit 1
"""
