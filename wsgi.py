"""The door for servers and the flask command: ``flask --app wsgi …``."""

import sys

import click

import config
from app import create_app, guard

try:
    app = create_app(config.load(config.environment()))
    if click.get_current_context(silent=True) is None:  # a server, not a command
        with app.app_context():
            guard.at_start(live=guard.live(config.current()))
except (config.ConfigError, guard.Unprotected) as error:
    sys.exit(str(error))
