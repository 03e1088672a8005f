"""The door for servers and the flask command: ``flask --app wsgi …``."""

import sys

import config
from app import create_app
from app.web import startup

try:
    app = create_app(config.load(config.environment()))
    startup.check(app)
except config.ConfigError as error:
    sys.exit(str(error))
