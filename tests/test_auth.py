"""Coming in and going out, as a browser does it."""

import re
import statistics
import time
from dataclasses import replace
from datetime import timedelta

import pytest

import config
from app import clock, customers, db, mail
from app.web import gate
from tests.conftest import PASSWORD, person, sign_in
from tests.test_customers import GOOD, newest_link

EVIL = ["//evil.test", "/\\evil.test", "https://evil.test/", "/\t/evil.test", "javascript:alert(1)", "\\\\evil.test", "http:evil.test", "/%0d%0aSet-Cookie:x", "evil"]


def log_in(client, login="nora", password=PASSWORD, path="/login", **fields):
    return client.submit(path, {"login": login, "password": password, **fields})


def live(app):
    return db.scalar("select count(*) from sessions where revoked_at is null")


def test_the_start_leads_to_the_login_or_to_the_balance(anonymous, owner, staff):
    assert anonymous.get("/").location == "/login"
    assert owner.get("/").location == "/balance"
    assert staff.get("/").location == "/staff"


def test_logging_in_by_login_or_address_and_out_again(app, anonymous):
    person("nora")
    answer = log_in(anonymous)
    assert (answer.status_code, answer.location) == (303, "/balance")
    assert anonymous.get("/security").status_code == 200
    assert anonymous.submit("/logout").location == "/login"
    assert anonymous.get("/security").location == "/login?next=%2Fsecurity"
    assert log_in(anonymous, "Nora@Example.com").location == "/balance"


@pytest.mark.parametrize(("login", "password"), [("nora", "wrong"), ("nobody", PASSWORD), ("nobody@example.com", "x"), ("nora\0", "\0"), ("x" * 5000, "y" * 5000)])
def test_the_answer_is_the_same_for_known_and_unknown_logins(app, anonymous, login, password):
    person("nora")
    answer = log_in(anonymous, login, password)
    assert answer.status_code == 422
    assert "do not belong together" in answer.text
    assert 'id="password" name="password"' in answer.text
    assert answer.text.count('aria-invalid="true"') == 1
    assert password not in answer.text or len(password) < 2
    assert live(app) == 0


def test_empty_fields_are_marked_and_what_was_typed_is_kept(anonymous):
    answer = log_in(anonymous, "nora<b>", "")
    assert answer.status_code == 422
    assert 'value="nora&lt;b&gt;"' in answer.text
    assert "Enter your password." in answer.text


def test_the_cookie_is_a_secret_that_only_the_server_reads(app, anonymous):
    person("nora")
    cookie = next(line for line in log_in(anonymous).headers.getlist("Set-Cookie") if line.startswith("sid="))
    assert re.match(r"sid=[\w-]{43}; HttpOnly; Path=/; SameSite=Lax$", cookie)
    remembered = next(line for line in log_in(anonymous, remember="1").headers.getlist("Set-Cookie") if line.startswith("sid="))
    assert "Max-Age=2592000" in remembered


def test_over_https_the_cookie_is_bound_to_the_host(settings, app, anonymous):
    person("nora")
    config.use(replace(settings, base_url="https://localhost"))
    try:
        cookies = log_in(anonymous).headers.getlist("Set-Cookie")
    finally:
        config.use(settings)
    cookie = next(line for line in cookies if line.startswith("__Host-sid="))
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_cookie_replayed_after_logout_is_dead(app, anonymous):
    person("nora")
    log_in(anonymous)
    stolen = anonymous.get_cookie("sid").value
    answer = anonymous.submit("/logout")
    assert answer.headers["Clear-Site-Data"] == '"storage"'
    assert anonymous.get_cookie("sid") is None
    anonymous.set_cookie("sid", stolen)
    assert anonymous.get("/security").status_code == 303


def test_logging_in_makes_a_new_session_and_ends_the_one_before(app, anonymous):
    person("nora")
    log_in(anonymous)
    first = anonymous.get_cookie("sid").value
    log_in(anonymous)
    assert anonymous.get_cookie("sid").value != first
    assert customers.load_session(first) is None
    assert live(app) == 1


def test_a_planted_session_is_not_taken_over(app, anonymous):
    person("nora")
    anonymous.set_cookie("sid", "planted-by-somebody-else")
    with anonymous.session_transaction() as session:
        session["planted"] = "yes"
        session["csrf_token"] = "c" * 40
    log_in(anonymous)
    assert anonymous.get_cookie("sid").value != "planted-by-somebody-else"
    with anonymous.session_transaction() as session:
        assert "planted" not in session
        assert session.get("csrf_token") != "c" * 40


