"""Users."""

import click

from app import customers, exchange
from app.cli._shared import Commands, actor_option, refusals

user_commands = Commands("user", help="Who may log in.")


@user_commands.command("create")
@click.argument("login")
@click.argument("email")
@click.option("--name", default="", help="The person's name.")
@click.option("--role", type=click.Choice(["customer", "support"]), default="customer", show_default=True)
@click.password_option(help="Asked for when not given.")
def user_create(login: str, email: str, name: str, role: str, password: str) -> None:
    """Make a user who can log in at once; a customer's user gets a customer."""
    with refusals(customers.Refused):
        user = customers.create_user(login, email, password, name=name, role=role)
    click.echo(f"{user.login} can log in ({user.role}).")


@user_commands.command("promote")
@click.argument("login")
@click.option("--role", type=click.Choice(["customer", "support"]), default="support", show_default=True)
def user_promote(login: str, role: str) -> None:
    """Give a user another role; its sessions end."""
    with refusals(customers.Refused, LookupError):
        user = customers.promote(login, role)
    click.echo(f"{user.login} is {user.role} now.")


@user_commands.command("lift-currency-wait")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="Why.")
def user_lift_currency_wait(login: str, actor: str, reason: str) -> None:
    """Let a customer change the account currency again before the thirty days are over."""
    with refusals(exchange.CurrencyError, LookupError):
        exchange.lift_wait(login, actor=actor, reason=reason)
    click.echo(f"{login} can change the currency again.")
