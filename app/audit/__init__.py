"""The audit log: who decided what, when, from where and why.

One append-only table, written in the transaction of the decision itself. Each row's hash covers
the row and the hash before it; `check` recomputes the chain outside the database.
"""

from app.audit.actor import SYSTEM, Actor, acting_as, current_actor, set_actor
from app.audit.log import Entry, entries, record
from app.audit.proof import Fault, check, head

__all__ = [
    "SYSTEM",
    "Actor",
    "Entry",
    "Fault",
    "acting_as",
    "check",
    "current_actor",
    "entries",
    "head",
    "record",
    "set_actor",
]
