"""The house keeps its own rules. Each rule is a reader of source text, and each is first shown a sample that breaks it."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask, redirect
from werkzeug.routing import Rule

from app.web import gate

HOUSE = Path(__file__).parent.parent
OPENS_TRANSACTIONS = (
    "app/bank",
    "app/customers",
    "app/exchange.py",
    "app/fx/feed.py",
    "app/invoicing",
    "app/mail.py",
    "app/origin.py",
    "app/payments",
    "app/refunds",
    "app/sandbox_processor.py",
    "app/services",
    "app/jobs.py",
    "app/troubles.py",
)
MONEY = ("money", "ledger", "wallet", "fx", "tax", "invoicing", "payments", "services", "refunds", "bank", "remittance", "gateways", "sandbox_processor")
PUBLIC = {
    "operations.healthz": "for the supervisor of the process",
    "operations.readyz": "for the load balancer",
    "operations.metrics": "checks the caller itself: the loopback, through no proxy",
    "static": "style sheets, fonts, scripts",
    "auth.index": "leads to the balance or to the login",
    "auth.login": "the login itself",
    "auth.register": "a new customer",
    "auth.verify": "the link of a mail",
    "auth.undo_email": "the link of a mail to an address that was replaced",
    "auth.billing_email": "the link of a mail to a billing address",
    "auth.reset": "who cannot log in",
    "auth.new_password": "the link of a mail",
    "webhooks.receive": "processors sign what they send",
    "links.show": "a bill that somebody was sent",
    "links.leave": "a bill that somebody was sent",
    "links.top_up": "a top-up that somebody was asked for",
    "links.order": "a top-up that somebody was asked for",
    "links.status": "how a payment by such a link stands",
    "links.invoice": "the papers of who paid by such a link",
    "links.receipt": "the papers of who paid by such a link",
    "sandbox.show": "the pretend processor's own page: another company",
    "sandbox.choose": "the pretend processor's own page: another company",
    "sandbox.happen": "the same",
    "sandbox_mail.inbox": "the demo's mail, only while the sandbox is on",
    "sandbox_mail.read": "the demo's mail, only while the sandbox is on",
    "sandbox_mail.read_html": "the demo's mail, only while the sandbox is on",
}
"""The views that need no login, each with the reason."""


@dataclass(frozen=True)
class Source:
    """One file of the house, read once."""

    path: str
    text: str

    @property
    def calls(self) -> Iterator[tuple[int, str]]:
        """Every call in the file: its line and what is called, as written."""
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Call):
                yield node.lineno, ast.unparse(node.func)


Finder = Callable[[Source], Iterator[int]]


def transaction_outside_the_verbs(source: Source) -> Iterator[int]:
    if not source.path.startswith((*OPENS_TRANSACTIONS, "app/db.py")):
        yield from (line for line, name in source.calls if name.split(".")[-1] == "transaction")


def commit_outside_the_door(source: Source) -> Iterator[int]:
    if source.path != "app/db.py":
        yield from (line for line, name in source.calls if name.endswith(".commit"))


def another_clock(source: Source) -> Iterator[int]:
    foreign = re.compile(r"(.*\.)?(datetime\.(now|utcnow|today)|date\.today)$|time\.(time|time_ns|gmtime|localtime)$")
    if source.path != "app/clock.py":
        yield from (line for line, name in source.calls if foreign.match(name))


def float_near_money(source: Source) -> Iterator[int]:
    if re.match(rf"app/({'|'.join(MONEY)})\b", source.path):
        yield from (line for line, name in source.calls if name == "float")


def environment_outside_config(source: Source) -> Iterator[int]:
    yield from (number for number, line in enumerate(source.text.splitlines(), 1) if re.search(r"\bos\.(environ|getenv)\b|from os import .*(environ|getenv)", line))


def htmx_flask_outside_web(source: Source) -> Iterator[int]:
    if not source.path.startswith("app/web"):
        yield from (number for number, line in enumerate(source.text.splitlines(), 1) if re.match(r"\s*(from|import) htmx_flask", line))


def swallowed_error(source: Source) -> Iterator[int]:
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body):
            yield node.lineno


def unwatched_processor(source: Source) -> Iterator[int]:
    """A call to a processor outside `outages.asking`, by whatever name the gateway has there."""
    verbs = {"checkout", "lookup", "refund", "charge_kept", "enrol", "keep", "forget"}
    if source.path.startswith("app/gateways") or source.path == "app/demo.py":  # the demo plays the processor itself
        return
    tree = ast.parse(source.text)
    within = {id(node) for block in ast.walk(tree) if isinstance(block, ast.With) and "outages.asking(" in ast.unparse(block.items[0]) for node in ast.walk(block)}
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in verbs and id(node) not in within]
    yield from (node.lineno for node in called if ast.unparse(node.func).partition(".")[0] in {"gateway", "keeper", "found"})


def inline_style_or_script(source: Source) -> Iterator[int]:
    inline = re.compile(r"""<style|<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=|\shx-on|\sdata-hx-on|["']js:|["']javascript:|\shx-vals=["']?js|hx-trigger=["'][^"']*\[""")
    if not source.path.startswith(("templates/mail/", "templates/documents/")):
        yield from (number for number, line in enumerate(source.text.splitlines(), 1) if inline.search(line))


@dataclass(frozen=True)
class Reading:
    """A rule, what breaks it, and what looks like breaking it but does not."""

    finder: Finder
    files: str
    bad: Source
    good: Source


READINGS = [
    Reading(
        transaction_outside_the_verbs,
        "app/**/*.py",
        Source("app/wallet.py", "with db.transaction():\n    pass"),
        Source("app/payments/settling.py", "with db.transaction():\n    pass"),
    ),
    Reading(commit_outside_the_door, "app/**/*.py", Source("app/mail.py", "db.session.commit()"), Source("app/mail.py", "committed()")),
    Reading(another_clock, "app/**/*.py", Source("app/fx/feed.py", "import datetime as dt\nday = dt.date.today()"), Source("app/fx/feed.py", "clock.now()\ntime.monotonic()")),
    Reading(float_near_money, "app/**/*.py", Source("app/wallet.py", "share = float(amount)"), Source("app/web/assets.py", "float(x)")),
    Reading(environment_outside_config, "app/**/*.py", Source("app/mail.py", "import os\nurl = os.environ['MAIL_URL']"), Source("app/mail.py", "url = config.current().mail_url")),
    Reading(
        htmx_flask_outside_web, "app/**/*.py", Source("app/blueprints/balance.py", "from htmx_flask import Htmx"), Source("app/web/__init__.py", "from htmx_flask import Htmx")
    ),
    Reading(
        unwatched_processor,
        "app/**/*.py",
        Source("app/payments/watching.py", "snapshot = gateway.lookup(reference)"),
        Source("app/payments/watching.py", "with outages.asking(name, 'lookup', reference):\n    snapshot = gateway.lookup(reference)"),
    ),
    Reading(
        swallowed_error,
        "app/**/*.py",
        Source("app/mail.py", "try:\n    send()\nexcept OSError:\n    pass"),
        Source("app/mail.py", "try:\n    send()\nexcept OSError:\n    log.exception('mail')"),
    ),
    Reading(
        inline_style_or_script,
        "templates/**/*.html",
        Source("templates/x.html", '<p style="color:red">'),
        Source("templates/x.html", '<script src="/static/js/app.js" defer></script>'),
    ),
]
INLINE = [
    "<style>p{}</style>",
    "<script>alert(1)</script>",
    '<a onclick="x()">',
    '<a hx-on:click="x()">',
    "<a hx-vals='js:{}'>",
    '<i hx-trigger="click[ctrlKey]">',
    '<a href="javascript:x()">',
]


def named(reading: Reading) -> str:
    return reading.finder.__name__


@pytest.mark.parametrize("reading", READINGS, ids=named)
def test_the_reader_finds_what_breaks_its_rule_and_only_that(reading: Reading) -> None:
    assert list(reading.finder(reading.bad))
    assert not list(reading.finder(reading.good))


@pytest.mark.parametrize("text", INLINE)
def test_every_way_of_inlining_is_found(text: str) -> None:
    assert list(inline_style_or_script(Source("templates/x.html", text)))


@pytest.mark.parametrize("reading", READINGS, ids=named)
def test_the_house_keeps_the_rule(reading: Reading) -> None:
    sources = list(house(reading.files))
    assert sources
    assert [f"{source.path}:{line}" for source in sources for line in reading.finder(source)] == []


def house(pattern: str) -> Iterator[Source]:
    for file in sorted(HOUSE.glob(pattern)):
        yield Source(str(file.relative_to(HOUSE)), file.read_text())


def missing_targets(templates: list[Source]) -> set[str]:
    """The ids that some ``hx-target`` names and no element has."""
    text = "\n".join(template.text for template in templates)
    wanted = re.findall(r"""hx-target(?::inherited)?=["']#([\w-]+)["']""", text)
    return set(wanted) - set(re.findall(r"""\sid=["']([\w-]+)["']""", text))


def test_every_target_is_an_element() -> None:
    assert missing_targets([Source("templates/x.html", '<a hx-target="#results"><div data-id="results">')]) == {"results"}
    assert missing_targets(list(house("templates/**/*.html"))) == set()


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_only_go_down() -> None:
    done = lint_imports(HOUSE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "text", "contract"),
    [
        ("ledger", "import app.services", "Imports only go down"),
        ("attic", "", "Imports only go down"),
        ("tax", "import flask", "The rooms do not know the web"),
        ("gateways/stripe", "import app.gateways.sandbox", "Gateways know money"),
        ("gateways/stripe", "import app.ledger", "Gateways know no room"),
    ],
)
def test_a_broken_floor_is_named(model: Path, tmp_path: Path, room: str, text: str, contract: str) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "app" / room).mkdir(exist_ok=True)
    (broken / "app" / room / "__init__.py").write_text(text)
    done = lint_imports(broken)
    assert done.returncode != 0
    assert re.search(rf"{contract}.* BROKEN", done.stdout), done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty house with all its rooms, which keeps the contracts."""
    model = tmp_path_factory.mktemp("model")
    shutil.copy(HOUSE / "pyproject.toml", model)
    for name in (".", "gateways", *(module.removeprefix("app.").replace(".", "/") for module in contracts()[2]["modules"]), *floors()):
        folder = model / "app" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    assert lint_imports(model).returncode == 0
    return model


def floors() -> list[str]:
    return [room.strip("()") for layer in contracts()[0]["layers"] for room in re.split(r" [|:] ", layer)]


def contracts() -> list[dict]:
    return tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_every_room_below_the_web_is_kept_from_flask() -> None:
    rooms = floors()
    below = rooms[rooms.index("desk") :]
    standing = {f"app.{room}" for room in below if list((HOUSE / "app").glob(f"{room}*"))}
    assert standing - {"app.db"} == set(contracts()[1]["source_modules"])


def test_every_gateway_is_kept_from_the_others() -> None:
    shared = {"app.gateways.__init__", "app.gateways.base", "app.gateways.http", "app.gateways.stripe_declines", "app.gateways.stripe_methods"}
    modules = {f"app.gateways.{file.stem}" for file in (HOUSE / "app/gateways").glob("*.py")} - shared
    assert modules == set(contracts()[2]["modules"])


def example(rule: Rule) -> str:
    """A path that this rule takes."""
    samples = {"IntegerConverter": "1", "DateConverter": "2026-01-31", "UUIDConverter": "00000000-0000-0000-0000-000000000000"}
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda part: samples.get(type(rule._converters[part[1]]).__name__, "x"), rule.rule)


def unguarded(app: Flask) -> set[str]:
    """The endpoints that answer a visitor who is not logged in with anything but the way to the login."""
    client, open_ones = app.test_client(), set()
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) & {"GET", "POST", "PUT", "DELETE", "PATCH"}):
            answer = client.open(example(rule), method=method)
            if not (answer.status_code in {302, 303} and str(answer.location).startswith("/login")):
                open_ones.add(rule.endpoint)
    return open_ones


def test_an_unguarded_page_is_found() -> None:
    app = Flask("sample", static_folder=None)
    app.add_url_rule("/open/<int:number>", "open", lambda number: f"page {number}")
    app.add_url_rule("/closed", "closed", lambda: redirect("/login?next=/closed"))
    assert unguarded(app) == {"open"}


def test_the_listed_views_and_no_others_let_everybody_in(app: Flask) -> None:
    assert {endpoint for endpoint in app.view_functions if gate.audience(endpoint) == "public"} == set(PUBLIC)


def test_every_other_page_wants_a_login(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "WTF_CSRF_ENABLED", False)
    assert unguarded(app) - set(PUBLIC) == set()


def problems_of_lock(text: str) -> list[str]:
    """What a lock file must not hold: an address, or a requirement without an exact version and hashes."""
    addresses = re.findall(r"https?://\S+|file:\S+|^-.*", text, flags=re.MULTILINE)
    requirements = re.split(r"\n(?=[a-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).strip())
    return addresses + [entry.splitlines()[0] for entry in requirements if not re.match(r"[\w.\[\],-]+==[^\s]+ ", entry) or "--hash=sha256:" not in entry]


@pytest.mark.parametrize(
    "bad",
    [
        "flask>=3 \\\n    --hash=sha256:00",
        "flask==3.1",
        "--find-links wheels\nflask==3.1 \\\n    --hash=sha256:00",
        "flask @ https://example.com/flask.whl \\\n    --hash=sha256:00",
    ],
)
def test_a_loose_lock_is_found(bad: str) -> None:
    assert problems_of_lock(bad)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_locks_name_versions_and_hashes_and_no_registry(name: str) -> None:
    assert problems_of_lock((HOUSE / name).read_text()) == []
