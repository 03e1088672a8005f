"""Customers, who pay, and users, who log in: what is known about them, and the billing profile a document needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import config
from app import audit, clock, db, mail, remittance
from app.customers import billing, credentials, names, passwords
from app.customers.events import record

KINDS: Final = ("individual", "company")
LONGEST_LOGIN: Final = 40
WITHOUT_POSTCODE: Final = frozenset({
    *("AE", "AG", "AO", "AW", "BF", "BI", "BJ", "BO", "BS", "BW", "BZ", "CD", "CF", "CG", "CI", "CK", "CM", "DJ", "DM", "ER", "FJ", "GA"),
    *("GD", "GH", "GM", "GQ", "GY", "HK", "KI", "KM", "KN", "KP", "LC", "ML", "MO", "MR", "MW", "NR", "NU", "QA", "RW", "SB", "SC", "SL"),
    *("SR", "ST", "SY", "TD", "TG", "TK", "TL", "TO", "TV", "UG", "VU", "YE", "ZW"),
})  # fmt: skip
"""Countries whose addresses have no postcode (Universal Postal Union)."""


class Refused(ValueError):
    """What was entered cannot be taken. ``field`` is the form field it belongs to, str() a sentence for the customer."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True, slots=True)
class Profile:
    """What a customer may change about itself. ``country`` and ``currency`` are ISO codes or None."""

    kind: str = "individual"
    name: str = ""
    company: str = ""
    street: str = ""
    postcode: str = ""
    city: str = ""
    country: str | None = None
    vat_id: str = ""
    billing_email: str = ""
    po_number: str = ""
    currency: str | None = None
    display_currencies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. ``email`` is where its documents go: the billing address, else the first user's. ``currency_fixed`` once there is a bill.

    A ``guest`` paid for somebody else by a link and has no login: nobody signs in as it, and its address is not confirmed.
    """

    id: int
    profile: Profile
    vat_id_state: str
    email: str
    locale: str
    timezone: str
    verified: bool
    currency_fixed: bool
    guest: bool
    created_at: datetime

    @property
    def title(self) -> str:
        """The name a document is made out to."""
        return (self.profile.company if self.profile.kind == "company" else "") or self.profile.name

    @property
    def currency(self) -> str | None:
        """The account currency, None until it is chosen or the first top-up decides it."""
        return self.profile.currency


@dataclass(frozen=True, slots=True)
class User:
    """Who logs in. ``customer_id`` is None only for support."""

    id: int
    customer_id: int | None
    login: str
    email: str
    name: str
    role: str
    locale: str
    timezone: str
    verified: bool
    created_at: datetime


_USER: Final = "select id, customer_id, login, email, name, role, locale, timezone, verified_at is not null as verified, created_at from users "
_USER_BY_ID: Final = _USER + "where id = %(id)s"
_USER_BY_LOGIN: Final = _USER + "where login = %(login)s and disabled_at is null"
_USER_BY_EMAIL: Final = _USER + "where email = %(email)s and verified_at is not null and disabled_at is null"
_CUSTOMER: Final = """
select c.*, coalesce(u.email, '') as user_email, coalesce(u.locale, c.guest_locale, 'en') as locale, coalesce(u.timezone, 'UTC') as timezone, u.email is null as guest,
       exists (select 1 from users where customer_id = c.id and verified_at is not null) as verified,
       exists (select 1 from accounts where customer_id = c.id) or exists (select 1 from bills where customer_id = c.id) as currency_fixed
