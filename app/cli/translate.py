"""The catalogues of sentences."""

import sys

import click

from app import languages
from app.cli._shared import Commands

translate_commands = Commands("translate", help="The catalogues of sentences.")


@translate_commands.command("extract")
def translate_extract() -> None:
    """Collect every sentence of the code and the templates into messages.pot."""
    click.echo(f"{languages.extract()} sentences.")


@translate_commands.command("update")
def translate_update() -> None:
    """Extract, and give every catalogue the sentences it lacks; what is out of use goes."""
    for language, lacking in languages.update().items():
        click.echo(f"{language}: {lacking} to translate")


@translate_commands.command("check")
def translate_check() -> None:
    """Name what is untranslated, unsure, left over or has other placeholders; exit code 1 when something is."""
    faults = languages.check()
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(1)
    click.echo("Every sentence is said in every language.")
