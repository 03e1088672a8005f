"""Saved cards: kept by a processor, known here by brand, last four digits and expiry, with the consent each was kept under.

A card that its owner removes is unusable here at once; the processor is told until it has forgotten it. The same card saved again takes
the place of the old one, so the services that rely on it go on.
"""

import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import config
from app import clock, customers, db, gateways, mail
from app.formats import formats
from app.gateways.base import GatewayError, KeptCard, Redirect, Setup, Snapshot
from app.payments import outages

log = logging.getLogger(__name__)

SETUP_LIFE: Final = timedelta(hours=1)
SOON: Final = timedelta(days=60)
"""How long before its end a card is said to expire soon."""
FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=6)
BRANDS: Final = {"visa": "Visa", "mastercard": "Mastercard", "amex": "American Express", "discover": "Discover", "diners": "Diners Club", "jcb": "JCB", "unionpay": "UnionPay"}
MARKS: Final = {"visa": "VISA", "mastercard": "MC", "amex": "AMEX", "discover": "DISC", "diners": "DC", "jcb": "JCB", "unionpay": "UP"}


STEPS: Final = {"created": {"kept", "expired"}, "expired": {"kept"}, "kept": set[str]()}
"""Which news moves a page to save a card on. A card that was kept after all is its owner's to see and to remove."""


class CardError(ValueError):
    """What was asked cannot be done with saved cards, as a sentence for the customer."""


