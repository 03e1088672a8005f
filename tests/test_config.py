"""Settings: what is given wins, what is missing or contradictory stops the start with one sentence."""

import re
from pathlib import Path

import pytest

import config

GIVEN = {"DATABASE_URL": "postgresql://localhost/x", "SECRET_KEY": "k" * 32}
STRIPE = {**GIVEN, "STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
PAYPAL = {**GIVEN, "PAYPAL_CLIENT_ID": "c", "PAYPAL_SECRET": "s", "PAYPAL_WEBHOOK_ID": "WH-1", "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com"}
LIVE = {**STRIPE, "STRIPE_SECRET_KEY": "sk_live_1", "BASE_URL": "https://billing.example.com", "SELLER_LEGAL_NAME": "Acme Ltd"}


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
        **STRIPE, "PAYPAL_CLIENT_ID": "c", "PAYPAL_SECRET": "paypal-secret", "PAYPAL_WEBHOOK_ID": "w",
        "BTCPAY_URL": "https://b.example", "BTCPAY_STORE_ID": "s", "BTCPAY_API_KEY": "btcpay-key",
        "BTCPAY_WEBHOOK_SECRET": "btcpay-secret", "NOWPAYMENTS_API_KEY": "now-key", "NOWPAYMENTS_IPN_SECRET": "now-secret",
        "SECRET_KEY_FALLBACKS": "f" * 40, "DATABASE_URL": "postgresql://u:data%40base@h/x",
        "DATABASE_OWNER_URL": "postgresql://u:owner-pw@h/x", "MAIL_URL": "smtp://u:mail-pw@h:587",
        "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com", "NOWPAYMENTS_API_BASE": "https://n.example",
        "SELLER_LEGAL_NAME": "Acme", "BASE_URL": "https://x.example",
    })  # fmt: skip
    hidden = set(config.secrets_of(settings))
    assert {"paypal-secret", "btcpay-key", "btcpay-secret", "now-key", "now-secret", "f" * 40, "k" * 32, "sk_test_1", "whsec_1"} <= hidden
    assert {"data@base", "data%40base", "owner-pw", "mail-pw"} <= hidden


def test_a_processor_switches_the_sandbox_off_unless_forced():
    assert not config.load(STRIPE).sandbox
    assert config.load({**STRIPE, "SANDBOX": "force"}).sandbox
    assert not config.load({**GIVEN, "SANDBOX": "off"}).sandbox
    assert config.load({**GIVEN, "BASE_URL": "https://demo.example.com", "SANDBOX": "on"}).sandbox


def test_the_seller_is_what_the_environment_says():
    settings = config.load({**LIVE, "SELLER_CITY": "Gdańsk", "SELLER_EMAIL": "pay@acme.example"})
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
        ({**LIVE, "SELLER_LEGAL_NAME": ""}, "needs SELLER_LEGAL_NAME"),
        ({**LIVE, "SANDBOX": "force"}, "live Stripe key and the sandbox exclude each other"),
        ({**GIVEN, "BASE_URL": "https://billing.example.com"}, "BASE_URL is public and no processor is configured"),
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
    (folder / ".env").write_text("# mail\nexport MAIL_URL='smtp://file:25'\nSECRET_KEY=file=key\nDATABASE_URL=\n")
    monkeypatch.setenv("MAIL_URL", "smtp://given:25")
    found = config.environment()
    assert found["MAIL_URL"] == "smtp://given:25"
    assert found["SECRET_KEY"] == "file=key"
    assert found["DATABASE_URL"] == "postgresql://kept/x"
    assert "DATABASE_URL" not in config.given()


def test_a_clone_without_files_has_only_its_environment(folder):
    assert not {"DATABASE_URL", "SECRET_KEY"} & set(config.environment())


def test_every_name_that_is_read_stands_in_the_example():
    documented = (Path(__file__).parent.parent / ".env.example").read_text()
    source = Path(config.__file__).read_text()
    names = set(re.findall(r'"([A-Z][A-Z_]{3,})"', source))
    assert names
    assert [name for name in sorted(names) if f"#{name}=" not in documented] == []
