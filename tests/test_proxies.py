"""Who is really asking: what is believed of a proxy's words, and from whom."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import config
from app import logs
from app.web import proxies
from app.web.proxies import Proxies, read_address

EDGE, INNER, VISITOR = "10.0.0.7", "10.0.0.8", "93.184.216.34"


def settings(trusted: str = "10.0.0.0/24, fd00::/8", base_url: str = "https://billing.example"):
    environ = {
        "DATABASE_URL": "postgresql://x",
        "SECRET_KEY": "s" * 48,
        "BASE_URL": base_url,
        "SANDBOX": "on",
        "TRUSTED_PROXIES": trusted,
    }
    return config.load(environ)


def ask(peer: str, trusted: str = "10.0.0.0/24, fd00::/8", path: str = "/", **headers: str) -> dict[str, Any]:
    """What the application sees of a request by this peer."""
    seen: dict[str, Any] = {}
    given = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "PATH_INFO": path, **given}
    Proxies(lambda environ, start: seen.update(environ) or [], settings(trusted))(environ, print)
    return seen


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    listener = logging.Handler()
    listener.emit = lambda record: found.append(json.loads(logs.JsonLines().format(record)))  # type: ignore[method-assign]
    logs.log.addHandler(listener)
    yield found
    logs.log.removeHandler(listener)


@pytest.mark.parametrize(
    ("peer", "chain", "visitor"),
    [
        (EDGE, VISITOR, VISITOR),
        (EDGE, f"1.2.3.4, {VISITOR}", VISITOR),
        (EDGE, f"1.2.3.4, {VISITOR}, {INNER}", VISITOR),
        (EDGE, f"10.0.0.9, {VISITOR}, {INNER}", VISITOR),
        (EDGE, "2001:db8::7", "2001:db8::7"),
        (EDGE, "[2001:DB8::7]:4711", "2001:db8::7"),
        (EDGE, f"{VISITOR}:4711", VISITOR),
        (EDGE, f"::ffff:{VISITOR}", VISITOR),
        ("fd00::1", "2001:db8::7, fd12::3", "2001:db8::7"),
        (f"::ffff:{EDGE}", VISITOR, VISITOR),
        (EDGE, f"unknown, {VISITOR}", VISITOR),
        (EDGE, f"{VISITOR}, unknown", EDGE),
        (EDGE, f"{VISITOR}, {INNER}, _hidden", EDGE),
        (EDGE, f"garbage', {INNER}", INNER),
        (EDGE, "", EDGE),
        (EDGE, ",,,", EDGE),
        (EDGE, "999.1.1.1", EDGE),
        (EDGE, f"{INNER}, {EDGE}", INNER),
        (EDGE, ", ".join([VISITOR] + [INNER] * 500), INNER),
        ("198.51.100.1", VISITOR, "198.51.100.1"),
        ("127.0.0.1", VISITOR, "127.0.0.1"),
        ("10.0.1.7", VISITOR, "10.0.1.7"),
    ],
)
def test_the_visitor_is_the_last_who_is_no_proxy_of_ours(peer, chain, visitor):
    seen = ask(peer, x_forwarded_for=chain, x_real_ip="6.6.6.6", forwarded="for=6.6.6.6")
    assert seen["REMOTE_ADDR"] == visitor
    assert [name for name in proxies.HEADERS if name in seen] == []
    assert seen[proxies.FORWARDED] is True


def test_without_a_proxy_nothing_is_said_and_nothing_believed():
    assert ask(VISITOR)[proxies.FORWARDED] is False
    assert ask(EDGE, trusted="", x_forwarded_for=VISITOR)["REMOTE_ADDR"] == EDGE


@pytest.mark.parametrize(
    ("chain", "schemes", "scheme"),
    [
        (VISITOR, "https", "https"),
        (VISITOR, "HTTPS", "https"),
        (VISITOR, "https, http", "http"),
        (f"{VISITOR}, {INNER}", "https, http", "https"),
        (f"{VISITOR}, {INNER}", "https", "https"),
        (VISITOR, "javascript", "http"),
        ("", "https", "https"),
        (VISITOR, "", "http"),
    ],
)
def test_the_scheme_is_the_one_the_visitor_spoke(chain, schemes, scheme):
    assert ask(EDGE, x_forwarded_for=chain, x_forwarded_proto=schemes)["wsgi.url_scheme"] == scheme
    assert ask("198.51.100.1", x_forwarded_for=chain, x_forwarded_proto="https")["wsgi.url_scheme"] == "http"


def test_the_host_is_the_one_the_visitor_asked_for():
    asked = {"x_forwarded_for": VISITOR, "host": "app:8000"}
    assert ask(EDGE, **asked, x_forwarded_host="billing.example:8443")["HTTP_HOST"] == "billing.example:8443"
    assert ask(EDGE, **asked, x_forwarded_host="evil.example, billing.example")["HTTP_HOST"] == "billing.example"
    assert ask(EDGE, **asked, x_forwarded_host="a b\r\nX: y")["HTTP_HOST"] == "app:8000"
    assert ask(VISITOR, **asked, x_forwarded_host="evil.example")["HTTP_HOST"] == "app:8000"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_probe_may_call_us_by_any_name(path):
    assert ask(VISITOR, path=path, host="10.42.0.3:8000")["HTTP_HOST"] == "billing.example"
    assert ask(VISITOR, path=f"{path}/", host="10.42.0.3:8000")["HTTP_HOST"] == "10.42.0.3:8000"
    assert ask(VISITOR, path="/login", host="10.42.0.3:8000")["HTTP_HOST"] == "10.42.0.3:8000"


def test_a_proxy_nobody_named_is_said_once(lines):
    behind = Proxies(lambda environ, start: [], settings(trusted=""))
    for peer in (VISITOR, EDGE, INNER):
        behind({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": VISITOR}, print)
    assert [(line["event"], line["peer"]) for line in lines] == [("proxy_not_trusted", EDGE)]
    assert f"set TRUSTED_PROXIES={EDGE}" in behind.advice()


@pytest.mark.parametrize(
    ("peer", "trusted", "base_url", "chain"),
    [
        (EDGE, EDGE, "https://billing.example", VISITOR),
        (VISITOR, "", "https://billing.example", VISITOR),
        (EDGE, "", "http://localhost:8000", VISITOR),
        (EDGE, "", "https://billing.example", None),
    ],
)
def test_nothing_is_said_where_all_is_well(lines, peer, trusted, base_url, chain):
    behind = Proxies(lambda environ, start: [], settings(trusted, base_url))
    behind({"REMOTE_ADDR": peer, **({"HTTP_X_FORWARDED_FOR": chain} if chain else {})}, print)
    assert (lines, behind.advice()) == ([], "")


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4:x", "[::1", "::1:99999x", "1.2.3.4 5", "10.0.0.0/8", "\0"])
def test_what_is_no_address_is_none(text):
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("TRUSTED_PROXIES", "2", "TRUSTED_PROXIES: 2 is not an address or network"),
        ("TRUSTED_PROXIES", "10.0.0.7/24", "TRUSTED_PROXIES: 10.0.0.7/24 is not"),
        ("TRUSTED_PROXIES", "0.0.0.0/0", "would believe everybody"),
        ("TRUSTED_PROXIES", "10.0.0.1, ::/0", "would believe everybody"),
        ("METRICS_TOKEN", "short", "METRICS_TOKEN needs at least 16 bytes"),
        ("WEB_WORKERS", "0", "WEB_WORKERS=0 is not possible: give a whole number from 1 to 64."),
        ("WEB_THREADS", "many", "WEB_THREADS=many is not possible"),
        ("REQUEST_TIMEOUT", "61", "REQUEST_TIMEOUT=61 is not possible: give a whole number from 1 to 60."),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_the_start(name, value, sentence):
    environ = {"DATABASE_URL": "postgresql://x", "SECRET_KEY": "s" * 48, name: value}
    with pytest.raises(config.ConfigError) as refused:
        config.load(environ)
    assert sentence in str(refused.value)
