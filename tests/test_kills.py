"""Processes that are killed outright, in the middle of whatever they do, beside others that go on: each payment is credited once."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from flask import Flask

import config
from app import clock, db, ledger, payments
from app.money import Money
from tests.conftest import BERLIN, person
from tests.pay import begin, choose, publish_rates, topup

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
    assert db.scalar("select last from number_series where kind = 'invoice'") == 12
    assert list(ledger.check()) == []
