"""Multiple imputation from hubs' sums equals multiple imputation of the pooled table, within Monte-Carlo error.

Both are taken over 20 imputations, so that each mean has an error of its own, which is known; coefficients are
compared by a t test on 38 degrees, all eight together at a false alarm of ALPHA. The pooled chain is statsmodels',
whose values are drawn about each regression with normal residuals, as ours are, and not taken from near patients
(predictive mean matching, its default), which would have to see those of other hubs.
Controls: complete cases, and for the linear model mean imputation, where values are missing because of the outcome.

statsmodels' chain takes no category. For one the pooled chain is written out here, of the same regressions fitted by
statsmodels (a number by OLS, the category by MNLogit), each drawn about its estimate. Controls: complete cases, and
the commonest level for every missing one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.random import default_rng
from scipy.special import expit
from scipy.stats import t
from statsmodels.imputation import mice

from flute.algorithms.contract import StudyVariable
from flute.data.variables import Array, Variable
from flute.models.imputation.chained import ImputedRegression
from support.sums import run, setting, spread

ALPHA = 1e-6
TIMES = 20
PATIENTS = 500
COEFFICIENTS = 4
NAMES = ("a", "b", "s")
VARIABLES = (
    *(StudyVariable(Variable(name, "number", -8, 10)) for name in ("a", "b", "y")),
    StudyVariable(Variable("s", "binary")),
    StudyVariable(Variable("ill", "binary")),
)


def table(n: int = PATIENTS) -> dict[str, Array]:
    """a is missing more often where y is high, b by chance."""
    chance = default_rng(1)
    a = chance.normal(size=n)
    b = 0.6 * a + 0.8 * chance.normal(size=n)
    s = (chance.random(n) < expit(0.7 * b)).astype(float)
    y = 1 + a + 0.5 * b + 0.8 * s + chance.normal(size=n)
    ill = (chance.random(n) < expit(-0.3 + 0.8 * a + 0.5 * b + 0.6 * s)).astype(float)
    a[chance.random(n) < expit(y - 3)] = np.nan
    b[chance.random(n) < 0.15] = np.nan
    return {"a": a, "b": b, "s": s, "y": y, "ill": ill}


def fitted(outcome: str, frame: pd.DataFrame) -> Array:
    x = sm.add_constant(frame[list(NAMES)])
    kind = sm.OLS(frame[outcome], x) if outcome == "y" else sm.GLM(frame[outcome], x, family=sm.families.Binomial())
    return np.asarray(kind.fit().params)


def pooled(outcome: str, frame: pd.DataFrame) -> Array:
    """[TIMES, coefficients] of statsmodels' chained equations."""
    np.random.seed(3)  # statsmodels draws from it
    model, more = (sm.OLS, {}) if outcome == "y" else (sm.Logit, {"fit_kwds": {"disp": 0}})
    chain = mice.MICE(f"{outcome} ~ a + b + s", model, Drawn(frame), **more)
    chain.fit(n_burnin=5, n_imputations=TIMES)
    return np.array([result.params for result in chain.results_list])


class Drawn(mice.MICEData):  # type: ignore[misc]
    """statsmodels' chain, values drawn with normal residuals about its own drawn coefficients."""

    def impute_pmm(self, vname: str) -> None:
        lacking = self.get_split_data(vname)[2]
        fit = self.results[vname]
        variance = fit.scale * fit.df_resid / np.random.chisquare(fit.df_resid)
        line = self.models[vname].predict(self.params[vname], lacking)
        self._store_changes(vname, line + np.sqrt(variance) * np.random.normal(size=len(line)))


def apart(mine: Array, spread_of_mine: Array, theirs: Array) -> Array:
    """Standardised differences of two means over TIMES imputations."""
    return np.asarray((mine - theirs.mean(axis=0)) / np.sqrt((spread_of_mine + theirs.var(axis=0, ddof=1)) / TIMES))


@pytest.mark.requirement("F-IMSD-14")
@pytest.mark.parametrize(
    ("outcome", "family"), [("y", "gaussian"), pytest.param("ill", "binomial", marks=pytest.mark.soak)]
)
def test_it_equals_pooled_chained_equations_within_monte_carlo_error(outcome: str, family: Any) -> None:
    found = table()
    columns = {name: found[name] for name in (*NAMES, "y", "ill")}
    spec = ImputedRegression(outcome, NAMES, family, ("a", "b"), imputations=TIMES, sweeps=5)
    unscaled = [StudyVariable(v.variable, scale="none") for v in VARIABLES]
    shown = run(spec, setting(unscaled), spread(columns, np.arange(PATIENTS) % 3, unscaled))
    frame = pd.DataFrame({name: found[name] for name in (*NAMES, outcome)})
    theirs, between = pooled(outcome, frame), np.array(shown["between_variance"])
    limit = float(t.ppf(1 - ALPHA / (2 * 2 * COEFFICIENTS), 2 * (TIMES - 1)))
    mine = np.array(shown["raw_coefficients"])
    assert np.abs(apart(mine, between, theirs)).max() < limit
    without = fitted(outcome, frame.dropna())
    assert np.abs(apart(without, between, theirs)).max() > limit
    if outcome == "ill":
        return
    means = fitted(outcome, frame.fillna(frame.mean()))
    assert np.abs(apart(means, between, theirs)).max() > limit


