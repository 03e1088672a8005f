"""Somebody who has everything a customer can have, so that every page has something to show and every address something to name."""

from dataclasses import dataclass, replace
from datetime import timedelta

from flask import Flask

from app import bank, clock, customers, db, invoicing, payments, refunds, services
from app.customers import User, tokens
from app.gateways.base import Snapshot
from app.money import Money
from app.payments import Payment, cards
from app.sandbox_processor import CHOICES
from tests.banks import GERMAN, Transfer, camt
from tests.conftest import BERLIN, person
from tests.pay import begin, carry, choose, of, processor, publish_rates, topup
from tests.trade import fund, offer_plans

NOBODYS_NUMBER = "INV-2026-999999"


@dataclass(frozen=True)
class Things:
    """What somebody owns, by the word that stands in an address."""

    user: User
    paid: str
    unpaid: str
    payment: str
    hosted: str
    refund: str
    letter: str
    device: str
    verify: str
    reset: str
    undo: str
    billing: str
    bill_link: str
    topup_link: str
    paid_link: str
    asked: str
    card: str
    setup: str
    service: str
    held: str
    line: str
    gap: str
    refund_receipt: str
    given: str
    dispute: str

    def named(self, thing: str) -> str:
        """How an address names one of them."""
        return str(getattr(self, thing))


MISSING = {
    "paid": NOBODYS_NUMBER,
    "unpaid": "PF-2026-999999",
    "payment": "pay_" + "x" * 22,
    "hosted": "sb_" + "0" * 24,
    "refund": "RF-999999",
    "letter": "999999",
    "device": "0" * 32,
    "bill_link": "x" * 60,
    "topup_link": "x" * 60,
    "paid_link": "x" * 60,
    "asked": "999999",
    "card": "card_" + "0" * 32,
    "setup": "setup_" + "0" * 32,
    "service": "vps-999999",
    "held": "HM-999999",
    "refund_receipt": "RR-2026-999999",
    "dispute": "sbd_" + "0" * 24,
    "line": "999999",
    "gap": "00000000",
    "given": "pay_" + "y" * 32,
    "verify": "x" * 43,
    "reset": "x" * 43,
    "undo": "x" * 43,
    "billing": "x" * 43,
}
"""Names of the right shape that belong to nobody."""


def furnish(app: Flask, user: User, *, services_count: int = 2) -> Things:
    """Give a customer a paid top-up with its documents, an unpaid one, a payment on its way, services, mails and two links."""
    publish_rates()
    offer_plans()
    assert user.customer_id
    paid, unwanted = (begin(topup(user, Money.of(amount, "EUR"))) for amount in ("250.00", "10.00"))
    for payment in (paid, unwanted):
        choose(app, payment, "approve")
    carry(app)
    for place in range(services_count):
        services.order(user.customer_id, "vps-4" if place % 2 else "ip", 1, label=f"srv-{place}")
    open_one = begin(topup(user, Money.of("40.00", "EUR")))
    unpaid = topup(user, Money.of("25.00", "EUR"))
    asked = payments.ask(user.customer_id, "Anna", None)
    given = pay_by_link(payments.order_for(asked, Money.of("12.00", "EUR"), "", GUEST, "Gustav", locale="de"))
    choose(app, given, "approve")
    carry(app)
    saved = cards.add(user.customer_id)
    processor(app).choose(saved.reference, CHOICES["approve"])
    carry(app)
    customers.request_verification(user.id)
    customers.request_reset(user.login)
    with db.transaction():
        undo, billing = (tokens.issue(purpose, user.id, user.email) for purpose in ("undo", "billing"))
    customers.open_session(user.id, ip="127.0.0.1", user_agent="Another device")
    bank.import_file(camt([Transfer(33_00, text="thank you", sender="Ida Unknown")]), "statement.xml")
    bank.import_file(camt([], replace(GERMAN, opening=2_000_00, id="STMT-2", day="2026-11-24")), "later.xml")
    return Things(
        user=user,
        paid=_number(paid.bill_id),
        unpaid=unpaid.number,
        payment=open_one.public_id,
        hosted=str(open_one.gateway_reference),
        refund=refunds.request(user.customer_id, unwanted.public_id, Money.of("10.00", "EUR"), "Paid too much"),
        letter=str(db.scalar("select max(id) from mails where customer_id = %(id)s and kind = 'payment_confirmed'", id=user.customer_id)),
        device=customers.list_sessions(user.id, b"")[0].reference,
        verify=link("verify"),
        reset=link("reset"),
        undo=undo,
        billing=billing,
        bill_link=by_link(payments.share(user.customer_id, unpaid.number)),
        topup_link=by_link(asked),
        paid_link=payments.told_at(given.public_id).rsplit("/", 1)[1],
        asked=str(asked.id),
        card=cards.of_customer(user.customer_id)[0].public_id,
        setup=str(db.scalar("select public_id from card_setups")),
        service=str(db.scalar("select min(public_id) from services where customer_id = %(id)s", id=user.customer_id)),
        line=str(db.scalar("select max(id) from bank_lines")),
        gap=bank.gaps()[0].mark,
        held=hold(begin(topup(user, Money.of("18.00", "EUR"))), Money.of("17.00", "EUR")),
        refund_receipt=settle_refund(app, user),
        given=given.public_id,
        dispute=contest(app, user),
    )


