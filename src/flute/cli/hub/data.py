"""`flute hub import`, `images`, `cohort`, `decide`, `withdraw-patient`, `quality`: a hub's own records."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer
import yaml
from rich.markup import escape

from flute.cli.hub.images import images
from flute.cli.output import FormatOption, show
from flute.cli.records.import_text import (
    decision_text,
    import_counts,
    import_progress,
    import_text,
    quality_text,
    withdrawal_text,
)
from flute.cli.records.places import existing, fact, fhir_source, table_source
from flute.cli.records.slips import require_decision, require_folder, require_names, require_no_tables
from flute.cohort.drawing import flow_svg
from flute.cohort.flow import Flow, flow_text
from flute.connectors.sources import Source
from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.hub.doors.client import HubClient
from flute.hub.records.images import ImagesPlan
from flute.hub.records.plans import FlatTable, ImportPlan, MoreColumns, Resources
from flute.intake.recipe import Recipe
from flute.pilot.cohort import declared_of
from flute.pilot.recipe import pilot_recipe

Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
Person = Annotated[str, typer.Option(help="Who does it; it goes into the journal.")]
Dataset = Annotated[str, typer.Option(help="Name of the dataset.")]
Patients = Annotated[list[str], typer.Argument(help="The hospital's own patient id.", metavar="PATIENT")]
Because = Annotated[str, typer.Option("--why", help="The reason; it goes into the journal. Name no patient in it.")]
_A_LIST: Final = "a YAML list with lines such as '- {name: age, kind: number, low: 0, high: 120}'"

_MAPPINGS: Final = (
    "--mapping says what tables mean; name them too, with --csv or --sql.",
    "Say what the tables mean, with one --mapping ({given} given): a mapping file, or the name of one that ships. "
    "A CSV file with one row per patient takes --variables instead.",
    "--csv and --sql need a --mapping each, the one of --csv first; {given} given.",
)
"""What is missing, by how many sources have tables."""


def register(app: typer.Typer) -> None:
    """Add these commands to `flute hub`."""
    app.command("import")(import_)
    app.command("cohort")(cohort)
    app.command("decide")(decide)
    app.command("withdraw-patient")(withdraw_patient)
    app.command("quality")(quality)
    app.command("images")(images)


Fhir = Annotated[
    list[str] | None, typer.Option(help="FHIR files, a folder of them, or a FHIR server's address (repeatable).")
]
Csv = Annotated[Path | None, typer.Option(help="A CSV file, a folder of them, or an Excel workbook.")]
Sql = Annotated[str | None, typer.Option(help="A database (SQLAlchemy address without a password).")]
Mappings = Annotated[
    list[str] | None,
    typer.Option(help="What the tables of --csv and --sql mean: a mapping file, or the name of one that ships."),
]
Dicom = Annotated[
    str | None, typer.Option(help="Where images are: a folder, a DICOMweb address, dimse://AETITLE@host:port.")
]
DicomAuthorization = Annotated[
    Path | None, typer.Option(help="File with the value of the Authorization header, for DICOMweb.")
]
DicomPort = Annotated[int, typer.Option(min=0, max=65535, help="Port at which the PACS finds us (C-MOVE); 0: C-GET.")]
ImageProtocol = Annotated[Literal["bpMRI", "mpMRI"], typer.Option(help="What a study must hold.")]
Declared = Annotated[
    list[str] | None, typer.Option(help="A fact about the dataset that no record says: NAME=VALUE (repeatable).")
]
Columns = Annotated[
    Path | None,
    typer.Option(help="A CSV file with more columns about the same patients: image features, a vendor's numbers."),
]
ColumnsId = Annotated[str, typer.Option(help="With --columns: the column of patient ids.")]
ColumnsVariables = Annotated[Path | None, typer.Option(help="With --columns: a YAML list of its variables.")]
ColumnsPseudonyms = Annotated[
    bool, typer.Option("--columns-pseudonyms", help="The ids of --columns are this hub's pseudonyms.")
]
Variables = Annotated[
    Path | None, typer.Option(help="With --csv FILE, one row per patient: a YAML list of variables, or a study file.")
]


def import_(
    folder: Folder,
    dataset: Dataset,
    person: Person,
    fhir: Fhir = None,
    csv: Csv = None,
    sql: Sql = None,
    mapping: Mappings = None,
    dicom: Dicom = None,
    dicom_authorization: DicomAuthorization = None,
    dicom_receive_port: DicomPort = 0,
    protocol: ImageProtocol = "bpMRI",
    server_options: Annotated[Path | None, typer.Option(help="How the FHIR server is read (YAML).")] = None,
    recipe: Annotated[str, typer.Option(help="pilot, or a JSON file.")] = "pilot",
    columns: Columns = None,
    columns_variables: ColumnsVariables = None,
    columns_id: ColumnsId = "patient",
    columns_pseudonyms: ColumnsPseudonyms = False,
    declare: Declared = None,
    variables: Variables = None,
    id_column: Annotated[str | None, typer.Option(help="With --variables: the column of patient ids.")] = None,
    simulated: Annotated[bool, typer.Option(help="Label the records SIMULATED.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page that shows what came of it (HTML).")] = None,
    format: FormatOption = "text",
) -> None:
    """Read the hospital's own systems into the running hub: what is new is read, checked, frozen.

    The dataset's name alone imports again what was imported last. Several sources make one dataset.

    Examples: `flute hub import /srv/flute --dataset pilot --fhir export/ --person eva` ·
    `… --fhir https://fhir.hospital.example/r4 --server-options server.yaml` ·
    `… --sql postgresql://flute@db/clinic --mapping clinic.yaml` · `… --csv tables/ --mapping tables.yaml` ·
    `… --fhir export/ --dicom https://pacs.hospital.example/dicom-web` · `… --csv heart.csv --variables heart.yaml` ·
    `flute hub import /srv/flute --dataset pilot --person eva`
    """
    require_names(dataset, person)
    if report is not None:
        require_folder(report)
    sources = _sources(fhir or [], csv if variables is None else None, sql, list(mapping or []), server_options)
    more = _more(columns, columns_variables, columns_id, pseudonyms=columns_pseudonyms)
    with HubClient(folder) as door, import_progress(quiet=format == "json") as say:
        if variables is not None:
            table = FlatTable(str(_csv(csv)), _variables_file(variables), id_column)
            plan = ImportPlan(dataset, person, table=table, more=more, simulated=simulated)
            ended = door.import_records(plan, say)
        elif sources:
            resources = Resources(sources, _recipe(recipe, declare or []))
            images = _images(dicom, dicom_authorization, dicom_receive_port, protocol)
            plan = ImportPlan(dataset, person, resources, images=images, more=more, simulated=simulated)
            ended = door.import_records(plan, say)
        elif declare or more:
            raise MisuseError("--declare and --columns go with the sources they are about; name them again.")
        else:
            ended = door.import_again(dataset, say)
        ended["simulated"] = _labelled(door, dataset)
    if report is not None:
        from flute.report.imported import render_import  # heavier than the rest of the command

        report.write_text(render_import(ended, at=int(time.time()), simulated=ended["simulated"]), encoding="utf-8")
    show(ended, import_text(ended, report), format)


def cohort(
    folder: Folder,
    dataset: Dataset,
    svg: Annotated[Path | None, typer.Option(help="Write the flow diagram here.")] = None,
    format: FormatOption = "text",
) -> None:
    """How patients came into a dataset, and why others did not; what was decided by hand.

    Example: `flute hub cohort /srv/flute --dataset pilot --svg flow.svg`
    """
    require_names(dataset)
    with HubClient(folder) as door:
        found = door.get(f"/datasets/{dataset}/cohort")
    flow = None if found["flow"] is None else msgspec.convert(found["flow"], Flow)
    if svg is not None:
        if flow is None:
            raise MisuseError(f"Dataset {dataset} was not made by rules, so there is no flow to draw.")
        svg.write_text(flow_svg(flow), encoding="utf-8")
    lines = [flow_text(flow)] if flow else [import_counts(found["report"])]
    lines += [*found["decisions"], *([f"{found['withdrawn']} patients are withdrawn."] if found["withdrawn"] else [])]
    show(found, escape("\n".join(lines)), format)


def decide(
    folder: Folder,
    patients: Patients,
    dataset: Dataset,
    person: Person,
    why: Because,
    decision: Annotated[str, typer.Option("--decision", help="keep-in, leave-out, same-person or take-back.")],
    despite: Annotated[list[str] | None, typer.Option(help="keep-in: a rule that is set aside (repeatable).")] = None,
    format: FormatOption = "text",
) -> None:
    """Decide about a patient by hand: keep him in despite a rule, leave him out, say that two ids are one person.

    No value of a record is changed by it. The dataset is made anew at once, from what was read.

    Example: `flute hub decide /srv/flute 4711 --dataset pilot --decision keep-in --despite mri-older-than-1y --why
    "MRI repeated elsewhere, report seen" --person eva`
    """
    require_names(dataset, person)
    require_decision(decision, patients, despite or [], why)
    with HubClient(folder) as door:
        ended = door.decide_by_hand(
            dataset, decision=decision, patients=patients, person=person, why=why, despite=despite or []
        )
        ended["simulated"] = _labelled(door, dataset)
    show(ended, decision_text(ended, decision, despite or []), format)


def withdraw_patient(
    folder: Folder,
    patient: Annotated[str, typer.Argument(help="The hospital's own patient id.", metavar="PATIENT")],
    person: Person,
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal. Name no patient in it.")],
    format: FormatOption = "text",
) -> None:
    """Take a patient out of everything this hub holds, for good: datasets, running studies, later imports.

    What was released stays released and charged. Example:
    `flute hub withdraw-patient /srv/flute 4711 --reason "withdrew consent" --person eva`
    """
    require_names(person=person)
    with HubClient(folder) as door:
        done = door.withdraw_patient(patient, person=person, reason=reason)
    show(done, escape(withdrawal_text(done)), format)


def quality(folder: Folder, dataset: Dataset, format: FormatOption = "text") -> None:
    """How each import of a dataset compares with the one before: counts, missing values, what drifted.

    Example: `flute hub quality /srv/flute --dataset pilot`
    """
    require_names(dataset)
    with HubClient(folder) as door:
        found = door.get(f"/datasets/{dataset}/profiles")
    show(found, escape(quality_text(dataset, found)), format)


def _labelled(door: HubClient, dataset: str) -> bool:
    """Whether the dataset is SIMULATED: the hub knows, also where the command does not say so again."""
    return any(d["name"] == dataset and d["simulated"] for d in door.get("/status")["datasets"])


# --- what was asked for ------------------------------------------------------------------------------


def _sources(
    fhir: list[str], csv: Path | None, sql: str | None, mappings: list[str], options: Path | None
) -> tuple[Source, ...]:
    """One source per option, the tables' mappings in the order of --csv and --sql."""
    tables = [str(place) for place in (csv, sql) if place is not None]
    if len(mappings) != len(tables):
        raise MisuseError(_MAPPINGS[min(len(tables), 2)].format(given=len(mappings)))
    mapped = [table_source(place, mapping) for place, mapping in zip(tables, mappings, strict=True)]
    for place in fhir:
        require_no_tables(place, "Import them with --csv, and say what they mean with --mapping.")
    return (*(fhir_source(place, options) for place in fhir), *mapped)


