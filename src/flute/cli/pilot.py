"""`flute demo` and `flute simulate`: the pilot, on simulated records, with real parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.cli.records.imaging import simulate_mri
from flute.pilot.simulate import MAX_PILOT_MEN, SimulatedHub, simulate, write_pilot
from flute.pilot.tables import HUBS

SIMULATE = typer.Typer(help="Simulated records.", no_args_is_help=True, rich_markup_mode="markdown")
SIMULATE.command("mri")(simulate_mri)


@SIMULATE.command("pilot")
def simulate_pilot(
    out: Annotated[Path, typer.Option(help="Folder to write; one folder per hub is made in it.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 1,
    men: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PILOT_MEN, help="Men of the cohort per hub; otherwise the pilot's own numbers."),
    ] = None,
    form: Annotated[
        Literal["fhir", "csv", "sql", "omop"],
        typer.Option("--as", help="FHIR files, or tables with their mapping: CSV files, a database, OMOP."),
    ] = "fhir",
    format: FormatOption = "text",
) -> None:
    """Write the pilot's three cohorts, labelled SIMULATED: as FHIR R4 NDJSON, or as a hospital's tables.

    Beside the men of the cohort stand some who do not belong in it, each for a reason of the pilot's.
    Tables come with the mapping file that says what they mean.

    Examples: `flute simulate pilot --out pilot-data --seed 1` ·
    `flute simulate pilot --out tables --as csv --men 200`
    """
    sizes = None if men is None else dict.fromkeys(HUBS, men)
    hubs = write_pilot(out, seed, sizes) if form == "fhir" else _write_tables(out, seed, sizes, form)
    shown = {"out": str(out), "seed": seed, "as": form, "hubs": {hub: len(drawn.men) for hub, drawn in hubs.items()}}
    counts = ", ".join(f"{hub} ({len(drawn.men):,} men)" for hub, drawn in hubs.items())
    show(shown, f"Wrote SIMULATED records to {escape(str(out))}: {counts}.", format)


def _write_tables(
    out: Path, seed: int, sizes: Mapping[str, int] | None, form: Literal["csv", "sql", "omop"]
) -> dict[str, SimulatedHub]:
    from flute.pilot.exports import write_tables

    hubs = simulate(seed, sizes)
    for hub, drawn in hubs.items():
        write_tables(drawn.men, out / hub, form)
    return hubs


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
