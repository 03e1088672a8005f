"""Statements as different banks write them, made for the tests: the same money in camt.053 and .054, versions 02 and 08, and in MT940."""

from dataclasses import dataclass, replace
from decimal import Decimal
from xml.sax.saxutils import escape

from app.money import Money

EUR_ACCOUNT = "DE89370400440532013000"
PLN_ACCOUNT = "PL61109010140000071219812874"
SENDER = "DE75512108001245126199"


@dataclass(frozen=True)
class Transfer:
    """One transfer as a bank knows it. `minor` is signed; empty texts are left out of the file."""

    minor: int
    text: str = ""
    structured: str = ""
    reference: str = ""
    end_to_end: str = ""
    sender: str = "Anna Kowalska"
    iban: str = SENDER
    day: str = "2026-11-20"
    family: str = "ESCT"
    sent: int | None = None
    status: str = "BOOK"
    reversal: bool = False
    return_reason: str = ""
    batch: str = ""


@dataclass(frozen=True)
class Batch:
    """Several transfers booked as one sum; without `shown` the bank tells the sum only. `name` is the message it came in, `counted` whether the bank says how many they are."""

    transfers: tuple[Transfer, ...]
    reference: str = ""
    total: int | None = None
    shown: bool = True
    charges: int = 0
    day: str = "2026-11-20"
    name: str = ""
    counted: bool = False

    @property
    def minor(self) -> int:
        """What was booked."""
        return sum(transfer.minor for transfer in self.transfers) - self.charges if self.total is None else self.total


@dataclass(frozen=True)
class Style:
    """How one bank writes: which report, which version, and what it leaves out."""

    report: str = "053"
    version: str = "02"
    prefix: str = ""
    deep_amounts: bool = True
    currency: str = "EUR"
    account: str = EUR_ACCOUNT
    id: str = "STMT-1"
    opening: int = 1_000_00
    closing: int | None = None
    number: int | None = None
    opened: str = ""
    day: str = "2026-11-20"


GERMAN = Style()
DUTCH = Style(version="08", deep_amounts=False, id="NL-2026-1120")
POLISH = Style(version="08", prefix="ns2:", currency="PLN", account=PLN_ACCOUNT, id="WB/2026/231")
ADVICE = Style(report="054", id="ADV-1")
INTRADAY = Style(report="052", id="INTRA-1")
_ROOTS = {"053": ("BkToCstmrStmt", "Stmt"), "054": ("BkToCstmrDbtCdtNtfctn", "Ntfctn"), "052": ("BkToCstmrAcctRpt", "Rpt")}


def camt(entries: list[Transfer | Batch], style: Style = GERMAN) -> bytes:
    """A camt file of one statement."""
    root, report = _ROOTS[style.report]
    closing = style.opening + sum(entry.minor for entry in entries if not isinstance(entry, Transfer) or entry.status == "BOOK") if style.closing is None else style.closing
    balances = "" if style.report == "054" else _balance("OPBD", style.opening, style, style.opened) + _balance("CLBD", closing, style)
    account = f"<Acct><Id><IBAN>{style.account}</IBAN></Id><Ccy>{style.currency}</Ccy></Acct>"
    number = f"<ElctrncSeqNb>{style.number}</ElctrncSeqNb>" if style.number else ""
    booked = "".join(_entry(entry, style) for entry in entries)
    inner = f"<GrpHdr><MsgId>M</MsgId></GrpHdr><{report}><Id>{style.id}</Id>{number}<CreDtTm>2026-11-20T21:00:00</CreDtTm>{account}{balances}{booked}</{report}>"
    text = f"<Document><{root}>{inner}</{root}></Document>"
    space = f"urn:iso:std:iso:20022:tech:xsd:camt.{style.report}.001.{style.version}"
    if style.prefix:
        text = text.replace("</", "\0").replace("<", f"<{style.prefix}").replace("\0", f"</{style.prefix}")
    mark = f"xmlns:{style.prefix.rstrip(':')}" if style.prefix else "xmlns"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text.replace("Document>", f"Document {mark}=" + chr(34) + space + chr(34) + ">", 1)}'.encode()


def _amount(minor: int, currency: str) -> str:
    return f'<Amt Ccy="{currency}">{Money(abs(minor), currency).decimal}</Amt>'


def _side(minor: int) -> str:
    return f"<CdtDbtInd>{'CRDT' if minor >= 0 else 'DBIT'}</CdtDbtInd>"


def _balance(code: str, minor: int, style: Style, day: str = "") -> str:
    return f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount(minor, style.currency)}{_side(minor)}<Dt><Dt>{day or style.day}</Dt></Dt></Bal>"


