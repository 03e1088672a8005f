"""What every gateway is: six verbs, and the values they take and return.

A gateway carries money between a customer and a processor and knows nothing else: no ledger, no Flask, no database, no other gateway.
It returns values; only `payments.apply` changes anything.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import wraps
from traceback import walk_tb
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from app.languages import N_
from app.money import Money

Found = TypeVar("Found")
Part = TypeVar("Part")

State = Literal["open", "pending", "paid", "failed", "expired", "kept"]
"""What a processor can say of a payment; `open` means its page still waits for the customer. `kept` is no payment: a card was saved without one."""

ASKED_FOR = "authentication_required"
"""The failure code of a saved card whose bank wants to see its holder: only a page at the processor can do that, never a second try."""

SIGNATURE_TOLERANCE_S = 300
"""How far, in seconds, a webhook's signed time may lie from ours, before or after."""

LONGEST_NAME = 255
"""How long a processor's name of an event or an object may be."""

ON_ITS_WAY = timedelta(minutes=5)
"""How long a call whose answer was lost may still be on its way through a processor at the very most."""

USUAL_PORTS = {"https": ":443", "http": ":80"}
FEW = 6
"""As many currencies are named when a method does not take the payer's; with more, only the payer's is."""

NO_ANSWER = "The processor does not answer at the moment. Your bill stays payable: try again in a minute or choose another method."
CANNOT_BE_READ = "We cannot read the processor's answer at the moment. Your bill stays payable: choose another method, or try again in a few minutes."
SWITCHED_OFF = N_("Payments by this method are switched off at the moment. Nothing was charged.")


class GatewayError(Exception):
    """A call that brought no answer we can use: one of the kinds below, by whose it is. `str()` is a sentence for the customer, `detail` is for the operator."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail or message


class Refused(GatewayError):
    """The payment's own: nothing happened, and this payment or refund will never go through so."""


class NotNow(GatewayError):
    """Nobody's fault but the moment's: nothing happened by this call, it says nothing of the payer, the card or the money, and later the same call goes through."""


class Misconfigured(NotNow):
    """Ours: the processor does not take our key, knows us as another account, misses money on it or does not understand us. Somebody has to mend that."""

    def __init__(self, detail: str, message: str = SWITCHED_OFF) -> None:
        super().__init__(message, detail=detail)


class NoAnswer(GatewayError):
    """The outcome is unknown: only the same key or a look-up may settle it."""

    def __init__(self, detail: str, message: str = NO_ANSWER) -> None:
        super().__init__(message, detail=detail)


class UnreadableAnswer(NoAnswer):
    """The processor did answer, in a form that we cannot read. Of what was asked about nothing is known, so it waits for a person; it is no outage.

    `path` names the key that is missing or wrong, and where we read it; never a value, which may be somebody's.
    """

    code: Final = "unreadable_answer"

    def __init__(self, path: str, message: str = CANNOT_BE_READ) -> None:
        self.path = path[:LONGEST_NAME]
        super().__init__(f"{self.code}: {self.path}", message)


class BadSignature(ValueError):
    """A webhook that is not proven to come from the processor, now."""


class UnreadableEvent(Exception):
    """A webhook that is proven, and of which we cannot tell what it is about: kept for a person. `path` names the key, never a value."""

    code: Final = "unreadable_event"

    def __init__(self, path: str) -> None:
        self.path = path[:LONGEST_NAME]
        super().__init__(f"{self.code}: {self.path}")


