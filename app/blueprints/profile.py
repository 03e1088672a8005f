"""The account: who the customer is for a document, how it is kept safe, and what we write to it."""

from typing import Any, Final

from flask import Blueprint, Response, abort, request
from wtforms import PasswordField, StringField, ValidationError
from wtforms.validators import InputRequired, Length

import config
from app import customers, mail, money, tax, web
from app.web import gate
from app.web.forms import Choice, Choices, Form, Line

profile = Blueprint("profile", __name__)

PAGE: Final = 25
MOST_EQUIVALENTS: Final = 4
KINDS: Final = {"individual": "Individual", "company": "Company"}
EVENTS: Final = {
    "registered": ("Account created", "user", ""),
    "signed_in": ("Signed in", "check", "credit"),
    "sign_in_failed": ("Failed sign-in: wrong password", "x", "danger"),
    "signed_out": ("Signed out", "log-out", ""),
    "session_revoked": ("A device was signed out", "log-out", ""),
    "sessions_revoked": ("All other devices were signed out", "log-out", ""),
    "password_check_failed": ("Wrong current password entered", "x", "danger"),
    "password_changed": ("Password changed", "lock", "accent"),
    "password_reset_requested": ("New password asked for", "mail", ""),
    "password_reset": ("Password changed by mailed link", "lock", "accent"),
    "verification_requested": ("Confirmation link sent", "mail", ""),
    "email_verified": ("E-mail address confirmed", "mail", "credit"),
    "email_change_requested": ("Change of e-mail address asked for", "mail", ""),
    "email_change_undone": ("Change of e-mail address undone", "mail", "accent"),
    "billing_email_requested": ("Confirmation link sent to a new billing address", "mail", ""),
    "billing_email_changed": ("Billing address changed", "mail", "accent"),
    "role_changed": ("Role changed by the operator", "shield-alert", "accent"),
    "disabled": ("Login switched off by support", "shield-alert", "danger"),
    "enabled": ("Login switched on by support", "check", "credit"),
    "signed_out_by_support": ("Signed out everywhere by support", "log-out", ""),
    "profile_changed": ("Profile changed", "user", ""),
}
"""Security event → what the history calls it, its icon and tone."""
MAILS: Final = {
    "payment_confirmed": ("A payment was received", "Each time, with what was added and the link to its invoice", "Billing address"),
    "payment_held": ("A payment is being looked at", "When money arrives that cannot be credited by itself, and when it went back or was closed", "Billing address"),
    "payment_failed": ("A payment did not arrive", "When money that was on its way does not come, with the reason and how to pay instead", "Billing address"),
    "funds_received": ("Somebody else topped you up", "Each time, with what was added", "Billing address"),
    "renewed": ("A service was renewed", "Each time money is taken for one, with its invoice", "Billing address"),
    "balance_low": ("The balance does not cover a renewal", "A week before it, once, with what is missing", "Billing address"),
    "renewal_short": ("A service could not be renewed", "When the balance does not cover a renewal, with what is missing", "Billing address"),
    "arrears": ("Services are not paid", "One, three, six, eleven and fifteen weeks after a renewal was due, with what has come together", "Billing address"),
    "price_raised": ("A price rises", "Thirty days before it holds, with the old and the new price", "Billing address"),
    "service_ended": ("A service has ended", "When it was not paid for any longer", "Billing address"),
    "service_ends": ("A service ends soon", "When it does not renew by itself, with the invoice for going on", "Billing address"),
    "saved_card": ("A saved card", "When one is saved, removed, or expires soon and renewals rely on it", "Billing address"),
    "card_declined": ("A saved card was declined", "When a renewal could not be charged to it, with what to do", "Billing address"),
    "refund_step": ("A refund went a step further", "When it is requested, withdrawn, approved or declined, sent, settled (its receipt), failed or came back", "Billing address"),
    "given_back": ("A payment by somebody else goes back", "When a top-up by somebody else leaves your balance, and when it is back", "Billing address"),
    "currency_changed": ("The currency of your account was changed", "Each time, with what became of the balance and the rate", "Billing address"),
    "dispute_step": ("A payment was disputed", "When your bank takes a payment back, and when it has decided", "Billing address"),
    "transfer_returned": ("A transfer was taken back", "When the sender's bank takes a transfer back", "Billing address"),
    "vat_id_unknown": ("Your VAT ID is not registered", "When the EU register does not list it, or no longer", "Billing address"),
    "verify": ("Confirm your e-mail address", "When you register, change the address or ask for the link again", "Login address"),
    "reset": ("Choose a new password", "When somebody asks for it with your login or address", "Login address"),
    "password_changed": ("Your password was changed", "Each time", "Login address"),
    "email_changed": ("Your e-mail address was changed", "Each time, to the address it was before, with a link to undo it", "Old address"),
    "email_change_undone": ("A change of your e-mail address was undone", "When the address before took it back", "Address that was given up"),
    "billing_verify": ("Confirm the billing address", "When you enter another billing address", "New billing address"),
    "billing_changed": ("Invoices go to another address now", "Each time, to the billing address before", "Old billing address"),
    "address_known": ("You already have an account", "When somebody registers again with your confirmed address", "Login address"),
}
"""Every mail the house sends, by its template: subject, when, to which address."""


