"""Static files: read once at the start, named by their content, compressed once, served from memory for ever.

The style sheets are authored one file per component and delivered as one sheet, `app.css`; there is no build step. A file's URL
holds the hash of its bytes, so it may be cached without an expiry, and a new version is a new URL.
"""

import gzip
import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256, sha384
from math import cos, radians, sin
from pathlib import Path
from typing import Final

import brotli
from flask import Flask, Response, abort, request
from markupsafe import Markup, escape

from config import Settings

FOLDER: Final = Path(__file__).parents[2] / "static"
SHEETS: Final = ("css/tokens.css", "css/reset.css", "css/base.css", "css/layout.css", "css/components/*.css", "css/utilities.css")
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".png": "image/png",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it travels: its URL, its bytes, and the same bytes compressed where that helps."""

    url: str
    content_type: str
    body: bytes
    encoded: dict[str, bytes]
    integrity: str


class Assets:
    """All static files by their authored name (`js/app.js`), and the one sheet `app.css`."""

    def __init__(self, folder: Path = FOLDER, accent: str = "", mark: str = "") -> None:
        self.folder = folder
        self.accent = accent
        self.mark = mark
        self.read()

    def read(self) -> None:
        """Read every file again: at the start, and in debug mode when one has changed."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.suffix in TYPES and path.suffix != ".css"]
        names = {str(path.relative_to(self.folder)): path for path in files}
        self.by_name = {name: _asset(name, self._own(name, path.read_bytes())) for name, path in names.items()}
        self.by_name["app.css"] = _asset("app.css", self._sheet().encode())
        self.by_url = {asset.url: asset for asset in self.by_name.values()}
        self._icons: dict[tuple[str, str], Markup] = {}
        self._marks = frozenset(re.findall(r'id="pay-(\w+)"', self.by_name["img/icons.svg"].body.decode())) if "img/icons.svg" in self.by_name else frozenset()
        self.stamp = self._newest()

    def refresh(self) -> None:
        """Read again if a file has changed since."""
        if self._newest() != self.stamp:
            self.read()

    def url(self, name: str) -> str:
        """The URL of a file by its authored name. Raises KeyError for one that does not exist."""
        return self.by_name[name].url

    def integrity(self, name: str) -> str:
        """The file's subresource integrity value."""
        return self.by_name[name].integrity

    def icon(self, symbol: str, kind: str = "") -> Markup:
        """An icon of the sprite as inline SVG, hidden from screen readers: the word beside it speaks."""
        known = self._icons.get((symbol, kind))
        if known is None:
            look = kind if kind == "mark" else f"icon {kind}".strip()
            known = Markup('<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>').format(look, self.url("img/icons.svg"), symbol)
            self._icons[symbol, kind] = known
        return known

    def pay_mark(self, mark: str) -> Markup:
        """The mark of a way to pay: drawn where the sprite has it, else its letters. The name beside it speaks."""
        if mark not in self._marks:
            return escape(mark)
        return Markup('<svg width="38" height="24" aria-hidden="true"><use href="{}#pay-{}"/></svg>').format(self.url("img/icons.svg"), mark)

    def _sheet(self) -> str:
        files = [path for pattern in SHEETS for path in sorted(self.folder.glob(pattern))]
        text = "\n".join(_with_plain_colours(path.read_text()) for path in files)
        if self.accent:
            plain = _plain_colour(self.accent)
            text += f"\n@layer base {{ :root {{ --accent: {plain}; }} }}"
            if plain != self.accent:
                known = f":root {{ --accent: {self.accent}; }}"
                text += f"\n@layer base {{ @supports (color: light-dark(red, red)) {{ {known} }} }}"
        text = re.sub(r"url\(\"(?:\.\./)+([^\"]+)\"\)", lambda found: f"url({self.url(found[1])})", text)
        return _without_air(text)

    def _own(self, name: str, body: bytes) -> bytes:
        """The file, with the seller's mark in the place of ours."""
        if not self.mark or name not in {"img/mark.svg", "img/icons.svg"}:
            return body
        if name == "img/mark.svg":
            return self.mark.encode()
        box, inner = re.search(r'viewBox="[^"]+"', self.mark), re.search(r"<svg[^>]*>(.*)</svg>", self.mark, re.DOTALL)
        symbol = f'<symbol id="mark" {box[0] if box else ""}>{inner[1] if inner else ""}</symbol>'
        return re.sub(r'<symbol id="mark".*?</symbol>', lambda _: symbol, body.decode(), count=1, flags=re.DOTALL).encode()

    def _newest(self) -> tuple[int, int]:
        times = [path.stat().st_mtime_ns for path in self.folder.rglob("*") if path.is_file()]
        return len(times), max(times)


