"""The demo: a provider's year, written by the verbs of real life while the clock travels through it.

Nothing is put into a table by hand. The same random seed tells the same story, counted back from the day of seeding; only secrets
(payment ids, references of the pretend processor) differ. One customer, `demo`, is written by hand and has seen everything; two more, `harbour`
and `kiosk`, give support something true in each of its lists; the others are drawn.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from heapq import heappop, heappush
from random import Random

import config
from app import bank, clock, customers, db, fx, gateways, invoicing, mail, origin, payments, refunds, services
from app.customers import Profile
from app.gateways.base import Redirect
from app.money import Money
from app.sandbox_processor import CHOICES, PretendProcessor
from app.services import DAY, add_months

PASSWORD = "demo-client-area"  # noqa: S105 - printed on the login page of a demo
CUSTOMERS = 8
MONTHS = 14
LOOKED_OVER = (20, 60, 180)
"""Days after whose end the planner looks at the tables anew: what it thinks of empty ones makes the rest slow."""
RENEWALS_AT = 2
"""The hour of the day's renewals, in the legal zone."""

# Net prices of a month; longer periods are cheaper. What a currency costs beside the euro is the seller's price list, not a rate.
_CATALOGUE = (
    ("vps-2", "vps", "VPS NVMe-2", 10),
    ("vps-4", "vps", "VPS NVMe-4", 20),
    ("vps-8", "vps", "VPS NVMe-8", 40),
    ("vps-16", "vps", "VPS NVMe-16", 80),
    ("epyc-8", "dedicated", "Dedicated EPYC 4344P", 119),
    ("epyc-24", "dedicated", "Dedicated EPYC 7443P", 350),
    ("cpanel", "licence", "cPanel Pro", 30),
    ("ip", "ip", "IPv4 address", 3),
)
_PRICE_LEVEL = {"EUR": 100, "USD": 110, "GBP": 85, "PLN": 430, "CHF": 95, "CZK": 2500}
_PERIODS = {1: 100, 3: 285, 6: 555, 12: 1080}

_FIRST = [
    "Ada", "Bruno", "Clara", "Dawid", "Elif", "Felix", "Greta", "Hugo", "Ines", "Jan", "Katarzyna", "Lukas", "Marta", "Nils", "Olga", "Paul", "Rosa",
    "Sofia", "Tomasz", "Vera", "Wiktor", "Yara", "Zoë", "Émile",
]  # fmt: skip
_LAST = [
    "Adler", "Berg", "Costa", "Dubois", "Eriksson", "Fischer", "García", "Horák", "Ivanova", "Jansen", "Kowalczyk", "Lindqvist", "Moreau", "Nowak",
    "O'Brien", "Peeters", "Rossi", "Schmidt", "Török", "Vogel", "Wójcik", "Zeman",
]  # fmt: skip
_PLACES = (
    ("DE", "Lindenweg", "10115", "Berlin", "EUR"), ("DE", "Hafenstraße", "20457", "Hamburg", "EUR"), ("AT", "Ringgasse", "1010", "Wien", "EUR"),
    ("FR", "Rue des Tilleuls", "69002", "Lyon", "EUR"), ("NL", "Grachtstraat", "1015 CJ", "Amsterdam", "EUR"), ("ES", "Calle Mayor", "28013", "Madrid", "EUR"),
    ("IT", "Via Garibaldi", "20121", "Milano", "EUR"), ("PL", "ul. Długa", "00-238", "Warszawa", "PLN"), ("PL", "ul. Piotrkowska", "90-001", "Łódź", "PLN"),
    ("CZ", "Dlouhá", "110 00", "Praha", "CZK"), ("GB", "Station Road", "M1 2WD", "Manchester", "GBP"), ("US", "Maple Street", "97205", "Portland", "USD"),
    ("US", "Cedar Avenue", "78701", "Austin", "USD"), ("CH", "Seestrasse", "8002", "Zürich", "CHF"),
)  # fmt: skip
_METHODS = ("card", "card", "card", "paypal", "bank", "crypto")
_MONTHS_AHEAD = (1, 2, 3, 3, 4, 6)
"""For how many months a customer adds funds at a time."""
_BASKETS = (("vps-2",), ("vps-4",), ("vps-4", "ip"), ("vps-8", "cpanel"), ("vps-4", "vps-2", "ip"), ("epyc-8", "ip"), ("vps-16", "cpanel", "ip"), ("vps-8", "vps-8"))

