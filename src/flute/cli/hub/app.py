"""`flute hub`: make a hub, join a federation, serve, import records, decide about studies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from flute.cli.hub import budget as hub_budget
from flute.cli.hub import data as hub_data
from flute.cli.hub.catalogue import catalogue
from flute.cli.hub.face import face, face_token
from flute.cli.output import OUT, FormatOption, show
from flute.coordinator.doors.client import CoordinatorClient
from flute.errors import MisuseError
from flute.hub.doors.client import HubClient
from flute.hub.home import HubHome
from flute.hub.store import HubPolicy
from flute.local.processes import follow_parent

APP = typer.Typer(help="A hospital's own node.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
Person = Annotated[str, typer.Option(help="Who decides; it goes into the journal.")]
hub_data.register(APP)
hub_budget.register(APP)
APP.command("catalogue")(catalogue)
APP.command("face")(face)
APP.command("face-token")(face_token)


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

    Before it has joined a federation it takes imports and nothing else, so that a dataset can be made ready first.

    Example: `flute hub serve /srv/flute`
    """
    from flute.hub.process import serve_hub

    follow_parent()
    serve_hub(folder, capture=capture)


@APP.command()
def status(folder: Folder, format: FormatOption = "text") -> None:
    """What the hub holds and where its studies stand.

    Example: `flute hub status /srv/flute --format json`
    """
    with HubClient(folder) as door:
        found = door.get("/status")
    lines = [
        f"[bold]{escape(found['hub'])}[/bold] · version {found['version']} · {_roster_said(found['roster'])}",
        f"Fingerprint: {found['fingerprint']}",
        f"Policy: {escape(found['policy'])}",
        f"Journal: {found['journal']['lines']} lines",
        *(f"Dataset {escape(d['name'])}: {d['report']['rows']} patients" for d in found["datasets"]),
        *(f"Study {escape(s['study'])}: {s['state']}" for s in found["studies"]),
    ]
    show(found, "\n".join(lines), format)


def _roster_said(roster: dict[str, Any] | None) -> str:
    return "not in a federation yet" if roster is None else f"roster {roster['version']}"


@APP.command()
def consent(
    folder: Folder,
    study: Annotated[str, typer.Argument(help="The study's name.")],
    person: Person,
    decision: Annotated[
        str, typer.Option(help="grant, deny, withdraw or end-alike; nothing to only read the agreement.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")] = "",
    alike: Annotated[
        float, typer.Option(min=0, help="With grant: the epsilon up to which studies alike may follow it unread.")
    ] = 0.0,
    format: FormatOption = "text",
) -> None:
    """Read a study's agreement, and decide.

    A researcher who works from a notebook asks many small questions, each a study of its own. `--alike 2` lets those
    follow that differ from this one in nothing but their questions and budget (same researcher, hubs, purpose, legal
    basis, records, protection, code; private; no other variables; no later end), up to epsilon 2 in all, this one
    included. Each is journaled; `--decision end-alike` ends it.

    Examples: `flute hub consent /srv/flute pilot --person eva` · `… --decision grant` ·
    `… --decision grant --alike 2`
    """
    with HubClient(folder) as door:
        shown = door.get(f"/studies/{study}")
        if decision:
            if decision not in ("grant", "deny", "withdraw", "end-alike"):
                raise MisuseError("--decision is grant, deny, withdraw or end-alike.")
            shown |= door.decide(study, decision, person=person, reason=reason, alike=alike)
    decided = f"Study {escape(study)} is {shown['state']} here."
    show(shown, decided if decision else agreement_text(shown), format)


@APP.command()
def key(
    folder: Folder,
    study: Annotated[str, typer.Argument(help="The study's name.")],
    format: FormatOption = "text",
) -> None:
    """The key that encrypts a study's answers (plan threshold-he): is it made, who has to agree to open.

    Hubs make it together, without a dealer, when the study first asks; this hub holds one part and never gives it
    away. Owners compare the fingerprint by phone: where all read the same, all encrypt to the same key.
    Example: `flute hub key /srv/flute trial`
    """
    with HubClient(folder) as door:
        found = door.get(f"/studies/{study}")["key"]
    if found is None:
        raise MisuseError(f"Study {study} is not under plan threshold-he, so it has no key of its own.")
    who = f"Totals open when {found['openers']} of {', '.join(found['hubs'])} agree."
    if not found["made"]:
        text = f"No key yet: the hubs make it together when the study's first question is asked. {who}"
    else:
        text = f"Key of study {escape(study)} (attempt {found['attempt']}): {found['fingerprint']}\n{who}"
    show(found, text, format)


