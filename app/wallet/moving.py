"""Money of one customer in, out and aside: each verb is one transfer and what it does to the lots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import clock, db, ledger
from app.ledger import InsufficientFunds, Posted
from app.money import Money
from app.wallet import lots

Counter = Sequence[tuple[int, int]]
"""The other side of a movement: account ids and signed minor units."""

AfterBonus = Callable[[int], Counter]
"""The other side of a charge whose price falls by what a bonus covers: given that part, in minor
units, the lines that sum to the rest."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A charge: where the money came from, in minor units."""

    transfer_id: int
    replayed: bool
    from_bonus: int
    from_balance: int


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
    lines = [(wallet, positive(amount)), *counter]
    links = {"payment_id": payment_id, "bill_id": bill_id}
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=posted_at, **links)
    if not posted.replayed:
        lots.open_lot(wallet, customer_id, posted, amount, kind="payment" if payment_id else "correction", paid=paid or amount, payment_id=payment_id, note=note)
    return posted


def spend(
    customer_id: int,
    amount: Money,
    *,
    reference: str,
    counter: Counter | AfterBonus,
    kind: str = "charge",
    description: str = "",
    actor: str = "system",
    bill_id: int | None = None,
    service_id: int | None = None,
    posted_at: datetime | None = None,
) -> Spent:
    """Take money: bonus first, the soonest to expire before the others, then the lots, oldest first.

    `counter` sums to `amount`, or is an `AfterBonus`: then the bonus lowers the price, and what it
    cost us when it was given goes back. Raises InsufficientFunds before anything is taken, the transaction still fit for use.
    """
    wallet, bonus, _ = ledger.accounts(customer_id, amount.currency)
    ledger.lock((wallet, bonus))
    at = posted_at or clock.now()
    have = db.rows(_SPENDABLE, wallet=wallet, bonus=bonus, at=at, reference=reference)[0]
    if have.standing is not None:
        return _spent_before(have.standing, wallet, bonus, amount)
    from_bonus = min(have.bonus, positive(amount))
    from_balance = amount.minor - from_bonus
    if from_balance > have.balance:
        raise InsufficientFunds(f"{amount} is more than the balance.")
    lines = [(bonus, -from_bonus), (wallet, -from_balance), *other_side(counter, amount.currency, from_bonus)]
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=at, bill_id=bill_id, service_id=service_id)
    lots.take_bonus(posted, bonus, from_bonus, at)
    lots.take_oldest(posted, wallet, from_balance)
    return Spent(posted.transfer_id, posted.replayed, from_bonus, from_balance)


def restore(transfer_id: int, reference: str, *, kind: str = "charge_refund", description: str = "", actor: str = "system", posted_at: datetime | None = None) -> Posted:
    """Undo a charge or any other taking: the mirrored transfer, and each lot gets back exactly what it gave. Raises LedgerError for a credit."""
    if db.scalar("select exists (select from lots where transfer_id = %(transfer_id)s)", transfer_id=transfer_id):
        raise ledger.LedgerError(f"transfer {transfer_id} brought money: it cannot be restored, only spent or paid out")
    posted = ledger.reverse(transfer_id, reference, description=description, actor=actor, kind=kind, posted_at=posted_at)
    if not posted.replayed:
        lots.give_back(posted, transfer_id)
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
    standing = ledger.find(reference)
    free = db.scalar(_FREE_IN_LOT, lot_id=lot_id, account_id=wallet)
    if not standing and (free or 0) < positive(amount):
        raise InsufficientFunds(f"{amount} is more than is left of this payment.")
    lines = [(wallet, -amount.minor), (held, amount.minor)]
    posted = ledger.post(reference, kind, lines, description=description, actor=actor, posted_at=posted_at, **links)
    if not posted.replayed:
        lots.take_named(posted, lot_id, amount.minor)
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
    return ledger.post(reference, kind, [(held, -positive(amount)), *counter], description=description, actor=actor, posted_at=posted_at, **links)


