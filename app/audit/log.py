"""Writing and reading the audit log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app import clock, db
from app.audit.actor import current_actor

_INSERT = """
insert into audit_log
  (at, actor, user_id, address, request, action, subject, subject_id, reason, details)
values
  (%(at)s, %(actor)s, %(user_id)s, %(address)s, %(request)s,
   %(action)s, %(subject)s, %(subject_id)s, %(reason)s, %(details)s)
"""
_ENTRIES = """
select id, at, actor, user_id, address, request, action, subject, subject_id, reason, details
from audit_log
where (%(actor)s = '' or actor = %(actor)s)
  and (%(subject)s = '' or subject = %(subject)s)
  and (%(subject_id)s = '' or subject_id = %(subject_id)s)
  and (%(before)s::bigint is null or id < %(before)s)
order by id desc
limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision."""

    id: int
    at: datetime
    actor: str
    user_id: int | None
    address: str
    request: str
    action: str
    subject: str
    subject_id: str
    reason: str
    details: Mapping[str, Any]


def record(
    action: str,
    subject: str,
    subject_id: object,
    *,
    reason: str = "",
    details: Mapping[str, object] | None = None,
    actor: str = "",
) -> None:
    """Write one decision into the open transaction.

    ``action`` is a dotted code (``refund.approve``), ``subject`` what kind of thing it is about
    (``refund``), ``subject_id`` its public number. ``actor`` replaces the name of who acts where
    a command acts for a person. No secret and no personal data belong in ``details``.
    """
    who = current_actor()
    db.execute(
        _INSERT,
        at=clock.now(),
        actor=actor or who.name,
        user_id=who.user_id,
        address=who.address,
        request=who.request,
        action=action,
        subject=subject,
        subject_id=str(subject_id),
        reason=reason,
        details=json.dumps(dict(details or {}), sort_keys=True, default=str),
    )


def entries(
    *,
    actor: str = "",
    subject: str = "",
    subject_id: str = "",
    before: int | None = None,
    limit: int = 100,
) -> list[Entry]:
    """The newest decisions first, by these facts; those before the id ``before`` when given."""
    found = db.rows(
        _ENTRIES,
        actor=actor,
        subject=subject,
        subject_id=subject_id,
        before=before,
        limit=limit,
    )
    return [Entry(*row) for row in found]
