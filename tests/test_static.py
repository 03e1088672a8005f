"""The readers that never run the program: ruff, mypy, djlint. Each is first shown something it must refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent


def tool(*words: str, words_in: str = "", folder: Path = HOUSE) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", *words], cwd=folder, input=words_in, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [("ruff", "check", "--quiet"), ("ruff", "format", "--check", "--quiet"), ("mypy",)], ids=" ".join)
def test_the_house_reads_cleanly(command: tuple[str, ...]) -> None:
    done = tool(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_templates_read_cleanly() -> None:
    done = tool("djlint", "templates", "--lint", "--quiet")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("S608", 'def find(name: str) -> str:\n    return f"select * from users where login = {name}"\n'),
        ("DTZ005", "import datetime\n\nprint(datetime.datetime.now())\n"),
        ("B006", "def add(x: int, to: list[int] = []) -> None:\n    to.append(x)\n"),
        ("C901", "def choose(x: int) -> int:\n" + "".join(f"    if x == {n}:\n        return {n}\n" for n in range(12)) + "    return 0\n"),
        ("BLE001", "try:\n    print()\nexcept Exception:\n    print()\n"),
    ],
)
def test_ruff_refuses(rule: str, text: str) -> None:
    assert rule in tool("ruff", "check", "--output-format=concise", "--stdin-filename=app/sample.py", "-", words_in=text).stdout


def test_mypy_refuses(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("from app.money import Money\n\n\ndef half(amount):\n    return amount\n\n\nprice: Money = 5\n")
    said = tool("mypy", "--no-incremental", str(sample)).stdout
    assert "no-untyped-def" in said
    assert "assignment" in said


def test_djlint_refuses(tmp_path: Path) -> None:
    (tmp_path / "sample.html").write_text('<img src="/x.png">\n<a href="{{ url }}"class="y" >\n</p>\n')
    assert tool("djlint", str(tmp_path), "--lint", "--quiet").returncode != 0
