"""Federated generalised linear models equal statsmodels on the pooled table, or say by name why there is none.

Nothing of `flute.algorithms.design` is used for the pooled fit. Rows are rounded to 40 fraction bits before they are
summed, as secure aggregation rounds them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from flute.algorithms.contract import Setting, Spec, StudyVariable
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, StudyFileError
from flute.models.regression.glm import GeneralisedLinearModel
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

Family = Literal["gaussian", "binomial", "poisson", "gamma"]
FAMILIES: tuple[Family, ...] = ("gaussian", "binomial", "poisson", "gamma")
PREDICTORS = (
    StudyVariable(Variable("age", "number", 20, 100), scale="pooled"),
    StudyVariable(Variable("psa", "number", 0.1, 100), log=True, scale="reference", centre=1.5, spread=1.0),
    StudyVariable(Variable("sex", "binary")),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid"),
)
OUTCOMES = {
    "gaussian": StudyVariable(Variable("y", "number", -40, 60)),
    "binomial": StudyVariable(Variable("y", "binary")),
    "poisson": StudyVariable(Variable("y", "number", 0, 60)),
    "gamma": StudyVariable(Variable("y", "number", 0.01, 400)),
}
TIME = StudyVariable(Variable("time", "number", 0.1, 5))
NAMES = tuple(v.variable.name for v in PREDICTORS)
COLUMNS = ["intercept", "age", "ln psa", "sex", "grade=low", "grade=high"]


def variables(family: Family) -> tuple[StudyVariable, ...]:
    return (*PREDICTORS, OUTCOMES[family], TIME)


def table(seed: int, family: Family, n: int) -> pd.DataFrame:
    rng = default_rng(seed)
    found = pd.DataFrame(
        {
            "age": np.round(rng.normal(62, 9, n)).clip(20, 100),
            "psa": rng.lognormal(1.5, 0.8, n).clip(0.1, 100),
            "sex": (rng.random(n) < 0.4).astype(float),
            "grade": rng.integers(0, 3, n).astype(float),
            "time": rng.uniform(0.2, 4, n),
        }
    )
    eta = 0.3 + 0.4 * (found["age"] - 62) / 9 - 0.3 * (np.log(found["psa"]) - 1.5) + 0.5 * found["sex"]
    eta += np.array([-0.3, 0.0, 0.4])[found["grade"].astype(int)]
    if family == "gaussian":
        found["y"] = 4 * eta + rng.normal(0, 3, n)
    elif family == "binomial":
        found["y"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    elif family == "poisson":
        found["y"] = rng.poisson(np.exp(eta) * found["time"]).astype(float)
    else:
        found["y"] = (np.exp(eta) * rng.gamma(2.5, 1 / 2.5, n)).clip(0.01, 400)
    return found


def columns(found: pd.DataFrame) -> pd.DataFrame:
    age = (found["age"] - found["age"].mean()) / found["age"].std()
    x = {"intercept": 1.0, "age": age, "ln psa": np.log(found["psa"]) - 1.5, "sex": found["sex"]}
    x |= {"grade=low": (found["grade"] == 0).astype(float), "grade=high": (found["grade"] == 2).astype(float)}
    return pd.DataFrame(x, index=found.index)


def pooled(found: pd.DataFrame, family: Family, exposure: bool) -> Any:
    kinds: dict[str, Any] = {
        "gaussian": sm.families.Gaussian(), "binomial": sm.families.Binomial(),
        "poisson": sm.families.Poisson(), "gamma": sm.families.Gamma(sm.families.links.Log()),
    }  # fmt: skip
    more = {"exposure": found["time"]} if exposure else {}
    model = sm.GLM(found["y"], columns(found), family=kinds[family], **more)
    return model.fit(tol=1e-13, maxiter=200, use_t=family == "gaussian")


def federated(found: pd.DataFrame, owner: Array, family: Family, spec: Spec, **changed: Any) -> dict[str, Any]:
    hubs = spread({c: found[c].to_numpy(float) for c in found}, owner, variables(family))
    names = tuple(f"h{i}" for i in range(len(hubs)))
    return run(spec, setting(variables(family), hubs=names, **changed), hubs)


def assert_equal(ours: dict[str, Any], theirs: Any, family: Family) -> None:
    close = {"rel": 1e-6, "abs": 1e-9}
    assert ours["ending"] == "converged", ours["ending_text"]
    assert ours["columns"] == COLUMNS
    assert ours["n"] == theirs.nobs
    assert ours["coefficients"] == pytest.approx(theirs.params.to_numpy(), **close)
    assert ours["standard_errors"] == pytest.approx(theirs.bse.to_numpy(), **close)
    assert ours["p"] == pytest.approx(theirs.pvalues.to_numpy(), rel=1e-5, abs=1e-12)
    for ourselves, they in (
        ("deviance", theirs.deviance), ("null_deviance", theirs.null_deviance), ("dispersion", theirs.scale),
        ("log_likelihood", theirs.llf), ("aic", theirs.aic), ("df_residual", theirs.df_resid),
    ):  # fmt: skip
        assert ours[ourselves] == pytest.approx(they, **close), ourselves
    if family == "binomial":
        return
    assert ours["test_statistics"] == pytest.approx(theirs.tvalues.to_numpy(), rel=1e-5)
    interval = theirs.conf_int().to_numpy()
    assert ours["low"] == pytest.approx(interval[:, 0], rel=1e-5, abs=1e-8)
    assert ours["high"] == pytest.approx(interval[:, 1], rel=1e-5, abs=1e-8)
    assert ours["pearson"] == pytest.approx(theirs.pearson_chi2, **close)
    if family != "gaussian":
        assert ours["ratios"] == pytest.approx(np.exp(theirs.params.to_numpy()), **close)


def owners(seed: int, n: int, hubs: int) -> Array:
    """Uneven hubs; the second is empty and the third has one row."""
    owner = default_rng(seed).choice(hubs, n, p=default_rng(seed).dirichlet(np.full(hubs, 0.7)))
    owner[(owner == 1) | (owner == 2)] = 0
    owner[:2] = [2, hubs - 1]
    return np.asarray(owner, dtype=np.int64)


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.parametrize("hubs", [3, 10])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_fits_equal_statsmodels_on_the_pooled_table(family: Family, seed: int, hubs: int) -> None:
    found = table(seed, family, 150 + 100 * seed)
    ours = federated(found, owners(seed, len(found), hubs), family, GeneralisedLinearModel("y", NAMES, family))
    assert_equal(ours, pooled(found, family, False), family)


@pytest.mark.parametrize("hubs", [3, 10])
def test_counts_with_an_exposure_equal_statsmodels(hubs: int) -> None:
    found = table(4, "poisson", 400)
    spec = GeneralisedLinearModel("y", NAMES, "poisson", "time")
    assert_equal(federated(found, owners(4, 400, hubs), "poisson", spec), pooled(found, "poisson", True), "poisson")


def test_a_binomial_fit_can_be_told_apart_from_another() -> None:
    """The comparison itself can fail."""
    found = table(5, "binomial", 300)
    ours = federated(found, owners(5, 300, 3), "binomial", GeneralisedLinearModel("y", NAMES, "binomial"))
    with pytest.raises(AssertionError):
        assert_equal(ours, pooled(found.iloc[1:], "binomial", False), "binomial")


def test_a_patient_without_a_value_is_left_out_and_a_missing_exposure_counts_as_one() -> None:
    found = table(6, "poisson", 300)
    holes = found.mask(default_rng(6).random(found.shape) < 0.03)
    spec = GeneralisedLinearModel("y", NAMES, "poisson", "time")
    ours = federated(holes, owners(6, 300, 3), "poisson", spec)
    assert_equal(ours, pooled(holes.dropna(), "poisson", True), "poisson")


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_the_scale_of_the_study_changes_no_prediction(family: Family) -> None:
    found = table(7, family, 250)
    ours = federated(found, owners(7, 250, 3), family, GeneralisedLinearModel("y", NAMES, family))
    x = np.column_stack([np.ones(250), found["age"], np.log(found["psa"]), columns(found).iloc[:, 3:]])
    theirs = pooled(found, family, False)
    eta = columns(found).to_numpy() @ theirs.params.to_numpy()
    assert x @ np.array(ours["raw_coefficients"]) == pytest.approx(eta, abs=1e-6)


# --- where there is no fit -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_columns_that_never_vary_or_repeat_are_named(family: Family) -> None:
    found = table(8, family, 120)
    found["age"] = 50.0
    ours = federated(found, owners(8, 120, 3), family, GeneralisedLinearModel("y", NAMES, family))
    assert (ours["ending"], ours["ending_column"]) == ("collinear", "age")
    assert ours["standard_errors"] is None


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_a_level_that_nobody_has_is_left_out_and_the_rest_is_the_smaller_fit(family: Family) -> None:
    found = table(9, family, 200)
    found.loc[found["grade"] == 2, "grade"] = 1.0
    ours = federated(found, owners(9, 200, 3), family, GeneralisedLinearModel("y", NAMES, family))
    assert ours["not_estimated"] == ["grade=high"]
    kinds: dict[str, Any] = {"gaussian": sm.families.Gaussian(), "poisson": sm.families.Poisson()}
    kind = kinds.get(family) or sm.families.Gamma(sm.families.links.Log())
    theirs = sm.GLM(found["y"], columns(found).drop(columns="grade=high"), family=kind).fit(tol=1e-13, maxiter=200)
    assert ours["coefficients"][:5] == pytest.approx(theirs.params.to_numpy(), rel=1e-6, abs=1e-9)
    assert ours["deviance"] == pytest.approx(theirs.deviance, rel=1e-6)
    assert ours["standard_errors"][5] is None


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_no_patient_at_all_is_said(family: Family) -> None:
    found = table(1, family, 0)
    hubs = [dataset({c: found[c].to_numpy(float) for c in found}, variables(family)) for _ in range(3)]
    ours = run(GeneralisedLinearModel("y", NAMES, family), setting(variables(family)), hubs)
    assert ours["ending"] == "no-data"
    assert ours["n"] == 0


def test_counts_that_are_0_throughout_or_in_a_level_are_named() -> None:
    found = table(10, "poisson", 200)
    found["y"] = 0.0
    ours = federated(found, owners(10, 200, 3), "poisson", GeneralisedLinearModel("y", NAMES, "poisson"))
    assert (ours["ending"], ours["ending_column"]) == ("separation-suspected", "intercept")
    found = table(10, "poisson", 200)
    found.loc[found["grade"] == 2, "y"] = 0.0
    ours = federated(found, owners(10, 200, 3), "poisson", GeneralisedLinearModel("y", NAMES, "poisson"))
    assert (ours["ending"], ours["ending_column"]) == ("separation-suspected", "grade=high")


def test_a_constant_outcome_has_no_errors_and_no_effects() -> None:
    for family in ("gaussian", "gamma"):
        found = table(11, family, 100)
        found["y"] = 8.0
        ours = federated(found, owners(11, 100, 3), family, GeneralisedLinearModel("y", NAMES, family))
        assert ours["ending"] == "converged"
        assert ours["deviance"] == pytest.approx(0.0, abs=1e-6)
        assert ours["coefficients"][1:] == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_fit_whose_means_leave_the_declared_range_says_so() -> None:
    """The outcome of a few patients is a thousandfold of the others': a ratio beyond the public cap."""
    found = table(12, "gamma", 400)
    found["y"] = np.where(np.arange(400) < 1, 400.0, 0.02)
    ours = federated(found, owners(12, 400, 3), "gamma", GeneralisedLinearModel("y", ("sex",), "gamma"))
    assert ours["ending"] == "out-of-range"
    assert ours["standard_errors"] is None


