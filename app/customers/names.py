"""Logins and names that nobody may take: what reads as ours, as a number, or as a link."""

import re
import unicodedata
from typing import Final

import config
from app import db, mail, remittance

CANNOT: Final = "This login cannot be used. Choose another one."
_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,38}[a-z0-9]")
_SEPARATORS: Final = re.compile(r"[._-]+")
_ROLES: Final = frozenset({
    *("abuse", "accountant", "accounting", "accounts", "admin", "administrator", "backoffice"),
    *("bank", "billing", "board", "bot", "bounce", "ceo", "clientarea", "compliance", "contact"),
    *("customercare", "customers", "customerservice", "daemon", "demo", "dpo", "finance", "ftp"),
    *("ftpadmin", "guest", "help", "helpdesk", "hostmaster", "info", "invoice", "invoices", "it"),
    *("itsupport", "legal", "mail", "mailer", "mailerdaemon", "manager", "management", "master"),
    *("moderator", "money", "newsletter", "nobody", "noc", "noreply", "office", "official"),
    *("operator", "owner", "payment", "payments", "payout", "payouts", "postmaster", "press"),
    *("privacy", "refund", "refunds", "reply", "root", "sales", "security", "service", "services"),
    *("staff", "superuser", "support", "supports", "sysadmin", "system", "team", "tech", "test"),
    *("treasury", "user", "username", "verification", "webmaster", "www", "login", "customer"),
})  # fmt: skip
"""Words of offices and machines: nobody is called like that."""
_ALONGSIDE: Final = frozenset({"the", "our", "my", "no", "hq", "eu", "de", "int", "global", "desk"})
_LEET: Final = str.maketrans("013457", "oleast")
_LEGAL_FORM: Final = re.compile(
    r"\s(?:ab|ag|a\.?s\.?|aps|as|b\.?v\.?|corp\.?|d\.o\.o\.|e\.k\.|e\.?v\.?|gmbh|inc\.?|kft\.?|kg|lda|"
    r"llc|llp|ltd\.?|limited|nv|n\.v\.|oü|oy|plc|s\.?a\.?|sarl|s\.?a\.?s\.?|s\.?l\.?|s\.?p\.?a\.?|"
    r"s\.?r\.?l\.?|s\.?r\.?o\.?|se|sp\. ?z ?o\. ?o\.|ug)\s*$",
    re.IGNORECASE,
)
_PLANS: Final = "select code, name from plans"


def login_problem(login: str) -> str | None:
    """Why this cannot be a login, as a sentence, or None. Whether somebody has it is not asked."""
    if not _LOGIN.fullmatch(login):
        return "Use 3 to 40 small letters, digits, dots, dashes or underscores, with a letter or digit at both ends."
    plain = (not remittance.names_money(login), mail.looks_like_link(login), _is_ours(login))
    return CANNOT if any(plain) or _is_plan(login) else None


def name_problem(text: str, *, company: bool = False) -> str | None:
    """Why this cannot be a name, as a sentence, or None: it stands in mails to other people.

    A company may be called like its domain when its legal form follows ("Booking.com B.V.").
    """
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text):
        return "Write this on one line, without control characters."
    if any("\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069" for letter in text):
        return "Leave out characters that turn the direction of the text."
    rest = _LEGAL_FORM.sub("", text)
    if company and rest != text and not re.search(r"://|www\.|@|/", rest):
        return None
    return "Leave out web and e-mail addresses here." if mail.looks_like_link(text) else None


def brand_words() -> frozenset[str]:
    """What the seller is called, as logins would write it: its brand and the names of its domains."""
    seller = config.current().seller
    hosts = (seller.website, seller.email.rpartition("@")[2], config.current().host)
    domains = [re.sub(r"^.*//|[:/].*$|^www\.", "", host).rpartition(".")[0] for host in hosts]
    return frozenset(word for text in (seller.brand, *domains) if len(word := re.sub(r"[^a-z0-9]", "", text.lower())) > 3)


def _is_ours(login: str) -> bool:
    """Whether a login reads as one of the seller's: its brand, or offices alone, with digits or not."""
    brands = brand_words() - {"localhost"}
    for reading in {login, login.translate(_LEET)}:
        compact = _SEPARATORS.sub("", reading)
        words = [word for part in _SEPARATORS.split(reading) if (word := part.strip("0123456789"))]
        bare = compact.strip("0123456789")
        if any(compact.startswith(brand) or bare.endswith(brand) for brand in brands):
            return True
        if bare in _ROLES or (words and _ROLES & set(words) and set(words) <= _ROLES | _ALONGSIDE):
            return True
        if any(bare == role + other for role in _ROLES for other in ("team", "desk", "dept", "office")):
            return True
    return False


def _is_plan(login: str) -> bool:
    """Whether a login is what we sell, with other digits or not: the labels of services look like it."""
    compact = _SEPARATORS.sub("", login)
    sold = {re.sub(r"[^a-z0-9]", "", text.lower()) for row in db.rows(_PLANS) for text in row}
    stems = {stem for name in sold if len(stem := name.rstrip("0123456789")) > 1}
    return compact in sold or compact.rstrip("0123456789") in stems
