"""The door for servers and the flask command: ``flask --app wsgi …``."""

import os

import config
from app import create_app

app = create_app(config.load(os.environ))
