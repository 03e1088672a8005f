"""The catalogues as files: collecting what is said in the code and the templates, and finding what its translations lack."""

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from babel.messages import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

import config
from app import clock

SOURCE: Final = "en"
"""The language the sentences are written in."""
LANGUAGES: Final = tuple(locale for locale in config.LOCALES if "_" not in locale)
"""The languages we speak."""
TRANSLATED: Final = tuple(language for language in LANGUAGES if language != SOURCE)
FOLDER: Final = Path(__file__).parent.parent.parent / "translations"
_TEMPLATE: Final = FOLDER / "messages.pot"
_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s")
_COUNT: Final = "num"
"""The number of a sentence with plural forms: a form may leave it out, as in "one service"."""
_JINJA: Final = "jinja2.ext:babel_extract"
_SOURCES: Final[tuple[tuple[str, list[tuple[str, str]]], ...]] = (("app", [("**.py", "python")]), ("templates", [("**.html", _JINJA), ("**.txt", _JINJA)]))
_HOW: Final = {"**": {"trimmed": "true", "silent": "false", "newstyle_gettext": "true", "trim_blocks": "true", "lstrip_blocks": "true"}}


def read(language: str) -> Catalog:
    """A language's catalogue as it stands in its file; an empty one while there is no file."""
    return _read(_path(language), language)


def extract() -> int:
    """Collect every sentence of the code and the templates into `messages.pot`; how many there are."""
    found = _collect()
    if _keys(found) != _keys(_read(_TEMPLATE)):
        found.creation_date = clock.now()
        _write(_TEMPLATE, found)
    return len(found)


def update() -> dict[str, int]:
    """`extract`, and bring every catalogue in line with it; how many sentences each language lacks then."""
    extract()
    return {language: _update(language) for language in TRANSLATED}


def check() -> list[str]:
    """What is wrong, a line each: sentences not collected, missing, untranslated, unsure, left over, with other placeholders or with markup."""
    found = _collect()
    stale = [] if _keys(found) == _keys(_read(_TEMPLATE)) else ["messages.pot is not what the house says: run flask translate update"]
    return stale + [f"{language} {fault}" for language in TRANSLATED for fault in _compare(read(language), found)]


def faults(message: Message) -> Iterator[str]:
    """Why a translation must not be used, as a verb; nothing for one that is fit or still empty."""
    if not message.id:
        return
    if message.fuzzy:
        yield "is unsure of"
    said = [text for text in _forms(message.string) if text]
    may = {name for text in _forms(message.id) for name in _PLACEHOLDER.findall(text)}
    must = may - {_COUNT} if message.pluralizable else may
    if any(not must <= set(_PLACEHOLDER.findall(text)) <= may or "%" in _PLACEHOLDER.sub("", text).replace("%%", "") for text in said):
        yield "has other placeholders in"
    if any(set("<>&") & set(text) for text in said):
        yield "has markup in"


def _compare(catalog: Catalog, found: Catalog) -> Iterator[str]:
    has, wanted = _keys(catalog), _keys(found)
    yield from (f"misses {key[0]!r}" for key in sorted(wanted - has))
    yield from (f"has left over {key[0]!r}" for key in sorted((has | {_key(message) for message in catalog.obsolete.values()}) - wanted))
    for message in catalog:
        yield from (f"{fault} {_key(message)[0]!r}" for fault in faults(message))
        if message.id and not all(_forms(message.string)):
            yield f"does not say {_key(message)[0]!r}"


def _update(language: str) -> int:
    catalog, path = read(language), _path(language)
    catalog.update(_read(_TEMPLATE), no_fuzzy_matching=True)
    if not path.exists() or path.read_bytes() != _written(catalog):
        _write(path, catalog)
    return sum(not all(_forms(message.string)) for message in catalog if message.id)


def _collect() -> Catalog:
    catalog = Catalog()
    for folder, methods in _SOURCES:
        for name, line, message, comments, context in extract_from_dir(FOLDER.parent / folder, methods, _HOW):
            catalog.add(message, None, [(f"{folder}/{name}", line)], auto_comments=comments, context=context)
    return catalog


def _read(path: Path, language: str | None = None) -> Catalog:
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def _write(path: Path, catalog: Catalog) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_written(catalog))


def _written(catalog: Catalog) -> bytes:
    """A catalogue in the one form that changes only where a sentence does: no line numbers, no folding, nothing that is out of use."""
    catalog.fuzzy, catalog.project, catalog.version, catalog.revision_date = False, "Client Area", "1", catalog.creation_date
    catalog.header_comment = f"# What Client Area says, in {catalog.locale.get_display_name('en')}." if catalog.locale else "# What Client Area says."
    catalog.msgid_bugs_address = catalog.last_translator = catalog.language_team = ""
    file = BytesIO()
    write_po(file, catalog, width=0, include_lineno=False, ignore_obsolete=True)
    return file.getvalue()


def _path(language: str) -> Path:
    return FOLDER / language / "LC_MESSAGES" / "messages.po"


def _keys(catalog: Catalog) -> set[tuple[str, ...]]:
    return {_key(message) for message in catalog if message.id}


def _key(message: Message) -> tuple[str, ...]:
    return tuple(_forms(message.id))


def _forms(text: Any) -> Sequence[str]:
    """A sentence, or its plural forms."""
    return [text] if isinstance(text, str) else list(text or [""])