class BillingForm(Form):
    """Who a document is made out to. Nothing is required here but what is chosen from a list: payment asks for the rest and says so."""

    kind = Choice("You are", lambda: KINDS, default="individual")
    name = Line("Name")
    company = Line("Company")
    street = Line("Street and number", 200)
    postcode = Line("Postcode", 20)
    city = Line("City")
    country = Choice("Country", lambda: {"": "Choose a country", **customers.countries()})
    vat_id = Line("VAT ID", 30)

    def validate_name(self, field: Line) -> None:
        """Refuse what mail programs would make a link of."""
        _stop(customers.name_problem(field.data or ""))

    def validate_company(self, field: Line) -> None:
        """Refuse what mail programs would make a link of."""
        _stop(customers.name_problem(field.data or "", company=True))

    def validate_vat_id(self, field: Line) -> None:
        """Refuse a VAT ID that cannot be one of the country's."""
        if field.data and not self.country.data:
            raise ValidationError("Choose the country first: a VAT ID belongs to one.")
        problem = tax.vat_id_problem(self.country.data or "", field.data or "")
        if problem:
            raise ValidationError(problem)


class ProfileForm(BillingForm):
    """All that a customer says of itself."""

    billing_email = Line("Billing e-mail", 254)
    po_number = Line("PO number", 60)
    locale = Choice("Language and formats", lambda: customers.LANGUAGES)
    timezone = Choice("Time zone", lambda: {name: name.replace("_", " ") for name in customers.timezones()})
    currency = Choice("Account currency", lambda: {"": "That of the first top-up", **_currencies()})
    display_currencies = Choices("Also show amounts in", lambda: {code: code for code in config.current().currencies})

    def validate_billing_email(self, field: Line) -> None:
        """Refuse what is not one address."""
        _stop(customers.email_problem(field.data) if field.data else None)

    def validate_display_currencies(self, field: Choices) -> None:
        """Refuse more than a page has room for."""
        if len(field.data or ()) > MOST_EQUIVALENTS:
            raise ValidationError(f"Choose at most {MOST_EQUIVALENTS}.")


class PasswordForm(Form):
    """The current password and the new one."""

    current = PasswordField("Current password", [InputRequired("Enter your current password.")])
    password = PasswordField("New password", [InputRequired("Choose a new password.")])


class EmailForm(Form):
    """A new address, and the password to show that it is the owner who asks."""

    email = StringField("New address", [InputRequired("Enter the new address."), Length(max=254, message="Use at most 254 characters.")])
    confirm = PasswordField("Password", [InputRequired("Enter your password.")])


@profile.get("/profile")
def show() -> Response:
    """The profile, with what is missing before money can be taken."""
    customer = customers.get(web.reader().customer_id)
    return _show_profile(customer, ProfileForm(formdata=None, data=_entered(customer)))


@profile.post("/profile")
def save() -> Response:
    """Write the profile and go back to where its absence was noticed."""
    me, form = web.reader(), ProfileForm()
    customer = customers.get(me.customer_id)
    if customer.currency_fixed:
        form.currency.data = customer.currency or ""
    if not form.validate():
        return _show_profile(customer, form, 422)
    try:
        asked = customers.update_profile(me.user_id, me.customer_id, _profile(form), locale=form.locale.data or "en", timezone=form.timezone.data or "UTC", ip=gate.address())
    except customers.Refused as refused:
        form.refuse(refused.field, str(refused))
        return _show_profile(customer, form, 422)
    web.toast("Your profile is saved." + (f" A link is on its way to {asked}: invoices go there once it is followed." if asked else ""))
    return web.go(web.safe_next(request.args.get("next"), "/profile"))


@profile.get("/security")
@gate.anyone
def security() -> Response:
    """Password, address, devices and what happened lately."""
    return _show_security()


@profile.get("/security/history")
@gate.anyone
def history() -> Response:
    """Older lines of the sign-in history."""
    before = _whole_number(request.args.get("before"))
    return web.page("profile/history.html", "events", **_history(before))


