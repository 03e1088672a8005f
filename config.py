"""Settings. The only module that reads the environment; `.env.example` documents every name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

PROJECT: Final = Path(__file__).resolve().parent
KEPT: Final = ("DATABASE_URL", "SECRET_KEY")
SECRET_BYTES: Final = 32
STRIPE_API: Final = "https://api.stripe.com"
ECB_FEED: Final = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
SELLER_EMAIL: Final = "billing@northbyte.example"
_ON: Final = frozenset({"1", "on", "true", "yes"})
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
    base_url: str = "http://localhost:8000"
    stripe_secret_key: str = ""
    stripe_webhook_secret: str = ""
    stripe_api_base: str = STRIPE_API
    sandbox: bool = True
    mail_url: str = ""
    mail_from: str = SELLER_EMAIL
    fx_url: str = ECB_FEED
    fx_spread_bp: int = 0
    vat_point: str = "on_supply"
    seller: Seller = field(default_factory=Seller)
    mark: str = ""
    currencies: tuple[str, ...] = ("EUR", "USD", "PLN", "GBP", "CHF", "CZK", "SEK", "NOK", "DKK", "HUF", "RON", "CAD", "AUD", "JPY", "KWD")
    testing: bool = False

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


def environment() -> dict[str, str]:
    """What is given, and beneath it what a local start keeps in `instance/`: its own server's address and its secret key."""
    return {**_kept(), **given()}


def given() -> dict[str, str]:
    """The process's environment, and beneath it the file `.env` of this folder. Empty values count as absent."""
    return {name: value for name, value in {**_read(PROJECT / ".env"), **os.environ}.items() if value}


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
    settings = Settings(
        database_url=_database(environ.get("DATABASE_URL", "")),
        secret_key=_secret(environ.get("SECRET_KEY", "")),
        base_url=environ.get("BASE_URL", f"http://localhost:{port(environ)}").rstrip("/"),
        stripe_secret_key=environ.get("STRIPE_SECRET_KEY", ""),
        stripe_webhook_secret=environ.get("STRIPE_WEBHOOK_SECRET", ""),
        stripe_api_base=environ.get("STRIPE_API_BASE", STRIPE_API),
        sandbox=_sandbox(environ),
        mail_url=environ.get("MAIL_URL", ""),
        mail_from=environ.get("MAIL_FROM", environ.get("SELLER_EMAIL", SELLER_EMAIL)),
        fx_url=environ.get("FX_URL", ECB_FEED),
        seller=_seller(environ),
        mark=_mark(environ.get("SELLER_MARK", "")),
    )
    _refuse_contradictions(settings, environ)
    return settings


def port(environ: Mapping[str, str]) -> int:
    """The port of a local start. Raises `ConfigError`."""
    text = environ.get("PORT", "8000")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigError(f"PORT={text} is not a port: give a number from 1 to 65535.")
    return int(text)


def _database(url: str) -> str:
    if not url:
        raise ConfigError("DATABASE_URL is not set: start with bin/run, which brings its own PostgreSQL, or name a server.")
    for prefix in ("postgres://", "postgresql://", "postgresql+psycopg://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    raise ConfigError("DATABASE_URL must begin with postgresql://: the ledger's guarantees live in PostgreSQL (15 or newer).")


def _secret(key: str) -> str:
    if len(key.encode()) < SECRET_BYTES:
        raise ConfigError("SECRET_KEY needs at least 32 bytes: python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes one.")
    return key


def _sandbox(environ: Mapping[str, str]) -> bool:
    wish = environ.get("SANDBOX", "").lower()
    if wish not in _SANDBOX:
        raise ConfigError(f"SANDBOX={wish} is not understood: on, off, or force.")
    if wish in _ON and environ.get("STRIPE_SECRET_KEY"):
        raise ConfigError("SANDBOX is on beside a real processor: unset STRIPE_SECRET_KEY, or set SANDBOX=force if you mean it.")
    if not wish and not environ.get("STRIPE_SECRET_KEY") and environ.get("BASE_URL", "").startswith("https://"):
        raise ConfigError(
            "BASE_URL is public and no processor is configured: give STRIPE_SECRET_KEY, or SANDBOX=on for a demo, in which everybody pays with pretend money and reads every mail."
        )
    return wish in {*_ON, "force"} or (not wish and not environ.get("STRIPE_SECRET_KEY"))


def _seller(environ: Mapping[str, str]) -> Seller:
    given_fields = {entry.name: environ.get(f"SELLER_{entry.name.upper()}") for entry in fields(Seller)}
    return Seller(**{name: value for name, value in given_fields.items() if value})


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
    if settings.stripe_secret_key and not settings.stripe_webhook_secret:
        raise ConfigError("STRIPE_SECRET_KEY is set but STRIPE_WEBHOOK_SECRET is empty: payments could not be confirmed.")
    if not settings.base_url.startswith(("http://", "https://")):
        raise ConfigError("BASE_URL must begin with https:// (or http:// for a local start).")
    if settings.stripe_secret_key.startswith("sk_live_"):
        if not settings.secure:
            raise ConfigError("A live Stripe key needs BASE_URL with https://: customers come back to it after paying.")
        if settings.sandbox:
            raise ConfigError("A live Stripe key and the sandbox exclude each other: whoever has an account could give itself money.")
        if not environ.get("SELLER_LEGAL_NAME"):
            raise ConfigError("A live Stripe key needs SELLER_LEGAL_NAME and the other SELLER_ settings: the demo's company would stand on real invoices.")
