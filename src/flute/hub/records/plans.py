"""How a dataset is imported: from which of the hospital's systems, by which recipe.

A plan comes from the owner's command line through the steward's door, and is kept, so that an import is repeated by
naming the dataset. No secret stands in it: passwords and keys are named by a file or an environment variable.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from flute.connectors.sources import Source
from flute.data.variables import Variable
from flute.defaults.images import MAX_IMAGE_COLUMNS
from flute.hub.records.images import ImageColumn, ImagesPlan
from flute.intake.recipe import Recipe
from flute.messages.limits import Name, PartyId

MAX_SOURCES = 16


class FlatTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A CSV file that is a dataset already: one row per patient, one column per declared variable."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    variables: Annotated[tuple[Variable, ...], Meta(min_length=1, max_length=256)]
    id_column: str | None = None


class MoreColumns(Struct, frozen=True, forbid_unknown_fields=True):
    """A CSV file with one row per patient, whose variables are put beside the dataset's own. `pseudonyms`: whether
    its ids are this hub's pseudonyms, as what was made of de-identified images has them, or the hospital's own."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    variables: Annotated[tuple[Variable, ...], Meta(min_length=1, max_length=256)]
    id_column: Annotated[str, Meta(min_length=1, max_length=256)]
    pseudonyms: bool = False


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """FHIR resources, read from `sources` or made from their tables, through `recipe`."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1, max_length=MAX_SOURCES)]
    recipe: Recipe


class ImportPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """`person`: who asked for it. Exactly one of `resources` and `table` is given. `images`: of the patients who are
    in the dataset; only with `resources`. `attach`: columns of images beside those that a table names files of."""

    dataset: Name
    person: PartyId
    resources: Resources | None = None
    table: FlatTable | None = None
    images: ImagesPlan | None = None
    more: Annotated[tuple[MoreColumns, ...], Meta(max_length=MAX_SOURCES)] = ()
    attach: Annotated[tuple[ImageColumn, ...], Meta(max_length=MAX_IMAGE_COLUMNS)] = ()
    simulated: bool = False

    def __post_init__(self) -> None:
        if (self.resources is None) == (self.table is None):
            raise ValueError("an import has either sources of resources, or one table of patients")
        if self.images is not None and self.resources is None:
            raise ValueError("images are linked to patients by resources, not by a table")


class AttachPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of images for a dataset that is there; every later import of it makes the column anew."""

    dataset: Name
    person: PartyId
    column: ImageColumn


def source_name(source: Source) -> str:
    """A name that stays the same while the same system is read in the same way: marks are kept by it."""
    digest = hashlib.sha256(msgspec.json.encode(source, order="sorted")).hexdigest()
    return f"{type(source).__struct_config__.tag}-{digest[:12]}"
