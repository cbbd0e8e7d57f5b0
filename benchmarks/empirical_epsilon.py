"""What attackers show: a lower bound on epsilon from worlds with and without one patient, beside what is claimed.

    python benchmarks/empirical_epsilon.py [--quick] [--json]

The worlds are the real code without processes (`tests/support/canary_worlds.py`): 10,000 with her and 10,000 without
(logistic regression at epsilon 3: 5,000), of a question of a real agreement with the whole budget at delta 1e-6. Her
row has the full clip norm at every step. Every 10th world of `describe` at epsilon 1, every 40th of the others, is
summed under real masks, and each such sum is checked to be the sum in clear, bit by bit.
Bounds are for mu-GDP (Nasr et al. 2023) at a confidence of 95 %: one row of a sound build exceeds its claim with a
chance of at most 5 %, about 0.3 % for Gaussians (two rates would both have to be off by two deviations).

Anchor: what is claimed, or, for a broken build, the sound build's charge, which has to be exceeded. Power is judged
for the worst coalition that is permitted; for an outsider the ratio is told (above a third with a chance of .96 at
epsilon 1). Broken builds and coalitions beyond what is permitted are judged where these worlds see them with a chance
above .97: at epsilon 1 that is only noise that is halved. A quick run has a fiftieth of the worlds: it judges no
power, and broken builds only where it catches them. What is not seen at all: that rounding is charged for (1 to 2 %
of the noise).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.defaults import DELTA
from flute.dp import calibrate
from flute.dp.audit import gaussian_dp_lower_bound
from flute.dp.calibrate import Mechanism
from support.canary_scenes import (
    Scene,
    cheating_asks,
    describe_scene,
    dropout_scene,
    halved,
    model_scene,
    shared_by_all,
    with_noise,
)
from support.canary_worlds import Masks, Score, Scores, attack, difference, likelihood_ratio

WORLDS, QUICK_PART = 10_000, 50
CONFIDENCE = 0.95
FEWER = 5_000
MASKED_EVERY = 40
ONLOOKERS = {0: "outsider", 1: "another hub, or the coordinator with one", 2: "coordinator with two hubs"}
MAKERS: dict[str, Callable[..., Scene]] = {
    "describe": describe_scene,
    "describe, five hubs, one away": dropout_scene,
    "logistic regression": model_scene,
}


@dataclass(frozen=True)
class Case:
    """What is attacked; a worker process makes its own scene from it. `noise`: of a broken build."""

    what: str
    budget: float
    cheating: bool = False
    stretch: float = 1.0
    noise: Callable[[Mechanism], float] | None = None
    clipped: bool = True
    reuse: bool = False
    score: Score = likelihood_ratio
    worlds: int = WORLDS
    masked_every: int = MASKED_EVERY

    @property
    def scene(self) -> Scene:
        scene = MAKERS[self.what](
            self.budget, stretch=self.stretch, asks=cheating_asks if self.cheating else None
        )  # fmt: skip
        if self.noise is not None:
            scene.prices = with_noise(scene, self.noise)
        return scene

    @property
    def label(self) -> str:
        asked = ", coordinator chooses what steps are asked with" if self.cheating else ""
        return f"{self.what}{asked}, epsilon {self.budget:g}"


SOUND = (
    Case("describe", 1, masked_every=10),
    Case("describe", 3),
    Case("describe, five hubs, one away", 1),
    Case("describe, five hubs, one away", 3),
    Case("logistic regression", 1),
    Case("logistic regression", 3, worlds=FEWER),
    Case("logistic regression", 3, cheating=True, worlds=FEWER),
)
LONG = Case("describe", 3, stretch=3.0, worlds=FEWER)
TWICE = Case("logistic regression", 3, cheating=True, score=difference, worlds=2_500)
BROKEN = {
    "noise halved": (Case("describe", 1, noise=halved), Case("describe", 3, noise=halved, worlds=FEWER)),
    "noise divided by all hubs (m = n)": (
        Case("describe", 3, noise=shared_by_all, worlds=2 * WORLDS),
        Case("describe, five hubs, one away", 3, noise=shared_by_all),
    ),
    "row three times as long, not clipped": (replace(LONG, clipped=False),),
    "noise used in two releases": (replace(TWICE, reuse=True),),
}
CONTROLS = {"row three times as long, clipped": LONG, "difference of two releases, fresh noise": TWICE}


def main() -> None:
    args = options(__doc__ or "")
    for row in rows(args.quick):
        show(row, as_json=args.json)


def rows(quick: bool) -> Iterator[Row]:
    for case in SOUND:
        yield from sound_rows(case, quick)
    for name, case in CONTROLS.items():
        yield control_row(name, case, quick)
    for name, cases in BROKEN.items():
        for case in cases:
            yield broken_row(name, case, quick)


def sound_rows(case: Case, quick: bool) -> Iterator[Row]:
    scene, scores = case.scene, attacked(case, quick)
    worlds = len(scores.inside[0])
    permitted = scene.agreement.plan.colluding
    for known, onlooker in ONLOOKERS.items():
        claimed, bound = scene.epsilon_against(len(scene.present) - known), shown(scores, known)
        name, anchor = f"{case.label}: {onlooker}", f"claimed {claimed:.4f}, charged {scene.charged:.4f}"
        anchor += f"; {worlds:,} worlds of each kind"
        yield Row(f"lower bound, {name}", bound, "epsilon", f"at most {claimed:.4f}", anchor, bound <= claimed)
        if known <= permitted:
            judged = known == permitted and not quick
            yield Row(
                f"bound over claim, {name}", bound / claimed, "", "at least 1/3" if judged else "", anchor,
                bound >= claimed / 3 if judged else None,
            )  # fmt: skip
        else:
            judged = case.budget == 3 and not scene.away and not quick
            yield Row(
                f"bound over charge, {name} (not permitted)", bound / scene.charged, "", "above 1" if judged else "",
                anchor, bound > scene.charged if judged else None,
            )  # fmt: skip
    masked = 2 * len(range(0, worlds, case.masked_every))
    yield Row(
        f"worlds summed under masks, equal bit by bit, {case.label}", masked, "worlds", "all equal", "in clear", True
    )  # fmt: skip


def control_row(name: str, case: Case, quick: bool) -> Row:
    """A sound build under the very attack that catches a broken one."""
    charged, bound = case.scene.charged, shown(attacked(case, quick), 1)
    return Row(f"{name}, {case.label}", bound, "epsilon", f"at most {charged:.4f}", "charged", bound <= charged)


def broken_row(name: str, case: Case, quick: bool) -> Row:
    charged, bound = case.scene.charged, shown(attacked(case, quick), 1)
    caught = None if quick and bound <= charged else bound > charged
    return Row(f"{name}, {case.label}", bound, "epsilon", f"caught: above {charged:.4f}", "charged", caught)


def shown(scores: Scores, known: int) -> float:
    return gaussian_dp_lower_bound(scores.inside[known], scores.outside[known], delta=DELTA, confidence=CONFIDENCE)


def attacked(case: Case, quick: bool) -> Scores:
    """Shared out over the processors; every process has its own hubs, and chance comes from the system."""
    worlds = case.worlds // QUICK_PART if quick else case.worlds
    workers = min(len(os.sched_getaffinity(0)), 8)
    shares = [worlds // workers + (k < worlds % workers) for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        parts = list(pool.map(part, [case] * workers, shares))
    known = parts[0].inside
    return Scores(
        {k: np.concatenate([p.inside[k] for p in parts]) for k in known},
        {k: np.concatenate([p.outside[k] for p in parts]) for k in known},
    )


def part(case: Case, worlds: int) -> Scores:
    """One process's worlds."""
    scene = case.scene
    masks = Masks(scene, os.urandom(16)) if case.noise is None and case.clipped and not case.reuse else None
    clip = calibrate.clip if case.clipped else not_clipped
    with patch.object(calibrate, "clip", clip):
        return attack(
            scene, worlds, entropy=os.urandom, score=case.score, masks=masks, masked_every=case.masked_every,
            reuse=case.reuse,
        )  # fmt: skip


def not_clipped(updates: np.ndarray, clip_norm: float) -> np.ndarray:
    return updates


if __name__ == "__main__":
    main()
