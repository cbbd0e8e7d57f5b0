"""`flute threats STUDY.yaml`: the nine threat cells of a study, in words for whoever has to answer for it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from flute.cli.output import OUT, FormatOption, print_json
from flute.cli.study import StudyPath, load_study
from flute.study.agreement import Agreement
from flute.study.cautions import cautions
from flute.study.threats import Cell, promised


def threats(study: StudyPath, format: FormatOption = "text") -> None:
    """What a study protects against, what it does not, on what that rests, and which attack was tried.

    Nine cells: three assumptions about the parties, crossed with three about enclaves. The agreement that hubs
    consent to carries the digest of this very table.

    Example: `flute threats examples/heart/private.yaml`
    """
    agreement, _ = load_study(study)
    if format == "json":
        print_json(threat_facts(agreement))
        return
    print_threats(agreement)


def threat_facts(agreement: Agreement) -> dict[str, Any]:
    cells = promised(agreement)
    return {
        "study": agreement.study,
        "plan": agreement.plan.name,
        "mode": agreement.mode,
        "digest": agreement.guarantees.hex(),
        "cells": [
            {
                "parties": c.parties,
                "enclaves": c.enclaves,
                "holds": c.holds,
                "because": c.because,
                "assumes": c.assumes,
                "residual": c.residual,
                "test": c.test,
            }
            for c in cells
        ],
        "cautions": list(cautions(agreement)),
    }


def print_threats(agreement: Agreement) -> None:
    cells = promised(agreement)
    OUT.print(
        f"[bold]{escape(agreement.title)}[/bold]: plan {agreement.plan.name}, {agreement.mode} results, "
        f"{len(agreement.hubs)} hubs of which {agreement.plan.colluding} may collude."
    )
    OUT.print(_grid(cells))
    for parties in dict.fromkeys(c.parties for c in cells):
        row = [c for c in cells if c.parties == parties]
        for cell in dict.fromkeys((c.holds, c.because, c.assumes, c.residual, c.test) for c in row):
            _print_reason(parties, [c.enclaves for c in row if c.because == cell[1]], cell, len(row))
    OUT.print("[bold]Besides[/bold]")
    for caution in cautions(agreement):
        OUT.print(f"  {escape(caution)}")
    OUT.print("UNAUDITED: nobody outside the project has reviewed the protocols yet.")


def _grid(cells: tuple[Cell, ...]) -> Table:
    columns = list(dict.fromkeys(c.enclaves for c in cells))
    table = Table(title="Does it hold?", show_lines=False)
    table.add_column("if …", max_width=60)
    for column in columns:
        table.add_column(column)
    for parties in dict.fromkeys(c.parties for c in cells):
        found = {c.enclaves: c.holds for c in cells if c.parties == parties}
        table.add_row(parties, *("[green]holds[/green]" if found[c] else "[red]does not hold[/red]" for c in columns))
    return table


def _print_reason(parties: str, enclaves: list[str], cell: tuple[bool, str, str, str, str], columns: int) -> None:
    holds, because, assumes, residual, test = cell
    where = "" if len(enclaves) == columns else f" ({' or '.join(enclaves)})"
    verdict = "[green]Holds.[/green]" if holds else "[red]Does not hold.[/red]"
    OUT.print(f"\n[bold]{escape(parties[0].upper() + parties[1:])}{where}[/bold]")
    OUT.print(f"  {verdict} {escape(because)}")
    OUT.print(f"  Rests on: {escape(assumes)}")
    OUT.print(f"  What is left: {escape(residual)}")
    OUT.print(f"  Tried in: {test}")
