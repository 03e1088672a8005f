"""An outsider's HTTP server on the loopback, with every way of failing that real ones have."""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.money import Money
from tests.fakes.schemas import Key, Schema


@dataclass(frozen=True)
class Sums:
    """What an outsider's own books say of one currency, in minor units: what came, and what of it left again or was kept."""

    received: int = 0
    refunded: int = 0
    disputed: int = 0
    fees: int = 0

    @property
    def held(self) -> int:
        """What is still there for us."""
        return self.received - self.refunded - self.disputed - self.fees


def books(**entries: Iterable[Money]) -> dict[str, Sums]:
    """The sums of each currency, of the money received, refunded, disputed and kept as fees."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for name, moved in entries.items():
        for money in moved:
            sums[money.currency][name] += money.minor
    return {currency: Sums(**of) for currency, of in sums.items()}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Call:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


@dataclass
class Loopback:
    """A server. `script` holds what becomes of the coming calls: a key of `_FAILURES`, or hang- or drop-, before or after the effect.

    `lose` is a path: the next POST to it has its effect, and its answer is lost.
    """

    script: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    lose: str = ""
    hang_s: float = 1.0
    without: frozenset[Key] = frozenset()
    """Keys that are left out of every answer and event, though they may be there."""
    faults: set[str] = field(default_factory=set)
    """What it said that its processor would not say."""
    spared: set[Key] = field(default_factory=set)
    """What it said though it might have been left out."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.asleep = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"outsider": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.asleep.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.faults

    def said(self, schema: Schema, kind: str, value: Any) -> Any:
        """An answer or an event, held against what its processor publishes."""
        told = schema.without(kind, value, self.without)
        self.faults |= set(schema.problems(kind, told, self.without))
        self.spared |= set(schema.present(kind, told))
        return told

    def answer(self, call: Call) -> tuple[int, object]:
        """What it says to one call, and does. Raises Refusal."""
        raise NotImplementedError

    def paths(self, method: str) -> list[str]:
        """The paths asked so far by this method."""
        return [call.path for call in self.calls if call.method == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms for the first one's receipt
    outsider: Loopback

    def do_GET(self) -> None:
        """A read."""
        self._serve()

    def do_POST(self) -> None:
        """A write."""
        self._serve()

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        parts, outsider = urlsplit(self.path), self.outsider
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Call(self.command, parts.path, dict(parse_qsl(parts.query)), {name.lower(): value for name, value in self.headers.items()}, body)
        outsider.calls.append(call)
        mode = outsider.script.pop(0) if outsider.script else ""
        if call.method == "POST" and call.path == outsider.lose:
            outsider.lose, mode = "", "drop-after"
        if mode in _FAILURES:
            self._send(*_FAILURES[mode])
        elif mode.endswith("-before"):
            self._vanish(mode)
        else:
            status, said = self._answered(call)
            self._vanish(mode) if mode else self._send(status, said)

    def _answered(self, call: Call) -> tuple[int, bytes]:
        try:
            with self.outsider.lock:
                status, said = self.outsider.answer(call)
        except Refusal as refusal:
            status, said = refusal.status, refusal.body
        return status, said if isinstance(said, bytes) else json.dumps(said).encode()

    def _vanish(self, mode: str) -> None:
        if mode.startswith("hang"):
            self.outsider.asleep.wait(self.outsider.hang_s)
        self.close_connection = True

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Type", "application/json" if body[:1] in b"{[" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_FAILURES = {
    "401": (401, b'{"error": "invalid_token"}'),
    "403": (403, b'{"name": "NOT_AUTHORIZED"}'),
    "409": (409, b'{"name": "RESOURCE_CONFLICT"}'),
    "429": (429, b'{"name": "RATE_LIMIT_REACHED"}'),
    "500": (500, b'{"name": "INTERNAL_SERVER_ERROR"}'),
    "html": (502, b"<html><body>Bad Gateway</body></html>"),
    "junk": (200, b'{"id": "5O1'),
    "redirect": (302, b""),
}
