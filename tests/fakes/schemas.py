"""What processors publish of their answers: which keys an object has, which of them may be left out or be null, and of what type they are.

The tables in `tests/data/schemas` are facts taken from each processor's own published schema. A fake holds every answer against them before it
gives it, and can leave out what a processor may leave out.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

Key = tuple[str, str]
"""The name of a table and of a key in it."""

_PYTHON = {"string": str, "boolean": bool, "object": dict, "null": type(None), "array": list}


class Schema:
    """The tables of one processor."""

    def __init__(self, name: str) -> None:
        found = json.loads((Path(__file__).parents[1] / "data" / "schemas" / f"{name}.json").read_text())
        self.name: str = name
        self.enums: Mapping[str, list[str]] = found["enums"]
        self.types: Mapping[str, Mapping[str, list[str]]] = {
            kind: {key.removesuffix("?"): types.split(" | ") for key, types in table.items()} for kind, table in found["types"].items()
        }
        self.optional = frozenset((kind, key[:-1]) for kind, table in found["types"].items() for key in table if key.endswith("?"))

    def complete(self, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """These facts, and every required key that nothing is known of as null, where null is one of its types."""
        nulls = {key: None for key, types in self.types[kind].items() if "null" in types and (kind, key) not in self.optional}
        return {**nulls, **facts}

    def inner(self, kind: str, key: str, value: Any) -> str:
        """The table that a value under a key is an object, or a list of objects, of; nothing for any other."""
        for one in self.types.get(kind, {}).get(key, []):
            named = one.rpartition("@")[2] if "@" in one else ""
            if named and isinstance(value, dict) != one.startswith("array"):
                return named
        return ""

    def without(self, kind: str, value: Any, left_out: frozenset[Key]) -> Any:
        """A value of a table with these keys left out, however deep."""
        if isinstance(value, list):
            return [self.without(kind, one, left_out) for one in value]
        if not isinstance(value, dict):
            return value
        if kind not in self.types:
            return value
        if kind != "list" and set(value) == {"object", "url", "has_more", "data"}:
            return value | {"data": self.without(kind, value["data"], left_out)}
        kept = {key: item for key, item in value.items() if (kind, key) not in left_out}
        return {key: self.without(named, item, left_out) if (named := self.inner(kind, key, item)) else item for key, item in kept.items()}

    def present(self, kind: str, value: Any) -> Iterator[Key]:
        """The keys of an answer that might have been left out, however deep."""
        if isinstance(value, list):
            for one in value:
                yield from self.present(kind, one)
        elif isinstance(value, dict) and kind != "list" and set(value) == {"object", "url", "has_more", "data"}:
            yield from self.present(kind, value["data"])
        elif isinstance(value, dict):
            for key, item in value.items():
                if (kind, key) in self.optional:
                    yield kind, key
                if named := self.inner(kind, key, item):
                    yield from self.present(named, item)

    def problems(self, kind: str, value: Any, left_out: frozenset[Key] = frozenset(), path: str = "") -> Iterator[str]:
        """What an answer has that its processor would not give, or has not that it would."""
        path = path or kind
        if isinstance(value, list):
            for one in value:
                yield from self.problems(kind, one, left_out, f"{path}[]")
            return
        table = self.types[kind]
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        if kind != "list" and set(value) == {"object", "url", "has_more", "data"}:
            yield from self.problems(kind, value["data"], left_out, path)
            return
        yield from (f"{path}.{key} is missing" for key in table if key not in value and (kind, key) not in self.optional | left_out)
        for key, item in value.items():
            if key not in table:
                yield f"{path}.{key} is unknown"
            elif not any(_fits(item, one) for one in table[key]):
                yield f"{path}.{key} is {type(item).__name__}, not {' | '.join(table[key])}"
            elif item is not None and (named := self.inner(kind, key, item)):
                yield from self.problems(named, item, left_out, f"{path}.{key}")


def _fits(value: Any, type_: str) -> bool:
    if type_ == "number":
        return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if type_.startswith(("@", "list of")):
        return isinstance(value, dict)
    return isinstance(value, _PYTHON[type_.partition(" ")[0]])


@cache
def schema(name: str) -> Schema:
    """The tables of a processor, read once."""
    return Schema(name)
