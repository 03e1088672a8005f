"""The security log: what happened to whom, when, from where. Secrets and passwords never enter it."""

import json
from dataclasses import dataclass
from datetime import datetime

from app import clock, db, logs

_RECORD = "insert into security_events (user_id, at, kind, ip, details) values (%(user_id)s, %(at)s, %(kind)s, %(ip)s, %(details)s)"
_HISTORY = """
select id, at, kind, ip, details ->> 'device' as device from security_events
where user_id = %(user_id)s and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s
"""
_CREDENTIALS = """
select max(e.at) from security_events e join users u on u.id = e.user_id
where u.customer_id = %(customer_id)s and (e.kind in ('password_changed', 'password_reset', 'email_change_undone') or e.kind = 'email_verified' and (
  select before.kind from security_events before
  where before.user_id = e.user_id and before.id < e.id and before.kind in ('email_change_requested', 'email_verified') order by before.id desc limit 1
) = 'email_change_requested')
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the sign-in history."""

    id: int
    at: datetime
    kind: str
    ip: str
    device: str | None


def record(kind: str, user_id: int | None = None, *, ip: str = "", details: dict[str, object] | None = None) -> None:
    """Write one event, here and in the log. Within a transaction."""
    logs.security(kind, **({"user": user_id} if user_id else {}), **({"address": ip} if ip else {}))
    db.execute(_RECORD, user_id=user_id, at=clock.now(), kind=kind, ip=ip, details=json.dumps(details or {}))


def credentials_changed_at(customer_id: int) -> datetime | None:
    """When a password or a confirmed address of a customer's logins last changed; None when none did. The first confirmation of an address is no change."""
    found: datetime | None = db.scalar(_CREDENTIALS, customer_id=customer_id)
    return found


def history(user_id: int, limit: int, before: int | None = None) -> list[Event]:
    """A user's newest events, at most ``limit``, those before the event id ``before`` when it is given."""
    return [Event(*row) for row in db.rows(_HISTORY, user_id=user_id, limit=limit, before=before)]
