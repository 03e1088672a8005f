"""Settings. The only module that reads the environment; `.env.example` documents every name."""

import difflib
import ipaddress
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from zoneinfo import available_timezones

from babel.core import get_global
from stdnum import get_cc_module, iban

PROJECT: Final = Path(__file__).resolve().parent
KEPT: Final = ("DATABASE_URL", "SECRET_KEY")
SECRET_BYTES: Final = 32
METRICS_TOKEN_BYTES: Final = 16
STRIPE_API: Final = "https://api.stripe.com"
PAYPAL_API: Final = "https://api-m.paypal.com"
NOWPAYMENTS_API: Final = "https://api.nowpayments.io"
PAYPAL_TEST_APIS: Final = ("https://api-m.sandbox.paypal.com", "https://api.sandbox.paypal.com")
NOWPAYMENTS_TEST_API: Final = "https://api-sandbox.nowpayments.io"
STRIPE_LIVE_KEYS: Final = ("sk_live_", "rk_live_")
STRIPE_TEST_KEYS: Final = ("sk_test_", "rk_test_")
STRIPE_METHODS: Final = (
    *("card", "device", "ideal", "bancontact", "eps", "blik", "p24", "twint", "swish"),
    *("mobilepay", "sepa_debit", "multibanco", "klarna"),
)
"""What STRIPE_METHODS may name."""
PROCESSORS: Final[Mapping[str, tuple[str, ...]]] = {
    "STRIPE_SECRET_KEY": ("STRIPE_WEBHOOK_SECRET",),
    "PAYPAL_CLIENT_ID": ("PAYPAL_SECRET", "PAYPAL_WEBHOOK_ID"),
    "BTCPAY_URL": ("BTCPAY_STORE_ID", "BTCPAY_API_KEY", "BTCPAY_WEBHOOK_SECRET"),
    "NOWPAYMENTS_API_KEY": ("NOWPAYMENTS_IPN_SECRET",),
}
"""What switches each processor on, and what it cannot do without then."""
VIES: Final = "https://ec.europa.eu/taxation_customs/vies/rest-api"
ECB_FEED: Final = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
CURRENCIES: Final = (
    *("EUR", "USD", "PLN", "GBP", "CHF", "CZK", "SEK", "NOK", "DKK", "HUF", "RON", "CAD", "AUD"),
    *("JPY", "KWD"),
)
"""What customers may pay in."""
LOCALES: Final = ("en_GB", "en", "de", "fr", "pl", "nl", "es", "it", "cs", "pt")
"""The languages a reader may choose."""
SELLER_EMAIL: Final = "billing@northbyte.example"
_ON: Final = frozenset({"1", "on", "true", "yes"})
_OFF: Final = frozenset({"0", "off", "false", "no"})
_OURS: Final = re.compile("(STRIPE|PAYPAL|BTCPAY|NOWPAYMENTS|SELLER|MAIL|BANK|REFUND|BASE|FX|SECRET|VIES|REVERSE|VAT)_|SANDBOX|DATABASE_URI")
"""How names of ours begin: of those, and of no others, a misspelt one is looked for."""
_MAY_BE_EMPTY: Final = ("SELLER_VAT_ID", "SELLER_REGISTER", "SELLER_WEBSITE", "SELLER_POSTCODE")
"""Set and empty these say that there is none; any other empty value counts as absent."""
_COUNTRIES: Final = frozenset(
    re.findall(
        "[A-Z]{2}",
        """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
    """,
    )
)
"""ISO 3166-1 alpha-2."""
_EU: Final = frozenset({
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
    *("IE", "IT", "LT", "LU", "LV", "MC", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
})  # fmt: skip
"""Where VAT IDs begin with the country's letters."""
_SANDBOX: Final = _ON | {"", "0", "off", "false", "no", "force"}


class ConfigError(ValueError):
    """A missing or contradictory setting, as one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Seller:
    """Who sells: printed on every document and shown in the frame."""

    brand: str = "Northbyte"
    legal_name: str = "Northbyte Hosting GmbH"
    street: str = "Turmstraße 12"
    postcode: str = "10559"
    city: str = "Berlin"
    country: str = "DE"
    vat_id: str = "DE301204584"
    register: str = "HRB 204587 B, Amtsgericht Charlottenburg"
    email: str = SELLER_EMAIL
    website: str = "northbyte.example"
    accent: str = ""
    locale: str = "en_GB"
    timezone: str = "Europe/Berlin"


@dataclass(frozen=True, slots=True)
class BankAccount:
    """An account of the seller for transfers in one currency. `number` is an IBAN, or, where a country has none, its own kind of number."""

    currency: str
    number: str
    bic: str
    holder: str
    bank: str

    @property
    def has_iban(self) -> bool:
        """Whether the number is an IBAN."""
        return is_iban(self.number)

    @property
    def routing(self) -> str:
        """The routing number (ABA) that an American account number begins with, or nothing."""
        bank, _, account = self.number.partition(" ")
        if self.has_iban or not (re.fullmatch("[0-9]{9}", bank) and account.strip()):
            return ""
        weights = (3, 7, 1) * 3
        checks = sum(int(digit) * weight for digit, weight in zip(bank, weights, strict=True)) % 10 == 0
        return bank if checks else ""

    @property
    def account_number(self) -> str:
        """The number without blanks and without the routing number."""
        return self.number.removeprefix(self.routing).replace(" ", "")


def is_iban(number: str) -> bool:
    """Whether this begins as an IBAN does: a country and two check digits."""
    return number[:2].isalpha() and number[2:4].isdigit()


DEMO_ACCOUNTS: Final = """
EUR | DE89 3704 0044 0532 0130 00 | COBADEFFXXX | Northbyte Hosting GmbH | Commerzbank, Köln;
USD | 026073150 8310567890 | CMFGUS33XXX | Northbyte Hosting GmbH | Community Federal Savings Bank, New York;
PLN | PL61 1090 1014 0000 0712 1981 2874 | WBKPPLPPXXX | Northbyte Hosting GmbH | Santander Bank Polska, Wrocław;
GBP | GB29 NWBK 6016 1331 9268 19 | NWBKGB2LXXX | Northbyte Hosting GmbH | National Westminster Bank, London
"""
"""Example numbers of the standards' own documents: valid in form, nobody's."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one top-up in one currency may be, in minor units."""

    minimum: int
    maximum: int
    maximum_balance: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the environment decides. Amounts in minor units, times in seconds."""

    database_url: str
    secret_key: str
    secret_key_fallbacks: tuple[str, ...] = ()
    database_owner_url: str = ""
    database_role: str = "client_area_app"
    base_url: str = "http://localhost:8000"
    stripe_secret_key: str = ""
    stripe_webhook_secret: str = ""
    stripe_api_base: str = STRIPE_API
    stripe_methods: str = ""
    paypal_client_id: str = ""
    paypal_secret: str = ""
    paypal_webhook_id: str = ""
    paypal_merchant_id: str = ""
    paypal_api_base: str = PAYPAL_API
    btcpay_url: str = ""
    btcpay_store_id: str = ""
    btcpay_api_key: str = ""
    btcpay_webhook_secret: str = ""
    nowpayments_api_key: str = ""
    nowpayments_ipn_secret: str = ""
    nowpayments_api_base: str = NOWPAYMENTS_API
    sandbox: bool = True
    mail_url: str = ""
    mail_from: str = SELLER_EMAIL
    fx_url: str = ECB_FEED
    fx_spread_bp: int = 0
    vies_url: str = ""
    reverse_charge_unverified: bool = False
    vat_rates_file: str = ""
    refund_four_eyes: int = 5
    staff_daily_limit: int | None = None
    refund_unused_days: int = 0
    seller: Seller = field(default_factory=Seller)
    bank_accounts: tuple[BankAccount, ...] = field(default_factory=lambda: read_accounts(DEMO_ACCOUNTS))
    mark: str = ""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    metrics_token: str = ""
    web_workers: int = 2
    web_threads: int = 3
    request_timeout_s: int = 20
    currencies: tuple[str, ...] = CURRENCIES
    testing: bool = False

    def bank_account(self, currency: str) -> BankAccount | None:
        """The account that takes transfers in this currency, or None."""
        return next((account for account in self.bank_accounts if account.currency == currency), None)

    @property
    def daily_limit_percent(self) -> int:
        """What one person of support may decide alone within 24 hours, in percent of the largest top-up."""
        return 2 * self.refund_four_eyes if self.staff_daily_limit is None else self.staff_daily_limit

    @property
    def owner_url(self) -> str:
        """The database as its tables' owner: for migrations and the rights of the app's role."""
        return self.database_owner_url or self.database_url

    @property
    def secure(self) -> bool:
        """Whether the public address is https, and cookies are therefore Secure."""
        return self.base_url.startswith("https://")

    @property
    def host(self) -> str:
        """Host and port of the public address."""
        return urlsplit(self.base_url).netloc


_current: Settings | None = None


def use(settings: Settings) -> None:
    """Make these the settings of this process."""
    global _current  # noqa: PLW0603 - one process serves one installation
    _current = settings


def current() -> Settings:
    """The settings of this process."""
    if _current is None:
        raise ConfigError("Settings were asked for before config.use() was called.")
    return _current


def secrets_of(settings: Settings) -> Iterator[str]:
    """What no log line may hold: every key, and the passwords within addresses."""
    yield from (settings.secret_key, *settings.secret_key_fallbacks)
    yield settings.stripe_secret_key
    yield from (secret.strip() for secret in settings.stripe_webhook_secret.split(","))
    yield from (settings.paypal_secret, settings.btcpay_api_key, settings.btcpay_webhook_secret)
    yield from (settings.nowpayments_api_key, settings.nowpayments_ipn_secret)
    for url in (settings.database_url, settings.database_owner_url, settings.mail_url):
        password = urlsplit(url).password or ""
        yield from (password, unquote(password))


def environment() -> dict[str, str]:
    """What is given, and beneath it what a local start keeps in `instance/`: its own server's address and its secret key."""
    return {**_kept(), **given()}


def given() -> dict[str, str]:
    """The process's environment, and beneath it the file `.env` of this folder.

    Empty values count as absent, but for those of the seller that say: there is none.
    """
    whole = {**_read(PROJECT / ".env"), **os.environ}
    return {name: value for name, value in whole.items() if value.strip() or name in _MAY_BE_EMPTY}


def _kept() -> dict[str, str]:
    files = {name: PROJECT / "instance" / name.lower() for name in KEPT}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def _read(file: Path) -> dict[str, str]:
    """Lines of ``NAME=value``, with or without quotes around the value; ``#`` begins a comment line."""
    if not file.exists():
        return {}
    lines = (line.strip().removeprefix("export ") for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from an environment. Raises `ConfigError` with one clear sentence."""
    environ = _Asked(environ)
    settings = Settings(
        database_url=_database(environ.get("DATABASE_URL", "")),
        secret_key=_secret(environ.get("SECRET_KEY", "")),
        secret_key_fallbacks=_old_secrets(environ),
        database_owner_url=_owner_database(environ.get("DATABASE_OWNER_URL", "")),
        database_role=_role(environ.get("DATABASE_ROLE", "client_area_app")),
        base_url=_base_url(environ.get("BASE_URL", f"http://localhost:{port(environ)}")),
        stripe_secret_key=environ.get("STRIPE_SECRET_KEY", ""),
        stripe_webhook_secret=environ.get("STRIPE_WEBHOOK_SECRET", ""),
        stripe_api_base=environ.get("STRIPE_API_BASE", STRIPE_API),
        stripe_methods=environ.get("STRIPE_METHODS", ""),
        paypal_client_id=environ.get("PAYPAL_CLIENT_ID", ""),
        paypal_secret=environ.get("PAYPAL_SECRET", ""),
        paypal_webhook_id=environ.get("PAYPAL_WEBHOOK_ID", ""),
        paypal_merchant_id=environ.get("PAYPAL_MERCHANT_ID", ""),
        paypal_api_base=environ.get("PAYPAL_API_BASE", PAYPAL_API).rstrip("/"),
        btcpay_url=environ.get("BTCPAY_URL", "").rstrip("/"),
        btcpay_store_id=environ.get("BTCPAY_STORE_ID", ""),
        btcpay_api_key=environ.get("BTCPAY_API_KEY", ""),
        btcpay_webhook_secret=environ.get("BTCPAY_WEBHOOK_SECRET", ""),
        nowpayments_api_key=environ.get("NOWPAYMENTS_API_KEY", ""),
        nowpayments_ipn_secret=environ.get("NOWPAYMENTS_IPN_SECRET", ""),
        nowpayments_api_base=environ.get("NOWPAYMENTS_API_BASE", NOWPAYMENTS_API).rstrip("/"),
        sandbox=_sandbox(environ),
        mail_url=environ.get("MAIL_URL", ""),
        mail_from=environ.get("MAIL_FROM", environ.get("SELLER_EMAIL", SELLER_EMAIL)),
        fx_url=environ.get("FX_URL", ECB_FEED),
        vies_url=_vies(environ),
        vat_rates_file=environ.get("VAT_RATES_FILE", ""),
        reverse_charge_unverified=_yes(environ, "REVERSE_CHARGE_UNVERIFIED"),
        refund_four_eyes=_percent(environ.get("REFUND_FOUR_EYES", "5")),
        staff_daily_limit=_daily_limit(environ.get("STAFF_DAILY_LIMIT", "")),
        refund_unused_days=_days(environ.get("REFUND_UNUSED_DAYS", "0")),
        seller=_seller(environ),
        bank_accounts=_bank_accounts(environ),
        mark=_mark(environ.get("SELLER_MARK", "")),
        trusted_proxies=_proxies(environ.get("TRUSTED_PROXIES", "")),
        metrics_token=_metrics_token(environ.get("METRICS_TOKEN", "")),
        web_workers=_count(environ, "WEB_WORKERS", 2, 64),
        web_threads=_count(environ, "WEB_THREADS", 3, 64),
        request_timeout_s=_count(environ, "REQUEST_TIMEOUT", 20, 60),
    )
    _refuse_misspelt(environ)
    _refuse_contradictions(settings, environ)
    return settings


def port(environ: Mapping[str, str]) -> int:
    """The port of a local start. Raises `ConfigError`."""
    text = environ.get("PORT", "8000")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigError(f"PORT={text} is not a port: give a number from 1 to 65535.")
    return int(text)


def host(environ: Mapping[str, str]) -> str:
    """The address or name that a local start listens on. Raises `ConfigError`."""
    text = environ.get("HOST", "127.0.0.1").strip()
    with suppress(ValueError):
        return str(ipaddress.ip_address(text))
    if text.replace(".", "").isdecimal() or not _is_host(text):
        said = f"HOST={text} is not an address: give 127.0.0.1, 0.0.0.0 for all of this machine's,"
        raise ConfigError(f"{said} or one of its names.")
    return text


def _is_host(name: str) -> bool:
    """Whether this can be the name of a host, in the letters that are sent."""
    label = "[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
    return bool(len(name) <= 253 and re.fullmatch(rf"{label}(\.{label})*", name, re.IGNORECASE))


def _count(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise ConfigError(f"{name}={text} is not possible: give a whole number from 1 to {most}.")
    return int(text)


def _proxies(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of TRUSTED_PROXIES. One that holds every address would believe every visitor."""
    networks = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            network = ip_network(entry)
        except ValueError:
            said = f"TRUSTED_PROXIES: {entry} is not an address or network, such as 10.0.0.0/24."
            raise ConfigError(said) from None
        if network.prefixlen == 0:
            said = f"TRUSTED_PROXIES={entry} would believe everybody: name your proxies alone."
            raise ConfigError(said)
        networks.append(network)
    return tuple(networks)


def _metrics_token(token: str) -> str:
    if token and len(token.encode()) < METRICS_TOKEN_BYTES:
        raise ConfigError(f"METRICS_TOKEN needs at least {METRICS_TOKEN_BYTES} bytes.")
    return token


def _database(url: str, name: str = "DATABASE_URL") -> str:
    """The address of a database as SQLAlchemy and libpq both read it: of several servers, their
    names and ports are written as parameters."""
    if not url:
        raise ConfigError("DATABASE_URL is not set: start with bin/run, which brings its own PostgreSQL, or name a server.")
    rest = next((url.removeprefix(scheme) for scheme in _DATABASES if url.startswith(scheme)), None)
    if rest is None:
        raise ConfigError(f"{name} must begin with postgresql://: the ledger's guarantees live in PostgreSQL (15 or newer).")
    parts = _split(f"postgresql://{rest}")
    user, at, servers = parts.netloc.rpartition("@")
    found = [_server(entry, name) for entry in servers.split(",")] if servers else []
    if parts.fragment or (rest and not parts.netloc and not rest.startswith(("/", "?"))):
        raise ConfigError(f"{name} is not an address of a database: {_CODES}")
    if len(found) > 1:
        hosts, ports = (",".join(words) for words in zip(*found, strict=True))
        query = f"host={hosts}&port={ports}" + (f"&{parts.query}" if parts.query else "")
        rest = f"{user}{at}{parts.path or '/'}?{query}"
    return f"postgresql+psycopg://{rest}"


_DATABASES: Final = ("postgres://", "postgresql://", "postgresql+psycopg://")
_CODES: Final = "write postgresql://user:password@server/name, and @ : / ? # in a password as %40 %3A %2F %3F %23."


def _server(entry: str, name: str) -> tuple[str, str]:
    """Host and port of one server."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@]*)(?::([^:]*))?", entry)
    if found is None:
        raise ConfigError(f"{name} is not an address of a database: {_CODES}")
    number = found[2] or "5432"
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        said = f"{name} names a port that is none: a port is a number from 1 to 65535;"
        raise ConfigError(f"{said} {_CODES}")
    return found[1].strip("[]"), number


def _owner_database(url: str) -> str:
    return _database(url, "DATABASE_OWNER_URL") if url else ""


def _role(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ConfigError(f"DATABASE_ROLE={name} is no name for a role: small letters, digits and _, up to 63.")
    if name.startswith("pg_") or name in {"postgres", "public", "none"}:
        raise ConfigError(f"DATABASE_ROLE={name} belongs to PostgreSQL: name a role for the app alone.")
    return name


def _secret(key: str) -> str:
    if len(key.encode()) < SECRET_BYTES:
        raise ConfigError("SECRET_KEY needs at least 32 bytes: python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes one.")
    return key


def _old_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Keys that signed before the present one, the newest first."""
    text = environ.get("SECRET_KEY_FALLBACKS", "")
    keys = tuple(key.strip() for key in text.split(",") if key.strip())
    if any(len(key.encode()) < SECRET_BYTES for key in keys):
        raise ConfigError("SECRET_KEY_FALLBACKS holds a key of less than 32 bytes: give whole old keys, by comma.")
    if environ.get("SECRET_KEY") in keys:
        raise ConfigError("SECRET_KEY stands among SECRET_KEY_FALLBACKS, too: give SECRET_KEY a new key.")
    return keys


def _sandbox(environ: Mapping[str, str]) -> bool:
    """Whether the pretend processor is offered: where somebody asks for it, or nothing is public."""
    wish = environ.get("SANDBOX", "").lower()
    if wish not in _SANDBOX:
        raise ConfigError(f"SANDBOX={wish} is not understood: on, off, or force.")
    real = next((name for name in PROCESSORS if environ.get(name)), "")
    if wish in _ON and real:
        raise ConfigError(f"SANDBOX is on beside a real processor: unset {real}, or set SANDBOX=force if you mean it.")
    public = is_public(environ.get("BASE_URL", ""))
    if not wish and not real and public and not environ.get("BANK_ACCOUNTS"):
        raise ConfigError(
            f"BASE_URL is public and no processor is configured: give {_either(list(PROCESSORS))}, or BANK_ACCOUNTS to take transfers alone, "
            "or SANDBOX=on for a demo, in which everybody pays with pretend money and reads every mail."
        )
    return wish in {*_ON, "force"} or not (wish or real or public)


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 365):
        raise ConfigError(f"REFUND_UNUSED_DAYS={text} is no number of days: give 0 (people decide every refund) to 365.")
    return int(text)


def _percent(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 100):
        raise ConfigError(f"REFUND_FOUR_EYES={text} is not a share: give whole percent of the largest top-up, from 0 (always two people) to 100.")
    return int(text)


def _daily_limit(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= 1000):
        raise ConfigError(f"STAFF_DAILY_LIMIT={text} is not a share: give whole percent of the largest top-up, from 0 (always two people) to 1000.")
    return int(text)


_NOBODY: Final = {
    "brand": "", "legal_name": "", "street": "", "postcode": "", "city": "", "country": "", "vat_id": "", "register": "", "email": "", "website": "",
}  # fmt: skip


def _seller(environ: Mapping[str, str]) -> Seller:
    """Who sells. The demo's company stands in for what is not given in the sandbox, and nowhere else."""
    names = {entry.name: f"SELLER_{entry.name.upper()}" for entry in fields(Seller)}
    found = {name: environ.get(variable) for name, variable in names.items()}
    entered = {name: value.strip() for name, value in found.items() if value or (value is not None and names[name] in _MAY_BE_EMPTY)}
    seller = Seller(**({} if _sandbox(environ) else _NOBODY) | entered)
    if "timezone" not in entered:
        seller = replace(seller, timezone=_zone_of(seller.country))
    elif seller.timezone not in available_timezones():
        said = f"SELLER_TIMEZONE={seller.timezone} is no time zone: give one of the IANA names, such as"
        raise ConfigError(f"{said} Europe/Berlin.")
    _refuse_unprintable(seller)
    if not seller.brand:
        seller = replace(seller, brand=seller.legal_name)
    if seller.locale not in LOCALES:
        raise ConfigError(f"SELLER_LOCALE={seller.locale} is not a language we speak: {_either(list(LOCALES))}.")
    if "country" in entered:
        _refuse_country(seller.country)
    if entered.get("vat_id") and seller.country:
        _refuse_vat_id(seller.country, seller.vat_id)
    return seller


LONGEST_OF_SELLER: Final = 200
"""Characters of one of the seller's fields on a document."""


def _refuse_unprintable(seller: Seller) -> None:
    """Refuse what would break a document or a page."""
    for entry in fields(Seller):
        if len(getattr(seller, entry.name)) > LONGEST_OF_SELLER:
            said = f"SELLER_{entry.name.upper()} is longer than {LONGEST_OF_SELLER} characters"
            raise ConfigError(f"{said}: it would not fit an invoice.")
    if seller.accent and not _is_colour(seller.accent):
        said = f"SELLER_ACCENT={seller.accent} is not a colour: give one, such as #2447a6, or two as"
        raise ConfigError(f"{said} light-dark(#2447a6, #9db5f5).")
    if seller.website:
        _refuse_host("SELLER_WEBSITE", re.sub("^https?://", "", seller.website).partition("/")[0])


_COLOUR: Final = (
    r"(?:#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})"
    r"|(?:oklch|oklab|lch|lab|rgba?|hsla?|hwb)\([0-9][0-9a-z.%,/ +-]*\))"
)
"""A colour of CSS in figures: a name might be misspelt."""


def _is_colour(text: str) -> bool:
    """Whether this is one colour of CSS, or two for light and dark."""
    pair = rf"{_COLOUR}|light-dark\(\s*{_COLOUR}\s*,\s*{_COLOUR}\s*\)"
    return re.fullmatch(pair, text, re.IGNORECASE) is not None


_CAPITAL_ZONES: Final[Mapping[str, str]] = {
    "CY": "Asia/Nicosia", "DE": "Europe/Berlin", "ES": "Europe/Madrid", "NZ": "Pacific/Auckland",
    "PT": "Europe/Lisbon", "UA": "Europe/Kyiv",
}  # fmt: skip
"""Where nearly everybody lives in one of a country's zones: that one is meant unless another is named."""


def _zone_of(country: str) -> str:
    """The legal zone of a country that has one. Raises `ConfigError` for one that has several.

    UTC for a country that is none: that is refused with a sentence of its own.
    """
    zones = [_CAPITAL_ZONES[country]] if country in _CAPITAL_ZONES else get_global("territory_zones").get(country, [])
    if len(zones) > 1:
        raise ConfigError(f"SELLER_TIMEZONE is not set, and {country} has several time zones: name yours, such as {zones[0]}. It decides the day and the year of your invoices.")
    return zones[0] if zones and country in _COUNTRIES else "UTC"


def _bank_accounts(environ: Mapping[str, str]) -> tuple[BankAccount, ...]:
    """The accounts of BANK_ACCOUNTS; without it the demo's in the sandbox and none elsewhere."""
    return read_accounts(environ.get("BANK_ACCOUNTS", DEMO_ACCOUNTS if _sandbox(environ) else ""))


def read_accounts(text: str) -> tuple[BankAccount, ...]:
    """Accounts as BANK_ACCOUNTS writes them: five fields with "|" between them, the next account after ";". Raises `ConfigError`."""
    accounts = tuple(_bank_account(entry) for entry in text.split(";") if entry.strip())
    if text and not accounts:
        raise ConfigError("BANK_ACCOUNTS holds no account: give one, or leave the setting out.")
    if len({account.currency for account in accounts}) < len(accounts):
        raise ConfigError("BANK_ACCOUNTS names two accounts for one currency: one is printed on the bills, so one is possible.")
    return accounts


def _bank_account(entry: str) -> BankAccount:
    parts = [part.strip() for part in entry.split("|")]
    if len(parts) != 5 or not all(parts):
        raise ConfigError(f"BANK_ACCOUNTS: “{entry.strip()}” must be currency | IBAN or account number | BIC | holder | bank.")
    currency, number, bic, holder, bank = parts
    compact = number.replace(" ", "").upper()
    if is_iban(compact) and not iban.is_valid(compact):
        raise ConfigError(f"BANK_ACCOUNTS: {number} is not an IBAN: a digit is wrong or missing.")
    if not re.fullmatch(r"[A-Z]{6}[A-Z0-9]{2}([A-Z0-9]{3})?", bic):
        raise ConfigError(f"BANK_ACCOUNTS: {bic} is not a BIC: 8 or 11 letters and digits, such as COBADEFFXXX.")
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise ConfigError(f"BANK_ACCOUNTS: {currency} is not a currency: three capital letters, such as EUR.")
    if currency not in CURRENCIES:
        known = ", ".join(CURRENCIES)
        raise ConfigError(f"BANK_ACCOUNTS: nobody can pay in {currency} here. There are {known}.")
    if not is_iban(compact):
        _refuse_account_number(number, bic[4:6])
    if len(holder) > LONGEST_HOLDER:
        raise ConfigError(f"BANK_ACCOUNTS: {holder} is longer than {LONGEST_HOLDER} characters, which banks cut off.")
    return BankAccount(currency, compact if is_iban(compact) else number, bic, holder, bank)


LONGEST_HOLDER: Final = 70
"""Characters of a holder's name in transfers (ISO 20022, and the codes of banking apps)."""


def _refuse_account_number(number: str, country: str) -> None:
    """Refuse what cannot be the number of an account without an IBAN, in the country of its bank."""
    if country in _EU:
        raise ConfigError(f"BANK_ACCOUNTS: {number} is not an IBAN, which every account in {country} has.")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 /-]{2,32})[A-Za-z0-9]", number):
        raise ConfigError(f"BANK_ACCOUNTS: {number} is not the number of an account: 4 to 34 letters and digits.")
    if country == "US" and not BankAccount("USD", number, "", "", "").routing:
        said = f"BANK_ACCOUNTS: {number} does not begin with a routing number (ABA): nine digits, the last"
        raise ConfigError(f"{said} of which proves them, a blank, and the number of the account.")


