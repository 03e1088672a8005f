"""What docs/security.md says is what the code does: figures, tables, modules, settings."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

import config
from app import customers, db, money, payments
from app.web import gate

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs/security.md").read_text()
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def section(title: str) -> str:
    """The text under one heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every line of every table."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def seconds(text: str) -> int:
    """A span of time as the document writes it."""
    number, unit = text.split()
    return int(number) * UNITS[unit]


def test_every_figure_is_the_codes() -> None:
    checked, wrong = 0, []
    for cells in rows(TEXT):
        for cell in cells:
            named = re.fullmatch(r"`(app[\w.]*):(\w+)`", cell)
            if named:
                checked += 1
                value = getattr(importlib.import_module(named[1]), named[2])
                said = cells[cells.index(cell) - 1]
                figure = seconds(said) if isinstance(value, timedelta) else int(said.replace(",", ""))
                real = int(value.total_seconds()) if isinstance(value, timedelta) else int(value)
                if figure != real:
                    wrong.append(f"{cell}: the document says {said}, the code {value}")
    assert wrong == []
    assert checked > 15


def test_every_module_that_is_named_exists() -> None:
    for name in re.findall(r"`(app(?:\.\w+)+)`", TEXT):
        assert importlib.import_module(name)
    for path in re.findall(r"`((?:app|tests|bin)/[\w/.]+\.py)`", TEXT):
        assert (PROJECT / path).exists(), path


# Rate limits


def counted(module: str, text: str) -> Iterator[tuple[str, int, int]]:
    """Every rule of counting in a source: (key, limit, seconds)."""
    names = vars(importlib.import_module(module))
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ListComp | ast.GeneratorExp) and is_rule(node.elt):
            loop = node.generators[0]
            for values in eval(ast.unparse(loop.iter), names):
                inside = dict(zip([ast.unparse(name) for name in loop.target.elts], values, strict=True))
                yield from found(node.elt, {**names, **inside})
        elif is_rule(node):
            yield from found(node, names)


def is_rule(node: ast.AST) -> bool:
    """Whether this is a key with its limit and window."""
    if not (isinstance(node, ast.Tuple) and len(node.elts) in {2, 3} and isinstance(node.elts[0], ast.JoinedStr)):
        return False
    start = node.elts[0].values[0]
    return isinstance(start, ast.Constant) and bool(re.match(r"[a-z][a-z.\- ]+[: ]$", str(start.value)))


def found(node: ast.Tuple, names: dict[str, object]) -> Iterator[tuple[str, int, int]]:
    """The rule, with what its names mean; nothing where they mean nothing here."""
    key = re.sub(r"[: ]+$", "", str(node.elts[0].values[0].value))
    try:
        limit, window = eval(f"({', '.join(ast.unparse(part) for part in node.elts[1:])},)", names)
    except (NameError, ValueError):
        return
    if isinstance(limit, int) and isinstance(window, timedelta):
        yield key, limit, int(window.total_seconds())


def limits_of_the_code() -> set[tuple[str, int, int]]:
    """Every rule of the app."""
    every = set()
    for file in sorted((PROJECT / "app").rglob("*.py")):
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        text = file.read_text()
        if "count(" in text or "rules" in text:
            every |= set(counted(module, text))
    return every


def test_every_rate_limit_stands_in_the_document(app: Flask) -> None:
    said = {(cells[0].strip("`"), int(cells[2]), seconds(cells[3])) for cells in rows(section("Limits")) if len(cells) == 4 and cells[0].startswith("`")}
    real = limits_of_the_code()
    assert len(real) > 15
    assert real - said == set(), "not in docs/security.md"
    assert said - real == set(), "in docs/security.md only"


def test_the_limits_of_a_top_up_are_the_codes() -> None:
    said = {}
    for cells in rows(section("Limits")):
        if re.fullmatch(r"[A-Z]{3}", cells[0]):
            said[cells[0]] = tuple(money.Money.of(cell.replace(",", ""), cells[0]).minor for cell in cells[1:])
    assert said == {code: (one.minimum, one.maximum, one.maximum_balance) for code, one in payments.LIMITS.items()}


# Lists


