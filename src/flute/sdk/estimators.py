"""Questions as estimators in scikit-learn's manner: constructors only store, `fit` asks, learned names end in `_`.

An estimator holds the elements that the question has in a study file, under the same names, and what it may spend.
`get_params`, `set_params` and `sklearn.base.clone` work; scikit-learn itself is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from flute.errors import MisuseError
from flute.questions.registry import REGISTRY
from flute.sdk.pages import heading, page, table
from flute.sdk.results.result import HubResults, Result
from flute.sdk.results.scoring import means, risks

_TERMS = ("epsilon", "share", "per_hub", "name")
"""Parameters of every estimator that are no elements of its question."""


@dataclass(eq=False, kw_only=True, repr=False)
class Estimator:
    """epsilon: what it may spend where it is asked alone; share: its part where several are asked at once; None:
    the study's `each`, an equal part. per_hub: one answer of each hub. name: of its result; None: the algorithm's."""

    algorithm: ClassVar[str] = ""
    epsilon: float | None = None
    share: float | None = None
    per_hub: bool = False
    name: str | None = None

    # --- scikit-learn's conventions ------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Raises: MisuseError: no such parameter."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise MisuseError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}.")
            setattr(self, name, value)
        return self

    def fit(self, study: Any, **options: Any) -> Self:
        """Ask this one question of a study; `options`: of `Study.run`. Returns itself."""
        study.run(self, **options)
        return self

    async def afit(self, study: Any, **options: Any) -> Self:
        await study.arun(self, **options)
        return self

    # --- the question it stands for ------------------------------------------------------------------

    @property
    def asks(self) -> str:
        """The algorithm's name."""
        return self.algorithm

    def elements(self) -> dict[str, Any]:
        """Of its question in a study file. Values that are estimators stand for those questions."""
        params = self.get_params(deep=False)
        return {name: v for name, v in params.items() if name not in _TERMS and v is not None}

    # --- what was learned ----------------------------------------------------------------------------

    def take(self, results: Mapping[str, Result]) -> None:
        """What came out, by reference. Sets result_ (or results_ by hub), release_, epsilon_spent_ and n_."""
        found = list(results.values())
        self.results_ = HubResults({r.party: r for r in found}) if self.per_hub else None
        self.release_ = found[0].release
        self.epsilon_spent_ = found[0].epsilon
        if not self.per_hub:
            self.result_ = found[0]
            self.n_ = found[0].n

    @property
    def fitted(self) -> Result:
        """Raises: MisuseError: not asked yet, or answered by each hub for itself."""
        result = self.__dict__.get("result_")
        if isinstance(result, Result):
            return result
        if self.__dict__.get("results_") is not None:
            raise MisuseError("Each hub answered for itself: take one answer, for example results_['north'].")
        raise MisuseError(
            f"This {type(self).__name__} has no result yet: ask with .fit(study), or study.run(it, another)."
        )

    def __getattr__(self, name: str) -> Any:
        """Raises: AttributeError: no such thing; of what an answer brings, that there is none yet."""
        kind = type(self).__name__
        if name.endswith("_") and not name.startswith("_") and "release_" not in self.__dict__:
            raise AttributeError(f"This {kind} has no {name} yet: ask with .fit(study), or study.run(it, another).")
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def to_frame(self) -> Any:
        return self.fitted.to_frame()

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """matplotlib Axes."""
        return self.fitted.plot(ax, **options)

    def __repr__(self) -> str:
        said = [f"{name}={_shown(value)}" for name, value in self.get_params().items() if value not in (None, False)]
        return f"{type(self).__name__}({', '.join(said)})"

    def _repr_html_(self) -> str:
        result = self.__dict__.get("result_")
        if isinstance(result, Result):
            return result._repr_html_()
        asked = [(name, _shown(value)) for name, value in self.elements().items()]
        return page(heading(f"{type(self).__name__}, not asked yet"), table(("element", "value"), asked))


def _shown(value: Any) -> str:
    """Estimators by their class alone."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return type(value).__name__ if isinstance(value, Estimator) else repr(value)


class Predictor(Estimator):
    """What a model's estimator has besides: risks of patients in a local frame. Nothing of it leaves this machine."""

    @property
    def classes_(self) -> Any:
        return np.array([0, 1])

    def predict_proba(self, frame: Any) -> Any:
        """float64 [n, 2]: chance of 0 and of 1, from raw columns by the variables' names and units.

        NaN where the study drops patients with a missing predictor and one is missing.
        Raises: MisuseError: the outcome is no 0 or 1; `predict` gives its mean."""
        if not self._of_two_classes:
            raise MisuseError("This model predicts a number, not a chance: predict(frame) gives what it expects.")
        risk = risks(self.fitted, frame)
        return np.column_stack([1 - risk, risk])

    def predict(self, frame: Any, threshold: float = 0.5) -> Any:
        """float64 [n]: 1 where the risk is at least `threshold`, NaN where there is none; of a number its mean."""
        if not self._of_two_classes:
            return means(self.fitted, frame)
        risk = self.predict_proba(frame)[:, 1]
        return np.where(np.isnan(risk), np.nan, (risk >= threshold).astype(np.float64))

    @property
    def _of_two_classes(self) -> bool:
        return bool(self.fitted.value.get("family", "binomial") == "binomial")


