"""Changes of credentials: what they end, what is bound to them, and how a theft is undone."""

import importlib.util
import re
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from app import clock, customers, db, mail, refunds
from app.customers import tokens
from tests.conftest import PASSWORD, PASSWORD_HASH, person, sign_in
from tests.test_customers import GOOD, newest_link

HOUSE = Path(__file__).parent.parent
DECIDED = {"actor": "staff:rita", "reason": "asked on the phone"}
NEW = "vulkan-teelicht-pfandflasche"


def change_password(user, keep):
    customers.change_password(user.id, PASSWORD, GOOD, keep=keep)


def reset_password(user, _keep):
    customers.request_reset(user.login)
    customers.reset_password(newest_link("reset"), GOOD)


def change_address(user, keep):
    customers.request_email_change(user.id, PASSWORD, "new@example.com")
    customers.verify(newest_link("verify"), keep=keep)


def change_role(user, _keep):
    customers.promote(user.login, "support")


def disable(user, _keep):
    customers.disable(user.login, **DECIDED)


def sign_out(user, _keep):
    customers.sign_out(user.login, **DECIDED)


def close(user, _keep):
    customers.close(user.login, **DECIDED)


def undo(user, keep):
    change_address(user, keep)
    with db.transaction():
        for purpose in ("verify", "change", "reset", "billing"):
            tokens.issue(purpose, user.id, "late@example.com")
    customers.undo_email_change(newest_link("email_changed"))


PATHS = [change_password, reset_password, change_address, change_role, disable, sign_out, close, undo]
KEEPING = [change_password, change_address]


def links_of(user):
    with db.transaction():
        return {purpose: tokens.issue(purpose, user.id, "late@example.com") for purpose in ("verify", "change", "reset", "billing")}


def alive(secrets):
    return [purpose for purpose, token in secrets.items() if customers.peek_link(token, purpose)]


@pytest.mark.parametrize("path", PATHS)
def test_every_change_of_credentials_ends_every_link_and_every_other_session(app, path):
    user = person("nora")
    here, there = customers.open_session(user.id), customers.open_session(user.id)
    secrets = links_of(user)
    assert len(alive(secrets)) == 4
    path(user, customers.load_session(here).session_id)
    assert alive(secrets) == []
    assert customers.load_session(there) is None
    assert customers.load_session(here) is None, "the old secret is dead for who acted, too"
    living = "select count(*) from sessions where user_id = %(id)s and revoked_at is null"
    assert db.scalar(living, id=user.id) == (path in KEEPING)
    assert db.scalar("select count(*) from tokens where used_at is null and purpose not in ('undo', 'reset')") == 0


def test_credentials_are_written_in_one_place():
    writes = re.compile(r"update\s+users\s+set\s[^\"]*\b(password_hash|email|role|disabled_at)\s*=", re.IGNORECASE)
    found = {path.name for path in HOUSE.glob("app/**/*.py") if writes.search(path.read_text())}
    assert found == {"credentials.py"}
    functions = (HOUSE / "app/customers/credentials.py").read_text().split("\ndef ")[2:]
    ending = [text.partition("(")[0] for text in functions if "return changed(" in text]
    assert ending == ["set_password", "set_email", "set_role", "set_disabled"]
    assert {text.partition("(")[0] for text in functions} - set(ending) == {"confirm_email"}


@pytest.mark.parametrize("change", ["password_hash = 'x'", "email = 'b@example.com'", "role = 'support'", "disabled_at = now()"])
def test_the_database_ends_links_when_what_they_are_bound_to_changes(app, superuser, change):
    user = person("nora")
    secrets = links_of(user)
    superuser.execute(f"update users set {change} where id = %s", (user.id,))
    assert alive(secrets) == []
    for purpose, token in secrets.items():
        with db.transaction():
            assert tokens.spend(token, purpose) is None


@pytest.mark.parametrize(("purpose", "bound"), [("reset", False), ("undo", True)])
def test_a_link_without_its_binding_cannot_be_stored(app, superuser, purpose, bound):
    user = person("nora")
    with pytest.raises(psycopg.errors.CheckViolation):
        superuser.execute(
            "insert into tokens (id, purpose, user_id, email, bound_to, created_at, expires_at)"
            " values (sha256('a'), %s, %s, 'a@example.com', case when %s then sha256('b') end, now(), now())",
            (purpose, user.id, bound),
        )


