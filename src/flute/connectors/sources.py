"""Where records are, as a plan names it, and the reader that each is read by.

A source holds no secret: a password or a key is named by a file or an environment variable of the hub's machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from flute.conformance.model import Model
from flute.connectors.files import FilesReader
from flute.data.reader import Reader
from flute.errors import MisuseError
from flute.fhirserver.gone import Known
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from flute.tabular.mapping_file import read_mapping
from flute.tabular.sheets import SheetsReader
from flute.tabular.sql import SqlReader

Location = Annotated[str, Meta(min_length=1, max_length=4096)]
MappingText = Annotated[str, Meta(min_length=1, max_length=2**20)]


class Files(Struct, frozen=True, forbid_unknown_fields=True, tag="files"):
    """A folder of FHIR files, or one of them (NDJSON, bundles; gzipped or not)."""

    path: Location


class Server(Struct, frozen=True, forbid_unknown_fields=True, tag="server"):
    """A FHIR server's base address."""

    url: Location
    options: ServerOptions = ServerOptions()


class Tables(Struct, frozen=True, forbid_unknown_fields=True, tag="tables"):
    """A folder of CSV files, one of them, or an Excel workbook. `mapping`: the text of the mapping file."""

    path: Location
    mapping: MappingText


class Database(Struct, frozen=True, forbid_unknown_fields=True, tag="database"):
    """An SQLAlchemy address without a password. `mapping`: the text of the mapping file."""

    url: Location
    mapping: MappingText


Source = Files | Server | Tables | Database


def open_reader(source: Source, model: Model | None, held: Known | None = None) -> Reader:
    """`held`: the keys that the hub holds of a scope of this source.

    Raises: MisuseError: tables without a model to be mapped to. StudyFileError: the mapping, with its line.
    KeyFileError: a secret that cannot be had.
    """
    match source:
        case Files():
            return FilesReader(Path(source.path))
        case Server():
            wanted = () if model is None else queries_of(model)
            return open_server(source.url, source.options, queries=wanted, known=held)
    if model is None:
        raise MisuseError("Tables are mapped to a common model, and this recipe has none.")
    mapping = read_mapping(source.mapping, model)
    if isinstance(source, Tables):
        return SheetsReader(Path(source.path), mapping, model)
    return SqlReader(source.url, mapping, model)


def queries_of(model: Model) -> tuple[str, ...]:
    """What a FHIR server is asked for: the persons, and of each resource type what the model names, by its codes."""
    codes: dict[str, list[str]] = {}
    for element in model.elements:
        codes.setdefault(element.resource, []).extend(f"{c.system}|{c.code}" for c in element.code)
    without = {element.resource for element in model.elements if not element.code}
    searches = (kind if kind in without else f"{kind}?code={','.join(dict.fromkeys(c))}" for kind, c in codes.items())
    return (model.person.resource, *searches)
