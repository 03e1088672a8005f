"""Rates, offers and quotes: no rate we cannot answer for, no cent made by converting to and fro."""

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import config
from app import clock, db, fx
from app.fx.feed import read_feed
from app.fx.target import business_days, is_business_day
from app.money import AmountError, Money
from tests.money_helpers import EUR, GBP, JPY, KWD, PLN, USD

FEED = (Path(__file__).parent / "data" / "eurofxref-daily.xml").read_bytes()
FRIDAY = date(2026, 10, 30)
NOON = datetime(2026, 10, 30, 12, tzinfo=UTC)
MONDAY = NOON + timedelta(days=3)

on_one_database = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def feed(day: date | str = FRIDAY, **rates: object) -> bytes:
    """A feed of one day in the ECB's format."""
    return envelope(cube(day, **rates))


def cube(day: date | str, **rates: object) -> str:
    lines = "".join(f"<Cube currency='{code}' rate='{rate}'/>" for code, rate in rates.items())
    return f"<Cube time='{day}'>{lines}</Cube>"


def envelope(days: str) -> bytes:
    head = 'xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"'
    return f'<?xml version="1.0" encoding="UTF-8"?><gesmes:Envelope {head}><Cube>{days}</Cube></gesmes:Envelope>'.encode()


def stored() -> int:
    return int(db.scalar("select count(*) from rates"))


@pytest.fixture
def friday(app) -> Iterator[None]:
    """The house at noon of Friday 30 October 2026, with the ECB's real rates of that day."""
    with clock.travel(NOON):
        fx.import_feed(FEED)
        yield


@pytest.fixture
def settings_with(settings: config.Settings):
    """Settings with some of them changed, for one test."""
    yield lambda **changes: config.use(replace(settings, **changes))
    config.use(settings)


# Offers


def test_an_offer_credits_the_reference_rate_and_says_where_it_is_from(friday):
    offer = fx.offer(USD("250"), "EUR")
    assert offer.credited == EUR("223.77")  # 250 / 1.1172 = 223.7737…
    assert offer.spread == EUR("0")
    assert (offer.source, offer.rate_date) == ("ECB", FRIDAY)
    assert offer.rate == Decimal("0.895094880057")
    assert timedelta(minutes=14) < offer.expires_at - clock.now() <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("pay", "into", "credited"),
    [
        (EUR("100"), "USD", USD("111.72")),
        (EUR("1"), "JPY", JPY("175")),  # 175.68
        (JPY("1"), "EUR", None),  # 0.0056…
        (JPY("2"), "EUR", EUR("0.01")),
        (USD("100"), "PLN", PLN("394.18")),  # 100 / 1.1172 × 4.4038 = 394.1818…
        (PLN("100"), "USD", USD("25.36")),  # 25.3690…
        (JPY("100000"), "GBP", GBP("474.61")),
        (GBP("0.01"), "JPY", JPY("2")),  # 2.1069…
    ],
)
def test_the_credited_side_is_rounded_down(friday, pay: Money, into: str, credited: Money | None):
    if credited is None:
        with pytest.raises(AmountError, match="too small to become Euro"):
            fx.offer(pay, into)
    else:
        assert fx.offer(pay, into).credited == credited


def test_three_decimals(app):
    with clock.travel(NOON):
        fx.import_feed(feed(KWD="0.3421", JPY="175.68"))
        assert fx.offer(EUR("100"), "KWD").credited == KWD("34.210")
        assert fx.offer(KWD("1.234"), "EUR").credited == EUR("3.60")  # 3.6071…
        assert fx.offer(KWD("1"), "JPY").credited == JPY("513")  # 513.5340…


def test_the_spread_is_a_figure_of_its_own(friday, settings_with):
    settings_with(fx_spread_bp=150)
    offer = fx.offer(USD("250"), "EUR")
    assert offer.rate == Decimal("0.895094880057")
    assert (offer.credited, offer.spread, offer.spread_bp) == (EUR("220.41"), EUR("3.36"), 150)
    assert offer.gross == EUR("223.77")


def test_converting_a_currency_into_itself_is_a_mistake_of_the_code(friday):
    with pytest.raises(ValueError, match="needs no conversion"):
        fx.offer(EUR("1"), "EUR")