from customers c
left join lateral (select email, locale, timezone from users where customer_id = c.id order by id limit 1) u on true
where c.id = any(%(ids)s)
"""
_CREATE: Final = """
with customer as (
  insert into customers (name, created_at) select %(name)s, %(now)s where %(role)s = 'customer' returning id
)
insert into users (customer_id, login, email, name, password_hash, role, locale, timezone, verified_at, created_at)
values ((select id from customer), %(login)s, %(email)s, %(name)s, %(password_hash)s, %(role)s, %(locale)s, %(timezone)s, %(verified_at)s, %(now)s)
on conflict (login) do nothing returning id
"""
_BENEFICIARY: Final = """
select c.id, u.login, c.currency from users u join customers c on c.id = u.customer_id
where u.login = %(login)s and u.role = 'customer' and u.verified_at is not null and u.disabled_at is null and c.closed_at is null and c.currency is not null
"""
_IS_OPEN: Final = """
select exists (select from customers c join users u on u.customer_id = c.id where c.id = %(id)s and c.closed_at is null and u.disabled_at is null)
"""
_GUEST: Final = """
insert into customers (kind, name, company, street, postcode, city, country, billing_email, guest_locale, created_at)
values (%(kind)s, %(name)s, %(company)s, %(street)s, %(postcode)s, %(city)s, %(country)s, %(billing_email)s, %(locale)s, %(now)s) returning id
"""
_UPDATE: Final = """
update customers set kind = %(kind)s, name = %(name)s, company = %(company)s, street = %(street)s, postcode = %(postcode)s, city = %(city)s,
  country = %(country)s, po_number = %(po_number)s, display_currencies = %(display_currencies)s,
  vat_id_state = case when %(vat_id)s = '' then 'none' when (vat_id, country) is not distinct from (%(vat_id)s, %(country)s) then vat_id_state else 'unverified' end,
  vat_check_due_at = case when (vat_id, country, kind) is not distinct from (%(vat_id)s, %(country)s, %(kind)s) then vat_check_due_at else %(now)s end,
  vat_check_tries = case when vat_id = %(vat_id)s then vat_check_tries else 0 end,
  vat_checked_at = case when vat_id = %(vat_id)s then vat_checked_at end,
  vat_id = %(vat_id)s
where id = %(id)s
"""
_CHOOSE_CURRENCY: Final = """
update customers set currency = %(currency)s
where id = %(id)s and currency is distinct from %(currency)s
  and not exists (select 1 from accounts where customer_id = %(id)s) and not exists (select 1 from bills where customer_id = %(id)s)
"""


def get(customer_id: int) -> Customer:
    """One customer by its id. Raises LookupError."""
    found = get_many([customer_id])
    if not found:
        raise LookupError(f"no customer {customer_id}")
    return found[customer_id]


def get_many(customer_ids: Iterable[int]) -> dict[int, Customer]:
    """Customers by their ids, in one question; those there are."""
    return {found.id: _customer(found) for found in db.rows(_CUSTOMER, ids=list(customer_ids))}


def find_logins(logins: Iterable[str]) -> dict[str, int]:
    """The customer of each login that has one, by the exact login."""
    found = db.rows("select login, customer_id from users where login = any(%(logins)s) and customer_id is not null and disabled_at is null", logins=list(logins))
    return {row.login: row.customer_id for row in found}


def _customer(found: db.Row) -> Customer:
    profile = Profile(
        found.kind, found.name, found.company, found.street, found.postcode, found.city, found.country, found.vat_id,
        found.billing_email, found.po_number, found.currency, tuple(found.display_currencies),
    )  # fmt: skip
    email = found.billing_email or found.user_email
    return Customer(found.id, profile, found.vat_id_state, email, found.locale, found.timezone, found.verified, found.currency_fixed, found.guest, found.created_at)


def get_user(user_id: int) -> User:
    """One user by id. Raises LookupError."""
    found = db.row(_USER_BY_ID, id=user_id)
    if found is None:
        raise LookupError(f"no user {user_id}")
    return User(*found)


def find_user(login_or_email: str) -> User | None:
    """The user of a login, or the confirmed holder of an e-mail address. Case and outer blanks do not count.

    Who only claims an address is not found by it: see `access.authenticate`.
    """
    name = login_or_email.strip().lower().replace("\0", "�")
    found = db.row(_USER_BY_EMAIL, email=name) if "@" in name else db.row(_USER_BY_LOGIN, login=name)
    return User(*found) if found else None


@dataclass(frozen=True, slots=True)
class Beneficiary:
    """Whom somebody else's money is for: no more than the payment needs."""

    id: int
    login: str
    currency: str


