"""The printed documents: what they must say, how they are drawn, and that they stay what they were."""

import io
import re
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pypdfium2
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps
from sqlalchemy import make_url

from app import clock, db, invoicing
from app.formats import formats
from app.invoicing import Line, files, paper, press
from app.invoicing.press import Sheet
from app.money import Money
from tests.test_invoicing import card, pay, person, service, topup
from tests.trade import fund

FONTS = Path(press.STATIC) / "fonts"
SCRIPTS = [
    ("株式会社サンプル", "JP"), ("示例有限公司", "CN"), ("주식회사 예시", "KR"), ("บริษัท ตัวอย่าง", "TH"), ("उदाहरण लिमिटेड", "IN"),
    ("شركة المثال", "AE"), ("חברת דוגמה", "IL"), ("შპს მაგალითი", "GE"), ("Rocket 🚀 GmbH 🇩🇪", "DE"),
]  # fmt: skip
LETTERS = "ŁódźżćĞőșŽřñßÆøŠđΩЖї₴₹₽₺₫₦€złŐű"


def text_of(pdf: bytes) -> str:
    """All text of a PDF, spaces and line ends as single spaces."""
    with pypdfium2.PdfDocument(pdf) as document:
        pages = [page.get_textpage().get_text_range() for page in document]
    return re.sub(r"\s+", " ", " ".join(pages))


def pages_of(pdf: bytes) -> list[str]:
    """The text of each page."""
    with pypdfium2.PdfDocument(pdf) as document:
        return [re.sub(r"\s+", " ", page.get_textpage().get_text_range()) for page in document]


def content_of(bill: invoicing.Bill, kind: str) -> dict:
    return db.scalar("select content from documents where bill_id = %(id)s and kind = %(kind)s", id=bill.id, kind=kind)


def printed(bill: invoicing.Bill, kind: str) -> bytes:
    return press.to_pdf(paper.sheet(content_of(bill, kind)))


def order(customer_id: int, lines: Sequence[Line]) -> invoicing.Bill:
    with db.transaction():
        return invoicing.issue_service_bill(customer_id, "Services", "EUR", lines)


def from_balance(bill: invoicing.Bill) -> invoicing.Bill:
    number = pay(bill, card(source="balance", method_label="Account balance", reference=""))
    found = invoicing.find(bill.customer_id, number)
    assert found is not None
    return found


