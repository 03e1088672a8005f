"""ISO 20022: camt.052, .053 and .054 of any version.

Elements are read by their local names: banks write versions 02 to 13, with small differences in where a name or a state stands. The parser
expands no entity and asks no network; a document type is refused.
"""

from collections.abc import Iterator
from datetime import date
from itertools import pairwise

from lxml import etree

from app.bank.statements import Detail, Entry, FileRefused, Statement, compact, day_of, given
from app.money import Money
from app.remittance import CUT

FORMATS = {"Stmt": "camt.053", "Ntfctn": "camt.054", "Rpt": "camt.052"}
OPENING, CLOSING, INTERIM = ("OPBD", "PRCD"), ("CLBD",), "ITBD"
LONGEST_NUMBER = 9
RETURNS = frozenset({"RRTN", "RPCR", "RPBC", "UPDD", "UPCT", "ARET"})
BATCH_NAMES = ("NtryDtls/Btch/MsgId", "NtryDtls/Btch/PmtInfId", "NtryDtls/TxDtls/Refs/MsgId", "NtryDtls/TxDtls/Refs/PmtInfId")
FEES = frozenset({"CHRG", "FEES", "COMM", "COMT", "COME"})

WIDTHS = frozenset({27, 35, 54, 65, 70, 140})
"""Characters at which banks break the payer's text into lines, be it within a word."""

Element = etree._Element  # noqa: SLF001 - the library's own name for its element


def read(data: bytes) -> list[Statement]:
    """The statements of a file. Raises FileRefused for what is no such file, or only half of one."""
    found = [_statement(report) for report in root(data).iter(*FORMATS)]
    if not found:
        raise FileRefused("This XML holds no camt.052, .053 or .054 report.")
    return found


def root(data: bytes) -> Element:
    """The file as elements by their local names. Raises FileRefused for what is damaged or declares a document type."""
    try:
        found = etree.fromstring(
            _from_its_first_sign(data), etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True)
        )
    except etree.XMLSyntaxError as error:
        raise FileRefused(f"The file is damaged or cut off: {error}.") from error
    if found.getroottree().docinfo.doctype:  # type: ignore[union-attr]
        raise FileRefused("The file declares a document type. A statement needs none, so it is not read.")
    for element in found.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return found


