"""The account currency changed: what a customer has goes on in another one, at a rate the customer saw and that was held.

Everything is one transfer with four sides and our margin as its own line: out of the old wallet and bonus, through the exchange, into the new
ones. Nothing that was issued or posted before changes. What reaches the old currency afterwards (a refund that came back, a bonus taken
over) is brought over at the rate of that day.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import config
from app import approvals, clock, customers, db, fx, mail, payments, refunds, services, wallet
from app.customers import Customer
from app.formats import Formats, formats
from app.fx import Change, Offer
from app.money import AmountError, Money
from app.services import Repriced

log = logging.getLogger(__name__)

COOL_DOWN: Final = timedelta(days=30)
"""From one change to the next. A currency can be turned back and forth, but not with every turn of the rates."""
SAMPLE: Final = Decimal(1000)
"""What an empty account's rate is shown for: nothing moves, but prices follow it."""


class CurrencyError(ValueError):
    """The currency cannot be changed now; `str()` is a sentence that says what to do."""


class Outdated(Exception):
    """The rate is not held any more, or the balance is another one than was shown: the customer has to see the new figures first."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a change would do: all there is, what it becomes by `offer`, held by `token`, and what each service costs after it.

    `everything` is zero where there is nothing to convert; the offer is then one on a sample, for its rate alone.
    """

    into: str
    everything: Money
    offer: Offer
    token: str
    prices: Sequence[Repriced]

    @property
    def credited(self) -> Money:
        """What the account holds after it."""
        return self.offer.credited if self.everything else Money(0, self.into)


def choices(currency: str) -> list[str]:
    """The currencies an account can change to."""
    return [code for code in config.current().currencies if code != currency and payments.limits(code)]


def obstacle(customer: Customer) -> str:
    """Why the currency cannot be changed now, as a sentence that says what to do; nothing when it can."""
    found = db.rows(_OBSTACLES, id=customer.id, currency=customer.currency)[0]
    writer = formats(customer.locale, customer.timezone)
    until = writer.day_time(datetime.fromisoformat(found.started[-1])) if found.started else ""
    reasons = {
        f"Refund {found.refund} is under way. Wait until it has come to its end": found.refund,
        "A payment is disputed with its bank. Wait until the bank has decided": found.disputed,
        "A payment that was taken back left a debt. Add funds to settle it": found.owed,
        "Some of your money is on hold. Wait until it is free again": found.held,
        f"{found.bill} waits to be paid, and a bill keeps its currency. Pay or cancel it": found.bill,
        f"{_started(found.started, writer)} Finish it, cancel it on its page, or wait until that closes ({until})": until,
    }
    first = next((reason for reason, stands in reasons.items() if stands), "")
    return f"{first}, then change the currency." if first else _too_soon(customer.id, writer)


def _started(payment: list[Any] | None, writer: Formats) -> str:
    """Which payment bars a change, as a sentence."""
    if not payment:
        return ""
    label, amount, currency, number, _ = payment
    return f"Your payment of {writer.money(amount, currency)} by {label} for {number} has been started."


def preview(customer: Customer, into: str) -> Preview:
    """What changing to a currency would do, held for 15 minutes. Reads only. Raises `CurrencyError`."""
    currency = customer.currency
    if currency is None or into not in choices(currency):
        raise CurrencyError("Choose one of the currencies.")
    state = wallet.state(customer.id)
    everything = Money(state.available + state.bonus, currency)
    try:
        offer = fx.offer(_asked(everything), into)
    except (fx.RateUnavailable, AmountError) as problem:
        raise CurrencyError(_sentence(problem, currency, into)) from problem
    return Preview(into, everything, offer, fx.seal(offer), services.reprice(customer.id, into, offer.rate))


def change(customer_id: int, into: str, token: str, *, actor: str) -> None:
    """Change the account currency by the offer the customer saw; again it changes nothing. Opens the transaction.

    Raises `CurrencyError` when it cannot be changed, `Outdated` when other figures have to be shown first.
    """
    with db.transaction():
        customers.hold(customer_id)
        customer = customers.get(customer_id)
        currency = customer.currency
        if currency == into:
            return
        if currency is None or into not in choices(currency):
            raise CurrencyError("Choose one of the currencies.")
        problem = obstacle(customer)
        if problem:
            raise CurrencyError(problem)
        everything, offer = wallet.clear(customer_id, currency), fx.unseal(token)
        if offer is None or (offer.pay, offer.credited.currency) != (_asked(everything), into):
            raise Outdated
        if everything:
            _move(customer, offer, chosen=True, actor=actor)
        else:
            fx.note_conversion(customer_id, _noted(offer), chosen=True, quote_id=None, transfer_id=None, actor=actor)
        services.agree_prices(customer_id, into, offer.rate)
        customers.change_currency(customer_id, into)
        _tell(customer, everything, offer)


def bring_over() -> int:
    """Bring what reached a currency after its customer had left it over to the one of today; for how many. Each in its own transaction."""
    done = 0
    for row in db.rows(_LEFT_BEHIND):
        try:
            done += _bring(row.id, row.currency)
        except fx.RateUnavailable as unavailable:
            log.warning("Money of customer %s in %s waits for a rate: %s", row.id, row.currency, unavailable)
        except AmountError:
            continue  # less than the smallest unit of the other currency: it stays, and counts when more comes
    return done


