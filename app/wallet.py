"""A customer's money: the wallet, the bonus, what is on hold, and the lots that say which payment each cent came from.

Every verb needs an open transaction, moves money by one ledger transfer and keeps the lots beside it: the sum of what remains in the
lots of an account is the account's balance, always. The account's row lock, held by the transfer until the transaction ends, is what
makes one customer's movements queue.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import clock, db, ledger
from app.ledger import Filter, InsufficientFunds, Posted
from app.money import Money

Counter = Sequence[tuple[int, int]]
"""The other side of a movement: account ids and signed minor units."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """What a customer has, in minor units of `currency` (None before one is chosen).

    `version` rises with every movement; `account_id` is the wallet's, None before the first one.
    """

    available: int
    bonus: int
    on_hold: int
    currency: str | None
    version: int
    account_id: int | None = None


@dataclass(frozen=True, slots=True)
class Movement(ledger.Movement):
    """One movement of a wallet as its customer reads it: with the document it belongs to and how it was paid."""

    document: str | None
    method: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Movements, newest first, and the `before` of the next page, None on the last one."""

    rows: list[Movement]
    next: int | None


@dataclass(frozen=True, slots=True)
class Lot:
    """One credit and what is left of it, in minor units; `paid` is what the customer paid for it, in the currency paid."""

    id: int
    transfer_id: int
    payment_id: int | None
    kind: str
    paid: int
    paid_currency: str
    credited: int
    remaining: int
    currency: str
    created_at: datetime
    expires_at: datetime | None
    frozen_reason: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Spent:
    """A charge: where the money came from, in minor units."""

    transfer_id: int
    replayed: bool
    from_bonus: int
    from_balance: int


def state(customer_id: int) -> Wallet:
    """What a customer has in the account currency."""
    row = db.row(_STATE, customer_id=customer_id, now=clock.now())
    return Wallet(*row) if row else Wallet(0, 0, 0, None, 0)


def histories(customer_id: int, currency: str) -> dict[str, int]:
    """The accounts on which anything ever moved: ``wallet``, ``bonus``, ``hold`` and their ids, for `movements` and the others below."""
    return {row.kind: row.id for row in db.rows(_HISTORIES, customer_id=customer_id, currency=currency)}


def lots(customer_id: int) -> list[Lot]:
    """Every lot of a customer, newest first."""
    return [Lot(*row) for row in db.rows(_LOTS, customer_id=customer_id)]


def movements(account_id: int, asked: Filter = Filter(), before: int | None = None, limit: int = 50) -> Page:  # noqa: B008 - a value, frozen
    """One page of a wallet's movements with a sequence number below `before`; `account_id` is that of `state`."""
    where, params = ledger.conditions(asked, before, _SEARCHED)
    found = db.rows(f"{_MOVEMENTS}{where} order by e.seq desc limit %(limit)s", account_id=account_id, limit=limit + 1, **params)
    rows = [Movement(*row) for row in found[:limit]]
    return Page(rows, rows[-1].seq if len(found) > limit else None)


def export(account_id: int, asked: Filter = Filter()) -> Iterator[Movement]:  # noqa: B008
    """Every movement that `movements` would show over all its pages, newest first, in bounded memory."""
    where, params = ledger.conditions(asked, None, _SEARCHED)
    for row in db.stream(f"{_MOVEMENTS}{where} order by e.seq desc", 5_000, account_id=account_id, **params):
        yield Movement(*row)


def totals(account_id: int, asked: Filter = Filter()) -> ledger.Totals:  # noqa: B008
    """Count and sums of what `movements` shows over all its pages; in constant time when only days are asked for."""
    if asked.only_days:
        return ledger.totals(account_id, asked)
    where, params = ledger.conditions(asked, None, _SEARCHED)
    return ledger.Totals(*db.rows(_SUMS + where, account_id=account_id, **params)[0])


