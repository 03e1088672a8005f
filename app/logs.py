"""Log lines: one JSON object each on standard error, with no secret and no personal data in it.

Whatever is logged passes here: the app's own events, `logging` of every module, the trace of an
exception. On a terminal the same is written for people.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Final

import psycopg
from stdnum import iban, luhn

log = logging.getLogger("client_area")
"""The app's own events, each with a code."""

LONGEST_TEXT: Final = 2_000
LONGEST_TRACE: Final = 12_000
LONGEST_MESSAGE: Final = 300
SHORTEST_SECRET: Final = 6
SHORTEST_INPUT: Final = 5
HIDDEN: Final = "[hidden]"
DATA_EXCEPTION: Final = "22"
"""The class of PostgreSQL's errors whose own sentence quotes the value."""

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_secrets: set[str] = set()
_facts: ContextVar[Mapping[str, object]] = ContextVar("log_facts", default=_NOTHING)
_input: ContextVar[Callable[[], Iterable[str]] | None] = ContextVar("log_input", default=None)


def hide(secrets: Iterable[str]) -> None:
    """Never write these in a line: keys and passwords of the settings."""
    _secrets.update(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)


def begin(given: Callable[[], Iterable[str]] | None = None, **facts: object) -> None:
    """Forget what was known and put these facts into every line from here on.

    ``given`` names what the request brought; no message of an error repeats it.
    """
    _facts.set(facts)
    _input.set(given)


def know(**facts: object) -> None:
    """Put these facts into every line from here on, beside those that are known."""
    _facts.set({**_facts.get(), **facts})


@contextmanager
def knowing(**facts: object) -> Iterator[None]:
    """Put these facts into the lines of the block."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def event(name: str, /, *, level: int = logging.INFO, **facts: object) -> None:
    """Write one event of the app."""
    if log.isEnabledFor(level):
        log.log(level, name, extra={"facts": {"event": name, **facts}})


def security(code: str, **facts: object) -> None:
    """Write one event that matters to the security of an account or of the site."""
    event("security", level=logging.WARNING, code=code, **facts)


def setup() -> None:
    """Send every line to standard error: as JSON, or on a terminal as text. Once a process."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, JsonLines | Text) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr.isatty()
    handler.setFormatter(Text() if terminal else JsonLines())
    root.addHandler(handler)
    log.setLevel(logging.INFO)
    logging.getLogger("app").setLevel(logging.WARNING if terminal else logging.INFO)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class JsonLines(logging.Formatter):
    """A record as one JSON object. Everything beyond ASCII is escaped, line ends too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(facts_of(record), default=str)


class Text(logging.Formatter):
    """A record for a person at a terminal: without control characters, so that no text from
    outside moves the cursor or writes a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the trace below it."""
        facts = facts_of(record)
        trace = str(facts.pop("trace", ""))
        words = [str(facts.pop("message", "") or facts.pop("event", ""))]
        words += [f"{name}={value}" for name, value in facts.items() if name not in _HEAD]
        line = f"{facts['level']}: {' '.join(words)}".translate(_VISIBLE)
        return "\n".join([line, *(part.translate(_VISIBLE) for part in trace.splitlines())])


_HEAD: Final = frozenset({"at", "level", "event", "logger"})
_CONTROL: Final = (*range(32), *range(127, 160), 0x2028, 0x2029)
_VISIBLE: Final = {number: f"\\x{number:02x}" for number in _CONTROL}


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says of a record, with nothing in it that must not leave the process."""
    own: Mapping[str, Any] | None = getattr(record, "facts", None)
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"at": at, "level": record.levelname.lower()}
    if own is None:
        line |= {"event": "log", "logger": record.name, **_facts.get()}
        line["message"] = clean(_message(record))
    else:
        line |= {**_facts.get(), **own}
        if own["event"] != "request":  # its facts are our own words and numbers
            line = {name: _cleaned(name, value) for name, value in line.items()}
    if record.exc_info and record.exc_info[1]:
        line["trace"] = trace(record.exc_info[1])
    return line


def _message(record: logging.LogRecord) -> str:
    args = record.args
    if isinstance(args, tuple):
        args = tuple(summary(arg) if isinstance(arg, BaseException) else arg for arg in args)
    return str(record.msg) % args if args else str(record.msg)


