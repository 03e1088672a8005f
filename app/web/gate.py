"""Who may come in. Every page wants a signed-in customer unless its view says otherwise: `public`, `anyone`, `staff_required`.

The cookie holds a secret of 256 bits and nothing else; who it belongs to is asked of the database on every request, in one query.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from flask import Flask, Response, abort, current_app, g, request, session
from flask_login import LoginManager
from werkzeug.exceptions import TooManyRequests

import config
from app import audit, clock, customers, logs
from app.web import faults

View = TypeVar("View", bound=Callable[..., Any])

SECURE_COOKIE: Final = "__Host-sid"
PLAIN_COOKIE: Final = "sid"
OPEN_ENDPOINTS: Final = frozenset({"static"})


def init(app: Flask, ask_to_sign_in: Callable[[], Response]) -> None:
    """Load the user of each request and guard every view of this app."""
    manager = LoginManager()
    manager.init_app(app, add_context_processor=False)
    manager.session_protection = None
    manager.request_loader(_load)
    app.before_request(lambda: _guard(ask_to_sign_in))
    app.teardown_request(lambda _error: audit.set_actor(audit.SYSTEM))
    app.register_error_handler(customers.RateLimited, _answer_limited)


def public(view: View) -> View:
    """Let everybody in, signed in or not."""
    return _mark(view, "public")


def anyone(view: View) -> View:
    """Let in whoever is signed in, support without a customer of its own too."""
    return _mark(view, "anyone")


def staff_required(view: View) -> View:
    """Let in support only; to everybody else the page does not exist."""
    return _mark(view, "staff")


def audience(endpoint: str | None) -> str:
    """Whom a view lets in: ``public``, ``anyone``, ``staff``, or ``customer`` when it says nothing."""
    if endpoint in OPEN_ENDPOINTS:
        return "public"
    return getattr(current_app.view_functions.get(endpoint or ""), "audience", "customer")


def admit(response: Response, user: customers.User, *, remember: bool = False) -> Response:
    """Sign a user in on this response: a new session, a new cookie, nothing kept of the anonymous one.

    A second factor would be asked for before this is called.
    """
    leave()
    stays = remember and user.role != "support"
    token = customers.open_session(user.id, remember=stays, ip=address(), user_agent=request.user_agent.string)
    return _give(response, token, int(customers.REMEMBERED.total_seconds()) if stays else None)


def renew(response: Response, renewed: customers.Renewed | None) -> Response:
    """Give the browser the new secret of its session after a change of credentials; its old cookie is dead."""
    return _give(response, renewed.secret, renewed.stays_s) if renewed else response


def dismiss(response: Response) -> Response:
    """Sign out on this response: the session is revoked, its cookie and the browser's storage are cleared."""
    leave()
    response.delete_cookie(cookie_name(), path="/", secure=config.current().secure, httponly=True, samesite="Lax")
    response.headers["Clear-Site-Data"] = '"storage"'
    return response


def leave() -> None:
    """End the session this request came with, and forget the anonymous one with its CSRF secret."""
    token = request.cookies.get(cookie_name())
    if token:
        customers.close_session(token, ip=address())
    session.clear()
    g.pop("csrf_token", None)


def look_again() -> None:
    """Forget who was loaded for this request, so that its answer shows the balance as it is after money moved."""
    g.pop("_login_user", None)


def cookie_name() -> str:
    """The session cookie's name: bound to host and https by its prefix where the site has https."""
    return SECURE_COOKIE if config.current().secure else PLAIN_COOKIE


def address() -> str:
    """The client's network address, as the trusted proxy tells it."""
    return request.remote_addr or ""


def _give(response: Response, secret: str, stays_s: int | None) -> Response:
    response.set_cookie(cookie_name(), secret, max_age=stays_s, path="/", secure=config.current().secure, httponly=True, samesite="Lax")
    return response


def _mark(view: View, audience: str) -> View:
    cast("Any", view).audience = audience
    return view


def _load(_request: object) -> customers.SignedIn | None:
    token = request.cookies.get(cookie_name())
    me = customers.load_session(token) if token else None
    if me is not None and clock.now() - me.seen_at > customers.SEEN_EVERY:
        customers.touch(me.session_id)
    return me


def _guard(ask_to_sign_in: Callable[[], Response]) -> Response | None:
    audit.set_actor(audit.Actor("visitor", None, address(), faults.reference()))
    logs.know(address=address())
    wanted = audience(request.endpoint)
    if wanted == "public" or request.endpoint is None:
        return None
    me = _signed_in()
    if me is None:
        return ask_to_sign_in()
    kind = "staff" if me.role == "support" else "customer"
    audit.set_actor(audit.Actor(f"{kind}:{me.login}", me.user_id, address(), faults.reference()))
    logs.know(user=me.user_id)
    if wanted == "staff" and me.role != "support":
        logs.security("staff_page_refused", endpoint=request.endpoint)
        abort(404)
    if wanted == "customer" and not me.customer_id:
        abort(403)
    return None


def _signed_in() -> customers.SignedIn | None:
    """Who is asking, put where Flask-Login keeps it: left to itself it hashes the browser's name before it asks us."""
    me = _load(request)
    if me is not None:
        g._login_user = me  # noqa: SLF001
    return me


def _answer_limited(error: customers.RateLimited) -> Any:
    return current_app.handle_user_exception(TooManyRequests(f"Wait {error.wait}, then try again. Nothing was changed.", retry_after=error.retry_after_s))
