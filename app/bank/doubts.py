"""Lines that may be the same money as others: the ones that wait are not credited, and not sent back, before a person has said whether they are.

Money that turns out to be the same leaves suspense the way it came, ``suspense −, bank +``, so that the bank's balance in our books is the bank's own again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from app import approvals, clock, db, ledger
from app.bank import known, reasons
from app.money import Money


class DoubtError(ValueError):
    """What was said of a doubt cannot be so. `str()` is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A line of a doubt, in signed minor units; `waits` says that it is the one nobody was credited for."""

    id: int
    booked_on: date
    amount: int
    currency: str
    sender: str
    remittance: str
    state: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """An open question: whether the lines that wait are the same money as the others."""

    id: int
    lines: Sequence[Doubtful]

    @property
    def waiting(self) -> list[Doubtful]:
        """The lines that wait for the answer."""
        return [line for line in self.lines if line.waits]

    @property
    def others(self) -> list[Doubtful]:
        """The lines they may be the same as."""
        return [line for line in self.lines if not line.waits]


def of(line_id: int) -> Doubt | None:
    """The open doubt for which a line waits, if there is one."""
    row = db.row(_OPEN, line=line_id)
    return Doubt(row.id, [Doubtful(*line) for line in db.rows(_LINES, doubt=row.id)]) if row else None


def raise_for(doubtful: Sequence[tuple[int, Sequence[int], bool]]) -> None:
    """Open a doubt for new lines: each with the lines it may be the same as, and whether it is the new one that waits. Within a transaction."""
    groups: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for line_id, maybe, waits in doubtful:
        groups.setdefault((tuple(maybe), waits), []).append(line_id)
    for (maybe, waits), lines in groups.items():
        doubt = _begun(maybe, waits=waits) or db.rows("insert into bank_doubts (opened_at) values (%(now)s) returning id", now=clock.now())[0].id
        both = [*((line, waits) for line in lines), *((line, not waits) for line in maybe)]
        db.execute(_ADD, doubt=doubt, lines=[line for line, _ in both], waits=[side for _, side in both])
        if not waits:
            _explain(maybe, reasons.PERHAPS_SINGLES)


def _explain(lines: Sequence[int], why: reasons.Reason) -> None:
    """Write down why lines wait, of those that still do."""
    waiting = db.rows(_IN_SUSPENSE, ids=list(lines))
    reasons.write([(row.id, why) for row in waiting])


def _begun(maybe: Sequence[int], *, waits: bool) -> int | None:
    """The open doubt that lines of an earlier part of the file began for the same sum."""
    return db.scalar(_BEGUN, line=maybe[0], waits=not waits) if len(maybe) == 1 else None


def still_wait(lines: Sequence[int]) -> set[int]:
    """Which of these lines nobody was credited for and are not on their way back. Within a transaction."""
    return {row.id for row in db.rows(_STILL_WAIT, lines=list(lines))}


def are_two(line_id: int, *, actor: str, reason: str) -> str:
    """Say that a line is other money than what it may be; once a second person says so too, it waits like any other. Opens the transaction.

    What became of it, as a sentence. Raises DoubtError, NotAllowed.
    """
    _explained(actor, reason)
    with db.transaction():
        known.lock()
        found = of(line_id)
        if found is None:
            raise DoubtError(f"There is no doubt about line {line_id}.")
        said = approvals.approve(
            "bank.separate",
            "bank_doubt",
            found.id,
            about=line_id,
            actor=actor,
            needed=2,
            customers=concerned([line.id for line in found.lines]),
            reason=reason.strip()[:500],
        )
        if said.repeated:
            raise DoubtError("You have said so already. A second person must confirm this.")
        if not said.reached:
            return "Your decision is kept. A second person must confirm this."
        _decide(found.id, "two", said.by, reason)
        _explain([line.id for line in found.waiting], reasons.OTHER_MONEY)
    return "They are two. It waits for its customer now."


def is_same(line_id: int, others: Sequence[int] = (), *, actor: str, reason: str) -> str:
    """Say that a line in suspense is money that is booked already: as its doubt says, or as `others`. Opens the transaction.

    Every line that waits with it leaves suspense the way it came. Raises DoubtError where the amounts are not the same, NotAllowed.
    """
    _explained(actor, reason)
    with db.transaction():
        known.lock()
        found = _named(line_id, others) if others else of(line_id)
        if found is None:
            raise DoubtError(f"Say which lines {line_id} is the same money as.")
        _check(found)
        person = approvals.decide(
            "bank.same",
            line_id,
            actor=actor,
            customers=concerned([line.id for line in found.lines]),
            reason=reason.strip()[:500],
            details={"lines": [line.id for line in found.lines]},
        )
        approvals.withdraw("bank_doubt", found.id)
        for line in found.waiting:
            approvals.withdraw("bank_line", line.id)
            _undo(line, person.name)
        _decide(found.id, "same", person.name, reason)
    return f"{_sum(found.waiting)} counts once."


def concerned(lines: Sequence[int]) -> list[int]:
    """The customers whom lines are known to be about: who was credited for them, or for others of the same sender's account."""
    return [row.customer_id for row in db.rows(_CONCERNED, lines=list(lines))]


