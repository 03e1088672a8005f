"""Links by which others pay: one bill of a customer, or a top-up of a customer's balance; and the page that says how a payment stands.

A link's address holds a random key and its signature, made for one purpose and this host. The key stands in a row, so a link can be
revoked and ends by itself; without the signature the row opens nothing, without the row the signature opens nothing.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from itsdangerous import BadData, URLSafeSerializer

import config
from app import clock, customers, db, fx, invoicing, signing
from app.customers import Profile
from app.money import Money
from app.payments import book
from app.payments.book import NotPayable, Payment

LIFE = timedelta(days=30)
"""How long a link opens its page."""
TOLD_FOR = timedelta(days=90)
"""How long a payer without a login can look at the state of a payment and get its papers."""
SAME_FOR = timedelta(hours=1)
MOST_ASKED = 10
"""How many links to top a balance up may be open at once."""
PATHS = {"bill": "/pay/", "topup": "/top-up/"}


@dataclass(frozen=True, slots=True)
class Link:
    """One link that works. `number` is the bill's, `name` what its owner chose to show, `amount` what is asked for, where the owner says so."""

    id: int
    key: str
    purpose: str
    customer_id: int
    bill_id: int | None
    number: str | None
    name: str
    asked: int | None
    currency: str | None
    created_at: datetime
    expires_at: datetime

    @property
    def amount(self) -> Money | None:
        """The amount that is asked for, if one is."""
        return Money(self.asked, self.currency) if self.asked is not None and self.currency else None

    @property
    def path(self) -> str:
        """Its page, as a path of this site."""
        return PATHS[self.purpose] + _signer(self.purpose).dumps(self.key)

    @property
    def url(self) -> str:
        """Its page, as it is sent to somebody."""
        return config.current().base_url + self.path


_LINK = """
select l.id, l.key, l.purpose, l.customer_id, l.bill_id,
  (select coalesce(b.invoice_number, b.proforma_number) from bills b where b.id = l.bill_id) as number, l.name, l.amount, l.currency, l.created_at, l.expires_at
from links l where l.revoked_at is null and l.expires_at > %(now)s
"""
_BY_KEY = _LINK + "and l.purpose = %(purpose)s and l.key = %(key)s"
_OF_BILL = _LINK + "and l.bill_id = %(bill_id)s"
_OF_CUSTOMER = _LINK + "and l.purpose = 'topup' and l.customer_id = %(customer_id)s order by l.id desc"
_MAKE = """
insert into links (key, purpose, customer_id, bill_id, name, amount, currency, created_at, expires_at)
values (%(key)s, %(purpose)s, %(customer_id)s, %(bill_id)s, %(name)s, %(amount)s, %(currency)s, %(now)s, %(expires_at)s)
"""
_REVOKE = "update links set revoked_at = %(now)s where revoked_at is null and customer_id = %(customer_id)s and "


def follow(purpose: str, token: str) -> Link | None:
    """The link of an address; None when it is unknown, altered, made for something else, revoked or over, or its owner's account is closed: nobody is told which."""
    try:
        key = _signer(purpose).loads(token)
    except BadData:
        return None
    row = db.row(_BY_KEY, purpose=purpose, key=key, now=clock.now())
    if row is None or (purpose == "topup" and not customers.is_open(row.customer_id)):
        return None
    return Link(*row)


def share(customer_id: int, number: str, *, anew: bool = False) -> Link | None:
    """The link by which anybody can pay a customer's own unpaid bill: the one that works already, or a new one, `anew` in its place.

    None when the customer has no such bill. Opens the transaction. Raises NotPayable.
    """
    bill = invoicing.find(customer_id, number)
    if bill is None:
        return None
    with db.transaction():
        bill = invoicing.lock(bill.id)
        if not bill.unpaid:
            raise NotPayable(f"{bill.number} is {bill.status}, so there is nothing to pay by a link.")
        standing = shared(bill.id)
        if standing is not None and not anew:
            return standing
        return _share(customer_id, bill.id)


def shared(bill_id: int) -> Link | None:
    """The link of a bill that works now."""
    row = db.row(_OF_BILL, bill_id=bill_id, now=clock.now())
    return Link(*row) if row else None


