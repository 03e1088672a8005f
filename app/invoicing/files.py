"""The stored PDFs: each document is printed once, kept with its SHA-256, and handed out as those bytes for ever.

Printing happens in a process of its own (`press`), one at a time in the whole house: by the clock soon after a document is issued, or
when it is asked for first. Who finds the press busy for too long is told to come back, and keeps no page of others waiting.
"""

import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import psycopg

from app import clock, db
from app.invoicing import paper, press, states
from app.invoicing.press import GlyphsMissing, PressError

log = logging.getLogger(__name__)

RECENT = timedelta(days=1)
"""How old a document may be to be printed by the clock. Older ones, a migrated archive say, are printed when somebody asks."""
BATCH = 20
LARGEST_BUNDLE = 50
WAIT = "3s"
LOOK_AGAIN = timedelta(minutes=10)
"""How long the clock leaves a document alone for which a font is missing."""
_LOCK_KEY = 0x70726573  # "pres"


_without_font: dict[int, datetime] = {}
"""When this process last tried to print a document for which a font is missing, by its id."""


class PressBusy(PressError):
    """Another document is being printed; ask again in a few seconds."""


@dataclass(frozen=True, slots=True)
class File:
    """One stored PDF. `sha256` is the hex digest of `pdf`."""

    number: str
    pdf: bytes
    sha256: str

    @property
    def filename(self) -> str:
        """The name to save it by: INV-2026-000412.pdf."""
        return f"{self.number}.pdf"


_STORED = f"""
select b.invoice_number, b.proforma_number, d.kind as document_kind, b.status, b.kind, b.total, b.currency, b.closed_at, {states.COLUMNS}, d.id, d.number, d.content, f.pdf, encode(f.sha256, 'hex') as sha256
from bills b
{states.FACTS}
join documents d on d.bill_id = b.id
  and d.kind = case when %(kind)s = 'receipt' then 'receipt' when b.invoice_number is not null then 'invoice' else 'proforma' end
  and (d.kind <> 'proforma' or d.number = b.proforma_number)
left join document_files f on f.document_id = d.id
where b.customer_id = %(customer_id)s
  and (
    b.invoice_number = any(%(numbers)s)
    or b.proforma_number = any(%(numbers)s)
    or b.reissued_at is not null and b.former_names && %(numbers)s::text[]
  )
order by d.id
"""  # noqa: S608 - constants

_OF_REFUNDS = """
select d.id, d.number, d.content, f.pdf, encode(f.sha256, 'hex') as sha256
from documents d left join document_files f on f.document_id = d.id
where d.customer_id = %(customer_id)s and d.kind = 'refund_receipt' and d.number = any(%(numbers)s)
"""

# Receipts from before there was a transfer on them are those of the bill that the payment settled.
_OF_PAYMENT = """
select d.id, d.number, d.content, f.pdf, encode(f.sha256, 'hex') as sha256
from documents d
left join document_files f on f.document_id = d.id
where d.id = (
  select r.id
  from documents r
  join payments p on p.bill_id = r.bill_id
  left join transfers t on t.id = r.transfer_id
  where p.id = %(payment_id)s
    and r.kind = any(%(kinds)s)
    and (
      t.payment_id = p.id
      or (
        r.kind = 'receipt'
        and r.transfer_id is null
        and exists (select from bills b where b.id = r.bill_id and b.payment ->> 'reference' = p.public_id)
      )
    )
    and (%(number)s = '' or r.number = %(number)s)
  order by r.id desc
  limit 1
)
"""

_NUMBERS_OF_PAYMENT = """
select d.number
from documents d
join transfers t on t.id = d.transfer_id
where t.payment_id = %(payment_id)s
  and d.kind in ('receipt', 'payment_receipt')
order by d.id
"""

_STORE = """
insert into document_files (document_id, pdf, sha256, rendered_at) values (%(id)s, %(pdf)s, sha256(%(pdf)s), %(now)s)
on conflict do nothing
"""

_PENDING = """
select d.id, d.number, d.content from documents d
where d.issued_at > %(since)s and d.kind <> 'proforma' and d.id <> all(%(resting)s) and not exists (select from document_files f where f.document_id = d.id)
order by d.issued_at desc, d.id desc limit %(limit)s
"""


def pdf(customer_id: int, number: str, kind: str = "invoice") -> File | None:
    """The PDF of a customer's own bill, or None when there is none of that number: the same for a stranger's and a wrong one.

    `kind` is ``invoice`` (while the bill is unpaid: its pro forma) or ``receipt``. Raises PressError when it has to be printed first
    and cannot be now. Opens a transaction then, and only then.
    """
    found = pdfs(customer_id, [number], kind)
    return found[0] if found else None


def refund_pdf(customer_id: int, number: str) -> File | None:
    """The PDF of a refund's receipt, of a bill that this customer paid, as `pdf` does."""
    found = _printed(_OF_REFUNDS, {"customer_id": customer_id, "numbers": [number]})
    return found[0] if found else None