def test_fewer_patients_than_columns_give_no_fit() -> None:
    found = table(13, "gaussian", 5)
    found["grade"] = [0.0, 1, 2, 0, 1]
    ours = federated(found, np.arange(5) % 3, "gaussian", GeneralisedLinearModel("y", NAMES))
    assert ours["ending"] in ("collinear", "not-converged")


@pytest.mark.parametrize(
    ("spec", "changed", "says"),
    [
        (GeneralisedLinearModel("sex", ("age",)), {}, "must be a number"),
        (GeneralisedLinearModel("y", ("y",)), {}, "the outcome itself"),
        (GeneralisedLinearModel("y", ("age",), "poisson"), {}, "not below 0"),
        (GeneralisedLinearModel("y", ("age",), "gamma"), {}, "above 0"),
        (GeneralisedLinearModel("psa", ("age",), "gamma"), {}, "log: true"),
        (GeneralisedLinearModel("y", ("age",), "gaussian", "time"), {}, "only counts"),
        (GeneralisedLinearModel("time", ("age",), "poisson", "sex"), {}, "range starts above 0"),
        (GeneralisedLinearModel("time", ("age",), "poisson", "time"), {}, "another variable"),
        (GeneralisedLinearModel("time", ("sex",), "poisson"), {"mode": "private"}, "no private fit"),
        (GeneralisedLinearModel("y", ("age",)), {"mode": "private"}, "scale: pooled"),
        (GeneralisedLinearModel("y", ("age",), "binomial"), {}, "binary"),
    ],
)
def test_questions_that_make_no_sense_are_refused_with_what_to_write(
    spec: GeneralisedLinearModel, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(StudyFileError, match=says):
        algorithm_for(spec).check(spec, setting(variables("gaussian"), **changed))


# --- bounds ------------------------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.sampled_from([20.0, 100.0, 0.01, 400.0, 0.0, 1.0, 2.0, 60.0, float("nan")]),
    st.floats(allow_nan=True, allow_infinity=True),
)
FINITE = st.one_of(st.sampled_from([0.0, 1e308, -1e308, 1.0, 30.0]), st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("missing", ["drop", "indicate"])
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(*[ANYTHING] * 6), min_size=1, max_size=6),
    asked=st.lists(FINITE, min_size=10, max_size=10),
)
def test_no_record_and_no_parameter_takes_a_number_beyond_1(
    family: Family, missing: str, rows: list[tuple[float, ...]], asked: list[float]
) -> None:
    data = np.array(rows)
    there = dataset({n: data[:, i] for i, n in enumerate((*NAMES, "y", "time"))}, variables(family))
    spec = GeneralisedLinearModel("y", NAMES, family, "time" if family == "poisson" else "")
    where = setting(variables(family), missing=missing)
    algorithm, size = algorithm_for(spec), 6 if missing == "drop" else 10
    for step, shape in enumerate(algorithm.outline(spec, where)[:2]):
        given_now = asked[:size] if step or family == "binomial" else ()
        update = algorithm.update(spec, where, step, given_now, there)
        assert update.shape == (len(rows), shape.size)
        assert np.isfinite(update).all()
        assert np.abs(update).max() <= shape.magnitude * (1 + 1e-12)
        assert np.linalg.norm(update, axis=1).max() <= shape.clip_norm * (1 + 1e-12)