def _mark(path: str) -> str:
    """The seller's mark as SVG text; empty means ours."""
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"SELLER_MARK={path} cannot be read.") from None
    if not text.startswith("<svg") or "viewBox=" not in text or "<script" in text.lower():
        raise ConfigError(f"SELLER_MARK={path} must be one plain <svg> with a viewBox and without scripts.")
    return text


def _refuse_contradictions(settings: Settings, environ: Mapping[str, str]) -> None:
    _refuse_half_processors(environ)
    _refuse_address(settings.base_url)
    _refuse_methods(settings.stripe_methods)
    _refuse_keys(settings)
    _refuse_mail(settings, "MAIL_FROM" if "MAIL_FROM" in environ else "SELLER_EMAIL")
    _refuse_outside("FX_URL", settings.fx_url, "change the rates")
    if settings.vies_url:
        _refuse_outside("VIES_URL", settings.vies_url, "say which companies are registered")
    reason = live(settings)
    if reason:
        _refuse_unfit_for_live(settings, _LIVE[reason])
    if not settings.sandbox:
        _refuse_nobody(environ)


# What can move real money


_LIVE: Final[Mapping[str, str]] = {
    "stripe": "A Stripe key that is no test key",
    "paypal": "PayPal's live API",
    "btcpay": "A BTCPay Server that is not on this machine",
    "nowpayments": "NOWPayments' live API",
    "accounts": "BANK_ACCOUNTS at a public address",
    "public": "A public BASE_URL with the sandbox off",
}
"""The codes of `live`, as the beginning of a sentence."""


