"""For the machines around the house."""

import psycopg
import pytest


def test_alive_without_asking_anything(anonymous, monkeypatch):
    monkeypatch.setattr("app.db.rows", lambda *_args, **_params: pytest.fail("asked the database"))
    assert anonymous.get("/healthz").text == "ok\n"


def test_ready_when_the_database_stands_at_this_programs_migration(anonymous, superuser: psycopg.Connection):
    assert (anonymous.get("/readyz").status_code, anonymous.get("/readyz").text) == (200, "ready\n")
    (version,) = superuser.execute("update alembic_version set version_num = '0001' returning (select version_num from alembic_version)").fetchone()
    try:
        behind = anonymous.get("/readyz")
    finally:
        superuser.execute("update alembic_version set version_num = %s", (version,))
    assert behind.status_code == 503
    assert "flask db upgrade" in behind.text


def test_metrics_count_what_matters(owner, demo_customer):
    lines = owner.get("/metrics").text.splitlines()
    assert "# TYPE client_area_renewals_waiting gauge" in lines
    assert "client_area_renewals_waiting 0" in lines


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "198.51.100.7"}, {"Forwarded": "for=198.51.100.7"}, {"X-Real-IP": "198.51.100.7"}])
def test_metrics_are_not_given_through_a_proxy(anonymous, headers):
    assert anonymous.get("/metrics", headers=headers).status_code == 404


def test_metrics_are_not_given_to_another_machine(anonymous):
    assert anonymous.get("/metrics", environ_base={"REMOTE_ADDR": "198.51.100.7"}).status_code == 404
