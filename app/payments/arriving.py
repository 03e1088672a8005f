"""Money that comes by bank transfer: credited as what it is, to whom the reference names, and counted towards the bill it is for.

There is no page that asked for an exact amount, so nothing is refused for being another one: what arrived is on the balance, a bill is
paid when all of it has arrived, and what is above it stays on the balance.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app import clock, customers, db, fx, invoicing, languages, ledger, mail, wallet
from app.customers import Customer
from app.formats import formats
from app.invoicing import Bill, Draft, Line, Settlement
from app.ledger import InsufficientFunds
from app.money import AmountError, Money
from app.payments import book, settling
from app.payments.settling import Conversion, Fate

log = logging.getLogger(__name__)

BANK = "bank"
"""The gateway that has no processor: the seller's own accounts."""
LABEL = languages.N_("Bank transfer")
SUSPENSE = "bank"
"""Key of the suspense accounts that hold what arrived until it finds its customer."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One transfer that found the customer whose balance gets it. `key` is its ledger key, `bill_id` None where only the customer was named; `deducted` is what banks kept on the way."""

    key: str
    customer_id: int
    bill_id: int | None
    received: Money
    paid_at: datetime
    deducted: int = 0


@dataclass(frozen=True, slots=True)
class Credited:
    """What became of an arrival: the payment that stands for it and the bill it counts towards."""

    payment_id: int
    bill_id: int
    customer_id: int


@dataclass(slots=True)
class _Case:
    """An arrival on its way through the rooms."""

    arrival: Arrival
    bill: Bill
    owner: Customer
    payer: Customer
    conversion: Conversion
    public_id: str = ""
    payment_id: int = 0
    credit_id: int = 0
    counted: int = 0
    note: str = ""
    settlement: Settlement | None = None
    number: str = ""
    receipt: str = ""
    bonus: Fate | None = None
    from_bonus: int = 0
    by_link: bool = False
    short: bool = False
    spare: bool = False
    uncovered: bool = False
    settled: Money | None = None


def take_in(arrivals: Sequence[Arrival]) -> list[Credited | str]:
    """Credit arrivals, in their order; for each what became of it, or the code why it has to wait (`settling.NO_RATE`, `CANNOT_CONVERT`). Within a transaction.

    Held one after the other: the payments that wait for it, who gets a first money, the bills, the money of all. A handful of statements, however many.
    """
    waiting = _waiting([arrival.bill_id for arrival in arrivals if arrival.bill_id])
    customers.hold_new(arrival.customer_id for arrival in arrivals)
    bills = invoicing.lock_many({arrival.bill_id for arrival in arrivals if arrival.bill_id})
    owners = _owners(arrivals, bills)
    converted = [_conversion(arrival, bills.get(arrival.bill_id or 0), owners[_owner_id(arrival, bills)], owners[_payer_id(arrival, bills)]) for arrival in arrivals]
    going = [(arrival, found) for arrival, found in zip(arrivals, converted, strict=True) if isinstance(found, Conversion)]
    issued = iter(_issue([arrival for arrival, _ in going if arrival.bill_id is None]))
    cases = [
        _Case(arrival, bill, owners[bill.beneficiary_id], owners[bill.customer_id], found)
        for arrival, found in going
        for bill in [bills[arrival.bill_id] if arrival.bill_id else next(issued)]
    ]
    _write_payments(cases, waiting)
    wallet.hold_everything({case.owner.id for case in cases})
    _credit(cases)
    _settle(cases)
    _settle_debts(cases)
    _tell(cases)
    done = iter(Credited(case.payment_id, case.bill.id, case.owner.id) for case in cases)
    return [next(done) if isinstance(found, Conversion) else found for found in converted]


def _owner_id(arrival: Arrival, bills: Mapping[int, Bill]) -> int:
    return bills[arrival.bill_id].beneficiary_id if arrival.bill_id else arrival.customer_id


def _payer_id(arrival: Arrival, bills: Mapping[int, Bill]) -> int:
    return bills[arrival.bill_id].customer_id if arrival.bill_id else arrival.customer_id


def _owners(arrivals: Sequence[Arrival], bills: Mapping[int, Bill]) -> dict[int, Customer]:
    """Who gets the money and who pays it. A customer without a currency gets that of the first money."""
    found = customers.get_many({arrival.customer_id for arrival in arrivals} | {side for bill in bills.values() for side in (bill.customer_id, bill.beneficiary_id)})
    fresh = [arrival for arrival in arrivals if found[_owner_id(arrival, bills)].currency is None]
    for arrival in fresh:
        customers.settle_currency(_owner_id(arrival, bills), arrival.received.currency)
    return found | customers.get_many({_owner_id(arrival, bills) for arrival in fresh}) if fresh else found