def lift_wait(login: str, *, actor: str, reason: str) -> None:
    """Let a customer change the currency again before the wait is over. Opens the transaction. Raises LookupError, `CurrencyError`."""
    user = customers.find_user(login)
    if user is None or user.customer_id is None:
        raise LookupError(f"no customer {login}")
    if not (actor.strip() and reason.strip()):
        raise CurrencyError("Say who decides this, and why.")
    with db.transaction():
        person = approvals.decide("currency.lift_wait", user.customer_id, actor=actor, customers=[user.customer_id], reason=reason.strip())
        if not fx.lift_wait(user.customer_id, actor=person.name, reason=reason.strip()):
            raise CurrencyError(f"{login} has never changed the currency, so there is nothing to wait for.")


def _too_soon(customer_id: int, writer: Formats) -> str:
    last = next(reversed(fx.changes(customer_id)), None)
    if last is None or last.lifted_at or clock.now() >= last.at + COOL_DOWN:
        return ""
    return f"The currency was changed on {writer.date(last.at)} and can be changed again from {writer.date(last.at + COOL_DOWN)}. Our support can let you earlier."


def _asked(everything: Money) -> Money:
    return everything or Money.rounded(SAMPLE, everything.currency)


def _sentence(problem: Exception, currency: str, into: str) -> str:
    if isinstance(problem, fx.RateUnavailable):
        return f"There is no current exchange rate from {currency} to {into}. Try again on the next business day, or choose another currency."
    return f"Your balance is too small to become {into}. Spend it or add to it first."


def _move(customer: Customer, offer: Offer, *, chosen: bool, actor: str) -> None:
    """Convert everything by an offer: quote, transfer, lots, and the note of it. Within a transaction, the money locked."""
    writer = formats(customer.locale, customer.timezone)
    quote_id = fx.fix(offer, customer.id)
    posted = wallet.convert(
        customer.id, offer.pay, offer.credited, reference=f"conversion:{quote_id}", counter=payments.convert(offer.pay, offer.credited.currency, writer, offer).lines,
        unused=refunds.unused(customer.id), description=_described(offer, writer), actor=actor,
    )  # fmt: skip
    fx.note_conversion(customer.id, _noted(offer), chosen=chosen, quote_id=quote_id, transfer_id=posted.transfer_id, actor=actor)


def _noted(offer: Offer) -> Change:
    return Change(clock.now(), offer.pay.currency, offer.credited.currency, offer.rate, offer.spread_bp, None)


def _described(offer: Offer, writer: Formats) -> str:
    became = f"{writer.money(offer.pay.minor, offer.pay.currency)} became {writer.money(offer.credited.minor, offer.credited.currency)}"
    return f"{became} at {_rate(offer, writer)}"


def _rate(offer: Offer, writer: Formats) -> str:
    return f"1 {offer.pay.currency} = {writer.rate(offer.rate)} {offer.credited.currency} ({offer.source}, {writer.date(offer.rate_date)})"


def _bring(customer_id: int, currency: str) -> bool:
    with db.transaction():
        customers.hold(customer_id)
        customer = customers.get(customer_id)
        everything = wallet.clear(customer_id, currency)
        if not everything or customer.currency in {None, currency}:
            return False
        into = str(customer.currency)
        _move(customer, fx.offer(everything, into), chosen=False, actor="system")
        wallet.settle_debts(customer_id, into, cause=f"brought-over:{currency}:{clock.now():%Y%m%d%H%M%S%f}")
        return True


def _tell(customer: Customer, everything: Money, offer: Offer) -> None:
    writer = formats(customer.locale, customer.timezone)
    mail.inform(
        "currency_changed", customer.email, locale=customer.locale, key=f"currency:{customer.id}:{clock.now().isoformat()}", customer_id=customer.id, name=customer.title or customer.email,
        before=offer.pay.currency, after=offer.credited.currency, moved=writer.money(everything.minor, everything.currency) if everything else "",
        became=writer.money(offer.credited.minor, offer.credited.currency), rate=_rate(offer, writer), at=writer.datetime(clock.now()),
        spread=writer.money(offer.spread.minor, offer.spread.currency) if everything and offer.spread else "",
    )  # fmt: skip


# A bank transfer that was announced is no obstacle: it may never come, and what comes late is converted when it does. Nor is an unpaid top-up.
_OBSTACLES = """
select
  (select number from refunds where customer_id = %(id)s and state in ('requested', 'approved', 'sent') order by id limit 1) as refund,
  exists (select from disputes where customer_id = %(id)s and state in ('inquiry', 'open')) as disputed,
  exists (select from accounts where customer_id = %(id)s and kind = 'debt' and balance < 0) as owed,
  exists (select from accounts where customer_id = %(id)s and kind = 'hold' and balance > 0) as held,
  (select proforma_number from bills where customer_id = %(id)s and kind = 'service' and status = 'unpaid' and currency = %(currency)s order by id limit 1) as bill,
  (
    select jsonb_build_array(p.method_label, p.amount, p.currency,
      coalesce(b.invoice_number, b.proforma_number), p.expires_at)
    from payments p
    join bills b on b.id = p.bill_id
    where p.customer_id = %(id)s
      and p.state in ('created', 'unknown', 'pending')
      and p.gateway <> 'bank'
    order by p.expires_at desc
    limit 1
  ) as started
"""
_LEFT_BEHIND = """
select distinct c.id, a.currency::text from conversions v
join customers c on c.id = v.customer_id
join accounts a on a.customer_id = c.id and a.kind in ('wallet', 'bonus') and a.currency <> c.currency and a.balance > 0
order by c.id, a.currency::text
"""