def test_logging_in_leads_where_the_visitor_wanted_to_be(app, anonymous):
    person("nora")
    wanted = anonymous.get("/security/history?before=7").location
    assert wanted == "/login?next=%2Fsecurity%2Fhistory%3Fbefore%3D7"
    assert re.search(r'action="/login\?next=(/|%2F)security(/|%2F)history%3Fbefore%3D7"', anonymous.get(wanted).text)
    assert log_in(anonymous, path=wanted).location == "/security/history?before=7"
    assert anonymous.get(wanted).location == "/security/history?before=7"


@pytest.mark.parametrize("target", EVIL)
def test_logging_in_never_leads_away_from_the_site(app, anonymous, target):
    person("nora")
    answer = anonymous.submit("/login", {"login": "nora", "password": PASSWORD}, query_string={"next": target})
    assert answer.status_code == 303
    assert answer.location.startswith("/")
    assert "evil" not in answer.location or re.fullmatch(r"/%0d%0a[\w:-]+", answer.location)


def test_too_many_tries_are_told_when_to_come_back(app, anonymous):
    person("nora")
    for _ in range(5):
        assert log_in(anonymous, password="wrong").status_code == 422
    for name, password in (("nora", "wrong"), ("nora", PASSWORD)):
        answer = log_in(anonymous, name, password)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 120
        assert "Too many tries" in answer.text
        assert 'value="nora"' in answer.text


def test_registering_lets_in_at_once_and_asks_for_the_address(app, anonymous):
    fields = {"login": "Nora", "email": "nora@example.com", "password": GOOD, "timezone": "Europe/Warsaw"}
    answer = anonymous.submit("/register", fields, headers={"Accept-Language": "pl,en;q=0.5"})
    assert (answer.status_code, answer.location) == (303, "/balance")
    page = anonymous.get("/security").text
    assert "Confirm nora@example.com." in page
    assert "on its way to nora@example.com" in page
    user = customers.find_user("nora")
    assert (user.locale, user.timezone, user.role) == ("pl", "Europe/Warsaw", "customer")


@pytest.mark.parametrize(
    ("fields", "marked"),
    [
        ({"login": ""}, "login"),
        ({"login": "a"}, "login"),
        ({"login": "taken"}, "login"),
        ({"email": "nora"}, "email"),
        ({"email": "nora@example.com\r\nBcc: all@example.com"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "password12345"}, "password"),
    ],
)
def test_what_cannot_be_registered_is_marked_and_nothing_is_written(app, anonymous, fields, marked):
    person("taken")
    answer = anonymous.submit("/register", {"login": "nora", "email": "nora@example.com", "password": GOOD, **fields})
    assert answer.status_code == 422
    assert re.search(rf'id="{marked}"[^>]*aria-invalid="true"', answer.text)
    assert f'id="{marked}-error"' in answer.text
    assert (db.scalar("select count(*) from users where role = 'customer'"), db.scalar("select count(*) from mails")) == (1, 0)


def test_all_that_is_wrong_is_said_at_once(anonymous):
    answer = anonymous.submit("/register", {"login": "a", "email": "nora", "password": "short"})
    assert re.findall(r'id="(\w+)-error"', answer.text) == ["login", "email", "password"]


def test_extra_fields_give_no_extra_rights(app, anonymous):
    anonymous.submit("/register", {"login": "nora", "email": "nora@example.com", "password": GOOD, "role": "support", "verified_at": "2020-01-01", "customer_id": "1"})
    user = customers.find_user("nora")
    assert (user.role, user.verified) == ("customer", False)


def test_registering_with_a_known_address_looks_like_any_other(app):
    person("nora")
    answers = [
        app.test_client().submit("/register", {"login": login, "email": email, "password": GOOD}) for login, email in (("first", "nora@example.com"), ("second", "new@example.com"))
    ]
    assert [(answer.status_code, answer.location) for answer in answers] == [(303, "/balance")] * 2
    assert [letter.kind for letter in mail.newest(2)] == ["verify", "address_known"]


def test_following_a_link_changes_nothing_until_the_button_is_pressed(app, anonymous):
    customers.register("nora", "nora@example.com", GOOD)
    path = f"/verify/{newest_link('verify')}"
    assert "nora@example.com" in anonymous.get(path).text
    assert not customers.find_user("nora").verified
    assert anonymous.submit(path).location == "/login"
    assert customers.find_user("nora").verified
    assert "nora@example.com is confirmed" in anonymous.get("/login").text
    assert anonymous.get(path).status_code == 410
    assert anonymous.submit(path).status_code == 410


