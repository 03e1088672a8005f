"""Where support begins: what waits, counted; what is out of order, the same in page, metrics and log."""

from datetime import timedelta

import pytest

from app import clock, db, desk, jobs, mail, payments, services, troubles
from app.blueprints.staff_home import WAITING
from app.web import OF_CUSTOMERS
from tests.test_mail import put


def ran_all():
    board = jobs.Board(jobs.JOBS)
    for job in jobs.JOBS:
        board.began(job.name)
        board.ended(job.name, "", ran=True)
    return board


@pytest.fixture
def running(app):
    """All the jobs ran a moment ago."""
    ran_all().write(app, now=True)


def codes():
    return {one.code for one in desk.disorder()}


def test_support_lands_here_and_every_link_of_its_menu_opens(staff):
    assert staff.get("/").location == "/staff"
    page = staff.get("/staff")
    assert page.status_code == 200
    menu = page.text.partition("<nav")[2].partition("</nav>")[0]
    paths = {part.partition('"')[0] for part in menu.split('href="')[1:]} - {"/"}
    assert {"/staff", "/staff/refunds", "/security"} <= paths
    assert not paths & OF_CUSTOMERS
    assert {path: staff.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


def test_a_customer_does_not_learn_that_there_is_such_a_page(owner):
    assert owner.get("/staff").status_code == 404


def test_everything_that_waits_has_a_word_a_number_and_a_page_that_opens(staff):
    assert set(WAITING) == set(desk.WAITING) == set(desk.waiting())
    page = staff.get("/staff").text
    for kind, path in desk.WAITING.items():
        assert WAITING[kind][0] in page
        assert staff.get(path).status_code == 200


def test_a_job_that_never_ran_stopped_is_late_or_fails_is_named(app, staff):
    assert "jobs_never" in codes()
    assert "The jobs have never run" in staff.get("/staff").text
    board = ran_all()
    board.write(app, now=True)
    assert not {code for code in codes() if code.startswith("job")}
    board.ended("renew", ValueError("no such price"), ran=True)
    board.began("mail")
    board.write(app, now=True)
    with clock.travel(clock.now() + timedelta(minutes=2)):
        found = {(one.code, one.about) for one in desk.disorder()}
    assert {("job_failing", "renew"), ("job_late", "mail")} <= found
    assert "no such price" in staff.get("/staff").text
    with clock.travel(clock.now() + timedelta(minutes=20)):
        ran = {(one.code, one.about) for one in desk.disorder()}
        assert ("job_overdue", "webhooks") in ran
        assert ("job_overdue", "warn-short") not in ran, "it runs every six hours"
    with clock.travel(clock.now() + timedelta(days=2)):
        board.ended("mail", "", ran=True)
        board.write(app, now=True)
    with clock.travel(clock.now() + timedelta(days=4)):
        assert "jobs_stopped" in codes()


def test_a_wrong_secret_and_a_key_that_is_refused_are_named(running, staff):
    for _ in range(payments.outages.UNPROVEN_ENOUGH):
        payments.outages.note_unproven("sandbox")
    assert "webhook_secret" in codes()
    assert "Check the signing secret" in staff.get("/staff").text
    with db.transaction():
        db.execute(
            "insert into outages (gateway, verb, since, last_at, until, pauses, detail) values ('sandbox', 'checkout', %(now)s, %(now)s, %(now)s, 0, 'HTTP 401')",
            now=clock.now(),
        )
    assert "key_refused" in codes()


def test_mails_clocks_prices_and_rates_are_named(running, owner, demo_customer, staff):
    put()
    with db.transaction():
        db.execute("update mails set refused_at = %(now)s", now=clock.now())
    troubles.note("clock", "The clock is 90 seconds ahead of the database's.")
    troubles.note("mail_server", "The mail server cannot be reached: refused.")
    services.set_plan("lost", "vps", "VPS Lost", {("EUR", 1): 10_00})
    assert {"mail_refused", "clock", "mail_server"} <= codes()
    page = staff.get("/staff").text
    for said in ("1 mail was refused", "A clock is wrong", "90 seconds ahead", "Mails do not leave"):
        assert said in page
    rates = db.scalar("select max(rate_date) from rates")
    assert ("rates_missing" in codes()) == (rates is None)
    with clock.travel(clock.now() + timedelta(days=30)):
        assert "rates_missing" in codes()


def test_metrics_and_the_log_say_the_same_as_the_page(running, owner, caplog):
    troubles.note("clock", "ahead")
    measured = owner.get("/metrics").text
    for one in desk.disorder():
        assert f'client_area_out_of_order{{code="{one.code}",about="{one.about}"}} 1' in measured
    assert 'client_area_waiting{kind="refunds"} 0' in measured
    desk._warned.clear()
    desk.warn()
    desk.warn()
    assert caplog.text.count("Out of order: clock") == 1, "once for each change"
    troubles.over("clock")
    desk.warn()
    assert caplog.text.count("In order again: clock") == 1


def test_a_mail_of_nobody_is_no_disorder(running):
    assert "mail_refused" not in codes()
    assert mail.stuck() == []
