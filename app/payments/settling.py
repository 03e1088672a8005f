"""What a processor says becomes what we hold: one table of steps, and the one place where a payment is credited."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import config
from app import clock, customers, db, fx, gateways, invoicing, languages, ledger, mail, wallet
from app.customers import Customer
from app.formats import Formats, formats
from app.gateways.base import ASKED_FOR, Snapshot
from app.invoicing import Bill, Settlement
from app.money import AmountError, Money
from app.payments import book, cards, current, links, outages
from app.payments.book import NotPayable, Payment

log = logging.getLogger(__name__)

CANNOT_CONVERT = "cannot_convert"
"""The code of money whose amount the other currency cannot hold."""
NO_RATE = "no_rate"
"""The code of money that waits for an exchange rate alone."""

STEPS: Mapping[str, frozenset[str]] = {
    "created": frozenset({"pending", "paid", "failed", "expired"}),
    "unknown": frozenset({"open", "pending", "paid", "failed", "expired"}),
    "pending": frozenset({"paid", "failed", "expired"}),
    "expired": frozenset({"failed", "paid"}),  # money that comes late still counts
    "failed": frozenset({"paid"}),
    "review": frozenset(),
    "returned": frozenset(),
    "dismissed": frozenset(),
    "paid": frozenset(),
    "partially_refunded": frozenset(),
    "refunded": frozenset(),
    "taken_back": frozenset(),
    "disputed": frozenset(),
}
"""Which states of the processor move a payment on; every other one is old news and changes nothing.

Each state is reached from every state before it and left only for one after it, so all orders of the same news end alike.
"""


BALANCE = languages.N_("Account balance")
"""How a bill was paid that no processor had a part in."""

Follower = Callable[[Payment, Snapshot], None]
_followers: list[Follower] = []


def follow_with(follower: Follower) -> None:
    """Let this be told of every snapshot of a payment that was credited or held, in the transaction that takes it in. Money out hangs on here: it stands above this room."""
    _followers[:] = [follower]


class Refused(Exception):
    """A snapshot that cannot be of this payment: for the operator, never for the books."""


def apply(gateway: str, snapshot: Snapshot) -> Payment | None:
    """Bring a payment to what its processor says, and credit it if that is the news. Opens the transaction.

    The payment as it stands then; None when the snapshot names none of ours. Raises Refused.
    """
    with db.transaction():
        return take_in(gateway, snapshot)


def take_in(gateway: str, snapshot: Snapshot) -> Payment | None:
    """`apply` within the caller's transaction."""
    payment = book.lock(gateway, snapshot.charge_id)
    if payment is None:
        return None
    outages.note_unread(gateway, payment.id, snapshot.unread)
    if payment.gateway_reference not in (None, snapshot.reference):
        raise Refused(f"{payment.public_id} is {payment.gateway_reference} at {gateway}, not {snapshot.reference}")
    if snapshot.refunds or snapshot.disputes:  # whoever follows them holds the customer, and that comes before the money
        customers.hold(payment.customer_id)
    if snapshot.state in STEPS[payment.state]:
        payment = _TAKE[snapshot.state](payment, snapshot)
    elif payment.state == "created" and snapshot.state == "open":
        payment = _note_try(payment, snapshot)
    elif payment.kept and not snapshot.fault:
        payment = _book_fee(_take_more(payment, snapshot), snapshot)
    return _followed(payment, snapshot)


def _followed(payment: Payment, snapshot: Snapshot) -> Payment:
    """The payment after what its processor says of its refunds and disputes was followed."""
    if not payment.kept or not (snapshot.refunds or snapshot.disputes):
        return payment
    for follow in _followers:
        follow(payment, snapshot)
    return book.read(payment.public_id) or payment


def _reopen(payment: Payment, snapshot: Snapshot) -> Payment:
    return _write(payment, "created", snapshot, note="")


def _wait(payment: Payment, snapshot: Snapshot) -> Payment:
    return _write(payment, "pending", snapshot, note="The processor confirmed the payment; the money is on its way.")


def _note_try(payment: Payment, snapshot: Snapshot) -> Payment:
    """A try on the processor's page failed, and the page is open for another: the reason is kept for whoever comes back without one."""
    if not snapshot.failure_message or snapshot.failure_message == payment.failure_message:
        return payment
    db.execute(_DECLINED, id=payment.id, code=snapshot.failure_code or None, message=snapshot.failure_message, now=clock.now())
    book.note(payment.id, "declined", snapshot.failure_message, actor=payment.gateway)
    return replace(payment, failure_code=snapshot.failure_code or None, failure_message=snapshot.failure_message)


