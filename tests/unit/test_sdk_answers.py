"""Every kind of answer has a table, and those with a picture have one; numbers are predicted in their unit."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import flute.sdk as flute
from flute.errors import MisuseError
from support.heart import EXAMPLE, pooled, with_months

mpl.use("Agg")
PREDICTORS = ["age", "sex", "chest_pain"]
MODEL = {"outcome": "heart_disease", "predictors": PREDICTORS}
LIFE = {"time": "months", "event": "event"}
ASKED = {
    "survival": flute.Survival(**LIFE, by="sex", bins=8),
    "cox": flute.Cox(**LIFE, predictors=["age", "sex"], bins=8),
    "compare": flute.Compare(outcome="age", by="sex", bins=8),
    "cross-table": flute.CrossTable(outcome="sex", by="heart_disease"),
    "table-one": flute.TableOne(by="heart_disease", variables=["age", "sex"], bins=8),
    "decision-tree": flute.DecisionTree(**MODEL),
    "glm": flute.Glm(**MODEL, family="binomial"),
    "number": flute.Glm(outcome="pressure", predictors=["age", "sex"], name="number"),
}
COLUMNS = {
    "survival": {"n", "events", "median", "restricted mean"},
    "cox": {"hazard ratio", "low", "high", "p"},
    "compare": {"n", "mean", "sd", "median", "p"},
    "cross-table": {"sex = f", "sex = m"},
    "table-one": {"0", "1", "p", "standardised difference"},
    "decision-tree": {"importance"},
    "glm": {"coefficient", "odds ratio", "p"},
    "number": {"coefficient", "per raw unit"},
}


@pytest.fixture(scope="module")
def study() -> Iterator[flute.Study]:
    declared = {name: dict(one) for name, one in EXAMPLE.variables.items()}
    for one in declared.values():
        if one["kind"] == "number":
            one["scale"] = "reference"
    declared |= {"months": flute.number(0, 60), "event": flute.binary()}
    with flute.simulator(with_months(), simulated=True) as fed:
        made = fed.study("answers", purpose="Test.", variables=declared, exact=flute.Exact(200_000))
        made.run(list(ASKED.values()), progress=False)
        yield made


@pytest.mark.requirement("F-HUF-1")
@pytest.mark.parametrize("which", COLUMNS)
def test_an_answer_has_a_table_of_its_own(which: str, study: flute.Study) -> None:
    table = ASKED[which].to_frame()
    assert COLUMNS[which] <= set(table.columns)
    assert "figure" not in table.index.names  # the form of answers that have none
    assert ASKED[which]._repr_html_().count("<table>") == 1


@pytest.mark.parametrize("which", ["survival", "cox", "compare", "decision-tree", "glm", "number"])
def test_an_answer_has_a_picture(which: str, study: flute.Study) -> None:
    from matplotlib import pyplot

    axes = ASKED[which].plot()
    assert axes.has_data()
    assert "SIMULATED" in axes.get_title()
    pyplot.close("all")


def test_where_there_is_no_picture_the_table_is_named(study: flute.Study) -> None:
    with pytest.raises(MisuseError, match=r"no picture for cross-table; to_frame\(\) has its figures"):
        ASKED["cross-table"].plot()


def test_the_cross_table_is_the_pooled_one(study: flute.Study) -> None:
    table = pooled()
    expected = pd.crosstab(table["heart_disease"], table["sex"])
    assert np.array_equal(ASKED["cross-table"].to_frame().to_numpy(), expected.to_numpy())


def test_a_number_is_predicted_as_the_pooled_fit_predicts_it(study: flute.Study) -> None:
    table = pooled().dropna(subset=["pressure", "age", "sex"])
    design = np.column_stack([np.ones(len(table)), table["age"], table["sex"] == "m"]).astype(float)
    fit = sm.OLS(table["pressure"].to_numpy(float), design).fit()
    model = ASKED["number"]
    assert np.allclose(model.predict(table), fit.predict(design), rtol=1e-6)
    assert np.isnan(model.predict(pd.DataFrame({"age": [None, 50], "sex": ["f", "m"]}))).tolist() == [True, False]
    with pytest.raises(MisuseError, match="predicts a number, not a chance"):
        model.predict_proba(table)


def test_an_answer_without_a_shape_shows_every_figure(study: flute.Study) -> None:
    asked = flute.Query("robust-mean", variables=["age"])
    study.run(asked, progress=False)
    assert asked.to_frame().index.name == "figure"
    assert any("age" in path for path in asked.to_frame().index)
