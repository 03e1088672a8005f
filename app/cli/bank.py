"""Bank statements, matching and payment files."""

import sys
from pathlib import Path

import click

from app import bank, remittance, services
from app.cli._shared import (
    NEW_FILE,
    Commands,
    actor_option,
    in_writable_folder,
    progress_bar,
    refusals,
)

bank_commands = Commands("bank", help="Bank transfers.")


def _say(text: str, *, err: bool = False) -> None:
    """Write a line without what a payer's text could do to a terminal."""
    click.echo(bank.clean(text).replace(remittance.CUT, " "), err=err)


@bank_commands.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would become of each line and write nothing.")
def bank_import(file: Path, *, dry_run: bool) -> None:
    """Book a statement (camt.052, .053, .054 or MT940) and credit what can be matched.

    Exit code 1 when since this file a statement is missing or the books differ from the bank's balance, or a line was refused; “bank gaps” lists what was missing before, too.

    FILE may be packed by zip or gzip. One that is damaged or does not add up is refused whole; statements of accounts that are not ours are named and left. A line that was booked before is not booked again, from whichever file it comes.
    """
    with refusals(bank.FileRefused), progress_bar("Importing", "lines") as show:
        report = bank.import_file(file.read_bytes(), file.name, dry_run=dry_run, progress=show)
    if not dry_run:
        services.settle_waiting()
    for line in report.lines():
        _say(line)
    if dry_run:
        _say("Nothing was written.")
    if report.refused or report.troubled:
        sys.exit(1)


@bank_commands.command("unmatched")
def bank_unmatched() -> None:
    """List every line in suspense, oldest first, with the number that “bank match” takes."""
    waiting = bank.unmatched()
    for line in waiting:
        _say(f"{line.id:>6}  {line.booked_on}  {line.money!s:>16}  {line.sender or 'unknown sender'}  {line.sender_account}  {line.remittance}  ({line.why})")
    _say(f"{len(waiting)} in suspense.")
    for gap in bank.gaps():
        _say(f"MISSING: {gap.sentence}")
    for difference in bank.differences():
        _say(f"DIFFERS: {difference.sentence}")


@bank_commands.command("gaps")
def bank_gaps() -> None:
    """List what is missing between the statements, where the books differ from them, and what was acknowledged; exit code 1 when something is open.

    Each line begins with the name that “bank acknowledge” takes.
    """
    gaps, differences = bank.gaps(), bank.differences()
    for word, found in (("MISSING", gaps), ("DIFFERS", differences)):
        for gap in found:
            _say(f"{gap.mark}  {word}  {gap.sentence}")
    for kept in bank.acknowledged():
        _say(f"Acknowledged by {kept.actor} on {kept.at:%Y-%m-%d}: {kept.sentence} ({kept.reason})")
    if gaps or differences:
        sys.exit(1)
    _say("Nothing is missing.")


@bank_commands.command("acknowledge")
@click.argument("mark")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="Why it will not come.")
def bank_acknowledge(mark: str, actor: str, reason: str) -> None:
    """Say of a gap or a difference of “bank gaps” that it stays; it is told no more, and kept with your name."""
    with refusals(ValueError):
        _say(f"Acknowledged: {bank.acknowledge(mark, actor=actor, reason=reason)}")


@bank_commands.command("same")
@click.argument("line", type=int)
@click.option("--as", "others", type=int, multiple=True, help="A line it is the same money as, several of them if it is their sum; without, the ones it waits for.")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_same(line: int, others: tuple[int, ...], actor: str, reason: str) -> None:
    """Say that a line in suspense is money that other lines tell already, so that it counts once."""
    with refusals(bank.DoubtError):
        _say(bank.is_same(line, others, actor=actor, reason=reason))


@bank_commands.command("two")
@click.argument("line", type=int)
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_two(line: int, actor: str, reason: str) -> None:
    """Say that a line in suspense is other money than what it may be the same as."""
    with refusals(bank.DoubtError):
        _say(bank.are_two(line, actor=actor, reason=reason))