class TestSays:
    """Content, by the checklist of Directive 2006/112/EC, Article 226."""

    def test_an_invoice_says_all_that_the_directive_asks(self, app):
        start, end = clock.today(), clock.today()
        lines = (Line("VPS NVMe-4 · vps-7", 20_00, detail="2 vCPU", period_start=start, period_end=end), Line("IPv4 address", 2_10, quantity=2))
        bill = from_balance(order(person(country="PL", vat_id="", vat_id_state="none"), lines))
        text = text_of(printed(bill, "invoice"))
        writes = paper.printed(content_of(bill, "invoice"))
        said = {
            "(1) date of issue": f"Issued {writes.day(clock.today().isoformat())}",
            "(2) number": bill.number,
            "(3) seller's VAT ID": "VAT ID DE301204584",
            "(5) seller's name and address": "Northbyte Hosting GmbH Turmstraße 12 10559 Berlin Germany",
            "(5) buyer's name and address": "Kowalska Studio sp. z o.o. Anna Kowalska ul. Piotrkowska 104 90-926 Łódź Poland",
            "(6) what and how much": "VPS NVMe-4 · vps-7 2 vCPU",
            "(7) time of supply": f"Supplied {writes.supplied}",
            "(8) taxable amount": "Net 24.20",
            "(8) unit price without VAT": "2 2.10 23% 4.20",
            "(9) rate": "VAT 23%",
            "(10) VAT": "5.57",
            "total": "€ 29.77",
        }
        assert [point for point, words in said.items() if words not in text] == []

    def test_reverse_charge_names_itself_and_both_vat_ids(self, app):
        text = text_of(printed(from_balance(service(person())), "invoice"))
        for words in ("Reverse charge", "Articles 44 and 196", "DE301204584", "PL7251801126", "VAT 0% (reverse charge)", "Paid from Account balance"):
            assert words in text

    def test_a_topups_invoice_says_why_there_is_no_vat(self, app):
        bill = topup(person())
        number = pay(bill)
        text = text_of(printed(bill, "invoice"))
        assert text.startswith("Northbyte")
        assert f"Top-up invoice {number}" in text
        assert "Prepayment to your balance, not a VAT invoice. No VAT is due yet" in text
        assert "VAT 0" not in text
        assert f"Order {bill.number}" in text
        assert number in text

    def test_a_pro_forma_says_that_it_is_none(self, app):
        bill = topup(person())
        text = text_of(printed(bill, "proforma"))
        assert "Invoice for payment" in text
        assert "not a VAT invoice" in text
        assert f"http://localhost/invoices/{bill.number}/pay" in text
        assert "Due" in text

    def test_a_receipt_says_how_it_was_paid(self, app):
        bill = topup(person())
        number = pay(bill, card(paid=Money(29_31, "USD"), credited=Money(25_00, "EUR"), rate_note="1 USD = 0.8529 EUR, ECB, 19 Nov 2026"))
        text = text_of(printed(bill, "receipt"))
        for words in ("Receipt", "$ 29.31", "Added to the balance € 25.00", "Visa ···· 4242", "1 USD = 0.8529 EUR", "ch_1", "UTC", f"not a VAT invoice; the invoice is {number}"):
            assert words in text

    @pytest.mark.parametrize("kind", ["invoice", "receipt"])
    def test_what_is_filed_says_nothing_of_the_balance(self, app, kind):
        bill = service(person())
        fund(bill.customer_id, 77_77)
        content = content_of(from_balance(bill), kind)
        assert not {"entry", "balance_after"} & content["payment"].keys()
        older = {"entry": "ab" * 32, "balance_after": 77_77, "balance_currency": "EUR"}
        for payment in (content["payment"], content["payment"] | older):
            text = text_of(press.to_pdf(paper.sheet(content | {"payment": payment})))
            assert "Account balance" in text
            assert [word for word in ("Balance after", "Ledger", "77.77", "abab") if word in text] == []

    def test_names_are_text_and_nothing_else(self, app):
        hostile = "<b>Bold</b> {{7*7}} <script>alert(1)</script> & Söhne"
        bill = topup(person(company=hostile, city="<img src=x>"))
        text = text_of(printed(bill, "proforma"))
        assert hostile.replace(" ", "") in text.replace(" ", "")  # a long name wraps
        assert "<img src=x>" in text

    def test_a_long_name_stays_on_the_page(self, app):
        bill = topup(person(company="Überlandwerksverwaltungsgesellschaft" * 8))
        pages = pages_of(printed(bill, "proforma"))
        assert len(pages) <= 2
        assert "€ 25.00" in pages[0]
        assert all("page" in page for page in pages)


