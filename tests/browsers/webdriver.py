"""Firefox and WebKitGTK as a distribution ships them, driven by the commands of WebDriver (W3C).

Firefox takes the commands as Marionette messages over a socket, WebKit as HTTP from its driver; what they mean is the same.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 20
PREFERENCES = {
    "marionette.port": 0,
    "app.update.auto": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "network.captive-portal-service.enabled": False,
    "dom.disable_open_during_load": False,
}
MINI_BROWSERS = ("/usr/lib/*/webkit2gtk-4.1/MiniBrowser", "/usr/lib/*/webkitgtk-6.0/MiniBrowser")
CENTRE = """
const [element] = arguments;
element.scrollIntoView({ block: "center" });
const box = element.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""


class BrowserError(Exception):
    """A browser refused a command, or is gone."""


Send = Callable[[str, str, dict[str, Any]], Any]
"""Sends a command by its HTTP method, its path below the session and its parameters."""

MARIONETTE = {
    ("POST", "url"): "WebDriver:Navigate",
    ("GET", "url"): "WebDriver:GetCurrentURL",
    ("POST", "back"): "WebDriver:Back",
    ("POST", "execute/sync"): "WebDriver:ExecuteScript",
    ("POST", "actions"): "WebDriver:PerformActions",
    ("POST", "window/rect"): "WebDriver:SetWindowRect",
    ("GET", "screenshot"): "WebDriver:TakeScreenshot",
}


class Remote:
    """One window of one browser."""

    def __init__(self, name: str, send: Send) -> None:
        self.name, self._send = name, send
        self._send("POST", "window/rect", {"width": 1280, "height": 1000})

    def open(self, url: str) -> None:
        """Load an address and wait for it."""
        self._send("POST", "url", {"url": url})

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self._send("GET", "url", {}))

    def back(self) -> None:
        """One step back in the history."""
        self._send("POST", "back", {})

    def run(self, script: str, *args: Any) -> Any:
        """The value that a script returns in the page."""
        return self._send("POST", "execute/sync", {"script": script, "args": list(args)})

    def of(self, selector: str, script: str) -> Any:
        """What a script says of the first `element` of a selector."""
        return self.run(f"const element = document.querySelector(arguments[0]); {script}", selector)

    def press_at(self, x: float, y: float) -> None:
        """Press and release the pointer at a point of the window."""
        at = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
        steps = [at, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._act({"type": "pointer", "id": "pointer", "parameters": {"pointerType": "mouse"}, "actions": steps})

    def press(self, selector: str) -> None:
        """Press the middle of the first element of a selector, once it is there."""
        self.wait(f"return Boolean(document.querySelector({json.dumps(selector)}))")
        self.press_at(*self.run(CENTRE.replace("arguments", f"[document.querySelector({json.dumps(selector)})]")))

    def write(self, text: str) -> None:
        """Type with the keyboard into whatever has the focus."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": keys})

    def wait(self, script: str) -> None:
        """Wait until a script returns something true. Raises BrowserError after a while."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(script):
            if time.monotonic() > deadline:
                raise BrowserError(f"{self.name} waited in vain at {self.url} for: {script}")
            time.sleep(0.05)

    def wait_for_address(self, pattern: str) -> None:
        """Wait until the address matches."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.url):
            if time.monotonic() > deadline:
                raise BrowserError(f"{self.name} is still at {self.url}, not {pattern}")
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        """Keep what the window shows."""
        path.write_bytes(b64decode(self._send("GET", "screenshot", {"full": False})))

    def _act(self, source: dict[str, Any]) -> None:
        self._send("POST", "actions", {"actions": [source]})


@contextmanager
def firefox(place: Path) -> Iterator[Remote]:
    """A headless Firefox with a profile of its own."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        raise BrowserError("There is no Firefox: bin/test-browsers installs it.")
    profile = place / "firefox"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    with running(command, {"HOME": str(place), "MOZ_HEADLESS_WIDTH": "1280", "MOZ_HEADLESS_HEIGHT": "1000"}):
        port = int(_awaited((profile / "MarionetteActivePort").read_text))
        with closing(socket.create_connection(("127.0.0.1", port), timeout=60)) as line, closing(line.makefile("rb")) as answers:
            _message(answers)  # who is there
            numbers = iter(range(1, 1_000_000))

            def call(command: str, parameters: dict[str, Any]) -> Any:
                text = json.dumps([0, next(numbers), command, parameters])
                line.sendall(f"{len(text.encode())}:{text}".encode())
                _, _, error, result = _message(answers)
                if error:
                    raise BrowserError(f"Firefox: {error['error']}: {error['message']}")
                return result["value"] if isinstance(result, dict) and result.keys() == {"value"} else result

            call("WebDriver:NewSession", {})
            yield Remote("Firefox", lambda method, path, parameters: call(MARIONETTE[method, path], parameters))


def _message(answers: Any) -> Any:
    """One message of Marionette: its length, a colon, JSON."""
    size = b""
    while not size.endswith(b":"):
        piece = answers.read(1)
        if not piece:
            raise BrowserError("Firefox is gone.")
        size += piece
    return json.loads(answers.read(int(size[:-1])))


@contextmanager
def webkit(place: Path) -> Iterator[Remote]:
    """WebKitGTK's own small browser on a screen that nobody sees."""
    browser = next((str(found) for pattern in MINI_BROWSERS for found in Path("/").glob(pattern[1:])), None)
    driver, screen = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    if not (browser and driver and screen):
        raise BrowserError("There is no WebKit: bin/test-browsers installs it.")
    with ExitStack() as stack:
        display, theirs = os.pipe()
        stack.enter_context(running([screen, "-displayfd", str(theirs), "-screen", "0", "1400x1100x24", "-nolisten", "tcp"], {}, theirs))
        os.close(theirs)
        with os.fdopen(display) as said:
            number = said.readline().strip()
        with closing(socket.create_server(("127.0.0.1", 0))) as door:
            port = door.getsockname()[1]
        environ = {"DISPLAY": f":{number}", "HOME": str(place), "XDG_RUNTIME_DIR": str(place), "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "LANG": "C.UTF-8"}
        stack.enter_context(running([driver, f"--port={port}"], environ))
        base = f"http://127.0.0.1:{port}"
        _awaited(lambda: json.dumps(_http("GET", f"{base}/status")))
        options = {"browserName": "MiniBrowser", "webkitgtk:browserOptions": {"binary": browser, "args": ["--automation"]}}
        session = _http("POST", f"{base}/session", {"capabilities": {"alwaysMatch": options}})["sessionId"]
        yield Remote("WebKit", lambda method, path, parameters: _http(method, f"{base}/session/{session}/{path}", parameters))
        _http("DELETE", f"{base}/session/{session}")


def _http(method: str, url: str, parameters: dict[str, Any] | None = None) -> Any:
    body = json.dumps(parameters or {}).encode() if method == "POST" else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as refused:
        value = json.load(refused)["value"]
        raise BrowserError(f"WebKit: {value['error']}: {value['message']}") from None


@contextmanager
def running(command: list[str], environ: dict[str, str], *files: int) -> Iterator[None]:
    """A program with this environment beside ours, ended afterwards."""
    with subprocess.Popen(command, env=os.environ | environ, pass_fds=files, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _awaited(look: Callable[[], str]) -> str:
    """What there is to see, once there is something."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if found := look():
                return found
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
