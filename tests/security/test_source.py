"""What the source must not contain. Each rule reads source text and is first shown what breaks it."""

import ast
import importlib
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PATTERN_CALLS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}


@dataclass(frozen=True)
class Source:
    """One file of the project."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The file as Python reads it."""
        return parsed(self.text)

    @property
    def calls(self) -> Iterator[ast.Call]:
        """Every call in the file."""
        return iter(calls_of(self.text))

    @property
    def imports(self) -> Iterator[tuple[int, str]]:
        """Every imported module with its line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from ((node.lineno, name) for name in names)


@cache
def parsed(text: str) -> ast.Module:
    """A text as Python reads it, once."""
    return ast.parse(text)


@cache
def calls_of(text: str) -> tuple[ast.Call, ...]:
    """Every call in a text, once."""
    return tuple(node for node in ast.walk(parsed(text)) if isinstance(node, ast.Call))


Finder = Callable[[Source], Iterator[int]]


@cache
def called(call: ast.Call) -> str:
    """What is called, as written."""
    return ast.unparse(call.func)


def keyword(call: ast.Call, name: str) -> str:
    """The value of a keyword argument, as written; nothing when it is not given."""
    found = (ast.unparse(entry.value) for entry in call.keywords if entry.arg == name)
    return next(found, "")


def code_from_text(source: Source) -> Iterator[int]:
    """Text that is run as a program."""
    forbidden = {"eval", "exec", "compile", "__import__"}
    yield from (call.lineno for call in source.calls if called(call) in forbidden)


def objects_from_bytes(source: Source) -> Iterator[int]:
    """Formats that make objects of whatever class the bytes name."""
    forbidden = re.compile(r"(pickle|cPickle|marshal|shelve|dill|jsonpickle|yaml|xmlrpc)\b")
    yield from (line for line, name in source.imports if forbidden.match(name))


def shell(source: Source) -> Iterator[int]:
    """A command that a shell takes apart."""
    names = re.compile(r"os\.(system|popen|spawn\w*|exec\w*)$|subprocess\.(getoutput|getstatusoutput)$")
    for call in source.calls:
        if names.match(called(call)) or keyword(call, "shell") not in {"", "False"}:
            yield call.lineno


def unverified_tls(source: Source) -> Iterator[int]:
    """A connection that takes any certificate."""
    words = re.compile(
        r"verify\s*=\s*False|CERT_NONE|CERT_OPTIONAL|_create_unverified_context"
        r"|check_hostname\s*=\s*False|assert_hostname\s*=\s*False|disable_warnings"
    )
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


def followed_redirect(source: Source) -> Iterator[int]:
    """A call over HTTP that may be sent elsewhere."""
    for call in source.calls:
        name = called(call)
        if re.search(r"pool\.(request|urlopen)$", name) and keyword(call, "redirect") != "False":
            yield call.lineno
        if name in {"urllib.request.urlopen", "requests.get", "requests.post", "requests.request"}:
            yield call.lineno


def weak_digest(source: Source) -> Iterator[int]:
    """A broken hash function, or one chosen by a name."""
    weak = re.compile(r"(hashlib\.)?(md4|md5|sha1|new)$|hashes\.(MD5|SHA1)$")
    yield from (call.lineno for call in source.calls if weak.fullmatch(called(call)))
    yield from (line for line, name in source.imports if re.fullmatch(r"hashlib\.(md5|sha1)", name))


def own_encryption(source: Source) -> Iterator[int]:
    """Ciphers of our own: nothing is encrypted here, so no mode or padding can be the wrong one."""
    words = re.compile(r"(Crypto|cryptography\.(fernet|hazmat\.primitives\.ciphers))\b")
    yield from (line for line, name in source.imports if words.match(name))
    names = (call for call in source.calls if re.search(r"\.(encrypt|decrypt)$", called(call)))
    yield from (call.lineno for call in names)


def guessable(source: Source) -> Iterator[int]:
    """Random numbers that can be foretold."""
    yield from (line for line, name in source.imports if re.match(r"(random|uuid)\b", name))


SHORT_NAMES = {
    ("app/web/faults.py", 6): "the reference of a request: a name, no secret",
    ("app/sandbox_processor.py", 12): "names of the pretend processor, which holds no money",
}


def short_secret(source: Source) -> Iterator[int]:
    """A random text of less than 128 bits."""
    for call in source.calls:
        if re.fullmatch(r"(secrets\.)?token_(hex|urlsafe|bytes)", called(call)):
            size = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else 0
            if size < 16 and (source.path, size) not in SHORT_NAMES:
                yield call.lineno
        if re.fullmatch(r"secrets\.(choice|randbelow|randbits)", called(call)):
            yield call.lineno


def loose_xml(source: Source) -> Iterator[int]:
    """XML read by a parser that expands entities or asks the network."""
    wanted = {"resolve_entities": "False", "no_network": "True", "load_dtd": "False", "huge_tree": "False"}
    for call in source.calls:
        name = called(call)
        if name.endswith("XMLParser") and any(keyword(call, key) != value for key, value in wanted.items()):
            yield call.lineno
        if re.search(r"etree\.(fromstring|parse|XML|iterparse)$", name) and "XMLParser(" not in ast.unparse(call):
            yield call.lineno
    others = re.compile(r"xml\.(etree|dom|sax)|xmltodict")
    yield from (line for line, name in source.imports if others.match(name))


def built_xpath(source: Source) -> Iterator[int]:
    """A path through XML that is put together from text."""
    for call in source.calls:
        if re.search(r"\.(xpath|find|findall|iterfind|findtext)$", called(call)) and call.args:
            first = call.args[0]
            built = isinstance(first, ast.JoinedStr | ast.BinOp)
            if built or called(call).endswith(".xpath"):
                yield call.lineno


def built_pattern(source: Source) -> Iterator[int]:
    """A regular expression that is put together from a value without escaping it."""
    for call in source.calls:
        if re.fullmatch(rf"re\.({'|'.join(PATTERN_CALLS)})", called(call)) and call.args:
            names = [node for node in ast.walk(call.args[0]) if isinstance(node, ast.Name | ast.Attribute)]
            values = [ast.unparse(node) for node in names if not ast.unparse(node).lstrip("_").isupper()]
            if values and "re.escape(" not in ast.unparse(call.args[0]):
                yield call.lineno


def built_template(source: Source) -> Iterator[int]:
    """A template whose text comes from a value."""
    yield from (call.lineno for call in source.calls if called(call).split(".")[-1] in {"render_template_string", "from_string", "Template"})


def built_format(source: Source) -> Iterator[int]:
    """A format string that is a value: it could name attributes."""
    for call in source.calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"format", "format_map"}:
            text = call.func.value
            marked = isinstance(text, ast.Call) and called(text) == "Markup" and isinstance(text.args[0], ast.Constant)
            if not isinstance(text, ast.Constant | ast.JoinedStr) and not marked:
                yield call.lineno


def declared_safe(source: Source) -> Iterator[int]:
    """Text that is declared to be HTML without being escaped."""
    if source.path.endswith(".py"):
        marks = {"Markup", "markupsafe.Markup"}
        yield from (call.lineno for call in source.calls if called(call) in marks)
        return
    words = re.compile(r"\|\s*safe\b|autoescape\s+false|Markup\(|\b_\([a-z]")
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


def html_from_script(source: Source) -> Iterator[int]:
    """A script that makes HTML or code from text."""
    words = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        r"|createContextualFragment|DOMParser|setHTML|srcdoc|postMessage"
    )
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


def polluted_prototype(source: Source) -> Iterator[int]:
    """A script that writes under a name from outside, or compares loosely."""
    words = re.compile(
        r"__proto__|\.prototype\b|JSON\.parse|\bfor\s*\([^)]*\bin\b|Object\.assign\(\s*\{"
        r"|\w\[[^\]]+\]\s*=[^=]|[^=!]==[^=]|!=[^=]"
    )
    lines = enumerate(source.text.splitlines(), 1)
    code = ((number, re.sub(r'"[^"]*"|`[^`]*`|//.*', '""', line)) for number, line in lines)
    yield from (number for number, line in code if words.search(line))


def browser_storage(source: Source) -> Iterator[int]:
    """A script that keeps something in the browser besides the choice of colours."""
    words = re.compile(r"localStorage|sessionStorage|indexedDB|caches\.|serviceWorker")
    cookie = re.compile(r"document\.cookie\s*=")
    for number, line in enumerate(source.text.splitlines(), 1):
        if words.search(line) or (cookie.search(line) and "theme=" not in line):
            yield number


def old_technology(source: Source) -> Iterator[int]:
    """Elements of browsers that are not supported any more, and frames of other pages."""
    words = re.compile(r"<(object|embed|applet|frame|iframe|frameset|marquee)\b", re.IGNORECASE)
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


SPEAKERS = {
    "app/gateways/http.py": "processors, at the addresses of the settings",
    "app/gateways/stripe.py": "Stripe's own library, at STRIPE_API_BASE",
    "app/gateways/stripe_cards.py": "the same",
    "app/fx/feed.py": "the feed of rates, at FX_URL",
    "app/mail.py": "the mail server of MAIL_URL",
    "app/outside.py": "nobody by itself: it gives the calls of the others their deadline",
    "app/customers/vies.py": "the register of VAT IDs, at VIES_URL",
    "app/sandbox_processor.py": "this very house: the pretend processor's webhooks",
}


def speaks_outside(source: Source) -> Iterator[int]:
    """A module that reaches the network and is not on the list."""
    words = re.compile(r"(urllib3|urllib\.request|requests|http\.client|httpx|socket|smtplib|ftplib|stripe)(\.|$)")
    if source.path not in SPEAKERS:
        yield from (line for line, name in source.imports if words.match(name))


def leads_away(source: Source) -> Iterator[int]:
    """A redirect that does not go through the check of addresses."""
    yield from (call.lineno for call in source.calls if called(call).split(".")[-1] == "redirect")
    names = re.compile(r"""["'](Location|HX-Redirect|HX-Location|HX-Push-Url)["']""")
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if names.search(line))