_DECLINED = "update payments set failure_code = %(code)s, failure_message = %(message)s, updated_at = %(now)s where id = %(id)s"


def _fail(payment: Payment, snapshot: Snapshot) -> Payment:
    if payment.card_id is not None and snapshot.state == "failed":
        _decline(payment, payment.card_id, snapshot)
    after = _write(payment, snapshot.state, snapshot, note=snapshot.failure_message)
    method = gateways.method(payment.gateway, payment.method, payment.money)
    # Who waits for money that takes days has left the page long ago; of a decline on the page itself its visitor was told there.
    if snapshot.state == "failed" and not payment.off_session and (payment.state == "pending" or (method and method.waiting)):
        _tell_failure(after, invoicing.lock(payment.bill_id))
    return after


def _tell_failure(payment: Payment, bill: Bill) -> None:
    payer, standing = customers.get(payment.payer_id), invoicing.standing(bill.id)
    writer, link = formats(payer.locale, payer.timezone), links.shared(bill.id) if payer.guest else None
    again = (link.path if link else links.told_at(payment.public_id)) if payer.guest else f"/invoices/{bill.number}/pay"
    mail.inform(
        "payment_failed", payer.email, locale=payer.locale, key=f"payment:{payment.public_id}:failed", customer_id=payer.id, number=bill.number,
        name=payer.title or payer.email,
        amount=writer.money(payment.amount, payment.currency), method=payment.method_label, reason=payment.failure_message or "",
        for_another=payment.for_another, payable=bool(standing.due) and not standing.busy, owed=standing.code == "unpaid",
        rest=_written(standing.rest, writer) if standing.code == "partly_paid" else "", url=config.current().base_url + again,
    )  # fmt: skip


def _decline(payment: Payment, card_id: int, snapshot: Snapshot) -> None:
    """A saved card was declined: one that is done for is never charged again, and who was not there to see it gets a mail."""
    if snapshot.dead_card:
        cards.spoil(card_id, snapshot.failure_code)
    if payment.off_session:
        customer, bill = customers.get(payment.payer_id), invoicing.lock(payment.bill_id)
        link = links.shared(bill.id)
        mail.inform(
            "card_declined",
            customer.email,
            locale=customer.locale,
            key=f"payment:{payment.public_id}:declined",
            customer_id=customer.id,
            name=customer.title or customer.email,
            what=bill.title,
            card=payment.method_label,
            number=bill.number,
            price=formats(customer.locale, customer.timezone).money(payment.amount, payment.currency),
            reason=snapshot.failure_message,
            asked=snapshot.failure_code == ASKED_FOR,
            dead=snapshot.dead_card,
            url=link.url if link else f"{config.current().base_url}/invoices/{bill.number}/pay",
        )


def _pay(payment: Payment, snapshot: Snapshot) -> Payment:
    fault, received = _fault(payment, snapshot), snapshot.received
    if received and not fault:
        try:
            return _credit(payment, snapshot, received)
        except (fx.RateUnavailable, AmountError) as unavailable:
            fault = f"it cannot be converted now: {unavailable}"
            return _review(payment, snapshot, fault, cause_of(unavailable))
    return _review(payment, snapshot, fault)


def cause_of(problem: Exception) -> str:
    """The code of what can end by itself: only a rate that is missing comes back."""
    return NO_RATE if isinstance(problem, fx.RateUnavailable) else ""


_TAKE: Mapping[str, Callable[[Payment, Snapshot], Payment]] = {"open": _reopen, "pending": _wait, "failed": _fail, "expired": _fail, "paid": _pay}


def _fault(payment: Payment, snapshot: Snapshot) -> str:
    """Why money that was received must not be credited, or nothing. Where the payer decides how much to send, any sum will do."""
    if snapshot.fault or snapshot.doubt:
        return snapshot.fault or snapshot.doubt
    if snapshot.received is None:
        return "the processor does not say what was received"
    if snapshot.received == payment.money or (not snapshot.exact and snapshot.received.currency == payment.currency):
        return ""
    return f"{snapshot.received} came instead of {payment.money}"


def _review(payment: Payment, snapshot: Snapshot, fault: str, cause: str = "") -> Payment:
    """Keep the money, if it is real money, where the operator sees it; not on the wallet."""
    log.error("Payment %s needs a person: %s", payment.public_id, fault)
    payment = _write(payment, "review", snapshot, note=fault)
    if snapshot.received and not snapshot.fault:
        return _book_fee(_hold(payment, snapshot.received, credit_reference(payment, snapshot), fault, cause), snapshot)
    return _note_held(payment, None, None, fault)


