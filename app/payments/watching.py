"""Asking processors what became of a payment: for whoever waits on the return page, and for every payment nobody told us about."""

import logging
from collections.abc import Callable
from datetime import timedelta

from app import clock, db, gateways
from app.gateways.base import Closer, Gateway, GatewayError, Misconfigured, Snapshot
from app.languages import N_
from app.payments import book, outages
from app.payments.book import Payment
from app.payments.settling import Refused, apply

log = logging.getLogger(__name__)

POLL_AT_MOST_EVERY = timedelta(seconds=1)
GRACE = timedelta(minutes=10)
"""How long after its page closed a payment that its processor has never heard of is given up."""
GIVEN_UP_FOR = timedelta(days=30)
"""How long failed and expired payments are still asked about, ever more seldom: their money may come late."""

GROWS_FOR = timedelta(days=3)
"""How long a paid payment is still asked about where the payer may send more: coins to an address that is watched on."""


LOOKED_OVER_FOR = timedelta(days=180)
"""How long credited payments are looked up again: processors hear of most disputes within four months."""


def refresh(payment: Payment) -> Payment:
    """The payment after asking its processor, when it is still open and was not asked a moment ago; as it stands if nobody answers."""
    asked = payment.checked_at > payment.created_at and clock.now() - payment.checked_at < POLL_AT_MOST_EVERY
    if asked or not payment.open:
        return payment
    try:
        return settle_open(payment)
    except GatewayError as error:
        log.warning("Payment %s could not be looked up: %s", payment.public_id, error.detail)
    except Refused:
        log.exception("Payment %s was answered for with another one.", payment.public_id)
    return payment


def leave(customer_id: int, public_id: str) -> None:
    """Who paid came back from the processor's page without paying: it is closed, where that is possible, so that it bars nothing. Opens transactions around the calls.

    A stranger's payment and one that is not open any more are left alone; of a processor that gives no answer the page ends by its own time.
    """
    payment = book.find(customer_id, public_id)
    gateway = gateways.get(payment.gateway) if payment else None
    if payment is None or payment.state != "created" or not payment.gateway_reference or not isinstance(gateway, Closer):
        return
    try:
        with outages.asking(payment.gateway, "close", public_id):
            gateway.close(payment.gateway_reference)
    except GatewayError as error:  # one that is being paid refuses it
        log.warning("The page of %s was not closed: %s", public_id, error.detail)
    look_at(public_id)


def look_at(public_id: str) -> bool:
    """Look a payment up, whatever its state, and apply what is found; False when nobody answers."""
    payment = book.read(public_id)
    try:
        return payment is not None and settle_open(payment) is not None
    except GatewayError as error:
        log.warning("Payment %s could not be looked up: %s", public_id, error.detail)
        return False


def look_over(limit: int = 200) -> int:
    """Look up credited payments again, ever more seldom: a refund that failed weeks later, or a dispute, of which no webhook told us; how many answered."""
    due = db.rows(_OVER, now=clock.now(), since=clock.now() - LOOKED_OVER_FOR, silent=list(outages.left_alone()), limit=limit)
    return sum(look_at(row.public_id) for row in due)


# Twice as late each time: a dozen looks in all.
_OVER = """
select public_id from payments
where state in ('paid', 'partially_refunded', 'refunded', 'disputed') and gateway_reference is not null and paid_at > %(since)s and gateway <> all(%(silent)s)
  and checked_at + greatest(checked_at - paid_at, interval '1 hour') <= %(now)s
order by checked_at limit %(limit)s
"""


def settle_open(payment: Payment) -> Payment:
    """Look a payment up and apply what is found. Raises GatewayError."""
    gateway = gateways.get(payment.gateway)
    if gateway is None:
        return payment
    with outages.asking(payment.gateway, "lookup", payment.public_id):
        _mark_checked(payment)
        snapshot = gateway.lookup(payment.gateway_reference or payment.public_id)
        if snapshot is None and payment.gateway_reference and not gateway.forgets:
            raise Misconfigured(f"{payment.gateway} knows no {payment.gateway_reference} of ours: is its key one of the account that was paid?")
    if snapshot is None or snapshot.charge_id != payment.public_id:
        snapshot = _unheard_of(payment, gateway)
    return (apply(payment.gateway, snapshot) if snapshot else None) or payment


def close_settled(limit: int = 50) -> int:
    """Close the processors' pages that are open for bills which were paid or cancelled meanwhile, so that nobody pays twice, or ask for another sum by now; how many closed.

    One that cannot be closed now is tried again a minute later, until its time is over. Where a processor closes no pages, what is paid there
    is credited like any second payment.
    """
    closed = 0
    silent, before = list(outages.left_alone()), clock.now() - CLOSE_AGAIN
    for row in db.rows(_SETTLED_PAGES, gateways=gateways.closers(), silent=silent, before=before, limit=limit):
        payment, gateway = book.read(row.public_id), gateways.closer(row.gateway)
        if payment is None or gateway is None:
            continue
        try:
            with outages.asking(payment.gateway, "close", payment.public_id):
                gateway.close(payment.gateway_reference or payment.public_id)
            closed += settle_open(payment).state == "expired"
        except GatewayError as error:
            log.warning("The page of payment %s could not be closed: %s", payment.public_id, error.detail)
            _mark_checked(payment)
    return closed


