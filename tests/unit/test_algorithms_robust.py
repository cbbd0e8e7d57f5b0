"""Means that poisoned records cannot drag: what they resist, what they cost, and what they do not resist."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from flute.algorithms.contract import Finished, Opened, RobustMean, Setting, StudyVariable
from flute.algorithms.robust import MEDIAN_LOSS, RobustMeanAlgorithm, _groups
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import StudyFileError

PSA = Variable("psa", "number", 0.0, 5_000.0, (), "ng/mL", "PSA")
SICK = Variable("sick", "binary", 0.0, 1.0, (), "", "Sick")
GRADE = Variable("grade", "category", 0.0, 1.0, ("low", "high"), "", "Grade")
SETTING = Setting(
    variables={v.name: StudyVariable(v) for v in (PSA, SICK, GRADE)}, missing="drop", mode="exact",
    hubs=("a", "b", "c"), questions={},
)  # fmt: skip
ALGORITHM = RobustMeanAlgorithm()


def patients(psa: np.ndarray, first: int = 0) -> Dataset:
    names = np.array([f"patient-{first + i}" for i in range(len(psa))])
    return Dataset(names, {"psa": psa, "sick": (psa > 8).astype(float)}, [PSA, SICK])


def cohort(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(1.9, 0.5, n)


def run(spec: RobustMean, data: Dataset, sigma: float = 0.0, seed: int = 0) -> Mapping[str, dict]:
    total = ALGORITHM.update(spec, SETTING, 0, (), data).sum(axis=0)
    total = total + np.random.default_rng(seed).normal(scale=sigma, size=total.size) if sigma else total
    finished = ALGORITHM.next(spec, SETTING, [Opened((), total, sigma)], {})
    assert isinstance(finished, Finished)
    return finished.result["variables"]  # type: ignore[no-any-return]


def test_it_is_the_median_of_the_groups_means_and_tells_the_plain_mean() -> None:
    psa, spec = cohort(600), RobustMean(("psa", "sick"), 7)
    data = patients(psa)
    groups = _groups(data, 7)
    found = run(spec, data)
    assert found["psa"]["mean"] == pytest.approx(np.median([psa[groups == g].mean() for g in range(7)]), rel=1e-9)
    assert found["psa"]["plain"]["value"] == pytest.approx(psa.mean(), rel=1e-9)
    assert found["sick"]["plain"]["value"] == pytest.approx((psa > 8).mean(), rel=1e-9)
    assert found["psa"]["n"] == 600


@pytest.mark.parametrize("claimed", [5_000.0, 0.0, 4_999.0])
def test_fewer_poisoned_patients_than_half_the_groups_cannot_drag_it(claimed: float) -> None:
    """Control: they drag the plain mean as far as they like."""
    psa, spec = cohort(600), RobustMean(("psa",), 11)
    data = patients(psa)
    clean = [psa[_groups(data, 11) == g].mean() for g in range(11)]
    poisoned = patients(np.concatenate([psa, np.full(5, claimed)]))
    found = run(spec, poisoned)["psa"]
    assert min(clean) <= found["mean"] <= max(clean)
    if claimed > 1_000:
        assert found["plain"]["value"] > 5 * psa.mean()


def test_a_bounded_influence_limits_what_each_patient_moves_the_plain_mean() -> None:
    psa = cohort(600)
    spec = RobustMean(("psa",), 11, influence=0.9)
    before = run(spec, patients(psa))["psa"]["plain"]["value"]
    after = run(spec, patients(np.concatenate([psa, [5_000.0]])))["psa"]["plain"]["value"]
    assert 0 < after - before <= 2 * 0.9 * 2_500 / 601


def test_adding_a_patient_moves_nobody_to_another_group() -> None:
    few, many = patients(cohort(50)), patients(cohort(51))
    assert np.array_equal(_groups(few, 11), _groups(many, 11)[:50])


def test_groups_are_of_about_the_same_size() -> None:
    """Chi-squared over 11 groups of 11,000: 60 is exceeded by chance once in 10^8."""
    counts = np.bincount(_groups(patients(cohort(11_000)), 11), minlength=11)
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 60


def test_its_error_is_the_stated_one() -> None:
    """Over 400 cohorts of symmetric values: the deviation of the result against what it says, and against the plain
    mean's; false alarm below 1e-6 for bounds of five deviations of an estimated deviation (1/sqrt(800) = 3.5 %)."""
    spec, means, said, plain = RobustMean(("psa",), 21), [], [], []
    for seed in range(400):
        psa = np.random.default_rng(seed).normal(2_500, 300, 630)
        found = run(spec, patients(psa, first=1_000 * seed))["psa"]
        means.append(found["mean"])
        said.append(found["standard_error"])
        plain.append(found["plain"]["value"])
    loss = np.std(means) / np.std(plain)
    assert 0.8 * MEDIAN_LOSS < loss < 1.25 * MEDIAN_LOSS
    assert 0.75 < np.median(said) / np.std(means) < 1.25


def test_the_plain_means_noise_is_the_stated_one() -> None:
    psa, spec = cohort(600), RobustMean(("sick",), 5)
    data = patients(psa)
    values = [run(spec, data, sigma=6.0, seed=s)["sick"]["plain"] for s in range(400)]
    spread = np.std([v["value"] for v in values])
    assert spread == pytest.approx(np.median([v["noise_se"] for v in values]), rel=0.2)


def test_a_hub_that_lies_about_many_patients_is_not_resisted() -> None:
    """Said in the documentation, and shown here: one false patient in every group is enough."""
    psa, spec = cohort(600), RobustMean(("psa",), 11)
    poisoned = patients(np.concatenate([psa, np.full(200, 5_000.0)]))
    assert run(spec, poisoned)["psa"]["mean"] > 100 * psa.mean()


def test_nobody_means_no_mean() -> None:
    assert run(RobustMean(("psa",), 5), patients(np.zeros(0)))["psa"]["mean"] is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (RobustMean(("psa",), 4), "odd"),
        (RobustMean(("psa", "psa"), 5), "twice"),
        (RobustMean(("grade",), 5), "category"),
    ],
)
def test_what_cannot_be_asked_is_said(spec: RobustMean, says: str) -> None:
    with pytest.raises(StudyFileError, match=says):
        ALGORITHM.check(spec, SETTING)