def _asset(name: str, body: bytes) -> Asset:
    path = Path(name)
    digest = sha256(body).hexdigest()[:12]
    encoded = {} if path.suffix in {".woff2", ".png"} else {"br": brotli.compress(body), "gzip": gzip.compress(body, 9, mtime=0)}
    return Asset(
        url=f"/static/{path.with_suffix('')}-{digest}{path.suffix}",
        content_type=TYPES[path.suffix],
        body=body,
        encoded=encoded,
        integrity="sha384-" + b64encode(sha384(body).digest()).decode(),
    )


_OKLCH: Final = r"oklch\((\d[\d.]*% [\d.]+ [\d.]+(?: ?/ ?[\d.]+)?)\)"
_PAIR = r"light-dark\(((?:[^(),]|\([^()]*\))+),\s*((?:[^(),]|\([^()]*\))+)\)"


def _with_plain_colours(css: str) -> str:
    """The light colours in sRGB for browsers without `light-dark()`, of which the older ones have no
    `oklch()` either; the rule as written for all others."""
    if "light-dark(" not in css:
        return css
    whole = re.search(r":root \{.*?\n\}", css, re.DOTALL)
    if whole is None:
        raise ValueError("light-dark() is used outside :root, where it has no fallback")
    lines = whole[0].splitlines()
    coloured = [line for line in lines if "light-dark(" in line]
    rest = "\n".join(line for line in lines if "light-dark(" not in line)
    plain = ":root { color-scheme: light;" + "".join(_plain_colour(line) for line in coloured) + "}"
    known = ":root { color-scheme: light dark;" + "".join(coloured) + "}"
    rule = f"{rest}\n{plain}\n@supports (color: light-dark(red, red)) {{ {known} }}"
    return css.replace(whole[0], rule)


def _plain_colour(css: str) -> str:
    """The light one of each pair, without functions that older browsers do not know."""
    light = re.sub(_PAIR, r"\1", css)
    return re.sub(_OKLCH, lambda found: srgb(found[1]), light)


def srgb(oklch: str) -> str:
    """The colour ``lightness% chroma hue [/ alpha]`` of OKLCH as ``#rrggbb[aa]``, cut to what sRGB has."""
    figures, _, alpha = oklch.partition("/")
    lightness, chroma, hue = (float(figure.strip("%")) for figure in figures.split())
    lightness, angle = lightness / 100, radians(hue)
    a, b = chroma * cos(angle), chroma * sin(angle)
    # Björn Ottosson's matrices: OKLab to the cubic roots of cone responses, those to linear light.
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    shown = [round(255 * _encoded(min(max(part, 0.0), 1.0))) for part in linear]
    if alpha.strip():
        shown.append(round(255 * float(alpha)))
    return "#" + "".join(f"{part:02x}" for part in shown)


def _encoded(light: float) -> float:
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _without_air(css: str) -> str:
    css = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))
    css = re.sub(r"(?<=[\w-]): (?=[^{}]*[;}])", ":", css)
    return re.sub(r"\s*([{};,>~])\s*", r"\1", css).replace(";}", "}").strip()


def init(app: Flask, settings: Settings) -> Assets:
    """Serve the static files of this app and give templates the filters `asset`, `integrity`, `icon` and `pay_mark`."""
    assets = Assets(accent=settings.seller.accent, mark=settings.mark)
    app.jinja_env.globals["own_mark"] = Markup(settings.mark)  # noqa: S704 - the operator's own file
    app.jinja_env.filters.update(asset=assets.url, integrity=assets.integrity, icon=assets.icon, pay_mark=assets.pay_mark)
    app.add_url_rule("/static/<path:name>", "static", lambda name: _serve(assets, name))
    if app.debug:
        app.before_request(assets.refresh)
    return assets


def _serve(assets: Assets, name: str) -> Response:
    asset = assets.by_url.get(f"/static/{name}") or abort(404)
    encoding = next((known for known in asset.encoded if request.accept_encodings[known]), "")
    response = Response(asset.encoded.get(encoding, asset.body), content_type=asset.content_type)
    if encoding:
        response.headers["Content-Encoding"] = encoding
    if asset.encoded:
        response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response
