"""Whose money it is: by what the payer wrote, as whole words and as our papers ask for it; then by
an account that paid for the same customer before. Never by a name, and never by half of a sign.

What names something that is not there, or more than one customer, waits for a person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stdnum import iban

import config
from app import db, payments, remittance
from app.bank import reasons
from app.bank.keys import Line
from app.bank.reasons import Reason
from app.bank.statements import compact
from app.remittance import Mention

RULES = (
    *("reference", "reference in the text", "pro forma number", "login", "known sender"),
    *("by hand", "number", "respelled number", "login of a known sender"),
)
"""How it is known whose money a line is, as it is kept with the line."""
REFERENCE, REFERENCE_IN_TEXT, PROFORMA, LOGIN, SENDER, BY_HAND, NUMBER, RESPELLED, SENDERS_LOGIN = RULES
NAMED = (REFERENCE, REFERENCE_IN_TEXT, PROFORMA, LOGIN, NUMBER, RESPELLED)
"""The rules by which a payer said himself whose money it is."""


@dataclass(frozen=True, slots=True)
class Match:
    """Who is credited, for which bill (None: whatever it is for), and how that is known.

    `parts` are further bills that the same transfer pays, each with what goes to it in minor units.
    """

    customer_id: int
    bill_id: int | None
    rule: str
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """What a transfer says: what looks like a reference or number of ours, and the logins it
    names as our pages ask for it, an empty one for what cannot be read."""

    mentions: Sequence[Mention]
    logins: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database knows of all that a batch of lines names."""

    bills: Mapping[str, db.Row]
    logins: Mapping[str, int]


@dataclass(slots=True)
class _Named:
    """The bills that a text names, by their ids, those only by another spelling, and who else."""

    bills: dict[int, db.Row]
    respelled: set[int]
    customers: set[int]
    rule: str
    unknown: bool

    @property
    def owners(self) -> set[int]:
        """Everybody whose money it may be."""
        return {bill.beneficiary_id for bill in self.bills.values()} | self.customers


def match(lines: Sequence[Line]) -> list[Match | Reason]:
    """For each line whose money it is, or why nobody can say, as a code of `reasons`. Reads only,
    in a handful of questions."""
    texts = [read(line) for line in lines]
    facts = _look_up(texts)
    named = [_resolve(line, text, facts) for line, text in zip(lines, texts, strict=True)]
    due = _due(each for each in named if each.respelled or len(each.bills) > 1)
    found = [_by_text(line, each, due) for line, each in zip(lines, named, strict=True)]
    found = _with_bills(lines, found)
    nameless = [line for line, each in zip(lines, found, strict=True) if each is None]
    senders = _senders(nameless)
    return [each or _by_sender(line, senders) for line, each in zip(lines, found, strict=True)]


def _with_bills(lines: Sequence[Line], found: Sequence[Match | Reason | None]) -> list[Match | Reason | None]:
    """Who names the login alone pays the one open bill of exactly that sum, if there is one."""
    by_login = {each.customer_id for each in found if isinstance(each, Match) and each.bill_id is None}
    bills = db.rows(_OPEN_OF, customers=sorted(by_login)) if by_login else []
    due = payments.still_due({bill.id: bill.total for bill in bills})
    fits: dict[tuple[int, int, str], list[int]] = {}
    for bill in bills:
        fits.setdefault((bill.customer_id, due[bill.id], bill.currency), []).append(bill.id)
    whole: list[Match | Reason | None] = []
    for line, each in zip(lines, found, strict=True):
        whole.append(each)
        if isinstance(each, Match) and each.bill_id is None:
            waiting = fits.get((each.customer_id, line.amount, line.currency), [])
            if len(waiting) == 1:  # and a second line of the same sum is for no bill
                whole[-1] = replace(each, bill_id=waiting.pop())
    return whole


def read(line: Line) -> Text:
    """What a line says of ours. What its bank or the payer's own system wrote beside the text
    counts where the text names nothing."""
    detail = line.detail
    return read_text(detail.structured, detail.remittance, detail.end_to_end, detail.note)


def read_text(structured: str, text: str, *beside: str) -> Text:
    """The same of a line's texts as they are kept."""
    said = [*remittance.structured(structured), *remittance.mentions(text, bare=True)]
    aside = [mention for each in beside for mention in remittance.mentions(each)]
    logins = remittance.logins(text)
    if said or logins:
        aside = [mention for mention in aside if mention.exact]
    return Text([*said, *aside], logins)


