"""Checks of algorithms that do not give their rows as one table: blocks of them, or a hub's total at once."""

from __future__ import annotations

import numpy as np

from flute.algorithms.contract import BlockUpdates, HubTotals
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.testing.course import Trial
from flute.testing.example import mixed

_APART = 1e-9
"""Relative to the largest number: by which rounding may set a total apart from the sum of its rows."""


def blocks(trial: Trial) -> None:
    """Private: blocks are the rows of `update`, in order, none left out and none given twice, of any patients."""
    algorithm, spec, setting = trial.algorithm, trial.example.spec, trial.setting
    if trial.mode != "private" or not isinstance(algorithm, BlockUpdates):
        return
    for step, asked in trial.steps:
        for data in _hubs(trial):
            rows = trial.rows(step, asked, data)
            try:
                given = list(algorithm.blocks(spec, setting, step, asked, data))
            except Exception as error:
                raise trial.fail("blocks", f"step {step} stops between blocks: {type(error).__name__}.") from error
            if any(not isinstance(b, np.ndarray) or b.dtype != np.float64 for b in given):
                raise trial.fail("blocks", f"step {step} gives blocks that are no float64 arrays.")
            whole = np.concatenate([np.zeros((0, rows.shape[1])), *given]) if given else rows[:0]
            if whole.shape != rows.shape or not _close(whole, rows):
                raise trial.fail(
                    "blocks",
                    f"step {step}: blocks come to {whole.shape}, rows to {rows.shape}, and have to be the same "
                    "numbers in the same order: one patient's row is what the clip norm bounds.",
                )


def total(trial: Trial) -> None:
    """Exact: the total is the sum of the rows of `update`, within what a hub's patients could come to; and `counted`
    says 0 or 1 of every patient."""
    algorithm, spec, setting = trial.algorithm, trial.example.spec, trial.setting
    if trial.mode != "exact" or not isinstance(algorithm, HubTotals):
        return
    for step, asked in trial.steps:
        shape = trial.outline()[step]
        for data in _hubs(trial):
            try:
                given = algorithm.total(spec, setting, step, asked, data)
            except Exception as error:
                raise trial.fail("total", f"step {step} fails: {type(error).__name__}.") from error
            if not isinstance(given, np.ndarray) or given.shape != (shape.size,) or given.dtype != np.float64:
                raise trial.fail("total", f"step {step} has to give float64 [{shape.size}].")
            if not np.all(np.abs(given) <= len(data) * shape.magnitude * (1 + _APART)):  # nor where it is not finite
                raise trial.fail("total", f"step {step} gives more than patients times the magnitude of its outline.")
            if not _close(given, trial.rows(step, asked, data).sum(axis=0)):
                raise trial.fail("total", f"step {step} gives a total that is not the sum of the rows of `update`.")
    for data in _hubs(trial):
        counted = algorithm.counted(spec, setting, data)
        if counted.ndim != 2 or len(counted) != len(data) or not np.isin(counted, (0, 1)).all():
            raise trial.fail("total", "`counted` has to give 0 or 1 for every patient, one column for each count.")


def _hubs(trial: Trial) -> list[Dataset]:
    """Ordinary patients, hostile ones, one, and nobody."""
    places = np.arange(len(trial.data))
    strangers = mixed(trial.example, 50, trial.chance("strangers"), hostile=True)
    return [trial.data, strangers, trial.data.where(places == 0), trial.data.where(places < 0)]


def _close(one: Array, other: Array) -> bool:
    largest = max(float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return bool(np.allclose(one, other, rtol=0.0, atol=_APART * max(largest, 1.0)))
