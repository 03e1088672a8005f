"""Logins nobody may take, and names that never become a link in somebody's mail."""

import re

import pytest

import config
from app import customers, db, mail, remittance
from app.customers import names
from app.invoicing import series
from tests import letters
from tests.conftest import PASSWORD_HASH, person
from tests.test_architecture import house
from tests.test_customers import GOOD
from tests.trade import offer_plans

NUMBERS = [
    "inv-2026-000269", "inv2026000269", "pf-2026-000050", "tu-2026-000001", "rc-2026-000001", "cn-2026-000001", "rr-2026-000003",
    "rf-000007", "hm-000001", "br-000001", "pay-20261130-0001", "rf18539007547034", "rf18abc539007547", "4711", "2026-11", "12-11-2026",
    "nov-2026", "november2026", "2026-november", "november", "1nov2026", "listopad", "maerz2026", "q4-2026", "2026-q4", "kw48",
    "de89370400440532013000",
]  # fmt: skip
OURS = [
    "northbyte", "northbyte-support", "northbyteberlin", "team-northbyte", "n0rthbyte", "support", "support1", "1support", "supp0rt",
    "admin2", "admin", "administrator", "billing-team", "the-support", "refunds", "noreply", "root", "security.team", "helpdesk",
]  # fmt: skip
LINKS = ["www.evil.example", "evil.com", "evil.de", "go.evil.shop"]
PEOPLE = [
    "anna", "nora", "anna.kowalska", "jan.kowalski", "acme", "acme-billing", "pavel", "brunhilde", "pfeiffer", "maya", "max.mustermann",
    "april.jones", "december.song", "customer-7x", "abc123", "decker22", "keller-studio", "payal", "inverness3", "may-lin", "rcfan",
]  # fmt: skip
BAIT = ["www.evil.example,", "evil.com", "Go to evil.example now", "http://x", "a@b.example", "Anna\nB", "Anna\r\nBcc: x", "Anna\x1b[1m", "Anna\u202eevil", "Anna\u2028B"]


@pytest.mark.parametrize("login", NUMBERS + OURS + LINKS)
def test_logins_that_read_as_a_number_as_ours_or_as_a_link_are_refused(app, login):
    assert customers.login_problem(login) == names.CANNOT
    with pytest.raises(customers.Refused, match="cannot be used") as refused:
        customers.register(login, "nora@example.com", GOOD)
    assert refused.value.field == "login"


@pytest.mark.parametrize("login", PEOPLE)
def test_logins_of_people_are_taken(app, login):
    assert customers.login_problem(login) is None
    assert remittance.names_money(login)


def test_a_refused_login_says_nothing_of_whether_somebody_has_it(app, anonymous):
    sentences = []
    for _ in range(2):
        answer = anonymous.submit("/register", {"login": "nov-2026", "email": "nora@example.com", "password": GOOD})
        sentences.append(re.search(r'id="login-error"[^>]*>([^<]+)', answer.text)[1])
        person("nov-2026") if len(sentences) == 1 else None
    assert sentences == [names.CANNOT] * 2


def test_what_we_sell_is_no_login(app):
    offer_plans()
    code = db.scalar("select code from plans order by id limit 1")
    for login in (code, f"{code}-7", re.sub(r"\d", "", code).strip("-") + "99"):
        if len(login) > 2:
            assert customers.login_problem(login) == names.CANNOT


@pytest.mark.parametrize("login", NUMBERS)
def test_a_login_that_reads_as_a_number_names_no_money(app, login):
    assert not remittance.names_money(login)


def test_who_has_such_a_login_keeps_it(app):
    person("nov-2026")
    assert customers.authenticate("nov-2026", "quiet-harbour-lamp")


def test_every_series_of_numbers_is_known():
    prefixes = {prefix.lower() for prefix in series.PREFIXES.values()}
    written = re.compile(r"""['"}]([A-Z]{2,4})-(?:['"] \|\||\{)""")
    found = {prefix.lower() for source in house("app/**/*.py") for prefix in written.findall(source.text)}
    assert {"rf", "hm", "br", "pay"} <= found
    assert prefixes | found <= remittance.NUMBER_PREFIXES