def seize(
    customer_id: int, lot_id: int, amount: Money, *, reference: str, counter: Counter, kind: str = "dispute_opened", description: str = "", payment_id: int | None = None
) -> Posted:
    """Take money whether it is there or not: from the lot it concerns, then others of its payment, then the rest, oldest first; what is missing becomes debt.

    `counter` sums to `amount`. Bonus is left alone.
    """
    wallet, debt, balances = _lock_with_debt(customer_id, amount.currency)
    from_balance = min(balances[wallet], positive(amount))
    standing = ledger.find(reference)
    if standing:
        return standing
    lines = [(wallet, -from_balance), (debt, from_balance - amount.minor), *counter]
    posted = ledger.post(reference, kind, lines, description=description, payment_id=payment_id)
    if not posted.replayed:
        lots.take_own_first(posted, wallet, from_balance, lot_id)
    return posted


def settle_debts(customer_id: int, currency: str, *, cause: str, actor: str = "system", payment_id: int | None = None) -> Money:
    """Pay what is owed out of what the wallet has, the oldest debt first; how much. `cause` tells what brought the money and makes it happen once.

    A debt is what `seize` did not find, under that transfer's reference; each settlement stands under ``<reference>:settled:<cause>``.
    """
    wallet, debt, balances = _lock_with_debt(customer_id, currency)
    left = paid = 0
    if balances[debt] < 0:
        left = balances[wallet]
    for owed in db.rows(_OWED, debt=debt) if left else ():
        part = min(left, owed.amount)
        if not part:
            break
        lines = [(wallet, -part), (debt, part)]
        posted = ledger.post(f"{owed.reference}:settled:{cause}", "debt_settled", lines, description="Settles what a dispute left owing", actor=actor, payment_id=payment_id)
        if not posted.replayed:
            lots.take_oldest(posted, wallet, part)
            left, paid = left - part, paid + part
    return Money(paid, currency)


def _lock_with_debt(customer_id: int, currency: str) -> tuple[int, int, Mapping[int, int]]:
    """Lock a customer's wallet and debt; their ids and balances.

    The wallet comes first: a debt account that is opened before it makes whoever holds the wallet
    wait for the opening, and the opener for the wallet.
    """
    wallet, _, _ = ledger.accounts(customer_id, currency)
    balances = ledger.lock((wallet,))
    debt = ledger.account("debt", currency, customer_id=customer_id)
    return wallet, debt, balances | ledger.lock((debt,))


def forgive(transfer_id: int, *, kind: str, description: str) -> Posted:
    """Undo a `seize` and every settlement of what it left owing: each lot gets back exactly what it gave."""
    seized = db.rows("select reference from transfers where id = %(id)s", id=transfer_id)[0]
    posted = restore(transfer_id, f"{seized.reference}:undone", kind=kind, description=description)
    for settled in db.rows(_SETTLEMENTS, reference=seized.reference):
        restore(settled.id, f"{settled.reference}:undone", kind=kind, description=description)
    return posted


def clear(customer_id: int, currency: str) -> Money:
    """All a customer has in a currency, wallet and bonus, after what of the bonus has expired was taken back; locked until the transaction ends."""
    wallet, bonus, _ = ledger.accounts(customer_id, currency)
    ledger.lock((wallet, bonus))
    for row in db.rows(_EXPIRED_IN, account=bonus, at=clock.now()):
        expire_bonus(row.id)
    return Money(sum(ledger.lock((wallet, bonus)).values()), currency)