def live(settings: Settings) -> str:
    """What can move real money here, as a code of `_LIVE`; "" where everything is provably for trying out.

    Whatever is not known to be a test is live: a key of an unknown shape, an address we do not know.
    """
    public = is_public(settings.base_url)
    processors = bool(settings.stripe_secret_key or settings.paypal_client_id or settings.btcpay_url or settings.nowpayments_api_key)
    found = {
        "stripe": _stripe_is_live(settings),
        "paypal": bool(settings.paypal_client_id) and _is_live_api(settings.paypal_api_base, PAYPAL_TEST_APIS),
        "btcpay": bool(settings.btcpay_url) and is_public(settings.btcpay_url),
        "nowpayments": bool(settings.nowpayments_api_key) and _is_live_api(settings.nowpayments_api_base, (NOWPAYMENTS_TEST_API,)),
        "accounts": public and any(account.number not in _example_numbers() for account in settings.bank_accounts),
        "public": public and not processors and not settings.sandbox,
    }
    return next((code for code, is_live in found.items() if is_live), "")


def live_because(settings: Settings) -> str:
    """The same as the beginning of a sentence for the operator."""
    reason = live(settings)
    return _LIVE[reason] if reason else ""


def is_public(url: str) -> bool:
    """Whether an address is anything but this machine's own. An empty one is no address."""
    host = _split(url).hostname or ""
    if not host or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _split(url: str) -> SplitResult:
    """The parts of an address; empty ones where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _stripe_is_live(settings: Settings) -> bool:
    key = settings.stripe_secret_key
    if not key or key.startswith(STRIPE_TEST_KEYS):
        return False
    return key.startswith(STRIPE_LIVE_KEYS) or is_public(settings.stripe_api_base)


def _is_live_api(base: str, tests: Collection[str]) -> bool:
    return base.rstrip("/").lower() not in tests and is_public(base)


def _example_numbers() -> frozenset[str]:
    return frozenset(account.number for account in read_accounts(DEMO_ACCOUNTS))


def _test_processor(settings: Settings) -> str:
    """The setting of a processor that takes test payments by its own word; one on this machine says nothing."""
    if settings.stripe_secret_key.startswith(STRIPE_TEST_KEYS) and is_public(settings.stripe_api_base):
        return "STRIPE_SECRET_KEY"
    if settings.paypal_client_id and settings.paypal_api_base.lower() in PAYPAL_TEST_APIS:
        return "PAYPAL_API_BASE"
    test = settings.nowpayments_api_key and settings.nowpayments_api_base.lower() == NOWPAYMENTS_TEST_API
    return "NOWPAYMENTS_API_BASE" if test else ""


def _refuse_unfit_for_live(settings: Settings, reason: str) -> None:
    if not settings.secure:
        raise ConfigError(f"{reason} needs BASE_URL with https://: customers come back to it after paying.")
    if settings.sandbox:
        raise ConfigError(f"{reason} and the sandbox exclude each other: whoever has an account could give itself money. Set SANDBOX=off.")
    if test := _test_processor(settings):
        raise ConfigError(f"{reason} and {test} of a test account exclude each other: whoever pays with a test card would get real services.")
    if not settings.mail_url:
        raise ConfigError(f"{reason} needs MAIL_URL: invoices, receipts and links for new passwords are sent by mail.")


def refuse_origins(settings: Settings, found: Collection[str], *, remove: str = "flask --app wsgi demo remove") -> None:
    """Refuse a database whose rows do not belong to these settings. Raises `ConfigError`.

    `found` are codes of the view `origins`, `remove` is the command that takes the tests out.
    """
    traces = [_TRACES[code] for code in _TRACES if code in found]
    if (reason := live_because(settings)) and traces:
        raise ConfigError(f"{reason} can move real money, and this database holds {_listed(traces)}: take that out with {remove}, or name a fresh database in DATABASE_URL.")
    if settings.sandbox and "live_money" in found:
        raise ConfigError(
            "The sandbox is on, and this database holds real payments: with pretend money anybody could pay here. Set SANDBOX=off, or name another database in DATABASE_URL."
        )


_TRACES: Final[Mapping[str, str]] = {
    "demo_logins": "logins of the demo, whose password everybody knows",
    "test_payments": "payments of the sandbox or of a test key",
    "test_bank_lines": "bank statements of a test",
    "demo_seller": "documents of the demo's company",
}
"""Codes of the view `origins` that no live start goes with, in words."""


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# Settings that would be taken without a word


class _Asked(Mapping[str, str]):
    """An environment that knows which names it was asked for: those are the settings there are.

    Blanks around a value are not part of it, and one of blanks alone is absent.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        value = self._environ[name].strip()
        if any(unicodedata.category(char) == "Cc" for char in value):
            raise ConfigError(f"{name} holds a line break or another control character: write it on one line.")
        if not value and name not in _MAY_BE_EMPTY:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def _refuse_misspelt(environ: _Asked) -> None:
    """Refuse a name that is nearly one of ours. Names of other programs that only begin alike are left alone."""
    for names in PROCESSORS.values():
        environ.names.update(names)
    for name in sorted(set(environ) - environ.names):
        if _OURS.match(name) and (close := difflib.get_close_matches(name, environ.names, 2, 0.76)):
            raise ConfigError(f"{name} is no setting. Did you mean {' or '.join(close)}? Rename it, or unset it.")