@dataclass(frozen=True, slots=True)
class Card:
    """One saved card. `unusable` is the code of the decline after which it is not charged any more."""

    id: int
    public_id: str
    customer_id: int
    gateway: str
    holder: str
    token: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    wallet: str
    consent: str
    consented_at: datetime
    created_at: datetime
    unusable: str
    removed_at: datetime | None

    @property
    def label(self) -> str:
        """What it is called: brand and last digits."""
        return f"{BRANDS.get(self.brand, self.brand.title())} •••• {self.last4}"

    @property
    def mark(self) -> str:
        """What stands in the small frame before it."""
        return MARKS.get(self.brand, "CARD")

    @property
    def ends_on(self) -> date:
        """The first day on which it is over."""
        return date(self.exp_year + self.exp_month // 12, self.exp_month % 12 + 1, 1)

    @property
    def expired(self) -> bool:
        """Whether its last month is over."""
        return clock.today() >= self.ends_on

    @property
    def expires_soon(self) -> bool:
        """Whether it is over before long."""
        return not self.expired and self.ends_on - clock.today() <= SOON

    @property
    def usable(self) -> bool:
        """Whether it may be charged."""
        return not (self.unusable or self.removed_at or self.expired)


def consent() -> str:
    """What a customer agrees to who has a card saved; shown beside the box and kept with the card."""
    return (
        f"{config.current().seller.brand} may have this card kept by the payment processor and charge it when I choose it to pay, and for renewals of services for which I "
        "switch that on. I can remove it at any time on the page Saved cards."
    )


_COLUMNS = ", ".join(f"c.{name}" for name in Card.__slots__)
_CARDS = f"select {_COLUMNS} from saved_cards c "  # noqa: S608 - names of this module
_OWN = _CARDS + "where c.customer_id = %(customer_id)s and c.removed_at is null order by c.id desc"
_ONE = _CARDS + "where c.customer_id = %(customer_id)s and c.public_id = %(public_id)s and c.removed_at is null"
_BY_TOKEN = _CARDS + "where c.gateway = %(gateway)s and c.token = %(token)s"
_BY_ID = _CARDS + "where c.id = %(id)s"


def of_customer(customer_id: int) -> list[Card]:
    """A customer's saved cards, the newest first."""
    return [Card(*row) for row in db.rows(_OWN, customer_id=customer_id)]


def find(customer_id: int, public_id: str) -> Card | None:
    """A customer's own saved card. A stranger's, a removed and a missing one are the same None."""
    row = db.row(_ONE, customer_id=customer_id, public_id=public_id)
    return Card(*row) if row else None


def read(card_id: int) -> Card:
    """Any card ever saved, by its id."""
    (row,) = db.rows(_BY_ID, id=card_id)
    return Card(*row)


def claim(customer_id: int, public_id: str) -> Card | None:
    """A customer's own usable card, kept from being removed until the transaction ends. Within a transaction."""
    db.rows("select 1 from saved_cards where public_id = %(public_id)s for share", public_id=public_id)
    card = find(customer_id, public_id)
    return card if card and card.usable else None


# Saving


def holder(customer_id: int, gateway: str) -> str:
    """The processor's customer for one of ours, made once. Opens transactions around the processor's call. Raises GatewayError."""
    keeper = gateways.keeper(gateway)
    if keeper is None:
        raise CardError("Cards cannot be saved at the moment.")
    with db.transaction():
        db.execute(_RESERVE, customer_id=customer_id, gateway=gateway, key=f"cus_{secrets.token_hex(16)}")
        (row,) = db.rows("select key, reference from card_holders where customer_id = %(customer_id)s and gateway = %(gateway)s", customer_id=customer_id, gateway=gateway)
    if row.reference:
        return str(row.reference)
    with outages.asking(gateway, "keep", row.key):
        reference = keeper.enrol(row.key)
    with db.transaction():
        db.execute("update card_holders set reference = %(reference)s where key = %(key)s", reference=reference, key=row.key)
    return reference


_RESERVE = "insert into card_holders (customer_id, gateway, key) values (%(customer_id)s, %(gateway)s, %(key)s) on conflict do nothing"


def add(customer_id: int) -> Redirect:
    """Open the processor's page on which a card is saved without paying. Raises CardError with a sentence. Opens transactions around the calls."""
    name = next(iter(gateways.keepers()), "")
    keeper = gateways.keeper(name)
    if keeper is None:
        raise CardError("Cards cannot be saved at the moment.")
    customer, public_id, now = customers.get(customer_id), f"setup_{secrets.token_hex(16)}", clock.now()
    base, expires_at = config.current().base_url, (now + SETUP_LIFE).replace(microsecond=0)
    try:
        owner = holder(customer_id, name)
        with db.transaction():
            db.execute(_BEGIN, public_id=public_id, customer_id=customer_id, gateway=name, consent=consent(), now=now, expires_at=expires_at)
        locale = customer.locale.partition("_")[0]
        with outages.asking(name, "keep", public_id):
            page = keeper.keep(Setup(public_id, owner, customer.currency or "EUR", f"{base}/cards/added/{public_id}", f"{base}/cards", expires_at, locale))
    except GatewayError as error:
        log.exception("No page to save a card opened: %s", error.detail)
        raise CardError("The page on which a card is saved does not open at the moment. Nothing was saved: try again in a minute.") from error
    with db.transaction():
        db.execute("update card_setups set reference = %(reference)s where public_id = %(public_id)s", reference=page.reference, public_id=public_id)
    return page


_BEGIN = """
insert into card_setups (public_id, customer_id, gateway, consent, created_at, expires_at)
values (%(public_id)s, %(customer_id)s, %(gateway)s, %(consent)s, %(now)s, %(expires_at)s)
"""


def setup_state(customer_id: int, public_id: str) -> str | None:
    """How a customer's own page to save a card ended, asked of the processor while that is open: created, kept, expired; None for a stranger's."""
    row = db.row(
        "select gateway, state, reference from card_setups where public_id = %(public_id)s and customer_id = %(customer_id)s", public_id=public_id, customer_id=customer_id
    )
    if row is None:
        return None
    if row.state == "created" and row.reference:
        _look_up(row.gateway, row.reference)
        return str(db.scalar("select state from card_setups where public_id = %(public_id)s", public_id=public_id))
    return str(row.state)


def reconcile() -> int:
    """Ask about pages to save a card of which nobody told us the end; how many came to one. Opens transactions."""
    waiting = db.rows("select gateway, reference from card_setups where state = 'created' and reference is not null order by created_at limit 100")
    news = {row.reference: _look_up(row.gateway, row.reference) for row in waiting}
    unanswered = [reference for reference, found in news.items() if found is None]
    with db.transaction():
        db.execute(_GIVE_UP, before=clock.now() - SETUP_LIFE, unanswered=unanswered)
    return sum(bool(found) for found in news.values())


# Not while its processor does not answer: the card may be kept there, and its owner must be able to remove it.
_GIVE_UP = "update card_setups set state = 'expired' where state = 'created' and expires_at < %(before)s and not coalesce(reference = any(%(unanswered)s), false)"


def _look_up(gateway: str, reference: str) -> bool | None:
    """Whether there was news of one of our pages; None when its processor does not answer."""
    found = gateways.get(gateway)
    if found is None:
        return False
    try:
        with outages.asking(gateway, "lookup", reference):
            snapshot = found.lookup(reference)
    except GatewayError as error:
        log.warning("The page %s could not be looked up: %s", reference, error.detail)
        return None
    if snapshot is None:
        return False
    with db.transaction():
        return take_in(gateway, snapshot)


def take_in(gateway: str, snapshot: Snapshot) -> bool:
    """Bring a page to save a card to what its processor says; whether that was news about one of ours. Within a transaction."""
    row = db.row(_LOCK_SETUP, public_id=snapshot.charge_id, gateway=gateway)
    if row is None or snapshot.state not in STEPS[row.state] or snapshot.fault:
        return row is not None and row.state == "kept"
    db.execute("update card_setups set state = %(state)s where public_id = %(public_id)s", state=snapshot.state, public_id=row.public_id)
    if snapshot.card:
        save(row.customer_id, gateway, snapshot.card, row.consent, row.created_at)
    return True


_LOCK_SETUP = "select * from card_setups where public_id = %(public_id)s and gateway = %(gateway)s for no key update"


def save(customer_id: int, gateway: str, card: KeptCard, consent_text: str, consented_at: datetime) -> None:
    """Write down a card that a processor keeps, once; the same card again takes the old one's place. Within a transaction.

    One that cannot be shown or belongs to somebody else is logged and left: it must not undo the money it came with.
    """
    customers.hold(customer_id)
    if db.scalar("select 1 from saved_cards where gateway = %(gateway)s and token = %(token)s", gateway=gateway, token=card.token):
        return
    if (
        db.scalar("select 1 from card_holders where customer_id = %(id)s and gateway = %(gateway)s and reference = %(holder)s", id=customer_id, gateway=gateway, holder=card.holder)
        is None
    ):
        log.error("A card of %s was not saved: %s is not its holder at %s", customer_id, card.holder, gateway)
        return
    if not (card.brand and re.fullmatch("[0-9]{4}", card.last4 or "") and card.exp_month in range(1, 13) and card.exp_year in range(2000, 10_000)):
        log.error("A card of %s was not saved: %s does not say what it is", customer_id, gateway)
        return
    before = db.scalar(_SAME, customer_id=customer_id, gateway=gateway, fingerprint=card.fingerprint)
    if before:
        _let_forget(gateway, before)
    db.execute(
        _SAVE, public_id=f"card_{secrets.token_hex(16)}", customer_id=customer_id, gateway=gateway, holder=card.holder, token=card.token, brand=card.brand, last4=card.last4,
        exp_month=card.exp_month, exp_year=card.exp_year, wallet=card.wallet, fingerprint=card.fingerprint, consent=consent_text, consented_at=consented_at, now=clock.now(),
    )  # fmt: skip
    tell(Card(*db.rows(_BY_TOKEN, gateway=gateway, token=card.token)[0]), "saved")


def tell(card: Card, state: str, *, services: Sequence[str] = ()) -> None:
    """Write to a card's owner that it is ``saved``, ``removed`` or ``expires``, once each; `services` are the labels of those that rely on it. Within a transaction."""
    customer = customers.get(card.customer_id)
    write = formats(customer.locale, customer.timezone)
    last = write.long_date(card.ends_on - timedelta(days=1))
    mail.inform(
        "saved_card", customer.email, locale=customer.locale, key=f"card:{card.gateway}:{card.token}:{state}", customer_id=customer.id, name=customer.title or customer.email,
        state=state, card=card.label, services=", ".join(services), last=last,
    )  # fmt: skip


_SAME = "select token from saved_cards where customer_id = %(customer_id)s and gateway = %(gateway)s and fingerprint = %(fingerprint)s and removed_at is null"
_SAVE = """
insert into saved_cards (public_id, customer_id, gateway, holder, token, brand, last4, exp_month, exp_year, wallet, fingerprint, consent, consented_at, created_at)
values (%(public_id)s, %(customer_id)s, %(gateway)s, %(holder)s, %(token)s, %(brand)s, %(last4)s, %(exp_month)s, %(exp_year)s, %(wallet)s, %(fingerprint)s, %(consent)s,
  %(consented_at)s, %(now)s)
on conflict (customer_id, gateway, fingerprint) where removed_at is null do update set holder = excluded.holder, token = excluded.token, exp_month = excluded.exp_month,
  exp_year = excluded.exp_year, wallet = excluded.wallet, consent = excluded.consent, consented_at = excluded.consented_at, unusable = ''
"""


# Removing


def retire(customer_id: int, public_id: str) -> Card | None:
    """Make a customer's own card unusable and have its processor forget it; the card, None for a stranger's. Within a transaction."""
    customers.hold(customer_id)
    card = find(customer_id, public_id)
    if card:
        db.execute("update saved_cards set removed_at = %(now)s where id = %(id)s", id=card.id, now=clock.now())
        _let_forget(card.gateway, card.token)
    return card


def spoil(card_id: int, code: str) -> None:
    """Never charge a card again: its bank said so. Within a transaction."""
    db.execute("update saved_cards set unusable = %(code)s where id = %(id)s and unusable = ''", id=card_id, code=code or "declined")


def _let_forget(gateway: str, token: str) -> None:
    db.execute("insert into card_removals (gateway, token, due_at) values (%(gateway)s, %(token)s, %(now)s) on conflict do nothing", gateway=gateway, token=token, now=clock.now())


def forget_removed(limit: int = 100, *, token: str | None = None) -> int:
    """Tell the processors of removed cards, or of one by its token, each until it has forgotten it; how many did. Opens the transactions."""
    return sum(_forget(row) for row in db.rows(_TO_FORGET, token=token, now=clock.now(), silent=list(outages.left_alone()), limit=limit))


_TO_FORGET = """
select * from card_removals where done_at is null and due_at <= %(now)s and (%(token)s::text is null or token = %(token)s) and gateway <> all(%(silent)s)
order by due_at limit %(limit)s
"""


def _forget(row: db.Row) -> bool:
    keeper = gateways.keeper(row.gateway)
    done = False
    try:
        if keeper:
            with outages.asking(row.gateway, "forget", row.token):
                keeper.forget(row.token)
            done = True
    except GatewayError as error:
        log.warning("A removed card is not forgotten by %s yet: %s", row.gateway, error.detail)
    wait = min(FIRST_WAIT * 2 ** min(row.tries, 20), LONGEST_WAIT)
    with db.transaction():
        db.execute(_TOLD, gateway=row.gateway, token=row.token, done_at=clock.now() if done else None, due_at=clock.now() + wait)
    return done


_TOLD = "update card_removals set tries = tries + 1, done_at = %(done_at)s, due_at = %(due_at)s where gateway = %(gateway)s and token = %(token)s"
