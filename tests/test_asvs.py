"""docs/asvs.md: every requirement that applies, its status, and a test that is really there."""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
DOCUMENT = PROJECT / "docs/asvs.md"
STATUSES = {"met", "not met", "documented"}
SECTIONS = {
    "1.1": (1, 2),
    "1.2": (1, 2, 3, 4, 5, 7, 9),
    "1.3": (1, 2, 3, 4, 5, 6, 7, 9, 10, 11),
    "1.4": (2,),
    "1.5": (1, 2),
    "2.1": (1, 2, 3),
    "2.2": (1, 2, 3),
    "2.3": (1, 2, 3, 4),
    "2.4": (1,),
    "3.2": (1, 2),
    "3.3": (1, 2, 3, 4),
    "3.4": (1, 2, 3, 4, 5, 6),
    "3.5": (1, 2, 3, 4),
    "3.7": (1, 2),
    "4.1": (1, 2, 3),
    "4.2": (1,),
    "5.1": (1,),
    "5.2": (1, 2, 3),
    "5.3": (1, 2),
    "5.4": (1, 2, 3),
    "6.1": (1, 2, 3),
    "6.2": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    "6.3": (1, 2, 3, 4),
    "6.4": (1, 2, 3, 4),
    "6.5": (1, 2, 3, 4, 5),
    "6.6": (2, 3),
    "7.1": (1, 2),
    "7.2": (1, 2, 3, 4),
    "7.3": (1, 2),
    "7.4": (1, 2, 3, 4, 5),
    "7.5": (1, 2),
    "8.1": (1, 2),
    "8.2": (1, 2, 3),
    "8.3": (1,),
    "8.4": (1,),
    "9.1": (1, 2, 3),
    "9.2": (1, 2, 3),
    "11.1": (1, 2),
    "11.2": (1, 2, 3),
    "11.3": (1, 2, 3),
    "11.4": (1, 2, 3, 4),
    "11.5": (1,),
    "11.6": (1,),
    "12.1": (1, 2),
    "12.2": (1, 2),
    "12.3": (1, 2, 3, 4),
    "13.1": (1,),
    "13.2": (1, 2, 3, 4, 5),
    "13.3": (1, 2),
    "13.4": (1, 2, 3, 4, 5),
    "14.1": (1, 2),
    "14.2": (1, 2, 3, 4),
    "14.3": (1, 2, 3),
    "15.1": (1, 2, 3),
    "15.2": (1, 2, 3),
    "15.3": (1, 2, 3, 4, 5, 6, 7),
    "16.1": (1,),
    "16.2": (1, 2, 3, 4, 5),
    "16.3": (1, 2, 3, 4),
    "16.4": (1, 2, 3),
    "16.5": (1, 2, 3),
}
APPLICABLE = [f"{section}.{number}" for section, numbers in SECTIONS.items() for number in numbers]
"""The requirements of ASVS 5.0, levels 1 and 2, that apply here."""
NOT_APPLICABLE = 58


@dataclass(frozen=True)
class Row:
    """One requirement of the table."""

    id: str
    level: str
    asks: str
    status: str
    proofs: tuple[str, ...]
    note: str


