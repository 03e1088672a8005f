"""The sandbox's mailbox: every mail the house wrote, to read instead of a real mailbox. Exists only while the sandbox is on."""

import base64
import hashlib
import re

from flask import Blueprint, Response, abort, make_response
from flask.blueprints import BlueprintSetupState

import config
from app import mail, web
from app.web import gate

sandbox_mail = Blueprint("sandbox_mail", __name__, url_prefix="/sandbox/mail")


@sandbox_mail.record
def tell_templates(state: BlueprintSetupState) -> None:
    """Let pages that speak of a mail link to it while the sandbox is on."""
    state.app.jinja_env.globals["sandbox"] = config.current().sandbox


@sandbox_mail.before_request
def only_in_the_sandbox() -> None:
    """With a real processor these pages do not exist."""
    if not config.current().sandbox:
        abort(404)


@sandbox_mail.get("")
@gate.public
def inbox() -> Response:
    """The newest hundred mails."""
    return web.page("sandbox/inbox.html", letters=mail.newest(100))


@sandbox_mail.get("/<int:mail_id>")
@gate.public
def read(mail_id: int) -> Response:
    """One mail as text, its links to follow."""
    return web.page("sandbox/mail.html", letter=mail.find(mail_id) or abort(404))


@sandbox_mail.get("/<int:mail_id>/html")
@gate.public
def read_html(mail_id: int) -> Response:
    """One mail as a mail program draws it, with its own style sheet allowed and nothing else."""
    letter = mail.find(mail_id)
    if letter is None or letter.html is None:
        abort(404)
    answer = make_response(letter.html)
    styles = re.findall(r"<style>(.*?)</style>", letter.html, re.DOTALL)
    sources = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" for style in styles) or "'none'"
    answer.headers["Content-Security-Policy"] = f"default-src 'none'; style-src {sources}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    return answer
