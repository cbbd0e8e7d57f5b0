"""The risk model behind the simulated men: how age, PSA, volume, examination, MRI and cancer hang together.

Per man, in this order: age, family, biopsy type, volume, true PSA, examination, cancer, PI-RADS, ISUP. The
examination, the cancer and the MRI follow the true PSA; what is recorded is the hospital's assay of it.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator  # noqa: TID251 the caller's, seeded on purpose: simulated men, no secret
from numpy.typing import NDArray

from flute.data.variables import Array
from flute.pilot.tables import (
    ISUP_WITH,
    ISUP_WITH_PIRADS_5,
    ISUP_WITHOUT,
    MEAN_LN_VOLUME,
    PIRADS_WEIGHTS,
    VOLUME_CLASS_CUTS_ML,
    HubFigures,
)

Columns = dict[str, Array]


def draw_men(chance: Generator, figures: HubFigures, n: int) -> Columns:
    """`n` men of one hospital before any selection: float64 [n] per name of TRUTH, nothing missing."""
    age = np.clip(np.rint(figures.mean_age + 7.3 * chance.standard_normal(n)), 45, 85)
    family = (chance.random(n) < figures.family_history).astype(np.float64)
    repeated = (chance.random(n) < figures.repeated).astype(np.float64)
    ln_volume = np.log(MEAN_LN_VOLUME) + 0.010 * (age - 67) + 0.12 * repeated + 0.45 * chance.standard_normal(n)
    volume = np.clip(_one_decimal(np.exp(ln_volume)), 15, 250)
    ln_relative = np.log(volume) - np.log(MEAN_LN_VOLUME)
    ln_psa = figures.ln_psa + 0.30 * ln_relative + 0.55 * chance.standard_normal(n)
    dre = _happens(chance, figures.dre + 0.45 * (ln_psa - 1.9) + 0.020 * (age - 67))
    felt = volume * np.exp(0.25 * chance.standard_normal(n))
    cspca = _happens(
        chance,
        figures.risk + 0.050 * (age - 67) + 0.45 * family - 0.80 * repeated
        + 1.20 * (ln_psa - np.log(6.7)) + 1.10 * dre - 1.40 * ln_relative,
    )  # fmt: skip
    density = (ln_psa - np.log(volume) + 2.1) / 0.68
    pirads = _pirads(chance, figures, cspca, density)
    return {
        "age": age,
        "psa": np.clip(_one_decimal(np.exp(ln_psa) * figures.assay), 0.3, 150),
        "dre": dre,
        "biopsy_type": repeated,
        "volume": volume,
        "pirads": pirads,
        "family_history": family,
        "cspca": cspca,
        "isup": _isup(chance, cspca, pirads),
        "dre_volume_class": 1.0 + np.searchsorted(np.array(VOLUME_CLASS_CUTS_ML), felt, side="right"),
    }


def _one_decimal(values: Array) -> Array:
    """Half up, as rule-1 of the profiles is written by us; the division gives the nearest double to the decimal."""
    return np.floor(values * 10 + 0.5) / 10


def _happens(chance: Generator, logit: Array) -> Array:
    drawn: Array = (chance.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return drawn


def _pick(chance: Generator, shares: Array) -> NDArray[np.int64]:
    """One category per row of `shares` [n, k], whose rows add up to 1: its index, 0 first."""
    below = np.cumsum(shares, axis=1)[:, :-1] < chance.random(len(shares))[:, None]
    return np.asarray(below.sum(axis=1), dtype=np.int64)


def _pirads(chance: Generator, figures: HubFigures, cspca: Array, density: Array) -> Array:
    scores = np.arange(1, 6)
    tilt = (0.45 * density + figures.pirads_shift)[:, None] * (scores - 3)
    weights = np.array(PIRADS_WEIGHTS)[cspca.astype(int)] * np.exp(tilt)
    shares = weights / weights.sum(axis=1, keepdims=True)
    blurred = (1 - figures.pirads_blur) * shares + figures.pirads_blur / 5
    return np.asarray(1.0 + _pick(chance, blurred), dtype=np.float64)


def _isup(chance: Generator, cspca: Array, pirads: Array) -> Array:
    shares = np.zeros((len(cspca), 6))
    shares[:, :2] = ISUP_WITHOUT
    shares[cspca == 1] = [0, 0, *ISUP_WITH]
    shares[(cspca == 1) & (pirads == 5)] = [0, 0, *ISUP_WITH_PIRADS_5]
    return _pick(chance, shares).astype(np.float64)
