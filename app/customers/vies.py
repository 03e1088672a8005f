"""The Union's register of VAT numbers, VIES, by its REST service.

Source: the Commission's description at https://ec.europa.eu/taxation_customs/vies/#/technical-information.
"""

import json
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

DEADLINE_S = 10
"""Seconds for a whole answer, however slowly it drips."""
LARGEST_ANSWER = 100_000
WRONG_NUMBER = "INVALID_INPUT"
"""The one error that says something of the number; every other one says that nobody could look."""


class Unavailable(Exception):
    """The register, or the member state behind it, gave no answer; the message is its code or what failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the register says of a number. `consultation` proves to a tax office that it was asked; empty without a number of ours.

    `name` and `address` are empty where the member state does not tell them.
    """

    valid: bool
    consultation: str = ""
    name: str = ""
    address: str = ""


def ask(base: str, vat_id: str, requester: str = "") -> Answer:
    """Ask the service at `base` whether a VAT ID with its prefix is registered. `requester` is our own VAT ID. Raises Unavailable."""
    wanted = {"countryCode": vat_id[:2], "vatNumber": vat_id[2:]}
    if requester:
        wanted |= {"requesterMemberStateCode": requester[:2], "requesterNumber": requester[2:]}
    try:
        said = json.loads(_post(f"{base}/check-vat-number", json.dumps(wanted).encode()))
    except (OSError, HTTPException, ValueError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    return _read(said)


def _read(said: Any) -> Answer:
    if not isinstance(said, dict):
        raise Unavailable("the answer is no object")
    if errors := said.get("errorWrappers"):
        code = str(errors[0].get("error", "")) if isinstance(errors, list) and isinstance(errors[0], dict) else str(errors)
        if code == WRONG_NUMBER:
            return Answer(valid=False)
        raise Unavailable(code)
    if not isinstance(said.get("valid"), bool):
        raise Unavailable("the answer does not say whether the number is valid")
    return Answer(said["valid"], *(_text(said.get(name)) for name in ("requestIdentifier", "name", "address")))


def _text(value: object) -> str:
    """A text of the register without its dashes for "not told"."""
    words = " ".join(str(value).split()) if isinstance(value, str) else ""
    return "" if set(words) <= {"-"} else words[:500]


def _post(url: str, body: bytes) -> bytes:
    request = Request(url, body, {"Content-Type": "application/json", "Accept": "application/json"})  # noqa: S310 - the settings' own address
    ends = time.monotonic() + DEADLINE_S
    try:
        answer = urlopen(request, timeout=DEADLINE_S)  # noqa: S310 - the same
    except HTTPError as refused:  # errors come with a body that says which
        answer = refused
    with answer:
        whole = b""
        while piece := answer.read1(16_384):
            whole += piece
            if time.monotonic() > ends:
                raise TimeoutError("the answer took too long")
            if len(whole) > LARGEST_ANSWER:
                raise ValueError("the answer is too large")
        return whole