def _number(bill_id: int) -> str:
    return str(db.scalar("select invoice_number from bills where id = %(id)s", id=bill_id))


def settle_refund(app: Flask, user: User) -> str:
    """A top-up that went back: the number of its receipt."""
    payment = begin(topup(user, Money.of("11.00", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    number = refunds.request(user.customer_id or 0, payment.public_id, Money.of("11.00", "EUR"), "")
    refunds.approve(number, actor="staff:sam")
    refunds.pay_out(number)
    return str(db.scalar("select number from documents where kind = 'refund_receipt' order by id desc limit 1"))


def contest(app: Flask, user: User) -> str:
    """A payment that its bank asks about: the processor's name of the inquiry."""
    payment = begin(topup(user, Money.of("10.00", "EUR")))
    choose(app, payment, "approve")
    carry(app)
    reference = processor(app).inquire(payment.gateway_reference or "", 10_00, "not recognised")
    carry(app)
    return str(reference)


def hold(payment: Payment, came: Money) -> str:
    """Another amount than was asked for arrives of a payment: the number it is held under."""
    payments.apply(payment.gateway, Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=came, method_label="Visa •••• 4242"))
    return str(db.scalar("select number from held where payment_id = %(id)s order by id desc limit 1", id=payment.id))


GUEST = customers.Profile(name="Gustav Guest", street="Weg 2", postcode="10115", city="Berlin", country="DE", billing_email="gustav@example.com")
"""Somebody without an account who pays for somebody else."""


def by_link(found: payments.Link | None) -> str:
    """The token in the address of a link."""
    assert found
    return found.path.rsplit("/", 1)[1]


def pay_by_link(given: payments.Link, method: str = "sandbox-card") -> Payment:
    """Start paying a bill as who was sent its link."""
    bill = invoicing.find(given.customer_id, given.number or "")
    assert bill
    return of(payments.start(given.customer_id, bill.number, method, payments.options(bill).quote_token, given))


def link(kind: str) -> str:
    """The secret in the newest mail of this kind."""
    text = db.scalar("select body_text from mails where kind = %(kind)s order by id desc limit 1", kind=kind)
    return next(line for line in text.split() if f"/{kind}/" in line).rsplit("/", 1)[1]


def make_history(user: User, rows: int) -> None:
    """A long life: this many paid top-ups on this many days, and as many services with a renewal each."""
    offer_plans()
    assert user.customer_id
    fund(user.customer_id, 100_000_00)
    start = clock.now() - timedelta(days=rows + 5)
    for day in range(rows):
        with clock.travel(start + timedelta(days=day)):
            services.order(user.customer_id, "vps-4" if day % 2 else "ip", 1, label=f"srv-{day}", auto_renew=day % 3 > 0)
            payments.order_topup(user.customer_id, Money(500 + day, "EUR"))


def cast(app: Flask) -> dict[str, User | None]:
    """The people every page is asked by."""
    del app
    return {
        "anonymous": None,
        "owner": person("anna", profile=BERLIN),
        "stranger": person("boris", name="Boris Stranger", profile=BERLIN),
        "staff": person("sven", role="support", name="Sven Support"),
        "unverified": person("nele", name="Nele New", verified=False, profile=BERLIN),
    }
