"""`flute model export`: the common model as FHIR documents, for whoever writes or validates resources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from flute.cli.output import FormatOption, show
from flute.conformance.structure import documents
from flute.pilot.profiles import PILOT_MODEL

APP = typer.Typer(help="The common model of records.", no_args_is_help=True, rich_markup_mode="markdown")


@APP.callback()
def _group() -> None:
    pass


@APP.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write; one file per document.")],
    format: FormatOption = "text",
) -> None:
    """Write the common model as FHIR R4: a profile per element, value sets, code systems, the logical model.

    They can be loaded into any FHIR validator or server; `flute data check` judges by the same rules.
    Example: `flute model export --out model/`
    """
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for document in documents(PILOT_MODEL):
        name = f"{document['resourceType']}-{document['id']}.json"
        (out / name).write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        names.append(name)
    show(
        {"out": str(out), "version": PILOT_MODEL.version, "files": names},
        f"Wrote {len(names)} documents of {escape(PILOT_MODEL.title)}, version {PILOT_MODEL.version}, "
        f"to {escape(str(out))}.",
        format,
    )
