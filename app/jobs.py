"""The clock: a list of periodic jobs, each a shallow loop over verbs that are safe to run twice.

`once` runs one of them (or all) now; `run` keeps running them until it is asked to stop. Each turn of a job has a thread of its own, so
one that takes long holds up no other. A job runs in one process at a time, by a lock in the database; what fails is logged and tried
again on the next turn. The table `job_runs` says what each did last, for `/readyz`, the metrics and support.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from flask import Flask, current_app

from app import audit, bank, clock, customers, db, desk, exchange, fx, invoicing, ledger, logs, mail, payments, refunds, services, troubles
from app.customers import vat_ids

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
    board, done = Board(chosen), []
    for job in chosen:
        board.began(job.name)
        ran, result = _attempt(job)
        board.ended(job.name, result, ran=ran)
        done += [(job.name, result)] if ran else []
    board.write(current_app._get_current_object(), now=True)  # type: ignore[attr-defined]  # noqa: SLF001 - the proxy's own way to its app
    return done


def run(app: Flask, jobs: Sequence[Job], stop: threading.Event) -> None:
    """Run every job on its beat until ``stop`` is set; jobs that are running then may finish."""
    due = {job.name: time.monotonic() + job.first_s for job in jobs}
    turns: dict[str, Turn] = {}
    board = Board(jobs)
    while not stop.is_set():
        for job in jobs:
            turn = turns.get(job.name)
            if turn is not None and not turn.thread.is_alive():
                due[job.name] = turn.ended + job.every_s
                del turns[job.name]
            elif turn is not None:
                turn.look()
            elif not stop.is_set() and time.monotonic() >= due[job.name] and _is_room(turns.values()):
                turns[job.name] = Turn(app, job, board)
                turns[job.name].thread.join(AT_LEAST_S)
        board.write(app)
        stop.wait(BEAT_S if turns else min(BEAT_S * 4, max(0.01, min(due.values()) - time.monotonic())))
    _finish(turns.values())
    board.write(app, now=True)


AT_ONCE: Final = 4
"""So many jobs run beside each other; those that take longer than `SLOW_S` are not counted."""
SLOW_S: Final = 10
LATE_S: Final = desk.LATE_S
"""A turn that takes longer is named in the log, the metrics and on support's page."""
AT_LEAST_S: Final = 0.05
"""Most turns are over by then, so that few run beside each other."""
BEAT_S: Final = 0.25
FINISH_S: Final = 30
"""How long a stop waits for the jobs that run."""
CLOCK_OFF: Final = timedelta(minutes=1)
"""How far the clock of this machine may be from the database's before jobs are refused."""


class ClockOff(RuntimeError):
    """The clock of this machine is not to be believed, so no job runs here."""