def _from_its_first_sign(data: bytes) -> bytes:
    """Without blank lines before the declaration, which XML does not allow and banks write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data
    return data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")


def _statement(report: Element) -> Statement:
    account = compact(report.findtext("Acct/Id/IBAN") or report.findtext("Acct/Id/Othr/Id"))
    currency = report.findtext("Acct/Ccy") or next((amount.get("Ccy", "") for amount in report.iterfind("Bal/Amt")), "")
    currency = currency or next((amount.get("Ccy", "") for amount in report.iterfind("Ntry/Amt")), "")
    number = (report.findtext("ElctrncSeqNb") or report.findtext("LglSeqNb") or "").strip()
    statement = Statement((report.findtext("Id") or "").strip(), account, currency, FORMATS[report.tag], full=report.tag == "Stmt")
    statement.number = int(number) if number.isdecimal() and len(number) < LONGEST_NUMBER else None
    statement.page = (report.findtext(f"{report.tag}Pgntn/PgNb") or "").strip()
    try:
        _take_balances(statement, report)
    except ValueError as fault:
        statement.faults.append(f"{statement.id}, balances: {fault}")
    for place, entry in enumerate(report.iterfind("Ntry"), 1):
        try:
            _take(statement, entry, (report.findtext("CreDtTm") or "")[:10])
        except ValueError as fault:
            statement.faults.append(f"{statement.id}, entry {place}: {fault}")
    return statement


def _take_balances(statement: Statement, report: Element) -> None:
    """Opening and closing balance; one page of several begins or ends with an interim one."""
    interim = [balance for balance in report.iterfind("Bal") if _code(balance) == INTERIM] if statement.full else []
    opening = next(iter((*_of_code(report, OPENING), *interim)), None)
    closing = next(iter((*_of_code(report, CLOSING), *reversed(interim))), None)
    if opening is not None and closing is not None and opening is not closing:
        statement.opening, statement.opened_on = _signed(opening, opening.find("Amt")), _balance_day(opening)
        statement.closing, statement.closed_on = _signed(closing, closing.find("Amt")), _balance_day(closing)


def _code(balance: Element) -> str:
    return balance.findtext("Tp/CdOrPrtry/Cd") or balance.findtext("Tp/CdOrPrtry/Prtry") or ""


def _of_code(report: Element, codes: tuple[str, ...]) -> Iterator[Element]:
    return (balance for code in codes for balance in report.iterfind("Bal") if _code(balance) == code)


def _balance_day(balance: Element) -> date | None:
    day = (balance.findtext("Dt/Dt") or balance.findtext("Dt/DtTm") or "")[:10]
    return day_of(day) if day else None


def _signed(holder: Element, amount: Element | None) -> int:
    if amount is None or not amount.text:
        raise ValueError("there is no amount")
    direction = holder.findtext("CdtDbtInd")
    if direction not in {"CRDT", "DBIT"}:
        raise ValueError(f"“{direction}” says neither credit nor debit")
    minor = Money.of(amount.text.strip(), amount.get("Ccy", "")).minor
    if minor < 0:
        raise ValueError(f"{amount.text.strip()} is below zero")
    return minor if direction == "CRDT" else -minor


def _take(statement: Statement, entry: Element, written_on: str) -> None:
    status = entry.findtext("Sts/Cd") or (entry.findtext("Sts") or "").strip() or "BOOK"
    if status != "BOOK":
        statement.not_booked += 1
        return
    amount = _in_currency(entry, statement.currency)
    if amount is not None and amount.get("Ccy") != statement.currency:
        text = f"{amount.text} {amount.get('Ccy')}"
        statement.set_aside.append(f"{statement.id}: {text} on an account in {statement.currency}.")
        return
    signed = _signed(entry, amount)
    booked = _day(entry, "BookgDt") or _day(entry, "ValDt") or written_on
    transfers = entry.findall("NtryDtls/TxDtls")
    alone = len(transfers) == 1
    statement.entries.append(
        Entry(
            amount=signed,
            booked_on=day_of(booked),
            reference=given(entry.findtext("AcctSvcrRef")),
            returned=entry.findtext("RvslInd") in {"true", "1"} or _family(entry) in RETURNS,
            fee=_is_fee(entry),
            charges=_charges(entry, statement.currency),
            details=tuple(_detail(each, statement, signed, alone=alone) for each in transfers) or (Detail(signed, note=_batch(entry)),),
            names=frozenset(given(name) for path in BATCH_NAMES for name in _texts(entry, path)) - {""},
            transfers=_transfers(entry),
        )
    )


def _in_currency(entry: Element, currency: str) -> Element | None:
    """The amount of an entry; of one in another currency its counter value on the account, where the bank says that."""
    amount = entry.find("Amt")
    if amount is None or amount.get("Ccy") == currency:
        return amount
    transfers = entry.findall("NtryDtls/TxDtls")
    holders = [entry, *(transfers if len(transfers) == 1 else [])]
    values = (holder.find(f"AmtDtls/{name}/Amt") for holder in holders for name in ("CntrValAmt", "TxAmt"))
    return next((each for each in values if each is not None and each.get("Ccy") == currency), amount)


def _day(entry: Element, name: str) -> str:
    return (entry.findtext(f"{name}/Dt") or entry.findtext(f"{name}/DtTm") or "").strip()[:10]


def _family(holder: Element) -> str:
    return holder.findtext("BkTxCd/Domn/Fmly/SubFmlyCd") or ""


def _is_fee(entry: Element) -> bool:
    return _family(entry) in FEES or (entry.findtext("BkTxCd/Prtry/Cd") or "").startswith("NCHG")


def _charges(holder: Element, currency: str) -> int:
    amounts = [*holder.iterfind("Chrgs/Amt"), *holder.iterfind("Chrgs/Rcrd/Amt")]
    return sum(Money.of((amount.text or "").strip(), currency).minor for amount in amounts if amount.get("Ccy") == currency)


def _transfers(entry: Element) -> int:
    """How many transfers the bank says that it booked as one sum."""
    told = [(number or "").strip() for number in _texts(entry, "NtryDtls/Btch/NbOfTxs")]
    return sum(int(number) for number in told if number.isdecimal() and len(number) < LONGEST_NUMBER)


def _batch(entry: Element) -> str:
    """What an entry without its transfers says: of a batch of ours the name of the file it came in."""
    paths = ("AddtlNtryInf", "NtryDtls/Btch/MsgId", "NtryDtls/Btch/PmtInfId")
    return " ".join(text.strip() for path in paths for text in _texts(entry, path) if text.strip())


def _detail(detail: Element, statement: Statement, entry: int, *, alone: bool) -> Detail:
    currency, who = statement.currency, _counterparty(detail, statement.account, incoming=entry > 0)
    amount = entry if alone else _own_amount(detail, currency, entry)
    return Detail(
        amount=amount,
        bank_reference=given(detail.findtext("Refs/AcctSvcrRef")),
        end_to_end=given(detail.findtext("Refs/EndToEndId")) or given(detail.findtext("Refs/UETR")),
        sender=_party(detail, who),
        sender_account=_account(detail, f"{who}Acct"),
        structured=given(next(_texts(detail, "RmtInf/Strd/CdtrRefInf/Ref"), "")),
        remittance=_remittance(detail),
        note=" ".join(text.strip() for text in _texts(detail, "AddtlTxInf") if text.strip()),
        deducted=_deducted(detail, currency, amount),
        returned=detail.find("RtrInf") is not None or _family(detail) in RETURNS,
    )


def _own_amount(detail: Element, currency: str, entry: int) -> int | None:
    """What one of several transfers brought to the account. In version 02 it stands deeper than later."""
    for path in ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/CntrValAmt/Amt"):
        amount = detail.find(path)
        if amount is not None and amount.get("Ccy") == currency:
            minor = abs(Money.of((amount.text or "").strip(), currency).minor)
            positive = entry > 0 if detail.find("CdtDbtInd") is None else detail.findtext("CdtDbtInd") == "CRDT"
            return minor if positive else -minor
    return None


def _deducted(detail: Element, currency: str, amount: int | None) -> int:
    """What is missing of what the payer sent, where both are in the account's currency."""
    sent = detail.find("AmtDtls/InstdAmt/Amt")
    if amount is None or amount < 0 or sent is None or sent.get("Ccy") != currency:
        return 0
    return max(0, Money.of((sent.text or "").strip(), currency).minor - amount)


