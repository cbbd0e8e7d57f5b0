"""Multiple imputation at a hub: which values stand for missing ones, made anew in every step, and sums over them.

A hub keeps nothing between steps. A step's parameters hold every draw so far; from them, a public seed and a
patient's pseudonym, which stays here, the same values come out each time:
    at first    mean + deviation N(u), or 1 where u < mean, of the observed values;
    later       x b + deviation N(u), or 1 where u < expit(x b), x all other columns as they stand in that imputation,
u uniform by SHAKE-256 of (seed, pseudonym), one for each imputation, variable and sweep. Numbers stand on their
public range, [-1, 1]; a value beyond it is cut to its end. Of a category a level is drawn (`imputation.levels`), at
first by the observed shares, and x leaves out all of its columns.

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
from flute.defaults.models.around_models import IMPUTE_FIRST_LOGIT_STEPS, IMPUTE_FIT_STEPS, IMPUTE_LOGIT_STEPS
from flute.models.imputation.levels import drawn_flags, level_rows, level_shares
from flute.models.regression.gaussian import exact_rows

_PATIENT: Final = b"flute/imputed-regression/patient/v1"
_LARGEST: Final = 1e6
"""Of a deviation, in half ranges: whatever was sent, products stay finite."""


@dataclass(frozen=True, slots=True)
class Target:
    """A variable with missing values. columns: its own among all; of a category one per level but the reference."""

    used: StudyVariable
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.used.variable.name

    @property
    def kind(self) -> str:
        return self.used.variable.kind

    @property
    def numbers(self) -> int:
        """How many say what it is drawn from at first: mean and deviation, or shares of levels."""
        return len(self.columns) if self.kind == "category" else 2

    @property
    def sums(self) -> int:
        """How many are opened for that: those who have it, and sums of its columns; squares, but of a category."""
        return 1 + self.numbers


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
        """Of the model, and of the regression of a number or 0/1 variable on all others."""
        return self.design.size

    def coefficients(self, stage: Stage) -> int:
        """Of one imputation's regression in a stage."""
        if stage.kind != "impute":
            return self.columns
        own = len(self.targets[stage.target].columns)
        return own * (self.columns + 1 - own)

    def block(self, stage: Stage) -> int:
        return vector_size(self.coefficients(stage))

    def newton(self, stage: Stage) -> bool:
        """Whether the stage is asked at coefficients."""
        if stage.kind == "fit":
            return bool(self.spec.family == "binomial")
        return stage.kind == "impute" and self.targets[stage.target].kind != "number"

    def size(self, stage: Stage) -> int:
        if stage.kind == "moments":
            return 1 + sum(target.sums for target in self.targets)
        return int(self.spec.imputations * self.block(stage))

    def drawn(self, step: int) -> list[Stage]:
        """Stages before a step whose coefficients have been drawn."""
        return [stage for stage in self.stages[:step] if stage.kind == "impute" and stage.last]

    def draws(self, step: int) -> int:
        """How many numbers of draws a step carries: those of each target at first, then [imputations, coefficients +
        1] for each stage that was drawn."""
        first = sum(target.numbers for target in self.targets)
        later = sum(int(self.spec.imputations) * (self.coefficients(stage) + 1) for stage in self.drawn(step))
        return 0 if step == 0 else first + later

    def asked(self, step: int) -> int:
        stage = self.stages[step]
        return self.draws(step) + int(self.newton(stage) * self.spec.imputations * self.coefficients(stage))


def layout_for(spec: Any, setting: Setting) -> Layout:
    design = design_for(spec.predictors, setting)
    targets = tuple(
        Target(known(n, setting), _columns_of(n, spec, design)) for n in spec.incomplete or spec.predictors
    )
    stages = [Stage("moments")]
    for sweep in range(spec.sweeps):
        for at, target in enumerate(targets):
            steps = 1 if target.kind == "number" else IMPUTE_LOGIT_STEPS if sweep else IMPUTE_FIRST_LOGIT_STEPS
            stages += [Stage("impute", sweep, at, k, k == steps - 1) for k in range(steps)]
    fits = IMPUTE_FIT_STEPS if spec.family == "binomial" else 1
    stages += [Stage("fit", inner=k, last=k == fits - 1) for k in range(fits)]
    return Layout(spec, design, known(spec.outcome, setting), targets, tuple(stages))