@profile.post("/security/password")
@gate.anyone
def change_password() -> Response:
    """Change the password; every other device is signed out."""
    me, form = web.reader(), PasswordForm()
    try:
        if not form.validate():
            return _show_security(422, password_form=form)
        changed = customers.change_password(me.user_id, form.current.data or "", form.password.data or "", keep=me.session_id, ip=gate.address())
    except customers.Refused as refused:
        form.refuse(refused.field, str(refused))
        return _show_security(422, password_form=form)
    web.toast("Your password is changed." + (f" {_devices(changed.ended)} signed out." if changed.ended else ""))
    return gate.renew(web.go("/security"), changed.renewed)


@profile.post("/security/email")
@gate.anyone
def change_email() -> Response:
    """Mail a link to a new address; it counts once the link was followed."""
    form = EmailForm()
    try:
        if not form.validate():
            return _show_security(422, email_form=form)
        email = customers.request_email_change(web.reader().user_id, form.confirm.data or "", form.email.data or "", ip=gate.address())
    except customers.Refused as refused:
        form.refuse("confirm" if refused.field == "password" else refused.field, str(refused))
        return _show_security(422, email_form=form)
    web.toast(f"A link is on its way to {email}. The address changes when you follow it.")
    return web.go("/security")


@profile.post("/security/sessions/<reference>/sign-out")
@gate.anyone
def sign_out(reference: str) -> Response:
    """Sign out one device."""
    if not customers.revoke_session(web.reader().user_id, reference, ip=gate.address()):
        abort(404)
    web.toast("That device is signed out.")
    return web.go("/security")


@profile.post("/security/sessions/sign-out-others")
@gate.anyone
def sign_out_others() -> Response:
    """Sign out every device but this one."""
    me = web.reader()
    ended = customers.revoke_others(me.user_id, me.session_id, ip=gate.address())
    web.toast(f"{_devices(ended)} signed out.")
    return web.go("/security")


@profile.get("/notifications")
def notifications() -> Response:
    """What we write, when and to whom, and the archive of what was written."""
    customer = customers.get(web.reader().customer_id)
    letters = mail.of_customer(customer.id, PAGE + 1, _whole_number(request.args.get("before")))
    return web.page("profile/notifications.html", "archive", customer=customer, mails=MAILS.values(), letters=letters[:PAGE], more=len(letters) > PAGE)


@profile.get("/notifications/<int:mail_id>")
def letter(mail_id: int) -> Response:
    """One mail that was written to the customer."""
    found = mail.one_of_customer(web.reader().customer_id, mail_id)
    return web.page("profile/letter.html", letter=found or abort(404))


def _stop(problem: str | None) -> None:
    if problem:
        raise ValidationError(problem)


def _show_profile(customer: customers.Customer, form: ProfileForm, status_code: int = 200) -> Response:
    target = web.safe_next(request.args.get("next"), "")
    missing, waiting = customers.missing_fields(customer), customers.waiting_billing_email(customer.id)
    return web.page("profile/profile.html", status_code=status_code, customer=customer, form=form, errors=form.sentences, missing=missing, target=target, waiting=waiting)


def _show_security(status_code: int = 200, *, password_form: PasswordForm | None = None, email_form: EmailForm | None = None) -> Response:
    me = web.reader()
    return web.page(
        "profile/security.html",
        status_code=status_code,
        sessions=customers.list_sessions(me.user_id, me.session_id),
        password_errors=password_form.sentences if password_form else {},
        email_errors=email_form.sentences if email_form else {},
        entered_email=email_form.email.data if email_form else "",
        **_history(None, 8),
    )


def _history(before: int | None, size: int = PAGE) -> dict[str, Any]:
    events = customers.history(web.reader().user_id, size + 1, before)
    return {"events": events[:size], "more": len(events) > size, "words": EVENTS}


def _entered(customer: customers.Customer) -> dict[str, Any]:
    stored = {name: getattr(customer.profile, name) or "" for name in customers.Profile.__slots__}
    return {**stored, "display_currencies": list(customer.profile.display_currencies), "locale": customer.locale, "timezone": customer.timezone}


def _profile(form: ProfileForm) -> customers.Profile:
    entered = form.values
    country = entered["country"] or ""
    return customers.Profile(
        **{name: entered[name] or "" for name in ("name", "company", "street", "postcode", "city", "billing_email", "po_number")},
        kind=entered["kind"],
        country=country or None,
        vat_id=tax.compact_vat_id(country, entered["vat_id"] or ""),
        currency=entered["currency"] or None,
        display_currencies=tuple(entered["display_currencies"] or ()),
    )


def _currencies() -> dict[str, str]:
    return {code: f"{code} · {money.CURRENCIES[code].name}" for code in config.current().currencies}


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _devices(number: int) -> str:
    return "No other device was" if number == 0 else "One device was" if number == 1 else f"{number} devices were"
