"""Every setting against wrong values: one clear sentence that names it, and no secret in it."""

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

import config
from app import tax
from tests.test_config import BANK, BTCPAY, GIVEN, LIVE, PAYPAL, SELLER

SECRET = "p4ss-w0rd"
"""Stands in every wrong address as its password: no sentence may repeat it."""
NOWPAYMENTS = {
    **GIVEN,
    **SELLER,
    "NOWPAYMENTS_API_KEY": "k",
    "NOWPAYMENTS_IPN_SECRET": "s",
    "NOWPAYMENTS_API_BASE": "https://api-sandbox.nowpayments.io",
}
DATABASES = [
    "mysql://h/x",
    "h/x",
    f"postgresql://u:{SECRET}@h:99999/x",
    f"postgresql://u:{SECRET}@h:abc/x",
    f"postgresql://u:{SECRET}@h:0/x",
    f"postgresql://u:{SECRET}#1@h/x",
    f"postgresql://u:{SECRET}/1@h/x",
    f"postgresql://u:{SECRET}@[::1/x",
    f"postgresql://u:{SECRET}@h1:1,h2:none/x",
]
ADDRESSES = [
    "api.example.com",
    "http://api.example.com",
    "ftp://api.example.com",
    "https://",
    "https://api.example.com:abc",
    "https://api.example.com:99999",
    f"https://u:{SECRET}@api.example.com",
    "https://api.example.com/#x",
    "https://api example.com",
    "https://api..example.com",
    "https://999.1.1.1",
]
NUMBERS = ["x", "-1", "1.5", "5%", "1e1", "٣"]
ACCOUNT = "EUR | IE29 AIBK 9311 5212 3456 78 | AIBKIE2DXXX | Acme Ltd | AIB, Dublin"
LONG = "x" * 201

