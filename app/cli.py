"""The flask commands: each reads its words, calls one verb and says what happened. Exit code 0 means done, 1 a fault found, 2 misuse or no database."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from tqdm import tqdm

from app import bank, clock, customers, db, demo, exchange, fx, jobs, languages, ledger, mail, payments, refunds, services
from app.gateways.base import GatewayError
from app.money import AmountError, Money

DAY = click.DateTime(["%Y-%m-%d"])
NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def _in_a_folder(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """Whether the file can be written: said before anything is done, not after."""
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"Nothing can be written in the folder {path.parent}.")
    return path


class Commands(AppGroup):
    """A group of commands; a database that does not answer is a sentence and exit code 2, never a trace."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except db.UNREACHABLE as error:
            click.echo(f"The database could not be used: {str(error).partition(chr(10))[0]}", err=True)
            ctx.exit(2)


demo_commands = Commands("demo", help="A house with a history, to look at.")
ledger_commands = Commands("ledger", help="Prove the books, hand them over.")
rates_commands = Commands("rates", help="Exchange rates.")
jobs_commands = Commands("jobs", help="The clock: what runs by itself.")
services_commands = Commands("services", help="What customers run.")
payments_commands = Commands("payments", help="Money in.")
webhooks_commands = Commands("webhooks", help="What processors told us.")
bank_commands = Commands("bank", help="Bank transfers.")
mail_commands = Commands("mail", help="The outbox.")
translate_commands = Commands("translate", help="The catalogues of sentences.")
user_commands = Commands("user", help="Who may log in.")


def init(app: Flask) -> None:
    """Give the app its commands."""
    groups = (
        demo_commands,
        ledger_commands,
        rates_commands,
        jobs_commands,
        services_commands,
        payments_commands,
        webhooks_commands,
        bank_commands,
        mail_commands,
        translate_commands,
        user_commands,
    )
    for group in groups:
        app.cli.add_command(group)


@demo_commands.command("seed")
@click.option("--customers", "count", type=click.IntRange(1, 100_000), default=demo.CUSTOMERS, show_default=True, help="How many customers besides “demo”.")
@click.option("--months", type=click.IntRange(1, 60), default=demo.MONTHS, show_default=True, help="Months of history, up to now.")
@click.option("--random-seed", type=int, default=1, show_default=True, help="The same seed gives the same data, counted from today.")
def demo_seed(count: int, months: int, random_seed: int) -> None:
    """Write customers with a history, by the same verbs as real life.

    Refused on a database that holds real customers.
    """
    with _refusals(demo.Refused), _bar("Writing history", "days") as show:
        demo.seed(count, months, random_seed, processor=current_app.extensions["sandbox_processor"], progress=show)
    click.echo(f"Log in as demo or support, password {demo.PASSWORD}")


@ledger_commands.command("check")
def ledger_check() -> None:
    """Prove every invariant of the books; exit code 1 and a line for each fault."""
    with _bar("Checking the ledger", "rows") as show:
        faults = list(ledger.check(show))
    for fault in faults:
        click.echo(f"{fault.kind}: {fault.what}", err=True)
    if faults:
        sys.exit(1)
    click.echo("The ledger is whole.")


@ledger_commands.command("export")
@click.option("--format", "form", type=click.Choice(["beancount", "csv"]), required=True, help="beancount: with balance assertions. csv: one row per entry.")
@click.option("--out", type=NEW_FILE, callback=_in_a_folder, help="The file to write; standard output without it.")
def ledger_export(form: str, out: Path | None) -> None:
    """Write the whole book."""
    write = ledger.export_beancount if form == "beancount" else ledger.export_csv
    if out is None:
        write(sys.stdout)
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        write(file)
    click.echo(f"Written to {out}.", err=True)


@rates_commands.command("fetch")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A feed on disk instead of the network.")
@click.option("--confirm", "confirmed", multiple=True, metavar="CURRENCY", help="Believe that this currency moved by more than a tenth; may be given several times.")
def rates_fetch(file: Path | None, confirmed: tuple[str, ...]) -> None:
    """Store the newest reference rates of the European Central Bank.

    A feed in which a currency moved by more than a tenth is refused whole until somebody confirms that it is true.
    """
    with _refusals(fx.FeedRefused):
        imported = fx.import_feed(file.read_bytes(), confirmed=confirmed) if file else fx.fetch(confirmed)
    click.echo(f"Rates of {imported.rate_date}: {imported.added} new." if imported.rate_date else "The feed has not changed.")


