"""Bills: issued, settled, cancelled, expired, found.

Amounts are integers in minor units of the bill's currency. Dates on documents are days of the seller's legal zone, so that the
dates of a series never run backwards for readers in different zones. A document keeps the zone it was dated in.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import config
from app import clock, db, fx, remittance, tax
from app.invoicing import documents, series
from app.invoicing.totals import Totals, total
from app.money import Money
from app.tax import Category

log = logging.getLogger(__name__)

DUE_AFTER = timedelta(days=14)


class BillError(Exception):
    """A bill that cannot do what was asked."""


class AlreadySettled(BillError):
    """The bill is paid: this money belongs elsewhere."""


class NotCancellable(BillError):
    """Only an unpaid bill can be cancelled. `str()` is a sentence for the customer."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what, how many, at which net price a piece (minor units), for which period (both dates included)."""

    description: str
    unit_price: int
    quantity: int = 1
    detail: str = ""
    service_id: int | None = None
    period_start: date | None = None
    period_end: date | None = None

    @property
    def net(self) -> int:
        """Quantity times unit price, in minor units."""
        return self.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Draft:
    """A bill about to be issued: who pays, for what. Tax is added when it is issued.

    `made_out_to` are billing details for this bill alone, in place of the customer's own. `proforma` is False for what is settled in the same transaction, like a renewal from the balance: nobody could read it unpaid.
    """

    customer_id: int
    title: str
    currency: str
    lines: tuple[Line, ...]
    kind: str = "service"
    beneficiary_id: int | None = None
    months: int | None = None
    period_start: date | None = None
    period_end: date | None = None
    due_at: datetime | None = None
    proforma: bool = True
    made_out_to: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a bill was paid. Printed on the receipt, kept with the bill for ever.

    `source` is ``payment`` (money from outside) or ``balance``. `paid` is what the payer paid, where that is another currency than
    the bill's, `credited` what a top-up added to the balance, and `rate_note` the sentence about the rate. Where several payments
    paid it, `paid` and `credited` are of all of them, `last` and `last_credited` of the one that the receipt is for.
    `processor` is the processor's own id of it, `credit_id` the ledger transfer that credited it,
    `by_link` whether it came by a copied link. `bonus` is the part of the price that bonus credit
    covered, minor units of the bill's currency: the price falls by it.
    """

    paid_at: datetime
    method_label: str
    source: str = "payment"
    paid: Money | None = None
    credited: Money | None = None
    rate_note: str = ""
    reference: str = ""
    last: Money | None = None
    last_credited: Money | None = None
    processor: str = ""
    credit_id: int | None = None
    by_link: bool = False
    bonus: int = 0


@dataclass(frozen=True, slots=True)
class Bill:
    """One bill as it was issued, and its state. Amounts in minor units of `currency`.

    Once it is paid, `net`, `tax` and `total` are what is left after a bonus; `allowance` is what
    the bonus took off, VAT included, and `allowance_net` the same without VAT.
    """

    id: int
    customer_id: int
    beneficiary_id: int
    kind: str
    status: str
    proforma_number: str | None
    invoice_number: str | None
    receipt_number: str | None
    payment_reference: str | None
    title: str
    currency: str
    net: int
    tax: int
    total: int
    tax_category: Category
    tax_rate: Decimal
    tax_note: str
    seller: dict[str, str]
    buyer: dict[str, str]
    locale: str
    timezone: str
    issued_at: datetime
    due_at: datetime
    paid_at: datetime | None
    invoiced_at: datetime | None
    closed_at: datetime | None
    period_start: date | None
    period_end: date | None
    months: int | None
    po_number: str
    payment: dict[str, Any] | None
    lines: tuple[Line, ...]
    allowance: int = 0
    allowance_net: int = 0
    made_out_to: dict[str, str] = field(default_factory=dict)
    former_names: tuple[str, ...] = ()
    """Numbers and references of its pro formas that another one replaced, oldest first."""
    reissued_at: datetime | None = None

    def less(self, bonus: int) -> "Bill":
        """The bill with its price lowered by a bonus, in minor units, VAT included.

        A bonus is given for nothing, so it is a price reduction and no payment. Raises BillError
        for one that is more than the total, or a second one.
        """
        if not bonus:
            return self
        if self.allowance or not 0 < bonus <= self.total:
            raise BillError(f"{self.number} cannot be {bonus} cheaper: it is {self.total}")
        treatment = tax.Treatment(self.tax_category, self.tax_rate)
        net, vat = treatment.split(Money(self.total - bonus, self.currency))
        return replace(
            self,
            net=net.minor,
            tax=vat.minor,
            total=self.total - bonus,
            allowance=bonus,
            allowance_net=self.net - net.minor,
        )

    @property
    def replaces(self) -> str:
        """The number of the pro forma that the present one replaced, or nothing."""
        return next((name for name in reversed(self.former_names) if not name.startswith("RF")), "")

    @property
    def number(self) -> str:
        """The number its reader knows it by: the invoice's once paid, else the pro forma's."""
        return self.invoice_number or self.proforma_number or ""

    @property
    def amount(self) -> Money:
        """The total as money."""
        return Money(self.total, self.currency)

    @property
    def zone(self) -> str:
        """The legal zone it was issued in, IANA name. Bills from before there was one are of UTC."""
        return self.seller.get("timezone") or "UTC"

    @property
    def issued_on(self) -> date:
        """The legal day of issue."""
        return documents.day_in(self.issued_at, self.zone)

    @property
    def due_on(self) -> date:
        """The legal day until whose end it is to be paid."""
        return documents.day_in(self.due_at, self.zone)

    @property
    def paid_on(self) -> date | None:
        """The legal day of the payment, as its receipt says."""
        return documents.day_in(self.paid_at, documents.paid_zone(self)) if self.paid_at else None

    @property
    def for_another(self) -> bool:
        """Whether it adds to the balance of somebody else than who pays it."""
        return self.beneficiary_id != self.customer_id

    @property
    def unpaid(self) -> bool:
        """Whether it waits for money."""
        return self.status == "unpaid"


def issue_topup_bill(customer_id: int, beneficiary_id: int, amount: Money, whom: str = "", made_out_to: Mapping[str, str] | None = None) -> Bill:
    """A bill for a deposit of exactly `amount` to the beneficiary's balance, paid by the customer, who calls it `whom`. Within a transaction.

    `made_out_to` are billing details for this bill alone.
    """
    detail = "" if beneficiary_id == customer_id else whom or "To another account, as ordered"
    line = Line("Account funds", amount.minor, detail=detail)
    return issue_many([Draft(customer_id, "Account funds", amount.currency, (line,), kind="topup", beneficiary_id=beneficiary_id, made_out_to=made_out_to)])[0]


def issue_service_bill(customer_id: int, title: str, currency: str, lines: Sequence[Line], **more: Any) -> Bill:
    """A bill for services, taxed by who buys where; `more` are the other fields of `Draft`. Within a transaction."""
    return issue_many([Draft(customer_id, title, currency, tuple(lines), **more)])[0]


_SNAPSHOT = """jsonb_build_object('kind', c.kind, 'name', c.name, 'company', c.company, 'street', c.street, 'postcode', c.postcode, 'city', c.city,
    'country', coalesce(c.country, ''), 'vat_id', c.vat_id, 'vat_id_state', c.vat_id_state, 'email', c.billing_email,
    'vat_check', (select jsonb_build_object('state', k.state, 'consultation', k.consultation, 'name', k.name, 'at', k.at)
      from vat_checks k where k.customer_id = c.id and k.vat_id = c.vat_id order by k.id desc limit 1))"""
_BUYERS = f"""
select c.id, {_SNAPSHOT} as snapshot,
  c.po_number, coalesce(u.locale, c.guest_locale, 'en') as locale, coalesce(u.timezone, 'UTC') as timezone