def read(text: str) -> list[Row]:
    """The rows of the table of requirements that apply."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"\d+\.\d+\.\d+", cells[0]):
            found.append(Row(*cells[:4], tuple(re.findall(r"`([^`]+)`|\]\(([^)]+)\)", cells[4])), cells[5]))
    return [Row(r.id, r.level, r.asks, r.status, tuple(a or b for a, b in r.proofs), r.note) for r in found]


@cache
def names_of(path: str) -> frozenset[str]:
    """The names of the tests in a file: functions, and methods with their class."""
    file = PROJECT / path
    if not (file.is_file() and path.startswith("tests/") and file.name.startswith("test_")):
        return frozenset()
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(name for name in names if name.split("::")[-1].startswith("test_"))


@cache
def anchors_of(path: str) -> frozenset[str]:
    """The anchors of a document: its headings as links name them."""
    file = PROJECT / path
    if not file.is_file():
        return frozenset()
    headings = re.findall(r"^#{1,4} (.+)$", file.read_text(), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def missing(proof: str) -> str:
    """Why a proof is none; nothing when it is there."""
    if "::" in proof:
        path, _, name = proof.partition("::")
        return "" if name in names_of(path) else f"{proof} is no test"
    path, _, anchor = proof.partition("#")
    return "" if anchor in anchors_of(f"docs/{path}") else f"{proof} is no place in a document"


def problems(rows: list[Row], applicable: list[str]) -> list[str]:
    """What is wrong with the table, one sentence each."""
    said = Counter(row.id for row in rows)
    wrong = [f"{one} is missing" for one in applicable if one not in said]
    wrong += [f"{one} stands there {count} times" for one, count in said.items() if count > 1]
    wrong += [f"{one} does not apply" for one in said if one not in applicable]
    for row in rows:
        tests = [proof for proof in row.proofs if "::" in proof]
        places = [proof for proof in row.proofs if "#" in proof]
        wrong += [f"{row.id}: {why}" for proof in row.proofs if (why := missing(proof))]
        if row.status not in STATUSES:
            wrong.append(f"{row.id}: {row.status!r} is no status")
        if row.level not in {"1", "2"} or not row.asks:
            wrong.append(f"{row.id}: its level or what it asks is missing")
        if row.status == "met" and not tests:
            wrong.append(f"{row.id}: met without a test")
        if row.status == "documented" and not places:
            wrong.append(f"{row.id}: documented nowhere")
        if row.status == "not met" and not re.search(r"Missing: .{15,} Meanwhile: .{10,}\.", row.note):
            wrong.append(f"{row.id}: what is missing, and what to do meanwhile, is not said")
    return wrong


def head(rows: list[Row]) -> str:
    """The line of figures above the table."""
    count = Counter(row.status for row in rows)
    tested = sum(row.status == "met" for row in rows)
    names = {proof for row in rows for proof in row.proofs if "::" in proof}
    return (
        f"{len(rows)} requirements apply: {tested} met and tested, {count['documented']} documented, "
        f"{count['not met']} not met; {len(names)} tests are named. {NOT_APPLICABLE} do not apply."
    )


TEXT = DOCUMENT.read_text()
ROWS = read(TEXT)


def test_every_requirement_has_its_row_and_every_row_its_proof() -> None:
    assert problems(ROWS, APPLICABLE) == []


def test_the_list_of_requirements_is_whole() -> None:
    assert len(APPLICABLE) == len(set(APPLICABLE)) == 195
    assert sum(row.level == "1" for row in ROWS) == 64
    assert [row.id for row in ROWS] == APPLICABLE


def test_the_figures_above_the_table_are_those_of_the_table() -> None:
    assert head(ROWS) in TEXT


def test_what_does_not_apply_is_listed_with_its_reason() -> None:
    _, _, rest = TEXT.partition("## What does not apply")
    lines = [line for line in rest.splitlines() if line.startswith("| ") and re.match(r"\| V?\d", line)]
    ids = {one for line in lines for one in re.findall(r"\b\d+\.\d+\.\d+\b", line.split("|")[1])}
    chapters = {"V10": 29, "V17": 7}
    assert [name for name in chapters if f"| {name} |" not in rest] == []
    assert len(ids) + sum(chapters.values()) == NOT_APPLICABLE
    assert ids & set(APPLICABLE) == set()
    assert all(len(line.strip("|").split("|")[1].strip()) > 10 for line in lines)


GOOD = Row("1.1.1", "1", "decode once", "met", ("tests/test_asvs.py::test_the_list_of_requirements_is_whole",), "")
BROKEN = {
    "missing": [],
    "stands there 2 times": [GOOD, GOOD],
    "met without a test": [Row("1.1.1", "1", "x", "met", (), "")],
    "is no test": [Row("1.1.1", "1", "x", "met", ("tests/test_asvs.py::test_nothing",), "")],
    "is no place": [Row("1.1.1", "1", "x", "documented", ("security.md#nowhere",), "")],
    "documented nowhere": [Row("1.1.1", "1", "x", "documented", (), "")],
    "is not said": [Row("1.1.1", "1", "x", "not met", (), "Missing: all of it.")],
    "is no status": [Row("1.1.1", "1", "x", "nearly", (), "")],
    "does not apply": [GOOD, Row("9.9.9", "1", "x", "documented", ("security.md#tls",), "")],
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_wrong_table_is_found(why: str) -> None:
    assert problems([GOOD], ["1.1.1"]) == []
    assert any(why in problem for problem in problems(BROKEN[why], ["1.1.1"]))


def test_methods_of_classes_and_headings_are_found() -> None:
    assert "TestLooks::test_nothing_is_fetched_from_disk_or_network" in names_of("tests/test_documents.py")
    assert "keys-and-algorithms" in anchors_of("docs/security.md")
    assert names_of("docs/asvs.md") == frozenset()
