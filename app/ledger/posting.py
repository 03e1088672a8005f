"""Writing the books: one transfer is one statement, one round trip; a batch of them too."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors

from app import clock, db
from app.ledger.filter import KINDS

Line = tuple[int, int]
"""One line of a transfer: account id and signed amount in minor units."""

TRACKED = frozenset({"wallet", "bonus", "hold", "debt"})
"""Kinds whose balance, sequence and hash chain stand on the account row. All others are written by many at once and are summed when asked."""

FLOORED = frozenset({"wallet", "bonus", "hold"})
"""Kinds that can never fall below zero."""

_system_accounts: dict[tuple[str, str, str], int] = {}


class LedgerError(RuntimeError):
    """The books refused: unbalanced, unknown account, or a reference that already stands for something else."""


class InsufficientFunds(Exception):
    """A wallet, bonus or hold would fall below zero. Nothing was taken."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A transfer to be written: `lines` sum to zero in each currency; `reference` is its idempotency key."""

    reference: str
    kind: str
    lines: Sequence[Line]
    description: str = ""
    actor: str = "system"
    posted_at: datetime | None = None
    payment_id: int | None = None
    bill_id: int | None = None
    service_id: int | None = None
    refund_id: int | None = None
    reverses: int | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """A transfer in the books; `balances` are the new balances of its tracked accounts, `replayed` that it already stood there."""

    transfer_id: int
    replayed: bool
    balances: Mapping[int, int]


def account(kind: str, currency: str, *, customer_id: int | None = None, key: str = "") -> int:
    """The id of an account, opened when it is not there yet. Opening needs a transaction."""
    known = _system_accounts.get((kind, key, currency)) if customer_id is None else None
    return known or _open(kind, currency, customer_id, key)


def accounts(customer_id: int, currency: str) -> tuple[int, int, int]:
    """A customer's wallet, bonus and hold in one currency, opened when they are not there yet. Within a transaction."""
    found = {row.kind: row.id for row in db.rows(_OWN, customer_id=customer_id, currency=currency)}
    ids = [found.get(kind) or _open(kind, currency, customer_id, "") for kind in ("wallet", "bonus", "hold")]
    return ids[0], ids[1], ids[2]


def forget_accounts() -> None:
    """Forget the ids of system accounts, after the tables were emptied beneath a running process."""
    _system_accounts.clear()


def lock(account_ids: Iterable[int]) -> dict[int, int]:
    """Lock tracked accounts in id order until the transaction ends; their balances. Within a transaction."""
    return {row.id: row.balance for row in db.rows("select id, balance from lock_accounts(%(ids)s)", ids=sorted(set(account_ids)))}


def post(
    reference: str,
    kind: str,
    entries: Sequence[Line],
    *,
    description: str = "",
    actor: str = "system",
    posted_at: datetime | None = None,
    payment_id: int | None = None,
    bill_id: int | None = None,
    service_id: int | None = None,
    refund_id: int | None = None,
    reverses: int | None = None,
) -> Posted:
    """Write one transfer, in one round trip. Within a transaction.

    Lines on the same account become one entry. The same reference with the same content is the same transfer back (`replayed`); with
    another kind, other lines or links it raises LedgerError. Raises InsufficientFunds where a floor would be broken, LedgerError where
    the lines do not balance; either leaves the transaction fit only to be rolled back.
    """
    return _post(Posting(reference, kind, entries, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses))


def post_many(postings: Sequence[Posting]) -> list[Posted]:
    """Write many transfers in one statement, all or none, in the order given. Within a transaction.

    Every tracked account of the batch is locked in id order first, so batches of several clients queue instead of deadlocking.
    Raises as `post` does. Chunks of about a thousand are fastest.
    """
    lines = [_lines(posting) for posting in postings]
    lock({account_id for merged in lines for account_id in merged})
    with _refusals():
        written = db.rows(_POST_MANY, **_batch_params(postings, lines))
    by_reference = defaultdict(list)
    for row in written:
        by_reference[row.reference].append(row)
    return [_posted(by_reference[posting.reference]) if posting.reference in by_reference else _replay(posting) for posting in postings]