def written_to_elsewhere(source: Source) -> Iterator[int]:
    """A log that goes anywhere but to standard error."""
    words = re.compile(r"\w*Handler$|logging\.(basicConfig|config)|dictConfig")
    for call in source.calls:
        name = called(call)
        if words.search(name) and name not in {"logging.StreamHandler", "log.addHandler", "log.removeHandler", "root.addHandler"}:
            yield call.lineno


def form_as_a_whole(source: Source) -> Iterator[int]:
    """A form handed on whole, so that a field more would be a value more."""
    words = re.compile(r"\*\*\s*request\.(form|args|values|json)|request\.(json|get_json|values|files)\b|populate_obj")
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


def debugging(source: Source) -> Iterator[int]:
    """What shows the inside of the program to whoever asks."""
    words = re.compile(r"debug\s*=\s*True|app\.run\(|set_trace\(|breakpoint\(|DebuggedApplication")
    lines = enumerate(source.text.splitlines(), 1)
    yield from (number for number, line in lines if words.search(line))


@dataclass(frozen=True)
class Rule:
    """What must not be, where it is looked for, and texts that break it and do not."""

    finder: Finder
    files: str
    bad: tuple[str, ...]
    good: str


ALLOWED = {
    ("guessable", "app/demo.py", "from random import Random"): "the demo tells a story by a seed",
    ("built_xpath", "app/bank/camt.py", "{who}"): "Dbtr or Cdtr, chosen by the sign of the amount",
    ("built_xpath", "app/bank/camt.py", "{whose}"): "the same",
    ("built_xpath", "app/bank/camt.py", "{name}/Dt"): "names of this module",
    ("built_xpath", "app/bank/camt.py", "{name}/Amt"): "names of this module",
    ("built_xpath", "app/bank/camt.py", "{report.tag}Pgntn/PgNb"): "names of this module",
    ("built_xpath", "app/fx/feed.py", "{_CUBE}"): "a constant",
    ("built_pattern", "app/remittance.py", "_NUMBER = re.compile("): "constants of this module",
    ("built_pattern", "app/invoicing/search.py", "{digits}"): "how many decimals a currency has",
    ("built_pattern", "app/ledger/filter.py", "re.fullmatch(plain, text)"): "the same",
    ("built_pattern", "app/money.py", "re.compile(shape)"): "the marks of a locale, escaped",
    ("built_pattern", "app/mail.py", "_TOP_LEVEL.split()"): "a constant of this module",
    ("built_pattern", "app/remittance.py", "_WORDS)"): "the same",
    ("built_pattern", "app/remittance.py", "{'|'.join(SERIES)}"): "the same",
    ("built_pattern", "app/money.py", "{sign}"): "a constant of the function",
    ("built_format", "app/cli/people.py", "_OBSTACLES["): "a table of this module",
    ("built_format", "app/db.py", "SQL("): "the driver's own quoting of names",
    ("built_format", "app/guard/protect.py", "connection.execute("): "the same, for constants of this module",
    ("built_format", "app/blueprints/staff_held.py", "SAID[state]"): "a table of this module",
    ("built_format", "app/blueprints/staff_refunds.py", "SAID["): "the same",
    ("built_format", "app/formats.py", "pattern.format(at, day)"): "a pattern of the locale's own data",
    ("built_format", "app/invoicing/search.py", "_COUNT.format"): "a constant of this module",
    ("built_format", "app/wallet/reading.py", "_TEXTS_FOUND.format"): "the same",
    ("declared_safe", "app/mail.py", "Markup("): "constants; the values are escaped",
    ("declared_safe", "app/web/assets.py", "Markup("): "constants, and the operator's own mark",
    ("declared_safe", "app/invoicing/paper.py", "Markup(config."): "the operator's own mark",
    ("declared_safe", "templates/components/movement.html", "{% autoescape false %}"): "its view has escaped every cell",
    ("leads_away", "app/blueprints/sandbox.py", "redirect("): "the pretend processor sends the payer back",
}
"""What a rule lets pass: the rule, the file, what stands in the line; and why."""


