"""Cohorts whose hazards are proportional with known ratios, and private Cox regressions of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from flute.algorithms.contract import StudyVariable
from flute.data.variables import Array, Variable
from flute.summaries.survival.cox import Cox
from support.sums import Privacy, run, setting, spread

VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100, unit="a"), scale="reference", centre=60, spread=10),
    StudyVariable(Variable("marker", "number", 0.1, 200), log=True, scale="reference", centre=2.0, spread=0.7),
    StudyVariable(Variable("sex", "binary")),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high"))),
    StudyVariable(Variable("time", "number", 0, 10, unit="a")),
    StudyVariable(Variable("died", "binary")),
)
SPEC = Cox("time", "died", ("age", "marker", "sex", "grade"))
RATIOS = np.array([0.4, 0.3, 0.5, 0.3, 0.8])
"""Log hazard ratios, on the study's scale."""
TRIED_DELTA = 1e-5


def columns(table: dict[str, Array]) -> Array:
    """[n, 5] on the study's scale."""
    flags = [table["sex"], table["grade"] == 1, table["grade"] == 2]
    return np.column_stack([(table["age"] - 60) / 10, (np.log(table["marker"]) - 2) / 0.7, *flags])


def cohort(chance: np.random.Generator, n: int = 1500) -> dict[str, Array]:
    """Correlated predictors, a Weibull hazard that rises, follow-up that ends by chance; about half have it."""
    sex, grade = (chance.random(n) < 0.4) * 1.0, chance.choice(3, n, p=[0.5, 0.3, 0.2]) * 1.0
    age = np.clip(chance.normal(60 + 2 * grade, 10, n), 20, 100)
    marker = np.clip(np.exp(chance.normal(2 + 0.3 * grade, 0.6, n)), 0.1, 200)
    table = {"age": age, "marker": marker, "sex": sex, "grade": grade}
    life = 9 * chance.exponential(size=n) ** (1 / 1.2) * np.exp(-(columns(table) @ RATIOS) / 1.2)
    followed = np.minimum(chance.uniform(0, 14, n), 9.999)
    return table | {"time": np.minimum(life, followed), "died": (life <= followed) * 1.0}


def rho_of(epsilon: float) -> float:
    """mu^2 / 2 of Gaussian DP that is (epsilon, TRIED_DELTA). Source: Dong, Roth, Su 2022, corollary 1."""

    def excess(mu: float) -> float:
        tail = np.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2)
        return float(norm.cdf(-epsilon / mu + mu / 2) - tail - TRIED_DELTA)

    return float(brentq(excess, 1e-2, 20)) ** 2 / 2


def fitted(table: dict[str, Array], chance: np.random.Generator, rho: float) -> dict[str, Any]:
    """A private fit over three hubs, the first of which has nobody."""
    owner = chance.integers(1, 3, len(table["age"]))
    hubs = spread(table, owner, VARIABLES)
    return run(SPEC, setting(VARIABLES, mode="private"), hubs, privacy=Privacy(rho, chance))
