"""A researcher's own step in a notebook: written as a function, tried on invented rows, asked like any question."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from flute.algorithms.contract import OwnCode
from flute.errors import MisuseError
from flute.hub.rounds.own_code import invented, told, trial
from flute.questions.registry import algorithm_for
from flute.sdk.estimators import Estimator
from flute.sdk.extras import frame

if TYPE_CHECKING:
    from flute.sdk.study import Study

_HEAD: Final = "import numpy as np\n\n\n"
"""A function's text does not say what its notebook imported."""


@dataclass(eq=False, repr=False)
class OwnStep(Estimator):
    """Sums over all patients of what `code` computes from each: see `own-step` among a study file's questions.

    code: the text of a module with `def step(rows, parameters)`, or that function; of a function, `np` is imported
    for it and nothing else is known to it. Learned: sums_ [outputs], noise_se_."""

    algorithm: ClassVar[str] = "own-step"
    variables: Sequence[str]
    code: str | Callable[..., Any]
    outputs: int
    clip_norm: float | None = None
    parameters: Sequence[float] | None = None
    memory_mb: int | None = None
    least_memory_mb: int | None = None
    seconds: int | None = None

    def elements(self) -> dict[str, Any]:
        return {**super().elements(), "code": self.text}

    @property
    def text(self) -> str:
        """What stands in the agreement. Raises: MisuseError: a function that is not called step, or has no text."""
        if isinstance(self.code, str):
            return self.code
        if self.code.__name__ != "step":
            raise MisuseError(f"Call the function step, not {self.code.__name__}: def step(rows, parameters).")
        try:
            return _HEAD + textwrap.dedent(inspect.getsource(self.code))
        except (OSError, TypeError) as error:
            raise MisuseError("The text of this function is not to be found; give it as text.") from error

    def take(self, results: Any) -> None:
        super().take(results)
        if not self.per_hub:
            self.sums_ = list(self.fitted.value["sums"])
            self.noise_se_ = float(self.fitted.value["noise_se"])

    def try_out(self, study: Study) -> Any:
        """Run it here, in the sandbox, on rows that are nobody's: what it gives for each, as a frame.

        No hub is asked and nothing is spent. Raises: MisuseError: it fails there, with the line. SandboxRefusal: this
        machine has no sandbox."""
        agreement = study.to_agreement(self, epsilon=1.0)  # as good as any: nothing is covered here
        question, setting = agreement.questions[0], agreement.setting
        algorithm = algorithm_for(question.what)
        assert isinstance(algorithm, OwnCode)
        rows = invented(algorithm, question, setting)
        tried = trial(algorithm, question, setting, rows)
        if tried.failures:
            first = tried.failures[0]
            raise MisuseError(f"The step fails on invented row {first.unit + 1}: {told(first)}.")
        given = {name: rows.column(name) for name in self.variables}
        return frame([
            {"row": k + 1} | {name: float(column[k]) for name, column in given.items()}
            | {f"output {j + 1}": float(v) for j, v in enumerate(values)}
            for k, values in enumerate(tried.values)
        ], "row")  # fmt: skip