minimum_amounts = st.integers(1, 400)
rates = st.decimals("0.0001", "30000", places=4)


@on_one_database
@given(minimum_amounts, st.permutations(["EUR", "JPY", "KWD", "USD"]), st.tuples(rates, rates, rates))
def test_no_way_there_and_back_makes_money(app, superuser: psycopg.Connection, minor: int, order: list[str], found: tuple[Decimal, ...]):
    plant(superuser, dict(zip(("JPY", "KWD", "USD"), found, strict=True)))
    start, first, second, _ = order
    with clock.travel(NOON):
        assert converted(Money(minor, start), first, start) <= Money(minor, start)
        assert converted(Money(minor, start), first, second, start) <= Money(minor, start)


def plant(superuser: psycopg.Connection, found: dict[str, Decimal]) -> None:
    """Friday's rates, whatever was there before: past the import, and past the trigger that keeps history."""
    superuser.execute("set session_replication_role = replica")
    superuser.execute("delete from rates")
    for currency, rate in found.items():
        superuser.execute("insert into rates (source, currency, rate_date, rate, fetched_at) values ('ECB', %s, %s, %s, now())", (currency, FRIDAY, rate))


def converted(money: Money, *path: str) -> Money:
    """What is left after a way through currencies; nothing when an amount becomes too small on it."""
    for into in path:
        try:
            money = fx.offer(money, into).credited
        except AmountError:
            return Money(0, path[-1])
    return money


def test_no_pair_makes_money_at_its_smallest_amounts(friday):
    for start, into in permutations(("EUR", "USD", "JPY", "PLN", "KRW", "IDR"), 2):
        for minor in range(1, 40):
            assert converted(Money(minor, start), into, start) <= Money(minor, start)


# Rates we cannot answer for


def test_without_rates_nothing_is_offered(app):
    with pytest.raises(fx.RateUnavailable) as refused:
        fx.offer(USD("10"), "EUR")
    assert refused.value.reason == "missing"
    assert str(refused.value) == "There is no current exchange rate from USD to EUR. Pay in EUR, or try again on the next business day."


def test_a_currency_without_a_rate_is_never_one_to_one(friday):
    for pay, into in ((KWD("10"), "EUR"), (EUR("10"), "KWD"), (KWD("10"), "USD")):
        with pytest.raises(fx.RateUnavailable):
            fx.offer(pay, into)


@pytest.mark.parametrize(("days_later", "usable"), [(0, True), (3, True), (4, True), (5, False), (12, False), (40, False)])
def test_a_rate_older_than_two_business_days_is_stale(friday, days_later: int, usable: bool):
    with clock.travel(NOON + timedelta(days=days_later)):
        if usable:
            assert fx.offer(USD("10"), "EUR").rate_date == FRIDAY
        else:
            with pytest.raises(fx.RateUnavailable) as refused:
                fx.offer(USD("10"), "EUR")
            assert refused.value.reason == ("stale" if days_later < 14 else "missing")


def test_a_rate_of_maundy_thursday_serves_until_the_wednesday_after_easter(app):
    with clock.travel(datetime(2026, 4, 2, 16, tzinfo=UTC)):
        fx.import_feed(feed("2026-04-02", USD="1.1"))
    with clock.travel(datetime(2026, 4, 8, 12, tzinfo=UTC)):
        assert fx.offer(USD("10"), "EUR").rate_date == date(2026, 4, 2)
    with clock.travel(datetime(2026, 4, 9, 12, tzinfo=UTC)), pytest.raises(fx.RateUnavailable):
        fx.offer(USD("10"), "EUR")


def test_a_rate_of_a_day_to_come_is_not_used(friday):
    with clock.travel(NOON - timedelta(days=1)), pytest.raises(fx.RateUnavailable):
        fx.offer(USD("10"), "EUR")


def test_an_absurd_rate_that_came_by_another_door_is_refused(friday, superuser: psycopg.Connection):
    superuser.execute("insert into rates (source, currency, rate_date, rate, fetched_at) values ('ECB', 'USD', '2026-11-02', 111.7, now())")
    with clock.travel(MONDAY):
        with pytest.raises(fx.RateUnavailable) as refused:
            fx.offer(USD("10"), "EUR")
        assert refused.value.reason == "absurd"
        assert fx.offer(PLN("10"), "EUR").rate_date == FRIDAY


