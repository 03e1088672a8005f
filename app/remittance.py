"""What a bank transfer carries: the account it goes to, the reference that finds its bill, and the
QR code a banking app reads; and what a payer's text names of ours.

References are those of ISO 11649: ``RF``, two check digits, then digits alone. With digits alone
the check finds every single wrong digit and every swapped pair; with letters it does not.

A text names a bill by a reference or a number of ours as whole words, and a customer by a login
behind a word like “login”. What is spelled otherwise than we write it (a lost zero, a blank for a
dash) is read, too, and kept apart: whoever asks has to be sure of it by other means.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from babel.dates import get_month_names
from segno.helpers import make_epc_qr
from stdnum import iso11649
from stdnum.iso7064 import mod_97_10

from app.money import Money

LARGEST_EPC = Decimal("999999999.99")
"""Euro: what the code's amount field can hold (EPC069-12)."""
_SHORTEST, _LONGEST = 8, 25
"""Characters of a whole reference: ours have sixteen digits or more, but the customer's own part may be shorter in an older archive."""
CUT = "\n"
"""Stands in a text where a bank may have broken a line within a word."""
SERIES = ("PF", "INV", "TU", "RC", "CN")
"""The first letters of our numbers: PF-2026-000013."""
_DIGITS = 6
"""Digits of a number of ours, filled with zeros; more only once they are used up."""
LOGIN_LABEL = "login"
"""What our pages ask payers to write before their login."""
LOGIN_WORDS = (
    *(LOGIN_LABEL, "username", "benutzername", "gebruikersnaam", "identifiant"),
    *("nazwa użytkownika", "nazwa uzytkownika"),
)
"""Words before a login that mean nothing else, in the languages our papers have."""
ACCOUNT_WORDS = (
    *("account", "konto", "kundenkonto", "compte", "cuenta", "conta", "rekening", "účet", "ucet"),
    *("user", "benutzer", "usuario", "utente", "gebruiker", "utilizador", "użytkownik"),
    *("uzytkownik", "uživatel", "uzivatel"),
)
"""Words that mean a bank account or a person as well: a login has to follow a colon, and stand
alone behind it."""
_INVOICE_WORDS = frozenset({
    *("invoice", "bill", "no", "nr", "num", "number", "nummer", "ref", "reference", "referenz"),
    *("rechnung", "rechnungsnummer", "rechnungsnr", "re", "rg", "proforma", "forma", "payment"),
    *("zahlung", "faktura", "facture", "factura", "factuur", "fattura", "fatura", "for", "za"),
    *("numero", "numer", "cislo"),
})  # fmt: skip
"""Words that may stand before a number of ours without its letters."""
_LANGUAGES = ("cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt")
NUMBER_PREFIXES = frozenset({"inv", "pf", "rc", "cn", "rr", "rf", "hm", "br", "pay", "tu", "sub", "or", "ord"})
"""How our own numbers begin: documents, refunds, held money, returns, payment files, orders."""
_SHAPES = (
    re.compile(r"rf\d{2}[a-z0-9]{4,21}"),
    re.compile(r"[a-z]{2}\d{2}[a-z0-9]{11,30}"),
)
"""References of ISO 11649 and account numbers, whatever they are of."""
_SEASONS = frozenset({"w", "q", "h", "kw", "cw", "week", "woche", "quartal", "quarter", "monat", "month"})
_DASHES = re.compile("[\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\N{MINUS SIGN}]")
_BETWEEN = r"[ ]*[-–/_.]?[ ]*"
_NUMBER = re.compile(
    rf"(?<![^\W_])(?P<series>{'|'.join(SERIES)})(?P<first>{_BETWEEN})(?P<year>[0-9]{{4}})"
    rf"(?P<second>{_BETWEEN})(?P<number>[0-9]++)(?P<tail>[^\W_]|[-–_/][0-9])?"
)
_LIKE_A_NUMBER = re.compile(
    rf"(?:{'|'.join(SERIES)})[-–/_][0-9][0-9A-Z–/_-]*|(?<![^\W_])(?:PF|INV)[ ]?[0-9]{{3}}[0-9A-Z–/_-]*"
    r"|[0-9]{4}[-–/_][0-9]{6}[0-9]*|RF[0-9]{8}[0-9]*"
)
"""What somebody wrote who meant a number of ours, without being one."""
_BARE = re.compile(r"(?<![^\W_])(?<![-–/_.])(?P<year>20[0-9]{2})[-–/_](?P<number>[0-9]{6,}+)(?P<tail>[^\W_]|[-–_/][0-9])?")
_BEFORE = re.compile(r"([^\W\d_]+)[ .:#]*$")
_REFERENCE = re.compile(r"(?<![^\W_])RF(?P<digits>(?:[ .\-–/]{0,2}[0-9]+)+)(?P<tail>[^\W_])?")
_LOGIN = r"(?P<login>[a-z0-9][a-z0-9._-]{1,38}[a-z0-9])(?![^\W_]|[@_-])(?P<cut>\n[a-z0-9._-])?"
_LABELLED = re.compile(rf"(?<![^\W_])(?:{'|'.join(LOGIN_WORDS)})\s*[:=#-]?\s*{_LOGIN}")
_ALONE = re.compile(rf"(?<![^\W_])(?:{'|'.join(ACCOUNT_WORDS)})\s*[:=]\s*{_LOGIN}\s*(?:$|[,;/|)])")
_WORD = re.compile(r"(?<![^\W_])[a-z0-9][a-z0-9._-]{1,38}[a-z0-9](?![^\W_]|[@_-])")