def _columns_of(name: str, spec: Any, design: Design) -> tuple[int, ...]:
    if name == spec.outcome:
        return (design.size,)
    return tuple(at for at, column in enumerate(design.columns) if column.variable == name)


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
        return _moments(layout, whole, chosen, lacking)
    draws, here = np.split(asked, [layout.draws(step)])
    filled = _filled(layout, draws, whole, lacking, data)
    own: tuple[int, ...] = (layout.design.size,)
    if stage.kind == "impute":
        own = layout.targets[stage.target].columns
        chosen = chosen & ~lacking[stage.target]
    coefficients = here.reshape(-1, layout.coefficients(stage))
    blocks = []
    for m, z in enumerate(filled):
        x, v = np.delete(z, own, axis=1), z[:, own]
        if not layout.newton(stage):
            blocks.append(exact_rows(x, v[:, 0], chosen))
        elif stage.kind == "impute" and layout.targets[stage.target].kind == "category":
            blocks.append(level_rows(x, v, chosen, coefficients[m]))
        else:
            blocks.append(newton_rows(x, v[:, 0], chosen, coefficients[m]))
    return np.hstack(blocks)


def _moments(layout: Layout, whole: Array, chosen: Mask, lacking: Sequence[Mask]) -> Array:
    """[n, 1 + sums of every target]."""
    parts = [chosen.astype(np.float64)]
    for target, lacks in zip(layout.targets, lacking, strict=True):
        seen, v = chosen & ~lacks, whole[:, target.columns]
        squares = [] if target.kind == "category" else [v**2 * seen[:, None]]
        parts += [seen.astype(np.float64), v * seen[:, None], *squares]
    return np.column_stack(parts)


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
    sizes = [target.numbers for target in targets]
    first = np.split(draws[: sum(sizes)], np.cumsum(sizes)[:-1])
    done = _drawn(layout, draws[sum(sizes) :])
    filled = []
    for m in range(spec.imputations):
        z = whole.copy()
        for at, target in enumerate(targets):
            made = _at_first(target, first[at], chance[:, 0, at, m])
            z[:, target.columns] = np.where(lacking[at][:, None], made, z[:, target.columns])
        for stage, drawn in done:
            target = targets[stage.target]
            x = np.delete(z, target.columns, axis=1)
            made = _later(target, x, drawn[m], chance[:, stage.sweep + 1, stage.target, m])
            z[:, target.columns] = np.where(lacking[stage.target][:, None], made, z[:, target.columns])
        filled.append(z)
    return filled


def _drawn(layout: Layout, later: Array) -> list[tuple[Stage, Array]]:
    """Stages whose coefficients `later` holds, [imputations, coefficients + 1] of each."""
    found, at = [], 0
    for stage in layout.drawn(len(layout.stages)):
        if at == len(later):
            break
        size = int(layout.spec.imputations) * (layout.coefficients(stage) + 1)
        found.append((stage, later[at : at + size].reshape(layout.spec.imputations, -1)))
        at += size
    return found


def _at_first(target: Target, drawn: Array, u: Array) -> Array:
    """[n, columns of the target]."""
    if target.kind == "category":
        shares = np.clip(drawn, 0.0, 1.0)
        return drawn_flags(np.tile([1 - shares.sum(), *shares], (len(u), 1)), u)
    if target.kind == "binary":
        return _flag(u, np.full(len(u), drawn[0]))
    return _number(np.full(len(u), drawn[0]), float(drawn[1]), u)


def _later(target: Target, x: Array, drawn: Array, u: Array) -> Array:
    if target.kind == "category":
        return drawn_flags(level_shares(x, drawn[:-1]), u)
    line = logits(x, drawn[:-1])
    return _flag(u, expit(line)) if target.kind == "binary" else _number(line, float(drawn[-1]), u)


def _flag(u: Array, chance: Array) -> Array:
    return np.asarray(u < chance, dtype=np.float64)[:, None]


def _number(centre: Array, deviation: float, u: Array) -> Array:
    return np.asarray(np.clip(centre + np.clip(deviation, 0.0, _LARGEST) * ndtri(u), -1.0, 1.0))[:, None]


def _uniforms(spec: Any, targets: int, data: Dataset) -> Array:
    """[n, sweeps + 1, targets, imputations] in (0, 1)."""
    shape = (spec.sweeps + 1, targets, spec.imputations)
    seed = _PATIENT + spec.seed.to_bytes(8, "little")
    raw = b"".join(shake_256(seed + str(p).encode()).digest(8 * int(np.prod(shape))) for p in data.pseudonyms)
    return uniforms(raw).reshape(len(data), *shape)


def uniforms(raw: bytes) -> Array:
    """One for every 8 bytes, never 0 or 1."""
    return ((np.frombuffer(raw, dtype="<u8") >> 11).astype(np.float64) + 0.5) / 2.0**53
