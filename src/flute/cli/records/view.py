"""`flute view`: a SQL-on-FHIR ViewDefinition, run by hand over files or a FHIR server."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from flute.cli.output import ERR
from flute.conformance.bundles import entries
from flute.data.reader import Reader, Record
from flute.data.strict_json import NotStrict, decode
from flute.defaults.records import MAX_BUNDLE_BYTES, VIEW_BATCH_ROWS
from flute.errors import Unmappable, Unreachable
from flute.fhirserver.options import ServerOptions, read_server_options
from flute.fhirserver.server import open_server
from flute.views.program import Program
from flute.views.stream import ENDINGS, Lines, Resource, decoder
from flute.views.tables import Table, TableFormat, table_file, table_stream
from flute.views.view import DoesNotFit, View, compile_view

APP = typer.Typer(help="Tables from FHIR by ViewDefinitions.", no_args_is_help=True, rich_markup_mode="markdown")
_DOCUMENTS = (".json", ".json.gz")


@APP.callback()
def _group() -> None:
    pass


@APP.command("run")
def view_run(
    view: Annotated[Path, typer.Option(help="The ViewDefinition, a JSON file.")],
    resources: Annotated[
        str,
        typer.Option(
            metavar="PATH_OR_URL",
            help="NDJSON (also .gz), a bundle, one resource, a folder of these, or a FHIR server's address.",
        ),
    ],
    format: Annotated[TableFormat, typer.Option("--format", help="What is written.")] = "json",
    server_options: Annotated[Path | None, typer.Option(help="How the FHIR server is read (YAML).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it the rows go to standard output.")
    ] = None,
) -> None:
    """Run a SQL-on-FHIR v2 view over FHIR R4 and write its table. A resource that cannot be read, or does not fit the
    view, ends the run with its place and the reason; a file is written whole or not at all.

    Examples: `flute view run --view patients.json --resources export/ --format csv` ·
    `flute view run --view psa.json --resources Observation.ndjson.gz --format parquet --out psa.parquet` ·
    `flute view run --view patients.json --resources https://fhir.hospital.example/fhir --format ndjson`
    """
    compiled = _view_of(view)
    with _table(compiled, format, out) as table:
        rows = _run(compiled, _resources(resources, compiled, server_options), table)
    if out is not None:
        ERR.print(f"Wrote {rows} rows to {escape(str(out))}.")


def _view_of(path: Path) -> View:
    """Raises: Unmappable: the file holds no view that can be run here. OSError: it cannot be read."""
    try:
        declaration = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unmappable(f"{path.name} is no JSON; a ViewDefinition is needed.") from None
    named = declaration.get("name") if isinstance(declaration, dict) else None
    return compile_view(named if isinstance(named, str) else path.stem, declaration)


@contextmanager
def _table(view: View, format: TableFormat, out: Path | None) -> Iterator[Table]:
    if out is not None:
        with table_file(out, format, view.columns) as table:
            yield table
        return
    table = table_stream(sys.stdout.buffer, format, view.columns)
    try:
        yield table
        table.close()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the rows has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(view: View, resources: _Placed, table: Table) -> int:
    program, rows = Program([view]), 0
    for resource, place in resources:
        try:
            program.take(resource)
        except DoesNotFit as error:
            raise DoesNotFit(f"{place()}: {error.text}") from error
        if program.waiting() >= VIEW_BATCH_ROWS:
            rows += program.waiting()
            table.add(program.rows(view.name))
    rows += program.waiting()
    table.add(program.rows(view.name))
    return rows


# --- where resources come from --------------------------------------------------------------------

_Placed = Iterator[tuple[Resource, Callable[[], str]]]
"""A resource, and a function that says where it stands; most are never asked."""


def _resources(where: str, view: View, server_options: Path | None) -> _Placed:
    """Raises: Unreachable: the source cannot be read. Unmappable: it holds something that is no resource."""
    if where.startswith(("http://", "https://")):
        options = ServerOptions() if server_options is None else read_server_options(server_options)
        yield from _of_reader(open_server(where, options, queries=(view.resource,)))
        return
    path, exact = Path(where), view.exact
    if not path.exists():
        raise Unreachable(f"There is no file or folder {path}.")
    for file in _files(path) if path.is_dir() else [path]:
        if file.name.endswith(ENDINGS):
            lines = Lines(file, exact)
            yield from ((resource, lines.place) for resource in lines)
        elif file.name.endswith(_DOCUMENTS):
            yield from _document(file, exact=exact)
        else:
            raise Unmappable(f"{file.name} is none of {', '.join((*ENDINGS, *_DOCUMENTS))}; rename it if it is one.")


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.name.endswith((*ENDINGS, *_DOCUMENTS)) and p.is_file())
    if not found:
        raise Unmappable(f"The folder {folder.name} holds no FHIR file ({', '.join((*ENDINGS, *_DOCUMENTS))}).")
    return found


def _document(path: Path, *, exact: bool) -> _Placed:
    """A bundle's resources, under their final ids, or one resource."""
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreachable(f"The file {path.name} cannot be read to its end.") from error
    if len(raw) > MAX_BUNDLE_BYTES:
        raise Unmappable(f"{path.name} has more than {MAX_BUNDLE_BYTES} bytes; export it as NDJSON.")
    try:
        value = decode(raw)
    except NotStrict as error:
        raise Unmappable(f"{path.name}: {error.finding.mend}") from None
    if exact:
        value = decoder(exact=True)(raw)
    if not isinstance(value, dict) or not isinstance(value.get("resourceType"), str):
        raise Unmappable(f"{path.name} is no FHIR resource: an object with a resourceType is needed.")
    if value["resourceType"] != "Bundle":
        yield value, lambda: path.name
        return
    for item in entries(value, path.name, path.name):
        if not isinstance(item, Record):
            raise Unmappable(f"{item.origin}: {item.finding.mend}")
        yield item.resource, partial(str, item.origin)


def _of_reader(reader: Reader) -> _Placed:
    """A list that changes while it is read comes again from its start; what was met before is passed over."""
    met: set[str] = set()
    for page in reader.pages(None):
        for refused in page.refused:
            raise Unmappable(f"{refused.origin}: {refused.finding.mend}")
        for record in page.records:
            if record.key not in met:
                met.add(record.key)
                yield record.resource, partial(str, record.origin)
