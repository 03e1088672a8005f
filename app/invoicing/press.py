"""HTML into PDF, in a process of its own: layout is a tenth of a second of Python that no page should wait behind.

`render` starts this very file as a program, hands it documents and reads back PDFs. The program knows nothing of the app: it may read
the design's own files and `data:`, never the network or the disk, and lives within limits of memory and time. The same HTML gives
the same bytes.
"""

import atexit
import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parents[2] / "static"
SHEETS = ("css/tokens.css", "css/document.css", "css/document-page.css")
MEMORY_LIMIT = 1 << 30
"""Bytes of address space; a document of 300 lines needs about a third."""
START_S = 20
EACH_S = 10
"""Seconds a batch may take: to start, and for each document."""


class PressError(Exception):
    """A document could not be printed."""


class MissingLetters(PressError):
    """No font here draws a letter of the document, so it is not printed. `str()` has the letters."""


@dataclass(frozen=True, slots=True)
class Unprintable:
    """What went wrong with one document; `letters` are those that no font here draws."""

    why: str
    letters: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One document to print: its number becomes the PDF's identifier."""

    number: str
    html: str


def render(sheets: Sequence[Sheet]) -> list[bytes | Unprintable]:
    """Print documents, one after another, in one separate process; for each its PDF or, where that failed, what went wrong.

    Raises PressError when the process dies, runs out of memory or takes too long.
    """
    orders = json.dumps([[sheet.number, sheet.html] for sheet in sheets])
    limit = START_S + EACH_S * len(sheets)
    try:
        done = subprocess.run([sys.executable, "-I", __file__], input=orders, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        raise PressError(f"printing {len(sheets)} documents took longer than {limit} s") from None
    except subprocess.CalledProcessError as error:
        raise PressError(f"the press stopped with {error.returncode}: {error.stderr[-500:]}") from None
    return [_result(answer) for answer in json.loads(done.stdout)]


def _result(answer: dict[str, str]) -> bytes | Unprintable:
    if "pdf" in answer:
        return base64.b64decode(answer["pdf"])
    return Unprintable(answer["error"], answer.get("letters", ""))


def to_pdf(sheet: Sheet) -> bytes:
    """Print one document in this process. For the press itself, tests and benchmarks.

    Raises MissingLetters instead of drawing an empty box for a letter that no font has.
    """
    from weasyprint import HTML

    fonts, css, fetcher = _design()
    page = HTML(string=sheet.html, base_url="asset:/", url_fetcher=fetcher)
    boxes = _Boxes()
    log = logging.getLogger("weasyprint")
    log.addHandler(boxes)
    try:
        pdf = bytes(page.write_pdf(stylesheets=css, font_config=fonts, pdf_identifier=sheet.number.encode(), pdf_tags=True))
    finally:
        log.removeHandler(boxes)
    if boxes.letters:
        raise MissingLetters(" ".join(boxes.letters))
    return pdf


class _Boxes(logging.Handler):
    """Listens to the layout for letters that it draws as empty boxes (`.notdef`), each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.letters: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(".notdef glyph") and isinstance(record.args, tuple):
            self.letters[str(record.args[0])] = None


@lru_cache(maxsize=1)
def _design() -> tuple[Any, list[Any], Any]:
    """Fonts and parsed style sheets, once per process: they are half of a document's time."""
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration

    fonts, fetcher = FontConfiguration(), _fetcher()
    css = [CSS(string=(STATIC / name).read_text("utf-8"), base_url=f"asset:/{name}", url_fetcher=fetcher, font_config=fonts) for name in SHEETS]
    return fonts, css, fetcher


atexit.register(_design.cache_clear)  # before the libraries that fonts need are gone


def _fetcher() -> Any:
    """The only way out of a document: `data:`, and `asset:/…` for the fonts of the design. Everything else is refused."""
    from weasyprint.urls import URLFetcher, URLFetcherResponse

    class Assets(URLFetcher):  # type: ignore[misc]
        def fetch(self, url: str, headers: dict[str, str] | None = None) -> Any:
            if url in FONTS:
                return URLFetcherResponse(url, FONTS[url].read_bytes(), {"Content-Type": "font/ttf"})
            return super().fetch(url, headers)

    return Assets(allowed_protocols=("data",), allow_redirects=False)


FONTS = {f"asset:/fonts/{path.name}": path for path in sorted((STATIC / "fonts").glob("*.ttf"))}


def _serve(orders: list[list[str]]) -> list[dict[str, str]]:
    return [_answer(Sheet(number, html)) for number, html in orders]


def _answer(sheet: Sheet) -> dict[str, str]:
    try:
        return {"pdf": base64.b64encode(to_pdf(sheet)).decode()}
    except MissingLetters as missing:
        return {"error": f"{sheet.number}: no font draws {missing}", "letters": str(missing)}
    except Exception as error:  # noqa: BLE001 - one bad document does not stop the others; the caller logs it
        return {"error": f"{sheet.number}: {type(error).__name__}: {error}"}


def _limit(seconds: int) -> None:
    import resource

    os.nice(10)  # pages go first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    waiting = json.load(sys.stdin)
    _limit(START_S + EACH_S * len(waiting))
    json.dump(_serve(waiting), sys.stdout)
