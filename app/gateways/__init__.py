"""The gateways that are configured. One line each; not configured is not offered."""

from collections.abc import Mapping

import config
from app.gateways import sandbox
from app.gateways.bank import Bank
from app.gateways.base import Closer, Gateway, KeepsCards, Method, WayBack
from app.money import Money

_gateways: dict[str, Gateway] = {}


def build(settings: config.Settings, processor: sandbox.Processor) -> dict[str, Gateway]:
    """The gateways of these settings, real ones first, the bank last. `processor` is the pretend company behind the sandbox."""
    built: list[Gateway] = []
    if settings.stripe_secret_key:
        from app.gateways.stripe_cards import StripeWithCards  # here, not above: its SDK takes half a second to import

        built.append(StripeWithCards(settings.stripe_secret_key, settings.stripe_webhook_secret, settings.stripe_api_base, settings.stripe_methods))
    if settings.paypal_client_id:
        from app.gateways.paypal import PayPal

        built.append(PayPal(settings.paypal_client_id, settings.paypal_secret, settings.paypal_webhook_id, settings.paypal_api_base, settings.paypal_merchant_id))
    if settings.btcpay_url:
        from app.gateways.btcpay import BTCPay

        built.append(BTCPay(settings.btcpay_url, settings.btcpay_store_id, settings.btcpay_api_key, settings.btcpay_webhook_secret))
    if settings.nowpayments_api_key:
        from app.gateways.nowpayments import NOWPayments

        callback = f"{settings.base_url}/webhooks/nowpayments"
        built.append(NOWPayments(settings.nowpayments_api_key, settings.nowpayments_ipn_secret, callback, settings.nowpayments_api_base))
    if settings.sandbox:
        built.append(sandbox.Sandbox(processor))
    if settings.bank_accounts:
        built.append(Bank(settings.bank_accounts))
    return {gateway.name: gateway for gateway in built}


def use(gateways: Mapping[str, Gateway]) -> None:
    """Make these the gateways of this process."""
    _gateways.clear()
    _gateways.update(gateways)


def get(name: str) -> Gateway | None:
    """A configured gateway, or None."""
    return _gateways.get(name)


def keeper(name: str) -> KeepsCards | None:
    """A configured gateway whose processor keeps cards, or None."""
    found = _gateways.get(name)
    return found if isinstance(found, KeepsCards) else None


def closer(name: str) -> Closer | None:
    """A configured gateway that can close its pages, or None."""
    found = _gateways.get(name)
    return found if isinstance(found, Closer) else None


def closers() -> list[str]:
    """The names of the gateways that can close their pages."""
    return [name for name in _gateways if closer(name)]


def keepers() -> list[str]:
    """The names of the gateways whose processors keep cards."""
    return [name for name in _gateways if keeper(name)]


def pages() -> list[str]:
    """The origins of all pages to which a payer may be sent, each once."""
    return list(dict.fromkeys(page for gateway in _gateways.values() for page in gateway.pages))


def growing() -> list[str]:
    """The names of the gateways whose paid payments may still receive more."""
    return [gateway.name for gateway in _gateways.values() if gateway.grows]


def methods(country: str | None, amount: Money) -> list[Method]:
    """Every method of every gateway, each judged for this payer and amount; the ones that work come first."""
    found = [method for gateway in _gateways.values() for method in gateway.methods(country, amount)]
    return sorted(found, key=lambda method: bool(method.unavailable))


def method(gateway: str, name: str, amount: Money) -> Method | None:
    """The method of a payment that was started some time ago, None where it is not carried any more."""
    found = get(gateway)
    return next((one for one in found.methods(None, amount) if one.name == name), None) if found else None


def way_back(gateway: str, method: str) -> WayBack:
    """How a payment by this method goes back the way it came; never, where its gateway is not configured any more."""
    found = get(gateway)
    return found.way_back(method) if found else WayBack(0)
