"""From a bill to the processor's page: what can be chosen, and starting a payment exactly once."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import NoReturn

import config
from app import clock, customers, db, fx, gateways, invoicing, wallet
from app.customers import Beneficiary, Customer
from app.formats import Formats, formats
from app.gateways.base import Charge, Gateway, GatewayError, Handoff, Instructions, Method, NoAnswer, Redirect
from app.invoicing import Bill
from app.limits import limits
from app.money import AmountError, Money
from app.payments import book, cards, current, outages, watching
from app.payments.arriving import BANK
from app.payments.book import NotPayable, Payment
from app.payments.cards import Card
from app.payments.links import Link, told_at

log = logging.getLogger(__name__)

SESSION_LIFE = timedelta(hours=1)
"""How long a processor's page stays open, and with it the rate that was held when it was opened. Stripe allows 30 minutes to 24 hours."""
CHARGE_LIFE = timedelta(minutes=5)
"""How long a charge to a saved card may be asked for again; after that a look-up alone tells."""
TRANSFER_LIFE = timedelta(days=30)
"""How long a bank transfer is waited for. What comes later still counts."""
SAME_ORDER = timedelta(hours=1)
"""The same top-up asked for again within this time is the bill that already waits, not a second one."""


class QuoteExpired(Exception):
    """The rate the customer saw is not held any more; a new offer has to be shown first."""


class ProcessorDown(Exception):
    """The processor gave no usable answer. `str()` is a sentence for the customer; the bill stays payable."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a bill can be paid: how much of it is still due, by which methods, at which rate, or from the balance.

    `offer` is None when nothing is converted, `quote_token` what the form carries for it; `problem` says why nothing can be chosen.
    `balance` is what the customer can spend in the bill's currency, bonus included, or None where the balance may not pay.
    `cards` are the payer's saved cards that can pay this; `keeping` are the keys of the methods whose card can be saved.
    """

    methods: list[Method]
    offer: fx.Offer | None
    quote_token: str
    balance: Money | None
    problem: str
    due: Money
    cards: list[Card]
    keeping: frozenset[str]
    standing: invoicing.Standing


def order_topup(
    customer_id: int,
    amount: Money,
    quote_token: str = "",
    beneficiary: Beneficiary | None = None,
    made_out_to: Mapping[str, str] | None = None,
) -> Bill:
    """The bill for a top-up, and the rate that was shown for it held; the bill that waits already when the same was asked for a moment ago.

    With a beneficiary the bill is the customer's and the money is the beneficiary's. `made_out_to` are billing details for this bill alone.

    Opens the transaction.
    """
    with db.transaction():
        customers.hold(customer_id)
        fx.keep(quote_token, customer_id, amount, beneficiary.currency if beneficiary else customers.get(customer_id).currency)
        whose = beneficiary.id if beneficiary else customer_id
        standing = invoicing.standing_topup(customer_id, whose, amount, clock.now() - SAME_ORDER, made_out_to)
        whom = f"To the account {beneficiary.login}" if beneficiary else ""
        return standing or invoicing.issue_topup_bill(customer_id, whose, amount, whom, made_out_to)


def topup_problem(writer: Formats, amount: Money) -> str | None:
    """Why a top-up of this amount is not possible, as a sentence in the reader's formats, or None. What the balance may hold is `balance_problem`'s."""
    allowed = limits(amount.currency)
    if allowed is None:
        return f"Nothing can be paid in {amount.currency}."
    if amount.minor < allowed.minimum:
        return f"The smallest top-up is {writer.money(allowed.minimum, amount.currency)}."
    if amount.minor > allowed.maximum:
        return f"The largest top-up is {writer.money(allowed.maximum, amount.currency)} at a time."
    return None


def balance_problem(customer: Customer, after: Money) -> str | None:
    """Why a balance may not become `after`, as a sentence, or None."""
    allowed = limits(after.currency)
    if allowed is None or after.minor <= allowed.maximum_balance:
        return None
    most = formats(customer.locale, customer.timezone).money(allowed.maximum_balance, after.currency)
    return f"With this top-up the balance would be above {most}, the most an account may hold."