def private_setting() -> tuple[Setting, tuple[StudyVariable, ...]]:
    used = (
        StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=62, spread=9),
        *PREDICTORS[1:],
        StudyVariable(Variable("y", "number", -40, 60), scale="reference", centre=1, spread=4),
        TIME,
    )
    return setting(used, mode="private"), used


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(*[ANYTHING] * 6), min_size=1, max_size=6))
def test_no_record_takes_a_private_row_beyond_its_norm(rows: list[tuple[float, ...]]) -> None:
    where, used = private_setting()
    data, spec = np.array(rows), GeneralisedLinearModel("y", NAMES)
    there = dataset({n: data[:, i] for i, n in enumerate((*NAMES, "y", "time"))}, used)
    shape = algorithm_for(spec).outline(spec, where)[0]
    update = algorithm_for(spec).update(spec, where, 0, (), there)
    assert np.isfinite(update).all()
    assert np.linalg.norm(update, axis=1).max() <= shape.clip_norm * (1 + 1e-12)


def test_the_private_norm_is_reached_so_no_noise_is_wasted() -> None:
    where, used = private_setting()
    spec = GeneralisedLinearModel("y", NAMES)
    row = {"age": 71.0, "psa": np.exp(2.5), "sex": 1.0, "grade": 0.0, "y": 60.0, "time": 1.0}
    there = dataset({k: [v] for k, v in row.items()}, used)
    update = algorithm_for(spec).update(spec, where, 0, (), there)
    assert np.linalg.norm(update) == pytest.approx(algorithm_for(spec).outline(spec, where)[0].clip_norm)


