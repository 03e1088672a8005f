"""Invoices: the list of bills, each bill as its document with what happened to it, and the files."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request

from app import clock, invoicing, payments, services, web
from app.invoicing import Bill, Filter
from app.money import Money
from app.web import days, spreadsheet

invoices = Blueprint("invoices", __name__)

STATUSES: Final = (("", "All"), ("unpaid", "Unpaid"), ("topup", "Open top-ups"), ("paid", "Paid"), ("refunded", "Refunded"), ("cancelled", "Cancelled"), ("expired", "Expired"))
RARE: Final = ("topup", "expired")
"""Filter options that are offered only where they find something."""
KINDS: Final = (("", "All kinds"), ("invoice", "Services"), ("topup", "Top-ups"))
KIND_OF: Final = {"service": "invoice", "topup": "topup"}
"""A bill's kind as filters and exports name it."""
KIND_WORDS: Final = {"service": "services", "topup": "top-ups"}
COLUMNS: Final = (
    *("Number", "Pro forma", "Invoice", "Receipt", "Kind", "Status", "Service or order", "Beneficiary", "Issued", "Due", "Paid on", "Period from", "Period to", "Months"),
    *("Net", "VAT rate", "VAT", "Total", "Currency", "Credited", "Credited currency", "Method", "Bonus"),
)
NOT_NOW: Final = "The PDF is being prepared. Ask for it again in a few seconds."
NO_FONT: Final = "This PDF has characters we cannot print yet, and support knows. It will be here as soon as it can be drawn right."


@invoices.get("/invoices")
def index() -> Response:
    """The list; a partial request gets the results."""
    asked = _asked()
    if not web.is_partial() and "" in request.args.values():
        return web.go(_address(asked))
    page = invoicing.search(web.reader().customer_id, asked)
    return web.page(
        "invoices/index.html",
        "results",
        also=("_invoice_days.html",),
        status_code=422 if asked.errors else 200,
        push_url=_address(asked),
        asked=asked,
        formats=web.writer(),
        page=page,
        legal_zone=next(filter(None, (legal_zone(entry.moments) for entry in page.entries)), ""),
        segments=[
            (word, status, _address(replace(asked, status=status, before="")), page.counts[status])
            for status, word in STATUSES
            if status not in RARE or page.counts[status] or status == asked.status
        ],
        kinds=[(word, kind, _address(replace(asked, kind=kind, before=""))) for kind, word in KINDS],
        kind_words=KIND_WORDS,
        presets=_presets(asked),
        chips=[(words, _address(without)) for words, without in asked.chips(web.writer())],
        sizes=[(size, _address(replace(asked, size=size, before=""))) for size in invoicing.SIZES],
        periods=invoicing.PERIODS,
        older=_address(replace(asked, before=page.older)) if page.older else "",
        newest=_address(replace(asked, before="")) if asked.before else "",
        file=_address(asked, "/invoices.csv"),
    )


@invoices.get("/invoices.csv")
def export() -> Response:
    """Everything the filter finds, newest first."""
    rows = invoicing.export(web.reader().customer_id, _asked())
    return spreadsheet.answer(f"invoices-{clock.today()}.csv", COLUMNS, _cells(rows), web.writer().locale)


@invoices.get("/invoices.zip")
def bundle() -> Response:
    """The documents of the chosen numbers in one file."""
    numbers = request.args.getlist("number")
    if not numbers or len(set(numbers)) > invoicing.LARGEST_BUNDLE:
        web.toast(f"Tick the invoices you want, {invoicing.LARGEST_BUNDLE} at most, then download them.")
        return web.go("/invoices")
    try:
        packed = invoicing.bundle(web.reader().customer_id, numbers)
    except invoicing.PressError as error:
        web.toast(why_not(error))
        return web.go("/invoices")
    return _file(packed or abort(404), "application/zip", f"invoices-{clock.today()}.zip")


@invoices.get("/invoices/<number>")
def show(number: str) -> Response:
    """One bill as its document, with what happened to it."""
    bill = _own(number)
    standing = invoicing.standing(bill.id)
    paper = invoicing.on_screen(bill, web.writer(), standing)
    link = payments.shared(bill.id) if bill.unpaid else None
    days = {bill.issued_at: bill.issued_on} | ({bill.paid_at: bill.paid_on} if bill.paid_at and bill.paid_on else {})
    return web.page(
        "invoices/show.html",
        bill=bill,
        paper=paper,
        steps=invoicing.timeline(bill),
        standing=standing,
        link=link,
        legal_zone=legal_zone(days),
    )


@invoices.get("/invoices/<number>.pdf")
def pdf(number: str) -> Response:
    """The invoice; while the bill is unpaid, its pro forma."""
    return _download(number, "invoice")


@invoices.get("/invoices/<number>/receipt.pdf")
def receipt(number: str) -> Response:
    """The receipt of a paid bill."""
    return _download(number, "receipt")


@invoices.post("/invoices/<number>/link")
def share(number: str) -> Response:
    """The public page that pays this bill: its address as text for a script that copies it, else on the bill's page. With `anew` another one."""
    try:
        link = payments.share(web.reader().customer_id, number, anew="anew" in request.form)
    except payments.NotPayable as reason:
        web.toast(str(reason))
        return web.go(f"/invoices/{number}")
    link = link or abort(404)
    if request.accept_mimetypes.best == "text/plain":
        return Response(link.url, mimetype="text/plain")
    return web.go(f"/invoices/{number}#link")