def test_the_words_a_password_must_not_lean_on_are_the_codes(app: Flask) -> None:
    said = {word.lower() for word in re.findall(r"`([\w ]+)`", section("Getting in"))}
    brand = config.current().seller.brand
    assert {word for word in customers.context_words() if word != brand} == said & {"client area", "password"}
    assert "the seller's brand" in section("Getting in")


def test_the_audience_of_every_page_is_the_codes(app: Flask) -> None:
    said = {cells[0].strip("`"): cells[1] for cells in rows(section("Who may do what")) if len(cells) == 2 and cells[0].startswith("`")}
    real: dict[str, set[str]] = {}
    for endpoint in app.view_functions:
        real.setdefault(endpoint.partition(".")[0], set()).add(gate.audience(endpoint))
    assert said == {name: ", ".join(sorted(audiences)) for name, audiences in real.items()}


def test_every_table_has_a_class(app: Flask) -> None:
    said = set(re.findall(r"`(\w+)`", section("Data classes")))
    real = {row.tablename for row in db.rows("select tablename from pg_tables where schemaname = 'public'")} - {"alembic_version"}
    assert real - said == set(), "without a class in docs/security.md"
    assert said - real == set(), "a class for a table that does not exist"


def test_every_security_event_and_kind_of_line_is_in_the_inventory() -> None:
    said = set(re.findall(r"`([\w ]+)`", section("Logs")))
    customers = "\n".join(file.read_text() for file in (PROJECT / "app/customers").glob("*.py"))
    events = set(re.findall(r'(?<![\w.])record\("(\w+)"', customers))
    assert len(events) > 10
    web = "\n".join(file.read_text() for file in (PROJECT / "app").rglob("*.py"))
    lines = set(re.findall(r'logs\.(?:event|security)\(\s*"(\w+)"', web))
    assert {"request", "exception"} <= lines
    assert (events | lines) - said == set()


CRYPTO = re.compile(r"^\s*(?:import|from) (hashlib|hmac|secrets|itsdangerous|cryptography|pwdlib|zlib)\b", re.MULTILINE)


def test_every_module_with_an_algorithm_is_in_the_inventory() -> None:
    said = set(re.findall(r"`(app/[\w/]+\.py)`", section("Keys and algorithms")))
    real = {str(file.relative_to(PROJECT)) for file in (PROJECT / "app").rglob("*.py") if CRYPTO.search(file.read_text())}
    assert real - said == set(), "not in docs/security.md"
    assert said - real == set(), "without an algorithm"


def test_every_address_and_key_of_the_settings_is_in_the_inventories() -> None:
    names = set(re.findall(r'"([A-Z][A-Z_]{3,})"', Path(config.__file__).read_text()))
    addresses = {name for name in names if name.endswith(("_URL", "_API_BASE"))}
    assert len(addresses) > 6
    assert addresses - set(re.findall(r"`([A-Z_]+)`", section("Whom it speaks to"))) == set()
    keys = {name for name in names if name.endswith(("_SECRET", "_SECRET_KEY", "_API_KEY", "SECRET_KEY"))}
    assert keys - set(re.findall(r"`([A-Z_]+)`", section("Keys and algorithms"))) == set()
    hosts = set(re.findall(r"https://([\w.-]+\.\w+)/?", "\n".join(re.findall(r'^\w+: Final = "(https://[^"]+)"', Path(config.__file__).read_text(), re.MULTILINE))))
    assert hosts
    assert [host for host in hosts if f"`{host}`" not in section("Whom it speaks to")] == []


def test_every_component_is_in_the_inventory() -> None:
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[>=<]", entry)[0] for entry in wanted}
    said = {name for cells in rows(section("Components")) if len(cells) == 3 for name in re.split(r",\s*", cells[0])} - {"package"}
    assert said == names
    locked = (PROJECT / "requirements.txt").read_text()
    assert [name for name in names if not re.search(rf"^{re.escape(name)}(\[[a-z]+\])?==", locked, re.MULTILINE)] == []
    for licence in ("js/htmx.LICENSE", "fonts/OFL.txt", "img/icons.LICENSE"):
        assert (PROJECT / "static" / licence).stat().st_size > 500


@pytest.mark.parametrize("text", ["| x | 3 | 1 h |", "|---|---|"])
def test_the_reader_of_tables_reads_tables(text: str) -> None:
    assert list(rows(text)) == ([["x", "3", "1 h"]] if "x" in text else [])
