"""Fields that a form does not have, names encoded twice, types and steps that nobody should send."""

from app import clock, customers, db, payments
from app.money import Money
from tests.conftest import PASSWORD, Browser, person
from tests.pay import publish_rates, topup
from tests.test_access_matrix import NEW_PASSWORD, TABLE, House
from tests.test_bad_input import forget_tries

CANARY = "canary-of-a-field"
NUMBER = "987654321987"


def columns() -> list[str]:
    """The name of every column of the database."""
    sql = "select distinct column_name as name from information_schema.columns where table_schema = 'public'"
    return [row.name for row in db.rows(sql)]


def everything() -> str:
    """All rows of all tables, as text."""
    tables = [row.tablename for row in db.rows("select tablename from pg_tables where schemaname = 'public'")]
    whole = " union all ".join(f"select coalesce(string_agg(t::text, ' '), '') as text from {name} t" for name in tables)
    return " ".join(row.text for row in db.rows(whole))


ENDING = (
    *("sandbox.choose", "invoices.unshare", "invoices.cancel", "add_funds.revoke_link", "refunds.withdraw"),
    *("auth.new_password", "profile.change_password", "auth.reset", "auth.undo_email"),
)
"""Forms after which others have nothing to do any more, in their order."""
CHANGED = {"current": NEW_PASSWORD, "password": "third-quiet-harbour"}
"""The password is another one by then."""
POSTS = [f"POST {endpoint}" for endpoint in ("webhooks.receive", *ENDING)]
POSTS = [*sorted(name for name in TABLE if name.startswith("POST") and name not in POSTS), *POSTS[1:]]


def test_fields_that_a_form_does_not_have_change_nothing(house: House) -> None:
    extra = sorted({*columns(), "is_admin", "is_staff", "user_id", "customer_id", "account_id", "_method", "id"})
    typed = {"name", "company", "street", "postcode", "city", "login", "email", "reason", "answer", "note", "label", "said"}
    typed |= {"amount", "currency", "country", "locale", "timezone", "kind", "method", "iban", "holder", "bank_reference"}
    typed |= {"vat_id", "po_number", "billing_email", "display_currencies", "password", "number", "customer", "beneficiary"}
    assert {"role", "status", "verified_at", "balance", "paid", "credited", "approvals_needed", "password_hash"} <= set(extra)
    support = db.rows("select login from users where role = 'support' order by id")
    for name in POSTS:
        forget_tries()
        route = TABLE[name]
        who = "owner" if route.audience != "staff" else "staff"
        client = house.client(who)
        added = {field: NUMBER if field.endswith("id") else CANARY for field in extra if field not in {*typed, *route.data}}
        wanted = route.expected("owner" if who == "owner" else "staff")
        sent = {**route.data, **(CHANGED if name == "POST profile.change_password" else {})}
        answer = client.submit(house.path(name), {**sent, **added})
        assert answer.status_code == wanted, f"{name}: {answer.status}"
    left = everything()
    assert CANARY not in left
    assert NUMBER not in left
    assert db.rows("select login from users where role = 'support' order by id") == support


def test_a_name_that_is_encoded_twice_is_another_name(house: House) -> None:
    owner = house.clients["owner"]
    once = house.things.paid.replace("-", "%2D")
    twice = house.things.paid.replace("-", "%252D")
    assert owner.get(f"/invoices/{once}").status_code == 200
    assert owner.get(f"/invoices/{twice}").status_code == 404
    odd = "100%25 &amp;lt; %3Cb%3E \\u003c"
    assert owner.submit("/profile", {**TABLE["POST profile.save"].data, "street": odd}).status_code == 303
    assert db.scalar("select street from customers where street <> '' order by id limit 1") == odd


def test_what_is_typed_counts_as_text_whatever_type_it_claims(house: House) -> None:
    """An amount is read by one function; what is no text of an amount is refused and writes nothing."""
    before = db.scalar("select count(*) from bills")
    for amount in ("true", "null", "[10]", '{"$gt": 0}', "0x10", "1e3", "10;20", "10\u0000", "١٠", "-10", str(2**63), "1" + "0" * 30):
        answer = house.clients["owner"].submit("/add-funds", {"amount": amount, "currency": "EUR"})
        assert answer.status_code in {400, 422}, amount
    for field in ("amount[]", "amount[0]", "amount.value"):
        assert house.clients["owner"].submit("/add-funds", {field: "10", "currency": "EUR"}).status_code == 422
    assert db.scalar("select count(*) from bills") == before


