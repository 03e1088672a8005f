"""Which passwords are taken, which are refused and why, and in what form they are kept."""

import string
import time
import unicodedata
from random import Random

import pytest

from app import customers, db
from app.customers import guessing, passwords
from tests.conftest import PASSWORD, person
from tests.test_customers import GOOD, newest_link

PREDICTABLE = {
    "calendar": [
        "Summer2026!!!", "Winter-2026-!", "November2026!", "Sommer2026!!!", "31august2026!", "Listopad-2026-!!",
        "printemps2026", "Dienstag-2026", "Weihnachten1!",
    ],
    "phrase": [
        "correcthorsebattery", "CorrectHorseBatteryStaple", "correct horse battery staple", "tobeornottobe",
        "maythe4thbewithyou", "thequickbrownfox", "iloveyouforever", "0pen$esame123",
    ],
    "keyboard": ["qwertyuiop[]", "1qaz2wsx3edc", "zaq12wsxcde3", "qazwsxedcrfv", "qwertzuiop123"],
    "repeat": ["aaaaaaaaaaaa", "passwordpassword", "hunter2hunter2", "abcabcabcabc", "correct horse " * 20, "111111111111"],
    "sequence": ["abcdefghijklm", "abcdefg1234567"],
    "common": [
        "P@ssw0rd2026", "administrator1", "Password12345!", "letmein123456", "Welcome2026!!", "changeme12345",
        "Liverpool2026", "Dragon123456!", "P4$$w0rd!2026", "starwars1977!", "welcome-welcome", "berlin2026berlin",
        "ihatethisgame", "total12scherz", "ichliebedich", "seniseviyorum", "superman12345", "Passwort2026!",
    ],
    "context": [
        "nora.nora.nora", "nora@example.com", "northbyte-2026!", "Northbyte12345", "n0rthbyte", "kowalska-2026", "client-area-1",
    ],
}  # fmt: skip
GOOD_ONES = [
    GOOD, "quiet-harbour-lamp", "another-quiet-harbour", "  blanks at both ends  ", "ŻółwIdzieDoDomu", "gR7#kfQ2!mZx", "tH9wqLz0PbXe",
    "vulkan teelicht pfandflasche", "lamp cactus river thursday", "mustard zebra plumbing", "brisk.walrus.taxes", "KjP3-vv8s-Qm2x",
    "брат собака небо лампа", "石頭河流月亮書本椅子風雨雪", "we ate 11 plums on the ferry", "tuesday-marble-otter-42", "plum tram kiosk",
    "wörter die nicht zusammengehören", "x9\0k2mQ7pLz4w", "orange tractor seventeen moon", "aq7🦊🌋🛶🪁🌵🧭🛸🥁🧊",
]  # fmt: skip
CONTEXT = ("nora", "nora@example.com", "Anna Kowalska", "Northbyte", "client area")


@pytest.mark.parametrize(("kind", "password"), [(kind, one) for kind, found in PREDICTABLE.items() for one in found])
def test_predictable_passwords_are_refused_and_the_sentence_helps(app, kind, password):
    problem = passwords.password_problem(password, CONTEXT)
    assert problem
    if len(password) >= 12:
        assert problem.startswith("This password is easy to guess: ")
        assert passwords._REASONS[kind] in problem or kind in {"common", "keyboard", "sequence"}
        assert problem.endswith(passwords.ADVICE)


@pytest.mark.parametrize("password", GOOD_ONES)
def test_good_passphrases_pass(app, password):
    assert passwords.password_problem(password, CONTEXT) is None


def test_no_kind_of_character_is_asked_for(app):
    for password in ("lampcactusriverthursday", "LAMPCACTUSRIVERTHURSDAY", "83920174839205167", "#?!;:_-{}§$%&"):
        assert passwords.password_problem(password, CONTEXT) is None


def long_password(length):
    """Characters without a pattern, so that only the length decides."""
    return "".join(Random(7).choices(string.ascii_letters + string.digits, k=length))