def agreement_text(shown: dict[str, object]) -> str:
    """An agreement as a data protection officer reads it."""
    a = shown["agreement"]
    assert isinstance(a, dict)
    protected = (
        f"{a['numbers']} exact numbers at most; no epsilon bounds what they tell"
        if a["mode"] == "exact"
        else f"epsilon {a['epsilon']:g} at delta {a['delta']:g} per patient and hub"
    )
    lines = [
        f"[bold]{escape(a['title'])}[/bold]" + (" [yellow]SIMULATED[/yellow]" if a["simulated"] else ""),
        f"State here: {shown['state']}",
        f"Document: {shown['digest']}",
        f"Purpose: {escape(a['purpose'])}",
        f"Asked by: {escape(a['researcher'])}, over {', '.join(a['hubs'])}",
        f"Legal basis: {escape(a['legal_basis'])}",
        f"Ethics approval: {escape(a['ethics_approval'])}",
        f"Period: {_day(a['period'][0])} to {_day(a['period'][1])}; results kept until {_day(a['retain_until'])}",
        f"Fields: {', '.join(a['fields'])}",
        f"Questions: {', '.join(q['id'] + ' (' + q['algorithm'] + ')' for q in a['questions'])}",
        f"Protection: {escape(a['plan'])} {protected}.",
        *(f"To {escape(s['who'])}: epsilon {s['epsilon']:.2f} in all" for s in a["onlookers"]),
        *_cells_text(a["guarantees"]),
        *(f"To know: {escape(caution)}" for caution in a["cautions"]),
        *(line for own in a["own_code"] for line in _code_text(own)),
        f"[yellow]{escape(a['unaudited'])}[/yellow]",
    ]
    return "\n".join(lines)


def _code_text(own: dict[str, Any]) -> list[str]:
    """A researcher's own code as a steward reads it: numbered, then what a reviewer would look at."""
    numbered = [f"{number:4} {escape(line)}" for number, line in enumerate(own["code"].splitlines(), 1)]
    looked = [f"  line {f['line']}: {escape(f['text'])}" for f in own["findings"]]
    return [
        f"Own code of question {escape(own['question'])}. It runs in the sandbox, on one patient at a time; read it:",
        *numbered,
        *(
            [f"[yellow]To look at ({len(looked)}):[/yellow]", *looked]
            if looked
            else ["To look at: nothing was found."]
        ),
    ]


def _cells_text(cells: list[dict[str, Any]]) -> list[str]:
    """Columns that are alike are said once."""
    lines, columns = [], len({c["enclaves"] for c in cells})
    for parties, because in dict.fromkeys((c["parties"], c["because"]) for c in cells):
        alike = [c for c in cells if (c["parties"], c["because"]) == (parties, because)]
        cell = alike[0]
        where = "" if len(alike) == columns else f" ({' or '.join(c['enclaves'] for c in alike)})"
        verdict = "holds" if cell["holds"] else "[yellow]does not hold[/yellow]"
        lines.append(
            f"Assuming {escape(parties)}{where}: {verdict}. {escape(because)} Rests on: {escape(cell['assumes'])} "
            f"What is left: {escape(cell['residual'])}"
        )
    return lines


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
    epsilon_catalogue: Annotated[
        float | None, typer.Option(min=1e-3, max=100, help="Ceiling for a dataset's catalogue entry.")
    ] = None,
    exact: Annotated[bool | None, typer.Option("--exact/--no-exact", help="Allow exact results.")] = None,
    floor: Annotated[int | None, typer.Option(min=1, help="No exact count under this many persons.")] = None,
    hide: Annotated[list[str] | None, typer.Option(help="A variable that no study may use (repeatable).")] = None,
    own_code: Annotated[
        bool | None, typer.Option("--own-code/--no-own-code", help="Allow researchers' own code, in the sandbox.")
    ] = None,
    keys: hub_budget.Keys = None,
) -> None:
    """Set what this hub's owner allows at all, whatever a study asks. What was charged stays charged.

    To allow less takes one person. To allow more takes two once a study was granted: one steward proposes it with
    --keys, another confirms it (`flute hub confirm`).
    Examples: `flute hub policy /srv/flute --person eva --epsilon 2 --no-exact --hide isup` · `flute hub policy
    /srv/flute --person eva --epsilon 5 --keys keys/eva`
    """
    changes = {
        "epsilon": epsilon, "epsilon_all": epsilon_all, "epsilon_catalogue": epsilon_catalogue,
        "exact_allowed": exact, "floor": floor, "hidden": None if hide is None else tuple(hide),
        "own_code_allowed": own_code,
    }  # fmt: skip
    with HubClient(folder) as door:
        now = msgspec.convert(door.get("/policy"), HubPolicy)
        changed = msgspec.structs.replace(now, **{k: v for k, v in changes.items() if v is not None})
        if keys is not None:
            hub_budget.propose_policy(door, folder, changed, person, keys)
            return
        set_now = msgspec.convert(door.set_policy(changed, person=person), HubPolicy)
    OUT.print(f"Policy: {escape(set_now.sentence)}")
