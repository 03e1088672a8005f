"""Settings. The only module that reads the environment; `.env.example` documents every name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit


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
    vat_id: str = "DE301204587"
    register: str = "HRB 204587 B, Amtsgericht Charlottenburg"
    email: str = "billing@northbyte.example"
    website: str = "northbyte.example"


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
    stripe_api_base: str = "https://api.stripe.com"
    sandbox: bool = True
    mail_url: str = ""
    mail_from: str = "billing@northbyte.example"
    fx_url: str = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
    fx_spread_bp: int = 0
    vat_point: str = "on_supply"
    seller: Seller = field(default_factory=Seller)
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


_ROUND: Final = {"EUR": (5_00, 10_000_00, 50_000_00)}
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


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from an environment. Raises `ConfigError` with one clear sentence."""
    url = environ.get("DATABASE_URL", "")
    if not url:
        raise ConfigError("DATABASE_URL is not set: start with bin/run, which brings its own PostgreSQL, or name a server.")
    secret = environ.get("SECRET_KEY", "")
    if len(secret.encode()) < 32:
        raise ConfigError("SECRET_KEY needs at least 32 bytes: python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes one.")
    stripe_key = environ.get("STRIPE_SECRET_KEY", "")
    forced = environ.get("SANDBOX", "")
    sandbox = forced.lower() in {"1", "on", "true", "force"} if forced else not stripe_key
    if sandbox and stripe_key and forced.lower() != "force":
        raise ConfigError("SANDBOX is on beside a real processor: unset STRIPE_SECRET_KEY, or set SANDBOX=force if you mean it.")
    if stripe_key and not environ.get("STRIPE_WEBHOOK_SECRET"):
        raise ConfigError("STRIPE_SECRET_KEY is set but STRIPE_WEBHOOK_SECRET is empty: payments could not be confirmed.")
    return Settings(
        database_url=_driver(url),
        secret_key=secret,
        base_url=environ.get("BASE_URL", f"http://localhost:{environ.get('PORT', '8000')}").rstrip("/"),
        stripe_secret_key=stripe_key,
        stripe_webhook_secret=environ.get("STRIPE_WEBHOOK_SECRET", ""),
        stripe_api_base=environ.get("STRIPE_API_BASE", "https://api.stripe.com"),
        sandbox=sandbox,
        mail_url=environ.get("MAIL_URL", ""),
    )


def _driver(url: str) -> str:
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url
