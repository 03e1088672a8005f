"""Links that work once: 256 random bits in the mail, only their SHA-256 in the database."""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from app import clock, db

LIFETIMES: Final = {"verify": timedelta(days=3), "reset": timedelta(minutes=30)}

_VOID: Final = "update tokens set used_at = %(now)s where user_id = %(user_id)s and purpose = %(purpose)s and used_at is null"
_ISSUE: Final = "insert into tokens (id, purpose, user_id, email, created_at, expires_at) values (%(id)s, %(purpose)s, %(user_id)s, %(email)s, %(now)s, %(expires_at)s)"
_PEEK: Final = """
select t.user_id, t.email, u.login, u.name from tokens t join users u on u.id = t.user_id
where t.id = %(id)s and t.purpose = %(purpose)s and t.used_at is null and t.expires_at > %(now)s and u.disabled_at is null
"""
_SPEND: Final = """
update tokens set used_at = %(now)s where id = %(id)s and purpose = %(purpose)s and used_at is null and expires_at > %(now)s
returning user_id, email
"""


def digest(token: str) -> bytes:
    """What is stored of a secret token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def issue(purpose: str, user_id: int, email: str) -> str:
    """A new link secret; older ones of this purpose stop working. Within a transaction."""
    token = secrets.token_urlsafe(32)
    now = clock.now()
    db.execute(_VOID, now=now, user_id=user_id, purpose=purpose)
    db.execute(_ISSUE, id=digest(token), purpose=purpose, user_id=user_id, email=email, now=now, expires_at=now + LIFETIMES[purpose])
    return token


def peek(purpose: str, token: str) -> db.Row | None:
    """Whose working link this is (user_id, email, login, name), without using it up; None when it is used, expired or unknown."""
    return db.row(_PEEK, id=digest(token), purpose=purpose, now=clock.now())


def spend(purpose: str, token: str) -> db.Row | None:
    """Use the link up (user_id, email); None when somebody already did, or it expired. Within a transaction."""
    return db.row(_SPEND, id=digest(token), purpose=purpose, now=clock.now())
