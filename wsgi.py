"""The door for servers and the flask command: ``flask --app wsgi …``."""

import sys

import config
from app import create_app

try:
    app = create_app(config.load(config.environment()))
except config.ConfigError as error:
    sys.exit(str(error))
