"""Predictors as small whole numbers, on bins that are public before any record is read.

A number falls into one of `bins` equal parts of its declared range (after the logarithm, where the study takes one);
a 0/1 variable has two codes, a category one per level. Where the study says "indicate", missing is a code of its own:
below all others for numbers and 0/1 variables (so it goes where small values go, or by the lowest cut alone), one
more level of a category.

A cut asks one question of one feature: of an ordered one, whether its code is at most `cut`; of a category with more
than two codes, whether its code is `cut` (one level against the rest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import Mask, bounds, check_variable, included, known, values
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_DESIGN_COLUMNS
from flute.errors import StudyFileError

Indices = NDArray[np.int64]
_MISSING: Final = "missing"
_FLAT: Final = 0.05
"""Of the expected bell's height, everywhere: public scales may be wrong."""
_FAR: Final = 3.0
"""Units of the public scale beyond which there is no farther."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One predictor. `codes`: how many codes it has, missing included where `indicate`."""

    used: StudyVariable
    codes: int
    ordered: bool
    indicate: bool

    @property
    def name(self) -> str:
        return self.used.variable.name

    @property
    def cuts(self) -> int:
        """Questions that can be asked of it."""
        return self.codes - 1 if self.ordered or self.codes == 2 else self.codes


@dataclass(frozen=True, slots=True)
class Cuts:
    """All cuts of all features, in the order of the predictors, then of the codes.

    feature, cut: [cuts]. ordered: [cuts] whether lower codes go left too. widths: [cuts] how many codes go left.
    table: bool [features, most cuts, most codes], true for the codes that go left, to route patients by.
    starts: [features + 1] where each feature's codes begin among all.
    """

    feature: Indices
    cut: Indices
    ordered: Mask
    widths: Indices
    table: Mask
    starts: Indices

    @property
    def codes(self) -> int:
        return int(self.starts[-1])


def check_features(outcome: str, predictors: Sequence[str], setting: Setting) -> None:
    """Raises: StudyFileError: a study file's question that no model of these can be made for."""
    if known(outcome, setting).variable.kind != "binary":
        raise StudyFileError(f"outcome: {outcome!r} must be a binary variable; declare 'kind: binary'.")
    if outcome in predictors:
        raise StudyFileError(f"predictors: {outcome!r} is the outcome itself; leave it out.")
    for name in predictors:
        check_variable(known(name, setting))
        if list(predictors).count(name) > 1:
            raise StudyFileError(f"predictors: {name!r} stands twice; keep one.")
    if len(predictors) > MAX_DESIGN_COLUMNS:
        raise StudyFileError(f"predictors: at most {MAX_DESIGN_COLUMNS}; leave some out.")


def features_for(predictors: Sequence[str], bins: int, setting: Setting) -> tuple[Feature, ...]:
    """A function of public facts alone."""
    return tuple(_feature(known(name, setting), bins, setting.missing == "indicate") for name in predictors)


def _feature(used: StudyVariable, bins: int, indicate: bool) -> Feature:
    kind = used.variable.kind
    codes = {"number": bins, "binary": 2, "category": len(used.variable.levels)}[kind] + indicate
    return Feature(used, codes, kind != "category", indicate)


@lru_cache(maxsize=64)
def cuts_for(features: tuple[Feature, ...]) -> Cuts:
    starts = np.cumsum([0, *(f.codes for f in features)])
    table = np.zeros((len(features), max(f.cuts for f in features), max(f.codes for f in features)), dtype=np.bool_)
    for k, feature in enumerate(features):
        code, cut = np.arange(feature.codes), np.arange(feature.cuts)[:, None]
        table[k, : feature.cuts, : feature.codes] = code <= cut if feature.ordered else code == cut
    which = np.repeat(np.arange(len(features)), [f.cuts for f in features])
    cut = np.concatenate([np.arange(f.cuts) for f in features])
    ordered = np.array([f.ordered for f in features])[which]
    found = Cuts(which, cut, ordered, table[which, cut].sum(axis=1), table, starts)
    for array in (found.feature, found.cut, found.ordered, found.widths, found.table, found.starts):
        array.setflags(write=False)
    return found


