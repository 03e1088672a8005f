"""HTTP's side of the house: how a view answers. The only user of htmx-flask.

One URL has two representations: a page, and for a partial request one named block of that page. The block's name is its element's
id and the view's `fragment`; the view chooses it, never the client.
"""

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import flask
from flask import Flask, Response, current_app, session
from flask_login import current_user
from htmx_flask import Htmx, request
from jinja2 import StrictUndefined

import config
from app import clock, gateways
from app.formats import Formats, formats
from app.gateways.base import origin
from app.web import assets, faults, safety
from app.web.safety import csrf, safe_next

__all__ = ["csrf", "fragment", "go", "init", "is_partial", "leave", "page", "reader", "safe_next", "sign_in", "toast", "writer"]

NAVIGATION: Final = (
    (
        "Billing",
        (
            ("/balance", "Balance", "landmark"),
            ("/add-funds", "Add funds", "plus"),
            ("/transactions", "Transactions", "list"),
            ("/invoices", "Invoices", "file-text"),
            ("/cards", "Saved cards", "credit-card"),
            ("/refunds", "Refunds", "undo-2"),
        ),
    ),
    (
        "Support",
        (
            ("/staff", "Overview", "landmark"),
            ("/staff/refunds", "Refund requests", "undo-2"),
            ("/staff/disputes", "Disputes", "shield-alert"),
            ("/staff/held", "Held money", "search"),
            ("/staff/bank", "Bank transfers", "list"),
            ("/staff/vat-ids", "VAT IDs", "file-text"),
        ),
    ),
    ("Products", (("/services", "Services", "server"),)),
    ("Account", (("/profile", "Profile", "user"), ("/security", "Security", "lock"), ("/notifications", "Notifications", "bell"))),
)
OF_CUSTOMERS: Final = frozenset({"/profile", "/notifications"})
"""Pages of an account that only customers have."""
FILTERS: Final = (
    *("money", "amount", "signed", "parts", "symbol", "rate", "percent"),
    *("date", "long_date", "day_month", "long_day_month", "time", "datetime", "day_time", "relative_days", "sentence"),
)
BREAKS: Final = re.compile(r"(?:(?<= \d)|(?<= \d\d)) (?=[^\W\d_])| (?=·)|(?<=•) (?=\d)")
"""The blanks at which no line may end."""
THEMES: Final = {"light", "dark"}

_formats: ContextVar[Formats] = ContextVar("formats")


def init(app: Flask, settings: config.Settings) -> None:
    """Templates, static files, safety and error pages for this app."""
    Htmx(app)
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.autoescape = True
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.config["TEMPLATES_AUTO_RELOAD"] = app.debug
    for name in FILTERS:
        app.jinja_env.filters[name] = _format_filter(name)
    app.jinja_env.filters["knit"] = knit
    app.jinja_env.filters["seconds_left"] = lambda until: max(0, int((until - clock.now()).total_seconds()))
    faults.init(app, _show_problem)
    assets.init(app, settings)
    safety.init(app, settings)
    _install_macros(app)


def page(
    template: str,
    fragment: str | None = None,
    *,
    also: Iterable[str] = (),
    status_code: int = 200,
    push_url: str | None = None,
    **context: Any,
) -> Response:
    """The answer of a view: the whole page, or for a partial request its block `fragment`.

    `also` names shared pieces (`_balance_chip.html`) that a partial answer replaces beside it, each by the id its file name says.
    `push_url` is the canonical URL of a filtered list. Raises ValueError if it is not a path of this site.
    """
    if push_url is not None and safe_next(push_url, "") != push_url:
        raise ValueError(f"{push_url!r} is not a path of this site")
    if fragment is None or not is_partial():
        return _whole(template, context, status_code)
    frame = _frame() | context
    response = flask.make_response(_block(template, fragment, frame) + "".join(_beside(name, frame) for name in also) + _toasts(frame), status_code)
    if push_url is not None:
        response.headers["HX-Push-Url"] = push_url
    return response


def knit(text: str) -> str:
    """A number stays with its unit and a dot with what is before it, wherever the line breaks: "Renewal vps-7 · 1 month"."""
    return BREAKS.sub("\N{NO-BREAK SPACE}", text)


def fragment(piece: str, *, status_code: int = 200, **context: Any) -> Response:
    """A shared piece alone (`_balance_chip.html`), for a view that has checked `is_partial()`."""
    frame = _frame() | context
    return flask.make_response(_piece(piece, frame) + _toasts(frame), status_code)


def is_partial() -> bool:
    """Whether htmx asked for a part of a page; not when it restores history, nor when the address was opened by hand."""
    if not request.htmx or request.htmx.history_restore_request:
        return False
    return flask.request.headers.get("HX-Request-Type") != "full" and flask.request.headers.get("Sec-Fetch-Mode") != "navigate"


def go(path: str) -> Response:
    """Send the browser to a path of this site: 303, or HX-Redirect when htmx asks. An unsafe path leads to the start."""
    path = safe_next(path)
    if not is_partial():
        return flask.make_response("", 303, {"Location": path})
    return flask.make_response("", 200, {"HX-Redirect": path})


