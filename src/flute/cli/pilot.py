"""`flute demo` and `flute simulate`: the pilot, on simulated records, with real parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.pilot.simulate import write_pilot

SIMULATE = typer.Typer(help="Simulated records.", no_args_is_help=True, rich_markup_mode="markdown")


@SIMULATE.command("pilot")
def simulate_pilot(
    out: Annotated[Path, typer.Option(help="Folder to write; one folder per hub is made in it.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 1,
    format: FormatOption = "text",
) -> None:
    """Write the pilot's three cohorts as FHIR R4 NDJSON, labelled SIMULATED.

    Example: `flute simulate pilot --out pilot-data --seed 1`
    """
    write_pilot(out, seed=seed)
    show({"out": str(out), "seed": seed}, f"Wrote SIMULATED records to {escape(str(out))}.", format)


def demo(
    out: Annotated[Path, typer.Option(help="Where the report, results and model are written.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="Seed of the simulated records.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the federation running until Ctrl-C.")] = False,
    format: FormatOption = "text",
) -> None:
    """The whole road: three hospitals' simulated records, a coordinator and three hubs as separate processes,
    private and exact models, verified journals, one report.

    Examples: `flute demo` · `flute demo --keep` · `flute demo --out /tmp/demo --format json`
    """
    from flute.demo import run_demo

    shown = run_demo(out, seed=seed, keep=keep, quiet=format == "json")
    if format == "json":
        show(shown, "", format)
    else:
        OUT.print(f"\nReport: [bold]{escape(str(shown['report']))}[/bold]")
