"""The limit beside which `webhooks.py` judges: the same server, and a function that keeps a body in one statement of one transaction.

It looks at no signature, no secret and no outage, and logs nothing: what nobody could leave out and still answer that a delivery is kept.
"""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg

import config
from app.web.server import Server

_KEEP = "insert into kept_at_the_limit values (%s, %s, %s) on conflict do nothing"

settings = config.load(config.environment())
local = threading.local()


def keep(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Keep one delivery once; 200."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(settings.database_url.replace("+psycopg", ""), prepare_threshold=0)
    body = environ["wsgi.input"].read()
    if not body:
        start_response("204 No Content", [])
        return []
    headers = "\n".join(f"{name}: {value}" for name, value in environ.items() if name.startswith("HTTP_"))
    with local.connection.transaction():
        local.connection.execute(_KEEP, (hashlib.sha256(body).digest(), headers, body))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"kept\n"]


server = Server(keep, threads=settings.web_threads, body_timeout_s=settings.request_timeout_s)
