"""`flute ledger`: the privacy budget. `flute audit`: every use of data, and whether the journal holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flute.cli.output import FormatOption, show
from flute.hub.client import HubClient
from flute.hub.home import HubHome
from flute.ledger import audit
from flute.ledger.journal import JournalView
from flute.ledger.journal import verify as verify_journal
from flute.trust.keyfiles import load_party_keys

LEDGER = typer.Typer(help="The privacy budget.", no_args_is_help=True, rich_markup_mode="markdown")
AUDIT = typer.Typer(help="The journal.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]


@LEDGER.command("show")
def ledger_show(folder: Folder, format: FormatOption = "text") -> None:
    """What was spent, what is left, and what that means for one patient. The hub must be running.

    Example: `flute ledger show /srv/flute`
    """
    with HubClient(folder) as door:
        found = door.get("/ledger")
    lines = [_account(a) for a in (*found["studies"], *found["datasets"])]
    show(found, "\n".join(lines) or "Nothing was asked yet.", format)


def _account(account: dict[str, Any]) -> str:
    epsilon = "∞" if account["unbounded"] else f"{account['epsilon_noised']:.3g}"
    numbers = f", {account['exact_numbers']} exact numbers" if account["exact_numbers"] else ""
    what = "dataset" if account["level"] == "persons" else account["level"]  # the ledger's word: whose records
    head = f"[bold]{what} {escape(account['name'])}[/bold]: epsilon {epsilon}{numbers}."
    return f"{head} {escape(account['sentence'])}"


@AUDIT.command("show")
def audit_show(
    folder: Folder,
    study: Annotated[str, typer.Option(help="Only lines about this study.")] = "",
    last: Annotated[int, typer.Option(help="Only the last so many lines.")] = 0,
    format: FormatOption = "text",
) -> None:
    """The journal as sentences; also while the hub runs, also when it does not.

    Example: `flute audit show /srv/flute --last 20`
    """
    lines = [line.as_json() for line in audit.history(JournalView(HubHome(folder).journal), study=study)]
    lines = lines[-last:] if last else lines
    text = "\n".join(f"{line['line']:>5}  {line['time']}  {escape(line['text'])}" for line in lines)
    show(lines, text or "The journal has no such line.", format)


@AUDIT.command("verify")
def audit_verify(folder: Folder, format: FormatOption = "text") -> None:
    """Check every line of the journal: changed, dropped, inserted, reordered, truncated lines are named.

    Example: `flute audit verify /srv/flute`
    """
    home = HubHome(folder)
    found = verify_journal(home.journal, load_party_keys(home.keys).signing.public)
    facts = {"lines": found.position.line, "head": found.position.digest.hex()}
    show(facts, f"All {facts['lines']} lines hold. Head: {facts['head']}", format)