def credit(
    customer_id: int,
    amount: Money,
    *,
    reference: str,
    kind: str,
    counter: Counter,
    payment_id: int | None = None,
    paid: Money | None = None,
    description: str = "",
    actor: str = "system",
    bill_id: int | None = None,
    posted_at: datetime | None = None,
    note: str = "",
) -> Posted:
    """Put real money on the wallet as a new lot; `paid` (else `amount`) is what the customer gave for it.

    `counter` sums to minus `amount` in its currency and to zero in any other. Raises LedgerError.
    """
    wallet, _, _ = ledger.accounts(customer_id, amount.currency)
    lines = [(wallet, _positive(amount)), *counter]
    links = {"payment_id": payment_id, "bill_id": bill_id}
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=posted_at, **links)
    if not posted.replayed:
        _open_lot(wallet, customer_id, posted, amount, kind="payment" if payment_id else "correction", paid=paid or amount, payment_id=payment_id, note=note)
    return posted


def spend(
    customer_id: int,
    amount: Money,
    *,
    reference: str,
    counter: Counter,
    kind: str = "charge",
    description: str = "",
    actor: str = "system",
    bill_id: int | None = None,
    service_id: int | None = None,
    posted_at: datetime | None = None,
) -> Spent:
    """Take money: bonus first, the soonest to expire before the others, then the lots, oldest first.

    `counter` sums to `amount`. Raises InsufficientFunds before anything is taken, the transaction still fit for use.
    """
    wallet, bonus, _ = ledger.accounts(customer_id, amount.currency)
    ledger.lock((wallet, bonus))
    at = posted_at or clock.now()
    have = db.rows(_SPENDABLE, wallet=wallet, bonus=bonus, at=at, reference=reference)[0]
    if have.standing is not None:
        return _spent_before(have.standing, wallet, bonus, amount)
    from_bonus = min(have.bonus, _positive(amount))
    from_balance = amount.minor - from_bonus
    if from_balance > have.balance:
        raise InsufficientFunds(f"{amount} is more than the balance.")
    lines = [(bonus, -from_bonus), (wallet, -from_balance), *counter]
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=at, bill_id=bill_id, service_id=service_id)
    _allocate(_FROM_BONUS, posted, bonus, from_bonus, at)
    _allocate(_FROM_LOTS, posted, wallet, from_balance, at)
    return Spent(posted.transfer_id, posted.replayed, from_bonus, from_balance)


@dataclass(frozen=True, slots=True)
class Spend:
    """One charge among many: `counter` sums to `amount`, which is in the customer's account currency."""

    customer_id: int
    amount: Money
    reference: str
    counter: Counter
    kind: str = "charge"
    description: str = ""
    actor: str = "system"
    bill_id: int | None = None
    service_id: int | None = None


def lock_spendable(customer_ids: Iterable[int]) -> dict[int, int]:
    """What each customer can spend in the account currency, bonus and balance, in minor units, locked until the transaction ends."""
    purses = _purses(customer_ids, None)
    ledger.lock(account_id for purse in purses.values() for account_id in (purse.wallet, purse.bonus))
    queues = _queues(purses.values(), clock.now())
    return {customer_id: sum(lot[1] for account_id in (purse.bonus, purse.wallet) for lot in queues[account_id]) for customer_id, purse in purses.items()}


def spend_many(spends: Sequence[Spend]) -> list[Spent]:
    """`spend` for many charges in six statements, in their order, all or none. A reference that stands already raises LedgerError."""
    if not spends:
        return []
    at = clock.now()
    purses = _purses({spend.customer_id for spend in spends}, {spend.customer_id: spend.amount.currency for spend in spends})
    ledger.lock(account_id for purse in purses.values() for account_id in (purse.wallet, purse.bonus))
    queues = _queues(purses.values(), at)
    taken = [_take(queues, purses[spend.customer_id], spend.amount) for spend in spends]
    posted = ledger.post_many([_posting(spend, purses[spend.customer_id], part, at) for spend, part in zip(spends, taken, strict=True)])
    if any(transfer.replayed for transfer in posted):
        raise ledger.LedgerError("one of these charges was made before")
    parts = [(lot_id, transfer.transfer_id, amount) for transfer, (lots_taken, _) in zip(posted, taken, strict=True) for lot_id, amount in lots_taken]
    db.execute(_ALLOCATE_MANY, lots=[part[0] for part in parts], transfers=[part[1] for part in parts], amounts=[part[2] for part in parts])
    return [
        Spent(transfer.transfer_id, replayed=False, from_bonus=from_bonus, from_balance=spend.amount.minor - from_bonus)
        for spend, transfer, (_, from_bonus) in zip(spends, posted, taken, strict=True)
    ]