def _look_up(texts: Sequence[Text]) -> _Facts:
    mentions = [mention for text in texts for mention in text.mentions]
    names = {name for mention in mentions for name in (*mention.exact, *mention.respelled)}
    logins = {login for text in texts for login in text.logins}
    return _Facts(
        bills_named(names),
        find_logins(login for login in logins if remittance.names_money(login)),
    )


def bills_named(names: Iterable[str]) -> dict[str, db.Row]:
    """The bill of each reference or number of ours that there is. Reads only."""
    asked = list(names)
    return {row.name: row for row in db.rows(_BY_NAME, names=asked)} if asked else {}


def find_logins(logins: Iterable[str]) -> dict[str, int]:
    """The customer of each login that is confirmed and may name money."""
    asked = list(logins)
    return {row.login: row.customer_id for row in db.rows(_BY_LOGIN, logins=asked)} if asked else {}


def _resolve(line: Line, text: Text, facts: _Facts) -> _Named:
    found = _Named({}, set(), set(), "", unknown=False)
    own_field = {mention.text for mention in remittance.structured(line.detail.structured)}
    for mention in text.mentions:
        exact = next((name for name in mention.exact if name in facts.bills), "")
        names = [exact] if exact else [name for name in mention.respelled if name in facts.bills]
        found.unknown = found.unknown or not names
        for name in names:
            bill = facts.bills[name]
            if not exact and bill.id not in found.bills:
                found.respelled.add(bill.id)
            elif exact:
                found.respelled.discard(bill.id)
                found.rule = found.rule or _rule(exact, in_field=mention.text in own_field)
            found.bills[bill.id] = bill
    for login in text.logins:
        found.unknown = found.unknown or login not in facts.logins
        found.customers |= {facts.logins[login]} if login in facts.logins else set()
    return found


def _rule(name: str, *, in_field: bool) -> str:
    if name.startswith("RF"):
        return REFERENCE if in_field else REFERENCE_IN_TEXT
    return PROFORMA if name.startswith("PF") else NUMBER


def _by_text(line: Line, named: _Named, due: Mapping[int, int]) -> Match | Reason | None:
    if line.doubt:
        return line.doubt
    if line.returned:
        return reasons.CAME_BACK
    if named.unknown:
        return reasons.NOT_FOUND
    if len(named.owners) > 1:
        return reasons.SEVERAL_CUSTOMERS
    if not named.bills:
        return next((Match(customer, None, LOGIN) for customer in named.customers), None)
    return _by_bill(line, named, due)


def _by_bill(line: Line, named: _Named, due: Mapping[int, int]) -> Match | Reason:
    """The one bill that is named as we write it; else the one that is open for exactly this sum."""
    if len(named.bills) == 1 and not named.respelled:
        (bill,) = named.bills.values()
        return Match(bill.beneficiary_id, bill.id, named.rule)
    asked = (line.amount, line.currency)
    exact = [bill for bill in named.bills.values() if (due.get(bill.id), bill.currency) == asked]
    if len(exact) == 1:
        rule = RESPELLED if exact[0].id in named.respelled else named.rule
        return Match(exact[0].beneficiary_id, exact[0].id, rule)
    if len(named.bills) > 1:
        return _by_all(line, named, due) or reasons.SEVERAL_BILLS
    return reasons.NOT_EXACT


def _by_all(line: Line, named: _Named, due: Mapping[int, int]) -> Match | None:
    """All bills that are named, where together they are open for exactly this sum in the
    customer's own currency, so that none is paid at the cost of another."""
    bills = list(named.bills.values())
    open_for = [due.get(bill.id) for bill in bills]
    asked = [minor for minor in open_for if minor is not None]
    one_currency = {bill.currency for bill in bills} == {line.currency}
    own = all(bill.account_currency in {None, line.currency} for bill in bills)
    if len(asked) < len(bills) or sum(asked) != line.amount or not (one_currency and own):
        return None
    first, *others = zip((bill.id for bill in bills), asked, strict=True)
    rule = RESPELLED if named.respelled else named.rule
    return Match(bills[0].beneficiary_id, first[0], rule, tuple(others))


def _due(named: Iterable[_Named]) -> dict[int, int]:
    """What is still to be paid of each open bill among these."""
    bills = {bill.id: bill.total for each in named for bill in each.bills.values() if bill.status == "unpaid"}
    return payments.still_due(bills)