Progress = Callable[[int, int], None]
_Story = list[tuple[timedelta, int, Callable[[], object]]]
"""What a customer does, as (how long ago, hour of the day, what)."""


class Refused(RuntimeError):
    """The demo cannot be written here, as a sentence for the operator."""


def seed(count: int = CUSTOMERS, months: int = MONTHS, random_seed: int = 1, *, processor: PretendProcessor, progress: Progress | None = None) -> None:
    """Write ``demo``, ``support`` and her colleague ``rita``, ``harbour``, ``kiosk`` and ``count`` drawn customers with so many months of history that ends yesterday.

    ``progress`` is told (days done, days in all). Raises `Refused` where anybody is already, or without the sandbox. A demo
    that was broken off is taken out and written again.
    """
    with db.exclusive(origin.LOCK) as alone:
        if not alone:
            raise Refused("Another process is writing the demo, or taking it out. Try again when it has finished.")
        _refuse()
        origin.begin_demo()
        _write(count, months, random_seed, processor, progress)
        origin.finish_demo()
    db.analyze()


def _write(count: int, months: int, random_seed: int, processor: PretendProcessor, progress: Progress | None) -> None:
    today = clock.today()
    first = add_months(today, -months, today.day)
    year = _Year(Random(random_seed), processor, first, today)  # noqa: S311 - a story, not a secret
    with db.hurried(), _unheard():
        with clock.travel(_at(first, 6)):
            _open_shop(today)
            password_hash = customers.hash_password(PASSWORD)
            for login, name in (("support", "Sam Okafor"), ("rita", "Rita Lindqvist")):
                customers.create_user(login, f"{login}@northbyte.example", "", name=name, role="support", locale="en_GB", timezone="Europe/Berlin", password_hash=password_hash)
                origin.mark_demo(login)
        _write_demo_customer(year, password_hash)
        _give_support_work(year, password_hash)
        _draw_customers(year, count, password_hash)
        year.live(progress)