def _hold(payment: Payment, money: Money, reference: str, why: str, cause: str = "") -> Payment:
    lines = [(_gateway_account(payment, money.currency), -money.minor), (ledger.account("suspense", money.currency), money.minor)]
    posted = ledger.post(reference, "arrived", lines, description=why, payment_id=payment.id, bill_id=payment.bill_id)
    return _note_held(payment, money, posted.transfer_id, why, cause)


def _note_held(payment: Payment, money: Money | None, transfer_id: int | None, why: str, cause: str = "") -> Payment:
    """Put it on the operator's list, and tell whoever paid that it came and is looked at."""
    facts = {"payment": payment.id, "transfer": transfer_id, "amount": money.minor if money else None, "currency": money.currency if money else None}
    (row,) = db.rows(_HOLD, **facts, reason=why, cause=cause, now=clock.now())
    db.execute(_HELD_STEP, id=row.id, note=why, actor=payment.gateway, now=clock.now())
    tell_of_held(payment, money, row.number, "held")
    return payment


def tell_of_held(payment: Payment, money: Money | None, number: str, state: str, **more: str) -> None:
    """Write to the payer what became of money that could not be credited by itself: ``held``, ``returned``, ``back`` after that, ``dismissed``. Within a transaction."""
    payer = customers.get(payment.payer_id)
    writer = formats(payer.locale, payer.timezone)
    mail.inform(
        "payment_held", payer.email, locale=payer.locale, key=f"{number}:{state}{more.pop('once', '')}", customer_id=payer.id, name=payer.title or payer.email,
        state=state, number=payment.bill_number,
        amount=writer.money(money.minor, money.currency) if money else "", method=payment.method_label, note=more.get("note", ""), target=more.get("target", ""),
        url=config.current().base_url + (links.told_at(payment.public_id) if payer.guest else f"/payments/{payment.public_id}"),
    )  # fmt: skip


_HOLD = """
with taken as (select nextval(pg_get_serial_sequence('held', 'id')) as id)
insert into held (id, number, payment_id, transfer_id, amount, currency, reason, cause, held_at, updated_at)
overriding system value
select id, 'HM-' || lpad(id::text, greatest(6, length(id::text)), '0'), %(payment)s, %(transfer)s, %(amount)s, %(currency)s, %(reason)s, %(cause)s, %(now)s, %(now)s from taken
returning id, number
"""
_HELD_STEP = "insert into held_events (held_id, at, state, note, actor) values (%(id)s, %(now)s, 'held', %(note)s, %(actor)s)"


