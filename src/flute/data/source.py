"""The `RecordSource` port: the frozen records that questions are asked of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flute.data.dataset import Dataset
from flute.data.variables import Variable


class RecordSource(Protocol):
    """A frozen table of one row per patient, opened for named variables only.

    The gate never touches it; `hub.rounds.round` opens it after a reservation is on disk.
    """

    @property
    def snapshot(self) -> bytes:
        """32-byte digest of the frozen content: the same digest means the same rows."""
        ...

    def size(self) -> int:
        """How many patients there are; opens no column. Raises: Unreachable."""
        ...

    def open(self, variables: Sequence[Variable]) -> Dataset:
        """Read those columns and no others.

        Raises: Unreachable: the store does not answer. Unmappable: a column is absent.
        """
        ...
