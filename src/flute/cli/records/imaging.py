"""`flute imaging` and `flute simulate mri`: look at images, or make some that are nobody's."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from flute.cli.output import ERR, OUT, FormatOption, print_json, show
from flute.errors import MisuseError

if TYPE_CHECKING:
    from flute.imaging.check import ImagingCheck, StudyCheck

APP = typer.Typer(help="Images of a hospital's PACS.", no_args_is_help=True, rich_markup_mode="markdown")


def simulate_mri(
    out: Annotated[Path, typer.Option(help="Folder to write; one folder per series is made in it.")],
    maker: Annotated[Literal["siemens", "ge", "philips"], typer.Option(help="Whose headers it has.")] = "siemens",
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same pixels and UIDs.")] = 1,
    defect: Annotated[list[str] | None, typer.Option(help="A fault to plant, by name; may be repeated.")] = None,
    size: Annotated[Literal["full", "small"], typer.Option(help="small: for trying.")] = "full",
    dce: Annotated[bool, typer.Option("--dce", help="With a dynamic contrast series (12 phases).")] = False,
    b_value_in: Annotated[
        Literal["private", "standard", "csa", "sequence-name"],
        typer.Option(help="Where the header says the b-value; the last two are Siemens'."),
    ] = "private",
    patient: Annotated[str, typer.Option(help="Patient ID that the images carry.")] = "SIM-0001",
    format: FormatOption = "text",
) -> None:
    """Write one MR study of a gland with a lesion as DICOM, labelled SIMULATED: T2W, DWI, ADC, and DCE on request.

    Example: `flute simulate mri --out mri --maker ge --defect missing-slice`
    """
    from flute.imaging.phantoms.phantom import FULL, SMALL, Subject, write_phantom

    with ERR.status("Writing SIMULATED images …"):
        files = write_phantom(
            out, maker, seed=seed, subject=Subject(patient_id=patient), size=FULL if size == "full" else SMALL,
            dce=dce, defects=tuple(defect or ()), b_in=b_value_in,
        )  # fmt: skip
    shown = {"out": str(out), "maker": maker, "seed": seed, "images": len(files), "defects": list(defect or ())}
    show(shown, f"Wrote {len(files)} SIMULATED images to {escape(str(out))}.", format)


@APP.command()
def check(
    place: Annotated[
        str,
        typer.Argument(
            help="A folder, a DICOMDIR, a DICOMweb address, or dimse://AETITLE@host:port.", metavar="PLACE"
        ),
    ],
    protocol: Annotated[Literal["bpMRI", "mpMRI"], typer.Option(help="What a study must hold.")] = "bpMRI",
    patient: Annotated[list[str] | None, typer.Option(help="Only this Patient ID; may be repeated.")] = None,
    first: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Studies from this day on.")] = None,
    last: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Studies up to this day.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Look at no more studies than this.")] = 20,
    authorization: Annotated[
        Path | None, typer.Option(help="File with the value of the Authorization header, for DICOMweb.")
    ] = None,
    calling: Annotated[str, typer.Option(help="Our AE title, for DIMSE.")] = "FLUTE",
    receive_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port at which the PACS finds our AE title (C-MOVE); 0: C-GET.")
    ] = 0,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Show why each series was taken for what it is.")
    ] = False,
    format: FormatOption = "text",
) -> None:
    """Look at studies before any import: which series are recognised, whether they are whole, what to mend.

    Nothing is written. Exit code 1 where a study lacks something or an object cannot be read.
    Examples: `flute imaging check export/ --evidence` ·
    `flute imaging check https://pacs.example.org/dicom-web --patient 4711 --format json`
    """
    from flute.imaging.check import check as look
    from flute.imaging.check import source_at
    from flute.imaging.quality import BPMRI, MPMRI
    from flute.imaging.sources.source import Wanted

    wanted = Wanted(
        tuple(patient or ()),
        first=None if first is None else first.date(),
        last=None if last is None else last.date(),
    )
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=ERR, transient=True,
        disable=format == "json",
    ) as bar:  # fmt: skip
        task = bar.add_task("Looking for studies …", total=None)
        source = source_at(
            place, authorization=_secret(authorization), calling=calling, receive_port=receive_port,
            progress=lambda n: bar.update(task, description=f"Reading headers: file {n} …"),
        )  # fmt: skip
        result = look(
            source, BPMRI if protocol == "bpMRI" else MPMRI, wanted, limit=limit,
            progress=lambda study, image: bar.update(task, description=f"Study {study}: image {image} …"),
        )  # fmt: skip
    if format == "json":
        print_json(result)
    else:
        _print(result, evidence)
    if not result.good:
        raise typer.Exit(1)


def _secret(path: Path | None) -> str | None:
    """Raises: MisuseError: other users of this machine may read the file."""
    if path is None:
        return None
    if path.stat().st_mode & 0o077:
        raise MisuseError(f"{path} can be read by other users; run: chmod 600 {path}")
    return path.read_text(encoding="utf-8").strip()


def _print(result: ImagingCheck, evidence: bool) -> None:
    if not result.studies:
        OUT.print(f"No study was found in {escape(result.source)}.")
    for study in result.studies:
        OUT.print(_study(study, evidence))
    for refused in result.refused:
        OUT.print(f"[yellow]{escape(refused.origin)}[/yellow] {refused.reason}: {escape(refused.text)}")
    if result.more:
        OUT.print("There are more studies; --limit shows more of them.")


def _study(study: StudyCheck, evidence: bool) -> Any:
    verdict = "[green]complete[/green]" if study.quality.complete else "[red]incomplete[/red]"
    title = f"{escape(study.study)}: {verdict} for {study.quality.protocol}"
    table = Table("series", "plane", "images", "b (s/mm2)", "sure", title=title, title_justify="left")
    lines = []
    for series in study.quality.series:
        kind = f"{series.kind} (calculated)" if series.calculated else series.kind
        values = " ".join(f"{b:g}" for b in series.b_values)
        table.add_row(kind, series.plane, str(series.images), values, series.confidence)
        if evidence:
            lines.append(f"{kind}: {escape('; '.join(series.evidence))}")
    for fault in study.quality.faults:
        colour = "red" if fault.severity == "error" else "yellow"
        lines.append(f"[{colour}]{fault.rule}[/{colour}] {escape(fault.found)} {escape(fault.mend)}")
    lines += [f"[red]{r.reason}[/red] {escape(r.origin)}: {escape(r.text)}" for r in study.refused]
    if study.passed_over:
        lines.append(
            f"{study.passed_over} objects of other kinds were passed over (screenshots, reports, documents)."
        )
    return Group(table, *lines, "")


@APP.command()
def features(
    folder: Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")],
    out: Annotated[Path, typer.Option(help="CSV file to write: one row per patient, by pseudonym.")],
    bins: Annotated[int, typer.Option(min=8, max=512, help="Grey levels; the same at every hub.")] = 32,
    voxel_mm: Annotated[float, typer.Option(min=0.2, max=10, help="Side to which volumes are resampled.")] = 1.0,
    format: FormatOption = "text",
) -> None:
    """Radiomics features of the hub's images inside their masks, as columns for `flute hub import --columns`.

    Hubs may put columns together where the printed digest of the settings is the same.
    Example: `flute imaging features /srv/flute --out features.csv`
    """
    from flute.hub.records.images import FOLDER
    from flute.imaging.measures.extract import extract, write_csv
    from flute.imaging.measures.features import FeatureSettings

    shelf = folder / FOLDER
    if not shelf.is_dir():
        raise MisuseError(f"{folder} keeps no images yet; flute hub import --dicom brings them.")
    settings = FeatureSettings(bin_count=bins, voxel_mm=voxel_mm, normalise=True)
    with ERR.status("Computing features …") as status:
        found = extract(shelf, settings, lambda done: status.update(f"Computing features, patient {done} …"))
    write_csv(found, out)
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(found.left_out.items()))
    text = f"{len(found.rows)} patients, {len(found.columns)} columns, settings {found.settings[:16]}: {out}."
    said = {
        "patients": len(found.rows), "columns": found.columns, "settings": found.settings,
        "left_out": dict(found.left_out),
    }  # fmt: skip
    show(said, escape(text + (f"\nLeft out: {left_out}." if left_out else "")), format)
