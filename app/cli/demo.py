"""Demo data."""

import click
from flask import current_app

from app import demo
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