def offer_for(bill: Bill, beneficiary: Customer | None = None, due: Money | None = None) -> fx.Offer | None:
    """What paying this bill would credit, at the rate the customer was shown already while that is held; None when nothing is converted.

    Raises RateUnavailable or AmountError with a sentence.
    """
    if bill.kind != "topup":
        return None
    into = (beneficiary or customers.get(bill.beneficiary_id)).currency or bill.currency
    if into == bill.currency:
        return None
    due = due or book.due(bill)
    return fx.standing(bill.customer_id, due, into) or fx.offer(due, into)


def options(bill: Bill, payer: Customer | None = None) -> Options:
    """What the payment page offers for a bill; `payer` where it is known already. No network, no writing."""
    standing = invoicing.standing(bill.id)
    due = standing.rest if standing.due else bill.amount
    methods = outages.judged(gateways.methods(bill.buyer["country"] or None, due))
    balance = _balance_for(bill)
    keeping = frozenset(method.key for method in methods if not method.unavailable and _keeps(method))
    saved = [card for card in cards.of_customer(bill.customer_id) if card.usable and f"{card.gateway}-{entered_by(card)}" in keeping]
    try:
        offer = offer_for(bill, payer if payer and payer.id == bill.beneficiary_id else None, due)
    except (fx.RateUnavailable, AmountError) as problem:
        return Options(methods, None, "", balance, str(problem), due, saved, keeping, standing)
    return Options(methods, offer, fx.seal(offer) if offer else "", balance, "", due, saved, keeping, standing)


def _keeps(method: Method) -> bool:
    keeper = gateways.keeper(method.gateway)
    return keeper is not None and keeper.kept_by == method.name


def entered_by(card: Card) -> str:
    """The method by which a saved card was entered, and its bank can be answered."""
    keeper = gateways.keeper(card.gateway)
    return keeper.kept_by if keeper else ""


def _balance_for(bill: Bill) -> Money | None:
    """What the payer can spend, bonus included, where the balance may pay this bill at all."""
    if bill.kind == "topup":
        return None
    state = wallet.state(bill.customer_id)
    return Money(state.available + state.bonus, bill.currency) if state.currency == bill.currency else None


def start(customer_id: int, number: str, method_key: str, quote_token: str = "", link: Link | None = None, *, keep: bool = False) -> Handoff:
    """Open the processor's page for a customer's own bill; asked again, the page that is open already. Who came by a link goes back to its pages.
    With `keep` the processor saves the card for its owner, who has agreed to `cards.consent`.

    Raises NotPayable, QuoteExpired when a new rate has to be shown first, ProcessorDown. Two transactions with the processor's call between.
    """
    bill = current.payable(customer_id, number)
    method, gateway = _chosen(bill, method_key)
    try:
        _refuse_unready(bill)
        keep = keep and link is None and _keeps(method)
        standing = _standing(bill, method, link, keep=keep)
        standing = _requoted(standing, bill, quote_token) if standing else None
        held = _held(bill, quote_token) if standing is None and method.rate_held else None
        payment = standing or _claim(bill, method, held, link, keep=keep)
    except (fx.RateUnavailable, AmountError) as problem:
        raise NotPayable(str(problem)) from problem
    except GatewayError as error:
        raise ProcessorDown(str(error)) from error
    if payment.state == "pending" and payment.gateway != BANK:
        return Redirect(payment.as_charge().return_url, payment.gateway_reference or "")
    if payment.handoff_url:
        return Redirect(payment.handoff_url, payment.gateway_reference or "")
    return hand_over(payment, gateway)


def _refuse_unready(bill: Bill) -> None:
    payer = customers.get(bill.customer_id)
    if customers.missing_fields(payer):
        raise NotPayable("Your profile is not complete yet. Fill it in first, then pay.")
    if bill.kind == "topup" and not customers.is_open(bill.beneficiary_id):
        raise NotPayable("Funds can't be added to this account any more.")
    # A payer of somebody else must not learn from a refusal what lies on that balance.
    if bill.kind == "topup" and not bill.for_another and (problem := _too_much(bill)):
        raise NotPayable(problem)


def _too_much(bill: Bill) -> str | None:
    beneficiary = customers.get(bill.beneficiary_id)
    offer = offer_for(bill, beneficiary)
    credited = offer.credited if offer else book.due(bill)
    return balance_problem(beneficiary, Money(wallet.state(beneficiary.id).available, credited.currency) + credited)


