"""Whose a line in suspense may be: suggestions for the person who decides, worked out when asked.

None of them is enough to credit anybody by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from app import db, payments, remittance
from app.bank import matching
from app.money import Money

NAMED = "named"
NEAR_NUMBER = "near_number"
SENDER_ACCOUNT = "sender_account"
SENDER_NAME = "sender_name"
LOGIN = "login"
SUM = "sum"
SCORES: Mapping[str, int] = MappingProxyType({NAMED: 60, NEAR_NUMBER: 50, SENDER_ACCOUNT: 40, LOGIN: 30, SENDER_NAME: 20, SUM: 20})
"""What each sign weighs of a hundred; those of one bill add up."""
SENTENCES: Mapping[str, str] = MappingProxyType({
    NAMED: "The text names it",
    NEAR_NUMBER: "Its number is one digit off what the text says",
    SENDER_ACCOUNT: "This account paid for the customer before",
    LOGIN: "The text names the login",
    SENDER_NAME: "The sender has the customer's name",
    SUM: "It is open for exactly this sum",
})  # fmt: skip
MOST = 8
"""Candidates that are shown."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A customer whose money it may be, for which bill if one is meant (`due` is what is still to
    be paid of it), by which signs, and how much these weigh together (of a hundred)."""

    customer_id: int
    login: str
    name: str
    bill_id: int | None
    number: str
    due: Money | None
    codes: tuple[str, ...]
    score: int

    @property
    def reasons(self) -> str:
        """The signs as a sentence."""
        return "; ".join(SENTENCES[code] for code in self.codes)


def of_line(line_id: int) -> list[Candidate]:
    """The likeliest first; nothing for a line that is no incoming money in suspense. Reads only."""
    line = db.row(_LINE, id=line_id)
    if line is None:
        return []
    text = matching.read_text(line.structured, line.remittance, line.end_to_end)
    said = {mention: (*mention.exact, *mention.respelled) for mention in text.mentions}
    named = matching.bills_named(name for names in said.values() for name in names)
    lost = [mention for mention, names in said.items() if not named.keys() & set(names)]
    near = matching.bills_named(name for mention in lost for name in remittance.near(mention.text))
    signs: dict[tuple[int, int | None], set[str]] = {}
    bills: dict[int, db.Row] = {}

    def note(code: str, rows: Iterable[db.Row]) -> None:
        for row in rows:
            bills[row.id] = row
            signs.setdefault((row.beneficiary_id, row.id), set()).add(code)

    note(NAMED, named.values())
    note(NEAR_NUMBER, (bill for bill in near.values() if bill.status == "unpaid"))
    note(SUM, db.rows(_BY_SUM, amount=line.amount, currency=line.currency, limit=10 * MOST))
    people = dict.fromkeys(_paid_from(line), SENDER_ACCOUNT)
    people |= dict.fromkeys(matching.find_logins(text.logins).values(), LOGIN)
    for customer, code in people.items():
        mine = [key for key in signs if key[0] == customer]
        for key in mine or [(customer, None)]:
            signs.setdefault(key, set()).add(code)
    open_now = {bill.id: bill.total for bill in bills.values() if bill.status == "unpaid"}
    due = payments.still_due(open_now)
    for (_, bill_id), codes in signs.items():
        if bill_id in due and (due[bill_id], bills[bill_id].currency) == (line.amount, line.currency):
            codes.add(SUM)
        else:
            codes.discard(SUM)
    return _ranked(line, {key: codes for key, codes in signs.items() if codes}, bills, due)


def _paid_from(line: db.Row) -> Iterator[int]:
    """The customers that transfers from this account were credited to."""
    if line.sender_account:
        rows = db.rows(_BY_ACCOUNT, account=line.sender_account, limit=MOST)
        yield from (row.customer_id for row in rows)


def _ranked(
    line: db.Row,
    signs: Mapping[tuple[int, int | None], set[str]],
    bills: Mapping[int, db.Row],
    due: Mapping[int, int],
) -> list[Candidate]:
    who = {row.id: row for row in db.rows(_WHO, ids=[customer for customer, _ in signs])}
    found = []
    for (customer, bill_id), codes in signs.items():
        person, bill = who[customer], bills.get(bill_id or 0)
        names = {_folded(name) for name in (person.name, person.company) if name}
        if _folded(line.sender) in names:
            codes.add(SENDER_NAME)
        ordered = tuple(code for code in SCORES if code in codes)
        score = min(100, sum(SCORES[code] for code in ordered))
        rest = Money(due[bill.id], bill.currency) if bill and bill.id in due else None
        found.append(Candidate(
            customer, person.login or "", person.company or person.name, bill_id, bill.number if bill else "", rest, ordered, score,
        ))  # fmt: skip
    return sorted(found, key=lambda each: (-each.score, each.number, each.customer_id))[:MOST]


def _folded(name: str) -> str:
    return " ".join(sorted(remittance.plain(name.casefold()).split()))


_LINE = """
select amount, currency, structured, remittance, end_to_end, sender, sender_account
from bank_lines
where id = %(id)s
  and kind = 'credit'
  and state = 'suspense'
"""
_BY_SUM = """
select b.id, b.beneficiary_id, b.status, b.total, b.currency,
  coalesce(b.invoice_number, b.proforma_number, '') as number
from bills b
where b.status = 'unpaid'
  and b.total = %(amount)s
  and b.currency = %(currency)s
order by b.id desc
limit %(limit)s
"""
_BY_ACCOUNT = """
select customer_id
from bank_lines
where sender_account = %(account)s
  and kind = 'credit'
  and state = 'matched'
group by customer_id
order by max(id) desc
limit %(limit)s
"""
_WHO = """
select c.id, c.name, c.company, (
  select u.login
  from users u
  where u.customer_id = c.id
  order by u.id
  limit 1
) as login
from customers c
where c.id = any(%(ids)s)
"""
