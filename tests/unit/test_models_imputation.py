"""`imputed-regression`: pooled fits where nothing is missing; Rubin's rules; values a hub makes anew each time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
import statsmodels.api as sm
from numpy.random import default_rng
from scipy.special import expit
from scipy.stats import chi2, kstest, norm

from flute.algorithms.contract import Ask, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults.models.around_models import IMPUTE_FIRST_LOGIT_STEPS
from flute.errors import StudyFileError
from flute.models.imputation.chained import ImputedRegression, part
from flute.models.imputation.draws import number_draw, one_step, pooled
from flute.models.imputation.levels import drawn_flags
from flute.models.imputation.rows import _filled, layout_for
from flute.questions.registry import algorithm_for
from support.sums import Opened, dataset, run, setting

AGE = StudyVariable(Variable("age", "number", 20, 110))
DOSE = StudyVariable(Variable("dose", "number", 0.001, 1000), log=True)
SEX = StudyVariable(Variable("sex", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid")
PAIN = StudyVariable(Variable("pain", "number", -40, 60))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, DOSE, SEX, GRADE, PAIN, ILL)
PREDICTORS = ("age", "dose", "sex", "grade")


def columns(n: int = 400, seed: int = 9) -> dict[str, Array]:
    chance = default_rng(seed)
    age = chance.normal(65, 8, n)
    found: dict[str, Array] = {
        "age": age,
        "dose": np.exp(0.02 * (age - 65) + 0.5 * chance.normal(size=n)),
        "sex": (chance.random(n) < expit((age - 65) / 10)).astype(float),
        "grade": chance.integers(0, 3, n).astype(float),
    }
    line = 0.05 * (age - 65) + 0.6 * np.log(found["dose"]) + 0.5 * found["sex"] + 0.3 * (found["grade"] == 2)
    found["pain"] = 10 + line + chance.normal(size=n)
    found["ill"] = (chance.random(n) < expit(line)).astype(float)
    return found


def lacking(found: dict[str, Array], part: float = 0.2) -> dict[str, Array]:
    chance = default_rng(3)
    return found | {k: np.where(chance.random(len(found[k])) < part, np.nan, found[k]) for k in ("dose", "sex")}


def ungraded(found: dict[str, Array], part: float = 0.25) -> dict[str, Array]:
    gone = default_rng(8).random(len(found["grade"])) < part
    return found | {"grade": np.where(gone, np.nan, found["grade"])}


def at_hubs(found: dict[str, Array], hubs: int) -> list[Dataset]:
    """Named patients; one hub is empty, one has a single row."""
    n = len(found["age"])
    owner = default_rng(1).integers(0, hubs - 2, n)
    owner[0] = hubs - 2
    names, variables = np.array([f"p{k}" for k in range(n)]), [v.variable for v in ALL]
    return [Dataset(names[owner == h], {k: v[owner == h] for k, v in found.items()}, variables) for h in range(hubs)]


def design(found: dict[str, Array]) -> Array:
    grades = [(found["grade"] == k).astype(float) for k in (0, 2)]
    return np.column_stack([np.ones(len(found["age"])), found["age"], np.log(found["dose"]), found["sex"], *grades])


@pytest.mark.parametrize("hubs", [3, 10])
@pytest.mark.parametrize(("outcome", "family"), [("pain", "gaussian"), ("ill", "binomial")])
def test_with_nothing_missing_it_is_the_pooled_fit(outcome: str, family: Any, hubs: int) -> None:
    found = columns()
    spec = ImputedRegression(outcome, PREDICTORS, family, ("dose", "sex"), 2, 1)
    shown = run(spec, setting(ALL), at_hubs(found, hubs))
    x, y = design(found), found[outcome]
    fit = sm.OLS(y, x).fit() if family == "gaussian" else sm.Logit(y, x).fit(disp=0, tol=1e-13)
    assert shown["raw_coefficients"] == pytest.approx(fit.params, rel=1e-6)
    assert shown["raw_standard_errors"] == pytest.approx(fit.bse, rel=1e-6)
    assert shown["missing_information"] == pytest.approx([0.0] * 6, abs=1e-6)
    assert (shown["n"], shown["imputed"], shown["ending"]) == (400, {"dose": 0, "sex": 0}, "converged")


@pytest.mark.requirement("F-IMSD-14")
@pytest.mark.parametrize(("outcome", "family"), [("pain", "gaussian"), ("ill", "binomial")])
def test_the_same_patients_give_the_same_result_at_three_and_at_ten_hubs(outcome: str, family: Any) -> None:
    found = lacking(columns())
    spec = ImputedRegression(outcome, PREDICTORS, family, ("dose", "sex"), 3, 2)
    few, many = (run(spec, setting(ALL), at_hubs(found, hubs)) for hubs in (3, 10))
    assert few["raw_coefficients"] == pytest.approx(many["raw_coefficients"], rel=1e-6)
    assert few["standard_errors"] == pytest.approx(many["standard_errors"], rel=1e-6)
    assert few["imputed"] == {k: int(np.isnan(found[k]).sum()) for k in ("dose", "sex")}
    assert 0.01 < few["missing_information"][2] < 0.8
    other = run(
        ImputedRegression(outcome, PREDICTORS, family, ("dose", "sex"), 3, 2, seed=1), setting(ALL), at_hubs(found, 3)
    )
    assert other["raw_coefficients"] != pytest.approx(few["raw_coefficients"], rel=1e-6)
    json.dumps(few, allow_nan=False)


def test_a_category_is_imputed_and_at_ten_hubs_as_at_three() -> None:
    found = ungraded(lacking(columns()))
    spec = ImputedRegression("pain", PREDICTORS, "gaussian", (), 3, 2)
    few, many = (run(spec, setting(ALL), at_hubs(found, hubs)) for hubs in (3, 10))
    assert few["raw_coefficients"] == pytest.approx(many["raw_coefficients"], rel=1e-6)
    assert few["standard_errors"] == pytest.approx(many["standard_errors"], rel=1e-6)
    assert few["imputed"] == {k: int(np.isnan(found[k]).sum()) for k in PREDICTORS}
    assert few["n"] == len(found["pain"])
    left_out = run(msgspec.structs.replace(spec, incomplete=("dose", "sex")), setting(ALL), at_hubs(found, 3))
    assert left_out["n"] == int((~np.isnan(found["grade"])).sum())


def test_the_steps_for_a_category_end_at_the_pooled_multinomial_fit() -> None:
    """Six Newton steps from nothing, on sums of three hubs."""
    found = columns()
    spec, agreed = ImputedRegression("pain", PREDICTORS, "gaussian", ("grade",), 2, 1), setting(ALL)
    algorithm, history = algorithm_for(spec), list[Opened]()
    layout, hubs = layout_for(spec, setting(ALL)), at_hubs(found, 3)
    for step in range(1 + IMPUTE_FIRST_LOGIT_STEPS):
        asked = algorithm.next(spec, agreed, history, {})
        assert isinstance(asked, Ask)
        rows = [algorithm.update(spec, agreed, step, asked.parameters, hub) for hub in hubs]
        history.append(Opened(asked.parameters, np.sum([r.sum(axis=0) for r in rows], axis=0), 0.0))
    stage = layout.stages[len(history) - 1]
    b, covariance = one_step(part(layout, stage, history[-1], 0), layout.coefficients(stage))
    unit = design(found)
    others = np.column_stack([np.ones(400), (unit[:, 1] - 65) / 45, unit[:, 2] / np.log(1000), unit[:, 3],
                              (found["pain"] - 10) / 50])  # fmt: skip
    fit = sm.MNLogit(np.array([1, 0, 2])[found["grade"].astype(int)], others).fit(disp=0, tol=1e-13)
    assert b == pytest.approx(fit.params.T.ravel(), rel=1e-4, abs=1e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(fit.bse.T.ravel(), rel=1e-4)


def test_levels_are_drawn_in_their_shares_and_wrong_shares_are_told_apart() -> None:
    """Chi-squared on 2 degrees, false alarm 1e-6."""
    shares = np.tile([0.5, 0.2, 0.3], (6_000, 1))
    drawn = drawn_flags(shares, default_rng(2).random(6_000))
    counts = np.array([6_000 - drawn.sum(), *drawn.sum(axis=0)])

    def apart(expected: Array) -> float:
        return float(((counts - 6_000 * expected) ** 2 / (6_000 * expected)).sum())

    limit = chi2(2).isf(1e-6)
    assert apart(shares[0]) < limit < apart(np.array([0.5, 0.25, 0.25]))
    assert set(np.unique(drawn.sum(axis=1))) == {0.0, 1.0}


def test_the_hub_counts_levels_and_who_lacks_one_as_cells() -> None:
    found = ungraded(columns(60))
    spec = ImputedRegression("pain", ("age", "grade"), "gaussian")
    data = at_hubs(found, 3)[0]
    cells = algorithm_for(spec).cells(spec, setting(ALL), data).tolist()
    grade = data.column("grade")
    assert {int(np.isnan(grade).sum()), *(int((grade == k).sum()) for k in range(3))} <= set(cells)


def test_an_outcome_can_be_imputed_too() -> None:
    found = columns()
    found["pain"] = np.where(default_rng(4).random(400) < 0.3, np.nan, found["pain"])
    shown = run(ImputedRegression("pain", PREDICTORS, "gaussian", ("pain",), 5, 1), setting(ALL), at_hubs(found, 3))
    there = ~np.isnan(found["pain"])
    fit = sm.OLS(found["pain"][there], design(found)[there]).fit()
    assert shown["n"] == 400
    assert np.abs((np.array(shown["raw_coefficients"]) - fit.params) / fit.bse).max() < 2.0  # they tell nothing more
    assert (np.array(shown["raw_standard_errors"]) > 0.8 * fit.bse).all()


def test_rubins_rules_are_those_of_the_book() -> None:
    """Worked by hand: estimates 1, 2, 3 of variance 1 each: W = 1, B = 1, T = 1 + 4/3."""
    found = pooled([np.array([1.0]), np.array([2.0]), np.array([3.0])], [np.array([1.0])] * 3, 1e12)
    assert (found.estimate[0], found.within[0], found.between[0]) == (2.0, 1.0, 1.0)
    assert found.error[0] ** 2 == pytest.approx(7 / 3)
    part = (4 / 3) / (7 / 3)
    assert found.degrees[0] == pytest.approx(2 / part**2, rel=1e-6)  # Rubin's, patients without number
    few = pooled([np.array([1.0]), np.array([2.0]), np.array([3.0])], [np.array([1.0])] * 3, 10.0)
    observed = 11 / 13 * 10 * (1 - part)
    assert few.degrees[0] == pytest.approx(1 / (part**2 / 2 + 1 / observed))
    assert found.missing[0] == pytest.approx((4 / 3 + 2 / (found.degrees[0] + 3)) / (4 / 3 + 1))


def test_draws_of_coefficients_follow_the_law_that_the_sums_leave_open() -> None:
    """Standardised draws: a normal law, and chi-squared of residuals; false alarm 1e-6 each."""
    chance, n = default_rng(5), 40
    x = np.column_stack([np.ones(n), chance.uniform(-1, 1, n)])
    v = 0.2 + 0.3 * x[:, 1] + 0.1 * chance.normal(size=n)
    squares = (x.T @ x)[np.triu_indices(2)]
    total = np.concatenate([[n, v @ v], x.T @ v, squares])
    draws = np.array([number_draw(Opened((), total, 0.0), 2, chance.random(3)) for _ in range(2_000)])
    b = np.linalg.solve(x.T @ x, x.T @ v)
    rss = float(np.sum((v - x @ b) ** 2))
    z = (draws[:, 1] - b[1]) / (draws[:, 2] * np.sqrt(np.linalg.inv(x.T @ x)[1, 1]))
    assert kstest(z, norm.cdf).pvalue > 1e-6
    assert kstest(rss / draws[:, 2] ** 2, chi2(n - 2).cdf).pvalue > 1e-6
    assert (
        kstest(z * 1.2, norm.cdf).pvalue < 1e-6 or kstest(rss / draws[:, 2] ** 2 * 1.2, chi2(n - 2).cdf).pvalue < 1e-6
    )
    assert kstest(np.full(2_000, rss / draws[:, 2].mean() ** 2), chi2(n - 2).cdf).pvalue < 1e-6  # no draw at all


def test_a_hub_makes_the_same_values_again_for_each_patient_and_leaves_known_ones() -> None:
    spec = ImputedRegression("pain", ("age", "dose", "sex"), "gaussian", ("dose", "sex"), 2, 1)
    layout, data = layout_for(spec, setting(ALL)), at_hubs(lacking(columns()), 3)[0]
    whole = default_rng(1).uniform(-0.5, 0.5, (len(data), layout.columns + 1))
    gone = [np.isnan(data.column(name)) for name in ("dose", "sex")]
    draws = np.array([0.1, 0.2, 0.4, 0.0])
    one, two = _filled(layout, draws, whole, gone, data)
    again = _filled(layout, draws, whole, gone, data)
    assert np.array_equal(one, again[0])
    at = layout.targets[0].columns[0]
    assert np.array_equal(one[~gone[0], at], whole[~gone[0], at])
    assert (one[gone[0], at] != two[gone[0], at]).all()
    half = data.where(np.arange(len(data)) % 2 == 0)
    fewer = _filled(layout, draws, whole[::2], [g[::2] for g in gone], half)
    assert np.array_equal(fewer[0], one[::2])
    assert set(np.unique(one[gone[1], layout.targets[1].columns[0]])) <= {0.0, 1.0}


@pytest.mark.parametrize("predictors", [("age", "sex"), ("age", "grade")])
def test_rows_stay_within_one_whatever_was_sent(predictors: tuple[str, ...]) -> None:
    spec = ImputedRegression("ill", predictors, "binomial", (), 2, 1)
    algorithm, data = algorithm_for(spec), at_hubs(ungraded(lacking(columns())), 3)[0]
    layout = layout_for(spec, setting(ALL))
    for step in range(len(layout.stages)):
        for sent in (1e300, -1e300, 5.0):
            rows = algorithm.update(spec, setting(ALL), step, (sent,) * layout.asked(step), data)
            assert np.isfinite(rows).all()
            assert np.abs(rows).max() <= 1.0


def test_a_separated_outcome_a_constant_and_nobody_are_said() -> None:
    found = columns()
    decided = found | {"ill": found["sex"], "sex": np.where(default_rng(1).random(400) < 0.1, np.nan, found["sex"])}
    spec = ImputedRegression("ill", ("age", "sex"), "binomial", ("sex",), 2, 1)
    assert run(spec, setting(ALL), at_hubs(decided, 3))["ending"] in ("separation-suspected", "not-converged")
    steady = run(spec, setting(ALL), at_hubs(found | {"age": np.full(400, 87.5)}, 3))
    assert steady["ending"] == "collinear"
    nobody = run(spec, setting(ALL), [dataset({v.variable.name: [] for v in ALL}, ALL)])
    assert nobody["ending"] == "no-data"
    for shown in (steady, nobody):
        json.dumps(shown, allow_nan=False)
        assert shown["standard_errors"] is None


def test_the_model_is_scored_as_any_other() -> None:
    from flute.algorithms.contract import Evaluate

    found = lacking(columns())
    spec = ImputedRegression("ill", PREDICTORS, "binomial", ("dose", "sex"), 2, 1)
    agreed = setting(ALL, {"model": (spec, "pooled")})
    hubs = at_hubs(found, 3)
    auc = run(Evaluate(("model",)), agreed, hubs, inputs={"model": run(spec, agreed, hubs)})["models"]["model"]["auc"]
    assert auc["value"] > 0.6


@pytest.mark.parametrize(
    ("spec", "changed", "sentence"),
    [
        (ImputedRegression("ill", ("age",)), {"mode": "private"}, "too many sums"),
        (ImputedRegression("ill", ("age",)), {"missing": "indicate"}, "missing: drop"),
        (ImputedRegression("pain", ("age",)), {}, "needs a binary variable"),
        (ImputedRegression("ill", ("age", "ill")), {}, "the outcome itself"),
        (ImputedRegression("ill", ("age",), incomplete=("pain",)), {}, "the outcome or a predictor"),
        (ImputedRegression("ill", ("age", "wide")), {}, r"levels of 'wide' take 177 coefficients .* 150 is the most"),
        (ImputedRegression("ill", tuple(f"v{k}" for k in range(17))), {}, "at most 16 variables"),
    ],
)
def test_what_cannot_be_imputed_is_refused(spec: ImputedRegression, changed: dict[str, Any], sentence: str) -> None:
    wide = StudyVariable(Variable("wide", "category", levels=tuple(f"l{k}" for k in range(60))))
    many = [StudyVariable(Variable(f"v{k}", "binary")) for k in range(17)]
    with pytest.raises(StudyFileError, match=sentence):
        algorithm_for(spec).check(spec, setting([*ALL, wide, *many], **changed))


def test_the_longest_run_is_the_only_one() -> None:
    spec = ImputedRegression("ill", ("age", "sex"), "binomial", (), 2, 1)
    algorithm, agreed = algorithm_for(spec), setting(ALL)
    history: list[Opened] = []
    for step, shape in enumerate(algorithm.outline(spec, agreed)):
        asked = algorithm.next(spec, agreed, history, {})
        assert isinstance(asked, Ask)
        rows = [algorithm.update(spec, agreed, step, asked.parameters, h) for h in at_hubs(lacking(columns()), 3)]
        assert all(r.shape[1] == shape.size for r in rows)
        history.append(Opened(asked.parameters, np.sum([r.sum(axis=0) for r in rows], axis=0), 0.0))
    assert not isinstance(algorithm.next(spec, agreed, history, {}), Ask)
