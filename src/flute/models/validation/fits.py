"""Models that are fitted within another question, and where one such fit stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flute.algorithms.contract import Algorithm, Finished, LogisticRegression, Opened, Scorer, Setting, Spec
from flute.data.variables import Array
from flute.messages.numbers import read_only
from flute.models.machines.svm import SupportVectors
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.trees.boosting import GradientBoosting
from flute.models.trees.forest import RandomForest
from flute.models.trees.tree import DecisionTree

Fitted = (
    LogisticRegression
    | PenalisedRegression
    | GeneralisedLinearModel
    | DecisionTree
    | RandomForest
    | GradientBoosting
    | SupportVectors
)
"""Questions that make a model by sums over patients."""
Reached = Array | dict[str, Any]
"""What a fit asks next, or its result."""


def reached(algorithm: Algorithm, model: Spec, setting: Setting, history: Sequence[Opened]) -> Reached:
    """Where a fit stands after what was opened of it."""
    found = algorithm.next(model, setting, history, {})
    return found.result if isinstance(found, Finished) else found.parameters


def parameters_of(scorer: Scorer, model: Spec, setting: Setting, fit: Reached) -> Array | None:
    """Of the model that a fit came to, None where it is none that can score."""
    if not isinstance(fit, dict):
        return None
    found = read_only(scorer.parameters(model, setting, fit))
    sound = len(found) == scorer.size(model, setting) and np.isfinite(found).all()
    return found if sound else None
