"""The door for servers and the flask command: ``flask --app wsgi …``."""

import sys

import click
from flask.cli import FlaskGroup

import config
from app import create_app, guard


def _is_command() -> bool:
    """Whether the flask command asks, and not a server, which may be a command of click, too."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.find_root().command, FlaskGroup)


try:
    app = create_app(config.load(config.environment()))
    if not _is_command():
        with app.app_context():
            guard.at_start(live=guard.live(config.current()))
except (config.ConfigError, guard.Unprotected) as error:
    sys.exit(str(error))
