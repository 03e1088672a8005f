"""Who acts: set once for a request or a command, read by whatever is recorded in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts and from where.

    ``name`` is ``staff:<login>``, ``customer:<login>``, ``command:<system user>``, ``visitor`` or
    ``system``; ``address`` the network address, ``request`` the reference of the request.
    """

    name: str
    user_id: int | None = None
    address: str = ""
    request: str = ""


SYSTEM = Actor("system")
_actor: ContextVar[Actor] = ContextVar("actor", default=SYSTEM)


def current_actor() -> Actor:
    """Who acts now; ``system`` where nobody said."""
    return _actor.get()


def set_actor(actor: Actor) -> None:
    """Say who acts from here on: at the begin of every request, whoever asks."""
    _actor.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Let somebody act inside the block."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)