def test_sending_the_link_again_comes_back_to_the_page(app, anonymous):
    sign_in(anonymous, person("nora", verified=False))
    answer = anonymous.submit("/verify", {"next": "/notifications"})
    assert answer.location == "/notifications"
    assert anonymous.submit(f"/verify/{newest_link('verify')}").location == "/balance"
    assert "Confirm nora@example.com." not in anonymous.get("/security").text
    assert anonymous.submit("/verify", {"next": "//evil.test"}).location == "/security"


def test_a_forgotten_password(app, anonymous, owner):
    for name in ("anna", "nobody"):
        answer = anonymous.submit("/password/reset", {"login": name})
        assert (answer.status_code, answer.location) == (303, "/password/reset?sent")
    assert "is on its way" in anonymous.get("/password/reset?sent").text
    assert len(mail.newest(9)) == 1
    path = f"/password/reset/{newest_link('reset')}"
    assert "anna" in anonymous.get(path).text
    short = anonymous.submit(path, {"password": "short"})
    assert short.status_code == 422
    assert 'aria-invalid="true"' in short.text
    assert anonymous.submit(path, {"password": GOOD}).location == "/login"
    assert owner.get("/security").status_code == 303
    assert anonymous.get(path).status_code == 410
    assert anonymous.submit(path, {"password": "another-good-phrase"}).status_code == 410
    assert log_in(anonymous, "anna", GOOD).location == "/balance"


def test_too_many_resets_are_refused_alike(app, anonymous):
    person("nora")
    for name in ("nora", "nobody"):
        codes = [anonymous.submit("/password/reset", {"login": name}).status_code for _ in range(4)]
        assert codes == [303, 303, 303, 429]


def test_an_idle_session_leads_to_the_login_and_a_partial_request_there_whole(app, owner):
    with clock.travel(clock.now() + customers.IDLE + timedelta(minutes=1)):
        assert owner.get("/security").location == "/login?next=%2Fsecurity"
        partial = owner.get("/security", headers={"HX-Request": "true", "HX-Request-Type": "partial"})
        assert (partial.status_code, partial.headers["HX-Redirect"]) == (200, "/login?next=%2Fsecurity")


def test_a_living_session_is_noted_once_in_five_minutes(app, owner):
    start, seen = clock.now(), []
    for minutes in (0, 1, 4, 6, 7, 12):
        with clock.travel(start + timedelta(minutes=minutes)):
            owner.get("/security")
            seen.append(db.scalar("select max(seen_at) from sessions"))
    assert len(set(seen)) == 3


def test_no_post_passes_without_its_token(app, owner):
    for path in ("/login", "/register", "/password/reset", "/logout", "/verify", "/security/password", "/security/email", "/security/sessions/sign-out-others", "/profile"):
        assert owner.post(path, data={}).status_code == 400
    assert live(app) == 1


def test_opening_pages_changes_nothing(app, owner, anonymous):
    owner.get("/security")
    tables = ("users", "customers", "tokens", "mails", "security_events", "rate_limits", "sessions")
    before = [db.rows(f"select * from {table} order by 1") for table in tables]
    for client in (owner, anonymous):
        for path in ("/", "/login", "/logout", "/register", "/password/reset", "/password/reset?sent", "/password/reset/x", "/verify/x", "/verify"):
            client.get(path)
        for path in ("/profile", "/security", "/security/password", "/notifications", "/sandbox/mail"):
            client.get(path)
    assert [db.rows(f"select * from {table} order by 1") for table in tables] == before


def test_pages_of_customers_are_closed_to_support_without_one_and_its_own_are_open(staff):
    assert [staff.get(path).status_code for path in ("/profile", "/notifications", "/security", "/security/history")] == [403, 403, 200, 200]


def test_a_page_for_staff_does_not_exist_for_anybody_else(app, owner, staff, anonymous, monkeypatch):
    def ledger_of_all():
        return "everything"

    monkeypatch.setitem(app.view_functions, "auth.register", app.view_functions["auth.register"])
    monkeypatch.setitem(app.view_functions, "auth.register", gate.staff_required(ledger_of_all))
    assert anonymous.get("/register").status_code == 303
    assert owner.get("/register").status_code == 404
    assert staff.get("/register").text == "everything"


def test_unknown_logins_take_as_long_as_known_ones(app):
    person("nora")
    times = {"nora": [], "nobody": []}
    for _ in range(15):
        with db.transaction():
            db.execute("delete from rate_limits")
        for name, taken in times.items():
            start = time.perf_counter()
            assert customers.authenticate(name, "wrong password here") is None
            taken.append(time.perf_counter() - start)
    known, unknown = (statistics.median(taken) for taken in times.values())
    assert 0.5 < known / unknown < 2
