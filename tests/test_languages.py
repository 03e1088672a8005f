"""Every sentence in every language, and every mail in its reader's own."""

import ast
import re
from email import message_from_bytes, policy
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages import Catalog
from jinja2 import nodes

import config
from app import db, gateways, languages, mail, web
from app.cli.translate import translate_commands
from app.formats import LOCALES
from app.gateways import btcpay, nowpayments, paypal, stripe_declines, stripe_methods
from app.languages import catalogues
from app.money import Money
from tests.letters import SAMPLES, compose

FOREIGN = [language for language in LOCALES if language != languages.SOURCE]
CASES = [(kind, language) for kind in SAMPLES for language in FOREIGN]
NAMES = ("Northbyte Hosting GmbH", "Turmstraße 12")
ENGLISH = re.compile(r"\b(the|your|you|with|balance|invoice|receipt|refund|payment|was|is)\b", re.IGNORECASE)
SHARED = {"nl": {"is", "was"}, "de": {"was"}, "pl": set(), "fr": set(), "es": set(), "it": set(), "cs": set(), "pt": set()}
BRANDS = {"iDEAL", "Bancontact", "EPS", "BLIK", "Przelewy24", "TWINT", "Swish", "MobilePay", "Multibanco", "Klarna", "PayPal"}


class Words(HTMLParser):
    """What a reader sees of a mail's HTML."""

    def __init__(self, html):
        super().__init__()
        self.said, self.hidden = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.hidden = tag in {"style", "title"}

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden and data.strip():
            self.said.append(data)

    @property
    def text(self):
        return " ".join("".join(self.said).split())


def words(composed):
    """Subject and text without addresses, which are names in no language."""
    return re.sub(r"https?://\S+|\S+@\S+", "", f"{composed.subject}\n{composed.text}")


def test_the_catalogues_say_everything_and_nothing_else():
    assert languages.check() == []


def test_the_languages_are_those_whose_formats_we_have():
    assert set(catalogues.LANGUAGES) == set(LOCALES)


def test_every_mail_has_samples():
    assert set(SAMPLES) == {path.stem for path in mail.TEMPLATES.glob("*.txt") if not path.stem.startswith("_")}


@pytest.mark.parametrize("template", sorted(path.name for path in mail.TEMPLATES.iterdir() if path.suffix in {".txt", ".html"}))
def test_no_sentence_of_a_mail_stands_outside_of_the_catalogue(template):
    environment = mail._environment()
    tree = environment.parse((mail.TEMPLATES / template).read_text())
    bare = "".join(node.data for node in tree.find_all(nodes.TemplateData))
    assert not re.search(r"[^\W\d_]", re.sub(r"<[^>]*>|<[^>]*$|^[^<]*>|<a [^>]*|[^<>]*\">", "", re.sub(r"/[a-z/-]+", "", bare)).replace('">', ""))


@pytest.mark.parametrize(("kind", "language"), CASES)
def test_a_mail_speaks_its_readers_language(app, kind, language):
    for sample in SAMPLES[kind]:
        composed, english = compose(kind, language, sample), compose(kind, "en", sample)
        facts = {str(value) for value in sample.values() if isinstance(value, str)}
        known = {line.strip() for line in words(english).splitlines() if re.search(r"[a-z]{3}", line)} - facts
        same = known & {line.strip() for line in words(composed).splitlines()}
        assert {line for line in same if not line.startswith(NAMES) and line.lstrip("> ") not in facts} == set()
        said = words(composed)
        for fact in sorted(facts, key=len, reverse=True):
            said = said.replace(fact, "")
        assert {word.lower() for word in ENGLISH.findall(said)} <= SHARED[language]
        assert f'<html lang="{language}" dir="ltr">' in composed.html
        assert composed.language == language