def credit_held(payment_id: int, money: Money, number: str) -> Payment:
    """Credit what was held of a payment, at the rate of now; receipt, mail and bill as for any other money. Within a transaction, the payment held.

    `number` is the held money's own and part of every key, so it is credited once. Raises RateUnavailable, AmountError, NotPayable.
    """
    payment = book.locked(payment_id)
    (bill, into), now = _hold_bill(payment, money), clock.now()
    received = Money(payment.received or 0, payment.received_currency or money.currency)
    snapshot = Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=received, method_label=payment.method_label)
    suspense = ledger.account("suspense", money.currency)
    reference = f"{number}:credit:{payment.credited}" if payment.confirmed else f"{number}:credit"
    conversion, transfer_id = _to_wallet(payment, snapshot, bill, money, into, now, reference, out_of=suspense)
    outcome = _settle(bill, payment, snapshot, conversion, money, transfer_id, now)
    if payment.confirmed:
        payment = _grow(payment, snapshot, (payment.credited or 0) + conversion.credited.minor, f"Looked at and credited. {outcome.note}")
    else:
        payment = _write(payment, "paid", snapshot, note=f"Looked at and credited. {outcome.note}", credited=conversion, paid_at=now)
    settled = _settle_debts(payment, bill, conversion.credited.currency, number)
    _announce(payment, bill, conversion, money, now, settled, number, outcome)
    return payment


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a received amount becomes on the wallet: the credited money, the ledger lines that pay for it, and the sentence about the rate.

    `offer` is that rate, None where nothing was converted; `held` says whether it was held for this money.
    """

    credited: Money
    lines: list[tuple[int, int]]
    rate_note: str = ""
    offer: fx.Offer | None = None
    held: bool = False


def _take_more(payment: Payment, snapshot: Snapshot) -> Payment:
    """What a payment received after it was credited: the difference, under a key made of the sum it has come to, so once for each sum."""
    received = snapshot.received
    if snapshot.exact or snapshot.fault or snapshot.state != "paid" or received is None or received.currency != payment.received_currency:
        return payment
    if received.minor < (payment.received or 0):
        log.error("Payment %s was credited with %s, and its processor now says %s.", payment.public_id, payment.received, received)
    if received.minor <= (payment.received or 0):
        return payment
    more = Money(received.minor - (payment.received or 0), received.currency)
    doubt = snapshot.doubt or ("" if payment.confirmed else "what came of it before waits for a person too")
    try:
        return _credit_more(payment, snapshot, more) if not doubt else _hold_more(payment, snapshot, more, doubt)
    except (fx.RateUnavailable, AmountError) as unavailable:
        return _hold_more(payment, snapshot, more, f"it cannot be converted now: {unavailable}", cause_of(unavailable))


def _credit_more(payment: Payment, snapshot: Snapshot, more: Money) -> Payment:
    (bill, into), now = _hold_bill(payment, more), clock.now()
    conversion, transfer_id = _to_wallet(payment, snapshot, bill, more, into, now, _more_reference(payment, snapshot))
    outcome = _settle(bill, payment, snapshot, conversion, more, transfer_id, now)
    credited = (payment.credited or 0) + conversion.credited.minor
    payment = _grow(payment, snapshot, credited, f"{formats(bill.locale, bill.timezone).money(more.minor, more.currency)} more arrived. {outcome.note}")
    once = f"{payment.public_id}:{payment.received}"
    _announce(payment, bill, conversion, more, now, _settle_debts(payment, bill, conversion.credited.currency, once), once, outcome)
    return payment


def _hold_more(payment: Payment, snapshot: Snapshot, more: Money, why: str, cause: str = "") -> Payment:
    log.error("More money of payment %s needs a person: %s", payment.public_id, why)
    _hold(payment, more, _more_reference(payment, snapshot), why, cause)
    return _grow(payment, snapshot, payment.credited, "More money arrived. A person looks at it before it is credited.")


def _grow(payment: Payment, snapshot: Snapshot, credited: int | None, note: str) -> Payment:
    received = snapshot.received.minor if snapshot.received else payment.received
    db.execute("update payments set received = %(received)s, credited = %(credited)s, updated_at = %(now)s where id = %(id)s",
               id=payment.id, received=received, credited=credited, now=clock.now())  # fmt: skip
    book.note(payment.id, payment.state, note, actor=payment.gateway)
    return replace(payment, received=received, credited=credited)


def _more_reference(payment: Payment, snapshot: Snapshot) -> str:
    return f"{credit_reference(payment, snapshot)}:{snapshot.received.minor if snapshot.received else 0}"


def _credit(payment: Payment, snapshot: Snapshot, received: Money) -> Payment:
    paid_at = snapshot.paid_at or clock.now()
    if snapshot.card and payment.consent:  # before the bill and the money: it holds the customer, as renewals do before theirs
        cards.save(payment.payer_id, payment.gateway, snapshot.card, payment.consent, payment.created_at)
    bill, into = _hold_bill(payment, received)
    conversion, transfer_id = _to_wallet(payment, snapshot, bill, received, into, paid_at, credit_reference(payment, snapshot))
    outcome = _settle(bill, payment, snapshot, conversion, received, transfer_id, paid_at)
    payment = _write(payment, "paid", snapshot, note=outcome.note, credited=conversion, paid_at=paid_at)
    payment = _book_fee(payment, snapshot)
    settled = _settle_debts(payment, bill, conversion.credited.currency, f"{payment.public_id}:{payment.received}")
    _announce(payment, bill, conversion, received, paid_at, settled, payment.public_id, outcome)
    return payment


def _hold_bill(payment: Payment, received: Money) -> tuple[Bill, str]:
    """The bill of money that came, held, and the currency it becomes; a customer without one gets that of the money."""
    currency = customers.settle_currency(payment.customer_id, received.currency)  # before the bill: it may hold the customer, as who orders does
    bill = invoicing.lock(payment.bill_id)
    # What a payment brings later is counted with what it brought before, so it comes in the same currency; `exchange.bring_over` takes it along.
    return bill, payment.credited_currency or (received.currency if bill.kind == "service" and bill.unpaid else currency)


def _to_wallet(
    payment: Payment, snapshot: Snapshot, bill: Bill, received: Money, into: str, paid_at: datetime, reference: str, *, out_of: int | None = None
) -> tuple[Conversion, int]:
    """Credit what was received, out of the gateway or another account, as a lot of its own; what it became, and the transfer."""
    conversion = _convert(payment, received, into, paid_at, formats(bill.locale, bill.timezone))
    posted = wallet.credit(
        payment.customer_id,
        conversion.credited,
        reference=reference,
        kind="topup",
        counter=[(out_of or _gateway_account(payment, received.currency), -received.minor), *conversion.lines],
        payment_id=payment.id,
        bill_id=bill.id,
        paid=received,
        description=_described(payment, snapshot),
    )
    return conversion, posted.transfer_id


def _settle_debts(payment: Payment, bill: Bill, currency: str, cause: str) -> Money | None:
    """Settle what a dispute left owing with the money that came, before anything else can have it; how much of it did."""
    settled = wallet.settle_debts(payment.customer_id, currency, cause=cause, payment_id=payment.id)
    if settled and not payment.for_another:  # what the owner of the balance owed is none of the payer's business
        book.note(payment.id, "paid", settled_sentence(settled, formats(bill.locale, bill.timezone)))
    return settled or None


def settled_sentence(settled: Money, writer: Formats) -> str:
    """What a payment's history says of the part that settled a debt."""
    return f"{writer.money(settled.minor, settled.currency)} of it settled what a dispute had left owing."


