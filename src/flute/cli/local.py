"""`flute local run`: a study over anyone's own files, in a throw-away federation of real processes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.cli.output import ERR, FormatOption, print_json
from flute.cli.study import StudyPath, load_study
from flute.errors import MisuseError, StudyFileError
from flute.local.federation import LocalFederation
from flute.local.run import (
    Outcome,
    hub_paths,
    import_csv,
    import_fhir,
    own_data_policy,
    run_study,
    set_policy,
    verify_journals,
)
from flute.pilot.recipe import PILOT_RECIPE
from flute.study.agreement import Agreement

APP = typer.Typer(help="A throw-away federation on this machine.", no_args_is_help=True, rich_markup_mode="markdown")


@APP.command()
def run(
    study: StudyPath,
    hub: Annotated[list[str], typer.Option(help="NAME=PATH of a CSV file or a folder of FHIR files; once per hub.")],
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    id_column: Annotated[str | None, typer.Option(help="The CSV column that names the patient.")] = None,
    floor: Annotated[int, typer.Option(help="Exact mode: no count under this many persons (1: none refused).")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Keep the federation's folder here.")] = None,
    format: FormatOption = "text",
) -> None:
    """Run a study over your own files. Coordinator and hubs are real processes; they end when this ends.

    All records are yours here, so what the study asks is allowed, exact results included.

    Example: `flute local run heart.yaml --hub north=north.csv --hub south=south.csv --hub west=west.csv`
    """
    paths = hub_paths(hub)
    agreement, _ = load_study(study)
    _same_hubs(agreement, paths, study)
    if agreement.mode == "exact":
        ERR.print("Exact mode: allowed because the data are your own. No epsilon bounds what exact results tell.")
    with tempfile.TemporaryDirectory(prefix="flute-") as scratch:
        folder = keep or Path(scratch)
        outcome, journals = _carry_out(folder, agreement, paths, id_column, floor)
    if report is not None:
        from flute.local.summary import report_of
        from flute.report.render import render_html

        page = report_of([(agreement, outcome)], journals=journals, made_at=int(time.time()))
        report.write_text(render_html(page), encoding="utf-8")
        ERR.print(f"Report: {escape(str(report))}")
    if format == "json" or report is None:
        print_json(outcome.release if format == "json" else outcome.release["results"])


def _carry_out(
    folder: Path, agreement: Agreement, paths: dict[str, Path], id_column: str | None, floor: int
) -> tuple[Outcome, dict[str, Any]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=ERR, transient=True)
    with bar, LocalFederation(folder, list(paths), researcher=agreement.researcher) as federation:
        task = bar.add_task("Making keys, certificates and the roster", total=None)
        federation.build()
        bar.update(task, description="Starting coordinator and hubs")
        federation.start()
        set_policy(federation, own_data_policy(agreement, floor))
        for name, path in paths.items():
            bar.update(task, description=f"{name} imports {path.name}")
            _import(federation, name, path, agreement, id_column)

        def progress(status: dict[str, Any]) -> None:
            now = status["now"]
            what = f"{now['question']}, step {now['step'] + 1}" if now else status["state"]
            bar.update(task, description=what, completed=status["done"], total=status["of"])

        outcome = run_study(federation, agreement, progress)
        return outcome, verify_journals(federation)


def _import(federation: LocalFederation, name: str, path: Path, agreement: Agreement, id_column: str | None) -> None:
    wanted = tuple(v.variable for v in agreement.variables if v.variable.name in agreement.fields())
    if path.is_dir():
        recipe = PILOT_RECIPE
        known = {v.name for v in recipe.variables}
        lacking = sorted({v.name for v in wanted} - known)
        if lacking:
            raise MisuseError(
                f"The FHIR recipe {recipe.name} offers {', '.join(sorted(known))}, not {', '.join(lacking)}. For "
                "other variables give CSV files, or import with a recipe of your own: flute hub import --recipe FILE."
            )
        import_fhir(federation, name, agreement.dataset, path, recipe, agreement.simulated)
    else:
        import_csv(
            federation, name, agreement.dataset, path, wanted, id_column=id_column, simulated=agreement.simulated
        )


def _same_hubs(agreement: Agreement, paths: dict[str, Path], study: Path) -> None:
    named, given = set(agreement.hubs), set(paths)
    if named == given:
        return
    said = [f"without a path: {', '.join(sorted(named - given))}"] if named - given else []
    said += [f"not among the study's hubs: {', '.join(sorted(given - named))}"] if given - named else []
    raise StudyFileError(
        f"The study asks {', '.join(agreement.hubs)}; give --hub NAME=PATH once for each of them "
        f"({'; '.join(said)}).",
        path=str(study),
    )
