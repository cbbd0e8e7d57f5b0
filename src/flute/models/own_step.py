"""A researcher's own step of Python: what a study says about it, and what becomes of the numbers it gives.

The code is in the agreement, word for word, so it is what every hub's steward reads and what the researcher signs.
It runs in the sandbox, on one patient at a time; each patient's numbers are scaled to the agreed norm outside of it,
and their sum is covered with noise like any other. Hostile code costs its author accuracy, never a patient her
privacy. That is why there is no exact mode: code could be written to open one patient's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    CodeRequest,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
)
from flute.algorithms.design import known
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.sandbox import MIN_SLOT_S, TEARDOWN_S, TEARDOWN_S_PER_GIB
from flute.errors import MisuseError, StudyFileError
from flute.messages.limits import Name

MAX_CODE_CHARS: Final = 2**15
"""Some 800 lines: what a steward can read."""
MAX_SECONDS: Final = 300
"""How long a hub may be kept busy by one step."""


class OwnStep(Spec, frozen=True, tag="own-step"):
    """`step(rows, parameters)` of `code`, once for each patient: rows float64 [1, variables], as declared, NaN where
    missing; it gives `outputs` numbers, of which the sum over all patients is opened.

    clip_norm: a patient's numbers are scaled down to this L2 norm. memory_mb, seconds: what one run may use, of all
    patients together; the result is handed over after `seconds` whatever the step does. At least `least_memory_mb`
    has to be there.
    """

    variables: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    code: Annotated[str, Meta(min_length=1, max_length=MAX_CODE_CHARS)]
    outputs: Annotated[int, Meta(ge=1, le=4096)]
    clip_norm: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    parameters: Annotated[tuple[float, ...], Meta(max_length=4096)] = ()
    memory_mb: Annotated[int, Meta(ge=16, le=16_384)] = 256
    least_memory_mb: Annotated[int, Meta(ge=1, le=16_384)] = 64
    seconds: Annotated[int, Meta(ge=1, le=MAX_SECONDS)] = 30


class OwnStepAlgorithm:
    """See the module. Its rows come out of the sandbox, so `update` has none to give."""

    name: ClassVar[str] = "own-step"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="Sums over all patients of numbers that the researcher's own code computes from each patient alone.",
        bounded_by=(
            "The code sees one patient at a time and keeps nothing. Outside of it a patient's numbers are scaled to "
            "an agreed norm."
        ),
        leaked_otherwise=(
            "Nothing: that the code failed on a patient, or was slow, shows in nothing but her numbers, which are "
            "then zero. There is no exact mode."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: OwnStep, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if setting.mode == "exact":
            raise StudyFileError(
                "algorithm: a researcher's own code runs in private studies only, since exact sums of it could open "
                "one patient's record; write 'budget:' instead of 'exact:'."
            )
        for name in spec.variables:
            known(name, setting)
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")
        if spec.least_memory_mb > spec.memory_mb:
            raise StudyFileError("least_memory_mb: more than memory_mb, which is the most that it may use.")
        slot = MIN_SLOT_S + TEARDOWN_S + TEARDOWN_S_PER_GIB * spec.memory_mb / 1024
        if setting.max_patients * slot > spec.seconds:
            raise StudyFileError(
                f"seconds: every patient has a time slot of {slot:.3f} s, however many a hub has, and {spec.seconds} "
                f"s serve {int(spec.seconds / slot):,}; max_patients is {setting.max_patients:,}. Write a smaller "
                "max_patients, less memory_mb, or more seconds."
            )
        if not np.isfinite(spec.parameters).all():
            raise StudyFileError("parameters: one of them is not a finite number.")

    def fields(self, spec: OwnStep, setting: Setting) -> tuple[str, ...]:
        return spec.variables

    def outline(self, spec: OwnStep, setting: Setting) -> tuple[StepShape, ...]:
        return (StepShape("own", spec.outputs, spec.clip_norm, 1.0, spec.clip_norm),)

    def request(self, spec: OwnStep, setting: Setting) -> CodeRequest:
        megabyte = 2.0**20
        return CodeRequest(
            code=spec.code.encode(),
            outputs=spec.outputs,
            parameters=np.array(spec.parameters, dtype=np.float64),
            memory_bytes=(spec.least_memory_mb * megabyte, spec.memory_mb * megabyte),
            seconds=float(spec.seconds),
        )

    def inputs(self, spec: OwnStep, setting: Setting, data: Dataset) -> Array:
        """float64 [n, variables]: numbers as they are, 0/1, or the level's place from 0; NaN where missing."""
        return np.column_stack([data.column(name) for name in spec.variables]).astype(np.float64)

    def update(self, spec: OwnStep, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """Raises: MisuseError: always; `inputs` go into the sandbox, and what comes out is covered."""
        raise MisuseError("A researcher's own step runs in the sandbox, nowhere else.")

    def cells(self, spec: OwnStep, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Any patient may be the only one of whom the code says something."""
        return np.array([min(len(data), 1)], dtype=np.int64)

    def next(
        self, spec: OwnStep, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        opened = history[0]
        return Finished({"sums": opened.total.tolist(), "noise_se": opened.sigma})
