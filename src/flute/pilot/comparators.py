"""Published risk calculators that the pilot's models are compared with.

A comparator is a declaration (what it needs, where it comes from) and one formula. Inputs are float64
arrays [n] or single numbers; a missing input (NaN) gives a missing risk, never a guess. Distrust other
ports of PCPTRC 2.0: the coefficients here are those of the calculator's own R code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from flute.data.variables import Array
from flute.errors import MisuseError

Inputs = Mapping[str, ArrayLike]


@dataclass(frozen=True, slots=True)
class Comparator:
    """A calculator that can be run. `needs`: names of the inputs, in the units of the pilot's variables."""

    name: str
    title: str
    outcome: str
    needs: tuple[str, ...]
    source: str
    formula: Callable[..., Array]

    def risk(self, inputs: Inputs) -> Array:
        """float64 [n] in 0 to 1; NaN where an input is missing.

        Raises: MisuseError: an input that the calculator needs is not given.
        """
        absent = [name for name in self.needs if name not in inputs]
        if absent:
            raise MisuseError(f"{self.title} needs {', '.join(absent)}.")
        return self.formula(**{name: np.asarray(inputs[name], dtype=np.float64) for name in self.needs})


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model whose discrimination is published and whose coefficients are not: it cannot be run.

    A refit on its variables is to be called by its form ("BCN2 form"), never by its name.
    """

    name: str
    variables: tuple[str, ...]
    auc: Mapping[str, float]
    source: str


# --- PBCG and PCPTRC 2.0: no cancer, low grade, high grade ------------------------------------

_PBCG: Final = (
    (-2.44052108, 0.13617244, 0.01780617, 0.78721039, -0.83613721, 0.04612721, 0.33233636),
    (-6.36851856, 0.79996510, 0.05566536, 0.61596975, -1.27437249, 0.85780143, 0.61003848),
)
_PCPTRC: Final = (
    (-3.00215469, 0.25613390, 0.01643637, 0.12172599, -0.45533257, -0.03864628, 0.27197219),
    (-7.05304534, 0.70489441, 0.04753804, 1.04174529, -0.21409933, 0.40068434, 0.22467348),
)
_Coefficients = tuple[tuple[float, ...], tuple[float, ...]]


def _three_outcomes(
    coefficients: _Coefficients,
    psa: Array,
    age: Array,
    african_ancestry: Array,
    prior_negative_biopsy: Array,
    dre: Array,
    family_history: Array,
) -> Array:
    """P(Gleason >= 7) = e^S2 / (1 + e^S1 + e^S2), S linear in the terms below. `psa` in ng/mL, `age` in years."""
    terms = (np.ones_like(psa), np.log2(psa), age, african_ancestry, prior_negative_biopsy, dre, family_history)
    low, high = (sum(c * term for c, term in zip(row, terms, strict=True)) for row in coefficients)
    risk: Array = np.exp(high) / (1 + np.exp(low) + np.exp(high))
    return risk


def pbcg(**inputs: Array) -> Array:
    """Prostate Biopsy Collaborative Group calculator: risk of Gleason >= 7."""
    return _three_outcomes(_PBCG, **inputs)


def pcptrc(**inputs: Array) -> Array:
    """PCPT risk calculator 2.0: risk of Gleason >= 7."""
    return _three_outcomes(_PCPTRC, **inputs)


# --- MRI-ERSPC -------------------------------------------------------------------------------

_ERSPC_VOLUMES_ML: Final = (25.0, 40.0, 60.0)
_ERSPC_CUTS_ML: Final = (30.0, 50.0)
_NAIVE_PIRADS: Final = (0.0, 0.0, 0.44510, 1.47778, 2.61551)
_PRIOR_PIRADS: Final = (0.0, 0.0, 0.94909, 2.67536, 3.05243)


def erspc_biopsy_naive(*, psa: Array, dre: Array, volume: Array, age: Array, pirads: Array) -> Array:
    """MRI-ERSPC, men without an earlier biopsy: risk of clinically significant cancer."""
    score = -3.457 + 1.177 * (np.log2(psa) - 2) + 1.813 * dre - 1.526 * (_log2_class(volume) - 5.4)
    logit = -5.66287 + 0.69846 * (0.718 * score + 1.069) + 0.04055 * age + _by_score(pirads, _NAIVE_PIRADS)
    return _expit(logit)


def erspc_prior_negative(*, psa: Array, dre: Array, volume: Array, age: Array, pirads: Array) -> Array:
    """MRI-ERSPC, men with an earlier negative biopsy: risk of clinically significant cancer."""
    score = -4.625 + 0.641 * (np.log2(psa) - 2) - 1.501 * (_log2_class(volume) - 5.5) + 1.311 * dre
    logit = -5.93708 + 0.74027 * (0.9420 * score + 2.1452) + 0.04286 * age + _by_score(pirads, _PRIOR_PIRADS)
    return _expit(logit)


def _log2_class(volume: Array) -> Array:
    """The calculator knows three volumes: 25 below 30 ml, 40 below 50 ml, 60 from there; log2 of it."""
    classes = np.searchsorted(np.array(_ERSPC_CUTS_ML), volume, side="right")
    chosen: Array = np.log2(np.array(_ERSPC_VOLUMES_ML))[classes]
    return np.where(np.isnan(volume), np.nan, chosen)


def _by_score(pirads: Array, terms: tuple[float, ...]) -> Array:
    """The term of PI-RADS 1-5; NaN for anything that is no score."""
    known = np.isin(pirads, np.arange(1, 6))
    index = np.where(known, pirads, 1).astype(np.int64) - 1
    return np.where(known, np.array(terms)[index], np.nan)


def _expit(logit: Array) -> Array:
    risk: Array = 1 / (1 + np.exp(-logit))
    return risk


# --- the list --------------------------------------------------------------------------------

_R_CODE: Final = "Cleveland Clinic risk calculators, github.com/ClevelandClinicQHS/riskcalc-website, "
_CLINICAL: Final = ("psa", "age", "african_ancestry", "prior_negative_biopsy", "dre", "family_history")
_WITH_MRI: Final = ("psa", "dre", "volume", "age", "pirads")
_PORT: Final = "github.com/ToishY/pca-riskcalculator, risk_calculator.py (unofficial port)"
_GLEASON_7: Final = "Gleason >= 7"

COMPARATORS: Final = {
    c.name: c
    for c in (
        Comparator("pbcg", "PBCG", _GLEASON_7, _CLINICAL, _R_CODE + "PBCG/R_code_PBCG_risk_calculator.R", pbcg),
        Comparator("pcptrc", "PCPTRC 2.0", _GLEASON_7, _CLINICAL, _R_CODE + "PCPTRC/riskcalc.R", pcptrc),
        Comparator("mri-erspc-naive", "MRI-ERSPC, biopsy-naive", "csPCa", _WITH_MRI, _PORT, erspc_biopsy_naive),
        Comparator("mri-erspc-prior", "MRI-ERSPC, prior negative", "csPCa", _WITH_MRI, _PORT, erspc_prior_negative),
    )
}

BCN1: Final = PublishedModel(
    "BCN1",
    ("age", "psa", "dre", "dre_volume_class", "family_history", "biopsy_type"),
    {"development": 0.823, "external": 0.837},
    "Cancers 2022;14:5100",
)
BCN2: Final = PublishedModel(
    "BCN2",
    ("age", "psa", "dre", "volume", "family_history", "biopsy_type", "pirads"),
    {"development": 0.897, "external": 0.858},
    "Cancers 2022;14:1589",
)


def inputs_from_pilot(columns: Mapping[str, Array], *, african_ancestry: float = 0.0) -> dict[str, Array]:
    """Calculator inputs from numbers of the pilot's variables.

    `pirads` in `columns` is the score 1-5 itself. A repeated biopsy stands for an earlier negative one (the
    pilot records no result of it), and ancestry is not recorded: one value for all, said by the caller.
    """
    inputs = {k: columns[k] for k in ("psa", "age", "dre", "family_history", "volume", "pirads") if k in columns}
    if "biopsy_type" in columns:
        inputs["prior_negative_biopsy"] = columns["biopsy_type"]
    inputs["african_ancestry"] = np.full(len(next(iter(columns.values()))), african_ancestry)
    return inputs
