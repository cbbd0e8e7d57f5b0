"""Where records are, as people type it: a path, a server, a database; a mapping file; a fact about a dataset."""

from __future__ import annotations

from pathlib import Path

from flute.connectors.sources import Database, Files, Server, Source, Tables
from flute.errors import MisuseError
from flute.fhirserver.options import ServerOptions, read_server_options
from flute.pilot.mappings import mapping_text


def fhir_source(place: str, options: Path | None) -> Source:
    """FHIR files, or a server's address."""
    if is_address(place):
        return Server(place, ServerOptions() if options is None else read_server_options(options))
    return Files(str(existing(Path(place))))


def table_source(place: str, mapping: str) -> Source:
    """Tables in files or in a database, and what they mean."""
    if "://" in place:
        return Database(place, mapping_text(mapping))
    return Tables(str(existing(Path(place))), mapping_text(mapping))


def is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def existing(path: Path) -> Path:
    """The absolute path. Raises: MisuseError: there is nothing."""
    if not path.exists():
        raise MisuseError(f"There is nothing at {path}.")
    return path.absolute()


def fact(said: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, sign, value = said.partition("=")
    if not sign:
        from flute.pilot.cohort import FACTS

        raise MisuseError(f"--declare {said!r} is not NAME=VALUE; the facts are {', '.join(f.name for f in FACTS)}.")
    return name, value
