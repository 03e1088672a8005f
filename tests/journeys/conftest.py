"""The house at a real address, and a real browser that visits it: one of each for all journeys."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, expect, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

import config
from app import create_app, customers, db, gateways, payments
from app.sandbox_processor import PretendProcessor

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 20_000
WATCH_POLICY = """addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))"""


class Quiet(WSGIRequestHandler):
    """A request handler whose log is the house's own."""

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the server's own signature
        """Nothing: every request stands in the house's log already."""


@dataclass(frozen=True)
class Site:
    """The house as it is reached from outside."""

    app: Flask
    settings: config.Settings

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return self.settings.base_url

    @property
    def processor(self) -> PretendProcessor:
        """The pretend processor that belongs to it."""
        return self.app.extensions["sandbox_processor"]

    def work(self) -> None:
        """What the jobs process does for payments, once: the processor's webhooks travel to the real address and are worked."""
        self.processor.deliver()
        payments.process_due()

    def open_for_business(self) -> None:
        """Make this house's settings and gateways those of the process."""
        config.use(self.settings)
        gateways.use(gateways.build(self.settings, self.processor))


@pytest.fixture(scope="session")
def served(settings: config.Settings, application: Flask) -> Iterator[Site]:
    """The house on a port of this machine."""
    with serving(settings, application) as site:
        yield site


@contextmanager
def serving(settings: config.Settings, application: Flask, **changed: Any) -> Iterator[Site]:
    """A house with these settings, served by threads of this process."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        own = replace(settings, base_url=f"http://127.0.0.1:{door.getsockname()[1]}", testing=False, **changed)
        site = Site(create_app(own), own)
        server = make_server("127.0.0.1", own.base_url.rsplit(":", 1)[1], site.app, threaded=True, request_handler=Quiet, fd=door.fileno())
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        Site(application, settings).open_for_business()
        yield site
        server.shutdown()
        thread.join()
        server.server_close()
    with site.app.app_context():
        for engine in db.db.engines.values():
            engine.dispose()


@pytest.fixture
def site(served: Site, app: Flask, settings: config.Settings) -> Iterator[Site]:
    """The house on an empty database, open for business; its context is the test's."""
    served.open_for_business()
    with served.app.app_context():
        yield served
    Site(app, settings).open_for_business()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all journeys. bin/test names it; it is never skipped."""
    program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if program is None:
        raise pytest.UsageError("No Chromium found: run bin/test, which installs one, or name it in CHROMIUM.")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong in a page without anybody looking: the console, the policy, scripts, files, answers of the server."""

    found: list[str] = field(default_factory=list)
    allowed: set[int] = field(default_factory=set)

    def over(self, page: Page) -> None:
        """Look at this page from now on."""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.found.append(f"script: {error}"))
        page.on("requestfailed", self._miss)
        page.on("response", self._judge)
        page.on("request", self._read)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.found.append(f"console: {message.text}")

    def _miss(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # a download, or a page that was left
            self.found.append(f"{request.failure}: {request.url}")

    def _read(self, request: Request) -> None:
        if "csrf_token" in request.url:
            self.found.append(f"a token in an address: {request.url}")

    def _judge(self, response: Response) -> None:
        bearable = 500 if response.request.resource_type in {"document", "xhr", "fetch"} else 400
        if response.status >= bearable and response.status not in self.allowed:
            self.found.append(f"{response.status}: {response.url}")


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Nothing may go wrong unseen in any journey."""
    watching = Watch()
    yield watching
    assert watching.found == []


@dataclass(frozen=True)
class Browsers:
    """Opens browser windows that share nothing, each watched."""

    chromium: Browser
    site: Site
    watch: Watch
    contexts: list[BrowserContext] = field(default_factory=list)

    def window(self, user: customers.User | None = None, width: int = 1280, height: int = 900, **options) -> Page:
        """A new window, signed in as that user."""
        options.setdefault("reduced_motion", "reduce")
        context = self.chromium.new_context(base_url=self.site.url, viewport={"width": width, "height": height}, locale="en-GB", timezone_id="Europe/Berlin", **options)
        context.set_default_timeout(PATIENCE_MS)
        if options.get("java_script_enabled", True):
            context.add_init_script(WATCH_POLICY)
        self.contexts.append(context)
        if user is not None:
            token = customers.open_session(user.id, ip="127.0.0.1", user_agent="Chromium Linux")
            context.add_cookies([{"name": "sid", "value": token, "url": self.site.url, "httpOnly": True, "sameSite": "Lax"}])
        page = context.new_page()
        self.watch.over(page)
        return page

    def close(self) -> None:
        """Close every window."""
        for context in self.contexts:
            context.close()


@pytest.fixture
def browsers(chromium: Browser, site: Site, watch: Watch) -> Iterator[Browsers]:
    """A way to open windows; all are closed before the database is emptied."""
    opened = Browsers(chromium, site, watch)
    yield opened
    opened.close()
