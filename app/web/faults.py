"""What went wrong: one request log, one reference per request, and pages that say what happened and what to do next."""

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from flask import Flask, Response, g, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError, TooManyRequests

import config
from app import db, logs, outside

RETRY_AFTER_S: Final = 5
THREADS_KEPT: Final = 1
"""Threads of each web process that never wait for another machine, unless it has only one."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the customer reads it."""

    title: str
    sentence: str
    symbol: str = "info"
    tone: str = ""
    retry: bool = False
    reload: bool = False


EXPIRED: Final = Problem(
    "This page was open too long", "Nothing was sent and no money has moved. Reload the page and send the form once more.", "clock", "wait", reload=True, retry=True
)
PROBLEMS: Final = {
    400: Problem("That request could not be read", "Nothing was changed. Go back, check what you entered and send it again."),
    401: Problem("Please log in", "This page is only for people who are logged in.", "lock"),
    403: Problem("This page is not yours to open", "Your login may not do this. If you think it should, write to us and name the reference below.", "lock"),
    404: Problem("Nothing here", "There is no such page, or it does not belong to your account.", "search"),
    405: Problem("That cannot be done here", "The address exists, but not for this kind of request. Nothing was changed."),
    413: Problem("That is too much at once", "The form or file is larger than we accept. Nothing was changed.", "triangle-alert", "wait"),
    422: Problem("Something in the form is not right", "Nothing was changed. Go back and check the marked fields.", "triangle-alert", "wait"),
    429: Problem("Too many attempts", "Wait a minute, then try again. Nothing was changed.", "hourglass", "wait", retry=True),
    500: Problem("Something broke on our side", "It has been logged. If you were paying, look at your invoices before you pay again.", "triangle-alert", "danger", retry=True),
    503: Problem("We cannot reach our books right now", "No money is lost and nothing was changed. This usually passes within a minute.", "hourglass", "wait", retry=True),
}


BUSY: Final = Problem(
    "This takes longer than it should",
    "Something else holds the data this page needs, so it was given up. Nothing was changed. Wait a moment, then try again.",
    "hourglass",
    "wait",
    retry=True,
)


def init(app: Flask, show: Any) -> None:
    """Log every request of this app and answer every error with `show(problem, status, reference)`.

    Routes are logged by their pattern, never with the tokens or searches in them.
    """
    logs.setup()
    seats = threading.Semaphore(max(1, config.current().web_threads - THREADS_KEPT))
    app.before_request(partial(outside.begin_page, seats))
    app.teardown_request(lambda _error: outside.end_page())
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)
    app.log_exception = _log_exception  # type: ignore[method-assign]
    app.register_error_handler(HTTPException, lambda error: _answer_http(error, show))
    for kind in db.UNREACHABLE:
        app.register_error_handler(kind, lambda error: _answer_down(error, show))


def reference() -> str:
    """This request's reference: in the log, in the X-Request-Id header, and on the error page."""
    if "reference" not in g:
        g.reference = secrets.token_hex(6)
    return str(g.reference)


def _answer_http(error: HTTPException, show: Any) -> Response | HTTPException:
    status = error.code or 500
    if status < 400 or error.response is not None:
        return error
    try:
        answer: Response = show(_problem(error, status), status, reference())
    except db.UNREACHABLE as down:  # the page around the error would have shown whose it is
        return _answer_down(down, show)
    if status == InternalServerError.code:
        return answer
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            answer.headers.setdefault(name, value)
    return answer


def _problem(error: HTTPException, status: int) -> Problem:
    if isinstance(error, CSRFError):
        logs.security("csrf_refused", route=_route(), method=_method())
        return EXPIRED
    problem = PROBLEMS.get(status) or PROBLEMS[500 if status >= 500 else 400]
    return replace(problem, sentence=error.description or "") if isinstance(error, TooManyRequests) and error.retry_after else problem


def _answer_down(error: Exception, show: Any) -> Response:
    logs.event("database", level=logging.ERROR, error=type(error).__name__, detail=logs.summary(error))
    problem = BUSY if isinstance(error, db.BUSY) else PROBLEMS[503]
    answer: Response = show(problem, 503, reference())
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def _begin() -> None:
    g.began = time.perf_counter()
    logs.begin(_given, reference=reference(), address=request.remote_addr or "")


def _forget(_error: BaseException | None) -> None:
    logs.begin()


def _given() -> Iterator[str]:
    """What this request brought: nothing of it is repeated by a line about an error."""
    yield from request.cookies.values()
    yield from (str(value) for value in (request.view_args or {}).values())
    yield from request.args.values()
    yield from request.headers.get("Authorization", "").split()
    if _is_read():
        yield from (value for values in request.form.listvalues() for value in values)


def _is_read() -> bool:
    """Whether the form was read already: nothing is read for the sake of the log."""
    return "form" in request.__dict__


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = reference()
    if request.endpoint == "static":
        return response
    status = response.status_code
    route = _route()
    if status == 403 or (status == 404 and request.view_args):
        logs.security("object_refused", route=route, method=_method(), status=status)
    logs.event(
        "request",
        method=_method(),
        route=route,
        status=status,
        partial=request.headers.get("HX-Request") == "true",
        ms=round((time.perf_counter() - g.began) * 1000, 1) if "began" in g else None,
        bytes=response.content_length,
    )
    return response


def _log_exception(exc_info: Any) -> None:
    trace = logs.trace(exc_info[1])
    logs.event("exception", level=logging.ERROR, method=_method(), route=_route(), trace=trace)


def _route() -> str | None:
    return request.url_rule.rule if request.url_rule else None


def _method() -> str:
    """The method, which a client may make up."""
    return request.method if request.method in METHODS else "other"
