"""`flute study`: check a study file, propose and run it in a federation, see where it stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flute.algorithms.registry import code_digest
from flute.cli.output import OUT, FormatOption, print_json, show
from flute.coordinator.client import CoordinatorClient
from flute.dp.odds import odds_sentence
from flute.errors import MisuseError, PeerUnreachable
from flute.study.agreement import Agreement
from flute.study.check import Checked, check_study
from flute.study.file import MAX_FILE_BYTES, read_study_file
from flute.study.protection import sights, study_budget
from flute.study.threats import cautions, guarantees
from flute.trust.keyfiles import load_person_key

APP = typer.Typer(help="Study files: check, run, status.", no_args_is_help=True, rich_markup_mode="markdown")
StudyPath = Annotated[Path, typer.Argument(help="The study file (YAML).", metavar="STUDY.yaml")]
Url = Annotated[str, typer.Option(help="The coordinator's address.", envvar="FLUTE_COORDINATOR")]
Key = Annotated[Path, typer.Option(help="Folder of your person key.", envvar="FLUTE_PERSON")]


def load_study(path: Path, hubs: list[str] | None = None) -> tuple[Agreement, Checked]:
    """The checked agreement of a file. Raises: StudyFileError: points at the line. MisuseError: no such file."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise MisuseError(f"{path} has {size} bytes; a study file may have {MAX_FILE_BYTES}.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MisuseError(f"There is no study file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} is not a text file that can be read.") from error
    agreement, lines = read_study_file(text, path=str(path), code=code_digest())
    return agreement, check_study(agreement, roster_hubs=hubs, lines=lines, path=str(path))


@APP.command()
def check(
    study: StudyPath,
    hubs: Annotated[str, typer.Option(help="The federation's hubs, comma-separated, to check against.")] = "",
    format: FormatOption = "text",
) -> None:
    """Check a study file: can it be carried out, what does it cost, what does it protect?

    Example: `flute study check examples/heart/private.yaml`
    """
    agreement, checked = load_study(study, hubs.split(",") if hubs else None)
    facts = study_facts(agreement, checked)
    lines = [f"[bold]{escape(agreement.title)}[/bold] can be carried out."]
    for question in facts["questions"]:
        steps = f"{question['steps']} step" + ("s" if question["steps"] > 1 else "")
        numbers = f"{question['numbers']} number" + ("s" if question["numbers"] > 1 else "")
        alone = ", of each hub alone" if question["scope"] == "each" else ""
        lines.append(
            f"  {question['id']}: {question['algorithm']}{alone}, {steps}, {numbers}"
            + (f", {question['rho']:.4g} rho" if agreement.mode == "private" else "")
        )
    lines.append(facts["statement"])
    lines += [f"  {s['who']}: epsilon {s['epsilon']:.2f} in all" for s in facts["onlookers"]]
    held = sum(cell["holds"] for cell in facts["cells"])
    lines.append(f"Threat cells that hold: {held} of {len(facts['cells'])} (--format json lists them).")
    show(facts, "\n".join(lines), format)


def study_facts(agreement: Agreement, checked: Checked) -> dict[str, Any]:
    exact = agreement.mode == "exact"
    return {
        "study": agreement.study,
        "mode": agreement.mode,
        "epsilon": None if exact else agreement.epsilon,
        "delta": None if exact else agreement.delta,
        "fields": list(agreement.fields()),
        "numbers": checked.numbers,
        "statement": "Exact results: no epsilon bounds what they tell about a patient. Hubs must allow them."
        if exact
        else odds_sentence(study_budget(agreement)[0], agreement.delta),
        "questions": [
            {
                "id": q.id,
                "algorithm": q.what.__struct_config__.tag,
                "scope": q.scope,
                "steps": len(checked.prices[q.id]),
                "numbers": sum(p.shape.size for p in checked.prices[q.id]),
                "rho": sum(p.rho for p in checked.prices[q.id]),
            }
            for q in agreement.questions
        ],
        "cells": [
            {"parties": c.parties, "enclaves": c.enclaves, "holds": c.holds, "because": c.because}
            for c in guarantees(agreement.mode, agreement.plan)
        ],
        "cautions": list(cautions(agreement)),
        "onlookers": [
            {"who": s.who, "epsilon": s.epsilon, "says": s.says} for s in sights(agreement, checked.prices)
        ],
    }


@APP.command()
def run(study: StudyPath, coordinator: Url, key: Key, format: FormatOption = "text") -> None:
    """Propose a study, wait for every hub's consent, run it, print its release.

    Proposing an agreed study again goes on with it. Stewards decide with `flute hub consent`.
    Example: `flute study run study.yaml --coordinator http://localhost:8700 --key keys/ada`
    """
    agreement, _ = load_study(study)
    with _client(coordinator, key) as client:
        known = {s["study"] for s in client.get("/studies")}
        if agreement.study not in known:
            client.propose(agreement)
        status = client.get(f"/studies/{agreement.study}")
        with OUT.status("…") as waiting:
            while status["state"] not in ("finished", "stopped"):
                if status["state"] == "ready":
                    client.run(agreement.study)
                waiting.update(escape(status_line(status)))
                time.sleep(0.5)
                status = client.get(f"/studies/{agreement.study}")
        if status["state"] == "stopped":
            raise MisuseError(f"Study {agreement.study} was stopped: {status['why'].rstrip('.')}.")
        release = client.get(f"/studies/{agreement.study}/release")
    if format == "json":
        print_json(release)
    else:
        OUT.print(f"{escape(agreement.title)}: finished. {escape(release['statement'])}")
        OUT.print("The results: flute study run … --format json")


@APP.command()
def status(study: StudyPath, coordinator: Url, key: Key, format: FormatOption = "text") -> None:
    """Where a study stands: consents, questions answered, what it waits for.

    Example: `flute study status study.yaml --coordinator http://localhost:8700 --key keys/ada`
    """
    agreement, _ = load_study(study)
    with _client(coordinator, key) as client:
        found = client.get(f"/studies/{agreement.study}")
    show(found, escape(status_line(found)), format)


def status_line(status: dict[str, Any]) -> str:
    waiting = sorted(h for h, c in status["consents"].items() if c == "asked")
    if status["state"] == "consenting":
        return f"{status['study']}: waiting for the consent of {', '.join(waiting)}"
    line = (
        f"{status['study']}: {status['state']}, {status['done']} of {status['of']} results, {status['rounds']} rounds"
    )
    return f"{line} ({status['why']})" if status["why"] else line


def _client(url: str, key: Path) -> CoordinatorClient:
    person = load_person_key(key)
    with CoordinatorClient(url, "", None) as unsigned:
        health = unsigned.get("/health")
    if not isinstance(health, dict) or "federation" not in health:
        raise PeerUnreachable(f"What answers at {url} is no coordinator.")
    return CoordinatorClient(url, str(health["federation"]), person)
