"""The door for servers and the flask command: ``flask --app wsgi …``.

`app` is the WSGI application; `server` is the same for Granian's RSGI interface, as bin/run serves it.
"""

import sys

import config
from app import create_app, db, guard
from app.web import startup
from app.web.server import Server

try:
    settings = config.load(config.environment())
    app = create_app(settings)
    if not db.is_command():
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