def _described(payment: Payment, snapshot: Snapshot) -> str:
    """What the owner of the balance reads. Of who pays for somebody else, only what that payer wanted to be read."""
    if not payment.for_another:
        return f"Top-up by {snapshot.method_label or payment.method_label}"
    if not customers.get(payment.payer_id).guest:  # also who copied the link of the bill: it is not the owner's
        return "Top-up from another account"
    said = links.said_by_payer(payment.bill_id)
    return f"Top-up by your link, from {said}" if said else "Top-up by your link"


def _convert(payment: Payment, received: Money, into: str, paid_at: datetime, writer: Formats) -> Conversion:
    """The quote's exact amount when just that was paid while the quote was held, else the rate of this moment, and a sentence that says so."""
    offer = fx.quoted(payment.quote_id) if payment.quote_id and received.currency != into else None
    late = offer is None or (offer.pay, offer.credited.currency) != (received, into) or paid_at > payment.expires_at
    return convert(received, into, writer, None if late else offer)


def convert(received: Money, into: str, writer: Formats, held: fx.Offer | None = None) -> Conversion:
    """What money becomes in a currency, by the rate that was held for it, else by that of this moment. Raises RateUnavailable, AmountError."""
    if received.currency == into:
        return Conversion(received, [])
    offer = held or fx.offer(received, into)
    source = f"{offer.source}, {writer.date(offer.rate_date)}"
    note = f"{writer.money(offer.credited.minor, into)} added to the balance at 1 {received.currency} = {writer.rate(Decimal(offer.rate))} {into} ({source})."
    lines = [(ledger.account("fx", received.currency), received.minor), (ledger.account("fx", into), -offer.gross.minor)]
    if offer.spread:
        lines.append((ledger.account("revenue", into, key="exchange"), offer.spread.minor))
    note = note if held else f"{note} No rate was held when the money arrived, so it is the rate of that day."
    return Conversion(offer.credited, lines, note, offer, held=held is not None)


def _settle(bill: Bill, payment: Payment, snapshot: Snapshot, conversion: Conversion, received: Money, transfer_id: int, paid_at: datetime) -> "Outcome":
    """Pay the bill with what was just credited and what came for it before, if it still can be paid, and issue the money's receipt."""
    facts = Settlement(
        paid_at,
        snapshot.method_label or payment.method_label,
        paid=received,
        credited=conversion.credited,
        rate_note=conversion.rate_note,
        reference=payment.public_id,
        processor=snapshot.reference,
        credit_id=transfer_id,
        by_link=payment.link_id is not None and not customers.get(payment.payer_id).guest,
    )
    note, fate = _pay_bill(bill, payment, conversion, received, facts)
    receipt = invoicing.issue_payment_receipts([(bill, facts)])[0] if fate.rest or fate.spare or fate.uncovered else ""
    if fate.rest:
        invoicing.reissue([bill.id])  # what is still to be paid is asked for with today's VAT
    return Outcome(note, fate, receipt)


