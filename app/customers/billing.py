"""The billing address: where documents go. A new one is proven by a link mailed to it, and the one before hears of it.

Two addresses need no proof: the confirmed address of the user who asks, and none at all, which
means the same. Whoever holds the login could otherwise have a company's invoices, and the bank
account on them, sent to himself without anybody noticing.
"""

from datetime import timedelta
from typing import Final

import config
from app import clock, db, mail
from app.customers import limits, tokens
from app.customers.events import record

_HOUR: Final = timedelta(hours=1)
_USER: Final = """
select u.id, u.login, u.email, u.locale, u.customer_id, u.verified_at is not null as verified,
  c.billing_email
from users u
join customers c on c.id = u.customer_id
where u.id = %(id)s
"""
_SET: Final = "update customers set billing_email = %(email)s where id = %(id)s"
_FALLBACK: Final = "select email from users where customer_id = %(id)s order by id limit 1"


def count_request(user_id: int, email: str) -> None:
    """Count the mail that a new billing address would need. Raises `RateLimited`. Opens its own transaction."""
    user = db.row(_USER, id=user_id)
    if user is not None and email != user.billing_email.lower() and not _is_proven(user, email):
        limits.count((f"confirm:{email}", 5, _HOUR), (f"confirm.by:{user_id}", 10, _HOUR))


def change(user_id: int, email: str, *, ip: str = "") -> str:
    """Send documents to another address, or ask that address first; the one that has to confirm, or nothing.

    ``email`` is an address in small letters or "". Within a transaction, the customer held.
    """
    user = db.row(_USER, id=user_id)
    if user is None or email == user.billing_email.lower():
        return ""
    if _is_proven(user, email):
        tokens.void(user_id, "billing")
        _set(user, email, ip)
        return ""
    link = f"{config.current().base_url}/billing-email/{tokens.issue('billing', user.id, email)}"
    _write(user, "billing_verify", email, link=link)
    record("billing_email_requested", user.id, ip=ip)
    return email


def confirm(token: str, *, ip: str = "") -> str | None:
    """Make a billing address count by the link mailed to it; the address, or None when the link is no good.

    Opens its own transaction.
    """
    with db.transaction():
        link = tokens.peek(token, "billing")
        user = db.row(_USER, id=link.user_id) if link else None
        if user is None:
            return None
        db.rows("select 1 from customers where id = %(id)s for no key update", id=user.customer_id)
        link = tokens.spend(token, "billing")
        if link is None:
            return None
        _set(db.row(_USER, id=link.user_id), link.email, ip)
        return str(link.email)


def waiting_address(customer_id: int) -> str:
    """The billing address that was asked for and is not confirmed yet, or nothing."""
    return tokens.waiting("billing", customer_id)


def _is_proven(user: db.Row, email: str) -> bool:
    return not email or (bool(user.verified) and email == user.email)


def _set(user: db.Row, email: str, ip: str) -> None:
    fallback = str(db.scalar(_FALLBACK, id=user.customer_id))
    before, after = user.billing_email or fallback, email or fallback
    db.execute(_SET, id=user.customer_id, email=email)
    record("billing_email_changed", user.id, ip=ip)
    if before != after and mail.is_address(before):
        _write(user, "billing_changed", before, email=after)


def _write(user: db.Row, kind: str, to: str, *, link: str = "", email: str = "") -> None:
    key = f"{kind}:{user.id}:{clock.now().isoformat()}"
    reader = {"locale": user.locale, "customer_id": user.customer_id, "login": user.login}
    mail.send(kind, to, key=key, link=link, email=email, **reader)
