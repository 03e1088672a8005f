"""What processors tell us: kept byte for byte and answered at once; jobs look into it."""

from datetime import timedelta

from flask import Blueprint, Response, request

from app import customers, logs, payments
from app.gateways.base import BadSignature, GatewayError
from app.web import csrf
from app.web.gate import address, public

webhooks = Blueprint("webhooks", __name__)
csrf.exempt(webhooks)

LARGEST_BODY = 256 * 1024
BAD_SIGNATURES = (60, timedelta(hours=1))
"""So many unproven webhooks an address may send in how long before it is told to stop."""


@webhooks.post("/webhooks/<gateway>")
@public
def receive(gateway: str) -> Response:
    """200 once it is kept (also when it was before, and whatever it says), 400 unless the processor signed it now, 404 for one that is not configured.

    503 while that cannot be told.

    After many unproven ones their sender hears 429; a proven one is kept whatever its address sent before.
    """
    body = request.get_data(cache=False, parse_form_data=False) if (request.content_length or 0) <= LARGEST_BODY else b""
    if not 0 < len(body) <= LARGEST_BODY:
        return _say("empty, or too large", 413)
    try:
        payments.receive(gateway, body, {name.lower(): value for name, value in request.headers})
    except BadSignature as error:
        logs.security("bad_signature", gateway=gateway)
        return _unproven(str(error))
    except GatewayError as error:
        return _say(str(error), 503)
    except LookupError:
        return _say("no such processor", 404)
    return _say("kept", 200)


def _unproven(why: str) -> Response:
    try:
        customers.count((f"webhooks unproven {address()}", *BAD_SIGNATURES))
    except customers.RateLimited as limited:
        answer = _say("too many webhooks without a valid signature", 429)
        answer.headers["Retry-After"] = str(limited.retry_after_s)
        return answer
    return _say(why, 400)


def _say(text: str, status: int) -> Response:
    return Response(f"{text}\n", status, mimetype="text/plain")
