"""The one cookie a script writes, and the one file a start keeps."""

import os
import re
import stat
from pathlib import Path

import _run
import pytest
from flask import Flask

import config
from tests.security.test_answers import SECURE, over_https

PROJECT = Path(__file__).parents[2]


def test_over_https_the_choice_of_colours_is_read_from_a_cookie_of_this_host(app: Flask, settings: config.Settings) -> None:
    with over_https(app, settings) as secure:
        client = secure.test_client()
        for name, drawn in (("__Host-theme", True), ("theme", False)):
            client.set_cookie(name, "dark", domain="billing.example", secure=True)
            page = client.get("/login", base_url=SECURE).text
            assert ('data-theme="dark"' in page) == drawn
            client.delete_cookie(name, domain="billing.example")
        for value in ('"><script>', "dark\r\nX: 1", "sepia"):
            client.set_cookie("__Host-theme", value, domain="billing.example", secure=True)
            assert "data-theme" not in client.get("/login", base_url=SECURE).text.partition(">")[0] + ">"
    script = (PROJECT / "static/js/app.js").read_text()
    written = re.search(r"const \[prefix, secure\] = (.*?);\n\s*document\.cookie = (.*?);\n", script)
    assert written
    assert '"__Host-", "; secure"' in written[1]
    assert "path=/" in written[2]
    assert "samesite=lax" in written[2]
    assert script.count("document.cookie") == 1


def test_what_a_start_keeps_can_be_read_by_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "INSTANCE", tmp_path)
    before = os.umask(0)
    try:
        _run._keep(tmp_path / "secret_key", "k" * 48)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret_key"]


def test_the_log_can_be_read_by_its_owner_alone_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "LOG", tmp_path / "log" / "client-area.log")
    before = os.umask(0)
    try:
        for word in (b"first\n", b"second\n"):
            with _run._open_log() as log:
                log.write(word)
    finally:
        os.umask(before)
    assert stat.S_IMODE(_run.LOG.stat().st_mode) == 0o600
    assert stat.S_IMODE(_run.LOG.parent.stat().st_mode) == 0o700
    assert _run.LOG.read_bytes() == b"first\nsecond\n"
