"""How people get in: registering, confirming the address, signing in, and a way back for those who forgot.

Nothing here tells a stranger which addresses have an account. One address may be claimed by several registrations but confirmed by one,
so registering with a known address looks and takes exactly as long as with a new one; only the mail differs.
"""

import re
from datetime import timedelta
from typing import Final

import config
from app import clock, db, mail
from app.customers import limits, passwords, sessions, tokens
from app.customers.events import record
from app.customers.people import (
    Refused,
    User,
    context_words,
    find_user,
    get_user,
    insert_user,
)

RESERVED: Final = frozenset({
    *("admin", "administrator", "billing", "demo", "help", "info", "invoices", "mail"),
    *("postmaster", "root", "security", "staff", "support", "system", "webmaster"),
})  # fmt: skip
_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,38}[a-z0-9]")
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_FAMILIAR_FOR: Final = timedelta(days=30)

_HOLDER: Final = "select id, login, locale, customer_id from users where email = %(email)s and verified_at is not null and id <> %(id)s"
_CONFIRM: Final = "update users set email = %(email)s, verified_at = coalesce(verified_at, %(now)s) where id = %(id)s"
_STORE_HASH: Final = "update users set password_hash = %(password_hash)s where id = %(id)s"
_IPS: Final = "select distinct ip from sessions where user_id = %(id)s and created_at > %(since)s"


def login_problem(login: str) -> str | None:
    """Why this cannot be a login, as a sentence, or None."""
    if not _LOGIN.fullmatch(login):
        return "Use 3 to 40 small letters, digits, dots, dashes or underscores, with a letter or digit at both ends."
    if login in RESERVED:
        return "This login is taken. Choose another one."
    return None


def email_problem(email: str) -> str | None:
    """Why this cannot be a mail address, as a sentence, or None."""
    return None if mail.is_address(email) else "Enter one full e-mail address, such as anna@example.com."


def register(login: str, email: str, password: str, *, locale: str = "en", timezone: str = "UTC", ip: str = "") -> User:
    """Make a user and its customer and mail the confirmation link. Raises `Refused` (field, sentence) and `RateLimited`."""
    login, email = login.strip().lower(), email.strip().lower()
    _refuse("login", login_problem(login))
    _refuse("email", email_problem(email))
    _refuse("password", passwords.password_problem(password, context_words(login, email)))
    limits.count((f"register:{limits.network(ip)}", 20, _HOUR), *_mail_rules(email))
    stored = passwords.hash_password(password)
    with db.transaction():
        user = insert_user(login, email, stored, locale=locale, timezone=timezone)
        _send_confirmation(user, email)
        record("registered", user.id, ip=ip)
    return user


def request_verification(user_id: int, *, ip: str = "") -> str:
    """Mail the confirmation link again and return the address it goes to. Raises `RateLimited`."""
    user = get_user(user_id)
    limits.count(*_mail_rules(user.email))
    with db.transaction():
        _send_confirmation(user, user.email)
        record("verification_requested", user.id, ip=ip)
    return user.email


def request_email_change(user_id: int, password: str, email: str, *, ip: str = "") -> str:
    """Mail a link to a new address, which becomes the user's once it is followed; returns the address. Raises `Refused` and `RateLimited`."""
    user, email = get_user(user_id), email.strip().lower()
    _refuse("email", email_problem(email))
    if email == user.email:
        raise Refused("email", "This is your address already.")
    _check_current(user, password, "password", ip)
    limits.count(*_mail_rules(email))
    with db.transaction():
        _send_confirmation(user, email)
        record("email_change_requested", user.id, ip=ip)
    return email


def verify(token: str, *, ip: str = "") -> User | None:
    """Confirm the address a link was mailed to; None when the link is used, expired or unknown. Opens its own transaction."""
    with db.transaction():
        link = tokens.spend("verify", token)
        if link is None or not _confirm(link.user_id, link.email):
            return None
        record("email_verified", link.user_id, ip=ip)
        return get_user(link.user_id)


def authenticate(name: str, password: str, *, ip: str = "", user_agent: str = "") -> User | None:
    """The user whose login (or e-mail address) and password these are, or None, after the same work for known and unknown names.

    Only failures count against the limits. Raises `RateLimited`.
    """
    user = find_user(name)
    rules = _login_rules(name, user, ip)
    counted_at = limits.count(*rules)
    if passwords.verify_password(password, _stored(user)):
        limits.give_back(counted_at, *rules)
        return user
    with db.transaction():
        record("sign_in_failed", user.id if user else None, ip=ip, details={"device": sessions.describe_device(user_agent)})
    return None


def request_reset(name: str, *, ip: str = "") -> None:
    """Mail a link that sets a new password, if this is somebody's login or address; nothing tells the caller whether. Raises `RateLimited`."""
    limits.count((f"reset:{name.strip().lower()}", 3, _HOUR), (f"reset:{limits.network(ip)}", 20, _HOUR))
    user = find_user(name)
    with db.transaction():
        if user is None:
            mail.compose("reset", "en", login=name, link=_link("password/reset", "-"))
        else:
            link = _link("password/reset", tokens.issue("reset", user.id, user.email))
            mail.send("reset", user.email, locale=user.locale, key=_key("reset", user.id), customer_id=user.customer_id, login=user.login, link=link)
        record("password_reset_requested", user.id if user else None, ip=ip)


