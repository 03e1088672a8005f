"""The door for servers and the flask command: ``flask --app wsgi …``.

`app` is the WSGI application; `server` is the same for Granian's RSGI interface, as bin/run serves it.
"""

import sys

import click
from flask.cli import FlaskGroup

import config
from app import create_app, guard
from app.web import startup
from app.web.server import Server


def _is_command() -> bool:
    """Whether the flask command asks, and not a server, which may be a command of click, too."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.find_root().command, FlaskGroup)


try:
    settings = config.load(config.environment())
    app = create_app(settings)
    if not _is_command():
        startup.check(app)
        with app.app_context():
            guard.at_start(live=guard.live(settings))
except (config.ConfigError, guard.Unprotected) as error:
    sys.exit(str(error))
server = Server(
    app.wsgi_app,
    threads=settings.web_threads,
    body_timeout_s=settings.request_timeout_s,
)