def _conversion(arrival: Arrival, bill: Bill | None, owner: Customer, reader: Customer) -> Conversion | str:
    """What an arrival becomes on the wallet, at the rate of now, said as the payer reads it; the code why that cannot be said."""
    received = arrival.received
    straight = bill is not None and bill.kind == "service" and bill.currency == received.currency
    try:
        return settling.convert(received, received.currency if straight else owner.currency or received.currency, formats(reader.locale, reader.timezone))
    except fx.RateUnavailable:
        return settling.NO_RATE
    except AmountError:
        return settling.CANNOT_CONVERT


def _issue(arrivals: Sequence[Arrival]) -> list[Bill]:
    """A bill for each that came without one: every top-up has its papers."""
    title = "Account funds"
    drafts = [Draft(arrival.customer_id, title, arrival.received.currency, (Line(title, arrival.received.minor),), kind="topup", proforma=False) for arrival in arrivals]
    return invoicing.issue_many(drafts)


def _waiting(bill_ids: Sequence[int]) -> dict[int, db.Row]:
    """The newest payment of each bill that waits for a transfer; all that do are held."""
    return {row.bill_id: row for row in db.rows(_WAITING, bills=list(bill_ids))}


def _write_payments(cases: Sequence[_Case], waiting: dict[int, db.Row]) -> None:
    """The payment that waits for a bill's transfer is the first arrival's; every further one gets its own."""
    for case in cases:
        standing = waiting.pop(case.bill.id, None)
        case.public_id, case.payment_id = (standing.public_id, standing.id) if standing else (book.new_public_id(), 0)
        case.by_link = bool(standing and standing.link_id and not case.payer.guest)
    db.execute(_PAY, rows=json.dumps([_payment_row(case) for case in cases if case.payment_id]), now=clock.now())
    written = {row.public_id: row.id for row in db.rows(_INSERT, rows=json.dumps([_payment_row(case) for case in cases if not case.payment_id]), label=LABEL, now=clock.now())}
    for case in cases:
        case.payment_id = case.payment_id or written[case.public_id]


def _payment_row(case: _Case) -> dict[str, object]:
    received, credited = case.arrival.received, case.conversion.credited
    return {
        "id": case.payment_id,
        "public_id": case.public_id,
        "bill_id": case.bill.id,
        "customer_id": case.owner.id,
        "payer_id": case.bill.customer_id,
        "received": received.minor,
        "received_currency": received.currency,
        "credited": credited.minor,
        "credited_currency": credited.currency,
        "rate_note": case.conversion.rate_note,
        "paid_at": case.arrival.paid_at.isoformat(),
    }


_WAITING = """
select bill_id, id, public_id, link_id from payments
where bill_id = any(%(bills)s) and gateway = 'bank' and state in ('created', 'unknown', 'pending', 'failed', 'expired') order by id for no key update
"""
_ROW = """jsonb_to_recordset(%(rows)s::jsonb) as r (id bigint, public_id text, bill_id bigint, customer_id bigint, payer_id bigint, received bigint,
  received_currency text, credited bigint, credited_currency text, rate_note text, paid_at timestamptz)"""
_PAY = f"""
update payments p set state = 'paid', gateway_reference = coalesce(p.gateway_reference, p.public_id), received = r.received, received_currency = r.received_currency,
  credited = r.credited, credited_currency = r.credited_currency, rate_note = r.rate_note, paid_at = r.paid_at, updated_at = %(now)s,
  failure_code = null, failure_message = null
from {_ROW} where p.id = r.id
"""  # noqa: S608 - constants
_INSERT = f"""
insert into payments (public_id, bill_id, customer_id, payer_id, method, gateway, state, amount, currency, charge, gateway_reference, method_label, received, received_currency,
  credited, credited_currency, rate_note, created_at, updated_at, checked_at, expires_at, paid_at)
select r.public_id, r.bill_id, r.customer_id, r.payer_id, 'transfer', 'bank', 'paid', r.received, r.received_currency, '{{}}', r.public_id, %(label)s, r.received,
  r.received_currency, r.credited, r.credited_currency, r.rate_note, %(now)s, %(now)s, %(now)s, %(now)s, r.paid_at
from {_ROW} returning id, public_id
"""  # noqa: S608 - constants


