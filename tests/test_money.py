"""Amounts: whole minor units, no float, no silent guess about what a person typed."""

from decimal import ROUND_DOWN, Decimal

import pytest
from babel import Locale
from babel.numbers import get_currency_precision
from hypothesis import example, given
from hypothesis import strategies as st

from app.formats import LOCALES, formats
from app.money import CURRENCIES, LARGEST_MINOR, AmountError, CurrencyMismatch, Money, UnknownCurrency, exponent
from tests.money_helpers import CHF, CODES, EUR, JPY, KWD, USD

WRITERS = (*LOCALES, "en_GB", "de_CH", "de_AT", "pt_PT", "fr_CH")

minors = st.integers(-LARGEST_MINOR, LARGEST_MINOR)
codes = st.sampled_from(CODES)


# The value


def test_the_table_has_the_decimals_of_iso_4217():
    assert {exponent(code) for code in ("EUR", "USD", "PLN", "GBP", "CHF", "HUF", "IDR", "UAH", "NGN", "AED")} == {2}
    assert {code for code in CODES if exponent(code) == 0} == {"JPY", "KRW", "ISK"}
    assert {code for code in CODES if exponent(code) == 3} == {"KWD", "BHD", "JOD"}


def test_babel_shows_every_enabled_currency_with_as_many_decimals():
    assert {code: get_currency_precision(code) for code in CODES} == {code: found.exponent for code, found in CURRENCIES.items()}


@pytest.mark.parametrize(
    ("text", "code", "minor"), [("12.40", "EUR", 1240), ("80", "JPY", 80), ("1.250", "KWD", 1250), ("-0.01", "USD", -1), ("0.29", "EUR", 29), ("1.13", "EUR", 113)]
)
def test_of_is_exact(text: str, code: str, minor: int):
    assert Money.of(text, code) == Money(minor, code)
    assert str(Money.of(text, code)) == f"{text} {code}"


@pytest.mark.parametrize("amount", ["0.001", "x", "nan", "sNaN", "inf", "1e99", "1e999999999", "1e-999999999", "", Decimal("0.005"), Decimal("1." + "0" * 80 + "1")])
def test_of_refuses_what_is_no_amount(amount: str | Decimal):
    with pytest.raises(AmountError):
        Money.of(amount, "EUR")


@pytest.mark.parametrize("minor", [1.0, True, Decimal(1), "1", None])
def test_minor_units_are_whole_numbers_and_nothing_else(minor: object):
    with pytest.raises(TypeError):
        Money(minor, "EUR")


def test_no_float_says_an_amount():
    with pytest.raises(TypeError):
        Money.of(0.1, "EUR")


@pytest.mark.parametrize("code", ["XXX", "eur", "", "EURO", None, ["EUR"]])
def test_an_unknown_currency_is_refused_everywhere(code: object):
    for make in (lambda: Money(1, code), lambda: Money.of("1", code), lambda: Money.parse("1", code, "en")):
        with pytest.raises(UnknownCurrency):
            make()


def test_the_range_is_closed():
    assert Money(LARGEST_MINOR, "EUR") - Money(LARGEST_MINOR, "EUR") == EUR("0")
    for beyond in (lambda: Money(LARGEST_MINOR + 1, "EUR"), lambda: Money(LARGEST_MINOR, "EUR") + EUR("0.01"), lambda: Money(-LARGEST_MINOR, "JPY") * 2):
        with pytest.raises(AmountError):
            beyond()


@pytest.mark.parametrize(
    "mix",
    [
        lambda: EUR("1") + USD("1"),
        lambda: EUR("1") - USD("1"),
        lambda: EUR("1") < USD("1"),
        lambda: EUR("1") <= USD("1"),
        lambda: EUR("1") > USD("1"),
        lambda: EUR("1") >= USD("1"),
        lambda: max(EUR("1"), JPY("1")),
        lambda: Money.total([EUR("1"), USD("1")], "EUR"),
    ],
)
def test_currencies_never_mix(mix):
    with pytest.raises(CurrencyMismatch):
        mix()


def test_equal_figures_of_two_currencies_are_not_equal():
    assert EUR("1") != USD("1")
    assert len({EUR("1"), USD("1"), Money(100, "EUR")}) == 2


@pytest.mark.parametrize("other", [1, "1.00", None, Decimal(1)])
def test_money_adds_to_money_alone(other: object):
    with pytest.raises(TypeError):
        EUR("1") + other


def test_arithmetic():
    assert EUR("1.10") * 3 == EUR("3.30")
    assert -EUR("1") == EUR("-1") == EUR("1") - EUR("2")
    assert abs(EUR("-1")) == EUR("1")
    assert Money.total([], "EUR") == EUR("0")
    assert Money.total([EUR("0.10")] * 3, "EUR") == EUR("0.30")
    assert sorted([EUR("2"), EUR("1")]) == [EUR("1"), EUR("2")]
    assert EUR("0.01")
    assert not EUR("0")


@given(minors, codes)
def test_the_decimal_says_the_same(minor: int, code: str):
    assert Money.of(Money(minor, code).decimal, code) == Money(minor, code)


