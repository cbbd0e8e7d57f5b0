"""Choosing: settings of a model by cross-validation, predictors by a lasso or one by one. Nothing of it is free.

Every trial is a run of its own, which hubs decide about and charge, and so is every score: none is looked at that was
not paid for. A search ends before the study's budget does, and says what it has found so far.

In a private study `sdk.choosing` asks about all settings in one question, which costs far less noise than as many
trials. What nothing does here: private selection by random stopping (Papernot and Steinke 2022) would charge about
three trials for any number of them, but only where the fits and scores of all that lose stay closed. Under plans that
open sums to the coordinator they do not (docs/decisions/0022-choosing-a-model.md). A Bayesian search looks at every
score, so nothing of the kind can hold for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

from flute.defaults.models.around_models import SEARCH_MAX_TRIALS, SEARCH_STARTUP, SEARCH_TRIALS
from flute.errors import BudgetExceeded, MisuseError
from flute.local.run import StudyStopped
from flute.sdk.estimators import Estimator, FederatedLogisticRegression, Model
from flute.sdk.extras import frame, loaded
from flute.sdk.pages import heading, page, table, words
from flute.sdk.study import Study
from flute.sdk.terms import Budget, named
from flute.study.protection import budget_of, epsilon_at

Score = Literal["auc", "log-loss", "brier"]
_SCORES: Final = {"auc": ("auc", True), "log-loss": ("log_loss", False), "brier": ("brier", False)}
"""Where a score stands in the result, and whether more of it is better."""
_ROOM: Final = 1 + 1e-9
"""Float error of a budget that is spent to its end."""


@dataclass(eq=False, repr=False)
class CrossValidate(Estimator):
    """How well a model does on patients that it was not fitted on. model: an estimator; it is not asked for itself.

    Learned: auc_, log_loss_, brier_."""

    algorithm: ClassVar[str] = "cross-validate"
    model: Estimator
    folds: int | None = None
    bins: int | None = None
    seed: int | None = None

    def elements(self) -> dict[str, Any]:
        if not isinstance(self.model, Estimator):
            raise MisuseError(
                "model: give an estimator, for example flute.FederatedLogisticRegression('ill', ['age'])."
            )
        return {**super().elements(), "model": {"algorithm": self.model.asks, **self.model.elements()}}

    def take(self, results: Mapping[str, Any]) -> None:
        super().take(results)
        if not self.per_hub:
            value = self.fitted.value
            self.auc_, self.log_loss_, self.brier_ = (_found(value, score)[0] for score in _SCORES)


def _found(value: Mapping[str, Any], score: str) -> tuple[float, float]:
    """A score and the deviation of the noise in it; NaN where there is none."""
    one = value.get(_SCORES[score][0])
    return (math.nan, math.nan) if not one else (float(one["value"]), float(one["noise_se"]))


@dataclass(frozen=True, slots=True)
class Trial:
    """One point that was asked about. rho: what it cost a patient at a hub beyond what was known before."""

    params: Mapping[str, Any]
    score: float
    noise_se: float
    rho: float
    run: str


@dataclass(eq=False, repr=False)
class _Search:
    """epsilon: of each trial; None: the study's `each`. keep: epsilon that is left alone, for the model that wins.

    Learned: best_params_, best_score_, best_estimator_ (to be asked for: `.fit(study)`), trials_, stopped_ (why it
    ended early, empty if it did not), epsilon_spent_. The best of several noised or chance scores is a little too
    good: report the winner's score from patients or folds of its own (another `seed`)."""

    estimator: Estimator
    space: Mapping[str, Any]
    score: Score = "auc"
    folds: int = 5
    epsilon: float | None = None
    keep: float = 0.0
    seed: int = 0
    bins: int | None = None

    def fit(self, study: Study, *, timeout: float | None = None, progress: bool | None = False) -> Self:
        """Ask about point after point, until there is none left, or no budget for one more.

        Raises: MisuseError: the space or the score. BudgetExceeded, StudyStopped: already the first trial."""
        if self.score not in _SCORES:
            raise MisuseError(f"score is {self.score!r}; write one of {', '.join(_SCORES)}.")
        self.trials_: list[Trial] = []
        self.stopped_ = ""
        self._delta = study.budget.delta
        for params in self._points():
            try:
                self._require_kept(study)
                self.trials_.append(self._tried(study, params, timeout, progress))
            except (BudgetExceeded, StudyStopped) as error:
                if not self.trials_:
                    raise
                self.stopped_ = self._said(error)
                break
        return self

    def _points(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _tried(self, study: Study, params: Mapping[str, Any], timeout: float | None, progress: bool | None) -> Trial:
        model = changed(self.estimator, params)
        asked = CrossValidate(model, self.folds, self.bins, self.seed, epsilon=self.epsilon)
        running = study.start(asked)
        known = running.answered
        running.results(timeout, progress)
        value, noise = _found(asked.fitted.value, self.score)
        agreement = running.agreement
        rho = 0.0 if known or agreement.mode == "exact" else budget_of(agreement.epsilon, agreement.delta)[0]
        return Trial(dict(params), value, noise, rho, running.id)

    def _require_kept(self, study: Study) -> None:
        """Raises: BudgetExceeded: one more trial would leave less than is to be kept."""
        protection = study.terms.protection
        each = self.epsilon if self.epsilon is not None else getattr(protection, "each", None)
        if not self.keep or each is None or not isinstance(protection, Budget):
            return
        wanted = sum(budget_of(epsilon, protection.delta)[0] for epsilon in (self.keep, each))
        budget = study.budget
        if budget.rho_spent + budget.rho_reserved + wanted > budget.rho * _ROOM:
            raise BudgetExceeded(f"One more trial of epsilon {each:g} would leave less than the {self.keep:g} kept.")

    def _said(self, error: Exception) -> str:
        text = str(getattr(error, "text", error)).rstrip(".")
        spent = "" if math.isinf(self.epsilon_spent_) else f" for epsilon {self.epsilon_spent_:.3g} together"
        best = f" Best so far: {self.best_params_}, {self.score} {self.best_score_:.4g}." if self._scored else ""
        return f"The search ended after {len(self.trials_)} trials{spent}. {text}.{best}"

    @property
    def _scored(self) -> list[Trial]:
        return [t for t in self.trials_ if not math.isnan(t.score)]

    @property
    def best_(self) -> Trial:
        """Raises: MisuseError: not fitted, or no trial has a score."""
        if not self.__dict__.get("trials_") or not self._scored:
            raise MisuseError("No trial of this search has a score; ask with .fit(study).")
        best = max if _SCORES[self.score][1] else min
        return best(self._scored, key=lambda trial: trial.score)

    @property
    def best_params_(self) -> Mapping[str, Any]:
        return self.best_.params

    @property
    def best_score_(self) -> float:
        return self.best_.score

    @property
    def best_estimator_(self) -> Estimator:
        return changed(self.estimator, self.best_.params)

    @property
    def epsilon_spent_(self) -> float:
        """Of all trials together, at the study's delta; infinite for exact ones."""
        rho = math.fsum(t.rho for t in self.trials_)
        return epsilon_at(rho, self._delta) if rho else math.inf

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"trial": k, **t.params, self.score: t.score, "noise_se": t.noise_se,
             "epsilon": epsilon_at(t.rho, self._delta) if t.rho else 0.0, "run": t.run}
            for k, t in enumerate(self.trials_, start=1)
        ]  # fmt: skip

    def to_frame(self) -> Any:
        """Trials in order. epsilon: what each cost; 0 for one that was known before, and for exact ones (no
        bound)."""
        return frame(self._rows(), "trial")

    def _repr_html_(self) -> str:
        if not self.__dict__.get("trials_"):
            return page(heading(f"{type(self).__name__}, not asked yet"))
        rows = self._rows()
        shown = table(list(rows[0]), [list(row.values()) for row in rows])
        return page(heading(type(self).__name__), shown, words(self.stopped_) if self.stopped_ else "")


