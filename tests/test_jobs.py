"""The clock: jobs run on their beat, alone, and one that fails holds up nothing."""

import threading

import psycopg
import pytest
from flask import Flask

from app import customers, invoicing, jobs, mail, payments, services
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