def leave(url: str) -> Response:
    """To a payment page: 303. To one of an origin that our forms may not lead to, by a page with a plain link.

    A script that was refused the way asks for the address alone, as text. Raises ValueError for what is no web address.
    """
    base = config.current().base_url
    if url.startswith(f"{base}/") and (path := safe_next(url.removeprefix(base), "")):
        return go(path)
    if urlsplit(url).scheme not in {"https", "http"} or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not the address of a page")
    if request.headers.get("Accept") == "text/plain":
        return Response(url, mimetype="text/plain")
    if origin(url) in gateways.pages():
        return flask.make_response("", 303, {"Location": url})
    response = page("pay/leaving.html", url=url, host=urlsplit(url).hostname)
    response.headers["Refresh"] = f"0; url={url}"
    return response


def sign_in() -> Response:
    """Send someone who is not logged in to the login page and back; a partial request is sent there whole."""
    back = safe_next(request.full_path.rstrip("?"), "") if request.method == "GET" else ""
    return go("/login" if back in {"", "/"} else f"/login?{urlencode({'next': back})}")


def toast(text: str, link: str = "", label: str = "") -> None:
    """Say what happened, with a link to it, on the next answer of this session: page or fragment."""
    session["toasts"] = [*session.get("toasts", []), {"text": text, "link": link, "label": label}]


def writer() -> Formats:
    """The reader's formats: the customer's locale and time zone, or English for someone not logged in."""
    me = reader()
    return formats(me.locale, me.timezone) if me else formats("en_GB", "UTC")


def preferred_locale() -> str:
    """The locale the browser asks for among those we ship, else the seller's: for someone whose choice is not known."""
    tags = {locale.replace("_", "-"): locale for locale in config.LOCALES}
    return tags.get(request.accept_languages.best_match(tags) or "", config.current().seller.locale)


def reader() -> Any:
    """Who is logged in, or None."""
    me = current_user._get_current_object() if hasattr(current_app, "login_manager") else None  # noqa: SLF001 - asked once: the proxy is slow
    return me if me is not None and me.is_authenticated else None


def _whole(template: str, context: dict[str, Any], status_code: int, *, bare: bool = False) -> Response:
    frame = _frame(bare=bare) | context
    return Response(current_app.jinja_env.get_template(template).render(frame), status_code)


def _frame(*, bare: bool = False) -> dict[str, Any]:
    """What every template may use. `bare` asks nothing of the database, for when it does not answer."""
    me = None if bare else reader()
    _formats.set(formats(me.locale, me.timezone) if me else formats("en_GB", "UTC"))
    theme = request.cookies.get("__Host-theme" if config.current().secure else "theme", "")
    return {
        "me": me,
        "seller": config.current().seller,
        "theme": theme if theme in THEMES else "",
        "page_language": "en",
        "navigation": _navigation(),
        "of_customers": OF_CUSTOMERS,
        "here": "/" + request.path.split("/", 2)[1],
        "here_url": safe_next(request.full_path.rstrip("?")),
        "toasts": [] if bare else session.pop("toasts", []),
    }


def _block(template: str, name: str, context: dict[str, Any]) -> str:
    """One named block of a template, rendered alone. Raises KeyError when the template itself has no such block."""
    known = current_app.jinja_env.get_template(template)
    return "".join(known.blocks[name](known.new_context(context)))


def _piece(name: str, context: dict[str, Any]) -> str:
    return current_app.jinja_env.get_template(name).render(context)


def _beside(name: str, context: dict[str, Any]) -> str:
    target = name.removeprefix("_").removesuffix(".html").replace("_", "-")
    return f'<hx-partial hx-target="#{target}" hx-swap="outerMorph">{_piece(name, context)}</hx-partial>'


def _toasts(context: dict[str, Any]) -> str:
    said = "".join(_piece("_toast.html", {"toast": toast}) for toast in context["toasts"])
    return f'<hx-partial hx-target="#toasts" hx-swap="beforeend">{said}</hx-partial>' if said else ""


def _navigation() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The pages that exist in this house, so that no link leads nowhere."""
    known: list[tuple[str, list[tuple[str, str, str]]]] | None = current_app.extensions.get("navigation")
    if known is None:
        paths = {rule.rule for rule in current_app.url_map.iter_rules()}
        groups = [(title, [link for link in links if link[0] in paths]) for title, links in NAVIGATION]
        known = current_app.extensions["navigation"] = [(title, links) for title, links in groups if links]
    return known


def _show_problem(problem: faults.Problem, status: int, reference: str) -> Response:
    """An error as a page; as a notice above the region, which stays as it was, when htmx asked."""
    context = {"problem": problem, "reference": reference, "status": status}
    if not is_partial():
        return _whole("errors/error.html", context, status, bare=status >= 500)
    notice = _piece("errors/_notice.html", {**context, "here_url": safe_next(urlsplit(request.referrer or "").path)})
    return flask.make_response(notice, status, {"HX-Retarget": "#problem", "HX-Reswap": "innerHTML", "HX-Push-Url": "false"})


def _format_filter(name: str) -> Callable[..., Any]:
    def write(*values: Any) -> Any:
        return getattr(_formats.get(), name)(*values)

    return write


def _install_macros(app: Flask) -> None:
    """The macros of templates/components as globals: a block rendered alone does not see its page's imports."""
    environment = app.jinja_env
    for name in environment.list_templates(filter_func=lambda name: name.startswith("components/")):
        module = environment.get_template(name).module
        environment.globals.update({key: value for key, value in vars(module).items() if not key.startswith("_")})