def _pay_bill(bill: Bill, payment: Payment, conversion: Conversion, received: Money, facts: Settlement) -> tuple[str, "Fate"]:
    """The sentence about the bill, and what became of it."""
    if not takes_money(bill):
        return f"{bill.number} was {bill.status} already, so the money was added to the balance.", Fate(spare=True)
    before = book.came_for(bill)
    came = before.received + next((money.minor for money in (received, conversion.credited) if money.currency == bill.currency), 0)
    bill = on_its_day(*made_out([bill], [facts.paid_at])[0], came)
    if came < bill.total:
        rest = Money(bill.total - came, bill.currency)
        return f"{formats(bill.locale, bill.timezone).money(rest.minor, rest.currency)} of {bill.number} is still to be paid.", Fate(rest=rest)
    fate = Fate(above=Money(came - bill.total, bill.currency) if came > bill.total else None)
    if bill.kind == "service":
        try:
            spent = charge(bill, f"Paid by {payment.method_label}")
            facts = replace(facts, bonus=spent.from_bonus)
            fate = paid_with_bonus(bill, spent, came) or fate
        except ledger.InsufficientFunds:
            # What came for it before has been spent on something else meanwhile.
            return f"The balance does not cover {bill.number}, so the money was added to it.", Fate(uncovered=True)
    facts = replace(
        facts,
        last=received if before.received else None,
        last_credited=conversion.credited if before.received else None,
        paid=Money(came, bill.currency) if received.currency == bill.currency else received,
        credited=Money(before.credited + conversion.credited.minor, conversion.credited.currency),
    )
    number = invoicing.settle(bill, facts)
    return f"{number} was issued.", fate


def made_out(bills: Sequence[Bill], paid_at: Sequence[datetime]) -> list[tuple[Bill, Bill]]:
    """Each bill as made out on the day on which it was paid, and as made out today. One statement."""
    days = [*map(clock.day_of, paid_at), *[clock.today()] * len(bills)]
    found = invoicing.as_of([*bills, *bills], days)
    return list(zip(found[: len(bills)], found[len(bills) :], strict=True))


def on_its_day(then: Bill, now: Bill, came: int) -> Bill:
    """Which of the two `made_out` the invoice has to say: that of the day of payment, if what came
    (minor units) is enough for it, else that of today."""
    return then if came >= then.total else now


def takes_money(bill: Bill) -> bool:
    """Whether money that comes for this bill pays it: a top-up even after its time is over, as what came is on the balance anyway."""
    return bill.status in (("unpaid", "expired", "cancelled") if bill.kind == "topup" else ("unpaid",))


def charge(bill: Bill, description: str) -> wallet.Spent:
    """Take what a service bill asks from the customer's money, bonus first. Within a transaction.

    What of it the bonus covers lowers the price: whoever settles the bill says so (`Settlement.bonus`).
    Raises InsufficientFunds, and then nothing was taken.
    """
    if bill.kind == "topup":
        raise NotPayable("This bill adds to your balance, so it cannot be paid from it.")
    title = f"{bill.title} · {description}" if description else bill.title
    return wallet.spend(bill.customer_id, bill.amount, reference=f"bill:{bill.id}:charge", counter=earnings(bill), description=title, bill_id=bill.id)


def earnings(bill: Bill) -> wallet.AfterBonus:
    """Where the money of a service bill goes: the net amount is ours, the tax is owed to the country the bill names. Within a transaction.

    Both are of the price that a bonus leaves.
    """

    def of_the_rest(from_bonus: int) -> list[tuple[int, int]]:
        left = bill.less(from_bonus)
        lines = [(ledger.account("revenue", bill.currency), left.net)]
        if left.tax:
            lines.append((ledger.account("vat", bill.currency, key=bill.buyer["country"]), left.tax))
        return lines

    return of_the_rest


def pay_from_balance(customer_id: int, number: str) -> Bill:
    """Pay a customer's own service bill from the balance, all or nothing; the bill as it stands then. Opens the transaction.

    Raises NotPayable for a bill that cannot be paid so, InsufficientFunds when there is too little.
    """
    shown = current.payable(customer_id, number)
    with db.transaction():
        bill = invoicing.lock(shown.id)
        if not bill.unpaid:
            raise NotPayable(f"{bill.number} is {bill.status} already.")
        (today,) = invoicing.as_of([bill], [clock.today()])
        if not shown.total == bill.total == today.total:
            raise NotPayable("The VAT changed a moment ago. Look at the invoice for payment again.")
        bill = today
        if any(payment.card_id is not None for payment in book.open_of(bill.id)):
            raise NotPayable(f"{bill.number} is being charged to a saved card at this moment. Try again in a few minutes.")
        spent, now = charge(bill, ""), clock.now()
        invoicing.settle(bill, Settlement(now, BALANCE, source="balance", bonus=spent.from_bonus))
        bill = invoicing.lock(bill.id)
        letter = confirmation(
            customers.get(customer_id),
            bill,
            "",
            f"{bill.number}:confirmed",
            bill.amount,
            Conversion(bill.amount, []),
            now,
            BALANCE,
            None,
            Fate(bonus=Money(spent.from_bonus, bill.currency)),
        )
        mail.inform_many([letter])
        return bill