class Query(Estimator):
    """Any question: `Query("cross-table", rows="sex", columns="ill")`, with the elements of the study file."""

    def __init__(
        self, algorithm: str, *, epsilon: float | None = None, share: float | None = None, per_hub: bool = False,
        name: str | None = None, **elements: Any,
    ) -> None:  # fmt: skip
        super().__init__(epsilon=epsilon, share=share, per_hub=per_hub, name=name)
        self.__dict__["algorithm"] = algorithm
        self.__dict__.update(elements)
        self._elements = tuple(elements)

    @property
    def asks(self) -> str:
        return str(self.__dict__["algorithm"])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("algorithm", *_TERMS, *self._elements)}

    def elements(self) -> dict[str, Any]:
        return {name: v for name in self._elements if (v := getattr(self, name)) is not None}


class Model(Query, Predictor):
    """As `Query`, for algorithms that make a model: `Model("decision-tree", outcome="ill", predictors=["age"])`."""


# --- named ones ------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Describe(Estimator):
    """Counts, histograms, means, deviations and quantiles of variables."""

    algorithm: ClassVar[str] = "describe"
    variables: Sequence[str]
    bins: int | None = None


@dataclass(eq=False, repr=False)
class RobustMean(Estimator):
    """Means that a few poisoned records cannot drag."""

    algorithm: ClassVar[str] = "robust-mean"
    variables: Sequence[str]
    groups: int | None = None
    influence: float | None = None


@dataclass(eq=False, repr=False)
class Quantiles(Estimator):
    """Quantiles that the hubs compute together on shares (plan mpc, exact)."""

    algorithm: ClassVar[str] = "joint-quantiles"
    variables: Sequence[str]
    percents: Sequence[int] | None = None
    grid: int | None = None


@dataclass(eq=False, repr=False)
class FederatedLogisticRegression(Predictor):
    """Learned: coef_ [1, p] and intercept_ [1] over raw columns, feature_names_in_, and result_ with all the rest."""

    algorithm: ClassVar[str] = "logistic-regression"
    outcome: str
    predictors: Sequence[str]

    def take(self, results: Mapping[str, Result]) -> None:
        super().take(results)
        if not self.per_hub:
            value = self.fitted.value
            raw = np.array([math.nan if v is None else v for v in value["raw_coefficients"]])
            self.intercept_, self.coef_ = raw[:1], raw[None, 1:]
            self.feature_names_in_ = np.array(value["columns"][1:], dtype=object)


@dataclass(eq=False, repr=False)
class Evaluate(Estimator):
    """ROC, AUC, calibration, Brier score and net benefit of models that are asked for in the same run.

    models: estimators, or the names of their results. Learned: auc_, of the first model."""

    algorithm: ClassVar[str] = "evaluate"
    models: Sequence[Any] | Any
    by: str | None = None
    bins: int | None = None
    cuts: Sequence[float] | None = None
    fairness: bool | None = None

    def elements(self) -> dict[str, Any]:
        models = [self.models] if isinstance(self.models, str | Estimator) else list(self.models)
        return {**super().elements(), "models": models}

    def take(self, results: Mapping[str, Result]) -> None:
        super().take(results)
        if not self.per_hub:
            first = next(iter(self.fitted.value["models"].values()))
            self.auc_ = first["auc"]["value"] if first.get("auc") else math.nan


def estimator_for(class_name: str) -> type[Estimator] | None:
    """An estimator for every registered algorithm: `CrossTable` for `cross-table`; its elements are those of the
    study file. None: there is no such algorithm."""
    for spec, one in REGISTRY.items():
        if "".join(word.capitalize() for word in one.algorithm.name.split("-")) == class_name:
            return _made(class_name, one.algorithm.name, one.scorer is not None, spec.__doc__ or "")
    return None


def _made(class_name: str, algorithm: str, scores: bool, doc: str) -> type[Estimator]:
    base: type[Query] = Model if scores else Query

    def init(self: Query, **elements: Any) -> None:
        elements.pop("algorithm", None)  # scikit-learn's clone hands back all that get_params gave
        base.__init__(self, algorithm, **elements)

    return type(class_name, (base,), {"__init__": init, "__doc__": doc, "__module__": __name__})


def estimator_names() -> Iterator[str]:
    for one in REGISTRY.values():
        yield "".join(word.capitalize() for word in one.algorithm.name.split("-"))
