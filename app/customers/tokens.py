"""Links that work once: 256 random bits in the mail, only their SHA-256 in the database.

Every link but one is bound to the address, the role and the password hash of its making, so it
dies with any of them. The way back to an old address (``undo``) is not: who stole the login would
change the password next.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from app import clock, db

LIFETIMES: Final = {
    "verify": timedelta(days=3),
    "change": timedelta(days=3),
    "reset": timedelta(minutes=30),
    "undo": timedelta(hours=72),
    "billing": timedelta(days=3),
}
"""Purpose → how long its link works."""

_VOID: Final = """
update tokens set used_at = %(now)s
where user_id = %(user_id)s and used_at is null and purpose = any(%(purposes)s)
"""
_VOID_SINCE: Final = """
update tokens set used_at = %(now)s
where user_id = %(user_id)s and used_at is null and purpose = %(purpose)s
  and created_at >= %(since)s
"""
_ISSUE: Final = """
insert into tokens (id, purpose, user_id, email, bound_to, created_at, expires_at)
select %(id)s, %(purpose)s, u.id, %(email)s,
  case when %(purpose)s <> 'undo' then credentials_mark(u) end, %(now)s, %(expires_at)s
from users u
where u.id = %(user_id)s
"""
_PEEK: Final = """
select t.purpose, t.user_id, t.email, t.created_at, u.login, u.name
from tokens t
join users u on u.id = t.user_id
where t.id = %(id)s and t.purpose = any(%(purposes)s) and t.used_at is null
  and t.expires_at > %(now)s and u.disabled_at is null
  and (t.bound_to is null or t.bound_to = credentials_mark(u))
"""
_HOLD: Final = "select 1 from users where id = %(id)s for no key update"
_SPEND: Final = "update tokens set used_at = %(now)s where id = %(id)s and used_at is null"
_WAITING: Final = """
select t.email
from tokens t
join users u on u.id = t.user_id
where u.customer_id = %(customer_id)s and t.purpose = %(purpose)s and t.used_at is null
  and t.expires_at > %(now)s and t.bound_to = credentials_mark(u)
order by t.created_at desc
limit 1
"""


def digest(token: str) -> bytes:
    """What is stored of a secret token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def issue(purpose: str, user_id: int, email: str) -> str:
    """A new link secret; older ones of this purpose stop working, but for ways back.

    Within a transaction.
    """
    token, now = secrets.token_urlsafe(32), clock.now()
    if purpose != "undo":
        db.execute(_VOID, now=now, user_id=user_id, purposes=[purpose])
    facts = {"purpose": purpose, "user_id": user_id, "email": email, "now": now}
    db.execute(_ISSUE, id=digest(token), **facts, expires_at=now + LIFETIMES[purpose])
    return token


def peek(token: str, *purposes: str) -> db.Row | None:
    """A working link (purpose, user_id, email, created_at, login, name), without using it up.

    None when it is used, expired, unknown, or bound to credentials that changed since.
    """
    return db.row(_PEEK, id=digest(token), purposes=list(purposes), now=clock.now())


def spend(token: str, *purposes: str) -> db.Row | None:
    """Use a link up; the same row as `peek`, or None. Within a transaction.

    The user is held first, as every change of credentials does before it ends links.
    """
    link = peek(token, *purposes)
    if link is None:
        return None
    db.rows(_HOLD, id=link.user_id)
    link = peek(token, *purposes)
    if link is None or not db.execute(_SPEND, id=digest(token), now=clock.now()):
        return None
    return link


def void(user_id: int, *purposes: str) -> None:
    """End a user's open links of these purposes, or all but the ways back. Within a transaction."""
    ended = list(purposes) or [purpose for purpose in LIFETIMES if purpose != "undo"]
    db.execute(_VOID, now=clock.now(), user_id=user_id, purposes=ended)


def void_ways_back(user_id: int, since: object) -> None:
    """End the ways back that were mailed at a moment or after it. Within a transaction."""
    db.execute(_VOID_SINCE, now=clock.now(), user_id=user_id, purpose="undo", since=since)


def waiting(purpose: str, customer_id: int) -> str:
    """The address that an open link of one of the customer's users would prove, or nothing."""
    found = db.scalar(_WAITING, customer_id=customer_id, purpose=purpose, now=clock.now())
    return str(found or "")