def _explained(actor: str, reason: str) -> None:
    if not actor.strip() or not reason.strip():
        raise DoubtError("Say who you are and how you know.")


def _named(line_id: int, others: Sequence[int]) -> Doubt:
    """A doubt that a person has, about these lines."""
    if (standing := of(line_id)) is not None:
        _decide(standing.id, "two", "system", "A person names other lines.")
        if rest := [line.id for line in standing.waiting if line.id != line_id]:  # of these nobody said anything
            raise_for([(line, [other.id for other in standing.others], True) for line in rest])
    if line_id in others or db.scalar("select count(*) from bank_lines where id = any(%(ids)s)", ids=[line_id, *others]) != 1 + len(set(others)):
        raise DoubtError("These lines are not in the books.")
    doubt = db.rows("insert into bank_doubts (opened_at) values (%(now)s) returning id", now=clock.now())[0].id
    db.execute(_ADD, doubt=doubt, lines=[line_id, *others], waits=[True, *(False for _ in others)])
    return Doubt(doubt, [Doubtful(*line) for line in db.rows(_LINES, doubt=doubt)])


def _check(found: Doubt) -> None:
    waiting, others = found.waiting, [line for line in found.others if line.state != "same"]
    if still_wait([line.id for line in waiting]) != {line.id for line in waiting}:
        raise DoubtError("Its money does not wait any more.")
    if db.scalar("select count(distinct account) from bank_lines where id = any(%(ids)s)", ids=[line.id for line in found.lines]) > 1:
        raise DoubtError("They are on different accounts.")
    if db.scalar("select exists (select from bank_lines where part_of is not null and id = any(%(ids)s))", ids=[line.id for line in waiting]):
        raise DoubtError("It is a part of a sum already.")
    if sum(line.amount for line in waiting) != sum(line.amount for line in others):
        raise DoubtError(f"It is not the same: {_sum(waiting)} here, {_sum(others) if others else 'nothing'} there.")


def _undo(line: Doubtful, actor: str) -> None:
    transfer = db.scalar("select transfer_id from bank_lines where id = %(id)s", id=line.id)
    ledger.reverse(transfer, f"bank:{line.id}:same", description="Told twice by the bank", actor=actor, posted_at=clock.now())
    db.execute(_SAME, id=line.id, why=reasons.SAME_MONEY.code)


def _decide(doubt_id: int, state: str, actor: str, reason: str) -> None:
    db.execute(_DECIDE, id=doubt_id, state=state, actor=actor.strip(), reason=reason.strip()[:500], now=clock.now())


def _sum(lines: Sequence[Doubtful]) -> Money:
    return Money(sum(line.amount for line in lines), lines[0].currency)


_IN_SUSPENSE = "select id from bank_lines where id = any(%(ids)s) and state = 'suspense'"
_SAME = """
update bank_lines
set state = 'same', rule = 'same', reason_code = %(why)s, reason_values = '{}'
where id = %(id)s
"""
_OPEN = """
select d.id from bank_doubts d join bank_doubt_lines w on w.doubt_id = d.id
where d.state = 'open' and w.waits and w.line_id = %(line)s order by d.id limit 1
"""
_BEGUN = """
select d.id from bank_doubts d join bank_doubt_lines w on w.doubt_id = d.id
where d.state = 'open' and w.line_id = %(line)s and w.waits = %(waits)s order by d.id limit 1
"""
_LINES = """
select l.id, l.booked_on, l.amount, l.currency, l.sender, l.remittance, l.state, w.waits from bank_doubt_lines w join bank_lines l on l.id = w.line_id
where w.doubt_id = %(doubt)s order by l.id
"""
_ADD = """
insert into bank_doubt_lines (doubt_id, line_id, waits)
select %(doubt)s, line, waits from unnest(%(lines)s::bigint[], %(waits)s::boolean[]) as n (line, waits) on conflict do nothing
"""
_STILL_WAIT = """
select id from bank_lines l where id = any(%(lines)s) and state = 'suspense'
  and not exists (select from bank_returns r where r.line_id = l.id and r.state in ('requested', 'approved'))
"""
_DECIDE = """
update bank_doubts set state = %(state)s, actor = %(actor)s, reason = %(reason)s, decided_at = %(now)s where id = %(id)s
"""
_CONCERNED = """
select distinct o.customer_id
from bank_lines l
join bank_lines o on o.id = l.id or (l.sender_account <> '' and o.sender_account = l.sender_account)
where l.id = any(%(lines)s)
  and o.customer_id is not null
"""
