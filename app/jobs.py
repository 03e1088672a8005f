"""The clock: a list of periodic jobs, each a shallow loop over verbs that are safe to run twice.

`once` runs one of them (or all) now; `run` keeps running them until it is asked to stop. A job runs in one process at a time, by a lock
in the database; what fails is logged and tried again on the next turn, and holds up no other job.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Flask, current_app

from app import audit, customers, db, exchange, fx, invoicing, ledger, logs, mail, payments, refunds, services

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
    """Run the named job, or every job, once and now; (name, result) of those that ran, the error of one that failed as its result.

    A failure is logged and holds up no other; a job that another process is running is left to it and is not in the answer. Raises `UnknownJob`.
    """
    chosen = [job for job in jobs if name in {None, job.name}]
    if not chosen:
        raise UnknownJob(f"No job is called “{name}”. There are: {', '.join(job.name for job in jobs)}.")
    return [(job.name, result) for job in chosen for ran, result in [_attempt(job)] if ran]


def run(app: Flask, jobs: Sequence[Job], stop: threading.Event) -> None:
    """Run every job on its beat until ``stop`` is set; the job that is running then is finished first."""
    due = {job.name: time.monotonic() + job.first_s for job in jobs}
    while not stop.is_set():
        for job in jobs:
            if not stop.is_set() and time.monotonic() >= due[job.name]:
                with app.app_context():
                    _attempt(job)
                due[job.name] = time.monotonic() + job.every_s
        stop.wait(max(0.05, min(due.values()) - time.monotonic()))


def _attempt(job: Job) -> tuple[bool, object]:
    with logs.knowing(job=job.name):
        return _try(job)


def _try(job: Job) -> tuple[bool, object]:
    try:
        ran, result = _alone(job)
    except db.UNREACHABLE as error:  # for as long as it lasts, so in a line
        log.error("The job %s could not use the database; it runs again in %g seconds: %s", job.name, job.every_s, logs.summary(error))  # noqa: TRY400
        return True, error
    except Exception as error:
        log.exception("The job %s failed; it runs again in %g seconds.", job.name, job.every_s)
        return True, error
    if ran and result:
        log.info("%s: %s", job.name, result)
    return ran, result


def _alone(job: Job) -> tuple[bool, object]:
    with db.exclusive(f"job:{job.name}") as mine, audit.acting_as(audit.SYSTEM):
        return (True, job.work()) if mine else (False, None)


# What runs


def deliver_sandbox_webhooks() -> int:
    """The pretend processor tells what happened on its pages; 0 where it is not offered."""
    return int(current_app.extensions["sandbox_processor"].deliver())


def check_ledger() -> str:
    """Every invariant of the books; a fault is an error in the log, and the job fails."""
    faults = [f"{fault.kind}: {fault.what}" for fault in ledger.check()]
    if faults:
        raise ledger.LedgerError("The ledger is not whole: " + "; ".join(faults[:20]))
    return "the ledger is whole"


def fetch_rates() -> str:
    """The newest reference rates; a feed that is out of reach or not believed is said in a line and asked again on the next turn."""
    try:
        imported = fx.fetch()
    except fx.FeedRefused as refusal:
        log.warning("No new exchange rates: %s", refusal)
        return ""
    return f"{imported.added} new rates of {imported.rate_date}" if imported.added else ""


JOBS = (
    Job("webhooks", 2, payments.process_due, "works the webhooks that arrived"),
    Job("sandbox", 2, deliver_sandbox_webhooks, "carries the pretend processor's webhooks"),
    Job("mail", 5, mail.deliver, "carries the outbox to the mail server"),
    Job("documents", 5, invoicing.render_pending, "prints documents that were issued"),
    Job("extend", 10, services.settle_waiting, "extends services whose bill was paid straight"),
    Job("reconcile", 60, payments.reconcile, "asks processors about payments without an end"),
    Job("close-pages", 10, payments.close_settled, "closes processors' pages of what was paid or cancelled meanwhile"),
    Job("refunds", 60, refunds.pay_out_due, "sends approved refunds back"),
    Job("held", 60, refunds.send_back_due, "sends held money back that people decided to return"),
    Job("refunds-open", 600, refunds.reconcile, "asks processors about refunds on their way and open disputes"),
    Job("look-over", 3600, payments.look_over, "looks credited payments up again, for what no webhook told", first_s=120),
    Job("renew", 300, services.renew_due, "renews services whose paid days are over"),
    Job("renew-by-card", 60, services.renew_by_card, "charges renewals the balance did not cover to saved cards"),
    Job("cards", 60, payments.cards.reconcile, "asks about pages on which cards are saved"),
    Job("forget-cards", 60, payments.cards.forget_removed, "has processors forget removed cards"),
    Job("bill-ahead", 3600, services.bill_ahead, "bills services that end soon and do not renew by themselves"),
    Job("remind", 6 * 3600, services.remind, "tells what has come together of periods that were not paid", first_s=75),
    Job("end-unpaid", 3600, services.end_unpaid, "ends services that nobody goes on paying for", first_s=45),
    Job("warn-short", 6 * 3600, services.warn_short, "warns of renewals the balance will not cover", first_s=60),
    Job("warn-of-cards", 6 * 3600, services.warn_of_cards, "warns of cards that expire soon", first_s=90),
    Job("bring-over", 60, exchange.bring_over, "converts what reached an account in a currency it has left"),
    Job("expire-bills", 600, invoicing.expire_due, "closes bills nobody paid"),
    Job("expire-bonuses", 600, payments.expire_bonuses, "takes back bonuses whose time is over"),
    Job("tidy", 3600, customers.tidy, "deletes old rate counters, used links and ended sessions"),
    Job("rates", 3600, fetch_rates, "stores the newest exchange rates", first_s=20),
    Job("check", 3600, check_ledger, "proves the ledger", first_s=300),
)
"""Every job, in the order of a round. Each is safe to run twice and to break off."""
