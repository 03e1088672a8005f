"""Coming in and going out: register, confirm the address, log in, log out, a new password."""

from typing import Any

from flask import Blueprint, Response, request
from wtforms import BooleanField, PasswordField, StringField, ValidationError
from wtforms.validators import InputRequired

from app import customers, web
from app.web import gate
from app.web.forms import Form

auth = Blueprint("auth", __name__)

WRONG = "This login and password do not belong together."


class LoginForm(Form):
    """`login` is a login or an e-mail address."""

    login = StringField("Login or e-mail", [InputRequired("Enter your login or e-mail address.")])
    password = PasswordField("Password", [InputRequired("Enter your password.")])
    remember = BooleanField("Stay signed in")


class RegisterForm(Form):
    """Every rule is kept by `customers.register`; asked here too, so that all that is wrong is said at once."""

    login = StringField("Login", [InputRequired("Choose a login.")])
    email = StringField("E-mail", [InputRequired("Enter your e-mail address.")])
    password = PasswordField("Password", [InputRequired("Choose a password.")])
    timezone = StringField("Time zone")

    def validate_login(self, field: StringField) -> None:
        """Refuse what cannot be a login."""
        _stop(customers.login_problem((field.data or "").strip().lower()))

    def validate_email(self, field: StringField) -> None:
        """Refuse what is not one address."""
        _stop(customers.email_problem((field.data or "").strip()))

    def validate_password(self, field: PasswordField) -> None:
        """Refuse what is guessed first."""
        _stop(customers.password_problem(field.data or "", customers.context_words(self.login.data or "", self.email.data or "")))


class ResetForm(Form):
    """Whose password is forgotten."""

    login = StringField("Login or e-mail", [InputRequired("Enter your login or e-mail address.")])


class NewPasswordForm(Form):
    """The new password."""

    password = PasswordField("New password", [InputRequired("Choose a password.")])


@auth.get("/")
@gate.public
def index() -> Response:
    """The start: the balance, or the login page."""
    return web.go(home() if web.reader() else "/login")


@auth.route("/login", methods=["GET", "POST"])
@gate.public
def login() -> Response:
    """Log in by login or e-mail address and go on to where the visitor wanted to be."""
    form, target = LoginForm(), web.safe_next(request.args.get("next"), "")
    if request.method != "POST":
        return web.go(target or home()) if web.reader() else _show("login", form, target=target)
    if not form.validate():
        return _show("login", form, 422, target=target)
    try:
        user = customers.authenticate(form.login.data or "", form.password.data or "", ip=gate.address(), user_agent=request.user_agent.string)
    except customers.RateLimited as limited:
        return _show_limited("login", form, limited, target=target)
    if user is None:
        form.refuse("password", WRONG)
        return _show("login", form, 422, target=target)
    return gate.admit(web.go(target or home(user)), user, remember=form.remember.data)


@auth.post("/logout")
@gate.anyone
def logout() -> Response:
    """Log out; the session is over on the server, too."""
    return gate.dismiss(web.go("/login"))


@auth.route("/register", methods=["GET", "POST"])
@gate.public
def register() -> Response:
    """Make an account and come in with it; the address is confirmed by mail."""
    form = RegisterForm()
    if request.method != "POST":
        return web.go(home()) if web.reader() else _show("register", form)
    if not form.validate():
        return _show("register", form, 422)
    try:
        user = _register(form)
    except customers.Refused as refused:
        form.refuse(refused.field, str(refused))
        return _show("register", form, 422)
    except customers.RateLimited as limited:
        return _show_limited("register", form, limited)
    answer = gate.admit(web.go("/balance"), user)
    web.toast(f"Welcome. A link to confirm your address is on its way to {user.email}.")
    return answer


@auth.route("/password/reset", methods=["GET", "POST"])
@gate.public
def reset() -> Response:
    """Ask for a link that sets a new password. The answer is the same whoever is named."""
    form = ResetForm()
    if request.method != "POST":
        return _show("reset", form, sent="sent" in request.args)
    if not form.validate():
        return _show("reset", form, 422, sent=False)
    try:
        customers.request_reset(form.login.data or "", ip=gate.address())
    except customers.RateLimited as limited:
        return _show_limited("reset", form, limited, sent=False)
    return web.go("/password/reset?sent")


