"""Tables as CSV files that a spreadsheet opens rightly and never executes."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from babel import Locale
from babel.numbers import get_decimal_symbol
from flask import Response, stream_with_context

_FORMULA = re.compile(r"""[\s'"\u00a0]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]""")
_BLOCK = 32_768


def answer(filename: str, columns: Sequence[str], rows: Iterable[Sequence[object]], locale: Locale) -> Response:
    """A CSV file to download, written while it is read. Texts are made harmless, dates are ISO 8601.

    Where `locale` writes a decimal comma, numbers have one and cells are separated by semicolons:
    spreadsheets of those countries take no other file for a table of numbers.
    """
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(stream_with_context(_write(columns, rows, comma=get_decimal_symbol(locale) == ",")), mimetype="text/csv", headers=headers)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: one that could be gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _write(columns: Sequence[str], rows: Iterable[Sequence[object]], *, comma: bool) -> Iterator[str]:
    block = io.StringIO()
    writer = csv.writer(block, delimiter=";" if comma else ",")
    block.write("\ufeff")  # tells spreadsheets that it is UTF-8
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(cell, comma=comma) for cell in row])
        if block.tell() > _BLOCK:
            yield block.getvalue()
            block.seek(0)
            block.truncate()
    yield block.getvalue()


def _cell(value: object, *, comma: bool) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}".replace(".", "," if comma else ".")
    return harmless(value) if isinstance(value, str) else value
