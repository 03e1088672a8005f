"""Server-side sessions. The cookie holds 256 random bits, the database only their SHA-256; what is revoked here is dead everywhere.

A session ends two hours after its last request and twelve hours after sign-in, whichever comes first; one that was asked to stay lasts
thirty days. Support's ends half an hour after its last request and never stays. Several at once are allowed: each is listed and can be
signed out on the security page.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from app import clock, db
from app.customers.events import record
from app.customers.tokens import digest

IDLE: Final = timedelta(hours=2)
STAFF_IDLE: Final = timedelta(minutes=30)
ABSOLUTE: Final = timedelta(hours=12)
REMEMBERED: Final = timedelta(days=30)
SEEN_EVERY: Final = timedelta(minutes=5)
"""How often a living session is noted: one write in five minutes, not one per page."""

_LOAD: Final = """
select s.id, s.seen_at, u.id as user_id, coalesce(u.customer_id, 0) as customer_id, u.login, coalesce(nullif(u.name, ''), u.login) as name, u.email, u.role, u.locale, u.timezone,
       u.verified_at is not null as verified, c.currency, coalesce(w.balance, 0) as balance, coalesce(b.balance, 0) as bonus,
       coalesce(w.entry_count, 0) as version,
       (select count(*) from bills where bills.customer_id = u.customer_id and bills.status = 'unpaid' and bills.kind = 'service') as unpaid,
       w.id as account_id, coalesce(h.balance, 0) as on_hold, coalesce(c.display_currencies, '{}') as display_currencies,
       greatest(-coalesce(d.balance, 0), 0) as owed, coalesce(v.former, '{}') as former_currencies, v.since as currency_since
from sessions s
join users u on u.id = s.user_id and u.disabled_at is null
left join customers c on c.id = u.customer_id
left join accounts w on w.kind = 'wallet' and w.customer_id = c.id and w.currency = c.currency and w.key = ''
left join accounts b on b.kind = 'bonus' and b.customer_id = c.id and b.currency = c.currency and b.key = ''
left join accounts h on h.kind = 'hold' and h.customer_id = c.id and h.currency = c.currency and h.key = ''
left join accounts d on d.kind = 'debt' and d.customer_id = c.id and d.currency = c.currency and d.key = ''
left join lateral (
  select array_agg(distinct from_currency::text) filter (where from_currency <> c.currency) as former, max(at) filter (where chosen) as since from conversions where customer_id = c.id
) v on true
where s.id = %(id)s and s.revoked_at is null and s.expires_at > %(now)s
  and case when u.role = 'support' then not s.remembered and s.seen_at > %(staff_idle)s else s.remembered or s.seen_at > %(idle)s end
"""
_OPEN: Final = """
insert into sessions (id, user_id, created_at, seen_at, expires_at, remembered, ip, user_agent)
select %(id)s, u.id, %(now)s, %(now)s, case when stays then %(remembered_until)s else %(expires_at)s end, stays, %(ip)s, %(user_agent)s
from users u
cross join lateral (select %(remembered)s and u.role <> 'support' as stays) asked
where u.id = %(user_id)s
"""
_LIST: Final = """
select encode(s.id, 'hex') as reference, s.user_agent, s.ip, s.created_at, s.seen_at, s.remembered, s.id = %(current)s as current
from sessions s
join users u on u.id = s.user_id
where s.user_id = %(user_id)s and s.revoked_at is null and s.expires_at > %(now)s
  and (s.remembered or s.seen_at > case when u.role = 'support' then %(staff_idle)s else %(idle)s end)
order by s.id = %(current)s desc, s.seen_at desc
"""
_RENEW: Final = """
update sessions set id = %(new)s
where id = %(id)s and user_id = %(user_id)s and revoked_at is null
returning remembered, expires_at
"""
_REVOKE: Final = "update sessions set revoked_at = %(now)s where revoked_at is null and "
_REVOKE_ONE: Final = _REVOKE + "user_id = %(user_id)s and encode(id, 'hex') = %(reference)s"
_REVOKE_THIS: Final = _REVOKE + "id = %(id)s returning user_id"
_REVOKE_ALL: Final = _REVOKE + "user_id = %(user_id)s and id is distinct from %(keep)s"
_BROWSERS: Final = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"), ("curl", "curl"))
_SYSTEMS: Final = (("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS", "macOS"), ("Linux", "Linux"))


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is asking, and what the frame around every page shows of them. Balances in minor units of ``currency``.

    ``customer_id`` is 0 for support without a customer of its own: no row belongs to it. ``version`` counts the wallet's entries, so it
    changes whenever its balance does; ``former_currencies`` have a history of their own. Speaks Flask-Login's user protocol.
    """

    session_id: bytes
    seen_at: datetime
    user_id: int
    customer_id: int
    login: str
    name: str
    email: str
    role: str
    locale: str
    timezone: str
    verified: bool
    currency: str | None
    balance_minor: int
    bonus_minor: int
    version: int
    unpaid_count: int
    account_id: int | None
    on_hold_minor: int
    display_currencies: list[str]
    owed_minor: int
    former_currencies: list[str]
    currency_since: datetime | None

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        """Flask-Login's name for the user."""
        return str(self.user_id)

    @property
    def initials(self) -> str:
        """One or two letters for the round mark in the top bar."""
        words = re.findall(r"\w+", self.name) or ["?"]
        return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper()