def _base_url(text: str) -> str:
    """BASE_URL as browsers write a page's origin: small letters, and no port where it is the usual one."""
    parts = _split(text)
    if parts.path.strip("/") or parts.query or parts.fragment or not parts.netloc or not _has_port(text):
        return text
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(usual) if usual else parts.netloc}"


def _refuse_address(url: str) -> None:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _has_port(url):
        raise ConfigError("BASE_URL must begin with https:// (or http:// for a local start), then the host's name and a port where it needs one.")
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        shown = "BASE_URL" if parts.username is not None else f"BASE_URL={url}"
        raise ConfigError(f"{shown} must be {parts.scheme}:// and the host alone: the pages stand at its root.")
    _refuse_host("BASE_URL", parts.hostname)


def _refuse_host(name: str, hostname: str) -> None:
    """Refuse what no program can look up."""
    with suppress(ValueError):
        ipaddress.ip_address(hostname)
        return
    if hostname.replace(".", "").isdecimal() or not _is_host(hostname):
        with suppress(UnicodeError):
            hint = hostname.encode("idna").decode()
            if hint != hostname and _is_host(hint):
                raise ConfigError(f"{name}: write the host {hostname} as it is sent: {hint}.")
        raise ConfigError(f"{name}: {hostname} is not the name of a host, such as billing.example.com.")


