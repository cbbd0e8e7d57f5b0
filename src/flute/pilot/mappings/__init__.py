"""Mapping files that ship with the software: the simulated pilot's tables, and OMOP as a site may begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from flute.errors import MisuseError
from flute.study.files.lines import MAX_FILE_BYTES

MAPPINGS: Final = ("csv", "csv-varied", "xlsx", "xlsx-varied", "sql", "sql-varied", "omop")


def mapping_text(where: str) -> str:
    """The text of a mapping file: of one that ships, by its name, or of a file.

    Raises: MisuseError: neither, or no text file.
    """
    if where in MAPPINGS:
        return (files("flute.pilot.mappings") / f"{where}.yaml").read_text(encoding="utf-8")
    path = Path(where)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MisuseError(f"The mapping file {path.name} is larger than {MAX_FILE_BYTES // 1024} KiB.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(
            f"There is no mapping file {path.name} that can be read as text, and none of that name ships "
            f"({', '.join(MAPPINGS)})."
        ) from error