def _book_fee(payment: Payment, snapshot: Snapshot) -> Payment:
    """What the processor kept of it, once it says so; often later than the payment itself."""
    fee = snapshot.fee
    if fee is None or payment.fee is not None:
        return payment
    if fee:
        lines = [(_gateway_account(payment, fee.currency), fee.minor), (ledger.account("fees", fee.currency, key=payment.gateway), -fee.minor)]
        ledger.post(f"{payment.gateway}:{payment.gateway_reference}:fee", "fee", lines, description="Processor's fee", payment_id=payment.id)
    db.execute("update payments set fee = %(fee)s, fee_currency = %(currency)s where id = %(id)s", id=payment.id, fee=fee.minor, currency=fee.currency)
    return replace(payment, fee=fee.minor, fee_currency=fee.currency)


def _announce(payment: Payment, bill: Bill, conversion: Conversion, received: Money, paid_at: datetime, settled: Money | None, once: str, outcome: "Outcome") -> None:
    """The mail to the payer, and to the owner where that is somebody else; `once` is in its key."""
    payer, bill = customers.get(payment.payer_id), invoicing.lock(bill.id)
    letters = [
        confirmation(
            payer,
            bill,
            payment.public_id,
            f"{once}:confirmed",
            received,
            conversion,
            paid_at,
            payment.method_label,
            settled,
            outcome.fate,
            outcome.receipt,
            unasked=payment.off_session,
        )
    ]
    if payment.for_another:
        owner = customers.get(payment.customer_id)
        letters.append(to_owner(owner, bill, conversion.credited, paid_at, once, settled, by_link=payer.guest))
    mail.inform_many(letters)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a bill by money that came, as far as its payer has to be told.

    `rest` is still to be paid, `above` is what came beyond the bill; where a `bonus` paid a part of it, `stays` is left of the
    money instead. `spare` says that there was nothing left to pay, `uncovered` that
    the balance did not cover it any more. `deducted` is what banks kept on the way.
    """

    rest: Money | None = None
    above: Money | None = None
    spare: bool = False
    uncovered: bool = False
    deducted: Money | None = None
    bonus: Money | None = None
    stays: Money | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What money did for its bill: a sentence for the history, what its payer is told, and its receipt's number where it did not pay the bill."""

    note: str
    fate: Fate
    receipt: str


def paid_with_bonus(bill: Bill, spent: wallet.Spent, came: int) -> Fate | None:
    """What is left of money that came for a bill (minor units) of which a bonus paid a part; None where none did."""
    if not spent.from_bonus:
        return None
    stays = max(0, came - spent.from_balance)
    return Fate(bonus=Money(spent.from_bonus, bill.currency), stays=Money(stays, bill.currency))


def confirmation(
    payer: Customer,
    bill: Bill,
    public_id: str,
    key: str,
    received: Money,
    conversion: Conversion,
    paid_at: datetime,
    method: str,
    settled: Money | None,
    fate: Fate,
    receipt: str = "",
    *,
    unasked: bool = False,
) -> mail.Letter:
    """The mail that tells a payer that money arrived and what it became. `bill` as it stands now, `method` the label of the payment's way.

    `receipt` is the money's own, where it did not pay the bill; `unasked` a card that was charged without its owner.
    """
    writer = formats(payer.locale, payer.timezone)
    context: dict[str, object] = {
        "name": payer.title or payer.email,
        "number": bill.number,
        "paid": _written(received, writer),
        "credited": _written(conversion.credited, writer),
        "paid_at": writer.datetime(paid_at),
        "method": method,
        "rate": _rate(conversion, writer),
        "settled": "" if bill.for_another else _written(settled, writer),
        "cleared": not bill.for_another and _cleared(payer, settled),
        "rest": _written(fate.rest, writer),
        "above": _written(fate.above, writer),
        # How the price came about is the owner's business, not that of who pays by a copied link.
        "bonus": _written(fate.bonus, writer) if payer.id == bill.customer_id else "",
        "stays": _written(fate.stays, writer) if payer.id == bill.customer_id else "",
        "covered": not public_id and not bill.total,
        "left": _written(conversion.credited - settled, writer) if settled and settled < conversion.credited and not bill.for_another else "",
        "from_balance": not public_id,
        "what": bill.title if unasked else "",
        "kept": _written(fate.deducted, writer),
        "spare": fate.spare,
        "uncovered": fate.uncovered,
        "added": bill.kind == "topup" or not bill.invoice_number or fate.spare or fate.uncovered,
        "for_another": bill.for_another,
        "url": config.current().base_url + (links.told_at(public_id) if payer.guest else f"/invoices/{bill.number}"),
    }
    attachments = papers(bill.invoice_number, bill.receipt_number)
    if receipt:
        page = links.told_at(public_id) if payer.guest else f"/payments/{public_id}"
        attachments = [mail.Stored(receipt, f"{page}/receipt.pdf?number={receipt}")]
    return mail.Letter("payment_confirmed", payer.email, payer.locale, f"payment:{key}", payer.id, context, attachments)


