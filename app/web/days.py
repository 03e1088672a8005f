"""Ranges of days that a list offers to choose from."""

from datetime import date, timedelta

Range = tuple[str, date | None, date | None]
"""What it is called, its first and its last day; None where it has no end."""


def ranges(today: date) -> list[Range]:
    """From any date to last year, seen from the reader's `today`. Both ends belong to a range."""
    month = today.replace(day=1)
    last_month = (month - timedelta(days=1)).replace(day=1)
    year = today.replace(month=1, day=1)
    return [
        ("Any date", None, None),
        ("This month", month, today),
        ("Last month", last_month, month - timedelta(days=1)),
        ("Last 90 days", today - timedelta(days=89), today),
        ("This year", year, today),
        ("Last year", year.replace(year=year.year - 1), year - timedelta(days=1)),
    ]