def find(reference: str) -> Posted | None:
    """The transfer that stands under a reference, as a replay of it would return it."""
    standing = db.rows(_REPLAY, reference=reference)
    return Posted(standing[0].id, replayed=True, balances=_balances(standing)) if standing else None


def reverse(transfer_id: int, reference: str, *, description: str, actor: str, kind: str = "reversal", posted_at: datetime | None = None) -> Posted:
    """Write the mirror of a transfer. Within a transaction.

    A transfer is reversed at most once: again by the same reference is a replay, by another raises LedgerError.
    """
    original = db.row("select kind, payment_id, bill_id, service_id, refund_id from transfers where id = %(id)s", id=transfer_id)
    if original is None:
        raise LedgerError(f"transfer {transfer_id} does not exist")
    lines = [(row.account_id, -row.amount) for row in db.rows(_LINES, id=transfer_id)]
    return _post(
        Posting(
            reference, kind, lines, description, actor, posted_at,
            original.payment_id, original.bill_id, original.service_id, original.refund_id, reverses=transfer_id,
        )
    )  # fmt: skip


_OWN = "select kind, id from accounts where customer_id = %(customer_id)s and currency = %(currency)s and key = ''"

_LINES = "select account_id, amount from entries where transfer_id = %(id)s order by account_id, seq"

_FIND = """
select id, xmin = pg_current_xact_id_if_assigned()::xid as fresh from accounts
where kind = %(kind)s and customer_id is not distinct from %(customer_id)s and key = %(key)s and currency = %(currency)s
"""

_OPEN = """
insert into accounts (kind, customer_id, key, currency, tracked, floor)
values (%(kind)s, %(customer_id)s, %(key)s, %(currency)s, %(tracked)s, %(floor)s)
on conflict (kind, customer_id, key, currency) do nothing
"""

_POST = """
with posted as (
  insert into transfers (reference, kind, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses)
  values (%(reference)s, %(kind)s, %(description)s, %(actor)s, %(posted_at)s, %(payment_id)s, %(bill_id)s, %(service_id)s, %(refund_id)s, %(reverses)s)
  on conflict (reference) do nothing
  returning id
)
insert into entries (account_id, transfer_id, amount)
select line.account_id, posted.id, line.amount
from posted, unnest(%(accounts)s::bigint[], %(amounts)s::bigint[]) as line (account_id, amount)
order by line.account_id
returning transfer_id, account_id, amount, currency, balance_after
"""

_POST_MANY = """
with given as (
  select * from unnest(
    %(references)s::text[], %(kinds)s::text[], %(descriptions)s::text[], %(actors)s::text[], %(times)s::timestamptz[],
    %(payments)s::bigint[], %(bills)s::bigint[], %(services)s::bigint[], %(refunds)s::bigint[], %(reversed)s::bigint[]
  ) with ordinality as g (reference, kind, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses, place)
), posted as (
  insert into transfers (reference, kind, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses)
  select reference, kind, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses from given order by place
  on conflict (reference) do nothing
  returning id, reference
), written as (
  insert into entries (account_id, transfer_id, amount)
  select line.account_id, posted.id, line.amount
  from unnest(%(of)s::text[], %(accounts)s::bigint[], %(amounts)s::bigint[]) as line (reference, account_id, amount)
  join posted using (reference)
  order by line.account_id, posted.id
  returning transfer_id, account_id, amount, currency, balance_after
)
select posted.reference, written.* from written join posted on posted.id = written.transfer_id
"""

_REPLAY = """
select t.id, t.kind, t.payment_id, t.bill_id, t.service_id, t.refund_id, t.reverses, e.account_id, e.amount, e.balance_after
from transfers t join entries e on e.transfer_id = t.id
where t.reference = %(reference)s
"""


def _open(kind: str, currency: str, customer_id: int | None, key: str) -> int:
    natural = {"kind": kind, "customer_id": customer_id, "key": key, "currency": currency}
    found = db.row(_FIND, **natural)
    if found is None:
        db.execute(_OPEN, **natural, tracked=kind in TRACKED, floor=0 if kind in FLOORED else None)
        found = db.rows(_FIND, **natural)[0]
    if customer_id is None and not found.fresh:  # what this transaction opened may still be rolled back
        _system_accounts[kind, key, currency] = found.id
    return int(found.id)