from customers c
left join lateral (select locale, timezone from users where customer_id = c.id order by id limit 1) u on true
where c.id = any(%(ids)s)
"""  # noqa: S608 - constants

_ISSUE = """
with wanted as materialized (
  select nextval(pg_get_serial_sequence('bills', 'id')) as id, position, draft
  from jsonb_array_elements(%(drafts)s::jsonb) with ordinality as given (draft, position)
), bill as (
  insert into bills (id, customer_id, beneficiary_id, kind, proforma_number, payment_reference, title, currency, net, tax, total, tax_category, tax_rate, tax_note,
    seller, buyer, locale, timezone, issued_at, due_at, period_start, period_end, months, po_number, words, made_out_to)
  overriding system value
  select w.id, r.customer_id, r.beneficiary_id, r.kind, r.proforma_number, r.payment_reference, r.title, r.currency, r.net, r.tax, r.total, r.tax_category, r.tax_rate, r.tax_note,
    %(seller)s::jsonb, r.buyer, r.locale, r.timezone, %(now)s, r.due_at, r.period_start, r.period_end, r.months, r.po_number, r.words, r.made_out_to
  from wanted w, jsonb_to_record(w.draft) as r (customer_id bigint, beneficiary_id bigint, kind text, proforma_number text, payment_reference text, title text, currency text,
    net bigint, tax bigint, total bigint, tax_category text, tax_rate numeric, tax_note text, buyer jsonb, locale text, timezone text, due_at timestamptz, period_start date,
    period_end date, months integer, po_number text, words text, made_out_to jsonb)
  returning id
), line as (
  insert into bill_lines (bill_id, position, service_id, description, detail, quantity, unit_price, net, tax_rate, period_start, period_end)
  select w.id, l.position, r.service_id, r.description, r.detail, r.quantity, r.unit_price, r.unit_price * r.quantity, (w.draft->>'tax_rate')::numeric, r.period_start, r.period_end
  from wanted w, jsonb_array_elements(w.draft->'lines') with ordinality as l (line, position),
    jsonb_to_record(l.line) as r (service_id bigint, description text, detail text, quantity integer, unit_price bigint, period_start date, period_end date)
), document as (
  insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content)
  select w.id, (w.draft->>'customer_id')::bigint, 'proforma', w.draft->>'proforma_number', %(now)s, (w.draft->>'total')::bigint, w.draft->>'currency', w.draft->'content'
  from wanted w where w.draft->>'proforma_number' is not null
)
select id from wanted order by position
"""


def issue_many(drafts: Sequence[Draft]) -> list[Bill]:
    """Issue bills in three statements, however many: snapshots, numbers, bills with lines and pro formas. Within a transaction.

    Raises BillError for a total that is not above zero.
    """
    if not drafts:
        return []
    buyers = {buyer.id: buyer for buyer in db.rows(_BUYERS, ids=list({draft.customer_id for draft in drafts}))}
    taken, now = series.issue(["proforma"], sum(draft.proforma for draft in drafts))
    numbers = iter(taken["proforma"])
    bills = [_compose(draft, buyers[draft.customer_id], next(numbers) if draft.proforma else None, now) for draft in drafts]
    seller = json.dumps(asdict(config.current().seller))
    ids = db.rows(_ISSUE, drafts=json.dumps([_as_row(bill) for bill in bills]), seller=seller, now=now)
    return [replace(bill, id=found.id) for bill, found in zip(bills, ids, strict=True)]


def _compose(draft: Draft, buyer: db.Row, proforma_number: str | None, now: datetime) -> Bill:
    seller = config.current().seller
    made_out_to = buyer.snapshot | dict(draft.made_out_to or {})
    treatment, sums = _taxed(draft.kind, draft.lines, made_out_to, clock.day_of(now))
    if sums.total <= 0:
        raise BillError(f"a bill is for more than nothing, not {sums.total}")
    return Bill(
        id=0,
        customer_id=draft.customer_id,
        beneficiary_id=draft.beneficiary_id or draft.customer_id,
        kind=draft.kind,
        status="unpaid",
        proforma_number=proforma_number,
        invoice_number=None,
        receipt_number=None,
        payment_reference=remittance.reference(draft.customer_id, proforma_number) if proforma_number else None,
        title=draft.title,
        currency=draft.currency,
        net=sums.net,
        tax=sums.tax,
        total=sums.total,
        tax_category=treatment.category,
        tax_rate=treatment.rate,
        tax_note=treatment.legal_note,
        seller=asdict(seller),
        buyer=made_out_to,
        locale=buyer.locale,
        timezone=buyer.timezone,
        issued_at=now,
        due_at=draft.due_at or clock.end_of(clock.day_of(now) + DUE_AFTER),
        paid_at=None,
        invoiced_at=None,
        closed_at=None,
        period_start=draft.period_start,
        period_end=draft.period_end,
        months=draft.months,
        po_number=buyer.po_number,
        payment=None,
        lines=draft.lines,
        made_out_to=dict(draft.made_out_to or {}),
    )


def _taxed(kind: str, lines: Sequence[Line], buyer: dict[str, str], on: date) -> tuple[tax.Treatment, Totals]:
    """How net lines are taxed and what they add up to. A top-up carries no VAT."""
    seller, party = config.current().seller, tax.Party(*(buyer[name] for name in ("country", "vat_id", "postcode", "vat_id_state", "kind")))
    if kind != "topup":
        treatment = tax.treatment(seller, party, on, trust_unverified=config.current().reverse_charge_unverified)
        return treatment, total((line.net for line in lines), treatment.rate)
    (line,) = lines
    return tax.for_topup(), Totals(line.net, 0)


def _as_row(bill: Bill) -> dict[str, Any]:
    row = {name: _plain(getattr(bill, name)) for name in _ROW}
    row["lines"] = [_line_row(line) for line in bill.lines]
    row["words"] = " ".join([bill.proforma_number or "", bill.title, *(f"{line.description} {line.detail}" for line in bill.lines)]).lower()
    row["content"] = documents.proforma(bill) if bill.proforma_number else None
    return row


_ROW = (
    "customer_id",
    "beneficiary_id",
    "kind",
    "proforma_number",
    "payment_reference",
    "title",
    "currency",
    "net",
    "tax",
    "total",
    "tax_category",
    "tax_rate",
    "tax_note",
    "buyer",
    "locale",
    "timezone",
    "due_at",
    "period_start",
    "period_end",
    "months",
    "po_number",
    "made_out_to",
)


def _line_row(line: Line) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(line).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


_BILL = """
select b.id, b.customer_id, b.beneficiary_id, b.kind, b.status, b.proforma_number, b.invoice_number,
  (select d.number from documents d where d.bill_id = b.id and d.kind = 'receipt') as receipt_number,
  b.payment_reference, b.title, b.currency, b.net, b.tax, b.total, b.tax_category, b.tax_rate, b.tax_note, b.seller, b.buyer, b.locale, b.timezone, b.issued_at, b.due_at,
  b.paid_at, b.invoiced_at, b.closed_at, b.period_start, b.period_end, b.months, b.po_number, b.payment,
  b.made_out_to, b.former_names, b.reissued_at,
  (select jsonb_agg(jsonb_build_object('description', l.description, 'unit_price', l.unit_price, 'quantity', l.quantity, 'detail', l.detail, 'service_id', l.service_id,
      'period_start', l.period_start, 'period_end', l.period_end) order by l.position) from bill_lines l where l.bill_id = b.id) as lines,
  coalesce(b.allowance, 0) as allowance, coalesce(b.allowance_net, 0) as allowance_net
