"""What the commands share: groups, options, refusals and progress."""

import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from flask.cli import AppGroup, ScriptInfo
from tqdm import tqdm

from app import approvals, audit, customers, db, logs, origin
from config import ConfigError

_Command = TypeVar("_Command", bound=Callable[..., object])
DAY = click.DateTime(["%Y-%m-%d"])
NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def in_writable_folder(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """Whether the file can be written: said before anything is done, not after."""
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"Nothing can be written in the folder {path.parent}.")
    return path


HARMLESS = frozenset({"demo", "ledger", "audit", "database", "translate", "jobs"})
"""Groups that run on any database: they move neither money nor mail, or look at it by themselves."""


class Commands(AppGroup):
    """A group of commands; a database that does not answer is a sentence and exit code 2, never a trace.

    One that moves money or mail is refused where the settings do not go with what the database holds.
    """

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named, as the system user who called it."""
        try:
            with audit.acting_as(audit.Actor(f"command:{_system_user()}")), logs.knowing(command=ctx.info_name):
                if self.name not in HARMLESS and "--help" not in ctx.args:
                    refuse_wrong_database(ctx)
                return super().invoke(ctx)
        except db.UNREACHABLE as error:
            click.echo(f"The database could not be used: {logs.summary(error)}", err=True)
            ctx.exit(2)


def refuse_wrong_database(ctx: click.Context) -> None:
    """Leave with a sentence and exit code 2 where a live start meets the demo, or the sandbox real payments."""
    app = ctx.ensure_object(ScriptInfo).load_app()
    with app.app_context():
        try:
            origin.refuse()
        except ConfigError as refused:
            click.echo(str(refused), err=True)
            ctx.exit(2)


@contextmanager
def refusals(*kinds: type[Exception]) -> Iterator[None]:
    """A refusal is a sentence and exit code 2, never a trace; so is a decision that this person may not take."""
    expected: tuple[type[Exception], ...] = (approvals.NotAllowed, *kinds)
    try:
        yield
    except expected as refusal:
        click.echo(str(refusal).capitalize() if isinstance(refusal, LookupError) else str(refusal), err=True)
        sys.exit(2)


@contextmanager
def progress_bar(says: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silent elsewhere; it is told (done, total)."""
    with tqdm(desc=says, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def staff_actor(login: str) -> str:
    """A person of support as the pages write them down: whoever agreed there does not count again here."""
    user = customers.find_user(login)
    if user is None or user.role != "support":
        raise click.BadParameter(f"{login} is no login of support.")
    return f"staff:{user.login}"


def actor_option(says: str) -> Callable[[_Command], _Command]:
    """The option ``--actor``: the support login of the person who decides; others are refused before anything is read."""
    return click.option("--actor", required=True, metavar="LOGIN", callback=lambda _context, _option, login: staff_actor(login), help=says)


def _system_user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as a number without a name
        return str(uid)