@contextmanager
def _unheard() -> Iterator[None]:
    """What the house tells its operator of held money is part of the story, not of the seeding."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _refuse() -> None:
    if not config.current().sandbox:
        raise Refused("The demo pays with pretend money, and the sandbox is off: a real processor is configured.")
    if "demo_unfinished" in origin.found():
        _take_out_the_broken_off()
    if db.scalar("select count(*) from users"):
        raise Refused("This database holds customers already; the demo is written into an empty one only.")


def _take_out_the_broken_off() -> None:
    """Empty the database of a demo that was broken off, unless somebody has used it since."""
    strangers = [row.login for row in db.rows("select login from users where not demo order by id") if not _LOGINS.fullmatch(row.login)]
    if strangers:
        raise Refused(
            f"The demo was broken off while it was written, and since then {', '.join(strangers[:5])} came to be: nothing was changed. "
            "Empty the database with flask --app wsgi demo remove, or name another one in DATABASE_URL."
        )
    try:
        origin.empty(reason="The demo was broken off while it was written")
    except origin.NotEmptied as kept:
        raise Refused(str(kept)) from None


_LOGINS = re.compile(r"demo|support|rita|harbour|kiosk|customer\d+")


def _open_shop(today: date) -> None:
    """Rates as they were, moved to this day, and a price list."""
    fx.import_history(shift_to=today)
    for code, kind, name, monthly in _CATALOGUE:
        prices = {(currency, months): monthly * level * share // 100 for currency, level in _PRICE_LEVEL.items() for months, share in _PERIODS.items()}
        services.set_plan(code, kind, name, prices)


# The way of time


@dataclass
class _Year:
    """Everything that will happen, in its order; an action may plan further ones."""

    random: Random
    processor: PretendProcessor
    first: date
    today: date
    events: list[tuple[datetime, int, Callable[[], object]]] = field(default_factory=list)
    planned: int = 0

    def plan(self, at: datetime, action: Callable[[], object]) -> None:
        """Let this happen then; what lies after yesterday never does."""
        if clock.day_of(at) < self.today:
            self.planned += 1
            heappush(self.events, (at, self.planned, action))

    def live(self, progress: Progress | None) -> None:
        """Let it all happen, day by day, with what the house does by itself at two in the morning."""
        days = (self.today - self.first).days
        for number in range(days):
            day = self.first + number * DAY
            self.plan(_at(day, RENEWALS_AT), partial(_night, day))
            while self.events and clock.day_of(self.events[0][0]) <= day:
                at, _, action = heappop(self.events)
                with clock.travel(at):
                    action()
            if number in LOOKED_OVER:
                db.analyze()
            if progress:
                progress(number + 1, days)


def _night(day: date) -> None:
    services.renew_due(day)
    services.renew_by_card()
    services.bill_ahead(day)
    invoicing.expire_due()
    refunds.pay_out_due()
    payments.expire_bonuses()
    mail.deliver(10_000)


def _at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime.combine(day, time(hour, minute, tzinfo=clock.zone()))


# What a customer does


@dataclass
class _Person:
    """A customer of the story."""

    id: int
    currency: str
    year: _Year
    last_payment: str = ""

    def top_up(self, amount: str | int, method: str = "card", choice: str = "approve", currency: str = "") -> None:
        """Add funds by the pretend processor's page and come back."""
        bill = payments.order_topup(self.id, Money.of(amount, currency or self.currency))
        token = payments.options(bill).quote_token if currency else ""
        handoff = payments.start(self.id, bill.number, f"sandbox-{method}", token)
        if not isinstance(handoff, Redirect):
            raise TypeError(f"the sandbox answers with a page, not with {handoff}")
        outcome = CHOICES[choice]
        if choice == "approve":
            outcome = CHOICES["silent"]
        self.year.processor.choose(handoff.reference, outcome)
        self.last_payment = _hear(handoff.reference)


def _hear(reference: str) -> str:
    """Ask the pretend processor about a payment and take in what it says; the payment's own id."""
    gateway = gateways.get("sandbox")
    snapshot = gateway.lookup(reference) if gateway else None
    if snapshot is None:
        raise LookupError(reference)
    payments.apply("sandbox", snapshot)
    return snapshot.charge_id


def _sign_up(year: _Year, login: str, email: str, profile: Profile, password_hash: str, *, locale: str, timezone: str) -> _Person:
    user = customers.create_user(login, email, "", name=profile.name, locale=locale, timezone=timezone, password_hash=password_hash)
    if user.customer_id is None or profile.currency is None:
        raise TypeError(f"{login} is no customer with a currency")
    origin.mark_demo(login)
    customers.update_profile(user.id, user.customer_id, replace(profile, billing_email=""), locale=locale, timezone=timezone)
    customers.seed_billing_email(user.customer_id, profile.billing_email)
    return _Person(user.customer_id, profile.currency, year)


# The one customer who has seen everything


def _write_demo_customer(year: _Year, password_hash: str) -> None:
    profile = Profile(
        kind="company", name="Anna Keller", company="Keller Studio GmbH", street="Gartenstraße 3", postcode="10115", city="Berlin", country="DE",
        billing_email="billing@keller-studio.example", currency="EUR", display_currencies=("USD", "PLN"),
    )  # fmt: skip
    with clock.travel(_at(year.first, 7)):
        anna = _sign_up(year, "demo", "anna@keller-studio.example", profile, password_hash, locale="en_GB", timezone="Europe/Berlin")
    for ago, hour, action in _story(anna):
        year.plan(_at(year.today - ago, hour, 10 + hour), action)


