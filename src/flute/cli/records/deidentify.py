"""`flute deidentify` and `flute anonymity`: take out who a record is about, and see how far records are alike."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.cli.output import ERR, FormatOption, print_json, show
from flute.connectors.files import FilesReader
from flute.deidentify.anonymity import anonymity, as_text
from flute.deidentify.classes import declared
from flute.deidentify.dicom import DicomRules
from flute.deidentify.fhir import FhirRules
from flute.deidentify.folder import Folder, FolderReport, dicom_files
from flute.deidentify.pseudonyms import KEY_BYTES
from flute.deidentify.release import Images, Persons, Resource, persons_of
from flute.deidentify.words import WORDS
from flute.errors import MisuseError
from flute.pilot.tables import PROFILE, PROFILE_OF_EXAMPLES

_PILOT_WORDS: Final = frozenset(
    {"prostate", "prostata", "prostaat", "pi", "rads", "pirads", "biopsy", "seminal", "vesicle"}
)
"""What may stay in descriptions of images beside the words of scanners."""
_SHOWN: Final = 20
"""Objects that were not released and are named on a terminal; the counts are of all."""
_LINKED_IMAGES: Final = ("resource-supportingInfo", "reference")


def deidentify(
    source: Annotated[Path, typer.Argument(help="Folder with DICOM files, FHIR NDJSON or JSON files, or both.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    key_file: Annotated[
        Path | None,
        typer.Option(help="File of 32 secret bytes; made where there is none. Without it: SOURCE-deidentify.key."),
    ] = None,
    dates: Annotated[
        Literal["shift", "ages"], typer.Option(help="Move each patient's dates, or turn them into ages.")
    ] = "shift",
    burnt_in: Annotated[
        Literal["refuse", "blank"], typer.Option(help="What becomes of images with text in their pixels.")
    ] = "refuse",
    eyes: Annotated[
        Literal["rapidocr", "tesseract", "both"],
        typer.Option(help="Who looks at the pictures for the residual check; tesseract must be installed."),
    ] = "rapidocr",
    format: FormatOption = "text",
) -> None:
    """De-identify a folder: FHIR by a list of elements that may stay, DICOM by PS3.15's Basic Profile with options.

    Patients, resources and images keep their links under names made with the key. Every result is searched for what
    should be gone before it is written; exit code 1 where something was found (it is then not written).
    Examples: `flute deidentify export/ --out clean/ --key-file hub.key` ·
    `flute deidentify mri/ --out clean/ --burnt-in blank --format json`
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise MisuseError(f"{out} lies in {source}; originals and results are kept apart. Name a folder elsewhere.")
    key = _key(key_file or source.resolve().with_name(f"{source.resolve().name}-deidentify.key"))
    refused: list[tuple[str, str, str]] = []
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=ERR, transient=True,
        disable=format == "json",
    ) as bar:  # fmt: skip
        task = bar.add_task("Reading who the patients are …", total=None)
        persons = persons_of(resource for _, resource in _resources(source, refused=None))
        run = _folder(out, key, dates, burnt_in, eyes, persons)
        run.refused = lambda what, why: refused.append((what, why.reason, why.text))
        run.progress = lambda done: bar.update(task, description=f"De-identified and searched: {done} objects …")
        report = run.run(dicom_files(source), _resources(source, refused))
    _tell(report, refused, out, format)
    if report.leaks:
        raise typer.Exit(1)