from bills b
"""

_STANDING_TOPUP = f"""
select b.id from bills b join customers c on c.id = b.customer_id
where b.customer_id = %(customer_id)s and b.beneficiary_id = %(beneficiary_id)s and b.kind = 'topup' and b.status = 'unpaid'
  and b.total = %(total)s and b.currency = %(currency)s and b.issued_at > %(since)s and b.buyer = {_SNAPSHOT} || %(made_out_to)s::jsonb and b.po_number = c.po_number
order by b.id desc limit 1
"""  # noqa: S608 - constants
_NAMED = """(
  b.invoice_number = %(number)s
  or b.proforma_number = %(number)s
  or b.reissued_at is not null and b.former_names @> array[%(number)s]::text[]
)"""
"""Whether a bill has, or had, this number."""
_FIND = f"{_BILL} where b.customer_id = %(customer_id)s and {_NAMED}"
_LOCK = _BILL + "where b.id = any(%(bill_ids)s) order by b.id for no key update of b"


def find(customer_id: int, number: str) -> Bill | None:
    """A customer's own bill by its invoice or pro forma number, also one that another replaced. A stranger's, a wrong and a missing number are the same None."""
    found = db.row(_FIND, customer_id=customer_id, number=number)
    return _read(found) if found else None


def standing_topup(customer_id: int, beneficiary_id: int, amount: Money, since: datetime, made_out_to: Mapping[str, str] | None = None) -> Bill | None:
    """The newest unpaid bill for the same deposit issued after `since`, held; None when there is none or the payer's details have changed meanwhile. Within a transaction."""
    total = {"total": amount.minor, "currency": amount.currency}
    found = db.scalar(_STANDING_TOPUP, customer_id=customer_id, beneficiary_id=beneficiary_id, since=since, made_out_to=json.dumps(dict(made_out_to or {})), **total)
    bill = lock(found) if found is not None else None
    return bill if bill and bill.unpaid else None


