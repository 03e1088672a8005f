"""Whose money it is: by the reference, then by less certain signs, never by a name alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app import customers, db, remittance
from app.bank.keys import Line

CAME_BACK = "A transfer of ours came back."
RULES = ("reference", "reference in the text", "pro forma number", "login", "known sender", "by hand")
_PROFORMA = re.compile(r"\bPF[\s\-]?(\d{4})[\s\-]?(\d{6,8})\b")
_CUT = re.compile(r"PF-?(\d{4})-?(\d{6})")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{1,38}[a-z0-9]")
_LABELS = frozenset({"login", "account", "user", "username", "konto", "kunde", "kundenkonto", "client", "customer", "compte", "cuenta", "klient", "klienta", "uzytkownik"})
_FILLERS = _LABELS | frozenset({
    *("add", "funds", "top", "up", "topup", "top-up", "for", "to", "my", "the", "payment", "hosting", "no", "nr", "id"),
    *("aufladung", "guthaben", "fuer", "zasilenie", "doladowanie", "opwaarderen", "voor"),
})  # fmt: skip
_ORDINARY = frozenset({
    *("invoice", "bill", "rechnung", "rechnungsnummer", "faktura", "facture", "factura", "factuur", "fattura", "payment", "zahlung", "ueberweisung", "uberweisung", "transfer"),
    *("przelew", "oplata", "virement", "paiement", "pago", "betaling", "bestellung", "order", "auftrag", "vertrag", "contract", "server", "vps", "domain", "webhosting"),
    *("miete", "rent", "danke", "thanks", "thank", "you", "dziekuje", "merci", "gracias", "deposit", "credit", "balance", "money", "gutschrift", "sepa", "abo", "monat"),
    *("januar", "februar", "maerz", "april", "mai", "juni", "juli", "august", "september", "oktober", "november", "dezember", "january", "february", "march", "may", "june"),
    *("july", "october", "december", "cloud", "gmbh", "private", "privat"),
})  # fmt: skip
"""What people write who name nothing: whoever takes such a word as a login gets no stranger's money for it."""


@dataclass(frozen=True, slots=True)
class Match:
    """Who is credited, for which bill (None: whatever it is for), and how that is known."""

    customer_id: int
    bill_id: int | None
    rule: str


@dataclass(slots=True)
class _Known:
    """What the database knows of all that a batch of lines names."""

    references: Mapping[str, Match]
    proformas: Mapping[str, Match]
    logins: Mapping[str, int]


def match(lines: Sequence[Line]) -> list[Match | str]:
    """For each line whose money it is, or the sentence why nobody can say. Reads only, in four questions."""
    known = _look_up(lines)
    found = [_by_text(line, known) for line in lines]
    senders = _senders([line for line, match in zip(lines, found, strict=True) if match is None])
    return [match or _by_sender(line, senders) for line, match in zip(lines, found, strict=True)]


def _by_text(line: Line, known: _Known) -> Match | str | None:
    if line.doubt:
        return line.doubt
    if line.returned:
        return CAME_BACK
    return _by_reference(line, known) or _by_proforma(line, known) or _by_login(line, known)


def _by_reference(line: Line, known: _Known) -> Match | str | None:
    for text, rule in ((line.detail.structured, RULES[0]), (line.text, RULES[1])):
        found = [known.references[reference] for reference in dict.fromkeys(remittance.references(text)) if reference in known.references]
        if len({match.customer_id for match in found}) > 1:
            return "It names bills of several customers."
        if found:
            return Match(found[0].customer_id, found[0].bill_id, rule)
    return None


def _by_proforma(line: Line, known: _Known) -> Match | str | None:
    found = {known.proformas[number] for number in _proformas(line) if number in known.proformas}
    return "It names several bills." if len(found) > 1 else next(iter(found), None)


def _by_login(line: Line, known: _Known) -> Match | str | None:
    found = {known.logins[word] for word in _logins(line) if word in known.logins}
    return "It names several logins." if len(found) > 1 else next((Match(customer, None, RULES[3]) for customer in found), None)


def _by_sender(line: Line, senders: Mapping[tuple[str, int, str], Sequence[Match]]) -> Match | str:
    found = senders.get((line.detail.sender_account, line.amount, line.currency), ())
    if len(found) > 1:
        return "Its sender has several open bills of this amount."
    return found[0] if found else "Nothing in it names a bill or a login."


def _proformas(line: Line) -> Iterator[str]:
    """Numbers of pro formas, also where a bank cut its lines within one."""
    text = line.text.upper()
    found = [*_PROFORMA.findall(text), *_CUT.findall(re.sub(r"\s", "", text))]
    return (f"PF-{year}-{number}" for year, number in dict.fromkeys(found))


def _logins(line: Line) -> Iterator[str]:
    """Words that may be meant as a login: after a word like "login", with a digit or mark in it, or as good as all there is.

    An ordinary word amid others is none: somebody may be called like it.
    """
    words = [word.strip("._-") for word in _WORD.findall(line.detail.remittance.lower())]
    meant = [word for word in words if word not in _FILLERS]
    for before, word in zip(["", *words], words, strict=False):
        if before in _LABELS or (re.search(r"[a-z]", word) and re.search(r"[0-9._-]", word)) or (meant == [word] and word not in _ORDINARY):
            yield word


def _look_up(lines: Sequence[Line]) -> _Known:
    references = {reference for line in lines for text in (line.detail.structured, line.text) for reference in remittance.references(text)}
    proformas = {number for line in lines for number in _proformas(line)}
    return _Known(
        {row.payment_reference: Match(row.beneficiary_id, row.id, RULES[0]) for row in db.rows(_BY_REFERENCE, references=list(references))},
        {row.proforma_number: Match(row.beneficiary_id, row.id, RULES[2]) for row in db.rows(_BY_PROFORMA, numbers=list(proformas))},
        customers.find_logins({word for line in lines for word in _logins(line)}),
    )


def _senders(lines: Sequence[Line]) -> dict[tuple[str, int, str], list[Match]]:
    """The open bills of exactly these amounts whose customers were paid for from these accounts before."""
    found: dict[tuple[str, int, str], list[Match]] = {}
    known = [line for line in lines if line.detail.sender_account]
    asked = {"senders": [line.detail.sender_account for line in known], "amounts": [line.amount for line in known], "currencies": [line.currency for line in known]}
    for row in db.rows(_BY_SENDER, **asked) if known else ():
        found.setdefault((row.sender, row.amount, row.currency), []).append(Match(row.beneficiary_id, row.id, RULES[4]))
    return found


_BY_REFERENCE = "select id, beneficiary_id, payment_reference from bills where payment_reference = any(%(references)s)"
_BY_PROFORMA = "select id, beneficiary_id, proforma_number from bills where proforma_number = any(%(numbers)s)"
_BY_SENDER = """
with wanted as materialized (
  select distinct sender, amount, currency from unnest(%(senders)s::text[], %(amounts)s::bigint[], %(currencies)s::text[]) as w (sender, amount, currency)
), paid_for as materialized (
  select distinct sender_account, customer_id from bank_lines where sender_account = any(%(senders)s) and state = 'matched'
)
select w.sender, w.amount, w.currency, b.id, b.beneficiary_id
from wanted w join paid_for p on p.sender_account = w.sender
join bills b on b.customer_id = p.customer_id and b.status = 'unpaid' and b.total = w.amount and b.currency = w.currency
"""