def test_a_rate_is_judged_by_its_own_source(friday, superuser: psycopg.Connection):
    superuser.execute(
        "insert into rates (source, currency, rate_date, rate, fetched_at) values ('ECB', 'USD', '2026-11-02', 1.15, now()), ('another', 'USD', '2026-11-02', 9, now())"
    )
    with clock.travel(MONDAY):
        assert fx.offer(USD("11.50"), "EUR").credited == EUR("10")


def test_both_legs_are_of_one_day_and_one_source(friday, superuser: psycopg.Connection):
    superuser.execute(
        "insert into rates (source, currency, rate_date, rate, fetched_at) values ('ECB', 'USD', '2026-11-02', 1.2, now()), ('another', 'PLN', '2026-11-02', 4.5, now())"
    )
    with clock.travel(MONDAY):
        assert fx.offer(USD("10"), "EUR").rate_date == date(2026, 11, 2)
        assert fx.offer(USD("10"), "PLN").rate_date == FRIDAY


# Tokens and quotes


def test_a_sealed_offer_comes_back_unchanged(friday, settings_with):
    settings_with(fx_spread_bp=75)
    offer = fx.offer(USD("250"), "JPY")
    assert fx.unseal(fx.seal(offer)) == offer


def test_a_token_that_was_changed_or_is_none_of_ours_opens_nothing(friday, settings_with):
    token = fx.seal(fx.offer(USD("250"), "EUR"))
    for forged in ("", "x", "a.b", token[:-1], token[1:], token.replace(".", ""), token + "A", "é" * 10, "W10.W10", None):
        assert fx.unseal(forged or "") is None
    settings_with(secret_key="another secret, long enough for its purpose")
    assert fx.unseal(token) is None


def test_a_token_lives_fifteen_minutes(friday):
    token = fx.seal(fx.offer(USD("250"), "EUR"))
    with clock.travel(clock.now() + timedelta(minutes=14, seconds=50)):
        assert fx.unseal(token) is not None
    with clock.travel(clock.now() + timedelta(minutes=15)):
        assert fx.unseal(token) is None


@pytest.fixture
def customer_id(superuser: psycopg.Connection) -> int:
    """A customer, as bare as the schema allows."""
    row = superuser.execute("insert into customers (name, created_at) values ('Ada', now()) returning id").fetchone()
    assert row is not None
    return int(row[0])


def test_a_fixed_offer_is_a_quote_for_ever(friday, settings_with, customer_id: int):
    settings_with(fx_spread_bp=20)
    offer = fx.offer(JPY("10000"), "EUR")
    with db.transaction():
        quote_id = fx.fix(offer, customer_id)
    with clock.travel(MONDAY):
        fx.import_feed(feed("2026-11-02", JPY="180"))
        assert fx.quoted(quote_id) == offer
    assert fx.quoted(quote_id + 1) is None


def test_a_held_rate_stands_for_its_customer_alone_and_until_its_end(friday, customer_id: int):
    offer = fx.offer(JPY("10000"), "EUR")
    with db.transaction():
        fx.fix(offer, customer_id)
    assert fx.standing(customer_id, JPY("10000"), "EUR") == offer
    assert fx.standing(customer_id, JPY("10000"), "USD") is None
    assert fx.standing(customer_id, JPY("10001"), "EUR") is None
    assert fx.standing(customer_id + 1, JPY("10000"), "EUR") is None
    with clock.travel(clock.now() + timedelta(minutes=15)):
        assert fx.standing(customer_id, JPY("10000"), "EUR") is None


def test_an_expired_offer_is_not_fixed(friday, customer_id: int):
    offer = fx.offer(JPY("10000"), "EUR")
    with clock.travel(clock.now() + timedelta(minutes=15)), db.transaction(), pytest.raises(fx.RateUnavailable) as refused:
        fx.fix(offer, customer_id)
    assert refused.value.reason == "expired"


def test_fixing_needs_a_transaction(friday, customer_id: int):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        fx.fix(fx.offer(JPY("10000"), "EUR"), customer_id)


