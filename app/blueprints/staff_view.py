"""What support sees before deciding: who sent, who gets, whose account, who decided what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app import approvals, bank, customers, web
from app.approvals import Approval
from app.bank import Sender
from app.money import Money

MARKS: Final = {
    "same": ("Same as the {}", "credit"),
    "part": ("Similar to the {}", "wait"),
    "other": ("Not the {}", "danger"),
}
"""Words and tone of a comparison with something; what cannot be compared has no mark."""
CHOICES: Final = {
    "approve": "Approve",
    "credit": "Credit it",
    "return": "Send it back",
    "dismiss": "Put it aside",
    "failed": "The bank refused it",
    "match": "Credit it",
    "separate": "They are separate payments",
}
"""What people can say, by the code of the decision."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A fact, and the mark of `MARKS` that it has beside another one, if any."""

    label: str
    value: str
    mark: str = ""
    beside: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One case for the person who looks at it.

    `barred` says why this person may not decide, `alone` what it decided alone within 24 hours, of
    `limit` at most.
    """

    user_id: int
    barred: str
    compared: Sequence[Compared]
    verified: bool | None
    changed_at: datetime | None
    voices: Sequence[Approval]
    alone: Money
    limit: Money

    def said(self, *decisions: str) -> list[str]:
        """The logins of who decided so, the first one first."""
        voices = [voice for voice in self.voices if voice.decision in decisions]
        return [voice.actor.removeprefix("staff:") for voice in voices]

    def mine(self, *decisions: str) -> bool:
        """Whether this person has decided so already."""
        return self.user_id in {v.user_id for v in self.voices if v.decision in decisions}


def view(
    *,
    customer_id: int | None = None,
    concerned: Iterable[int] = (),
    payment: str = "",
    sent: Sequence[Sender] = (),
    holder: str = "",
    iban: str = "",
    subjects: Sequence[tuple[str, object]] = (),
) -> View:
    """What is known for a decision: `subjects` are what voices are counted for, the sender's facts
    are read from the transfers of `payment` where `sent` names none."""
    me = web.reader()
    owner = customers.get(customer_id) if customer_id else None
    came = list(sent) or list(bank.senders(payment))
    voices = [voice for subject in subjects for voice in approvals.of(*subject)]
    about = {*concerned, *([customer_id] if customer_id else [])}
    return View(
        user_id=me.user_id,
        barred=approvals.obstacle(me.user_id, sorted(about), approvals.payments_called(payment)),
        compared=[*_compared(came, holder, iban, owner.title if owner else "")],
        verified=owner.verified if owner and not owner.guest else None,
        changed_at=customers.credentials_changed_at(customer_id) if customer_id else None,
        voices=voices,
        alone=approvals.alone_today(me.user_id),
        limit=approvals.daily_limit(),
    )


def words() -> dict[str, Any]:
    """What the template of a view needs besides."""
    return {"marks": MARKS, "choices": CHOICES}


def _compared(came: Sequence[Sender], holder: str, iban: str, owner: str) -> Iterable[Compared]:
    for sender in came:
        name, account = sender.name or "not told", sender.account or "not told"
        mark, beside = bank.same_name(sender.name, holder or owner), "payee" if holder else "customer"
        yield Compared("Sent by", name, mark, beside)
        mark = bank.same_account(sender.account, iban)
        yield Compared("From account", account, mark, "payee")
    if holder:
        yield Compared("Goes to", holder, bank.same_name(holder, owner), "customer")
        yield Compared("To account", iban)
    if owner:
        yield Compared("Customer's name", owner)
