"""Noised statistics say truly how far noise moved them: errors, intervals and tests.

Patients are drawn with replacement from a pool whose figures are known, noise is added, and what the algorithm says
is compared with what happened. Every test draws from fixed seeds, so it either always passes or always fails; the
false-alarm rate stated is the one it would have with fresh seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from flute.algorithms.contract import Finished, Opened, Spec
from flute.data.variables import Array
from flute.questions.registry import algorithm_for
from flute.summaries.compare import Compare
from flute.summaries.correlation import Correlation
from flute.summaries.cross_table import CrossTable
from flute.summaries.survival.concordance import Concordance
from flute.summaries.survival.curves import Survival
from flute.summaries.table_one import TableOne
from support.summary_cases import VARIABLES, cohort
from support.sums import dataset, setting

RUNS = 300
ALPHA = 1e-5
"""False alarm of one comparison."""
Read = Callable[[dict[str, Any]], Any]


class Pool:
    """Rows of a pool of patients under one question; draws of it, opened with noise."""

    def __init__(self, spec: Spec, table: pd.DataFrame, sigma: float, seed: int = 7) -> None:
        self.spec, self.sigma, self.chance = spec, sigma, np.random.default_rng(seed)
        self.algorithm = algorithm_for(spec)
        data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
        self.private, self.exact = setting(VARIABLES, mode="private"), setting(VARIABLES)
        self.rows = self.algorithm.update(spec, self.private, 0, (), data)
        self.truth = self._result(self.algorithm.update(spec, self.exact, 0, (), data).sum(axis=0), 0.0, self.exact)

    def _result(self, total: Array, sigma: float, agreed: Any) -> dict[str, Any]:
        reached = self.algorithm.next(self.spec, agreed, (Opened((), total, sigma),), {})
        assert isinstance(reached, Finished)
        return reached.result

    def noised(self, total: Array, told: float = 1.0) -> dict[str, Any]:
        """`told`: what part of its deviation the noise is said to have."""
        moved = total + self.sigma * self.chance.standard_normal(len(total))
        return self._result(moved, told * self.sigma, self.private)

    def drawn(self, n: int) -> Array:
        weights = self.chance.multinomial(n, np.full(len(self.rows), 1 / len(self.rows)))
        return np.asarray(weights @ self.rows)


FIGURES: dict[str, tuple[Spec, float, Mapping[str, Read]]] = {
    "correlation": (
        Correlation(("age", "pressure", "sex")),
        6.0,
        {
            "n": lambda r: r["n"],
            "mean": lambda r: r["means"]["age"],
            "sd": lambda r: r["sds"]["pressure"],
            "r": lambda r: r["correlation"][0][1],
            "r with 0/1": lambda r: r["correlation"][0][2],
            "component": lambda r: r["components"]["covariance"]["eigenvalues"][0],
            "loading": lambda r: _beside(r["components"]["covariance"], "loadings", 0, 1),
            "share": lambda r: _beside(r["components"]["correlation"], "shares", 0),
            "covariance": lambda r: {k: v[0][1] for k, v in r["covariance"].items()} | {"value": _cov(r)},
        },
    ),
    "raters": (
        CrossTable("reread", "grade", raters=True),
        8.0,
        {
            **{kind: lambda r, kind=kind: r["kappa"][kind] for kind in ("unweighted", "linear", "quadratic")},
            "V": lambda r: r["cramers_v_interval"],
        },
    ),
    "risks": (
        CrossTable("ill", "sex"),
        8.0,
        {"difference": lambda r: r["risk_difference"], "log odds": lambda r: _logged(r["odds_ratio"])},
    ),
    "compare": (
        Compare("age", "sex", bins=32),
        6.0,
        {
            "n": lambda r: r["groups"]["0"]["n"],
            "mean": lambda r: r["groups"]["0"]["mean"],
            "sd": lambda r: r["groups"]["0"]["sd"],
            "difference": lambda r: r["tests"]["welch"]["difference"],
            "d": lambda r: r["tests"]["cohens_d"],
            "rank-biserial": lambda r: r["tests"]["mann_whitney"]["rank_biserial"],
            "median": lambda r: r["groups"]["0"]["quantiles"]["50"],
        },
    ),
    "survival": (
        Survival("time", "died", "sex", bins=24),
        2.0,
        {
            "n": lambda r: r["groups"]["0"]["n"],
            "S after a quarter": lambda r: _at(r["groups"]["0"]["curve"], 5),
            "S at half": lambda r: _at(r["groups"]["0"]["curve"], 11),
            "restricted mean": lambda r: r["groups"]["0"]["restricted_mean"],
            "log hazard ratio": lambda r: _logged(r["hazard_ratios"]["1"]),
        },
    ),
    "concordance": (
        Concordance("time", "died", "age", bins=16, score_bins=16),
        2.0,
        {"C": lambda r: r["concordance"], "n": lambda r: r["n"], "events": lambda r: r["events"]},
    ),
    "table one": (
        TableOne(("age", "grade"), "ill"),
        5.0,
        {
            "mean": lambda r: r["table"]["age"]["groups"]["1"]["mean"],
            "share": lambda r: _share(r["table"]["grade"]["groups"]["1"]["levels"]["mid"]),
            "quartile": lambda r: r["table"]["age"]["groups"]["1"]["quartiles"]["25"],
            "difference of levels": lambda r: _beside(r["table"]["grade"], "standardised_difference"),
        },
    ),
}


def _beside(figures: dict[str, Any], name: str, *places: int) -> dict[str, Any]:
    """A figure whose noise stands in a list of its own."""
    value, noise = figures[name], figures[f"{name}_noise_se"]
    for place in places:
        value, noise = value[place], noise[place]
    return {"value": value, "noise_se": noise}


def _cov(r: dict[str, Any]) -> float:
    return float(r["covariance"]["values"][0][1])


def _at(curve: dict[str, Any], k: int) -> dict[str, Any]:
    return {
        "value": curve["survival"][k],
        **{key: curve[key][k] for key in ("noise_se", "low", "high", "sampling_se")},
    }


def _logged(odds: dict[str, Any]) -> dict[str, Any]:
    ends = {key: float(np.log(odds[key])) for key in ("value", "low", "high")}
    return {**ends, "noise_se": odds["log_noise_se"], "sampling_se": odds["log_sampling_se"]}


def _share(level: dict[str, Any]) -> dict[str, Any]:
    return {
        "value": level["share"],
        "low": level["share_low"],
        "high": level["share_high"],
        "noise_se": level["share_noise_se"],
    }


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("question", FIGURES)
def test_the_noise_errors_told_are_those_that_the_noise_has(question: str) -> None:
    """Within 15 %. False alarm 1e-4 a figure (a deviation from 300 runs is 4.1 % off); noise told 30 % too small is
    seen in every one."""
    spec, sigma, figures = FIGURES[question]
    pool = Pool(spec, cohort(n=1500, missing=0), sigma)
    total = pool.rows.sum(axis=0)
    results = [pool.noised(total) for _ in range(RUNS)]
    small = [pool.noised(total, told=0.7) for _ in range(30)]
    for name, read in figures.items():
        measured = float(np.std([read(r)["value"] for r in results]))
        told = float(np.mean([read(r)["noise_se"] for r in results]))
        assert measured == pytest.approx(told, rel=0.15), name
        assert float(np.mean([read(r)["noise_se"] for r in small])) < 0.85 * measured, name


INTERVALS: dict[str, tuple[Spec, float, Mapping[str, Read]]] = {
    name: (FIGURES[name][0], sigma, {key: FIGURES[name][2][key] for key in keys})
    for name, sigma, keys in (
        ("correlation", 9.0, ("mean", "sd", "r", "r with 0/1", "component", "covariance")),
        ("raters", 14.0, ("unweighted", "linear", "quadratic", "V")),
        ("risks", 14.0, ("difference", "log odds")),
        ("compare", 10.0, ("mean", "sd", "difference", "d", "rank-biserial")),
        ("survival", 7.0, ("S after a quarter", "S at half", "log hazard ratio")),
        ("concordance", 4.0, ("C",)),
    )
}


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("question", INTERVALS)
def test_intervals_hold_the_truth_as_often_as_they_say(question: str) -> None:
    """95 % intervals, 300 cohorts of 900 patients: at least 91 % hold it (false alarm 1e-3 a figure where they cover
    95 %), while intervals of the same width without the noise's part hold it less often than 88 %."""
    spec, sigma, figures = INTERVALS[question]
    pool = Pool(spec, cohort(n=3000, missing=0), sigma)
    results = [pool.noised(pool.drawn(900)) for _ in range(RUNS)]
    for name, read in figures.items():
        truth = read(pool.truth)["value"]
        found = [read(r) for r in results]
        held = np.mean([f["low"] <= truth <= f["high"] for f in found])
        without = np.mean([abs(f["value"] - truth) <= 1.96 * f["sampling_se"] for f in found])
        assert held >= 0.91, name
        assert without < 0.88, name


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize(("question", "sigma"), [("compare", 10.0), ("table one", 12.0)])
def test_intervals_of_quantiles_and_shares_hold_the_truth_too(question: str, sigma: float) -> None:
    """As above; the control are intervals that are not told of the noise."""
    spec, _, figures = FIGURES[question]
    pool = Pool(spec, cohort(n=3000, missing=0), sigma)
    results = [pool.noised(pool.drawn(900)) for _ in range(RUNS)]
    untold = [pool.noised(pool.drawn(900), told=0.02) for _ in range(100)]
    for name in {"median", "quartile", "share"} & set(figures):
        read = figures[name]
        truth = read(pool.truth)["value"]
        held, without = (
            np.mean([read(r)["low"] <= truth <= read(r)["high"] for r in found]) for found in (results, untold)
        )
        assert held >= 0.91, name
        assert without < 0.88, name