@bank_commands.command("match")
@click.argument("line", type=int)
@click.option("--customer", "login", required=True, help="Whose money it is, by login.")
@click.option("--bill", "number", default="", help="The bill it pays, if it is for one.")
@actor_option("Login of the person of support who decides this.")
@click.option("--reason", required=True, help="How it is known.")
def bank_match(line: int, login: str, number: str, actor: str, reason: str) -> None:
    """Credit a line in suspense by hand."""
    with refusals(bank.BankError):
        _say(bank.match_by_hand(line, login, actor=actor, reason=reason, number=number))
    services.settle_waiting()


@bank_commands.command("payouts")
@click.option("--out", type=NEW_FILE, callback=in_writable_folder, required=True, help="The pain.001 file to write.")
@click.option("--currency", default="EUR", show_default=True, help="Of the account that pays.")
@click.option("--again", metavar="FILE ID", help="Write the file of that id once more, byte for byte.")
def bank_payouts(out: Path, currency: str, again: str | None) -> None:
    """Write every approved payout by hand into a file for the bank, each once."""
    with refusals(bank.PayoutError):
        file = bank.payouts.again(again) if again else bank.payouts.export(currency)
    if file is None:
        _say(f"No payout in {currency} waits. Nothing was written.")
        return
    if file.test and not out.name.startswith(bank.payouts.TEST):
        out = out.with_name(f"{bank.payouts.TEST}{out.name}")
    try:
        out.write_bytes(file.content)
    except OSError as error:
        _say(f"{file.message} could not be written to {out}: {error.strerror}. Its payouts stand in it: write it by --again {file.message}.", err=True)
        sys.exit(2)
    _say(f"{file.message}: {file.count} transfer{'' if file.count == 1 else 's'}, {file.total} from {file.account}, written to {out}.")


@bank_commands.command("status")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def bank_status(file: Path) -> None:
    """Read what the bank says of a payment file (pain.002): a payout it rejects is undone with its reason, one it accepts is noted."""
    with refusals(bank.FileRefused):
        for said in bank.reports.take_in(file.read_bytes()):
            _say(f"{said.number}  {said.state}  {said.why}".rstrip())


@bank_commands.command("candidates")
@click.argument("line", type=int)
def bank_candidates(line: int) -> None:
    """List whose money a line in suspense may be, the likeliest first, with the signs for it."""
    found = bank.candidates.of_line(line)
    for each in found:
        due = f"  {each.due} to pay" if each.due else ""
        _say(f"{each.score:>3}  {each.login or each.name}  {each.number or 'no bill'}{due}  ({each.reasons})")
    if not found:
        _say("Nothing points to anybody.")


@bank_commands.command("contradictions")
def bank_contradictions() -> None:
    """List what the bank said of payouts against what it said or showed before; exit code 1 when
    something is open. Nothing was undone by it."""
    found = bank.reports.contradictions()
    for said in found:
        _say(f"{said.id:>6}  {said.number}  {said.message}  {said.status} {said.reason_code}  {said.sentence}")
    if found:
        sys.exit(1)
    _say("The bank contradicts nothing.")


@bank_commands.command("looked-at")
@click.argument("contradiction", type=int)
@actor_option("Who asked the bank: a login of support.")
@click.option("--note", required=True, help="What the bank answered.")
def bank_looked_at(contradiction: int, actor: str, note: str) -> None:
    """Note that you asked the bank about a contradiction; nothing is undone by it."""
    with refusals(bank.reports.ContradictionError):
        number = bank.reports.look_at(contradiction, actor=actor, note=note)
    _say(f"Noted for {number}.")


@bank_commands.command("refused")
@click.argument("number")
@actor_option("Who confirms it: a login of support, not who asked the bank.")
@click.option("--reason", required=True, help="What the bank said.")
def bank_refused(number: str, actor: str, reason: str) -> None:
    """Confirm that the bank did not send money back to its sender (BR-…), so it waits again."""
    with refusals(bank.PayoutError):
        bank.payouts.refused(number, reason, actor=actor)
    _say(f"{number} is undone. The money waits in suspense again.")