def _story(anna: _Person) -> _Story:
    order = partial(services.order, anna.id)
    days = timedelta
    return [
        (days(424), 8, partial(anna.top_up, 60)),
        (days(424), 9, partial(order, "vps-4", 1, label="vps-7", detail="Frankfurt")),
        (days(424), 10, partial(order, "ip", 1, label="ip-203.0.113.9", detail="for vps-7", priority=200)),
        (days(423), 11, partial(_give_bonus, anna, 10, "Welcome to Northbyte", 90)),
        (days(400), 11, partial(anna.top_up, 100, "paypal")),
        (days(352), 9, partial(anna.top_up, 400, "bank")),
        (days(351), 10, partial(order, "vps-16", 3, label="db-1", detail="Amsterdam")),
        (days(318), 15, partial(anna.top_up, 150, "card", currency="USD")),
        (days(290), 9, partial(anna.top_up, 100, "crypto")),
        (days(279), 13, partial(order, "cpanel", 1, label="cPanel Pro", priority=150)),
        (days(246), 9, partial(anna.top_up, 1500, "bank")),
        (days(244), 14, partial(order, "epyc-24", 3, label="ds-12", detail="Frankfurt", priority=10)),
        (days(221), 16, partial(anna.top_up, 250, "card")),
        (days(206), 10, lambda: refunds.open_dispute(anna.last_payment, Money.of(250, "EUR"), reference="dp_demo_1", reason="not recognised")),
        (days(188), 11, lambda: refunds.win_dispute("dp_demo_1")),
        (days(160), 9, partial(anna.top_up, 1500, "bank")),
        (days(120), 9, partial(anna.top_up, 200, "paypal")),
        (days(118), 12, partial(_ask_back, anna, 80)),
        (days(84), 9, partial(anna.top_up, 80, "card", "decline-funds")),
        (days(84), 10, partial(anna.top_up, 1600, "bank")),
        (days(82), 9, partial(order, "vps-8", 3, label="mail-1", detail="Frankfurt", auto_renew=False)),
        (days(45), 10, partial(anna.top_up, 300, "card")),
        (days(44), 10, partial(_save_card, anna, "vps-7")),
        (days(4), 10, partial(_give_bonus, anna, 35, "A year with us: thank you", 60)),
        (days(9), 14, partial(anna.top_up, 250, "card")),
        (days(2), 17, partial(payments.order_topup, anna.id, Money.of(100, "EUR"))),
        (days(1), 18, partial(anna.top_up, 40, "card", "decline-card")),
    ]


def _save_card(anna: _Person, label: str) -> None:
    """Save a card on the processor's page, and let it stand in when the balance does not cover a service."""
    anna.year.processor.choose(payments.cards.add(anna.id).reference, CHOICES["silent"])
    payments.cards.reconcile()
    service = next(one for one in services.of_customer(anna.id) if one.label == label)
    services.pay_from(anna.id, service.public_id, payments.cards.of_customer(anna.id)[0].public_id)


def _ask_back(anna: _Person, amount: int) -> None:
    """Ask for a part of the last payment back; support approves the next morning and the night's round sends it."""
    number = _ask(anna, amount, "Topped up more than I need")
    anna.year.plan(clock.now() + timedelta(hours=20), lambda: refunds.approve(number, actor="staff:support"))


def _ask(who: _Person, amount: int, reason: str) -> str:
    return refunds.request(who.id, who.last_payment, Money.of(amount, who.currency), reason)


def _give_bonus(anna: _Person, amount: int, reason: str, days: int) -> None:
    payments.grant_bonus(anna.id, Money.of(amount, anna.currency), reason=reason, reference=f"demo:{clock.today()}", expires_at=clock.now() + timedelta(days), actor="support")


# What waits for support