def anonymity_report(
    table: Annotated[Path, typer.Argument(help="CSV file with a header, one row per patient.")],
    quasi: Annotated[list[str], typer.Option(help="A quasi-identifier, by column; may be repeated.")],
    sensitive: Annotated[list[str] | None, typer.Option(help="A sensitive column; may be repeated.")] = None,
    population: Annotated[
        int | None, typer.Option(min=1, help="How many persons the rows were drawn from, if known.")
    ] = None,
    format: FormatOption = "text",
) -> None:
    """How far a table's records are alike: k-anonymity, l-diversity, unique records, risks, and what would help.

    Counts only; they are exact, so the report stays at the hub.
    Example: `flute anonymity cohort.csv --quasi age --quasi sex --sensitive outcome`
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = dict.fromkeys(quasi, "quasi-identifier") | dict.fromkeys(sensitive or [], "sensitive")
    missing = [name for name in wanted if not rows or name not in rows[0]]
    if missing:
        raise MisuseError(f"{table.name} has no column {missing[0]!r}, or no row.")
    columns = {name: [_cell(row[name]) for row in rows] for name in wanted}
    report = anonymity(columns, declared(wanted, wanted), population=population)
    show(report, escape(as_text(report)), format)


def _folder(out: Path, key: bytes, dates: Any, burnt_in: Any, which: Any, persons: Persons) -> Folder:
    from flute.deidentify.eyes import eyes
    from flute.deidentify.pixels import RapidReader
    from flute.imaging.bvalues import b_value

    rules = DicomRules(key, dates, WORDS | _PILOT_WORDS, burnt_in, lambda ds: b_value(ds)[0])
    name, treatment = _LINKED_IMAGES
    fhir = FhirRules(
        key, datetime.now(UTC).date(), dates,
        extensions={f"{base}{name}": treatment for base in (PROFILE, PROFILE_OF_EXAMPLES)},  # type: ignore[misc]
    )  # fmt: skip
    return Folder(out, Images(rules, RapidReader(), eyes(which), persons), fhir, eyes=which)


def _resources(source: Path, refused: list[tuple[str, str, str]] | None) -> Iterator[tuple[str, Resource]]:
    """Resources of the FHIR files in the folder, each with where it stands; none where there is no such file."""
    if not source.is_dir():
        raise MisuseError(f"There is no folder {source}.")
    if not any(source.glob("*.ndjson*")) and not any(source.glob("*.json*")):
        return
    for page in FilesReader(source).pages(None):
        if refused is not None:
            refused.extend((met.origin, met.finding.reason, met.finding.mend) for met in page.refused)
        for record in page.records:
            yield record.origin, record.resource


def _key(path: Path) -> bytes:
    """The key in a file, or a new one. Raises: MisuseError: it is open to others, or has another size."""
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise MisuseError(f"{path} can be read by other accounts; run: chmod 600 {path}")
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise MisuseError(f"{path} has {len(key)} bytes; a key has {KEY_BYTES}. Restore it from its backup.")
        return key
    key = os.urandom(KEY_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    ERR.print(
        f"Made a new key in {escape(str(path))}. Keep it, and keep it secret: with it the same patient gets the same "
        "pseudonym again; whoever has it can find out who a pseudonym is. Do not hand it on with the data."
    )
    return key


def _tell(report: FolderReport, refused: list[tuple[str, str, str]], out: Path, format: str) -> None:
    if format == "json":
        listed = [{"what": what, "reason": reason, "text": text} for what, reason, text in refused]
        print_json({"out": str(out), "report": report, "refused": listed})
        return
    for what, reason, text in refused[:_SHOWN]:
        ERR.print(f"[yellow]{escape(what)}[/yellow] {reason}: {escape(text)}")
    if len(refused) > _SHOWN:
        ERR.print(f"… and {len(refused) - _SHOWN} more; --format json lists all.")
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.resources.items()) or "no FHIR resources"
    lines = [
        f"Wrote {report.images} images and {kinds} to {escape(str(out))}.",
        f"{report.frames} pictures were read for text; {report.blanked} regions were blanked.",
    ]
    if report.withheld:
        reasons = Counter(report.withheld)
        lines.append(f"Not released: {', '.join(f'{n} {why}' for why, n in reasons.most_common())}.")
    if report.dropped:
        lines.append(f"Left out: {', '.join(f'{n} {why}' for why, n in sorted(report.dropped.items()))}.")
    if report.leaks:
        lines.append("[red]The residual check found what should be gone; these objects were not written:[/red]")
        lines += [f"  {escape(leak)}: {count}" for leak, count in report.leaks.items()]
    else:
        lines.append(f"The residual check found nothing (pictures looked at by: {report.eyes}).")
    show(report, "\n".join(lines), "text")


def _cell(text: str | None) -> Any:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        return text.strip()
