"""`flute hub`: make a hub, join a federation, serve, import records, decide about studies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.cli.study import load_study
from flute.coordinator.client import CoordinatorClient
from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.hub.client import HubClient
from flute.hub.home import HubHome
from flute.hub.store import HubPolicy
from flute.local.processes import follow_parent
from flute.pilot.recipe import PILOT_RECIPE

APP = typer.Typer(help="A hospital's own node.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
Person = Annotated[str, typer.Option(help="Who decides; it goes into the journal.")]


@APP.command()
def init(folder: Folder, name: Annotated[str, typer.Option(help="The hub's name, for example huvh.")]) -> None:
    """Make a hub's folder and its keys. The keys never leave it.

    Example: `flute hub init /srv/flute --name huvh`
    """
    from flute.hub.setup import init_hub

    shown = init_hub(folder, name, os.urandom)
    OUT.print(f"Hub {escape(name)} is in {escape(str(folder))}. Fingerprint, to be compared by phone:\n  {shown}")


@APP.command()
def join(
    folder: Folder,
    invitation: Annotated[Path, typer.Argument(help="The invitation that was mailed.", metavar="INVITATION")],
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for the admission.")] = 600.0,
) -> None:
    """Answer an invitation: ask to join, and wait until the coordinator has admitted this hub.

    Asking again repeats the same request. Example: `flute hub join /srv/flute invitation.txt`
    """
    from flute.hub.setup import ask_to_join, request_name, take_admission

    asked, request = ask_to_join(folder, invitation.read_text(encoding="utf-8"), int(time.time()))
    OUT.print(f"Federation {escape(asked.federation)}; the coordinator's fingerprint, to be compared by phone:")
    OUT.print(f"  {asked.coordinator_fingerprint}")
    with CoordinatorClient(asked.api_url, asked.federation, None) as client:
        from flute.http import read_answer

        read_answer(client.call("POST", "/enrolment", request))
        path = f"/enrolment/{HubHome(folder).config().hub}/{request_name(folder)}"
        deadline = time.monotonic() + wait_s
        with OUT.status("Waiting to be admitted …"):
            answer = client.call("GET", path)
            while answer.status_code == 202 and time.monotonic() < deadline:
                time.sleep(1.0)
                answer = client.call("GET", path)
    if answer.status_code == 202:
        raise MisuseError("The coordinator has not admitted this hub yet; run the same command again later.")
    if answer.status_code != 200:
        read_answer(answer)
    take_admission(folder, answer.content, int(time.time()))
    OUT.print("Admitted. Next: flute roster sign, then flute roster accept, then flute hub serve.")


@APP.command()
def serve(
    folder: Folder,
    capture: Annotated[Path | None, typer.Option("--capture-for-test", hidden=True)] = None,
) -> None:
    """Run the hub until it is told to stop (Ctrl-C or SIGTERM). It dials out only; it listens on no network.

    Example: `flute hub serve /srv/flute`
    """
    from flute.hub.process import serve_hub

    follow_parent()
    serve_hub(folder, capture=capture)


@APP.command("import")
def import_(
    folder: Folder,
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    person: Person,
    fhir: Annotated[Path | None, typer.Option(help="Folder of FHIR files (NDJSON, bundles).")] = None,
    csv: Annotated[Path | None, typer.Option(help="A CSV file.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe for FHIR files: pilot, or a JSON file.")] = "pilot",
    variables: Annotated[
        Path | None, typer.Option(help="What to read of a CSV file: a YAML list of variables, or a study file.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="The CSV column that names the patient.")] = None,
    simulated: Annotated[bool, typer.Option(help="Label the records SIMULATED.")] = False,
    format: FormatOption = "text",
) -> None:
    """Import records into the running hub's own store, as a frozen snapshot.

    Examples: `flute hub import /srv/flute --dataset pilot --fhir export/ --person eva` ·
    `flute hub import /srv/flute --dataset heart --csv heart.csv --variables heart.yaml --person eva`
    """
    if (fhir is None) == (csv is None):
        raise MisuseError("Say where the records are: --fhir FOLDER or --csv FILE, one of the two.")
    asked: dict[str, object] = {"dataset": dataset, "person": person, "simulated": simulated}
    if fhir is not None:
        chosen = msgspec.to_builtins(PILOT_RECIPE) if recipe == "pilot" else _recipe_file(Path(recipe))
        asked |= {"source": str(fhir.absolute()), "recipe": chosen}
    elif csv is not None:
        if variables is None:
            raise MisuseError(f"A CSV file needs --variables: a study file that names them, or {_A_LIST}.")
        asked |= {"source": str(csv.absolute()), "variables": _variables_file(variables), "id_column": id_column}
    with HubClient(folder) as door:
        report = door.import_records(**asked)
    show(report, escape(_import_text(report)), format)


def _import_text(report: dict[str, Any]) -> str:
    """What came in, in one sentence each; counts only, for the steward's own eyes."""
    parts = [f"Imported {report['rows']} patients from {report['files']} file{'s' if report['files'] > 1 else ''}."]
    for title in ("excluded", "refused", "missing", "unusable"):
        counts = [f"{n} {name}" for name, n in report[title].items() if n]
        if counts:
            parts.append(f"{title.capitalize()}: {', '.join(counts)}.")
    return "\n".join(parts)


def _recipe_file(path: Path) -> object:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise MisuseError(f"{path} is no recipe: 'pilot', or a JSON file with views, sql and variables.") from error


_A_LIST = "a YAML list with lines such as '- {name: age, kind: number, low: 0, high: 120}'"


