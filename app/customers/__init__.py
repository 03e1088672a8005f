"""Customers pay, users log in. Registering, signing in, sessions, the billing profile, and the limits that keep guessing slow."""

from app.customers.access import (
    authenticate,
    change_password,
    email_problem,
    login_problem,
    register,
    request_email_change,
    request_reset,
    request_verification,
    reset_password,
    tidy,
    verify,
)
from app.customers.events import Event, credentials_changed_at, history, record
from app.customers.limits import RateLimited, allow, count, give_back, network, retry_after
from app.customers.passwords import (
    MAX_LENGTH,
    MIN_LENGTH,
    hash_password,
    password_problem,
)
from app.customers.people import (
    KINDS,
    WITHOUT_POSTCODE,
    Beneficiary,
    Customer,
    Profile,
    Refused,
    User,
    change_currency,
    context_words,
    create_user,
    find_beneficiary,
    find_logins,
    find_user,
    get,
    get_many,
    get_user,
    hold,
    hold_new,
    insert_guest,
    is_open,
    missing_fields,
    promote,
    settle_currency,
    update_profile,
)
from app.customers.places import LANGUAGES, countries, timezones
from app.customers.sessions import (
    ABSOLUTE,
    IDLE,
    REMEMBERED,
    SEEN_EVERY,
    Session,
    SignedIn,
    close_session,
    list_sessions,
    load_session,
    open_session,
    revoke_others,
    revoke_session,
    touch,
)
from app.customers.tokens import peek as peek_link

__all__ = [
    "ABSOLUTE", "IDLE", "KINDS", "LANGUAGES", "MAX_LENGTH", "MIN_LENGTH", "REMEMBERED", "SEEN_EVERY", "WITHOUT_POSTCODE",
    "Beneficiary", "Customer", "Event", "Profile", "RateLimited", "Refused", "Session", "SignedIn", "User",
    "allow", "authenticate", "change_currency", "change_password", "close_session", "context_words", "count", "countries", "create_user", "credentials_changed_at", "email_problem", "find_beneficiary", "find_logins", "find_user", "get",
    "get_many", "get_user", "give_back", "hash_password", "history", "hold", "hold_new", "insert_guest", "is_open", "list_sessions", "load_session", "login_problem", "missing_fields", "network", "open_session",
    "password_problem", "peek_link", "promote", "record", "register", "request_email_change", "request_reset", "request_verification",
    "reset_password", "retry_after", "revoke_others", "revoke_session", "settle_currency", "tidy", "timezones", "touch", "update_profile", "verify",
]  # fmt: skip
