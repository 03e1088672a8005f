"""Prove the books and export them."""

import sys
from pathlib import Path

import click

from app import ledger
from app.cli._shared import NEW_FILE, Commands, in_writable_folder, progress_bar

ledger_commands = Commands("ledger", help="Prove the books, hand them over.")


@ledger_commands.command("check")
def ledger_check() -> None:
    """Prove every invariant of the books; exit code 1 and a line for each fault."""
    with progress_bar("Checking the ledger", "rows") as show:
        faults = list(ledger.check(show))
    for fault in faults:
        click.echo(f"{fault.kind}: {fault.what}", err=True)
    if faults:
        sys.exit(1)
    click.echo("The ledger is whole.")


@ledger_commands.command("export")
@click.option("--format", "form", type=click.Choice(["beancount", "csv"]), required=True, help="beancount: with balance assertions. csv: one row per entry.")
@click.option("--out", type=NEW_FILE, callback=in_writable_folder, help="The file to write; standard output without it.")
def ledger_export(form: str, out: Path | None) -> None:
    """Write the whole book."""
    write = ledger.export_beancount if form == "beancount" else ledger.export_csv
    if out is None:
        write(sys.stdout)
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        write(file)
    click.echo(f"Written to {out}.", err=True)