def allowance(rule: Rule, source: Source, line: int) -> tuple[str, str, str] | None:
    """The entry of `ALLOWED` that lets a line pass."""
    text = source.text.splitlines()[line - 1]
    name = rule.finder.__name__
    known = (key for key in ALLOWED if key[:2] == (name, source.path) and key[2] in text)
    return next(known, None)


PYTHON = "app/**/*.py"
RULES = [
    Rule(code_from_text, PYTHON, ("eval(text)", "exec('x = 1')"), "re.compile('x')"),
    Rule(objects_from_bytes, PYTHON, ("import pickle", "from yaml import load"), "import json"),
    Rule(shell, PYTHON, ("os.system(command)", "subprocess.run(words, shell=True)"), "subprocess.run([program])"),
    Rule(unverified_tls, PYTHON, ("get(url, verify=False)", "context.check_hostname = False"), "verify(password)"),
    Rule(followed_redirect, PYTHON, ("_pool.request('GET', url)", "requests.get(url)"), "_pool.request('GET', url, redirect=False)"),
    Rule(weak_digest, PYTHON, ("hashlib.md5(x)", "hashlib.new(name)", "from hashlib import sha1"), "hashlib.sha256(x)"),
    Rule(own_encryption, PYTHON, ("from cryptography.fernet import Fernet", "key.encrypt(x)"), "key.verify(x)"),
    Rule(guessable, PYTHON, ("import random", "from uuid import uuid4"), "import secrets"),
    Rule(short_secret, PYTHON, ("secrets.token_hex(8)", "secrets.token_urlsafe()", "secrets.randbelow(9)"), "secrets.token_hex(16)"),
    Rule(loose_xml, PYTHON, ("etree.fromstring(x)", "etree.XMLParser(no_network=True)", "import xml.etree.ElementTree"), "etree.tostring(x)"),
    Rule(built_xpath, PYTHON, ("e.find(f'a/{x}')", "e.xpath(p)"), "e.find('a/b')"),
    Rule(built_pattern, PYTHON, ("re.search(f'{word}+', text)", "re.match(asked, text)"), "re.search(f'{re.escape(word)}', text)"),
    Rule(built_template, PYTHON, ("render_template_string(x)", "env.from_string(x)"), "env.get_template('x')"),
    Rule(built_format, PYTHON, ("text.format(x)", "Markup(text).format(x)"), "'{}'.format(x)"),
    Rule(declared_safe, PYTHON, ("Markup(name)",), "escape(name)"),
    Rule(declared_safe, "templates/**/*", ("{{ name | safe }}", "{% autoescape false %}", "{{ _(reason) }}"), "{{ name }}"),
    Rule(html_from_script, "static/js/app.js", ("a.innerHTML = b", "eval(x)"), "a.textContent = b"),
    Rule(polluted_prototype, "static/js/app.js", ("a[b] = c", "JSON.parse(x)", "if (a == b)"), "if (a === b) c.d = e"),
    Rule(browser_storage, "static/js/app.js", ("localStorage.x = 1", "document.cookie = 'a=b'"), "document.cookie = `theme=${x}`"),
    Rule(old_technology, "templates/**/*.html", ("<object data=x>", "<iframe src=x>"), "<main>"),
    Rule(speaks_outside, PYTHON, ("import socket", "from urllib.request import urlopen", "import smtplib"), "from urllib.parse import quote"),
    Rule(leads_away, "app/blueprints/*.py", ("return redirect(url)", "headers['HX-Redirect'] = url"), "return web.go(path)"),
    Rule(written_to_elsewhere, PYTHON, ("logging.FileHandler('x')", "logging.basicConfig()"), "logging.StreamHandler(sys.stderr)"),
    Rule(form_as_a_whole, "app/blueprints/*.py", ("save(**request.form)", "form.populate_obj(user)", "request.get_json()"), "request.form.get('x')"),
    Rule(debugging, "**/*.py", ("app.run(debug=True)", "breakpoint()"), "app.debug"),
]