def _entry(entry: Transfer | Batch, style: Style) -> str:
    lone = isinstance(entry, Transfer)
    status = entry.status if lone else "BOOK"
    family = entry.family if lone else "ESCT"
    reversal = "<RvslInd>true</RvslInd>" if lone and entry.reversal else ""
    reference = f"<AcctSvcrRef>{entry.reference}</AcctSvcrRef>" if entry.reference else ""
    transfers = (entry,) if lone else entry.transfers if entry.shown else ()
    message = "" if lone or not entry.name else f"<MsgId>{entry.name}</MsgId>"
    counted = "" if lone or not entry.counted else f"<NbOfTxs>{len(entry.transfers)}</NbOfTxs>"
    details = f"<Btch>{message}{counted}</Btch>" if message or counted else ""
    charges = f"<Chrgs><Rcrd>{_amount(entry.charges, style.currency)}</Rcrd></Chrgs>" if not lone and entry.charges else ""
    details += "".join(_detail(replace(each, reference="" if lone else each.reference), style) for each in transfers)
    return (
        f"<Ntry>{_amount(entry.minor, style.currency)}{_side(entry.minor)}{reversal}<Sts>{status if style.version == '02' else f'<Cd>{status}</Cd>'}</Sts>"
        f"<BookgDt><Dt>{entry.day}</Dt></BookgDt><ValDt><Dt>{entry.day}</Dt></ValDt>{reference}"
        f"<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>{family}</SubFmlyCd></Fmly></Domn></BkTxCd>{charges}"
        f"{f'<NtryDtls>{details}</NtryDtls>' if details else ''}</Ntry>"
    )


def _detail(transfer: Transfer, style: Style) -> str:
    party = f"<Nm>{escape(transfer.sender)}</Nm>"
    whose = "Dbtr" if transfer.minor > 0 else "Cdtr"
    amount = _amount(transfer.minor, style.currency)
    sent = f"<InstdAmt>{_amount(transfer.sent, style.currency)}</InstdAmt>" if transfer.sent else ""
    amounts = f"<AmtDtls>{sent}<TxAmt>{amount}</TxAmt></AmtDtls>" if style.deep_amounts else f"{amount}{_side(transfer.minor)}{f'<AmtDtls>{sent}</AmtDtls>' if sent else ''}"
    strd = f"<Strd><CdtrRefInf><Ref>{transfer.structured}</Ref></CdtrRefInf></Strd>" if transfer.structured else ""
    ustrd = "".join(f"<Ustrd>{escape(transfer.text[at : at + 35])}</Ustrd>" for at in range(0, len(transfer.text), 35))
    account = f"<{whose}Acct><Id><IBAN>{transfer.iban}</IBAN></Id></{whose}Acct>" if transfer.iban else ""
    refs = (f"<MsgId>{transfer.batch}</MsgId>" if transfer.batch else "") + (f"<AcctSvcrRef>{transfer.reference}</AcctSvcrRef>" if transfer.reference else "")
    back = f"<RtrInf><Rsn><Cd>{transfer.return_reason}</Cd></Rsn></RtrInf>" if transfer.return_reason else ""
    return (
        f"<TxDtls><Refs>{refs}<EndToEndId>{transfer.end_to_end or 'NOTPROVIDED'}</EndToEndId></Refs>{amounts}"
        f"<RltdPties><{whose}>{party if style.version == '02' else f'<Pty>{party}</Pty>'}</{whose}>{account}</RltdPties>"
        f"{f'<RmtInf>{ustrd}{strd}</RmtInf>' if ustrd or strd else ''}{back}</TxDtls>"
    )


def mt940(
    transfers: list[Transfer], form: str = "german", opening: int = 1_000_00, account: str = "37040044/0532013000EUR", closing: int | None = None, day: str = "2026-11-20"
) -> bytes:
    """An MT940 statement; `form` is ``german`` (?20…), ``slashes`` (/EREF/…) or ``polish`` (~20…)."""
    end = opening + sum(transfer.minor for transfer in transfers) if closing is None else closing
    lines = [":20:STARTUMS", f":25:{account}", ":28C:231/1", f":60F:{_mt_balance(opening, day)}"]
    for transfer in transfers:
        mark = ("R" if transfer.reversal else "") + ("C" if (transfer.minor > 0) != transfer.reversal else "D")
        day = transfer.day.replace("-", "")
        bank = f"//{transfer.reference}" if transfer.reference else ""
        lines += [f":61:{day[2:]}{day[4:]}{mark}{_comma(abs(transfer.minor))}NTRFNONREF{bank}", f":86:{_told(transfer, form)}"]
    return "\r\n".join([*lines, f":62F:{_mt_balance(end, day)}", "-"]).encode()


def _comma(minor: int) -> str:
    return str(Decimal(minor).scaleb(-2)).replace(".", ",")


def _mt_balance(minor: int, day: str) -> str:
    return f"{'C' if minor >= 0 else 'D'}{day.replace('-', '')[2:]}EUR{_comma(abs(minor))}"


def _told(transfer: Transfer, form: str) -> str:
    text = transfer.structured or transfer.text
    if form == "slashes":
        return f"/TRTP/SEPA OVERBOEKING/IBAN/{transfer.iban}/BIC/INGBNL2A/NAME/{transfer.sender}/REMI/USTD//{text}/EREF/{transfer.end_to_end or 'NOTPROVIDED'}"
    said = f"EREF+{transfer.end_to_end or 'NOTPROVIDED'}SVWZ+{text}" if form == "german" else text
    mark = "?" if form == "german" else "~"
    fields = [f"{mark}{20 + place}{said[at : at + 27]}" for place, at in enumerate(range(0, len(said), 27))]
    told = f"166{mark}00GUTSCHRIFT{''.join(fields)}{mark}30COBADEFF{mark}31{transfer.iban}{mark}32{transfer.sender}"
    return "\r\n".join(told[at : at + 65] for at in range(0, len(told), 65))