def convert(
    customer_id: int, everything: Money, into: Money, *, reference: str, counter: Counter, unused: Mapping[int, int], description: str = "", actor: str = "system"
) -> Posted:
    """Turn all of `clear`, wallet and bonus, into `into`, by one transfer; each lot goes on with its share, to the minor unit.

    `counter` sums to `everything` and to minus `into`, each in its currency. `unused` says for lots of payments what was paid for the part
    that is left, in minor units of the currency paid. What becomes less than a minor unit goes to the lots beside it. Raises LedgerError.
    """
    wallet, bonus, _ = ledger.accounts(customer_id, everything.currency)
    new_wallet, new_bonus, _ = ledger.accounts(customer_id, into.currency)
    ledger.lock((wallet, bonus, new_wallet, new_bonus))
    left = lots.open_of((wallet, bonus))
    shares = into.allocate([lot.remaining for lot in left])
    parts = [
        (lot.id, new_bonus if lot.account_id == bonus else new_wallet, share.minor, unused.get(lot.id, lot.remaining * lot.paid // lot.credited))
        for lot, share in zip(left, shares, strict=True)
    ]
    lines = [*((lot.account_id, -lot.remaining) for lot in left), *((account_id, minor) for _, account_id, minor, _ in parts), *counter]
    posted = ledger.post(reference, "conversion", lines, description=description, actor=actor)
    if not posted.replayed:
        lots.carry_over(posted, parts, into.currency)
    return posted


def freeze(payment_id: int, reason: str | None) -> None:
    """Keep what is left of a payment, in however many lots, from being refunded, and say why; None lets it go again."""
    db.execute("update lots set frozen_reason = %(reason)s where payment_id = %(payment_id)s", payment_id=payment_id, reason=reason)


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
    lines = [(bonus, positive(amount)), (ledger.account("promotions", amount.currency), -amount.minor)]
    posted = ledger.post(reference, "bonus", lines, description=description, actor=actor, posted_at=posted_at)
    if not posted.replayed:
        lots.open_lot(bonus, customer_id, posted, amount, kind="bonus", paid=Money(0, amount.currency), expires_at=expires_at, note=description)
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
    lots.take_named(posted, lot_id, found.remaining)
    return posted


def other_side(counter: Counter | AfterBonus, currency: str, from_bonus: int) -> Counter:
    """Where the money of a charge goes of which a bonus covers `from_bonus` minor units."""
    if not callable(counter):
        return counter
    given = [(ledger.account("promotions", currency), from_bonus)] if from_bonus else []
    return [*given, *counter(from_bonus)]


def positive(amount: Money) -> int:
    """The minor units of an amount that is to be moved. Raises LedgerError unless it is above zero."""
    if amount.minor <= 0:
        raise ledger.LedgerError(f"{amount} cannot be moved: an amount is above zero")
    return amount.minor


def _spent_before(transfer_id: int, wallet: int, bonus: int, amount: Money) -> Spent:
    taken = {row.account_id: -row.amount for row in db.rows(_TAKEN, transfer_id=transfer_id)}
    spent = Spent(transfer_id, replayed=True, from_bonus=taken.get(bonus, 0), from_balance=taken.get(wallet, 0))
    if spent.from_bonus + spent.from_balance != amount.minor:
        raise ledger.LedgerError(f"transfer {transfer_id} has this reference and another amount than {amount}")
    return spent


_SPENDABLE = """
select (select balance from accounts where id = %(wallet)s) as balance,
  coalesce((select sum(remaining) from lots where account_id = %(bonus)s and remaining > 0 and (expires_at is null or expires_at > %(at)s)), 0)::bigint as bonus,
  (select id from transfers where reference = %(reference)s) as standing
"""

_TAKEN = "select account_id, amount from entries where transfer_id = %(transfer_id)s"

_SETTLEMENTS = "select id, reference from transfers where starts_with(reference, %(reference)s || ':settled:') and kind = 'debt_settled' order by id"

# Each taking that is not undone with what it left owing, less what was settled of it since.
_OWED = """
select t.reference, -(e.amount + coalesce(s.amount, 0))::bigint as amount
from entries e join transfers t on t.id = e.transfer_id
left join lateral (
  select sum(se.amount) as amount from entries se join transfers st on st.id = se.transfer_id
  where se.account_id = e.account_id and st.kind = 'debt_settled' and starts_with(st.reference, t.reference || ':settled:')
) s on true
where e.account_id = %(debt)s and e.amount < 0 and t.reverses is null and not exists (select from transfers r where r.reverses = t.id)
  and e.amount + coalesce(s.amount, 0) < 0
order by t.id
"""

_FREE_IN_LOT = "select remaining from lots where id = %(lot_id)s and account_id = %(account_id)s and frozen_reason is null"

_EXPIRED = "select id from lots where kind = 'bonus' and remaining > 0 and expires_at <= %(at)s order by id"

_EXPIRED_IN = "select id from lots where account_id = %(account)s and kind = 'bonus' and remaining > 0 and expires_at <= %(at)s order by id"

_EXPIRED_LOT = """
select account_id, remaining, expires_at, currency, note, (select count(*) from allocations where lot_id = lots.id) as times
from lots where id = %(lot_id)s and kind = 'bonus'
"""