@pytest.mark.parametrize(
    ("exact", "code", "rounding", "expected"),
    [
        (Decimal("14.29") * Decimal("1.24"), "EUR", None, EUR("17.72")),
        (Decimal("0.005"), "EUR", None, EUR("0.01")),
        (Decimal("-0.005"), "EUR", None, EUR("-0.01")),
        (Decimal("0.0049"), "EUR", None, EUR("0")),
        (Decimal("0.9999"), "JPY", ROUND_DOWN, JPY("0")),
        (Decimal("1.23456"), "KWD", ROUND_DOWN, KWD("1.234")),
    ],
)
def test_rounding_is_said_once(exact: Decimal, code: str, rounding: str | None, expected: Money):
    assert (Money.rounded(exact, code, rounding) if rounding else Money.rounded(exact, code)) == expected


@pytest.mark.parametrize("exact", [Decimal("NaN"), Decimal("Infinity"), Decimal("1e40"), Decimal("-1e999999")])
def test_what_is_beyond_all_amounts_is_not_rounded(exact: Decimal):
    with pytest.raises(AmountError):
        Money.rounded(exact, "EUR")


@given(minors, codes, st.lists(st.one_of(st.integers(0, 10**6), st.decimals(0, 1000, places=4)), min_size=1, max_size=12).filter(any))
@example(1000, "EUR", [1, 1, 1])
@example(-5, "EUR", [1, 1])
def test_allocating_loses_nothing_and_favours_nobody(minor: int, code: str, weights: list[int | Decimal]):
    parts = Money(minor, code).allocate(weights)
    assert Money.total(parts, code) == Money(minor, code)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Decimal(part.minor) - Decimal(minor) * Decimal(weight) / sum(map(Decimal, weights))) < 1 + Decimal("1e-9")


def test_the_earlier_gets_the_odd_cent():
    assert EUR("10").allocate([1, 1, 1]) == [EUR("3.34"), EUR("3.33"), EUR("3.33")]
    assert EUR("0.05").allocate([Decimal("0.3"), Decimal("0.7")]) == [EUR("0.02"), EUR("0.03")]
    assert EUR("0.01").allocate([0, 1]) == [EUR("0"), EUR("0.01")]


@pytest.mark.parametrize("weights", [[], [0], [0, 0], [1, -1], [2, -1]])
def test_weights_that_share_nothing_are_refused(weights: list[int]):
    with pytest.raises(ValueError, match="cannot split"):
        EUR("1").allocate(weights)


# What a person types

READ = [
    ("1.234,50", "EUR", "de", 123450),
    ("1234,5", "EUR", "de", 123450),
    ("1.234.567", "EUR", "de", 123456700),
    ("1,234.50", "EUR", "en", 123450),
    ("25", "EUR", "en", 2500),
    ("0.05", "EUR", "en", 5),
    ("0", "EUR", "en", 0),
    (" 25.00\n", "EUR", "en", 2500),
    ("1 234,50", "EUR", "fr", 123450),
    ("1\u00a0234,50", "EUR", "fr", 123450),
    ("1\u202f234,50", "EUR", "fr", 123450),
    ("1 234", "EUR", "pl", 123400),
    ("12 345,67", "PLN", "cs", 1234567),
    ("1'234.50", "CHF", "de_CH", 123450),
    ("1’234.50", "CHF", "de_CH", 123450),
    ("1’234", "CHF", "de_CH", 123400),
    ("€ 25", "EUR", "en", 2500),
    ("25 €", "EUR", "de", 2500),
    ("EUR 25,00", "EUR", "de", 2500),
    ("100 zł", "PLN", "pl", 10000),
    ("80", "JPY", "en", 80),
    ("1,234", "JPY", "en", 1234),
    ("1.234", "JPY", "de", 1234),
    ("1.250", "KWD", "en", 1250),
    ("1.2", "KWD", "en", 1200),
    ("10,000,000,000,000.00", "EUR", "en", LARGEST_MINOR),
]


@pytest.mark.parametrize(("text", "code", "locale", "minor"), READ)
def test_it_reads_what_a_person_types(text: str, code: str, locale: str, minor: int):
    assert Money.parse(text, code, locale) == Money(minor, code)