@dataclass(frozen=True, slots=True)
class Mention:
    """Something in a text that looks like a reference or a number of ours.

    `exact` is what it says, the likeliest first, spelled as we write it; `respelled` what it may
    be meant to say. Both are empty where it can be nothing of ours.
    """

    text: str
    exact: tuple[str, ...] = ()
    respelled: tuple[str, ...] = ()


def reference(customer_id: int, proforma_number: str) -> str:
    """The reference of a bill: customer (8 digits), year (2) and number (6) of its pro forma."""
    _, year, number = proforma_number.split("-")
    body = f"{customer_id:08d}{year[2:]}{number}"
    return f"RF{mod_97_10.calc_check_digits(f'{body}RF')}{body}"


def grouped(text: str) -> str:
    """A reference or an account number as people copy it: in groups of four. What has blanks already stays as it is."""
    return text if " " in text else " ".join(text[place : place + 4] for place in range(0, len(text), 4))


def for_login(login: str) -> str:
    """What a payer writes to name an account instead of a bill; nothing where the login cannot."""
    return f"{LOGIN_LABEL} {login}" if names_money(login) else ""


def names_money(login: str) -> bool:
    """Whether a login may say in a transfer's text whose money it is.

    One that reads like a number of ours, a reference, an account number, a date or a month, or
    that has no letter, may not: people write such words anyway, whoever took them as a login.
    """
    compact = re.sub(r"[._-]+", "", login.lower())
    parts = re.findall(r"[^\W\d_]+|\d+", login.lower())
    words = [part for part in parts if not part.isdigit()]
    if not words or any(shape.fullmatch(compact) for shape in _SHAPES):
        return False
    numbered = len(words) < len(parts)
    if numbered and "".join(words) in NUMBER_PREFIXES:
        return False
    return not all(_is_of_a_date(word, numbered=numbered) for word in words)


def _is_of_a_date(word: str, *, numbered: bool) -> bool:
    bare = re.sub(r"^(?:st|nd|rd|th)|(?:st|nd|rd|th)$", "", word)
    return bool({word, bare} & _months()) or (numbered and word in _SEASONS)


@cache
def _months() -> frozenset[str]:
    """Names of months, whole and short, as a login can spell them."""
    names = {
        name.lower().strip(".")
        for language in _LANGUAGES
        for width in ("wide", "abbreviated")
        for context in ("format", "stand-alone")
        for name in get_month_names(width, context, language).values()
    }
    spelled = {name.translate(str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})) for name in names}
    return frozenset(plain(name) for name in names | spelled if not name.isdigit())


