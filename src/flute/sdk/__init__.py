"""For notebooks: `import flute.sdk as flute`.

    fed = flute.local({"north": "north.csv", "south": "south.csv", "west": "west.csv"})
    study = fed.study("heart", purpose="…", variables="dictionary.yaml", budget=flute.Budget(epsilon=3))
    model = flute.FederatedLogisticRegression("ill", ["age", "sex"], epsilon=1).fit(study)
For every algorithm there is an estimator of its name (`flute.RobustMean`, `flute.DecisionTree`, …); `flute.Query` and
`flute.Model` take any by name.
"""

from __future__ import annotations

from typing import Any

from flute.algorithms.made_up import Assumed
from flute.deep.layers import (
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    Join,
    Monai,
    Norm,
    Pool,
    Residual,
)
from flute.errors import FluteError
from flute.local.run import StudyStopped
from flute.sdk.choosing import ChooseModel, grid
from flute.sdk.estimators import (
    Describe,
    Estimator,
    Evaluate,
    FederatedLogisticRegression,
    Model,
    Quantiles,
    Query,
    RobustMean,
    estimator_for,
    estimator_names,
)
from flute.sdk.examples import example
from flute.sdk.federation import Federation, connect, local, simulator
from flute.sdk.networks.estimator import NeuralNetwork
from flute.sdk.networks.own_network import network
from flute.sdk.own_step import OwnStep
from flute.sdk.running import Running
from flute.sdk.search import BayesSearch, CrossValidate, GridSearch, select_by_lasso, select_one_by_one
from flute.sdk.study import Study
from flute.sdk.terms import Budget, Conditions, Exact
from flute.sdk.variables import Variables, binary, category, image, number

__all__ = [
    "Activation", "Assumed", "BayesSearch", "Budget", "ChooseModel", "Conditions", "Conv", "CrossValidate", "Dense",
    "Describe", "Dropout", "Estimator", "Evaluate", "Exact", "FederatedLogisticRegression", "Federation",
    "FluteError", "GlobalMean", "GridSearch", "Join", "Model", "Monai", "NeuralNetwork", "Norm", "OwnStep", "Pool",
    "Quantiles", "Query", "Residual", "RobustMean", "Running", "Study", "StudyStopped", "Variables", "binary",
    "category", "connect", "example", "grid", "image", "local", "network", "number", "select_by_lasso",
    "select_one_by_one", "simulator",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    found = estimator_for(name)
    if found is None:
        raise AttributeError(f"module 'flute.sdk' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *estimator_names()})
