"""What the catalogue releases carries the noise that was paid for, and its intervals hold the truth.

Releases are real ones: real entropy, real ledger, real files. The false-alarm rates stated are per run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

import flute.hub.records.catalogue as catalogue_module
from flute.algorithms.contract import Describe, Setting, StudyVariable
from flute.algorithms.statistics import DescribeAlgorithm
from flute.catalogue.statistics import Statistics
from flute.data.variables import Array
from flute.study.protection import Price, cover, uncover
from support.catalogue_hub import VARIABLES, catalogue_of, generous, open_hub, records
from support.inprocess import TestHub

ALPHA = 1e-6
RELEASES = 120
EPSILON = 0.5
BINS = 32


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHub]:
    opened = open_hub(tmp_path_factory.mktemp("hub"), records(3), generous())
    yield opened
    opened.close()


def fits_spread(z: Array, alpha: float = ALPHA) -> bool:
    """Chi-squared test, two-sided, on the sum of squares of what should be N(0, 1)."""
    tail = chi2.cdf(float(z @ z), len(z))
    return bool(alpha / 2 < tail < 1 - alpha / 2)


def exact(hub: TestHub) -> Array:
    """The vector before noise."""
    spec = Describe(tuple(v.name for v in VARIABLES), BINS)
    setting = Setting({v.name: StudyVariable(v) for v in VARIABLES}, "drop", "private", ("north",), {})
    return DescribeAlgorithm().update(spec, setting, 0, (), hub.source.open(VARIABLES)).sum(axis=0)


@dataclasses.dataclass
class Drawn:
    """Releases, and how far each opened vector was from the exact one in stated deviations."""

    statistics: list[Statistics]
    z: Array


def draw(hub: TestHub, monkeypatch: pytest.MonkeyPatch, times: int, start: float, weaken: float = 1.0) -> Drawn:
    """`weaken`: what the noise is divided by behind the ledger's back, for the test of the test."""
    opened: list[Array] = []

    def covered(updates: Array, price: Price, *, hubs: int, rand: bytes) -> NDArray[np.int64]:
        assert price.mechanism is not None
        weaker = dataclasses.replace(price.mechanism, hub_sigma=price.mechanism.hub_sigma / weaken)
        total = cover(updates, dataclasses.replace(price, mechanism=weaker), hubs=hubs, rand=rand)
        values, sigma = uncover(total, price)
        opened.append((values - truth) / sigma)
        return total

    monkeypatch.setattr(catalogue_module, "cover", covered)
    truth = exact(hub)
    catalogue = catalogue_of(hub)
    made = [catalogue.release("heart", epsilon=start + i * 1e-9, person="eva", bins=BINS) for i in range(times)]
    return Drawn(made, np.concatenate(opened))


@pytest.fixture(scope="module")
def drawn(hub: TestHub) -> Drawn:
    with pytest.MonkeyPatch.context() as patched:
        return draw(hub, patched, RELEASES, EPSILON)


def test_released_noise_is_what_was_paid_for(drawn: Drawn) -> None:
    """120 releases of 77 numbers: false alarm 2e-6 (spread and mean). Rejects 10 % too little noise, and half."""
    assert len(drawn.z) == RELEASES * 77
    assert fits_spread(drawn.z)
    assert abs(drawn.z.mean()) < 4.9 / np.sqrt(len(drawn.z))
    assert not fits_spread(drawn.z * 0.9)
    assert not fits_spread(drawn.z * 0.5)


def test_halved_noise_would_be_noticed(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: a hub that draws half the noise that it charges for, through all the same code."""
    drawn = draw(hub, monkeypatch, 20, EPSILON + 1e-3, weaken=2.0)
    assert not fits_spread(drawn.z)
    assert 0.4 < drawn.z.std() < 0.6


def test_intervals_hold_the_truth_as_often_as_they_say(hub: TestHub, drawn: Drawn) -> None:
    """120 releases; at 95 % and independent draws fewer than 103 hits has a chance of 3e-4 per figure (binomial), for
    9 figures 3e-3. Intervals of half the width would hit 67 %."""
    columns = hub.source.columns
    age = np.array(columns["age"], dtype=float)
    pressure = np.array([np.nan if p is None else p for p in columns["pressure"]], dtype=float)
    truth: dict[str, float] = {
        "persons": len(age),
        "n": float(np.isfinite(pressure).sum()),
        "missing": float(np.isnan(pressure).sum()),
        "mean": float(age.mean()),
        "sd": float(age.std(ddof=1)),
        "median": float(np.quantile(age, 0.5)),
        "p95": float(np.quantile(age, 0.95)),
        "smokers": float(sum(columns["smoker"])),
        "high": float(columns["grade"].count("high")),  # type: ignore[attr-defined]
    }

    def shown(s: Statistics) -> dict[str, Any]:
        by_name = {f.name: f for f in s.variables}
        quantiles = by_name["age"].quantiles
        return {
            "persons": s.persons, "n": by_name["pressure"].n, "missing": by_name["pressure"].missing,
            "mean": by_name["age"].mean, "sd": by_name["age"].sd, "median": quantiles["50"], "p95": quantiles["95"],
            "smokers": by_name["smoker"].levels["1"], "high": by_name["grade"].levels["high"],
        }  # fmt: skip

    for name, value in truth.items():
        found = [shown(s)[name] for s in drawn.statistics]
        hits = sum(f.low <= value <= f.high for f in found)
        assert hits >= 103, (name, hits)
        halved = [(f.value + (f.low - f.value) / 2, f.value + (f.high - f.value) / 2) for f in found]
        if name not in ("median", "p95"):  # their intervals hold a bin's width besides the noise
            assert sum(low <= value <= high for low, high in halved) < 103, name


def test_figures_are_worth_having_at_the_usual_price(drawn: Drawn) -> None:
    """At epsilon .5 over 2,000 persons: the count within 6 %, the mean within 4 years, a share within 6 points."""
    released = drawn.statistics[0]
    assert released.persons.error is not None
    assert released.persons.error < 120
    age = released.figures("age")
    assert age is not None
    assert age.mean is not None
    assert age.mean.error is not None
    assert age.mean.error < 4
    smoker = released.figures("smoker")
    assert smoker is not None
    assert all(level.error is not None and level.error < 120 for level in smoker.levels.values())


def test_two_releases_share_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same records and price: noise that was reused would give differences of 0."""
    hub = open_hub(tmp_path, records(4), generous())
    drawn = draw(hub, monkeypatch, 2, EPSILON)
    first, second = drawn.z[:77], drawn.z[77:]
    assert np.abs(first - second).min() > 0
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.55  # 5 deviations of 1/sqrt(77)
    hub.close()