@invoices.post("/invoices/<number>/link/revoke")
def unshare(number: str) -> Response:
    """End the public page of this bill at once."""
    bill = _own(number)
    ended = payments.unshare(bill.customer_id, number)
    web.toast("The link is revoked. It opens nothing any more." if ended else "There is no link to revoke.")
    return web.go(f"/invoices/{number}")


@invoices.get("/invoices/<number>/cancel")
def ask_to_cancel(number: str) -> Response:
    """The question before a bill is cancelled, or an unfinished top-up forgotten."""
    bill = _own(number)
    if not bill.unpaid:
        web.toast(invoicing.not_cancellable(bill))
        return web.go(f"/invoices/{number}")
    standing = invoicing.standing(bill.id)
    word, question = ("Forget", "Forget this top-up?") if standing.code == "draft" else ("Cancel", f"Cancel {bill.number}?")
    renewing = services.renewing_by(number)[:1]
    return web.page("invoices/cancel.html", bill=bill, standing=standing, word=word, question=question, renewing=renewing)


@invoices.post("/invoices/<number>/cancel")
def cancel(number: str) -> Response:
    """Cancel an unpaid bill, which was asked about before."""
    try:
        bill = invoicing.cancel(web.reader().customer_id, number)
    except invoicing.NotCancellable as reason:
        web.toast(str(reason))
    else:
        bill = bill or abort(404)
        charged = "" if invoicing.standing(bill.id).received else " Nothing was charged."
        web.toast(f"{bill.number} is cancelled.{charged}{_still_renews(number)}")
    return web.go(f"/invoices/{number}")


def _still_renews(number: str) -> str:
    """What has to be known of a cancelled bill of a service that renews without it."""
    labels = services.renewing_by(number)
    return f" {labels[0]} still renews by itself once the balance covers it: change that under Services." if labels else ""


def _asked() -> Filter:
    me = web.reader()
    return Filter.from_query(request.args, me.currency or "EUR", me.locale)


def _presets(asked: Filter) -> list[tuple[str, str, bool]]:
    """Ranges of days as (word, address, whether it is the one shown)."""
    return [
        (word, _address(replace(asked, since=since, until=until, before="")), (asked.since, asked.until) == (since, until)) for word, since, until in days.ranges(clock.today())
    ]


def _address(asked: Filter, path: str = "/invoices") -> str:
    query = urlencode(asked.as_query())
    return f"{path}?{query}" if query else path


def legal_zone(days: Mapping[datetime, date]) -> str:
    """The legal zone's name where one of these moments falls on another day of the reader's, else nothing."""
    writer = web.writer()
    differs = any(writer.local(moment).date() != day for moment, day in days.items())
    return clock.zone().key if differs else ""


def _own(number: str) -> Bill:
    """The customer's own bill, or the one 404 there is."""
    return invoicing.find(web.reader().customer_id, number) or abort(404)


def _download(number: str, kind: str) -> Response:
    try:
        file = invoicing.pdf(web.reader().customer_id, number, kind)
    except invoicing.PressError as error:
        web.toast(why_not(error))
        return web.go(f"/invoices/{number}")
    return hand_out(file or abort(404))


def why_not(error: invoicing.PressError) -> str:
    """What a reader is told of a PDF that could not be made now."""
    return NO_FONT if isinstance(error, invoicing.GlyphsMissing) else NOT_NOW


def hand_out(file: invoicing.File) -> Response:
    """A stored PDF to be saved; a browser that has it is told so."""
    response = _file(file.pdf, "application/pdf", file.filename)
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(file.sha256)
    response.make_conditional(request)
    return response


def _file(body: bytes, kind: str, filename: str) -> Response:
    return Response(body, mimetype=kind, headers={"Content-Disposition": f'attachment; filename="{filename}"'})


def _cells(rows: Iterator[invoicing.Exported]) -> Iterator[tuple[object, ...]]:
    """Days as on the documents, amounts as plain numbers."""
    for row in rows:
        amounts = [Money(minor, row.currency).decimal for minor in (row.net, row.tax, row.total)]
        yield (
            *(row.invoice_number or row.proforma_number, row.proforma_number, row.invoice_number, row.receipt_number),
            *(KIND_OF[row.kind], invoicing.state_of(row).label, row.title, row.beneficiary),
            *(invoicing.day_in(row.issued_at, row.zone), invoicing.day_in(row.due_at, row.zone)),
            *(row.paid_at and invoicing.day_in(row.paid_at, row.paid_zone), row.period_start, row.period_end, row.months),
            *(amounts[0], plain_rate(row.tax_rate), amounts[1], amounts[2], row.currency),
            *(Money(row.credited, row.credited_currency).decimal if row.credited is not None else None, row.credited_currency, row.method),
            Money(row.bonus, row.currency).decimal if row.bonus else None,
        )


def plain_rate(rate: Decimal) -> Decimal:
    """A rate without the zeros behind it, and without an exponent: 20, 7.7."""
    whole, _, decimals = f"{rate:f}".partition(".")
    return Decimal(f"{whole}.{decimals.rstrip('0')}".rstrip("."))