@pytest.mark.parametrize("name", BAIT)
def test_names_that_would_be_a_link_or_a_second_line_are_refused(app, name):
    assert customers.name_problem(name)
    with pytest.raises(customers.Refused):
        customers.create_user("nora", "nora@example.com", GOOD, name=name)
    user = person("otto")
    with pytest.raises(customers.Refused) as refused:
        customers.update_profile(user.id, user.customer_id, customers.Profile(company=name), locale="en", timezone="UTC")
    assert refused.value.field == "company"


@pytest.mark.parametrize("name", ["Anna Kowalska", "Dr. Müller", "J.R.R. Tolkien", "St.Gallen", "O'Neill", "Żółw GmbH & Co.KG", "S.A.", "Sp. z o.o.", "e.V."])
def test_names_of_people_are_taken(name):
    assert customers.name_problem(name) is None


def test_a_company_may_be_called_like_its_domain_when_its_legal_form_follows():
    assert customers.name_problem("Booking.com B.V.", company=True) is None
    assert customers.name_problem("Allegro.pl Sp. z o.o.", company=True) is None
    for name in ("Booking.com", "www.evil.com GmbH", "evil.com/win Ltd", "me@evil.com GmbH"):
        assert customers.name_problem(name, company=True)


@pytest.mark.parametrize("column", ["users.name", "customers.name", "customers.company"])
def test_the_database_refuses_a_name_of_two_lines(app, superuser, column):
    person("nora")
    table, name = column.split(".")
    with pytest.raises(Exception, match="one_line"):
        superuser.execute(f"update {table} set {name} = E'Anna\\nBcc'")


AUTOLINK = re.compile(r"https?://\S+|www\.\S+|[\w-]+(?:\.[\w-]+)*\.(?:com|example|de)\b|\S+@\S+", re.IGNORECASE)


def test_no_mail_makes_a_link_of_what_somebody_is_called(app):
    """Also of names from before they were refused, and in every mail there is."""
    lures = {"name": "www.evil.com, click", "login": "www.evil.com", "said": "see http://evil.com/x or me@evil.com"}
    for kind, samples in letters.SAMPLES.items():
        for number, sample in enumerate(samples):
            facts = {name: value for name, value in {**sample, **{key: text for key, text in lures.items() if key in sample}}.items() if name != "attachments"}
            attached = {"attachments": []} if "attachments" in sample else {}
            with db.transaction():
                row = mail._row(mail.Letter(kind, "victim@example.com", "en", f"{kind}:{number}", None, facts, **attached))
            for body in (row["text"], row["html"], row["subject"]):
                assert "evil.com" not in body, kind
                assert [found for found in AUTOLINK.findall(body) if "evil" in found] == []


def test_a_stranger_cannot_greet_a_victim_with_a_link(app, anonymous):
    answer = anonymous.submit("/register", {"login": "www.evil.example", "email": "victim@example.com", "password": GOOD})
    assert answer.status_code == 422
    assert mail.newest(1) == []
    with db.transaction():
        customers.people.insert_user("www.evil.example", "victim@example.com", PASSWORD_HASH)
    customers.request_reset("victim@example.com")
    (letter,) = mail.newest(1)
    assert "Hello www evil example," in letter.text
    assert {found for found in AUTOLINK.findall(letter.text) if config.current().base_url not in found} <= {config.current().seller.email + ".", config.current().seller.email}


def test_who_has_no_name_is_greeted_by_the_address_the_mail_goes_to(app):
    facts = {**letters.SAMPLES["saved_card"][0], "name": "anna@example.com"}
    with db.transaction():
        mail.send("saved_card", "anna@example.com", locale="en", key="k", **facts)
    assert "Hello anna@example.com," in mail.newest(1)[0].text
