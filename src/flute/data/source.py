"""The `RecordSource` port: where a hub's records come from, and the recipe that turns resources into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flute.data.dataset import Dataset
from flute.data.variables import Variable


class RecordSource(Protocol):
    """A frozen table of one row per patient, opened for named variables only.

    The gate never touches it; `hub.round` opens it after a reservation is on disk.
    """

    @property
    def snapshot(self) -> bytes:
        """32-byte digest of the frozen content: the same digest means the same rows."""
        ...

    def open(self, variables: Sequence[Variable]) -> Dataset:
        """Read those columns and no others.

        Raises: Unreachable: the store does not answer. Unmappable: a column is absent.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How FHIR resources become one row per patient: views (SQL-on-FHIR ViewDefinitions) make tables,
    one SQL statement over those tables makes the rows.

    `views`: table name to ViewDefinition. `sql`: DuckDB SQL; its result has a column `patient` and one column
    per variable, and optionally `excluded` (a reason, null where the patient is in).
    `variables`: what the rows offer. Recipes are declarations that ship with the software or lie in the
    hub's own folder; none ever arrives over the wire.
    """

    name: str
    views: Mapping[str, Mapping[str, Any]]
    sql: str
    variables: tuple[Variable, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Optional: SQL per reason that counts resources refused for it (unit-not-convertible, …)."""
