"""Choosing among models in a private study: one question, one price, whatever the number of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flute.defaults.models.around_models import CHOICE_MOST_MODELS
from flute.errors import MisuseError
from flute.sdk.estimators import Estimator
from flute.sdk.extras import frame
from flute.sdk.search import changed, points


@dataclass(eq=False, repr=False)
class ChooseModel(Estimator):
    """Which of several models does best on patients that it has not seen; private studies only.

    models: estimators; they are not asked for themselves. loss: "log-loss" or "brier".
    Learned: best_ (its place), best_estimator_ (a copy to be asked for: `.fit(study)`), told_apart_ (whether the best
    is farther from the next than twice the noise between them)."""

    algorithm: ClassVar[str] = "choose-model"
    models: Sequence[Estimator]
    loss: str | None = None
    folds: int | None = None
    seed: int | None = None

    def elements(self) -> dict[str, Any]:
        """Raises: MisuseError: something else than estimators."""
        models = list(self.models)
        if not all(isinstance(model, Estimator) for model in models):
            raise MisuseError(
                "models: give estimators, for example those of flute.grid(model, {'strengths': [1, 0.1]})."
            )
        return {**super().elements(), "models": [{"algorithm": m.asks, **m.elements()} for m in models]}

    def take(self, results: Mapping[str, Any]) -> None:
        super().take(results)
        if not self.per_hub:
            value = self.fitted.value
            self.best_, self.told_apart_ = int(value["best"]), bool(value["told_apart"])
            self.best_estimator_ = changed(self.models[self.best_], {})

    def to_frame(self) -> Any:
        """A row per model: the elements in which they differ, how far its loss is above the best one's, and the
        deviation of the noise in that."""
        asked = [{"algorithm": m.asks, **m.elements()} for m in self.models]
        names = list(dict.fromkeys(name for one in asked for name in one))
        differ = [name for name in names if any(one.get(name) != asked[0].get(name) for one in asked)]
        told = self.fitted.value["models"]
        rows = [
            {"place": k, **{name: one.get(name) for name in differ},
             "above_best": own["above_best"], "noise_se": own["above_best_noise_se"]}
            for k, (one, own) in enumerate(zip(asked, told, strict=True))
        ]  # fmt: skip
        return frame(rows, "place")


def grid(estimator: Estimator, space: Mapping[str, Any]) -> list[Estimator]:
    """A copy of the estimator for every combination of the listed values: `grid(model, {"strengths": [1, 0.1]})`.

    Raises: MisuseError: no such parameter, or more combinations than one question compares."""
    return [changed(estimator, point) for point in points(space, CHOICE_MOST_MODELS)]