def hand_over(payment: Payment, gateway: Gateway) -> Handoff:
    """Ask the processor for its page, by the payment's own key, and write down what it said. Raises ProcessorDown."""
    try:
        with outages.asking(payment.gateway, "checkout", payment.public_id):
            handoff = gateway.checkout(payment.as_charge())
    except GatewayError as error:
        # Whatever an earlier call opened, nobody was sent there: but for an unknown end of this one, it is over.
        record_failure(payment, error, over=not isinstance(error, NoAnswer))
    with db.transaction():
        if isinstance(handoff, Redirect):
            if db.execute(_HANDED_OVER, id=payment.id, reference=handoff.reference, url=handoff.url, now=clock.now()):
                book.note(payment.id, "created", "The processor's page was opened.")
        elif db.execute(_INSTRUCTED, id=payment.id, reference=handoff.reference, now=clock.now()):
            book.note(payment.id, "pending", "The money is looked for in the bank's statements.")
    return handoff


def instructions(payment: Payment) -> Instructions | None:
    """What a payer by bank transfer has to send, while it is waited for; None for every other payment."""
    bank = gateways.get(payment.gateway)
    if bank is None or payment.gateway != BANK or not payment.open:
        return None
    found = bank.checkout(payment.as_charge())
    return found if isinstance(found, Instructions) else None


def method_of(payment: Payment) -> Method | None:
    """The method a payment was started by, None where it is not carried any more."""
    return gateways.method(payment.gateway, payment.method, payment.money)


def record_failure(payment: Payment, error: GatewayError, *, over: bool) -> NoReturn:
    """Write down that the processor gave no usable answer, and raise ProcessorDown; `over` when nothing of the payment can have happened. Opens the transaction."""
    log.error("Payment %s did not reach its processor: %s", payment.public_id, error.detail)
    state = "failed" if over else "unknown"
    with db.transaction():
        if db.execute(_NOT_HANDED_OVER, id=payment.id, state=state, message=str(error), now=clock.now()) and payment.state != state:
            book.note(payment.id, state, str(error))
    raise ProcessorDown(str(error)) from error


# Also where another click was refused meanwhile: somebody is on this page, so it has to be asked about.
_HANDED_OVER = """
update payments set gateway_reference = %(reference)s, handoff_url = %(url)s, state = case when state = 'unknown' then 'created' else state end, updated_at = %(now)s
where id = %(id)s and handoff_url is null and (state in ('created', 'unknown') or (state = 'failed' and gateway_reference is null))
"""
_INSTRUCTED = """
update payments set gateway_reference = %(reference)s, state = 'pending', updated_at = %(now)s where id = %(id)s and state in ('created', 'unknown')
"""
_NOT_HANDED_OVER = """
update payments set state = %(state)s, failure_message = %(message)s, updated_at = %(now)s
where id = %(id)s and gateway_reference is null and state in ('created', 'unknown')
"""


def _chosen(bill: Bill, key: str) -> tuple[Method, Gateway]:
    found = next((method for method in outages.judged(gateways.methods(bill.buyer["country"] or None, book.due(bill))) if key in (method.key, method.name)), None)
    gateway = gateways.get(found.gateway) if found else None
    if found is None or gateway is None:
        raise NotPayable("Choose one of the methods.")
    if found.unavailable:
        reason = found.reason(formats(bill.locale, bill.timezone).money)
        raise NotPayable(f"{found.label} is not available here: {reason[0].lower()}{reason[1:]}.")
    return found, gateway


def _standing(bill: Bill, method: Method, link: Link | None, *, keep: bool) -> Payment | None:
    """The payment of this bill by this method that is open already. One whose page has closed is asked about first: it may be paid."""
    asked = (method.gateway, method.name, book.due(bill), link.id if link else None, keep, None)
    waiting = book.open_of(bill.id)
    _refuse_beside_a_charge(waiting)
    payment = next((payment for payment in waiting if _asked(payment) == asked), None)
    if payment is None or payment.state == "pending" or payment.expires_at > clock.now():
        return payment
    payment = _asked_about(payment)
    if payment:
        raise ProcessorDown("The processor has not told us yet how your last payment ended. Try again in a minute or choose another method.")
    return None


def _asked_about(payment: Payment) -> Payment | None:
    """An open payment after its processor was asked about it; None when it came to nothing. Raises NotPayable when it was paid."""
    payment = watching.settle_open(payment)
    if payment.kept:
        raise NotPayable("This bill was paid a moment ago.")
    return payment if payment.open else None


