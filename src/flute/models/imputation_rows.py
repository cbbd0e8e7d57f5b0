"""Multiple imputation at a hub: which values stand for missing ones, made anew in every step, and sums over them.

A hub keeps nothing between steps. A step's parameters hold every draw so far; from them, a public seed and a
patient's pseudonym, which stays here, the same values come out each time:
    at first    mean + deviation N(u), or 1 where u < mean, of the observed values;
    later       x b + deviation N(u), or 1 where u < expit(x b), x all other columns as they stand in that imputation,
u uniform by SHAKE-256 of (seed, pseudonym), one for each imputation, variable and sweep. Numbers stand on their
public range, [-1, 1]; a value beyond it is cut to its end.

Columns: those of the design of the predictors, then the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_256
from typing import Any, Final, Literal

import numpy as np
from scipy.special import expit, ndtri

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import Design, Mask, bounds, design_for, known, matrix, present, unit_scaling, values
from flute.algorithms.newton import logits, newton_rows, vector_size
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.around_models import IMPUTE_FIRST_LOGIT_STEPS, IMPUTE_FIT_STEPS, IMPUTE_LOGIT_STEPS
from flute.models.gaussian import exact_rows

_PATIENT: Final = b"flute/imputed-regression/patient/v1"
_LARGEST: Final = 1e6
"""Of a deviation, in half ranges: whatever was sent, products stay finite."""


@dataclass(frozen=True, slots=True)
class Target:
    """A variable with missing values. column: its own among all."""

    used: StudyVariable
    column: int

    @property
    def name(self) -> str:
        return self.used.variable.name

    @property
    def binary(self) -> bool:
        return self.used.variable.kind == "binary"


@dataclass(frozen=True, slots=True)
class Stage:
    """One opened vector. kind: first counts and moments; impute (sweep, target, inner step); fit (inner step)."""

    kind: Literal["moments", "impute", "fit"]
    sweep: int = 0
    target: int = 0
    inner: int = 0
    last: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """What a question asks for, from public facts."""

    spec: Any
    design: Design
    outcome: StudyVariable
    targets: tuple[Target, ...]
    stages: tuple[Stage, ...]

    @property
    def columns(self) -> int:
        """Of one regression: those of the model, or all others where one of its variables is imputed."""
        return self.design.size

    @property
    def block(self) -> int:
        return vector_size(self.columns)

    def newton(self, stage: Stage) -> bool:
        """Whether the stage is asked at coefficients."""
        if stage.kind == "fit":
            return bool(self.spec.family == "binomial")
        return stage.kind == "impute" and self.targets[stage.target].binary

    def size(self, stage: Stage) -> int:
        if stage.kind == "moments":
            return 1 + 3 * len(self.targets)
        return int(self.spec.imputations * self.block)

    def draws(self, step: int) -> int:
        """How many numbers of draws a step carries: [targets, 2], then [imputations, columns + 1] for each."""
        done = sum(1 for stage in self.stages[:step] if stage.kind == "impute" and stage.last)
        return 0 if step == 0 else 2 * len(self.targets) + int(done * self.spec.imputations) * (self.columns + 1)

    def asked(self, step: int) -> int:
        here = self.newton(self.stages[step]) * self.spec.imputations * self.columns
        return self.draws(step) + int(here)


def layout_for(spec: Any, setting: Setting) -> Layout:
    design = design_for(spec.predictors, setting)
    named = spec.incomplete or tuple(n for n in spec.predictors if known(n, setting).variable.kind != "category")
    targets = tuple(Target(known(n, setting), _column(n, spec, design)) for n in named)
    stages = [Stage("moments")]
    for sweep in range(spec.sweeps):
        for at, target in enumerate(targets):
            steps = 1 if not target.binary else IMPUTE_LOGIT_STEPS if sweep else IMPUTE_FIRST_LOGIT_STEPS
            stages += [Stage("impute", sweep, at, k, k == steps - 1) for k in range(steps)]
    fits = IMPUTE_FIT_STEPS if spec.family == "binomial" else 1
    stages += [Stage("fit", inner=k, last=k == fits - 1) for k in range(fits)]
    return Layout(spec, design, known(spec.outcome, setting), targets, tuple(stages))


def _column(name: str, spec: Any, design: Design) -> int:
    if name == spec.outcome:
        return design.size
    return max(design.position(name, "number"), design.position(name, "binary"))


def eligible(layout: Layout, setting: Setting, data: Dataset) -> Mask:
    """[n] patients who lack nothing but what is imputed."""
    imputed = {target.name for target in layout.targets}
    names = (layout.spec.outcome, *layout.spec.predictors)
    return present([name for name in names if name not in imputed], setting, data)


def stage_rows(layout: Layout, setting: Setting, step: int, asked: Array, data: Dataset) -> Array:
    """Per-patient rows of a step, [n, size]; |coordinate| <= 1."""
    stage, chosen = layout.stages[step], eligible(layout, setting, data)
    whole = _columns(layout, data)
    lacking = [~present((target.name,), setting, data) for target in layout.targets]
    if stage.kind == "moments":
        parts = [chosen.astype(np.float64)]
        for target, lacks in zip(layout.targets, lacking, strict=True):
            seen, v = chosen & ~lacks, whole[:, target.column]
            parts += [seen.astype(np.float64), v * seen, v**2 * seen]
        return np.column_stack(parts)
    draws, here = np.split(asked, [layout.draws(step)])
    filled = _filled(layout, draws, whole, lacking, data)
    if stage.kind == "impute":
        at = layout.targets[stage.target].column
        chosen = chosen & ~lacking[stage.target]
    else:
        at = layout.design.size
    coefficients = here.reshape(-1, layout.columns)
    blocks = []
    for m, z in enumerate(filled):
        x, v = np.delete(z, at, axis=1), z[:, at]
        newton = layout.newton(stage)
        blocks.append(newton_rows(x, v, chosen, coefficients[m]) if newton else exact_rows(x, v, chosen))
    return np.hstack(blocks)


def _columns(layout: Layout, data: Dataset) -> Array:
    """[n, columns + 1] over unit ranges, a missing one at 0."""
    x = np.clip(matrix(layout.design, unit_scaling(layout.design), data), -1.0, 1.0)
    outcome = values(layout.outcome, data)
    if layout.outcome.variable.kind == "number":
        low, high = bounds(layout.outcome)
        outcome = np.clip((2 * outcome - low - high) / (high - low), -1.0, 1.0)
    return np.column_stack([x, np.nan_to_num(outcome, nan=0.0)])


def _filled(layout: Layout, draws: Array, whole: Array, lacking: Sequence[Mask], data: Dataset) -> list[Array]:
    """All columns of each imputation as they stand after these draws."""
    spec, targets = layout.spec, layout.targets
    chance = _uniforms(spec, len(targets), data)
    first = draws[: 2 * len(targets)].reshape(len(targets), 2)
    later = draws[2 * len(targets) :].reshape(-1, spec.imputations, layout.columns + 1)
    done = [stage for stage in layout.stages if stage.kind == "impute" and stage.last][: len(later)]
    filled = []
    for m in range(spec.imputations):
        z = whole.copy()
        for at, target in enumerate(targets):
            made = _made(target, np.full(len(z), first[at, 0]), float(first[at, 1]), chance[:, 0, at, m], first=True)
            z[:, target.column] = np.where(lacking[at], made, z[:, target.column])
        for stage, drawn in zip(done, later, strict=True):
            target = targets[stage.target]
            line = logits(np.delete(z, target.column, axis=1), drawn[m, :-1])
            made = _made(target, line, float(drawn[m, -1]), chance[:, stage.sweep + 1, stage.target, m])
            z[:, target.column] = np.where(lacking[stage.target], made, z[:, target.column])
        filled.append(z)
    return filled


def _made(target: Target, centre: Array, deviation: float, u: Array, *, first: bool = False) -> Array:
    if target.binary:
        return np.asarray(u < (centre if first else expit(centre)), dtype=np.float64)
    return np.asarray(np.clip(centre + np.clip(deviation, 0.0, _LARGEST) * ndtri(u), -1.0, 1.0))


def _uniforms(spec: Any, targets: int, data: Dataset) -> Array:
    """[n, sweeps + 1, targets, imputations] in (0, 1)."""
    shape = (spec.sweeps + 1, targets, spec.imputations)
    seed = _PATIENT + spec.seed.to_bytes(8, "little")
    raw = b"".join(shake_256(seed + str(p).encode()).digest(8 * int(np.prod(shape))) for p in data.pseudonyms)
    return uniforms(raw).reshape(len(data), *shape)


def uniforms(raw: bytes) -> Array:
    """One for every 8 bytes, never 0 or 1."""
    return ((np.frombuffer(raw, dtype="<u8") >> 11).astype(np.float64) + 0.5) / 2.0**53
