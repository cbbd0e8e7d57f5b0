"""`flute data check`: what a hub would make of a hospital's records, tried without a hub.

Nothing is kept: the records lie in a folder of their own while the command runs, and only this user can read it.
What is printed is for the data manager's own eyes: it quotes values and names patients as the hospital does.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape

from flute.cli.output import ERR, FormatOption, print_json, show
from flute.cli.records.import_text import NOBODY, by_kind, kind_text
from flute.cli.records.places import fact, fhir_source, is_address, table_source
from flute.cli.records.slips import require_no_tables
from flute.cohort.flow import Flow, flow_text
from flute.connectors.sources import Source, open_reader
from flute.data.findings import Finding
from flute.data.reader import Reader, Refused, Resource
from flute.defaults.records import REFUSALS_SHOWN
from flute.deidentify.pseudonyms import KEY_BYTES
from flute.errors import FluteError, MisuseError, StudyFileError
from flute.intake.batch import Judge
from flute.intake.freeze import Freezing, Frozen, freeze
from flute.intake.recipe import Recipe
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from flute.pilot.cohort import declared_of
from flute.pilot.recipe import pilot_recipe
from flute.pilot.tables import FLUTE_ORIGIN

APP = typer.Typer(help="A hospital's records.", no_args_is_help=True, rich_markup_mode="markdown")
SOMETHING_REFUSED: Final = 1
NOT_READABLE: Final = 2
_LINES: Final = 20
"""Refusals and patients that the text shows; JSON has more."""


@APP.callback()
def _group() -> None:
    pass


@APP.command()
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_URL",
            help="FHIR files or a folder of them, a FHIR server's address, or with --mapping: CSV files, a workbook, "
            "a database.",
        ),
    ],
    mapping: Annotated[
        str | None, typer.Option(help="What tables mean: a mapping file, or the name of one that ships.")
    ] = None,
    server_options: Annotated[Path | None, typer.Option(help="How the FHIR server is read (YAML).")] = None,
    declare: Annotated[
        list[str] | None, typer.Option(help="A fact about the dataset that no record says: NAME=VALUE (repeatable).")
    ] = None,
    format: FormatOption = "text",
) -> None:
    """Try a source: what would be accepted, what is refused and how to mend it, and each patient's values and
    whether he belongs to the pilot's cohort. Nothing is imported, nothing is kept.

    It ends with 0 where nothing was refused, 1 where something was, 2 where the source cannot be read at all.
    Examples: `flute data check export/` · `flute data check https://fhir.hospital.example/r4` ·
    `flute data check tables/ --mapping clinic.yaml --format json`
    """
    try:
        recipe = pilot_recipe(declared_of(dict(fact(said) for said in declare or [])))
        checked = try_source(_source(source, mapping, server_options), recipe)
    except FluteError as error:
        where = f"{mapping}:{error.line}" if isinstance(error, StudyFileError) and error.line else error.code
        label = "" if isinstance(error, MisuseError) else f"[red]{escape(where)}:[/red] "
        ERR.print(f"{label}{escape(error.text)}")
        if format == "json":
            print_json({"source": source, "error": {"code": error.code, "text": error.text, "where": where}})
        sys.exit(NOT_READABLE)
    show(checked.builtins(), _text(checked), format)
    sys.exit(SOMETHING_REFUSED if checked.refused else 0)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a hub would make of a source. `accepted`: resources. `patients`: his id, values, why he is left out, and
    flags, in the order of ids. `warned`: what was taken all the same, the first REFUSALS_SHOWN."""

    source: str
    accepted: int
    refused: tuple[Refused, ...]
    warned: tuple[tuple[str, Finding], ...]
    frozen: Frozen
    patients: tuple[dict[str, Any], ...]

    def builtins(self) -> dict[str, Any]:
        flow = self.frozen.flow
        return {
            "source": self.source,
            "accepted": self.accepted,
            "refused": [_refusal(r) for r in self.refused],
            "warnings": [{"resource": key, **msgspec.to_builtins(finding)} for key, finding in self.warned],
            "report": msgspec.to_builtins(self.frozen.report),
            "flow": None if flow is None else msgspec.to_builtins(flow),
            "patients": list(self.patients),
        }


def try_source(source: Source, recipe: Recipe) -> Checked:
    """Read a source as a hub does, up to the rows.

    Raises: Unreachable, Unmappable: the source cannot be read. MisuseError: the recipe or the model contradicts
    itself.
    """
    design = Design(recipe)
    reader = open_reader(source, recipe.model)
    with (
        tempfile.TemporaryDirectory(prefix="flute-check-") as folder,
        Staging(Path(folder) / "staging" / "check.duckdb", design.views, design.digest) as staging,
    ):
        return _checked(reader, staging, design)


