"""The Union's VAT register on the loopback: what each number is, as its REST service says it."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from app import clock
from tests.fakes.loopback import Call, Loopback, Refusal


@dataclass
class Vies(Loopback):
    """`registered` has the names of the numbers that are known; `down` the member states that do not answer, and with which error."""

    registered: dict[str, str] = field(default_factory=dict)
    down: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._consultations = count(1)
        super().__post_init__()

    def answer(self, call: Call) -> tuple[int, object]:
        """One question about one number. Raises Refusal."""
        if (call.method, call.path) != ("POST", "/check-vat-number"):
            raise Refusal(404, {"path": call.path})
        asked: dict[str, Any] = call.json
        state, number = asked["countryCode"], asked["vatNumber"]
        if state in self.down:
            raise Refusal(500, {"actionSucceed": False, "errorWrappers": [{"error": self.down[state]}]})
        name = self.registered.get(state + number)
        told = {"countryCode": state, "vatNumber": number, "requestDate": clock.now().isoformat(), "valid": name is not None, "name": name or "---", "address": "---"}
        if asked.get("requesterNumber"):
            told["requestIdentifier"] = f"WAPIAAAAX{next(self._consultations):06}"
        return 200, told