CLOSE_AGAIN = timedelta(minutes=1)
"""How long a page that could not be closed is left alone."""
_SETTLED_PAGES = """
select p.public_id, p.gateway
from payments p
join bills b on b.id = p.bill_id
  and (
    b.status in ('paid', 'refunded', 'cancelled')
    or b.status = 'unpaid' and b.reissued_at > p.created_at
  )
where p.state in ('created', 'unknown')
  and p.handoff_url is not null
  and p.gateway_reference is not null
  and p.gateway = any(%(gateways)s)
  and p.gateway <> all(%(silent)s)
  and (p.checked_at < %(before)s or b.closed_at > p.checked_at or b.invoiced_at > p.checked_at or b.reissued_at > p.checked_at)
order by p.checked_at
limit %(limit)s
"""


def reconcile(limit: int = 200) -> dict[str, int]:
    """Look up every payment that is due for it and apply what is found; how many came to which state, `unanswered` those nobody answers for.

    Each in its own transaction; one that fails is logged and stops no other. Safe to run at any time, and again after a crash.
    """
    tally: dict[str, int] = {}
    now = clock.now()
    facts = {"now": now, "since": now - GIVEN_UP_FOR, "watched": now - GROWS_FOR, "growing": gateways.growing(), "silent": list(outages.left_alone()), "limit": limit}
    for row in db.rows(_DUE + book.COLUMNS + _DUE_FROM, **facts):
        payment = Payment(*row)
        try:
            after = settle_open(payment).state
        except GatewayError as error:
            log.warning("Payment %s could not be looked up: %s", payment.public_id, error.detail)
            after = "unanswered"
        except Exception:
            log.exception("Payment %s could not be reconciled.", payment.public_id)
            after = "error"
        tally[after] = tally.get(after, 0) + 1
    return tally


def reconcile_all(progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """Look up every payment of which a processor could have news, however lately it was asked: for after an outage, by an operator's hand.

    Those without an end, whenever they began; those with one for as long as they are looked over. How many moved, as "created → paid"; how many
    stand as they stood, as "unchanged"; "unanswered" and "error" as `reconcile` says. `progress` is told (done, total).
    """
    tally: dict[str, int] = {}
    outages.ask_again()
    waiting = db.rows(_EVERY, since=clock.now() - LOOKED_OVER_FOR)
    for done, row in enumerate(waiting, 1):
        outcome = _looked_up(row.public_id)
        tally[outcome] = tally.get(outcome, 0) + 1
        if progress:
            progress(done, len(waiting))
    return tally


def _looked_up(public_id: str) -> str:
    """What became of one payment, in the words of `reconcile_all`."""
    try:
        before = book.read(public_id)
        after = settle_open(before) if before else None
    except GatewayError as error:
        log.warning("Payment %s could not be looked up: %s", public_id, error.detail)
        return "unanswered"
    except Exception:
        log.exception("Payment %s could not be reconciled.", public_id)
        return "error"
    return f"{before.state} → {after.state}" if before and after and before.state != after.state else "unchanged"


# Money by bank transfer is learnt from statements; a payment that never reached its processor is known to nobody there.
_EVERY = """
select public_id from payments
where state in ('created', 'unknown', 'pending')
  or (gateway <> 'bank' and gateway_reference is not null and state <> 'review' and greatest(created_at, paid_at) > %(since)s)
order by state in ('created', 'unknown', 'pending') desc, id desc
"""
_DUE = "select "
# Open payments every minute at first and every quarter of an hour at most; the given up, and those that came
# and may still receive more, ever more seldom, twice as late each time.
_DUE_FROM = """
from payments
where gateway <> all(%(silent)s) and ((state in ('created', 'unknown', 'pending') and checked_at + least(greatest(checked_at - created_at, interval '1 minute'), interval '15 minutes') <= %(now)s)
  or (state in ('failed', 'expired') and gateway_reference is not null and created_at > %(since)s
    and checked_at + greatest(checked_at - created_at, interval '1 minute') <= %(now)s)
  or (state in ('paid', 'review') and gateway = any(%(growing)s) and coalesce(paid_at, created_at) > %(watched)s
    and checked_at + greatest(checked_at - created_at, interval '1 minute') <= %(now)s))
order by checked_at limit %(limit)s
"""


def _unheard_of(payment: Payment, gateway: Gateway) -> Snapshot | None:
    """A payment that its processor does not know is over once its page would have closed; before, where a look-up proves that no call of it arrived."""
    over = payment.expires_at + GRACE
    if payment.gateway_reference is None and gateway.final_after is not None:
        # A saved card may be charged again under the same key until its time is over, so its last call is not known.
        over = (payment.expires_at if payment.card_id is not None else payment.updated_at) + gateway.final_after
    if over > clock.now():
        return None
    why = N_("The payment page was never reached.") if payment.state != "pending" else N_("The money did not arrive in time.")
    return Snapshot(payment.gateway_reference or "", payment.public_id, "expired", failure_message=why)


def _mark_checked(payment: Payment) -> None:
    with db.transaction():
        db.execute("update payments set checked_at = %(now)s where id = %(id)s", id=payment.id, now=clock.now())