def find_beneficiary(login: str) -> Beneficiary | None:
    """Whose balance others may add to by this exact login; None for nobody, and alike for an account that is closed, not confirmed or without
    a currency yet, and for support. One statement by one index, whatever the answer.
    """
    row = db.row(_BENEFICIARY, login=login.strip().lower().replace("\0", "�")[: LONGEST_LOGIN + 1])
    return Beneficiary(*row) if row else None


def is_open(customer_id: int) -> bool:
    """Whether an account takes funds still: not closed, and somebody can log in."""
    return bool(db.scalar(_IS_OPEN, id=customer_id))


def insert_guest(profile: Profile, locale: str) -> int:
    """A customer without a login, who pays for somebody else: what its documents need, where they go and in which language. Within a transaction."""
    _refuse_bait(profile)
    facts = {name: getattr(profile, name) for name in ("kind", "name", "company", "street", "postcode", "city", "country", "billing_email")}
    return int(db.scalar(_GUEST, locale=locale, now=clock.now(), **facts))


def insert_user(
    login: str,
    email: str,
    password_hash: str,
    *,
    name: str = "",
    role: str = "customer",
    locale: str = "en",
    timezone: str = "UTC",
    verified_at: datetime | None = None,
) -> User:
    """A new user and, unless it is support, its customer. Raises `Refused` when the login is taken. Within a transaction."""
    if problem := names.name_problem(name):
        raise Refused("name", problem)
    facts = {"login": login, "email": email.strip().lower(), "name": name, "role": role, "locale": locale, "timezone": timezone}
    user_id = db.scalar(_CREATE, **facts, password_hash=password_hash, verified_at=verified_at, now=clock.now())
    if user_id is None:
        raise Refused("login", "This login is taken. Choose another one.")
    return get_user(user_id)


def create_user(
    login: str,
    email: str,
    password: str,
    *,
    name: str = "",
    role: str = "customer",
    locale: str = "en",
    timezone: str = "UTC",
    verified: bool = True,
    password_hash: str | None = None,
) -> User:
    """What an operator makes at the command line, by the rules of registering but without a mail. Raises `Refused`.

    ``password_hash`` is for seeding in bulk: hashed once for many, and neither the login nor the password is asked about.
    Opens its own transaction.
    """
    seeding = password_hash is not None
    if not seeding:
        _refuse_made(login, email, password, name, role)
    stored = password_hash or passwords.hash_password(password)
    with db.transaction():
        user = insert_user(login, email, stored, name=name, role=role, locale=locale, timezone=timezone, verified_at=clock.now() if verified else None)
        record("registered", user.id, details={"by": "operator"})
        if not seeding:
            audit.record("user.create", "user", user.login, details={"role": role})
    return user


def promote(login: str, role: str) -> User:
    """Give a user another role and end its sessions and links, so nothing goes on with the old one. Raises LookupError, `Refused`."""
    if role not in {"customer", "support"}:
        raise Refused("role", "A role is customer or support.")
    with db.transaction():
        user = find_user(login)
        if user is None:
            raise LookupError(f"no user {login}")
        if role == "customer" and user.customer_id is None:
            raise Refused("role", "This user was made for support and has no customer of its own.")
        credentials.set_role(user.id, role)
        record("role_changed", user.id, details={"from": user.role, "to": role})
        audit.record("user.promote", "user", user.login, details={"from": user.role, "to": role})
        return get_user(user.id)


def _refuse_made(login: str, email: str, password: str, name: str, role: str) -> None:
    """Refuse what an operator may not make: support's own logins may be called like an office."""
    ours = role == "support" and names.login_problem(login) == names.CANNOT and remittance.names_money(login)
    problems = {
        "login": None if ours else names.login_problem(login),
        "email": None if mail.is_address(email.strip()) else "Enter one full e-mail address, such as anna@example.com.",
        "password": passwords.password_problem(password, context_words(login, email, name)),
    }
    for field, problem in problems.items():
        if problem:
            raise Refused(field, problem)


def hold(customer_id: int) -> None:
    """Lock a customer until the transaction ends: after a payment, before any bill or money. What it buys and gives back queues. Within a transaction."""
    db.rows("select 1 from customers where id = %(id)s for no key update", id=customer_id)


