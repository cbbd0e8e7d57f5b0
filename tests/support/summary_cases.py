"""Patients for tests of statistics: ties, missing values, a constant, an empty hub and a hub with one patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flute.algorithms.contract import Spec, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from support.sums import Privacy, run, setting, spread

LEVELS = ("low", "mid", "high")
VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100, unit="a")),
    StudyVariable(Variable("pressure", "number", 60, 260)),
    StudyVariable(Variable("marker", "number", 0.1, 200), log=True),
    StudyVariable(Variable("fixed", "number", 0, 10)),
    StudyVariable(Variable("sex", "binary")),
    StudyVariable(Variable("ill", "binary")),
    StudyVariable(Variable("grade", "category", levels=LEVELS)),
    StudyVariable(Variable("reread", "category", levels=LEVELS)),
    StudyVariable(Variable("time", "number", 0, 10, unit="a")),
    StudyVariable(Variable("died", "binary")),
)
HUBS = (3, 10)


def cohort(seed: int = 5, n: int = 400, missing: float = 0.04) -> pd.DataFrame:
    """Rounded values, so that many are tied; `fixed` is the same for everybody."""
    chance = np.random.default_rng(seed)
    sex, grade = chance.integers(0, 2, n), chance.integers(0, 3, n)
    age = np.round(chance.normal(60 + 2 * grade, 11, n)).clip(20, 100)
    pressure = np.round(age + chance.normal(75, 15, n)).clip(60, 260)
    marker = np.round(np.exp(chance.normal(2 + 0.3 * grade, 0.6, n)), 1).clip(0.1, 200)
    ill = (chance.random(n) < 0.2 + 0.15 * grade + 0.1 * sex).astype(float)
    reread = np.where(chance.random(n) < 0.65, grade, chance.integers(0, 3, n))
    life = chance.exponential(6 * np.exp(-0.03 * (age - 60) - 0.4 * sex))
    followed = np.minimum(chance.uniform(0, 12, n), 10)
    table = pd.DataFrame(
        {
            "age": age,
            "pressure": pressure,
            "marker": marker,
            "fixed": np.full(n, 3.0),
            "sex": sex.astype(float),
            "ill": ill,
            "grade": grade.astype(float),
            "reread": reread.astype(float),
            "time": np.minimum(life, followed),
            "died": (life <= followed).astype(float),
        }
    )
    return table.mask(chance.random(table.shape) < missing)


def hubs_of(table: pd.DataFrame, count: int) -> list[Dataset]:
    """Hub 1 has nobody, the last hub one patient, the others the rest, unevenly."""
    others = [0, *range(2, count - 1)]
    owner = np.random.default_rng(count).choice(others, len(table), p=_weights(len(others)))
    owner[-1:] = count - 1
    return spread({name: table[name].to_numpy() for name in table}, owner, VARIABLES)


def _weights(size: int) -> Array:
    weights = 1.0 / np.arange(1, size + 1)
    return weights / weights.sum()


def asked(spec: Spec, table: pd.DataFrame, hubs: int = 3, **changed: Any) -> dict[str, Any]:
    """The result over these hubs; `rho` makes the study private."""
    rho, chance = changed.pop("rho", None), changed.pop("chance", None)
    privacy = None if rho is None else Privacy(rho, chance or np.random.default_rng(1))
    mode = "exact" if rho is None else "private"
    return run(spec, setting(VARIABLES, mode=mode, **changed), hubs_of(table, hubs), privacy=privacy)


def on_grid(values: Array, low: float, high: float, bins: int) -> Array:
    """Position of the equal bin of each value, the last one closed."""
    return np.clip(np.floor((values - low) / (high - low) * bins), 0, bins - 1)