def _purses(customer_ids: Iterable[int], currencies: Mapping[int, str] | None) -> dict[int, db.Row]:
    """Wallet and bonus accounts of each customer; opened where they are missing."""
    ids = sorted(customer_ids)
    found = {row.customer_id: row for row in db.rows(_PURSES, ids=ids)}
    missing = [row for row in found.values() if row.currency and not (row.wallet and row.bonus)]
    for row in missing:
        ledger.accounts(row.customer_id, row.currency)
    if missing:
        found = {row.customer_id: row for row in db.rows(_PURSES, ids=ids)}
    for customer_id in ids:
        if currencies and found[customer_id].currency != currencies[customer_id]:
            raise ledger.LedgerError(f"customer {customer_id} pays in {found[customer_id].currency}, not in {currencies[customer_id]}")
    return found


def _queues(purses: Iterable[db.Row], at: datetime) -> dict[int | None, list[list[int]]]:
    """For each account its open lots as [id, remaining], in the order they are spent."""
    accounts = [account_id for purse in purses for account_id in (purse.wallet, purse.bonus)]
    queues: dict[int | None, list[list[int]]] = {account_id: [] for account_id in accounts}
    for lot in db.rows(_OPEN_LOTS, accounts=accounts, at=at):
        queues[lot.account_id].append([lot.id, lot.remaining])
    return queues


def _take(queues: dict[int | None, list[list[int]]], purse: db.Row, amount: Money) -> tuple[list[tuple[int, int]], int]:
    """The parts of lots that pay an amount, and how much of it is bonus; the queues shrink by it."""
    parts, left, from_bonus = [], _positive(amount), 0
    for account_id in (purse.bonus, purse.wallet):
        for lot in queues[account_id]:
            part = min(lot[1], left)
            if part:
                lot[1] -= part
                left -= part
                parts.append((lot[0], part))
        if account_id == purse.bonus:
            from_bonus = amount.minor - left
    if left:
        raise InsufficientFunds(f"{amount} is more than the balance.")
    return parts, from_bonus


def _posting(spend: Spend, purse: db.Row, taken: tuple[list[tuple[int, int]], int], at: datetime) -> ledger.Posting:
    from_bonus = taken[1]
    lines = [(purse.bonus, -from_bonus), (purse.wallet, from_bonus - spend.amount.minor), *spend.counter]
    return ledger.Posting(spend.reference, spend.kind, lines, spend.description, spend.actor, at, bill_id=spend.bill_id, service_id=spend.service_id)


def restore(transfer_id: int, reference: str, *, kind: str = "charge_refund", description: str = "", actor: str = "system", posted_at: datetime | None = None) -> Posted:
    """Undo a charge or any other taking: the mirrored transfer, and each lot gets back exactly what it gave."""
    posted = ledger.reverse(transfer_id, reference, description=description, actor=actor, kind=kind, posted_at=posted_at)
    if not posted.replayed:
        db.execute(_RESTORE, taken_by=transfer_id, transfer_id=posted.transfer_id)
    return posted


def hold(
    customer_id: int,
    lot_id: int,
    amount: Money,
    *,
    reference: str,
    kind: str = "refund_requested",
    description: str = "",
    actor: str = "system",
    refund_id: int | None = None,
    payment_id: int | None = None,
    posted_at: datetime | None = None,
) -> Posted:
    """Move money of one lot from the wallet to hold, so that it cannot be spent while a refund of its payment is in flight.

    Raises InsufficientFunds when the lot has less left or is frozen, before anything is taken.
    """
    wallet, _, held = ledger.accounts(customer_id, amount.currency)
    ledger.lock((wallet, held))
    links = {"refund_id": refund_id, "payment_id": payment_id}
    standing = db.scalar("select id from transfers where reference = %(reference)s", reference=reference)
    free = db.scalar(_FREE_IN_LOT, lot_id=lot_id, account_id=wallet)
    if not standing and (free or 0) < _positive(amount):
        raise InsufficientFunds(f"{amount} is more than is left of this payment.")
    lines = [(wallet, -amount.minor), (held, amount.minor)]
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=posted_at, **links)
    if not posted.replayed:
        db.execute(_FROM_LOT, lot_id=lot_id, transfer_id=posted.transfer_id, amount=amount.minor)
    return posted


