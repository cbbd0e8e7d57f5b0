"""`concordance` equals lifelines' on pooled times and scores moved to the grids."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lifelines.utils import concordance_index

from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.survival.concordance import Concordance
from flute.summaries.survival.cox import Cox
from support.summary_cases import HUBS, VARIABLES, asked, cohort, hubs_of, on_grid
from support.sums import Privacy, dataset, run, setting

HAZARDS = Cox("time", "died", ("age", "sex", "grade"))
OF_MODEL = Concordance("time", "died", cox="hazards", score_bins=32)
STUDY = {"hazards": (HAZARDS, "pooled"), "how-well": (OF_MODEL, "pooled")}


def _pooled(time: np.ndarray, score: np.ndarray, died: np.ndarray) -> float:
    """lifelines takes scores that are the higher the later the event."""
    return float(concordance_index(time, -score, died))


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
@pytest.mark.parametrize(("score", "bins", "score_bins"), [("age", 24, 24), ("marker", 8, 5), ("pressure", 64, 128)])
def test_it_equals_the_pooled_one_on_the_grid(score: str, bins: int, score_bins: int, hubs: int) -> None:
    table = cohort()
    rows = table[["time", "died", score]].dropna()
    used = next(v for v in VARIABLES if v.variable.name == score)
    low, high, values = used.variable.low, used.variable.high, rows[score].to_numpy()
    if used.log:
        low, high, values = np.log(low), np.log(high), np.log(values)
    gridded = on_grid(rows["time"].to_numpy(), 0, 10, bins), on_grid(values, low, high, score_bins)
    shown = asked(Concordance("time", "died", score, bins=bins, score_bins=score_bins), table, hubs)
    assert shown["concordance"]["value"] == pytest.approx(_pooled(*gridded, rows["died"]), rel=1e-9)
    ungridded = _pooled(rows["time"].to_numpy(), values, rows["died"].to_numpy())
    assert abs(shown["concordance"]["value"] - ungridded) < shown["grid_bound"]
    assert (shown["n"]["value"], shown["events"]["value"]) == (len(rows), rows["died"].sum())
    assert shown["left_out"]["value"] == len(table) - len(rows)


def test_a_finer_grid_comes_nearer_the_ungridded_one_and_says_so() -> None:
    table = cohort(missing=0)
    ungridded = _pooled(*(table[c].to_numpy() for c in ("time", "pressure", "died")))
    off, said = [], []
    for bins in (6, 100):
        shown = asked(Concordance("time", "died", "pressure", bins=bins, score_bins=bins), table)
        off.append(abs(shown["concordance"]["value"] - ungridded))
        said.append(shown["grid_bound"])
    assert off[1] < min(off[0], 0.003)
    assert off[0] < said[0]
    assert off[1] < said[1] < 0.05


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_an_earlier_cox_is_scored_by_what_it_predicts(hubs: int) -> None:
    table = cohort()
    agreed, parts = setting(VARIABLES, STUDY), hubs_of(table, hubs)
    found = run(HAZARDS, agreed, parts)
    shown = run(OF_MODEL, agreed, parts, inputs={"hazards": found})
    rows = table[["time", "died", "age", "sex", "grade"]].dropna()
    x = np.column_stack([rows["age"], rows["sex"], rows["grade"] == 1, rows["grade"] == 2])
    predicted = x @ np.array(found["coefficients"])
    events = rows["died"].to_numpy() == 1
    assert found["log_hazard"]["centre"] == pytest.approx(predicted[events].mean(), rel=1e-9)
    assert found["log_hazard"]["spread"] == pytest.approx(predicted[events].std(), rel=0.2)
    assert shown["concordance"]["value"] == pytest.approx(
        _pooled(rows["time"].to_numpy(), predicted, events), abs=min(0.01, shown["grid_bound"])
    )
    assert shown["n"]["value"] == len(rows)


def test_ties_constants_and_nobody() -> None:
    table = cohort(missing=0)
    constant = asked(Concordance("time", "died", "fixed"), table)["concordance"]
    assert (constant["value"], constant["sampling_se"]) == (0.5, pytest.approx(0.0, abs=1e-12))
    perfect = table.assign(age=100 - 8 * table["time"], died=1.0)
    assert asked(Concordance("time", "died", "age", bins=64, score_bins=64), perfect)["concordance"]["value"] > 0.99
    for few in (table.iloc[:0], table.assign(died=0.0), table.assign(time=5.0, died=1.0)):
        shown = asked(Concordance("time", "died", "age"), few)
        assert shown["concordance"]["value"] is None
        json.dumps(shown, allow_nan=False)
    for rows in (1, 3, 400):
        json.dumps(asked(Concordance("time", "died", "age"), table.iloc[:rows]), allow_nan=False)


def test_the_interval_is_about_that_of_a_bootstrap() -> None:
    table, chance = cohort(missing=0), np.random.default_rng(3)
    drawn = []
    for _ in range(120):
        rows = table.iloc[chance.integers(0, len(table), len(table))]
        drawn.append(asked(Concordance("time", "died", "age"), rows)["concordance"]["value"])
    told = asked(Concordance("time", "died", "age"), table)["concordance"]["sampling_se"]
    assert float(np.std(drawn)) == pytest.approx(told, rel=0.2)


def test_under_noise_the_interval_holds_the_noise_and_the_exact_figure() -> None:
    table = cohort(n=3000, missing=0)
    exact = asked(Concordance("time", "died", "age"), table)["concordance"]
    noised = asked(Concordance("time", "died", "age"), table, rho=1.0)["concordance"]
    assert noised["noise_se"] > 0
    assert noised["se"] == pytest.approx(np.hypot(noised["sampling_se"], noised["noise_se"]))
    assert noised["sampling_se"] == pytest.approx(exact["sampling_se"], rel=0.1)
    assert abs(noised["value"] - exact["value"]) < 4 * noised["noise_se"]
    drowned = asked(Concordance("time", "died", "age"), table.iloc[:40], rho=0.01)
    assert drowned["concordance"]["value"] is None
    json.dumps(drowned, allow_nan=False)


def test_a_private_cox_can_be_scored_too() -> None:
    table = cohort(n=3000)
    agreed, parts = setting(VARIABLES, STUDY, mode="private"), hubs_of(table, 3)
    privacy = Privacy(2.0, np.random.default_rng(4))
    found = run(HAZARDS, agreed, parts, privacy=privacy)
    shown = run(OF_MODEL, agreed, parts, privacy=privacy, inputs={"hazards": found})
    exactly = setting(VARIABLES, STUDY)
    right = run(OF_MODEL, exactly, parts, inputs={"hazards": run(HAZARDS, exactly, parts)})["concordance"]
    assert abs(shown["concordance"]["value"] - right["value"]) < 4 * shown["concordance"]["se"]


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_a_row_has_one_norm_whatever_the_model_is(mode: str) -> None:
    agreed = setting(VARIABLES, STUDY, mode=mode)
    algorithm = algorithm_for(OF_MODEL)
    table = cohort(n=60)
    table.loc[0, "time"], table.loc[0, "age"] = 0.0, 20.0
    data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
    shape = algorithm.outline(OF_MODEL, agreed)[0]
    for parameters in ((1e308,) * 6, (-1e308,) * 6, (0.0,) * 6, (0.1, 0, 0, 0, 1e300, -5.0)):
        rows = algorithm.update(OF_MODEL, agreed, 0, parameters, data)
        assert np.isfinite(rows).all()
        assert np.linalg.norm(rows, axis=1).max() <= shape.clip_norm * (1 + 1e-12)
    first = algorithm.update(OF_MODEL, agreed, 0, (0.0, 0, 0, 0, 1e9, 1e-9), data)
    assert np.linalg.norm(first, axis=1).max() == pytest.approx(shape.clip_norm)


def test_what_is_no_concordance_question_is_refused() -> None:
    each = {"hazards": (HAZARDS, "each"), "how-well": (OF_MODEL, "pooled")}
    turned = {"how-well": (OF_MODEL, "pooled"), "hazards": (HAZARDS, "pooled")}
    for spec, questions in (
        (Concordance("time", "died"), STUDY),
        (Concordance("time", "died", "age", "hazards"), STUDY),
        (Concordance("time", "died", "sex"), STUDY),
        (Concordance("time", "died", "time"), STUDY),
        (Concordance("time", "died", cox="nothing"), STUDY),
        (OF_MODEL, each),
        (OF_MODEL, turned),
    ):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES, questions))
    with pytest.raises(MisuseError, match="no parameters"):
        algorithm_for(OF_MODEL).next(OF_MODEL, setting(VARIABLES, STUDY), (), {"hazards": {"coefficients": [None]}})


def test_what_the_floor_is_held_against() -> None:
    agreed = setting(VARIABLES, STUDY)
    table = cohort(missing=0)
    data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
    of_score = Concordance("time", "died", "age", bins=4, score_bins=4)
    cells = algorithm_for(of_score).cells(of_score, agreed, data)
    assert cells.sum() == len(table)
    assert len(cells) == 33
    cells = algorithm_for(OF_MODEL).cells(OF_MODEL, agreed, data)
    assert cells[-1] == 1
    assert cells[:-1].sum() == len(table)
