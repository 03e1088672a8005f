"""Payments, unapplied money, disputes and webhooks."""

import sys

import click

from app import clock, payments, refunds, services
from app.cli._shared import Commands, actor_option, progress_bar, refusals
from app.gateways.base import GatewayError
from app.money import AmountError, Money

payments_commands = Commands("payments", help="Money in.")
webhooks_commands = Commands("webhooks", help="What processors told us.")


@payments_commands.command("reconcile")
def payments_reconcile() -> None:
    """Ask the processors about everything they could have news of, and apply what they say.

    That is every payment without an end, every other one of the last half year, every refund on its way and every open dispute, whenever it was
    asked about last; the jobs ask ever more seldom. Two runs find all there is, whichever webhooks were lost. Exit code 1 when one got no answer.
    """
    began = clock.now()
    with progress_bar("Asking processors", "payments") as show:
        tally = payments.reconcile_all(show)
    also = refunds.reconcile(None, not_since=began)
    failed = tally.get("unanswered", 0) + tally.get("error", 0)
    for change in sorted(change for change in tally if "→" in change):
        click.echo(f"{change}: {tally[change]}")
    click.echo(f"{sum(tally.values()) + also} asked about, {failed} without an answer.")
    if failed:
        sys.exit(1)


@payments_commands.command("held")
@click.option("--over", is_flag=True, help="What was decided, newest first, instead of what waits.")
def payments_held(*, over: bool) -> None:
    """List money that came and waits for a person, with the number that “release” takes."""
    found = refunds.held_money(over=over)
    for one in found:
        agreed = f"  {one.decision} by {', '.join(one.approvals)}, {len(one.approvals)} of {one.approvals_needed}" if one.approvals else ""
        click.echo(
            f"{one.number}  {one.held_at:%Y-%m-%d}  {one.amount or 'no money'!s:>16}  {one.state:<9}  {one.document}  {one.gateway} {one.gateway_reference}  ({one.reason}){agreed}"
        )
    click.echo(f"{len(found)} {'decided' if over else 'waiting'}.")


@payments_commands.command("release")
@click.argument("number")
@click.option("--credit", "decision", flag_value="credit", help="Add it to the balance it was paid for, at the rate of now.")
@click.option("--return", "decision", flag_value="return", help="Send it back: by its processor, or to the account named by --iban and --holder.")
@click.option("--dismiss", "decision", flag_value="dismiss", help="Put news aside that brought no money.")
@click.option("--paid", "reference", help="A return by hand has left: the bank's reference of the transfer.")
@click.option("--iban", default="", help="Where to, if it cannot go back the way it came.")
@click.option("--holder", default="", help="Whose account that is.")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", default="", help="Why.")
def payments_release(number: str, *, decision: str | None, reference: str | None, iban: str, holder: str, actor: str, reason: str) -> None:
    """Decide what becomes of held money. A second person confirms large sums and payouts by hand with the same words."""
    with refusals(refunds.RefundError, GatewayError):
        if reference is not None:
            refunds.mark_returned(number, reference=reference, actor=actor)
            state = "returned"
        else:
            state = refunds.release(number, decision or "", actor=actor, reason=reason, iban=iban, holder=holder)
            state = refunds.send_back(number) if state == "returning" else state
    services.settle_waiting()
    click.echo(f"{number}: {state}{', another person has to confirm it' if state == 'held' else ''}")


@payments_commands.command("take-dispute")
@click.argument("reference")
@click.argument("amount")
@actor_option("Login of the person of support who decides this.")
def payments_take_dispute(reference: str, amount: str, actor: str) -> None:
    """Take the AMOUNT of a dispute that did not fit its payment, in the currency that was paid; until then nothing of the payment goes back.

    REFERENCE is the processor's, as the list of disputes shows it. What the processor says of it afterwards is followed as of any other.
    """
    with refusals(refunds.RefundError, AmountError):
        found = refunds.dispute_case(reference)
        if found is None:
            raise refunds.RefundError(f"There is no dispute {reference}.")
        taken = refunds.take_by_hand(reference, Money.parse(amount, found.paid.currency, "en").minor, actor=actor)
    click.echo(f"{reference}: {taken} taken")


@webhooks_commands.command("parked")
def webhooks_parked() -> None:
    """List every webhook that could not be followed, with the number that “replay” takes.

    Below them stand the answers of processors that we cannot read, and since when webhooks come without a valid signature.
    """
    waiting = payments.parked()
    for one in waiting:
        click.echo(f"{one.id:>6}  {one.received_at:%Y-%m-%d %H:%M}  {one.gateway}  {one.event_id}  {one.reference}  ({one.why})")
    click.echo(f"{len(waiting)} parked.")
    for answer in payments.outages.unreadable():
        click.echo(f"{answer.since:%Y-%m-%d %H:%M}  {answer.gateway}  {answer.kind} {answer.about}  {answer.payment or ''}  (unreadable_answer: {answer.path})")
    for outage in payments.outages.known():
        if outage.verb == payments.outages.WEBHOOKS:
            click.echo(f"{outage.since:%Y-%m-%d %H:%M}  {outage.gateway}  {outage.detail} webhooks without a valid signature: is the secret right?")


@webhooks_commands.command("replay")
@click.argument("inbox_id", metavar="ID", type=int)
def webhooks_replay(inbox_id: int) -> None:
    """Work a stored webhook again; what is settled stays as it is."""
    with refusals(LookupError):
        state = payments.replay(inbox_id)
    click.echo(f"Webhook {inbox_id}: {state}")