def named(rule: Rule) -> str:
    return f"{rule.finder.__name__}-{rule.files.split('/')[0]}"


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_rule_finds_what_breaks_it_and_only_that(rule: Rule) -> None:
    path = rule.files.replace("**/*.py", "sample.py").replace("*.py", "sample.py").replace("**/*", "sample").replace("*", "sample")
    assert [text for text in rule.bad if not list(rule.finder(Source(path, text)))] == []
    assert not list(rule.finder(Source(path, rule.good)))


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_source_keeps_the_rule(rule: Rule) -> None:
    sources = list(files(rule.files))
    assert sources
    broken = [(source, line) for source in sources for line in rule.finder(source)]
    passing = {allowance(rule, source, line) for source, line in broken} - {None}
    assert [f"{source.path}:{line}" for source, line in broken if not allowance(rule, source, line)] == []
    mine = {key for key in ALLOWED if key[0] == rule.finder.__name__ and key[1].split("/")[0] == rule.files.split("/")[0]}
    assert mine - passing == set(), "allowed and not there any more"


def files(pattern: str) -> Iterator[Source]:
    """The project's own files of a pattern."""
    foreign = (".venv", "tests", "instance", "migrations", "benchmarks")
    for file in sorted(PROJECT.glob(pattern)):
        path = file.relative_to(PROJECT)
        if file.is_file() and path.parts[0] not in foreign:
            yield Source(str(path), file.read_text())