def _cleaned(name: str, value: object) -> object:
    if not isinstance(value, str) or name == "at":
        return value
    return value if name == "trace" else clean(value)


def trace(error: BaseException) -> str:
    """Where an error came from: the frames, and of each error its class and a safe sentence."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{frames}{_name(current)}: {summary(current)}")
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    return "\nwhich came from:\n".join(parts)[:LONGEST_TRACE]


def summary(error: BaseException) -> str:
    """An error's sentence without the values of rows, parameters and requests."""
    inner = getattr(error, "orig", None)
    if isinstance(inner, BaseException):  # SQLAlchemy's, which repeats statement and parameters
        return summary(inner)
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return _of_database(error)
    text = str(error).strip()
    return clean(text.splitlines()[0] if text else "")[:LONGEST_MESSAGE]


def _of_database(error: psycopg.Error) -> str:
    said = error.diag
    state = str(error.sqlstate)
    sentence = "" if state.startswith(DATA_EXCEPTION) else clean(said.message_primary or "")
    where = [part for part in (said.table_name, said.column_name, said.constraint_name) if part]
    return " ".join(part for part in (state, sentence, *where) if part)[:LONGEST_MESSAGE]


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else (
        f"{kind.__module__}.{kind.__qualname__}"
    )  # fmt: skip


def clean(text: str) -> str:
    """A text without secrets, addresses, account and card numbers, nor what the request brought.

    Every place to hide is found in the text as it came: a short secret that is also a common
    word must not tear apart what a pattern would have found.
    """
    given = _input.get()
    words = {*_secrets}
    if given is not None:
        words |= {value for value in given() if len(value) >= SHORTEST_INPUT}
    spans = [found.span() for word in words for found in re.finditer(re.escape(word), text)]
    for pattern, hides in _PATTERNS:
        spans += [found.span(found.re.groupindex.get("hide", 0)) for found in pattern.finditer(text) if hides is None or hides(found[0])]
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], HIDDEN]
        end = max(end, stop)
    return "".join((*parts, text[end:]))[:LONGEST_TEXT]


def _is_card(text: str) -> bool:
    return bool(luhn.is_valid(re.sub(r"\D", "", text)))


_PATTERNS: Final[tuple[tuple[re.Pattern[str], Callable[[str], bool] | None], ...]] = (
    (re.compile(r"(?s)\b(?:DETAIL|CONTEXT|HINT): .*"), None),
    (re.compile(r"\[(?:SQL|parameters): .*"), None),
    (re.compile(r"(?s)\bLINE \d+: .*"), None),
    (
        re.compile(r"(?s)\b(?:invalid input|invalid value|out of range)[^:\"]*: (?P<hide>\".*\")"),
        None,
    ),
    (re.compile(r"Key (?P<hide>\([^)]*\)=\(.*?\))"), None),
    (re.compile(r"(?s)Failing row (?P<hide>contains \(.*\))"), None),
    (re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<hide>[\w.~+/=-]{6,})"), None),
    (re.compile(r"://(?P<hide>[^\s/@]+)@"), None),
    (re.compile(r"(?:https?://|/)[^\s?\"'<>]*\?(?P<hide>[^\s\"'<>]+)"), None),
    (re.compile(r"\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_\w+|\b\w+_secret_\w+"), None),
    (
        re.compile(
            r"(?i)\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|cookie|authorization|sid)"
            r"['\"]?\s*[:=]\s*['\"]?(?P<hide>[^\s'\",;&}]+)"
        ),
        None,
    ),
    (re.compile(r"[^\s@<>\"'(),:;=\[\]]+@[^\s@<>\"'(),:;=\[\]]+\.[\w-]+"), None),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b"), iban.is_valid),
    (re.compile(r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.])"), _is_card),
    (re.compile(r"(?<![\w.-])[\w-]{16,}\.[\w-]{20,}(?:\.[\w-]+)*"), None),
    (
        re.compile(
            r"(?<![\w-])(?!(?:cs|pi|re|ch|evt|seti|pm|cus|dp)_)"
            r"(?=[\w-]*\d)(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{32,}"
        ),
        None,
    ),
)
"""What to hide: the group ``hide`` of a match, or the whole, when the check agrees."""


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("uncaught", exc_info=error, extra={"facts": {"event": "exception"}})


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
