"""How people get in: registering, confirming the address, signing in, and a way back for those who forgot.

Nothing here tells a stranger which addresses have an account. One address may be claimed by several registrations but confirmed by one,
so registering with a known address looks and takes exactly as long as with a new one; only the mail differs. A confirmed address is its
holder's alone; while nobody confirmed it, the first claims of it stand side by side, and none hides another.
"""

import secrets
from datetime import timedelta
from typing import Final, NamedTuple

import config
from app import clock, db, mail
from app.customers import credentials, limits, passwords, sessions, tokens
from app.customers.events import record
from app.customers.names import login_problem
from app.customers.people import Refused, User, context_words, get_user, insert_user

CLAIMS: Final = 3
"""So many unconfirmed claims of one address, the first ones, can sign in by it and are mailed a reset."""
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_FAMILIAR_FOR: Final = timedelta(days=30)

_HOLDER: Final = "select id, login, locale, customer_id from users where email = %(email)s and verified_at is not null and id <> %(id)s"
_BY_LOGIN: Final = """
select id, password_hash, true as proven
from users
where login = %(name)s and disabled_at is null
"""
_BY_EMAIL: Final = """
select id, password_hash, verified_at is not null as proven
from users u
where email = %(name)s and disabled_at is null
  and (verified_at is not null
    or not exists (select from users where email = %(name)s and verified_at is not null))
order by id
limit %(most)s
"""
_IPS: Final = "select distinct ip from sessions where user_id = any(%(ids)s) and created_at > %(since)s"


class Confirmed(NamedTuple):
    """Whose address is confirmed now, and how the session that did it goes on; None when it need not change."""

    user: User
    renewed: sessions.Renewed | None


class Undone(NamedTuple):
    """Who has the old address back, and the secret of the link by which the new password is chosen."""

    user: User
    reset: str


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
    limits.count(*_mail_rules(email), (f"confirm.by:{user.id}", 10, _HOUR))
    with db.transaction():
        _send_confirmation(user, email)
        record("email_change_requested", user.id, ip=ip)
    return email


def verify(token: str, *, keep: bytes | None = None, ip: str = "") -> Confirmed | None:
    """Confirm the address a link was mailed to; None when the link is used, expired, unknown or older than the password.

    When it is another address than before, every other link and session of the user ends, but the session ``keep``, which goes on
    under a new secret; and the address before is told, with a way back. Opens its own transaction.
    """
    with db.transaction():
        link = tokens.spend(token, "verify", "change")
        if link is None or not _is_free(link.user_id, link.email):
            return None
        renewed = None
        if link.purpose == "change":
            renewed = _change_email(link.user_id, link.email, keep)
        else:
            credentials.confirm_email(link.user_id, link.email)
        record("email_verified", link.user_id, ip=ip)
        return Confirmed(get_user(link.user_id), renewed)


def undo_email_change(token: str, *, ip: str = "") -> Undone | None:
    """Give a user the old address back by the link mailed there; None when the link is no good.

    Every session and link ends, the password counts no more, and ways back that were mailed later end, too: who stole the login may
    have changed the address twice. Raises `Refused` when somebody else confirmed the address meanwhile. Opens its own transaction.
    """
    with db.transaction():
        link = tokens.spend(token, "undo")
        if link is None:
            return None
        if not _is_free(link.user_id, link.email):
            raise Refused("email", "Another account uses this address now.")
        before = get_user(link.user_id)
        tokens.void_ways_back(link.user_id, link.created_at)
        credentials.set_email(link.user_id, link.email)
        credentials.set_password(link.user_id, passwords.hash_password(secrets.token_urlsafe(32)))
        record("email_change_undone", link.user_id, ip=ip)
        user = get_user(link.user_id)
        if before.email != link.email:
            key = _key("undone", user.id)
            mail.send("email_change_undone", before.email, locale=before.locale, key=key, customer_id=before.customer_id, login=before.login, email=link.email)
        return Undone(user, tokens.issue("reset", user.id, user.email))


def authenticate(name: str, password: str, *, ip: str = "", user_agent: str = "") -> User | None:
    """The user whose login (or e-mail address) and password these are, or None, after the same work for known and unknown names.

    Only failures count against the limits. Raises `RateLimited`.
    """
    found = _candidates(name)
    rules = _login_rules(name, [row.id for row in found if row], ip)
    counted_at = limits.count(*rules)
    checked = [(passwords.verify_password(password, row.password_hash if row else None), row) for row in found]
    user_id = next((row.id for matches, row in checked if matches and row), None)
    if user_id is not None:
        limits.give_back(counted_at, *rules)
        return get_user(user_id)
    known = next((row.id for row in found if row and row.proven), None)  # who only claims an address learns nothing of who knocks at it
    with db.transaction():
        record("sign_in_failed", known, ip=ip, details={"device": sessions.describe_device(user_agent)})
    return None


def request_reset(name: str, *, ip: str = "") -> None:
    """Mail a link that sets a new password, if this is somebody's login or address; nothing tells the caller whether. Raises `RateLimited`."""
    limits.count((f"reset:{name.strip().lower()}", 3, _HOUR), (f"reset:{limits.network(ip)}", 20, _HOUR))
    found = _candidates(name)
    with db.transaction():
        for row in found:
            if row is None:
                mail.compose("reset", "en", login=mail.harmless(name), link=_link("password/reset", "-"))
                continue
            user = get_user(row.id)
            link = _link("password/reset", tokens.issue("reset", user.id, user.email))
            mail.send("reset", user.email, locale=user.locale, key=_key("reset", user.id), customer_id=user.customer_id, login=user.login, link=link)
        record("password_reset_requested", next((row.id for row in found if row and row.proven), None), ip=ip)


