"""Every compiled format equals Babel's own, but for what `app/formats.py` says differs by design."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from babel import Locale, UnknownLocaleError, dates, numbers
from hypothesis import given
from hypothesis import strategies as st

from app import clock
from app.formats import LOCALES, Parts, formats
from app.money import LARGEST_MINOR, UnknownCurrency, exponent
from tests.money_helpers import CODES

OTHERS = ("en_GB", "de_CH", "de_AT", "pt_PT", "fr_CH", "sv", "da", "hu", "uk", "en_IN", "hi")
ALL = (*LOCALES, *OTHERS)
AMOUNTS = (0, 1, 5, 99, 100, 999, 1000, 12345, 99999, 100000, 128460, 99_999_999, 100_000_000, 123_456_789_012, LARGEST_MINOR)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")

days = st.dates(date(1990, 1, 1), date(2099, 12, 31))
zones = st.sampled_from([UTC, ZoneInfo("Asia/Tokyo"), ZoneInfo("America/Los_Angeles")])
moments = st.builds(lambda day, minutes, zone: datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minutes), days, st.integers(0, 1439), zones)


def _babel_money(minor: int, code: str, locale: str) -> str:
    """Babel's answer, with the gap where a symbol touches the figure."""
    symbol = re.escape(numbers.get_currency_symbol(code, locale))
    text = numbers.format_currency(Decimal(minor).scaleb(-exponent(code)), code, locale=locale)
    text = re.sub(rf"({symbol})(?=-?[0-9])", "\\1\u00a0", text)
    return re.sub(rf"(?<=[0-9])({symbol})", "\u00a0\\1", text)


def _babel_amount(minor: int, code: str, locale: str) -> str:
    grouping = "#,##,##0" if Locale.parse(locale).currency_formats["standard"].grouping == (3, 2) else "#,##0"
    pattern = grouping + (f".{'0' * exponent(code)}" if exponent(code) else "")
    return numbers.format_decimal(Decimal(minor).scaleb(-exponent(code)), pattern, locale)


@pytest.mark.parametrize("locale", ALL)
def test_money_equals_babel_in_every_currency(locale: str):
    written = formats(locale, "UTC")
    for code, minor in product(CODES, AMOUNTS):
        assert written.money(minor, code) == _babel_money(minor, code, locale)
        assert written.amount(minor, code) == _babel_amount(minor, code, locale)
        if minor:
            assert written.money(-minor, code) == _babel_money(-minor, code, locale)
            assert written.amount(-minor, code) == _babel_amount(-minor, code, locale)


@given(st.integers(-LARGEST_MINOR, LARGEST_MINOR), st.sampled_from(CODES), st.sampled_from(ALL))
def test_money_equals_babel_in_every_amount(minor: int, code: str, locale: str):
    assert formats(locale, "UTC").money(minor, code) == _babel_money(minor, code, locale)


def test_the_figures_of_the_design():
    english, german, polish, swiss = (formats(locale, "UTC") for locale in ("en", "de", "pl", "de_CH"))
    assert english.money(128460, "EUR") == "€\u00a01,284.60"
    assert english.money(128460, "PLN") == "PLN\u00a01,284.60"
    assert english.money(-1284, "JPY") == "-¥\u00a01,284"
    assert german.money(128460, "EUR") == "1.284,60\u00a0€"
    assert polish.money(549809, "PLN") == "5\u00a0498,09\u00a0zł"
    assert swiss.money(-128460, "CHF") == "CHF\u00a0-1’284.60"
    assert english.money(1250, "KWD") == "KWD\u00a01.250"


def test_a_movement_carries_its_sign():
    english, german = formats("en", "UTC"), formats("de", "UTC")
    assert [english.signed(minor, "EUR") for minor in (25000, -2420, 0)] == ["+250.00", "\u221224.20", "0.00"]
    assert [german.signed(minor, "KWD") for minor in (1284600, -5)] == ["+1.284,600", "\u22120,005"]


@given(st.integers(1, LARGEST_MINOR), st.sampled_from(CODES), st.sampled_from(ALL))
def test_a_sign_changes_nothing_else(minor: int, code: str, locale: str):
    written = formats(locale, "UTC")
    assert written.signed(minor, code) == "+" + written.amount(minor, code)
    assert written.signed(-minor, code) == "\u2212" + written.amount(minor, code)


