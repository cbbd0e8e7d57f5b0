"""Rows in memory. A `Dataset` has no serialiser: it cannot be pickled, copied out or printed.

Of an image the column says who has one (1.0, NaN where missing); the images themselves stand beside, in the order of
the rows. They may be large, so rows that all stay are not copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from flute.data.variables import Array, Variable
from flute.errors import MisuseError

Images = NDArray[np.float32]
NO_IMAGES: Final[Mapping[str, Images]] = MappingProxyType({})


class Dataset:
    """Patients in rows, declared variables in columns, NaN where a value is missing.

    `pseudonyms`: str [n], one per row and unique: the unit of privacy is the patient, so a dataset with two
    rows of one patient is refused. `columns`: float64 [n] each. `images`: float32 [n, *shape] for each variable that
    is an image, zeros where a patient has none.
    """

    __slots__ = ("_columns", "_images", "_pseudonyms", "_variables")

    def __init__(
        self,
        pseudonyms: NDArray[Any],
        columns: Mapping[str, Array],
        variables: Sequence[Variable],
        images: Mapping[str, Images] = NO_IMAGES,
    ) -> None:
        if len(set(pseudonyms.tolist())) != len(pseudonyms):
            raise MisuseError("A dataset must have one row per patient; some pseudonyms stand twice.")
        for variable in variables:
            if columns[variable.name].shape != pseudonyms.shape:
                raise MisuseError(f"Column {variable.name} has another length than the list of patients.")
            if variable.kind == "image":
                _require_images(variable, len(pseudonyms), images)
        self._pseudonyms = pseudonyms
        self._columns = {v.name: columns[v.name] for v in variables}
        self._variables = {v.name: v for v in variables}
        self._images = {v.name: images[v.name] for v in variables if v.kind == "image"}

    def __len__(self) -> int:
        return len(self._pseudonyms)

    def column(self, name: str) -> Array:
        """float64 [n]; NaN where missing. Raises: MisuseError: the field was not selected."""
        try:
            return self._columns[name]
        except KeyError:
            raise MisuseError(f"Variable {name} was not selected for this question.") from None

    def images(self, name: str) -> Images:
        """float32 [n, *shape], zeros where missing; not to be written to. Raises: MisuseError: it is no image, or was
        not selected."""
        try:
            return self._images[name]
        except KeyError:
            raise MisuseError(f"Variable {name} is no image that was selected for this question.") from None

    def variable(self, name: str) -> Variable:
        return self._variables[name]

    @property
    def pseudonyms(self) -> NDArray[Any]:
        return self._pseudonyms

    def where(self, keep: NDArray[np.bool_]) -> Dataset:
        """The rows for which `keep` [n] is true."""
        variables = list(self._variables.values())
        if keep.all():
            return Dataset(self._pseudonyms, self._columns, variables, self._images)
        return Dataset(
            self._pseudonyms[keep],
            {k: v[keep] for k, v in self._columns.items()},
            variables,
            {k: v[keep] for k, v in self._images.items()},
        )

    def __repr__(self) -> str:
        return "<Dataset: rows are not shown>"

    def __reduce__(self) -> NoReturn:
        raise MisuseError("A dataset holds records; it cannot be serialised or copied to another process.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()


def _require_images(variable: Variable, count: int, images: Mapping[str, Images]) -> None:
    stack = images.get(variable.name)
    if stack is None or stack.dtype != np.float32 or stack.shape != (count, *(variable.shape or ())):
        raise MisuseError(f"{variable.name}: images must be float32, one of the declared shape for every patient.")