def release(transfer_id: int, reference: str, *, kind: str = "refund_failed", description: str = "", actor: str = "system", posted_at: datetime | None = None) -> Posted:
    """Give held money back to the wallet and to the lot it came from; `transfer_id` is that of `hold`. At most once."""
    return restore(transfer_id, reference, kind=kind, description=description, actor=actor, posted_at=posted_at)


def pay_out(
    customer_id: int,
    amount: Money,
    *,
    reference: str,
    counter: Counter,
    kind: str = "refund_sent",
    description: str = "",
    actor: str = "system",
    refund_id: int | None = None,
    payment_id: int | None = None,
    posted_at: datetime | None = None,
) -> Posted:
    """Held money leaves the house: `counter` (the gateway or bank it leaves by) sums to `amount`. Raises InsufficientFunds."""
    _, _, held = ledger.accounts(customer_id, amount.currency)
    links = {"refund_id": refund_id, "payment_id": payment_id}
    return ledger.post(reference, kind, [(held, -_positive(amount)), *counter], description=description, actor=actor, posted_at=posted_at, **links)


def seize(
    customer_id: int, lot_id: int, amount: Money, *, reference: str, counter: Counter, kind: str = "dispute_opened", description: str = "", payment_id: int | None = None
) -> Posted:
    """Take money whether it is there or not: from the lot it concerns, then the others, oldest first; what is missing becomes debt.

    `counter` sums to `amount`. Bonus is left alone.
    """
    wallet, _, _ = ledger.accounts(customer_id, amount.currency)
    debt = ledger.account("debt", amount.currency, customer_id=customer_id)
    from_balance = min(ledger.lock((wallet, debt))[wallet], _positive(amount))
    lines = [(wallet, -from_balance), (debt, from_balance - amount.minor), *counter]
    posted = ledger.post(reference, kind, lines, description=description, payment_id=payment_id)
    if not posted.replayed:
        own = min(from_balance, db.scalar("select remaining from lots where id = %(lot_id)s", lot_id=lot_id))
        if own:
            db.execute(_FROM_LOT, lot_id=lot_id, transfer_id=posted.transfer_id, amount=own)
        _allocate(_FROM_LOTS, posted, wallet, from_balance - own, clock.now())
    return posted


def freeze(lot_id: int, reason: str | None) -> None:
    """Keep what is left of a lot from being refunded, and say why; None lets it go again."""
    db.execute("update lots set frozen_reason = %(reason)s where id = %(lot_id)s", lot_id=lot_id, reason=reason)


def grant_bonus(
    customer_id: int,
    amount: Money,
    *,
    reference: str,
    description: str = "",
    actor: str = "system",
    expires_at: datetime | None = None,
    posted_at: datetime | None = None,
) -> Posted:
    """Give promotional money, spendable until `expires_at`, never paid out."""
    _, bonus, _ = ledger.accounts(customer_id, amount.currency)
    lines = [(bonus, _positive(amount)), (ledger.account("promotions", amount.currency), -amount.minor)]
    posted = ledger.post(reference, "bonus", lines, description=description, actor=actor, posted_at=posted_at)
    if not posted.replayed:
        _open_lot(bonus, customer_id, posted, amount, kind="bonus", paid=Money(0, amount.currency), expires_at=expires_at, note=description)
    return posted


def expired_bonuses() -> list[int]:
    """Lots of bonus whose time is over and that are not used up."""
    return [row.id for row in db.rows(_EXPIRED, at=clock.now())]


def expire_bonus(lot_id: int, *, actor: str = "system") -> Posted | None:
    """Take back what is left of an expired bonus; None when nothing is left or its time is not over."""
    found = db.row(_EXPIRED_LOT, lot_id=lot_id)
    if found is None:
        return None
    ledger.lock([found.account_id])
    found = db.row(_EXPIRED_LOT, lot_id=lot_id)
    if found is None or found.remaining == 0 or found.expires_at is None or found.expires_at > clock.now():
        return None
    lines = [(found.account_id, -found.remaining), (ledger.account("promotions", found.currency), found.remaining)]
    posted = ledger.post(f"bonus-expired:{lot_id}:{found.times}", "bonus_expired", lines, description=found.note, actor=actor)
    db.execute(_FROM_LOT, lot_id=lot_id, transfer_id=posted.transfer_id, amount=found.remaining)
    return posted


