"""Reading the books. Flat however long the history: every entry carries its running sums, and a day is found by halving."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from app import db
from app.ledger.filter import Filter
from app.money import Money


@dataclass(frozen=True, slots=True)
class Movement:
    """One entry of an account with its transfer; amounts in minor units of the account's currency."""

    seq: int
    posted_at: datetime
    kind: str
    description: str
    amount: int
    balance_after: int
    reference: str
    transfer_id: int
    payment_id: int | None
    bill_id: int | None
    service_id: int | None
    refund_id: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """How many movements, and their sums in minor units, both without sign."""

    count: int
    incoming: int
    outgoing: int


SEARCHED_TEXTS: Final = ("t.description ilike %(pattern)s", "t.reference ilike %(pattern)s")
SEARCHED_AMOUNT: Final = "abs(e.amount) = %(figure)s::bigint"
SEARCHED: Final = (*SEARCHED_TEXTS, SEARCHED_AMOUNT)
"""What a search looks at: conditions over entries `e` and transfers `t`. ``pattern`` is the text
within anything, ``text`` itself, ``compact`` the text in capitals without blanks, ``figure`` the amount it is."""


def balance(account_id: int) -> int:
    """The balance of an account in minor units; a system account's is the sum of its entries. Raises LookupError."""
    found = db.scalar(_BALANCE, account_id=account_id)
    if found is None:
        raise LookupError(f"account {account_id} does not exist")
    return int(found)


def as_of(account_id: int, at: datetime) -> int:
    """The balance of an account in minor units just before an instant."""
    return int(db.scalar(_AS_OF, account_id=account_id, at=at))


def history(account_id: int, asked: Filter = Filter(), before: int | None = None, limit: int = 50) -> list[Movement]:  # noqa: B008 - a value, frozen
    """Movements of a tracked account, newest first, with a sequence number below `before`."""
    where, params = conditions(asked, before)
    return [Movement(*row) for row in db.rows(_HISTORY + where + _NEWEST, account_id=account_id, limit=limit, **params)]


def totals(account_id: int, asked: Filter = Filter()) -> Totals:  # noqa: B008
    """Sums over what `history` would show in all; for days alone the difference of two entries."""
    if asked.only_days:
        return Totals(*db.rows(_SPAN, account_id=account_id, begins_at=asked.begins_at, ends_at=asked.ends_at)[0])
    where, params = conditions(asked)
    source = _WITH_TRANSFERS if asked.text else "\nfrom entries e"
    return Totals(*db.rows(_SUMS + source + where, account_id=account_id, **params)[0])


def balance_series(account_id: int, since: date, until: date, timezone: str = "UTC") -> list[tuple[date, int]]:
    """The closing balance of each day from `since` to `until`, both included, in minor units."""
    days = [since + timedelta(days=n) for n in range((until - since).days + 1)]
    zone = ZoneInfo(timezone)
    ends = ",".join(datetime.combine(day + timedelta(days=1), time.min, zone).isoformat() for day in days)  # one text: the driver takes four times as long over a list
    return [(day, row.balance) for day, row in zip(days, db.rows(_SERIES, account_id=account_id, ends=f"{{{ends}}}"), strict=True)]


def conditions(asked: Filter, before: int | None = None, searched: Sequence[str] = SEARCHED) -> tuple[str, dict[str, object]]:
    """The WHERE of a filter over entries `e` and transfers `t`, made of constants, and its parameters but for `account_id`."""
    parts = ["\nwhere e.account_id = %(account_id)s"]
    params: dict[str, object] = {}
    for name, value in _asked(asked, before).items():
        if value not in (None, ""):
            parts.append(_CONDITIONS[name])
            params[name] = value
    if asked.text:
        parts.append("(" + " or ".join(searched) + ")")
        amount = Money.searched(asked.text, asked.currency, asked.locale)
        params["text"] = asked.text
        params["pattern"] = f"%{_escaped(asked.text)}%"
        params["compact"] = re.sub(r"\s+", "", asked.text).upper()
        params["figure"] = amount.minor if amount else None
    return "\n  and ".join(parts), params


def _asked(asked: Filter, before: int | None) -> dict[str, object]:
    return {
        "before": before,
        "begins_at": asked.begins_at,
        "ends_at": asked.ends_at,
        **_kinds(asked.kind),
        asked.direction or "in": asked.direction,
        "minimum": asked.minimum,
        "maximum": asked.maximum,
    }


def _kinds(kind: str) -> dict[str, object]:
    """One kind is compared as it is: of a list the index does not give the newest first."""
    alike = _ALIKE.get(kind, ())
    return {"kinds": [kind, *alike]} if alike else {"kind": kind}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")


_ALIKE = {"topup": ("matched",)}
"""To a customer a bank transfer that was matched with the account is a top-up like any other."""

_CONDITIONS = {
    "before": "e.seq < %(before)s",
    "begins_at": "e.seq > entries_before(%(account_id)s, %(begins_at)s)",
    "ends_at": "e.seq <= entries_before(%(account_id)s, %(ends_at)s)",
    "kind": "e.balance_after is not null and e.kind = %(kind)s",
    "kinds": "e.balance_after is not null and e.kind = any(%(kinds)s)",
    "in": "e.amount > 0",
    "out": "e.amount < 0",
    "minimum": "abs(e.amount) >= %(minimum)s",
    "maximum": "abs(e.amount) <= %(maximum)s",
}

_NEWEST = "\norder by e.seq desc limit %(limit)s"

_BALANCE = """
select case when tracked then balance else (select coalesce(sum(amount), 0) from entries where account_id = %(account_id)s) end
from accounts where id = %(account_id)s
"""

_AS_OF = """
select case when tracked
  then coalesce((select balance_after from entries where account_id = %(account_id)s and seq = entries_before(%(account_id)s, %(at)s)), 0)
  else (select coalesce(sum(amount), 0) from entries where account_id = %(account_id)s and posted_at < %(at)s) end
from accounts where id = %(account_id)s
"""

# The transfers are looked up one by one, which `offset 0` insists on: where the planner may join them
# it scans everybody's, as soon as an account has some thousand entries.
_WITH_TRANSFERS = """
from entries e
join lateral (select * from transfers where id = e.transfer_id offset 0) t on true"""

_HISTORY = f"""
select e.seq, e.posted_at, t.kind, t.description, e.amount, e.balance_after, t.reference, t.id, t.payment_id, t.bill_id, t.service_id, t.refund_id{_WITH_TRANSFERS}"""

_SUMS = """
select count(*) as count, coalesce(sum(e.amount) filter (where e.amount > 0), 0)::bigint as incoming,
  coalesce(-sum(e.amount) filter (where e.amount < 0), 0)::bigint as outgoing"""

_SPAN = """
with span as materialized (
  select coalesce(entries_before(%(account_id)s, %(begins_at)s::timestamptz), 0) as first, entries_before(%(account_id)s, coalesce(%(ends_at)s::timestamptz, 'infinity')) as last
), sums as (
  select greatest(last - first, 0) as count,
    coalesce((select credited_after from entries where account_id = %(account_id)s and seq = greatest(last, first)), 0)
      - coalesce((select credited_after from entries where account_id = %(account_id)s and seq = first), 0) as incoming,
    coalesce((select balance_after from entries where account_id = %(account_id)s and seq = greatest(last, first)), 0)
      - coalesce((select balance_after from entries where account_id = %(account_id)s and seq = first), 0) as net
  from span
)
select count, incoming, incoming - net as outgoing from sums
"""

_SERIES = "select balance from closing_balances(%(account_id)s, %(ends)s::timestamptz[]) order by place"