@auth.route("/password/reset/<token>", methods=["GET", "POST"])
@gate.public
def new_password(token: str) -> Response:
    """Choose a new password by a mailed link. Opening the link changes nothing."""
    form, link = NewPasswordForm(), customers.peek_link(token, "reset")
    if link is None:
        return _show_dead("A link to a new password works once, for 30 minutes.", "/password/reset", "Ask for a new link")
    if request.method != "POST":
        return _show("new_password", form, login=link.login)
    try:
        user = customers.reset_password(token, form.password.data or "", ip=gate.address()) if form.validate() else None
    except customers.Refused as refused:
        form.refuse(refused.field, str(refused))
        user = None
    if user is None:
        return _show("new_password", form, 422, login=link.login)
    answer = gate.dismiss(web.go("/login"))
    web.toast("Your password is changed and every device is signed out. Log in with the new one.")
    return answer


@auth.route("/verify/<token>", methods=["GET", "POST"])
@gate.public
def verify(token: str) -> Response:
    """Confirm an address by a mailed link. Opening the link changes nothing; the button does."""
    link, me = customers.peek_link(token, "verify", "change"), web.reader()
    if request.method != "POST" and link is not None:
        return web.page("auth/verify.html", email=link.email)
    keep = me.session_id if me and link and me.user_id == link.user_id else None
    confirmed = customers.verify(token, keep=keep, ip=gate.address()) if link else None
    if confirmed is None:
        return _show_dead("A link to confirm an address works once, for three days, and only the newest one counts.", "/security", "Send a new link")
    web.toast(f"{confirmed.user.email} is confirmed.")
    return gate.renew(web.go(home() if me else "/login"), confirmed.renewed)


@auth.route("/email/undo/<token>", methods=["GET", "POST"])
@gate.public
def undo_email(token: str) -> Response:
    """Take a change of address back by the link mailed to the old one, then choose a new password. Opening the link changes nothing."""
    link = customers.peek_link(token, "undo")
    if link is None:
        return _show_dead("A link to undo a change of address works once, for three days.", "/password/reset", "Choose a new password")
    if request.method != "POST":
        return web.page("auth/undo_email.html", email=link.email, login=link.login)
    try:
        undone = customers.undo_email_change(token, ip=gate.address())
    except customers.Refused as refused:
        return _show_dead(f"{refused} Write to us to have it back.", "/login", "Log in")
    if undone is None:
        return undo_email(token)
    answer = gate.dismiss(web.go(f"/password/reset/{undone.reset}"))
    web.toast(f"{undone.user.email} is your address again, and every device is signed out. Choose a new password now.")
    return answer


@auth.route("/billing-email/<token>", methods=["GET", "POST"])
@gate.public
def billing_email(token: str) -> Response:
    """Confirm a billing address by the link mailed to it. Opening the link changes nothing."""
    link = customers.peek_link(token, "billing")
    if request.method != "POST" and link is not None:
        return web.page("auth/billing_email.html", email=link.email, login=link.login)
    email = customers.confirm_billing_email(token, ip=gate.address()) if link else None
    if email is None:
        return _show_dead("A link to confirm a billing address works once, for three days, and only the newest one counts.", "/profile", "Open the profile")
    web.toast(f"Invoices and receipts go to {email} from now on.")
    return web.go("/profile" if web.reader() else "/login")


@auth.post("/verify")
@gate.anyone
def verify_again() -> Response:
    """Mail the confirmation link once more, and go back to the page it was asked on."""
    email = customers.request_verification(web.reader().user_id, ip=gate.address())
    web.toast(f"A new link is on its way to {email}.")
    return web.go(web.safe_next(request.form.get("next"), "/security"))


def home(user: customers.User | None = None) -> str:
    """Where someone who is signed in starts: the balance, or for support without a customer the staff's page."""
    me = user or web.reader()
    return "/staff" if me.role == "support" else "/balance" if me.customer_id else "/security"


def _stop(problem: str | None) -> None:
    if problem:
        raise ValidationError(problem)


def _register(form: RegisterForm) -> customers.User:
    timezone = form.timezone.data if form.timezone.data in customers.timezones() else "UTC"
    return customers.register(form.login.data or "", form.email.data or "", form.password.data or "", locale=web.preferred_locale(), timezone=timezone or "UTC", ip=gate.address())


def _show(name: str, form: Form, status_code: int = 200, *, problem: str = "", **context: Any) -> Response:
    return web.page(f"auth/{name}.html", status_code=status_code, form=form, errors=form.sentences, problem=problem, **context)


def _show_limited(name: str, form: Form, limited: customers.RateLimited, **context: Any) -> Response:
    answer = _show(name, form, 429, problem=str(limited), **context)
    answer.headers["Retry-After"] = str(limited.retry_after_s)
    return answer


def _show_dead(sentence: str, href: str, word: str) -> Response:
    return web.page("auth/dead_link.html", status_code=410, sentence=sentence, href=href, word=word)
