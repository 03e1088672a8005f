"""Money that nobody paid: bonuses, given by the house and taken back when their time is over."""

import logging
from datetime import datetime

from app import approvals, audit, clock, db, wallet
from app.ledger import LedgerError
from app.money import Money

log = logging.getLogger(__name__)


def grant_bonus(customer_id: int, amount: Money, *, reason: str, reference: str, expires_at: datetime | None = None, actor: str = "system") -> int:
    """Give a bonus, spent before the balance and never paid out; the transfer's id, the same for the same reference. Opens the transaction.

    A person of support gives only as much as one may decide alone, and none to itself. Raises ValueError for a bonus that has expired already,
    `approvals.NotAllowed`.
    """
    if expires_at is not None and expires_at <= clock.now():
        raise ValueError(f"a bonus that expired at {expires_at} cannot be given now")
    with db.transaction():
        by = actor if actor == "system" else _by_a_person(customer_id, amount, reference, actor, reason)
        posted = wallet.grant_bonus(customer_id, amount, reference=f"bonus:{reference}", description=reason, actor=by, expires_at=expires_at)
        if by == "system" and not posted.replayed:
            audit.record("bonus.grant", "customer", customer_id, reason=reason, details={"amount": amount}, actor="system")
        return posted.transfer_id


def expire_bonuses() -> int:
    """Take back what is left of every bonus whose time is over; how many. Each in its own transaction: a bad one stops no other."""
    expired = 0
    for lot_id in wallet.expired_bonuses():
        try:
            with db.transaction():
                expired += wallet.expire_bonus(lot_id) is not None
        except LedgerError:
            log.exception("The bonus of lot %s could not be taken back.", lot_id)
    return expired


def _by_a_person(customer_id: int, amount: Money, reference: str, actor: str, reason: str) -> str:
    said = approvals.approve(
        "bonus.grant",
        "bonus",
        reference,
        actor=actor,
        needed=approvals.needed(amount),
        amount=amount,
        terms=f"{customer_id} {amount}",
        customers=[customer_id],
        reason=reason,
    )
    if not said.reached and not said.repeated:
        raise approvals.NotAllowed("second_person")
    return said.by
