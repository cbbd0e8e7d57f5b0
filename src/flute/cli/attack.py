"""`flute attack`: the attack suite on a hospital's own study file: SIMULATED patients, no records, no network."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.attacks.figures import Figure
from flute.attacks.suite import ATTACKS, Verdict, attacked_question, chosen, interval, run, shown
from flute.cli.output import ERR, OUT, FormatOption, print_json
from flute.cli.study import StudyPath, load_study
from flute.defaults.attacks import DEFAULT_SEED, LEVEL
from flute.study.agreement import Agreement

_MARKS = {
    "within": "[green]within the bound[/green]",
    "exceeds": "[red]ABOVE THE BOUND[/red]",
    "undecided": "not decided: more trials are needed",
    "no promise": "no promise",
}


def attack(
    study: StudyPath,
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack by name; again for more. All if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated patients and the noise: the same gives the same.")] = (
        DEFAULT_SEED
    ),
    effort: Annotated[float, typer.Option(min=0.1, max=100, help="How many trials, beside the usual.")] = 1.0,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page here, too.")] = None,
    format: FormatOption = "text",
) -> None:
    """Attack a study before anybody consents to it: who is told apart, what is read, who can bend the result?

    Dry: patients are simulated from the ranges that the study declares. No record is read and nothing is sent.

    Example: `flute attack examples/heart/private.yaml --attack membership-sums`
    """
    agreement, _ = load_study(study)
    names = chosen(attack or ())
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    verdicts: list[Verdict] = []
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(f"{names[0]}, over simulated patients", total=len(names))
        for done in run(agreement, names, str(seed).encode(), effort=effort):
            verdicts.append(done)
            bar.update(task, completed=len(verdicts), description=names[min(len(verdicts), len(names) - 1)])
    if report is not None:
        from flute.report.attacked import render_attacks

        page = render_attacks(
            agreement, verdicts, at=int(time.time()), again=_again(study, attack or (), seed, effort)
        )
        report.write_text(page, encoding="utf-8")
        ERR.print(f"Report: {escape(str(report))}")
    if format == "json":
        print_json(facts(agreement, verdicts, seed))
    else:
        OUT.print(text(agreement, verdicts))
    if any(v.judged == "exceeds" for v in verdicts):
        raise typer.Exit(1)


def _again(study: Path, names: Sequence[str], seed: int, effort: float) -> str:
    """The command that gives the same figures."""
    chosen_ones = [word for name in names for word in ("--attack", name)]
    return shlex.join(["flute", "attack", str(study), *chosen_ones, "--seed", str(seed), "--effort", f"{effort:g}"])


def facts(agreement: Agreement, verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    return {
        "study": agreement.study,
        "question": attacked_question(agreement).id,
        "simulated": True,
        "mode": agreement.mode,
        "plan": agreement.plan.name,
        "seed": seed,
        "level": LEVEL,
        "attacks": [_fact(v) for v in verdicts],
    }


def _fact(verdict: Verdict) -> dict[str, Any]:
    found = verdict.found
    said = {"attack": verdict.attack, "figure": verdict.figure, "judged": verdict.judged, "says": verdict.says}
    if found is None:
        return {**said, "skipped": verdict.skipped}
    return {
        **said,
        "unprotected": _figure(found.unprotected),
        "protected": _figure(found.protected),
        "bound": found.bound,
        "details": {n: {"unprotected": _figure(a), "protected": _figure(b)} for n, (a, b) in found.details.items()},
    }


def _figure(figure: Figure) -> dict[str, float | str | None]:
    ends = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {**{n: v if math.isfinite(v) else None for n, v in ends.items()}, "method": figure.method}


def text(agreement: Agreement, verdicts: Sequence[Verdict]) -> str:
    lines = [f"[bold]{escape(agreement.title)}[/bold], attacked over SIMULATED patients (intervals at {LEVEL:.0%})"]
    for verdict in verdicts:
        lines.append(f"\n[bold]{verdict.attack}[/bold]: {_MARKS[verdict.judged] if verdict.found else 'not tried'}")
        if verdict.found is not None:
            lines.append(f"  {escape(figures(verdict))}")
        lines.append(f"  {escape(verdict.says)}")
    return "\n".join(lines)


def figures(verdict: Verdict) -> str:
    """One line: both figures with their intervals, and the bound."""
    assert verdict.found is not None
    attack, found = ATTACKS[verdict.attack], verdict.found
    bound = "none" if found.bound is None else shown(attack, found.bound)
    parts = (("unprotected", found.unprotected), ("protected", found.protected))
    ends = "; ".join(f"{name} {shown(attack, f.value)} ({interval(attack, f)})" for name, f in parts)
    return f"{verdict.figure}: {ends}; bound {bound}"