@dataclass(frozen=True, slots=True)
class WayBack:
    """How money that came by a method goes back the way it came: within `days` of its arrival, never where that is 0, and not before `wait` days.

    `why` is the sentence that says why it waits.
    """

    days: int
    wait: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Method:
    """What the customer clicks. `currencies` and `countries` None means all; limits are in minor units per currency, `where` names the countries.

    `unavailable` says why it is not offered; where that is an amount, it ends before it and `limit` is the amount, to be written as its reader
    writes amounts. `waiting` says what is waited for and how long, where the money does not come at once; `same_as` names the method whose page it
    opens, which is no way out when that one failed.
    """

    name: str
    label: str
    mark: str
    detail: str
    settles_in: str
    gateway: str = ""
    fee: str = "no fee"
    currencies: frozenset[str] | None = None
    countries: frozenset[str] | None = None
    minimums: Mapping[str, int] | None = None
    maximums: Mapping[str, int] | None = None
    unavailable: str = ""
    rate_held: bool = True
    """Whether the rate that is shown is the one that counts. Where the money takes days, it is the rate of the day it arrives."""
    limit: Money | None = None
    where: str = ""
    waiting: str = ""
    same_as: str = ""

    @property
    def key(self) -> str:
        """The form's value: gateway and name, so two gateways may both offer a card."""
        return f"{self.gateway}-{self.name}"

    def judged(self, country: str | None, amount: Money) -> "Method":
        """This method, with the reason it is not available for this payer and amount, if there is one."""
        if self.unavailable:
            return self
        if refusal := self._refusal(country, amount):
            return replace(self, unavailable=refusal)
        limit = self._bound(amount)
        return replace(self, unavailable="From" if limit > amount else "Up to", limit=limit) if limit else self

    def reason(self, write: Callable[[int, str], str]) -> str:
        """Why it is not available, with its amount as `write` puts minor units and a currency."""
        return f"{self.unavailable} {write(self.limit.minor, self.limit.currency)}" if self.limit else self.unavailable

    def _refusal(self, country: str | None, amount: Money) -> str:
        if self.currencies is not None and amount.currency not in self.currencies:
            return f"Only for payments in {_either(sorted(self.currencies))}" if len(self.currencies) <= FEW else f"Not for payments in {amount.currency}"
        if self.countries is not None and country not in self.countries:
            return f"Only for payers in {self.where or _either(sorted(self.countries))}"
        return ""

    def _bound(self, amount: Money) -> Money | None:
        """The smallest or largest amount, where this one is beyond it."""
        least, most = (self.minimums or {}).get(amount.currency, 0), (self.maximums or {}).get(amount.currency, amount.minor)
        return Money(least, amount.currency) if amount.minor < least else Money(most, amount.currency) if amount.minor > most else None


@dataclass(frozen=True, slots=True)
class Charge:
    """One payment to be made. `id` is our payment's public id and the idempotency key; the same id always carries the same fields.

    `reference` is what a payer writes on a transfer. `holder` is the processor's customer, `keep` asks it to save the card; with `card`, the
    processor's name of a saved one, nobody is sent to a page, and `unasked` says that nobody is there to be asked.
    """

    id: str
    amount: Money
    method: str
    title: str
    description: str
    return_url: str
    cancel_url: str
    expires_at: datetime
    email: str = ""
    locale: str = "en"
    reference: str = ""
    holder: str = ""
    keep: bool = False
    card: str = ""
    unasked: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """The customer goes to the processor's own page."""

    url: str
    reference: str


@dataclass(frozen=True, slots=True)
class Instructions:
    """The customer pays by what these lines say (label, value); `qr` is the same as a picture (``data:``), where there is one."""

    lines: tuple[tuple[str, str], ...]
    reference: str
    qr: str = ""


Handoff = Redirect | Instructions


@dataclass(frozen=True, slots=True)
class Event:
    """A proven webhook: a hint to look `reference` up, never a reason to believe an amount.

    An empty `reference` is an event about nothing of ours; `fault` says why it must not be followed (foreign account, other mode).
    """

    id: str
    reference: str
    kind: str
    occurred_at: datetime
    fault: str = ""

    def __post_init__(self) -> None:
        """Raises UnreadableEvent for a name that could not be kept: too long for an index, or with characters that are no text."""
        if max(len(self.id), len(self.reference)) > LONGEST_NAME or not f"{self.id}{self.reference}{self.kind}{self.fault}".isprintable():
            raise UnreadableEvent("a name that cannot be kept")


@dataclass(frozen=True, slots=True)
class RefundSnapshot:
    """What the processor says of one refund now. `key` is ours as the processor kept it; empty for a refund we did not order."""

    reference: str
    state: Literal["pending", "settled", "failed"]
    amount: Money
    failure_message: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class DisputeSnapshot:
    """What the processor says of one dispute now: `amount` was taken from us; `won` means that it was given back.

    An `inquiry` only asks about the amount, and `closed` is one that ended so: neither has moved money.
    `fees` are what it kept for the work, or gave back of it (negative), each under its own reference.
    """

    reference: str
    state: Literal["inquiry", "open", "won", "lost", "closed"]
    amount: Money
    reason: str = ""
    fees: tuple[tuple[str, Money], ...] = ()


