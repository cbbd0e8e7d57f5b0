"""What a hub released about a dataset: numbers under noise, each with an interval that includes the noise.

The intervals are about the frozen records themselves, not about a population behind them: noise is all that lies
between the shown and the true number, besides the width of a histogram's bin for a quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
from msgspec import Meta, Struct

from flute.algorithms.prefix import opened_counts
from flute.data.variables import Array, Variable
from flute.messages.limits import Name, Seconds

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054
"""Half width of a 95 % interval in deviations of a normal distribution."""


class Estimate(Struct, frozen=True, forbid_unknown_fields=True):
    """A noised number; the true one lies in [low, high] with a chance of about 95 %. All None where the noise left
    nothing to tell."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def error(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Figures(Struct, frozen=True, forbid_unknown_fields=True):
    """One variable. `n`: persons with a value. A number has mean, sd, quantiles (by percent) and a histogram over
    its declared range; a category or a 0/1 variable has the persons at each level."""

    name: Name
    kind: Literal["number", "binary", "category"]
    n: Estimate
    missing: Estimate
    mean: Estimate | None = None
    sd: Estimate | None = None
    quantiles: Mapping[str, Estimate] = {}
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    count_error: float = 0.0
    """Largest half width of a 95 % interval of one of `counts`."""
    levels: Mapping[str, Estimate] = {}

    @property
    def missing_share(self) -> float:
        """Between 0 and 1."""
        n, missing = self.n.value or 0.0, self.missing.value or 0.0
        return missing / (n + missing) if n + missing > 0 else 0.0


class Statistics(Struct, frozen=True, forbid_unknown_fields=True):
    """One release. `epsilon` at `delta`, and `rho` (mu^2/2): its price per patient, charged to the hub's catalogue
    budget. `line`: the journal's line of the charge."""

    dataset: Name
    snapshot: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    at: Seconds
    epsilon: float
    delta: float
    rho: float
    line: int
    bins: int
    persons: Estimate
    variables: tuple[Figures, ...]
    simulated: bool
    confidence: float = CONFIDENCE

    @property
    def sentence(self) -> str:
        """Price and error, for whoever reads the numbers."""
        error = self.persons.error
        about = f"; the number of persons is right within {error:.0f} (95 %)" if error is not None else ""
        return (
            f"Differentially private: epsilon {self.epsilon:g} at delta {self.delta:g} per patient for all numbers "
            f"together, each under fresh Gaussian noise{about}. Intervals include the noise."
        )

    def figures(self, name: str) -> Figures | None:
        return next((f for f in self.variables if f.name == name), None)


def figures(variable: Variable, described: Mapping[str, Any], bins: int) -> Figures:
    """One variable of the result of question `describe` (`algorithms.statistics`), with intervals."""
    n, missing = _count(described["n"]), _count(described["missing"])
    if variable.kind != "number":
        assert variable.kind != "image"  # the catalogue describes none
        levels = {level: _count({**found, "value": found["count"]}) for level, found in described["levels"].items()}
        return Figures(variable.name, variable.kind, n, missing, levels=levels)
    width = (variable.high - variable.low) / bins
    histogram = described["histogram"]
    return Figures(
        name=variable.name,
        kind=variable.kind,
        n=n,
        missing=missing,
        mean=_within(variable, described["mean"], 0.0),
        sd=_spread(variable, described["sd"]),
        quantiles={q: _within(variable, found, width) for q, found in described["quantiles"].items()},
        edges=tuple(histogram["edges"]),
        counts=tuple(histogram["counts"]),
        count_error=_Z * max(histogram["noise_se"]),
    )


def persons(variables: tuple[Variable, ...], values: Array, sigma: float, bins: int) -> Estimate:
    """How many persons the snapshot has: every variable's block of the opened vector counts them once (with a value,
    or missing), so the blocks' counts are averaged by their noise. Unbiased: nothing is cut off before.

    The layout of a block is that of `algorithms.statistics`."""
    weights, weighted, start = 0.0, 0.0, 0
    for variable in variables:
        size = bins + 3 if variable.kind == "number" else max(len(variable.levels), 2) + 1
        block = values[start : start + size]
        start += size
        if variable.kind == "number":
            counts = opened_counts(block[:bins], sigma, private=True)
            count = float(counts.prefix[-1] + block[-1])
            spread = float(np.hypot(counts.prefix_noise_sds()[-1], sigma))
        else:
            count, spread = float(block.sum()), sigma * float(np.sqrt(size))
        weights += spread**-2
        weighted += count * spread**-2
    return estimate(weighted / weights, weights**-0.5, 0.0, float("inf"))


def estimate(value: float | None, noise_se: float, low: float, high: float, extra: float = 0.0) -> Estimate:
    """The interval of a number whose noise has the deviation `noise_se`, cut to the possible [low, high]."""
    if value is None:
        return Estimate(None, None, None)
    half = _Z * noise_se + extra
    return Estimate(min(max(value, low), high), max(value - half, low), min(value + half, high))


def _count(found: Mapping[str, Any]) -> Estimate:
    return estimate(found["value"], found["noise_se"], 0.0, float("inf"))


def _within(variable: Variable, found: Mapping[str, Any], extra: float) -> Estimate:
    return estimate(found["value"], found["noise_se"], variable.low, variable.high, extra)


def _spread(variable: Variable, found: Mapping[str, Any]) -> Estimate:
    return estimate(found["value"], found["noise_se"], 0.0, variable.high - variable.low)