def _credit(cases: Sequence[_Case]) -> None:
    orders = [
        wallet.Credit(
            case.owner.id,
            case.conversion.credited,
            reference=f"{case.arrival.key}:credit",
            kind="matched",
            counter=[(ledger.account("suspense", case.arrival.received.currency, key=SUSPENSE), -case.arrival.received.minor), *case.conversion.lines],
            payment_id=case.payment_id,
            paid=case.arrival.received,
            description="Top-up from another account" if case.bill.for_another else f"Top-up by {LABEL.lower()}",
            bill_id=case.bill.id,
        )
        for case in cases
    ]
    for case, posted in zip(cases, wallet.credit_many(orders), strict=True):
        case.credit_id = posted.transfer_id


def _settle(cases: Sequence[_Case]) -> None:
    """Pay every bill of which all has arrived now, each once."""
    sums, paid = _counted([case.bill.id for case in cases]), set()
    made_out = settling.made_out([case.bill for case in cases], [case.arrival.paid_at for case in cases])
    for place, case in enumerate(cases):
        later = [other for other in cases[place + 1 :] if other.bill.id == case.bill.id] if len(sums) < len(cases) else []
        counted, credited = sums[case.bill.id]
        case.counted = counted - sum(_counts(other) for other in later)
        case.bill = settling.on_its_day(*made_out[place], case.counted)
        case.note = _fate(case, already=case.bill.id in paid)
        if not case.note and _may_settle(case):
            paid.add(case.bill.id)
            case.settlement = _facts(case, credited - sum(other.conversion.credited.minor for other in later))
    ready = [(case, case.settlement) for case in cases if case.settlement]
    numbers = invoicing.settle_many([(case.bill, settlement) for case, settlement in ready])
    for (case, _), number in zip(ready, numbers, strict=True):
        case.number = number
        case.note = f"{number} was issued.{_above(case)}"
    alone = [case for case in cases if not case.settlement]
    receipts = invoicing.issue_payment_receipts([(case.bill, _alone(case)) for case in alone])
    for case, receipt in zip(alone, receipts, strict=True):
        case.receipt = receipt
    invoicing.reissue({case.bill.id for case in cases if case.short})


def _counts(case: _Case) -> int:
    received, credited = case.arrival.received, case.conversion.credited
    return next((money.minor for money in (received, credited) if money.currency == case.bill.currency), 0)


def _fate(case: _Case, *, already: bool) -> str:
    """Why the bill is not paid by this, as a sentence, or nothing."""
    bill, writer = case.bill, formats(case.payer.locale, case.payer.timezone)
    case.spare = already or not settling.takes_money(bill)
    if case.spare:
        return f"{bill.number} was {'paid' if already else bill.status} already, so the money was added to the balance."
    case.short = case.counted < bill.total
    if case.short:
        rest = writer.money(bill.total - case.counted, bill.currency)
        return f"{writer.money(case.arrival.received.minor, case.arrival.received.currency)} was added to the balance; {rest} of {bill.number} is still open."
    return ""


def _may_settle(case: _Case) -> bool:
    """Whether the bill is paid; what a service costs is taken from the balance first, if what arrived is still there."""
    if case.bill.kind == "topup":
        return True
    try:
        spent = settling.charge(case.bill, f"Paid by {LABEL.lower()}")
        case.from_bonus = spent.from_bonus
        case.bonus = settling.paid_with_bonus(case.bill, spent, case.counted)
    except InsufficientFunds:
        case.uncovered = True
        case.note = f"The money was added to the balance, where it does not cover {case.bill.number} any more."
        return False
    return True


def _facts(case: _Case, credited: int) -> Settlement:
    received, conversion = case.arrival.received, case.conversion
    whole = received if received.currency != case.bill.currency else Money(case.counted, received.currency)
    added = Money(credited, conversion.credited.currency)
    return Settlement(
        case.arrival.paid_at,
        LABEL,
        paid=whole,
        credited=added,
        rate_note=conversion.rate_note,
        reference=case.public_id,
        last=received if whole != received or added != conversion.credited else None,
        last_credited=conversion.credited if added != conversion.credited else None,
        credit_id=case.credit_id,
        by_link=case.by_link,
        bonus=case.from_bonus,
    )


