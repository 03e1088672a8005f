"""Background jobs."""

import logging
import signal
import sys
import threading

import click
from flask import Flask, current_app

import config
from app import db, guard, jobs, logs, origin
from app.cli._shared import Commands, refusals
from config import ConfigError

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1
"""How often a database is asked that does not answer when the jobs start."""

jobs_commands = Commands("jobs", help="The clock: what runs by itself.")


@jobs_commands.command("run")
def jobs_run() -> None:
    """Keep the clock until told to stop (Ctrl-C, SIGTERM): the job that runs then is finished first."""
    with refusals(guard.Unprotected):
        guard.at_start(live=guard.live(config.current()))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the proxy's own way to its app
    _await_right_database(app, stop)
    jobs.run(app, jobs.JOBS, stop)


def _await_right_database(app: Flask, stop: threading.Event) -> None:
    """Look whether the jobs may run on this database, as soon as it answers."""
    while not stop.is_set():
        try:
            with app.app_context(), refusals(ConfigError):
                origin.refuse()
        except db.UNREACHABLE as error:
            log.warning("The jobs wait for the database: %s", str(error).partition("\n")[0])
            stop.wait(ASK_AGAIN_S)
        else:
            return


@jobs_commands.command("once")
@click.argument("name", required=False)
def jobs_once(name: str | None) -> None:
    """Run one job, or all of them, now and once."""
    with refusals(ConfigError):
        origin.refuse()
    with refusals(jobs.UnknownJob):
        done = jobs.once(name, jobs.JOBS)
    for job, result in done:
        click.echo(f"{job}: failed: {type(result).__name__}: {logs.summary(result)}" if isinstance(result, Exception) else f"{job}: {result or 'nothing to do'}")
    if not done:
        click.echo("Another process is running it.")
    if any(isinstance(result, Exception) for _, result in done):
        sys.exit(1)


@jobs_commands.command("list")
def jobs_list() -> None:
    """Name every job, how often it runs and what it does."""
    for job in jobs.JOBS:
        click.echo(f"{job.name:<20} every {job.every_s:>6g} s  {job.says}")
