"""What every answer carries: security headers, the rule for caches, compression; and the one check of addresses to go to."""

import gzip
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import brotli
from flask import Flask, Response, abort, current_app, g, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect, same_origin
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import SecurityError

from app import gateways, logs, signing
from app.web import proxies
from config import Settings


class Csrf(CSRFProtect):  # type: ignore[misc]
    """The extension's protection with our own signer: its own knows one key and SHA-1 alone."""

    def protect(self, apply_exemptions: bool = False) -> None:  # noqa: FBT001, FBT002 - the extension calls it so
        """Refuse a request that changes something and whose token is not this session's."""
        if apply_exemptions and (not request.endpoint or self._is_exempt()):
            return
        if request.method not in current_app.config["WTF_CSRF_METHODS"]:
            return
        try:
            secret = current_app.extensions["csrf_signer"].loads(self._get_csrf_token() or "")
        except BadData:
            secret = ""
        known = session.get("csrf_token", "")
        if not known or not hmac.compare_digest(str(secret).encode(), str(known).encode()):
            self._error_response("The CSRF token is missing or not of this session.")
        if request.is_secure and not same_origin(request.referrer or "", f"https://{request.host}/"):
            self._error_response("The referrer does not match the host.")
        g.csrf_valid = True


csrf = Csrf()
"""Every POST carries the session's token; the webhooks' blueprint, which signs its bodies, is exempt: `csrf.exempt(blueprint)`."""

_PATH: Final = re.compile(r"/(?![/\\])[\x21-\x7e]*")
_LOOPBACK: Final = ["localhost", "127.0.0.1", "[::1]"]
_SMALLEST: Final = 1_000
LONGEST_HOST: Final = 100
LISTS: Final = frozenset({"number", "display_currencies"})
"""The names of which an address or a form may hold several values."""
_COMPRESSIBLE: Final = ("text/", "application/json", "application/xml", "image/svg+xml")


def safe_next(value: str | None, default: str = "/") -> str:
    """A path of this site to go to next, or `default`: no other host, no backslash, no control or non-ASCII character.

    The only way by which a value from outside may reach Location, HX-Redirect, HX-Location or HX-Push-Url.
    """
    if value is None or not _PATH.fullmatch(value) or "\\" in value:
        return default
    parts = urlsplit(value)
    return default if parts.scheme or parts.netloc else value


def init(app: Flask, settings: Settings) -> None:
    """Cookies, trusted hosts, body limits, CSRF and headers for this app."""
    app.config.update(
        SESSION_COOKIE_NAME="__Host-session" if settings.secure else "session",
        SESSION_COOKIE_SECURE=settings.secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=512 * 1024,
        MAX_FORM_MEMORY_SIZE=256 * 1024,
        TRUSTED_HOSTS=trusted_hosts(settings),
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.session_interface = Sessions(settings)
    app.extensions["proxies"] = proxies.Proxies(app.wsgi_app, settings)
    app.wsgi_app = app.extensions["proxies"]  # type: ignore[method-assign]
    app.extensions["csrf_signer"] = signing.timed(settings, "wtf-csrf-token")
    app.before_request(name_refused_host)
    app.before_request(refuse_nul)
    csrf.init_app(app)
    app.before_request(refuse_twice)
    app.jinja_env.globals["csrf_token"] = csrf_token
    fixed = security_headers(settings)

    @app.after_request
    def finish(response: Response) -> Response:
        known = {name.lower() for name, _ in response.headers}
        headers = {"Content-Security-Policy": content_policy(gateways.pages()), **fixed}
        response.headers.extend([(name, value) for name, value in headers.items() if name.lower() not in known])
        return compress(vary(response))


class Sessions(SecureCookieSessionInterface):
    """The framework's sessions with their signer made once: making it costs as much as checking a cookie."""

    def __init__(self, settings: Settings) -> None:
        self.signer = signing.timed(settings, self.salt, derivation=self.key_derivation, serializer=self.serializer)

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:  # noqa: ARG002 - the framework calls it so
        """The one signer of this app's key."""
        return self.signer


def csrf_token() -> str:
    """This request's token for forms: the session's secret, signed as `validate_csrf` reads it, by a signer that is made once."""
    if "csrf_token" not in g:
        if "csrf_token" not in session:
            session["csrf_token"] = secrets.token_hex(20)
        g.csrf_token = current_app.extensions["csrf_signer"].dumps(session["csrf_token"])
    return str(g.csrf_token)


def name_refused_host() -> None:
    """Say in the log which Host is not ours: it is a probe, a proxy that rewrites it, or somebody's try."""
    if isinstance(request.routing_exception, SecurityError):
        given = request.environ.get("HTTP_HOST", "")
        host = "".join(c if c.isascii() and c.isprintable() else "?" for c in given[:LONGEST_HOST])
        logs.security("host_refused", host=host, address=request.remote_addr)


def refuse_nul() -> None:
    """No name of ours and no text in the database holds a NUL: such an address does not exist, such a question cannot be read."""
    if "\0" in request.path:
        abort(404)
    if any("\0" in value for value in request.args.values()):
        abort(400)


def refuse_twice() -> None:
    """Whoever says a thing twice says two things, and which of them is meant is nobody's to choose: not the first, not the last, not the address before the form."""
    form = request.form if g.get("csrf_valid") else ImmutableMultiDict[str, str]()  # without a token nothing is a form: a webhook's body is read as it is
    names = [*request.args, *form]
    lists = {name for source in (request.args, form) for name, values in source.lists() if len(values) > 1}
    if lists - LISTS or len(names) > len(set(names)):
        abort(400)


def trusted_hosts(settings: Settings) -> list[str]:
    """The hosts this site answers to: its public one, and on a plain-http machine the machine's own names."""
    host = settings.host.rsplit(":", 1)[0] if not settings.host.endswith("]") else settings.host
    return [host] if settings.secure else [host, *_LOOPBACK]


def security_headers(settings: Settings) -> dict[str, str]:
    """The headers of every answer, errors included; the policy of its contents is `content_policy`."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cache-Control": "no-store",
    }
    if settings.secure:
        headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"
    return headers


def content_policy(pages: Sequence[str]) -> str:
    """The content security policy: our own files only, and forms that may lead to these pages' origins."""
    sources = "script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'"
    forms = " ".join(["'self'", *pages])
    return f"default-src 'none'; {sources}; form-action {forms}; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"


def vary(response: Response) -> Response:
    """Say on what a page's form depends, so that no cache mixes a page with its fragment or two people's pages."""
    if response.mimetype == "text/html":
        response.vary.update(("HX-Request", "HX-Request-Type", "Cookie"))
    return response


def compress(response: Response) -> Response:
    """Compress a text answer that is worth it and is not streamed; its ETag becomes weak, as the bytes differ."""
    if not _worth_compressing(response):
        return response
    response.vary.add("Accept-Encoding")
    accepted = request.accept_encodings
    encoding = "br" if accepted["br"] else "gzip" if accepted["gzip"] else ""
    if not encoding:
        return response
    body = response.get_data()
    response.set_data(brotli.compress(body, quality=4) if encoding == "br" else gzip.compress(body, 5, mtime=0))
    response.headers["Content-Encoding"] = encoding
    tag, weak = response.get_etag()
    if tag and not weak:
        response.set_etag(tag, weak=True)
    return response


def _worth_compressing(response: Response) -> bool:
    if response.is_streamed or response.direct_passthrough or "Content-Encoding" in response.headers:
        return False
    if response.status_code in {204, 206, 304} or not (response.mimetype or "").startswith(_COMPRESSIBLE):
        return False
    return len(response.get_data()) >= _SMALLEST