class Turn:
    """One turn of a job, in its own thread."""

    def __init__(self, app: Flask, job: Job, board: "Board") -> None:
        self.job = job
        self.began = time.monotonic()
        self.ended = self.began
        self._named = False
        self._app, self._board = app, board
        self.thread = threading.Thread(target=self._work, name=f"job:{job.name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        self._board.began(self.job.name)
        try:
            with self._app.app_context():
                ran, result = _attempt(self.job)
            self._board.ended(self.job.name, result, ran=ran)
        finally:
            self.ended = time.monotonic()

    def look(self) -> None:
        """Name a turn that takes long, once."""
        if not self._named and time.monotonic() - self.began > LATE_S:
            self._named = True
            log.warning("The job %s is running for more than %s seconds; the others go on.", self.job.name, LATE_S)


class Board:
    """What the jobs of this process did last, written to the database when it changed, at most every few seconds."""

    EVERY_S: Final = 15

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._every = {job.name: job.every_s for job in jobs}
        self._lock = threading.Lock()
        self._news: dict[str, dict[str, object]] = {name: {} for name in self._every}
        self._next = 0.0

    def began(self, name: str) -> None:
        """A turn begins."""
        with self._lock:
            self._news.setdefault(name, {})["began_at"] = clock.now()

    def ended(self, name: str, result: object, *, ran: bool) -> None:
        """A turn ended; nothing is known of one that another process has."""
        with self._lock:
            if not ran:
                self._news.pop(name, None)
                return
            failure = logs.summary(result) if isinstance(result, Exception) else ""
            news = self._news.setdefault(name, {})
            news |= {"ended_at": clock.now(), "failure": f"{type(result).__name__}: {failure}"[:500] if failure else ""}

    def write(self, app: Flask, *, now: bool = False) -> None:
        """Write what is new. While the database does not answer it waits; the jobs themselves say so in the log."""
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.EVERY_S
        with self._lock:
            news, self._news = self._news, {}
        with app.app_context():
            try:
                self._store(news)
            except db.UNREACHABLE as error:
                log.debug("What the jobs did is written later: %s", logs.summary(error))
                with self._lock:
                    self._news = {**news, **self._news}

    def _store(self, news: dict[str, dict[str, object]]) -> None:
        empty = {"began_at": None, "ended_at": None, "failure": ""}
        rows = [empty | known | {"name": name, "every_s": self._every[name], "now": clock.now()} for name, known in news.items()]
        if rows:
            with db.transaction():
                db.many(_RAN, rows)


_RAN = """
insert into job_runs (name, every_s, known_at, began_at, ended_at, failed_since, failure)
values (
  %(name)s, %(every_s)s, %(now)s, %(began_at)s, %(ended_at)s,
  case when %(failure)s::text <> '' then %(ended_at)s::timestamptz end, %(failure)s)
on conflict (name) do update
set every_s = excluded.every_s,
  known_at = excluded.known_at,
  began_at = coalesce(excluded.began_at, job_runs.began_at),
  ended_at = coalesce(excluded.ended_at, job_runs.ended_at),
  failed_since = case
    when excluded.ended_at is null then job_runs.failed_since
    when excluded.failure <> '' then coalesce(job_runs.failed_since, excluded.ended_at)
  end,
  failure = case when excluded.ended_at is null then job_runs.failure else excluded.failure end
"""


def _is_room(turns: Iterable[Turn]) -> bool:
    return sum(time.monotonic() - turn.began < SLOW_S for turn in turns) < AT_ONCE


def _finish(turns: Iterable[Turn]) -> None:
    """Wait for what runs, but not for ever: each job may be broken off anywhere."""
    until = time.monotonic() + FINISH_S
    for turn in turns:
        turn.thread.join(max(0.0, until - time.monotonic()))


def _attempt(job: Job) -> tuple[bool, object]:
    with logs.knowing(job=job.name):
        return _try(job)


def _try(job: Job) -> tuple[bool, object]:
    try:
        _compare_clocks()
        ran, result = _alone(job)
    except ClockOff as error:  # said once, by what notes it
        return True, error
    except db.UNREACHABLE as error:  # for as long as it lasts, so in a line
        log.error("The job %s could not use the database; it runs again in %g seconds: %s", job.name, job.every_s, logs.summary(error))  # noqa: TRY400
        return True, error
    except Exception as error:
        log.exception("The job %s failed; it runs again in %g seconds.", job.name, job.every_s)
        return True, error
    if ran and result:
        log.info("%s: %s", job.name, result)
    return ran, result


def _compare_clocks() -> None:
    """Jobs let payments and invoices expire and services renew, so they do not run by a clock that is wrong. Raises ClockOff."""
    theirs = db.scalar("select clock_timestamp()")
    off = clock.machine() - theirs
    if abs(off) > CLOCK_OFF:
        way = "ahead of" if off > timedelta() else "behind"
        said = f"The clock of the machine that runs the jobs is {abs(off.total_seconds()):.0f} seconds {way} the database's. No job runs until they agree."
        troubles.note("clock", said, at=theirs)
        raise ClockOff(said)
    troubles.over("clock")


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


def credit_waiting() -> str:
    """What waited for an exchange rate alone, from processors and by transfer."""
    held, lines = refunds.credit_waiting(), bank.credit_waiting()
    return f"{held} held payments and {lines} bank transfers credited" if held or lines else ""


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
    Job("credit-waiting", 300, credit_waiting, "credits what waited for an exchange rate alone"),
    Job("held", 60, refunds.send_back_due, "sends held money back that people decided to return"),
    Job("refunds-open", 600, refunds.reconcile, "asks processors about refunds on their way and open disputes"),
    Job("look-over", 3600, payments.look_over, "looks credited payments up again, for what no webhook told", first_s=120),
    Job("vat-ids", 300, vat_ids.check_due, "asks the VAT register about companies' numbers", first_s=10),
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
    Job("reissue-bills", 300, invoicing.reissue_due, "gives unpaid bills whose VAT changed a new pro forma"),
    Job("expire-bills", 600, invoicing.expire_due, "closes bills nobody paid"),
    Job("expire-bonuses", 600, payments.expire_bonuses, "takes back bonuses whose time is over"),
    Job("tidy", 3600, customers.tidy, "deletes old rate counters, used links and ended sessions"),
    Job("rates", 3600, fetch_rates, "stores the newest exchange rates", first_s=20),
    Job("warn-of-troubles", 60, desk.warn, "names in the log what is out of order", first_s=30),
    Job("check", 3600, check_ledger, "proves the ledger", first_s=300),
)
"""Every job, in the order of a round. Each is safe to run twice and to break off."""