def _crossed(columns: Mapping[str, Array], by: Mapping[str, Array]) -> pd.DataFrame:
    """Every row of one with every row of the other: exactly independent."""
    table = pd.DataFrame(columns).merge(pd.DataFrame(by), how="cross")
    for v in VARIABLES:
        if v.variable.name not in table:
            table[v.variable.name] = max(v.variable.low, 0.0)
    return table


def _null(question: str) -> tuple[Spec, pd.DataFrame, float, Mapping[str, Read]]:
    some = cohort(n=250, missing=0)
    sexes, grades = {"sex": np.array([0.0, 1.0, 1.0])}, {"grade": np.array([0.0, 1.0, 1.0, 2.0])}
    if question == "correlation":
        table = _crossed({"age": some["age"]}, {"pressure": some["pressure"][:100]})
        return Correlation(("age", "pressure")), table, 6.0, {"r": lambda r: r["correlation"][0][1]["p"]}
    if question == "table":
        table = _crossed({"ill": some["ill"]}, grades)
        return CrossTable("ill", "grade"), table, 8.0, {"independence": lambda r: r["independence"]["p"]}
    if question == "few":
        table = _crossed({"ill": some["ill"]}, sexes)
        return CrossTable("ill", "sex"), table, 4.0, {"Fisher": lambda r: r["fisher_p"]}
    if question == "two groups":
        names = ("welch", "student", "mann_whitney")
        read = {name: lambda r, name=name: r["tests"][name]["p"] for name in names}
        return Compare("age", "sex", bins=32), _crossed({"age": some["age"]}, sexes), 6.0, read
    if question == "three groups":
        names = ("analysis_of_variance", "kruskal_wallis")
        read = {name: lambda r, name=name: r["tests"][name]["p"] for name in names}
        return Compare("age", "grade", bins=32), _crossed({"age": some["age"]}, grades), 6.0, read
    table = _crossed({"time": some["time"], "died": some["died"]}, grades)
    return Survival("time", "died", "grade", bins=24), table, 5.0, {"log-rank": lambda r: r["log_rank"]["p"]}


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("question", ["correlation", "table", "few", "two groups", "three groups", "survival"])
def test_tests_reject_a_true_hypothesis_no_more_often_than_they_say(question: str) -> None:
    """Level 5 %, 300 cohorts of 600 patients (of "few" 60), nothing to be found: no more rejections than chance gives
    (false alarm 1e-5), while the same tests that are not told of the noise reject far more often."""
    spec, table, sigma, figures = _null(question)
    pool = Pool(spec, table, sigma)
    n = 60 if question == "few" else 600
    results = [pool.noised(pool.drawn(n)) for _ in range(RUNS)]
    untold = [pool.noised(pool.drawn(n), told=0.02) for _ in range(RUNS)]
    most = binom.isf(ALPHA, RUNS, 0.05)
    for name, read in figures.items():
        assert sum(read(r) < 0.05 for r in results) <= most, name
        assert sum(read(r) < 0.05 for r in untold) > 1.3 * most, name


def test_a_true_difference_is_found_through_the_noise() -> None:
    """A test that never rejects would pass the one above."""
    table = cohort(n=3000, missing=0)
    table["age"] = (table["age"] + 6 * table["sex"]).clip(20, 100)
    pool = Pool(Compare("age", "sex", bins=32), table, 6.0)
    results = [pool.noised(pool.drawn(600))["tests"] for _ in range(60)]
    for name in ("welch", "mann_whitney", "kruskal_wallis", "analysis_of_variance"):
        assert np.mean([r[name]["p"] < 0.05 for r in results]) > 0.8, name
