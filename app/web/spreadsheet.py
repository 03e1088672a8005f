"""Tables as CSV files that a spreadsheet opens rightly and never executes."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from flask import Response, stream_with_context

_FORMULA = re.compile(r"""[\s'"\u00a0]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]""")
_BLOCK = 32_768


def answer(filename: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """A CSV file to download, written while it is read. Texts are made harmless; numbers and dates stay what they are."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(stream_with_context(_write(columns, rows)), mimetype="text/csv", headers=headers)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: one that could be gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _write(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    block = io.StringIO()
    writer = csv.writer(block)
    block.write("\ufeff")  # tells spreadsheets that it is UTF-8
    writer.writerow(columns)
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])
        if block.tell() > _BLOCK:
            yield block.getvalue()
            block.seek(0)
            block.truncate()
    yield block.getvalue()