def _refuse_beside_a_charge(waiting: list[Payment]) -> None:
    """No page is opened while a saved card may have been charged for the same: its processor is asked about that first."""
    charge = next((payment for payment in waiting if payment.card_id is not None), None)
    charge = watching.settle_open(charge) if charge else None
    if charge and charge.open:
        raise ProcessorDown(f"The processor has not told us yet whether {charge.method_label} was charged. Try again in a few minutes, so that nothing is paid twice.")
    if charge and charge.confirmed:
        raise NotPayable("This bill was paid a moment ago.")


def _asked(payment: Payment) -> tuple[object, ...]:
    return (payment.gateway, payment.method, payment.money, payment.link_id, payment.consent is not None, payment.card_id)


def _requoted(payment: Payment, bill: Bill, token: str) -> Payment | None:
    """An open payment at the rate the customer saw last: the page may have shown a newer one than the page it is paid on was opened with.

    Not one that was paid already, of which we have not heard: it was paid at the rate that was agreed on then. None when it came to nothing.
    """
    seen, agreed = fx.unseal(token), fx.quoted(payment.quote_id) if payment.quote_id else None
    current = offer_for(bill) if seen else None
    if seen is None or current is None or (seen.pay, seen.credited.currency) != (current.pay, current.credited.currency):
        return payment
    if payment.state == "pending" or (agreed is not None and agreed.credited == seen.credited):
        return payment
    asked = _asked_about(payment)
    if asked:
        with db.transaction():
            db.execute(_REQUOTE, id=asked.id, quote_id=fx.fix(seen, bill.customer_id))
    return asked


_REQUOTE = "update payments set quote_id = %(quote_id)s where id = %(id)s and state in ('created', 'unknown')"


def _held(bill: Bill, token: str) -> fx.Offer | None:
    """The offer the customer saw and agreed to, or None when nothing is converted. Raises QuoteExpired."""
    current = offer_for(bill)
    if current is None:
        return None
    seen = fx.unseal(token)
    if seen is None or (seen.pay, seen.credited.currency) != (current.pay, current.credited.currency):
        raise QuoteExpired
    return seen


def _claim(bill: Bill, method: Method, offer: fx.Offer | None, link: Link | None, *, keep: bool) -> Payment:
    """Write the payment, before anybody outside hears of it; the one another request wrote first, if it did."""
    public_id, expires_at = book.new_public_id(), clock.now() + (TRANSFER_LIFE if method.gateway == BANK else SESSION_LIFE)
    charge = _charge(bill, method, public_id, expires_at.replace(microsecond=0), link)
    if keep:
        charge = replace(charge, keep=True, holder=cards.holder(bill.customer_id, method.gateway))
    try:
        with db.transaction():
            _refuse_ended(bill)
            return _insert(bill, method, charge, fx.fix(offer, bill.customer_id) if offer else None, link)
    except fx.RateUnavailable as expired:
        raise QuoteExpired from expired
    except _Lost:
        standing = _standing(bill, method, link, keep=keep)
        if standing is None:
            raise ProcessorDown("This payment has just ended in another window. Look at the bill again.") from None
        return standing


def _refuse_ended(bill: Bill) -> None:
    """No page is opened for a bill that was paid or cancelled, or is being charged to a saved card, since a moment ago. Within a transaction."""
    now = invoicing.lock(bill.id)
    if not now.unpaid:
        raise NotPayable(f"{now.number} is {now.status} already.")
    if now.total != bill.total:
        raise NotPayable(current.replaced(now))
    if any(payment.card_id is not None for payment in book.open_of(bill.id)):
        raise NotPayable(f"{bill.number} is being charged to a saved card at this moment. Try again in a few minutes.")


def claim_for_card(bill: Bill, card: Card, token: str, *, unasked: bool) -> tuple[Payment, bool]:
    """Write the payment of a bill by a saved card, before its processor hears of it, or find the one that is on its way; whether it was just written.

    Opens the transaction.

    Raises NotPayable, QuoteExpired, RateUnavailable, AmountError.
    """
    method, _ = _chosen(bill, f"{card.gateway}-{entered_by(card)}")
    _refuse_unready(bill)
    standing = _standing_by_card(bill, card)
    if standing is not None:
        return standing, False
    held = _held(bill, token) if method.rate_held else None
    charge = _charge(bill, replace(method, label=card.label), book.new_public_id(), (clock.now() + CHARGE_LIFE).replace(microsecond=0), None)
    charge = replace(charge, holder=card.holder, card=card.token, unasked=unasked, email="")
    try:
        with db.transaction():
            _refuse_changed(bill, card, unasked=unasked)
            return _insert(bill, replace(method, label=card.label), charge, fx.fix(held, bill.customer_id) if held else None, None, card), True
    except _Lost:
        standing = _standing_by_card(bill, card)
        if standing is None:
            raise NotPayable("This payment has just ended in another window. Look at the bill again.") from None
        return standing, False