# A thief who knows the password


def test_the_owner_who_changes_the_password_ends_the_thiefs_change_of_address(app):
    user = person("nora")
    customers.request_email_change(user.id, PASSWORD, "thief@example.com")
    link = newest_link("verify")
    customers.change_password(user.id, PASSWORD, GOOD, keep=b"")
    assert customers.verify(link) is None
    assert customers.get_user(user.id).email == "nora@example.com"


def test_the_owner_who_resets_the_password_ends_the_thiefs_change_of_address(app):
    user = person("nora")
    customers.request_email_change(user.id, PASSWORD, "thief@example.com")
    link = newest_link("verify")
    reset_password(user, b"")
    assert customers.verify(link) is None


def test_a_reset_is_dead_once_the_address_changed_and_never_sets_it_back(app):
    user = person("nora")
    customers.request_reset("nora")
    link = newest_link("reset")
    change_address(user, None)
    assert customers.reset_password(link, GOOD) is None
    assert customers.get_user(user.id).email == "new@example.com"
    assert customers.authenticate("nora", PASSWORD)


def steal(user, address="thief@example.com", password=PASSWORD):
    """A thief's change of address; the secret of the way back that the address before was mailed."""
    customers.request_email_change(user.id, password, address)
    customers.verify(newest_link("verify"))
    return newest_link("email_changed")


def test_the_old_address_is_told_with_one_link_to_undo(app):
    user = person("nora")
    steal(user)
    letter = next(found for found in mail.newest(5) if found.kind == "email_changed")
    assert letter.recipient == "nora@example.com"
    assert len(set(re.findall(r"http\S+", letter.text))) == 1
    assert letter.secret, "whoever is inside the account must not read the link"


def test_the_way_back_works_after_the_thief_changed_the_password_too(app):
    user = person("nora")
    way_back = steal(user)
    thief = customers.open_session(user.id)
    customers.change_password(user.id, PASSWORD, GOOD, keep=customers.load_session(thief).session_id)
    with clock.travel(clock.now() + timedelta(hours=71)):
        undone = customers.undo_email_change(way_back)
        assert undone.user.email == "nora@example.com"
        assert undone.user.verified
        assert customers.load_session(thief) is None
        for password in (PASSWORD, GOOD):
            assert customers.authenticate("nora", password) is None
        assert customers.reset_password(undone.reset, NEW).login == "nora"
        assert customers.authenticate("nora@example.com", NEW)
        assert customers.undo_email_change(way_back) is None, "it works once"


def test_the_way_back_ends_after_three_days(app):
    way_back = steal(person("nora"))
    with clock.travel(clock.now() + timedelta(hours=72, minutes=1)):
        assert customers.undo_email_change(way_back) is None


def test_the_first_way_back_restores_the_owner_and_ends_the_thiefs_own(app):
    user = person("nora")
    owners = steal(user)
    thiefs = steal(user, "second@example.com")
    assert customers.undo_email_change(owners).user.email == "nora@example.com"
    assert customers.undo_email_change(thiefs) is None
    assert customers.get_user(user.id).email == "nora@example.com"


def test_the_owners_way_back_outlives_a_thief_who_undoes_his_own_change(app):
    user = person("nora")
    owners = steal(user)
    thiefs = steal(user, "second@example.com")
    assert customers.undo_email_change(thiefs).user.email == "thief@example.com"
    assert customers.undo_email_change(owners).user.email == "nora@example.com"


def test_after_the_undo_nothing_the_thief_started_goes_on(app):
    user = person("nora")
    way_back = steal(user)
    secrets = links_of(user)
    customers.undo_email_change(way_back)
    assert alive(secrets) == []
    told = next(found for found in mail.newest(5) if found.kind == "email_change_undone")
    assert told.recipient == "thief@example.com"
    assert refunds.quiet_until(user.customer_id) is not None


