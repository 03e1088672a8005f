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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


class GlyphsMissing(PressError):
    """No font of this system can draw a character of the document; its message names the characters."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One document to print: its number becomes the PDF's identifier."""

    number: str
    html: str


def render(sheets: Sequence[Sheet]) -> list[bytes | PressError]:
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
    return [_read(answer) for answer in json.loads(done.stdout)]


def _read(answer: dict[str, str]) -> bytes | PressError:
    if "pdf" in answer:
        return base64.b64decode(answer["pdf"])
    return GlyphsMissing(answer["missing"]) if "missing" in answer else PressError(answer["error"])


def to_pdf(sheet: Sheet) -> bytes:
    """Print one document in this process. For the press itself, tests and benchmarks.

    Raises GlyphsMissing: boxes instead of a name would be stored for ever.
    """
    from weasyprint import HTML

    fonts, css, fetcher = _design()
    page = HTML(string=sheet.html, base_url="asset:/", url_fetcher=fetcher)
    with _watched() as missing:
        pdf = bytes(page.write_pdf(stylesheets=css, font_config=fonts, pdf_identifier=sheet.number.encode(), pdf_tags=True))
    if missing:
        raise GlyphsMissing(", ".join(sorted(missing)))
    return pdf


class _Missing(logging.Handler):
    """Collects the characters that WeasyPrint could not draw: it draws a box then, and says so in its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if "notdef" in record.msg and isinstance(record.args, tuple):
            self.found.add(f"U+{record.args[-1]:04X}")


@contextmanager
def _watched() -> Iterator[set[str]]:
    """The characters that nothing could draw meanwhile, as code points."""
    handler, log = _Missing(), logging.getLogger("weasyprint")
    log.addHandler(handler)
    try:
        yield handler.found
    finally:
        log.removeHandler(handler)


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
    except GlyphsMissing as missing:
        return {"missing": str(missing)}
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
