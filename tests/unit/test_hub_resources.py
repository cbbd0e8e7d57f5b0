"""Packages that not every hub has, rows in blocks and totals at once, through whole studies in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.algorithms.contract import HubTotals, Setting
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.algorithms.statistics import DescribeAlgorithm
from flute.coordinator.doors.results import study_release
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import NotPossible
from flute.hub.rounds.resources import require_resources
from flute.hub.store import HubPolicy
from flute.study.agreement import Agreement
from flute.study.exact_rule import counts_of_few
from support.inprocess import InProcessFederation
from support.studies import study

N = 40
COUNTS = "  cohort:\n    algorithm: describe\n    variables: [age, ill]\n    bins: 4\n"
PATCH = pytest.MonkeyPatch


def people(seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {"age": chance.uniform(30, 90, N), "ill": chance.integers(0, 2, N).astype(float)}


def counting(mode: str) -> Agreement:
    if mode == "exact":
        return study("exact: {max_numbers: 20000}", COUNTS)
    return study("budget: {epsilon: 3}", COUNTS + "    share: 1\n")


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[InProcessFederation]:
    base = counting("exact")
    data = {hub: people(k) for k, hub in enumerate(base.hubs)}
    used = [v.variable for v in base.variables if v.variable.name in ("age", "ill")]
    policy = HubPolicy(epsilon=5, epsilon_all=10, exact_allowed=True, floor=1, max_numbers=100_000)
    made = InProcessFederation(tmp_path, data, used, policy=policy)
    yield made
    made.close()


def lacks_torch(algorithm: Any, spec: Any) -> None:
    raise NotPossible("torch is not installed here.")


def test_a_study_that_needs_what_is_not_here_is_not_granted(fed: InProcessFederation, monkeypatch: PATCH) -> None:
    monkeypatch.setattr(DescribeAlgorithm, "require_parts", lacks_torch, raising=False)
    agreement = counting("exact")
    fed.propose(agreement)
    with pytest.raises(NotPossible, match=r"^cohort: torch is not installed here\.$"):
        fed.consent(agreement.study)
    assert all(hub.source.opened == [] for hub in fed.hubs.values())


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_what_went_since_the_grant_is_missed_before_anything_is_charged(
    fed: InProcessFederation, monkeypatch: PATCH, mode: str
) -> None:
    agreement = counting(mode)
    fed.propose(agreement)
    fed.consent(agreement.study)
    looked = [len(hub.source.opened) for hub in fed.hubs.values()]
    monkeypatch.setattr(DescribeAlgorithm, "require_parts", lacks_torch, raising=False)
    fed.runner.run(agreement.study)
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert "torch is not installed here" in row.why
    for hub, before in zip(fed.hubs.values(), looked, strict=True):
        assert list(hub.parts.journal.lines(kinds=("reserved",))) == []
        assert len(hub.source.opened) == before


def test_an_evaluation_misses_what_its_model_needs_before_it_is_charged(
    fed: InProcessFederation, monkeypatch: PATCH
) -> None:
    """Whatever became of the fit: a hub may have lost the package since. Control: with it nothing is refused."""
    fitted = "  model:\n    algorithm: logistic-regression\n    outcome: ill\n    predictors: [age]\n    share: 0.5\n"
    scored = "  scores:\n    algorithm: evaluate\n    models: [model]\n    bins: 8\n    share: 0.5\n"
    agreement = study("budget: {epsilon: 3}", fitted + scored)
    entry = agreement.questions[1]
    require_resources(entry, agreement.setting)
    monkeypatch.setattr(LogisticRegressionAlgorithm, "require_parts", lacks_torch, raising=False)
    with pytest.raises(NotPossible, match=r"^scores: torch is not installed here\.$"):
        require_resources(entry, agreement.setting)
    fed.propose(agreement)
    with pytest.raises(NotPossible, match=r"^model: torch"):
        fed.consent(agreement.study)
    assert all(list(hub.parts.journal.lines(kinds=("reserved",))) == [] for hub in fed.hubs.values())


def test_what_is_here_is_in_nobodys_way(fed: InProcessFederation, monkeypatch: PATCH) -> None:
    monkeypatch.setattr(DescribeAlgorithm, "require_parts", lambda self, spec: None, raising=False)
    assert fed.run(counting("exact"))["results"]["cohort"]


def blocks(self: Any, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Iterator[Array]:
    rows = self.update(spec, setting, step, parameters, data)
    return (rows[start : start + 3] for start in range(0, len(rows), 3))


def test_blocks_make_the_study_that_rows_make(fed: InProcessFederation, monkeypatch: PATCH) -> None:
    seen: list[int] = []

    def noted(self: Any, *given: Any) -> Iterator[Array]:
        seen.append(len(given[-1]))
        return blocks(self, *given)

    monkeypatch.setattr(DescribeAlgorithm, "blocks", noted, raising=False)
    result = fed.run(counting("private"))["results"]["cohort"]
    assert seen == [N] * len(fed.hubs)
    found = result["variables"]["ill"]["n"]
    assert abs(found["value"] - 3 * N) < 8 * found["noise_se"], "false alarm below 1e-14"
    assert 16 * found["noise_se"] < 3 * N, "no block at all would be seen"


def test_a_total_makes_the_study_that_rows_make_and_nothing_is_computed_at_the_grant(
    fed: InProcessFederation, monkeypatch: PATCH
) -> None:
    usual = fed.run(counting("exact"))["results"]
    asked: list[int] = []

    def total(self: Any, *given: Any) -> Array:
        asked.append(given[2])
        return np.asarray(update(self, *given).sum(axis=0))

    update = DescribeAlgorithm.update
    monkeypatch.setattr(DescribeAlgorithm, "total", total, raising=False)
    monkeypatch.setattr(DescribeAlgorithm, "counted", lambda *given: np.ones((len(given[-1]), 1)), raising=False)
    monkeypatch.setattr(DescribeAlgorithm, "update", lambda *_: pytest.fail("rows were asked for"))
    assert isinstance(DescribeAlgorithm(), HubTotals)
    agreement = msgspec.structs.replace(counting("exact"), study="again")
    fed.propose(agreement)
    fed.consent(agreement.study)
    assert asked == [], "granting counts, and trains nothing"
    fed.runner.run(agreement.study)
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert study_release(fed.rounds, row).results == usual
    assert asked == [0] * len(fed.hubs)


def test_counts_of_a_total_are_judged_as_others_are(monkeypatch: PATCH) -> None:
    """One count of all but two: what is left is about two patients."""
    agreement = counting("exact")
    used = [agreement.setting.variables[name].variable for name in ("age", "ill")]
    data = Dataset(np.array([f"p{k}" for k in range(N)]), people(0), used)
    monkeypatch.setattr(DescribeAlgorithm, "total", lambda *_: pytest.fail("it was trained"), raising=False)
    for left_out, few in ((2, True), (10, False)):
        counted = np.column_stack([np.ones(N), np.arange(N) >= left_out])
        monkeypatch.setattr(DescribeAlgorithm, "counted", lambda *_, c=counted: c, raising=False)
        assert counts_of_few([agreement], data) is few