@pytest.mark.parametrize("language", LOCALES)
def test_both_bodies_say_the_same_amounts_as_the_english_ones(app, language):
    for kind, samples in SAMPLES.items():
        for sample in samples:
            composed, english = compose(kind, language, sample), compose(kind, "en", sample)
            amount = re.compile(r"(?:€|PLN)\xa0[\d,.]*\d")
            told = set(amount.findall(composed.text))
            shown = set(amount.findall("".join(Words(composed.html).said)))
            assert shown == told | set(amount.findall(composed.subject)), kind
            assert told == set(amount.findall(english.text)), kind
            if "name" in sample:
                assert str(sample["name"]) in composed.text
                assert str(sample["name"]) in Words(composed.html).text


@pytest.mark.parametrize("language", FOREIGN)
def test_a_subject_is_its_own_in_the_header_too(app, settings, language):
    refund = compose("refund_step", language, {**SAMPLES["refund_step"][3], "payout": "zł 31,50"})
    for key, composed in enumerate((refund, compose("card_declined", language, SAMPLES["card_declined"][1]))):
        with db.transaction():
            mail.enqueue("notice", "a@example.com", *composed[1:], language=composed.language, key=str(key))
        row = db.rows("select * from mails order by id desc")[0]
        raw = mail._message(row).as_bytes()
        header = re.search(rb"^Subject: .*(?:\r?\n[ \t].*)*", raw, re.MULTILINE)[0]
        assert header.isascii()
        assert not re.search(rb"[ \t]\r?\n", header), "a blank at the end of a line is one too many for some readers"
        read = message_from_bytes(raw, policy=policy.default)
        assert (read["Subject"], read["Content-Language"]) == (composed.subject, language)


@pytest.mark.parametrize(
    ("language", "forms"), [("pl", ["usługę", "usługi", "usługi", "usług", "usług", "usługi"]), ("cs", ["služba", "služby", "služby", "služeb", "služeb", "služeb"])]
)
def test_numbers_have_their_forms(language, forms):
    with languages.speaking(language):
        said = [languages.ngettext("%(num)s service is renewed", "%(num)s services are renewed", number) for number in (1, 2, 4, 5, 12, 22)]
    assert [text.split()[-1] for text in said] == forms


def test_a_catalogue_is_read_once():
    languages._catalogue.cache_clear()
    assert languages._catalogue("pl") is languages._catalogue("pl")


@pytest.mark.parametrize(
    ("string", "fault"),
    [
        ("Hallo", "other placeholders"),
        ("Hallo %(nam)s", "other placeholders"),
        ("Hallo %(name)s %(x)s", "other placeholders"),
        ("Hallo %(name)s 5 %", "other"),
        ("<b>%(name)s</b>", "markup"),
    ],
)
def test_a_translation_that_would_break_is_not_used(string, fault, monkeypatch):
    catalog = Catalog(locale="de")
    message = catalog.add("Hello %(name)s", string)
    assert fault in next(iter(catalogues.faults(message)))
    monkeypatch.setattr(languages, "read", lambda language: catalog)
    languages._catalogue.cache_clear()
    try:
        with languages.speaking("de"):
            assert languages.gettext("Hello %(name)s", name="Anna") == "Hello Anna"
    finally:
        languages._catalogue.cache_clear()


def test_unsure_missing_and_left_over_sentences_are_named():
    catalog, found = Catalog(locale="de"), Catalog()
    for text in ("One", "Two", "Three"):
        found.add(text)
    catalog.add("One", "Eins", flags=["fuzzy"])
    catalog.add("Two", "")
    catalog.add("Four", "Vier")
    assert set(catalogues._compare(catalog, found)) == {"misses 'Three'", "has left over 'Four'", "is unsure of 'One'", "does not say 'Two'"}


def test_who_we_do_not_speak_to_hears_english():
    assert [languages.language_of(locale) for locale in ("de_CH", "pt-BR", "sv", "en_GB", "")] == ["de", "pt", "en", "en", "en"]
    with languages.speaking("de"):
        assert languages.known("no such sentence") == ""
        assert languages.label("Bank card, BTC") == "Bankkarte, BTC"
        with languages.speaking("fr"):
            assert languages.spoken() == "fr"
        assert languages.spoken() == "de"
    assert languages.known("no such sentence") == "no such sentence"