def _alone(case: _Case) -> Settlement:
    """What a receipt says of money that did not pay its bill."""
    facts = _facts(case, case.conversion.credited.minor)
    return replace(facts, paid=case.arrival.received, last=None, last_credited=None)


def _above(case: _Case) -> str:
    if case.counted <= case.bill.total:
        return ""
    above = formats(case.payer.locale, case.payer.timezone).money(case.counted - case.bill.total, case.bill.currency)
    return f" {above} more than it asked for is on the balance."


_COUNTED = """
select p.bill_id, sum(case b.currency when p.received_currency then p.received - coalesce(h.amount, 0) when p.credited_currency then p.credited else 0 end)::bigint as counted,
  sum(p.credited)::bigint as credited
from payments p join bills b on b.id = p.bill_id
left join lateral (select sum(amount) as amount from held where payment_id = p.id and state <> 'credited') h on true
where p.bill_id = any(%(bills)s) and p.state in ('paid', 'partially_refunded', 'refunded', 'disputed')
group by p.bill_id
"""


def _counted(bill_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """For each bill what came towards it so far, in its own currency, and what was credited for it."""
    return {row.bill_id: (row.counted, row.credited) for row in db.rows(_COUNTED, bills=list(bill_ids))}


def still_due(totals: Mapping[int, int]) -> dict[int, int]:
    """What is still to be paid of bills, by their ids, given what each asks for; minor units of the
    bill's currency. The whole again where enough came and the bill was not paid with it."""
    came = _counted(list(totals)) if totals else {}
    rest = {bill: total - came.get(bill, (0, 0))[0] for bill, total in totals.items()}
    return {bill: minor if minor > 0 else totals[bill] for bill, minor in rest.items()}


def _settle_debts(cases: Sequence[_Case]) -> None:
    """What a dispute left owing has the first claim on money that came and paid no bill."""
    owing = {row.customer_id for row in db.rows(_OWING, customers=[case.owner.id for case in cases])}
    for case in cases:
        if case.owner.id in owing:
            case.settled = wallet.settle_debts(case.owner.id, case.conversion.credited.currency, cause=case.arrival.key, payment_id=case.payment_id) or None


_OWING = "select customer_id from accounts where kind = 'debt' and balance < 0 and customer_id = any(%(customers)s)"


def _tell(cases: Sequence[_Case]) -> None:
    """The history of each payment, and a mail to each payer."""
    now = clock.now()
    db.many(book.EVENT, [{"payment_id": case.payment_id, "at": now, "state": "paid", "note": _history(case), "actor": BANK} for case in cases])
    receipts = _receipts([case.number for case in cases if case.number])
    letters = [_letter(case, case.payer, receipts.get(case.number)) for case in cases]
    given = [case for case in cases if case.bill.for_another]
    letters += [
        settling.to_owner(case.owner, case.bill, case.conversion.credited, case.arrival.paid_at, case.arrival.key, case.settled, by_link=case.payer.guest) for case in given
    ]
    mail.inform_many(letters)


def _history(case: _Case) -> str:
    if case.settled is None or case.bill.for_another:
        return case.note
    return f"{case.note} {settling.settled_sentence(case.settled, formats(case.owner.locale, case.owner.timezone))}".strip()


def _receipts(numbers: Sequence[str]) -> dict[str, str]:
    """The receipt of each of these invoices."""
    return dict(db.rows(_RECEIPTS, numbers=list(numbers))) if numbers else {}


_RECEIPTS = """
select b.invoice_number, d.number from bills b join documents d on d.bill_id = b.id and d.kind = 'receipt' where b.invoice_number = any(%(numbers)s)
"""


def _letter(case: _Case, payer: Customer, receipt: str | None) -> mail.Letter:
    received, over, currency = case.arrival.received, case.counted - case.bill.total, case.bill.currency
    fate = Fate(
        rest=Money(-over, currency) if case.short else None,
        above=Money(over, currency) if case.number and over > 0 and not case.bonus else None,
        bonus=case.bonus.bonus if case.bonus else None,
        stays=case.bonus.stays if case.bonus else None,
        spare=case.spare,
        uncovered=case.uncovered,
        deducted=Money(case.arrival.deducted, received.currency) if case.arrival.deducted else None,
    )
    bill = replace(case.bill, invoice_number=case.number or None, receipt_number=receipt) if case.settlement else case.bill
    return settling.confirmation(
        payer, bill, case.public_id, f"{case.public_id}:confirmed", received, case.conversion, case.arrival.paid_at, LABEL, case.settled, fate, case.receipt
    )