def lock(bill_id: int) -> Bill:
    """A bill by its id, held against every other change until the transaction ends. Within a transaction.

    For whoever brings money to it: look at `status`, move the money, then `settle`.
    """
    found = lock_many([bill_id])
    if not found:
        raise BillError(f"there is no bill {bill_id}")
    return found[bill_id]


def lock_many(bill_ids: Iterable[int]) -> dict[int, Bill]:
    """`lock` for many bills, in the order of their ids so that no two clients wait for each other; those there are."""
    return {row.id: _read(row) for row in db.rows(_LOCK, bill_ids=list(bill_ids))}


def _read(row: db.Row) -> Bill:
    lines = tuple(Line(**{**plain, "period_start": _day(plain["period_start"]), "period_end": _day(plain["period_end"])}) for plain in row.lines)
    return Bill(**{**row._asdict(), "lines": lines, "former_names": tuple(row.former_names)})


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


_SETTLE = """
with given as materialized (
  select r.* from jsonb_to_recordset(%(rows)s::jsonb) as r (id bigint, customer_id bigint, invoice_number text, receipt_number text, paid_at timestamptz, source text,
    payment jsonb, invoice jsonb, receipt jsonb, credit_id bigint, total bigint, currency text,
    seller jsonb, buyer jsonb, net bigint, tax bigint, allowance bigint, allowance_net bigint,
    tax_category text, tax_rate numeric, tax_note text)
), settled as (
  update bills b set seller = g.seller, buyer = g.buyer, net = g.net, tax = g.tax, total = g.total,
    allowance = g.allowance, allowance_net = g.allowance_net,
    tax_category = g.tax_category, tax_rate = g.tax_rate, tax_note = g.tax_note, status = 'paid', invoice_number = g.invoice_number, paid_at = g.paid_at, invoiced_at = %(now)s, closed_at = null, settled_by = g.source, payment = g.payment,
    words = b.words || ' ' || lower(g.invoice_number)
  from given g where b.id = g.id and b.status in ('unpaid', 'expired', 'cancelled')
  returning b.id
), invoice as (
  insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content)
  select g.id, g.customer_id, 'invoice', g.invoice_number, %(now)s, g.total, g.currency, g.invoice from given g join settled using (id)
), receipt as (
  insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content, transfer_id)
  select g.id, g.customer_id, 'receipt', g.receipt_number, %(now)s, g.total, g.currency, g.receipt, g.credit_id from given g join settled using (id)
)
select id from settled
"""


