"""Charging a saved card: by its owner's click, or by a renewal for which its owner agreed to be asked no more.

As every payment it is written first, then charged under its own id, then written down; what nobody answered for is charged again under
the same key, which at the processor is the same charge.
"""

from datetime import timedelta
from typing import Final

from app import clock, customers, db, fx, gateways, invoicing
from app.gateways.base import ASKED_FOR, NoAnswer, NotNow, Redirect, Refused, Snapshot
from app.invoicing import Bill
from app.money import AmountError
from app.payments import book, cards, current, outages, settling, starting
from app.payments.arriving import BANK
from app.payments.book import NotPayable, Payment
from app.payments.cards import Card
from app.payments.starting import ProcessorDown

UNREACHED_WAIT: Final = timedelta(hours=1)
MOST_TRIES: Final = 3
"""How often a renewal's bill is charged to one card in all, at most once a day."""
NO_WORD: Final = "The processor does not answer, so we do not know yet whether your card was charged. We go on asking: look again in a few minutes. Nothing is charged twice."
_LIMIT: Final = (20, timedelta(minutes=10))


def pay_by_card(customer_id: int, number: str, public_id: str, quote_token: str = "") -> Redirect:
    """Pay a customer's own bill with its own saved card; where the browser goes then: our page of the payment, or the processor's when the bank asks.

    Raises NotPayable, QuoteExpired, ProcessorDown, RateLimited.
    """
    bill, card = current.payable(customer_id, number), cards.find(customer_id, public_id)
    if card is None:
        raise NotPayable("This card is not saved any more. Choose another method.")
    if not card.usable:
        raise NotPayable(f"{card.label} cannot be charged any more. Choose another method.")
    customers.count((f"card-charge:{customer_id}", *_LIMIT))
    payment = _charged(bill, card, quote_token)
    if payment.state == "failed" and payment.failure_code == ASKED_FOR:
        handoff = starting.start(customer_id, number, f"{card.gateway}-{starting.entered_by(card)}", quote_token)
        if isinstance(handoff, Redirect):
            return handoff
    return Redirect(payment.as_charge().return_url, payment.public_id)


def charge_unasked(customer_id: int, number: str, card: Card) -> Payment | None:
    """Charge the whole of a bill to a card without its owner; the payment as it stands then, None where that may not be now.

    Not while another payment may bring the money, at most once a day and three times in all, never again after the bank asked for the owner. What never
    reached the bank does not count; it is tried again an hour later. Another card begins its own count. Opens transactions around the call.
    """
    bill = invoicing.find(customer_id, number)
    if bill is None or not (bill.unpaid and card.usable) or book.came_for(bill).received or card.gateway in outages.left_alone():
        return None
    # A bank transfer is only asked for; every other open payment may be paid at this moment.
    standing = next((one for one in book.open_of(bill.id) if one.gateway != BANK), None)
    if standing is not None and (standing.card_id != card.id or not standing.off_session):
        return None
    if standing is None and not _may_try(bill, card):
        return None
    try:
        # Its owner agreed to the whole price, whatever the VAT is on that day.
        return _charged(current.bring_up_to_date(bill), card, "", unasked=True)
    except (NotPayable, ProcessorDown, starting.QuoteExpired):
        return None


def _may_try(bill: Bill, card: Card) -> bool:
    row = db.rows(_TRIED, bill_id=bill.id, card_id=card.id, asked=ASKED_FOR)[0]
    rested = (row.newest is None or clock.day_of(row.newest) < clock.today()) and (row.unreached is None or row.unreached + UNREACHED_WAIT <= clock.now())
    return not row.stopped and row.tries < MOST_TRIES and rested


# What ended without a word of a processor's never reached the bank.
_TRIED = """
select count(*) filter (where reached) as tries,
  max(created_at) filter (where reached) as newest,
  max(created_at) filter (where off_session and not reached) as unreached,
  exists (select from payments where bill_id = %(bill_id)s and state = 'review')
    or coalesce(bool_or(off_session and failure_code = %(asked)s), false) as stopped
from (
  select off_session, failure_code, created_at,
    off_session and (gateway_reference is not null or failure_code is not null
      or state not in ('failed', 'expired')) as reached
  from payments
  where bill_id = %(bill_id)s
    and card_id = %(card_id)s
) p
"""


def _charged(bill: Bill, card: Card, quote_token: str, *, unasked: bool = False) -> Payment:
    try:
        payment, begun = starting.claim_for_card(bill, card, quote_token, unasked=unasked)
    except (fx.RateUnavailable, AmountError) as problem:
        raise NotPayable(str(problem)) from problem
    # Once its time is over it may be given up at any moment, and another charge begun: only a look-up tells how it ended.
    if payment.state == "pending" or not payment.open or payment.gateway_reference or clock.now() > payment.expires_at:
        return payment
    keeper = gateways.keeper(card.gateway)
    if keeper is None:
        raise NotPayable("Saved cards cannot be charged at the moment. Choose another method.")
    try:
        with outages.asking(payment.gateway, "charge", payment.public_id):
            snapshot = keeper.charge_kept(payment.as_charge())
    except Refused as error:
        snapshot = Snapshot("", payment.public_id, "failed", failure_code="refused", failure_message=str(error))
    except NotNow as error:
        starting.record_failure(payment, error, over=begun)  # an earlier call of the same charge may have reached it
    except NoAnswer as error:
        starting.record_failure(payment, NoAnswer(error.detail, NO_WORD), over=False)
    return settling.apply(payment.gateway, snapshot) or payment