def test_a_wrong_number_of_parameters_is_refused() -> None:
    spec, there = GeneralisedLinearModel("y", NAMES, "poisson"), table(1, "poisson", 3)
    data = dataset({c: there[c].to_numpy(float) for c in there}, variables("poisson"))
    for step, given_now in ((0, (1.0,)), (1, ()), (1, (float("nan"),) * 6), (27, (0.0,) * 6)):
        with pytest.raises(MisuseError):
            algorithm_for(spec).update(spec, setting(variables("poisson")), step, given_now, data)


# --- private -----------------------------------------------------------------------------------------


def private(seed: int, n: int, rho: float, found: pd.DataFrame | None = None) -> tuple[dict[str, Any], pd.DataFrame]:
    where, used = private_setting()
    found = table(seed, "gaussian", n) if found is None else found
    hubs = spread({c: found[c].to_numpy(float) for c in found}, np.arange(n) % 3, used)
    privacy = Privacy(rho, default_rng(seed))
    return run(GeneralisedLinearModel("y", NAMES), where, hubs, privacy=privacy), found


def least_squares(found: pd.DataFrame) -> Any:
    x = columns(found)
    x["age"] = (found["age"] - 62) / 9
    return sm.OLS(found["y"].clip(-11, 13), x).fit()


def test_a_private_fit_without_noise_to_speak_of_is_least_squares() -> None:
    """Far patients count for less, which moves coefficients by chance alone, and by less than an error."""
    ours, found = private(1, 1500, 1e8)
    theirs = least_squares(found)
    off = (np.array(ours["coefficients"]) - theirs.params) / theirs.bse
    assert np.abs(off).max() < 1.0
    assert ours["sampling_standard_errors"] == pytest.approx(theirs.bse.to_numpy(), rel=0.25)
    assert max(ours["noise_standard_errors"]) < 1e-3
    assert ours["ending"] == "noised"
    assert ours["n"] == 1500