def changed(estimator: Estimator, params: Mapping[str, Any]) -> Estimator:
    """A new one with these settings; where it holds a list, a single value stands for a list of it."""
    held = estimator.get_params(deep=False)
    unknown = [name for name in params if name not in held]
    if unknown:
        raise MisuseError(f"{type(estimator).__name__} has no parameter {unknown[0]!r}; it has {', '.join(held)}.")
    new = {
        name: [value] if isinstance(held[name], list | tuple) and not isinstance(value, list | tuple) else value
        for name, value in params.items()
    }
    return type(estimator)(**{**held, **new})


def points(space: Mapping[str, Any], most: int) -> Iterator[dict[str, Any]]:
    """Every combination of the listed values, in order. Raises: MisuseError: none, or more than `most`."""
    lists = {name: named(values, name) for name, values in space.items()}
    size = math.prod(len(values) for values in lists.values())
    if not lists or not 1 <= size <= most:
        raise MisuseError(f"This grid has {size if lists else 0} points; it may have 1 to {most}.")
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


class GridSearch(_Search):
    """Every combination of the listed values, in order: `GridSearch(model, {"strengths": [1, 0.1, 0.01]})`."""

    def _points(self) -> Iterator[dict[str, Any]]:
        return points(self.space, SEARCH_MAX_TRIALS)


