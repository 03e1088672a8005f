"""How many tries a password stands, and what makes it fall: an estimate without a network.

The password is cut into the pieces that make it cheapest to guess: words of a ranked list (also
with digits and marks for letters), runs on a keyboard, counting, repetition, dates. What is left
costs a factor of ten per character. The work grows with the square of a capped length, so that
nobody can keep a worker busy with a password.
"""

import gzip
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import Final, NamedTuple

from babel import Locale

import config

ENOUGH: Final = 10.0
"""Powers of ten of tries from which on a password is taken."""
MOST: Final = 64
"""Characters that are looked at; the rest can only make it better."""
_LIST: Final = Path(__file__).with_name("common_words.txt.gz")
_LONGEST: Final = 28
_JOIN: Final = 0.7
_KEYBOARDS: Final = (
    *("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm"),
    *("azertyuiop", "qsdfghjklm", "wxcvbn", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p"),
    *("qazwsxedcrfvtgbyhnujmikolp", "1q2w3e4r5t6z7u8i9o0p", "1q2w3e4r5t6y7u8i9o0p"),
    *("qwertyuiop[]asdfghjkl;'zxcvbnm,./", "zaq12wsxcde34rfv", "!@#$%^&*()"),
)
_LEET: Final = (str.maketrans("4@83!10$57+", "aabeiiosstt"), str.maketrans("4@83!10$57+", "aabellosstt"))
"""Digits and marks that stand for letters; one and the exclamation mark for two of them."""
_SEASONS: Final = (
    *("spring", "summer", "autumn", "fall", "winter", "frühling", "sommer", "herbst", "printemps"),
    *("été", "automne", "hiver", "wiosna", "lato", "jesień", "zima", "lente", "zomer", "herfst"),
    *("primavera", "verano", "otoño", "invierno", "estate", "autunno", "inverno", "jaro", "léto"),
    *("podzim", "verão", "outono", "christmas", "weihnachten", "easter", "ostern", "halloween"),
)
_PHRASES: Final = (
    *("correcthorsebatterystaple", "tobeornottobethatisthequestion", "thequickbrownfoxjumpsover"),
    *("thelazydog", "maytheforcebewithyou", "maythethbewithyou", "opensesame", "allyourbasearebelong"),
    *("onceuponatime", "iloveyouforever", "ithinkthereforeiam", "carpediem", "hakunamatata"),
    *("winteriscoming", "loremipsumdolorsitamet", "letmeinplease", "neverevergiveup", "helloworld"),
    *("nevergonnagiveyouup", "thisismypassword", "thisisapassword", "passwordispassword"),
    *("imyourfather", "luckynumber", "livelaughlove", "ingodwetrust", "godisgood", "jesuslovesme"),
    *("dontworrybehappy", "keepcalmandcarryon", "timeismoney", "knowledgeispower", "nopainnogain"),
    *("ichliebedich", "daspasswortist", "jetaime", "motdepasse", "tequieromucho", "teamomucho"),
    *("tiamotanto", "kochamcie", "kochamcię", "haslo", "hasłohasło", "wachtwoord", "ikhouvanjou"),
    *("einsdreivierfünf", "einszweidreivier", "onetwothreefourfive", "untrestoria", "supersecret"),
    *("changemeplease", "welcometothejungle", "stairwaytoheaven", "highwaytohell", "rollingstones"),
    *("wearethechampions", "starwarsforever", "gameofthrones", "harrypotter", "lordoftherings"),
    *("donttellanyone", "trustnoone", "ihatepasswords", "iforgotmypassword", "passwortvergessen"),
)
_DATE: Final = re.compile(
    r"(?:19|20)\d\d[-./]?(?:0[1-9]|1[0-2])[-./]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|[12]\d|3[01])[-./]?(?:0[1-9]|1[0-2])[-./]?(?:19|20)\d\d"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|1[0-2])[-./](?:\d\d)?\d\d"
    r"|(?:19|20)\d\d"
)
_ORNAMENT: Final = 8
"""So many digits and marks around a phrase or a month are no more than decoration."""


class Guess(NamedTuple):
    """Powers of ten of tries, and the code of what weakens it most.

    ``kind`` is ``calendar``, ``phrase``, ``keyboard``, ``repeat``, ``sequence`` or ``common``.
    """

    tries: float
    kind: str


class _Piece(NamedTuple):
    start: int
    end: int
    cost: float
    kind: str


def guess(password: str, context: Iterable[str] = ()) -> Guess:
    """How a password stands against who knows the ``context``: its owner's own words, ours."""
    text = fold(password)[:MOST]
    unit = _unit(text)
    if len(unit) <= len(text) / 2:
        return Guess(min(_cheapest(unit, {})[0], ENOUGH - 1), "repeat")
    readings = {_letters(reading) for reading in (text, *(text.translate(leet) for leet in _LEET))}
    bare = {letters for letters in readings if len(text) - len(letters) <= _ORNAMENT}
    if bare & _calendar():
        return Guess(4.0, "calendar")
    if any(_is_phrase(letters) for letters in bare):
        return Guess(5.0, "phrase")
    tries, pieces = _cheapest(text, dict.fromkeys(context, 10))
    weak = [piece for piece in pieces if piece.kind]
    largest = max(weak, key=lambda piece: piece.end - piece.start, default=None)
    return Guess(tries, largest.kind if largest else "common")


