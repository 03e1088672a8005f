"""The payment page of a bill, the way to the processor, and the page the customer comes back to."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, abort, request
from flask_login import current_user

import config
from app import customers, invoicing, payments, remittance, services, web
from app.blueprints.invoices import hand_out, why_not
from app.gateways.base import Handoff, Instructions, Method
from app.invoicing import Bill
from app.ledger import InsufficientFunds
from app.payments import Payment
from app.web import gate

pay = Blueprint("pay", __name__)

BALANCE = "balance"
CARD = "card:"
"""Before the id of a saved card, as the form's method."""
POLL_S = {"created": 2, "unknown": 2, "pending": 2}
"""How long, in seconds, the return page waits before it asks again, by state."""
PATIENT_S = 20
"""The same where the money takes hours or days."""
WORDS = {
    "started": "Payment started",
    "created": "Processor's page opened",
    "unknown": "Processor did not answer",
    "declined": "Declined, the page stayed open",
    "pending": "On its way",
    "paid": "Confirmed and credited",
    "failed": "Did not go through",
    "expired": "Page closed unpaid",
    "review": "Arrived, being looked at",
    "returned": "Sent back",
    "dismissed": "Closed",
    "partially_refunded": "Refunded in part",
    "refunded": "Refunded",
    "taken_back": "Taken back by the sender's bank",
    "disputed": "Disputed with the bank",
}
"""What the customer reads for each step of a payment."""


@pay.get("/invoices/<number>/pay")
def choose(number: str) -> Response:
    """What is paid, what is credited and the ways to pay; for a partial request the quote anew. `left` is the payment whose page one came back from."""
    bill = _bill(number)
    if left := request.args.get("left"):
        payments.leave(current_user.customer_id, left)
        return web.go(f"/invoices/{bill.number}/pay")
    if not bill.unpaid:
        return web.go(f"/invoices/{bill.number}")
    if number in bill.former_names:
        return web.go(f"/invoices/{bill.number}/pay")
    return _choices(bill)


@pay.post("/invoices/<number>/pay")
def leave(number: str) -> Response:
    """To the processor's page, 303; the page again with a sentence when that is not possible now. `method` says how."""
    bill, method = _bill(number), request.form.get("method", "")
    try:
        if method == BALANCE:
            return _from_balance(bill)
        handoff = _start(number, method)
    except payments.QuoteExpired:
        return _choices(bill, 422, "The rate was held for 15 minutes, which are over. Here is the rate of this moment: look at it and pay again.")
    except (payments.NotPayable, InsufficientFunds) as problem:
        return _refused(number, str(problem))
    except payments.ProcessorDown as down:
        return _choices(bill, 503, str(down), failed=method)
    if isinstance(handoff, Instructions):
        return web.go(f"/payments/{handoff.reference}")
    return web.leave(handoff.url)


def _refused(number: str, problem: str) -> Response:
    """The page again with what is wrong, or the bill, which another tab or a second click has paid or cancelled meanwhile."""
    bill = _bill(number)
    if bill.unpaid:
        return _choices(bill, 422, problem)
    web.toast(f"{bill.number} is {invoicing.standing(bill.id).label.lower()}. There is nothing to pay any more.")
    return web.go(f"/invoices/{bill.number}")


def _start(number: str, method: str) -> Handoff:
    """Charge a saved card, or open the processor's page."""
    whose, quote = current_user.customer_id, request.form.get("quote", "")
    if method.startswith(CARD):
        handoff = payments.pay_by_card(whose, number, method.removeprefix(CARD), quote)
        services.settle_waiting()
        return handoff
    return payments.start(whose, number, method, quote, keep="keep" in request.form)


@pay.get("/payments/<public_id>")
def result(public_id: str) -> Response:
    """Where a payment stands, asked of the processor while that is not final; for a partial request the status alone."""
    known = payments.find(current_user.customer_id, public_id)
    if known is None:
        abort(404)
    payment = payments.refresh(known)
    bill = payments.bill_of(payment)
    if payment.state != known.state and bill.kind == "service":
        services.settle_waiting()
    if payment.state != known.state or web.is_partial():
        gate.look_again()
    method = payments.method_of(payment)
    chip = ("_balance_chip.html",) if payment.confirmed else ()
    return web.page(
        "pay/status.html",
        "status",
        also=chip,
        payment=payment,
        bill=bill,
        poll_s=poll_s(payment),
        method=method,
        transfer=payments.instructions(payment),
        by_login=_by_login(payment),
        steps=payments.timeline(payment),
        words=WORDS,
        due=payments.due(bill) if bill.unpaid else None,
        standing=None if bill.unpaid or payment.confirmed else invoicing.standing(bill.id),
        others=_other_ways(bill, payment),
        goes=_goes,
        receipts=invoicing.receipts_of(payment.id) if payment.kept or payment.state == "taken_back" else [],
    )