def _cleared(owner: Customer, settled: Money | None) -> bool:
    """Whether what money settled was the last that was owing, so that services renew by themselves again."""
    return settled is not None and not wallet.owed(owner.id, settled.currency).minor


def _written(money: Money | None, writer: Formats) -> str:
    return writer.money(money.minor, money.currency) if money else ""


def _rate(conversion: Conversion, writer: Formats) -> dict[str, object]:
    """The rate as a mail names it; empty where nothing was converted."""
    offer = conversion.offer
    if offer is None:
        return {}
    rate, day = writer.rate(Decimal(offer.rate)), writer.date(offer.rate_date)
    return {"pay": offer.pay.currency, "figure": rate, "into": offer.credited.currency, "source": offer.source, "day": day, "held": conversion.held}


def papers(invoice_number: str | None, receipt_number: str | None) -> list[mail.Stored]:
    """Invoice and receipt of a bill that is paid, to travel with the mail."""
    if not (invoice_number and receipt_number):
        return []
    page = f"/invoices/{invoice_number}"
    return [mail.Stored(invoice_number, f"{page}.pdf"), mail.Stored(receipt_number, f"{page}/receipt.pdf")]


def to_owner(owner: Customer, bill: Bill, credited: Money, paid_at: datetime, key: str, settled: Money | None, *, by_link: bool) -> mail.Letter:
    """The mail to whom somebody else has topped up, of whom it says only what that payer wanted."""
    writer = formats(owner.locale, owner.timezone)
    context: dict[str, object] = {
        "name": owner.title or owner.email,
        "credited": _written(credited, writer),
        "paid_at": writer.datetime(paid_at),
        "settled": _written(settled, writer),
        "left": _written(credited - settled, writer) if settled and settled < credited else "",
        "cleared": _cleared(owner, settled),
        "by_link": by_link,
        "said": links.said_by_payer(bill.id) if by_link else "",
    }
    return mail.Letter("funds_received", owner.email, owner.locale, f"payment:{key}:received", owner.id, context)


_WRITE = """
update payments set state = %(state)s, gateway_reference = coalesce(gateway_reference, %(reference)s), method_label = coalesce(nullif(%(label)s, ''), method_label),
  failure_code = %(failure_code)s, failure_message = %(failure_message)s, received = %(received)s, received_currency = %(received_currency)s,
  credited = %(credited)s, credited_currency = %(credited_currency)s, rate_note = %(rate_note)s, paid_at = %(paid_at)s, updated_at = %(now)s
where id = %(id)s
returning
"""


def _write(payment: Payment, state: str, snapshot: Snapshot, *, note: str, credited: Conversion | None = None, paid_at: datetime | None = None) -> Payment:
    received = snapshot.received if snapshot.state == "paid" else None
    (row,) = db.rows(
        _WRITE + book.COLUMNS,
        id=payment.id,
        state=state,
        reference=snapshot.reference or None,
        label=snapshot.method_label,
        failure_code=snapshot.failure_code or None,
        failure_message=snapshot.failure_message or None,
        received=received.minor if received else None,
        received_currency=received.currency if received else None,
        credited=credited.credited.minor if credited else None,
        credited_currency=credited.credited.currency if credited else None,
        rate_note=credited.rate_note if credited else "",
        paid_at=paid_at,
        now=clock.now(),
    )
    book.note(payment.id, state, note, actor=payment.gateway)
    return Payment(*row)


def _gateway_account(payment: Payment, currency: str) -> int:
    return ledger.account("gateway", currency, key=payment.gateway)


def credit_reference(payment: Payment, snapshot: Snapshot) -> str:
    """The ledger's key of this money: one per payment at one processor, whichever way the news came."""
    return f"{payment.gateway}:{snapshot.reference}:credit"
