"""The database's own guard."""

import sys

import click
from sqlalchemy import make_url

import config
from app import db, guard
from app.cli._shared import Commands, refusals

database_commands = Commands("database", help="Who may change what in the database.")
_LOCK = "select pg_advisory_xact_lock(72010)"


@database_commands.command("protect")
@click.option("--role", help="The app's role; DATABASE_ROLE without it.")
@click.option("--login", help="Also make this login, which may act as the role and nothing else.")
def database_protect(role: str | None, login: str | None) -> None:
    """Create the app's role, grant it what it needs and switch every trigger on.

    Run it as the owner of the tables or a superuser: with DATABASE_OWNER_URL, or DATABASE_URL
    where that is the owner. It may be run again at any time.
    """
    settings = config.current()
    with refusals(guard.ProtectError):
        role = guard.checked_name(role or settings.database_role)
        password = _protect(settings, role, guard.checked_name(login) if login else "")
    if role != settings.database_role:
        click.echo(f"Set DATABASE_ROLE={role} before the app starts.")
    if login:
        url = make_url(settings.owner_url).set(username=login, password=password)
        shown = url.set(drivername="postgresql").render_as_string(hide_password=False)
        click.echo(f"Set DATABASE_URL={shown}")
        click.echo("Keep the owner's address as DATABASE_OWNER_URL, for flask db upgrade alone.")
    db.forget_connections()
    if role == settings.database_role:
        _report()


def _protect(settings: config.Settings, role: str, login: str) -> str:
    """Triggers first: they hold where the role cannot be made. The login's password, if any."""
    refused = None
    with db.owner(settings.owner_url) as connection:
        connection.execute(_LOCK)
        for trigger in guard.apply(connection, role):
            click.echo(f"Trigger {trigger} is there again.")
    try:
        with db.owner(settings.owner_url) as connection:
            if guard.make_role(connection, role):
                click.echo(f"The role {role} is made.")
    except guard.ProtectError as error:
        refused = error
    if refused:
        click.echo(f"{refused}\n\n{refused.sql}", err=True)
        sys.exit(1)
    with db.owner(settings.owner_url) as connection:
        connection.execute(_LOCK)
        guard.apply(connection, role)
        return guard.add_login(connection, login, role) if login else ""


@database_commands.command("check")
def database_check() -> None:
    """Say whether history is out of the app's reach; exit code 1 where it is not."""
    _report()


def _report() -> None:
    found = guard.findings(lacking=True)
    for finding in found:
        click.echo(f"{finding.code}: {finding.what}", err=True)
    if found:
        sys.exit(1)
    click.echo("The database is protected: the app cannot change its history.")
    if guard.may_leave_role():
        click.echo("Its login could, by leaving the role: docs/operations.md has a safer one.")