WRONG: dict[str, tuple[dict[str, str], list[str]]] = {
    "DATABASE_URL": (GIVEN, ["", " ", *DATABASES]),
    "DATABASE_OWNER_URL": (GIVEN, DATABASES),
    "DATABASE_ROLE": (GIVEN, ["Client Area", "1app", "x" * 64, "pg_monitor", "postgres", "public"]),
    "SECRET_KEY": (GIVEN, ["", "short", " " * 40]),
    "SECRET_KEY_FALLBACKS": (GIVEN, ["short", GIVEN["SECRET_KEY"]]),
    "BASE_URL": (LIVE, [
        "billing.example.com", "http://billing.example.com", "ftp://billing.example.com", "https://",
        "https://billing.example.com/billing", "https://billing.example.com?x", "https://billing.example.com#x",
        f"https://u:{SECRET}@billing.example.com", "https://billing.example.com:0", "https://billing.example.com:99999",
        "https://billing example.com", "https://billing..example.com", "https://-billing.example.com",
        "https://*.example.com", "https://rechnung.münchen.example", "https://a.example,https://b.example", "https://999.1.1.1",
    ]),
    "PORT": (GIVEN, [*NUMBERS, "0", "65536", "80 80"]),
    "HOST": (GIVEN, ["999.1.1.1", "my host", "localhost:8000", "http://localhost", "-x"]),
    "WEB_WORKERS": (GIVEN, [*NUMBERS, "0", "65"]),
    "WEB_THREADS": (GIVEN, [*NUMBERS, "0", "65"]),
    "REQUEST_TIMEOUT": (GIVEN, [*NUMBERS, "0", "61"]),
    "TRUSTED_PROXIES": (GIVEN, ["proxy", "*", "0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0.1/24", "10.0.0.1 10.0.0.2"]),
    "METRICS_TOKEN": (GIVEN, ["short"]),
    "STRIPE_SECRET_KEY": (LIVE, ["", "pk_live_1", "whsec_1", "acct_1"]),
    "STRIPE_WEBHOOK_SECRET": (LIVE, ["", ",", "we_1", "sk_live_1", "whsec_1,we_2"]),
    "STRIPE_API_BASE": (LIVE, ADDRESSES),
    "STRIPE_METHODS": (LIVE, ["card,idael", "card;device", "Card"]),
    "PAYPAL_CLIENT_ID": (PAYPAL, ["", " "]),
    "PAYPAL_SECRET": (PAYPAL, ["", " "]),
    "PAYPAL_WEBHOOK_ID": (PAYPAL, ["", " ", ","]),
    "PAYPAL_API_BASE": (PAYPAL, ADDRESSES),
    "BTCPAY_URL": (BTCPAY, [*ADDRESSES, "https://btcpay.example.com?x=1"]),
    "BTCPAY_STORE_ID": (BTCPAY, ["", " "]),
    "BTCPAY_API_KEY": (BTCPAY, ["", " "]),
    "BTCPAY_WEBHOOK_SECRET": (BTCPAY, ["", " ", ","]),
    "NOWPAYMENTS_API_KEY": (NOWPAYMENTS, ["", " "]),
    "NOWPAYMENTS_IPN_SECRET": (NOWPAYMENTS, ["", " ", ","]),
    "NOWPAYMENTS_API_BASE": (NOWPAYMENTS, ADDRESSES),
    "SANDBOX": (LIVE, ["perhaps", "on", "force", "2"]),
    "MAIL_URL": (LIVE, [
        "", "mail.example.com", "smpt://mail.example.com", "smtp://", f"smtps://u:{SECRET}@", "smtp://mail.example.com:abc",
        f"smtp://u:{SECRET}#1@mail.example.com", f"smtp://u:{SECRET}/1@mail.example.com", "smtp://mail.example.com/x",
        "smtp://u@mail.example.com", "smtp://mail example.com",
    ]),
    "MAIL_FROM": (LIVE, ["billing", "Acme <pay@acme.example>", "a@b.example,c@d.example", "@acme.example", "pay@", "päy@acme.example"]),
    "BANK_ACCOUNTS": (BANK, [
        ";", "x", "EUR | IE29 AIBK 9311 5212 3456 78", ACCOUNT.replace("IE29", "IE28"), ACCOUNT.replace("EUR", "eur"),
        ACCOUNT.replace("EUR", "XYZ"), ACCOUNT.replace("AIBKIE2DXXX", "AIB"), f"{ACCOUNT}; {ACCOUNT}", ACCOUNT.replace("Acme Ltd", "A" * 71),
        ACCOUNT.replace("IE29 AIBK 9311 5212 3456 78", "12345678"), "USD | 1 | CMFGUS33XXX | Acme Ltd | CFSB",
        "USD | 026073151 8310567890 | CMFGUS33XXX | Acme Ltd | CFSB",
    ]),
    "FX_URL": (GIVEN, ADDRESSES),
    "VIES_URL": (GIVEN, ADDRESSES),
    "VAT_RATES_FILE": (GIVEN, ["/nowhere/rates.csv", "/etc", __file__]),
    "REVERSE_CHARGE_UNVERIFIED": (GIVEN, ["perhaps", "2"]),
    "REFUND_FOUR_EYES": (GIVEN, [*NUMBERS, "101"]),
    "STAFF_DAILY_LIMIT": (GIVEN, [*NUMBERS, "1001"]),
    "REFUND_UNUSED_DAYS": (GIVEN, [*NUMBERS, "366"]),
    "SELLER_BRAND": (LIVE, [LONG]),
    "SELLER_LEGAL_NAME": (LIVE, ["", " ", LONG, "Acme\nLtd"]),
    "SELLER_STREET": (LIVE, ["", " ", LONG]),
    "SELLER_POSTCODE": (LIVE, [LONG, "D02\tAF30"]),
    "SELLER_CITY": (LIVE, ["", " ", LONG]),
    "SELLER_COUNTRY": (LIVE, ["", "Ireland", "ie", "UK", "EL", "XX", "I", "Irland"]),
    "SELLER_VAT_ID": (LIVE, ["DE136695976", "IE6388047X", "12345"]),
    "SELLER_REGISTER": (LIVE, [LONG]),
    "SELLER_EMAIL": (LIVE, ["", " ", "pay", "pay@", "Acme <pay@acme.example>"]),
    "SELLER_WEBSITE": (LIVE, ["ftp://acme.example", "acme example", "javascript:alert(1)", LONG]),
    "SELLER_LOCALE": (LIVE, ["xx", "EN", "en_US", "de_DE"]),
    "SELLER_TIMEZONE": (LIVE, ["Dublin", "Europe/Dublinn", "GMT+1"]),
    "SELLER_MARK": (LIVE, ["/nowhere/mark.svg", "/etc", __file__]),
    "SELLER_ACCENT": (LIVE, ["redd", "red", "url(x)", "#12345", "light-dark(red)", "light-dark(red, blu)", "red; } body { display: none", "inherit"]),
}  # fmt: skip
ANYTHING_GOES = {"PAYPAL_MERCHANT_ID": "a wrong one is found when the first payment is looked at: PayPal alone knows it"}
RIGHT: dict[str, list[str]] = {
    "DATABASE_URL": ["postgres://h/x", "postgresql:///x?host=/tmp", "postgresql://h1:1,h2/x?target_session_attrs=read-write", " postgresql://h/x "],
    "BASE_URL": ["https://billing.example.com/", "https://BILLING.example.com:443", "https://billing.example.com:8443", "https://xn--mnchen-3ya.example"],
    "HOST": ["0.0.0.0", "::1", "localhost", "my-machine.example"],
    "TRUSTED_PROXIES": ["127.0.0.1", "10.0.0.0/24, fd00::/8"],
    "STRIPE_SECRET_KEY": ["sk_live_1", "rk_live_1", "sk_org_live_1", " sk_live_1 "],
    "STRIPE_WEBHOOK_SECRET": ["whsec_1,whsec_2", "whsec_1,"],
    "MAIL_URL": ["smtp://mail.example.com", "smtps://u:p%40%2F@mail.example.com:465", "smtp://192.0.2.1/"],
    "SELLER_ACCENT": ["#2447a6", "#FFF", "oklch(48% .17 262)", "light-dark(oklch(48% .17 262), oklch(76% .115 262))", "light-dark(#fff, rgb(1, 2, 3))"],
    "SELLER_WEBSITE": ["acme.example", "https://acme.example/hosting", ""],
    "REVERSE_CHARGE_UNVERIFIED": ["on", "OFF", "Yes"],
}  # fmt: skip


