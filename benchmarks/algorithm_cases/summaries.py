"""Statistics, tests and survival beside scipy, statsmodels and lifelines on the pooled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from rows import Row
from scipy import stats
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.stats.inter_rater import cohens_kappa

from algorithm_cases import Case, compared, relative
from flute.summaries.compare import Compare
from flute.summaries.correlation import Correlation
from flute.summaries.cross_table import CrossTable
from flute.summaries.survival.cox import Cox
from flute.summaries.survival.curves import Survival
from flute.summaries.table_one import TableOne
from support.summary_cases import LEVELS, asked, cohort, on_grid

BINS = 64
Found = Mapping[str, float]


def patients(quick: bool) -> pd.DataFrame:
    return cohort(n=400 if quick else 4_000)


def correlation(hubs: int, quick: bool) -> Found:
    table, names = patients(quick), ["age", "pressure", "marker", "sex"]
    shown = asked(Correlation(tuple(names)), table, hubs)
    rows = table[names].dropna()
    rows = rows.assign(marker=np.log(rows["marker"]))
    pairs = list(combinations(range(4), 2))
    tests = [stats.pearsonr(rows[names[i]], rows[names[j]]) for i, j in pairs]
    found = [shown["correlation"][i][j] for i, j in pairs]
    return {
        "covariance": relative(shown["covariance"]["values"], rows.cov()),
        "correlation": relative([f["value"] for f in found], [t.statistic for t in tests]),
        "p": relative([f["p"] for f in found], [t.pvalue for t in tests]),
        "components": relative(
            [e["value"] for e in shown["components"]["covariance"]["eigenvalues"]],
            np.linalg.eigvalsh(rows.cov())[::-1],
        ),
    }


def cross_table(hubs: int, quick: bool) -> Found:
    table = patients(quick)
    square, wide = asked(CrossTable("ill", "sex"), table, hubs), asked(CrossTable("grade", "ill"), table, hubs)
    raters = asked(CrossTable("reread", "grade", raters=True), table, hubs)["kappa"]
    two, three = pd.crosstab(table["sex"], table["ill"]), pd.crosstab(table["ill"], table["grade"])
    yates, plain = stats.chi2_contingency(two), stats.chi2_contingency(three)
    kappa = cohens_kappa(pd.crosstab(table["grade"], table["reread"]).to_numpy())
    return {
        "chi-squared": relative(wide["independence"]["statistic"], plain.statistic),
        "Yates": relative(square["independence"]["corrected"]["p"], yates.pvalue),
        "Fisher": relative(square["fisher_p"], stats.fisher_exact(two.to_numpy()).pvalue),
        "Cramer's V": relative(wide["cramers_v"], stats.contingency.association(three.to_numpy())),
        "kappa": relative([raters["unweighted"][k] for k in ("value", "se")], [kappa.kappa, kappa.std_kappa]),
    }


def compare(hubs: int, quick: bool) -> Found:
    table = patients(quick)
    two = asked(Compare("age", "sex", bins=BINS), table, hubs)["tests"]
    three = asked(Compare("age", "grade", bins=BINS), table, hubs)["tests"]
    a, b = (table["age"][table["sex"] == k].dropna().to_numpy() for k in (0, 1))
    groups = [table["age"][table["grade"] == k].dropna().to_numpy() for k in range(3)]
    ranked = [on_grid(g, 20, 100, BINS) for g in (a, b, *groups)]
    u, h = stats.mannwhitneyu(*ranked[:2], method="asymptotic"), stats.kruskal(*ranked[2:])
    return {
        "t": relative(two["student"]["p"], stats.ttest_ind(a, b).pvalue),
        "Welch": relative(two["welch"]["p"], stats.ttest_ind(a, b, equal_var=False).pvalue),
        "analysis of variance": relative(
            three["analysis_of_variance"]["statistic"], stats.f_oneway(*groups).statistic
        ),
        "Mann-Whitney on the grid": relative([two["mann_whitney"][k] for k in ("u", "p")], [u.statistic, u.pvalue]),
        "Kruskal-Wallis on the grid": relative(three["kruskal_wallis"]["statistic"], h.statistic),
    }


def _gridded(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[["time", "died", "age", "sex", "grade"]].dropna()
    return rows.assign(time=(on_grid(rows["time"].to_numpy(), 0, 10, BINS) + 1) * 10 / BINS)


def survival(hubs: int, quick: bool) -> Found:
    table = patients(quick)[["time", "died", "age", "sex", "grade"]].dropna()
    full = patients(quick).loc[table.index]
    shown, rows = asked(Survival("time", "died", "grade", bins=BINS), full, hubs), _gridded(table)
    curves, pooled = [], []
    for k, level in enumerate(LEVELS):
        group = rows[rows["grade"] == k]
        fitted = KaplanMeierFitter().fit(group["time"], group["died"])
        curve = shown["groups"][level]["curve"]
        curves.append(curve["survival"])
        pooled.append(fitted.survival_function_at_times(curve["times"]))
    test = multivariate_logrank_test(rows["time"], rows["grade"], rows["died"])
    return {
        "Kaplan-Meier on the grid": relative(curves, pooled),
        "log-rank on the grid": relative(shown["log_rank"]["statistic"], test.test_statistic),
    }


def cox(hubs: int, quick: bool) -> Found:
    table = patients(quick)
    shown = asked(Cox("time", "died", ("age", "sex"), bins=BINS), table, hubs)
    rows = table[["time", "died", "age", "sex"]].dropna()
    times = (on_grid(rows["time"].to_numpy(), 0, 10, BINS) + 1) * 10 / BINS
    fitted = PHReg(times, rows[["age", "sex"]], status=rows["died"], ties="breslow").fit()
    return {
        "coefficients on the grid": relative(shown["coefficients"], fitted.params),
        "standard errors on the grid": relative(shown["standard_errors"], fitted.bse),
    }


def table_one(hubs: int, quick: bool) -> Found:
    table = patients(quick)
    shown = asked(TableOne(("age", "ill"), "sex"), table, hubs)["table"]
    a, b = (table["age"][table["sex"] == k].dropna() for k in (0, 1))
    found = shown["age"]["groups"]["0"]
    plain = stats.chi2_contingency(pd.crosstab(table["sex"], table["ill"]), correction=False)
    return {
        "mean and deviation": relative([found["mean"]["value"], found["sd"]["value"]], [a.mean(), a.std()]),
        "p of a number": relative(shown["age"]["p"], stats.ttest_ind(a, b, equal_var=False).pvalue),
        "p of levels": relative(shown["ill"]["p"], plain.pvalue),
    }


CASES = [
    Case("correlation", "scipy, numpy", correlation),
    Case("cross-table", "scipy, statsmodels", cross_table),
    Case("compare", "scipy", compare),
    Case("survival", "lifelines", survival),
    Case("cox", "statsmodels", cox),
    Case("table-one", "scipy, pandas", table_one),
]


def distances(quick: bool) -> Iterator[Row]:
    """How far figures on the grid are from those of the values themselves."""
    table = patients(quick)
    a, b = (table["age"][table["sex"] == k].dropna() for k in (0, 1))
    u = asked(Compare("age", "sex", bins=BINS), table)["tests"]["mann_whitney"]["u"]
    yield _told(
        "Mann-Whitney's U over pairs", abs(u - stats.mannwhitneyu(a, b).statistic) / (len(a) * len(b)), "scipy"
    )
    rows = table[["time", "died", "grade"]].dropna()
    shown = asked(Survival("time", "died", "grade", bins=BINS), table)
    test = multivariate_logrank_test(rows["time"], rows["grade"], rows["died"]).test_statistic
    yield _told("log-rank statistic, relative", relative(shown["log_rank"]["statistic"], test), "lifelines")
    group, curve = rows[rows["grade"] == 0], shown["groups"][LEVELS[0]]["curve"]
    fitted = KaplanMeierFitter().fit(group["time"], group["died"]).survival_function_at_times(curve["times"])
    # a time that is itself on the grid counts one step later; the last step has nothing beyond it
    yield _told("Kaplan-Meier curve", float(np.abs(np.array(curve["survival"]) - fitted).max()), "lifelines")
    full = table[["time", "died", "age", "sex"]].dropna()
    shown = asked(Cox("time", "died", ("age", "sex"), bins=BINS), table)
    theirs = PHReg(full["time"], full[["age", "sex"]], status=full["died"], ties="breslow").fit()
    off = float(np.max(np.abs(np.array(shown["coefficients"]) - theirs.params) / theirs.bse))
    yield _told("Cox coefficients, in standard errors", off, "statsmodels")


def _told(name: str, value: float, anchor: str) -> Row:
    return Row(f"{BINS} bins against no grid: {name}", value, "", "", anchor, None)


def cases(quick: bool) -> Iterator[Row]:
    yield from compared(CASES, quick)
    yield from distances(quick)
