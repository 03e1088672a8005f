"""The languages the house speaks: sentences stand in English where they are used, their translations in `translations/`.

`speaking` says whose language is spoken from here on, in this thread; `gettext` (as `_`) and the templates' `trans` follow it. What a
catalogue does not have, or has with other placeholders than the English sentence, is said in English: a catalogue that is behind
breaks nothing.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import NullTranslations
from io import BytesIO

from babel import Locale
from babel.messages.mofile import write_mo
from babel.support import Translations
from jinja2 import Environment

from app.languages.catalogues import LANGUAGES, SOURCE, check, extract, faults, read, update

__all__ = ["N_", "SOURCE", "check", "direction", "extract", "gettext", "install", "known", "label", "language_of", "ngettext", "read", "speaking", "spoken", "update"]

log = logging.getLogger(__name__)

_language: ContextVar[str] = ContextVar("language", default=SOURCE)


def language_of(locale: str) -> str:
    """The language we speak to a reader of this locale ("de_CH" is "de"); English for one we do not speak."""
    language = locale.replace("-", "_").partition("_")[0].lower()
    return language if language in LANGUAGES else SOURCE


@contextmanager
def speaking(locale: str) -> Iterator[str]:
    """Speak the language of a locale within this block; the language."""
    language = language_of(locale)
    token = _language.set(language)
    try:
        yield language
    finally:
        _language.reset(token)


def spoken() -> str:
    """The language that is spoken here."""
    return _language.get()


def direction() -> str:
    """How that language is written, as HTML's `dir`."""
    return str(Locale.parse(spoken()).text_direction)


def gettext(message: str, /, **values: object) -> str:
    """A sentence in the language spoken here, its placeholders `%(name)s` filled in."""
    return _say(message) % values


def ngettext(one: str, many: str, number: int, /, **values: object) -> str:
    """A sentence about a number of things, which is its placeholder `num`."""
    return _count(one, many, number) % {"num": number, **values}


def N_(message: str) -> str:  # noqa: N802 - the name every reader of catalogues knows
    """Mark a text that is translated where it is read, not here."""
    return message


def known(text: str) -> str:
    """A marked text in the language spoken here; nothing where that is not possible, so that no mail mixes languages."""
    said = _say(text) if text else ""
    return said if spoken() == SOURCE or said != text else ""


def label(text: str) -> str:
    """How a payment was made, piece by piece: "Cryptocurrency, BTC" is a word and a name."""
    return ", ".join(_say(piece) for piece in text.split(", ") if piece)


def install(environment: Environment) -> None:
    """Give templates `trans`, `_` and the filters `known`, `label` and `translated`. Values are escaped as everywhere, sentences hold no markup.

    A value goes through `translated`: `_` takes its text for a sentence of ours, with placeholders in it and nothing to escape.
    """
    environment.add_extension("jinja2.ext.i18n")
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(_say, _count, newstyle=True)  # type: ignore[attr-defined]
    environment.filters.update(known=known, label=label, translated=_say)


def _say(message: str) -> str:
    return str(_catalogue(spoken()).gettext(message))


def _count(one: str, many: str, number: int) -> str:
    return str(_catalogue(spoken()).ngettext(one, many, number))


@cache
def _catalogue(language: str) -> NullTranslations:
    """What is fit for use in a language's catalogue; read once, when the language is first spoken."""
    if language == SOURCE:
        return NullTranslations()
    catalog = read(language)
    for message in [message for message in catalog if any(faults(message))]:
        log.error("The translation into %s is not used, as it %s it: %s", language, next(faults(message)), message.id)
        catalog.delete(message.id, message.context)
    usable = BytesIO()
    write_mo(usable, catalog)
    usable.seek(0)
    return Translations(usable)
