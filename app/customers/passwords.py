"""Passwords: how they are kept, and which ones are refused.

Argon2id with 19 MiB, two passes, one lane: about 20 ms, so a burst of sign-ins holds neither the memory nor the workers.
"""

import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 1024
_FEWEST_DIFFERENT = 5
_DECORATION = 6
_REST_AFTER_CONTEXT = 6
_LIST = Path(__file__).with_name("common_passwords.txt")
_HASHER: Final = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))


def hash_password(password: str) -> str:
    """The Argon2id hash to store."""
    return _HASHER.hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password is the stored one. With nothing stored a dummy is checked, so an unknown login costs the same time."""
    dummy = _dummy()  # made before it is known whether it is needed
    matches = _HASHER.verify(password[:MAX_LENGTH], stored or dummy)
    return matches and stored is not None


def password_problem(password: str, context: Iterable[str] = ()) -> str | None:
    """Why this password is refused, as a sentence, or None. ``context`` holds words an attacker would try first: the login, the brand."""
    if len(password) < MIN_LENGTH:
        return f"Use at least {MIN_LENGTH} characters. A few unrelated words are easy to remember and hard to guess."
    if len(password) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH:,} characters."
    if _is_guessable(password.casefold()):
        return "This is one of the passwords that are tried first. Choose something less common."
    if _leans_on(password.casefold(), context):
        return "This is too close to your login, your name or ours. Choose something that cannot be read off this page."
    return None


def _is_guessable(password: str) -> bool:
    words = _common()
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", password)
    decorated = core in words and len(password) - len(core) <= _DECORATION
    return decorated or password in words or len(set(password)) < _FEWEST_DIFFERENT or _unit(password) in words or _is_run(password)


def _unit(password: str) -> str:
    """What the password repeats: ``secretsecret`` → ``secret``."""
    return password[: (password + password).find(password, 1)]


def _is_run(password: str) -> bool:
    steps = {(ord(after) - ord(before)) % (10 if password.isdecimal() else 1_000_000) for before, after in pairwise(password)}
    return len(steps) == 1


def _leans_on(password: str, context: Iterable[str]) -> bool:
    rest = re.sub(r"[\W_]+", "", password)
    words = {part for word in context for part in re.split(r"[\W_]+", word.casefold()) if len(part) > 3}
    for word in sorted(words, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(re.sub(r"\d+", "", rest)) < _REST_AFTER_CONTEXT and rest != re.sub(r"[\W_]+", "", password)


@cache
def _common() -> frozenset[str]:
    return frozenset(line for line in _LIST.read_text("utf-8").splitlines() if line and not line.startswith("#"))


@cache
def _dummy() -> str:
    return hash_password("nobody has this password")
