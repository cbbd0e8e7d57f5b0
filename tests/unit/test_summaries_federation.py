"""Every statistic goes the whole road, from a study file through gate, ledger and masked sums to its result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.inprocess import InProcessFederation
from support.studies import EXACT, PRIVATE, study

QUESTIONS = """\
  related:
    algorithm: correlation
    variables: [age, pressure]
  table:
    algorithm: cross-table
    outcome: ill
    by: sex
  compared:
    algorithm: compare
    outcome: age
    by: sex
    bins: 8
  first:
    algorithm: table-one
    variables: [age, grade]
    by: sex
    bins: 8
  life:
    algorithm: survival
    time: age
    event: ill
    by: sex
    bins: 8
"""
COX = """\
  hazards:
    algorithm: cox
    time: age
    event: ill
    predictors: [sex, grade]
    bins: 8
  how-well:
    algorithm: concordance
    time: age
    event: ill
    cox: hazards
    bins: 8
    score_bins: 6
"""
HUBS = ("north", "south", "west")


def _people(seed: int, n: int = 700) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {
        "age": chance.uniform(20, 100, n).tolist(),
        "pressure": chance.uniform(60, 260, n).tolist(),
        "sex": chance.integers(0, 2, n).tolist(),
        "grade": chance.choice(["low", "mid", "high"], n).tolist(),
        "ill": chance.integers(0, 2, n).tolist(),
    }


def _results(folder: Path, protection: str, questions: str) -> dict[str, Any]:
    agreed = study(protection, questions)
    data = {hub: _people(seed) for seed, hub in enumerate(HUBS)}
    federation = InProcessFederation(folder, data, [v.variable for v in agreed.variables])
    federation.propose(agreed)
    federation.consent(agreed.study)
    federation.runner.run(agreed.study)
    federation.settle()
    row = federation.rounds.study(agreed.study)
    assert row is not None
    assert row.state == "finished", row.why
    found: dict[str, Any] = federation.rounds.results(agreed.study)
    federation.close()
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.requirement("F-HUF-2")
def test_an_exact_study_of_all_statistics_ends_with_the_pooled_figures(tmp_path: Path) -> None:
    found = _results(tmp_path, EXACT, QUESTIONS + COX)
    people = [_people(seed) for seed in range(3)]
    age, sex = (np.concatenate([p[name] for p in people]) for name in ("age", "sex"))
    assert found["compared"]["groups"]["1"]["mean"]["value"] == pytest.approx(age[sex == 1].mean(), rel=1e-6)
    assert found["first"]["table"]["age"]["groups"]["0"]["n"]["value"] == (sex == 0).sum()
    assert found["table"]["n"]["value"] == len(age)
    assert found["related"]["n"]["value"] == len(age)
    assert found["life"]["hazard_ratios"]["1"]["value"] is not None
    assert found["hazards"]["ending"] == "converged"
    assert 0.4 < found["how-well"]["concordance"]["value"] < 0.6


@pytest.mark.requirement("F-HUF-2")
def test_a_private_study_of_all_statistics_ends_near_them(tmp_path: Path) -> None:
    asked = re.sub(r"(    algorithm: .*\n)", r"\1    share: 0.12\n", QUESTIONS + COX)
    found = _results(tmp_path, PRIVATE, asked)
    people = [_people(seed) for seed in range(3)]
    age, sex = (np.concatenate([p[name] for p in people]) for name in ("age", "sex"))
    gap = found["compared"]["tests"]["welch"]["difference"]
    assert gap["noise_se"] > 0
    assert abs(gap["value"] - (age[sex == 0].mean() - age[sex == 1].mean())) < 6 * gap["noise_se"]  # alarm 2e-9
    for question in ("related", "first", "table", "life", "how-well"):
        assert found[question]["left_out"]["noise_se"] > 0
    assert found["hazards"]["ending"] == "fixed-steps"
    assert found["how-well"]["concordance"]["noise_se"] > 0
