"""Registering, signing in, sessions, links and limits, below HTTP."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app import clock, customers, db, ledger, mail, wallet
from app.money import Money
from tests.conftest import BERLIN, PASSWORD, person

GOOD = "copper-violin-weather"


def newest_link(kind: str) -> str:
    """The secret of the newest mailed link of this kind."""
    letter = next(letter for letter in mail.newest(20) if letter.kind == kind)
    return next(line for line in letter.text.splitlines() if line.startswith("http")).rpartition("/")[2]


def test_registering_makes_a_customer_and_a_user_and_mails_the_link(app):
    user = customers.register("Nora", " Nora@Example.com ", GOOD)
    assert (user.login, user.email, user.role, user.verified) == ("nora", "nora@example.com", "customer", False)
    assert customers.get(user.customer_id).profile.currency is None
    assert [(letter.kind, letter.recipient) for letter in mail.newest(5)] == [("verify", "nora@example.com")]
    assert customers.verify(newest_link("verify")).user.verified
    assert customers.get_user(user.id).verified


def test_a_link_works_once_and_not_after_its_time(app):
    customers.register("nora", "nora@example.com", GOOD)
    token = newest_link("verify")
    with clock.travel(clock.now() + timedelta(days=3, minutes=1)):
        assert customers.verify(token) is None
    assert customers.verify(token) is not None
    assert customers.verify(token) is None
    assert customers.verify("nonsense\0é") is None


def test_asking_again_makes_the_older_link_useless(app):
    user = customers.register("nora", "nora@example.com", GOOD)
    first = newest_link("verify")
    customers.request_verification(user.id)
    assert customers.verify(first) is None
    assert customers.verify(newest_link("verify")) is not None


@pytest.mark.parametrize("login", ["", "ab", "-nora", "nora-", "no ra", "ñora", "nora\0x", "x" * 41, "admin"])
def test_logins_that_are_refused(app, login):
    with pytest.raises(customers.Refused) as refused:
        customers.register(login, "nora@example.com", GOOD)
    assert refused.value.field == "login"
    assert db.scalar("select count(*) from users") == 0


@pytest.mark.parametrize(
    "email", ["", "nora", "nora@", "@example.com", "nora@example", "a b@example.com", "nora@example.com\nBcc: x@example.com", "a@b..com", "n" * 250 + "@example.com"]
)
def test_addresses_that_are_refused(app, email):
    with pytest.raises(customers.Refused) as refused:
        customers.register("nora", email, GOOD)
    assert refused.value.field == "email"


def test_a_taken_login_leaves_nothing_behind(app):
    person("nora")
    with pytest.raises(customers.Refused, match="taken"):
        customers.register("nora", "other@example.com", GOOD)
    assert (db.scalar("select count(*) from customers"), db.scalar("select count(*) from mails")) == (1, 0)


def test_an_address_with_an_account_is_not_given_away_and_stays_with_its_holder(app):
    person("nora")
    second = customers.register("mallory", "nora@example.com", GOOD)
    assert mail.newest(1)[0].kind == "address_known"
    assert "nora" in mail.newest(1)[0].text
    assert not second.verified
    customers.request_verification(second.id)
    assert {letter.kind for letter in mail.newest(9)} == {"address_known"}
    assert customers.find_user("nora@example.com").login == "nora"


def test_two_claims_of_one_address_and_the_first_to_confirm_has_it(app):
    customers.register("first", "shared@example.com", GOOD)
    first = newest_link("verify")
    customers.register("second", "shared@example.com", GOOD)
    second = newest_link("verify")
    assert customers.verify(second).user.login == "second"
    assert customers.verify(first) is None
    assert customers.find_user("shared@example.com").login == "second"


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "x" * 1025,
        "aaaaaaaaaaaa",
        "123456789012",
        "abcdefghijklm",
        "passwordpassword",
        "Password12345!",
        "qwertyuiop[]",
        "1qaz2wsx3edc",
        "northbyte-2026!",
        "demo-client-area",
        "nora.nora.nora",
        "abcabcabcabc",
    ],
)
def test_passwords_that_are_refused(app, password):
    with pytest.raises(customers.Refused) as refused:
        customers.register("nora", "nora@example.com", password)
    assert refused.value.field == "password"


@pytest.mark.parametrize(
    "password",
    [GOOD, "  blanks at both ends  ", "ŻółwIdzieDoDomu", "x9\0k2mQ7pLz4w", "83920174839205167", "lamp cactus river thursday " + "x9k2mQ7pLz4w" * 80, "ＦＵＬＬwidth-mix!"],
)
def test_passwords_that_are_taken_exactly_as_they_are(app, password):
    customers.register("nora", "nora@example.com", password)
    assert customers.authenticate("nora", password)
    assert customers.authenticate("nora", password.swapcase() if password.swapcase() != password else password + " ") is None
    assert customers.authenticate("nora", password[:-1]) is None


def test_signing_in_by_login_and_by_address_in_any_case(app):
    user = person("nora")
    for name in ("nora", " NORA ", "nora@example.com", "Nora@Example.COM"):
        assert customers.authenticate(name, PASSWORD).id == user.id
    for name in ("", "nobody", "nobody@example.com", "nora\0", "' or 1=1 --"):
        assert customers.authenticate(name, PASSWORD) is None


def test_a_disabled_user_is_out_at_once(app):
    user = person("nora")
    token = customers.open_session(user.id)
    with db.transaction():
        db.execute("update users set disabled_at = created_at")
    assert customers.load_session(token) is None
    assert customers.authenticate("nora", PASSWORD) is None


def test_only_hashes_are_stored(app, superuser):
    user = customers.register("nora", "nora@example.com", GOOD)
    secret, link = customers.open_session(user.id), newest_link("verify")
    stored = repr([superuser.execute(f"select * from {table}").fetchall() for table in ("users", "sessions", "tokens", "security_events")])
    assert "$argon2id$" in stored
    for plain in (GOOD, secret, link):
        assert plain not in stored


def test_a_session_ends_by_idleness_by_age_and_by_signing_out(app):
    user, start = person("nora"), clock.now()
    token, kept = customers.open_session(user.id), customers.open_session(user.id, remember=True)
    with clock.travel(start + customers.IDLE - timedelta(minutes=1)):
        signed_in = customers.load_session(token)
        customers.touch(signed_in.session_id)
    with clock.travel(start + customers.IDLE + timedelta(minutes=1)):
        assert customers.load_session(token).user_id == user.id
    with clock.travel(start + 2 * customers.IDLE):
        assert customers.load_session(token) is None
        assert customers.load_session(kept).user_id == user.id
    for hours in range(1, 12):
        with clock.travel(start + timedelta(hours=hours)):
            customers.touch(signed_in.session_id)
    with clock.travel(start + customers.ABSOLUTE + timedelta(minutes=1)):
        assert customers.load_session(token) is None
    with clock.travel(start + customers.REMEMBERED + timedelta(minutes=1)):
        assert customers.load_session(kept) is None
    customers.close_session(kept)
    assert customers.load_session(kept) is None
    assert customers.load_session("") is None


def test_the_session_brings_everything_the_frame_shows_in_one_statement(app, monkeypatch):
    user = person("nora", profile=replace(BERLIN, name="Nora van Dijk"))
    with db.transaction():
        revenue = ledger.account("revenue", "EUR")
        for minor in (10_00, 3_40):
            wallet.credit(user.customer_id, Money(minor, "EUR"), reference=f"c{minor}", kind="correction", counter=[(revenue, -minor)])
        wallet.spend(user.customer_id, Money(1_00, "EUR"), reference="s", counter=[(revenue, 1_00)])
        wallet.grant_bonus(user.customer_id, Money(5_00, "EUR"), reference="b")
    token = customers.open_session(user.id)
    statements: list[str] = []
    plain = db.rows
    monkeypatch.setattr(db, "rows", lambda sql, /, **params: statements.append(sql) or plain(sql, **params))
    signed_in = customers.load_session(token)
    assert len(statements) == 1
    assert (signed_in.balance_minor, signed_in.bonus_minor, signed_in.version, signed_in.currency, signed_in.unpaid_count) == (12_40, 5_00, 3, "EUR", 0)
    assert (signed_in.initials, signed_in.timezone, signed_in.verified, signed_in.get_id()) == ("ND", "Europe/Berlin", True, str(user.id))


def test_sessions_are_listed_and_signed_out_one_by_one_and_together(app):
    nora, mallory = person("nora"), person("mallory")
    here, there, phone = (customers.open_session(nora.id, user_agent=agent) for agent in ("Firefox Windows", "Chrome Linux", "Safari iPhone"))
    foreign = customers.open_session(mallory.id)
    current = customers.load_session(here).session_id
    listed = customers.list_sessions(nora.id, current)
    assert [session.current for session in listed] == [True, False, False]
    assert {session.device for session in listed} == {"Firefox on Windows", "Chrome on Linux", "Safari on iPhone"}
    reference = next(session.reference for session in listed if session.device == "Chrome on Linux")
    assert not customers.revoke_session(mallory.id, reference)
    assert customers.revoke_session(nora.id, reference)
    assert customers.load_session(there) is None
    assert customers.revoke_others(nora.id, current) == 1
    assert customers.load_session(phone) is None
    assert customers.load_session(here)
    assert customers.load_session(foreign)


def test_a_reset_ends_every_session_and_confirms_the_address(app):
    user = person("nora", verified=False)
    token = customers.open_session(user.id)
    customers.request_reset("nora@example.com")
    link = newest_link("reset")
    with pytest.raises(customers.Refused):
        customers.reset_password(link, "too short")
    assert customers.reset_password(link, GOOD).verified
    assert customers.load_session(token) is None
    assert customers.authenticate("nora", PASSWORD) is None
    assert customers.authenticate("nora", GOOD)
    assert customers.reset_password(link, "another-good-phrase") is None
    assert mail.newest(1)[0].kind == "password_changed"


def test_a_reset_link_lives_thirty_minutes_and_does_nothing_else(app):
    person("nora")
    customers.request_reset("nora")
    link = newest_link("reset")
    assert customers.verify(link) is None
    with clock.travel(clock.now() + timedelta(minutes=31)):
        assert customers.reset_password(link, GOOD) is None
    assert customers.reset_password(link, GOOD)


def test_a_reset_for_nobody_says_and_sends_nothing(app):
    customers.request_reset("nobody@example.com")
    customers.request_reset("nobody\0")
    assert mail.newest(1) == []


def test_changing_the_password_needs_the_current_one_and_signs_out_the_others(app):
    user = person("nora")
    here, there = customers.open_session(user.id), customers.open_session(user.id)
    keep = customers.load_session(here).session_id
    for current, new, field in (("wrong", GOOD, "current"), (PASSWORD, "short", "password"), (PASSWORD, PASSWORD, "password")):
        with pytest.raises(customers.Refused) as refused:
            customers.change_password(user.id, current, new, keep=keep)
        assert refused.value.field == field
    changed = customers.change_password(user.id, PASSWORD, GOOD, keep=keep)
    assert changed.ended == 1
    assert customers.load_session(here) is None
    assert customers.load_session(changed.renewed.secret).user_id == user.id
    assert customers.load_session(there) is None


def test_a_new_address_counts_once_its_link_was_followed(app):
    user = person("nora")
    with pytest.raises(customers.Refused, match="current password"):
        customers.request_email_change(user.id, "wrong", "new@example.com")
    customers.request_email_change(user.id, PASSWORD, "New@example.com")
    assert customers.get_user(user.id).email == "nora@example.com"
    assert customers.verify(newest_link("verify")).user.email == "new@example.com"
    assert (mail.newest(1)[0].kind, mail.newest(1)[0].recipient) == ("email_changed", "nora@example.com")


def test_guessing_is_slowed_and_success_costs_nothing(app):
    person("nora")
    for _ in range(12):
        assert customers.authenticate("nora", PASSWORD, ip="198.51.100.7")
    for _ in range(5):
        assert customers.authenticate("nora", "wrong", ip="203.0.113.9") is None
    with pytest.raises(customers.RateLimited) as limited:
        customers.authenticate("nora", PASSWORD, ip="203.0.113.9")
    assert 0 < limited.value.retry_after_s <= 120
    with clock.travel(clock.now() + timedelta(seconds=limited.value.retry_after_s)):
        assert customers.authenticate("nora", PASSWORD, ip="203.0.113.9")


def test_a_guesser_elsewhere_does_not_lock_the_owner_out(app):
    user = person("nora")
    customers.open_session(user.id, ip="198.51.100.7")
    for _ in range(5):
        customers.authenticate("nora", "wrong", ip="203.0.113.9")
    with pytest.raises(customers.RateLimited):
        customers.authenticate("nora", PASSWORD, ip="203.0.113.9")
    assert customers.authenticate("nora", PASSWORD, ip="198.51.100.8")


def test_unknown_names_are_limited_like_known_ones(app):
    for _ in range(5):
        assert customers.authenticate("nobody", "wrong", ip="203.0.113.9") is None
    with pytest.raises(customers.RateLimited):
        customers.authenticate("nobody", "wrong", ip="203.0.113.9")


def test_resets_are_limited_for_known_and_unknown_alike(app):
    person("nora")
    for name in ("nora", "nobody"):
        for _ in range(3):
            customers.request_reset(name)
        with pytest.raises(customers.RateLimited):
            customers.request_reset(name)


@pytest.mark.parametrize(("limit", "window"), [(1, timedelta(minutes=1)), (3, timedelta(hours=1)), (5, timedelta(minutes=1))])
def test_a_refused_try_is_welcome_after_the_time_that_was_named(app, limit, window):
    with db.transaction():
        assert all(customers.allow("door", limit, window) for _ in range(limit))
        wait = customers.retry_after("door", limit, window)
        assert 0 < wait <= 2 * window.total_seconds()
        assert customers.retry_after("other", limit, window) == 0
        with clock.travel(clock.now() + timedelta(seconds=wait)):
            assert customers.retry_after("door", limit, window) == 0


def test_a_good_try_that_took_over_a_minute_mark_is_uncounted_all_the_same(app):
    rule = ("door", 5, timedelta(minutes=1))
    noon = datetime(2026, 5, 4, 12, 0, 59, tzinfo=UTC)
    for _ in range(20):
        with clock.travel(noon):
            counted_at = customers.count(rule)
        with clock.travel(noon + timedelta(seconds=2)):
            customers.give_back(counted_at, rule)
    with clock.travel(noon + timedelta(seconds=3)):
        for _ in range(5):
            customers.count(rule)


def test_a_try_that_one_rule_refuses_counts_against_no_other(app):
    own, door = ("mine", 2, timedelta(minutes=10)), ("door", 5, timedelta(minutes=10))
    refused = 0
    for _ in range(20):
        try:
            customers.count(door, own)
        except customers.RateLimited:
            refused += 1
    assert refused == 18
    for _ in range(3):
        customers.count(door)
    with pytest.raises(customers.RateLimited):
        customers.count(door)


def test_networks():
    assert customers.network("203.0.113.77") == "203.0.113.0/24"
    assert customers.network("2001:db8:1:2ff::1") == "2001:db8:1:200::/56"
    assert customers.network("") == "unknown"


def test_what_is_missing_before_money_can_be_taken(app):
    user = person("nora", verified=False, name="")
    assert customers.missing_fields(customers.get(user.customer_id)) == ["a confirmed e-mail address", "name", "street", "postcode", "city", "country"]
    for profile, missing in (
        (BERLIN, []),
        (replace(BERLIN, kind="company"), ["company"]),
        (replace(BERLIN, postcode=""), ["postcode"]),
        (replace(BERLIN, postcode="", country="HK"), []),
    ):
        customers.update_profile(user.id, user.customer_id, profile, locale="en", timezone="UTC")
        assert customers.missing_fields(customers.get(user.customer_id)) == ["a confirmed e-mail address", *missing]


def test_the_currency_is_chosen_before_money_moves_and_not_after(app, superuser):
    user = person("nora", profile=BERLIN)
    customers.update_profile(user.id, user.customer_id, replace(BERLIN, currency="PLN"), locale="pl", timezone="Europe/Warsaw")
    assert customers.get(user.customer_id).currency == "PLN"
    superuser.execute("insert into accounts (kind, customer_id, currency, tracked, floor) values ('wallet', %s, 'PLN', true, 0)", (user.customer_id,))
    with pytest.raises(customers.Refused, match="no longer"):
        customers.update_profile(user.id, user.customer_id, replace(BERLIN, currency="EUR", city="Hamburg"), locale="pl", timezone="Europe/Warsaw")
    assert customers.get(user.customer_id).profile.city == "Berlin"
    assert customers.get(user.customer_id).currency_fixed


def test_the_first_top_up_settles_the_currency_for_good(app):
    user = person("nora")
    with db.transaction():
        assert customers.settle_currency(user.customer_id, "EUR") == "EUR"
        assert customers.settle_currency(user.customer_id, "PLN") == "EUR"


def test_a_changed_vat_id_is_unverified_again(app, superuser):
    user = person("nora", profile=replace(BERLIN, vat_id="DE136695976"))
    superuser.execute("update customers set vat_id_state = 'valid'")
    for vat_id, state in (("DE136695976", "valid"), ("DE129273398", "unverified"), ("", "none")):
        customers.update_profile(user.id, user.customer_id, replace(BERLIN, vat_id=vat_id), locale="en", timezone="UTC")
        assert customers.get(user.customer_id).vat_id_state == state


def test_promoting_changes_the_role_and_ends_sessions(app):
    user = person("nora")
    token = customers.open_session(user.id)
    assert customers.promote("nora", "support").role == "support"
    assert customers.load_session(token) is None
    assert customers.promote("nora", "customer").role == "customer"
    with pytest.raises(LookupError):
        customers.promote("nobody", "support")
    with pytest.raises(customers.Refused):
        customers.promote("nora", "emperor")
    person("agent", role="support")
    with pytest.raises(customers.Refused, match="no customer"):
        customers.promote("agent", "customer")


def test_the_history_says_what_happened(app):
    user = person("nora")
    customers.authenticate("nora", "wrong", ip="203.0.113.9", user_agent="curl/8")
    customers.close_session(customers.open_session(user.id, ip="198.51.100.7", user_agent="Firefox Linux"))
    events = customers.history(user.id, 10)
    assert [(event.kind, event.device) for event in events] == [("signed_out", None), ("signed_in", "Firefox on Linux"), ("sign_in_failed", "curl"), ("registered", None)]
    assert [event.kind for event in customers.history(user.id, 10, before=events[1].id)] == ["sign_in_failed", "registered"]


def test_tidying_leaves_what_is_in_use(app):
    user = person("nora")
    customers.authenticate("nora", "wrong")
    token = customers.open_session(user.id)
    customers.request_reset("nora")
    assert customers.tidy() == 0
    with clock.travel(clock.now() + timedelta(days=60)):
        assert customers.tidy() > 0
    assert customers.load_session(token) is None


@pytest.mark.parametrize(("seconds", "words"), [(1, "a minute"), (61, "2 minutes"), (7200, "120 minutes"), (7201, "3 hours"), (86_400, "24 hours")])
def test_a_wait_is_told_in_words(seconds, words):
    assert customers.RateLimited(seconds).wait == words


def test_the_page_says_how_long_the_wait_is(owner):
    answers = [owner.submit("/cards", {"consent": "1"}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [303] * 10 + [429]
    minutes = re.search(r"Wait (\d+) minutes, then try again. Nothing was changed.", answers[-1].text)
    assert minutes
    assert (int(minutes[1]) - 1) * 60 < int(answers[-1].headers["Retry-After"]) <= int(minutes[1]) * 60
