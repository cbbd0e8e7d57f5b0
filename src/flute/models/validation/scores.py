"""Scores of a cross-validation: rows at a hub, and what the opened sums say.

One block: [histogram of risk with the outcome | without it | risk - 1/2 | squared error - 1/2 | log-loss / cap -
1/2]; exact one for each fold, private one for all folds together. Its norm is sqrt(f_0^2 + ... + 3/4), as in
`evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from flute.algorithms.contract import Opened
from flute.algorithms.design import Mask
from flute.algorithms.prefix import Counts, norm_squared, opened_counts, rows
from flute.algorithms.scores import Z_95, model_scores, risk_edges
from flute.data.variables import Array
from flute.defaults import LOG_LIKELIHOOD_CAP
from flute.defaults.models.around_models import LOSS_CAP

_SUMS: Final = 3
_SHORT: Final = ("n", "events", "auc", "brier", "log_loss")
"""What is told of a single fold."""


def block_size(bins: int) -> int:
    return 2 * bins + _SUMS


def block_norm(bins: int, *, private: bool) -> float:
    return float(np.sqrt(norm_squared(bins, private=private) + _SUMS / 4))


def block_rows(risk: Array, outcome: Mask, scored: Mask, bins: int, *, private: bool) -> Array:
    """[n, 2 bins + 3], zero where not scored. risk: [n] in [0, 1]."""
    risk = np.where(scored, risk, 0.5)
    at = np.clip(np.searchsorted(risk_edges(bins), risk, side="right") - 1, 0, bins - 1)
    cases = rows(np.where(scored & outcome, at, -1).astype(np.int64), bins, private=private)
    controls = rows(np.where(scored & ~outcome, at, -1).astype(np.int64), bins, private=private)
    cap = _cap(private=private)
    happened = np.where(outcome, risk, 1 - risk)
    loss = np.minimum(-np.log(np.maximum(happened, np.exp(-cap))), cap) / cap
    sums = np.column_stack([risk - 0.5, (outcome - risk) ** 2 - 0.5, loss - 0.5]) * scored[:, None]
    return np.hstack([cases, controls, sums])


def told(opened: Opened, folds: int, bins: int, endings: Sequence[str], *, private: bool) -> dict[str, Any]:
    """Scores of all patients together by the fits that had not seen them; exact also fold by fold, and their mean."""
    blocks = opened.total.reshape(1 if private else folds, block_size(bins))
    whole = _scored(blocks.sum(axis=0), bins, opened.sigma, private=private)
    each: list[dict[str, Any]] = [{"ending": ending} for ending in endings]
    if not private:
        scores = [_scored(block, bins, 0.0, private=False) for block in blocks]
        each = [{**one, **{name: s[name] for name in _SHORT}} for one, s in zip(each, scores, strict=True)]
    return {
        **whole,
        "mean_auc": None if private else _mean_auc([one["auc"] for one in each]),
        "folds": each,
        "risk_edges": risk_edges(bins).tolist(),
    }


def _scored(block: Array, bins: int, sigma: float, *, private: bool) -> dict[str, Any]:
    cases = opened_counts(block[:bins], sigma, private=private)
    controls = opened_counts(block[bins : 2 * bins], sigma, private=private)
    found = model_scores(cases, controls, block[2 * bins : 2 * bins + 2], risk_edges(bins), sigma)
    known = found["auc"] is not None
    return {**found, "log_loss": _log_loss(cases, controls, float(block[-1]), sigma, private) if known else None}


def _log_loss(cases: Counts, controls: Counts, centred: float, sigma: float, private: bool) -> dict[str, float]:
    """Mean in nats; a patient's counts as at most the cap."""
    n, cap = cases.total + controls.total, _cap(private=private)
    ones, part = np.ones(len(cases.raw)), centred / n
    counted = float(np.hypot(cases.noise_sd(ones), controls.noise_sd(ones)))
    return {
        "value": cap * float(np.clip(0.5 + part, 0.0, 1.0)),
        "noise_se": cap * float(np.hypot(sigma, part * counted)) / n,
    }


def _mean_auc(found: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    """Over folds in which patients with and without the outcome were scored."""
    areas = [one for one in found if one is not None]
    if not areas:
        return None
    value = float(np.mean([one["value"] for one in areas]))
    se = float(np.sqrt(np.sum([one["se"] ** 2 for one in areas]))) / len(areas)
    return {"value": value, "low": max(value - Z_95 * se, 0.0), "high": min(value + Z_95 * se, 1.0), "se": se}


def _cap(*, private: bool) -> float:
    return LOSS_CAP if private else LOG_LIKELIHOOD_CAP