@pytest.mark.parametrize("statement", ["update rates set rate = 1", "delete from rates", "truncate rates", "update quotes set rate = 1", "delete from quotes"])
def test_rates_and_quotes_are_history(friday, superuser: psycopg.Connection, statement: str):
    with pytest.raises(psycopg.Error, match="append-only"):
        superuser.execute(statement)


# Equivalents


def test_equivalents_are_for_reading(friday):
    found = fx.equivalents(EUR("1284.60"), ["EUR", "USD", "PLN", "KWD", "JPY"])
    assert [each.money for each in found] == [USD("1435.16"), PLN("5657.12"), JPY("225679")]
    assert {(each.source, each.rate_date) for each in found} == {("ECB", FRIDAY)}


def test_equivalents_of_another_currency_and_of_none(friday, app):
    assert [each.money for each in fx.equivalents(USD("-10"), ["EUR", "GBP"])] == [EUR("-8.95"), GBP("-7.46")]
    assert fx.equivalents(EUR("1"), []) == []
    assert fx.equivalents(EUR("1"), ["EUR"]) == []
    assert fx.equivalents(Money(10**15, "EUR"), ["IDR"]) == []


def test_without_rates_there_are_no_equivalents(app):
    assert fx.equivalents(EUR("1"), ["USD"]) == []


def test_equivalents_cost_one_statement(friday, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(db, "rows", lambda sql, _rows=db.rows, **params: asked.append(sql) or _rows(sql, **params))
    fx.equivalents(EUR("1"), ["USD", "PLN", "JPY", "GBP"])
    fx.offer(USD("1"), "PLN")
    assert len(asked) == 2


# The feed


def test_the_real_feed_is_read_whole():
    (day,) = read_feed(FEED)
    assert day.rate_date == FRIDAY
    assert len(day.rates) == 29
    assert (day.rates["USD"], day.rates["IDR"]) == (Decimal("1.1172"), Decimal("20275.17"))


def test_importing_twice_adds_nothing(friday):
    assert fx.import_feed(FEED) == fx.Imported(FRIDAY, 0)
    assert stored() == 29


def test_a_feed_of_many_days_is_taken_in_order(friday):
    days = envelope(cube("2026-11-03", USD="1.2") + cube("2026-11-02", USD="1.15") + cube(FRIDAY, USD="1.1172") + cube("2026-10-29", USD="9"))
    with clock.travel(NOON + timedelta(days=4)):
        assert fx.import_feed(days) == fx.Imported(date(2026, 11, 3), 2)


def test_unknown_currencies_are_left_out(app):
    with clock.travel(NOON):
        assert fx.import_feed(feed(USD="1.1", XYZ="3", EUR="7")).added == 1


@pytest.mark.parametrize("cell", ["N/A", "n/a", "-", ""])
def test_a_currency_that_was_not_quoted_loses_its_own_rate_alone(app, cell: str):
    with clock.travel(NOON):
        assert fx.import_feed(feed(USD="1.1", GBP=cell, PLN="4.2")).added == 2
    assert {row.currency for row in db.rows("select currency from rates")} == {"USD", "PLN"}


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (b"", "not readable"),
        (b"not xml", "not readable"),
        (FEED[:-20], "not readable"),
        (b"<html><body>Service unavailable</body></html>", "holds no rates"),
        (envelope(""), "holds no rates"),
        (feed(), "holds no rates"),
        (feed(USD="1.1").replace(b"eurofxref", b"another"), "holds no rates"),
        (feed(USD="0"), "'0' of USD is not a number above zero"),
        (feed(USD="0.0000"), "above zero"),
        (feed(USD="-1.1"), "above zero"),
        (feed(USD="NaN"), "above zero"),
        (feed(USD="1e3"), "above zero"),
        (feed(USD="1,1"), "above zero"),
        (feed(USD=""), "holds no rates"),
        (feed(USD="１"), "above zero"),
        (feed(USD="1.12345678901"), "above zero"),
        (feed("30.10.2026", USD="1.1"), "date '30.10.2026' is none"),
        (feed("", USD="1.1"), "date '' is none"),
        (envelope("<Cube time='2026-10-30'><Cube currency='USD' rate='1'/><Cube currency='USD' rate='2'/></Cube>"), "names USD twice"),
        (envelope(cube(FRIDAY, USD="1") + cube(FRIDAY, USD="2")), "same day twice"),
        (feed("2026-10-31", USD="1.1"), "a day to come"),
        (b"<!DOCTYPE x [<!ENTITY a 'a'>]>" + feed(USD="1.1").partition(b"?>")[2], "document type"),
        ("<?xml version='1.0' encoding='UTF-16'?><!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>".encode("utf-16"), "document type"),
        (b" " * 2_000_001, "far larger"),
    ],
)
def test_a_feed_that_cannot_be_believed_is_refused_whole(app, xml: bytes, why: str):
    with clock.travel(NOON), pytest.raises(fx.FeedRefused, match=re.escape(why)):
        fx.import_feed(xml)
    assert stored() == 0