def test_undoing_is_a_page_and_a_button_and_leads_to_a_new_password(app, anonymous):
    way_back = steal(person("nora"))
    page = anonymous.get(f"/email/undo/{way_back}")
    assert "nora@example.com" in page.text
    assert customers.find_user("nora").email == "thief@example.com"
    answer = anonymous.submit(f"/email/undo/{way_back}")
    assert answer.location.startswith("/password/reset/")
    assert anonymous.submit(answer.location, {"password": NEW}).location == "/login"
    assert customers.authenticate("nora", NEW)
    assert anonymous.get(f"/email/undo/{way_back}").status_code == 410
    assert anonymous.submit(f"/email/undo/{way_back}").status_code == 410


def test_an_address_that_somebody_else_confirmed_meanwhile_is_not_taken_away(app, anonymous):
    user = person("nora")
    way_back = steal(user)
    customers.create_user("other", "nora@example.com", "", password_hash=PASSWORD_HASH)
    answer = anonymous.submit(f"/email/undo/{way_back}")
    assert answer.status_code == 410
    assert "Another account uses this address now." in answer.text
    assert customers.get_user(user.id).email == "thief@example.com"


def test_an_address_that_was_never_confirmed_gets_no_way_back(app):
    user = person("nora", verified=False)
    customers.request_email_change(user.id, PASSWORD, "right@example.com")
    customers.verify(newest_link("verify"))
    assert "email_changed" not in {letter.kind for letter in mail.newest(9)}


def test_a_disabled_login_cannot_use_its_links(app):
    user = person("nora")
    way_back = steal(user)
    customers.disable("nora", **DECIDED)
    assert customers.undo_email_change(way_back) is None
    customers.enable("nora", **DECIDED)
    assert customers.undo_email_change(way_back), "it is still the owner's way back"


# The browser that acts


def test_changing_the_password_gives_the_acting_browser_a_new_session(app, owner):
    before = owner.get_cookie("sid").value
    assert owner.submit("/security/password", {"current": PASSWORD, "password": GOOD}).location == "/security"
    assert owner.get_cookie("sid").value != before
    assert owner.get("/security").status_code == 200
    owner.set_cookie("sid", before)
    assert owner.get("/security").status_code == 303


def test_following_a_change_of_address_gives_the_acting_browser_a_new_session(app, owner, demo_customer):
    phone, before = sign_in(app.test_client(), demo_customer), owner.get_cookie("sid").value
    owner.submit("/security/email", {"email": "new@example.com", "confirm": PASSWORD})
    assert owner.submit(f"/verify/{newest_link('verify')}").location == "/balance"
    assert owner.get_cookie("sid").value != before
    assert owner.get("/security").status_code == 200
    assert phone.get("/security").status_code == 303


def test_confirming_the_first_address_ends_nothing(app, anonymous):
    anonymous.submit("/register", {"login": "nora", "email": "nora@example.com", "password": GOOD})
    before = anonymous.get_cookie("sid").value
    assert anonymous.submit(f"/verify/{newest_link('verify')}").location == "/balance"
    assert anonymous.get_cookie("sid").value == before
    assert anonymous.get("/security").status_code == 200


def test_a_remembered_session_stays_remembered_after_a_change(app, anonymous):
    person("nora")
    anonymous.submit("/login", {"login": "nora", "password": PASSWORD, "remember": "1"})
    answer = anonymous.submit("/security/password", {"current": PASSWORD, "password": GOOD})
    cookie = next(line for line in answer.headers.getlist("Set-Cookie") if line.startswith("sid="))
    seconds = int(re.search(r"Max-Age=(\d+)", cookie)[1])
    assert 0 < 30 * 24 * 3600 - seconds < 600


def test_support_does_not_stay_signed_in_and_is_signed_out_after_half_an_hour(app, anonymous):
    person("sven", role="support")
    answer = anonymous.submit("/login", {"login": "sven", "password": PASSWORD, "remember": "1"})
    assert "Max-Age" not in next(line for line in answer.headers.getlist("Set-Cookie") if line.startswith("sid="))
    assert db.scalar("select bool_or(remembered) from sessions") is False
    start = clock.now()
    for minutes, status in ((29, 200), (58, 200), (89, 303)):
        with clock.travel(start + timedelta(minutes=minutes)):
            assert anonymous.get("/security").status_code == status