@dataclass(eq=False, repr=False)
class BayesSearch(_Search):
    """Points where earlier scores promise most (optuna's tree-structured Parzen estimator).

    space: name to (low, high), to (low, high, "log"), or to a list of choices; whole numbers where both ends are."""

    trials: int = SEARCH_TRIALS

    def _points(self) -> Iterator[dict[str, Any]]:
        optuna = loaded("optuna")
        space = {name: _distribution(optuna, name, said) for name, said in self.space.items()}
        if not space or not 1 <= self.trials <= SEARCH_MAX_TRIALS:
            raise MisuseError(f"Say what to search, and 1 to {SEARCH_MAX_TRIALS} trials.")
        start = min(SEARCH_STARTUP, max(self.trials // 2, 1))
        sampler = optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=start)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seen = optuna.create_study(sampler=sampler, direction="maximize" if _SCORES[self.score][1] else "minimize")
        for _ in range(self.trials):
            asked = seen.ask(space)
            yield dict(asked.params)
            score = self.trials_[-1].score
            if math.isnan(score):
                seen.tell(asked, state=optuna.trial.TrialState.FAIL)
            else:
                seen.tell(asked, score)


def _distribution(optuna: Any, name: str, said: Any) -> Any:
    """Raises: MisuseError: none of the three forms."""
    if isinstance(said, list):
        return optuna.distributions.CategoricalDistribution(said)
    ends = said[:2] if isinstance(said, tuple) and said[2:] in ((), ("log",)) else ()
    numbers = len(ends) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    if not numbers or not ends[0] < ends[1] or (said[2:] and ends[0] <= 0):
        raise MisuseError(f"{name}: write (low, high), (low, high, 'log') with low above 0, or a list of choices.")
    whole = all(isinstance(end, int) for end in ends)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(*ends, log=bool(said[2:]))


# --- predictors ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selected:
    """predictors: those that are kept, in their order. rows: what was found of each."""

    predictors: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> Any:
        return frame(list(self.rows), "predictor")


def select_by_lasso(
    study: Study, outcome: str, predictors: Sequence[str], strengths: Sequence[float], *,
    family: Literal["binomial", "gaussian"] = "binomial", epsilon: float | None = None, **options: Any,
) -> Selected:  # fmt: skip
    """Predictors of which a lasso keeps a column: in an exact study at the strength with the least criterion, in a
    private one, which takes one strength, after the noise, at the price of that fit.

    A fit on the kept ones alone is a question of its own, charged as any; its intervals do not count the choosing."""
    listed = named(predictors, "predictors")
    model = Model(
        "penalised-regression", outcome=outcome, predictors=listed, strengths=list(strengths), l1_ratio=1.0,
        family=family, epsilon=epsilon,
    )  # fmt: skip
    value = study.run(model, **options).value
    columns = zip(value["terms"], value["coefficients"], strict=True)
    most = dict.fromkeys(listed, 0.0)
    for term, b in columns:
        if term["variable"] and b is not None:
            most[term["variable"]] = max(most[term["variable"]], abs(b))
    rows = tuple({"predictor": name, "largest coefficient": most[name], "kept": most[name] > 0} for name in listed)
    return Selected(tuple(name for name in listed if most[name] > 0), rows)


def select_one_by_one(
    study: Study, outcome: str, predictors: Sequence[str], *, alpha: float = 0.05, **options: Any
) -> Selected:
    """Predictors that tell of a 0/1 outcome by themselves: a logistic regression of each, all charged; Wald tests are
    held together at `alpha` by Holm's method. Exact studies only: a noised fit has no test.

    Raises: MisuseError: a private study."""
    if isinstance(study.terms.protection, Budget):
        raise MisuseError("Tests one by one need an exact study; in a private one choose by select_by_lasso.")
    listed = named(predictors, "predictors")
    models = [FederatedLogisticRegression(outcome, [name], name=f"alone-{k}") for k, name in enumerate(listed)]
    study.run(models, **options)
    p = [_smallest_p(model.fitted.value["p"]) for model in models]
    kept = _holm(p, alpha)
    rows = tuple({"predictor": n, "p": q, "kept": k in kept} for k, (n, q) in enumerate(zip(listed, p, strict=True)))
    return Selected(tuple(name for k, name in enumerate(listed) if k in kept), rows)


def _smallest_p(columns: Sequence[float | None] | None) -> float:
    """Of a predictor's columns together, by Bonferroni; 1 where the fit has no test."""
    found = [p for p in (columns or [])[1:] if p is not None]
    return min(1.0, len(found) * min(found)) if found else 1.0


def _holm(p: Sequence[float], alpha: float) -> set[int]:
    """Source: Holm 1979."""
    kept: set[int] = set()
    for passed, k in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[k] > alpha / (len(p) - passed):
            break
        kept.add(k)
    return kept
