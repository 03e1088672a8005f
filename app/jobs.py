"""The clock: a list of periodic jobs, each a shallow loop over verbs that are safe to run twice.

`once` runs one of them (or all) now; `run` keeps running them until it is asked to stop. A job runs in one process at a time, by a lock
in the database; what fails is logged and tried again on the next turn, and holds up no other job.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Flask

from app import db

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A verb and how often it runs, in seconds; ``first_s`` is how long after the start it runs first."""

    name: str
    every_s: float
    work: Callable[[], object]
    says: str
    first_s: float = 0


class UnknownJob(ValueError):
    """No job has that name; the message lists those that exist."""


def once(name: str | None, jobs: Sequence[Job]) -> list[tuple[str, object]]:
    """Run the named job, or every job, once and now; (name, result) of those that ran. Raises what a job raises.

    A job that another process is running is left to it and is not in the answer.
    """
    chosen = [job for job in jobs if name in (None, job.name)]
    if not chosen:
        raise UnknownJob(f"No job is called “{name}”. There are: {', '.join(job.name for job in jobs)}.")
    return [(job.name, result) for job in chosen for ran, result in [_alone(job)] if ran]


def run(app: Flask, jobs: Sequence[Job], stop: threading.Event) -> None:
    """Run every job on its beat until ``stop`` is set; the job that is running then is finished first."""
    due = {job.name: time.monotonic() + job.first_s for job in jobs}
    while not stop.is_set():
        for job in jobs:
            if not stop.is_set() and time.monotonic() >= due[job.name]:
                _attempt(app, job)
                due[job.name] = time.monotonic() + job.every_s
        stop.wait(max(0.05, min(due.values()) - time.monotonic()))


def _attempt(app: Flask, job: Job) -> None:
    try:
        with app.app_context():
            ran, result = _alone(job)
        if ran and result:
            log.info("%s: %s", job.name, result)
    except Exception:
        log.exception("The job %s failed; it runs again in %g seconds.", job.name, job.every_s)


def _alone(job: Job) -> tuple[bool, object]:
    with db.exclusive(f"job:{job.name}") as mine:
        return (True, job.work()) if mine else (False, None)