def test_every_method_has_its_name_in_every_language(app):
    labels = {method.label for method in gateways.methods("DE", Money.of("50", "EUR"))}
    labels |= {row.method.label for row in stripe_methods.ROWS} | {method.label for module in (btcpay, nowpayments, paypal) for method in module.METHODS}
    for language in FOREIGN:
        with languages.speaking(language):
            assert {label for label in labels if not languages.known(label)} <= BRANDS


def test_what_a_processor_says_when_it_says_no_is_a_sentence_of_the_catalogue(app):
    """Every sentence that a gateway, or what watches it, gives as a reason of a failure: in the code it stands in `N_`."""
    bare = []
    for path in [*Path("app/gateways").glob("*.py"), Path("app/sandbox_processor.py"), Path("app/payments/watching.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            bare += [f"{path}:{node.lineno} {text!r}" for text in _reasons(node)]
    assert bare == []


def _reasons(node):
    """The unmarked sentences of a call that tells of a failure."""
    if not isinstance(node, ast.Call):
        return []
    told = [keyword.value for keyword in node.keywords if keyword.arg in {"failure_message", "message"}]
    final = any(keyword.arg == "permanent" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False) for keyword in node.keywords)
    if getattr(node.func, "id", "") == "RefundRefused" or (getattr(node.func, "id", "") == "GatewayError" and final):
        told += node.args[:1]
    values = [part for value in told for part in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])]
    return [value.value for value in values if isinstance(value, ast.Constant) and value.value and value.value not in OF_A_PAGE]


OF_A_PAGE = {
    "Not for an amount this fine", "Not for an amount this large", "Not for this amount",
    "The payment page has closed. Nothing was charged: pay again to open a new one.",
}  # fmt: skip
"""Reasons for which no payment begins: whoever reads one is on the page."""


@pytest.mark.parametrize("language", FOREIGN)
def test_a_failure_is_explained_in_its_readers_language(app, language):
    for code in ("insufficient_funds", "do_not_honor", "expired_card", "stolen_card", "brand_new_code", "account_closed"):
        reason = stripe_declines.sentence(code)
        composed = compose("payment_failed", language, SAMPLES["payment_failed"][0] | {"reason": reason})
        with languages.speaking(language):
            assert languages.known(reason) in composed.text
        assert languages.known(reason) == reason
        assert reason not in composed.text
    assert stripe_declines.returned("lost_or_stolen_card") == stripe_declines.returned("expired_or_canceled_card")
    assert (stripe_declines.returned(None), stripe_declines.returned("brand_new")) == ("", stripe_declines.UNSAID)


@pytest.mark.parametrize("language", FOREIGN)
def test_the_catalogues_keep_the_typography_of_their_language(language):
    said = [text for message in languages.read(language) if message.id for text in catalogues._forms(message.string)]
    assert [text for text in said if re.search("[\"']|\\.\\.\\.|  | [,.]", text)] == []
    if language == "fr":
        assert [text for text in said if re.search(r"(?<!\u202f)[;!?]|(?<![\xa0\u202f]):", text)] == []


def test_the_command_finds_what_the_suite_finds(app):
    done = app.test_cli_runner().invoke(translate_commands, ["check"])
    assert (done.exit_code, done.output) == (0, "Every sentence is said in every language.\n")


@pytest.mark.parametrize(("asked", "locale"), [("de-AT,de;q=0.9", "de"), ("pl", "pl"), ("sv", "en_GB"), ("", "en_GB")])
def test_a_browser_is_answered_in_what_it_asks_for_else_as_the_seller_speaks(app, asked, locale):
    with app.test_request_context(headers={"Accept-Language": asked}):
        assert web.preferred_locale() == locale
    assert config.Seller().locale == "en_GB"