def _positive(amount: Money) -> int:
    if amount.minor <= 0:
        raise ledger.LedgerError(f"{amount} cannot be moved: an amount is above zero")
    return amount.minor


def _open_lot(
    account_id: int, customer_id: int, posted: Posted, amount: Money, *, kind: str, paid: Money,
    payment_id: int | None = None, expires_at: datetime | None = None, note: str = "",
) -> None:  # fmt: skip
    db.execute(
        _OPEN_LOT, account_id=account_id, customer_id=customer_id, transfer_id=posted.transfer_id, payment_id=payment_id, kind=kind,
        paid=paid.minor, paid_currency=paid.currency, credited=amount.minor, currency=amount.currency, expires_at=expires_at, note=note,
    )  # fmt: skip


def _allocate(sql: str, posted: Posted, account_id: int, amount: int, at: datetime) -> None:
    if not amount or posted.replayed:
        return
    taken = db.scalar(sql, account_id=account_id, transfer_id=posted.transfer_id, amount=amount, at=at)
    if taken != amount:
        raise ledger.LedgerError(f"the lots of account {account_id} hold {taken} of {amount}")


def _spent_before(transfer_id: int, wallet: int, bonus: int, amount: Money) -> Spent:
    taken = {row.account_id: -row.amount for row in db.rows(_TAKEN, transfer_id=transfer_id)}
    spent = Spent(transfer_id, replayed=True, from_bonus=taken.get(bonus, 0), from_balance=taken.get(wallet, 0))
    if spent.from_bonus + spent.from_balance != amount.minor:
        raise ledger.LedgerError(f"transfer {transfer_id} has this reference and another amount than {amount}")
    return spent


_STATE = """
select coalesce(w.balance, 0) as available,
  coalesce((select sum(l.remaining) from lots l where l.account_id = b.id and l.remaining > 0 and (l.expires_at is null or l.expires_at > %(now)s)), 0)::bigint as bonus,
  coalesce(h.balance, 0) as on_hold, c.currency,
  coalesce(w.entry_count, 0) + coalesce(b.entry_count, 0) + coalesce(h.entry_count, 0) as version, w.id as account_id
from customers c
left join accounts w on w.customer_id = c.id and w.kind = 'wallet' and w.currency = c.currency
left join accounts b on b.customer_id = c.id and b.kind = 'bonus' and b.currency = c.currency
left join accounts h on h.customer_id = c.id and h.kind = 'hold' and h.currency = c.currency
where c.id = %(customer_id)s
"""

_HISTORIES = """
select kind, id from accounts
where customer_id = %(customer_id)s and currency = %(currency)s and kind in ('wallet', 'bonus', 'hold') and key = '' and entry_count > 0
order by kind desc
"""

_DOCUMENTED = """
from entries e join transfers t on t.id = e.transfer_id
left join payments p on p.id = t.payment_id
left join bills b on b.id = coalesce(t.bill_id, p.bill_id) and b.customer_id = (select customer_id from accounts where id = %(account_id)s)"""

_MOVEMENTS = f"""
select e.seq, e.posted_at, t.kind, t.description, e.amount, e.balance_after, t.reference, t.id, t.payment_id, t.bill_id, t.service_id, t.refund_id,
  coalesce(b.invoice_number, b.proforma_number) as document, nullif(p.method_label, '') as method{_DOCUMENTED}"""

_SUMS = f"""
select count(*) as count, coalesce(sum(e.amount) filter (where e.amount > 0), 0)::bigint as incoming,
  coalesce(-sum(e.amount) filter (where e.amount < 0), 0)::bigint as outgoing{_DOCUMENTED}"""

_SEARCHED = ("t.description", "t.reference", "b.invoice_number", "b.proforma_number", "p.method_label")

