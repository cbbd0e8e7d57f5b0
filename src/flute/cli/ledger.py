"""`flute ledger`: the privacy budget. `flute audit`: every use of data, and whether the journal holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.errors import MisuseError
from flute.hub.doors.client import HubClient
from flute.hub.home import HubHome
from flute.hub.store import Part
from flute.ledger import audit
from flute.ledger.charge import Place
from flute.ledger.journals.journal import JournalView, Position
from flute.ledger.journals.journal import verify as verify_journal
from flute.ledger.recount import recount
from flute.primitives.keys import KEY_SIZE
from flute.trust.keyfiles import load_party_keys

LEDGER = typer.Typer(help="The privacy budget.", no_args_is_help=True, rich_markup_mode="markdown")
AUDIT = typer.Typer(help="The journal.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
Person = Annotated[str, typer.Option(help="Who does it; it goes into the journal.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the journal.")]


@LEDGER.command("show")
def ledger_show(folder: Folder, format: FormatOption = "text") -> None:
    """What was spent, what is left, and what that means for one patient. The hub must be running.

    Example: `flute ledger show /srv/flute`
    """
    with HubClient(folder) as door:
        found = door.get("/ledger")
    lines = [_account(a) for a in (*found["studies"], *found["datasets"])]
    lines += [_allotment(a) for a in found["tally"]["allotments"]]
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
def audit_verify(
    place: Annotated[Path, typer.Argument(help="The hub's folder, or an export.", metavar="FOLDER|EXPORT")],
    key: Annotated[str, typer.Option(help="The hub's public key in hexadecimal; for an export.")] = "",
    expected: Annotated[str, typer.Option(help="LINE:DIGEST of a receipt: it must be in there.")] = "",
    format: FormatOption = "text",
) -> None:
    """Check every line of a journal or export: changed, dropped, inserted, reordered, truncated lines are named.

    Examples: `flute audit verify /srv/flute` · `flute audit verify huvh.ndjson --key 3f2a…`
    """
    position = _position(expected) if expected else None
    if place.is_dir():
        home = HubHome(place)
        found = verify_journal(home.journal, load_party_keys(home.keys).signing.public, position)
    else:
        found = audit.verify_export(place, _key(key), position)
    facts = {"lines": found.position.line, "head": found.position.digest.hex()}
    show(facts, f"All {facts['lines']} lines hold. Head: {facts['head']}", format)


@AUDIT.command("export")
def audit_export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="File to write: one JSON object per line, then the signed head.")],
    format: FormatOption = "text",
) -> None:
    """Write the whole journal for somebody else, who needs the hub's public key and nothing else to check it.

    Also while the hub runs. Example: `flute audit export /srv/flute --out huvh.ndjson`
    """
    home = HubHome(folder)
    with out.open("wb") as file:
        position = audit.export(JournalView(home.journal), file)
    public = load_party_keys(home.keys).signing.public.hex()
    facts = {"lines": position.line, "head": position.digest.hex(), "key": public}
    show(
        facts,
        f"Wrote {position.line} lines. Check them with: flute audit verify {escape(str(out))} --key {public}",
        format,
    )


@AUDIT.command("budget")
def audit_budget(
    export: Annotated[Path, typer.Argument(help="An export ('flute audit export').", metavar="EXPORT")],
    key: Annotated[str, typer.Option(help="The hub's public key in hexadecimal.")],
    expected: Annotated[str, typer.Option(help="LINE:DIGEST of a receipt: it must be in there.")] = "",
    format: FormatOption = "text",
) -> None:
    """Check an export and count its charges again: what the hub says that was spent, by somebody else.

    Example: `flute audit budget huvh.ndjson --key 3f2a… --format json`
    """
    found = recount(export, _key(key), _position(expected) if expected else None)
    lines = [_counted(a) for a in found.tally["accounts"]]
    lines += [_allotment(a) for a in found.tally["allotments"]]
    lines.append(f"{found.verified.lines} lines hold; {found.tally['open']} releases have not ended.")
    show({"lines": found.verified.lines, **found.tally}, "\n".join(lines), format)


def _counted(a: dict[str, Any]) -> str:
    spent = f"rho {a['rho_reserved'] + a['rho_settled']:.6g} (mu²/2), delta {a['delta']:.3g}"
    exact = f", {a['exact_numbers']} exact numbers" if a["exact_numbers"] else ""
    name = f" {escape(a['name'])}" if a["name"] else ""
    return f"[bold]{'dataset' if a['level'] == 'persons' else a['level']}{name}[/bold]: {spent}{exact} spent"


def _key(said: str) -> bytes:
    try:
        raw = bytes.fromhex(said)
    except ValueError:
        raw = b""
    if len(raw) != KEY_SIZE:
        raise MisuseError("--key is the hub's public key, 64 hexadecimal letters; 'flute audit export' prints it.")
    return raw


def _position(said: str) -> Position:
    line, _, digest = said.partition(":")
    try:
        return Position(int(line), bytes.fromhex(digest))
    except ValueError:
        raise MisuseError("--expected is a receipt's LINE:DIGEST, a number and hexadecimal letters.") from None


@LEDGER.command("allot")
def ledger_allot(
    folder: Folder,
    to: Annotated[str, typer.Argument(help="STUDY, STUDY/RESEARCHER or STUDY/RESEARCHER/QUESTION.", metavar="PLACE")],
    person: Person,
    epsilon: Annotated[float, typer.Option(min=0, max=100, help="As much as a budget of this epsilon allows.")] = 0.0,
    numbers: Annotated[int, typer.Option(min=0, help="Exact numbers.")] = 0,
    reason: Reason = "",
) -> None:
    """Set what a study, a researcher in it or one question may spend in all, what was spent before included.

    Never more than what encloses it. Example: `flute ledger allot /srv/flute pilot/ada --epsilon 1 --person eva`
    """
    with HubClient(folder) as door:
        found = door.allot(_place(to), Part(epsilon, numbers), person=person, reason=reason)
    OUT.print("\n".join(_allotment(a) for a in found))


@LEDGER.command("move")
def ledger_move(
    folder: Folder,
    source: Annotated[str, typer.Argument(help="From where, as in 'flute ledger allot'.", metavar="FROM")],
    target: Annotated[str, typer.Argument(help="To where.", metavar="TO")],
    person: Person,
    epsilon: Annotated[float, typer.Option(min=0, max=100, help="As much as a budget of this epsilon allows.")] = 0.0,
    numbers: Annotated[int, typer.Option(min=0, help="Exact numbers.")] = 0,
    reason: Reason = "",
) -> None:
    """Move what is unspent of one allotment to another.

    Example: `flute ledger move /srv/flute pilot heart --epsilon 0.5 --person eva --reason "pilot ended early"`
    """
    with HubClient(folder) as door:
        part = Part(epsilon, numbers)
        found = door.move(_place(source), _place(target), part, person=person, reason=reason)
    OUT.print("\n".join(_allotment(a) for a in found))


def _place(said: str) -> Place:
    parts = said.split("/")
    try:
        return msgspec.convert(dict(zip(("study", "asker", "question"), parts, strict=False)), Place)
    except msgspec.ValidationError as error:
        raise MisuseError(f"{said!r} is no STUDY, STUDY/RESEARCHER or STUDY/RESEARCHER/QUESTION.") from error


def _allotment(a: dict[str, Any]) -> str:
    exact = f", {a['numbers']} exact numbers" if a["numbers"] else ""
    return f"Allotted to {a['level']} {escape(a['name'])}: rho {a['rho']:.6g} (mu²/2){exact}"