def settle(bill: Bill, settlement: Settlement) -> str:
    """Mark a bill paid, give it its invoice and its receipt, return the invoice number. Within a transaction, after the money moved.

    The bill is as `as_of` gives it for the day of payment: its parties and tax are what the invoice says; `Settlement.bonus` lowers its price.
    An expired or cancelled bill that is paid late is settled too. Raises AlreadySettled for a paid one and BillError for a top-up
    out of the balance: nothing can be written then, the transaction has to fall.
    """
    return settle_many([(bill, settlement)])[0]


def settle_many(paid: Sequence[tuple[Bill, Settlement]]) -> list[str]:
    """`settle` for many bills in two statements, and one for each other currency whose VAT is said in the
    seller's; the invoice numbers in the same order. Within a transaction."""
    if not paid:
        return []
    _refuse_topups_from_balance(paid)
    topups = sum(bill.kind == "topup" for bill, _ in paid)
    numbers, now = series.issue(["invoice", "topup_invoice", "receipt"], [len(paid) - topups, topups, len(paid)])
    invoices = {"service": iter(numbers["invoice"]), "topup": iter(numbers["topup_invoice"])}
    cheaper = [(bill.less(settlement.bonus), settlement) for bill, settlement in paid]
    home = _home_taxes(cheaper)
    settled = [
        replace(
            bill,
            status="paid",
            invoice_number=next(invoices[bill.kind]),
            receipt_number=receipt,
            paid_at=settlement.paid_at,
            invoiced_at=now,
            payment=_facts(settlement) | stated,
        )
        for (bill, settlement), receipt, stated in zip(cheaper, numbers["receipt"], home, strict=True)
    ]
    rows = [_settled_row(bill) | {"credit_id": settlement.credit_id} for bill, (_, settlement) in zip(settled, paid, strict=True)]
    found = db.rows(_SETTLE, rows=json.dumps(rows), now=now)
    if len(found) != len(paid):
        raise AlreadySettled(f"{len(paid) - len(found)} of {len(paid)} bills were settled before")
    _issue_receipts("link_receipt", [(bill, settlement) for bill, (_, settlement) in zip(settled, paid, strict=True) if settlement.by_link])
    return [bill.invoice_number or "" for bill in settled]


