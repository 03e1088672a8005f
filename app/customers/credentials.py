"""Credentials: the one place that writes them, and what each change of them ends.

A password, an address, a role or a switched-off login is written here and nowhere else, and each
of these functions ends with `changed`: no mailed link and no other session outlives it. A second
factor that is added, replaced or removed calls `changed` in the same way.
"""

from typing import NamedTuple

from app import clock, db
from app.customers import sessions, tokens

_HASH = "update users set password_hash = %(password_hash)s where id = %(id)s"
_EMAIL = """
update users set email = %(email)s, verified_at = coalesce(verified_at, %(now)s)
where id = %(id)s
"""
_ROLE = "update users set role = %(role)s where id = %(id)s"
_DISABLED = "update users set disabled_at = %(at)s where id = %(id)s"


class Changed(NamedTuple):
    """What a change ended, and how the session that made it goes on.

    ``renewed`` is None when no session was kept.
    """

    ended: int
    renewed: sessions.Renewed | None


def changed(user_id: int, *, keep: bytes | None = None) -> Changed:
    """Void every mailed link of a user and end its sessions.

    The session ``keep``, if it is the user's own, goes on under a new secret; its old cookie is
    dead. Within a transaction, after the change itself.
    """
    tokens.void(user_id)
    ended = sessions.revoke_all(user_id, keep=keep)
    return Changed(ended, sessions.renew(user_id, keep) if keep else None)


def set_password(user_id: int, stored: str, *, keep: bytes | None = None) -> Changed:
    """Give a user another password, by its hash. Within a transaction."""
    db.execute(_HASH, id=user_id, password_hash=stored)
    return changed(user_id, keep=keep)


def confirm_email(user_id: int, email: str) -> None:
    """Note that a user's first address is confirmed: nothing it opened before ends.

    Within a transaction.
    """
    db.execute(_EMAIL, id=user_id, email=email, now=clock.now())


def set_email(user_id: int, email: str, *, keep: bytes | None = None) -> Changed:
    """Give a user another address, which is confirmed. Within a transaction."""
    db.execute(_EMAIL, id=user_id, email=email, now=clock.now())
    return changed(user_id, keep=keep)


def set_role(user_id: int, role: str) -> Changed:
    """Give a user another role. Within a transaction."""
    db.execute(_ROLE, id=user_id, role=role)
    return changed(user_id)


def set_disabled(user_id: int, *, disabled: bool) -> Changed:
    """Switch a login off or on again. Within a transaction."""
    db.execute(_DISABLED, id=user_id, at=clock.now() if disabled else None)
    return changed(user_id)