def _counterparty(detail: Element, own: str, *, incoming: bool) -> str:
    """The side that is not us. What comes back bears the parties of the transfer it undoes, so there we stand where the other is expected."""
    expected, other = ("Dbtr", "Cdtr") if incoming else ("Cdtr", "Dbtr")
    return other if _account(detail, f"{expected}Acct") == own else expected


def _party(detail: Element, who: str) -> str:
    found = detail.findtext(f"RltdPties/{who}/Nm") or detail.findtext(f"RltdPties/{who}/Pty/Nm")
    return (found or detail.findtext(f"RltdPties/Ultmt{who}/Nm") or detail.findtext(f"RltdPties/Ultmt{who}/Pty/Nm") or "").strip()


def _account(detail: Element, whose: str) -> str:
    return compact(detail.findtext(f"RltdPties/{whose}/Id/IBAN") or detail.findtext(f"RltdPties/{whose}/Id/Othr/Id"))


def _remittance(detail: Element) -> str:
    paths = ("RmtInf/Ustrd", "RmtInf/Strd/AddtlRmtInf")
    lines = [text for path in paths for text in _texts(detail, path) if text.strip()]
    lines += _documents(detail, lines)
    joints = [CUT if len(line) in WIDTHS and not line[-1].isspace() and not after[0].isspace() else " " for line, after in pairwise(lines)]
    return "".join(f"{line.strip()}{joint}" for line, joint in zip(lines, [*joints, ""], strict=False))


def _documents(detail: Element, said: list[str]) -> list[str]:
    """The documents that a payer names in the fields for them, and every reference but the first,
    which has a field of its own; those that the text does not say anyway."""
    named = [*_texts(detail, "RmtInf/Strd/RfrdDocInf/Nb")]
    named += list(_texts(detail, "RmtInf/Strd/CdtrRefInf/Ref"))[1:]
    text = "".join(said)
    return [number.strip() for number in named if number.strip() and number.strip() not in text]


def _texts(holder: Element, path: str) -> Iterator[str]:
    return (element.text or "" for element in holder.iterfind(path))