def _variables_file(path: Path) -> list[Any]:
    """Variables of a study file, or a list of them. Raises: MisuseError, StudyFileError: what to write."""
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise MisuseError(f"{path} is not YAML; write a study file, or {_A_LIST}.") from error
    if isinstance(listed, dict) and "flute" in listed:
        agreement, _ = load_study(path)
        return [msgspec.to_builtins(v.variable) for v in agreement.variables]
    try:
        return [msgspec.to_builtins(v) for v in msgspec.convert(listed, type=tuple[Variable, ...])]
    except msgspec.ValidationError as error:
        raise MisuseError(f"{path} is neither a study file nor {_A_LIST} ({error}).") from error


@APP.command()
def status(folder: Folder, format: FormatOption = "text") -> None:
    """What the hub holds and where its studies stand.

    Example: `flute hub status /srv/flute --format json`
    """
    with HubClient(folder) as door:
        found = door.get("/status")
    lines = [
        f"[bold]{escape(found['hub'])}[/bold] · version {found['version']} · roster {found['roster']['version']}",
        f"Fingerprint: {found['fingerprint']}",
        f"Policy: {escape(found['policy'])}",
        f"Journal: {found['journal']['lines']} lines",
        *(f"Dataset {escape(d['name'])}: {d['report']['rows']} patients" for d in found["datasets"]),
        *(f"Study {escape(s['study'])}: {s['state']}" for s in found["studies"]),
    ]
    show(found, "\n".join(lines), format)


@APP.command()
def consent(
    folder: Folder,
    study: Annotated[str, typer.Argument(help="The study's name.")],
    person: Person,
    decision: Annotated[str, typer.Option(help="grant, deny or withdraw; nothing to only read the agreement.")] = "",
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")] = "",
    format: FormatOption = "text",
) -> None:
    """Read a study's agreement, and decide.

    Examples: `flute hub consent /srv/flute pilot --person eva` · `… --decision grant`
    """
    with HubClient(folder) as door:
        shown = door.get(f"/studies/{study}")
        if decision:
            if decision not in ("grant", "deny", "withdraw"):
                raise MisuseError("--decision is grant, deny or withdraw.")
            shown |= door.decide(study, decision, person=person, reason=reason)
    decided = f"Study {escape(study)} is {shown['state']} here."
    show(shown, decided if decision else agreement_text(shown), format)


def agreement_text(shown: dict[str, object]) -> str:
    """An agreement as a data protection officer reads it."""
    a = shown["agreement"]
    assert isinstance(a, dict)
    cells = {(c["parties"], c["because"]): c for c in a["guarantees"]}  # enclave columns that are alike: said once
    protected = (
        f"{a['numbers']} exact numbers at most; no epsilon bounds what they tell"
        if a["mode"] == "exact"
        else f"epsilon {a['epsilon']:g} at delta {a['delta']:g} per patient and hub"
    )
    lines = [
        f"[bold]{escape(a['title'])}[/bold]" + (" [yellow]SIMULATED[/yellow]" if a["simulated"] else ""),
        f"State here: {shown['state']}",
        f"Purpose: {escape(a['purpose'])}",
        f"Asked by: {escape(a['researcher'])}, over {', '.join(a['hubs'])}",
        f"Legal basis: {escape(a['legal_basis'])}",
        f"Ethics approval: {escape(a['ethics_approval'])}",
        f"Period: {_day(a['period'][0])} to {_day(a['period'][1])}; results kept until {_day(a['retain_until'])}",
        f"Fields: {', '.join(a['fields'])}",
        f"Questions: {', '.join(q['id'] + ' (' + q['algorithm'] + ')' for q in a['questions'])}",
        f"Protection: {escape(a['plan'])} {protected}.",
        *(_cell_text(c) for c in cells.values()),
        f"[yellow]{escape(a['unaudited'])}[/yellow]",
    ]
    return "\n".join(lines)


def _cell_text(cell: dict[str, Any]) -> str:
    verdict = "holds" if cell["holds"] else "[yellow]does not hold[/yellow]"
    return f"Assuming {escape(cell['parties'])}: {verdict}. {escape(cell['because'])}"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


@APP.command()
def policy(
    folder: Folder,
    person: Person,
    epsilon: Annotated[float | None, typer.Option(min=1e-3, max=100, help="Ceiling for one study.")] = None,
    epsilon_all: Annotated[
        float | None, typer.Option(min=1e-3, max=100, help="Ceiling for all studies of a dataset.")
    ] = None,
    exact: Annotated[bool | None, typer.Option("--exact/--no-exact", help="Allow exact results.")] = None,
    floor: Annotated[int | None, typer.Option(min=1, help="No exact count under this many persons.")] = None,
    hide: Annotated[list[str] | None, typer.Option(help="A variable that no study may use (repeatable).")] = None,
) -> None:
    """Set what this hub's owner allows at all, whatever a study asks. What was charged stays charged.

    Example: `flute hub policy /srv/flute --person eva --epsilon 2 --no-exact --hide isup`
    """
    changes = {
        "epsilon": epsilon, "epsilon_all": epsilon_all, "exact_allowed": exact, "floor": floor,
        "hidden": None if hide is None else tuple(hide),
    }  # fmt: skip
    with HubClient(folder) as door:
        now = msgspec.convert(door.get("/policy"), HubPolicy)
        changed = msgspec.structs.replace(now, **{k: v for k, v in changes.items() if v is not None})
        set_now = msgspec.convert(door.set_policy(changed, person=person), HubPolicy)
    OUT.print(f"Policy: {escape(set_now.sentence)}")
