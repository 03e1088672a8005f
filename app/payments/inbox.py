"""The webhook inbox: what arrived, byte for byte, first kept and answered, then looked into."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import clock, db, gateways
from app.gateways.base import BadSignature, Event, Gateway, GatewayError, NotNow, UnreadableAnswer, UnreadableEvent
from app.payments import cards, outages, settling

log = logging.getLogger(__name__)

MOST_TRIES = 5
FIRST_WAIT, UNCOUNTED_WAIT = timedelta(seconds=10), timedelta(minutes=1)
SIGNATURES = frozenset({"stripe-signature", "sandbox-signature", "btcpay-sig", "x-nowpayments-sig", "paypal-transmission-sig"})
KEPT_HEADERS = frozenset({"content-type", "user-agent", *SIGNATURES})
KEPT_PREFIX = "paypal-"


def receive(gateway: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Verify a webhook and keep it; its inbox id, the same for the same event. Opens the transaction.

    Raises BadSignature for one that is not proven, LookupError for a gateway that is not configured. What is proven is kept, whatever it says: one
    about nothing of ours as ignored, one that cannot be read as parked. Nothing is believed and nothing is credited here.
    """
    found = gateways.get(gateway)
    if found is None:
        raise LookupError(gateway)
    event = _read(found, body, headers)
    now = clock.now()
    state, error = ("parked", event.fault) if event.fault else ("new", None) if event.reference else ("ignored", None)
    if event.fault:
        log.error("A webhook of %s was parked: %s is %s", gateway, event.id, event.fault)
    kept = {name: value for name, value in headers.items() if name in KEPT_HEADERS or name.startswith(KEPT_PREFIX)}
    with db.transaction():
        outages.note_proven(gateway)
        fresh = db.scalar(_KEEP, gateway=gateway, event_id=event.id, now=now, headers=json.dumps(kept), body=body, state=state, error=error, reference=event.reference)
        return int(fresh or db.scalar(_KEPT, gateway=gateway, event_id=event.id))


def _read(gateway: Gateway, body: bytes, headers: Mapping[str, str]) -> Event:
    """The event; for a proven one that cannot be read, one about nothing, by the name of its own bytes. Raises BadSignature."""
    try:
        return gateway.read_event(body, headers)
    except UnreadableEvent as error:
        return Event(f"body-{hashlib.sha256(body).hexdigest()}", "", "", clock.now(), str(error))
    except BadSignature as error:
        if any(name in SIGNATURES for name in headers):  # without any signature it is a stranger's, and says nothing of our secret
            log.warning("A webhook of %s is not proven: %s", gateway.name, error)
            outages.note_unproven(gateway.name)
        raise


# A second delivery waits for the first, if that is being written, and writes nothing: most of what comes is known.
_KEEP = """
insert into webhooks (gateway, event_id, received_at, due_at, headers, body, state, error, reference)
values (%(gateway)s, %(event_id)s, %(now)s, %(now)s, %(headers)s, %(body)s, %(state)s, %(error)s, %(reference)s)
on conflict (gateway, event_id) do nothing returning id
"""
_KEPT = "select id from webhooks where gateway = %(gateway)s and event_id = %(event_id)s"


def process(inbox_id: int) -> str:
    """Look up what one webhook is about and apply it; the webhook's state after. One that is not new any more is left alone.

    A try that fails is counted and repeated later; the fifth parks the webhook for the operator, as does at once an answer that cannot be of its payment
    or that we cannot read: the same would come again.
    What only cannot be asked now, by a setting of ours or because the processor is left alone, waits uncounted.
    """
    row = db.row("select id, gateway, reference, tries, state from webhooks where id = %(id)s", id=inbox_id)
    if row is None or row.state != "new":
        return row.state if row else "missing"
    try:
        return _look_into(row)
    except (settling.Refused, UnreadableAnswer) as error:
        return _put_off(row, getattr(error, "detail", str(error)), final=True)
    except NotNow as error:
        return _put_off(row, error.detail, counted=False)
    except GatewayError as error:
        return _put_off(row, error.detail)
    except Exception as error:
        log.exception("Webhook %s failed.", inbox_id)
        return _put_off(row, repr(error))


def process_due(limit: int = 500) -> dict[str, int]:
    """`process` for every webhook that is due, oldest first; how many came to which state. A bad one stops no other."""
    tally: dict[str, int] = {}
    for row in db.rows("select id from webhooks where state = 'new' and due_at <= %(now)s order by due_at, id limit %(limit)s", now=clock.now(), limit=limit):
        state = process(row.id)
        tally[state] = tally.get(state, 0) + 1
    return tally


@dataclass(frozen=True, slots=True)
class Parked:
    """A webhook that could not be followed; `why` is a sentence, `id` what `replay` takes."""

    id: int
    gateway: str
    event_id: str
    reference: str
    received_at: datetime
    why: str


def parked() -> list[Parked]:
    """Every webhook that waits for the operator, oldest first."""
    return [Parked(*row) for row in db.rows("select id, gateway, event_id, reference, received_at, error from webhooks where state = 'parked' order by id")]


def replay(inbox_id: int) -> str:
    """Process a webhook again, whatever became of it before; its state after. Raises LookupError. Opens the transaction."""
    with db.transaction():
        if not db.execute("update webhooks set state = 'new', tries = 0, due_at = %(now)s where id = %(id)s and reference <> ''", id=inbox_id, now=clock.now()):
            raise LookupError(f"no webhook {inbox_id} that is about a payment")
    return process(inbox_id)


def _look_into(row: db.Row) -> str:
    gateway = gateways.get(row.gateway)
    if gateway is None:
        return _put_off(row, "the gateway is not configured")
    with outages.asking(row.gateway, "lookup", row.reference):
        snapshot = gateway.lookup(row.reference)
    with db.transaction():
        known = snapshot is not None and (settling.take_in(row.gateway, snapshot) is not None or cards.take_in(row.gateway, snapshot))
        state, error = ("done", None) if known else ("ignored", "no payment of ours")
        db.execute(_CLOSE, id=row.id, state=state, error=error, now=clock.now())
    return state


_CLOSE = "update webhooks set state = %(state)s, error = %(error)s, tries = tries + 1, processed_at = %(now)s where id = %(id)s"


def _put_off(row: db.Row, error: str, *, final: bool = False, counted: bool = True) -> str:
    tries = row.tries + counted
    state = "parked" if final or tries >= MOST_TRIES else "new"
    wait = FIRST_WAIT * 4 ** (tries - 1) if counted else UNCOUNTED_WAIT
    with db.transaction():
        db.execute(_PUT_OFF, id=row.id, state=state, tries=tries, error=error[:500], due_at=clock.now() + wait)
    if state == "parked":
        log.error("Webhook %s was parked after %s tries: %s", row.id, tries, error)
    return state


_PUT_OFF = "update webhooks set state = %(state)s, tries = %(tries)s, error = %(error)s, due_at = %(due_at)s where id = %(id)s"