def hold_new(customer_ids: Iterable[int]) -> None:
    """Lock those of the customers, in order of id, that have no currency yet: before the bills of their first money, as `hold`. Within a transaction."""
    db.rows("select 1 from customers where id = any(%(ids)s) and currency is null order by id for no key update", ids=sorted(set(customer_ids)))


def update_profile(
    user_id: int,
    customer_id: int,
    profile: Profile,
    *,
    locale: str,
    timezone: str,
    ip: str = "",
) -> str:
    """Write the billing profile and the user's language and time zone. The currency is taken only before the first bill.

    Another billing address counts once a link mailed to it was followed; returned is the one that has to, or nothing.
    Opens its own transaction. Raises `Refused` when the currency can no longer change, or the country, which every bill is taxed by, would be none,
    and `RateLimited`.
    """
    _refuse_bait(profile)
    billing_email = profile.billing_email.strip().lower()
    billing.count_request(user_id, billing_email)
    values = {name: getattr(profile, name) for name in Profile.__slots__} | {"display_currencies": list(profile.display_currencies)}
    with db.transaction():
        hold(customer_id)
        if not _choose_currency(customer_id, profile.currency):
            raise Refused("currency", "The account has bills in its currency, so it can no longer be chosen here.")
        if profile.country is None and db.scalar("select exists (select from bills where customer_id = %(id)s)", id=customer_id):
            raise Refused("country", "Your bills need a country. Choose another one if you have moved.")
        db.execute(_UPDATE, id=customer_id, now=clock.now(), **values)
        db.execute(
            "update users set name = %(name)s, locale = %(locale)s, timezone = %(timezone)s where id = %(id)s", name=profile.name, locale=locale, timezone=timezone, id=user_id
        )
        record("profile_changed", user_id, ip=ip)
        return billing.change(user_id, billing_email, ip=ip)


def seed_billing_email(customer_id: int, email: str) -> None:
    """Send a customer's documents to an address without asking it: for seeding only. Opens its own transaction."""
    with db.transaction():
        db.execute("update customers set billing_email = %(email)s where id = %(id)s", email=email, id=customer_id)


def _refuse_bait(profile: Profile) -> None:
    """Refuse names that mail programs would make a link of, or that are more than one line."""
    for field, company in (("name", False), ("company", True)):
        if problem := names.name_problem(getattr(profile, field), company=company):
            raise Refused(field, problem)


def settle_currency(customer_id: int, currency: str) -> str:
    """The account currency; a customer that has none yet gets ``currency`` for good. Within a transaction."""
    db.execute("update customers set currency = %(currency)s where id = %(id)s and currency is null", currency=currency, id=customer_id)
    return str(db.scalar("select currency from customers where id = %(id)s", id=customer_id))


def change_currency(customer_id: int, currency: str) -> None:
    """Another account currency; what the customer has was brought over before. Within a transaction."""
    db.execute("update customers set currency = %(currency)s where id = %(id)s", currency=currency, id=customer_id)


def missing_fields(customer: Customer) -> list[str]:
    """What must be filled in before money can be taken, in the words of the page; empty when nothing is missing."""
    profile = customer.profile
    wanted: list[tuple[str, bool]] = [
        ("a confirmed e-mail address", customer.verified or customer.guest),
        ("company", bool(profile.company)) if profile.kind == "company" else ("name", bool(profile.name)),
        ("street", bool(profile.street)),
        ("postcode", bool(profile.postcode) or profile.country in WITHOUT_POSTCODE),
        ("city", bool(profile.city)),
        ("country", bool(profile.country)),
    ]
    return [label for label, present in wanted if not present]


def context_words(*words: str) -> Iterable[str]:
    """The words a password must not lean on: what is given, and the seller's brand."""
    return (*words, config.current().seller.brand, "client area", "password")


def _choose_currency(customer_id: int, currency: str | None) -> bool:
    if currency == db.scalar("select currency from customers where id = %(id)s", id=customer_id):
        return True
    return db.execute(_CHOOSE_CURRENCY, id=customer_id, currency=currency) == 1
