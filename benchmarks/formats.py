"""Money and dates: the compiled formats beside Babel, on the cells of one page of fifty movements.

Both write the same 150 cells (signed amount, balance after, date and time), in every shipped language; the texts are compared
first. What is timed is a worker that has run for a while; the first page ever, when every pattern is still to be taken apart and
every date still to be written, is printed beside it. Run: python benchmarks/formats.py
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from _size import sized
from babel import dates, numbers

from app.formats import LOCALES, NO_BREAK_SPACE, formats

ZONE = "Europe/Berlin"
ROWS = [(((-1) ** n) * (n * 7_919 + 5) % 250_000 - 90_000, 128_460 + n * 3_571, datetime(2026, 11, 21, 14, 3, tzinfo=UTC) - timedelta(hours=37 * n)) for n in range(50)]
ROUNDS, WANTED = sized(30, 1), 20


def compiled(locale: str) -> list[str]:
    """The page's cells by app.formats."""
    written = formats(locale, ZONE)
    return [text for amount, balance, at in ROWS for text in (written.amount(amount, "EUR"), written.money(balance, "EUR"), written.datetime(at))]


def interpreted(locale: str) -> list[str]:
    """The same cells by Babel."""
    zone = dates.get_timezone(ZONE)
    cells = []
    for amount, balance, at in ROWS:
        cells.append(numbers.format_decimal(Decimal(amount).scaleb(-2), "#,##0.00", locale))
        cells.append(numbers.format_currency(Decimal(balance).scaleb(-2), "EUR", locale=locale))
        there = at.astimezone(zone)
        joined = str(dates.get_datetime_format("medium", locale)).replace("'", "")
        cells.append(joined.replace("{0}", dates.format_time(there, "short", locale=locale)).replace("{1}", dates.format_date(there, "medium", locale)))
    return cells


def microseconds(write: Callable[[str], list[str]], locale: str) -> float:
    """Median of the rounds, in microseconds for one page."""
    return median(_once(write, locale) for _ in range(ROUNDS))


def _once(write: Callable[[str], list[str]], locale: str) -> float:
    start = time.perf_counter()
    write(locale)
    return (time.perf_counter() - start) * 1e6


def _plain(cells: list[str]) -> list[str]:
    return [cell.replace(f"€{NO_BREAK_SPACE}", "€") for cell in cells]


def main() -> int:
    """Print one line for each language and the ratio over all; 1 when it is below what we want."""
    ours_total = babel_total = 0.0
    for locale in LOCALES:
        start = time.perf_counter()
        cells = compiled(locale)
        first = (time.perf_counter() - start) * 1e6
        if _plain(cells) != _plain(interpreted(locale)):
            print(f"{locale}: the cells differ from Babel's")
            return 1
        ours, babel = microseconds(compiled, locale), microseconds(interpreted, locale)
        ours_total, babel_total = ours_total + ours, babel_total + babel
        print(f"{locale}  150 cells: Babel {babel:7.0f} µs   compiled {ours:5.0f} µs   {babel / ours:5.1f} ×   (first page ever {first:6.0f} µs)")
    ratio = babel_total / ours_total
    print(f"ratio {ratio:.1f} (wanted: at least {WANTED})")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
