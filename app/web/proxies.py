"""Who is really asking: what a proxy in front says of it, believed only from the proxies we know.

A proxy is known by its network address, not by a number of hops: a count believes whoever reaches the
server past the proxy, and is wrong as soon as one request comes by another way. The chain of
X-Forwarded-For is read from its end, where each known proxy wrote who spoke to it; the first address that
is no proxy of ours is the visitor. What stands before it the visitor wrote, and is not read.
"""

import logging
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from app import logs
from config import Settings

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines that know our address and not our name: the Host of these says nothing."""
FORWARDED: Final = "client_area.forwarded"
"""In a request's environment when it came through a proxy, believed or not."""
HEADERS: Final[tuple[str, ...]] = (
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)
LONGEST_CHAIN: Final = 20
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORT: Final = re.compile(r"(.+?):[0-9]{1,5}")

Address = IPv4Address | IPv6Address
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Proxies:
    """The application behind its proxies: its requests name the visitor, the scheme and the host."""

    def __init__(self, application: Wsgi, settings: Settings) -> None:
        self._application = application
        self._trusted = settings.trusted_proxies
        self._public = settings.host if settings.secure else ""
        self.untrusted = ""
        """A machine of our own network that speaks as a proxy and is not among the known ones."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """One request."""
        said = {name: environ.pop(name) for name in HEADERS if name in environ}
        environ[FORWARDED] = bool(said)
        peer = read_address(environ.get("REMOTE_ADDR", ""))
        if peer is not None:
            environ["REMOTE_ADDR"] = str(peer)
            if self._knows(peer):
                self._believe(environ, said, peer)
            elif said and self._public and not self.untrusted and (peer.is_private or peer.is_loopback):
                self._warn(peer)
        if self._public and environ.get("PATH_INFO") in PROBES:
            environ["HTTP_HOST"] = self._public
        return self._application(environ, start)

    def _knows(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _believe(self, environ: dict[str, Any], said: dict[str, str], peer: Address) -> None:
        visitor, hops = peer, 0
        for entry in _from_the_end(said.get("HTTP_X_FORWARDED_FOR", "")):
            found = read_address(entry)
            if found is None:
                break
            visitor, hops = found, hops + 1
            if not self._knows(found):
                break
        environ["REMOTE_ADDR"] = str(visitor)
        scheme = _nth_from_the_end(said.get("HTTP_X_FORWARDED_PROTO", ""), hops).lower()
        if scheme in {"http", "https"}:
            environ["wsgi.url_scheme"] = scheme
        host = _nth_from_the_end(said.get("HTTP_X_FORWARDED_HOST", ""), hops)
        if _HOST.fullmatch(host):
            environ["HTTP_HOST"] = host

    def _warn(self, peer: Address) -> None:
        """Once, so that a log is not filled: all visitors look like this one machine until it is mended."""
        self.untrusted = str(peer)
        logs.event("proxy_not_trusted", level=logging.WARNING, peer=self.untrusted, detail=self.advice())

    def advice(self) -> str:
        """What to do about a proxy that is not known, as a sentence; nothing when there is none."""
        if not self.untrusted:
            return ""
        return (
            f"{self.untrusted} forwards requests but is not in TRUSTED_PROXIES: every visitor has its"
            f" address, and shares its limits. If it is your proxy, set TRUSTED_PROXIES={self.untrusted}."
        )


def read_address(text: str) -> Address | None:
    """An address as proxies write it, with or without a port or brackets; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text, closed, _ = text[1:].partition("]")
        text = text if closed else ""
    elif text.count(":") == 1 and (match := _PORT.fullmatch(text)):
        text = match[1]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _from_the_end(chain: str) -> list[str]:
    return [entry.strip() for entry in reversed(chain.split(",")[-LONGEST_CHAIN:])]


def _nth_from_the_end(values: str, hops: int) -> str:
    """What the proxy wrote that the visitor spoke to; a proxy that says it once says it for all."""
    written = _from_the_end(values)
    return written[min(max(hops, 1), len(written)) - 1]