def test_the_parts_of_the_large_figure():
    assert formats("en", "UTC").parts(128460, "EUR") == Parts("€", "1,284", ".60", symbol_first=True)
    assert formats("de", "UTC").parts(-128460, "EUR") == Parts("€", "\u22121.284", ",60", symbol_first=False)
    assert formats("en", "UTC").parts(1284, "JPY") == Parts("¥", "1,284", "", symbol_first=True)
    assert formats("fr", "UTC").parts(5, "KWD") == Parts("KWD", "0", ",005", symbol_first=False)


@given(st.integers(0, LARGEST_MINOR), st.sampled_from(CODES), st.sampled_from(LOCALES))
def test_the_parts_are_the_whole(minor: int, code: str, locale: str):
    parts, written = formats(locale, "UTC").parts(minor, code), formats(locale, "UTC")
    figure = parts.whole + parts.fraction
    assert written.money(minor, code) == (f"{parts.symbol}\u00a0{figure}" if parts.symbol_first else f"{figure}\u00a0{parts.symbol}")


@pytest.mark.parametrize("write", ["money", "amount", "signed", "parts"])
def test_an_unknown_currency_is_never_written(write: str):
    with pytest.raises(UnknownCurrency):
        getattr(formats("en", "UTC"), write)(100, "XXX")


# Dates and times


@given(days, st.sampled_from(ALL))
def test_dates_equal_babel(day: date, locale: str):
    written = formats(locale, "UTC")
    assert written.date(day) == dates.format_date(day, "medium", locale)
    assert written.long_date(day) == dates.format_date(day, "long", locale)
    with clock.travel(datetime(day.year, 7, 1, tzinfo=UTC)):
        assert written.day_month(day) == dates.format_skeleton("MMMd", day, locale=locale)
        assert written.long_day_month(day) == dates.format_skeleton("MMMMd", day, locale=locale)
    with clock.travel(datetime(day.year - 1, 7, 1, tzinfo=UTC)):
        assert written.day_month(day) == dates.format_date(day, "medium", locale)
        assert written.long_day_month(day) == dates.format_date(day, "long", locale)


@given(moments, st.sampled_from(ALL), st.sampled_from(ZONES))
def test_times_equal_babel_in_the_readers_zone(moment: datetime, locale: str, zone: str):
    written, there = formats(locale, zone), moment.astimezone(ZoneInfo(zone))
    short = dates.format_time(there.time(), "short", locale=locale)
    assert written.time(moment) == short
    assert written.date(moment) == dates.format_date(there.date(), "medium", locale)
    joined = str(dates.get_datetime_format("medium", locale)).replace("'", "")
    assert written.datetime(moment) == joined.replace("{0}", short).replace("{1}", dates.format_date(there.date(), "medium", locale))
    with clock.travel(datetime(there.year, 7, 1, tzinfo=UTC)):
        assert written.day_time(moment) == joined.replace("{0}", short).replace("{1}", dates.format_skeleton("MMMd", there.date(), locale=locale))
    with clock.travel(datetime(there.year + 1, 7, 1, tzinfo=UTC)):
        assert written.day_time(moment) == written.datetime(moment)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_day_of_two_years_equals_babel(locale: str):
    written, day = formats(locale, "UTC"), date(2025, 1, 1)
    while day < date(2027, 1, 1):
        assert written.date(day) == dates.format_date(day, "medium", locale)
        day += timedelta(days=1)


def test_the_dates_of_the_design():
    moment = datetime(2026, 11, 21, 13, 3, tzinfo=UTC)
    english, british, german = formats("en", "Europe/Berlin"), formats("en_GB", "Europe/Berlin"), formats("de", "America/New_York")
    assert english.datetime(moment) == "Nov 21, 2026, 2:03\u202fPM"
    assert british.datetime(moment) == "21 Nov 2026, 14:03"
    with clock.travel(datetime(2026, 12, 31, 22, 59, tzinfo=UTC)):
        assert british.day_time(moment) == "21 Nov, 14:03"
        assert british.long_day_month(date(2027, 3, 14)) == "14 March 2027"
    with clock.travel(datetime(2026, 12, 31, 23, 1, tzinfo=UTC)):  # the new year has begun for a reader in Berlin
        assert british.day_time(moment) == "21 Nov 2026, 14:03"
        assert british.long_day_month(date(2027, 3, 14)) == "14 March"
    assert german.datetime(moment) == "21.11.2026, 08:03"


def test_midnight_belongs_to_the_readers_day():
    late = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    assert formats("de", "UTC").date(late) == "31.12.2026"
    assert formats("de", "Europe/Berlin").date(late) == "01.01.2027"