@pytest.mark.parametrize(("length", "taken"), [(11, False), (12, True), (64, True), (1024, True), (1025, False)])
def test_twelve_characters_are_the_least_and_long_passwords_are_welcome(app, length, taken):
    assert (passwords.password_problem(long_password(length)) is None) is taken


def test_every_character_of_a_long_password_counts(app):
    long = long_password(1024)
    stored = passwords.hash_password(long)
    assert passwords.verify_password(long, stored)
    for other in (long[:-1], long + "x", long[:72], long.swapcase(), long + " "):
        assert not passwords.verify_password(other, stored)


def test_common_passwords_of_known_breaches_are_refused(app):
    words = [word for word in guessing._ranks() if len(word) >= 12]
    assert len(words) > 200
    assert [word for word in words if passwords.password_problem(word) is None] == []
    assert len(guessing._ranks()) > 60_000


def test_a_password_is_the_same_in_every_unicode_form(app):
    composed = unicodedata.normalize("NFC", "żółta-łódź-pływa")
    apart = unicodedata.normalize("NFD", composed)
    assert composed != apart
    customers.register("nora", "nora@example.com", apart)
    for typed in (composed, apart):
        assert customers.authenticate("nora", typed)
    user = customers.find_user("nora")
    with pytest.raises(customers.Refused, match="the password you have now"):
        customers.change_password(user.id, apart, composed, keep=b"")


def test_passwords_kept_in_another_form_before_still_work(app, superuser):
    person("nora")
    apart = unicodedata.normalize("NFD", "żółta-łódź-pływa")
    superuser.execute("update users set password_hash = %s", (passwords._HASHER.hash(apart),))
    for form in ("NFD", "NFC"):
        assert customers.authenticate("nora", unicodedata.normalize(form, apart))


def test_nobody_keeps_a_worker_busy_with_a_password(app):
    start = time.perf_counter()
    for password in ("4@8({[<369!1|0$5+7%2" * 51, "password4@8" * 90, "a4" * 512, "qwerty1234" * 100, "1.1.2001" * 120):
        passwords.password_problem(password, CONTEXT)
    assert time.perf_counter() - start < 2


def test_nothing_makes_a_password_expire(app):
    person("nora")
    assert "expire" not in repr(db.rows("select column_name from information_schema.columns where table_name = 'users'"))


@pytest.mark.parametrize("path", ["/register", "/security"])
def test_password_fields_hide_what_is_typed_and_let_managers_work(owner, anonymous, path):
    page = (owner if path == "/security" else anonymous).get(path).text
    assert 'type="password"' in page
    assert 'autocomplete="new-password"' in page
    assert "onpaste" not in page
    assert 'maxlength="1' not in page.split('name="password"')[1][:300]


WEAK = "Summer2026!!!"


def test_every_way_to_a_password_asks_for_the_same_strength(app, owner, anonymous):
    """Registering, changing it, the mailed link and the operator's command."""
    customers.request_reset("anna")
    ways = {
        "register": anonymous.submit("/register", {"login": "nora", "email": "nora@example.com", "password": WEAK}),
        "change": owner.submit("/security/password", {"current": PASSWORD, "password": WEAK}),
        "reset": anonymous.submit(f"/password/reset/{newest_link('reset')}", {"password": WEAK}),
    }
    assert {way: answer.status_code for way, answer in ways.items()} == dict.fromkeys(ways, 422)
    assert all("easy to guess" in answer.text for answer in ways.values())
    words = ["user", "create", "nora", "nora@example.com", "--password-stdin"]
    told = app.test_cli_runner().invoke(args=words, input=f"{WEAK}\n")
    assert (told.exit_code, "easy to guess" in told.output) == (2, True)
    assert customers.authenticate("anna", PASSWORD)
    assert customers.find_user("nora") is None


def test_logging_out_is_offered_on_every_page_of_an_account(owner):
    for path in ("/balance", "/add-funds", "/invoices", "/transactions", "/services", "/profile", "/security", "/notifications"):
        assert 'action="/logout"' in owner.get(path).text, path
