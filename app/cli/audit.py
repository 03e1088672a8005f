"""The audit log."""

import sys

import click

from app import audit
from app.cli._shared import Commands

audit_commands = Commands("audit", help="Who decided what, when and why.")


@audit_commands.command("check")
@click.option(
    "--head",
    metavar="POSITION:HASH",
    help="A head printed earlier: the log must still hold it there.",
)
def audit_check(head: str | None) -> None:
    """Prove that the audit log is whole; exit code 1 and a line for each fault.

    Prints the head of the chain. Keep it outside the database: given again later by --head, it
    proves that nothing was taken off the end since.
    """
    position, expected = _head(head)
    faults = list(audit.check(position=position, expected=expected))
    for fault in faults:
        click.echo(str(fault), err=True)
    if faults:
        sys.exit(1)
    last, last_hash = audit.head()
    click.echo(f"The audit log is whole: {last} entries. Head {last}:{last_hash}")


def _head(text: str | None) -> tuple[int, str]:
    if not text:
        return 0, ""
    position, _, expected = text.partition(":")
    if not position.isdecimal() or not expected:
        raise click.BadParameter("A head is POSITION:HASH, as “audit check” prints it.")
    return int(position), expected.lower()


@audit_commands.command("list")
@click.option("--actor", default="", help="Only of this actor, such as staff:rita.")
@click.option("--subject", default="", help="Only about this kind of thing, such as refund.")
@click.option("--id", "subject_id", default="", help="Only about this one, by its number.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
def audit_list(actor: str, subject: str, subject_id: str, limit: int) -> None:
    """List decisions, newest first."""
    for entry in audit.entries(actor=actor, subject=subject, subject_id=subject_id, limit=limit):
        click.echo(f"{entry.at:%Y-%m-%d %H:%M:%SZ}  {entry.actor}  {entry.address or '-'}  {entry.action}  {entry.subject_id}  {entry.reason}".rstrip())
