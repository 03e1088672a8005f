"""Demo data."""

import sys

import click
from flask import current_app

from app import db, demo, origin
from app.cli._shared import Commands, progress_bar, refusals

demo_commands = Commands("demo", help="A house with a history, to look at.")


@demo_commands.command("seed")
@click.option("--customers", "count", type=click.IntRange(1, 100_000), default=demo.CUSTOMERS, show_default=True, help="How many customers besides “demo”.")
@click.option("--months", type=click.IntRange(1, 60), default=demo.MONTHS, show_default=True, help="Months of history, up to now.")
@click.option("--random-seed", type=int, default=1, show_default=True, help="The same seed gives the same data, counted from today.")
def demo_seed(count: int, months: int, random_seed: int) -> None:
    """Write customers with a history, by the same verbs as real life.

    Refused on a database that holds real customers.
    """
    with refusals(demo.Refused), progress_bar("Writing history", "days") as show:
        demo.seed(count, months, random_seed, processor=current_app.extensions["sandbox_processor"], progress=show)
    click.echo(f"Log in as demo or support, password {demo.PASSWORD}")


@demo_commands.command("remove")
@click.option("--keep-prices", is_flag=True, help="Leave the plans and their prices as they are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def demo_remove(*, keep_prices: bool, yes: bool) -> None:
    """Empty a database that holds nothing real: the demo, the sandbox's payments and everything else.

    Refused, with nothing changed, where one payment, customer or statement is not known to be of a
    test. Restart the web server and the jobs afterwards.
    """
    with refusals(origin.NotEmptied):
        there = origin.contents()
        name = db.scalar("select current_database()")
        click.echo(f"The database {name} holds {there.customers} customers and {there.payments} payments, all of them tests.")
        if there.others:
            click.echo(f"Logins that the demo did not make go with it: {', '.join(there.others[:10])}{' …' if len(there.others) > 10 else ''}.")
        if not yes and click.prompt("Everything is deleted for good. Type the database's name to go on", default="", show_default=False) != name:
            click.echo("That is not its name. Nothing was deleted.", err=True)
            sys.exit(2)
        with db.exclusive(origin.LOCK) as alone:
            if not alone:
                raise origin.NotEmptied("Another process is writing the demo. Try again when it has finished.")
            origin.empty(keep_prices=keep_prices, reason="flask demo remove")
    click.echo("The database is empty. Restart the web server and the jobs, then make a login of yours: flask --app wsgi user create LOGIN EMAIL --role support")
