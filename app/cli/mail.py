"""The outbox."""

import click

from app import mail
from app.cli._shared import Commands

mail_commands = Commands("mail", help="The outbox.")


@mail_commands.command("stuck")
def mail_stuck() -> None:
    """Name the mails a server did not take: those that are tried again, and those it refused for good and nobody tries again."""
    for letter in mail.stuck():
        state = "refused" if letter.refused_at else "tried again"
        click.echo(f"{letter.id}  {letter.created_at:%Y-%m-%d %H:%M}  {letter.kind}  {letter.recipient}  {state} after {letter.tries}: {letter.error}")


@mail_commands.command("again")
@click.argument("mail_id", metavar="[ID]", type=int, required=False)
def mail_again(mail_id: int | None) -> None:
    """Put a mail that was set aside, or all of them, back into the outbox."""
    click.echo(f"{mail.send_again(mail_id)} wait to be sent again.")
