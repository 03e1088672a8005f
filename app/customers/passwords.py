"""Passwords: how they are kept, and which ones are refused.

Argon2id with 19 MiB, two passes, one lane: about 20 ms, so a burst of sign-ins holds neither the
memory nor the workers. A password is kept in the Unicode form NFC, because a keyboard, a password
manager and another system may send the same letters in different forms.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.customers import guessing

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 1024
ADVICE: Final = "Use four or more unrelated words, or let your password manager make one."
_REASONS: Final = {
    "calendar": "it is a season, a month or a date with some decoration",
    "phrase": "it is a well-known phrase",
    "keyboard": "it follows the keys of the keyboard",
    "repeat": "it repeats itself",
    "sequence": "it counts up or down",
    "common": "it is made of what is tried first",
    "context": "it is close to your login, your name, your address or our name",
}
"""Code of what weakens a password → the words for it."""
_REST_AFTER_CONTEXT: Final = 6
_HASHER: Final = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))


def hash_password(password: str) -> str:
    """The Argon2id hash to store."""
    return _HASHER.hash(normal(password))


def normal(password: str) -> str:
    """A password in the form it is kept in."""
    return unicodedata.normalize("NFC", password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password is the stored one.

    With nothing stored a dummy is checked, so an unknown login costs the same time. Passwords
    that were kept before there was one form are found by the forms a device may have sent; how
    many those are depends on what was typed alone.
    """
    dummy = _dummy()  # made before it is known whether it is needed
    forms = dict.fromkeys((normal(password), password, unicodedata.normalize("NFD", password)))
    tried = [form for form in forms if len(form) <= MAX_LENGTH] or [""]
    matches = [_HASHER.verify(form, stored or dummy) for form in tried]
    return any(matches) and stored is not None


def password_problem(password: str, context: Iterable[str] = ()) -> str | None:
    """Why this password is refused, as a sentence, or None.

    ``context`` holds words that are tried first: the login, the address, the brand.
    """
    password = normal(password)
    if len(password) < MIN_LENGTH:
        return f"Use at least {MIN_LENGTH} characters. A few unrelated words are easy to remember and hard to guess."
    if len(password) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH:,} characters."
    weakness = _weakness(password, context)
    return f"This password is easy to guess: {_REASONS[weakness]}. {ADVICE}" if weakness else None


def _weakness(password: str, context: Iterable[str]) -> str:
    """The code of what makes a password easy to guess, or nothing."""
    words = {part for word in context for part in re.split(r"[\W_]+", guessing.fold(word)) if len(part) > 3}
    if _leans_on(guessing.fold(password), words):
        return "context"
    tries, kind = guessing.guess(password, words)
    return kind if tries < guessing.ENOUGH else ""


def _leans_on(password: str, words: set[str]) -> bool:
    whole = re.sub(r"[\W_]+", "", password)
    rest = whole
    for word in sorted(words, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(re.sub(r"\d+", "", rest)) < _REST_AFTER_CONTEXT and rest != whole


@cache
def _dummy() -> str:
    return hash_password("nobody has this password")
