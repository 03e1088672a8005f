"""Who is taxed how: a table of cases, dated rates, and VAT IDs by their form."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import config
from app import tax
from app.money import Money
from app.tax import Party
from tests.money_helpers import CODES, EUR, JPY, KWD

TODAY = date(2026, 11, 23)
GERMAN = Party("DE", "DE136695976")
NO_VAT_ID = Party("DE")

VAT_IDS = {
    "AT": "ATU13585627", "BE": "BE0428759497", "BG": "BG175074752", "CY": "CY10259033P", "CZ": "CZ25123891", "DE": "DE136695976", "DK": "DK13585628",
    "EE": "EE100931558", "ES": "ESB58378431", "FI": "FI20774740", "FR": "FR40303265045", "GR": "EL094259216", "HR": "HR33392005961", "HU": "HU12892312",
    "IE": "IE6433435F", "IT": "IT00743110157", "LT": "LT119511515", "LU": "LU15027442", "LV": "LV40003521600", "MT": "MT11679112", "NL": "NL004495445B01",
    "PL": "PL8567346215", "PT": "PT501964843", "RO": "RO18547290", "SE": "SE123456789701", "SI": "SI50223054", "SK": "SK2022749619",
}  # fmt: skip

OUTSIDE, REVERSE = "Not subject to EU VAT", "Reverse charge"


@pytest.mark.parametrize(
    ("seller", "buyer", "category", "percent", "note"),
    [
        # At home: the domestic rate, business or not, whatever the VAT ID.
        (GERMAN, Party("DE"), "S", "19", ""),
        (GERMAN, Party("DE", "DE136695976"), "S", "19", ""),
        (GERMAN, Party("DE", "FR40303265045"), "S", "19", ""),
        (Party("FR", "FR40303265045"), Party("MC"), "S", "20", ""),
        (Party("FR", "FR40303265045"), Party("MC", "FR40303265045"), "S", "20", ""),
        # A business elsewhere in the Union.
        (GERMAN, Party("FR", "FR40303265045", vat_id_state="valid"), "AE", "0", REVERSE),
        (GERMAN, Party("FR", "FR 40 303 265 045", vat_id_state="valid"), "AE", "0", REVERSE),
        (GERMAN, Party("GR", "EL094259216", vat_id_state="valid"), "AE", "0", REVERSE),
        (GERMAN, Party("GR", "GR094259216", vat_id_state="valid"), "AE", "0", REVERSE),
        (GERMAN, Party("MC", "FR40303265045", vat_id_state="valid"), "AE", "0", REVERSE),
        # No VAT ID that could be one, or one the register does not know: a consumer, at the rate of their country.
        (GERMAN, Party("FR"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FR", "FR40303265046"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FR", "FR40303265045", vat_id_state="invalid"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FR", "PL8567346215"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FR", "EU372022452"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FI"), "S", "25.5", "VAT (Finland)"),
        (GERMAN, Party("HU"), "S", "27", "VAT (Hungary)"),
        (GERMAN, Party("LU"), "S", "17", "VAT (Luxembourg)"),
        (GERMAN, Party("GR"), "S", "24", "VAT (Greece)"),
        (GERMAN, Party("MC"), "S", "20", "VAT (France)"),
        # Outside the Union, business or not; Northern Ireland too, whose XI numbers are for goods.
        (GERMAN, Party("US"), "O", "0", OUTSIDE),
        (GERMAN, Party("CH", "CHE107787577"), "O", "0", OUTSIDE),
        (GERMAN, Party("GB"), "O", "0", OUTSIDE),
        (GERMAN, Party("GB", "XI980780684", "BT1 1AA"), "O", "0", OUTSIDE),
        (GERMAN, Party("NO"), "O", "0", OUTSIDE),
        # Outside the VAT area, though in a member state.
        (GERMAN, Party("FR", postcode="97400"), "O", "0", OUTSIDE),
        (GERMAN, Party("FR", postcode="98714"), "O", "0", OUTSIDE),
        (GERMAN, Party("FR", postcode="F-98800"), "O", "0", OUTSIDE),
        (GERMAN, Party("FI", postcode="FI-22100"), "O", "0", OUTSIDE),
        (GERMAN, Party("FI", postcode="02200"), "S", "25.5", "VAT (Finland)"),
        (GERMAN, Party("GR", postcode="630 86"), "O", "0", OUTSIDE),
        (GERMAN, Party("GR", postcode="63077"), "S", "24", "VAT (Greece)"),
        (GERMAN, Party("DK", postcode="3900"), "O", "0", OUTSIDE),
        (GERMAN, Party("DK", postcode="2390"), "S", "25", "VAT (Denmark)"),
        # Monaco, by its own code or as an address in France.
        (GERMAN, Party("FR", postcode="F-98000"), "S", "20", "VAT (France)"),
        (GERMAN, Party("MC", postcode="98000"), "S", "20", "VAT (France)"),
        # Inside it with a rate of its own.
        (GERMAN, Party("PT", postcode="9000-062"), "S", "22", "VAT (Portugal)"),
        (GERMAN, Party("PT", postcode="P-9500 321"), "S", "16", "VAT (Portugal)"),
        (GERMAN, Party("PT", postcode="1000-001"), "S", "23", "VAT (Portugal)"),
        (GERMAN, Party("AT", postcode="6691"), "S", "19", "VAT (Austria)"),
        (GERMAN, Party("AT", postcode="A-6992"), "S", "19", "VAT (Austria)"),
        (GERMAN, Party("AT", postcode="87568"), "S", "19", "VAT (Austria)"),
        (GERMAN, Party("AT", postcode="1010"), "S", "20", "VAT (Austria)"),
        (Party("AT", "ATU12345675"), Party("AT", postcode="6991"), "S", "19", ""),
        # A number that nobody has confirmed, and a private person's.
        (GERMAN, Party("FR", "FR40303265045"), "S", "20", "VAT (France)"),
        (GERMAN, Party("FR", "FR40303265045", vat_id_state="valid", kind="individual"), "S", "20", "VAT (France)"),
        (GERMAN, Party("ES", postcode="35001"), "O", "0", OUTSIDE),
        (GERMAN, Party("ES", postcode="28001"), "S", "21", "VAT (Spain)"),
        (GERMAN, Party("IT", postcode="23041"), "O", "0", OUTSIDE),
        (GERMAN, Party("DE", postcode="27498"), "O", "0", OUTSIDE),
        (GERMAN, Party("AX"), "O", "0", OUTSIDE),
        (GERMAN, Party("RE"), "O", "0", OUTSIDE),
        # Other sellers.
        (Party("CH", "CHE107787577MWST"), Party("CH"), "S", "8.1", ""),
        (Party("CH", "CHE107787577MWST"), Party("DE"), "O", "0", OUTSIDE),
        (Party("GB", "GB980780684"), Party("GB"), "S", "20", ""),
        (Party("GB", "GB980780684"), Party("IM", postcode="IM1 1AA"), "S", "20", ""),
        (GERMAN, Party("IM", postcode="IM1 1AA"), "O", "0", OUTSIDE),
        (NO_VAT_ID, Party("DE"), "E", "0", "small business"),
        (NO_VAT_ID, Party("FR", "FR40303265045"), "E", "0", "small business"),
        (Party("US"), Party("DE"), "O", "0", "No VAT is charged"),
    ],
)
def test_the_table_of_cases(seller: Party, buyer: Party, category: str, percent: str, note: str):
    found = tax.treatment(seller, buyer, TODAY)
    assert (found.category, found.rate) == (category, Decimal(percent))
    assert found.legal_note.startswith(note) if note != "small business" else note in found.legal_note
    assert bool(found.legal_note) == bool(note)


def test_the_configured_seller_is_one():
    assert tax.treatment(config.Seller(), Party("DE"), TODAY).category == "S"


def test_every_member_state_has_a_rate_and_reverses_the_charge():
    assert len(tax.EU) == 27
    for country in tax.EU - {"DE"}:
        consumer, business = (tax.treatment(GERMAN, buyer, TODAY) for buyer in (Party(country), Party(country, VAT_IDS[country], vat_id_state="valid")))
        assert consumer.category == "S"
        assert 17 <= consumer.rate <= 27
        assert (business.category, business.rate) == ("AE", 0)


@pytest.mark.parametrize("country", ["", None])
def test_without_a_country_nothing_is_decided(country: str | None):
    with pytest.raises(LookupError, match="country is not known"):
        tax.treatment(GERMAN, Party(country), TODAY)


@pytest.mark.parametrize(
    ("country", "day", "percent"),
    [
        ("EE", "2023-12-31", "20"), ("EE", "2024-01-01", "22"), ("EE", "2025-06-30", "22"), ("EE", "2025-07-01", "24"),
        ("SK", "2024-12-31", "20"), ("SK", "2025-01-01", "23"), ("FI", "2024-08-31", "24"), ("FI", "2024-09-01", "25.5"),
        ("RO", "2025-07-31", "19"), ("RO", "2025-08-01", "21"), ("LU", "2023-06-01", "16"), ("LU", "2024-01-01", "17"),
        ("DE", "2020-06-30", "19"), ("DE", "2020-07-01", "16"), ("DE", "2021-01-01", "19"), ("CH", "2023-12-31", "7.7"),
    ],
)  # fmt: skip
def test_a_rate_holds_from_its_day(country: str, day: str, percent: str):
    assert tax.rate(country, date.fromisoformat(day)) == Decimal(percent)


@pytest.mark.parametrize(("country", "day"), [("US", "2026-01-01"), ("DE", "1999-12-31"), ("", "2026-01-01")])
def test_a_rate_nobody_wrote_down_is_never_zero(country: str, day: str):
    with pytest.raises(LookupError, match="no VAT rate"):
        tax.rate(country, date.fromisoformat(day))


# Top-ups


def test_a_top_up_carries_no_vat_and_says_why():
    found = tax.for_topup()
    assert (found.category, found.rate) == ("O", 0)
    assert found.legal_note == ("Prepayment to your balance, not a VAT invoice. No VAT is due yet: it is charged on the invoice of each service that the balance pays for.")


# The operator's own rates


@pytest.fixture
def own_rates(tmp_path: Path) -> Iterator[Path]:
    """A file of rates that the next start reads."""
    yield tmp_path / "rates.csv"
    tax.use("")


def test_rates_of_ones_own_add_a_country_and_the_next_rate_of_another(own_rates: Path):
    own_rates.write_text("country,since,percent\nTR,2023-07-10,20\nDE,2030-01-01,21\n")
    tax.use(str(own_rates))
    turkish = Party("TR", "1234567890")
    assert tax.treatment(turkish, Party("TR"), TODAY).rate == 20
    assert [tax.rate("DE", date(year, 6, 1)) for year in (2029, 2030)] == [19, 21]
    tax.refuse_seller_without_rate(turkish, TODAY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the first line must be country,since,percent"),
        ("country,since\nTR,2023-07-10\n", "the first line must be country,since,percent"),
        ("country,since,percent\nTurkey,2023-07-10,20\n", "line 2: Turkey is no country"),
        ("country,since,percent\nTR,10.07.2023,20\n", "line 2: write the day like 2023-07-10"),
        ("country,since,percent\nTR,2023-07-10,20%\n", "line 2: write the percent like 20 or 25.5"),
        ("country,since,percent\nTR,2023-07-10,200\n", "line 2: write the percent like 20 or 25.5"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_rates_that_is_wrong_is_refused_with_its_line(own_rates: Path, text: str | None, says: str):
    if text is not None:
        own_rates.write_text(text)
    with pytest.raises(tax.RatesRefused, match=says):
        tax.use(str(own_rates))


def test_a_seller_with_a_vat_id_and_without_a_rate_is_refused_at_the_start():
    with pytest.raises(tax.RatesRefused, match="No VAT rate of TR is known"):
        tax.refuse_seller_without_rate(Party("TR", "1234567890"), TODAY)
    tax.refuse_seller_without_rate(Party("US"), TODAY)
    for country in ("DE", "CH", "GB"):
        tax.refuse_seller_without_rate(Party(country, "1"), TODAY)


# Amounts


@pytest.mark.parametrize(
    ("net", "percent", "vat"),
    [
        (EUR("14.29"), "24", EUR("3.43")),  # 3.4296
        (EUR("83.00"), "20", EUR("16.60")),
        (EUR("0.05"), "10", EUR("0.01")),  # 0.005
        (EUR("-0.05"), "10", EUR("-0.01")),
        (EUR("10"), "25.5", EUR("2.55")),
        (JPY("105"), "10", JPY("11")),
        (KWD("1.234"), "19", KWD("0.234")),
        (EUR("100"), "0", EUR("0")),
    ],
)
def test_vat_is_rounded_half_up_once(net: Money, percent: str, vat: Money):
    assert tax.Treatment("S", Decimal(percent)).vat(net) == vat


@given(st.integers(-(10**12), 10**12), st.sampled_from(CODES), st.sampled_from(["0", "8.1", "16", "19", "21", "25.5", "27"]))
@example(11900, "EUR", "19")
def test_an_amount_splits_into_net_and_vat_without_loss(minor: int, code: str, percent: str):
    treatment = tax.Treatment("S", Decimal(percent))
    net, vat = treatment.split(Money(minor, code))
    assert net + vat == Money(minor, code)
    assert abs(treatment.vat(net).minor - vat.minor) <= 1


# VAT IDs


@pytest.mark.parametrize(("country", "vat_id"), VAT_IDS.items())
def test_every_member_states_vat_id_is_known(country: str, vat_id: str):
    assert tax.vat_id_problem(country, vat_id) is None
    assert tax.vat_id_problem(country, vat_id[2:]) is None
    assert tax.compact_vat_id(country, vat_id[2:]) == vat_id
    other = "FR" if country != "FR" else "DE"
    assert tax.vat_id_problem(other, vat_id) is not None


@pytest.mark.parametrize(
    ("country", "vat_id"),
    [
        ("DE", "DE 136 695 976"), ("DE", "de136695976"), ("DE", "DE-136.695.976"), ("FR", "FR\u00a040\u202f303265045"), ("GR", "GR094259216"), ("GR", "094259216"),
        ("GB", "GB980780684"), ("GB", "980780684"), ("GB", "XI980780684"), ("CH", "CHE-107.787.577 MWST"), ("CH", "CHE107787577IVA"), ("CH", "CHE-107.787.577"),
        ("LI", "CHE-107.787.577"), ("NO", "NO995525828MVA"), ("MC", "FR40303265045"), ("US", "12-3456789"), ("UA", "1234567890"), ("", "123"), ("DE", ""), ("DE", "  "),
    ],
)  # fmt: skip
def test_it_is_read_however_it_is_written(country: str, vat_id: str):
    assert tax.vat_id_problem(country, vat_id) is None


@pytest.mark.parametrize(
    ("country", "vat_id", "sentence"),
    [
        ("DE", "DE136695977", "This is not a valid VAT ID (Germany). Check it for a typing mistake."),
        ("DE", "DE13669597", "This is not a valid VAT ID (Germany). Check it for a typing mistake."),
        ("DE", "DE１３６６９５９７６", "This is not a valid VAT ID (Germany). Check it for a typing mistake."),
        ("DE", "FR40303265045", "The VAT ID must start with DE (Germany). Check the number, or the country of your address."),
        ("GR", "DE136695976", "The VAT ID must start with EL (Greece). Check the number, or the country of your address."),
        ("DE", "EU372022452", "This is a One Stop Shop number, not the VAT ID of a business. Enter your VAT ID, or leave the field empty."),
        ("DE", "IM3720000224", "This is a One Stop Shop number, not the VAT ID of a business. Enter your VAT ID, or leave the field empty."),
        ("GB", "GB980780685", "This is not a valid VAT ID (United Kingdom). Check it for a typing mistake."),
        ("GB", "XI980780685", "This is not a valid VAT ID (United Kingdom). Check it for a typing mistake."),
        ("CH", "CHE-107.787.578", "This is not a valid VAT ID (Switzerland). Check it for a typing mistake."),
        ("US", "<script>", "This is not a valid VAT ID (United States). Check it for a typing mistake."),
        ("US", "none", "This is not a valid VAT ID (United States). Check it for a typing mistake."),
        ("UA", "1" * 21, "This is not a valid VAT ID (Ukraine). Check it for a typing mistake."),
    ],
)
def test_a_wrong_one_is_refused_with_a_sentence(country: str, vat_id: str, sentence: str):
    assert tax.vat_id_problem(country, vat_id) == sentence


@given(st.one_of(st.sampled_from(["DE", "GR", "GB", "CH", "NO", "TR", "IN", "US", "MC", "XX"]), st.text(max_size=3)), st.text(max_size=30))
def test_whatever_is_typed_it_answers(country: str, vat_id: str):
    problem = tax.vat_id_problem(country, vat_id)
    assert problem is None or problem.endswith(".")
