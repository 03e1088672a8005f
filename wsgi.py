"""The door for servers and the flask command: ``flask --app wsgi …``.

`app` is the WSGI application; `server` is the same for Granian's RSGI interface, as bin/run serves it.
"""

import sys

import config
from app import create_app
from app.web.server import Server

try:
    settings = config.load(config.environment())
except config.ConfigError as error:
    sys.exit(str(error))
app = create_app(settings)
server = Server(
    app.wsgi_app,
    threads=settings.web_threads,
    body_timeout_s=settings.request_timeout_s,
)