def test_an_older_day_is_refused(friday):
    with pytest.raises(fx.FeedRefused, match="2026-10-30 are here already"):
        fx.import_feed(feed("2026-10-29", USD="1.11"))


def test_another_rate_for_a_day_we_have_is_refused(friday):
    with pytest.raises(fx.FeedRefused, match=re.escape("says 1.2 USD for 2026-10-30, but 1.1172 was stored")):
        fx.import_feed(feed(USD="1.2"))


@pytest.mark.parametrize(("rate", "taken"), [("1.2289", True), ("1.2290", False), ("1.0055", True), ("1.0054", False), ("111.72", False), ("0.8951", False)])
def test_a_move_beyond_a_tenth_needs_a_person(friday, rate: str, taken: bool):
    xml = feed("2026-11-02", USD=rate, PLN="4.4")
    with clock.travel(MONDAY):
        if taken:
            assert fx.import_feed(xml).added == 2
        else:
            with pytest.raises(fx.FeedRefused, match="USD moved by"):
                fx.import_feed(xml)
            assert stored() == 29


def test_a_confirmed_move_is_stored_and_used(friday):
    with clock.travel(MONDAY):
        fx.import_feed(feed("2026-11-02", USD="2"), confirmed=["USD"])
        assert fx.offer(USD("10"), "EUR").credited == EUR("5")


def test_sources_do_not_judge_each_other(friday):
    with clock.travel(MONDAY):
        assert fx.import_feed(feed("2026-11-02", USD="9"), source="another").added == 1


def test_two_imports_at_once_store_one_day_once(app):
    def run() -> None:
        with app.app_context(), clock.travel(NOON):
            fx.import_feed(FEED)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored() == 29


# Fetching


