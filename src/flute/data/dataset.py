"""Rows in memory. A `Dataset` has no serialiser: it cannot be pickled, copied out or printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flute.data.variables import Array, Variable
from flute.errors import MisuseError


class Dataset:
    """Patients in rows, declared variables in columns, NaN where a value is missing.

    `pseudonyms`: str [n], one per row and unique: the unit of privacy is the patient, so a dataset with two
    rows of one patient is refused.
    """

    __slots__ = ("_columns", "_pseudonyms", "_variables")

    def __init__(self, pseudonyms: NDArray[Any], columns: Mapping[str, Array], variables: Sequence[Variable]) -> None:
        if len(set(pseudonyms.tolist())) != len(pseudonyms):
            raise MisuseError("A dataset must have one row per patient; some pseudonyms stand twice.")
        for variable in variables:
            if columns[variable.name].shape != pseudonyms.shape:
                raise MisuseError(f"Column {variable.name} has another length than the list of patients.")
        self._pseudonyms = pseudonyms
        self._columns = {v.name: columns[v.name] for v in variables}
        self._variables = {v.name: v for v in variables}

    def __len__(self) -> int:
        return len(self._pseudonyms)

    def column(self, name: str) -> Array:
        """float64 [n]; NaN where missing. Raises: MisuseError: the field was not selected."""
        try:
            return self._columns[name]
        except KeyError:
            raise MisuseError(f"Variable {name} was not selected for this question.") from None

    def variable(self, name: str) -> Variable:
        return self._variables[name]

    @property
    def pseudonyms(self) -> NDArray[Any]:
        return self._pseudonyms

    def where(self, keep: NDArray[np.bool_]) -> Dataset:
        """The rows for which `keep` [n] is true."""
        return Dataset(
            self._pseudonyms[keep], {k: v[keep] for k, v in self._columns.items()}, list(self._variables.values())
        )

    def __repr__(self) -> str:
        return "<Dataset: rows are not shown>"

    def __reduce__(self) -> NoReturn:
        raise MisuseError("A dataset holds records; it cannot be serialised or copied to another process.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()
