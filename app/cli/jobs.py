"""Background jobs."""

import signal
import sys
import threading

import click
from flask import current_app

import config
from app import guard, jobs, logs
from app.cli._shared import Commands, refusals

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
    jobs.run(app, jobs.JOBS, stop)


@jobs_commands.command("once")
@click.argument("name", required=False)
def jobs_once(name: str | None) -> None:
    """Run one job, or all of them, now and once."""
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
