"""Exchange rates."""

from pathlib import Path

import click

from app import fx
from app.cli._shared import Commands, refusals

rates_commands = Commands("rates", help="Exchange rates.")


@rates_commands.command("fetch")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A feed on disk instead of the network.")
@click.option("--confirm", "confirmed", multiple=True, metavar="CURRENCY", help="Believe that this currency moved by more than a tenth; may be given several times.")
def rates_fetch(file: Path | None, confirmed: tuple[str, ...]) -> None:
    """Store the newest reference rates of the European Central Bank.

    A feed in which a currency moved by more than a tenth is refused whole until somebody confirms that it is true.
    """
    with refusals(fx.FeedRefused):
        imported = fx.import_feed(file.read_bytes(), confirmed=confirmed) if file else fx.fetch(confirmed)
    click.echo(f"Rates of {imported.rate_date}: {imported.added} new." if imported.rate_date else "The feed has not changed.")