def test_every_speaker_of_the_list_still_speaks() -> None:
    texts = {path: (PROJECT / path).read_text() for path in SPEAKERS}
    assert {path for path, text in texts.items() if not re.search(r"urllib|smtplib|stripe", text)} == set()


# Regular expressions


def patterns() -> Iterator[tuple[str, int, "re.Pattern[str]"]]:
    """Every constant pattern of the app, compiled."""
    for source in files(PYTHON):
        for call in source.calls:
            if re.fullmatch(rf"re\.({'|'.join(PATTERN_CALLS)})", called(call)) and call.args:
                text = call.args[0]
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(call) else 0
                    yield source.path, call.lineno, re.compile(text.value, flags)


EVIL = [
    *(letter * 1024 + "!" for letter in "a0 -._@':/|{<\n"),
    "a@" * 512,
    "a." * 512 + "@",
    "a@" + "a." * 512,
    "(a+)+$" * 170,
    "1 2 " * 256 + "x",
    "<a " * 340,
    "{{" * 512,
    "\u00a0\u202f" * 512 + "=",
]
BUDGET_S = 0.05


def slowest(pattern: "re.Pattern[str]") -> float:
    """The processor's time for the worst of the texts, in seconds; the better of two tries."""
    worst = 0.0
    for text in EVIL:
        took = once(pattern, text)
        if took > BUDGET_S:
            took = min(took, once(pattern, text))
        worst = max(worst, took)
        if worst > BUDGET_S:
            break
    return worst