@dataclass(frozen=True, slots=True)
class KeptCard:
    """A card that the processor keeps: its names of the holder and the card, and what may be shown. The same card again has the same `fingerprint`."""

    holder: str
    token: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str
    wallet: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of an answer that we cannot read: what it is, the processor's name of it, and the path of the key."""

    kind: Literal["listed_refund", "dispute", "card", "fee", "detail"]
    reference: str
    path: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the processor's API says of one payment now.

    `charge_id` is our id as the processor kept it, `received` what arrived there, `fee` what it kept of it (when it says), `paid_at`
    when the customer paid; `fault` says why this money cannot be ours to credit (another account, another mode, a mark set by hand).

    `exact` False means that the payer decided how much to send: what was received is credited as what it is, and `received` may grow.
    `doubt` says why money that did arrive needs a person all the same, such as a rate that has run away.
    `refunds` and `disputes` are all there are of it, but for those among the `unread` parts, which a person has to look at. `card` is what
    was saved with it; `dead_card` says that the one it was charged to will never work again.
    """

    reference: str
    charge_id: str
    state: State
    received: Money | None = None
    fee: Money | None = None
    paid_at: datetime | None = None
    method_label: str = ""
    failure_code: str = ""
    failure_message: str = ""
    fault: str = ""
    exact: bool = True
    doubt: str = ""
    refunds: tuple[RefundSnapshot, ...] = ()
    disputes: tuple[DisputeSnapshot, ...] = ()
    card: KeptCard | None = None
    dead_card: bool = False
    unread: tuple[Unread, ...] = ()


class Gateway(Protocol):
    """The six verbs. Each may raise GatewayError; none opens a transaction of ours.

    `grows` says whether a payment that is paid may still receive more, and is therefore watched on. `forgets` says whether the processor may not
    know a page any more, or not yet, that it did open; where it never forgets, a page that is not there is another account's.
    `final_after` is how long after a call a look-up by our own id proves that it never arrived, None where none can.
    `pages` are the origins (``https://host``) of the pages that `checkout` sends a payer to, and to which those lead on at once; none where
    nobody is sent away. A browser lets our forms lead there alone.
    """

    name: str
    grows: bool
    forgets: bool
    final_after: timedelta | None
    pages: tuple[str, ...]

    def methods(self, country: str | None, amount: Money) -> Sequence[Method]:
        """What this gateway carries, each judged for this payer and amount. No network."""
        ...

    def checkout(self, charge: Charge) -> Handoff:
        """Open the processor's page for a charge; the same charge again opens nothing new and returns the same."""
        ...

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> Event:
        """Verify and read a webhook (header names in lower case). No network but for a certificate not seen yet.

        Raises BadSignature before it is proven and only then, UnreadableEvent after. A kind that is not known is an event without a reference.
        """
        ...

    def lookup(self, reference: str) -> Snapshot | None:
        """The truth about a payment, by any reference an event named or by our own charge id; None when there is none."""
        ...

    def refund(self, reference: str, amount: Money, key: str) -> RefundSnapshot:
        """Send money back; the same key again, however much later, sends nothing new and returns the same."""
        ...

    def way_back(self, method: str) -> WayBack:
        """How a payment by a method goes back, also by one that is not offered any more. No network."""
        ...


@runtime_checkable
class Closer(Gateway, Protocol):
    """What a gateway can do besides, if its processor lets a page be closed before its time."""

    def close(self, reference: str) -> None:
        """Close a page, so that nothing can be paid on it any more. One that is paid or closed is left as it is. May raise GatewayError."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """A page on which a card is saved without paying. `id` is ours and the idempotency key, `currency` what it will mostly be charged in."""

    id: str
    holder: str
    currency: str
    return_url: str
    cancel_url: str
    expires_at: datetime
    locale: str = "en"


@runtime_checkable
class KeepsCards(Gateway, Protocol):
    """What a gateway can do besides, if its processor keeps cards. `lookup` then also answers for a `Setup`, by its id or reference."""

    kept_by: str
    """The method by which a card is entered, and saved if its holder wants that."""

    def enrol(self, key: str) -> str:
        """The processor's name for a new customer; the same key again makes no second one."""
        ...

    def keep(self, setup: Setup) -> Redirect:
        """Open the page on which a card is saved; the same setup again opens nothing new."""
        ...

    def charge_kept(self, charge: Charge) -> Snapshot:
        """Charge a saved card; the same charge again charges nothing new. A decline is a snapshot; what is ours, or no answer, says nothing of the card."""
        ...

    def forget(self, token: str) -> None:
        """Delete a card at the processor; one that is gone already is fine."""
        ...


UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)
"""What reading an answer of another shape than any we know comes to."""