def _refuse_methods(methods: str) -> None:
    for name in filter(None, (part.strip() for part in methods.split(","))):
        if name not in STRIPE_METHODS:
            close = difflib.get_close_matches(name, STRIPE_METHODS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(STRIPE_METHODS)}."
            raise ConfigError(f"STRIPE_METHODS names {name}, which is no method: {hint}")


def _refuse_keys(settings: Settings) -> None:
    """Refuse what Stripe's dashboard shows beside the key and the secret that are asked for."""
    if not settings.stripe_secret_key or not is_public(settings.stripe_api_base):
        return
    if not settings.stripe_secret_key.startswith(("sk_", "rk_")):
        raise ConfigError("STRIPE_SECRET_KEY is not a secret key: it begins with sk_ or rk_.")
    if not all(secret.startswith("whsec_") for secret in _by_comma(settings.stripe_webhook_secret)):
        raise ConfigError("STRIPE_WEBHOOK_SECRET is not the signing secret of a webhook: it begins with whsec_.")


def _by_comma(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _refuse_mail(settings: Settings, sender: str) -> None:
    for name, address in ((sender, settings.mail_from), ("SELLER_EMAIL", settings.seller.email)):
        if address and not re.fullmatch(r"[^@\s<>,;:\"()]+@[^@\s<>,;:\"()]+", address):
            raise ConfigError(f"{name}={address} is not an e-mail address: give one alone, such as billing@example.com.")
        if not address.isascii():
            raise ConfigError(f"{name}={address} has letters that mail servers refuse: a to z, and a domain as xn--….")
    if not settings.mail_url:
        return
    parts = _split(settings.mail_url)
    if parts.scheme not in _MAIL_SCHEMES or not parts.hostname:
        close = difflib.get_close_matches(parts.scheme, _MAIL_SCHEMES, 1) if parts.netloc else []
        hint = f" Did you mean {close[0]}://?" if close else ""
        raise ConfigError(f"MAIL_URL must begin with smtps://, smtp+starttls:// or smtp://, then the server's name.{hint}")
    if not _has_port(settings.mail_url):
        raise ConfigError(f"MAIL_URL names a port that is none: give a number from 1 to 65535 after the server's name. {_MAIL_CODES}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"MAIL_URL ends with the server and its port. {_MAIL_CODES}")
    if bool(parts.username) != bool(parts.password):
        raise ConfigError("MAIL_URL needs a user and a password before the @, or neither.")
    _refuse_host("MAIL_URL", parts.hostname)


_MAIL_CODES: Final = "In a password write @ : / ? # as %40 %3A %2F %3F %23."
_MAIL_SCHEMES: Final = ("smtp", "smtps", "smtp+starttls")


def _has_port(url: str) -> bool:
    """Whether the port of an address is one, or left out."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _refuse_outside(name: str, url: str, harm: str) -> None:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{name}={url} must be an address that begins with https://.")
    if parts.scheme == "http" and is_public(url):
        raise ConfigError(f"{name}={url} must begin with https://: on its way anybody could {harm}.")
    _refuse_odd_address(name, url)


def _refuse_odd_address(name: str, url: str) -> None:
    """Refuse what no program asks for, or would send along unseen."""
    parts = _split(url)
    if not _has_port(url):
        raise ConfigError(f"{name} names a port that is none: give a number from 1 to 65535 after the host.")
    if parts.username is not None or parts.fragment:
        raise ConfigError(f"{name} must hold no user, password or #: keys have settings of their own.")
    _refuse_host(name, parts.hostname or "")


def _vies(environ: Mapping[str, str]) -> str:
    """Where VAT IDs are asked about; empty in the sandbox, which knows every number whose form is right."""
    return environ.get("VIES_URL", "" if _sandbox(environ) else VIES).rstrip("/")


def _yes(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "off")
    if text.lower() not in {*_ON, *_OFF}:
        raise ConfigError(f"{name}={text} is not possible: give on or off.")
    return text.lower() in _ON


def _refuse_nobody(environ: Mapping[str, str]) -> None:
    """Outside the sandbox every field that an invoice needs by law is given, be it as none."""
    missing = [name for name in _NEEDED if not environ.get(name) and not (name in _MAY_BE_EMPTY and environ.get(name) is not None)]
    if missing:
        hint = " Without a VAT ID write SELLER_VAT_ID= and nothing after it." if "SELLER_VAT_ID" in missing else ""
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"Outside the sandbox invoices need to say who sells: {_listed(missing)} {verb} missing.{hint}")


_NEEDED: Final = (
    *("SELLER_LEGAL_NAME", "SELLER_STREET", "SELLER_POSTCODE", "SELLER_CITY"),
    *("SELLER_COUNTRY", "SELLER_VAT_ID", "SELLER_EMAIL"),
)


def _refuse_country(country: str) -> None:
    if country in _COUNTRIES:
        return
    code = country.upper() if country.upper() in _COUNTRIES else _country_named(country)
    code = {"UK": "GB", "EL": "GR"}.get(country.upper(), code)
    hint = f"write SELLER_COUNTRY={code}." if code else "two capital letters of ISO 3166, such as DE."
    raise ConfigError(f"SELLER_COUNTRY={country} is not a country's code: {hint}")


def _country_named(name: str) -> str:
    """The code of a country by its name in one of our languages."""
    from babel import Locale  # here, not above: only a mistake asks for it

    for language in LOCALES:
        for code, called in Locale.parse(language).territories.items():
            if called.casefold() == name.casefold() and code in _COUNTRIES:
                return str(code)
    return ""


def _refuse_vat_id(country: str, vat_id: str) -> None:
    """Check a VAT ID's form and digits against the seller's country; whether it is registered is not asked."""
    compact = re.sub(r"[\s./-]", "", vat_id).upper()
    prefix = {"GR": "EL", "MC": "FR"}.get(country, country)
    if country in _EU and not compact.startswith(prefix):
        raise ConfigError(f"SELLER_VAT_ID={vat_id} is not of SELLER_COUNTRY={country}: it must begin with {prefix}.")
    area = "eu" if country in _EU else {"LI": "ch"}.get(country, country.lower())
    forms = [form for form in (get_cc_module(area, name) for name in ("vat", "uid")) if form]
    if forms and not any(form.is_valid(compact) for form in forms):
        raise ConfigError(f"SELLER_VAT_ID={vat_id} is not a VAT ID of SELLER_COUNTRY={country}: a digit is wrong or missing.")


def _refuse_half_processors(environ: Mapping[str, str]) -> None:
    for switch, needed in PROCESSORS.items():
        missing = [name for name in needed if not _by_comma(environ.get(name, ""))]
        if environ.get(switch) and missing:
            raise ConfigError(f"{switch} is set but {missing[0]} is empty: payments could not be confirmed.")
        present = [name for name in needed if environ.get(name)]
        if present and not environ.get(switch):
            raise ConfigError(f"{present[0]} is set but {switch} is empty: set both, or neither.")
    for name in ("STRIPE_API_BASE", "PAYPAL_API_BASE", "BTCPAY_URL", "NOWPAYMENTS_API_BASE"):
        _refuse_plain_http(name, environ.get(name, ""))


def _refuse_plain_http(name: str, url: str) -> None:
    parts = _split(url)
    if url and not (parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and not is_public(url)))):
        shown = name if parts.username is not None else f"{name}={url}"
        raise ConfigError(f"{shown} must begin with https://, then a host: the key travels to it.")
    if url:
        _refuse_odd_address(name, url)
        if parts.query:
            raise ConfigError(f"{name} must end with its path: questions are added to it.")
