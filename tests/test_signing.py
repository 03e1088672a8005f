"""Another SECRET_KEY: what was signed before stays good while its key is among the fallbacks."""

import re
from dataclasses import replace

import pytest
from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

import config
from app import create_app, db, fx, payments, signing
from app.money import Money
from app.web import csrf
from tests.test_fx import friday  # noqa: F401 - a fixture

OLD, NEW, OTHER = "o" * 48, "n" * 48, "x" * 48


@pytest.fixture
def use(settings):
    """Make these the keys of the process: the present one, then those of before."""

    def keys(present: str, *before: str) -> config.Settings:
        changed = replace(settings, secret_key=present, secret_key_fallbacks=before)
        config.use(changed)
        return changed

    yield keys
    config.use(settings)


def test_the_present_key_signs_and_the_older_ones_verify(use):
    use(OLD)
    token = signing.serializer("s").dumps("value")
    use(NEW, OTHER, OLD)
    assert signing.serializer("s").loads(token) == "value"
    fresh = signing.serializer("s").dumps("value")
    for keys in ((NEW,), (OTHER, NEW)):
        use(*keys)
        assert signing.serializer("s").loads(fresh) == "value"
    for keys in ((OLD,), (NEW,)):
        use(*keys)
        with pytest.raises(BadData):
            signing.serializer("s").loads(token if keys == (NEW,) else fresh)
    use(NEW)
    with pytest.raises(BadData):
        signing.serializer("another purpose").loads(fresh)


def test_signatures_are_sha_256_and_those_of_sha_1_stay_good(use):
    use(NEW, OLD)
    assert len(signing.serializer("s").dumps("value").rpartition(".")[2]) == 43
    for key in (NEW, OLD):
        before = URLSafeSerializer(key, salt="s").dumps("value")
        assert len(before.rpartition(".")[2]) == 27
        assert signing.serializer("s").loads(before) == "value"
    with pytest.raises(BadData):
        signing.serializer("s").loads(URLSafeSerializer(OTHER, salt="s").dumps("value"))


def test_an_offer_of_a_rate_stays_good(friday, use):  # noqa: F811
    use(OLD)
    offer = fx.offer(Money(250_00, "USD"), "EUR")
    token = fx.seal(offer)
    use(NEW, OLD)
    assert fx.unseal(token) == offer
    assert fx.unseal(fx.seal(offer)) == offer
    use(NEW)
    assert fx.unseal(token) is None


def test_links_to_pay_stay_good(app, demo_customer, use):
    use(OLD)
    link = payments.ask(demo_customer.customer_id, "Anna", None)
    token = link.path.rpartition("/")[2]
    paid = payments.links.told_at("pay_1").rpartition("/")[2]
    use(NEW, OLD)
    assert payments.links.follow("topup", token) is not None
    assert payments.links._signer("payment").loads(paid) == "pay_1"
    use(NEW)
    assert payments.links.follow("topup", token) is None


@pytest.fixture
def rotated(app, settings, use):
    """The app after the key changed: the old one is a fallback."""
    app = create_app(use(NEW, OLD))
    yield app
    with app.app_context():
        db.forget_connections()


def cookie(key: str, digest: dict) -> str:
    signer = URLSafeTimedSerializer(
        key, salt="cookie-session", serializer=TaggedJSONSerializer(),
        signer_kwargs={"key_derivation": "hmac", **digest},
    )  # fmt: skip
    return signer.dumps({"csrf_token": "c" * 40})


@pytest.mark.parametrize(("key", "status"), [(OLD, 422), (NEW, 422), (OTHER, 400)])
def test_an_open_form_can_be_sent_after_the_change(rotated, key, status):
    client = rotated.test_client()
    client.set_cookie("session", cookie(key, {}))
    token = URLSafeTimedSerializer(key, salt="wtf-csrf-token").dumps("c" * 40)
    answer = client.post("/login", data={"csrf_token": token, "login": "x", "password": "y"})
    assert answer.status_code == status


def test_a_form_of_now_is_signed_by_the_new_key_alone(rotated):
    client = rotated.test_client()
    page = client.get("/login").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
    form = {"csrf_token": token, "login": "x", "password": "y"}
    assert client.post("/login", data=form).status_code == 422
    assert signing.timed(config.current(), "wtf-csrf-token").loads(token)
    with pytest.raises(BadData):
        URLSafeTimedSerializer(OLD, salt="wtf-csrf-token").loads(token)
    another = rotated.test_client().post("/login", data=form)
    assert another.status_code == 400  # another session's
    forged = {**form, "csrf_token": token[:-2]}
    assert client.post("/login", data=forged).status_code == 400
    assert client.post("/login", data={**form, "csrf_token": ""}).status_code == 400


def test_behind_https_a_form_comes_from_our_own_page(app, settings):
    secure = replace(settings, base_url="https://billing.example")
    house = create_app(secure)
    try:
        client = house.test_client()
        base = {"base_url": "https://billing.example"}
        page = client.get("/login", **base).text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        form = {"csrf_token": token, "login": "x", "password": "y"}
        for referrer, status in (
            ("https://billing.example/login", 422),
            ("https://evil.example/login", 400),
            ("", 400),
        ):
            headers = {"Referer": referrer} if referrer else {}
            answer = client.post("/login", data=form, headers=headers, **base)
            assert answer.status_code == status
    finally:
        config.use(settings)
        with house.app_context():
            from app import db

            db.forget_connections()


def test_the_extension_has_no_signer_of_its_own():
    assert type(csrf).protect is not type(csrf).__mro__[1].protect