def _standing_by_card(bill: Bill, card: Card) -> Payment | None:
    standing = next((payment for payment in book.open_of(bill.id) if payment.card_id is not None), None)
    if standing is not None and standing.card_id != card.id:
        raise NotPayable(f"A payment of this bill by {standing.method_label} is on its way.")
    return standing


def _refuse_changed(bill: Bill, card: Card, *, unasked: bool) -> None:
    """Nothing is charged for a bill that was paid, or to a card that was removed, a moment ago; nor unasked beside what its owner has just opened. Within a transaction."""
    # The card before the bill, as whoever books a payment holds them.
    if not db.rows("select 1 from saved_cards where id = %(id)s and removed_at is null and unusable = '' for share", id=card.id):
        raise NotPayable(f"{card.label} was removed a moment ago. Choose another method.")
    now = invoicing.lock(bill.id)
    if not now.unpaid:
        raise NotPayable("This bill was paid a moment ago.")
    if now.total != bill.total:
        raise NotPayable(current.replaced(now))
    if unasked and any(payment.gateway != BANK and payment.card_id is None for payment in book.open_of(bill.id)):
        raise NotPayable("This bill is being paid another way.")


class _Lost(Exception):
    """Another request has the open payment of this bill and method."""


def _insert(bill: Bill, method: Method, charge: Charge, quote_id: int | None, link: Link | None, card: Card | None = None) -> Payment:
    now = clock.now()
    kept = asdict(charge) | {"amount": charge.amount.minor, "currency": charge.amount.currency, "expires_at": charge.expires_at.isoformat()}
    row = db.row(
        _INSERT + book.COLUMNS,
        public_id=charge.id,
        bill_id=bill.id,
        customer_id=bill.beneficiary_id,
        payer_id=bill.customer_id,
        method=method.name,
        gateway=method.gateway,
        amount=charge.amount.minor,
        currency=charge.amount.currency,
        quote_id=quote_id,
        charge=json.dumps(kept),
        label=method.label,
        link_id=link.id if link else None,
        card_id=card.id if card else None,
        consent=cards.consent() if charge.keep else None,
        off_session=charge.unasked,
        now=now,
        expires_at=charge.expires_at,
    )
    if row is None:
        raise _Lost
    payment = Payment(*row)
    book.note(payment.id, "started", f"By {method.label}{', for a renewal' if charge.unasked else ''}.", actor="system" if charge.unasked else "customer")
    return payment


_INSERT = """
insert into payments (public_id, bill_id, customer_id, payer_id, method, gateway, amount, currency, quote_id, charge, method_label, link_id, card_id, consent, off_session, created_at, updated_at, checked_at, expires_at)
values (%(public_id)s, %(bill_id)s, %(customer_id)s, %(payer_id)s, %(method)s, %(gateway)s, %(amount)s, %(currency)s, %(quote_id)s, %(charge)s, %(label)s, %(link_id)s, %(card_id)s, %(consent)s, %(off_session)s,
  %(now)s, %(now)s, %(now)s, %(expires_at)s)
on conflict do nothing
returning
"""


def _charge(bill: Bill, method: Method, public_id: str, expires_at: datetime, link: Link | None) -> Charge:
    payer, base_url = customers.get(bill.customer_id), config.current().base_url
    back, away = (told_at(public_id), link.path) if link else (f"/payments/{public_id}", f"/invoices/{bill.number}/pay?left={public_id}")
    return Charge(
        id=public_id,
        amount=book.due(bill),
        method=method.name,
        title=bill.title,
        description=f"{bill.title} {bill.number}",
        return_url=base_url + back,
        cancel_url=base_url + away,
        expires_at=expires_at,
        email="" if link and not payer.guest else payer.email,
        locale=payer.locale.partition("_")[0],
        reference=bill.payment_reference or bill.number,
    )