def test_the_hour_that_summer_time_skips_and_repeats():
    berlin = formats("de", "Europe/Berlin")
    assert [berlin.time(datetime(2026, 3, 29, hour, 30, tzinfo=UTC)) for hour in (0, 1)] == ["01:30", "03:30"]
    assert [berlin.time(datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)] == ["02:30", "02:30"]


def test_a_time_without_a_zone_is_refused():
    for write in (formats("en", "UTC").datetime, formats("en", "UTC").date, formats("en", "UTC").time):
        with pytest.raises(ValueError, match="names no time zone"):
            write(datetime(2026, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None))


@pytest.mark.parametrize(("locale", "words"), [("en", "yesterday today tomorrow"), ("de", "gestern heute morgen"), ("pl", "wczoraj dzisiaj jutro"), ("pt_PT", "ontem hoje amanhã")])
def test_the_days_around_today_have_names(locale: str, words: str):
    assert [formats(locale, "UTC").relative_days(n) for n in (-1, 0, 1)] == words.split()


@given(st.integers(-4000, 4000).filter(lambda n: abs(n) > 1), st.sampled_from(ALL))
def test_days_away_equal_babel(n: int, locale: str):
    expected = dates.format_timedelta(timedelta(days=n), "day", threshold=1e9, add_direction=True, locale=locale)
    assert formats(locale, "UTC").relative_days(n) == expected
    assert str(abs(n)) in expected


def test_days_away_never_become_weeks():
    assert formats("en", "UTC").relative_days(40) == "in 40 days"
    assert formats("en", "UTC").relative_days(-3) == "3 days ago"
    assert formats("pl", "UTC").relative_days(3) == "za 3 dni"


# Rates


@pytest.mark.parametrize(
    ("rate", "english", "german"),
    [
        ("0.922815", "0.922815", "0,922815"),
        ("1.1172", "1.1172", "1,1172"),
        ("175.68", "175.68", "175,68"),
        ("1", "1.00", "1,00"),
        ("0.005692167577", "0.00569217", "0,00569217"),
        ("20275.17", "20,275.17", "20.275,17"),
    ],
)
def test_a_rate_shows_six_digits(rate: str, english: str, german: str):
    assert formats("en", "UTC").rate(Decimal(rate)) == english
    assert formats("de", "UTC").rate(Decimal(rate)) == german


def test_percent_is_exact():
    assert [formats("en", "UTC").percent(Decimal(rate)) for rate in ("19", "25.5", "0", "7.70")] == ["19%", "25.5%", "0%", "7.7%"]
    assert formats("de", "UTC").percent(Decimal("25.5")) == "25,5\u00a0%"


# The cache


def test_one_locale_and_zone_is_compiled_once():
    assert formats("de", "Europe/Berlin") is formats("de", "Europe/Berlin")


def test_a_table_never_outgrows_its_limit():
    table = formats("cs", "UTC")._dates
    for n in range(table.limit + 100):
        formats("cs", "UTC").date(date(2000, 1, 1) + timedelta(days=n))
    assert len(table) <= table.limit


def test_a_locale_or_zone_that_is_none_says_so():
    with pytest.raises(UnknownLocaleError):
        formats("xx", "UTC")
    with pytest.raises(ZoneInfoNotFoundError):
        formats("en", "Mars/Olympus")


@pytest.mark.parametrize(
    ("locale", "kept", "written"),
    [
        ("de", "At most 1300.00 EUR of this payment can be refunded.", "At most 1.300,00\xa0€ of this payment can be refunded."),
        ("en", "17.00 EUR came instead of 18.00 EUR", "€\xa017.00 came instead of €\xa018.00"),
        ("en", "from 2026-11-23 on, at the latest 2026-11-23T14:05Z.", "from Nov 23, 2026 on, at the latest Nov 23, 2026, 3:05 PM."),
        ("en", "300 JPY, 1.250 KWD", "¥\xa0300, KWD\xa01.250"),
        (
            "en",
            "PF-2026-000001, 5.0 EUR, 5 EUR, 1.00 XXX, -5.00 EUR, 2026-13-01, 12026-11-23, RF-2026-11-23",
            "PF-2026-000001, 5.0 EUR, 5 EUR, 1.00 XXX, -5.00 EUR, 2026-13-01, 12026-11-23, RF-2026-11-23",
        ),
    ],
)
def test_a_sentence_kept_for_any_reader_is_written_as_this_one_reads(locale: str, kept: str, written: str) -> None:
    assert formats(locale, "Europe/Berlin").sentence(kept).replace("\u202f", " ") == written