def issue_payment_receipts(received: Sequence[tuple[Bill, Settlement]]) -> list[str]:
    """The receipts of money that was credited and did not settle its bill: the numbers in the same order. Within a transaction.

    `Settlement.paid` is what was received. Who paid by a copied link gets one as well, which does not name the bill's owner.
    """
    numbers = _issue_receipts("payment_receipt", received)
    _issue_receipts("link_receipt", [(bill, settlement) for bill, settlement in received if settlement.by_link])
    return numbers


def _issue_receipts(kind: str, received: Sequence[tuple[Bill, Settlement]]) -> list[str]:
    if not received:
        return []
    taken, now = series.issue(["receipt"], len(received))
    write = documents.link_receipt if kind == "link_receipt" else documents.payment_receipt
    rows = [
        {
            "bill_id": bill.id,
            "customer_id": bill.customer_id,
            "number": number,
            "total": paid.minor,
            "currency": paid.currency,
            "transfer_id": settlement.credit_id,
            "content": write(bill, number, _facts(settlement), clock.day_of(now)),
        }
        for (bill, settlement), number in zip(received, taken["receipt"], strict=True)
        for paid in [settlement.last or settlement.paid or bill.amount]
    ]
    db.execute(_RECEIPTS, rows=json.dumps(rows), kind=kind, now=now)
    return taken["receipt"]


_RECEIPTS = """
insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content, transfer_id)
select r.bill_id, r.customer_id, %(kind)s, r.number, %(now)s, r.total, r.currency, r.content, r.transfer_id
from jsonb_to_recordset(%(rows)s::jsonb) as r (
  bill_id bigint, customer_id bigint, number text, total bigint, currency text, content jsonb, transfer_id bigint
)
"""


def _refuse_topups_from_balance(paid: Iterable[tuple[Bill, Settlement]]) -> None:
    for bill, settlement in paid:
        if bill.kind == "topup" and settlement.source != "payment":
            raise BillError(f"{bill.number} adds to the balance: it is paid from outside, never from the balance itself")


def _facts(settlement: Settlement) -> dict[str, Any]:
    return {
        "source": settlement.source,
        "method": settlement.method_label,
        "paid_at": settlement.paid_at.astimezone(UTC).isoformat(),
        "timezone": config.current().seller.timezone,
        "paid": settlement.paid.minor if settlement.paid else None,
        "paid_currency": settlement.paid.currency if settlement.paid else None,
        "credited": settlement.credited.minor if settlement.credited else None,
        "credited_currency": settlement.credited.currency if settlement.credited else None,
        "rate_note": settlement.rate_note,
        "reference": settlement.reference,
        "processor": settlement.processor,
        "last": settlement.last.minor if settlement.last else None,
        "last_currency": settlement.last.currency if settlement.last else None,
        "last_credited": settlement.last_credited.minor if settlement.last_credited else None,
    }


def _home_taxes(paid: Iterable[tuple[Bill, Settlement]]) -> list[dict[str, Any]]:
    """For each bill what its invoice says of its VAT in the seller's currency; nothing where it is in that.

    Article 230 of Directive 2006/112/EC: at the rate of the day the tax is due. One statement for
    each pair of currencies and day.
    """
    country, rates = config.current().seller.country, dict[tuple[str, str, date], fx.Reference | None]()
    stated: list[dict[str, Any]] = []
    for bill, settlement in paid:
        on = clock.day_of(settlement.paid_at)
        home = tax.currency_of(country, on) if bill.tax else None
        if home in (None, bill.currency):
            stated.append({})
            continue
        pair = (bill.currency, home, on)
        if pair not in rates:
            rates[pair] = fx.reference(*pair)
        stated.append({"home_tax": _home_tax(Money(bill.tax, bill.currency), home, on, rates[pair])})
    return stated


def _home_tax(vat: Money, home: str, on: date, rate: fx.Reference | None) -> dict[str, Any]:
    """Plain values: the amount in minor units of `currency`, or that there was no rate on that day."""
    said: dict[str, Any] = {"currency": home, "on": on.isoformat(), "amount": None}
    if rate is None:
        return said
    return said | {
        "amount": rate.convert(vat).minor,
        "base": rate.base,
        "quote": rate.quote,
        "rate": f"{rate.rate.normalize():f}",
        "rate_date": rate.rate_date.isoformat(),
        "source": rate.source,
    }