def plain(text: str) -> str:
    """A text without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def mentions(text: str, *, bare: bool = False) -> list[Mention]:
    """What in a text looks like a reference or a number of ours.

    With `bare`, numbers without their letters (2026-000014) count, too. What reads one way with a
    bank's broken line joined and another way without is respelled at best.
    """
    upper = _DASHES.sub("–", text.upper())
    apart = re.sub(r"\s", " ", upper)
    found = list(_read_references(apart))
    rest = _REFERENCE.sub(_blank, apart) if found else apart
    split = list(_read_numbers(rest, bare=bare))
    if CUT not in upper:
        return found + split
    whole = re.sub(r"\s", " ", upper.replace(CUT, ""))
    joined = list(_read_numbers(_REFERENCE.sub(_blank, whole), bare=bare))
    sure = [mention for mention in split if mention in joined]
    unsure = [mention for mention in (*split, *joined) if mention not in sure]
    either = tuple(name for mention in unsure for name in (*mention.exact, *mention.respelled))
    if any(mention in unsure and not (mention.exact or mention.respelled) for mention in joined):
        either = ()  # in one piece it is a number with a digit too many
    return found + sure + ([Mention(unsure[0].text, (), either)] if unsure else [])


def structured(text: str) -> list[Mention]:
    """The same of the field that is for a reference alone: whatever stands there is meant as one."""
    packed = re.sub(r"[\s.\-/]", "", text.upper())
    if not packed:
        return []
    if re.fullmatch(r"RF[0-9]+", packed) and len(packed) <= _LONGEST and _checks(packed):
        return [Mention(text, (packed,))]
    return mentions(text) or [Mention(text)]


def _read_references(text: str) -> Iterator[Mention]:
    for match in _REFERENCE.finditer(text):
        groups = re.findall(r"[0-9]+", match["digits"])
        if len("".join(groups)) < _DIGITS:
            continue
        readings = ["RF" + "".join(groups[:count]) for count in range(len(groups), 0, -1)]
        right = [reading for reading in readings if _SHORTEST <= len(reading) <= _LONGEST and _checks(reading)]
        glued = [reading for reading in right if match["tail"] and reading == readings[0]]
        exact = tuple(reading for reading in right if reading not in glued)
        yield Mention(match[0].strip(), exact, () if exact else tuple(glued))


def _read_numbers(text: str, *, bare: bool) -> Iterator[Mention]:
    for match in _NUMBER.finditer(text):
        yield _number(match)
    text = _NUMBER.sub(_blank, text)
    for match in _BARE.finditer(text) if bare else ():
        before = _BEFORE.search(text[: match.start()])
        whole = match["tail"] is None and len(match["number"]) == _DIGITS
        meant = whole and (before is None or plain(before[1].lower()) in _INVOICE_WORDS)
        name = f"PF-{match['year']}-{match['number']}"
        yield Mention(match[0], (), (name,) if meant else ())
    for match in _LIKE_A_NUMBER.finditer(_BARE.sub(_blank, text)):
        if bare or not match[0][0].isdigit():
            yield Mention(match[0])


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _number(match: re.Match[str]) -> Mention:
    """One number, whole or respelled; nothing of ours where it has digits or letters too many."""
    digits = match["number"]
    if match["tail"] or (len(digits) > _DIGITS and digits.startswith("0")):
        return Mention(match[0])
    name = f"{match['series']}-{match['year']}-{digits.zfill(_DIGITS)}"
    whole = len(digits) >= _DIGITS and (match["first"], match["second"]) == ("-", "-")
    return Mention(match[0], (name,) if whole else (), () if whole else (name,))


def logins(text: str) -> list[str]:
    """The logins that a text names as our pages ask for it; an empty one where it cannot be read."""
    lower = text.lower()
    found = [*_LABELLED.finditer(lower), *_ALONE.finditer(lower)]
    said = ["" if match["cut"] else match["login"] for match in found]
    return [login for login in dict.fromkeys(said) if names_money(login) or not login.isdigit()]


def words(text: str) -> set[str]:
    """Every word of a text that could be a login."""
    return set(_WORD.findall(text.lower()))


def near(mention: str) -> set[str]:
    """References and numbers that differ from a mistyped one by a digit: another, one too many or
    too few, or two swapped. Those of references have right check digits."""
    upper = _DASHES.sub("-", mention.upper())
    if found := re.match(rf"({'|'.join(SERIES)})[^0-9]*([0-9]{{4}})[^0-9]*([0-9]{{1,9}})", upper):
        near_by = {*_one_digit_off(found[3]), found[3], found[3].rjust(_DIGITS, "0")}
        numbers = {digits.zfill(_DIGITS) for digits in near_by if digits}
        return {f"{found[1]}-{found[2]}-{digits}" for digits in numbers if len(digits) == _DIGITS}
    if found := re.match(r"(20[0-9]{2})[^0-9]([0-9]{1,8})", upper):
        return near(f"PF-{found[1]}-{found[2]}")
    packed = re.sub(r"[^0-9A-Z]", "", upper)
    if re.fullmatch(r"RF[0-9]{6,25}", packed):
        return {f"RF{digits}" for digits in _one_digit_off(packed[2:]) if _checks(f"RF{digits}")}
    return set()


def _one_digit_off(digits: str) -> Iterator[str]:
    for place in range(len(digits) + 1):
        before, after = digits[:place], digits[place:]
        yield from (f"{before}{digit}{after}" for digit in "0123456789")
        if after:
            yield before + after[1:]
            yield from (f"{before}{digit}{after[1:]}" for digit in "0123456789")
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]


def references(text: str) -> Iterator[str]:
    """Every valid reference that stands in a text as whole words, the longest reading first."""
    return (name for mention in _read_references(re.sub(r"\s", " ", text.upper())) for name in mention.exact)


def _checks(reading: str) -> bool:
    """Whether the check digits of ``RF`` and digits are right: ISO 7064, mod 97-10, with the letters as 27 and 15 behind the rest."""
    return int(f"{reading[4:]}2715{reading[2:4]}") % 97 == 1


def qr(holder: str, number: str, bic: str, amount: Money, text: str) -> str:
    """The EPC code of a euro transfer as a ``data:`` image, or nothing where there is none: other currencies, no IBAN, too large."""
    if amount.currency != "EUR" or not re.match(r"[A-Z]{2}\d{2}", number) or not 0 < amount.decimal <= LARGEST_EPC:
        return ""
    structured = iso11649.is_valid(text)
    code = make_epc_qr(
        name=holder[:70], iban=number, bic=bic, amount=amount.decimal, reference=text if structured else None, text=None if structured else text[:140], encoding="utf-8"
    )
    return str(code.svg_data_uri(scale=4, border=4, dark="#000", light="#fff"))