@dataclass(frozen=True, slots=True)
class _Sender:
    """Who an account paid for before, that customer's logins, and its open bills of this amount."""

    customer_id: int
    logins: frozenset[str]
    bills: Sequence[int]


def _by_sender(line: Line, senders: Mapping[tuple[str, int, str], _Sender]) -> Match | Reason:
    found = senders.get((line.detail.sender_account, line.amount, line.currency))
    if found is None:
        return reasons.NAMES_NOTHING
    if len(found.bills) == 1:
        return Match(found.customer_id, found.bills[0], SENDER)
    if found.logins & remittance.words(line.detail.remittance):
        return Match(found.customer_id, None, SENDERS_LOGIN)
    return reasons.SENDER_HAS_SEVERAL_BILLS if found.bills else reasons.NAMES_NOTHING


def _senders(lines: Sequence[Line]) -> dict[tuple[str, int, str], _Sender]:
    """The known senders among these lines.

    An account is known for a customer when it has an IBAN and is none of ours, when a transfer
    from it named that customer's own bill or login itself and was not taken back, and when none
    from it was ever credited to anybody else.
    """
    own = {compact(account.number) for account in config.current().bank_accounts}
    accounts = {line.detail.sender_account for line in lines}
    known = {account for account in accounts if account not in own and iban.is_valid(account)}
    asked = [line for line in lines if line.detail.sender_account in known]
    if not asked:
        return {}
    rows = db.rows(
        _BY_SENDER,
        senders=[line.detail.sender_account for line in asked],
        amounts=[line.amount for line in asked],
        currencies=[line.currency for line in asked],
        named=list(NAMED),
    )
    return {(row.sender, row.amount, row.currency): _Sender(row.customer_id, frozenset(filter(remittance.names_money, row.logins)), row.bills) for row in rows}


_BY_NAME = """
select n.name, b.id, b.beneficiary_id, b.customer_id, b.status, b.total, b.currency,
  c.currency as account_currency,
  coalesce(b.invoice_number, b.proforma_number, '') as number
from (
  select payment_reference as name, id from bills where payment_reference = any(%(names)s)
  union all
  select proforma_number, id from bills where proforma_number = any(%(names)s)
  union all
  select invoice_number, id from bills where invoice_number = any(%(names)s)
  union all
  select number, bill_id from documents where number = any(%(names)s) and kind = 'receipt'
  union all
  select former.name, f.id
  from bills f
  cross join unnest(f.former_names) as former (name)
  where f.reissued_at is not null
    and f.former_names && %(names)s::text[]
    and former.name = any(%(names)s)
) n
join bills b on b.id = n.id
join customers c on c.id = b.beneficiary_id
"""
_OPEN_OF = """
select id, customer_id, total, currency
from bills
where customer_id = any(%(customers)s)
  and beneficiary_id = customer_id
  and status = 'unpaid'
"""
_BY_LOGIN = """
select u.login, u.customer_id
from users u
join customers c on c.id = u.customer_id
where u.login = any(%(logins)s)
  and u.role = 'customer'
  and u.verified_at is not null
  and u.disabled_at is null
  and c.closed_at is null
"""
_BY_SENDER = """
with wanted as materialized (
  select distinct sender, amount, currency
  from unnest(%(senders)s::text[], %(amounts)s::bigint[], %(currencies)s::text[])
    as w (sender, amount, currency)
), known as materialized (
  select l.sender_account, min(l.customer_id) as customer_id
  from bank_lines l
  join bills b on b.id = l.bill_id
  where l.sender_account = any(%(senders)s)
    and l.kind = 'credit'
    and l.state in ('matched', 'returned')
  group by l.sender_account
  having count(distinct l.customer_id) = 1
    and bool_or(
      l.state = 'matched' and l.rule = any(%(named)s) and b.customer_id = b.beneficiary_id
    )
)
select w.sender, w.amount, w.currency, k.customer_id,
  array(
    select u.login::text
    from users u
    where u.customer_id = k.customer_id
      and u.role = 'customer'
      and u.verified_at is not null
      and u.disabled_at is null
  ) as logins,
  array(
    select b.id
    from bills b
    where b.customer_id = k.customer_id
      and b.beneficiary_id = k.customer_id
      and b.status = 'unpaid'
      and b.total = w.amount
      and b.currency = w.currency
  ) as bills
from wanted w
join known k on k.sender_account = w.sender
join customers c on c.id = k.customer_id
where c.closed_at is null
"""