REFUSED = [
    # Nearly another amount: a hundred-fold top-up for one keystroke.
    ("10,00", "EUR", "en", "Write the amount like 1,234.50."),
    ("10.00", "EUR", "de", "Write the amount like 1.234,50."),
    ("1.234", "EUR", "de", "1.234 can be read in two ways. Write it with its decimals, like 1.234,00."),
    ("1,234", "EUR", "en", "1,234 can be read in two ways. Write it with its decimals, like 1,234.00."),
    ("1,234", "KWD", "en", "1,234 can be read in two ways. Write it with its decimals, like 1,234.000."),
    ("10.005", "EUR", "de", "10.005 can be read in two ways. Write it with its decimals, like 10.005,00."),
    ("1.234", "EUR", "en", "EUR has 2 decimals at most. Write the amount like 1,234.50."),
    ("10.005", "EUR", "en", "EUR has 2 decimals at most. Write the amount like 1,234.50."),
    ("1.2345", "KWD", "en", "KWD has 3 decimals at most. Write the amount like 1,234.500."),
    ("80.00", "JPY", "en", "JPY has no decimals. Write the amount like 1,234."),
    ("12,34.50", "EUR", "en", "Write the amount like 1,234.50."),
    ("1,23,456.00", "EUR", "en", "Write the amount like 1,234.50."),
    ("1 234,50", "EUR", "de", "Write the amount like 1.234,50."),
    ("1.234,50", "EUR", "fr", "Write the amount like 1\u202f234,50."),
    ("1'234.50", "EUR", "en", "Write the amount like 1,234.50."),
    ("5.", "EUR", "en", "Write the amount like 1,234.50."),
    (".5", "EUR", "en", "Write the amount like 1,234.50."),
    ("007", "EUR", "en", "Write the amount without leading zeros, like 1,234.50."),
    ("0,123", "JPY", "en", "Write the amount without leading zeros, like 1,234."),
    # No figure at all, or one for machines.
    ("", "EUR", "en", "Enter an amount, like 1,234.50."),
    (" \u00a0 ", "EUR", "en", "Enter an amount, like 1,234.50."),
    ("€", "EUR", "en", "Enter an amount, like 1,234.50."),
    ("1e3", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("1e309", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("NaN", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("sNaN", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("Infinity", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("1_000", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("１２", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("٣٤", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("१०", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("²", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("0x10", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("1\x00", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("$25", "EUR", "en", "Write the amount in digits, like 1,234.50."),
    ("+7", "EUR", "en", "Write the amount without a sign, like 1,234.50."),
    ("-5", "EUR", "en", "Write the amount without a sign, like 1,234.50."),
    ("−5", "EUR", "en", "Write the amount without a sign, like 1,234.50."),
    ("5-", "EUR", "en", "Write the amount without a sign, like 1,234.50."),
    ("€ -5", "EUR", "en", "Write the amount without a sign, like 1,234.50."),
    ("9" * 65, "EUR", "en", "This is too long for an amount. Write it like 1,234.50."),
    ("10,000,000,000,000.01", "EUR", "en", "The largest amount we can handle is 10,000,000,000,000.00 EUR."),
    ("9" * 40, "JPY", "en", "The largest amount we can handle is 1,000,000,000,000,000 JPY."),
]


@pytest.mark.parametrize(("text", "code", "locale", "sentence"), REFUSED)
def test_it_refuses_with_a_sentence_that_shows_how(text: str, code: str, locale: str, sentence: str):
    with pytest.raises(AmountError) as refused:
        Money.parse(text, code, locale)
    assert str(refused.value) == sentence


@given(st.integers(0, LARGEST_MINOR), codes, st.sampled_from(WRITERS))
@example(123400, "EUR", "de")
@example(1234, "JPY", "de")
@example(1234567, "KWD", "en")
def test_it_reads_back_whatever_we_write(minor: int, code: str, locale: str):
    written = formats(locale, "UTC")
    assert Money.parse(written.amount(minor, code), code, locale) == Money(minor, code)
    assert Money.parse(written.money(minor, code), code, locale) == Money(minor, code)
    plain = f"{Money(minor, code).decimal:f}".replace(".", Locale.parse(locale).number_symbols["latn"]["decimal"])
    assert Money.parse(plain, code, locale) == Money(minor, code)


@given(st.one_of(st.text(max_size=80), st.text("0123456789.,'’ \u00a0\u202f-+€", max_size=24)), codes, st.sampled_from(WRITERS))
def test_whatever_is_typed_it_reads_an_amount_or_says_a_sentence(text: str, code: str, locale: str):
    read, sentence = _answer(text, code, locale)
    assert (read is None) != (sentence == "")
    assert read is None or 0 <= read.minor <= LARGEST_MINOR
    assert sentence == "" or sentence.endswith(".")
    assert not set("<>&\x00") & set(sentence)


@given(st.integers(0, 10**7), st.sampled_from(["EUR", "USD", "PLN", "GBP", "CHF", "KWD"]))
def test_no_text_means_one_amount_in_english_and_another_in_german(minor: int, code: str):
    for text in (f"{Money(minor, code).decimal:f}", formats("en", "UTC").amount(minor, code), formats("de", "UTC").amount(minor, code)):
        assert len({read for read, _ in (_answer(text, code, "en"), _answer(text, code, "de")) if read}) <= 1


def _answer(text: str, code: str, locale: str) -> tuple[Money | None, str]:
    """The amount, or the sentence why there is none."""
    try:
        return Money.parse(text, code, locale), ""
    except AmountError as refused:
        return None, str(refused)


def test_a_code_or_symbol_of_another_currency_is_no_part_of_the_amount():
    with pytest.raises(AmountError):
        Money.parse("USD 25", "EUR", "en")
    assert CHF("25") == Money.parse("CHF 25", "CHF", "de_CH")