def start(environ: dict[str, str]) -> config.Settings:
    """What every start does with its environment before it touches the database."""
    config.port(environ)
    config.host(environ)
    settings = config.load(environ)
    try:
        tax.use(settings.vat_rates_file)
    except tax.RatesRefused as refused:
        raise config.ConfigError(str(refused)) from None
    return settings


@pytest.fixture(autouse=True)
def _own_rates() -> Iterator[None]:
    yield
    tax.use("")


CASES = [(name, base, value) for name, (base, values) in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "base", "value"), CASES, ids=[f"{name}={value[:40]!a}" for name, _, value in CASES])
def test_a_wrong_value_stops_the_start_with_a_sentence_that_names_it(name: str, base: dict[str, str], value: str):
    with pytest.raises(config.ConfigError) as refused:
        start({**base, name: value})
    said = str(refused.value)
    assert name in said
    assert re.search(r"[.?]$", said)
    assert len(said.splitlines()) == 1
    assert SECRET not in said
    assert not re.search(r"Error|Exception|Traceback|invalid literal|None\b", said), "in words, not in Python's"


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_taken(name: str):
    for value in RIGHT[name]:
        assert start({**LIVE, name: value})


def test_every_setting_is_in_the_table():
    documented = set(re.findall(r"^#([A-Z][A-Z_]+)=", (Path(__file__).parent.parent / ".env.example").read_text(), re.MULTILINE))
    assert documented == {*WRONG, *ANYTHING_GOES}


def test_values_are_kept_as_they_are_meant():
    settings = start({**LIVE, "BASE_URL": "HTTPS://Billing.Example.com:443/", "STRIPE_SECRET_KEY": " sk_live_1\n"})
    assert (settings.base_url, settings.host) == ("https://billing.example.com", "billing.example.com")
    assert settings.stripe_secret_key == "sk_live_1"
    assert config.host({"HOST": "::1"}) == "::1"


def test_of_several_servers_the_one_that_answers_is_used():
    """As libpq's addresses name them; by SQLAlchemy for the app, by psycopg for the start."""
    server = make_url(os.environ["TEST_DATABASE_URL"])
    place = str(server.query.get("host") or server.host)
    given = f"postgresql://{server.username}@127.0.0.1:1,{quote(place, safe='')}:{server.port or 5432}/{server.database}"
    url = config.load({**GIVEN, "DATABASE_URL": f"{given}?connect_timeout=5"}).database_url
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
    with psycopg.connect(url.replace("+psycopg", "", 1)) as plain:
        assert plain.execute("select 1").fetchone() == (1,)


SHAPES = [LIVE, PAYPAL, BTCPAY, NOWPAYMENTS, BANK, {**GIVEN, **SELLER, "SANDBOX": "off"}]


@pytest.mark.parametrize("base", SHAPES)
def test_outside_the_sandbox_nothing_is_the_demos(base: dict[str, str]):
    settings, demo = start(base), config.Seller()
    assert not settings.sandbox
    for entry in fields(demo):
        ours, theirs = getattr(settings.seller, entry.name), getattr(demo, entry.name)
        assert ours != theirs or entry.name in {"accent", "locale"}, entry.name
    examples = {account.number for account in config.read_accounts(config.DEMO_ACCOUNTS)}
    assert not examples & {account.number for account in settings.bank_accounts}
    assert "northbyte" not in settings.mail_from
    assert settings.vies_url == config.VIES


@pytest.mark.parametrize("name", sorted(SELLER))
@pytest.mark.parametrize("base", SHAPES)
def test_outside_the_sandbox_each_field_of_an_invoice_is_asked_for(base: dict[str, str], name: str):
    with pytest.raises(config.ConfigError, match=f"who sells: {name} is missing"):
        start({other: value for other, value in base.items() if other != name})