def _checked(reader: Reader, staging: Staging, design: Design) -> Checked:
    warned: list[tuple[str, Finding]] = []
    simulated = False

    def noted(resource: Resource) -> list[Finding]:
        nonlocal simulated
        simulated = simulated or is_simulated(resource)
        findings = design.check(resource) if design.check is not None else []
        key = f"{resource['resourceType']}/{resource['id']}"
        warned.extend((key, finding) for finding in findings if finding.warning and len(warned) < REFUSALS_SHOWN)
        return findings

    take(reader, staging, Judge(design.views, noted))
    # Pseudonyms are made and thrown away: the data manager knows his patients by his own ids.
    frozen = freeze(staging, design.recipe, Freezing(secrets.token_bytes(KEY_BYTES), simulated=simulated))
    patients = tuple(_patients(staging, design.recipe))
    return Checked(reader.name, staging.resources(), frozen.refused, tuple(warned), frozen, patients)


def _patients(staging: Staging, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Out of the table that `freeze` left: one row per patient, those who are left out included."""
    found = staging.database.execute("SELECT * FROM result ORDER BY patient")
    names = [column[0] for column in found.description]
    for row in found.fetchall():
        cells = dict(zip(names, row, strict=True))
        yield {
            "patient": str(cells["patient"]),
            "values": {v.name: _plain(cells[v.name]) for v in recipe.variables},
            "excluded": cells.get("excluded") or "",
            "flags": [flag for flag in cells.get("flags") or [] if flag],
        }


def is_simulated(resource: Resource) -> bool:
    """Whether the resource says itself that no patient stands behind it."""
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    return isinstance(tags, list) and any(
        isinstance(tag, dict) and (tag.get("system"), tag.get("code")) == (FLUTE_ORIGIN, "SIMULATED") for tag in tags
    )


def _plain(cell: Any) -> Any:
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def _refusal(refused: Refused) -> dict[str, Any]:
    finding = msgspec.to_builtins(refused.finding)
    return {"origin": refused.origin, "resource": refused.key, "bundle": refused.bundle, **finding}


# --- what was asked for --------------------------------------------------------------------------------


def _source(place: str, mapping: str | None, options: Path | None) -> Source:
    """Raises: MisuseError: a mapping is missing, or there is no such file."""
    if mapping is not None:
        return table_source(place, mapping)
    if "://" in place and not is_address(place):
        raise MisuseError("A database is read with --mapping, which says what its tables mean.")
    require_no_tables(place, "Say what they mean with --mapping: a mapping file, or the name of one that ships.")
    return fhir_source(place, options)


# --- for people ------------------------------------------------------------------------------------------


def _text(checked: Checked) -> str:
    report = checked.frozen.report
    lines = [
        f"{checked.accepted:,} resources accepted, {sum(report.refused.values()):,} refused; "
        f"{report.patients:,} patients, {report.rows:,} of them in the cohort."
    ]
    lines += [] if report.patients else [NOBODY]
    lines += [escape(flow_text(checked.frozen.flow))] if isinstance(checked.frozen.flow, Flow) else []
    kinds = by_kind(_refusal(r) for r in checked.refused)
    lines += _shown("Refused", [kind_text(kind) for kind in kinds], len(checked.refused))
    warned = by_kind(
        {"origin": "", "resource": key, **msgspec.to_builtins(finding)} for key, finding in checked.warned
    )
    lines += _shown("Taken, with a warning", [kind_text(kind) for kind in warned], len(checked.warned))
    lines += _shown("Patients", [_patient(patient) for patient in checked.patients])
    return "\n".join(lines)


def _shown(title: str, sentences: list[str], count: int | None = None) -> list[str]:
    """`count`: of what the sentences are about, where one is about several."""
    if not sentences:
        return []
    more = len(sentences) - _LINES
    last = [f"  … and {more:,} more; --format json shows them."] if more > 0 else []
    return ["", f"[bold]{title}[/bold] ({len(sentences) if count is None else count:,})", *sentences[:_LINES], *last]


def _patient(patient: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                       for name, value in patient["values"].items() if value is not None)  # fmt: skip
    decision = f"left out: {patient['excluded']}" if patient["excluded"] else "in the cohort"
    flags = f" ({', '.join(patient['flags'])})" if patient["flags"] else ""
    return escape(f"  {patient['patient']}: {decision}{flags}; {values or 'nothing recorded'}")
