"""The flask commands: each reads its arguments, calls one service function and prints the result.

Exit code 0 means done, 1 a fault found, 2 misuse or no database.
"""

from flask import Flask

from app.cli.audit import audit_commands
from app.cli.bank import bank_commands
from app.cli.database import database_commands
from app.cli.demo import demo_commands
from app.cli.jobs import jobs_commands
from app.cli.ledger import ledger_commands
from app.cli.mail import mail_commands
from app.cli.payments import payments_commands, webhooks_commands
from app.cli.people import customer_commands, user_commands
from app.cli.rates import rates_commands
from app.cli.services import services_commands
from app.cli.translate import translate_commands


def init(app: Flask) -> None:
    """Give the app its commands."""
    groups = (
        demo_commands,
        ledger_commands,
        rates_commands,
        jobs_commands,
        services_commands,
        payments_commands,
        webhooks_commands,
        bank_commands,
        mail_commands,
        translate_commands,
        user_commands,
        customer_commands,
        audit_commands,
        database_commands,
    )
    for group in groups:
        app.cli.add_command(group)