class TestLooks:
    """Drawing: pages, glyphs, and nothing fetched from outside."""

    def test_a_normal_invoice_is_one_page(self, app):
        bill = order(person(), [Line(f"VPS NVMe-4 · vps-{n}", 20_00 + n, period_start=clock.today(), period_end=clock.today()) for n in range(8)])
        pages = pages_of(printed(from_balance(bill), "invoice"))
        assert len(pages) == 1
        assert "page 1 of 1" in pages[0]

    def test_a_receipt_of_three_lines_is_one_page(self, app):
        day = clock.today()
        bill = order(person(), [Line(f"VPS NVMe-4 · vps-{n}", 20_00, detail="2 vCPU, 4 GB", period_start=day, period_end=day) for n in range(3)])
        pay(bill, card(processor="pi_3QxExampleExampleExample"))
        (page,) = pages_of(printed(bill, "receipt"))
        assert "Processor's reference pi_3QxExampleExampleExample" in page

    @pytest.mark.parametrize("kind", ["proforma", "invoice", "receipt"])
    def test_long_names_and_references_stay_inside_the_margins(self, app, kind):
        anna = person(company="W" * 120, street="Donaudampfschifffahrtsgesellschaftskapitän" * 4)
        with db.transaction():
            db.execute("update customers set po_number = %(po)s where id = %(id)s", po="PO-" + "9" * 57, id=anna)
        bill = topup(anna)
        pay(bill)
        with pypdfium2.PdfDocument(printed(bill, kind)) as document:
            page = document[0]
            words = page.get_textpage()
            edges = [words.get_charbox(at)[2] for at in range(words.count_chars()) if words.get_text_range(at, 1).strip()]
        assert max(edges) <= 595.28 - 68 * 0.75 + 1, "the width of A4 without its margin, in points"

    def test_three_hundred_lines_flow_with_heads_and_numbers(self, app):
        bill = from_balance(order(person(), [Line(f"Service number {n}", 100 + n) for n in range(300)]))
        pages = pages_of(printed(bill, "invoice"))
        assert len(pages) > 5
        for at, page in enumerate(pages, 1):
            assert f"{bill.number} · page {at} of {len(pages)}" in page
            assert "Service number" not in page or "Description Qty Unit price VAT Amount" in page
        for at, page in enumerate(pages[1:], 2):
            assert f"Northbyte · Invoice {bill.number}" in page, at
        assert [n for n in range(300) if f"Service number {n} 1" not in " ".join(pages)] == []

    @pytest.mark.parametrize(("weight", "number"), [("Regular", 400), ("SemiBold", 600)])
    def test_every_letter_is_drawn_as_the_font_draws_it(self, weight, number):
        """By its pixels: a font split in pieces extracts the right text and draws wrong glyphs."""
        style = "position: absolute; font-size: 60px; line-height: 80px; letter-spacing: 0"
        rows = "".join(f'<div style="{style}; left: {at % 6 * 100}px; top: {at // 6 * 100}px">{letter}</div>' for at, letter in enumerate(LETTERS))
        html = f'<html lang="en"><style>@page {{ @bottom-left {{ content: none }} @bottom-right {{ content: none }} }}</style><body style="font-weight: {number}">{rows}'
        with pypdfium2.PdfDocument(press.to_pdf(Sheet("X", html))) as document:
            drawn = ImageOps.invert(document[0].render(scale=2 * 96 / 72).to_pil().convert("L"))
        font = ImageFont.truetype(str(FONTS / f"Inter-{weight}.ttf"), 120, layout_engine=ImageFont.Layout.BASIC)
        wrong = []
        for at, letter in enumerate(LETTERS):
            left, top = 2 * (68 + at % 6 * 100), 2 * (64 + at // 6 * 100)
            cell = drawn.crop((left - 20, top - 20, left + 180, top + 180))
            if _difference(cell, _reference(letter, font)) > 0.06:
                wrong.append(letter)
        assert wrong == []

    def test_a_wrong_glyph_would_be_seen(self):
        font = ImageFont.truetype(str(FONTS / "Inter-Regular.ttf"), 120, layout_engine=ImageFont.Layout.BASIC)
        assert _difference(_reference("Ł", font), _reference("L", font)) > 0.06
        assert _difference(_reference("ș", font), _reference("s", font)) > 0.06

    def test_no_letter_is_missing_and_all_is_inter(self, app):
        bill = topup(person(company=f"{LETTERS} Ağaoğlu Țiriac Žižkov Kőbánya ؋"[:-1], city="Łódź żółć"))
        raw = _uncompressed(content_of(bill, "proforma"))
        glyphs = [glyph for run in re.findall(rb"\[([^\]]*)\] ?TJ", raw) for code in re.findall(rb"<([0-9A-Fa-f]+)>", run) for glyph in _pairs(code)]
        assert len(glyphs) > 200
        assert 0 not in glyphs
        assert {name.split(b"+")[1] for name in re.findall(rb"/BaseFont ?/([A-Z]{6}\+[\w-]+)", raw)} == {b"Inter", b"Inter-Semi-Bold"}

    def test_nothing_is_fetched_from_disk_or_network(self, tmp_path):
        secret = tmp_path / "secret.txt"
        secret.write_text("swordfish")
        (tmp_path / "secret.css").write_text("body::after { content: 'swordfish' }")
        with _listening() as (address, hits):
            targets = [secret.as_uri(), (tmp_path / "secret.css").as_uri(), f"{address}/a.png", "asset:/../config.py", "asset:/css/tokens.css", "/etc/passwd"]
            html = "<p>seen</p>" + "".join(
                f'<img src="{url}"><link rel="stylesheet" href="{url}"><link rel="attachment" href="{url}"><a rel="attachment" href="{url}">x</a>'
                f'<p style="background: url({url})">.</p><object data="{url}"></object><svg><image href="{url}" width="9" height="9"/></svg>'
                for url in targets
            )
            pdf = press.to_pdf(Sheet("X", html))
        assert hits == []
        assert "swordfish" not in text_of(pdf)
        assert b"EmbeddedFile" not in pdf
        assert "seen" in text_of(pdf)

    def test_a_picture_inside_the_document_is_drawn(self):
        png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
        with pypdfium2.PdfDocument(press.to_pdf(Sheet("X", f'<img src="{png}" style="width: 200px; height: 200px">'))) as document:
            image = document[0].render(scale=1).to_pil().convert("RGB")
        assert image.getpixel((80, 80)) == (255, 0, 0)

    @pytest.mark.parametrize(("name", "country"), SCRIPTS)
    def test_a_name_in_any_script_is_drawn_and_can_be_copied(self, name, country):
        html = f'<html lang="en"><p lang="{paper.HAN_SHAPES.get(country, "en")}">{name} <b>{name}</b></p>'
        pdf = press.to_pdf(Sheet("X", html))
        found = "".join(letter for letter in text_of(pdf) if letter.isalpha())
        with pypdfium2.PdfDocument(pdf) as document:
            drawn = ImageOps.invert(document[0].render(scale=2).to_pil().convert("L"))
        assert sum(drawn.histogram()[128:]) > 500
        if country not in {"AE", "IL", "IN"}:  # what is written right to left or in clusters is read back in another order
            assert found.startswith("".join(letter for letter in name * 2 if letter.isalpha()))

    def test_a_character_that_no_font_has_is_refused_by_name(self):
        with pytest.raises(press.GlyphsMissing, match=r"^U\+10FFFD, U\+E000$"):
            press.to_pdf(Sheet("X", "<p>A \ue000 \U0010fffd B \ue000"))
        (one, other) = press.render([Sheet("X", "<p>\ue000"), Sheet("Y", "<p>plain")])
        assert isinstance(one, press.GlyphsMissing)
        assert isinstance(other, bytes)

    def test_chinese_characters_have_the_shapes_of_the_buyers_country(self, app):
        party = {"country": "JP", "name": "山田太郎", "street": "", "postcode": "", "city": ""}
        bill = topup(person())
        drawn = paper.Paper(content_of(bill, "proforma"), formats("en", "UTC"))
        assert [drawn.language(party | {"country": code}) for code in ("JP", "TW", "DE")] == ["ja", "zh-Hant", ""]
        assert not drawn.language(party | {"name": "Yamada Taro"})

    def test_it_says_its_title_language_and_number(self, app):
        bill = topup(person())
        with pypdfium2.PdfDocument(printed(bill, "proforma")) as document:
            assert document.get_metadata_dict()["Title"] == f"Invoice for payment {bill.number}"
            assert document.is_tagged()


class TestStays:
    """Stored once, the same bytes for ever."""

    def test_the_same_bytes_in_any_process_at_any_time(self, app):
        anna = person()
        bill = topup(anna)
        stored = invoicing.pdf(anna, bill.number)
        assert stored is not None
        with clock.travel(clock.now().replace(year=2040)):
            assert printed(bill, "proforma") == stored.pdf
        assert (stored.filename, stored.sha256) == (f"{bill.number}.pdf", sha256(stored.pdf).hexdigest())

    def test_printed_once_and_then_kept(self, app, monkeypatch):
        anna = person()
        bill = topup(anna)
        first = invoicing.pdf(anna, bill.number)
        monkeypatch.setattr(press, "render", _no_more)
        with db.transaction():
            db.execute("update customers set company = 'Another'")
        assert invoicing.pdf(anna, bill.number) == first

    def test_the_right_one_for_the_state_of_the_bill(self, app, quick_press):
        anna = person()
        bill = topup(anna)
        assert invoicing.pdf(anna, bill.number).number == bill.number  # type: ignore[union-attr]
        number = pay(bill)
        for asked in (number, bill.number):
            assert invoicing.pdf(anna, asked).number == number  # type: ignore[union-attr]
            assert invoicing.pdf(anna, asked, "receipt").number == number.replace("TU", "RC")  # type: ignore[union-attr]
        assert invoicing.pdf(anna, topup(anna).number, "receipt") is None

    def test_a_stranger_gets_nothing(self, app, quick_press):
        bill, bob = topup(person()), person("bob")
        assert invoicing.pdf(bob, bill.number) is None
        assert invoicing.bundle(bob, [bill.number]) is None
        assert quick_press == []

    def test_asked_for_by_many_it_is_printed_once(self, app, quick_press):
        anna = person()
        bill = topup(anna)

        def ask(_: int) -> str:
            with app.app_context():
                return invoicing.pdf(anna, bill.number).sha256  # type: ignore[union-attr]

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(ask, range(6)))) == 1
        assert quick_press == [[bill.number]]

    def test_a_busy_press_says_so_soon(self, app, database_url, quick_press, monkeypatch):
        monkeypatch.setattr(files, "WAIT", "50ms")
        anna = person()
        bill = topup(anna)
        pay(bill)
        with psycopg.connect(make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)) as other:
            other.execute("select pg_advisory_xact_lock(%s)", (files._LOCK_KEY,))
            with pytest.raises(invoicing.PressBusy):
                invoicing.pdf(anna, bill.number)
            assert invoicing.render_pending() == 0
        assert invoicing.pdf(anna, bill.number) is not None

    def test_the_clock_prints_what_was_issued_lately(self, app, quick_press):
        anna = person()
        with clock.travel(clock.now().replace(year=2020)):
            pay(topup(anna))
        number = pay(topup(anna))
        assert invoicing.render_pending() == 2
        assert invoicing.render_pending() == 0
        assert [set(run) for run in quick_press] == [{number, number.replace("TU", "RC")}]

    def test_one_that_cannot_be_printed_holds_up_no_other(self, app, monkeypatch, caplog):
        anna = person()
        numbers = [pay(topup(anna)) for _ in range(2)]
        monkeypatch.setattr(press, "render", lambda sheets: [press.PressError("broken") if sheet.number == numbers[0] else b"%PDF-" for sheet in sheets])
        assert invoicing.render_pending() == 3
        assert f"document {numbers[0]} could not be printed: broken" in caplog.text
        with pytest.raises(invoicing.PressError):
            invoicing.pdf(anna, numbers[0])
        assert invoicing.find(anna, numbers[0]).status == "paid"  # type: ignore[union-attr]

    def test_one_whose_glyphs_are_missing_waits_and_says_which(self, app, owner, demo_customer, monkeypatch, caplog):
        number = pay(topup(demo_customer.customer_id))
        with monkeypatch.context() as without:
            without.setattr(press, "render", lambda sheets: [press.GlyphsMissing("U+0E01") for _ in sheets])
            answer = owner.get(f"/invoices/{number}.pdf", follow_redirects=True)
        assert "characters we cannot print yet" in answer.text
        assert f"document {number} waits: no font has U+0E01" in caplog.text
        assert db.scalar("select count(*) from document_files") == 0
        assert owner.get(f"/invoices/{number}.pdf").mimetype == "application/pdf"

    def test_the_clock_leaves_what_has_no_font_alone_for_a_while(self, app, monkeypatch):
        pay(topup(person()))
        runs: list[int] = []
        fonts: list[bytes | press.PressError] = [press.GlyphsMissing("U+E123")]
        monkeypatch.setattr(press, "render", lambda sheets: runs.append(len(sheets)) or fonts * len(sheets))
        assert (invoicing.render_pending(), invoicing.render_pending(), runs) == (0, 0, [2])
        assert db.scalar("select count(*) from document_files") == 0
        fonts[:] = [b"%PDF-"]
        with clock.travel(clock.now() + files.LOOK_AGAIN):
            assert (invoicing.render_pending(), runs) == (2, [2, 2])

    def test_a_press_that_hangs_is_stopped(self, monkeypatch):
        monkeypatch.setattr(press, "START_S", 0.001)
        monkeypatch.setattr(press, "EACH_S", 0)
        with pytest.raises(press.PressError, match="longer than"):
            press.render([Sheet("X", "<p>x")])

    def test_a_bundle_holds_each_once_and_always_the_same(self, app, quick_press):
        anna = person()
        numbers = [pay(topup(anna)) for _ in range(3)]
        packed = invoicing.bundle(anna, [*numbers, numbers[0]])
        assert packed is not None
        assert zipfile.ZipFile(io.BytesIO(packed)).namelist() == [f"{number}.pdf" for number in numbers]
        assert invoicing.bundle(anna, numbers) == packed
        assert invoicing.bundle(anna, [numbers[0], "INV-2026-999999"]) is None
        assert invoicing.bundle(anna, []) is None
        assert invoicing.bundle(anna, [f"INV-{n}" for n in range(invoicing.LARGEST_BUNDLE + 1)]) is None


