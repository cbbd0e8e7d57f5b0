"""Private Cox regression: what its errors, intervals and tests say is what happens.

Every test draws from fixed seeds, so it always passes or always fails; the false alarm stated is that of fresh seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flute.algorithms.design import design_for, matrix
from flute.algorithms.private_rows import coding, private_scaling
from flute.summaries.survival.private_cox_rows import Left, ScoreAsked, score_rows, scored
from support.hazard_cohorts import RATIOS, SPEC, VARIABLES, cohort, columns, fitted, rho_of
from support.sums import dataset, setting


def _figures(shown: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([one[name] for one in shown], dtype=np.float64)


def _coverage(epsilon: float, cohorts: int, seed: int) -> tuple[float, float, float]:
    """Shares of 95 % intervals that hold the true ratio, as told and without the noise's part; sd over told error."""
    chance = np.random.default_rng(seed)
    shown = [fitted(cohort(chance), chance, rho_of(epsilon)) for _ in range(cohorts)]
    off = np.abs(_figures(shown, "coefficients") - RATIOS)
    told, sampling = _figures(shown, "standard_errors"), _figures(shown, "sampling_standard_errors")
    ends = np.log([[[r["low"], r["high"]] for r in one["hazard_ratios"]] for one in shown])
    held = (ends[..., 0] <= RATIOS) & (ends[..., 1] >= RATIOS)
    assert np.array_equal(held, off <= 1.959963984540054 * told)
    return float(held.mean()), float((off <= 1.96 * sampling).mean()), float(np.sqrt(np.mean((off / told) ** 2)))


@pytest.mark.requirement("F-HUF-2")
def test_intervals_hold_the_true_ratios_as_often_as_they_say() -> None:
    """60 cohorts of 1,500 patients, five ratios each, epsilon .5: 95 % intervals hold at least 90 % (were all five
    apart, false alarm 3e-4; they hold 96 %); intervals of sampling alone, without the noise, hold less than 85 %."""
    held, without, spread = _coverage(0.5, 60, 5)
    assert held >= 0.90
    assert without < 0.85
    assert 0.8 < spread < 1.15


@pytest.mark.soak
@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_over_many_cohorts_intervals_hold_between_93_and_97_in_100(epsilon: float) -> None:
    """400 cohorts of five ratios; a share is known to .5 %, or to 1.1 % were a cohort's ratios one."""
    held, _, _ = _coverage(epsilon, 400, 17)
    assert 0.93 <= held <= 0.97


def test_weights_move_no_ratio_where_clipping_would() -> None:
    """At the true ratios and hazards a score's mean is 0: |z| < 4.9 in each of five directions (false alarm 5e-6),
    though weights hold most rows down; the same rows merely cut to length have a mean that is seen (|z| > 8)."""
    chance, bins = np.random.default_rng(3), 16
    table = cohort(chance, 60_000)
    x_study = np.column_stack([np.ones(60_000), *columns(table).T])
    design = design_for(SPEC.predictors, setting(VARIABLES, mode="private"))
    data = dataset(table, VARIABLES)
    x = matrix(design, private_scaling(design), data)
    assert x == pytest.approx(x_study, abs=1e-9)
    rate = 0.12  # constant hazards, so that they are the truth in every bin
    life = chance.exponential(size=60_000) / (rate * np.exp(columns(table) @ RATIOS))
    followed = np.minimum(chance.uniform(0, 14, 60_000), 10.0)
    time, event = np.minimum(life, followed), life <= followed
    place = np.minimum(time / 10 * bins, bins - 1e-9)
    left = Left(np.floor(place).astype(np.int64), place - np.floor(place), event)
    code = coding(design)
    b = np.linalg.solve(code[1:, 1:], RATIOS)
    hazard = rate * 10 / bins * float(np.exp(-code[0, 1:] @ b))
    asked = ScoreAsked(b, 1.2 * np.eye(5), np.full(bins, hazard), np.full((bins, 5), 0.3))
    rows = score_rows(design, x, left, asked)
    weight = scored((x @ code)[:, 1:], asked).weight
    assert np.mean(weight < 0.5) > 0.5
    cut = rows / weight[:, None]
    cut = cut / np.maximum(1.0, np.linalg.norm(cut, axis=1))[:, None]
    for given, wrong in ((rows, False), (cut, True)):
        z = np.abs(given.mean(axis=0)) / (given.std(axis=0) / np.sqrt(len(given)))
        assert (z.max() > 8) if wrong else (z.max() < 4.9)
