"""`cross-validate` equals fits on the pooled patients of the other folds; in private mode every fit is charged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.random import default_rng
from scipy.special import expit
from sklearn.linear_model import LogisticRegression as Ridge
from sklearn.metrics import roc_auc_score

from flute.algorithms.contract import Evaluate, LogisticRegression, Opened, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, StudyFileError
from flute.models.regression.penalised import PenalisedRegression
from flute.models.trees.tree import DecisionTree
from flute.models.validation.crossval import CrossValidate
from flute.models.validation.folds import fold_of
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting

AGE = StudyVariable(Variable("age", "number", 40, 90))
DOSE = StudyVariable(Variable("dose", "number", -5, 5))
SEX = StudyVariable(Variable("sex", "binary"))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, DOSE, SEX, ILL)
PREDICTORS = ("age", "dose", "sex")
MODEL = LogisticRegression("ill", PREDICTORS)


def columns(n: int = 600, seed: int = 4, effect: float = 1.0) -> dict[str, Array]:
    chance = default_rng(seed)
    found: dict[str, Array] = {
        "age": chance.normal(65, 8, n).clip(40, 90),
        "dose": chance.normal(0, 1, n).clip(-5, 5),
        "sex": (chance.random(n) < 0.4).astype(float),
    }
    risk = expit(effect * (-5.5 + 0.08 * found["age"] + 0.7 * found["dose"] + 0.4 * found["sex"]))
    found["ill"] = (chance.random(n) < risk).astype(float)
    found["dose"][chance.random(n) < 0.03] = np.nan
    return found


def at_hubs(found: dict[str, Array], hubs: int) -> list[Dataset]:
    """Named patients: who is in which fold does not depend on where he is. One hub is empty, one has a single row."""
    n = len(found["age"])
    owner = default_rng(1).integers(0, hubs - 2, n) if hubs > 2 else np.zeros(n, dtype=int)
    owner[0] = hubs - 2
    variables = [v.variable for v in ALL]
    names = np.array([f"p{k}" for k in range(n)])
    return [Dataset(names[owner == h], {k: v[owner == h] for k, v in found.items()}, variables) for h in range(hubs)]


def table(found: dict[str, Array], folds: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """x, y and the fold of those who have all values."""
    there = ~np.isnan(found["dose"])
    fold = np.array([fold_of(seed, f"p{k}", folds) for k in range(len(there))])[there]
    x = np.column_stack([found[name] for name in PREDICTORS])[there]
    return sm.add_constant(x, has_constant="add"), found["ill"][there], fold


def held_out(x: Array, y: Array, fold: Array, fit: Any) -> Array:
    risk = np.zeros(len(y))
    for k in np.unique(fold):
        risk[fold == k] = expit(x[fold == k] @ fit(x[fold != k], y[fold != k]))
    return risk


def unpenalised(x: Array, y: Array) -> Array:
    return np.asarray(sm.Logit(y, x).fit(disp=0, tol=1e-13, maxiter=60).params)


def ridge(strength: float) -> Any:
    def fit(x: Array, y: Array) -> Array:
        made = Ridge(C=1 / (len(y) * strength), tol=1e-12, max_iter=10_000).fit(x[:, 1:], y)
        return np.concatenate([made.intercept_, made.coef_[0]])

    return fit


@pytest.mark.requirement("F-IMSD-14")
@pytest.mark.parametrize("hubs", [3, 10])
@pytest.mark.parametrize(
    ("model", "fit"),
    [(MODEL, unpenalised), (PenalisedRegression("ill", PREDICTORS, (0.5,)), ridge(0.5))],
    ids=["newton", "ridge"],
)
def test_scores_equal_those_of_pooled_fits_that_have_not_seen_the_fold(model: Any, fit: Any, hubs: int) -> None:
    found = columns()
    shown = run(CrossValidate(model, 5, seed=7), setting(ALL), at_hubs(found, hubs))
    x, y, fold = table(found, 5, seed=7)
    risk = held_out(x, y, fold, fit)
    assert shown["brier"]["value"] == pytest.approx(np.mean((y - risk) ** 2), rel=1e-6)
    loss = -np.mean(np.log(np.where(y == 1, risk, 1 - risk)))
    assert shown["log_loss"]["value"] == pytest.approx(loss, rel=1e-6)
    assert shown["auc"]["value"] == pytest.approx(roc_auc_score(y, risk), abs=3e-3)  # what binning costs
    assert (shown["n"]["value"], shown["events"]["value"]) == (len(y), y.sum())
    for k, one in enumerate(shown["folds"]):
        member = fold == k
        assert (one["ending"], one["n"]["value"]) == ("converged", member.sum())
        assert one["brier"]["value"] == pytest.approx(np.mean((y - risk)[member] ** 2), rel=1e-6)
    areas = [one["auc"]["value"] for one in shown["folds"]]
    assert shown["mean_auc"]["value"] == pytest.approx(np.mean(areas))
    seen = held_out(x, y, np.zeros(len(y)), lambda *_: fit(x, y))  # a fit that has seen everybody is another one
    assert shown["brier"]["value"] != pytest.approx(np.mean((y - seen) ** 2), rel=1e-4)


def test_a_model_of_noise_looks_good_on_its_own_patients_and_no_better_than_a_coin_on_others() -> None:
    found = columns(300, effect=0.0)
    noisy = DecisionTree("ill", PREDICTORS, max_depth=6, min_leaf=10)
    hubs, agreed = at_hubs(found, 3), setting(ALL, {"tree": (noisy, "pooled")})
    tree = run(noisy, agreed, hubs)
    own = run(Evaluate(("tree",)), agreed, hubs, inputs={"tree": tree})["models"]["tree"]["auc"]["value"]
    others = run(CrossValidate(noisy, 5), agreed, hubs)["auc"]
    assert own > 0.6
    assert others["low"] < 0.5
    assert others["value"] < 0.57


def test_another_seed_makes_other_folds_of_about_equal_size() -> None:
    folds = np.array([fold_of(3, f"p{k}", 5) for k in range(5_000)])
    sizes = np.bincount(folds, minlength=5)
    assert ((sizes - 1000) ** 2 / 1000).sum() < 39.4  # chi-squared on 4 degrees, false alarm 6e-8
    other = np.array([fold_of(4, f"p{k}", 5) for k in range(5_000)])
    assert 0.1 < np.mean(folds == other) < 0.3


def test_a_private_row_stands_in_all_fits_but_one_and_the_norm_counts_them() -> None:
    spec, agreed = CrossValidate(MODEL, 4), setting(ALL, mode="private")
    algorithm, data = algorithm_for(spec), at_hubs(columns(200), 3)[0]
    first, own = algorithm.outline(spec, agreed)[0], algorithm_for(MODEL).outline(MODEL, agreed)[0]
    assert first.clip_norm == pytest.approx(np.sqrt(3) * own.clip_norm)
    asked = algorithm.next(spec, agreed, (), {}).parameters  # type: ignore[union-attr]
    rows = algorithm.update(spec, agreed, 0, asked, data).reshape(len(data), 4, own.size)
    there = ~np.isnan(data.column("dose"))
    assert ((np.abs(rows).sum(axis=2) > 0).sum(axis=1)[there] == 3).all()
    lengths = np.linalg.norm(rows.reshape(len(data), -1), axis=1)
    assert own.clip_norm < lengths.max() <= first.clip_norm * (1 + 1e-12)  # one fit's norm alone would not have done
    last = algorithm.outline(spec, agreed)[-1]
    assert last.size == 2 * spec.bins + 3


def test_private_scores_come_near_the_exact_ones_with_budget_to_spare_and_say_their_noise() -> None:
    found = columns(3_000)
    spec, hubs = CrossValidate(MODEL, 3, 16), at_hubs(found, 3)
    exact = run(spec, setting(ALL), hubs)["auc"]["value"]
    shown = run(spec, setting(ALL, mode="private"), hubs, privacy=Privacy(0.5, default_rng(2)))
    assert shown["auc"]["noise_se"] > 0
    assert abs(shown["auc"]["value"] - exact) < 6 * shown["auc"]["noise_se"] + 0.01
    assert abs(shown["log_loss"]["value"] - 0.6) < 0.2
    assert shown["mean_auc"] is None
    json.dumps(shown, allow_nan=False)


def test_a_fold_whose_fit_comes_to_nothing_is_said_and_its_patients_are_not_scored() -> None:
    found = columns(80)
    found["ill"] = (found["age"] > 66).astype(float)  # decided by age: maximum likelihood has no finite answer
    shown = run(CrossValidate(LogisticRegression("ill", ("age",)), 2), setting(ALL), at_hubs(found, 3))
    assert {one["ending"] for one in shown["folds"]} <= {"separation-suspected", "not-converged"}
    json.dumps(shown, allow_nan=False)
    nobody = run(CrossValidate(MODEL, 2), setting(ALL), [dataset({v.variable.name: [] for v in ALL}, ALL)])
    assert nobody["auc"] is None
    assert nobody["log_loss"] is None


@pytest.mark.parametrize("asked", [(), (0.0,), (4.0, 4.0), (1.5, 4.0) + (0.0,) * 5, (1e300, -1.0), (-2.0, 0.0)])
def test_parameters_that_are_no_folds_are_refused(asked: tuple[float, ...]) -> None:
    spec, agreed = CrossValidate(MODEL, 2), setting(ALL)
    with pytest.raises(MisuseError, match="parameters of 2 fits"):
        algorithm_for(spec).update(spec, agreed, 0, asked, at_hubs(columns(20), 3)[0])


def test_what_the_model_refuses_is_refused() -> None:
    for wrong in (LogisticRegression("age", ("sex",)), LogisticRegression("ill", ("sex", "weight"))):
        spec = CrossValidate(wrong)
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(ALL))


def test_the_next_step_follows_from_stored_totals_alone() -> None:
    spec, agreed = CrossValidate(MODEL, 2, 8), setting(ALL)
    algorithm, hubs = algorithm_for(spec), at_hubs(columns(100), 3)
    history: list[Opened] = []
    for step in range(3):
        asked = algorithm.next(spec, agreed, history, {}).parameters  # type: ignore[union-attr]
        total = np.sum([algorithm.update(spec, agreed, step, asked, h).sum(axis=0) for h in hubs], axis=0)
        history.append(Opened(asked, total, 0.0))
    once, again = (algorithm.next(spec, agreed, seen, {}) for seen in (history[:2], tuple(history[:2])))
    assert once.parameters.tobytes() == again.parameters.tobytes()  # type: ignore[union-attr]


def test_cells_hold_every_fit_and_every_fold() -> None:
    spec = CrossValidate(MODEL, 2)
    agreed: Setting = setting(ALL)
    data = at_hubs(columns(60), 3)[0]
    cells = algorithm_for(spec).cells(spec, agreed, data)
    there = ~np.isnan(data.column("dose"))
    assert cells[-5:-1].sum() == there.sum()
    assert cells[-1] == 1