GRADES = ("low", "mid", "high")
GRADED = (
    *(StudyVariable(Variable(name, "number", -8, 10), scale="none") for name in ("a", "y")),
    StudyVariable(Variable("grade", "category", levels=GRADES)),
)


def graded(n: int = PATIENTS) -> dict[str, Array]:
    """The grade is missing more often where y is high, a by chance."""
    chance = default_rng(6)
    a = chance.normal(size=n)
    lines = np.column_stack([np.zeros(n), 0.4 + 0.8 * a, -0.2 - 0.7 * a])
    grade = np.argmax(lines + chance.gumbel(size=(n, 3)), axis=1).astype(float)
    y = 1 + 0.6 * a + np.array([0.0, 1.2, -1.0])[grade.astype(int)] + chance.normal(size=n)
    grade[chance.random(n) < expit(1.5 * (y - 1.5))] = np.nan
    a[chance.random(n) < 0.15] = np.nan
    return {"a": a, "y": y, "grade": grade}


def leveled(grade: Array) -> Array:
    return np.column_stack([grade == 1, grade == 2]).astype(float)


def chained(found: dict[str, Array], chance: np.random.Generator) -> Array:
    """Coefficients of y on a and the grade after five sweeps of one pooled chain."""
    y, gone_a, gone = found["y"], np.isnan(found["a"]), np.isnan(found["grade"])
    a = np.where(gone_a, chance.choice(found["a"][~gone_a], len(y)), found["a"])
    grade = np.where(gone, chance.choice(found["grade"][~gone], len(y)), found["grade"])
    for _ in range(5):
        x = sm.add_constant(np.column_stack([leveled(grade), y]))
        line = sm.OLS(a[~gone_a], x[~gone_a]).fit()
        spread_of = np.sqrt(line.scale * line.df_resid / chance.chisquare(line.df_resid))
        drawn = line.params + spread_of * np.linalg.cholesky(line.normalized_cov_params) @ chance.normal(size=4)
        a[gone_a] = (x @ drawn + spread_of * chance.normal(size=len(y)))[gone_a]
        x = sm.add_constant(np.column_stack([a, y]))
        levels = sm.MNLogit(grade[~gone], x[~gone]).fit(disp=0)
        b = chance.multivariate_normal(levels.params.T.ravel(), levels.cov_params()).reshape(2, 3)
        odds = np.column_stack([np.ones(len(y)), np.exp(x @ b.T)])
        below = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
        grade[gone] = np.sum(chance.random(len(y))[:, None] > below[:, :-1], axis=1)[gone]
    return np.asarray(sm.OLS(y, sm.add_constant(np.column_stack([a, leveled(grade)]))).fit().params)


@pytest.mark.requirement("F-IMSD-14")
def test_a_category_of_three_levels_equals_pooled_chained_equations_within_monte_carlo_error() -> None:
    found, chance = graded(), default_rng(2)
    spec = ImputedRegression("y", ("a", "grade"), "gaussian", (), imputations=TIMES, sweeps=5)
    shown = run(spec, setting(GRADED), spread(found, np.arange(PATIENTS) % 3, GRADED))
    theirs = np.array([chained(found, chance) for _ in range(TIMES)])
    mine, between = np.array(shown["raw_coefficients"]), np.array(shown["between_variance"])
    limit = float(t.ppf(1 - ALPHA / (2 * COEFFICIENTS), 2 * (TIMES - 1)))
    assert np.abs(apart(mine, between, theirs)).max() < limit
    there = ~np.isnan(found["a"]) & ~np.isnan(found["grade"])
    commonest = np.nan_to_num(found["grade"], nan=1.0)
    for a, grade in ((found["a"][there], found["grade"][there]), (np.nan_to_num(found["a"]), commonest)):
        y = found["y"][there] if len(a) < PATIENTS else found["y"]
        wrong = sm.OLS(y, sm.add_constant(np.column_stack([a, leveled(grade)]))).fit().params
        assert np.abs(apart(wrong, between, theirs)).max() > limit