_LOTS = """
select id, transfer_id, payment_id, kind, paid, paid_currency, credited, remaining, currency, created_at, expires_at, frozen_reason, note
from lots where customer_id = %(customer_id)s order by id desc
"""

_OPEN_LOT = """
insert into lots (account_id, customer_id, transfer_id, payment_id, kind, paid, paid_currency, credited, currency, remaining, created_at, expires_at, note)
select %(account_id)s, %(customer_id)s, %(transfer_id)s, %(payment_id)s, %(kind)s, %(paid)s, %(paid_currency)s, %(credited)s, %(currency)s, %(credited)s,
  posted_at, %(expires_at)s, %(note)s from transfers where id = %(transfer_id)s
"""

_SPENDABLE = """
select (select balance from accounts where id = %(wallet)s) as balance,
  coalesce((select sum(remaining) from lots where account_id = %(bonus)s and remaining > 0 and (expires_at is null or expires_at > %(at)s)), 0)::bigint as bonus,
  (select id from transfers where reference = %(reference)s) as standing
"""

_PURSES = """
select c.id as customer_id, c.currency, w.id as wallet, b.id as bonus from customers c
left join accounts w on w.customer_id = c.id and w.kind = 'wallet' and w.currency = c.currency and w.key = ''
left join accounts b on b.customer_id = c.id and b.kind = 'bonus' and b.currency = c.currency and b.key = ''
where c.id = any(%(ids)s)
"""

_OPEN_LOTS = """
select id, account_id, remaining from lots
where account_id = any(%(accounts)s) and remaining > 0 and (expires_at is null or expires_at > %(at)s)
order by account_id, expires_at nulls last, id
"""

_ALLOCATE_MANY = """
with part as (
  select * from unnest(%(lots)s::bigint[], %(transfers)s::bigint[], %(amounts)s::bigint[]) as p (lot_id, transfer_id, amount)
), taken as (
  update lots set remaining = lots.remaining - given.amount from (select lot_id, sum(amount) as amount from part group by lot_id) given where lots.id = given.lot_id
)
insert into allocations (lot_id, transfer_id, amount) select lot_id, transfer_id, amount from part
"""

_TAKEN = "select account_id, amount from entries where transfer_id = %(transfer_id)s"

# Take `amount` from a queue of lots: each gives what is left of the amount after all before it, at most what it has.
_FROM_QUEUE = """, taken as (
  update lots set remaining = lots.remaining - least(queue.remaining, %(amount)s - queue.before)
  from queue where lots.id = queue.id and queue.before < %(amount)s
  returning lots.id, least(queue.remaining, %(amount)s - queue.before)::bigint as amount
), noted as (
  insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, amount from taken returning amount
)
select coalesce(sum(amount), 0)::bigint from noted
"""

_FROM_LOTS = f"""
with queue as (
  select id, remaining, sum(remaining) over (order by id) - remaining as before from lots where account_id = %(account_id)s and remaining > 0
){_FROM_QUEUE}"""  # noqa: S608 - constants

_FROM_BONUS = f"""
with queue as (
  select id, remaining, sum(remaining) over (order by expires_at nulls last, id) - remaining as before
  from lots where account_id = %(account_id)s and remaining > 0 and (expires_at is null or expires_at > %(at)s)
){_FROM_QUEUE}"""  # noqa: S608 - constants

_FROM_LOT = """
with taken as (update lots set remaining = remaining - %(amount)s where id = %(lot_id)s returning id)
insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, %(amount)s from taken
"""

_FREE_IN_LOT = "select remaining from lots where id = %(lot_id)s and account_id = %(account_id)s and frozen_reason is null"

_EXPIRED = "select id from lots where kind = 'bonus' and remaining > 0 and expires_at <= %(at)s order by id"

_EXPIRED_LOT = """
select account_id, remaining, expires_at, currency, note, (select count(*) from allocations where lot_id = lots.id) as times
from lots where id = %(lot_id)s and kind = 'bonus'
"""

_RESTORE = """
with given as (
  update lots set remaining = lots.remaining + a.amount from allocations a
  where a.transfer_id = %(taken_by)s and a.lot_id = lots.id
  returning lots.id, a.amount
)
insert into allocations (lot_id, transfer_id, amount) select id, %(transfer_id)s, -amount from given
"""
