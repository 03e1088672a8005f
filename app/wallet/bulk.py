"""Charges and credits of many customers at once, for renewals and bank statements: one lock, one batch of transfers, one statement over the lots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import clock, db, ledger
from app.ledger import InsufficientFunds, Posted
from app.money import Money
from app.wallet.moving import AfterBonus, Counter, Spent, other_side, positive


@dataclass(frozen=True, slots=True)
class Spend:
    """One charge among many, as `spend` takes it; `amount` is in the customer's account currency."""

    customer_id: int
    amount: Money
    reference: str
    counter: Counter | AfterBonus
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


def hold_everything(customer_ids: Iterable[int]) -> None:
    """Lock all that customers have, in every currency, in order of id until the transaction ends; for who moves the money of several. Within a transaction."""
    ledger.lock(row.id for row in db.rows("select id from accounts where customer_id = any(%(customers)s)", customers=list(customer_ids)))


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


@dataclass(frozen=True, slots=True)
class Credit:
    """One credit among many, as `credit` takes it; it belongs to a payment."""

    customer_id: int
    amount: Money
    reference: str
    kind: str
    counter: Counter
    payment_id: int
    paid: Money
    description: str = ""
    bill_id: int | None = None


def credit_many(orders: Sequence[Credit]) -> list[Posted]:
    """`credit` for many in a few statements, in their order, all or none. A reference that stands already raises LedgerError."""
    if not orders:
        return []
    wallets = _wallets({(order.customer_id, order.amount.currency) for order in orders})
    own = [wallets[order.customer_id, order.amount.currency] for order in orders]
    posted = ledger.post_many(
        [
            ledger.Posting(
                order.reference, order.kind, [(wallet, positive(order.amount)), *order.counter], order.description,
                posted_at=clock.now(), payment_id=order.payment_id, bill_id=order.bill_id,
            )
            for order, wallet in zip(orders, own, strict=True)
        ]
    )  # fmt: skip
    if any(transfer.replayed for transfer in posted):
        raise ledger.LedgerError("one of these credits was made before")
    db.execute(
        _OPEN_LOTS_MANY,
        accounts=own,
        customers=[order.customer_id for order in orders],
        transfers=[transfer.transfer_id for transfer in posted],
        payments=[order.payment_id for order in orders],
        paid=[order.paid.minor for order in orders],
        paid_currencies=[order.paid.currency for order in orders],
        credited=[order.amount.minor for order in orders],
        currencies=[order.amount.currency for order in orders],
    )
    return posted


def _wallets(owners: set[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """The wallet of each customer and currency; opened where it is missing."""
    pairs = sorted(owners)
    found = {(row.customer_id, row.currency): row.id for row in db.rows(_WALLETS, customers=[pair[0] for pair in pairs], currencies=[pair[1] for pair in pairs])}
    return found | {pair: ledger.accounts(*pair)[0] for pair in pairs if pair not in found}


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
    parts, left, from_bonus = [], positive(amount), 0
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
    lines = [(purse.bonus, -from_bonus), (purse.wallet, from_bonus - spend.amount.minor)]
    lines += other_side(spend.counter, spend.amount.currency, from_bonus)
    return ledger.Posting(spend.reference, spend.kind, lines, spend.description, spend.actor, at, bill_id=spend.bill_id, service_id=spend.service_id)


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

_WALLETS = """
select a.customer_id, a.currency::text, a.id from unnest(%(customers)s::bigint[], %(currencies)s::text[]) as w (customer_id, currency)
join accounts a on a.customer_id = w.customer_id and a.currency = w.currency and a.kind = 'wallet' and a.key = ''
"""

_OPEN_LOTS_MANY = """
insert into lots (account_id, customer_id, transfer_id, payment_id, kind, paid, paid_currency, credited, currency, remaining, created_at)
select g.account_id, g.customer_id, g.transfer_id, g.payment_id, 'payment', g.paid, g.paid_currency, g.credited, g.currency, g.credited, t.posted_at
from unnest(%(accounts)s::bigint[], %(customers)s::bigint[], %(transfers)s::bigint[], %(payments)s::bigint[], %(paid)s::bigint[], %(paid_currencies)s::text[],
  %(credited)s::bigint[], %(currencies)s::text[]) with ordinality as g (account_id, customer_id, transfer_id, payment_id, paid, paid_currency, credited, currency, place)
join transfers t on t.id = g.transfer_id order by g.place
"""