@pay.get("/payments/<public_id>/receipt.pdf")
def receipt(public_id: str) -> Response:
    """The receipt of a payment, for who paid: the newest, or the one of a `number`."""
    payment = payments.find(current_user.customer_id, public_id) or abort(404)
    try:
        file = invoicing.receipt_pdf(payment.id, request.args.get("number", ""))
    except invoicing.PressError as problem:
        web.toast(why_not(problem))
        return web.go(f"/payments/{public_id}")
    if file is None:
        web.toast("There is no receipt of this payment yet.")
        return web.go(f"/payments/{public_id}")
    return hand_out(file)


def _by_login(payment: payments.Payment) -> str:
    """What a payer by transfer may write instead of the reference: money for himself alone."""
    me = web.reader()
    confirmed = me.verified and payment.payer_id == payment.customer_id
    return remittance.for_login(me.login) if confirmed else ""


def poll_s(payment: Payment) -> int | None:
    """How long, in seconds, a page about a payment waits before it asks again; None where there is nobody to ask."""
    if payment.gateway == payments.BANK or payment.state not in POLL_S:
        return None
    method = payments.method_of(payment) if payment.state == "pending" else None
    return PATIENT_S if method and method.waiting else POLL_S[payment.state]


def local(url: str) -> str:
    """The path of an address of our own: whoever came by another name of this host stays on it."""
    base = config.current().base_url
    return web.safe_next(url.removeprefix(base), url) if url.startswith(f"{base}/") else url


def _bill(number: str) -> Bill:
    bill = invoicing.find(current_user.customer_id, number)
    if bill is None:
        abort(404)
    return bill


def _choices(bill: Bill, status_code: int = 200, problem: str = "", failed: str = "") -> Response:
    payer = customers.get(bill.customer_id)
    options = payments.options(bill, payer)
    chosen = request.form.get("method") or request.args.get("method") or ""
    unsettled = payments.open_of(bill.id)
    opened = next((payment for payment in unsettled if payment.state == "created" and payment.handoff_url), None)
    declined = next((payment for payment in unsettled if payment.state == "created" and payment.failure_message), None)
    working = [method.key for method in _best_first(options.methods, declined.method if declined else "") if method.key != failed]
    if options.balance is not None and options.balance >= bill.amount:
        working.insert(0, BALANCE)
    working += [f"{CARD}{card.public_id}" for card in options.cards]
    standing = options.standing
    proposed = "" if standing.busy else _first(working)  # what may be paid already is paid again by choice alone
    return web.page(
        "pay/new.html",
        "quote",
        status_code=status_code,
        bill=bill,
        options=options,
        problem=problem or options.problem,
        failed=failed,
        chosen=chosen if chosen in working else proposed,
        standing=standing,
        consent=payments.cards.consent(),
        waiting=next((payment for payment in unsettled if payment.state == "pending"), None),
        declined=declined,
        opened=opened,
        goes=_goes,
        missing=customers.missing_fields(payer),
    )


def _goes(key: str) -> str:
    """What the form does with a chosen way: ``balance``, ``card``, ``bank``, or ``away`` to a processor's page."""
    if key == BALANCE:
        return "balance"
    return "card" if key.startswith(CARD) else "bank" if key.startswith(f"{payments.BANK}-") else "away"


def _first(working: list[str]) -> str:
    """What is ticked when the page opens: the balance where it covers the bill, else a saved card, else the first that works."""
    return BALANCE if BALANCE in working else next((key for key in working if key.startswith(CARD)), next(iter(working), ""))


def _from_balance(bill: Bill) -> Response:
    paid = payments.pay_from_balance(bill.customer_id, bill.number)
    services.settle_waiting()
    gate.look_again()
    web.toast(f"{paid.number} is paid from your balance.", f"/invoices/{paid.number}", "See the invoice")
    return web.go(f"/invoices/{paid.number}")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to pay that is offered after another one failed: its key on the payment page, its mark and its words."""

    key: str
    mark: str
    label: str
    detail: str


def _other_ways(bill: Bill, payment: Payment) -> list[Way]:
    """Every other way that works for this bill, to offer after one that failed: the balance and saved cards first."""
    failed = payment.state in ("failed", "expired") or (payment.state == "created" and payment.failure_message)
    if not (failed and bill.unpaid):
        return []
    options = payments.options(bill)
    ways = []
    if options.balance is not None and options.balance >= bill.amount:
        ways.append(Way(BALANCE, "", "Your balance", "Instant"))
    if not options.problem:
        ways += [Way(f"{CARD}{card.public_id}", card.mark, card.label, "Saved card") for card in options.cards if card.id != payment.card_id]
    return ways + [Way(method.key, method.mark, method.label, method.settles_in) for method in _best_first(options.methods, payment.method)]


def _best_first(methods: Sequence[Method], failed: str) -> list[Method]:
    """The methods that work, in their order; after a failure those that do not open the same page, and of these the ones that settle at once."""
    pages = {method.same_as or method.name for method in methods if method.name == failed}
    working = [method for method in methods if not method.unavailable]
    return sorted(working, key=lambda method: ((method.same_as or method.name) in pages, bool(method.waiting))) if failed else working
