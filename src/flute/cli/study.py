"""`flute study`: check a study file, propose and run it in a federation, see where it stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins
from rich.markup import escape
from rich.table import Column, Table

from flute.algorithms.made_up import Assumed
from flute.cli.output import ERR, OUT, FormatOption, print_json, show
from flute.coordinator.doors.client import CoordinatorClient
from flute.dp.odds import odds_sentence
from flute.errors import MisuseError, PeerUnreachable
from flute.questions.code import code_digest
from flute.study.agreement import Agreement
from flute.study.cautions import cautions
from flute.study.files.check import Checked, check_study
from flute.study.files.file import MAX_FILE_BYTES, read_study_file
from flute.study.preview import TRYING, Cheapest, Preview, cheapest, read_accuracy
from flute.study.preview import preview as previewed
from flute.study.protection import sights, study_budget
from flute.study.threats import promised
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
            for c in promised(agreement)
        ],
        "cautions": list(cautions(agreement)),
        "onlookers": [
            {"who": s.who, "epsilon": s.epsilon, "says": s.says} for s in sights(agreement, checked.prices)
        ],
    }


@APP.command()
def preview(
    study: StudyPath,
    patients: Annotated[int, typer.Option(help="Patients that each hub is assumed to have.")] = Assumed().patients,
    rate: Annotated[float, typer.Option(help="Part of them assumed with a 0/1 variable at 1.")] = Assumed().rate,
    auc: Annotated[float, typer.Option(help="How well predictors are assumed to tell outcomes.")] = Assumed().auc,
    question: Annotated[str, typer.Option(help="This question alone; needed with --accuracy.")] = "",
    accuracy: Annotated[str, typer.Option(help="Find the epsilon for it: '2 % of patients', or '0.5'.")] = "",
    numbers: Annotated[str, typer.Option(help="Which numbers --accuracy is about: '*.mean', 'age.*'.")] = "*",
    format: FormatOption = "text",
) -> None:
    """Tell by how much noise will move each number of a private study, before anybody is asked.

    It looks at no records: it supposes patients as the study file describes them. 95 of 100 errors stay within what
    is shown, against the exact result of the same patients.
    Example: `flute study preview examples/heart/private.yaml --patients 500`
    """
    agreement, _ = load_study(study)
    assumed = Assumed(patients, rate, auc)
    if accuracy:
        if not question:
            raise MisuseError("Say with --question which question is to be that accurate.")
        with ERR.status(TRYING):
            found = cheapest(agreement, question, read_accuracy(accuracy, numbers), assumed)
        show(to_builtins(found), escape(cheapest_line(agreement, question, found)), format)
        return
    with ERR.status(TRYING):
        seen = previewed(agreement, assumed, only=question)
    if format == "json":
        print_json(to_builtins(seen))
        return
    for table in preview_tables(seen):
        OUT.print(table)
    OUT.print(preview_line(seen))


def preview_tables(seen: Preview) -> list[Table]:
    tables = []
    for question in seen.questions:
        title = f"{question.question}: {question.people:,} patients assumed, share {question.share:g}"
        first = Column("number", overflow="fold")
        table = Table(first, "about", "error (sd)", "95 % within", "unit", title=escape(title))
        for number in question.numbers:
            shown = (f"{number.value:.4g}", f"{number.sd:.3g}", f"± {number.within:.3g}")
            table.add_row(escape(number.what), *shown, escape(number.unit))
        tables.append(table)
    return tables


def preview_line(seen: Preview) -> str:
    if seen.left_share < 1e-9:
        return f"The questions use the whole epsilon of {seen.epsilon:g}."
    return (
        f"Left of the budget once all are answered: {seen.left_share:.0%} of it, {seen.left_rho:.3g} rho, by itself "
        f"an epsilon of {seen.left_epsilon:.2f} (parts of an epsilon do not add up to the whole)."
    )


def cheapest_line(agreement: Agreement, question: str, found: Cheapest) -> str:
    line = f"{question} is that accurate from epsilon {found.epsilon:.3g} on, with its share as it is."
    if found.share > 1:
        return (
            line
            + f" The study's epsilon of {agreement.epsilon:g} does not suffice, even if {question} has all of it."
        )
    return line + f" With the study's epsilon of {agreement.epsilon:g} it needs a share of {found.share:.3g}."


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
    gone = "; ".join(f"{hub} {why}" for hub, why in status["missing"].items())
    said = "; ".join(part for part in (status["why"], gone if gone != status["why"] else "") if part)
    return f"{line} ({said})" if said else line


def _client(url: str, key: Path) -> CoordinatorClient:
    person = load_person_key(key)
    with CoordinatorClient(url, "", None) as unsigned:
        health = unsigned.get("/health")
    if not isinstance(health, dict) or "federation" not in health:
        raise PeerUnreachable(f"What answers at {url} is no coordinator.")
    return CoordinatorClient(url, str(health["federation"]), person)
