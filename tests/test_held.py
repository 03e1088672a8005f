"""Money that came and could not be credited by itself: listed, let out once, to the customer or back to whoever paid, and told of at each step."""

import importlib.util
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from flask import Flask

from app import bank, clock, db, ledger, mail, payments, refunds, wallet
from app.customers import User
from app.gateways.base import DisputeSnapshot, GatewayError, RefundSnapshot, Snapshot
from app.money import Money
from app.payments import Payment
from app.refunds import RefundError
from tests.conftest import person
from tests.money_helpers import EUR, USD
from tests.pay import again, begin, carry, choose, processor, publish_rates, topup
from tests.test_refunds import IBAN, RITA, SAM, anna, book, together
from tests.world import hold

__all__ = ["anna"]


def news(payment: Payment, came: Money, **more: object) -> Snapshot:
    """What the processor says of a payment that was paid."""
    return replace(Snapshot(payment.gateway_reference or "", payment.public_id, "paid", received=came, method_label="Visa •••• 4242"), **more)  # type: ignore[arg-type]


def arrived(app: Flask, user: User, asked: Money, came: Money, method: str = "sandbox-card") -> tuple[Payment, str]:
    """A payment of which another amount came than was asked for, at the pretend processor too; and the number it is held under."""
    payment = begin(topup(user, asked), method)
    choose(app, payment, "approve")
    with db.transaction():
        db.execute("update sandbox_sessions set received = %(came)s where charge_id = %(id)s", came=came.minor, id=payment.public_id)
    number = hold(payment, came)
    carry(app)
    return again(payment), number


def told(kind: str) -> list[str]:
    """The subjects of the mails of a kind, oldest first, in plain blanks."""
    return [letter.subject.replace("\N{NO-BREAK SPACE}", " ") for letter in reversed(mail.newest(30)) if letter.kind == kind]