def reset_password(token: str, password: str, *, ip: str = "") -> User | None:
    """Set a new password by a mailed link and end every session; None when the link is no good. Raises `Refused`. Opens its own transaction.

    Whoever could read the mail holds the address, so it counts as confirmed; it is still the user's, or the link would be dead.
    """
    link = tokens.peek(token, "reset")
    if link is None:
        return None
    _refuse("password", passwords.password_problem(password, context_words(link.login, link.email, link.name)))
    stored = passwords.hash_password(password)
    with db.transaction():
        link = tokens.spend(token, "reset")
        if link is None:
            return None
        if _is_free(link.user_id, link.email):
            credentials.confirm_email(link.user_id, link.email)
        _set_password(link.user_id, stored)
        record("password_reset", link.user_id, ip=ip)
        return get_user(link.user_id)


def change_password(user_id: int, current: str, new: str, *, keep: bytes, ip: str = "") -> credentials.Changed:
    """Change a password, knowing the current one; every link and every session but ``keep`` ends. Raises `Refused`, `RateLimited`."""
    user = get_user(user_id)
    _check_current(user, current, "current", ip)
    _refuse("password", passwords.password_problem(new, context_words(user.login, user.email, user.name)))
    if passwords.normal(new) == passwords.normal(current):
        raise Refused("password", "This is the password you have now.")
    stored = passwords.hash_password(new)
    with db.transaction():
        changed = _set_password(user_id, stored, keep)
        record("password_changed", user_id, ip=ip)
    return changed


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


def _candidates(name: str) -> list[db.Row | None]:
    """Who may be meant by a login or an address, filled up with nobody: always as many, whatever the answer is."""
    name = name.strip().lower().replace("\0", "�")
    by_email = "@" in name
    most = CLAIMS if by_email else 1
    found = db.rows(_BY_EMAIL if by_email else _BY_LOGIN, name=name, most=most)
    return [*found, *[None] * (most - len(found))]


def _login_rules(name: str, user_ids: list[int], ip: str) -> tuple[tuple[str, int, timedelta], ...]:
    """Who guesses from elsewhere must not lock the owner out: networks the user signed in from lately have a counter of their own."""
    network = limits.network(ip)
    who = name.strip().lower()
    if network in _familiar_networks(user_ids):  # asked for nobody, too: the same work
        who = f"{who} at {network}"
    return (f"login:{who}", 5, _MINUTE), (f"login.h:{who}", 20, _HOUR), (f"login.ip:{network}", 30, _MINUTE), (f"login.ip.h:{network}", 300, _HOUR)


def _familiar_networks(user_ids: list[int]) -> set[str]:
    return {limits.network(row.ip) for row in db.rows(_IPS, ids=user_ids, since=clock.now() - _FAMILIAR_FOR)}


def _stored(user: User) -> str | None:
    return db.scalar("select password_hash from users where id = %(id)s", id=user.id)  # type: ignore[no-any-return]


def _check_current(user: User, password: str, field: str, ip: str) -> None:
    rules = ((f"current:{user.id}", 5, _MINUTE), (f"current.h:{user.id}", 20, _HOUR))
    counted_at = limits.count(*rules)
    if not passwords.verify_password(password, _stored(user)):
        with db.transaction():
            record("password_check_failed", user.id, ip=ip)
        raise Refused(field, "This is not your current password.")
    limits.give_back(counted_at, *rules)


def _set_password(user_id: int, stored: str, keep: bytes | None = None) -> credentials.Changed:
    changed = credentials.set_password(user_id, stored, keep=keep)
    user = get_user(user_id)
    mail.send("password_changed", user.email, locale=user.locale, key=_key("password", user_id), customer_id=user.customer_id, login=user.login)
    return changed


def _send_confirmation(user: User, email: str) -> None:
    """Mail a link to the user's own address that confirms it, or to another one that makes it the user's."""
    holder = db.row(_HOLDER, email=email, id=user.id)
    if holder is None:
        token = tokens.issue("verify" if email == user.email else "change", user.id, email)
        link = _link("verify", token)
        mail.send("verify", email, locale=user.locale, key=_key("verify", user.id), customer_id=user.customer_id, login=user.login, link=link)
    else:
        mail.send("address_known", email, locale=holder.locale, key=_key("known", user.id), customer_id=holder.customer_id, login=holder.login)


def _is_free(user_id: int, email: str) -> bool:
    """Whether nobody else confirmed the address, held until the transaction ends."""
    db.rows("select pg_advisory_xact_lock(hashtextextended(%(email)s, 1))", email=email)
    return db.row(_HOLDER, email=email, id=user_id) is None


def _change_email(user_id: int, email: str, keep: bytes | None) -> sessions.Renewed | None:
    """Give a user another address; the confirmed one before is told, with a way back."""
    before = get_user(user_id)
    changed = credentials.set_email(user_id, email, keep=keep)
    if before.verified:
        link = _link("email/undo", tokens.issue("undo", user_id, before.email))
        key = _key("email", user_id)
        mail.send("email_changed", before.email, locale=before.locale, key=key, customer_id=before.customer_id, login=before.login, email=email, link=link)
    return changed.renewed


def _key(kind: str, user_id: int) -> str:
    return f"{kind}:{user_id}:{clock.now().isoformat()}"


def _link(path: str, token: str) -> str:
    return f"{config.current().base_url}/{path}/{token}"
