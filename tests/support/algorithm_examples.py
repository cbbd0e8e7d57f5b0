"""One or more example questions for every registered algorithm: what `flute.testing.check_algorithm` tries.

An algorithm that is registered needs an entry in EXAMPLES under its name; several where its kinds of question differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flute.algorithms.contract import (
    Describe,
    Evaluate,
    HiddenModel,
    JointQuantiles,
    JointTest,
    LogisticRegression,
    LogRank,
    RobustMean,
    StudyVariable,
)
from flute.data.variables import Variable
from flute.deep.layers import Activation, Conv, Dense, Join, Pool
from flute.deep.spec import NeuralNetwork, Training
from flute.models.imputation.chained import ImputedRegression
from flute.models.machines.svm import SupportVectors
from flute.models.own_step import OwnStep
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.robust.model import RobustModel
from flute.models.trees.boosting import GradientBoosting
from flute.models.trees.forest import RandomForest
from flute.models.trees.tree import DecisionTree
from flute.models.validation.choice import ChooseModel
from flute.models.validation.crossval import CrossValidate
from flute.summaries.compare import Compare
from flute.summaries.correlation import Correlation
from flute.summaries.cross_table import CrossTable
from flute.summaries.survival.concordance import Concordance
from flute.summaries.survival.cox import Cox
from flute.summaries.survival.curves import Survival
from flute.summaries.table_one import TableOne
from flute.testing import Example

AGE = StudyVariable(Variable("age", "number", 20, 100, unit="a"), scale="reference", centre=60, spread=10)
PRESSURE = StudyVariable(Variable("pressure", "number", 60, 260), log=True, scale="reference", centre=4.9, spread=0.2)
SEX = StudyVariable(Variable("sex", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid")
ILL = StudyVariable(Variable("ill", "binary"))
TIME = StudyVariable(Variable("time", "number", 0, 10, unit="a"))
REREAD = StudyVariable(Variable("reread", "category", levels=("low", "mid", "high")))
PICTURE = StudyVariable(Variable("picture", "image", 0, 16, shape=(1, 4, 4)))
SPARE = StudyVariable(Variable("spare", "number", -5, 5))
"""In no question: reading it is seen."""
ALL = (AGE, PRESSURE, SEX, GRADE, ILL, TIME, REREAD, SPARE)

MODEL = LogisticRegression("ill", ("age", "sex"))
MODELS: dict[str, Any] = {
    "questions": {"model": (MODEL, "pooled"), "own": (MODEL, "each")},
    "inputs": {
        reference: {"raw_coefficients": [-3.0, 0.04, 0.6]}
        for reference in ("model", "own@hub-00", "own@hub-01", "own@hub-02")
    },
}
"""Two models that stand before an evaluation, and what they came to."""
HAZARDS: Any = {
    "questions": {"hazards": (Cox("time", "ill", ("age", "grade"), bins=8), "pooled")},
    "inputs": {
        "hazards": {"coefficients": [0.3, -0.2, 0.4], "log_hazard": {"centre": 0.1, "spread": 0.5}},
    },
}
"""A Cox regression that stands before its concordance, and what it came to."""


def asking(spec: Any, **changed: Any) -> Example:
    return Example(spec, ALL, **changed)


EVERYTHING = ("age", "pressure", "sex", "grade")

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "describe": (asking(Describe(("age", "pressure", "sex", "grade"), bins=16)),),
    "logistic-regression": (
        asking(LogisticRegression("ill", ("age", "pressure", "sex", "grade"))),
        asking(LogisticRegression("ill", ("age", "grade")), missing="indicate"),
    ),
    "decision-tree": (
        asking(DecisionTree("ill", EVERYTHING, max_depth=3, min_leaf=10)),
        asking(
            DecisionTree("ill", ("pressure", "grade"), max_depth=2, min_leaf=10, criterion="entropy"),
            missing="indicate",
        ),
    ),
    "gradient-boosting": (
        asking(GradientBoosting("ill", EVERYTHING, rounds=3, max_depth=2)),
        asking(GradientBoosting("ill", ("age", "grade"), rounds=2, max_depth=2, cycles=1), missing="indicate"),
    ),
    "svm": (
        asking(SupportVectors("ill", EVERYTHING)),
        asking(SupportVectors("ill", ("age", "grade"), kernel="rbf", features=8), missing="indicate"),
    ),
    "random-forest": (asking(RandomForest("ill", EVERYTHING, trees=3, max_depth=2)),),
    "evaluate": (
        asking(Evaluate(("model", "own"), by="grade", bins=16), **MODELS),
        asking(Evaluate(("model",), "age", 8, (50.0, 70.0), fairness=True), **MODELS),
    ),
    "cross-validate": (
        asking(CrossValidate(MODEL, folds=2, bins=8)),
        asking(
            CrossValidate(DecisionTree("ill", ("age", "grade"), max_depth=2, min_leaf=10), 3, 8), missing="indicate"
        ),
    ),
    "choose-model": (
        asking(
            ChooseModel(
                (PenalisedRegression("ill", ("age", "grade"), (1.0,)), MODEL, LogisticRegression("ill", ("age",)))
            ),
            modes=("private",),
        ),
        asking(
            ChooseModel((MODEL, DecisionTree("ill", ("age", "grade"), max_depth=2, min_leaf=10)), "brier", folds=3),
            modes=("private",),
            missing="indicate",
        ),
    ),
    "imputed-regression": (
        asking(ImputedRegression("ill", ("age", "sex"), imputations=2, sweeps=1), modes=("exact",)),
        asking(
            ImputedRegression("pressure", ("age", "grade"), "gaussian", ("age",), 2, 2),
            modes=("exact",),
            tolerance=1e-5,
        ),
        asking(
            ImputedRegression("pressure", ("age", "grade"), "gaussian", ("grade",), 2, 1),
            modes=("exact",),
            tolerance=1e-5,
        ),
    ),
    "robust-mean": (asking(RobustMean(("age", "sex"), groups=5)),),
    "correlation": (asking(Correlation(("age", "pressure", "sex"))),),
    "cross-table": (asking(CrossTable("ill", "sex")), asking(CrossTable("grade", "reread", raters=True))),
    "compare": (asking(Compare("age", "sex", bins=16)), asking(Compare("age", "grade", bins=16))),
    "survival": (asking(Survival("time", "ill", "sex", bins=16)), asking(Survival("time", "ill", bins=16))),
    "cox": (
        asking(Cox("time", "ill", ("age", "sex", "grade"), bins=8), modes=("exact",)),
        asking(Cox("time", "ill", ("age", "sex", "grade"), bins=8), modes=("private",)),
        asking(Cox("time", "ill", ("pressure", "grade"), bins=8), modes=("private",), missing="indicate"),
    ),
    "concordance": (
        asking(Concordance("time", "ill", score="age", bins=8, score_bins=6)),
        asking(Concordance("time", "ill", cox="hazards", bins=6, score_bins=8), **HAZARDS),
    ),
    "table-one": (
        asking(TableOne(("age", "sex", "grade"), "ill", bins=16)),
        asking(TableOne(("age", "sex"), bins=16)),
    ),
    "robust-model": (asking(RobustModel("ill", ("age", "sex")), modes=("exact",)),),
    "glm": (asking(GeneralisedLinearModel("age", ("sex", "grade"))),),
    "penalised-regression": (
        asking(PenalisedRegression("ill", ("age", "sex"), (1.0, 0.1)), modes=("exact",)),
        asking(PenalisedRegression("ill", ("age", "sex"), (1.0,))),
    ),
    "own-step": (asking(OwnStep(("age", "sex"), "def step(x, p): return x", 2, seconds=300), modes=("private",)),),
    "neural-network": (
        asking(
            NeuralNetwork(
                "ill", ("age", "sex"), network=(Dense(4), Activation("tanh")), training=Training(rounds=2, batch=16)
            ),
            clipped_by_hub=True,
        ),
        Example(
            NeuralNetwork(
                "ill", ("age",), "picture", (Conv(2), Activation(), Pool(), Join()), Training(rounds=2, batch=16)
            ),
            (*ALL, PICTURE),
            clipped_by_hub=True,
            patients=40,
            rounding=1e-7,
        ),
    ),
    "joint-quantiles": (asking(JointQuantiles(("age",), (25, 50), grid=64), modes=("exact",)),),
    "joint-test": (asking(JointTest("age", "grade", grid=32), modes=("exact",)),),
    "log-rank": (asking(LogRank("time", "ill", "sex", bins=16), modes=("exact",)),),
    "hidden-model": (
        asking(HiddenModel("ill", ("age", "sex"), bins=8), modes=("exact",), patients=24, empty_hub=False),
    ),
}


def examples_of(name: str) -> tuple[Example, ...]:
    """Raises: AssertionError: nobody has said how this algorithm is asked."""
    found = EXAMPLES.get(name, ())
    assert found, (
        f"Algorithm {name!r} is registered and has no example question. Add an entry to EXAMPLES in "
        "tests/support/algorithm_examples.py; flute.testing then tries it in tests/unit/test_testing_registry.py."
    )
    return found
