"""What a web process looks at before it serves: whether its settings go with its database."""

import logging

from flask import Flask, request

import config
from app import db, origin
from app.origin import SchemaOlder

log = logging.getLogger(__name__)

_UNCHECKED = "database_unchecked"
_PROBES = frozenset({"operations.healthz", "operations.readyz", "operations.metrics", "static"})


def check(app: Flask) -> None:
    """Refuse a database that these settings must not serve. Raises `config.ConfigError`.

    A database that cannot be asked yet is asked again with every page until it answers. Leaves no
    connection behind, so that it may be called before a process forks.
    """
    try:
        with app.app_context():
            try:
                origin.refuse()
            finally:
                db.forget_connections()
    except (*db.UNREACHABLE, SchemaOlder) as error:
        log.warning("Whether this database may be served is looked at later: %s", str(error).partition("\n")[0])
        app.extensions[_UNCHECKED] = True
        app.before_request(lambda: _check_late(app))


def _check_late(app: Flask) -> tuple[str, int] | None:
    if not app.extensions[_UNCHECKED] or request.endpoint in _PROBES:
        return None
    try:
        origin.refuse()
    except SchemaOlder:
        return None  # pages say so by themselves
    except config.ConfigError as refused:
        log.critical("%s", refused)
        return "This site is not set up to be served. Its operator finds the reason in the log.\n", 503
    app.extensions[_UNCHECKED] = False
    return None