class Renewed(NamedTuple):
    """The new secret of a session for its cookie; ``stays_s`` are the seconds the cookie is kept, None for as long as the browser is open."""

    secret: str
    stays_s: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """One living session as its owner sees it. ``reference`` names it without being able to use it."""

    reference: str
    device: str
    ip: str
    created_at: datetime
    seen_at: datetime
    remembered: bool
    current: bool


def load_session(token: str) -> SignedIn | None:
    """Who holds this cookie, with the wallet and the unpaid bills of the frame, in one query; None when it is not, or no longer, good."""
    now = clock.now()
    row = db.row(_LOAD, id=digest(token), now=now, idle=now - IDLE, staff_idle=now - STAFF_IDLE)
    return SignedIn(*row) if row else None


def open_session(user_id: int, *, remember: bool = False, ip: str = "", user_agent: str = "") -> str:
    """Sign a user in and return the secret for the cookie; support is never remembered. Opens its own transaction."""
    token, now = secrets.token_urlsafe(32), clock.now()
    until = {"expires_at": now + ABSOLUTE, "remembered_until": now + REMEMBERED}
    with db.transaction():
        db.execute(_OPEN, id=digest(token), user_id=user_id, now=now, **until, remembered=remember, ip=ip, user_agent=user_agent[:300])
        record("signed_in", user_id, ip=ip, details={"device": describe_device(user_agent)})
    return token


def renew(user_id: int, session_id: bytes) -> Renewed | None:
    """Give a living session of a user a new secret; its old one is dead. None when it is not theirs, or over. Within a transaction."""
    secret = secrets.token_urlsafe(32)
    row = db.row(_RENEW, id=session_id, user_id=user_id, new=digest(secret))
    if row is None:
        return None
    return Renewed(secret, int((row.expires_at - clock.now()).total_seconds()) if row.remembered else None)


def touch(session_id: bytes) -> None:
    """Note that a session is alive. Opens its own transaction."""
    with db.transaction():
        db.execute("update sessions set seen_at = %(now)s where id = %(id)s and seen_at < %(now)s", id=session_id, now=clock.now())


def close_session(token: str, *, ip: str = "") -> None:
    """Sign out: this cookie is dead from now on. Opens its own transaction."""
    with db.transaction():
        row = db.row(_REVOKE_THIS, id=digest(token), now=clock.now())
        if row is not None:
            record("signed_out", row.user_id, ip=ip)


def list_sessions(user_id: int, current: bytes) -> list[Session]:
    """A user's living sessions, the current one first."""
    now = clock.now()
    found = db.rows(_LIST, user_id=user_id, current=current, now=now, idle=now - IDLE, staff_idle=now - STAFF_IDLE)
    return [Session(row.reference, describe_device(row.user_agent), *row[2:]) for row in found]


def revoke_session(user_id: int, reference: str, *, ip: str = "") -> bool:
    """Sign out one of a user's sessions; False when it is not theirs or already over. Opens its own transaction."""
    with db.transaction():
        if not db.execute(_REVOKE_ONE, user_id=user_id, reference=reference, now=clock.now()):
            return False
        record("session_revoked", user_id, ip=ip)
    return True


def revoke_others(user_id: int, keep: bytes, *, ip: str = "") -> int:
    """Sign out everywhere but here; returns how many sessions ended. Opens its own transaction."""
    with db.transaction():
        ended = revoke_all(user_id, keep=keep)
        record("sessions_revoked", user_id, ip=ip, details={"ended": ended})
    return ended


def revoke_all(user_id: int, *, keep: bytes | None = None) -> int:
    """End a user's sessions but ``keep``. Within a transaction."""
    return db.execute(_REVOKE_ALL, user_id=user_id, keep=keep, now=clock.now())


def describe_device(user_agent: str) -> str:
    """A browser's name for itself in words: ``Firefox on Linux``."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "Unknown browser")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    return f"{browser} on {system}" if system else browser