def _settled_row(bill: Bill) -> dict[str, Any]:
    payment = bill.payment or {}
    return {
        "id": bill.id,
        "customer_id": bill.customer_id,
        "invoice_number": bill.invoice_number,
        "receipt_number": bill.receipt_number,
        "paid_at": payment["paid_at"],
        "source": payment["source"],
        "payment": payment,
        "invoice": documents.invoice(bill),
        "receipt": documents.receipt(bill),
        "total": bill.total,
        "currency": bill.currency,
        "seller": bill.seller,
        "buyer": bill.buyer,
        "net": bill.net,
        "tax": bill.tax,
        "allowance": bill.allowance,
        "allowance_net": bill.allowance_net,
        "tax_category": bill.tax_category,
        "tax_rate": str(bill.tax_rate),
        "tax_note": bill.tax_note,
    }


def as_of(bills: Sequence[Bill], days: Sequence[date]) -> list[Bill]:
    """Bills as they would be made out on these days: today's parties, and the tax of each one's day. One statement; nothing is written.

    What was sold, its net price and whatever its payer chose for it alone stay. So does the tax of
    a bill whose buyer cannot be taxed any more, for instance without a country, and all of a paid one.
    """
    if not bills:
        return []
    buyers = {buyer.id: buyer.snapshot for buyer in db.rows(_BUYERS, ids=list({bill.customer_id for bill in bills}))}
    return [_as_of(bill, buyers[bill.customer_id], day) for bill, day in zip(bills, days, strict=True)]


def _as_of(bill: Bill, snapshot: dict[str, str], day: date) -> Bill:
    if bill.paid_at:
        return bill
    buyer = snapshot | bill.made_out_to
    try:
        treatment, sums = _taxed(bill.kind, bill.lines, buyer, day)
    except LookupError as unknown:
        # Asked by a job every few minutes: no warning each time.
        log.debug("%s keeps its tax: %s", bill.number, unknown)
        return bill
    return replace(
        bill,
        seller=asdict(config.current().seller) | {"timezone": bill.zone},
        buyer=buyer,
        tax=sums.tax,
        total=sums.total,
        tax_category=treatment.category,
        tax_rate=treatment.rate,
        tax_note=treatment.legal_note,
    )


def reissue(bill_ids: Iterable[int]) -> list[Bill]:
    """Give unpaid bills that would ask for another total today a new pro forma, and return those. Within a transaction.

    Numbers and references of the old ones go on finding them. The last to take numbers in its
    transaction, as others take those of pro formas after all others.
    """
    held = [bill for bill in lock_many(bill_ids).values() if bill.unpaid and bill.proforma_number]
    today = clock.today()
    changed = [(bill, now) for bill, now in zip(held, as_of(held, [today] * len(held)), strict=True) if now.total != bill.total]
    taken, at = series.issue(["proforma"], len(changed))
    fresh = [
        replace(
            now,
            proforma_number=number,
            payment_reference=remittance.reference(bill.customer_id, number),
            former_names=(*bill.former_names, *filter(None, (bill.proforma_number, bill.payment_reference))),
            reissued_at=at,
        )
        for (bill, now), number in zip(changed, taken["proforma"], strict=True)
    ]
    if fresh:
        db.execute(_REISSUE, rows=json.dumps([_reissued_row(bill) for bill in fresh]), now=at)
    return fresh


def reissue_due(chunk: int = 200) -> int:
    """`reissue` every bill that needs it, as after a change of a rate or of a profile; how many. Opens the transactions."""
    done, after = 0, 0
    while bills := [_read(row) for row in db.rows(_UNPAID, after=after, limit=chunk)]:
        after, today = bills[-1].id, clock.today()
        outdated = [bill.id for bill, now in zip(bills, as_of(bills, [today] * len(bills)), strict=True) if now.total != bill.total]
        if outdated:
            with db.transaction():
                done += len(reissue(outdated))
    return done


def _reissued_row(bill: Bill) -> dict[str, Any]:
    row = {name: _plain(getattr(bill, name)) for name in (*_MADE_OUT, "id", "customer_id", "currency", "proforma_number", "payment_reference")}
    return row | {"former_names": list(bill.former_names), "content": documents.proforma(bill)}