@pytest.fixture
def quick_press(monkeypatch) -> list[list[str]]:
    """A press that prints the number alone, and remembers each run."""
    runs: list[list[str]] = []

    def render(sheets):
        runs.append([sheet.number for sheet in sheets])
        return [f"%PDF-{sheet.number}".encode() for sheet in sheets]

    monkeypatch.setattr(press, "render", render)
    return runs


def _no_more(_sheets):
    raise AssertionError("a stored document is never printed again")


def _reference(letter: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    image = Image.new("L", (200, 200))
    ImageDraw.Draw(image).text((20, 20), letter, fill=255, font=font)
    return image


def _difference(one: Image.Image, other: Image.Image) -> float:
    """How much of the ink differs, both cut to their ink: 0 the same, 1 and more nothing in common."""
    one, other = (image.crop(image.point(lambda value: 255 if value > 100 else 0).getbbox()) for image in (one, other))
    if abs(one.width - other.width) > 4 or abs(one.height - other.height) > 4:
        return 1.0
    one, other = (image.resize((60, 80)).filter(ImageFilter.GaussianBlur(1)) for image in (one, other))
    return _ink(ImageChops.difference(one, other).point(lambda value: value if value > 64 else 0)) / _ink(other)


def _ink(image: Image.Image) -> int:
    return sum(value * count for value, count in enumerate(image.histogram()))


def _uncompressed(content: dict) -> bytes:
    from weasyprint import HTML

    fonts, css, fetcher = press._design()
    return HTML(string=paper.sheet(content).html, base_url="asset:/", url_fetcher=fetcher).write_pdf(stylesheets=css, font_config=fonts, uncompressed_pdf=True)


def _pairs(code: bytes) -> list[int]:
    return [int(code[at : at + 4], 16) for at in range(0, len(code), 4)]


class _listening:  # noqa: N801 - a context manager
    """A web server on the loopback that remembers what it was asked."""

    def __enter__(self) -> tuple[str, list[str]]:
        hits: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}", hits

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