def _give_support_work(year: _Year, password_hash: str) -> None:
    """Two customers of whom support has something to decide, and two statements of the bank with lines that name nobody."""
    harbour = Profile(
        kind="company", name="Pieter de Wit", company="Harbour Analytics B.V.", street="Maaskade 41", postcode="3071 NC", city="Rotterdam", country="NL", currency="EUR",
    )  # fmt: skip
    kiosk = Profile(name="Jonas Petersen", street="Lindenweg 8", postcode="20457", city="Hamburg", country="DE", currency="EUR")
    for login, profile, story in (("harbour", harbour, _harbour), ("kiosk", kiosk, _kiosk)):
        year.plan(_at(year.today - timedelta(78), 8), partial(_live, year, login, profile, password_hash, story))
    for number, ago, came in _STATEMENTS:
        year.plan(_at(year.today - timedelta(ago), 6), partial(_import_statement, number, came))


def _live(year: _Year, login: str, profile: Profile, password_hash: str, story: Callable[[_Person], _Story]) -> None:
    who = _sign_up(year, login, f"{login}@{login}.example", profile, password_hash, locale="en_GB", timezone="Europe/Amsterdam")
    for ago, hour, action in story(who):
        year.plan(_at(year.today - ago, hour, 10 + hour), action)


def _harbour(who: _Person) -> _Story:
    """Refunds in each state before the end, held money waiting and decided, and a bank that asks."""
    days = timedelta
    return [
        (days(77), 9, partial(who.top_up, 400, "paypal")),
        (days(77), 10, partial(services.order, who.id, "vps-8", 1, label="web-1", detail="Amsterdam")),
        (days(60), 11, partial(_ask_in_vain, who, 300, "As agreed on the phone you keep it for the renewals of web-1. Ask again at any time.")),
        (days(45), 13, partial(_pay_less, who, 200, "The payer's bank kept a fee; they agree to what came.")),
        (days(30), 9, partial(who.top_up, 900, "bank")),
        (days(6), 10, partial(_ask_for_much, who, 650)),
        (days(5), 9, partial(who.top_up, 80, "card")),
        (days(4), 15, lambda: who.year.processor.inquire(who.last_payment, 80_00, "not recognised by the payer") and _hear(who.last_payment)),
        (days(3), 11, partial(who.top_up, 120, "card")),
        (days(2), 9, partial(_ask, who, 90, "Paid twice by mistake")),
        (days(1), 12, partial(_pay_less, who, 150, "")),
    ]  # fmt: skip


def _kiosk(who: _Person) -> _Story:
    """A payment that its bank took back for good, and the debt it left."""
    days = timedelta
    return [
        (days(76), 9, partial(who.top_up, 60, "card")),
        (days(76), 10, partial(services.order, who.id, "vps-4", 1, label="shop", detail="Frankfurt", auto_renew=False)),
        (days(58), 12, lambda: who.year.processor.dispute(who.last_payment, 60_00, "product not received") and _hear(who.last_payment)),
        (days(36), 14, partial(_lose, who)),
    ]


def _lose(who: _Person) -> None:
    """The bank decides for the payer."""
    dispute = refunds.disputes_of(who.id)[0]
    who.year.processor.close_dispute(dispute.reference, won=False)
    _hear(who.last_payment)


def _ask_in_vain(who: _Person, amount: int, answer: str) -> None:
    number = _ask(who, amount, "We may not need it")
    who.year.plan(clock.now() + timedelta(hours=22), lambda: refunds.decline(number, actor="staff:support", answer=answer))


def _ask_for_much(who: _Person, amount: int) -> None:
    """So much that two people have to approve it; one of them has."""
    number = _ask(who, amount, "The project was called off")
    who.year.plan(clock.now() + timedelta(hours=21), lambda: refunds.approve(number, actor="staff:rita"))


def _pay_less(who: _Person, amount: int, reason: str) -> None:
    """Less comes than was asked for, so it is held; with a reason support credits it the next day."""
    who.top_up(amount, "card", "short")
    if reason:
        number = refunds.held_money()[-1].number
        who.year.plan(clock.now() + timedelta(hours=20), lambda: refunds.release(number, "credit", actor="staff:support", reason=reason))