_MADE_OUT = ("seller", "buyer", "tax", "total", "tax_category", "tax_rate", "tax_note")
_UNPAID = _BILL + "where b.status = 'unpaid' and b.kind = 'service' and b.id > %(after)s order by b.id limit %(limit)s"
_REISSUE = """
with given as materialized (
  select r.*
  from jsonb_to_recordset(%(rows)s::jsonb) as r (
    id bigint, customer_id bigint, currency text, proforma_number text, payment_reference text,
    former_names text[], seller jsonb, buyer jsonb, tax bigint, total bigint, tax_category text,
    tax_rate numeric, tax_note text, content jsonb
  )
), reissued as (
  update bills b
  set proforma_number = g.proforma_number,
    payment_reference = g.payment_reference,
    former_names = g.former_names,
    reissued_at = %(now)s,
    seller = g.seller,
    buyer = g.buyer,
    tax = g.tax,
    total = g.total,
    tax_category = g.tax_category,
    tax_rate = g.tax_rate,
    tax_note = g.tax_note,
    words = b.words || ' ' || lower(g.proforma_number)
  from given g
  where b.id = g.id
  returning b.id
)
insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content)
select g.id, g.customer_id, 'proforma', g.proforma_number, %(now)s, g.total, g.currency, g.content
from given g
join reissued using (id)
"""


_CANCEL = f"""
update bills b set status = 'cancelled', closed_at = %(now)s
where b.customer_id = %(customer_id)s and {_NAMED} and b.status = 'unpaid'
"""  # noqa: S608 - constants


def cancel(customer_id: int, number: str) -> Bill | None:
    """Cancel a customer's own unpaid bill and return it; None when there is none of that number. Opens the transaction.

    Raises NotCancellable with a sentence. Money that arrives later still counts: see `settle`.
    """
    with db.transaction():
        cancelled = db.execute(_CANCEL, customer_id=customer_id, number=number, now=clock.now())
    bill = find(customer_id, number)
    if bill is not None and not cancelled:
        raise NotCancellable(not_cancellable(bill))
    return bill


def not_cancellable(bill: Bill) -> str:
    """The sentence for who wants to cancel a bill that is over."""
    return f"{bill.number} is {bill.status}, so it can no longer be cancelled."


_REFUNDED = """
update bills set status = case when %(refunded)s then 'refunded' else 'paid' end
where id = %(id)s and kind = 'topup' and status in ('paid', 'refunded') and payment ->> 'reference' = %(reference)s
"""


def mark_refunded(bill_id: int, reference: str, *, refunded: bool) -> None:
    """A top-up whose payment (`reference`) went back in full is refunded; back to paid when it came back after all. Within a transaction.

    Its documents stay as they are: the money was a deposit and no supply of ours is undone.
    """
    db.execute(_REFUNDED, id=bill_id, reference=reference, refunded=refunded)


def issue_refund_receipt(bill_id: int, refund_id: int, refund: dict[str, Any]) -> str:
    """Write the receipt of a refund that was settled; its number. `refund` is as `documents.refund_receipt` says, plain values. Within a transaction.

    It belongs to who paid the bill, and stays should the money come back.
    """
    bill = _read(db.rows(_BILL + "where b.id = %(id)s", id=bill_id)[0])
    taken, now = series.issue(["refund_receipt"], 1)
    (number,) = taken["refund_receipt"]
    content = documents.refund_receipt(bill, number, refund, clock.day_of(now), clock.zone().key)
    db.execute(_REFUND_RECEIPT, bill=bill.id, customer=bill.customer_id, refund=refund_id, number=number, now=now, total=refund["payout"], currency=refund["payout_currency"],
               content=json.dumps(content))  # fmt: skip
    return number


_REFUND_RECEIPT = """
insert into documents (bill_id, customer_id, kind, number, issued_at, total, currency, content, refund_id)
values (%(bill)s, %(customer)s, 'refund_receipt', %(number)s, %(now)s, %(total)s, %(currency)s, %(content)s, %(refund)s)
"""


def expire_due() -> int:
    """Close every unpaid bill whose due date has passed and return how many. Opens the transaction.

    One that was due sooner than usual, because its service ends, stays payable for the usual time.
    """
    with db.transaction():
        return db.execute(_EXPIRE, now=clock.now(), open_for=DUE_AFTER)


# One that somebody holds is being paid, and waits for the next run: nobody waits for anybody.
_EXPIRE = """
update bills set status = 'expired', closed_at = %(now)s
where id in (select id from bills where status = 'unpaid' and greatest(due_at, issued_at + %(open_for)s) < %(now)s order by id for no key update skip locked)
"""
