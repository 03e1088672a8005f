"""Secrets that travel: whose they are, what for, how long, how large."""

import re
from dataclasses import replace
from datetime import timedelta
from hashlib import md5, sha1, sha512

import pytest
from flask import Flask
from itsdangerous import URLSafeSerializer, URLSafeTimedSerializer

import config
from app import clock, customers, db, fx, payments
from app.customers import passwords, tokens
from app.money import Money
from tests.conftest import PASSWORD, person
from tests.pay import publish_rates
from tests.test_access_matrix import House

LINKS = {
    "bill_link": "/pay/{}",
    "topup_link": "/top-up/{}",
    "paid_link": "/paid/{}",
    "verify": "/verify/{}",
    "reset": "/password/reset/{}",
}


def test_a_link_of_one_purpose_opens_no_other(house: House) -> None:
    client = house.app.test_client()
    opened = {}
    for thing in LINKS:
        for purpose, path in LINKS.items():
            status = client.get(path.format(house.things.named(thing))).status_code
            opened[thing, purpose] = status
    assert {pair for pair, status in opened.items() if status == 200} == {(thing, thing) for thing in LINKS}
    assert {status for (thing, purpose), status in opened.items() if thing != purpose} <= {404, 410}


def test_a_link_of_another_key_host_salt_or_algorithm_opens_nothing(house: House, settings: config.Settings) -> None:
    client = house.app.test_client()
    key = db.scalar("select key from links where purpose = 'topup' and revoked_at is null order by id limit 1")
    salt = f"topup link of {settings.host}"
    assert client.get("/top-up/" + URLSafeSerializer(settings.secret_key, salt=salt).dumps(key)).status_code == 200
    forged = [
        URLSafeSerializer("x" * 48, salt=salt).dumps(key),
        URLSafeSerializer(settings.secret_key, salt="topup link of evil.example").dumps(key),
        URLSafeSerializer(settings.secret_key, salt=f"bill link of {settings.host}").dumps(key),
        URLSafeSerializer(settings.secret_key, salt=salt, signer_kwargs={"digest_method": md5}).dumps(key),
        URLSafeSerializer(settings.secret_key, salt=salt, signer_kwargs={"digest_method": sha512}).dumps(key),
        URLSafeSerializer(settings.secret_key, salt=salt, signer_kwargs={"key_derivation": "none"}).dumps(key),
        URLSafeTimedSerializer(settings.secret_key, salt=salt).dumps(key),
        URLSafeSerializer(settings.secret_key, salt=salt).dumps(key).rpartition(".")[0],
        URLSafeSerializer(settings.secret_key, salt=salt).dumps(key).rpartition(".")[0] + ".",
        "eyJhbGciOiJub25lIn0.e30.",
    ]
    assert [client.get(f"/top-up/{token}").status_code for token in forged] == [404] * len(forged)


def test_every_bit_of_a_links_signature_counts(house: House) -> None:
    client, token = house.app.test_client(), house.things.topup_link
    signature = len(token) - len(token.rpartition(".")[2])
    for place in range(0, len(token) - 1, 3):
        other = "A" if token[place] != "A" else "B"
        assert client.get(f"/top-up/{token[:place]}{other}{token[place + 1 :]}").status_code == 404, place
    assert signature > 20


def test_a_rate_is_sealed_for_its_customer_and_its_time(app: Flask) -> None:
    publish_rates()
    offer = fx.offer(Money.of("25.00", "USD"), "EUR")
    token = fx.seal(offer)
    assert fx.unseal(token)
    for broken in (token[:-2], token[1:], token.replace(".", ",", 1), ""):
        assert fx.unseal(broken) is None
    with clock.travel(clock.now() + timedelta(minutes=16)):
        assert fx.unseal(token) is None


def test_mailed_links_hold_256_bits_and_the_database_their_digest(app: Flask) -> None:
    user = person("nora")
    with db.transaction():
        token = tokens.issue("reset", user.id, user.email)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    row = db.row("select id, expires_at, created_at from tokens order by created_at desc limit 1")
    assert row
    assert bytes(row.id) == tokens.digest(token)
    assert len(row.id) == 32
    assert row.expires_at - row.created_at == timedelta(minutes=30)
    assert len({customers.open_session(user.id) for _ in range(20)}) == 20


def test_passwords_are_kept_by_argon2id_with_todays_parameters(app: Flask) -> None:
    stored = passwords.hash_password(PASSWORD)
    found = re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$", stored)
    assert found
    memory, times, lanes = (int(number) for number in found.groups())
    assert memory >= 19_456
    assert times >= 2
    assert lanes == 1
    assert passwords.hash_password(PASSWORD) != stored
    user = person("nora")
    assert db.scalar("select password_hash from users where id = %(id)s", id=user.id).startswith("$argon2id$")


def test_a_key_or_a_password_is_never_shortened_or_changed(app: Flask) -> None:
    for text in (" blank at both ends ", "x9\0k2mQ7pLz4w", "ÀÉ\u0308 voilà quelle nuit", "q7" * 500 + "z"):
        stored = passwords.hash_password(text)
        assert passwords.verify_password(text, stored)
        assert not passwords.verify_password(text[:-1], stored)
        assert not passwords.verify_password(text.upper() if text != text.upper() else text.lower(), stored)
        assert not passwords.verify_password(text + " ", stored)


def test_sessions_survive_no_forged_cookie(app: Flask, settings: config.Settings) -> None:
    person("nora")
    client = app.test_client()
    for value in ("", "x" * 43, "x" * 4000, "null", "'or'1'='1", "eyJhbGciOiJub25lIn0.e30."):
        client.set_cookie("sid", value)
        assert client.get("/security").status_code == 303
    forged = URLSafeTimedSerializer("x" * 48, salt="cookie-session", signer_kwargs={"key_derivation": "hmac", "digest_method": sha1})
    client.set_cookie("session", str(forged.dumps({"_user_id": "1", "csrf_token": "x" * 40})))
    client.delete_cookie("sid")
    assert client.get("/security").status_code == 303
    assert settings.secret_key not in client.get("/login").text


def test_a_key_that_is_short_or_missing_stops_the_start() -> None:
    given = {"DATABASE_URL": "postgresql://localhost/x"}
    for key in ("", "k" * 31, "ключ" * 3):
        with pytest.raises(config.ConfigError, match="at least 32 bytes"):
            config.load({**given, "SECRET_KEY": key})
    assert config.load({**given, "SECRET_KEY": "k" * 32}).secret_key == "k" * 32


def test_another_key_makes_every_signed_link_void(house: House, settings: config.Settings) -> None:
    token = house.things.bill_link
    assert payments.follow("bill", token)
    config.use(replace(settings, secret_key="y" * 48))
    try:
        assert payments.follow("bill", token) is None
    finally:
        config.use(settings)


def test_another_host_makes_every_signed_link_void(house: House, settings: config.Settings) -> None:
    token = house.things.bill_link
    config.use(replace(settings, base_url="https://other.example"))
    try:
        assert payments.follow("bill", token) is None
    finally:
        config.use(settings)
