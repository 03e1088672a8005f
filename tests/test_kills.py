"""Processes that are killed outright, in the middle of whatever they do, beside others that go on: each payment is credited once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import _postgres
import pytest
from _postgres import Cluster
from flask import Flask
from flask_migrate import upgrade

import config
from app import clock, create_app, db, gateways, jobs, ledger, payments
from app.gateways.sandbox import SIGNATURE_HEADER, sign
from app.money import Money
from tests.conftest import BERLIN, person
from tests.pay import begin, choose, processor, publish_rates, topup

PROJECT = Path(__file__).parents[1]


def deliverer(settings: config.Settings, seed: int, news: int) -> subprocess.Popen[str]:
    """A process that brings so much news and says a line after each."""
    words = [sys.executable, "-m", "tests.deliverer", settings.database_url, settings.secret_key, str(seed), str(news)]
    return subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_again_and_again_each_payment_is_credited_once(app: Flask, settings: config.Settings):
    publish_rates()
    for name in range(4):
        user = person(f"newcomer-{name}", profile=replace(BERLIN, currency=None))
        for text, currency in (("50", "USD"), ("100", "PLN"), ("40", "EUR")):
            choose(app, begin(topup(user, Money.of(text, currency))), "silent")
    steady, *victims = [deliverer(settings, seed, 30 if seed == 1 else 10_000) for seed in range(1, 5)]
    for brought, victim in enumerate(victims, 2):
        assert victim.stdout
        assert [victim.stdout.readline() for _ in range(brought)] == ["brought\n"] * brought
        victim.kill()
        victim.communicate()
    _, said = steady.communicate()
    assert steady.returncode == 0, said
    payments.process_due()
    with clock.travel(clock.now() + timedelta(minutes=30)):
        payments.reconcile()
    assert [tuple(row) for row in db.rows("select state, count(*) from payments group by state")] == [("paid", 12)]
    assert db.rows("select payment_id from transfers where kind = 'topup' group by payment_id having count(*) <> 1") == []
    assert db.rows("select customer_id from accounts where kind = 'wallet' and entry_count > 0 group by customer_id having count(*) <> 1") == []
    assert db.scalar("select last from number_series where kind = 'topup_invoice'") == 12
    assert list(ledger.check()) == []


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server of its own whose commits outlive it: written before they are answered, if not forced to the disk."""
    with _postgres.throwaway() as throwaway:
        throwaway.stop()
        lasting = replace(throwaway, options=("-c", "fsync=off"))
        lasting.start()
        yield lasting


@pytest.fixture
def house(cluster: Cluster, settings: config.Settings, application: Flask) -> Iterator[Flask]:
    """A house of its own on that server; after it, the other one is in its place again."""
    ledger.forget_accounts()
    app = create_app(replace(settings, database_url=cluster.url()))
    db.migrations(app)
    with app.app_context():
        upgrade(directory="migrations")
    try:
        yield app
    finally:
        with app.app_context():
            for engine in db.db.engines.values():
                engine.dispose()
        config.use(settings)
        gateways.use(gateways.build(settings, application.extensions["sandbox_processor"]))
        ledger.forget_accounts()


@dataclass
class Heard:
    """What webhooks were answered: when each began and ended, and its status."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def post(self, app: Flask, body: bytes) -> bool:
        """Deliver it once, signed now; whether it was taken."""
        header, began = sign(body, processor(app).secret, int(clock.now().timestamp())), time.monotonic()
        status = app.test_client().post("/webhooks/sandbox", data=body, headers={SIGNATURE_HEADER: header}).status_code
        with self.news:
            self.answers.append((began, time.monotonic(), status))
            self.news.notify_all()
        return status == 200

    def wait_for(self, count: int, status: int) -> None:
        """Until so many were answered so."""
        with self.news:
            assert self.news.wait_for(lambda: sum(answer[2] == status for answer in self.answers) >= count, timeout=20)


def cut_off(cluster: Cluster, heard: Heard) -> tuple[float, float]:
    """Stop the server as `pg_ctl stop -m immediate` does, and start it again once its absence was felt; the two moments."""
    pid = cluster.postmaster()
    assert pid
    gone = time.monotonic()
    os.kill(pid, signal.SIGQUIT)
    heard.wait_for(8, 503)
    _postgres._reap(pid)
    cluster.start()
    return gone, time.monotonic()


def test_a_database_that_is_cut_off_under_webhooks_loses_none_and_credits_each_once(cluster: Cluster, house: Flask):
    heard, stop = Heard(), threading.Event()
    with house.app_context():
        owed = [begin(topup(person(f"newcomer-{number}", profile=replace(BERLIN, currency=None)), Money(20_00 + number, "EUR"))) for number in range(32)]
        for payment in owed:
            choose(house, payment, "silent")
    told = [
        json.dumps({"id": f"sbe_{turn}_{payment.id}", "type": "payment.paid", "created": 1790000000, "account": "acct_sandbox", "reference": payment.gateway_reference}).encode()
        for turn in range(3)
        for payment in owed
    ]

    def deliver(share: int) -> None:
        for body in told[share::4]:
            while not heard.post(house, body):
                stop.wait(0.01)

    worker = threading.Thread(target=jobs.run, args=(house, [jobs.Job("webhooks", 0.05, payments.process_due, "")], stop))
    worker.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            delivered = [pool.submit(deliver, share) for share in range(4)]
            heard.wait_for(30, 200)
            gone, back = cut_off(cluster, heard)
            for share in delivered:
                share.result()
        assert worker.is_alive()
    finally:
        stop.set()
        worker.join()
    assert {status for _, _, status in heard.answers} == {200, 503}
    assert [answer for answer in heard.answers if answer[2] == 503 and not (answer[1] > gone and answer[0] < back)] == []
    assert min(ended for began, ended, status in heard.answers if status == 200 and began > back) - back < 5
    with house.app_context():
        with clock.travel(clock.now() + timedelta(minutes=1)):
            payments.process_due()
        assert [tuple(row) for row in db.rows("select state, count(*) from webhooks group by 1")] == [("done", len(told))]
        assert [tuple(row) for row in db.rows("select state, count(*), sum(credited) from payments group by 1")] == [("paid", 32, sum(payment.amount for payment in owed))]
        assert [tuple(row) for row in db.rows("select count(*) as every, count(distinct payment_id) as paid from transfers where kind = 'topup'")] == [(32, 32)]
        assert list(ledger.check()) == []
