"""A folder of FHIR files to rows in one go: nothing is kept between two of them, nothing can be resumed."""

from __future__ import annotations

from pathlib import Path

from flute.connectors.files import FilesReader
from flute.intake.freeze import Freezing, freeze
from flute.intake.recipe import Recipe
from flute.intake.rows import ImportReport, Rows
from flute.intake.staging import Staging
from flute.intake.take import Design, take


def build(folder: Path, recipe: Recipe, *, key: bytes) -> tuple[Rows, ImportReport]:
    """Read a folder. `key`: the hub's own 32 bytes, for pseudonyms.

    Raises: Unreachable: the folder cannot be read. Unmappable: a view or the SQL cannot be carried out, or does not
    give one row per patient.
    """
    design = Design(recipe)
    with Staging(None, design.views, design.digest) as staging:
        take(FilesReader(folder), staging, design.judge(key))
        frozen = freeze(staging, recipe, Freezing(key))
    return frozen.rows, frozen.report