def test_supports_sessions_end_after_twelve_hours_however_busy(app):
    user, start = person("sven", role="support"), clock.now()
    token = customers.open_session(user.id, remember=True)
    for minutes in range(0, 12 * 60, 20):
        with clock.travel(start + timedelta(minutes=minutes)):
            customers.touch(customers.load_session(token).session_id)
    with clock.travel(start + customers.ABSOLUTE + timedelta(minutes=1)):
        assert customers.load_session(token) is None


# Whose address it is


def test_a_confirmed_address_wins_over_every_later_claim(app):
    user = person("nora")
    customers.register("mallory", "nora@example.com", GOOD)
    assert customers.find_user("nora@example.com").id == user.id
    assert customers.authenticate("nora@example.com", PASSWORD).id == user.id
    assert customers.authenticate("nora@example.com", GOOD) is None
    customers.request_reset("nora@example.com")
    assert [letter.text.count("Hello nora,") for letter in mail.newest(9) if letter.kind == "reset"] == [1]


def test_unconfirmed_claims_stand_side_by_side(app):
    nora = customers.register("nora", "shared@example.com", GOOD)
    mallory = customers.register("mallory", "shared@example.com", NEW)
    assert customers.authenticate("shared@example.com", GOOD).id == nora.id
    assert customers.authenticate("shared@example.com", NEW).id == mallory.id
    assert customers.authenticate("shared@example.com", "neither of these two") is None
    assert customers.find_user("shared@example.com") is None
    customers.request_reset("shared@example.com")
    resets = [letter for letter in mail.newest(9) if letter.kind == "reset"]
    assert sorted(re.search(r"Hello (\w+),", letter.text)[1] for letter in resets) == ["mallory", "nora"]


def test_later_claims_cannot_push_out_the_first(app):
    nora = customers.register("nora", "shared@example.com", GOOD)
    with db.transaction():
        for number in range(6):
            customers.people.insert_user(f"mallory-{number}", "shared@example.com", PASSWORD_HASH)
    assert customers.authenticate("shared@example.com", GOOD).id == nora.id


@pytest.mark.parametrize("claims", [0, 1, 2, 5])
def test_signing_in_by_address_does_the_same_work_whoever_claims_it(app, monkeypatch, claims):
    with db.transaction():
        for number in range(claims):
            customers.people.insert_user(f"claim-{number}", "shared@example.com", PASSWORD_HASH)
    checked = []
    monkeypatch.setattr("app.customers.passwords.verify_password", lambda password, stored: checked.append(stored))
    customers.authenticate("shared@example.com", "wrong")
    assert len(checked) == customers.CLAIMS


def test_who_only_claims_an_address_does_not_see_who_knocks_at_it(app):
    mallory = customers.register("mallory", "nora@example.com", GOOD)
    customers.authenticate("nora@example.com", "wrong", ip="203.0.113.9")
    assert "sign_in_failed" not in {event.kind for event in customers.history(mallory.id, 10)}


def test_a_disabled_holder_keeps_the_address_from_claimants(app):
    person("nora")
    customers.disable("nora", **DECIDED)
    customers.register("mallory", "nora@example.com", GOOD)
    assert customers.authenticate("nora@example.com", GOOD) is None
    assert customers.authenticate("nora@example.com", PASSWORD) is None


def test_links_live_through_the_migration_and_names_become_one_line(app, superuser):
    user = person("nora")
    customers.request_reset("nora")
    customers.request_email_change(user.id, PASSWORD, "new@example.com")
    reset, change = newest_link("reset"), newest_link("verify")
    spec = importlib.util.spec_from_file_location("accounts", next(HOUSE.glob("migrations/versions/*_accounts.py")))
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    superuser.execute(migration.DOWN)
    purposes = superuser.execute("select purpose from tokens order by 1").fetchall()
    assert purposes == [("reset",), ("verify",)]
    superuser.execute("update customers set company = E'Keller\\nStudio'")
    superuser.execute(migration.UP)
    assert customers.get(user.customer_id).profile.company == "Keller Studio"
    assert customers.peek_link(reset, "reset")
    assert customers.verify(change).user.email == "new@example.com"
