"""Customers pay, users log in. Registering, signing in, sessions, the billing profile, and the limits that keep guessing slow."""

from app.customers.access import (
    CLAIMS,
    authenticate,
    change_password,
    email_problem,
    register,
    request_email_change,
    request_reset,
    request_verification,
    reset_password,
    tidy,
    undo_email_change,
    verify,
)
from app.customers.billing import confirm as confirm_billing_email
from app.customers.billing import waiting_address as waiting_billing_email
from app.customers.closing import NotClosable, Obstacle, close, disable, enable, sign_out
from app.customers.events import Event, credentials_changed_at, history, record
from app.customers.limits import RateLimited, allow, count, give_back, network, retry_after
from app.customers.names import login_problem, name_problem
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
    seed_billing_email,
    settle_currency,
    update_profile,
)
from app.customers.places import LANGUAGES, countries, timezones
from app.customers.sessions import (
    ABSOLUTE,
    IDLE,
    REMEMBERED,
    SEEN_EVERY,
    STAFF_IDLE,
    Renewed,
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
    "ABSOLUTE", "CLAIMS", "IDLE", "KINDS", "LANGUAGES", "MAX_LENGTH", "MIN_LENGTH", "REMEMBERED",
    "SEEN_EVERY", "STAFF_IDLE", "WITHOUT_POSTCODE", "Beneficiary", "Customer", "Event",
    "NotClosable", "Obstacle", "Profile", "RateLimited", "Refused", "Renewed", "Session",
    "SignedIn", "User", "allow", "authenticate", "change_currency", "change_password", "close",
    "close_session", "confirm_billing_email", "context_words", "count", "countries", "create_user",
    "credentials_changed_at", "disable", "email_problem", "enable", "find_beneficiary",
    "find_logins", "find_user", "get", "get_many", "get_user", "give_back", "hash_password",
    "history", "hold", "hold_new", "insert_guest", "is_open", "list_sessions", "load_session",
    "login_problem", "missing_fields", "name_problem", "network",
    "open_session", "password_problem", "peek_link", "promote", "record", "register",
    "request_email_change", "request_reset", "request_verification", "reset_password",
    "retry_after", "revoke_others", "revoke_session", "seed_billing_email", "settle_currency",
    "sign_out", "tidy", "timezones", "touch", "undo_email_change", "update_profile", "verify",
    "waiting_billing_email",
]  # fmt: skip