@jobs_commands.command("run")
def jobs_run() -> None:
    """Keep the clock until told to stop (Ctrl-C, SIGTERM): the job that runs then is finished first."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the proxy's own way to its app
    jobs.run(app, jobs.JOBS, stop)


@jobs_commands.command("once")
@click.argument("name", required=False)
def jobs_once(name: str | None) -> None:
    """Run one job, or all of them, now and once."""
    with _refusals(jobs.UnknownJob):
        done = jobs.once(name, jobs.JOBS)
    for job, result in done:
        click.echo(f"{job}: failed: {result!r}" if isinstance(result, Exception) else f"{job}: {result or 'nothing to do'}")
    if not done:
        click.echo("Another process is running it.")
    if any(isinstance(result, Exception) for _, result in done):
        sys.exit(1)


@jobs_commands.command("list")
def jobs_list() -> None:
    """Name every job, how often it runs and what it does."""
    for job in jobs.JOBS:
        click.echo(f"{job.name:<20} every {job.every_s:>6g} s  {job.says}")


@services_commands.command("renew-due")
@click.option("--on", type=DAY, help="As if it were this day (YYYY-MM-DD); today without it.")
@click.option("--dry-run", is_flag=True, help="Name what is due and write nothing.")
def services_renew_due(*, on: datetime | None, dry_run: bool) -> None:
    """Renew every service whose paid days are over, each period once."""
    day = on.date() if on else clock.today()
    if dry_run:
        _tell_due(day)
        return
    with _bar("Renewing", "services") as show:
        run = services.renew_due(day, progress=show)
    click.echo(str(run))
    if run.failed:
        sys.exit(1)


def _tell_due(day: date) -> None:
    coming = services.due(day)
    for service in coming:
        click.echo(f"{service.renews_on}  {service.public_id:<20} {service.price or 'no price'}")
    click.echo(f"{len(coming)} due on {day}. Nothing was written.")


@payments_commands.command("reconcile")
def payments_reconcile() -> None:
    """Ask the processors about everything they could have news of, and apply what they say.

    That is every payment without an end, every other one of the last half year, every refund on its way and every open dispute, whenever it was
    asked about last; the jobs ask ever more seldom. Two runs find all there is, whichever webhooks were lost. Exit code 1 when one got no answer.
    """
    began = clock.now()
    with _bar("Asking processors", "payments") as show:
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
@click.option("--actor", required=True, callback=lambda _context, _option, login: _staff(login), help="Login of the person of support who decides this.")
@click.option("--reason", default="", help="Why.")
def payments_release(number: str, *, decision: str | None, reference: str | None, iban: str, holder: str, actor: str, reason: str) -> None:
    """Decide what becomes of held money. A second person confirms large sums and payouts by hand with the same words."""
    with _refusals(refunds.RefundError, GatewayError):
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
@click.option("--actor", required=True, callback=lambda _context, _option, login: _staff(login), help="Login of the person of support who decides this.")
def payments_take_dispute(reference: str, amount: str, actor: str) -> None:
    """Take the AMOUNT of a dispute that did not fit its payment, in the currency that was paid; until then nothing of the payment goes back.

    REFERENCE is the processor's, as the list of disputes shows it. What the processor says of it afterwards is followed as of any other.
    """
    with _refusals(refunds.RefundError, AmountError):
        found = refunds.dispute_case(reference)
        if found is None:
            raise refunds.RefundError(f"There is no dispute {reference}.")
        taken = refunds.take_by_hand(reference, Money.parse(amount, found.paid.currency, "en").minor, actor=actor)
    click.echo(f"{reference}: {taken} taken")


def _staff(login: str) -> str:
    """A person of support as the pages write them down: whoever agreed there does not count again here."""
    user = customers.find_user(login)
    if user is None or user.role != "support":
        raise click.BadParameter(f"{login} is no login of support.")
    return f"staff:{user.login}"


@webhooks_commands.command("parked")
def webhooks_parked() -> None:
    """List every webhook that could not be followed, with the number that “replay” takes."""
    waiting = payments.parked()
    for one in waiting:
        click.echo(f"{one.id:>6}  {one.received_at:%Y-%m-%d %H:%M}  {one.gateway}  {one.event_id}  {one.reference}  ({one.why})")
    click.echo(f"{len(waiting)} parked.")


@webhooks_commands.command("replay")
@click.argument("inbox_id", metavar="ID", type=int)
def webhooks_replay(inbox_id: int) -> None:
    """Work a stored webhook again; what is settled stays as it is."""
    with _refusals(LookupError):
        state = payments.replay(inbox_id)
    click.echo(f"Webhook {inbox_id}: {state}")


@bank_commands.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would become of each line and write nothing.")
def bank_import(file: Path, *, dry_run: bool) -> None:
    """Book a statement (camt.052, .053, .054 or MT940) and credit what can be matched.

    Exit code 1 when a statement is missing, the books differ from the bank's balance, or a line was refused.

    A file that is damaged, not ours or does not add up is refused whole. A line that was booked before is not booked again, from whichever file it comes.
    """
    with _refusals(bank.FileRefused), _bar("Importing", "lines") as show:
        report = bank.import_file(file.read_bytes(), file.name, dry_run=dry_run, progress=show)
    if not dry_run:
        services.settle_waiting()
    for line in report.lines():
        click.echo(line)
    if dry_run:
        click.echo("Nothing was written.")
    if report.refused or report.missing or report.differing:
        sys.exit(1)


@bank_commands.command("unmatched")
def bank_unmatched() -> None:
    """List every line in suspense, oldest first, with the number that “bank match” takes."""
    waiting = bank.unmatched()
    for line in waiting:
        click.echo(f"{line.id:>6}  {line.booked_on}  {line.money!s:>16}  {line.sender or 'unknown sender'}  {line.sender_account}  {line.remittance}  ({line.why})")
    click.echo(f"{len(waiting)} in suspense.")
    for gap in bank.gaps():
        click.echo(f"MISSING: {gap.sentence}")
    for difference in bank.differences():
        click.echo(f"DIFFERS: {difference.sentence}")


@bank_commands.command("gaps")
def bank_gaps() -> None:
    """List what is missing between the statements, where the books differ from them, and what was acknowledged; exit code 1 when something is open.

    Each line begins with the name that “bank acknowledge” takes.
    """
    gaps, differences = bank.gaps(), bank.differences()
    for word, found in (("MISSING", gaps), ("DIFFERS", differences)):
        for gap in found:
            click.echo(f"{gap.mark}  {word}  {gap.sentence}")
    for kept in bank.acknowledged():
        click.echo(f"Acknowledged by {kept.actor} on {kept.at:%Y-%m-%d}: {kept.sentence} ({kept.reason})")
    if gaps or differences:
        sys.exit(1)
    click.echo("Nothing is missing.")


@bank_commands.command("acknowledge")
@click.argument("mark")
@click.option("--actor", required=True, help="Who says so.")
@click.option("--reason", required=True, help="Why it will not come.")
def bank_acknowledge(mark: str, actor: str, reason: str) -> None:
    """Say of a gap or a difference of “bank gaps” that it stays; it is told no more, and kept with your name."""
    with _refusals(ValueError):
        click.echo(f"Acknowledged: {bank.acknowledge(mark, actor=actor, reason=reason)}")


@bank_commands.command("same")
@click.argument("line", type=int)
@click.option("--as", "others", type=int, multiple=True, help="A line it is the same money as, several of them if it is their sum; without, the ones it waits for.")
@click.option("--actor", required=True, help="Who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_same(line: int, others: tuple[int, ...], actor: str, reason: str) -> None:
    """Say that a line in suspense is money that other lines tell already, so that it counts once."""
    with _refusals(bank.DoubtError):
        click.echo(bank.is_same(line, others, actor=actor, reason=reason))


@bank_commands.command("two")
@click.argument("line", type=int)
@click.option("--actor", required=True, help="Who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_two(line: int, actor: str, reason: str) -> None:
    """Say that a line in suspense is other money than what it may be the same as."""
    with _refusals(bank.DoubtError):
        click.echo(bank.are_two(line, actor=actor, reason=reason))


@bank_commands.command("match")
@click.argument("line", type=int)
@click.option("--customer", "login", required=True, help="Whose money it is, by login.")
@click.option("--bill", "number", default="", help="The bill it pays, if it is for one.")
@click.option("--actor", required=True, help="Who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_match(line: int, login: str, number: str, actor: str, reason: str) -> None:
    """Credit a line in suspense by hand."""
    with _refusals(bank.BankError):
        click.echo(bank.match_by_hand(line, login, actor=actor, reason=reason, number=number))
    services.settle_waiting()


@mail_commands.command("stuck")
def mail_stuck() -> None:
    """Name the mails a server did not take: those that are tried again, and those it refused for good and nobody tries again."""
    for letter in mail.stuck():
        state = "refused" if letter.refused_at else "tried again"
        click.echo(f"{letter.id}  {letter.created_at:%Y-%m-%d %H:%M}  {letter.kind}  {letter.recipient}  {state} after {letter.tries}: {letter.error}")


@mail_commands.command("again")
@click.argument("mail_id", metavar="[ID]", type=int, required=False)
def mail_again(mail_id: int | None) -> None:
    """Put a mail that was set aside, or all of them, back into the outbox."""
    click.echo(f"{mail.send_again(mail_id)} wait to be sent again.")


@translate_commands.command("extract")
def translate_extract() -> None:
    """Collect every sentence of the code and the templates into messages.pot."""
    click.echo(f"{languages.extract()} sentences.")


@translate_commands.command("update")
def translate_update() -> None:
    """Extract, and give every catalogue the sentences it lacks; what is out of use goes."""
    for language, lacking in languages.update().items():
        click.echo(f"{language}: {lacking} to translate")


@translate_commands.command("check")
def translate_check() -> None:
    """Name what is untranslated, unsure, left over or has other placeholders; exit code 1 when something is."""
    faults = languages.check()
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(1)
    click.echo("Every sentence is said in every language.")


@bank_commands.command("payouts")
@click.option("--out", type=NEW_FILE, callback=_in_a_folder, required=True, help="The pain.001 file to write.")
@click.option("--currency", default="EUR", show_default=True, help="Of the account that pays.")
@click.option("--again", metavar="FILE ID", help="Write the file of that id once more, byte for byte.")
def bank_payouts(out: Path, currency: str, again: str | None) -> None:
    """Write every approved payout by hand into a file for the bank, each once."""
    with _refusals(bank.PayoutError):
        file = bank.payouts.again(again) if again else bank.payouts.export(currency)
    if file is None:
        click.echo(f"No payout in {currency} waits. Nothing was written.")
        return
    try:
        out.write_bytes(file.content)
    except OSError as error:
        click.echo(f"{file.message} could not be written to {out}: {error.strerror}. Its payouts stand in it: write it by --again {file.message}.", err=True)
        sys.exit(2)
    click.echo(f"{file.message}: {file.count} transfer{'' if file.count == 1 else 's'}, {file.total} from {file.account}, written to {out}.")


@bank_commands.command("status")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def bank_status(file: Path) -> None:
    """Read what the bank says of a payment file (pain.002): a payout it rejects is undone with its reason, one it accepts is noted."""
    with _refusals(bank.FileRefused):
        for said in bank.reports.take_in(file.read_bytes()):
            click.echo(f"{said.number}  {said.state}  {said.why}".rstrip())


@user_commands.command("create")
@click.argument("login")
@click.argument("email")
@click.option("--name", default="", help="The person's name.")
@click.option("--role", type=click.Choice(["customer", "support"]), default="customer", show_default=True)
@click.password_option(help="Asked for when not given.")
def user_create(login: str, email: str, name: str, role: str, password: str) -> None:
    """Make a user who can log in at once; a customer's user gets a customer."""
    with _refusals(customers.Refused):
        user = customers.create_user(login, email, password, name=name, role=role)
    click.echo(f"{user.login} can log in ({user.role}).")


