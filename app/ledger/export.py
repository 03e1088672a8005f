"""The whole book for other programs: beancount, whose own checker then agrees, and CSV. One moment, in bounded memory."""

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TextIO
from zlib import crc32

from app import clock, db
from app.money import exponent

_ROOTS: Mapping[str, str] = {
    "wallet": "Liabilities:Wallet",
    "bonus": "Liabilities:Bonus",
    "hold": "Liabilities:Hold",
    "suspense": "Liabilities:Suspense",
    "vat": "Liabilities:Vat",
    "gateway": "Assets:Gateway",
    "bank": "Assets:Bank",
    "debt": "Assets:Debt",
    "disputes": "Assets:Disputes",
    "revenue": "Income:Revenue",
    "fees": "Expenses:Fees",
    "promotions": "Expenses:Promotions",
    "rounding": "Expenses:Rounding",
    "fx": "Equity:Fx",
}
"""Where each kind of account stands in a bookkeeper's chart."""
_WITHOUT_KEY = "General"
"""The leaf of an account that has no key. A balance assertion counts what stands below an account,
so no account that is asserted may be the parent of another."""

_COLUMNS = ("transfer", "reference", "kind", "posted_at", "account", "customer", "seq", "currency", "amount", "balance_after", "description", "actor", "hash", "document")

_FORMULA = re.compile(r"[\s'\"]*[=+\-@＝＋－＠]|[\t\r]")


def export_beancount(out: TextIO) -> None:
    """Write every transfer as a beancount transaction and assert the balance of every account at the end.

    Beancount counts debits as positive, so every sign is turned: a wallet is a liability and reads negative there.
    """
    with db.snapshot():
        found = {row.id: row for row in db.rows(_ACCOUNTS)}
        names = {row.id: _name(row.kind, row.customer_id, row.key) for row in found.values()}
        first, last = db.rows(_PERIOD)[0]
        out.write('option "title" "Client Area, the whole ledger"\n')
        out.writelines(f'option "operating_currency" "{currency}"\n' for currency in sorted({row.currency for row in found.values()}))
        opened = _day(first) if first else date(1970, 1, 1)
        out.writelines(f"{opened} open {name} {','.join(currencies)}\n" for name, currencies in _by_name(found, names))
        out.writelines(_transaction(lines, names) for lines in _transfers())
        if last:
            out.write("\n; Each account, as the books say it stands.\n")
            out.writelines(_assertion(_day(last) + timedelta(days=1), names[row.id], -row.balance, row.currency) for row in found.values())


def export_csv(out: TextIO) -> None:
    """Write one row per entry, by transfer; amounts in major units, times in UTC. What a spreadsheet would run as a formula is quoted."""
    write = csv.writer(out)
    write.writerow(_COLUMNS)
    with db.snapshot():
        names = {row.id: _name(row.kind, row.customer_id, row.key) for row in db.rows(_ACCOUNTS)}
        for lines in _transfers():
            write.writerows(_csv_row(line, names) for line in lines)


def _transfers() -> Iterator[list[db.Row]]:
    for _, lines in groupby(db.stream(_ENTRIES), key=lambda line: line.transfer_id):
        yield list(lines)


def _transaction(lines: list[db.Row], names: Mapping[int, str]) -> str:
    head = lines[0]
    link = f" ^{head.document}" if head.document else ""
    title = f'"{_quoted(head.kind)}" "{_quoted(head.description)}"'
    written = [f"\n{_day(head.at)} * {title}{link}", f'  reference: "{_quoted(head.reference)}"', f'  transfer: "{head.transfer_id}"']
    written += [f"  {names[line.account_id]}  {_major(-line.amount, line.currency)} {line.currency}" for line in lines]
    return "\n".join(written) + "\n"


def _assertion(day: date, name: str, minor: int, currency: str) -> str:
    return f"{day} balance {name}  {_major(minor, currency)} ~ 0 {currency}\n"


def _by_name(found: Mapping[int, db.Row], names: Mapping[int, str]) -> list[tuple[str, list[str]]]:
    currencies: dict[str, set[str]] = {}
    for account_id, row in found.items():
        currencies.setdefault(names[account_id], set()).add(row.currency)
    return [(name, sorted(of)) for name, of in currencies.items()]


def _name(kind: str, customer_id: int | None, key: str) -> str:
    if customer_id is not None:
        return f"{_ROOTS[kind]}:C{customer_id}" + (f"-{_component(key)}" if key else "")
    return f"{_ROOTS[kind]}:{_component(key) if key else _WITHOUT_KEY}"


def _component(key: str) -> str:
    """A part of a beancount account's name; what it cannot spell is told apart by a checksum."""
    spelled = re.sub(r"[^A-Za-z0-9]+", "-", key).strip("-")
    spelled = spelled[:1].upper() + spelled[1:]
    plain = re.fullmatch(r"[a-z0-9]+|[A-Z0-9]{2,}", key) is not None
    return spelled if plain else f"{spelled or 'X'}-{crc32(key.encode()):08x}"


def _csv_row(line: db.Row, names: Mapping[int, str]) -> tuple[object, ...]:
    after = "" if line.balance_after is None else _major(line.balance_after, line.currency)
    return (
        line.transfer_id, _harmless(line.reference), line.kind, line.at.astimezone(UTC).isoformat(), names[line.account_id], line.customer_id, line.seq, line.currency,
        _major(line.amount, line.currency), after, _harmless(line.description), _harmless(line.actor), line.hash.hex(), line.document,
    )  # fmt: skip


def _harmless(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _quoted(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace('"', '\\"')


def _major(minor: int, currency: str) -> str:
    digits = exponent(currency)
    whole, fraction = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole}" + (f".{fraction:0{digits}d}" if digits else "")


def _day(moment: datetime) -> date:
    return clock.day_of(moment)


_ACCOUNTS = """
select id, kind, customer_id, key, currency,
  case when tracked then balance else (select coalesce(sum(amount), 0)::bigint from entries where account_id = accounts.id) end as balance
from accounts order by id
"""

_PERIOD = "select min(posted_at) as first, max(posted_at) as last from transfers"

_ENTRIES = """
select e.transfer_id, t.reference, t.kind, t.posted_at as at, t.description, t.actor, e.account_id, a.customer_id, e.seq, e.currency, e.amount, e.balance_after, e.hash,
  coalesce(b.invoice_number, b.proforma_number) as document
from entries e
join transfers t on t.id = e.transfer_id
join accounts a on a.id = e.account_id
left join bills b on b.id = t.bill_id
order by e.transfer_id, e.account_id, e.seq
"""
