"""Renewals of customers' services."""

import sys
from datetime import date, datetime

import click

from app import clock, services
from app.cli._shared import DAY, Commands, progress_bar

services_commands = Commands("services", help="What customers run.")


@services_commands.command("renew-due")
@click.option("--on", type=DAY, help="As if it were this day (YYYY-MM-DD); today without it.")
@click.option("--dry-run", is_flag=True, help="Name what is due and write nothing.")
def services_renew_due(*, on: datetime | None, dry_run: bool) -> None:
    """Renew every service whose paid days are over, each period once."""
    day = on.date() if on else clock.today()
    if dry_run:
        _tell_due(day)
        return
    with progress_bar("Renewing", "services") as show:
        run = services.renew_due(day, progress=show)
    click.echo(str(run))
    if run.failed:
        sys.exit(1)


def _tell_due(day: date) -> None:
    coming = services.due(day)
    for service in coming:
        click.echo(f"{service.renews_on}  {service.public_id:<20} {service.price or 'no price'}")
    click.echo(f"{len(coming)} due on {day}. Nothing was written.")
