"""`describe` in exact mode equals the pooled table; its answers stay within what was promised."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flute.algorithms.contract import Describe, StudyVariable
from flute.algorithms.statistics import QUANTILES
from flute.data.variables import Variable
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 20, 100, unit="a", label="Age"))
PSA = StudyVariable(Variable("psa", "number", 0, 60), log=False)
FH = StudyVariable(Variable("fh", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")))
ALL = (AGE, PSA, FH, GRADE)
SPEC = Describe(("age", "psa", "fh", "grade"), bins=40)


def _table(n: int = 700) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "age": np.round(chance.normal(65, 9, n).clip(20, 100), 1),
            "psa": chance.gamma(2, 4, n).clip(0, 60),
            "fh": chance.integers(0, 2, n).astype(float),
            "grade": chance.integers(0, 3, n).astype(float),
        }
    )
    return table.mask(chance.random((n, 4)) < 0.07)


def _described(table: pd.DataFrame, spec: Describe = SPEC, **changed: Any) -> dict[str, Any]:
    owner = np.random.default_rng(4).choice(4, len(table), p=[0.6, 0.25, 0.1, 0.05])
    columns = {name: table[name].to_numpy() for name in table}
    privacy = changed.pop("privacy", None)
    return run(spec, setting(ALL, **changed), spread(columns, owner, ALL), privacy=privacy)["variables"]


@pytest.mark.requirement("F-HUF-2")
def test_exact_numbers_equal_the_pooled_table() -> None:
    table = _table()
    shown = _described(table)
    for name in ("age", "psa"):
        column, got = table[name], shown[name]
        assert got["n"]["value"] == column.count()
        assert got["missing"]["value"] == column.isna().sum()
        assert got["mean"]["value"] == pytest.approx(column.mean(), rel=1e-9)
        assert got["sd"]["value"] == pytest.approx(column.std(), rel=1e-8)
        counts, edges = np.histogram(column.dropna(), bins=got["histogram"]["edges"])
        assert got["histogram"]["counts"] == counts.tolist()
        for q in QUANTILES:
            assert got["quantiles"][str(q)]["value"] == pytest.approx(column.quantile(q / 100), abs=np.diff(edges)[0])
        assert {e["noise_se"] for e in (got["n"], got["mean"], got["sd"], *got["quantiles"].values())} == {0.0}


@pytest.mark.requirement("F-HUF-2")
def test_exact_level_counts_equal_the_pooled_table() -> None:
    table = _table()
    shown = _described(table)
    for name, levels in (("fh", ("0", "1")), ("grade", ("low", "mid", "high"))):
        counts = table[name].value_counts().sort_index()
        assert [shown[name]["levels"][level]["count"] for level in levels] == counts.tolist()
        shares = [shown[name]["levels"][level]["share"] for level in levels]
        assert shares == pytest.approx((counts / counts.sum()).tolist())


def test_a_hub_alone_and_an_empty_hub_are_described_too() -> None:
    empty = _described(_table().iloc[:0])
    assert empty["age"]["mean"] == {"value": None, "low": None, "high": None, "noise_se": 0.0}
    assert empty["grade"]["levels"]["low"]["share"] is None
    one = _described(_table().iloc[:1])
    assert one["age"]["sd"]["value"] is None


def test_values_on_the_ends_of_the_range_fall_into_the_outer_bins() -> None:
    data = dataset({"age": [20, 100], "psa": [0, 60], "fh": [0, 1], "grade": [0, 2]}, ALL)
    shown = run(SPEC, setting(ALL), [data])["variables"]["age"]["histogram"]["counts"]
    assert (shown[0], shown[-1], sum(shown)) == (1, 1, 2)


def test_private_results_are_plain_json_and_possible_numbers_even_where_noise_drowns_all() -> None:
    for rho in (1e-6, 1e-3, 0.1):
        for rows in (0, 3, 700):
            privacy = Privacy(rho, np.random.default_rng(rows))
            shown = _described(_table().iloc[:rows], mode="private", privacy=privacy)
            json.dumps(shown, allow_nan=False)
            for got in (shown["age"], shown["psa"]):
                assert min(got["histogram"]["counts"]) >= 0
                values = [got["quantiles"][str(q)]["value"] for q in QUANTILES]
                assert values == [None] * 5 or values == sorted(values)
            assert 20 <= (shown["age"]["mean"]["value"] or 20) <= 100


def test_the_floor_is_held_against_every_bin_level_and_missing_count() -> None:
    table = _table()
    data = dataset({name: table[name].to_numpy() for name in table}, ALL)
    cells = algorithm_for(SPEC).cells(SPEC, setting(ALL), data)
    counted = np.histogram(table["age"].dropna(), bins=np.linspace(20, 100, 41))[0].tolist()
    assert cells[:41].tolist() == [*counted, table["age"].isna().sum()]
    assert cells[-4:].tolist() == [*table["grade"].value_counts().sort_index(), table["grade"].isna().sum()]
    assert cells.sum() == 4 * len(table)


def test_what_cannot_be_described_is_refused_before_anything_is_read() -> None:
    for spec in (Describe(("age", "age")), Describe(("weight",))):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(ALL))
    assert algorithm_for(SPEC).next(SPEC, setting(ALL), (), {}).parameters.size == 0
    data = dataset({"age": [50], "psa": [1], "fh": [0], "grade": [0]}, ALL)
    for step, parameters in ((1, ()), (-1, ()), (0, (1.0,))):
        with pytest.raises(MisuseError):
            algorithm_for(SPEC).update(SPEC, setting(ALL), step, parameters, data)
