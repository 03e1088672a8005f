"""Client Area. `create_app` builds the house; it is the only module that knows every other."""

from flask import Flask

import config
from app import cli, clock, db, gateways, logs, payments, refunds, tax, web
from app.blueprints import refunds as refunds_pages
from app.blueprints import services as services_pages
from app.blueprints.add_funds import add_funds
from app.blueprints.auth import auth
from app.blueprints.balance import balance
from app.blueprints.cards import cards
from app.blueprints.currency import currency
from app.blueprints.invoices import invoices
from app.blueprints.links import links
from app.blueprints.operations import operations
from app.blueprints.pay import pay
from app.blueprints.profile import profile
from app.blueprints.sandbox import sandbox
from app.blueprints.sandbox_mail import sandbox_mail
from app.blueprints.staff_bank import staff_bank
from app.blueprints.staff_disputes import staff_disputes
from app.blueprints.staff_held import staff_held
from app.blueprints.staff_home import staff_home
from app.blueprints.staff_refunds import staff_refunds
from app.blueprints.staff_vat import staff_vat
from app.blueprints.transactions import transactions
from app.blueprints.webhooks import webhooks
from app.sandbox_processor import PretendProcessor
from app.web import gate

BLUEPRINTS = (
    auth,
    invoices,
    balance,
    currency,
    cards,
    transactions,
    refunds_pages.pages,
    services_pages.pages,
    staff_home,
    staff_disputes,
    staff_vat,
    staff_held,
    staff_bank,
    staff_refunds,
    profile,
    add_funds,
    pay,
    links,
    webhooks,
    sandbox,
    sandbox_mail,
    operations,
)


def create_app(settings: config.Settings) -> Flask:
    """The application for these settings. Raises ConfigError when VAT could not be computed with them."""
    config.use(settings)
    try:
        tax.use(settings.vat_rates_file)
        tax.refuse_seller_without_rate(settings.seller, clock.today())
    except tax.RatesRefused as refusal:
        raise config.ConfigError(str(refusal)) from None
    logs.hide(config.secrets_of(settings))
    app = Flask(__name__, template_folder="../templates", static_folder=None)
    app.config["SECRET_KEY"] = settings.secret_key
    app.config["TESTING"] = settings.testing
    db.init(app, settings.database_url, live=bool(config.live(settings)))
    web.init(app, settings)
    gate.init(app, web.sign_in)
    processor = PretendProcessor(settings.secret_key, settings.base_url)
    app.extensions["sandbox_processor"] = processor
    gateways.use(gateways.build(settings, processor))
    payments.follow_with(refunds.follow)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    cli.init(app)
    return app