def _images(place: str | None, authorization: Path | None, port: int, protocol: str) -> ImagesPlan | None:
    if place is None:
        return None
    if "://" not in place:
        place = str(existing(Path(place)))
    secret = "" if authorization is None else str(existing(authorization))
    return ImagesPlan(place, protocol, secret, receive_port=port)


def _more(file: Path | None, variables: Path | None, id_column: str, *, pseudonyms: bool) -> tuple[MoreColumns, ...]:
    if (file is None) != (variables is None):
        raise MisuseError(f"--columns and --columns-variables go together; the second is {_A_LIST}.")
    if file is None or variables is None:
        return ()
    return (MoreColumns(str(existing(file)), _variables_file(variables), id_column, pseudonyms),)


def _recipe(name: str, declared: list[str]) -> Recipe:
    """The pilot's recipe with the steward's facts, or one of the owner's own from a file."""
    facts = dict(fact(said) for said in declared)
    if name == "pilot":
        return pilot_recipe(declared_of(facts))
    if facts:
        raise MisuseError("--declare answers the questions of the recipe 'pilot'; a recipe file says its own facts.")
    try:
        return msgspec.json.decode(Path(name).read_bytes(), type=Recipe)
    except (OSError, msgspec.DecodeError) as error:
        raise MisuseError(f"{name} is no recipe: write 'pilot', or a JSON file with name, views, sql.") from error


def _csv(path: Path | None) -> Path:
    if path is None:
        raise MisuseError("--variables goes with --csv FILE.")
    return existing(path)


def _variables_file(path: Path) -> tuple[Variable, ...]:
    """Variables of a study file, or a list of them. Raises: MisuseError, StudyFileError: what to write."""
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise MisuseError(f"{path} is not YAML; write a study file, or {_A_LIST}.") from error
    if isinstance(listed, dict) and "flute" in listed:
        from flute.cli.study import load_study  # all of a study's algorithms

        agreement, _ = load_study(path)
        return tuple(v.variable for v in agreement.variables)
    try:
        return msgspec.convert(listed, type=tuple[Variable, ...])
    except msgspec.ValidationError as error:
        raise MisuseError(f"{path} is neither a study file nor {_A_LIST} ({error}).") from error