def test_numbers_beyond_the_databases_range_name_nothing(house: House) -> None:
    owner = house.clients["owner"]
    for number in (str(2**63), str(2**63 - 1), "1" + "0" * 30, "-1", "0"):
        assert owner.get(f"/notifications/{number}").status_code == 404, number
        assert owner.get(f"/notifications?before={number}").status_code == 200, number
        assert owner.get(f"/security/history?before={number}").status_code == 200, number
        assert owner.get(f"/invoices?min={number}&before={number}").status_code in {200, 422}, number


def test_a_step_that_is_left_out_is_not_taken(house: House) -> None:
    """Paying needs a bill, a method and the rate that was shown; deciding needs a request that waits."""
    publish_rates()
    owner, staff = house.clients["owner"], house.clients["staff"]
    number = house.things.unpaid
    assert owner.submit(f"/invoices/{number}/pay", {}).status_code == 422
    assert owner.submit(f"/invoices/{house.things.paid}/pay", {"method": "sandbox-card"}).status_code in {303, 422}
    assert owner.submit("/invoices/PF-2026-999999/pay", {"method": "sandbox-card"}).status_code == 404
    user = house.users["owner"]
    assert user
    foreign = topup(user, Money.of("25.00", "USD"))
    for quote in ("", "x" * 40):
        answer = owner.submit(f"/invoices/{foreign.number}/pay", {"method": "sandbox-card", "quote": quote})
        assert answer.status_code == 422
    assert db.scalar("select count(*) from payments where bill_id = %(id)s", id=foreign.id) == 0
    refund = house.things.refund
    assert staff.submit(f"/staff/refunds/{refund}", {"decision": "paid", "bank_reference": "x"}).status_code == 422
    assert db.scalar("select state from refunds where number = %(number)s", number=refund) == "requested"


def test_a_customer_decides_nothing_of_its_own_refund(house: House) -> None:
    owner = house.clients["owner"]
    for decision in ("approve", "decline", "paid"):
        answer = owner.submit(f"/staff/refunds/{house.things.refund}", {"decision": decision, "answer": "x"})
        assert answer.status_code == 404
    assert payments.LIMITS["EUR"].minimum == 500
    answer = owner.submit("/add-funds", {"amount": "4.99", "currency": "EUR"})
    assert answer.status_code == 422


def sign_in_page(client: Browser, login: str, password: str) -> int:
    """The status that the login answers with."""
    return client.submit("/login", {"login": login, "password": password}).status_code


def test_a_password_does_not_grow_old(house: House) -> None:
    user = house.users["owner"]
    assert user
    with clock.travel(clock.now().replace(year=clock.now().year + 9)):
        assert sign_in_page(house.client("anonymous"), user.login, PASSWORD) == 303


def test_a_forwarded_address_is_nobodys(house: House) -> None:
    """Without a trusted proxy the peer's address counts, whatever a header says."""
    client = house.client("anonymous")
    headers = {"X-Forwarded-For": "203.0.113.99", "X-Real-IP": "203.0.113.98", "Forwarded": "for=203.0.113.97"}
    data = {"login": "anna", "password": PASSWORD}
    with client.session_transaction() as session:
        session["csrf_token"] = "c" * 40
    answer = client.submit("/login", data, headers=headers, environ_base={"REMOTE_ADDR": "198.51.100.20"})
    assert answer.status_code == 303
    assert db.scalar("select ip from sessions order by created_at desc limit 1") == "198.51.100.20"
    assert "203.0.113" not in everything()


def test_a_foreign_host_or_scheme_in_a_header_changes_no_link(house: House) -> None:
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp", "X-Forwarded-Prefix": "/evil"}
    answer = house.client("anonymous").submit("/password/reset", {"login": "anna"}, headers=headers)
    assert answer.location == "/password/reset?sent"
    assert "evil" not in everything()


def test_only_exact_roles_open_supports_pages(house: House) -> None:
    user = person("quentin", name="support")
    client = house.app.test_client()
    client.set_cookie("sid", customers.open_session(user.id))
    for path in ("/staff/refunds", "/staff/held", "/staff/bank", "/staff/disputes"):
        for headers in ({}, {"X-Role": "support", "X-User-ID": "1", "X-Original-URL": "/login", "X-Rewrite-URL": "/login"}):
            assert client.get(path, headers=headers).status_code == 404
    assert client.get("/login", headers={"X-Original-URL": "/staff/refunds"}).status_code == 303
