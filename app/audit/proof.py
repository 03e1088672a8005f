"""Proof that the audit log is whole: the chain is computed again from the rows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from app import db

_ROWS = """
select c.position, c.hash, l.id,
  array[
    l.id::text,
    to_char(l.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
    l.actor,
    coalesce(l.user_id::text, ''),
    l.address,
    l.request,
    l.action,
    l.subject,
    l.subject_id,
    l.reason,
    l.details::text
  ] as parts
from audit_chain c
full join audit_log l on l.id = c.entry_id
order by c.position, l.id
"""
_HEAD = "select position, hash from audit_chain order by position desc limit 1"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be: its kind in a word, and a sentence."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def head() -> tuple[int, str]:
    """The last position of the chain and its hash in hexadecimal; (0, "") of an empty log.

    Kept outside the database it proves later that no row was taken off the end.
    """
    last = db.row(_HEAD)
    return (last.position, bytes(last.hash).hex()) if last else (0, "")


def check(*, position: int = 0, expected: str = "") -> Iterator[Fault]:
    """Compute the chain again; yields each fault. In bounded memory.

    ``position`` and ``expected`` are a head noted earlier: the chain must still hold it there.
    """
    before, place, found = b"", 0, ""
    for row in db.stream(_ROWS):
        if row.position is None:
            yield Fault("unchained", f"entry {row.id} is not in the chain")
            continue
        if row.position != place + 1:
            yield Fault("gap", f"position {place + 1} is missing before {row.position}")
        place = row.position
        hashed = hashlib.sha256(before + _content(row.parts)).digest() if row.id else b""
        if hashed != bytes(row.hash):
            yield Fault("changed", f"position {place}, entry {row.id}: not what was written")
        before = bytes(row.hash)
        found = before.hex() if place == position else found
    if position and found != expected:
        yield Fault("head", f"position {position} does not hold the hash noted for it")


def _content(parts: list[str]) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join(str(len(part)).encode() + b":" + part for part in encoded)
