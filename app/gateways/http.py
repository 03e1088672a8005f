"""One JSON call over HTTP, for the gateways that need no SDK: it ends, it follows nothing, and no amount in it becomes a float."""

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import certifi
import urllib3

from app import outside
from app.gateways.base import GatewayError, Misconfigured, NoAnswer, placed
from app.languages import N_

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.05, 15.0
LONGEST_S = 20.0
"""How long a whole answer may take, however steadily it drips."""
PART = 64 * 1024
LARGEST_ANSWER = 4 * 1024 * 1024
REFUSED = N_("The processor refused this payment. Nothing was charged.")

_pool = outside.watched(
    urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        retries=False,
        ca_certs=certifi.where(),
    )
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, and the JSON of the body with its fractions as Decimal (None for an empty one)."""

    status: int
    body: Any


def call(
    method: str,
    url: str,
    *,
    query: Mapping[str, str | int] | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    expected: Collection[int] = (),
) -> Answer:
    """One call; any 2xx and the `expected` statuses are returned.

    Raises Misconfigured for a wrong key (401, 403) and for a request the processor will never take (other 4xx: what a processor says of a payer
    is among the `expected`), NoAnswer for everything that is no answer: a time-out, a broken line, a redirect, 429, 5xx, a body that is no JSON.
    """
    status, data = fetch(method, f"{url}?{urlencode(query)}" if query else url, body, headers)
    if not 200 <= status < 300 and status not in expected:
        raise _refusal(method, url, status, data)
    try:
        return Answer(status, placed(json.loads(data, parse_float=Decimal)) if data else None)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"{method} {url}: {status}, no JSON") from error


def fetch(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Status and raw body of one call. Raises NoAnswer when there is no whole one."""
    try:
        with outside.call(LONGEST_S):
            response = _pool.request(method, url, body=body, headers=dict(headers or {}), redirect=False, preload_content=False)
            try:
                data = _read(response)
            finally:
                response.release_conn()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise NoAnswer(f"{method} {url}: {error!r}") from error
    if len(data) > LARGEST_ANSWER:
        raise NoAnswer(f"{method} {url}: more than {LARGEST_ANSWER} bytes")
    return response.status, data


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body, one part more than the largest at most."""
    data = bytearray()
    while len(data) <= LARGEST_ANSWER and (part := response.read1(PART)):
        data += part
    return bytes(data)


def write_json(value: object) -> bytes:
    """A value as the bytes of its JSON."""
    return json.dumps(value, ensure_ascii=False).encode()


def basic(user: str, password: str) -> str:
    """The Authorization header of a name and a password."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def read_base64(text: str) -> bytes:
    """The bytes of strict base64. Raises ValueError."""
    return base64.b64decode(text, validate=True)


def _refusal(method: str, url: str, status: int, data: bytes) -> GatewayError:
    detail = f"{method} {url}: {status} {data[:300].decode('utf-8', 'replace')}"
    return Misconfigured(detail) if 400 <= status < 500 and status not in (408, 409, 425, 429) else NoAnswer(detail)