def _post(posting: Posting) -> Posted:
    lines = _lines(posting)
    with _refusals():
        written = db.rows(
            _POST,
            reference=posting.reference,
            kind=posting.kind,
            description=posting.description,
            actor=posting.actor,
            posted_at=posting.posted_at or clock.now(),
            payment_id=posting.payment_id,
            bill_id=posting.bill_id,
            service_id=posting.service_id,
            refund_id=posting.refund_id,
            reverses=posting.reverses,
            accounts=list(lines),
            amounts=list(lines.values()),
        )
    return _posted(written) if written else _replay(posting)


def _lines(posting: Posting) -> dict[int, int]:
    if posting.kind not in KINDS or not posting.reference:
        raise LedgerError(f"a transfer has a reference and a kind, not {posting.reference!r} and {posting.kind!r}")
    return _merged(posting.lines)


def _merged(lines: Iterable[Line]) -> dict[int, int]:
    merged: dict[int, int] = defaultdict(int)
    for account_id, amount in lines:
        merged[account_id] += amount
    kept = {account_id: amount for account_id, amount in merged.items() if amount}
    if len(kept) < 2:
        raise LedgerError("a transfer has at least two lines that are not zero")
    return kept


def _posted(written: Sequence[db.Row]) -> Posted:
    sums: dict[str, int] = defaultdict(int)
    for row in written:
        sums[row.currency] += row.amount
    if any(sums.values()):  # the database would say so at commit; here the caller learns it while the stack still shows who asked
        raise LedgerError(f"the lines do not sum to zero: {dict(sums)}")
    return Posted(written[0].transfer_id, replayed=False, balances=_balances(written))


def _balances(written: Iterable[db.Row]) -> dict[int, int]:
    return {row.account_id: row.balance_after for row in written if row.balance_after is not None}


def _replay(posting: Posting) -> Posted:
    standing = db.rows(_REPLAY, reference=posting.reference)
    if not standing:
        raise LedgerError(f"{posting.reference} was neither written nor found")
    first = standing[0]
    known = (first.kind, first.payment_id, first.bill_id, first.service_id, first.refund_id, first.reverses)
    asked = (posting.kind, posting.payment_id, posting.bill_id, posting.service_id, posting.refund_id, posting.reverses)
    if known != asked or {row.account_id: row.amount for row in standing} != _merged(posting.lines):
        raise LedgerError(f"{posting.reference} already stands in the books with other content")
    return Posted(first.id, replayed=True, balances=_balances(standing))


def _batch_params(postings: Sequence[Posting], lines: Sequence[Mapping[int, int]]) -> dict[str, object]:
    now = clock.now()
    flat = [(posting.reference, account_id, amount) for posting, merged in zip(postings, lines, strict=True) for account_id, amount in merged.items()]
    return {
        "references": [posting.reference for posting in postings],
        "kinds": [posting.kind for posting in postings],
        "descriptions": [posting.description for posting in postings],
        "actors": [posting.actor for posting in postings],
        "times": [posting.posted_at or now for posting in postings],
        "payments": [posting.payment_id for posting in postings],
        "bills": [posting.bill_id for posting in postings],
        "services": [posting.service_id for posting in postings],
        "refunds": [posting.refund_id for posting in postings],
        "reversed": [posting.reverses for posting in postings],
        "of": [reference for reference, _, _ in flat],
        "accounts": [account_id for _, account_id, _ in flat],
        "amounts": [amount for _, _, amount in flat],
    }


@contextmanager
def _refusals() -> Iterator[None]:
    """Say the database's refusals in the house's words."""
    try:
        yield
    except errors.CheckViolation as refusal:
        if refusal.diag.constraint_name == "accounts_floor":
            raise InsufficientFunds("There is not enough money for this.") from refusal
        raise LedgerError(str(refusal)) from refusal
    except (errors.IntegrityConstraintViolation, errors.UniqueViolation, errors.ForeignKeyViolation, errors.NumericValueOutOfRange) as refusal:
        raise LedgerError(str(refusal)) from refusal
