"""What privacy accounting costs in time, and how far it is above the tight epsilon.

    python benchmarks/accounting.py [--quick] [--json]

Mixes are drawn as in tests/unit/test_dp_composition.py: up to 5 Gaussians, up to 3 Laplace releases, 1 to 3 kinds of
sampled steps of up to 1,000 each, delta from 1e-7 to 1e-4. The tight epsilon: the same losses on bins five times
finer, every Gaussian convolved by itself. Times are processor time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from rows import Row, options, show

from flute.dp.composition import report, slack
from flute.dp.events import Event, Gaussian, Laplace, Onlooker, PoissonSubsampled
from flute.dp.filters import Filter, GaussianFilter, RenyiFilter, ZcdpFilter
from flute.dp.gaussian import gaussian_epsilon
from flute.dp.losses import mix

MIXES, QUICK_MIXES = 50, 8


def main() -> None:
    args = options(__doc__ or "")
    rows = [*times(), *ratios(QUICK_MIXES if args.quick else MIXES), *filters()]
    for row in rows:
        show(row, as_json=args.json)


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def sampled(noise: float, rate: float) -> PoissonSubsampled:
    return PoissonSubsampled(Gaussian(1 / noise), rate, frozenset(Onlooker), "every onlooker is outside")


def random_mix(seed: int) -> tuple[list[Event], float]:
    rng = np.random.default_rng(seed)
    events: list[Event] = [Gaussian(float(mu)) for mu in 10 ** rng.uniform(-2, -0.3, rng.integers(0, 6))]
    events += [Laplace(float(epsilon)) for epsilon in 10 ** rng.uniform(-2.5, 0, rng.integers(0, 4))]
    for _ in range(rng.integers(1, 4)):
        step = sampled(float(rng.uniform(0.5, 4)), float(10 ** rng.uniform(-3, -0.7)))
        events += [step] * int(10 ** rng.uniform(0, 3))
    return events, float(10 ** rng.uniform(-7, -4))


def tight(events: list[Event], delta: float) -> float:
    counts = Counter(events)
    laplace = {event.epsilon: n for event, n in counts.items() if isinstance(event, Laplace)}
    samples = {(event.mu, 1.0): n for event, n in counts.items() if isinstance(event, Gaussian)}
    samples |= {(e.of.mu, e.rate): n for e, n in counts.items() if isinstance(e, PoissonSubsampled)}
    return mix(0.0, laplace, samples, finer=5.0).epsilon_at(delta)


def times() -> list[Row]:
    report([sampled(1.0, 0.5)], 1e-5)  # loads the library that convolves
    gaussians = [Gaussian(float(mu)) for mu in np.geomspace(1e-4, 0.2, 1000)]
    steps = [sampled(1.1, 256 / 60_000)] * 10_000
    rng = np.random.default_rng(3)
    noises, rates = rng.uniform(1.0, 1.1, 300), rng.uniform(0.01, 0.011, 300)
    jittered = [sampled(float(noise), float(rate)) for noise, rate in zip(noises, rates, strict=True)]
    exact = timed(lambda: report(gaussians, 1e-6))
    return [
        Row("1,000 distinct Gaussians", exact, "s", "< 1", "none", exact < 1),
        Row("10,000 equal sampled steps", timed(lambda: report(steps, 1e-5)), "s", "", "none", None),
        Row("300 different sampled steps", timed(lambda: report(jittered, 1e-5)), "s", "", "none", None),
        Row("300 different sampled steps, slack stated", slack(jittered, 1e-5), "ratio", "", "best case", None),
    ]


def ratios(count: int) -> list[Row]:
    found = []
    for seed in range(count):
        events, delta = random_mix(seed)
        found.append(report(events, delta).epsilon / tight(events, delta))
    anchor = f"{count} mixes on bins five times finer"
    most, least = (100 * (extreme(found) - 1) for extreme in (max, min))
    return [
        Row("epsilon above the tight one, most", most, "%", "<= 1", anchor, most <= 1),
        Row("epsilon above the tight one, least", least, "%", ">= 0", anchor, least >= 0),
    ]


def filters() -> list[Row]:
    rows = []
    kinds: tuple[tuple[Filter, Event], ...] = (
        (ZcdpFilter.within(1.0, 1e-6, "a study"), Gaussian(0.001)),
        (GaussianFilter.within(1.0, 1e-6, "a study"), Gaussian(0.001)),
        (RenyiFilter.within(1.0, 1e-6, "a study"), sampled(1.1, 0.001)),
    )
    for start, event in kinds:
        rows.append(Row(f"{type(start).__name__}, a step", step_us(start, event), "us", "", "none", None))
    one = gaussian_epsilon(0.2367, 1e-6)
    rows.append(
        Row("epsilon of mu = 0.2367 at 1e-6", one, "epsilon", "1.000", "Balle and Wang 2018", abs(one - 1) < 1e-3)
    )
    return rows


def step_us(now: Filter, event: Event, steps: int = 1000) -> float:
    started = time.process_time()
    for _ in range(steps):
        now = now.after(event)
    return (time.process_time() - started) / steps * 1e6


if __name__ == "__main__":
    main()
