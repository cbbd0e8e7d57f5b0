"""Linear models keep the contract that hubs rely on, and answer in a real study under the plans that carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.random import default_rng

from flute.algorithms.contract import Spec, StudyVariable
from flute.data.variables import Variable
from flute.errors import StudyFileError
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.robust.model import RobustModel
from flute.questions.registry import REGISTRY
from flute.study.agreement import PlanChoice
from flute.study.files.check import check_study
from flute.testing import Example, check_algorithm
from support.inprocess import InProcessFederation
from support.studies import EXACT, PRIVATE, study, under_plan

PREDICTORS = ("age", "psa", "sex", "grade")
VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=12),
    StudyVariable(Variable("psa", "number", 0.1, 150), log=True, scale="reference", centre=1.5, spread=1.0),
    StudyVariable(Variable("sex", "binary")),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high"))),
    StudyVariable(Variable("cost", "number", 0.01, 400)),
    StudyVariable(Variable("ill", "binary")),
)
BOTH, EXACTLY = ("exact", "private"), ("exact",)
SPECS: list[tuple[Spec, tuple[Any, ...]]] = [
    (GeneralisedLinearModel("cost", PREDICTORS), BOTH),
    (GeneralisedLinearModel("ill", PREDICTORS, "binomial"), BOTH),
    (GeneralisedLinearModel("cost", PREDICTORS, "gamma"), EXACTLY),
    (GeneralisedLinearModel("cost", PREDICTORS, "poisson"), EXACTLY),
    (PenalisedRegression("ill", PREDICTORS, (0.1,), 0.5), BOTH),
    (PenalisedRegression("ill", PREDICTORS, (0.1, 0.01), 1.0), EXACTLY),
    (PenalisedRegression("cost", PREDICTORS, (0.1,), 0.5, "gaussian"), BOTH),
    (RobustModel("ill", PREDICTORS, least=3), EXACTLY),
]


@pytest.mark.requirement("NF-HUF-2")
@pytest.mark.parametrize(("spec", "modes"), SPECS, ids=[f"{type(s).__name__}-{i}" for i, (s, _) in enumerate(SPECS)])
def test_it_keeps_the_contract(spec: Spec, modes: tuple[Any, ...]) -> None:
    check_algorithm(REGISTRY[type(spec)], Example(spec, VARIABLES, modes=modes))


# --- in a study ------------------------------------------------------------------------------------------

HUBS = ("north", "south", "west")
QUESTIONS = """\
  steady:
    algorithm: robust-model
    outcome: ill
    predictors: [age, pressure, sex]
    least: 10
  held:
    algorithm: penalised-regression
    outcome: ill
    predictors: [age, sex]
    strengths: [0.1, 0.01]
  line:
    algorithm: glm
    outcome: pressure
    predictors: [age, sex]
  scored:
    algorithm: evaluate
    models: [steady, held]
    bins: 16
"""


def people(hub: str, n: int = 80) -> dict[str, list[object]]:
    rng = default_rng(list(hub.encode()))
    age, pressure, sex = rng.uniform(25, 95, n), rng.uniform(80, 200, n), rng.integers(0, 2, n)
    ill = rng.random(n) < 1 / (1 + np.exp(-(age - 60) / 12 - 0.8 * sex))
    return {
        "age": [float(a) for a in age],
        "pressure": [float(p) for p in pressure],
        "sex": [int(s) for s in sex],
        "grade": ["low"] * n,
        "ill": [int(i) for i in ill],
    }


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.requirement("F-SRS-4")
def test_a_study_on_shares_answers_all_of_them_and_scores_the_models(tmp_path: Path) -> None:
    asked = under_plan(study(EXACT, QUESTIONS), PlanChoice("mpc"), max_patients=100)
    fed = InProcessFederation(tmp_path, {h: people(h) for h in HUBS}, [v.variable for v in asked.variables])
    try:
        found = fed.run(asked)["results"]
    finally:
        fed.close()
    data = {k: np.array([v for hub in HUBS for v in people(hub)[k]]) for k in people("north")}
    pooled = sm.Logit(data["ill"], np.column_stack([np.ones(240), data["age"], data["sex"]])).fit(disp=0)
    steady = found["steady"]
    assert steady["votes"] == 3
    assert steady["raw_coefficients"][1] == pytest.approx(pooled.params[1], abs=0.03)
    line = sm.OLS(np.log(data["pressure"]), np.column_stack([np.ones(240), data["age"], data["sex"]])).fit()
    assert found["line"]["raw_coefficients"] == pytest.approx(line.params, rel=1e-5)
    assert found["line"]["raw_standard_errors"] == pytest.approx(line.bse, rel=1e-5)
    for model in ("steady", "held"):
        assert found["scored"]["models"][model]["auc"]["value"] > 0.75


def test_a_robust_model_is_refused_under_a_plan_of_sums_and_with_a_budget() -> None:
    with pytest.raises(StudyFileError, match="mpc"):
        check_study(study(EXACT, QUESTIONS))
    private = QUESTIONS.split("  held:")[0] + "    share: 0.5\n"
    with pytest.raises(StudyFileError, match="exact studies"):
        check_study(under_plan(study(PRIVATE, private), PlanChoice("mpc"), max_patients=100))