def once(pattern: "re.Pattern[str]", text: str) -> float:
    """The processor's time of one try."""
    began = time.process_time()
    pattern.search(text)
    pattern.fullmatch(text)
    return time.process_time() - began


def test_no_pattern_takes_long_for_any_text() -> None:
    known = list(patterns())
    assert len(known) > 40
    slow = [f"{path}:{line} {took:.3f} s" for path, line, pattern in known if (took := slowest(pattern)) > BUDGET_S]
    assert slow == []


def test_a_pattern_that_takes_long_is_seen() -> None:
    assert slowest(re.compile(r"a*a*b")) > BUDGET_S


# Components


def test_no_cache_server_stands_between_two_people() -> None:
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[>=<]", entry)[0].lower() for entry in wanted}
    assert names & {"redis", "pymemcache", "python-memcached", "flask-caching", "cachelib"} == set()


SECRET = re.compile(
    r"sk_live_[0-9A-Za-z]{16}|rk_live_[0-9A-Za-z]{16}|whsec_[0-9A-Za-z]{24}|AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|xox[bp]-[0-9A-Za-z-]{20}|ghp_[0-9A-Za-z]{36}"
)


def test_no_secret_stands_in_the_repository() -> None:
    assert SECRET.search("STRIPE=sk_live_" + "0123456789abcdef")
    folders = ("app", "bin", "docs", "migrations", "static/js", "templates", "tests", "benchmarks", ".")
    found = []
    for folder in folders:
        for file in (PROJECT / folder).glob("**/*" if folder != "." else "*"):
            if file.is_file() and file.name != ".env" and file.stat().st_size < 1_000_000:
                text = file.read_text(errors="ignore")
                found += [f"{file.name}: {match[0][:12]}" for match in SECRET.finditer(text) if "Canary" not in match[0]]
    assert found == []
    ignored = (PROJECT / ".gitignore").read_text().split()
    assert {".env", "instance/"} <= {line.lstrip("/") for line in ignored}


def test_no_migration_makes_a_user() -> None:
    texts = [file.read_text().lower() for file in (PROJECT / "migrations/versions").glob("*.py")]
    assert texts
    assert [text for text in texts if re.search(r"insert\s+into\s+users\b|create role \w+ login|password '", text)] == []


def test_random_numbers_come_from_the_systems_generator() -> None:
    secrets = importlib.import_module("secrets")
    assert type(secrets.SystemRandom()).__name__ == "SystemRandom"
    assert {len(secrets.token_urlsafe(32)) for _ in range(50)} == {43}
    assert len({secrets.token_urlsafe(32) for _ in range(500)}) == 500
