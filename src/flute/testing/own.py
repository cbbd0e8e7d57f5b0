"""Checks of algorithms whose rows a researcher's own code computes in the sandbox: what the code is given, and what
is made of what comes out. The sandbox itself is tested where it lives."""

from __future__ import annotations

import numpy as np

from flute.algorithms.contract import Finished, Opened, OwnCode
from flute.testing.course import Trial, turned, written
from flute.testing.example import mixed


def inputs(trial: Trial) -> None:
    """One row of inputs per patient, of that patient alone, whatever the values; the request does not depend on data;
    and any opened total, noise or nothing but zeros, gives a result in plain JSON."""
    algorithm, spec, setting = trial.algorithm, trial.example.spec, trial.setting
    assert isinstance(algorithm, OwnCode)
    given = algorithm.inputs(spec, setting, trial.data)
    if given.ndim != 2 or len(given) != len(trial.data) or given.dtype != np.float64:
        raise trial.fail("inputs", f"the code is given {given.shape} for {len(trial.data)} patients; one row each.")
    last_first = algorithm.inputs(spec, setting, turned(trial.data, trial.example))
    alone = algorithm.inputs(spec, setting, trial.data.where(np.arange(len(trial.data)) == 0))
    same = np.array_equal(given[::-1], last_first, equal_nan=True) and np.array_equal(
        given[:1], alone, equal_nan=True
    )
    if not same:
        raise trial.fail("inputs", "a patient's inputs depend on others, or on the place in the table.")
    strangers = mixed(trial.example, 50, trial.chance("inputs"), hostile=True)
    if algorithm.inputs(spec, setting, strangers).shape[1:] != given.shape[1:]:
        raise trial.fail("inputs", "how many inputs the code is given depends on values.")
    if algorithm.request(spec, setting).outputs != trial.outline()[0].size:
        raise trial.fail("inputs", "the code is asked for another number of outputs than the outline opens.")
    size = trial.outline()[0].size
    for total in (np.zeros(size), trial.chance("total").normal(size) * 1e6):
        answer = algorithm.next(spec, setting, (Opened((), total, 1.0),), trial.example.inputs)
        if not isinstance(answer, Finished):
            raise trial.fail("inputs", "after its one step it still asks.")
        written(trial, "inputs", answer.result)