def codes(features: Sequence[Feature], data: Dataset) -> Indices:
    """[n, features], each code in range whatever the data hold; a missing value that has no code of its own is 0
    (under "drop" such a patient is left out)."""
    found = np.zeros((len(data), len(features)), dtype=np.int64)
    for k, feature in enumerate(features):
        x = values(feature.used, data)
        missing = np.isnan(x)
        code = _binned(feature, np.where(missing, 0.0, x))
        if feature.indicate:
            code = np.where(missing, 0, code + 1) if feature.ordered else np.where(missing, feature.codes - 1, code)
        else:
            code = np.where(missing, 0, code)
        found[:, k] = code
    return found


def _binned(feature: Feature, x: Array) -> Indices:
    if feature.used.variable.kind != "number":
        return x.astype(np.int64)
    low, high = bounds(feature.used)
    bins = feature.codes - feature.indicate
    return np.clip(np.floor((x - low) / (high - low) * bins), 0, bins - 1).astype(np.int64)


def cases_among(outcome: str, predictors: Sequence[str], setting: Setting, data: Dataset) -> tuple[Mask, Mask]:
    """[n] who counts under the study's missing rule, and who of them has the outcome."""
    chosen = included(predictors, outcome, setting, data)
    return chosen, chosen & (data.column(outcome) == 1)


def rule(feature: Feature, cut: int) -> str:
    """The question that a cut asks, in words: those for whom it is so go left."""
    v, shift = feature.used.variable, int(feature.indicate)
    if v.kind == "category":
        level = _MISSING if feature.indicate and cut == feature.codes - 1 else v.levels[cut]
        return f"{v.name} is {level}"
    if feature.indicate and cut == 0:
        return f"{v.name} is {_MISSING}"
    or_missing = f" or {_MISSING}" if feature.indicate else ""
    if v.kind == "binary":
        return f"{v.name} is 0{or_missing}"
    return f"{v.name} < {threshold(feature, cut + 1 - shift):.6g}{or_missing}"


def threshold(feature: Feature, edge: int) -> float:
    """The lower edge of bin `edge`, in the variable's own unit."""
    low, high = bounds(feature.used)
    at = low + (high - low) * edge / (feature.codes - feature.indicate)
    return float(np.exp(at)) if feature.used.log else float(at)


def people_by_code(feature: Feature, opened: Array, n: float, sigma: float) -> Array:
    """[codes] patients per code: as opened where that outweighs its noise (deviation `sigma` in either class), else
    as public scales would have it."""
    expected = n * _expected(feature)
    trust = expected**2 / (expected**2 + 2 * sigma**2 + 1e-9)
    return np.asarray(np.maximum(expected + trust * (opened - expected), 0.0))


def _expected(feature: Feature) -> Array:
    """[codes] shares before anything is opened: a bell over the study's scale and a floor; levels alike."""
    shares = np.full(feature.codes, 1 / feature.codes)
    if feature.used.variable.kind == "number":
        bell = np.exp(-(public_units(feature) ** 2) / 2) + _FLAT
        shares[feature.indicate :] = bell / bell.sum() * (1 - shares[0] * feature.indicate)
    return shares


def public_units(feature: Feature) -> Array:
    """[bins] of a number: their middles on the study's public scale, within _FAR."""
    low, high = bounds(feature.used)
    used, bins = feature.used, feature.codes - feature.indicate
    given = used.scale == "reference"
    centre, spread = (used.centre, used.spread) if given else ((low + high) / 2, (high - low) / 4)
    middles = low + (high - low) * (np.arange(bins) + 0.5) / bins
    return np.asarray(np.clip((middles - centre) / spread, -_FAR, _FAR))