_VERBS: Final = ("checkout", "lookup", "refund", "enrol", "keep", "charge_kept", "forget", "close")


class ReadsAnswers:
    """Under every gateway that reads a processor's answers: whatever reading one comes to, its callers see `UnreadableAnswer`."""

    def __init_subclass__(cls) -> None:
        for verb in _VERBS:
            if verb in vars(cls):
                setattr(cls, verb, _guarded(vars(cls)[verb]))


def _guarded(verb: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(verb)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with reading():
            return verb(*args, **kwargs)

    return guarded


@contextmanager
def reading() -> Iterator[None]:
    """Around the reading of an answer. Raises UnreadableAnswer for one of another shape, without the error that may quote it."""
    try:
        yield
    except UNREADABLE as error:
        raise UnreadableAnswer(place_of(error)) from None


def each(
    kind: Literal["listed_refund", "dispute"], every: Iterable[Found], read: Callable[[Found], Iterable[Part]], name: Callable[[Found], str]
) -> tuple[tuple[Part, ...], tuple[Unread, ...]]:
    """Every part of an answer that can be read, and those that cannot: one such part keeps none of the others from its reader."""
    parts: list[Part] = []
    unread: list[Unread] = []
    for one in every:
        try:
            with reading():
                parts += read(one)
        except UnreadableAnswer as error:
            unread.append(Unread(kind, name(one)[:LONGEST_NAME], error.path))
    return tuple(parts), tuple(unread)


def optional(kind: Literal["card", "fee", "detail"], reference: str, read: Callable[[], Part], otherwise: Part, unread: list[Unread]) -> Part:
    """What `read` finds, or `otherwise` where that cannot be read, which is then added to `unread`: money is not kept waiting for its ornaments."""
    try:
        with reading():
            return read()
    except UnreadableAnswer as error:
        unread.append(Unread(kind, reference, error.path))
        return otherwise


def place_of(error: BaseException) -> str:
    """The key that could not be read and the function of ours that read it. An error's own text may hold a value, so it is not used."""
    if isinstance(error, MissingKey):
        what = error.path
    elif isinstance(error, AttributeError):
        kind = error.obj.get("object") if isinstance(error.obj, dict) else getattr(error.obj, "object", None)
        what = f"{kind if isinstance(kind, str) else type(error.obj).__name__}.{error.name}"
    else:
        what = type(error).__name__
    rooms = ((frame, str(frame.f_globals.get("__name__", ""))) for frame, _ in walk_tb(error.__traceback__))
    frames = [frame for frame, room in rooms if room.startswith("app.gateways.") and room != __name__]
    place = f"{str(frames[-1].f_globals['__name__']).rpartition('.')[2]}.{frames[-1].f_code.co_name}" if frames else "?"
    return f"{what} ({place})" if what.isprintable() else place


class MissingKey(KeyError):
    """A key that an object of an answer has not; `path` says where it would stand."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Said(dict[str, Any]):
    """An object of an answer that knows where in it it stands, so that a missing key can be named."""

    __slots__ = ("path",)

    def __init__(self, found: Mapping[str, Any], path: str) -> None:
        super().__init__(found)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise MissingKey(f"{self.path}.{key}".lstrip("."))


def placed(value: Any, path: str = "") -> Any:
    """A JSON value whose objects all know where they stand."""
    if isinstance(value, dict):
        return Said({key: placed(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}, path)
    return [placed(item, f"{path}[]") for item in value] if isinstance(value, list) else value


def text(value: Any, path: str) -> str:
    """A name in a webhook: text, or nothing where it is missing. Raises UnreadableEvent for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    raise UnreadableEvent(path)


def read_json(body: bytes) -> dict[str, Any]:
    """The object a signed body holds. Raises UnreadableEvent for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableEvent("not JSON") from None
    if not isinstance(found, dict):
        raise UnreadableEvent("not an object")
    return found


def origin(url: str) -> str:
    """The origin of an address, as a browser writes it: scheme, host and a port of its own."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{host.removesuffix(USUAL_PORTS.get(parts.scheme, ':'))}"


def on_loopback(url: str) -> bool:
    """Whether an address is of this machine: a processor that is played for trying things out."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
