"""SIMULATED pictures: bright spots on a dark, uneven ground, as a lesion on an image slice would look. Nobody's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pictures(count: int, side: int, seed: int) -> NDArray[np.float64]:
    """[count, side, side], pixels in [0, 1]."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0, 1, side)
    x, y = np.meshgrid(at, at)
    drawn = []
    for _ in range(count):
        ground = 0.25 + 0.1 * np.sin(3 * x + rng.uniform(0, 6)) * np.cos(2 * y + rng.uniform(0, 6))
        for _ in range(3):
            cx, cy, wide = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.2)
            ground = ground + rng.uniform(0.3, 0.8) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * wide**2))
        drawn.append(np.clip(ground, 0.0, 1.0))
    return np.array(drawn)