class Server(ThreadingHTTPServer):
    """A loopback copy of the ECB's server, with an ETag."""

    daemon_threads = True
    body, status, etag, location, babble = FEED, 200, '"v1"', "", False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/eurofxref-daily.xml"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("If-None-Match")
        self.server.asked.append(known)
        unchanged = known == self.server.etag
        if self.server.babble:
            self.wfile.write(b"no such protocol\r\n\r\n")
            return
        self.send_response(304 if unchanged else self.server.status)
        self.send_header("ETag", self.server.etag)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        if not unchanged:
            self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(settings_with) -> Iterator[Server]:
    """The feed's server, and settings that point to it."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    settings_with(fx_url=server.url)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_unchanged_feed_is_not_fetched_again(app, server: Server):
    with clock.travel(NOON):
        assert fx.fetch() == fx.Imported(FRIDAY, 29)
        assert fx.fetch() == fx.Imported(None, 0)
    assert server.asked == [None, '"v1"']


def test_a_refused_feed_is_asked_for_again(app, server: Server):
    server.body = feed(USD="-1")
    with clock.travel(NOON):
        with pytest.raises(fx.FeedRefused, match="above zero"):
            fx.fetch()
        server.body = FEED
        assert fx.fetch().added == 29
    assert server.asked == [None, None]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_server_that_fails_is_said_so(app, server: Server, status: int):
    server.status = status
    with pytest.raises(fx.FeedRefused, match=f"answered {status}"):
        fx.fetch()
    assert stored() == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_server_that_sends_us_elsewhere_is_not_followed(app, server: Server, status: int):
    server.status, server.location = status, server.url
    with pytest.raises(fx.FeedRefused, match=f"answered {status}"):
        fx.fetch()
    assert len(server.asked) == 1


def test_a_server_that_speaks_no_http_is_said_so(app, server: Server):
    server.babble = True
    with pytest.raises(fx.FeedRefused, match="could not be reached"):
        fx.fetch()


def test_a_server_that_is_not_there_is_said_so(app, server: Server, settings_with):
    url = server.url
    server.shutdown()
    server.server_close()
    settings_with(fx_url=url)
    with pytest.raises(fx.FeedRefused, match="could not be reached"):
        fx.fetch()


def test_an_endless_answer_is_cut_off(app, server: Server):
    server.body = b"<" + b" " * 3_000_000
    with pytest.raises(fx.FeedRefused, match="far larger"):
        fx.fetch()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/feed", "eurofxref.xml", ""])
def test_only_web_addresses_are_fetched(app, settings_with, url: str):
    settings_with(fx_url=url)
    with pytest.raises(fx.FeedRefused, match="http or https"):
        fx.fetch()


# The bundled history


def test_the_history_is_the_ecbs(app):
    with clock.travel(NOON):
        assert fx.import_history() == fx.Imported(FRIDAY, 14_819)
        offer = fx.offer(USD("250"), "EUR")
    assert (offer.source, offer.rate_date, offer.credited) == ("ECB", FRIDAY, EUR("223.77"))
    assert db.scalar("select rate from rates where currency = 'JPY' and rate_date = '2026-10-30'") == Decimal("175.68")
    assert fx.import_history().added == 0


def test_the_history_and_the_feed_agree(app):
    with clock.travel(NOON):
        fx.import_history()
        assert fx.import_feed(FEED) == fx.Imported(FRIDAY, 0)


def test_the_demos_copy_is_fresh_and_says_what_it_is(app):
    monday = datetime(2026, 11, 23, 9, tzinfo=UTC)
    with clock.travel(monday):
        assert fx.import_history(shift_to=clock.today()).rate_date == date(2026, 11, 20)
        offer = fx.offer(USD("250"), "EUR")
        assert (offer.source, offer.rate_date, offer.credited) == ("ECB (demo copy)", date(2026, 11, 20), EUR("223.77"))
    shifted = db.rows("select distinct rate_date from rates order by 1")
    assert len(shifted) == 511
    assert all(is_business_day(row.rate_date) for row in shifted)
    assert db.scalar("select count(*) from rates where source <> 'ECB (demo copy)'") == 0


def test_the_ecbs_own_rate_of_a_day_comes_before_the_copy(app):
    with clock.travel(MONDAY):
        fx.import_history(shift_to=date(2026, 10, 31))
        fx.import_feed(feed(USD="1.2"))
        assert fx.offer(USD("10"), "EUR").source == "ECB"


# The calendar


@pytest.mark.parametrize(
    ("day", "open_"),
    [
        ("2026-01-01", False), ("2026-04-03", False), ("2026-04-06", False), ("2026-05-01", False), ("2026-12-25", False), ("2026-12-26", False),
        ("2026-11-21", False), ("2026-11-22", False), ("2026-11-23", True), ("2026-04-02", True), ("2026-04-07", True), ("2026-12-24", True),
        ("2027-03-26", False), ("2027-03-29", False), ("2024-03-29", False), ("2038-04-26", False), ("2019-04-22", False),
    ],
)  # fmt: skip
def test_the_closing_days_of_target(day: str, open_: bool):
    assert is_business_day(date.fromisoformat(day)) is open_


def test_the_ecb_publishes_on_every_business_day_and_no_other(app):
    with clock.travel(NOON):
        fx.import_history()
    published = {row.rate_date for row in db.rows("select distinct rate_date from rates")}
    first, days = date(2024, 10, 30), (FRIDAY - date(2024, 10, 30)).days
    assert published == {day for day in (first + timedelta(days=n) for n in range(days + 1)) if is_business_day(day)}


def test_business_days_between():
    assert business_days(FRIDAY, FRIDAY) == 0
    assert business_days(FRIDAY, FRIDAY + timedelta(days=3)) == 1
    assert business_days(FRIDAY + timedelta(days=3), FRIDAY) == 0
    assert business_days(date(2026, 12, 24), date(2026, 12, 28)) == 1
