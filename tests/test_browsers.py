"""The oldest browsers that docs/browsers.md promises: nothing newer stands in the style sheets and scripts without a fallback."""

import re
from pathlib import Path

import pytest

from app.web import assets

HOUSE = Path(__file__).parent.parent
Versions = tuple[float, float, float]
"""Of Chrome, Firefox and Safari."""

NEEDED: dict[str, Versions] = {
    r"@layer": (99, 97, 15.4),
    r":has\(": (105, 121, 15.4),
    r":is\(": (88, 78, 14),
    r":not\([^()]*,": (88, 84, 9),
    r":focus-visible": (86, 85, 15.4),
    r"\binset\b": (87, 66, 14.1),
    r"inset-(?:block|inline)": (87, 63, 14.1),
    r"(?:margin|padding|border)-(?:block|inline)\b": (87, 66, 14.1),
    r"border-(?:start|end)-": (89, 66, 15),
    r"(?<![\w-])translate:": (104, 72, 14.1),
    r"\b(?:min|max|clamp)\(": (79, 75, 13.1),
    r"\bgap:": (84, 63, 14.1),
    r"(?<![\w-])appearance:": (84, 80, 15.4),
    r"aspect-ratio:": (88, 89, 15),
    r"place-items": (59, 45, 11),
}
"""What the design cannot do without."""
WITH_FALLBACK = {
    r"light-dark\(": "inside @supports, plain colours before it",
    r"oklch\(": "inside @supports, plain colours before it; elsewhere after another colour",
    r"dvh": "after the same in vh",
    r"text-wrap": "lines break elsewhere",
    r"scrollbar-gutter": "a page moves a little",
    r"accent-color": "boxes are blue",
    r"text-underline-offset": "a line lies closer",
}
KNOWN_AT = {"@layer", "@media", "@supports", "@keyframes", "@font-face"}
KNOWN_PSEUDO = {
    *(":has", ":is", ":not", ":root", ":hover", ":focus", ":focus-visible", ":focus-within", ":checked", ":disabled", ":empty"),
    *(":first-child", ":last-child", ":only-child", ":nth-child", ":first-of-type", "::before", "::after", "::selection"),
    *("::placeholder", "::-webkit-details-marker"),
}
KNOWN_FUNCTIONS = {
    *("var", "calc", "min", "clamp", "minmax", "repeat", "format", "oklch", "light-dark", "inset", "linear-gradient", "cubic-bezier"),
    *("is", "not", "has", "nth-child"),
}
"""What is newer than all of these is added here with its versions above, or with its fallback."""
SCRIPTS: dict[str, Versions] = {
    r"\.findLast\(": (97, 104, 15.4),
    r"\.at\(": (92, 90, 15.4),
    r"\?\?=": (85, 79, 14),
    r"\?\.": (80, 74, 13.1),
    r"replaceChildren\(": (86, 78, 14),
    r"#\w+\(": (84, 90, 15),
    r"\.replaceAll\(": (85, 77, 13.1),
    r"\.matchAll\(": (73, 67, 13),
    r"new ClipboardItem": (0, 0, 0),
    r"parseHTMLUnsafe\?\.": (0, 0, 0),
}
"""Zero: what the script does without where it is not there."""
TOO_NEW = (
    r"\.toSorted\(|\.toReversed\(|\.toSpliced\(|\.with\(|structuredClone|Object\.groupBy|Promise\.withResolvers|Array\.fromAsync"
    r"|\(\?<[=!]|static\s*\{|URLPattern|showPopover|AbortSignal\.(?:any|timeout)|Object\.hasOwn|\.group\(|import\("
)


@pytest.fixture(scope="module")
def sheet() -> str:
    return assets.Assets().by_name["app.css"].body.decode()


@pytest.fixture(scope="module")
def scripts() -> str:
    return "\n".join((HOUSE / "static/js" / name).read_text() for name in ("app.js", "htmx.min.js"))


def promised() -> Versions:
    table = (HOUSE / "docs/browsers.md").read_text().partition("\n\n")[0]
    found = [float(line.split("|")[2]) for line in table.splitlines() if re.match(r"\| (Chrome|Firefox|Safari)", line)]
    chrome, firefox, safari = found
    return chrome, firefox, safari


def test_the_promise_is_what_the_files_need(sheet: str, scripts: str) -> None:
    used = [versions for pattern, versions in NEEDED.items() if re.search(pattern, sheet)]
    used += [versions for pattern, versions in SCRIPTS.items() if re.search(pattern, scripts)]
    assert tuple(max(column) for column in zip(*used, strict=True)) == promised()


def test_nothing_unknown_is_used(sheet: str, scripts: str) -> None:
    bare = re.sub(r'"[^"]*"|url\([^)]*\)', "", sheet)
    selectors = re.sub(r"\{[^{}]*\}", "{}", bare)
    assert set(re.findall(r"@[a-z-]+", bare)) <= KNOWN_AT
    assert set(re.findall(r"::?[a-z-]+", selectors)) <= KNOWN_PSEUDO
    assert set(re.findall(r"(?<![\w-])([a-z-]+)\(", bare)) <= KNOWN_FUNCTIONS
    assert not re.search(r"\(\s*(?:width|height)\s*[<>]", bare), "ranges in @media"
    assert "&" not in bare, "nesting"
    assert not re.search(TOO_NEW, scripts)


def test_colours_that_are_newer_stand_behind_older_ones(sheet: str) -> None:
    plain = re.sub(r"@supports \(color: ?light-dark\(red, ?red\)\)\{:root\{[^{}]*\}\}", "", sheet)
    assert "light-dark(" not in plain
    for rule in re.findall(r"\{([^{}]*)\}", plain):
        for name in re.findall(r"([\w-]+):oklch\(", rule):
            assert re.search(rf"(?<![\w-]){name}:#", rule), rule
    heights = re.findall(r"((?:min-|max-)?height:100)dvh", plain)
    assert len(heights) >= 3
    assert all(f"{height}vh;{height}dvh" in plain for height in heights)


def test_every_older_token_is_a_colour(sheet: str) -> None:
    tokens = re.search(r":root\{color-scheme:light;([^{}]*)\}", sheet)
    assert tokens
    values = [line.partition(":")[2] for line in tokens[1].split(";")]
    assert len(values) >= 20
    assert all(re.fullmatch(r"#(?:[0-9a-f]{6}|[0-9a-f]{8})|transparent", value) for value in values)
