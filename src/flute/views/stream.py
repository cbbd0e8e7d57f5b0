"""Resources of an NDJSON file, one after the other, for views that are run by hand or measured.

A line that is no resource stops the run: a table that silently lacks rows is worse than none. What is imported into a
hub goes through `connectors`, which refuses one by one and says how to mend.

Source: FHIR Bulk Data Access (NDJSON).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from flute.defaults.records import MAX_IMPORT_FILE_BYTES, MAX_RESOURCE_BYTES
from flute.errors import Unmappable, Unreachable

Resource = dict[str, Any]
ENDINGS: Final = (".ndjson", ".ndjson.gz")


def decoder(*, exact: bool) -> Callable[[bytes], Any]:
    """JSON to Python. `exact`: decimals keep the digits they are written with, as boundaries need."""
    return msgspec.json.Decoder(float_hook=Decimal).decode if exact else msgspec.json.Decoder().decode


@dataclass(slots=True)
class Lines:
    """The resources of an NDJSON file, also packed with gzip. `line`: the one last read, from 1."""

    path: Path
    exact: bool = False
    line: int = 0

    def __iter__(self) -> Iterator[Resource]:
        """Raises: Unreachable: the file cannot be read to its end. Unmappable: a line is no resource, or too long."""
        for resource, _ in self.with_bytes():
            yield resource

    def with_bytes(self) -> Iterator[tuple[Resource, bytes]]:
        """As iterating, each resource with the line it stands in."""
        try:
            with _opened(self.path) as file:
                yield from self._read(file)
        except (OSError, EOFError, zlib.error) as error:
            raise Unreachable(f"The file {self.path.name} cannot be read to its end.") from error

    def _read(self, file: BinaryIO) -> Iterator[tuple[Resource, bytes]]:
        decode, left, self.line = decoder(exact=self.exact), MAX_IMPORT_FILE_BYTES, 0
        while line := file.readline(MAX_RESOURCE_BYTES + 1):
            self.line += 1
            left -= len(line)
            if len(line) > MAX_RESOURCE_BYTES or left < 0:
                raise Unmappable(f"{self.place()} goes beyond what a resource or a file may hold; export it anew.")
            try:
                resource = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if not line.strip():
                    continue
                raise Unmappable(f"{self.place()} is no JSON; export the file anew.") from None
            if type(resource) is not dict or type(resource.get("resourceType")) is not str:
                raise Unmappable(f"{self.place()} is no FHIR resource: an object with a resourceType is needed.")
            yield resource, line

    def place(self) -> str:
        return f"{self.path.name}, line {self.line}"


def _opened(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value] # a GzipFile reads like any other
    return path.open("rb")
