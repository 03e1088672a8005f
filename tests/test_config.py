"""Settings: what is given wins, what is missing or contradictory stops the start with one sentence."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import config
from app.gateways import stripe_methods

GIVEN = {"DATABASE_URL": "postgresql://localhost/x", "SECRET_KEY": "k" * 32}
SELLER = {
    "SELLER_LEGAL_NAME": "Acme Ltd",
    "SELLER_STREET": "1 High Street",
    "SELLER_POSTCODE": "D02 AF30",
    "SELLER_CITY": "Dublin",
    "SELLER_COUNTRY": "IE",
    "SELLER_VAT_ID": "IE6388047V",
    "SELLER_EMAIL": "pay@acme.example",
}
"""A company with everything that its invoices need."""
OUR_ACCOUNT = "EUR | IE29 AIBK 9311 5212 3456 78 | AIBKIE2DXXX | Acme Ltd | AIB, Dublin"
STRIPE = {**GIVEN, **SELLER, "STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
PAYPAL = {**GIVEN, **SELLER, "PAYPAL_CLIENT_ID": "c", "PAYPAL_SECRET": "s", "PAYPAL_WEBHOOK_ID": "WH-1", "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com"}
BTCPAY = {
    **GIVEN,
    **SELLER,
    "BTCPAY_URL": "https://btcpay.example.com",
    "BTCPAY_STORE_ID": "s",
    "BTCPAY_API_KEY": "k",
    "BTCPAY_WEBHOOK_SECRET": "w",
    "BASE_URL": "https://billing.example.com",
    "MAIL_URL": "smtps://mail.example.com",
}
BANK = {
    **GIVEN,
    **SELLER,
    "BANK_ACCOUNTS": OUR_ACCOUNT,
    "BASE_URL": "https://billing.example.com",
    "MAIL_URL": "smtps://mail.example.com",
}
LIVE = {**STRIPE, "STRIPE_SECRET_KEY": "sk_live_1", "BASE_URL": "https://billing.example.com", "MAIL_URL": "smtps://mail.example.com"}


PUBLIC = "https://billing.example.com"
LOOPBACK_API = "http://127.0.0.1:12111"
ACCOUNTS = config.read_accounts(OUR_ACCOUNT)


@pytest.mark.parametrize(
    ("reason", "facts"),
    [
        # Nothing but this machine.
        ("", {}),
        ("", {"sandbox": False}),
        ("", {"base_url": "http://127.0.0.1:8000"}),
        ("", {"base_url": "http://127.8.9.1:8000"}),
        ("", {"base_url": "http://[::1]:8000"}),
        ("", {"base_url": "http://shop.localhost:8000"}),
        ("", {"bank_accounts": ACCOUNTS}),
        ("", {"bank_accounts": ACCOUNTS, "sandbox": False}),
        # A public address without a processor: the sandbox is asked for, or transfers are real.
        ("", {"base_url": PUBLIC}),
        ("", {"base_url": "http://192.0.2.7:8000"}),
        ("public", {"base_url": PUBLIC, "sandbox": False}),
        ("public", {"base_url": "http://billing.example.com", "sandbox": False}),
        ("public", {"base_url": "http://192.0.2.7", "sandbox": False}),
        ("public", {"base_url": "http://127.0.0.1.example.com", "sandbox": False}),
        ("public", {"base_url": "http://localhost@billing.example.com", "sandbox": False}),
        ("public", {"base_url": "https://[2001:db8::1]", "sandbox": False}),
        ("accounts", {"base_url": PUBLIC, "bank_accounts": ACCOUNTS}),
        ("accounts", {"base_url": PUBLIC, "bank_accounts": ACCOUNTS, "sandbox": False}),
        ("accounts", {"base_url": PUBLIC, "bank_accounts": ACCOUNTS, "stripe_secret_key": "sk_test_1"}),
        # Stripe says by its key.
        ("", {"stripe_secret_key": "sk_test_1"}),
        ("", {"stripe_secret_key": "rk_test_1", "base_url": PUBLIC}),
        ("stripe", {"stripe_secret_key": "sk_live_1"}),
        ("stripe", {"stripe_secret_key": "rk_live_1"}),
        ("stripe", {"stripe_secret_key": "sk_org_live_1"}),
        ("stripe", {"stripe_secret_key": "anything"}),
        ("stripe", {"stripe_secret_key": "SK_TEST_1"}),
        ("stripe", {"stripe_secret_key": "pk_test_1"}),
        ("", {"stripe_secret_key": "anything", "stripe_api_base": LOOPBACK_API}),
        ("stripe", {"stripe_secret_key": "sk_live_1", "stripe_api_base": LOOPBACK_API}),
        ("stripe", {"stripe_secret_key": "rk_live_1", "stripe_api_base": LOOPBACK_API}),
        # PayPal and NOWPayments say by their address.
        ("", {"paypal_client_id": "c", "paypal_api_base": "https://api-m.sandbox.paypal.com"}),
        ("", {"paypal_client_id": "c", "paypal_api_base": LOOPBACK_API}),
        ("paypal", {"paypal_client_id": "c"}),
        ("paypal", {"paypal_client_id": "c", "paypal_api_base": "https://api.paypal.com"}),
        ("paypal", {"paypal_client_id": "c", "paypal_api_base": "https://proxy.example.com/sandbox.paypal.com"}),
        ("", {"paypal_api_base": "https://api.paypal.com"}),
        ("", {"nowpayments_api_key": "k", "nowpayments_api_base": "https://api-sandbox.nowpayments.io"}),
        ("", {"nowpayments_api_key": "k", "nowpayments_api_base": LOOPBACK_API}),
        ("nowpayments", {"nowpayments_api_key": "k"}),
        ("nowpayments", {"nowpayments_api_key": "k", "nowpayments_api_base": "https://coins.example.com"}),
        # BTCPay is whatever stands at its address.
        ("", {"btcpay_url": "http://127.0.0.1:23001"}),
        ("", {"btcpay_url": "http://localhost:23001"}),
        ("btcpay", {"btcpay_url": "https://btcpay.example.com"}),
        ("btcpay", {"btcpay_url": "https://testnet.demo.btcpayserver.org"}),
        ("btcpay", {"btcpay_url": "https://10.0.0.5"}),
        # One real one among tests is enough.
        ("paypal", {"paypal_client_id": "c", "stripe_secret_key": "sk_test_1"}),
        ("stripe", {"stripe_secret_key": "sk_live_1", "btcpay_url": "http://127.0.0.1:23001"}),
    ],
)
def test_what_is_not_provably_a_test_is_live(reason, facts):
    settings = config.Settings(database_url="x", secret_key="k" * 32, **facts)
    assert config.live(settings) == reason
    assert bool(config.live_because(settings)) == bool(reason)


def test_a_shop_that_takes_transfers_alone_is_live_without_a_word_about_the_sandbox():
    settings = config.load(BANK)
    assert (settings.sandbox, config.live(settings)) == (False, "accounts")
    assert config.live(config.load({**LIVE, "STRIPE_SECRET_KEY": "rk_live_1"})) == "stripe"


def test_outside_the_sandbox_everything_that_invoices_need_is_asked_for_at_once():
    with pytest.raises(config.ConfigError) as refused:
        config.load({name: value for name, value in LIVE.items() if not name.startswith("SELLER_")})
    said = str(refused.value)
    assert all(name in said for name in SELLER)
    assert "SELLER_VAT_ID= and nothing after it" in said


@pytest.mark.parametrize("name", sorted(SELLER))
def test_each_of_them_is_asked_for_by_name(name):
    with pytest.raises(config.ConfigError, match=f"who sells: {name} is missing"):
        config.load({other: value for other, value in LIVE.items() if other != name})


def test_outside_the_sandbox_nothing_of_the_demo_s_company_is_left():
    seller, demo = config.load(LIVE).seller, config.Seller()
    kept = {"accent", "locale"}
    same = [entry.name for entry in fields(demo) if getattr(seller, entry.name) == getattr(demo, entry.name)]
    assert set(same) <= kept
    assert (seller.brand, seller.register, seller.website) == ("Acme Ltd", "", "")
    assert config.load(LIVE).mail_from == "pay@acme.example"


@pytest.mark.parametrize(("environ", "vat_id"), [(LIVE, ""), (GIVEN, "")])
def test_set_and_empty_means_that_there_is_none(environ, vat_id):
    assert config.load({**environ, "SELLER_VAT_ID": "", "SELLER_REGISTER": ""}).seller.vat_id == vat_id
    assert config.load({**environ, "SELLER_REGISTER": ""}).seller.register == ""
    assert config.load(GIVEN).seller.vat_id == "DE301204584"


@pytest.mark.parametrize(
    ("country", "vat_id"),
    [
        ("DE", "DE 136 695 976"), ("GR", "EL094259216"), ("AT", "ATU13585627"), ("MC", "FR53000004605"),
        ("GB", "GB980780684"), ("CH", "CHE-100.155.212 MWST"), ("NO", "NO 995 525 828 MVA"),
        ("US", "12-3456789"), ("IE", ""),
    ],
)  # fmt: skip
def test_a_vat_id_of_the_seller_s_country_is_taken(country, vat_id):
    assert config.load({**LIVE, "SELLER_COUNTRY": country, "SELLER_VAT_ID": vat_id, "SELLER_TIMEZONE": "UTC"}).seller.vat_id == vat_id


@pytest.mark.parametrize(
    "environ",
    [
        {"MAIL_URL": "smtp://mail.example.com"},
        {"MAIL_URL": "smtp://me:secret@mail.example.com:587"},
        {"MAIL_URL": "smtps://me:secret@mail.example.com"},
        {"MAIL_URL": "smtp+starttls://me:secret@mail.example.com:587"},
        {"FX_URL": "http://127.0.0.1:9/"},
        {"STRIPE_CLI_PROFILE": "x"},
        {"MAILCHECK": "60"},
        {"MAIL": "/var/mail/root"},
        {"DATABASE_URL_OF_ANOTHER": "x"},
        {"BASE_IMAGE": "debian"},
        {"SECRET_SANTA": "x"},
    ],
)
def test_what_is_right_or_another_program_s_is_taken(environ):
    assert config.load({**GIVEN, **environ})


def test_the_methods_are_those_that_the_gateway_knows():
    assert set(config.STRIPE_METHODS) == set(stripe_methods.BY_NAME)


def test_a_database_that_does_not_go_with_the_settings_is_refused():
    live, sandbox, neither = config.load(LIVE), config.load(GIVEN), config.load(STRIPE)
    for traces in ({"demo_logins"}, {"test_payments"}, {"test_bank_lines"}, {"demo_seller"}):
        with pytest.raises(config.ConfigError, match="flask --app wsgi demo remove") as refused:
            config.refuse_origins(live, traces)
        assert "\n" not in str(refused.value)
        config.refuse_origins(sandbox, traces)
        config.refuse_origins(neither, traces)
    with pytest.raises(config.ConfigError, match="this database holds real payments"):
        config.refuse_origins(sandbox, {"live_money"})
    config.refuse_origins(live, {"live_money"})
    config.refuse_origins(neither, {"live_money"})


def test_a_local_start_needs_a_database_and_a_key_only():
    settings = config.load(GIVEN)
    assert settings.database_url == "postgresql+psycopg://localhost/x"
    assert settings.base_url == "http://localhost:8000"
    assert settings.sandbox
    assert not settings.secure


def test_keys_of_before_and_the_owner_of_the_tables_are_optional():
    settings = config.load(GIVEN)
    assert settings.secret_key_fallbacks == ()
    assert settings.owner_url == settings.database_url
    more = {"SECRET_KEY_FALLBACKS": f" {'a' * 40} ,{'b' * 40},", "DATABASE_OWNER_URL": "postgres://o@h/x"}
    settings = config.load({**GIVEN, **more, "DATABASE_ROLE": "second_app"})
    assert settings.secret_key_fallbacks == ("a" * 40, "b" * 40)
    assert settings.owner_url == "postgresql+psycopg://o@h/x"
    assert settings.database_role == "second_app"


def test_every_key_and_password_is_named_for_the_log_to_hide():
    settings = config.load({
        **STRIPE, "STRIPE_SECRET_KEY": "sk_live_1", "PAYPAL_CLIENT_ID": "c", "PAYPAL_SECRET": "paypal-secret", "PAYPAL_WEBHOOK_ID": "w",
        "BTCPAY_URL": "https://b.example", "BTCPAY_STORE_ID": "s", "BTCPAY_API_KEY": "btcpay-key",
        "BTCPAY_WEBHOOK_SECRET": "btcpay-secret", "NOWPAYMENTS_API_KEY": "now-key", "NOWPAYMENTS_IPN_SECRET": "now-secret",
        "SECRET_KEY_FALLBACKS": "f" * 40, "DATABASE_URL": "postgresql://u:data%40base@h/x",
        "DATABASE_OWNER_URL": "postgresql://u:owner-pw@h/x", "MAIL_URL": "smtp://u:mail-pw@h:587",
        "PAYPAL_API_BASE": "https://api-m.paypal.com", "NOWPAYMENTS_API_BASE": "https://n.example",
        "BASE_URL": "https://x.example",
    })  # fmt: skip
    hidden = set(config.secrets_of(settings))
    assert {"paypal-secret", "btcpay-key", "btcpay-secret", "now-key", "now-secret", "f" * 40, "k" * 32, "sk_live_1", "whsec_1"} <= hidden
    assert {"data@base", "data%40base", "owner-pw", "mail-pw"} <= hidden


def test_a_processor_switches_the_sandbox_off_unless_forced():
    assert not config.load(STRIPE).sandbox
    assert config.load({**STRIPE, "SANDBOX": "force"}).sandbox
    assert not config.load({**GIVEN, **SELLER, "SANDBOX": "off"}).sandbox
    assert config.load({**GIVEN, "BASE_URL": "https://demo.example.com", "SANDBOX": "on"}).sandbox


def test_the_seller_is_what_the_environment_says():
    settings = config.load({**LIVE, "SELLER_CITY": "Gdańsk"})
    assert (settings.seller.legal_name, settings.seller.city) == ("Acme Ltd", "Gdańsk")
    assert settings.mail_from == "pay@acme.example"
    assert settings.secure


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "DATABASE_URL is not set"),
        ({**GIVEN, "DATABASE_URL": "sqlite:///x.db"}, "DATABASE_URL must begin with postgresql://"),
        ({**GIVEN, "SECRET_KEY": ""}, "SECRET_KEY needs at least 32 bytes"),
        ({**GIVEN, "SECRET_KEY": "short"}, "SECRET_KEY needs at least 32 bytes"),
        ({**GIVEN, "SECRET_KEY_FALLBACKS": f"{'o' * 48},short"}, "holds a key of less than 32 bytes"),
        ({**GIVEN, "SECRET_KEY_FALLBACKS": "k" * 32}, "give SECRET_KEY a new key"),
        ({**GIVEN, "DATABASE_OWNER_URL": "mysql://x"}, "DATABASE_OWNER_URL must begin with"),
        ({**GIVEN, "DATABASE_ROLE": "Client Area"}, "DATABASE_ROLE=Client Area is no name"),
        ({**GIVEN, "PORT": "eighty"}, "PORT=eighty is not a port"),
        ({**GIVEN, "PORT": "70000"}, "PORT=70000 is not a port"),
        ({**GIVEN, "PORT": "８０００"}, "is not a port"),
        ({**GIVEN, "BASE_URL": "billing.example.com"}, "BASE_URL must begin with https://"),
        ({**GIVEN, "REFUND_UNUSED_DAYS": "366"}, "REFUND_UNUSED_DAYS=366 is no number of days"),
        ({**GIVEN, "STAFF_DAILY_LIMIT": "1001"}, "STAFF_DAILY_LIMIT=1001 is not a share"),
        ({**GIVEN, "STAFF_DAILY_LIMIT": "-1"}, "STAFF_DAILY_LIMIT=-1 is not a share"),
        ({**GIVEN, "SANDBOX": "perhaps"}, "SANDBOX=perhaps is not understood"),
        ({**STRIPE, "SANDBOX": "on"}, "SANDBOX is on beside a real processor"),
        ({**STRIPE, "STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_WEBHOOK_SECRET is empty"),
        ({**PAYPAL, "PAYPAL_WEBHOOK_ID": ""}, "PAYPAL_WEBHOOK_ID is empty"),
        ({**PAYPAL, "PAYPAL_CLIENT_ID": ""}, "PAYPAL_SECRET is set but PAYPAL_CLIENT_ID is empty"),
        ({**PAYPAL, "SANDBOX": "on"}, "unset PAYPAL_CLIENT_ID"),
        ({**PAYPAL, "PAYPAL_API_BASE": "http://api.example.com"}, "PAYPAL_API_BASE=http://api.example.com must begin with https://"),
        ({**PAYPAL, "PAYPAL_API_BASE": "https://api-m.paypal.com"}, "PayPal's live API needs BASE_URL with https://"),
        ({**GIVEN, "BTCPAY_URL": "https://btcpay.example.com"}, "BTCPAY_STORE_ID is empty"),
        ({**GIVEN, "NOWPAYMENTS_API_KEY": "k"}, "NOWPAYMENTS_IPN_SECRET is empty"),
        ({**LIVE, "BASE_URL": "http://billing.example.com"}, "needs BASE_URL with https://"),
        ({**LIVE, "SELLER_LEGAL_NAME": ""}, "SELLER_LEGAL_NAME is missing"),
        ({**LIVE, "MAIL_URL": ""}, "A Stripe key that is no test key needs MAIL_URL"),
        ({**LIVE, "SANDBOX": "force"}, "no test key and the sandbox exclude each other"),
        ({**LIVE, "STRIPE_SECRET_KEY": "rk_live_1", "SANDBOX": "force"}, "exclude each other"),
        ({**LIVE, "STRIPE_SECRET_KEY": "sk_new_1", "SANDBOX": "force"}, "exclude each other"),
        ({**BTCPAY, "SANDBOX": "force"}, "BTCPay Server that is not on this machine and the sandbox exclude"),
        ({**BTCPAY, "BASE_URL": "http://billing.example.com"}, "needs BASE_URL with https://"),
        ({**GIVEN, "BASE_URL": "https://billing.example.com"}, "BASE_URL is public and no processor is configured"),
        ({**GIVEN, "BASE_URL": "http://192.0.2.7:8000"}, "BASE_URL is public and no processor is configured"),
        ({**BANK, "SANDBOX": "on"}, "BANK_ACCOUNTS at a public address and the sandbox exclude"),
        ({**LIVE, **PAYPAL, "STRIPE_SECRET_KEY": "sk_live_1"}, "PAYPAL_API_BASE of a test account exclude each other"),
        ({**BTCPAY, **STRIPE, "BASE_URL": "https://a.example"}, "STRIPE_SECRET_KEY of a test account exclude"),
        ({**LIVE, "SELLER_COUNTRY": "Germany"}, "SELLER_COUNTRY=Germany is not a country's code: write SELLER_COUNTRY=DE"),
        ({**LIVE, "SELLER_COUNTRY": "Deutschland"}, "write SELLER_COUNTRY=DE"),
        ({**LIVE, "SELLER_COUNTRY": "de"}, "SELLER_COUNTRY=de is not a country's code: write SELLER_COUNTRY=DE"),
        ({**LIVE, "SELLER_COUNTRY": "UK"}, "write SELLER_COUNTRY=GB"),
        ({**LIVE, "SELLER_COUNTRY": "Atlantis"}, "two capital letters of ISO 3166"),
        ({**GIVEN, "SELLER_COUNTRY": "XX"}, "SELLER_COUNTRY=XX is not a country's code"),
        ({**LIVE, "SELLER_VAT_ID": "DE301204584"}, "SELLER_VAT_ID=DE301204584 is not of SELLER_COUNTRY=IE: it must begin with IE"),
        ({**LIVE, "SELLER_VAT_ID": "IE6388047W"}, "a digit is wrong or missing"),
        ({**LIVE, "SELLER_COUNTRY": "CH", "SELLER_VAT_ID": "CHE-123.456.780 MWST"}, "is not a VAT ID of SELLER_COUNTRY=CH"),
        ({**GIVEN, "MAIL_URL": "mail.example.com"}, "MAIL_URL must begin with smtps://"),
        ({**GIVEN, "MAIL_URL": "smpt://mail.example.com"}, "Did you mean smtp://"),
        ({**GIVEN, "MAIL_URL": "smtp://"}, "MAIL_URL must begin with"),
        ({**GIVEN, "MAIL_URL": "smtp://mail.example.com:smtp"}, "MAIL_URL names a port that is none"),
        ({**GIVEN, "MAIL_FROM": "not an address"}, "MAIL_FROM=not an address is not an e-mail address"),
        ({**GIVEN, "MAIL_FROM": "Acme <pay@acme.example>"}, "is not an e-mail address"),
        ({**STRIPE, "STRIPE_METHODS": "card,idael"}, "STRIPE_METHODS names idael, which is no method: did you mean ideal"),
        ({**STRIPE, "STRIPE_METHODS": "card, xyz"}, "STRIPE_METHODS names xyz, which is no method: there are card, device"),
        ({**GIVEN, "FX_URL": "ftp://rates.example/x"}, "FX_URL=ftp://rates.example/x must be an address"),
        ({**GIVEN, "FX_URL": "http://rates.example/x"}, "FX_URL=http://rates.example/x must begin with https://"),
        ({**GIVEN, "BASE_URL": "http://localhost:8000/billing"}, "BASE_URL=http://localhost:8000/billing must be http:// and the host alone"),
        ({**GIVEN, "BASE_URL": "http://localhost:99999"}, "BASE_URL must begin with"),
        ({**GIVEN, "BASE_URL": "http://[::1"}, "BASE_URL must begin with"),
        ({**GIVEN, "SELLER_LEGALNAME": "Acme"}, "SELLER_LEGALNAME is no setting. Did you mean SELLER_LEGAL_NAME"),
        ({**GIVEN, "STRIPE_SECRETKEY": "sk_live_1"}, "Did you mean STRIPE_SECRET_KEY"),
        ({**GIVEN, "PAYPAL_CLIENT_SECRET": "s"}, "Did you mean PAYPAL_SECRET or PAYPAL_CLIENT_ID"),
        ({**GIVEN, "MAIL_URI": "smtps://x"}, "Did you mean MAIL_URL"),
        ({**GIVEN, "BANK_ACCOUNT": "x"}, "Did you mean BANK_ACCOUNTS"),
        ({**GIVEN, "REFUND_FOUREYES": "x"}, "Did you mean REFUND_FOUR_EYES"),
        ({**GIVEN, "SANDBOXED": "off"}, "Did you mean SANDBOX"),
    ],
)
def test_a_missing_or_contradictory_setting_is_one_sentence(environ, sentence):
    with pytest.raises(config.ConfigError, match=sentence) as refused:
        config.load(environ)
    assert "\n" not in str(refused.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone and an environment that says nothing."""
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    for name in ("DATABASE_URL", "SECRET_KEY", "MAIL_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_environment_wins_over_the_file_and_the_file_over_what_is_kept(folder, monkeypatch):
    (folder / "instance").mkdir()
    (folder / "instance/database_url").write_text("postgresql://kept/x\n")
    (folder / "instance/secret_key").write_text("kept\n")
    (folder / ".env").write_text("# mail\nexport MAIL_URL='smtp://file:25'\nSECRET_KEY=file=key\nDATABASE_URL=\nSELLER_VAT_ID=\n")
    monkeypatch.setenv("MAIL_URL", "smtp://given:25")
    found = config.environment()
    assert found["MAIL_URL"] == "smtp://given:25"
    assert found["SECRET_KEY"] == "file=key"
    assert found["DATABASE_URL"] == "postgresql://kept/x"
    assert "DATABASE_URL" not in config.given()
    assert config.given()["SELLER_VAT_ID"] == ""


def test_a_clone_without_files_has_only_its_environment(folder):
    assert not {"DATABASE_URL", "SECRET_KEY"} & set(config.environment())


def test_every_name_that_is_read_stands_in_the_example():
    documented = (Path(__file__).parent.parent / ".env.example").read_text()
    source = Path(config.__file__).read_text()
    names = set(re.findall(r'"([A-Z][A-Z_]{3,})"', source))
    assert names
    assert [name for name in sorted(names) if f"#{name}=" not in documented] == []


def test_what_one_person_may_decide_alone_in_a_day_follows_the_limit_of_one_decision():
    assert config.load({**GIVEN, "REFUND_FOUR_EYES": "7"}).daily_limit_percent == 14
    assert config.load({**GIVEN, "STAFF_DAILY_LIMIT": "0"}).daily_limit_percent == 0
    assert config.load({**GIVEN, "STAFF_DAILY_LIMIT": "30"}).daily_limit_percent == 30
