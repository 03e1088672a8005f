"""The clock: jobs run on their beat, alone, and one that fails holds up nothing."""

import threading
import time
from datetime import timedelta

import psycopg
import pytest
from flask import Flask

from app import clock, customers, db, desk, invoicing, jobs, mail, payments, services, troubles
from tests.test_web import closed


@pytest.fixture
def held(superuser: psycopg.Connection) -> psycopg.Connection:
    """Another process that holds the lock of the job “tick”."""
    superuser.execute("select pg_advisory_lock(hashtextextended('job:tick', 0))")
    return superuser


def test_once_runs_the_named_job_alone(app: Flask) -> None:
    ran: list[str] = []
    known = [jobs.Job("tick", 1, lambda: ran.append("tick") or "one tick", ""), jobs.Job("tock", 1, lambda: ran.append("tock"), "")]
    assert jobs.once("tick", known) == [("tick", "one tick")]
    assert ran == ["tick"]


def test_once_without_a_name_runs_every_job_in_order(app: Flask) -> None:
    ran: list[str] = []
    jobs.once(None, [jobs.Job(name, 1, lambda name=name: ran.append(name), "") for name in ("first", "second")])
    assert ran == ["first", "second"]


def test_an_unknown_job_names_those_there_are(app: Flask) -> None:
    with pytest.raises(jobs.UnknownJob, match="tick"):
        jobs.once("tack", [jobs.Job("tick", 1, lambda: None, "")])


def test_a_job_another_process_runs_is_left_to_it(app: Flask, held: psycopg.Connection) -> None:
    ran: list[str] = []
    tick = jobs.Job("tick", 1, lambda: ran.append("tick"), "")
    assert jobs.once("tick", [tick]) == []
    held.execute("select pg_advisory_unlock_all()")
    assert jobs.once("tick", [tick]) == [("tick", None)]
    assert jobs.once("tick", [tick]) == [("tick", None)], "the lock is let go of after the job"


def test_a_failing_job_is_logged_lets_go_of_its_lock_and_stops_no_other(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    broken, fine = jobs.Job("tick", 1, lambda: 1 // 0, ""), jobs.Job("tock", 1, lambda: "done", "")
    for _ in range(2):
        (_, error), second = jobs.once(None, [broken, fine])
        assert isinstance(error, ZeroDivisionError)
        assert second == ("tock", "done")
    assert "The job tick failed" in caplog.text


def test_a_database_that_is_down_is_a_line_in_the_log_and_no_trace(app: Flask, database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    tick = jobs.Job("tick", 1, lambda: "done", "")
    with closed(database_url):
        jobs.once("tick", [tick])
    (line,) = [record for record in caplog.records if record.name == "app.jobs"]
    assert "The job tick could not use the database; it runs again in 1 seconds: " in line.getMessage()
    assert (line.exc_info, "\n" in line.getMessage()) == (None, False)
    assert jobs.once("tick", [tick]) == [("tick", "done")]


def test_run_goes_on_past_a_failure_and_ends_when_asked(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    stop, beats = threading.Event(), []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            stop.set()

    jobs.run(app, [jobs.Job("broken", 0.01, lambda: 1 // 0, ""), jobs.Job("beat", 0.01, beat, "")], stop)
    assert len(beats) == 3
    assert "The job broken failed" in caplog.text


def test_a_stop_ends_the_round_before_the_next_job(app: Flask) -> None:
    stop, ran = threading.Event(), []
    jobs.run(app, [jobs.Job("last", 1, stop.set, ""), jobs.Job("never", 1, lambda: ran.append(1), "")], stop)
    assert ran == []


def test_one_job_that_hangs_stops_no_other_and_is_named(app: Flask, caplog, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "LATE_S", 0.3)
    monkeypatch.setattr(jobs, "SLOW_S", 0.1)
    monkeypatch.setattr(jobs.Board, "EVERY_S", 0.1)
    stop, let_go, beats, running = threading.Event(), threading.Event(), [], []

    def beat() -> None:
        beats.append(time.monotonic())
        if len(beats) == 12:
            running.append(db.scalar("select count(*) from job_runs where began_at > coalesce(ended_at, '-infinity')"))
            let_go.set()
            stop.set()

    hanging = [jobs.Job(f"hangs-{n}", 1, let_go.wait, "") for n in range(jobs.AT_ONCE + 1)]
    jobs.run(app, [*hanging, jobs.Job("beat", 0.1, beat, "")], stop)
    assert len(beats) == 12
    assert "The job hangs-0 is running for more than 0.3 seconds" in caplog.text
    assert running[0] >= jobs.AT_ONCE, "the table says what runs"


def test_what_each_job_did_last_is_written_down(app: Flask) -> None:
    board = jobs.Board([jobs.Job("mail", 5, lambda: None, "")])
    board.began("mail")
    board.ended("mail", ValueError("no such day"), ran=True)
    board.write(app, now=True)
    mail_job = next(state for state in desk.jobs() if state.name == "mail")
    assert (mail_job.failure, mail_job.overdue) == ("ValueError: no such day", False)
    first = mail_job.failed_since
    board.ended("mail", ValueError("still none"), ran=True)
    board.write(app, now=True)
    assert next(s for s in desk.jobs() if s.name == "mail").failed_since == first
    board.ended("mail", 3, ran=True)
    board.write(app, now=True)
    assert next(s for s in desk.jobs() if s.name == "mail").failed_since is None
    with clock.travel(clock.now() + timedelta(minutes=6)):
        assert next(s for s in desk.jobs() if s.name == "mail").overdue


@pytest.mark.parametrize("hours", [48, -48])
def test_no_job_runs_by_a_clock_that_is_wrong_and_it_is_said_once(app: Flask, caplog, monkeypatch, hours: int) -> None:
    ran: list[str] = []
    tick = jobs.Job("tick", 1, lambda: ran.append("tick"), "")
    right = clock.machine
    monkeypatch.setattr(clock, "machine", lambda: right() + timedelta(hours=hours))
    for _ in range(3):
        ((_, result),) = jobs.once("tick", [tick])
        assert isinstance(result, jobs.ClockOff)
    assert ran == []
    assert [one.code for one in troubles.known()] == ["clock"]
    assert caplog.text.count("seconds ahead of" if hours > 0 else "seconds behind") == 1
    monkeypatch.setattr(clock, "machine", right)
    jobs.once("tick", [tick])
    assert ran == ["tick"]
    assert troubles.known() == []


def test_a_job_may_wait_before_its_first_turn(app: Flask) -> None:
    stop, ran = threading.Event(), []
    jobs.run(app, [jobs.Job("later", 60, lambda: ran.append(1), "", first_s=60), jobs.Job("last", 1, stop.set, "")], stop)
    assert ran == []


def test_nothing_that_has_to_be_done_by_itself_is_forgotten_by_the_clock() -> None:
    """Each of these verbs keeps the house in order only if somebody calls it."""
    worked = {job.work for job in jobs.JOBS}
    assert worked >= {
        customers.tidy,
        payments.reconcile,
        payments.process_due,
        payments.expire_bonuses,
        invoicing.expire_due,
        services.renew_due,
        services.settle_waiting,
        mail.deliver,
    }