_STATEMENTS = (
    (231, 12, ((240, "Harbour Analytics B.V.", "NL91ABNA0417164300", "Login harbour"), (119, "Berger & Söhne KG", "DE75512108001245126199", "Rechnung 118 Hosting"))),
    (232, 2, ((75, "M. Novak", "CZ6508000000192000145399", "server november, thank you"),)),
)
"""Statements of the bank: number, days ago, and what came as (euros, from whom, their account, text)."""


def _import_statement(number: int, came: tuple[tuple[int, str, str, str], ...]) -> None:
    """A statement as a bank writes it, read as any other. It goes on where the one before ended."""
    account = next(account for account in config.current().bank_accounts if account.currency == "EUR")
    opening = 5000 + sum(euros for earlier, _, lines in _STATEMENTS if earlier < number for euros, *_ in lines)
    day = f"{clock.today() - DAY:%y%m%d}"
    lines = [":20:STATEMENT", f":25:{account.number}", f":28C:{number}/1", f":60F:C{day}EUR{opening},00"]
    for euros, sender, iban, text in came:
        lines += [f":61:{day}{day[2:]}C{euros},00NTRFNONREF", f":86:166?00CREDIT?20SVWZ+{text}?31{iban}?32{sender}"]
    lines += [f":62F:C{day}EUR{opening + sum(euros for euros, *_ in came)},00", "-"]
    bank.import_file("\n".join(lines).encode(), f"statement-{number}.sta")


# The others


def _draw_customers(year: _Year, count: int, password_hash: str) -> None:
    days = max(1, (year.today - year.first).days)
    for number in range(1, count + 1):
        day = year.first + timedelta(days=year.random.randrange(max(1, days * 3 // 5)))
        year.plan(_at(day, year.random.randrange(7, 19), year.random.randrange(60)), partial(_join, year, number, password_hash))


def _join(year: _Year, number: int, password_hash: str) -> None:
    """A new customer: signs up, adds funds, orders, and from then on adds funds before they run out, or now and then too late."""
    draw = year.random
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    country, street, postcode, city, currency = draw.choice(_PLACES)
    profile = Profile(name=f"{first} {last}", street=f"{street} {draw.randrange(1, 120)}", postcode=postcode, city=city, country=country, currency=currency)
    who = _sign_up(year, f"customer{number}", f"customer{number}@example.com", profile, password_hash, locale="en_GB", timezone="Europe/Berlin")
    basket = draw.choice(_BASKETS)
    level = _PRICE_LEVEL[currency]
    monthly = sum(price * level for code, _, _, price in _CATALOGUE for item in basket if item == code) * 128 // 100
    months = draw.choice(_MONTHS_AHEAD)
    who.top_up(_round_amount(monthly * months, currency), draw.choice(_METHODS[:3]))
    for plan in basket:
        services.order(who.id, plan, 1)
    _plan_month(year, who, monthly, clock.now(), months)


def _plan_month(year: _Year, who: _Person, monthly: int, started: datetime, month: int) -> None:
    """Look at the balance shortly before the renewals of a month; one in fifteen looks too late."""
    late = year.random.random() < 1 / 15
    renews_on = add_months(clock.day_of(started), month, clock.day_of(started).day)
    at = _at(renews_on + timedelta(days=4 if late else -2), year.random.randrange(7, 21), year.random.randrange(60))
    year.plan(at, partial(_refill, year, who, monthly, started, month))


def _refill(year: _Year, who: _Person, monthly: int, started: datetime, month: int) -> None:
    method, months = year.random.choice(_METHODS), year.random.choice(_MONTHS_AHEAD)
    who.top_up(_round_amount(monthly * months, who.currency), method if who.currency in {"EUR", "PLN", "GBP"} else "card")
    _plan_month(year, who, monthly, started, month + months)


def _round_amount(minor: int, currency: str) -> str:
    """A round figure a person would type, at least what is needed and never below the smallest top-up."""
    step = 500 if currency == "CZK" else 50 if currency == "PLN" else 10
    major = max(-(-minor // 100), 2 * step)
    return str(-(-major // step) * step)