def fold(text: str) -> str:
    """Small letters in one form, without the accents people leave out."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).replace("ł", "l")


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalpha())


def _unit(text: str) -> str:
    """What a text repeats, its last copy cut short or not: ``abcabca`` → ``abc``."""
    size = next(
        (n for n in range(1, len(text)) if all(a == b for a, b in zip(text, text[n:], strict=False))),
        len(text),
    )
    return text[:size]


def _is_phrase(letters: str) -> bool:
    """Whether these letters are a well-known phrase, most of one, or one and a few more letters."""
    return any((letters in phrase and len(letters) >= min(12, len(phrase))) or (phrase in letters and len(letters) - len(phrase) < 6 <= len(phrase)) for phrase in _PHRASES)


def _cheapest(text: str, context: Mapping[str, int]) -> tuple[float, list[_Piece]]:
    """The cheapest way to put the text together from pieces, and these; a word again is free."""
    found: dict[int, list[_Piece]] = {}
    for piece in _pieces(text, context):
        found.setdefault(piece.end, []).append(piece)
    best: list[tuple[float, _Piece | None]] = [(0.0, None)]
    for end in range(1, len(text) + 1):
        last = text[end - 1]
        again = last.isascii() and not last.isalnum() and last in text[: end - 1]
        ways = [(best[end - 1][0] + (0.3 if again else 1.0), _Piece(end - 1, end, 1.0, ""))]
        ways += [(best[piece.start][0] + piece.cost + (_JOIN if piece.start else 0), piece) for piece in found.get(end, ())]
        best.append(min(ways, key=lambda way: way[0]))
    pieces: list[_Piece] = []
    end = len(text)
    while (last_piece := best[end][1]) is not None:
        pieces.append(last_piece)
        end = last_piece.start
    words = {text[piece.start : piece.end]: piece.cost for piece in pieces if piece.kind}
    once = sum(words.values())
    every = sum(piece.cost for piece in pieces if piece.kind)
    return best[-1][0] - (every - once), pieces


def _pieces(text: str, context: Mapping[str, int]) -> Iterator[_Piece]:
    ranks = _ranks()
    readings = dict.fromkeys((text, *(text.translate(leet) for leet in _LEET)))
    for number, reading in enumerate(readings):
        for start in range(len(text)):
            for end in range(start + 3, min(len(text), start + _LONGEST) + 1):
                word = reading[start:end]
                rank = context.get(word) or ranks.get(word) or ranks.get(word[::-1])
                if rank:
                    yield _Piece(start, end, log10(rank) + (0.3 if number else 0), "common")
                elif word in _calendar():
                    yield _Piece(start, end, 2.0, "calendar")
    yield from _runs(text)
    for found in _DATE.finditer(text):
        cost = 2.0 if found.end() - found.start() == 4 else 4.0
        yield _Piece(found.start(), found.end(), cost, "calendar")
    for found in re.finditer(r"(.)\1{2,}", text):
        yield _Piece(found.start(), found.end(), 1.0 + log10(len(found[0])), "repeat")


def _runs(text: str) -> Iterator[_Piece]:
    """Pieces of at least three characters that count or follow a keyboard, in either direction."""
    for start in range(len(text) - 2):
        for end in range(start + 3, min(len(text), start + _LONGEST) + 1):
            word = text[start:end]
            if len({ord(after) - ord(before) for before, after in pairwise(word)}) == 1:
                yield _Piece(start, end, 1.0 + log10(len(word)), "sequence")
            elif any(word in row or word[::-1] in row for row in _KEYBOARDS):
                yield _Piece(start, end, 1.5 + log10(len(word)), "keyboard")
            else:
                break


@cache
def _ranks() -> dict[str, int]:
    """Word → its place in the list. Read at the first use: most workers never need it."""
    with gzip.open(_LIST, "rt", encoding="utf-8") as file:
        words = (line.rstrip("\n") for line in file if not line.startswith("#"))
        return {word: place for place, word in enumerate(words, 1)}


@cache
def _calendar() -> frozenset[str]:
    """Seasons, months and days of the week in the languages of the site, as letters alone."""
    found = {fold(word) for word in _SEASONS}
    for code in config.LOCALES:
        locale = Locale.parse(code)
        for kind in ("format", "stand-alone"):
            found |= {_letters(fold(name)) for name in locale.months[kind]["wide"].values()}
            found |= {_letters(fold(name)) for name in locale.days[kind]["wide"].values()}
    return frozenset(word for word in found if len(word) >= 3)
