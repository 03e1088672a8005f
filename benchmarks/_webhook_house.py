"""The house as a web worker of `webhooks.py` loads it: as `wsgi.py` makes it, but PayPal's certificates are of the benchmark's own authority."""

import os
from pathlib import Path

import config
from app import create_app, gateways
from app.gateways.paypal import Certificates, PayPal
from app.web.server import Server

settings = config.load(config.environment())
app = create_app(settings)
pretend = Path(os.environ["PAYPAL_AUTHORITY"])
chain, roots = (pretend / "chain").read_bytes(), (pretend / "roots").read_bytes()
certificates = Certificates(frozenset({"api.sandbox.paypal.com"}), lambda _: chain, roots)
paypal = PayPal(settings.paypal_client_id, settings.paypal_secret, settings.paypal_webhook_id, settings.paypal_api_base, settings.paypal_merchant_id, certificates)
gateways.use(gateways.build(settings, app.extensions["sandbox_processor"]) | {"paypal": paypal})
server = Server(app.wsgi_app, threads=settings.web_threads, body_timeout_s=settings.request_timeout_s)