def unshare(customer_id: int, number: str) -> bool:
    """Revoke the link of a customer's own bill; whether there was one. Opens the transaction."""
    bill = invoicing.find(customer_id, number)
    if bill is None:
        return False
    with db.transaction():
        return db.execute(_REVOKE + "bill_id = %(bill_id)s", customer_id=customer_id, bill_id=bill.id, now=clock.now()) > 0


def ask(customer_id: int, name: str, amount: Money | None) -> Link:
    """A link by which anybody can top this customer's balance up, under the name it wants to be known by. Opens the transaction.

    The same again within the hour, as by a second click, is the same link. Raises NotPayable with a sentence.
    """
    with db.transaction():
        customers.hold(customer_id)
        standing = asked(customer_id)
        again = next((link for link in standing if (link.name, link.amount) == (name, amount) and link.created_at > clock.now() - SAME_FOR), None)
        if again is not None:
            return again
        if len(standing) >= MOST_ASKED:
            raise NotPayable(f"{MOST_ASKED} links are open already. Revoke one of them first.")
        return _make("topup", customer_id, name=name, amount=amount)


def asked(customer_id: int) -> Sequence[Link]:
    """The links to top this customer's balance up that work now, newest first."""
    return [Link(*row) for row in db.rows(_OF_CUSTOMER, customer_id=customer_id, now=clock.now())]


def withdraw(customer_id: int, link_id: int) -> bool:
    """Revoke a customer's own link to top its balance up; whether it worked until now. Opens the transaction."""
    with db.transaction():
        return db.execute(_REVOKE + "purpose = 'topup' and id = %(id)s", customer_id=customer_id, id=link_id, now=clock.now()) > 0


def order_for(link: Link, amount: Money, quote_token: str, payer: Profile, said: str = "", *, locale: str) -> Link:
    """The bill of a guest who tops somebody up by a link, as the link by which the guest pays it. Opens the transaction.

    The guest becomes a customer without a login: what the documents need, and nothing else. `said` is the name the guest
    wants the owner to read, `locale` how the guest is written to.
    """
    owner = customers.get(link.customer_id)
    with db.transaction():
        guest_id = customers.insert_guest(payer, locale)
        fx.keep(quote_token, guest_id, amount, owner.currency)
        bill = invoicing.issue_topup_bill(guest_id, owner.id, amount, f"For {link.name}" if link.name else "")
        return _share(guest_id, bill.id, said)


def said_by_payer(bill_id: int) -> str:
    """The name under which the payer of a bill wants to be known to whom it tops up, or nothing."""
    return str(db.scalar("select name from links where bill_id = %(bill_id)s order by id desc limit 1", bill_id=bill_id) or "")


def told(token: str) -> Payment | None:
    """The payment whose state an address without a login may show; None when it is unknown, altered or long over."""
    try:
        public_id = _signer("payment").loads(token)
    except BadData:
        return None
    payment = book.read(str(public_id))
    return payment if payment and clock.now() < payment.created_at + TOLD_FOR else None


def told_at(public_id: str) -> str:
    """Where a payer without a login sees how a payment stands, as a path of this site."""
    return f"/paid/{_signer('payment').dumps(public_id)}"


def _share(customer_id: int, bill_id: int, name: str = "") -> Link:
    db.execute(_REVOKE + "bill_id = %(bill_id)s", customer_id=customer_id, bill_id=bill_id, now=clock.now())
    return _make("bill", customer_id, bill_id=bill_id, name=name)


def _make(purpose: str, customer_id: int, *, bill_id: int | None = None, name: str = "", amount: Money | None = None) -> Link:
    key, now = secrets.token_urlsafe(18), clock.now()
    facts = {"purpose": purpose, "customer_id": customer_id, "bill_id": bill_id, "name": name}
    db.execute(_MAKE, key=key, now=now, expires_at=now + LIFE, amount=amount.minor if amount else None, currency=amount.currency if amount else None, **facts)
    (row,) = db.rows(_BY_KEY, purpose=purpose, key=key, now=now)
    return Link(*row)


def _signer(purpose: str) -> URLSafeSerializer:
    return signing.serializer(f"{purpose} link of {config.current().host}")
