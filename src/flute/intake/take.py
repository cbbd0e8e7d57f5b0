"""An import: pages of a reader are judged and written, one transaction each, until the reader has no more.

It may be stopped at any instant and begun again: it goes on from the last page that is on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

import flute
from flute.conformance.check import Checker
from flute.data.reader import Reader, Resource
from flute.deidentify.pseudonyms import pseudonym
from flute.fhirpath.references import reference_key
from flute.intake.batch import Check, Judge, Withdrawn
from flute.intake.recipe import Recipe
from flute.intake.staging import Staging
from flute.views.view import View, compile_view

_DESIGN: Final = b"flute/design/v1"
PERSON: Final = "Patient"


@dataclass(slots=True)
class Progress:
    """How far an import is. `total`: resources expected, where the reader says so."""

    scope: str = ""
    pages: int = 0
    taken: int = 0
    unchanged: int = 0
    skipped: int = 0
    gone: int = 0
    refused: int = 0
    total: int | None = None


Say = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Design:
    """A recipe made ready: its views compiled, its model's checks built.

    Raises: Unmappable: a view that cannot be carried out. MisuseError: a model that contradicts itself.
    """

    recipe: Recipe
    views: dict[str, View] = field(init=False)
    check: Check | None = field(init=False)
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        views = {name: compile_view(name, declaration) for name, declaration in self.recipe.views.items()}
        check = Checker(self.recipe.model).check if self.recipe.model is not None else None
        object.__setattr__(self, "views", views)
        object.__setattr__(self, "check", check)
        # What was read by other views or judged by other rules is read again.
        what = msgspec.json.encode(
            (self.recipe.views, self.recipe.model, self.recipe.concealed, flute.__version__), order="sorted"
        )
        object.__setattr__(self, "digest", hashlib.sha256(_DESIGN + what).digest())

    def judge(self, key: bytes, withdrawn: Withdrawn | None = None) -> Judge:
        """`key`: the hub's own, for what the recipe conceals."""
        return Judge(
            self.views,
            self.check,
            withdrawn=withdrawn,
            concealed=self.recipe.concealed,
            conceal=lambda cell: pseudonym(key, cell),
        )


def take(reader: Reader, staging: Staging, judge: Judge, *, source: str = "", say: Say | None = None) -> Progress:
    """Read everything that is new. What earlier pages brought stays, also where this raises.

    `source`: a name that stays the same while the system that is read is the same; marks are kept by it.
    Raises: Unreachable, Unmappable: the hospital's system, or the hub's disk; the same call goes on later.
    """
    progress = Progress()
    for read in reader.pages(staging.mark(source)):
        page = replace(read, scope=f"{source}/{read.scope}")
        keys = [record.key for record in page.records]
        known = staging.known(page.scope, keys, begins=page.begins) if keys else {}
        batch = judge.batch(page, known)
        staging.write(batch, source)
        progress.scope, progress.total = read.scope, read.total
        progress.pages += 1
        progress.taken += len(batch.taken)
        progress.unchanged += len(batch.unchanged)
        progress.skipped += page.skipped
        progress.gone += len(page.gone)
        progress.refused += len(batch.refused)
        if say is not None:
            say(progress)
    return progress


def subjects(resource: Resource) -> list[str]:
    """Ids of the persons that a resource is about: a Patient himself, else whom it refers to as one."""
    if resource.get("resourceType") == PERSON:
        return [str(resource.get("id"))]
    return list(_persons(resource))


def _persons(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            key = reference_key(inner) if name == "reference" else None
            if key is None:
                yield from _persons(inner)
            elif str(inner).rpartition("/")[0].endswith(PERSON):
                yield key
    elif isinstance(value, list):
        for inner in value:
            yield from _persons(inner)