def reset_password(token: str, password: str, *, ip: str = "") -> User | None:
    """Set a new password by a mailed link and end every session; None when the link is no good. Raises `Refused`. Opens its own transaction.

    Whoever could read the mail holds the address, so it counts as confirmed.
    """
    link = tokens.peek("reset", token)
    if link is None:
        return None
    _refuse("password", passwords.password_problem(password, context_words(link.login, link.email, link.name)))
    stored = passwords.hash_password(password)
    with db.transaction():
        if tokens.spend("reset", token) is None:
            return None
        _confirm(link.user_id, link.email)
        sessions.revoke_all(link.user_id)
        user = _set_password(link.user_id, stored)
        record("password_reset", user.id, ip=ip)
    return user


def change_password(user_id: int, current: str, new: str, *, keep: bytes, ip: str = "") -> int:
    """Change a password, knowing the current one; every session but ``keep`` ends, and their number is returned. Raises `Refused`, `RateLimited`."""
    user = get_user(user_id)
    _check_current(user, current, "current", ip)
    _refuse("password", passwords.password_problem(new, context_words(user.login, user.email, user.name)))
    if new == current:
        raise Refused("password", "This is the password you have now.")
    stored = passwords.hash_password(new)
    with db.transaction():
        ended = sessions.revoke_all(user_id, keep=keep)
        _set_password(user_id, stored)
        record("password_changed", user_id, ip=ip)
    return ended


def tidy() -> int:
    """Delete what has no use any more: old rate counters, links and sessions a month after their end. Returns the rows deleted."""
    now = clock.now()
    with db.transaction():
        gone = db.execute("delete from rate_limits where window_start < %(before)s", before=now - timedelta(days=2))
        gone += db.execute("delete from tokens where expires_at < %(before)s", before=now - timedelta(days=30))
        gone += db.execute("delete from sessions where expires_at < %(before)s", before=now - timedelta(days=30))
    return gone


def _refuse(field: str, problem: str | None) -> None:
    if problem:
        raise Refused(field, problem)


def _mail_rules(email: str) -> tuple[tuple[str, int, timedelta], ...]:
    return ((f"confirm:{email}", 5, _HOUR),)


def _login_rules(name: str, user: User | None, ip: str) -> tuple[tuple[str, int, timedelta], ...]:
    """Who guesses from elsewhere must not lock the owner out: networks the user signed in from lately have a counter of their own."""
    network = limits.network(ip)
    who = name.strip().lower()
    if network in _familiar_networks(user.id if user else 0):  # asked for nobody, too: the same work
        who = f"{who} at {network}"
    return (f"login:{who}", 5, _MINUTE), (f"login.h:{who}", 20, _HOUR), (f"login.ip:{network}", 30, _MINUTE), (f"login.ip.h:{network}", 300, _HOUR)


def _familiar_networks(user_id: int) -> set[str]:
    return {limits.network(row.ip) for row in db.rows(_IPS, id=user_id, since=clock.now() - _FAMILIAR_FOR)}


def _stored(user: User | None) -> str | None:
    return db.scalar("select password_hash from users where id = %(id)s", id=user.id if user else 0)  # type: ignore[no-any-return]


def _check_current(user: User, password: str, field: str, ip: str) -> None:
    rules = ((f"current:{user.id}", 5, _MINUTE), (f"current.h:{user.id}", 20, _HOUR))
    counted_at = limits.count(*rules)
    if not passwords.verify_password(password, _stored(user)):
        with db.transaction():
            record("password_check_failed", user.id, ip=ip)
        raise Refused(field, "This is not your current password.")
    limits.give_back(counted_at, *rules)


def _set_password(user_id: int, stored: str) -> User:
    db.execute(_STORE_HASH, id=user_id, password_hash=stored)
    user = get_user(user_id)
    mail.send("password_changed", user.email, locale=user.locale, key=_key("password", user_id), customer_id=user.customer_id, login=user.login)
    return user


def _send_confirmation(user: User, email: str) -> None:
    holder = db.row(_HOLDER, email=email, id=user.id)
    if holder is None:
        token = tokens.issue("verify", user.id, email)
        link = _link("verify", token)
        mail.send("verify", email, locale=user.locale, key=_key("verify", user.id), customer_id=user.customer_id, login=user.login, link=link)
    else:
        mail.send("address_known", email, locale=holder.locale, key=_key("known", user.id), customer_id=holder.customer_id, login=holder.login)


def _confirm(user_id: int, email: str) -> bool:
    """Make the address the user's confirmed one, unless somebody else confirmed it first."""
    db.rows("select pg_advisory_xact_lock(hashtextextended(%(email)s, 1))", email=email)
    if db.row(_HOLDER, email=email, id=user_id) is not None:
        return False
    before = get_user(user_id)
    db.execute(_CONFIRM, id=user_id, email=email, now=clock.now())
    if before.verified and before.email != email:
        key = _key("email", user_id)
        mail.send("email_changed", before.email, locale=before.locale, key=key, customer_id=before.customer_id, login=before.login, email=email)
    return True


def _key(kind: str, user_id: int) -> str:
    return f"{kind}:{user_id}:{clock.now().isoformat()}"


def _link(path: str, token: str) -> str:
    return f"{config.current().base_url}/{path}/{token}"
