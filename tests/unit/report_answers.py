"""Real results of every statistic and learner, over made-up patients, as a report gets them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flute.algorithms.contract import LogisticRegression, RobustMean, Spec
from flute.models.imputation.chained import ImputedRegression
from flute.models.machines.svm import SupportVectors
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.trees.boosting import GradientBoosting
from flute.models.trees.forest import RandomForest
from flute.models.trees.tree import DecisionTree
from flute.models.validation.choice import ChooseModel
from flute.models.validation.crossval import CrossValidate
from flute.report.model import Mode, QuestionReport, Report, StudyReport
from flute.summaries.compare import Compare
from flute.summaries.correlation import Correlation
from flute.summaries.cross_table import CrossTable
from flute.summaries.survival.concordance import Concordance
from flute.summaries.survival.cox import Cox
from flute.summaries.survival.curves import Survival
from flute.summaries.table_one import TableOne
from support.summary_cases import asked, cohort

EVERYTHING = ("age", "pressure", "sex", "grade")
BOTH: Mapping[str, Spec] = {
    "two-groups": Compare("age", "sex", bins=16),
    "three-groups": Compare("age", "grade", bins=16),
    "pairs": Correlation(("age", "pressure", "sex")),
    "cross": CrossTable("ill", "sex"),
    "raters": CrossTable("grade", "reread", raters=True),
    "curve": Survival("time", "died", bins=16),
    "curves": Survival("time", "died", "sex", bins=16),
    "hazards": Cox("time", "died", ("age", "sex", "grade"), bins=8),
    "score": Concordance("time", "died", "age", bins=12, score_bins=12),
    "first": TableOne(("age", "sex", "grade"), "ill", bins=16),
    "first-of-all": TableOne(("age", "sex"), bins=16),
    "tree": DecisionTree("ill", EVERYTHING, max_depth=3, min_leaf=10),
    "forest": RandomForest("ill", EVERYTHING, trees=3, max_depth=2),
    "boosted": GradientBoosting("ill", EVERYTHING, rounds=3, max_depth=2),
    "machine": SupportVectors("ill", EVERYTHING),
    "folds": CrossValidate(LogisticRegression("ill", ("age", "sex")), folds=2, bins=8),
    "slopes": GeneralisedLinearModel("age", ("sex", "grade")),
    "penalised": PenalisedRegression("ill", ("age", "sex"), (1.0,)),
    "robust": RobustMean(("age", "sex"), groups=5),
}
EXACT: Mapping[str, Spec] = {
    "filled": ImputedRegression("ill", ("age", "sex"), imputations=2, sweeps=1),
    "filled-number": ImputedRegression("pressure", ("age", "grade"), "gaussian", ("age",), 2, 1),
    "amounts": GeneralisedLinearModel("pressure", ("age", "grade"), "gamma"),
}
PRIVATE: Mapping[str, Spec] = {
    "choice": ChooseModel(
        (
            PenalisedRegression("ill", ("age", "sex"), (0.1,)),
            PenalisedRegression("ill", ("age", "sex"), (10.0,)),
            PenalisedRegression("ill", ("age", "pressure"), (0.1,)),
            DecisionTree("ill", EVERYTHING, max_depth=2, min_leaf=10),
        )
    ),
}
LABELS = {
    "age": "Age", "ill": "Heart disease", "sex": "Female", "grade": "Grade", "reread": "Grade, read again",
    "pressure": "Blood pressure", "time": "Time", "died": "Death",
}  # fmt: skip


def plain(value: object) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


@functools.cache
def released(mode: Mode) -> dict[str, dict[str, Any]]:
    """By reference, as they come out of the store."""
    patients = cohort(n=900)
    specs = {**BOTH, **(EXACT if mode == "exact" else PRIVATE)}
    changed = {} if mode == "exact" else {"rho": 0.5}
    results = {name: asked(spec, patients, 3, **changed) for name, spec in specs.items()}
    found: dict[str, dict[str, Any]] = json.loads(json.dumps(results, default=plain))
    return found


def report_of(results: Mapping[str, dict[str, Any]], mode: Mode = "exact") -> Report:
    tags = {name: str(spec.__struct_config__.tag) for name, spec in {**BOTH, **EXACT, **PRIVATE}.items()}
    study = StudyReport(
        "answers",
        "Answers",
        mode,
        results=dict(results),
        questions=tuple(QuestionReport(name, tags.get(name, "")) for name in results),
        labels=LABELS,
        units={"age": "a", "time": "a", "pressure": "mm[Hg]"},
        references={"grade": "low"},
    )
    return Report(title="Answers", simulated=True, made_at=0, studies=(study,))
