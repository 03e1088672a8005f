"""Users and customers."""

import sys

import click

from app import approvals, customers, exchange
from app.cli._shared import Commands, actor_option, refusals
from app.customers import vat_ids
from app.money import Money

user_commands = Commands("user", help="Who may log in.")
customer_commands = Commands("customer", help="Who pays.")

_OBSTACLES = {
    "wallet": "{money} on the balance: refund it first",
    "hold": "{money} held for refunds",
    "debt": "{money} owed to us",
    "refund": "refund {what} is open",
    "payment": "a payment for {what} is open",
    "held": "money that arrived is held as {what}",
    "dispute": "dispute {what} is open",
    "service": "service {what} runs: end it first",
}
"""Code of what keeps a customer from being closed → the words for it."""


def _given(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter("Say why, in a few words.")
    return text.strip()


reason_option = click.option("--reason", required=True, callback=_given, help="Why; kept in the audit log.")


@user_commands.command("create")
@click.argument("login")
@click.argument("email")
@click.option("--name", default="", help="The person's name.")
@click.option(
    "--role",
    type=click.Choice(["customer", "support"]),
    default="customer",
    show_default=True,
)
@click.option("--password-stdin", is_flag=True, help="Read the password from the standard input, one line.")
def user_create(login: str, email: str, name: str, role: str, *, password_stdin: bool) -> None:
    """Make a user who can log in at once; a customer's user gets a customer.

    The password is asked for, or read from the standard input: on the command line others could
    read it. It follows the rules of registering.
    """
    password = _password_of_stdin() if password_stdin else _ask_password()
    with refusals(customers.Refused):
        user = customers.create_user(login, email, password, name=name, role=role)
    click.echo(f"{user.login} can log in ({user.role}).")


@customer_commands.command("vat-id")
@click.argument("login")
@click.argument("decision", type=click.Choice(["confirm", "refuse", "ask"]))
@click.option("--reason", default="", help="Why; kept with the number and in the audit log.")
@actor_option("Login of the person of support who decides this.")
def customer_vat_id(login: str, decision: str, reason: str, actor: str) -> None:
    """Confirm or refuse a company's VAT ID, or let the register be asked again."""
    customer_id = customers.find_logins([login]).get(login)
    if customer_id is None:
        raise click.UsageError(f"No customer has the login {login}.")
    if decision == "ask":
        vat_ids.ask_again(customer_id)
        click.echo("The register is asked on the job's next turn.")
        return
    with refusals(vat_ids.NotDecidable, approvals.NotAllowed):
        vat_ids.decide(customer_id, decision, reason=reason, actor=actor)
    click.echo(f"{login}: {'confirmed' if decision == 'confirm' else 'refused'}.")


@user_commands.command("promote")
@click.argument("login")
@click.option(
    "--role",
    type=click.Choice(["customer", "support"]),
    default="support",
    show_default=True,
)
def user_promote(login: str, role: str) -> None:
    """Give a user another role; its sessions and mailed links end."""
    with refusals(customers.Refused, LookupError):
        user = customers.promote(login, role)
    click.echo(f"{user.login} is {user.role} now.")


@user_commands.command("disable")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@reason_option
def user_disable(login: str, actor: str, reason: str) -> None:
    """Switch a login off: signed out at once, and told a wrong password from then on."""
    with refusals(LookupError):
        ended = customers.disable(login, actor=actor, reason=reason)
    click.echo(f"{login} cannot log in any more. Sessions ended: {ended}.")


@user_commands.command("enable")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@reason_option
def user_enable(login: str, actor: str, reason: str) -> None:
    """Switch a login on again."""
    with refusals(LookupError, ValueError):
        customers.enable(login, actor=actor, reason=reason)
    click.echo(f"{login} can log in again.")


@user_commands.command("sign-out")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@reason_option
def user_sign_out(login: str, actor: str, reason: str) -> None:
    """End every session and mailed link of a user; who knows the password can log in again."""
    with refusals(LookupError):
        ended = customers.sign_out(login, actor=actor, reason=reason)
    click.echo(f"{login} is signed out everywhere. Sessions ended: {ended}.")


@user_commands.command("lift-currency-wait")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="Why.")
def user_lift_currency_wait(login: str, actor: str, reason: str) -> None:
    """Let a customer change the account currency again before the thirty days are over."""
    with refusals(exchange.CurrencyError, LookupError):
        exchange.lift_wait(login, actor=actor, reason=reason)
    click.echo(f"{login} can change the currency again.")


@customer_commands.command("close")
@click.argument("login")
@actor_option("Login of the person of support who decides this.")
@reason_option
def customer_close(login: str, actor: str, reason: str) -> None:
    """Close the customer of a login and switch its logins off; its documents stay.

    Refused while money is on the balance, a refund, payment or dispute is open, or a service runs.
    """
    try:
        with refusals(LookupError, ValueError):
            logins = customers.close(login, actor=actor, reason=reason)
    except customers.NotClosable as refusal:
        click.echo(f"The customer of {login} cannot be closed yet:", err=True)
        for obstacle in refusal.obstacles:
            click.echo(f"- {_words(obstacle)}", err=True)
        sys.exit(2)
    click.echo(f"The customer of {login} is closed. Logins switched off: {logins}.")


def _words(obstacle: customers.Obstacle) -> str:
    money = str(Money(obstacle.minor, obstacle.what)) if obstacle.minor else ""
    return _OBSTACLES[obstacle.kind].format(money=money, what=obstacle.what)


def _ask_password() -> str:
    return str(click.prompt("Password", hide_input=True, confirmation_prompt="Once more"))


def _password_of_stdin() -> str:
    line: bytes = sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter("The password on the standard input is not UTF-8.") from error