@user_commands.command("promote")
@click.argument("login")
@click.option("--role", type=click.Choice(["customer", "support"]), default="support", show_default=True)
def user_promote(login: str, role: str) -> None:
    """Give a user another role; its sessions end."""
    with _refusals(customers.Refused, LookupError):
        user = customers.promote(login, role)
    click.echo(f"{user.login} is {user.role} now.")


@user_commands.command("lift-currency-wait")
@click.argument("login")
@click.option("--actor", required=True, help="Who decides this.")
@click.option("--reason", required=True, help="Why.")
def user_lift_currency_wait(login: str, actor: str, reason: str) -> None:
    """Let a customer change the account currency again before the thirty days are over."""
    with _refusals(exchange.CurrencyError, LookupError):
        exchange.lift_wait(login, actor=actor, reason=reason)
    click.echo(f"{login} can change the currency again.")


@contextmanager
def _refusals(*kinds: type[Exception]) -> Iterator[None]:
    """A refusal is a sentence and exit code 2, never a trace."""
    try:
        yield
    except kinds as refusal:
        click.echo(str(refusal).capitalize() if isinstance(refusal, LookupError) else str(refusal), err=True)
        sys.exit(2)


@contextmanager
def _bar(says: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silent elsewhere; it is told (done, total)."""
    with tqdm(desc=says, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