def receipt_pdf(payment_id: int, number: str = "", *, by_link: bool = False) -> File | None:
    """The PDF of a payment's newest receipt, or of the one of that number, as `pdf` does; whose it is, the caller has looked at.

    With `by_link` the one for who paid by a copied link, which does not name the bill's owner.
    """
    kinds = ["link_receipt"] if by_link else ["receipt", "payment_receipt"]
    found = _printed(_OF_PAYMENT, {"payment_id": payment_id, "kinds": kinds, "number": number})
    return found[0] if found else None


def receipts_of(payment_id: int) -> list[str]:
    """The numbers of a payment's receipts, oldest first: one for each time that money of it was credited."""
    return [row.number for row in db.rows(_NUMBERS_OF_PAYMENT, payment_id=payment_id)]


def pdfs(customer_id: int, numbers: Sequence[str], kind: str = "invoice") -> list[File]:
    """The PDFs of a customer's own bills, those that exist, oldest first; each as `pdf` says.

    A pro forma of which a part is paid, or that asks for nothing any more, is printed as it has to be read now; what was stored stays.
    """
    wanted = {"customer_id": customer_id, "numbers": list(numbers), "kind": kind}
    every = db.rows(_STORED, **wanted)
    changed = {row.number: row for row in every if row.document_kind == "proforma" and states.read(row).code not in paper.AS_ISSUED}
    if not changed:
        return _printed(_STORED, wanted)
    fresh = _print_now(list(changed.values()))
    rest = [number for number in numbers if number not in changed]
    stored = _printed(_STORED, wanted | {"numbers": rest}) if rest else []
    found = {file.number: file for file in (*stored, *fresh)}
    return [found[row.number] for row in every]


def _print_now(rows: Sequence[db.Row]) -> list[File]:
    """Print documents as their bills stand now, once the press is free. Nothing is stored. Raises PressError."""
    with db.transaction():
        _take_press()
        printed = press.render([paper.sheet(row.content, states.read(row)) for row in rows])
    failed = next((result for result in printed if isinstance(result, PressError)), None)
    if failed:
        raise failed
    return [File(row.number, result, sha256(result).hexdigest()) for row, result in zip(rows, printed, strict=True) if isinstance(result, bytes)]


def _printed(which: str, wanted: dict[str, Any]) -> list[File]:
    found = db.rows(which, **wanted)
    if any(document.pdf is None for document in found):
        _print(which, wanted)
        found = db.rows(which, **wanted)
    return [File(document.number, bytes(document.pdf), document.sha256) for document in found]


def bundle(customer_id: int, numbers: Sequence[str]) -> bytes | None:
    """A ZIP of invoices, at most `LARGEST_BUNDLE`; None unless every number is one of the customer's own. Same files, same bytes."""
    wanted = dict.fromkeys(numbers[: LARGEST_BUNDLE + 1])
    files = pdfs(customer_id, list(wanted)) if 0 < len(wanted) <= LARGEST_BUNDLE else []
    if not files or len(files) < len(wanted):
        return None
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in files:
            packed.writestr(zipfile.ZipInfo(file.filename), file.pdf)
    return archive.getvalue()


def render_pending(limit: int = BATCH) -> int:
    """Print documents issued lately that nobody has asked for yet, newest first; how many. Opens a transaction.

    0 when there are none or another process is at it. A document that cannot be printed is logged and holds up no other.
    """
    if not _pending(limit):
        return 0
    with db.transaction():
        if not db.scalar("select pg_try_advisory_xact_lock(%(key)s)", key=_LOCK_KEY):
            return 0
        pending = _pending(limit)
        return len(pending) - len(_print_and_store(pending))


def _pending(limit: int) -> list[db.Row]:
    now = clock.now()
    resting = [document for document, tried_at in _without_font.items() if now < tried_at + LOOK_AGAIN]
    return db.rows(_PENDING, since=now - RECENT, limit=limit, resting=resting)


def _print(which: str, wanted: dict[str, Any]) -> None:
    """Print what is missing of these, once the press is free; look again then, for another may have done it meanwhile."""
    with db.transaction():
        _take_press()
        missing = [document for document in db.rows(which, **wanted) if document.pdf is None]
        failed = _print_and_store(missing)
        if failed:
            raise failed[0]


def _take_press() -> None:
    db.rows(f"set local lock_timeout = '{WAIT}'")
    try:
        db.rows("select pg_advisory_xact_lock(%(key)s)", key=_LOCK_KEY)
    except psycopg.errors.LockNotAvailable:
        raise PressBusy("another document is being printed") from None


def _print_and_store(missing: Sequence[db.Row]) -> list[PressError]:
    """Print these and keep them; what went wrong with the others."""
    if not missing:
        return []
    printed = press.render([paper.sheet(document.content) for document in missing])
    failed = []
    for document, result in zip(missing, printed, strict=True):
        if isinstance(result, bytes):
            db.execute(_STORE, id=document.id, pdf=result, now=clock.now())
            _without_font.pop(document.id, None)
            continue
        failed.append(result)
        if isinstance(result, GlyphsMissing):
            _without_font[document.id] = clock.now()
            log.error("document %s waits: no font has %s; install fonts for it (bin/setup names them)", document.number, result)
        else:
            log.error("document %s could not be printed: %s", document.number, result)
    return failed