@pytest.mark.requirement("F-HUF-3")
def test_private_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 fits, epsilon 1 (rho .018), 1,500 patients: 95 % intervals for six coefficients hold between 90 and 99.5 %
    of the time. False alarm: with 1,200 intervals at 95 % below 90 % or above 99.5 % is beyond five deviations, even
    if those of one fit stand and fall together in pairs. Without the noise's part they would hold less often."""
    truth = 4 * np.array([0.3, 0.4, -0.3, 0.5, -0.3, 0.4])
    held, bare, off = [], [], []
    for seed in range(200):
        ours, _ = private(seed, 1500, 0.018)
        gap = np.abs(np.array(ours["coefficients"]) - truth)
        held.append(gap < 1.96 * np.array(ours["standard_errors"]))
        bare.append(gap < 1.96 * np.array(ours["sampling_standard_errors"]))
        off.append(ours["ending"])
    assert 0.90 < np.mean(held) < 0.995
    assert np.mean(bare) < 0.88


def test_noise_that_outweighs_the_patients_is_told() -> None:
    ours, _ = private(3, 60, 1e-3)
    assert ours["ending"] == "noise-dominated"


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_a_range_a_thousand_times_as_wide_as_the_values_costs_no_digits_that_count(family: Family) -> None:
    found = table(14, family, 400)
    wide = {"gaussian": (-4000.0, 4000.0), "poisson": (0.0, 5000.0), "gamma": (1e-4, 1e5)}[family]
    used = (*PREDICTORS, StudyVariable(Variable("y", "number", *wide)), TIME)
    hubs = spread({c: found[c].to_numpy(float) for c in found}, owners(14, 400, 3), used)
    ours = run(GeneralisedLinearModel("y", NAMES, family), setting(used), hubs)
    assert_equal(ours, pooled(found, family, False), family)
