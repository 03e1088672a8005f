"""The proxies of docs/deploy, started as they are documented, before the server of bin/run."""

import http.client
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import _run
import pytest
from flask import Flask

import config
from app import db
from tests import certificates
from tests.conftest import BERLIN, PASSWORD, person

HOUSE = Path(__file__).parent.parent
DEPLOY = HOUSE / "docs/deploy"
VISITOR = "127.0.0.2"
"""Another address of the loopback than the proxy's own, so that both can be told apart."""
BODY_S = 2
"""How long a body may be silent in these tests; the documented ten seconds and twenty take too long."""


@dataclass
class Proxied:
    """A proxy that serves the house at https://localhost."""

    name: str
    port: int
    http_port: int
    context: ssl.SSLContext
    cookies: SimpleCookie = field(default_factory=SimpleCookie)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        """One answer; cookies are kept."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.context, source_address=(VISITOR, 0))
        kept = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        sent = {"Cookie": kept, "Referer": f"https://localhost:{self.port}/login", **{name.replace("_", "-"): value for name, value in headers.items()}}
        with closing(connection):
            connection.request("POST" if body is not None else "GET", path, body=body, headers=sent)
            answer = connection.getresponse()
            answer.text = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie", []):
            self.cookies.load(line)
        return answer


def nginx(folder: Path, ports: dict[str, int], made: certificates.Made) -> list[str]:
    """The command of nginx with the documented file in the frame that Debian gives it."""
    text = (DEPLOY / "nginx.conf").read_text().replace("billing.example.com;", "localhost;")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{ports['app']}").replace("listen 80;", f"listen 127.0.0.1:{ports['http']};")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{ports['https']} ssl")
    text = re.sub(r"ssl_certificate .+;", f"ssl_certificate {made.certificate};", text)
    text = re.sub(r"ssl_certificate_key .+;", f"ssl_certificate_key {made.key};", text)
    text = text.replace("client_body_timeout 10s", f"client_body_timeout {BODY_S}s")
    (folder / "client-area.conf").write_text(text)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    frame = f"pid {folder}/pid;\nerror_log {folder}/error.log;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}include {folder}/client-area.conf;\n}}\n"
    (folder / "nginx.conf").write_text(frame)
    return [program("NGINX_PROGRAM", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, ports: dict[str, int], made: certificates.Made) -> list[str]:
    """The command of Caddy with the documented file, a certificate given to it."""
    text = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{ports['app']}")
    text = text.replace("{\n\tservers", f"{{\n\tadmin off\n\thttp_port {ports['http']}\n\thttps_port {ports['https']}\n\tservers", 1)
    text = text.replace("\nbilling.example.com {", f"\nlocalhost {{\n\tbind 127.0.0.1\n\ttls {made.certificate} {made.key}", 1)
    text = text.replace("read_body 20s", f"read_body {BODY_S}s")
    (folder / "Caddyfile").write_text(text)
    return [program("CADDY_PROGRAM", "caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def program(variable: str, name: str) -> str:
    """A proxy's program. bin/test names it; it is never skipped."""
    found = os.environ.get(variable)
    if not found:
        raise pytest.UsageError(f"No {name} found: run bin/test, which brings one, or name it in {variable}.")
    return found


@contextmanager
def running(command: list[str], port: int, environ: dict[str, str]) -> Iterator[None]:
    """A process, until it is told to end; it listens before anything is asked of it."""
    process = subprocess.Popen(command, env=environ, cwd=HOUSE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        assert process.poll() is None, f"{command[0]} ended by itself"
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database_url: str, application: Flask) -> Iterator[Proxied]:
    """The house behind one proxy."""
    prepare: Callable[..., list[str]] = request.param
    folder = tmp_path_factory.mktemp("proxy")
    ports = {name: free_port() for name in ("app", "http", "https")}
    made = certificates.make(folder, "localhost")
    environ = {
        **os.environ,
        "DATABASE_URL": database_url,
        "SECRET_KEY": "s" * 48,
        "BASE_URL": f"https://localhost:{ports['https']}",
        "SANDBOX": "on",
        "TRUSTED_PROXIES": "127.0.0.1",
        "HOME": str(folder),
    }
    serve = _run._web("127.0.0.1", ports["app"], config.load(environ))
    with running(serve, ports["app"], environ), running(prepare(folder, ports, made), ports["https"], environ):
        yield Proxied(prepare.__name__, ports["https"], ports["http"], ssl.create_default_context(cafile=str(made.authority)))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_login_by_https_keeps_its_cookies_and_the_real_address(proxied: Proxied, app: Flask) -> None:
    person("anna", profile=BERLIN)
    form = proxied.ask("/login")
    assert form.headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains"
    token = re.search(r'name="csrf_token" value="([^"]+)"', form.text)
    assert token
    spoofed = {"X_Forwarded_For": "6.6.6.6", "X_Real_IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X_Forwarded_Host": "evil.example"}
    body = urlencode({"csrf_token": token[1], "login": "anna", "password": PASSWORD}).encode()
    entered = proxied.ask("/login", body, Content_Type="application/x-www-form-urlencoded", **spoofed)
    assert (entered.status, entered.headers["Location"]) == (303, "/balance")
    cookies = entered.headers.get_all("Set-Cookie", [])
    assert cookies
    assert all(cookie.startswith("__Host-") and "Secure" in cookie and "HttpOnly" in cookie for cookie in cookies)
    assert db.scalar("select host(ip::inet) from sessions order by id desc limit 1") == VISITOR
    assert "Balance" in proxied.ask("/balance").text


def test_what_is_for_machines_stays_inside(proxied: Proxied) -> None:
    assert proxied.ask("/metrics").status == 404
    assert proxied.ask("/readyz").text == "ready\n"
    assert proxied.ask("/healthz").status == 200


def test_plain_http_is_sent_to_https(proxied: Proxied) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxied.http_port, timeout=10)
    connection.request("GET", "/login?next=/balance", headers={"Host": "localhost"})
    answer = connection.getresponse()
    assert answer.status == 308
    assert re.fullmatch(r"https://localhost(:\d+)?/login\?next=/balance", answer.headers["Location"].replace("billing.example.com", "localhost"))
    connection.close()


def test_a_large_body_is_refused(proxied: Proxied) -> None:
    answer = proxied.ask("/login", b"x" * 3_000_000, Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 413


def test_a_silent_body_is_cut(proxied: Proxied) -> None:
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=30) as plain, proxied.context.wrap_socket(plain, server_hostname="localhost") as line:
        line.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\na")
        began = time.monotonic()
        with suppress(OSError):
            while line.recv(4096):
                pass
    assert time.monotonic() - began < BODY_S + 8