def test_it_is_listed_told_and_credited_as_what_came_with_a_receipt(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    (case,) = refunds.held_money()
    assert (payment.state, case.number, case.amount, case.asked, case.owner) == ("review", number, EUR("60"), EUR("50"), "anna")
    assert (wallet.state(anna.customer_id).available, book("suspense", "EUR")) == (0, 60_00)
    assert told("payment_held") == [f"Your payment of {payment.bill_number} arrived and is being looked at"]
    assert refunds.release(number, "credit", actor=SAM, reason="The customer says so") == "credited"
    payment = again(payment)
    assert (payment.state, payment.credited, wallet.state(anna.customer_id).available, book("suspense", "EUR")) == ("paid", 60_00, 60_00, 0)
    assert payments.bill_of(payment).status == "paid"
    (letter,) = [letter for letter in mail.newest(9) if letter.kind == "payment_confirmed"]
    assert len(letter.attachments) == 2
    steps = refunds.held_case(number).steps
    assert [(step.state, step.actor) for step in steps] == [("held", "sandbox"), ("held", SAM), ("credited", SAM)]
    assert "The customer says so" in steps[1].note
    assert refunds.held_money() == []
    assert [case.number for case in refunds.held_money(over=True)] == [number]


def test_less_than_the_bill_is_credited_and_the_rest_stays_to_be_paid(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("40"))
    refunds.release(number, "credit", actor=SAM, reason="Part")
    bill = payments.bill_of(payment)
    assert (wallet.state(anna.customer_id).available, bill.status, payments.due(bill)) == (40_00, "unpaid", EUR("10"))


def test_another_currency_is_credited_at_the_rate_of_now_and_pays_the_bill_by_what_it_became(app, anna):
    publish_rates()
    payment, number = arrived(app, anna, EUR("50"), USD("50"))
    refunds.release(number, "credit", actor=SAM, reason="Dollars")
    assert (wallet.state(anna.customer_id).available, payments.bill_of(payment).status) == (46_13, "unpaid")
    assert payments.due(payments.bill_of(payment)) == EUR("3.87")
    assert "at 1 USD" in again(payment).rate_note


def test_eight_at_once_credit_it_once(app, anna):
    _, number = arrived(app, anna, EUR("50"), EUR("60"))
    said = together(app, lambda place: refunds.release(number, "credit" if place % 2 else "return", actor=(SAM, RITA)[place % 2], reason="x"))
    assert len([word for word in said if word in ("credited", "returning")]) == 1
    refunds.send_back_due()
    assert wallet.state(anna.customer_id).available == (60_00 if "credited" in said else 0)
    assert book("suspense", "EUR") == 0


def test_it_goes_back_by_the_processor_once_and_the_news_of_it_changes_nothing(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    fee = again(payment).fee or 0
    assert refunds.release(number, "return", actor=SAM, reason="Not ours") == "returning"
    assert together(app, lambda _: refunds.send_back(number)).count("returned") == 8
    assert (again(payment).state, book("suspense", "EUR"), book("gateway", "EUR", "sandbox")) == ("returned", 0, fee)
    assert told("payment_held")[-1] == "€ 60.00 went back to you"
    for _ in range(2):
        carry(app)
        payments.look_at(payment.public_id)
    assert (again(payment).state, wallet.state(anna.customer_id).available, db.scalar("select count(*) from refunds")) == ("returned", 0, 0)
    with pytest.raises(RefundError, match="returned already"):
        refunds.release(number, "credit", actor=SAM, reason="x")


def test_a_lost_answer_is_made_good_and_a_return_that_fails_is_held_again(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"), "other-card")
    refunds.release(number, "return", actor=SAM, reason="Not ours")
    processor(app).down = True
    with pytest.raises(GatewayError):
        refunds.send_back(number)
    assert refunds.send_back_due() == 0
    processor(app).down = False
    assert refunds.send_back_due() == 1
    refund = db.scalar("select refund from sandbox_refunds")
    processor(app).move_refund(refund, "failed", "The card is closed")
    carry(app)
    case = refunds.held_case(number)
    assert (case.state, again(payment).state, book("suspense", "EUR"), case.detour) == ("held", "review", 60_00, "The processor could not send it back.")
    for actor in (SAM, RITA):
        state = refunds.release(number, "return", actor=actor, reason="To their account", iban=IBAN if actor == SAM else "", holder="Anna Kowalska" if actor == SAM else "")
    assert state == "returning"
    refunds.mark_returned(number, reference="TX-1", actor=SAM)
    assert (again(payment).state, book("suspense", "EUR"), book("suspense", "EUR", "bank")) == ("returned", 0, 60_00)
    assert "Anna Kowalska, DE89 … 3000" in mail.newest(1)[0].text


def test_coins_go_back_by_hand_only_and_by_two_people(app, anna):
    _, number = arrived(app, anna, EUR("50"), EUR("60"), "other-crypto")
    with pytest.raises(RefundError) as refused:
        refunds.release(number, "return", actor=SAM, reason="Not ours")
    assert refused.value.field == "iban"
    assert refunds.release(number, "return", actor=SAM, reason="Not ours", iban=IBAN, holder="Anna") == "held"
    with pytest.raises(RefundError, match="Another person"):
        refunds.release(number, "return", actor=SAM, reason="Again")
    assert refunds.release(number, "credit", actor=SAM, reason="No, theirs") == "credited", "another decision begins anew, and one person may credit this much"


def test_what_stands_in_a_file_for_the_bank_is_not_asked_to_be_transferred_again(app, anna, staff):
    _, number = arrived(app, anna, EUR("50"), EUR("60"), "other-crypto")
    for actor in (SAM, RITA):
        refunds.release(number, "return", actor=actor, reason="Not ours", iban=IBAN, holder="Anna")
    assert f"with {number} as its reference" in staff.get(f"/staff/held/{number}").text
    assert bank.payouts.export("EUR")
    page = staff.get(f"/staff/held/{number}").text
    assert "do not transfer it once more" in page
    assert f"with {number} as its reference" not in page


def test_large_sums_need_two_people_of_one_mind(app, anna):
    payment, number = arrived(app, anna, EUR("900"), EUR("901"))
    assert refunds.release(number, "credit", actor=SAM, reason="Theirs") == "held"
    assert refunds.release(number, "return", actor=RITA, reason="Not theirs") == "held"
    assert refunds.release(number, "credit", actor=RITA, reason="Well") == "held"
    assert refunds.release(number, "credit", actor=SAM, reason="Theirs") == "credited"
    assert again(payment).credited == 901_00


@pytest.mark.parametrize(("decision", "reason", "says"), [("burn", "x", "Choose"), ("credit", " ", "why"), ("dismiss", "x", "cannot be put aside")])
def test_what_is_no_decision_is_refused_and_changes_nothing(app, anna, decision, reason, says):
    _, number = arrived(app, anna, EUR("50"), EUR("60"))
    with pytest.raises(RefundError, match=says):
        refunds.release(number, decision, actor=SAM, reason=reason)
    with pytest.raises(RefundError, match="There is no held money"):
        refunds.release("HM-9", "credit", actor=SAM, reason="x")
    assert (len(refunds.held_case(number).steps), book("suspense", "EUR")) == (1, 60_00)


def test_news_without_money_of_ours_is_put_aside_with_a_reason(app, anna):
    payment = begin(topup(anna, EUR("50")))
    payments.apply("sandbox", news(payment, EUR("50"), fault="another account"))
    (case,) = refunds.held_money()
    assert (case.amount, book("suspense", "EUR")) == (None, 0)
    with pytest.raises(RefundError, match="only be put aside"):
        refunds.release(case.number, "credit", actor=SAM, reason="x")
    assert refunds.release(case.number, "dismiss", actor=SAM, reason="Test mode") == "dismissed"
    payments.apply("sandbox", news(payment, EUR("50")))
    assert (again(payment).state, wallet.state(anna.customer_id).available) == ("dismissed", 0)
    assert told("payment_held")[-1].endswith("is closed")


def test_more_money_that_was_held_counts_once_it_is_let_out(app, anna):
    payment = begin(topup(anna, EUR("50")))
    payments.apply("sandbox", news(payment, EUR("30"), exact=False))
    payments.apply("sandbox", news(payment, EUR("50"), exact=False, doubt="the rate ran away"))
    bill = payments.bill_of(payment)
    assert (wallet.state(anna.customer_id).available, payments.due(bill)) == (30_00, EUR("20")), "what is held pays nothing yet"
    (case,) = refunds.held_money()
    refunds.release(case.number, "credit", actor=SAM, reason="Fine")
    assert (wallet.state(anna.customer_id).available, payments.bill_of(payment).status, again(payment).credited) == (50_00, "paid", 50_00)
    payments.apply("sandbox", news(payment, EUR("50"), exact=False))
    assert wallet.state(anna.customer_id).available == 50_00
    assert len(told("payment_confirmed")) == 2


def test_what_leaves_at_the_processor_without_us_is_no_longer_held(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    for _ in range(2):
        payments.apply("sandbox", news(payment, EUR("60"), refunds=(RefundSnapshot("re_x", "settled", EUR("60")),)))
    assert (refunds.held_case(number).state, again(payment).state, book("suspense", "EUR")) == ("returned", "returned", 0)


def test_what_left_without_us_and_comes_back_is_held_again(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    for state, stands in (("settled", "returned"), ("failed", "held"), ("failed", "held")):
        payments.apply("sandbox", news(payment, EUR("60"), refunds=(RefundSnapshot("re_x", state, EUR("60"), "closed"),)))  # type: ignore[arg-type]
        assert (refunds.held_case(number).state, book("suspense", "EUR")) == (stands, 0 if stands == "returned" else 60_00)
    assert [str(fault) for fault in ledger.check()] == []
    assert told("payment_held")[1:] == ["€ 60.00 went back to you", "€ 60.00 did not reach you"]


def test_a_dispute_of_held_money_takes_it_and_gives_it_back_when_won(app, anna):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    for state, stands in (("open", "returned"), ("open", "returned"), ("won", "held"), ("won", "held")):
        payments.apply("sandbox", news(payment, EUR("60"), disputes=(DisputeSnapshot("du_x", state, EUR("60")),)))  # type: ignore[arg-type]
        assert (refunds.held_case(number).state, book("suspense", "EUR")) == (stands, 0 if stands == "returned" else 60_00)
    assert refunds.release(number, "credit", actor=SAM, reason="Won") == "credited"
    assert [str(fault) for fault in ledger.check()] == []


# The pages and the commands


def test_the_customer_is_told_that_it_arrived(app, anna, owner):
    payment, number = arrived(app, anna, EUR("50"), EUR("60"))
    page = owner.get(f"/payments/{payment.public_id}").text.replace("\N{NO-BREAK SPACE}", " ")
    assert "€ 60.00 arrived, and we are looking at it" in page
    assert "€ 50.00 was asked for" in page
    refunds.release(number, "return", actor=SAM, reason="Not ours")
    refunds.send_back_due()
    assert "€ 60.00 went back" in owner.get(f"/payments/{payment.public_id}").text.replace("\N{NO-BREAK SPACE}", " ")


def test_support_decides_on_the_page(app, anna, owner, staff):
    _, number = arrived(app, anna, EUR("50"), EUR("60"))
    assert owner.get("/staff/held").status_code == owner.submit(f"/staff/held/{number}", {"decision": "credit", "reason": "mine"}).status_code == 404
    assert number in staff.get("/staff/held").text
    refused = staff.submit(f"/staff/held/{number}", {"decision": "credit", "reason": ""})
    assert (refused.status_code, "Write down why." in refused.text) == (422, True)
    assert staff.submit(f"/staff/held/{number}", {"decision": "burn", "reason": "x"}).status_code == 400
    assert staff.submit(f"/staff/held/{number}", {"decision": "credit", "reason": "Theirs"}).status_code == 303
    assert "Nothing waits" in staff.get("/staff/held").text
    assert number in staff.get("/staff/held?over=yes").text
    assert "Nothing is left to decide." in staff.get(f"/staff/held/{number}").text


def test_the_commands_list_and_release(app, anna):
    run = app.test_cli_runner().invoke
    _, number = arrived(app, anna, EUR("50"), EUR("60"))
    assert number in run(args=["payments", "held"]).output
    nobody = run(args=["payments", "release", number, "--credit", "--actor", anna.login, "--reason", "x"])
    assert (nobody.exit_code, "is no login of support" in nobody.output, refunds.held_case(number).approvals) == (2, True, [])
    person("sam", role="support")
    none = run(args=["payments", "release", number, "--actor", "sam", "--reason", "x"])
    assert (none.exit_code, "Choose what is to be done." in none.output) == (2, True)
    assert run(args=["payments", "release", number, "--return", "--actor", "sam", "--reason", "Not ours"]).output == f"{number}: returned\n"
    assert "staff:sam" in {step.actor for step in refunds.held_case(number).steps}
    assert "0 waiting." in run(args=["payments", "held"]).output
    assert number in run(args=["payments", "held", "--over"]).output


def migration_of(name: str) -> ModuleType:
    """A migration by the name of its file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / "migrations" / "versions" / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_list_made_anew_has_only_what_still_waits_under_numbers_that_were_never_given(app, anna, superuser: psycopg.Connection):
    (_, credited), (back, sent), _ = (arrived(app, anna, EUR("50"), EUR("60"), "other-card") for _ in range(3))
    refunds.release(credited, "credit", actor=SAM, reason="It is hers")
    refunds.release(sent, "return", actor=SAM, reason="It is not hers")
    refunds.send_back(sent)
    processor(app).move_refund(db.scalar("select refund from sandbox_refunds"), "failed", "closed")
    carry(app)
    payments.look_at(back.public_id)
    for who in (SAM, RITA):
        refunds.release(sent, "return", actor=who, reason="Once more", iban=IBAN, holder="Anna Kowalska")
    refunds.mark_returned(sent, reference="TX-1", actor=SAM)
    migration, later = migration_of("0017_held"), migration_of("0031_approvals")
    listed = "select transfer_id, state from held where amount is not null and state in ('held', 'returning')"
    before = superuser.execute(listed).fetchall()
    with superuser.transaction(force_rollback=True):
        superuser.execute("update payments set state = 'expired' where state = 'returned'")  # of these a downgrade would say that it cannot tell them
        superuser.execute(later.DOWN)
        superuser.execute(migration.DOWN)
        superuser.execute(migration.UP)
        assert superuser.execute(listed).fetchall() == before
        ((number,),) = superuser.execute("select number from held").fetchall()
    assert number not in (credited, sent)


def test_held_money_that_the_bank_did_not_send_waits_for_a_decision_again(app, anna, staff):
    _, number = arrived(app, anna, EUR("50"), EUR("60"), "other-crypto")
    for who in (SAM, RITA):
        refunds.release(number, "return", actor=who, reason="It is not hers", iban=IBAN, holder="Anna Kowalska")
    page = f"/staff/held/{number}"
    assert staff.submit(page, {"decision": "refused"}).status_code == 422
    assert staff.submit(page, {"decision": "refused", "reason": "Account closed"}).status_code == 303
    case = refunds.held_case(number)
    assert (case.state, case.approvals, book("suspense", "EUR")) == ("held", [], 60_00)
    assert "Account closed" in case.steps[-2].note
    assert refunds.release(number, "credit", actor=SAM, reason="Then it is hers") == "credited"


def test_what_waited_for_a_rate_alone_is_credited_by_itself(app, anna):
    publish_rates()
    payment = begin(topup(anna, EUR("20")))
    choose(app, payment, "approve")
    carry(app)
    assert again(payment).credited_currency == "EUR", "the account is in euro"
    in_dollars = begin(topup(anna, USD("50")))
    with clock.travel(clock.now() + timedelta(days=20)):
        payments.apply("sandbox", news(in_dollars, USD("50")))
        assert again(in_dollars).state == "review"
        (case,) = refunds.held_money()
        assert refunds.credit_waiting() == 0, "there is no rate yet"
        publish_rates()
        assert refunds.credit_waiting() == 1
        assert refunds.credit_waiting() == 0
    assert again(in_dollars).state == "paid"
    assert wallet.state(anna.customer_id).available == 20_00 + 46_13
    assert [(step.state, step.actor) for step in refunds.held_case(case.number).steps] == [("held", "sandbox"), ("credited", "system")]
    assert list(ledger.check()) == []


def test_what_is_held_for_another_reason_or_decided_about_waits_for_people(app, anna):
    arrived(app, anna, EUR("50"), EUR("60"))
    assert refunds.credit_waiting() == 0
