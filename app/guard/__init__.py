"""The database's own guard: which rows may change, and that the app cannot change the others.

`tables` says what may happen to each table, `protect` makes triggers and rights of it, `check`
says where the database of this process is not protected so.
"""

from app.guard.check import Finding, findings, may_leave_role
from app.guard.protect import (
    ProtectError,
    Unclassified,
    add_login,
    apply,
    checked_name,
    make_role,
    role_sql,
)
from app.guard.start import Unprotected, at_start, live
from app.guard.tables import OWNERS_ONLY, TABLES, TRIGGERS, Table

__all__ = [
    "OWNERS_ONLY",
    "TABLES",
    "TRIGGERS",
    "Finding",
    "ProtectError",
    "Table",
    "Unclassified",
    "Unprotected",
    "add_login",
    "apply",
    "at_start",
    "checked_name",
    "findings",
    "live",
    "make_role",
    "may_leave_role",
    "role_sql",
]
